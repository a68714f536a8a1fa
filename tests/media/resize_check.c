/* resize_check.c - the inner loops of image_resize: each instruction set of this machine against those in C, random sizes, guard bytes.
 * Needs nothing but the C library, so that it also runs under an emulator. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "media/resize.h"
#include "tensor/cpu/cpu.h"

static int failures;

static void same(const uint8_t *want, const uint8_t *got, size_t n, const char *what, unsigned seed)
{
    if (memcmp(want, got, n) == 0) return;
    fprintf(stderr, "%s differs from the loop in C (seed %u)\n", what, seed);
    failures++;
}

enum { GUARD = 0xa5, ROW = 5000 };

static unsigned next(unsigned *r)
{
    return (*r = *r * 1664525 + 1013904223) >> 8;
}

static void check_down(const resize_kernels *c, const resize_kernels *k, unsigned seed)
{
    static uint8_t pixels[40][ROW], want[ROW + 64], got[ROW + 64];
    const uint8_t *rows[40];
    int16_t w[40];
    unsigned r = seed;
    int n = 1 + (int)(next(&r) % 40), bytes = 1 + (int)(next(&r) % (seed % 5 ? 70 : ROW)), shift = 8 + (int)(next(&r) % 14);
    for (int i = 0; i < n; i++) {
        w[i] = (int16_t)((int)(next(&r) % 4000) - 1000);
        rows[i] = pixels[i] + ROW - bytes;
        for (int x = 0; x < ROW; x++) pixels[i][x] = (uint8_t)next(&r);
    }
    memset(want, GUARD, sizeof want);
    memset(got, GUARD, sizeof got);
    c->down(rows, n, w, shift, want, bytes);
    k->down(rows, n, w, shift, got, bytes);
    same(want, got, sizeof got, "down", seed);
}

static void check_across(const resize_kernels *c, const resize_kernels *k, bool gray, unsigned seed)
{
    unsigned r = seed;
    int channels = gray ? 1 : 3, in = 1 + (int)(next(&r) % 300), out = 1 + (int)(next(&r) % 100), most = 1 + (int)(next(&r) % 40);
    resize_taps t = {.out = out, .stride = 48, .precision = 8 + (int)(next(&r) % 14), .first = calloc((size_t)out, sizeof(int)),
                     .count = calloc((size_t)out, sizeof(int)), .weight = calloc((size_t)out * 48, sizeof(int16_t))};
    uint8_t *row = malloc((size_t)(in * channels + RESIZE_READ_AHEAD));
    for (int i = 0; i < in * channels + RESIZE_READ_AHEAD; i++) row[i] = (uint8_t)next(&r);
    for (int i = 0; i < out; i++) {
        t.count[i] = 1 + (int)(next(&r) % (unsigned)(most < in ? most : in));
        t.first[i] = (int)(next(&r) % (unsigned)(in - t.count[i] + 1));
        for (int j = 0; j < t.count[i]; j++) t.weight[i * 48 + j] = (int16_t)((int)(next(&r) % 4000) - 1000);
    }
    size_t size = (size_t)(out * channels);
    uint8_t *want = malloc(size + 64), *got = malloc(size + 64);
    memset(want, GUARD, size + 64);
    memset(got, GUARD, size + 64);
    (gray ? c->across_gray : c->across)(row, want, &t);
    (gray ? k->across_gray : k->across)(row, got, &t);
    same(want, got, size, gray ? "across_gray" : "across", seed);
    for (size_t i = 0; i < RESIZE_WRITE_AHEAD; i++) want[size + i] = got[size + i];
    same(want, got, size + 64, gray ? "across_gray, behind its row" : "across, behind its row", seed);
    free(want), free(got), free(row);
    free(t.first), free(t.count), free(t.weight);
}

int main(void)
{
    resize_kernels c, k;
    unsigned features = 0;
    const char *name;
    resize_kernels_c(&c);
    k = c;
    if (!cpu_features(NULL, &features, &name, NULL)) return 1;
#if defined(__x86_64__)
    if (features & CPU_AVX2) resize_kernels_avx2(&k);
#elif defined(__aarch64__)
    if (features & CPU_NEON) resize_kernels_neon(&k);
#endif
    for (unsigned seed = 1; seed < 400; seed++) {
        check_down(&c, &k, seed);
        check_across(&c, &k, false, seed);
        check_across(&c, &k, true, seed);
    }
    return failures != 0;
}
