/* lfm2_vl.c - LFM2-VL.  https://arxiv.org/abs/2511.23404
 *
 *   picture -> resized so that it gives 64 to 256 tokens; one that would give more than twice as many is resized to a grid of 2 to 10 tiles of
 *           512 x 512 instead, cut, and goes in whole as one more (the thumbnail) -> patches -> SigLIP 2, positions resampled to each tile
 *   -> 2 x 2 features side by side -> [layer norm] -> linear, GELU, linear
 *   -> rows that replace <image> between <|image_start|> and <|image_end|>, tiles behind <|img_row_1_col_1|> ... and <|img_thumbnail|> -> LFM2 (lfm2.c)
 *
 * Bites: pixels come as patches with channels last, every tile padded to the largest that may occur. Tiles and thumbnail differ in tokens. */
#include "models/tower_lm.h"

#include <math.h>
#include <string.h>

#include "base/err.h"
#include "blocks/patch.h"

typedef struct lfm2_vl {
    tower_lm base;
    mlp_connector connector;
    const float *norm, *norm_bias;
    int hidden, factor;            /* width of the connector; features side by side */
    bool normed, biased, split, thumbnail, marks;
    int tile, least_tiles, most_tiles, least_tokens, most_tokens;
    double tolerance;
} lfm2_vl;

/* ---- configuration and weights -------------------------------------------------------------------------------------- */

static bool configure_processor(lfm2_vl *v, vlm_model *m, config *c)
{
    config *p = m->processor;
    int unit = v->base.tower.patch * v->factor;
    v->split = config_bool(p, "image_processor.do_image_splitting", true);
    v->thumbnail = config_bool(p, "image_processor.use_thumbnail", true);
    v->tile = (int)config_int(p, "image_processor.tile_size", 512, 1, 1 << 14);
    v->least_tiles = (int)config_int(p, "image_processor.min_tiles", 2, 1, 256);
    v->most_tiles = (int)config_int(p, "image_processor.max_tiles", 10, 1, 256);
    v->least_tokens = (int)config_int(p, "image_processor.min_image_tokens", 64, 1, 1 << 16);
    v->most_tokens = (int)config_int(p, "image_processor.max_image_tokens", 256, 1, 1 << 16);
    v->tolerance = config_number(p, "image_processor.max_pixels_tolerance", 2);
    v->marks = config_bool(p, "use_image_special_tokens", config_bool(c, "use_image_special_tokens", true));
    int patch = (int)config_int(p, "image_processor.encoder_patch_size", v->base.tower.patch, 1, 256);
    if (!picture_config(&v->base.norm, p, "image_processor", picture_half, RESIZE_BILINEAR) || c->failed) return false;
    if (v->tile % unit || patch != v->base.tower.patch)
        return config_fail(c, VLM_FORMAT, "tiles of %d, patches of %d: the tower's patches are %d, %d x %d of them a token", v->tile, patch, v->base.tower.patch, v->factor, v->factor);
    return v->least_tiles <= v->most_tiles || config_fail(c, VLM_FORMAT, "min_tiles %d, max_tiles %d", v->least_tiles, v->most_tiles);
}

static bool configure(vlm_model *m, config *c)
{
    lfm2_vl *v = m->family = arena_alloc(&m->memory, sizeof *v);
    if (!v) return config_fail(c, VLM_MEMORY, "out of memory");
    if (!tower_lm_config(&v->base, m, c) || !image_tower_config(&v->base.tower, &m->memory, c, -1, true)) return false;
    if (!v->base.tower.side) return config_fail(c, VLM_UNSUPPORTED, "vision_config.model_type: siglip2_vision_model was expected");
    v->factor = (int)config_int(c, "downsample_factor", 2, 1, 16);
    v->hidden = (int)config_int(c, "projector_hidden_size", 2560, 1, 1 << 18);
    v->normed = config_bool(c, "projector_use_layernorm", true);
    v->biased = config_bool(c, "projector_bias", true);
    v->connector.act = config_activation(c, "projector_hidden_act", "gelu");
    return !c->failed && configure_processor(v, m, c);
}

