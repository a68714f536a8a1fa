/* idefics2.c - Idefics2.  https://arxiv.org/abs/2405.02246
 *
 *   picture -> its four quarters and itself (do_image_splitting), each made to fit 980 x 980 -> SigLIP over whole patches -> gated MLP
 *   -> perceiver: 64 learned latents read features and themselves, 3 layers -> rows that replace <image> -> Mistral
 *   prompt: <fake_token_around_image> <image> x 64 <fake_token_around_image> <image> ... <fake_token_around_image>
 *
 * Bites: views have sizes of their own, a patch that is cut by the edge does not count; places in the table of positions are shares of the sides,
 * as float32 has them. Marks of neighbouring pictures fall into one; a word right behind a picture gets a space before it. */
#include "models/tower_lm.h"

#include <ctype.h>
#include <math.h>
#include <string.h>

#include "base/err.h"

enum { VIEWS = 5, MAX_DEPTH = 32 };

typedef struct perceiver_layer {
    const float *latents_norm, *context_norm, *mlp_norm;
    weight q, k, v, o, gate, up, down;
} perceiver_layer;

typedef struct idefics2 {
    tower_lm base;
    weight gate, up, down;         /* from the tower's columns to the decoder's */
    int latents, depth, heads, kv_heads, head_dim;
    float eps;
    activation act;
    const float *start, *norm;
    perceiver_layer layer[MAX_DEPTH];
    int shortest, longest;
    bool split;
    const char *fake;
} idefics2;

typedef struct view_sizes { int n, height[VIEWS], width[VIEWS]; } view_sizes;

static bool configure(vlm_model *m, config *c)
{
    idefics2 *v = m->family = arena_alloc(&m->memory, sizeof *v);
    if (!v) return config_fail(c, VLM_MEMORY, "out of memory");
    if (!config_has(c, "image_token_id")) json_object_set_new(c->root, "image_token_id", json_integer(32001));
    if (!config_has(c, "text_config.model_type") && config_has(c, "text_config")) json_object_set_new(json_object_get(c->root, "text_config"), "model_type", json_string("mistral"));
    if (!tower_lm_config(&v->base, m, c) || !image_tower_config(&v->base.tower, &m->memory, c, -1, true)) return false;
    config *p = m->processor;
    v->latents = (int)config_int(c, "perceiver_config.resampler_n_latents", 64, 1, 1 << 12);
    v->depth = (int)config_int(c, "perceiver_config.resampler_depth", 3, 1, MAX_DEPTH);
    v->heads = (int)config_int(c, "perceiver_config.resampler_n_heads", 16, 1, 1 << 10);
    v->head_dim = (int)config_int(c, "perceiver_config.resampler_head_dim", 96, 1, 1 << 10);
    v->kv_heads = (int)config_int(c, "perceiver_config.num_key_value_heads", 4, 1, 1 << 10);
    v->eps = (float)config_number(c, "perceiver_config.rms_norm_eps", 1e-6);
    v->act = config_activation(c, "perceiver_config.hidden_act", "silu");
    v->shortest = (int)config_int(p, "image_processor.size.shortest_edge", 378, 1, 1 << 14);
    v->longest = (int)config_int(p, "image_processor.size.longest_edge", 980, 1, 1 << 14);
    v->split = config_bool(p, "image_processor.do_image_splitting", true);
    v->fake = "<fake_token_around_image>";
    if (c->failed || p->failed) return false;
    if (v->heads % v->kv_heads) return config_fail(c, VLM_FORMAT, "perceiver_config: %d heads cannot share %d key heads", v->heads, v->kv_heads);
    if (v->longest < v->shortest || v->shortest < v->base.tower.patch) return config_fail(c, VLM_FORMAT, "pictures of %d to %d pixels a side", v->shortest, v->longest);
    return picture_config(&v->base.norm, p, "image_processor", picture_half, RESIZE_BILINEAR);
}

