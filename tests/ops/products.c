/* products.c - cases: linear, embed, moe, conv2d. (linear_check goes deeper into products: every format, size and path.)
 *
 * Tolerance of a product: relative to |x| |w|, the product of the norms, which bounds it. Exact: float32 sums, 1e-6. Fast: activations
 * rounded to bfloat16 (2^-9 each) or to 8 bits in groups (half a step of the group's largest: some 1e-2 of |x| in the worst case). */
#include <math.h>
#include <string.h>

#include "ops_test.h"

static int64_t some_cols(ops_test *t, weight_format format) { return format == WF_AFFINE ? 128 * t_between(t, 1, 5) : t_size(t, 600); }

static double norm(const float *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)x[i] * x[i];
    return sqrt(sum);
}

/* Norm of the largest row of x. */
static double row_norm(tensor x)
{
    double most = 0;
    for (int64_t i = 0; i < x.rows; i++) most = fmax(most, norm(tensor_row(x, i), x.cols));
    return most;
}

static double weight_norm(ops_test *t, const weight *w)
{
    double most = 0;
    weight all = *w;
    if (w->experts) all.rows *= w->experts, all.experts = 0;
    float *row = t_values(t, w->cols, 0);
    for (int64_t i = 0; i < all.rows; i++) {
        weight_row_f32(&all, i, row);
        most = fmax(most, norm(row, w->cols));
    }
    return most;
}

static double loss(const ops_test *t) { return t->precision == PRECISION_FAST ? 1e-2 : 1e-6; }

/* The weight as each of the two devices prepared it. */
typedef struct prepared { weight dev, one; } prepared;

static prepared prepare(ops_test *t, const weight *w)
{
    prepared p = {*w, *w};
    vlm_error error = {0};
    if (!t->dev.ops->prepare(&t->dev, &p.dev, &error) || !t->one.ops->prepare(&t->one, &p.one, &error)) t_fail(t, "prepare: %s", error.message);
    return p;
}

static void release(ops_test *t, prepared *p)
{
    t->dev.ops->release(&t->dev, &p->dev);
    t->one.ops->release(&t->one, &p->one);
}

static void check_linear(ops_test *t)
{
    weight_format format = (weight_format)t_below(t, WF_COUNT);
    int64_t n = t_size(t, 40), cols = some_cols(t, format), rows = t_size(t, 300);
    weight w = t_weight(t, format, rows, cols, 0);
    float *bias = t_below(t, 2) ? t_values(t, rows, 0.1f) : NULL;
    t_shape(t, "%lld x %lld, %lld outputs, format %d, %d bits, groups of %d", (long long)n, (long long)cols, (long long)rows, (int)format, w.bits, w.group);
    prepared p = prepare(t, &w);
    tensor x = t_random(t, n, cols, 1), want = t_output(t, n, rows), got = t_output(t, n, rows);
    ON(t, ref, linear, want, x, &w, bias);
    ON(t, dev, linear, got, x, &p.dev, bias);
    t_near(t, got, want, loss(t) * row_norm(x) * weight_norm(t, &w), 1e-6);
    int64_t first = t_below(t, (uint32_t)n), some = t_between(t, 1, (int)(n - first));
    tensor part = t_output(t, some, rows);
    ON(t, one, linear, part, tensor_rows(x, first, some), &p.one, bias);
    t_same(t, part, tensor_rows(got, first, some));
    t_guards(t, part);
    release(t, &p);
}

static void check_heads(ops_test *t)
{
    weight_format format = (weight_format)t_below(t, WF_COUNT);
    int64_t heads = t_between(t, 1, 9), n = t_size(t, 30), cols = some_cols(t, format), rows = t_size(t, 200);
    weight w = t_weight(t, format, rows, cols, heads);
    t_shape(t, "%lld heads of %lld x %lld, %lld outputs, format %d", (long long)heads, (long long)n, (long long)cols, (long long)rows, (int)format);
    prepared p = prepare(t, &w);
    tensor x = t_random(t, n * heads, cols, 1), want = t_output(t, x.rows, rows), got = t_output(t, x.rows, rows);
    ON(t, ref, linear_heads, want, x, &w);
    ON(t, dev, linear_heads, got, x, &p.dev);
    t_near(t, got, want, loss(t) * row_norm(x) * weight_norm(t, &w), 1e-6);
    int64_t first = t_below(t, (uint32_t)n), some = t_between(t, 1, (int)(n - first));
    tensor part = t_output(t, some * heads, rows);
    ON(t, one, linear_heads, part, tensor_rows(x, first * heads, some * heads), &p.one);
    t_same(t, part, tensor_rows(got, first * heads, some * heads));
    t_guards(t, part);
    release(t, &p);
}

