/* ebnf_internal.h - what constrain/ebnf_gbnf.c and constrain/ebnf_lark.c share: the text with a place in it, names of rules, escapes. */
#ifndef VLM_TEXT_EBNF_INTERNAL_H
#define VLM_TEXT_EBNF_INTERNAL_H

#include "base/err.h"
#include "text/ebnf.h"

enum { EBNF_MAX_SIZE = 4 << 20, EBNF_MAX_DEPTH = 200, EBNF_MAX_RULES = 20000 };

/* Rules of the text by name. They are nameless rules of the builder: two texts in one builder do not meet. */
typedef struct ebnf_rule { const char *name; size_t size; uint32_t hash; grammar_expr rule; size_t used_at; bool defined; } ebnf_rule;

typedef struct ebnf {
    grammar_builder *b;
    const char *text;
    size_t size, at;
    ebnf_rule *rule;
    size_t count, capacity;
    int depth;
    vlm_error *error;
    bool failed;
} ebnf;

/* Sets "line 3, column 5: ..." unless there is an error. Returns 0. */
grammar_expr ebnf_fail(ebnf *e, size_t at, vlm_status status, const char *format, ...) __attribute__((format(printf, 4, 5)));
static inline int ebnf_peek(const ebnf *e, size_t ahead) { return e->at + ahead < e->size ? (unsigned char)e->text[e->at + ahead] : -1; }
bool ebnf_take(ebnf *e, const char *what);
/* The rule of this name, made when it is new; NULL: out of memory. */
ebnf_rule *ebnf_find(ebnf *e, const char *name, size_t size);
/* Are all rules that occur defined? */
bool ebnf_complete(ebnf *e);
/* \xHH, \uHHHH, \UHHHHHHHH with this many digits, at the digits. False: an error is set. */
bool ebnf_hex(ebnf *e, int digits, uint32_t *code);
/* <name> or <[1,5-9]>: a special token; at the "<". */
grammar_expr ebnf_token(ebnf *e);

grammar_expr ebnf_gbnf(ebnf *e);
grammar_expr ebnf_lark(ebnf *e);

#endif
