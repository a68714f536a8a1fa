/* linear_bf16_avx512vnni.c - bf16 weights times activations rounded to bf16, two columns a lane and instruction (vdpbf16ps). On AMD twice
 * the speed of float32; on Intel slower than that, so there this path is not taken.
 *
 * As in linear_dot.h: 6 x 4 tiles of vector accumulators, spans of columns added in order, bias last. Weights are read from the file as they
 * lie; activations are packed, rows filled up with zeros to a multiple of 32. */
#include <string.h>

#include "tensor/cpu/linear.h"
#include "tensor/cpu/linear_avx512.h"

#define INLINE static inline __attribute__((always_inline))

enum { TILE_ROWS = 6, TILE_TOKENS = 4, SPAN = 2048, ROW_BLOCK = 48, TOKEN_BLOCK = 64 };

static int64_t padded(int64_t cols) { return (cols + 31) / 32 * 32; }
static size_t x_bytes(const weight *w, int64_t n) { return (size_t)n * (size_t)padded(w->cols) * 2; }

static void pack(const weight *w, void *packed, int64_t n, int64_t t, const float *x)
{
    uint16_t *out = (uint16_t *)packed + t * padded(w->cols);
    for (int64_t c = 0; c < w->cols; c += 16) {
        int64_t left = w->cols - c;
        __mmask16 mask = left >= 16 ? 0xffff : (__mmask16)((1u << left) - 1);
        __m512 v = _mm512_maskz_loadu_ps(mask, x + c);
        _mm256_storeu_si256((void *)(out + c), (__m256i)_mm512_cvtneps_pbh(v));
    }
    if ((w->cols - 1) / 16 % 2 == 0) memset(out + padded(w->cols) - 16, 0, 32);
}

typedef struct span {
    float *y;
    int64_t y_stride;
    const uint16_t *x, *w;
    int64_t x_stride, w_stride, cols;
    bool first;
    const float *bias;
} span;

INLINE void tile(const int rows, const int tokens, const span *s)
{
    __m512 acc[TILE_ROWS * TILE_TOKENS + 3];
#pragma GCC unroll 32
    for (int i = 0; i < rows * tokens + 3; i++) acc[i] = _mm512_setzero_ps();
    const uint16_t *w = s->w, *x = s->x;
    for (int64_t left = s->cols; left > 0; left -= 32, w += 32, x += 32) {
        __m512i xv[TILE_TOKENS];
        __mmask32 mask = left >= 32 ? 0xffffffff : (__mmask32)((1u << left) - 1);
#pragma GCC unroll 8
        for (int t = 0; t < tokens; t++) xv[t] = _mm512_loadu_si512(x + t * s->x_stride);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            const uint16_t *at = w + r * s->w_stride;
            if (tokens < TILE_TOKENS) __builtin_prefetch(at + TILE_ROWS * s->w_stride, 0, 2);    /* the next rows, to L2 */
            __m512i wv = left >= 32 ? _mm512_loadu_si512(at) : _mm512_maskz_loadu_epi16(mask, at);
            __asm__("" : "+v"(wv));                /* one load for all tokens */
#pragma GCC unroll 8
            for (int t = 0; t < tokens; t++) acc[r * tokens + t] = _mm512_dpbf16_ps(acc[r * tokens + t], (__m512bh)wv, (__m512bh)xv[t]);
        }
    }
    float sums[TILE_ROWS * TILE_TOKENS + 3];
#pragma GCC unroll 8
    for (int i = 0; i < rows * tokens; i += 4) sum4_avx512(acc[i], acc[i + 1], acc[i + 2], acc[i + 3], sums + i);
    for (int r = 0; r < rows; r++) {
        for (int t = 0; t < tokens; t++) {
            float *y = s->y + t * s->y_stride + r, sum = sums[r * tokens + t];
            if (!s->first) sum += *y;
            *y = s->bias ? sum + s->bias[r] : sum;
        }
    }
}

static void tiles(span s, int64_t rows, int64_t n)
{
    const span all = s;
    for (int64_t r = 0; r < rows;) {
        bool whole = rows - r >= TILE_ROWS;
        s.w = all.w + r * all.w_stride;
        s.bias = all.bias ? all.bias + r : NULL;
        for (int64_t t = 0; t < n; t += TILE_TOKENS) {
            s.x = all.x + t * all.x_stride;
            s.y = all.y + t * all.y_stride + r;
            int64_t left = n - t;
            if (whole && left >= TILE_TOKENS) tile(TILE_ROWS, TILE_TOKENS, &s);
            else if (whole && left == 1) tile(TILE_ROWS, 1, &s);
            else if (whole && left == 2) tile(TILE_ROWS, 2, &s);
            else if (whole) tile(TILE_ROWS, 3, &s);
            else if (left >= TILE_TOKENS) tile(1, TILE_TOKENS, &s);
            else for (int64_t i = 0; i < left; i++, s.x += all.x_stride, s.y += all.y_stride) tile(1, 1, &s);
        }
        r += whole ? TILE_ROWS : 1;
    }
}

static void block(const linear_product *p, int64_t o0, int64_t o1, int64_t t0, int64_t t1, void *scratch)
{
    int64_t cols = p->w.cols, step = t1 - t0 <= TILE_TOKENS ? TILE_ROWS : ROW_BLOCK;
    for (int64_t o = o0; o < o1; o += step) {
        for (int64_t k = 0; k < cols; k += SPAN) {
            span s = {.y_stride = p->y_stride, .x_stride = padded(cols), .w_stride = cols, .cols = min64(SPAN, cols - k), .first = k == 0};
            s.w = (const uint16_t *)p->w.data + o * cols + k;
            s.bias = p->bias && k + SPAN >= cols ? p->bias + o : NULL;
            for (int64_t t = t0; t < t1; t += TOKEN_BLOCK) {
                s.x = (const uint16_t *)p->x + t * s.x_stride + k;
                s.y = p->y + t * p->y_stride + o;
                tiles(s, min64(o + step, o1) - o, min64(TOKEN_BLOCK, t1 - t));
            }
        }
    }
}

static const linear_path path = {.name = "bf16 avx512", .x_bytes = x_bytes, .pack = pack, .block = block, .unit = TILE_ROWS};

void linear_init_avx512bf16(linear_table *t) { t->fast[WF_BF16] = &path; }
