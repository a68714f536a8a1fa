/* gemma3.c - Gemma 3 with eyes (4B, 12B, 27B).  https://arxiv.org/abs/2503.19786
 *
 *   picture, squeezed to 896 x 896 (pan and scan: crops of it besides) -> SigLIP -> features averaged to mm_tokens_per_image (256)
 *   -> rms norm (1 + w) -> product -> rows that replace <image_soft_token> -> models/gemma.c
 *
 * Bites: a picture sees itself whole: full layers causal or in the picture, sliding layers that and inside the window. The projection lies
 * [vision, text], untransposed. The template writes <start_of_image>; blank lines stand around each picture. Pan and scan (do_pan_and_scan) tells
 * in words that crops follow. Nested configs leave out what is the default. */
#include "models/tower_lm.h"

#include <math.h>

#include "base/err.h"

typedef struct gemma3 {
    tower_lm base;
    int tokens, pool;              /* tokens of a picture; side of what is averaged */
    int32_t begin_id, end_id;      /* marks around a picture */
    const float *norm;
    weight project;
    bool crop;                     /* pan and scan, unless a request says otherwise */
    int least_crop, most_crops;
    double crop_ratio;
} gemma3;

static bool configure(vlm_model *m, config *c)
{
    gemma3 *v = m->family = arena_alloc(&m->memory, sizeof *v);
    if (!v) return config_fail(c, VLM_MEMORY, "out of memory");
    if (!config_has(c, "image_token_index|image_token_id")) json_object_set_new(c->root, "image_token_index", json_integer(262144));
    if (!tower_lm_config(&v->base, m, c) || !image_tower_config(&v->base.tower, &m->memory, c, -1, true)) return false;
    config *p = m->processor;
    v->begin_id = (int32_t)config_int(c, "boi_token_index|boi_token_id", 255999, 0, INT32_MAX);
    v->end_id = (int32_t)config_int(c, "eoi_token_index|eoi_token_id", 256000, 0, INT32_MAX);
    v->tokens = (int)config_int(c, "mm_tokens_per_image", 256, 1, 1 << 16);
    v->crop = config_bool(p, "image_processor.do_pan_and_scan", false);
    v->least_crop = (int)config_int(p, "image_processor.pan_and_scan_min_crop_size", 256, 1, 1 << 14);
    v->most_crops = (int)config_int(p, "image_processor.pan_and_scan_max_num_crops", 4, 2, 64);
    v->crop_ratio = config_number(p, "image_processor.pan_and_scan_min_ratio_to_activate", 1.2);
    if (c->failed || !picture_config(&v->base.norm, p, "image_processor", picture_half, RESIZE_BILINEAR)) return false;
    int side = v->base.tower.image / v->base.tower.patch, kept = (int)sqrt(v->tokens);
    v->pool = kept ? side / kept : 0;
    if (kept * kept != v->tokens || !v->pool || side / v->pool != kept)
        return config_fail(c, VLM_FORMAT, "mm_tokens_per_image %d of %d x %d features", v->tokens, side, side);
    m->bidirectional_media = true;
    for (int i = 0; i < m->layers; i++) v->base.text.spec.layer[i].bidirectional = true;
    return true;
}

static bool bind(vlm_model *m, binder *b)
{
    gemma3 *v = m->family;
    tower_lm_bind(&v->base, b);
    bind_vector(b, &v->norm, v->base.tower.vit.hidden, "multi_modal_projector.mm_soft_emb_norm.weight");
    bind_linear_transposed(b, &v->project, v->base.text.spec.hidden, v->base.tower.vit.hidden, "multi_modal_projector.mm_input_projection_weight");
    return !b->failed;
}

/* ---- processor ---------------------------------------------------------------------------------------------------- */

/* How many crops across and down: a picture that is much longer than wide, as squares side by side. */
static int plan_crops(const gemma3 *v, const media_item *item, const json_t *options, int longer, int shorter)
{
    double ratio = media_option(item->part, options, "pan_and_scan_min_ratio_to_activate", v->crop_ratio);
    int least = (int)fmin(fmax(media_option(item->part, options, "pan_and_scan_min_crop_size", v->least_crop), 1), 1 << 14);
    int most_crops = (int)fmin(fmax(media_option(item->part, options, "pan_and_scan_max_num_crops", v->most_crops), 1), 64);
    if ((double)longer / shorter < ratio) return 0;
    int n = (int)floor((double)longer / shorter + 0.5), most = longer / least;
    if (n > most) n = most;
    if (n < 2) n = 2;
    if (n > most_crops) n = most_crops;
    int side = (longer + n - 1) / n;
    return (side < shorter ? side : shorter) < least ? 0 : n;
}

