/* parse.c - `vlm parse`: what a model printed becomes reasoning, content and tool calls, for one text or in bulk. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "cli/batch.h"
#include "cli/commands.h"
#include "cli/jsonl.h"
#include "text/chat.h"
#include "text/toolcall.h"

typedef struct parse_options {
    const char *model, *chat_template, *format, *tools, *finish_reason;
    bool jsonl, eager, thinking;
} parse_options;

static const option options_table[] = {
    {OPT_TEXT, "model", "DIR", "checkpoint directory whose chat template tells the format", offsetof(parse_options, model), NULL, 'm'},
    {OPT_TEXT, "chat-template", "FILE", "a template's file alone", offsetof(parse_options, chat_template), NULL, 0},
    {OPT_TEXT, "format", "NAME", "the format's name ('list' lists them)", offsetof(parse_options, format), NULL, 0},
    {OPT_SWITCH, "jsonl", NULL, "in bulk: one JSON object a line", offsetof(parse_options, jsonl), NULL, 0},
    {OPT_TEXT, "tools", "FILE", "JSON list of the tools, whose schemas type the arguments", offsetof(parse_options, tools), NULL, 0},
    {OPT_SWITCH, "prompt-open-think", NULL, "the prompt left thinking open", offsetof(parse_options, thinking), NULL, 0},
    {OPT_SWITCH, "eager", NULL, "tell arguments before the call is complete", offsetof(parse_options, eager), NULL, 0},
    {OPT_TEXT, "finish-reason", "WHY", "how generation ended (stop)", offsetof(parse_options, finish_reason), NULL, 0},
    {0},
};

typedef struct session { const parse_options *options; const toolcall_format *format; json_t *tools; response_template *response; } session;

/* ---- one answer ---- */

typedef struct answer { json_t *events, *calls; buf reasoning, content, arguments; int piece; bool failed; } answer;

static bool add(json_t *array, json_t *value) { return value && json_array_append_new(array, value) == 0; }

static void take_event(answer *a, const toolcall_event *e)
{
    json_t *event = NULL;
    switch (e->type) {
    case TOOLCALL_REASONING: case TOOLCALL_CONTENT: {
        bool content = e->type == TOOLCALL_CONTENT;
        buf_add(content ? &a->content : &a->reasoning, e->text, e->size);
        event = json_pack("{s:s, s:o, s:i}", "type", content ? "content" : "reasoning", "text", jsonl_string(e->text, e->size), "piece", a->piece);
        break;
    }
    case TOOLCALL_START:
        event = json_pack("{s:s, s:i, s:o, s:o, s:i}", "type", "tool_call", "index", (int)e->index, "id", jsonl_string(e->id, strlen(e->id)), "name",
                          jsonl_string(e->name, strlen(e->name)), "piece", a->piece);
        if (!add(a->calls, json_pack("{s:o, s:o, s:s}", "id", jsonl_string(e->id, strlen(e->id)), "name", jsonl_string(e->name, strlen(e->name)),
                                     "arguments", ""))) a->failed = true;
        buf_clear(&a->arguments);
        break;
    case TOOLCALL_ARGUMENTS_DELTA:
        buf_add(&a->arguments, e->text, e->size);
        event = json_pack("{s:s, s:i, s:o, s:i}", "type", "arguments", "index", (int)e->index, "text", jsonl_string(e->text, e->size), "piece", a->piece);
        break;
    case TOOLCALL_END:
        event = json_pack("{s:s, s:i, s:i}", "type", "tool_call_end", "index", (int)e->index, "piece", a->piece);
        json_object_set_new(json_array_get(a->calls, e->index), "arguments", jsonl_string(a->arguments.data ? a->arguments.data : "", a->arguments.size));
        break;
    }
    if (!add(a->events, event)) a->failed = true;
}

static bool feed(toolcall_parser *p, answer *a, const char *text, size_t size)
{
    toolcall_event event;
    bool ok = toolcall_feed(p, text, size, false);
    while (toolcall_next(p, &event)) take_event(a, &event);
    a->piece++;
    return ok;
}

