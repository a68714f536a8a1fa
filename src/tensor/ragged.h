/* ragged.h - the batch as operations see it: runs of tokens laid end to end, and the pages their keys and values live in.
 *
 *   token        0 1 2 3 4 5 6 7 8          run 0: decode (1 token), run 1: a prefill chunk of 7, run 2: decode
 *   run          0 1 1 1 1 1 1 1 2
 *   position    57 0 1 2 3 4 5 6 12         position in the sequence = index of its key
 *
 * Keys and values of all layers with the same head shape and window form a layer group. A page of a group holds
 * page_tokens positions of all its layers ("slots"); operations own the layout inside a page (kv_page_bytes says how much it
 * is). Position p of run r lies in page number p / page_tokens of that run's table; pages that a sliding window has left
 * behind are NULL there and are never looked at. */
#ifndef VLM_TENSOR_RAGGED_H
#define VLM_TENSOR_RAGGED_H

#include "tensor/tensor.h"

enum { MAX_KV_GROUPS = 4, KV_PAGE_TOKENS = 32 };

typedef struct kv_shape {
    int kv_heads, head_dim;                        /* of keys; values have the same, but for latent */
    int slots;                                     /* layers that own keys and values in this group */
    int window;                                    /* a query at p sees keys > p - window; 0: all */
    bool chunked;                                  /* ... or keys of its own chunk of `window` positions (Llama 4) */
    int latent;                                    /* > 0: no values are kept, they are the first `latent` columns of keys (multi-head latent attention) */
    dtype type;                                    /* F32, BF16, F16 */
} kv_shape;

static inline int kv_value_dim(const kv_shape *shape) { return shape->latent ? shape->latent : shape->head_dim; }
size_t kv_page_bytes(const kv_shape *shape);       /* whole page: all slots, keys and values, KV_PAGE_TOKENS positions */

/* Blocks of a run that see each other, not what lies between them: [place[2 * i], place[2 * i + 1]) are positions, rising. */
typedef struct joined_blocks { int count; const int32_t *place; } joined_blocks;

typedef struct ragged {
    int n_tokens, n_runs;
    const int32_t *run_first;                      /* [n_runs + 1] first token of each run */
    const int32_t *run_position;                   /* [n_runs] position of its first token */
    const int32_t *token_run;                      /* [n_tokens] */
    const int32_t *token_position;                 /* [n_tokens] */
    /* [n_tokens] one past the last position that a token sees in layers with bidirectional media: position + 1, or the end of
     * the media block that the token belongs to. NULL: purely causal batch. The scheduler never splits such a block's first computation. */
    const int32_t *see_to;
    /* [n_tokens] first position of the media block that the token belongs to, its own position when in none. Only attention with
     * whole_blocks looks at it. NULL when see_to is. */
    const int32_t *see_from;
    /* [n_runs] For runs with an entry see_to of a token in a block is the end of the last block: it sees what is before it, its own block, and the
     * blocks behind that. NULL: there are none. */
    const joined_blocks *const *joined;
    int n_groups;
    kv_shape group[MAX_KV_GROUPS];
    void *const *const *pages[MAX_KV_GROUPS];      /* [group][run] -> page table of that run */
} ragged;

#endif
