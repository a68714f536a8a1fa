/* ref.c - ops_ref, the definition of every operation in plain C: see ref.h. Here: rows and elements, and the table. */
#include "tensor/cpu/ref.h"

#include <math.h>
#include <string.h>

double ref_act(double x, activation act)
{
    switch (act) {
    case ACT_NONE: return x;
    case ACT_SILU: return x / (1 + exp(-x));
    case ACT_GELU: return 0.5 * x * erfc(-x * 0.70710678118654752440);
    case ACT_GELU_TANH: return x / (1 + exp(-2 * 0.79788456080286535588 * (x + 0.044715 * x * x * x)));      /* = x/2 (1 + tanh(..)) */
    case ACT_QUICK_GELU: return x / (1 + exp(-1.702 * x));
    case ACT_RELU: return x > 0 ? x : 0;
    case ACT_SIGMOID: return 1 / (1 + exp(-x));
    case ACT_TANH: return tanh(x);
    }
    return x;
}

void ref_rmsnorm(run *r, tensor y, tensor x, const float *w, float offset, float eps, int64_t width)
{
    if (!width) width = x.cols;
    for (int64_t i = 0; i < x.rows; i++) {
        for (int64_t first = 0; first < x.cols; first += width) {
            const float *in = tensor_row(x, i) + first;
            float *out = tensor_row(y, i) + first;
            double squares = 0;
            for (int64_t c = 0; c < width; c++) squares += (double)in[c] * in[c];
            double factor = 1 / sqrt(squares / (double)width + eps);
            for (int64_t c = 0; c < width; c++) out[c] = (float)(in[c] * factor * (w ? (double)w[c] + offset : 1));
        }
    }
}

void ref_layernorm(run *r, tensor y, tensor x, const float *w, const float *b, float eps)
{
    for (int64_t i = 0; i < x.rows; i++) {
        const float *in = tensor_row(x, i);
        float *out = tensor_row(y, i);
        double sum = 0, squares = 0;
        for (int64_t c = 0; c < x.cols; c++) sum += in[c];
        double mean = sum / (double)x.cols;
        for (int64_t c = 0; c < x.cols; c++) squares += (in[c] - mean) * (in[c] - mean);
        double factor = 1 / sqrt(squares / (double)x.cols + eps);
        for (int64_t c = 0; c < x.cols; c++) out[c] = (float)((in[c] - mean) * factor * (w ? w[c] : 1) + (b ? b[c] : 0));
    }
}

/* Runs `formula` for every element; i, c: its place. */
#define EACH(t, formula) for (int64_t i = 0; i < (t).rows; i++) for (int64_t c = 0; c < (t).cols; c++) { formula; }

void ref_add(run *r, tensor out, tensor a, tensor b, float scale)
{
    EACH(out, tensor_row(out, i)[c] = (float)(tensor_row(a, i)[c] + (double)scale * tensor_row(b, i)[c]))
}

void ref_mul(run *r, tensor out, tensor a, tensor b)
{
    EACH(out, tensor_row(out, i)[c] = tensor_row(a, i)[c] * tensor_row(b, i)[c])
}

void ref_scale(run *r, tensor x, float factor, const float *columns)
{
    EACH(x, tensor_row(x, i)[c] = (float)((double)tensor_row(x, i)[c] * factor * (columns ? columns[c] : 1)))
}

void ref_activate(run *r, tensor y, tensor x, activation act)
{
    EACH(y, tensor_row(y, i)[c] = (float)ref_act(tensor_row(x, i)[c], act))
}

void ref_glu(run *r, tensor y, tensor gate, tensor up, activation act)
{
    EACH(y, tensor_row(y, i)[c] = (float)(ref_act(tensor_row(gate, i)[c], act) * tensor_row(up, i)[c]))
}

void ref_clip(run *r, tensor x, float lo, float hi)
{
    EACH(x, float *p = &tensor_row(x, i)[c]; if (*p < lo) *p = lo; if (*p > hi) *p = hi)
}

void ref_softcap(run *r, tensor x, float cap)
{
    EACH(x, float *p = &tensor_row(x, i)[c]; *p = (float)(cap * tanh(*p / (double)cap)))
}

void ref_gather(run *r, tensor out, tensor x, const int32_t *index)
{
    EACH(out, tensor_row(out, i)[c] = index[i] < 0 ? 0 : tensor_row(x, index[i])[c])
}

void ref_scatter(run *r, tensor out, tensor x, const int32_t *index)
{
    EACH(x, if (index[i] >= 0) tensor_row(out, index[i])[c] = tensor_row(x, i)[c])
}

void ref_adapt(run *r, tensor out, tensor u, const int32_t *index, int64_t n, float scale, const float *columns, const float *from, const float *to)
{
    for (int64_t i = 0; i < n; i++) {
        float *y = tensor_row(out, index[i]);
        for (int64_t c = 0; c < out.cols; c++)
            y[c] = (float)((columns ? columns[c] : 1) * ((double)y[c] - (from ? from[c] : 0) + (u.data ? (double)scale * tensor_row(u, i)[c] : 0)) + (to ? to[c] : 0));
    }
}

void ref_scatter_add(run *r, tensor out, tensor x, const int32_t *index, float factor)
{
    EACH(x, if (index[i] >= 0) tensor_row(out, index[i])[c] += factor * tensor_row(x, i)[c])
}

