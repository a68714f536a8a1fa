/* linear_int_amx.c - affine weights of 4 and 8 bits with AMX int8 tiles, for more than one token; the same numbers as linear_avx512vnni.c (whose packing
 * it uses, and which does single tokens): the products of a group are exact in int32 either way, and groups are added in the same order.
 *
 *   A  codes of 16 rows, a group deep (64 columns at most): 8 bits as they lie in the file, 4 bits spread to bytes in scratch
 *   B  16 tokens as packed: [4 columns][token][4]
 *   C  int32 of one group: stored, scaled and added to 16 vectors of float32 sums (lanes are tokens) while the tiles do the next group
 *
 * Up to ROW_TILES x 16 rows go through the columns in spans of SPAN: A stays in L1 while the tokens pass, a span of all tokens in L2 while the rows
 * pass; sums wait in scratch from span to span, as float32. */
#include <string.h>

#include "tensor/cpu/linear_amx.h"

#define INLINE static inline __attribute__((always_inline))

enum {
    SPAN = 512,
    GROUPS = SPAN / 32,                            /* of a span at most */
    ROW_BYTES = SPAN + 64,                         /* of scratch: rows start in different cache sets */
    ROW_TILES = 8,
};

static size_t x_bytes(const weight *w, int64_t n) { return linear_int_avx512vnni.x_bytes(w, n); }
static void pack(const weight *w, void *packed, int64_t n, int64_t t, const float *x) { linear_int_avx512vnni.pack(w, packed, n, t, x); }

static size_t scratch_bytes(const weight *w, int64_t n)
{
    if (n == 1) return linear_int_avx512vnni.scratch(w, n);
    return TILE * ROW_BYTES + (size_t)ROW_TILES * (size_t)((min64(n, LINEAR_TOKENS) + TILE - 1) / TILE) * TILE_BYTES;
}

typedef struct rows16 {                            /* one span of 16 rows */
    const char *codes;                             /* bytes, rows `stride` apart, columns in the order of the packed activations */
    size_t stride;
    float scales[GROUPS][TILE], biases[GROUPS][TILE];
} rows16;

/* 4 bits: a word of eight codes becomes its four even, then its four odd columns. Whole stores: tiles are loaded from here at once, and masked stores
 * do not forward to loads (six times slower for few tokens). */
static void spread(const uint8_t *in, int64_t words, char *out)
{
    const __m512i mask = _mm512_set1_epi8(15);
    const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23), second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
    for (int64_t i = 0; i < words; i += 16) {
        int64_t left = words - i;
        __m512i w = left >= 16 ? _mm512_loadu_si512(in + 4 * i) : _mm512_maskz_loadu_epi32((__mmask16)((1u << left) - 1), in + 4 * i);
        __m512i even = _mm512_and_si512(w, mask), odd = _mm512_and_si512(_mm512_srli_epi32(w, 4), mask);
        _mm512_storeu_si512(out + 8 * i, _mm512_permutex2var_epi32(even, first, odd));           /* a row of scratch has room for whole vectors */
        _mm512_storeu_si512(out + 8 * i + 64, _mm512_permutex2var_epi32(even, second, odd));
    }
}

static void load_scales(const weight *w, const void *from, int64_t o, int64_t rows, int64_t g, int64_t count, float out[GROUPS][TILE])
{
    __m512i v[TILE];
    const __mmask16 mask = (__mmask16)((1u << count) - 1);
    for (int64_t r = 0; r < TILE; r++)             /* rows that are not there: the last one again, they are not stored */
        v[r] = _mm512_castps_si512(scales_avx512(from, w->scale_type, (o + min64(r, rows - 1)) * (w->cols / w->group) + g, mask));
    transpose_avx512(v);
    for (int i = 0; i < GROUPS; i++) _mm512_storeu_si512(out[i], v[i]);
}

/* Columns [k, k + cols) of rows o ... */
static void load_rows(const weight *w, int64_t o, int64_t rows, int64_t k, int64_t cols, char *scratch, rows16 *a)
{
    const size_t row_bytes = weight_row_bytes(w);
    const char *data = (const char *)w->data + (size_t)o * row_bytes + (size_t)(k * w->bits / 8);
    load_scales(w, w->scales, o, rows, k / w->group, cols / w->group, a->scales);
    load_scales(w, w->biases, o, rows, k / w->group, cols / w->group, a->biases);
    a->codes = data;
    a->stride = row_bytes;
    if (w->bits == 8 && rows == TILE) return;
    a->codes = scratch;
    a->stride = ROW_BYTES;
    for (int64_t r = 0; r < rows; r++) {
        if (w->bits == 4) spread((const uint8_t *)data + (size_t)r * row_bytes, cols / 8, scratch + r * ROW_BYTES);
        else memcpy(scratch + r * ROW_BYTES, data + (size_t)r * row_bytes, (size_t)cols);
    }
    if (rows < TILE) memset(scratch + rows * ROW_BYTES, 0, (size_t)((TILE - rows) * ROW_BYTES));
}

