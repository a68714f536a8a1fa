/* template.c - `vlm template`: a conversation to prompt text, for one or in bulk.
 *
 * Without --normalize the template gets the request as it is, which is what the reference implementation does: for comparing templates. With it
 * the request takes the way of generate, chat and server: messages normalised, media collected, typed control tokens kept from being any. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "cli/commands.h"
#include "cli/jsonl.h"
#include "text/chat.h"
#include "text/json_wide.h"

typedef struct template_options {
    const char *model, *chat_template;
    bool jsonl, normalize, steps;
} template_options;

static const option options_table[] = {
    {OPT_TEXT, "model", "DIR", "checkpoint directory: its templates, its special tokens", offsetof(template_options, model), NULL, 'm'},
    {OPT_TEXT, "chat-template", "FILE", "Jinja template that replaces the checkpoint's", offsetof(template_options, chat_template), NULL, 0},
    {OPT_SWITCH, "jsonl", NULL, "in bulk: one JSON object a line", offsetof(template_options, jsonl), NULL, 0},
    {OPT_SWITCH, "normalize", NULL, "as generate and server do: messages normalised, media collected", offsetof(template_options, normalize), NULL, 0},
    {OPT_SWITCH, "steps", NULL, "with --jsonl: how many steps the template took", offsetof(template_options, steps), NULL, 0},
    {0},
};

typedef struct session { const template_options *options; tokenizer *tok; chat_template *chat; } session;

/* ---- the clock ---- */

/* 2026-03-05, optionally with T07:08:09 after it (fractions and a zone are taken, and mean nothing). */
static bool read_time(const char *text, struct tm *out, vlm_error *error)
{
    int year, month, day, hour = 0, minute = 0, second = 0, used = 0;
    bool ok = sscanf(text, "%4d-%2d-%2d%n", &year, &month, &day, &used) == 3;
    const char *rest = text + used;
    if (ok && *rest) ok = (*rest == 'T' || *rest == ' ') && sscanf(rest + 1, "%2d:%2d:%2d", &hour, &minute, &second) >= 2;
    if (!ok || month < 1 || month > 12 || day < 1 || day > 31 || hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 60)
        return err_set(error, VLM_INVALID, "\"now\" is no time like 2026-03-05T07:08:09: %.60s", text);
    *out = (struct tm){.tm_year = year - 1900, .tm_mon = month - 1, .tm_mday = day, .tm_hour = hour, .tm_min = minute, .tm_sec = second};
    static const int before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
    bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    int past = year - (month < 3);                 /* Sakamoto's weekday: counts leap days up to the February before */
    static const int shift[] = {0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4};
    out->tm_wday = (past + past / 4 - past / 100 + past / 400 + shift[month - 1] + day) % 7;
    out->tm_yday = before[month - 1] + day - 1 + (leap && month > 2);
    return true;
}

/* The request's clock in *out; *now is NULL when it has none. */
static bool request_clock(const json_t *request, struct tm *out, const struct tm **now, vlm_error *error)
{
    const json_t *value = json_object_get(request, "now");
    *now = NULL;
    if (!value || json_is_null(value)) return true;
    if (!json_is_string(value)) return err_set(error, VLM_INVALID, "\"now\" must be a string like 2026-03-05T07:08:09");
    *now = out;
    return read_time(json_string_value(value), out, error);
}

/* ---- one case ---- */

static json_t *failure(const buf *raised, const vlm_error *error)
{
    if (raised->data || error->code == VLM_INVALID) {
        const char *text = raised->data ? raised->data : error->message;
        return json_pack("{s:o}", "error", jsonl_string(text, raised->data ? raised->size : strlen(text)));
    }
    return NULL;
}

static json_t *render_raw(const session *s, const json_t *request, vlm_error *error)
{
    struct tm clock;
    const struct tm *now;
    jinja_report report = {0};
    buf text = {0};
    json_t *result = NULL;
    if (!request_clock(request, &clock, &now, error)) return NULL;
    bool stranger = !s->options->model && json_object_get(request, "chat_template");       /* the demo model's tokens are none of its */
    if (chat_render_raw(s->chat, stranger ? NULL : s->tok, request, now, &report, &text, error)) {
        result = json_pack("{s:o}", "text", jsonl_string(text.data ? text.data : "", text.size));
        if (result && s->options->steps) json_object_set_new(result, "steps", json_integer((json_int_t)report.steps));
        if (!result) err_memory(error, text.size);
    } else result = failure(&report.raised, error);
    buf_free(&report.raised);
    buf_free(&text);
    return result;
}

static json_t *media_json(const chat_prompt *p)
{
    json_t *list = json_array();
    for (size_t i = 0; i < p->media_count; i++) {
        const chat_media *m = &p->media[i];
        json_t *one = json_pack("{s:s, s:s?, s:O?}", "kind", media_kind_name(m->kind), "source", m->source, "options", m->options);
        if (m->fps > 0) json_object_set_new(one, "fps", json_real(m->fps));
        json_array_append_new(list, one);
    }
    return list;
}

