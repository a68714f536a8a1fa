/* cross.h - cross-attention: tokens read encoder rows of their sequence.
 *
 *   encoder rows ── k (norm), v ──> the sequence's memory, once: pages of its own, a slot for each layer (batch.h: memory_fill)
 *   tokens ── q (norm) ──> attention over the rows [from, to) that a token sees ──> o
 *
 * A batch may mix sequences with and without a memory: rows are those of tokens that have one. */
#ifndef VLM_BLOCKS_CROSS_H
#define VLM_BLOCKS_CROSS_H

#include "blocks/batch.h"
#include "tensor/ops.h"

typedef struct cross_spec { int heads, kv_heads, head_dim; float eps; } cross_spec;

typedef struct cross_layer {
    int slot;
    weight q, k, v, o;
    const float *q_bias, *k_bias, *v_bias, *o_bias;
    const float *q_norm, *k_norm;                  /* [head_dim]; NULL: none */
} cross_layer;

/* Encoder rows of a fill side by side, [n, cols]. */
tensor cross_rows(run *r, const memory_fill *fill, int64_t cols);
void cross_remember(run *r, const cross_spec *s, const cross_layer *w, const memory_fill *fill, tensor rows);

/* Tokens of a batch that have a memory. */
typedef struct cross_view {
    ragged ragged;                 /* tokens of a sequence that follow each other are a run */
    int32_t *token;                /* [n] which of the given ones */
    uint8_t *blind;                /* [n] sees no row in particular */
    int n;
    bool all;                      /* of the given ones */
} cross_view;
/* tokens [n] of the batch, NULL: 0, 1, 2 ... blind_see_all: tokens that see none look at all rows (else they are left out). */
const cross_view *cross_look(run *r, const batch *b, const int32_t *tokens, int n, bool blind_see_all);
/* h [view->n, cols]; returns o's product. */
tensor cross_attend(run *r, const cross_spec *s, const cross_layer *w, const cross_view *view, tensor h);

#endif
