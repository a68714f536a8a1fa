/* image_av.c - the less usual formats, through libavcodec: BMP, TIFF, JPEG 2000, the PNM family, QOI, PSD, SGI, Sun raster, PCX, DDS,
 * and AVIF (a container, so through libavformat, too). */
#include <string.h>

#include "base/err.h"
#include "media/av.h"
#include "media/image_codec.h"

static const struct kind { enum AVCodecID id; int at; const char *magic; int length; } kinds[] = {
    {AV_CODEC_ID_BMP, 0, "BM", 2},
    {AV_CODEC_ID_TIFF, 0, "II*\0", 4},
    {AV_CODEC_ID_TIFF, 0, "MM\0*", 4},
    {AV_CODEC_ID_JPEG2000, 0, "\0\0\0\x0cjP  \r\n\x87\n", 12},
    {AV_CODEC_ID_JPEG2000, 0, "\xff\x4f\xff\x51", 4},
    {AV_CODEC_ID_PBM, 0, "P1", 2}, {AV_CODEC_ID_PGM, 0, "P2", 2}, {AV_CODEC_ID_PPM, 0, "P3", 2},
    {AV_CODEC_ID_PBM, 0, "P4", 2}, {AV_CODEC_ID_PGM, 0, "P5", 2}, {AV_CODEC_ID_PPM, 0, "P6", 2}, {AV_CODEC_ID_PAM, 0, "P7", 2},
    {AV_CODEC_ID_QOI, 0, "qoif", 4},
    {AV_CODEC_ID_PSD, 0, "8BPS", 4},
    {AV_CODEC_ID_SGI, 0, "\x01\xda", 2},
    {AV_CODEC_ID_SUNRAST, 0, "\x59\xa6\x6a\x95", 4},
    {AV_CODEC_ID_PCX, 0, "\x0a\x05\x01", 3},
    {AV_CODEC_ID_DDS, 0, "DDS ", 4},
    {AV_CODEC_ID_AV1, 4, "ftypavif", 8},
};

static const struct kind *kind_of(bytes in)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const struct kind *k = &kinds[i];
        if (in.size >= (size_t)(k->at + k->length) && memcmp(in.data + k->at, k->magic, (size_t)k->length) == 0) return k;
    }
    return NULL;
}

static bool av_matches(bytes in)
{
    return kind_of(in) != NULL;
}

/* ---- one picture out of a decoder ---- */

typedef struct job {
    const media_policy *policy;
    image *out;                    /* NULL: only the size is wanted */
    int64_t width, height;
    bool done, full_range;         /* full_range: what the luma of the format is, whatever the decoder says */
} job;

/* Pillow widens 5 and 6 bits as value * 255 / 31 (or 63), swscale by repeating bits. */
static bool widen_555(const AVFrame *f, image *out)
{
    bool six = f->format == AV_PIX_FMT_RGB565LE;
    if (!six && f->format != AV_PIX_FMT_RGB555LE) return false;
    for (int y = 0; y < out->height; y++) {
        const uint8_t *from = f->data[0] + (ptrdiff_t)y * f->linesize[0];
        uint8_t *to = out->rgb + 3 * (size_t)y * (size_t)out->width;
        for (int x = 0; x < out->width; x++, from += 2, to += 3) {
            uint32_t v = le16(from);
            to[0] = (uint8_t)((six ? v >> 11 : v >> 10 & 31) * 255 / 31);
            to[1] = (uint8_t)(six ? (v >> 5 & 63) * 255 / 63 : (v >> 5 & 31) * 255 / 31);
            to[2] = (uint8_t)((v & 31) * 255 / 31);
        }
    }
    return true;
}

