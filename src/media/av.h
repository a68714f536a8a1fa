/* av.h - libavformat and libavcodec over bytes in memory, for video.c, audio_av.c and image_av.c.
 *
 * Only the demuxers that are named can be chosen, none of them can open anything else (playlists, external tracks), sizes are
 * limited before frames are allocated, and the library is quiet. */
#ifndef VLM_MEDIA_AV_H
#define VLM_MEDIA_AV_H

#include "media/av_api.h"
#include "media/media.h"

typedef struct av_input {
    AVFormatContext *format;
    AVIOContext *io;
    AVStream *stream;              /* the one that is decoded */
    AVCodecContext *codec;
    AVPacket *packet;
    AVFrame *frame;
    const uint8_t *data;
    size_t size, at;
} av_input;

/* Opens the container and the best stream of a kind. demuxers: comma-separated names. av_close is right after a failure, too. */
bool av_open(av_input *in, const void *data, size_t size, const char *demuxers, enum AVMediaType kind, const media_policy *policy,
             vlm_error *error);
/* A decoder without a container, which does not patch up damaged data. */
bool av_open_codec(av_input *in, enum AVCodecID id, const media_policy *policy, vlm_error *error);
void av_close(av_input *in);
/* Sends a packet (NULL: drain) and hands each frame to `each` until it returns false. Damaged packets are skipped. False only
 * when `each` said so or memory ran out. */
typedef bool (*av_frame_fn)(void *user, AVFrame *frame, vlm_error *error);
bool av_decode(av_input *in, const AVPacket *packet, av_frame_fn each, void *user, vlm_error *error);
/* "Invalid data found ..." of a libav error number. */
bool av_fail(vlm_error *error, const char *doing, int number);
/* Converts a frame to RGB of the size that out has (out->rgb is allocated). As ffmpeg's own conversion to rgb24 does it. */
bool av_to_rgb(struct SwsContext **cache, const AVFrame *frame, image *out, vlm_error *error);

#endif
