/* anyres.c - see anyres.h. Rules: transformers image_processing_llava_next.py, modeling_llava_next.py. */
#include "models/anyres.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "models/tower_lm.h"

bool anyres_config(anyres *a, config *processor, config *c, int side)
{
    const json_t *list = config_get(processor, "image_processor.image_grid_pinpoints");
    if (!list) list = config_get(c, "image_grid_pinpoints");
    a->n = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *pair = json_array_get(list, i);
        int64_t h = json_integer_value(json_array_get(pair, 0)), w = json_integer_value(json_array_get(pair, 1));
        if (a->n == ANYRES_MAX || h < 1 || w < 1 || h > 65535 || w > 65535)
            return config_fail(c, VLM_FORMAT, "image_grid_pinpoints: up to %d pairs of height and width were expected", ANYRES_MAX);
        if (h % side || w % side)
            return config_fail(c, VLM_FORMAT, "image_grid_pinpoints: %d x %d is not made of tiles of %d", (int)h, (int)w, side);
        a->size[a->n][0] = (int)h;
        a->size[a->n++][1] = (int)w;
    }
    return a->n > 0 || config_fail(c, VLM_FORMAT, "image_grid_pinpoints is missing; pairs of height and width were expected");
}

const media_rules anyres_rules = {.image = "max_tiles", .low = "{\"max_tiles\": 1}"};

anyres anyres_asked(const anyres *a, const media_item *item, const json_t *options, int side)
{
    double most = media_option(item->part, options, "max_tiles", 0), tile = (double)side * side;
    anyres left = {0};
    int smallest = 0;
    if (!(most > 0)) return *a;
    for (int i = 0; i < a->n; i++) {
        double area = (double)a->size[i][0] * a->size[i][1];
        if (area < (double)a->size[smallest][0] * a->size[smallest][1]) smallest = i;
        if (area <= floor(most) * tile) memcpy(left.size[left.n++], a->size[i], sizeof *a->size);
    }
    if (!left.n) memcpy(left.size[left.n++], a->size[smallest], sizeof *a->size);
    return left;
}

static void choose(const anyres *a, int height, int width, int *best_height, int *best_width)
{
    int64_t most = 0, least_waste = INT64_MAX, whole = (int64_t)height * width;
    *best_height = a->size[0][0];
    *best_width = a->size[0][1];
    for (int i = 0; i < a->n; i++) {
        int h = a->size[i][0], w = a->size[i][1];
        double scale = fmin((double)w / width, (double)h / height);
        int64_t kept = (int64_t)(width * scale) * (int64_t)(height * scale);
        if (kept > whole) kept = whole;
        int64_t waste = (int64_t)h * w - kept;
        if (kept < most || (kept == most && waste >= least_waste)) continue;
        most = kept;
        least_waste = waste;
        *best_height = h;
        *best_width = w;
    }
}

void anyres_grid(const anyres *a, const image *img, int side, media_input *out)
{
    int height, width;
    choose(a, img->height, img->width, &height, &width);
    out->grid[0] = 1, out->grid[1] = height / side, out->grid[2] = width / side;
}

/* The picture's own size inside the chosen one. */
static void inside_of(int height, int width, int best_height, int best_width, int *inside_height, int *inside_width)
{
    double across = (double)best_width / width, down = (double)best_height / height;
    *inside_width = across < down ? best_width : (int)fmin(ceil(width * down), best_width);
    *inside_height = across < down ? (int)fmin(ceil(height * across), best_height) : best_height;
    if (*inside_width < 1) *inside_width = 1;
    if (*inside_height < 1) *inside_height = 1;
}

bool anyres_process(const picture_norm *n, const image *img, int side, media_input *out, vlm_error *error)
{
    int down = out->grid[1], across = out->grid[2], height = down * side, width = across * side, inside_height, inside_width;
    inside_of(img->height, img->width, height, width, &inside_height, &inside_width);
    processed *size = media_input_add(out, "image_sizes", DT_I64, 2, (const int64_t[]){1, 2});
    float *pixels = size ? picture_tiles(out, 1 + down * across, side, side, error) : NULL;
    if (!pixels) return err_memory(error, 64);
    ((int64_t *)size->data)[0] = img->height;
    ((int64_t *)size->data)[1] = img->width;
    if (!picture_resized(n, img, side, side, 0, 0, side, side, pixels, error)) return false;
    image inside;
    if (!image_resize(img, inside_width, inside_height, n->filter, &inside, error)) return false;
    for (int i = 0; i < down * across; i++)
        picture_window(n, &inside, i % across * side - (width - inside_width) / 2, i / across * side - (height - inside_height) / 2, side, side,
                       pixels + (int64_t)(i + 1) * 3 * side * side);
    image_free(&inside);
    return true;
}

/* ---- features ----------------------------------------------------------------------------------------------------- */

/* Python's int(round(x, 7)). */
static int truncate7(double x)
{
    char text[64];
    snprintf(text, sizeof text, "%.7f", x);
    return (int)strtod(text, NULL);
}

anyres_field anyres_field_of(int height, int width, int unit, int tiles_down, int tiles_across)
{
    anyres_field f = {.rows = tiles_down * unit, .columns = tiles_across * unit};
    if ((double)width / height > (double)f.columns / f.rows) f.top = (f.rows - truncate7(height * ((double)f.columns / width))) / 2;
    else f.left = (f.columns - truncate7(width * ((double)f.rows / height))) / 2;
    f.to_height = f.height = f.rows - 2 * f.top;
    f.to_width = f.width = f.columns - 2 * f.left;
    return f;
}

/* The kept part of the tiles' features as one field. */
static tensor take_field(run *r, tensor x, const anyres_field *f, int unit, int tiles_across)
{
    int32_t *index = run_alloc(r, (size_t)(f->height * f->width + 1) * sizeof *index), *at = index;
    for (int y = f->top; index && y < f->top + f->height; y++)
        for (int c = f->left; c < f->left + f->width; c++) {
            int tile = 1 + y / unit * tiles_across + c / unit;
            *at++ = (tile * unit + y % unit) * unit + c % unit;
        }
    return op_gather(r, x, index, (int64_t)f->height * f->width);
}

static void put(run *r, tensor out, int64_t *at, tensor rows)
{
    for (int64_t i = 0; run_ok(r) && i < rows.rows; i++) memcpy(tensor_row(out, (*at)++), tensor_row(rows, i), (size_t)out.cols * sizeof(float));
}

void anyres_pack(run *r, const media_input *in, const anyres_field *f, tensor x, int unit, const float *newline, tensor out)
{
    tensor kept = take_field(r, x, f, unit, in->grid[2]), end = {(void *)(uintptr_t)newline, DT_F32, 1, x.cols, x.cols};
    if (f->to_height != f->height || f->to_width != f->width)
        kept = tower_lm_resample(r, kept, f->height, f->width, f->to_height, f->to_width);
    if (!run_ok(r)) return;
    int64_t at = 0;
    put(r, out, &at, tensor_rows(x, 0, (int64_t)unit * unit));
    for (int y = 0; y < f->to_height; y++) {
        put(r, out, &at, tensor_rows(kept, (int64_t)y * f->to_width, f->to_width));
        put(r, out, &at, end);
    }
}
