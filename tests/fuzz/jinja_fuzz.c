/* jinja_fuzz.c - any bytes as a chat template: up to the first zero byte the template, after it its variables as JSON (absent or damaged: a small
 * conversation). Whatever the template does, it ends within its limits. */
#include <stdint.h>
#include <string.h>

#include "text/jinja.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char conversation[] =
    "{\"messages\":[{\"role\":\"system\",\"content\":\"Be brief.\"},{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"h\xC3\xA9llo \xF0\x9F\x98\x80\"},"
    "{\"type\":\"image\"}]},{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":{\"a\":1,\"b\":[1.5,true]}}}]}],"
    "\"tools\":[{\"function\":{\"name\":\"f\"}}],\"add_generation_prompt\":true,\"bos_token\":\"<s>\",\"x\":[3,1,2],\"d\":{\"k\":\"v\"}}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *zero = memchr(data, 0, size);
    size_t n = zero ? (size_t)(zero - data) : size;
    vlm_error error = {0};
    jinja *t = jinja_compile((const char *)data, n, &error);
    if (!t) return 0;
    json_t *variables = zero ? json_loadb((const char *)zero + 1, size - n - 1, 0, NULL) : NULL;
    if (!json_is_object(variables)) {
        json_decref(variables);
        variables = json_loads(conversation, 0, NULL);
    }
    const jinja_limits limits = {.steps = 200000, .output = 1 << 20, .memory = 32 << 20, .depth = 200};
    const struct tm now = {.tm_year = 126, .tm_mon = 2, .tm_mday = 5, .tm_wday = 4, .tm_yday = 63};
    buf out = {0};
    jinja_render(t, variables, &now, &limits, &out, NULL, &error);
    jinja_writes(t, "<s>");
    buf_free(&out);
    json_decref(variables);
    jinja_free(t);
    return 0;
}
