/* paligemma.c - PaliGemma 1 and 2.  https://arxiv.org/abs/2407.07726, 2412.03555
 *
 *   picture, squeezed to the tower's size -> SigLIP -> product -> rows that replace <image> -> Gemma 1 or 2
 *   prompt: <image> ... <image> <bos> text \n
 *
 * Bites: a prefix language model: picture and text of the prompt all see each other, across windows too; the answer is causal. The begin token
 * stands behind the pictures, a line end closes the prompt; no template, one question. head_dim is not hidden / heads. Answers may be
 * <locNNNN> and <segNNN>. */
#include "models/tower_lm.h"

#include <string.h>

#include "base/err.h"

typedef struct paligemma {
    tower_lm base;
    weight project;
    const float *bias;
} paligemma;

static bool configure(vlm_model *m, config *c)
{
    paligemma *v = m->family = arena_alloc(&m->memory, sizeof *v);
    if (!v) return config_fail(c, VLM_MEMORY, "out of memory");
    if (!config_has(c, "text_config.model_type") && config_has(c, "text_config")) json_object_set_new(json_object_get(c->root, "text_config"), "model_type", json_string("gemma"));
    if (!tower_lm_config(&v->base, m, c) || !image_tower_config(&v->base.tower, &m->memory, c, -1, true)) return false;
    m->bidirectional_media = m->whole_prompt = true;
    for (int i = 0; i < m->layers; i++) {
        decoder_layer_spec *l = &v->base.text.spec.layer[i];
        l->bidirectional = true;
        l->whole_blocks = l->window > 0;
    }
    return picture_config(&v->base.norm, m->processor, "image_processor", picture_half, RESIZE_BICUBIC);
}

static bool bind(vlm_model *m, binder *b)
{
    paligemma *v = m->family;
    tower_lm_bind(&v->base, b);
    bind_linear(b, &v->project, v->base.text.spec.hidden, v->base.tower.vit.hidden, "multi_modal_projector.linear");
    bind_vector(b, &v->bias, v->base.text.spec.hidden, "multi_modal_projector.linear.bias");
    return !b->failed;
}

static bool process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    const paligemma *v = m->family;
    int side = v->base.tower.image;
    if (!tower_lm_only_images(m, item, error)) return false;
    out->kind = item->kind;
    out->tokens = v->base.tower.positions;
    float *pixels = picture_tiles(out, 0, side, side, error);
    return pixels && picture_resized(&v->base.norm, &item->image, side, side, 0, 0, side, side, pixels, error);
}

/* The begin token behind the last picture, a line end behind everything. */
static bool rewrite(const vlm_model *m, const char *text, buf *out, vlm_error *error)
{
    const char *mark = tower_lm_placeholder(m, MEDIA_IMAGE), *bos = tokenizer_role(m->tok, "bos_token"), *rest = text;
    for (const char *at = text; mark && *mark && (at = strstr(at, mark)); rest = at += strlen(mark)) {}
    if (bos && !strncmp(rest, bos, strlen(bos))) return buf_adds(out, text);           /* the caller has done it */
    buf_add(out, text, (size_t)(rest - text));
    buf_addf(out, "%s%s\n", bos ? bos : "", rest);
    return out->failed ? err_memory(error, out->size) : true;
}

static bool encode(run *r, const vlm_model *m, encode_job *job)
{
    const paligemma *v = m->family;
    if (!image_tower_encode(r, &v->base.tower, job)) return false;
    if (job->stage == job->stages) image_tower_set_rows(r, job, op_linear(r, image_tower_features(r, &v->base.tower, job), &v->project, v->bias));
    return run_ok(r);
}

static const char *const types[] = {"paligemma", NULL};

const vlm_arch vlm_arch_paligemma = {
    .name = "paligemma",
    .title = "PaliGemma 1, 2",
    .model_types = types,
    .rules = &media_rules_fixed,
    .takes = TAKES_IMAGE,
    .configure = configure,
    .bind = bind,
    .process = process,
    .rewrite = rewrite,
    .no_special_tokens = true,
    .encode = encode,
    TOWER_LM_ARCH,
};