/* Adds a group, whose products lie in c, to the sums. */
INLINE void add_group(__m512 sums[TILE], const int32_t *c, const float *scale, const float *bias, const float *x_scales)
{
    const __m512 x_scale = _mm512_loadu_ps(x_scales), x_sum = _mm512_loadu_ps(x_scales + TILE);
#pragma GCC unroll 16
    for (int r = 0; r < TILE; r++) {
        __m512 products = _mm512_cvtepi32_ps(_mm512_load_si512(c + TILE * r));
        __m512 part = _mm512_fmadd_ps(products, _mm512_set1_ps(scale[r]), _mm512_mul_ps(_mm512_set1_ps(bias[r]), x_sum));
        sums[r] = _mm512_fmadd_ps(part, x_scale, sums[r]);
    }
}

/* Tiles are named by constants, hence a macro: products of group g by C tile c. */
#define MULTIPLY_GROUP(c, out, g)                                                   \
    do {                                                                            \
        _tile_zero(c);                                                              \
        for (int64_t k = (g) * w->group; k < ((g) + 1) * w->group; k += depth) {    \
            _tile_loadd(4, a->codes + k, a->stride);                                \
            _tile_loadd(6, x + k * width, (size_t)(4 * width));                     \
            _tile_dpbusd(c, 4, 6);                                                  \
        }                                                                           \
        _tile_stored(c, out, 64);                                                   \
    } while (0)

/* One span: 16 rows x 16 tokens; sums [row][token]. */
static void multiply(const weight *w, const rows16 *a, int64_t groups, const char *x, int64_t width, const float *x_scales, float *out, bool first)
{
    const int64_t depth = min64(w->group, 64);
    int32_t c[2][TILE * TILE] __attribute__((aligned(64)));
    __m512 sums[TILE];
#pragma GCC unroll 16
    for (int r = 0; r < TILE; r++) sums[r] = first ? _mm512_setzero_ps() : _mm512_loadu_ps(out + TILE * r);
    MULTIPLY_GROUP(0, c[0], 0);
    for (int64_t g = 0; g < groups; g += 2, x_scales += 4 * TILE) {
        if (g + 1 < groups) MULTIPLY_GROUP(1, c[1], g + 1);
        add_group(sums, c[0], a->scales[g], a->biases[g], x_scales);
        if (g + 1 == groups) break;
        if (g + 2 < groups) MULTIPLY_GROUP(0, c[0], g + 2);
        add_group(sums, c[1], a->scales[g + 1], a->biases[g + 1], x_scales + 2 * TILE);
    }
#pragma GCC unroll 16
    for (int r = 0; r < TILE; r++) _mm512_storeu_ps(out + TILE * r, sums[r]);
}

/* ROW_TILES tiles of rows at most. */
static void row_tiles(const linear_product *p, int64_t o0, int64_t o1, int64_t t0, int64_t t1, char *scratch)
{
    const weight *w = &p->w;
    const size_t token_bytes = (size_t)w->cols + (size_t)(w->cols / w->group) * 2 * sizeof(float);      /* as linear_int.h packs */
    float *sums = (float *)(scratch + TILE * ROW_BYTES);
    for (int64_t k = 0; k < w->cols; k += SPAN) {
        int64_t cols = min64(SPAN, w->cols - k), tile = 0;
        for (int64_t o = o0; o < o1; o += TILE) {
            rows16 a;
            int64_t rows = min64(TILE, o1 - o);
            load_rows(w, o, rows, k, cols, scratch, &a);
            for (int64_t t = t0; t < t1; t += TILE, tile++) {
                int64_t width = min64(TILE, p->n - t);
                const char *x = (const char *)p->x + (size_t)t * token_bytes;
                const float *x_scales = (const float *)(x + width * w->cols) + k / w->group * 2 * TILE;
                multiply(w, &a, cols / w->group, x + k * width, width, x_scales, sums + tile * TILE * TILE, k == 0);
                if (k + SPAN >= w->cols) amx_store(p, sums + tile * TILE * TILE, o, rows, t, width);
            }
        }
    }
}

static void block(const linear_product *p, int64_t o0, int64_t o1, int64_t t0, int64_t t1, void *scratch)
{
    if (p->n == 1) {
        linear_int_avx512vnni.block(p, o0, o1, t0, t1, scratch);
        return;
    }
    amx_configure((int)min64(p->w.group, 64));
    for (int64_t o = o0; o < o1; o += ROW_TILES * TILE) row_tiles(p, o, min64(o + ROW_TILES * TILE, o1), t0, t1, scratch);
    _tile_release();
}

const linear_path linear_int_amx = {.name = "int8 amx", .x_bytes = x_bytes, .pack = pack, .scratch = scratch_bytes, .block = block,
                                    .unit = 4 * TILE};
