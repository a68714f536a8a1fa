/* phi4_multimodal.c - Phi-4-multimodal (5.6B): eyes and ears in front of Phi-4-mini.  https://arxiv.org/abs/2503.01743
 *
 *   picture -> tiles of 448 x 448 (dynamic HD: as many as cover it, 36 at most; white to the right and below), and the whole once more
 *   each -> SigLIP (patches of padding are computed, but not seen) -> means of 2 x 2
 *   tiles laid out as the picture, rows of padding cut off, sub_GN behind each row; glb_GN; the whole likewise -> 2 products -> rows of <|image|>
 *   sound -> phi4_audio -> 2 products, of two kinds -> rows of <|audio|>
 *
 * As published (model_type phi4mm) the checkpoint holds two adapters, too: one for requests with pictures, one for those with sound alone. transformers'
 * layout (phi4_multimodal) has them in folders of their own, for --adapter.
 *
 * Bites: sounds go through other products when a picture is in the request: both are computed, place() takes one's rows. The whole is made from
 * the padded, normalised picture, bicubic (a = -0.75), unsmoothed. LongRoPE from 4096 tokens on. */
#include <math.h>
#include <string.h>

#include "base/err.h"
#include "models/phi4_audio.h"
#include "models/tower_lm.h"

typedef struct two_products { weight up, down; const float *up_bias, *down_bias; } two_products;

typedef struct phi4 {
    tower_lm base;
    phi4_audio audio;
    int tile, side, most;          /* pixels and patches of a tile's side; most tiles */
    int32_t audio_token;
    const float *row_end, *between;
    two_products see, hear[2];     /* hear: alone, beside pictures */
    bool published;
    double scale[2];               /* of the adapters for pictures and for sound, 0: there is none */
    uint64_t adapter[2];           /* their bits */
} phi4;

/* ---- config and weights ------------------------------------------------------------------------------------------- */

/* The published config in transformers' words: audio_processor.config becomes audio_config, the tower's sizes are no part of it. */
static bool translate(config *c)
{
    static const char *const renamed[][2] = {
        {"attention_dim", "hidden_size"}, {"attention_heads", "num_attention_heads"}, {"linear_units", "intermediate_size"},
        {"depthwise_seperable_out_channel", "depthwise_separable_out_channel"},
    };
    json_t *ears = json_copy((json_t *)(uintptr_t)config_get(c, "audio_processor.config")), *given = NULL;
    if (!ears) ears = json_object();
    for (size_t i = 0; i < sizeof renamed / sizeof *renamed; i++)
        if ((given = json_object_get(ears, renamed[i][0]))) json_object_set(ears, renamed[i][1], given);
    if ((given = json_object_get(json_object_get(ears, "relative_attention_bias_args"), "t5_bias_max_distance"))) json_object_set(ears, "bias_max_distance", given);
    else json_object_set_new(ears, "bias_max_distance", json_integer(500));
    if ((given = json_object_get(json_object_get(ears, "nemo_conv_settings"), "conv_channels"))) json_object_set(ears, "nemo_conv_channels", given);
    bool ok = ears && json_object_set_new(c->root, "audio_config", ears) == 0;
    if (!config_has(c, "vision_config")) ok = ok && json_object_set_new(c->root, "vision_config", json_object()) == 0;
    return ok || config_fail(c, VLM_MEMORY, "out of memory");
}

