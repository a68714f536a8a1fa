/* deepseek_ocr.c - DeepSeek-OCR: https://arxiv.org/abs/2510.18234, DeepSeek-OCR 2: https://arxiv.org/abs/2601.20552
 *
 *   page -> fitted into a square (1024), grey around -> the whole view; a page larger than a tile (640, 768) also in the grid of nearest shape, cut
 *        -> SAM's encoder, two strided convolutions: a sixteenth of the patches, f
 *   1:   [class, f] + positions -> CLIP -> its rows beside f -> linear; tiles as one field, image_newline behind each of its rows, the whole view likewise
 *   2:   f, as many learned queries -> Qwen2's layers, f sees itself, each query f and the queries before it -> the queries' rows -> linear
 *        -> rows of the tiles, of the whole view, view_seperator (spelled so): they replace <image>
 *        -> DeepSeek-V2's experts with plain attention
 *   modes of 1: tiny, small, base, large (one view of 512, 640, 1024, 1280), gundam (1024 and tiles of 640)
 *
 * Bites: published configs call themselves deepseek_vl_v2; `architectures` tells. CLIP's own patches and Qwen2's embeddings are not used.
 * CLIP is OpenAI's: quick GELU. Version 1 resizes with Pillow, version 2 with torchvision; views of 640 and less without tiles are squeezed, not fitted (1). */
#include "models/sam_tower.h"
#include "models/tower_lm.h"

#include <math.h>
#include <string.h>

#include "base/err.h"
#include "blocks/resample.h"

enum { MOST_LAYERS = 64, SQUEEZED = 640, WHOLE_QUERIES = 256, TILE_QUERIES = 144 };

typedef struct deepseek_ocr {
    tower_lm base;                 /* its image_tower is not used */
    bool second;                   /* DeepSeek-OCR 2 */
    sam_tower sam;
    vit_spec reader;               /* CLIP, or Qwen2 */
    vit_layer layer[MOST_LAYERS];
    int layers, side;              /* CLIP: of the table of positions */
    rope_table rope;               /* Qwen2 */
    const float *class_row, *table, *first_norm, *first_bias, *last_norm, *queries[2], *project_bias, *newline, *separator;
    weight project;
    tile_grid grid;
    int whole, tile;               /* pixels */
} deepseek_ocr;

/* ---- configuration ---------------------------------------------------------------------------------------------------- */

/* What published files call otherwise: language_config, vision_config.width.{sam_vit_b, clip-l-14-224, qwen2-0-5b}, dim. */
static bool rename_members(config *c)
{
    json_t *text = json_object_get(c->root, "language_config"), *vision = json_object_get(c->root, "vision_config"), *width = json_object_get(vision, "width");
    json_t *sam = json_object_get(width, "sam_vit_b"), *clip = json_object_get(width, "clip-l-14-224"), *qwen = json_object_get(width, "qwen2-0-5b");
    bool ok = !text || config_has(c, "text_config") || json_object_set(c->root, "text_config", text) == 0;
    if (sam && !config_has(c, "vision_config.sam_config")) ok = ok && json_object_set(vision, "sam_config", sam) == 0;
    if (clip) ok = ok && json_object_set(vision, "clip_config", clip) == 0;
    if (qwen && !config_has(c, "vision_config.encoder_config")) ok = ok && json_object_set(vision, "encoder_config", qwen) == 0;
    if (!config_has(c, "image_token_id|image_token_index"))
        ok = ok && json_object_set_new(c->root, "image_token_id", json_integer(128815)) == 0;
    return ok || config_fail(c, VLM_MEMORY, "out of memory");
}

static bool configure_text(deepseek_ocr *v, vlm_model *m, config *c)
{
    decoder_spec *s = &v->base.text.spec;
    if (!decoder_config(s, &m->memory, c, text_prefixes) || !decoder_config_deepseek(s, c, text_prefixes, false)) return false;
    s->qkv_bias = s->o_bias = config_bool(c, TEXT("attention_bias"), false);
    if (config_bool(c, TEXT("use_mla"), false) || config_int(c, TEXT("kv_lora_rank"), 0, 0, 1 << 20) > 0)
        return config_fail(c, VLM_UNSUPPORTED, "DeepSeek-OCR with latent attention (use_mla, kv_lora_rank)");
    decoder_names(s);
    if (!decoder_plan(&v->base.text, &m->memory, c)) return false;
    model_use_decoder(m, &v->base.text);
    v->base.image_token = (int32_t)config_int(c, "image_token_id|image_token_index", 128815, 0, INT32_MAX);
    v->base.video_token = -1;
    return !c->failed;
}

