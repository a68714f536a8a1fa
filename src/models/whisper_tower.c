/* whisper_tower.c - see whisper_tower.h. Rules: transformers feature_extraction_whisper.py, modeling_qwen2_audio.py, modeling_qwen2_5_omni.py. */
#include "models/whisper_tower.h"

#include <math.h>
#include <string.h>

#include "base/err.h"
#include "blocks/decoder.h"

enum { TAPS = 3 };

/* ---- configuration ------------------------------------------------------------------------------------------------ */

static bool configure_mel(whisper_tower *t, config *c, config *p, int bins)
{
    t->mel = mel_spec_whisper(bins);
    int features = (int)config_int(p, "feature_extractor.feature_size", bins, 1, 4096);
    t->mel.rate = (int)config_int(p, "feature_extractor.sampling_rate", 16000, 1000, 192000);
    t->mel.hop = (int)config_int(p, "feature_extractor.hop_length", 160, 1, 1 << 16);
    t->mel.fft = t->mel.frame_length = (int)config_int(p, "feature_extractor.n_fft", 400, 2, 1 << 16);
    t->mel.pad_left = t->mel.pad_right = t->mel.fft / 2;
    int64_t seconds = config_int(p, "feature_extractor.chunk_length", 30, 1, 3600);
    if (c->failed || p->failed) return false;
    t->samples = seconds * t->mel.rate;
    t->frames = t->samples / t->mel.hop;
    if (features != bins) return config_fail(c, VLM_FORMAT, "feature_size %d, but audio_config.num_mel_bins is %d", features, bins);
    if (t->samples % t->mel.hop) return config_fail(c, VLM_UNSUPPORTED, "hop_length %d does not divide a window of %lld samples", t->mel.hop, (long long)t->samples);
    return true;
}

/* As torch computes it in float32. */
static bool make_table(whisper_tower *t, arena *memory, config *c)
{
    int d = t->vit.hidden, half = d / 2;
    float *table = arena_alloc(memory, (size_t)t->positions * (size_t)d * sizeof *table);
    if (!table) return config_fail(c, VLM_MEMORY, "out of memory");
    if (d % 2 || half < 2) return config_fail(c, VLM_FORMAT, "audio_config.d_model %d: an even number above 2 was expected", d);
    float step = (float)(-log(10000.0) / (half - 1));
    for (int i = 0; i < t->positions; i++)
        for (int k = 0; k < half; k++) {
            float angle = (float)i * expf(step * (float)k);
            table[(size_t)i * (size_t)d + (size_t)k] = sinf(angle);
            table[(size_t)i * (size_t)d + (size_t)(half + k)] = cosf(angle);
        }
    t->table = table;
    return true;
}

bool whisper_config(whisper_tower *t, arena *memory, config *c, config *processor, int chunk, int out)
{
    t->vit = (vit_spec){
        .hidden = (int)config_int(c, "audio_config.d_model", 1280, 1, 1 << 16),
        .heads = (int)config_int(c, "audio_config.encoder_attention_heads", 20, 1, 1 << 10),
        .ffn = (int)config_int(c, "audio_config.encoder_ffn_dim", 5120, 1, 1 << 20),
        .act = config_activation(c, "audio_config.activation_function", "gelu"),
        .eps = 1e-5f,
        .layernorm = true,
    };
    t->layers = (int)config_int(c, "audio_config.encoder_layers", 32, 1, 1024);
    t->positions = (int)config_int(c, "audio_config.max_source_positions", 1500, 1, 1 << 20);
    t->chunk = chunk;
    t->out = out;
    int bins = (int)config_int(c, "audio_config.num_mel_bins", 128, 1, 4096);
    if (c->failed || !configure_mel(t, c, processor, bins)) return false;
    t->vit.head_dim = t->vit.hidden / t->vit.heads;
    if (t->vit.hidden % t->vit.heads) return config_fail(c, VLM_FORMAT, "audio_config.d_model %d is not a multiple of %d heads", t->vit.hidden, t->vit.heads);
    if (!chunk && t->frames != 2LL * t->positions)
        return config_fail(c, VLM_FORMAT, "audio_config.max_source_positions %d: the processor's window has %lld frames", t->positions, (long long)t->frames);
    if (chunk && (chunk + 1) / 2 > t->positions) return config_fail(c, VLM_FORMAT, "audio_config.max_source_positions %d: a segment has %d frames", t->positions, chunk);
    if (chunk) t->positions = (chunk + 1) / 2;
    if (!(t->layer = arena_alloc(memory, (size_t)t->layers * sizeof *t->layer))) return config_fail(c, VLM_MEMORY, "out of memory");
    return !chunk || make_table(t, memory, c);
}

