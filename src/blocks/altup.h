/* altup.h - alternating updates: a token's state is several streams, of which a layer computes one and guesses the others.  https://arxiv.org/abs/2301.13310
 *
 *   x [n, streams * hidden], a token's streams side by side; the first is what a usual decoder has
 *   guess:    m = tanh(router(norm(active) / hidden));  x_i += sum_j predict(m)[i, j] x_j
 *   the layer computes y from the guess of the active stream
 *   correct:  m of y;  x_i += (1 + correct(m)[i]) (y - active)
 *
 * Gemma 3n's other inventions live here, too: LAuReL, a low-rank branch beside attention (https://arxiv.org/abs/2411.07501), and activations that keep only
 * what sticks out of a row (statistical top-k, https://arxiv.org/abs/2506.06644). */
#ifndef VLM_BLOCKS_ALTUP_H
#define VLM_BLOCKS_ALTUP_H

#include "tensor/ops.h"
#include "weights/bind.h"

enum { ALTUP_MAX_STREAMS = 8 };

typedef struct altup_spec {
    int streams;                   /* 0: there are none */
    int active;
    bool scaled;                   /* what per-layer inputs see is times correct_output_scale */
    int laurel;                    /* rank */
} altup_spec;

typedef struct altup_layer {       /* layers.N.altup, layers.N.laurel */
    weight router, predict, correct, left, right;
    const float *router_norm, *output_scale, *laurel_norm;
} altup_layer;

typedef struct altup {             /* altup_projections, altup_unembed_projections */
    weight begin[ALTUP_MAX_STREAMS - 1], end[ALTUP_MAX_STREAMS - 1];
} altup;

void altup_bind(const altup_spec *s, altup *w, binder *b, int64_t hidden);
void altup_bind_layer(const altup_spec *s, altup_layer *w, binder *b, int64_t hidden, int layer);

/* Embeddings become streams: the others are projections of as many of the first's magnitude. And back: the mean of the first and of what is
 * projected back, of its magnitude. */
tensor altup_begin(run *r, const altup_spec *s, const altup *w, tensor x);
tensor altup_end(run *r, const altup_spec *s, const altup *w, tensor x);

tensor altup_stream(const altup_spec *s, tensor x, int stream);      /* a view */
void altup_guess(run *r, const altup_spec *s, const altup_layer *w, float eps, tensor x);
void altup_correct(run *r, const altup_spec *s, const altup_layer *w, float eps, tensor x, tensor y);
/* y is added to all streams but the first. */
void altup_add(run *r, const altup_spec *s, tensor x, tensor y);

/* h + norm(right(left h)) */
tensor altup_laurel(run *r, const altup_layer *w, float eps, tensor h);

/* x = max(x - mean(x) - deviations * stddev(x), 0), row by row. */
void keep_outstanding(run *r, tensor x, float deviations);
/* How many standard deviations above the mean a normal distribution has `share` of its values below. */
float normal_quantile(double share);

#endif
