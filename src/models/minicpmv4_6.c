/* minicpmv4_6.c - MiniCPM-V 4.6.  https://github.com/OpenBMB/MiniCPM-V
 *
 *   picture -> whole, about 448 x 448 of its own shape; a larger one also as a grid of up to 9 slices of about that size -> patches of 14
 *   -> SigLIP of any shape (positions: rows of the table whose share of the sides is nearest below); behind layer 6 windows of 2 x 2 look at each
 *      other and become one feature -> norm -> 2 x 2 features side by side -> norm, linear, GELU, linear
 *   -> rows that replace <|image_pad|>: <image_id>0</image_id><image>...</image><slice>...</slice><slice>...</slice>\n<slice>... -> Qwen3.5
 *   video: a frame a second, each likewise
 *
 * Bites: downsample_mode "4x" leaves out the windows behind layer 6 (a request may ask for it); sides are multiples of what is merged. Images and videos
 * are numbered apart. Pixels lie as one strip of patches. Positions of the text are plain, although Qwen3.5 could have three of them. */
#include "models/tower_lm.h"

#include <math.h>
#include <string.h>

#include "base/err.h"
#include "blocks/patch.h"

typedef struct slicer {
    picture_norm norm;
    bool sliced, ids, fine;        /* fine: downsample_mode "4x" */
    int most, resolution, most_frames;
} slicer;

/* linear_1(norm of 4 features), activation, linear_2. */
typedef struct merge_mlp { const float *norm, *norm_bias, *up_bias, *down_bias; weight up, down; } merge_mlp;

typedef struct minicpmv {
    tower_lm base;
    slicer images, frames;
    int insert;                    /* the layer behind which windows are merged */
    vit_layer window;              /* norm1 and attention */
    merge_mlp window_mlp, merger;
} minicpmv;

/* What a medium was cut into: frames x (whole, rows x columns slices). Sizes in patches. */
typedef struct cut { bool fine, ids; int frames, rows, columns, height, width, slice_height, slice_width; } cut;

static int unit_of(bool fine) { return fine ? 2 : 4; }
static int tokens_of(const cut *c, int height, int width) { return height / unit_of(c->fine) * (width / unit_of(c->fine)); }

/* ---- configuration and weights -------------------------------------------------------------------------------------- */

static bool read_mode(const char *mode, bool *fine)
{
    *fine = mode && !strcmp(mode, "4x");
    return *fine || (mode && !strcmp(mode, "16x"));
}

static bool configure_slicer(slicer *s, const minicpmv *v, config *p, config *c, const char *where, bool film)
{
#define KEY(name) (snprintf(key, sizeof key, "%s." name, where), key)
    char key[96];
    const char *mode = config_string(p, KEY("downsample_mode"), "16x"), *model = config_string(c, "downsample_mode", "16x");
    bool fine;
    if (c->failed || !picture_config(&s->norm, p, where, picture_half, RESIZE_BICUBIC)) return false;
    if (!read_mode(mode, &s->fine) || !read_mode(model, &fine) || s->fine != fine)
        return config_fail(c, VLM_UNSUPPORTED, "downsample_mode \"%.20s\", of the %s \"%.20s\"; 4x or 16x was expected, the same in both", model, where, mode);
    s->sliced = config_bool(p, KEY("slice_mode"), true);
    s->ids = config_bool(p, "image_processor.use_image_id", true);
    s->most = (int)config_int(p, KEY("max_slice_nums"), 9, 1, 64);
    s->resolution = (int)config_int(p, KEY("scale_resolution"), 448, 1, 1 << 13);
    s->most_frames = (int)config_int(p, KEY("max_num_frames"), 128, 1, 1 << 14);
    int patch = (int)config_int(p, KEY("patch_size"), 14, 1, 256), stacked = film ? (int)config_int(p, KEY("stack_frames"), 1, 1, 64) : 1;
    if (!config_bool(p, KEY("do_resize"), true) || stacked > 1) return config_fail(c, VLM_UNSUPPORTED, "%s: do_resize false and stack_frames are not supported", where);
    if (p->failed) return false;
    return patch == v->base.tower.patch || config_fail(c, VLM_FORMAT, "the %s cuts patches of %d, the tower takes %d", where, patch, v->base.tower.patch);
#undef KEY
}

static bool pair_of_twos(config *c, const char *path)
{
    int64_t k[2] = {2, 2};
    return !config_has(c, path) || (config_ints(c, path, k, 2) == 2 && k[0] == 2 && k[1] == 2);
}

