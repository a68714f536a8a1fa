/* limits_avx2.c - peak loops, see limits.h. Twelve independent chains hide the latency of a multiply-add. */
#include <immintrin.h>

#include "tensor/cpu/limits.h"

double limits_f32_avx2(int64_t rounds)
{
    __m256 a[12], m = _mm256_set1_ps(0.999f), c = _mm256_set1_ps(0.5f);
    for (int i = 0; i < 12; i++) a[i] = _mm256_set1_ps((float)i);
    for (int64_t r = 0; r < rounds; r++)
        for (int i = 0; i < 12; i++) a[i] = _mm256_fmadd_ps(a[i], m, c);
    __m256 s = a[0];
    for (int i = 1; i < 12; i++) s = _mm256_add_ps(s, a[i]);
    volatile float sink = _mm256_cvtss_f32(s);
    (void)sink;
    return (double)rounds * 12 * 8 * 2;
}

/* maddubs + madd + add: the three instructions of an 8-bit dot product without VNNI. */
double limits_int8_avx2(int64_t rounds)
{
    __m256i a[8], u = _mm256_set1_epi8(3), one = _mm256_set1_epi16(1);
    for (int i = 0; i < 8; i++) a[i] = _mm256_set1_epi32(i);
    for (int64_t r = 0; r < rounds; r++)
        for (int i = 0; i < 8; i++) a[i] = _mm256_add_epi32(a[i], _mm256_madd_epi16(_mm256_maddubs_epi16(u, a[i]), one));
    __m256i s = a[0];
    for (int i = 1; i < 8; i++) s = _mm256_add_epi32(s, a[i]);
    volatile int sink = _mm256_extract_epi32(s, 0);
    (void)sink;
    return (double)rounds * 8 * 32 * 2;
}
