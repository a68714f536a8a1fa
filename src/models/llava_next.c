/* llava_next.c - LLaVA-NeXT (1.6): tiles at the best of some sizes.  https://llava-vl.github.io/blog/2024-01-30-llava-next/
 * LLaVA-OneVision: the same with a limit, and videos.  https://arxiv.org/abs/2408.03326
 * Granite Vision 3: SigLIP, the features of several layers side by side.  https://arxiv.org/abs/2502.09927
 *
 *   picture -> whole, squeezed to the tower's size (336 x 336)                       -> tile 0
 *           -> resized into the best size of image_grid_pinpoints, black around, cut -> tiles 1 ...
 *   tiles -> CLIP (last layer but one, no class row) or SigLIP (last layer) -> linear, GELU, linear -> tile 0's features,
 *   then the others' as one field: rows and columns of padding dropped, image_newline behind each row -> rows that replace <image>
 *   video (OneVision): each frame squeezed -> features, bilinear to half the side; one newline behind all of them
 *
 * Bites: what is padding follows from the picture's own proportions, rounded to 7 digits first. OneVision ("anyres_max_9"): a field of more than
 * 9 tiles' worth (by a factor of 1.1 in each direction) is shrunk to that, bilinear. */
#include "models/anyres.h"
#include "models/tower_lm.h"

#include <math.h>
#include <string.h>

#include "base/err.h"

enum { MOST_FRAMES = 32 };

typedef struct llava_next {
    tower_lm base;
    mlp_connector connector;
    anyres sizes;
    int most_tiles;                /* 0: no limit */
    picture_norm frames;           /* of videos */
    const float *newline;
} llava_next;

static int unit_of(const llava_next *v) { return v->base.tower.image / v->base.tower.patch; }

static anyres_field field_of(const llava_next *v, int height, int width, const int *grid)
{
    int unit = unit_of(v);
    anyres_field f = anyres_field_of(height, width, unit, grid[1], grid[2]);
    if (!v->most_tiles) return f;
    double ratio = sqrt((double)f.height * f.width / ((double)v->most_tiles * unit * unit));
    if (ratio > 1.1) {
        f.to_height = (int)floor(f.height / ratio);
        f.to_width = (int)floor(f.width / ratio);
    }
    return f;
}

static bool configure(vlm_model *m, config *c)
{
    llava_next *v = m->family = arena_alloc(&m->memory, sizeof *v);
    if (!v) return config_fail(c, VLM_MEMORY, "out of memory");
    bool one = !strcmp(config_string(c, "model_type", ""), "llava_onevision");
    const char *ratio = config_string(c, "vision_aspect_ratio", "anyres_max_9");
    v->connector.act = config_activation(c, "projector_hidden_act", "gelu");
    if (!tower_lm_config(&v->base, m, c) || !image_tower_config_features(&v->base.tower, &m->memory, c, one ? -1 : -2, one ? "full" : "default")) return false;
    if (one && (strncmp(ratio, "anyres_max_", 11) || (v->most_tiles = atoi(ratio + 11)) < 1))
        return config_fail(c, VLM_UNSUPPORTED, "vision_aspect_ratio \"%.40s\"; anyres_max_N is known", ratio);
    if (one && v->base.video_token >= 0) m->takes |= TAKES_VIDEO;
    if (!anyres_config(&v->sizes, m->processor, c, v->base.tower.image) ||
        !picture_config(&v->base.norm, m->processor, "image_processor", one ? picture_half : picture_clip, RESIZE_BICUBIC) ||
        !picture_config(&v->frames, m->processor, "video_processor", one ? picture_half : picture_clip, RESIZE_BICUBIC)) return false;
    return !c->failed;
}

static bool bind(vlm_model *m, binder *b)
{
    llava_next *v = m->family;
    int64_t d = v->base.text.spec.hidden;
    tower_lm_bind(&v->base, b);
    mlp_connector_bind(&v->connector, b, v->base.tower.width, d);
    bind_vector(b, &v->newline, d, "image_newline");
    return !b->failed;
}

/* ---- processor ---------------------------------------------------------------------------------------------------- */

static bool process_video(const vlm_model *m, const llava_next *v, const media_item *item, media_input *out, vlm_error *error)
{
    int side = v->base.tower.image, half = (unit_of(v) + 1) / 2, n = item->video.count;
    int64_t tokens = (int64_t)n * half * half + 1;
    if (n < 1) return err_set(error, VLM_INVALID, "video without frames");
    if (!tower_lm_fits(m, item, tokens, error)) return false;
    out->tokens = (int)tokens;
    out->grid[0] = n;
    float *pixels = picture_tiles(out, n, side, side, error);
    for (int i = 0; pixels && i < n; i++, pixels += 3 * side * side)
        if (!picture_resized(&v->frames, &item->video.frames[i], side, side, 0, 0, side, side, pixels, error)) return false;
    return pixels != NULL;
}

