/* limits.c - see limits.h. */
#define _POSIX_C_SOURCE 200809L
#include "tensor/cpu/limits.h"

#include <string.h>
#include <time.h>

enum { ROUNDS = 2000000, REPEATS = 7 };
static const size_t READ_BYTES = (size_t)768 << 20;          /* well beyond any last-level cache */

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double limits_f32_c(int64_t rounds)
{
    float a[64];
    for (int i = 0; i < 64; i++) a[i] = (float)i;
    for (int64_t r = 0; r < rounds; r++)
        for (int i = 0; i < 64; i++) a[i] = a[i] * 0.999f + 0.5f;
    volatile float sink = a[0] + a[63];
    (void)sink;
    return (double)rounds * 64 * 2;
}

typedef struct loop { limits_fn fn; double done[1024]; } loop;

static void run_loop(void *arg, int64_t begin, int64_t end, int thread)
{
    loop *l = arg;
    for (int64_t i = begin; i < end; i++) l->done[i] = l->fn(ROUNDS / 8);
}

static double rate_of(device *dev, limits_fn fn)
{
    if (!fn) return 0;
    double best = 0;
    int threads = pool_threads(dev->pool);
    if (threads > 1024) threads = 1024;
    for (int i = 0; i < REPEATS; i++) {
        loop l = {.fn = fn};
        double begin = seconds(), work = 0;
        pool_for(dev->pool, threads, 1, run_loop, &l);
        double took = seconds() - begin;
        for (int t = 0; t < threads; t++) work += l.done[t];
        if (work / took > best) best = work / took;
    }
    return best;
}

typedef struct reading { const uint64_t *data; size_t words; uint64_t sum[1024]; } reading;

/* Four streams at once: one alone does not keep enough lines in flight. */
static void read_part(void *arg, int64_t begin, int64_t end, int thread)
{
    reading *r = arg;
    enum { PART = (1 << 20) / 8, STREAM = PART / 4 };
    uint64_t s[8] = {0};
    for (int64_t part = begin; part < end; part++) {
        const uint64_t *p = r->data + part * PART;
        for (size_t i = 0; i < STREAM; i += 8)
            for (int k = 0; k < 4; k++) {
                const uint64_t *line = p + k * STREAM + i;
                __builtin_prefetch(line + 64);
                for (int j = 0; j < 8; j++) s[j] += line[j];
            }
    }
    for (int k = 0; k < 8; k++) r->sum[thread % 1024] += s[k];
}

static bool measure_reading(device *dev, double *best, vlm_error *error)
{
    uint64_t *data = mem_aligned(READ_BYTES);
    if (!data) return err_memory(error, READ_BYTES);
    memset(data, 1, READ_BYTES);
    *best = 0;
    volatile uint64_t sink = 0;
    for (int i = 0; i < REPEATS; i++) {
        reading r = {.data = data};
        double begin = seconds();
        pool_for(dev->pool, (int64_t)(READ_BYTES >> 20), 4, read_part, &r);
        double rate = (double)READ_BYTES / (seconds() - begin);
        sink += r.sum[0];
        if (rate > *best) *best = rate;
    }
    mem_free(data);
    return true;
}

bool cpu_measure_limits(device *dev, cpu_limits *out, vlm_error *error)
{
    *out = (cpu_limits){0};
    limits_fn f32 = limits_f32_c, bf16 = NULL, int8 = NULL;
#if defined(__x86_64__)
    unsigned features = cpu_of(dev)->features;
    if (features & CPU_AVX2) f32 = limits_f32_avx2, int8 = limits_int8_avx2;
    if (features & CPU_AVX512) f32 = limits_f32_avx512;
    if (features & CPU_AVX512VNNI) bf16 = limits_bf16_avx512vnni, int8 = limits_int8_avx512vnni;
    if (features & CPU_AMX) bf16 = limits_bf16_amx, int8 = limits_int8_amx;
#endif
    out->f32_flops = rate_of(dev, f32);
    out->bf16_flops = rate_of(dev, bf16);
    out->int8_ops = rate_of(dev, int8);
    return measure_reading(dev, &out->read_bytes, error);
}
