/* linear_bf16_avx512vnni.c - bf16 weights times activations rounded to bf16, two columns a lane and instruction (vdpbf16ps). On AMD twice
 * the speed of float32; on Intel slower than that, so there this path is not taken.
 *
 * Lanes are outputs. 32 rows of the weight are a panel, one stream of memory: [pair of columns][row][2]; made at load (linear.c, cpu_prepare), else for each
 * block in scratch. Activations: blocks of TOKENS tokens (the last may have fewer), [pair of columns][token][2].
 *
 *   acc[t][32 rows] += panel[pair] * x[pair][t]       12 tokens x 32 rows in 24 registers
 *
 * The order of a sum is fixed: pairs in order within a span, spans added in order, bias last. Spans of the panels of a block stay in L2 while the tokens
 * pass. */
#include <stdint.h>

#include "tensor/cpu/linear_avx512.h"

#define INLINE static inline __attribute__((always_inline))

enum {
    VECTORS = 2, ROWS = 16 * VECTORS, TOKENS = 12,
    SPAN = 1024,                                   /* pairs: 128 KiB of a panel */
    PANELS = 4,                                    /* of a block */
    STEP = ROWS * 4,                               /* bytes of a pair of columns in a panel */
    FEW = 4,                                       /* tokens up to which memory is what a panel waits for */
    AHEAD = 4096,                                  /* bytes that then are on their way to L2 */
};

static int64_t pairs_of(const weight *w) { return (w->cols + 1) / 2; }
static size_t panel_bytes(const weight *w) { return (size_t)pairs_of(w) * STEP; }
static size_t packed_bytes(const weight *w) { return (size_t)((w->rows + ROWS - 1) / ROWS) * panel_bytes(w); }
static size_t scratch_bytes(const weight *w, int64_t n) { return w->packed ? 0 : panel_bytes(w); }

/* Rows o .. o + rows; those after the last repeat it (their results are not stored), an odd last column is followed by zeros. */
static void make_panel(const weight *w, int64_t o, int64_t rows, char *out)
{
    const uint16_t *data = w->data;
    for (int64_t c = 0; c < w->cols; c += 32, out += 16 * STEP) {
        int64_t left = w->cols - c;
        __mmask32 mask = left >= 32 ? 0xffffffff : (1u << left) - 1;
        for (int part = 0; part < VECTORS; part++) {
            __m512i v[16];
#pragma GCC unroll 16
            for (int r = 0; r < 16; r++) v[r] = _mm512_maskz_loadu_epi16(mask, data + (o + min64(16 * part + r, rows - 1)) * w->cols + c);
            transpose_avx512(v);
#pragma GCC unroll 16
            for (int i = 0; i < 16; i++)
                if (2 * i < left) _mm512_storeu_si512(out + i * STEP + part * 64, v[i]);
        }
    }
}

static void repack(const weight *w, char *packed, int64_t o0, int64_t o1)
{
    for (int64_t o = o0; o < o1; o += ROWS) make_panel(w, o, min64(ROWS, o1 - o), packed + (size_t)(o / ROWS) * panel_bytes(w));
}

static size_t x_bytes(const weight *w, int64_t n) { return (size_t)n * (size_t)pairs_of(w) * 4; }

static void pack(const weight *w, void *packed, int64_t n, int64_t t, const float *x)
{
    int64_t first = t / TOKENS * TOKENS, width = min64(TOKENS, n - first);
    char *out = (char *)packed + (size_t)(first * pairs_of(w) + (t - first)) * 4;
    for (int64_t c = 0; c < w->cols; c += 16) {
        int64_t left = w->cols - c;
        __mmask16 mask = left >= 16 ? 0xffff : (__mmask16)((1u << left) - 1);
        uint32_t pairs[8];
        _mm256_storeu_si256((void *)pairs, (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, x + c)));
        for (int i = 0; i < 8 && 2 * i < left; i++, out += 4 * width) memcpy(out, &pairs[i], 4);
    }
}

/* ROWS x tokens sums over `pairs` pairs of columns; first: y is not there yet; bias: set in the last span if there is one. */
typedef struct span { float *y; int64_t y_stride, pairs; bool first; const float *bias; __mmask16 mask[VECTORS]; } span;

