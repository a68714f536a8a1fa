/* qwen2_5_vl.c - Qwen2.5-VL.  https://arxiv.org/abs/2502.13923
 *
 *   patches [t*h*w, 3*2*14*14] -> patch embedding -> window order -> ViT blocks (attention in windows of 112 x 112 pixels; in whole frames
 *   at 7, 15, 23, 31) -> merger: rms norm, 2 x 2 patches side by side, MLP -> order of the image -> rows that replace <|image_pad|>
 *   -> Qwen2 decoder with M-RoPE (time, row, column)
 *
 * Bites: windows are windows (segments, no mask); their order is undone only after the merge. The decoder's q, k, v have biases, o has none.
 * A video's time step is floor(t * seconds per group * tokens_per_second); images have one. Text after a video continues at the largest
 * position + 1. Names: visual. and model. as published, model.visual. and model.language_model. in newer files, vision_tower. in MLX's. */
#include <math.h>

#include "blocks/vit.h"
#include "models/qwen_vl.h"

typedef struct qwen2_5_vl {
    decoder text;
    qwen_vl_processor processor;
    vit_spec vit;
    int depth, window, out;        /* window: side in merged patches */
    bool *full;                    /* [depth] attention over whole frames */
    vit_layer *layer;
    weight patch, merge_up, merge_down;
    const float *merge_norm, *merge_up_bias, *merge_down_bias;
    rope_table rope;               /* first half of the frequencies turns with the row, second with the column */
} qwen2_5_vl;

/* ---- configuration ------------------------------------------------------------------------------------------------ */

static bool configure_vision(qwen2_5_vl *q, vlm_model *m, config *c)
{
    vit_spec *v = &q->vit;
    v->hidden = (int)config_need_int(c, "vision_config.hidden_size", 1, 1 << 16);
    v->heads = (int)config_need_int(c, "vision_config.num_heads", 1, 1 << 10);
    v->ffn = (int)config_need_int(c, "vision_config.intermediate_size", 1, 1 << 20);
    q->depth = (int)config_need_int(c, "vision_config.depth", 1, 1024);
    q->out = (int)config_int(c, "vision_config.out_hidden_size", q->text.spec.hidden, 1, 1 << 20);
    v->act = config_activation(c, "vision_config.hidden_act", "silu");
    v->eps = 1e-6f;
    v->gated = true;
    int window = (int)config_int(c, "vision_config.window_size", 112, 1, 1 << 20);
    if (c->failed) return false;
    const patch_spec *p = &q->processor.patch;
    v->head_dim = v->hidden / v->heads;
    q->window = window / p->merge / p->patch;
    if (v->hidden % v->heads || v->head_dim % 4) return config_fail(c, VLM_FORMAT, "vision_config: %d columns are no %d heads with 2-D rope", v->hidden, v->heads);
    if (q->window < 1) return config_fail(c, VLM_FORMAT, "vision_config.window_size %d is smaller than a merged patch", window);
    if (q->out != q->text.spec.hidden) return config_fail(c, VLM_FORMAT, "vision_config.out_hidden_size is %d, the decoder's hidden_size %d", q->out, q->text.spec.hidden);

    q->layer = arena_alloc(&m->memory, (size_t)q->depth * sizeof *q->layer);
    q->full = arena_alloc(&m->memory, (size_t)q->depth * sizeof *q->full);
    if (!q->layer || !q->full || !rope_default(&q->rope, &m->memory, config_number(c, "vision_config.rope_theta|vision_config.rope_parameters.rope_theta", 10000), v->head_dim / 2))
        return config_fail(c, VLM_MEMORY, "out of memory");
    int64_t full[1024] = {7, 15, 23, 31};
    int n = config_ints(c, "vision_config.fullatt_block_indexes", full, 1024);
    for (int i = 0; i < (n ? n : 4); i++)
        if (full[i] >= 0 && full[i] < q->depth) q->full[full[i]] = true;

    /* One table for both axes: the frequencies once for rows, once for columns. */
    rope_table both = {0};
    if (!rope_default(&both, &m->memory, 10000, v->head_dim)) return config_fail(c, VLM_MEMORY, "out of memory");
    for (int i = 0; i < both.half; i++) {
        both.inv_freq[i] = q->rope.inv_freq[i % q->rope.half];
        both.axis[i] = i >= q->rope.half;
    }
    q->rope = both;
    return true;
}

