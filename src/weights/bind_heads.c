/* bind_heads.c - see bind.h: matrices that hold the rows of heads in turn, taken apart: what DeepSeek's latent attention expands latents with, and
 * the products of Qwen3-Next's delta nets. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "weights/bind_internal.h"

/* Rows [first, first + rows) of each head's `all` rows of w: as they are, in `out` [heads][rows][cols], or turned, [heads][cols][rows]. Plain formats
 * keep their type, others become float32. */
static bool take(binder *b, weight *out, const weight *w, int64_t all, int64_t first, int64_t rows, bool turn)
{
    bool plain = w->format == WF_F32 || w->format == WF_F16 || w->format == WF_BF16;
    size_t unit = plain ? weight_row_bytes(w) / (size_t)w->cols : sizeof(float), count = (size_t)(out->experts * rows * w->cols), bytes;
    out->format = plain ? w->format : WF_F32;
    out->name = w->name;
    char *to = mem_mul(count, unit, &bytes) ? arena_alloc_raw(b->memory, bytes) : NULL;
    float *wide = plain ? NULL : arena_alloc_raw(b->memory, (size_t)w->cols * sizeof *wide);
    if (!to || (!plain && !wide)) return bind_memory(b, count * unit);
    out->data = to;
    for (int64_t h = 0; h < out->experts; h++, to += (size_t)(rows * w->cols) * unit) {
        for (int64_t i = 0; i < rows; i++) {
            int64_t row = h * all + first + i;
            const char *from = plain ? (const char *)w->data + (size_t)(row * w->cols) * unit : (const char *)wide;
            if (!plain) weight_row_f32(w, row, wide);
            if (!turn) memcpy(to + (size_t)(i * w->cols) * unit, from, (size_t)w->cols * unit);
            else for (int64_t c = 0; c < w->cols; c++) memcpy(to + (size_t)(c * rows + i) * unit, from + (size_t)c * unit, unit);
        }
    }
    return true;
}

void bind_heads(binder *b, weight *keys, weight *values, int64_t heads, int64_t key_rows, int64_t value_rows, int64_t cols, const char *format, ...)
{
    char name[NAME_MAX_BYTES / 2];
    int64_t all = key_rows + value_rows;
    *keys = (weight){.rows = cols, .cols = key_rows, .experts = heads};
    *values = (weight){.rows = value_rows, .cols = cols, .experts = heads};
    if (b->failed) return;
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    weight whole = {.rows = heads * all, .cols = cols};
    bool ok;
    if (b->files) {
        ok = bind_read_matrix(b, &whole, name);
        if (!ok && !b->failed) bind_missing(b, name, ".weight");
        ok = ok && take(b, keys, &whole, all, 0, key_rows, true) && take(b, values, &whole, all, key_rows, value_rows, false);
    } else
        ok = bind_dummy(b, keys, name) && bind_dummy(b, values, name);
    if (!ok || !bind_add(b, keys)) keys->data = NULL;
    if (!ok || !keys->data || !bind_add(b, values)) values->data = NULL;
}

/* Rows pick[0], pick[1] ... of w. */
static bool pick_rows(binder *b, weight *out, const weight *w, const int32_t *pick)
{
    bool affine = w->format == WF_AFFINE;
    size_t row = weight_row_bytes(w), units = affine ? (size_t)(w->cols / w->group) * dtype_size(w->scale_type) : 0;
    char *data = arena_alloc_raw(b->memory, (size_t)out->rows * row), *scales = NULL, *biases = NULL;
    if (affine) scales = arena_alloc_raw(b->memory, (size_t)out->rows * units), biases = arena_alloc_raw(b->memory, (size_t)out->rows * units);
    if (!data || (affine && (!scales || !biases))) return bind_memory(b, (size_t)out->rows * row);
    int64_t rows = out->rows;
    *out = *w;
    out->rows = rows;
    out->data = data, out->scales = scales, out->biases = biases;
    for (int64_t i = 0; i < rows; i++) {
        weight one = weight_rows(w, pick[i], 1);
        memcpy(data + (size_t)i * row, one.data, row);
        if (affine) memcpy(scales + (size_t)i * units, one.scales, units), memcpy(biases + (size_t)i * units, one.biases, units);
    }
    return true;
}

void bind_linear_picks(binder *b, int count, weight *const *out, const int64_t *rows, const int32_t *const *pick, int64_t cols, const char *format, ...)
{
    char name[NAME_MAX_BYTES / 2];
    weight whole = {.cols = cols};
    for (int i = 0; i < count; i++) {
        *out[i] = (weight){.rows = rows[i], .cols = cols};
        whole.rows += rows[i];
    }
    if (b->failed) return;
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    bool ok = b->files ? bind_read_matrix(b, &whole, name) : bind_dummy(b, &whole, name);
    if (!ok && !b->failed) bind_missing(b, name, ".weight");
    for (int i = 0; i < count; i++)
        if (!(ok = ok && pick_rows(b, out[i], &whole, pick[i]) && bind_add(b, out[i]))) out[i]->data = NULL;
}
