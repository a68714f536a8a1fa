/* molmo2.c - Molmo 2.  https://allenai.org/blog/molmo2
 *
 *   picture -> whole, squeezed to 378 x 378, and on a canvas of up to 8 windows, cut into crops of 378 x 378 that overlap by 8 patches
 *   -> SigLIP 2, features of two of its layers side by side -> each 2 x 2 of them (of the canvas without what overlaps) looked at by its mean: attention
 *   -> down(SiLU(gate) * up) -> rows that are added to the embeddings of <im_patch>:
 *      <low_res_im_start> rows <im_col> rows <im_col> ... <im_end> <im_start> rows <im_col> ... <im_end>
 *   video: frames squeezed, 3 x 3 pooled: 0.0 <frame_start> ... <frame_end> 0.5 <frame_start> ...
 *   -> Qwen3 (or OLMo, norms behind) with ids of its own behind the vocabulary
 *
 * Bites: all tokens of pictures in a prompt see each other, marks included, but not text between them. The prompt begins with the begin (else the end)
 * token. Resizing does not smooth. In the file up lies before gate. The layers that are named are counted from 0. */
#include "models/molmo_vision.h"

#include <math.h>
#include <string.h>

#include "base/err.h"

typedef struct molmo2 {
    tower_lm base;
    molmo_pooling pooling;
    molmo_crops crops;
    picture_norm frames;
    int pool_height, pool_width, video_pool_height, video_pool_width;
    int most_frames;
    double most_fps;
    int32_t patch_token;
    bool columns, low_columns, low_start, video_columns, frame_marks;
} molmo2;

/* ---- configuration and weights -------------------------------------------------------------------------------------- */

/* Members of `object` (a path of one name) under the names that newer files have. */
static bool rename_members(config *c, const char *object, const char *const *pairs)
{
    json_t *o = json_object_get(c->root, object);
    for (; json_is_object(o) && *pairs; pairs += 2) {
        json_t *v = json_object_get(o, pairs[0]);
        if (v && !json_object_get(o, pairs[1]) && json_object_set(o, pairs[1], v)) return config_fail(c, VLM_MEMORY, "out of memory");
    }
    return true;
}

static bool modern_config(config *c)
{
    static const char *const vision[] = {"image_default_input_size", "image_size", "image_patch_size", "patch_size", "image_num_pos", "num_position_embeddings", NULL};
    static const char *const text[] = {"layer_norm_eps", "rms_norm_eps", "qkv_bias", "attention_bias", NULL};
    static const char *const pooled[] = {"vit_layers", "vision_feature_layer", NULL};
    json_t *tower = json_object_get(c->root, "vit_config");
    if (tower && !json_object_get(c->root, "vision_config") && json_object_set(c->root, "vision_config", tower)) return config_fail(c, VLM_MEMORY, "out of memory");
    json_t *v = json_object_get(c->root, "vision_config");
    if (json_is_object(v) && !json_object_get(v, "model_type") && json_object_set_new(v, "model_type", json_string("molmo2"))) return config_fail(c, VLM_MEMORY, "out of memory");
    return rename_members(c, "vision_config", vision) && rename_members(c, "text_config", text) && rename_members(c, "adapter_config", pooled);
}

