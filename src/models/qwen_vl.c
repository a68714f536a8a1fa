/* qwen_vl.c - see qwen_vl.h. Rules: transformers image_processing_qwen2_vl.py, video_processing_qwen2_vl.py; frames as qwen-vl-utils and
 * mlx-vlm choose them. */
#include "models/qwen_vl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"

enum { MAX_TEMPORAL = 16, TOKENS_LIMIT = 1 << 20 };

/* ---- configuration ------------------------------------------------------------------------------------------------ */

static void configure_norm(patch_spec *p, config *c)
{
    static const double clip_mean[] = {0.48145466, 0.4578275, 0.40821073}, clip_std[] = {0.26862954, 0.26130258, 0.27577711};
    double mean[PATCH_CHANNELS], std[PATCH_CHANNELS];
    bool has_mean = c && config_numbers(c, "image_processor.image_mean", mean, PATCH_CHANNELS) == PATCH_CHANNELS;
    bool has_std = c && config_numbers(c, "image_processor.image_std", std, PATCH_CHANNELS) == PATCH_CHANNELS;
    for (int i = 0; i < PATCH_CHANNELS; i++) {
        p->mean[i] = (float)(has_mean ? mean[i] : clip_mean[i]);
        p->std[i] = (float)(has_std ? std[i] : clip_std[i]);
        if (c && !(p->std[i] > 0)) config_fail(c, VLM_FORMAT, "image_std must be positive");
    }
    p->rescale = c ? config_number(c, "image_processor.rescale_factor", 1 / 255.0) : 1 / 255.0;
    if (c && !(p->rescale > 0)) config_fail(c, VLM_FORMAT, "rescale_factor must be positive");
}

/* Later versions call the number of pixels an edge. */
static int64_t pixels(config *c, const char *where, const char *name, const char *edge, int64_t fallback)
{
    char path[256];
    snprintf(path, sizeof path, "%s.%s|%s.size.%s|%s.size.%s", where, name, where, edge, where, name);
    return c ? config_int(c, path, fallback, 1, (int64_t)1 << 40) : fallback;
}

bool qwen_vl_configure(qwen_vl_processor *p, config *processor, config *c)
{
    patch_spec *s = &p->patch;
    s->patch = (int)config_int(c, "vision_config.patch_size", 14, 1, 256);
    s->merge = (int)config_int(c, "vision_config.spatial_merge_size", 2, 1, 16);
    s->temporal = (int)config_int(c, "vision_config.temporal_patch_size", 2, 1, MAX_TEMPORAL);
    configure_norm(s, processor);
    p->image.min_pixels = pixels(processor, "image_processor", "min_pixels", "shortest_edge", 56 * 56);
    p->image.max_pixels = pixels(processor, "image_processor", "max_pixels", "longest_edge", 28 * 28 * 1280);
    p->video.min_pixels = pixels(processor, "video_processor", "min_pixels", "shortest_edge", 128 * 28 * 28);
    p->video.max_pixels = pixels(processor, "video_processor", "max_pixels", "longest_edge", 28 * 28 * 768);
    p->fps = processor ? config_number(processor, "video_processor.fps", 2) : 2;
    p->min_frames = processor ? (int)config_int(processor, "video_processor.min_frames", 4, 1, 1 << 20) : 4;
    p->max_frames = processor ? (int)config_int(processor, "video_processor.max_frames", 768, 1, 1 << 20) : 768;
    p->image_token = (int32_t)config_int(c, "image_token_id", 151655, 0, INT32_MAX);
    p->video_token = (int32_t)config_int(c, "video_token_id", 151656, 0, INT32_MAX);
    p->tokens_per_second = config_number(c, "vision_config.tokens_per_second", 0);
    if (processor && processor->failed && !c->failed) {
        c->failed = true;
        c->error = processor->error;
    }
    return !c->failed;
}

/* ---- processor ---------------------------------------------------------------------------------------------------- */

/* Sides of at least `factor`, the other in proportion. */
static bool enlarge_thin(int factor, int *height, int *width, vlm_error *error)
{
    double h = *height, w = *width;
    if (h < factor) w = (double)round_half_even(w * factor / h), h = factor;
    if (w < factor) h = (double)round_half_even(h * factor / w), w = factor;
    if (h > 1e6 || w > 1e6) return err_set(error, VLM_UNSUPPORTED, "image of %d x %d is too thin", *width, *height);
    *height = (int)h;
    *width = (int)w;
    return true;
}