/* splits: offsets in bytes at which the text is cut; or the pieces themselves ("chunks"). */
static bool feed_pieces(toolcall_parser *p, answer *a, const json_t *input, const char *text, size_t size)
{
    const json_t *splits = json_object_get(input, "splits"), *chunks = json_object_get(input, "chunks"), *item;
    size_t at = 0, i;
    if (json_is_array(chunks)) {
        for (i = 0; i < json_array_size(chunks); i++) {
            item = json_array_get(chunks, i);
            if (json_is_string(item) && !feed(p, a, json_string_value(item), json_string_length(item))) return false;
        }
        return true;
    }
    for (i = 0; i < json_array_size(splits); i++) {
        json_int_t cut = json_integer_value(json_array_get(splits, i));
        if (cut < (json_int_t)at || cut > (json_int_t)size) continue;
        if (!feed(p, a, text + at, (size_t)cut - at)) return false;
        at = (size_t)cut;
    }
    return feed(p, a, text + at, size - at);
}

static const char *get_text(const json_t *input, const char *a, const char *b)
{
    const char *text = json_string_value(json_object_get(input, a));
    return text ? text : json_string_value(json_object_get(input, b));
}

static const toolcall_format *format_of(const session *s, const json_t *input, vlm_error *error)
{
    const char *name = json_string_value(json_object_get(input, "format")), *source = json_string_value(json_object_get(input, "chat_template"));
    if (name && !s->options->format) {
        const toolcall_format *f = toolcall_format_find(name);
        if (!f) err_set(error, VLM_INVALID, "unknown format '%s'", name);
        return f;
    }
    return source ? toolcall_format_detect(source) : s->format;
}

static json_t *result_of(answer *a, const toolcall_format *f, const char *finish)
{
    if (!finish || !strcmp(finish, "stop")) finish = json_array_size(a->calls) ? "tool_calls" : "stop";
    return json_pack("{s:o, s:o, s:O, s:s, s:s, s:O}", "reasoning", jsonl_string(a->reasoning.data ? a->reasoning.data : "", a->reasoning.size), "content",
                     jsonl_string(a->content.data ? a->content.data : "", a->content.size), "tool_calls", a->calls, "finish_reason", finish,
                     "format", toolcall_format_name(f), "events", a->events);
}

/* ---- response templates ---- */

typedef struct regions { buf events; } regions;

static void add_string(buf *out, const char *text, size_t size)
{
    json_t *string = jsonl_string(text, size);
    char *dump = string ? json_dumps(string, JSON_ENCODE_ANY) : NULL;
    if (!dump || !buf_adds(out, dump)) out->failed = true;
    free(dump);
    json_decref(string);
}

/* Values go out as the texts that they are: numbers may be of any size. */
static void take_region(void *user, const response_event *e)
{
    static const char *const types[] = {"region_open", "region_chunk", "region_close"};
    buf *out = &((regions *)user)->events;
    buf_adds(out, out->size ? ", " : "");
    buf_addf(out, "{\"type\": \"%s\", \"field\": ", types[e->type]);
    add_string(out, e->field, strlen(e->field));
    if (e->type == RESPONSE_CHUNK) {
        buf_adds(out, ", \"text\": ");
        add_string(out, e->text, e->size);
        buf_adds(out, e->dirty ? ", \"dirty\": true" : ", \"dirty\": false");
    }
    if (e->type == RESPONSE_CLOSE) {
        buf_adds(out, ", \"value\": ");
        buf_add(out, e->text, e->size);
    }
    buf_addc(out, '}');
}

static void add_member(buf *out, const char *key, const char *json)
{
    buf_addf(out, "%s\"%s\": ", out->size > 1 ? ", " : "", key);
    buf_adds(out, json);
}

