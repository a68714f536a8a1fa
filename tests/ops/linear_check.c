/* linear_check.c - matrix products of every instruction set that this machine has, against double precision.
 *
 *     linear_check                     all formats x precisions x instruction sets, ragged sizes
 *     linear_check --bench [ISA ...] [exact-f32|fast-bf16|fast-affine4 ...]
 *                                      GB/s of weights (1 and 4 tokens) and GFLOP/s (512 tokens), of all or what is named
 *
 * Checked: the error against a bound that follows from the rounding a path may do; bytes around y; reads beyond the weights (they end at an
 * unreadable page); strided x and y; that a row gives the same bits alone and among others, with any number of threads. */
#define _DEFAULT_SOURCE
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "tensor/ops.h"

static const char *const isa_names[] = {"c", "avx2", "avx512", "avx512vnni", "amx", "neon", "neondot"};
enum { ISAS = sizeof isa_names / sizeof *isa_names };
static int failures, checks;
static bool answer;                                /* the kind of all rows: both are checked */

static uint64_t seed = 1;
static uint32_t random_word(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33) << 1 ^ (uint32_t)(seed >> 40);
}
static float random_float(void)                    /* about normal */
{
    float s = 0;
    for (int i = 0; i < 4; i++) s += (float)(random_word() & 0xffff) / 65536.0f - 0.5f;
    return s * 1.7f;
}

/* Memory whose end is the end of a readable page. */
static void *fenced(size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), whole = (bytes + page - 1) / page * page;
    char *p = mmap(NULL, whole + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) exit(7);
    mprotect(p + whole, page, PROT_NONE);
    return p + whole - bytes;
}
static void unfence(void *memory, size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), whole = (bytes + page - 1) / page * page;
    if (memory) munmap((char *)memory + bytes - whole, whole + page);
}

static void put(void *to, dtype type, size_t i, float value)
{
    uint16_t half = type == DT_BF16 ? f32_to_bf16(value) : f32_to_f16(value);
    if (type == DT_F32) memcpy((char *)to + 4 * i, &value, 4);
    else memcpy((char *)to + 2 * i, &half, 2);
}

static size_t scales_bytes(const weight *w)
{
    size_t matrices = w->experts ? (size_t)w->experts : 1;
    return w->format == WF_AFFINE ? matrices * (size_t)(w->rows * (w->cols / w->group)) * dtype_size(w->scale_type) : 0;
}

static weight make_weight(weight shape)
{
    weight w = shape;
    size_t codes = weight_bytes(&w) - 2 * scales_bytes(&w), count = scales_bytes(&w) ? scales_bytes(&w) / dtype_size(w.scale_type) : 0;
    char *data = fenced(codes);
    w.data = data;
    if (w.format == WF_AFFINE) {
        void *s = fenced(scales_bytes(&w)), *b = fenced(scales_bytes(&w));
        for (size_t i = 0; i + 4 <= codes; i += 4) memcpy(data + i, &(uint32_t){random_word()}, 4);
        float top = (float)((1 << w.bits) - 1);
        for (size_t i = 0; i < count; i++) {
            float scale = (0.5f + (float)(random_word() & 255) / 256.0f) * 0.12f / top;
            put(s, w.scale_type, i, random_word() & 1 ? scale : -scale);
            put(b, w.scale_type, i, (float)(random_word() & 255) / 256.0f * 0.12f - 0.06f);
        }
        w.scales = s;
        w.biases = b;
    } else {
        dtype type = w.format == WF_F32 ? DT_F32 : w.format == WF_BF16 ? DT_BF16 : DT_F16;
        for (size_t i = 0; i < codes / dtype_size(type); i++) put(data, type, i, random_float() * 0.05f);
    }
    return w;
}

static void free_weight(weight *w)
{
    unfence((void *)w->data, weight_bytes(w) - 2 * scales_bytes(w));
    unfence((void *)w->scales, scales_bytes(w));
    unfence((void *)w->biases, scales_bytes(w));
}

