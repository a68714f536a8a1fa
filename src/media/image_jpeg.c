/* image_jpeg.c - JPEG through libjpeg(-turbo): baseline, progressive, arithmetic; gray, YCbCr, RGB, CMYK and YCCK.
 *
 * A file that ends too early is an error that says at which row (libjpeg alone would fill up with gray). A missing end marker
 * behind complete data is not. */
#include <stdio.h>
#include <setjmp.h>
#include <string.h>
#include <jpeglib.h>
#include <jerror.h>

#include "base/err.h"
#include "media/image_codec.h"

static bool jpeg_matches(bytes in)
{
    return in.size >= 3 && in.data[0] == 0xff && in.data[1] == 0xd8 && in.data[2] == 0xff;
}

static bool is_frame_header(int marker)                 /* SOF0..SOF15 without DHT, JPG, DAC */
{
    return marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc;
}

static void read_app1(const uint8_t *body, size_t size, int *from_exif, int *from_xmp)
{
    static const char xmp[] = "http://ns.adobe.com/xap/1.0/";
    if (size > 6 && memcmp(body, "Exif\0\0", 6) == 0 && *from_exif == 0) *from_exif = exif_orientation(body, size);
    else if (size > sizeof xmp && memcmp(body, xmp, sizeof xmp) == 0) *from_xmp = xmp_orientation(body, size);
}

static bool jpeg_header(bytes in, image_header *out, vlm_error *error)
{
    int from_exif = 0, from_xmp = 0;
    size_t at = 2;
    while (at + 4 <= in.size) {
        if (in.data[at] != 0xff) {                      /* garbage between segments: libjpeg skips it too */
            at++;
            continue;
        }
        int marker = in.data[at + 1];
        if (marker == 0xff || marker == 0 || marker == 0x01 || (marker >= 0xd0 && marker <= 0xd8)) {
            at += marker == 0xff ? 1 : 2;
            continue;
        }
        if (marker == 0xda || marker == 0xd9) break;
        size_t length = be16(in.data + at + 2);
        const uint8_t *body = in.data + at + 4;
        if (length < 2 || length > in.size - at - 2) break;
        if (marker == 0xe1) read_app1(body, length - 2, &from_exif, &from_xmp);
        if (is_frame_header(marker)) {
            if (length < 8) break;
            out->height = be16(body + 1);
            out->width = be16(body + 3);
        }
        at += 2 + length;
    }
    if (out->width == 0 && out->height == 0)
        return err_set(error, VLM_FORMAT, "no frame header in %zu bytes: cut off or damaged", in.size);
    out->orientation = from_exif ? from_exif : from_xmp;
    return true;
}

typedef struct jpeg_job {
    struct jpeg_error_mgr errors;                       /* first: libjpeg hands out its address */
    struct jpeg_source_mgr source;
    jmp_buf jump;
    struct jpeg_progress_mgr progress;
    bool rows;                                          /* headers (and all scans of a progressive file) are read */
    bool past_end;                                      /* libjpeg was given an end marker that is not in the file */
    bool no_memory;
    uint8_t *cmyk;                                      /* one row */
    char message[JMSG_LENGTH_MAX];
} jpeg_job;

static void fail(j_common_ptr jpeg, const char *message)
{
    jpeg_job *job = (jpeg_job *)jpeg->err;
    snprintf(job->message, sizeof job->message, "%s", message);
    longjmp(job->jump, 1);
}

static void on_error(j_common_ptr jpeg)
{
    jpeg_job *job = (jpeg_job *)jpeg->err;
    job->no_memory = jpeg->err->msg_code == JERR_OUT_OF_MEMORY;
    char message[JMSG_LENGTH_MAX];
    jpeg->err->format_message(jpeg, message);
    fail(jpeg, message);
}

/* A warning about missing data after the end of the file is the end of the picture; others are forgiven, as Pillow does. */
static void on_message(j_common_ptr jpeg, int level)
{
    jpeg_job *job = (jpeg_job *)jpeg->err;
    if (level < 0 && job->past_end) fail(jpeg, "the file ends too early");
}

static void on_source(j_decompress_ptr jpeg)
{
    (void)jpeg;
}

static boolean on_fill(j_decompress_ptr jpeg)
{
    static const JOCTET end[2] = {0xff, JPEG_EOI};
    jpeg_job *job = (jpeg_job *)jpeg->err;
    if (job->past_end || !job->rows || jpeg->arith_code /* would go on with zeros, silently */) fail((j_common_ptr)jpeg, "the file ends too early");
    job->past_end = true;
    jpeg->src->next_input_byte = end;
    jpeg->src->bytes_in_buffer = 2;
    return TRUE;
}

