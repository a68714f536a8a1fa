/* phi4_audio.h - the speech encoder of Phi-4-multimodal: a conformer with full attention.  https://arxiv.org/abs/2503.01743
 *
 *   log-mel [frames, 80] -> (x - mean) * invstd -> 3 convolutions of stride 2 (the last two depthwise, then 1x1), relu -> linear: a row for 80 ms
 *   each layer: x += 1/2 ffn(x);  x += attention(norm x);  x += convolution(x);  x += 1/2 ffn(x);  x = norm x
 *
 * Attention's scores have a bias for each head and distance. Rows go through the layers in segments of 500, the last filled up with zeros (when there are
 * several), which are seen, too: as the model was published. */
#ifndef VLM_MODELS_PHI4_AUDIO_H
#define VLM_MODELS_PHI4_AUDIO_H

#include "media/mel.h"
#include "models/model.h"

enum { PHI4_SEGMENT = 500, PHI4_MAX_CONVS = 6 };

typedef struct phi4_ffn { const float *norm, *norm_bias, *in_bias, *out_bias; weight in, out; } phi4_ffn;

typedef struct phi4_audio_layer {
    phi4_ffn ffn1, ffn2;
    const float *norm_att, *norm_att_bias, *norm, *norm_bias;
    weight q, k, v, o;
    const float *q_bias, *k_bias, *v_bias, *o_bias;
    const float *conv_norm, *conv_norm_bias, *glu_bias, *taps, *taps_bias, *point_bias, *last_bias;
    weight glu, point, last;
} phi4_audio_layer;

typedef struct phi4_audio {
    int hidden, ffn, layers, heads, kernel, widened, channels, bins, convs, final, most;
    activation act, conv_act, glu_act, first_act;
    bool symmetric;
    const struct phi4_names *names;
    phi4_audio_layer *layer;
    const float *mean, *invstd, *bias;             /* bias [buckets][heads] */
    weight conv, point[PHI4_MAX_CONVS], out;
    const float *conv_bias, *taps[PHI4_MAX_CONVS], *taps_bias[PHI4_MAX_CONVS], *point_bias[PHI4_MAX_CONVS], *out_bias;
    mel_spec mel;
} phi4_audio;

/* published: names as in the checkpoint that the authors published (phi4mm), else transformers'. */
bool phi4_audio_config(phi4_audio *a, arena *memory, config *c, config *processor, bool published);
void phi4_audio_bind(phi4_audio *a, binder *b);
int64_t phi4_audio_rows(const phi4_audio *a, int64_t frames);
/* Rows of x: whole segments when there are several. */
int64_t phi4_audio_room(const phi4_audio *a, int64_t frames);
void phi4_audio_embed(run *r, const phi4_audio *a, tensor features, tensor x);
void phi4_audio_run_layer(run *r, const phi4_audio *a, int layer, tensor x);

#endif
