/* config.h - config.json and its companions with good complaints.
 *
 * Reads are sticky: after the first failure every further read returns its fallback and the first message stays.
 *     config_need_int(c, "text_config.hidden_size", 1, 1 << 20)
 *                  "config.json: text_config.hidden_size is missing; a whole number from 1 to 1048576 was expected"
 * A path may name alternatives: "text_config.rope_theta|text_config.rope_parameters.rope_theta|rope_theta". Keys that contain no dot only. */
#ifndef VLM_WEIGHTS_CONFIG_H
#define VLM_WEIGHTS_CONFIG_H

#include <jansson.h>
#include "base/mem.h"
#include "vlm.h"

typedef struct config {
    char *file;                    /* for messages */
    json_t *root;
    bool failed;
    vlm_error error;
} config;

enum { JSON_FILE_LIMIT = 256 << 20 };
/* Also reads what Python's json writes beyond the standard: NaN (null), Infinity (the largest double), whole numbers beyond 64 bits (reals), \u0000 in strings
 * (json_string_length tells). */
json_t *json_text_parse(const char *text, size_t size, const char *name, vlm_error *error);
json_t *json_load_file_limited(const char *path, size_t limit, vlm_error *error);
/* config.json of a checkpoint, generation_config.json merged over it (vlm_load_config). */
config *config_load(const char *dir, vlm_error *error);
config *config_load_file(const char *path, vlm_error *error);          /* any one JSON file, e.g. preprocessor_config.json */
config *config_from_json(json_t *root, const char *name, vlm_error *error);  /* takes root, also on failure */
/* generation_config.json over c, as config_load does it. */
bool config_merge_generation(config *c, const char *path, vlm_error *error);
void config_free(config *c);
const json_t *config_get(const config *c, const char *path);           /* NULL: none of the alternatives is there (or null) */
bool config_has(const config *c, const char *path);

/* Required: missing or out of range is a failure. */
int64_t config_need_int(config *c, const char *path, int64_t min, int64_t max);
double config_need_number(config *c, const char *path);
const char *config_need_string(config *c, const char *path);
/* Optional: absent or null gives the fallback, a wrong type or range is a failure. */
int64_t config_int(config *c, const char *path, int64_t fallback, int64_t min, int64_t max);
double config_number(config *c, const char *path, double fallback);
bool config_bool(config *c, const char *path, bool fallback);
const char *config_string(config *c, const char *path, const char *fallback);
/* Up to `max` numbers of an array (a single number counts as one); returns how many, 0 when absent; more than `max` is a failure. */
int config_ints(config *c, const char *path, int64_t *out, int max);
int config_numbers(config *c, const char *path, double *out, int max);
bool config_fail(config *c, vlm_status code, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Members of the object `where` (a top-level key; made when it is not there) that are missing are taken from the JSON text. */
bool config_defaults(config *c, const char *where, const char *json);
/* False and *error when a read failed. */
bool config_ok(const config *c, vlm_error *error);

#endif
