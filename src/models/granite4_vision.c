/* granite4_vision.c - Granite 4 Vision.  https://huggingface.co/ibm-granite/granite-4.0-3b-vision
 *
 *   picture -> tiles (models/anyres.h) -> SigLIP, features behind several layers
 *   each of these, and the last ones four times -> a projector of its own -> the tiles' rows as one field -> rows that are added before a decoder layer of its own
 *   projector: norm; windows of w x w features [+ positions] are read by q x q queries: a learned one + the window shrunk, by averaging or by taking one
 *              of each 2 x 2 -> Q-Former (attention among queries, to the window, MLP; norms behind) -> linear
 *   Granite; image tokens enter as zeros
 *
 * Bites: "q/w" in downsample_rate is no fraction: "4/8" has other windows than "1/2". Heads of the Q-Former have 64 columns, whatever its config says. */
#include "models/anyres.h"
#include "models/tower_lm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

enum { MOST_LEVELS = TOWER_KEEPS, QFORMER_LAYERS = 16, HEAD = 64 };

/* x = norm(x + out(attention(q of x, k and v of y))) */
typedef struct attend { weight q, k, v, out; const float *q_bias, *k_bias, *v_bias, *out_bias, *norm, *norm_bias; } attend;
typedef struct qformer_layer {
    attend self, cross;
    weight up, down;
    const float *up_bias, *down_bias, *norm, *norm_bias;
} qformer_layer;

typedef struct projector {
    int layer;                     /* which kept layer of the tower */
    int corner;                    /* 0 ... 3 of each 2 x 2; -1: averages */
    const float *norm, *norm_bias, *query, *positions, *start_norm, *start_bias, *out_bias;
    qformer_layer qformer[QFORMER_LAYERS];
    weight out;
} projector;

typedef struct granite4_vision {
    tower_lm base;
    anyres sizes;
    const float *newline;
    int side, query, window;       /* features of a tile, queries and features of a window, on a side */
    int depth, cross_every, ffn;   /* of the Q-Formers */
    activation act;
    float eps;
    int n_levels, at[MOST_LEVELS]; /* before which decoder layer each level is added */
    int n_layerwise;               /* levels that average; four others take corners */
    projector *projector;
} granite4_vision;

static int unit_of(const granite4_vision *v) { return v->side / v->window * v->query; }

static bool add_level(granite4_vision *v, config *c, int kept, int corner, int64_t at)
{
    if (at < 0 || at >= v->base.text.spec.layers)
        return config_fail(c, VLM_FORMAT, "features before decoder layer %d of %d", (int)at, v->base.text.spec.layers);
    for (int i = 0; i < v->n_levels; i++)
        if (v->at[i] == at) return config_fail(c, VLM_UNSUPPORTED, "two kinds of features before decoder layer %d", (int)at);
    if (v->n_levels == MOST_LEVELS) return config_fail(c, VLM_UNSUPPORTED, "more than %d levels of features", MOST_LEVELS);
    v->projector[v->n_levels].layer = kept;
    v->projector[v->n_levels].corner = corner;
    v->at[v->n_levels++] = (int)at;
    return true;
}

/* deepstack_layer_map: [[tower layer, decoder layer] ...]; spatial_target_layers: decoder layers of the four corners. */
static bool configure_levels(granite4_vision *v, config *c)
{
    const json_t *map = config_get(c, "deepstack_layer_map");
    int64_t target[4] = {12, 15, 18, 21}, last = config_int(c, "spatial_vision_layer", -1, -1024, 1024);
    bool corners = config_bool(c, "use_spatial_sampling", true);
    int n = config_has(c, "spatial_target_layers") ? config_ints(c, "spatial_target_layers", target, 4) : 4;
    if (c->failed) return false;
    if (corners && (n != 4 || v->window != 2 * v->query))
        return config_fail(c, VLM_UNSUPPORTED, "features of four corners want spatial_target_layers of four and a downsample_rate of a half");
    for (size_t i = 0; i < json_array_size(map); i++) {
        const json_t *pair = json_array_get(map, i), *from = json_array_get(pair, 0), *to = json_array_get(pair, 1);
        if (!json_is_integer(from) || !json_is_integer(to))
            return config_fail(c, VLM_FORMAT, "deepstack_layer_map: pairs of layers were expected");
        int64_t layer = json_integer_value(from);
        int kept = layer < -1024 || layer > 1024 ? -1 : image_tower_keep(&v->base.tower, c, (int)layer);
        if (kept < 0 || !add_level(v, c, kept, -1, json_integer_value(to)))
            return config_fail(c, VLM_FORMAT, "deepstack_layer_map: no such layer");
    }
    v->n_layerwise = v->n_levels;
    int kept = corners ? image_tower_keep(&v->base.tower, c, (int)last) : 0;
    for (int i = 0; corners && kept >= 0 && i < 4; i++)
        if (!add_level(v, c, kept, i, target[i])) return false;
    v->base.text.spec.deepstack = v->at;
    return v->n_levels > 0 ? !c->failed : config_fail(c, VLM_FORMAT, "deepstack_layer_map is missing");
}