static bool bind(vlm_model *m, binder *b)
{
    lfm2_vl *v = m->family;
    int64_t wide = (int64_t)v->base.tower.vit.hidden * v->factor * v->factor, out = v->base.text.spec.hidden;
    tower_lm_bind(&v->base, b);
    if (v->normed) {
        bind_vector(b, &v->norm, wide, "multi_modal_projector.layer_norm.weight");
        bind_vector(b, &v->norm_bias, wide, "multi_modal_projector.layer_norm.bias");
    }
    bind_linear(b, &v->connector.up, v->hidden, wide, "multi_modal_projector.linear_1");
    bind_linear(b, &v->connector.down, out, v->hidden, "multi_modal_projector.linear_2");
    if (v->biased) {
        bind_vector(b, &v->connector.up_bias, v->hidden, "multi_modal_projector.linear_1.bias");
        bind_vector(b, &v->connector.down_bias, out, "multi_modal_projector.linear_2.bias");
    }
    return !b->failed;
}

/* ---- processor ---------------------------------------------------------------------------------------------------- */

typedef struct layout {
    int rows, columns;             /* of the grid; 1 x 1: the picture is not cut */
    int height, width;             /* of the picture whole, or of the thumbnail */
    int pictures, most_patches;    /* tiles and thumbnail; patches that each is padded to */
} layout;

/* The nearest sides that are whole tokens, their number within limits. */
static bool fit(int height, int width, double unit, double least, double most, layout *l, vlm_error *error)
{
    double h = fmax(unit, (double)round_half_even(height / unit) * unit), w = fmax(unit, (double)round_half_even(width / unit) * unit);
    double area = (double)height * width, beta;
    if (h * w > most) {
        beta = sqrt(area / most);
        h = fmax(unit, floor(height / beta / unit) * unit);
        w = fmax(unit, floor(width / beta / unit) * unit);
    } else if (h * w < least) {
        beta = sqrt(least / area);
        h = ceil(height * beta / unit) * unit;
        w = ceil(width * beta / unit) * unit;
    }
    l->height = (int)fmin(h, 1e9);
    l->width = (int)fmin(w, 1e9);
    return h * w <= (double)l->most_patches * (unit * unit) || err_set(error, VLM_UNSUPPORTED, "an image of %d x %d is too thin", width, height);
}

static bool lay_out(const lfm2_vl *v, const media_item *item, const json_t *options, layout *l, vlm_error *error)
{
    bool split = media_switch(options, "do_image_splitting", v->split);
    int height = item->image.height, width = item->image.width, patch = v->base.tower.patch, per_side = v->tile / patch;
    double unit = (double)patch * v->factor, token = unit * unit;
    double most = fmin(fmax(media_option(item->part, options, "max_image_tokens", v->most_tokens), 1), 1 << 16);
    double least = fmin(fmax(media_option(item->part, options, "min_image_tokens", v->least_tokens), 1), most);
    int least_tiles = (int)fmin(fmax(media_option(item->part, options, "min_tiles", v->least_tiles), 1), 256);
    int most_tiles = (int)fmin(fmax(media_option(item->part, options, "max_tiles", v->most_tiles), least_tiles), 256);
    *l = (layout){.rows = 1, .columns = 1, .pictures = 1, .most_patches = (int)most * v->factor * v->factor};
    if (split && per_side * per_side > l->most_patches) l->most_patches = per_side * per_side;
    if (!fit(height, width, unit, floor(least) * token, floor(most) * token, l, error)) return false;
    double h = fmax(patch, (double)round_half_even(height / unit) * unit), w = fmax(patch, (double)round_half_even(width / unit) * unit);
    if (!split || most_tiles == 1 || h * w <= floor(most) * token * v->tolerance) return true;
    tile_grid_choose(&(tile_grid){.least = least_tiles}, height, width, v->tile, most_tiles, &l->rows, &l->columns);
    l->pictures = l->rows * l->columns;
    if (l->pictures > 1 && media_switch(options, "use_thumbnail", v->thumbnail)) l->pictures++;
    if (l->pictures == 1) l->height = l->width = v->tile;
    return true;
}

