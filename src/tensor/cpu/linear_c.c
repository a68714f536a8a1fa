/* linear_c.c - matrix products in float32 for any machine: the vectors of four that GNU C has everywhere. */
#include <stdint.h>
#include <string.h>

#include "tensor/cpu/linear.h"

#define DOT_NAME dot_c
#define KEEP_REGISTER(v) : "m"(v)
#define DOT_LABEL "c"
enum { LANES = 4, TILE_TOKENS = 3 };
typedef v4 vf;
typedef uint32_t vu __attribute__((vector_size(16)));

static inline vf v_zero(void) { return (vf){0}; }
static inline vf v_load(const float *p)
{
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline void v_store(float *p, vf v) { memcpy(p, &v, sizeof v); }
static inline vf v_fma(vf a, vf b, vf c) { return a * b + c; }
static inline vf w_f32(const void *p) { return v_load(p); }
static inline vf w_bf16(const void *p)
{
    uint16_t h[4];
    memcpy(h, p, sizeof h);
    return (vf)((vu){h[0], h[1], h[2], h[3]} << 16);
}
static inline vf w_f16(const void *p)
{
    uint16_t h[4];
    memcpy(h, p, sizeof h);
    return (vf){f16_to_f32(h[0]), f16_to_f32(h[1]), f16_to_f32(h[2]), f16_to_f32(h[3])};
}
static inline float sum(vf a) { return (a[0] + a[1]) + (a[2] + a[3]); }
static inline v4 v_sum4(vf a, vf b, vf c, vf d) { return (v4){sum(a), sum(b), sum(c), sum(d)}; }

typedef struct affine_values { float scale, bias; } affine_values;
static inline affine_values affine_start(int bits, float scale, float bias) { return (affine_values){scale, bias}; }
static inline vf affine_at(affine_values v, const uint8_t *codes, int bits, int i)
{
    const uint8_t *c = codes + i * bits / 8;
    if (bits == 8) return (vf){c[0], c[1], c[2], c[3]} * v.scale + v.bias;
    return (vf){(float)(c[0] & 15), (float)(c[0] >> 4), (float)(c[1] & 15), (float)(c[1] >> 4)} * v.scale + v.bias;
}
static inline void affine_odd(const uint8_t *codes, int bits, int group, float scale, float bias, float *out);
#include "tensor/cpu/linear_dot.h"

static inline void affine_odd(const uint8_t *codes, int bits, int group, float scale, float bias, float *out)
{
    for (int i = 0; i < group; i += 8, codes += bits) {
        uint64_t word = codes_word(codes, bits);
        for (int j = 0; j < 8; j++, word >>= bits) out[i + j] = (float)(word & ((1u << bits) - 1)) * scale + bias;
    }
}

void linear_init_c(linear_table *t)
{
    t->widen = widen;
    for (int f = 0; f < WF_COUNT; f++) t->exact[f] = t->fast[f] = &dot_c;
}
