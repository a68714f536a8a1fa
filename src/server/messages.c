/* messages.c - /v1/messages: Anthropic's API. The body becomes one of chat completions (messages_body.c), the answer becomes content blocks. */
#include "server/messages.h"

#include <string.h>

#include "server/chat.h"

/* ---- blocks of the answer ---- */

typedef enum block_kind { NO_BLOCK, THINKING, TEXT, TOOL_USE } block_kind;
typedef struct stream_state { block_kind open; int index; } stream_state;

static const char *stop_reason(const choice *from)
{
    const char *reason = from->finish_reason;
    if (from->stop_string) return "stop_sequence";
    if (!reason || !strcmp(reason, "stop")) return "end_turn";
    return !strcmp(reason, "tool_calls") ? "tool_use" : "max_tokens";
}

static json_t *usage_of(const vlm_usage *u)
{
    return json_pack("{s:i, s:i, s:i, s:i}", "input_tokens", u->prompt_tokens - u->cached_tokens, "cache_creation_input_tokens", 0, "cache_read_input_tokens",
                     u->cached_tokens, "output_tokens", u->completion_tokens);
}

static json_t *tool_use(const json_t *one)
{
    const json_t *function = json_object_get(one, "function");
    const char *arguments = json_string_value(json_object_get(function, "arguments"));
    json_t *input = arguments && *arguments ? json_loads(arguments, 0, NULL) : NULL;
    if (!json_is_object(input)) {
        json_decref(input);
        input = json_object();
    }
    return json_pack("{s:s, s:O, s:O, s:o}", "type", "tool_use", "id", json_object_get(one, "id"), "name", json_object_get(function, "name"), "input", input);
}

static json_t *message_json(call *c, json_t *content, const char *reason, const char *sequence, const vlm_usage *usage)
{
    return json_pack("{s:s, s:s, s:s, s:o, s:s, s:s?, s:s?, s:o}", "id", c->id, "type", "message", "role", "assistant", "content", content, "model", c->model,
                     "stop_reason", reason, "stop_sequence", sequence, "usage", usage_of(usage));
}

static json_t *whole(call *c)
{
    choice *from = &c->choices[0];
    json_t *content = json_array();
    size_t i;
    const json_t *one;
    if (from->reasoning.size)
        json_array_append_new(content, json_pack("{s:s, s:o, s:s}", "type", "thinking", "thinking", text_json(from->reasoning.data, from->reasoning.size),
                                                 "signature", ""));
    if (from->text.size || !from->calls)
        json_array_append_new(content, json_pack("{s:s, s:o}", "type", "text", "text", text_json(from->text.data, from->text.size)));
    json_array_foreach(from->calls, i, one) json_array_append_new(content, tool_use(one));
    json_t *message = message_json(c, content, stop_reason(from), from->stop_string, &from->usage);
    if (from->notices) json_object_set(message, "notices", from->notices);
    return message;
}

/* ---- the stream ---- */

static void begin(call *c)
{
    vlm_usage usage = c->choices[0].usage;
    usage.cached_tokens = usage.completion_tokens = 0;     /* the last event tells */
    call_send(c, "message_start", json_pack("{s:s, s:o}", "type", "message_start", "message", message_json(c, json_array(), NULL, NULL, &usage)));
    messages_ping(c);
}

void messages_ping(call *c) { call_send(c, "ping", json_pack("{s:s}", "type", "ping")); }

static void send_delta(call *c, json_t *delta)
{
    stream_state *s = c->state;
    call_send(c, "content_block_delta", json_pack("{s:s, s:i, s:o}", "type", "content_block_delta", "index", s->index, "delta", delta));
}

static void close_block(call *c)
{
    stream_state *s = c->state;
    if (s->open == NO_BLOCK) return;
    if (s->open == THINKING) send_delta(c, json_pack("{s:s, s:s}", "type", "signature_delta", "signature", ""));
    call_send(c, "content_block_stop", json_pack("{s:s, s:i}", "type", "content_block_stop", "index", s->index));
    s->open = NO_BLOCK;
    s->index++;
}

