/* gemma3n.c - Gemma 3n (E2B, E4B).  https://ai.google.dev/gemma/docs/gemma-3n
 *
 *   picture, squeezed to 768 x 768 -> blocks/mobilenet: 256 features                                       \
 *   sound -> log-mel, 10 ms frames -> blocks/audio_encoder, every 4th row: one for 160 ms, 188 in all       > soft norm -> product -> / rms: rows
 *   marks around them (ids from vocab_offset on) have tables of their own   -> hard norm                   /
 *   ids -> embedding * sqrt(hidden) -> 4 streams -> [ guess, attention + LAuReL, MLP, correct, per-layer input ] x layers -> 1 stream -> norm -> head (tied)
 *
 * What bites:
 * - Norms multiply by w (no 1 +), the attention scale is 1, values are normalised without a weight; all but every fifth layer see a window.
 * - The first layers' MLPs are sparse: of the gates only what exceeds a normal distribution's quantile counts, and by how much it does.
 * - The last num_kv_shared_layers layers read the keys and values of the last layer of their type before them.
 * - A sound is always audio_seq_length rows; those behind its end are the embedding of the last id there is. What is longer than 30 s is cut.
 * - Ids outside of the per-layer table, so all of media and their marks, take row 0. Nothing is bidirectional. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "blocks/audio_encoder.h"
#include "blocks/mobilenet.h"
#include "models/gemma_sound.h"
#include "models/picture.h"
#include "models/text.h"

/* From a tower's features, or from ids of a range, to the language model's space. */
typedef struct media_embedder {
    int32_t first, count;          /* ids */
    int width;
    float eps;
    weight table, project;
    const float *hard_norm, *soft_norm;
} media_embedder;

typedef struct gemma3n {
    decoder text;                  /* first: embed_marks() finds the rest from it */
    mobilenet vision;
    audio_encoder audio;
    gemma_sound sound;
    picture_norm norm;
    media_embedder see, hear;
    int image_tokens, audio_tokens, reduction;
    int32_t image_id, audio_id;
} gemma3n;

/* ---- language model ----------------------------------------------------------------------------------------------- */

/* activation_sparsity_pattern: a share for each layer, or for all; by default 0.95 in the first ten of more than ten. */
static bool configure_sparsity(decoder_spec *s, config *c)
{
    double share[DECODER_MAX_LAYERS];
    const json_t *given = config_get(c, TEXT("activation_sparsity_pattern"));
    int n = json_is_array(given) ? config_numbers(c, TEXT("activation_sparsity_pattern"), share, DECODER_MAX_LAYERS) : 0;
    for (int i = 0; i < s->layers && !c->failed; i++) {
        if (!json_is_array(given)) share[i] = json_is_number(given) ? json_number_value(given) : s->layers > 10 && i < 10 ? 0.95 : 0;
        else if (n != s->layers) return config_fail(c, VLM_FORMAT, "activation_sparsity_pattern: %d shares were expected", s->layers);
        if (!(share[i] >= 0 && share[i] < 1)) return config_fail(c, VLM_FORMAT, "activation_sparsity_pattern: %g is not a share", share[i]);
        s->layer[i].sparse = share[i] > 0 ? normal_quantile((float)share[i]) : 0;
        if (share[i] > 0 && !(s->layer[i].sparse > 0)) return config_fail(c, VLM_UNSUPPORTED, "activation_sparsity_pattern: %g; more than half is supported", share[i]);
    }
    return !c->failed;
}

