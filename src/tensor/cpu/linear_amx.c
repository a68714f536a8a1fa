/* linear_amx.c - matrix products with bf16 AMX tiles: 16 outputs x 16 tokens x 32 columns of bf16 an instruction.
 *
 *   A  16 rows of the weight, 32 columns of bf16: read from the file as they lie, row stride apart (the last rows and columns from scratch, filled up
 *      with zeros)
 *   B  activations of 16 tokens: 16 pairs of columns x 16 tokens x 2, packed so: [token block][column block][plane][pair][token][2]
 *   C  16 outputs x 16 tokens of float32, summed over all columns in order; transposed into y at the end
 *
 * Two A and two B tiles make four C tiles. Fast: activations rounded to bf16. Exact (bf16 weights): activations are cut into three planes of
 * bf16, x = p0 + p1 + p2 to the last bit of float32, and the three products are added in C: still ten times the speed of float32 vectors.
 * One token alone takes the same instructions, so that it gets the same bits; the tiles are far faster than memory. */
#include <string.h>

#include "tensor/cpu/linear_amx.h"

#define INLINE static inline __attribute__((always_inline))

enum { DEPTH = 32 };

static int64_t blocks(int64_t n, int64_t size) { return (n + size - 1) / size; }

/* ---- activations ---- */

static size_t fast_bytes(const weight *w, int64_t n) { return (size_t)(blocks(n, TILE) * blocks(w->cols, DEPTH)) * TILE_BYTES; }
static size_t exact_bytes(const weight *w, int64_t n) { return 3 * fast_bytes(w, n); }

static __m512 as_float(__m256i half) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16)); }

INLINE void pack(const weight *w, void *packed, int64_t t, const float *x, const int planes)
{
    int64_t depth = blocks(w->cols, DEPTH);
    char *block = (char *)packed + (size_t)(t / TILE * depth * planes) * TILE_BYTES + (size_t)(t % TILE) * 4;
    for (int64_t c = 0; c < depth * DEPTH; c += 16) {
        __mmask16 mask = w->cols - c >= 16 ? 0xffff : w->cols > c ? (__mmask16)((1u << (w->cols - c)) - 1) : 0;
        __m512 rest = _mm512_maskz_loadu_ps(mask, x + c);
        char *out = block + (size_t)(c / DEPTH * planes) * TILE_BYTES + (size_t)(c % DEPTH / 2) * 64;
        for (int plane = 0; plane < planes; plane++, out += TILE_BYTES) {
            __m256i half = (__m256i)_mm512_cvtneps_pbh(rest);
            uint32_t pairs[8];
            _mm256_storeu_si256((void *)pairs, half);
            for (int i = 0; i < 8; i++) memcpy(out + 64 * i, &pairs[i], 4);
            rest = _mm512_sub_ps(rest, as_float(half));
        }
    }
}

static void pack_fast(const weight *w, void *packed, int64_t n, int64_t t, const float *x) { pack(w, packed, t, x, 1); }
static void pack_exact(const weight *w, void *packed, int64_t n, int64_t t, const float *x) { pack(w, packed, t, x, 3); }

/* ---- weights ---- */

typedef struct panel {                             /* 16 rows of the weight */
    const char *data;
    size_t stride;
    const char *last;                              /* the last column block when it is not whole, rows 64 bytes apart; NULL: in data */
} panel;

static size_t panel_bytes(const weight *w) { return (size_t)blocks(w->cols, DEPTH) * TILE_BYTES; }
static size_t amx_scratch(const weight *w, int64_t n) { return 2 * panel_bytes(w); }

static panel bf16_panel(const weight *w, int64_t o, int64_t rows, char *scratch)
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

/* ---- tiles ---- */

