/* sam_tower.c - see sam_tower.h. */
#include "models/sam_tower.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "blocks/decoder.h"
#include "blocks/resample.h"

enum { MOST_GRID = 256 };

const sam_names sam_names_tf = {"layers", "layer_norm1", "layer_norm2", "patch_embed.projection", "neck.conv1", "neck.layer_norm1", "neck.conv2", "neck.layer_norm2"};
const sam_names sam_names_hub = {"blocks", "norm1", "norm2", "patch_embed.proj", "neck.0", "neck.1", "neck.2", "neck.3"};

/* ---- configuration and weights -------------------------------------------------------------------------------------- */

static const char *at(char *to, size_t size, const char *where, const char *key, const char *also)
{
    snprintf(to, size, "%s%s|%s%s", where, key, where, also ? also : key);
    return to;
}

static int read_int(config *c, const char *where, const char *key, const char *also, int fallback, int most)
{
    char path[160];
    return (int)config_int(c, at(path, sizeof path, where, key, also), fallback, 1, most);
}

static bool read_bool(config *c, const char *where, const char *key)
{
    char path[160];
    return config_bool(c, at(path, sizeof path, where, key, NULL), true);
}

bool sam_tower_config(sam_tower *t, config *c, const char *where)
{
    char path[160];
    int64_t whole[SAM_MOST_LAYERS] = {2, 5, 8, 11};
    t->hidden = read_int(c, where, "hidden_size", "width", 768, 1 << 16);
    t->heads = read_int(c, where, "num_attention_heads", "heads", 12, 1 << 10);
    t->layers = read_int(c, where, "num_hidden_layers", "layers", 12, SAM_MOST_LAYERS);
    t->patch = read_int(c, where, "patch_size", NULL, 16, 256);
    t->window = read_int(c, where, "window_size", NULL, 14, 256);
    t->neck = read_int(c, where, "output_channels", "prompt_embed_dim", 256, 1 << 16);
    int pixels = read_int(c, where, "image_size", NULL, 1024, 1 << 15);
    double ratio = config_number(c, at(path, sizeof path, where, "mlp_ratio", NULL), 4);
    if (c->failed || !(ratio > 0 && ratio < 1e4)) return config_fail(c, VLM_FORMAT, "%smlp_ratio must be positive", where);
    t->ffn = read_int(c, where, "mlp_dim", NULL, (int)(t->hidden * ratio) > 0 ? (int)(t->hidden * ratio) : 1, 1 << 24);
    t->act = config_activation(c, at(path, sizeof path, where, "hidden_act", NULL), "gelu");
    t->eps = (float)config_number(c, at(path, sizeof path, where, "layer_norm_eps", NULL), 1e-6);
    t->qkv_bias = read_bool(c, where, "qkv_bias");
    t->table_used = read_bool(c, where, "use_abs_pos");
    t->relative = read_bool(c, where, "use_rel_pos");
    at(path, sizeof path, where, "global_attn_indexes", NULL);
    int n = config_has(c, path) ? config_ints(c, path, whole, SAM_MOST_LAYERS) : 4;
    if (c->failed) return false;
    t->side = pixels / t->patch;
    t->head_dim = t->hidden / t->heads;
    if (t->hidden % t->heads || t->side < 1 || t->side > MOST_GRID)
        return config_fail(c, VLM_FORMAT, "%s: no heads of %d columns / %d, or pictures of %d / %d", where, t->hidden, t->heads, pixels, t->patch);
    for (int i = 0; i < n; i++)
        if (whole[i] >= 0 && whole[i] < t->layers) t->layer[whole[i]].whole = true;
    return true;
}

static void bind_layer(const sam_tower *t, sam_layer *w, binder *b, const sam_names *n, int i)
{
    int64_t d = t->hidden, distances = 2 * (w->whole ? t->side : t->window) - 1;
    const char *l = n->layers;
    bind_vector(b, &w->norm1, d, "%s.%d.%s.weight", l, i, n->norm1);
    bind_vector(b, &w->norm1_bias, d, "%s.%d.%s.bias", l, i, n->norm1);
    bind_vector(b, &w->norm2, d, "%s.%d.%s.weight", l, i, n->norm2);
    bind_vector(b, &w->norm2_bias, d, "%s.%d.%s.bias", l, i, n->norm2);
    bind_linear(b, &w->qkv, 3 * d, d, "%s.%d.attn.qkv", l, i);
    if (t->qkv_bias) bind_vector(b, &w->qkv_bias, 3 * d, "%s.%d.attn.qkv.bias", l, i);
    bind_linear(b, &w->proj, d, d, "%s.%d.attn.proj", l, i);
    bind_vector(b, &w->proj_bias, d, "%s.%d.attn.proj.bias", l, i);
    if (t->relative) bind_vector(b, &w->rel_rows, distances * t->head_dim, "%s.%d.attn.rel_pos_h", l, i);
    if (t->relative) bind_vector(b, &w->rel_columns, distances * t->head_dim, "%s.%d.attn.rel_pos_w", l, i);
    bind_linear(b, &w->up, t->ffn, d, "%s.%d.mlp.lin1", l, i);
    bind_vector(b, &w->up_bias, t->ffn, "%s.%d.mlp.lin1.bias", l, i);
    bind_linear(b, &w->down, d, t->ffn, "%s.%d.mlp.lin2", l, i);
    bind_vector(b, &w->down_bias, d, "%s.%d.mlp.lin2.bias", l, i);
}

