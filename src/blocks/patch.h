/* patch.h - from pixels to the patches of a vision tower, the way the Qwen-VL processors do it (and those that copied them). */
#ifndef VLM_BLOCKS_PATCH_H
#define VLM_BLOCKS_PATCH_H

#include "media/media.h"

enum { PATCH_CHANNELS = 3 };

typedef struct patch_spec {
    int patch;                     /* side in pixels */
    int merge;                     /* merge x merge patches become one token: they follow each other */
    int temporal;                  /* frames in a patch */
    bool raster;                   /* patches lie row by row after all: who merges them has to find them */
    float mean[PATCH_CHANNELS], std[PATCH_CHANNELS];
    double rescale;                /* usually 1 / 255 */
} patch_spec;

/* Python's round(): half to even. */
int64_t round_half_even(double x);
/* The size nearest to height x width whose sides are multiples of `factor` and whose area lies in [min_pixels, max_pixels]. */
bool smart_resize(int height, int width, int factor, int64_t min_pixels, int64_t max_pixels, int *out_height, int *out_width, vlm_error *error);
/* The same for all frames of a video together (Qwen3-VL): the limits are of the whole video; sides below `factor` are enlarged first. */
bool smart_resize_video(int height, int width, int frames, int temporal, int factor, int64_t min_pixels, int64_t max_pixels, int *out_height, int *out_width,
                        vlm_error *error);
/* Patches of `count` frames, all width x height (multiples of patch * merge): out [t * h * w, channels * temporal * patch * patch] floats,
 * t = count / temporal rounded up (the last frame is repeated). Order: frame group, block row, block column, then row and column in the block; or
 * frame group, row, column (raster).
 * Values are (pixel - mean / rescale) / (std / rescale), rounded to float32 at each step as the reference does. */
void patchify(const image *frames, int count, int width, int height, const patch_spec *spec, float *out);

#endif