static void describe(char *text, size_t size, const weight *w)
{
    static const char *const names[] = {"f32", "f16", "bf16", "affine"};
    if (w->format == WF_AFFINE) snprintf(text, size, "affine%d/%d %s", w->bits, w->group, dtype_name(w->scale_type));
    else snprintf(text, size, "%s", names[w->format]);
}

static void complain(const device *dev, const weight *w, int64_t n, const char *what)
{
    char text[64];
    describe(text, sizeof text, w);
    if (++failures < 40)
        fprintf(stderr, "FAILED %s %s %s [%lld,%lld] n %lld, %s: %s\n", dev->isa, dev->precision == PRECISION_EXACT ? "exact" : "fast", text,
                (long long)w->rows, (long long)w->cols, (long long)n, answer ? "answer" : "prompt", what);
}

/* How far y[t][o] may be from the sum in double. Exact: float32 sums. Fast: activations (and affine weights, on AMX) rounded to bf16, or
 * activations to int8 by group. */
static double bound_of(const device *dev, const weight *w, const float *x, const float *row, double bias)
{
    double sum = 0, slack = 0;
    for (int64_t c = 0; c < w->cols; c++) sum += fabs((double)x[c] * row[c]);
    if (dev->precision == PRECISION_EXACT) return 3e-6 * sum + 1e-6 * fabs(bias) + 1e-30;
    if (w->format == WF_AFFINE) {
        for (int64_t g = 0; g < w->cols; g += w->group) {
            double most = 0, weights = 0;
            for (int64_t c = g; c < g + w->group; c++) {
                if (fabs(x[c]) > most) most = fabs(x[c]);
                weights += fabs(row[c]);
            }
            slack += most / 254 * weights;
        }
        slack *= 1.02;
        if (slack < 8e-3 * sum) slack = 8e-3 * sum;
    }
    if (w->format == WF_BF16) slack = 4e-3 * sum;
    return slack + 1e-5 * sum + 1e-6 * fabs(bias) + 1e-30;
}

enum { MOST_ROWS = 70 };
static const float guard = 12345.678f;

static weight prepared(device *dev, const weight *w)
{
    weight own = *w;
    vlm_error error = {0};
    if (!dev->ops->prepare(dev, &own, &error)) complain(dev, w, 0, error.message);
    return own;
}

