/* rows.c - cases: norms, element by element, rotary embedding, moving rows, routing, convolutions.
 *
 * Tolerances, in units of the last place (EPS = 2^-23) of float32: a kernel of a few multiplications may be off by a few units of
 * the result; functions (exp, tanh, erf) by some ten more, relative to the largest of their factors; sums over n columns by
 * some units of the sum of magnitudes. */
#include <math.h>
#include <string.h>

#include "ops_test.h"

#define EPS 1.2e-7

enum { ROWS = 40, COLS = 700 };

/* Some rows [first, first + n) of a batch of `rows`. */
typedef struct rows_of { int64_t first, n; } rows_of;

static rows_of some_rows(ops_test *t, int64_t rows)
{
    int64_t first = t_below(t, (uint32_t)rows);
    return (rows_of){first, t_between(t, 1, (int)(rows - first))};
}

#define PART(x) tensor_rows(x, s.first, s.n)
/* What `one` made of rows s against those rows of dev's result. */
#define CHECK_PART(part) do { t_same(t, part, PART(got)); t_guards(t, part); } while (0)

static void check_rmsnorm(ops_test *t)
{
    int64_t rows = t_size(t, ROWS), heads = t_below(t, 2) ? 1 : t_between(t, 2, 6), width = t_size(t, heads > 1 ? 100 : COLS), cols = heads * width;
    float *w = t_below(t, 4) ? t_values(t, width, 1) : NULL, offset = t_below(t, 2) ? 1 : 0;
    t_shape(t, "%lld x %lld, width %lld", (long long)rows, (long long)cols, (long long)width);
    tensor x = t_random(t, rows, cols, 3), want = t_output(t, rows, cols), got = t_output(t, rows, cols);
    int64_t argument = heads == 1 && t_below(t, 2) ? 0 : width;
    ON(t, ref, rmsnorm, want, x, w, offset, 1e-6f, argument);
    ON(t, dev, rmsnorm, got, x, w, offset, 1e-6f, argument);
    t_near(t, got, want, 1e-7, 8 * EPS);
    rows_of s = some_rows(t, rows);
    tensor part = t_copy(t, PART(x));                                      /* in place */
    ON(t, one, rmsnorm, part, part, w, offset, 1e-6f, argument);
    CHECK_PART(part);
}

static void check_layernorm(ops_test *t)
{
    int64_t rows = t_size(t, ROWS), cols = t_size(t, COLS) + 1;
    float *w = t_below(t, 4) ? t_values(t, cols, 1) : NULL, *b = t_below(t, 4) ? t_values(t, cols, 1) : NULL;
    t_shape(t, "%lld x %lld", (long long)rows, (long long)cols);
    tensor x = t_random(t, rows, cols, 2), want = t_output(t, rows, cols), got = t_output(t, rows, cols);
    ON(t, ref, layernorm, want, x, w, b, 1e-5f);
    ON(t, dev, layernorm, got, x, w, b, 1e-5f);
    t_near(t, got, want, 40 * EPS, 20 * EPS);                              /* cancellation in x - mean */
    rows_of s = some_rows(t, rows);
    tensor part = t_output(t, s.n, cols);
    ON(t, one, layernorm, part, PART(x), w, b, 1e-5f);
    CHECK_PART(part);
}

static void check_add(ops_test *t)
{
    int64_t rows = t_size(t, ROWS), cols = t_size(t, 6000);
    t_shape(t, "%lld x %lld", (long long)rows, (long long)cols);
    tensor a = t_random(t, rows, cols, 1), b = t_random(t, rows, cols, 1), want = t_output(t, rows, cols), got = t_output(t, rows, cols);
    float scale = t_below(t, 2) ? 1 : t_float(t);
    ON(t, ref, add, want, a, b, scale);
    ON(t, dev, add, got, a, b, scale);
    t_near(t, got, want, 2 * EPS, 2 * EPS);
    rows_of s = some_rows(t, rows);
    tensor part = t_copy(t, PART(a));
    ON(t, one, add, part, part, PART(b), scale);
    CHECK_PART(part);
}

static void check_mul(ops_test *t)
{
    int64_t rows = t_size(t, ROWS), cols = t_size(t, 6000);
    t_shape(t, "%lld x %lld", (long long)rows, (long long)cols);
    tensor a = t_random(t, rows, cols, 1), b = t_random(t, rows, cols, 1), want = t_output(t, rows, cols), got = t_output(t, rows, cols);
    ON(t, ref, mul, want, a, b);
    ON(t, dev, mul, got, a, b);
    t_near(t, got, want, 0, EPS);
    rows_of s = some_rows(t, rows);
    tensor part = t_copy(t, PART(a));
    ON(t, one, mul, part, part, PART(b));
    CHECK_PART(part);
}

