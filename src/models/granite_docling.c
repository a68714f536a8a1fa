/* granite_docling.c - Granite for Docling (500M, 2B): pages of documents.  https://huggingface.co/ibm-granite/granite-for-docling-500m
 * (granite-docling-258M is an Idefics3.)
 *
 *   page -> resized to the grid of tiles whose shape is nearest (16 x 16 at most), cut; the whole page squeezed into one more tile
 *        -> SigLIP -> norm, scale x scale features side by side, product, + sines of column and row, norm, GELU, product, norm: rows that replace <image>
 *           behind some layers: scale x scale features side by side, norm, linear, GELU, linear: rows that are added behind the decoder's first layers
 *        -> Granite
 *   prompt: <fake_token_around_image><row_1_col_1> <image> ... a line end behind each row; an empty line, <global-img>, <fake_token_around_image>
 *
 * Bites: a page of one tile has no whole page behind it, and no mark behind. Columns come before rows in the sines. Rows are times Granite's
 * embedding_multiplier. fine_route (an option of the processor, which another network may choose): half the scale, four times the tokens. */
#include "models/tower_lm.h"

#include <math.h>
#include <string.h>

#include "base/err.h"

typedef struct merger { const float *norm, *norm_bias, *up_bias, *down_bias; weight up, down; } merger;

/* One for `scale`, one for half of it. */
typedef struct path {
    int scale, tokens;             /* of a tile; 0: the checkpoint has no such path */
    weight project;
    float *positions;              /* [tokens, hidden] */
    merger merger[TOWER_KEEPS];
} path;

typedef struct granite_docling {
    tower_lm base;
    tile_grid grid;
    int dense_most;                /* tiles of broad pages that would get too small; 0: no such rule */
    double dense_scale, dense_least, dense_widest;
    bool fine;                     /* unless a request says otherwise */
    path coarse_path, fine_path;
    const float *in_norm, *in_bias, *mid_norm, *mid_bias, *out_norm, *out_bias;
    weight out;
    const char *fake, *global;
} granite_docling;

/* [sin x, cos x, sin y, cos y], a quarter of the columns each. */
static bool make_positions(path *p, arena *memory, config *c, int side, int hidden)
{
    int quarter = hidden / 4;
    size_t n;
    if (!mem_mul((size_t)p->tokens, (size_t)hidden * sizeof(float), &n) || !(p->positions = arena_alloc(memory, n)))
        return config_fail(c, VLM_MEMORY, "out of memory");
    for (int i = 0; i < p->tokens; i++)
        for (int k = 0; k < quarter; k++) {
            double omega = 1 / pow(10000, (double)k / quarter), x = i % side * omega, y = i / side * omega;
            float *row = p->positions + (size_t)i * (size_t)hidden + k;
            row[0] = (float)sin(x), row[quarter] = (float)cos(x), row[2 * quarter] = (float)sin(y), row[3 * quarter] = (float)cos(y);
        }
    return true;
}

static bool configure_path(path *p, arena *memory, config *c, const tower_lm *v, int scale)
{
    int side = v->tower.image / v->tower.patch;
    if (scale < 1 || side % scale)
        return config_fail(c, VLM_FORMAT, "vision_config: %d x %d features cannot be merged by %d", side, side, scale);
    p->scale = scale;
    p->tokens = side / scale * (side / scale);
    return make_positions(p, memory, c, side / scale, v->text.spec.hidden);
}

/* Layers behind which features are taken: 3, 7 and 10 unless the config says others. */
static bool configure_levels(image_tower *t, config *c)
{
    int64_t layer[TOWER_KEEPS] = {3, 7, 10};
    int n = config_has(c, "vision_config.deepstack_visual_indexes") ? config_ints(c, "vision_config.deepstack_visual_indexes", layer, TOWER_KEEPS) : 3;
    for (int i = 0; i < n && !c->failed; i++) {
        if (layer[i] < 0 || layer[i] >= t->layers || (i && layer[i] <= layer[i - 1]))
            return config_fail(c, VLM_FORMAT, "vision_config.deepstack_visual_indexes: rising numbers below %d were expected", t->layers);
        image_tower_keep(t, c, (int)layer[i] + 1);
    }
    return !c->failed;
}

static bool configure_processor(granite_docling *v, config *p, config *c)
{
    int side = v->base.tower.image;
    tile_grid_config(&v->grid, p);
    v->grid.most = (int)config_int(p, "image_processor.max_patches", 32, v->grid.least, 256);
    v->grid.most_side = 16;
    v->dense_most = (int)config_int(p, "image_processor.dense_max_patches", 0, 0, 256);
    v->dense_scale = config_number(p, "image_processor.dense_max_scale", 0);
    v->dense_least = config_number(p, "image_processor.dense_min_aspect", 0);
    v->dense_widest = config_number(p, "image_processor.dense_max_aspect", 0);
    v->fine = config_bool(p, "image_processor.fine_route", false);
    v->fake = config_string(p, "fake_image_token", "<fake_token_around_image>");
    v->global = config_string(p, "global_image_token", "<global-img>");
    if (p->failed) return false;
    if (config_int(p, "image_processor.size.height", side, 1, 1 << 15) != side || config_int(p, "image_processor.size.width", side, 1, 1 << 15) != side)
        return config_fail(c, VLM_FORMAT, "the processor's tiles are not the vision tower's, %d x %d", side, side);
    if (v->fine && !v->fine_path.tokens) return config_fail(c, VLM_FORMAT, "fine_route is wanted, the checkpoint has no fine path");
    return picture_config(&v->base.norm, p, "image_processor", picture_clip, RESIZE_BICUBIC);
}

