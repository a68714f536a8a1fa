/* mobilenet.h - MobileNet-V5, Gemma 3n's vision tower: convolutions, later with attention among them.  https://arxiv.org/abs/2404.10518 (V4, whose blocks these are)
 *
 *   picture [side, side, 3] -> 3x3 convolution, stride 2
 *   4 stages of blocks, each halves the sides:
 *     edge        3x3 convolution (widens) -> norm, gelu -> 1x1 -> norm                                                + x
 *     inverted    [depthwise -> norm] -> 1x1 (widens) -> norm, gelu -> [depthwise -> norm, gelu] -> 1x1 -> norm        + x
 *     attention   norm -> queries of all heads; one head of keys and values, which may come from a halved picture      + x
 *   fusion: the outputs of the last two stages at the size of the larger one, side by side -> inverted block -> means of squares: 16 x 16 -> norm
 *
 * A feature is a row, channels last. Norms are rms norms over a place's channels. A convolution of stride 2 pads behind ("same"). */
#ifndef VLM_BLOCKS_MOBILENET_H
#define VLM_BLOCKS_MOBILENET_H

#include "tensor/ops.h"
#include "weights/bind.h"
#include "weights/config.h"

enum { MOBILENET_FEATURES = 2048, MOBILENET_SIDE = 16, MOBILENET_MAX_BLOCKS = 96 };

typedef enum mobile_kind { MOBILE_EDGE, MOBILE_INVERTED, MOBILE_ATTENTION } mobile_kind;

typedef struct mobile_block {
    mobile_kind kind;
    int stage, index;              /* blocks.STAGE.INDEX */
    int in, middle, out, stride;
    int start, mid;                /* sides of depthwise kernels, 0: none */
    int heads, dim;
    weight expand, project;
    const float *expand_norm, *project_norm, *gamma;
    const float *start_taps, *start_norm, *mid_taps, *mid_norm;
    const float *norm, *key_taps, *key_norm, *value_taps, *value_norm;
    weight query, key, value;
} mobile_block;

typedef struct mobilenet {
    int side, stem, n_blocks;
    mobile_block block[MOBILENET_MAX_BLOCKS], fusion;
    weight stem_conv;
    const float *stem_bias, *stem_norm, *fusion_norm;
} mobilenet;

/* What is between two stages of a job: lives in the job's memory. */
typedef struct mobilenet_state { tensor x, kept; int height, kept_height; float *buffer; } mobilenet_state;

/* vision_config: architecture, model_args.channel_multiplier. side: of the pictures, in pixels. */
bool mobilenet_config(mobilenet *t, config *c, int side);
void mobilenet_bind(mobilenet *t, binder *b);
bool mobilenet_start(const mobilenet *t, mobilenet_state *s, arena *memory);
/* Stage 0: the picture [3][side][side]; then one for each block, then mobilenet_finish: [16 * 16, 2048]. */
void mobilenet_stem(run *r, const mobilenet *t, mobilenet_state *s, const float *pixels);
void mobilenet_run_block(run *r, const mobilenet *t, mobilenet_state *s, int i);
tensor mobilenet_finish(run *r, const mobilenet *t, mobilenet_state *s);
double mobilenet_flops(const mobilenet *t);

#endif
