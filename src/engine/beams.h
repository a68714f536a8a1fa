/* beams.h - beam search: the most probable answer that can be found with a few at a time.
 *
 *   prompt ─> [beam 0] ──best tokens of each beam──> the best `keep` of all ──┬── ended ──> finished, if they are among the first n
 *                 ^                                                          └── the best n others: the next beams ──┐
 *                 └────────────────────────── forks: pages are shared until one writes (scheduler.h) ───────────────┘
 *
 * Every beam is a sequence of its own in the scheduler; nobody waits in step with others: a beam's best tokens are kept until all beams have theirs.
 * Scores are sums of log-probabilities after the sampler's rules, in float32 as the reference has them; those of finished answers are divided by
 * length^length_penalty. The rules of when it is over are the reference's (transformers' generate with num_beams). */
#ifndef VLM_ENGINE_BEAMS_H
#define VLM_ENGINE_BEAMS_H

#include "engine/sampler.h"
#include "engine/scheduler.h"

enum { MAX_BEAMS = 64 };
typedef enum beams_early { BEAMS_HEURISTIC, BEAMS_EARLY, BEAMS_NEVER } beams_early;

typedef struct beam_candidate { float score, logprob; int32_t token; } beam_candidate;        /* score: of the whole beam with it */

typedef struct beam {
    sequence *seq;
    float score;
    float *logprobs;               /* of the answer's tokens */
    beam_candidate *best;          /* [keep] falling, when `there` */
    bool there;
} beam;

typedef struct hypothesis { float score; bool done; int32_t *tokens; float *logprobs; int n; } hypothesis;       /* tokens of the answer */

typedef struct beams {
    int n, keep;                   /* beams; candidates looked at in each step */
    float length_penalty;
    beams_early early;
    beam beam[MAX_BEAMS];
    hypothesis finished[MAX_BEAMS];        /* the best so far, falling */
    bool first;                    /* all beams are still the first one */
    bool open;                     /* finished answers can still be beaten */
    atomic_bool broken;            /* logits that are no numbers */
} beams;

/* `seq`: the sequence with the prompt, which stays the caller's. ends: number of tokens that end an answer. */
beams *beams_new(int n, float length_penalty, beams_early early, int ends, sequence *seq, vlm_error *error);
/* Takes all beams but the caller's sequence out of the scheduler. */
void beams_free(beams *b, scheduler *s, sequence *own);
/* The best tokens after beam `index`; logits are changed. Different beams may be scored at the same time. */
void beams_score(beams *b, int index, const sampler *rules, float *logits, int vocab, const sampler_limits *limits, void *scratch);
bool beams_ready(const beams *b);

typedef struct beams_end { bool (*ends)(const void *user, int32_t token); const void *user; } beams_end;
/* From candidates to the next beams. limit: most tokens in prompt and answer. *over: the search has ended. False: out of memory. */
bool beams_advance(beams *b, scheduler *s, sequence *own, int limit, const beams_end *end, bool *over);
/* The best answer, finished or not: borrowed. */
hypothesis beams_best(beams *b);

#endif
