/* image_gif.c - GIF: the first frame on its screen, as Pillow shows it. What the frame does not cover has the transparent
 * colour, or colour 0. A decoder of our own: the LZW of GIF is small, and others drop the colours below transparency. */
#include <string.h>

#include "base/err.h"
#include "media/image_codec.h"

static bool gif_matches(bytes in)
{
    return in.size >= 6 && (memcmp(in.data, "GIF87a", 6) == 0 || memcmp(in.data, "GIF89a", 6) == 0);
}

typedef struct gif {
    int64_t width, height;         /* the screen, grown to hold the frame as Pillow does */
    int left, top, frame_width, frame_height, transparent /* -1: none */, code_bits;
    bool interlaced;
    const uint8_t *palette;        /* NULL: gray */
    int colours;
    size_t at;                     /* of the first block of pixels */
} gif;

static size_t skip_blocks(bytes in, size_t at)
{
    while (at < in.size && in.data[at] != 0) at += 1 + (size_t)in.data[at];
    return at + 1;
}

static bool cut_off(bytes in, vlm_error *error)
{
    return err_set(error, VLM_FORMAT, "the file ends too early (%zu bytes)", in.size);
}

static bool read_palette(bytes in, gif *g, uint8_t flags, vlm_error *error)
{
    if (!(flags & 0x80)) return true;
    g->colours = 2 << (flags & 7);
    if (in.size - g->at < (size_t)g->colours * 3) return cut_off(in, error);
    g->palette = in.data + g->at;
    g->at += (size_t)g->colours * 3;
    return true;
}

/* Everything up to the pixels of the first frame. */
static bool read_head(bytes in, gif *g, vlm_error *error)
{
    *g = (gif){.transparent = -1, .at = 13};
    if (in.size < 13) return cut_off(in, error);
    g->width = le16(in.data + 6);
    g->height = le16(in.data + 8);
    if (!read_palette(in, g, in.data[10], error)) return false;
    while (g->at < in.size && in.data[g->at] != ',') {
        if (in.data[g->at] == ';') return err_set(error, VLM_FORMAT, "no frame in it");
        if (in.data[g->at] != '!') {                        /* padding */
            g->at++;
            continue;
        }
        if (in.size - g->at < 3) return cut_off(in, error);
        const uint8_t *e = in.data + g->at;
        if (e[1] == 0xf9 && e[2] >= 4 && in.size - g->at >= 7 && (e[3] & 1)) g->transparent = e[6];
        g->at = skip_blocks(in, g->at + 2);
    }
    if (g->at >= in.size || in.size - g->at < 11) return cut_off(in, error);
    const uint8_t *d = in.data + g->at;
    g->left = (int)le16(d + 1), g->top = (int)le16(d + 3), g->frame_width = (int)le16(d + 5), g->frame_height = (int)le16(d + 7);
    if (g->left + g->frame_width > g->width) g->width = g->left + g->frame_width;
    if (g->top + g->frame_height > g->height) g->height = g->top + g->frame_height;
    g->interlaced = d[9] & 0x40;
    g->at += 10;
    if (!read_palette(in, g, d[9], error)) return false;
    if (g->at >= in.size) return cut_off(in, error);
    g->code_bits = in.data[g->at++];
    return true;
}

static bool gif_header(bytes in, image_header *out, vlm_error *error)
{
    gif g;
    if (!read_head(in, &g, error)) return false;
    out->width = g.width;
    out->height = g.height;
    return true;
}

/* ---- LZW: a code stands for the string of `prefix` and one more byte ---- */

enum { MAX_CODES = 4096 };

typedef struct lzw {
    bytes in;
    size_t at, block_left;         /* the next byte, and how many the block has from there */
    uint32_t bits;
    int held, width;
    int clear, next, last;         /* codes: clear, the next to be defined, the one before (-1 after a clear) */
    uint16_t prefix[MAX_CODES];
    uint8_t byte[MAX_CODES], first[MAX_CODES], text[MAX_CODES + 1];
} lzw;

static int next_code(lzw *z)
{
    while (z->held < z->width) {
        if (z->block_left == 0) {
            if (z->at >= z->in.size || z->in.data[z->at] == 0) return -1;
            z->block_left = z->in.data[z->at++];
        }
        if (z->at >= z->in.size) return -1;
        z->bits |= (uint32_t)z->in.data[z->at++] << z->held;
        z->held += 8;
        z->block_left--;
    }
    int code = (int)(z->bits & ((1u << z->width) - 1));
    z->bits >>= z->width;
    z->held -= z->width;
    return code;
}

