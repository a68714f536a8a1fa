/* fit.c - a conversation is fitted to what its template can show. Nothing is left out: what has no place of its own moves into the message beside it.
 *
 *   system messages after others become the user's, several at the start become one, and one for a template that knows none goes in front of the
 *   user's first text; roles that must alternate are joined; arguments, results and ids of tool calls get the form that the family was trained on */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/chat/internal.h"

static const char *role_of(const json_t *message)
{
    const char *role = json_string_value(json_object_get(message, "role"));
    return role ? role : "";
}

static bool is_role(const json_t *message, const char *role) { return !strcmp(role_of(message), role); }

/* ---- joining ---- */

static bool is_empty(const json_t *content)
{
    return !content || json_is_null(content) || (json_is_string(content) && !json_string_length(content)) || (json_is_array(content) && !json_array_size(content));
}

static bool append_parts(json_t *list, const json_t *content)
{
    size_t i;
    json_t *part;
    if (json_is_string(content)) return json_array_append_new(list, json_pack("{s:s, s:O}", "type", "text", "text", content)) == 0;
    json_array_foreach((json_t *)content, i, part)
        if (json_array_append(list, part) != 0) return false;
    return true;
}

/* Both contents with an empty line between; NULL when out of memory. */
static json_t *join_content(const json_t *a, const json_t *b)
{
    if (is_empty(a)) return b ? json_incref((json_t *)b) : json_string("");
    if (is_empty(b)) return json_incref((json_t *)a);
    if (json_is_string(a) && json_is_string(b)) {
        buf text = {0};
        bool ok = buf_add(&text, json_string_value(a), json_string_length(a)) && buf_adds(&text, "\n\n") && buf_add(&text, json_string_value(b), json_string_length(b));
        json_t *out = ok ? json_stringn_nocheck(text.data, text.size) : NULL;
        buf_free(&text);
        return out;
    }
    json_t *list = json_array();
    if (list && append_parts(list, a) && json_array_append_new(list, json_pack("{s:s, s:s}", "type", "text", "text", "\n\n")) == 0 && append_parts(list, b)) return list;
    json_decref(list);
    return NULL;
}

/* Joins message i + 1 into message i. */
static bool join_next(json_t *messages, size_t i)
{
    json_t *a = json_array_get(messages, i), *b = json_array_get(messages, i + 1);
    json_t *content = join_content(json_object_get(a, "content"), json_object_get(b, "content"));
    return content && json_object_set_new(a, "content", content) == 0 && json_array_remove(messages, i + 1) == 0;
}

/* ---- roles ---- */

static bool fit_systems(const chat_form *f, json_t *messages)
{
    size_t first = 0;
    while (first < json_array_size(messages) && is_role(json_array_get(messages, first), "system")) first++;
    for (size_t i = first; !f->takes_late_system && i < json_array_size(messages); i++) {
        json_t *message = json_array_get(messages, i);
        if (is_role(message, "system") && json_object_set_new(message, "role", json_string("user")) != 0) return false;
    }
    for (; first > 1 && (!f->takes_systems || !f->takes_system); first--)
        if (!join_next(messages, 0)) return false;
    if (f->takes_system || !first) return true;
    json_t *system = json_array_get(messages, 0), *next = json_array_get(messages, 1);
    if (json_object_set_new(system, "role", json_string("user")) != 0) return false;
    return !next || !is_role(next, "user") || join_next(messages, 0);
}

static bool is_plain(const json_t *message)
{
    return (is_role(message, "user") || is_role(message, "assistant")) && !json_object_get(message, "tool_calls") && !json_object_get(message, "reasoning_content");
}

static bool fit_repeats(const chat_form *f, json_t *messages)
{
    for (size_t i = 0; !f->takes_repeats && i + 1 < json_array_size(messages);) {
        const json_t *a = json_array_get(messages, i), *b = json_array_get(messages, i + 1);
        if (!strcmp(role_of(a), role_of(b)) && is_plain(a) && is_plain(b)) {
            if (!join_next(messages, i)) return false;
        } else i++;
    }
    return true;
}

/* ---- tools ---- */

static json_t *parsed_object(const json_t *text)
{
    if (!json_is_string(text)) return NULL;
    json_t *object = json_load_wide(json_string_value(text), json_string_length(text), 0, &(json_error_t){0});
    if (json_is_object(object)) return object;
    json_decref(object);
    return NULL;
}

static bool fit_arguments(const chat_form *f, json_t *call)
{
    json_t *function = json_object_get(call, "function"), *holder = json_is_object(function) ? function : call;
    const json_t *arguments = json_object_get(holder, "arguments");
    json_t *changed = NULL;
    if (!f->arguments_as_text) changed = parsed_object(arguments);
    else if (json_is_object(arguments)) {
        char *text = json_dumps(arguments, JSON_REAL_PRECISION(16));
        changed = text ? json_string(text) : NULL;
        free(text);
        if (!changed) return false;
    }
    return !changed || json_object_set_new(holder, "arguments", changed) == 0;
}

static bool is_nine(const char *id)
{
    size_t n = 0;
    while (isalnum((unsigned char)id[n])) n++;
    return n == 9 && !id[n];
}

/* functions.NAME:3 */
static bool is_kimi(const char *id)
{
    const char *colon = strrchr(id, ':');
    if (strncmp(id, "functions.", 10) || !colon || !colon[1]) return false;
    return strspn(colon + 1, "0123456789") == strlen(colon + 1);
}

