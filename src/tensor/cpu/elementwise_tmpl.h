/* elementwise_tmpl.h - norms, activations, rotary embedding and other row kernels in the words of vec.h.
 * A file that includes it defines KERNELS, the function that puts them into the table. */
#include "tensor/cpu/cpu.h"
#include "tensor/cpu/vec.h"

#include <math.h>

/* The lanes of v below n; others 0. */
V_INLINE vf keep(vf v, int64_t n) { return n >= V_LEN ? v : v_select(v_lt(v_lanes(), v_set((float)n)), v, v_set(0)); }
V_INLINE vf load_some(const float *p, int64_t n) { return n >= V_LEN ? v_load(p) : v_load_n(p, (int)n); }
V_INLINE void store_some(float *p, vf v, int64_t n) { if (n >= V_LEN) v_store(p, v); else v_store_n(p, v, (int)n); }

/* Body for all vectors of a row; `left` values are left from i on (the last vector may be partial). */
#define ROW(n, body) for (int64_t i = 0; i < (n); i += V_LEN) { const int64_t left = (n) - i; body }

/* sum of f(i) over four partial sums, always in the same order */
#define SUM4(n, result, term)                                                                       \
    do {                                                                                            \
        vf sum[4] = {v_set(0), v_set(0), v_set(0), v_set(0)};                                       \
        int64_t i = 0;                                                                              \
        for (; i + 4 * V_LEN <= (n); i += 4 * V_LEN)                                                \
            for (int u = 0; u < 4; u++) { vf x = v_load(in + i + u * V_LEN); sum[u] = term(x, sum[u]); }     \
        for (int u = 0; i < (n); i += V_LEN, u++) {                                                 \
            const int64_t left = (n) - i;                                                           \
            vf x = load_some(in + i, left);                                                         \
            sum[u] = term##_some(x, sum[u], left);                                                  \
        }                                                                                           \
        result = v_sum(v_add(v_add(sum[0], sum[1]), v_add(sum[2], sum[3])));                        \
    } while (0)

#define SQUARE(x, s) v_fma(x, x, s)
#define SQUARE_some(x, s, left) v_fma(x, x, s)
#define PLAIN(x, s) v_add(x, s)
#define PLAIN_some(x, s, left) v_add(x, s)
#define DEVIATION(x, s) v_fma(v_sub(x, mean), v_sub(x, mean), s)
#define DEVIATION_some(x, s, left) v_fma(keep(v_sub(x, mean), left), keep(v_sub(x, mean), left), s)

static void rmsnorm(float *y, const float *in, const float *w, float offset, float eps, int64_t n)
{
    float squares;
    SUM4(n, squares, SQUARE);
    const vf factor = v_set(1 / sqrtf(squares / (float)n + eps)), add = v_set(offset);
    if (w) ROW(n, store_some(y + i, v_mul(v_mul(load_some(in + i, left), factor), v_add(load_some(w + i, left), add)), left);)
    else ROW(n, store_some(y + i, v_mul(load_some(in + i, left), factor), left);)
}

static void layernorm(float *y, const float *in, const float *w, const float *b, float eps, int64_t n)
{
    float total, squares;
    SUM4(n, total, PLAIN);
    const vf mean = v_set(total / (float)n);
    SUM4(n, squares, DEVIATION);
    const vf factor = v_set(1 / sqrtf(squares / (float)n + eps));
    ROW(n, vf v = v_mul(v_sub(load_some(in + i, left), mean), factor);
           if (w) v = v_mul(v, load_some(w + i, left));
           if (b) v = v_add(v, load_some(b + i, left));
           store_some(y + i, v, left);)
}

static void add(float *out, const float *a, const float *b, float factor, int64_t n)
{
    const vf f = v_set(factor);
    ROW(n, store_some(out + i, v_fma(f, load_some(b + i, left), load_some(a + i, left)), left);)
}

static void mul(float *out, const float *a, const float *b, int64_t n)
{
    ROW(n, store_some(out + i, v_mul(load_some(a + i, left), load_some(b + i, left)), left);)
}

static void scale(float *x, float factor, const float *columns, int64_t n)
{
    const vf f = v_set(factor);
    if (columns) ROW(n, store_some(x + i, v_mul(v_mul(load_some(x + i, left), f), load_some(columns + i, left)), left);)
    else ROW(n, store_some(x + i, v_mul(load_some(x + i, left), f), left);)
}

