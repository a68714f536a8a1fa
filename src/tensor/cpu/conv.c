/* conv.c - convolutions of ops_cpu: in two dimensions as a matrix product over neighbourhoods, in one for each column by itself. */
#include <string.h>

#include "tensor/cpu/rows.h"

static int64_t grain_of(int64_t values) { return values > 0 ? (16384 + values - 1) / values : 16384; }

typedef struct patch_job {
    const cpu_kernels *k;
    tensor to, x;
    conv_shape c;
    int64_t first;
    tensor turned;                                 /* direct convolution: weights [kh * kw * in, out] */
    const float *bias;
} patch_job;

/* The kh x kw neighbourhood of an output place, zero outside of the image. */
static void patch(const patch_job *j, int64_t place, float *to)
{
    const conv_shape *c = &j->c;
    int64_t top = place / c->out_width * c->stride - c->top, left = place % c->out_width * c->stride - c->left, in = j->x.cols;
    for (int64_t y = top; y < top + c->kh; y++) {
        for (int64_t x = left; x < left + c->kw; x++, to += in) {
            bool inside = y >= 0 && y < c->height && x >= 0 && x < c->width;
            if (inside && in == 1) *to = *tensor_row(j->x, y * c->width + x);
            else if (inside) memcpy(to, tensor_row(j->x, y * c->width + x), (size_t)in * sizeof *to);
            else memset(to, 0, (size_t)in * sizeof *to);
        }
    }
}

/* Row i of `to`: neighbourhood first + i. */
static void patch_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const patch_job *j = arg;
    for (int64_t i = begin; i < end; i++) patch(j, j->first + i, tensor_row(j->to, i));
}

enum { DIRECT = 96 };                              /* so few values in a neighbourhood: a product of matrices has nothing to hold on to */

static void direct_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const patch_job *j = arg;
    float values[DIRECT];
    for (int64_t i = begin; i < end; i++) {
        patch(j, i, values);
        j->k->mix(tensor_row(j->to, i), values, j->turned.data, j->turned.cols, (int)j->turned.rows, j->bias, j->to.cols);
    }
}

/* Outputs along the vector. */
static void direct(run *r, patch_job *j, const weight *w)
{
    arena_mark mark = arena_get_mark(r->scratch);
    tensor row = run_tensor(r, 1, w->cols);
    j->turned = run_tensor(r, w->cols, w->rows);
    for (int64_t o = 0; run_ok(r) && o < w->rows; o++) {
        weight_row_f32(w, o, row.data);
        for (int64_t c = 0; c < w->cols; c++) tensor_row(j->turned, c)[o] = tensor_row(row, 0)[c];
    }
    if (run_ok(r)) pool_for(r->dev->pool, j->to.rows, grain_of(w->rows * (w->cols / 4 + 1)), direct_rows, j);
    arena_release(r->scratch, mark);
}

/* Neighbourhoods as rows, a slab at a time, then a matrix product; small neighbourhoods at once. */
void cpu_conv2d(run *r, tensor y, tensor x, const conv_shape *c, const weight *w, const float *bias)
{
    enum { SLAB_VALUES = 4 << 20 };
    patch_job j = {.k = cpu_kernels_of(r), .to = y, .x = x, .c = *c, .bias = bias};
    if (w->cols <= DIRECT) {
        direct(r, &j, w);
        return;
    }
    int64_t slab = SLAB_VALUES / w->cols > 64 ? SLAB_VALUES / w->cols : 64;
    for (int64_t first = 0; first < y.rows && run_ok(r); first += slab) {
        arena_mark mark = arena_get_mark(r->scratch);
        tensor part = tensor_rows(y, first, y.rows - first < slab ? y.rows - first : slab);
        j.to = run_tensor(r, part.rows, w->cols);
        j.first = first;
        if (run_ok(r)) {
            pool_for(r->dev->pool, part.rows, grain_of(w->cols), patch_rows, &j);
            r->dev->ops->linear(r, part, j.to, w, bias);
        }
        arena_release(r->scratch, mark);
    }
}

enum { MAX_KERNEL = 64 };

typedef struct depthwise_job { const cpu_kernels *k; tensor out, in; const float *w; int kernel, left; } depthwise_job;

static void depthwise_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const depthwise_job *j = arg;
    const float *x[MAX_KERNEL];
    for (int64_t i = begin; i < end; i++) {
        for (int k = 0; k < j->kernel; k++) {
            int64_t t = i + k - j->left;
            x[k] = t >= 0 && t < j->in.rows ? tensor_row(j->in, t) : NULL;
        }
        j->k->depthwise(tensor_row(j->out, i), x, j->w, j->out.cols, j->kernel, j->out.cols);
    }
}

typedef struct depthwise2d_job { const cpu_kernels *k; tensor out, in; const float *w, *bias; conv_shape c; } depthwise2d_job;

static void depthwise2d_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const depthwise2d_job *j = arg;
    const conv_shape *c = &j->c;
    const float *x[MAX_KERNEL];
    for (int64_t i = begin; i < end; i++) {
        int64_t top = i / c->out_width * c->stride - c->top, left = i % c->out_width * c->stride - c->left;
        for (int k = 0; k < c->kh * c->kw; k++) {
            int64_t row = top + k / c->kw, column = left + k % c->kw;
            x[k] = row >= 0 && row < c->height && column >= 0 && column < c->width ? tensor_row(j->in, row * c->width + column) : NULL;
        }
        float *y = tensor_row(j->out, i);
        j->k->depthwise(y, x, j->w, j->out.cols, c->kh * c->kw, j->out.cols);
        if (j->bias) j->k->add(y, y, j->bias, 1, j->out.cols);
    }
}

void cpu_conv2d_depthwise(run *r, tensor y, tensor x, const conv_shape *c, const float *w, const float *bias)
{
    if (c->kh * c->kw > MAX_KERNEL) {
        run_fail(r, VLM_UNSUPPORTED, "convolution of each column over %d x %d places: %d at most", c->kh, c->kw, MAX_KERNEL);
        return;
    }
    depthwise2d_job j = {cpu_kernels_of(r), y, x, w, bias, *c};
    pool_for(r->dev->pool, y.rows, grain_of(y.cols * c->kh * c->kw), depthwise2d_rows, &j);
}

void cpu_conv1d_depthwise(run *r, tensor y, tensor x, const float *w, int kernel, int left)
{
    if (kernel < 1 || kernel > MAX_KERNEL) {
        run_fail(r, VLM_UNSUPPORTED, "convolution over %d rows: 1 to %d are supported", kernel, MAX_KERNEL);
        return;
    }
    arena_mark mark = arena_get_mark(r->scratch);
    tensor turned = run_tensor(r, kernel, x.cols);                        /* [kernel, cols]: one row for each distance */
    if (run_ok(r)) {
        for (int k = 0; k < kernel; k++) for (int64_t c = 0; c < x.cols; c++) tensor_row(turned, k)[c] = w[c * kernel + k];
        depthwise_job j = {cpu_kernels_of(r), y, x, turned.data, kernel, left};
        pool_for(r->dev->pool, y.rows, grain_of(y.cols * kernel), depthwise_rows, &j);
    }
    arena_release(r->scratch, mark);
}