/* Operations that change x in place: call(device, tensor). */
#define IN_PLACE(x, absolute, relative, call)                                                       \
    do {                                                                                            \
        tensor want = t_copy(t, x), got = t_copy(t, x);                                             \
        call(ref, want);                                                                            \
        call(dev, got);                                                                             \
        t_near(t, got, want, absolute, relative);                                                   \
        rows_of s = some_rows(t, (x).rows);                                                         \
        tensor part = t_copy(t, PART(x));                                                           \
        call(one, part);                                                                            \
        CHECK_PART(part);                                                                           \
    } while (0)

static void check_scale(ops_test *t)
{
    tensor x = t_random(t, t_size(t, ROWS), t_size(t, 6000), 1);
    t_shape(t, "%lld x %lld", (long long)x.rows, (long long)x.cols);
    float factor = t_float(t), *columns = t_below(t, 2) ? t_values(t, x.cols, 1) : NULL;
#define CALL(on, x) ON(t, on, scale, x, factor, columns)
    IN_PLACE(x, 0, 2 * EPS, CALL);
#undef CALL
}

static void check_clip(ops_test *t)
{
    tensor x = t_random(t, t_size(t, ROWS), t_size(t, 6000), 2);
    t_shape(t, "%lld x %lld", (long long)x.rows, (long long)x.cols);
#define CALL(on, x) ON(t, on, clip, x, -1.5f, 0.75f)
    IN_PLACE(x, 0, 0, CALL);
#undef CALL
}

static void check_softcap(ops_test *t)
{
    tensor x = t_random(t, t_size(t, ROWS), t_size(t, 6000), t_below(t, 2) ? 40 : 0.1f);
    t_shape(t, "%lld x %lld", (long long)x.rows, (long long)x.cols);
#define CALL(on, x) ON(t, on, softcap, x, 30)
    IN_PLACE(x, 1e-30, 4 * EPS, CALL);
#undef CALL
}

static const float steps[] = {0, -0.f, 1e-30f, -1e-20f, 1e-5f, 0.62499f, 0.62501f, 1, -1, 5, -5, 10, -10, 20, -20, 60, -60, 88, -88, 95, -95, 300, -300};

/* Values over all magnitudes, where functions change their formula. */
static tensor steep(ops_test *t, int64_t rows, int64_t cols)
{
    tensor x = t_random(t, rows, cols, 4);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < cols; c++) if (t_below(t, 8) == 0) tensor_row(x, i)[c] = steps[t_below(t, sizeof steps / sizeof *steps)];
    return x;
}

/* Far left tails of gelu and silu are tiny numbers whose exponent carries the rounding of x: absolute, not relative. */
static void check_activate(ops_test *t)
{
    activation act = (activation)t_below(t, ACT_TANH + 1);
    tensor x = steep(t, t_size(t, ROWS), t_size(t, 6000)), want = t_output(t, x.rows, x.cols), got = t_output(t, x.rows, x.cols);
    t_shape(t, "%lld x %lld, activation %d", (long long)x.rows, (long long)x.cols, (int)act);
    ON(t, ref, activate, want, x, act);
    ON(t, dev, activate, got, x, act);
    t_near(t, got, want, 1.5 * EPS, 6 * EPS);
    rows_of s = some_rows(t, x.rows);
    tensor part = t_copy(t, PART(x));
    ON(t, one, activate, part, part, act);
    CHECK_PART(part);
}

static void check_glu(ops_test *t)
{
    activation act = (activation)t_below(t, ACT_TANH + 1);
    tensor x = steep(t, t_size(t, ROWS), t_size(t, 6000)), up = t_random(t, x.rows, x.cols, 1);
    tensor want = t_output(t, x.rows, x.cols), got = t_output(t, x.rows, x.cols);
    t_shape(t, "%lld x %lld, activation %d", (long long)x.rows, (long long)x.cols, (int)act);
    ON(t, ref, glu, want, x, up, act);
    ON(t, dev, glu, got, x, up, act);
    t_near(t, got, want, 5 * EPS, 7 * EPS);
    rows_of s = some_rows(t, x.rows);
    tensor part = t_output(t, s.n, x.cols);
    ON(t, one, glu, part, PART(x), PART(up), act);
    CHECK_PART(part);
}

