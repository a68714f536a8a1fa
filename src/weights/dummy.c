/* dummy.c - see dummy.h. A block of random values small enough for the cache is made once per matrix and copied over it by all
 * threads, each piece from another place of the block: as fast as memory takes it. Values are uniform with the variance 1 / cols,
 * so that activations stay in range. */
#include "weights/dummy.h"

#include <math.h>
#include <string.h>

#include "base/thread.h"

enum { BLOCK = 256 * 1024, PIECE = 128 * 1024 };

static const struct { const char *name; weight_format format; int bits; } formats[] = {
    {"bf16", WF_BF16, 16}, {"f32", WF_F32, 32}, {"f16", WF_F16, 16}, {"q8", WF_AFFINE, 8}, {"q4", WF_AFFINE, 4},
};

static int find_format(const char *name)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (!strcmp(name, formats[i].name)) return (int)i;
    return -1;
}

bool dummy_format_known(const char *format) { return find_format(format) >= 0; }

static uint64_t next_random(uint64_t *state)        /* splitmix64 */
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

typedef struct fill { uint8_t *to; const uint8_t *block; size_t bytes; } fill;

static void fill_pieces(void *arg, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const fill *f = arg;
    for (int64_t i = begin; i < end; i++) {
        size_t at = (size_t)i * PIECE, n = f->bytes - at < PIECE ? f->bytes - at : PIECE;
        memcpy(f->to + at, f->block + (size_t)(i * 7919 % 2048) * 64, n);
    }
}

static bool make_block(uint8_t *block, weight_format format, float amplitude, uint64_t seed)
{
    if (format == WF_AFFINE) {
        for (size_t i = 0; i < BLOCK; i += 8) {
            uint64_t r = next_random(&seed);
            memcpy(block + i, &r, 8);
        }
        return true;
    }
    size_t unit = format == WF_F32 ? 4 : 2;
    for (size_t i = 0; i < BLOCK / unit; i++) {
        float x = ((float)(next_random(&seed) >> 40) * 0x1p-23f - 1.0f) * amplitude;
        uint16_t half = format == WF_F16 ? f32_to_f16(x) : f32_to_bf16(x);
        memcpy(block + i * unit, unit == 4 ? (const void *)&x : (const void *)&half, unit);
    }
    return true;
}

static uint16_t *constant_bf16(binder *b, size_t n, float value)
{
    uint16_t *out = arena_alloc_raw(b->memory, n * 2), bits = f32_to_bf16(value);
    for (size_t i = 0; out && i < n; i++) out[i] = bits;
    return out;
}

bool dummy_weight(binder *b, weight *w)
{
    int f = find_format(b->dummy_format);
    w->format = formats[f].format;
    w->bits = formats[f].bits;
    w->group = w->cols % 64 == 0 ? 64 : 32;
    if (w->format == WF_AFFINE && w->cols % w->group) w->format = WF_BF16;
    if (w->format != WF_AFFINE) w->bits = w->group = 0;
    w->scale_type = DT_BF16;
    size_t rows, bytes;
    if (!mem_mul((size_t)w->rows, w->experts ? (size_t)w->experts : 1, &rows) || !mem_mul(rows, weight_row_bytes(w), &bytes))
        return bind_fail(b, VLM_LIMIT, "%s: [%lld, %lld] is too large", w->name, (long long)w->rows, (long long)w->cols);
    float amplitude = sqrtf(3.0f / (float)w->cols);
    uint8_t *block = mem_aligned(BLOCK), *data = block ? arena_alloc_raw(b->memory, bytes ? bytes : 1) : NULL;
    bool ok = data && make_block(block, w->format, amplitude, b->parameters + 1);
    if (ok && w->format == WF_AFFINE) {
        size_t groups = rows * (size_t)(w->cols / w->group);
        w->scales = constant_bf16(b, groups, 2 * amplitude / (float)((1 << w->bits) - 1));
        w->biases = constant_bf16(b, groups, -amplitude);
        ok = w->scales && w->biases;
    }
    if (ok) {
        fill job = {data, block, bytes};
        pool_for(b->dev ? b->dev->pool : NULL, (int64_t)((bytes + PIECE - 1) / PIECE), 8, fill_pieces, &job);
        w->data = data;
    }
    mem_free(block);
    return ok || bind_fail(b, VLM_MEMORY, "%s: out of memory (%zu bytes of made-up weights)", w->name, bytes);
}

const float *dummy_vector(binder *b, int64_t n, const char *name)
{
    float *out = arena_alloc_raw(b->memory, (size_t)(n ? n : 1) * sizeof *out), value = strstr(name, "bias") ? 0.0f : 1.0f;
    if (!out) return bind_fail(b, VLM_MEMORY, "%s: out of memory", name), NULL;
    for (int64_t i = 0; i < n; i++) out[i] = value;
    return out;
}
