/* log.h - one line a request: when, who, what, how it ended, tokens and times; as text or JSON. Never what was said. */
#ifndef VLM_SERVER_LOG_H
#define VLM_SERVER_LOG_H

#include "server/call.h"

/* A call has ended. */
void log_call(const call *c);
/* Any other exchange has been answered. */
void log_exchange(struct server *s, exchange *x);

#endif
