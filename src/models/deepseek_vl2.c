/* deepseek_vl2.c - DeepSeek-VL2 (Tiny, Small and the 27B).  https://arxiv.org/abs/2412.10302
 *
 *   picture -> fitted into a square of 384, grey around: the whole view; and into the best of candidate_resolutions, cut into tiles of 384
 *   -> SigLIP with the norm behind -> 2 x 2 features side by side (zeros at the edges), linear, GELU, linear
 *   -> whole view, image_newline behind each row; view_seperator (spelled so); the tiles as one field, image_newline behind each row
 *   -> rows that replace <image> -> DeepSeek-V2 (plain attention in the Tiny one) or with V3's routing
 *
 * Bites: with more than two pictures in a conversation none is tiled: its tile is the whole view again. Side by side means channel by channel, four features
 * of each. The grey is int(255 * image_mean). config.json speaks of language_config, and of width, layers and mlp_ratio of the tower. */
#include <math.h>
#include <string.h>

#include "base/err.h"
#include "models/anyres.h"
#include "models/tower_lm.h"

enum { TILED_PICTURES = 2 };

typedef struct deepseek_vl2 {
    tower_lm base;
    anyres sizes;
    int side, unit, factor;        /* of a tile in pixels, in rows of features; features that become one, across */
    bool global_last;
    weight up, down;
    const float *up_bias, *down_bias, *newline, *separator;
} deepseek_vl2;

static const char TOKEN[] = "<image>";

/* ---- configuration ---------------------------------------------------------------------------------------------------- */

/* What published files call otherwise. */
static bool rename_members(config *c)
{
    json_t *text = json_object_get(c->root, "language_config"), *vision = json_object_get(c->root, "vision_config");
    bool ok = !text || config_has(c, "text_config") || json_object_set(c->root, "text_config", text) == 0;
    int width = (int)config_int(c, "vision_config.width|vision_config.hidden_size", 1152, 1, 1 << 16);
    int layers = (int)config_int(c, "vision_config.layers|vision_config.num_hidden_layers", 27, 1, 1024);
    double ratio = config_number(c, "vision_config.mlp_ratio", 3.7362);
    if (c->failed || !json_is_object(vision)) return config_fail(c, VLM_FORMAT, "vision_config is missing");
    if (!(ratio > 0 && ratio < 64)) return config_fail(c, VLM_FORMAT, "vision_config.mlp_ratio %g", ratio);
    ok = ok && json_object_set_new(vision, "hidden_size", json_integer(width)) == 0 && json_object_set_new(vision, "num_hidden_layers", json_integer(layers)) == 0;
    if (!config_has(c, "vision_config.intermediate_size")) ok = ok && json_object_set_new(vision, "intermediate_size", json_integer((int)(width * ratio))) == 0;
    if (!config_has(c, "image_token_index|image_token_id")) ok = ok && json_object_set_new(c->root, "image_token_index", json_integer(0)) == 0;
    return ok || config_fail(c, VLM_MEMORY, "out of memory");
}

/* candidate_resolutions: widths and heights, all of whole tiles. */
static bool configure_sizes(deepseek_vl2 *v, config *p, config *c)
{
    const json_t *list = config_get(p, "candidate_resolutions");
    if (!list) list = config_get(c, "candidate_resolutions");
    v->side = (int)json_integer_value(json_array_get(json_array_get(list, 0), 0));
    if (v->side < 1 || v->side > 1 << 12) return config_fail(c, VLM_FORMAT, "candidate_resolutions: pairs of width and height were expected");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *pair = json_array_get(list, i);
        json_int_t w = json_integer_value(json_array_get(pair, 0)), h = json_integer_value(json_array_get(pair, 1));
        if (v->sizes.n == ANYRES_MAX || w < 1 || h < 1 || w > 1 << 15 || h > 1 << 15 || w % v->side || h % v->side)
            return config_fail(c, VLM_FORMAT, "candidate_resolutions: up to %d pairs of multiples of %d were expected", ANYRES_MAX, v->side);
        v->sizes.size[v->sizes.n][0] = (int)h;
        v->sizes.size[v->sizes.n++][1] = (int)w;
    }
    return true;
}

