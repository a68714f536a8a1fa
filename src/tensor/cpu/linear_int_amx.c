/* linear_int_amx.c - affine weights of 4 and 8 bits with AMX int8 tiles, for more than one token; the same numbers as linear_avx512vnni.c (whose packing
 * it uses, and which does single tokens): the products of a group are exact in int32 either way, and groups are added in the same order.
 *
 *   A  codes of 16 rows, a group deep (64 columns at most): 8 bits as they lie in the file, 4 bits spread to bytes in scratch
 *   B  16 tokens as packed: [4 columns][token][4]
 *   C  int32 of one group: stored, scaled and added to 16 vectors of float32 sums (lanes are tokens) while the tiles do the next group */
#include <string.h>

#include "tensor/cpu/linear_amx.h"

#define INLINE static inline __attribute__((always_inline))

static int64_t padded_groups(const weight *w) { return (w->cols / w->group + 15) / 16 * 16; }
static size_t x_bytes(const weight *w, int64_t n) { return linear_int_avx512vnni.x_bytes(w, n); }
static void pack(const weight *w, void *packed, int64_t n, int64_t t, const float *x) { linear_int_avx512vnni.pack(w, packed, n, t, x); }

static size_t scratch_bytes(const weight *w, int64_t n)
{
    if (n == 1) return linear_int_avx512vnni.scratch(w, n);
    return TILE * (size_t)w->cols + 2 * TILE * (size_t)padded_groups(w) * sizeof(float);
}

typedef struct rows16 {
    const char *codes;                             /* bytes, rows `stride` apart, columns in the order of the packed activations */
    size_t stride;
    float *scales, *biases;                        /* [16][padded groups] */
} rows16;

/* 4 bits: a word of eight codes becomes its four even, then its four odd columns. */
static void spread(const uint8_t *in, int64_t words, char *out)
{
    const __m512i mask = _mm512_set1_epi8(15);
    const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23), second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
    for (int64_t i = 0; i < words; i += 16) {
        int64_t left = words - i;
        __m512i w = _mm512_maskz_loadu_epi32((__mmask16)(left >= 16 ? 0xffff : (1u << left) - 1), in + 4 * i);
        __m512i even = _mm512_and_si512(w, mask), odd = _mm512_and_si512(_mm512_srli_epi32(w, 4), mask);
        _mm512_mask_storeu_epi32(out + 8 * i, (__mmask16)(left >= 8 ? 0xffff : (1u << 2 * left) - 1), _mm512_permutex2var_epi32(even, first, odd));
        if (left > 8)
            _mm512_mask_storeu_epi32(out + 8 * i + 64, (__mmask16)(left >= 16 ? 0xffff : (1u << 2 * (left - 8)) - 1),
                                     _mm512_permutex2var_epi32(even, second, odd));
    }
}

static void widen_scales(const weight *w, const void *from, int64_t row, float *out)
{
    int64_t groups = w->cols / w->group;
    for (int64_t g = 0; g < groups; g += 16) {
        __mmask16 mask = groups - g >= 16 ? 0xffff : (__mmask16)((1u << (groups - g)) - 1);
        _mm512_storeu_ps(out + g, scales_avx512(from, w->scale_type, row * groups + g, mask));
    }
}

