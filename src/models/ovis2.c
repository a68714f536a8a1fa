/* ovis2.c - Ovis2: pictures as words of a visual vocabulary.  https://arxiv.org/abs/2405.20797
 *
 *   picture -> the grid of fewest tiles that shows 90 % of it, cut; before them the whole picture squeezed into a tile (none of this for one tile alone)
 *           -> AIMv2 -> stride x stride features side by side -> linear, norm, softmax over the visual vocabulary
 *           -> the vocabulary's embeddings, averaged by that -> rows that replace <IMG_ATOM>
 *   prompt: <IMG_START> whole <IMG_GRID> tile <IMG_COL> tile <IMG_ROW> tile ... <IMG_END>; these marks are rows of the same table, its last ones
 *   -> Qwen2, Gemma 2 ...
 *
 * Bites: marks are replaced like media tokens (vlm_arch.also_media), in a prompt without pictures they stay what they are. The reference takes the grid's
 * rows for columns: wide pictures are cut into rows. Followed here. */
#include "models/tower_lm.h"

#include <math.h>
#include <string.h>

#include "base/err.h"

enum { MARKS = 5, START = 0, GRID, COLUMN, ROW, END };

typedef struct ovis2 {
    tower_lm base;
    tile_grid grid;
    bool covering;                 /* the grid that covers most; else the nearest shape */
    int stride, tokens;            /* of a tile */
    int words;                     /* of the visual vocabulary, marks left out */
    bool hard;                     /* the likeliest word alone */
    int64_t mark[MARKS];           /* token ids */
    weight head, table;            /* [words, merged]; [hidden, words + marks]: transposed */
    weight rows;                   /* the table as it lies */
    const float *norm, *norm_bias;
} ovis2;

static bool configure_marks(ovis2 *v, config *c)
{
    for (int i = 0; i < MARKS; i++) v->mark[i] = 151666 + i;
    int n = config_has(c, "visual_indicator_token_ids") ? config_ints(c, "visual_indicator_token_ids", v->mark, MARKS) : MARKS;
    if (!c->failed && (n != MARKS || config_int(c, "vision_config.num_visual_indicator_tokens", MARKS, 0, 1 << 20) != MARKS))
        return config_fail(c, VLM_UNSUPPORTED, "visual_indicator_token_ids: %d of them were expected", MARKS);
    return !c->failed;
}

static bool configure(vlm_model *m, config *c)
{
    ovis2 *v = m->family = arena_alloc(&m->memory, sizeof *v);
    if (!v) return config_fail(c, VLM_MEMORY, "out of memory");
    config *p = m->processor;
    if (!config_has(c, "image_token_id")) json_object_set_new(c->root, "image_token_id", json_integer(151665));
    if (!config_has(c, "vision_config.model_type"))
        json_object_set_new(json_object_get(c->root, "vision_config"), "model_type", json_string("ovis2_vision"));
    if (!tower_lm_config(&v->base, m, c) || !image_tower_config(&v->base.tower, &m->memory, c, -1, true) || !configure_marks(v, c))
        return false;
    const char *how = config_string(c, "vision_config.tokenize_function", "softmax");
    int side = v->base.tower.image / v->base.tower.patch;
    v->stride = (int)config_int(c, "vision_config.hidden_stride", 1, 1, side);
    v->words = (int)config_int(c, "vision_config.vocab_size", 16384, MARKS + 1, 1 << 24) - MARKS;
    v->hard = !strcmp(how, "st_argmax");
    v->covering = config_bool(p, "image_processor.use_covering_area_grid", true);
    tile_grid_config(&v->grid, p);
    v->grid.tiled = config_bool(p, "image_processor.crop_to_patches", false);
    if (c->failed || p->failed) return false;
    if (!v->hard && strcmp(how, "softmax"))
        return config_fail(c, VLM_UNSUPPORTED, "vision_config.tokenize_function \"%.30s\"; softmax and st_argmax are known", how);
    int across = (side + v->stride - 1) / v->stride, size = v->base.tower.image;
    v->tokens = across * across;
    if (config_int(p, "image_seq_length", v->tokens, 1, 1 << 20) != v->tokens)
        return config_fail(c, VLM_FORMAT, "the processor's image_seq_length is not %d, the features of a tile", v->tokens);
    if (config_int(p, "image_processor.size.height", size, 1, 1 << 15) != size || config_int(p, "image_processor.size.width", size, 1, 1 << 15) != size)
        return config_fail(c, VLM_FORMAT, "the processor's tiles are not the vision tower's, %d x %d", size, size);
    return picture_config(&v->base.norm, p, "image_processor", picture_clip, RESIZE_BICUBIC) && !c->failed;
}

