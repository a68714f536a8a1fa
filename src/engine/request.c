/* request.c - see request.h: making and freeing requests, and the event queue as the caller sees it. */
#include "engine/request.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/err.h"

double engine_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- options ---- */

static bool read_json(const char *text, const char *name, bool array, json_t **out, vlm_error *error)
{
    if (!text) return true;
    json_error_t why;
    *out = json_loads(text, 0, &why);
    if (!*out) return err_set(error, VLM_INVALID, "%s: %s (line %d, column %d)", name, why.text, why.line, why.column);
    if (array ? json_is_array(*out) : json_is_object(*out)) return true;
    return err_set(error, VLM_INVALID, "%s: a JSON %s was expected", name, array ? "array" : "object");
}

static bool copy_text(const char *text, char **out, vlm_error *error)
{
    if (text && !(*out = mem_strdup(text))) return err_memory(error, strlen(text));
    return true;
}

/* Does any message hold a part that is not text? Such requests may take their time on the prompt threads. */
static bool any_media(const json_t *messages)
{
    size_t i, k;
    const json_t *message, *part;
    json_array_foreach(messages, i, message)
        json_array_foreach(json_object_get(message, "content"), k, part) {
            const char *type = json_string_value(json_object_get(part, "type"));
            if (type && strcmp(type, "text")) return true;
        }
    return false;
}

/* Is there a tool of that name? */
static bool has_tool(const json_t *tools, const char *name)
{
    size_t i;
    const json_t *tool;
    json_array_foreach(tools, i, tool) {
        const json_t *function = json_object_get(tool, "function");
        const char *its = json_string_value(json_object_get(function ? function : tool, "name"));
        if (its && !strcmp(its, name)) return true;
    }
    return false;
}

/* "auto" and NULL leave r->tool_choice NULL. */
static bool take_choice(vlm_request *r, const char *text, vlm_error *error)
{
    if (!text || !strcmp(text, "auto") || !strcmp(text, "\"auto\"")) return true;
    json_error_t why;
    r->tool_choice = *text == '{' || *text == '"' ? json_loads(text, JSON_DECODE_ANY, &why) : json_string(text);
    const char *word = json_string_value(r->tool_choice);
    const json_t *function = json_object_get(r->tool_choice, "function");
    const char *name = json_string_value(json_object_get(function ? function : r->tool_choice, "name"));
    if (word ? strcmp(word, "none") && strcmp(word, "required") : !name)
        return err_set(error, VLM_INVALID, "tool_choice: \"auto\", \"none\", \"required\" or {\"type\": \"function\", \"function\": {\"name\": ...}} was expected");
    if (word && !strcmp(word, "none")) return true;
    if (!json_array_size(r->tools)) return err_set(error, VLM_INVALID, "tool_choice asks for a call, but there are no tools");
    if (name && !has_tool(r->tools, name)) return err_set(error, VLM_INVALID, "tool_choice names '%.100s', which is none of the tools", name);
    return true;
}

/* {"type": "text"} leaves r->response_format NULL. */
static bool take_format(vlm_request *r, const char *text, vlm_error *error)
{
    if (!read_json(text, "response_format", false, &r->response_format, error)) return false;
    const char *type = json_string_value(json_object_get(r->response_format, "type"));
    if (text && !type) return err_set(error, VLM_INVALID, "response_format: \"type\" is missing");
    if (!text || strcmp(type, "text")) return true;
    json_decref(r->response_format);
    r->response_format = NULL;
    return true;
}

