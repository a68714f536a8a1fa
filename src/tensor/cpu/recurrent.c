/* recurrent.c - drivers of ops_cpu for layers that remember: causal convolutions and the gated delta rule.
 *
 * Tokens of a run go one after the other, whatever the chunk: so the result does not depend on where chunks end. What is independent goes to the
 * pool: runs, and columns of a convolution or of a head's values. A strip of DELTA_STRIP columns of a head of 128 keys is 8 KiB: it stays in the
 * first cache while all tokens of the run pass. */
#include <math.h>
#include <string.h>

#include "tensor/cpu/rows.h"

enum { CONV_COLUMNS = 512, CONV_KERNEL = 16, TOKENS = 32 };

void cpu_scale_rows(run *r, tensor x, tensor factor)
{
    const cpu_kernels *k = cpu_kernels_of(r);
    for (int64_t i = 0; i < x.rows; i++) k->scale(tensor_row(x, i), *tensor_row(factor, i), NULL, x.cols);
}

/* ---- causal convolution ---- */

typedef struct conv_job {
    const cpu_kernels *k;
    tensor y, x;
    const ragged *batch;
    const float *w, *bias;
    int kernel;
    activation act;
    const run_memory *memory;
    int64_t blocks;
} conv_job;

/* Columns [c, c + n) of a run. */
static void conv_columns(const conv_job *j, int seq, int64_t c, int64_t n)
{
    int first = j->batch->run_first[seq], tokens = j->batch->run_first[seq + 1] - first, before = j->kernel - 1;
    const float *from = j->memory->from[seq] ? (const float *)j->memory->from[seq] + j->memory->offset + c : NULL, *rows[CONV_KERNEL];
    float *to = (float *)j->memory->to[seq] + j->memory->offset + c;
    for (int t = 0; t < tokens; t++) {
        float *y = tensor_row(j->y, first + t) + c;
        for (int k = 0; k < j->kernel; k++) {
            int row = t + k;
            rows[k] = row >= before ? tensor_row(j->x, first + row - before) + c : from ? from + row * j->x.cols : NULL;
        }
        j->k->depthwise(y, rows, j->w + c, j->x.cols, j->kernel, n);
        if (j->bias) j->k->add(y, y, j->bias + c, 1, n);
        j->k->activate(y, y, j->act, n);
    }
    for (int k = 0; k < before; k++) {                                   /* rising: `to` may be `from` */
        int row = tokens + k;
        const float *last = row >= before ? tensor_row(j->x, first + row - before) + c : from ? from + row * j->x.cols : NULL;
        if (last) memmove(to + k * j->x.cols, last, (size_t)n * sizeof *to);
        else memset(to + k * j->x.cols, 0, (size_t)n * sizeof *to);
    }
}

static void conv_items(void *arg, int64_t begin, int64_t end, int thread)
{
    const conv_job *j = arg;
    for (int64_t item = begin; item < end; item++) {
        int64_t c = item % j->blocks * CONV_COLUMNS, n = j->x.cols - c;
        conv_columns(j, (int)(item / j->blocks), c, n < CONV_COLUMNS ? n : CONV_COLUMNS);
    }
}

void cpu_conv1d_causal(run *r, tensor y, tensor x, const ragged *batch, const float *w, const float *bias, int kernel, activation act,
                       const run_memory *memory)
{
    if (kernel > CONV_KERNEL) {
        run_fail(r, VLM_UNSUPPORTED, "causal convolution over %d rows: up to %d are supported", kernel, CONV_KERNEL);
        return;
    }
    conv_job j = {cpu_kernels_of(r), y, x, batch, w, bias, kernel, act, memory, (x.cols + CONV_COLUMNS - 1) / CONV_COLUMNS};
    int64_t items = j.blocks * batch->n_runs;
    pool_for(r->dev->pool, items, x.rows * x.cols > 65536 ? 1 : items, conv_items, &j);
}

/* ---- gated delta rule ---- */

typedef struct delta_job {
    const cpu_kernels *k;
    tensor out, q, key, v, a, b;
    tensor unit_q, unit_k;                                               /* [n, key_heads * key_dim] normalised */
    tensor decay, rate;                                                  /* [n, value_heads] */
    const ragged *batch;
    const delta_spec *s;
    const run_memory *memory;
    int strips;                                                          /* of a head */
} delta_job;

/* x / sqrt(sum x^2 + 1e-6) * factor, by way of the mean: eps and root share the length out. */
static void unit_heads(const delta_job *j, float *out, const float *x, float factor)
{
    int n = j->s->key_dim;
    for (int h = 0; h < j->s->key_heads; h++) j->k->rmsnorm(out + (int64_t)h * n, x + (int64_t)h * n, NULL, 0, 1e-6f / (float)n, n);
    j->k->scale(out, factor / sqrtf((float)n), NULL, (int64_t)j->s->key_heads * n);
}

