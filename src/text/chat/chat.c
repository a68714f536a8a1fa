/* chat.c - rendering a conversation for generation: guarded, normalised; prompts without a template. */
#include "text/chat.h"

#include <stdio.h>
#include <string.h>

#include "text/chat/internal.h"
#include "text/utf8.h"

static const char tag[] = "CONTINUE_FINAL_MESSAGE_TAG ";

/* ---- rendering ---- */

void chat_prompt_free(chat_prompt *p)
{
    if (!p) return;
    mem_free(p->text);
    chat_list media = {p->media, p->media_count, p->media_count};
    chat_list_free(&media);
    *p = (chat_prompt){0};
}

char *chat_prompt_plain(const chat_prompt *p)
{
    buf out = {0};
    size_t n = p->text ? strlen(p->text) : 0, g = strlen(p->guard);
    for (size_t at = 0; at < n;) {
        size_t hit = g ? bytes_find(p->text, n, at, p->guard, g) : SIZE_MAX;
        size_t end = hit == SIZE_MAX ? n : hit;
        if (!buf_add(&out, p->text + at, end - at)) break;
        at = hit == SIZE_MAX ? n : hit + g;
    }
    char *text = buf_take(&out);
    if (!text) buf_free(&out);
    return text;
}

/* The guarded request as template variables. Messages are guarded one by one: the assistant's less. */
static json_t *make_variables(const json_t *messages, const chat_options *o, const tokenizer *tok, chat_guard *g)
{
    json_t *v = json_object(), *guarded = json_array(), *value;
    const char *key;
    bool ok = v && guarded && chat_special_tokens(v, tok);
    for (size_t i = 0; ok && i < json_array_size(messages); i++) {
        const json_t *message = json_array_get(messages, i);
        const char *role = json_string_value(json_object_get(message, "role"));
        ok = json_array_append_new(guarded, chat_guard_value(g, message, role && (strcmp(role, "assistant") == 0 || strcmp(role, "model") == 0))) == 0;
    }
    ok = ok && json_object_set(v, "messages", guarded) == 0 &&
         json_object_set_new(v, "tools", o->tools && json_array_size(o->tools) ? chat_guard_value(g, o->tools, false) : json_null()) == 0 &&
         json_object_set_new(v, "documents", json_null()) == 0 &&
         json_object_set_new(v, "add_generation_prompt", json_boolean(o->add_generation_prompt)) == 0;
    json_object_foreach((json_t *)o->kwargs, key, value)
        if (ok && strcmp(key, "continue_final_message") != 0 && strcmp(key, "messages") != 0 && strcmp(key, "chat_template") != 0) ok = json_object_set_new(v, key, chat_guard_value(g, value, false)) == 0;
    json_decref(guarded);
    if (!ok) {
        json_decref(v);
        return NULL;
    }
    return v;
}

/* ---- leaving the last message open ---- */

static bool append_tag(json_t *holder, const char *key)
{
    const json_t *text = json_object_get(holder, key);
    char *tagged = json_is_string(text) ? mem_printf("%s%s", json_string_value(text), tag) : NULL;
    bool ok = tagged && json_object_set_new(holder, key, json_string(tagged)) == 0;
    mem_free(tagged);
    return ok;
}

/* Marks the end of the last message's field; the prompt is cut there after rendering. */
static bool mark_final(json_t *messages, const char *field, vlm_error *error)
{
    static const char *const reasoning[] = {"reasoning_content", "thinking", "reasoning"};
    json_t *last = json_array_get(messages, json_array_size(messages) - 1), *value = json_object_get(last, field);
    bool done = false, same = false;
    for (int i = 0; i < 3; i++) same |= strcmp(field, reasoning[i]) == 0;
    if (json_is_array(value)) {
        for (size_t i = json_array_size(value); !done && i-- > 0;) done = append_tag(json_array_get(value, i), "text");
    } else if (same && json_is_string(value)) {      /* the copies under other names too */
        json_t *before = json_copy(value);
        for (int i = 0; i < 3; i++)
            if (json_equal(json_object_get(last, reasoning[i]), before)) done |= append_tag(last, reasoning[i]);
        json_decref(before);
    } else done = append_tag(last, field);
    return done || err_set(error, VLM_INVALID, "continue_final_message: the last message has no text in \"%.60s\"", field);
}

static bool cut_final(char *text, vlm_error *error)
{
    size_t n = sizeof tag - 2;                     /* without the space at its end, which templates may trim */
    char *last = NULL;
    for (char *p = text; (p = strstr(p, "CONTINUE_FINAL_MESSAGE_TAG")); p += n) last = p;
    if (!last) return err_set(error, VLM_INVALID, "continue_final_message: the chat template does not show the last message");
    bool spaced = last[n] == ' ';
    *last = 0;
    while (!spaced && last > text && strchr(" \t\r\n\f\v", last[-1])) *--last = 0;
    return true;
}

/* ---- without a template ---- */

static bool render_plain(const json_t *messages, const chat_options *o, buf *out, vlm_error *error)
{
    for (size_t i = 0; i < json_array_size(messages); i++) {
        const json_t *m = json_array_get(messages, i), *content = json_object_get(m, "content");
        const char *role = json_string_value(json_object_get(m, "role"));
        if (role && *role) {
            buf_addc(out, *role >= 'a' && *role <= 'z' ? (char)(*role - 32) : *role);
            buf_adds(out, role + 1);
        }
        buf_adds(out, ": ");
        if (json_is_string(content)) buf_adds(out, json_string_value(content));
        for (size_t k = 0; k < json_array_size(content); k++) {
            const char *text = json_string_value(json_object_get(json_array_get(content, k), "text"));
            if (text) buf_adds(out, text);
        }
        buf_addc(out, '\n');
    }
    if (o->add_generation_prompt) buf_adds(out, "Assistant:");
    return !out->failed || err_memory(error, out->size);
}

