/* regex.h - the regular expressions of tokenizers, run by PCRE2: those of tokenizer.json (Oniguruma's dialect) and of tiktoken. */
#ifndef VLM_TEXT_REGEX_H
#define VLM_TEXT_REGEX_H

#include <stdbool.h>
#include <stddef.h>
#include "base/mem.h"
#include "vlm.h"

/* The dialects differ in a{2}+: a+ over a{2} for Oniguruma, possessive for tiktoken; and in (?m). */
typedef enum regex_dialect { REGEX_ONIGURUMA, REGEX_TIKTOKEN } regex_dialect;

typedef struct regex regex;
regex *regex_new(const char *pattern, size_t size, vlm_error *error);          /* Oniguruma */
regex *regex_new_in(regex_dialect dialect, const char *pattern, size_t size, vlm_error *error);
void regex_free(regex *r);

/* Working memory of one thread for one expression. */
typedef struct regex_scratch regex_scratch;
regex_scratch *regex_scratch_new(const regex *r);
void regex_scratch_free(regex_scratch *s);

/* First match in text[start..size), which is valid UTF-8: 1 with *from and *to, 0 if there is none, -1 when a limit was hit. */
int regex_find(const regex *r, regex_scratch *s, const char *text, size_t size, size_t start, size_t *from, size_t *to);

/* tokenizer/regex_dialect.c: writes the pattern in PCRE2's dialect, classes with the reference's version of Unicode. False when out of memory or
 * nested too deeply. */
bool regex_translate(regex_dialect dialect, const char *pattern, size_t size, buf *out);

#endif
