/* image.c - the table of image formats and the way an image takes: sniff, header, ceilings, decode, turn upright. */
#include "media/image_codec.h"

#include "base/err.h"

static const image_codec *const codecs[] = {
    &image_codec_png, &image_codec_jpeg, &image_codec_webp, &image_codec_gif, &image_codec_av,
};

static const image_codec *find_codec(bytes in)
{
    for (size_t i = 0; i < sizeof codecs / sizeof *codecs; i++)
        if (codecs[i]->matches(in)) return codecs[i];
    return NULL;
}

static bool read_header(bytes in, const image_codec **codec, image_header *header, vlm_error *error)
{
    if (in.size == 0) return err_set(error, VLM_FORMAT, "the image is empty (0 bytes)");
    *codec = find_codec(in);
    if (!*codec) return err_set(error, VLM_FORMAT, "not an image in a format that is known (%zu bytes)", in.size);
    *header = (image_header){.orientation = 1};
    if (!(*codec)->header(in, header, error)) return err_prefix(error, "%s image", (*codec)->name);
    if (header->orientation < 1 || header->orientation > 8) header->orientation = 1;
    return true;
}

bool image_check_size(int64_t width, int64_t height, const media_policy *policy, vlm_error *error)
{
    long long w = width, h = height;
    if (width < 1 || height < 1) return err_set(error, VLM_FORMAT, "an image of %lld x %lld pixels", w, h);
    if (width > policy->max_side || height > policy->max_side)
        return err_set(error, VLM_LIMIT, "%lld x %lld pixels: a side may have %d at most", w, h, policy->max_side);
    if (width * height > policy->max_pixels)
        return err_set(error, VLM_LIMIT, "%lld x %lld pixels: %lld at most are decoded", w, h, (long long)policy->max_pixels);
    return true;
}

static bool start(image *img, int64_t width, int64_t height, bool gray, const media_policy *policy, vlm_error *error)
{
    if (!image_check_size(width, height, policy, error)) return false;
    size_t size;
    if (!mem_mul((size_t)width * (gray ? 1 : 3), (size_t)height, &size)) return err_memory(error, SIZE_MAX);
    *img = (image){.width = (int)width, .height = (int)height, .gray = gray, .rgb = mem_aligned(size)};
    return img->rgb ? true : err_memory(error, size);
}

bool image_start(image *img, int64_t width, int64_t height, const media_policy *policy, vlm_error *error)
{
    return start(img, width, height, false, policy, error);
}

bool image_start_gray(image *img, int64_t width, int64_t height, const media_policy *policy, vlm_error *error)
{
    return start(img, width, height, true, policy, error);
}

bool image_probe(const void *data, size_t size, int *width, int *height, vlm_error *error)
{
    const image_codec *codec = NULL;
    image_header header;
    media_policy widest = {.max_side = INT32_MAX, .max_pixels = INT64_MAX};
    if (!read_header((bytes){data, size}, &codec, &header, error)) return false;
    if (!image_check_size(header.width, header.height, &widest, error)) return err_prefix(error, "%s image", codec->name);
    bool turned = header.orientation >= 5;
    *width = (int)(turned ? header.height : header.width);
    *height = (int)(turned ? header.width : header.height);
    return true;
}

bool image_decode_compact(const void *data, size_t size, const media_policy *policy, image *out, vlm_error *error)
{
    *out = (image){0};
    bytes in = {data, size};
    media_policy standard = media_policy_default();
    if (!policy) policy = &standard;
    const image_codec *codec = NULL;
    image_header header;
    if (!read_header(in, &codec, &header, error)) return false;
    if (!image_check_size(header.width, header.height, policy, error) ||
        !codec->decode(in, &header, policy, out, error) || !image_orient(out, header.orientation, error)) {
        image_free(out);
        return err_prefix(error, "%s image", codec->name);
    }
    return true;
}

bool image_decode(const void *data, size_t size, const media_policy *policy, image *out, vlm_error *error)
{
    if (!image_decode_compact(data, size, policy, out, error)) return false;
    if (image_to_rgb(out, error)) return true;
    image_free(out);
    return false;
}
