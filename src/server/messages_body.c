/* messages_body.c - see messages.h. What changes its place:
 *   system                        the first message
 *   tool_result blocks            messages of the role tool, before what else their message says
 *   tool_use blocks               the assistant message's tool_calls
 *   thinking blocks               the assistant message's reasoning_content (the template decides whether the model sees it)
 *   image blocks                  image parts, where they stood; in tool results, too */
#include <stdlib.h>
#include <string.h>

#include "server/body.h"
#include "server/messages.h"

static const char *text_at(const json_t *o, const char *key) { return json_string_value(json_object_get(o, key)); }
static bool is(const char *text, const char *word) { return text && !strcmp(text, word); }

/* {"type": "base64", "media_type", "data"} or {"type": "url", "url"}: a string with the source, NULL when refused. */
static json_t *source_of(const json_t *block, const char *where, refusal *why)
{
    const json_t *source = json_object_get(block, "source");
    const char *type = text_at(source, "type"), *data = text_at(source, "data"), *url = text_at(source, "url"), *media = text_at(source, "media_type");
    if (is(type, "url") && url) return json_string(url);
    if (!is(type, "base64") || !data) {
        refuse(why, 400, where, "'%s.source': {\"type\": \"base64\", \"media_type\", \"data\"} or {\"type\": \"url\", \"url\"} was expected.", where);
        return NULL;
    }
    char *text = mem_printf("data:%s;base64,%s", media ? media : "image/png", data);
    json_t *value = text ? json_string(text) : NULL;
    mem_free(text);
    if (!value) refuse_memory(why);
    return value;
}

/* One block as a part; *part is NULL when it has none (thinking). False: refused. */
static bool part_of(const json_t *block, const char *where, json_t **part, refusal *why)
{
    const char *type = text_at(block, "type");
    *part = NULL;
    if (is(type, "text")) {
        if (!text_at(block, "text")) return refuse(why, 400, where, "'%s.text': a string was expected.", where);
        *part = json_pack("{s:s, s:O}", "type", "text", "text", json_object_get(block, "text"));
    } else if (is(type, "image")) {
        json_t *source = source_of(block, where, why);
        if (!source) return false;
        *part = json_pack("{s:s, s:o}", "type", "image", "image", source);
    } else if (is(type, "document")) {
        const json_t *source = json_object_get(block, "source");
        if (!is(text_at(source, "type"), "text")) return refuse(why, 400, where, "'%s': only documents of plain text are taken.", where);
        *part = json_pack("{s:s, s:O}", "type", "text", "text", json_object_get(source, "data"));
    } else if (!is(type, "thinking") && !is(type, "redacted_thinking"))
        return refuse(why, 400, where, "'%s.type': '%.60s' is not known here.", where, type ? type : "");
    return true;
}

/* Content as a string or a list of blocks, into a list of parts. */
static json_t *parts_of(const json_t *content, const char *where, refusal *why)
{
    if (json_is_string(content)) return json_pack("[{s:s, s:O}]", "type", "text", "text", content);
    if (!json_is_array(content)) {
        refuse(why, 400, where, "'%s': a string or an array of blocks was expected.", where);
        return NULL;
    }
    json_t *parts = json_array();
    size_t i;
    const json_t *block;
    json_array_foreach(content, i, block) {
        char here[96];
        json_t *part;
        snprintf(here, sizeof here, "%s[%zu]", where, i);
        if (!part_of(block, here, &part, why)) {
            json_decref(parts);
            return NULL;
        }
        if (part) json_array_append_new(parts, part);
    }
    return parts;
}

/* A list that is one text becomes a string: templates of tool results like that better. */
static json_t *plain(json_t *parts)
{
    const json_t *only = json_array_size(parts) == 1 ? json_array_get(parts, 0) : NULL;
    json_t *text = only && is(text_at(only, "type"), "text") ? json_incref(json_object_get(only, "text")) : json_array_size(parts) ? NULL : json_string("");
    if (!text) return parts;
    json_decref(parts);
    return text;
}

