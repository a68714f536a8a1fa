/* image_png.h - between image_png.c (libpng, every kind of PNG) and image_png_fast.c. */
#ifndef VLM_MEDIA_IMAGE_PNG_H
#define VLM_MEDIA_IMAGE_PNG_H

#include "media/image_codec.h"

/* False, without a message and with out empty: libpng has to do it. */
bool png_decode_fast(bytes in, const media_policy *policy, image *out);

#endif
