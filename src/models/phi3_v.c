/* phi3_v.c - Phi-3-vision, Phi-3.5-vision: CLIP in front of Phi-3.  https://arxiv.org/abs/2404.14219
 *
 *   picture -> as wide as so many tiles of 336 that its height, rounded up to tiles, gives num_crops tiles at most; white above and below.
 *              A picture that is higher than wide lies on its side meanwhile
 *   the whole, shrunk to one tile, and the tiles -> CLIP ViT-L/14 (last layer but one, no class row) -> 2 x 2 features side by side
 *   tiles laid out as the picture, sub_GN behind each row; glb_GN; the whole likewise -> linear, GELU, linear -> rows of <|image|>
 *
 * Bites: the published processor splits the prompt at its pictures and encodes each piece for itself, so that a begin token stands behind every
 * picture where the tokenizer adds one. The whole is made from the padded, normalised picture, bicubic (a = -0.75), unsmoothed. LongRoPE from 4096
 * tokens on. The published config says nothing about the tower, and names one of the three tokens that end an answer. */
#include <math.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "models/tower_lm.h"

enum { FACTOR = 2, ANSWER_ENDS = 32000, TURN_ENDS = 32007 };

typedef struct phi3_v {
    tower_lm base;
    mlp_connector connector;
    const float *row_end, *between;
    int tile, side, half;          /* pixels, features and merged features of a tile's side */
    int most;                      /* tiles */
} phi3_v;

static bool configure(vlm_model *m, config *c)
{
    phi3_v *v = m->family = arena_alloc(&m->memory, sizeof *v);
    if (!v) return config_fail(c, VLM_MEMORY, "out of memory");
    decoder *d = &v->base.text;
    image_tower *t = &v->base.tower;
    if (!text_spec(&d->spec, &m->memory, c) || !decoder_plan(d, &m->memory, c)) return false;
    model_use_decoder(m, d);
    m->takes = TAKES_IMAGE;
    if (!config_defaults(c, "vision_config", "{\"hidden_size\":1024,\"intermediate_size\":4096,\"num_hidden_layers\":24,\"num_attention_heads\":16,"
                                             "\"image_size\":336,\"patch_size\":14}")) return false;
    json_t *sizes = json_object_get(c->root, "vision_config");
    if (json_is_object(sizes)) json_object_set_new(sizes, "model_type", json_string("clip_vision_model"));
    int layer = (int)config_int(c, "img_processor.layer_idx", -2, -1024, 1024);
    const char *tower = config_string(c, "img_processor.name", "clip_vision_model"), *kind = config_string(c, "embd_layer.embedding_cls", "image");
    const char *order = config_string(c, "embd_layer.hd_transform_order", "sub_glb"), *projection = config_string(c, "embd_layer.projection_cls", "mlp");
    bool hd = config_bool(c, "embd_layer.use_hd_transform", true) && config_bool(c, "embd_layer.with_learnable_separator", true);
    if (c->failed || !image_tower_config(t, &m->memory, c, layer, false)) return false;
    if (strcmp(tower, "clip_vision_model")) return config_fail(c, VLM_UNSUPPORTED, "img_processor.name \"%.40s\"; clip_vision_model is known", tower);
    if (!hd || strcmp(kind, "image") || strcmp(order, "sub_glb") || strcmp(projection, "mlp"))
        return config_fail(c, VLM_UNSUPPORTED, "embd_layer: pictures, tiles before the whole, with separators, and an MLP behind them were expected");
    v->connector.act = ACT_GELU;
    v->tile = t->image;
    v->side = t->image / t->patch;
    v->half = v->side / FACTOR;
    if (v->side % FACTOR || t->image % t->patch)
        return config_fail(c, VLM_FORMAT, "vision_config: tiles of %d pixels, patches of %d: no %d x %d features side by side", t->image, t->patch, FACTOR, FACTOR);
    if (m->vocab > TURN_ENDS) {
        m->eos[m->n_eos++] = ANSWER_ENDS;
        m->eos[m->n_eos++] = TURN_ENDS;
    }
    v->most = (int)config_int(m->processor, "image_processor.num_crops", 4, 1, 1 << 10);
    if (!picture_config(&v->base.norm, m->processor, "image_processor", picture_clip, RESIZE_BILINEAR)) return false;
    v->base.norm.filter = RESIZE_BILINEAR;
    v->base.norm.pillow = true;
    memset(v->base.norm.outside, 255, 3);
    return !c->failed;
}

