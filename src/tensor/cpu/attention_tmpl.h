/* attention_tmpl.h - the kernels of attention in the words of vec.h. A file that includes it defines KERNELS.
 *
 * For a tile of R rows and a block of ATTEND_KEYS keys:
 *   scores   S[R][keys]  = Q . K^T     keys lie along the vector (they are stored transposed), d in order
 *   softmax  each row: the block's largest score, correction of what was summed before, e^(s - most)
 *   values   O[R][d]     = O * correction + S . V     d < value_dim lies along the vector, keys in order
 * Both products hold a register tile of R rows times a few vectors. Every element is one chain of multiply-adds whose order
 * depends on head_dim and the key's position alone, whatever R is: a row gives the same bits in any company. Keys that a row
 * does not see get probability 0, which changes nothing in its sums. */
#include "tensor/cpu/cpu.h"
#include "tensor/cpu/vec.h"

#include <math.h>

/* Rows of the next register tile when `left` rows are left. */
V_INLINE int tile_rows(int left)
{
    if (left >= V_ROWS) return V_ROWS;
    if (V_ROWS > 8 && left >= 8) return 8;
    return left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

V_INLINE vf load_as(const void *p, int64_t at, const dtype type)
{
    if (type == DT_F32) return v_load((const float *)p + at);
    return type == DT_BF16 ? v_load_bf16((const uint16_t *)p + at) : v_load_f16((const uint16_t *)p + at);
}

V_INLINE vf load_some_as(const void *p, int64_t at, int n, const dtype type)
{
    if (n >= V_LEN) return load_as(p, at, type);
    if (type == DT_F32) return v_load_n((const float *)p + at, n);
    return type == DT_BF16 ? v_load_bf16_n((const uint16_t *)p + at, n) : v_load_f16_n((const uint16_t *)p + at, n);
}

/* Scores of R rows with VECTORS vectors of keys, from vector u of the block on. q: [head_dim][R]. */
V_INLINE void scores(float (*s)[ATTEND_KEYS], const float *q, const attend_block *b, int u, int head_dim, const int R, const int VECTORS,
                     const dtype type)
{
    enum { PER_STRIP = ATTEND_STRIP / V_LEN };
    vf sum[V_ROWS][8];
    const void *keys[8];
    int64_t at[8];
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; v++) {
        keys[v] = b->keys[(u + v) / PER_STRIP];
        at[v] = (u + v) % PER_STRIP * V_LEN;
    }
#pragma GCC unroll 16
    for (int i = 0; i < R; i++)
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) sum[i][v] = v_set(0);
    for (int d = 0; d < head_dim; d++, q += R) {
        vf key[8];
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) key[v] = load_as(keys[v], at[v] + (int64_t)d * ATTEND_STRIP, type);
#pragma GCC unroll 16
        for (int i = 0; i < R; i++) {
            vf query = v_set(q[i]);
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; v++) sum[i][v] = v_fma(query, key[v], sum[i][v]);
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < R; i++)
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) v_store(s[i] + (u + v) * V_LEN, sum[i][v]);
}

/* O[R][VECTORS vectors from column d] = O * correction + sum over keys [from, to) of p . v; n: columns that are left. */
V_INLINE void values(float *o, int64_t o_stride, const float (*p)[ATTEND_KEYS], const float *correction, const attend_block *b, int from, int to,
                     int64_t d, int n, const int R, const int VECTORS, const dtype type)
{
    vf sum[V_ROWS][8];
#pragma GCC unroll 16
    for (int i = 0; i < R; i++)
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) sum[i][v] = v_mul(v_load(o + i * o_stride + d + v * V_LEN), v_set(correction[i]));
    while (from < to) {
        int strip = from / ATTEND_STRIP, stop = (strip + 1) * ATTEND_STRIP < to ? (strip + 1) * ATTEND_STRIP : to;
        const void *rows = b->values[strip];
        int64_t at = (from - strip * ATTEND_STRIP) * b->value_stride + d;
        for (int j = from; j < stop; j++, at += b->value_stride) {
            vf value[8];
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; v++)
                value[v] = VECTORS == 1 ? load_some_as(rows, at, n, type) : load_as(rows, at + v * V_LEN, type);
#pragma GCC unroll 16
            for (int i = 0; i < R; i++) {
                vf chance = v_set(p[i][j]);
#pragma GCC unroll 8
                for (int v = 0; v < VECTORS; v++) sum[i][v] = v_fma(chance, value[v], sum[i][v]);
            }
        }
        from = stop;
    }
