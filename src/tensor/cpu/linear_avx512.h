/* linear_avx512.h - what the AVX-512 files of the matrix products share: sums across lanes, transposition. */
#ifndef VLM_TENSOR_CPU_LINEAR_AVX512_H
#define VLM_TENSOR_CPU_LINEAR_AVX512_H

#include <immintrin.h>

#include "tensor/cpu/linear.h"

/* The sums of the lanes of four vectors. Halves are added until 4 lanes are left, then neighbours: one order for each of the four. */
static inline v4 sum4_avx512(__m512 a, __m512 b, __m512 c, __m512 d)
{
    __m512 ab = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    __m512 cd = _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));
    __m512 s = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
    s = _mm512_add_ps(s, _mm512_permute_ps(s, 0xb1));
    s = _mm512_add_ps(s, _mm512_permute_ps(s, 0x4e));
    const __m512i first = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    return (v4)_mm512_castps512_ps128(_mm512_permutexvar_ps(first, s));
}

/* Scales index, index + 1 ... as float32, where the mask has bits. */
static inline __m512 scales_avx512(const void *from, dtype type, int64_t index, __mmask16 mask)
{
    if (type == DT_F32) return _mm512_maskz_loadu_ps(mask, (const float *)from + index);
    __m256i half = _mm256_maskz_loadu_epi16(mask, (const uint16_t *)from + index);
    return type == DT_BF16 ? _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16)) : _mm512_cvtph_ps(half);
}

/* 16 vectors of 16 words become their columns. */
static inline void transpose_avx512(__m512i v[16])
{
    __m512i a[16], b[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i += 2) {
        a[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
        a[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; i += 4) {
        b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
        b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
        b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
        b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {                  /* b[4 q + i]: columns i, i + 4, i + 8, i + 12 of rows 4 q .. 4 q + 3 */
        __m512i low = _mm512_shuffle_i32x4(b[i], b[4 + i], 0x88), high = _mm512_shuffle_i32x4(b[i], b[4 + i], 0xdd);
        __m512i low2 = _mm512_shuffle_i32x4(b[8 + i], b[12 + i], 0x88), high2 = _mm512_shuffle_i32x4(b[8 + i], b[12 + i], 0xdd);
        v[i] = _mm512_shuffle_i32x4(low, low2, 0x88);
        v[i + 8] = _mm512_shuffle_i32x4(low, low2, 0xdd);
        v[i + 4] = _mm512_shuffle_i32x4(high, high2, 0x88);
        v[i + 12] = _mm512_shuffle_i32x4(high, high2, 0xdd);
    }
}

#endif
