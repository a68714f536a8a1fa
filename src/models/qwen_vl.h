/* qwen_vl.h - what the Qwen-VL families share: the processor for images and videos, choice of frames, placeholders, M-RoPE positions; and
 * struct qwen_vl, a decoder with such a processor and a tower (qwen_tower.h), which is the whole of most of them. */
#ifndef VLM_MODELS_QWEN_VL_H
#define VLM_MODELS_QWEN_VL_H

#include "blocks/patch.h"
#include "models/common.h"
#include "models/qwen_tower.h"

typedef struct qwen_vl_limits { int64_t min_pixels, max_pixels; } qwen_vl_limits;

typedef struct qwen_vl_processor {
    patch_spec patch;
    qwen_vl_limits image, video;
    double fps;                    /* frames a second taken from a video */
    int min_frames, max_frames;
    int32_t image_token, video_token;
    double tokens_per_second;      /* time steps of M-RoPE; 0: a frame group is one step */
    bool timestamps;               /* Qwen3-VL: each frame group stands alone in the prompt, after its time; limits are of the whole video */
    bool image_is_group;           /* GLM: ... and of an image as if it were a whole group of frames */
    bool enlarge_thin;             /* PaddleOCR-VL: sides below a token's are enlarged first */
    bool first_times;              /* GLM: a group's time is its first frame's, not the middle */
} qwen_vl_processor;

/* From preprocessor_config.json and its companions (`processor` may be NULL) and config.json. */
bool qwen_vl_configure(qwen_vl_processor *p, config *processor, config *c);

bool qwen_vl_process(const vlm_model *m, const qwen_vl_processor *p, const media_item *item, const json_t *options, media_input *out,
                     vlm_error *error);
bool qwen_vl_frame_size(const vlm_model *m, const qwen_vl_processor *p, const media_item *item, const json_t *options, int *width, int *height,
                        resize_filter *filter, vlm_error *error);
bool qwen_vl_pick_frames(const qwen_vl_processor *p, const chat_media *part, const json_t *options, const video_info *info, int64_t **indices,
                         int *count, vlm_error *error);
const char *qwen_vl_placeholder(const qwen_vl_processor *p, media_kind kind);
bool qwen_vl_expand(const qwen_vl_processor *p, const media_input *in, buf *text, vlm_error *error);
/* Text counts on by one on all axes; a medium's tokens get (time, row, column) counted from where it starts; what follows continues at the
 * largest position so far + 1, as the models were trained. */
bool qwen_vl_positions(const qwen_vl_processor *p, int n, const media_span *spans, int n_spans, media_input *const *media, int32_t *const *axes,
                       int32_t *next, vlm_error *error);

/* ---- decoder, processor and tower together ---- */

typedef struct qwen_vl {
    decoder text;
    qwen_vl_processor processor;
    qwen_tower tower;
} qwen_vl;

/* After the decoder's spec and the processor are there: decoder_plan, qwen_tower_plan, and what the engine needs to know. */
bool qwen_vl_plan(qwen_vl *q, vlm_model *m, config *c);

/* Tower as Qwen2.5-VL and Qwen2.5-Omni have it; q->processor is there. */
bool qwen2_5_vl_configure_vision(qwen_vl *q, vlm_model *m, config *c);
/* Tower and processor as Qwen3-VL and Qwen3.5 have them. */
bool qwen3_vl_configure(qwen_vl *q, config *processor, config *c);
extern const qwen_tower_names qwen3_vl_tower_names;

bool qwen_vl_arch_process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error);
bool qwen_vl_arch_frame_size(const vlm_model *m, const media_item *item, const json_t *options, int *width, int *height, resize_filter *filter,
                             vlm_error *error);
bool qwen_vl_arch_pick_frames(const vlm_model *m, const chat_media *part, const json_t *options, const video_info *info, int64_t **indices, int *count,
                              vlm_error *error);
const char *qwen_vl_arch_placeholder(const vlm_model *m, media_kind kind);
int32_t qwen_vl_arch_media_token(const vlm_model *m, media_kind kind);
bool qwen_vl_arch_expand(const vlm_model *m, const media_input *in, buf *text, vlm_error *error);
bool qwen_vl_arch_positions(const vlm_model *m, const int32_t *id, int n, const media_span *spans, int n_spans, media_input *const *media,
                            int32_t *const *axes, int32_t *next, vlm_error *error);
bool qwen_vl_arch_encode_start(run *r, const vlm_model *m, encode_job *job);
bool qwen_vl_arch_encode(run *r, const vlm_model *m, encode_job *job);
tensor qwen_vl_arch_forward(run *r, const vlm_model *m, const batch *b);

/* The members of a vlm_arch that are alike in families whose m->family is a qwen_vl. */
#define QWEN_VL_ARCH \
    .task = TASK_GENERATE, .takes = TAKES_IMAGE | TAKES_VIDEO, .process = qwen_vl_arch_process, .pick_frames = qwen_vl_arch_pick_frames, .frame_size = qwen_vl_arch_frame_size, \
    .placeholder = qwen_vl_arch_placeholder, .media_token = qwen_vl_arch_media_token, .expand = qwen_vl_arch_expand, \
    .positions = qwen_vl_arch_positions, .encode_start = qwen_vl_arch_encode_start, .encode = qwen_vl_arch_encode, .forward = qwen_vl_arch_forward

#endif
