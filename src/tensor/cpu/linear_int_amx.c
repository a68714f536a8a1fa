/* linear_int_amx.c - affine weights of 4 and 8 bits with AMX int8 tiles, for more than FEW tokens; the same numbers as linear_avx512vnni.c, which does fewer
 * (on the same panels): the products of a group are exact in int32 either way, and groups are added in the same order.
 *
 *   A  activations of 16 tokens, a group deep (64 columns at most); packed so: [block of 16 tokens][columns / depth][token][depth], then
 *      [groups][2][token] scales and sums
 *   B  codes of 16 rows as a panel has them, [4 columns][row][4]: 8 bits as they lie, 4 bits spread to bytes in scratch
 *   C  int32 of one group: stored, then scaled and added to 16 vectors of float32 sums (of a token each; lanes are rows). Tiles and vectors take turns,
 *      PHASE groups of two panels each: interleaved finer they were slower, and at no distance do they overlap
 *
 * MOST panels go through the columns in spans of SPAN. Of a span, the codes of PANELS of them and a block of tokens stay in L1, all tokens in L2;
 * sums wait in scratch from span to span, as float32. */
#include <string.h>

#include "tensor/cpu/linear_amx.h"

#define INLINE static inline __attribute__((always_inline))

enum {
    FEW = 8,
    SPAN = 512,
    GROUPS = SPAN / 32,                            /* of a span at most */
    PHASE = 8,
    PANELS = 2,
    MOST = 8,
};

static int64_t groups_of(const weight *w) { return w->cols / w->group; }
static int depth_of(const weight *w) { return w->group < 64 ? w->group : 64; }
static size_t block_bytes(const weight *w) { return TILE * ((size_t)w->cols + (size_t)groups_of(w) * 2 * sizeof(float)); }
static size_t unit_bytes(const weight *w) { return TILE * ((size_t)(w->group * w->bits / 8) + 2 * dtype_size(w->scale_type)); }
static size_t panel_bytes(const weight *w) { return (size_t)groups_of(w) * unit_bytes(w); }

static size_t x_bytes(const weight *w, int64_t n)
{
    return n <= FEW ? linear_int_avx512vnni.x_bytes(w, n) : (size_t)((n + TILE - 1) / TILE) * block_bytes(w);
}

/* A group in int8, 16 columns at a time in the order of the codes, as linear_int.h does it. */
INLINE void quantize(const float *x, const int group, const int bits, char *out, float *scale, float *sum)
{
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    const __m128i even_odd = _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
    __m512 v[8];
    __m512i top = _mm512_setzero_si512(), total = _mm512_setzero_si512();
#pragma GCC unroll 8
    for (int i = 0; i < group / 16; i++) {
        v[i] = _mm512_loadu_ps(x + 16 * i);
        top = _mm512_max_epu32(top, _mm512_and_si512(_mm512_castps_si512(v[i]), magnitude));
    }
    const uint32_t bits_of_most = _mm512_reduce_max_epu32(top);
    float most;
    memcpy(&most, &bits_of_most, sizeof most);
    const __m512 inverse = _mm512_set1_ps(most > 0 ? 127 / most : 0);
#pragma GCC unroll 8
    for (int i = 0; i < group / 16; i++) {
        __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(v[i], inverse));
        __m128i bytes = _mm512_cvtepi32_epi8(q);
        total = _mm512_add_epi32(total, q);
        _mm_storeu_si128((void *)(out + 16 * i), bits == 4 ? _mm_shuffle_epi8(bytes, even_odd) : bytes);
    }
    *scale = most / 127;
    *sum = (float)_mm512_reduce_add_epi32(total);
}

