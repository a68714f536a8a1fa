/* idefics3.c - Idefics3 and SmolVLM (1, 2).  https://arxiv.org/abs/2408.12637, 2504.05299
 *
 *   picture -> longer side resized to size.longest_edge, then both sides up to multiples of a tile (364, 384 or 512) -> tiles, row by row, and the
 *           whole picture squeezed into one more -> SigLIP -> scale x scale features side by side -> product -> rows that replace <image> -> Llama
 *   prompt: <fake_token_around_image><row_1_col_1> <image> ... a line end behind each row; an empty line, <global-img>, <fake_token_around_image>
 *   video (SmolVLM): each frame squeezed into one tile, its time before it, the number of frames in words
 *
 * Bites: three resizes, each rounded to 8 bits. Tiles take their places in the table of positions by shares of the side, as float32 has it. Row and
 * column marks are plain text in Idefics3, added tokens in SmolVLM: the tokenizer knows. */
#include "models/tower_lm.h"

#include <math.h>
#include <string.h>

#include "base/err.h"

enum { MOST_SIDE = 4096 };

typedef struct idefics3 {
    tower_lm base;
    picture_norm frames;
    weight project;
    int scale, tokens;             /* of a tile */
    int longest, tile;             /* pixels */
    bool split;
    int most_frames;
    double fps;
    const char *fake, *global, *video_mark;
} idefics3;

static bool configure(vlm_model *m, config *c)
{
    idefics3 *v = m->family = arena_alloc(&m->memory, sizeof *v);
    if (!v) return config_fail(c, VLM_MEMORY, "out of memory");
    bool smol = !strcmp(config_string(c, "model_type", ""), "smolvlm");
    if (!config_has(c, "image_token_id")) json_object_set_new(c->root, "image_token_id", json_integer(128257));
    if (!tower_lm_config(&v->base, m, c) || !image_tower_config(&v->base.tower, &m->memory, c, -1, true)) return false;
    config *p = m->processor;
    int side = v->base.tower.image / v->base.tower.patch;
    v->scale = (int)config_int(c, "scale_factor", 2, 1, 64);
    v->tile = (int)config_int(p, "image_processor.max_image_size.longest_edge", v->base.tower.image, 1, MOST_SIDE);
    v->longest = (int)config_int(p, "image_processor.size.longest_edge", 4 * v->tile, 1, 1 << 14);
    v->split = config_bool(p, "image_processor.do_image_splitting", true);
    v->most_frames = (int)config_int(p, "video_processor.num_frames|video_processor.video_sampling.max_frames", 64, 1, 1 << 16);
    v->fps = config_number(p, "video_processor.fps|video_processor.video_sampling.fps", 1);
    v->fake = config_string(p, "fake_image_token", "<fake_token_around_image>");
    v->global = config_string(p, "global_image_token", "<global-img>");
    v->video_mark = config_string(p, "video_token", "<video>");
    v->tokens = side / v->scale * (side / v->scale);
    if (c->failed || p->failed) return false;
    if (side % v->scale || v->tile != v->base.tower.image)
        return config_fail(c, VLM_FORMAT, "tiles of %d pixels, %d x %d features, scale_factor %d do not fit", v->tile, side, side, v->scale);
    if (smol) m->takes |= TAKES_VIDEO;
    v->base.video_token = smol ? v->base.image_token : -1;
    return picture_config(&v->base.norm, p, "image_processor", picture_half, RESIZE_LANCZOS) &&
           picture_config(&v->frames, p, "video_processor", picture_half, RESIZE_LANCZOS);
}

static bool bind(vlm_model *m, binder *b)
{
    idefics3 *v = m->family;
    tower_lm_bind(&v->base, b);
    bind_linear(b, &v->project, v->base.text.spec.hidden, (int64_t)v->base.tower.vit.hidden * v->scale * v->scale, "connector.modality_projection.proj");
    return !b->failed;
}

/* ---- processor ---------------------------------------------------------------------------------------------------- */

/* The longer side becomes `longest`; the other one follows, even and at least 1. Nothing above MOST_SIDE. */
static void fit_longest(int *height, int *width, int longest)
{
    double ratio = (double)*width / *height;
    bool wide = *width >= *height;
    int other = (int)(wide ? longest / ratio : longest * ratio);
    if (other % 2) other++;
    if (other < 1) other = 1;
    if (longest > MOST_SIDE) {
        ratio = wide ? (double)longest / other : (double)other / longest;
        longest = MOST_SIDE;
        other = (int)(wide ? longest / ratio : longest * ratio);
        if (other < 1) other = 1;
    }
    *height = wide ? other : longest;
    *width = wide ? longest : other;
}

static int round_up(int n, int step) { return (n + step - 1) / step * step; }

static void whole_tiles(int *height, int *width, int tile)
{
    double ratio = (double)*width / *height;
    if (*width >= *height) {
        *width = round_up(*width, tile);
        *height = round_up((int)(*width / ratio), tile);
    } else {
        *height = round_up(*height, tile);
        *width = round_up((int)(*height * ratio), tile);
    }
    if (*height < tile) *height = tile;
    if (*width < tile) *width = tile;
}