static bool configure(vlm_model *m, config *c)
{
    phi4 *v = m->family = arena_alloc(&m->memory, sizeof *v);
    if (!v) return config_fail(c, VLM_MEMORY, "out of memory");
    decoder *d = &v->base.text;
    config *p = m->processor;
    v->published = !strcmp(config_string(c, "model_type", ""), "phi4mm");
    if (v->published && !translate(c)) return false;
    for (int i = 0; i < 2 && v->published; i++) {
        const char *alpha = i ? "speech_lora.lora_alpha" : "vision_lora.lora_alpha", *rank = i ? "speech_lora.r" : "vision_lora.r";
        if (config_has(c, alpha)) v->scale[i] = config_number(c, alpha, 0) / config_number(c, rank, 1);
        if (!c->failed && !isfinite(v->scale[i])) return config_fail(c, VLM_FORMAT, "%s, %s: no scale of an adapter", alpha, rank);
    }
    if (!text_spec(&d->spec, &m->memory, c) || !decoder_plan(d, &m->memory, c)) return false;
    model_use_decoder(m, d);
    if (!config_has(c, "vision_config.model_type")) json_object_set_new(json_object_get(c->root, "vision_config"), "model_type", json_string("phi4_multimodal_vision"));
    if (!image_tower_config(&v->base.tower, &m->memory, c, (int)config_int(c, "vision_config.feature_layer", -2, -100, 100), false)) return false;
    v->base.image_token = (int32_t)config_int(c, "vision_config.image_token_id", 200010, 0, INT32_MAX);
    v->base.video_token = -1;
    v->audio_token = (int32_t)config_int(c, "audio_config.audio_token_id", 200011, 0, INT32_MAX);
    v->tile = (int)config_int(p, "image_processor.size.height", 448, 1, 1 << 14);
    v->most = (int)config_int(p, "image_processor.dynamic_hd", 36, 1, 1 << 10);
    v->side = v->base.tower.image / v->base.tower.patch;
    if (c->failed || p->failed || !picture_config(&v->base.norm, p, "image_processor", picture_half, RESIZE_BILINEAR)) return false;
    v->base.norm.filter = RESIZE_BILINEAR;                                  /* resample is for the picture as a whole */
    memset(v->base.norm.outside, 255, 3);
    if (v->tile != v->base.tower.image || v->side != 32 || config_int(c, "vision_config.crop_size", v->tile, 1, 1 << 14) != v->tile)
        return config_fail(c, VLM_UNSUPPORTED, "tiles of %d pixels, a tower for %d: 32 x 32 patches were expected", v->tile, v->base.tower.image);
    m->takes = TAKES_IMAGE | TAKES_AUDIO;
    return phi4_audio_config(&v->audio, &m->memory, c, p, v->published);
}

static void bind_two(two_products *w, binder *b, int64_t inputs, int64_t outputs, const char *up, const char *down)
{
    bind_linear(b, &w->up, outputs, inputs, "%s", up);
    bind_vector(b, &w->up_bias, outputs, "%s.bias", up);
    bind_linear(b, &w->down, outputs, outputs, "%s", down);
    bind_vector(b, &w->down_bias, outputs, "%s.bias", down);
}

static tensor apply_two(run *r, const two_products *w, tensor x)
{
    x = op_linear(r, x, &w->up, w->up_bias);
    op_activate(r, x, ACT_GELU);
    return op_linear(r, x, &w->down, w->down_bias);
}

static bool bind(vlm_model *m, binder *b)
{
#define EXTEND "model.embed_tokens_extend."
    static const char *const eyes[] = {EXTEND "image_embed.img_processor.", NULL};
    phi4 *v = m->family;
    int64_t d = m->hidden, see = v->base.tower.vit.hidden;
    for (int i = 0; i < 2; i++)
        if (v->scale[i] > 0 && b->files) v->adapter[i] = (uint64_t)1 << bind_built_in_adapter(b, i ? "speech" : "vision", v->scale[i]);
    if (b->failed || !decoder_bind(&v->base.text, b)) return false;
    bool own = v->published;
    image_tower_bind(&v->base.tower, b, eyes);
    bind_prefix(b, EXTEND "image_embed.", NULL);
    bind_vector(b, &v->row_end, see, own ? "sub_GN" : "sub_img_feature_extensor");
    bind_vector(b, &v->between, see, own ? "glb_GN" : "global_img_feature_extensor");
    bind_two(&v->see, b, see, d, own ? "img_projection.0" : "img_projection_up", own ? "img_projection.2" : "img_projection_down");
    bind_prefix(b, EXTEND "audio_embed.encoder.", NULL);
    phi4_audio_bind(&v->audio, b);
    bind_prefix(b, EXTEND "audio_embed.", NULL);
    bind_two(&v->hear[0], b, v->audio.hidden, d, own ? "audio_projection.speech.0" : "up_proj_for_speech", own ? "audio_projection.speech.2" : "down_proj_for_speech");
    bind_two(&v->hear[1], b, v->audio.hidden, d, own ? "audio_projection.vision.0" : "up_proj_for_vision_speech",
             own ? "audio_projection.vision.2" : "down_proj_for_vision_speech");
    return !b->failed;
}

