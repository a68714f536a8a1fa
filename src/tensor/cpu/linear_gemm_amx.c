/* linear_gemm_amx.c - many tokens times a matrix, with bf16 AMX tiles: 16 tokens x 16 rows of the weight x 32 columns an instruction.
 *
 *   A  activations as bf16, 16 tokens x 32 columns; packed so: [block of 16 tokens][block of 32 columns][plane][token][32]
 *   B  16 rows of the weight: [16 pairs of columns][row][2], made from what is stored: rows of bf16 are turned, codes of 4 and 8 bits (panels of linear_int.h) widened,
 *      code * scale + bias rounded to bf16. Once for all tokens of a block
 *   C  16 tokens x 16 rows of float32, as y has them
 *
 * Four C tiles at a time (32 tokens x 32 rows: a unit) meet two A and two B tiles for each block of columns. Columns go in spans of SPAN blocks: the B tiles of
 * a span (32 KiB) stay in L1 while all tokens pass (A tiles are loaded as a stream, so that they do not push them out), the tokens of a span and the sums of MOST
 * units of rows in L2. Sums wait there from span to span as float32: the same numbers as if they had stayed in tiles, so the order of a sum is that of the
 * columns, whatever the block is. */
#include <string.h>

#include "tensor/cpu/linear_amx.h"

#define INLINE static inline __attribute__((always_inline))

enum {
    DEPTH = 32,                                    /* columns of a tile */
    SPAN = 16,                                     /* blocks of columns of a span */
    UNIT = 2 * TILE,                               /* tokens, and rows, of four C tiles */
    UNIT_BYTES = 4 * TILE_BYTES,
    MOST = AMX_WIDE / UNIT,                        /* units side by side in a block */
};

static int64_t blocks(int64_t n, int64_t size) { return (n + size - 1) / size; }

/* ---- activations ---- */

size_t amx_gemm_x_bytes(const weight *w, int64_t n, int planes) { return (size_t)(blocks(n, TILE) * blocks(w->cols, DEPTH) * planes) * TILE_BYTES; }

static __m512 as_float(__m256i half) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16)); }

/* planes 3: x = p0 + p1 + p2 to the last bit of float32. */
INLINE void pack(const weight *w, char *packed, int64_t t, const float *x, const int planes)
{
    int64_t depth = blocks(w->cols, DEPTH);
    char *out = packed + (size_t)(t / TILE * depth * planes) * TILE_BYTES + (size_t)(t % TILE) * 64;
    for (int64_t c = 0; c < w->cols; c += DEPTH) {
        int64_t left = w->cols - c;
        __mmask16 first = left >= 16 ? 0xffff : (__mmask16)((1u << left) - 1), second = left >= 32 ? 0xffff : left > 16 ? (__mmask16)((1u << (left - 16)) - 1) : 0;
        __m512 low = _mm512_maskz_loadu_ps(first, x + c), high = _mm512_maskz_loadu_ps(second, x + c + 16);
        for (int plane = 0; plane < planes; plane++, out += TILE_BYTES) {
            __m512i both = (__m512i)_mm512_cvtne2ps_pbh(high, low);
            _mm512_storeu_si512(out, both);
            if (plane + 1 == planes) continue;
            low = _mm512_sub_ps(low, as_float(_mm512_castsi512_si256(both)));
            high = _mm512_sub_ps(high, as_float(_mm512_extracti64x4_epi64(both, 1)));
        }
    }
}

void amx_gemm_pack(const weight *w, void *packed, int64_t t, const float *x, int planes)
{
    if (planes == 1) pack(w, packed, t, x, 1);
    else pack(w, packed, t, x, 3);
}

/* ---- weights: B tiles of two panels of 16 rows, `count` blocks of columns from block k on; [block][panel] ---- */

