/* vec.h - one vocabulary of float32 vectors for every instruction set, so that a kernel is written once (*_tmpl.h) and
 * compiled once per instruction set (..._avx2.c, ..._avx512.c, ..._neon.c, ..._c.c).
 *
 *   vf                      a vector of V_LEN floats; vm: a mask, one truth value per lane
 *   v_load, v_store         unaligned; ..._n: the first n lanes only (0 < n < V_LEN), others read as 0 and are not written
 *   v_load_bf16, v_load_f16, v_store_bf16, v_store_f16: with conversion (stores round to nearest even); ..._n likewise
 *   v_fma(a, b, c)          a * b + c, rounded once where the hardware can
 *   v_max, v_min            if a lane of `b` is NaN the result is NaN: outer values go first, data second
 *   v_sum, v_hmax           over the lanes, in a fixed order
 *   v_exp2_int(n)           2^n for whole n in -126 .. 127
 *   v_turn4                 four floats from `at` on of four rows become four rows of four
 *   v_transpose             the same for V_SQUARE x V_SQUARE
 *   V_ROWS                  rows of a register tile with two vectors each, beside two vectors of the other side
 *
 * VEC_C defined before inclusion: plain C (vectors of the compiler), for any machine. */
#ifndef VLM_TENSOR_VEC_H
#define VLM_TENSOR_VEC_H

#include <stdint.h>
#include <string.h>

#include "tensor/tensor.h"

#define V_INLINE static inline __attribute__((always_inline, unused))

#if defined(VEC_C)
/* ---- plain C: four lanes by the compiler's vector extension ---- */
enum { V_LEN = 4, V_ROWS = 4 };
typedef float vf __attribute__((vector_size(16)));
typedef int32_t vm __attribute__((vector_size(16)));

V_INLINE vf v_set(float x) { return (vf){x, x, x, x}; }
V_INLINE vf v_load(const float *p) { vf v; memcpy(&v, p, sizeof v); return v; }
V_INLINE void v_store(float *p, vf v) { memcpy(p, &v, sizeof v); }
V_INLINE vf v_load_n(const float *p, int n) { vf v = v_set(0); for (int i = 0; i < n; i++) v[i] = p[i]; return v; }
V_INLINE void v_store_n(float *p, vf v, int n) { for (int i = 0; i < n; i++) p[i] = v[i]; }
V_INLINE vf v_add(vf a, vf b) { return a + b; }
V_INLINE vf v_sub(vf a, vf b) { return a - b; }
V_INLINE vf v_mul(vf a, vf b) { return a * b; }
V_INLINE vf v_div(vf a, vf b) { return a / b; }
V_INLINE vf v_fma(vf a, vf b, vf c) { return a * b + c; }
V_INLINE vm v_lt(vf a, vf b) { return a < b; }
V_INLINE vf v_select(vm m, vf yes, vf no) { return (vf)((m & (vm)yes) | (~m & (vm)no)); }
V_INLINE vf v_max(vf a, vf b) { return v_select(a > b, a, b); }
V_INLINE vf v_min(vf a, vf b) { return v_select(a < b, a, b); }
V_INLINE vf v_abs(vf a) { return (vf)((vm)a & 0x7fffffff); }
V_INLINE vf v_copysign(vf a, vf sign) { return (vf)(((vm)a & 0x7fffffff) | ((vm)sign & INT32_MIN)); }
V_INLINE vf v_round(vf a) { return (a + v_set(12582912.f)) - v_set(12582912.f); }              /* |a| < 2^22 */
V_INLINE vf v_exp2_int(vf n) { return (vf)((__builtin_convertvector(n, vm) + 127) << 23); }
V_INLINE float v_first(vf a) { return a[0]; }
V_INLINE float v_sum(vf a) { return (a[0] + a[2]) + (a[1] + a[3]); }
V_INLINE float v_hmax(vf a) { float x = a[0] > a[1] ? a[0] : a[1], y = a[2] > a[3] ? a[2] : a[3]; return x > y ? x : y; }
V_INLINE vf v_lanes(void) { return (vf){0, 1, 2, 3}; }
V_INLINE vf v_load_bf16(const uint16_t *p) { return (vf){bf16_to_f32(p[0]), bf16_to_f32(p[1]), bf16_to_f32(p[2]), bf16_to_f32(p[3])}; }
V_INLINE vf v_load_f16(const uint16_t *p) { return (vf){f16_to_f32(p[0]), f16_to_f32(p[1]), f16_to_f32(p[2]), f16_to_f32(p[3])}; }
V_INLINE vf v_load_bf16_n(const uint16_t *p, int n) { vf v = v_set(0); for (int i = 0; i < n; i++) v[i] = bf16_to_f32(p[i]); return v; }
V_INLINE vf v_load_f16_n(const uint16_t *p, int n) { vf v = v_set(0); for (int i = 0; i < n; i++) v[i] = f16_to_f32(p[i]); return v; }
V_INLINE void v_store_bf16_n(uint16_t *p, vf v, int n) { for (int i = 0; i < n; i++) p[i] = f32_to_bf16(v[i]); }
V_INLINE void v_store_f16_n(uint16_t *p, vf v, int n) { for (int i = 0; i < n; i++) p[i] = f32_to_f16(v[i]); }
V_INLINE void v_store_bf16(uint16_t *p, vf v) { v_store_bf16_n(p, v, 4); }
V_INLINE void v_store_f16(uint16_t *p, vf v) { v_store_f16_n(p, v, 4); }
V_INLINE void v_turn4(const float *const *rows, int64_t at, float *to, int64_t stride)
{
    for (int i = 0; i < 4; i++) for (int d = 0; d < 4; d++) to[d * stride + i] = rows[i][at + d];
}
enum { V_SQUARE = 4 };
V_INLINE void v_transpose(const float *from, int64_t from_stride, float *to, int64_t to_stride)
{
    for (int i = 0; i < 4; i++) for (int j = 0; j < 4; j++) to[j * to_stride + i] = from[i * from_stride + j];
}