static bool add_tool_result(json_t *out, const json_t *block, const char *where, refusal *why)
{
    const json_t *content = json_object_get(block, "content");
    json_t *parts = content && !json_is_null(content) ? parts_of(content, where, why) : json_array();
    if (!parts) return false;
    json_t *id = json_object_get(block, "tool_use_id");
    if (!json_is_string(id)) {
        json_decref(parts);
        return refuse(why, 400, where, "'%s.tool_use_id': a string was expected.", where);
    }
    json_array_append_new(out, json_pack("{s:s, s:O, s:o}", "role", "tool", "tool_call_id", id, "content", plain(parts)));
    return true;
}

static bool add_user(json_t *out, const json_t *content, const char *where, refusal *why)
{
    json_t *rest = json_array();
    size_t i;
    const json_t *block;
    bool ok = true;
    if (!json_is_array(content)) {
        json_decref(rest);
        if (!(rest = parts_of(content, where, why))) return false;
    } else json_array_foreach(content, i, block) {
        char here[96];
        json_t *part = NULL;
        snprintf(here, sizeof here, "%s[%zu]", where, i);
        ok = is(text_at(block, "type"), "tool_result") ? add_tool_result(out, block, here, why) : part_of(block, here, &part, why);
        if (!ok) break;
        if (part) json_array_append_new(rest, part);
    }
    if (ok && (json_array_size(rest) || !json_is_array(content))) json_array_append_new(out, json_pack("{s:s, s:o}", "role", "user", "content", plain(rest)));
    else json_decref(rest);
    return ok;
}

static json_t *call_of(const json_t *block)
{
    const json_t *input = json_object_get(block, "input");
    char *arguments = json_dumps(input ? input : json_null(), JSON_COMPACT | JSON_ENCODE_ANY);
    json_t *value = json_pack("{s:O?, s:s, s:{s:O?, s:s}}", "id", json_object_get(block, "id"), "type", "function", "function", "name",
                              json_object_get(block, "name"), "arguments", arguments && json_is_object(input) ? arguments : "{}");
    free(arguments);
    return value;
}

static bool add_assistant(json_t *out, const json_t *content, const char *where, refusal *why)
{
    if (json_is_string(content)) return json_array_append_new(out, json_pack("{s:s, s:O}", "role", "assistant", "content", content)) == 0;
    json_t *calls = json_array(), *parts = json_array();
    buf thinking = {0};
    size_t i;
    const json_t *block;
    bool ok = json_is_array(content) || refuse(why, 400, where, "'%s': a string or an array of blocks was expected.", where);
    json_array_foreach(content, i, block) {
        char here[96];
        json_t *part = NULL;
        const char *type = text_at(block, "type"), *thought = text_at(block, "thinking");
        snprintf(here, sizeof here, "%s[%zu]", where, i);
        if (is(type, "tool_use")) json_array_append_new(calls, call_of(block));
        else if (is(type, "thinking") && thought) buf_adds(&thinking, thought);
        else if (!(ok = part_of(block, here, &part, why))) break;
        if (part) json_array_append_new(parts, part);
    }
    json_t *message = json_pack("{s:s}", "role", "assistant");
    if (thinking.size) json_object_set_new(message, "reasoning_content", text_json(thinking.data, thinking.size));
    if (json_array_size(calls)) json_object_set(message, "tool_calls", calls);
    json_object_set_new(message, "content", json_array_size(parts) ? plain(json_incref(parts)) : json_string(""));
    if (ok) json_array_append(out, message);
    json_decref(message);
    json_decref(calls);
    json_decref(parts);
    buf_free(&thinking);
    return ok;
}

