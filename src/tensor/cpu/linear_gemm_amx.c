/* linear_gemm_amx.c - many tokens times a matrix, with bf16 AMX tiles: 16 tokens x 16 rows of the weight x 32 columns an instruction.
 *
 *   A  activations as bf16, 16 tokens x 32 columns; packed so: [block of 16 tokens][block of 32 columns][plane][token][32]
 *   B  16 rows of the weight: [16 pairs of columns][row][2], made from what is stored: rows of bf16 are turned, codes of 4 and 8 bits (panels of linear_int.h) widened,
 *      code * scale + bias rounded to bf16. Once for all tokens of a block
 *   C  16 tokens x 16 rows of float32, as y has them
 *
 * Four C tiles at a time (32 tokens x 32 rows: a unit) meet two A and two B tiles for each block of columns. Columns go in spans of SPAN blocks: the B tiles of
 * a span (24 KiB) stay in L1 while all tokens pass (A tiles are loaded as a stream, so that they do not push them out), the tokens of a span and the sums of MOST
 * units of rows in L2. Sums wait there from span to span as float32: the same numbers as if they had stayed in tiles, so the order of a sum is that of the
 * columns, whatever the block is. */
#include <string.h>

#include "tensor/cpu/linear_amx.h"

#define INLINE static inline __attribute__((always_inline))

enum {
    DEPTH = 32,                                    /* columns of a tile */
    SPAN = 12,                                     /* blocks of columns of a span */
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

/* A code that is put into the mantissa of 1 at bit `at`: 1 + code * 2^(at - 23). Scale and offset undo it: code * scale + bias, to some 2^-9 of a scale. */
enum { LOWEST = 8 };                               /* bit: lower ones would lose too much of the offset */
typedef struct widening { __m512 scale, offset; } widening;

INLINE widening undo(__m512 scale, __m512 bias, const int at)
{
    __m512 wide = _mm512_mul_ps(scale, _mm512_set1_ps((float)(1 << (23 - at))));
    return (widening){wide, _mm512_sub_ps(bias, wide)};
}

/* The code at bit `at` of each word, as float32 with half a unit of bf16 added to its bits. */
INLINE __m512i value(__m512i word, const int bits, const int at, widening v)
{
    const __m512i mask = _mm512_set1_epi32((int)((1u << bits) - 1) << at), one = _mm512_set1_epi32(0x3f800000);
    __m512 w = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_ternarylogic_epi32(word, mask, one, 0xea)), v.scale, v.offset);
    return _mm512_add_epi32(_mm512_castps_si512(w), _mm512_set1_epi32(0x8000));
}

/* Lanes are rows: columns c and c + 1 of each side by side, the upper halves of their float32. */
INLINE void store_pair(char *out, __m512i even, __m512i odd)
{
    _mm512_store_si512(out, _mm512_ternarylogic_epi32(_mm512_srli_epi32(even, 16), odd, _mm512_set1_epi32((int)0xffff0000), 0xf8));
}

