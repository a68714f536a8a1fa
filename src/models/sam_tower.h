/* sam_tower.h - SAM's vision encoder with two further convolutions: GOT-OCR, DeepSeek-OCR.  https://arxiv.org/abs/2304.02643
 *
 *   square picture -> patches -> product + table of positions [resampled, bicubic] -> layers -> 1 x 1 and 3 x 3 convolution, a norm behind each
 *                  -> two convolutions of stride 2: a sixteenth of the patches
 *   layer: attention inside windows of 14 x 14 (some layers: the whole picture) with relative positions, MLP
 *
 * Scores are q.k / sqrt(D) + q.h[y distance] + q.w[x distance]: rows and columns have tables of their own. Written as one product of longer vectors,
 *   q' = [q / sqrt(D), q.h[y - 0], q.h[y - 1] ..., q.w[x - 0] ...],  k' = [k, one at its row, one at its column],
 * so that attention is attention, and nothing of the size patches x patches is ever made.
 *
 * Bites: windows at the right and lower edge are filled up with zeros (behind the norm), and these are attended to: their keys and values are the biases. */
#ifndef VLM_MODELS_SAM_TOWER_H
#define VLM_MODELS_SAM_TOWER_H

#include "models/model.h"

enum { SAM_MOST_LAYERS = 64 };

/* Names as transformers has them, or as the model was published. */
typedef struct sam_names { const char *layers, *norm1, *norm2, *embed, *neck1, *neck_norm1, *neck2, *neck_norm2; } sam_names;
extern const sam_names sam_names_tf, sam_names_hub;

typedef struct sam_layer {
    bool whole;                    /* attention over the whole picture */
    const float *norm1, *norm1_bias, *norm2, *norm2_bias, *qkv_bias, *proj_bias, *up_bias, *down_bias;
    const float *rel_rows, *rel_columns;                       /* [2 * side - 1, head_dim], farthest below first: as published; NULL: none */
    weight qkv, proj, up, down;
} sam_layer;

typedef struct sam_tower {
    int hidden, heads, head_dim, ffn, layers, patch, side, window, neck, down[2];  /* side: of the table, in patches; down: channels */
    bool qkv_bias, table_used, relative;
    float eps;
    activation act;
    sam_layer layer[SAM_MOST_LAYERS];
    weight embed, neck1, neck2, conv[2];
    const float *embed_bias, *table, *neck_norm1, *neck_bias1, *neck_norm2, *neck_bias2;
} sam_tower;

/* Reads the members of `where` ("vision_config."). down[0], down[1] are the caller's. */
bool sam_tower_config(sam_tower *t, config *c, const char *where);
/* Below the binder's prefix. */
void sam_tower_bind(sam_tower *t, binder *b, const sam_names *n);
void sam_tower_bind_down(sam_tower *t, binder *b, const char *conv1, const char *conv2);

typedef struct sam_picture { const float *pixels; int side; } sam_picture;               /* [3][side][side], side a multiple of the patch */
/* Rows of features that a picture becomes, on a side. */
int sam_tower_side(const sam_tower *t, int side);
/* For vlm_arch.encode_start: sets job->x, stages, cost. */
bool sam_tower_start(run *r, const sam_tower *t, encode_job *job, const sam_picture *pictures, int n);
/* A stage, while job->stage < t->layers. */
bool sam_tower_encode(run *r, const sam_tower *t, encode_job *job);
/* Afterwards: features [sam_tower_side^2, down[1]] of picture i (in scratch). */
tensor sam_tower_features(run *r, const sam_tower *t, const encode_job *job, int i);

#endif