static bool configure_projector(deepseek_vl2 *v, config *c)
{
    const char *type = config_string(c, "projector_config.projector_type", "downsample_mlp_gelu"), *tag = config_string(c, "tile_tag", "2D");
    int depth = (int)config_int(c, "projector_config.depth", 2, 1, 64), ratio = (int)config_int(c, "projector_config.mlp_ratio", 1, 1, 64);
    v->factor = (int)config_int(c, "projector_config.downsample_ratio", 2, 1, 16);
    int out = (int)config_int(c, "projector_config.n_embed", v->base.text.spec.hidden, 1, 1 << 16), in = (int)config_int(c, "projector_config.input_dim", v->base.tower.vit.hidden, 1, 1 << 16);
    bool pooled = config_bool(c, "projector_config.token_pooling", false);
    if (c->failed) return false;
    if (strcmp(type, "downsample_mlp_gelu") || depth != 2 || ratio != 1 || pooled)
        return config_fail(c, VLM_UNSUPPORTED, "projector_config: \"%.30s\" of depth %d, mlp_ratio %d; downsample_mlp_gelu of depth 2 without pooling is known", type, depth, ratio);
    if (strcmp(tag, "2D")) return config_fail(c, VLM_UNSUPPORTED, "tile_tag \"%.10s\"; 2D is known", tag);
    if (out != v->base.text.spec.hidden || in != v->base.tower.vit.hidden)
        return config_fail(c, VLM_FORMAT, "projector_config: %d to %d columns, the tower has %d, the decoder %d", in, out, v->base.tower.vit.hidden, v->base.text.spec.hidden);
    v->global_last = !strcmp(config_string(c, "global_view_pos", "head"), "tail");
    return !c->failed;
}

static bool configure(vlm_model *m, config *c)
{
    static const char *const prefix[] = {"language.model.", "language_model.model.", "model.language_model.", NULL}, *const head[] = {"language.", "language_model.", "", NULL};
    deepseek_vl2 *v = m->family = arena_alloc(&m->memory, sizeof *v);
    config *p = m->processor;
    if (!v) return config_fail(c, VLM_MEMORY, "out of memory");
    if (!configure_sizes(v, p, c) || !rename_members(c)) return false;
    if (!config_has(c, "vision_config.image_size")) json_object_set_new(json_object_get(c->root, "vision_config"), "image_size", json_integer(v->side));
    if (!tower_lm_config(&v->base, m, c) || !image_tower_config(&v->base.tower, &m->memory, c, -1, true) || !configure_projector(v, c)) return false;
    memcpy(v->base.text.spec.prefix, prefix, sizeof prefix);
    memcpy(v->base.text.spec.head_prefix, head, sizeof head);
    const image_tower *t = &v->base.tower;
    if (t->class_token || v->side / t->patch != t->image / t->patch)
        return config_fail(c, VLM_FORMAT, "tiles of %d pixels, the vision tower takes %d", v->side, t->image);
    v->unit = (v->side / t->patch + v->factor - 1) / v->factor;
    double mean[3] = {0.5, 0.5, 0.5};
    const char *where = config_has(p, "image_mean") ? "" : "image_processor";
    if (!picture_config(&v->base.norm, p, where, picture_half, RESIZE_BICUBIC)) return false;
    config_numbers(p, where[0] ? "image_processor.image_mean" : "image_mean", mean, 3);
    for (int i = 0; !p->failed && i < 3; i++) v->base.norm.outside[i] = (uint8_t)(fmin(fmax(mean[i], 0), 1) * 255);
    v->base.norm.pillow = true;
    return !p->failed;
}

