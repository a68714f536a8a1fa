/* resize_avx2.c - the loops of resize.h: bytes are paired (two taps side by side as 16 bits) for vpmaddwd, sums are 32 bits wide,
 * so that every sum is the same integer as in C. */
#include <immintrin.h>
#include <string.h>

#include "media/resize.h"

static inline uint32_t clip4(__m128i sum, __m128i precision)
{
    __m128i v = _mm_sra_epi32(sum, precision);
    v = _mm_packus_epi16(_mm_packs_epi32(v, v), v);
    return (uint32_t)_mm_cvtsi128_si32(v);
}

/* Eight taps a round: four pixels in each half. */
static void across_avx2(const uint8_t *in, uint8_t *out, const resize_taps *t)
{
    const __m256i first_two = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1));
    const __m256i last_two = _mm256_broadcastsi128_si256(_mm_setr_epi8(6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1));
    const __m128i precision = _mm_cvtsi32_si128(t->precision), half = _mm_set1_epi32(1 << (t->precision - 1));
    for (int i = 0; i < t->out; i++, out += 3) {
        const uint8_t *p = in + 3 * (int64_t)t->first[i];
        const int16_t *w = t->weight + (int64_t)i * t->stride;
        __m256i sum = _mm256_setzero_si256();
        for (int k = 0; k < t->count[i]; k += 8, p += 24) {
            __m256i pixels = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)p)),
                                                     _mm_loadu_si128((const __m128i *)(p + 12)), 1);
            __m256i weights = _mm256_permute4x64_epi64(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(w + k))), 0x50);
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_shuffle_epi8(pixels, first_two), _mm256_shuffle_epi32(weights, 0x00)));
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_shuffle_epi8(pixels, last_two), _mm256_shuffle_epi32(weights, 0x55)));
        }
        __m128i rgb = _mm_add_epi32(_mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1)), half);
        uint32_t bytes = clip4(rgb, precision);
        memcpy(out, &bytes, 4);
    }
}

static inline __m128i gray_sum(const uint8_t *p, const int16_t *w, int count)
{
    __m256i sum = _mm256_setzero_si256();
    for (int k = 0; k < count; k += 16) {
        __m256i pixels = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(p + k)));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pixels, _mm256_loadu_si256((const __m256i *)(w + k))));
    }
    return _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
}

/* Four outputs a round, so that their sums are added up together. */
static void across_gray_avx2(const uint8_t *in, uint8_t *out, const resize_taps *t)
{
    const __m128i precision = _mm_cvtsi32_si128(t->precision), half = _mm_set1_epi32(1 << (t->precision - 1));
    for (int i = 0; i < t->out; i += 4) {
        __m128i s[4];
        for (int j = 0; j < 4; j++) {
            int o = i + j < t->out ? i + j : i;
            s[j] = gray_sum(in + t->first[o], t->weight + (int64_t)o * t->stride, t->count[o]);
        }
        __m128i sums = _mm_hadd_epi32(_mm_hadd_epi32(s[0], s[1]), _mm_hadd_epi32(s[2], s[3]));
        uint32_t bytes = clip4(_mm_add_epi32(sums, half), precision);
        memcpy(out + i, &bytes, 4);
    }
}

/* 16 columns of two rows, side by side. */
static inline void add_pair(__m128i a, __m128i b, __m256i weights, __m256i *low, __m256i *high)
{
    *low = _mm256_add_epi32(*low, _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm_unpacklo_epi8(a, b)), weights));
    *high = _mm256_add_epi32(*high, _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm_unpackhi_epi8(a, b)), weights));
}

static inline __m128i clip16(__m256i low, __m256i high, __m128i precision)
{
    __m256i v = _mm256_packs_epi32(_mm256_sra_epi32(low, precision), _mm256_sra_epi32(high, precision));   /* 0-3 8-11 4-7 12-15 */
    v = _mm256_permute4x64_epi64(v, 0xd8);
    return _mm_packus_epi16(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
}

static __m128i down_16(const uint8_t *const *rows, int n, const int16_t *weight, __m128i precision, __m256i half, int x)
{
    __m256i low = half, high = half;
    for (int k = 0; k + 1 < n; k += 2) {
        __m256i weights = _mm256_set1_epi32((uint16_t)weight[k] | (int32_t)((uint32_t)(uint16_t)weight[k + 1] << 16));
        add_pair(_mm_loadu_si128((const __m128i *)(rows[k] + x)), _mm_loadu_si128((const __m128i *)(rows[k + 1] + x)), weights, &low, &high);
    }
    if (n & 1) {
        __m256i weights = _mm256_set1_epi32((uint16_t)weight[n - 1]);
        add_pair(_mm_loadu_si128((const __m128i *)(rows[n - 1] + x)), _mm_setzero_si128(), weights, &low, &high);
    }
    return clip16(low, high, precision);
}

static void down_avx2(const uint8_t *const *rows, int n, const int16_t *weight, int precision, uint8_t *out, int bytes)
{
    const __m128i shift = _mm_cvtsi32_si128(precision);
    const __m256i half = _mm256_set1_epi32(1 << (precision - 1));
    int x = 0;
    for (; x + 16 <= bytes; x += 16) _mm_storeu_si128((__m128i *)(out + x), down_16(rows, n, weight, shift, half, x));
    for (; x < bytes; x++) {
        int32_t sum = 1 << (precision - 1);
        for (int k = 0; k < n; k++) sum += rows[k][x] * weight[k];
        sum >>= precision;
        out[x] = (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
    }
}

void resize_kernels_avx2(resize_kernels *k)
{
    k->across = across_avx2;
    k->across_gray = across_gray_avx2;
    k->down = down_avx2;
}
