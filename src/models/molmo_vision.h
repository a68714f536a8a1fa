/* molmo_vision.h - what Molmo and Molmo 2 share: crops that overlap, and the connector that pools features by attention.
 *
 *   canvas of down x across windows; a crop is a window and its margins, so neighbours overlap; of what two crops show, each shows half for good */
#ifndef VLM_MODELS_MOLMO_VISION_H
#define VLM_MODELS_MOLMO_VISION_H

#include "models/tower_lm.h"

typedef struct molmo_crops { int side, patch, left, right, window, most; } molmo_crops;         /* margins in patches, window in pixels */
/* overlap_margins, max_crops below `where`. */
bool molmo_crops_config(molmo_crops *c, config *processor, const char *where, int side, int patch, int most);

/* Windows, and the canvas in patches. */
typedef struct molmo_layout { int down, across, rows, columns; } molmo_layout;
void molmo_lay_out(const molmo_crops *c, int most, int height, int width, molmo_layout *l);

/* Pixels as patches with channels last, [patches][patch][patch][3]: the picture squeezed to side x side; the crops of a canvas it is squeezed to. */
void molmo_patches(const picture_norm *n, const image *canvas, int y, int x, int side, int patch, float *out);
bool molmo_squeezed(const picture_norm *n, const image *img, int side, int patch, float *out, vlm_error *error);
bool molmo_cut(const molmo_crops *c, const picture_norm *n, const image *img, const molmo_layout *l, float *out, vlm_error *error);

/* What is pooled together: for each of the windows of height x width in a grid, rows of features, -1 where the window reaches over the edge.
 * Of across x across features from row `first` on; of the canvas, whose crops' features lie behind those of one more crop. */
void molmo_pool_whole(int across, int height, int width, int64_t first, int64_t *places);
bool molmo_pool_canvas(const molmo_crops *c, const molmo_layout *l, int height, int width, int64_t *places, vlm_error *error);

/* ---- connector ---- */
typedef struct molmo_pooling {
    attention_spec attention;
    int inputs, hidden, ffn;
    activation act;
    weight q, k, v, o, gate, up, down;
    const float *q_bias, *k_bias, *v_bias, *o_bias, *gate_bias, *up_bias;
} molmo_pooling;
/* image_pooling_2d.wq ..., image_projector.w1 (gate), w2 (down), w3 (up). */
void molmo_pooling_bind(molmo_pooling *w, binder *b, int64_t outputs);
/* x: features [rows, inputs]; places [tokens][size]. Each token's mean looks at the features that it is the mean of. [tokens, outputs]. */
tensor molmo_pool(run *r, const molmo_pooling *w, tensor x, const int64_t *places, int tokens, int size);

/* x += the embedding of `id`: rows are added to their tokens' embeddings. */
void molmo_add_embedding(run *r, const decoder *d, int32_t id, tensor x);

/* All crops of p [crops, patches, values] through the tower. */
bool molmo_encode_start(run *r, const image_tower *t, encode_job *job, const processed *p);

#endif
