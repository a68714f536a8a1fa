/* chat.c - /v1/chat/completions: OpenAI's fields in, its object or stream of chunks out, with MLX-VLM's additions (reasoning, timings). */
#include "server/chat.h"

#include <string.h>

#include "server/generation.h"

/* ---- pieces of an answer ---- */

json_t *usage_json(const vlm_usage *u)
{
    return json_pack("{s:i, s:i, s:i, s:{s:i}, s:{s:i}}", "prompt_tokens", u->prompt_tokens, "completion_tokens", u->completion_tokens, "total_tokens",
                     u->prompt_tokens + u->completion_tokens, "prompt_tokens_details", "cached_tokens", u->cached_tokens, "completion_tokens_details",
                     "reasoning_tokens", u->reasoning_tokens);
}

static double per_second(double n, double seconds) { return seconds > 0 ? n / seconds : 0; }

json_t *timings_json(const vlm_usage *u)
{
    int prompt = u->prompt_tokens - u->cached_tokens, answer = u->completion_tokens;
    double prefill = u->prefill_seconds, decode = u->decode_seconds;
    return json_pack("{s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "prompt_n", prompt, "cache_n", u->cached_tokens, "predicted_n", answer,
                     "prompt_ms", 1e3 * prefill, "prompt_per_token_ms", prompt ? 1e3 * prefill / prompt : 0.0, "prompt_per_second", per_second(prompt, prefill),
                     "predicted_ms", 1e3 * decode, "predicted_per_token_ms", answer ? 1e3 * decode / answer : 0.0, "predicted_per_second",
                     per_second(answer, decode), "queue_ms", 1e3 * u->queue_seconds, "media_ms", 1e3 * (u->media_seconds + u->encode_seconds),
                     "first_token_ms", 1e3 * u->first_token_seconds);
}

const char *finish_reason(const char *reason)
{
    return !reason ? "stop" : !strcmp(reason, "timeout") || !strcmp(reason, "cancelled") ? "length" : reason;
}

static json_t *text_or_null(const buf *b) { return b->size ? text_json(b->data, b->size) : json_null(); }

/* ---- the whole answer ---- */

static json_t *message_json(choice *from)
{
    json_t *reasoning = text_or_null(&from->reasoning);
    json_t *calls = from->calls;
    size_t i;
    json_t *one;
    json_array_foreach(calls, i, one) json_object_set_new(one, "index", json_integer((json_int_t)i));
    json_t *message = json_pack("{s:s, s:o, s:O, s:o, s:O?, s:n, s:n, s:n}", "role", "assistant", "content",
                                from->text.size || (!calls && !from->reasoning.size) ? text_json(from->text.data, from->text.size) : json_null(),
                                "reasoning_content", reasoning, "reasoning", reasoning, "tool_calls", calls, "tool_call_id", "name", "refusal");
    return message;
}

static json_t *head(call *c, const char *object)
{
    return json_pack("{s:s, s:s, s:I, s:s}", "id", c->id, "object", object, "created", (json_int_t)c->created, "model", c->model);
}

static json_t *logprobs_json(call *c, choice *from)
{
    if (!c->logprobs_wanted) return json_null();
    return json_pack("{s:o, s:n}", "content", from->logprobs ? json_incref(from->logprobs) : json_array(), "refusal");
}

static json_t *chat_whole(call *c)
{
    json_t *answer = head(c, "chat.completion"), *choices = json_array();
    for (int i = 0; i < c->n; i++) {
        choice *from = &c->choices[i];
        json_array_append_new(choices, json_pack("{s:i, s:s, s:o, s:o}", "index", i, "finish_reason", finish_reason(from->finish_reason), "message",
                                                 message_json(from), "logprobs", logprobs_json(c, from)));
    }
    vlm_usage usage = call_usage(c);
    json_object_set_new(answer, "choices", choices);
    json_object_set_new(answer, "usage", usage_json(&usage));
    json_object_set_new(answer, "timings", timings_json(&usage));
    json_object_set_new(answer, "system_fingerprint", json_null());
    if (c->choices[0].notices) json_object_set(answer, "notices", c->choices[0].notices);
    return answer;
}

/* ---- the stream ---- */

typedef struct delta { json_t *content, *reasoning, *calls; } delta;       /* taken over; NULL: null */

static void send_chunk(call *c, choice *from, delta d, const char *reason, json_t *logprobs)
{
    json_t *chunk = head(c, "chat.completion.chunk");
    json_t *fields = json_pack("{s:s?, s:o?, s:O?, s:o?, s:o?, s:n, s:n}", "role", from->begun ? NULL : "assistant", "content", d.content, "reasoning_content",
                               d.reasoning, "reasoning", d.reasoning, "tool_calls", d.calls, "tool_call_id", "name");
    if (from->begun && fields) json_object_del(fields, "role");
    from->begun = true;
    json_t *one = json_pack("{s:i, s:s?, s:o, s:o?}", "index", (int)(from - c->choices), "finish_reason", reason, "delta", fields, "logprobs", logprobs);
    json_object_set_new(chunk, "choices", json_pack("[o]", one));
    json_object_set_new(chunk, "usage", json_null());
    call_send(c, NULL, chunk);
}

static json_t *call_delta(choice *from, const vlm_event *event)
{
    if (event->call_event == VLM_CALL_START)
        return json_pack("[{s:i, s:s, s:s, s:{s:s, s:s}}]", "index", event->call_index, "id", event->call_id, "type", "function", "function", "name",
                         event->call_name, "arguments", "");
    return json_pack("[{s:i, s:{s:o}}]", "index", event->call_index, "function", "arguments", text_json(event->text, event->text_bytes));
}

