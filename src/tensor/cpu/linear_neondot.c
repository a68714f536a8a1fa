/* linear_neondot.c - affine weights of 4 and 8 bits with sdot: 4 outputs x 4 columns an instruction; see linear_int.h. */
#include <arm_neon.h>
#include <stdint.h>

#include "tensor/cpu/linear.h"

#define INT_LABEL "int8 neondot"
enum { ROWS = 4, TOKENS = 8, BLOCK = 8, CODE8_OFFSET = 128 };
typedef float32x4_t vf;
typedef int32x4_t vi;

static inline vf v_zero(void) { return vdupq_n_f32(0); }
static inline vf v_set1(float f) { return vdupq_n_f32(f); }
static inline vf v_load(const float *p) { return vld1q_f32(p); }
static inline void v_store(float *p, vf v) { vst1q_f32(p, v); }
static inline vf v_mul(vf a, vf b) { return vmulq_f32(a, b); }
static inline vf v_fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
static inline vi vi_zero(void) { return vdupq_n_s32(0); }
static inline vf vi_float(vi v) { return vcvtq_f32_s32(v); }

static inline void transpose_words(const uint32_t *const *in, int words, uint32_t *out)
{
    if (words == 4) {
        uint32x4_t r0 = vreinterpretq_u32_u8(vld1q_u8((const uint8_t *)in[0])), r1 = vreinterpretq_u32_u8(vld1q_u8((const uint8_t *)in[1]));
        uint32x4_t r2 = vreinterpretq_u32_u8(vld1q_u8((const uint8_t *)in[2])), r3 = vreinterpretq_u32_u8(vld1q_u8((const uint8_t *)in[3]));
        uint64x2_t a = vreinterpretq_u64_u32(vtrn1q_u32(r0, r1)), b = vreinterpretq_u64_u32(vtrn2q_u32(r0, r1));
        uint64x2_t c = vreinterpretq_u64_u32(vtrn1q_u32(r2, r3)), d = vreinterpretq_u64_u32(vtrn2q_u32(r2, r3));
        vst1q_u32(out, vreinterpretq_u32_u64(vtrn1q_u64(a, c)));
        vst1q_u32(out + 4, vreinterpretq_u32_u64(vtrn1q_u64(b, d)));
        vst1q_u32(out + 8, vreinterpretq_u32_u64(vtrn2q_u64(a, c)));
        vst1q_u32(out + 12, vreinterpretq_u32_u64(vtrn2q_u64(b, d)));
        return;
    }
    for (int i = 0; i < words; i++)
        for (int r = 0; r < 4; r++) __builtin_memcpy(&out[4 * i + r], (const char *)in[r] + 4 * i, 4);
}

static inline vf v_scales(const void *in, dtype type)
{
    if (type == DT_F32) return vreinterpretq_f32_u8(vld1q_u8(in));
    uint16x4_t half = vreinterpret_u16_u8(vld1_u8(in));
    return type == DT_F16 ? vcvt_f32_f16(vreinterpret_f16_u16(half)) : vreinterpretq_f32_u32(vshll_n_u16(half, 16));
}

static inline int8x16_t four(const int8_t *x)
{
    int32_t word;
    __builtin_memcpy(&word, x, 4);
    return vreinterpretq_s8_s32(vdupq_n_s32(word));
}

static inline __attribute__((always_inline)) void dot4(vi *acc, const uint32_t *words, const int8_t *x, const int tokens, const int64_t width)
{
    const uint8x16_t mask = vdupq_n_u8(15);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++, x += 8 * width) {
        uint8x16_t w = vreinterpretq_u8_u32(vld1q_u32(words + 4 * i));
        int8x16_t low = vreinterpretq_s8_u8(vandq_u8(w, mask)), high = vreinterpretq_s8_u8(vshrq_n_u8(w, 4));
#pragma GCC unroll 8
        for (int t = 0; t < tokens; t++) acc[t] = vdotq_s32(vdotq_s32(acc[t], low, four(x + 4 * t)), high, four(x + 4 * (width + t)));
    }
}

static inline __attribute__((always_inline)) void dot8(vi *acc, const uint32_t *words, const int8_t *x, const int tokens, const int64_t width)
{
    const uint8x16_t middle = vdupq_n_u8(128);     /* codes less 128 are signed */
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++, x += 4 * width) {
        int8x16_t w = vreinterpretq_s8_u8(veorq_u8(vreinterpretq_u8_u32(vld1q_u32(words + 4 * i)), middle));
#pragma GCC unroll 8
        for (int t = 0; t < tokens; t++) acc[t] = vdotq_s32(acc[t], w, four(x + 4 * t));
    }
}

#include "tensor/cpu/linear_int.h"

static const linear_path path = INT_PATH;

void linear_init_neondot(linear_table *t) { t->fast_affine4 = t->fast_affine8 = &path; }
