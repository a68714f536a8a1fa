/* image_webp.c - WebP through libwebp; of an animation the first frame on its canvas. Alpha is dropped. */
#include <string.h>
#include <webp/decode.h>
#include <webp/demux.h>

#include "base/err.h"
#include "media/image_codec.h"

static bool webp_matches(bytes in)
{
    return in.size >= 12 && memcmp(in.data, "RIFF", 4) == 0 && memcmp(in.data + 8, "WEBP", 4) == 0;
}

static const char *reason(VP8StatusCode status)
{
    switch (status) {
    case VP8_STATUS_OUT_OF_MEMORY: return "out of memory";
    case VP8_STATUS_NOT_ENOUGH_DATA: return "the file ends too early";
    case VP8_STATUS_UNSUPPORTED_FEATURE: return "a feature that is not supported";
    default: return "damaged data";
    }
}

static bool webp_header(bytes in, image_header *out, vlm_error *error)
{
    WebPBitstreamFeatures f;
    VP8StatusCode status = WebPGetFeatures(in.data, in.size, &f);
    if (status != VP8_STATUS_OK) return err_set(error, VLM_FORMAT, "%s (in the header, of %zu bytes)", reason(status), in.size);
    out->width = f.width;
    out->height = f.height;
    int from_exif = 0, from_xmp = 0;
    for (size_t at = 12; at + 8 <= in.size;) {
        const uint8_t *body = in.data + at + 8;
        size_t length = le32(in.data + at + 4), left = in.size - at - 8;
        if (length > left) break;
        if (memcmp(body - 8, "EXIF", 4) == 0) from_exif = exif_orientation(body, length);
        if (memcmp(body - 8, "XMP ", 4) == 0) from_xmp = xmp_orientation(body, length);
        at += 8 + length + (length & 1);
    }
    out->orientation = from_exif ? from_exif : from_xmp;
    return true;
}

static bool first_frame(bytes in, image *out, vlm_error *error)
{
    WebPAnimDecoderOptions options;
    if (!WebPAnimDecoderOptionsInit(&options)) return err_set(error, VLM_UNSUPPORTED, "another version of libwebp");
    options.color_mode = MODE_RGBA;
    WebPData data = {in.data, in.size};
    WebPAnimDecoder *decoder = WebPAnimDecoderNew(&data, &options);
    WebPAnimInfo info = {0};
    uint8_t *canvas = NULL;
    int time;
    bool ok = decoder && WebPAnimDecoderGetInfo(decoder, &info) && (int)info.canvas_width == out->width &&
              (int)info.canvas_height == out->height && WebPAnimDecoderGetNext(decoder, &canvas, &time);
    if (!ok) err_set(error, VLM_FORMAT, "damaged or cut off (%zu bytes)", in.size);
    size_t pixels = (size_t)out->width * (size_t)out->height;
    for (size_t i = 0; ok && i < pixels; i++) memcpy(out->rgb + 3 * i, canvas + 4 * i, 3);
    WebPAnimDecoderDelete(decoder);
    return ok;
}

static bool webp_decode(bytes in, const image_header *header, const media_policy *policy, image *out, vlm_error *error)
{
    WebPDecoderConfig config;
    if (!WebPInitDecoderConfig(&config) || WebPGetFeatures(in.data, in.size, &config.input) != VP8_STATUS_OK)
        return err_set(error, VLM_FORMAT, "the header is damaged");
    if (!image_start(out, header->width, header->height, policy, error)) return false;
    if (config.input.has_animation) return first_frame(in, out, error);
    config.output.colorspace = MODE_RGB;
    config.output.is_external_memory = 1;
    config.output.u.RGBA.rgba = out->rgb;
    config.output.u.RGBA.stride = out->width * 3;
    config.output.u.RGBA.size = (size_t)out->width * (size_t)out->height * 3;
    VP8StatusCode status = WebPDecode(in.data, in.size, &config);
    if (status == VP8_STATUS_OUT_OF_MEMORY) return err_memory(error, config.output.u.RGBA.size);
    if (status != VP8_STATUS_OK) return err_set(error, VLM_FORMAT, "%s (of %zu bytes)", reason(status), in.size);
    return true;
}

const image_codec image_codec_webp = {"WebP", webp_matches, webp_header, webp_decode};