static void chat_event(call *c, choice *from, const vlm_event *event)
{
    switch (event->type) {
    case VLM_EVENT_TEXT: send_chunk(c, from, (delta){.content = text_json(event->text, event->text_bytes)}, NULL, NULL); break;
    case VLM_EVENT_REASONING: send_chunk(c, from, (delta){.reasoning = text_json(event->text, event->text_bytes)}, NULL, NULL); break;
    case VLM_EVENT_TOOL_CALL:
        if (event->call_event != VLM_CALL_END) send_chunk(c, from, (delta){.calls = call_delta(from, event)}, NULL, NULL);
        break;
    case VLM_EVENT_TOKEN: {
        json_t *entry = token_json(c, event->token, event->logprob), *top = json_array();
        for (int i = 0; i < event->top_count; i++) json_array_append_new(top, token_json(c, event->top[i].token, event->top[i].logprob));
        json_object_set_new(entry, "top_logprobs", top);
        send_chunk(c, from, (delta){0}, NULL, json_pack("{s:[o], s:n}", "content", entry, "refusal"));
        break;
    }
    case VLM_EVENT_DONE: send_chunk(c, from, (delta){0}, finish_reason(event->finish_reason), NULL); break;
    default: break;
    }
}

static void chat_end(call *c)
{
    if (c->failed) return;
    if (c->usage_wanted) {
        vlm_usage usage = call_usage(c);
        json_t *chunk = head(c, "chat.completion.chunk");
        json_object_set_new(chunk, "choices", json_array());
        json_object_set_new(chunk, "usage", usage_json(&usage));
        json_object_set_new(chunk, "timings", timings_json(&usage));
        if (c->choices[0].notices) json_object_set(chunk, "notices", c->choices[0].notices);
        call_send(c, NULL, chunk);
    }
    call_send_raw(c, "data: [DONE]\n\n");
}

void openai_stream_fail(call *c, const refusal *why) { call_send(c, NULL, refusal_json(why, OPENAI)); }

static const call_form chat_form = {.words = OPENAI, .event = chat_event, .end = chat_end, .fail = openai_stream_fail, .whole = chat_whole};

/* ---- the request ---- */

typedef struct chat_own { const json_t *messages; int logprobs, top_logprobs; } chat_own;
const field chat_fields[] = {
    {"messages", F_ARRAY, offsetof(chat_own, messages), 0, 0},
    {"logprobs", F_BOOL, offsetof(chat_own, logprobs), 0, 0},
    {"top_logprobs", F_INT, offsetof(chat_own, top_logprobs), 0, 20},
    {0},
};

/* Shapes that the engine would not name by their field. */
static bool check_messages(const json_t *messages, refusal *why)
{
    static const char *const roles[] = {"user", "assistant", "system", "developer", "tool", "function", NULL};
    if (!json_array_size(messages)) return refuse(why, 400, "messages", "'messages': an array of at least one message was expected.");
    size_t i;
    const json_t *message;
    json_array_foreach(messages, i, message) {
        char param[64];
        snprintf(param, sizeof param, "messages[%zu]", i);
        if (!json_is_object(message)) return refuse(why, 400, param, "'%s': an object was expected.", param);
        const char *role = json_string_value(json_object_get(message, "role"));
        int known = 0;
        while (role && roles[known] && strcmp(roles[known], role)) known++;
        snprintf(param, sizeof param, "messages[%zu].role", i);
        if (!role || !roles[known]) return refuse(why, 400, param, "'%s': one of user, assistant, system, developer, tool was expected.", param);
        const json_t *content = json_object_get(message, "content");
        snprintf(param, sizeof param, "messages[%zu].content", i);
        if (content && !json_is_string(content) && !json_is_array(content) && !json_is_null(content))
            return refuse(why, 400, param, "'%s': a string or an array of parts was expected.", param);
        bool may_lack = !strcmp(role, "assistant");
        if (!may_lack && (!content || json_is_null(content))) return refuse(why, 400, param, "'%s' is missing.", param);
    }
    return true;
}

bool chat_messages(const json_t *messages, generation *g, refusal *why)
{
    if (!check_messages(messages, why)) return false;
    return (g->options.messages = body_text(&g->memory, messages)) || refuse_memory(why);
}

void route_chat(server *s, exchange *x, const char *argument)
{
    refusal why = {0};
    generation g = {0};
    chat_own own = {0};
    json_t *body = body_object(x, &why);
    bool ok = body && body_read(body, chat_fields, &own, "", &why) && generation_read(s, x, body, &g, &why) && chat_messages(own.messages, &g, &why);
    if (ok) {
        g.options.sampling.logprobs = own.logprobs || own.top_logprobs > 0;
        g.options.sampling.top_logprobs = own.top_logprobs;
        call_start start = {.server = s, .x = x, .resident = g.resident, .form = &chat_form, .options = &g.options, .stream = g.stream,
                            .usage_wanted = g.usage_wanted, .n = g.n, .id_prefix = "chatcmpl-", .model = g.model};
        if (call_begin(&start, &why)) g.resident = NULL;
        else ok = false;
    }
    if (!ok) refusal_send(x, &why, OPENAI);
    generation_free(&g);
    json_decref(body);
}