static bool configure_text(molmo2 *v, vlm_model *m, config *c)
{
    decoder_spec *s = &v->base.text.spec;
    if (!decoder_config(s, &m->memory, c, text_prefixes)) return false;
    const char *kind = config_string(c, "text_config.qk_norm_type", "qwen3");
    s->qkv_bias = config_bool(c, "text_config.attention_bias", false);
    s->more_vocab = (int)config_int(c, "text_config.additional_vocab_size", 128, 0, 1 << 20);
    s->qk_norm = config_bool(c, "text_config.use_qk_norm", true);
    s->qk_norm_whole = !strcmp(kind, "olmo");
    if (!s->qk_norm_whole && strcmp(kind, "qwen3")) return config_fail(c, VLM_UNSUPPORTED, "qk_norm_type \"%.20s\"; qwen3 and olmo are known", kind);
    if (config_bool(c, "text_config.norm_after", false)) {
        s->norms = NORM_POST;
        s->names = (norm_names){.post1 = "input_layernorm", .post2 = "post_attention_layernorm"};
    }
    s->fused_qkv = s->fused_gate_up = s->up_first = true;
    const json_t *scaled = config_get(c, "text_config.rope_scaling_layers");
    if (json_is_array(scaled) && (int)json_array_size(scaled) < s->layers) {       /* the others have the same theta, unscaled */
        double theta = config_number(c, "text_config.rope_theta|text_config.rope_parameters.rope_theta", 10000);
        if (!(theta > 0) || !rope_default(&s->rope[1], &m->memory, theta, s->layer[0].head_dim)) return config_fail(c, VLM_FORMAT, "rope_theta %g", theta);
        s->n_ropes = 2;
        for (int i = 0; i < s->layers; i++) s->layer[i].rope = 1;
        for (size_t i = 0; i < json_array_size(scaled); i++) {
            json_int_t layer = json_integer_value(json_array_get(scaled, i));
            if (layer >= 0 && layer < s->layers) s->layer[layer].rope = 0;
        }
    }
    for (int i = 0; i < s->layers; i++) s->layer[i].bidirectional = true;
    static const char *const names[] = {"layers", "blocks", "input_layernorm", "attn_norm", "post_attention_layernorm", "ff_norm", "self_attn.qkv_proj", "self_attn.att_proj",
        "self_attn.o_proj", "self_attn.attn_out", "mlp.gate_up_proj", "mlp.ff_proj", "mlp.down_proj", "mlp.ff_out", "embed_tokens", "wte.embedding",
        "norm.weight", "ln_f.weight", NULL};
    static const char *const prefix[] = {"model.transformer.", "language_model.model.", "model.language_model.", NULL};
    decoder_names(s);
    memcpy(s->prefix, prefix, sizeof prefix);
    s->spellings = names;
    if (!decoder_plan(&v->base.text, &m->memory, c)) return false;
    model_use_decoder(m, &v->base.text);
    m->more_vocab = s->more_vocab;
    return !c->failed;
}

/* Marks that blocks are made of besides the rows. */
static bool configure_tokens(molmo2 *v, vlm_model *m, config *c)
{
    static const struct { const char *path; int fallback; } marks[] = {
        {"image_patch_id", 151938}, {"image_start_token_id", 151936}, {"image_end_token_id", 151937}, {"image_col_id", 151939},
        {"low_res_image_start_token_id", 151940}, {"image_low_res_id", 151942}, {"frame_start_token_id", 151943}, {"frame_end_token_id", 151944}};
    for (int i = 0; i < 8; i++) m->block_tokens[i] = (int32_t)config_int(c, marks[i].path, marks[i].fallback, 0, INT32_MAX);
    m->n_block_tokens = 8;
    m->bidirectional_media = true;
    v->patch_token = m->block_tokens[0];
    if (v->patch_token >= m->vocab + m->more_vocab) return config_fail(c, VLM_FORMAT, "image_patch_id %d: the vocabulary has %d + %d tokens", v->patch_token, m->vocab, m->more_vocab);
    config *p = m->processor;
    v->columns = config_bool(p, "image_use_col_tokens", true);
    v->low_columns = config_bool(p, "use_single_crop_col_tokens", v->columns);
    v->low_start = config_bool(p, "use_single_crop_start_token", true);
    v->video_columns = config_bool(p, "video_use_col_tokens", false);
    v->frame_marks = config_bool(p, "use_frame_special_tokens", true);
    return !c->failed && !p->failed;
}