static bool configure_windows(granite4_vision *v, config *c)
{
    const char *rate = config_string(c, "downsample_rate", "");
    char *end;
    long query = strtol(rate, &end, 10), window = *end == '/' ? strtol(end + 1, &end, 10) : 0;
    v->side = v->base.tower.image / v->base.tower.patch;
    v->depth = (int)config_int(c, "qformer_config.num_hidden_layers", 1, 1, QFORMER_LAYERS);
    v->cross_every = (int)config_int(c, "qformer_config.cross_attention_frequency", 1, 1, 1024);
    v->ffn = (int)config_int(c, "qformer_config.intermediate_size", 3072, 1, 1 << 20);
    v->eps = (float)config_number(c, "qformer_config.layer_norm_eps", 1e-12);
    v->act = config_activation(c, "qformer_config.hidden_act", "gelu");
    if (c->failed) return false;
    if (*end || query < 1 || window < query || window > v->side || v->side % window)
        return config_fail(c, VLM_FORMAT, "downsample_rate \"%.20s\": \"queries/features\" of windows that fill %d x %d features were expected", rate, v->side, v->side);
    if (v->base.tower.vit.hidden % HEAD)
        return config_fail(c, VLM_FORMAT, "vision_config.hidden_size %d is not made of heads of %d", v->base.tower.vit.hidden, HEAD);
    v->query = (int)query;
    v->window = (int)window;
    return true;
}

static bool configure(vlm_model *m, config *c)
{
    granite4_vision *v = m->family = arena_alloc(&m->memory, sizeof *v);
    if (!v || !(v->projector = arena_alloc(&m->memory, MOST_LEVELS * sizeof *v->projector)))
        return config_fail(c, VLM_MEMORY, "out of memory");
    const char *strategy = config_string(c, "vision_feature_select_strategy", "default");
    if (!tower_lm_config(&v->base, m, c) || !image_tower_config(&v->base.tower, &m->memory, c, -1, false)) return false;
    if (v->base.tower.class_token != !strcmp(strategy, "default"))
        return config_fail(c, VLM_UNSUPPORTED, "vision_feature_select_strategy \"%.20s\" with this tower", strategy);
    return configure_windows(v, c) && configure_levels(v, c) && anyres_config(&v->sizes, m->processor, c, v->base.tower.image) &&
           picture_config(&v->base.norm, m->processor, "image_processor", picture_half, RESIZE_BICUBIC) && !c->failed;
}

static void bind_norm(binder *b, const float **w, const float **bias, int64_t d, const char *where, const char *name)
{
    bind_vector(b, w, d, "%s.%s.weight", where, name);
    bind_vector(b, bias, d, "%s.%s.bias", where, name);
}

static void bind_biased(binder *b, weight *w, const float **bias, int64_t rows, int64_t cols, const char *where, const char *name)
{
    bind_linear(b, w, rows, cols, "%s.%s", where, name);
    bind_vector(b, bias, rows, "%s.%s.bias", where, name);
}

static void bind_attend(binder *b, attend *w, int64_t d, const char *where, int layer, const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "%s.qformer.encoder.layer.%d.%s", where, layer, name);
    bind_biased(b, &w->q, &w->q_bias, d, d, path, "attention.query");
    bind_biased(b, &w->k, &w->k_bias, d, d, path, "attention.key");
    bind_biased(b, &w->v, &w->v_bias, d, d, path, "attention.value");
    bind_biased(b, &w->out, &w->out_bias, d, d, path, "output.dense");
    bind_norm(b, &w->norm, &w->norm_bias, d, path, "output.LayerNorm");
}

static void bind_projector(const granite4_vision *v, binder *b, projector *p, const char *where)
{
    int64_t d = v->base.tower.vit.hidden;
    char path[128];
    bind_norm(b, &p->norm, &p->norm_bias, d, where, "norm");
    bind_vector(b, &p->query, v->query * v->query * d, "%s.query", where);
    bind_vector(b, &p->positions, v->window * v->window * d, "%s.image_positions", where);
    bind_norm(b, &p->start_norm, &p->start_bias, d, where, "qformer.layernorm");
    bind_biased(b, &p->out, &p->out_bias, v->base.text.spec.hidden, d, where, "out_linear");
    for (int i = 0; i < v->depth; i++) {
        qformer_layer *w = &p->qformer[i];
        snprintf(path, sizeof path, "%s.qformer.encoder.layer.%d", where, i);
        bind_attend(b, &w->self, d, where, i, "attention");
        if (i % v->cross_every == 0) bind_attend(b, &w->cross, d, where, i, "crossattention");
        bind_biased(b, &w->up, &w->up_bias, v->ffn, d, path, "intermediate_query.dense");
        bind_biased(b, &w->down, &w->down_bias, d, v->ffn, path, "output_query.dense");
        bind_norm(b, &w->norm, &w->norm_bias, d, path, "output_query.LayerNorm");
    }
}