static bool process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    const gemma3 *v = m->family;
    const image *img = &item->image;
    if (!tower_lm_only_images(m, item, error)) return false;
    bool wide = img->width >= img->height, crop = media_switch(options, "do_pan_and_scan", v->crop);
    int n = !crop ? 0 : wide ? plan_crops(v, item, options, img->width, img->height) : plan_crops(v, item, options, img->height, img->width), side = v->base.tower.image;
    out->kind = item->kind;
    out->tokens = v->tokens * (1 + n);
    out->grid[0] = 1 + n;
    if (!tower_lm_fits(m, item, out->tokens, error)) return false;
    processed *crops = media_input_add(out, "num_crops", DT_I64, 1, (const int64_t[]){1});
    processed *p = media_input_add(out, "pixel_values", DT_F32, 4, (const int64_t[]){1 + n, 3, side, side});
    if (!crops || !p) return err_memory(error, 64);
    *(int64_t *)crops->data = n;
    if (!picture_resized(&v->base.norm, img, side, side, 0, 0, side, side, p->data, error)) return false;
    int step = n ? ((wide ? img->width : img->height) + n - 1) / n : 0;
    for (int i = 0; i < n; i++) {
        image part;
        if (!picture_cut(img, wide ? i * step : 0, wide ? 0 : i * step, wide ? step : img->width, wide ? img->height : step, &part, error)) return false;
        bool ok = picture_resized(&v->base.norm, &part, side, side, 0, 0, side, side, (float *)p->data + (int64_t)(i + 1) * 3 * side * side, error);
        image_free(&part);
        if (!ok) return false;
    }
    return true;
}

/* ---- prompt ------------------------------------------------------------------------------------------------------- */

static const char *placeholder(const vlm_model *m, media_kind kind)
{
    return kind == MEDIA_IMAGE && m->tok ? tokenizer_token(m->tok, ((const gemma3 *)m->family)->begin_id) : NULL;
}

static void add_picture(const vlm_model *m, const gemma3 *v, buf *text)
{
    const char *begin = tokenizer_token(m->tok, v->begin_id), *end = tokenizer_token(m->tok, v->end_id), *token = tokenizer_token(m->tok, v->base.image_token);
    buf_addf(text, "\n\n%s", begin ? begin : "");
    for (int i = 0; i < v->tokens; i++) buf_adds(text, token ? token : "");
    buf_addf(text, "%s\n\n", end ? end : "");
}

static bool expand(const vlm_model *m, const media_input *in, buf *text, vlm_error *error)
{
    const gemma3 *v = m->family;
    int crops = in->grid[0] - 1;
    if (crops > 0) buf_adds(text, "Here is the original image ");
    add_picture(m, v, text);
    if (crops > 0) buf_adds(text, " and here are some crops to help you see better ");
    for (int i = 0; i < crops; i++) {
        if (i) buf_adds(text, " ");
        add_picture(m, v, text);
    }
    return text->failed ? err_memory(error, text->size) : true;
}

/* ---- encoder ------------------------------------------------------------------------------------------------------ */

/* Means of pool x pool features. */
static tensor average(run *r, const gemma3 *v, tensor x)
{
    int side = v->base.tower.image / v->base.tower.patch, kept = side / v->pool;
    tensor out = run_zeros(r, x.rows / (side * side) * v->tokens, x.cols);
    int32_t *to = run_alloc(r, (size_t)(x.rows + 1) * sizeof *to);
    for (int64_t i = 0; to && i < x.rows; i++) {
        int64_t picture = i / (side * side), row = i % (side * side) / side / v->pool, column = i % side / v->pool;
        to[i] = row < kept && column < kept ? (int32_t)(picture * v->tokens + row * kept + column) : -1;
    }
    if (run_ok(r)) op_scatter_add(r, out, x, to, 1 / (float)(v->pool * v->pool));
    return out;
}

static bool encode(run *r, const vlm_model *m, encode_job *job)
{
    const gemma3 *v = m->family;
    if (!image_tower_encode(r, &v->base.tower, job)) return false;
    if (job->stage < job->stages) return true;
    tensor x = average(r, v, image_tower_features(r, &v->base.tower, job));
    image_tower_set_rows(r, job, op_linear(r, op_rmsnorm(r, x, v->norm, 1, v->base.tower.vit.eps), &v->project, NULL));
    return run_ok(r);
}

static const char *const types[] = {"gemma3", NULL};

static const media_rules rules = {
    .image = "do_pan_and_scan? pan_and_scan_min_crop_size pan_and_scan_max_num_crops pan_and_scan_min_ratio_to_activate",
    .low = "{\"do_pan_and_scan\": false}", .high = "{\"do_pan_and_scan\": true}"};

const vlm_arch vlm_arch_gemma3 = {
    .name = "gemma3",
    .title = "Gemma 3 (4B, 12B, 27B)",
    .model_types = types,
    .rules = &rules,
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
