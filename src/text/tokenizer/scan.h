/* scan.h - reading the two large members of tokenizer.json, model.vocab and model.merges, without building a tree of them: 30 MB and
 * 800000 strings for some models. Everything else of the file goes through jansson. */
#ifndef VLM_TEXT_TOK_SCAN_H
#define VLM_TEXT_TOK_SCAN_H

#include "base/mem.h"

typedef struct tok_scan {
    const char *at, *end;
    bool bad;                      /* not JSON, or not what was asked for */
    buf text[2];                   /* strings with escapes are decoded here; text[i].failed: out of memory */
} tok_scan;

tok_scan tok_scan_start(const char *text, size_t size);
void tok_scan_free(tok_scan *s);
/* Skips white space; is the next character c? It is taken then. */
bool tok_scan_take(tok_scan *s, char c);
/* Borrowed until the next string in the same slot (0 or 1) or the end of the scanned text. */
bool tok_scan_string(tok_scan *s, int slot, const char **text, size_t *size);
bool tok_scan_integer(tok_scan *s, int64_t *value);

typedef struct tok_spans { const char *vocab, *merges; size_t vocab_size, merges_size; } tok_spans;
/* Where model.vocab (an object) and model.merges (a list) lie. False: not in the usual form, read the file as a whole. */
bool tok_scan_find(const char *text, size_t size, tok_spans *out);

#endif
