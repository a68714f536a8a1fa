/* pixtral.c - see pixtral.h. Rules: transformers image_processing_pixtral.py, processing_pixtral.py. */
#include "models/pixtral.h"

#include <math.h>

#include "base/err.h"

const media_rules pixtral_rules = {.image = "longest_edge", .low = "{\"" MEDIA_AT_MOST "longest_edge\": 512}"};

bool pixtral_config(pixtral_processor *p, tower_lm *base, config *c, int merge)
{
    const image_tower *t = &base->tower;
    if (!picture_config(&base->norm, c, "image_processor", picture_clip, RESIZE_BICUBIC)) return false;
    p->longest = (int)config_int(c, "image_processor.size.longest_edge", t->image, 1, 1 << 14);
    int step = (int)config_int(c, "image_processor.patch_size.height|image_processor.patch_size", t->patch * merge, 1, 1 << 10);
    p->step = t->patch * merge;
    p->end_of_row = config_string(c, "image_break_token", "[IMG_BREAK]");
    p->end = config_string(c, "image_end_token", "[IMG_END]");
    if (!c->failed && (step % p->step || p->longest < p->step))
        return config_fail(c, VLM_FORMAT, "pictures up to %d in steps of %d do not fit tokens of %d pixels", p->longest, step, p->step);
    return !c->failed;
}

bool pixtral_process(const vlm_model *m, const pixtral_processor *p, const picture_norm *norm, const media_item *item, const json_t *options, media_input *out,
                     vlm_error *error)
{
    const image *img = &item->image;
    double longest = fmin(fmax(media_option(item->part, options, "longest_edge", p->longest), p->step), 1 << 14);
    double ratio = fmax(img->height / longest, img->width / longest);
    int height = ratio > 1 ? (int)floor(img->height / ratio) : img->height, width = ratio > 1 ? (int)floor(img->width / ratio) : img->width;
    int rows = height > 0 ? (height - 1) / p->step + 1 : 1, columns = width > 0 ? (width - 1) / p->step + 1 : 1;
    if (!tower_lm_only_images(m, item, error) || !tower_lm_fits(m, item, (int64_t)rows * (columns + 1), error)) return false;
    out->kind = item->kind;
    out->tokens = rows * columns;
    out->grid[0] = 1, out->grid[1] = rows, out->grid[2] = columns;
    processed *size = media_input_add(out, "image_sizes", DT_I64, 2, (const int64_t[]){1, 2});
    float *pixels = picture_tiles(out, 0, rows * p->step, columns * p->step, error);
    if (!size || !pixels) return err_memory(error, 16);
    ((int64_t *)size->data)[0] = rows * p->step;
    ((int64_t *)size->data)[1] = columns * p->step;
    return picture_resized(norm, img, columns * p->step, rows * p->step, 0, 0, columns * p->step, rows * p->step, pixels, error);
}

bool pixtral_expand(const vlm_model *m, const pixtral_processor *p, const media_input *in, buf *text, vlm_error *error)
{
    const char *token = tower_lm_placeholder(m, in->kind);
    for (int row = 0; token && row < in->grid[1]; row++) {
        for (int i = 0; i < in->grid[2]; i++) buf_adds(text, token);
        buf_adds(text, row == in->grid[1] - 1 ? p->end : p->end_of_row);
    }
    return text->failed ? err_memory(error, text->size) : true;
}