static bool configure(vlm_model *m, config *c)
{
    qwen2_5_vl *q = m->family = arena_alloc(&m->memory, sizeof *q);
    if (!q) return config_fail(c, VLM_MEMORY, "out of memory");
    decoder_spec *s = &q->text.spec;
    if (!decoder_config(s, &m->memory, c, text_prefixes)) return false;
    s->qkv_bias = true;
    s->prefix[0] = "model.language_model.";
    s->prefix[1] = "language_model.model.";
    s->prefix[2] = "model.";
    s->head_prefix[0] = "";
    s->head_prefix[1] = "language_model.";
    if (!decoder_plan(&q->text, &m->memory, c)) return false;
    model_use_decoder(m, &q->text);
    m->rope_axes = 3;
    m->takes = TAKES_IMAGE | TAKES_VIDEO;
    return qwen_vl_configure(&q->processor, m->processor, c) && configure_vision(q, m, c);
}

static bool bind(vlm_model *m, binder *b)
{
    qwen2_5_vl *q = m->family;
    const vit_names names = {"norm1", "norm2", "attn.qkv", "attn.proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"};
    const patch_spec *p = &q->processor.patch;
    int64_t d = q->vit.hidden, wide = d * p->merge * p->merge;
    if (!decoder_bind(&q->text, b)) return false;
    bind_prefix(b, "visual.", "model.visual.", "vision_tower.", NULL);
    bind_conv3d(b, &q->patch, d, PATCH_CHANNELS, p->temporal, p->patch, p->patch, "patch_embed.proj");
    for (int i = 0; i < q->depth && !b->failed; i++) vit_bind_layer(&q->layer[i], &q->vit, b, "blocks", i, &names);
    bind_vector(b, &q->merge_norm, d, "merger.ln_q.weight");
    bind_linear(b, &q->merge_up, wide, wide, "merger.mlp.0");
    bind_vector(b, &q->merge_up_bias, wide, "merger.mlp.0.bias");
    bind_linear(b, &q->merge_down, q->out, wide, "merger.mlp.2");
    bind_vector(b, &q->merge_down_bias, q->out, "merger.mlp.2.bias");
    return !b->failed;
}

/* ---- prompt ------------------------------------------------------------------------------------------------------- */

static const qwen2_5_vl *family(const vlm_model *m) { return m->family; }

static bool process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    return qwen_vl_process(m, &family(m)->processor, item, options, out, error);
}

static bool pick_frames(const vlm_model *m, const chat_media *part, const json_t *options, const video_info *info, int64_t **indices, int *count,
                        vlm_error *error)
{
    return qwen_vl_pick_frames(&family(m)->processor, part, options, info, indices, count, error);
}

static const char *placeholder(const vlm_model *m, media_kind kind) { return qwen_vl_placeholder(kind); }

static int32_t media_token(const vlm_model *m, media_kind kind)
{
    return kind == MEDIA_IMAGE ? family(m)->processor.image_token : kind == MEDIA_VIDEO ? family(m)->processor.video_token : -1;
}

static bool expand(const vlm_model *m, const media_input *in, buf *text, vlm_error *error) { return qwen_vl_expand(in, text, error); }

static bool positions(const vlm_model *m, const int32_t *id, int n, const media_span *spans, int n_spans, media_input *const *media,
                      int32_t *const *axes, int32_t *next, vlm_error *error)
{
    return qwen_vl_positions(&family(m)->processor, n, spans, n_spans, media, axes, next, error);
}

/* ---- encoder ------------------------------------------------------------------------------------------------------ */

/* What lives from stage to stage, n patches. */
typedef struct tower {
    int64_t n;
    tensor patches;                /* [n, values] in the order of the image: the processor's */
    int32_t *place;                /* [n] where a patch stands in window order */
    int32_t *block;                /* [n / merge^2] which block of the image stands where in window order */
    int32_t *windows, *frames;     /* where segments begin */
    int n_windows, n_frames;
    tensor cosine, sine;           /* [n, head_dim / 2] in window order */
} tower;

static tensor keep(run *r, arena *memory, int64_t rows, int64_t cols)
{
    tensor t = {NULL, DT_F32, rows, cols, cols};
    size_t bytes;
    if (!mem_mul((size_t)rows, (size_t)cols, &bytes) || !mem_mul(bytes, sizeof(float), &bytes) || !(t.data = arena_alloc_raw(memory, bytes)))
        run_fail(r, VLM_MEMORY, "out of memory for an encoder of %lld x %lld", (long long)rows, (long long)cols);
    return t;
}