static bool bind(vlm_model *m, binder *b)
{
    idefics2 *v = m->family;
    int64_t in = v->base.tower.vit.hidden, d = v->base.text.spec.hidden, ffn = v->base.text.spec.layer[0].ffn;
    int64_t q = (int64_t)v->heads * v->head_dim, kv = (int64_t)v->kv_heads * v->head_dim;
    tower_lm_bind(&v->base, b);
    bind_linear(b, &v->gate, ffn, in, "connector.modality_projection.gate_proj");
    bind_linear(b, &v->up, ffn, in, "connector.modality_projection.up_proj");
    bind_linear(b, &v->down, d, ffn, "connector.modality_projection.down_proj");
    bind_vector(b, &v->start, v->latents * d, "connector.perceiver_resampler.latents");
    bind_vector(b, &v->norm, d, "connector.perceiver_resampler.norm.weight");
    for (int i = 0; i < v->depth && !b->failed; i++) {
        perceiver_layer *w = &v->layer[i];
#define AT "connector.perceiver_resampler.layers.%d."
        bind_vector(b, &w->latents_norm, d, AT "input_latents_norm.weight", i);
        bind_vector(b, &w->context_norm, d, AT "input_context_norm.weight", i);
        bind_vector(b, &w->mlp_norm, d, AT "post_attention_layernorm.weight", i);
        bind_linear(b, &w->q, q, d, AT "self_attn.q_proj", i);
        bind_linear(b, &w->k, kv, d, AT "self_attn.k_proj", i);
        bind_linear(b, &w->v, kv, d, AT "self_attn.v_proj", i);
        bind_linear(b, &w->o, d, q, AT "self_attn.o_proj", i);
        bind_linear(b, &w->gate, 4 * d, d, AT "mlp.gate_proj", i);
        bind_linear(b, &w->up, 4 * d, d, AT "mlp.up_proj", i);
        bind_linear(b, &w->down, d, 4 * d, AT "mlp.down_proj", i);
#undef AT
    }
    return !b->failed;
}

/* ---- processor ---------------------------------------------------------------------------------------------------- */

/* Into longest x longest, no side below shortest. */
static void fit_view(int shortest, int longest, int *height, int *width)
{
    double ratio = (double)*width / *height;
    if (*width >= *height && *width > longest) {
        *width = longest;
        *height = (int)(*width / ratio);
    } else if (*height > *width && *height > longest) {
        *height = longest;
        *width = (int)(*height * ratio);
    }
    if (*height < shortest) *height = shortest;
    if (*width < shortest) *width = shortest;
}

/* A part of the picture, resized; normalised into out [3][rows][columns] and mask [rows][columns], zeros below and to the right. */
static bool make_view(const idefics2 *v, const image *img, int y, int x, int height, int width, int to_height, int to_width, int rows, int columns, float *out,
                      uint8_t *mask, vlm_error *error)
{
    image part, view;
    if (!picture_cut(img, x, y, width, height, &part, error)) return false;
    bool ok = image_resize(&part, to_width, to_height, v->base.norm.filter, &view, error);
    image_free(&part);
    if (!ok) return false;
    for (int i = 0; i < to_height; i++) {
        memset(mask + (size_t)i * (size_t)columns, 1, (size_t)to_width);
        for (int c = 0; c < 3; c++)
            for (int k = 0; k < to_width; k++)
                out[((int64_t)c * rows + i) * columns + k] = v->base.norm.value[c][view.rgb[((size_t)i * (size_t)to_width + (size_t)k) * 3 + (size_t)c]];
    }
    image_free(&view);
    return true;
}

