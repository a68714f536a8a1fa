/* video_llava.c - Video-LLaVA: https://arxiv.org/abs/2311.10122
 *
 *   picture -> shorter side 224, middle 224 x 224 -> CLIP for images, last layer but one, class row dropped: 256 features \
 *   video   -> 8 frames, each cut likewise        -> CLIP for videos, the same layer, class rows kept: 8 x 257 features   /
 *   -> linear, GELU, linear, one for both -> rows that replace <image> or <video> -> Llama (Vicuna)
 *
 * Bites: two towers of one config, with weights of their own (the videos' is LanguageBind's). Images lose the class row, frames keep it.
 * Pixels of images are called pixel_values_images. Images are resized by Pillow, frames by torchvision. */
#include "models/tower_lm.h"

#include <string.h>

#include "base/err.h"

enum { MOST_FRAMES = 8 };

typedef struct video_llava {
    tower_lm base;                 /* its tower and norm: of images */
    image_tower video;
    picture_norm frames;
    picture_middle image_middle, video_middle;
    mlp_connector connector;
} video_llava;

static const image_tower *tower_of(const video_llava *v, const encode_job *job) { return job->in->kind == MEDIA_VIDEO ? &v->video : &v->base.tower; }

static bool configure(vlm_model *m, config *c)
{
    video_llava *v = m->family = arena_alloc(&m->memory, sizeof *v);
    if (!v) return config_fail(c, VLM_MEMORY, "out of memory");
    int layer = (int)config_int(c, "vision_feature_layer", -2, -1024, 1024);
    const char *strategy = config_string(c, "vision_feature_select_strategy", "default");
    v->connector.act = config_activation(c, "projector_hidden_act", "gelu");
    if (!tower_lm_config(&v->base, m, c) || !image_tower_config(&v->base.tower, &m->memory, c, layer, false) ||
        !image_tower_config(&v->video, &m->memory, c, layer, false)) return false;
    const image_tower *t = &v->base.tower;
    if (!t->class_token || strcmp(strategy, "default"))
        return config_fail(c, VLM_UNSUPPORTED, "vision_feature_select_strategy \"%.20s\" with this tower", strategy);
    if (v->base.video_token < 0) return config_fail(c, VLM_FORMAT, "video_token_index is missing");
    m->takes |= TAKES_VIDEO;
    config *p = m->processor;
    bool ok = picture_config(&v->base.norm, p, "image_processor", picture_clip, RESIZE_BICUBIC);
    v->base.norm.pillow = true;
    return ok &&
           picture_config(&v->frames, p, "video_processor", picture_clip, RESIZE_BICUBIC) &&
           picture_middle_config(&v->image_middle, p, "image_processor", t->image, t->patch) &&
           picture_middle_config(&v->video_middle, p, "video_processor", t->image, t->patch);
}

static bool bind(vlm_model *m, binder *b)
{
    static const char *const images[] = {"image_tower.vision_model.", "image_tower.", "model.image_tower.vision_model.", "model.image_tower.", NULL};
    static const char *const videos[] = {"video_tower.vision_model.", "video_tower.", "model.video_tower.vision_model.", "model.video_tower.", NULL};
    video_llava *v = m->family;
    if (!decoder_bind(&v->base.text, b)) return false;
    image_tower_bind(&v->base.tower, b, images);
    image_tower_bind(&v->video, b, videos);
    bind_prefix(b, "", "model.", NULL);
    mlp_connector_bind(&v->connector, b, v->base.tower.vit.hidden, v->base.text.spec.hidden);
    return !b->failed;
}

/* ---- processor ---------------------------------------------------------------------------------------------------- */

static bool process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    const video_llava *v = m->family;
    bool film = item->kind == MEDIA_VIDEO;
    const picture_middle *middle = film ? &v->video_middle : &v->image_middle;
    const image *picture = film ? item->video.frames : &item->image;
    int n = film ? item->video.count : 1, height, width;
    (void)options;
    if (!film && !tower_lm_only_images(m, item, error)) return false;
    if (n < 1) return err_set(error, VLM_INVALID, "video without frames");
    int64_t tokens = (int64_t)n * (v->base.tower.positions + film);
    if (!tower_lm_fits(m, item, tokens, error)) return false;
    picture_middle_size(middle, &height, &width);
    out->kind = item->kind;
    out->tokens = (int)tokens;
    processed *p = film ? media_input_add(out, "pixel_values_videos", DT_F32, 5, (const int64_t[]){1, n, 3, height, width})
                         : media_input_add(out, "pixel_values_images", DT_F32, 4, (const int64_t[]){1, 3, height, width});
    if (!p) return err_memory(error, (size_t)n * 3 * (size_t)height * (size_t)width * sizeof(float));
    for (int i = 0; i < n; i++)
        if (!picture_middle_write(middle, film ? &v->frames : &v->base.norm, &picture[i], (float *)p->data + (int64_t)i * 3 * height * width, error)) return false;
    return true;
}

static bool frame_size(const vlm_model *m, const media_item *item, const json_t *options, int *width, int *height, resize_filter *filter, vlm_error *error)
{
    const video_llava *v = m->family;
    (void)options;
    *filter = v->frames.filter;
    return picture_middle_resized(&v->video_middle, item->video.info.width, item->video.info.height, width, height, error);
}

/* The first of equal parts each. */
static bool pick_frames(const vlm_model *m, const chat_media *part, const json_t *options, const video_info *info, int64_t **indices, int *count,
                        vlm_error *error)
{
    if (!tower_lm_pick(part, options, info, MOST_FRAMES, indices, count, error)) return false;
    for (int i = 0; i < *count; i++) (*indices)[i] = (int64_t)((double)i * ((double)info->total_frames / *count));
    return true;
}

/* ---- encoder ------------------------------------------------------------------------------------------------------ */

static bool encode_start(run *r, const vlm_model *m, encode_job *job) { return image_tower_start_tiles(r, tower_of(m->family, job), job); }

static bool encode(run *r, const vlm_model *m, encode_job *job)
{
    const video_llava *v = m->family;
    const image_tower *t = tower_of(v, job);
    if (!image_tower_encode(r, t, job)) return false;
    if (job->stage < job->stages) return true;
    tensor x = t == &v->video ? job->x : image_tower_features(r, t, job);  /* job->x: class rows and all */
    image_tower_set_rows(r, job, mlp_connector_apply(r, &v->connector, x));
    return run_ok(r);
}

static const char *const types[] = {"video_llava", NULL};

const vlm_arch vlm_arch_video_llava = {
    .name = "video_llava",
    .title = "Video-LLaVA",
    .model_types = types,
    .rules = &media_rules_fixed,
    .task = TASK_GENERATE,
    .takes = TAKES_IMAGE | TAKES_VIDEO,
    .configure = configure,
    .bind = bind,
    .process = process,
    .pick_frames = pick_frames,
    .frame_size = frame_size,
    .placeholder = tower_lm_placeholder,
    .media_token = tower_lm_media_token,
    .expand = tower_lm_expand,
    .encode_start = encode_start,
    .encode = encode,
    .forward = tower_lm_forward,
};