bool gemma3n_spec(decoder_spec *s, arena *memory, config *c, const char *type)
{
    s->n_ropes = 2;
    if (!decoder_config(s, memory, c, text_prefixes) || !decoder_config_windows(s, c, text_prefixes, 512, 5) || !gemma3_ropes(s, memory, c)) return false;
    s->norms = NORM_SANDWICH;
    s->qk_norm = s->v_norm = true;
    s->attn_scale = 1;
    s->embed_scale = (float)sqrt(s->hidden);
    s->act = config_activation(c, TEXT("hidden_activation"), "gelu_pytorch_tanh");
    s->final_softcap = (float)config_number(c, TEXT("final_logit_softcapping"), 30);
    s->tied = config_bool(c, "tie_word_embeddings", config_bool(c, TEXT("tie_word_embeddings"), true));
    s->qkv_bias = s->o_bias = config_bool(c, TEXT("attention_bias"), false);
    s->ple = (int)config_int(c, TEXT("hidden_size_per_layer_input"), 256, 1, 1 << 16);
    s->ple_vocab = (int)config_int(c, TEXT("vocab_size_per_layer_input"), 262144, 1, 1 << 26);
    s->altup.streams = (int)config_int(c, TEXT("altup_num_inputs"), 4, 1, ALTUP_MAX_STREAMS);
    s->altup.active = (int)config_int(c, TEXT("altup_active_idx"), 0, 0, ALTUP_MAX_STREAMS - 1);
    s->altup.scaled = config_bool(c, TEXT("altup_correct_scale"), true);
    s->altup.laurel = (int)config_int(c, TEXT("laurel_rank"), 64, 1, 1 << 16);
    if (!c->failed && s->altup.active >= s->altup.streams)
        return config_fail(c, VLM_FORMAT, "altup_active_idx %d of %d streams", s->altup.active, s->altup.streams);
    return configure_sparsity(s, c) && decoder_share_keys(s, c, (int)config_int(c, TEXT("num_kv_shared_layers"), 15, 0, s->layers - 1));
}

/* ---- config and weights ------------------------------------------------------------------------------------------- */

static bool configure_embedder(media_embedder *e, config *c, const char *which, int first, int width)
{
    char path[3][64];
    static const char *const keys[] = {"vocab_offset", "vocab_size", "rms_norm_eps"};
    for (int i = 0; i < 3; i++) snprintf(path[i], sizeof path[i], "%s.%s", which, keys[i]);
    e->first = (int32_t)config_int(c, path[0], first, 0, INT32_MAX / 2);
    e->count = (int32_t)config_int(c, path[1], 128, 1, 1 << 20);
    e->eps = (float)config_number(c, path[2], 1e-6);
    e->width = width;
    return !c->failed;
}

static bool configure_media(vlm_model *m, gemma3n *g, config *c)
{
    config *p = m->processor;
    int side = (int)config_int(p, "image_processor.size.height|image_processor.size", 768, 1, 1 << 14);
    g->image_tokens = (int)config_int(p, "image_seq_length", config_int(c, "vision_soft_tokens_per_image", 256, 1, 1 << 16), 1, 1 << 16);
    g->audio_tokens = (int)config_int(p, "audio_seq_length", config_int(c, "audio_soft_tokens_per_image", 188, 1, 1 << 16), 1, 1 << 16);
    g->reduction = (int)config_int(c, "audio_config.conf_reduction_factor", 4, 1, 1 << 10);
    g->image_id = (int32_t)config_int(c, "image_token_id", 262145, 0, INT32_MAX);
    g->audio_id = (int32_t)config_int(c, "audio_token_id", 262273, 0, INT32_MAX);
    if (p->failed || c->failed || !mobilenet_config(&g->vision, c, side)) return false;
    if (g->image_tokens != MOBILENET_SIDE * MOBILENET_SIDE) return config_fail(c, VLM_FORMAT, "%d tokens for a picture: the tower gives 256", g->image_tokens);
    if (!picture_config(&g->norm, p, "image_processor", picture_half, RESIZE_BILINEAR) || !gemma_sound_config(&g->sound, &m->memory, p, false)) return false;
    int bins = (int)config_int(c, "audio_config.input_feat_size", 128, 1, 4096);
    if (bins != g->sound.bins) return config_fail(c, VLM_FORMAT, "audio_config.input_feat_size %d, the feature extractor gives %d", bins, g->sound.bins);
    if (!audio_encoder_config_3n(&g->audio, &m->memory, c, bins)) return false;
    if (!configure_embedder(&g->see, c, "vision_config", 262144, MOBILENET_FEATURES) || !configure_embedder(&g->hear, c, "audio_config", 262272, g->audio.hidden))
        return false;
    int last = g->text.spec.vocab - 1 - g->hear.first;
    return (last >= 0 && last < g->hear.count) || config_fail(c, VLM_FORMAT, "the last id of the vocabulary has no row in the audio embedder");
}

