/* fastvit.h - FastViTHD (MobileCLIP 2's large image encoder, FastVLM's eyes): convolutions for each column alone, mixed by products; attention where
 * the picture has become small. As files hold it for use: branches that training had are merged into one kernel. https://arxiv.org/abs/2303.14189
 *
 *   pixels -> stem: 3 x 3 by 2, 3 x 3 by 2 (each column), product                                               a quarter of each side
 *   five stages: [7 x 7 by 2 (each column twice), product] [7 x 7 added to by training: positions] blocks        to 1/64
 *     block:  x = mix(x) 3 x 3, or x += scale attention(norm x) in the last two;  x += scale MLP(7 x 7 of x)
 *   3 x 3 (each column twice), times sigmoid(product ReLU product of the mean) -> GELU -> features
 *
 * Rows are places, channels last. */
#ifndef VLM_BLOCKS_FASTVIT_H
#define VLM_BLOCKS_FASTVIT_H

#include "tensor/ops.h"
#include "tensor/tap.h"
#include "weights/bind.h"

enum { FASTVIT_STAGES = 5, FASTVIT_SHRINKS = 64, FASTVIT_HEAD = 32 };

typedef enum fastvit_kind { FASTVIT_STEM, FASTVIT_DOWN, FASTVIT_PLACE, FASTVIT_MIX, FASTVIT_LOOK, FASTVIT_LAST } fastvit_kind;

typedef struct fastvit_unit {
    fastvit_kind kind;
    int stage, index;              /* index: of a block in its stage */
    int in, out, ffn;
    const float *taps, *taps_bias; /* of each column: the stem's second kernel, the first of others */
    weight first, point, proj;     /* stem: 3 x 3; products; LOOK: qkv and proj; LAST: reduce and expand */
    const float *first_bias, *point_bias, *proj_bias, *norm, *norm_bias, *scale;
    const float *mlp_taps, *mlp_bias, *mlp_scale, *up_bias, *down_bias;
    weight up, down;
} fastvit_unit;

typedef struct fastvit {
    int layers[FASTVIT_STAGES], dims[FASTVIT_STAGES], ffn[FASTVIT_STAGES];
    bool looks[FASTVIT_STAGES];    /* blocks with attention */
    int outputs;                   /* columns of the features */
    fastvit_unit *unit;
    int n_units;
} fastvit;

/* layers, embed_dims, mlp_ratios, token_mixers, cls_ratio below `where`; those of FastViTHD by default. */
bool fastvit_config(fastvit *t, arena *memory, config *c, const char *where);
/* timm's names or those of Apple's own files, whichever the checkpoint has. */
void fastvit_bind(fastvit *t, binder *b);
/* Unit i over x [height * width, in]; *height and *width become those of what it gives (in scratch). Unit 0: x is [height * width, 3]. */
tensor fastvit_forward(run *r, const fastvit *t, int i, tensor x, int *height, int *width);

#endif
