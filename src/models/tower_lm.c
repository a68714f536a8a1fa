/* tower_lm.c - see tower_lm.h. */
#include "models/tower_lm.h"

#include <math.h>

#include "base/err.h"

bool tower_lm_config(tower_lm *v, vlm_model *m, config *c)
{
    if (!text_spec(&v->text.spec, &m->memory, c) || !decoder_plan(&v->text, &m->memory, c)) return false;
    model_use_decoder(m, &v->text);
    v->image_token = (int32_t)config_int(c, "image_token_index|image_token_id", -1, 0, INT32_MAX);
    v->video_token = (int32_t)config_int(c, "video_token_index|video_token_id", -1, 0, INT32_MAX);
    if (!c->failed && v->image_token < 0) return config_fail(c, VLM_FORMAT, "image_token_index (or image_token_id) is missing");
    m->takes = TAKES_IMAGE;
    return !c->failed;
}

void tower_lm_bind(tower_lm *v, binder *b)
{
    static const char *const prefix[] = {"vision_tower.vision_model.", "vision_tower.", "model.vision_tower.vision_model.", "model.vision_tower.",
                                         "model.vision_model.", "vision_model.", NULL};
    if (decoder_bind(&v->text, b)) image_tower_bind(&v->tower, b, prefix);
    bind_prefix(b, "", "model.", NULL);
}

void mlp_connector_bind_at(mlp_connector *w, binder *b, int64_t inputs, int64_t outputs, const char *where)
{
    bind_linear(b, &w->up, outputs, inputs, "%s.linear_1", where);
    bind_vector_optional(b, &w->up_bias, outputs, "%s.linear_1.bias", where);
    bind_linear(b, &w->down, outputs, outputs, "%s.linear_2", where);
    bind_vector_optional(b, &w->down_bias, outputs, "%s.linear_2.bias", where);
}

void mlp_connector_bind(mlp_connector *w, binder *b, int64_t inputs, int64_t outputs) { mlp_connector_bind_at(w, b, inputs, outputs, "multi_modal_projector"); }

tensor mlp_connector_apply(run *r, const mlp_connector *w, tensor x)
{
    x = op_linear(r, x, &w->up, w->up_bias);
    op_activate(r, x, w->act);
    return op_linear(r, x, &w->down, w->down_bias);
}

bool mlp_connector_encode(run *r, const image_tower *tower, const mlp_connector *w, encode_job *job)
{
    if (!image_tower_encode(r, tower, job)) return false;
    if (job->stage == job->stages) image_tower_set_rows(r, job, mlp_connector_apply(r, w, image_tower_features(r, tower, job)));
    return run_ok(r);
}

bool tower_lm_only_images(const vlm_model *m, const media_item *item, vlm_error *error)
{
    if (item->kind == MEDIA_IMAGE) return true;
    err_set(error, VLM_UNSUPPORTED, "%s takes images, no %s", m->arch->title, media_kind_name(item->kind));
    return item->kind == MEDIA_VIDEO ? err_hint(error, "give some frames as images") : false;
}

bool tower_lm_fits(const vlm_model *m, const media_item *item, int64_t tokens, vlm_error *error)
{
    return tokens <= m->context || err_set(error, VLM_LIMIT, "%s becomes %lld tokens, the model's context has %d", media_kind_name(item->kind),
                                           (long long)tokens, m->context);
}

bool tower_lm_pick(const chat_media *part, const json_t *options, const video_info *info, int most, int64_t **indices, int *count, vlm_error *error)
{
    double total = (double)info->total_frames, native = info->fps > 0 ? info->fps : 24;
    if (total < 1) return err_set(error, VLM_INVALID, "video without frames");
    double fps = info->folder ? 0 : media_option(part, options, "fps", 0);
    double n = fps > 0 ? floor(total / native * fps) : most;
    n = media_option(part, options, "num_frames", fmin(fmax(n, media_option(part, options, "min_frames", 1)), media_option(part, options, "max_frames", most)));
    n = fmin(fmax(floor(n), 1), total);
    int64_t *list = n <= INT32_MAX ? MEM_ARRAY((size_t)n, int64_t) : NULL;
    if (!list) return err_memory(error, (size_t)n * sizeof *list);
    for (int64_t i = 0; i < (int64_t)n; i++) list[i] = n > 1 ? (int64_t)nearbyint((double)i * (total - 1) / (n - 1)) : 0;
    *indices = list;
    *count = (int)n;
    return true;
}

bool tower_lm_frame_size(const picture_norm *n, int side, int *width, int *height, resize_filter *filter)
{
    *width = *height = side;
    *filter = n->filter;
    return true;
}

/* The two neighbours of sample i and the part of the second, float32 as torch computes it. */
static void neighbours(int i, int from, int to, int *low, int *high, float *part)
{
    float at = (float)from / (float)to * ((float)i + 0.5f) - 0.5f;
    if (at < 0) at = 0;
    *low = (int)at;
    *high = *low + (*low < from - 1);
    *part = at - (float)*low;
}

tensor tower_lm_resample(run *r, tensor x, int height, int width, int to_height, int to_width)
{
    tensor out = run_tensor(r, (int64_t)to_height * to_width, x.cols);
    for (int64_t i = 0; run_ok(r) && i < out.rows; i++) {
        int y0, y1, x0, x1;
        float v, u;
        neighbours((int)(i / to_width), height, to_height, &y0, &y1, &v);
        neighbours((int)(i % to_width), width, to_width, &x0, &x1, &u);
        const float *a = tensor_row(x, (int64_t)y0 * width + x0), *b = tensor_row(x, (int64_t)y0 * width + x1);
        const float *c = tensor_row(x, (int64_t)y1 * width + x0), *d = tensor_row(x, (int64_t)y1 * width + x1);
        for (int64_t k = 0; k < x.cols; k++) tensor_row(out, i)[k] = (1 - v) * ((1 - u) * a[k] + u * b[k]) + v * ((1 - u) * c[k] + u * d[k]);
    }
    return out;
}

