/* responses_body.c - see responses.h. Items become messages: calls that follow each other become one assistant message, as models write them, and the
 * reasoning before them goes with it. */
#include <stdlib.h>
#include <string.h>

#include "server/call.h"
#include "server/responses.h"

static const char *text_at(const json_t *o, const char *key) { return json_string_value(json_object_get(o, key)); }
static bool is(const char *text, const char *word) { return text && !strcmp(text, word); }

typedef struct reading {
    json_t *messages;
    buf reasoning;                 /* that no assistant message has taken yet */
    refusal *why;
} reading;

/* ---- content ---- */

/* One part, as chat knows it; NULL: refused. */
static json_t *part_of(const json_t *part, const char *where, refusal *why)
{
    const char *type = text_at(part, "type");
    if (is(type, "input_text") || is(type, "output_text") || is(type, "text") || is(type, "summary_text") || is(type, "reasoning_text")) {
        if (text_at(part, "text")) return json_pack("{s:s, s:O}", "type", "text", "text", json_object_get(part, "text"));
        refuse(why, 400, where, "'%s.text': a string was expected.", where);
        return NULL;
    }
    if (is(type, "refusal")) return json_pack("{s:s, s:s}", "type", "text", "text", text_at(part, "refusal") ? text_at(part, "refusal") : "");
    if (is(type, "input_image") || is(type, "image_url") || is(type, "input_audio") || is(type, "video_url") || is(type, "input_video") || is(type, "image")) {
        const json_t *file = json_object_get(part, "file_id");
        if (!file || json_is_null(file)) return json_incref((json_t *)(uintptr_t)part);
        refuse(why, 400, where, "'%s': files are not kept here; send the data or a URL.", where);
        return NULL;
    }
    refuse(why, 400, where, "'%s.type': '%.60s' is not known here.", where, type ? type : "");
    return NULL;
}

/* A string, or a list of parts. NULL: refused. */
static json_t *content_of(const json_t *content, const char *where, refusal *why)
{
    if (json_is_string(content)) return json_incref((json_t *)(uintptr_t)content);
    if (!json_is_array(content)) {
        refuse(why, 400, where, "'%s': a string or an array of parts was expected.", where);
        return NULL;
    }
    json_t *parts = json_array();
    size_t i;
    const json_t *part;
    json_array_foreach(content, i, part) {
        char here[96];
        snprintf(here, sizeof here, "%s[%zu]", where, i);
        json_t *one = part_of(part, here, why);
        if (!one) {
            json_decref(parts);
            return NULL;
        }
        json_array_append_new(parts, one);
    }
    const json_t *only = json_array_size(parts) == 1 ? json_array_get(parts, 0) : NULL;
    json_t *text = only && is(text_at(only, "type"), "text") ? json_incref(json_object_get(only, "text")) : NULL;
    if (text) json_decref(parts);
    return text ? text : parts;
}

/* ---- items ---- */

static void give_reasoning(reading *r, json_t *message)
{
    if (r->reasoning.size) json_object_set_new(message, "reasoning_content", text_json(r->reasoning.data, r->reasoning.size));
    buf_clear(&r->reasoning);
}

static bool add_message(reading *r, const json_t *item, const char *where)
{
    const char *role = text_at(item, "role");
    char here[96];
    snprintf(here, sizeof here, "%s.content", where);
    json_t *content = content_of(json_object_get(item, "content"), here, r->why);
    if (!content) return false;
    json_t *message = json_pack("{s:s, s:o}", "role", role ? role : "user", "content", content);
    if (is(role, "assistant")) give_reasoning(r, message);
    json_array_append_new(r->messages, message);
    return true;
}

static bool add_call(reading *r, const json_t *item, const char *where)
{
    json_t *last = json_array_get(r->messages, json_array_size(r->messages) - 1), *calls = json_object_get(last, "tool_calls");
    if (!text_at(item, "name")) return refuse(r->why, 400, where, "'%s.name': a string was expected.", where);
    if (!is(text_at(last, "role"), "assistant")) {
        last = json_pack("{s:s, s:s}", "role", "assistant", "content", "");
        give_reasoning(r, last);
        json_array_append_new(r->messages, last);
        calls = NULL;
    }
    if (!calls) {
        calls = json_array();
        json_object_set_new(last, "tool_calls", calls);
    }
    const char *arguments = text_at(item, "arguments");
    const json_t *id = json_object_get(item, "call_id");
    json_array_append_new(calls, json_pack("{s:O?, s:s, s:{s:O, s:s}}", "id", id ? id : json_object_get(item, "id"), "type", "function", "function", "name",
                                           json_object_get(item, "name"), "arguments", arguments ? arguments : "{}"));
    return true;
}

static bool add_output(reading *r, const json_t *item, const char *where)
{
    char here[96];
    snprintf(here, sizeof here, "%s.output", where);
    const json_t *id = json_object_get(item, "call_id");
    if (!json_is_string(id)) return refuse(r->why, 400, where, "'%s.call_id': a string was expected.", where);
    json_t *content = content_of(json_object_get(item, "output"), here, r->why);
    if (!content) return false;
    json_array_append_new(r->messages, json_pack("{s:s, s:O, s:o}", "role", "tool", "tool_call_id", id, "content", content));
    return true;
}

static void add_reasoning(reading *r, const json_t *item)
{
    const json_t *list = json_object_get(item, "content"), *part;
    size_t i;
    if (!json_array_size(list)) list = json_object_get(item, "summary");
    json_array_foreach(list, i, part)
        if (text_at(part, "text")) buf_adds(&r->reasoning, text_at(part, "text"));
}

