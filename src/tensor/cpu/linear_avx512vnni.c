/* linear_avx512vnni.c - affine weights of 4 and 8 bits with vpdpbusd: 16 outputs x 4 columns an instruction; see linear_int.h. */
#include <stdint.h>

#include "tensor/cpu/linear_avx512.h"
#include "tensor/tensor.h"

#define INT_LABEL "int8 avx512vnni"
enum { ROWS = 16, TOKENS = 8, BLOCK = 16, CODE8_OFFSET = 0 };
typedef __m512 vf;
typedef __m512i vi;

static inline vf v_zero(void) { return _mm512_setzero_ps(); }
static inline vf v_set1(float f) { return _mm512_set1_ps(f); }
static inline vf v_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void v_store(float *p, vf v) { _mm512_storeu_ps(p, v); }
static inline vf v_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
static inline vf v_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
static inline vi vi_zero(void) { return _mm512_setzero_si512(); }
static inline vf vi_float(vi v) { return _mm512_cvtepi32_ps(v); }

static inline void transpose_words(const uint32_t *const *in, int words, uint32_t *out)
{
    __mmask16 mask = (__mmask16)((1u << words) - 1);
    __m512i v[16];
#pragma GCC unroll 16
    for (int r = 0; r < 16; r++) v[r] = _mm512_maskz_loadu_epi32(mask, in[r]);
    transpose_avx512(v);
    if (words == 16) {
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) _mm512_storeu_si512(out + 16 * i, v[i]);
    } else {
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++)
            if (i < words) _mm512_storeu_si512(out + 16 * i, v[i]);
    }
}

static inline vf v_scales(const void *in, dtype type) { return scales_avx512(in, type, 0, 0xffff); }

static inline __m512i four(const int8_t *x)
{
    int32_t word;
    __builtin_memcpy(&word, x, 4);
    return _mm512_set1_epi32(word);
}

/* One token alone: several chains, as an instruction has to wait for the one before it. */
static inline __attribute__((always_inline)) void dot4(vi *acc, const uint32_t *words, const int8_t *x, const int tokens, const int64_t width)
{
    const __m512i mask = _mm512_set1_epi8(15);
    __m512i more = _mm512_setzero_si512();
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++, x += 8 * width) {
        __m512i w = _mm512_loadu_si512(words + 16 * i), low = _mm512_and_si512(w, mask);
        __m512i high = _mm512_and_si512(_mm512_srli_epi32(w, 4), mask);
#pragma GCC unroll 8
        for (int t = 0; t < tokens; t++) {
            acc[t] = _mm512_dpbusd_epi32(acc[t], low, four(x + 4 * t));
            if (tokens == 1) more = _mm512_dpbusd_epi32(more, high, four(x + 4 * width));
            else acc[t] = _mm512_dpbusd_epi32(acc[t], high, four(x + 4 * (width + t)));
        }
    }
    if (tokens == 1) acc[0] = _mm512_add_epi32(acc[0], more);
}

static inline __attribute__((always_inline)) void dot8(vi *acc, const uint32_t *words, const int8_t *x, const int tokens, const int64_t width)
{
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++, x += 4 * width) {
        __m512i w = _mm512_loadu_si512(words + 16 * i);
        __asm__("" : "+v"(w));
#pragma GCC unroll 8
        for (int t = 0; t < tokens; t++) acc[t] = _mm512_dpbusd_epi32(acc[t], w, four(x + 4 * t));
    }
}

#include "tensor/cpu/linear_int.h"

const linear_path linear_int_avx512vnni = INT_PATH;

void linear_init_avx512vnni(linear_table *t) { t->fast_affine4 = t->fast_affine8 = &linear_int_avx512vnni; }
