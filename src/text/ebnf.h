/* ebnf.h - grammars as people write them: GBNF (llama.cpp, xgrammar) and the Lark dialect of llguidance; docs/grammar.md says what is taken. */
#ifndef VLM_TEXT_EBNF_H
#define VLM_TEXT_EBNF_H

#include "text/grammar.h"

typedef enum ebnf_dialect { EBNF_DETECT, EBNF_GBNF, EBNF_LARK } ebnf_dialect;

/* The start rule (root, in Lark start). 0: *error says why, with line and column. A text with "::=" after a name is GBNF, another one Lark. */
grammar_expr ebnf_expr(grammar_builder *b, const char *text, size_t size, ebnf_dialect dialect, vlm_error *error);

#endif
