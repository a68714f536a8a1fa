/* regex.h - the regular expressions of tokenizer.json (Oniguruma's dialect) run by PCRE2. */
#ifndef VLM_TEXT_REGEX_H
#define VLM_TEXT_REGEX_H

#include <stdbool.h>
#include <stddef.h>
#include "vlm.h"

typedef struct regex regex;
regex *regex_new(const char *pattern, size_t size, vlm_error *error);
void regex_free(regex *r);

/* Working memory of one thread for one expression. */
typedef struct regex_scratch regex_scratch;
regex_scratch *regex_scratch_new(const regex *r);
void regex_scratch_free(regex_scratch *s);

/* First match in text[start..size), which is valid UTF-8: 1 with *from and *to, 0 if there is none, -1 when a limit was hit. */
int regex_find(const regex *r, regex_scratch *s, const char *text, size_t size, size_t start, size_t *from, size_t *to);

#endif
