/* linear_dot.h - the float32 path as a template: dot products of file rows with activation rows.
 *
 *   acc[r][t] (a vector) += w[r][k..k+LANES) * x[t][k..k+LANES)      r < TILE_ROWS, t < TILE_TOKENS: a tile that lives in registers
 *
 * The order of a sum is fixed: columns in spans of SPAN, in a span one vector accumulator that is summed at the end of the span, spans added in
 * order, bias last. Tiles only decide what is computed together. Weights are widened on the fly when few tokens are there, or once into
 * scratch, [ROW_BLOCK x SPAN] float32 at a time, which gives the same numbers.
 *
 * The includer defines: DOT_NAME, LANES, TILE_ROWS, TILE_TOKENS, vf, v_zero, v_load, v_store, v_fma, v_sum4 (four vectors to four sums), w_f32,
 * w_bf16, w_f16 (LANES weights widened) and affine_group. */
#include <string.h>

#include "tensor/cpu/linear.h"

#define INLINE static inline __attribute__((always_inline))
/* One load for all uses: the compiler would fold a load into each. */
#define KEEP(v) __asm__("" : KEEP_REGISTER(v))

enum {
    SPAN = 1024,                                   /* columns; a multiple of every group size */
    ROW_BLOCK = TILE_ROWS * (48 / TILE_ROWS),      /* widened at once: 192 KiB, half of a small L2 */
    TOKEN_BLOCK = 64,                              /* whose SPAN columns stay in L2 while the row tiles pass */
    WIDEN_TOKENS = 3 * TILE_TOKENS,                /* from so many tokens on widening once pays for bf16 and f16 */
};

typedef vf (*w_loader)(const void *);

typedef struct span {                              /* one tile over one span of columns */
    float *y;
    int64_t y_stride;
    const float *x;
    int64_t x_stride;
    const char *w;
    size_t row_bytes;
    int64_t cols;
    bool first;
    const float *bias;                             /* set in the last span if there is one */
} span;

INLINE void tile(w_loader load, size_t size, const int rows, const int tokens, const span *s)
{
    vf acc[TILE_ROWS * TILE_TOKENS + 3];
#pragma GCC unroll 32
    for (int i = 0; i < rows * tokens; i++) acc[i] = v_zero();
    int64_t whole = s->cols / LANES * LANES;
    const char *w = s->w;
    const float *x = s->x;
    for (int64_t k = 0; k < whole; k += LANES) {
        vf xv[TILE_TOKENS];
#pragma GCC unroll 8
        for (int t = 0; t < tokens; t++) xv[t] = v_load(x + t * s->x_stride);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            const char *at = w + (size_t)r * s->row_bytes;
            if (tokens < TILE_TOKENS) __builtin_prefetch(at + TILE_ROWS * s->row_bytes, 0, 2);     /* the next rows, to L2 */
            vf wv = load(at);
            if (tokens > 1) KEEP(wv);
#pragma GCC unroll 8
            for (int t = 0; t < tokens; t++) acc[r * tokens + t] = v_fma(wv, xv[t], acc[r * tokens + t]);
        }
        w += LANES * size;
        x += LANES;
    }
    if (whole < s->cols) {                         /* the rest as a vector that is filled up with zeros */
        float xs[TILE_TOKENS][LANES] = {{0}};
        size_t rest = (size_t)(s->cols - whole);
        for (int t = 0; t < tokens; t++) memcpy(xs[t], x + t * s->x_stride, rest * 4);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            char ws[LANES * 4] = {0};
            memcpy(ws, w + (size_t)r * s->row_bytes, rest * size);
            vf wv = load(ws);
#pragma GCC unroll 8
            for (int t = 0; t < tokens; t++) acc[r * tokens + t] = v_fma(wv, v_load(xs[t]), acc[r * tokens + t]);
        }
    }
    float sums[TILE_ROWS * TILE_TOKENS + 3];
#pragma GCC unroll 3
    for (int i = rows * tokens; i < rows * tokens + 3; i++) acc[i] = v_zero();
#pragma GCC unroll 8
    for (int i = 0; i < rows * tokens; i += 4) v_sum4(acc[i], acc[i + 1], acc[i + 2], acc[i + 3], sums + i);
    for (int r = 0; r < rows; r++) {
        for (int t = 0; t < tokens; t++) {
            float *y = s->y + t * s->y_stride + r, sum = sums[r * tokens + t];
            if (!s->first) sum += *y;
            *y = s->bias ? sum + s->bias[r] : sum;
        }
    }
}

/* All tiles of `rows` x `n` over one span. */
INLINE void tiles(w_loader load, size_t size, span s, int64_t rows, int64_t n)
{
    const span all = s;
    for (int64_t r = 0; r < rows;) {
        bool whole = rows - r >= TILE_ROWS;
        s.w = all.w + (size_t)r * all.row_bytes;
        s.bias = all.bias ? all.bias + r : NULL;
        for (int64_t t = 0; t < n; t += TILE_TOKENS) {
            s.x = all.x + t * all.x_stride;
            s.y = all.y + t * all.y_stride + r;
            int64_t left = n - t;
            if (whole) {
                if (left >= TILE_TOKENS) tile(load, size, TILE_ROWS, TILE_TOKENS, &s);
                else if (left == 1) tile(load, size, TILE_ROWS, 1, &s);
                else if (left == 2) tile(load, size, TILE_ROWS, 2, &s);
                else tile(load, size, TILE_ROWS, 3, &s);
            } else if (left >= TILE_TOKENS) {
                tile(load, size, 1, TILE_TOKENS, &s);
            } else {
                for (int64_t i = 0; i < left; i++) {
                    tile(load, size, 1, 1, &s);
                    s.x += all.x_stride;
                    s.y += all.y_stride;
                }
            }
        }
        r += whole ? TILE_ROWS : 1;
    }
}

