/* linear_int_avx2.c - affine weights of 4 and 8 bits in integers with AVX2 (vpmaddubsw): 8 outputs at a time; see linear_int.h. */
#include <immintrin.h>
#include <stdint.h>

#include "tensor/cpu/linear.h"

#define INT_LABEL "int8 avx2"
enum { ROWS = 8, TOKENS = 8, BLOCK = 8, CODE8_OFFSET = 128 };
typedef __m256 vf;
typedef __m256i vi;

static inline vf v_zero(void) { return _mm256_setzero_ps(); }
static inline vf v_set1(float f) { return _mm256_set1_ps(f); }
static inline vf v_load(const float *p) { return _mm256_loadu_ps(p); }
static inline void v_store(float *p, vf v) { _mm256_storeu_ps(p, v); }
static inline vf v_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
static inline vf v_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
static inline vi vi_zero(void) { return _mm256_setzero_si256(); }
static inline vf vi_float(vi v) { return _mm256_cvtepi32_ps(v); }

static inline void transpose_words(const uint32_t *const *in, int words, uint32_t *out)
{
    __m256 v[8], a[8], b[8];
    const __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(words), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
#pragma GCC unroll 8
    for (int r = 0; r < 8; r++) v[r] = words == 8 ? _mm256_loadu_ps((const float *)in[r]) : _mm256_maskload_ps((const float *)in[r], mask);
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        a[i] = _mm256_unpacklo_ps(v[i], v[i + 1]);
        a[i + 1] = _mm256_unpackhi_ps(v[i], v[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {               /* b[i + c]: columns c and c + 4 of rows i .. i + 3 */
        b[i] = _mm256_shuffle_ps(a[i], a[i + 2], 0x44);
        b[i + 1] = _mm256_shuffle_ps(a[i], a[i + 2], 0xee);
        b[i + 2] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0x44);
        b[i + 3] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0xee);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        if (i < words) _mm256_storeu_ps((float *)out + 8 * i, _mm256_permute2f128_ps(b[i], b[4 + i], 0x20));
        if (i + 4 < words) _mm256_storeu_ps((float *)out + 8 * (i + 4), _mm256_permute2f128_ps(b[i], b[4 + i], 0x31));
    }
}

static inline vf v_scales(const void *in, dtype type)
{
    if (type == DT_F32) return v_load(in);
    __m128i half = _mm_loadu_si128(in);
    return type == DT_F16 ? _mm256_cvtph_ps(half) : _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

static inline __m256i four(const int8_t *x)
{
    int32_t word;
    __builtin_memcpy(&word, x, 4);
    return _mm256_set1_epi32(word);
}

/* Products of a code below 16 and an activation, two by two, stay below 3811 in magnitude: eight of them fit 16 bits. */
static inline __attribute__((always_inline)) void dot4(vi *acc, const uint32_t *words, const int8_t *x, const int tokens, const int64_t width)
{
    const __m256i mask = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    for (int t0 = 0; t0 < tokens; t0 += 4) {       /* four sums of 16 bits besides the codes: what 16 registers hold */
        const int count = tokens - t0 < 4 ? tokens - t0 : 4;
        __m256i sum[4] = {ones, ones, ones, ones};
        const int8_t *at = x + 4 * t0;
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++, at += 8 * width) {
            __m256i w = _mm256_loadu_si256((const void *)(words + 8 * i)), low = _mm256_and_si256(w, mask);
            __m256i high = _mm256_and_si256(_mm256_srli_epi32(w, 4), mask);
#pragma GCC unroll 4
            for (int t = 0; t < count; t++) {
                __m256i two = _mm256_add_epi16(_mm256_maddubs_epi16(low, four(at + 4 * t)),
                                               _mm256_maddubs_epi16(high, four(at + 4 * (width + t))));
                sum[t] = i ? _mm256_add_epi16(sum[t], two) : two;
            }
        }
#pragma GCC unroll 4
        for (int t = 0; t < count; t++) acc[t0 + t] = _mm256_add_epi32(acc[t0 + t], _mm256_madd_epi16(sum[t], ones));
    }
}

/* Codes less 128, as magnitudes with the sign given to the activation: two products stay within 2 * 128 * 127 < 2^15. */
static inline __attribute__((always_inline)) void dot8(vi *acc, const uint32_t *words, const int8_t *x, const int tokens, const int64_t width)
{
    const __m256i middle = _mm256_set1_epi8(-128), ones = _mm256_set1_epi16(1);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++, x += 4 * width) {
        __m256i w = _mm256_xor_si256(_mm256_loadu_si256((const void *)(words + 8 * i)), middle), magnitude = _mm256_abs_epi8(w);
#pragma GCC unroll 8
        for (int t = 0; t < tokens; t++) {
            __m256i two = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(four(x + 4 * t), w));
            acc[t] = _mm256_add_epi32(acc[t], _mm256_madd_epi16(two, ones));
        }
    }
}

#include "tensor/cpu/linear_int.h"

static const linear_path path = INT_PATH;

void linear_init_int_avx2(linear_table *t) { t->fast_affine4 = t->fast_affine8 = &path; }
