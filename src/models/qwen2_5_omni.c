/* qwen2_5_omni.c - Qwen2.5-Omni, the thinker: text out, no speech.  https://arxiv.org/abs/2503.20215
 *
 *   image, video -> Qwen2.5-VL's processor and tower (qwen_tower.h)                  \
 *   sound -> log-mel, 10 ms frames -> Whisper's encoder in segments of 2 * n_window   > rows that replace <|IMAGE|>, <|VIDEO|>, <|AUDIO|>
 *            frames (whisper_tower.h), a row for 40 ms                               /  -> Qwen2 decoder with M-RoPE
 *
 * Bites: everything lies below thinker_config and thinker. (talker and token2wav are not read). q, k, v of the vision tower lie apart. Time is
 * counted in steps of 40 ms: a video's frame group is position_id_per_seconds * its seconds further, a row of sound one step. A video's size
 * limits are the processor class's own, not those of preprocessor_config.json. The sound track of a video is not looked at. */
#include "base/err.h"
#include "models/qwen_vl.h"
#include "models/whisper_tower.h"

#include <string.h>

typedef struct omni {
    qwen_vl vl;                    /* first: qwen_vl_arch_* look for it */
    whisper_tower audio;
    int32_t audio_token;
} omni;

/* The members of thinker_config become members of the whole: all that follows reads as in other families. */
static bool lift(config *c)
{
    json_t *thinker = json_object_get(c->root, "thinker_config");
    if (!thinker) return true;
    if (!json_is_object(thinker)) return config_fail(c, VLM_FORMAT, "thinker_config: an object was expected");
    return json_object_update_missing(c->root, thinker) == 0 || config_fail(c, VLM_MEMORY, "out of memory");
}

static bool configure(vlm_model *m, config *c)
{
    static const char *const prefix[] = {"thinker.model.", "model.", "thinker.model.language_model.", "model.language_model.", NULL};
    static const char *const head[] = {"thinker.", "", NULL};
    omni *q = m->family = arena_alloc(&m->memory, sizeof *q);
    if (!q) return config_fail(c, VLM_MEMORY, "out of memory");
    if (!lift(c) || !decoder_config(&q->vl.text.spec, &m->memory, c, text_prefixes)) return false;
    q->vl.text.spec.qkv_bias = true;
    memcpy(q->vl.text.spec.prefix, prefix, sizeof prefix);
    memcpy(q->vl.text.spec.head_prefix, head, sizeof head);
    if (!qwen_vl_configure(&q->vl.processor, m->processor, c) || !qwen2_5_vl_configure_vision(&q->vl, m, c) || !qwen_vl_plan(&q->vl, m, c)) return false;

    qwen_vl_processor *p = &q->vl.processor;
    p->video = (qwen_vl_limits){128 * 28 * 28, 768 * 28 * 28};
    p->tokens_per_second = config_number(c, "position_id_per_seconds", 25);
    p->image_token = (int32_t)config_int(c, "image_token_index|image_token_id", 151655, 0, INT32_MAX);
    p->video_token = (int32_t)config_int(c, "video_token_index|video_token_id", 151656, 0, INT32_MAX);
    q->audio_token = (int32_t)config_int(c, "audio_token_index|audio_token_id", 151646, 0, INT32_MAX);
    int window = (int)config_int(c, "audio_config.n_window", 100, 1, 1 << 16), d = q->vl.text.spec.hidden;
    int out = (int)config_int(c, "audio_config.output_dim", d, 1, 1 << 20);
    if (!c->failed && !(p->tokens_per_second > 0 && p->tokens_per_second <= 1e6)) return config_fail(c, VLM_FORMAT, "position_id_per_seconds %g", p->tokens_per_second);
    if (!c->failed && out != d) return config_fail(c, VLM_FORMAT, "audio_config.output_dim %d, but the decoder's hidden_size is %d", out, d);
    m->takes |= TAKES_AUDIO;
    return whisper_config(&q->audio, &m->memory, c, m->processor, 2 * window, d);
}

