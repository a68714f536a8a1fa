/* resize.h - the inner loops of resize.c, which each instruction set may replace. All give the same bits. */
#ifndef VLM_MEDIA_RESIZE_H
#define VLM_MEDIA_RESIZE_H

#include "media/media.h"

/* The weights of one direction: output i is the sum over k < count[i] of in[first[i] + k] * weight[i * stride + k] / 2^precision.
 * stride is a multiple of 16; weights behind count are zero. */
typedef struct resize_taps {
    int out, stride, precision;
    int *first, *count;
    int16_t *weight;
} resize_taps;

enum { RESIZE_READ_AHEAD = 64, RESIZE_WRITE_AHEAD = 16 };     /* bytes behind a row that `across` may read, write */

typedef struct resize_kernels {
    /* One row, across; of RGB or of gray pixels. */
    void (*across)(const uint8_t *in, uint8_t *out, const resize_taps *taps);
    void (*across_gray)(const uint8_t *in, uint8_t *out, const resize_taps *taps);
    /* One row out of n rows, down: `bytes` columns. Nothing beyond is touched. */
    void (*down)(const uint8_t *const *rows, int n, const int16_t *weight, int precision, uint8_t *out, int bytes);
} resize_kernels;

/* How many inputs an output may have; the weights of output i as doubles (returns the largest), what its first input is and how many there are. */
int resize_weights_most(resize_filter f, int in, int out);
double resize_weights_at(resize_filter f, int in, int out, int i, int most, double *w, int *first, int *count);
/* Complains about sizes that no picture has. */
bool resize_sizes_fit(const image *in, int width, int height, vlm_error *error);

void resize_kernels_c(resize_kernels *k);
void resize_kernels_avx2(resize_kernels *k);
void resize_kernels_neon(resize_kernels *k);

#endif
