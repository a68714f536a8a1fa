/* linear_neon.c - matrix products in float32 with NEON. 4 x 6 tiles: 24 accumulators, 6 activations, 1 weight of 32 registers. */
#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

#include "tensor/cpu/linear.h"

#define DOT_NAME dot_neon
#define KEEP_REGISTER(v) "+w"(v)
#define DOT_LABEL "neon"
enum { LANES = 4, TILE_TOKENS = 6 };
typedef float32x4_t vf;

static inline vf v_zero(void) { return vdupq_n_f32(0); }
static inline vf v_load(const float *p) { return vld1q_f32(p); }
static inline void v_store(float *p, vf v) { vst1q_f32(p, v); }
static inline vf v_fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
static inline vf w_f32(const void *p) { return vreinterpretq_f32_u8(vld1q_u8(p)); }
static inline vf w_bf16(const void *p) { return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(p)), 16)); }
static inline vf w_f16(const void *p) { return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p))); }
static inline v4 v_sum4(vf a, vf b, vf c, vf d) { return (v4)vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d)); }

typedef struct affine_values { vf scale, bias; } affine_values;
static inline affine_values affine_start(int bits, float scale, float bias) { return (affine_values){vdupq_n_f32(scale), vdupq_n_f32(bias)}; }
static inline vf affine_at(affine_values v, const uint8_t *codes, int bits, int i)
{
    uint32_t word = 0;
    __builtin_memcpy(&word, codes + i * bits / 8, (size_t)bits / 2);
    uint8x8_t c = vreinterpret_u8_u32(vdup_n_u32(word));
    if (bits == 4) c = vzip1_u8(vand_u8(c, vdup_n_u8(15)), vshr_n_u8(c, 4));
    return vfmaq_f32(v.bias, vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(c)))), v.scale);
}
static inline void affine_odd(const uint8_t *codes, int bits, int group, float scale, float bias, float *out);
#include "tensor/cpu/linear_dot.h"

static inline void affine_bytes(uint8x8_t codes, vf s, vf b, float *out)
{
    uint16x8_t wide = vmovl_u8(codes);
    v_store(out, vfmaq_f32(b, vcvtq_f32_u32(vmovl_u16(vget_low_u16(wide))), s));
    v_store(out + 4, vfmaq_f32(b, vcvtq_f32_u32(vmovl_u16(vget_high_u16(wide))), s));
}

static inline void affine_odd(const uint8_t *codes, int bits, int group, float scale, float bias, float *out)
{
    vf s = vdupq_n_f32(scale), b = vdupq_n_f32(bias);
    for (int i = 0; i < group; i += 8, codes += bits) {
        uint64_t word = codes_word(codes, bits);
        uint8_t bytes[8];
        for (int j = 0; j < 8; j++, word >>= bits) bytes[j] = (uint8_t)(word & ((1u << bits) - 1));
        affine_bytes(vld1_u8(bytes), s, b, out + i);
    }
}

void linear_init_neon(linear_table *t)
{
    t->widen = widen;
    for (int f = 0; f < WF_COUNT; f++) t->exact[f] = t->fast[f] = &dot_neon;
}
