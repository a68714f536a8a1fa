/* image_fuzz.c - any bytes as a picture: probed, decoded under small ceilings, resized. */
#include <stdint.h>

#include "media/media.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    media_policy policy = media_policy_default();
    policy.max_pixels = 1 << 18;
    int width, height;
    image_probe(data, size, &width, &height, NULL);
    image img, out;
    if (!image_decode_compact(data, size, &policy, &img, NULL)) return 0;
    if (image_resize(&img, 1 + (int)(size % 40), 1 + (int)(size / 7 % 40), (resize_filter)(size % 4), &out, NULL)) image_free(&out);
    image_to_rgb(&img, NULL);
    image_free(&img);
    return 0;
}
