/* responses.c - /v1/responses: answers as items, streams of numbered events, answers kept for a follow-up. The whole answer and the stream build their
 * items with the same functions; what a stream has finished is kept in state.output. */
#include "server/responses.h"

#include <string.h>
#include <time.h>

#include "server/chat.h"

typedef enum item_kind { NO_ITEM, REASONING, MESSAGE, FUNCTION_CALL } item_kind;

typedef struct response_state {
    json_t *body, *input, *messages;       /* owned: as asked; its items; chat messages without the answer */
    const char *tenant;
    bool store;
    json_t *output;                /* finished items */
    /* the stream's */
    int sequence;
    item_kind open;
    char item_id[96];
    buf text;                      /* of the open item */
    char *call_id, *call_name;     /* of an open call; in the call's memory */
} response_state;

/* ---- items ---- */

static void name_item(call *c, response_state *s, const char *prefix) { snprintf(s->item_id, sizeof s->item_id, "%s_%s_%zu", prefix, c->id + 5, json_array_size(s->output)); }

static json_t *text_part(const buf *text) { return json_pack("{s:s, s:o, s:[], s:[]}", "type", "output_text", "text", text_json(text->data, text->size), "annotations", "logprobs"); }

static json_t *message_item(const response_state *s, const buf *text, const char *status)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:[o]}", "id", s->item_id, "type", "message", "status", status, "role", "assistant", "content", text_part(text));
}

static json_t *reasoning_item(const response_state *s, const buf *text)
{
    json_t *value = text_json(text->data, text->size);
    return json_pack("{s:s, s:s, s:[{s:s, s:O}], s:[{s:s, s:o}], s:s}", "id", s->item_id, "type", "reasoning", "summary", "type", "summary_text", "text", value,
                     "content", "type", "reasoning_text", "text", value, "status", "completed");
}

static json_t *call_item(const response_state *s, const char *call_id, const char *name, json_t *arguments, const char *status)
{
    return json_pack("{s:s, s:s, s:s, s:s?, s:s?, s:o}", "id", s->item_id, "type", "function_call", "status", status, "call_id", call_id, "name", name, "arguments",
                     arguments);
}

/* ---- the response object ---- */

static const char *status_of(const choice *from)
{
    const char *reason = from->finish_reason;
    return !reason ? "failed" : !strcmp(reason, "cancelled") ? "cancelled" : !strcmp(reason, "length") || !strcmp(reason, "timeout") ? "incomplete" : "completed";
}

static json_t *usage_of(const vlm_usage *u)
{
    return json_pack("{s:i, s:{s:i}, s:i, s:{s:i}, s:i}", "input_tokens", u->prompt_tokens, "input_tokens_details", "cached_tokens", u->cached_tokens, "output_tokens",
                     u->completion_tokens, "output_tokens_details", "reasoning_tokens", u->reasoning_tokens, "total_tokens", u->prompt_tokens + u->completion_tokens);
}

static json_t *output_text(const json_t *output)
{
    buf all = {0};
    size_t i, k;
    const json_t *item, *part;
    json_array_foreach(output, i, item) {
        if (strcmp(json_string_value(json_object_get(item, "type")), "message")) continue;
        json_array_foreach(json_object_get(item, "content"), k, part) buf_adds(&all, json_string_value(json_object_get(part, "text")));
    }
    json_t *text = text_json(all.data, all.size);
    buf_free(&all);
    return text;
}

