/* aya_vision.c - Aya Vision: https://arxiv.org/abs/2505.08751, Command A Vision: https://cohere.com/blog/command-a-vision
 *
 *   picture -> grid of tiles and the whole (as InternVL) -> SigLIP, no norm behind -> 2 x 2 features side by side -> layer norm
 *   -> linear; silu of its second half times the first -> linear -> rows that replace <|IMG_PATCH|> -> Command R7B (cohere2.c)
 *   prompt: <|START_OF_IMG|> TILE_1 <|IMG_PATCH|> ... TILE_GLOBAL <|IMG_PATCH|> ... <|END_OF_IMG|>
 *   Command A: the grid that enlarges the picture least, SigLIP's norm behind instead of the layer norm; each tile ends with <|IMG_LINE_BREAK|>
 *
 * Bites: TILE is a token, the _1 behind it plain text. Logits are times logit_scale (0.25). */
#include "models/tower_lm.h"

#include <string.h>

#include "base/err.h"

typedef struct aya_vision {
    tower_lm base;
    tile_grid grid;
    bool command;                  /* Command A Vision */
    int factor, tokens, ffn;       /* ffn: columns of linear_1, both halves */
    float eps;
    weight up, down;
    const float *norm, *norm_bias, *up_bias, *down_bias;
    const char *mark, *begin, *end, *tile, *global;
} aya_vision;

static bool fill_in(config *c)
{
    if (!config_has(c, "image_token_id|image_token_index")) json_object_set_new(c->root, "image_token_id", json_integer(255036));
    return config_defaults(c, "vision_config", "{\"model_type\":\"siglip_vision_model\",\"hidden_size\":1152,\"intermediate_size\":3072,\"image_size\":512,"
                                               "\"num_hidden_layers\":27,\"num_attention_heads\":12}");
}

static const char *role(const vlm_model *m, const char *name, const char *usual)
{
    const char *text = m->tok ? tokenizer_role(m->tok, name) : NULL;
    return text && *text ? text : usual;
}

static bool configure(vlm_model *m, config *c)
{
    aya_vision *v = m->family = arena_alloc(&m->memory, sizeof *v);
    if (!v) return config_fail(c, VLM_MEMORY, "out of memory");
    int layer = (int)config_int(c, "vision_feature_layer", -1, -1024, 1024);
    config *p = m->processor;
    v->command = !strcmp(config_string(c, "model_type", ""), "cohere2_vision");
    if (v->command && !fill_in(c)) return false;
    if (!tower_lm_config(&v->base, m, c) || !image_tower_config(&v->base.tower, &m->memory, c, layer, v->command)) return false;
    v->factor = (int)config_int(c, "downsample_factor", 2, 1, 16);
    v->ffn = (int)config_int(c, "alignment_intermediate_size", v->command ? 36864 : v->base.text.spec.hidden, 2, 1 << 20);
    v->eps = (float)config_number(c, "adapter_layer_norm_eps", 1e-6);
    tile_grid_config(&v->grid, p);
    v->grid.by_scale = v->command;
    v->mark = config_string(p, "image_token", "<image>");
    v->begin = config_string(p, "start_of_img_token", "<|START_OF_IMG|>");
    v->end = config_string(p, "end_of_img_token", "<|END_OF_IMG|>");
    v->tile = config_string(p, "tile_token", "TILE");
    v->global = config_string(p, "tile_global_token", "TILE_GLOBAL");
    int side = v->base.tower.image / v->base.tower.patch;
    if (!c->failed && (side % v->factor || v->ffn % 2))
        return config_fail(c, VLM_FORMAT, "downsample_factor %d of %d x %d features, alignment_intermediate_size %d", v->factor, side, side, v->ffn);
    v->tokens = c->failed ? 0 : side / v->factor * (side / v->factor);
    int across = v->command ? (int)config_int(p, "image_processor.patch_size", 16, 1, 1 << 10) : 0;
    if (v->command && !c->failed && across * across != v->tokens)
        return config_fail(c, VLM_FORMAT, "the processor's tiles of %d x %d tokens are not the model's %d tokens", across, across, v->tokens);
    return !c->failed && picture_config(&v->base.norm, p, "image_processor", picture_half, RESIZE_BICUBIC);
}

