/* moondream2.c - Moondream 2.  https://github.com/vikhyat/moondream
 *
 *   picture -> squeezed to 378 x 378, and to a canvas of up to 12 windows, cut into crops of 378 x 378 that overlap by 8 patches (Pillow's Lanczos)
 *   -> ViT -> the whole's features and, beside them, those of the canvas averaged to as many -> linear, GELU, linear -> 729 rows
 *   -> begin token, rows, "query" marks, the question, the answer's mark -> layers whose attention and MLP read one layer norm
 *
 * Bites: begin token and picture see each other whole. Biases everywhere, in the head too. The sizes stand in the code, config.json is nearly empty.
 * The checkpoint's own tokenizer.json is another model's: that of moondream/starmie-v1 has to lie beside the weights. Pixels are normalised in bfloat16.
 * Pointing and detection (the region model) are not read. */
#include "models/molmo_vision.h"

#include <math.h>
#include <string.h>

#include "base/err.h"

enum { MOST_MARKS = 32 };

typedef struct moondream {
    tower_lm base;
    weight fc1, fc2;
    const float *fc1_bias, *fc2_bias;
    int inner;
    molmo_crops crops;
    int32_t begin, row, prefix[MOST_MARKS], suffix[MOST_MARKS];            /* row: the id that rows take the place of */
    int n_prefix, n_suffix;
} moondream;

/* ---- configuration and weights -------------------------------------------------------------------------------------- */

/* Members of config.WHERE under usual names, with the code's defaults. */
static bool usual(config *c, const char *where, const char *to, const char *more, const char *const *pairs, const int *fallback)
{
    json_t *old = json_object_get(json_object_get(c->root, "config"), where), *new = json_loads(more, 0, NULL);
    bool ok = new != NULL;
    for (int i = 0; ok && pairs[2 * i]; i++) {
        json_t *v = json_object_get(old, pairs[2 * i]);
        ok = (v ? json_object_set(new, pairs[2 * i + 1], v) : json_object_set_new(new, pairs[2 * i + 1], json_integer(fallback[i]))) == 0;
    }
    if (ok && json_object_set_new(c->root, to, new) == 0) return true;
    json_decref(new);
    return config_fail(c, VLM_MEMORY, "out of memory");
}

static bool usual_config(config *c)
{
    static const char *const text[] = {"dim", "hidden_size", "ff_dim", "intermediate_size", "n_layers", "num_hidden_layers", "vocab_size", "vocab_size", "n_heads",
        "num_attention_heads", "n_kv_heads", "num_key_value_heads", "max_context", "max_position_embeddings", NULL};
    static const char *const vision[] = {"enc_dim", "hidden_size", "enc_ff_dim", "intermediate_size", "enc_n_layers", "num_hidden_layers", "enc_n_heads", "num_attention_heads",
        "enc_patch_size", "patch_size", "crop_size", "image_size", "proj_inner_dim", "proj_inner_dim", "max_crops", "max_crops", "overlap_margin", "overlap_margin", NULL};
    static const int text_sizes[] = {2048, 8192, 24, 51200, 32, 32, 2048}, vision_sizes[] = {1152, 4304, 27, 16, 14, 378, 8192, 12, 4};
    return usual(c, "text", "text_config", "{\"rms_norm_eps\": 1e-5, \"hidden_act\": \"gelu_pytorch_tanh\"}", text, text_sizes) &&
           usual(c, "vision", "vision_config", "{\"model_type\": \"moondream\"}", vision, vision_sizes);
}