/* Byte pictures are copied (transparent colours keep their values); gray of 16 bits is clipped, as in PNG. */
static bool copy_plain(const AVFrame *f, image *out)
{
    static const struct { enum AVPixelFormat format; uint8_t step, r, g, b; } plain[] = {
        {AV_PIX_FMT_RGB24, 3, 0, 1, 2}, {AV_PIX_FMT_BGR24, 3, 2, 1, 0}, {AV_PIX_FMT_RGBA, 4, 0, 1, 2}, {AV_PIX_FMT_BGRA, 4, 2, 1, 0},
        {AV_PIX_FMT_ARGB, 4, 1, 2, 3}, {AV_PIX_FMT_ABGR, 4, 3, 2, 1}, {AV_PIX_FMT_BGR0, 4, 2, 1, 0}, {AV_PIX_FMT_RGB0, 4, 0, 1, 2},
        {AV_PIX_FMT_GRAY8, 1, 0, 0, 0}, {AV_PIX_FMT_YA8, 2, 0, 0, 0}, {AV_PIX_FMT_RGB48LE, 6, 1, 3, 5}, {AV_PIX_FMT_RGB48BE, 6, 0, 2, 4},
        {AV_PIX_FMT_RGBA64LE, 8, 1, 3, 5}, {AV_PIX_FMT_RGBA64BE, 8, 0, 2, 4}, {AV_PIX_FMT_YA16BE, 4, 0, 0, 0}, {AV_PIX_FMT_YA16LE, 4, 1, 1, 1},
    };
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
        if (plain[i].format != f->format) continue;
        for (int y = 0; y < out->height; y++) {
            const uint8_t *p = f->data[0] + (ptrdiff_t)y * f->linesize[0];
            uint8_t *to = out->rgb + 3 * (size_t)y * (size_t)out->width;
            for (int x = 0; x < out->width; x++, p += plain[i].step, to += 3) to[0] = p[plain[i].r], to[1] = p[plain[i].g], to[2] = p[plain[i].b];
        }
        return true;
    }
    return false;
}

static bool copy_special(const AVFrame *f, image *out)
{
    bool wide = f->format == AV_PIX_FMT_GRAY16LE || f->format == AV_PIX_FMT_GRAY16BE;
    bool bits = f->format == AV_PIX_FMT_MONOWHITE || f->format == AV_PIX_FMT_MONOBLACK;
    if (!wide && !bits && f->format != AV_PIX_FMT_PAL8) return false;
    int low = f->format == AV_PIX_FMT_GRAY16LE ? 0 : 1;
    for (int y = 0; y < out->height; y++) {
        const uint8_t *p = f->data[0] + (ptrdiff_t)y * f->linesize[0];
        uint8_t *to = out->rgb + 3 * (size_t)y * (size_t)out->width;
        for (int x = 0; x < out->width; x++, to += 3) {
            if (wide) {
                to[0] = to[1] = to[2] = p[2 * x + 1 - low] ? 255 : p[2 * x + low];
            } else if (bits) {
                int set = p[x >> 3] >> (7 - (x & 7)) & 1;
                to[0] = to[1] = to[2] = (set != 0) == (f->format == AV_PIX_FMT_MONOBLACK) ? 255 : 0;
            } else {
                uint32_t colour;
                memcpy(&colour, f->data[1] + 4 * (size_t)p[x], 4);
                to[0] = (uint8_t)(colour >> 16), to[1] = (uint8_t)(colour >> 8), to[2] = (uint8_t)colour;
            }
        }
    }
    return true;
}

static bool take_picture(void *user, AVFrame *frame, vlm_error *error)
{
    job *j = user;
    if (j->done) return true;
    j->done = true;
    j->width = frame->width;
    j->height = frame->height;
    if (!j->out) return true;
    if (!image_start(j->out, frame->width, frame->height, j->policy, error)) return false;
    if (widen_555(frame, j->out) || copy_plain(frame, j->out) || copy_special(frame, j->out)) return true;
    if (j->full_range) frame->color_range = AVCOL_RANGE_JPEG;
    struct SwsContext *scaler = NULL;
    bool ok = av_to_rgb(&scaler, frame, j->out, error);
    sws_freeContext(scaler);
    return ok;
}

/* libavcodec shows a BMP that is cut off with shifted rows. *size: what it has to be given; the padding of the last row may be
 * missing in the file. */
static bool bmp_size(bytes in, size_t *size, vlm_error *error)
{
    if (in.size < 34 || le32(in.data + 14) < 40) return true;
    uint32_t compression = le32(in.data + 30);
    if (compression != 0 && compression != 3 && compression != 6) return true;         /* run lengths have their own end */
    uint64_t height = le32(in.data + 22), bits = (uint64_t)le32(in.data + 18) * le16(in.data + 28);
    if (height >> 31) height = (uint64_t)UINT32_MAX + 1 - height;
    if (bits == 0 || height == 0 || bits > INT32_MAX || height > INT32_MAX) return true;
    uint64_t row = (bits + 31) / 32 * 4, start = le32(in.data + 10), rows = (in.size - (start < in.size ? start : in.size)) / row;
    if (start + row * (height - 1) + (bits + 7) / 8 > in.size)
        return err_set(error, VLM_FORMAT, "the file ends too early (after %llu of %llu rows, %zu bytes)", (unsigned long long)rows,
                       (unsigned long long)height, in.size);
    if (start + row * height > in.size) *size = (size_t)(start + row * height);        /* at most 3 bytes more */
    return true;
}

