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

static inline void widen_scales(const void *in, dtype type, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; i += 16)
        _mm512_storeu_ps(out + i, scales_avx512(in, type, i, n - i >= 16 ? 0xffff : (__mmask16)((1u << (n - i)) - 1)));
}

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

/* ---- one token alone: straight from the file ----
 *
 * A line of 64 bytes of codes meets as many activations; its 16 lanes of int32 belong to 4, 2 or 1 groups. 16 groups at a time are summed across
 * lanes, scaled as in int_tile, and kept until 16 rows are there; then these become lanes, and their groups are added in order as in int_tile. */

typedef struct alone_x {                           /* activations rearranged: 4 bits: by line 64 even, then 64 odd columns; the rest zeros */
    int8_t *q;
    float *scales, *sums;                          /* [groups] */
} alone_x;

static int64_t lines_of(const weight *w) { return (w->cols * w->bits / 8 + 63) / 64; }
static int64_t padded_groups(const weight *w) { return (groups_of(w) + 15) / 16 * 16; }
static size_t alone_bytes(const weight *w) { return (size_t)(lines_of(w) + 32) * 128 + (size_t)padded_groups(w) * (2 + 16) * 4; }
static size_t scratch_bytes(const weight *w, int64_t n) { return n == 1 ? alone_bytes(w) : int_scratch(w, n); }

static alone_x rearrange(const linear_product *p, char *scratch)
{
    const weight *w = &p->w;
    int64_t lines = lines_of(w), groups = groups_of(w), bytes = w->cols * w->bits / 8;
    alone_x x = {(int8_t *)scratch, (float *)(scratch + (lines + 32) * 128), NULL};
    x.sums = x.scales + padded_groups(w);
    const char *from = p->x;
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30), odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    for (int64_t i = 0; i < lines; i++) {
        int64_t words = min64(16, (bytes - 64 * i) / 4);
        if (w->bits == 4) {
            __m512i low = _mm512_maskz_loadu_epi32((__mmask16)(words >= 8 ? 0xffff : (1u << 2 * words) - 1), from + 128 * i);
            __m512i high = _mm512_maskz_loadu_epi32((__mmask16)(words <= 8 ? 0 : (1u << 2 * (words - 8)) - 1), from + 128 * i + 64);
            _mm512_storeu_si512(x.q + 128 * i, _mm512_permutex2var_epi32(low, even, high));
            _mm512_storeu_si512(x.q + 128 * i + 64, _mm512_permutex2var_epi32(low, odd, high));
        } else {
            _mm512_storeu_si512(x.q + 64 * i, _mm512_maskz_loadu_epi32((__mmask16)((1u << words) - 1), from + 64 * i));
        }
    }
    const float *scales = token_scales(w, (char *)p->x, 1);
    for (int64_t g = 0; g < padded_groups(w); g++) {
        x.scales[g] = g < groups ? scales[g * 2 * BLOCK] : 0;
        x.sums[g] = g < groups ? scales[g * 2 * BLOCK + BLOCK] : 0;
    }
    return x;
}

INLINE __m512i line_dot(const char *codes, const int8_t *x, const int bits, int64_t left, size_t ahead)
{
    __builtin_prefetch(codes + ahead, 0, 2);       /* from memory to L2 */
    __builtin_prefetch(codes + ahead / 8, 0, 3);   /* two rows ahead, from there to L1 */
    __m512i w = left >= 64 ? _mm512_loadu_si512(codes) : _mm512_maskz_loadu_epi32((__mmask16)((1u << (left > 0 ? left / 4 : 0)) - 1), codes);
    if (bits == 8) return _mm512_dpbusd_epi32(_mm512_setzero_si512(), w, _mm512_loadu_si512(x));
    const __m512i mask = _mm512_set1_epi8(15);
    __m512i sum = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_and_si512(w, mask), _mm512_loadu_si512(x));
    return _mm512_dpbusd_epi32(sum, _mm512_and_si512(_mm512_srli_epi32(w, 4), mask), _mm512_loadu_si512(x + 64));
}

INLINE __m512i halves(__m512i a, __m512i b)        /* blocks of 128 bits added in pairs: 0 + 1, 2 + 3 of a, then of b */
{
    return _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
}

/* The dot products of 16 groups, in order. lanes: of a group in a line or pair of lines. */
INLINE __m512i groups_dot(const char *codes, const int8_t *x, const int bits, const int lanes, const int pair, int64_t left, size_t ahead)
{
    __m512i r[4];
#pragma GCC unroll 4
    for (int i = 0; i < lanes / 4; i++) {
        __m512i v[4];
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            v[j] = line_dot(codes, x, bits, left, ahead);
            codes += 64, left -= 64, x += 512 / bits;
            if (pair) {
                v[j] = _mm512_add_epi32(v[j], line_dot(codes, x, bits, left, ahead));
                codes += 64, left -= 64, x += 512 / bits;
            }
        }
        __m512i a = _mm512_add_epi32(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
        __m512i b = _mm512_add_epi32(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
        r[i] = _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));       /* block q: block sums of v[0..3] */
    }
    if (lanes == 16) return halves(halves(r[0], r[1]), halves(r[2], r[3]));
    if (lanes == 8)
        return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15), halves(r[0], r[1]));
    return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), r[0]);
}

