/* image_png_fast.c - the PNGs that are common (8 bits, not interlaced), several times faster than through libpng: libdeflate
 * inflates all rows at once, and filters are undone in place, so that a large gray or RGB picture is written once. Whatever is
 * unusual or wrong is left to libpng, which also has the messages. */
#include <libdeflate.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "media/image_png.h"

typedef struct layout {
    int64_t width, height;
    int channels;                  /* bytes a pixel as stored: 1 gray or palette, 2, 3, 4 */
    const uint8_t *palette;
    size_t colours;
    size_t compressed;             /* bytes of all IDAT chunks */
} layout;

static bool chunk_is(const uint8_t *body, const char *name)
{
    return memcmp(body - 4, name, 4) == 0;
}

static bool crc_is_right(const uint8_t *body, size_t length)
{
    return libdeflate_crc32(0, body - 4, length + 4) == be32(body + length);
}

/* Walks the chunks: first to check them and to find the palette, then to copy the compressed bytes to `to`. False when libpng
 * should look at it. */
static bool walk(bytes in, layout *l, uint8_t *to)
{
    l->compressed = 0;
    for (size_t at = 8; at + 12 <= in.size;) {
        size_t length = be32(in.data + at);
        const uint8_t *body = in.data + at + 8;
        if (length > in.size - at - 12) return false;
        if (!to && !crc_is_right(body, length)) return false;
        if (chunk_is(body, "IDAT")) {
            if (to) memcpy(to + l->compressed, body, length);
            l->compressed += length;
        } else if (chunk_is(body, "PLTE")) {
            if (!to) l->palette = body, l->colours = length / 3;
        } else if (chunk_is(body, "IEND")) {
            return l->compressed > 0;
        } else if (!chunk_is(body, "IHDR") && !(body[-4] & 0x20)) {          /* critical, and not known */
            return false;
        }
        at += 12 + length;
    }
    return false;
}

static bool read_layout(bytes in, layout *l)
{
    static const uint8_t channels[7] = {1, 0, 3, 1, 2, 0, 4};                /* by colour type */
    const uint8_t *h = in.data + 16;
    if (in.size < 45 || h[8] != 8 || h[9] > 6 || h[10] || h[11] || h[12]) return false;
    *l = (layout){.width = be32(h), .height = be32(h + 4), .channels = channels[h[9]]};
    if (l->channels == 0 || !crc_is_right(h, 13) || !walk(in, l, NULL)) return false;
    if (h[9] != 3) l->palette = NULL;
    return h[9] != 3 || l->colours > 0;
}

/* ---- filters. `to` may overlap `from` from below, `up` is the row above as it was before filtering ---- */

static inline int paeth(int a, int b, int c)
{
    int pa = abs(b - c), pb = abs(a - c), pc = abs(a + b - 2 * c);
    return pa <= pb && pa <= pc ? a : pb <= pc ? b : c;
}

static inline bool all_zero(const uint8_t *p, int n)          /* n: 8 or 24 */
{
    uint64_t any = 0, word;
    for (int i = 0; i < n; i += 8) {
        memcpy(&word, p + i, 8);
        any |= word;
    }
    return any == 0;
}

/* Bytes [x, end) of a row, end - x a multiple of step. */
static inline void paeth_bytes(const uint8_t *from, const uint8_t *up, uint8_t *to, size_t x, size_t end, size_t step)
{
    for (; x < end; x++) to[x] = (uint8_t)(from[x] + paeth(to[x - step], up[x], up[x - step]));
}

#if defined(__SSE2__)
static inline __m128i load_pixel(const uint8_t *p, size_t step)
{
    uint32_t word = 0;
    memcpy(&word, p, step);
    return _mm_unpacklo_epi8(_mm_cvtsi32_si128((int)word), _mm_setzero_si128());
}

static inline __m128i absolute(__m128i v)
{
    return _mm_max_epi16(v, _mm_sub_epi16(_mm_setzero_si128(), v));
}