#pragma GCC unroll 16
    for (int i = 0; i < R; i++)
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) v_store(o + i * o_stride + d + v * V_LEN, sum[i][v]);
}

/* x where lo <= place < hi, else -infinity. */
V_INLINE vf inside(vf x, int j, int lo, int hi)
{
    if (j >= lo && j + V_LEN <= hi) return x;
    vf place = v_add(v_lanes(), v_set((float)j)), outside = v_set(-INFINITY);
    return v_select(v_lt(place, v_set((float)lo)), outside, v_select(v_lt(place, v_set((float)hi)), x, outside));
}

/* Scores of row i to probabilities relative to the largest so far, 0 outside [lo, hi). Vectors from .. to are written.
 * Returns the factor for what was summed before. */
V_INLINE float soften(float *s, const attend_rows *t, int i, int lo, int hi, int from, int to)
{
    if (lo >= hi) {
        for (int j = from; j < to; j += V_LEN) v_store(s + j, v_set(0));
        return 1;
    }
    float factor = t->scale;                       /* of what is in s */
    if (t->cap > 0 || t->scale < 0) {
        const vf scale = v_set(t->scale), cap = v_set(t->cap);
        for (int j = from; j < to; j += V_LEN) {
            vf x = v_mul(v_load(s + j), scale);
            v_store(s + j, t->cap > 0 ? v_mul(cap, v_tanh(v_div(x, cap))) : x);
        }
        factor = 1;
    }
    vf most = v_set(-INFINITY);
    for (int j = from; j < to; j += V_LEN) most = v_max(most, inside(v_load(s + j), j, lo, hi));
    float before = t->most[i], now = v_hmax(most) * factor;
    if (before > now) now = before;
    const vf unit = v_set(factor), shift = v_set(-now);
    vf sum = v_set(0);
    for (int j = from; j < to; j += V_LEN) {
        vf p = v_exp_below(inside(v_fma(v_load(s + j), unit, shift), j, lo, hi));
        v_store(s + j, p);
        sum = v_add(sum, p);
    }
    float correction = before == now ? 1 : v_first(v_exp(v_set(before - now)));
    t->most[i] = now;
    t->sum[i] = t->sum[i] * correction + v_sum(sum);
    return correction;
}

V_INLINE int least(int a, int b) { return a < b ? a : b; }
V_INLINE int largest(int a, int b) { return a > b ? a : b; }

/* A register tile: rows row .. row + R. */
V_INLINE void attend_tile(const attend_rows *t, const attend_block *b, int32_t base, int row, const int R, const dtype type)
{
    /* Registers: R * KEY_VECTORS sums. Few rows take more vectors, so that enough independent sums are under way. */
    const int VECTORS = R >= 8 || R == V_ROWS ? 2 : R == 4 && V_LEN != 8 ? 4 : R == 4 ? 2 : R == 2 ? 4 : 8;
    float s[V_ROWS][ATTEND_KEYS] __attribute__((aligned(64))), correction[V_ROWS];
    int lo[V_ROWS], hi[V_ROWS], from = ATTEND_KEYS, to = 0;
    for (int i = 0; i < R; i++) {
        lo[i] = largest(t->first[row + i] - base, 0);
        hi[i] = least(t->end[row + i] - base, ATTEND_KEYS);
        if (lo[i] < hi[i]) from = least(from, lo[i]), to = largest(to, hi[i]);
    }
    if (from >= to) return;
    for (int u = from / V_LEN / VECTORS * VECTORS; u * V_LEN < to; u += VECTORS)
        scores(s, t->q + (int64_t)row * t->head_dim, b, u, t->head_dim, R, VECTORS, type);
    int first = from / V_LEN * V_LEN, stop = (to + V_LEN - 1) / V_LEN * V_LEN;
    for (int i = 0; i < R; i++) correction[i] = soften(s[i], t, row + i, lo[i], hi[i], first, stop);
    float *o = t->o + row * t->o_stride;
    int64_t d = 0;
    for (; d + VECTORS * V_LEN <= t->value_dim; d += VECTORS * V_LEN)
        values(o, t->o_stride, s, correction, b, from, to, d, 0, R, VECTORS, type);
    for (; d + 2 * V_LEN <= t->value_dim; d += 2 * V_LEN) values(o, t->o_stride, s, correction, b, from, to, d, 0, R, 2, type);
    for (; d < t->value_dim; d += V_LEN) values(o, t->o_stride, s, correction, b, from, to, d, t->value_dim - (int)d, R, 1, type);
}