/* The size that frames of width x height get. A video that would not fit the context shares it out among its frames, as qwen-vl-utils does. */
static bool target_size(const vlm_model *m, const qwen_vl_processor *p, const media_item *item, const json_t *options, int *out_width, int *out_height,
                        vlm_error *error)
{
    bool film = item->kind == MEDIA_VIDEO;
    int frames = film ? item->video.count : 1, width = film ? item->video.info.width : item->image.width;
    int height = film ? item->video.info.height : item->image.height;
    const qwen_vl_limits *limits = item->kind == MEDIA_VIDEO ? &p->video : &p->image;
    int factor = p->patch.patch * p->patch.merge;
    double given_min = media_option(item->part, options, "min_pixels", (double)limits->min_pixels);
    double given_max = media_option(item->part, options, "max_pixels", (double)limits->max_pixels);
    int64_t max_pixels = (int64_t)fmin(fmax(given_max, (double)factor * factor), 1e12);
    int64_t min_pixels = (int64_t)fmin(fmax(given_min, 1), (double)max_pixels);
    double to_height = media_option(item->part, options, "resized_height", 0), to_width = media_option(item->part, options, "resized_width", 0);
    if (to_height >= 1 && to_width >= 1 && to_height <= 65535 && to_width <= 65535) {
        height = (int)to_height;
        width = (int)to_width;
    }
    if (p->enlarge_thin && height > 0 && width > 0 && !enlarge_thin(factor, &height, &width, error)) return false;
    bool whole = item->kind == MEDIA_VIDEO ? p->timestamps : p->image_is_group;
    if (whole ? !smart_resize_video(height, width, frames, p->patch.temporal, factor, min_pixels, max_pixels, out_height, out_width, error)
              : !smart_resize(height, width, factor, min_pixels, max_pixels, out_height, out_width, error)) return false;
    int64_t groups = (frames + p->patch.temporal - 1) / p->patch.temporal, tokens = groups * (*out_height / factor) * (*out_width / factor);
    if (item->kind == MEDIA_VIDEO && tokens > (int64_t)m->context * 9 / 10 && groups > 0) {
        int64_t share = (int64_t)m->context * 9 / 10 / groups * factor * factor;
        max_pixels = share < max_pixels ? share : max_pixels;
        if (max_pixels < (int64_t)factor * factor) max_pixels = (int64_t)factor * factor;
        if (min_pixels > max_pixels) min_pixels = max_pixels;
        return smart_resize(height, width, factor, min_pixels, max_pixels, out_height, out_width, error);
    }
    return true;
}

bool qwen_vl_frame_size(const vlm_model *m, const qwen_vl_processor *p, const media_item *item, const json_t *options, int *width, int *height,
                        resize_filter *filter, vlm_error *error)
{
    *filter = RESIZE_BICUBIC;
    return target_size(m, p, item, options, width, height, error);
}

static void free_resized(image *resized, const image *frames, int count)
{
    for (int i = 0; i < count; i++)
        if (resized[i].rgb != frames[i].rgb) image_free(&resized[i]);
    mem_free(resized);
}

/* Resized copies. Frames of a video come in their size already and are taken as they are. */
static image *resize_frames(const image *frames, int count, int width, int height, vlm_error *error)
{
    image *out = MEM_ARRAY((size_t)count, image);
    if (!out) return err_memory(error, (size_t)count * sizeof *out), NULL;
    for (int i = 0; i < count; i++)
        if (frames[i].width == width && frames[i].height == height && !frames[i].gray) out[i] = frames[i];
        else if (!image_resize(&frames[i], width, height, RESIZE_BICUBIC, &out[i], error)) return free_resized(out, frames, i), NULL;
    return out;
}

static bool add_grid(media_input *out, const char *name)
{
    processed *p = media_input_add(out, name, DT_I64, 2, (const int64_t[]){1, 3});
    for (int i = 0; p && i < 3; i++) ((int64_t *)p->data)[i] = out->grid[i];
    return p != NULL;
}

/* Seconds that a frame group stands for. */
static void time_groups(const qwen_vl_processor *p, const video *v, media_input *out)
{
    double fps = v->info.fps > 0 ? v->info.fps : 24;
    double sampled = v->info.total_frames > 0 ? (double)v->count / (double)v->info.total_frames * fps : fps;
    out->seconds_per_grid = p->patch.temporal / sampled;
    out->frames = out->grid[0];
    out->seconds = arena_alloc(&out->memory, (size_t)out->frames * sizeof *out->seconds);
    for (int g = 0; out->seconds && g < out->frames; g++) {                     /* middle of the group's frames */
        int first = g * p->patch.temporal, last = first + p->patch.temporal - 1;
        if (last >= v->count) last = v->count - 1;
        if (p->first_times) last = first;
        out->seconds[g] = v->seconds ? (v->seconds[first] + v->seconds[last]) / 2 : (first + last) / 2.0 / fps;
    }
}

