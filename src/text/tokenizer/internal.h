/* internal.h - what the tokenizer's files share.
 *
 *   text -> added tokens that are not normalized (scan.c, encode.c) -> normalizer (normalize.c) -> normalized added tokens (scan.c)
 *        -> pre-tokenizer (split.c) -> model (bpe.c, unigram.c, wordpiece.c) -> post-processor (encode.c); back: decode.c
 *   files: load.c, parse.c (tokenizer.json), files.c (which file), ranks.c (tekken, tiktoken), sentencepiece.c
 *
 * Byte-level vocabularies are turned into raw bytes when they are loaded ("Ġthe" is stored as " the"), so that encoding and decoding
 * never touch the byte alphabet. */
#ifndef VLM_TEXT_TOK_INTERNAL_H
#define VLM_TEXT_TOK_INTERNAL_H

#include "base/err.h"
#include "text/tokenizer/regex.h"
#include "text/tokenizer/scan.h"
#include "text/tokenizer.h"
#include "text/unicode.h"
#include "text/utf8.h"

enum { TOK_MAX_ID = 1 << 22, TOK_MAX_STEPS = 64, TOK_MAX_POST = 64 };

/* ---- strings to ids: open addressing, strings belong to the tokenizer's arena ---- */
typedef struct tok_slot { const char *text; uint32_t size, hash; int32_t id; } tok_slot;
typedef struct tok_map { tok_slot *slot; size_t capacity, count; } tok_map;
bool tok_map_add(tok_map *m, const char *text, size_t size, int32_t id);    /* replaces an equal key */
int32_t tok_map_find(const tok_map *m, const char *text, size_t size);      /* -1: none */
void tok_map_free(tok_map *m);

/* ---- added tokens ---- */
typedef struct tok_added {
    const char *content;
    uint32_t size;
    int32_t id;
    bool special, lstrip, rstrip, single_word, normalized;
} tok_added;
typedef struct tok_trie_node { uint32_t child, next; int32_t added; uint8_t byte; } tok_trie_node;  /* first child, sibling */
typedef struct tok_trie {
    tok_trie_node *node;
    size_t count, capacity;
    uint32_t root[256];            /* node of each first byte; 0: none */
} tok_trie;
bool tok_trie_add(tok_trie *t, const char *text, size_t size, int32_t added);
void tok_trie_free(tok_trie *t);
/* Node after `byte`; 0: none. */
uint32_t tok_trie_child(const tok_trie *t, uint32_t node, uint8_t byte);
/* Next added token at or after `from`: the leftmost, of these the longest. Index in t->added or -1. */
int32_t tok_trie_find(const tok_trie *t, const char *text, size_t size, size_t from, size_t *start, size_t *end);

/* ---- normalizer, pre-tokenizer, decoder: flat lists of steps ---- */
typedef enum tok_step_kind {
    STEP_NONE,
    NORM_NFC, NORM_NFD, NORM_NFKC, NORM_NFKD, NORM_LOWERCASE, NORM_REPLACE, NORM_PREPEND, NORM_STRIP, NORM_STRIP_ACCENTS, NORM_BERT,
    NORM_PRECOMPILED, NORM_NMT, NORM_BYTE_LEVEL, NORM_SENTENCEPIECE,
    SPLIT_PATTERN, SPLIT_BYTE_LEVEL, SPLIT_METASPACE, SPLIT_DIGITS, SPLIT_WHITESPACE, SPLIT_BERT, SPLIT_WORDS, SPLIT_PUNCTUATION, SPLIT_FIXED, SPLIT_SCRIPTS,
    DECODE_BYTE_LEVEL, DECODE_REPLACE, DECODE_BYTE_FALLBACK, DECODE_FUSE, DECODE_STRIP, DECODE_METASPACE, DECODE_WORDPIECE, DECODE_BPE, DECODE_CTC
} tok_step_kind;
typedef enum tok_behavior { SPLIT_REMOVED, SPLIT_ISOLATED, SPLIT_MERGED_PREVIOUS, SPLIT_MERGED_NEXT, SPLIT_CONTIGUOUS } tok_behavior;
typedef enum tok_prepend { PREPEND_ALWAYS, PREPEND_FIRST, PREPEND_NEVER } tok_prepend;

typedef struct tok_step {
    tok_step_kind kind;
    const char *text;              /* literal pattern, replacement character, prefix ... */
    size_t text_size;
    const char *content;           /* what a pattern is replaced by */
    size_t content_size;
    regex *re;                     /* pattern, or NULL for a literal */
    tok_behavior behavior;
    tok_prepend prepend;
    bool invert;
    bool flag, flag2, flag3, flag4;/* by kind: add_prefix_space, individual_digits, cleanup, left, right ... */
    size_t left, right;            /* Strip decoder: how many; FixedLength */
    const void *table;             /* Precompiled: struct tok_charsmap; sentencepiece: struct tok_spm */
} tok_step;
typedef struct tok_steps { tok_step step[TOK_MAX_STEPS]; size_t count; } tok_steps;

