/* florence2.c - Florence-2: one model for captions, boxes, outlines and reading, told apart by the prompt.  https://arxiv.org/abs/2311.06242
 *
 *   picture -> 768 x 768 (its shape is not kept) -> DaViT (davit.h) -> + tables of columns, rows -> [mean of all, each] -> linear -> norm: rows in place of <image>
 *   prompt  -> a sentence for the task (florence2_tasks.c) -> BART's encoder (bart.h) -> BART's decoder answers; places are tokens <loc_0> ... <loc_999>
 *
 * Bites: two layouts, transformers' own (florence-community) and the first one (microsoft), with other names, the projection the other way round, and 1024 tokens
 * that the tokenizer's file lacks. generation_config asks for three beams, forced first and last tokens, and no repetition of three tokens. The decoder
 * starts with the end token. A picture that was given is always one; the prompt does not show where. */
#include "models/florence2.h"

#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "blocks/bart.h"
#include "models/davit.h"
#include "models/picture.h"

typedef struct florence2 {
    davit tower;
    bart text;
    picture_norm norm;
    int side_y, side_x, rows, columns, table;      /* of pictures; of features; rows of the tables of positions */
    int32_t image_token;
    weight project;
    const float *row_table, *column_table, *time_table, *rows_norm, *rows_norm_bias;
} florence2;

/* ---- configuration and weights -------------------------------------------------------------------------------------- */

static bool check_features(config *c)
{
    const json_t *list = config_get(c, "vision_config.image_feature_source");
    const char *first = json_string_value(json_array_get(list, 0)), *second = json_string_value(json_array_get(list, 1));
    if (!list || (json_array_size(list) == 2 && first && second && !strcmp(first, "spatial_avg_pool") && !strcmp(second, "temporal_avg_pool"))) return true;
    return config_fail(c, VLM_UNSUPPORTED, "vision_config.image_feature_source: spatial_avg_pool and temporal_avg_pool are known");
}

static bool configure(vlm_model *m, config *c)
{
    florence2 *v = m->family = arena_alloc(&m->memory, sizeof *v);
    config *p = m->processor;
    if (!v) return config_fail(c, VLM_MEMORY, "out of memory");
    if (!bart_config(&v->text, &m->memory, c, "text_config.") || !davit_config(&v->tower, &m->memory, c) || !check_features(c)) return false;
    int projected = (int)config_int(c, "vision_config.projection_dim|projection_dim", 1024, 1, 1 << 16);
    v->table = (int)config_int(c, "vision_config.max_position_embeddings|vision_config.image_pos_embed.max_pos_embeddings", 50, 1, 1 << 12);
    v->image_token = (int32_t)config_int(c, "image_token_id", v->text.vocab, 0, INT32_MAX);
    m->start = (int32_t)config_int(c, "decoder_start_token_id|text_config.decoder_start_token_id", 2, 0, INT32_MAX);
    if (c->failed || !picture_config(&v->norm, p, "image_processor", picture_imagenet, RESIZE_BICUBIC)) return false;
    v->side_y = v->rows = (int)config_int(p, "image_processor.size.height", 768, 1, 1 << 13);
    v->side_x = v->columns = (int)config_int(p, "image_processor.size.width", 768, 1, 1 << 13);
    if (config_bool(p, "image_processor.do_center_crop", false)) return config_fail(c, VLM_UNSUPPORTED, "a processor that crops pictures (do_center_crop)");
    if (p->failed) return false;
    if (!davit_size(&v->tower, &v->rows, &v->columns) || v->rows > v->table || v->columns > v->table)
        return config_fail(c, VLM_FORMAT, "pictures of %d x %d do not fit the vision tower", v->side_x, v->side_y);
    int64_t tokens = config_int(p, "image_seq_length|image_processor.image_seq_length", (int64_t)v->rows * v->columns + 1, 1, 1 << 24);
    if (!p->failed && tokens != (int64_t)v->rows * v->columns + 1)
        return config_fail(c, VLM_FORMAT, "image_seq_length is %lld, pictures give %d rows", (long long)tokens, v->rows * v->columns + 1);
    if (projected != v->text.hidden) return config_fail(c, VLM_FORMAT, "projection_dim is %d, d_model %d", projected, v->text.hidden);
    if (m->start >= v->text.vocab) return config_fail(c, VLM_FORMAT, "decoder_start_token_id %d of %d tokens", m->start, v->text.vocab);
    if (v->image_token > v->text.vocab) return config_fail(c, VLM_FORMAT, "image_token_id %d of %d tokens", v->image_token, v->text.vocab);
    m->hidden = v->text.hidden;
    m->vocab = v->text.vocab;
    m->more_vocab = v->image_token == v->text.vocab;
    m->layers = v->text.decoder.layers;
    m->context = v->text.positions;
    m->n_groups = 1;
    m->group[0] = v->text.group;
    m->memory_shape = v->text.memory;
    return true;
}