/* error: taken over, or NULL. */
static json_t *response_json(call *c, const char *status, bool ended, json_t *error)
{
    static const struct { const char *name, *otherwise; } echoed[] = {
        {"instructions", "null"}, {"metadata", "{}"}, {"parallel_tool_calls", "true"}, {"previous_response_id", "null"}, {"reasoning", "null"}, {"store", "true"},
        {"temperature", "null"}, {"text", "{\"format\":{\"type\":\"text\"}}"}, {"tool_choice", "\"auto\""}, {"tools", "[]"}, {"top_p", "null"}, {"user", "null"},
        {"max_output_tokens", "null"}, {"background", "false"}, {"truncation", "\"disabled\""}};
    response_state *s = c->state;
    bool incomplete = !strcmp(status, "incomplete");
    json_t *r = json_pack("{s:s, s:s, s:I, s:s, s:s, s:o, s:o, s:O, s:o, s:o}", "id", c->id, "object", "response", "created_at", (json_int_t)c->created, "status",
                          status, "model", c->model, "error", error ? error : json_null(), "incomplete_details",
                          incomplete ? json_pack("{s:s}", "reason", "max_output_tokens") : json_null(), "output", s->output, "output_text", output_text(s->output),
                          "usage", ended ? usage_of(&c->choices[0].usage) : json_null());
    for (size_t i = 0; i < sizeof echoed / sizeof *echoed; i++) {
        json_t *value = json_object_get(s->body, echoed[i].name);
        if (value && !json_is_null(value)) json_object_set(r, echoed[i].name, value);
        else json_object_set_new(r, echoed[i].name, json_loads(echoed[i].otherwise, JSON_DECODE_ANY, NULL));
    }
    if (ended && c->choices[0].notices) json_object_set(r, "notices", c->choices[0].notices);
    json_t *copy = json_deep_copy(r);                      /* s->output goes on growing */
    json_decref(r);
    return copy;
}

/* The answer as a chat message behind its question: what a follow-up begins with. */
static json_t *conversation(const response_state *s)
{
    json_t *messages = json_copy(s->messages), *message = json_pack("{s:s, s:s}", "role", "assistant", "content", ""), *calls = json_array();
    size_t i;
    const json_t *item;
    json_array_foreach(s->output, i, item) {
        const char *type = json_string_value(json_object_get(item, "type"));
        json_t *part = json_array_get(json_object_get(item, "content"), 0);
        if (!strcmp(type, "message")) json_object_set(message, "content", json_object_get(part, "text"));
        else if (!strcmp(type, "reasoning")) json_object_set(message, "reasoning_content", json_object_get(part, "text"));
        else json_array_append_new(calls, json_pack("{s:O, s:s, s:{s:O, s:O}}", "id", json_object_get(item, "call_id"), "type", "function", "function", "name",
                                                    json_object_get(item, "name"), "arguments", json_object_get(item, "arguments")));
    }
    if (json_array_size(calls)) json_object_set(message, "tool_calls", calls);
    json_decref(calls);
    json_array_append_new(messages, message);
    return messages;
}

static void keep(call *c, json_t *response)
{
    response_state *s = c->state;
    if (!s->store) return;
    json_t *messages = conversation(s);
    response_store_put(c->server->responses, s->tenant, c->id, response, s->input, messages);
    json_decref(messages);
}

static json_t *whole(call *c)
{
    response_state *s = c->state;
    choice *from = &c->choices[0];
    size_t i;
    const json_t *one;
    if (from->reasoning.size) {
        name_item(c, s, "rs");
        json_array_append_new(s->output, reasoning_item(s, &from->reasoning));
    }
    if (from->text.size || (!from->calls && !from->reasoning.size)) {
        name_item(c, s, "msg");
        json_array_append_new(s->output, message_item(s, &from->text, !strcmp(status_of(from), "incomplete") ? "incomplete" : "completed"));
    }
    json_array_foreach(from->calls, i, one) {
        const json_t *function = json_object_get(one, "function");
        name_item(c, s, "fc");
        json_array_append_new(s->output, call_item(s, json_string_value(json_object_get(one, "id")), json_string_value(json_object_get(function, "name")),
                                                   json_incref(json_object_get(function, "arguments")), "completed"));
    }
    json_t *response = response_json(c, status_of(from), true, NULL);
    json_object_set_new(response, "timings", timings_json(&from->usage));
    keep(c, response);
    return response;
}

/* ---- the stream ---- */