static bool read_pair(config *c, const char *path, int *a, int *b)
{
    int64_t pair[2] = {*a, *b};
    if (config_has(c, path) && (config_ints(c, path, pair, 2) != 2 || pair[0] < 1 || pair[1] < 1 || pair[0] > 16 || pair[1] > 16))
        return config_fail(c, VLM_FORMAT, "%s: two small numbers were expected", path);
    *a = (int)pair[0], *b = (int)pair[1];
    return !c->failed;
}

static bool configure_processor(molmo2 *v, config *p, config *c)
{
    const image_tower *t = &v->base.tower;
    v->pool_height = v->pool_width = 2, v->video_pool_height = v->video_pool_width = 3;
    if (!picture_config(&v->base.norm, p, "image_processor", picture_half, RESIZE_BILINEAR) || !picture_config(&v->frames, p, "video_processor", picture_half, RESIZE_BILINEAR) ||
        !molmo_crops_config(&v->crops, p, "image_processor", t->image, t->patch, 8) || !read_pair(p, "image_processor.pooling_size", &v->pool_height, &v->pool_width) ||
        !read_pair(p, "video_processor.pooling_size", &v->video_pool_height, &v->video_pool_width)) return false;
    bool plain = v->base.norm.filter == RESIZE_BILINEAR && v->frames.filter == RESIZE_BILINEAR;
    v->base.norm.filter = v->frames.filter = RESIZE_PLAIN;
    v->most_frames = (int)config_int(p, "video_processor.num_frames", 64, 1, 1 << 14);
    v->most_fps = config_number(p, "video_processor.max_fps", 2);
    static const char *const fixed[] = {"image_processor.size.height", "image_processor.size.width", "video_processor.size.height", "video_processor.size.width"};
    for (int i = 0; i < 4; i++)
        if (config_int(p, fixed[i], t->image, 1, 1 << 14) != t->image) return config_fail(c, VLM_FORMAT, "%s is not the tower's %d", fixed[i], t->image);
    if (!plain) return config_fail(c, VLM_UNSUPPORTED, "a resample other than bilinear");
    return !p->failed;
}

static bool configure(vlm_model *m, config *c)
{
    molmo2 *v = m->family = arena_alloc(&m->memory, sizeof *v);
    if (!v) return config_fail(c, VLM_MEMORY, "out of memory");
    if (!modern_config(c) || !configure_text(v, m, c)) return false;
    int layers = (int)config_int(c, "vision_config.num_hidden_layers", 25, 1, 1024), n;
    int64_t wanted[TOWER_KEEPS] = {24, 18};
    if (!(n = config_ints(c, "adapter_config.vision_feature_layer", wanted, TOWER_KEEPS))) n = 2;
    if (c->failed) return false;
    for (int i = 0; i < n; i++) {                          /* from 0 on; negative ones from the end */
        if (wanted[i] < 0) wanted[i] += layers;
        if (wanted[i] < 0 || wanted[i] >= layers) return config_fail(c, VLM_FORMAT, "vision_feature_layer %lld of %d layers", (long long)wanted[i], layers);
    }
    if (!image_tower_config(&v->base.tower, &m->memory, c, (int)wanted[0] + 1, false)) return false;
    for (int i = 0; i < n; i++)
        if (image_tower_keep(&v->base.tower, c, (int)wanted[i] + 1) < 0) return false;
    if (config_int(c, "vision_config.num_key_value_heads", v->base.tower.vit.heads, 1, 1024) != v->base.tower.vit.heads)
        return config_fail(c, VLM_UNSUPPORTED, "vision_config.num_key_value_heads other than num_attention_heads");
    v->base.tower.side_by_side = true;
    v->base.tower.width = n * v->base.tower.vit.hidden;
    molmo_pooling *w = &v->pooling;
    w->attention.heads = (int)config_int(c, "adapter_config.num_attention_heads", 16, 1, 1024);
    w->attention.kv_heads = (int)config_int(c, "adapter_config.num_key_value_heads", 16, 1, 1024);
    w->attention.head_dim = (int)config_int(c, "adapter_config.head_dim", 72, 1, 1024);
    w->hidden = (int)config_int(c, "adapter_config.hidden_size", 1152, 1, 1 << 16);
    w->ffn = (int)config_int(c, "adapter_config.intermediate_size", 18944, 1, 1 << 20);
    w->act = config_activation(c, "adapter_config.hidden_act", "silu");
    w->inputs = v->base.tower.width;
    m->takes = TAKES_IMAGE | TAKES_VIDEO;
    return !c->failed && configure_tokens(v, m, c) && configure_processor(v, m->processor, c);
}