static bool configure_text(moondream *v, vlm_model *m, config *c)
{
    static const char *const names[] = {"layers", "blocks", "input_layernorm", "ln", "self_attn.qkv_proj", "attn.qkv", "self_attn.o_proj", "attn.proj", "mlp.up_proj", "mlp.fc1",
        "mlp.down_proj", "mlp.fc2", "embed_tokens", "wte", "norm", "post_ln", NULL};
    static const char *const prefix[] = {"model.text.", "text.", NULL};
    decoder_spec *s = &v->base.text.spec;
    int hidden = (int)config_int(c, "text_config.hidden_size", 2048, 1, 1 << 20), heads = (int)config_int(c, "text_config.num_attention_heads", 32, 1, 1 << 14);
    if (c->failed || hidden / heads != 64) return config_fail(c, VLM_UNSUPPORTED, "heads of %d; 64 with 32 that turn were expected", heads ? hidden / heads : 0);
    s->n_ropes = 1;
    if (!rope_default(&s->rope[0], &m->memory, 10000, 32)) return config_fail(c, VLM_MEMORY, "out of memory");
    if (!decoder_config(s, &m->memory, c, text_prefixes)) return false;
    s->norms = NORM_PARALLEL;
    s->layernorm = s->norm_bias = s->plain_mlp = s->head_bias = s->qkv_bias = s->o_bias = s->mlp_bias = s->fused_qkv = true;
    for (int i = 0; i < s->layers; i++) s->layer[i].bidirectional = true;
    memcpy(s->prefix, prefix, sizeof prefix);
    memcpy(s->head_prefix, prefix, sizeof prefix);
    s->spellings = names;
    if (!decoder_plan(&v->base.text, &m->memory, c)) return false;
    model_use_decoder(m, &v->base.text);
    return !c->failed;
}

static int marks(config *c, const char *path, int32_t *out, const int32_t *usual_ids, int n_usual)
{
    int64_t list[MOST_MARKS];
    int n = config_ints(c, path, list, MOST_MARKS);
    for (int i = 0; i < (n ? n : n_usual); i++) {
        out[i] = n ? (int32_t)(list[i] >= 0 && list[i] <= INT32_MAX ? list[i] : 0) : usual_ids[i];
    }
    return n ? n : n_usual;
}

static bool configure(vlm_model *m, config *c)
{
    moondream *v = m->family = arena_alloc(&m->memory, sizeof *v);
    if (!v) return config_fail(c, VLM_MEMORY, "out of memory");
    image_tower *t = &v->base.tower;
    if (!usual_config(c) || !configure_text(v, m, c) || !image_tower_config(t, &m->memory, c, -1, true)) return false;
    v->inner = (int)config_int(c, "vision_config.proj_inner_dim", 8192, 1, 1 << 20);
    int most = (int)config_int(c, "vision_config.max_crops", 12, 1, 64), margin = (int)config_int(c, "vision_config.overlap_margin", 4, 0, 256), across = t->image / t->patch;
    if (c->failed || 2 * margin >= across) return config_fail(c, VLM_FORMAT, "overlap_margin %d of %d patches", margin, across);
    v->crops = (molmo_crops){.side = t->image, .patch = t->patch, .left = margin, .right = margin, .window = (across - 2 * margin) * t->patch, .most = most};
    v->begin = (int32_t)config_int(c, "config.tokenizer.bos_id", 0, 0, INT32_MAX);
    v->row = (int32_t)config_int(c, "config.tokenizer.coord_id", 5, 0, INT32_MAX);
    v->n_prefix = marks(c, "config.tokenizer.templates.query.prefix", v->prefix, (const int32_t[]){1, 15381, 2}, 3);
    v->n_suffix = marks(c, "config.tokenizer.templates.query.suffix", v->suffix, (const int32_t[]){3}, 1);
    int64_t end = config_int(c, "config.tokenizer.eos_id", v->begin, 0, INT32_MAX);
    if (c->failed || v->row == v->begin) return config_fail(c, VLM_FORMAT, "config.tokenizer: ids of their own for bos_id and coord_id were expected");
    if (!config_has(c, "eos_token_id")) json_object_set_new(c->root, "eos_token_id", json_integer(end));
    for (int k = 0; k < 3; k++)
        for (int i = 0; i < 256; i++) v->base.norm.value[k][i] = (bf16_to_f32(f32_to_bf16(bf16_to_f32(f32_to_bf16((float)i / 255)) - 0.5f))) / 0.5f;
    v->base.norm.filter = RESIZE_LANCZOS;
    v->base.norm.pillow = true;
    m->block_tokens[0] = v->row, m->block_tokens[1] = v->begin;
    m->n_block_tokens = 2;
    m->bidirectional_media = true;
    m->takes = TAKES_IMAGE;
    return true;
}

