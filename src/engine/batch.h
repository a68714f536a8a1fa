/* batch.h - the scheduler's plan as the arrays that a decoder reads (blocks/batch.h). Buffers are reused from step to step. */
#ifndef VLM_ENGINE_BATCH_H
#define VLM_ENGINE_BATCH_H

#include "engine/scheduler.h"

typedef struct batch_builder {
    batch batch;
    int32_t *run_first, *run_position, *token_run, *token_position, *see_to, *see_from, *tokens, *far, *rope[MAX_ROPE_AXES], *logit_tokens;
    uint8_t *is_media;
    uint64_t *adapters;
    float **hidden;
    embed_rows *embeds;
    void *const **tables[MAX_KV_GROUPS];          /* [group][run] */
    void **states[2];
    const joined_blocks **joined;                 /* [run] */
    void *const **memories;        /* [run] page table of its memory */
    int32_t *memory_rows, *memory_from, *memory_to;
    int token_capacity, run_capacity, embed_capacity;
} batch_builder;

/* `count` planned sequences in one batch; valid until the next call and as long as no page table changes. */
bool batch_build(batch_builder *b, const vlm_model *m, const planned *plan, int count, vlm_error *error);
/* The planned rows of memories; the same buffers: valid until the next call of either. */
bool batch_build_fill(batch_builder *b, const vlm_model *m, const scheduler *s, memory_fill *out, vlm_error *error);
void batch_free(batch_builder *b);

#endif
