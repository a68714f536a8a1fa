/* call.c - see call.h. */
#include "server/server_internal.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/engine.h"
#include "models/model.h"
#include "server/http_internal.h"
#include "server/log.h"

/* ---- what the choices have said ---- */

json_t *text_json(const char *text, size_t size)
{
    json_t *value = json_stringn(text ? text : "", size);
    if (value) return value;
    buf clean = {0};
    for (size_t i = 0; i < size; i++) buf_addc(&clean, (unsigned char)text[i] < 0x80 ? text[i] : '?');
    value = json_stringn(clean.data ? clean.data : "", clean.size);
    buf_free(&clean);
    return value;
}

json_t *token_json(call *c, int32_t token, float logprob)
{
    const tokenizer *t = c->resident->model->tok;
    buf bytes = {0};
    if (!tokenizer_token_bytes(t, token, &bytes)) {
        const char *name = tokenizer_token(t, token);
        buf_adds(&bytes, name ? name : "");
    }
    json_t *list = json_array();
    for (size_t i = 0; i < bytes.size; i++) json_array_append_new(list, json_integer((unsigned char)bytes.data[i]));
    json_t *text = json_stringn(bytes.data ? bytes.data : "", bytes.size);
    if (!text) text = json_string("\xEF\xBF\xBD");
    buf_free(&bytes);
    return json_pack("{s:o, s:f, s:o}", "token", text, "logprob", (double)logprob, "bytes", list);
}

static void keep_logprob(call *c, choice *from, const vlm_event *event)
{
    json_t *entry = token_json(c, event->token, event->logprob), *top = json_array();
    for (int i = 0; i < event->top_count; i++) json_array_append_new(top, token_json(c, event->top[i].token, event->top[i].logprob));
    json_object_set_new(entry, "top_logprobs", top);
    if (!from->logprobs) from->logprobs = json_array();
    json_array_append_new(from->logprobs, entry);
}

static void close_arguments(choice *from)
{
    json_t *open = json_array_get(from->calls, json_array_size(from->calls) - 1);
    json_object_set_new(json_object_get(open, "function"), "arguments", text_json(from->arguments.data, from->arguments.size));
    buf_clear(&from->arguments);
}

static void keep(call *c, choice *from, const vlm_event *event)
{
    switch (event->type) {
    case VLM_EVENT_STARTED: from->usage = event->usage; break;
    case VLM_EVENT_TEXT: if (!c->stream) buf_add(&from->text, event->text, event->text_bytes); break;
    case VLM_EVENT_REASONING: if (!c->stream) buf_add(&from->reasoning, event->text, event->text_bytes); break;
    case VLM_EVENT_TOKEN: if (!c->stream) keep_logprob(c, from, event); break;
    case VLM_EVENT_TOOL_CALL:
        if (event->call_event == VLM_CALL_START) {
            if (!from->calls) from->calls = json_array();
            json_array_append_new(from->calls, json_pack("{s:s, s:s, s:{s:s, s:s}}", "id", event->call_id, "type", "function", "function", "name",
                                                         event->call_name, "arguments", ""));
        } else if (event->call_event == VLM_CALL_ARGUMENTS) buf_add(&from->arguments, event->text, event->text_bytes);
        else close_arguments(from);
        break;
    case VLM_EVENT_DONE:
        from->finish_reason = event->finish_reason;
        from->stop_string = event->stop_string;
        from->usage = event->usage;
        from->over = true;
        break;
    case VLM_EVENT_EMBEDDING: {
        size_t count = (size_t)event->embedding_rows * (size_t)event->embedding_cols;
        if (!(from->embedding = MEM_ARRAY(count, float))) break;
        memcpy(from->embedding, event->embedding, count * sizeof *from->embedding);
        from->rows = event->embedding_rows;
        from->cols = event->embedding_cols;
        break;
    }
    case VLM_EVENT_ERROR:
        from->usage = event->usage;
        from->over = true;
        break;
    case VLM_EVENT_NOTICE:
        if (!from->notices) from->notices = json_array();
        json_array_append_new(from->notices, text_json(event->text, event->text_bytes));
        break;
    case VLM_EVENT_PROGRESS: break;
    }
}

vlm_usage call_usage(const call *c)
{
    vlm_usage sum = c->choices[0].usage;
    for (int i = 1; i < c->n; i++) {
        sum.completion_tokens += c->choices[i].usage.completion_tokens;
        sum.reasoning_tokens += c->choices[i].usage.reasoning_tokens;
    }
    return sum;
}

