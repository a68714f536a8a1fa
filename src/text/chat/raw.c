/* raw.c - a template with nothing added: what transformers' render_jinja_template does around jinja2, and no more. Goldens and other programs'
 * prompts are compared with this; requests of users go through chat_render, which guards and normalises.
 *
 *   - always defined: messages, tools and documents (none when absent), add_generation_prompt (false); special tokens that the tokenizer has
 *   - reasoning under one of reasoning_content, thinking, reasoning is set under the first two; thinking becomes the first member
 *   - continue_final_message: a tag after the last message's field; the prompt is cut there */
#include <string.h>

#include "text/chat/internal.h"
#include "text/utf8.h"

static const char tag[] = "CONTINUE_FINAL_MESSAGE_TAG ";
static const char *const reasoning_names[] = {"reasoning_content", "thinking", "reasoning"};

static bool is_present(const json_t *v) { return v && !json_is_null(v); }

json_t *chat_alias_reasoning(const json_t *message)
{
    json_t *found = NULL, *out = json_object();
    for (int i = 0; i < 3 && !is_present(found); i++) found = json_object_get(message, reasoning_names[i]);
    bool ok = out && (!is_present(found) || json_object_set(out, "thinking", found) == 0);
    json_t *copy = json_deep_copy(message);
    ok = ok && copy && json_object_update(out, copy) == 0 && (!is_present(found) || json_object_set(out, "reasoning_content", found) == 0);
    json_decref(copy);
    if (ok) return out;
    json_decref(out);
    return NULL;
}

static json_t *raw_messages(const json_t *messages, vlm_error *error)
{
    if (!json_is_array(messages)) {
        err_set(error, VLM_INVALID, "\"messages\" must be a list");
        return NULL;
    }
    json_t *out = json_array();
    bool ok = out != NULL;
    for (size_t i = 0; ok && i < json_array_size(messages); i++) {
        const json_t *message = json_array_get(messages, i);
        if (!json_is_object(message)) {
            err_set(error, VLM_INVALID, "messages[%zu] is not an object", i);
            json_decref(out);
            return NULL;
        }
        ok = json_array_append_new(out, chat_alias_reasoning(message)) == 0;
    }
    if (ok) return out;
    err_memory(error, 0);
    json_decref(out);
    return NULL;
}

static bool check_objects(const json_t *list, const char *name, vlm_error *error)
{
    if (!is_present(list)) return true;
    if (!json_is_array(list)) return err_set(error, VLM_INVALID, "\"%s\" must be a list of objects", name);
    for (size_t i = 0; i < json_array_size(list); i++)
        if (!json_is_object(json_array_get(list, i))) return err_set(error, VLM_INVALID, "%s[%zu] is not an object", name, i);
    return true;
}

/* ---- leaving the last message open ---- */

/* holder[key] += tag; *text: what it was, a new reference. */
static bool append_tag(json_t *holder, const char *key, json_t **text, vlm_error *error)
{
    json_t *value = json_object_get(holder, key);
    if (!json_is_string(value)) return err_set(error, VLM_INVALID, "continue_final_message: \"%.60s\" of the last message is no text", key);
    buf tagged = {0};
    bool ok = buf_add(&tagged, json_string_value(value), json_string_length(value)) && buf_adds(&tagged, tag);
    if (ok && text) *text = json_incref(value);
    ok = ok && json_object_set_new(holder, key, json_stringn_nocheck(tagged.data, tagged.size)) == 0;
    buf_free(&tagged);
    return ok || err_memory(error, 0);
}

static bool mark_parts(json_t *parts, json_t **text, vlm_error *error)
{
    for (size_t i = json_array_size(parts); i-- > 0;) {
        json_t *part = json_array_get(parts, i);
        bool strange = !json_is_object(part) && !json_is_array(part) && !json_is_string(part);
        if (strange || (json_is_string(part) && strstr(json_string_value(part), "text")))
            return err_set(error, VLM_INVALID, "continue_final_message: a part of the last message is no object");
        if (json_object_get(part, "text")) return append_tag(part, "text", text, error);
    }
    return err_set(error, VLM_INVALID, "continue_final_message: the last message has no text");
}

static bool mark_final(const char *source, json_t *messages, const char *field, json_t **text, vlm_error *error)
{
    size_t n = json_array_size(messages);
    if (!n) return err_set(error, VLM_INVALID, "continue_final_message: there is no message");
    json_t *last = json_array_get(messages, n - 1), *value = json_object_get(last, field);
    if (!is_present(value)) return err_set(error, VLM_INVALID, "continue_final_message: the last message has no \"%.60s\"", field);
    const char *fields[3] = {field};
    int count = 1;
    for (int i = 0; i < 3; i++)
        if (!strcmp(field, reasoning_names[i])) {
            count = 0;
            for (int k = 0; k < 3; k++)
                if (json_equal(json_object_get(last, reasoning_names[k]), value)) fields[count++] = reasoning_names[k];
            break;
        }
    bool named = false;
    for (int i = 0; i < count; i++) named |= strstr(source, fields[i]) != NULL;
    if (!named) return err_set(error, VLM_INVALID, "continue_final_message: the template does not read \"%.60s\"", field);
    if (json_is_array(value)) return mark_parts(value, text, error);
    for (int i = 0; i < count; i++)
        if (!append_tag(last, fields[i], i ? NULL : text, error)) return false;
    return true;
}

