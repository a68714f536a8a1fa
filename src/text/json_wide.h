/* json_wide.h - JSON with numbers that jansson has no room for: integers beyond 64 bits, reals beyond the largest double, and Python's NaN and
 * Infinity. They become strings that begin with two zero bytes and go on as they were written; the templates' values take them as numbers again. */
#ifndef VLM_TEXT_JSON_WIDE_H
#define VLM_TEXT_JSON_WIDE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* As json_loadb. Only text that holds such numbers is looked at twice. */
json_t *json_load_wide(const char *text, size_t size, size_t flags, json_error_t *error);
/* The number as it was written, or NULL when the value is none of these. */
const char *json_wide_number(const json_t *value);

#endif