/* ---- sending ---- */

enum { SILENCE_SECONDS = 10 };

static void send_bytes(call *c, const char *data, size_t size)
{
    if (c->x) exchange_write(c->x, data, size);
    c->spoke = http_now();
}

void call_send_raw(call *c, const char *text) { send_bytes(c, text, strlen(text)); }

void call_send(call *c, const char *event, json_t *value)
{
    buf line = {0};
    char *text = value ? json_dumps(value, JSON_COMPACT) : NULL;
    json_decref(value);
    if (text) {
        if (event) buf_addf(&line, "event: %s\n", event);
        buf_adds(&line, "data: ");
        buf_adds(&line, text);
        buf_adds(&line, "\n\n");
        if (!line.failed) send_bytes(c, line.data, line.size);
    }
    free(text);
    buf_free(&line);
}

static void open_stream(call *c)
{
    exchange_add_header(c->x, "Cache-Control", "no-cache");
    exchange_add_header(c->x, "X-Accel-Buffering", "no");
    exchange_stream(c->x, 200, "text/event-stream");
    c->replied = true;
    if (c->form->begin) c->form->begin(c);
}

void call_cancel(call *c)
{
    for (int i = 0; i < c->n; i++)
        if (c->choices[i].request) vlm_request_cancel(c->choices[i].request);
}

static void fail(call *c, const vlm_error *error)
{
    if (c->failed) return;
    refusal why;
    c->failed = true;
    refuse_error(&why, error);
    if (!c->replied && c->x) {
        c->replied = true;
        refusal_send(c->x, &why, c->form->words);
    } else if (c->form->fail) c->form->fail(c, &why);
    call_cancel(c);
}

static void hear(call *c, choice *from, const vlm_event *event)
{
    keep(c, from, event);
    if (event->type == VLM_EVENT_ERROR) { fail(c, event->error); return; }
    if (c->failed) return;
    if (event->type == VLM_EVENT_STARTED && c->count_only) call_cancel(c);
    if (event->type == VLM_EVENT_STARTED && c->stream && !c->replied) open_stream(c);
    if (c->stream && c->replied) c->form->event(c, from, event);
}

/* ---- life ---- */

static void unlist(call *c)
{
    server *s = c->server;
    pthread_mutex_lock(&s->lock);
    if (c->at) {
        *c->at = c->next;
        if (c->next) c->next->at = c->at;
        s->n_calls--;
    }
    pthread_mutex_unlock(&s->lock);
}

static void call_free(call *c)
{
    unlist(c);                                             /* from here on nobody ticks or cancels it */
    for (int i = 0; i < c->n; i++) {
        choice *from = &c->choices[i];
        vlm_request_free(from->request);
        buf_free(&from->text);
        buf_free(&from->reasoning);
        buf_free(&from->arguments);
        json_decref(from->calls);
        json_decref(from->logprobs);
        mem_free(from->embedding);
        json_decref(from->notices);
    }
    if (c->form->release && c->begun) c->form->release(c);
    residents_return(c->resident);
    arena_free(&c->memory);
    mem_free(c->choices);
    mem_free(c->id);
    mem_free(c->model);
    mem_free(c->tenant);
    mem_free(c);
}

static void finish(call *c)
{
    if (c->x) exchange_on_gone(c->x, NULL, NULL);
    if (!c->failed && !c->x) json_decref(c->form->whole(c));
    else if (!c->failed && !exchange_gone(c->x)) {
        if (!c->stream) send_json(c->x, 200, c->form->whole(c));
        else {
            if (!c->replied) open_stream(c);               /* ended before its prompt was ready: cancelled, or out of time */
            c->form->end(c);
        }
    }
    if (c->stream && c->replied) exchange_end(c->x);
    metrics_call(&c->server->metrics, c);
    log_call(c);
    exchange *source = c->source;
    call_free(c);
    exchange_unref(source);
}

/* Proxies and clients give up on connections that say nothing. A prompt that takes long is the usual case: then the stream begins before it is known that
 * the prompt is good, and a failure is told within the stream. */
static void keep_alive(call *c)
{
    if (!c->stream || c->failed || http_now() - c->spoke < SILENCE_SECONDS) return;
    if (!c->replied) open_stream(c);
    else if (c->form->ping) c->form->ping(c);
    else call_send_raw(c, ": still here\n\n");
    c->spoke = http_now();
}

