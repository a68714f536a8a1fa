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

/* How a value is written. */
typedef enum schema_notation {
    SCHEMA_JSON,
    SCHEMA_PYTHON,                 /* literals: 'a' "a" 1.5 True None [..] {"k": v} */
    SCHEMA_PAIRS,                  /* {key:value,...} with bare keys, strings between quotes of options.pairs_quote, nothing escaped */
    SCHEMA_RAW,                    /* a string without quotes */
    SCHEMA_ARGUMENTS,              /* an object as key=literal, key=literal (Python) */
    SCHEMA_TAGS,                   /* an object as a tag for each member, see schema_tags */
    SCHEMA_NOTATIONS
} schema_notation;

/* Members of an object as tags: text BEGIN, key, text MIDDLE, value, text END. A value that is read back as a string is raw, others are JSON. */
typedef enum schema_tag_part { SCHEMA_TAG_BEGIN, SCHEMA_TAG_MIDDLE, SCHEMA_TAG_END, SCHEMA_TAG_BETWEEN } schema_tag_part;
enum { SCHEMA_READ_STRING = 1, SCHEMA_READ_OTHER = 2, SCHEMA_READ_TAGGED = 4 };
typedef struct schema_tags {
    /* type: JSON name of the value's type, for MIDDLE; key NULL: of a member that is not declared. 0: failed. */
    grammar_expr (*text)(void *user, schema_tag_part part, const char *key, const char *type);
    /* What the reader makes of the member's text: SCHEMA_READ_STRING: text as it is, SCHEMA_READ_OTHER: JSON; both: JSON that is no string, else text.
     * SCHEMA_READ_TAGGED: as the type in MIDDLE says. */
    unsigned (*reads)(void *user, const char *key);
    void *user;
    const char *const *forbidden;  /* texts that do not occur in a raw value, NULL-terminated */
    bool trimmed;                  /* raw values do not begin or end with white space */
} schema_tags;

typedef struct schema_options {
    schema_notation notation;
    const char *pairs_quote;
    grammar_expr pairs_quote_expr; /* the same as an expression (it may be a special token) */
    const schema_tags *tags;
    bool sorted;                   /* properties in the order of their names, not of the schema */
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
