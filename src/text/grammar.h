/* grammar.h - which tokens may come next: formal grammars over bytes, compiled once, followed by one small matcher per request.
 *
 *     grammar_builder *b = grammar_builder_new(NULL);
 *     grammar_expr number = grammar_regex(b, "-?\\d+", 5, 0), list = grammar_rule(b, "list");
 *     grammar_define(b, list, grammar_seq(b, (grammar_expr[]){grammar_text(b, "["), grammar_alt2(b, number, list), grammar_text(b, "]")}, 3));
 *     grammar *g = grammar_compile(b, list, vocab, &error);          // builder may be freed now
 *     matcher *m = matcher_new(g, &error);
 *     each step: matcher_mask(m, mask, &error); sample; matcher_token(m, token, &error)
 *
 * How it works: every rule is a regular expression whose alphabet is bytes, other rules and special tokens. Brzozowski derivatives
 * make it an automaton while it is used, so bounded repeats, intersection and complement cost what is visited of them. Calls of
 * rules go to a stack; all ways to read the text so far are followed together as one hash-consed set of (state, stack), a row.
 * Any context-free grammar is taken: ambiguous ones, and left-recursive ones (rewritten when compiled). */
#ifndef VLM_TEXT_GRAMMAR_H
#define VLM_TEXT_GRAMMAR_H

#include "base/mem.h"
#include "text/tokenizer.h"

/* ---- expressions ----
 * A handle in the builder; equal expressions have equal handles. Errors stick: after the first, every call returns 0, 0 is taken
 * everywhere, and grammar_compile (or grammar_builder_error) tells what was wrong. Not thread-safe. */
typedef struct grammar_builder grammar_builder;
typedef uint32_t grammar_expr;

typedef struct grammar_limits {
    size_t nodes;                  /* expressions of the builder, and of the compiled grammar; 0: 4 million */
    size_t memory;                 /* bytes that matching may take for states, per grammar; 0: 256 MiB */
    size_t items;                  /* parallel readings at one place; 0: 4096 */
} grammar_limits;

grammar_builder *grammar_builder_new(const grammar_limits *limits);       /* NULL: out of memory, or defaults as limits */
void grammar_builder_free(grammar_builder *b);
/* The first error, or NULL. */
const vlm_error *grammar_builder_error(const grammar_builder *b);
/* Sets the error if there is none yet (for front ends). Returns 0. */
grammar_expr grammar_fail(grammar_builder *b, vlm_status code, const char *format, ...) __attribute__((format(printf, 3, 4)));

grammar_expr grammar_none(grammar_builder *b);                            /* matches nothing, not even the empty text */
grammar_expr grammar_empty(grammar_builder *b);                           /* the empty text */
grammar_expr grammar_bytes(grammar_builder *b, const void *data, size_t size);
grammar_expr grammar_text(grammar_builder *b, const char *text);
grammar_expr grammar_text_icase(grammar_builder *b, const char *text, size_t size);   /* in any case of letters (simple case folding) */
typedef struct grammar_range { uint32_t first, last; } grammar_range;     /* code points, both ends included */
/* One character as UTF-8, of these ranges (any order, may overlap); negated: any other scalar value. */
grammar_expr grammar_class(grammar_builder *b, const grammar_range *range, size_t count, bool negated);
grammar_expr grammar_any(grammar_builder *b);                             /* any one character, line feed included */
grammar_expr grammar_byte_range(grammar_builder *b, uint8_t first, uint8_t last);     /* one raw byte */
grammar_expr grammar_seq(grammar_builder *b, const grammar_expr *list, size_t count);
grammar_expr grammar_seq2(grammar_builder *b, grammar_expr first, grammar_expr second);
grammar_expr grammar_alt(grammar_builder *b, const grammar_expr *list, size_t count); /* count 0: grammar_none */
grammar_expr grammar_alt2(grammar_builder *b, grammar_expr first, grammar_expr second);
grammar_expr grammar_repeat(grammar_builder *b, grammar_expr x, uint32_t min, int64_t max);   /* max -1: no end */
grammar_expr grammar_optional(grammar_builder *b, grammar_expr x);
/* One of many literals, shared beginnings factored out: for enums and choices. */
typedef struct grammar_literal { const char *text; size_t size; } grammar_literal;
grammar_expr grammar_one_of(grammar_builder *b, const grammar_literal *list, size_t count);

/* What a finished automaton over bytes matches, starting in state 0: for every (from, byte) one edge at most; accept[state] != 0: may end. */
typedef struct grammar_dfa_edge { uint32_t from; uint8_t low, high; uint32_t to; } grammar_dfa_edge;
grammar_expr grammar_dfa(grammar_builder *b, const grammar_dfa_edge *edge, size_t edges, const uint8_t *accept, uint32_t states);

/* Rules. grammar_rule declares (or finds) a rule by name and returns a reference; grammar_define gives its body, once. NULL name: a new
 * nameless rule each time. */
grammar_expr grammar_rule(grammar_builder *b, const char *name);
void grammar_define(grammar_builder *b, grammar_expr rule, grammar_expr body);
bool grammar_is_defined(const grammar_builder *b, grammar_expr rule);
/* A nameless rule with this body, the same one for the same body. Use it for what occurs in many places and ends in different
 * ones (a JSON string, a number): its masks are then computed once, not once for each place. Takes and gives the same language. */
grammar_expr grammar_outline(grammar_builder *b, grammar_expr body);