static void embed_marks(run *r, const decoder *d, const batch *b, tensor x);

static bool configure(vlm_model *m, config *c)
{
    gemma3n *g = m->family = arena_alloc(&m->memory, sizeof *g);
    if (!g) return config_fail(c, VLM_MEMORY, "out of memory");
    if (!text_spec(&g->text.spec, &m->memory, c) || !decoder_plan(&g->text, &m->memory, c)) return false;
    model_use_decoder(m, &g->text);
    m->takes = 0;
    if (!config_has(c, "vision_config") || !config_has(c, "audio_config")) return !c->failed;           /* the language model alone */
    if (!configure_media(m, g, c)) return false;
    m->takes = TAKES_IMAGE | TAKES_AUDIO;
    g->text.embed_others = embed_marks;
    return true;
}

static void bind_embedder(media_embedder *e, binder *b, int hidden, const char *name)
{
    bind_table(b, &e->table, e->count, e->width, "%s.embedding", name);
    bind_vector(b, &e->hard_norm, e->width, "%s.hard_embedding_norm.weight", name);
    bind_vector(b, &e->soft_norm, e->width, "%s.soft_embedding_norm.weight", name);
    bind_linear(b, &e->project, hidden, e->width, "%s.embedding_projection", name);
}

static bool bind(vlm_model *m, binder *b)
{
    gemma3n *g = m->family;
    if (!decoder_bind(&g->text, b) || !m->takes) return !b->failed;
    mobilenet_bind(&g->vision, b);
    bind_prefix(b, "model.", "", NULL);
    audio_encoder_bind(&g->audio, b);
    bind_embedder(&g->see, b, m->hidden, "embed_vision");
    bind_embedder(&g->hear, b, m->hidden, "embed_audio");
    return !b->failed;
}

/* ---- embedder ----------------------------------------------------------------------------------------------------- */

static tensor project(run *r, const media_embedder *e, tensor x, const float *norm)
{
    tensor y = op_linear(r, op_rmsnorm(r, x, norm, 0, e->eps), &e->project, NULL);
    op_rmsnorm_heads(r, y, NULL, 0, e->eps, (int)y.cols);
    return y;
}

static tensor embed_ids(run *r, const media_embedder *e, const int32_t *index, int n) { return project(r, e, op_embed(r, &e->table, index, n, 1), e->hard_norm); }

/* Tokens whose ids belong to a medium's table: the marks around media. */
static void embed_marks(run *r, const decoder *d, const batch *b, tensor x)
{
    const gemma3n *g = (const gemma3n *)d;
    const media_embedder *both[] = {&g->see, &g->hear};
    for (int k = 0; k < 2; k++) {
        const media_embedder *e = both[k];
        int n = 0, end = k == 0 && g->hear.first > e->first && g->hear.first < e->first + e->count ? g->hear.first : e->first + e->count;
        int32_t *row = run_alloc(r, (size_t)(x.rows + 1) * sizeof *row), *at = run_alloc(r, (size_t)(x.rows + 1) * sizeof *at);
        for (int i = 0; row && at && i < x.rows; i++) {
            if (b->tokens[i] < e->first || b->tokens[i] >= end || (b->is_media && b->is_media[i])) continue;
            row[n] = b->tokens[i] - e->first;
            at[n++] = i;
        }
        if (n && run_ok(r)) op_scatter(r, x, embed_ids(r, e, row, n), at);
    }
}

/* ---- processor ---------------------------------------------------------------------------------------------------- */