#elif defined(__AVX2__)
#include <immintrin.h>
V_INLINE void v_turn4(const float *const *rows, int64_t at, float *to, int64_t stride)
{
    __m128 a = _mm_loadu_ps(rows[0] + at), b = _mm_loadu_ps(rows[1] + at), c = _mm_loadu_ps(rows[2] + at), d = _mm_loadu_ps(rows[3] + at);
    _MM_TRANSPOSE4_PS(a, b, c, d);
    _mm_storeu_ps(to, a);
    _mm_storeu_ps(to + stride, b);
    _mm_storeu_ps(to + 2 * stride, c);
    _mm_storeu_ps(to + 3 * stride, d);
}
enum { V_SQUARE = 8 };
V_INLINE void v_transpose(const float *from, int64_t from_stride, float *to, int64_t to_stride)
{
    __m256 a[8], b[8];
    for (int i = 0; i < 4; i++) {                  /* rows i and i + 4 side by side, in two halves of columns */
        const float *low = from + i * from_stride, *high = from + (i + 4) * from_stride;
        a[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(low)), _mm_loadu_ps(high), 1);
        a[i + 4] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(low + 4)), _mm_loadu_ps(high + 4), 1);
    }
    for (int h = 0; h < 8; h += 4) {
        b[h] = _mm256_unpacklo_ps(a[h], a[h + 1]);
        b[h + 1] = _mm256_unpackhi_ps(a[h], a[h + 1]);
        b[h + 2] = _mm256_unpacklo_ps(a[h + 2], a[h + 3]);
        b[h + 3] = _mm256_unpackhi_ps(a[h + 2], a[h + 3]);
        _mm256_storeu_ps(to + h * to_stride, _mm256_shuffle_ps(b[h], b[h + 2], 0x44));
        _mm256_storeu_ps(to + (h + 1) * to_stride, _mm256_shuffle_ps(b[h], b[h + 2], 0xee));
        _mm256_storeu_ps(to + (h + 2) * to_stride, _mm256_shuffle_ps(b[h + 1], b[h + 3], 0x44));
        _mm256_storeu_ps(to + (h + 3) * to_stride, _mm256_shuffle_ps(b[h + 1], b[h + 3], 0xee));
    }
}

#if defined(__AVX512F__)
/* ---- AVX-512 (F, BW, DQ, VL) ---- */
enum { V_LEN = 16, V_ROWS = 12 };
typedef __m512 vf;
typedef __mmask16 vm;

