/* linear_avx2.c - matrix products in float32 with AVX2 and FMA. 4 x 3 tiles: 12 accumulators, 3 activations, 1 weight: all 16 registers. */
#include <immintrin.h>
#include <stdint.h>

#include "tensor/cpu/linear.h"

#define DOT_NAME dot_avx2
#define KEEP_REGISTER(v) "+x"(v)
#define DOT_LABEL "avx2"
enum { LANES = 8, TILE_TOKENS = 3 };
typedef __m256 vf;

static inline vf v_zero(void) { return _mm256_setzero_ps(); }
static inline vf v_load(const float *p) { return _mm256_loadu_ps(p); }
static inline void v_store(float *p, vf v) { _mm256_storeu_ps(p, v); }
static inline vf v_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
static inline vf w_f32(const void *p) { return _mm256_loadu_ps(p); }
static inline vf w_bf16(const void *p)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(p)), 16));
}
static inline vf w_f16(const void *p) { return _mm256_cvtph_ps(_mm_loadu_si128(p)); }

static inline v4 v_sum4(vf a, vf b, vf c, vf d)
{
    vf s = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    return (v4)_mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
}

typedef struct affine_values { __m256 scale, bias; } affine_values;
static inline affine_values affine_start(int bits, float scale, float bias)
{
    return (affine_values){_mm256_set1_ps(scale), _mm256_set1_ps(bias)};
}
static inline vf affine_at(affine_values v, const uint8_t *codes, int bits, int i)
{
    const __m256i shift = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28), mask = _mm256_set1_epi32(15);
    int word;
    __builtin_memcpy(&word, codes + i / 2, 4);
    __m256i c = bits == 8 ? _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)(codes + i)))
                          : _mm256_and_si256(_mm256_srlv_epi32(_mm256_set1_epi32(word), shift), mask);
    return v_fma(_mm256_cvtepi32_ps(c), v.scale, v.bias);
}
static inline void affine_odd(const uint8_t *codes, int bits, int group, float scale, float bias, float *out);
#include "tensor/cpu/linear_dot.h"
#include "tensor/cpu/linear_codes.h"

void linear_init_avx2(linear_table *t)
{
    t->widen = widen;
    for (int f = 0; f < WF_COUNT; f++) t->exact[f] = t->fast[f] = &dot_avx2;
}
