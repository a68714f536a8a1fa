/* generation.h - the fields that every generating route shares (sampling, stopping, thinking, tools, structured output, media options), read once for all of them. */
#ifndef VLM_SERVER_GENERATION_H
#define VLM_SERVER_GENERATION_H

#include "server/server_internal.h"

typedef struct generation {
    vlm_request_options options;   /* its texts live in `memory`, or in the body */
    arena memory;
    const char *model;             /* as asked for; NULL: the default */
    int stream, usage_wanted, n;
    resident *resident;            /* borrowed; the call's once it has begun */
    int logprobs;
    /* as they came; borrowed from the body */
    const json_t *messages, *tools, *tool_choice, *response_format, *stop, *logit_bias, *stream_options, *kwargs, *reasoning, *seed, *resize_shape, *eos_tokens, *media_options;
    const char *reasoning_effort;
    int enable_thinking;           /* -1: not said */
    int max_completion_tokens, min_pixels, max_pixels, max_soft_tokens, max_tiles, num_frames;
    float fps;
} generation;

/* Reads the shared fields of the body and borrows the model. generation_free in any case. */
bool generation_read(server *s, exchange *x, const json_t *body, generation *g, refusal *why);
void generation_free(generation *g);
/* Are these definitions of functions, as far as all templates need? tools may be NULL. */
bool check_tools(const json_t *tools, refusal *why);

#endif
