/* paddleocr_vl.c - PaddleOCR-VL.  https://arxiv.org/abs/2510.14528
 *
 *   patches [h*w, 3*14*14], row by row -> product + table of positions (bilinear, at pixel centres) -> SigLIP blocks with rope on rows and columns
 *   -> layer norm -> projector: layer norm again, 2 x 2 patches side by side, MLP -> rows that replace <|IMAGE_PLACEHOLDER|>
 *   -> ERNIE 4.5 decoder, M-RoPE in halves (time, row, column)
 *
 * Bites: config.json is flat, and its vision_config speaks of two frames in a patch: there is one, no videos are taken. The tower's last norm has
 * eps 1e-6, the projector's 1e-5. Sides under 28 pixels are enlarged before the size is chosen. Files keep SigLIP's pooling head and a second table,
 * packing_position_embedding, which nothing reads. Though related, ERNIE 4.5 itself turns pairs of neighbours, this decoder halves. */
#include "models/qwen_vl.h"

#include "base/err.h"
#include "models/text.h"

typedef struct paddleocr_vl {
    qwen_vl base;                  /* first: the functions of qwen_vl.h find it there */
    const float *norm, *norm_bias, *up_bias, *down_bias;
    weight up, down;
} paddleocr_vl;

/* ---- configuration and weights -------------------------------------------------------------------------------------- */

static bool configure_text(decoder_spec *s, vlm_model *m, config *c)
{
    static const int64_t usual[3] = {16, 24, 24};
    if (!ernie4_5_spec(s, &m->memory, c, "ernie4_5")) return false;
    s->rope[0].interleaved = false;
    s->tied = config_bool(c, "tie_word_embeddings|text_config.tie_word_embeddings", true);
    bool told = config_has(c, "text_config.rope_scaling.mrope_section|rope_scaling.mrope_section") ||
                config_has(c, "text_config.rope_parameters.mrope_section|rope_parameters.mrope_section");
    if (!told && !rope_sections(&s->rope[0], usual, 3, false)) return config_fail(c, VLM_FORMAT, "mrope_section is missing");
    decoder_names(s);
    return !c->failed;
}

static bool configure_processor(qwen_vl_processor *p, vlm_model *m, config *c)
{
    if (!qwen_vl_configure(p, m->processor, c)) return false;
    config *files = m->processor;
    if (!config_has(files, "image_processor.min_pixels|image_processor.size.shortest_edge|image_processor.size.min_pixels")) p->image.min_pixels = 384 * 384;
    if (!config_has(files, "image_processor.max_pixels|image_processor.size.longest_edge|image_processor.size.max_pixels")) p->image.max_pixels = 1536 * 1536;
    p->patch.temporal = 1;
    p->patch.raster = p->enlarge_thin = true;
    p->image_token = (int32_t)config_int(c, "image_token_id", 100295, 0, INT32_MAX);
    p->video_token = -1;
    return !c->failed;
}

static bool configure_vision(qwen_vl *q, config *c)
{
    qwen_tower *t = &q->tower;
    t->vit = (vit_spec){
        .hidden = (int)config_int(c, "vision_config.hidden_size", 1152, 1, 1 << 16),
        .heads = (int)config_int(c, "vision_config.num_attention_heads", 16, 1, 1 << 10),
        .ffn = (int)config_int(c, "vision_config.intermediate_size", 4304, 1, 1 << 20),
        .act = config_activation(c, "vision_config.hidden_act", "gelu_pytorch_tanh"),
        .eps = (float)config_number(c, "vision_config.layer_norm_eps", 1e-6),
        .layernorm = true,
    };
    t->depth = (int)config_int(c, "vision_config.num_hidden_layers", 27, 1, QWEN_MAX_DEPTH);
    t->out = q->text.spec.hidden;
    t->centres = true;
    int picture = (int)config_int(c, "vision_config.image_size", 384, 1, 1 << 15);
    if (c->failed) return false;
    t->side = picture / q->processor.patch.patch;
    return t->side > 0 || config_fail(c, VLM_FORMAT, "vision_config.image_size %d is smaller than a patch", picture);
}

