/* bind_heads.c - see bind.h: the matrix that DeepSeek's latent attention expands latents with, taken apart by heads. */
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
