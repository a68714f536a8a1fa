/* qwen3_audio.c - see qwen3_audio.h. */
#include "models/qwen3_audio.h"

#include <math.h>
#include <string.h>

#include "base/err.h"
#include "blocks/decoder.h"

static int halved(int n) { return (n + 1) / 2; }
static int thrice(int n) { return halved(halved(halved(n))); }

/* ---- config and weights ------------------------------------------------------------------------------------------- */

bool qwen3_audio_config(qwen3_audio *a, arena *memory, config *c, config *p, int out)
{
    a->vit = (vit_spec){
        .hidden = (int)config_int(c, "audio_config.d_model", 1280, 4, 1 << 16),
        .heads = (int)config_int(c, "audio_config.encoder_attention_heads", 20, 1, 1 << 10),
        .ffn = (int)config_int(c, "audio_config.encoder_ffn_dim", 5120, 1, 1 << 20),
        .act = config_activation(c, "audio_config.activation_function", "gelu"),
        .eps = 1e-5f,
        .layernorm = true,
    };
    a->layers = (int)config_int(c, "audio_config.encoder_layers", 32, 1, 1024);
    a->bins = (int)config_int(c, "audio_config.num_mel_bins", 128, 1, 4096);
    a->channels = (int)config_int(c, "audio_config.downsample_hidden_size", 480, 1, 1 << 16);
    a->chunk = 2 * (int)config_int(c, "audio_config.n_window", 50, 1, 1 << 12);
    a->window = (int)config_int(c, "audio_config.n_window_infer", 800, 1, 1 << 20);
    a->out = (int)config_int(c, "audio_config.output_dim", out, 1, 1 << 20);
    a->mel = mel_spec_whisper(a->bins);
    a->mel.rate = (int)config_int(p, "feature_extractor.sampling_rate", 16000, 1000, 192000);
    if (c->failed || p->failed) return false;
    int d = a->vit.hidden, half = d / 2, rows = thrice(a->chunk);
    if (d % 2 || d % a->vit.heads) return config_fail(c, VLM_FORMAT, "audio_config.d_model %d of %d heads", d, a->vit.heads);
    if (a->out != out) return config_fail(c, VLM_FORMAT, "audio_config.output_dim %d, but the decoder's hidden_size is %d", a->out, out);
    if (a->window < a->chunk) return config_fail(c, VLM_UNSUPPORTED, "audio_config.n_window_infer %d is less than a chunk (%d)", a->window, a->chunk);
    if (rows != 13) return config_fail(c, VLM_UNSUPPORTED, "audio_config.n_window %d: chunks of 13 rows were expected", a->chunk / 2);
    if (config_bool(c, "audio_config.scale_embedding", false)) return config_fail(c, VLM_UNSUPPORTED, "audio_config.scale_embedding");
    a->vit.head_dim = d / a->vit.heads;
    a->layer = arena_alloc(memory, (size_t)a->layers * sizeof *a->layer);
    a->table = arena_alloc(memory, (size_t)rows * (size_t)d * sizeof *a->table);
    if (!a->layer || !a->table) return config_fail(c, VLM_MEMORY, "out of memory");
    float step = (float)(-log(10000.0) / (half - 1));
    for (int i = 0; i < rows; i++)
        for (int k = 0; k < half; k++) {
            float angle = (float)i * expf(step * (float)k);
            a->table[i * d + k] = sinf(angle);
            a->table[i * d + half + k] = cosf(angle);
        }
    return true;
}

void qwen3_audio_bind(qwen3_audio *a, binder *b)
{
    static const vit_names names = {.norm1 = "self_attn_layer_norm", .norm2 = "final_layer_norm", .q = "self_attn.q_proj", .k = "self_attn.k_proj",
                                    .v = "self_attn.v_proj", .proj = "self_attn.out_proj", .up = "fc1", .down = "fc2"};
    int64_t d = a->vit.hidden;
    for (int i = 0; i < 3; i++) {
        bind_conv2d(b, &a->conv[i], a->channels, i ? a->channels : 1, 3, 3, "audio_tower.conv2d%d", i + 1);
        bind_vector(b, &a->conv_bias[i], a->channels, "audio_tower.conv2d%d.bias", i + 1);
    }
    bind_linear(b, &a->conv_out, d, (int64_t)a->channels * thrice(a->bins), "audio_tower.conv_out");
    for (int i = 0; i < a->layers && !b->failed; i++) vit_bind_layer(&a->layer[i], &a->vit, b, "audio_tower.layers", i, &names);
    bind_vector(b, &a->norm, d, "audio_tower.ln_post.weight");
    bind_vector(b, &a->norm_bias, d, "audio_tower.ln_post.bias");
    bind_linear(b, &a->up, d, d, "audio_tower.proj1");
    bind_vector(b, &a->up_bias, d, "audio_tower.proj1.bias");
    bind_linear(b, &a->down, a->out, d, "audio_tower.proj2");
    bind_vector(b, &a->down_bias, a->out, "audio_tower.proj2.bias");
}

/* ---- processor ---------------------------------------------------------------------------------------------------- */

static int64_t rows_of(const qwen3_audio *a, int64_t frames) { return frames / a->chunk * thrice(a->chunk) + thrice((int)(frames % a->chunk)); }