void ref_rope(run *r, tensor x, int heads, int head_dim, int blocks, int block_dim, bool interleaved, tensor cosine, tensor sine)
{
    int half = block_dim / 2;
    for (int64_t i = 0; i < x.rows; i++) {
        for (int h = 0; h < heads; h++) {
            for (int a = 0; a < blocks * half; a++) {                       /* angle */
                float *block = tensor_row(x, i) + (int64_t)h * head_dim + a / half * block_dim;
                float *one = block + (interleaved ? 2 * (a % half) : a % half), *two = interleaved ? one + 1 : one + half;
                double c = tensor_row(cosine, i)[a], s = tensor_row(sine, i)[a], x1 = *one, x2 = *two;
                *one = (float)(x1 * c - x2 * s);
                *two = (float)(x2 * c + x1 * s);
            }
        }
    }
}

static bool chosen(const int32_t *index, int n, int64_t c)
{
    for (int i = 0; i < n; i++) if (index[i] == c) return true;
    return false;
}

/* The k largest of x in falling order, NaN-free; an equal one stays behind those before it. */
static void largest(const double *x, int64_t n, int32_t *index, int k)
{
    for (int i = 0; i < k; i++) {
        int64_t best = -1;
        for (int64_t c = 0; c < n; c++)
            if (!chosen(index, i, c) && (best < 0 || x[c] > x[best])) best = c;
        index[i] = (int32_t)best;
    }
}

/* Choices in groups that do not count become -infinity. */
static void keep_groups(double *choice, const route_spec *s, int64_t experts, double *worth, int32_t *kept, int32_t *best)
{
    int64_t size = experts / s->groups;
    for (int g = 0; g < s->groups; g++) {
        largest(choice + g * size, size, best, s->group_best);
        worth[g] = 0;
        for (int k = 0; k < s->group_best; k++) worth[g] += choice[g * size + best[k]];
    }
    largest(worth, s->groups, kept, s->kept_groups);
    for (int g = 0; g < s->groups; g++)
        for (int64_t c = 0; c < size && !chosen(kept, s->kept_groups, g); c++) choice[g * size + c] = -INFINITY;
}

static void sparse_mixer(const float *x, int64_t n, const route_spec *s, int32_t *index, float *share)
{
    for (int k = 0; k < s->top_k; k++) {
        int64_t best = -1;
        for (int64_t c = 0; c < n; c++)
            if (!chosen(index, k, c) && (best < 0 || x[c] > x[best])) best = c;
        double m = x[best], sum = 0;
        for (int64_t c = 0; c < n; c++)
            if (!chosen(index, k, c) && (m - x[c]) / fmax(fabs(x[c]), m) <= 2 * (double)s->jitter) sum += exp(x[c] - m);
        index[k] = (int32_t)best;
        share[k] = (float)(1 / sum);
    }
}

void ref_route(run *r, int32_t *index, float *share, tensor logits, const route_spec *s)
{
    arena_mark mark = arena_get_mark(r->scratch);
    int64_t n = logits.cols;
    double *score = run_alloc(r, (size_t)n * sizeof *score), *choice = run_alloc(r, (size_t)n * sizeof *choice), *worth = run_alloc(r, (size_t)n * sizeof *worth);
    int32_t *kept = run_alloc(r, (size_t)n * sizeof *kept), *best = run_alloc(r, (size_t)n * sizeof *best);
    for (int64_t i = 0; i < logits.rows && run_ok(r); i++, index += s->top_k, share += s->top_k) {
        const float *x = tensor_row(logits, i);
        double most = -INFINITY, sum = 0;
        if (s->jitter > 0) {
            sparse_mixer(x, n, s, index, share);
            continue;
        }
        for (int64_t c = 0; c < n; c++) most = x[c] > most ? x[c] : most;
        for (int64_t c = 0; c < n; c++) sum += exp(x[c] - most);
        for (int64_t c = 0; c < n; c++) score[c] = s->sigmoid ? 1 / (1 + exp(-(double)x[c])) : exp(x[c] - most) / sum;
        /* Without a bias logits choose: two scores may round to one number where their logits do not. */
        for (int64_t c = 0; c < n; c++) choice[c] = s->bias ? score[c] + s->bias[c] : s->groups > 1 ? score[c] : x[c];
        if (s->groups > 1) keep_groups(choice, s, n, worth, kept, best);
        largest(choice, n, index, s->top_k);
        sum = s->epsilon;
        for (int k = 0; k < s->top_k; k++) sum += score[index[k]];
        for (int k = 0; k < s->top_k; k++) share[k] = (float)(score[index[k]] / (s->normalize ? sum : 1) * (s->scale > 0 ? s->scale : 1));
    }
    arena_release(r->scratch, mark);
}

static bool ref_open(device *dev, const char *isa, vlm_error *error)
{
    dev->isa = "ref";
    dev->state = NULL;
    return true;
}

static void ref_close(device *dev) {}

const ops ops_ref = {
    .name = "ref", .open = ref_open, .close = ref_close, .prepare = ref_prepare, .release = ref_release,
    .linear = ref_linear, .linear_heads = ref_linear_heads, .embed = ref_embed, .rmsnorm = ref_rmsnorm, .layernorm = ref_layernorm, .add = ref_add, .mul = ref_mul,
    .scale = ref_scale, .activate = ref_activate, .glu = ref_glu, .clip = ref_clip, .softcap = ref_softcap, .gather = ref_gather,
    .scatter = ref_scatter, .scatter_add = ref_scatter_add, .adapt = ref_adapt, .rope = ref_rope, .kv_write = ref_kv_write, .attention = ref_attention,
    .attention_segments = ref_attention_segments, .attention_relative = ref_attention_relative, .route = ref_route, .moe = ref_moe,
    .conv2d = ref_conv2d, .conv2d_depthwise = ref_conv2d_depthwise, .conv1d_depthwise = ref_conv1d_depthwise, .scale_rows = ref_scale_rows, .conv1d_causal = ref_conv1d_causal,
    .delta_rule = ref_delta_rule,
};