static bool configure(vlm_model *m, config *c)
{
    minicpmv *v = m->family = arena_alloc(&m->memory, sizeof *v);
    if (!v) return config_fail(c, VLM_MEMORY, "out of memory");
    if (!tower_lm_config(&v->base, m, c) || !image_tower_config(&v->base.tower, &m->memory, c, -1, true)) return false;
    v->insert = (int)config_int(c, "insert_layer_id", 6, 0, 1024);
    if (!pair_of_twos(c, "merge_kernel_size") || !pair_of_twos(c, "vision_config.window_kernel_size") || config_int(c, "merger_times", 1, 1, 16) != 1)
        return config_fail(c, VLM_UNSUPPORTED, "windows and merger other than 2 x 2, once, are not supported");
    if (v->insert >= v->base.tower.depth) return config_fail(c, VLM_FORMAT, "insert_layer_id %d of %d layers", v->insert, v->base.tower.depth);
    if (v->base.video_token >= 0) m->takes |= TAKES_VIDEO;
    return !c->failed && configure_slicer(&v->images, v, m->processor, c, "image_processor", false) &&
           configure_slicer(&v->frames, v, m->processor, c, "video_processor", true);
}

static void bind_mlp(binder *b, merge_mlp *w, int64_t in, int64_t middle, int64_t out, const char *name)
{
    bind_vector(b, &w->norm, in, "%spre_norm.weight", name);
    bind_vector(b, &w->norm_bias, in, "%spre_norm.bias", name);
    bind_linear(b, &w->up, middle, in, "%slinear_1", name);
    bind_vector(b, &w->up_bias, middle, "%slinear_1.bias", name);
    bind_linear(b, &w->down, out, middle, "%slinear_2", name);
    bind_vector(b, &w->down_bias, out, "%slinear_2.bias", name);
}

static bool bind(vlm_model *m, binder *b)
{
    minicpmv *v = m->family;
    int64_t d = v->base.tower.vit.hidden;
    vit_layer *w = &v->window;
    tower_lm_bind(&v->base, b);
    bind_mlp(b, &v->merger, 4 * d, 4 * d, v->base.text.spec.hidden, "merger.mlp.0.");
    bind_prefix(b, "vision_tower.vit_merger.", "model.vision_tower.vit_merger.", NULL);
    bind_mlp(b, &v->window_mlp, 4 * d, 4 * (int64_t)v->base.tower.vit.ffn, d, "");
    bind_vector(b, &w->norm1, d, "layer_norm1.weight");
    bind_vector(b, &w->norm1_bias, d, "layer_norm1.bias");
    struct { weight *w; const float **bias; const char *name; } parts[] = {
        {&w->q, &w->q_bias, "q_proj"}, {&w->k, &w->k_bias, "k_proj"}, {&w->v, &w->v_bias, "v_proj"}, {&w->proj, &w->proj_bias, "out_proj"}};
    for (int i = 0; i < 4; i++) {
        bind_linear(b, parts[i].w, d, d, "self_attn.%s", parts[i].name);
        bind_vector(b, parts[i].bias, d, "self_attn.%s.bias", parts[i].name);
    }
    return !b->failed;
}

/* ---- processor ---------------------------------------------------------------------------------------------------- */

static int whole_units(double side, int unit)
{
    double n = (double)round_half_even(side / unit) * unit;
    return (int)fmin(fmax(n, unit), 1e8);
}

/* About resolution x resolution pixels of that shape, in units. */
static void best_size(double height, double width, int resolution, int unit, bool enlarge, int *to_height, int *to_width)
{
    if (height * width > (double)resolution * resolution || enlarge) {
        double ratio = width / height;
        height = floor(resolution / sqrt(ratio));
        width = floor(height * ratio);
    }
    *to_height = whole_units(height, unit);
    *to_width = whole_units(width, unit);
}

/* The grid of about as many slices as the picture is larger than one, whose shape is nearest to its. False: one will do. */
static bool choose_grid(int height, int width, int resolution, int most, int *rows, int *columns)
{
    double shape = log((double)width / height), ratio = (double)width * height / ((double)resolution * resolution), least = INFINITY;
    int multiple = (int)fmin(ceil(ratio), most);
    if (multiple <= 1) return false;
    *rows = *columns = 1;
    for (int n = multiple - 1; n <= multiple + 1; n++)
        for (int r = 1; n > 1 && n <= most && r <= n; r++) {
            if (n % r) continue;
            double off = fabs(shape - log((double)(n / r) / r));
            if (off > least || (off == least && r <= *rows)) continue;
            least = off;
            *rows = r;
            *columns = n / r;
        }
    return true;
}

