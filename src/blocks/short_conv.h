/* short_conv.h - the layer that stands for attention in most layers of LFM2: a gated convolution over a few tokens.  https://arxiv.org/abs/2511.23404
 *
 *   h -> b, c, x;  y = c * convolution(b * x)  -> out          remembered of a sequence: the last kernel - 1 rows of b * x
 *
 * As with delta_net.h, what all layers remember is one piece of memory of the engine's. */
#ifndef VLM_BLOCKS_SHORT_CONV_H
#define VLM_BLOCKS_SHORT_CONV_H

#include "blocks/batch.h"
#include "tensor/ops.h"
#include "weights/bind.h"

typedef struct short_conv_spec {
    int kernel;                    /* 0: there are no such layers */
    bool bias;
} short_conv_spec;

typedef struct short_conv {
    weight b, c, x, out;
    const float *b_bias, *c_bias, *x_bias, *out_bias;
    const float *taps, *taps_bias; /* taps [kernel, hidden] */
    size_t at;                     /* where its memory begins, in floats */
} short_conv;

size_t short_conv_floats(const short_conv_spec *s, int64_t hidden);          /* remembered by one layer */
/* layers.N.conv.in_proj, conv, out_proj */
void short_conv_bind(const short_conv_spec *s, short_conv *w, binder *b, int64_t hidden, int layer);
/* h [n, hidden], the normed rows of the whole batch: each run's memory moves on. Returns the convolution; short_conv_finish gates and projects it
 * (some of the rows will do: h and y gathered alike). */
tensor short_conv_forward(run *r, const short_conv_spec *s, const short_conv *w, const batch *b, tensor h);
tensor short_conv_finish(run *r, const short_conv *w, tensor h, tensor y);

#endif
