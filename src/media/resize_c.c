/* resize_c.c - the loops of resize.h in plain C: the reference of the others. */
#include "media/resize.h"

#include <stddef.h>

static inline uint8_t clip(int32_t sum, int shift)
{
    int32_t v = sum >> shift;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

static void across_c(const uint8_t *in, uint8_t *out, const resize_taps *t)
{
    for (int i = 0; i < t->out; i++, out += 3) {
        const uint8_t *p = in + 3 * (size_t)t->first[i];
        const int16_t *w = t->weight + (size_t)i * (size_t)t->stride;
        int32_t r = 1 << (t->precision - 1), g = r, b = r;
        for (int k = 0; k < t->count[i]; k++, p += 3) r += p[0] * w[k], g += p[1] * w[k], b += p[2] * w[k];
        out[0] = clip(r, t->precision), out[1] = clip(g, t->precision), out[2] = clip(b, t->precision);
    }
}

static void down_c(const uint8_t *const *rows, int n, const int16_t *w, int shift, uint8_t *out, int columns)
{
    enum { BLOCK = 64 };
    for (int x = 0; x < columns; x += BLOCK) {
        int32_t sum[BLOCK];
        int m = columns - x < BLOCK ? columns - x : BLOCK;
        for (int j = 0; j < m; j++) sum[j] = 1 << (shift - 1);
        for (int k = 0; k < n; k++)
            for (int j = 0; j < m; j++) sum[j] += rows[k][x + j] * w[k];
        for (int j = 0; j < m; j++) out[x + j] = clip(sum[j], shift);
    }
}

static void across_gray_c(const uint8_t *in, uint8_t *out, const resize_taps *t)
{
    for (int i = 0; i < t->out; i++) {
        const uint8_t *p = in + t->first[i];
        const int16_t *w = t->weight + (size_t)i * (size_t)t->stride;
        int32_t sum = 1 << (t->precision - 1);
        for (int k = 0; k < t->count[i]; k++) sum += p[k] * w[k];
        out[i] = clip(sum, t->precision);
    }
}

void resize_kernels_c(resize_kernels *k)
{
    *k = (resize_kernels){across_c, across_gray_c, down_c};
}