static void check_rope(ops_test *t)
{
    static const int halves[] = {1, 3, 4, 8, 16, 20, 32, 36, 64};
    int heads = t_between(t, 1, 5), blocks = t_between(t, 1, 3), half = t_pick(t, 9, halves);
    int head_dim = 2 * half * blocks + 2 * t_between(t, 0, 5);
    bool interleaved = t_below(t, 3) == 0;
    tensor x = t_random(t, t_size(t, ROWS), (int64_t)heads * head_dim, 2);
    tensor cosine = t_random(t, x.rows, blocks * half, 1), sine = t_random(t, x.rows, blocks * half, 1);
    t_shape(t, "%lld rows, %d heads of %d, %d blocks of %d%s", (long long)x.rows, heads, head_dim, blocks, 2 * half, interleaved ? ", interleaved" : "");
    tensor want = t_copy(t, x), got = t_copy(t, x);
    ON(t, ref, rope, want, heads, head_dim, blocks, 2 * half, interleaved, cosine, sine);
    ON(t, dev, rope, got, heads, head_dim, blocks, 2 * half, interleaved, cosine, sine);
    t_near(t, got, want, 10 * EPS, 2 * EPS);
    rows_of s = some_rows(t, x.rows);
    tensor part = t_copy(t, PART(x));
    ON(t, one, rope, part, heads, head_dim, blocks, 2 * half, interleaved, PART(cosine), PART(sine));
    CHECK_PART(part);
}

static int32_t *random_index(ops_test *t, int64_t n, int64_t rows)
{
    int32_t *index = t_alloc(t, (size_t)n * sizeof *index);
    for (int64_t i = 0; i < n; i++) index[i] = t_below(t, 6) ? (int32_t)t_below(t, (uint32_t)rows) : -1;
    return index;
}

static void check_gather(ops_test *t)
{
    tensor x = t_random(t, t_size(t, ROWS), t_size(t, COLS), 1);
    int64_t n = t_size(t, 60);
    int32_t *index = random_index(t, n, x.rows);
    tensor want = t_output(t, n, x.cols), got = t_output(t, n, x.cols);
    t_shape(t, "%lld of %lld x %lld", (long long)n, (long long)x.rows, (long long)x.cols);
    ON(t, ref, gather, want, x, index);
    ON(t, dev, gather, got, x, index);
    t_near(t, got, want, 0, 0);
}

static void check_scatter(ops_test *t)
{
    tensor x = t_random(t, t_size(t, 60), t_size(t, COLS), 1), out = t_random(t, t_size(t, ROWS), x.cols, 1);
    int32_t *index = random_index(t, x.rows, out.rows);
    tensor want = t_copy(t, out), got = t_copy(t, out);
    t_shape(t, "%lld x %lld to %lld", (long long)x.rows, (long long)x.cols, (long long)out.rows);
    ON(t, ref, scatter, want, x, index);
    ON(t, dev, scatter, got, x, index);
    t_near(t, got, want, 0, 0);
}

static void check_scatter_add(ops_test *t)
{
    tensor x = t_random(t, t_size(t, 60), t_size(t, COLS), 1), out = t_random(t, t_size(t, ROWS), x.cols, 1);
    int32_t *index = random_index(t, x.rows, out.rows);
    tensor want = t_copy(t, out), got = t_copy(t, out), part = t_copy(t, out);
    t_shape(t, "%lld x %lld to %lld", (long long)x.rows, (long long)x.cols, (long long)out.rows);
    ON(t, ref, scatter_add, want, x, index, 0.25f);
    ON(t, dev, scatter_add, got, x, index, 0.25f);
    t_near(t, got, want, 20 * EPS, 4 * EPS);
    ON(t, one, scatter_add, part, x, index, 0.25f);
    t_same(t, part, got);
}

