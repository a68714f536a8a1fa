/* exif.c - the one EXIF field that changes pixels: orientation. */
#include <string.h>

#include "base/err.h"
#include "media/image_codec.h"

enum { TAG_ORIENTATION = 0x0112, TYPE_SHORT = 3, TYPE_LONG = 4 };

static int in_range(uint32_t value)
{
    return value >= 1 && value <= 8 ? (int)value : 1;
}

int exif_orientation(const uint8_t *data, size_t size)
{
    if (size >= 6 && memcmp(data, "Exif\0\0", 6) == 0) data += 6, size -= 6;
    if (size < 8) return 0;
    bool little = memcmp(data, "II*\0", 4) == 0;
    if (!little && memcmp(data, "MM\0*", 4) != 0) return 0;
    uint32_t at = little ? le32(data + 4) : be32(data + 4);
    if (at > size - 2) return 0;
    uint32_t count = little ? le16(data + at) : be16(data + at);
    for (uint32_t i = 0; i < count; i++) {
        size_t entry = (size_t)at + 2 + (size_t)i * 12;
        if (entry + 12 > size) return 0;
        const uint8_t *p = data + entry;
        uint32_t tag = little ? le16(p) : be16(p), type = little ? le16(p + 2) : be16(p + 2);
        if (tag != TAG_ORIENTATION) continue;
        if (type == TYPE_LONG) return in_range(little ? le32(p + 8) : be32(p + 8));
        return type == TYPE_SHORT ? in_range(little ? le16(p + 8) : be16(p + 8)) : 1;
    }
    return 0;
}

/* tiff:Orientation="6" or <tiff:Orientation>6</...> */
int xmp_orientation(const uint8_t *data, size_t size)
{
    static const char name[] = "tiff:Orientation";
    size_t length = sizeof name - 1;
    for (size_t i = 0; i + length + 2 < size; i++) {
        const uint8_t *p = data + i;
        if (*p != 't' || memcmp(p, name, length) != 0) continue;
        p += length;
        if (*p == '>') p++;
        else if (i + length + 3 <= size && p[0] == '=' && p[1] == '"') p += 2;
        else continue;
        if (p < data + size && *p >= '0' && *p <= '9') return in_range((uint32_t)(*p - '0'));
    }
    return 0;
}

/* Where pixel (x, y) of the upright image comes from, by orientation: 2 mirrored, 3 turned by 180, 4 flipped, 5 transposed,
 * 6 to be turned right, 7 transversed, 8 to be turned left. */
bool image_orient(image *img, int orientation, vlm_error *error)
{
    if (orientation <= 1) return true;
    int64_t w = img->width, h = img->height;
    int64_t ow = orientation >= 5 ? h : w, oh = orientation >= 5 ? w : h;
    size_t size = (size_t)w * (size_t)h * (img->gray ? 1 : 3);
    uint8_t *turned = mem_aligned(size);
    if (!turned) return err_memory(error, size);
    int64_t start = 0, dx = 1, dy = w;                  /* in pixels of the stored image */
    switch (orientation) {
    case 2: start = w - 1, dx = -1, dy = w; break;
    case 3: start = w * h - 1, dx = -1, dy = -w; break;
    case 4: start = w * (h - 1), dx = 1, dy = -w; break;
    case 5: start = 0, dx = w, dy = 1; break;
    case 6: start = w * (h - 1), dx = -w, dy = 1; break;
    case 7: start = w * h - 1, dx = -w, dy = -1; break;
    case 8: start = w - 1, dx = w, dy = -1; break;
    }
    uint8_t *to = turned;
    for (int64_t y = 0; y < oh; y++) {
        int64_t from = start + y * dy;
        for (int64_t x = 0; x < ow && img->gray; x++, from += dx) *to++ = img->rgb[from];
        for (int64_t x = 0; x < ow && !img->gray; x++, from += dx, to += 3) memcpy(to, img->rgb + 3 * from, 3);
    }
    mem_free(img->rgb);
    *img = (image){.width = (int)ow, .height = (int)oh, .rgb = turned, .gray = img->gray};
    return true;
}