void sam_tower_bind(sam_tower *t, binder *b, const sam_names *n)
{
    bind_conv3d(b, &t->embed, t->hidden, 3, 1, t->patch, t->patch, "%s", n->embed);
    bind_vector(b, &t->embed_bias, t->hidden, "%s.bias", n->embed);
    if (t->table_used) bind_vector(b, &t->table, (int64_t)t->side * t->side * t->hidden, "pos_embed");
    for (int i = 0; i < t->layers && !b->failed; i++) bind_layer(t, &t->layer[i], b, n, i);
    bind_conv2d(b, &t->neck1, t->neck, t->hidden, 1, 1, "%s", n->neck1);
    bind_vector(b, &t->neck_norm1, t->neck, "%s.weight", n->neck_norm1);
    bind_vector(b, &t->neck_bias1, t->neck, "%s.bias", n->neck_norm1);
    bind_conv2d(b, &t->neck2, t->neck, t->neck, 3, 3, "%s", n->neck2);
    bind_vector(b, &t->neck_norm2, t->neck, "%s.weight", n->neck_norm2);
    bind_vector(b, &t->neck_bias2, t->neck, "%s.bias", n->neck_norm2);
}

void sam_tower_bind_down(sam_tower *t, binder *b, const char *conv1, const char *conv2)
{
    bind_conv2d(b, &t->conv[0], t->down[0], t->neck, 3, 3, "%s", conv1);
    bind_conv2d(b, &t->conv[1], t->down[1], t->down[0], 3, 3, "%s", conv2);
}

/* ---- encoder ---------------------------------------------------------------------------------------------------------- */

typedef struct sam_job { sam_picture *picture; int32_t *starts; int n; } sam_job;

int sam_tower_side(const sam_tower *t, int side) { return ((side / t->patch + 1) / 2 + 1) / 2; }

bool sam_tower_start(run *r, const sam_tower *t, encode_job *job, const sam_picture *pictures, int n)
{
    sam_job *j = arena_alloc(job->memory, sizeof *j);
    if (j)
        *j = (sam_job){arena_alloc(job->memory, (size_t)n * sizeof *j->picture), arena_alloc(job->memory, (size_t)(n + 1) * sizeof *j->starts), n};
    if (!j || !j->picture || !j->starts) return run_fail(r, VLM_MEMORY, "out of memory");
    for (int i = 0; i < n; i++) {
        int grid = pictures[i].side / t->patch;
        if (grid < 1 || grid > MOST_GRID || pictures[i].side % t->patch)
            return run_fail(r, VLM_INTERNAL, "a picture of %d pixels does not fit the vision tower", pictures[i].side);
        j->picture[i] = pictures[i];
        j->starts[i + 1] = j->starts[i] + grid * grid;
    }
    int64_t rows = j->starts[n];
    size_t bytes;
    job->x = (tensor){NULL, DT_F32, rows, t->hidden, t->hidden};
    if (!mem_mul((size_t)rows * sizeof(float), (size_t)t->hidden, &bytes) || !(job->x.data = arena_alloc_raw(job->memory, bytes)))
        return run_fail(r, VLM_MEMORY, "out of memory");
    job->family = j;
    job->stage = 0;
    job->stages = t->layers;
    job->cost = 2 * (double)rows * t->hidden * (4.0 * t->hidden + 2.0 * t->ffn) + 12 * (double)rows * t->window * t->window * t->hidden;
    return true;
}

