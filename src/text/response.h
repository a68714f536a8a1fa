/* response.h - response_template: a checkpoint's own description of its output (tokenizer_config.json, transformers 5.13 and later).
 *
 * A template names the fields of a message, the text or regular expression that opens and closes each, how the inside is read (text, json,
 * xml-inline, kv-lines, numbers) and what is made of it. Read as the reference does, its oddities included: the first anchor wins, the later
 * of two contents replaces the earlier, broken JSON is an error. The parser of toolcall.h takes such a template instead of a format. */
#ifndef VLM_TEXT_RESPONSE_H
#define VLM_TEXT_RESPONSE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include "base/mem.h"
#include "vlm.h"

typedef struct response_template response_template;
/* spec: the JSON object. NULL with a message when it is wrong. */
response_template *response_template_new(const json_t *spec, vlm_error *error);
void response_template_free(response_template *t);

typedef enum response_event_type { RESPONSE_OPEN, RESPONSE_CHUNK, RESPONSE_CLOSE } response_event_type;
typedef struct response_event {
    response_event_type type;
    const char *field;
    const char *text;              /* chunk: raw text; close: the value as JSON */
    size_t size;
    bool dirty;                    /* chunk: raw text of a field that is read only when it closes */
} response_event;
typedef void (*response_event_fn)(void *user, const response_event *event);

typedef struct response_parser response_parser;
/* prefix: the prompt, whose end may have begun the message ("" for none). tools: types the arguments of calls; may be NULL, not kept. The events
 * of the prefix are told at once. t must outlive the parser. */
response_parser *response_parser_new(const response_template *t, const char *prefix, size_t size, const json_t *tools, response_event_fn on_event,
                                     void *user, vlm_error *error);
void response_parser_free(response_parser *p);
bool response_feed(response_parser *p, const char *text, size_t size, vlm_error *error);
bool response_finish(response_parser *p, vlm_error *error);
/* After finish: the message as JSON text. Caller frees. */
char *response_message(const response_parser *p, vlm_error *error);
/* A member of such a message as JSON text (in *out, which is cleared); the calls as a list of {"name", "arguments" (JSON in a string)}. */
bool response_get(const char *message, const char *key, buf *out);
bool response_calls(const char *message, buf *out);
/* After a failure: the text from the opening of the region that failed. */
const char *response_rest(const response_parser *p, size_t *size);
/* The field that is open now, NULL: none. */
const char *response_field(const response_parser *p);

#endif