static bool bind(vlm_model *m, binder *b)
{
    static const char *const tower_names[] = {"transformer.resblocks", "transformer", NULL};
    static const char *const tower[] = {"model.vision_backbone.image_vit.", "vision_tower.image_vit.", NULL};
    molmo2 *v = m->family;
    if (!decoder_bind(&v->base.text, b)) return false;
    if (v->base.text.spec.more_vocab) bind_table(b, &v->base.text.embed_more, v->base.text.spec.more_vocab, m->hidden, "wte.new_embedding");
    b->spellings = tower_names;
    image_tower_bind(&v->base.tower, b, tower);
    b->spellings = NULL;
    bind_prefix(b, "model.vision_backbone.", "vision_tower.", NULL);
    molmo_pooling_bind(&v->pooling, b, m->hidden);
    return !b->failed;
}

/* ---- processor ---------------------------------------------------------------------------------------------------- */

static bool process_video(const vlm_model *m, const molmo2 *v, const media_item *item, media_input *out, vlm_error *error)
{
    const video *clip = &item->video;
    int side = v->crops.side, patch = v->crops.patch, across = side / patch, n = clip->count;
    int rows = (across + v->video_pool_height - 1) / v->video_pool_height, columns = (across + v->video_pool_width - 1) / v->video_pool_width;
    int64_t pool = (int64_t)v->video_pool_height * v->video_pool_width, tokens = (int64_t)n * rows * columns, values = (int64_t)3 * patch * patch;
    if (n < 1) return err_set(error, VLM_INVALID, "video without frames");
    if (!tower_lm_fits(m, item, tokens, error)) return false;
    out->tokens = (int)tokens;
    out->frames = n;
    out->seconds = arena_alloc(&out->memory, (size_t)n * sizeof *out->seconds);
    processed *pixels = media_input_add(out, "pixel_values_videos", DT_F32, 3, (const int64_t[]){n, across * across, values});
    processed *places = media_input_add(out, "video_token_pooling", DT_I64, 2, (const int64_t[]){tokens, pool});
    processed *grid = media_input_add(out, "video_grids", DT_I64, 2, (const int64_t[]){1, 3});
    if (!out->seconds || !pixels || !places || !grid) return err_memory(error, (size_t)(n * across * across * values) * sizeof(float));
    memcpy(grid->data, (const int64_t[]){n, rows, columns}, 3 * sizeof(int64_t));
    places->span = (int64_t)n * across * across;
    double fps = clip->info.fps > 0 ? clip->info.fps : v->most_fps;
    for (int i = 0; i < n; i++) {
        out->seconds[i] = clip->seconds ? clip->seconds[i] : i / fps;
        if (!molmo_squeezed(&v->frames, &clip->frames[i], side, patch, (float *)pixels->data + i * across * across * values, error)) return false;
        molmo_pool_whole(across, v->video_pool_height, v->video_pool_width, i * across * across, (int64_t *)places->data + (int64_t)i * rows * columns * pool);
    }
    return true;
}

