/* request.h - one request: what the caller asked for, its prompt, its sequence, and the queue of events back to the caller.
 *
 *   caller's thread        prompt thread          engine thread
 *   engine_submit ──────>  prompt_build ──────>   sequence, sampler, output
 *   vlm_request_next <───────── events ─────────  request_emit_*
 *
 * Handing over goes through the engine's lock, so that each field has one owner at a time; `lock` here guards the events.
 * Two references: the caller's and the engine's. The last event is allocated with the request, so that it always arrives. */
#ifndef VLM_ENGINE_REQUEST_H
#define VLM_ENGINE_REQUEST_H

#include <pthread.h>

#include "engine/beams.h"
#include "engine/engine.h"
#include "engine/guide.h"
#include "engine/output.h"
#include "engine/sampler.h"
#include "engine/scheduler.h"

enum { PROGRESS_MS = 100 };

typedef struct event_node {
    struct event_node *next;
    vlm_event event;
    buf text;                      /* of a call's beginning: its id and name, each with its zero */
    vlm_top_logprob top[MAX_TOP_LOGPROBS];
} event_node;

struct vlm_request {
    vlm_engine *engine;
    atomic_int refs;
    atomic_bool cancel;
    struct vlm_request *next;      /* in one of the engine's queues */

    /* events, under lock */
    pthread_mutex_t lock;
    pthread_cond_t arrived;
    event_node *first, *last;
    event_node *current;           /* what the caller looks at: the caller's own */
    event_node *final;             /* not sent yet */
    bool over;                     /* the caller has seen the last one */
    vlm_error error;

    /* copies of the options, fixed after submit */
    json_t *messages, *media, *media_options, *tools, *kwargs;
    json_t *tool_choice;           /* "none", "required" or an object that names one; NULL: the model decides */
    json_t *response_format;       /* NULL: any text */
    char *text, *tenant, *media_dir, *tool_format;
    bool add_generation_prompt, has_media, prebuilt, progress, parse, one_call;
    char *thinking_start, *thinking_end;
    int max_tokens, min_tokens, thinking_budget;
    media_policy policy;
    vlm_task task;
    int dimensions;                /* of an embedding */
    bool normalize;
    const chat_template *own_template;         /* of the task (the model's); NULL: the checkpoint's chat template */
    float relevance;
    bool rows_there;               /* all rows of an embedding are computed */
    digest media_adapters;         /* of its adapters, those that change what encoders give */
    const engine_probe *probe;
    void (*news)(void *user);
    void *news_user;

    /* prompt thread, then engine thread */
    prompt prompt;
    sampler sampler;
    output_marks marks;            /* of the tool format that it names */
    guide guide;
    output output;
    sequence seq;                  /* prompt and answer; with beams the answer comes when they are done */
    int num_beams, early_stopping; /* num_beams 1: no beam search */
    float length_penalty;
    beams *beams;                  /* NULL: none, or done */
    bool counted;                  /* among the engine's waiting ones; under the engine's lock */
    bool tapped;                   /* the probe has seen the last prompt token */
    uint8_t *encoded;              /* [n_media] 1: encoded for this request, not cached */
    uint8_t *rows_shown;           /* [n_media] the probe has seen the rows */
    vlm_error failure;             /* something that has to end it, found where it could not be ended; code 0: none */
    int length_limit;              /* most tokens in prompt and answer */
    char *parsed;                  /* what the answer means; NULL: nothing but text */
    vlm_usage usage;
    double submitted, deadline, admitted, first_token, progressed;
};

/* The adapters that it wants: its own choice, else the only one there is. */
bool request_choose_adapters(vlm_request *r, const vlm_model *m, const char *names, vlm_error *error);

vlm_request *request_new(vlm_engine *engine, const vlm_request_options *options, const engine_extra *extra, vlm_error *error);
/* num_beams and what goes with it, of the request or the model; after the sampler's options are known. */
bool request_choose_beams(vlm_request *r, const vlm_model *m, vlm_error *error);
void request_ref(vlm_request *r);
void request_unref(vlm_request *r);

/* Events. False: out of memory. piece: text, reasoning or a part of a call; an output_sink's emit. */
bool request_emit_started(vlm_request *r);
bool request_emit_notices(vlm_request *r, const char *lines);
bool request_emit_piece(void *r, const toolcall_event *piece);
bool request_emit_token(vlm_request *r, const sampled *token);
bool request_emit_embedding(vlm_request *r, const float *rows, int count, int cols, int64_t stride);
/* Only when asked for, and not more often than PROGRESS_MS. One that cannot be allocated is left out. */
void request_emit_progress(vlm_request *r, const char *what, uint64_t done, uint64_t total);
void request_emit_done(vlm_request *r, const char *reason, const char *stop_string);
void request_emit_error(vlm_request *r, const vlm_error *error);

/* The tools that the model may call; NULL: none, or tool_choice says none. */
const json_t *request_tools(const vlm_request *r);

double engine_now(void);           /* seconds, monotonic */

#endif
