/* gemma4_media.c - Gemma 4's processors: image, frames and sound to the tensors that the reference's processors give
 * (image_processing_gemma4, video_processing_gemma4, feature_extraction_gemma4 and their _unified counterparts), and the text that takes
 * a placeholder's place. */
#include "models/gemma4.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"

/* ---- settings ----------------------------------------------------------------------------------------------------- */

static const int SOFT_TOKENS[] = {70, 140, 280, 560, 1120};

static bool soft_tokens_known(int n)
{
    for (size_t i = 0; i < sizeof SOFT_TOKENS / sizeof *SOFT_TOKENS; i++) {
        if (SOFT_TOKENS[i] == n) return true;
    }
    return false;
}

/* "NAME.key", and for images the flat spelling of preprocessor_config.json. */
static const char *setting(char *path, size_t size, const char *name, bool flat, const char *key)
{
    snprintf(path, size, flat ? "%s.%s|%s" : "%s.%s", name, key, key);
    return path;
}

static void image_levels(gemma4_image_settings *s, config *c, const char *name, bool flat, bool normalize)
{
    char path[128];
    double scale = config_number(c, setting(path, sizeof path, name, flat, "rescale_factor"), 1.0 / 255.0);
    double mean[3] = {0, 0, 0}, deviation[3] = {1, 1, 1};
    bool rescale = config_bool(c, setting(path, sizeof path, name, flat, "do_rescale"), true);
    normalize = config_bool(c, setting(path, sizeof path, name, flat, "do_normalize"), normalize);
    config_numbers(c, setting(path, sizeof path, name, flat, "image_mean"), mean, 3);
    config_numbers(c, setting(path, sizeof path, name, flat, "image_std"), deviation, 3);
    for (int channel = 0; channel < 3; channel++) {
        /* the reference folds the scale into mean and deviation when both are asked for */
        float m = (float)(rescale ? mean[channel] / scale : mean[channel]);
        float d = (float)(rescale ? deviation[channel] / scale : deviation[channel]);
        for (int i = 0; i < 256; i++) {
            float value = (float)i;
            if (normalize) value = (value - m) / d;
            else if (rescale) value *= (float)scale;
            s->level[channel][i] = value;
        }
    }
}

static bool image_settings(gemma4_image_settings *s, config *c, const char *name, bool flat, int soft_tokens, int patch, int pool)
{
    static const resize_filter filters[] = {RESIZE_NEAREST, RESIZE_LANCZOS, RESIZE_BILINEAR, RESIZE_BICUBIC};
    char path[128];
    s->patch = (int)config_int(c, setting(path, sizeof path, name, flat, "patch_size"), patch, 1, 256);
    s->pool = (int)config_int(c, setting(path, sizeof path, name, flat, "pooling_kernel_size"), pool, 1, 64);
    s->soft_tokens = (int)config_int(c, setting(path, sizeof path, name, flat, "max_soft_tokens"), soft_tokens, 1, 1 << 16);
    s->filter = filters[config_int(c, setting(path, sizeof path, name, flat, "resample"), 3, 0, 3)];
    s->num_frames = (int)config_int(c, setting(path, sizeof path, name, flat, "num_frames"), 32, 0, 1 << 20);
    s->fps = config_number(c, setting(path, sizeof path, name, flat, "fps"), 0);
    image_levels(s, c, name, flat, strcmp(name, "video_processor") == 0);
    if (c->failed) return false;
    if (!config_bool(c, setting(path, sizeof path, name, flat, "do_resize"), true)) {
        return config_fail(c, VLM_UNSUPPORTED, "%s: do_resize false is not supported", name);
    }
    if (!soft_tokens_known(s->soft_tokens)) {
        return config_fail(c, VLM_FORMAT, "%s: max_soft_tokens is %d; 70, 140, 280, 560 or 1120 was expected", name,
                           s->soft_tokens);
    }
    return true;
}