INLINE void widen_panel(const weight *w, const char *panel, int64_t k, int64_t count, char *out, const int bits)
{
    const int64_t parts = w->group / DEPTH;
    const size_t codes = TILE * (size_t)(w->group * bits / 8);
    widening v8 = {0}, v12 = {0}, v16 = {0};       /* of codes at bits 8, 12, 16 */
    for (int64_t i = 0; i < count; i++, out += 2 * TILE_BYTES) {
        const char *unit = panel + (size_t)((k + i) / parts) * unit_bytes(w), *at = unit + (size_t)((k + i) % parts) * (64 * bits);
        if (i == 0 || (k + i) % parts == 0) {
            __m512 scale = scales_avx512(unit + codes, w->scale_type, 0, 0xffff), bias = scales_avx512(unit + codes, w->scale_type, TILE, 0xffff);
            v8 = undo(scale, bias, LOWEST);
            if (bits == 4) v12 = undo(scale, bias, LOWEST + 4), v16 = undo(scale, bias, LOWEST + 8);
        }
#pragma GCC unroll 8
        for (int j = 0; j < bits; j++) {           /* a word of each row */
            __m512i word = _mm512_loadu_si512(at + 64 * j);
            char *to = out + j * (TILE_BYTES / bits);
            if (bits == 8) {
                store_pair(to, value(_mm512_slli_epi32(word, 8), 8, 8, v8), value(word, 8, 8, v8));
                store_pair(to + 64, value(_mm512_srli_epi32(word, 8), 8, 8, v8), value(_mm512_srli_epi32(word, 16), 8, 8, v8));
            } else {
                __m512i low = _mm512_slli_epi32(word, 8), high = _mm512_srli_epi32(word, 12);
                store_pair(to, value(low, 4, 8, v8), value(low, 4, 12, v12));
                store_pair(to + 64, value(word, 4, 8, v8), value(word, 4, 12, v12));
                store_pair(to + 128, value(word, 4, 16, v16), value(high, 4, 8, v8));
                store_pair(to + 192, value(high, 4, 12, v12), value(high, 4, 16, v16));
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

/* Where the sums of one product's UNIT rows from o on are. */
typedef struct strip {
    const linear_product *p;
    const char *panels;                            /* of its first row; NULL: rows of bf16 */
    int64_t o, rows;
    char *sums;                                    /* [unit of tokens] */
} strip;

/* A span of a strip and all tokens. tiles: B. */
INLINE void units(const strip *s, const char *tiles, int64_t k, int64_t count, int64_t t0, int64_t t1, bool keep, coming *next, const int planes)
{
    const linear_product *p = s->p;
    const int64_t depth = blocks(p->w.cols, DEPTH);
    const bool last = k + count >= depth && !keep;
    const int64_t lines = blocks((int64_t)next->lines * next->rows, blocks(t1 - t0, UNIT));
    const size_t across = (size_t)(depth * planes) * TILE_BYTES;   /* from one block of tokens to the next */
    const char *a = (const char *)p->x + (size_t)(t0 / TILE) * across + (size_t)(k * planes) * TILE_BYTES;
    char *sums = s->sums;
    for (int64_t t = t0; t < t1; t += UNIT, sums += UNIT_BYTES, a += 2 * across) {
        const int64_t tokens = min64(UNIT, t1 - t);
        const bool straight = last && !p->bias && s->rows == UNIT && tokens == UNIT;
        unit u = {.a0 = a, .a1 = tokens > TILE ? a + across : a, .b = tiles, .count = count, .in = k ? sums : NULL, .out = sums, .stride = 2 * 64};
        if (k && t + UNIT < t1) u.next_in = sums + UNIT_BYTES;
        if (last) u.y = p->y + t * p->y_stride + s->o, u.y_stride = p->y_stride;
        if (straight) u.out = (char *)u.y, u.stride = (size_t)p->y_stride * 4;
        fetch(next, lines);
        if (tokens > TILE) multiply(&u, true, planes);
        else multiply(&u, false, planes);
        if (last && !straight) store(p, (const float *)sums, s->o, s->rows, t, tokens);
    }
}

/* act(gate) * up of a strip, packed for the product that reads it: UNIT rows are a block of its columns. */
static void combine(const linear_glu *glu, const strip *gate, const strip *up, int64_t t0, int64_t t1)
{
    const __mmask16 low = gate->rows >= TILE ? 0xffff : (__mmask16)((1u << gate->rows) - 1);
    const __mmask16 high = gate->rows >= UNIT ? 0xffff : gate->rows > TILE ? (__mmask16)((1u << (gate->rows - TILE)) - 1) : 0;
    const int64_t depth = blocks(glu->into->w.cols, DEPTH);
    const float *biases[2] = {gate->p->bias, up->p->bias};
    for (int64_t t = t0; t < t1; t++) {
        float x[2][UNIT] __attribute__((aligned(64)));
        for (int i = 0; i < 2; i++) {
            const float *sums = (const float *)(i ? up : gate)->sums + (t - t0) * UNIT, *bias = biases[i] ? biases[i] + gate->o : NULL;
            __m512 b0 = bias ? _mm512_maskz_loadu_ps(low, bias) : _mm512_setzero_ps(), b1 = bias ? _mm512_maskz_loadu_ps(high, bias + TILE) : _mm512_setzero_ps();
            _mm512_store_ps(x[i], _mm512_add_ps(_mm512_load_ps(sums), b0));
            _mm512_store_ps(x[i] + TILE, _mm512_add_ps(_mm512_load_ps(sums + TILE), b1));
        }
        glu->kernel(x[0], x[0], x[1], glu->act, UNIT);
        char *out = (char *)glu->into->x + (size_t)(t / TILE * depth + gate->o / UNIT) * TILE_BYTES + (size_t)(t % TILE) * 64;
        _mm512_storeu_si512(out, (__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(high, x[0] + TILE), _mm512_maskz_loadu_ps(low, x[0])));
    }
}

/* ---- blocks ---- */

size_t amx_gemm_scratch(const weight *w, int64_t n)
{
    size_t made = w->format == WF_AFFINE && !w->packed ? 2 * MOST * panel_bytes(w) : 0;    /* of two products: half of each */
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

/* Up to MOST strips: rows of one product, or half as many rows of two. */
INLINE void some_rows(const linear_product *p, int64_t o0, int64_t o1, int64_t t0, int64_t t1, char *scratch, const int planes)
{
    const linear_product *both[2] = {p, p->glu ? p->glu->up : NULL};
    const int64_t depth = blocks(p->w.cols, DEPTH);
    const size_t strip_sums = (size_t)blocks(t1 - t0, UNIT) * UNIT_BYTES;
    char *sums = scratch + SPAN * 2 * TILE_BYTES, *room = sums + MOST * strip_sums;
    strip strips[MOST];
    int n = 0;
    for (int i = 0; i < 2 && both[i]; i++) {
        const char *panels = panels_of(&both[i]->w, o0, o1, room);
        if (panels == room) room += (size_t)blocks(o1 - o0, TILE) * panel_bytes(&both[i]->w);
        for (int64_t o = o0; o < o1; o += UNIT, n++)
            strips[n] = (strip){both[i], panels ? panels + (size_t)((o - o0) / TILE) * panel_bytes(&both[i]->w) : NULL, o, min64(UNIT, o1 - o), sums + n * strip_sums};
    }
    for (int64_t k = 0; k < depth; k += SPAN)
        for (int i = 0; i < n; i++) {
            const strip *s = &strips[i], *then = &strips[(i + 1) % n];
            const int64_t count = min64(SPAN, depth - k), k_then = i + 1 < n ? k : k + SPAN;
            coming next = {0};
            if (k_then < depth) next = look_ahead(&then->p->w, then->panels, then->o, then->rows, k_then, min64(SPAN, depth - k_then));
            make_tiles(&s->p->w, s->panels, s->o, s->rows, k, count, scratch);
            units(s, scratch, k, count, t0, t1, p->glu, &next, planes);
        }
    for (int i = 0; p->glu && i < n / 2; i++) combine(p->glu, &strips[i], &strips[n / 2 + i], t0, t1);
}

void amx_gemm(const linear_product *p, int64_t o0, int64_t o1, int64_t t0, int64_t t1, char *scratch, int planes)
{
    const int64_t step = (p->glu ? MOST / 2 : MOST) * UNIT;
    amx_configure(64);
    for (int64_t o = o0; o < o1; o += step) {
        int64_t end = min64(o + step, o1);
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
                                       .glu = true, .wide = AMX_WIDE};