/* ---- pictures to tiles -------------------------------------------------------------------------------------------- */

typedef struct layout { int rows, columns, height, width, valid_rows, valid_columns; } layout;     /* tiles; the picture inside; its patches */

/* As many tiles as cover it; where those are too many, the grid of nearest shape. */
static bool lay_out(const phi4 *v, const image *img, int most, layout *l, vlm_error *error)
{
    int tile = v->tile, patch = v->base.tower.patch;
    l->columns = (img->width + tile - 1) / tile;
    l->rows = (img->height + tile - 1) / tile;
    if ((int64_t)l->columns * l->rows > most)
        tile_grid_choose(&(tile_grid){.least = 1, .most = most}, img->height, img->width, tile, most, &l->rows, &l->columns);
    double across = (double)(l->columns * tile) / img->width, down = (double)(l->rows * tile) / img->height;
    l->width = across < down ? l->columns * tile : (int)(img->width * down);
    l->height = across < down ? (int)(img->height * across) : l->rows * tile;
    if (l->width < 10 || l->height < 10) return err_set(error, VLM_FORMAT, "a picture of %d x %d is too narrow", img->width, img->height);
    l->valid_columns = l->columns * v->side - (l->columns * tile - l->width) / patch;
    l->valid_rows = l->rows * v->side - (l->rows * tile - l->height) / patch;
    return true;
}

static bool process_image(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    const phi4 *v = m->family;
    layout l;
    int tile = v->tile, side = v->side;
    int most = (int)fmin(fmax(media_option(item->part, options, "dynamic_hd", v->most), 1), 1 << 10);
    if (!lay_out(v, &item->image, most, &l, error)) return false;
    int64_t tiles = 1 + (int64_t)l.rows * l.columns, height = (int64_t)l.rows * tile, width = (int64_t)l.columns * tile;
    int rows = (l.valid_rows + 1) / 2, columns = (l.valid_columns + 1) / 2;
    out->tokens = side / 2 * (side / 2 + 1) + 1 + rows * (columns + 1);
    out->grid[0] = 1, out->grid[1] = l.rows, out->grid[2] = l.columns;
    if (!tower_lm_fits(m, item, out->tokens, error)) return false;
    processed *pixels = media_input_add(out, "image_pixel_values", DT_F32, 5, (const int64_t[]){1, tiles, 3, tile, tile});
    processed *mask = media_input_add(out, "image_attention_mask", DT_F32, 4, (const int64_t[]){1, tiles, side, side});
    processed *sizes = media_input_add(out, "image_sizes", DT_I64, 2, (const int64_t[]){1, 2});
    float *whole = MEM_ARRAY((size_t)(3 * height * width), float);
    bool ok = pixels && mask && sizes && whole;
    if (!ok) err_memory(error, (size_t)(tiles * 3 * tile * tile) * sizeof(float));
    ok = ok && picture_resized(&v->base.norm, &item->image, l.width, l.height, 0, 0, (int)width, (int)height, whole, error);
    if (ok) picture_shrink(whole, (int)height, (int)width, tile, pixels->data);
    for (int64_t t = 0; ok && t < tiles; t++) {
        int64_t top = (t - 1) / l.columns, left = (t - 1) % l.columns;
        float *to = (float *)pixels->data + t * 3 * tile * tile, *seen = (float *)mask->data + t * side * side;
        for (int k = 0; k < side * side; k++) seen[k] = !t || (top * side + k / side < l.valid_rows && left * side + k % side < l.valid_columns);
        for (int row = 0; t && row < 3 * tile; row++)
            memcpy(to + (int64_t)row * tile, whole + ((int64_t)(row / tile) * height + top * tile + row % tile) * width + left * tile, (size_t)tile * sizeof *to);
    }
    if (ok) ((int64_t *)sizes->data)[0] = height, ((int64_t *)sizes->data)[1] = width;
    mem_free(whole);
    return ok;
}