bool qwen3_audio_process(const vlm_model *m, const qwen3_audio *a, const media_item *item, media_input *out, vlm_error *error)
{
    int64_t frames = mel_frames(&a->mel, item->audio.count), tokens = rows_of(a, frames);
    if (frames < 1) return err_set(error, VLM_INVALID, "the audio is too short: %lld samples", (long long)item->audio.count);
    if (tokens > m->context) return err_set(error, VLM_LIMIT, "audio of %lld tokens: the model's context has %d", (long long)tokens, m->context);
    float *rows = NULL;
    if (!mel_spectrogram(item->audio.samples, item->audio.count, &a->mel, &rows, &frames, error)) return false;
    processed *features = media_input_add(out, "input_features", DT_F32, 3, (const int64_t[]){1, a->bins, frames});
    processed *mask = media_input_add(out, "feature_attention_mask", DT_I64, 2, (const int64_t[]){1, frames});
    bool ok = (features && mask) || err_memory(error, (size_t)(a->bins * frames) * sizeof *rows);
    for (int64_t b = 0; ok && b < a->bins; b++)
        for (int64_t i = 0; i < frames; i++) ((float *)features->data)[b * frames + i] = rows[i * a->bins + b];
    for (int64_t i = 0; ok && i < frames; i++) ((int64_t *)mask->data)[i] = 1;
    mem_free(rows);
    out->kind = item->kind;
    out->frames = (int)frames;
    out->tokens = (int)tokens;
    return ok;
}

/* ---- encoder ------------------------------------------------------------------------------------------------------ */

typedef struct audio_job { int chunks, segments; int32_t *starts; } audio_job;

static tensor keep(run *r, arena *memory, int64_t rows, int64_t cols)
{
    tensor t = {arena_alloc_raw(memory, (size_t)(rows * cols) * sizeof(float)), DT_F32, rows, cols, cols};
    if (!t.data) run_fail(r, VLM_MEMORY, "out of memory for an encoder of %lld x %lld", (long long)rows, (long long)cols);
    return t;
}

bool qwen3_audio_start(run *r, const qwen3_audio *a, encode_job *job)
{
    int frames = job->in->frames, rows = job->in->tokens, window = thrice(a->chunk) * (a->window / a->chunk);
    audio_job *j = arena_alloc(job->memory, sizeof *j);
    if (!j || !(j->starts = arena_alloc(job->memory, (size_t)(rows / window + 2) * sizeof *j->starts))) return run_fail(r, VLM_MEMORY, "out of memory");
    j->chunks = (frames + a->chunk - 1) / a->chunk;
    for (int at = 0; at < rows; at += window) j->starts[++j->segments] = at + window < rows ? at + window : rows;
    job->family = j;
    job->stage = 0;
    job->stages = j->chunks + a->layers;
    job->cost = vit_layer_cost(&a->vit, rows, rows / j->segments);
    job->x = keep(r, job->memory, rows, a->vit.hidden);
    job->rows = keep(r, job->memory, rows, a->out);
    return run_ok(r);
}

/* A chunk's rows. Convolutions go over [frequency][time]. */
static void embed(run *r, const qwen3_audio *a, const encode_job *job, int chunk)
{
    const audio_job *j = job->family;
    const processed *p = media_input_find(job->in, "input_features");
    int frames = job->in->frames, first = chunk * a->chunk, width = j->chunks > 1 ? a->chunk : frames, height = a->bins;
    int real = frames - first < a->chunk ? frames - first : a->chunk, rows = thrice(real);
    tensor h = run_zeros(r, (int64_t)height * width, 1);
    for (int b = 0; run_ok(r) && b < height; b++) memcpy((float *)h.data + (int64_t)b * width, (const float *)p->data + (int64_t)b * frames + first, (size_t)real * sizeof(float));
    for (int i = 0; i < 3; i++) {
        h = op_conv2d(r, h, height, width, &a->conv[i], a->conv_bias[i], 3, 3, 2, 1, &height, &width);
        op_activate(r, h, ACT_GELU);
    }
    tensor flat = run_tensor(r, rows, (int64_t)a->channels * height), x = tensor_rows(job->x, (int64_t)chunk * thrice(a->chunk), rows);
    for (int t = 0; run_ok(r) && t < rows; t++)                              /* channels outside, frequencies inside */
        for (int f = 0; f < height; f++)
            for (int c = 0; c < a->channels; c++) tensor_row(flat, t)[c * height + f] = tensor_row(h, (int64_t)f * width + t)[c];
    op_linear_to(r, x, flat, &a->conv_out, NULL);
    op_add_inplace(r, x, (tensor){a->table, DT_F32, rows, x.cols, x.cols});
}

bool qwen3_audio_encode(run *r, const qwen3_audio *a, encode_job *job)
{
    const audio_job *j = job->family;
    int stage = job->stage++;
    if (stage < j->chunks) {
        embed(r, a, job, stage);
        return run_ok(r);
    }
    int i = stage - j->chunks;
    vit_layer_forward(r, &a->vit, &a->layer[i], i, job->x, (tensor){0}, (tensor){0}, j->starts, j->segments);
    if (i < a->layers - 1) return run_ok(r);
    tensor h = op_linear(r, op_layernorm(r, job->x, a->norm, a->norm_bias, 1e-5f), &a->up, a->up_bias);
    op_activate(r, h, a->vit.act);
    op_linear_to(r, job->rows, h, &a->down, a->down_bias);
    return run_ok(r);
}