static bool process_sound(const gemma3n *g, const audio *sound, media_input *out, vlm_error *error)
{
    const gemma_sound *s = &g->sound;
    int64_t count = sound->count < s->most_samples ? sound->count : s->most_samples, frames = 0;
    float *mel = NULL;
    mel_spec spec = s->mel;
    spec.pad_right = (int)((s->pad_to - count % s->pad_to) % s->pad_to);
    if (mel_frames(&spec, count) < 1) return err_set(error, VLM_FORMAT, "the audio is too short: %lld samples", (long long)count);
    if (!mel_spectrogram(sound->samples, count, &spec, &mel, &frames, error)) return false;
    processed *features = media_input_add(out, "input_features", DT_F32, 3, (int64_t[]){1, frames, s->bins});
    processed *mask = media_input_add(out, "input_features_mask", DT_I64, 2, (int64_t[]){1, frames});
    bool ok = features && mask;
    if (ok) memcpy(features->data, mel, (size_t)frames * (size_t)s->bins * sizeof *mel);
    for (int64_t i = 0; ok && i < frames; i++) ((int64_t *)mask->data)[i] = 1;
    mem_free(mel);
    out->frames = (int)frames;
    out->tokens = g->audio_tokens;
    if ((audio_encoder_rows(frames) + g->reduction - 1) / g->reduction > g->audio_tokens)
        return err_set(error, VLM_LIMIT, "the audio has more than %d rows", g->audio_tokens);
    return ok || err_memory(error, (size_t)frames * (size_t)s->bins * sizeof *mel);
}

static bool process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    const gemma3n *g = m->family;
    int side = g->vision.side;
    out->kind = item->kind;
    if (item->kind == MEDIA_VIDEO || !m->takes) {
        err_set(error, VLM_UNSUPPORTED, "this model takes no %s", media_kind_name(item->kind));
        return m->takes ? err_hint(error, "give some frames as images") : false;
    }
    if (item->kind == MEDIA_AUDIO) return process_sound(g, &item->audio, out, error);
    out->tokens = g->image_tokens;
    processed *p = media_input_add(out, "pixel_values", DT_F32, 4, (const int64_t[]){1, 3, side, side});
    if (!p) return err_memory(error, (size_t)side * (size_t)side * 3 * sizeof(float));
    return picture_resized(&g->norm, &item->image, side, side, 0, 0, side, side, p->data, error);
}

static int audio_rate(const vlm_model *m) { return m->takes ? ((const gemma3n *)m->family)->sound.rate : 16000; }

static int32_t media_token(const vlm_model *m, media_kind kind)
{
    const gemma3n *g = m->family;
    return !m->takes || kind == MEDIA_VIDEO ? -1 : kind == MEDIA_IMAGE ? g->image_id : g->audio_id;
}

static const char *placeholder(const vlm_model *m, media_kind kind)
{
    int32_t id = media_token(m, kind);
    return id >= 0 && m->tok ? tokenizer_token(m->tok, id) : NULL;
}

static bool expand(const vlm_model *m, const media_input *in, buf *text, vlm_error *error)
{
    bool sound = in->kind == MEDIA_AUDIO;
    const json_t *first = config_get(m->cfg, sound ? "boa_token_id" : "boi_token_id"), *last = config_get(m->cfg, sound ? "eoa_token_id" : "eoi_token_id");
    const char *one = placeholder(m, in->kind);
    const char *begin = tokenizer_token(m->tok, json_is_integer(first) ? (int32_t)json_integer_value(first) : sound ? 256000 : 255999);
    const char *end = tokenizer_token(m->tok, json_is_integer(last) ? (int32_t)json_integer_value(last) : sound ? 262272 : 262144);
    if (!one || !begin || !end) return err_set(error, VLM_FORMAT, "the tokenizer has no tokens around %s", media_kind_name(in->kind));
    buf_addf(text, "\n\n%s", begin);
    for (int i = 0; i < in->tokens; i++) buf_adds(text, one);
    buf_addf(text, "%s\n\n", end);
    return !text->failed || err_memory(error, text->size);
}

/* ---- encoders ----------------------------------------------------------------------------------------------------- */

static tensor job_tensor(run *r, encode_job *job, int64_t rows, int64_t cols)
{
    void *data = arena_alloc_raw(job->memory, (size_t)(rows * cols) * sizeof(float));
    if (!data) run_fail(r, VLM_MEMORY, "out of memory: %lld x %lld activations of an encoder", (long long)rows, (long long)cols);
    return (tensor){data, DT_F32, rows, cols, cols};
}