static bool configure(vlm_model *m, config *c)
{
    granite_docling *v = m->family = arena_alloc(&m->memory, sizeof *v);
    if (!v) return config_fail(c, VLM_MEMORY, "out of memory");
    if (!config_has(c, "image_token_id")) json_object_set_new(c->root, "image_token_id", json_integer(100337));
    if (!tower_lm_config(&v->base, m, c) || !image_tower_config(&v->base.tower, &m->memory, c, -1, true) || !configure_levels(&v->base.tower, c))
        return false;
    int scale = (int)config_int(c, "vision_config.scale_factor", 4, 1, 64);
    if (c->failed) return false;
    if (v->base.text.spec.hidden % 4 || v->base.tower.n_kept > v->base.text.spec.layers)
        return config_fail(c, VLM_FORMAT, "text_config: no room for 2-D positions, or for %d levels of features", v->base.tower.n_kept);
    if (!configure_path(&v->coarse_path, &m->memory, c, &v->base, scale)) return false;
    if (config_bool(c, "vision_config.use_fine_route", true) && !configure_path(&v->fine_path, &m->memory, c, &v->base, scale / 2))
        return false;
    return configure_processor(v, m->processor, c) && !c->failed;
}

static void bind_path(path *p, binder *b, const granite_docling *v, const char *name)
{
    int64_t d = v->base.text.spec.hidden, merged = (int64_t)v->base.tower.vit.hidden * p->scale * p->scale;
    bind_linear(b, &p->project, d, merged, "connector.%s.projection", name);
    for (int i = 0; i < v->base.tower.n_kept; i++) {
        merger *w = &p->merger[i];
        bind_vector(b, &w->norm, merged, "connector.%s.deepstack_mergers.%d.layer_norm.weight", name, i);
        bind_vector(b, &w->norm_bias, merged, "connector.%s.deepstack_mergers.%d.layer_norm.bias", name, i);
        bind_linear(b, &w->up, d, merged, "connector.%s.deepstack_mergers.%d.linear_1", name, i);
        bind_vector(b, &w->up_bias, d, "connector.%s.deepstack_mergers.%d.linear_1.bias", name, i);
        bind_linear(b, &w->down, d, d, "connector.%s.deepstack_mergers.%d.linear_2", name, i);
        bind_vector(b, &w->down_bias, d, "connector.%s.deepstack_mergers.%d.linear_2.bias", name, i);
    }
}

static bool bind(vlm_model *m, binder *b)
{
    granite_docling *v = m->family;
    int64_t d = v->base.text.spec.hidden;
    tower_lm_bind(&v->base, b);
    bind_prefix(b, "model.vision_model.", "vision_model.", NULL);
    bind_vector(b, &v->in_norm, v->base.tower.vit.hidden, "connector.ln_in.weight");
    bind_vector(b, &v->in_bias, v->base.tower.vit.hidden, "connector.ln_in.bias");
    bind_vector(b, &v->mid_norm, d, "connector.ln_mid.weight");
    bind_vector(b, &v->mid_bias, d, "connector.ln_mid.bias");
    bind_linear(b, &v->out, d, d, "connector.mlp_fc2");
    bind_vector(b, &v->out_norm, d, "connector.ln_out.weight");
    bind_vector(b, &v->out_bias, d, "connector.ln_out.bias");
    bind_path(&v->coarse_path, b, v, "coarse");
    if (v->fine_path.tokens) bind_path(&v->fine_path, b, v, "fine");
    return !b->failed;
}

/* ---- processor ---------------------------------------------------------------------------------------------------- */

/* Tiles that a page may become: more for broad pages (newspaper spreads) whose columns `most` tiles would make too small. */
static int most_tiles(const granite_docling *v, const image *img, int most)
{
    double shape = (double)img->width / img->height;
    int rows, columns;
    if (!v->dense_most || (v->dense_scale <= 0 && v->dense_least <= 0)) return most;
    if ((v->dense_least > 0 && !(shape > v->dense_least)) || (v->dense_widest > 0 && shape > v->dense_widest)) return most;
    tile_grid_choose(&v->grid, img->height, img->width, v->base.tower.image, most, &rows, &columns);
    return v->dense_scale > 0 && !((double)columns * v->base.tower.image / img->width < v->dense_scale) ? most : v->dense_most;
}

static const path *path_of(const granite_docling *v, const media_input *in)
{
    return media_input_find(in, "tile_fine_mask") ? &v->fine_path : &v->coarse_path;
}

