/* bind_kernel.c - see bind.h: kernels of convolutions, which PyTorch stores channels first and MLX channels last; matrices stored transposed. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "weights/bind_internal.h"

bool bind_is_mlx(const binder *b)
{
    return b->files && (!strcmp(checkpoint_format(b->files), "mlx") || json_is_object(json_object_get(b->cfg->root, "quantization")));
}

/* Which of two layouts the kernel has: 0 channels first, 1 channels last, -1 neither (the binder has failed). */
static int kernel_layout(binder *b, const stored_tensor *t, int dims, const int64_t *first, const int64_t *last)
{
    bool a = bind_has_shape(t, dims, first), z = bind_has_shape(t, dims, last);
    if (a && z) return bind_is_mlx(b);
    if (a || z) return z;
    bind_wrong_shape(b, t, dims, bind_is_mlx(b) ? last : first);
    return -1;
}

/* out[o][b][a] = in[o][a][b] for matrices [a, b] of elements of `unit` bytes. */
static void transpose_each(uint8_t *out, const uint8_t *in, int64_t n, int64_t rows, int64_t cols, size_t unit)
{
    for (int64_t o = 0; o < n; o++, in += (size_t)(rows * cols) * unit)
        for (int64_t c = 0; c < cols; c++)
            for (int64_t r = 0; r < rows; r++, out += unit) memcpy(out, in + (size_t)(r * cols + c) * unit, unit);
}

/* The kernel `name`.weight of a convolution. In dummy mode made up: *t is NULL and w is ready. False after failure. */
static bool find_kernel(binder *b, weight *w, const stored_tensor **t, const char *format, va_list args)
{
    char name[NAME_MAX_BYTES / 2];
    *t = NULL;
    if (b->failed) return false;
    vsnprintf(name, sizeof name, format, args);
    if (w->rows <= 0 || w->cols <= 0 || w->rows >= SIDE_LIMIT || w->cols >= SIDE_LIMIT) return bind_fail(b, VLM_FORMAT, "%s: the kernel has no size", name);
    if (!b->files) {
        const char *asked = b->dummy_format;
        b->dummy_format = "f32";                                     /* kernels are never quantized */
        bool ok = bind_dummy(b, w, name);
        b->dummy_format = asked;
        return ok;
    }
    *t = bind_find_matrix(b, name);
    if (!*t) return bind_missing(b, name, ".weight"), false;
    w->name = (*t)->name;
    return true;
}

/* Channels first or last in the file, channels last in memory: float32 [outputs, taps * inputs]. */
static void bind_spread(binder *b, weight *out, int64_t inputs, int dims, const int64_t *first, const int64_t *last, const char *format, va_list args)
{
    const stored_tensor *t;
    if (find_kernel(b, out, &t, format, args) && t) {
        int layout = kernel_layout(b, t, dims, first, last);
        const float *in = layout < 0 ? NULL : bind_floats_of(b, t);
        float *copy = in && layout == 0 ? arena_alloc_raw(b->memory, (size_t)(out->rows * out->cols) * sizeof *copy) : NULL;
        if (in && layout == 0 && !copy) bind_memory(b, (size_t)(out->rows * out->cols) * sizeof *copy);
        if (copy) transpose_each((uint8_t *)copy, (const uint8_t *)in, out->rows, inputs, out->cols / inputs, sizeof *copy);
        out->data = layout == 0 ? copy : in;
    }
    if (out->data) bind_add(b, out);
}

void bind_conv2d(binder *b, weight *out, int64_t outputs, int64_t inputs, int kh, int kw, const char *format, ...)
{
    *out = (weight){.rows = outputs, .cols = inputs * kh * kw, .format = WF_F32};
    va_list args;
    va_start(args, format);
    bind_spread(b, out, inputs, 4, (const int64_t[]){outputs, inputs, kh, kw}, (const int64_t[]){outputs, kh, kw, inputs}, format, args);
    va_end(args);
}

void bind_conv1d(binder *b, weight *out, int64_t outputs, int64_t inputs, int kernel, const char *format, ...)
{
    *out = (weight){.rows = outputs, .cols = inputs * kernel, .format = WF_F32};
    va_list args;
    va_start(args, format);
    bind_spread(b, out, inputs, 3, (const int64_t[]){outputs, inputs, kernel}, (const int64_t[]){outputs, kernel, inputs}, format, args);
    va_end(args);
}