bool gemma4_media_configure(vlm_model *m, gemma4 *g)
{
    config *c = m->cfg, *p = m->processor;
    if (m->takes & (TAKES_IMAGE | TAKES_VIDEO)) {
        int patch = (int)config_int(c, "vision_config.patch_size", 16, 1, 256);
        int pool = (int)config_int(c, "vision_config.pooling_kernel_size", 3, 1, 64);
        int soft = (int)config_int(c, "vision_soft_tokens_per_image", 280, 1, 1 << 16);
        if (!image_settings(&g->image, p, "image_processor", true, soft, patch, pool) ||
            !image_settings(&g->video, p, "video_processor", false, 70, patch, pool)) {
            return false;
        }
    }
    return !(m->takes & TAKES_AUDIO) || gemma_sound_config(&g->sound, &m->memory, p, true);
}

/* ---- images and frames -------------------------------------------------------------------------------------------- */

bool gemma4_size(int width, int height, int patch, int max_patches, int pool, int *out_width, int *out_height, vlm_error *error)
{
    if (width < 1 || height < 1) return err_set(error, VLM_FORMAT, "an image of %d x %d has no pixels", width, height);
    double target = (double)max_patches * patch * patch, factor = sqrt(target / ((double)height * width));
    int64_t side = (int64_t)pool * patch, most = max_patches / (pool * pool) * side;
    int64_t h = (int64_t)floor(factor * height / (double)side) * side, w = (int64_t)floor(factor * width / (double)side) * side;
    if (h == 0 && w == 0) return err_set(error, VLM_FORMAT, "an image of %d x %d is too small", width, height);
    if (h == 0) {
        h = side;
        w = (int64_t)floor((double)width / height) * side;
        if (w > most) w = most;
    } else if (w == 0) {
        w = side;
        h = (int64_t)floor((double)height / width) * side;
        if (h > most) h = most;
    }
    if ((double)h * (double)w > target) {
        return err_set(error, VLM_FORMAT, "an image of %d x %d does not fit into %d patches", width, height, max_patches);
    }
    *out_width = (int)w;
    *out_height = (int)h;
    return true;
}

/* out [patches, side * side * 3]: pixels of a patch row by row, channels together. */
static void cut_patches(const gemma4_image_settings *s, const image *img, int side, float *out)
{
    for (int top = 0; top + side <= img->height; top += side) {
        for (int left = 0; left + side <= img->width; left += side) {
            for (int y = 0; y < side; y++) {
                const uint8_t *in = img->rgb + ((size_t)(top + y) * (size_t)img->width + (size_t)left) * 3;
                for (int x = 0; x < side; x++, in += 3, out += 3) {
                    out[0] = s->level[0][in[0]];
                    out[1] = s->level[1][in[1]];
                    out[2] = s->level[2][in[2]];
                }
            }
        }
    }
}

static bool add_frame(const gemma4_image_settings *s, const image *img, int side, int width, int height, float *out, vlm_error *error)
{
    image resized = {0};
    bool same = img->width == width && img->height == height && !img->gray;
    if (!same && !image_resize(img, width, height, s->filter, &resized, error)) return false;
    cut_patches(s, same ? img : &resized, side, out);
    image_free(&resized);
    return true;
}

/* Frames of one size, each padded with zero patches at position (-1, -1) to the same number. */
static bool process_frames(const vlm_model *m, const gemma4_image_settings *s, int soft_tokens, const media_item *item, media_input *out, vlm_error *error)
{
    bool moving = item->kind == MEDIA_VIDEO;
    const image *frames = moving ? item->video.frames : &item->image;
    int count = moving ? item->video.count : 1, from_width = moving ? item->video.info.width : frames->width, from_height = moving ? item->video.info.height : frames->height;
    const gemma4 *g = m->family;
    int width, height, max_patches = soft_tokens * s->pool * s->pool, side = g->unified ? s->patch * s->pool : s->patch;
    if (!gemma4_size(from_width, from_height, s->patch, max_patches, s->pool, &width, &height, error)) return false;
    int64_t slots = g->unified ? soft_tokens : max_patches, values = 3LL * side * side;
    int columns = width / side, rows = height / side, positions = g->unified ? g->embedder.positions : g->vision.positions;
    if (columns > positions || rows > positions) {
        return err_set(error, VLM_LIMIT, "an image of %d x %d patches: the model has %d positions", columns, rows, positions);
    }
    int64_t tokens = (int64_t)count * columns * rows / (g->unified ? 1 : s->pool * s->pool);
    if (tokens > m->context) {
        err_set(error, VLM_LIMIT, "%d x %d tokens of pictures: the model's context has %d", count, (int)(tokens / count), m->context);
        return err_hint(error, moving ? "give fewer frames (num_frames, fps)" : "give a smaller max_soft_tokens");
    }
    const char *pixels_name = moving ? "pixel_values_videos" : "pixel_values";
    const char *place_name = moving ? "video_position_ids" : "image_position_ids";
    processed *pixels = media_input_add(out, pixels_name, DT_F32, 3, (int64_t[]){count, slots, values});
    processed *place = media_input_add(out, place_name, DT_I64, 3, (int64_t[]){count, slots, 2});
    if (pixels == NULL || place == NULL) return err_memory(error, (size_t)count * (size_t)slots * (size_t)values * sizeof(float));
    for (int f = 0; f < count; f++) {
        int64_t *xy = (int64_t *)place->data + f * slots * 2;
        if (!add_frame(s, &frames[f], side, width, height, (float *)pixels->data + f * slots * values, error)) return false;
        for (int64_t i = 0; i < slots; i++) {
            bool real = i < (int64_t)columns * rows;
            xy[2 * i] = real ? i % columns : -1;
            xy[2 * i + 1] = real ? i / columns : -1;
        }
    }
    out->grid[0] = count;
    out->grid[1] = rows;
    out->grid[2] = columns;
    out->tokens = (int)tokens;
    return true;
}

