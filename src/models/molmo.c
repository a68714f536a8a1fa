/* molmo.c - Molmo (7B-D, 72B).  https://arxiv.org/abs/2409.17146
 *
 *   picture -> whole, and on a canvas of up to 12 windows, cut into crops of 336 x 336 that overlap by 8 patches; both fitted in and padded with black
 *   -> CLIP, features of two of its layers side by side, what tells of padding added -> each 2 x 2 of them looked at by its mean: attention
 *   -> down(SiLU(gate) * up) -> rows that are added to the embeddings of <im_patch>:
 *      <im_start> rows <im_col> rows <im_col> ... <im_end> <im_start> rows <im_col> ... <im_end>, all pictures before the text -> Qwen2
 *
 * Bites: the config says nothing of the tower. The begin token is the end token. What says how much of a patch is picture is given to the crops one
 * place off, the whole picture first: as the model was trained. intermediate_size is gate and up together, up first. */
#include "models/molmo_vision.h"

#include <math.h>
#include <string.h>

#include "base/err.h"

typedef struct molmo {
    tower_lm base;
    molmo_pooling pooling;
    molmo_crops crops;
    const float *pad;              /* [2][features]: of patches without any picture, with some */
} molmo;

/* ---- configuration and weights -------------------------------------------------------------------------------------- */

/* The tower's part in usual words; what the config leaves out (as published: everything) is what Molmo's code has. */
static bool usual_vision(config *c)
{
    static const char *const pairs[] = {"image_emb_dim", "hidden_size", "image_mlp_dim", "intermediate_size", "image_num_heads", "num_attention_heads", "image_head_dim", "head_dim",
        "image_num_layers", "num_hidden_layers", "image_default_input_size", "image_size", "image_patch_size", "patch_size", "image_norm_eps", "layer_norm_eps",
        "vit_layers", "vit_layers", "image_pooling_2d", "image_pooling_2d", "image_padding_embed", "image_padding_embed", "image_pooling_h", "image_pooling_h",
        "image_pooling_w", "image_pooling_w", "hidden_size", "projector", NULL};
    json_t *old = json_object_get(c->root, "vision_config"), *new = json_pack("{s:s, s:[i, i]}", "model_type", "molmo", "vit_layers", -2, -9);
    bool ok = new != NULL;
    for (const char *const *p = pairs; ok && *p; p += 2) {
        json_t *v = json_is_object(old) ? json_object_get(old, p[0]) : NULL;
        if (v && !json_is_null(v)) ok = json_object_set(new, p[1], v) == 0;
    }
    if (ok && json_object_set_new(c->root, "vision_config", new) == 0) return true;
    json_decref(new);
    return config_fail(c, VLM_MEMORY, "out of memory");
}

static bool usual_text(config *c)
{
    static const char *const pairs[] = {"d_model", "hidden_size", "n_heads", "num_attention_heads", "n_kv_heads", "num_key_value_heads", "n_layers", "num_hidden_layers",
        "mlp_hidden_size", "intermediate_size", "layer_norm_eps", "rms_norm_eps", "max_sequence_length", "max_position_embeddings", "weight_tying", "tie_word_embeddings", NULL};
    json_t *t = json_object_get(c->root, "text_config");
    if (!json_is_object(t)) t = c->root;
    for (const char *const *p = pairs; *p; p += 2) {
        json_t *v = json_object_get(t, p[0]);
        if (v && !json_object_get(t, p[1]) && json_object_set(t, p[1], v)) return config_fail(c, VLM_MEMORY, "out of memory");
    }
    return true;
}

static bool configure_text(molmo *v, vlm_model *m, config *c)
{
    static const char *const names[] = {"layers", "blocks", "input_layernorm", "attn_norm", "post_attention_layernorm", "ff_norm", "self_attn.qkv_proj", "att_proj",
        "self_attn.o_proj", "attn_out", "mlp.gate_up_proj", "ff_proj", "mlp.down_proj", "ff_out", "embed_tokens", "wte.embedding", "norm.weight", "ln_f.weight", "lm_head", "ff_out", NULL};
    static const char *const prefix[] = {"model.transformer.", "language_model.model.", NULL};
    decoder_spec *s = &v->base.text.spec;
    if (!decoder_config(s, &m->memory, c, text_prefixes)) return false;
    if (config_bool(c, TEXT("attention_layer_norm"), false) || config_bool(c, TEXT("norm_after"), false) || strcmp(config_string(c, TEXT("layer_norm_type"), "rms"), "rms") ||
        config_has(c, TEXT("moe_num_experts")))
        return config_fail(c, VLM_UNSUPPORTED, "Molmo with norms of queries and keys, norms behind, or experts (7B-O, 1B-E)");
    if (s->layer[0].ffn % 2) return config_fail(c, VLM_FORMAT, "intermediate_size %d: gate and up, an even number, was expected", s->layer[0].ffn);
    for (int i = 0; i < s->layers; i++) s->layer[i].ffn /= 2;
    s->qkv_bias = config_bool(c, TEXT("qkv_bias"), true);
    s->more_vocab = (int)config_int(c, TEXT("additional_vocab_size"), 128, 0, 1 << 20);
    s->fused_qkv = s->fused_gate_up = s->up_first = true;
    memcpy(s->prefix, prefix, sizeof prefix);
    memcpy(s->head_prefix, prefix, sizeof prefix);
    s->spellings = names;
    if (!decoder_plan(&v->base.text, &m->memory, c)) return false;
    model_use_decoder(m, &v->base.text);
    m->more_vocab = s->more_vocab;
    return !c->failed;
}