static void open_block(call *c, block_kind kind, json_t *block)
{
    stream_state *s = c->state;
    close_block(c);
    s->open = kind;
    call_send(c, "content_block_start", json_pack("{s:s, s:i, s:o}", "type", "content_block_start", "index", s->index, "content_block", block));
}

static void on_call(call *c, const vlm_event *event)
{
    if (event->call_event == VLM_CALL_START)
        open_block(c, TOOL_USE, json_pack("{s:s, s:s, s:s, s:{}}", "type", "tool_use", "id", event->call_id, "name", event->call_name, "input"));
    else if (event->call_event == VLM_CALL_ARGUMENTS)
        send_delta(c, json_pack("{s:s, s:o}", "type", "input_json_delta", "partial_json", text_json(event->text, event->text_bytes)));
    else close_block(c);
}

static void on_event(call *c, choice *from, const vlm_event *event)
{
    stream_state *s = c->state;
    if (event->type == VLM_EVENT_TEXT) {
        if (s->open != TEXT) open_block(c, TEXT, json_pack("{s:s, s:s}", "type", "text", "text", ""));
        send_delta(c, json_pack("{s:s, s:o}", "type", "text_delta", "text", text_json(event->text, event->text_bytes)));
    } else if (event->type == VLM_EVENT_REASONING) {
        if (s->open != THINKING) open_block(c, THINKING, json_pack("{s:s, s:s, s:s}", "type", "thinking", "thinking", "", "signature", ""));
        send_delta(c, json_pack("{s:s, s:o}", "type", "thinking_delta", "thinking", text_json(event->text, event->text_bytes)));
    } else if (event->type == VLM_EVENT_TOOL_CALL) on_call(c, event);
}

static void end(call *c)
{
    stream_state *s = c->state;
    choice *from = &c->choices[0];
    if (c->failed) return;
    if (s->index == 0 && s->open == NO_BLOCK) open_block(c, TEXT, json_pack("{s:s, s:s}", "type", "text", "text", ""));
    close_block(c);
    json_t *last = json_pack("{s:s, s:{s:s, s:s?}, s:o}", "type", "message_delta", "delta", "stop_reason", stop_reason(from), "stop_sequence", from->stop_string,
                             "usage", usage_of(&from->usage));
    if (from->notices) json_object_set(last, "notices", from->notices);
    call_send(c, "message_delta", last);
    call_send(c, "message_stop", json_pack("{s:s}", "type", "message_stop"));
}

static void fail(call *c, const refusal *why) { call_send(c, "error", refusal_json(why, ANTHROPIC)); }

/* ---- the request ---- */

static void run(server *s, exchange *x, const call_form *how, bool count_only)
{
    refusal why = {0};
    generation g = {0};
    stream_state *state = NULL;
    json_t *body = body_object(x, &why), *chat = body ? messages_to_chat(body, &why) : NULL;
    bool ok = chat && generation_read(s, x, chat, &g, &why) && chat_messages(json_object_get(chat, "messages"), &g, &why);
    if (ok && g.n != 1) ok = refuse(&why, 400, "n", "'n': this API gives one answer.");
    if (ok && !(state = arena_alloc(&g.memory, sizeof *state))) ok = refuse_memory(&why);
    if (ok) {
        call_start start = {.server = s, .x = x, .resident = g.resident, .form = how, .options = &g.options, .stream = g.stream && !count_only, .count_only = count_only,
                            .n = 1, .id_prefix = "msg_", .model = g.model, .state = state, .memory = &g.memory};
        if (call_begin(&start, &why)) g.resident = NULL;
        else ok = false;
    }
    if (!ok) refusal_send(x, &why, ANTHROPIC);
    generation_free(&g);
    json_decref(chat);
    json_decref(body);
}

static const call_form form = {.words = ANTHROPIC, .begin = begin, .event = on_event, .end = end, .fail = fail, .ping = messages_ping, .whole = whole};
void route_messages(server *s, exchange *x, const char *argument) { run(s, x, &form, false); }

static json_t *count(call *c) { return json_pack("{s:i}", "input_tokens", c->choices[0].usage.prompt_tokens); }
static const call_form count_form = {.words = ANTHROPIC, .whole = count};
void route_count_tokens(server *s, exchange *x, const char *argument) { run(s, x, &count_form, true); }