static bool take_options(vlm_request *r, const vlm_request_options *o, const engine_extra *extra, vlm_error *error)
{
    if (!read_json(o->media_options, "media_options", false, &r->media_options, error) || !copy_text(o->tenant, &r->tenant, error) ||
        !copy_text(o->thinking_start, &r->thinking_start, error) || !copy_text(o->thinking_end, &r->thinking_end, error) ||
        !copy_text(extra ? extra->media_dir : NULL, &r->media_dir, error))
        return false;
    r->prebuilt = extra && extra->prompt;
    if (!r->prebuilt) {
        if (!o->messages == !o->prompt) return err_set(error, VLM_INVALID, "a request has either messages or a prompt text");
        if (!read_json(o->messages, "messages", true, &r->messages, error) || !copy_text(o->prompt, &r->text, error) ||
            !read_json(o->media, "media", true, &r->media, error) || !read_json(o->chat.tools, "tools", true, &r->tools, error) ||
            !read_json(o->chat.template_kwargs, "template_kwargs", false, &r->kwargs, error))
            return false;
    }
    r->parse = o->parse < 0 ? r->messages != NULL : o->parse != 0;
    r->one_call = !o->parallel_tool_calls;
    if (!take_choice(r, o->tool_choice, error) || !take_format(r, o->response_format, error) || !copy_text(o->tool_format, &r->tool_format, error))
        return false;
    r->has_media = any_media(r->messages) || json_array_size(r->media) > 0;
    r->add_generation_prompt = o->chat.add_generation_prompt;
    if (o->max_tokens < 0) return err_set(error, VLM_INVALID, "max_tokens is %d; at least 0 was expected", o->max_tokens);
    if (o->min_tokens < 0) return err_set(error, VLM_INVALID, "min_tokens is %d; at least 0 was expected", o->min_tokens);
    r->max_tokens = o->max_tokens;
    r->min_tokens = o->min_tokens;
    r->thinking_budget = o->thinking_budget;
    r->num_beams = o->num_beams;
    r->length_penalty = o->length_penalty;
    r->early_stopping = o->early_stopping;
    r->progress = o->progress;
    r->progressed = r->submitted;                 /* nothing is said about what is quick */
    r->seq.priority = o->priority;
    r->policy = media_policy_default();
    r->policy.local_files = o->allow_local_files;
    r->policy.network = o->allow_network;
    r->policy.private_addresses = o->allow_local_files && o->allow_network;      /* who may read files here may reach localhost */
    if (extra && extra->policy) r->policy = *extra->policy;
    if (extra) {
        r->probe = extra->probe;
        r->news = extra->news;
        r->news_user = extra->news_user;
    }
    r->deadline = o->timeout_seconds > 0 ? r->submitted + o->timeout_seconds : 0;
    return true;
}

/* What beams cannot do; NULL: nothing of it was asked for. */
static const char *against_beams(const vlm_request *r)
{
    if (r->task != TASK_GENERATE) return "a task other than generation";
    const vlm_sampling *o = &r->sampler.options;
    if (o->temperature > 0) return "temperature";
    if (r->response_format) return "response_format";
    if (r->tool_choice) return "tool_choice";
    if (r->thinking_budget >= 0) return "thinking_budget";
    return o->top_logprobs ? "top_logprobs" : NULL;
}

bool request_choose_beams(vlm_request *r, const vlm_model *m, vlm_error *error)
{
    config none = {0}, c = m->cfg ? *m->cfg : none;
    const char *against = against_beams(r);
    const json_t *early = config_get(&c, "generation_config.early_stopping");
    bool own = r->num_beams != 0;
    if (r->num_beams < 0 || r->num_beams > MAX_BEAMS) return err_set(error, VLM_INVALID, "num_beams is %d; 1 to %d were expected", r->num_beams, MAX_BEAMS);
    if (r->early_stopping < -1 || r->early_stopping > BEAMS_NEVER) return err_set(error, VLM_INVALID, "early_stopping is %d; 0, 1 or 2 (never) was expected", r->early_stopping);
    if (r->early_stopping < 0) r->early_stopping = json_is_true(early) ? BEAMS_EARLY : json_is_string(early) ? BEAMS_NEVER : BEAMS_HEURISTIC;
    if (isnan(r->length_penalty)) r->length_penalty = (float)config_number(&c, "generation_config.length_penalty", 1);
    if (!own) r->num_beams = (int)config_int(&c, "generation_config.num_beams", 1, 1, MAX_BEAMS);
    if (m->cfg && !config_ok(&c, error)) return false;
    if (!isfinite(r->length_penalty)) return err_set(error, VLM_INVALID, "length_penalty has to be a number");
    if (r->num_beams == 1 || !against) return true;
    r->num_beams = 1;
    if (!own) return true;                        /* the checkpoint's wish gives way */
    err_set(error, VLM_UNSUPPORTED, "beam search does not go with %s", against);
    return err_hint(error, "leave %s out, or num_beams", against), false;
}

const json_t *request_tools(const vlm_request *r)
{
    const char *word = json_string_value(r->tool_choice);
    return json_array_size(r->tools) && !(word && !strcmp(word, "none")) ? r->tools : NULL;
}

bool request_choose_adapters(vlm_request *r, const vlm_model *m, const char *names, vlm_error *error)
{
    const adapter_set *set = &m->adapters;
    int chosen = 0;
    for (int i = 0; i < set->count && !names; i++)
        if (adapter_chosen_by_user(set->list[i]) && ++chosen == 1) r->seq.adapters = (uint64_t)1 << i;
    if (chosen > 1) r->seq.adapters = 0;
    if (names && !adapters_mask(set, names, &r->seq.adapters, error)) return false;
    return adapters_digest(set, r->seq.adapters, true, &r->media_adapters) || err_memory(error, sizeof r->media_adapters);
}

/* ---- life ---- */

static void node_free(event_node *node)
{
    if (!node) return;
    buf_free(&node->text);
    mem_free(node);
}

