/* guide.h - what may come next in an answer, and what has to.
 *
 *     thinking   when its budget is used up, the tokens of its end are forced
 *     grammar    behind the thinking, only tokens that it takes may come; text without a choice is forced, in the tokenizer's own tokens
 *     least      before min_tokens, tokens that end the answer may not come
 *
 * A guide follows the tokens as soon as they are known: drawn, or forced by itself. What they mean to the caller is output.h's business.
 * It depends on nothing but the tokens, so neither batch nor preemption can change what it says. */
#ifndef VLM_ENGINE_GUIDE_H
#define VLM_ENGINE_GUIDE_H

#include "engine/output.h"
#include "engine/sampler.h"
#include "engine/thinking.h"
#include "text/grammar.h"

typedef struct guide {
    const tokenizer *tok;
    thinking think;
    buf text;
    grammar *grammar;              /* NULL: any text */
    matcher *matcher;
    uint64_t *mask;                /* [words] of the next token */
    ids opening;                   /* tokens that begin thinking, where the grammar would not let them; the first is a marker of its own */
    int opened;                    /* of these, how many came */
    ids lead;                      /* tokens between the thinking and what the grammar is for */
    int led;                       /* of these, how many came */
    bool thought;                  /* there was thinking */
    ids forced;                    /* that come next */
    const int32_t *ends;           /* [n_ends] tokens that end the answer; borrowed */
    int n_ends, least;             /* tokens that have to come before those */
    int count;                     /* tokens so far */
    vlm_error error;               /* of guide_limits */
} guide;

typedef struct guide_options {
    const output_marks *marks;
    const char *start, *end;       /* thinking markers that replace the format's; NULL: the format's */
    int budget, min_tokens;
    const int32_t *ends;           /* stay with the caller */
    int n_ends;
} guide_options;

/* prompt: its ids; their end tells whether it leaves the answer thinking. */
bool guide_init(guide *g, const vlm_model *m, const guide_options *options, const ids *prompt, vlm_error *error);
void guide_free(guide *g);
typedef struct guide_hold_options {
    const output_marks *marks;
    bool calls;                    /* the grammar is for calls, too, with all that stands before them */
    bool may_think;                /* the answer may begin with thinking that the prompt did not open */
} guide_hold_options;
/* From now on the answer is held to the grammar. Before the first token. */
bool guide_hold(guide *g, grammar *to, const guide_hold_options *options, vlm_error *error);
/* Is the answer inside its thinking (at the beginning: did the prompt leave it open)? */
bool guide_thinks(const guide *g);
/* One more token. False: out of memory, or the token cannot come here (error says which). */
bool guide_add(guide *g, int32_t token, vlm_error *error);
/* Nothing but the end may follow. */
bool guide_finished(const guide *g);
/* What the next token may be. Only memory of the guide is used: different guides may be asked at the same time. After a failure nothing is
 * allowed, and `error` is set. */
sampler_limits guide_limits(guide *g);
/* Tokens that come next whatever the model wants, to be passed to guide_add one by one; *count is 0 when the model decides. Valid until
 * the next call of guide_forced. */
const int32_t *guide_forced(guide *g, int *count);

#endif