static bool configure_clip(deepseek_ocr *v, config *c)
{
    vit_spec *s = &v->reader;
    s->hidden = (int)config_int(c, "vision_config.clip_config.width", 1024, 1, 1 << 16);
    s->heads = (int)config_int(c, "vision_config.clip_config.heads", 16, 1, 1 << 10);
    v->layers = (int)config_int(c, "vision_config.clip_config.layers", 24, 1, MOST_LAYERS);
    int picture = (int)config_int(c, "vision_config.clip_config.image_size", 224, 1, 1 << 14);
    int patch = (int)config_int(c, "vision_config.clip_config.patch_size", 14, 1, 1 << 10);
    if (c->failed) return false;
    s->ffn = 4 * s->hidden;
    s->layernorm = true;
    s->act = ACT_QUICK_GELU;
    s->eps = 1e-5f;
    v->side = picture / patch;
    return (v->side >= 1 && v->side <= RESAMPLE_MOST_SIDE) || config_fail(c, VLM_FORMAT, "clip-l-14-224: no pictures of %d in patches of %d", picture, patch);
}

static bool configure_qwen(deepseek_ocr *v, vlm_model *m, config *c)
{
    vit_spec *s = &v->reader;
    s->hidden = (int)config_int(c, "vision_config.encoder_config.hidden_size|vision_config.encoder_config.dim", 896, 1, 1 << 16);
    s->heads = (int)config_int(c, "vision_config.encoder_config.num_attention_heads", 14, 1, 1 << 10);
    s->kv_heads = (int)config_int(c, "vision_config.encoder_config.num_key_value_heads", 2, 1, 1 << 10);
    s->ffn = (int)config_int(c, "vision_config.encoder_config.intermediate_size", 4864, 1, 1 << 24);
    v->layers = (int)config_int(c, "vision_config.encoder_config.num_hidden_layers", 24, 1, MOST_LAYERS);
    s->eps = (float)config_number(c, "vision_config.encoder_config.rms_norm_eps", 1e-6);
    s->act = config_activation(c, "vision_config.encoder_config.hidden_act", "silu");
    s->gated = true;
    static const char *const prefixes[] = {"vision_config.encoder_config.", NULL};
    if (c->failed || s->hidden % s->heads || s->heads % s->kv_heads)
        return config_fail(c, VLM_FORMAT, "vision_config.encoder_config: %d columns are no %d and %d heads", s->hidden, s->heads, s->kv_heads);
    return rope_configure(&v->rope, &m->memory, c, prefixes, NULL, s->hidden / s->heads, 1e6);
}

/* Rows that a view becomes. */
static int rows_of(const deepseek_ocr *v, int pixels) { return sam_tower_side(&v->sam, pixels) * sam_tower_side(&v->sam, pixels); }

static bool configure_processor(deepseek_ocr *v, config *p, config *c)
{
    tile_grid_config(&v->grid, p);
    v->grid.tiled = config_bool(p, "image_processor.crop_to_patches", true);
    v->grid.least = (int)config_int(p, "image_processor.min_patches", 2, 1, 256);
    v->grid.most = (int)config_int(p, "image_processor.max_patches", v->second ? 6 : 9, v->grid.least, 256);
    v->whole = (int)config_int(p, "image_processor.size.height|image_processor.base_size", 1024, v->sam.patch, 1 << 13);
    v->tile = (int)config_int(p, "image_processor.tile_size|image_processor.image_size", v->second ? 768 : SQUEEZED, v->sam.patch, 1 << 13);
    if (c->failed || p->failed || !picture_config(&v->base.norm, p, "image_processor", picture_half, RESIZE_BICUBIC)) return false;
    memset(v->base.norm.outside, 127, sizeof v->base.norm.outside);
    if (v->whole % v->sam.patch || v->tile % v->sam.patch)
        return config_fail(c, VLM_FORMAT, "views of %d and %d pixels in patches of %d", v->whole, v->tile, v->sam.patch);
    if (v->second && (rows_of(v, v->whole) != WHOLE_QUERIES || rows_of(v, v->tile) != TILE_QUERIES))
        return config_fail(c, VLM_FORMAT, "views of %d and %d pixels do not become %d and %d rows", v->whole, v->tile, WHOLE_QUERIES, TILE_QUERIES);
    return true;
}

