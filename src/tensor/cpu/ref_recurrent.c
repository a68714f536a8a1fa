/* ref_recurrent.c - ops_ref: layers that remember (see ops.h). Sums in double. */
#include <math.h>
#include <string.h>

#include "tensor/cpu/ref.h"

void ref_scale_rows(run *r, tensor x, tensor factor)
{
    for (int64_t i = 0; i < x.rows; i++)
        for (int64_t c = 0; c < x.cols; c++) tensor_row(x, i)[c] *= *tensor_row(factor, i);
}

/* Row `back` of what a run remembers (0: oldest), or of the run itself. */
static float past(const float *memory, tensor x, int first, int row, int kernel, int64_t c)
{
    if (row >= kernel - 1) return tensor_row(x, first + row - (kernel - 1))[c];
    return memory ? memory[row * x.cols + c] : 0;
}

void ref_conv1d_causal(run *r, tensor y, tensor x, const ragged *batch, const float *w, const float *bias, int kernel, activation act,
                       const run_memory *memory)
{
    for (int seq = 0; seq < batch->n_runs; seq++) {
        int first = batch->run_first[seq], n = batch->run_first[seq + 1] - first;
        const float *from = memory->from[seq] ? (const float *)memory->from[seq] + memory->offset : NULL;
        float *to = (float *)memory->to[seq] + memory->offset;
        for (int64_t c = 0; c < x.cols; c++) {
            for (int t = 0; t < n; t++) {
                double sum = bias ? bias[c] : 0;
                for (int k = 0; k < kernel; k++) sum += (double)w[k * x.cols + c] * past(from, x, first, t + k, kernel, c);
                tensor_row(y, first + t)[c] = (float)ref_act(sum, act);
            }
            for (int k = 0; k < kernel - 1; k++) to[k * x.cols + c] = past(from, x, first, n + k, kernel, c);     /* rising: may be `from` */
        }
    }
}

static double length(const float *x, int n)
{
    double squares = 1e-6;
    for (int i = 0; i < n; i++) squares += (double)x[i] * x[i];
    return sqrt(squares);
}

static double softplus(double x) { return x > 20 ? x : log1p(exp(x)); }

/* Element (i, c) of a value head's memory. */
static float *cell(float *head, const delta_spec *s, int i, int c)
{
    return head + ((size_t)(c / DELTA_STRIP) * (size_t)s->key_dim + (size_t)i) * DELTA_STRIP + c % DELTA_STRIP;
}

static void delta_token(float *head, const float *q, const float *k, const float *v, float *out, double decay, double rate, const delta_spec *s)
{
    double q_length = length(q, s->key_dim) * sqrt(s->key_dim), k_length = length(k, s->key_dim);
    for (int c = 0; c < s->value_dim; c++) {
        double known = 0, sum = 0;
        for (int i = 0; i < s->key_dim; i++) known += decay * *cell(head, s, i, c) * (k[i] / k_length);
        double delta = rate * (v[c] - known);
        for (int i = 0; i < s->key_dim; i++) {
            float *x = cell(head, s, i, c);
            *x = (float)(decay * *x + k[i] / k_length * delta);
            sum += *x * (q[i] / q_length);
        }
        out[c] = (float)sum;
    }
}

void ref_delta_rule(run *r, tensor out, tensor q, tensor k, tensor v, tensor a, tensor b, const ragged *batch, const delta_spec *s,
                    const run_memory *memory)
{
    size_t bytes = delta_floats(s) * sizeof(float);
    for (int seq = 0; seq < batch->n_runs; seq++) {
        float *to = (float *)memory->to[seq] + memory->offset;
        if (!memory->from[seq]) memset(to, 0, bytes);
        else if (memory->from[seq] != memory->to[seq]) memcpy(to, (const float *)memory->from[seq] + memory->offset, bytes);
        for (int t = batch->run_first[seq]; t < batch->run_first[seq + 1]; t++)
            for (int h = 0; h < s->value_heads; h++) {
                int64_t key = (int64_t)(h / (s->value_heads / s->key_heads)) * s->key_dim, value = (int64_t)h * s->value_dim;
                double decay = exp(s->decay[h] * softplus((double)tensor_row(a, t)[h] + s->bias[h])), rate = 1 / (1 + exp(-tensor_row(b, t)[h]));
                delta_token(to + (size_t)h * (delta_floats(s) / (size_t)s->value_heads), tensor_row(q, t) + key, tensor_row(k, t) + key,
                            tensor_row(v, t) + value, tensor_row(out, t) + value, decay, rate, s);
            }
    }
}