/* What a backend computes in one go has the bits of the three products; formats may differ between them. */
static void check_mlp(ops_test *t)
{
    if (strcmp(t->dev.isa, "amx") != 0) return;    /* the others have none */
    weight_format formats[3];
    for (int i = 0; i < 3; i++) formats[i] = t_below(t, 2) ? WF_AFFINE : t_below(t, 4) ? WF_BF16 : (weight_format)t_below(t, WF_COUNT);
    bool affine = formats[0] == WF_AFFINE || formats[1] == WF_AFFINE;
    int64_t n = t_below(t, 4) ? t_between(t, 20, 100) : t_size(t, 40), cols = some_cols(t, affine ? WF_AFFINE : WF_BF16), outs = t_size(t, 100);
    int64_t ffn = formats[2] == WF_AFFINE ? 128 * t_between(t, 1, 4) : t_size(t, 400);
    weight gate = t_weight(t, formats[0], ffn, cols, 0), up = t_weight(t, formats[1], ffn, cols, 0), down = t_weight(t, formats[2], outs, ffn, 0);
    for (int i = 0; i < 30 && (gate.bits | up.bits | down.bits) & 3; i++) {                        /* mostly 4 and 8 bits */
        if (gate.bits & 3) gate = t_weight(t, formats[0], ffn, cols, 0);
        if (up.bits & 3) up = t_weight(t, formats[1], ffn, cols, 0);
        if (down.bits & 3) down = t_weight(t, formats[2], outs, ffn, 0);
    }
    t_shape(t, "%lld x %lld, ffn %lld, %lld outputs, formats %d %d %d", (long long)n, (long long)cols, (long long)ffn, (long long)outs, (int)formats[0],
            (int)formats[1], (int)formats[2]);
    prepared g = prepare(t, &gate), u = prepare(t, &up), d = prepare(t, &down);
    weight plain = u.dev;
    if (t_below(t, 3) == 0) plain.packed = NULL;
    tensor x = t_random(t, n, cols, 1), a = t_output(t, n, ffn), b = t_output(t, n, ffn), want = t_output(t, n, outs), got = t_output(t, n, outs);
    mlp_spec s = {&g.dev, &plain, &d.dev, .act = t_below(t, 2) ? ACT_SILU : ACT_GELU_TANH};
    if (t_below(t, 2)) s.gate_bias = t_values(t, ffn, 0.1f), s.up_bias = t_values(t, ffn, 0.1f);
    if (t_below(t, 2)) s.down_bias = t_values(t, outs, 0.1f);
    if (t->dev.ops->mlp && t->dev.ops->mlp(&t->on_dev, got, x, &s)) {
        ON(t, dev, linear, a, x, s.gate, s.gate_bias);
        ON(t, dev, linear, b, x, s.up, s.up_bias);
        ON(t, dev, glu, a, a, b, s.act);
        ON(t, dev, linear, want, a, s.down, s.down_bias);
        t_same(t, got, want);
        t_guards(t, got);
    }
    release(t, &g);
    release(t, &u);
    release(t, &d);
}

