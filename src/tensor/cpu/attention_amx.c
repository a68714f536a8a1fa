/* attention_amx.c - attention with AMX tiles, for PRECISION_FAST: queries, keys, values and probabilities rounded to bfloat16, sums in float32.
 *
 * A call takes a block of ATTEND_KEYS keys (four strips of 32) to all rows; strips of pages are brought into tiles first:
 *   keys     as tiles B: [half: 16 keys][32 dimensions][16 pairs of dimensions][16 keys][2]
 *   values   as tiles B: [16 dimensions][16 pairs of keys][16 dimensions][2]
 *   rows     16 to a tile A, two tiles at once: scores = Q . K to memory, softmax there, O = O * correction + P . V
 * The tiles cost less than the softmax between them. Every sum runs over dimensions, or keys, in chunks of 32 at fixed places: a row
 * gives the same bits in any company. Keys that nobody sees are read as zero, as they may be anything. */
#include <math.h>

#include "tensor/cpu/cpu.h"
#include "tensor/cpu/vec.h"

enum { TILE = 16, DEPTH = 32, TILE_BYTES = 1024, MOST_DIM = ATTEND_AMX_DIM };

V_INLINE int chunks(int n, int size) { return (n + size - 1) / size; }

/* gcc takes the configuration for read in its first bytes only and drops the other stores: the barrier keeps them. */
static void configure(void)
{
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } config __attribute__((aligned(64))) = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.bytes[i] = 64;
        config.rows[i] = TILE;
    }
    __asm__ volatile("" : : "r"(&config) : "memory");
    _tile_loadconfig(&config);
}

V_INLINE __mmask32 first_lanes(int n) { return n >= 32 ? 0xffffffffu : n > 0 ? (1u << n) - 1 : 0; }

/* n of 32 values from `at` on as bf16; the others 0. */
V_INLINE __m512i load32(const void *p, int64_t at, int n, const dtype type)
{
    __mmask32 mask = first_lanes(n);
    if (type == DT_BF16) return _mm512_maskz_loadu_epi16(mask, (const uint16_t *)p + at);
    __m512 low, high;
    if (type == DT_F32) {
        low = _mm512_maskz_loadu_ps((__mmask16)mask, (const float *)p + at);
        high = _mm512_maskz_loadu_ps((__mmask16)(mask >> 16), (const float *)p + at + 16);
    } else {
        __m512i half = _mm512_maskz_loadu_epi16(mask, (const uint16_t *)p + at);
        low = _mm512_cvtph_ps(_mm512_castsi512_si256(half));
        high = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(half, 1));
    }
    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

/* Values of two rows side by side: lanes 0..15 to *low, 16..31 to *high (may be NULL). */
V_INLINE void pair_up(__m512i even, __m512i odd, char *low, char *high)
{
    __m512i step = _mm512_set_epi32(15 | 47 << 16, 14 | 46 << 16, 13 | 45 << 16, 12 | 44 << 16, 11 | 43 << 16, 10 | 42 << 16, 9 | 41 << 16,
                                    8 | 40 << 16, 7 | 39 << 16, 6 | 38 << 16, 5 | 37 << 16, 4 | 36 << 16, 3 | 35 << 16, 2 | 34 << 16,
                                    1 | 33 << 16, 32 << 16);
    _mm512_storeu_si512(low, _mm512_permutex2var_epi16(even, step, odd));
    if (high) _mm512_storeu_si512(high, _mm512_permutex2var_epi16(even, _mm512_add_epi16(step, _mm512_set1_epi16(16)), odd));
}

V_INLINE void turn_strip_keys(char *tiles, const void *keys, int head_dim, const dtype type)
{
    int depth = chunks(head_dim, DEPTH);
    for (int pair = 0; pair < depth * TILE; pair++) {
        __m512i even = load32(keys, (int64_t)2 * pair * ATTEND_STRIP, 2 * pair < head_dim ? 32 : 0, type);
        __m512i odd = load32(keys, (int64_t)(2 * pair + 1) * ATTEND_STRIP, 2 * pair + 1 < head_dim ? 32 : 0, type);
        char *low = tiles + (size_t)(pair / TILE) * TILE_BYTES + (size_t)(pair % TILE) * 64;
        pair_up(even, odd, low, low + (size_t)depth * TILE_BYTES);
    }
}

