/* result.c - an answer as a whole: vlm_result put together from the request's events. */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "engine/request.h"

/* The answer's tokens: the request keeps them, whether or not token events were asked for. */
static bool keep_tokens(const vlm_request *r, vlm_result *result)
{
    size_t n = (size_t)(r->seq.n - r->seq.n_prompt);
    if (!(result->tokens = MEM_ARRAY(n, int32_t))) return false;
    if (n) memcpy(result->tokens, r->seq.tokens + r->seq.n_prompt, n * sizeof *result->tokens);
    result->token_count = n;
    return true;
}

/* The answer put together from its events. */
typedef struct collected {
    buf text, reasoning, notices, arguments;
    json_t *calls;                 /* the last one's arguments are still in the buffer */
    bool open, failed;
    float *embedding;
    int rows, cols;
} collected;

static void close_call(collected *c)
{
    if (!c->open) return;
    c->open = false;
    json_t *call = json_array_get(c->calls, json_array_size(c->calls) - 1), *function = json_object_get(call, "function");
    json_t *arguments = json_stringn_nocheck(c->arguments.data ? c->arguments.data : "", c->arguments.size);
    c->failed |= c->arguments.failed || !function || json_object_set_new(function, "arguments", arguments) != 0;
    buf_clear(&c->arguments);
}

static void collect(collected *c, const vlm_event *event)
{
    if (event->type == VLM_EVENT_EMBEDDING) {
        size_t n = (size_t)event->embedding_rows * (size_t)event->embedding_cols;
        mem_free(c->embedding);
        if (!(c->embedding = MEM_ARRAY(n, float))) c->failed = true;
        else memcpy(c->embedding, event->embedding, n * sizeof *c->embedding);
        c->rows = event->embedding_rows;
        c->cols = event->embedding_cols;
    }
    if (event->type == VLM_EVENT_TEXT) buf_add(&c->text, event->text, event->text_bytes);
    if (event->type == VLM_EVENT_REASONING) buf_add(&c->reasoning, event->text, event->text_bytes);
    if (event->type == VLM_EVENT_NOTICE) {
        buf_add(&c->notices, event->text, event->text_bytes);
        buf_addc(&c->notices, '\n');
    }
    if (event->type != VLM_EVENT_TOOL_CALL) return;
    if (event->call_event == VLM_CALL_ARGUMENTS) { buf_add(&c->arguments, event->text, event->text_bytes); return; }
    close_call(c);
    if (event->call_event == VLM_CALL_END) return;
    if (!c->calls) c->calls = json_array();
    json_t *call = json_pack("{s:s, s:s, s:{s:s, s:s}}", "id", event->call_id, "type", "function", "function", "name", event->call_name, "arguments", "");
    if (!c->calls || !call || json_array_append_new(c->calls, call)) c->failed = true;
    else c->open = true;
}

static bool take_collected(collected *c, vlm_result *result)
{
    close_call(c);
    bool ok = !c->failed && (result->text = buf_take(&c->text)) && (!c->reasoning.size || (result->reasoning = buf_take(&c->reasoning))) &&
              (!c->notices.size || (result->notices = buf_take(&c->notices)));
    char *calls = ok && c->calls ? json_dumps(c->calls, JSON_COMPACT) : NULL;
    ok = ok && (!c->calls || (calls && (result->tool_calls = mem_strdup(calls))));
    free(calls);                                  /* jansson's */
    result->embedding = c->embedding;
    result->embedding_rows = c->rows;
    result->embedding_cols = c->cols;
    c->embedding = NULL;
    return ok;
}

vlm_status vlm_request_collect(vlm_request *r, vlm_event_fn on_event, void *user, vlm_result *result, vlm_error *error)
{
    vlm_event event;
    vlm_error failure = {0};
    collected c = {0};
    if (result) *result = (vlm_result){0};
    while (vlm_request_next(r, &event, -1) == 1) {
        if (on_event && on_event(&event, user)) vlm_request_cancel(r);
        if (result) collect(&c, &event);
        if (event.type == VLM_EVENT_ERROR) failure = *event.error;
        if (event.type != VLM_EVENT_DONE || !result) continue;
        result->finish_reason = event.finish_reason;
        result->usage = event.usage;
        if (!keep_tokens(r, result) || !take_collected(&c, result) || (event.parsed && !(result->parsed = mem_strdup(event.parsed)))) err_memory(&failure, c.text.size);
    }
    buf_free(&c.text);
    buf_free(&c.reasoning);
    buf_free(&c.notices);
    buf_free(&c.arguments);
    json_decref(c.calls);
    mem_free(c.embedding);
    if (!failure.code) return VLM_OK;
    if (result) vlm_result_clear(result);
    if (error) *error = failure;
    return failure.code;
}

void vlm_result_clear(vlm_result *result)
{
    if (!result) return;
    mem_free(result->text);
    mem_free(result->tokens);
    mem_free(result->reasoning);
    mem_free(result->tool_calls);
    mem_free(result->notices);
    mem_free(result->parsed);
    mem_free(result->embedding);
    *result = (vlm_result){0};
}