static bool is_second(config *c)
{
    const char *type = config_string(c, "model_type", ""), *name = json_string_value(json_array_get(config_get(c, "architectures"), 0));
    return !strcmp(type, "deepseek_ocr2") || !strcmp(type, "deepseekocr_2") || (name && strstr(name, "OCR2"));
}

static bool configure(vlm_model *m, config *c)
{
    deepseek_ocr *v = m->family = arena_alloc(&m->memory, sizeof *v);
    if (!v) return config_fail(c, VLM_MEMORY, "out of memory");
    v->second = is_second(c);
    if (!rename_members(c) || !configure_text(v, m, c) || !sam_tower_config(&v->sam, c, "vision_config.sam_config.")) return false;
    if (!(v->second ? configure_qwen(v, m, c) : configure_clip(v, c))) return false;
    int64_t down[2] = {512, v->second ? 896 : 1024};
    const char *projector = config_string(c, "projector_config.projector_type", "linear");
    if (config_has(c, "vision_config.sam_config.downsample_channels"))
        config_ints(c, "vision_config.sam_config.downsample_channels", down, 2);
    v->reader.head_dim = v->reader.hidden / v->reader.heads;
    if (c->failed) return false;
    if (strcmp(projector, "linear")) return config_fail(c, VLM_UNSUPPORTED, "projector_type \"%.30s\"; linear is known", projector);
    if (down[0] < 1 || down[0] > 1 << 16 || down[1] != v->reader.hidden || v->reader.hidden % v->reader.heads)
        return config_fail(c, VLM_FORMAT, "downsample_channels end with %d, the second encoder has %d columns in %d heads", (int)down[1], v->reader.hidden, v->reader.heads);
    v->sam.down[0] = (int)down[0], v->sam.down[1] = (int)down[1];
    m->takes = TAKES_IMAGE;
    return configure_processor(v, m->processor, c);
}

/* ---- weights ---------------------------------------------------------------------------------------------------------- */

static void bind_clip(deepseek_ocr *v, binder *b)
{
    static const vit_names names = {"layer_norm1", "layer_norm2", "self_attn.qkv_proj", "self_attn.out_proj", NULL, "mlp.fc1", "mlp.fc2", .q = NULL};
    int64_t d = v->reader.hidden;
    bind_prefix(b, "model.vision_model.", "vision_model.", NULL);
    bind_vector(b, &v->class_row, d, "embeddings.class_embedding");
    bind_vector(b, &v->table, ((int64_t)v->side * v->side + 1) * d, "embeddings.position_embedding.weight");
    bind_vector(b, &v->first_norm, d, "pre_layrnorm.weight");
    bind_vector(b, &v->first_bias, d, "pre_layrnorm.bias");
    for (int i = 0; i < v->layers && !b->failed; i++) vit_bind_layer(&v->layer[i], &v->reader, b, "transformer.layers", i, &names);
}