/* An option of the request or of the part itself: {"max_soft_tokens": 560}. */
static const json_t *option(const json_t *options, const chat_media *part, const char *key)
{
    const json_t *value = part != NULL ? json_object_get(part->options, key) : NULL;
    if (value == NULL) value = json_object_get(options, key);
    return json_is_null(value) ? NULL : value;
}

static bool wanted_tokens(const gemma4_image_settings *s, const json_t *options, const chat_media *part, int *tokens,
                          vlm_error *error)
{
    const json_t *value = option(options, part, "max_soft_tokens");
    *tokens = value == NULL ? s->soft_tokens : (int)json_integer_value(value);
    if (value == NULL || (json_is_integer(value) && soft_tokens_known(*tokens))) return true;
    return err_set(error, VLM_INVALID, "max_soft_tokens: 70, 140, 280, 560 or 1120 was expected");
}

static bool process_video(const vlm_model *m, const media_item *item, int tokens, media_input *out, vlm_error *error)
{
    const gemma4 *g = m->family;
    const video *v = &item->video;
    if (v->count < 1) return err_set(error, VLM_FORMAT, "the video has no frames");
    if (!process_frames(m, &g->video, tokens, item, out, error)) return false;
    processed *frames = media_input_add(out, "num_frames_per_video", DT_I64, 1, (int64_t[]){1});
    out->seconds = arena_alloc(&out->memory, (size_t)v->count * sizeof *out->seconds);
    if (frames == NULL || out->seconds == NULL) return err_memory(error, (size_t)v->count * sizeof *out->seconds);
    *(int64_t *)frames->data = v->count;
    memcpy(out->seconds, v->seconds, (size_t)v->count * sizeof *out->seconds);
    out->frames = v->count;
    return true;
}

/* How many frames are looked at: num_frames of the request, else by its fps, else the processor's own number (which the reference
 * refuses to take when the video is shorter). */
static int64_t wanted_frames(const gemma4 *g, const chat_media *part, const json_t *options, const video_info *info)
{
    const json_t *wanted = option(options, part, "num_frames"), *rate = option(options, part, "fps");
    const json_t *most = option(options, part, "max_frames"), *least = option(options, part, "min_frames");
    double fps = json_is_number(rate) ? json_number_value(rate) : 0;
    int64_t n = g->video.num_frames > 0 ? g->video.num_frames : info->total_frames;
    if (wanted != NULL) return json_is_integer(wanted) ? json_integer_value(wanted) : 0;
    if (part != NULL && part->fps > 0) fps = part->fps != info->fps ? part->fps : 0;   /* of a folder of frames it is their rate, no wish */
    if (fps <= 0 && g->video.num_frames == 0) fps = g->video.fps;
    if (fps > 0 && info->fps > 0) n = (int64_t)fmin(fmax((double)info->total_frames / info->fps * fps, 1), INT32_MAX);
    if (json_integer_value(least) > n) n = json_integer_value(least);
    if (json_integer_value(most) > 0 && json_integer_value(most) < n) n = json_integer_value(most);
    return n;
}

