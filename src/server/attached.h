/* attached.h - the megabytes of base64 in a body, taken out before its JSON is parsed: a JSON parser goes through them byte by byte, and every later step (messages as
 * text, parsed again, searched for control tokens) would, too. In their place stands a name that only this request knows (media_attached). */
#ifndef VLM_SERVER_ATTACHED_H
#define VLM_SERVER_ATTACHED_H

#include <jansson.h>

#include "base/mem.h"
#include "media/media.h"

typedef struct attached { media_attached list; media_text *item; int capacity; } attached;
void attached_free(attached *a);

/* The body with every long string that may be media replaced by its name, in *out; the texts point into body. False: out of memory. */
bool attached_lift(const char *body, size_t size, attached *a, buf *out);
/* Names that do not stand where a medium's source stands become their texts again: nothing a client wrote as text is touched. False: out of memory. */
bool attached_restore(const attached *a, json_t *value);

#endif
