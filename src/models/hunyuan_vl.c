/* hunyuan_vl.c - HunyuanOCR.  https://arxiv.org/abs/2511.19575
 *
 *   patches [h*w, 3*16*16], row by row -> product + table of positions (bilinear, at pixel centres) -> ViT blocks -> rms norm
 *   -> 2 x 2 patches through a convolution, GELU, a product -> a newline behind each row -> product -> begin ... end -> rms norm
 *   -> rows that replace <｜hy_place▁holder▁no▁102｜> -> Hunyuan decoder
 *
 * Bites: positions have four axes (token, column, row, number of the picture), and sections go over a whole head, so the two columns that rope turns
 * with each other have different angles. Norms of q and k come after rope. rope_theta grows with alpha. Begin and end of a picture count as text, its
 * rows are one wider than the picture. The table's first row is of no patch. What follows a picture goes on as if it had been text. */
#include "models/qwen_vl.h"

#include <math.h>
#include <string.h>

#include "base/err.h"
#include "models/image_tower.h"
#include "models/text.h"

typedef struct hunyuan_vl {
    qwen_vl base;                  /* first: the functions of qwen_vl.h find it there */
    weight conv, out, mlp;
    const float *conv_bias, *out_bias, *mlp_bias, *newline, *begin, *end, *norm;
    activation act;
} hunyuan_vl;

/* ---- configuration and weights -------------------------------------------------------------------------------------- */

#define ROPE(key) "text_config.rope_parameters." key "|text_config.rope_scaling." key "|rope_parameters." key "|rope_scaling." key

/* Sections, doubled, go over the columns of a head; ropes 0 and 1 are its lower and upper half. */
static bool configure_rope(decoder_spec *s, arena *memory, config *c)
{
    int64_t section[MAX_ROPE_AXES];
    int dim = s->layer[0].head_dim, axes = config_ints(c, ROPE("mrope_section") "|" ROPE("xdrope_section"), section, MAX_ROPE_AXES);
    double theta = config_number(c, ROPE("rope_theta") "|" TEXT("rope_theta"), 10000), alpha = config_number(c, ROPE("alpha"), 0);
    if (c->failed) return false;
    if (alpha > 0 && dim > 2) theta *= pow(alpha, (double)dim / (dim - 2));
    if (!(theta > 0 && theta < 1e30)) return config_fail(c, VLM_FORMAT, "rope_theta, by alpha: %g", theta);
    if (!rope_default(&s->rope[0], memory, theta, dim) || !rope_default(&s->rope[1], memory, theta, dim)) return config_fail(c, VLM_MEMORY, "out of memory");
    if (axes != 4 || !rope_sections(&s->rope[0], section, axes, false))
        return config_fail(c, VLM_FORMAT, "mrope_section: four numbers that add up to half of head_dim (%d) were expected", dim / 2);
    int half = dim / 2, at = 0;
    for (int a = 0; a < axes; a++)
        for (int64_t k = 0; k < 2 * section[a]; k++, at++) s->rope[at >= half].axis[at % half] = (uint8_t)a;
    s->rope_upper = 1;
    return true;
}

static bool configure_text(decoder_spec *s, vlm_model *m, config *c)
{
    s->n_ropes = 2;                                                         /* made here */
    if (!decoder_config(s, &m->memory, c, text_prefixes)) return false;
    s->tied = config_bool(c, "tie_word_embeddings|text_config.tie_word_embeddings", true);
    s->qk_norm = s->qk_norm_last = true;
    s->qkv_bias = s->o_bias = config_bool(c, TEXT("attention_bias"), false);
    decoder_names(s);
    return configure_rope(s, &m->memory, c);
}

static bool configure_processor(qwen_vl_processor *p, vlm_model *m, config *c)
{
    if (!qwen_vl_configure(p, m->processor, c)) return false;
    config *files = m->processor;
    if (!config_has(files, "image_processor.min_pixels|image_processor.size.shortest_edge|image_processor.size.min_pixels")) p->image.min_pixels = 512 * 512;
    if (!config_has(files, "image_processor.max_pixels|image_processor.size.longest_edge|image_processor.size.max_pixels")) p->image.max_pixels = 2048 * 2048;
    p->patch.patch = (int)config_int(c, "vision_config.patch_size", 16, 1, 256);
    p->patch.temporal = 1;
    p->patch.raster = true;
    p->image_token = (int32_t)config_int(c, "image_token_id", 120120, 0, INT32_MAX);
    p->video_token = -1;
    return !c->failed;
}