static bool bind(vlm_model *m, binder *b)
{
    static const char *const tower[] = {"model.vision_tower.transformer.", "vision_tower.transformer.", NULL};
    ovis2 *v = m->family;
    int64_t d = v->base.text.spec.hidden;
    if (decoder_bind(&v->base.text, b)) image_tower_bind(&v->base.tower, b, tower);
    bind_prefix(b, "model.", "", NULL);
    bind_linear(b, &v->head, v->words, (int64_t)v->base.tower.vit.hidden * v->stride * v->stride, "vision_tower.head_linear");
    bind_vector(b, &v->norm, v->words, "vision_tower.head_norm.weight");
    bind_vector(b, &v->norm_bias, v->words, "vision_tower.head_norm.bias");
    bind_linear_transposed(b, &v->table, d, v->words + MARKS, "visual_embeddings_table.weight");
    bind_table(b, &v->rows, v->words + MARKS, d, "visual_embeddings_table");
    return !b->failed;
}

/* ---- processor ---------------------------------------------------------------------------------------------------- */

/* Of a tile's share of the picture, what can be shown in a tile: the longer side is shrunk to `side`. */
static double shown(int height, int width, int side)
{
    double w = fmax(width, height), h = fmin(width, height);
    if (w > side) h = h / w * side, w = side;
    return w * h;
}

static double covering(int height, int width, int down, int across, int side)
{
    double sum = 0;
    for (int i = 0; i < down * across; i++) {
        int row = i / across, column = i % across, h = height / down, w = width / across;
        sum += shown(row == down - 1 ? height - row * h : h, column == across - 1 ? width - column * w : w, side);
    }
    return sum / ((double)height * width);
}

/* The fewest tiles that show more than 90 %, else those that show most. */
static void choose_covering(const image *img, int side, int most, int *rows, int *columns)
{
    double best = -1;
    int best_n = 0;
    for (int n = 1; n <= most; n++)
        for (int first = 1; first <= n; first++) {
            if (n % first) continue;
            double part = covering(img->height, img->width, first, n / first, side);
            bool enough = part > 0.9;
            if (best > 0.9 ? !enough || n > best_n || part <= best : !enough && part <= best) continue;
            best = part, best_n = n;
            *columns = first;                                        /* as the reference has it */
            *rows = n / first;
        }
}

static bool process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    const ovis2 *v = m->family;
    const image *img = &item->image;
    if (!tower_lm_only_images(m, item, error)) return false;
    const json_t *asked = options ? json_object_get(options, "crop_to_patches") : NULL;
    int side = v->base.tower.image, rows = 1, columns = 1, most = (int)fmin(fmax(media_option(item->part, options, "max_patches", v->grid.most), 1), 256);
    if ((json_is_boolean(asked) ? json_is_true(asked) : v->grid.tiled) && most > 1) {
        if (v->covering) choose_covering(img, side, most, &rows, &columns);
        else tile_grid_choose(&v->grid, img->height, img->width, side, most, &rows, &columns);
    }
    int n = rows * columns, whole = n > 1;
    out->kind = item->kind;
    out->grid[0] = 1, out->grid[1] = rows, out->grid[2] = columns;
    out->tokens = (n + whole) * v->tokens + 3 + (whole ? n - 1 : 0);
    if (!tower_lm_fits(m, item, out->tokens, error)) return false;
    processed *p = media_input_add(out, "pixel_values", DT_F32, 4, (const int64_t[]){n + whole, 3, side, side});
    if (!p) return err_memory(error, (size_t)(n + whole) * 3 * (size_t)side * (size_t)side * sizeof(float));
    float *pixels = p->data;
    if (whole && !picture_resized(&v->base.norm, img, side, side, 0, 0, side, side, pixels, error)) return false;
    image field;
    if (!image_resize(img, columns * side, rows * side, v->base.norm.filter, &field, error)) return false;
    for (int i = 0; i < n; i++)
        picture_window(&v->base.norm, &field, i % columns * side, i / columns * side, side, side, pixels + (int64_t)(i + whole) * 3 * side * side);
    image_free(&field);
    return true;
}

/* ---- prompt ------------------------------------------------------------------------------------------------------- */

/* The mark that comes behind tile i (0: the whole picture) of 1 + n. */
static int mark_behind(const media_input *in, int i)
{
    int rows = in->grid[1], columns = in->grid[2], n = rows * columns > 1 ? rows * columns : 0;
    return !i ? GRID : i == n ? END : i % columns ? COLUMN : ROW;
}

static int tiles_of(const media_input *in) { return in->grid[1] * in->grid[2] > 1 ? in->grid[1] * in->grid[2] + 1 : 1; }

static const char *placeholder(const vlm_model *m, media_kind kind) { return kind == MEDIA_IMAGE && (m->takes & TAKES_IMAGE) ? "<image>" : NULL; }

static bool also_media(const vlm_model *m, int32_t id)
{
    const ovis2 *v = m->family;
    for (int i = 0; i < MARKS; i++)
        if (v->mark[i] == id) return true;
    return false;
}

static void add_token(const vlm_model *m, int64_t id, buf *text)
{
    const char *token = m->tok ? tokenizer_token(m->tok, (int32_t)id) : NULL;
    if (token) buf_adds(text, token);
}