/* The last token leaves zeros for those that are not there. */
static void pack(const weight *w, void *packed, int64_t n, int64_t t, const float *x)
{
    if (n <= FEW) {
        linear_int_avx512vnni.pack(w, packed, n, t, x);
        return;
    }
    const int depth = depth_of(w);
    char *block = (char *)packed + (size_t)(t / TILE) * block_bytes(w), *out = block + t % TILE * depth;
    float *scales = (float *)(block + TILE * w->cols) + t % TILE;
    for (int64_t g = 0; g < groups_of(w); g++, scales += 2 * TILE, x += w->group) {
        char q[128];
        if (w->group == 64) quantize(x, 64, w->bits, q, &scales[0], &scales[TILE]);
        else if (w->group == 32) quantize(x, 32, w->bits, q, &scales[0], &scales[TILE]);
        else quantize(x, 128, w->bits, q, &scales[0], &scales[TILE]);
        for (int i = 0; i < w->group; i += depth, out += TILE * depth) memcpy(out, q + i, (size_t)depth);
        if (t == n - 1) for (int i = 1; i < TILE - t % TILE; i++) scales[i] = scales[TILE + i] = 0;
    }
}

/* ---- one span of a panel ---- */

typedef struct span {
    const char *codes;                             /* tiles of group after group, `stride` bytes from one group to the next */
    size_t stride;
    float scales[GROUPS][TILE], biases[GROUPS][TILE];
} span;

/* 4 bits: a row of words becomes the four even, then the four odd columns of each. */
static void spread(const char *in, int64_t words, char *out)
{
    const __m512i mask = _mm512_set1_epi8(15);
    for (int64_t i = 0; i < words; i++, in += 64, out += 128) {
        __m512i w = _mm512_loadu_si512(in);
        _mm512_storeu_si512(out, _mm512_and_si512(w, mask));
        _mm512_storeu_si512(out + 64, _mm512_and_si512(_mm512_srli_epi32(w, 4), mask));
    }
}

static void load_span(const weight *w, const char *panel, int64_t groups, char *scratch, span *s)
{
    const size_t unit = unit_bytes(w), codes = (size_t)TILE * (size_t)(w->group * w->bits / 8);
    s->codes = w->bits == 8 ? panel : scratch;
    s->stride = w->bits == 8 ? unit : (size_t)TILE * (size_t)w->group;
    for (int64_t g = 0; g < groups; g++, panel += unit) {
        if (w->bits == 4) spread(panel, w->group / 8, scratch + (size_t)g * s->stride);
        _mm512_storeu_ps(s->scales[g], scales_avx512(panel + codes, w->scale_type, 0, 0xffff));
        _mm512_storeu_ps(s->biases[g], scales_avx512(panel + codes, w->scale_type, TILE, 0xffff));
    }
}

/* Adds a group, whose products lie in c, to the sums. */
INLINE void add_group(__m512 sums[TILE], const int32_t *c, const float *scales, const float *biases, const float *x_scales)
{
    const __m512 scale = _mm512_loadu_ps(scales), bias = _mm512_loadu_ps(biases);
#pragma GCC unroll 16
    for (int t = 0; t < TILE; t++) {
        __m512 products = _mm512_cvtepi32_ps(_mm512_load_si512(c + TILE * t));
        __m512 part = _mm512_fmadd_ps(products, scale, _mm512_mul_ps(bias, _mm512_set1_ps(x_scales[TILE + t])));
        sums[t] = _mm512_fmadd_ps(part, _mm512_set1_ps(x_scales[t]), sums[t]);
    }
}

typedef struct target {                            /* where sums go after the last span */
    float *y;
    int64_t stride, tokens;
    const float *bias;
    __mmask16 mask[PANELS];
} target;

/* Tiles are named by constants, hence a macro: products of group g and one or two panels. */
#define MULTIPLY_GROUP(a, c0, c1, g)                                                              \
    do {                                                                                          \
        const char *codes0 = s[0].codes + (size_t)(g) * s[0].stride, *at = x + (g) * TILE * group; \
        const char *codes1 = two ? s[1].codes + (size_t)(g) * s[1].stride : codes0;               \
        _tile_zero(c0);                                                                           \
        if (two) _tile_zero(c1);                                                                  \
        for (int k = 0; k < group; k += depth) {                                                  \
            _tile_loadd(a, at + k * TILE, (size_t)depth);                                         \
            _tile_loadd(6, codes0 + k * TILE, 64);                                                \
            _tile_dpbsud(c0, a, 6);                                                               \
            if (two) _tile_loadd(7, codes1 + k * TILE, 64);                                       \
            if (two) _tile_dpbsud(c1, a, 7);                                                      \
        }                                                                                         \
    } while (0)

