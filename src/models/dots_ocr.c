/* dots_ocr.c - dots.ocr.  https://arxiv.org/abs/2512.02498
 *
 *   patches [h*w, 3*14*14] -> product, rms norm -> blocks with rms norms, gated MLP, rope on rows and columns -> rms norm
 *   -> merger: layer norm, 2 x 2 patches side by side, MLP -> rows that replace <|imgpad|> -> Qwen2 decoder, plain positions
 *
 * Bites: config.json is flat. vision_config.embed_dim is the tower's width, hidden_size the decoder's. The MLP's parts are fc1 (gate), fc3, fc2. */
#include "models/qwen_vl.h"

#include "base/err.h"
#include "models/text.h"

typedef struct dots_ocr {
    qwen_vl base;                  /* first: the functions of qwen_vl.h find it there */
    const float *norm, *norm_bias, *up_bias, *down_bias;       /* of the merger */
    weight up, down;
} dots_ocr;

static bool configure_vision(qwen_vl *q, config *c)
{
    qwen_tower *t = &q->tower;
    t->vit = (vit_spec){
        .hidden = (int)config_int(c, "vision_config.embed_dim", 1536, 1, 1 << 16),
        .heads = (int)config_int(c, "vision_config.num_attention_heads", 12, 1, 1 << 10),
        .ffn = (int)config_int(c, "vision_config.intermediate_size", 4224, 1, 1 << 20),
        .act = ACT_SILU,
        .eps = (float)config_number(c, "vision_config.rms_norm_eps", 1e-5),
        .gated = true,
    };
    t->depth = (int)config_int(c, "vision_config.num_hidden_layers", 42, 1, QWEN_MAX_DEPTH);
    t->out = (int)config_int(c, "vision_config.hidden_size", 1536, 1, 1 << 20);
    if (!config_bool(c, "vision_config.post_norm", true) || config_bool(c, "vision_config.is_causal", false))
        return config_fail(c, VLM_UNSUPPORTED, "vision_config: a tower without post_norm, or a causal one");
    return !c->failed;
}

/* x: patches behind the tower's norm, a block's side by side. */
static tensor merge(run *r, const void *family, tensor x)
{
    const dots_ocr *v = family;
    int64_t d = v->base.tower.vit.hidden, wide = x.cols;
    x = op_layernorm(r, (tensor){x.data, DT_F32, x.rows * (wide / d), d, d}, v->norm, v->norm_bias, 1e-6f);
    x = op_linear(r, (tensor){x.data, DT_F32, x.rows / (wide / d), wide, wide}, &v->up, v->up_bias);
    op_activate(r, x, ACT_GELU);
    return op_linear(r, x, &v->down, v->down_bias);
}

static bool configure(vlm_model *m, config *c)
{
    dots_ocr *v = m->family = arena_alloc(&m->memory, sizeof *v);
    if (!v) return config_fail(c, VLM_MEMORY, "out of memory");
    qwen_vl *q = &v->base;
    decoder_spec *s = &q->text.spec;
    if (!decoder_config(s, &m->memory, c, text_prefixes)) return false;
    s->qkv_bias = config_bool(c, TEXT("attention_bias"), true);
    decoder_names(s);
    s->head_prefix[2] = "language_model.model.";                       /* as MLX's converter writes it */
    s->head_prefix[3] = NULL;
    if (!qwen_vl_configure(&q->processor, m->processor, c)) return false;
    q->processor.patch.temporal = (int)config_int(c, "vision_config.temporal_patch_size", 1, 1, 16);
    q->processor.image_token = (int32_t)config_int(c, "image_token_id", 151665, 0, INT32_MAX);
    q->processor.video_token = -1;
    if (!configure_vision(q, c) || !qwen_vl_plan(q, m, c)) return false;
    q->tower.merge = merge;
    q->tower.merge_family = v;
    m->rope_axes = 1;
    m->takes = TAKES_IMAGE;
    return true;
}

static bool bind(vlm_model *m, binder *b)
{
    static const qwen_tower_names names = {
        .layer = {.norm1 = "norm1", .norm2 = "norm2", .qkv = "attn.qkv", .proj = "attn.proj", .gate = "mlp.fc1", .up = "mlp.fc3", .down = "mlp.fc2"},
        .embed = "patch_embed.patchifier.proj",
    };
    dots_ocr *v = m->family;
    qwen_tower *t = &v->base.tower;
    int64_t d = t->vit.hidden, wide = d * t->patch.merge * t->patch.merge;
    if (!decoder_bind(&v->base.text, b)) return false;
    qwen_tower_bind(&names, t, b);
    bind_vector(b, &t->embed_norm, d, "patch_embed.patchifier.norm.weight");
    bind_vector(b, &t->merger.norm, d, "post_trunk_norm.weight");
    bind_vector(b, &v->norm, d, "merger.ln_q.weight");
    bind_vector(b, &v->norm_bias, d, "merger.ln_q.bias");
    bind_linear(b, &v->up, wide, wide, "merger.mlp.0");
    bind_vector(b, &v->up_bias, wide, "merger.mlp.0.bias");
    bind_linear(b, &v->down, t->out, wide, "merger.mlp.2");
    bind_vector(b, &v->down_bias, t->out, "merger.mlp.2.bias");
    return !b->failed;
}

static bool process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    if (item->kind != MEDIA_IMAGE) return err_set(error, VLM_UNSUPPORTED, "%s takes images, no %s", m->arch->title, media_kind_name(item->kind));
    return qwen_vl_arch_process(m, item, options, out, error);
}

static const char *placeholder(const vlm_model *m, media_kind kind)
{
    int32_t id = ((const dots_ocr *)m->family)->base.processor.image_token;
    return kind == MEDIA_IMAGE && m->tok ? tokenizer_token(m->tok, id) : NULL;
}

static int32_t media_token(const vlm_model *m, media_kind kind) { return kind == MEDIA_IMAGE ? qwen_vl_arch_media_token(m, kind) : -1; }

static bool expand(const vlm_model *m, const media_input *in, buf *text, vlm_error *error)
{
    const char *token = placeholder(m, MEDIA_IMAGE);
    for (int i = 0; token && i < in->tokens; i++) buf_adds(text, token);
    return text->failed ? err_memory(error, text->size) : true;
}

static const char *const types[] = {"dots_ocr", NULL};

const vlm_arch vlm_arch_dots_ocr = {
    .name = "dots_ocr",
    .title = "dots.ocr",
    .model_types = types,
    .rules = &media_rules_pixels,
    .task = TASK_GENERATE,
    .takes = TAKES_IMAGE,
    .configure = configure,
    .bind = bind,
    .process = process,
    .placeholder = placeholder,
    .media_token = media_token,
    .expand = expand,
    .encode_start = qwen_vl_arch_encode_start,
    .encode = qwen_vl_arch_encode,
    .forward = qwen_vl_arch_forward,
};
