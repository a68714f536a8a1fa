/* internvl.c - InternVL 2.5, 3, 3.5 in the layout of transformers.  https://arxiv.org/abs/2504.10479
 * Qianfan-OCR: the same with names as InternVL first published them, before Qwen3; images only.  https://huggingface.co/baidu/Qianfan-OCR
 *
 *   picture -> resized to the grid of tiles whose shape is nearest (1 to max_patches tiles of 448 x 448), cut; with more than one tile the whole
 *           picture as one more -> InternViT, class row dropped -> 2 x 2 features side by side -> layer norm, linear, GELU, linear
 *   -> rows that replace <IMG_CONTEXT> between <img> and </img> -> Qwen2, Llama ...
 *   video: each frame is one tile, "Frame1: <img> ... </img>", a line each
 *
 * Bites: of equally good grids the later (larger) one wins, as long as it has less than twice the picture's pixels. Images and videos share the
 * token and pixel_values. */
#include "models/tower_lm.h"

#include <string.h>

#include "base/err.h"

enum { MOST_FRAMES = 64 };

typedef struct internvl {
    tower_lm base;
    mlp_connector connector;
    picture_norm frames;
    const float *norm, *norm_bias;
    int factor, tokens;            /* features side by side; tokens of a tile */
    tile_grid grid;
    bool first_names;              /* Qianfan-OCR */
    const char *begin, *end, *video_mark, *image_mark;         /* image_mark: what the template writes; NULL: the token */
} internvl;

static bool configure(vlm_model *m, config *c)
{
    internvl *v = m->family = arena_alloc(&m->memory, sizeof *v);
    if (!v) return config_fail(c, VLM_MEMORY, "out of memory");
    int layer = (int)config_int(c, "vision_feature_layer", -1, -1024, 1024);
    double ratio = config_number(c, "downsample_ratio", 0.5);
    v->connector.act = config_activation(c, "projector_hidden_act", "gelu");
    v->first_names = !strcmp(config_string(c, "model_type", ""), "qianfan_ocr");
    if (v->first_names && (!config_defaults(c, "vision_config", "{\"model_type\":\"qianfan_ocr_vision\"}") || !config_defaults(c, "text_config", "{\"model_type\":\"qwen3\"}")))
        return false;
    if (!tower_lm_config(&v->base, m, c) || !image_tower_config(&v->base.tower, &m->memory, c, layer, !config_bool(c, "vision_config.use_mean_pooling", true)))
        return false;
    int side = v->base.tower.image / v->base.tower.patch;
    v->factor = ratio > 0 && ratio <= 1 ? (int)(1 / ratio) : 0;
    if (!v->factor || side % v->factor) return config_fail(c, VLM_FORMAT, "downsample_ratio %g of %d x %d features", ratio, side, side);
    v->tokens = side / v->factor * (side / v->factor);
    v->base.video_token = v->first_names ? -1 : v->base.image_token;
    m->takes = v->first_names ? TAKES_IMAGE : TAKES_IMAGE | TAKES_VIDEO;
    config *p = m->processor;
    tile_grid_config(&v->grid, p);
    v->begin = config_string(p, "start_image_token", "<img>");
    v->end = config_string(p, "end_image_token", "</img>");
    v->video_mark = config_string(p, "video_token", "<video>");
    v->image_mark = v->first_names ? config_string(p, "image_placeholder_token", "<image>") : NULL;
    return !c->failed && picture_config(&v->base.norm, p, "image_processor", picture_imagenet, RESIZE_BICUBIC) &&
           picture_config(&v->frames, p, "video_processor", picture_imagenet, RESIZE_BICUBIC);
}

static bool bind_first_names(internvl *v, binder *b, int64_t wide)
{
    static const char *const tower[] = {"vision_model.", "model.vision_model.", NULL};
    int64_t d = v->base.text.spec.hidden;
    if (decoder_bind(&v->base.text, b)) image_tower_bind(&v->base.tower, b, tower);
    bind_prefix(b, "", "model.", NULL);
    bind_vector(b, &v->norm, wide, "mlp1.0.weight");
    bind_vector(b, &v->norm_bias, wide, "mlp1.0.bias");
    bind_linear(b, &v->connector.up, d, wide, "mlp1.1");
    bind_vector(b, &v->connector.up_bias, d, "mlp1.1.bias");
    bind_linear(b, &v->connector.down, d, d, "mlp1.3");
    bind_vector(b, &v->connector.down_bias, d, "mlp1.3.bias");
    return !b->failed;
}

static bool bind(vlm_model *m, binder *b)
{
    internvl *v = m->family;
    int64_t wide = (int64_t)v->base.tower.vit.hidden * v->factor * v->factor;
    if (v->first_names) return bind_first_names(v, b, wide);
    tower_lm_bind(&v->base, b);
    bind_vector(b, &v->norm, wide, "multi_modal_projector.layer_norm.weight");
    bind_vector(b, &v->norm_bias, wide, "multi_modal_projector.layer_norm.bias");
    mlp_connector_bind(&v->connector, b, wide, v->base.text.spec.hidden);
    return !b->failed;
}