static bool bind(vlm_model *m, binder *b)
{
    aya_vision *v = m->family;
    int64_t wide = (int64_t)v->base.tower.vit.hidden * v->factor * v->factor, d = v->base.text.spec.hidden;
    tower_lm_bind(&v->base, b);
    if (!v->command) bind_vector(b, &v->norm, wide, "multi_modal_projector.layernorm.weight");
    if (!v->command) bind_vector(b, &v->norm_bias, wide, "multi_modal_projector.layernorm.bias");
    bind_linear(b, &v->up, v->ffn, wide, "multi_modal_projector.linear_1");
    bind_vector(b, &v->up_bias, v->ffn, "multi_modal_projector.linear_1.bias");
    bind_linear(b, &v->down, d, v->ffn / 2, "multi_modal_projector.linear_2");
    bind_vector(b, &v->down_bias, d, "multi_modal_projector.linear_2.bias");
    return !b->failed;
}

static bool process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    const aya_vision *v = m->family;
    out->kind = item->kind;
    return tower_lm_only_images(m, item, error) && tile_grid_process(m, &v->grid, &v->base, item, options, v->tokens, out, error);
}

static const char *placeholder(const vlm_model *m, media_kind kind) 
{
    const aya_vision *v = m->family;
    return v->command ? tower_lm_placeholder(m, kind) : kind == MEDIA_IMAGE ? v->mark : NULL;
}

static bool expand(const vlm_model *m, const media_input *in, buf *text, vlm_error *error)
{
    const aya_vision *v = m->family;
    const char *token = tower_lm_placeholder(m, MEDIA_IMAGE);
    int tiles = in->tokens / v->tokens;
    buf_adds(text, v->command ? role(m, "boi_token", v->begin) : v->begin);
    for (int i = 1; i <= tiles; i++) {
        if (v->command) {}
        else if (i < tiles) buf_addf(text, "%s_%d", v->tile, i);
        else buf_adds(text, v->global);
        for (int k = 0; token && k < v->tokens; k++) buf_adds(text, token);
        if (v->command) buf_adds(text, role(m, "img_line_break_token", "<|IMG_LINE_BREAK|>"));
    }
    buf_adds(text, v->command ? role(m, "eoi_token", v->end) : v->end);
    return text->failed ? err_memory(error, text->size) : true;
}

static bool encode(run *r, const vlm_model *m, encode_job *job)
{
    const aya_vision *v = m->family;
    int side = v->base.tower.image / v->base.tower.patch, half = v->ffn / 2;
    if (!image_tower_encode(r, &v->base.tower, job)) return false;
    if (job->stage < job->stages) return true;
    tensor x = tower_lm_shuffle(r, image_tower_features(r, &v->base.tower, job), side, side, v->factor);
    if (!v->command) x = op_layernorm(r, x, v->norm, v->norm_bias, v->eps);
    x = op_linear(r, x, &v->up, v->up_bias);
    if (!run_ok(r)) return false;
    image_tower_set_rows(r, job, op_linear(r, op_glu(r, tensor_cols(x, half, half), tensor_cols(x, 0, half), ACT_SILU), &v->down, v->down_bias));
    return run_ok(r);
}

static const char *const types[] = {"aya_vision", "cohere2_vision", NULL};

const vlm_arch vlm_arch_aya_vision = {
    .name = "aya_vision",
    .title = "Aya Vision, Command A Vision",
    .model_types = types,
    .rules = &media_rules_tiles,
    .task = TASK_GENERATE,
    .takes = TAKES_IMAGE,
    .configure = configure,
    .bind = bind,
    .process = process,
    .placeholder = placeholder,
    .media_token = tower_lm_media_token,
    .expand = expand,
    .encode_start = tower_lm_encode_start,
    .encode = encode,
    .forward = tower_lm_forward,
};
