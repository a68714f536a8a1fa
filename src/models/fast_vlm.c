/* fast_vlm.c - FastVLM: https://arxiv.org/abs/2412.13303
 *
 *   picture -> a square (black, or the mean's colour, beside it) -> 1024 x 1024 -> FastViTHD (blocks/fastvit.h): 256 features of 3072 columns
 *   -> linear, GELU, linear -> rows that replace <image> -> Qwen2
 *
 * Bites: as Apple publishes it (llava_qwen2) the config is flat, the tower's shape stands nowhere, <image> is no token (id -200 takes its place: here
 * <|endoftext|>, which no prompt has), and pictures are resized by Pillow. */
#include "models/tower_lm.h"

#include <string.h>

#include "base/err.h"
#include "blocks/fastvit.h"

typedef struct fast_vlm {
    tower_lm base;                 /* its image_tower stays empty */
    fastvit tower;
    mlp_connector connector;
    picture_middle middle;
    int side;                      /* of what the tower sees */
    bool square, apple;
    uint8_t beside[3];
} fast_vlm;

/* What transformers would have written for Apple's config. */
static bool unfold(config *c)
{
    const char *tower = config_string(c, "mm_vision_tower", "mobileclip_l_1024"), *projector = config_string(c, "mm_projector_type", "mlp2x_gelu");
    if (c->failed) return false;
    if (!strstr(tower, "mobileclip_l") || strcmp(projector, "mlp2x_gelu"))
        return config_fail(c, VLM_UNSUPPORTED, "vision tower \"%.40s\" with a projector \"%.20s\"; mobileclip_l and mlp2x_gelu are known", tower, projector);
    if (json_is_object(json_object_get(c->root, "text_config")) && json_object_size(json_object_get(c->root, "text_config"))) return true;
    json_t *text = json_copy(c->root);
    if (!text || json_object_set_new(text, "model_type", json_string("qwen2")) || json_object_set_new(c->root, "text_config", text))
        return config_fail(c, VLM_MEMORY, "out of memory");
    return true;
}

static bool configure_processor(fast_vlm *v, config *p, config *c)
{
    static const double plain[2][3] = {{0, 0, 0}, {1, 1, 1}};
    double mean[3] = {0, 0, 0};
    int64_t side = config_int(p, "image_processor.crop_size.height", 0, 1, 1 << 13);
    if (!side) side = config_int(p, "image_processor.size.shortest_edge|image_processor.size.height", v->apple ? 1024 : 336, 1, 1 << 13);
    if (!picture_config(&v->base.norm, p, "image_processor", v->apple ? plain : picture_clip, RESIZE_BICUBIC)) return false;
    v->side = (int)side;
    if (side % FASTVIT_SHRINKS) return config_fail(c, VLM_UNSUPPORTED, "pictures of %d; the tower takes multiples of %d", v->side, FASTVIT_SHRINKS);
    if (!picture_middle_config(&v->middle, p, "image_processor", v->side, FASTVIT_SHRINKS)) return false;
    v->base.norm.pillow = v->apple;
    v->square = v->apple ? !strcmp(config_string(c, "image_aspect_ratio", "pad"), "pad") : config_bool(p, "image_processor.do_pad", false);
    if (!config_numbers(p, "image_processor.image_mean", mean, 3) && !v->apple) memcpy(mean, picture_clip[0], sizeof mean);
    for (int i = 0; i < 3; i++) v->beside[i] = (uint8_t)(mean[i] <= 0 ? 0 : mean[i] >= 1 ? 255 : mean[i] * 255);
    return !p->failed && !c->failed;
}

static bool configure(vlm_model *m, config *c)
{
    fast_vlm *v = m->family = arena_alloc(&m->memory, sizeof *v);
    if (!v) return config_fail(c, VLM_MEMORY, "out of memory");
    v->apple = strcmp(config_string(c, "model_type", "fast_vlm"), "fast_vlm") != 0;
    if (c->failed || (v->apple && !unfold(c))) return false;
    if (v->apple || !config_has(c, "image_token_index|image_token_id")) json_object_set_new(c->root, "image_token_index", json_integer(151646));
    if (!v->apple && strcmp(config_string(c, "vision_config.architecture", "fastvit_mci3"), "fastvit_mci3"))
        return config_fail(c, VLM_UNSUPPORTED, "vision_config.architecture other than fastvit_mci3");
    if (!tower_lm_config(&v->base, m, c) || !fastvit_config(&v->tower, &m->memory, c, "vision_config.model_args")) return false;
    v->connector.act = config_activation(c, "projector_hidden_act", "gelu");
    return !c->failed && configure_processor(v, m->processor, c);
}

static bool bind(vlm_model *m, binder *b)
{
    static const char *const projector[] = {"multi_modal_projector.linear_1", "mm_projector.0", "multi_modal_projector.linear_2", "mm_projector.2", NULL};
    fast_vlm *v = m->family;
    if (!decoder_bind(&v->base.text, b)) return false;
    bind_prefix(b, "model.vision_tower.timm_model.", "vision_tower.timm_model.", "model.vision_tower.vision_tower.model.", "vision_tower.vision_model.", NULL);
    fastvit_bind(&v->tower, b);
    bind_prefix(b, "model.", "", NULL);
    b->spellings = projector;
    mlp_connector_bind(&v->connector, b, v->tower.outputs, v->base.text.spec.hidden);
    b->spellings = NULL;
    return !b->failed;
}

/* ---- prompt ------------------------------------------------------------------------------------------------------- */