static bool expand(const vlm_model *m, const media_input *in, buf *text, vlm_error *error)
{
    const ovis2 *v = m->family;
    int tiles = tiles_of(in);
    add_token(m, v->mark[START], text);
    for (int i = 0; i < tiles; i++) {
        for (int k = 0; k < v->tokens; k++) add_token(m, v->base.image_token, text);
        add_token(m, v->mark[mark_behind(in, i)], text);
    }
    if (tiles == 1) add_token(m, v->mark[END], text);
    return text->failed ? err_memory(error, text->size) : true;
}

/* ---- encoder: after the tower, a stage for each tile ------------------------------------------------------------------- */

static bool encode_start(run *r, const vlm_model *m, encode_job *job)
{
    const ovis2 *v = m->family;
    if (!image_tower_start_tiles(r, &v->base.tower, job)) return false;
    job->stages += tiles_of(job->in);
    return true;
}

/* stride x stride features side by side; what lies outside is zeros. */
static tensor merge(run *r, const ovis2 *v, tensor x)
{
    int side = v->base.tower.image / v->base.tower.patch, s = v->stride, across = (side + s - 1) / s;
    int32_t *index = run_alloc(r, (size_t)(v->tokens * s * s) * sizeof *index);
    for (int i = 0; index && i < v->tokens * s * s; i++) {
        int token = i / (s * s), y = token / across * s + i % (s * s) / s, c = token % across * s + i % s;
        index[i] = y < side && c < side ? y * side + c : -1;
    }
    x = op_gather(r, x, index, (int64_t)v->tokens * s * s);
    return (tensor){x.data, DT_F32, v->tokens, x.cols * s * s, x.cols * s * s};
}

/* Scores of words -> shares, in place; marks get none. */
static void shares(const ovis2 *v, float *x)
{
    int best = 0;
    double sum = 0;
    for (int i = 1; i < v->words; i++)
        if (x[i] > x[best]) best = i;
    float most = x[best];
    for (int i = 0; i < v->words; i++) sum += x[i] = v->hard ? (float)(i == best) : expf(x[i] - most);
    for (int i = 0; i < v->words; i++) x[i] = (float)(x[i] / sum);
    for (int i = 0; i < MARKS; i++) x[v->words + i] = 0;
}

static tensor words(run *r, const ovis2 *v, tensor x)
{
    tensor scores = op_layernorm(r, op_linear(r, merge(r, v, x), &v->head, NULL), v->norm, v->norm_bias, 1e-5f);      /* [tokens, words] */
    tensor share = run_tensor(r, v->tokens, v->words + MARKS);
    for (int64_t i = 0; run_ok(r) && i < share.rows; i++) {
        memcpy(tensor_row(share, i), tensor_row(scores, i), (size_t)v->words * sizeof(float));
        shares(v, tensor_row(share, i));
    }
    return op_linear(r, share, &v->table, NULL);                                                                     /* [tokens, hidden] */
}

static void copy_rows(run *r, tensor to, int64_t first, tensor rows)
{
    for (int64_t i = 0; run_ok(r) && i < rows.rows; i++) memcpy(tensor_row(to, first + i), tensor_row(rows, i), (size_t)rows.cols * sizeof(float));
}

static bool encode(run *r, const vlm_model *m, encode_job *job)
{
    const ovis2 *v = m->family;
    const image_tower *t = &v->base.tower;
    int side = t->image / t->patch, patches = side * side;
    if (job->stage < t->depth) return image_tower_encode(r, t, job);
    int i = job->stage++ - t->depth;
    int32_t mark[MARKS];
    for (int k = 0; k < MARKS; k++) mark[k] = v->words + k;
    tensor marks = op_embed(r, &v->rows, mark, MARKS, 1);
    if (!i) {
        image_tower_set_rows(r, job, run_zeros(r, job->in->tokens, v->base.text.spec.hidden));
        copy_rows(r, job->x, 0, image_tower_features(r, t, job));
        if (run_ok(r)) copy_rows(r, job->rows, 0, tensor_rows(marks, START, 1));
        if (run_ok(r)) copy_rows(r, job->rows, job->in->tokens - 1, tensor_rows(marks, END, 1));
    }
    if (!run_ok(r)) return false;
    int64_t first = 1 + (int64_t)i * (v->tokens + 1);
    copy_rows(r, job->rows, first, words(r, v, tensor_rows(job->x, (int64_t)i * patches, patches)));
    if (run_ok(r)) copy_rows(r, job->rows, first + v->tokens, tensor_rows(marks, mark_behind(job->in, i), 1));
    return run_ok(r);
}

static const char *const types[] = {"ovis2", NULL};

static const media_rules rules = {.image = "crop_to_patches? max_patches", .low = "{\"crop_to_patches\": false}"};

const vlm_arch vlm_arch_ovis2 = {
    .name = "ovis2",
    .title = "Ovis2",
    .model_types = types,
    .rules = &rules,
    .task = TASK_GENERATE,
    .takes = TAKES_IMAGE,
    .configure = configure,
    .bind = bind,
    .process = process,
    .placeholder = placeholder,
    .media_token = tower_lm_media_token,
    .also_media = also_media,
    .expand = expand,
    .encode_start = encode_start,
    .encode = encode,
    .forward = tower_lm_forward,
};