static void turn_rows(const weight *w, int64_t o, int64_t rows, int64_t k, int64_t count, char *out)
{
    const char *data = (const char *)w->data + (size_t)o * (size_t)w->cols * 2;
    for (int64_t i = 0; i < count; i++, out += 2 * TILE_BYTES) {
        int64_t left = w->cols - (k + i) * DEPTH;
        __mmask32 mask = left >= DEPTH ? 0xffffffff : (__mmask32)((1u << left) - 1);
        for (int panel = 0; panel < 2; panel++) {
            __m512i v[TILE];
#pragma GCC unroll 16
            for (int r = 0; r < TILE; r++) {
                int64_t row = panel * TILE + r;
                v[r] = _mm512_maskz_loadu_epi16(row < rows ? mask : 0, data + (row < rows ? (size_t)row * (size_t)w->cols * 2 : 0) + (size_t)(k + i) * 64);
            }
            transpose_avx512(v);
#pragma GCC unroll 16
            for (int r = 0; r < TILE; r++) _mm512_store_si512(out + panel * TILE_BYTES + r * 64, v[r]);
        }
    }
}

static size_t unit_bytes(const weight *w) { return TILE * ((size_t)(w->group * w->bits / 8) + 2 * dtype_size(w->scale_type)); }
static size_t panel_bytes(const weight *w) { return (size_t)(w->cols / w->group) * unit_bytes(w); }

/* A code put into the mantissa of 1: one shift, one mask; scale and offset undo it. */
typedef struct widening { __m512 scale, offset; } widening;

INLINE __m512 value(__m512i code, const int bits, widening v)
{
    const __m512i mask = _mm512_set1_epi32(bits == 8 ? 0x7f8000 : 0x780000), one = _mm512_set1_epi32(0x3f800000);
    return _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_ternarylogic_epi32(code, mask, one, 0xea)), v.scale, v.offset);
}

/* Lanes are rows: columns c and c + 1 of each side by side. */
INLINE void store_pair(char *out, __m512 even, __m512 odd)
{
    const __m512i step = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    _mm512_store_si512(out, _mm512_permutexvar_epi16(step, (__m512i)_mm512_cvtne2ps_pbh(odd, even)));
}

INLINE void widen_panel(const weight *w, const char *panel, int64_t k, int64_t count, char *out, const int bits)
{
    const int64_t parts = w->group / DEPTH;
    const size_t codes = TILE * (size_t)(w->group * bits / 8);
    widening v = {0};
    for (int64_t i = 0; i < count; i++, out += 2 * TILE_BYTES) {
        const char *unit = panel + (size_t)((k + i) / parts) * unit_bytes(w), *at = unit + (size_t)((k + i) % parts) * (64 * bits);
        if (i == 0 || (k + i) % parts == 0) {
            v.scale = _mm512_mul_ps(scales_avx512(unit + codes, w->scale_type, 0, 0xffff), _mm512_set1_ps(bits == 8 ? 256 : 16));
            v.offset = _mm512_sub_ps(scales_avx512(unit + codes, w->scale_type, TILE, 0xffff), v.scale);
        }
#pragma GCC unroll 8
        for (int j = 0; j < bits; j++) {           /* a word of each row */
            __m512i word = _mm512_loadu_si512(at + 64 * j);
            char *to = out + j * (TILE_BYTES / bits);
            if (bits == 8) {
                store_pair(to, value(_mm512_slli_epi32(word, 15), 8, v), value(_mm512_slli_epi32(word, 7), 8, v));
                store_pair(to + 64, value(_mm512_srli_epi32(word, 1), 8, v), value(_mm512_srli_epi32(word, 9), 8, v));
            } else {
                store_pair(to, value(_mm512_slli_epi32(word, 19), 4, v), value(_mm512_slli_epi32(word, 15), 4, v));
                store_pair(to + 64, value(_mm512_slli_epi32(word, 11), 4, v), value(_mm512_slli_epi32(word, 7), 4, v));
                store_pair(to + 128, value(_mm512_slli_epi32(word, 3), 4, v), value(_mm512_srli_epi32(word, 1), 4, v));
                store_pair(to + 192, value(_mm512_srli_epi32(word, 5), 4, v), value(_mm512_srli_epi32(word, 9), 4, v));
            }
        }
    }
}