static bool process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    const molmo2 *v = m->family;
    out->kind = item->kind;
    if (item->kind == MEDIA_VIDEO) return process_video(m, v, item, out, error);
    if (!tower_lm_only_images(m, item, error)) return false;
    molmo_layout l;
    int patch = v->crops.patch, across = v->crops.side / patch, low_rows = (across + v->pool_height - 1) / v->pool_height, low_columns = (across + v->pool_width - 1) / v->pool_width;
    molmo_lay_out(&v->crops, (int)media_option(item->part, options, "max_crops", v->crops.most), item->image.height, item->image.width, &l);
    int rows = (l.rows + v->pool_height - 1) / v->pool_height, columns = (l.columns + v->pool_width - 1) / v->pool_width, n = 1 + l.down * l.across;
    int64_t pool = (int64_t)v->pool_height * v->pool_width, tokens = (int64_t)low_rows * low_columns + (int64_t)rows * columns, values = (int64_t)3 * patch * patch;
    if (!tower_lm_fits(m, item, tokens, error)) return false;
    out->tokens = (int)tokens;
    processed *pixels = media_input_add(out, "pixel_values", DT_F32, 3, (const int64_t[]){n, across * across, values});
    processed *places = media_input_add(out, "image_token_pooling", DT_I64, 2, (const int64_t[]){tokens, pool});
    processed *grid = media_input_add(out, "image_grids", DT_I64, 2, (const int64_t[]){1, 4}), *number = media_input_add(out, "image_num_crops", DT_I64, 1, (const int64_t[]){1});
    if (!pixels || !places || !grid || !number) return err_memory(error, (size_t)(n * across * across * values) * sizeof(float));
    memcpy(grid->data, (const int64_t[]){low_rows, low_columns, rows, columns}, 4 * sizeof(int64_t));
    *(int64_t *)number->data = n;
    places->span = (int64_t)n * across * across;
    molmo_pool_whole(across, v->pool_height, v->pool_width, 0, places->data);
    return molmo_pool_canvas(&v->crops, &l, v->pool_height, v->pool_width, (int64_t *)places->data + (int64_t)low_rows * low_columns * pool, error) &&
           molmo_squeezed(&v->base.norm, &item->image, v->crops.side, patch, pixels->data, error) &&
           molmo_cut(&v->crops, &v->base.norm, &item->image, &l, (float *)pixels->data + across * across * values, error);
}

static bool frame_size(const vlm_model *m, const media_item *item, const json_t *options, int *width, int *height, resize_filter *filter, vlm_error *error)
{
    const molmo2 *v = m->family;
    (void)item, (void)options, (void)error;
    return tower_lm_frame_size(&v->frames, v->crops.side, width, height, filter);
}

/* The first of equal parts each; no more than max_fps of them a second. */
static bool pick_frames(const vlm_model *m, const chat_media *part, const json_t *options, const video_info *info, int64_t **indices, int *count,
                        vlm_error *error)
{
    const molmo2 *v = m->family;
    double total = (double)info->total_frames, native = info->fps > 0 ? info->fps : v->most_fps, seconds = info->duration > 0 ? info->duration : total / native;
    double asked = info->folder ? 0 : media_option(part, options, "fps", 0), n = media_option(part, options, "num_frames", info->folder ? total : v->most_frames);
    bool counted = media_has_option(part, options, "num_frames");
    if (asked > 0 && !counted) n = seconds * asked;
    else if (!counted && !info->folder && native > v->most_fps && v->most_fps > 0 && n > seconds * v->most_fps) n = seconds * v->most_fps;
    if (!counted) n = fmin(fmax(n, media_option(part, options, "min_frames", 1)), media_option(part, options, "max_frames", INFINITY));
    n = n < 1 ? 1 : n > 1 << 14 ? 1 << 14 : n;
    if (!tower_lm_pick(NULL, NULL, info, (int)n, indices, count, error)) return false;
    for (int i = 0; i < *count; i++) (*indices)[i] = (int64_t)(float)(i * (total / *count));
    return true;
}

/* ---- prompt ------------------------------------------------------------------------------------------------------- */

static const char *placeholder(const vlm_model *m, media_kind kind)
{
    (void)m;
    return kind == MEDIA_IMAGE ? "<|image|>" : kind == MEDIA_VIDEO ? "<|video|>" : NULL;
}

