/* gemma4.h - what the parts of the Gemma 4 family share: gemma4.c (config, weights, forward), gemma4_media.c (processors),
 * gemma4_encode.c (media -> rows). */
#ifndef VLM_MODELS_GEMMA4_H
#define VLM_MODELS_GEMMA4_H

#include "blocks/audio_encoder.h"
#include "blocks/decoder.h"
#include "blocks/gemma_vision.h"
#include "models/gemma_sound.h"
#include "models/model.h"

/* How images (or frames) become patches. */
typedef struct gemma4_image_settings {
    int patch, pool, soft_tokens;
    resize_filter filter;
    float level[3][256];           /* channel value 0..255 -> what the tower gets */
    int num_frames;                /* video: frames sampled evenly; 0: by fps, or all */
    double fps;
} gemma4_image_settings;

/* gemma4_unified: no towers; pixels of pool x pool patches are projected at once, audio is raw samples. */
typedef struct gemma4_embedder {
    int width, positions;          /* width: mm_embed_dim */
    float eps;
    const float *norm1, *norm1_bias, *norm2, *norm2_bias, *norm3, *norm3_bias, *dense_bias;
    weight dense, table, project;  /* table: [positions][2, width] */
    int frame;                     /* audio: samples of a token */
    float audio_eps;
    weight audio_project;
} gemma4_embedder;

typedef struct gemma4 {
    decoder decoder;
    bool unified;
    gemma_vision vision;
    audio_encoder audio;
    gemma4_embedder embedder;
    gemma4_image_settings image, video;
    gemma_sound sound;
} gemma4;

/* Largest size of the same shape with at most max_patches patches, sides multiples of pool * patch. */
bool gemma4_size(int width, int height, int patch, int max_patches, int pool, int *out_width, int *out_height, vlm_error *error);
bool gemma4_media_configure(vlm_model *m, gemma4 *g);

bool gemma4_process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error);
bool gemma4_frame_size(const vlm_model *m, const media_item *item, const json_t *options, int *width, int *height, resize_filter *filter, vlm_error *error);
bool gemma4_pick_frames(const vlm_model *m, const chat_media *part, const json_t *options, const video_info *info, int64_t **indices,
                        int *count, vlm_error *error);
int gemma4_audio_rate(const vlm_model *m);
const char *gemma4_placeholder(const vlm_model *m, media_kind kind);
int32_t gemma4_media_token(const vlm_model *m, media_kind kind);
bool gemma4_expand(const vlm_model *m, const media_input *in, buf *text, vlm_error *error);

bool gemma4_embedder_config(gemma4 *g, config *c);
void gemma4_embedder_bind(gemma4 *g, const vlm_model *m, binder *b);
bool gemma4_encode_start(run *r, const vlm_model *m, encode_job *job);
bool gemma4_encode(run *r, const vlm_model *m, encode_job *job);

#endif