/* Sizes of the whole and the slices; *grid_height, *grid_width: of all slices together, in pixels. */
static void lay_out(const slicer *s, const media_item *item, const json_t *options, int height, int width, int patch, cut *c)
{
    const json_t *asked = options ? json_object_get(options, "slice_mode") : NULL, *numbered = options ? json_object_get(options, "use_image_id") : NULL;
    const char *mode = options ? json_string_value(json_object_get(options, "downsample_mode")) : NULL;
    bool sliced = json_is_boolean(asked) ? json_is_true(asked) : s->sliced, fine;
    int most = (int)fmin(fmax(media_option(item->part, options, "max_slice_nums", s->most), 1), 64), h, w;
    c->fine = mode && read_mode(mode, &fine) ? fine : s->fine;
    c->ids = json_is_boolean(numbered) ? json_is_true(numbered) : s->ids;
    int unit = patch * unit_of(c->fine);
    bool grid = sliced && choose_grid(height, width, s->resolution, most, &c->rows, &c->columns);
    best_size(height, width, s->resolution, unit, !grid, &h, &w);
    c->height = h / patch, c->width = w / patch;
    if (!grid) return;
    best_size((double)whole_units(height, c->rows) / c->rows, (double)whole_units(width, c->columns) / c->columns, s->resolution, unit, true, &h, &w);
    c->slice_height = h / patch, c->slice_width = w / patch;
}

/* The patches of the window at (y, x) into a strip [3][patch][total * patch], from patch `first` on. */
static void write_patches(const picture_norm *n, const image *img, int y, int x, int rows, int columns, int patch, float *strip, int64_t total, int64_t first)
{
    for (int c = 0; c < 3; c++)
        for (int line = 0; line < patch; line++) {
            float *out = strip + ((c * patch + line) * total + first) * patch;
            for (int i = 0; i < rows; i++) {
                const uint8_t *p = img->rgb + ((size_t)(y + i * patch + line) * (size_t)img->width + (size_t)x) * 3 + c;
                for (int k = 0; k < columns * patch; k++) *out++ = n->value[c][p[3 * k]];
            }
        }
}

static bool write_picture(const slicer *s, const image *img, const cut *c, int patch, float *strip, int64_t total, int64_t *at, vlm_error *error)
{
    image part;
    if (!image_resize(img, c->width * patch, c->height * patch, s->norm.filter, &part, error)) return false;
    write_patches(&s->norm, &part, 0, 0, c->height, c->width, patch, strip, total, *at);
    *at += (int64_t)c->height * c->width;
    image_free(&part);
    if (!c->rows) return true;
    int height = c->slice_height * patch, width = c->slice_width * patch;
    if (!image_resize(img, width * c->columns, height * c->rows, s->norm.filter, &part, error)) return false;
    for (int i = 0; i < c->rows * c->columns; i++, *at += (int64_t)c->slice_height * c->slice_width)
        write_patches(&s->norm, &part, i / c->columns * height, i % c->columns * width, c->slice_height, c->slice_width, patch, strip, total, *at);
    image_free(&part);
    return true;
}

static bool process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    const minicpmv *v = m->family;
    bool film = item->kind == MEDIA_VIDEO && (m->takes & TAKES_VIDEO);
    if (!film && !tower_lm_only_images(m, item, error)) return false;
    const slicer *s = film ? &v->frames : &v->images;
    const image *pictures = film ? item->video.frames : &item->image;
    int n = film ? item->video.count : 1, patch = v->base.tower.patch;
    if (n < 1) return err_set(error, VLM_INVALID, "video without frames");
    cut *c = out->family = arena_alloc(&out->memory, sizeof *c);
    if (!c) return err_memory(error, sizeof *c);
    lay_out(s, item, options, pictures[0].height, pictures[0].width, patch, c);
    c->frames = n;
    int slices = c->rows * c->columns;
    if (c->height > TOWER_MOST_PATCHES || c->width > TOWER_MOST_PATCHES || c->slice_height > TOWER_MOST_PATCHES || c->slice_width > TOWER_MOST_PATCHES)
        return err_set(error, VLM_UNSUPPORTED, "an image of %d x %d is too thin", pictures[0].width, pictures[0].height);
    int64_t total = (int64_t)n * (c->height * c->width + slices * c->slice_height * c->slice_width), at = 0;
    int64_t tokens = (int64_t)n * (tokens_of(c, c->height, c->width) + slices * tokens_of(c, c->slice_height, c->slice_width));
    if (!tower_lm_fits(m, item, tokens, error)) return false;
    out->kind = item->kind;
    out->tokens = (int)tokens;
    processed *pixels = media_input_add(out, film ? "pixel_values_videos" : "pixel_values", DT_F32, 4, (const int64_t[]){1, 3, patch, total * patch});
    processed *sizes = media_input_add(out, film ? "target_sizes_videos" : "target_sizes", DT_I32, 2, (const int64_t[]){(int64_t)n * (1 + slices), 2});
    if (!pixels || !sizes) return err_memory(error, (size_t)(3 * patch * patch * total) * sizeof(float));
    pixels->end_to_end = true;
    for (int i = 0; i < n * (1 + slices); i++) {
        ((int32_t *)sizes->data)[2 * i] = i % (1 + slices) ? c->slice_height : c->height;
        ((int32_t *)sizes->data)[2 * i + 1] = i % (1 + slices) ? c->slice_width : c->width;
    }
    for (int i = 0; i < n; i++)
        if (!write_picture(s, &pictures[i], c, patch, pixels->data, total, &at, error)) return false;
    return true;
}

