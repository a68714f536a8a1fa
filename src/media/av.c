/* av.c - see av.h. */
#include "media/av.h"

#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/thread.h"

bool av_fail(vlm_error *error, const char *doing, int number)
{
    if (number == AVERROR(ENOMEM)) return err_memory(error, 0);
    char text[AV_ERROR_MAX_STRING_SIZE] = "";
    av_strerror(number, text, sizeof text);
    return err_set(error, number == AVERROR_DECODER_NOT_FOUND ? VLM_UNSUPPORTED : VLM_FORMAT, "%s: %s", doing, text);
}

/* ---- bytes in memory as a file ---- */

static int on_read(void *opaque, uint8_t *to, int n)
{
    av_input *in = opaque;
    size_t left = in->size - in->at;
    if (left == 0) return AVERROR_EOF;
    if ((size_t)n > left) n = (int)left;
    memcpy(to, in->data + in->at, (size_t)n);
    in->at += (size_t)n;
    return n;
}

static int64_t on_seek(void *opaque, int64_t offset, int whence)
{
    av_input *in = opaque;
    if (whence & AVSEEK_SIZE) return (int64_t)in->size;
    whence &= ~AVSEEK_FORCE;
    if (whence == SEEK_CUR) offset += (int64_t)in->at;
    else if (whence == SEEK_END) offset += (int64_t)in->size;
    if (offset < 0 || offset > (int64_t)in->size) return AVERROR(EINVAL);
    in->at = (size_t)offset;
    return offset;
}

static int refuse_open(AVFormatContext *s, AVIOContext **pb, const char *url, int flags, AVDictionary **options)
{
    (void)s, (void)pb, (void)url, (void)flags, (void)options;
    return AVERROR(EPERM);
}

static bool open_container(av_input *in, const char *demuxers, vlm_error *error)
{
    enum { BUFFER = 32768 };
    uint8_t *buffer = mem_inject() ? NULL : av_malloc(BUFFER);
    in->io = buffer ? avio_alloc_context(buffer, BUFFER, 0, in, on_read, NULL, on_seek) : NULL;
    in->format = in->io ? avformat_alloc_context() : NULL;
    if (!in->format) {
        if (!in->io) av_free(buffer);
        return err_memory(error, BUFFER);
    }
    in->format->pb = in->io;
    in->format->flags |= AVFMT_FLAG_CUSTOM_IO;
    in->format->io_open = refuse_open;
    AVDictionary *options = NULL;
    av_dict_set(&options, "format_whitelist", demuxers, 0);
    av_dict_set(&options, "protocol_whitelist", "none", 0);
    int failed = avformat_open_input(&in->format, NULL, NULL, &options);      /* frees the context when it fails */
    av_dict_free(&options);
    return failed < 0 ? av_fail(error, "not a container that is known, or damaged", failed) : true;
}

/* The library counts rows as padded: a little more than the ceiling, which is checked exactly elsewhere. */
static int64_t pixel_ceiling(const media_policy *policy)
{
    return policy->max_pixels < INT64_MAX / 2 ? policy->max_pixels + 64 * (int64_t)policy->max_side : INT64_MAX;
}

/* The library opens decoders of its own to look at the streams: the ceiling on pixels has to hold there, too. */
static bool look_at_streams(av_input *in, const media_policy *policy, vlm_error *error)
{
    enum { MOST = 64 };
    AVDictionary *options[MOST] = {0};
    unsigned n = in->format->nb_streams;
    if (n > MOST) return err_set(error, VLM_LIMIT, "%u streams, %d at most are read", n, MOST);
    for (unsigned i = 0; i < n; i++) av_dict_set_int(&options[i], "max_pixels", pixel_ceiling(policy), 0);
    int failed = avformat_find_stream_info(in->format, n ? options : NULL);
    for (unsigned i = 0; i < n; i++) av_dict_free(&options[i]);
    return failed < 0 ? av_fail(error, "the streams cannot be read", failed) : true;
}

/* The library synchronises its threads in ways that ThreadSanitizer, which sees only our half, takes for races. */
#if defined(__SANITIZE_THREAD__)
static int decoder_threads(const av_input *in)
{
    (void)in;
    return 1;
}
#else
static int decoder_threads(const av_input *in)
{
    bool moving = in->stream && in->stream->codecpar->codec_type == AVMEDIA_TYPE_VIDEO;
    return !moving ? 1 : cpu_count() < 8 ? cpu_count() : 8;
}
#endif

static bool start_codec(av_input *in, const AVCodec *codec, bool strict, const media_policy *policy, vlm_error *error)
{
    in->codec = avcodec_alloc_context3(codec);
    in->packet = av_packet_alloc();
    in->frame = av_frame_alloc();
    if (!in->codec || !in->packet || !in->frame || (in->stream && avcodec_parameters_to_context(in->codec, in->stream->codecpar) < 0))
        return err_memory(error, 0);
    in->codec->max_pixels = pixel_ceiling(policy);
    if (in->stream) in->codec->pkt_timebase = in->stream->time_base;
    if (strict) in->codec->err_recognition |= AV_EF_EXPLODE;
    in->codec->thread_count = decoder_threads(in);
    int failed = avcodec_open2(in->codec, codec, NULL);
    return failed < 0 ? av_fail(error, "the decoder does not start", failed) : true;
}

