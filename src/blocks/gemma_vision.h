/* gemma_vision.h - Gemma 4's vision tower: a transformer over the patches of one image, pooled 3 x 3 to soft tokens.
 *
 *   patches [n, 3 p p] in 0..1 -> 2 x - 1 -> input_proj + table_x[x] + table_y[y]
 *   each layer: x += norm(o(attention(rope(norm_q(q)), rope(norm_k(k)), norm_1(v))))      scale 1, all patches of an image
 *               x += norm(down(act(gate h) * up h))
 *   average over k x k patches * sqrt(hidden) -> [(x - std_bias) * std_scale]
 *   -> / rms -> embedding_projection: rows of the decoder
 *
 * Rope is axial: the first half of a head turns with x, the second with y. Padding patches never enter: masked keys and dropped
 * rows are the same as no rows. Several images of one size (the frames of a video) go through together, as segments. */
#ifndef VLM_BLOCKS_GEMMA_VISION_H
#define VLM_BLOCKS_GEMMA_VISION_H

#include "blocks/clipped.h"
#include "weights/config.h"

typedef struct gemma_vision_layer {
    const float *norm1, *post1, *norm2, *post2, *q_norm, *k_norm;
    clipped_linear q, k, v, o, gate, up, down;
} gemma_vision_layer;

typedef struct gemma_vision {
    int hidden, ffn, layers, heads, kv_heads, head_dim, patch, pool, positions;
    float eps;
    double theta;
    activation act;
    bool clipped, standardize;
    gemma_vision_layer *layer;
    weight input, table;                           /* table: [2 * positions, hidden], x rows first */
    const float *input_bias;                       /* -rowsum(input) / 2: folds 2 x - 1 into the product */
    const float *std_bias, *std_scale;
    weight project;                                /* embed_vision: [text hidden, hidden] */
    int rows_hidden;
} gemma_vision;

/* Reads "vision_config." of the config. */
bool gemma_vision_config(gemma_vision *v, arena *memory, config *c, int text_hidden);
/* Names below `prefix` alternatives that the caller has set: vision_tower..., embed_vision... */
void gemma_vision_bind(gemma_vision *v, binder *b);

/* Positions of a grid of width x height patches, the same for each of `images`; memory of the caller's arena. */
typedef struct gemma_vision_grid {
    int width, height, images;
    int32_t *x_ids, *y_ids;                        /* [images * width * height] rows of the table */
    int32_t *pool_to;                              /* [images * width * height] pooled row of each patch */
    int32_t *starts;                               /* [images + 1] */
    tensor cosine, sine;                           /* [images * width * height, head_dim / 2] */
} gemma_vision_grid;
bool gemma_vision_grid_init(const gemma_vision *v, gemma_vision_grid *g, arena *memory, int width, int height, int images);

/* x [patches, hidden] from pixels [patches, 3 p p]; x is written whole. */
void gemma_vision_embed(run *r, const gemma_vision *v, const gemma_vision_grid *g, tensor pixels, tensor x);
void gemma_vision_run_layer(run *r, const gemma_vision *v, const gemma_vision_grid *g, int layer, tensor x);
/* out [patches / pool^2, text hidden] */
void gemma_vision_finish(run *r, const gemma_vision *v, const gemma_vision_grid *g, tensor x, tensor out);
double gemma_vision_layer_flops(const gemma_vision *v, int64_t patches, int64_t segment);

#endif