static void embed(run *r, const sam_tower *t, const sam_picture *p, tensor x)
{
    int n = t->patch, grid = p->side / n;
    tensor pixels = run_tensor(r, x.rows, t->embed.cols);
    for (int64_t i = 0; run_ok(r) && i < x.rows; i++) {
        float *out = tensor_row(pixels, i);
        const float *corner = p->pixels + (int64_t)(i / grid) * n * p->side + i % grid * n;
        for (int c = 0; c < 3; c++)
            for (int y = 0; y < n; y++, out += n) memcpy(out, corner + ((int64_t)c * p->side + y) * p->side, (size_t)n * sizeof *out);
    }
    op_linear_to(r, x, pixels, &t->embed, t->embed_bias);
    if (!t->table_used) return;
    tensor table = {(void *)(uintptr_t)t->table, DT_F32, x.rows, x.cols, x.cols};
    op_add_inplace(r, x, grid == t->side ? table : resample_table(r, t->table, t->side, x.cols, grid, grid, true));
}

/* Patches of a picture in the order of windows of size x size; -1: filled up. Returns how many windows. */
static int windows(int grid, int size, int32_t *order)
{
    int across = (grid + size - 1) / size;
    for (int w = 0; w < across * across; w++)
        for (int i = 0; i < size * size; i++) {
            int y = w / across * size + i / size, x = w % across * size + i % size;
            *order++ = y < grid && x < grid ? y * grid + x : -1;
        }
    return across * across;
}

/* What a table of distances says to each query: out[row][head][k] = q . rel[c - k + size - 1], c the query's row (or column), k that of a key. q [n * size * size,
 * heads * head_dim] in windows. With the table turned round, the distances of one c are `size` rows that follow each other: a product. */
static tensor distances(run *r, const sam_tower *t, const float *rel, int have, tensor q, int size, bool columns)
{
    int64_t heads = t->heads, d = t->head_dim, n = q.rows / (size * size), each = n * size;
    int longest = 2 * size - 1;
    tensor table = {(void *)(uintptr_t)rel, DT_F32, longest, d, d};
    if (have != longest) table = resample_line(r, rel, have, d, longest);
    int32_t *order = run_alloc(r, (size_t)(q.rows + 1) * sizeof *order), *back = run_alloc(r, (size_t)longest * sizeof *back);
    if (!run_ok(r)) return q;
    for (int i = 0; i < longest; i++) back[i] = longest - 1 - i;
    for (int64_t i = 0; i < q.rows; i++) {                           /* all queries of row (column) 0, then of 1 ... */
        int64_t c = i / each, w = i % each / size, other = i % size;
        order[i] = (int32_t)(w * size * size + (columns ? other * size + c : c * size + other));
    }
    table = op_gather(r, table, back, longest);
    q = op_gather(r, q, order, q.rows);
    tensor sorted = run_tensor(r, q.rows * heads, size), out = run_tensor(r, q.rows, heads * size);
    for (int c = 0; run_ok(r) && c < size; c++) {
        weight w = {.format = WF_F32, .rows = size, .cols = d, .data = tensor_row(table, size - 1 - c), .name = "relative positions"};
        tensor from = {tensor_row(q, c * each), DT_F32, each * heads, d, d};
        op_linear_to(r, tensor_rows(sorted, c * each * heads, each * heads), from, &w, NULL);
    }
    op_scatter(r, out, (tensor){sorted.data, DT_F32, q.rows, heads * size, heads * size}, order);
    return out;
}

/* q, k or v [n, heads * head_dim] with `more` columns behind each head's: zeros. */
static tensor widened(run *r, const sam_tower *t, tensor x, int more)
{
    int64_t d = t->head_dim;
    tensor out = run_zeros(r, x.rows, (d + more) * t->heads);
    for (int64_t i = 0; run_ok(r) && i < x.rows; i++)
        for (int h = 0; h < t->heads; h++) memcpy(tensor_row(out, i) + h * (d + more), tensor_row(x, i) + h * d, (size_t)d * sizeof(float));
    return out;
}