/* The bytes of the next code, backwards in text; their number, 0 at the end of the data, -1 when it is damaged. */
static int next_string(lzw *z)
{
    for (;;) {
        int code = next_code(z);
        if (code < 0 || code == z->clear + 1) return 0;
        if (code == z->clear) {
            z->next = z->clear + 2;
            z->last = -1;
            for (z->width = 1; (1 << z->width) <= z->clear; z->width++) {}
            continue;
        }
        if (code > z->next || (code == z->next && z->last < 0) || (code >= z->clear + 2 && z->last < 0)) return -1;
        int n = 0, walk = code;
        if (code == z->next) {                              /* the string that is being defined: the last one and its first byte */
            z->text[n++] = z->first[z->last];
            walk = z->last;
        }
        for (; walk >= z->clear; walk = z->prefix[walk]) z->text[n++] = z->byte[walk];
        z->text[n++] = (uint8_t)walk;
        if (z->last >= 0 && z->next < MAX_CODES) {
            z->prefix[z->next] = (uint16_t)z->last;
            z->byte[z->next] = (uint8_t)walk;
            z->first[z->next] = z->first[z->last];
            z->next++;
            if (z->next == 1 << z->width && z->width < 12) z->width++;
        }
        z->last = code;
        return n;
    }
}

static void put_colour(const gif *g, uint8_t index, uint8_t *to)
{
    if (!g->palette) to[0] = to[1] = to[2] = index;
    else if (index < g->colours) memcpy(to, g->palette + 3 * (size_t)index, 3);
    else to[0] = to[1] = to[2] = 0;
}

/* Interlaced rows come as 0, 8, 16 ..., then 4, 12 ..., 2, 6 ..., 1, 3 ... */
static int row_after(int row, int height, bool interlaced, int *pass)
{
    static const int start[4] = {0, 4, 2, 1}, step[4] = {8, 8, 4, 2};
    if (!interlaced) return row + 1;
    row += step[*pass];
    while (row >= height && *pass < 3) row = start[++*pass];
    return row;
}

static bool read_pixels(const gif *g, lzw *z, image *out, vlm_error *error)
{
    int x = 0, y = 0, pass = 0;
    int64_t left = (int64_t)g->frame_width * g->frame_height;
    while (left > 0) {
        int n = next_string(z);
        if (n <= 0)
            return err_set(error, VLM_FORMAT, "%s at row %d of %d, byte %zu of %zu", n < 0 ? "damaged data" : "the pixels end too early", y,
                           g->frame_height, z->at, z->in.size);
        while (n > 0 && left > 0) {
            put_colour(g, z->text[--n], out->rgb + 3 * ((size_t)(g->top + y) * (size_t)out->width + (size_t)(g->left + x)));
            left--;
            if (++x < g->frame_width) continue;
            x = 0;
            y = row_after(y, g->frame_height, g->interlaced, &pass);
            if (y >= g->frame_height) return true;
        }
    }
    return true;
}

static bool gif_decode(bytes in, const image_header *header, const media_policy *policy, image *out, vlm_error *error)
{
    gif g;
    if (!read_head(in, &g, error) || !image_start(out, header->width, header->height, policy, error)) return false;
    if (g.code_bits < 1 || g.code_bits > 11) return err_set(error, VLM_FORMAT, "codes of %d bits", g.code_bits);
    uint8_t around[3];
    put_colour(&g, (uint8_t)(g.transparent >= 0 ? g.transparent : 0), around);
    size_t pixels = (size_t)out->width * (size_t)out->height;
    for (size_t i = 0; i < pixels; i++) memcpy(out->rgb + 3 * i, around, 3);
    lzw *z = MEM_NEW(lzw);
    if (!z) return err_memory(error, sizeof *z);
    z->in = in;
    z->at = g.at;
    z->clear = 1 << g.code_bits;
    z->next = z->clear + 2;
    z->last = -1;
    z->width = g.code_bits + 1;
    for (int i = 0; i < z->clear && i < 256; i++) z->byte[i] = z->first[i] = (uint8_t)i;
    bool ok = read_pixels(&g, z, out, error);
    mem_free(z);
    return ok;
}

const image_codec image_codec_gif = {"GIF", gif_matches, gif_header, gif_decode};
