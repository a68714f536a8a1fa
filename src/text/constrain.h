/* constrain.h - what a request asks of the answer's form, as a grammar: response_format, and tools (toolgrammar.h). */
#ifndef VLM_TEXT_CONSTRAIN_H
#define VLM_TEXT_CONSTRAIN_H

#include <jansson.h>
#include "text/grammar.h"

/* One of
 *   {"type": "text"}                                        no constraint: *out = 0
 *   {"type": "json_object"}                                 any JSON object
 *   {"type": "json_schema", "json_schema": {"schema": S}}   ("schema" may also stand beside "type"; "strict" changes nothing: it always is)
 *   {"type": "regex", "regex": R}  {"type": "choice", "choice": [...]}
 *   {"type": "grammar", "grammar": G, "syntax": "gbnf" | "lark"}      (also "definition", as OpenAI has it; syntax "regex", too)
 * or the short form {"schema" | "regex" | "choice" | "ebnf" | "json_object": ...}. Up to two blanks or line ends may come first when lead is set,
 * since models print them after their thinking. The message of an error begins with the path of what is wrong. */
bool constrain_format(grammar_builder *b, const json_t *format, bool lead, grammar_expr *out, vlm_error *error);
/* One of the texts. */
grammar_expr constrain_choice(grammar_builder *b, const json_t *list, vlm_error *error);

#endif