static void on_skip(j_decompress_ptr jpeg, long n)
{
    struct jpeg_source_mgr *source = jpeg->src;
    if (n <= 0) return;
    if ((size_t)n > source->bytes_in_buffer) fail((j_common_ptr)jpeg, "the file ends too early");
    source->next_input_byte += n;
    source->bytes_in_buffer -= (size_t)n;
}

/* Thousands of tiny scans over a large picture are an attack on time. */
static void on_progress(j_common_ptr jpeg)
{
    enum { MAX_SCANS = 500 };
    if (jpeg->is_decompressor && ((j_decompress_ptr)jpeg)->input_scan_number > MAX_SCANS) fail(jpeg, "too many scans");
}

/* Inverted CMYK (as Adobe writes it and Pillow assumes) to RGB: 255 - k, minus c of it. */
static void cmyk_row(const uint8_t *in, uint8_t *out, int width)
{
    for (int x = 0; x < width; x++, in += 4, out += 3) {
        int left = in[3];                               /* 255 - k */
        for (int c = 0; c < 3; c++) {
            int t = (255 - in[c]) * left + 128;
            int value = left - (((t >> 8) + t) >> 8);
            out[c] = (uint8_t)(value < 0 ? 0 : value);
        }
    }
}

static bool read_pixels(struct jpeg_decompress_struct *jpeg, jpeg_job *job, const media_policy *policy, image *out,
                        vlm_error *error)
{
    jpeg_read_header(jpeg, TRUE);
    bool four = jpeg->num_components == 4, gray = jpeg->num_components == 1;
    jpeg->out_color_space = four ? JCS_CMYK : gray ? JCS_GRAYSCALE : JCS_RGB;
    if (!gray && jpeg->num_components != 3 && !four)
        return err_set(error, VLM_UNSUPPORTED, "%d colour components", jpeg->num_components);
    if (!image_check_size(jpeg->image_width, jpeg->image_height, policy, error)) return false;
    jpeg_start_decompress(jpeg);
    job->rows = true;
    if (!(gray ? image_start_gray : image_start)(out, jpeg->output_width, jpeg->output_height, policy, error)) return false;
    if (four && !(job->cmyk = mem_aligned((size_t)out->width * 4))) return err_memory(error, (size_t)out->width * 4);
    while (jpeg->output_scanline < jpeg->output_height) {
        uint8_t *to = out->rgb + (size_t)jpeg->output_scanline * (size_t)out->width * (gray ? 1 : 3);
        JSAMPROW line = four ? job->cmyk : to;
        if (jpeg_read_scanlines(jpeg, &line, 1) != 1) return err_set(error, VLM_FORMAT, "no more rows");
        if (four) cmyk_row(job->cmyk, to, out->width);
    }
    return true;
}

static bool jpeg_decode(bytes in, const image_header *header, const media_policy *policy, image *out, vlm_error *error)
{
    (void)header;
    struct jpeg_decompress_struct jpeg;
    memset(&jpeg, 0, sizeof jpeg);
    jpeg_job *job = MEM_NEW(jpeg_job);
    if (!job) return err_memory(error, sizeof *job);
    volatile bool ok = false;
    jpeg.err = jpeg_std_error(&job->errors);
    job->errors.error_exit = on_error;
    job->errors.emit_message = on_message;
    job->progress.progress_monitor = on_progress;
    job->source = (struct jpeg_source_mgr){.next_input_byte = in.data, .bytes_in_buffer = in.size, .init_source = on_source,
        .fill_input_buffer = on_fill, .skip_input_data = on_skip, .resync_to_restart = jpeg_resync_to_restart, .term_source = on_source};
    if (setjmp(job->jump) == 0) {
        jpeg_create_decompress(&jpeg);
        jpeg.src = &job->source;
        jpeg.progress = &job->progress;
        ok = read_pixels(&jpeg, job, policy, out, error);
    } else if (job->no_memory) {
        err_memory(error, 0);
    } else {
        err_set(error, VLM_FORMAT, "%s (at row %u of %u, %zu bytes)", job->message, jpeg.output_scanline, jpeg.image_height, in.size);
    }
    jpeg_destroy_decompress(&jpeg);
    mem_free(job->cmyk);
    mem_free(job);
    return ok;
}

const image_codec image_codec_jpeg = {"JPEG", jpeg_matches, jpeg_header, jpeg_decode};