void whisper_bind(whisper_tower *t, binder *b, const char *norm, const char *project)
{
    static const vit_names names = {.norm1 = "self_attn_layer_norm", .norm2 = "final_layer_norm", .q = "self_attn.q_proj", .k = "self_attn.k_proj",
                                    .v = "self_attn.v_proj", .proj = "self_attn.out_proj", .up = "fc1", .down = "fc2"};
    int64_t d = t->vit.hidden;
    bind_conv1d(b, &t->conv[0], d, t->mel.bins, TAPS, "audio_tower.conv1");
    bind_conv1d(b, &t->conv[1], d, d, TAPS, "audio_tower.conv2");
    bind_vector(b, &t->conv_bias[0], d, "audio_tower.conv1.bias");
    bind_vector(b, &t->conv_bias[1], d, "audio_tower.conv2.bias");
    if (!t->chunk) bind_vector(b, &t->table, (int64_t)t->positions * d, "audio_tower.embed_positions.weight");
    for (int i = 0; i < t->layers && !b->failed; i++) vit_bind_layer(&t->layer[i], &t->vit, b, "audio_tower.layers", i, &names);
    bind_vector(b, &t->norm, d, "%s.weight", norm);
    bind_vector(b, &t->norm_bias, d, "%s.bias", norm);
    bind_linear(b, &t->project, t->out, d, "%s", project);
    bind_vector(b, &t->project_bias, t->out, "%s.bias", project);
}

/* ---- processor ---------------------------------------------------------------------------------------------------- */

static int64_t halved(int64_t frames) { return (frames + 1) / 2; }

/* [frames of the window][bins]. Behind the sound all frames are alike: they are computed until the first that sees nothing else. */
static float *spectrogram(const whisper_tower *t, const float *samples, int64_t count, vlm_error *error)
{
    int64_t hop = t->mel.hop, bins = t->mel.bins, made = 0, use = (count + t->mel.fft + 2 * hop) / hop * hop;
    if (use > t->samples) use = t->samples;
    float *padded = MEM_ARRAY((size_t)use, float), *mel = NULL, *rows = MEM_ARRAY((size_t)(t->frames * bins), float);
    bool ok = (padded && rows) || err_memory(error, (size_t)(t->frames * bins) * sizeof *rows);
    if (ok) memcpy(padded, samples, (size_t)count * sizeof *padded);
    ok = ok && mel_spectrogram(padded, use, &t->mel, &mel, &made, error);
    for (int64_t i = 0; ok && i < t->frames; i++) memcpy(rows + i * bins, mel + (i < made ? i : made - 1) * bins, (size_t)bins * sizeof *rows);
    mem_free(padded);
    mem_free(mel);
    if (!ok) mem_free(rows);
    return ok ? rows : NULL;
}

bool whisper_process(const vlm_model *m, const whisper_tower *t, const media_item *item, media_input *out, vlm_error *error)
{
    int64_t count = item->audio.count < t->samples ? item->audio.count : t->samples, bins = t->mel.bins;
    int64_t frames = (count + t->mel.hop - 1) / t->mel.hop, tokens = halved(frames) / 2;
    if (tokens < 1) return err_set(error, VLM_INVALID, "the audio is too short: %lld samples", (long long)item->audio.count);
    if (tokens > m->context) return err_set(error, VLM_LIMIT, "audio of %lld tokens: the model's context has %d", (long long)tokens, m->context);
    processed *features = media_input_add(out, "input_features", DT_F32, 3, (const int64_t[]){1, bins, t->frames});
    processed *mask = media_input_add(out, "feature_attention_mask", DT_I64, 2, (const int64_t[]){1, t->frames});
    if (!features || !mask) return err_memory(error, (size_t)(t->frames * bins) * sizeof(float));
    float *rows = spectrogram(t, item->audio.samples, count, error);
    if (!rows) return false;
    for (int64_t b = 0; b < bins; b++)
        for (int64_t i = 0; i < t->frames; i++) ((float *)features->data)[b * t->frames + i] = rows[i * bins + b];
    mem_free(rows);
    for (int64_t i = 0; i < frames; i++) ((int64_t *)mask->data)[i] = 1;
    out->kind = item->kind;
    out->frames = (int)frames;
    out->tokens = (int)tokens;
    return true;
}

/* ---- encoder ------------------------------------------------------------------------------------------------------ */

typedef struct whisper_job { int32_t *starts; int segments; } whisper_job;   /* starts: in rows of the layers */

static tensor keep(run *r, arena *memory, int64_t rows, int64_t cols)
{
    tensor t = {arena_alloc_raw(memory, (size_t)(rows * cols) * sizeof(float)), DT_F32, rows, cols, cols};
    if (!t.data) run_fail(r, VLM_MEMORY, "out of memory for an encoder of %lld x %lld", (long long)rows, (long long)cols);
    return t;
}