static bool bind(vlm_model *m, binder *b)
{
    granite4_vision *v = m->family;
    char where[64];
    tower_lm_bind(&v->base, b);
    bind_prefix(b, "model.", "", NULL);
    bind_vector(b, &v->newline, v->base.text.spec.hidden, "image_newline");
    for (int i = 0; i < v->n_levels && !b->failed; i++) {
        bool corner = i >= v->n_layerwise;
        snprintf(where, sizeof where, "%s.%d", corner ? "spatial_projectors" : "layerwise_projectors", corner ? i - v->n_layerwise : i);
        bind_projector(v, b, &v->projector[i], where);
    }
    return !b->failed;
}

/* ---- processor ---------------------------------------------------------------------------------------------------- */

static bool process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    const granite4_vision *v = m->family;
    anyres sizes = anyres_asked(&v->sizes, item, options, v->base.tower.image);
    if (!tower_lm_only_images(m, item, error)) return false;
    out->kind = item->kind;
    anyres_grid(&sizes, &item->image, v->base.tower.image, out);
    anyres_field f = anyres_field_of(item->image.height, item->image.width, unit_of(v), out->grid[1], out->grid[2]);
    out->tokens = anyres_tokens(&f, unit_of(v));
    return tower_lm_fits(m, item, out->tokens, error) && anyres_process(&v->base.norm, &item->image, v->base.tower.image, out, error);
}

/* ---- encoder: after the tower, a stage for each level ---------------------------------------------------------------- */

/* Feature (y, x) of a tile lies in which window, at which place in it: tiles of n x n windows of size x size. */
static int32_t in_windows(int y, int x, int n, int size) { return (int32_t)((y / size * n + x / size) * size * size + y % size * size + x % size); }

/* x [tiles * side * side, d] -> in the order of windows (to_windows), or back. */
static tensor reorder(run *r, tensor x, int side, int size, bool to_windows)
{
    int32_t *index = run_alloc(r, (size_t)(x.rows + 1) * sizeof *index);
    for (int64_t i = 0; index && i < x.rows; i++) {
        int64_t tile = i / (side * side) * (side * side);
        int y = (int)(i % (side * side)) / side, c = (int)(i % side);
        int32_t at = (int32_t)tile + in_windows(y, c, side / size, size);
        if (to_windows) index[at] = (int32_t)i;
        else index[i] = at;
    }
    return op_gather(r, x, index, x.rows);
}

/* Each tile of side x side features shrunk to `to` x `to`: averages of what a place covers, or one corner of each 2 x 2. */
static tensor shrink(run *r, tensor x, int side, int to, int corner)
{
    int64_t tiles = x.rows / (side * side), d = x.cols;
    tensor out = run_zeros(r, tiles * to * to, d);
    for (int64_t i = 0; run_ok(r) && i < out.rows; i++) {
        int y = (int)(i % (to * to)) / to, c = (int)(i % to), y0, y1, x0, x1;
        if (corner >= 0) y0 = 2 * y + corner / 2, y1 = y0 + 1, x0 = 2 * c + corner % 2, x1 = x0 + 1;
        else y0 = y * side / to, y1 = ((y + 1) * side + to - 1) / to, x0 = c * side / to, x1 = ((c + 1) * side + to - 1) / to;
        float *sum = tensor_row(out, i), count = (float)((y1 - y0) * (x1 - x0));
        for (int a = y0; a < y1; a++)
            for (int b = x0; b < x1; b++) {
                const float *from = tensor_row(x, i / (to * to) * side * side + a * side + b);
                for (int64_t k = 0; k < d; k++) sum[k] += from[k];
            }
        for (int64_t k = 0; k < d; k++) sum[k] /= count;
    }
    return out;
}

/* x += the same rows for each window. */
static void add_to_each(run *r, tensor x, const float *rows, int64_t n)
{
    tensor t = {(void *)(uintptr_t)rows, DT_F32, n, x.cols, x.cols};
    for (int64_t first = 0; run_ok(r) && first < x.rows; first += n) op_add_inplace(r, tensor_rows(x, first, n), t);
}

