/* batch.h - one step's work as a decoder sees it: tokens of several sequences laid end to end (tensor/ragged.h), the media rows that
 * replace some of their embeddings, and which of them want logits. */
#ifndef VLM_BLOCKS_BATCH_H
#define VLM_BLOCKS_BATCH_H

#include "media/media.h"
#include "tensor/ragged.h"

enum { MAX_ROPE_AXES = 4 };

/* Embedding rows of one medium: what enters the decoder, and what is cached. */
typedef struct media_rows {
    int count, cols;
    int levels;                    /* 1 + further levels that are added inside the decoder (deepstack) */
    float *data;                   /* [levels][count][cols] */
} media_rows;

/* Rows of a medium that replace the embeddings of some of the batch's tokens. */
typedef struct embed_rows {
    int first, count;              /* tokens of the batch */
    const media_rows *rows;
    int offset;                    /* first row of `rows` that is used */
    media_kind kind;
} embed_rows;

typedef struct batch {
    ragged ragged;                 /* runs, positions, pages */
    const int32_t *tokens;         /* [n_tokens] */
    const uint8_t *is_media;       /* [n_tokens] 1: a placeholder whose embedding comes from media */
    const int32_t *rope[MAX_ROPE_AXES];  /* [rope_axes][n_tokens] */
    const int32_t *far;            /* [n_tokens] 1: of a text that is longer than the model was trained for (rope.h); NULL: none is */
    const embed_rows *embeds;
    int n_embeds;
    const int32_t *logit_tokens;   /* which tokens want logits */
    int n_logits;
    float *const *hidden;          /* [n_logits] where the row after the final norm goes instead of logits, NULL: logits; NULL: all want logits */
    const uint64_t *adapters;      /* [n_tokens] masks of low-rank parts (tensor/adapt.h); NULL: nobody wants any */
    void *const *state[2];         /* recurrent families: [n_runs] state to read from / write to (engine/pages.h) */

    /* What cross-attention reads: each sequence's memory, keys and values that were made once of encoder rows (memory_fill). */
    kv_shape memory;               /* slots 0: the model has none */
    void *const *const *memory_pages;      /* [n_runs] page table */
    const int32_t *memory_rows;    /* [n_runs] 0: the sequence has no memory */
    const int32_t *memory_from, *memory_to;        /* [n_tokens] rows that a token sees; from == to: none */
} batch;

/* Encoder rows on their way into memories: a batch of its own, whose tokens are rows and whose positions are places in the memory. */
typedef struct memory_fill {
    ragged ragged;                 /* group 0 is the memory's */
    const embed_rows *sources;     /* where the rows come from: `count` rows of `rows` from `offset` on are the batch's from `first` on */
    int n_sources;
    const uint64_t *adapters;      /* [n_tokens] as in a batch */
} memory_fill;

#endif