static bool process_sound(const vlm_model *m, const media_item *item, media_input *out, vlm_error *error)
{
    const phi4 *v = m->family;
    int64_t frames = mel_frames(&v->audio.mel, item->audio.count);
    float *mel = NULL;
    if (frames < 1) return err_set(error, VLM_FORMAT, "the audio is too short: %lld samples", (long long)item->audio.count);
    if (!tower_lm_fits(m, item, phi4_audio_rows(&v->audio, frames), error)) return false;
    if (!mel_spectrogram(item->audio.samples, item->audio.count, &v->audio.mel, &mel, &frames, error)) return false;
    processed *features = media_input_add(out, "audio_input_features", DT_F32, 3, (int64_t[]){1, frames, v->audio.bins});
    processed *sizes = media_input_add(out, "audio_embed_sizes", DT_I64, 1, (int64_t[]){1});
    if (features) memcpy(features->data, mel, (size_t)frames * (size_t)v->audio.bins * sizeof *mel);
    mem_free(mel);
    if (!features || !sizes) return err_memory(error, (size_t)frames * (size_t)v->audio.bins * sizeof *mel);
    out->frames = (int)frames;
    out->tokens = (int)(*(int64_t *)sizes->data = phi4_audio_rows(&v->audio, frames));
    out->rows = 2 * out->tokens;
    return true;
}

static bool process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    out->kind = item->kind;
    if (item->kind == MEDIA_AUDIO) return process_sound(m, item, out, error);
    if (item->kind == MEDIA_IMAGE) return process_image(m, item, options, out, error);
    err_set(error, VLM_UNSUPPORTED, "this model takes no %s", media_kind_name(item->kind));
    return err_hint(error, "give some frames as images");
}

/* ---- prompt ------------------------------------------------------------------------------------------------------- */

static int audio_rate(const vlm_model *m) { return ((const phi4 *)m->family)->audio.mel.rate; }

static int32_t media_token(const vlm_model *m, media_kind kind)
{
    const phi4 *v = m->family;
    return kind == MEDIA_IMAGE ? v->base.image_token : kind == MEDIA_AUDIO ? v->audio_token : -1;
}

static const char *placeholder(const vlm_model *m, media_kind kind)
{
    int32_t id = media_token(m, kind);
    return id >= 0 && m->tok ? tokenizer_token(m->tok, id) : NULL;
}

static bool expand(const vlm_model *m, const media_input *in, buf *text, vlm_error *error)
{
    const char *token = placeholder(m, in->kind);
    for (int i = 0; token && i < in->tokens; i++) buf_adds(text, token);
    return text->failed ? err_memory(error, text->size) : true;
}

static uint64_t adapters(const vlm_model *m, unsigned kinds)
{
    const phi4 *v = m->family;
    return kinds & TAKES_IMAGE ? v->adapter[0] : kinds & TAKES_AUDIO ? v->adapter[1] : 0;
}

