/* schema.h - JSON schema to grammar (draft 2020-12 and the older spellings); docs/grammar.md says what is taken, what not, and how.
 *
 * Policies: properties come in the order in which the schema names them (those only in `required` after them, others last); white space between
 * tokens is optional and bounded; keys and constants are spelled with as few escapes as JSON allows (other characters than ASCII also as
 * \uXXXX), free strings in any way. Unknown keywords are ignored; known ones that cannot be enforced are refused with their path, such as
 * "$.properties.x.uniqueItems: ...". */
#ifndef VLM_TEXT_SCHEMA_H
#define VLM_TEXT_SCHEMA_H

#include <jansson.h>
#include "text/grammar.h"

typedef struct schema_options {
    const char *space;             /* regular expression of the white space between tokens; NULL: SCHEMA_SPACE; "": none */
    bool closed;                   /* objects with declared properties take no others unless additionalProperties says so */
    bool one_of_any;               /* oneOf is taken as anyOf also when its branches may overlap */
} schema_options;

/* Some blanks, at most two line ends, indentation: what models print, and not without end. */
#define SCHEMA_SPACE "[ \\t]{0,4}(\\r?\\n[ \\t]{0,80}){0,2}"

/* The JSON values that the schema (an object or a boolean) admits. options may be NULL. 0: *error says why (and b has failed, too, when it was the cause).
 * The schema is read during the call only. */
grammar_expr schema_expr(grammar_builder *b, const json_t *schema, const schema_options *options, vlm_error *error);
/* Any JSON object; any JSON value. */
grammar_expr schema_json_object(grammar_builder *b, const schema_options *options, vlm_error *error);

#endif