static bool process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    const idefics2 *v = m->family;
    const image *img = &item->image;
    if (!tower_lm_only_images(m, item, error)) return false;
    int longest = (int)fmin(fmax(media_option(item->part, options, "longest_edge", v->longest), v->base.tower.patch), v->base.tower.image);
    int shortest = (int)fmin(fmax(media_option(item->part, options, "shortest_edge", v->shortest), v->base.tower.patch), longest);
    bool split = media_switch(options, "do_image_splitting", v->split) && img->width > 1 && img->height > 1;
    int n = split ? VIEWS : 1, middle_y = img->height / 2, middle_x = img->width / 2, rows = 0, columns = 0;
    view_sizes *sizes = out->family = arena_alloc(&out->memory, sizeof *sizes);
    if (!sizes) return err_memory(error, sizeof *sizes);
    int top[VIEWS] = {0}, left[VIEWS] = {0}, height[VIEWS], width[VIEWS];
    sizes->n = n;
    for (int i = 0; i < n; i++) {
        bool whole = i == n - 1;
        top[i] = whole || i < 2 ? 0 : middle_y;
        left[i] = whole || i % 2 == 0 ? 0 : middle_x;
        height[i] = whole ? img->height : i < 2 ? middle_y : img->height - middle_y;
        width[i] = whole ? img->width : i % 2 == 0 ? middle_x : img->width - middle_x;
        sizes->height[i] = height[i], sizes->width[i] = width[i];
        fit_view(shortest, longest, &sizes->height[i], &sizes->width[i]);
        if (sizes->height[i] > rows) rows = sizes->height[i];
        if (sizes->width[i] > columns) columns = sizes->width[i];
    }
    out->kind = item->kind;
    out->tokens = n * v->latents;
    if (!tower_lm_fits(m, item, out->tokens, error)) return false;
    processed *p = media_input_add(out, "pixel_values", DT_F32, 4, (const int64_t[]){n, 3, rows, columns});
    processed *mask = media_input_add(out, "pixel_attention_mask", DT_U8, 3, (const int64_t[]){n, rows, columns});
    if (!p || !mask) return err_memory(error, (size_t)n * 3 * (size_t)rows * (size_t)columns * sizeof(float));
    for (int i = 0; i < n; i++)
        if (!make_view(v, img, top[i], left[i], height[i], width[i], sizes->height[i], sizes->width[i], rows, columns,
                       (float *)p->data + (int64_t)i * 3 * rows * columns, (uint8_t *)mask->data + (int64_t)i * rows * columns, error)) return false;
    return true;
}

/* ---- prompt ------------------------------------------------------------------------------------------------------- */

static bool rewrite(const vlm_model *m, const char *text, buf *out, vlm_error *error)
{
    const char *mark = tower_lm_placeholder(m, MEDIA_IMAGE);
    for (const char *at; mark && *mark && (at = strstr(text, mark)); text = at + strlen(mark)) {
        buf_add(out, text, (size_t)(at - text) + strlen(mark));
        unsigned char next = (unsigned char)at[strlen(mark)];
        if (next && next != '<' && !isspace(next)) buf_adds(out, " ");
    }
    buf_adds(out, text);
    return out->failed ? err_memory(error, out->size) : true;
}

static bool expand(const vlm_model *m, const media_input *in, buf *text, vlm_error *error)
{
    const idefics2 *v = m->family;
    const char *token = tower_lm_placeholder(m, MEDIA_IMAGE);
    size_t n = strlen(v->fake);
    if (text->size < n || memcmp(text->data + text->size - n, v->fake, n)) buf_adds(text, v->fake);
    for (int view = 0; token && view < in->tokens / v->latents; view++) {
        for (int i = 0; i < v->latents; i++) buf_adds(text, token);
        buf_adds(text, v->fake);
    }
    return text->failed ? err_memory(error, text->size) : true;
}

/* ---- encoder ------------------------------------------------------------------------------------------------------ */

/* The whole patches of each view. */
static bool encode_start(run *r, const vlm_model *m, encode_job *job)
{
    const idefics2 *v = m->family;
    const processed *p = media_input_find(job->in, "pixel_values");
    const view_sizes *sizes = job->in->family;
    if (!p || !p->data || !sizes) return run_fail(r, VLM_INTERNAL, "no pixels to encode");
    tower_image images[VIEWS];
    int patch = v->base.tower.patch;
    int64_t rows = p->dim[2], columns = p->dim[3];
    for (int i = 0; i < sizes->n; i++) {
        int height = sizes->height[i] / patch * patch, width = sizes->width[i] / patch * patch;
        float *pixels = arena_alloc_raw(job->memory, (size_t)(3 * height * width) * sizeof *pixels);
        int32_t *position = arena_alloc(job->memory, (size_t)(height / patch * (width / patch)) * sizeof *position);
        if (!pixels || !position) return run_fail(r, VLM_MEMORY, "out of memory");
        image_tower_buckets(&v->base.tower, height / patch, width / patch, position);
        images[i] = (tower_image){pixels, height, width, position};
        for (int64_t k = 0; k < 3 * (int64_t)height; k++, pixels += width)
            memcpy(pixels, (const float *)p->data + ((i * 3 + k / height) * rows + k % height) * columns, (size_t)width * sizeof *pixels);
    }
    return image_tower_start(r, &v->base.tower, job, images, sizes->n);
}

