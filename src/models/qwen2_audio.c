/* qwen2_audio.c - Qwen2-Audio.  https://arxiv.org/abs/2407.10759
 *
 *   sound, at most 30 s -> log-mel, 10 ms frames -> Whisper's encoder (whisper_tower.h), a row for 40 ms -> layer norm -> linear
 *   -> rows that replace <|AUDIO|> -> Qwen2 decoder, plain rope
 *
 * Bites: what is longer than the window is cut. The padding behind the sound is masked out in the layers, but the convolutions see a frame of it.
 * The average of two rows comes before the last norm. Published configs leave out what are Qwen2's defaults. */
#include "base/err.h"
#include "models/text.h"
#include "models/whisper_tower.h"

typedef struct qwen2_audio {
    decoder text;
    whisper_tower audio;
    int32_t token;
} qwen2_audio;

static bool configure(vlm_model *m, config *c)
{
    qwen2_audio *q = m->family = arena_alloc(&m->memory, sizeof *q);
    if (!q) return config_fail(c, VLM_MEMORY, "out of memory");
    q->token = (int32_t)config_int(c, "audio_token_index|audio_token_id", 151646, 0, INT32_MAX);
    if (!text_spec(&q->text.spec, &m->memory, c) || !decoder_plan(&q->text, &m->memory, c)) return false;
    model_use_decoder(m, &q->text);
    m->takes = TAKES_AUDIO;
    return whisper_config(&q->audio, &m->memory, c, m->processor, 0, q->text.spec.hidden);
}

static bool bind(vlm_model *m, binder *b)
{
    qwen2_audio *q = m->family;
    if (!decoder_bind(&q->text, b)) return false;
    bind_prefix(b, "", "model.", NULL);
    whisper_bind(&q->audio, b, "audio_tower.layer_norm", "multi_modal_projector.linear");
    return !b->failed;
}

static bool process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    (void)options;
    const qwen2_audio *q = m->family;
    if (item->kind != MEDIA_AUDIO) return err_set(error, VLM_UNSUPPORTED, "%s takes audio, no %s", m->arch->title, media_kind_name(item->kind));
    return whisper_process(m, &q->audio, item, out, error);
}

static int audio_rate(const vlm_model *m) { return ((const qwen2_audio *)m->family)->audio.mel.rate; }

static int32_t media_token(const vlm_model *m, media_kind kind) { return kind == MEDIA_AUDIO ? ((const qwen2_audio *)m->family)->token : -1; }

static const char *placeholder(const vlm_model *m, media_kind kind)
{
    int32_t id = media_token(m, kind);
    return id >= 0 && m->tok ? tokenizer_token(m->tok, id) : NULL;
}

static bool expand(const vlm_model *m, const media_input *in, buf *text, vlm_error *error)
{
    const char *token = placeholder(m, in->kind);
    for (int i = 0; token && i < in->tokens; i++) buf_adds(text, token);
    return !text->failed || err_memory(error, text->size);
}

static bool encode_start(run *r, const vlm_model *m, encode_job *job) { return whisper_start(r, &((const qwen2_audio *)m->family)->audio, job); }

static bool encode(run *r, const vlm_model *m, encode_job *job) { return whisper_encode(r, &((const qwen2_audio *)m->family)->audio, job); }

static tensor forward(run *r, const vlm_model *m, const batch *b) { return decoder_forward(r, &((const qwen2_audio *)m->family)->text, b); }

static const char *const types[] = {"qwen2_audio", NULL};

const vlm_arch vlm_arch_qwen2_audio = {
    .name = "qwen2_audio",
    .title = "Qwen2-Audio (7B)",
    .model_types = types,
    .rules = &media_rules_fixed,
    .task = TASK_GENERATE,
    .takes = TAKES_AUDIO,
    .configure = configure,
    .bind = bind,
    .process = process,
    .audio_rate = audio_rate,
    .placeholder = placeholder,
    .media_token = media_token,
    .expand = expand,
    .encode_start = encode_start,
    .encode = encode,
    .forward = forward,
};