static rows16 load_rows(const weight *w, int64_t o, int64_t rows, char *scratch)
{
    size_t row_bytes = weight_row_bytes(w);
    const char *data = (const char *)w->data + (size_t)o * row_bytes;
    int64_t padded = padded_groups(w);
    rows16 a = {scratch, (size_t)w->cols, (float *)(scratch + TILE * w->cols), NULL};
    a.biases = a.scales + TILE * padded;
    for (int64_t r = 0; r < rows; r++) {
        widen_scales(w, w->scales, o + r, a.scales + r * padded);
        widen_scales(w, w->biases, o + r, a.biases + r * padded);
        char *out = scratch + r * w->cols;
        if (w->bits == 4) spread((const uint8_t *)data + (size_t)r * row_bytes, w->cols / 8, out);
        else if (rows < TILE) memcpy(out, data + (size_t)r * row_bytes, row_bytes);
    }
    if (w->bits == 8 && rows == TILE) a.codes = data;
    if (rows < TILE) {                             /* rows that are not there: any finite numbers, they are not stored */
        memset(scratch + rows * w->cols, 0, (size_t)((TILE - rows) * w->cols));
        memset(a.scales + rows * padded, 0, (size_t)((TILE - rows) * padded) * sizeof(float));
        memset(a.biases + rows * padded, 0, (size_t)((TILE - rows) * padded) * sizeof(float));
    }
    return a;
}

/* Adds group g, whose products lie in c, to the sums. */
INLINE void add_group(__m512 sums[TILE], const int32_t *c, const rows16 *a, int64_t padded, int64_t g, const float *scales)
{
    const __m512 scale = _mm512_loadu_ps(scales), sum = _mm512_loadu_ps(scales + TILE);
#pragma GCC unroll 16
    for (int r = 0; r < TILE; r++) {
        __m512 products = _mm512_cvtepi32_ps(_mm512_load_si512(c + TILE * r));
        __m512 part = _mm512_fmadd_ps(products, _mm512_set1_ps(a->scales[r * padded + g]), _mm512_mul_ps(_mm512_set1_ps(a->biases[r * padded + g]), sum));
        sums[r] = _mm512_fmadd_ps(part, scale, sums[r]);
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

static void multiply(const weight *w, const rows16 *a, const char *x, int64_t width, const float *scales, float *out)
{
    const int64_t groups = w->cols / w->group, depth = min64(w->group, 64), padded = padded_groups(w);
    int32_t c[2][TILE * TILE] __attribute__((aligned(64)));
    __m512 sums[TILE];
#pragma GCC unroll 16
    for (int r = 0; r < TILE; r++) sums[r] = _mm512_setzero_ps();
    MULTIPLY_GROUP(0, c[0], 0);
    for (int64_t g = 0; g < groups; g += 2, scales += 4 * TILE) {
        if (g + 1 < groups) MULTIPLY_GROUP(1, c[1], g + 1);
        add_group(sums, c[0], a, padded, g, scales);
        if (g + 1 == groups) break;
        if (g + 2 < groups) MULTIPLY_GROUP(0, c[0], g + 2);
        add_group(sums, c[1], a, padded, g + 1, scales + 2 * TILE);
    }
#pragma GCC unroll 16
    for (int r = 0; r < TILE; r++) _mm512_storeu_ps(out + TILE * r, sums[r]);
}

static void block(const linear_product *p, int64_t o0, int64_t o1, int64_t t0, int64_t t1, void *scratch)
{
    const weight *w = &p->w;
    if (p->n == 1) {
        linear_int_avx512vnni.block(p, o0, o1, t0, t1, scratch);
        return;
    }
    const size_t token_bytes = (size_t)w->cols + (size_t)(w->cols / w->group) * 2 * sizeof(float);      /* as linear_int.h packs */
    float sums[TILE * TILE] __attribute__((aligned(64)));
    amx_configure((int)min64(w->group, 64));
    for (int64_t o = o0; o < o1; o += TILE) {
        int64_t rows = min64(TILE, o1 - o);
        rows16 a = load_rows(w, o, rows, scratch);
        for (int64_t t = t0; t < t1; t += TILE) {
            int64_t width = min64(TILE, p->n - t);
            const char *x = (const char *)p->x + (size_t)t * token_bytes;
            multiply(w, &a, x, width, (const float *)(x + width * w->cols), sums);
            amx_store(p, sums, o, rows, t, width);
        }
    }
    _tile_release();
}

const linear_path linear_int_amx = {.name = "int8 amx", .x_bytes = x_bytes, .pack = pack, .scratch = scratch_bytes, .block = block, .unit = TILE};
