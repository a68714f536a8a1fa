/* guide.h - what may come next in an answer, and what has to.
 *
 *     thinking   when its budget is used up, the tokens of its end are forced
 *     least      before min_tokens, tokens that end the answer may not come
 *
 * A guide follows the tokens as soon as they are known: drawn, or forced by itself. What they mean to the caller is output.h's business. */
#ifndef VLM_ENGINE_GUIDE_H
#define VLM_ENGINE_GUIDE_H

#include "engine/sampler.h"
#include "engine/thinking.h"

typedef struct guide {
    thinking think;
    detokenizer *detok;            /* with control tokens; only while somebody looks at the text */
    buf text;
    const int32_t *ends;           /* [n_ends] tokens that end the answer; borrowed */
    int n_ends, least;             /* tokens that have to come before those */
    int count;                     /* tokens so far */
} guide;

typedef struct guide_options {
    const char *start, *end;       /* thinking markers that replace the format's; NULL: the format's */
    int budget, min_tokens;
    const int32_t *ends;           /* stay with the caller */
    int n_ends;
} guide_options;

/* prompt: its ids; their end tells whether it leaves the answer thinking. */
bool guide_init(guide *g, const vlm_model *m, const guide_options *options, const ids *prompt, vlm_error *error);
void guide_free(guide *g);
/* One more token. False: out of memory, or the token cannot come here (error says which). */
bool guide_add(guide *g, int32_t token, vlm_error *error);
/* What the next token may be. Only memory of the guide is used: different guides may be asked at the same time. */
sampler_limits guide_limits(guide *g);
/* Tokens that come next whatever the model wants, to be passed to guide_add one by one; *count is 0 when the model decides. */
const int32_t *guide_forced(guide *g, int *count);

#endif