V_INLINE vm v_mask(int n) { return (vm)((1u << n) - 1); }
V_INLINE vf v_set(float x) { return _mm512_set1_ps(x); }
V_INLINE vf v_load(const float *p) { return _mm512_loadu_ps(p); }
V_INLINE void v_store(float *p, vf v) { _mm512_storeu_ps(p, v); }
V_INLINE vf v_load_n(const float *p, int n) { return _mm512_maskz_loadu_ps(v_mask(n), p); }
V_INLINE void v_store_n(float *p, vf v, int n) { _mm512_mask_storeu_ps(p, v_mask(n), v); }
V_INLINE vf v_add(vf a, vf b) { return _mm512_add_ps(a, b); }
V_INLINE vf v_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
V_INLINE vf v_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
V_INLINE vf v_div(vf a, vf b) { return _mm512_div_ps(a, b); }
V_INLINE vf v_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
V_INLINE vf v_max(vf a, vf b) { return _mm512_max_ps(a, b); }
V_INLINE vf v_min(vf a, vf b) { return _mm512_min_ps(a, b); }
V_INLINE vf v_abs(vf a) { return _mm512_abs_ps(a); }
V_INLINE vf v_copysign(vf a, vf sign)
{
    __m512i bits = _mm512_ternarylogic_epi32(_mm512_set1_epi32(INT32_MIN), _mm512_castps_si512(sign), _mm512_castps_si512(a), 0xca);
    return _mm512_castsi512_ps(bits);
}
V_INLINE vm v_lt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
V_INLINE vf v_select(vm m, vf yes, vf no) { return _mm512_mask_blend_ps(m, no, yes); }
V_INLINE vf v_round(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
V_INLINE vf v_exp2_int(vf n) { return _mm512_scalef_ps(_mm512_set1_ps(1), n); }
V_INLINE float v_first(vf a) { return _mm512_cvtss_f32(a); }
V_INLINE float v_sum(vf a) { return _mm512_reduce_add_ps(a); }
V_INLINE float v_hmax(vf a) { return _mm512_reduce_max_ps(a); }
V_INLINE vf v_lanes(void) { return _mm512_set_ps(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0); }
V_INLINE vf v_widen_bf16(__m256i v) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16)); }
V_INLINE __m256i v_narrow_bf16(vf v)
{
    __m512i bits = _mm512_castps_si512(v), odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
    rounded = _mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), quiet);
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
}
V_INLINE vf v_load_bf16(const uint16_t *p) { return v_widen_bf16(_mm256_loadu_si256((const __m256i *)p)); }
V_INLINE vf v_load_bf16_n(const uint16_t *p, int n) { return v_widen_bf16(_mm256_maskz_loadu_epi16(v_mask(n), p)); }
V_INLINE vf v_load_f16(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
V_INLINE vf v_load_f16_n(const uint16_t *p, int n) { return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(v_mask(n), p)); }
V_INLINE void v_store_bf16(uint16_t *p, vf v) { _mm256_storeu_si256((__m256i *)p, v_narrow_bf16(v)); }
V_INLINE void v_store_bf16_n(uint16_t *p, vf v, int n) { _mm256_mask_storeu_epi16(p, v_mask(n), v_narrow_bf16(v)); }
V_INLINE void v_store_f16(uint16_t *p, vf v) { _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT)); }
V_INLINE void v_store_f16_n(uint16_t *p, vf v, int n) { _mm256_mask_storeu_epi16(p, v_mask(n), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT)); }

#else
/* ---- AVX2, FMA, F16C ---- */
enum { V_LEN = 8, V_ROWS = 6 };
typedef __m256 vf;
typedef __m256 vm;