/* panels: of the rows from o on, where the weight has codes. */
static void make_tiles(const weight *w, const char *panels, int64_t o, int64_t rows, int64_t k, int64_t count, char *out)
{
    if (w->format == WF_BF16) {
        turn_rows(w, o, rows, k, count, out);
        return;
    }
    for (int panel = 0; panel < 2; panel++, out += TILE_BYTES) {
        if (panel * TILE >= rows) for (int64_t i = 0; i < count; i++) memset(out + i * 2 * TILE_BYTES, 0, TILE_BYTES);
        else if (w->bits == 8) widen_panel(w, panels + (size_t)panel * panel_bytes(w), k, count, out, 8);
        else widen_panel(w, panels + (size_t)panel * panel_bytes(w), k, count, out, 4);
    }
}

/* What make_tiles will read next comes to L2 while units are computed, some lines each. */
typedef struct coming {
    const char *at;
    size_t stride, lines, line;                    /* rows of `lines` cache lines */
    int64_t rows;
} coming;

static coming look_ahead(const weight *w, const char *panels, int64_t o, int64_t rows, int64_t k, int64_t count)
{
    if (w->format == WF_BF16)
        return (coming){(const char *)w->data + ((size_t)o * (size_t)w->cols + (size_t)k * DEPTH) * 2, (size_t)w->cols * 2, (size_t)count, 0, rows};
    size_t from = (size_t)(k * DEPTH / w->group) * unit_bytes(w), bytes = (size_t)blocks(count * DEPTH, w->group) * unit_bytes(w);
    return (coming){panels + from, panel_bytes(w), (bytes + 63) / 64, 0, blocks(rows, TILE)};
}

INLINE void fetch(coming *a, int64_t lines)
{
    for (; lines > 0 && a->rows > 0; lines--) {
        __builtin_prefetch(a->at + a->line * 64, 0, 2);
        if (++a->line < a->lines) continue;
        a->line = 0;
        a->at += a->stride;
        a->rows--;
    }
}

/* ---- units ---- */

typedef struct unit {                              /* 32 tokens x 32 rows of one span */
    const char *a0, *a1, *b;                       /* tiles of two blocks of tokens, of the weight */
    int64_t count;                                 /* blocks of columns */
    const char *in;                                /* sums so far; NULL: none */
    char *out;
    size_t stride;                                 /* of rows of out */
    const char *next_in;                           /* sums of the next unit, for L1; NULL: none */
    float *y;                                      /* where the sums go soon; NULL: not yet */
    int64_t y_stride;
} unit;