/* Beside pictures sounds show their second kind of rows. */
static void place(const vlm_model *m, media_span *spans, int n, media_input *const *media)
{
    (void)m;
    bool picture = false;
    for (int i = 0; i < n; i++) picture |= media[spans[i].media]->kind == MEDIA_IMAGE;
    for (int i = 0; picture && i < n; i++)
        if (media[spans[i].media]->kind == MEDIA_AUDIO) spans[i].row += media[spans[i].media]->tokens;
}

/* ---- encoders ----------------------------------------------------------------------------------------------------- */

static tensor job_tensor(run *r, encode_job *job, int64_t rows, int64_t cols)
{
    void *data = arena_alloc_raw(job->memory, (size_t)(rows * cols) * sizeof(float));
    if (!data) run_fail(r, VLM_MEMORY, "out of memory: %lld x %lld activations of an encoder", (long long)rows, (long long)cols);
    return (tensor){data, DT_F32, rows, cols, cols};
}

/* Patches that are seen first, in each tile. */
static bool start_image(run *r, const phi4 *v, encode_job *job)
{
    const processed *pixels = media_input_find(job->in, "image_pixel_values"), *mask = media_input_find(job->in, "image_attention_mask");
    int n = (int)pixels->dim[1], side = v->side, patches = side * side;
    tower_image *images = arena_alloc(job->memory, (size_t)n * sizeof *images);
    int32_t *order = arena_alloc(job->memory, (size_t)n * (size_t)patches * 2 * sizeof *order);
    tower_view *views = arena_alloc(job->memory, (size_t)n * sizeof *views);
    if (!images || !order || !views) return run_fail(r, VLM_MEMORY, "out of memory");
    for (int i = 0; i < n; i++, order += 2 * patches) {
        const float *seen = (const float *)mask->data + (int64_t)i * patches;
        int rows = 0, columns = 0, k = 0;
        while (columns < side && seen[columns] > 0) columns++;
        while (rows < side && seen[rows * side] > 0) rows++;
        int32_t *position = order + patches;
        image_tower_buckets(&v->base.tower, rows, columns, position);
        for (int pass = 0; pass < 2; pass++)
            for (int at = 0; at < patches; at++)
                if ((seen[at] > 0) == (pass == 0)) order[k++] = at;
        images[i] = (tower_image){(const float *)pixels->data + (int64_t)i * 3 * v->tile * v->tile, v->tile, v->tile, position};
        views[i] = (tower_view){order, rows * columns};
    }
    return image_tower_start_views(r, &v->base.tower, job, images, views, n);
}

static bool encode_start(run *r, const vlm_model *m, encode_job *job)
{
    const phi4 *v = m->family;
    if (job->in->kind == MEDIA_IMAGE) return start_image(r, v, job);
    int64_t rows = phi4_audio_room(&v->audio, job->in->frames);
    job->stage = 0;
    job->stages = v->audio.layers + 1;
    job->cost = 2.0 * (double)rows * v->audio.hidden * (6.0 * v->audio.ffn + 9.0 * v->audio.hidden);
    job->x = job_tensor(r, job, rows, v->audio.hidden);
    job->rows = job_tensor(r, job, job->in->rows, m->hidden);
    return run_ok(r);
}

/* Means of 2 x 2 patches of tile t (features come in the order of start_image): out [16 * 16, d]. */
static void pool_tile(run *r, const phi4 *v, const float *seen, tensor x, tensor out)
{
    int side = v->side, k = 0;
    int32_t *to = run_alloc(r, (size_t)(x.rows + 1) * sizeof *to);
    for (int pass = 0; to && pass < 2; pass++)
        for (int at = 0; at < side * side; at++)
            if ((seen[at] > 0) == (pass == 0)) to[k++] = at / side / 2 * (side / 2) + at % side / 2;
    if (run_ok(r)) op_scatter_add(r, out, x, to, 0.25f);
}

