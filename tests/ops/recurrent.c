/* recurrent.c - cases: operations that remember rows of a run, and factors of rows. What a run remembers is compared too; a run cut into chunks,
 * with its memory in place, must give the same bits. */
#include <string.h>

#include "ops_test.h"

enum { RUNS = 4 };
#define EPS 1.2e-7

typedef struct runs {
    ragged batch;
    tensor before, after[2];                       /* [runs, floats] what they remember: before; after, for the oracle and for dev */
    run_memory memory[2];
} runs;

static runs make_runs(ops_test *t, int64_t floats)
{
    runs r = {.batch = {.n_runs = t_between(t, 1, RUNS)}};
    int32_t *first = t_alloc(t, (RUNS + 1) * sizeof *first);
    for (int i = 0; i < r.batch.n_runs; i++) first[i + 1] = first[i] + (t_below(t, 2) ? 1 : t_between(t, 1, 40));
    r.batch.run_first = first;
    r.batch.n_tokens = first[r.batch.n_runs];
    size_t offset = (size_t)t_between(t, 0, 5);
    r.before = t_random(t, r.batch.n_runs, floats, 1);
    const void **from = t_alloc(t, RUNS * sizeof *from);
    for (int i = 0; i < r.batch.n_runs; i++) from[i] = t_below(t, 3) ? tensor_row(r.before, i) - offset : NULL;
    for (int side = 0; side < 2; side++) {
        void **to = t_alloc(t, RUNS * sizeof *to);
        r.after[side] = t_output(t, r.batch.n_runs, floats);
        for (int i = 0; i < r.batch.n_runs; i++) to[i] = tensor_row(r.after[side], i) - offset;
        r.memory[side] = (run_memory){from, to, offset};
    }
    return r;
}

/* A batch of n tokens of one run, going on in `state`. */
typedef struct part { ragged batch; int32_t first[2]; const void *from[1]; void *to[1]; run_memory memory; } part;

static void make_part(part *p, float *state, bool begins, int n)
{
    *p = (part){.first = {0, n}, .from = {begins ? NULL : state}, .to = {state}};
    p->batch = (ragged){.n_tokens = n, .n_runs = 1, .run_first = p->first};
    p->memory = (run_memory){p->from, p->to, 0};
}

/* The state that a run starts with, in memory of its own. */
static float *own_state(ops_test *t, const runs *r, int which, int64_t floats, bool *begins)
{
    float *state = t_alloc(t, (size_t)(floats + 1) * sizeof *state);          /* a kernel of 1 has no state */
    *begins = !r->memory[0].from[which];
    if (!*begins) memcpy(state, tensor_row(r->before, which), (size_t)floats * sizeof *state);
    return state;
}

static void check_conv(ops_test *t)
{
    int kernel = t_between(t, 1, 6);
    activation act = t_below(t, 2) ? ACT_SILU : ACT_NONE;
    int64_t cols = t_size(t, 1200);
    runs r = make_runs(t, (kernel - 1) * cols);
    int n = r.batch.n_tokens;
    tensor x = t_random(t, n, cols, 1), want = t_output(t, n, cols), got = t_output(t, n, cols), again = t_output(t, n, cols);
    float *w = t_values(t, kernel * cols, 1), *bias = t_below(t, 2) ? t_values(t, cols, 1) : NULL;
    t_shape(t, "%d tokens in %d runs, %lld columns, kernel %d", n, r.batch.n_runs, (long long)cols, kernel);
    ON(t, ref, conv1d_causal, want, x, &r.batch, w, bias, kernel, act, &r.memory[0]);
    ON(t, dev, conv1d_causal, got, x, &r.batch, w, bias, kernel, act, &r.memory[1]);
    t_near(t, got, want, 40 * EPS, 40 * EPS);
    if (kernel > 1) t_same(t, r.after[1], r.after[0]);
    int which = t_between(t, 0, r.batch.n_runs - 1), first = r.batch.run_first[which], count = r.batch.run_first[which + 1] - first;
    bool begins;
    float *state = own_state(t, &r, which, (kernel - 1) * cols, &begins);
    for (int at = 0, some; at < count; at += some) {
        part p;
        some = t_between(t, 1, count - at);
        make_part(&p, state, begins && !at, some);
        ON(t, one, conv1d_causal, tensor_rows(again, first + at, some), tensor_rows(x, first + at, some), &p.batch, w, bias, kernel, act, &p.memory);
    }
    t_same(t, tensor_rows(again, first, count), tensor_rows(got, first, count));
}

/* Columns of the last strip that no value has. */
static void clear_padding(runs *r, const delta_spec *s)
{
    int strips = (s->value_dim + DELTA_STRIP - 1) / DELTA_STRIP;
    for (int i = 0; i < r->batch.n_runs; i++)
        for (int64_t x = 0; x < r->before.cols; x++)
            if (x / (DELTA_STRIP * s->key_dim) % strips * DELTA_STRIP + x % DELTA_STRIP >= s->value_dim) tensor_row(r->before, i)[x] = 0;
}