/* Regular operations: operands must not refer to recursive rules nor to special tokens (checked by grammar_compile). */
grammar_expr grammar_and(grammar_builder *b, grammar_expr x, grammar_expr y);         /* texts that match both */
grammar_expr grammar_not(grammar_builder *b, grammar_expr x);                         /* every UTF-8 text that x does not match */
/* UTF-8 text, empty too, in which none of the literals occurs: free text before a tag. */
grammar_expr grammar_without(grammar_builder *b, const grammar_literal *list, size_t count);
/* Text up to and including the first occurrence of one of the literals. */
grammar_expr grammar_until(grammar_builder *b, const grammar_literal *list, size_t count);

/* A special token. By text: the token of that name if the vocabulary has it, else its text as bytes. */
grammar_expr grammar_token(grammar_builder *b, int32_t id);
grammar_expr grammar_token_text(grammar_builder *b, const char *text, size_t size);

/* A regular expression (the common part of ECMAScript, Python and PCRE): . [] [^] | () (?:) (?<n>) (?P<n>) (?i) (?s) * + ? {n,m} and their
 * lazy and possessive spellings (all the same language), ^ $ \A \z \Z, \d \w \s \D \W \S \h \R \t \n \r \f \v \0 \xHH \uHHHH \u{H} \UHHHHHHHH
 * \cX \p{..} \P{..} (general categories, scripts are refused), [:alpha:]. Surrogate pairs \uD83D\uDE00 are joined. Lookaround, \b, \B and
 * back references are refused with their position. \d \w \s are ASCII unless GRAMMAR_UNICODE; . is all but line feed unless GRAMMAR_DOTALL.
 * Anchored: the whole text must match, ^ and $ may only stand at the ends. GRAMMAR_SEARCH: somewhere in the text, where ^ and $ do not
 * forbid it (JSON Schema's `pattern`). */
enum { GRAMMAR_ICASE = 1, GRAMMAR_UNICODE = 2, GRAMMAR_DOTALL = 4, GRAMMAR_SEARCH = 8 };
grammar_expr grammar_regex(grammar_builder *b, const char *pattern, size_t size, unsigned flags);

/* ---- vocabulary: the tokens' bytes as tries; one per model, shared, immutable ---- */
typedef struct grammar_vocab grammar_vocab;
typedef struct grammar_piece { const char *bytes; size_t size; bool special; } grammar_piece;   /* special: never text; bytes is its name */
/* eos: tokens that end the answer: allowed where the grammar may end. Strings are copied. */
grammar_vocab *grammar_vocab_new(const grammar_piece *piece, size_t count, const int32_t *eos, size_t n_eos, vlm_error *error);
grammar_vocab *grammar_vocab_from_tokenizer(const tokenizer *t, const int32_t *eos, size_t n_eos, vlm_error *error);
grammar_vocab *grammar_vocab_ref(grammar_vocab *v);
void grammar_vocab_unref(grammar_vocab *v);
size_t grammar_vocab_size(const grammar_vocab *v);                        /* number of tokens: bits of a mask */
size_t grammar_vocab_words(const grammar_vocab *v);                       /* 64-bit words of a mask */

/* ---- compiled grammar: immutable to its users, reference-counted, thread-safe; what was computed for one request serves the next ---- */
typedef struct grammar grammar;
/* vocab may be NULL (bytes only; no masks). The builder stays as it is and may be freed. */
grammar *grammar_compile(grammar_builder *b, grammar_expr root, grammar_vocab *vocab, vlm_error *error);
grammar *grammar_ref(grammar *g);
void grammar_unref(grammar *g);
grammar_vocab *grammar_get_vocab(const grammar *g);                       /* borrowed */

/* ---- matcher: where one request is. One thread at a time; different matchers of one grammar may be used by different threads ---- */
typedef struct matcher matcher;
matcher *matcher_new(grammar *g, vlm_error *error);
/* Costs one small allocation; history is copied too. */
matcher *matcher_copy(const matcher *m, vlm_error *error);
void matcher_free(matcher *m);
/* Takes bytes as long as they fit; true when all do, else *at (may be NULL) is the offset of the first that does not, and the matcher
 * stays before it. One step of history. False with error->code != VLM_OK: a limit or memory. */
bool matcher_bytes(matcher *m, const void *data, size_t size, size_t *at, vlm_error *error);
/* Takes one token; false if it is not allowed (the matcher stays where it was) or on error (error->code). An eos token is allowed when
 * the grammar may end; after it nothing is. */
bool matcher_token(matcher *m, int32_t token, vlm_error *error);
/* Sets the bits of all tokens that may come next and clears the others: bit t of word t / 64. */
bool matcher_mask(matcher *m, uint64_t *mask, vlm_error *error);
/* How many of these tokens would be taken one after another? The matcher does not move. For speculation. */
size_t matcher_try(matcher *m, const int32_t *token, size_t count, vlm_error *error);
bool matcher_accepting(const matcher *m);                                 /* the text may end here */
bool matcher_finished(const matcher *m);                                  /* nothing but the end may follow (or eos was taken) */
/* Appends the bytes that must come next, whatever is chosen (at most limit); nothing when there is a choice or the text may end. */
bool matcher_forced(matcher *m, size_t limit, buf *out, vlm_error *error);
/* Takes back the last n accepted tokens (or matcher_bytes calls); false if there are not so many. At least the last 1024 are kept. */
bool matcher_rollback(matcher *m, size_t n);
size_t matcher_history(const matcher *m);                                 /* how many can be taken back */

#endif
