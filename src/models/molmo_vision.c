/* molmo_vision.c - see molmo_vision.h. */
#include "models/molmo_vision.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"

/* ---- crops -------------------------------------------------------------------------------------------------------- */

bool molmo_crops_config(molmo_crops *c, config *p, const char *where, int side, int patch, int most)
{
    char key[96];
    int64_t margin[2] = {4, 4};
    snprintf(key, sizeof key, "%s.overlap_margins", where);
    if (config_has(p, key) && config_ints(p, key, margin, 2) != 2) return config_fail(p, VLM_FORMAT, "%s: two numbers were expected", key);
    snprintf(key, sizeof key, "%s.max_crops", where);
    *c = (molmo_crops){.side = side, .patch = patch, .most = (int)config_int(p, key, most, 1, 64)};
    if (p->failed) return false;
    if (margin[0] < 0 || margin[1] < 0 || margin[0] + margin[1] >= side / patch)
        return config_fail(p, VLM_FORMAT, "%s.overlap_margins leave nothing of %d patches", where, side / patch);
    c->left = (int)margin[0], c->right = (int)margin[1];
    c->window = (side / patch - c->left - c->right) * patch;
    return true;
}

/* Of all tilings, by number and then height, the one that enlarges least; when all shrink, the one that shrinks least. */
void molmo_lay_out(const molmo_crops *c, int most, int height, int width, molmo_layout *l)
{
    float margin = (float)((c->left + c->right) * c->patch), h = (float)height - margin, w = (float)width - margin, best = 0;
    bool enlarges = false;
    most = most < 1 ? 1 : most > 64 ? 64 : most;
    l->down = l->across = 1;
    for (int n = 1, first = true; n <= most; n++)
        for (int down = 1; down <= n; down++) {
            if (n % down) continue;
            float scale = fminf((float)(down * c->window) / h, (float)(n / down * c->window) / w);
            bool larger = scale >= 1;
            if (!first && (larger == enlarges ? larger ? scale >= best : scale <= best : !larger)) continue;
            first = false;
            best = scale;
            enlarges = larger;
            l->down = down;
            l->across = n / down;
        }
    l->rows = (l->down * c->window) / c->patch + c->left + c->right;
    l->columns = (l->across * c->window) / c->patch + c->left + c->right;
}

void molmo_patches(const picture_norm *n, const image *canvas, int y, int x, int side, int patch, float *out)
{
    for (int row = y; row < y + side; row += patch)
        for (int column = x; column < x + side; column += patch)
            for (int i = 0; i < patch; i++) {
                const uint8_t *p = canvas->rgb + ((size_t)(row + i) * (size_t)canvas->width + (size_t)column) * 3;
                for (int k = 0; k < 3 * patch; k++) *out++ = n->value[k % 3][p[k]];
            }
}

bool molmo_squeezed(const picture_norm *n, const image *img, int side, int patch, float *out, vlm_error *error)
{
    image small;
    if (!picture_resize(n, img, side, side, &small, error)) return false;
    molmo_patches(n, &small, 0, 0, side, patch, out);
    image_free(&small);
    return true;
}

bool molmo_cut(const molmo_crops *c, const picture_norm *n, const image *img, const molmo_layout *l, float *out, vlm_error *error)
{
    image canvas;
    int64_t each = (int64_t)3 * c->side * c->side;
    if (!picture_resize(n, img, l->columns * c->patch, l->rows * c->patch, &canvas, error)) return false;
    for (int i = 0; i < l->down * l->across; i++) molmo_patches(n, &canvas, i / l->across * c->window, i % l->across * c->window, c->side, c->patch, out + i * each);
    image_free(&canvas);
    return true;
}

/* ---- what is pooled together ---------------------------------------------------------------------------------------- */

/* grid [rows][columns] in windows of height x width; what is missing to whole windows is spread to both sides, more behind. */
static void pool_grid(const int64_t *grid, int rows, int columns, int height, int width, int64_t *out)
{
    int down = (rows + height - 1) / height, across = (columns + width - 1) / width, top = (down * height - rows) / 2, left = (across * width - columns) / 2;
    for (int i = 0; i < down * across; i++)
        for (int k = 0; k < height * width; k++) {
            int y = i / across * height + k / width - top, x = i % across * width + k % width - left;
            *out++ = y >= 0 && y < rows && x >= 0 && x < columns ? grid[(int64_t)y * columns + x] : -1;
        }
}

void molmo_pool_whole(int across, int height, int width, int64_t first, int64_t *places)
{
    int down = (across + height - 1) / height, wide = (across + width - 1) / width, top = (down * height - across) / 2, left = (wide * width - across) / 2;
    for (int i = 0; i < down * wide; i++)
        for (int k = 0; k < height * width; k++) {
            int y = i / wide * height + k / width - top, x = i % wide * width + k % width - left;
            *places++ = y >= 0 && y < across && x >= 0 && x < across ? first + (int64_t)y * across + x : -1;
        }
}

/* Which of `n` crops shows line i of the canvas for good, and as which of its own lines. */
static int shown_by(const molmo_crops *c, int n, int i, int *line)
{
    int step = c->window / c->patch, crop = i < c->left ? 0 : (i - c->left) / step;
    if (crop > n - 1) crop = n - 1;
    *line = i - crop * step;
    return crop;
}