INLINE void tile(const span *s, const char *w, const char *x, const int tokens, const int64_t width)
{
    __m512 acc[TOKENS][VECTORS];
#pragma GCC unroll 12
    for (int t = 0; t < tokens; t++)
#pragma GCC unroll 4
        for (int i = 0; i < VECTORS; i++) acc[t][i] = _mm512_setzero_ps();
    for (int64_t i = 0; i < s->pairs; i++, w += STEP, x += 4 * width) {
        if (tokens <= FEW) {
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++) __builtin_prefetch(w + AHEAD + 64 * v, 0, 2);
        }
        __m512i wv[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) wv[v] = _mm512_loadu_si512(w + 64 * v);
#pragma GCC unroll 12
        for (int t = 0; t < tokens; t++) {
            int32_t pair;
            memcpy(&pair, x + 4 * t, 4);
            __m512i xv = _mm512_set1_epi32(pair);
            __asm__("" : "+v"(xv));                /* one load for all uses */
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++) acc[t][v] = _mm512_dpbf16_ps(acc[t][v], (__m512bh)wv[v], (__m512bh)xv);
        }
    }
#pragma GCC unroll 12
    for (int t = 0; t < tokens; t++)
#pragma GCC unroll 4
        for (int i = 0; i < VECTORS; i++) {
            float *y = s->y + t * s->y_stride + 16 * i;
            __m512 sum = acc[t][i];
            if (!s->first) sum = _mm512_add_ps(_mm512_maskz_loadu_ps(s->mask[i], y), sum);
            if (s->bias) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(s->mask[i], s->bias + 16 * i));
            _mm512_mask_storeu_ps(y, s->mask[i], sum);
        }
}

/* All tokens of a span of a panel. */
static void tiles(const linear_product *p, span s, const char *w, int64_t k, int64_t t0, int64_t t1)
{
    for (int64_t t = t0, tokens; t < t1; t += tokens, s.y += tokens * s.y_stride) {
        int64_t first = t / TOKENS * TOKENS, width = min64(TOKENS, p->n - first);
        const char *x = (const char *)p->x + (size_t)(first * pairs_of(&p->w) + k * width + (t - first)) * 4;
        tokens = min64(first + width, t1) - t;
#define TILE(count) case count: tile(&s, w, x, count, width); break
        if (tokens == TOKENS) tile(&s, w, x, TOKENS, TOKENS);
        else if (width == 1) tile(&s, w, x, 1, 1);
        else switch (tokens) {
            TILE(1); TILE(2); TILE(3); TILE(4); TILE(5); TILE(6); TILE(7); TILE(8); TILE(9); TILE(10); TILE(11);
        }
#undef TILE
    }
}

static void block(const linear_product *p, int64_t o0, int64_t o1, int64_t t0, int64_t t1, void *scratch)
{
    const weight *w = &p->w;
    const int64_t step = t1 - t0 <= FEW || !w->packed ? ROWS : ROWS * PANELS, pairs = pairs_of(w);    /* few tokens: as the memory lies */
    for (int64_t first = o0; first < o1; first += step) {
        int64_t end = min64(first + step, o1);
        if (!w->packed) make_panel(w, first, end - first, scratch);
        for (int64_t k = 0; k < pairs; k += SPAN)
            for (int64_t o = first; o < end; o += ROWS) {
                const char *panel = w->packed ? (const char *)w->packed + (size_t)(o / ROWS) * panel_bytes(w) : scratch;
                uint64_t rows = (1ull << min64(ROWS, end - o)) - 1;
                span s = {.y = p->y + t0 * p->y_stride + o, .y_stride = p->y_stride, .pairs = min64(SPAN, pairs - k), .first = k == 0,
                          .bias = p->bias && k + SPAN >= pairs ? p->bias + o : NULL};
                for (int v = 0; v < VECTORS; v++) s.mask[v] = (__mmask16)(rows >> 16 * v);
                tiles(p, s, panel + (size_t)k * STEP, k, t0, t1);
            }
    }
}

static const linear_path path = {.name = "bf16 avx512", .x_bytes = x_bytes, .pack = pack, .packed_bytes = packed_bytes, .repack = repack,
                                 .scratch = scratch_bytes, .block = block, .unit = ROWS};

void linear_init_avx512bf16(linear_table *t) { t->fast[WF_BF16] = &path; }