/* C tiles 0..3 = (a 0, b 0), (a 0, b 1), (a 1, b 0), (a 1, b 1); A tiles 4, 5; B tiles 6, 7. two_a, two_b: is there a second one. */
INLINE void multiply(const panel *a, const char *b, size_t b_block, int64_t depth, const bool two_a, const bool two_b, const int planes, bool ahead)
{
    _tile_zero(0);
    if (two_b) _tile_zero(1);
    if (two_a) _tile_zero(2);
    if (two_a && two_b) _tile_zero(3);
    for (int64_t k = 0; k < depth; k++) {
        bool last = k == depth - 1;
        if (last && a[0].last) _tile_loadd(4, a[0].last, 64);
        else _tile_loadd(4, a[0].data + k * 64, a[0].stride);
        if (two_a && last && a[1].last) _tile_loadd(5, a[1].last, 64);
        else if (two_a) _tile_loadd(5, a[1].data + k * 64, a[1].stride);
        if (ahead) {                               /* the rows of the next panels */
            for (int r = 0; r < TILE; r++) __builtin_prefetch(a[0].data + (two_a ? 2 * TILE + r : TILE + r) * a[0].stride + k * 64, 0, 2);
            if (two_a) for (int r = 0; r < TILE; r++) __builtin_prefetch(a[1].data + (2 * TILE + r) * a[1].stride + k * 64, 0, 2);
        }
#pragma GCC unroll 3
        for (int plane = 0; plane < planes; plane++, b += TILE_BYTES) {
            _tile_loadd(6, b, 64);
            if (two_b) _tile_loadd(7, b + b_block, 64);
            _tile_dpbf16ps(0, 4, 6);
            if (two_b) _tile_dpbf16ps(1, 4, 7);
            if (two_a) _tile_dpbf16ps(2, 5, 6);
            if (two_a && two_b) _tile_dpbf16ps(3, 5, 7);
        }
    }
}

INLINE void amx_block(const linear_product *p, int64_t o0, int64_t o1, int64_t t0, int64_t t1, char *scratch, const int planes)
{
    const weight *w = &p->w;
    int64_t depth = blocks(w->cols, DEPTH);
    size_t b_block = (size_t)(depth * planes) * TILE_BYTES;
    bool ahead = t1 - t0 <= TILE;
    float c[4][TILE * TILE] __attribute__((aligned(64)));
    amx_configure(64);
    for (int64_t o = o0; o < o1; o += 2 * TILE) {
        int64_t rows0 = min64(TILE, o1 - o), rows1 = min64(TILE, o1 - o - TILE);
        panel a[2] = {{0}};
        a[0] = bf16_panel(w, o, rows0, scratch);
        if (rows1 > 0) a[1] = bf16_panel(w, o + TILE, rows1, scratch + panel_bytes(w));
        for (int64_t t = t0; t < t1; t += 2 * TILE) {
            const char *b = (const char *)p->x + (size_t)(t / TILE) * b_block;
            int64_t tokens0 = min64(TILE, t1 - t), tokens1 = min64(TILE, t1 - t - TILE);
            if (rows1 > 0 && tokens1 > 0) multiply(a, b, b_block, depth, true, true, planes, false);
            else if (rows1 > 0) multiply(a, b, b_block, depth, true, false, planes, ahead);
            else if (tokens1 > 0) multiply(a, b, b_block, depth, false, true, planes, false);
            else multiply(a, b, b_block, depth, false, false, planes, ahead);
            _tile_stored(0, c[0], 64);
            amx_store(p, c[0], o, rows0, t, tokens0);
            if (tokens1 > 0) {
                _tile_stored(1, c[1], 64);
                amx_store(p, c[1], o, rows0, t + TILE, tokens1);
            }
            if (rows1 > 0) {
                _tile_stored(2, c[2], 64);
                amx_store(p, c[2], o + TILE, rows1, t, tokens0);
            }
            if (rows1 > 0 && tokens1 > 0) {
                _tile_stored(3, c[3], 64);
                amx_store(p, c[3], o + TILE, rows1, t + TILE, tokens1);
            }
        }
    }
    _tile_release();
}

static void block_fast(const linear_product *p, int64_t o0, int64_t o1, int64_t t0, int64_t t1, void *scratch)
{
    amx_block(p, o0, o1, t0, t1, scratch, 1);
}
static void block_exact(const linear_product *p, int64_t o0, int64_t o1, int64_t t0, int64_t t1, void *scratch)
{
    amx_block(p, o0, o1, t0, t1, scratch, 3);
}

static const linear_path fast = {.name = "bf16 amx", .x_bytes = fast_bytes, .pack = pack_fast, .scratch = amx_scratch, .block = block_fast,
                                 .unit = 2 * TILE};
static const linear_path exact = {.name = "3 x bf16 amx", .x_bytes = exact_bytes, .pack = pack_exact, .scratch = amx_scratch,
                                  .block = block_exact, .unit = 2 * TILE};

void linear_init_amx(linear_table *t)
{
    t->exact[WF_BF16] = &exact;
    t->fast[WF_BF16] = &fast;
    t->fast_affine4 = t->fast_affine8 = &linear_int_amx;
}