/* The window at (x, y) of img as patches with channels last. */
static void cut_patches(const picture_norm *n, const image *img, int x, int y, int height, int width, int patch, float *out)
{
    for (int row = y; row < y + height; row += patch)
        for (int column = x; column < x + width; column += patch)
            for (int i = 0; i < patch; i++) {
                const uint8_t *p = img->rgb + ((size_t)(row + i) * (size_t)img->width + (size_t)column) * 3;
                for (int k = 0; k < 3 * patch; k++) *out++ = n->value[k % 3][p[k]];
            }
}

static bool write_pictures(const lfm2_vl *v, const image *img, const layout *l, float *out, int64_t *shapes, vlm_error *error)
{
    int patch = v->base.tower.patch, tiles = l->rows * l->columns > 1 ? l->rows * l->columns : 0;
    int64_t each = (int64_t)l->most_patches * 3 * patch * patch;
    image resized;
    if (tiles && !image_resize(img, l->columns * v->tile, l->rows * v->tile, v->base.norm.filter, &resized, error)) return false;
    for (int i = 0; i < tiles; i++) {
        cut_patches(&v->base.norm, &resized, i % l->columns * v->tile, i / l->columns * v->tile, v->tile, v->tile, patch, out + i * each);
        shapes[2 * i] = shapes[2 * i + 1] = v->tile / patch;
    }
    if (tiles) image_free(&resized);
    if (tiles == l->pictures) return true;
    if (!image_resize(img, l->width, l->height, v->base.norm.filter, &resized, error)) return false;
    cut_patches(&v->base.norm, &resized, 0, 0, l->height, l->width, patch, out + tiles * each);
    image_free(&resized);
    shapes[2 * tiles] = l->height / patch;
    shapes[2 * tiles + 1] = l->width / patch;
    return true;
}

static int tile_tokens(const lfm2_vl *v) { return v->tile / v->base.tower.patch / v->factor * (v->tile / v->base.tower.patch / v->factor); }

static bool process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    const lfm2_vl *v = m->family;
    layout l;
    if (!tower_lm_only_images(m, item, error) || !lay_out(v, item, options, &l, error)) return false;
    int patch = v->base.tower.patch, unit = patch * v->factor, tiles = l.rows * l.columns;
    int64_t values = (int64_t)3 * patch * patch, whole = (int64_t)(l.height / unit) * (l.width / unit);
    int64_t tokens = tiles > 1 ? (int64_t)tiles * tile_tokens(v) + (l.pictures > tiles ? whole : 0) : whole;
    if (!tower_lm_fits(m, item, tokens, error)) return false;
    out->kind = item->kind;
    out->tokens = (int)tokens;
    out->grid[0] = l.pictures, out->grid[1] = l.rows, out->grid[2] = l.columns;
    processed *pixels = media_input_add(out, "pixel_values", DT_F32, 3, (const int64_t[]){l.pictures, l.most_patches, values});
    processed *mask = media_input_add(out, "pixel_attention_mask", DT_U8, 2, (const int64_t[]){l.pictures, l.most_patches});
    processed *shapes = media_input_add(out, "spatial_shapes", DT_I64, 2, (const int64_t[]){l.pictures, 2});
    if (!pixels || !mask || !shapes) return err_memory(error, (size_t)(l.pictures * l.most_patches * values) * sizeof(float));
    int64_t *shape = shapes->data;
    if (!write_pictures(v, &item->image, &l, pixels->data, shape, error)) return false;
    for (int i = 0; i < l.pictures; i++) memset((uint8_t *)mask->data + (int64_t)i * l.most_patches, 1, (size_t)(shape[2 * i] * shape[2 * i + 1]));
    return true;
}

