/* linear_tile.h - register tiles of dot products, as a template: the inside of linear_dot.h (float32) and linear_bf16_avx512vnni.c.
 *
 *   acc[r][t] (a vector) += w[r][k..k+LANES) * x[t][k..k+LANES)      4 rows x up to TILE_TOKENS tokens (8 x 1), all in registers
 *
 * The order of a sum is fixed: columns in spans, in a span one vector accumulator that is summed at the end of the span, spans added in order,
 * bias last. Tiles only decide what is computed together.
 *
 * The includer defines: LANES (columns a step), TILE_TOKENS (3 to 6), X_SIZE (bytes of an activation), vf (accumulators), vw (LANES weights), vx (LANES
 * activations), v_zero, x_load, v_dot(w, x, acc), v_sum4 (four accumulators to a v4 of sums) and KEEP_REGISTER. */
#include <string.h>

#include "tensor/cpu/linear.h"

#define INLINE static inline __attribute__((always_inline))
/* One load for all uses: the compiler would fold a load into each. */
#define KEEP(v) __asm__("" : KEEP_REGISTER(v))

enum { TILE_ROWS = 4, ALONE_ROWS = 8 };           /* with one token alone: more rows at a time keep memory busier */
typedef vw (*w_loader)(const void *);

typedef struct span {                              /* rows x tokens over one span of columns */
    float *y;
    int64_t y_stride;
    const char *x, *w;
    size_t x_bytes, w_bytes;                       /* from row to row */
    int64_t cols;
    bool first;
    const float *bias;                             /* set in the last span if there is one */
} span;

INLINE void tile(w_loader load, size_t size, const int rows, const int tokens, const span *s)
{
    vf acc[TILE_TOKENS][ALONE_ROWS];
#pragma GCC unroll 8
    for (int t = 0; t < tokens; t++)
#pragma GCC unroll 8
        for (int r = 0; r < (rows > TILE_ROWS ? rows : TILE_ROWS); r++) acc[t][r] = v_zero();
    int64_t whole = s->cols / LANES;
    const char *w = s->w, *x = s->x;
    for (int64_t k = 0; k < whole; k++, w += LANES * size, x += LANES * X_SIZE) {
        vx xv[TILE_TOKENS];
#pragma GCC unroll 8
        for (int t = 0; t < tokens; t++) {
            xv[t] = x_load(x + (size_t)t * s->x_bytes);
            if (rows > 1) KEEP(xv[t]);
        }
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            const char *at = w + (size_t)r * s->w_bytes;
            if (tokens < 5 && tokens < TILE_TOKENS) __builtin_prefetch(at + ALONE_ROWS * s->w_bytes, 0, 2);      /* coming rows, to L2 */
            vw wv = load(at);
            if (tokens > 1) KEEP(wv);
#pragma GCC unroll 8
            for (int t = 0; t < tokens; t++) acc[t][r] = v_dot(wv, xv[t], acc[t][r]);
        }
    }
    size_t rest = (size_t)(s->cols % LANES);
    if (rest) {                                    /* as a vector that is filled up with zeros */
        char xs[TILE_TOKENS][LANES * X_SIZE] = {{0}};
        for (int t = 0; t < tokens; t++) memcpy(xs[t], x + (size_t)t * s->x_bytes, rest * X_SIZE);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            char ws[LANES * 4] = {0};
            memcpy(ws, w + (size_t)r * s->w_bytes, rest * size);
            vw wv = load(ws);
#pragma GCC unroll 8
            for (int t = 0; t < tokens; t++) acc[t][r] = v_dot(wv, x_load(xs[t]), acc[t][r]);
        }
    }
    const size_t bytes = rows < TILE_ROWS ? (size_t)rows * 4 : sizeof(v4);
#pragma GCC unroll 8
    for (int t = 0; t < tokens; t++) {
#pragma GCC unroll 2
        for (int r = 0; r < rows; r += TILE_ROWS) {
            float *y = s->y + t * s->y_stride + r;
            v4 sum = v_sum4(acc[t][r], acc[t][r + 1], acc[t][r + 2], acc[t][r + 3]), more = {0};
            if (!s->first) {
                memcpy(&more, y, bytes);
                sum += more;
            }
            if (s->bias) {
                memcpy(&more, s->bias + r, bytes);
                sum += more;
            }
            memcpy(y, &sum, bytes);
        }
    }
}

/* The tile at row r and token t; count: tokens that are left, at most TILE_TOKENS are taken. */
INLINE void tile_at(w_loader load, size_t size, const span *all, int64_t r, const int rows, int64_t t, int64_t count)
{
    span s = *all;
    s.x += (size_t)t * s.x_bytes;
    s.y += t * s.y_stride + r;
    s.w += (size_t)r * s.w_bytes;
    if (s.bias) s.bias += r;
    if (count >= TILE_TOKENS) tile(load, size, rows, TILE_TOKENS, &s);
    else if (rows == 1) for (; count > 0; count--, s.x += s.x_bytes, s.y += s.y_stride) tile(load, size, 1, 1, &s);
    else if (count == 1) tile(load, size, rows, 1, &s);
    else if (count == 2) tile(load, size, rows, 2, &s);
    else if (TILE_TOKENS > 3 && count == 3) tile(load, size, rows, 3, &s);
    else if (TILE_TOKENS > 4 && count == 4) tile(load, size, rows, 4, &s);
    else if (TILE_TOKENS > 5 && count == 5) tile(load, size, rows, 5, &s);
}

/* All tiles of `rows` x `n`. The longer side of a tile stays in L1 while the shorter ones pass: six tokens while all rows pass, or four rows while a block
 * of tokens does that L2 holds. */
INLINE void tiles(w_loader load, size_t size, const span *s, int64_t rows, int64_t n)
{
    enum { TOKENS = (int)TILE_TOKENS > (int)TILE_ROWS ? (int)TILE_TOKENS : 48 };
    for (int64_t first = 0; first < n; first += TOKENS) {
        int64_t end = min64(first + TOKENS, n), r = 0;
        if (end - first == 1) {
            for (; r + ALONE_ROWS <= rows; r += ALONE_ROWS) {
                span one = *s;
                one.x += (size_t)first * s->x_bytes;
                one.y += first * s->y_stride + r;
                one.w += (size_t)r * s->w_bytes;
                if (one.bias) one.bias += r;
                tile(load, size, ALONE_ROWS, 1, &one);
            }
        }
        for (; r + TILE_ROWS <= rows; r += TILE_ROWS)
            for (int64_t t = first; t < end; t += TILE_TOKENS) tile_at(load, size, s, r, TILE_ROWS, t, end - t);
        for (; r < rows; r++)
            for (int64_t t = first; t < end; t += TILE_TOKENS) tile_at(load, size, s, r, 1, t, end - t);
    }
}