static int32_t media_token(const vlm_model *m, media_kind kind) { return kind == MEDIA_AUDIO ? -1 : ((const molmo2 *)m->family)->patch_token; }

static bool rewrite(const vlm_model *m, const char *text, buf *out, vlm_error *error)
{
    const char *begin = tokenizer_role(m->tok, "bos_token");
    if (!begin || !*begin) begin = tokenizer_role(m->tok, "eos_token");
    if (begin && strncmp(text, begin, strlen(begin))) buf_adds(out, begin);
    return buf_adds(out, text) || err_memory(error, out->size);
}

static void add_grid(buf *text, const char *begin, int64_t rows, int64_t columns, bool marks, const char *end)
{
    buf_adds(text, begin);
    for (int64_t y = 0; y < rows; y++) {
        for (int64_t x = 0; x < columns; x++) buf_adds(text, "<im_patch>");
        if (marks) buf_adds(text, "<im_col>");
    }
    buf_adds(text, end);
}

static bool expand(const vlm_model *m, const media_input *in, buf *text, vlm_error *error)
{
    const molmo2 *v = m->family;
    const int64_t *grid = media_input_find(in, in->kind == MEDIA_VIDEO ? "video_grids" : "image_grids")->data;
    for (int i = 0; in->kind == MEDIA_VIDEO && i < in->frames; i++) {
        buf_addf(text, "%s%.1f ", i ? " " : "", in->seconds[i]);
        add_grid(text, v->frame_marks ? "<frame_start>" : "<im_start>", grid[1], grid[2], v->video_columns, v->frame_marks ? "<frame_end>" : "<im_end>");
    }
    if (in->kind == MEDIA_IMAGE) {
        add_grid(text, v->low_start ? "<low_res_im_start>" : "<im_start>", grid[0], grid[1], v->low_columns, "<im_end>");
        add_grid(text, "<im_start>", grid[2], grid[3], v->columns, "<im_end>");
    }
    return text->failed ? err_memory(error, text->size) : true;
}

/* ---- encoder ------------------------------------------------------------------------------------------------------ */

static bool encode_start(run *r, const vlm_model *m, encode_job *job)
{
    const molmo2 *v = m->family;
    return molmo_encode_start(r, &v->base.tower, job, media_input_find(job->in, job->in->kind == MEDIA_VIDEO ? "pixel_values_videos" : "pixel_values"));
}

static bool encode(run *r, const vlm_model *m, encode_job *job)
{
    const molmo2 *v = m->family;
    if (!image_tower_encode(r, &v->base.tower, job)) return false;
    if (job->stage < job->stages) return true;
    const processed *places = media_input_find(job->in, job->in->kind == MEDIA_VIDEO ? "video_token_pooling" : "image_token_pooling");
    if (!places || !places->data) return run_fail(r, VLM_INTERNAL, "nothing to pool");
    tensor x = molmo_pool(r, &v->pooling, image_tower_features(r, &v->base.tower, job), places->data, (int)places->dim[0], (int)places->dim[1]);
    molmo_add_embedding(r, &v->base.text, v->patch_token, x);
    image_tower_set_rows(r, job, x);
    return run_ok(r);
}

static const char *const types[] = {"molmo2", NULL};

static const media_rules rules = {.image = "max_crops", .low = "{\"max_crops\": 1}"};

const vlm_arch vlm_arch_molmo2 = {
    .name = "molmo2",
    .title = "Molmo 2",
    .model_types = types,
    .rules = &rules,
    .task = TASK_GENERATE,
    .takes = TAKES_IMAGE | TAKES_VIDEO,
    .configure = configure,
    .bind = bind,
    .process = process,
    .pick_frames = pick_frames,
    .frame_size = frame_size,
    .placeholder = placeholder,
    .media_token = media_token,
    .rewrite = rewrite,
    .expand = expand,
    .encode_start = encode_start,
    .encode = encode,
    .forward = tower_lm_forward,
};