static void clip(float *x, float lo, float hi, int64_t n)
{
    const vf low = v_set(lo), high = v_set(hi);
    ROW(n, store_some(x + i, v_min(high, v_max(low, load_some(x + i, left))), left);)
}

static void softcap(float *x, float cap, int64_t n)
{
    const vf c = v_set(cap);
    ROW(n, store_some(x + i, v_mul(c, v_tanh(v_div(load_some(x + i, left), c))), left);)
}

V_INLINE vf act_of(vf x, const activation act)
{
    switch (act) {
    case ACT_NONE: return x;
    case ACT_SILU: return v_div(x, v_add(v_set(1), v_exp(v_sub(v_set(0), x))));
    case ACT_GELU: return v_mul(x, v_normal_cdf(x));
    case ACT_GELU_TANH: {                          /* x/2 (1 + tanh u) = x / (1 + e^-2u): no cancellation */
        vf u = v_mul(v_mul(x, v_set(-1.59576912f)), v_fma(v_mul(x, x), v_set(0.044715f), v_set(1)));
        return v_div(x, v_add(v_set(1), v_exp(u)));
    }
    case ACT_QUICK_GELU: return v_div(x, v_add(v_set(1), v_exp(v_mul(v_set(-1.702f), x))));
    case ACT_RELU: return v_max(v_set(0), x);
    case ACT_SIGMOID: return v_sigmoid(x);
    case ACT_TANH: return v_tanh(x);
    }
    return x;
}

V_INLINE void activate_as(float *y, const float *x, int64_t n, const activation act)
{
    ROW(n, store_some(y + i, act_of(load_some(x + i, left), act), left);)
}

V_INLINE void glu_as(float *y, const float *gate, const float *up, int64_t n, const activation act)
{
    ROW(n, store_some(y + i, v_mul(act_of(load_some(gate + i, left), act), load_some(up + i, left)), left);)
}

/* One loop for each activation, so that the choice is made outside. */
#define EACH_ACT(call)                                                                              \
    switch (act) {                                                                                  \
    case ACT_NONE: call(ACT_NONE); break;                                                           \
    case ACT_SILU: call(ACT_SILU); break;                                                           \
    case ACT_GELU: call(ACT_GELU); break;                                                           \
    case ACT_GELU_TANH: call(ACT_GELU_TANH); break;                                                 \
    case ACT_QUICK_GELU: call(ACT_QUICK_GELU); break;                                               \
    case ACT_RELU: call(ACT_RELU); break;                                                           \
    case ACT_SIGMOID: call(ACT_SIGMOID); break;                                                     \
    case ACT_TANH: call(ACT_TANH); break;                                                           \
    }

static void activate(float *y, const float *x, activation act, int64_t n)
{
#define CALL(a) activate_as(y, x, n, a)
    EACH_ACT(CALL)
#undef CALL
}

static void glu(float *y, const float *gate, const float *up, activation act, int64_t n)
{
#define CALL(a) glu_as(y, gate, up, n, a)
    EACH_ACT(CALL)
#undef CALL
}

/* Rotates `half` pairs (one[i], two[i]). */
static void rope(float *one, float *two, const float *cosine, const float *sine, int64_t half)
{
    ROW(half, vf x1 = load_some(one + i, left); vf x2 = load_some(two + i, left);
              vf c = load_some(cosine + i, left); vf s = load_some(sine + i, left);
              store_some(one + i, v_fma(x1, c, v_sub(v_set(0), v_mul(x2, s))), left);
              store_some(two + i, v_fma(x2, c, v_mul(x1, s)), left);)
}

static float exp_sum(const float *x, float most, int64_t n)
{
    vf sum = v_set(0), m = v_set(most);
    ROW(n, sum = v_add(sum, keep(v_exp(v_sub(load_some(x + i, left), m)), left));)
    return v_sum(sum);
}

static void exp_from(float *y, const float *x, float most, float factor, int64_t n)
{
    const vf m = v_set(most), f = v_set(factor);
    ROW(n, store_some(y + i, v_mul(v_exp(v_sub(load_some(x + i, left), m)), f), left);)
}

