/* grammar_cost.h - what a grammar costs a model's vocabulary: for `vlm grammar`'s "cost" and for bench/grammar.py. */
#ifndef VLM_CLI_GRAMMAR_COST_H
#define VLM_CLI_GRAMMAR_COST_H

#include <jansson.h>
#include "text/grammar.h"

/* Compiles anew with compile(what, vocab, error), then follows the text token by token: once cold, once warm.
 * {"compile_us", "tokens", "allowed": how many of them the masks had, "first_us": [...], "again_us": [...], "sizes": [tokens in each mask]}.
 * ids of input ("ids": [...]) are taken instead of the tokenizer's own encoding of the text. */
json_t *grammar_cost(grammar *(*compile)(const json_t *, grammar_vocab *, vlm_error *), const json_t *what, const json_t *input, const tokenizer *t,
                     grammar_vocab *vocab, vlm_error *error);

#endif
