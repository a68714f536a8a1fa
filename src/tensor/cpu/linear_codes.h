/* linear_codes.h - affine groups of 2, 3, 5 and 6 bits widened with AVX2: eight codes are spread to bytes (pdep), these to float32. Included after
 * linear_dot.h by linear_avx2.c and linear_avx512.c. */
#ifndef VLM_TENSOR_CPU_LINEAR_CODES_H
#define VLM_TENSOR_CPU_LINEAR_CODES_H

INLINE void affine_words(const uint8_t *codes, int bits, int group, __m256 s, __m256 b, float *out)
{
    const uint64_t spread = 0x0101010101010101u * ((1u << bits) - 1);
    for (int i = 0; i < group; i += 8, codes += bits) {
        __m128i bytes = _mm_cvtsi64_si128((int64_t)_pdep_u64(codes_word(codes, bits), spread));
        _mm256_storeu_ps(out + i, _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)), s, b));
    }
}

static inline void affine_odd(const uint8_t *codes, int bits, int group, float scale, float bias, float *out)
{
    __m256 s = _mm256_set1_ps(scale), b = _mm256_set1_ps(bias);
    if (bits == 2) affine_words(codes, 2, group, s, b, out);
    else if (bits == 3) affine_words(codes, 3, group, s, b, out);
    else if (bits == 5) affine_words(codes, 5, group, s, b, out);
    else affine_words(codes, 6, group, s, b, out);
}

#endif