static bool configure_vision(hunyuan_vl *v, config *c)
{
    qwen_tower *t = &v->base.tower;
    t->patch = v->base.processor.patch;
    t->vit = (vit_spec){
        .hidden = (int)config_int(c, "vision_config.hidden_size", 1152, 1, 1 << 16),
        .heads = (int)config_int(c, "vision_config.num_attention_heads", 16, 1, 1 << 10),
        .ffn = (int)config_int(c, "vision_config.intermediate_size", 4304, 1, 1 << 20),
        .act = v->act = config_activation(c, "vision_config.hidden_act", "gelu"),
        .eps = (float)config_number(c, "vision_config.rms_norm_eps", 1e-5),
        .layernorm = true,
    };
    t->depth = (int)config_int(c, "vision_config.num_hidden_layers", 27, 1, QWEN_MAX_DEPTH);
    t->out = 4 * t->vit.hidden;
    t->centres = t->class_row = t->rms_merger = t->no_rope = true;
    int picture = (int)config_int(c, "vision_config.max_image_size", 2048, 1, 1 << 15);
    if (c->failed) return false;
    t->side = picture / t->patch.patch;
    return t->side > 0 || config_fail(c, VLM_FORMAT, "vision_config.max_image_size %d is smaller than a patch", picture);
}

static bool configure(vlm_model *m, config *c)
{
    hunyuan_vl *v = m->family = arena_alloc(&m->memory, sizeof *v);
    if (!v) return config_fail(c, VLM_MEMORY, "out of memory");
    qwen_vl *q = &v->base;
    if (!configure_text(&q->text.spec, m, c) || !configure_processor(&q->processor, m, c) || !configure_vision(v, c)) return false;
    if (!decoder_plan(&q->text, &m->memory, c)) return false;
    model_use_decoder(m, &q->text);
    m->rope_axes = 4;
    m->takes = TAKES_IMAGE;
    return qwen_tower_plan(&q->tower, &m->memory, c, q->tower.out);
}

/* x: normed patches, a block's side by side, in the order of the kernel's taps. */
static tensor merge(run *r, const void *family, tensor x)
{
    const hunyuan_vl *v = family;
    x = op_linear(r, x, &v->conv, v->conv_bias);                            /* [n / 4, 2 * hidden] */
    op_activate(r, x, v->act);
    return op_linear(r, x, &v->out, v->out_bias);                           /* [n / 4, 4 * hidden] */
}

static bool bind(vlm_model *m, binder *b)
{
    static const qwen_tower_names names = {
        .layer = {.norm1 = "input_layernorm", .norm2 = "post_attention_layernorm", .q = "self_attn.q_proj", .k = "self_attn.k_proj", .v = "self_attn.v_proj",
                  .proj = "self_attn.o_proj", .up = "mlp.dense_h_to_4h", .down = "mlp.dense_4h_to_h"},
        .positions = "embeddings.position_embedding",
        .embed = "embeddings.patch_embedding",
        .layers = "layers",
    };
    hunyuan_vl *v = m->family;
    qwen_tower *t = &v->base.tower;
    int64_t d = t->vit.hidden, out = v->base.text.spec.hidden;
    if (!decoder_bind(&v->base.text, b)) return false;
    qwen_tower_bind(&names, t, b);
    bind_vector(b, &t->merger.norm, d, "perceive.before_rms.weight");
    bind_conv2d(b, &v->conv, 2 * d, d, t->patch.merge, t->patch.merge, "perceive.proj.0");
    bind_vector(b, &v->conv_bias, 2 * d, "perceive.proj.0.bias");
    bind_linear(b, &v->out, 4 * d, 2 * d, "perceive.proj.2");
    bind_vector(b, &v->out_bias, 4 * d, "perceive.proj.2.bias");
    bind_linear(b, &v->mlp, out, 4 * d, "perceive.mlp");
    bind_vector(b, &v->mlp_bias, out, "perceive.mlp.bias");
    bind_vector(b, &v->newline, 4 * d, "perceive.image_newline");
    bind_vector(b, &v->begin, out, "perceive.image_begin");
    bind_vector(b, &v->end, out, "perceive.image_end");
    bind_vector(b, &v->norm, out, "perceive.after_rms.weight");
    t->merge = merge;
    t->merge_family = v;
    return !b->failed;
}

