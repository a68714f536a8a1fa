/* pixtral.c - see pixtral.h. Rules: transformers image_processing_pixtral.py, processing_pixtral.py. */
#include "models/pixtral.h"

#include <math.h>

#include "base/err.h"

const media_rules pixtral_rules = {.image = "longest_edge", .low = "{\"" MEDIA_AT_MOST "longest_edge\": 512}"};

bool pixtral_config(pixtral_processor *p, tower_lm *base, config *c, int merge, bool own_step)
{
    const image_tower *t = &base->tower;
    if (!picture_config(&base->norm, c, "image_processor", picture_clip, RESIZE_BICUBIC)) return false;
    p->longest = (int)config_int(c, "image_processor.size.longest_edge", t->image, 1, 1 << 14);
    p->token = t->patch * merge;
    p->step = own_step ? (int)config_int(c, "image_processor.patch_size.height|image_processor.patch_size", p->token, 1, 1 << 10) : p->token;
    p->end_of_row = config_string(c, "image_break_token", "[IMG_BREAK]");
    p->end = config_string(c, "image_end_token", "[IMG_END]");
    if (!c->failed && (p->step % t->patch || p->longest < p->token || p->step > p->longest))
        return config_fail(c, VLM_FORMAT, "pictures up to %d in steps of %d do not fit patches of %d, tokens of %d pixels", p->longest, p->step, t->patch, p->token);
    return !c->failed;
}

bool pixtral_process(const vlm_model *m, const pixtral_processor *p, const picture_norm *norm, const media_item *item, const json_t *options, media_input *out,
                     vlm_error *error)
{
    const image *img = &item->image;
    double longest = fmin(fmax(media_option(item->part, options, "longest_edge", p->longest), p->step), 1 << 14);
    double ratio = fmax(img->height / longest, img->width / longest);
    int height = ratio > 1 ? (int)floor(img->height / ratio) : img->height, width = ratio > 1 ? (int)floor(img->width / ratio) : img->width;
    int high = height > 0 ? ((height - 1) / p->step + 1) * p->step : p->step, wide = width > 0 ? ((width - 1) / p->step + 1) * p->step : p->step;
    int rows = high / p->token, columns = wide / p->token;
    if (!tower_lm_only_images(m, item, error) || !tower_lm_fits(m, item, (int64_t)rows * (columns + 1), error)) return false;
    if (!rows || !columns)
        return err_set(error, VLM_UNSUPPORTED, "an image of %d x %d is smaller than a token, %d x %d", img->width, img->height, p->token, p->token);
    out->kind = item->kind;
    out->tokens = rows * columns;
    out->grid[0] = 1, out->grid[1] = rows, out->grid[2] = columns;
    processed *size = media_input_add(out, "image_sizes", DT_I64, 2, (const int64_t[]){1, 2});
    float *pixels = picture_tiles(out, 0, high, wide, error);
    if (!size || !pixels) return err_memory(error, 16);
    ((int64_t *)size->data)[0] = high;
    ((int64_t *)size->data)[1] = wide;
    return picture_resized(norm, img, wide, high, 0, 0, wide, high, pixels, error);
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