static bool configure(vlm_model *m, config *c)
{
    molmo *v = m->family = arena_alloc(&m->memory, sizeof *v);
    int64_t wanted[TOWER_KEEPS];
    if (!v) return config_fail(c, VLM_MEMORY, "out of memory");
    if (!usual_vision(c) || !usual_text(c) || !configure_text(v, m, c)) return false;
    image_tower *t = &v->base.tower;
    int layers = (int)config_int(c, "vision_config.num_hidden_layers", 23, 1, 1024), n = config_ints(c, "vision_config.vit_layers", wanted, TOWER_KEEPS);
    for (int i = 0; i < n && !c->failed; i++) {            /* blocks, from 0 on or from the end */
        int64_t block = wanted[i] < 0 ? wanted[i] + layers : wanted[i];
        if (block < 0 || block >= layers) return config_fail(c, VLM_FORMAT, "vit_layers: %lld of %d layers", (long long)wanted[i], layers);
        if (i == 0 && !image_tower_config(t, &m->memory, c, (int)block + 1, false)) return false;
        if (image_tower_keep(t, c, (int)block + 1) < 0) return false;
    }
    if (c->failed || n < 1) return config_fail(c, VLM_FORMAT, "vit_layers: numbers of layers were expected");
    int across = t->image / t->patch;
    t->side_by_side = true;
    t->width = n * t->vit.hidden;
    if (strcmp(config_string(c, "vision_config.image_pooling_2d", "attention-meanq"), "attention-meanq") || across % 2 ||
        strcmp(config_string(c, "vision_config.image_padding_embed", "pad_and_partial_pad"), "pad_and_partial_pad") ||
        config_int(c, "vision_config.image_pooling_h", 2, 1, 16) != 2 || config_int(c, "vision_config.image_pooling_w", 2, 1, 16) != 2)
        return config_fail(c, VLM_UNSUPPORTED, "a connector other than attention-meanq over 2 x 2 of an even number of patches, pad_and_partial_pad");
    v->pooling = (molmo_pooling){.attention = {.heads = t->vit.heads, .kv_heads = t->vit.heads, .head_dim = t->vit.head_dim}, .inputs = t->width, .hidden = t->vit.hidden, .act = ACT_SILU,
                                 .ffn = (int)config_int(c, "vision_config.projector", v->base.text.spec.layer[0].ffn, 1, 1 << 20)};
    m->takes = TAKES_IMAGE;
    bool ok = picture_config(&v->base.norm, m->processor, "image_processor", picture_clip, RESIZE_BILINEAR) &&
              molmo_crops_config(&v->crops, m->processor, "image_processor", t->image, t->patch, 12);
    v->base.norm.pillow = true;
    if (ok && (v->crops.left % 2 || v->crops.right % 2)) return config_fail(c, VLM_UNSUPPORTED, "overlap_margins that are not even");
    return ok && !c->failed;
}

static bool bind(vlm_model *m, binder *b)
{
    static const char *const tower[] = {"model.vision_backbone.image_vit.", "vision_tower.image_vit.", NULL};
    molmo *v = m->family;
    if (!decoder_bind(&v->base.text, b)) return false;
    if (v->base.text.spec.more_vocab) bind_table(b, &v->base.text.embed_more, v->base.text.spec.more_vocab, m->hidden, "wte.new_embedding");
    image_tower_bind(&v->base.tower, b, tower);
    bind_prefix(b, "model.vision_backbone.", "vision_tower.", NULL);
    molmo_pooling_bind(&v->pooling, b, m->hidden);
    bind_vector(b, &v->pad, 2 * (int64_t)v->base.tower.width, "pad_embed");
    return !b->failed;
}

