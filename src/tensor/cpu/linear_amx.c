/* linear_amx.c - matrix products with bf16 AMX tiles: 16 outputs x 16 tokens x 32 columns of bf16 an instruction.
 *
 *   A  16 rows of the weight, 32 columns of bf16: read from the file as they lie, row stride apart (the last rows and columns from scratch, filled up
 *      with zeros)
 *   B  activations of 16 tokens: 16 pairs of columns x 16 tokens x 2, packed so: [token block][column block][plane][pair][token][2]
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

/* ---- activations: blocks of 16 tokens; the last may be narrower, its tiles are read with garbage in the columns of no token ---- */

static size_t fast_bytes(const weight *w, int64_t n) { return (size_t)(blocks(n, TILE) * blocks(w->cols, DEPTH)) * TILE_BYTES + 64; }
static size_t exact_bytes(const weight *w, int64_t n) { return 3 * fast_bytes(w, n); }

static __m512 as_float(__m256i half) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16)); }

INLINE void pack(const weight *w, void *packed, int64_t n, int64_t t, const float *x, const int planes)
{
    int64_t depth = blocks(w->cols, DEPTH), width = min64(TILE, n - t / TILE * TILE);
    char *block = (char *)packed + (size_t)(t / TILE * depth * planes) * TILE_BYTES + (size_t)(t % TILE) * 4;
    for (int64_t c = 0; c < depth * DEPTH; c += 16) {
        __mmask16 mask = w->cols - c >= 16 ? 0xffff : w->cols > c ? (__mmask16)((1u << (w->cols - c)) - 1) : 0;
        __m512 rest = _mm512_maskz_loadu_ps(mask, x + c);
        char *out = block + (c / DEPTH * planes * 64 + c % DEPTH / 2 * 4) * width;
        for (int plane = 0; plane < planes; plane++, out += 64 * width) {
            __m256i half = (__m256i)_mm512_cvtneps_pbh(rest);
            uint32_t pairs[8];
            _mm256_storeu_si256((void *)pairs, half);
            for (int i = 0; i < 8; i++) memcpy(out + 4 * width * i, &pairs[i], 4);
            rest = _mm512_sub_ps(rest, as_float(half));
        }
    }
}

static void pack_fast(const weight *w, void *packed, int64_t n, int64_t t, const float *x) { pack(w, packed, n, t, x, 1); }
static void pack_exact(const weight *w, void *packed, int64_t n, int64_t t, const float *x) { pack(w, packed, n, t, x, 3); }

typedef struct b_tiles {                           /* 16 tokens: tile after tile of `width` words a row */
    const char *data;
    int64_t width;
} b_tiles;

static b_tiles b_block(const linear_product *p, int64_t t, int planes)
{
    size_t bytes = (size_t)(blocks(p->w.cols, DEPTH) * planes) * TILE_BYTES;
    return (b_tiles){(const char *)p->x + (size_t)(t / TILE) * bytes, min64(TILE, p->n - t)};
}

/* ---- few tokens: weights from the file; C tiles 0, 1 = A tiles 4, 5 times B tile 6 ---- */

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

INLINE void multiply_few(const panel *a, b_tiles b, int64_t depth, const bool two_a, const int planes)
{
    const size_t b_stride = (size_t)b.width * 4;
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
        for (int plane = 0; plane < planes; plane++, b.data += 64 * b.width) {
            _tile_loadd(6, b.data, b_stride);
            _tile_dpbf16ps(0, 4, 6);
            if (two_a) _tile_dpbf16ps(1, 5, 6);
        }
    }
}

INLINE void few_tokens(const linear_product *p, int64_t o0, int64_t o1, int64_t t, char *scratch, const int planes)
{
    float c[TILE * TILE] __attribute__((aligned(64)));
    int64_t depth = blocks(p->w.cols, DEPTH);
    b_tiles b = b_block(p, t, planes);
    for (int64_t o = o0; o < o1; o += 2 * TILE) {
        int64_t rows0 = min64(TILE, o1 - o), rows1 = min64(TILE, o1 - o - TILE);
        panel a[2] = {file_panel(&p->w, o, rows0, scratch), {0}};
        if (rows1 > 0) {
            a[1] = file_panel(&p->w, o + TILE, rows1, scratch + panel_bytes(&p->w));
            multiply_few(a, b, depth, true, planes);
        } else {
            multiply_few(a, b, depth, false, planes);
        }
        _tile_stored(0, c, 64);
        amx_store(p, c, o, rows0, t, b.width);
        if (rows1 <= 0) continue;
        _tile_stored(1, c, 64);
        amx_store(p, c, o + TILE, rows1, t, b.width);
    }
}

/* ---- many tokens: 32 rows of the weight are packed as tiles; SPAN columns of them stay in L1 while all tokens pass, and the sums go to memory
 * between spans, as float32: the same numbers. C tiles 0..3 = A 4, 5 times B 6, 7 ---- */

