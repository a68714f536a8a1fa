/* core.h - the inside of vlm_engine, for the files of this folder: engine.c (life, options, statistics), builders.c (prompt
 * threads), step.c (the engine thread), encode.c (media encoders).
 *
 *                     builders (text: 1 thread, media: several)
 *   engine_submit ──> queue ──> prompt_build ──> inbox ──┐
 *                                                        v
 *   engine thread:  sweep (cancel, deadline) ─ encoder slice ─ plan ─ forward ─ sample ─ events    once per step
 *
 * `lock` guards what is marked; everything else belongs to the engine thread. Lock order: engine before request, never both ways. */
#ifndef VLM_ENGINE_CORE_H
#define VLM_ENGINE_CORE_H

#include "engine/batch.h"
#include "engine/constraint.h"
#include "engine/request.h"

enum { MAX_BUILDERS = 8 };

/* Threads that build prompts, started when they are needed. */
typedef struct builders {
    vlm_engine *engine;
    vlm_request *first, *last;     /* under lock */
    pthread_cond_t work;
    pthread_t thread[MAX_BUILDERS];
    int n, max, idle;              /* under lock */
} builders;

/* An encoder at work on a medium. */
typedef struct encoding {
    struct encoding *next;
    encode_job job;
    arena memory;
    vision_entry *entry;
    vlm_request *wanted_by;        /* who started it, while that one lives; for its usage and probe */
    int media;
    uint64_t adapters;             /* that it is encoded with */
    bool started;
    vision_entry **shown;          /* [n_shown] media that the prompt shows, pinned; in `memory` */
    int n_shown;
} encoding;

typedef struct engine_counters {
    uint64_t requests, finished, failed, cancelled, prompt_tokens, cached_tokens, answer_tokens, steps, batch_tokens, encoded, preemptions;
    int waiting, running;
    double busy_seconds, encode_seconds;
    pages_stats pages;
    uint64_t scratch_bytes;
} engine_counters;

struct vlm_engine {
    vlm_model *m;
    vlm_engine_options options;    /* resolved: no zeros that mean "chosen" */
    engine_tuning tuning;
    digest salt;
    vision_cache *vision;
    output_marks marks;            /* of the chat template */
    constraints constraints;

    pthread_mutex_t lock;
    pthread_cond_t work, settled;
    builders text, media;
    vlm_request *inbox_first, *inbox_last;       /* under lock: prompts built */
    int n_waiting;                 /* under lock: submitted, not yet running */
    bool stop, reset, poked;       /* under lock; poked: look at cancel flags */
    engine_counters shown;         /* under lock: copy of counters after each step */
    bool has_lock, has_thread;
    pthread_t thread;

    /* the engine thread's */
    engine_counters counters;
    pages pages;
    scheduler scheduler;
    batch_builder builder;
    arena scratch;
    vlm_request *active;           /* all that were taken in and have not ended */
    encoding *encodings;
    double step_seconds;           /* of the last forward: as long may an encoder slice be */
};

/* builders.c */
bool builders_submit(vlm_engine *e, vlm_request *r, vlm_error *error);    /* takes the engine's reference, also on failure */
bool engine_guide(vlm_engine *e, vlm_request *r, vlm_error *error);        /* the prompt is there: sets up what guides the answer */
void builders_stop(vlm_engine *e);                                         /* after e->stop: joins the threads, ends what is queued */
bool builders_remove(vlm_engine *e, vlm_request *r);                       /* under lock: was it still in a queue? */
void engine_enqueue(vlm_engine *e, vlm_request *r);                        /* a built request into the inbox */
void engine_leave_queue(vlm_engine *e, vlm_request *r);                    /* it no longer counts as waiting */

/* step.c */
void *engine_main(void *engine);
void engine_end(vlm_engine *e, vlm_request *r, const char *reason, const char *stop_string, const vlm_error *error);

/* encode.c */
/* scheduler.media_ready */
bool engine_media_ready(void *engine, sequence *seq, int media);
/* Starts what the request's prompt will need beyond `cached` tokens. */
void engine_want_media(vlm_engine *e, vlm_request *r, int cached);
/* A slice of encoder work; false: there was none. */
bool engine_encode(vlm_engine *e);
/* The request goes: encodings that nobody else waits for are given up. */
void engine_forget_media(vlm_engine *e, vlm_request *r);
void engine_drop_encodings(vlm_engine *e);

#endif
