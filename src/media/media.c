/* media.c - what all kinds of media share: names, the default policy, releasing. */
#include "media/media.h"

const char *media_kind_name(media_kind kind)
{
    switch (kind) {
    case MEDIA_IMAGE: return "image";
    case MEDIA_VIDEO: return "video";
    case MEDIA_AUDIO: return "audio";
    case MEDIA_PROMPT: return "prompt";
    }
    return "media";
}

media_policy media_policy_default(void)
{
    return (media_policy){
        .local_files = true, .network = true, .private_addresses = false,
        .max_bytes = (size_t)256 << 20, .max_pixels = 178956970, .max_side = 65535, .max_frames = 1024, .max_video_pixels = (int64_t)1 << 30,
        .max_seconds = 3600, .timeout_seconds = 30, .max_redirects = 5,
    };
}

void image_free(image *img)
{
    if (!img) return;
    mem_free(img->rgb);
    *img = (image){0};
}

void video_free(video *v)
{
    if (!v) return;
    for (int i = 0; v->frames && i < v->count; i++) image_free(&v->frames[i]);
    mem_free(v->frames);
    mem_free(v->indices);
    mem_free(v->seconds);
    *v = (video){0};
}

void audio_free(audio *a)
{
    if (!a) return;
    mem_free(a->samples);
    *a = (audio){0};
}