void tile_grid_config(tile_grid *g, config *p)
{
    g->tiled = config_bool(p, "image_processor.crop_to_patches", true);
    g->least = (int)config_int(p, "image_processor.min_patches", 1, 1, 256);
    g->most = (int)config_int(p, "image_processor.max_patches", 12, g->least, 256);
    g->most_side = 0;
    g->by_scale = false;
}

/* How much the picture grows inside a grid, the shorter way: the least growth, of grids that all shrink it the least shrinking. */
static void choose_by_scale(int height, int width, int side, int most, int *rows, int *columns)
{
    double best = 0;
    *rows = *columns = 1;
    for (int n = 1; n <= most; n++)
        for (int across = 1; across <= n; across++) {
            if (n % across) continue;
            double scale = fmin((double)(across * side) / width, (double)(n / across * side) / height);
            if (best >= 1 ? scale < 1 || scale >= best : scale <= best) continue;
            best = scale;
            *columns = across;
            *rows = n / across;
        }
}

/* Of grids that are equally near the later (larger) one wins, as long as it has less than twice the picture's pixels. */
void tile_grid_choose(const tile_grid *g, int height, int width, int side, int most, int *rows, int *columns)
{
    double ratio = (double)width / height, nearest = INFINITY, area = (double)height * width, tile = (double)side * side;
    if (g->by_scale) {
        choose_by_scale(height, width, side, most, rows, columns);
        return;
    }
    *rows = *columns = 1;
    int longest = g->most_side ? g->most_side : most;
    for (int n = g->least < most ? g->least : most; n <= most; n++)
        for (int across = 1; across <= n; across++) {
            if (n % across || across > longest || n / across > longest) continue;
            double off = fabs(ratio - (double)across / (n / across));
            if (off > nearest || (off == nearest && !(area > 0.5 * tile * n))) continue;
            nearest = off;
            *columns = across;
            *rows = n / across;
        }
}

bool tile_grid_process(const vlm_model *m, const tile_grid *g, const tower_lm *v, const media_item *item, const json_t *options, int tokens, media_input *out,
                       vlm_error *error)
{
    const image *img = &item->image;
    int side = v->tower.image, rows = 1, columns = 1;
    double most = fmin(fmax(media_option(item->part, options, "max_patches", g->most), 1), 256);
    tile_grid grid = *g;
    grid.least = (int)fmin(fmax(media_option(item->part, options, "min_patches", g->least), 1), most);
    if (media_switch(options, "crop_to_patches", g->tiled)) tile_grid_choose(&grid, img->height, img->width, side, (int)most, &rows, &columns);
    int n = rows * columns, tiles = n > 1 ? n + 1 : 1;
    out->tokens = tiles * tokens;
    out->grid[0] = 1, out->grid[1] = rows, out->grid[2] = columns;
    if (!tower_lm_fits(m, item, out->tokens, error)) return false;
    processed *p = media_input_add(out, "pixel_values", DT_F32, 4, (const int64_t[]){tiles, 3, side, side});
    if (!p) return err_memory(error, (size_t)tiles * 3 * (size_t)side * (size_t)side * sizeof(float));
    image whole;
    if (!image_resize(img, columns * side, rows * side, v->norm.filter, &whole, error)) return false;
    for (int i = 0; i < n; i++)
        picture_window(&v->norm, &whole, i % columns * side, i / columns * side, side, side, (float *)p->data + (int64_t)i * 3 * side * side);
    image_free(&whole);
    return n == 1 || picture_resized(&v->norm, img, side, side, 0, 0, side, side, (float *)p->data + (int64_t)n * 3 * side * side, error);
}

tensor tower_lm_shuffle(run *r, tensor x, int rows, int columns, int factor)
{
    int unit = factor * factor, across = columns / factor;
    int64_t picture = (int64_t)rows * columns;
    int32_t *index = run_alloc(r, (size_t)(x.rows + 1) * sizeof *index);
    for (int64_t i = 0; index && i < x.rows; i++) {
        int64_t block = i % picture / unit, k = i % unit;
        index[i] = (int32_t)(i / picture * picture + (block / across * factor + k / factor) * columns + block % across * factor + k % factor);
    }
    x = op_gather(r, x, index, x.rows);
    return (tensor){x.data, DT_F32, x.rows / unit, x.cols * unit, x.cols * unit};
}

static const tower_lm *family(const vlm_model *m) { return m->family; }

int32_t tower_lm_media_token(const vlm_model *m, media_kind kind)
{
    return kind == MEDIA_IMAGE ? family(m)->image_token : kind == MEDIA_VIDEO && (m->takes & TAKES_VIDEO) ? family(m)->video_token : -1;
}

const char *tower_lm_placeholder(const vlm_model *m, media_kind kind)
{
    int32_t id = tower_lm_media_token(m, kind);
    return id >= 0 && m->tok ? tokenizer_token(m->tok, id) : NULL;
}

bool tower_lm_expand(const vlm_model *m, const media_input *in, buf *text, vlm_error *error)
{
    const char *token = tower_lm_placeholder(m, in->kind);
    for (int i = 0; token && i < in->tokens; i++) buf_adds(text, token);
    return text->failed ? err_memory(error, text->size) : true;
}

bool tower_lm_encode_start(run *r, const vlm_model *m, encode_job *job) { return image_tower_start_tiles(r, &family(m)->tower, job); }

tensor tower_lm_forward(run *r, const vlm_model *m, const batch *b) { return decoder_forward(r, &family(m)->text, b); }