static bool encode_start(run *r, const vlm_model *m, encode_job *job)
{
    const gemma3n *g = m->family;
    job->stage = 0;
    job->rows = job_tensor(r, job, job->in->tokens, m->hidden);
    if (job->in->kind == MEDIA_AUDIO) {
        int64_t rows = audio_encoder_rows(job->in->frames);
        job->stages = g->audio.layers + 1;
        job->cost = audio_encoder_layer_flops(&g->audio, rows);
        job->x = job_tensor(r, job, rows, g->audio.hidden);
        return run_ok(r);
    }
    job->stages = g->vision.n_blocks + 1;
    job->cost = mobilenet_flops(&g->vision) / job->stages;
    job->family = arena_alloc(job->memory, sizeof(mobilenet_state));
    if (!job->family || !mobilenet_start(&g->vision, job->family, job->memory)) return run_fail(r, VLM_MEMORY, "out of memory: a picture's features");
    return run_ok(r);
}

static void copy_rows(run *r, tensor to, tensor from)
{
    for (int64_t i = 0; run_ok(r) && i < from.rows; i++) memcpy(tensor_row(to, i), tensor_row(from, i), (size_t)from.cols * sizeof(float));
}

static void see(run *r, const gemma3n *g, encode_job *job)
{
    if (job->stage == 0) mobilenet_stem(r, &g->vision, job->family, media_input_find(job->in, "pixel_values")->data);
    else mobilenet_run_block(r, &g->vision, job->family, job->stage - 1);
    if (job->stage < g->vision.n_blocks) return;
    tensor x = mobilenet_finish(r, &g->vision, job->family);
    op_scale(r, x, (float)sqrt(MOBILENET_FEATURES), NULL);
    copy_rows(r, job->rows, project(r, &g->see, x, g->see.soft_norm));
}

/* Every reduction-th row; behind them the embedding of the last id. */
static void hear(run *r, const gemma3n *g, encode_job *job)
{
    const processed *p = media_input_find(job->in, "input_features");
    if (job->stage == 0) audio_encoder_embed(r, &g->audio, (tensor){p->data, DT_F32, p->dim[1], p->dim[2], p->dim[2]}, job->x);
    else audio_encoder_run_layer(r, &g->audio, job->stage - 1, job->x);
    if (job->stage < g->audio.layers) return;
    int64_t rows = (job->x.rows + g->reduction - 1) / g->reduction;
    int32_t *kept = run_alloc(r, (size_t)(rows + 1) * sizeof *kept);
    for (int64_t i = 0; kept && i < rows; i++) kept[i] = (int32_t)(i * g->reduction);
    copy_rows(r, job->rows, project(r, &g->hear, op_gather(r, job->x, kept, rows), g->hear.soft_norm));
    tensor silence = embed_ids(r, &g->hear, (int32_t[]){g->text.spec.vocab - 1 - g->hear.first}, 1);
    for (int64_t i = rows; run_ok(r) && i < job->rows.rows; i++) copy_rows(r, tensor_rows(job->rows, i, 1), silence);
}

static bool encode(run *r, const vlm_model *m, encode_job *job)
{
    if (job->in->kind == MEDIA_AUDIO) hear(r, m->family, job);
    else see(r, m->family, job);
    job->stage++;
    return run_ok(r);
}

static tensor forward(run *r, const vlm_model *m, const batch *b) { return decoder_forward(r, &((const gemma3n *)m->family)->text, b); }

static const char *const types[] = {"gemma3n", "gemma3n_text", NULL};

const vlm_arch vlm_arch_gemma3n = {
    .name = "gemma3n", .title = "Gemma 3n (E2B, E4B)", .model_types = types, .rules = &media_rules_fixed, .task = TASK_GENERATE,
    .takes = TAKES_IMAGE | TAKES_AUDIO,
    .configure = configure, .bind = bind, .process = process, .audio_rate = audio_rate, .placeholder = placeholder, .media_token = media_token,
    .expand = expand, .encode_start = encode_start, .encode = encode, .forward = forward,
};