static void bind_qwen(deepseek_ocr *v, binder *b)
{
    static const vit_names names = {"input_layernorm", "post_attention_layernorm", NULL, "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
                                    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", .scale1 = NULL};
    int64_t d = v->reader.hidden;
    bind_prefix(b, "model.qwen2_model.model.model.", "vision_model.qwen2_encoder.", "model.vision_tower.vision_encoder.", NULL);
    for (int i = 0; i < v->layers && !b->failed; i++) vit_bind_layer(&v->layer[i], &v->reader, b, "layers", i, &names);
    bind_vector(b, &v->last_norm, d, "norm.weight");
    bind_prefix(b, "model.qwen2_model.", "vision_model.qwen2_encoder.", NULL);
    bool bare = b->files && bind_exists(b, "query_768");                 /* as MLX's converter writes it */
    bind_vector(b, &v->queries[0], TILE_QUERIES * d, bare ? "query_768" : "query_768.weight");
    bind_vector(b, &v->queries[1], WHOLE_QUERIES * d, bare ? "query_1024" : "query_1024.weight");
}

static bool bind(vlm_model *m, binder *b)
{
    deepseek_ocr *v = m->family;
    int64_t d = v->base.text.spec.hidden, read = v->reader.hidden;
    if (!decoder_bind(&v->base.text, b)) return false;
    bind_prefix(b, "model.sam_model.", "sam_model.", NULL);
    sam_tower_bind(&v->sam, b, &sam_names_hub);
    sam_tower_bind_down(&v->sam, b, "net_2", "net_3");
    if (v->second) bind_qwen(v, b);
    else bind_clip(v, b);
    bind_prefix(b, "model.", "", NULL);
    bind_linear(b, &v->project, d, v->second ? read : 2 * read, "projector.layers");
    bind_vector(b, &v->project_bias, d, "projector.layers.bias");
    bind_vector(b, &v->separator, d, b->files && bind_exists(b, "view_separator") ? "view_separator" : "view_seperator");
    if (!v->second) bind_vector(b, &v->newline, d, "image_newline");
    return !b->failed;
}

/* ---- processor -------------------------------------------------------------------------------------------------------- */

typedef struct views { int whole, tile, least, most; bool tiled; } views;

/* The mode, or what the options say of it one by one. */
static bool choose_views(const deepseek_ocr *v, const media_item *item, const json_t *options, views *out, vlm_error *error)
{
    static const struct { const char *name; int whole, tile; bool tiled; } modes[] = {
        {"tiny", 512, 512, false}, {"small", 640, 640, false}, {"base", 1024, 1024, false}, {"large", 1280, 1280, false}, {"gundam", 1024, 640, true}};
    const json_t *mode = json_object_get(options, "mode"), *crop = json_object_get(options, "crop_to_patches");
    if (!crop) crop = json_object_get(options, json_object_get(options, "cropping") ? "cropping" : "crop_mode");
    *out = (views){v->whole, v->tile, v->grid.least, v->grid.most, v->grid.tiled};
    size_t i = 0, n = sizeof modes / sizeof *modes;
    while (json_is_string(mode) && i < n && strcmp(modes[i].name, json_string_value(mode))) i++;
    if (mode && (v->second || !json_is_string(mode) || i == n))
        return err_set(error, VLM_INVALID, "mode: DeepSeek-OCR has tiny, small, base, large and gundam, version 2 none");
    if (mode) out->whole = modes[i].whole, out->tile = modes[i].tile, out->tiled = modes[i].tiled;
    if (json_is_boolean(crop)) out->tiled = json_is_true(crop);
    out->whole = (int)fmin(fmax(media_option(item->part, options, "base_size", out->whole), 1), 1 << 13);
    out->tile = (int)fmin(fmax(media_option(item->part, options, "image_size", out->tile), 1), 1 << 13);
    out->most = (int)fmin(fmax(media_option(item->part, options, "max_patches", out->most), out->least), 256);
    int step = 4 * v->sam.patch;
    if (out->whole % step || out->tile % step || out->whole / v->sam.patch > 256 || out->tile / v->sam.patch > 256)
        return err_set(error, VLM_INVALID, "base_size %d, image_size %d: multiples of %d up to %d were expected", out->whole, out->tile, step, 256 * v->sam.patch);
    if (v->second && (rows_of(v, out->whole) != WHOLE_QUERIES || rows_of(v, out->tile) != TILE_QUERIES))
        return err_set(error, VLM_INVALID, "DeepSeek-OCR 2 has views of %d and %d pixels alone", v->whole, v->tile);
    return true;
}

static bool resize(const deepseek_ocr *v, const image *img, int width, int height, image *out, vlm_error *error)
{
    return v->second ? image_resize(img, width, height, v->base.norm.filter, out, error) : image_resize_pillow(img, width, height, v->base.norm.filter, out, error);
}

/* The picture's size inside a square, and where it lies: as transformers (2) or Pillow's ImageOps.pad (1) rounds. */
static void fit(const deepseek_ocr *v, const image *img, int side, bool squeeze, int *width, int *height, int *left, int *top)
{
    bool wide = img->width > img->height;
    double scale = (double)side / (wide ? img->width : img->height);
    *width = *height = side;
    if (!squeeze && v->second) {
        *width = (int)nearbyint(img->width * scale);
        *height = (int)nearbyint(img->height * scale);
    } else if (!squeeze) {
        if (wide) *height = (int)nearbyint((double)img->height / img->width * side);
        else *width = (int)nearbyint((double)img->width / img->height * side);
    }
    if (*width < 1) *width = 1;
    if (*height < 1) *height = 1;
    *left = v->second ? (side - *width) / 2 : (int)nearbyint((side - *width) * 0.5);
    *top = v->second ? (side - *height) / 2 : (int)nearbyint((side - *height) * 0.5);
}

/* Tokens of tiles and of the whole view. */
static int64_t tokens_of(const deepseek_ocr *v, int tile, int rows, int columns, int whole)
{
    int64_t t = sam_tower_side(&v->sam, tile), w = sam_tower_side(&v->sam, whole);
    if (v->second) return rows * columns * t * t + w * w + 1;
    return t * rows * (t * columns + (rows > 0)) + w * (w + 1) + 1;
}

static bool cut_tiles(const deepseek_ocr *v, const image *img, int tile, int rows, int columns, media_input *out, vlm_error *error)
{
    processed *p = media_input_add(out, "pixel_values_local", DT_F32, 4, (const int64_t[]){rows * columns, 3, tile, tile});
    image field;
    if (!p) return err_memory(error, (size_t)(rows * columns) * 3 * (size_t)tile * (size_t)tile * sizeof(float));
    if (!resize(v, img, columns * tile, rows * tile, &field, error)) return false;
    for (int i = 0; i < rows * columns; i++)
        picture_window(&v->base.norm, &field, i % columns * tile, i / columns * tile, tile, tile, (float *)p->data + (int64_t)i * 3 * tile * tile);
    image_free(&field);
    return true;
}

/* grid: 1, rows, columns of tiles; 0 rows when there is one view alone. */
static bool process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    const deepseek_ocr *v = m->family;
    const image *img = &item->image;
    views w;
    int rows = 0, columns = 0, width, height, left, top;
    if (!tower_lm_only_images(m, item, error) || !choose_views(v, item, options, &w, error)) return false;
    if (w.tiled && (img->width > w.tile || img->height > w.tile)) {
        tile_grid_choose(&(tile_grid){.least = w.least}, img->height, img->width, w.tile, w.most, &rows, &columns);
        if (rows * columns < 2 && !v->second) rows = columns = 0;
    }
    int whole = w.tiled ? w.whole : w.tile;
    int64_t tokens = tokens_of(v, w.tile, rows, columns, whole);
    out->kind = item->kind;
    out->grid[0] = 1, out->grid[1] = rows, out->grid[2] = columns;
    if (!tower_lm_fits(m, item, tokens, error)) return false;
    out->tokens = (int)tokens;
    processed *n = media_input_add(out, "num_local_patches", DT_I64, 1, (const int64_t[]){1});
    processed *p = n ? media_input_add(out, "pixel_values", DT_F32, 4, (const int64_t[]){1, 3, whole, whole}) : NULL;
    if (!p) return err_memory(error, (size_t)whole * (size_t)whole * 3 * sizeof(float));
    *(int64_t *)n->data = rows * columns;
    fit(v, img, whole, !v->second && !w.tiled && whole <= SQUEEZED, &width, &height, &left, &top);
    image view;
    if (!resize(v, img, width, height, &view, error)) return false;
    picture_window(&v->base.norm, &view, -left, -top, whole, whole, p->data);
    image_free(&view);
    return !rows || cut_tiles(v, img, w.tile, rows, columns, out, error);
}