static bool bind(vlm_model *m, binder *b)
{
    static const qwen_tower_names names = {
        .layer = {.norm1 = "norm1", .norm2 = "norm2", .q = "attn.q", .k = "attn.k", .v = "attn.v", .proj = "attn.proj", .gate = "mlp.gate_proj", .up = "mlp.up_proj",
         .down = "mlp.down_proj"},
        .norm = "ln_q", .up = "mlp.0", .down = "mlp.2",
    };
    omni *q = m->family;
    if (!decoder_bind(&q->vl.text, b)) return false;
    qwen_tower_bind(&names, &q->vl.tower, b);
    bind_prefix(b, "thinker.", "", "thinker.model.", "model.", NULL);
    whisper_bind(&q->audio, b, "audio_tower.ln_post", "audio_tower.proj");
    return !b->failed;
}

/* ---- media -------------------------------------------------------------------------------------------------------- */

/* The reference counts time by the asked rate (2 frames a second by default), whatever number of frames that came to; and it has a name of its own. */
static void tell_time(const qwen_vl_processor *p, const media_item *item, const json_t *options, media_input *out)
{
    const chat_media *part = item->part;
    double fps = part && part->fps > 0 ? part->fps : media_option(part, options, "fps", p->fps);
    bool counted = media_has_option(part, options, "num_frames") || media_has_option(part, options, "nframes");
    if (!counted && fps > 0) out->seconds_per_grid = p->patch.temporal / fps;
    for (int i = 0; i < out->n_tensors; i++)
        if (!strcmp(out->tensors[i].name, "second_per_grid_ts")) {
            out->tensors[i].name = "video_second_per_grid";
            *(float *)out->tensors[i].data = (float)out->seconds_per_grid;
        }
}

static bool process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    const omni *q = m->family;
    if (item->kind == MEDIA_AUDIO) return whisper_process(m, &q->audio, item, out, error);
    const qwen_vl_processor *p = &q->vl.processor;
    if (!qwen_vl_process(m, p, item, options, out, error)) return false;
    if (item->kind == MEDIA_VIDEO) tell_time(p, item, options, out);
    return true;
}

static int audio_rate(const vlm_model *m) { return ((const omni *)m->family)->audio.mel.rate; }

static int32_t media_token(const vlm_model *m, media_kind kind)
{
    return kind == MEDIA_AUDIO ? ((const omni *)m->family)->audio_token : qwen_vl_arch_media_token(m, kind);
}

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

/* Sound goes on by one on all axes, as text does. */
static bool positions(const vlm_model *m, const int32_t *id, int n, const media_span *spans, int n_spans, media_input *const *media, int32_t *const *axes,
                      int32_t *next, vlm_error *error)
{
    (void)id;
    media_span *seen = MEM_ARRAY((size_t)n_spans + 1, media_span);
    if (!seen) return err_memory(error, (size_t)n_spans * sizeof *seen);
    int count = 0;
    for (int s = 0; s < n_spans; s++)
        if (media[spans[s].media]->kind != MEDIA_AUDIO) seen[count++] = spans[s];
    bool ok = qwen_vl_positions(&((const omni *)m->family)->vl.processor, n, seen, count, media, axes, next, error);
    mem_free(seen);
    return ok;
}

static bool encode_start(run *r, const vlm_model *m, encode_job *job)
{
    return job->in->kind == MEDIA_AUDIO ? whisper_start(r, &((const omni *)m->family)->audio, job) : qwen_vl_arch_encode_start(r, m, job);
}

static bool encode(run *r, const vlm_model *m, encode_job *job)
{
    return job->in->kind == MEDIA_AUDIO ? whisper_encode(r, &((const omni *)m->family)->audio, job) : qwen_vl_arch_encode(r, m, job);
}

static const char *const types[] = {"qwen2_5_omni", "qwen2_5_omni_thinker", NULL};

const vlm_arch vlm_arch_qwen2_5_omni = {
    .name = "qwen2_5_omni",
    .title = "Qwen2.5-Omni (3B, 7B; the thinker)",
    .model_types = types,
    .rules = &media_rules_pixels,
    .task = TASK_GENERATE,
    .takes = TAKES_IMAGE | TAKES_VIDEO | TAKES_AUDIO,
    .configure = configure,
    .bind = bind,
    .process = process,
    .pick_frames = qwen_vl_arch_pick_frames,
    .frame_size = qwen_vl_arch_frame_size,
    .audio_rate = audio_rate,
    .placeholder = placeholder,
    .media_token = media_token,
    .expand = expand,
    .positions = positions,
    .encode_start = encode_start,
    .encode = encode,
    .forward = qwen_vl_arch_forward,
};
