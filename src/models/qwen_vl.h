/* qwen_vl.h - what the Qwen-VL families share: the processor for images and videos, choice of frames, placeholders, M-RoPE positions. */
#ifndef VLM_MODELS_QWEN_VL_H
#define VLM_MODELS_QWEN_VL_H

#include "blocks/patch.h"
#include "models/common.h"

typedef struct qwen_vl_limits { int64_t min_pixels, max_pixels; } qwen_vl_limits;

typedef struct qwen_vl_processor {
    patch_spec patch;
    qwen_vl_limits image, video;
    double fps;                    /* frames a second taken from a video */
    int min_frames, max_frames;
    int32_t image_token, video_token;
    double tokens_per_second;      /* time steps of M-RoPE; 0: a frame group is one step */
} qwen_vl_processor;

/* From preprocessor_config.json and its companions (`processor` may be NULL) and config.json. */
bool qwen_vl_configure(qwen_vl_processor *p, config *processor, config *c);

bool qwen_vl_process(const vlm_model *m, const qwen_vl_processor *p, const media_item *item, const json_t *options, media_input *out,
                     vlm_error *error);
bool qwen_vl_pick_frames(const qwen_vl_processor *p, const chat_media *part, const json_t *options, const video_info *info, int64_t **indices,
                         int *count, vlm_error *error);
const char *qwen_vl_placeholder(media_kind kind);
bool qwen_vl_expand(const media_input *in, buf *text, vlm_error *error);
/* Text counts on by one on all axes; a medium's tokens get (time, row, column) counted from where it starts; what follows continues at the
 * largest position so far + 1, as the models were trained. */
bool qwen_vl_positions(const qwen_vl_processor *p, int n, const media_span *spans, int n_spans, media_input *const *media, int32_t *const *axes,
                       int32_t *next, vlm_error *error);

#endif