static void check_embed(ops_test *t)
{
    weight_format format = (weight_format)t_below(t, WF_COUNT);
    int64_t n = t_size(t, 40), cols = some_cols(t, format), rows = t_size(t, 300);
    weight w = t_weight(t, format, rows, cols, 0);
    t_shape(t, "%lld of %lld x %lld, format %d, %d bits, groups of %d", (long long)n, (long long)rows, (long long)cols, (int)format, w.bits, w.group);
    prepared p = prepare(t, &w);
    int32_t *ids = t_alloc(t, (size_t)n * 4);
    for (int64_t i = 0; i < n; i++) ids[i] = (int32_t)t_below(t, (uint32_t)rows);
    tensor want = t_output(t, n, cols), got = t_output(t, n, cols), part = t_output(t, 1, cols);
    ON(t, ref, embed, want, &w, ids, 1.5f);
    ON(t, dev, embed, got, &p.dev, ids, 1.5f);
    t_near(t, got, want, 1e-8, 2.4e-7);
    ON(t, one, embed, part, &p.one, ids + n - 1, 1.5f);
    t_same(t, part, tensor_rows(got, n - 1, 1));
    release(t, &p);
}

static void check_moe(ops_test *t)
{
    weight_format format = (weight_format)t_below(t, WF_COUNT);
    moe_spec s = {.experts = t_between(t, 1, 9), .act = t_below(t, 2) ? ACT_SILU : ACT_GELU_TANH};
    s.top_k = t_between(t, 1, s.experts < 4 ? s.experts : 4);
    int64_t n = t_size(t, 30), cols = some_cols(t, format), ffn = format == WF_AFFINE ? 128 : t_size(t, 200);
    bool fused = t_below(t, 2);
    weight gate = t_weight(t, format, fused ? 2 * ffn : ffn, cols, s.experts), up = t_weight(t, format, ffn, cols, s.experts);
    weight down = t_weight(t, format, cols, ffn, s.experts);
    t_shape(t, "%lld x %lld, %d of %d experts, ffn %lld, format %d%s", (long long)n, (long long)cols, s.top_k, s.experts, (long long)ffn, (int)format,
            fused ? ", fused" : "");
    prepared p[3] = {prepare(t, &gate), prepare(t, &up), prepare(t, &down)};
    int32_t *index = t_alloc(t, (size_t)(n * s.top_k) * 4);
    float *weights = t_values(t, n * s.top_k, 1);
    for (int64_t i = 0; i < n * s.top_k; i++) index[i] = (int32_t)t_below(t, (uint32_t)s.experts);
    tensor x = t_random(t, n, cols, 1), want = t_output(t, n, cols), got = t_output(t, n, cols);
    if (t_below(t, 3) == 0) {
        s.gate_up_bias = t_values(t, s.experts * 2 * ffn, 1);
        s.down_bias = t_values(t, s.experts * cols, 1);
        s.limit = 2;
    }
    moe_spec ref = s, dev = s, one = s;
    if (fused) ref.gate_up = &gate, dev.gate_up = &p[0].dev, one.gate_up = &p[0].one;
    else ref.gate = &gate, dev.gate = &p[0].dev, one.gate = &p[0].one, ref.up = &up, dev.up = &p[1].dev, one.up = &p[1].one;
    ref.down = &down, dev.down = &p[2].dev, one.down = &p[2].one;
    ON(t, ref, moe, want, x, &ref, index, weights);
    ON(t, dev, moe, got, x, &dev, index, weights);
    double inner = (s.limit > 0 ? 4 : 0) + row_norm(x) * weight_norm(t, &gate);                    /* bounds gate and up, and so act(gate) * up below */
    t_near(t, got, want, 4 * loss(t) * (1 + inner * weight_norm(t, &up) * row_norm(x)) * weight_norm(t, &down) * s.top_k, 1e-5);
    int64_t first = t_below(t, (uint32_t)n), some = t_between(t, 1, (int)(n - first));
    tensor part = t_output(t, some, cols);
    ON(t, one, moe, part, tensor_rows(x, first, some), &one, index + first * s.top_k, weights + first * s.top_k);
    t_same(t, part, tensor_rows(got, first, some));
    for (int i = 0; i < 3; i++) release(t, &p[i]);
}