static bool bind(vlm_model *m, binder *b)
{
#define EYES "model.vision_embed_tokens."
    static const char *const tower[] = {EYES "img_processor.vision_model.", NULL};
    phi3_v *v = m->family;
    int64_t d = m->hidden, wide = (int64_t)v->base.tower.vit.hidden * FACTOR * FACTOR;
    if (!decoder_bind(&v->base.text, b)) return false;
    image_tower_bind(&v->base.tower, b, tower);
    bind_prefix(b, EYES, NULL);
    bind_vector(b, &v->row_end, wide, "sub_GN");
    bind_vector(b, &v->between, wide, "glb_GN");
    bind_linear(b, &v->connector.up, d, wide, "img_projection.0");
    bind_vector(b, &v->connector.up_bias, d, "img_projection.0.bias");
    bind_linear(b, &v->connector.down, d, d, "img_projection.2");
    bind_vector(b, &v->connector.down_bias, d, "img_projection.2.bias");
    return !b->failed;
}

/* ---- pictures to tiles -------------------------------------------------------------------------------------------- */

typedef struct layout { int rows, columns, height; } layout;               /* tiles; the picture inside, as wide as they are */

static bool lay_out(const phi3_v *v, int height, int width, int most, layout *l, vlm_error *error)
{
    double ratio = (double)width / height;
    int across = 1;
    while ((across + 1) * ceil((across + 1) / ratio) <= most) across++;
    l->columns = across;
    l->height = (int)(across * v->tile / ratio);
    l->rows = (l->height + v->tile - 1) / v->tile;
    return l->height > 0 || err_set(error, VLM_FORMAT, "a picture of %d x %d is too narrow", width, height);
}

/* Rows become columns, of cells of so many bytes. */
static void turn(const uint8_t *in, int height, int width, size_t cell, uint8_t *out)
{
    for (int x = 0; x < width; x++)
        for (int y = 0; y < height; y++, out += cell) memcpy(out, in + ((size_t)y * (size_t)width + (size_t)x) * cell, cell);
}

/* The padded picture [3][height][width] of l, lying on its side when it was higher than wide. */
static bool spread(const phi3_v *v, const image *img, const layout *l, bool high, float *out, vlm_error *error)
{
    image lying = *img;
    size_t cell = img->gray ? 1 : 3;
    if (high) {
        lying = (image){.width = img->height, .height = img->width, .gray = img->gray, .rgb = mem_aligned((size_t)img->width * (size_t)img->height * cell)};
        if (!lying.rgb) return err_memory(error, (size_t)img->width * (size_t)img->height * cell);
        turn(img->rgb, img->height, img->width, cell, lying.rgb);
    }
    int width = l->columns * v->tile, height = l->rows * v->tile;
    bool ok = picture_resized(&v->base.norm, &lying, width, l->height, 0, -((height - l->height) / 2), width, height, out, error);
    if (high) image_free(&lying);
    return ok;
}

/* whole [3][rows * tile][columns * tile] -> tiles [1 + rows * columns][3][tile][tile] */
static void cut(const phi3_v *v, const float *whole, int rows, int columns, float *out)
{
    int tile = v->tile, height = rows * tile, width = columns * tile;
    picture_shrink(whole, height, width, tile, out);
    for (int t = 0; t < rows * columns; t++)
        for (int64_t line = 0; line < 3 * tile; line++)
            memcpy(out + (((int64_t)t + 1) * 3 * tile + line) * tile,
                   whole + (line / tile * height + (int64_t)(t / columns) * tile + line % tile) * width + (int64_t)(t % columns) * tile, (size_t)tile * sizeof *out);
}

static bool process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    const phi3_v *v = m->family;
    const image *img = &item->image;
    layout l;
    out->kind = item->kind;
    if (!tower_lm_only_images(m, item, error)) return false;
    bool high = img->width < img->height;
    int tile = v->tile, most = (int)fmin(fmax(media_option(item->part, options, "num_crops", v->most), 1), 1 << 10);
    if (!lay_out(v, high ? img->width : img->height, high ? img->height : img->width, most, &l, error)) return false;
    int rows = high ? l.columns : l.rows, columns = high ? l.rows : l.columns, tiles = 1 + rows * columns;
    out->tokens = tiles * v->half * v->half + 1 + (rows + 1) * v->half;
    out->grid[0] = 1, out->grid[1] = rows, out->grid[2] = columns;
    if (!tower_lm_fits(m, item, out->tokens, error)) return false;
    size_t values = (size_t)3 * (size_t)(rows * tile) * (size_t)(columns * tile);
    float *pixels = picture_tiles(out, tiles, tile, tile, error), *whole = MEM_ARRAY(values, float), *lying = high ? MEM_ARRAY(values, float) : NULL;
    processed *sizes = media_input_add(out, "image_sizes", DT_I64, 2, (const int64_t[]){1, 2});
    bool ok = pixels && whole && sizes && (lying || !high);
    if (!ok) err_memory(error, values * sizeof(float));
    ok = ok && spread(v, img, &l, high, high ? lying : whole, error);
    for (size_t c = 0; ok && high && c < 3; c++)
        turn((const uint8_t *)(lying + c * (values / 3)), columns * tile, rows * tile, sizeof(float), (uint8_t *)(whole + c * (values / 3)));
    if (ok) {
        cut(v, whole, rows, columns, pixels);
        ((int64_t *)sizes->data)[0] = rows * tile, ((int64_t *)sizes->data)[1] = columns * tile;
    }
    mem_free(whole);
    mem_free(lying);
    return ok;
}