static void depthwise(float *y, const float *const *x, const float *w, int64_t stride, int kernel, int64_t n)
{
    ROW(n, vf sum = v_set(0);
           for (int k = 0; k < kernel; k++) if (x[k]) sum = v_fma(load_some(w + k * stride + i, left), load_some(x[k] + i, left), sum);
           store_some(y + i, sum, left);)
}

static void mix(float *y, const float *x, const float *w, int64_t stride, int count, const float *bias, int64_t n)
{
    int64_t c = 0;
    for (; c + 4 * V_LEN <= n; c += 4 * V_LEN) {
        vf sum[4];
        for (int u = 0; u < 4; u++) sum[u] = bias ? v_load(bias + c + u * V_LEN) : v_set(0);
        for (int k = 0; k < count; k++)
            for (int u = 0; u < 4; u++) sum[u] = v_fma(v_set(x[k]), v_load(w + k * stride + c + u * V_LEN), sum[u]);
        for (int u = 0; u < 4; u++) v_store(y + c + u * V_LEN, sum[u]);
    }
    for (; c < n; c += V_LEN) {
        vf sum = bias ? load_some(bias + c, n - c) : v_set(0);
        for (int k = 0; k < count; k++) sum = v_fma(v_set(x[k]), load_some(w + k * stride + c, n - c), sum);
        store_some(y + c, sum, n - c);
    }
}

/* The sum that the next token wants first is taken while its strip is in registers, so each token goes over it once.
 * Rows in four lanes of sums: enough under way to hide the latency. */
static void delta_steps(float *s, const delta_token *token, int64_t tokens, int n)
{
    enum { PARTS = DELTA_STRIP / V_LEN, LANES = 4 };
    vf known[LANES][PARTS], sum[LANES][PARTS], delta[PARTS];
#define EACH_LANE(body) for (int u = 0; u < LANES; u++) for (int p = 0; p < PARTS; p++) { body; }
#define EACH_ROW(row_body)                                                                          \
    {                                                                                               \
        int i = 0;                                                                                  \
        for (; i + LANES <= n; i += LANES) EACH_LANE(const int row = i + u; float *at = s + row * DELTA_STRIP + p * V_LEN; row_body) \
        for (; i < n; i++) for (int p = 0; p < PARTS; p++) { const int row = i, u = 0; float *at = s + row * DELTA_STRIP + p * V_LEN; row_body; } \
    }
#define TOTAL(x) v_add(v_add(x[0][p], x[1][p]), v_add(x[2][p], x[3][p]))
    EACH_LANE(known[u][p] = v_set(0))
    EACH_ROW(known[u][p] = v_fma(v_set(token->k[row]), v_load(at), known[u][p]))
    for (; tokens > 0; tokens--, token++) {
        const vf d = v_set(token->decay), g = v_set(token->rate);
        const float *k = token->k, *q = token->q, *next = tokens > 1 ? token[1].k : token->k;
        for (int p = 0; p < PARTS; p++) delta[p] = v_mul(g, v_sub(v_load(token->v + p * V_LEN), v_mul(d, TOTAL(known))));
        EACH_LANE(known[u][p] = sum[u][p] = v_set(0))
        EACH_ROW(vf x = v_fma(v_set(k[row]), delta[p], v_mul(d, v_load(at)));
                 v_store(at, x);
                 sum[u][p] = v_fma(v_set(q[row]), x, sum[u][p]);
                 known[u][p] = v_fma(v_set(next[row]), x, known[u][p]))
        for (int p = 0; p < PARTS; p++) v_store(token->out + p * V_LEN, TOTAL(sum));
    }
#undef TOTAL
#undef EACH_ROW
#undef EACH_LANE
}

void KERNELS(cpu_kernels *k)
{
    k->rmsnorm = rmsnorm;
    k->layernorm = layernorm;
    k->add = add;
    k->mul = mul;
    k->scale = scale;
    k->activate = activate;
    k->glu = glu;
    k->clip = clip;
    k->softcap = softcap;
    k->rope = rope;
    k->exp_sum = exp_sum;
    k->exp_from = exp_from;
    k->depthwise = depthwise;
    k->mix = mix;
    k->delta = delta_steps;
}
