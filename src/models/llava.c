/* llava.c - LLaVA 1.5 and checkpoints of its layout: https://arxiv.org/abs/2310.03744 (Pixtral too: https://arxiv.org/abs/2410.07073)
 *
 *   picture -> shorter side 336, middle 336 x 336 -> CLIP, output of the last layer but one, class row dropped: 576 features
 *           -> linear, GELU, linear -> rows that replace <image> -> Llama, Mistral, Qwen2 ...
 *   Pixtral: picture of any size in steps of a patch (models/pixtral.h) -> its tower -> the same connector
 *
 * Bites: the file holds a last layer and post_layernorm that are never used. Nested configs leave out what is the default. The number of features
 * follows from the crop, not from image_seq_length. */
#include "models/pixtral.h"

#include <string.h>

#include "base/err.h"

typedef struct llava {
    tower_lm base;
    mlp_connector connector;
    pixtral_processor pixtral;     /* when the tower is Pixtral's */
    bool is_pixtral;
    picture_middle middle;         /* when it is any other */
} llava;

static bool configure(vlm_model *m, config *c)
{
    llava *v = m->family = arena_alloc(&m->memory, sizeof *v);
    if (!v) return config_fail(c, VLM_MEMORY, "out of memory");
    v->is_pixtral = !strcmp(config_string(c, "vision_config.model_type", ""), "pixtral");
    v->connector.act = config_activation(c, "projector_hidden_act", "gelu");
    if (!tower_lm_config(&v->base, m, c) || !image_tower_config_features(&v->base.tower, &m->memory, c, -2, "default")) return false;
    if (v->is_pixtral) m->rules = &pixtral_rules;
    if (v->is_pixtral) return pixtral_config(&v->pixtral, &v->base, m->processor, 1, false);
    return picture_config(&v->base.norm, m->processor, "image_processor", picture_clip, RESIZE_BICUBIC) &&
           picture_middle_config(&v->middle, m->processor, "image_processor", v->base.tower.image, v->base.tower.patch);
}

static bool bind(vlm_model *m, binder *b)
{
    llava *v = m->family;
    tower_lm_bind(&v->base, b);
    mlp_connector_bind(&v->connector, b, v->base.tower.width, v->base.text.spec.hidden);
    return !b->failed;
}

/* ---- prompt ------------------------------------------------------------------------------------------------------- */

static bool process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    const llava *v = m->family;
    if (!tower_lm_only_images(m, item, error)) return false;
    if (v->is_pixtral) return pixtral_process(m, &v->pixtral, &v->base.norm, item, options, out, error);
    int height, width, patch = v->base.tower.patch;
    picture_middle_size(&v->middle, &height, &width);
    out->kind = item->kind;
    out->tokens = height / patch * (width / patch);
    float *pixels = picture_tiles(out, 0, height, width, error);
    return pixels && picture_middle_write(&v->middle, &v->base.norm, &item->image, pixels, error);
}

static bool expand(const vlm_model *m, const media_input *in, buf *text, vlm_error *error)
{
    const llava *v = m->family;
    return v->is_pixtral ? pixtral_expand(m, &v->pixtral, in, text, error) : tower_lm_expand(m, in, text, error);
}

/* ---- encoder ------------------------------------------------------------------------------------------------------ */

static bool encode(run *r, const vlm_model *m, encode_job *job)
{
    const llava *v = m->family;
    return mlp_connector_encode(r, &v->base.tower, &v->connector, job);
}

static const char *const types[] = {"llava", NULL};

const vlm_arch vlm_arch_llava = {
    .name = "llava",
    .title = "LLaVA 1.5, Pixtral",
    .model_types = types,
    .rules = &media_rules_fixed,
    .takes = TAKES_IMAGE,
    .configure = configure,
    .bind = bind,
    .process = process,
    .encode = encode,
    .task = TASK_GENERATE, .placeholder = tower_lm_placeholder, .media_token = tower_lm_media_token, .expand = expand,
    .encode_start = tower_lm_encode_start, .forward = tower_lm_forward,
};