/* The same id always becomes the same nine letters and digits. */
static void nine_of(const char *id, size_t salt, char out[10])
{
    uint64_t h = 0xCBF29CE484222325u + salt;
    for (; *id; id++) h = (h ^ (unsigned char)*id) * 0x100000001B3u;
    for (int i = 0; i < 9; i++) {
        h = (h ^ (h >> 29)) * 0xBF58476D1CE4E5B9u;
        out[i] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"[(h >> 33) % 62];
    }
    out[9] = 0;
}

/* The family's form of a call's id, or NULL when it has that already. Caller frees; *failed: out of memory. */
static char *fitted_id(const chat_form *f, const json_t *call, size_t number, bool *failed)
{
    const char *id = json_string_value(json_object_get(call, "id"));
    char text[300];
    if (f->ids_of_kimi && !(id && is_kimi(id))) {
        const json_t *function = json_object_get(call, "function");
        const char *name = json_string_value(json_object_get(function ? function : call, "name"));
        snprintf(text, sizeof text, "functions.%.200s:%zu", name ? name : "", number);
    } else if (f->ids_of_nine && !(id && is_nine(id))) nine_of(id ? id : "", id ? 0 : number + 1, text);
    else return NULL;
    char *copy = mem_strdup(text);
    *failed = !copy;
    return copy;
}

/* Results name their call by its id, or simply follow in the calls' order. */
static bool fit_ids(const chat_form *f, json_t *messages)
{
    json_t *changed = json_object();
    size_t number = 0, i, k;
    json_t *message, *call;
    bool ok = changed != NULL;
    json_array_foreach(messages, i, message) {
        json_array_foreach(json_object_get(message, "tool_calls"), k, call) {
            bool failed = false;
            char *id = ok ? fitted_id(f, call, number++, &failed) : NULL;
            const char *old = json_string_value(json_object_get(call, "id"));
            if (id && old) ok = json_object_set_new(changed, old, json_string(id)) == 0;
            if (ok && id) ok = json_object_set_new(call, "id", json_string(id)) == 0;
            ok = ok && !failed;
            mem_free(id);
        }
        const char *old = json_string_value(json_object_get(message, "tool_call_id"));
        json_t *fitted = ok && old ? json_object_get(changed, old) : NULL;
        if (fitted) ok = json_object_set(message, "tool_call_id", fitted) == 0;
        else if (ok && old && f->ids_of_nine && !is_nine(old)) {             /* of a call that is not in the conversation */
            char nine[10];
            nine_of(old, 0, nine);
            ok = json_object_set_new(message, "tool_call_id", json_string(nine)) == 0;
        }
    }
    json_decref(changed);
    return ok;
}

/* The name of the tool that a result is of. */
static const json_t *tool_name(const json_t *calls, const json_t *result)
{
    const char *id = json_string_value(json_object_get(result, "tool_call_id"));
    size_t i;
    json_t *call;
    json_array_foreach((json_t *)calls, i, call) {
        const char *own = json_string_value(json_object_get(call, "id"));
        if (id && own && !strcmp(id, own)) return json_object_get(json_object_get(call, "function"), "name");
    }
    return json_object_get(result, "name");
}

/* Results that follow message i go into its tool_responses, when one of them is an object and none holds media. */
static bool move_results(json_t *messages, size_t i)
{
    json_t *message = json_array_get(messages, i), *calls = json_object_get(message, "tool_calls"), *list = json_array();
    size_t n = 0;
    bool any = false, ok = list != NULL, plain = json_array_size(calls) != 0 && !json_object_get(message, "tool_responses");
    for (const json_t *result; ok && plain && is_role(result = json_array_get(messages, i + 1 + n), "tool"); n++) {
        json_t *content = json_object_get(result, "content"), *object = json_is_object(content) ? json_incref(content) : parsed_object(content);
        const json_t *name = tool_name(calls, result);
        plain = (object || json_is_string(content)) && json_is_string(name);
        any |= object != NULL;
        if (plain) ok = json_array_append_new(list, json_pack("{s:O, s:O}", "name", name, "response", object ? object : content)) == 0;
        json_decref(object);
    }
    if (ok && plain && any) {
        ok = json_object_set(message, "tool_responses", list) == 0;
        for (; ok && n; n--) ok = json_array_remove(messages, i + 1) == 0;
    }
    json_decref(list);
    return ok;
}

static bool fit_result(const chat_form *f, json_t *message)
{
    if (!f->results_as_objects || !is_role(message, "tool")) return true;
    json_t *object = parsed_object(json_object_get(message, "content"));
    return !object || json_object_set_new(message, "content", object) == 0;
}

static bool fit_tools(const chat_form *f, json_t *messages)
{
    for (size_t i = 0; i < json_array_size(messages); i++) {
        json_t *message = json_array_get(messages, i), *call;
        size_t k;
        json_array_foreach(json_object_get(message, "tool_calls"), k, call)
            if (!fit_arguments(f, call)) return false;
        if (f->results_in_call && !move_results(messages, i)) return false;
        if (!fit_result(f, message)) return false;
    }
    return (!f->ids_of_nine && !f->ids_of_kimi) || fit_ids(f, messages);
}

bool chat_fit(const chat_form *f, json_t *messages) { return fit_systems(f, messages) && fit_repeats(f, messages) && fit_tools(f, messages); }