bool whisper_start(run *r, const whisper_tower *t, encode_job *job)
{
    int64_t frames = job->in->frames, chunk = t->chunk ? t->chunk : frames, rows = 0;
    whisper_job *j = arena_alloc(job->memory, sizeof *j);
    if (!j || frames < 1 || !(j->starts = arena_alloc(job->memory, (size_t)(frames / chunk + 2) * sizeof *j->starts))) return run_fail(r, VLM_MEMORY, "out of memory");
    for (int64_t at = 0; at < frames; at += chunk) {
        rows += halved(at + chunk < frames ? chunk : frames - at);
        j->starts[++j->segments] = (int32_t)rows;
    }
    job->family = j;
    job->stage = 0;
    job->stages = t->layers;
    job->cost = vit_layer_cost(&t->vit, (double)rows, (double)rows / j->segments);
    job->x = keep(r, job->memory, rows, t->vit.hidden);
    job->rows = keep(r, job->memory, job->in->tokens, t->out);
    return run_ok(r);
}

/* The three rows that output i of a convolution sees, rows first .. first + count of its input; others are zeros (-1). */
static int32_t *see(int32_t *index, int64_t outputs, int step, int64_t first, int64_t count)
{
    for (int64_t i = 0; i < outputs; i++)
        for (int k = 0; k < TAPS; k++) {
            int64_t at = i * step + k - 1;
            *index++ = at >= 0 && at < count ? (int32_t)(first + at) : -1;
        }
    return index;
}

static tensor convolve(run *r, const whisper_tower *t, int which, tensor x, const int32_t *index, int64_t outputs)
{
    tensor h = op_gather(r, x, index, outputs * TAPS);
    if (!run_ok(r)) return h;
    h = op_linear(r, (tensor){h.data, DT_F32, outputs, x.cols * TAPS, x.cols * TAPS}, &t->conv[which], t->conv_bias[which]);
    op_activate(r, h, ACT_GELU);
    return h;
}

/* Frames [n, bins]: a spectrogram lies bin by bin. */
static tensor frames_of(run *r, const processed *features, int64_t n)
{
    tensor x = run_tensor(r, n, features->dim[1]);
    for (int64_t i = 0; run_ok(r) && i < n; i++)
        for (int64_t b = 0; b < x.cols; b++) tensor_row(x, i)[b] = ((const float *)features->data)[b * features->dim[2] + i];
    return x;
}

static void embed(run *r, const whisper_tower *t, const encode_job *job)
{
    const whisper_job *j = job->family;
    const processed *features = media_input_find(job->in, "input_features");
    if (!features) { run_fail(r, VLM_INTERNAL, "no spectrogram"); return; }
    int64_t rows = job->x.rows, most = 2 * rows, window = features->dim[2], real = job->in->frames, n = 0;
    int32_t *a = run_alloc(r, (size_t)(most * TAPS) * sizeof *a), *b = run_alloc(r, (size_t)(rows * TAPS) * sizeof *b), *next_a = a, *next_b = b;
    if (!run_ok(r)) return;
    int64_t have = t->chunk ? real : most + 1 < window ? most + 1 : window;                   /* frames that are looked at */
    for (int s = 0; s < j->segments; s++) {
        int64_t first = (int64_t)s * t->chunk, count = t->chunk && first + t->chunk < have ? t->chunk : have - first;
        int64_t outputs = count < most ? count : most;
        next_a = see(next_a, outputs, 1, first, count);
        next_b = see(next_b, j->starts[s + 1] - j->starts[s], 2, n, outputs);
        n += outputs;
    }
    tensor h = convolve(r, t, 0, frames_of(r, features, have), a, n);                         /* [frames, hidden] */
    h = convolve(r, t, 1, h, b, rows);
    if (!run_ok(r)) return;
    for (int64_t i = 0; i < rows; i++) memcpy(tensor_row(job->x, i), tensor_row(h, i), (size_t)h.cols * sizeof(float));
    for (int s = 0; s < j->segments; s++) {
        int64_t count = j->starts[s + 1] - j->starts[s];
        op_add_inplace(r, tensor_rows(job->x, j->starts[s], count), (tensor){(float *)(uintptr_t)t->table, DT_F32, count, h.cols, h.cols});
    }
    TAP(r, "audio.embed", 0, job->x);
}

/* Rows two by two: their average, norm, projection. */
static void finish(run *r, const whisper_tower *t, const encode_job *job)
{
    int64_t d = t->vit.hidden, n = job->rows.rows;
    tensor pooled = run_zeros(r, n, d), pairs = {job->x.data, DT_F32, n, 2 * d, 2 * d};
    if (!run_ok(r)) return;
    op_add_scaled(r, pooled, tensor_cols(pairs, 0, d), 0.5f);
    op_add_scaled(r, pooled, tensor_cols(pairs, d, d), 0.5f);
    op_linear_to(r, job->rows, op_layernorm(r, pooled, t->norm, t->norm_bias, 1e-5f), &t->project, t->project_bias);
    TAP(r, "audio.rows", 0, job->rows);
}

bool whisper_encode(run *r, const whisper_tower *t, encode_job *job)
{
    const whisper_job *j = job->family;
    int i = job->stage++;
    if (i == 0) embed(r, t, job);
    vit_layer_forward(r, &t->vit, &t->layer[i], i, job->x, (tensor){0}, (tensor){0}, j->starts, j->segments);
    if (i == t->layers - 1) finish(r, t, job);
    return run_ok(r);
}
