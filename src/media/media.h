/* media.h - bytes of images, videos and audio become pixels, frames and samples.
 *
 * One admission path for everything: media_fetch applies the policy (what may be read, how much), each decoder looks at the
 * header and the ceilings before it decodes a pixel. What a model family makes of the pixels (resize, patches, mel) is built
 * from image_resize and mel.h in models/. */
#ifndef VLM_MEDIA_H
#define VLM_MEDIA_H

#include "base/hash.h"
#include "base/mem.h"
#include "vlm.h"

typedef enum media_kind { MEDIA_IMAGE, MEDIA_VIDEO, MEDIA_AUDIO, MEDIA_PROMPT /* what an encoder-decoder's encoder reads; never a part of a message */ } media_kind;
const char *media_kind_name(media_kind kind);

/* Texts that were taken out of a request's JSON before it was parsed (data URLs and base64, megabytes of them): in their place stands their name, `prefix` and
 * a number. The prefix holds a random part, so that nobody else can name them. Not zero-terminated; whoever made the policy keeps them alive. */
typedef struct media_text { const char *data; size_t size; } media_text;
typedef struct media_attached { char prefix[56]; int count; const media_text *item; } media_attached;
/* The text that `name` stands for; false: it is no name of one. */
bool media_attached_find(const media_attached *a, const char *name, size_t size, media_text *out);

/* What may be read, and how much. Zero-initialised fields are not "no limit": start from media_policy_default. */
typedef struct media_policy {
    bool local_files;              /* paths, file:// ("-" is standard input) */
    bool network;                  /* http, https */
    bool private_addresses;        /* loopback, RFC 1918, link-local, ULA, v4-mapped: checked on the address that is connected to */
    size_t max_bytes;              /* of one item as it comes: 256 MiB */
    int64_t max_pixels;            /* of one image or frame, from the header: 178956970 (Pillow's decompression bomb limit x 2) */
    int max_side;                  /* 65535 */
    int max_frames;                /* frames kept of one video: 1024 */
    int64_t max_video_pixels;      /* of all frames kept of one video: 2^30 */
    double max_seconds;            /* of audio: 3600; of video: 6 hours */
    int timeout_seconds;           /* of a download: 30 */
    int max_redirects;             /* 5, each hop checked again */
    const char *const *paths;      /* folders that local files must lie below, links followed; NULL-terminated; NULL: anywhere */
    const media_attached *attached;        /* NULL: none */
} media_policy;
media_policy media_policy_default(void);

/* The bytes of SRC: path, file://, data: (base64 or percent), http(s)://, "-". Appends to *out.
 * A directory is not an error: *is_directory is set (a video as a folder of frames) when is_directory is not NULL. */
bool media_fetch(const char *source, const media_policy *policy, buf *out, bool *is_directory, vlm_error *error);

/* ---- images: 8-bit RGB, rows tight, as Pillow's Image.open + exif_transpose + convert("RGB") give it ---- */
typedef struct image {
    int width, height;
    uint8_t *rgb;
    bool gray;                     /* one byte a pixel, which stands for all three; only out of image_decode_compact */
} image;
void image_free(image *img);
/* JPEG, PNG, WebP, GIF (first frame), BMP, TIFF and what libavcodec decodes besides. */
bool image_decode(const void *data, size_t size, const media_policy *policy, image *out, vlm_error *error);
/* The same for a picture that goes to image_resize next: a gray one may stay one byte a pixel, which saves most of the work
 * on large scans. Everything else wants image_to_rgb first. */
bool image_decode_compact(const void *data, size_t size, const media_policy *policy, image *out, vlm_error *error);
bool image_to_rgb(image *img, vlm_error *error);
/* Width and height after EXIF rotation, from the header alone. */
bool image_probe(const void *data, size_t size, int *width, int *height, vlm_error *error);

typedef enum resize_filter { RESIZE_NEAREST, RESIZE_BILINEAR, RESIZE_BICUBIC, RESIZE_LANCZOS, RESIZE_PLAIN /* image_resize_plain */ } resize_filter;
/* torchvision's antialiased resize of 8-bit images: horizontal pass, round and clip to 8 bits, vertical pass; bicubic a = -0.5.
 * `in` may be gray; out is RGB. */
bool image_resize(const image *in, int width, int height, resize_filter filter, image *out, vlm_error *error);

/* Bilinear between the four nearest pixels, not smoothed when shrinking (torchvision with antialias=False, on floats, then rounded). */
bool image_resize_plain(const image *in, int width, int height, image *out, vlm_error *error);
/* The same as Pillow 13 does it: the passes change places where that is cheaper. */
bool image_resize_pillow(const image *in, int width, int height, resize_filter filter, image *out, vlm_error *error);

/* ---- video ---- */
typedef struct video_info {
    int width, height;
    int64_t total_frames;
    double fps, duration;          /* seconds */
    bool folder;                   /* of frames: fps is what the part said (or 24) */
} video_info;
typedef struct video {
    video_info info;
    int count;
    image *frames;                 /* the picked ones, in order */
    int64_t *indices;              /* which they were */
    double *seconds;               /* indices[i] / fps */
} video;
/* Chooses frames: fills *indices (rising, may repeat; mem_* memory, the caller of pick frees) and *count. */
typedef bool (*video_pick_fn)(void *user, const video_info *info, int64_t **indices, int *count, vlm_error *error);
/* Sees each picked frame as soon as it is decoded, may make it smaller or take its pixels away (rgb NULL): so a long video never lies in memory as a
 * whole. index: which of the picked ones; each comes once (a damaged file may
 * begin again, with another pick). out's info, count, indices and seconds are there. */
typedef bool (*video_frame_fn)(void *user, int index, image *frame, vlm_error *error);
/* Decodes only what the picked frames need (seeks to key frames). */
bool video_decode(const void *data, size_t size, const media_policy *policy, video_pick_fn pick, void *user, video *out, vlm_error *error);
/* A folder of numbered images as a video of `fps` frames per second. */
bool video_from_folder(const char *path, double fps, const media_policy *policy, video_pick_fn pick, void *user, video *out, vlm_error *error);
/* The same, frame by frame; max_video_pixels counts what `frame` leaves of them. */
bool video_decode_each(const void *data, size_t size, const media_policy *policy, video_pick_fn pick, video_frame_fn frame, void *user, video *out,
                       vlm_error *error);
bool video_from_folder_each(const char *path, double fps, const media_policy *policy, video_pick_fn pick, video_frame_fn frame, void *user, video *out,
                            vlm_error *error);
void video_free(video *v);

/* ---- audio: mono float32, channels averaged, resampled (libsoxr, high quality) when the rate differs ---- */
typedef struct audio { int rate; int64_t count; float *samples; } audio;
bool audio_decode(const void *data, size_t size, int rate, const media_policy *policy, audio *out, vlm_error *error);
void audio_free(audio *a);

#endif
