/* jsonl.h - bulk commands: one JSON value a line on standard input, one answer a line on standard output.
 *
 * A line of any length. A bad line (no JSON, or a case that the command refuses) is answered {"error": message} and the next one is read; blank
 * lines have no answer. Answers are written in blocks, and all that is ready is written before the program waits for more input, so that a
 * partner that asks line by line gets its answers, too. */
#ifndef VLM_CLI_JSONL_H
#define VLM_CLI_JSONL_H

#include <jansson.h>
#include "base/mem.h"
#include "vlm.h"

/* Answers one case; the caller gets the reference. NULL: *error says why (then the answer is {"error": ...}). */
typedef json_t *jsonl_fn(void *user, const json_t *input, vlm_error *error);
/* Reads to the end of standard input. Returns the exit code: 0 also when lines were bad; not 0 when reading or writing failed. */
int jsonl_run(jsonl_fn *answer, void *user);
/* The same with numbers of any size: see text/json_wide.h. */
int jsonl_run_wide(jsonl_fn *answer, void *user);

/* An answer that is JSON text already: numbers of any size stay as they are. Takes text over. */
json_t *jsonl_raw(char *json);
const char *jsonl_raw_text(const json_t *answer);     /* NULL: it is none */
/* A JSON string of any bytes: what is not UTF-8 becomes U+FFFD. NULL when out of memory. */
json_t *jsonl_string(const char *text, size_t size);
/* The string member `key`: its text and length. False with a message when it is missing or no string. */
bool jsonl_get_string(const json_t *input, const char *key, const char **text, size_t *size, vlm_error *error);
/* A boolean member, or `otherwise`. */
bool jsonl_get_bool(const json_t *input, const char *key, bool otherwise);

#endif