static const int32_t v_mask_bits[16] __attribute__((unused)) = {-1, -1, -1, -1, -1, -1, -1, -1};
V_INLINE __m256i v_mask(int n) { return _mm256_loadu_si256((const __m256i *)(v_mask_bits + 8 - n)); }
V_INLINE vf v_set(float x) { return _mm256_set1_ps(x); }
V_INLINE vf v_load(const float *p) { return _mm256_loadu_ps(p); }
V_INLINE void v_store(float *p, vf v) { _mm256_storeu_ps(p, v); }
V_INLINE vf v_load_n(const float *p, int n) { return _mm256_maskload_ps(p, v_mask(n)); }
V_INLINE void v_store_n(float *p, vf v, int n) { _mm256_maskstore_ps(p, v_mask(n), v); }
V_INLINE vf v_add(vf a, vf b) { return _mm256_add_ps(a, b); }
V_INLINE vf v_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
V_INLINE vf v_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
V_INLINE vf v_div(vf a, vf b) { return _mm256_div_ps(a, b); }
V_INLINE vf v_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
V_INLINE vf v_max(vf a, vf b) { return _mm256_max_ps(a, b); }
V_INLINE vf v_min(vf a, vf b) { return _mm256_min_ps(a, b); }
V_INLINE vf v_abs(vf a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.f), a); }
V_INLINE vf v_copysign(vf a, vf sign) { vf top = _mm256_set1_ps(-0.f); return _mm256_or_ps(_mm256_andnot_ps(top, a), _mm256_and_ps(top, sign)); }
V_INLINE vm v_lt(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
V_INLINE vf v_select(vm m, vf yes, vf no) { return _mm256_blendv_ps(no, yes, m); }
V_INLINE vf v_round(vf a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
V_INLINE vf v_exp2_int(vf n) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23)); }
V_INLINE float v_first(vf a) { return _mm256_cvtss_f32(a); }
V_INLINE float v_sum(vf a)
{
    __m128 h = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    h = _mm_add_ps(h, _mm_movehl_ps(h, h));
    return _mm_cvtss_f32(_mm_add_ss(h, _mm_movehdup_ps(h)));
}
V_INLINE float v_hmax(vf a)
{
    __m128 h = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    h = _mm_max_ps(h, _mm_movehl_ps(h, h));
    return _mm_cvtss_f32(_mm_max_ss(h, _mm_movehdup_ps(h)));
}
V_INLINE vf v_lanes(void) { return _mm256_set_ps(7, 6, 5, 4, 3, 2, 1, 0); }
V_INLINE __m128i v_some16(const uint16_t *p, int n) { uint16_t some[8] = {0}; for (int i = 0; i < n; i++) some[i] = p[i]; return _mm_loadu_si128((const __m128i *)some); }
V_INLINE vf v_widen_bf16(__m128i v) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16)); }
V_INLINE __m128i v_narrow_bf16(vf v)
{
    __m256i bits = _mm256_castps_si256(v), odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    rounded = _mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q)));
    rounded = _mm256_srli_epi32(rounded, 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1));
}
V_INLINE vf v_load_bf16(const uint16_t *p) { return v_widen_bf16(_mm_loadu_si128((const __m128i *)p)); }
V_INLINE vf v_load_bf16_n(const uint16_t *p, int n) { return v_widen_bf16(v_some16(p, n)); }
V_INLINE vf v_load_f16(const uint16_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }
V_INLINE vf v_load_f16_n(const uint16_t *p, int n) { return _mm256_cvtph_ps(v_some16(p, n)); }
V_INLINE void v_store16_n(uint16_t *p, __m128i v, int n) { uint16_t all[8]; _mm_storeu_si128((__m128i *)all, v); for (int i = 0; i < n; i++) p[i] = all[i]; }
V_INLINE void v_store_bf16(uint16_t *p, vf v) { _mm_storeu_si128((__m128i *)p, v_narrow_bf16(v)); }
V_INLINE void v_store_bf16_n(uint16_t *p, vf v, int n) { v_store16_n(p, v_narrow_bf16(v), n); }
V_INLINE void v_store_f16(uint16_t *p, vf v) { _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT)); }
V_INLINE void v_store_f16_n(uint16_t *p, vf v, int n) { v_store16_n(p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT), n); }
#endif

#elif defined(__aarch64__)
/* ---- NEON of Armv8.0 ---- */
#include <arm_neon.h>
enum { V_LEN = 4, V_ROWS = 10 };
typedef float32x4_t vf;
typedef uint32x4_t vm;