/* fields: taken over; type and number are added. */
static void send_event(call *c, const char *type, json_t *fields)
{
    response_state *s = c->state;
    json_object_set_new(fields, "type", json_string(type));
    json_object_set_new(fields, "sequence_number", json_integer(s->sequence++));
    call_send(c, type, fields);
}

static json_t *place(const response_state *s) { return json_pack("{s:s, s:i}", "item_id", s->item_id, "output_index", (int)json_array_size(s->output)); }

static json_t *content_place(const response_state *s)
{
    json_t *fields = place(s);
    json_object_set_new(fields, "content_index", json_integer(0));
    return fields;
}

static json_t *text_done(const response_state *s)
{
    json_t *fields = content_place(s);
    json_object_set_new(fields, "logprobs", json_array());
    return fields;
}

static void send_with(call *c, const char *type, json_t *fields, const char *name, json_t *value)
{
    json_object_set_new(fields, name, value);
    send_event(c, type, fields);
}

static void begin(call *c)
{
    send_event(c, "response.created", json_pack("{s:o}", "response", response_json(c, "in_progress", false, NULL)));
    send_event(c, "response.in_progress", json_pack("{s:o}", "response", response_json(c, "in_progress", false, NULL)));
}

static void close_item(call *c, const char *status)
{
    response_state *s = c->state;
    json_t *item = NULL;
    if (s->open == NO_ITEM) return;
    if (s->open == MESSAGE) {
        send_with(c, "response.output_text.done", text_done(s), "text", text_json(s->text.data, s->text.size));
        send_with(c, "response.content_part.done", content_place(s), "part", text_part(&s->text));
        item = message_item(s, &s->text, status);
    } else if (s->open == REASONING) {
        send_with(c, "response.reasoning_text.done", content_place(s), "text", text_json(s->text.data, s->text.size));
        item = reasoning_item(s, &s->text);
    } else {
        json_t *fields = place(s);
        json_object_set_new(fields, "name", json_string(s->call_name ? s->call_name : ""));
        send_with(c, "response.function_call_arguments.done", fields, "arguments", text_json(s->text.data, s->text.size));
        item = call_item(s, s->call_id, s->call_name, text_json(s->text.data, s->text.size), status);
    }
    send_event(c, "response.output_item.done", json_pack("{s:i, s:O}", "output_index", (int)json_array_size(s->output), "item", item));
    json_array_append_new(s->output, item);
    buf_clear(&s->text);
    s->open = NO_ITEM;
}

static void open_item(call *c, item_kind kind)
{
    response_state *s = c->state;
    buf none = {0};
    close_item(c, "completed");
    s->open = kind;
    name_item(c, s, kind == MESSAGE ? "msg" : kind == REASONING ? "rs" : "fc");
    json_t *item = kind == MESSAGE ? message_item(s, &none, "in_progress") : kind == REASONING ? reasoning_item(s, &none) :
                   call_item(s, s->call_id, s->call_name, json_string(""), "in_progress");
    if (kind != FUNCTION_CALL) json_object_set_new(item, "content", json_array());
    if (kind == REASONING) json_object_set_new(item, "summary", json_array());
    send_event(c, "response.output_item.added", json_pack("{s:i, s:o}", "output_index", (int)json_array_size(s->output), "item", item));
    if (kind == MESSAGE) send_with(c, "response.content_part.added", content_place(s), "part", text_part(&none));
}

static void on_event(call *c, choice *from, const vlm_event *event)
{
    response_state *s = c->state;
    if (event->type == VLM_EVENT_TEXT || event->type == VLM_EVENT_REASONING) {
        item_kind kind = event->type == VLM_EVENT_TEXT ? MESSAGE : REASONING;
        if (s->open != kind) open_item(c, kind);
        buf_add(&s->text, event->text, event->text_bytes);
        json_t *fields = content_place(s);
        if (kind == MESSAGE) json_object_set_new(fields, "logprobs", json_array());
        send_with(c, kind == MESSAGE ? "response.output_text.delta" : "response.reasoning_text.delta", fields, "delta", text_json(event->text, event->text_bytes));
    } else if (event->type == VLM_EVENT_TOOL_CALL && event->call_event == VLM_CALL_START) {
        close_item(c, "completed");
        s->call_id = arena_strdup(&c->memory, event->call_id);
        s->call_name = arena_strdup(&c->memory, event->call_name);
        open_item(c, FUNCTION_CALL);
    } else if (event->type == VLM_EVENT_TOOL_CALL && event->call_event == VLM_CALL_ARGUMENTS) {
        buf_add(&s->text, event->text, event->text_bytes);
        send_with(c, "response.function_call_arguments.delta", place(s), "delta", text_json(event->text, event->text_bytes));
    } else if (event->type == VLM_EVENT_TOOL_CALL) close_item(c, "completed");
}

