/* engine.h - what the rest of the program may know of the engine beyond vlm.h: the hooks of `vlm check` and of the tests.
 *
 * An engine is one thread that owns pages, caches and the device. Requests reach it through a queue, with their prompt
 * already built by prompt threads; events go back through one queue per request. See engine.c for the picture. */
#ifndef VLM_ENGINE_ENGINE_H
#define VLM_ENGINE_ENGINE_H

#include "engine/prompt.h"

/* Eyes on one request. Every function may be NULL; all are called on the engine thread, and what they are shown is valid
 * during the call only. After a preemption positions are computed again: `logits` and `tap` still see each step once. */
typedef struct engine_probe {
    /* The embedding rows of medium number `media`, when they are ready; cached: they came from the vision cache. */
    void (*rows)(void *user, int media, const media_rows *rows, bool cached);
    /* Raw logits from which answer token number `step` (0: the first) is sampled, before penalties. */
    void (*logits)(void *user, int step, const float *logits, int vocab);
    /* The last prompt token's row of every tensor that the decoder taps while it computes that token. */
    void (*tap)(void *user, const char *name, int layer, const float *row, int64_t cols);
    /* Whole tensors tapped by the encoder of medium `media`. */
    void (*encoder_tap)(void *user, int media, const char *name, int layer, tensor x);
    /* Tests: tokens, at most `most` of them, that have to follow now that the answer has `step` tokens. Returns how many. */
    int (*force)(void *user, int step, int32_t *token, int most);
    void *user;
} engine_probe;

typedef struct engine_extra {
    const engine_probe *probe;     /* must outlive the request */
    prompt *prompt;                /* built already: moved into the request (emptied), also on failure; messages are not looked at */
    const char *media_dir;         /* where relative media paths are looked up first */
    const media_policy *policy;    /* replaces the one that the options imply */
    /* There is an event to fetch. Called under the request's lock, by any thread: quick, and no call on the request. None comes after the last
     * event has been fetched. */
    void (*news)(void *user);
    void *news_user;
} engine_extra;

/* vlm_submit with extras. */
vlm_request *engine_submit(vlm_engine *engine, const vlm_request_options *options, const engine_extra *extra, vlm_error *error);

/* Knobs that only tests turn; set before the first request. kv_bytes, step_tokens and prefill_chunk are in vlm_engine_options. */
typedef struct engine_tuning {
    int preempt_every;             /* n > 0: in every n-th step the youngest running sequence is preempted though there is room */
    int encode_stages;             /* n > 0: exactly n encoder stages in a step instead of a slice of time */
} engine_tuning;
void engine_tune(vlm_engine *engine, const engine_tuning *tuning);

/* Bytes of pages that one sequence of n tokens needs at most: for small budgets in tests. */
uint64_t engine_sequence_bytes(const vlm_model *model, int n_tokens);
/* ... and the memory that its cross-attention reads. */
uint64_t engine_memory_bytes(const vlm_model *model, int rows);

#endif