/* Keys lo .. hi of the strip count. */
V_INLINE void turn_strip_values(char *tiles, const void *values, int64_t stride, int head_dim, int lo, int hi, const dtype type)
{
    for (int pair = 0; pair < TILE; pair++) {
        bool even_seen = 2 * pair >= lo && 2 * pair < hi, odd_seen = 2 * pair + 1 >= lo && 2 * pair + 1 < hi;
        for (int d = 0; d < head_dim; d += 32) {
            __m512i even = load32(values, 2 * pair * stride + d, even_seen ? head_dim - d : 0, type);
            __m512i odd = load32(values, (2 * pair + 1) * stride + d, odd_seen ? head_dim - d : 0, type);
            char *low = tiles + (size_t)(d / TILE) * TILE_BYTES + (size_t)pair * 64;
            pair_up(even, odd, low, d + TILE < head_dim ? low + TILE_BYTES : NULL);
        }
    }
}

V_INLINE size_t key_bytes(int head_dim) { return (size_t)2 * (size_t)chunks(head_dim, DEPTH) * TILE_BYTES; }
V_INLINE size_t value_bytes(int head_dim) { return (size_t)chunks(head_dim, TILE) * TILE_BYTES; }

typedef struct tiles { const char *keys[ATTEND_STRIPS], *values[ATTEND_STRIPS]; } tiles;

/* Strips that hold keys from .. to (of the block) as tiles in room for keys and values. */
V_INLINE tiles turn_block(char *keys, char *values, const attend_block *b, int head_dim, int value_dim, int from, int to, const dtype type)
{
    tiles t = {{0}, {0}};
    for (int strip = from / ATTEND_STRIP; strip * ATTEND_STRIP < to; strip++, keys += key_bytes(head_dim), values += value_bytes(value_dim)) {
        int first = strip * ATTEND_STRIP;
        turn_strip_keys(keys, b->keys[strip], head_dim, type);
        turn_strip_values(values, b->values[strip], b->value_stride, value_dim, from - first, to - first, type);
        t.keys[strip] = keys, t.values[strip] = values;
    }
    return t;
}

/* Strips of keys that lie in rows: pairs of dimensions are turned as whole words. */
static void pack_strip(void *strip, const float *k, int64_t k_stride, const float *v, int64_t v_stride, int n, int head_dim)
{
    const __m512i column = _mm512_mullo_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0), _mm512_set1_epi32(TILE));
    uint32_t square[TILE * TILE] __attribute__((aligned(64)));
    char *to = strip;
    for (int half = 0; half < 2; half++) {
        for (int d = 0; d < head_dim; d += DEPTH, to += TILE_BYTES) {
            for (int i = 0; i < TILE; i++) {
                int key = half * TILE + i;
                _mm512_store_si512(square + i * TILE, load32(k, key * k_stride + d, key < n ? head_dim - d : 0, DT_F32));
            }
            for (int pair = 0; pair < TILE; pair++) _mm512_storeu_si512(to + pair * 64, _mm512_i32gather_epi32(column, square + pair, 4));
        }
    }
    turn_strip_values((char *)strip + key_bytes(head_dim), v, v_stride, head_dim, 0, n, DT_F32);
}

static size_t strip_bytes(int head_dim, size_t *values_at)
{
    *values_at = key_bytes(head_dim);
    return key_bytes(head_dim) + value_bytes(head_dim);
}