/* A frame a second; of long videos as many as allowed, from a grid of tenths of seconds. */
static bool pick_frames(const vlm_model *m, const chat_media *part, const json_t *options, const video_info *info, int64_t **indices, int *count,
                        vlm_error *error)
{
    const minicpmv *v = m->family;
    double fps = info->fps > 0 ? info->fps : 24, seconds = info->duration > 0 ? info->duration : (double)info->total_frames / fps;
    int most = (int)fmin(fmax(media_option(part, options, "max_frames", v->frames.most_frames), 1), 1 << 14);
    bool chosen = media_has_option(part, options, "num_frames") || media_has_option(part, options, "fps");
    if (info->folder || chosen || seconds < 1) return tower_lm_pick(part, options, info, info->folder ? (int)fmin((double)info->total_frames, most) : most, indices, count, error);
    if (!tower_lm_pick(NULL, NULL, info, (int)fmin(ceil(seconds), most), indices, count, error)) return false;
    double tenths = floor(seconds / 0.1), step = *count > 1 ? (tenths - 1) / (*count - 1) : 0;
    for (int i = 0; i < *count; i++) {
        double second = seconds <= most ? i : (i == *count - 1 ? tenths - 1 : floor(i * step)) / 10;
        (*indices)[i] = (int64_t)fmin(floor(second * fps), (double)info->total_frames - 1);
    }
    return true;
}

/* ---- prompt ------------------------------------------------------------------------------------------------------- */

static void add_rows(buf *text, const char *begin, const char *token, int n, const char *end)
{
    buf_adds(text, begin);
    for (int i = 0; i < n; i++) buf_adds(text, token);
    buf_adds(text, end);
}

static bool expand(const vlm_model *m, const media_input *in, buf *text, vlm_error *error)
{
    const cut *c = in->family;
    const char *token = tower_lm_placeholder(m, in->kind);
    if (!token) token = "";
    if (c->ids) {                  /* how many of that kind came before */
        buf mark = {0};
        int number = 0;
        buf_addf(&mark, "</image_id><image>%s", token);
        for (const char *at = text->size ? text->data : NULL; mark.data && at && (at = strstr(at, mark.data)); at += mark.size) number++;
        if (mark.failed) return err_memory(error, mark.size);
        buf_free(&mark);
        buf_addf(text, "<image_id>%d</image_id>", number);
    }
    for (int f = 0; f < c->frames; f++) {
        add_rows(text, "<image>", token, tokens_of(c, c->height, c->width), "</image>");
        for (int i = 0; i < c->rows * c->columns; i++) {
            if (i && i % c->columns == 0) buf_adds(text, "\n");
            add_rows(text, "<slice>", token, tokens_of(c, c->slice_height, c->slice_width), "</slice>");
        }
    }
    return text->failed ? err_memory(error, text->size) : true;
}

/* ---- encoder ------------------------------------------------------------------------------------------------------ */

/* The strip's patches put back in their places: pictures again. */
static bool encode_start(run *r, const vlm_model *m, encode_job *job)
{
    const minicpmv *v = m->family;
    const cut *c = job->in->family;
    const processed *p = media_input_find(job->in, job->in->kind == MEDIA_VIDEO ? "pixel_values_videos" : "pixel_values");
    int each = 1 + c->rows * c->columns, n = c->frames * each, patch = v->base.tower.patch;
    tower_image *images = run_alloc(r, (size_t)n * sizeof *images);
    if (!p || !p->data) return run_fail(r, VLM_INTERNAL, "no pixels to encode");
    int64_t strip = p->dim[3], first = 0;
    for (int i = 0; images && i < n; i++) {
        int rows = i % each ? c->slice_height : c->height, columns = i % each ? c->slice_width : c->width, height = rows * patch, width = columns * patch;
        float *pixels = arena_alloc_raw(job->memory, (size_t)3 * (size_t)height * (size_t)width * sizeof *pixels);
        int32_t *position = arena_alloc(job->memory, (size_t)(rows * columns) * sizeof *position);
        if (!pixels || !position) return run_fail(r, VLM_MEMORY, "out of memory");
        image_tower_buckets(&v->base.tower, rows, columns, position);
        images[i] = (tower_image){pixels, height, width, position};
        for (int64_t line = 0; line < 3 * (int64_t)height; line++, pixels += width)
            memcpy(pixels, (const float *)p->data + (line / height * patch + line % patch) * strip + (first + line % height / patch * columns) * patch,
                   (size_t)width * sizeof *pixels);
        first += (int64_t)rows * columns;
    }
    return images && image_tower_start(r, &v->base.tower, job, images, n);
}