/* ---- processor ---------------------------------------------------------------------------------------------------- */

/* The picture fitted into height x width, in the middle; *inside: where it lies. */
static bool fit_in(const picture_norm *n, const image *img, int height, int width, image *canvas, picture_place *inside, vlm_error *error)
{
    float down = (float)height / (float)img->height, across = (float)width / (float)img->width, scale = down < across ? down : across;
    int h = (int)((float)img->height * scale), w = (int)((float)img->width * scale);
    image small;
    if (h < 1 || w < 1) return err_set(error, VLM_UNSUPPORTED, "an image of %d x %d is too thin", img->width, img->height);
    if (!picture_resize(n, img, w, h, &small, error)) return false;
    *inside = (picture_place){.x = (width - w) / 2, .y = (height - h) / 2, .width = w, .height = h};
    size_t size = (size_t)width * (size_t)height * 3;
    *canvas = (image){.width = width, .height = height, .rgb = mem_aligned(size)};
    if (!canvas->rgb) return image_free(&small), err_memory(error, size);
    memset(canvas->rgb, 0, size);
    for (int y = 0; y < h; y++)
        memcpy(canvas->rgb + ((size_t)(y + inside->y) * (size_t)width + (size_t)inside->x) * 3, small.rgb + (size_t)y * (size_t)w * 3, (size_t)w * 3);
    image_free(&small);
    return true;
}

static int overlap(int from, int size, int low, int high)
{
    int a = from > low ? from : low, b = from + size < high ? from + size : high;
    return b > a ? b - a : 0;
}

/* How much of each patch of the crops is picture: those of crop i lie at i (the last place says -1). */
static void fill_masks(const molmo_crops *c, const molmo_layout *l, const picture_place *in, float *mask)
{
    int across = c->side / c->patch, n = l->down * l->across;
    for (int i = 0; i < n * across * across; i++) {
        int crop = i / (across * across), y = crop / l->across * c->window + i % (across * across) / across * c->patch, x = crop % l->across * c->window + i % across * c->patch;
        mask[i] = (float)(overlap(y, c->patch, in->y, in->y + in->height) * overlap(x, c->patch, in->x, in->x + in->width)) / (float)(c->patch * c->patch);
    }
    for (int i = 0; i < across * across; i++) mask[n * across * across + i] = -1;
}

static bool write_crops(const molmo *v, const image *img, const molmo_layout *l, float *pixels, float *mask, vlm_error *error)
{
    const molmo_crops *c = &v->crops;
    int64_t each = (int64_t)3 * c->side * c->side;
    picture_place inside;
    image canvas;
    if (!fit_in(&v->base.norm, img, c->side, c->side, &canvas, &inside, error)) return false;
    molmo_patches(&v->base.norm, &canvas, 0, 0, c->side, c->patch, pixels);
    image_free(&canvas);
    if (!fit_in(&v->base.norm, img, l->rows * c->patch, l->columns * c->patch, &canvas, &inside, error)) return false;
    for (int i = 0; i < l->down * l->across; i++)
        molmo_patches(&v->base.norm, &canvas, i / l->across * c->window, i % l->across * c->window, c->side, c->patch, pixels + (i + 1) * each);
    image_free(&canvas);
    fill_masks(c, l, &inside, mask);
    return true;
}

static bool process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    const molmo *v = m->family;
    if (!tower_lm_only_images(m, item, error)) return false;
    molmo_layout l;
    molmo_lay_out(&v->crops, (int)media_option(item->part, options, "max_crops", v->crops.most), item->image.height, item->image.width, &l);
    int across = v->crops.side / v->crops.patch, n = 1 + l.down * l.across;
    int64_t low = (int64_t)(across / 2) * (across / 2), tokens = low + (int64_t)(l.rows / 2) * (l.columns / 2), values = (int64_t)3 * v->crops.patch * v->crops.patch;
    if (!tower_lm_fits(m, item, tokens, error)) return false;
    out->kind = item->kind;
    out->tokens = (int)tokens;
    out->grid[0] = across / 2, out->grid[1] = l.rows / 2, out->grid[2] = l.columns / 2;
    processed *pixels = media_input_add(out, "pixel_values", DT_F32, 3, (const int64_t[]){n, across * across, values});
    processed *masks = media_input_add(out, "image_masks", DT_F32, 2, (const int64_t[]){n, across * across});
    processed *places = media_input_add(out, "image_token_pooling", DT_I64, 2, (const int64_t[]){tokens, 4});
    if (!pixels || !masks || !places) return err_memory(error, (size_t)(n * across * across * values) * sizeof(float));
    molmo_pool_whole(across, 2, 2, 0, places->data);
    return molmo_pool_canvas(&v->crops, &l, 2, 2, (int64_t *)places->data + 4 * low, error) && write_crops(v, &item->image, &l, pixels->data, masks->data, error);
}