/* ---- encoder: SAM's layers, a stage for each picture's convolutions, the second encoder's layers, packing -------------- */

typedef struct reading {
    void *sam;                     /* sam_tower's state */
    tensor f, y, cosine, sine;     /* SAM's features; rows of the second encoder */
    int32_t *starts, *features;    /* of pictures in y; [n] how many features each has */
    int32_t *see;                  /* [rows of y] 2: attention_spec.see */
    int n;
} reading;

static tensor keep(run *r, arena *memory, int64_t rows, int64_t cols)
{
    size_t bytes;
    tensor t = {NULL, DT_F32, rows, cols, cols};
    if (!mem_mul((size_t)rows * sizeof(float), (size_t)cols, &bytes) || !(t.data = arena_alloc_raw(memory, bytes)))
        run_fail(r, VLM_MEMORY, "out of memory");
    return t;
}

static bool encode_start(run *r, const vlm_model *m, encode_job *job)
{
    const deepseek_ocr *v = m->family;
    const processed *whole = media_input_find(job->in, "pixel_values"), *tiles = media_input_find(job->in, "pixel_values_local");
    int n = tiles ? (int)tiles->dim[0] + 1 : 1;
    sam_picture *pictures = run_alloc(r, (size_t)n * sizeof *pictures);
    reading *d = arena_alloc(job->memory, sizeof *d);
    if (!pictures || !d || !whole || !whole->data || (tiles && !tiles->data)) return run_fail(r, VLM_INTERNAL, "no pixels to encode");
    for (int i = 0; i < n - 1; i++) pictures[i] = (sam_picture){(const float *)tiles->data + (int64_t)i * 3 * tiles->dim[2] * tiles->dim[3], (int)tiles->dim[2]};
    pictures[n - 1] = (sam_picture){whole->data, (int)whole->dim[2]};
    if (!sam_tower_start(r, &v->sam, job, pictures, n)) return false;
    *d = (reading){.sam = job->family, .n = n};
    d->starts = arena_alloc(job->memory, (size_t)(n + 1) * sizeof *d->starts);
    d->features = arena_alloc(job->memory, (size_t)n * sizeof *d->features);
    if (!d->starts || !d->features) return run_fail(r, VLM_MEMORY, "out of memory");
    int64_t features = 0;
    for (int i = 0; i < n; i++) {
        int rows = rows_of(v, pictures[i].side);
        d->features[i] = rows;
        d->starts[i + 1] = d->starts[i] + (v->second ? 2 * rows : rows + 1);
        features += rows;
    }
    d->f = keep(r, job->memory, features, v->reader.hidden);
    d->y = keep(r, job->memory, d->starts[n], v->reader.hidden);
    if (v->second && !(d->see = arena_alloc(job->memory, (size_t)d->starts[n] * sizeof *d->see)))
        return run_fail(r, VLM_MEMORY, "out of memory");
    job->family = d;
    job->stages += n + v->layers + 1;
    return run_ok(r);
}

