/* linear_int.h - the int8 path for affine weights of 4 and 8 bits, as a template: codes (unsigned) times activations (signed, quantized by token and
 * group of the weight: x = q * sx, sx = largest / 127).
 *
 *   y[t][o] = sum over groups g, in order, of  sx[t][g] * ( scale[o][g] * dot(code, q) + bias[o][g] * sum(q) )       dot and sum exact in int32
 *
 * Lanes are outputs. ROWS rows of the weight are a panel, one stream of memory: for each group [word][row] (a word of 32 bits is 8 or 4 codes of a row), then
 * scales [row], biases [row]. Each word is met by four activations of a token in all lanes. A word of 4-bit codes has the even columns in its low and
 * the odd ones in its high halves of bytes, so activations lie like that too. Panels are made at load (linear.c, cpu_prepare), else for each block in scratch.
 *
 * Packed activations: blocks of BLOCK tokens (the last may have fewer), in one [cols / 4][tokens][4] q, then [groups][2][BLOCK] sx and sum.
 * A tile takes TOKENS of them.
 *
 * The includer defines INT_LABEL, ROWS, TOKENS (8), BLOCK (8 or 16), CODE8_OFFSET (what dot8 takes off each code: 0 or 128), vf, vi, a few vector functions, and
 *   transpose_words(in, words, out)   `words` (at most ROWS) words of each of ROWS rows to [word][row]; reads no further
 *   v_scales(in, type)                ROWS scales as float32
 *   dot4(acc, words, x, tokens, width)   4 words = 32 codes of 4 bits; x: [word][half][width][4]
 *   dot8(acc, words, x, tokens, width)   4 words = 16 codes of 8 bits; x: [word][width][4] */
#include <string.h>

#include "tensor/cpu/linear.h"

#define INLINE static inline __attribute__((always_inline))

static int64_t groups_of(const weight *w) { return w->cols / w->group; }
static size_t token_bytes(const weight *w) { return (size_t)w->cols + (size_t)groups_of(w) * 2 * sizeof(float); }
static size_t int_x_bytes(const weight *w, int64_t n) { return (size_t)(n + BLOCK - 1) / BLOCK * BLOCK * token_bytes(w); }
static float *token_scales(const weight *w, char *block, int64_t tokens) { return (float *)(block + tokens * w->cols); }

/* Largest magnitude as bits: the order of non-negative floats is that of their bits, and this vectorizes. */
static float largest(const float *x, int n)
{
    uint32_t most = 0, bits[128];
    memcpy(bits, x, (size_t)n * 4);
    for (int i = 0; i < n; i++) {
        uint32_t b = bits[i] & 0x7fffffff;
        most = b > most ? b : most;
    }
    float f;
    memcpy(&f, &most, 4);
    return f;
}

static void int_pack(const weight *w, void *packed, int64_t n, int64_t t, const float *x)
{
    enum { ROUND = 0x4b400000 };                   /* 1.5 * 2^23: adding it rounds to a whole number in the low bits */
    int64_t first = t / BLOCK * BLOCK, tokens = min64(BLOCK, n - first);
    char *block = (char *)packed + (size_t)first * token_bytes(w), *out = block + (t - first) * 4;
    float *scales = token_scales(w, block, tokens) + (t - first);
    for (int64_t g = 0; g < groups_of(w); g++, x += w->group, scales += 2 * BLOCK) {
        float most = largest(x, w->group), inverse = most > 0 ? 127 / most : 0, magic[128];
        int32_t q[128], sum = 0;
        for (int i = 0; i < w->group; i++) magic[i] = x[i] * inverse + 12582912.0f;
        memcpy(q, magic, (size_t)w->group * 4);
        for (int i = 0; i < w->group; i++) q[i] -= ROUND;
        for (int i = 0; i < w->group; i++) sum += q[i];
        scales[0] = most / 127;
        scales[BLOCK] = (float)sum;
        for (int i = 0; i < w->group; i += 8) {
            const int32_t *v = q + i;
            int8_t even[4] = {(int8_t)v[0], (int8_t)v[2], (int8_t)v[4], (int8_t)v[6]}, odd[4] = {(int8_t)v[1], (int8_t)v[3], (int8_t)v[5], (int8_t)v[7]};
            int8_t low[4] = {(int8_t)v[0], (int8_t)v[1], (int8_t)v[2], (int8_t)v[3]}, high[4] = {(int8_t)v[4], (int8_t)v[5], (int8_t)v[6], (int8_t)v[7]};
            memcpy(out, w->bits == 4 ? even : low, 4);
            memcpy(out + 4 * tokens, w->bits == 4 ? odd : high, 4);
            out += 8 * tokens;
        }
    }
}