/* ---- prompt ------------------------------------------------------------------------------------------------------- */

static int32_t media_token(const vlm_model *m, media_kind kind) { return kind == MEDIA_IMAGE && m->tok ? tokenizer_id(m->tok, "<|image|>") : -1; }

static const char *placeholder(const vlm_model *m, media_kind kind)
{
    int32_t id = media_token(m, kind);
    return id >= 0 ? tokenizer_token(m->tok, id) : NULL;
}

/* What the tokenizer puts before any text. */
static bool add_begin(const vlm_model *m, buf *text, vlm_error *error)
{
    ids begin = {0};
    encode_options options = {.special = true, .add_special = true};
    bool ok = tokenizer_encode(m->tok, "", 0, &options, &begin, error);
    const char *bos = tokenizer_role(m->tok, "bos_token");
    if (ok && bos && begin.count && begin.id[0] == tokenizer_id(m->tok, bos)) buf_adds(text, bos);
    ids_free(&begin);
    return ok;
}

static bool expand(const vlm_model *m, const media_input *in, buf *text, vlm_error *error)
{
    const char *token = placeholder(m, in->kind);
    for (int i = 0; token && i < in->tokens; i++) buf_adds(text, token);
    if (!add_begin(m, text, error)) return false;
    return text->failed ? err_memory(error, text->size) : true;
}

/* ---- encoder ------------------------------------------------------------------------------------------------------ */

/* One field of rows x columns tiles from tile `first` on, row by row, a separator behind each. */
static int64_t lay(run *r, const phi3_v *v, tensor x, int first, int rows, int columns, tensor out, int64_t at)
{
    int half = v->half;
    for (int y = 0; y < rows * half; y++)
        for (int i = 0; i <= columns * half && run_ok(r) && at < out.rows; i++, at++) {
            int64_t tile = first + y / half * columns + i / half;
            const float *from = i == columns * half ? v->row_end : tensor_row(x, (tile * half + y % half) * half + i % half);
            memcpy(tensor_row(out, at), from, (size_t)out.cols * sizeof *from);
        }
    return at;
}

static bool encode(run *r, const vlm_model *m, encode_job *job)
{
    const phi3_v *v = m->family;
    const media_input *in = job->in;
    if (!image_tower_encode(r, &v->base.tower, job)) return false;
    if (job->stage < job->stages) return true;
    tensor x = tower_lm_shuffle(r, image_tower_features(r, &v->base.tower, job), v->side, v->side, FACTOR), all = run_tensor(r, in->tokens, x.cols);
    if (!run_ok(r)) return false;
    int64_t at = lay(r, v, x, 1, in->grid[1], in->grid[2], all, 0);
    if (at < all.rows) memcpy(tensor_row(all, at++), v->between, (size_t)all.cols * sizeof(float));
    at = lay(r, v, x, 0, 1, 1, all, at);
    if (at != all.rows) return run_fail(r, VLM_INTERNAL, "%lld rows of a picture, %lld were expected", (long long)at, (long long)all.rows);
    image_tower_set_rows(r, job, mlp_connector_apply(r, &v->connector, all));
    return run_ok(r);
}

static const char *const types[] = {"phi3_v", NULL};
static const media_rules rules = {.image = "num_crops", .video = "", .low = "{\"num_crops\": 1}"};

const vlm_arch vlm_arch_phi3_v = {
    .name = "phi3_v", .title = "Phi-3-vision, Phi-3.5-vision", .model_types = types, .task = TASK_GENERATE, .takes = TAKES_IMAGE, .rules = &rules,
    .configure = configure, .bind = bind, .process = process, .placeholder = placeholder, .media_token = media_token, .expand = expand,
    .encode_start = tower_lm_encode_start, .encode = encode, .forward = tower_lm_forward,
};
