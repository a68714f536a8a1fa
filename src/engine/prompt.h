/* prompt.h - from messages to what the decoder eats: fetch and decode media, render the template, expand placeholders, tokenize,
 * find the spans, compute positions. Runs on request threads, never on the engine's. `vlm check` uses the same path, stage by stage. */
#ifndef VLM_ENGINE_PROMPT_H
#define VLM_ENGINE_PROMPT_H

#include "models/model.h"

typedef struct prompt {
    char *text;                    /* rendered, placeholders not expanded, guards removed */
    char *expanded;                /* expanded, guards removed */
    ids ids;
    media_input **media;
    int n_media;
    media_span *spans;
    int n_spans;
    int32_t *rope[MAX_ROPE_AXES];  /* [rope_axes][n] */
    int32_t rope_next;             /* position of the first generated token on every axis */
    int32_t *see_to;               /* [n] (ragged.h), NULL when causal */
} prompt;

typedef struct prompt_source {
    const json_t *messages;        /* or */
    const char *text;              /* ... a prompt text with its media list */
    const json_t *media;
    chat_options chat;
    const json_t *media_options;
    media_policy policy;
    const char *media_dir;         /* relative paths are looked up here first; NULL: working directory */
} prompt_source;

bool prompt_build(const vlm_model *m, const prompt_source *source, prompt *out, vlm_error *error);
void prompt_free(prompt *p);

#endif
