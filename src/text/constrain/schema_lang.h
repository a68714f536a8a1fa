/* schema_lang.h - sets of strings: regular expressions over code points with intersection and complement.
 *
 * What a JSON schema says of one string (pattern, length, format, a key that is none of the declared ones) is a set of strings; here such sets
 * are combined, tested, and turned into a finite automaton over bytes, either of the text itself or of its spellings inside a JSON string.
 *
 * Expressions are shared nodes of a pool (equal ones have one number); the automaton comes from Brzozowski's derivatives, so that "and" and
 * "not" cost nothing special. A pool has ceilings for nodes and states: hostile patterns end with VLM_LIMIT. */
#ifndef VLM_TEXT_SCHEMA_LANG_H
#define VLM_TEXT_SCHEMA_LANG_H

#include <stdbool.h>
#include <stdint.h>
#include "base/mem.h"
#include "text/grammar.h"
#include "vlm.h"

/* ---- finite automata, start state 0 ---- */
typedef struct dfa_edge { uint32_t from, low, high, to; } dfa_edge;     /* grouped by from */
typedef struct dfa {
    dfa_edge *edge;
    size_t edges, capacity;
    uint8_t *accept;
    uint32_t states;               /* 0: the empty set */
} dfa;
bool dfa_edge_add(dfa *d, uint32_t from, uint32_t low, uint32_t high, uint32_t to);
/* Takes out the states from which no accepting one is reached. False: out of memory. */
bool dfa_trim(dfa *d);
void dfa_free(dfa *d);

/* ---- expressions ---- */
typedef struct lang_pool lang_pool;
typedef uint32_t lang;             /* a node of the pool; LANG_NONE after a failure, which the pool remembers */
enum { LANG_NONE = 0 };            /* the set without strings is lang_fail(), a node like others */
#define LANG_MANY UINT32_MAX       /* no upper bound of repetition */

typedef struct lang_range { uint32_t low, high; } lang_range;

lang_pool *lang_pool_new(vlm_error *error);
void lang_pool_free(lang_pool *p);
/* Did something fail (memory or ceilings)? *error says what. */
bool lang_failed(const lang_pool *p, vlm_error *error);

lang lang_fail(lang_pool *p);                                  /* no string */
lang lang_empty(lang_pool *p);                                 /* the empty string */
lang lang_any(lang_pool *p);                                   /* every string */
lang lang_class(lang_pool *p, const lang_range *range, size_t count, bool negated);   /* ranges in any order */
lang lang_text(lang_pool *p, const char *text, size_t size);   /* UTF-8 */
lang lang_seq(lang_pool *p, lang a, lang b);
lang lang_alt(lang_pool *p, lang a, lang b);
lang lang_and(lang_pool *p, lang a, lang b);
lang lang_not(lang_pool *p, lang a);
lang lang_repeat(lang_pool *p, lang a, uint32_t min, uint32_t max);
/* Any of the texts: a balanced alternative, for large enumerations. */
lang lang_texts(lang_pool *p, const char *const *text, const size_t *size, size_t count);

/* A pattern of ECMA-262 as JSON schema has it: \d \w are ASCII. search: it may match anywhere in the string, ^ and $ tie it to the ends; else
 * it matches the whole string. Lookahead is taken at the outermost level; lookbehind, back references and word boundaries are refused. */
lang lang_regex(lang_pool *p, const char *pattern, size_t size, bool search, vlm_error *error);

bool lang_matches(lang_pool *p, lang a, const char *text, size_t size);
/* Is no string in the set? 1 yes, 0 no, -1 the ceilings were hit. */
int lang_is_fail(lang_pool *p, lang a);

/* As bytes: of UTF-8 text, or of all spellings in a JSON string (between the quotes): as it is, \n and its like, \uXXXX; or in a string of Python
 * between double or single quotes, with the escapes that JSON has, too. */
typedef enum lang_form { LANG_UTF8, LANG_JSON, LANG_DOUBLE, LANG_SINGLE } lang_form;
bool lang_dfa(lang_pool *p, lang a, lang_form form, dfa *out, vlm_error *error);
/* The same as an expression of the grammar. *plain is false (and the answer 0) when there is an intersection or complement in it. */
grammar_expr lang_expr(lang_pool *p, lang a, lang_form form, grammar_builder *b, bool *plain);

#endif