/* ---- panels ---- */

static size_t unit_bytes(const weight *w)          /* of a group in a panel */
{
    return ROWS * ((size_t)(w->group * w->bits / 8) + 2 * dtype_size(w->scale_type));
}
static size_t panel_bytes(const weight *w) { return (size_t)groups_of(w) * unit_bytes(w); }
static size_t int_scratch(const weight *w, int64_t n) { return w->packed ? 0 : panel_bytes(w); }
static size_t int_packed_bytes(const weight *w) { return (size_t)((w->rows + ROWS - 1) / ROWS) * panel_bytes(w); }

/* Rows o .. o + rows; those after the last repeat it (their results are not stored). */
static void make_panel(const weight *w, int64_t o, int64_t rows, char *out)
{
    const size_t scale = dtype_size(w->scale_type), stride = weight_row_bytes(w), scales_stride = (size_t)groups_of(w) * scale;
    const int words = w->group * w->bits / 32;
    const char *codes[ROWS], *scales[ROWS], *biases[ROWS];
    for (int r = 0; r < ROWS; r++) {
        size_t row = (size_t)(o + min64(r, rows - 1));
        codes[r] = (const char *)w->data + row * stride;
        scales[r] = (const char *)w->scales + row * scales_stride;
        biases[r] = (const char *)w->biases + row * scales_stride;
    }
    for (int64_t g = 0; g < groups_of(w); g++) {
        for (int i = 0; i < words; i += ROWS) {
            const uint32_t *at[ROWS];
            int count = words - i < ROWS ? words - i : ROWS;
            for (int r = 0; r < ROWS; r++) at[r] = (const uint32_t *)(codes[r] + 4 * i);
            transpose_words(at, count, (uint32_t *)out);
            out += 4 * ROWS * count;
        }
        for (int r = 0; r < ROWS; r++) {
            memcpy(out + (size_t)r * scale, scales[r], scale);
            memcpy(out + (size_t)(ROWS + r) * scale, biases[r], scale);
            codes[r] += 4 * words;
            scales[r] += scale;
            biases[r] += scale;
        }
        out += 2 * ROWS * scale;
    }
}

static void int_make_panels(const weight *w, char *packed, int64_t o0, int64_t o1)
{
    for (int64_t o = o0; o < o1; o += ROWS) make_panel(w, o, min64(ROWS, o1 - o), packed + (size_t)(o / ROWS) * panel_bytes(w));
}

/* ---- ROWS x tokens outputs ---- */

