/* anyres.h - LLaVA-NeXT's way with large pictures: the best of some sizes, the picture in its middle, cut into tiles; the tiles' features as one field
 * without what is padding, and a marker behind each of its rows. */
#ifndef VLM_MODELS_ANYRES_H
#define VLM_MODELS_ANYRES_H

#include "models/picture.h"

enum { ANYRES_MAX = 128 };
typedef struct anyres { int n, size[ANYRES_MAX][2]; } anyres;              /* height, width */

/* image_grid_pinpoints; the processor's files first, then config.json. All are to be made of tiles of `side` pixels. */
bool anyres_config(anyres *a, config *processor, config *c, int side);
extern const media_rules anyres_rules;
/* The sizes that a request leaves: those of at most max_tiles tiles, the smallest if there is none. */
anyres anyres_asked(const anyres *a, const media_item *item, const json_t *options, int side);
/* out->grid = 1, tiles down, tiles across: of the size that keeps most of the picture and wastes least. */
void anyres_grid(const anyres *a, const image *img, int side, media_input *out);
/* "image_sizes" [1, 2] and "pixel_values" [1, 1 + tiles, 3, side, side]: the picture squeezed, then the tiles of the grid. */
bool anyres_process(const picture_norm *n, const image *img, int side, media_input *out, vlm_error *error);

/* The field of features: what lies in tiles, what of it is kept, what it is shrunk to. */
typedef struct anyres_field { int rows, columns, top, left, height, width, to_height, to_width; } anyres_field;
/* Of a picture of height x width in tiles of unit x unit features. Rows or columns that only show padding are left out. */
anyres_field anyres_field_of(int height, int width, int unit, int tiles_down, int tiles_across);
/* Rows that one picture becomes: the squeezed picture's, the field's and a marker behind each row of it. */
static inline int anyres_tokens(const anyres_field *f, int unit) { return unit * unit + f->to_height * (f->to_width + 1); }
/* x [(1 + tiles) * unit * unit, d], the features of the tiles of `in`, as these rows into out. */
void anyres_pack(run *r, const media_input *in, const anyres_field *f, tensor x, int unit, const float *newline, tensor out);

#endif