/* The channels of a pixel side by side; a chain from pixel to pixel, a third as long. */
static inline void paeth_pixels(const uint8_t *from, const uint8_t *up, uint8_t *to, size_t x, size_t end, size_t step)
{
    const __m128i low = _mm_set1_epi16(0xff);
    __m128i a = load_pixel(to + x - step, step), c = load_pixel(up + x - step, step);
    for (; x < end; x += step) {
        __m128i b = load_pixel(up + x, step), ac = _mm_sub_epi16(a, c), bc = _mm_sub_epi16(b, c);
        __m128i pa = absolute(bc), pb = absolute(ac), pc = absolute(_mm_add_epi16(ac, bc)), least = _mm_min_epi16(pc, _mm_min_epi16(pa, pb));
        __m128i is_a = _mm_cmpeq_epi16(least, pa), is_b = _mm_cmpeq_epi16(least, pb);
        __m128i b_or_c = _mm_or_si128(_mm_and_si128(is_b, b), _mm_andnot_si128(is_b, c));
        __m128i best = _mm_or_si128(_mm_and_si128(is_a, a), _mm_andnot_si128(is_a, b_or_c));
        a = _mm_and_si128(_mm_add_epi16(load_pixel(from + x, step), best), low);
        c = b;
        uint32_t word = (uint32_t)_mm_cvtsi128_si32(_mm_packus_epi16(a, a));
        memcpy(to + x, &word, step);
    }
}
#else
#define paeth_pixels paeth_bytes
#endif

/* Scans are mostly flat: where nothing was added and the row above repeats its pixels, this row repeats its own. */
static inline void unpaeth(const uint8_t *from, const uint8_t *up, uint8_t *to, size_t n, int step)
{
    size_t x = (size_t)step;
    int run = step == 1 || step == 2 ? 8 : 24;
    for (int i = 0; i < step; i++) to[i] = (uint8_t)(from[i] + up[i]);
    while (x < n) {
        if (n - x >= (size_t)run && all_zero(from + x, run) && memcmp(up + x, up + x - step, (size_t)run) == 0) {
            for (int i = 0; i < run; i++) to[x + (size_t)i] = to[x + (size_t)i - (size_t)step];
            x += (size_t)run;
            continue;
        }
        size_t end = n - x < (size_t)run ? n : x + (size_t)run;
        if (step >= 3) paeth_pixels(from, up, to, x, end, (size_t)step);
        else paeth_bytes(from, up, to, x, end, (size_t)step);
        x = end;
    }
}

static inline void unaverage(const uint8_t *from, const uint8_t *up, uint8_t *to, size_t n, size_t step)
{
    for (size_t x = 0; x < step; x++) to[x] = (uint8_t)(from[x] + up[x] / 2);
    for (size_t x = step; x < n; x++) to[x] = (uint8_t)(from[x] + (to[x - step] + up[x]) / 2);
}

static inline void unsub(const uint8_t *from, uint8_t *to, size_t n, size_t step)
{
    memmove(to, from, step);
    for (size_t x = step; x < n; x++) to[x] = (uint8_t)(from[x] + to[x - step]);
}

/* One row; step is a constant in each of the calls, so that the loops are compiled for it. */
static bool unfilter(int filter, const uint8_t *from, const uint8_t *up, uint8_t *to, size_t n, int step)
{
#define FOR_STEP(call) switch (step) { case 1: call(1); break; case 2: call(2); break; case 3: call(3); break; default: call(4); }
#define SUB(s) unsub(from, to, n, s)
#define AVERAGE(s) unaverage(from, up, to, n, s)
#define PAETH(s) unpaeth(from, up, to, n, s)
    switch (filter) {
    case 0: memmove(to, from, n); return true;
    case 1: FOR_STEP(SUB) return true;
    case 2: for (size_t x = 0; x < n; x++) to[x] = (uint8_t)(from[x] + up[x]); return true;
    case 3: FOR_STEP(AVERAGE) return true;
    case 4: FOR_STEP(PAETH) return true;
    default: return false;
    }
}