static __attribute__((noinline)) void tiles_f32(const span *s, int64_t rows, int64_t n) { tiles(w_f32, 4, *s, rows, n); }
static __attribute__((noinline)) void tiles_bf16(const span *s, int64_t rows, int64_t n) { tiles(w_bf16, 2, *s, rows, n); }
static __attribute__((noinline)) void tiles_f16(const span *s, int64_t rows, int64_t n) { tiles(w_f16, 2, *s, rows, n); }

/* Columns [k, k + cols) of row `row` as float32. */
INLINE void widen_half(w_loader load, const char *data, int64_t cols, float *out)
{
    int64_t i = 0;
    for (; i + LANES <= cols; i += LANES) v_store(out + i, load(data + 2 * i));
    if (i < cols) {
        char rest[LANES * 2] = {0};
        float wide[LANES];
        memcpy(rest, data + 2 * i, (size_t)(cols - i) * 2);
        v_store(wide, load(rest));
        memcpy(out + i, wide, (size_t)(cols - i) * 4);
    }
}

static void widen(const weight *w, int64_t row, int64_t k, int64_t cols, float *out)
{
    const char *data = (const char *)w->data + (size_t)row * weight_row_bytes(w);
    if (w->format == WF_F32) {
        memcpy(out, data + 4 * k, (size_t)cols * 4);
        return;
    }
    if (w->format == WF_BF16) {
        widen_half(w_bf16, data + 2 * k, cols, out);
        return;
    }
    if (w->format == WF_F16) {
        widen_half(w_f16, data + 2 * k, cols, out);
        return;
    }
    int64_t index = row * (w->cols / w->group) + k / w->group;
    const uint8_t *codes = (const uint8_t *)data + k * w->bits / 8;
    for (int64_t i = 0; i < cols; i += w->group, index++, codes += w->group * w->bits / 8)
        affine_group(codes, w->bits, w->group, linear_scale(w->scales, w->scale_type, index), linear_scale(w->biases, w->scale_type, index),
                     out + i);
}

static bool widens(const weight *w, int64_t n)
{
    return w->format == WF_AFFINE || (w->format != WF_F32 && n >= WIDEN_TOKENS);
}

static size_t dot_scratch(const weight *w, int64_t n)
{
    return widens(w, n) ? (size_t)ROW_BLOCK * SPAN * sizeof(float) : 0;
}

/* Rows [o0, o1), o1 - o0 <= ROW_BLOCK, span by span. */
static void row_block(const linear_product *p, int64_t o0, int64_t o1, int64_t t0, int64_t t1, float *wide)
{
    const weight *w = &p->w;
    size_t size = w->format == WF_F32 ? 4 : 2;
    for (int64_t k = 0; k < w->cols; k += SPAN) {
        span s = {.y_stride = p->y_stride, .x_stride = p->x_stride, .cols = min64(SPAN, w->cols - k), .first = k == 0};
        if (p->bias && k + SPAN >= w->cols) s.bias = p->bias + o0;
        if (wide) {
            for (int64_t o = o0; o < o1; o++) widen(w, o, k, s.cols, wide + (o - o0) * SPAN);
            s.w = (const char *)wide;
            s.row_bytes = SPAN * sizeof(float);
        } else {
            s.row_bytes = weight_row_bytes(w);
            s.w = (const char *)w->data + (size_t)o0 * s.row_bytes + (size_t)k * size;
        }
        for (int64_t t = t0; t < t1; t += TOKEN_BLOCK) {
            s.x = (const float *)p->x + t * p->x_stride + k;
            s.y = p->y + t * p->y_stride + o0;
            int64_t n = min64(TOKEN_BLOCK, t1 - t);
            if (wide || w->format == WF_F32) tiles_f32(&s, o1 - o0, n);
            else if (w->format == WF_BF16) tiles_bf16(&s, o1 - o0, n);
            else tiles_f16(&s, o1 - o0, n);
        }
    }
}

static void dot_block(const linear_product *p, int64_t o0, int64_t o1, int64_t t0, int64_t t1, void *scratch)
{
    float *wide = widens(&p->w, p->n) ? scratch : NULL;
    int64_t step = t1 - t0 <= TILE_TOKENS ? TILE_ROWS : ROW_BLOCK;      /* few tokens: one row tile to its end, as the memory lies */
    for (int64_t o = o0; o < o1; o += step) row_block(p, o, min64(o + step, o1), t0, t1, wide);
}

static const linear_path DOT_NAME = {.name = DOT_LABEL, .scratch = dot_scratch, .block = dot_block, .unit = TILE_ROWS};

/* Groups of other widths than 4 and 8 bits: eight codes are `bits` bytes. */
INLINE uint64_t codes_word(const uint8_t *codes, int bits)
{
    uint64_t word = 0;
    for (int i = 0; i < bits; i++) word |= (uint64_t)codes[i] << (8 * i);
    return word;
}