static bool bind(vlm_model *m, binder *b)
{
    static const char *const tower[] = {"vision.", "vision.vision_tower.", NULL};
    deepseek_vl2 *v = m->family;
    int64_t d = v->base.text.spec.hidden, wide = (int64_t)v->base.tower.vit.hidden * v->factor * v->factor;
    if (!decoder_bind(&v->base.text, b)) return false;
    image_tower_bind(&v->base.tower, b, tower);
    bind_prefix(b, "", NULL);
    bind_linear(b, &v->up, d, wide, "projector.layers.0");
    bind_vector(b, &v->up_bias, d, "projector.layers.0.bias");
    bind_linear(b, &v->down, d, d, "projector.layers.2");
    bind_vector(b, &v->down_bias, d, "projector.layers.2.bias");
    bind_vector(b, &v->newline, d, "image_newline");
    bind_vector(b, &v->separator, d, b->files && bind_exists(b, "view_separator") ? "view_separator" : "view_seperator");
    return !b->failed;
}

/* ---- processor -------------------------------------------------------------------------------------------------------- */

static int rows_of(const deepseek_vl2 *v, int down, int across) { return down * v->unit * (across * v->unit + 1); }

/* `tiles` of the picture fitted into width x height, tile by tile. */
static bool cut(const deepseek_vl2 *v, const image *img, int width, int height, float *out, vlm_error *error)
{
    picture_place at = picture_contain(img, width, height);
    image fitted;
    if (!image_resize_pillow(img, at.width, at.height, v->base.norm.filter, &fitted, error)) return false;
    for (int y = 0; y < height; y += v->side)
        for (int x = 0; x < width; x += v->side, out += 3 * v->side * v->side) picture_window(&v->base.norm, &fitted, x - at.x, y - at.y, v->side, v->side, out);
    image_free(&fitted);
    return true;
}

static bool process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    const deepseek_vl2 *v = m->family;
    const json_t *cropping = json_object_get(options, "cropping");
    if (!tower_lm_only_images(m, item, error)) return false;
    bool tiled = json_is_boolean(cropping) ? json_is_true(cropping) : media_option(item->part, options, "pictures", 1) <= TILED_PICTURES;
    out->kind = item->kind;
    out->grid[0] = out->grid[1] = out->grid[2] = 1;
    if (tiled) anyres_grid(&v->sizes, &item->image, v->side, out);
    int down = out->grid[1], across = out->grid[2], tiles = 1 + down * across;
    out->tokens = rows_of(v, 1, 1) + 1 + rows_of(v, down, across);
    if (!tower_lm_fits(m, item, out->tokens, error)) return false;
    processed *crop = media_input_add(out, "images_spatial_crop", DT_I64, 2, (const int64_t[]){1, 2});
    processed *pixels = crop ? media_input_add(out, "pixel_values", DT_F32, 4, (const int64_t[]){tiles, 3, v->side, v->side}) : NULL;
    if (!pixels) return err_memory(error, (size_t)tiles * 3 * (size_t)v->side * (size_t)v->side * sizeof(float));
    ((int64_t *)crop->data)[0] = across;
    ((int64_t *)crop->data)[1] = down;
    return cut(v, &item->image, v->side, v->side, pixels->data, error) &&
           cut(v, &item->image, across * v->side, down * v->side, (float *)pixels->data + (int64_t)3 * v->side * v->side, error);
}

static int32_t media_token(const vlm_model *m, media_kind kind) { return kind == MEDIA_IMAGE && m->tok ? tokenizer_id(m->tok, TOKEN) : -1; }
static const char *placeholder(const vlm_model *m, media_kind kind) { return kind == MEDIA_IMAGE ? TOKEN : NULL; }

static bool expand(const vlm_model *m, const media_input *in, buf *text, vlm_error *error)
{
    for (int i = 0; i < in->tokens; i++) buf_adds(text, TOKEN);
    return text->failed ? err_memory(error, text->size) : true;
}

/* ---- encoder ---------------------------------------------------------------------------------------------------------- */