/* Features of all pictures, sides divided by `by`, in blocks of 2 x 2. */
static tensor blocks(run *r, const cut *c, tensor x, int by)
{
    int each = 1 + c->rows * c->columns;
    int32_t *index = run_alloc(r, (size_t)(x.rows + 1) * sizeof *index), *at = index, first = 0;
    for (int i = 0; index && i < c->frames * each; i++) {
        int rows = (i % each ? c->slice_height : c->height) / by, columns = (i % each ? c->slice_width : c->width) / by;
        for (int y = 0; y < rows; y += 2)
            for (int z = 0; z < columns; z += 2)
                for (int k = 0; k < 4; k++) *at++ = first + (y + k / 2) * columns + z + k % 2;
        first += rows * columns;
    }
    return op_gather(r, x, index, x.rows);
}

static tensor merge(run *r, const merge_mlp *w, tensor x, activation act, float eps)
{
    x = (tensor){x.data, DT_F32, x.rows / 4, 4 * x.cols, 4 * x.cols};
    x = op_linear(r, op_layernorm(r, x, w->norm, w->norm_bias, eps), &w->up, w->up_bias);
    op_activate(r, x, act);
    return op_linear(r, x, &w->down, w->down_bias);
}

/* Windows of 2 x 2 features look at each other and become one: the MLP of all four and their mean. */
static void merge_windows(run *r, const minicpmv *v, const cut *c, encode_job *job)
{
    const vit_spec *s = &v->base.tower.vit;
    tensor x = blocks(r, c, job->x, 1), none = {0};
    int windows = (int)(x.rows / 4);
    int32_t *starts = run_alloc(r, (size_t)(windows + 1) * sizeof *starts), *mean = run_alloc(r, (size_t)(x.rows + 1) * sizeof *mean);
    if (!run_ok(r)) return;
    for (int i = 0; i <= windows; i++) starts[i] = 4 * i;
    for (int i = 0; i < x.rows; i++) mean[i] = i / 4;
    vit_attend(r, s, &v->window, -1, x, none, none, starts, windows);
    tensor out = merge(r, &v->window_mlp, x, ACT_GELU_TANH, s->eps);
    op_scatter_add(r, out, x, mean, 0.25f);
    image_tower_reduce(r, job, out, 4);
}

static bool encode(run *r, const vlm_model *m, encode_job *job)
{
    const minicpmv *v = m->family;
    const cut *c = job->in->family;
    int layer = job->stage;
    if (!image_tower_encode(r, &v->base.tower, job)) return false;
    if (layer == v->insert && !c->fine) merge_windows(r, v, c, job);
    if (job->stage == job->stages)
        image_tower_set_rows(r, job, merge(r, &v->merger, blocks(r, c, image_tower_features(r, &v->base.tower, job), c->fine ? 1 : 2), ACT_GELU, 1e-6f));
    return run_ok(r);
}

static const char *const types[] = {"minicpmv4_6", NULL};

static const media_rules rules = {.image = "slice_mode? max_slice_nums downsample_mode* use_image_id?", .video = "slice_mode? max_slice_nums downsample_mode* use_image_id?",
                                  .low = "{\"slice_mode\": false}"};

const vlm_arch vlm_arch_minicpmv4_6 = {
    .name = "minicpmv4_6",
    .title = "MiniCPM-V 4.6",
    .model_types = types,
    .rules = &rules,
    .task = TASK_GENERATE,
    .takes = TAKES_IMAGE | TAKES_VIDEO,
    .configure = configure,
    .bind = bind,
    .process = process,
    .pick_frames = pick_frames,
    .placeholder = tower_lm_placeholder,
    .media_token = tower_lm_media_token,
    .expand = expand,
    .encode_start = encode_start,
    .encode = encode,
    .forward = tower_lm_forward,
};
