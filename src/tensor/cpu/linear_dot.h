/* linear_dot.h - the float32 path as a template: dot products of file rows with activation rows in the tiles of linear_tile.h.
 *
 * Weights are widened on the fly when few tokens are there, or once into scratch, [ROW_BLOCK x SPAN] float32 at a time, which gives the same
 * numbers.
 *
 * The includer defines: DOT_NAME, DOT_LABEL, LANES, TILE_TOKENS, vf, v_zero, v_load, v_store, v_fma, v_sum4, w_f32, w_bf16, w_f16 (LANES weights
 * widened), affine_start and affine_at (LANES codes of 4 or 8 bits of a group widened), affine_odd (a group of other codes widened) and KEEP_REGISTER. */
#define X_SIZE 4
#define vw vf
#define vx vf
#define v_dot(w, x, acc) v_fma(w, x, acc)
#define x_load(p) v_load((const float *)(p))
#include "tensor/cpu/linear_tile.h"

enum {
    SPAN = 1024,                                   /* columns; a multiple of every group size */
    ROW_BLOCK = 48,                                /* widened at once: 192 KiB, half of a small L2 */
    WIDEN_TOKENS = 3 * TILE_TOKENS,                /* from so many tokens on widening once pays for bf16 and f16 */
};

static __attribute__((noinline)) void tiles_f32(const span *s, int64_t rows, int64_t n) { tiles(w_f32, 4, s, rows, n); }
static __attribute__((noinline)) void tiles_bf16(const span *s, int64_t rows, int64_t n) { tiles(w_bf16, 2, s, rows, n); }
static __attribute__((noinline)) void tiles_f16(const span *s, int64_t rows, int64_t n) { tiles(w_f16, 2, s, rows, n); }

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
    for (int64_t i = 0; i < cols; i += w->group, index++, codes += w->group * w->bits / 8) {
        float scale = linear_scale(w->scales, w->scale_type, index), bias = linear_scale(w->biases, w->scale_type, index);
        affine_values v = affine_start(w->bits, scale, bias);
        if (w->bits == 4) for (int j = 0; j < w->group; j += LANES) v_store(out + i + j, affine_at(v, codes, 4, j));
        else if (w->bits == 8) for (int j = 0; j < w->group; j += LANES) v_store(out + i + j, affine_at(v, codes, 8, j));
        else affine_odd(codes, w->bits, w->group, scale, bias, out + i);
    }
}

/* One token and TILE_ROWS affine rows: widened in registers; the sums of tile(), in the same order. */
INLINE void affine_tile(const linear_product *p, int64_t o, const int bits)
{
    enum { AHEAD = 4 * TILE_ROWS };                /* rows that come to L2 meanwhile */
    const weight *w = &p->w;
    const size_t row_bytes = weight_row_bytes(w), group_bytes = (size_t)(w->group * bits / 8);
    const int64_t groups = w->cols / w->group, span_groups = SPAN / w->group;
    const uint8_t *codes = (const uint8_t *)w->data + (size_t)o * row_bytes;
    const float *x = p->x;
    v4 y = {0};
    for (int64_t g = 0; g < groups;) {
        vf acc[TILE_ROWS] = {v_zero(), v_zero(), v_zero(), v_zero()};
        int64_t first = g, end = min64(g + span_groups, groups);
        for (; g < end; g++, codes += group_bytes, x += w->group) {
#pragma GCC unroll 4
            for (int r = 0; r < TILE_ROWS; r++) {
                const uint8_t *at = codes + (size_t)r * row_bytes;
                int64_t index = (o + r) * groups + g;
                affine_values v = affine_start(bits, linear_scale(w->scales, w->scale_type, index), linear_scale(w->biases, w->scale_type, index));
                __builtin_prefetch(at + AHEAD * row_bytes, 0, 2);
                for (int i = 0; i < w->group; i += LANES) acc[r] = v_dot(affine_at(v, at, bits, i), v_load(x + i), acc[r]);
            }
        }
        v4 sum = v_sum4(acc[0], acc[1], acc[2], acc[3]);
        y = first ? sum + y : sum;
    }
    if (p->bias) {
        v4 bias;
        memcpy(&bias, p->bias + o, sizeof bias);
        y += bias;
    }
    memcpy(p->y + o, &y, sizeof y);
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
        span s = {.y_stride = p->y_stride, .x_bytes = (size_t)p->x_stride * 4, .cols = min64(SPAN, w->cols - k), .first = k == 0};
        if (p->bias && k + SPAN >= w->cols) s.bias = p->bias + o0;
        if (wide) {
            for (int64_t o = o0; o < o1; o++) widen(w, o, k, s.cols, wide + (o - o0) * SPAN);
            s.w = (const char *)wide;
            s.w_bytes = SPAN * sizeof(float);
        } else {
            s.w_bytes = weight_row_bytes(w);
            s.w = (const char *)w->data + (size_t)o0 * s.w_bytes + (size_t)k * size;
        }
        s.x = (const char *)((const float *)p->x + t0 * p->x_stride + k);
        s.y = p->y + t0 * p->y_stride + o0;
        if (wide || w->format == WF_F32) tiles_f32(&s, o1 - o0, t1 - t0);
        else if (w->format == WF_BF16) tiles_bf16(&s, o1 - o0, t1 - t0);
        else tiles_f16(&s, o1 - o0, t1 - t0);
    }
}

static void dot_block(const linear_product *p, int64_t o0, int64_t o1, int64_t t0, int64_t t1, void *scratch)
{
    float *wide = widens(&p->w, p->n) ? scratch : NULL;
    int64_t step = t1 - t0 <= TILE_TOKENS ? ALONE_ROWS : ROW_BLOCK;      /* few tokens: one row tile to its end, as the memory lies */
    if (p->n == 1 && p->w.format == WF_AFFINE && (p->w.bits == 4 || p->w.bits == 8)) {
        for (; o0 + TILE_ROWS <= o1; o0 += TILE_ROWS) {
            if (p->w.bits == 4) affine_tile(p, o0, 4);
            else affine_tile(p, o0, 8);
        }
    }
    for (int64_t o = o0; o < o1; o += step) row_block(p, o, min64(o + step, o1), t0, t1, wide);
}

static const linear_path DOT_NAME = {.name = DOT_LABEL, .scratch = dot_scratch, .block = dot_block, .unit = ALONE_ROWS};

/* Groups of other widths than 4 and 8 bits: eight codes are `bits` bytes. */
INLINE uint64_t codes_word(const uint8_t *codes, int bits)
{
    uint64_t word = 0;
    for (int i = 0; i < bits; i++) word |= (uint64_t)codes[i] << (8 * i);
    return word;
}