/* What is no option of its own is a variable of the template. */
static json_t *further_variables(const json_t *request)
{
    static const char *const own[] = {"messages", "tools", "add_generation_prompt", "now"};
    json_t *copy = json_copy((json_t *)request);
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) json_object_del(copy, own[i]);
    return copy;
}

static json_t *render_normal(const session *s, const json_t *request, vlm_error *error)
{
    struct tm clock;
    const struct tm *now;
    if (!json_is_object(request)) {
        err_set(error, VLM_INVALID, "a request must be an object with \"messages\"");
        return NULL;
    }
    if (!request_clock(request, &clock, &now, error)) return NULL;
    const json_t *add = json_object_get(request, "add_generation_prompt");
    json_t *more = further_variables(request), *result = NULL;
    const chat_options options = {.add_generation_prompt = !add || json_is_true(add), .tools = json_object_get(request, "tools"), .kwargs = more, .now = now};
    chat_prompt p = {0};
    if (chat_render(s->chat, s->tok, json_object_get(request, "messages"), &options, &p, error)) {
        char *plain = chat_prompt_plain(&p);
        if (plain) result = json_pack("{s:o, s:o}", "text", jsonl_string(plain, strlen(plain)), "media", media_json(&p));
        if (!result) err_memory(error, 0);
        mem_free(plain);
    }
    chat_prompt_free(&p);
    json_decref(more);
    return result;
}

static json_t *answer(void *user, const json_t *request, vlm_error *error)
{
    const session *s = user;
    return s->options->normalize ? render_normal(s, request, error) : render_raw(s, request, error);
}

/* ---- the command ---- */

static bool open_session(session *s, vlm_error *error)
{
    const template_options *o = s->options;
    buf text = {0};
    if (o->model && !(s->tok = tokenizer_load(o->model, error))) return false;
    if (!o->model && !o->chat_template && !(s->tok = tokenizer_load(demo_model(), error))) return false;
    if (o->chat_template && !file_read(o->chat_template, 1 << 20, &text, error)) return false;
    bool ok = chat_template_load(o->model ? o->model : demo_model(), s->tok, o->chat_template ? text.data ? text.data : "" : NULL, &s->chat, error);
    buf_free(&text);
    return ok;
}

static int run_one(const session *s, texts words)
{
    vlm_error error = {0};
    buf text = {0};
    json_t *request = NULL, *result = NULL;
    if (file_read(words.count ? words.item[0] : "-", 1u << 30, &text, &error)) {
        json_error_t bad;
        request = json_load_wide(text.data ? text.data : "", text.size, JSON_ALLOW_NUL, &bad);
        if (!request) err_set(&error, VLM_INVALID, "not JSON: line %d: %s", bad.line, bad.text);
        else result = answer((void *)s, request, &error);
    }
    const json_t *shown = json_object_get(result, "text"), *raised = json_object_get(result, "error");
    if (raised) err_set(&error, VLM_INVALID, "%s", json_string_value(raised));
    if (shown) fwrite(json_string_value(shown), 1, json_string_length(shown), stdout);
    json_decref(request);
    json_decref(result);
    buf_free(&text);
    return error.code ? report(&error) : 0;
}

static int run_template(const command *self, void *memory, texts words)
{
    (void)self;
    session s = {.options = memory};
    vlm_error error = {0};
    int exit_code;
    if (words.count > (s.options->jsonl ? 0 : 1)) return usage_error("one request at most: %s", words.item[1 - s.options->jsonl]);
    if (!open_session(&s, &error)) exit_code = report(&error);
    else exit_code = s.options->jsonl ? jsonl_run_wide(answer, &s) : run_one(&s, words);
    chat_template_free(s.chat);
    tokenizer_free(s.tok);
    return exit_code;
}

const command command_template = {
    .name = "template", .help = "Turn a conversation into prompt text with a chat template", .usage = "[options] [REQUEST.json]",
    .options = options_table, .size = sizeof(template_options), .run = run_template,
    .description = "Prints the prompt of a request, a JSON object in the file or on standard input:\n"
                   "  {\"messages\": [...], \"tools\": [...], \"documents\": [...], \"add_generation_prompt\": true, \"continue_final_message\": false,\n"
                   "   \"now\": \"2026-03-05T07:08:09\" (the template's clock), \"chat_template\": a name or a template's text, any further variable}\n"
                   "The template gets exactly that, as with transformers' render_jinja_template; add_generation_prompt is false when it is not given.\n"
                   "With --normalize the request goes the way of generate instead: OpenAI's spellings are put into the template's form, media\n"
                   "are collected, control tokens typed in messages stay text, and add_generation_prompt is true when it is not given.\n"
                   "With --jsonl every line of standard input is a request, and gets a line as answer: {\"text\": ...}, with --normalize also\n"
                   "\"media\", or {\"error\": ...}; what a template raises is the error word for word.",
};