static bool add_item(reading *r, const json_t *item, const char *where)
{
    const char *type = text_at(item, "type");
    if (!json_is_object(item)) return refuse(r->why, 400, where, "'%s': an object was expected.", where);
    if (is(type, "message") || (!type && text_at(item, "role"))) return add_message(r, item, where);
    if (is(type, "function_call")) return add_call(r, item, where);
    if (is(type, "function_call_output") || is(type, "tool_result")) return add_output(r, item, where);
    if (is(type, "reasoning")) return add_reasoning(r, item), true;
    return refuse(r->why, 400, where, "'%s.type': '%.60s' is not known here.", where, type ? type : "");
}

static bool add_input(reading *r, const json_t *input)
{
    if (json_is_string(input)) return json_array_append_new(r->messages, json_pack("{s:s, s:O}", "role", "user", "content", input)) == 0;
    if (!json_array_size(input)) return refuse(r->why, 400, "input", "'input': a string or an array of items was expected.");
    size_t i;
    const json_t *item;
    json_array_foreach(input, i, item) {
        char where[48];
        snprintf(where, sizeof where, "input[%zu]", i);
        if (!add_item(r, item, where)) return false;
    }
    return true;
}

/* ---- the rest of the body ---- */

static bool add_tools(json_t *chat, const json_t *body, refusal *why)
{
    const json_t *tools = json_object_get(body, "tools"), *which = json_object_get(body, "tool_choice"), *tool;
    json_t *out = json_array();
    size_t i;
    if (tools && !json_is_null(tools) && !json_is_array(tools)) {
        json_decref(out);
        return refuse(why, 400, "tools", "'tools': an array was expected.");
    }
    json_array_foreach(tools, i, tool) {
        json_t *nested = json_object_get(tool, "function");
        if (json_is_object(tool) && text_at(tool, "type") && !is(text_at(tool, "type"), "function")) continue;      /* tools that OpenAI's servers run */
        if (nested) json_array_append(out, (json_t *)(uintptr_t)tool);
        else {
            json_t *function = json_is_object(tool) ? json_copy((json_t *)(uintptr_t)tool) : json_object();
            json_object_del(function, "type");
            json_array_append_new(out, json_pack("{s:s, s:o}", "type", "function", "function", function));
        }
    }
    if (json_array_size(out)) json_object_set(chat, "tools", out);
    json_decref(out);
    if (is(text_at(which, "type"), "function") && text_at(which, "name"))
        json_object_set_new(chat, "tool_choice", json_pack("{s:s, s:{s:O}}", "type", "function", "function", "name", json_object_get(which, "name")));
    else if (is(text_at(which, "type"), "allowed_tools"))
        json_object_set_new(chat, "tool_choice", json_string(text_at(which, "mode") ? text_at(which, "mode") : "auto"));
    else if (which && !json_is_null(which)) json_object_set(chat, "tool_choice", (json_t *)(uintptr_t)which);
    return true;
}

static void add_format(json_t *chat, const json_t *body)
{
    json_t *format = json_object_get(json_object_get(body, "text"), "format");
    if (is(text_at(format, "type"), "json_schema") && !json_object_get(format, "json_schema")) {
        json_t *inner = json_copy(format);
        json_object_del(inner, "type");
        json_object_set_new(chat, "response_format", json_pack("{s:s, s:o}", "type", "json_schema", "json_schema", inner));
    } else if (format) json_object_set(chat, "response_format", format);
}

json_t *responses_to_chat(const json_t *body, const json_t *before, refusal *why)
{
    static const char *const own[] = {"input", "instructions", "tools", "tool_choice", "text", "max_output_tokens", "previous_response_id", "store", "metadata",
                                      "include", "truncation", "background", "conversation", "max_tool_calls", "prompt", "n"};
    json_t *chat = json_copy((json_t *)(uintptr_t)body), *instructions = json_object_get(body, "instructions"), *most = json_object_get(body, "max_output_tokens");
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) json_object_del(chat, own[i]);
    reading r = {.messages = json_array(), .why = why};
    bool ok = true;
    if (instructions && !json_is_null(instructions)) {
        if (json_is_string(instructions)) json_array_append_new(r.messages, json_pack("{s:s, s:O}", "role", "system", "content", instructions));
        else ok = refuse(why, 400, "instructions", "'instructions': a string was expected.");
    }
    if (before) json_array_extend(r.messages, (json_t *)(uintptr_t)before);
    if (most && !json_is_null(most)) {
        if (json_is_integer(most) && json_integer_value(most) >= 1) json_object_set(chat, "max_tokens", most);
        else ok = refuse(why, 400, "max_output_tokens", "'max_output_tokens': a whole number of at least 1 was expected.");
    }
    ok = ok && add_input(&r, json_object_get(body, "input")) && add_tools(chat, body, why);
    add_format(chat, body);
    json_object_set_new(chat, "messages", r.messages);
    buf_free(&r.reasoning);
    if (ok) return chat;
    json_decref(chat);
    return NULL;
}

json_t *responses_input_items(const json_t *body, const char *id)
{
    const json_t *input = json_object_get(body, "input"), *item;
    json_t *items = json_array();
    size_t i;
    if (json_is_string(input))
        json_array_append_new(items, json_pack("{s:s, s:s, s:[{s:s, s:O}]}", "type", "message", "role", "user", "content", "type", "input_text", "text", input));
    json_array_foreach(input, i, item) json_array_append_new(items, json_copy((json_t *)(uintptr_t)item));
    json_t *one;
    json_array_foreach(items, i, one) {
        char name[80];
        snprintf(name, sizeof name, "%s_in_%zu", id, i);
        if (!json_object_get(one, "id")) json_object_set_new(one, "id", json_string(name));
        if (!json_object_get(one, "type")) json_object_set_new(one, "type", json_string("message"));
    }
    return items;
}