static void check_conv2d(ops_test *t)
{
    static const weight_format formats[] = {WF_F32, WF_F16, WF_BF16};
    int kh = t_between(t, 1, 5), kw = t_between(t, 1, 5), stride = t_between(t, 1, 3), padding = t_between(t, 0, 2);
    int height = t_between(t, kh, 24), width = t_between(t, kw, 24), in = t_between(t, 1, 20), outs = t_size(t, 40), behind = t_between(t, 0, 2);
    int oh = (height + padding + behind - kh) / stride + 1, ow = (width + 2 * padding - kw) / stride + 1;
    conv_shape c = {height, width, kh, kw, stride, padding, padding, oh, ow};
    t_shape(t, "%d x %d x %d, kernel %d x %d, stride %d, padding %d, %d outputs", height, width, in, kh, kw, stride, padding, outs);
    weight w = t_weight(t, formats[t_below(t, 3)], outs, (int64_t)kh * kw * in, 0);
    prepared p = prepare(t, &w);
    float *bias = t_below(t, 2) ? t_values(t, outs, 1) : NULL;
    tensor x = t_random(t, (int64_t)height * width, in, 1), want = t_output(t, (int64_t)oh * ow, outs), got = t_output(t, want.rows, outs), again = t_output(t, want.rows, outs);
    ON(t, ref, conv2d, want, x, &c, &w, bias);
    ON(t, dev, conv2d, got, x, &c, &p.dev, bias);
    t_near(t, got, want, loss(t) * sqrt(kh * kw) * row_norm(x) * weight_norm(t, &w), 1e-6);
    ON(t, one, conv2d, again, x, &c, &p.one, bias);
    t_same(t, again, got);
    release(t, &p);
}

static void check_conv2d_depthwise(ops_test *t)
{
    int kernel = t_between(t, 1, 5), stride = t_between(t, 1, 3), height = t_between(t, 1, 24), width = t_between(t, 1, 24), cols = t_size(t, 80);
    conv_shape c = conv_same(height, width, kernel, stride);
    t_shape(t, "%d x %d x %d, kernel %d x %d, stride %d", height, width, cols, kernel, kernel, stride);
    float *w = t_values(t, (int64_t)kernel * kernel * cols, 1), *bias = t_below(t, 2) ? t_values(t, cols, 1) : NULL;
    tensor x = t_random(t, (int64_t)height * width, cols, 1), want = t_output(t, (int64_t)c.out_height * c.out_width, cols), got = t_output(t, want.rows, cols);
    tensor again = t_output(t, want.rows, cols);
    ON(t, ref, conv2d_depthwise, want, x, &c, w, bias);
    ON(t, dev, conv2d_depthwise, got, x, &c, w, bias);
    t_near(t, got, want, 1e-5, 1e-5);
    ON(t, one, conv2d_depthwise, again, x, &c, w, bias);
    t_same(t, again, got);
}

/* ---- bench ---- */

typedef struct bench_args { tensor x, y; weight w; conv_shape shape; } bench_args;

static void run_conv2d(ops_test *t, void *arg)
{
    bench_args *a = arg;
    ON(t, dev, conv2d, a->y, a->x, &a->shape, &a->w, NULL);
}

static void bench_conv2d(ops_test *t)
{
    static const int shapes[][4] = {{200, 128, 1, 128}, {100, 64, 128, 32}};           /* the two of a sound encoder, 2 seconds */
    for (int i = 0; i < 2; i++) {
        int height = shapes[i][0], width = shapes[i][1], in = shapes[i][2], outs = shapes[i][3], oh = (height - 1) / 2 + 1, ow = (width - 1) / 2 + 1;
        bench_args a = {t_random(t, (int64_t)height * width, in, 1), t_output(t, (int64_t)oh * ow, outs), t_weight(t, WF_F32, outs, 9 * in, 0), {height, width, 3, 3, 2, 1, 1, oh, ow}};
        prepared p = prepare(t, &a.w);
        a.w = p.dev;
        t_shape(t, "%d x %d x %d to %d", height, width, in, outs);
        t_bench(t, t->shape, 2.0 * oh * ow * outs * 9 * in, "GFLOP/s", run_conv2d, &a);
        release(t, &p);
    }
}

const op_case linear_cases[] = {
    {"linear", check_linear, NULL, true}, {"mlp", check_mlp, NULL, true}, {"linear_heads", check_heads, NULL, true}, {"embed", check_embed, NULL, true}, {"moe", check_moe, NULL, true}, {"conv2d", check_conv2d, bench_conv2d, true},
    {"conv2d_depthwise", check_conv2d_depthwise, NULL, false},
    {NULL, NULL, NULL, false},
};
