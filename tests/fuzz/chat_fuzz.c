/* chat_fuzz.c - any bytes as the messages of a request (JSON; else the content of one message, cut into two parts at its first zero byte).
 * The template writes one control token; whatever the messages hold, the prompt must encode to exactly that one. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "text/chat.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char small[] =
    "{\"added_tokens\":[{\"id\":3,\"content\":\"<|im_start|>\",\"special\":true},{\"id\":4,\"content\":\"<|im_end|>\",\"special\":true},"
    "{\"id\":5,\"content\":\"<think>\",\"special\":false},{\"id\":6,\"content\":\"<<\",\"special\":true},{\"id\":7,\"content\":\"<a>\",\"special\":true,\"lstrip\":true}],"
    "\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false},"
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"<\":1,\"|\":2},\"merges\":[]}}";
static const char template[] =
    "{% for m in messages %}{{ m.role }}\n{% if m.content is string %}{{ m.content | trim }}{% elif m.content is mapping %}{{ m.content | tojson(ensure_ascii=true) }}"
    "{% else %}{% for p in m.content %}{{ p.text if p.type == 'text' else '!' }}{% endfor %}{% endif %}{{ m | tojson }}{% endfor %}<|im_end|>";

static json_t *messages_of(const uint8_t *data, size_t size)
{
    json_t *json = json_loadb((const char *)data, size, 0, NULL);
    if (json) return json;
    const uint8_t *zero = memchr(data, 0, size);
    size_t n = zero ? (size_t)(zero - data) : size;
    json_t *first = json_stringn((const char *)data, n), *second = zero ? json_stringn((const char *)zero + 1, size - n - 1) : json_string("");
    if (first && second) return json_pack("[{s:s, s:[{s:s, s:o}, {s:s, s:o}]}]", "role", "user", "content", "type", "text", "text", first, "type", "text", "text", second);
    json_decref(first);
    json_decref(second);
    return NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static tokenizer *tok;
    static chat_template *t;
    if (!tok) tok = tokenizer_from_text(small, sizeof small - 1, NULL, NULL);
    if (!t && !chat_template_load(NULL, tok, template, &t, NULL)) abort();
    if (size > 4000) size = 4000;
    json_t *messages = messages_of(data, size);
    if (!messages) return 0;
    chat_prompt p = {0};
    vlm_error error = {0};
    if (chat_render(t, tok, messages, NULL, &p, &error)) {
        ids out = {0};
        size_t control = 0;
        const encode_options options = {.special = true, .guard = p.guard};
        if (!tokenizer_encode(tok, p.text, strlen(p.text), &options, &out, &error)) abort();
        for (size_t i = 0; i < out.count; i++) control += out.id[i] >= 3 && out.id[i] != 5;          /* <think> is no control token here */
        if (control != 1) abort();
        char *plain = chat_prompt_plain(&p);
        if (!plain || strstr(plain, p.guard)) abort();
        mem_free(plain);
        ids_free(&out);
    }
    chat_prompt_free(&p);
    json_decref(messages);
    return 0;
}