/* ---- pictures ----------------------------------------------------------------------------------------------------------- */

static bool encode(run *r, const vlm_model *m, encode_job *job)
{
    const hunyuan_vl *v = m->family;
    const qwen_tower *t = &v->base.tower;
    if (!qwen_tower_encode(r, t, job)) return false;
    if (job->stage < job->stages) return true;
    int rows = job->in->grid[1] / t->patch.merge, columns = job->in->grid[2] / t->patch.merge;
    int64_t wide = job->rows.cols, n = (int64_t)rows * (columns + 1);
    tensor lines = run_tensor(r, n, wide), all = run_tensor(r, n + 2, v->base.text.spec.hidden);
    for (int64_t i = 0, from = 0; run_ok(r) && i < n; i++)
        memcpy(tensor_row(lines, i), i % (columns + 1) == columns ? v->newline : tensor_row(job->rows, from++), (size_t)wide * sizeof(float));
    if (!run_ok(r)) return false;
    memcpy(tensor_row(all, 0), v->begin, (size_t)all.cols * sizeof(float));
    memcpy(tensor_row(all, n + 1), v->end, (size_t)all.cols * sizeof(float));
    op_linear_to(r, tensor_rows(all, 1, n), lines, &v->mlp, v->mlp_bias);
    image_tower_set_rows(r, job, op_rmsnorm(r, all, v->norm, 0, t->vit.eps));
    return run_ok(r);
}

static bool process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    const hunyuan_vl *v = m->family;
    if (item->kind != MEDIA_IMAGE) return err_set(error, VLM_UNSUPPORTED, "%s takes images, no %s", m->arch->title, media_kind_name(item->kind));
    if (!qwen_vl_arch_process(m, item, options, out, error)) return false;
    int side = v->base.processor.patch.merge;
    out->tokens = out->grid[1] / side * (out->grid[2] / side + 1) + 2;
    return true;
}

/* ---- prompt ------------------------------------------------------------------------------------------------------------- */

static const char *placeholder(const vlm_model *m, media_kind kind) { return kind == MEDIA_IMAGE ? "<｜hy_place▁holder▁no▁102｜>" : NULL; }

static bool expand(const vlm_model *m, const media_input *in, buf *text, vlm_error *error)
{
    for (int i = 0; i < in->tokens; i++) buf_adds(text, placeholder(m, in->kind));
    return text->failed ? err_memory(error, text->size) : true;
}

static bool positions(const vlm_model *m, const int32_t *id, int n, const media_span *spans, int n_spans, media_input *const *media,
                      int32_t *const *axes, int32_t *next, vlm_error *error)
{
    int side = ((const hunyuan_vl *)m->family)->base.processor.patch.merge;
    for (int i = 0; i < n; i++)
        for (int a = 0; a < 4; a++) axes[a][i] = i;
    for (int s = 0; s < n_spans; s++) {
        const media_span *span = &spans[s];
        const media_input *in = media[span->media];
        int across = in->grid[2] / side + 1;
        if (span->first + span->count > n) return err_set(error, VLM_INTERNAL, "medium of %d tokens does not fit its place in the prompt", in->tokens);
        for (int i = 0; i < span->count; i++) {
            int row = span->row + i - 1, at = span->first + i;
            if (row < 0 || row >= in->tokens - 2) continue;                 /* begin, end */
            axes[1][at] = row % across;
            axes[2][at] = row / across;
            axes[3][at] = s;
        }
    }
    *next = n;
    return true;
}

static const char *const types[] = {"hunyuan_vl", NULL};

const vlm_arch vlm_arch_hunyuan_vl = {
    .name = "hunyuan_vl",
    .title = "HunyuanOCR",
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
    .positions = positions,
    .encode_start = qwen_vl_arch_encode_start,
    .encode = encode,
    .forward = qwen_vl_arch_forward,
};
