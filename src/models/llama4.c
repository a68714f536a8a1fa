/* llama4.c - Llama 4 (Scout, Maverick) with its eyes.  https://ai.meta.com/blog/llama-4-multimodal-intelligence/
 *
 *   picture -> the canvas of up to 16 tiles of 336 x 336 that lets it grow least (else shrink least); not enlarged beyond its size or a tile's, black to
 *           the right and below; tiles, and when there are several the picture squeezed into one more -> ViT with rope, class row last
 *   -> 2 x 2 features side by side -> linear, GELU, linear, GELU -> linear -> rows that replace <|patch|>:
 *      <|image_start|> tile <|tile_x_separator|> tile <|tile_y_separator|> ... <|image|> whole <|image_end|> -> llama4_text.c
 *
 * Bites: pixels are scaled and normalised in bfloat16. The ViT's layer norms have their own epsilon, whatever the config says. */
#include "models/tower_lm.h"

#include <math.h>
#include <string.h>

#include "base/err.h"

enum { MOST_TILES = 64, MOST_SHAPES = 512 };

typedef struct llama4 {
    tower_lm base;
    weight fc1, fc2, project;
    int inner, outer, seen;        /* widths behind the two layers of the adapter, and of what the projector reads */
    int most;
    bool largest;
    int shapes, shape[MOST_SHAPES][2];     /* of canvases in tiles, height and width, in the reference's order */
} llama4;

/* ---- configuration and weights -------------------------------------------------------------------------------------- */

/* Shapes of `most` tiles and fewer; those of one ratio stand together. */
static void list_shapes(llama4 *v)
{
    int all[MOST_SHAPES][2], n = 0;
    bool taken[MOST_SHAPES] = {false};
    for (int tiles = v->most; tiles > 0; tiles--)
        for (int down = 1; down <= tiles && n < MOST_SHAPES; down++)
            if (tiles % down == 0) all[n][0] = down, all[n++][1] = tiles / down;
    for (int i = 0; i < n; i++)
        for (int k = i; k < n && !taken[i]; k++)
            if (!taken[k] && all[k][0] * all[i][1] == all[i][0] * all[k][1]) {
                memcpy(v->shape[v->shapes++], all[k], sizeof all[k]);
                taken[k] = k != i;
            }
}

static float round_to_bf16(float x) { return bf16_to_f32(f32_to_bf16(x)); }

/* Rounded to bfloat16 after each step, as the reference does it. */
static void coarse_values(picture_norm *n, config *p)
{
    double mean[3] = {0.5, 0.5, 0.5}, std[3] = {0.5, 0.5, 0.5};
    config_numbers(p, "image_processor.image_mean", mean, 3);
    config_numbers(p, "image_processor.image_std", std, 3);
    float scale = (float)config_number(p, "image_processor.rescale_factor", 1 / 255.0);
    for (int c = 0; c < 3 && !p->failed; c++)
        for (int i = 0; i < 256; i++) {
            float x = round_to_bf16((float)i * scale);
            x = round_to_bf16(x - round_to_bf16((float)mean[c]));
            n->value[c][i] = round_to_bf16(x / round_to_bf16((float)std[c]));
        }
}

