/* resize_neon.c - the loops of resize.h for Arm: eight taps a round, the colours apart (ld3), sums 32 bits wide. */
#include <arm_neon.h>

#include "media/resize.h"

static inline uint8_t clip(int32_t sum, int precision)
{
    int32_t v = sum >> precision;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

static inline int32x4_t add8(int32x4_t sum, uint8x8_t pixels, int16x8_t weights)
{
    int16x8_t wide = vreinterpretq_s16_u16(vmovl_u8(pixels));
    sum = vmlal_s16(sum, vget_low_s16(wide), vget_low_s16(weights));
    return vmlal_s16(sum, vget_high_s16(wide), vget_high_s16(weights));
}

static void across_neon(const uint8_t *in, uint8_t *out, const resize_taps *t)
{
    for (int i = 0; i < t->out; i++, out += 3) {
        const uint8_t *p = in + 3 * (int64_t)t->first[i];
        const int16_t *w = t->weight + (int64_t)i * t->stride;
        int32x4_t r = vdupq_n_s32(0), g = r, b = r;
        for (int k = 0; k < t->count[i]; k += 8, p += 24) {
            uint8x8x3_t pixels = vld3_u8(p);
            int16x8_t weights = vld1q_s16(w + k);
            r = add8(r, pixels.val[0], weights);
            g = add8(g, pixels.val[1], weights);
            b = add8(b, pixels.val[2], weights);
        }
        int32_t half = 1 << (t->precision - 1);
        out[0] = clip(vaddvq_s32(r) + half, t->precision);
        out[1] = clip(vaddvq_s32(g) + half, t->precision);
        out[2] = clip(vaddvq_s32(b) + half, t->precision);
    }
}

static void across_gray_neon(const uint8_t *in, uint8_t *out, const resize_taps *t)
{
    for (int i = 0; i < t->out; i++) {
        const uint8_t *p = in + t->first[i];
        const int16_t *w = t->weight + (int64_t)i * t->stride;
        int32x4_t sum = vdupq_n_s32(0);
        for (int k = 0; k < t->count[i]; k += 8) sum = add8(sum, vld1_u8(p + k), vld1q_s16(w + k));
        out[i] = clip(vaddvq_s32(sum) + (1 << (t->precision - 1)), t->precision);
    }
}

static void down_neon(const uint8_t *const *rows, int n, const int16_t *weight, int precision, uint8_t *out, int bytes)
{
    const int32x4_t half = vdupq_n_s32(1 << (precision - 1)), shift = vdupq_n_s32(-precision);
    int x = 0;
    for (; x + 8 <= bytes; x += 8) {
        int32x4_t low = half, high = half;
        for (int k = 0; k < n; k++) {
            int16x8_t wide = vreinterpretq_s16_u16(vmovl_u8(vld1_u8(rows[k] + x)));
            low = vmlal_n_s16(low, vget_low_s16(wide), weight[k]);
            high = vmlal_n_s16(high, vget_high_s16(wide), weight[k]);
        }
        int16x8_t v = vcombine_s16(vqmovn_s32(vshlq_s32(low, shift)), vqmovn_s32(vshlq_s32(high, shift)));
        vst1_u8(out + x, vqmovun_s16(v));
    }
    for (; x < bytes; x++) {
        int32_t sum = 1 << (precision - 1);
        for (int k = 0; k < n; k++) sum += rows[k][x] * weight[k];
        out[x] = clip(sum, precision);
    }
}

void resize_kernels_neon(resize_kernels *k)
{
    k->across = across_neon;
    k->across_gray = across_gray_neon;
    k->down = down_neon;
}