static bool decode_still(bytes in, const struct kind *kind, job *j, vlm_error *error)
{
    if (in.size > INT32_MAX - AV_INPUT_BUFFER_PADDING_SIZE - 4) return err_set(error, VLM_LIMIT, "%zu bytes", in.size);
    size_t size = in.size;
    if (kind->id == AV_CODEC_ID_BMP && !bmp_size(in, &size, error)) return false;
    av_input av;
    bool ok = av_open_codec(&av, kind->id, j->policy, error);
    ok = ok && (av_new_packet(av.packet, (int)size) == 0 || err_memory(error, size));
    if (ok) {
        memset(av.packet->data, 0, size);
        memcpy(av.packet->data, in.data, in.size);
        ok = av_decode(&av, av.packet, take_picture, j, error) && av_decode(&av, NULL, take_picture, j, error);
    }
    av_close(&av);
    return ok;
}

static bool decode_avif(bytes in, job *j, vlm_error *error)
{
    av_input av;
    bool ok = av_open(&av, in.data, in.size, "mov,mp4,m4a,3gp,3g2,mj2", AVMEDIA_TYPE_VIDEO, j->policy, error);
    while (ok && !j->done && av_read_frame(av.format, av.packet) >= 0) {
        if (av.packet->stream_index == av.stream->index) ok = av_decode(&av, av.packet, take_picture, j, error);
        av_packet_unref(av.packet);
    }
    ok = ok && (j->done || av_decode(&av, NULL, take_picture, j, error));
    av_close(&av);
    return ok;
}

/* The value of a TIFF tag that is one number; 0 when it is missing. */
static uint32_t tiff_number(bytes in, uint32_t tag)
{
    if (in.size < 10) return 0;
    bool little = in.data[0] == 'I';
    size_t at = little ? le32(in.data + 4) : be32(in.data + 4);
    if (at > in.size - 2) return 0;
    uint32_t count = little ? le16(in.data + at) : be16(in.data + at);
    for (uint32_t i = 0; i < count && at + 2 + 12 * ((size_t)i + 1) <= in.size; i++) {
        const uint8_t *p = in.data + at + 2 + 12 * (size_t)i;
        if ((little ? le16(p) : be16(p)) != tag) continue;
        bool small = (little ? le16(p + 2) : be16(p + 2)) == 3;
        return little ? (small ? le16(p + 8) : le32(p + 8)) : (small ? be16(p + 8) : be32(p + 8));
    }
    return 0;
}

static bool tiff_is_supported(bytes in, vlm_error *error)
{
    enum { TAG_COMPRESSION = 259, OLD_JPEG = 6, JPEG = 7 };
    uint32_t compression = tiff_number(in, TAG_COMPRESSION);
    if (compression != OLD_JPEG && compression != JPEG) return true;
    return err_set(error, VLM_UNSUPPORTED, "TIFF with JPEG compression inside");     /* libavcodec would give noise */
}

static bool decode_with(bytes in, job *j, vlm_error *error)
{
    const struct kind *kind = kind_of(in);
    j->full_range = kind->id == AV_CODEC_ID_TIFF;
    if (kind->id == AV_CODEC_ID_TIFF && !tiff_is_supported(in, error)) return false;
    if (!(kind->id == AV_CODEC_ID_AV1 ? decode_avif(in, j, error) : decode_still(in, kind, j, error))) return false;
    if (j->done) return true;
    return err_set(error, VLM_FORMAT, "cannot be decoded as %s: cut off, damaged, or too large (%zu bytes)", avcodec_get_name(kind->id), in.size);
}

/* The size of the frequent ones is read here; for the others a picture has to be decoded (under the default ceilings). */
static bool av_header(bytes in, image_header *out, vlm_error *error)
{
    enum AVCodecID id = kind_of(in)->id;
    if (id == AV_CODEC_ID_TIFF) out->orientation = exif_orientation(in.data, in.size);
    if (id == AV_CODEC_ID_BMP && in.size >= 26) {
        bool old = le32(in.data + 14) == 12;
        out->width = old ? le16(in.data + 18) : le32(in.data + 18);
        out->height = old ? le16(in.data + 20) : le32(in.data + 22);
        if (!old && (uint32_t)out->height >> 31) out->height = (int64_t)UINT32_MAX + 1 - out->height;     /* top down */
        return true;
    }
    media_policy standard = media_policy_default();
    job j = {.policy = &standard};
    if (!decode_with(in, &j, error)) return false;
    out->width = j.width;
    out->height = j.height;
    return true;
}

static bool av_image_decode(bytes in, const image_header *header, const media_policy *policy, image *out, vlm_error *error)
{
    (void)header;
    job j = {.policy = policy, .out = out};
    return decode_with(in, &j, error);
}

const image_codec image_codec_av = {"other", av_matches, av_header, av_image_decode};