/* ---- processor ---------------------------------------------------------------------------------------------------- */

static bool process_video(const vlm_model *m, const internvl *v, const media_item *item, media_input *out, vlm_error *error)
{
    int side = v->base.tower.image, n = item->video.count;
    out->tokens = n * v->tokens;
    out->frames = n;
    if (n < 1) return err_set(error, VLM_INVALID, "video without frames");
    if (!tower_lm_fits(m, item, out->tokens, error)) return false;
    processed *p = media_input_add(out, "pixel_values", DT_F32, 4, (const int64_t[]){n, 3, side, side});
    if (!p) return err_memory(error, (size_t)n * 3 * (size_t)side * (size_t)side * sizeof(float));
    for (int i = 0; i < n; i++)
        if (!picture_resized(&v->frames, &item->video.frames[i], side, side, 0, 0, side, side, (float *)p->data + (int64_t)i * 3 * side * side, error)) return false;
    return true;
}

static bool process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    const internvl *v = m->family;
    out->kind = item->kind;
    if (item->kind == MEDIA_VIDEO && (m->takes & TAKES_VIDEO)) return process_video(m, v, item, out, error);
    return tower_lm_only_images(m, item, error) && tile_grid_process(m, &v->grid, &v->base, item, options, v->tokens, out, error);
}

static bool frame_size(const vlm_model *m, const media_item *item, const json_t *options, int *width, int *height, resize_filter *filter, vlm_error *error)
{
    const internvl *v = m->family;
    (void)item, (void)options, (void)error;
    return tower_lm_frame_size(&v->frames, v->base.tower.image, width, height, filter);
}

/* The middles of equal parts. */
static bool pick_frames(const vlm_model *m, const chat_media *part, const json_t *options, const video_info *info, int64_t **indices, int *count,
                        vlm_error *error)
{
    if (!tower_lm_pick(part, options, info, MOST_FRAMES, indices, count, error)) return false;
    double step = (double)info->total_frames / *count;
    for (int i = 0; i < *count; i++) (*indices)[i] = (int64_t)(step / 2 + i * step);
    return true;
}

/* ---- prompt ------------------------------------------------------------------------------------------------------- */

static const char *placeholder(const vlm_model *m, media_kind kind)
{
    const internvl *v = m->family;
    if (kind == MEDIA_VIDEO) return m->takes & TAKES_VIDEO ? v->video_mark : NULL;
    return kind == MEDIA_IMAGE && v->image_mark ? v->image_mark : tower_lm_placeholder(m, kind);
}

static void add_tiles(const vlm_model *m, const internvl *v, int tokens, buf *text)
{
    const char *token = tower_lm_placeholder(m, MEDIA_IMAGE);
    buf_adds(text, v->begin);
    for (int i = 0; token && i < tokens; i++) buf_adds(text, token);
    buf_adds(text, v->end);
}

static bool expand(const vlm_model *m, const media_input *in, buf *text, vlm_error *error)
{
    const internvl *v = m->family;
    if (in->kind == MEDIA_IMAGE) add_tiles(m, v, in->tokens, text);
    for (int i = 0; in->kind == MEDIA_VIDEO && i < in->frames; i++) {
        buf_addf(text, "%sFrame%d: ", i ? "\n" : "", i + 1);
        add_tiles(m, v, v->tokens, text);
    }
    return text->failed ? err_memory(error, text->size) : true;
}

static bool encode(run *r, const vlm_model *m, encode_job *job)
{
    const internvl *v = m->family;
    int side = v->base.tower.image / v->base.tower.patch;
    if (!image_tower_encode(r, &v->base.tower, job)) return false;
    if (job->stage < job->stages) return true;
    tensor x = tower_lm_shuffle(r, image_tower_features(r, &v->base.tower, job), side, side, v->factor);
    image_tower_set_rows(r, job, mlp_connector_apply(r, &v->connector, op_layernorm(r, x, v->norm, v->norm_bias, 1e-5f)));
    return run_ok(r);
}

static const char *const types[] = {"internvl", "qianfan_ocr", NULL};

const vlm_arch vlm_arch_internvl = {
    .name = "internvl",
    .title = "InternVL 2.5, 3, 3.5, Qianfan-OCR",
    .model_types = types,
    .rules = &media_rules_tiles,
    .task = TASK_GENERATE,
    .takes = TAKES_IMAGE | TAKES_VIDEO,
    .configure = configure,
    .bind = bind,
    .process = process,
    .pick_frames = pick_frames,
    .frame_size = frame_size,
    .placeholder = placeholder,
    .media_token = tower_lm_media_token,
    .expand = expand,
    .encode_start = tower_lm_encode_start,
    .encode = encode,
    .forward = tower_lm_forward,
};
