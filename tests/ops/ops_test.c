/* ops_test.c - every operation on every instruction set that this machine has, against the oracle; see ops_test.h.
 *
 *   ops_test [--op NAME] [--isa NAME] [--rounds N] [--seed N] [--threads N] [--bench] [--list]
 *
 * A failure prints the seed that repeats it. */
#define _GNU_SOURCE
#include "ops_test.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/thread.h"

enum { GUARD = 64 };                               /* floats before and after an output */
static const uint32_t untouched = 0x7fc5a5a5;      /* a NaN that no computation gives */

/* ---- random ---- */

static uint64_t next(ops_test *t)                  /* splitmix64 */
{
    uint64_t z = t->seed += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

uint32_t t_below(ops_test *t, uint32_t n) { return (uint32_t)(next(t) >> 33) % n; }
int t_between(ops_test *t, int low, int high) { return low + (int)t_below(t, (uint32_t)(high - low + 1)); }
int t_pick(ops_test *t, int n, const int *from) { return from[t_below(t, (uint32_t)n)]; }

float t_float(ops_test *t)
{
    uint64_t bits = next(t);
    float sum = 0;
    for (int i = 0; i < 4; i++) sum += (float)(bits >> 16 * i & 0xffff) / 65536.f - 0.5f;
    return sum * 1.7320508f;
}

int t_size(ops_test *t, int most)
{
    int small = most < 20 ? most : 20;
    switch (t_below(t, 4)) {
    case 0: return t_between(t, 1, small);
    case 1: return most < 64 ? most : 64 * t_between(t, 1, most / 64);
    default: return t_between(t, 1, most);
    }
}

/* ---- memory ---- */

struct block { struct block *next; void *memory; };

/* Each by itself and to the byte, so that a sanitizer sees reads beyond the end. */
void *t_alloc(ops_test *t, size_t bytes)
{
    struct block *block = mem_new(1, sizeof *block);
    if (block) block->memory = mem_new(1, bytes ? bytes : 1);
    if (!block || !block->memory) { fprintf(stderr, "out of memory\n"); exit(1); }
    block->next = t->blocks;
    t->blocks = block;
    return block->memory;
}

void t_free_all(ops_test *t)
{
    for (struct block *block = t->blocks, *after; block; block = after) {
        after = block->next;
        mem_free(block->memory);
        mem_free(block);
    }
    t->blocks = NULL;
}

float *t_values(ops_test *t, int64_t n, float scale)
{
    float *values = t_alloc(t, (size_t)n * sizeof *values);
    for (int64_t i = 0; i < n; i++) values[i] = scale * t_float(t);
    return values;
}

/* [rows, cols] between guards, at any alignment. */
static tensor frame(ops_test *t, int64_t rows, int64_t cols)
{
    int64_t stride = cols + (t_below(t, 2) ? t_between(t, 1, 40) : 0), shift = t_below(t, 2) ? t_between(t, 0, 15) : 0;
    int64_t total = rows * stride + 2 * GUARD + 16;
    uint32_t *memory = t_alloc(t, (size_t)total * 4);
    for (int64_t i = 0; i < total; i++) memory[i] = untouched;
    return (tensor){(float *)memory + GUARD + shift, DT_F32, rows, cols, stride};
}

tensor t_output(ops_test *t, int64_t rows, int64_t cols) { return frame(t, rows, cols); }

tensor t_random(ops_test *t, int64_t rows, int64_t cols, float scale)
{
    int64_t stride = cols + (t_below(t, 2) ? t_between(t, 1, 40) : 0), shift = t_below(t, 2) ? t_between(t, 0, 15) : 0;
    int64_t total = rows ? shift + (rows - 1) * stride + cols : 1;
    tensor x = {(float *)t_alloc(t, (size_t)total * 4) + shift, DT_F32, rows, cols, stride};
    for (int64_t i = 0; i < total - shift; i++) ((uint32_t *)x.data)[i] = untouched;
    for (int64_t i = 0; i < rows; i++) for (int64_t c = 0; c < cols; c++) tensor_row(x, i)[c] = scale * t_float(t);
    return x;
}

tensor t_copy(ops_test *t, tensor x)
{
    tensor y = frame(t, x.rows, x.cols);
    for (int64_t i = 0; i < x.rows; i++) memcpy(tensor_row(y, i), tensor_row(x, i), (size_t)x.cols * 4);
    return y;
}

static void put_type(void *out, int64_t i, dtype type, float x)
{
    if (type == DT_F32) ((float *)out)[i] = x;
    else ((uint16_t *)out)[i] = type == DT_BF16 ? f32_to_bf16(x) : f32_to_f16(x);
}

weight t_weight(ops_test *t, weight_format format, int64_t rows, int64_t cols, int64_t experts)
{
    static const int all_bits[] = {2, 3, 4, 4, 4, 5, 6, 8, 8, 8}, groups[] = {32, 64, 128};
    static const dtype types[WF_COUNT] = {[WF_F32] = DT_F32, [WF_F16] = DT_F16, [WF_BF16] = DT_BF16};
    weight w = {.format = format, .rows = rows, .cols = cols, .experts = experts, .name = "test.weight"};
    int64_t n = rows * cols * (experts ? experts : 1);
    if (format != WF_AFFINE) {
        size_t unit = dtype_size(types[format]);
        size_t shift = unit * t_below(t, 8);
        char *data = (char *)t_alloc(t, (size_t)n * unit + shift) + shift;
        for (int64_t i = 0; i < n; i++) put_type(data, i, types[format], 0.05f * t_float(t));
        w.data = data;
        return w;
    }
    static const dtype scale_types[] = {DT_F32, DT_F16, DT_BF16};
    w.bits = t_pick(t, 10, all_bits);
    do w.group = t_pick(t, 3, groups); while (cols % w.group);
    w.scale_type = scale_types[t_below(t, 3)];
    size_t bytes = (size_t)(n * w.bits / 8);
    size_t shift = 4 * t_below(t, 4);
    uint8_t *data = (uint8_t *)t_alloc(t, bytes + shift) + shift;
    for (size_t i = 0; i < bytes; i++) data[i] = (uint8_t)t_below(t, 256);
    size_t scale_bytes = (size_t)(n / w.group) * dtype_size(w.scale_type);
    char *scales = t_alloc(t, scale_bytes), *biases = t_alloc(t, scale_bytes);
    for (int64_t i = 0; i < n / w.group; i++) {
        float scale = (0.5f + 0.3f * fabsf(t_float(t))) * 0.2f / (float)((1 << w.bits) - 1);
        put_type(scales, i, w.scale_type, scale);
        put_type(biases, i, w.scale_type, -scale * (float)(1 << (w.bits - 1)) + 0.01f * t_float(t));
    }
    w.data = data, w.scales = scales, w.biases = biases;
    return w;
}

/* ---- judging ---- */

void t_shape(ops_test *t, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(t->shape, sizeof t->shape, format, args);
    va_end(args);
}

void t_fail(ops_test *t, const char *format, ...)
{
    if (t->round_failed) return;
    t->round_failed = true;
    va_list args;
    va_start(args, format);
    printf("FAIL %s on %s (%s): ", t->op, t->dev.isa, t->shape);
    vprintf(format, args);
    printf("\n");
    va_end(args);
}

static uint32_t bits_of(float x) { uint32_t b; memcpy(&b, &x, 4); return b; }

void t_guards(ops_test *t, tensor x)
{
    t->checks++;
    const float *first = x.data;
    for (int i = 1; i <= GUARD; i++) if (bits_of(first[-i]) != untouched) { t_fail(t, "wrote %d values before the output", i); return; }
    for (int64_t i = 0; i < x.rows; i++)
        for (int64_t c = x.cols; c < x.stride; c++)
            if (bits_of(tensor_row(x, i)[c]) != untouched) { t_fail(t, "wrote behind row %lld at %lld", (long long)i, (long long)c); return; }
    for (int i = 0; i < GUARD; i++)
        if (bits_of(first[x.rows * x.stride + i]) != untouched) { t_fail(t, "wrote %d values behind the output", i + 1); return; }
}

void t_near(ops_test *t, tensor got, tensor want, double absolute, double relative)
{
    t_guards(t, got);
    double worst = 0;
    int64_t at_row = 0, at_col = 0;
    for (int64_t i = 0; i < got.rows; i++) {
        for (int64_t c = 0; c < got.cols; c++) {
            double g = tensor_row(got, i)[c], w = tensor_row(want, i)[c], ratio = fabs(g - w) / (absolute + relative * fabs(w));
            if (g == w) ratio = 0;
            if (ratio > worst || isnan(ratio)) worst = isnan(ratio) ? INFINITY : ratio, at_row = i, at_col = c;
        }
    }
    if (worst > 1)
        t_fail(t, "[%lld, %lld] is %.9g, the oracle has %.9g: %.3g times the tolerance", (long long)at_row, (long long)at_col,
               tensor_row(got, at_row)[at_col], tensor_row(want, at_row)[at_col], worst);
}

void t_same(ops_test *t, tensor a, tensor b)
{
    t->checks++;
    for (int64_t i = 0; i < a.rows; i++)
        for (int64_t c = 0; c < a.cols; c++)
            if (bits_of(tensor_row(a, i)[c]) != bits_of(tensor_row(b, i)[c])) {
                t_fail(t, "[%lld, %lld]: %.9g alone, %.9g in the batch", (long long)i, (long long)c, tensor_row(a, i)[c], tensor_row(b, i)[c]);
                return;
            }
}

void t_ran(ops_test *t)
{
    const run *runs[] = {&t->on_ref, &t->on_dev, &t->on_one};
    for (int i = 0; i < 3; i++) if (!run_ok(runs[i])) t_fail(t, "%s", runs[i]->error.message);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* With one thread processor time is measured: what other programs take does not count. */
static double busy(void)
{
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

void t_bench(ops_test *t, const char *shape, double work, const char *unit, void (*fn)(ops_test *t, void *arg), void *arg)
{
    double best = 1e9, start = now(), (*ticks)(void) = pool_threads(t->dev.pool) == 1 ? busy : now;
    for (int calls = 0; calls < 3 || now() - start < 0.06; calls++) {
        double begin = ticks();
        fn(t, arg);
        double took = ticks() - begin;
        if (took < best) best = took;
    }
    printf("%-20s %-11s %-38s %10.2f us %9.2f %s\n", t->op, t->dev.isa, shape, best * 1e6, work / best * 1e-9, unit);
    fflush(stdout);
    t_ran(t);
}

/* ---- main ---- */

typedef struct options { const char *op, *isa; int rounds, threads; uint64_t seed; bool bench, list; } options;

static void start_runs(ops_test *t)
{
    t_free_all(t);
    arena_reset(&t->scratch);
    const bool answer = t->seed & 1;               /* rows of both kinds */
    t->on_ref = (run){.dev = &t->ref, .scratch = &t->scratch, .answer = answer};
    t->on_dev = (run){.dev = &t->dev, .scratch = &t->scratch, .answer = answer};
    t->on_one = (run){.dev = &t->one, .scratch = &t->scratch, .answer = answer};
}

static bool open_devices(ops_test *t, const char *isa, const options *o, precision exactness)
{
    t->precision = exactness;
    if (!device_open_cpu(&t->dev, o->threads, exactness, isa, NULL)) return false;
    bool ok = device_open_cpu(&t->one, 1, exactness, isa, NULL) && device_open_cpu(&t->ref, 1, PRECISION_EXACT, "ref", NULL);
    if (!ok) fprintf(stderr, "cannot open devices\n"), exit(1);
    return true;
}

static void close_devices(ops_test *t)
{
    device_close(&t->dev);
    device_close(&t->one);
    device_close(&t->ref);
}

static void check_case(ops_test *t, const op_case *c, const options *o, precision exactness)
{
    double start = now();
    int failed = 0;
    for (int i = 0; i < o->rounds && failed < 3; i++) {
        uint64_t seed = o->rounds == 1 ? o->seed : o->seed * 1000003 + (uint64_t)i;
        t->seed = seed;
        t->round_failed = false;
        start_runs(t);
        t_shape(t, "no shape yet");
        c->check(t);
        t_ran(t);
        if (t->round_failed) failed++, printf("     repeat: --op %s --isa %s --rounds 1 --seed %llu\n", c->name, t->dev.isa, (unsigned long long)seed);
    }
    t->failures += failed;
    printf("%-4s %-20s %-11s%s %d rounds %.2f s\n", failed ? "FAIL" : "ok", c->name, t->dev.isa, exactness == PRECISION_FAST ? " fast" : "", o->rounds,
           now() - start);
}

static void each_case(ops_test *t, const op_case *c, const options *o, precision exactness)
{
    for (; c->name; c++) {
        if (o->op && strcmp(o->op, c->name) != 0) continue;
        if (exactness == PRECISION_FAST && !c->products) continue;
        t->op = c->name;
        if (!o->bench) check_case(t, c, o, exactness);
        else if (c->bench) {
            start_runs(t);
            t->seed = o->seed;
            c->bench(t);
        }
    }
}

static bool parse(int argc, char **argv, options *o)
{
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--bench") == 0) o->bench = true;
        else if (strcmp(argv[i], "--list") == 0) o->list = true;
        else if (!value) return false;
        else if (strcmp(argv[i], "--op") == 0) o->op = value, i++;
        else if (strcmp(argv[i], "--isa") == 0) o->isa = value, i++;
        else if (strcmp(argv[i], "--rounds") == 0) o->rounds = atoi(value), i++;
        else if (strcmp(argv[i], "--threads") == 0) o->threads = atoi(value), i++;
        else if (strcmp(argv[i], "--seed") == 0) o->seed = strtoull(value, NULL, 10), i++;
        else return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    static const char *const all[] = {"c", "avx2", "avx512", "avx512vnni", "amx", "neon", "neondot"};
    static const op_case *const families[] = {row_cases, linear_cases, attention_cases, recurrent_cases};
    options o = {.rounds = 60, .threads = 3, .seed = 1};
    ops_test t = {.scratch = {.block_size = 1 << 22}};
    if (!parse(argc, argv, &o)) return fprintf(stderr, "usage: ops_test [--op NAME] [--isa NAME] [--rounds N] [--seed N] [--threads N] [--bench] [--list]\n"), 2;
    for (int f = 0; o.list && f < 4; f++) for (const op_case *c = families[f]; c->name; c++) printf("%s\n", c->name);
    int opened = 0;
    for (size_t i = 0; !o.list && i < sizeof all / sizeof *all; i++) {
        if (o.isa && strcmp(o.isa, all[i]) != 0) continue;
        for (int exactness = PRECISION_EXACT; exactness <= PRECISION_FAST; exactness++) {
            if (!open_devices(&t, all[i], &o, exactness)) continue;
            opened++;
            for (int f = 0; f < 4; f++) each_case(&t, families[f], &o, exactness);
            close_devices(&t);
        }
    }
    t_free_all(&t);
    arena_free(&t.scratch);
    if (!o.list && !opened) return fprintf(stderr, "no such instruction set here\n"), 2;
    if (!o.list && !o.bench) printf("%d checks, %d failed rounds\n", t.checks, t.failures);
    return t.failures != 0;
}