/* The parts of up to 16 rows: [row][padded groups]; 16 groups of all rows, then the next. */
INLINE void alone_parts(const weight *w, int64_t o, int64_t rows, const alone_x *x, float *parts, const int bits, const int lanes, const int pair)
{
    const int64_t groups = groups_of(w), bytes = w->cols * bits / 8, step = 64 * lanes << pair;
    const size_t ahead = 16 * (size_t)bytes;       /* the next 16 rows come to L2 meanwhile */
    const int8_t *q = x->q;
    for (int64_t g = 0, at = 0; g < groups; g += 16, at += step, q += step * 8 / bits) {
        __mmask16 mask = groups - g >= 16 ? 0xffff : (__mmask16)((1u << (groups - g)) - 1);
        for (int64_t r = 0; r < rows; r++) {
            const char *codes = (const char *)w->data + (size_t)((o + r) * bytes + at);
            __m512i dots = bytes - at >= step ? groups_dot(codes, q, bits, lanes, pair, step, ahead)
                                              : groups_dot(codes, q, bits, lanes, pair, bytes - at, ahead);
            const size_t at_scale = (size_t)((o + r + 16) * groups + g) * (w->scale_type == DT_F32 ? 4 : 2);
            __builtin_prefetch((const char *)w->scales + at_scale, 0, 2);
            __builtin_prefetch((const char *)w->biases + at_scale, 0, 2);
            vf scale = scales_avx512(w->scales, w->scale_type, (o + r) * groups + g, mask);
            vf offset = scales_avx512(w->biases, w->scale_type, (o + r) * groups + g, mask);
            v_store(parts + r * padded_groups(w) + g, v_fma(vi_float(dots), scale, v_mul(offset, v_load(x->sums + g))));
        }
    }
}

static void alone_rows(const weight *w, int64_t o, int64_t rows, const alone_x *x, float *parts)
{
    if (w->bits == 4 && w->group == 32) alone_parts(w, o, rows, x, parts, 4, 4, 0);
    else if (w->bits == 4 && w->group == 64) alone_parts(w, o, rows, x, parts, 4, 8, 0);
    else if (w->bits == 4) alone_parts(w, o, rows, x, parts, 4, 16, 0);
    else if (w->group == 32) alone_parts(w, o, rows, x, parts, 8, 8, 0);
    else if (w->group == 64) alone_parts(w, o, rows, x, parts, 8, 16, 0);
    else alone_parts(w, o, rows, x, parts, 8, 16, 1);
}

static void block(const linear_product *p, int64_t o0, int64_t o1, int64_t t0, int64_t t1, void *scratch)
{
    if (p->n > 1) {
        int_block(p, o0, o1, t0, t1, scratch);
        return;
    }
    const weight *w = &p->w;
    alone_x x = rearrange(p, scratch);
    float *parts = x.sums + padded_groups(w);
    const char *codes = (const char *)w->data + (size_t)o0 * weight_row_bytes(w);
    for (size_t i = 0; i < 16 * weight_row_bytes(w); i += 64) __builtin_prefetch(codes + i, 0, 2);     /* all at once, then 16 rows ahead */
    for (int64_t o = o0; o < o1; o += 16) {
        int64_t rows = min64(16, o1 - o);
        alone_rows(w, o, rows, &x, parts);
        vf sum = v_zero();
        for (int64_t g = 0; g < groups_of(w); g += 16) {
            __m512i v[16];
#pragma GCC unroll 16
            for (int r = 0; r < 16; r++) v[r] = _mm512_loadu_si512(parts + min64(r, rows - 1) * padded_groups(w) + g);
            transpose_avx512(v);
#pragma GCC unroll 16
            for (int i = 0; i < 16; i++)
                if (g + i < groups_of(w)) sum = v_fma(_mm512_castsi512_ps(v[i]), v_set1(x.scales[g + i]), sum);
        }
        __mmask16 stored = (__mmask16)((1u << rows) - 1);
        if (p->bias) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(stored, p->bias + o));
        _mm512_mask_storeu_ps(p->y + o, stored, sum);
    }
}

const linear_path linear_int_avx512vnni = {.name = INT_LABEL, .x_bytes = int_x_bytes, .pack = int_pack, .scratch = scratch_bytes, .block = block,
                                           .unit = ROWS};

void linear_init_avx512vnni(linear_table *t) { t->fast_affine4 = t->fast_affine8 = &linear_int_avx512vnni; }