/* Scores of 32 (two) or 16 rows with the two halves of a strip. */
V_INLINE void scores(float *s, const char *q, const char *keys, int depth, const bool two)
{
    _tile_zero(0);
    _tile_zero(1);
    if (two) {
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int c = 0; c < depth; c++) {
        _tile_loadd(4, q + c * 64, (size_t)depth * 64);
        _tile_loadd(6, keys + (size_t)c * TILE_BYTES, 64);
        _tile_loadd(7, keys + (size_t)(depth + c) * TILE_BYTES, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        if (two) {
            _tile_loadd(5, q + (size_t)(TILE * depth + c) * 64, (size_t)depth * 64);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, s, ATTEND_KEYS * 4);
    _tile_stored(1, s + TILE, ATTEND_KEYS * 4);
    if (two) {
        _tile_stored(2, s + TILE * ATTEND_KEYS, ATTEND_KEYS * 4);
        _tile_stored(3, s + TILE * ATTEND_KEYS + TILE, ATTEND_KEYS * 4);
    }
}

/* O += P . V for 32 or 16 rows and 32 (wide) or 16 dimensions, over strips. */
V_INLINE void values(float *o, int64_t o_stride, const uint16_t *p, const char *const *strip, size_t at, int strips, const bool two, const bool wide)
{
    size_t stride = (size_t)o_stride * 4;
    float *o1 = o + TILE * o_stride;
    _tile_loadd(0, o, stride);
    if (wide) _tile_loadd(1, o + TILE, stride);
    if (two) _tile_loadd(2, o1, stride);
    if (two && wide) _tile_loadd(3, o1 + TILE, stride);
    for (int i = 0; i < strips; i++, p += ATTEND_STRIP) {
        _tile_loadd(4, p, ATTEND_KEYS * 2);
        _tile_loadd(6, strip[i] + at, 64);
        _tile_dpbf16ps(0, 4, 6);
        if (wide) {
            _tile_loadd(7, strip[i] + at + TILE_BYTES, 64);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (two) {
            _tile_loadd(5, p + TILE * ATTEND_KEYS, ATTEND_KEYS * 2);
            _tile_dpbf16ps(2, 5, 6);
            if (wide) _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, o, stride);
    if (wide) _tile_stored(1, o + TILE, stride);
    if (two) _tile_stored(2, o1, stride);
    if (two && wide) _tile_stored(3, o1 + TILE, stride);
}

/* 2^t for t <= 0 within 1e-4, which bf16 does not show; -infinity gives 0. */
V_INLINE vf exp2_rough(vf t)
{
    t = v_max(v_set(-200), t);
    vf n = v_round(t), f = v_sub(t, n);
    vf p = v_fma(v_set(5.5838283e-2f), f, v_set(2.4263948e-1f));
    p = v_fma(p, f, v_set(6.9313673e-1f));
    p = v_fma(p, f, v_set(9.9992456e-1f));
    return _mm512_scalef_ps(p, n);
}

/* x where lo <= place < hi, else -infinity. */
V_INLINE vf inside(vf x, int j, int lo, int hi)
{
    if (j >= lo && j + V_LEN <= hi) return x;
    vf place = v_add(v_lanes(), v_set((float)j)), outside = v_set(-INFINITY);
    return v_select(v_lt(place, v_set((float)lo)), outside, v_select(v_lt(place, v_set((float)hi)), x, outside));
}

/* Scores of row i to probabilities in bf16, 0 outside [lo, hi), for keys from .. to (multiples of a strip). Returns the correction. */
V_INLINE float soften(uint16_t *p, float *s, const attend_rows *t, int i, int lo, int hi, int from, int to)
{
    if (lo >= hi) {
        memset(p + from, 0, (size_t)(to - from) * sizeof *p);
        return 1;
    }
    float factor = t->scale;                       /* of what is in s */
    if (t->cap > 0) {
        const vf cap = v_set(t->cap), scale = v_set(t->scale / t->cap);
        for (int j = from; j < to; j += V_LEN) v_store(s + j, v_mul(cap, v_tanh(v_mul(v_load(s + j), scale))));
        factor = 1;
    }
    vf most = v_set(-INFINITY);
    for (int j = from; j < to; j += V_LEN) most = v_max(most, inside(v_load(s + j), j, lo, hi));
    float before = t->most[i], now = v_hmax(most) * factor;
    if (before > now) now = before;
    const vf unit = v_set(factor * 1.44269504f), shift = v_set(-now * 1.44269504f);
    const __m512bh ones = (__m512bh)_mm512_set1_epi16(0x3f80);
    vf sum = v_set(0);                             /* of what is multiplied with values: rounded */
    for (int j = from; j < to; j += 2 * V_LEN) {
        vf low = exp2_rough(inside(v_fma(v_load(s + j), unit, shift), j, lo, hi));
        vf high = exp2_rough(inside(v_fma(v_load(s + j + V_LEN), unit, shift), j + V_LEN, lo, hi));
        __m512bh both = _mm512_cvtne2ps_pbh(high, low);
        _mm512_storeu_si512(p + j, (__m512i)both);
        sum = _mm512_dpbf16_ps(sum, both, ones);
    }
    float correction = before == now ? 1 : v_first(v_exp(v_set(before - now)));
    t->most[i] = now;
    t->sum[i] = t->sum[i] * correction + v_sum(sum);
    return correction;
}

V_INLINE int least(int a, int b) { return a < b ? a : b; }
V_INLINE int largest(int a, int b) { return a > b ? a : b; }

/* Rows row .. row + n of t, n <= 32. */
V_INLINE void attend_group(const attend_rows *t, const tiles *b, int32_t base, int row, const int n, const bool two)
{
    float s[2 * TILE * ATTEND_KEYS] __attribute__((aligned(64)));
    uint16_t p[2 * TILE * ATTEND_KEYS] __attribute__((aligned(64)));
    int lo[2 * TILE], hi[2 * TILE], from = ATTEND_KEYS, to = 0, depth = chunks(t->head_dim, DEPTH), wide = chunks(t->value_dim, TILE);
    for (int i = 0; i < n; i++) {
        lo[i] = largest(t->first[row + i] - base, 0);
        hi[i] = least(t->end[row + i] - base, ATTEND_KEYS);
        if (lo[i] < hi[i]) from = least(from, lo[i]), to = largest(to, hi[i]);
    }
    if (from >= to) return;
    int strip = from / ATTEND_STRIP, strips = chunks(to, ATTEND_STRIP) - strip;
    const char *q = (const char *)t->q + (size_t)row * (size_t)depth * 64;
    for (int k = strip; k < strip + strips; k++) scores(s + k * ATTEND_STRIP, q, b->keys[k], depth, two);
    float *o = t->o + row * t->o_stride;
    for (int i = 0; i < n; i++) {
        float correction = soften(p + i * ATTEND_KEYS, s + i * ATTEND_KEYS, t, row + i, lo[i], hi[i], strip * ATTEND_STRIP,
                                  (strip + strips) * ATTEND_STRIP);
        if (correction == 1) continue;
        for (int64_t d = 0; d < t->o_stride; d += V_LEN) v_store(o + i * t->o_stride + d, v_mul(v_load(o + i * t->o_stride + d), v_set(correction)));
    }
    for (int i = n; i < (two ? 2 * TILE : TILE); i++) memset(p + i * ATTEND_KEYS, 0, ATTEND_KEYS * sizeof *p);
    for (int d = 0; d < wide; d += 2) {
        const size_t at = (size_t)d * TILE_BYTES;
        if (d + 1 < wide) values(o + d * TILE, t->o_stride, p + strip * ATTEND_STRIP, b->values + strip, at, strips, two, true);
        else values(o + d * TILE, t->o_stride, p + strip * ATTEND_STRIP, b->values + strip, at, strips, two, false);
    }
}

static void attend(const attend_rows *t, const attend_block *b, int32_t base)
{
    char key_tiles[ATTEND_KEYS * MOST_DIM * 2] __attribute__((aligned(64)));
    char value_tiles[ATTEND_KEYS * MOST_DIM * 2] __attribute__((aligned(64)));
    int from = ATTEND_KEYS, to = 0;
    for (int i = 0; i < t->rows; i++) {
        int lo = largest(t->first[i] - base, 0), hi = least(t->end[i] - base, ATTEND_KEYS);
        if (lo < hi) from = least(from, lo), to = largest(to, hi);
    }
    if (from >= to) return;
    configure();
    tiles turned;
    if (b->packed) {
        for (int i = 0; i < ATTEND_STRIPS; i++) turned.keys[i] = b->keys[i], turned.values[i] = b->values[i];
    } else if (b->type == DT_BF16) turned = turn_block(key_tiles, value_tiles, b, t->head_dim, t->value_dim, from, to, DT_BF16);
    else if (b->type == DT_F32) turned = turn_block(key_tiles, value_tiles, b, t->head_dim, t->value_dim, from, to, DT_F32);
    else turned = turn_block(key_tiles, value_tiles, b, t->head_dim, t->value_dim, from, to, DT_F16);
    for (int row = 0; row < t->rows; row += 2 * TILE) {
        int n = least(2 * TILE, t->rows - row);
        if (n > TILE) attend_group(t, &turned, base, row, n, true);
        else attend_group(t, &turned, base, row, n, false);
    }
}

/* [rows, rounded up to 16][dimensions, rounded up to 32] in bf16, filled up with zeros. */
static void attend_queries(float *packed, const float *const *q, int rows, int head_dim)
{
    int depth = chunks(head_dim, DEPTH);
    char *to = (char *)packed;
    for (int i = 0; i < chunks(rows, TILE) * TILE; i++)
        for (int d = 0; d < depth * DEPTH; d += 32, to += 64) {
            __m512i half = i < rows ? load32(q[i], d, head_dim - d, DT_F32) : _mm512_setzero_si512();
            _mm512_storeu_si512(to, half);
        }
}

void cpu_attention_amx(cpu_kernels *k)
{
    k->attend_queries = attend_queries;
    k->attend = attend;
    k->strip_bytes = strip_bytes;
    k->pack_strip = pack_strip;
    k->tile_rows = 192;
}