/* The last device works on the rows as they are, the others on what they prepare. */
static void check_weight(device *devs, int n_devs, const weight *file, int64_t n, bool strided, bool with_bias)
{
    weight own = *file;
    const weight *w = &own;
    int64_t xs = w->cols + (strided ? 5 : 0), ys = w->rows + (strided ? 3 : 0);
    size_t xn = (size_t)(n * xs), yn = (size_t)(n * ys);
    float *x = fenced(xn * 4), *y = calloc(yn + 32, 4), *first = calloc(yn + 32, 4), *row = calloc((size_t)w->cols, 4);
    float *bias = fenced((size_t)w->rows * 4);
    if (!y || !first || !row) exit(7);
    for (size_t i = 0; i < xn; i++) x[i] = random_float();
    if (n > 1) for (int64_t c = 0; c < w->cols / 2; c++) x[xs + c] = 0;       /* whole groups of zeros */
    for (int64_t o = 0; o < w->rows; o++) bias[o] = random_float();
    for (int d = 0; d < n_devs; d++) {
        arena scratch = {0};
        run r = {.dev = &devs[d], .scratch = &scratch, .answer = answer};
        own = d < n_devs - 1 ? prepared(&devs[d], file) : *file;
        for (size_t i = 0; i < yn + 32; i++) y[i] = guard;
        tensor tx = {x, DT_F32, n, w->cols, xs}, ty = {y + 16, DT_F32, n, w->rows, ys};
        op_linear_to(&r, ty, tx, w, with_bias ? bias : NULL);
        checks++;
        if (!run_ok(&r)) complain(&devs[d], w, n, r.error.message);
        for (size_t i = 0; i < yn + 32; i++) {
            bool inside = i >= 16 && i < 16 + (size_t)((n - 1) * ys + w->rows) && (int64_t)((i - 16) % (size_t)ys) < w->rows;
            if (!inside && memcmp(&y[i], &guard, 4) != 0) {
                complain(&devs[d], w, n, "wrote outside y");
                break;
            }
        }
        if (d == 0) {
            double worst = 0;
            for (int64_t o = 0; o < w->rows; o++) {
                weight_row_f32(w, o, row);
                for (int64_t t = 0; t < n; t++) {
                    double sum = with_bias ? bias[o] : 0, b = with_bias ? bias[o] : 0;
                    for (int64_t c = 0; c < w->cols; c++) sum += (double)x[t * xs + c] * row[c];
                    double ratio = fabs(tensor_row(ty, t)[o] - sum) / bound_of(&devs[d], w, x + t * xs, row, b);
                    if (!(ratio <= worst)) worst = ratio;
                }
            }
            char text[80];
            snprintf(text, sizeof text, "error %.3g of what is allowed", worst);
            if (!(worst <= 1)) complain(&devs[d], w, n, text);
            memcpy(first, y, (yn + 32) * 4);
            for (int64_t t = 0; t < n && n > 1; t += 1 + t / 4) {           /* alone */
                float one[MOST_ROWS];
                op_linear_to(&r, (tensor){one, DT_F32, 1, w->rows, w->rows}, tensor_rows(tx, t, 1), w, with_bias ? bias : NULL);
                if (memcmp(one, tensor_row(ty, t), (size_t)w->rows * 4) != 0) complain(&devs[d], w, n, "a row alone has other bits");
            }
            if (n > 3) {                                                     /* a chunk */
                float *part = calloc((size_t)(n * w->rows), 4);
                op_linear_to(&r, (tensor){part, DT_F32, n - 2, w->rows, w->rows}, tensor_rows(tx, 2, n - 2), w, with_bias ? bias : NULL);
                for (int64_t t = 2; t < n; t++)
                    if (memcmp(part + (t - 2) * w->rows, tensor_row(ty, t), (size_t)w->rows * 4) != 0) {
                        complain(&devs[d], w, n, "a chunk has other bits");
                        break;
                    }
                free(part);
            }
        } else if (memcmp(first, y, (yn + 32) * 4) != 0) {
            complain(&devs[d], w, n, "bits depend on threads or preparation");
        }
        devs[d].ops->release(&devs[d], &own);
        arena_free(&scratch);
    }
    unfence(x, xn * 4);
    unfence(bias, (size_t)w->rows * 4);
    free(y);
    free(first);
    free(row);
}

static void check_embed(device *dev, const weight *w)
{
    arena scratch = {0};
    run r = {.dev = dev, .scratch = &scratch};
    int32_t ids[3] = {(int32_t)w->rows - 1, 0, (int32_t)w->rows / 2};
    tensor out = op_embed(&r, w, ids, 3, 2.5f);
    float *row = calloc((size_t)w->cols, 4);
    for (int i = 0; i < 3 && run_ok(&r); i++) {
        weight_row_f32(w, ids[i], row);
        for (int64_t c = 0; c < w->cols; c++)
            if (!(fabsf(tensor_row(out, i)[c] - 2.5f * row[c]) <= 1e-6f)) {
                complain(dev, w, 3, "embedding row");
                break;
            }
    }
    free(row);
    arena_free(&scratch);
}