bool qwen_vl_process(const vlm_model *m, const qwen_vl_processor *p, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    bool is_video = item->kind == MEDIA_VIDEO;
    if (!is_video && item->kind != MEDIA_IMAGE) return err_set(error, VLM_UNSUPPORTED, "%s takes images and videos, no %s", m->arch->title, media_kind_name(item->kind));
    const image *frames = is_video ? item->video.frames : &item->image;
    int count = is_video ? item->video.count : 1, width, height;
    if (count < 1) return err_set(error, VLM_INVALID, "video without frames");
    if (!target_size(m, p, item, options, &width, &height, error)) return false;

    const patch_spec *s = &p->patch;
    int64_t groups = (count + s->temporal - 1) / s->temporal, rows = height / s->patch, columns = width / s->patch, n = groups * rows * columns;
    int64_t tokens = n / (s->merge * s->merge), values = (int64_t)PATCH_CHANNELS * s->temporal * s->patch * s->patch;
    if (tokens > m->context || tokens > TOKENS_LIMIT) {
        err_set(error, VLM_LIMIT, "%s of %d x %d becomes %lld tokens, the model's context has %d", media_kind_name(item->kind), is_video ? item->video.info.width : frames[0].width, is_video ? item->video.info.height : frames[0].height,
                (long long)tokens, m->context);
        return err_hint(error, "give a smaller max_pixels%s", is_video ? " or fewer frames (fps, num_frames)" : "");
    }
    out->kind = item->kind;
    out->grid[0] = (int)groups, out->grid[1] = (int)rows, out->grid[2] = (int)columns;
    out->tokens = (int)tokens;
    processed *patches = media_input_add(out, is_video ? "pixel_values_videos" : "pixel_values", DT_F32, 2, (const int64_t[]){n, values});
    bool ok = patches && add_grid(out, is_video ? "video_grid_thw" : "image_grid_thw");
    if (ok && is_video) {
        time_groups(p, &item->video, out);
        processed *seconds = media_input_add(out, "second_per_grid_ts", DT_F32, 1, (const int64_t[]){1});
        if ((ok = seconds && out->seconds)) *(float *)seconds->data = (float)out->seconds_per_grid;
    }
    if (!ok) return err_memory(error, (size_t)(n * values) * sizeof(float));
    image *resized = resize_frames(frames, count, width, height, error);
    if (!resized) return false;
    patchify(resized, count, width, height, s, patches->data);
    free_resized(resized, frames, count);
    return true;
}

/* ---- frames ------------------------------------------------------------------------------------------------------- */

static int64_t floor_to(double x, int factor) { return (int64_t)floor(x / factor) * factor; }

/* How many frames: an asked number, or so many a second within min and max; whole groups. */
static int64_t frames_wanted(const qwen_vl_processor *p, const chat_media *part, const json_t *options, const video_info *info, double fps)
{
    int factor = p->patch.temporal;
    double total = (double)info->total_frames, native = info->fps > 0 ? info->fps : 24;
    double exact = media_option(part, options, "num_frames", media_option(part, options, "nframes", 0));
    if (p->timestamps) {                                                        /* groups need not be whole */
        double n = exact > 0 ? floor(exact) : floor(total / native * fps);
        if (!(exact > 0)) n = fmin(fmax(n, media_option(part, options, "min_frames", p->min_frames)), media_option(part, options, "max_frames", p->max_frames));
        return (int64_t)fmin(n, total);
    }
    if (exact > 0) return round_half_even(fmin(exact, total) / factor) * factor;
    double least = ceil(media_option(part, options, "min_frames", p->min_frames) / factor) * factor;
    double most = (double)floor_to(fmin(media_option(part, options, "max_frames", p->max_frames), total), factor);
    return floor_to(fmin(fmin(fmax(total / native * fps, least), most), total), factor);
}

