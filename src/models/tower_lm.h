/* tower_lm.h - what families of "a tower, a connector, some language model" share: LLaVA and its kin. A family's struct begins with a tower_lm. */
#ifndef VLM_MODELS_TOWER_LM_H
#define VLM_MODELS_TOWER_LM_H

#include "models/image_tower.h"
#include "models/picture.h"
#include "models/text.h"

typedef struct tower_lm {
    decoder text;
    image_tower tower;
    picture_norm norm;
    int32_t image_token, video_token;                                      /* -1: none */
} tower_lm;

/* The language model of text_config, what the engine needs to know of it, and the tokens' ids; the model takes images. */
bool tower_lm_config(tower_lm *v, vlm_model *m, config *c);
/* Decoder and tower, the latter under vision_tower., vision_model. and other usual names. */
void tower_lm_bind(tower_lm *v, binder *b);

/* linear_1, activation, linear_2: LLaVA's connector. */
typedef struct mlp_connector { weight up, down; const float *up_bias, *down_bias; activation act; } mlp_connector;
/* Below multi_modal_projector (or another name), from `inputs` columns to `outputs`. */
void mlp_connector_bind(mlp_connector *w, binder *b, int64_t inputs, int64_t outputs);
void mlp_connector_bind_at(mlp_connector *w, binder *b, int64_t inputs, int64_t outputs, const char *where);
tensor mlp_connector_apply(run *r, const mlp_connector *w, tensor x);
/* vlm_arch.encode of a tower whose features go through the connector as they are. */
bool mlp_connector_encode(run *r, const image_tower *tower, const mlp_connector *w, encode_job *job);

/* An image as one medium is all that the family takes: complains about anything else. */
bool tower_lm_only_images(const vlm_model *m, const media_item *item, vlm_error *error);
/* Tokens of a medium must fit the context. */
bool tower_lm_fits(const vlm_model *m, const media_item *item, int64_t tokens, vlm_error *error);

/* Frames of a video for families without a rule of their own: num_frames of them, or fps a second, evenly; all of them up to `most` by default. */
bool tower_lm_pick(const chat_media *part, const json_t *options, const video_info *info, int most, int64_t **indices, int *count, vlm_error *error);

/* For vlm_arch.frame_size: frames become squares, as `n` resizes. */
bool tower_lm_frame_size(const picture_norm *n, int side, int *width, int *height, resize_filter *filter);

/* x [height * width, d], a field of features, resampled to [to_height * to_width, d]: bilinear, not smoothed, pixel centres aligned. */
tensor tower_lm_resample(run *r, tensor x, int height, int width, int to_height, int to_width);

/* ---- tiles in the grid whose shape is nearest to the picture's, and the whole picture as one more (InternVL, Aya Vision, GOT-OCR) ---- */
typedef struct tile_grid {
    bool tiled;
    int least, most, most_side;    /* most_side: rows or columns; 0: no limit */
    bool by_scale;                 /* the grid that enlarges the picture least, or shrinks it least (Command A Vision), whatever its shape */
} tile_grid;
/* crop_to_patches, min_patches, max_patches of the image processor. */
void tile_grid_config(tile_grid *g, config *processor);
/* Of the grids of g->least to `most` tiles (side x side pixels) the one whose shape is nearest to the picture's (or by_scale). */
void tile_grid_choose(const tile_grid *g, int height, int width, int side, int most, int *rows, int *columns);
/* "pixel_values" [tiles, 3, side, side] of the tower's size; out->grid = 1, rows, columns; out->tokens = tiles * tokens. */
bool tile_grid_process(const vlm_model *m, const tile_grid *g, const tower_lm *v, const media_item *item, const json_t *options, int tokens, media_input *out,
                       vlm_error *error);

/* Pixel shuffle: factor x factor features of each picture of rows x columns side by side, row by row: [n / factor^2, d * factor^2]. */
tensor tower_lm_shuffle(run *r, tensor x, int rows, int columns, int factor);

/* For vlm_arch: the placeholder is the token's own text, repeated as often as there are rows. */
const char *tower_lm_placeholder(const vlm_model *m, media_kind kind);
int32_t tower_lm_media_token(const vlm_model *m, media_kind kind);
bool tower_lm_expand(const vlm_model *m, const media_input *in, buf *text, vlm_error *error);
bool tower_lm_encode_start(run *r, const vlm_model *m, encode_job *job);
tensor tower_lm_forward(run *r, const vlm_model *m, const batch *b);
#define TOWER_LM_ARCH \
    .task = TASK_GENERATE, .placeholder = tower_lm_placeholder, .media_token = tower_lm_media_token, .expand = tower_lm_expand, \
    .encode_start = tower_lm_encode_start, .forward = tower_lm_forward

#endif
