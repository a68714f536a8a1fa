/* image_codec.h - between image.c and the decoders of one format each (image_png.c, image_jpeg.c, ...). */
#ifndef VLM_MEDIA_IMAGE_CODEC_H
#define VLM_MEDIA_IMAGE_CODEC_H

#include "media/media.h"

typedef struct bytes { const uint8_t *data; size_t size; } bytes;

/* What a header says. orientation is EXIF's (1..8; 1: as stored); width and height are as stored. */
typedef struct image_header { int64_t width, height; int orientation; } image_header;

typedef struct image_codec {
    const char *name;
    bool (*matches)(bytes in);                                            /* by its first bytes */
    bool (*header)(bytes in, image_header *out, vlm_error *error);        /* without decoding */
    /* Called after the header passed the ceilings; gives RGB or gray. out is zeroed; what it holds after a failure is freed by the caller.
     * A decoder whose library reads the size again checks it against these (image_start does). */
    bool (*decode)(bytes in, const image_header *header, const media_policy *policy, image *out, vlm_error *error);
} image_codec;

extern const image_codec image_codec_png, image_codec_jpeg, image_codec_webp, image_codec_gif, image_codec_av;

/* Checks the size against the ceilings and allocates the pixels (not zeroed). */
bool image_start(image *img, int64_t width, int64_t height, const media_policy *policy, vlm_error *error);
bool image_start_gray(image *img, int64_t width, int64_t height, const media_policy *policy, vlm_error *error);
bool image_check_size(int64_t width, int64_t height, const media_policy *policy, vlm_error *error);

/* exif.c: the orientation in a TIFF structure (EXIF, with or without its "Exif\0\0"), or in an XMP packet; 0 when it says none. What
 * EXIF says counts, even if that is 1; else XMP. */
int exif_orientation(const uint8_t *data, size_t size);
int xmp_orientation(const uint8_t *data, size_t size);
/* Turns the pixels so that they stand upright. */
bool image_orient(image *img, int orientation, vlm_error *error);

static inline uint32_t be16(const uint8_t *p) { return (uint32_t)p[0] << 8 | p[1]; }
static inline uint32_t be32(const uint8_t *p) { return be16(p) << 16 | be16(p + 2); }
static inline uint32_t le16(const uint8_t *p) { return (uint32_t)p[1] << 8 | p[0]; }
static inline uint32_t le32(const uint8_t *p) { return le16(p + 2) << 16 | le16(p); }

#endif
