/* limits_avx512.c - peak loop, see limits.h. */
#include <immintrin.h>

#include "tensor/cpu/limits.h"

double limits_f32_avx512(int64_t rounds)
{
    __m512 a[12], m = _mm512_set1_ps(0.999f), c = _mm512_set1_ps(0.5f);
    for (int i = 0; i < 12; i++) a[i] = _mm512_set1_ps((float)i);
    for (int64_t r = 0; r < rounds; r++)
        for (int i = 0; i < 12; i++) a[i] = _mm512_fmadd_ps(a[i], m, c);
    __m512 s = a[0];
    for (int i = 1; i < 12; i++) s = _mm512_add_ps(s, a[i]);
    volatile float sink = _mm512_cvtss_f32(s);
    (void)sink;
    return (double)rounds * 12 * 16 * 2;
}
