/* qwen_omni.c - see qwen_omni.h. */
#include "models/qwen_omni.h"

#include <string.h>

#include "base/err.h"

/* The members of thinker_config become members of the whole: all that follows reads as in other families. */
bool qwen_omni_lift(config *c)
{
    json_t *thinker = json_object_get(c->root, "thinker_config");
    if (!thinker) return true;
    if (!json_is_object(thinker)) return config_fail(c, VLM_FORMAT, "thinker_config: an object was expected");
    return json_object_update_missing(c->root, thinker) == 0 || config_fail(c, VLM_MEMORY, "out of memory");
}

bool qwen_omni_tokens(qwen_omni *q, config *c, double steps)
{
    qwen_vl_processor *p = &q->vl.processor;
    p->tokens_per_second = config_number(c, "position_id_per_seconds", steps);
    p->image_token = (int32_t)config_int(c, "image_token_index|image_token_id", 151655, 0, INT32_MAX);
    p->video_token = (int32_t)config_int(c, "video_token_index|video_token_id", 151656, 0, INT32_MAX);
    q->audio_token = (int32_t)config_int(c, "audio_token_index|audio_token_id", 151646, 0, INT32_MAX);
    if (!c->failed && !(p->tokens_per_second > 0 && p->tokens_per_second <= 1e6)) return config_fail(c, VLM_FORMAT, "position_id_per_seconds %g", p->tokens_per_second);
    return !c->failed;
}

/* ---- media -------------------------------------------------------------------------------------------------------- */

/* The references count time by the asked rate, else by one of their own, whatever number of frames that came to; and it has a name of its own. */
static void tell_time(const qwen_omni *q, const media_item *item, const json_t *options, media_input *out)
{
    const qwen_vl_processor *p = &q->vl.processor;
    const chat_media *part = item->part;
    double fps = part && part->fps > 0 ? part->fps : media_option(part, options, "fps", q->fps);
    bool counted = media_has_option(part, options, "num_frames") || media_has_option(part, options, "nframes");
    if (!counted && fps > 0) out->seconds_per_grid = p->patch.temporal / fps;
    for (int i = 0; i < out->n_tensors; i++)
        if (!strcmp(out->tensors[i].name, "second_per_grid_ts")) {
            out->tensors[i].name = "video_second_per_grid";
            *(float *)out->tensors[i].data = (float)out->seconds_per_grid;
        }
}

bool qwen_omni_process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    const qwen_omni *q = m->family;
    if (item->kind == MEDIA_AUDIO && q->third) return qwen3_audio_process(m, &q->audio, item, out, error);
    if (item->kind == MEDIA_AUDIO) return whisper_process(m, &q->whisper, item, out, error);
    const qwen_vl_processor *p = &q->vl.processor;
    if (!qwen_vl_process(m, p, item, options, out, error)) return false;
    if (item->kind == MEDIA_VIDEO) tell_time(q, item, options, out);
    return true;
}

int qwen_omni_audio_rate(const vlm_model *m)
{
    const qwen_omni *q = m->family;
    return q->third ? q->audio.mel.rate : q->whisper.mel.rate;
}

int32_t qwen_omni_media_token(const vlm_model *m, media_kind kind)
{
    return kind == MEDIA_AUDIO ? ((const qwen_omni *)m->family)->audio_token : qwen_vl_arch_media_token(m, kind);
}

const char *qwen_omni_placeholder(const vlm_model *m, media_kind kind)
{
    int32_t id = qwen_omni_media_token(m, kind);
    return id >= 0 && m->tok ? tokenizer_token(m->tok, id) : NULL;
}

bool qwen_omni_expand(const vlm_model *m, const media_input *in, buf *text, vlm_error *error)
{
    const char *token = qwen_omni_placeholder(m, in->kind);
    for (int i = 0; token && i < in->tokens; i++) buf_adds(text, token);
    return !text->failed || err_memory(error, text->size);
}

/* Sound goes on by one on all axes, as text does. */
bool qwen_omni_positions(const vlm_model *m, const int32_t *id, int n, const media_span *spans, int n_spans, media_input *const *media, int32_t *const *axes,
                      int32_t *next, vlm_error *error)
{
    (void)id;
    media_span *seen = MEM_ARRAY((size_t)n_spans + 1, media_span);
    if (!seen) return err_memory(error, (size_t)n_spans * sizeof *seen);
    int count = 0;
    for (int s = 0; s < n_spans; s++)
        if (media[spans[s].media]->kind != MEDIA_AUDIO) seen[count++] = spans[s];
    bool ok = qwen_vl_positions(&((const qwen_omni *)m->family)->vl.processor, n, seen, count, media, axes, next, error);
    mem_free(seen);
    return ok;
}

bool qwen_omni_encode_start(run *r, const vlm_model *m, encode_job *job)
{
    const qwen_omni *q = m->family;
    if (job->in->kind != MEDIA_AUDIO) return qwen_vl_arch_encode_start(r, m, job);
    return q->third ? qwen3_audio_start(r, &q->audio, job) : whisper_start(r, &q->whisper, job);
}

bool qwen_omni_encode(run *r, const vlm_model *m, encode_job *job)
{
    const qwen_omni *q = m->family;
    if (job->in->kind != MEDIA_AUDIO) return qwen_vl_arch_encode(r, m, job);
    return q->third ? qwen3_audio_encode(r, &q->audio, job) : whisper_encode(r, &q->whisper, job);
}
