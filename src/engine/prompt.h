/* prompt.h - from messages to what the decoder eats: fetch and decode media, render the template, expand placeholders, tokenize,
 * find the spans, compute positions. Runs on request threads, never on the engine's. `vlm check` uses the same path, stage by stage. */
#ifndef VLM_ENGINE_PROMPT_H
#define VLM_ENGINE_PROMPT_H

#include "engine/vision_cache.h"

typedef struct prompt {
    char *text;                    /* rendered, placeholders not expanded, guards removed */
    char *expanded;                /* expanded, guards removed */
    ids ids;
    media_input **media;           /* in order of the conversation */
    vision_entry **rows;           /* [n_media] embedding rows found in the vision cache, pinned; NULL: to be encoded */
    int n_media;
    media_span *spans;             /* in order of the ids */
    int n_spans;
    int32_t *rope[MAX_ROPE_AXES];  /* [rope_axes][n] */
    int32_t rope_next;             /* position of the first generated token on every axis */
    int32_t *see_to, *see_from;    /* [n] (ragged.h), NULL when causal */
    int32_t *places;               /* of joined, when blocks see each other */
    joined_blocks joined;
    ids start;                     /* encoder-decoder: what the decoder begins with; ids are the encoder's, which reads them as the last medium */
    memory_plan memory;            /* what cross-attention reads */
    double media_seconds;          /* spent on fetching, decoding and processing media */
    buf notices;                   /* lines: what was asked for and is done otherwise */
} prompt;

typedef struct prompt_source {
    const json_t *messages;        /* or */
    const char *text;              /* ... a prompt text with its media list */
    const json_t *media;
    bool plain;                    /* what is rendered is a text like others: it gets the tokenizer's begin and end tokens */
    const chat_template *own;      /* that renders the messages instead of the checkpoint's; NULL: the checkpoint's */
    chat_options chat;
    const json_t *media_options;   /* a part's own options win over these */
    media_policy policy;
    const char *media_dir;         /* relative paths are looked up here first; NULL: working directory */
    digest adapters;               /* those of the request that change what encoders give: the cache is kept apart by them */
    vision_cache *cache;           /* media found in it are not decoded; NULL: every medium is */
    const char *tenant;            /* the cache is kept apart by it; NULL: "" */
    void (*media_done)(void *user, size_t done, size_t total);     /* after each medium, one call at a time; may be NULL */
    void *user;
} prompt_source;

bool prompt_build(const vlm_model *m, const prompt_source *source, prompt *out, vlm_error *error);
/* The last part of prompt_build alone, for prompts whose ids (and media) are there already: spans, rope positions, blocks. */
bool prompt_place(const vlm_model *m, prompt *p, vlm_error *error);
void prompt_free(prompt *p);
/* The tokens that the decoder begins with. */
static inline const ids *prompt_tokens(const prompt *p) { return p->start.count ? &p->start : &p->ids; }

/* One medium: fetched, decoded, processed (prompt_media.c). *rows: set when the cache had it (then large tensors have no data). */
media_input *prompt_process_media(const vlm_model *m, const prompt_source *source, const chat_media *part, vision_entry **rows, buf *notices,
                                  vlm_error *error);

/* Its parts, which stills (prompt_stills.c) are made of, too. */
bool prompt_takes(const vlm_model *m, media_kind kind, vlm_error *error);
bool prompt_fetch(const prompt_source *source, const chat_media *part, char **path, buf *bytes, bool *folder, vlm_error *error);
bool prompt_media_key(media_kind kind, const digest *bytes, const json_t *options, bool folder, digest *out);
bool prompt_reshape(const json_t *options, image *img, vlm_error *error);
/* The medium is decoded: the family's tensors under `key`. */
media_input *prompt_process_item(const vlm_model *m, const media_item *item, const json_t *options, const digest *key, vlm_error *error);

/* Pictures out of videos, for models that see images only; in the order in which the conversation names them. */
typedef struct stills {
    const vlm_model *m;
    const prompt_source *source;
    int videos;                    /* of the request: they share the number of pictures */
    media_input **input;
    vision_entry **rows;
    int n, taken;
    buf *notices;
} stills;
/* chat_options.stills; user is a struct stills. */
bool stills_add(void *user, const chat_media *video, int *count, vlm_error *error);
/* The next one, moved out. */
media_input *stills_take(stills *s, vision_entry **rows);
void stills_free(stills *s);

#endif