/* Several products of one x at once give the bits of each alone, also when they cannot share what was packed. */
static void check_group(device *dev, int64_t n)
{
    enum { COLS = 192, COUNT = 4 };
    weight w[COUNT];
    const weight *list[COUNT];
    float x[20 * COLS], bias[40];
    const float *biases[COUNT] = {bias, NULL, bias, NULL};
    for (int64_t i = 0; i < n * COLS; i++) x[i] = random_float();
    for (int i = 0; i < 40; i++) bias[i] = random_float();
    for (int i = 0; i < COUNT; i++) {
        w[i] = make_weight((weight){.format = i < 2 ? WF_BF16 : WF_AFFINE, .rows = 7 * i + 9, .cols = COLS, .bits = i == 3 ? 4 : 8,
                                    .group = 64, .scale_type = DT_BF16});
        list[i] = &w[i];
    }
    arena scratch = {0};
    run r = {.dev = dev, .scratch = &scratch, .answer = answer};
    tensor y[COUNT], tx = {x, DT_F32, n, COLS, COLS};
    op_linear_group(&r, tx, COUNT, y, list, biases);
    for (int i = 0; i < COUNT; i++) {
        tensor one = op_linear(&r, tx, list[i], biases[i]);
        checks++;
        if (!run_ok(&r)) complain(dev, &w[i], n, r.error.message);
        else if (memcmp(one.data, y[i].data, (size_t)(n * w[i].rows) * 4) != 0) complain(dev, &w[i], n, "a group has other bits");
        free_weight(&w[i]);
    }
    arena_free(&scratch);
}

static void check_moe(device *dev, device *ref, weight_format format, int bits, bool fused, int64_t n)
{
    enum { EXPERTS = 7, TOP = 3, D = 96, FFN = 64 };
    weight shape = {.format = format, .rows = fused ? 2 * FFN : FFN, .cols = D, .experts = EXPERTS, .scale_type = DT_BF16, .bits = bits, .group = 32};
    weight gate = make_weight(shape), up = make_weight(shape);
    shape.rows = D;
    shape.cols = FFN;
    weight down = make_weight(shape);
    if (n % 2) gate = prepared(dev, &gate), up = prepared(dev, &up), down = prepared(dev, &down);
    moe_spec spec = {.experts = EXPERTS, .top_k = TOP, .act = ACT_SILU, .down = &down};
    if (fused) spec.gate_up = &gate;
    else spec.gate = &gate, spec.up = &up;
    float *x = calloc((size_t)n * D, 4), *weights = calloc((size_t)n * TOP, 4);
    int32_t *index = calloc((size_t)n * TOP, 4);
    for (int64_t i = 0; i < n * D; i++) x[i] = random_float();
    for (int64_t i = 0; i < n * TOP; i++) {
        weights[i] = 0.1f + (float)(random_word() & 255) / 300.0f;
        index[i] = (int32_t)((i % TOP * 2 + random_word() % 2) % EXPERTS);
    }
    arena scratch = {0};
    run r = {.dev = dev, .scratch = &scratch, .answer = answer}, s = {.dev = ref, .scratch = &scratch};
    tensor tx = {x, DT_F32, n, D, D};
    tensor got = op_moe(&r, tx, &spec, index, weights), want = op_moe(&s, tx, &spec, index, weights);
    checks++;
    if (!run_ok(&r) || !run_ok(&s)) {
        complain(dev, &gate, n, r.failed ? r.error.message : s.error.message);
    } else {
        double most = 0, worst = 0;
        for (int64_t i = 0; i < n * D; i++) {
            double a = ((float *)got.data)[i], b = ((float *)want.data)[i];
            if (fabs(b) > most) most = fabs(b);
            if (!(fabs(a - b) <= worst)) worst = fabs(a - b);
        }
        if (!(worst <= (dev->precision == PRECISION_EXACT ? 1e-5 : 4e-2) * most)) complain(dev, &gate, n, "experts");
        for (int64_t t = 0; t < n; t++) {
            tensor one = op_moe(&r, tensor_rows(tx, t, 1), &spec, index + t * TOP, weights + t * TOP);
            if (run_ok(&r) && memcmp(one.data, tensor_row(got, t), D * 4) != 0) complain(dev, &gate, n, "experts of a token alone have other bits");
        }
    }
    free(x);
    free(weights);
    free(index);
    if (n % 2) dev->ops->release(dev, &gate), dev->ops->release(dev, &up), dev->ops->release(dev, &down);
    free_weight(&gate);
    free_weight(&up);
    free_weight(&down);
    arena_free(&scratch);
}

