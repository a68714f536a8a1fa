/* linear_avx512.c - matrix products in float32 with AVX-512. 4 x 6 tiles: 24 accumulators, 6 activations, 1 weight of 32 registers. */
#include <stdint.h>

#include "tensor/cpu/linear_avx512.h"

#define DOT_NAME dot_avx512
#define KEEP_REGISTER(v) "+v"(v)
#define DOT_LABEL "avx512"
enum { LANES = 16, TILE_TOKENS = 6 };
typedef __m512 vf;

static inline vf v_zero(void) { return _mm512_setzero_ps(); }
static inline vf v_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void v_store(float *p, vf v) { _mm512_storeu_ps(p, v); }
static inline vf v_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
static inline vf w_f32(const void *p) { return _mm512_loadu_ps(p); }
static inline vf w_bf16(const void *p)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p)), 16));
}
static inline vf w_f16(const void *p) { return _mm512_cvtph_ps(_mm256_loadu_si256(p)); }

static inline v4 v_sum4(vf a, vf b, vf c, vf d) { return sum4_avx512(a, b, c, d); }

/* 4 bits: the 16 values that a code can have are a table in a register. */
typedef struct affine_values { __m512 scale, bias; } affine_values;
static inline affine_values affine_start(int bits, float scale, float bias)
{
    affine_values v = {_mm512_set1_ps(scale), _mm512_set1_ps(bias)};
    if (bits == 4) v.scale = _mm512_fmadd_ps(_mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), v.scale, v.bias);
    return v;
}
static inline vf affine_at(affine_values v, const uint8_t *codes, int bits, int i)
{
    if (bits == 8) return _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)(codes + i)))), v.scale, v.bias);
    const __m512i which = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    const __m512i shift = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28);
    long long word;
    __builtin_memcpy(&word, codes + i / 2, 8);
    return _mm512_permutexvar_ps(_mm512_srlv_epi32(_mm512_permutexvar_epi32(which, _mm512_set1_epi64(word)), shift), v.scale);
}
static inline void affine_odd(const uint8_t *codes, int bits, int group, float scale, float bias, float *out);
#include "tensor/cpu/linear_dot.h"
#include "tensor/cpu/linear_codes.h"

void linear_init_avx512(linear_table *t)
{
    t->widen = widen;
    for (int f = 0; f < WF_COUNT; f++) t->exact[f] = t->fast[f] = &dot_avx512;
}
