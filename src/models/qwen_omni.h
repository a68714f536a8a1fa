/* qwen_omni.h - what the thinkers of Qwen2.5-Omni and Qwen3-Omni share: pictures and videos as a Qwen-VL model's, sound beside them. */
#ifndef VLM_MODELS_QWEN_OMNI_H
#define VLM_MODELS_QWEN_OMNI_H

#include "models/qwen3_audio.h"
#include "models/qwen_vl.h"
#include "models/whisper_tower.h"

typedef struct qwen_omni {
    qwen_vl vl;                    /* first: qwen_vl_arch_* look for it */
    bool third;                    /* Qwen3-Omni: `audio`; else `whisper` */
    whisper_tower whisper;
    qwen3_audio audio;
    double fps;                    /* at which time is counted when no rate is asked for */
    int32_t audio_token;
} qwen_omni;

/* The members of thinker_config become members of the whole: all that follows reads as in other families. */
bool qwen_omni_lift(config *c);
/* Ids of placeholders, and how many steps of time a second has (`steps` by default). */
bool qwen_omni_tokens(qwen_omni *q, config *c, double steps);

bool qwen_omni_process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error);
int qwen_omni_audio_rate(const vlm_model *m);
int32_t qwen_omni_media_token(const vlm_model *m, media_kind kind);
const char *qwen_omni_placeholder(const vlm_model *m, media_kind kind);
bool qwen_omni_expand(const vlm_model *m, const media_input *in, buf *text, vlm_error *error);
/* Sound goes on by one on all axes, as text does. */
bool qwen_omni_positions(const vlm_model *m, const int32_t *id, int n, const media_span *spans, int n_spans, media_input *const *media,
                         int32_t *const *axes, int32_t *next, vlm_error *error);
bool qwen_omni_encode_start(run *r, const vlm_model *m, encode_job *job);
bool qwen_omni_encode(run *r, const vlm_model *m, encode_job *job);

#define QWEN_OMNI_ARCH \
    .rules = &media_rules_pixels, .task = TASK_GENERATE, .takes = TAKES_IMAGE | TAKES_VIDEO | TAKES_AUDIO, .process = qwen_omni_process, \
    .pick_frames = qwen_vl_arch_pick_frames, .frame_size = qwen_vl_arch_frame_size, .audio_rate = qwen_omni_audio_rate, .placeholder = qwen_omni_placeholder, \
    .media_token = qwen_omni_media_token, .expand = qwen_omni_expand, .positions = qwen_omni_positions, .encode_start = qwen_omni_encode_start, \
    .encode = qwen_omni_encode, .forward = qwen_vl_arch_forward

#endif