/* The reference's message and events; reasoning, content and calls taken out of the message. */
static json_t *response_result(const response_parser *p, regions *r, const char *finish, vlm_error *error)
{
    static const char *const reasoning[] = {"reasoning_content", "thinking", "reasoning"};
    char *message = response_message(p, error);
    if (!message) return NULL;
    buf out = {0}, calls = {0}, value = {0};
    bool thought = false;
    buf_addc(&out, '{');
    for (int i = 0; i < 3 && !thought; i++)
        if ((thought = response_get(message, reasoning[i], &value))) add_member(&out, "reasoning", value.data);
    if (!thought) add_member(&out, "reasoning", "\"\"");
    add_member(&out, "content", response_get(message, "content", &value) ? value.data : "\"\"");
    bool called = response_calls(message, &calls);
    add_member(&out, "tool_calls", calls.data ? calls.data : "[]");
    if (!finish || !strcmp(finish, "stop")) finish = called ? "tool_calls" : "stop";
    buf_addf(&out, ", \"finish_reason\": ");
    add_string(&out, finish, strlen(finish));
    add_member(&out, "message", message);
    buf_adds(&out, ", \"events\": [");
    if (r->events.data) buf_add(&out, r->events.data, r->events.size);
    buf_adds(&out, "]}");
    bool ok = !r->events.failed && !calls.failed && !value.failed;
    buf_free(&calls);
    buf_free(&value);
    vlm_free(message);
    json_t *result = ok ? jsonl_raw(buf_take(&out)) : NULL;
    buf_free(&out);
    if (!result) err_memory(error, 0);
    return result;
}

static json_t *parse_response(const session *s, const response_template *t, const json_t *input, vlm_error *error)
{
    const char *text, *prefix = get_text(input, "prefix", "prompt"), *finish = get_text(input, "finish_reason", "finish");
    const json_t *tools = json_object_get(input, "tools"), *splits = json_object_get(input, "splits");
    size_t size, at = 0;
    if (!jsonl_get_string(input, json_object_get(input, "text") ? "text" : "raw", &text, &size, error)) return NULL;
    regions r = {0};
    response_parser *p = response_parser_new(t, prefix ? prefix : "", prefix ? strlen(prefix) : 0, json_is_array(tools) ? tools : s->tools, take_region, &r, error);
    bool ok = p != NULL;
    for (size_t i = 0; ok && i < json_array_size(splits); i++) {
        json_int_t cut = json_integer_value(json_array_get(splits, i));
        if (cut < (json_int_t)at || cut > (json_int_t)size) continue;
        ok = response_feed(p, text + at, (size_t)cut - at, error);
        at = (size_t)cut;
    }
    ok = ok && response_feed(p, text + at, size - at, error) && response_finish(p, error);
    json_t *result = ok ? response_result(p, &r, finish, error) : NULL;
    response_parser_free(p);
    buf_free(&r.events);
    return result;
}

/* ---- a case ---- */

static json_t *parse_case(void *user, const json_t *input, vlm_error *error)
{
    const session *s = user;
    const json_t *spec = json_object_get(input, "response_template");
    if (json_is_object(spec)) {
        response_template *t = response_template_new(spec, error);
        json_t *result = t ? parse_response(s, t, input, error) : NULL;
        response_template_free(t);
        return result;
    }
    if (s->response && !json_object_get(input, "format") && !json_object_get(input, "chat_template")) return parse_response(s, s->response, input, error);
    const toolcall_format *f = format_of(s, input, error);
    if (!f) return NULL;
    const char *key = json_object_get(input, "text") ? "text" : "raw", *text = "";
    size_t size = 0;
    if (!json_object_get(input, "chunks") && !jsonl_get_string(input, key, &text, &size, error)) return NULL;
    const char *finish = get_text(input, "finish_reason", "finish"), *prompt = json_string_value(json_object_get(input, "prompt"));
    const json_t *tools = json_object_get(input, "tools");
    toolcall_options options = {.tools = json_is_array(tools) ? tools : s->tools, .eager = jsonl_get_bool(input, "eager", s->options->eager)};
    bool open = s->options->thinking || (prompt && toolcall_prompt_thinks(f, prompt, strlen(prompt)));
    options.thinking_open = jsonl_get_bool(input, "prompt_open_think", open);
    toolcall_parser *p = toolcall_parser_new(f, &options, error);
    if (!p) return NULL;
    answer a = {.events = json_array(), .calls = json_array()};
    json_t *result = NULL;
    toolcall_event event;
    if (feed_pieces(p, &a, input, text, size) && toolcall_finish(p, finish ? finish : s->options->finish_reason)) {
        while (toolcall_next(p, &event)) take_event(&a, &event);
        if (!a.failed) result = result_of(&a, f, finish ? finish : s->options->finish_reason);
    }
    if (!result) err_memory(error, size);
    toolcall_parser_free(p);
    json_decref(a.events);
    json_decref(a.calls);
    buf_free(&a.reasoning);
    buf_free(&a.content);
    buf_free(&a.arguments);
    return result;
}