static void check_isa(const char *isa, precision exactness)
{
    static const int threads[] = {1, 2, 3};
    device devs[3] = {0}, ref = {0};
    vlm_error error = {0};
    for (int i = 0; i < 3; i++)
        if (!device_open_cpu(&devs[i], threads[i], exactness, isa, &error)) return;
    if (!device_open_cpu(&ref, 1, exactness, "ref", &error)) return;
    static const int64_t rows[] = {1, 2, 5, 6, 16, 17, 31, 48, 70}, tokens[] = {1, 2, 3, 4, 7, 12, 16, 17, 33, 70};
    static const int64_t plain_cols[] = {1, 3, 16, 31, 33, 64, 100, 1024, 1060, 2056}, groups[] = {32, 64, 128};
    static const int bits[] = {4, 8, 2, 3, 5, 6};
    static const dtype scale_types[] = {DT_BF16, DT_F16, DT_F32};
    for (int round = 0; round < 30; round++) {
        answer = round / 2 & 1;
        for (int f = 0; f < 9; f++) {
            weight shape = {.rows = rows[random_word() % 9]};
            if (f < 3) {
                shape.format = f == 0 ? WF_F32 : f == 1 ? WF_F16 : WF_BF16;
                shape.cols = round < 10 ? plain_cols[round] : 1 + random_word() % 300;
            } else {
                if (f >= 5 && round % 3) continue;
                shape.format = WF_AFFINE;
                shape.bits = bits[f - 3];
                shape.group = (int)groups[random_word() % 3];
                shape.cols = shape.group * (1 + random_word() % (round % 5 ? 5 : 20));
                shape.scale_type = scale_types[random_word() % 3];
            }
            weight w = make_weight(shape);
            check_weight(devs, 3, &w, tokens[random_word() % 10], round & 1, round & 2);
            if (round < 3) check_embed(&devs[0], &w);
            free_weight(&w);
        }
    }
    for (int i = 0; i < 6; i++) answer = i & 2, check_group(&devs[i % 3], 1 + 3 * i);
    for (int i = 0; i < 8; i++) {
        answer = i & 4;
        check_moe(&devs[i & 1], &ref, WF_BF16, 0, i & 2, 1 + i * 3);
        check_moe(&devs[i & 1], &ref, WF_AFFINE, i & 4 ? 4 : 8, i & 2, 1 + i * 3);
    }
    for (int i = 0; i < 3; i++) device_close(&devs[i]);
    device_close(&ref);
}

/* ---- bench ---- */

