/* body.h - JSON bodies read by tables: name, kind, range, place. A field of the wrong type or out of its range refuses the request and is named; null is the same as absent;
 * fields that no table knows are ignored, as OpenAI's clients send many. */
#ifndef VLM_SERVER_BODY_H
#define VLM_SERVER_BODY_H

#include "server/refuse.h"

typedef enum field_kind {
    F_BOOL,                        /* int */
    F_INT,                         /* int */
    F_SEED,                        /* uint64_t; negative numbers wrap */
    F_NUMBER,                      /* float */
    F_TEXT,                        /* const char *, of the body's own */
    F_ARRAY, F_OBJECT,             /* json_t *, borrowed from the body */
    F_ANY                          /* json_t *, any type but null */
} field_kind;

typedef struct field { const char *name; field_kind kind; size_t offset; double min, max; } field;

/* fields: ends with a zero row. `where` stands before names in messages ("tools[0]."), or "". */
bool body_read(const json_t *body, const field *fields, void *out, const char *where, refusal *why);
/* The body of a request as a JSON object; it must say application/json, or nothing. Long data URLs and base64 are names in it (attached.h). NULL: refused. */
json_t *body_object(exchange *x, refusal *why);

/* The value as JSON text that lives in `memory`; NULL when out of memory. */
const char *body_text(arena *memory, const json_t *value);

#endif
