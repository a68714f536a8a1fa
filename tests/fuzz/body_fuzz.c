/* body_fuzz.c - bodies of requests: long base64 taken out and put back, and Anthropic's and OpenAI's forms brought into that of chat completions. What is put back
 * must be what the parser alone would have seen. */
#include <jansson.h>
#include <stdlib.h>

#include "server/attached.h"
#include "server/messages.h"
#include "server/responses.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    attached a = {0};
    buf light = {0};
    refusal why;
    if (attached_lift((const char *)data, size, &a, &light)) {
        json_t *body = json_loadb(light.data ? light.data : "", light.size, 0, NULL), *plain = json_loadb((const char *)data, size, 0, NULL);
        if (body && attached_restore(&a, body) && plain && a.list.count == 0 && !json_equal(body, plain)) abort();
        if (json_is_object(body)) {
            json_decref(messages_to_chat(body, &why));
            json_decref(responses_to_chat(body, NULL, &why));
            json_decref(responses_input_items(body, "resp_0"));
        }
        json_decref(body);
        json_decref(plain);
    }
    buf_free(&light);
    attached_free(&a);
    return 0;
}