/* x [windows * nx, d] reads y [windows * ny, d], window by window (ny >= nx): queries lie in the first rows of each window; what the others give is not read. */
static tensor attend_windows(run *r, const granite4_vision *v, const attend *w, tensor x, tensor y, int nx, int ny)
{
    int windows = (int)(x.rows / nx), heads = (int)(x.cols / HEAD);
    int32_t *at = run_alloc(r, (size_t)(x.rows + 1) * sizeof *at), *starts = run_alloc(r, (size_t)(windows + 1) * sizeof *starts);
    for (int64_t i = 0; at && i < x.rows; i++) at[i] = (int32_t)(i / nx * ny + i % nx);
    for (int i = 0; starts && i <= windows; i++) starts[i] = i * ny;
    tensor q = run_zeros(r, y.rows, x.cols), k = op_linear(r, y, &w->k, w->k_bias), value = op_linear(r, y, &w->v, w->v_bias);
    op_scatter(r, q, op_linear(r, x, &w->q, w->q_bias), at);
    attention_spec a = {.heads = heads, .kv_heads = heads, .head_dim = HEAD, .scale = 0.125f};
    tensor out = op_gather(r, op_attention_segments(r, q, k, value, starts, windows, &a), at, x.rows);
    out = op_linear(r, out, &w->out, w->out_bias);
    op_add_inplace(r, out, x);
    return op_layernorm(r, out, w->norm, w->norm_bias, v->eps);
}

/* x [tiles * side * side, vision columns] -> [tiles * unit * unit, hidden] */
static tensor project(run *r, const granite4_vision *v, const projector *p, tensor x)
{
    int nq = v->query * v->query, nw = v->window * v->window, unit = unit_of(v);
    x = op_layernorm(r, x, p->norm, p->norm_bias, 1e-6f);
    tensor q = reorder(r, shrink(r, x, v->side, unit, p->corner), unit, v->query, true), context = reorder(r, x, v->side, v->window, true);
    add_to_each(r, q, p->query, nq);
    add_to_each(r, context, p->positions, nw);
    q = op_layernorm(r, q, p->start_norm, p->start_bias, v->eps);
    for (int i = 0; i < v->depth && run_ok(r); i++) {
        const qformer_layer *w = &p->qformer[i];
        q = attend_windows(r, v, &w->self, q, q, nq, nq);
        if (i % v->cross_every == 0) q = attend_windows(r, v, &w->cross, q, context, nq, nw);
        tensor h = op_linear(r, q, &w->up, w->up_bias);
        op_activate(r, h, v->act);
        h = op_linear(r, h, &w->down, w->down_bias);
        op_add_inplace(r, h, q);
        q = op_layernorm(r, h, w->norm, w->norm_bias, v->eps);
    }
    return op_linear(r, reorder(r, q, unit, v->query, false), &p->out, p->out_bias);
}

static bool encode_start(run *r, const vlm_model *m, encode_job *job)
{
    const granite4_vision *v = m->family;
    if (!image_tower_start_tiles(r, &v->base.tower, job)) return false;
    job->stages += v->n_levels;
    return true;
}

static bool encode(run *r, const vlm_model *m, encode_job *job)
{
    const granite4_vision *v = m->family;
    const image_tower *t = &v->base.tower;
    int64_t n = job->in->tokens;
    if (job->stage < t->depth) return image_tower_encode(r, t, job);
    if (job->stage == t->depth) image_tower_set_rows(r, job, run_zeros(r, (1 + v->n_levels) * n, v->base.text.spec.hidden));
    int level = job->stage++ - t->depth;
    const int64_t *size = media_input_find(job->in, "image_sizes")->data;
    anyres_field f = anyres_field_of((int)size[0], (int)size[1], unit_of(v), job->in->grid[1], job->in->grid[2]);
    tensor x = project(r, v, &v->projector[level], image_tower_kept(r, t, job, v->projector[level].layer));
    if (run_ok(r)) anyres_pack(r, job->in, &f, x, unit_of(v), v->newline, tensor_rows(job->rows, (1 + level) * n, n));
    return run_ok(r);
}

static const char *const types[] = {"granite4_vision", NULL};

const vlm_arch vlm_arch_granite4_vision = {
    .name = "granite4_vision",
    .title = "Granite 4 Vision",
    .model_types = types,
    .rules = &anyres_rules,
    .takes = TAKES_IMAGE,
    .configure = configure,
    .bind = bind,
    .process = process,
    .encode = encode,
    .task = TASK_GENERATE, .placeholder = tower_lm_placeholder, .media_token = tower_lm_media_token, .expand = tower_lm_expand,
    .encode_start = encode_start, .forward = tower_lm_forward,
};
