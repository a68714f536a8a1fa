/* refuse.h - why a request is refused, in the words of the route's API: OpenAI's error object, or Anthropic's on its routes.
 * Texts for clients are made here and in the parsers; nothing internal (addresses, paths of the server) gets into them. */
#ifndef VLM_SERVER_REFUSE_H
#define VLM_SERVER_REFUSE_H

#include <jansson.h>

#include "server/http.h"

typedef enum dialect { OPENAI, ANTHROPIC } dialect;

typedef struct refusal {
    int status;                    /* of HTTP; 0: not refused */
    const char *type, *code;       /* OpenAI's; NULL: by status */
    char param[96];                /* the field that is wrong, "" if none */
    char message[1400];
    int retry_after;               /* seconds; 0: not said */
} refusal;

/* Returns false, so that a bool function can return it. param: "messages[2].content", or NULL. */
bool refuse(refusal *why, int status, const char *param, const char *format, ...) __attribute__((format(printf, 4, 5)));
bool refuse_error(refusal *why, const vlm_error *error);       /* status by the error's code */
bool refuse_memory(refusal *why);

/* {"error": {...}} or {"type": "error", "error": {...}}; NULL when out of memory. */
json_t *refusal_json(const refusal *why, dialect words);
/* status 0: nothing is sent (the exchange will be served again). */
void refusal_send(exchange *x, const refusal *why, dialect words);

/* value is taken over. False: not sent. */
bool send_json(exchange *x, int status, json_t *value);

#endif