static bool configure(vlm_model *m, config *c)
{
    llama4 *v = m->family = arena_alloc(&m->memory, sizeof *v);
    if (!v) return config_fail(c, VLM_MEMORY, "out of memory");
    json_t *vision = json_object_get(c->root, "vision_config"), *text = json_object_get(c->root, "text_config");
    if (json_is_object(vision) && !json_object_get(vision, "model_type")) json_object_set_new(vision, "model_type", json_string("llama4_vision_model"));
    if (json_is_object(text) && !json_object_get(text, "model_type")) json_object_set_new(text, "model_type", json_string("llama4_text"));
    if (!config_has(c, "image_token_index|image_token_id")) json_object_set_new(c->root, "image_token_index", json_integer(200092));
    if (!tower_lm_config(&v->base, m, c) || !image_tower_config(&v->base.tower, &m->memory, c, -1, true)) return false;
    image_tower *t = &v->base.tower;
    t->vit.eps = 1e-5f, t->vit.act = ACT_GELU;
    v->inner = (int)config_int(c, "vision_config.projector_input_dim", 4096, 1, 1 << 18);
    v->outer = (int)config_int(c, "vision_config.projector_output_dim", 4096, 1, 1 << 18);
    v->seen = (int)config_int(c, "vision_config.vision_output_dim", 7680, 1, 1 << 18);
    double ratio = config_number(c, "vision_config.pixel_shuffle_ratio", 0.5);
    config *p = m->processor;
    v->most = (int)config_int(p, "image_processor.max_patches", 16, 1, MOST_TILES);
    v->largest = config_bool(p, "image_processor.resize_to_max_canvas", false);
    int64_t height = config_int(p, "image_processor.size.height", 336, 1, 1 << 14), width = config_int(p, "image_processor.size.width", 336, 1, 1 << 14);
    if (c->failed || p->failed || !picture_config(&v->base.norm, p, "image_processor", picture_half, RESIZE_BILINEAR)) return false;
    if (strcmp(config_string(c, "vision_config.vision_feature_select_strategy", "default"), "default"))
        return config_fail(c, VLM_UNSUPPORTED, "a vision_feature_select_strategy other than default");
    if (!config_bool(p, "image_processor.do_rescale", true) || !config_bool(p, "image_processor.do_normalize", true))
        return config_fail(c, VLM_UNSUPPORTED, "a processor that does not rescale and normalize");
    if (ratio != 0.5 || t->image / t->patch % 2) return config_fail(c, VLM_UNSUPPORTED, "pixel_shuffle_ratio %g of %d patches a side", ratio, t->image / t->patch);
    if (4 * t->vit.hidden != t->vit.ffn) return config_fail(c, VLM_FORMAT, "vision_config.intermediate_size %d: four times hidden_size was expected", t->vit.ffn);
    if (v->inner != v->outer || v->seen != v->outer) return config_fail(c, VLM_FORMAT, "projector widths %d, %d, %d do not fit together", v->inner, v->outer, v->seen);
    if (height != t->image || width != t->image) return config_fail(c, VLM_FORMAT, "tiles of %lld x %lld, the tower takes %d", (long long)width, (long long)height, t->image);
    coarse_values(&v->base.norm, p);
    list_shapes(v);
    return !p->failed;
}

static bool bind(vlm_model *m, binder *b)
{
    llama4 *v = m->family;
    tower_lm_bind(&v->base, b);
    bind_linear(b, &v->project, v->base.text.spec.hidden, v->seen, "multi_modal_projector.linear_1");
    bind_prefix(b, "vision_model.", "model.vision_model.", NULL);
    bind_linear(b, &v->fc1, v->inner, v->base.tower.vit.ffn, "vision_adapter.mlp.fc1");
    bind_linear(b, &v->fc2, v->outer, v->outer, "vision_adapter.mlp.fc2");
    return !b->failed;
}

/* ---- processor ---------------------------------------------------------------------------------------------------- */

static float growth(const llama4 *v, int i, int height, int width)
{
    float down = (float)(v->shape[i][0] * v->base.tower.image) / (float)height, across = (float)(v->shape[i][1] * v->base.tower.image) / (float)width;
    return down > across ? across : down;
}

/* The canvas: of those that let the picture grow the one where it grows least (or most), else the one where it shrinks least; of equals the smallest. */
static int choose_canvas(const llama4 *v, int most, int height, int width)
{
    float best = 0;
    int chosen = -1;
    for (int pass = 0; pass < 2 && chosen < 0; pass++)
        for (int i = 0; i < v->shapes; i++) {
            float by = growth(v, i, height, width);
            int tiles = v->shape[i][0] * v->shape[i][1];
            if (tiles > most || (pass == 0) != (by >= 1)) continue;
            bool better = chosen < 0 || (pass == 0 && !v->largest ? by < best : by > best);
            if (!better && (by != best || tiles >= v->shape[chosen][0] * v->shape[chosen][1])) continue;
            best = by;
            chosen = i;
        }
    return chosen < 0 ? 0 : chosen;
}

static int between(int x, int low, int high) { return x < low ? low : x > high ? high : x; }

