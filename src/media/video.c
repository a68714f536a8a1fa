/* video.c - exactly the frames that were picked out of a video file.
 *
 * All packets of the stream are read first (nothing is decoded): their presentation times, sorted, are the frames; so frame
 * numbers are exact also with variable frame rates and in files that do not say how many frames they have. A picked frame is
 * then decoded from the last key frame at or before it, unless the decoder is already between the two. Packets stay in memory,
 * so going back to a key frame does not depend on a container's index.
 *
 * Where times are missing or doubled, or a picked frame does not come out of the decoder (damaged or invisible packets), the
 * stream is decoded from the start to the end and frames are counted as they come. */
#include <libavutil/display.h>
#include <stdlib.h>

#include "base/err.h"
#include "media/av.h"
#include "media/image_codec.h"
#include "media/video_pick.h"

static const char demuxers[] = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,ogg,gif,apng,asf,h264,hevc,ivf,obu,mjpeg,"
                               "m4v,rm,nut,wtv,mxf,yuv4mpegpipe";
enum { MAX_PACKETS = 2000000, MAX_HOURS = 6 };

typedef struct reader {
    av_input in;
    const media_policy *policy;
    video_plan plan;
    video *out;
    struct SwsContext *scaler;
    int orientation;               /* as in EXIF */
    AVPacket **packets;            /* in decoding order */
    size_t count, capacity, bytes;
    int64_t *times;                /* [count] sorted presentation times: frame i is shown at times[i] */
    int next;                      /* the first picked frame that is not there yet */
    int64_t seen;                  /* frames that came out, when counting */
    bool missed;                   /* a picked frame did not come out */
} reader;

static void reader_close(reader *r)
{
    for (size_t i = 0; i < r->count; i++) av_packet_free(&r->packets[i]);
    mem_free(r->packets);
    mem_free(r->times);
    if (r->scaler) sws_freeContext(r->scaler);
    av_close(&r->in);
}

/* ---- the packets ---- */

static bool keep_packet(reader *r, AVPacket *packet, vlm_error *error)
{
    if (r->count == MAX_PACKETS) return err_set(error, VLM_LIMIT, "more than %d frames", MAX_PACKETS);
    r->bytes += (size_t)packet->size;
    if (r->bytes / 2 > r->in.size) return err_set(error, VLM_FORMAT, "the frames are larger than the file");
    if (r->count == r->capacity) {
        size_t capacity = r->capacity ? 2 * r->capacity : 256;
        AVPacket **grown = mem_resize(r->packets, capacity, sizeof *grown);
        if (!grown) return err_memory(error, capacity * sizeof *grown);
        r->packets = grown;
        r->capacity = capacity;
    }
    AVPacket *kept = mem_inject() ? NULL : av_packet_alloc();
    if (!kept) return err_memory(error, sizeof *kept);
    av_packet_move_ref(kept, packet);
    r->packets[r->count++] = kept;
    return true;
}

static bool read_packets(reader *r, vlm_error *error)
{
    bool ok = true;
    while (ok && av_read_frame(r->in.format, r->in.packet) >= 0) {
        if (r->in.packet->stream_index == r->in.stream->index) ok = keep_packet(r, r->in.packet, error);
        av_packet_unref(r->in.packet);
    }
    return ok && r->count == 0 ? err_set(error, VLM_FORMAT, "the video has no frames") : ok;
}

