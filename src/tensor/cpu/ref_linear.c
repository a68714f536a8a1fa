/* ref_linear.c - matrix products, experts and convolutions of ops_ref: see ref.h. Weights through weight_row_f32. */
#include <math.h>
#include <string.h>

#include "tensor/cpu/ref.h"

bool ref_prepare(device *dev, weight *w, vlm_error *error) { return true; }
void ref_release(device *dev, weight *w) {}

static double dot(const float *a, const float *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)a[i] * b[i];
    return sum;
}

void ref_linear(run *r, tensor y, tensor x, const weight *w, const float *bias)
{
    arena_mark mark = arena_get_mark(r->scratch);
    float *row = run_alloc(r, (size_t)w->cols * sizeof *row);
    for (int64_t o = 0; row && o < w->rows; o++) {
        weight_row_f32(w, o, row);
        for (int64_t i = 0; i < x.rows; i++) tensor_row(y, i)[o] = (float)(dot(tensor_row(x, i), row, w->cols) + (bias ? bias[o] : 0));
    }
    arena_release(r->scratch, mark);
}

void ref_linear_heads(run *r, tensor y, tensor x, const weight *w)
{
    for (int64_t i = 0; i < x.rows; i++) {
        weight one = weight_expert(w, i % w->experts);
        ref_linear(r, tensor_rows(y, i, 1), tensor_rows(x, i, 1), &one, NULL);
    }
}

void ref_embed(run *r, tensor out, const weight *table, const int32_t *ids, float scale)
{
    for (int64_t i = 0; i < out.rows; i++) {
        weight_row_f32(table, ids[i], tensor_row(out, i));
        for (int64_t c = 0; c < out.cols; c++) tensor_row(out, i)[c] *= scale;
    }
}

void ref_moe(run *r, tensor out, tensor x, const moe_spec *s, const int32_t *index, const float *weights)
{
    int64_t ffn = s->down->cols;
    for (int64_t i = 0; i < x.rows; i++) {
        arena_mark mark = arena_get_mark(r->scratch);
        tensor gate_up = run_tensor(r, 1, 2 * ffn), y = run_tensor(r, 1, out.cols);
        tensor gate = tensor_cols(gate_up, 0, ffn), up = tensor_cols(gate_up, ffn, ffn), one = tensor_rows(x, i, 1);
        double *sum = run_alloc(r, (size_t)out.cols * sizeof *sum);
        for (int k = 0; k < s->top_k && run_ok(r); k++) {
            int32_t e = index[i * s->top_k + k];
            weight down = weight_expert(s->down, e), first = weight_expert(s->gate_up ? s->gate_up : s->gate, e);
            ref_linear(r, s->gate_up ? gate_up : gate, one, &first, NULL);
            if (!s->gate_up) {
                weight second = weight_expert(s->up, e);
                ref_linear(r, up, one, &second, NULL);
            }
            for (int64_t c = 0; run_ok(r) && s->gate_up_bias && c < 2 * ffn; c++) tensor_row(gate_up, 0)[c] += s->gate_up_bias[e * 2 * ffn + c];
            for (int64_t c = 0; run_ok(r) && s->limit > 0 && c < ffn; c++) {
                float *g = &tensor_row(gate, 0)[c], *u = &tensor_row(up, 0)[c];
                *g = fminf(*g, s->limit);
                *u = 1 + fminf(fmaxf(*u, -s->limit), s->limit);
            }
            ref_glu(r, gate, gate, up, s->act);
            ref_linear(r, y, gate, &down, s->down_bias ? s->down_bias + e * out.cols : NULL);
            if (run_ok(r)) for (int64_t c = 0; c < out.cols; c++) sum[c] += (double)weights[i * s->top_k + k] * tensor_row(y, 0)[c];
        }
        if (run_ok(r)) for (int64_t c = 0; c < out.cols; c++) tensor_row(out, i)[c] = (float)sum[c];
        arena_release(r->scratch, mark);
    }
}

/* Row of x at place (a, b) of output i's neighbourhood; NULL outside. */
static const float *neighbour(tensor x, const conv_shape *c, int64_t i, int a, int b)
{
    int64_t y = i / c->out_width * c->stride + a - c->top, z = i % c->out_width * c->stride + b - c->left;
    return y >= 0 && y < c->height && z >= 0 && z < c->width ? tensor_row(x, y * c->width + z) : NULL;
}

void ref_conv2d(run *r, tensor y, tensor x, const conv_shape *c, const weight *w, const float *bias)
{
    arena_mark mark = arena_get_mark(r->scratch);
    float *row = run_alloc(r, (size_t)w->cols * sizeof *row);
    for (int64_t o = 0; row && o < w->rows; o++) {
        weight_row_f32(w, o, row);
        for (int64_t i = 0; i < y.rows; i++) {
            double sum = bias ? bias[o] : 0;
            for (int k = 0; k < c->kh * c->kw; k++) {
                const float *in = neighbour(x, c, i, k / c->kw, k % c->kw);
                if (in) sum += dot(in, row + k * x.cols, x.cols);
            }
            tensor_row(y, i)[o] = (float)sum;
        }
    }
    arena_release(r->scratch, mark);
}

void ref_conv2d_depthwise(run *r, tensor y, tensor x, const conv_shape *c, const float *w, const float *bias)
{
    for (int64_t i = 0; i < y.rows; i++)
        for (int64_t o = 0; o < y.cols; o++) {
            double sum = bias ? bias[o] : 0;
            for (int k = 0; k < c->kh * c->kw; k++) {
                const float *in = neighbour(x, c, i, k / c->kw, k % c->kw);
                if (in) sum += (double)in[o] * w[k * y.cols + o];
            }
            tensor_row(y, i)[o] = (float)sum;
        }
}

void ref_conv1d_depthwise(run *r, tensor y, tensor x, const float *w, int kernel, int left)
{
    for (int64_t t = 0; t < x.rows; t++) {
        for (int64_t c = 0; c < x.cols; c++) {
            double sum = 0;
            for (int64_t k = 0; k < kernel; k++)
                if (t + k - left >= 0 && t + k - left < x.rows) sum += (double)w[c * kernel + k] * tensor_row(x, t + k - left)[c];
            tensor_row(y, t)[c] = (float)sum;
        }
    }
}
