/* whisper_tower.h - Whisper's audio encoder as Qwen's audio models have it, and its feature extractor.
 *
 *   samples, cut or padded to a window -> log-mel [bins][frames], a frame every 10 ms -> convolution over 3 frames, GELU -> over 3, every second,
 *   GELU -> + table of positions -> layers -> two rows averaged -> layer norm -> linear: a row of the decoder for 40 ms
 *
 *                   Qwen2-Audio                               Qwen2.5-Omni
 *   window          30 s, one segment                         300 s, in segments of `chunk` frames that know nothing of each other
 *   positions       in the file                               sines and cosines, from 0 in each segment
 *   behind the end  the padding's frames (the convolutions    zeros
 *                   look one or two frames too far)
 *
 * Only rows of real sound are computed: the reference masks the others out. */
#ifndef VLM_MODELS_WHISPER_TOWER_H
#define VLM_MODELS_WHISPER_TOWER_H

#include "blocks/vit.h"
#include "media/mel.h"
#include "models/model.h"

typedef struct whisper_tower {
    vit_spec vit;
    int layers, positions, out;
    int chunk;                     /* frames of a segment; 0: one segment, positions in the file */
    mel_spec mel;
    int64_t samples, frames;       /* of a window */

    weight conv[2], project;
    const float *conv_bias[2], *table, *norm, *norm_bias, *project_bias;   /* table [positions, hidden] */
    vit_layer *layer;
} whisper_tower;

/* From audio_config and the processor's feature_extractor. `chunk`: see above; out: the decoder's hidden_size. */
bool whisper_config(whisper_tower *t, arena *memory, config *c, config *processor, int chunk, int out);
/* audio_tower.* below the current prefix; `norm`, `project`: names of what follows the layers. */
void whisper_bind(whisper_tower *t, binder *b, const char *norm, const char *project);

bool whisper_process(const vlm_model *m, const whisper_tower *t, const media_item *item, media_input *out, vlm_error *error);

/* vlm_arch.encode_start and encode. */
bool whisper_start(run *r, const whisper_tower *t, encode_job *job);
bool whisper_encode(run *r, const whisper_tower *t, encode_job *job);

#endif