/* two: there is a second block of tokens. */
INLINE void multiply(const unit *u, const bool two, const int planes)
{
    const char *a0 = u->a0, *a1 = u->a1, *b = u->b;
    float *y = u->y;
    if (!u->in) {
        _tile_zero(0);
        _tile_zero(1);
        if (two) _tile_zero(2);
        if (two) _tile_zero(3);
    } else {
        _tile_loadd(0, u->in, 2 * 64);
        _tile_loadd(1, u->in + 64, 2 * 64);
        if (two) _tile_loadd(2, u->in + UNIT_BYTES / 2, 2 * 64);
        if (two) _tile_loadd(3, u->in + UNIT_BYTES / 2 + 64, 2 * 64);
    }
    const int64_t rows = blocks(UNIT, u->count);   /* that are asked for in a step: of y, and of the next sums */
    const char *next = u->next_in;
    for (int64_t k = 0; k < u->count; k++, b += 2 * TILE_BYTES) {
        _tile_loadd(6, b, 64);
#pragma GCC unroll 3
        for (int plane = 0; plane < planes; plane++, a0 += TILE_BYTES, a1 += TILE_BYTES) {
            _tile_stream_loadd(4, a0, 64);
            _tile_dpbf16ps(0, 4, 6);
            if (plane == 0) _tile_loadd(7, b + TILE_BYTES, 64);
            _tile_dpbf16ps(1, 4, 7);
            if (!two) continue;
            _tile_stream_loadd(5, a1, 64);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
        for (int64_t i = 0; next && i < rows; i++, next += 2 * 64) {
            __builtin_prefetch(next);
            __builtin_prefetch(next + 64);
        }
        for (int64_t i = 0; y && i < rows; i++, y += u->y_stride) {
            __builtin_prefetch(y, 1);
            __builtin_prefetch(y + TILE, 1);
        }
    }
    _tile_stored(0, u->out, u->stride);
    _tile_stored(1, u->out + 64, u->stride);
    if (two) _tile_stored(2, u->out + TILE * u->stride, u->stride);
    if (two) _tile_stored(3, u->out + TILE * u->stride + 64, u->stride);
}

/* Sums of a unit with bias to y. */
static void store(const linear_product *p, const float *sums, int64_t o, int64_t rows, int64_t t, int64_t tokens)
{
    for (int64_t i = 0; i < rows; i += TILE) {
        __mmask16 mask = rows - i >= TILE ? 0xffff : (__mmask16)((1u << (rows - i)) - 1);
        __m512 bias = p->bias ? _mm512_maskz_loadu_ps(mask, p->bias + o + i) : _mm512_setzero_ps();
        float *y = p->y + t * p->y_stride + o + i;
        for (int64_t j = 0; j < tokens; j++) _mm512_mask_storeu_ps(y + j * p->y_stride, mask, _mm512_add_ps(_mm512_load_ps(sums + j * UNIT + i), bias));
    }
}

/* A span of UNIT rows and all tokens. tiles: B; sums: [unit of tokens]. */
INLINE void units(const linear_product *p, const char *tiles, int64_t k, int64_t count, int64_t o, int64_t rows, int64_t t0, int64_t t1, char *sums, coming *next,
                  const int planes)
{
    const int64_t depth = blocks(p->w.cols, DEPTH);
    const bool last = k + count >= depth;
    const int64_t lines = blocks((int64_t)next->lines * next->rows, blocks(t1 - t0, UNIT));
    const size_t across = (size_t)(depth * planes) * TILE_BYTES;   /* from one block of tokens to the next */
    const char *a = (const char *)p->x + (size_t)(t0 / TILE) * across + (size_t)(k * planes) * TILE_BYTES;
    for (int64_t t = t0; t < t1; t += UNIT, sums += UNIT_BYTES, a += 2 * across) {
        const int64_t tokens = min64(UNIT, t1 - t);
        const bool straight = last && !p->bias && rows == UNIT && tokens == UNIT;
        unit u = {.a0 = a, .a1 = tokens > TILE ? a + across : a, .b = tiles, .count = count, .in = k ? sums : NULL, .out = sums, .stride = 2 * 64};
        if (k && t + UNIT < t1) u.next_in = sums + UNIT_BYTES;
        if (last) u.y = p->y + t * p->y_stride + o, u.y_stride = p->y_stride;
        if (straight) u.out = (char *)u.y, u.stride = (size_t)p->y_stride * 4;
        fetch(next, lines);
        if (tokens > TILE) multiply(&u, true, planes);
        else multiply(&u, false, planes);
        if (last && !straight) store(p, (const float *)sums, o, rows, t, tokens);
    }
}

/* ---- blocks ---- */

size_t amx_gemm_scratch(const weight *w, int64_t n)
{
    size_t made = w->format == WF_AFFINE && !w->packed ? 2 * MOST * panel_bytes(w) : 0;
    return SPAN * 2 * TILE_BYTES + MOST * (size_t)blocks(min64(n, LINEAR_TOKENS), UNIT) * UNIT_BYTES + made;
}

/* The panels of rows from o0 on: those of the weight, or made in `room`. */
static const char *panels_of(const weight *w, int64_t o0, int64_t o1, char *room)
{
    if (w->format != WF_AFFINE) return NULL;
    if (w->packed) return (const char *)w->packed + (size_t)(o0 / TILE) * panel_bytes(w);
    weight view = weight_rows(w, o0, o1 - o0);
    linear_int_avx512vnni.repack(&view, room, 0, o1 - o0);
    return room;
}

/* Up to MOST units of rows. */
INLINE void some_rows(const linear_product *p, int64_t o0, int64_t o1, int64_t t0, int64_t t1, char *scratch, const int planes)
{
    const weight *w = &p->w;
    const int64_t depth = blocks(w->cols, DEPTH);
    const size_t unit_sums = (size_t)blocks(t1 - t0, UNIT) * UNIT_BYTES;
    char *sums = scratch + SPAN * 2 * TILE_BYTES;
    const char *panels = panels_of(w, o0, o1, sums + MOST * unit_sums);
    for (int64_t k = 0; k < depth; k += SPAN)
        for (int64_t o = o0; o < o1; o += UNIT) {
            const int64_t count = min64(SPAN, depth - k), rows = min64(UNIT, o1 - o);
            const bool more = o + UNIT < o1;       /* what comes next: the next rows, else the next span of the first */
            const int64_t o_next = more ? o + UNIT : o0, k_next = more ? k : k + SPAN;
            coming next = {0};
            if (k_next < depth)
                next = look_ahead(w, panels ? panels + (size_t)((o_next - o0) / TILE) * panel_bytes(w) : NULL, o_next, min64(UNIT, o1 - o_next), k_next,
                                  min64(SPAN, depth - k_next));
            make_tiles(w, panels ? panels + (size_t)((o - o0) / TILE) * panel_bytes(w) : NULL, o, rows, k, count, scratch);
            units(p, scratch, k, count, o, rows, t0, t1, sums + (size_t)((o - o0) / UNIT) * unit_sums, &next, planes);
        }
}

void amx_gemm(const linear_product *p, int64_t o0, int64_t o1, int64_t t0, int64_t t1, char *scratch, int planes)
{
    amx_configure(64);
    for (int64_t o = o0; o < o1; o += MOST * UNIT) {
        int64_t end = min64(o + MOST * UNIT, o1);
        if (planes == 1) some_rows(p, o, end, t0, t1, scratch, 1);
        else some_rows(p, o, end, t0, t1, scratch, 3);
    }
    _tile_release();
}

/* ---- affine weights: tokens of prompts and rows of encoders, whatever their number ---- */

static size_t affine_x_bytes(const weight *w, int64_t n) { return amx_gemm_x_bytes(w, n, 1); }
static void affine_pack(const weight *w, void *packed, int64_t n, int64_t t, const float *x) { pack(w, packed, t, x, 1); }
static size_t affine_packed_bytes(const weight *w) { return linear_int_avx512vnni.packed_bytes(w); }
static void affine_repack(const weight *w, char *packed, int64_t o0, int64_t o1) { linear_int_avx512vnni.repack(w, packed, o0, o1); }
static void affine_block(const linear_product *p, int64_t o0, int64_t o1, int64_t t0, int64_t t1, void *scratch) { amx_gemm(p, o0, o1, t0, t1, scratch, 1); }

const linear_path linear_affine_amx = {.name = "affine bf16 amx", .x_bytes = affine_x_bytes, .pack = affine_pack, .packed_bytes = affine_packed_bytes,
                                       .repack = affine_repack, .scratch = amx_gemm_scratch, .block = affine_block, .unit = UNIT,
                                       .wide = AMX_WIDE};