static void check_adapt(ops_test *t)
{
    tensor out = t_random(t, t_size(t, ROWS), t_size(t, COLS), 1), none = {NULL, DT_F32, 0, 0, 0};
    int64_t n = 0;
    int32_t *index = t_alloc(t, (size_t)(out.rows + 1) * sizeof *index);
    for (int64_t i = 0; i < out.rows; i++)
        if (t_below(t, 3)) index[n++] = (int32_t)i;
    tensor u = t_below(t, 4) ? t_random(t, n, out.cols, 1) : none;
    const float *columns = t_below(t, 2) ? t_values(t, out.cols, 1) : NULL, *from = t_below(t, 2) ? t_values(t, out.cols, 1) : NULL;
    const float *to = t_below(t, 2) ? t_values(t, out.cols, 1) : NULL;
    tensor want = t_copy(t, out), got = t_copy(t, out), part = t_copy(t, out);
    t_shape(t, "%lld of %lld x %lld%s%s%s%s", (long long)n, (long long)out.rows, (long long)out.cols, u.data ? ", u" : "", columns ? ", columns" : "", from ? ", from" : "", to ? ", to" : "");
    ON(t, ref, adapt, want, u, index, n, 0.7f, columns, from, to);
    ON(t, dev, adapt, got, u, index, n, 0.7f, columns, from, to);
    t_near(t, got, want, 20 * EPS, 8 * EPS);
    ON(t, one, adapt, part, u, index, n, 0.7f, columns, from, to);
    t_same(t, part, got);
}

/* Some way to choose: softmax or sigmoid, bias, groups of which only some count. */
static route_spec random_route(ops_test *t, int64_t cols)
{
    route_spec s = {.sigmoid = t_below(t, 2), .normalize = t_below(t, 2), .bias = t_below(t, 2) ? t_values(t, cols, 0.5f) : NULL};
    int64_t most = cols;
    s.groups = t_below(t, 2) ? t_between(t, 2, 6) : 0;
    if (s.groups && cols % s.groups) s.groups = 0;
    if (s.groups) {
        s.kept_groups = t_between(t, 1, s.groups);
        s.group_best = cols / s.groups > 1 ? t_between(t, 1, 2) : 1;
        most = s.kept_groups * (cols / s.groups);
    }
    if (t_below(t, 2)) s.scale = 2.5f, s.epsilon = 1e-3f;
    s.top_k = t_between(t, 1, most < 12 ? (int)most : 12);
    if (t_below(t, 5) == 0) s = (route_spec){.top_k = cols > 1 ? 2 : 1, .jitter = 0.05f};
    return s;
}

static void check_route(ops_test *t)
{
    int64_t rows = t_size(t, ROWS), cols = t_size(t, 300);
    if (t_below(t, 2)) cols = (cols + 11) / 12 * 12;
    route_spec s = random_route(t, cols);
    int k = s.top_k;
    bool ties = t_below(t, 3) == 0 && !s.bias && s.groups <= 1;              /* else sums may round differently */
    tensor x = t_random(t, rows, cols, 3);
    for (int64_t i = 0; ties && i < rows; i++) for (int64_t c = 0; c < cols; c++) tensor_row(x, i)[c] = (float)(int)tensor_row(x, i)[c];
    t_shape(t, "%d of %lld (%d of %d groups, by %d)%s%s, %lld rows%s", k, (long long)cols, s.kept_groups, s.groups, s.group_best, s.sigmoid ? ", sigmoid" : "",
            s.bias ? ", bias" : "", (long long)rows, ties ? ", ties" : "");
    int32_t *want_index = t_alloc(t, (size_t)(rows * k) * 4), *index = t_alloc(t, (size_t)(rows * k) * 4);
    tensor want = {t_values(t, rows * k, 0), DT_F32, rows, k, k}, got = t_output(t, 1, rows * k);
    ON(t, ref, route, want_index, want.data, x, &s);
    ON(t, dev, route, index, got.data, x, &s);
    want.cols = want.stride = rows * k, want.rows = 1;
    t_near(t, got, want, 1e-30, 20 * EPS);
    if (memcmp(index, want_index, (size_t)(rows * k) * 4)) t_fail(t, "other indices");
    int64_t row = t_below(t, (uint32_t)rows);
    tensor part = t_output(t, 1, k);
    ON(t, one, route, want_index, part.data, tensor_rows(x, row, 1), &s);
    t_same(t, part, tensor_cols(got, row * k, k));
}

static void check_conv1d(ops_test *t)
{
    int kernel = t_between(t, 1, 9), left = t_between(t, 0, kernel - 1);
    tensor x = t_random(t, t_size(t, ROWS), t_size(t, COLS), 1), want = t_output(t, x.rows, x.cols), got = t_output(t, x.rows, x.cols);
    float *w = t_values(t, x.cols * kernel, 1);
    t_shape(t, "%lld x %lld, kernel %d, left %d", (long long)x.rows, (long long)x.cols, kernel, left);
    ON(t, ref, conv1d_depthwise, want, x, w, kernel, left);
    ON(t, dev, conv1d_depthwise, got, x, w, kernel, left);
    t_near(t, got, want, 20 * EPS, 4 * EPS);
    tensor part = t_output(t, x.rows, x.cols);
    ON(t, one, conv1d_depthwise, part, x, w, kernel, left);
    t_same(t, part, got);
}