bool gemma4_frame_size(const vlm_model *m, const media_item *item, const json_t *options, int *width, int *height, resize_filter *filter, vlm_error *error)
{
    const gemma4_image_settings *s = &((const gemma4 *)m->family)->video;
    int tokens;
    *filter = s->filter;
    return wanted_tokens(s, options, item->part, &tokens, error) &&
           gemma4_size(item->video.info.width, item->video.info.height, s->patch, tokens * s->pool * s->pool, s->pool, width, height, error);
}

bool gemma4_pick_frames(const vlm_model *m, const chat_media *part, const json_t *options, const video_info *info, int64_t **indices,
                        int *count, vlm_error *error)
{
    int64_t total = info->total_frames, n = wanted_frames(m->family, part, options, info);
    if (total < 1) return err_set(error, VLM_FORMAT, "the video has no frames");
    if (n < 1) return err_set(error, VLM_INVALID, "num_frames: a whole number > 0 was expected");
    if (n > total) n = total;
    if (n > INT32_MAX / 2) return err_set(error, VLM_LIMIT, "a video of %lld frames is too long", (long long)n);
    if ((*indices = MEM_ARRAY((size_t)n, int64_t)) == NULL) return err_memory(error, (size_t)n * sizeof **indices);
    for (int64_t i = 0; i < n; i++) (*indices)[i] = i * total / n;
    *count = (int)n;
    return true;
}

/* ---- sound -------------------------------------------------------------------------------------------------------- */

/* Frames whose samples are all real are computed; the frames over the padding to a multiple of 128 samples are masked out: zeros. */
static bool process_mel(const gemma4 *g, const audio *sound, media_input *out, vlm_error *error)
{
    const gemma_sound *s = &g->sound;
    int64_t count = sound->count < s->most_samples ? sound->count : s->most_samples, frames = 0;
    int64_t padded = (count + s->pad_to - 1) / s->pad_to * s->pad_to, total = (padded + s->frame / 2 - (s->frame + 1)) / s->hop + 1;
    float *mel = NULL;
    if (count + s->frame / 2 < s->frame + 1) return err_set(error, VLM_FORMAT, "the audio is too short: %lld samples", (long long)count);
    if (!mel_spectrogram(sound->samples, count, &s->mel, &mel, &frames, error)) return false;
    processed *features = media_input_add(out, "input_features", DT_F32, 3, (int64_t[]){1, total, s->bins});
    processed *mask = media_input_add(out, "input_features_mask", DT_I64, 2, (int64_t[]){1, total});
    bool ok = features != NULL && mask != NULL && frames <= total;
    if (ok) memcpy(features->data, mel, (size_t)frames * (size_t)s->bins * sizeof *mel);
    for (int64_t i = 0; ok && i < frames; i++) ((int64_t *)mask->data)[i] = 1;
    mem_free(mel);
    if (!ok) return err_memory(error, (size_t)total * (size_t)s->bins * sizeof *mel);
    out->frames = (int)frames;
    out->tokens = (int)audio_encoder_rows(frames);
    return true;
}

static bool process_samples(const vlm_model *m, const audio *sound, media_input *out, vlm_error *error)
{
    const gemma4 *g = m->family;
    int64_t size = g->embedder.frame, n = (sound->count + size - 1) / size;
    if (sound->count < 1) return err_set(error, VLM_FORMAT, "the audio is empty");
    if (n > m->context) return err_set(error, VLM_LIMIT, "audio of %lld tokens: the model's context has %d", (long long)n, m->context);
    processed *features = media_input_add(out, "input_features", DT_F32, 3, (int64_t[]){1, n, size});
    processed *mask = media_input_add(out, "input_features_mask", DT_I64, 2, (int64_t[]){1, n});
    if (features == NULL || mask == NULL) return err_memory(error, (size_t)(n * size) * sizeof(float));
    memcpy(features->data, sound->samples, (size_t)sound->count * sizeof(float));
    for (int64_t i = 0; i < n; i++) ((int64_t *)mask->data)[i] = 1;
    out->frames = out->tokens = (int)n;
    return true;
}

/* ---- one medium --------------------------------------------------------------------------------------------------- */

