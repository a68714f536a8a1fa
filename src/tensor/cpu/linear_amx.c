/* linear_amx.c - matrix products with bf16 AMX tiles, weights in bf16 as the file has them. Up to a tile of tokens (decode) here; more in linear_gemm_amx.c, with
 * the same bits: an output's sum takes the columns in the same pairs, whichever operand is which.
 *
 *   A  16 rows of the weight, 32 columns of bf16: read from the file as they lie, row stride apart (the last rows and columns from scratch, filled up
 *      with zeros)
 *   B  activations of up to 16 tokens: 16 pairs of columns x tokens x 2, packed so: [column block][plane][pair][token][2]
 *   C  16 outputs x 16 tokens of float32, summed over all columns in order; transposed into y at the end
 *
 * Fast: activations rounded to bf16. Exact (bf16 weights): activations are cut into three planes of
 * bf16, x = p0 + p1 + p2 to the last bit of float32, and the three products are added in C: still ten times the speed of float32 vectors.
 * One token alone takes the same instructions, so that it gets the same bits; the tiles are far faster than memory. */
#include <string.h>

#include "tensor/cpu/linear_amx.h"

#define INLINE static inline __attribute__((always_inline))

enum { DEPTH = 32 };

static int64_t blocks(int64_t n, int64_t size) { return (n + size - 1) / size; }

/* ---- activations of at most 16 tokens: tiles as narrow as there are tokens ---- */

INLINE size_t x_bytes(const weight *w, int64_t n, const int planes)
{
    return n > TILE ? amx_gemm_x_bytes(w, n, planes) : (size_t)(blocks(w->cols, DEPTH) * planes) * TILE_BYTES + 64;
}

static __m512 as_float(__m256i half) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16)); }

INLINE void pack(const weight *w, void *packed, int64_t n, int64_t t, const float *x, const int planes)
{
    if (n > TILE) {
        amx_gemm_pack(w, packed, t, x, planes);
        return;
    }
    int64_t depth = blocks(w->cols, DEPTH);
    for (int64_t c = 0; c < depth * DEPTH; c += 16) {
        __mmask16 mask = w->cols - c >= 16 ? 0xffff : w->cols > c ? (__mmask16)((1u << (w->cols - c)) - 1) : 0;
        __m512 rest = _mm512_maskz_loadu_ps(mask, x + c);
        char *out = (char *)packed + 4 * t + (c / DEPTH * planes * 64 + c % DEPTH / 2 * 4) * n;
        for (int plane = 0; plane < planes; plane++, out += 64 * n) {
            __m256i half = (__m256i)_mm512_cvtneps_pbh(rest);
            uint32_t pairs[8];
            _mm256_storeu_si256((void *)pairs, half);
            for (int i = 0; i < 8; i++) memcpy(out + 4 * n * i, &pairs[i], 4);
            rest = _mm512_sub_ps(rest, as_float(half));
        }
    }
}

static size_t fast_bytes(const weight *w, int64_t n) { return x_bytes(w, n, 1); }
static size_t exact_bytes(const weight *w, int64_t n) { return x_bytes(w, n, 3); }
static void pack_fast(const weight *w, void *packed, int64_t n, int64_t t, const float *x) { pack(w, packed, n, t, x, 1); }
static void pack_exact(const weight *w, void *packed, int64_t n, int64_t t, const float *x) { pack(w, packed, n, t, x, 3); }

/* ---- C tiles 0, 1 = A tiles 4, 5 times B tile 6 ---- */

typedef struct panel {                             /* 16 rows of the weight */
    const char *data;
    size_t stride;
    const char *last;                              /* the last column block when it is not whole, rows 64 bytes apart; NULL: in data */
} panel;

static size_t panel_bytes(const weight *w) { return (size_t)blocks(w->cols, DEPTH) * TILE_BYTES; }

static panel file_panel(const weight *w, int64_t o, int64_t rows, char *scratch)
{
    size_t stride = (size_t)w->cols * 2, padded = (size_t)blocks(w->cols, DEPTH) * 64;
    const char *data = (const char *)w->data + (size_t)o * stride;
    if (rows == TILE && stride % 64 == 0) return (panel){data, stride, NULL};
    if (rows == TILE) {
        memset(scratch, 0, TILE_BYTES);
        for (int r = 0; r < TILE; r++) memcpy(scratch + r * 64, data + (size_t)r * stride + stride / 64 * 64, stride % 64);
        return (panel){data, stride, scratch};
    }
    memset(scratch, 0, TILE * padded);
    for (int64_t r = 0; r < rows; r++) memcpy(scratch + (size_t)r * padded, data + (size_t)r * stride, stride);
    return (panel){scratch, padded, NULL};
}