/* ---- rows to pixels ---- */

static bool is_gray(const layout *l)
{
    if (l->channels == 2) return true;
    for (size_t i = 0; l->palette && i < l->colours; i++) {
        const uint8_t *c = l->palette + 3 * i;
        if (c[0] != c[1] || c[1] != c[2]) return false;
    }
    return l->channels == 1;
}

static void convert(const layout *l, const uint8_t *row, uint8_t *to, bool gray)
{
    for (int64_t x = 0; x < l->width; x++, row += l->channels) {
        static const uint8_t black[3] = {0, 0, 0};
        const uint8_t *p = row;
        if (l->palette) p = *row < l->colours ? l->palette + 3 * (size_t)*row : black;
        if (gray) *to++ = p[0];
        else to[0] = p[0], to[1] = p[1], to[2] = p[2], to += 3;
    }
}

/* Gray and RGB: the rows move together inside the buffer that they were inflated into, which becomes the picture's. */
static bool rows_in_place(const layout *l, uint8_t *raw, const uint8_t *zeros)
{
    size_t n = (size_t)l->width * (size_t)l->channels;
    for (int64_t y = 0; y < l->height; y++) {
        const uint8_t *from = raw + (size_t)y * (n + 1);
        uint8_t *to = raw + (size_t)y * n;
        if (!unfilter(*from, from + 1, y ? to - n : zeros, to, n, l->channels)) return false;
    }
    return true;
}

static bool rows_converted(const layout *l, uint8_t *raw, const uint8_t *zeros, image *out)
{
    size_t n = (size_t)l->width * (size_t)l->channels, out_row = (size_t)l->width * (out->gray ? 1 : 3);
    const uint8_t *up = zeros;
    for (int64_t y = 0; y < l->height; y++) {
        uint8_t *row = raw + (size_t)y * (n + 1) + 1;
        if (!unfilter(row[-1], row, up, row, n, l->channels)) return false;
        convert(l, row, out->rgb + (size_t)y * out_row, out->gray);
        up = row;
    }
    return true;
}

static bool inflate_all(bytes in, layout *l, uint8_t *raw, size_t size)
{
    struct libdeflate_decompressor *d = libdeflate_alloc_decompressor();
    uint8_t *compressed = mem_aligned(l->compressed);
    size_t got = 0;
    bool ok = d && compressed && walk(in, l, compressed) &&
              libdeflate_zlib_decompress(d, compressed, l->compressed, raw, size, &got) == LIBDEFLATE_SUCCESS && got == size;
    mem_free(compressed);
    libdeflate_free_decompressor(d);
    return ok;
}

bool png_decode_fast(bytes in, const media_policy *policy, image *out)
{
    layout l;
    if (!read_layout(in, &l) || !image_check_size(l.width, l.height, policy, NULL)) return false;
    size_t n = (size_t)l.width * (size_t)l.channels, size;
    if (!mem_mul(n + 1, (size_t)l.height, &size) || size / 1100 > l.compressed) return false;      /* deflate reaches 1032 : 1 */
    uint8_t *raw = mem_aligned(size), *zeros = mem_new(n, 1);
    bool ok = raw && zeros && inflate_all(in, &l, raw, size), gray = is_gray(&l);
    if (ok && !l.palette && (l.channels == 1 || l.channels == 3)) {
        ok = rows_in_place(&l, raw, zeros);
        if (ok) *out = (image){.width = (int)l.width, .height = (int)l.height, .rgb = raw, .gray = gray}, raw = NULL;
    } else if (ok) {
        ok = (gray ? image_start_gray : image_start)(out, l.width, l.height, policy, NULL) && rows_converted(&l, raw, zeros, out);
        if (!ok) image_free(out);
    }
    mem_free(raw);
    mem_free(zeros);
    return ok;
}