static void delta_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const delta_job *j = arg;
    for (int64_t t = begin; t < end; t++) {
        unit_heads(j, tensor_row(j->unit_q, t), tensor_row(j->q, t), 1 / sqrtf((float)j->s->key_dim));
        unit_heads(j, tensor_row(j->unit_k, t), tensor_row(j->key, t), 1);
        for (int h = 0; h < j->s->value_heads; h++) {
            float dt = tensor_row(j->a, t)[h] + j->s->bias[h];
            tensor_row(j->decay, t)[h] = expf(j->s->decay[h] * (dt > 20 ? dt : log1pf(expf(dt))));
            tensor_row(j->rate, t)[h] = 1 / (1 + expf(-tensor_row(j->b, t)[h]));
        }
    }
}

/* A strip of a head through all tokens of a run. */
static void delta_strip(const delta_job *j, int seq, int head, int strip)
{
    const delta_spec *s = j->s;
    size_t floats = (size_t)s->key_dim * DELTA_STRIP, at = j->memory->offset + ((size_t)head * (size_t)j->strips + (size_t)strip) * floats;
    float *state = (float *)j->memory->to[seq] + at;
    const float *from = j->memory->from[seq] ? (const float *)j->memory->from[seq] + at : NULL;
    if (!from) memset(state, 0, floats * sizeof *state);
    else if (from != state) memcpy(state, from, floats * sizeof *state);
    int64_t key = (int64_t)(head / (s->value_heads / s->key_heads)) * s->key_dim, c = (int64_t)head * s->value_dim + strip * DELTA_STRIP;
    int n = s->value_dim - strip * DELTA_STRIP;
    if (n > DELTA_STRIP) n = DELTA_STRIP;
    float v[TOKENS][DELTA_STRIP] = {{0}}, out[TOKENS][DELTA_STRIP];
    delta_token token[TOKENS];
    int64_t end = j->batch->run_first[seq + 1];
    for (int64_t t = j->batch->run_first[seq]; t < end; t += TOKENS) {
        int64_t count = end - t < TOKENS ? end - t : TOKENS;
        for (int64_t i = 0; i < count; i++) {
            memcpy(v[i], tensor_row(j->v, t + i) + c, (size_t)n * sizeof **v);
            token[i] = (delta_token){tensor_row(j->unit_q, t + i) + key, tensor_row(j->unit_k, t + i) + key, v[i], out[i],
                                     tensor_row(j->decay, t + i)[head], tensor_row(j->rate, t + i)[head]};
        }
        j->k->delta(state, token, count, s->key_dim);
        for (int64_t i = 0; i < count; i++) memcpy(tensor_row(j->out, t + i) + c, out[i], (size_t)n * sizeof **out);
    }
}

static void delta_items(void *arg, int64_t begin, int64_t end, int thread)
{
    const delta_job *j = arg;
    int64_t of_run = (int64_t)j->s->value_heads * j->strips;
    for (int64_t item = begin; item < end; item++)
        delta_strip(j, (int)(item / of_run), (int)(item % of_run / j->strips), (int)(item % j->strips));
}

void cpu_delta_rule(run *r, tensor out, tensor q, tensor k, tensor v, tensor a, tensor b, const ragged *batch, const delta_spec *s,
                    const run_memory *memory)
{
    arena_mark mark = arena_get_mark(r->scratch);
    delta_job j = {.k = cpu_kernels_of(r), .out = out, .q = q, .key = k, .v = v, .a = a, .b = b, .batch = batch, .s = s, .memory = memory,
                   .strips = (s->value_dim + DELTA_STRIP - 1) / DELTA_STRIP};
    j.unit_q = run_tensor(r, q.rows, q.cols);
    j.unit_k = run_tensor(r, k.rows, k.cols);
    j.decay = run_tensor(r, a.rows, a.cols);
    j.rate = run_tensor(r, a.rows, a.cols);
    if (run_ok(r)) {
        int64_t items = (int64_t)batch->n_runs * s->value_heads * j.strips;
        bool large = (int64_t)q.rows * items * s->key_dim > (int64_t)batch->n_runs * 16384;
        pool_for(r->dev->pool, q.rows, large ? 16 : q.rows, delta_rows, &j);
        pool_for(r->dev->pool, items, large ? 1 : items, delta_items, &j);
    }
    arena_release(r->scratch, mark);
}
