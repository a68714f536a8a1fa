/* call.h - one answer in the making: n requests on an engine (n > 1: several choices), what they have said so far, and the form in which it
 * goes out. A call is an actor: the engine and the socket only say that there is news, and a job thread then runs call_run, one at a time for a call.
 *
 *   engine: events ──┐                        ┌─ form->event: a piece of the stream
 *   client has left ─┼──> job: call_run ──────┼─ form->whole: the answer as one body
 *   time ────────────┘                        └─ refusal_send: nothing has been sent yet, and it failed
 */
#ifndef VLM_SERVER_CALL_H
#define VLM_SERVER_CALL_H

#include <stdatomic.h>

#include "server/residents.h"
#include "server/jobs.h"

struct server;
typedef struct call call;

/* What one of the requests has said. */
typedef struct choice {
    vlm_request *request;
    bool begun, over;
    buf text, reasoning, arguments;
    json_t *calls;                 /* [{"id", "type", "function": {"name", "arguments"}}], the arguments' text complete when the call is */
    json_t *logprobs;              /* [{token, logprob, bytes, top_logprobs}] when asked for */
    json_t *notices;               /* lines for people: what was asked for and is done otherwise; NULL: none */
    const char *finish_reason, *stop_string;       /* once over */
    vlm_usage usage;
    float *embedding;              /* tasks embed and rerank: [rows][cols] */
    int rows, cols;
} choice;

typedef struct call_form {
    dialect words;
    /* Streams. First piece (may be NULL), each event, and the end, after which the stream is ended. */
    void (*begin)(call *c);
    void (*event)(call *c, choice *from, const vlm_event *event);
    void (*end)(call *c);
    void (*fail)(call *c, const refusal *why);     /* in the middle of a stream */
    void (*ping)(call *c);         /* nothing was sent for a while; NULL: a comment line is */
    /* The answer as one JSON value. */
    json_t *(*whole)(call *c);
    void (*release)(call *c);      /* what `state` holds; may be NULL */
    void (*queued)(call *c, exchange *x);          /* answers x while the call goes on without it */
} call_form;

struct call {
    struct server *server;
    exchange *x;                   /* NULL: nobody listens; whole() is still made, and fail() called */
    exchange *source;              /* the request; its body holds media until the end */
    resident *resident;
    const call_form *form;
    bool stream, usage_wanted, logprobs_wanted, count_only;
    int n;
    choice *choices;               /* [n] */
    arena memory;                  /* of what the form keeps */
    void *state;                   /* the form's */
    char *id;                      /* "chatcmpl-..." */
    char *model;                   /* as the client named it */
    char *tenant;
    int64_t created;               /* seconds since 1970 */
    /* the rest is call.c's */
    bool begun, replied, failed;
    double spoke;                  /* when something was sent last */
    job job;
    atomic_int notes;              /* news since the last run began; the job is queued or runs while it is not 0 */
    struct call *next, **at;       /* in the server's list */
};

/* Starts the answer to x: takes the resident over, submits options (seeds differ by choice), and keeps x until the end. False: refused, nothing has begun. */
typedef struct call_start {
    struct server *server;
    exchange *x;
    resident *resident;
    const call_form *form;
    const vlm_request_options *options;
    const char *const *each;       /* [n] messages of each request, in place of options->messages; NULL: all have the same */
    bool stream, usage_wanted;
    bool count_only;               /* the prompt is made, and counted: usage.prompt_tokens */
    int n;
    const char *id_prefix;         /* "chatcmpl-"; or */
    const char *id;                /* ... the whole id */
    exchange *queued;              /* without x: is answered at once, by form->queued */
    const char *tenant;            /* borrowed or in `memory`; NULL: "" */
    const char *model;             /* NULL: the resident's name */
    void *state;                   /* of the form, in `memory` */
    arena *memory;                 /* becomes the call's; NULL: none */
} call_start;
call *call_begin(const call_start *start, refusal *why);

/* One server-sent event: "data: JSON\n\n", with "event: NAME\n" before it unless NULL. value is taken over. */
void call_send(call *c, const char *event, json_t *value);
void call_send_raw(call *c, const char *text);

/* Stops it within a step; what it has said so far is its answer. Any thread, while the call is in the server's list. */
void call_cancel(call *c);
/* Time has passed: keeps a silent stream alive. Any thread. */
void call_tick(call *c);

/* Sums over the choices. */
vlm_usage call_usage(const call *c);
/* Text that came from a model may end within a character only when the model made it so: then U+FFFD. */
json_t *text_json(const char *text, size_t size);
/* The token's own text. */
json_t *token_json(call *c, int32_t token, float logprob);

#endif
