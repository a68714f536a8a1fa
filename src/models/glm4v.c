/* glm4v.c - GLM-4.1V (glm4v), GLM-4.5V and 4.6V (glm4v_moe), GLM-4.6V-Flash (glm46v), GLM-OCR (glm_ocr).  https://arxiv.org/abs/2507.01006
 *
 *   patches [t*h*w, 3*2*14*14] -> product -> [rms norm + table of positions, sampled bicubic] -> ViT blocks with rope, gated MLP -> rms norm
 *   -> 2 x 2 patches through a convolution -> linear, layer norm, GELU -> gated MLP -> rows that replace <|image|>
 *   -> GLM-4 decoder (glm4.c), M-RoPE in pairs of neighbours on a part of each head; GLM-4.5V: that of GLM-4.5 (glm4_moe.c), M-RoPE in halves
 *   video: each group of two frames between image marks of its own, its time in seconds behind: "0", or "0.0 seconds" (GLM-4.6V, OCR)
 *
 * Bites: out_hidden_size is also the width of the blocks' MLP, intermediate_size that of the merger's; in GLM-OCR they are intermediate_size and
 * 3 * out_hidden_size. GLM-OCR has norms of q and k, biases everywhere in the blocks, no table and no norm behind the embedding; its decoder has no
 * biases on q, k, v. A video's tokens are image tokens. Limits of pixels count an image as two frames. */
#include "models/qwen_vl.h"

#include <math.h>
#include <string.h>

#include "base/err.h"
#include "models/text.h"

typedef struct glm4v {
    qwen_vl base;                  /* first: the functions of qwen_vl.h find it there */
    bool ocr, moe, whole_seconds;
    int merged;                    /* width of the merger's MLP */
    weight conv, proj, gate, up, down;
    const float *conv_bias, *norm, *norm_bias;
    activation act;
} glm4v;

enum { MOST_SECONDS = 300, MOST_FRAMES = 640 };

/* ---- configuration and weights -------------------------------------------------------------------------------------- */

static bool configure_text(glm4v *v, vlm_model *m, config *c)
{
    decoder_spec *s = &v->base.text.spec;
    if (!(v->moe ? glm4_moe_spec(s, &m->memory, c, "glm4v_moe_text") : glm4_spec(s, &m->memory, c, "glm4"))) return false;
    if (!v->moe) s->qkv_bias = !v->ocr;
    s->eps = (float)config_number(c, TEXT("rms_norm_eps"), 1e-5);
    static const int64_t usual[3] = {8, 12, 12};
    bool told = config_has(c, "text_config.rope_scaling.mrope_section|rope_scaling.mrope_section") ||
                config_has(c, "text_config.rope_parameters.mrope_section|rope_parameters.mrope_section");
    if (!told && !rope_sections(&s->rope[0], usual, 3, false)) return config_fail(c, VLM_FORMAT, "mrope_section is missing");
    decoder_names(s);
    return !c->failed;
}

static bool configure_vision(glm4v *v, config *c)
{
    qwen_tower *t = &v->base.tower;
    t->out = (int)config_int(c, "vision_config.out_hidden_size", v->base.text.spec.hidden, 1, 1 << 18);
    int wide = (int)config_int(c, "vision_config.intermediate_size", v->ocr ? 4096 : 13696, 1, 1 << 20);
    t->vit = (vit_spec){
        .hidden = (int)config_int(c, "vision_config.hidden_size", v->ocr ? 1024 : 1536, 1, 1 << 16),
        .heads = (int)config_int(c, "vision_config.num_heads", v->ocr ? 16 : 12, 1, 1 << 10),
        .ffn = v->ocr ? wide : t->out,
        .act = config_activation(c, "vision_config.hidden_act", "silu"),
        .eps = (float)config_number(c, "vision_config.rms_norm_eps", 1e-5),
        .gated = true,
        .norm_each_head = v->ocr,
    };
    t->depth = (int)config_int(c, "vision_config.depth", 24, 1, QWEN_MAX_DEPTH);
    v->merged = v->ocr ? PATCH_CHANNELS * t->out : wide;
    v->act = t->vit.act;
    int picture = (int)config_int(c, "vision_config.image_size", 336, 1, 1 << 15);
    if (c->failed) return false;
    t->side = v->ocr ? 0 : picture / v->base.processor.patch.patch;
    t->bicubic = true;
    return v->ocr || t->side > 0 || config_fail(c, VLM_FORMAT, "vision_config.image_size %d is smaller than a patch", picture);
}

/* Limits that the processor's files leave out. */
static void usual_limits(qwen_vl_limits *l, config *p, const char *min, const char *max, int64_t most)
{
    if (!config_has(p, min)) l->min_pixels = 112 * 112;
    if (!config_has(p, max)) l->max_pixels = most;
}

