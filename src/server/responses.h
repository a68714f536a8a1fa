/* responses.h - OpenAI's responses API: bodies and items as chat messages (responses_body.c), the answer as items and events (responses.c), what was
 * answered before (responses_store.c). */
#ifndef VLM_SERVER_RESPONSES_H
#define VLM_SERVER_RESPONSES_H

#include "server/body.h"

typedef struct response_store response_store;

/* ---- responses_store.c: the newest answers, each seen by its tenant alone ---- */
response_store *response_store_new(size_t max_count, size_t max_bytes, vlm_error *error);
void response_store_free(response_store *s);
/* response, input (items) and messages (of chat, with the answer) are referenced. A full store drops the oldest; one under the same id is replaced. */
void response_store_put(response_store *s, const char *tenant, const char *id, json_t *response, json_t *input, json_t *messages);
/* New references; each of the three may be NULL. False: no such answer of this tenant. */
bool response_store_get(response_store *s, const char *tenant, const char *id, json_t **response, json_t **input, json_t **messages);
bool response_store_delete(response_store *s, const char *tenant, const char *id);

/* ---- responses_body.c ---- */

/* The body of chat completions that says the same; before: messages of the conversation so far, or NULL. NULL: refused. */
json_t *responses_to_chat(const json_t *body, const json_t *before, refusal *why);
/* The input as a list of items with ids, for those who ask for it later. */
json_t *responses_input_items(const json_t *body, const char *id);

#endif
