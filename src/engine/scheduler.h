/* scheduler.h - which tokens of which sequences are computed in the next step, and whose pages make room for them.
 *
 *   waiting ──admit──> running ──────> done            admit: its tokens fit beside what runs (cached prefix taken over)
 *      ^                  │
 *      └──── preempt ─────┘                            pages given back; finished ones stay in the prefix cache
 *
 * A step has a token budget. First every running sequence that only lacks its newest token (decoding) gets it - with those that
 * are known to follow it, in one run -, then prompts get chunks, in order: higher priority first, then the earlier. Nobody is overtaken for ever: a waiting sequence
 * gains a point of priority each PATIENCE steps, and while a running sequence lacks pages nobody is admitted.
 * Out of pages: the last in order is preempted and waits again, at its old place; it is computed again later, mostly from the
 * prefix cache. The first in order is never preempted for another, so something always finishes.
 *
 * A sequence with cross-attention first gets its memory, keys and values of encoder rows, in chunks like a prompt; it has pages of its own, which are
 * published when they are full: whoever shows the same media again finds them.
 *
 * A chunk ends where media rows are not encoded yet, and never inside a media block that sees itself whole. With recurrent
 * state a chunk ends at the last page border of the prompt, where the state is kept for the prefix cache; where kinds of tokens are told apart,
 * at the end of the prompt.
 * Sequences of one request's beams share pages: a page that is not full is copied when a sequence writes to it while others hold it.
 * One that waits for the others keeps its pages until somebody needs them.
 * None of this changes a token: rows of a step do not depend on each other. */
#ifndef VLM_ENGINE_SCHEDULER_H
#define VLM_ENGINE_SCHEDULER_H

#include "engine/prefix.h"

enum { PATIENCE = 64, MAX_AHEAD = 64 };

typedef struct sequence {
    const prompt *prompt;
    int32_t *tokens;               /* prompt and answer */
    int n, capacity, n_prompt;
    int computed;                  /* tokens whose keys and values are in the pages */
    int logits_from;               /* rows of logits are wanted of the tokens from here on: the last one, and before it those that forced ones follow */
    int ahead;                     /* known tokens after the last sampled one: computed in one run with it */
    int admitted;                  /* n when it was last admitted */
    int cached;                    /* of these, taken over from the cache at the first admission; -1: not admitted yet */
    int longest_block;             /* tokens of the longest media block that sees itself whole */
    int priority;
    float *hidden;                 /* rows after the final norm are wanted instead of logits: of each prompt token or of the last one; NULL: no */
    bool every;                    /* ... of each */
    uint64_t adapters;             /* mask: what its tokens are computed with */
    uint64_t arrival;
    uint32_t patience;             /* steps spent waiting */
    bool far;                      /* more tokens than scheduler.trained: all of them are computed as those of a long text */
    bool alone;                    /* a step that it was in failed: it runs alone next time */
    int preemptions;
    page_table table[MAX_KV_GROUPS];
    page *state, *next_state;      /* recurrent state after `computed` tokens; where the step under way writes it */
    page_table memory;             /* what cross-attention reads: all of prompt->memory.rows, before the first token is computed */
    int remembered;                /* rows of it that are there */
    digest root, *keys;            /* keys of the full blocks */
    int n_keys, keys_capacity;
    bool unkeyed;                  /* no key could be made: nothing more is published */
    int beam;                      /* which of its owner's beams it is */
    bool idle;                     /* a beam that waits for the others: nothing of it is to be computed */
    void *owner;
} sequence;

typedef struct planned { sequence *seq; int first, count, logits; } planned;      /* logits: of the last so many tokens */
typedef struct filling { sequence *seq; int first, count; } filling;              /* rows of its memory */

typedef struct scheduler {
    pages *pages;
    int step_tokens, chunk, max_running;
    int trained;                   /* > 0: a sequence that gets longer is computed anew, with keys of its own in the cache */
    bool bidirectional;
    bool kinds;                    /* tokens of prompts and of answers are computed in different ways (device.kinds): no chunk has both */
    sequence **waiting, **running; /* both in order of precedence */
    int n_waiting, n_running, capacity;
    planned *plan;                 /* of the next step; where kinds are told apart the first n_answers are of answers, the others of prompts */
    int n_plan, n_answers, plan_tokens;
    filling *fill;                 /* memories that get rows in the next step, before its tokens */
    int n_fill;
    uint64_t blocked_room;         /* room when the first in line did not fit; it is not tried again before there is more */
    bool short_of_pages;
    uint64_t preemptions;
    /* Makes sure that the rows of prompt->media[i] are there or on their way. Returns true when they are there. */
    bool (*media_ready)(void *user, sequence *seq, int media);
    void *user;
} scheduler;

void scheduler_free(scheduler *s);
/* Takes a sequence into the waiting list. False: out of memory. */
bool scheduler_add(scheduler *s, sequence *seq);
/* child (zeroed) becomes a sequence like parent with one token more, at the same place in line; whatever the parent has computed is shared: pages are
 * copied when one of them writes. False: out of memory; the child may be freed as it is. */
bool scheduler_fork(scheduler *s, const sequence *parent, sequence *child, int32_t token);
/* Takes it out of all lists and gives its pages back. */
void scheduler_remove(scheduler *s, sequence *seq);
/* Plans a step. Sequences that can never run are reported one at a time: *unfit is set with the reason, the caller ends it and
 * plans again. Returns false when there is nothing to do (or *unfit). */
bool scheduler_plan(scheduler *s, sequence **unfit, vlm_error *why);
/* The planned step was computed: counts, publishes full pages, moves windows. */
void scheduler_done(scheduler *s);
/* The planned step failed and changed nothing that counts: all of it is computed again, one sequence at a time. */
void scheduler_failed(scheduler *s);
/* Appends a sampled token: its logits are what comes next. */
bool sequence_add(sequence *seq, int32_t token);
/* Appends a token that is known without sampling (a forced one, or one of a draft). The run of the next step grows by it, up to
 * MAX_AHEAD. each: the logits that it would have been sampled from are wanted too. */
bool sequence_force(sequence *seq, int32_t token, bool each);
void sequence_free(sequence *seq);
/* Preempts the youngest running sequence though there is room (tests). */
void scheduler_preempt_youngest(scheduler *s);
/* Bytes of pages for n tokens, when computed in chunks of `chunk`, and a memory of so many rows. */
uint64_t scheduler_bytes(const pages *p, int n, int memory_rows, int chunk);
/* Is the sequence's memory in the cache? */
bool scheduler_remembers(const scheduler *s, const sequence *seq);
/* Tokens of a prompt that the cache holds now. Makes the sequence's keys if need be. */
int scheduler_peek(scheduler *s, sequence *seq);

#endif
