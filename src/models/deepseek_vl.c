/* deepseek_vl.c - DeepSeek-VL, the 1.3B in the layout of transformers: https://arxiv.org/abs/2403.05525
 *
 *   picture -> longer side 384, the other in proportion -> in the middle of a square of the mean colour -> SigLIP, with the norm behind: 576 features
 *           -> linear, GELU, linear -> rows that replace <image_placeholder> -> Llama
 *
 * Bites: the square's colour is int(image_mean * 255), whatever background_color says in the file. The shorter side is rounded half to even and never
 * below min_size. Published files repeat the tower's prefix. tie_word_embeddings is true by default. The 7B (deepseek_vl_hybrid) has
 * a second tower and is none of this. */
#include "models/tower_lm.h"

#include <math.h>

#include "base/err.h"

typedef struct deepseek_vl {
    tower_lm base;
    mlp_connector connector;
    int side, least;               /* of the square; the shorter side of a picture is never below */
} deepseek_vl;

/* The square's colour is the mean's. */
static bool configure_colour(picture_norm *n, config *p)
{
    double mean[3];
    bool given = config_numbers(p, "image_processor.image_mean", mean, 3) == 3;
    for (int i = 0; !p->failed && i < 3; i++) {
        double value = given ? mean[i] : picture_clip[0][i];
        if (!(value >= 0 && value <= 1)) return config_fail(p, VLM_FORMAT, "image_processor.image_mean %g is no colour between 0 and 1", value);
        n->outside[i] = (uint8_t)(value * 255);
    }
    return !p->failed;
}

static bool configure_processor(deepseek_vl *v, config *p)
{
    const image_tower *t = &v->base.tower;
    if (!picture_config(&v->base.norm, p, "image_processor", picture_clip, RESIZE_BICUBIC) || !configure_colour(&v->base.norm, p)) return false;
    v->side = (int)config_int(p, "image_processor.size.height", 384, 1, 1 << 14);
    int width = (int)config_int(p, "image_processor.size.width", v->side, 1, 1 << 14), features = t->positions;
    v->least = (int)config_int(p, "image_processor.min_size", 14, 1, 1 << 14);
    bool pad = config_bool(p, "image_processor.do_pad", true);
    int tokens = (int)config_int(p, "num_image_tokens", features, 1, 1 << 24);
    if (p->failed) return false;
    if (!pad) return config_fail(p, VLM_UNSUPPORTED, "the processor does not pad pictures (do_pad); the tower takes squares");
    if (width != v->side || v->side / t->patch != t->image / t->patch || v->least > v->side)
        return config_fail(p, VLM_FORMAT, "the processor gives pictures of %d x %d, no side below %d; the vision tower takes %d x %d", width, v->side, v->least,
                           t->image, t->image);
    return tokens == features || config_fail(p, VLM_FORMAT, "num_image_tokens is %d, a picture has %d features", tokens, features);
}

static bool configure(vlm_model *m, config *c)
{
    deepseek_vl *v = m->family = arena_alloc(&m->memory, sizeof *v);
    if (!v) return config_fail(c, VLM_MEMORY, "out of memory");
    v->connector.act = ACT_GELU;
    if (!tower_lm_config(&v->base, m, c) || !image_tower_config(&v->base.tower, &m->memory, c, -1, true)) return false;
    v->base.text.spec.tied = config_bool(c, "tie_word_embeddings", true);  /* not what text_config says; a head in the file still wins */
    const image_tower *t = &v->base.tower;
    if (t->class_token || !t->positions) return config_fail(c, VLM_UNSUPPORTED, "vision_config.model_type: siglip_vision_model was expected");
    return configure_processor(v, m->processor);
}

static bool bind(vlm_model *m, binder *b)
{
    static const char *const tower[] = {"model.vision_model.vision_model.", "model.vision_model.", "vision_model.vision_model.", "vision_model.", NULL};
    deepseek_vl *v = m->family;
    int64_t d = v->base.text.spec.hidden;
    mlp_connector *w = &v->connector;
    if (!decoder_bind(&v->base.text, b)) return false;
    image_tower_bind(&v->base.tower, b, tower);
    bind_prefix(b, "model.aligner.", "aligner.", NULL);
    bind_linear(b, &w->up, d, v->base.tower.vit.hidden, "linear1");
    bind_vector(b, &w->up_bias, d, "linear1.bias");
    bind_linear(b, &w->down, d, d, "linear2");
    bind_vector(b, &w->down_bias, d, "linear2.bias");
    return !b->failed;
}

static int scaled(int side, double by, int least)
{
    int n = (int)nearbyint(side * by);
    return n < least ? least : n;
}

static bool process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    const deepseek_vl *v = m->family;
    const image *img = &item->image;
    (void)options;
    if (!tower_lm_only_images(m, item, error)) return false;
    double by = (double)v->side / (img->width > img->height ? img->width : img->height);
    int height = scaled(img->height, by, v->least), width = scaled(img->width, by, v->least);
    out->kind = item->kind;
    out->tokens = v->base.tower.positions;
    if (!tower_lm_fits(m, item, out->tokens, error)) return false;
    float *pixels = picture_tiles(out, 0, v->side, v->side, error);
    return pixels && picture_resized(&v->base.norm, img, width, height, -((v->side - width) / 2), -((v->side - height) / 2), v->side, v->side, pixels, error);
}

static bool encode(run *r, const vlm_model *m, encode_job *job)
{
    const deepseek_vl *v = m->family;
    return mlp_connector_encode(r, &v->base.tower, &v->connector, job);
}

static const char *const types[] = {"deepseek_vl", NULL};

const vlm_arch vlm_arch_deepseek_vl = {
    .name = "deepseek_vl",
    .title = "DeepSeek-VL 1.3B",
    .model_types = types,
    .rules = &media_rules_fixed,
    .takes = TAKES_IMAGE,
    .configure = configure,
    .bind = bind,
    .process = process,
    .encode = encode,
    TOWER_LM_ARCH,
};
