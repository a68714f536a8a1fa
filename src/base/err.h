/* err.h - failing with a message. The message is built where the knowledge is: what, where, what was expected.
 *
 *     if (n > max) return err_set(error, VLM_LIMIT, "%s: %zu bytes, at most %zu are read", path, n, max);
 *
 * err_set returns false, so that a bool function can return it. Every pointer to vlm_error may be NULL. */
#ifndef VLM_BASE_ERR_H
#define VLM_BASE_ERR_H

#include <stdbool.h>
#include <stdarg.h>
#include "vlm.h"

/* Sets code and message (cut to fit, control characters of outside text made visible); clears the hint. Returns false. */
bool err_set(vlm_error *error, vlm_status code, const char *format, ...) __attribute__((format(printf, 3, 4)));
bool err_setv(vlm_error *error, vlm_status code, const char *format, va_list args);
/* Adds what to do about it. */
bool err_hint(vlm_error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Puts "prefix: " before the message that is there. Returns false. */
bool err_prefix(vlm_error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* VLM_MEMORY with a standard message. Returns false. */
bool err_memory(vlm_error *error, size_t bytes);

#endif