static bool bind(vlm_model *m, binder *b)
{
    static const char *const tower[] = {"model.vision.", "vision.", NULL};
    moondream *v = m->family;
    if (!decoder_bind(&v->base.text, b)) return false;
    image_tower_bind(&v->base.tower, b, tower);
    bind_linear(b, &v->fc1, v->inner, 2 * (int64_t)v->base.tower.vit.hidden, "proj_mlp.fc1");
    bind_linear(b, &v->fc2, m->hidden, v->inner, "proj_mlp.fc2");
    bind_vector(b, &v->fc1_bias, v->inner, "proj_mlp.fc1.bias");
    bind_vector(b, &v->fc2_bias, m->hidden, "proj_mlp.fc2.bias");
    return !b->failed;
}

/* ---- processor ---------------------------------------------------------------------------------------------------- */

/* Windows that cover height x width; those of its shape when more are allowed. */
static void choose_tiling(int height, int width, int window, int most, int *down, int *across)
{
    *down = *across = 1;
    if (height <= window || width <= window) return;
    int least_down = (height + window - 1) / window, least_across = (width + window - 1) / window;
    if ((int64_t)least_down * least_across > most) {
        double ratio = sqrt((double)most / ((double)least_down * least_across));
        *down = (int)fmax(1, floor(least_down * ratio));
        *across = (int)fmax(1, floor(least_across * ratio));
        return;
    }
    int d = (int)fmax(floor(sqrt((double)most * height / width)), least_down), a = (int)fmax(floor(sqrt((double)most * width / height)), least_across);
    if (d * a > most && a > d) a = most / d;
    else if (d * a > most) d = most / a;
    *down = d > 1 ? d : 1;
    *across = a > 1 ? a : 1;
}

static bool process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    const moondream *v = m->family;
    const molmo_crops *c = &v->crops;
    const image *img = &item->image;
    if (!tower_lm_only_images(m, item, error)) return false;
    int margin = 2 * c->left * c->patch, most = (int)fmin(fmax(media_option(item->part, options, "max_crops", c->most), 1), 64), down, across, side = c->side;
    choose_tiling(img->height - margin, img->width - margin, c->window, most, &down, &across);
    out->kind = item->kind;
    out->tokens = v->base.tower.positions;
    out->grid[0] = 1, out->grid[1] = down, out->grid[2] = across;
    if (!tower_lm_fits(m, item, out->tokens, error)) return false;
    int64_t each = (int64_t)3 * side * side;
    processed *p = media_input_add(out, "pixel_values", DT_F32, 4, (const int64_t[]){1 + down * across, 3, side, side});
    if (!p) return err_memory(error, (size_t)((1 + down * across) * each) * sizeof(float));
    image canvas;
    if (!picture_resized(&v->base.norm, img, side, side, 0, 0, side, side, p->data, error) ||
        !picture_resize(&v->base.norm, img, across * c->window + margin, down * c->window + margin, &canvas, error)) return false;
    for (int i = 0; i < down * across; i++)
        picture_window(&v->base.norm, &canvas, i % across * c->window, i / across * c->window, side, side, (float *)p->data + (i + 1) * each);
    image_free(&canvas);
    return true;
}

/* ---- prompt ------------------------------------------------------------------------------------------------------- */

static const char *placeholder(const vlm_model *m, media_kind kind)
{
    (void)m;
    return kind == MEDIA_IMAGE ? "<image>" : NULL;
}

static int32_t media_token(const vlm_model *m, media_kind kind) { return kind == MEDIA_IMAGE ? ((const moondream *)m->family)->row : -1; }

static bool add_ids(const vlm_model *m, const int32_t *id, int n, buf *out, vlm_error *error) { return tokenizer_decode(m->tok, id, (size_t)n, false, out, error); }