static bool configure_processor(glm4v *v, vlm_model *m, config *c)
{
    qwen_vl_processor *p = &v->base.processor;
    if (!qwen_vl_configure(p, m->processor, c)) return false;
    usual_limits(&p->image, m->processor, "image_processor.min_pixels|image_processor.size.shortest_edge|image_processor.size.min_pixels",
                 "image_processor.max_pixels|image_processor.size.longest_edge|image_processor.size.max_pixels", 28 * 28 * 15000);
    usual_limits(&p->video, m->processor, "video_processor.min_pixels|video_processor.size.shortest_edge|video_processor.size.min_pixels",
                 "video_processor.max_pixels|video_processor.size.longest_edge|video_processor.size.max_pixels", 28 * 28 * 2 * 30000);
    p->timestamps = p->image_is_group = p->first_times = true;
    p->image_token = (int32_t)config_int(c, "image_token_id", v->ocr ? 59280 : 151363, 0, INT32_MAX);
    p->video_token = p->image_token;
    return !c->failed;
}

static bool configure(vlm_model *m, config *c)
{
    glm4v *v = m->family = arena_alloc(&m->memory, sizeof *v);
    if (!v) return config_fail(c, VLM_MEMORY, "out of memory");
    const char *type = config_string(c, "model_type", "glm4v");
    v->ocr = !strcmp(type, "glm_ocr");
    v->moe = !strcmp(type, "glm4v_moe");
    v->whole_seconds = v->moe || !strcmp(type, "glm4v");
    return configure_text(v, m, c) && configure_processor(v, m, c) && configure_vision(v, c) && qwen_vl_plan(&v->base, m, c);
}

/* x: normed patches, a block's side by side, in the order of the kernel's taps. */
static tensor merge(run *r, const void *family, tensor x)
{
    const glm4v *v = family;
    tensor y[2];
    x = op_linear(r, op_linear(r, x, &v->conv, v->conv_bias), &v->proj, NULL);                /* [n / 4, out] */
    x = op_layernorm(r, x, v->norm, v->norm_bias, 1e-5f);
    op_activate(r, x, ACT_GELU);
    op_linear_group(r, x, 2, y, (const weight *[]){&v->gate, &v->up}, (const float *[]){NULL, NULL});
    return op_linear(r, op_glu(r, y[0], y[1], v->act), &v->down, NULL);
}

static bool bind(vlm_model *m, binder *b)
{
    glm4v *v = m->family;
    qwen_tower *t = &v->base.tower;
    qwen_tower_names names = {
        .layer = {.norm1 = "norm1", .norm2 = "norm2", .qkv = "attn.qkv", .proj = "attn.proj", .gate = "mlp.gate_proj", .up = "mlp.up_proj", .down = "mlp.down_proj",
                  .q_norm = v->ocr ? "attn.q_norm" : NULL, .k_norm = v->ocr ? "attn.k_norm" : NULL},
        .positions = "embeddings.position_embedding",
    };
    int merge_side = t->patch.merge;
    if (!decoder_bind(&v->base.text, b)) return false;
    qwen_tower_bind(&names, t, b);
    if (!v->ocr) bind_vector(b, &t->embed_norm, t->vit.hidden, "post_conv_layernorm.weight");
    bind_vector(b, &t->merger.norm, t->vit.hidden, "post_layernorm.weight");
    bind_conv2d(b, &v->conv, t->out, t->vit.hidden, merge_side, merge_side, "downsample");
    bind_vector(b, &v->conv_bias, t->out, "downsample.bias");
    bind_linear(b, &v->proj, t->out, t->out, "merger.proj");
    bind_vector(b, &v->norm, t->out, "merger.post_projection_norm.weight");
    bind_vector(b, &v->norm_bias, t->out, "merger.post_projection_norm.bias");
    bind_linear(b, &v->gate, v->merged, t->out, "merger.gate_proj");
    bind_linear(b, &v->up, v->merged, t->out, "merger.up_proj");
    bind_linear(b, &v->down, t->out, v->merged, "merger.down_proj");
    t->merge = merge;
    t->merge_family = v;
    return !b->failed;
}

/* ---- frames and prompt ------------------------------------------------------------------------------------------------ */

static int64_t even(int64_t first, int64_t last, int64_t n, int64_t i)           /* numpy.linspace(first, last, n), rounded down */
{
    return n > 1 && i == n - 1 ? last : (int64_t)floor((double)first + (double)i * ((double)(last - first) / (double)(n > 1 ? n - 1 : 1)));
}

/* GLM-4.1V: `fps` frames a second, evenly over the longest duration that it takes. */
static int64_t sample(const video_info *info, double native, double duration, double fps, int64_t *list, int64_t room)
{
    int64_t total = info->total_frames, n = (int64_t)fmin(fmax(floor(fmin(duration, MOST_SECONDS) * fps), 1), (double)room);
    bool whole = duration <= MOST_SECONDS;
    if (!whole && n >= total) n = total;
    for (int64_t i = 0; i < n; i++) {
        double second = whole ? (double)i / fps : (double)i * (duration / (double)(n > 1 ? n - 1 : 1));
        int64_t at = (int64_t)fmin(ceil(whole ? (double)i * native / fps : second * native), (double)(total - 1));
        list[i] = !whole && n == total ? i : at;
    }
    return n;
}