void bind_conv3d(binder *b, weight *out, int64_t outputs, int64_t inputs, int frames, int kh, int kw, const char *format, ...)
{
    int64_t taps = (int64_t)frames * kh * kw;
    *out = (weight){.rows = outputs, .cols = inputs * taps};
    const stored_tensor *t;
    char name[NAME_MAX_BYTES / 2];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    va_start(args, format);
    bool ok = find_kernel(b, out, &t, format, args);
    va_end(args);
    if (ok && t && bind_plain_format(b, out, t)) {
        const int64_t first[5] = {outputs, inputs, frames, kh, kw}, last[5] = {outputs, frames, kh, kw, inputs};
        const int64_t first2[4] = {outputs, inputs, kh, kw}, last2[4] = {outputs, kh, kw, inputs}, flat[2] = {outputs, out->cols};
        int layout;
        if (t->dims == 2) layout = bind_check_shape(b, t, 2, flat) ? 0 : -1;
        else if (t->dims == 4 && frames == 1) layout = kernel_layout(b, t, 4, first2, last2);
        else layout = kernel_layout(b, t, 5, first, last);
        const uint8_t *in = layout < 0 ? NULL : bind_aligned(b, t);
        uint8_t *copy = in && layout == 1 ? arena_alloc_raw(b->memory, t->bytes) : NULL;
        if (in && layout == 1 && !copy) bind_memory(b, t->bytes);
        if (copy) transpose_each(copy, in, outputs, taps, inputs, dtype_size(t->type));
        out->data = layout == 1 ? copy : in;
    }
    if (out->data && bind_low_rank(b, out, name, 0, NULL, NULL)) bind_add(b, out);
}

void bind_conv1d_depthwise(binder *b, const float **out, int64_t channels, int kernel, const char *format, ...)
{
    weight shape = {.rows = channels, .cols = kernel};
    const stored_tensor *t;
    *out = NULL;
    va_list args;
    va_start(args, format);
    bool ok = find_kernel(b, &shape, &t, format, args);
    va_end(args);
    if (ok && t) {
        const int64_t first[3] = {channels, 1, kernel}, last[3] = {channels, kernel, 1};
        if (kernel_layout(b, t, 3, first, last) >= 0) *out = bind_floats_of(b, t);
    } else if (ok) {
        *out = shape.data;
    }
    if (*out) b->parameters += (uint64_t)(channels * kernel);
}

/* Row r of an expert becomes row r / 2, or rows / 2 + r / 2 when it is odd. */
static void part_rows(uint8_t *out, const uint8_t *in, int64_t experts, int64_t rows, size_t row_bytes)
{
    for (int64_t e = 0; e < experts; e++, in += (size_t)rows * row_bytes, out += (size_t)rows * row_bytes)
        for (int64_t r = 0; r < rows; r++) memcpy(out + (size_t)(r / 2 + r % 2 * (rows / 2)) * row_bytes, in + (size_t)r * row_bytes, row_bytes);
}

static void bind_transposed(binder *b, weight *out, bool parted, const char *format, va_list args)
{
    char name[NAME_MAX_BYTES / 2];
    if (b->failed) return;
    vsnprintf(name, sizeof name, format, args);
    if (b->files) {
        const stored_tensor *t = bind_find_matrix(b, name);
        const int64_t dim[3] = {out->experts, out->cols, out->rows};
        int skip = out->experts ? 0 : 1;
        if (!t) { bind_missing(b, name, ""); return; }
        if (!bind_plain_format(b, out, t) || !bind_check_shape(b, t, 3 - skip, dim + skip)) return;
        out->name = t->name;
        uint8_t *copy = arena_alloc_raw(b->memory, t->bytes);
        if (!copy) { bind_memory(b, t->bytes); return; }
        transpose_each(copy, t->data, out->experts ? out->experts : 1, out->cols, out->rows, dtype_size(t->type));
        out->data = copy;
        if (parted) {
            uint8_t *again = arena_alloc_raw(b->memory, t->bytes);
            if (!again) { out->data = NULL; bind_memory(b, t->bytes); return; }
            part_rows(again, copy, out->experts, out->rows, weight_row_bytes(out));
            out->data = again;
        }
    } else if (!bind_dummy(b, out, name)) return;
    if (!bind_add(b, out)) out->data = NULL;
}

void bind_experts_transposed(binder *b, weight *out, int64_t experts, int64_t rows, int64_t cols, const char *format, ...)
{
    *out = (weight){.rows = rows, .cols = cols, .experts = experts};
    va_list args;
    va_start(args, format);
    bind_transposed(b, out, false, format, args);
    va_end(args);
}

void bind_linear_transposed(binder *b, weight *out, int64_t rows, int64_t cols, const char *format, ...)
{
    *out = (weight){.rows = rows, .cols = cols};
    va_list args;
    va_start(args, format);
    bind_transposed(b, out, false, format, args);
    va_end(args);
}

void bind_experts_interleaved(binder *b, weight *out, int64_t experts, int64_t rows, int64_t cols, const char *format, ...)
{
    *out = (weight){.rows = rows, .cols = cols, .experts = experts};
    va_list args;
    va_start(args, format);
    bind_transposed(b, out, true, format, args);
    va_end(args);
}

void bind_vector_interleaved(binder *b, const float **out, int64_t experts, int64_t rows, const char *format, ...)
{
    char name[NAME_MAX_BYTES / 2];
    const float *in = NULL;
    *out = NULL;
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    bind_vector(b, &in, experts * rows, "%s", name);
    float *copy = in ? arena_alloc_raw(b->memory, (size_t)(experts * rows) * sizeof *copy) : NULL;
    if (in && !copy) bind_memory(b, (size_t)(experts * rows) * sizeof *copy);
    if (copy) part_rows((uint8_t *)copy, (const uint8_t *)in, experts, rows, sizeof *copy);
    *out = copy;
}
