/* sampler.h - from logits to the next token.
 *
 * The order of things, always the same:
 *   1 log-probabilities that are reported: of the raw logits, before anything below
 *   2 what the limits do not allow becomes impossible (the grammar's mask; ends before min_tokens), so do suppressed tokens of
 *     generation_config.json, those of begin_suppress_tokens for the first token of the answer; logit_bias, then repetition, presence and frequency penalty, each over its own window of the last tokens (prompt and answer);
 *     repetition: positive logits divided, negative multiplied, once for each token in the window; presence: subtracted once;
 *     frequency: subtracted for each occurrence
 *   3 temperature 0: the largest logit, of equal ones the lowest id. Otherwise
 *   4 top_n_sigma: logit >= max - n * standard deviation of all logits
 *   5 typical_p: those nearest to the entropy, until their probabilities sum up to typical_p
 *   6 top_k: the k largest, of equal ones the lower ids
 *   7 top_p: the largest of the tempered distribution, until they sum up to top_p
 *   8 min_p: probability >= min_p * largest (temperature 1)
 *   9 a draw from what is left, tempered: inverse of the cumulative distribution in order of ids at u = hash(seed, position)
 * u depends on nothing but seed and position in the sequence, so neither the batch nor a preemption changes the answer. */
#ifndef VLM_ENGINE_SAMPLER_H
#define VLM_ENGINE_SAMPLER_H

#include "models/model.h"

enum { MAX_TOP_LOGPROBS = 20 };

typedef struct sampler {
    vlm_sampling options;          /* resolved: no NAN, no -1; logit_bias is not used */
    int32_t *bias_token;
    float *bias;
    int n_bias;
    int32_t *suppress;             /* never sampled; the first n_begin only not as the first token */
    int n_suppress, n_begin;
    int no_repeat;                 /* no so many tokens in a row come twice; 0: they may */
    int32_t forced_first, forced_last;     /* of the answer; -1: none */
} sampler;

typedef struct sampled {
    int32_t token;                 /* -1: no logit is a number, or nothing is allowed */
    float logprob;
    int top_count;
    vlm_top_logprob top[MAX_TOP_LOGPROBS];
} sampled;

/* What may come next apart from what the sampler wants. */
typedef struct sampler_limits {
    const uint64_t *allowed;       /* a bit for each token; NULL: all */
    int n_allowed;                 /* bits; tokens beyond are not allowed */
    const int32_t *banned;
    int n_banned;
    bool last;                     /* no token may follow */
} sampler_limits;

/* Checks ranges; what the request leaves open comes from the model (generation_config.json). */
bool sampler_init(sampler *s, const vlm_model *m, const vlm_sampling *options, vlm_error *error);
void sampler_free(sampler *s);
size_t sampler_scratch(int vocab);                /* bytes */
/* logits [vocab] are changed. tokens [n]: n_prompt of the prompt and the answer so far; the new token gets position n.
 * limits: NULL: none. scratch: aligned to 8. */
void sampler_draw(const sampler *s, float *logits, int vocab, const int32_t *tokens, int n, int n_prompt, const sampler_limits *limits,
                  void *scratch, sampled *out);
/* The first part of that: logits (or logarithms of probabilities) of what may not come are -infinity, penalties are taken off. scratch as above. */
void sampler_rules(const sampler *s, float *logits, int vocab, const int32_t *tokens, int n, int n_prompt, const sampler_limits *limits, void *scratch);
/* What is reported of a token that is known without sampling, from the logits that it would have been sampled from. */
void sampler_given(const sampler *s, const float *logits, int vocab, int32_t token, sampled *out);
/* In [0, 1). */
double sampler_uniform(uint64_t seed, uint64_t position);

#endif
