/* kimi.c - Kimi-VL (kimi_vl) and Kimi K2.5 (kimi_k25).  https://arxiv.org/abs/2504.07491
 *
 *   picture, shrunk only where it has too many patches, black to the right and below up to whole blocks
 *   -> patches [h*w, 3*14*14], row by row -> product + table of positions (bicubic) -> MoonViT blocks with rope -> layer norm
 *   -> projector: layer norm of each patch, 2 x 2 side by side, linear, GELU, linear -> rows that replace <|media_pad|>
 *   -> DeepSeek-V3 decoder: latent attention, experts (deepseek.c)
 *
 * Bites: rope turns pairs of neighbours, columns and rows of the picture taking turns over the frequencies. K2.5 counts sides in whole patches, too; Kimi-VL
 * resizes as Pillow does, and where pad_input is off cuts the middle out instead of filling up. */
#include "models/qwen_vl.h"

#include <math.h>
#include <string.h>

#include "base/err.h"
#include "models/picture.h"
#include "models/text.h"

typedef struct kimi {
    qwen_vl base;                  /* first: the functions of qwen_vl.h find it there */
    bool k25, pads;
    int most_patches, most_side;   /* of a picture, in patches */
    const float *norm, *norm_bias, *up_bias, *down_bias;
    weight up, down;
} kimi;

static const char PLACEHOLDER[] = "<|media_pad|>";

/* ---- configuration and weights -------------------------------------------------------------------------------------- */

static bool configure_vision(kimi *v, config *c)
{
    qwen_tower *t = &v->base.tower;
    int64_t kernel[2] = {2, 2};
    t->vit = (vit_spec){
        .hidden = (int)config_int(c, "vision_config.hidden_size|vision_config.vt_hidden_size", 1152, 1, 1 << 16),
        .heads = (int)config_int(c, "vision_config.num_attention_heads|vision_config.vt_num_attention_heads", 16, 1, 1 << 10),
        .ffn = (int)config_int(c, "vision_config.intermediate_size|vision_config.vt_intermediate_size", 4304, 1, 1 << 20),
        .act = config_activation(c, "vision_config.hidden_act", "gelu_pytorch_tanh"),
        .layernorm = true,
        .eps = 1e-5f,
        .rope_pairs = true,
    };
    t->depth = (int)config_int(c, "vision_config.num_hidden_layers|vision_config.vt_num_hidden_layers", 27, 1, QWEN_MAX_DEPTH);
    t->side = (int)config_int(c, "vision_config.pos_emb_height|vision_config.init_pos_emb_height", 64, 1, 1 << 12);
    t->bicubic = true;
    t->out = v->base.text.spec.hidden;
    int wide = (int)config_int(c, "vision_config.pos_emb_width|vision_config.init_pos_emb_width", t->side, 1, 1 << 12);
    config_ints(c, "vision_config.merge_kernel_size", kernel, 2);
    if (c->failed) return false;
    if (wide != t->side) return config_fail(c, VLM_UNSUPPORTED, "a table of positions of %d x %d; a square was expected", t->side, wide);
    if (kernel[0] != v->base.processor.patch.merge || kernel[1] != kernel[0])
        return config_fail(c, VLM_UNSUPPORTED, "merge_kernel_size %lld x %lld; the processor merges squares of %d", (long long)kernel[0], (long long)kernel[1],
                           v->base.processor.patch.merge);
    return true;
}

static bool configure_processor(kimi *v, vlm_model *m, config *c)
{
    qwen_vl_processor *p = &v->base.processor;
    config *files = m->processor;
    int64_t kernel[2] = {2, 2};
    if (!qwen_vl_configure(p, files, c)) return false;
    const double *mean = v->k25 ? picture_half[0] : picture_clip[0], *std = v->k25 ? picture_half[1] : picture_clip[1];
    for (int i = 0; i < PATCH_CHANNELS; i++) {
        if (!config_has(files, "image_processor.image_mean")) p->patch.mean[i] = (float)mean[i];
        if (!config_has(files, "image_processor.image_std")) p->patch.std[i] = (float)std[i];
    }
    config_ints(files, "image_processor.merge_kernel_size|image_processor.media_proc_cfg.merge_kernel_size", kernel, 2);
    p->patch.merge = (int)config_int(files, "image_processor.merge_size", kernel[0], 1, 16);
    p->patch.temporal = 1;
    p->patch.raster = true;
    v->most_patches = (int)config_int(files, "image_processor.max_patches|image_processor.in_token_limit|image_processor.media_proc_cfg.in_patch_limit", v->k25 ? 16384 : 4096, 1, 1 << 24);
    v->most_side = (int)config_int(files, "image_processor.size.max_height|image_processor.media_proc_cfg.patch_limit_on_one_side", 512, 1, 1 << 15);
    v->pads = v->k25 || config_bool(files, "image_processor.pad_input", false);
    p->image_token = (int32_t)config_int(c, "image_token_id|media_placeholder_token_id|image_token_index", v->k25 ? 163605 : 163606, 0, INT32_MAX);
    p->video_token = -1;
    if (!files->failed) return !c->failed;
    c->error = files->error;
    return c->failed = true, false;
}