static void finish_image(run *r, const phi4 *v, encode_job *job)
{
    const processed *mask = media_input_find(job->in, "image_attention_mask");
    int tiles = (int)mask->dim[1], side = v->side, half = side / 2, columns = job->in->grid[2], valid_rows = 0, valid_columns = 0;
    int64_t d = v->base.tower.vit.hidden;
    tensor x = image_tower_features(r, &v->base.tower, job), small = run_zeros(r, (int64_t)tiles * half * half, d), all = run_tensor(r, job->in->tokens, d);
    const float *seen = mask->data;
    for (int t = 0; t < tiles && run_ok(r); t++)
        pool_tile(r, v, seen + (int64_t)t * side * side, tensor_rows(x, (int64_t)t * side * side, side * side), tensor_rows(small, (int64_t)t * half * half, half * half));
    for (int t = 1; t < tiles; t++)
        for (int k = 0; k < side; k += 2) {
            valid_columns += t <= columns && seen[(int64_t)t * side * side + k] > 0;
            valid_rows += (t - 1) % columns == 0 && seen[((int64_t)t * side + k) * side] > 0;
        }
    int64_t at = 0;
    for (int part = 0; part < 2; part++) {                                 /* tiles, then the whole */
        int rows = part ? half : valid_rows, across = part ? half : valid_columns;
        for (int y = 0; y < rows; y++)
            for (int i = 0; i <= across && run_ok(r); i++, at++) {
                int64_t tile = part ? 0 : 1 + y / half * columns + i / half;
                const float *from = i == across ? v->row_end : tensor_row(small, (tile * half + y % half) * half + i % half);
                if (at < all.rows) memcpy(tensor_row(all, at), from, (size_t)d * sizeof *from);
            }
        if (!part && run_ok(r)) memcpy(tensor_row(all, at++), v->between, (size_t)d * sizeof(float));
    }
    if (at != all.rows) run_fail(r, VLM_INTERNAL, "%lld rows of a picture, %lld were expected", (long long)at, (long long)all.rows);
    image_tower_set_rows(r, job, apply_two(r, &v->see, all));
}

static void hear(run *r, const phi4 *v, encode_job *job)
{
    const processed *p = media_input_find(job->in, "audio_input_features");
    if (job->stage == 0) phi4_audio_embed(r, &v->audio, (tensor){p->data, DT_F32, p->dim[1], p->dim[2], p->dim[2]}, job->x);
    else phi4_audio_run_layer(r, &v->audio, job->stage - 1, job->x);
    if (job->stage++ < v->audio.layers) return;
    for (int i = 0; i < 2 && run_ok(r); i++) {
        tensor y = apply_two(r, &v->hear[i], tensor_rows(job->x, 0, job->in->tokens));
        for (int64_t k = 0; run_ok(r) && k < y.rows; k++) memcpy(tensor_row(job->rows, i * y.rows + k), tensor_row(y, k), (size_t)y.cols * sizeof(float));
    }
}

static bool encode(run *r, const vlm_model *m, encode_job *job)
{
    const phi4 *v = m->family;
    if (job->in->kind == MEDIA_AUDIO) hear(r, v, job);
    else if (image_tower_encode(r, &v->base.tower, job) && job->stage == job->stages) finish_image(r, v, job);
    return run_ok(r);
}

static const char *const types[] = {"phi4_multimodal", "phi4mm", NULL};
static const media_rules rules = {.image = "dynamic_hd", .video = "", .audio = "", .low = "{\"dynamic_hd\": 1}"};

const vlm_arch vlm_arch_phi4_multimodal = {
    .name = "phi4_multimodal", .title = "Phi-4-multimodal", .model_types = types, .task = TASK_GENERATE, .takes = TAKES_IMAGE | TAKES_AUDIO, .rules = &rules, .adapters = adapters,
    .configure = configure, .bind = bind, .process = process, .audio_rate = audio_rate, .placeholder = placeholder, .media_token = media_token,
    .expand = expand, .place = place, .encode_start = encode_start, .encode = encode, .forward = tower_lm_forward,
};