static int32_t media_token(const vlm_model *m, media_kind kind)
{
    if (kind != MEDIA_IMAGE || !((const fast_vlm *)m->family)->apple || !m->tok) return tower_lm_media_token(m, kind);
    int32_t token = tokenizer_id(m->tok, "<image>");
    return token >= 0 ? token : tokenizer_id(m->tok, "<|endoftext|>");
}

static const char *placeholder(const vlm_model *m, media_kind kind)
{
    return ((const fast_vlm *)m->family)->apple && kind == MEDIA_IMAGE ? "<image>" : tower_lm_placeholder(m, kind);
}

/* In the words of the tokenizer, not of the template. */
static bool expand(const vlm_model *m, const media_input *in, buf *text, vlm_error *error)
{
    int32_t id = media_token(m, MEDIA_IMAGE);
    const char *token = id >= 0 && m->tok ? tokenizer_token(m->tok, id) : NULL;
    for (int i = 0; token && i < in->tokens; i++) buf_adds(text, token);
    return text->failed ? err_memory(error, text->size) : true;
}

/* The picture in the middle of a square. */
static bool square(const fast_vlm *v, const image *img, image *out, vlm_error *error)
{
    int side = img->width > img->height ? img->width : img->height, left = (side - img->width) / 2, top = (side - img->height) / 2;
    size_t size = (size_t)side * (size_t)side * 3, channels = img->gray ? 1 : 3;
    *out = (image){.width = side, .height = side, .rgb = mem_aligned(size)};
    if (!out->rgb) return err_memory(error, size);
    for (size_t i = 0; i < size; i++) out->rgb[i] = v->beside[i % 3];
    for (int y = 0; y < img->height; y++) {
        const uint8_t *from = img->rgb + (size_t)y * (size_t)img->width * channels;
        uint8_t *to = out->rgb + ((size_t)(y + top) * (size_t)side + (size_t)left) * 3;
        for (int x = 0; x < img->width; x++, from += channels)
            for (size_t c = 0; c < 3; c++) *to++ = from[c % channels];
    }
    return true;
}

static bool process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    const fast_vlm *v = m->family;
    (void)options;
    if (!tower_lm_only_images(m, item, error)) return false;
    int height, width;
    picture_middle_size(&v->middle, &height, &width);
    out->kind = item->kind;
    out->tokens = height / FASTVIT_SHRINKS * (width / FASTVIT_SHRINKS);
    float *pixels = picture_tiles(out, 0, height, width, error);
    image whole = {0};
    bool pad = v->square && item->image.width != item->image.height;
    bool ok = pixels && (!pad || square(v, &item->image, &whole, error)) && picture_middle_write(&v->middle, &v->base.norm, pad ? &whole : &item->image, pixels, error);
    image_free(&whole);
    return ok;
}

/* ---- encoder ------------------------------------------------------------------------------------------------------ */

typedef struct place { int height, width; } place;

static bool encode_start(run *r, const vlm_model *m, encode_job *job)
{
    const fast_vlm *v = m->family;
    const processed *p = media_input_find(job->in, "pixel_values");
    place *at = arena_alloc(job->memory, sizeof *at);
    if (!p || !p->data) return run_fail(r, VLM_INTERNAL, "no pixels to encode");
    float *rows = arena_alloc_raw(job->memory, (size_t)(p->dim[2] * p->dim[3] * 3) * sizeof *rows);
    if (!at || !rows) return run_fail(r, VLM_MEMORY, "out of memory");
    int64_t n = p->dim[2] * p->dim[3];
    for (int64_t i = 0; i < n; i++)
        for (int c = 0; c < 3; c++) rows[3 * i + c] = ((const float *)p->data)[c * n + i];
    *at = (place){(int)p->dim[2], (int)p->dim[3]};
    job->family = at;
    job->x = (tensor){rows, DT_F32, n, 3, 3};
    job->stage = 0;
    job->stages = v->tower.n_units;
    job->cost = 2.0 * (double)(n / 16) * v->tower.dims[0] * (v->tower.ffn[0] * 2 + 60);
    return run_ok(r);
}

static bool encode(run *r, const vlm_model *m, encode_job *job)
{
    const fast_vlm *v = m->family;
    place *at = job->family;
    tensor x = fastvit_forward(r, &v->tower, job->stage++, job->x, &at->height, &at->width);
    if (!run_ok(r)) return false;
    if (job->stage == job->stages) {
        image_tower_set_rows(r, job, mlp_connector_apply(r, &v->connector, x));
        return run_ok(r);
    }
    if (x.rows != job->x.rows || x.cols != job->x.cols) {
        job->x = (tensor){arena_alloc_raw(job->memory, (size_t)(x.rows * x.cols) * sizeof(float)), DT_F32, x.rows, x.cols, x.cols};
        if (!job->x.data) return run_fail(r, VLM_MEMORY, "out of memory for an encoder of %lld x %lld", (long long)x.rows, (long long)x.cols);
    }
    for (int64_t i = 0; i < x.rows; i++) memmove(tensor_row(job->x, i), tensor_row(x, i), (size_t)x.cols * sizeof(float));
    return true;
}

static const char *const types[] = {"fast_vlm", "fastvlm", "llava_qwen2", NULL};

const vlm_arch vlm_arch_fast_vlm = {
    .name = "fast_vlm",
    .title = "FastVLM",
    .model_types = types,
    .task = TASK_GENERATE,
    .takes = TAKES_IMAGE,
    .rules = &media_rules_fixed,
    .configure = configure,
    .bind = bind,
    .process = process,
    .placeholder = placeholder,
    .media_token = media_token,
    .expand = expand,
    .encode_start = encode_start,
    .encode = encode,
    .forward = tower_lm_forward,
};