typedef enum tok_model_kind { MODEL_BPE, MODEL_UNIGRAM, MODEL_WORDPIECE, MODEL_WORDLEVEL } tok_model_kind;

typedef struct tok_merge { uint64_t pair; uint32_t rank; int32_t id; } tok_merge;
/* special: a control token. skipped: what decoding without special tokens leaves out, which is a question of the token's text (for a normalized added
 * token that is its normalized text). added: 1 + its place among the added tokens. */
typedef struct tok_token { const char *text; const char *raw; uint32_t text_size, raw_size; bool special, skipped, known; uint32_t added; } tok_token;

struct tokenizer {
    arena strings;
    json_t *config;                /* tokenizer_config.json, or NULL */
    char *pool;                    /* strings of the vocabulary */
    tok_token *token;              /* by id; text as stored in the vocabulary, raw: its bytes for the model and ByteLevel decoder */
    size_t size;
    tok_map vocab;                 /* raw form -> id */
    tok_map names;                 /* added tokens -> id */
    tok_map odd;                   /* entries of a byte-level vocabulary that have no raw form -> id */
    tok_added *added;
    size_t added_count;
    tok_trie trie, trie_normalized;
    tok_steps normalizer, split, decoder;
    bool raw_bytes;                /* byte-level: the last pre-tokenizer is ByteLevel, pieces stay raw bytes */
    bool has_decoder;
    bool wants_first;              /* a pre-tokenizer asks where the input begins: Metaspace with prepend_scheme first */

    tok_model_kind model;
    int32_t unk;                   /* -1: none */
    /* BPE */
    tok_merge *merges;
    size_t merge_capacity;
    bool fuse_unk, byte_fallback, ignore_merges;
    const char *prefix, *suffix;   /* continuing_subword_prefix, end_of_word_suffix; "" if none */
    size_t prefix_size, suffix_size;
    uint64_t *joints;              /* which characters stand side by side in a token: bits by joint_bit; NULL: words are not cut */
    int32_t byte_id[256];          /* id of <0xXX>, or of the byte itself in byte-level vocabularies; -1 */
    /* Unigram */
    double *score;                 /* by id */
    double unk_score;
    bool float_scores;             /* sums are rounded to float, as sentencepiece does */
    size_t longest;                /* bytes of the longest piece */
    tok_trie pieces;               /* prefix search over the vocabulary */
    /* WordPiece */
    size_t max_word;

    int32_t post[TOK_MAX_POST];    /* what the post-processor makes of a text: ids; -1 is the text's ids */
    size_t n_post;
};

/* ---- pieces of text on their way to the model ---- */
typedef struct tok_piece { size_t start, size; bool first; } tok_piece;     /* first: begins where the input begins */
typedef struct tok_pieces {
    buf text;
    tok_piece *piece;
    size_t count, capacity;
} tok_pieces;
bool tok_pieces_push(tok_pieces *p, size_t start, size_t size, bool first);
bool tok_pieces_add(tok_pieces *p, size_t start, size_t size, bool first);     /* but for empty ones */
void tok_pieces_free(tok_pieces *p);

/* ---- building ---- */

/* Strings of a vocabulary, in one block of known size (t->pool). */
typedef struct tok_pool { char *data; size_t used, size; } tok_pool;
const char *tok_pool_add(tok_pool *p, const char *text, size_t size);       /* zero-terminated copy; NULL: no room */
/* tokenizer/load.c. Room for tokens and strings, and an added token for text. */
bool tok_make_room(tokenizer *t, tok_pool *p, size_t tokens, size_t added, vlm_error *error);
bool tok_add_token(tokenizer *t, tok_pool *p, int32_t id, const char *content, size_t size, bool special, bool normalized, vlm_error *error);
/* BPE without a list of merges: every two tokens that make up a token may merge, that of the lowest rank (by id of the result; UINT32_MAX: never) first.
 * utf8: tokens are cut between characters only. */
bool tok_bpe_by_ranks(tokenizer *t, const uint32_t *rank, bool utf8, vlm_error *error);
/* Bytes of base64 text, at most size / 4 * 3 + 3 of them; what is no digit is skipped. */
size_t tok_base64(const char *text, size_t size, unsigned char *out);

