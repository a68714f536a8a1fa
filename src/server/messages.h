/* messages.h - Anthropic's bodies as bodies of chat completions. */
#ifndef VLM_SERVER_MESSAGES_H
#define VLM_SERVER_MESSAGES_H

#include "server/call.h"

/* A new body with OpenAI's fields; fields that both know, and MLX-VLM's, are kept. NULL: refused. */
json_t *messages_to_chat(const json_t *body, refusal *why);
void messages_ping(call *c);

#endif