V_INLINE void attend_as(const attend_rows *t, const attend_block *b, int32_t base, const dtype type)
{
    for (int row = 0, n; row < t->rows; row += n) {
        n = tile_rows(t->rows - row);
        if (n == V_ROWS) attend_tile(t, b, base, row, V_ROWS, type);
        else if (n == 8) attend_tile(t, b, base, row, 8 <= V_ROWS ? 8 : V_ROWS, type);
        else if (n == 4) attend_tile(t, b, base, row, 4, type);
        else if (n == 2) attend_tile(t, b, base, row, 2, type);
        else attend_tile(t, b, base, row, 1, type);
    }
}

static void attend(const attend_rows *t, const attend_block *b, int32_t base)
{
    if (b->type == DT_F32) attend_as(t, b, base, DT_F32);
    else if (b->type == DT_BF16) attend_as(t, b, base, DT_BF16);
    else attend_as(t, b, base, DT_F16);
}

static void attend_queries(float *packed, const float *const *q, int rows, int head_dim)
{
    for (int row = 0, n; row < rows; row += n) {
        n = tile_rows(rows - row);
        float *tile = packed + (int64_t)row * head_dim;
        int i = 0;
        for (; i + 4 <= n; i += 4) {
            int d = 0;
            for (; d + 4 <= head_dim; d += 4) v_turn4(q + row + i, d, tile + (int64_t)d * n + i, n);
            for (; d < head_dim; d++) for (int k = i; k < i + 4; k++) tile[(int64_t)d * n + k] = q[row + k][d];
        }
        for (; i < n; i++) for (int d = 0; d < head_dim; d++) tile[(int64_t)d * n + i] = q[row + i][d];
    }
}

static void attend_merge(const attend_rows *t, const attend_rows *part)
{
    for (int i = 0; i < t->rows; i++) {
        if (part->most[i] == -INFINITY) continue;                          /* saw nothing there */
        float most = t->most[i] > part->most[i] ? t->most[i] : part->most[i];
        vf a = v_exp(v_set(t->most[i] - most)), c = v_exp(v_set(part->most[i] - most));
        float *o = t->o + i * t->o_stride;
        const float *p = part->o + i * part->o_stride;
        for (int64_t d = 0; d < t->value_dim; d += V_LEN) v_store(o + d, v_fma(v_load(o + d), a, v_mul(v_load(p + d), c)));
        t->sum[i] = t->sum[i] * v_first(a) + part->sum[i] * v_first(c);
        t->most[i] = most;
    }
}

static void attend_finish(float *out, const attend_rows *t, int i, const float *sink)
{
    float sum = t->sum[i], factor = 1;
    if (sink) {
        float most = t->most[i] > *sink ? t->most[i] : *sink;
        factor = v_first(v_exp(v_set(t->most[i] - most)));
        sum = sum * factor + v_first(v_exp(v_set(*sink - most)));
    }
    const vf f = v_set(factor / sum);
    const float *o = t->o + i * t->o_stride;
    int64_t d = 0;
    for (; d + V_LEN <= t->value_dim; d += V_LEN) v_store(out + d, v_mul(v_load(o + d), f));
    if (d < t->value_dim) v_store_n(out + d, v_mul(v_load(o + d), f), t->value_dim - (int)d);
}

static size_t strip_bytes(int head_dim, size_t *values_at)
{
    *values_at = (size_t)head_dim * ATTEND_STRIP * sizeof(float);
    return *values_at + (size_t)((head_dim + 15) & ~15) * ATTEND_STRIP * sizeof(float);
}

