/* image_png.c - PNG through libpng. Alpha and transparent colours are dropped, as Pillow's convert("RGB") does. */
#include <png.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "media/image_png.h"

static const uint8_t signature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};

static bool png_matches(bytes in)
{
    return in.size >= 8 && memcmp(in.data, signature, 8) == 0;
}

/* The size from IHDR, the orientation from an eXIf chunk (which may stand behind the pixels) or XMP text. */
static bool png_header(bytes in, image_header *out, vlm_error *error)
{
    if (in.size < 33 || memcmp(in.data + 12, "IHDR", 4) != 0 || be32(in.data + 8) != 13)
        return err_set(error, VLM_FORMAT, "the header is cut off or wrong (%zu bytes)", in.size);
    out->width = be32(in.data + 16);
    out->height = be32(in.data + 20);
    int from_exif = 0, from_xmp = 0;
    for (size_t at = 33; at + 12 <= in.size;) {
        size_t length = be32(in.data + at);
        const uint8_t *body = in.data + at + 8;
        if (length > in.size - at - 12) break;
        if (memcmp(body - 4, "eXIf", 4) == 0) from_exif = exif_orientation(body, length);
        if (memcmp(body - 4, "iTXt", 4) == 0 && length > 18 && memcmp(body, "XML:com.adobe.xmp", 18) == 0)
            from_xmp = xmp_orientation(body, length);
        at += 12 + length;
    }
    out->orientation = from_exif ? from_exif : from_xmp;
    return true;
}

typedef struct png_job {
    bytes in;
    size_t at;
    char message[160];
} png_job;

static void on_error(png_structp png, png_const_charp message)
{
    png_job *job = png_get_error_ptr(png);
    snprintf(job->message, sizeof job->message, "%s", message);
    longjmp(png_jmpbuf(png), 1);
}

static void on_warning(png_structp png, png_const_charp message)
{
    (void)png, (void)message;
}

static void on_read(png_structp png, png_bytep to, size_t n)
{
    png_job *job = png_get_io_ptr(png);
    if (n > job->in.size - job->at) png_error(png, "the file ends too early");
    memcpy(to, job->in.data + job->at, n);
    job->at += n;
}

static png_voidp on_malloc(png_structp png, png_alloc_size_t n)
{
    (void)png;
    return mem_aligned(n);
}

static void on_free(png_structp png, png_voidp memory)
{
    (void)png;
    mem_free(memory);
}

/* Gray of 16 bits: Pillow does not scale it but clips at 255, and who trained on its pixels saw that. */
static void clip_row(png_structp png, png_row_infop info, png_bytep row)
{
    (void)png;
    for (size_t i = 0; i < info->rowbytes / 2; i++) row[i] = row[2 * i] ? 255 : row[2 * i + 1];
}

/* 8 bits out of whatever is stored, RGB or gray. */
static bool ask_for_bytes(png_structp png, png_infop info)
{
    int type = png_get_color_type(png, info), depth = png_get_bit_depth(png, info);
    if (type == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png);
    if (type == PNG_COLOR_TYPE_GRAY && depth < 8) png_set_expand_gray_1_2_4_to_8(png);
    if (depth == 16 && type == PNG_COLOR_TYPE_GRAY) {
        png_set_read_user_transform_fn(png, clip_row);
        png_set_user_transform_info(png, NULL, 8, 1);
    } else if (depth == 16) {
        png_set_strip_16(png);
    }
    png_set_strip_alpha(png);
    return !(type & PNG_COLOR_MASK_COLOR);
}

/* All that runs under setjmp; *row tells how far it came. */
static bool read_pixels(png_structp png, png_infop info, const media_policy *policy, image *out, volatile int *row, vlm_error *error)
{
    png_set_user_limits(png, (png_uint_32)policy->max_side, (png_uint_32)policy->max_side);
    png_read_info(png, info);
    bool gray = ask_for_bytes(png, info);
    int passes = png_set_interlace_handling(png);
    png_read_update_info(png, info);
    int64_t width = png_get_image_width(png, info), height = png_get_image_height(png, info);
    size_t row_bytes = (size_t)width * (gray ? 1 : 3);
    if (png_get_rowbytes(png, info) != row_bytes) return err_set(error, VLM_FORMAT, "rows of an unexpected size");
    if (!(gray ? image_start_gray : image_start)(out, width, height, policy, error)) return false;
    for (int pass = 0; pass < passes; pass++)
        for (int y = 0; y < out->height; y++) {
            *row = y;
            png_read_row(png, out->rgb + (size_t)y * row_bytes, NULL);
        }
    return true;
}

static bool png_decode(bytes in, const image_header *header, const media_policy *policy, image *out, vlm_error *error)
{
    if (png_decode_fast(in, policy, out)) return true;
    png_job job = {.in = in};
    volatile int row = -1;
    volatile bool ok = false;
    png_structp png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, &job, on_error, on_warning, NULL, on_malloc, on_free);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    if (!info) {
        png_destroy_read_struct(&png, NULL, NULL);
        return err_memory(error, 0);
    }
    if (setjmp(png_jmpbuf(png)) == 0) {
        png_set_read_fn(png, &job, on_read);
        ok = read_pixels(png, info, policy, out, &row, error);
    } else if (row < 0) {
        err_set(error, VLM_FORMAT, "%s (in the header, byte %zu of %zu)", job.message, job.at, in.size);
    } else {
        err_set(error, VLM_FORMAT, "%s (at row %d of %d, byte %zu of %zu)", job.message, row, (int)header->height, job.at, in.size);
    }
    png_destroy_read_struct(&png, &info, NULL);
    return ok;
}

const image_codec image_codec_png = {"PNG", png_matches, png_header, png_decode};