static bool add_messages(json_t *out, const json_t *body, refusal *why)
{
    const json_t *system = json_object_get(body, "system"), *list = json_object_get(body, "messages"), *message;
    if (system && !json_is_null(system)) {
        json_t *parts = parts_of(system, "system", why);
        if (!parts) return false;
        json_array_append_new(out, json_pack("{s:s, s:o}", "role", "system", "content", plain(parts)));
    }
    if (!json_array_size(list)) return refuse(why, 400, "messages", "'messages': an array of at least one message was expected.");
    size_t i;
    json_array_foreach(list, i, message) {
        char where[64];
        const char *role = text_at(message, "role");
        const json_t *content = json_object_get(message, "content");
        snprintf(where, sizeof where, "messages[%zu].content", i);
        if (is(role, "user")) { if (!add_user(out, content, where, why)) return false; }
        else if (is(role, "assistant")) { if (!add_assistant(out, content, where, why)) return false; }
        else if (is(role, "system")) {
            json_t *parts = parts_of(content, where, why);
            if (!parts) return false;
            json_array_append_new(out, json_pack("{s:s, s:o}", "role", json_array_size(out) ? "user" : "system", "content", plain(parts)));
        } else {
            snprintf(where, sizeof where, "messages[%zu].role", i);
            return refuse(why, 400, where, "'%s': user or assistant was expected.", where);
        }
    }
    return true;
}

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
        json_t *schema = json_object_get(tool, "input_schema");
        if (!schema) continue;                             /* tools of their server */
        if (!json_is_object(schema)) {
            json_decref(out);
            return refuse(why, 400, "tools", "'tools[%zu].input_schema': an object was expected.", i);
        }
        json_array_append_new(out, json_pack("{s:s, s:{s:O?, s:O?, s:O, s:O?}}", "type", "function", "function", "name", json_object_get(tool, "name"),
                                             "description", json_object_get(tool, "description"), "parameters", schema, "strict", json_object_get(tool, "strict")));
    }
    if (json_array_size(out)) json_object_set(chat, "tools", out);
    json_decref(out);
    const char *type = text_at(which, "type");
    if (which && !json_is_null(which) && !type) return refuse(why, 400, "tool_choice", "'tool_choice': an object with a type was expected.");
    if (is(type, "auto") || is(type, "none")) json_object_set_new(chat, "tool_choice", json_string(type));
    else if (is(type, "any")) json_object_set_new(chat, "tool_choice", json_string("required"));
    else if (is(type, "tool")) json_object_set_new(chat, "tool_choice", json_pack("{s:s, s:{s:O?}}", "type", "function", "function", "name", json_object_get(which, "name")));
    else if (type) return refuse(why, 400, "tool_choice.type", "'tool_choice.type': one of auto, any, tool, none was expected.");
    if (json_is_true(json_object_get(which, "disable_parallel_tool_use"))) json_object_set_new(chat, "parallel_tool_calls", json_false());
    return true;
}

static bool add_thinking(json_t *chat, const json_t *body, refusal *why)
{
    const json_t *thinking = json_object_get(body, "thinking"), *budget = json_object_get(thinking, "budget_tokens");
    const char *type = text_at(thinking, "type");
    if (!thinking || json_is_null(thinking)) return true;
    if (!is(type, "enabled") && !is(type, "adaptive") && !is(type, "disabled"))
        return refuse(why, 400, "thinking.type", "'thinking.type': one of enabled, adaptive, disabled was expected.");
    if (budget && !json_is_null(budget) && (!json_is_integer(budget) || json_integer_value(budget) < 0))
        return refuse(why, 400, "thinking.budget_tokens", "'thinking.budget_tokens': a whole number was expected.");
    if (!is(type, "adaptive") || !json_object_get(chat, "enable_thinking")) json_object_set_new(chat, "enable_thinking", json_boolean(!is(type, "disabled")));
    if (json_is_integer(budget) && is(type, "enabled")) json_object_set(chat, "thinking_budget", (json_t *)(uintptr_t)budget);
    return true;
}

json_t *messages_to_chat(const json_t *body, refusal *why)
{
    static const char *const own[] = {"system", "messages", "tools", "tool_choice", "thinking", "stop_sequences", "output_config", "metadata", "max_completion_tokens", "stop"};
    json_t *chat = json_copy((json_t *)(uintptr_t)body), *messages = json_array();
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) json_object_del(chat, own[i]);
    json_t *stop = json_object_get(body, "stop_sequences");
    bool ok = true;
    if (stop && !json_is_null(stop)) {
        if (json_is_array(stop)) json_object_set(chat, "stop", stop);
        else ok = refuse(why, 400, "stop_sequences", "'stop_sequences': an array of strings was expected.");
    }
    const json_t *format = json_object_get(json_object_get(body, "output_config"), "format");
    if (is(text_at(format, "type"), "json_schema"))
        json_object_set_new(chat, "response_format", json_pack("{s:s, s:{s:s, s:O?}}", "type", "json_schema", "json_schema", "name", "answer", "schema",
                                                               json_object_get(format, "schema")));
    ok = ok && add_messages(messages, body, why) && add_tools(chat, body, why) && add_thinking(chat, body, why);
    json_object_set_new(chat, "messages", messages);
    if (ok) return chat;
    json_decref(chat);
    return NULL;
}
