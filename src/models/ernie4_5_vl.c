/* ernie4_5_vl.c - ERNIE 4.5 VL (28B-A3B, 424B-A47B).  https://ernie.baidu.com/blog/publication/ERNIE_Technical_Report.pdf
 *
 *   patches [h*w, 3*14*14] -> product -> ViT blocks with rope -> layer norm -> resampler: 2 x 2 patches side by side, MLP, norm; the same picture twice side
 *   by side (two frames of a video would be), MLP, norm; product, rms norm -> rows that replace <|IMAGE_PLACEHOLDER|>
 *   -> ERNIE 4.5 decoder with M-RoPE (row and column taking turns, then time), whose experts are of two kinds: tokens of pictures have their own
 *
 * Bites: begin and end of a picture count as picture when experts are chosen, and as text for positions. Shared experts and attention are common to both kinds.
 * Routers lie transposed in the files; experts of media follow those of text. Videos, on whose frames the reference writes the time in a font of its own,
 * are taken as stills. */
#include "models/qwen_vl.h"

#include <string.h>

#include "base/err.h"
#include "models/text.h"

typedef struct ernie4_5_vl {
    qwen_vl base;                  /* first: the functions of qwen_vl.h find it there */
    struct { weight up, down; const float *up_bias, *down_bias, *norm, *norm_bias; } spatial, temporal;
    weight out;
    const float *out_bias, *norm;
} ernie4_5_vl;

static const char PLACEHOLDER[] = "<|IMAGE_PLACEHOLDER|>";

/* ---- configuration and weights -------------------------------------------------------------------------------------- */

/* Of the frequencies the first h + w belong to rows and columns in turn, the others to time. */
static bool configure_rope(rope_table *t, config *c)
{
    int64_t section[3] = {22, 22, 20};
    int last = (int)config_int(c, TEXT("freq_allocation"), 20, 0, t->half);
    if (!config_ints(c, TEXT("rope_parameters.mrope_section") "|" TEXT("rope_scaling.mrope_section"), section, 3) && !c->failed) {
        section[2] = last;
        section[0] = section[1] = (t->half - last) / 2;
    }
    if (c->failed) return false;
    if (section[0] < 0 || section[0] > t->half || section[1] != section[0] || section[2] < 0 || 2 * section[0] + section[2] != t->half)
        return config_fail(c, VLM_FORMAT, "mrope_section does not add up to half of head_dim (%d)", t->half);
    for (int i = 0; i < t->half; i++) t->axis[i] = i >= 2 * section[0] ? 0 : i % 2 ? 2 : 1;
    return true;
}

static bool configure_text(ernie4_5_vl *v, vlm_model *m, config *c)
{
    decoder_spec *s = &v->base.text.spec;
    if (!ernie4_5_spec(s, &m->memory, c, "ernie4_5") || !ernie4_5_experts(s, c, 2) || !configure_rope(&s->rope[0], c)) return false;
    if (s->mlp_bias) return config_fail(c, VLM_UNSUPPORTED, "use_bias: experts with biases are not known");
    s->media_marks[0] = (int32_t)config_int(c, "image_start_token_id", 101304, 0, INT32_MAX);
    s->media_marks[1] = (int32_t)config_int(c, "image_end_token_id", 101305, 0, INT32_MAX);
    s->media_marks[2] = (int32_t)config_int(c, "video_start_token_id", 101306, 0, INT32_MAX);
    s->media_marks[3] = (int32_t)config_int(c, "video_end_token_id", 101307, 0, INT32_MAX);
    decoder_names(s);
    return !c->failed;
}

static bool configure_processor(qwen_vl_processor *p, vlm_model *m, config *c)
{
    config *files = m->processor;
    if (!qwen_vl_configure(p, files, c)) return false;
    if (!config_has(files, "image_processor.max_pixels|image_processor.size.longest_edge|image_processor.size.max_pixels")) p->image.max_pixels = 28 * 28 * 6177;
    p->patch.temporal = 1;
    p->image_token = (int32_t)config_int(c, "image_token_id|im_patch_id", 100295, 0, INT32_MAX);
    p->video_token = -1;
    return !c->failed;
}

static bool configure_vision(ernie4_5_vl *v, config *c)
{
    qwen_tower *t = &v->base.tower;
    int hidden = (int)config_int(c, "vision_config.embed_dim|vision_config.hidden_size", 1280, 1, 1 << 16);
    t->vit = (vit_spec){
        .hidden = hidden,
        .heads = (int)config_int(c, "vision_config.num_heads", 16, 1, 1 << 10),
        .ffn = (int)config_int(c, "vision_config.intermediate_size", 4 * hidden, 1, 1 << 20),
        .act = config_activation(c, "vision_config.hidden_act", "quick_gelu"),
        .layernorm = true,
        .eps = (float)config_number(c, "vision_config.rms_norm_eps|vision_config.layer_norm_eps", 1e-6),
    };
    t->depth = (int)config_int(c, "vision_config.depth", 32, 1, QWEN_MAX_DEPTH);
    t->out = v->base.text.spec.hidden;
    int frames = (int)config_int(c, "vision_config.temporal_merge_size|temporal_conv_size", 2, 1, 64);
    return frames == 2 || config_fail(c, VLM_UNSUPPORTED, "temporal_merge_size %d; 2 is known", frames);
}

static bool configure(vlm_model *m, config *c)
{
    ernie4_5_vl *v = m->family = arena_alloc(&m->memory, sizeof *v);
    if (!v) return config_fail(c, VLM_MEMORY, "out of memory");
    if (!configure_text(v, m, c) || !configure_processor(&v->base.processor, m, c) || !configure_vision(v, c) || !qwen_vl_plan(&v->base, m, c)) return false;
    m->takes = TAKES_IMAGE;
    return true;
}