/* n rows of keys to [head_dim][ATTEND_STRIP], further columns zero. */
static void turn_keys(float *keys, const float *k, int64_t stride, int n, int head_dim)
{
    int j = 0;
    for (; j + V_SQUARE <= n; j += V_SQUARE) {
        int d = 0;
        for (; d + V_SQUARE <= head_dim; d += V_SQUARE) v_transpose(k + j * stride + d, stride, keys + (int64_t)d * ATTEND_STRIP + j, ATTEND_STRIP);
        for (; d < head_dim; d++) for (int i = j; i < j + V_SQUARE; i++) keys[(int64_t)d * ATTEND_STRIP + i] = k[i * stride + d];
    }
    for (; j < ATTEND_STRIP; j++) for (int d = 0; d < head_dim; d++) keys[(int64_t)d * ATTEND_STRIP + j] = j < n ? k[j * stride + d] : 0;
}

static void turn_values(float *values, const float *keys, int dims)
{
    int d = 0;
    for (; d + V_SQUARE <= dims; d += V_SQUARE)
        for (int j = 0; j < ATTEND_STRIP; j += V_SQUARE) v_transpose(keys + (int64_t)d * ATTEND_STRIP + j, ATTEND_STRIP, values + (int64_t)j * dims + d, dims);
    for (; d < dims; d++) for (int j = 0; j < ATTEND_STRIP; j++) values[(int64_t)j * dims + d] = keys[(int64_t)d * ATTEND_STRIP + j];
}

static void pack_strip(void *strip, const float *k, int64_t k_stride, const float *v, int64_t v_stride, int n, int head_dim)
{
    size_t values_at;
    strip_bytes(head_dim, &values_at);
    turn_keys(strip, k, k_stride, n, head_dim);
    float *to = (float *)((char *)strip + values_at);
    for (int i = 0; i < n; i++, to += (head_dim + 15) & ~15) {
        int d = 0;
        for (; d + V_LEN <= head_dim; d += V_LEN) v_store(to + d, v_load(v + i * v_stride + d));
        if (d < head_dim) v_store_n(to + d, v_load_n(v + i * v_stride + d, head_dim - d), head_dim - d);
    }
}

static void widen(float *out, const void *in, dtype type, int64_t n)
{
    for (int64_t i = 0; i < n; i += V_LEN) {
        int left = n - i < V_LEN ? (int)(n - i) : V_LEN;
        vf v = type == DT_BF16 ? load_some_as(in, i, left, DT_BF16) : type == DT_F16 ? load_some_as(in, i, left, DT_F16) : load_some_as(in, i, left, DT_F32);
        if (left == V_LEN) v_store(out + i, v);
        else v_store_n(out + i, v, left);
    }
}

static void narrow(void *out, dtype type, const float *in, int64_t n)
{
    if (type == DT_F32) {
        memcpy(out, in, (size_t)n * sizeof *in);
        return;
    }
    uint16_t *to = out;
    int64_t i = 0;
    for (; i + V_LEN <= n; i += V_LEN) {
        if (type == DT_BF16) v_store_bf16(to + i, v_load(in + i));
        else v_store_f16(to + i, v_load(in + i));
    }
    if (i < n && type == DT_BF16) v_store_bf16_n(to + i, v_load_n(in + i, (int)(n - i)), (int)(n - i));
    else if (i < n) v_store_f16_n(to + i, v_load_n(in + i, (int)(n - i)), (int)(n - i));
}

static float dot_sum(const float *q, const float *k, const float *rel, int64_t n)
{
    vf sum = v_set(0);
    int64_t i = 0;
    for (; i + V_LEN <= n; i += V_LEN) sum = v_fma(v_load(q + i), v_add(v_load(k + i), v_load(rel + i)), sum);
    if (i < n) sum = v_fma(v_load_n(q + i, (int)(n - i)), v_add(v_load_n(k + i, (int)(n - i)), v_load_n(rel + i, (int)(n - i))), sum);
    return v_sum(sum);
}

void KERNELS(cpu_kernels *k)
{
    k->attend_queries = attend_queries;
    k->attend = attend;
    k->attend_merge = attend_merge;
    k->attend_finish = attend_finish;
    k->strip_bytes = strip_bytes;
    k->pack_strip = pack_strip;
    k->turn_values = turn_values;
    k->tile_rows = 96;                             /* a multiple of 12 and 6 */
    k->widen = widen;
    k->narrow = narrow;
    k->dot_sum = dot_sum;
}