/* x [n * size * size, 3 * hidden]: q, k, v of n windows -> [.., hidden] */
static tensor attend(run *r, const sam_tower *t, const sam_layer *w, tensor x, int size)
{
    int64_t d = t->head_dim, hidden = t->hidden;
    int n = (int)(x.rows / (size * size)), have = 2 * (w->whole ? t->side : t->window) - 1, more = t->relative ? 2 * size : 0;
    int32_t *starts = run_alloc(r, (size_t)(n + 1) * sizeof *starts), *all = run_alloc(r, (size_t)(x.rows + 1) * sizeof *all);
    if (!run_ok(r)) return x;
    for (int i = 0; i <= n; i++) starts[i] = i * size * size;
    for (int64_t i = 0; i < x.rows; i++) all[i] = (int32_t)i;
    attention_spec a = {.heads = t->heads, .kv_heads = t->heads, .head_dim = (int)d, .scale = (float)pow((double)d, -0.5)};
    if (!more)
        return op_attention_segments(r, tensor_cols(x, 0, hidden), tensor_cols(x, hidden, hidden), tensor_cols(x, 2 * hidden, hidden), starts, n, &a);
    tensor q = op_gather(r, tensor_cols(x, 0, hidden), all, x.rows);
    tensor rows = distances(r, t, w->rel_rows, have, q, size, false), columns = distances(r, t, w->rel_columns, have, q, size, true);
    op_scale(r, q, a.scale, NULL);
    q = widened(r, t, q, more);
    tensor k = widened(r, t, tensor_cols(x, hidden, hidden), more), v = widened(r, t, tensor_cols(x, 2 * hidden, hidden), more);
    for (int64_t i = 0; run_ok(r) && i < x.rows; i++)
        for (int h = 0; h < t->heads; h++) {
            float *qi = tensor_row(q, i) + h * (d + more) + d, *ki = tensor_row(k, i) + h * (d + more) + d;
            memcpy(qi, tensor_row(rows, i) + h * size, (size_t)size * sizeof(float));
            memcpy(qi + size, tensor_row(columns, i) + h * size, (size_t)size * sizeof(float));
            ki[i / size % size] = ki[size + i % size] = 1;
        }
    a.head_dim = (int)d + more;
    a.scale = 1;
    tensor out = op_attention_segments(r, q, k, v, starts, n, &a), narrow = run_tensor(r, x.rows, hidden);
    for (int64_t i = 0; run_ok(r) && i < x.rows; i++)
        for (int h = 0; h < t->heads; h++) memcpy(tensor_row(narrow, i) + h * d, tensor_row(out, i) + h * (d + more), (size_t)d * sizeof(float));
    return narrow;
}

static void layer(run *r, const sam_tower *t, const sam_layer *w, tensor x, int grid)
{
    int size = w->whole ? grid : t->window, across = (grid + size - 1) / size;
    int64_t filled = (int64_t)across * across * size * size;
    int32_t *order = run_alloc(r, (size_t)filled * sizeof *order);
    if (!run_ok(r)) return;
    windows(grid, size, order);
    tensor h = op_gather(r, op_layernorm(r, x, w->norm1, w->norm1_bias, t->eps), order, filled);
    h = attend(r, t, w, op_linear(r, h, &w->qkv, w->qkv_bias), size);
    tensor y = run_tensor(r, x.rows, x.cols);
    op_scatter(r, y, h, order);
    op_add_inplace(r, x, op_linear(r, y, &w->proj, w->proj_bias));
    h = op_linear(r, op_layernorm(r, x, w->norm2, w->norm2_bias, t->eps), &w->up, w->up_bias);
    op_activate(r, h, t->act);
    op_add_inplace(r, x, op_linear(r, h, &w->down, w->down_bias));
}

bool sam_tower_encode(run *r, const sam_tower *t, encode_job *job)
{
    const sam_job *j = job->family;
    int stage = job->stage++;
    for (int i = 0; i < j->n && run_ok(r); i++) {
        arena_mark mark = arena_get_mark(r->scratch);
        tensor x = tensor_rows(job->x, j->starts[i], j->starts[i + 1] - j->starts[i]);
        if (!stage) embed(r, t, &j->picture[i], x);
        layer(r, t, &t->layer[stage], x, j->picture[i].side / t->patch);
        arena_release(r->scratch, mark);
    }
    TAP(r, "vit.hidden", stage, job->x);
    return run_ok(r);
}

tensor sam_tower_features(run *r, const sam_tower *t, const encode_job *job, int i)
{
    const sam_job *j = job->family;
    int h = j->picture[i].side / t->patch, w = h;
    const float eps = 1e-6f;
    tensor x = tensor_rows(job->x, j->starts[i], j->starts[i + 1] - j->starts[i]);
    x = op_layernorm(r, op_conv2d(r, x, h, w, &t->neck1, NULL, 1, 1, 1, 0, &h, &w), t->neck_norm1, t->neck_bias1, eps);
    x = op_layernorm(r, op_conv2d(r, x, h, w, &t->neck2, NULL, 3, 3, 1, 1, &h, &w), t->neck_norm2, t->neck_bias2, eps);
    x = op_conv2d(r, x, h, w, &t->conv[0], NULL, 3, 3, 2, 1, &h, &w);
    return op_conv2d(r, x, h, w, &t->conv[1], NULL, 3, 3, 2, 1, &h, &w);
}