INLINE void multiply(const panel *a, const char *b, size_t b_stride, int64_t depth, const bool two_a, const int planes)
{
    _tile_zero(0);
    _tile_zero(1);
    for (int64_t k = 0; k < depth; k++) {
        bool last = k == depth - 1;
        for (int i = 0; i < (two_a ? 2 : 1); i++)  /* the rows of the next panels, to L2 */
            for (int r = 0; r < TILE; r++) __builtin_prefetch(a[i].data + (size_t)(2 * TILE + r) * a[i].stride + k * 64, 0, 2);
        if (last && a[0].last) _tile_loadd(4, a[0].last, 64);
        else _tile_loadd(4, a[0].data + k * 64, a[0].stride);
        if (two_a && last && a[1].last) _tile_loadd(5, a[1].last, 64);
        else if (two_a) _tile_loadd(5, a[1].data + k * 64, a[1].stride);
#pragma GCC unroll 3
        for (int plane = 0; plane < planes; plane++, b += TILE * b_stride) {
            _tile_loadd(6, b, b_stride);
            _tile_dpbf16ps(0, 4, 6);
            if (two_a) _tile_dpbf16ps(1, 5, 6);
        }
    }
}

INLINE void few_tokens(const linear_product *p, int64_t o0, int64_t o1, char *scratch, const int planes)
{
    float c[TILE * TILE] __attribute__((aligned(64)));
    const int64_t depth = blocks(p->w.cols, DEPTH);
    const size_t stride = (size_t)p->n * 4;
    amx_configure(64);
    for (int64_t o = o0; o < o1; o += 2 * TILE) {
        int64_t rows0 = min64(TILE, o1 - o), rows1 = min64(TILE, o1 - o - TILE);
        panel a[2] = {file_panel(&p->w, o, rows0, scratch), {0}};
        if (rows1 > 0) {
            a[1] = file_panel(&p->w, o + TILE, rows1, scratch + panel_bytes(&p->w));
            multiply(a, p->x, stride, depth, true, planes);
        } else {
            multiply(a, p->x, stride, depth, false, planes);
        }
        _tile_stored(0, c, 64);
        amx_store(p, c, o, rows0, 0, p->n);
        if (rows1 <= 0) continue;
        _tile_stored(1, c, 64);
        amx_store(p, c, o + TILE, rows1, 0, p->n);
    }
    _tile_release();
}

static size_t scratch_bytes(const weight *w, int64_t n) { return n > TILE ? amx_gemm_scratch(w, n) : 2 * panel_bytes(w); }

static void block_fast(const linear_product *p, int64_t o0, int64_t o1, int64_t t0, int64_t t1, void *scratch)
{
    if (p->n > TILE) amx_gemm(p, o0, o1, t0, t1, scratch, 1);
    else few_tokens(p, o0, o1, scratch, 1);
}
static void block_exact(const linear_product *p, int64_t o0, int64_t o1, int64_t t0, int64_t t1, void *scratch)
{
    if (p->n > TILE) amx_gemm(p, o0, o1, t0, t1, scratch, 3);
    else few_tokens(p, o0, o1, scratch, 3);
}

static const linear_path fast = {.name = "bf16 amx", .x_bytes = fast_bytes, .pack = pack_fast, .scratch = scratch_bytes, .block = block_fast,
                                 .unit = 2 * TILE, .glu = true, .wide = AMX_WIDE};
static const linear_path exact = {.name = "3 x bf16 amx", .x_bytes = exact_bytes, .pack = pack_exact, .scratch = scratch_bytes,
                                  .block = block_exact, .unit = 2 * TILE, .wide = AMX_WIDE};

void linear_init_amx(linear_table *t)
{
    t->exact[WF_BF16] = &exact;
    t->fast[WF_BF16] = &fast;
    t->fast_affine4 = t->fast_affine8 = &linear_int_amx;
    t->prompt_affine = &linear_affine_amx;
}