static bool process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    const granite_docling *v = m->family;
    if (!tower_lm_only_images(m, item, error)) return false;
    const json_t *asked = options ? json_object_get(options, "fine_route") : NULL;
    bool fine = json_is_boolean(asked) ? json_is_true(asked) : v->fine;
    if (fine && !v->fine_path.tokens) return err_set(error, VLM_UNSUPPORTED, "fine_route: the checkpoint has no fine path");
    out->kind = item->kind;
    if (fine) {
        processed *p = media_input_add(out, "tile_fine_mask", DT_BOOL, 1, (const int64_t[]){1});
        if (!p) return err_memory(error, 1);
        *(uint8_t *)p->data = 1;
    }
    tile_grid grid = v->grid;
    grid.most = most_tiles(v, &item->image, grid.most);
    return tile_grid_process(m, &grid, &v->base, item, options, path_of(v, out)->tokens, out, error);
}

static bool expand(const vlm_model *m, const media_input *in, buf *text, vlm_error *error)
{
    const granite_docling *v = m->family;
    int rows = in->grid[1], columns = in->grid[2], tokens = path_of(v, in)->tokens;
    const char *token = tower_lm_placeholder(m, MEDIA_IMAGE);
    for (int i = 0; i < rows * columns; i++) {
        buf_addf(text, "%s<row_%d_col_%d>", v->fake, i / columns + 1, i % columns + 1);
        for (int k = 0; token && k < tokens; k++) buf_adds(text, token);
        if (i % columns == columns - 1) buf_adds(text, "\n");
    }
    if (rows * columns > 1) {
        buf_addf(text, "\n%s%s", v->fake, v->global);
        for (int k = 0; token && k < tokens; k++) buf_adds(text, token);
        buf_adds(text, v->fake);
    }
    return text->failed ? err_memory(error, text->size) : true;
}

/* ---- encoder ------------------------------------------------------------------------------------------------------ */

static tensor main_rows(run *r, const granite_docling *v, const path *p, tensor x, int side)
{
    const float eps = 1e-5f;
    x = tower_lm_shuffle(r, op_layernorm(r, x, v->in_norm, v->in_bias, eps), side, side, p->scale);
    x = op_linear(r, x, &p->project, NULL);                                                          /* [tiles * tokens, hidden] */
    tensor positions = {p->positions, DT_F32, p->tokens, x.cols, x.cols};
    for (int64_t first = 0; first < x.rows && run_ok(r); first += p->tokens) op_add_inplace(r, tensor_rows(x, first, p->tokens), positions);
    x = op_layernorm(r, x, v->mid_norm, v->mid_bias, eps);
    op_activate(r, x, ACT_GELU);
    return op_layernorm(r, op_linear(r, x, &v->out, NULL), v->out_norm, v->out_bias, eps);
}

static tensor level_rows(run *r, const merger *w, tensor x)
{
    x = op_linear(r, op_layernorm(r, x, w->norm, w->norm_bias, 1e-5f), &w->up, w->up_bias);
    op_activate(r, x, ACT_GELU);
    return op_linear(r, x, &w->down, w->down_bias);
}

static bool encode(run *r, const vlm_model *m, encode_job *job)
{
    const granite_docling *v = m->family;
    const image_tower *t = &v->base.tower;
    if (!image_tower_encode(r, t, job)) return false;
    if (job->stage < job->stages) return true;
    const path *p = path_of(v, job->in);
    int side = t->image / t->patch;
    int64_t n = job->in->tokens;
    tensor rows = run_tensor(r, (1 + t->n_kept) * n, v->base.text.spec.hidden);
    for (int level = 0; level <= t->n_kept && run_ok(r); level++) {
        arena_mark mark = arena_get_mark(r->scratch);
        tensor x = level ? level_rows(r, &p->merger[level - 1], tower_lm_shuffle(r, image_tower_kept(r, t, job, level - 1), side, side, p->scale))
                         : main_rows(r, v, p, image_tower_features(r, t, job), side);
        for (int64_t i = 0; i < n && run_ok(r); i++) memcpy(tensor_row(rows, level * n + i), tensor_row(x, i), (size_t)x.cols * sizeof(float));
        arena_release(r->scratch, mark);
    }
    image_tower_set_rows(r, job, rows);
    return run_ok(r);
}

static const char *const types[] = {"granite_docling", NULL};

static const media_rules rules = {.image = "crop_to_patches? min_patches max_patches fine_route?", .low = "{\"crop_to_patches\": false}"};

const vlm_arch vlm_arch_granite_docling = {
    .name = "granite_docling",
    .title = "Granite for Docling",
    .model_types = types,
    .rules = &rules,
    .takes = TAKES_IMAGE,
    .configure = configure,
    .bind = bind,
    .process = process,
    .encode = encode,
    .task = TASK_GENERATE, .placeholder = tower_lm_placeholder, .media_token = tower_lm_media_token, .expand = expand,
    .encode_start = tower_lm_encode_start, .forward = tower_lm_forward,
};