/* Begin token, picture, marks, question, mark. */
static bool rewrite(const vlm_model *m, const char *text, buf *out, vlm_error *error)
{
    const moondream *v = m->family;
    const char *mark = placeholder(m, MEDIA_IMAGE), *token = tokenizer_token(m->tok, v->row);
    if (!token || token[0] != '<') {
        err_set(error, VLM_FORMAT, "the tokenizer beside the weights is not Moondream's");
        return err_hint(error, "put tokenizer.json of moondream/starmie-v1 there");
    }
    if (!add_ids(m, &v->begin, 1, out, error)) return false;
    for (const char *at = text; (at = strstr(at, mark)); at += strlen(mark)) buf_adds(out, mark);
    if (!add_ids(m, v->prefix, v->n_prefix, out, error)) return false;
    for (const char *at; (at = strstr(text, mark)); text = at + strlen(mark)) buf_add(out, text, (size_t)(at - text));
    buf_adds(out, text);
    return add_ids(m, v->suffix, v->n_suffix, out, error) && (!out->failed || err_memory(error, out->size));
}

static bool expand(const vlm_model *m, const media_input *in, buf *text, vlm_error *error)
{
    const char *token = tokenizer_token(m->tok, ((const moondream *)m->family)->row);
    for (int i = 0; token && i < in->tokens; i++) buf_adds(text, token);
    return text->failed ? err_memory(error, text->size) : true;
}

/* ---- encoder ------------------------------------------------------------------------------------------------------ */

/* The crops' features as one field without what overlaps, averaged to side x side, into out. */
static bool average(run *r, const moondream *v, const media_input *in, tensor x, tensor out)
{
    const molmo_crops *c = &v->crops;
    int side = c->side / c->patch, step = c->window / c->patch;
    molmo_layout l = {.down = in->grid[1], .across = in->grid[2], .rows = in->grid[1] * step + 2 * c->left, .columns = in->grid[2] * step + 2 * c->left};
    int64_t *place = run_alloc(r, (size_t)l.rows * (size_t)l.columns * sizeof *place);
    vlm_error error = {0};
    if (!place || !molmo_pool_canvas(c, &l, 1, 1, place, &error)) return run_fail(r, VLM_MEMORY, "out of memory");
    for (int i = 0; i < side * side; i++) {
        int top = i / side * l.rows / side, left = i % side * l.columns / side;
        int bottom = ((i / side + 1) * l.rows + side - 1) / side, right = ((i % side + 1) * l.columns + side - 1) / side;
        float *to = tensor_row(out, i), share = (float)((bottom - top) * (right - left));
        memset(to, 0, (size_t)x.cols * sizeof *to);
        for (int y = top; y < bottom; y++)
            for (int k = left; k < right; k++)
                for (int64_t d = 0; d < x.cols; d++) to[d] += tensor_row(x, place[(int64_t)y * l.columns + k])[d];
        for (int64_t d = 0; d < x.cols; d++) to[d] /= share;
    }
    return true;
}

static bool encode(run *r, const vlm_model *m, encode_job *job)
{
    const moondream *v = m->family;
    if (!image_tower_encode(r, &v->base.tower, job)) return false;
    if (job->stage < job->stages) return true;
    tensor x = image_tower_features(r, &v->base.tower, job), both = run_tensor(r, v->base.tower.positions, 2 * x.cols);
    if (!run_ok(r) || !average(r, v, job->in, x, tensor_cols(both, x.cols, x.cols))) return false;
    for (int64_t i = 0; i < both.rows; i++) memcpy(tensor_row(both, i), tensor_row(x, i), (size_t)x.cols * sizeof(float));
    x = op_linear(r, both, &v->fc1, v->fc1_bias);
    op_activate(r, x, ACT_GELU_TANH);
    image_tower_set_rows(r, job, op_linear(r, x, &v->fc2, v->fc2_bias));
    return run_ok(r);
}

static const char *const types[] = {"moondream1", "moondream2", NULL};
static const media_rules rules = {.image = "max_crops", .low = "{\"max_crops\": 1}"};

const vlm_arch vlm_arch_moondream2 = {
    .name = "moondream2",
    .title = "Moondream 2",
    .model_types = types,
    .task = TASK_GENERATE,
    .takes = TAKES_IMAGE,
    .rules = &rules,
    .max_images = 1,
    .media_first = true,
    .no_special_tokens = true,
    .configure = configure,
    .bind = bind,
    .process = process,
    .placeholder = placeholder,
    .media_token = media_token,
    .rewrite = rewrite,
    .expand = expand,
    .encode_start = tower_lm_encode_start,
    .encode = encode,
    .forward = tower_lm_forward,
};