/* tokenizer/ranks.c: the texts of tekken.json and of tiktoken's files. name: the file's. */
tokenizer *tok_from_tekken(const json_t *root, const json_t *config, vlm_error *error);
tokenizer *tok_from_tiktoken(const char *text, size_t size, const char *name, const json_t *config, vlm_error *error);
/* tokenizer/sentencepiece.c: a .model file. */
tokenizer *tok_from_sentencepiece(const void *data, size_t size, const json_t *config, vlm_error *error);
void tok_spm_free(const void *table);
bool tok_spm_normalize(const void *table, const char *text, size_t size, bool first, buf *out);

/* tokenizer/parse.c: the JSON of the three pipelines. */
bool tok_parse_normalizer(tokenizer *t, const json_t *j, vlm_error *error);
bool tok_parse_split(tokenizer *t, const json_t *j, vlm_error *error);
bool tok_parse_decoder(tokenizer *t, const json_t *j, vlm_error *error);
bool tok_parse_post(tokenizer *t, const json_t *j, vlm_error *error);
void tok_steps_free(tok_steps *s);

/* *first (may be NULL): does the text begin where the input begins? Some steps take its beginning away. */
bool tok_normalize(const tokenizer *t, const char *text, size_t size, bool *first, buf *out, vlm_error *error);
/* Goes through the matches as the reference does: an empty match right behind a match does not count. */
typedef struct tok_matches { const tok_step *step; regex_scratch *scratch; const char *text; size_t size, search, last; } tok_matches;
bool tok_matches_begin(tok_matches *m, const tok_step *step, const char *text, size_t size, vlm_error *error);
/* 1 with the match, 0 at the end, -1 with a message. */
int tok_matches_next(tok_matches *m, size_t *from, size_t *to, vlm_error *error);
void tok_matches_end(tok_matches *m);
bool tok_replace(const tok_step *s, const char *text, size_t size, buf *out, vlm_error *error);
/* sentencepiece's precompiled character map (base64 in the file). */
bool tok_charsmap_load(tokenizer *t, const char *base64, const void **table, vlm_error *error);
bool tok_charsmap_run(const void *table, const char *text, size_t size, buf *out);
bool tok_charsmap_from(tokenizer *t, const void *data, size_t size, const void **table, vlm_error *error);      /* from the bytes themselves */
/* The longest rule that text begins with: how many bytes it takes, with what it is replaced by; 0: none. */
size_t tok_charsmap_longest(const void *table, const char *text, size_t size, const char **replacement);
/* One piece (the whole of p->text) becomes many; p->text may be rewritten. */
bool tok_split(const tokenizer *t, tok_pieces *p, vlm_error *error);

/* BPE. Scratch memory is kept from word to word. */
typedef struct bpe_symbol { int32_t id, previous, next; } bpe_symbol;
typedef struct bpe_candidate { uint64_t key; int32_t left, right; } bpe_candidate;        /* key: rank, then position */
/* Words met before and their ids, for long texts: one place for each hash. */
typedef struct tok_cached { uint32_t hash; uint8_t size, count; char word[26]; int32_t id[8]; } tok_cached;
typedef struct tok_scratch {
    tok_cached *cache;
    size_t cache_size;             /* a power of two; 0: none */
    bpe_symbol *symbol;
    size_t symbol_capacity;
    bpe_candidate *heap;
    size_t heap_count, heap_capacity;
    buf text;
    double *best;                  /* unigram lattice */
    int32_t *best_id;
    size_t *best_start;
    size_t lattice_capacity;
} tok_scratch;
void tok_scratch_free(tok_scratch *s);
/* A cache for a text of so many bytes, when that is worth it. False: out of memory. */
bool tok_scratch_cache(tok_scratch *s, size_t text_size);
uint32_t tok_hash(const char *text, size_t size);
bool tok_bpe(const tokenizer *t, const char *word, size_t size, tok_scratch *s, ids *out);
/* spans: where the merges lie as text, or NULL: they are in model. */
bool tok_bpe_load(tokenizer *t, const json_t *model, const tok_spans *spans, vlm_error *error);

bool tok_unigram(const tokenizer *t, const char *text, size_t size, tok_scratch *s, ids *out);
bool tok_unigram_load(tokenizer *t, const json_t *model, vlm_error *error);
void tok_byte_tokens(tokenizer *t);      /* finds <0x00> to <0xFF> */
bool tok_wordpiece(const tokenizer *t, const char *word, size_t size, tok_scratch *s, ids *out);
bool tok_wordpiece_load(tokenizer *t, const json_t *model, vlm_error *error);

/* The byte alphabet of GPT-2: code point of each byte, and back (-1: none). */
uint32_t tok_byte_to_char(unsigned char byte);
int tok_char_to_byte(uint32_t code);

#endif