vlm_request *request_new(vlm_engine *engine, const vlm_request_options *options, const engine_extra *extra, vlm_error *error)
{
    vlm_request *r = MEM_NEW(vlm_request);
    if (!r) return err_memory(error, sizeof *r), NULL;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->arrived, &attributes);
    pthread_condattr_destroy(&attributes);
    r->engine = engine;
    atomic_store(&r->refs, 1);
    r->submitted = engine_now();
    r->seq.cached = -1;
    r->seq.owner = r;
    if (!(r->final = MEM_NEW(event_node))) err_memory(error, sizeof *r->final);
    else if (take_options(r, options, extra, error)) {
        if (r->prebuilt) { r->prompt = *extra->prompt; *extra->prompt = (prompt){0}; }
        return r;
    }
    request_unref(r);
    return NULL;
}

void request_ref(vlm_request *r) { atomic_fetch_add(&r->refs, 1); }

void request_unref(vlm_request *r)
{
    if (!r || atomic_fetch_sub(&r->refs, 1) > 1) return;
    for (event_node *node = r->first, *next; node; node = next) {
        next = node->next;
        node_free(node);
    }
    node_free(r->current);
    node_free(r->final);
    json_decref(r->messages);
    json_decref(r->media);
    json_decref(r->media_options);
    json_decref(r->tools);
    json_decref(r->kwargs);
    json_decref(r->tool_choice);
    json_decref(r->response_format);
    mem_free(r->text);
    mem_free(r->tenant);
    mem_free(r->media_dir);
    mem_free(r->tool_format);
    mem_free(r->thinking_start);
    mem_free(r->thinking_end);
    mem_free(r->parsed);
    mem_free(r->encoded);
    mem_free(r->rows_shown);
    prompt_free(&r->prompt);
    sampler_free(&r->sampler);
    guide_free(&r->guide);
    output_free(&r->output);
    output_marks_free(&r->marks);
    beams_free(r->beams, NULL, &r->seq);
    mem_free(r->seq.hidden);
    sequence_free(&r->seq);
    pthread_cond_destroy(&r->arrived);
    pthread_mutex_destroy(&r->lock);
    mem_free(r);
}

/* ---- events, the engine's side ---- */

static void push(vlm_request *r, event_node *node)
{
    pthread_mutex_lock(&r->lock);
    *(r->last ? &r->last->next : &r->first) = node;
    r->last = node;
    pthread_cond_signal(&r->arrived);
    if (r->news) r->news(r->news_user);
    pthread_mutex_unlock(&r->lock);
}

bool request_emit_started(vlm_request *r)
{
    event_node *node = MEM_NEW(event_node);
    if (!node) return false;
    node->event = (vlm_event){.type = VLM_EVENT_STARTED, .usage = r->usage};
    push(r, node);
    return true;
}

bool request_emit_notices(vlm_request *r, const char *lines)
{
    for (size_t n; lines && *lines; lines += n + (lines[n] == '\n')) {
        n = strcspn(lines, "\n");
        event_node *node = MEM_NEW(event_node);
        if (!node || !buf_add(&node->text, lines, n)) return node_free(node), false;
        node->event = (vlm_event){.type = VLM_EVENT_NOTICE, .text = node->text.data, .text_bytes = n};
        push(r, node);
    }
    return true;
}

bool request_emit_piece(void *user, const toolcall_event *piece)
{
    event_node *node = MEM_NEW(event_node);
    if (!node) return false;
    vlm_event *event = &node->event;
    if (piece->type == TOOLCALL_START) {
        const char *id = piece->id ? piece->id : "", *name = piece->name ? piece->name : "";
        if (!buf_add(&node->text, id, strlen(id) + 1) || !buf_add(&node->text, name, strlen(name) + 1)) return node_free(node), false;
        event->call_id = node->text.data;
        event->call_name = node->text.data + strlen(id) + 1;
    } else if (piece->type != TOOLCALL_END) {
        if (!buf_add(&node->text, piece->text, piece->size)) return node_free(node), false;
        event->text = node->text.data;
        event->text_bytes = node->text.size;
    }
    event->type = piece->type == TOOLCALL_CONTENT ? VLM_EVENT_TEXT : piece->type == TOOLCALL_REASONING ? VLM_EVENT_REASONING : VLM_EVENT_TOOL_CALL;
    event->call_event = piece->type == TOOLCALL_START ? VLM_CALL_START : piece->type == TOOLCALL_END ? VLM_CALL_END : VLM_CALL_ARGUMENTS;
    event->call_index = (int)piece->index;
    push(user, node);
    return true;
}

bool request_emit_token(vlm_request *r, const sampled *token)
{
    event_node *node = MEM_NEW(event_node);
    if (!node) return false;
    memcpy(node->top, token->top, sizeof node->top);
    node->event = (vlm_event){.type = VLM_EVENT_TOKEN, .token = token->token, .logprob = token->logprob, .top = node->top,
                              .top_count = token->top_count};
    push(r, node);
    return true;
}