static void check_delta(ops_test *t)
{
    static const int key_dims[] = {8, 16, 17, 30, 64, 128}, value_dims[] = {8, 16, 24, 33, 64};
    int key_heads = t_between(t, 1, 3), value_heads = key_heads * t_between(t, 1, 3);
    delta_spec s = {key_heads, value_heads, t_pick(t, 6, key_dims), t_pick(t, 5, value_dims), NULL, t_values(t, value_heads, 1)};
    float *decay = t_values(t, value_heads, 0);
    for (int h = 0; h < value_heads; h++) decay[h] = -(float)t_between(t, 1, 200) / 100;
    s.decay = decay;
    int64_t floats = (int64_t)delta_floats(&s), keys = (int64_t)key_heads * s.key_dim, values = (int64_t)value_heads * s.value_dim;
    runs r = make_runs(t, floats);
    clear_padding(&r, &s);
    int n = r.batch.n_tokens;
    tensor q = t_random(t, n, keys, 1), k = t_random(t, n, keys, 1), v = t_random(t, n, values, 1);
    tensor a = t_random(t, n, value_heads, 1), b = t_random(t, n, value_heads, 1);
    tensor want = t_output(t, n, values), got = t_output(t, n, values), again = t_output(t, n, values);
    t_shape(t, "%d tokens in %d runs, %d key heads of %d, %d value heads of %d", n, r.batch.n_runs, key_heads, s.key_dim, value_heads, s.value_dim);
    ON(t, ref, delta_rule, want, q, k, v, a, b, &r.batch, &s, &r.memory[0]);
    ON(t, dev, delta_rule, got, q, k, v, a, b, &r.batch, &s, &r.memory[1]);
    t_near(t, got, want, 1e-5, 1e-5);
    t_near(t, r.after[1], r.after[0], 1e-5, 1e-5);
    int which = t_between(t, 0, r.batch.n_runs - 1), first = r.batch.run_first[which], count = r.batch.run_first[which + 1] - first;
    bool begins;
    float *state = own_state(t, &r, which, floats, &begins);
    for (int at = 0, some; at < count; at += some) {
        part p;
        some = t_between(t, 1, count - at);
        make_part(&p, state, begins && !at, some);
        int64_t i = first + at;
        ON(t, one, delta_rule, tensor_rows(again, i, some), tensor_rows(q, i, some), tensor_rows(k, i, some), tensor_rows(v, i, some),
           tensor_rows(a, i, some), tensor_rows(b, i, some), &p.batch, &s, &p.memory);
    }
    t_same(t, tensor_rows(again, first, count), tensor_rows(got, first, count));
}

static void check_scale_rows(ops_test *t)
{
    tensor x = t_random(t, t_size(t, 40), t_size(t, 300), 1), factor = t_random(t, x.rows, 1, 1), want = t_copy(t, x), got = t_copy(t, x);
    t_shape(t, "%lld x %lld", (long long)x.rows, (long long)x.cols);
    ON(t, ref, scale_rows, want, factor);
    ON(t, dev, scale_rows, got, factor);
    t_near(t, got, want, 0, 2 * EPS);
}

typedef struct bench_args { tensor out, q, k, v, a, b; ragged batch; delta_spec s; run_memory memory; } bench_args;
static void run_delta(ops_test *t, void *arg)
{
    bench_args *a = arg;
    ON(t, dev, delta_rule, a->out, a->q, a->k, a->v, a->a, a->b, &a->batch, &a->s, &a->memory);
}

static void bench_delta(ops_test *t)
{
    static const int tokens[] = {1, 512};
    for (int i = 0; i < 2; i++) {
        int n = tokens[i];
        bench_args a = {t_output(t, n, 4096), t_random(t, n, 2048, 1), t_random(t, n, 2048, 1), t_random(t, n, 4096, 1), t_random(t, n, 32, 1),
                        t_random(t, n, 32, 1), {.n_tokens = n, .n_runs = 1}, {16, 32, 128, 128, NULL, t_values(t, 32, 1)}, {0}};
        float *decay = t_values(t, 32, 0);
        for (int h = 0; h < 32; h++) decay[h] = -0.1f;
        a.s.decay = decay;
        int32_t first[2] = {0, n};
        void *state[1] = {t_alloc(t, delta_floats(&a.s) * sizeof(float))};
        a.batch.run_first = first;
        a.memory = (run_memory){(const void *const *)state, state, 0};
        t_shape(t, "%d tokens, 32 heads of 128 x 128", n);
        t_bench(t, t->shape, 6.0 * n * 32 * 128 * 128, "GFLOP/s", run_delta, &a);
    }
}

const op_case recurrent_cases[] = {
    {"conv1d_causal", check_conv, NULL, false}, {"delta_rule", check_delta, bench_delta, false}, {"scale_rows", check_scale_rows, NULL, false},
    {NULL, NULL, NULL, false},
};