V_INLINE vf v_set(float x) { return vdupq_n_f32(x); }
V_INLINE vf v_load(const float *p) { return vld1q_f32(p); }
V_INLINE void v_store(float *p, vf v) { vst1q_f32(p, v); }
V_INLINE vf v_load_n(const float *p, int n) { float some[4] = {0}; for (int i = 0; i < n; i++) some[i] = p[i]; return vld1q_f32(some); }
V_INLINE void v_store_n(float *p, vf v, int n) { float all[4]; vst1q_f32(all, v); for (int i = 0; i < n; i++) p[i] = all[i]; }
V_INLINE vf v_add(vf a, vf b) { return vaddq_f32(a, b); }
V_INLINE vf v_sub(vf a, vf b) { return vsubq_f32(a, b); }
V_INLINE vf v_mul(vf a, vf b) { return vmulq_f32(a, b); }
V_INLINE vf v_div(vf a, vf b) { return vdivq_f32(a, b); }
V_INLINE vf v_fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
V_INLINE vf v_max(vf a, vf b) { return vmaxq_f32(a, b); }
V_INLINE vf v_min(vf a, vf b) { return vminq_f32(a, b); }
V_INLINE vf v_abs(vf a) { return vabsq_f32(a); }
V_INLINE vf v_copysign(vf a, vf sign) { return vbslq_f32(vdupq_n_u32(0x80000000), sign, a); }
V_INLINE vm v_lt(vf a, vf b) { return vcltq_f32(a, b); }
V_INLINE vf v_select(vm m, vf yes, vf no) { return vbslq_f32(m, yes, no); }
V_INLINE vf v_round(vf a) { return vrndnq_f32(a); }
V_INLINE vf v_exp2_int(vf n) { return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), 23)); }
V_INLINE float v_first(vf a) { return vgetq_lane_f32(a, 0); }
V_INLINE float v_sum(vf a) { float32x2_t h = vadd_f32(vget_low_f32(a), vget_high_f32(a)); return vget_lane_f32(vpadd_f32(h, h), 0); }
V_INLINE float v_hmax(vf a) { return vmaxvq_f32(a); }
V_INLINE vf v_lanes(void) { static const float lanes[4] = {0, 1, 2, 3}; return vld1q_f32(lanes); }
V_INLINE uint16x4_t v_some16(const uint16_t *p, int n) { uint16_t some[4] = {0}; for (int i = 0; i < n; i++) some[i] = p[i]; return vld1_u16(some); }
V_INLINE vf v_widen_bf16(uint16x4_t v) { return vreinterpretq_f32_u32(vshlq_n_u32(vmovl_u16(v), 16)); }
V_INLINE uint16x4_t v_narrow_bf16(vf v)
{
    uint32x4_t bits = vreinterpretq_u32_f32(v), odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    uint32x4_t rounded = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
    return vshrn_n_u32(vbslq_u32(vceqq_f32(v, v), rounded, vorrq_u32(bits, vdupq_n_u32(0x400000))), 16);
}
V_INLINE vf v_load_bf16(const uint16_t *p) { return v_widen_bf16(vld1_u16(p)); }
V_INLINE vf v_load_bf16_n(const uint16_t *p, int n) { return v_widen_bf16(v_some16(p, n)); }
V_INLINE vf v_load_f16(const uint16_t *p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
V_INLINE vf v_load_f16_n(const uint16_t *p, int n) { return vcvt_f32_f16(vreinterpret_f16_u16(v_some16(p, n))); }
V_INLINE void v_store16_n(uint16_t *p, uint16x4_t v, int n) { uint16_t all[4]; vst1_u16(all, v); for (int i = 0; i < n; i++) p[i] = all[i]; }
V_INLINE void v_store_bf16(uint16_t *p, vf v) { vst1_u16(p, v_narrow_bf16(v)); }
V_INLINE void v_store_bf16_n(uint16_t *p, vf v, int n) { v_store16_n(p, v_narrow_bf16(v), n); }
V_INLINE void v_store_f16(uint16_t *p, vf v) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(v))); }
V_INLINE void v_store_f16_n(uint16_t *p, vf v, int n) { v_store16_n(p, vreinterpret_u16_f16(vcvt_f16_f32(v)), n); }
V_INLINE void v_turn4(const float *const *rows, int64_t at, float *to, int64_t stride)
{
    float32x4x2_t a = vtrnq_f32(vld1q_f32(rows[0] + at), vld1q_f32(rows[1] + at));
    float32x4x2_t b = vtrnq_f32(vld1q_f32(rows[2] + at), vld1q_f32(rows[3] + at));
    vst1q_f32(to, vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0])));
    vst1q_f32(to + stride, vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1])));
    vst1q_f32(to + 2 * stride, vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0])));
    vst1q_f32(to + 3 * stride, vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1])));
}
enum { V_SQUARE = 4 };
V_INLINE void v_transpose(const float *from, int64_t from_stride, float *to, int64_t to_stride)
{
    const float *rows[4] = {from, from + from_stride, from + 2 * from_stride, from + 3 * from_stride};
    v_turn4(rows, 0, to, to_stride);
}
#else
#error "no vectors for this architecture: define VEC_C"
#endif

/* ---- functions ---- */