/* ---- the command ---- */

static bool choose_format(session *s, vlm_error *error)
{
    const parse_options *o = s->options;
    if (o->format) {
        s->format = toolcall_format_find(o->format);
        if (!s->format) return err_set(error, VLM_INVALID, "unknown format '%s' (vlm parse --format list)", o->format);
        return true;
    }
    s->format = toolcall_format_detect(NULL);
    if (o->chat_template) {
        buf text = {0};
        if (!file_read(o->chat_template, 1 << 24, &text, error)) return false;
        s->format = toolcall_format_detect(text.data);
        buf_free(&text);
    }
    else if (o->model) {
        tokenizer *t = tokenizer_load(o->model, error);
        chat_template *c = NULL;
        bool ok = t && chat_template_load(o->model, t, NULL, &c, error);
        if (ok && c) s->format = toolcall_format_detect(chat_template_source(c));
        const json_t *spec = t ? json_object_get(tokenizer_config(t), "response_template") : NULL;
        if (ok && json_is_object(spec)) ok = (s->response = response_template_new(spec, error)) != NULL;
        chat_template_free(c);
        tokenizer_free(t);
        return ok;
    }
    return true;
}

static int list_formats(void)
{
    for (size_t i = 0; toolcall_format_at(i); i++) printf("%s\n", toolcall_format_name(toolcall_format_at(i)));
    return 0;
}

static int run_one(session *s, texts words)
{
    vlm_error error = {0};
    buf text = {0};
    bool ok = true;
    if (!words.count) ok = file_read("-", 1u << 30, &text, &error);
    for (int i = 0; ok && i < words.count; i++) ok = (!i || buf_addc(&text, ' ')) && buf_adds(&text, words.item[i]);
    json_t *input = ok ? json_pack("{s:o}", "text", jsonl_string(text.data ? text.data : "", text.size)) : NULL;
    json_t *result = input ? parse_case(s, input, &error) : NULL;
    json_decref(input);
    buf_free(&text);
    if (!result) return report(&error);
    const char *raw = jsonl_raw_text(result);
    if (raw) {
        puts(raw);
        json_decref(result);
    }
    else print_json(result);
    return 0;
}

static int run(const command *self, void *memory, texts words)
{
    session s = {.options = memory};
    vlm_error error = {0};
    if (s.options->format && !strcmp(s.options->format, "list")) return list_formats();
    if (!choose_format(&s, &error)) return report(&error);
    if (s.options->tools) {
        buf text = {0};
        if (!file_read(s.options->tools, 1 << 24, &text, &error)) return report(&error);
        s.tools = json_loadb(text.data, text.size, 0, NULL);
        buf_free(&text);
        if (!json_is_array(s.tools)) return usage_error("--tools: %s is no JSON list", s.options->tools);
    }
    int code = s.options->jsonl ? jsonl_run(parse_case, &s) : run_one(&s, words);
    json_decref(s.tools);
    response_template_free(s.response);
    return code;
}

const command command_parse = {
    .name = "parse", .help = "Split a model's output into reasoning, content and tool calls", .usage = "[-m DIR | --chat-template FILE | --format NAME] [--jsonl] [TEXT]",
    .options = options_table, .size = sizeof(parse_options), .run = run,
};