bool qwen_vl_pick_frames(const qwen_vl_processor *p, const chat_media *part, const json_t *options, const video_info *info, int64_t **indices, int *count,
                         vlm_error *error)
{
    int64_t total = info->total_frames;
    if (total < 1) return err_set(error, VLM_INVALID, "video without frames");
    bool counted = media_has_option(part, options, "num_frames") || media_has_option(part, options, "nframes");
    double part_fps = part ? part->fps : 0, fps = part_fps > 0 ? part_fps : media_option(part, options, "fps", p->fps);
    if (p->timestamps && info->folder && part_fps > 0) fps = p->fps;           /* the part's is the rate of the folder */
    /* Frames that were taken at the asked rate already (a folder of frames) all count, also an odd number. */
    bool all = !p->timestamps && !counted && part_fps > 0 && fabs(part_fps - info->fps) < 1e-6 * part_fps && total <= p->max_frames;
    int64_t n = all ? total : frames_wanted(p, part, options, info, fps);
    if (n < 1) n = total < p->patch.temporal ? total : p->patch.temporal;
    if (n > total) n = total;
    int64_t *list = n <= INT32_MAX ? MEM_ARRAY((size_t)n, int64_t) : NULL;
    if (!list) return err_memory(error, (size_t)n * sizeof *list);
    double step = n > 1 ? (double)(total - 1) / (double)(n - 1) : 0;           /* numpy.linspace(0, total - 1, n).round() */
    for (int64_t i = 0; i < n; i++) list[i] = n > 1 && i == n - 1 ? total - 1 : round_half_even((double)i * step);
    *indices = list;
    *count = (int)n;
    return true;
}

/* ---- prompt ------------------------------------------------------------------------------------------------------- */

/* Where times are told, the marks around a video go with its placeholder: each frame group gets marks of its own. */
const char *qwen_vl_placeholder(const qwen_vl_processor *p, media_kind kind)
{
    if (kind == MEDIA_VIDEO && p->timestamps) return "<|vision_start|><|video_pad|><|vision_end|>";
    return kind == MEDIA_IMAGE ? "<|image_pad|>" : kind == MEDIA_VIDEO ? "<|video_pad|>" : NULL;
}

bool qwen_vl_expand(const qwen_vl_processor *p, const media_input *in, buf *text, vlm_error *error)
{
    const char *token = in->kind == MEDIA_IMAGE ? "<|image_pad|>" : "<|video_pad|>";
    bool timed = in->kind == MEDIA_VIDEO && p->timestamps;
    int groups = timed && in->frames > 0 ? in->frames : 1;
    for (int g = 0; g < groups; g++) {
        if (timed) buf_addf(text, "<%.1f seconds><|vision_start|>", in->seconds ? in->seconds[g] : 0);
        for (int i = 0; i < in->tokens / groups; i++) buf_adds(text, token);
        if (timed) buf_adds(text, "<|vision_end|>");
    }
    return text->failed ? err_memory(error, text->size) : true;
}

/* Returns the largest position given + 1. */
static int32_t place_medium(const qwen_vl_processor *p, const media_input *in, const media_span *span, int32_t start, int32_t *const *axes)
{
    int rows = in->grid[1] / p->patch.merge, columns = in->grid[2] / p->patch.merge;
    double step = in->kind == MEDIA_VIDEO && p->tokens_per_second > 0 ? (double)(float)in->seconds_per_grid * p->tokens_per_second : 1;
    int32_t last = start - 1;
    for (int i = 0; i < span->count; i++) {
        int row = p->timestamps ? (span->row + i) % (rows * columns) : span->row + i, place[3] = {(int)(row / (rows * columns) * step), row / columns % rows, row % columns};
        for (int a = 0; a < 3; a++) {
            axes[a][span->first + i] = start + place[a];
            if (start + place[a] > last) last = start + place[a];
        }
    }
    return last + 1;
}

bool qwen_vl_positions(const qwen_vl_processor *p, int n, const media_span *spans, int n_spans, media_input *const *media, int32_t *const *axes,
                       int32_t *next, vlm_error *error)
{
    int32_t at = 0;
    int i = 0;
    for (int s = 0; s <= n_spans; s++) {
        int stop = s < n_spans ? spans[s].first : n;
        for (; i < stop; i++, at++)
            for (int a = 0; a < 3; a++) axes[a][i] = at;
        if (s == n_spans) break;
        const media_input *in = media[spans[s].media];
        if (spans[s].first + spans[s].count > n || spans[s].row + spans[s].count > in->tokens || in->grid[1] < p->patch.merge || in->grid[2] < p->patch.merge)
            return err_set(error, VLM_INTERNAL, "medium of %d tokens does not fit its place in the prompt", in->tokens);
        at = place_medium(p, in, &spans[s], at, axes);
        i = spans[s].first + spans[s].count;
    }
    *next = at;
    return true;
}

/* ---- decoder, processor and tower together -------------------------------------------------------------------------- */

bool qwen_vl_plan(qwen_vl *q, vlm_model *m, config *c)
{
    if (!decoder_plan(&q->text, &m->memory, c)) return false;
    model_use_decoder(m, &q->text);
    m->rope_axes = 3;
    m->takes = TAKES_IMAGE | TAKES_VIDEO;
    q->tower.patch = q->processor.patch;
    return qwen_tower_plan(&q->tower, &m->memory, c, q->text.spec.hidden);
}

