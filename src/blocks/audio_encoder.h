/* audio_encoder.h - the audio tower of Gemma 3n and 4: a conformer over log-mel frames (the Universal Speech Model's shape, arXiv 2303.01037).
 *
 *   mel [frames, 128] -> 2 x (conv 3x3 stride 2, layer norm over channels, relu) -> linear: a row for 4 frames
 *   each layer: x += 1/2 ffn(x);  x += norm(local attention(norm x));  x += light convolution(x);  x += 1/2 ffn(x);  x = norm x
 *   -> output_proj -> / rms -> embedding_projection: rows of the decoder
 *
 *                  convolutions' norm                          padded in time   reach of attention                     keys          linears    output_proj
 *   Gemma 4        each place by itself                        both sides       context_left - 2, context_right - 1    scaled, too   clipped    yes
 *   Gemma 3n       over all before it, of all frequencies      behind           context_left - 1, context_right        as they are   -          no
 *
 * Attention is local: a row sees the rows i - left .. i + right. Gemma 4's reference computes it in chunks of attention_chunk_size, whose
 * context reaches a little farther than its mask; its relative positions are counted so that a distance without an encoding gets none (zero row in
 * `relative`). Frames beyond the end of the audio (padding) never enter: the convolutions pad with the same zeros. */
#ifndef VLM_BLOCKS_AUDIO_ENCODER_H
#define VLM_BLOCKS_AUDIO_ENCODER_H

#include "blocks/clipped.h"
#include "weights/config.h"

typedef struct audio_ffn {
    const float *pre_norm, *post_norm;
    clipped_linear up, down;
} audio_ffn;

typedef struct audio_layer {
    audio_ffn ffn1, ffn2;
    const float *norm_pre_attn, *norm_post_attn, *norm_out, *conv_pre_norm, *conv_norm, *conv;
    const float *q_columns;                        /* [hidden] softplus(per_dim_scale), repeated for each head */
    clipped_linear q, k, v, post, conv_start, conv_end;
    weight relative_k;
} audio_layer;

typedef struct audio_encoder {
    int hidden, layers, heads, head_dim, kernel, mel, channels[2], output;
    int left, right;                               /* reach of attention */
    float eps, softcap, residual, bound, q_scale, k_scale;
    activation act;
    bool clipped;
    const struct audio_names *names;
    float group_eps;               /* > 0: the convolutions' norm is over all that came before (Gemma 3n) */
    audio_layer *layer;
    float *relative;                               /* [left + right + 1, hidden] position encodings, distance -right first */
    weight conv[2], input, output_proj, project;
    const float *conv_norm[2], *output_bias;
    int rows_hidden;
} audio_encoder;

/* Reads "audio_config."; mel: bins of the features. */
bool audio_encoder_config(audio_encoder *a, arena *memory, config *c, int mel, int text_hidden);
/* Gemma 3n's spelling, and its tower. What comes after the layers is the family's. */
bool audio_encoder_config_3n(audio_encoder *a, arena *memory, config *c, int mel);
void audio_encoder_bind(audio_encoder *a, binder *b);
/* Rows for `frames` frames of mel features. */
int64_t audio_encoder_rows(int64_t frames);

/* x [audio_encoder_rows(frames), hidden] is written whole; features [frames, mel]. */
void audio_encoder_embed(run *r, const audio_encoder *a, tensor features, tensor x);
void audio_encoder_run_layer(run *r, const audio_encoder *a, int layer, tensor x);
void audio_encoder_finish(run *r, const audio_encoder *a, tensor x, tensor out);
double audio_encoder_layer_flops(const audio_encoder *a, int64_t rows);

#endif