/* One span: 16 tokens x 16 rows of one or two panels; sums [token][row], the second panel's `apart` further. out NULL: there is another span. */
INLINE void multiply(const int group, const bool two, const span *s, int64_t groups, const char *x, const float *x_scales, float *sums, int64_t apart,
                     bool first, const target *out)
{
    const int depth = group < 64 ? group : 64;
    int32_t c[PHASE][PANELS][TILE * TILE] __attribute__((aligned(64)));
    for (int64_t from = 0, n; from < groups; from += n) {
        n = min64(PHASE, groups - from);
        for (int64_t g = 0; g < n; g += 2) {
            MULTIPLY_GROUP(4, 0, 1, from + g);
            if (g + 1 < n) MULTIPLY_GROUP(5, 2, 3, from + g + 1);
            _tile_stored(0, c[g][0], 64);
            if (two) _tile_stored(1, c[g][1], 64);
            if (g + 1 == n) break;
            _tile_stored(2, c[g + 1][0], 64);
            if (two) _tile_stored(3, c[g + 1][1], 64);
        }
        for (int i = 0; i < (two ? 2 : 1); i++) {
            float *at = sums + i * apart;
            __m512 sum[TILE];
#pragma GCC unroll 16
            for (int t = 0; t < TILE; t++) sum[t] = first && from == 0 ? _mm512_setzero_ps() : _mm512_loadu_ps(at + TILE * t);
            for (int64_t g = 0; g < n; g++) add_group(sum, c[g][i], s[i].scales[from + g], s[i].biases[from + g], x_scales + (from + g) * 2 * TILE);
            if (!out || from + n < groups) {
#pragma GCC unroll 16
                for (int t = 0; t < TILE; t++) _mm512_storeu_ps(at + TILE * t, sum[t]);
                continue;
            }
            const __m512 bias = out->bias ? _mm512_maskz_loadu_ps(out->mask[i], out->bias + i * TILE) : _mm512_setzero_ps();
#pragma GCC unroll 16
            for (int t = 0; t < TILE; t++)
                if (t < out->tokens) _mm512_mask_storeu_ps(out->y + t * out->stride + i * TILE, out->mask[i], _mm512_add_ps(sum[t], bias));
        }
    }
}

#define MULTIPLY(name, group, two)                                                                                                               \
    static __attribute__((noinline)) void name(const span *s, int64_t groups, const char *x, const float *x_scales, float *sums, int64_t apart,  \
                                               bool first, const target *out)                                                                    \
    {                                                                                                                                            \
        multiply(group, two, s, groups, x, x_scales, sums, apart, first, out);                                                                   \
    }
MULTIPLY(multiply_32, 32, false)
MULTIPLY(multiply_64, 64, false)
MULTIPLY(multiply_128, 128, false)
MULTIPLY(multiply_32_two, 32, true)
MULTIPLY(multiply_64_two, 64, true)
MULTIPLY(multiply_128_two, 128, true)

/* ---- blocks ---- */

static size_t scratch_bytes(const weight *w, int64_t n)
{
    if (n <= FEW) return linear_int_avx512vnni.scratch(w, n);
    return PANELS * SPAN * TILE + MOST * ((size_t)((min64(n, LINEAR_TOKENS) + TILE - 1) / TILE) * TILE_BYTES + (w->packed ? 0 : panel_bytes(w)));
}