bool request_emit_embedding(vlm_request *r, const float *rows, int count, int cols, int64_t stride)
{
    event_node *node = MEM_NEW(event_node);
    if (!node) return false;
    for (int i = 0; i < count; i++) buf_add(&node->text, rows + i * stride, (size_t)cols * sizeof *rows);
    if (node->text.failed) return node_free(node), false;
    node->event = (vlm_event){.type = VLM_EVENT_EMBEDDING, .token = -1, .embedding = (const float *)(const void *)node->text.data, .embedding_rows = count, .embedding_cols = cols};
    push(r, node);
    return true;
}

void request_emit_progress(vlm_request *r, const char *what, uint64_t done, uint64_t total)
{
    if (!r->progress) return;
    double now = engine_now();
    if (now - r->progressed < PROGRESS_MS * 1e-3) return;
    event_node *node = MEM_NEW(event_node);
    if (!node) return;
    r->progressed = now;
    node->event = (vlm_event){.type = VLM_EVENT_PROGRESS, .progress_what = what, .progress_done = done, .progress_total = total};
    push(r, node);
}

static void emit_final(vlm_request *r, vlm_event event)
{
    event_node *node = r->final;
    if (!node) return;                            /* over already */
    r->final = NULL;
    r->usage.total_seconds = engine_now() - r->submitted;
    event.usage = r->usage;
    node->event = event;
    push(r, node);
}

/* What the answer means. Without memory it stays text. */
static void parse_answer(vlm_request *r)
{
    const vlm_model *m = r->output.model;
    const prompt *p = &r->prompt;
    buf text = {0};
    if (!m || !m->arch || !m->arch->answer || !m->tok || !p->text || r->parsed) return;
    const media_input *picture = p->n_media && p->media[0]->kind == MEDIA_IMAGE ? p->media[0] : NULL;
    if (tokenizer_decode(m->tok, r->seq.tokens + r->seq.n_prompt, (size_t)(r->seq.n - r->seq.n_prompt), false, &text, NULL)) {
        json_t *meaning = m->arch->answer(m, p->text, text.data ? text.data : "", picture ? picture->grid[2] : 0, picture ? picture->grid[1] : 0);
        char *json = meaning ? json_dumps(meaning, JSON_COMPACT) : NULL;
        if (json) r->parsed = mem_strdup(json);
        free(json);
        json_decref(meaning);
    }
    buf_free(&text);
}

void request_emit_done(vlm_request *r, const char *reason, const char *stop_string)
{
    const sequence *seq = &r->seq;
    if (seq->n > seq->n_prompt) parse_answer(r);
    int32_t last = seq->n > seq->n_prompt ? seq->tokens[seq->n - 1] : -1;
    emit_final(r, (vlm_event){.type = VLM_EVENT_DONE, .finish_reason = reason, .stop_string = stop_string, .parsed = r->parsed,
                              .token = last >= 0 && output_ends(&r->output, last) ? last : -1});
}

void request_emit_error(vlm_request *r, const vlm_error *error)
{
    if (!r->final) return;
    r->error = *error;
    if (!r->error.code) r->error.code = VLM_INTERNAL;
    emit_final(r, (vlm_event){.type = VLM_EVENT_ERROR, .error = &r->error});
}

/* ---- events, the caller's side ---- */

int vlm_request_next(vlm_request *r, vlm_event *event, int timeout_ms)
{
    if (!r || !event || r->over) return -1;
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    if (timeout_ms > 0) {
        until.tv_sec += timeout_ms / 1000;
        until.tv_nsec += timeout_ms % 1000 * 1000000L;
        if (until.tv_nsec >= 1000000000L) { until.tv_nsec -= 1000000000L; until.tv_sec++; }
    }
    pthread_mutex_lock(&r->lock);
    int status = 0;
    while (!r->first && timeout_ms != 0 && status != ETIMEDOUT)
        status = timeout_ms < 0 ? pthread_cond_wait(&r->arrived, &r->lock) : pthread_cond_timedwait(&r->arrived, &r->lock, &until);
    event_node *node = r->first;
    if (node && !(r->first = node->next)) r->last = NULL;
    pthread_mutex_unlock(&r->lock);
    if (!node) return 0;
    node_free(r->current);
    r->current = node;
    node->next = NULL;
    *event = node->event;
    if (event->type == VLM_EVENT_DONE || event->type == VLM_EVENT_ERROR) r->over = true;
    return 1;
}

void vlm_request_free(vlm_request *r)
{
    if (!r) return;
    vlm_request_cancel(r);
    request_unref(r);
}