static bool process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    const llava_next *v = m->family;
    anyres sizes = anyres_asked(&v->sizes, item, options, v->base.tower.image);
    out->kind = item->kind;
    if (item->kind == MEDIA_VIDEO && (m->takes & TAKES_VIDEO)) return process_video(m, v, item, out, error);
    if (!tower_lm_only_images(m, item, error)) return false;
    anyres_grid(&sizes, &item->image, v->base.tower.image, out);
    anyres_field f = field_of(v, item->image.height, item->image.width, out->grid);
    out->tokens = anyres_tokens(&f, unit_of(v));
    if (!tower_lm_fits(m, item, out->tokens, error)) return false;
    processed *number = v->most_tiles ? media_input_add(out, "batch_num_images", DT_I64, 1, (const int64_t[]){1}) : NULL;
    if (number) *(int64_t *)number->data = 1;
    else if (v->most_tiles) return err_memory(error, 8);
    return anyres_process(&v->base.norm, &item->image, v->base.tower.image, out, error);
}

static bool frame_size(const vlm_model *m, const media_item *item, const json_t *options, int *width, int *height, resize_filter *filter, vlm_error *error)
{
    const llava_next *v = m->family;
    (void)item, (void)options, (void)error;
    return tower_lm_frame_size(&v->frames, v->base.tower.image, width, height, filter);
}

static bool pick_frames(const vlm_model *m, const chat_media *part, const json_t *options, const video_info *info, int64_t **indices, int *count,
                        vlm_error *error)
{
    return tower_lm_pick(part, options, info, MOST_FRAMES, indices, count, error);
}

/* ---- encoder ------------------------------------------------------------------------------------------------------ */

static void put(run *r, tensor out, int64_t *at, tensor rows)
{
    for (int64_t i = 0; run_ok(r) && i < rows.rows; i++) memcpy(tensor_row(out, (*at)++), tensor_row(rows, i), (size_t)out.cols * sizeof(float));
}

static tensor pack_image(run *r, const llava_next *v, const media_input *in, tensor x)
{
    const int64_t *size = media_input_find(in, "image_sizes")->data;
    anyres_field f = field_of(v, (int)size[0], (int)size[1], in->grid);
    tensor out = run_tensor(r, in->tokens, x.cols);
    anyres_pack(r, in, &f, x, unit_of(v), v->newline, out);
    return out;
}

static tensor pack_video(run *r, const llava_next *v, const media_input *in, tensor x)
{
    int unit = unit_of(v), half = (unit + 1) / 2;
    tensor out = run_tensor(r, in->tokens, x.cols), newline = {(void *)(uintptr_t)v->newline, DT_F32, 1, x.cols, x.cols};
    int64_t at = 0;
    for (int i = 0; run_ok(r) && i < in->grid[0]; i++)
        put(r, out, &at, tower_lm_resample(r, tensor_rows(x, (int64_t)i * unit * unit, (int64_t)unit * unit), unit, unit, half, half));
    put(r, out, &at, newline);
    return out;
}

static bool encode(run *r, const vlm_model *m, encode_job *job)
{
    const llava_next *v = m->family;
    if (!image_tower_encode(r, &v->base.tower, job)) return false;
    if (job->stage < job->stages) return true;
    tensor x = mlp_connector_apply(r, &v->connector, image_tower_features(r, &v->base.tower, job));
    if (!run_ok(r)) return false;
    image_tower_set_rows(r, job, job->in->kind == MEDIA_VIDEO ? pack_video(r, v, job->in, x) : pack_image(r, v, job->in, x));
    return run_ok(r);
}

static const char *const types[] = {"llava_next", "llava_onevision", "granite_vision", NULL};

const vlm_arch vlm_arch_llava_next = {
    .name = "llava_next",
    .title = "LLaVA-NeXT (1.6), LLaVA-OneVision, Granite Vision 3",
    .model_types = types,
    .rules = &anyres_rules,
    .takes = TAKES_IMAGE | TAKES_VIDEO,
    .configure = configure,
    .bind = bind,
    .process = process,
    .pick_frames = pick_frames,
    .frame_size = frame_size,
    .encode = encode,
    TOWER_LM_ARCH,
};