bool gemma4_process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    const gemma4 *g = m->family;
    static const unsigned takes[] = {TAKES_IMAGE, TAKES_VIDEO, TAKES_AUDIO};
    int tokens = 0;
    bool ok;
    out->kind = item->kind;
    if (!(m->takes & takes[item->kind])) return err_set(error, VLM_UNSUPPORTED, "this model takes no %s", media_kind_name(item->kind));
    if (item->kind == MEDIA_IMAGE) {
        ok = wanted_tokens(&g->image, options, item->part, &tokens, error) &&
             process_frames(m, &g->image, tokens, item, out, error);
    } else if (item->kind == MEDIA_VIDEO) {
        ok = wanted_tokens(&g->video, options, item->part, &tokens, error) && process_video(m, item, tokens, out, error);
    } else {
        ok = g->unified ? process_samples(m, &item->audio, out, error) : process_mel(g, &item->audio, out, error);
    }
    if (!ok) return false;
    hasher h = hash_start();
    hash_text(&h, "gemma4");
    hash_part(&h, &item->digest, sizeof item->digest);
    hash_u64(&h, (uint64_t)item->kind);
    hash_u64(&h, (uint64_t)tokens);
    if (item->kind == MEDIA_VIDEO) hash_part(&h, item->video.indices, (size_t)item->video.count * sizeof *item->video.indices);
    return hash_finish(&h, &out->key) || err_memory(error, 0);
}

/* ---- text --------------------------------------------------------------------------------------------------------- */

int gemma4_audio_rate(const vlm_model *m)
{
    const gemma4 *g = m->family;
    return g->sound.rate > 0 ? g->sound.rate : 16000;
}

/* Tokens by role from tokenizer_config.json, else by their ids in config.json. */
static const char *token_text(const vlm_model *m, const char *role, const char *id_path)
{
    const char *text = tokenizer_role(m->tok, role);
    const json_t *id = config_get(m->cfg, id_path);
    return text != NULL || !json_is_integer(id) ? text : tokenizer_token(m->tok, (int32_t)json_integer_value(id));
}

const char *gemma4_placeholder(const vlm_model *m, media_kind kind)
{
    static const unsigned takes[] = {TAKES_IMAGE, TAKES_VIDEO, TAKES_AUDIO};
    if (!(m->takes & takes[kind]) || m->tok == NULL) return NULL;
    if (kind == MEDIA_IMAGE) return token_text(m, "image_token", "image_token_id");
    if (kind == MEDIA_AUDIO) return token_text(m, "audio_token", "audio_token_id");
    return tokenizer_id(m->tok, "<|video|>") >= 0 ? "<|video|>" : NULL;   /* has no role */
}

int32_t gemma4_media_token(const vlm_model *m, media_kind kind)
{
    const char *text = gemma4_placeholder(m, kind);
    return text != NULL ? tokenizer_id(m->tok, text) : -1;
}

static bool add_block(const vlm_model *m, media_kind kind, int tokens, buf *text, vlm_error *error)
{
    const char *one = gemma4_placeholder(m, kind);
    const char *begin = kind == MEDIA_AUDIO ? token_text(m, "boa_token", "boa_token_id") : token_text(m, "boi_token", "boi_token_id");
    const char *end = kind == MEDIA_AUDIO ? token_text(m, "eoa_token", "eoa_token_index|eoa_token_id")
                                          : token_text(m, "eoi_token", "eoi_token_id");
    if (one == NULL || begin == NULL || end == NULL) {
        return err_set(error, VLM_FORMAT, "the tokenizer has no tokens around %s", media_kind_name(kind));
    }
    buf_adds(text, begin);
    for (int i = 0; i < tokens; i++) buf_adds(text, one);
    buf_adds(text, end);
    return !text->failed || err_memory(error, text->size);
}

bool gemma4_expand(const vlm_model *m, const media_input *in, buf *text, vlm_error *error)
{
    if (in->kind != MEDIA_VIDEO) return add_block(m, in->kind, in->tokens, text, error);
    for (int f = 0; f < in->frames; f++) {
        int64_t seconds = (int64_t)in->seconds[f];
        buf_addf(text, "%s%02lld:%02lld ", f > 0 ? " " : "", (long long)(seconds / 60), (long long)(seconds % 60));
        if (!add_block(m, MEDIA_VIDEO, in->tokens / in->frames, text, error)) return false;
    }
    return true;
}