/* ---- prompt ------------------------------------------------------------------------------------------------------- */

static const char *placeholder(const vlm_model *m, media_kind kind)
{
    (void)m;
    return kind == MEDIA_IMAGE ? "<|image|>" : NULL;
}

static int32_t media_token(const vlm_model *m, media_kind kind) { return kind == MEDIA_IMAGE && m->tok ? tokenizer_id(m->tok, "<im_patch>") : -1; }

/* The begin token, all pictures, a blank, the text. */
static bool rewrite(const vlm_model *m, const char *text, buf *out, vlm_error *error)
{
    const char *begin = tokenizer_role(m->tok, "bos_token"), *mark = placeholder(m, MEDIA_IMAGE), *rest = text;
    if (!begin || !*begin) begin = tokenizer_role(m->tok, "eos_token");
    if (begin) buf_adds(out, begin);
    if (begin && !strncmp(rest, begin, strlen(begin))) text = rest += strlen(begin);
    for (const char *at; (at = strstr(rest, mark)); rest = at + strlen(mark)) buf_adds(out, mark);
    rest = text;
    while (!strncmp(rest, mark, strlen(mark))) rest += strlen(mark);
    if (*rest != ' ') buf_adds(out, " ");
    for (const char *at; (at = strstr(rest, mark)); rest = at + strlen(mark)) buf_add(out, rest, (size_t)(at - rest));
    return buf_adds(out, rest) || err_memory(error, out->size);
}

static void add_grid(buf *text, int rows, int columns)
{
    buf_adds(text, "<im_start>");
    for (int y = 0; y < rows; y++) {
        for (int x = 0; x < columns; x++) buf_adds(text, "<im_patch>");
        buf_adds(text, "<im_col>");
    }
    buf_adds(text, "<im_end>");
}

static bool expand(const vlm_model *m, const media_input *in, buf *text, vlm_error *error)
{
    (void)m;
    add_grid(text, in->grid[0], in->grid[0]);
    add_grid(text, in->grid[1], in->grid[2]);
    return text->failed ? err_memory(error, text->size) : true;
}

/* ---- encoder ------------------------------------------------------------------------------------------------------ */

static bool encode_start(run *r, const vlm_model *m, encode_job *job)
{
    const molmo *v = m->family;
    return molmo_encode_start(r, &v->base.tower, job, media_input_find(job->in, "pixel_values"));
}

/* x += what tells of padding: patches with none of the picture, with a part of it (-1 is one, too). */
static void tell_padding(const molmo *v, const float *mask, tensor x)
{
    for (int64_t i = 0; i < x.rows; i++)
        for (int64_t k = 0; mask[i] < 1 && k < x.cols; k++) tensor_row(x, i)[k] += v->pad[(mask[i] != 0) * x.cols + k];
}

static bool encode(run *r, const vlm_model *m, encode_job *job)
{
    const molmo *v = m->family;
    if (!image_tower_encode(r, &v->base.tower, job)) return false;
    if (job->stage < job->stages) return true;
    const processed *places = media_input_find(job->in, "image_token_pooling"), *masks = media_input_find(job->in, "image_masks");
    tensor x = image_tower_features(r, &v->base.tower, job);
    if (!places || !masks || !places->data || !masks->data) return run_fail(r, VLM_INTERNAL, "nothing to pool");
    if (!run_ok(r)) return false;
    tell_padding(v, masks->data, x);
    x = molmo_pool(r, &v->pooling, x, places->data, (int)places->dim[0], 4);
    molmo_add_embedding(r, &v->base.text, media_token(m, MEDIA_IMAGE), x);
    image_tower_set_rows(r, job, x);
    return run_ok(r);
}

static const char *const types[] = {"molmo", NULL};
static const media_rules rules = {.image = "max_crops", .low = "{\"max_crops\": 1}"};

const vlm_arch vlm_arch_molmo = {
    .name = "molmo",
    .title = "Molmo (7B-D, 72B)",
    .model_types = types,
    .task = TASK_GENERATE,
    .takes = TAKES_IMAGE,
    .rules = &rules,
    .media_first = true,
    .no_special_tokens = true,
    .configure = configure,
    .bind = bind,
    .process = process,
    .placeholder = placeholder,
    .media_token = media_token,
    .rewrite = rewrite,
    .expand = expand,
    .encode_start = encode_start,
    .encode = encode,
    .forward = tower_lm_forward,
};
