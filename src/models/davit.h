/* davit.h - Dual Attention Vision Transformer: https://arxiv.org/abs/2204.03645
 *
 *   pixels -> for each of some stages: convolution with a stride (norm before or behind), then blocks
 *   a block, twice:  x += depthwise 3x3 (x);  x += attention(norm x);  x += depthwise 3x3 (x);  x += down(act(up(norm x)))
 *     first   attention between the pixels of a window, heads side by side
 *     second  attention between channels of a group: scores are sums over all pixels, scaled by 1 / sqrt(their number)
 *
 * Rows are pixels, row by row. Windows at the edges are filled up with zeros behind the norm: what the biases make of them takes part. */
#ifndef VLM_MODELS_DAVIT_H
#define VLM_MODELS_DAVIT_H

#include "blocks/decoder.h"
#include "models/model.h"

enum { DAVIT_STAGES = 8 };

typedef struct davit_half {
    const float *conv1, *conv1_bias, *conv2, *conv2_bias;      /* kernels [3 * 3][channels] */
    const float *norm1, *norm1_bias, *norm2, *norm2_bias, *qkv_bias, *proj_bias, *up_bias, *down_bias;
    weight qkv, proj, up, down;
} davit_half;

typedef struct davit_block { davit_half spatial, channel; } davit_block;

typedef struct davit_stage {
    int depth, width, heads, groups, kernel, stride, padding, ffn;
    bool norm_first;
    weight conv;
    const float *conv_bias, *norm, *norm_bias;
    davit_block *block;
} davit_stage;

typedef struct davit {
    int stages, window, blocks;
    activation act;
    davit_stage stage[DAVIT_STAGES];
} davit;

/* vision_config, in either spelling (embed_dim or dim_embed). */
bool davit_config(davit *t, arena *memory, config *c);
/* Below the current prefix, vision_tower.; published: names as their first authors have them. */
void davit_bind(davit *t, binder *b, bool published);
/* Sides of the features of a picture. False: it is too small. */
bool davit_size(const davit *t, int *height, int *width);

/* For vlm_arch: pixels [3][height][width]. After the last stage job->x holds the features [height * width, the last width]. */
bool davit_start(run *r, const davit *t, encode_job *job, int height, int width);
bool davit_encode(run *r, const davit *t, encode_job *job, const float *pixels);

#endif