/* Squeezed into one tile by way of the size that keeps its shape (which frames of a video have already). */
static bool one_tile(const picture_norm *n, const image *img, int longest, int tile, float *out, vlm_error *error)
{
    image first;
    int height = img->height, width = img->width;
    fit_longest(&height, &width, longest);
    if (!image_resize(img, width, height, n->filter, &first, error)) return false;
    bool ok = picture_resized(n, &first, tile, tile, 0, 0, tile, tile, out, error);
    image_free(&first);
    return ok;
}

static bool process_video(const vlm_model *m, const idefics3 *v, const media_item *item, media_input *out, vlm_error *error)
{
    int n = item->video.count;
    const video *clip = &item->video;
    if (n < 1) return err_set(error, VLM_INVALID, "video without frames");
    out->tokens = n * v->tokens;
    out->frames = n;
    if (!tower_lm_fits(m, item, out->tokens, error)) return false;
    out->seconds = arena_alloc(&out->memory, (size_t)n * sizeof *out->seconds);
    processed *p = media_input_add(out, "pixel_values", DT_F32, 4, (const int64_t[]){n, 3, v->tile, v->tile});
    if (!p || !out->seconds) return err_memory(error, (size_t)n * 3 * (size_t)v->tile * (size_t)v->tile * sizeof(float));
    double fps = clip->info.fps > 0 ? clip->info.fps : 24;
    out->seconds_per_grid = clip->info.duration > 0 ? clip->info.duration : (double)clip->info.total_frames / fps;       /* the clip's whole length */
    for (int i = 0; i < n; i++) {
        out->seconds[i] = clip->seconds ? clip->seconds[i] : i / fps;
        if (!one_tile(&v->frames, &clip->frames[i], v->tile, v->tile, (float *)p->data + (int64_t)i * 3 * v->tile * v->tile, error)) return false;
    }
    return true;
}

/* grid: 1, rows, columns of tiles; 0 rows when there is one tile alone. */
static bool process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    const idefics3 *v = m->family;
    out->kind = item->kind;
    if (item->kind == MEDIA_VIDEO && (m->takes & TAKES_VIDEO)) return process_video(m, v, item, out, error);
    if (!tower_lm_only_images(m, item, error)) return false;
    double wanted = media_option(item->part, options, "longest_edge", v->longest);
    bool split = media_switch(options, "do_image_splitting", v->split);
    int height = item->image.height, width = item->image.width, tile = v->tile;
    fit_longest(&height, &width, (int)fmin(fmax(wanted, 1), 1 << 14));
    int field_height = height, field_width = width;
    whole_tiles(&field_height, &field_width, tile);
    int rows = split ? field_height / tile : 0, columns = split ? field_width / tile : 0, n;
    if (rows * columns <= 1) rows = columns = 0;
    n = rows * columns + 1;
    out->grid[0] = 1, out->grid[1] = rows, out->grid[2] = columns;
    out->tokens = n * v->tokens;
    if (!tower_lm_fits(m, item, out->tokens, error)) return false;
    processed *p = media_input_add(out, "pixel_values", DT_F32, 4, (const int64_t[]){n, 3, tile, tile});
    if (!p) return err_memory(error, (size_t)n * 3 * (size_t)tile * (size_t)tile * sizeof(float));
    float *pixels = p->data;
    image first = {0}, field = {0};
    bool ok = image_resize(&item->image, width, height, v->base.norm.filter, &first, error) &&
              (!split || image_resize(&first, field_width, field_height, v->base.norm.filter, &field, error));
    for (int i = 0; ok && i < n - 1; i++, pixels += 3 * tile * tile)
        picture_window(&v->base.norm, &field, i % columns * tile, i / columns * tile, tile, tile, pixels);
    ok = ok && picture_resized(&v->base.norm, split ? &field : &first, tile, tile, 0, 0, tile, tile, pixels, error);
    image_free(&first);
    image_free(&field);
    return ok;
}

static bool frame_size(const vlm_model *m, const media_item *item, const json_t *options, int *width, int *height, resize_filter *filter, vlm_error *error)
{
    const idefics3 *v = m->family;
    (void)options, (void)error;
    *height = item->video.info.height, *width = item->video.info.width, *filter = v->frames.filter;
    fit_longest(height, width, v->tile);
    return true;
}

static bool pick_frames(const vlm_model *m, const chat_media *part, const json_t *options, const video_info *info, int64_t **indices, int *count,
                        vlm_error *error)
{
    const idefics3 *v = m->family;
    double seconds = info->duration > 0 ? info->duration : (double)info->total_frames / (info->fps > 0 ? info->fps : 24);
    double most = info->folder ? (double)info->total_frames : nearbyint(media_option(part, options, "fps", v->fps) * seconds);
    double exact = media_option(part, options, "num_frames", 0);
    most = fmin(fmax(most, media_option(part, options, "min_frames", 1)), media_option(part, options, "max_frames", v->most_frames));
    return tower_lm_pick(NULL, NULL, info, (int)fmax(1, fmin(exact > 0 ? exact : most, 1 << 20)), indices, count, error);
}