static uint32_t code_of(const char *guard)
{
    uint32_t c = 0;
    utf8_next_lossy(guard, strlen(guard), &c);
    return *guard ? c : 0;
}

/* Marks and their digits become what the model has for media. */
static bool place_media(const char *mark, const char *const marks[3], buf *text)
{
    buf out = {0};
    size_t from = 0, at;
    if (!text->data || bytes_find(text->data, text->size, 0, mark, 3) == SIZE_MAX) return true;
    for (; (at = bytes_find(text->data, text->size, from, mark, 3)) != SIZE_MAX; from = at + 3) {
        buf_add(&out, text->data + from, at - from);
        int kind = at + 3 < text->size ? text->data[at + 3] - '0' : -1;
        if (kind < 0 || kind > 2) continue;            /* a template that takes texts apart has parted them */
        if (marks[kind]) buf_adds(&out, marks[kind]);
        at++;
    }
    bool ok = buf_add(&out, text->data + from, text->size - from);
    if (ok) {
        buf_free(text);
        *text = out;
    } else buf_free(&out);
    return ok;
}

static bool render_template(const jinja *j, json_t *messages, const chat_options *o, const tokenizer *tok, chat_guard *g, buf *out, vlm_error *error)
{
    vlm_error first = {0};
    /* An escaped guard could not be told from what a user typed. */
    const jinja_limits limits = {.plain = {code_of(g->text), code_of(g->mark)}};
    for (int attempt = 0; attempt < 3; attempt++) {
        json_t *variables = make_variables(messages, o, tok, g);
        if (!variables) return err_memory(error, 0);
        bool ok = jinja_render(j, variables, o->now, &limits, out, NULL, attempt ? NULL : &first);
        json_decref(variables);
        if (ok) {
            return place_media(g->mark, o->marks, out) || err_memory(error, out->size);
        }
        if (first.code == VLM_INVALID || first.code == VLM_MEMORY) break;
        if (attempt == 0 && chat_fill_content(messages, true)) continue;     /* again with null for content that is missing, then with "" */
        if (attempt == 2 || !chat_fill_content(messages, false)) break;
    }
    if (error) *error = first;
    return first.code == VLM_INVALID ? err_prefix(error, "chat template") : false;
}

bool chat_render(const chat_template *t, const tokenizer *tok, const json_t *messages, const chat_options *options, chat_prompt *out,
                 vlm_error *error)
{
    static const chat_options none = {.add_generation_prompt = true};
    chat_options o = options ? *options : none;
    *out = (chat_prompt){0};
    if (o.tools && !json_is_array(o.tools) && !json_is_null(o.tools)) return err_set(error, VLM_INVALID, "tools must be a list");
    if (o.kwargs && !json_is_object(o.kwargs) && !json_is_null(o.kwargs)) return err_set(error, VLM_INVALID, "chat template variables must be an object");
    const json_t *final = json_object_get(o.kwargs, "continue_final_message");
    bool open = json_is_true(final) || json_is_string(final);
    if (open) o.add_generation_prompt = false;
    chat_list media = {0};
    chat_guard guard = {0};
    buf text = {0};
    json_t *normal = NULL;
    jinja *fallback = NULL;
    bool ok = true;
    if (!t && o.fallback) ok = (fallback = jinja_compile(o.fallback, strlen(o.fallback), error)) != NULL;
    const char *name = json_string_value(json_object_get(o.kwargs, "chat_template"));
    const chat_variant *v = t ? chat_choose(t, name, json_array_size(o.tools) > 0, error) : NULL;
    const jinja *j = v ? v->j : fallback;
    const json_t *values[] = {messages ? messages : json_null(), o.tools ? o.tools : json_null(), o.kwargs ? o.kwargs : json_null(), NULL};
    ok = ok && (v || !t) && chat_guard_init(&guard, t, v, j, tok, o.placeholders, values, error);
    guard.typed = o.typed;
    ok = ok && (normal = chat_normalize(v, j, messages, guard.mark, &o, &media, error));
    if (ok && open) ok = mark_final(normal, json_is_string(final) ? json_string_value(final) : "content", error);
    if (ok && j) ok = render_template(j, normal, &o, tok, &guard, &text, error);
    else if (ok) {
        json_t *guarded = chat_guard_value(&guard, normal, false);
        ok = guarded ? render_plain(guarded, &o, &text, error) : err_memory(error, 0);
        json_decref(guarded);
    }
    if (ok && open) ok = cut_final(text.data ? text.data : (char[1]){0}, error);
    if (ok && !open && text.data && strlen(text.data) < text.size) ok = err_set(error, VLM_INVALID, "the prompt has a zero character");
    if (ok && !(out->text = buf_take(&text))) ok = err_memory(error, text.size);
    if (ok) {
        memcpy(out->guard, guard.text, sizeof out->guard);
        out->media = media.item;
        out->media_count = media.count;
    } else chat_list_free(&media);
    buf_free(&text);
    json_decref(normal);
    jinja_free(fallback);
    chat_guard_free(&guard);
    return ok;
}