INLINE void int_tile(const weight *w, const int bits, const int tokens, const char *panel, const int8_t *x, const int64_t width, const float *scales,
                     float *y, int64_t y_stride, int64_t rows, const float *bias)
{
    enum { WORDS = 4, AHEAD = 4096 };
    vf sums[TOKENS];
    const int units = w->group * bits / 32 / WORDS;
    const size_t scale_bytes = ROWS * dtype_size(w->scale_type);
    const dtype type = w->scale_type;
#pragma GCC unroll 8
    for (int t = 0; t < tokens; t++) sums[t] = v_zero();
    for (int64_t g = 0, groups = groups_of(w); g < groups; g++, scales += 2 * BLOCK) {
        vi acc[TOKENS];
#pragma GCC unroll 8
        for (int t = 0; t < tokens; t++) acc[t] = vi_zero();
        for (int u = 0; u < units; u++, panel += WORDS * ROWS * 4, x += WORDS * 32 / bits * width) {
            if (tokens < 4)                        /* from memory to L2; more tokens have time enough */
                for (int i = 0; i < WORDS * ROWS * 4; i += 64) __builtin_prefetch(panel + AHEAD + i, 0, 2);
            if (bits == 4) dot4(acc, (const uint32_t *)panel, x, tokens, width);
            else dot8(acc, (const uint32_t *)panel, x, tokens, width);
        }
        vf scale = v_scales(panel, type), offset = v_scales(panel + scale_bytes, type);
        if (tokens < 4) __builtin_prefetch(panel + AHEAD, 0, 2);
        if (bits == 8 && CODE8_OFFSET) offset = v_fma(scale, v_set1(CODE8_OFFSET), offset);     /* what dot8 took off: exact to a rounding */
        panel += 2 * scale_bytes;
#pragma GCC unroll 8
        for (int t = 0; t < tokens; t++) {
            vf part = v_fma(vi_float(acc[t]), scale, v_mul(offset, v_set1(scales[BLOCK + t])));
            sums[t] = v_fma(part, v_set1(scales[t]), sums[t]);
        }
    }
    for (int t = 0; t < tokens; t++) {
        float sum[ROWS];
        v_store(sum, sums[t]);
        if (bias) for (int r = 0; r < rows; r++) sum[r] += bias[r];
        memcpy(y + t * y_stride, sum, (size_t)rows * 4);
    }
}

INLINE void int_tiles(const linear_product *p, const int bits, int64_t o, int64_t rows, int64_t t0, int64_t t1, const char *panel)
{
    const weight *w = &p->w;
    const float *bias = p->bias ? p->bias + o : NULL;
    for (int64_t t = t0; t < t1; t += TOKENS) {
        int64_t first = t / BLOCK * BLOCK, width = min64(BLOCK, p->n - first), tokens = min64(TOKENS, t1 - t);
        char *block = (char *)p->x + (size_t)first * token_bytes(w);
        const int8_t *x = (const int8_t *)block + 4 * (t - first);
        const float *scales = token_scales(w, block, width) + (t - first);
        float *y = p->y + t * p->y_stride + o;
#define TILE(count) int_tile(w, bits, count, panel, x, BLOCK == TOKENS ? count : width, scales, y, p->y_stride, rows, bias)
        switch (tokens) {
        case 1: TILE(1); break;
        case 2: TILE(2); break;
        case 3: TILE(3); break;
        case 4: TILE(4); break;
        case 5: TILE(5); break;
        case 6: TILE(6); break;
        case 7: TILE(7); break;
        default: TILE(8); break;
        }
#undef TILE
    }
}

static __attribute__((noinline)) void int_tiles4(const linear_product *p, int64_t o, int64_t rows, int64_t t0, int64_t t1, const char *panel)
{
    int_tiles(p, 4, o, rows, t0, t1, panel);
}
static __attribute__((noinline)) void int_tiles8(const linear_product *p, int64_t o, int64_t rows, int64_t t0, int64_t t1, const char *panel)
{
    int_tiles(p, 8, o, rows, t0, t1, panel);
}

static void int_block(const linear_product *p, int64_t o0, int64_t o1, int64_t t0, int64_t t1, void *scratch)
{
    for (int64_t o = o0; o < o1; o += ROWS) {
        int64_t rows = min64(ROWS, o1 - o);
        const char *panel = scratch;
        if (p->w.packed) panel = (const char *)p->w.packed + (size_t)(o / ROWS) * panel_bytes(&p->w);
        else make_panel(&p->w, o, rows, scratch);
        if (p->w.bits == 4) int_tiles4(p, o, rows, t0, t1, panel);
        else int_tiles8(p, o, rows, t0, t1, panel);
    }
}

#define INT_PATH {.name = INT_LABEL, .x_bytes = int_x_bytes, .pack = int_pack, .packed_bytes = int_packed_bytes, .repack = int_make_panels, \
                  .scratch = int_scratch, .block = int_block, .unit = ROWS}