static clockid_t bench_clock = CLOCK_MONOTONIC;    /* one thread: its own time, so that others on the machine count less */
static double now(void)
{
    struct timespec t;
    clock_gettime(bench_clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Seconds of one call, the best of several within about a third of a second. `copies` matrices are taken in turn, so that weights come from
 * memory. */
static double seconds(device *dev, const weight *copies, int count, int64_t n, float *x, float *y)
{
    arena scratch = {.block_size = 1 << 20};
    double best = 1e9, start = now();
    for (int i = 0; i < 4 || now() - start < 0.2; i++) {
        run r = {.dev = dev, .scratch = &scratch};
        double begin = now();
        for (int c = 0; c < count; c++)
            op_linear_to(&r, (tensor){y, DT_F32, n, copies[c].rows, copies[c].rows}, (tensor){x, DT_F32, n, copies[c].cols, copies[c].cols},
                         &copies[c], NULL);
        double took = (now() - begin) / count;
        if (took < best) best = took;
        arena_reset(&scratch);
    }
    arena_free(&scratch);
    return best;
}

static bool named(int argc, char **argv, const char *text)
{
    bool any = false;
    for (int i = 2; i < argc; i++) {
        bool filter = strchr(argv[i], '-');
        if (filter && strncmp(text, argv[i], strlen(argv[i])) == 0) return true;
        any |= filter;
    }
    return !any;
}

static void bench_isa(const char *isa, int threads, int argc, char **argv)
{
    static const struct { weight_format format; int bits; } formats[] = {{WF_F32, 0}, {WF_BF16, 0}, {WF_F16, 0}, {WF_AFFINE, 8}, {WF_AFFINE, 4}};
    enum { ROWS = 2048, COLS = 2048, TOKENS = 512 };
    bench_clock = threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC;
    float *x = calloc((size_t)TOKENS * COLS, 4), *y = calloc((size_t)TOKENS * ROWS, 4);
    for (int64_t i = 0; i < TOKENS * COLS; i++) x[i] = random_float();
    for (int exactness = PRECISION_EXACT; exactness <= PRECISION_FAST; exactness++) {
        device dev;
        vlm_error error;
        if (!device_open_cpu(&dev, threads, (precision)exactness, isa, &error)) break;
        for (size_t f = 0; f < sizeof formats / sizeof *formats; f++) {
            weight shape = {.format = formats[f].format, .rows = ROWS, .cols = COLS, .bits = formats[f].bits, .group = 64, .scale_type = DT_BF16};
            weight copies[64];
            char text[64], label[80];
            describe(text, sizeof text, &shape);
            snprintf(label, sizeof label, "%s-%s", exactness == PRECISION_EXACT ? "exact" : "fast", text);
            if (!named(argc, argv, label)) continue;
            int count = (int)((128u << 20) / weight_bytes(&shape));
            if (count > 64) count = 64;
            for (int i = 0; i < count; i++) copies[i] = make_weight(shape), copies[i] = prepared(&dev, &copies[i]);
            double one = seconds(&dev, copies, count, 1, x, y), four = seconds(&dev, copies, count, 4, x, y);
            double many = seconds(&dev, copies, 1, TOKENS, x, y);
            printf("%-11s %d threads %-5s %-16s n=1 %6.1f GB/s   n=4 %6.1f GB/s   n=512 %7.1f GFLOP/s\n", dev.isa, threads,
                   exactness == PRECISION_EXACT ? "exact" : "fast", text, (double)weight_bytes(&shape) / one * 1e-9,
                   (double)weight_bytes(&shape) / four * 1e-9, 2.0 * ROWS * COLS * TOKENS / many * 1e-9);
            fflush(stdout);
            for (int i = 0; i < count; i++) dev.ops->release(&dev, &copies[i]), free_weight(&copies[i]);
        }
        device_close(&dev);
    }
    free(x);
    free(y);
}

int main(int argc, char **argv)
{
    bool bench = argc > 1 && strcmp(argv[1], "--bench") == 0;
    int first = bench ? 2 : 1;
    for (int i = 0; i < ISAS; i++) {
        bool wanted = true, any = false;
        for (int a = first; a < argc; a++) {
            any |= strcmp(argv[a], isa_names[i]) == 0;
            wanted &= strchr(argv[a], '-') != NULL;
        }
        wanted |= any;
        if (!wanted) continue;
        if (bench) {
            bench_isa(isa_names[i], 1, argc, argv);
            bench_isa(isa_names[i], 0, argc, argv);
        } else {
            int before = checks;
            check_isa(isa_names[i], PRECISION_EXACT);
            check_isa(isa_names[i], PRECISION_FAST);
            if (checks > before) printf("%s: %d checks\n", isa_names[i], checks - before);
        }
    }
    if (!bench) printf("%d checks, %d failures\n", checks, failures);
    return failures != 0;
}