/* A span of `count` panels from o on and all tokens. sums: [panel][block of tokens]. */
static void panels(const linear_product *p, const span *s, int count, int64_t o, int64_t k, int64_t t0, int64_t t1, float *sums)
{
    const weight *w = &p->w;
    const int64_t apart = (t1 - t0 + TILE - 1) / TILE * TILE * TILE, groups = min64(SPAN, w->cols - k) / w->group;
    const bool last = k + SPAN >= w->cols;
    target out = {.stride = p->y_stride, .bias = p->bias ? p->bias + o : NULL};
    for (int i = 0; i < count; i++) out.mask[i] = (__mmask16)((1u << min64(TILE, w->rows - o - i * TILE)) - 1);
    for (int64_t t = t0; t < t1; t += TILE, sums += TILE * TILE) {
        const char *x = (const char *)p->x + (size_t)(t / TILE) * block_bytes(w);
        const float *x_scales = (const float *)(x + TILE * w->cols) + k / w->group * 2 * TILE;
        x += k * TILE;
        out.y = p->y + t * p->y_stride + o;
        out.tokens = min64(TILE, t1 - t);
        for (int64_t i = 0; last && i < out.tokens; i++) {
            __builtin_prefetch(out.y + i * out.stride, 1);
            __builtin_prefetch(out.y + i * out.stride + TILE, 1);
        }
        const target *to = last ? &out : NULL;
        if (w->group == 64) (count == 2 ? multiply_64_two : multiply_64)(s, groups, x, x_scales, sums, apart, k == 0, to);
        else if (w->group == 32) (count == 2 ? multiply_32_two : multiply_32)(s, groups, x, x_scales, sums, apart, k == 0, to);
        else (count == 2 ? multiply_128_two : multiply_128)(s, groups, x, x_scales, sums, apart, k == 0, to);
    }
}

/* Up to MOST panels. */
static void some_rows(const linear_product *p, int64_t o0, int64_t o1, int64_t t0, int64_t t1, char *scratch)
{
    const weight *w = &p->w;
    const int64_t blocks = (t1 - t0 + TILE - 1) / TILE;
    float *sums = (float *)(scratch + PANELS * SPAN * TILE);
    char *made = (char *)(sums + MOST * blocks * TILE * TILE);
    const char *first = made;
    if (w->packed) {
        first = (const char *)w->packed + (size_t)(o0 / TILE) * panel_bytes(w);
    } else {                                       /* a view that begins at row o0 */
        weight view = *w;
        const size_t skip = (size_t)(o0 * groups_of(w)) * dtype_size(w->scale_type);
        view.data = (const char *)w->data + (size_t)o0 * weight_row_bytes(w);
        view.scales = (const char *)w->scales + skip;
        view.biases = (const char *)w->biases + skip;
        linear_int_avx512vnni.repack(&view, made, 0, o1 - o0);
    }
    for (int64_t k = 0; k < w->cols; k += SPAN)
        for (int64_t o = o0; o < o1; o += PANELS * TILE) {
            span s[PANELS];
            int count = 0;
            for (; count < PANELS && o + count * TILE < o1; count++)
                load_span(w, first + (size_t)((o - o0) / TILE + count) * panel_bytes(w) + (size_t)(k / w->group) * unit_bytes(w),
                          min64(SPAN, w->cols - k) / w->group, scratch + count * SPAN * TILE, &s[count]);
            panels(p, s, count, o, k, t0, t1, sums + (o - o0) / TILE * blocks * TILE * TILE);
        }
}

static void block(const linear_product *p, int64_t o0, int64_t o1, int64_t t0, int64_t t1, void *scratch)
{
    if (p->n <= FEW) {
        linear_int_avx512vnni.block(p, o0, o1, t0, t1, scratch);
        return;
    }
    amx_configure(depth_of(&p->w));
    for (int64_t o = o0; o < o1; o += MOST * TILE) some_rows(p, o, min64(o + MOST * TILE, o1), t0, t1, scratch);
    _tile_release();
}

static size_t packed_bytes(const weight *w) { return linear_int_avx512vnni.packed_bytes(w); }
static void repack(const weight *w, char *packed, int64_t o0, int64_t o1) { linear_int_avx512vnni.repack(w, packed, o0, o1); }

const linear_path linear_int_amx = {.name = "int8 amx", .x_bytes = x_bytes, .pack = pack, .packed_bytes = packed_bytes, .repack = repack,
                                    .scratch = scratch_bytes, .block = block, .unit = PANELS * TILE};