static int by_time(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Fills times and total_frames. *sure = false when the times do not name the frames. */
static bool list_times(reader *r, bool *sure, vlm_error *error)
{
    int64_t n = 0;
    *sure = true;
    r->times = MEM_ARRAY(r->count, int64_t);
    if (!r->times) return err_memory(error, r->count * sizeof(int64_t));
    for (size_t i = 0; i < r->count; i++) {
        const AVPacket *p = r->packets[i];
        if (p->flags & AV_PKT_FLAG_DISCARD) continue;             /* cut away by an edit list */
        if (p->pts == AV_NOPTS_VALUE) *sure = false;
        else r->times[n++] = p->pts;
    }
    qsort(r->times, (size_t)n, sizeof *r->times, by_time);
    for (int64_t i = 1; i < n; i++)
        if (r->times[i] == r->times[i - 1]) *sure = false;
    if (n == 0) *sure = false;
    r->out->info.total_frames = n;
    return true;
}

/* ---- what the stream says about itself ---- */

static double ratio(AVRational q)
{
    return q.num > 0 && q.den > 0 ? av_q2d(q) : 0;
}

/* The display matrix as the EXIF orientation that means the same. */
static int orientation_of(const AVStream *stream)
{
    size_t size = 0;
    const int32_t *m = (const int32_t *)(const void *)av_stream_get_side_data(stream, AV_PKT_DATA_DISPLAYMATRIX, &size);
    if (!m || size < 9 * sizeof *m) return 1;
    bool mirrored = (double)m[0] * m[4] - (double)m[1] * m[3] < 0;
    if (m[0] == 0 && m[4] == 0) return mirrored ? (m[1] > 0 ? 5 : 7) : (m[1] > 0 ? 6 : 8);
    if (mirrored) return m[0] < 0 ? 2 : 4;
    return m[0] < 0 ? 3 : 1;
}

static bool describe(reader *r, vlm_error *error)
{
    const AVStream *s = r->in.stream;
    video_info *info = &r->out->info;
    if (s->disposition & AV_DISPOSITION_ATTACHED_PIC) return err_set(error, VLM_FORMAT, "no video stream in it, only a cover picture");
    r->orientation = orientation_of(s);
    bool turned = r->orientation >= 5;
    info->width = turned ? s->codecpar->height : s->codecpar->width;
    info->height = turned ? s->codecpar->width : s->codecpar->height;
    if (!image_check_size(info->width, info->height, r->policy, error)) return false;
    info->fps = ratio(s->avg_frame_rate);
    if (info->fps <= 0) info->fps = ratio(s->r_frame_rate);
    return true;
}

static bool describe_time(reader *r, vlm_error *error)
{
    const AVStream *s = r->in.stream;
    video_info *info = &r->out->info;
    double seconds = s->duration > 0 ? (double)s->duration * ratio(s->time_base) : 0;
    if (info->fps <= 0) info->fps = seconds > 0 ? (double)info->total_frames / seconds : 24;
    info->duration = (double)info->total_frames / info->fps;
    if (info->duration > MAX_HOURS * 3600.0)
        return err_set(error, VLM_LIMIT, "a video of %.1f hours, %d at most are read", info->duration / 3600, MAX_HOURS);
    return true;
}

/* ---- decoding ---- */

static bool store(reader *r, AVFrame *frame, vlm_error *error)
{
    video *v = r->out;
    image *to = &v->frames[r->next];
    bool turned = r->orientation >= 5;
    if (!image_start(to, turned ? v->info.height : v->info.width, turned ? v->info.width : v->info.height, r->policy, error)) return false;
    if (!av_to_rgb(&r->scaler, frame, to, error) || !image_orient(to, r->orientation, error)) return false;
    int first = r->next, end = first + 1;
    for (; end < v->count && v->indices[end] == v->indices[first]; end++)
        if (!image_copy(to, &v->frames[end], error)) return false;
    for (; r->next < end; r->next++)
        if (!video_keep(v, r->next, r->policy, &r->plan, error)) return false;
    return true;
}

static bool take_by_time(void *user, AVFrame *frame, vlm_error *error)
{
    reader *r = user;
    int64_t time = frame->pts;
    if (r->next >= r->out->count || time == AV_NOPTS_VALUE) return true;
    int64_t wanted = r->times[r->out->indices[r->next]];
    if (time > wanted) r->missed = true;
    return time != wanted || store(r, frame, error);
}

static bool take_by_count(void *user, AVFrame *frame, vlm_error *error)
{
    reader *r = user;
    int64_t i = r->seen++;
    return r->next >= r->out->count || r->out->indices[r->next] != i || store(r, frame, error);
}

/* Frames are only counted: nothing is chosen yet. */
static bool take_none(void *user, AVFrame *frame, vlm_error *error)
{
    (void)frame, (void)error;
    ((reader *)user)->seen++;
    return true;
}

static bool decode_all(reader *r, av_frame_fn each, vlm_error *error)
{
    avcodec_flush_buffers(r->in.codec);
    r->seen = 0;
    for (size_t i = 0; i < r->count; i++) {
        if (each == take_by_count && r->next >= r->out->count) return true;
        if (!av_decode(&r->in, r->packets[i], each, r, error)) return false;
    }
    return av_decode(&r->in, NULL, each, r, error);
}

/* The packet to start at for the frame shown at `time`: the last key frame, in decoding order, that is not shown later. */
static size_t start_for(const reader *r, int64_t time)
{
    size_t best = 0;
    for (size_t i = 0; i < r->count; i++)
        if ((r->packets[i]->flags & AV_PKT_FLAG_KEY) && r->packets[i]->pts != AV_NOPTS_VALUE && r->packets[i]->pts <= time) best = i;
    return best;
}

static bool decode_picked(reader *r, vlm_error *error)
{
    size_t at = 0;                                                    /* the next packet to send */
    while (r->next < r->out->count && !r->missed) {
        int picked = r->next;
        size_t start = start_for(r, r->times[r->out->indices[picked]]);
        if (start > at) {                                             /* else the decoder is on its way already */
            avcodec_flush_buffers(r->in.codec);
            at = start;
        }
        while (r->next == picked && !r->missed && at < r->count)
            if (!av_decode(&r->in, r->packets[at++], take_by_time, r, error)) return false;
        if (r->next != picked || r->missed) continue;
        if (!av_decode(&r->in, NULL, take_by_time, r, error)) return false;      /* what is still inside the decoder */
        if (r->next == picked) r->missed = true;
    }
    return true;
}

static void forget_choice(video *v)
{
    video_info info = v->info;
    video_free(v);
    v->info = info;
}

static bool decode_counted(reader *r, vlm_error *error)
{
    forget_choice(r->out);
    r->next = 0;
    r->plan.pixels = 0;
    if (!decode_all(r, take_none, error)) return false;
    r->out->info.total_frames = r->seen;
    if (r->seen == 0) return err_set(error, VLM_FORMAT, "no frame of the video can be decoded (%zu packets)", r->count);
    if (!describe_time(r, error) || !video_choose(r->out, r->policy, &r->plan, error)) return false;
    if (!decode_all(r, take_by_count, error)) return false;
    if (r->next < r->out->count)
        return err_set(error, VLM_FORMAT, "frame %lld of the video cannot be decoded", (long long)r->out->indices[r->next]);
    return true;
}

static bool run(reader *r, const void *data, size_t size, vlm_error *error)
{
    if (size == 0) return err_set(error, VLM_FORMAT, "empty (0 bytes)");
    bool sure;
    if (!av_open(&r->in, data, size, demuxers, AVMEDIA_TYPE_VIDEO, r->policy, error) || !describe(r, error) || !read_packets(r, error) ||
        !list_times(r, &sure, error))
        return false;
    if (sure) {
        if (!describe_time(r, error) || !video_choose(r->out, r->policy, &r->plan, error) || !decode_picked(r, error)) return false;
        if (!r->missed) return true;
    }
    return decode_counted(r, error);
}

bool video_decode(const void *data, size_t size, const media_policy *policy, video_pick_fn pick, void *user, video *out, vlm_error *error)
{
    return video_decode_each(data, size, policy, pick, NULL, user, out, error);
}

bool video_decode_each(const void *data, size_t size, const media_policy *policy, video_pick_fn pick, video_frame_fn frame, void *user, video *out,
                       vlm_error *error)
{
    *out = (video){0};
    media_policy standard = media_policy_default();
    reader r = {.policy = policy ? policy : &standard, .plan = {pick, frame, user, 0}, .out = out};
    bool ok = run(&r, data, size, error);
    reader_close(&r);
    if (ok) return true;
    video_free(out);
    return err_prefix(error, "video");
}
