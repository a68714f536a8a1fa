/* image_tower.h - towers in the manner of CLIP, SigLIP, Pixtral and InternViT: a transformer over the patches of each picture or tile.
 *
 *   pixels [3][h][w] -> patches -> product [+ table of positions] [class vector first] [norm] -> layers [norm] -> features, one for each patch
 *
 *                 positions              class   norms                             MLP         read
 *   CLIP          table                  yes     layer norms, one before layers    quick GELU  an earlier layer, no norm behind
 *   SigLIP        table                  no      layer norms, one behind           GELU tanh   the last
 *   SigLIP 2      table, resampled       no      layer norms, one behind           GELU tanh   the last
 *   InternViT     table                  yes     layer norms, scaled branches      GELU        the last
 *   AIMv2 (Ovis2) table                  no      rms norms, one before positions SiLU gate   the last
 *   Llama 4       table, rope            last    layer norms, before and behind    GELU        the last
 *   Pixtral       rope (row, column)     no      rms norms, one before layers      SiLU gate   the last
 *
 * Pictures of one job may have different sizes; each is a segment of its own. */
#ifndef VLM_MODELS_IMAGE_TOWER_H
#define VLM_MODELS_IMAGE_TOWER_H

#include "blocks/decoder.h"
#include "blocks/vit.h"
#include "models/model.h"

enum { TOWER_KEEPS = 16, TOWER_MOST_PATCHES = 2048 /* on a side, for image_tower_buckets */ };

typedef struct image_tower {
    const struct tower_kind *kind;
    vit_spec vit;
    int patch, image;              /* sides in pixels; image: that the table of positions was made for */
    int layers, depth;             /* in the file; how many of them are computed */
    int kept[TOWER_KEEPS], n_kept; /* layers behind which features are kept besides, in the order in which they were asked for; 1: the first */
    bool class_token, post_norm;
    bool side_by_side;             /* image_tower_features gives the kept layers' features side by side ... */
    int width;                     /* ... that many columns in all */
    int side;                      /* SigLIP 2: of the table, which is resampled to each picture; 0: it is taken as it is */
    bool flat;                     /* pixels come as patches with channels last */
    int positions;                 /* rows of the table, without the class's; 0: none */
    vit_names names;

    vit_layer *layer;
    weight embed;
    const float *embed_bias, *table, *class_row, *pre_norm, *pre_norm_bias, *last_norm, *last_norm_bias;
    rope_table rope;
} image_tower;

/* Reads vision_config; its model_type says which kind. Defaults of the reference's classes for what is left out. post_norm: the norm behind the
 * layers is wanted. feature_layer: as vision_feature_layer, -1 the last layer, -2 the one before ... */
bool image_tower_config(image_tower *t, arena *memory, config *c, int feature_layer, bool post_norm);
/* vision_feature_layer (a number, or several whose features lie side by side) and vision_feature_select_strategy of LLaVA's kin, with these defaults;
 * no norm behind. */
bool image_tower_config_features(image_tower *t, arena *memory, config *c, int feature_layer, const char *strategy);
/* One more layer whose features are wanted, as feature_layer. Returns its number for image_tower_kept, -1 on failure. */
int image_tower_keep(image_tower *t, config *c, int feature_layer);
/* `prefix`: alternatives, NULL-terminated (6 at most). */
void image_tower_bind(image_tower *t, binder *b, const char *const *prefix);

typedef struct tower_image {
    const float *pixels;           /* [3][height][width], sides multiples of the patch; flat: [patches][patch][patch][3] */
    int height, width;
    const int32_t *position;       /* [patches] rows of the table; NULL: 0, 1, 2 ... */
} tower_image;

/* Patches that are computed, but not seen (Phi-4's padding). */
typedef struct tower_view {
    const int32_t *order;          /* [patches] which patch comes where: features come in that order */
    int seen;                      /* the first so many are; 0: all */
} tower_view;

/* Idefics: a picture of any size takes the rows of the table (side x side) whose share of the sides is nearest below. position [rows * columns]. */
void image_tower_buckets(const image_tower *t, int rows, int columns, int32_t *position);

/* For vlm_arch.encode_start: sets job->x, stages, cost. The images are copied, pixels and positions stay where they are. */
bool image_tower_start(run *r, const image_tower *t, encode_job *job, const tower_image *images, int n);
/* views [n] stay where they are; NULL: row by row, all are seen. */
bool image_tower_start_views(run *r, const image_tower *t, encode_job *job, const tower_image *images, const tower_view *views, int n);
/* The same for all tiles of the input's "pixel_values" [.., 3, height, width]. */
bool image_tower_start_tiles(run *r, const image_tower *t, encode_job *job);
/* A stage. When job->stage has become job->stages, image_tower_features has the result: [all patches, width], class rows left out. */
bool image_tower_encode(run *r, const image_tower *t, encode_job *job);
tensor image_tower_features(run *r, const image_tower *t, const encode_job *job);
/* The same of a kept layer, without the norm behind the last. */
tensor image_tower_kept(run *r, const image_tower *t, const encode_job *job, int number);
/* Between two layers: x takes the features' place, each of its rows that of `by` of them. */
void image_tower_reduce(run *r, encode_job *job, tensor x, int by);
/* x becomes the rows that the encoder gives (it lies in scratch; the rows live on). */
void image_tower_set_rows(run *r, encode_job *job, tensor x);

#endif