static void end(call *c)
{
    response_state *s = c->state;
    choice *from = &c->choices[0];
    if (c->failed) return;
    const char *status = status_of(from);
    bool complete = !strcmp(status, "completed");
    if (s->open == NO_ITEM && !json_array_size(s->output)) open_item(c, MESSAGE);
    close_item(c, complete ? "completed" : "incomplete");
    json_t *response = response_json(c, status, true, NULL);
    json_object_set_new(response, "timings", timings_json(&from->usage));
    keep(c, response);
    send_event(c, complete ? "response.completed" : "response.incomplete", json_pack("{s:o}", "response", response));
}

static void fail(call *c, const refusal *why)
{
    const char *code = why->status == 429 ? "rate_limit_exceeded" : why->status >= 500 ? "server_error" : "invalid_prompt";
    json_t *response = response_json(c, "failed", true, json_pack("{s:s, s:s}", "code", code, "message", why->message));
    keep(c, response);
    if (c->stream) send_event(c, "response.failed", json_pack("{s:O}", "response", response));
    json_decref(response);
}

static void queued(call *c, exchange *x)
{
    json_t *response = response_json(c, "in_progress", false, NULL);
    keep(c, response);
    send_json(x, 200, response);
}

static void release(call *c)
{
    response_state *s = c->state;
    json_decref(s->body);
    json_decref(s->input);
    json_decref(s->messages);
    json_decref(s->output);
    buf_free(&s->text);
}

static json_t *count(call *c) { return json_pack("{s:s, s:i}", "object", "response.input_tokens", "input_tokens", c->choices[0].usage.prompt_tokens); }

static const call_form form = {.words = OPENAI, .begin = begin, .event = on_event, .end = end, .fail = fail, .whole = whole, .release = release, .queued = queued};
static const call_form count_form = {.words = OPENAI, .whole = count, .release = release};

/* ---- the request ---- */

typedef struct own_fields { const char *previous; int store, background; } own_fields;
const field response_fields[] = {
    {"previous_response_id", F_TEXT, offsetof(own_fields, previous), 0, 0},
    {"store", F_BOOL, offsetof(own_fields, store), 0, 0},
    {"background", F_BOOL, offsetof(own_fields, background), 0, 0},
    {0},
};

static bool conversation_before(server *s, const own_fields *own, const char *tenant, json_t **before, refusal *why)
{
    if (!own->previous || response_store_get(s->responses, tenant, own->previous, NULL, NULL, before)) return true;
    return refuse(why, 404, "previous_response_id", "There is no response '%.100s'.", own->previous);
}

/* What the form needs besides the call; the conversation without its instructions, which a follow-up does not take over. */
static response_state *new_state(generation *g, const own_fields *own, json_t *body, json_t *chat, const char *id, const char *tenant)
{
    response_state *s = arena_alloc(&g->memory, sizeof *s);
    if (!s) return NULL;
    json_t *messages = json_copy(json_object_get(chat, "messages")), *instructions = json_object_get(body, "instructions");
    if (json_is_string(instructions)) json_array_remove(messages, 0);
    *s = (response_state){.body = json_incref(body), .messages = messages, .input = responses_input_items(body, id), .output = json_array(),
                          .store = own->store, .tenant = arena_strdup(&g->memory, tenant)};
    return s;
}