/* ---- prompt ------------------------------------------------------------------------------------------------------- */

/* Whole numbers below 1000 as English has them. */
static void in_words(int n, buf *text)
{
    static const char *const small[] = {"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
        "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"};
    static const char *const tens[] = {"", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"};
    if (n >= 1000 || n < 0) buf_addf(text, "%d", n);
    else if (n >= 100) {
        buf_addf(text, "%s hundred", small[n / 100]);
        if (n % 100) buf_adds(text, " and "), in_words(n % 100, text);
    } else if (n >= 20) buf_addf(text, "%s%s%s", tens[n / 10], n % 10 ? "-" : "", n % 10 ? small[n % 10] : "");
    else buf_adds(text, small[n]);
}

static void add_tile(const vlm_model *m, const idefics3 *v, buf *text)
{
    const char *token = tower_lm_placeholder(m, MEDIA_IMAGE);
    for (int i = 0; token && i < v->tokens; i++) buf_adds(text, token);
}

static const char *placeholder(const vlm_model *m, media_kind kind)
{
    return kind == MEDIA_VIDEO && (m->takes & TAKES_VIDEO) ? ((const idefics3 *)m->family)->video_mark : tower_lm_placeholder(m, kind);
}

static void expand_video(const vlm_model *m, const idefics3 *v, const media_input *in, buf *text)
{
    int length = (int)in->seconds_per_grid;
    buf_adds(text, "You are provided the following series of ");
    in_words(in->frames, text);
    buf_addf(text, " frames from a %d:%02d:%02d [H:MM:SS] video.\n", length / 3600, length / 60 % 60, length % 60);
    for (int i = 0; i < in->frames; i++) {
        int second = in->seconds ? (int)in->seconds[i] : 0;
        buf_addf(text, "\nFrame from %02d:%02d:%s%s", second / 60, second % 60, v->fake, v->global);
        add_tile(m, v, text);
        buf_adds(text, v->fake);
    }
    buf_adds(text, "\n\n");
}

static bool expand(const vlm_model *m, const media_input *in, buf *text, vlm_error *error)
{
    const idefics3 *v = m->family;
    if (in->kind == MEDIA_VIDEO) expand_video(m, v, in, text);
    for (int row = 0; in->kind == MEDIA_IMAGE && row < in->grid[1]; row++) {
        for (int column = 0; column < in->grid[2]; column++) {
            buf_addf(text, "%s<row_%d_col_%d>", v->fake, row + 1, column + 1);
            add_tile(m, v, text);
        }
        buf_adds(text, "\n");
    }
    if (in->kind == MEDIA_IMAGE) {
        buf_addf(text, "%s%s%s", in->grid[1] ? "\n" : "", v->fake, v->global);
        add_tile(m, v, text);
        buf_adds(text, v->fake);
    }
    return text->failed ? err_memory(error, text->size) : true;
}

/* ---- encoder ------------------------------------------------------------------------------------------------------ */

static bool encode_start(run *r, const vlm_model *m, encode_job *job)
{
    const idefics3 *v = m->family;
    const processed *p = media_input_find(job->in, "pixel_values");
    if (!p || !p->data) return run_fail(r, VLM_INTERNAL, "no pixels to encode");
    int n = (int)p->dim[0], side = v->tile / v->base.tower.patch;
    tower_image *images = run_alloc(r, (size_t)n * sizeof *images);
    int32_t *position = arena_alloc(job->memory, (size_t)(side * side) * sizeof *position);
    if (!images || !position) return run_fail(r, VLM_MEMORY, "out of memory");
    image_tower_buckets(&v->base.tower, side, side, position);
    for (int i = 0; i < n; i++) images[i] = (tower_image){(const float *)p->data + (int64_t)i * 3 * v->tile * v->tile, v->tile, v->tile, position};
    return image_tower_start(r, &v->base.tower, job, images, n);
}

static bool encode(run *r, const vlm_model *m, encode_job *job)
{
    const idefics3 *v = m->family;
    int side = v->tile / v->base.tower.patch;
    if (!image_tower_encode(r, &v->base.tower, job)) return false;
    if (job->stage == job->stages)
        image_tower_set_rows(r, job, op_linear(r, tower_lm_shuffle(r, image_tower_features(r, &v->base.tower, job), side, side, v->scale), &v->project, NULL));
    return run_ok(r);
}

static const char *const types[] = {"idefics3", "smolvlm", NULL};

static const media_rules rules = {.image = "do_image_splitting? longest_edge", .low = "{\"do_image_splitting\": false}"};

const vlm_arch vlm_arch_idefics3 = {
    .name = "idefics3",
    .title = "Idefics3, SmolVLM, SmolVLM2",
    .model_types = types,
    .rules = &rules,
    .task = TASK_GENERATE,
    .takes = TAKES_IMAGE | TAKES_VIDEO,
    .configure = configure,
    .bind = bind,
    .process = process,
    .pick_frames = pick_frames,
    .frame_size = frame_size,
    .placeholder = placeholder,
    .media_token = tower_lm_media_token,
    .expand = expand,
    .encode_start = encode_start,
    .encode = encode,
    .forward = tower_lm_forward,
};
