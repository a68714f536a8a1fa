/* chat_fuzz.c - any bytes as the messages of a request (JSON; else the content of one message, cut into two parts at its first zero byte).
 * The templates write one control token; whatever the messages hold, the prompt must encode to exactly that one, and to one more for each medium
 * that a template without place for media is given. */
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

/* Takes only text, wants roles in turns, ids of nine, and a system message nowhere. */
static const char strict[] =
    "{% for m in messages %}{% if m.role == 'system' or (not loop.first and loop.previtem.role == m.role) %}{{ raise_exception('roles') }}{% endif %}{{ m.role + '\\n' + m.content }}"
    "{% for c in m.tool_calls %}{% if c.id | length != 9 %}{{ raise_exception('ids') }}{% endif %}{{ c.function.arguments | tojson ~ c.id }}{% endfor %}{{ m.tool_call_id }}{% endfor %}<|im_end|>";

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

static void check(const chat_template *t, const tokenizer *tok, const json_t *messages, const chat_options *options)
{
    chat_prompt p = {0};
    vlm_error error = {0};
    if (chat_render(t, tok, messages, options, &p, &error)) {
        ids out = {0};
        size_t control = 0, expected = 1 + (options ? p.media_count : 0);
        const encode_options encode = {.special = true, .guard = p.guard};
        if (!tokenizer_encode(tok, p.text, strlen(p.text), &encode, &out, &error)) abort();
        for (size_t i = 0; i < out.count; i++) control += out.id[i] >= 3 && out.id[i] != 5;          /* <think> is no control token here */
        if (options ? control < 1 || control > expected : control != 1) abort();       /* what is joined may be cut away: [-1] and the like */
        char *plain = chat_prompt_plain(&p);
        if (!plain || strstr(plain, p.guard)) abort();
        mem_free(plain);
        ids_free(&out);
    }
    chat_prompt_free(&p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static tokenizer *tok;
    static chat_template *free_form, *bound;
    if (!tok) tok = tokenizer_from_text(small, sizeof small - 1, NULL, NULL);
    if (!free_form && (!chat_template_load(NULL, tok, template, &free_form, NULL) || !chat_template_load(NULL, tok, strict, &bound, NULL))) abort();
    if (size > 4000) size = 4000;
    json_t *messages = messages_of(data, size);
    if (!messages) return 0;
    static const chat_options marked = {.add_generation_prompt = true, .marks = {"<a>", "<a>", "<a>"}};
    check(free_form, tok, messages, NULL);
    check(bound, tok, messages, &marked);
    json_decref(messages);
    return 0;
}
