/* qwen3_audio.h - the audio encoder of Qwen3-Omni: a transformer behind three convolutions.  https://arxiv.org/abs/2509.17765
 *
 *   log-mel [frames, 128] in chunks of 2 * n_window frames (1 s) -> 3 convolutions over time and frequency, stride 2, GELU -> linear [13, hidden]
 *   + sines and cosines, from 0 in each chunk -> layers, attention in windows of n_window_infer frames -> norm -> 2 products: a row for 80 ms
 *
 * The last chunk is filled up with zeros when there are others: the convolutions look behind its end. */
#ifndef VLM_MODELS_QWEN3_AUDIO_H
#define VLM_MODELS_QWEN3_AUDIO_H

#include "blocks/vit.h"
#include "media/mel.h"
#include "models/model.h"

typedef struct qwen3_audio {
    vit_spec vit;
    int layers, bins, channels, chunk, window, out;  /* chunk, window: in frames */
    float *table;                  /* [rows of a chunk, hidden] */
    vit_layer *layer;
    weight conv[3], conv_out, up, down;
    const float *conv_bias[3], *norm, *norm_bias, *up_bias, *down_bias;
    mel_spec mel;
} qwen3_audio;

/* audio_config; `out`: the decoder's hidden_size. */
bool qwen3_audio_config(qwen3_audio *a, arena *memory, config *c, config *processor, int out);
void qwen3_audio_bind(qwen3_audio *a, binder *b);          /* audio_tower.* below the current prefix */
bool qwen3_audio_process(const vlm_model *m, const qwen3_audio *a, const media_item *item, media_input *out, vlm_error *error);
/* vlm_arch.encode_start and encode. */
bool qwen3_audio_start(run *r, const qwen3_audio *a, encode_job *job);
bool qwen3_audio_encode(run *r, const qwen3_audio *a, encode_job *job);

#endif
