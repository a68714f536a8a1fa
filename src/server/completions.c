/* completions.c - /v1/completions: the continuation of texts, no template. prompt: a string, several strings, token ids, or several lists of them. */
#include "server/chat.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "models/model.h"

static json_t *head(call *c)
{
    return json_pack("{s:s, s:s, s:I, s:s}", "id", c->id, "object", "text_completion", "created", (json_int_t)c->created, "model", c->model);
}

/* {"tokens", "token_logprobs", "top_logprobs", "text_offset"} out of chat's entries. */
static json_t *logprobs_json(call *c, const choice *from, size_t *offset)
{
    if (!c->logprobs_wanted) return json_null();
    json_t *tokens = json_array(), *values = json_array(), *tops = json_array(), *offsets = json_array();
    size_t i, k;
    const json_t *entry, *other;
    json_array_foreach(from->logprobs, i, entry) {
        json_t *top = json_object();
        json_array_foreach(json_object_get(entry, "top_logprobs"), k, other)
            json_object_set(top, json_string_value(json_object_get(other, "token")), json_object_get(other, "logprob"));
        json_array_append(tokens, json_object_get(entry, "token"));
        json_array_append(values, json_object_get(entry, "logprob"));
        json_array_append_new(tops, top);
        json_array_append_new(offsets, json_integer((json_int_t)*offset));
        *offset += json_string_length(json_object_get(entry, "token"));
    }
    return json_pack("{s:o, s:o, s:o, s:o}", "tokens", tokens, "token_logprobs", values, "top_logprobs", tops, "text_offset", offsets);
}

static json_t *choice_json(call *c, choice *from, json_t *text, const char *reason, json_t *logprobs)
{
    return json_pack("{s:i, s:o, s:s?, s:o}", "index", (int)(from - c->choices), "text", text, "finish_reason", reason, "logprobs", logprobs);
}

static json_t *whole(call *c)
{
    json_t *answer = head(c), *choices = json_array();
    for (int i = 0; i < c->n; i++) {
        choice *from = &c->choices[i];
        size_t offset = 0;
        json_array_append_new(choices, choice_json(c, from, text_json(from->text.data, from->text.size), finish_reason(from->finish_reason),
                                                   logprobs_json(c, from, &offset)));
    }
    vlm_usage usage = call_usage(c);
    json_object_set_new(answer, "choices", choices);
    json_object_set_new(answer, "usage", usage_json(&usage));
    json_object_set_new(answer, "timings", timings_json(&usage));
    return answer;
}

static void send_piece(call *c, choice *from, json_t *text, const char *reason, json_t *logprobs)
{
    json_t *chunk = head(c);
    json_object_set_new(chunk, "choices", json_pack("[o]", choice_json(c, from, text, reason, logprobs)));
    json_object_set_new(chunk, "usage", json_null());
    call_send(c, NULL, chunk);
}

static void on_event(call *c, choice *from, const vlm_event *event)
{
    if (event->type == VLM_EVENT_TEXT) send_piece(c, from, text_json(event->text, event->text_bytes), NULL, json_null());
    else if (event->type == VLM_EVENT_DONE) send_piece(c, from, json_string(""), finish_reason(event->finish_reason), json_null());
    else if (event->type == VLM_EVENT_TOKEN) {
        choice one = {.logprobs = json_array()};
        json_t *entry = token_json(c, event->token, event->logprob), *top = json_array();
        for (int i = 0; i < event->top_count; i++) json_array_append_new(top, token_json(c, event->top[i].token, event->top[i].logprob));
        json_object_set_new(entry, "top_logprobs", top);
        json_array_append_new(one.logprobs, entry);
        size_t offset = 0;
        send_piece(c, from, json_string(""), NULL, logprobs_json(c, &one, &offset));
        json_decref(one.logprobs);
    }
}

static void end(call *c)
{
    if (c->failed) return;
    if (c->usage_wanted) {
        vlm_usage usage = call_usage(c);
        json_t *chunk = head(c);
        json_object_set_new(chunk, "choices", json_array());
        json_object_set_new(chunk, "usage", usage_json(&usage));
        json_object_set_new(chunk, "timings", timings_json(&usage));
        call_send(c, NULL, chunk);
    }
    call_send_raw(c, "data: [DONE]\n\n");
}