static bool encode_start(run *r, const vlm_model *m, encode_job *job)
{
    const qwen2_5_vl *q = family(m);
    const processed *pixels = media_input_find(job->in, job->in->kind == MEDIA_VIDEO ? "pixel_values_videos" : "pixel_values");
    const int *g = job->in->grid;
    int merge = q->processor.patch.merge, unit = merge * merge;
    int64_t n = (int64_t)g[0] * g[1] * g[2], blocks = n / unit;
    if (!pixels || n < 1 || pixels->dim[0] != n || pixels->dim[1] != q->patch.cols) return run_fail(r, VLM_INTERNAL, "patches do not fit their grid");
    tower *t = arena_alloc(job->memory, sizeof *t);
    int32_t *row = run_alloc(r, (size_t)n * sizeof *row), *column = run_alloc(r, (size_t)n * sizeof *column);
    int32_t *at_row = run_alloc(r, (size_t)n * sizeof *at_row), *at_column = run_alloc(r, (size_t)n * sizeof *at_column);
    if (!t || !run_ok(r)) return run_fail(r, VLM_MEMORY, "out of memory");
    t->n = n;
    t->patches = (tensor){pixels->data, DT_F32, n, pixels->dim[1], pixels->dim[1]};
    t->place = arena_alloc(job->memory, (size_t)n * sizeof *t->place);
    t->block = arena_alloc(job->memory, (size_t)blocks * sizeof *t->block);
    t->windows = arena_alloc(job->memory, (size_t)(blocks + 1) * sizeof *t->windows);
    t->frames = arena_alloc(job->memory, (size_t)(g[0] + 1) * sizeof *t->frames);
    t->cosine = keep(r, job->memory, n, q->rope.half);
    t->sine = keep(r, job->memory, n, q->rope.half);
    job->x = keep(r, job->memory, n, q->vit.hidden);
    job->rows = keep(r, job->memory, blocks, q->out);
    if (!t->place || !t->block || !t->windows || !t->frames || !run_ok(r)) return run_fail(r, VLM_MEMORY, "out of memory");

    vit_positions(g[0], g[1], g[2], merge, row, column);
    t->n_windows = vit_windows(g[0], g[1], g[2], merge, q->window, t->block, t->windows);
    t->n_frames = g[0];
    for (int f = 0; f <= g[0]; f++) t->frames[f] = f * g[1] * g[2];
    for (int64_t i = 0; i < n; i++) {
        int64_t patch = (int64_t)t->block[i / unit] * unit + i % unit;
        t->place[patch] = (int32_t)i;
        at_row[i] = row[patch];
        at_column[i] = column[patch];
    }
    const int32_t *axes[MAX_ROPE_AXES] = {at_row, at_column, at_column};
    rope_fill(&q->rope, axes, n, t->cosine, t->sine);
    job->family = t;
    job->stage = 0;
    job->stages = q->depth;
    job->cost = vit_layer_cost(&q->vit, (double)n, (double)g[1] * g[2] / 4);
    return run_ok(r);
}

static void merge_patches(run *r, const qwen2_5_vl *q, const tower *t, encode_job *job)
{
    int unit = q->processor.patch.merge * q->processor.patch.merge;
    tensor h = op_rmsnorm(r, job->x, q->merge_norm, 0, q->vit.eps);
    h = (tensor){h.data, DT_F32, t->n / unit, h.cols * unit, h.cols * unit};                  /* [n / 4, 4 * hidden] */
    h = op_linear(r, h, &q->merge_up, q->merge_up_bias);
    op_activate(r, h, ACT_GELU);
    op_scatter(r, job->rows, op_linear(r, h, &q->merge_down, q->merge_down_bias), t->block);  /* the image's order again */
    TAP(r, "vit.rows", 0, job->rows);
}

static bool encode(run *r, const vlm_model *m, encode_job *job)
{
    const qwen2_5_vl *q = family(m);
    const tower *t = job->family;
    int i = job->stage++;
    if (i == 0) op_scatter(r, job->x, op_linear(r, t->patches, &q->patch, NULL), t->place);   /* [n, hidden] */
    const int32_t *starts = q->full[i] ? t->frames : t->windows;
    vit_layer_forward(r, &q->vit, &q->layer[i], i, job->x, t->cosine, t->sine, starts, q->full[i] ? t->n_frames : t->n_windows);
    if (i == q->depth - 1) merge_patches(r, q, t, job);
    return run_ok(r);
}

static tensor forward(run *r, const vlm_model *m, const batch *b) { return decoder_forward(r, &family(m)->text, b); }

static const char *const types[] = {"qwen2_5_vl", NULL};

const vlm_arch vlm_arch_qwen2_5_vl = {
    .name = "qwen2_5_vl",
    .title = "Qwen2.5-VL (3B, 7B, 32B, 72B)",
    .model_types = types,
    .task = TASK_GENERATE,
    .takes = TAKES_IMAGE | TAKES_VIDEO,
    .configure = configure,
    .bind = bind,
    .process = process,
    .pick_frames = pick_frames,
    .placeholder = placeholder,
    .media_token = media_token,
    .expand = expand,
    .positions = positions,
    .encode_start = encode_start,
    .encode = encode,
    .forward = forward,
};