enum { SPAN = 8 };                                 /* in blocks of DEPTH columns: 16 KiB of weights, as much of two blocks of tokens */

static size_t amx_scratch(const weight *w, int64_t n)
{
    return 2 * panel_bytes(w) + (n > TILE ? (size_t)blocks(min64(n, LINEAR_TOKENS), 2 * TILE) * 4 * TILE_BYTES : 0);
}

/* [column block][two panels][row][32 columns]; what is not there is zero. */
static void pack_rows(const weight *w, int64_t o, int64_t rows, char *out)
{
    size_t stride = (size_t)w->cols * 2;
    for (int64_t r = 0; r < 2 * TILE; r++) {
        const uint16_t *in = (const uint16_t *)((const char *)w->data + (size_t)(o + r) * stride);
        char *to = out + r / TILE * TILE_BYTES + r % TILE * 64;
        for (int64_t c = 0; c < w->cols; c += DEPTH, to += 2 * TILE_BYTES) {
            __mmask32 mask = r >= rows ? 0 : w->cols - c >= DEPTH ? 0xffffffff : (__mmask32)((1u << (w->cols - c)) - 1);
            _mm512_store_si512((void *)to, _mm512_maskz_loadu_epi16(mask, in + (r < rows ? c : 0)));
        }
    }
}

INLINE void multiply_span(const char *a, b_tiles b0, b_tiles b1, int64_t count, char *c, bool first, const bool two_b, const int planes)
{
    if (first) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    } else {
        _tile_loadd(0, c, 64);
        _tile_loadd(1, c + TILE_BYTES, 64);
        _tile_loadd(2, c + 2 * TILE_BYTES, 64);
        _tile_loadd(3, c + 3 * TILE_BYTES, 64);
    }
    const size_t stride0 = (size_t)b0.width * 4, stride1 = (size_t)b1.width * 4;
    for (int64_t k = 0; k < count; k++, a += 2 * TILE_BYTES) {
        _tile_loadd(4, a, 64);
        _tile_loadd(5, a + TILE_BYTES, 64);
#pragma GCC unroll 3
        for (int plane = 0; plane < planes; plane++, b0.data += 16 * stride0, b1.data += 16 * stride1) {
            _tile_loadd(6, b0.data, stride0);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(2, 5, 6);
            if (!two_b) continue;
            _tile_loadd(7, b1.data, stride1);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, c, 64);
    _tile_stored(1, c + TILE_BYTES, 64);
    _tile_stored(2, c + 2 * TILE_BYTES, 64);
    _tile_stored(3, c + 3 * TILE_BYTES, 64);
}

INLINE void many_tokens(const linear_product *p, int64_t o0, int64_t o1, int64_t t0, int64_t t1, char *scratch, const int planes)
{
    int64_t depth = blocks(p->w.cols, DEPTH);
    char *sums = scratch + 2 * panel_bytes(&p->w);
    for (int64_t o = o0; o < o1; o += 2 * TILE) {
        int64_t rows0 = min64(TILE, o1 - o), rows1 = min64(TILE, o1 - o - TILE);
        pack_rows(&p->w, o, min64(2 * TILE, o1 - o), scratch);
        for (int64_t k = 0; k < depth; k += SPAN) {
            char *c = sums;
            for (int64_t t = t0; t < t1; t += 2 * TILE, c += 4 * TILE_BYTES) {
                bool two = t + TILE < t1;
                b_tiles b0 = b_block(p, t, planes), b1 = two ? b_block(p, t + TILE, planes) : b0;
                b0.data += k * planes * 64 * b0.width;
                b1.data += k * planes * 64 * b1.width;
                int64_t count = min64(SPAN, depth - k);
                if (k + SPAN >= depth)             /* where the sums go */
                    for (int64_t i = t; i < min64(t + 2 * TILE, t1); i++) {
                        __builtin_prefetch(p->y + i * p->y_stride + o, 1);
                        __builtin_prefetch(p->y + i * p->y_stride + o + TILE, 1);
                    }
                if (two) multiply_span(scratch + k * 2 * TILE_BYTES, b0, b1, count, c, k == 0, true, planes);
                else multiply_span(scratch + k * 2 * TILE_BYTES, b0, b1, count, c, k == 0, false, planes);
                for (int i = 0; k + SPAN >= depth && i < 4; i++) {           /* C tile i: panel i / 2, token block i % 2 */
                    int64_t rows = i < 2 ? rows0 : rows1, first = t + i % 2 * TILE;
                    if (rows > 0 && first < t1) amx_store(p, (const float *)(c + i * TILE_BYTES), o + i / 2 * TILE, rows, first, min64(TILE, t1 - first));
                }
            }
        }
    }
}

INLINE void amx_block(const linear_product *p, int64_t o0, int64_t o1, int64_t t0, int64_t t1, char *scratch, const int planes)
{
    amx_configure(64);
    if (t1 - t0 <= TILE) few_tokens(p, o0, o1, t0, scratch, planes);
    else many_tokens(p, o0, o1, t0, t1, scratch, planes);
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