/* factor x factor features of each tile as one row, channel by channel; zeros where the tile has ended. */
static tensor side_by_side(run *r, const deepseek_vl2 *v, tensor x)
{
    int side = v->side / v->base.tower.patch, f = v->factor, unit = v->unit;
    int64_t tiles = x.rows / ((int64_t)side * side), d = x.cols;
    tensor out = run_zeros(r, tiles * unit * unit, d * f * f);
    for (int64_t i = 0; run_ok(r) && i < out.rows; i++)
        for (int k = 0; k < f * f; k++) {
            int64_t tile = i / (unit * unit);
            int y = (int)(i / unit % unit) * f + k / f, z = (int)(i % unit) * f + k % f;
            if (y >= side || z >= side) continue;
            const float *from = tensor_row(x, (tile * side + y) * side + z);
            float *to = tensor_row(out, i) + k;
            for (int64_t c = 0; c < d; c++) to[c * f * f] = from[c];
        }
    return out;
}

static int64_t put_row(run *r, tensor out, int64_t at, const float *row)
{
    if (run_ok(r)) memcpy(tensor_row(out, at), row, (size_t)out.cols * sizeof(float));
    return at + 1;
}

/* down x across tiles of x from tile `first` on as one field, row by row, the newline behind each. Returns where it ends. */
static int64_t put_field(run *r, const deepseek_vl2 *v, tensor out, int64_t at, tensor x, int64_t first, int down, int across)
{
    int unit = v->unit;
    for (int y = 0; y < down * unit && run_ok(r); y++) {
        for (int z = 0; z < across * unit; z++) {
            int64_t tile = first + (int64_t)(y / unit) * across + z / unit;
            at = put_row(r, out, at, tensor_row(x, (tile * unit + y % unit) * unit + z % unit));
        }
        at = put_row(r, out, at, v->newline);
    }
    return at;
}

static bool encode(run *r, const vlm_model *m, encode_job *job)
{
    const deepseek_vl2 *v = m->family;
    if (!image_tower_encode(r, &v->base.tower, job)) return false;
    if (job->stage < job->stages) return true;
    tensor x = op_linear(r, side_by_side(r, v, image_tower_features(r, &v->base.tower, job)), &v->up, v->up_bias);
    op_activate(r, x, ACT_GELU);
    x = op_linear(r, x, &v->down, v->down_bias);                                           /* [tiles * unit * unit, hidden] */
    tensor out = run_tensor(r, job->in->tokens, x.cols);
    int down = job->in->grid[1], across = job->in->grid[2];
    int64_t at = 0;
    if (!run_ok(r)) return false;
    at = v->global_last ? put_field(r, v, out, at, x, 1, down, across) : put_field(r, v, out, at, x, 0, 1, 1);
    at = put_row(r, out, at, v->separator);
    if (v->global_last) put_field(r, v, out, at, x, 0, 1, 1);
    else put_field(r, v, out, at, x, 1, down, across);
    image_tower_set_rows(r, job, out);
    return run_ok(r);
}

static const char chat[] =
    "{{ bos_token }}{% for m in messages %}{{ '<|User|>: ' if m.role == 'user' else '<|Assistant|>: ' if m.role == 'assistant' else '' }}"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}{{ '<image>\n' if p.type == 'image' else p.text }}{% endfor %}{% endif %}"
    "{{ '<｜end▁of▁sentence｜>' if m.role == 'assistant' else '\n\n' }}{% endfor %}{% if add_generation_prompt %}<|Assistant|>:{% endif %}";

static const char *const types[] = {"deepseek_vl_v2", NULL};
static const char *const typed[] = {"<|ref|>", "<|/ref|>", "<|det|>", "<|/det|>", "<|grounding|>", NULL};

static const media_rules rules = {.image = "cropping?", .low = "{\"cropping\": false}"};

const vlm_arch vlm_arch_deepseek_vl2 = {
    .name = "deepseek_vl2",
    .title = "DeepSeek-VL2",
    .model_types = types,
    .task = TASK_GENERATE,
    .takes = TAKES_IMAGE,
    .chat = chat,
    .typed = typed,
    .rules = &rules,
    .counts_images = true,
    .configure = configure,
    .bind = bind,
    .process = process,
    .placeholder = placeholder,
    .media_token = media_token,
    .expand = expand,
    .encode_start = tower_lm_encode_start,
    .encode = encode,
    .forward = tower_lm_forward,
};