static bool configure(vlm_model *m, config *c)
{
    kimi *v = m->family = arena_alloc(&m->memory, sizeof *v);
    if (!v) return config_fail(c, VLM_MEMORY, "out of memory");
    v->k25 = !strcmp(config_string(c, "model_type", "kimi_vl"), "kimi_k25");
    if (!deepseek_spec(&v->base.text.spec, &m->memory, c, "deepseek_v3")) return false;
    decoder_names(&v->base.text.spec);
    if (!configure_processor(v, m, c) || !configure_vision(v, c) || !qwen_vl_plan(&v->base, m, c)) return false;
    m->rope_axes = 1;
    m->takes = TAKES_IMAGE;
    return true;
}

/* x: normed patches, a block's side by side. */
static tensor merge(run *r, const void *family, tensor x)
{
    const kimi *v = family;
    int64_t d = v->base.tower.vit.hidden, unit = x.cols / d;
    x = op_layernorm(r, (tensor){x.data, DT_F32, x.rows * unit, d, d}, v->norm, v->norm_bias, 1e-5f);
    x = op_linear(r, (tensor){x.data, DT_F32, x.rows / unit, d * unit, d * unit}, &v->up, v->up_bias);
    op_activate(r, x, ACT_GELU);
    return op_linear(r, x, &v->down, v->down_bias);
}

static bool bind(vlm_model *m, binder *b)
{
    kimi *v = m->family;
    qwen_tower *t = &v->base.tower;
    int64_t d = t->vit.hidden, wide = d * t->patch.merge * t->patch.merge;
    if (!decoder_bind(&v->base.text, b)) return false;
    bind_prefix(b, "vision_tower.encoder.", "vision_tower.", NULL);
    bool mlx = b->files && bind_exists(b, "blocks.0.attn.wqkv.weight");
    const qwen_tower_names names = {
        .layer = {.norm1 = "norm0", .norm2 = "norm1", .qkv = mlx ? "attn.wqkv" : "wqkv", .proj = mlx ? "attn.wo" : "wo", .up = "mlp.fc0", .down = "mlp.fc1"},
        .positions = "patch_embed.pos_emb",
    };
    qwen_tower_bind(&names, t, b);
    bind_vector(b, &t->merger.norm, d, "final_layernorm.weight");
    bind_vector(b, &t->merger.norm_bias, d, "final_layernorm.bias");
    bind_prefix(b, "mm_projector.", "multi_modal_projector.", NULL);
    const char *up = b->files && bind_exists(b, "linear_1.weight") ? "linear_1" : "proj.0", *down = up[0] == 'l' ? "linear_2" : "proj.2";
    bind_vector(b, &v->norm, d, "pre_norm.weight");
    bind_vector(b, &v->norm_bias, d, "pre_norm.bias");
    bind_linear(b, &v->up, wide, wide, "%s", up);
    bind_vector(b, &v->up_bias, wide, "%s.bias", up);
    bind_linear(b, &v->down, t->out, wide, "%s", down);
    bind_vector(b, &v->down_bias, t->out, "%s.bias", down);
    t->merge = merge;
    t->merge_family = v;
    return !b->failed;
}

/* ---- processor ------------------------------------------------------------------------------------------------------ */

/* What the picture is shrunk to, before whole blocks are made of it. */
static void shrink(const kimi *v, const media_item *item, const json_t *options, int *width, int *height)
{
    int patch = v->base.processor.patch.patch;
    double most = v->most_patches, asked = media_option(item->part, options, "max_pixels", most * patch * patch), scale = 1;
    if (asked >= 1) most = fmin(most, fmax(asked / (patch * patch), 1));
    double rows = *height / patch, columns = *width / patch, side = v->most_side * patch;
    if (v->k25) {
        scale = fmin(fmin(1, sqrt(most / (fmax(rows, 1) * fmax(columns, 1)))), fmin(side / *height, side / *width));
        *width = (int)fmin(fmax(1, floor(*width * scale)), side);
        *height = (int)fmin(fmax(1, floor(*height * scale)), side);
    } else if (rows * columns > most) {
        scale = sqrt(most / (rows * columns));
        *width = (int)fmax(1, floor(*width * scale));
        *height = (int)fmax(1, floor(*height * scale));
    }
}