/* GLM-4.6V: two frames 3, 1 or 1/2 times a second, by how long the video is; the first that are not before their time, else spread evenly. */
static int64_t sample_by_length(const video_info *info, double native, double duration, int temporal, int64_t *list)
{
    double length = fmin(duration, 2400), fps = length <= 30 ? 3 : length <= 300 ? 1 : 0.5, at = 0, last = floor(duration);
    int64_t total = info->total_frames, n = 0, want = (int64_t)fmin(fmax(floor(length * fps * temporal), 1), MOST_FRAMES), from = 0, to = total - 1;
    for (int64_t i = 0; total >= want && i < total && n <= want; i++) {
        if ((double)i * (1 / native) < at) continue;
        at += 1 / (temporal * fps);
        if (n++ < want) list[n - 1] = i;
        if (at >= last) break;
    }
    if (n == want) return n;
    if (n && n < want) { from = list[0]; to = list[n - 1]; }
    for (int64_t i = 0; i < want; i++) list[i] = even(from, to, want, i);
    return want;
}

/* A folder's frames all count; so many as were asked for are spread evenly. */
static bool pick_frames(const vlm_model *m, const chat_media *part, const json_t *options, const video_info *info, int64_t **indices, int *count,
                        vlm_error *error)
{
    const glm4v *v = m->family;
    int64_t total = info->total_frames;
    double native = info->fps > 0 ? info->fps : 24, duration = info->duration > 0 ? info->duration : (double)total / native;
    double part_fps = part && !info->folder ? part->fps : 0, asked = part_fps > 0 ? part_fps : media_option(part, options, "fps", 0);
    if (media_has_option(part, options, "num_frames") || media_has_option(part, options, "nframes") || (asked > 0 && !v->whole_seconds))
        return qwen_vl_pick_frames(&v->base.processor, part, options, info, indices, count, error);
    if (total < 1) return err_set(error, VLM_INVALID, "video without frames");
    double fps = asked > 0 ? asked : v->base.processor.fps > 0 ? v->base.processor.fps : 2;
    double most = info->folder ? fmin((double)total, 1 << 20) : v->whole_seconds ? fmin(fmax(MOST_SECONDS * fps, 1), 1 << 16) : MOST_FRAMES;
    int64_t *list = MEM_ARRAY((size_t)most + 1, int64_t), n = (int64_t)most, kept = 0;
    if (!list) return err_memory(error, ((size_t)most + 1) * sizeof *list);
    if (info->folder) for (int64_t i = 0; i < n; i++) list[i] = even(0, total - 1, n, i);
    else n = v->whole_seconds ? sample(info, native, duration, fps, list, n) : sample_by_length(info, native, duration, v->base.processor.patch.temporal, list);
    for (int64_t i = 0; i < n; i++)
        if (!kept || list[i] != list[kept - 1]) list[kept++] = list[i];
    *indices = list;
    *count = (int)kept;
    return true;
}

static const char *placeholder(const vlm_model *m, media_kind kind)
{
    return kind == MEDIA_IMAGE ? "<|image|>" : kind == MEDIA_VIDEO ? "<|video|>" : NULL;
}

static bool expand(const vlm_model *m, const media_input *in, buf *text, vlm_error *error)
{
    const glm4v *v = m->family;
    bool is_video = in->kind == MEDIA_VIDEO;
    int groups = is_video && in->frames > 0 ? in->frames : 1;
    for (int g = 0; g < groups; g++) {
        if (is_video) buf_adds(text, "<|begin_of_image|>");
        for (int i = 0; i < in->tokens / groups; i++) buf_adds(text, "<|image|>");
        if (is_video) buf_addf(text, v->whole_seconds ? "<|end_of_image|>%.0f" : "<|end_of_image|>%.1f seconds",
                               v->whole_seconds ? floor(in->seconds ? in->seconds[g] : 0) : in->seconds ? in->seconds[g] : 0);
    }
    return text->failed ? err_memory(error, text->size) : true;
}

static const char *const types[] = {"glm4v", "glm4v_moe", "glm46v", "glm_ocr", NULL};

const vlm_arch vlm_arch_glm4v = {
    .name = "glm4v",
    .title = "GLM-4.1V, GLM-4.5V, GLM-4.6V, GLM-OCR",
    .model_types = types,
    .rules = &media_rules_pixels,
    .task = TASK_GENERATE,
    .takes = TAKES_IMAGE | TAKES_VIDEO,
    .configure = configure,
    .bind = bind,
    .process = qwen_vl_arch_process,
    .pick_frames = pick_frames,
    .frame_size = qwen_vl_arch_frame_size,
    .placeholder = placeholder,
    .media_token = qwen_vl_arch_media_token,
    .expand = expand,
    .positions = qwen_vl_arch_positions,
    .encode_start = qwen_vl_arch_encode_start,
    .encode = qwen_vl_arch_encode,
    .forward = qwen_vl_arch_forward,
};
