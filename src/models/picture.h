/* picture.h - from pixels to what towers of fixed tiles read: [3][height][width] floats, normalised. Cropping, padding and cutting into tiles are one
 * thing: a window on the resized picture; what lies outside it has one colour. */
#ifndef VLM_MODELS_PICTURE_H
#define VLM_MODELS_PICTURE_H

#include "models/common.h"

typedef struct picture_norm {
    float value[3][256];           /* channel value -> float */
    uint8_t outside[3];            /* the colour of what lies outside the picture; black unless a family sets it */
    resize_filter filter;
    bool pillow;                   /* picture_resized: as Pillow resizes, not torchvision */
} picture_norm;

extern const double picture_clip[2][3], picture_half[2][3], picture_imagenet[2][3];      /* mean, standard deviation */

/* image_mean, image_std, rescale_factor, do_normalize, do_rescale, resample below `where` ("image_processor") of the processor's files. */
bool picture_config(picture_norm *n, config *processor, const char *where, const double usual[2][3], resize_filter filter);
/* A part of the picture as a picture of its own; what would lie outside is left out. */
bool picture_cut(const image *img, int x, int y, int width, int height, image *out, vlm_error *error);
/* The window [x, x + width) x [y, y + height) of img into out [3][height][width]. */
void picture_window(const picture_norm *n, const image *img, int x, int y, int width, int height, float *out);
/* The way that n says. */
bool picture_resize(const picture_norm *n, const image *img, int width, int height, image *out, vlm_error *error);
/* Resizes img to `width` x `height` and writes the window; width or height 0: as it is. */
bool picture_resized(const picture_norm *n, const image *img, int width, int height, int x, int y, int window_width, int window_height, float *out,
                     vlm_error *error);
/* in [3][height][width] -> out [3][side][side]: bicubic as torch's interpolate does it (a = -0.75, not smoothed, pixel centres aligned). */
void picture_shrink(const float *in, int height, int width, int side, float *out);
/* Where a picture lies that is fitted into width x height, in the middle: as Pillow's ImageOps.pad rounds. */
typedef struct picture_place { int x, y, width, height; } picture_place;
picture_place picture_contain(const image *img, int width, int height);
/* "pixel_values" (of a video, out->kind is set: "pixel_values_videos") [1, tiles, 3, height, width] in `out`, or [1, 3, height, width] when tiles is 0; NULL when out of memory. */
float *picture_tiles(media_input *out, int64_t tiles, int height, int width, vlm_error *error);

/* ---- the middle of a picture (CLIP): resized, then cropped ---- */
typedef struct picture_middle {
    int shortest, height, width;   /* shortest: the shorter side becomes that; 0: the picture becomes height x width */
    int crop_height, crop_width;   /* 0: no crop */
} picture_middle;
/* size, do_center_crop, crop_size below `where`. What comes out must have as many patches as a tower's square of `side`. */
bool picture_middle_config(picture_middle *f, config *processor, const char *where, int side, int patch);
/* Of what comes out. */
void picture_middle_size(const picture_middle *f, int *height, int *width);
bool picture_middle_resized(const picture_middle *f, int from_width, int from_height, int *width, int *height, vlm_error *error);
bool picture_middle_write(const picture_middle *f, const picture_norm *n, const image *img, float *out, vlm_error *error);

#endif
