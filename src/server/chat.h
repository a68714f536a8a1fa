/* chat.h - what other OpenAI-shaped routes share with chat completions. */
#ifndef VLM_SERVER_CHAT_H
#define VLM_SERVER_CHAT_H

#include "server/generation.h"

json_t *usage_json(const vlm_usage *usage);
/* Names as in llama.cpp's server; prompt_n does not count cached tokens. */
json_t *timings_json(const vlm_usage *usage);
/* The engine's reason as OpenAI knows it. */
const char *finish_reason(const char *reason);
/* Checks the messages' shape; into the options. */
bool chat_messages(const json_t *messages, generation *g, refusal *why);
void openai_stream_fail(call *c, const refusal *why);

#endif