static bool process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    const llama4 *v = m->family;
    const image *img = &item->image;
    if (!tower_lm_only_images(m, item, error)) return false;
    int side = v->base.tower.image, most = (int)fmin(fmax(media_option(item->part, options, "max_patches", v->most), 1), v->most);
    int canvas = choose_canvas(v, most, img->height, img->width), down = v->shape[canvas][0], across = v->shape[canvas][1];
    int n = down * across, tiles = n > 1 ? n + 1 : 1, height = down * side, width = across * side;
    if (!v->largest) {                                     /* no larger than it is, or than a tile */
        height = between(img->height, side, height);
        width = between(img->width, side, width);
    }
    double by_height = (double)height / img->height, by_width = (double)width / img->width;
    if (by_width < by_height) height = (int)fmin(floor(img->height * by_width), height);
    else width = (int)fmin(floor(img->width * by_height), width);
    if (height < 1) height = 1;
    if (width < 1) width = 1;
    out->kind = item->kind;
    out->tokens = tiles * (v->base.tower.positions / 4);
    out->grid[0] = tiles, out->grid[1] = down, out->grid[2] = across;
    if (!tower_lm_fits(m, item, out->tokens, error)) return false;
    int64_t each = (int64_t)3 * side * side;
    processed *p = media_input_add(out, "pixel_values", DT_F32, 4, (const int64_t[]){tiles, 3, side, side});
    if (!p) return err_memory(error, (size_t)(tiles * each) * sizeof(float));
    image small;
    if (!picture_resize(&v->base.norm, img, width, height, &small, error)) return false;
    for (int i = 0; i < n; i++) picture_window(&v->base.norm, &small, i % across * side, i / across * side, side, side, (float *)p->data + i * each);
    image_free(&small);
    return tiles == 1 || picture_resized(&v->base.norm, img, side, side, 0, 0, side, side, (float *)p->data + n * each, error);
}

/* ---- prompt ------------------------------------------------------------------------------------------------------- */

static const char *placeholder(const vlm_model *m, media_kind kind)
{
    (void)m;
    return kind == MEDIA_IMAGE ? "<|image|>" : NULL;
}

static bool expand(const vlm_model *m, const media_input *in, buf *text, vlm_error *error)
{
    const char *token = tower_lm_placeholder(m, MEDIA_IMAGE);
    int each = in->tokens / in->grid[0];
    buf_adds(text, "<|image_start|>");
    for (int i = 0; i < in->grid[0]; i++) {
        bool whole = i == in->grid[0] - 1;
        if (whole) buf_adds(text, "<|image|>");
        for (int k = 0; token && k < each; k++) buf_adds(text, token);
        if (whole) buf_adds(text, "<|image_end|>");
        else buf_adds(text, (i + 1) % in->grid[2] ? "<|tile_x_separator|>" : "<|tile_y_separator|>");
    }
    return text->failed ? err_memory(error, text->size) : true;
}

/* ---- encoder ------------------------------------------------------------------------------------------------------ */

static bool encode(run *r, const vlm_model *m, encode_job *job)
{
    const llama4 *v = m->family;
    int side = v->base.tower.image / v->base.tower.patch;
    if (!image_tower_encode(r, &v->base.tower, job)) return false;
    if (job->stage < job->stages) return true;
    tensor x = tower_lm_shuffle(r, image_tower_features(r, &v->base.tower, job), side, side, 2);
    x = op_linear(r, x, &v->fc1, NULL);
    op_activate(r, x, ACT_GELU);
    x = op_linear(r, x, &v->fc2, NULL);
    op_activate(r, x, ACT_GELU);
    image_tower_set_rows(r, job, op_linear(r, x, &v->project, NULL));
    return run_ok(r);
}

static const char *const types[] = {"llama4", NULL};
static const media_rules rules = {.image = "max_patches", .low = "{\"max_patches\": 1}"};

const vlm_arch vlm_arch_llama4 = {
    .name = "llama4",
    .title = "Llama 4 (Scout, Maverick)",
    .model_types = types,
    .task = TASK_GENERATE,
    .takes = TAKES_IMAGE,
    .rules = &rules,
    .configure = configure,
    .bind = bind,
    .process = process,
    .placeholder = placeholder,
    .media_token = tower_lm_media_token,
    .expand = expand,
    .encode_start = tower_lm_encode_start,
    .encode = encode,
    .forward = tower_lm_forward,
};
