/* linear_bf16_avx512vnni.c - bf16 weights times activations rounded to bf16, two columns a lane and instruction (vdpbf16ps). On AMD twice
 * the speed of float32; on Intel slower than that, so there this path is not taken. Weights are read from the file as they lie, in the tiles of
 * linear_tile.h. */
#include <stdint.h>

#include "tensor/cpu/linear_avx512.h"

enum { LANES = 32, TILE_TOKENS = 6, X_SIZE = 2, SPAN = 2048, ROW_BLOCK = 48 };
#define KEEP_REGISTER(v) "+v"(v)
typedef __m512 vf;
typedef __m512i vw, vx;

static inline vf v_zero(void) { return _mm512_setzero_ps(); }
static inline vx x_load(const void *p) { return _mm512_loadu_si512(p); }
static inline vw w_load(const void *p) { return _mm512_loadu_si512(p); }
static inline vf v_dot(vw w, vx x, vf acc) { return _mm512_dpbf16_ps(acc, (__m512bh)w, (__m512bh)x); }
static inline v4 v_sum4(vf a, vf b, vf c, vf d) { return sum4_avx512(a, b, c, d); }
#include "tensor/cpu/linear_tile.h"

static size_t x_bytes(const weight *w, int64_t n) { return (size_t)n * (size_t)w->cols * 2; }

static void pack(const weight *w, void *packed, int64_t n, int64_t t, const float *x)
{
    uint16_t *out = (uint16_t *)packed + t * w->cols;
    for (int64_t c = 0; c < w->cols; c += 16) {
        int64_t left = w->cols - c;
        __mmask16 mask = left >= 16 ? 0xffff : (__mmask16)((1u << left) - 1);
        _mm256_mask_storeu_epi16(out + c, mask, (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, x + c)));
    }
}

static void block(const linear_product *p, int64_t o0, int64_t o1, int64_t t0, int64_t t1, void *scratch)
{
    int64_t cols = p->w.cols, step = t1 - t0 <= TILE_TOKENS ? ALONE_ROWS : ROW_BLOCK;      /* few tokens: as the memory lies */
    for (int64_t o = o0; o < o1; o += step) {
        for (int64_t k = 0; k < cols; k += SPAN) {
            span s = {.y_stride = p->y_stride, .x_bytes = (size_t)cols * 2, .w_bytes = (size_t)cols * 2, .cols = min64(SPAN, cols - k), .first = k == 0};
            s.w = (const char *)((const uint16_t *)p->w.data + o * cols + k);
            s.bias = p->bias && k + SPAN >= cols ? p->bias + o : NULL;
            s.x = (const char *)((const uint16_t *)p->x + t0 * cols + k);
            s.y = p->y + t0 * p->y_stride + o;
            tiles(w_load, 2, &s, min64(o + step, o1) - o, t1 - t0);
        }
    }
}

static const linear_path path = {.name = "bf16 avx512", .x_bytes = x_bytes, .pack = pack, .block = block, .unit = ALONE_ROWS};

void linear_init_avx512bf16(linear_table *t) { t->fast[WF_BF16] = &path; }