static int32_t *twice(run *r, int64_t n)
{
    int32_t *index = run_alloc(r, (size_t)(2 * n + 1) * sizeof *index);
    for (int64_t i = 0; index && i < 2 * n; i++) index[i] = (int32_t)(i / 2);
    return index;
}

/* x: normed patches, a block's side by side [n / 4, 4 * hidden]. */
static tensor merge(run *r, const void *family, tensor x)
{
    const ernie4_5_vl *v = family;
    float eps = v->base.tower.vit.eps;
    int64_t n = x.rows, wide = x.cols;
    x = op_linear(r, x, &v->spatial.up, v->spatial.up_bias);
    op_activate(r, x, ACT_GELU);
    x = op_layernorm(r, op_linear(r, x, &v->spatial.down, v->spatial.down_bias), v->spatial.norm, v->spatial.norm_bias, eps);
    x = op_gather(r, x, twice(r, n), 2 * n);
    x = op_linear(r, (tensor){x.data, DT_F32, n, 2 * wide, 2 * wide}, &v->temporal.up, v->temporal.up_bias);
    op_activate(r, x, ACT_GELU);
    x = op_layernorm(r, op_linear(r, x, &v->temporal.down, v->temporal.down_bias), v->temporal.norm, v->temporal.norm_bias, eps);
    return op_rmsnorm(r, op_linear(r, x, &v->out, v->out_bias), v->norm, 0, v->base.text.spec.eps);
}

static bool bind(vlm_model *m, binder *b)
{
    static const qwen_tower_names names = {
        .layer = {.norm1 = "norm1", .norm2 = "norm2", .qkv = "attn.qkv", .proj = "attn.proj", .up = "mlp.fc1", .down = "mlp.fc2"},
    };
    ernie4_5_vl *v = m->family;
    qwen_tower *t = &v->base.tower;
    int64_t d = t->vit.hidden, wide = d * t->patch.merge * t->patch.merge;
    if (!decoder_bind(&v->base.text, b)) return false;
    qwen_tower_bind(&names, t, b);
    bind_vector(b, &t->merger.norm, d, "ln.weight");
    bind_vector(b, &t->merger.norm_bias, d, "ln.bias");
    bind_prefix(b, "model.resampler_model.", "resampler_model.", NULL);
    for (int k = 0; k < 2; k++) {
        const char *name = k ? "temporal_linear" : "spatial_linear";
        weight *up = k ? &v->temporal.up : &v->spatial.up, *down = k ? &v->temporal.down : &v->spatial.down;
        bind_linear(b, up, wide, (k + 1) * wide, "%s.0", name);
        bind_vector(b, k ? &v->temporal.up_bias : &v->spatial.up_bias, wide, "%s.0.bias", name);
        bind_linear(b, down, wide, wide, "%s.2", name);
        bind_vector(b, k ? &v->temporal.down_bias : &v->spatial.down_bias, wide, "%s.2.bias", name);
        bind_vector(b, k ? &v->temporal.norm : &v->spatial.norm, wide, "%s.3.weight", name);
        bind_vector(b, k ? &v->temporal.norm_bias : &v->spatial.norm_bias, wide, "%s.3.bias", name);
    }
    bind_linear(b, &v->out, t->out, wide, "mlp");
    bind_vector(b, &v->out_bias, t->out, "mlp.bias");
    bind_vector(b, &v->norm, t->out, "after_norm.weight");
    t->merge = merge;
    t->merge_family = v;
    return !b->failed;
}

/* ---- prompt --------------------------------------------------------------------------------------------------------- */

static bool process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    if (item->kind != MEDIA_IMAGE) return err_set(error, VLM_UNSUPPORTED, "%s takes images, no %s", m->arch->title, media_kind_name(item->kind));
    return qwen_vl_arch_process(m, item, options, out, error);
}

static const char *placeholder(const vlm_model *m, media_kind kind) { return kind == MEDIA_IMAGE ? PLACEHOLDER : NULL; }

/* Older templates write another word between begin and end of a picture. */
static bool rewrite(const vlm_model *m, const char *text, buf *out, vlm_error *error)
{
    static const char old[] = "<|IMAGE_START|><|image@placeholder|><|IMAGE_END|>";
    for (const char *at; (at = strstr(text, old)); text = at + sizeof old - 1) {
        buf_add(out, text, (size_t)(at - text));
        buf_addf(out, "<|IMAGE_START|>%s<|IMAGE_END|>", PLACEHOLDER);
    }
    buf_adds(out, text);
    return out->failed ? err_memory(error, out->size) : true;
}

static bool expand(const vlm_model *m, const media_input *in, buf *text, vlm_error *error)
{
    for (int i = 0; i < in->tokens; i++) buf_adds(text, PLACEHOLDER);
    return text->failed ? err_memory(error, text->size) : true;
}

static const char *const types[] = {"ernie4_5_vl_moe", "ernie4_5_moe_vl", NULL};

const vlm_arch vlm_arch_ernie4_5_vl = {
    .name = "ernie4_5_vl",
    .title = "ERNIE 4.5 VL",
    .model_types = types,
    .task = TASK_GENERATE,
    .rules = &media_rules_pixels,
    .takes = TAKES_IMAGE,
    .configure = configure,
    .bind = bind,
    .process = process,
    .placeholder = placeholder,
    .media_token = qwen_vl_arch_media_token,
    .rewrite = rewrite,
    .expand = expand,
    .positions = qwen_vl_arch_positions,
    .encode_start = qwen_vl_arch_encode_start,
    .encode = qwen_vl_arch_encode,
    .forward = qwen_vl_arch_forward,
};