static void copy_rows(run *r, tensor to, int64_t first, tensor from)
{
    for (int64_t i = 0; run_ok(r) && i < from.rows; i++) memcpy(tensor_row(to, first + i), tensor_row(from, i), (size_t)from.cols * sizeof(float));
}

static tensor view(const float *data, int64_t rows, int64_t cols) { return (tensor){(void *)(uintptr_t)data, DT_F32, rows, cols, cols}; }

/* Picture i as rows of the second encoder. */
static void enter(run *r, const deepseek_ocr *v, encode_job *job, reading *d, int i)
{
    encode_job sam = *job;
    sam.family = d->sam;
    tensor f = sam_tower_features(r, &v->sam, &sam, i);
    int64_t cols = v->reader.hidden, first = 0, rows = d->features[i];
    for (int k = 0; k < i; k++) first += d->features[k];
    if (!run_ok(r)) return;
    copy_rows(r, d->f, first, f);
    tensor y = tensor_rows(d->y, d->starts[i], d->starts[i + 1] - d->starts[i]);
    if (v->second) {
        copy_rows(r, y, 0, f);
        copy_rows(r, y, rows, view(v->queries[rows > TILE_QUERIES], rows, cols));
        return;
    }
    int side = (int)sqrt((double)rows);
    tensor table = view(v->table + cols, rows, cols), x = run_tensor(r, y.rows, cols);
    if (side != v->side) table = resample_table(r, v->table + cols, v->side, cols, side, side, true);
    copy_rows(r, x, 0, view(v->class_row, 1, cols));
    copy_rows(r, x, 1, f);
    if (!run_ok(r)) return;
    op_add_inplace(r, tensor_rows(x, 0, 1), view(v->table, 1, cols));
    op_add_inplace(r, tensor_rows(x, 1, rows), table);
    copy_rows(r, y, 0, op_layernorm(r, x, v->first_norm, v->first_bias, 1e-5f));
}

static void read_layer(run *r, const deepseek_ocr *v, encode_job *job, reading *d, int i)
{
    vit_spec s = v->reader;
    if (v->second) s.see = d->see;
    if (v->second && !i) {
        int32_t *place = run_alloc(r, (size_t)d->y.rows * sizeof *place);
        for (int k = 0; place && k < d->n; k++)
            for (int32_t row = d->starts[k]; row < d->starts[k + 1]; row++) {
                place[row] = row - d->starts[k];
                d->see[row] = place[row] < d->features[k] ? d->features[k] : place[row] + 1;
            }
        const int32_t *axes[MAX_ROPE_AXES] = {place, place, place};
        d->cosine = keep(r, job->memory, d->y.rows, v->rope.half);
        d->sine = keep(r, job->memory, d->y.rows, v->rope.half);
        if (run_ok(r)) rope_fill(&v->rope, axes, d->y.rows, d->cosine, d->sine);
    }
    if (run_ok(r)) vit_layer_forward(r, &s, &v->layer[i], i, d->y, d->cosine, d->sine, d->starts, d->n);
}

