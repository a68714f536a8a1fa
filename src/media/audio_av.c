/* audio_av.c - sound in everything that libavcodec decodes: MP3, FLAC, Ogg, Opus, M4A, and the sound of a video. */
#include "base/err.h"
#include "media/audio_codec.h"
#include "media/av.h"

static const char demuxers[] = "wav,w64,aiff,au,caf,mp3,flac,ogg,mov,mp4,m4a,matroska,webm,aac,ac3,eac3,amr,ape,asf,avi,flv,tta,wv,mpc,"
                               "mpc8,mpegts,mpeg,dts";

typedef struct job {
    audio_pcm *out;
    const media_policy *policy;
} job;

static float sample_of(const AVFrame *frame, int channel, int channels, int i)
{
    int format = frame->format;
    const uint8_t *plane = av_sample_fmt_is_planar(format) ? frame->extended_data[channel] : frame->extended_data[0];
    size_t at = av_sample_fmt_is_planar(format) ? (size_t)i : (size_t)i * (size_t)channels + (size_t)channel;
    switch (av_get_packed_sample_fmt(format)) {
    case AV_SAMPLE_FMT_U8: return (float)(plane[at] - 128) / 128;
    case AV_SAMPLE_FMT_S16: return (float)((const int16_t *)(const void *)plane)[at] / 32768;
    case AV_SAMPLE_FMT_S32: return (float)((double)((const int32_t *)(const void *)plane)[at] / 2147483648.0);
    case AV_SAMPLE_FMT_S64: return (float)((double)((const int64_t *)(const void *)plane)[at] / 9223372036854775808.0);
    case AV_SAMPLE_FMT_FLT: return ((const float *)(const void *)plane)[at];
    case AV_SAMPLE_FMT_DBL: return (float)((const double *)(const void *)plane)[at];
    default: return 0;
    }
}

static bool take_frame(void *user, AVFrame *frame, vlm_error *error)
{
    job *j = user;
    int channels = frame->ch_layout.nb_channels;
    if (channels < 1 || frame->nb_samples < 1) return true;
    if (j->out->rate == 0) {
        if (!audio_check_rate(frame->sample_rate, error)) return false;
        j->out->rate = frame->sample_rate;
    }
    if (frame->sample_rate != j->out->rate)
        return err_set(error, VLM_UNSUPPORTED, "the sampling rate changes from %d to %d", j->out->rate, frame->sample_rate);
    size_t n = (size_t)frame->nb_samples;
    if (!audio_reserve(j->out, j->out->count + n, j->policy, error)) return false;
    float *to = j->out->samples + j->out->count;
    for (size_t i = 0; i < n; i++) {
        float sum = 0;
        for (int c = 0; c < channels; c++) sum += sample_of(frame, c, channels, (int)i);
        to[i] = channels == 1 ? sum : sum / (float)channels;
    }
    j->out->count += n;
    return true;
}

bool audio_av_decode(const uint8_t *data, size_t size, const media_policy *policy, audio_pcm *out, vlm_error *error)
{
    av_input in;
    job j = {out, policy};
    bool ok = av_open(&in, data, size, demuxers, AVMEDIA_TYPE_AUDIO, policy, error);
    while (ok && av_read_frame(in.format, in.packet) >= 0) {
        if (in.packet->stream_index == in.stream->index) ok = av_decode(&in, in.packet, take_frame, &j, error);
        av_packet_unref(in.packet);
    }
    ok = ok && av_decode(&in, NULL, take_frame, &j, error);
    av_close(&in);
    return ok;
}