/* Events that arrived while this ran are seen by the next run, which the notes count; nothing is noted after the last event of the last request
 * was fetched and on_gone was taken back. */
static void call_run(void *user)
{
    call *c = user;
    int seen = atomic_load(&c->notes);
    if (c->x && exchange_gone(c->x)) call_cancel(c);
    bool over = true;
    for (int i = 0; i < c->n; i++) {
        choice *from = &c->choices[i];
        vlm_event event;
        while (!from->over && vlm_request_next(from->request, &event, 0) == 1) hear(c, from, &event);
        over = over && from->over;
    }
    if (over) { finish(c); return; }
    keep_alive(c);
    if (atomic_fetch_sub(&c->notes, seen) != seen) jobs_push(c->server->jobs, &c->job);
}

static void note(void *user)
{
    call *c = user;
    if (atomic_fetch_add(&c->notes, 1) == 0) jobs_push(c->server->jobs, &c->job);
}

void call_tick(call *c) { note(c); }

static void on_gone(void *user)
{
    call *c = user;
    call_cancel(c);
    note(c);
}

static bool submit_all(call *c, const call_start *start, refusal *why)
{
    media_policy policy = media_policy_default();
    policy.paths = c->server->options.media_paths;
    policy.local_files = policy.paths && policy.paths[0];
    policy.network = c->server->options.allow_network;
    policy.private_addresses = c->server->options.allow_private;
    policy.attached = &exchange_attached(c->source)->list;
    engine_extra extra = {.policy = &policy, .news = note, .news_user = c};
    vlm_request_options options = *start->options;
    for (int i = 0; i < c->n; i++) {
        vlm_error error = {0};
        options.sampling.seed = start->options->sampling.seed + (uint64_t)i;
        if (start->each) options.messages = start->each[i];
        if (!(c->choices[i].request = engine_submit(c->resident->engine, &options, &extra, &error))) return refuse_error(why, &error);
    }
    return true;
}

/* The ones that were submitted have to end before the call may go. */
static void abandon(call *c)
{
    vlm_event event;
    for (int i = 0; i < c->n; i++) {
        if (!c->choices[i].request) continue;
        vlm_request_cancel(c->choices[i].request);
        while (vlm_request_next(c->choices[i].request, &event, -1) == 1) { }
    }
    c->resident = NULL;                                    /* the caller's again */
    call_free(c);
}

call *call_begin(const call_start *start, refusal *why)
{
    call *c = MEM_NEW(call);
    choice *choices = MEM_ARRAY((size_t)start->n, choice);
    if (!c || !choices) {
        mem_free(c);
        mem_free(choices);
        refuse_memory(why);
        return NULL;
    }
    *c = (call){.server = start->server, .x = start->x, .source = start->x ? start->x : start->queued, .resident = start->resident, .form = start->form, .stream = start->stream,
                .usage_wanted = start->usage_wanted, .count_only = start->count_only, .spoke = http_now(), .n = start->n, .choices = choices, .state = start->state, .created = (int64_t)time(NULL)};
    c->logprobs_wanted = start->options->sampling.logprobs;
    c->job = (job){.run = call_run, .user = c};
    atomic_store(&c->notes, 1);                            /* nobody queues it before all of it is there */
    c->id = start->id ? mem_strdup(start->id) : mem_printf("%s%s", start->id_prefix, exchange_id(start->x));
    c->tenant = mem_strdup(start->tenant ? start->tenant : "");
    c->model = mem_strdup(start->model && *start->model ? start->model : start->resident->name);
    if (!c->id || !c->model || !c->tenant) {
        refuse_memory(why);
        abandon(c);
        return NULL;
    }
    if (!submit_all(c, start, why)) {
        abandon(c);
        return NULL;
    }
    server *s = c->server;
    pthread_mutex_lock(&s->lock);
    c->next = s->calls;
    c->at = &s->calls;
    if (c->next) c->next->at = &c->next;
    s->calls = c;
    s->n_calls++;
    pthread_mutex_unlock(&s->lock);
    c->begun = true;
    if (!exchange_attached(c->source)->list.count) exchange_drop_body(c->source);      /* else it holds the media */
    exchange_called(c->source);
    if (start->memory) {
        c->memory = *start->memory;
        *start->memory = (arena){0};
    }
    if (start->queued) start->form->queued(c, start->queued);
    exchange_ref(c->source);
    if (c->x) exchange_on_gone(c->x, on_gone, c);
    jobs_push(s->jobs, &c->job);
    return c;
}