/* img [x, x + width) x [y, y + height) as a picture of its own, black outside of it. */
static bool frame(const image *img, int x, int y, int width, int height, image *out, vlm_error *error)
{
    size_t row = (size_t)width * 3, bytes;
    *out = (image){.width = width, .height = height};
    if (!mem_mul(row, (size_t)height, &bytes) || !(out->rgb = mem_aligned(bytes))) return err_memory(error, row);
    memset(out->rgb, 0, bytes);
    int columns = img->width - x < width ? img->width - x : width;
    for (int i = 0; i < height && y + i < img->height; i++)
        memcpy(out->rgb + (size_t)i * row, img->rgb + ((size_t)(y + i) * (size_t)img->width + (size_t)x) * 3, (size_t)columns * 3);
    return true;
}

/* The picture whole, in blocks of patches. */
static bool make_picture(const kimi *v, const media_item *item, const json_t *options, image *out, vlm_error *error)
{
    const patch_spec *s = &v->base.processor.patch;
    const image *img = &item->image;
    int width = img->width, height = img->height, unit = s->patch * s->merge;
    image resized;
    shrink(v, item, options, &width, &height);
    int to_width = v->pads ? (width + unit - 1) / unit * unit : width / unit * unit, to_height = v->pads ? (height + unit - 1) / unit * unit : height / unit * unit;
    if (to_width < 1 || to_height < 1) return err_set(error, VLM_UNSUPPORTED, "image of %d x %d is smaller than a block of %d x %d", img->width, img->height, unit, unit);
    if (!v->k25 && (to_width / s->patch >= v->most_side || to_height / s->patch >= v->most_side))
        return err_set(error, VLM_LIMIT, "image of %d x %d has %d or more patches to a side", img->width, img->height, v->most_side);
    if (!(v->k25 ? image_resize : image_resize_pillow)(img, width, height, RESIZE_BICUBIC, &resized, error)) return false;
    int x = v->pads ? 0 : (width - to_width) / 2, y = v->pads ? 0 : (height - to_height) / 2;
    bool ok = frame(&resized, x, y, to_width, to_height, out, error);
    image_free(&resized);
    return ok;
}

static bool process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    const kimi *v = m->family;
    const patch_spec *s = &v->base.processor.patch;
    image whole;
    if (item->kind != MEDIA_IMAGE) return err_set(error, VLM_UNSUPPORTED, "%s takes images, no %s", m->arch->title, media_kind_name(item->kind));
    if (!make_picture(v, item, options, &whole, error)) return false;
    int64_t rows = whole.height / s->patch, columns = whole.width / s->patch, n = rows * columns, tokens = n / (s->merge * s->merge);
    out->kind = item->kind;
    out->grid[0] = 1, out->grid[1] = (int)rows, out->grid[2] = (int)columns;
    out->tokens = (int)tokens;
    processed *patches = NULL, *grid = NULL;
    bool fits = tokens <= m->context;
    if (!fits) {
        err_set(error, VLM_LIMIT, "image of %d x %d becomes %lld tokens, the model's context has %d", item->image.width, item->image.height, (long long)tokens, m->context);
        err_hint(error, "give a smaller max_pixels");
    } else if (!(patches = media_input_add(out, "pixel_values", DT_F32, 2, (const int64_t[]){n, (int64_t)PATCH_CHANNELS * s->patch * s->patch})) ||
               !(grid = media_input_add(out, v->k25 ? "image_grid_thw" : "image_grid_hws", DT_I64, 2, (const int64_t[]){1, v->k25 ? 3 : 2})))
        err_memory(error, (size_t)n * sizeof(float));
    else {
        for (int i = 0; i < 3; i++) if (v->k25 || i) ((int64_t *)grid->data)[v->k25 ? i : i - 1] = out->grid[i];
        patchify(&whole, 1, whole.width, whole.height, s, patches->data);
    }
    image_free(&whole);
    return grid != NULL;
}

/* ---- prompt --------------------------------------------------------------------------------------------------------- */

static const char *placeholder(const vlm_model *m, media_kind kind) { return kind == MEDIA_IMAGE ? PLACEHOLDER : NULL; }

static bool expand(const vlm_model *m, const media_input *in, buf *text, vlm_error *error)
{
    for (int i = 0; i < in->tokens; i++) buf_adds(text, PLACEHOLDER);
    return text->failed ? err_memory(error, text->size) : true;
}

static const char *const types[] = {"kimi_vl", "kimi_k25", NULL};

static const media_rules rules = {.image = "max_pixels", .low = "{\"" MEDIA_AT_MOST "max_pixels\": 262144}"};

const vlm_arch vlm_arch_kimi = {
    .name = "kimi",
    .title = "Kimi-VL, Kimi K2.5",
    .model_types = types,
    .rules = &rules,
    .task = TASK_GENERATE,
    .takes = TAKES_IMAGE,
    .configure = configure,
    .bind = bind,
    .process = process,
    .placeholder = placeholder,
    .media_token = qwen_vl_arch_media_token,
    .expand = expand,
    .encode_start = qwen_vl_arch_encode_start,
    .encode = qwen_vl_arch_encode,
    .forward = qwen_vl_arch_forward,
};