static void copy_rows(run *r, tensor to, tensor from)
{
    for (int64_t i = 0; run_ok(r) && i < from.rows; i++) memcpy(tensor_row(to, i), tensor_row(from, i), (size_t)from.cols * sizeof(float));
}

/* x += what the latents read in context and in themselves; queries of context rows are zeros that nobody looks at. */
static void read_context(run *r, const idefics2 *v, const perceiver_layer *w, tensor x, tensor context)
{
    int64_t n = context.rows;
    tensor latents = op_rmsnorm(r, x, w->latents_norm, 0, v->eps), all = run_tensor(r, n + x.rows, x.cols), y[2];
    if (!run_ok(r)) return;
    copy_rows(r, all, op_rmsnorm(r, context, w->context_norm, 0, v->eps));
    copy_rows(r, tensor_rows(all, n, x.rows), latents);
    op_linear_group(r, all, 2, y, (const weight *[]){&w->k, &w->v}, (const float *[]){NULL, NULL});
    tensor q = run_zeros(r, all.rows, (int64_t)v->heads * v->head_dim);
    if (run_ok(r)) op_linear_to(r, tensor_rows(q, n, x.rows), latents, &w->q, NULL);
    int32_t starts[2] = {0, (int32_t)all.rows};
    attention_spec a = {.heads = v->heads, .kv_heads = v->kv_heads, .head_dim = v->head_dim, .scale = (float)pow(v->head_dim, -0.5)};
    tensor out = op_attention_segments(r, q, y[0], y[1], starts, 1, &a);
    if (run_ok(r)) op_add_inplace(r, x, op_linear(r, tensor_rows(out, n, x.rows), &w->o, NULL));
}

static tensor gated(run *r, tensor h, const weight *gate, const weight *up, const weight *down, activation act)
{
    tensor y[2];
    op_linear_group(r, h, 2, y, (const weight *[]){gate, up}, (const float *[]){NULL, NULL});
    return op_linear(r, op_glu(r, y[0], y[1], act), down, NULL);
}

static void resample(run *r, const idefics2 *v, tensor x, tensor context)
{
    for (int64_t i = 0; i < x.rows; i++) memcpy(tensor_row(x, i), v->start + i * x.cols, (size_t)x.cols * sizeof(float));
    for (int i = 0; i < v->depth && run_ok(r); i++) {
        const perceiver_layer *w = &v->layer[i];
        read_context(r, v, w, x, context);
        op_add_inplace(r, x, gated(r, op_rmsnorm(r, x, w->mlp_norm, 0, v->eps), &w->gate, &w->up, &w->down, v->act));
    }
    copy_rows(r, x, op_rmsnorm(r, x, v->norm, 0, v->eps));
}

static bool encode(run *r, const vlm_model *m, encode_job *job)
{
    const idefics2 *v = m->family;
    const view_sizes *sizes = job->in->family;
    if (!image_tower_encode(r, &v->base.tower, job)) return false;
    if (job->stage < job->stages) return true;
    tensor x = gated(r, image_tower_features(r, &v->base.tower, job), &v->gate, &v->up, &v->down, v->base.text.spec.act);
    tensor out = run_tensor(r, job->in->tokens, x.cols);
    int64_t first = 0;
    for (int i = 0; i < sizes->n && run_ok(r); i++) {
        int64_t n = (int64_t)(sizes->height[i] / v->base.tower.patch) * (sizes->width[i] / v->base.tower.patch);
        resample(r, v, tensor_rows(out, (int64_t)i * v->latents, v->latents), tensor_rows(x, first, n));
        first += n;
    }
    image_tower_set_rows(r, job, out);
    return run_ok(r);
}

static const char *const types[] = {"idefics2", NULL};

static const media_rules rules = {.image = "do_image_splitting? shortest_edge longest_edge", .low = "{\"do_image_splitting\": false}"};

const vlm_arch vlm_arch_idefics2 = {
    .name = "idefics2",
    .title = "Idefics2",
    .model_types = types,
    .rules = &rules,
    .task = TASK_GENERATE,
    .takes = TAKES_IMAGE,
    .configure = configure,
    .bind = bind,
    .process = process,
    .placeholder = tower_lm_placeholder,
    .media_token = tower_lm_media_token,
    .rewrite = rewrite,
    .expand = expand,
    .encode_start = encode_start,
    .encode = encode,
    .forward = tower_lm_forward,
};