static void run(server *s, exchange *x, bool count_only)
{
    refusal why = {0};
    generation g = {0};
    own_fields own = {.store = 1};
    response_state *state = NULL;
    char id[48];
    snprintf(id, sizeof id, "resp_%s", exchange_id(x));
    json_t *body = body_object(x, &why), *chat = NULL, *before = NULL;
    const char *tenant = exchange_tenant(x);
    bool ok = body && body_read(body, response_fields, &own, "", &why) && conversation_before(s, &own, tenant, &before, &why) &&
              (chat = responses_to_chat(body, before, &why)) && generation_read(s, x, chat, &g, &why) &&
              chat_messages(json_object_get(chat, "messages"), &g, &why);
    bool background = own.background && !g.stream && !count_only;
    if (ok && !(state = new_state(&g, &own, body, chat, id, tenant))) ok = refuse_memory(&why);
    if (ok) {
        if (background) state->store = true;
        call_start start = {.server = s, .x = background ? NULL : x, .resident = g.resident, .form = count_only ? &count_form : &form, .options = &g.options,
                            .stream = g.stream && !count_only, .count_only = count_only, .n = 1, .id = id, .model = g.model, .state = state, .memory = &g.memory, .tenant = tenant,
                            .queued = background ? x : NULL};
        if (call_begin(&start, &why)) g.resident = NULL;
        else ok = false;
    }
    if (!ok) {
        if (state) release(&(call){.state = state});
        refusal_send(x, &why, OPENAI);
    }
    generation_free(&g);
    json_decref(before);
    json_decref(chat);
    json_decref(body);
}

void route_responses(server *s, exchange *x, const char *argument) { run(s, x, false); }
void route_responses_count(server *s, exchange *x, const char *argument) { run(s, x, true); }

/* ---- what was answered before ---- */

static void not_there(exchange *x, const char *id)
{
    refusal why;
    refuse(&why, 404, "response_id", "There is no response '%.100s'.", id);
    refusal_send(x, &why, OPENAI);
}

void route_response_get(server *s, exchange *x, const char *id)
{
    json_t *response = NULL;
    if (response_store_get(s->responses, exchange_tenant(x), id, &response, NULL, NULL)) send_json(x, 200, response);
    else not_there(x, id);
}

void route_response_delete(server *s, exchange *x, const char *id)
{
    if (response_store_delete(s->responses, exchange_tenant(x), id))
        send_json(x, 200, json_pack("{s:s, s:s, s:b}", "id", id, "object", "response.deleted", "deleted", 1));
    else not_there(x, id);
}

void route_response_input(server *s, exchange *x, const char *id)
{
    json_t *items = NULL;
    if (!response_store_get(s->responses, exchange_tenant(x), id, NULL, &items, NULL)) { not_there(x, id); return; }
    size_t n = json_array_size(items);
    const char *first = json_string_value(json_object_get(json_array_get(items, 0), "id")), *last = json_string_value(json_object_get(json_array_get(items, n ? n - 1 : 0), "id"));
    send_json(x, 200, json_pack("{s:s, s:o, s:s?, s:s?, s:b}", "object", "list", "data", items, "first_id", first, "last_id", last, "has_more", 0));
}

/* One under way is stopped; the answer here is the response as it then is. */
void route_response_cancel(server *s, exchange *x, const char *id)
{
    json_t *response = NULL;
    bool running = server_cancel(s, exchange_tenant(x), id);
    if (!running && response_store_get(s->responses, exchange_tenant(x), id, &response, NULL, NULL)) { send_json(x, 200, response); return; }
    if (!running) { not_there(x, id); return; }
    if (response_store_get(s->responses, exchange_tenant(x), id, &response, NULL, NULL)) {
        json_t *copy = json_copy(response);
        json_object_set_new(copy, "status", json_string("cancelled"));
        json_decref(response);
        send_json(x, 200, copy);
    } else send_json(x, 200, json_pack("{s:s, s:s, s:s, s:[]}", "id", id, "object", "response", "status", "cancelled", "output"));
}