/* e^x, error below 2 units in the last place; under 2^-126: 0; saturates above e^88.3; NaN stays. Cephes' polynomial. */
V_INLINE vf v_exp(vf x)
{
    vf y = v_min(v_set(88.3762626f), v_max(v_set(-87.3365402f), x));
    vf n = v_round(v_mul(y, v_set(1.44269504f)));
    vf r = v_fma(n, v_set(-0.693359375f), y);
    r = v_fma(n, v_set(2.12194440e-4f), r);
    vf p = v_set(1.9875691500e-4f);
    p = v_fma(p, r, v_set(1.3981999507e-3f));
    p = v_fma(p, r, v_set(8.3334519073e-3f));
    p = v_fma(p, r, v_set(4.1665795894e-2f));
    p = v_fma(p, r, v_set(1.6666665459e-1f));
    p = v_fma(p, r, v_set(5.0000001201e-1f));
    p = v_add(v_fma(p, v_mul(r, r), r), v_set(1));
    return v_select(v_lt(x, v_set(-87.3365402f)), v_set(0), v_mul(p, v_exp2_int(n)));
}

/* The same for x <= 0 (softmax), where fewer steps are needed; -infinity gives 0. */
V_INLINE vf v_exp_below(vf x)
{
#if defined(__AVX512F__) && !defined(VEC_C)
    const float least = -110;                      /* scalef underflows to 0 by itself */
#else
    const float least = -87.3365402f;
#endif
    vf y = v_max(v_set(least), x);
    vf n = v_round(v_mul(y, v_set(1.44269504f)));
    vf r = v_fma(n, v_set(-0.693359375f), y);
    r = v_fma(n, v_set(2.12194440e-4f), r);
    vf p = v_set(1.9875691500e-4f);
    p = v_fma(p, r, v_set(1.3981999507e-3f));
    p = v_fma(p, r, v_set(8.3334519073e-3f));
    p = v_fma(p, r, v_set(4.1665795894e-2f));
    p = v_fma(p, r, v_set(1.6666665459e-1f));
    p = v_fma(p, r, v_set(5.0000001201e-1f));
    p = v_add(v_fma(p, v_mul(r, r), r), v_set(1));
    p = v_mul(p, v_exp2_int(n));
#if defined(__AVX512F__) && !defined(VEC_C)
    return p;
#else
    return v_select(v_lt(x, v_set(least)), v_set(0), p);
#endif
}

V_INLINE vf v_sigmoid(vf x) { return v_div(v_set(1), v_add(v_set(1), v_exp(v_sub(v_set(0), x)))); }

/* Odd polynomial where 1 - e^-2x would cancel, the exponential elsewhere. */
V_INLINE vf v_tanh(vf x)
{
    vf a = v_abs(x), z = v_mul(x, x);
    vf p = v_set(-5.70498872745e-3f);
    p = v_fma(p, z, v_set(2.06390887954e-2f));
    p = v_fma(p, z, v_set(-5.37397155531e-2f));
    p = v_fma(p, z, v_set(1.33314422036e-1f));
    p = v_fma(p, z, v_set(-3.33332819422e-1f));
    p = v_fma(v_mul(p, z), x, x);
    vf e = v_exp(v_mul(v_set(-2), a));
    vf big = v_copysign(v_div(v_sub(v_set(1), e), v_add(v_set(1), e)), x);
    return v_select(v_lt(a, v_set(0.625f)), p, big);
}

/* Normal distribution function: (1 + erf(x / sqrt 2)) / 2, by the Chebyshev fit of erfc in Numerical Recipes (1.2e-7 relative),
 * so that the left tail keeps its digits. */
V_INLINE vf v_normal_cdf(vf x)
{
    vf z = v_mul(v_abs(x), v_set(0.70710678f));
    vf t = v_div(v_set(1), v_fma(v_set(0.5f), z, v_set(1)));
    vf p = v_set(0.17087277f);
    p = v_fma(p, t, v_set(-0.82215223f));
    p = v_fma(p, t, v_set(1.48851587f));
    p = v_fma(p, t, v_set(-1.13520398f));
    p = v_fma(p, t, v_set(0.27886807f));
    p = v_fma(p, t, v_set(-0.18628806f));
    p = v_fma(p, t, v_set(0.09678418f));
    p = v_fma(p, t, v_set(0.37409196f));
    p = v_fma(p, t, v_set(1.00002368f));
    p = v_fma(p, t, v_set(-1.26551223f));
    vf tail = v_mul(v_mul(v_set(0.5f), t), v_exp(v_fma(v_sub(v_set(0), z), z, p)));
    return v_select(v_lt(x, v_set(0)), tail, v_sub(v_set(1), tail));
}

#endif