static bool configure(vlm_model *m, config *c)
{
    paddleocr_vl *v = m->family = arena_alloc(&m->memory, sizeof *v);
    if (!v) return config_fail(c, VLM_MEMORY, "out of memory");
    qwen_vl *q = &v->base;
    if (!configure_text(&q->text.spec, m, c) || !configure_processor(&q->processor, m, c) || !configure_vision(q, c) || !qwen_vl_plan(q, m, c)) return false;
    m->takes = TAKES_IMAGE;
    return true;
}

/* x: normed patches, a block's side by side. */
static tensor merge(run *r, const void *family, tensor x)
{
    const paddleocr_vl *v = family;
    int64_t d = v->base.tower.vit.hidden, n = x.rows * x.cols / d;
    tensor h = op_layernorm(r, (tensor){x.data, DT_F32, n, d, d}, v->norm, v->norm_bias, 1e-5f);
    h = op_linear(r, (tensor){h.data, DT_F32, x.rows, x.cols, x.cols}, &v->up, v->up_bias);     /* [n / 4, 4 * hidden] */
    op_activate(r, h, ACT_GELU);
    return op_linear(r, h, &v->down, v->down_bias);
}

static bool bind(vlm_model *m, binder *b)
{
    static const qwen_tower_names names = {
        .layer = {.norm1 = "layer_norm1", .norm2 = "layer_norm2", .q = "self_attn.q_proj", .k = "self_attn.k_proj", .v = "self_attn.v_proj",
                  .proj = "self_attn.out_proj", .up = "mlp.fc1", .down = "mlp.fc2"},
        .positions = "vision_model.embeddings.position_embedding",
        .embed = "vision_model.embeddings.patch_embedding",
        .layers = "vision_model.encoder.layers",
    };
    paddleocr_vl *v = m->family;
    qwen_tower *t = &v->base.tower;
    if (!decoder_bind(&v->base.text, b)) return false;
    qwen_tower_bind(&names, t, b);
    bind_vector(b, &t->merger.norm, t->vit.hidden, "vision_model.post_layernorm.weight");
    bind_vector(b, &t->merger.norm_bias, t->vit.hidden, "vision_model.post_layernorm.bias");

    int64_t d = t->vit.hidden, wide = d * t->patch.merge * t->patch.merge;
    bind_prefix(b, "mlp_AR.", "model.mlp_AR.", "model.projector.", "projector.", NULL);
    bind_vector(b, &v->norm, d, "pre_norm.weight");
    bind_vector(b, &v->norm_bias, d, "pre_norm.bias");
    bind_linear(b, &v->up, wide, wide, "linear_1");
    bind_vector(b, &v->up_bias, wide, "linear_1.bias");
    bind_linear(b, &v->down, t->out, wide, "linear_2");
    bind_vector(b, &v->down_bias, t->out, "linear_2.bias");
    t->merge = merge;
    t->merge_family = v;
    return !b->failed;
}

/* ---- prompt ----------------------------------------------------------------------------------------------------------- */

static bool process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    if (item->kind != MEDIA_IMAGE) return err_set(error, VLM_UNSUPPORTED, "%s takes images, no %s", m->arch->title, media_kind_name(item->kind));
    return qwen_vl_arch_process(m, item, options, out, error);
}

static const char *placeholder(const vlm_model *m, media_kind kind) { return kind == MEDIA_IMAGE ? "<|IMAGE_PLACEHOLDER|>" : NULL; }

static bool expand(const vlm_model *m, const media_input *in, buf *text, vlm_error *error)
{
    for (int i = 0; i < in->tokens; i++) buf_adds(text, placeholder(m, in->kind));
    return text->failed ? err_memory(error, text->size) : true;
}

static const char *const types[] = {"paddleocr_vl", NULL};

const vlm_arch vlm_arch_paddleocr_vl = {
    .name = "paddleocr_vl",
    .title = "PaddleOCR-VL",
    .model_types = types,
    .rules = &media_rules_pixels,
    .task = TASK_GENERATE,
    .takes = TAKES_IMAGE,
    .configure = configure,
    .bind = bind,
    .process = process,
    .placeholder = placeholder,
    .media_token = qwen_vl_arch_media_token,
    .expand = expand,
    .positions = qwen_vl_arch_positions,
    .encode_start = qwen_vl_arch_encode_start,
    .encode = qwen_vl_arch_encode,
    .forward = qwen_vl_arch_forward,
};
