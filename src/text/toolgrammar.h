/* toolgrammar.h - tool calls by grammar: what a model may print so that its calls name a tool of the request and their arguments follow its schema.
 *
 *     answer = begin CALL (between CALL)* end        as the format spells it, see toolcall.h
 *
 * required, or a tool named: the answer is calls. auto: free text, and from the format's trigger on calls; only when a tool is strict
 * or the content is given. Without
 * parallel there is one call. Schemas are taken as in schema.h, but objects with declared properties take no others unless the schema says so.
 * A schema that is refused is an error for a strict tool; another tool then takes any object. In formats with tags, strings are raw and may not hold
 * the format's own tags; Gemma's keys come sorted, as its template writes them. The grammar begins after the thinking. */
#ifndef VLM_TEXT_TOOLGRAMMAR_H
#define VLM_TEXT_TOOLGRAMMAR_H

#include <jansson.h>
#include "text/grammar.h"
#include "text/toolcall.h"

/* tools: OpenAI's list, or bare functions. choice: NULL or "auto", "none", "required", an object that names a function. content: what the answer is when
 * it is no calls (auto; 0: any text). lead: up to two blanks or line ends may come first. *out = 0: nothing is enforced. */
bool toolgrammar(grammar_builder *b, const toolcall_format *f, const json_t *tools, const json_t *choice, bool parallel, grammar_expr content, bool lead,
                 grammar_expr *out, vlm_error *error);

#endif