/* What the linear map reads of all pictures, in their order. */
static tensor read_rows(run *r, const deepseek_ocr *v, const reading *d)
{
    int64_t cols = v->reader.hidden, first = 0;
    tensor out = run_tensor(r, d->f.rows, v->second ? cols : 2 * cols);
    for (int i = 0; i < d->n && run_ok(r); first += d->features[i++]) {
        copy_rows(r, tensor_cols(out, 0, cols), first, tensor_rows(d->y, d->starts[i] + (v->second ? d->features[i] : 1), d->features[i]));
        if (!v->second) copy_rows(r, tensor_cols(out, cols, cols), first, tensor_rows(d->f, first, d->features[i]));
    }
    return v->second ? op_rmsnorm(r, out, v->last_norm, 0, v->reader.eps) : out;
}

/* Rows x columns pictures of side x side features each as one field, row by row, the newline behind each. Returns where it ends. */
static int64_t put_field(run *r, const deepseek_ocr *v, tensor out, int64_t at, tensor x, int rows, int columns, int side)
{
    for (int y = 0; y < rows * side && run_ok(r); y++) {
        for (int c = 0; c < columns; c++, at += side) copy_rows(r, out, at, tensor_rows(x, ((int64_t)(y / side * columns + c) * side + y % side) * side, side));
        copy_rows(r, out, at++, view(v->newline, 1, x.cols));
    }
    return at;
}

static void pack(run *r, const deepseek_ocr *v, encode_job *job, const reading *d)
{
    int rows = job->in->grid[1], columns = job->in->grid[2], whole = (int)sqrt((double)d->features[d->n - 1]), tile = (int)sqrt((double)d->features[0]);
    tensor x = op_linear(r, read_rows(r, v, d), &v->project, v->project_bias), out = run_tensor(r, job->in->tokens, v->base.text.spec.hidden);
    int64_t at = 0, tiles = (int64_t)rows * columns * tile * tile;
    if (!run_ok(r)) return;
    if (v->second) copy_rows(r, out, 0, x), at = x.rows;
    else {
        if (rows) at = put_field(r, v, out, at, tensor_rows(x, 0, tiles), rows, columns, tile);
        at = put_field(r, v, out, at, tensor_rows(x, tiles, (int64_t)whole * whole), 1, 1, whole);
    }
    copy_rows(r, out, at, view(v->separator, 1, out.cols));
    image_tower_set_rows(r, job, out);
}

static bool encode(run *r, const vlm_model *m, encode_job *job)
{
    const deepseek_ocr *v = m->family;
    reading *d = job->family;
    int stage = job->stage - v->sam.layers;
    if (stage < 0) {
        job->family = d->sam;
        sam_tower_encode(r, &v->sam, job);
        job->family = d;
        return run_ok(r);
    }
    job->stage++;
    if (stage < d->n) enter(r, v, job, d, stage);
    else if (stage < d->n + v->layers) read_layer(r, v, job, d, stage - d->n);
    else pack(r, v, job, d);
    return run_ok(r);
}

static const char *const types[] = {"deepseek_ocr", "deepseekocr", "deepseek_ocr2", "deepseekocr_2", NULL};
static const char *const typed[] = {"<|grounding|>", "<|ref|>", "<|/ref|>", "<|det|>", "<|/det|>", NULL};
static const char *const architectures[] = {"DeepseekOCRForCausalLM", "DeepseekOCR2ForCausalLM", NULL};

static const media_rules rules = {.image = "mode* crop_to_patches? crop_mode? cropping? base_size image_size max_patches", .low = "{\"crop_to_patches\": false}"};

const vlm_arch vlm_arch_deepseek_ocr = {
    .name = "deepseek_ocr",
    .title = "DeepSeek-OCR, DeepSeek-OCR 2",
    .model_types = types,
    .rules = &rules,
    .architectures = architectures,
    .task = TASK_GENERATE,
    .takes = TAKES_IMAGE,
    .typed = typed,
    .configure = configure,
    .bind = bind,
    .process = process,
    .placeholder = tower_lm_placeholder,
    .media_token = tower_lm_media_token,
    .expand = tower_lm_expand,
    .encode_start = encode_start,
    .encode = encode,
    .forward = tower_lm_forward,
};