bool av_open(av_input *in, const void *data, size_t size, const char *demuxers, enum AVMediaType kind, const media_policy *policy,
             vlm_error *error)
{
    *in = (av_input){.data = data, .size = size};
    if (!av_load(error) || !open_container(in, demuxers, error) || !look_at_streams(in, policy, error)) return false;
    const AVCodec *codec = NULL;
    int stream = av_find_best_stream(in->format, kind, -1, -1, &codec, 0);
    if (stream == AVERROR_DECODER_NOT_FOUND) return err_set(error, VLM_UNSUPPORTED, "no decoder for this %s stream", av_get_media_type_string(kind));
    if (stream < 0) return err_set(error, VLM_FORMAT, "no %s stream in it", av_get_media_type_string(kind));
    in->stream = in->format->streams[stream];
    for (unsigned i = 0; i < in->format->nb_streams; i++)
        if ((int)i != stream) in->format->streams[i]->discard = AVDISCARD_ALL;
    return start_codec(in, codec, false, policy, error);
}

bool av_open_codec(av_input *in, enum AVCodecID id, const media_policy *policy, vlm_error *error)
{
    *in = (av_input){0};
    if (!av_load(error)) return false;
    const AVCodec *codec = avcodec_find_decoder(id);
    if (!codec) return err_set(error, VLM_UNSUPPORTED, "libavcodec has no decoder for %s", avcodec_get_name(id));
    return start_codec(in, codec, id != AV_CODEC_ID_TIFF /* it calls unknown tags an error */, policy, error);
}

void av_close(av_input *in)
{
    if (!av_load(NULL)) return;
    avcodec_free_context(&in->codec);
    av_packet_free(&in->packet);
    av_frame_free(&in->frame);
    avformat_close_input(&in->format);
    if (in->io) av_freep(&in->io->buffer);
    avio_context_free(&in->io);
    *in = (av_input){0};
}

bool av_decode(av_input *in, const AVPacket *packet, av_frame_fn each, void *user, vlm_error *error)
{
    bool sent = false;
    for (;;) {
        if (!sent) {
            int status = avcodec_send_packet(in->codec, packet);
            if (status == AVERROR(ENOMEM)) return err_memory(error, 0);
            sent = status != AVERROR(EAGAIN);                     /* anything else that is wrong with it: left out */
        }
        int status = avcodec_receive_frame(in->codec, in->frame);
        if (status == AVERROR(ENOMEM)) return err_memory(error, 0);
        if (status < 0) {
            if (sent) return true;
            continue;
        }
        bool more = each(user, in->frame, error);
        av_frame_unref(in->frame);
        if (!more) return false;
    }
}

bool av_to_rgb(struct SwsContext **cache, const AVFrame *frame, image *out, vlm_error *error)
{
    *cache = sws_getCachedContext(*cache, frame->width, frame->height, frame->format, out->width, out->height, AV_PIX_FMT_RGB24,
                                  SWS_BICUBIC, NULL, NULL, NULL);
    if (!*cache) return err_set(error, VLM_UNSUPPORTED, "no conversion from %s to RGB", av_get_pix_fmt_name(frame->format));
    int space = frame->colorspace == AVCOL_SPC_UNSPECIFIED || frame->colorspace == AVCOL_SPC_RGB ? SWS_CS_DEFAULT : (int)frame->colorspace;
    sws_setColorspaceDetails(*cache, sws_getCoefficients(space), frame->color_range == AVCOL_RANGE_JPEG, sws_getCoefficients(SWS_CS_DEFAULT),
                             0, 0, 1 << 16, 1 << 16);
    /* swscale writes whole vectors: rows go to memory of its own alignment first when ours are not padded */
    uint8_t *rows = NULL;
    int stride = (out->width * 3 + 63) / 64 * 64;
    rows = mem_aligned((size_t)stride * (size_t)out->height + 64);
    if (!rows) return err_memory(error, (size_t)stride * (size_t)out->height);
    uint8_t *planes[4] = {rows};
    int strides[4] = {stride};
    int done = sws_scale(*cache, (const uint8_t *const *)frame->data, frame->linesize, 0, frame->height, planes, strides);
    for (int y = 0; y < done && y < out->height; y++)
        memcpy(out->rgb + (size_t)y * (size_t)out->width * 3, rows + (size_t)y * (size_t)stride, (size_t)out->width * 3);
    mem_free(rows);
    return done == out->height ? true : err_set(error, VLM_FORMAT, "the conversion to RGB stopped at row %d", done);
}
