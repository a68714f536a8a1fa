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
            if (tokens < 5) __builtin_prefetch(at + ALONE_ROWS * s->w_bytes, 0, 2);     /* coming rows, to L2 */
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

static inline void next_rows(span *s, int rows)
{
    s->y += rows;
    s->w += (size_t)rows * s->w_bytes;
    if (s->bias) s->bias += rows;
}

/* All tiles of `rows` x `n`: the activations of a tile stay in L1 while the rows pass. */
INLINE void tiles(w_loader load, size_t size, const span *all, int64_t rows, int64_t n)
{
    span s = *all;
    for (int64_t t = 0; t < n; t += TILE_TOKENS) {
        int64_t left = min64(n - t, TILE_TOKENS), r = 0;
        s.x = all->x + (size_t)t * all->x_bytes;
        s.y = all->y + t * all->y_stride;
        s.w = all->w;
        s.bias = all->bias;
        if (left == 1)
            for (; r + ALONE_ROWS <= rows; r += ALONE_ROWS, next_rows(&s, ALONE_ROWS)) tile(load, size, ALONE_ROWS, 1, &s);
        for (; r + TILE_ROWS <= rows; r += TILE_ROWS, next_rows(&s, TILE_ROWS)) {
            if (left == TILE_TOKENS) tile(load, size, TILE_ROWS, TILE_TOKENS, &s);
            else if (left == 1) tile(load, size, TILE_ROWS, 1, &s);
            else if (left == 2) tile(load, size, TILE_ROWS, 2, &s);
            else if (TILE_TOKENS > 3 && left == 3) tile(load, size, TILE_ROWS, 3, &s);
            else if (TILE_TOKENS > 4 && left == 4) tile(load, size, TILE_ROWS, 4, &s);
            else if (TILE_TOKENS > 5 && left == 5) tile(load, size, TILE_ROWS, 5, &s);
        }
        for (; r < rows; r++, next_rows(&s, 1)) {
            if (left == TILE_TOKENS) {
                tile(load, size, 1, TILE_TOKENS, &s);
                continue;
            }
            span one = s;
            for (int64_t i = 0; i < left; i++, one.x += all->x_bytes, one.y += all->y_stride) tile(load, size, 1, 1, &one);
        }
    }
}