/* ---- bench ---- */

typedef struct bench_args { tensor x, y, z, cosine, sine; const float *w; activation act; int32_t *index; float *p; } bench_args;

static void run_rmsnorm(ops_test *t, void *arg) { bench_args *a = arg; ON(t, dev, rmsnorm, a->y, a->x, a->w, 1, 1e-6f, 0); }
static void run_layernorm(ops_test *t, void *arg) { bench_args *a = arg; ON(t, dev, layernorm, a->y, a->x, a->w, a->w, 1e-6f); }
static void run_add(ops_test *t, void *arg) { bench_args *a = arg; ON(t, dev, add, a->y, a->x, a->z, 1); }
static void run_activate(ops_test *t, void *arg) { bench_args *a = arg; ON(t, dev, activate, a->y, a->x, a->act); }
static void run_glu(ops_test *t, void *arg) { bench_args *a = arg; ON(t, dev, glu, a->y, a->x, a->z, a->act); }
static void run_softcap(ops_test *t, void *arg) { bench_args *a = arg; ON(t, dev, softcap, a->x, 30); }
static void run_rope(ops_test *t, void *arg) { bench_args *a = arg; ON(t, dev, rope, a->y, (int)(a->y.cols / 128), 128, 1, 128, false, a->cosine, a->sine); }
static void run_route(ops_test *t, void *arg) { bench_args *a = arg; ON(t, dev, route, a->index, a->p, a->x, &(route_spec){.top_k = 8, .normalize = true}); }

static tensor plain(ops_test *t, int64_t rows, int64_t cols) { return (tensor){t_values(t, rows * cols, 1), DT_F32, rows, cols, cols}; }

static void bench_with(ops_test *t, void (*fn)(ops_test *t, void *arg), activation act, const char *note, int streams)
{
    static const int64_t shapes[][2] = {{1, 256}, {1, 4096}, {512, 2048}};
    for (int i = 0; i < 3; i++) {
        int64_t rows = shapes[i][0], cols = shapes[i][1];
        bench_args a = {plain(t, rows, cols), plain(t, rows, cols), plain(t, rows, cols), plain(t, rows, 64), plain(t, rows, 64), t_values(t, cols, 1), act,
                        t_alloc(t, (size_t)rows * 32), t_alloc(t, (size_t)rows * 32)};
        t_shape(t, "%lld x %lld%s", (long long)rows, (long long)cols, note);
        t_bench(t, t->shape, (double)(streams * 4 * rows * cols), "GB/s", fn, &a);
    }
}

static void bench_rmsnorm(ops_test *t) { bench_with(t, run_rmsnorm, 0, "", 2); }
static void bench_layernorm(ops_test *t) { bench_with(t, run_layernorm, 0, "", 2); }
static void bench_add(ops_test *t) { bench_with(t, run_add, 0, "", 3); }
static void bench_softcap(ops_test *t) { bench_with(t, run_softcap, 0, "", 2); }
static void bench_activate(ops_test *t) { bench_with(t, run_activate, ACT_GELU, " gelu", 2); bench_with(t, run_activate, ACT_TANH, " tanh", 2); }
static void bench_glu(ops_test *t) { bench_with(t, run_glu, ACT_SILU, " silu", 3); bench_with(t, run_glu, ACT_GELU_TANH, " gelu_tanh", 3); }
static void bench_rope(ops_test *t) { bench_with(t, run_rope, 0, "", 2); }
static void bench_route(ops_test *t) { bench_with(t, run_route, 0, "", 1); }

const op_case row_cases[] = {
    {"rmsnorm", check_rmsnorm, bench_rmsnorm, false}, {"layernorm", check_layernorm, bench_layernorm, false}, {"add", check_add, bench_add, false},
    {"mul", check_mul, NULL, false}, {"scale", check_scale, NULL, false}, {"clip", check_clip, NULL, false},
    {"softcap", check_softcap, bench_softcap, false}, {"activate", check_activate, bench_activate, false}, {"glu", check_glu, bench_glu, false},
    {"rope", check_rope, bench_rope, false}, {"gather", check_gather, NULL, false}, {"scatter", check_scatter, NULL, false},
    {"scatter_add", check_scatter_add, NULL, false}, {"adapt", check_adapt, NULL, false}, {"route", check_route, bench_route, false}, {"conv1d_depthwise", check_conv1d, NULL, false},
    {NULL, NULL, NULL, false},
};