/* Tokens that the first layout's tokenizer lacks, and what its config leaves out. <image> is the last. */
static bool tokens(const vlm_model *m, json_t *settings)
{
    char room[24], key[24];
    json_t *list = json_object();
    int count = 0;
    bool ok = list && json_object_set_new(settings, "added_tokens_decoder", list) == 0;
    while (florence2_token(count, room)) count++;
    for (int i = 0; ok && i < count; i++) {
        snprintf(key, sizeof key, "%d", ((const florence2 *)m->family)->image_token - count + 1 + i);
        ok = json_object_set_new(list, key, json_pack("{s:s, s:b}", "content", florence2_token(i, room), "special", 1)) == 0;
    }
    return ok && !json_object_set_new(settings, "bos_token", json_string("<s>")) && !json_object_set_new(settings, "eos_token", json_string("</s>")) &&
           !json_object_set_new(settings, "pad_token", json_string("<pad>")) && !json_object_set_new(settings, "unk_token", json_string("<unk>"));
}

static bool bind(vlm_model *m, binder *b)
{
    florence2 *v = m->family;
    int64_t in = v->tower.stage[v->tower.stages - 1].width, out = v->text.hidden;
    bind_prefix(b, "vision_tower.", "model.vision_tower.", NULL);
    bool published = bind_exists(b, "convs.0.proj.weight");
    davit_bind(&v->tower, b, published);
    bind_prefix(b, published ? "" : "multi_modal_projector.", "model.multi_modal_projector.", NULL);
    const char *positions = published ? "image_pos_embed" : "image_position_embed";
    if (published) bind_linear_transposed(b, &v->project, out, in, "image_projection");
    else bind_linear(b, &v->project, out, in, "image_projection");
    bind_vector(b, &v->row_table, v->table * (in / 2), "%s.row_embeddings.weight", positions);
    bind_vector(b, &v->column_table, v->table * (in - in / 2), "%s.column_embeddings.weight", positions);
    bind_vector(b, &v->rows_norm, out, "image_proj_norm.weight");
    bind_vector(b, &v->rows_norm_bias, out, "image_proj_norm.bias");
    bind_prefix(b, "language_model.model.", "model.language_model.", "language_model.", NULL);
    bart_bind(&v->text, b, "language_model.");
    return !b->failed;
}

/* ---- prompt ------------------------------------------------------------------------------------------------------------ */

static bool process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    const florence2 *v = m->family;
    (void)options;
    if (item->kind != MEDIA_IMAGE) return err_set(error, VLM_UNSUPPORTED, "%s takes images, no %s", m->arch->title, media_kind_name(item->kind));
    float *pixels = picture_tiles(out, 0, v->side_y, v->side_x, error);
    out->kind = item->kind;
    out->tokens = v->rows * v->columns + 1;
    out->grid[0] = 1, out->grid[1] = item->image.height, out->grid[2] = item->image.width;
    return pixels && picture_resized(&v->norm, &item->image, v->side_x, v->side_y, 0, 0, v->side_x, v->side_y, pixels, error);
}

static const char *placeholder(const vlm_model *m, media_kind kind) { return (void)m, kind == MEDIA_IMAGE ? "<image>" : NULL; }
static int32_t media_token(const vlm_model *m, media_kind kind) { return kind == MEDIA_IMAGE ? ((const florence2 *)m->family)->image_token : -1; }

static bool rewrite(const vlm_model *m, const char *text, buf *out, vlm_error *error)
{
    (void)m;
    while (!strncmp(text, "<image>", 7)) text += 7;
    return buf_adds(out, "<image><s>") && florence2_prompt(text, out, error) && buf_adds(out, "</s>");
}

static bool expand(const vlm_model *m, const media_input *in, buf *text, vlm_error *error)
{
    (void)m;
    (void)error;
    for (int i = 0; i < in->tokens; i++) buf_adds(text, "<image>");
    return !text->failed;
}

static bool plan_memory(const vlm_model *m, const int32_t *id, int n, media_input *const *media, int n_media, memory_plan *out, vlm_error *error)
{
    const media_input *prompt = media[n_media - 1];
    (void)id;
    (void)n;
    if (prompt->rows > m->context) return err_set(error, VLM_LIMIT, "the prompt has %d tokens with its picture, the encoder takes %d", prompt->rows, m->context);
    return memory_plan_add(out, n_media - 1, 0, prompt->rows) || err_memory(error, 64);
}