static const call_form form = {.words = OPENAI, .event = on_event, .end = end, .fail = openai_stream_fail, .whole = whole};

/* ---- the request ---- */

typedef struct own_fields { const json_t *prompt, *logprobs; int echo; } own_fields;
const field completion_fields[] = {
    {"prompt", F_ANY, offsetof(own_fields, prompt), 0, 0},
    {"logprobs", F_ANY, offsetof(own_fields, logprobs), 0, 0},
    {"echo", F_BOOL, offsetof(own_fields, echo), 0, 0},
    {0},
};

static bool take_ids(const json_t *list, generation *g, refusal *why)
{
    size_t n = json_array_size(list);
    int32_t *tokens = arena_alloc(&g->memory, n * sizeof *tokens + 1);
    if (!tokens) return refuse_memory(why);
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_array_get(list, i);
        double value = json_number_value(id);
        if (!json_is_number(id) || value != floor(value) || value < 0 || value >= g->resident->model->vocab)
            return refuse(why, 400, "prompt", "'prompt[%zu]': a token id below %d was expected.", i, g->resident->model->vocab);
        tokens[i] = (int32_t)value;
    }
    vlm_error error = {0};
    char *text = vlm_detokenize(g->resident->model, tokens, n, 0, &error);
    if (!text) return refuse_error(why, &error);
    g->options.prompt = arena_strdup(&g->memory, text);
    vlm_free(text);
    return g->options.prompt || refuse_memory(why);
}

static bool take_prompt(const own_fields *own, generation *g, refusal *why)
{
    const json_t *prompt = own->prompt;
    if (json_array_size(prompt) == 1 && !json_is_number(json_array_get(prompt, 0))) prompt = json_array_get(prompt, 0);
    if (json_is_string(prompt)) return (g->options.prompt = json_string_value(prompt)) != NULL;
    if (json_array_size(prompt) && json_is_number(json_array_get(prompt, 0))) return take_ids(prompt, g, why);
    if (json_array_size(prompt) > 1) return refuse(why, 400, "prompt", "'prompt': one text a request is taken; send one request for each.");
    return refuse(why, 400, "prompt", "'prompt': a string or an array of token ids was expected.");
}

static bool take_own(const own_fields *own, generation *g, refusal *why)
{
    if (own->echo) return refuse(why, 400, "echo", "'echo' is not supported.");
    if (own->logprobs) {
        bool many = json_is_integer(own->logprobs);
        json_int_t n = json_integer_value(own->logprobs);
        if ((!many && !json_is_boolean(own->logprobs)) || n < 0 || n > 20) return refuse(why, 400, "logprobs", "'logprobs': a whole number from 0 to 20 was expected.");
        g->options.sampling.logprobs = many || json_is_true(own->logprobs);
        g->options.sampling.top_logprobs = many ? (int)n : 0;
    }
    g->options.parse = 0;
    g->options.chat.tools = NULL;
    g->options.tool_choice = NULL;
    return take_prompt(own, g, why);
}

void route_completions(server *s, exchange *x, const char *argument)
{
    refusal why = {0};
    generation g = {0};
    own_fields own = {0};
    json_t *body = body_object(x, &why), *rest = body ? json_copy(body) : NULL;
    json_object_del(rest, "logprobs");
    bool ok = body && body_read(body, completion_fields, &own, "", &why) && generation_read(s, x, rest, &g, &why) && take_own(&own, &g, &why);
    if (ok) {
        call_start start = {.server = s, .x = x, .resident = g.resident, .form = &form, .options = &g.options, .stream = g.stream,
                            .usage_wanted = g.usage_wanted, .n = g.n, .id_prefix = "cmpl-", .model = g.model};
        if (call_begin(&start, &why)) g.resident = NULL;
        else ok = false;
    }
    if (!ok) refusal_send(x, &why, OPENAI);
    generation_free(&g);
    json_decref(rest);
    json_decref(body);
}