bool molmo_pool_canvas(const molmo_crops *c, const molmo_layout *l, int height, int width, int64_t *places, vlm_error *error)
{
    int across = c->side / c->patch;
    int64_t *grid = MEM_ARRAY((size_t)l->rows * (size_t)l->columns, int64_t);
    if (!grid) return err_memory(error, (size_t)l->rows * (size_t)l->columns * sizeof *grid);
    for (int y = 0; y < l->rows; y++)
        for (int x = 0; x < l->columns; x++) {
            int row, column, down = shown_by(c, l->down, y, &row), right = shown_by(c, l->across, x, &column);
            grid[(int64_t)y * l->columns + x] = ((int64_t)(1 + down * l->across + right) * across + row) * across + column;
        }
    pool_grid(grid, l->rows, l->columns, height, width, places);
    mem_free(grid);
    return true;
}

/* ---- connector ---------------------------------------------------------------------------------------------------- */

void molmo_pooling_bind(molmo_pooling *w, binder *b, int64_t outputs)
{
    int64_t q = (int64_t)w->attention.heads * w->attention.head_dim, kv = (int64_t)w->attention.kv_heads * w->attention.head_dim;
    struct { weight *w; const float **bias; int64_t rows, cols; const char *name; } parts[] = {
        {&w->q, &w->q_bias, q, w->inputs, "image_pooling_2d.wq"}, {&w->k, &w->k_bias, kv, w->inputs, "image_pooling_2d.wk"},
        {&w->v, &w->v_bias, kv, w->inputs, "image_pooling_2d.wv"}, {&w->o, &w->o_bias, w->hidden, q, "image_pooling_2d.wo"},
        {&w->gate, &w->gate_bias, w->ffn, w->hidden, "image_projector.w1"}, {&w->up, &w->up_bias, w->ffn, w->hidden, "image_projector.w3"},
        {&w->down, NULL, outputs, w->ffn, "image_projector.w2"}};
    if (w->attention.kv_heads < 1 || w->attention.heads % w->attention.kv_heads) {
        bind_fail(b, VLM_FORMAT, "%d heads of queries do not share %d of keys", w->attention.heads, w->attention.kv_heads);
        return;
    }
    w->attention.scale = (float)pow(w->attention.head_dim, -0.5);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        bind_linear(b, parts[i].w, parts[i].rows, parts[i].cols, "%s", parts[i].name);
        if (parts[i].bias) bind_vector_optional(b, parts[i].bias, parts[i].rows, "%s.bias", parts[i].name);
    }
}

/* A token is a segment: its features are keys and values, and as many queries, all the mean; one of the answers is taken. */
tensor molmo_pool(run *r, const molmo_pooling *w, tensor x, const int64_t *places, int tokens, int size)
{
    size_t most = (size_t)tokens * (size_t)size + 1;
    int32_t *index = run_alloc(r, most * sizeof *index), *owner = run_alloc(r, most * sizeof *owner), *starts = run_alloc(r, (size_t)(tokens + 1) * sizeof *starts);
    tensor share = run_tensor(r, tokens, 1);
    if (!run_ok(r)) return x;
    int n = 0;
    for (int i = 0; i < tokens; i++) {
        starts[i] = n;
        for (int k = 0; k < size; k++) {
            int64_t at = places[(int64_t)i * size + k];
            if (at >= x.rows) return run_fail(r, VLM_INTERNAL, "feature %lld of %lld", (long long)at, (long long)x.rows), x;
            if (at >= 0) index[n] = (int32_t)at, owner[n++] = i;
        }
        *tensor_row(share, i) = 1 / (float)(n > starts[i] ? n - starts[i] : 1);
    }
    starts[tokens] = n;
    tensor seen = op_gather(r, x, index, n), mean = run_zeros(r, tokens, x.cols), kv[2];
    op_scatter_add(r, mean, seen, owner, 1);
    op_scale_rows(r, mean, share);
    tensor q = op_gather(r, op_linear(r, mean, &w->q, w->q_bias), owner, n);
    op_linear_group(r, seen, 2, kv, (const weight *[]){&w->k, &w->v}, (const float *[]){w->k_bias, w->v_bias});
    if (!run_ok(r)) return x;
    x = op_gather(r, op_attention_segments(r, q, kv[0], kv[1], starts, tokens, &w->attention), starts, tokens);
    x = op_linear(r, x, &w->o, w->o_bias);
    op_linear_group(r, x, 2, kv, (const weight *[]){&w->gate, &w->up}, (const float *[]){w->gate_bias, w->up_bias});
    return op_linear(r, op_glu(r, kv[0], kv[1], w->act), &w->down, NULL);
}

void molmo_add_embedding(run *r, const decoder *d, int32_t id, tensor x)
{
    int32_t *at = run_alloc(r, (size_t)(x.rows + 1) * sizeof *at), first = id >= d->spec.vocab ? d->spec.vocab : 0;
    for (int64_t i = 0; at && i < x.rows; i++) at[i] = id - first;
    if (run_ok(r)) op_add_inplace(r, x, op_embed(r, first ? &d->embed_more : &d->embed, at, x.rows, d->spec.embed_scale));
}

bool molmo_encode_start(run *r, const image_tower *t, encode_job *job, const processed *p)
{
    if (!p || !p->data) return run_fail(r, VLM_INTERNAL, "no pixels to encode");
    int n = (int)p->dim[0];
    tower_image *images = run_alloc(r, (size_t)n * sizeof *images);
    for (int i = 0; images && i < n; i++) images[i] = (tower_image){(const float *)p->data + i * p->dim[1] * p->dim[2], t->image, t->image, NULL};
    return images && image_tower_start(r, t, job, images, n);
}