const qwen_tower_names qwen3_vl_tower_names = {
    .layer = {.norm1 = "norm1", .norm2 = "norm2", .qkv = "attn.qkv", .proj = "attn.proj", .up = "mlp.linear_fc1", .down = "mlp.linear_fc2"},
    .norm = "norm", .up = "linear_fc1", .down = "linear_fc2",
};

bool qwen3_vl_configure(qwen_vl *q, config *processor, config *c)
{
    qwen_tower *t = &q->tower;
    if (!qwen_vl_configure(&q->processor, processor, c)) return false;
    q->processor.timestamps = true;
    t->vit = (vit_spec){
        .hidden = (int)config_need_int(c, "vision_config.hidden_size", 1, 1 << 16),
        .heads = (int)config_need_int(c, "vision_config.num_heads", 1, 1 << 10),
        .ffn = (int)config_need_int(c, "vision_config.intermediate_size", 1, 1 << 20),
        .act = config_activation(c, "vision_config.hidden_act", "gelu_pytorch_tanh"),
        .eps = 1e-6f,
        .layernorm = true,
    };
    t->depth = (int)config_need_int(c, "vision_config.depth", 1, QWEN_MAX_DEPTH);
    t->out = (int)config_int(c, "vision_config.out_hidden_size", q->text.spec.hidden, 1, 1 << 20);
    int table = (int)config_int(c, "vision_config.num_position_embeddings", 2304, 1, 1 << 20);
    t->side = (int)sqrt(table);
    int64_t after[QWEN_MAX_LEVELS];
    t->levels = config_ints(c, "vision_config.deepstack_visual_indexes", after, QWEN_MAX_LEVELS);
    for (int i = 0; i < t->levels; i++) {
        t->level_after[i] = (int)after[i];
        if (after[i] < (i ? after[i - 1] + 1 : 0) || after[i] >= t->depth)
            return config_fail(c, VLM_FORMAT, "vision_config.deepstack_visual_indexes: rising numbers below the depth (%d) were expected", t->depth);
    }
    if (!c->failed && t->side * t->side != table) return config_fail(c, VLM_FORMAT, "vision_config.num_position_embeddings %d is no square", table);
    if (!c->failed && t->levels > q->text.spec.layers)
        return config_fail(c, VLM_FORMAT, "%d deepstack levels, but the decoder has %d layers", t->levels, q->text.spec.layers);
    return !c->failed;
}

static const qwen_vl *family(const vlm_model *m) { return m->family; }

bool qwen_vl_arch_process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    return qwen_vl_process(m, &family(m)->processor, item, options, out, error);
}

bool qwen_vl_arch_frame_size(const vlm_model *m, const media_item *item, const json_t *options, int *width, int *height, resize_filter *filter, vlm_error *error)
{
    return qwen_vl_frame_size(m, &family(m)->processor, item, options, width, height, filter, error);
}

bool qwen_vl_arch_pick_frames(const vlm_model *m, const chat_media *part, const json_t *options, const video_info *info, int64_t **indices, int *count,
                              vlm_error *error)
{
    return qwen_vl_pick_frames(&family(m)->processor, part, options, info, indices, count, error);
}

const char *qwen_vl_arch_placeholder(const vlm_model *m, media_kind kind) { return qwen_vl_placeholder(&family(m)->processor, kind); }

int32_t qwen_vl_arch_media_token(const vlm_model *m, media_kind kind)
{
    return kind == MEDIA_IMAGE ? family(m)->processor.image_token : kind == MEDIA_VIDEO ? family(m)->processor.video_token : -1;
}

bool qwen_vl_arch_expand(const vlm_model *m, const media_input *in, buf *text, vlm_error *error)
{
    return qwen_vl_expand(&family(m)->processor, in, text, error);
}

bool qwen_vl_arch_positions(const vlm_model *m, const int32_t *id, int n, const media_span *spans, int n_spans, media_input *const *media,
                            int32_t *const *axes, int32_t *next, vlm_error *error)
{
    return qwen_vl_positions(&family(m)->processor, n, spans, n_spans, media, axes, next, error);
}

bool qwen_vl_arch_encode_start(run *r, const vlm_model *m, encode_job *job) { return qwen_tower_start(r, &family(m)->tower, job); }

bool qwen_vl_arch_encode(run *r, const vlm_model *m, encode_job *job) { return qwen_tower_encode(r, &family(m)->tower, job); }

tensor qwen_vl_arch_forward(run *r, const vlm_model *m, const batch *b) { return decoder_forward(r, &family(m)->text, b); }