static size_t strip_end(const char *s, size_t n)
{
    while (n) {
        size_t i = n - 1;
        while (i && ((unsigned char)s[i] & 0xC0) == 0x80) i--;
        uint32_t c;
        utf8_next_lossy(s + i, n - i, &c);
        if (!unicode_is_space(c) && !(c >= 0x1C && c <= 0x1F)) break;
        n = i;
    }
    return n;
}

static size_t strip_begin(const char *s, size_t n)
{
    size_t i = 0;
    while (i < n) {
        uint32_t c;
        size_t k = utf8_next_lossy(s + i, n - i, &c);
        if (!unicode_is_space(c) && !(c >= 0x1C && c <= 0x1F)) break;
        i += k;
    }
    return i;
}

static bool cut_final(buf *out, const json_t *text, vlm_error *error)
{
    const char *s = json_string_value(text);
    size_t n = strip_end(s, json_string_length(text)), from = strip_begin(s, n), bare = sizeof tag - 2, hit = SIZE_MAX;
    const char *data = out->data ? out->data : "";
    bool shown = bytes_find(data, out->size, 0, s + from, n - from) != SIZE_MAX;
    for (size_t at = 0; (at = bytes_find(data, out->size, at, tag, bare)) != SIZE_MAX; at++) hit = at;
    if (!shown || hit == SIZE_MAX) return err_set(error, VLM_INVALID, "continue_final_message: the chat template does not show the last message");
    bool spaced = hit + bare < out->size && data[hit + bare] == ' ';
    out->size = spaced ? hit : strip_end(data, hit);
    out->data[out->size] = 0;
    return true;
}

/* ---- rendering ---- */

static bool is_option(const char *key)
{
    static const char *const options[] = {"messages", "tools", "documents", "add_generation_prompt", "continue_final_message", "chat_template", "now",
                                          "return_assistant_tokens_mask"};
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        if (!strcmp(key, options[i])) return true;
    return false;
}

static json_t *make_variables(const json_t *request, json_t *messages, const tokenizer *tok)
{
    json_t *v = json_object(), *value, *prompt = json_object_get(request, "add_generation_prompt");
    json_t *tools = json_object_get(request, "tools"), *documents = json_object_get(request, "documents");
    const char *key;
    bool ok = v && chat_special_tokens(v, tok);
    json_object_foreach((json_t *)request, key, value)
        if (ok && !is_option(key)) ok = json_object_set(v, key, value) == 0;
    ok = ok && json_object_set(v, "messages", messages) == 0 && json_object_set_new(v, "tools", tools ? json_incref(tools) : json_null()) == 0 &&
         json_object_set_new(v, "documents", documents ? json_incref(documents) : json_null()) == 0 &&
         json_object_set_new(v, "add_generation_prompt", prompt ? json_incref(prompt) : json_false()) == 0;
    if (ok) return v;
    json_decref(v);
    return NULL;
}

static bool is_true(const json_t *v)
{
    if (json_is_string(v)) return json_string_length(v) != 0;
    return json_is_true(v) || (json_is_number(v) && json_number_value(v) != 0) || json_array_size(v) || json_object_size(v);
}

bool chat_render_raw(const chat_template *t, const tokenizer *tok, const json_t *request, const struct tm *now, jinja_report *report, buf *out, vlm_error *error)
{
    const json_t *tools = json_object_get(request, "tools"), *open = json_object_get(request, "continue_final_message");
    if (!json_is_object(request)) return err_set(error, VLM_INVALID, "a request must be an object with \"messages\"");
    if (!check_objects(tools, "tools", error) || !check_objects(json_object_get(request, "documents"), "documents", error)) return false;
    json_t *messages = raw_messages(json_object_get(request, "messages"), error), *text = NULL;
    jinja *own = NULL;
    const char *given = json_string_value(json_object_get(request, "chat_template")), *source = given;
    const chat_variant *v = NULL;
    bool ok = messages != NULL;
    if (ok && given && !chat_find(t, given)) ok = (own = jinja_compile(given, json_string_length(json_object_get(request, "chat_template")), error)) != NULL;
    else if (ok && !t) ok = err_set(error, VLM_INVALID, "there is no chat template");
    else if (ok && (ok = (v = chat_choose(t, given, is_present(tools), error)) != NULL)) source = v->source;
    const char *field = json_is_string(open) ? json_string_value(open) : "content";
    if (ok && is_true(open)) ok = mark_final(source, messages, field, &text, error);
    json_t *variables = ok ? make_variables(request, messages, tok) : NULL;
    if (ok && !variables) ok = err_memory(error, 0);
    ok = ok && jinja_render(own ? own : v->j, variables, now, NULL, out, report, error);
    if (ok && text) ok = cut_final(out, text, error);
    json_decref(variables);
    json_decref(text);
    json_decref(messages);
    jinja_free(own);
    return ok;
}