static bool expand(const vlm_model *m, const media_input *in, buf *text, vlm_error *error)
{
    const lfm2_vl *v = m->family;
    const char *token = tower_lm_placeholder(m, MEDIA_IMAGE);
    int tiles = in->grid[1] * in->grid[2], each = tile_tokens(v), left = in->tokens;
    if (v->marks) buf_adds(text, "<|image_start|>");
    for (int i = 0; token && tiles > 1 && i < tiles; i++, left -= each) {
        if (v->marks) buf_addf(text, "<|img_row_%d_col_%d|>", i / in->grid[2] + 1, i % in->grid[2] + 1);
        for (int k = 0; k < each; k++) buf_adds(text, token);
    }
    if (v->marks && tiles > 1 && left > 0) buf_adds(text, "<|img_thumbnail|>");
    for (int k = 0; token && k < left; k++) buf_adds(text, token);
    if (v->marks) buf_adds(text, "<|image_end|>");
    return text->failed ? err_memory(error, text->size) : true;
}

/* ---- encoder ------------------------------------------------------------------------------------------------------ */

static bool encode_start(run *r, const vlm_model *m, encode_job *job)
{
    const lfm2_vl *v = m->family;
    const processed *p = media_input_find(job->in, "pixel_values"), *shapes = media_input_find(job->in, "spatial_shapes");
    if (!p || !p->data || !shapes || !shapes->data) return run_fail(r, VLM_INTERNAL, "no pixels to encode");
    tower_image *images = run_alloc(r, (size_t)(p->dim[0] + 1) * sizeof *images);
    const int64_t *shape = shapes->data;
    for (int64_t i = 0; images && i < p->dim[0]; i++)
        images[i] = (tower_image){(const float *)p->data + i * p->dim[1] * p->dim[2], (int)shape[2 * i] * v->base.tower.patch, (int)shape[2 * i + 1] * v->base.tower.patch, NULL};
    return images && image_tower_start(r, &v->base.tower, job, images, (int)p->dim[0]);
}

static bool encode(run *r, const vlm_model *m, encode_job *job)
{
    const lfm2_vl *v = m->family;
    const processed *shapes = media_input_find(job->in, "spatial_shapes");
    if (!image_tower_encode(r, &v->base.tower, job)) return false;
    if (job->stage < job->stages) return true;
    int64_t unit = (int64_t)v->factor * v->factor, first = 0;
    tensor x = image_tower_features(r, &v->base.tower, job), merged = run_tensor(r, x.rows / unit, x.cols * unit);
    for (int64_t i = 0; run_ok(r) && i < shapes->dim[0]; i++) {
        const int64_t *shape = (const int64_t *)shapes->data + 2 * i, n = shape[0] * shape[1];
        tensor part = tower_lm_shuffle(r, tensor_rows(x, first, n), (int)shape[0], (int)shape[1], v->factor);
        if (run_ok(r)) memcpy(tensor_row(merged, first / unit), part.data, (size_t)(n * x.cols) * sizeof(float));
        first += n;
    }
    if (v->normed) merged = op_layernorm(r, merged, v->norm, v->norm_bias, 1e-5f);
    image_tower_set_rows(r, job, mlp_connector_apply(r, &v->connector, merged));
    return run_ok(r);
}

static const char *const types[] = {"lfm2_vl", NULL};

static const media_rules rules = {.image = "do_image_splitting? min_tiles max_tiles use_thumbnail? min_image_tokens max_image_tokens",
                                  .low = "{\"do_image_splitting\": false}"};

const vlm_arch vlm_arch_lfm2_vl = {
    .name = "lfm2_vl",
    .title = "LFM2-VL",
    .model_types = types,
    .rules = &rules,
    .task = TASK_GENERATE,
    .takes = TAKES_IMAGE,
    .no_special_tokens = true,
    .configure = configure,
    .bind = bind,
    .process = process,
    .placeholder = tower_lm_placeholder,
    .media_token = tower_lm_media_token,
    .expand = expand,
    .encode_start = encode_start,
    .encode = encode,
    .forward = tower_lm_forward,
};