static json_t *answer(const vlm_model *m, const char *prompt, const char *text, int width, int height)
{
    return florence2_answer(m->processor, prompt, text, width, height);
}

/* ---- encoders ---------------------------------------------------------------------------------------------------------- */

static bool keep_rows(run *r, encode_job *job, tensor x)
{
    job->rows = x;
    job->rows.data = run_ok(r) ? arena_alloc_raw(job->memory, (size_t)x.rows * (size_t)x.cols * sizeof(float)) : NULL;
    job->rows.stride = x.cols;
    if (run_ok(r) && !job->rows.data) return run_fail(r, VLM_MEMORY, "out of memory for %lld rows", (long long)x.rows);
    for (int64_t i = 0; run_ok(r) && i < x.rows; i++) memcpy(tensor_row(job->rows, i), tensor_row(x, i), (size_t)x.cols * sizeof(float));
    return run_ok(r);
}

static bool encode_start(run *r, const vlm_model *m, encode_job *job)
{
    const florence2 *v = m->family;
    if (job->in->kind == MEDIA_IMAGE) return davit_start(r, &v->tower, job, v->side_y, v->side_x);
    job->stage = 0;
    job->stages = v->text.encoder.layers;
    job->cost = bart_encode_cost(&v->text, job->in->rows);
    return true;
}

/* Features with their places, their mean first. The table of times counts one picture: sines of 0 and cosines of 0. */
static void connect(run *r, const florence2 *v, encode_job *job)
{
    int64_t n = job->x.rows, d = job->x.cols, across = d - d / 2;
    tensor x = run_zeros(r, n + 1, d);
    for (int64_t i = 0; run_ok(r) && i < n; i++) {
        float *out = tensor_row(x, i + 1), *mean = tensor_row(x, 0);
        const float *column = v->column_table + i % v->columns * across, *row = v->row_table + i / v->columns * (d / 2);
        for (int64_t c = 0; c < d; c++) {
            out[c] = tensor_row(job->x, i)[c] + (c < across ? column[c] : row[c - across]) + (float)(c % 2);
            mean[c] += out[c];
        }
    }
    for (int64_t c = 0; run_ok(r) && c < d; c++) tensor_row(x, 0)[c] /= (float)n;
    keep_rows(r, job, op_layernorm(r, op_linear(r, x, &v->project, NULL), v->rows_norm, v->rows_norm_bias, 1e-5f));
}

static bool encode_image(run *r, const florence2 *v, encode_job *job)
{
    const processed *p = media_input_find(job->in, "pixel_values");
    if (!p || !p->data) return run_fail(r, VLM_INTERNAL, "no pixels to encode");
    if (davit_encode(r, &v->tower, job, p->data) && job->stage == job->stages) connect(r, v, job);
    return run_ok(r);
}

static bool encode(run *r, const vlm_model *m, encode_job *job)
{
    const florence2 *v = m->family;
    const prompt_reading *p = job->in->family;
    if (job->in->kind == MEDIA_IMAGE) return encode_image(r, v, job);
    if (!job->stage && !keep_rows(r, job, bart_embed_prompt(r, &v->text, p->ids, p->n, job->embeds, job->n_embeds))) return false;
    bart_encode_layer(r, &v->text, job->stage++, job->rows);
    return run_ok(r);
}

static bool remember(run *r, const vlm_model *m, const memory_fill *fill) { return bart_remember(r, &((const florence2 *)m->family)->text, fill); }
static tensor forward(run *r, const vlm_model *m, const batch *b) { return bart_forward(r, &((const florence2 *)m->family)->text, b); }

static const char *const types[] = {"florence2", NULL};

const vlm_arch vlm_arch_florence2 = {
    .name = "florence2",
    .title = "Florence-2",
    .model_types = types,
    .rules = &media_rules_fixed,
    .max_images = 1,
    .task = TASK_GENERATE,
    .takes = TAKES_IMAGE,
    .configure = configure,
    .bind = bind,
    .tokens = tokens,
    .process = process,
    .no_special_tokens = true,
    .placeholder = placeholder,
    .media_token = media_token,
    .rewrite = rewrite,
    .expand = expand,
    .plan_memory = plan_memory,
    .remember = remember,
    .reads_prompt = true,
    .encode_start = encode_start,
    .encode = encode,
    .forward = forward,
    .answer = answer,
};
