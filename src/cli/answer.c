/* answer.c - see answer.h. */
#include "cli/answer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

enum { MAX_TEXT = 16 << 20 };

void answer_flags_default(answer_flags *f) { *f = (answer_flags){.parallel = true, .parse = true}; }

/* ---- options ---- */

/* JSON itself, or the file that holds it. NULL after a message. */
static json_t *json_of(const char *flag, const char *value, int *exit_code)
{
    vlm_error error = {0};
    json_error_t where;
    buf file = {0};
    bool inline_json = *value == '{' || *value == '[';
    if (!inline_json && !file_read(value, MAX_TEXT, &file, &error)) {
        *exit_code = report(&error);
        return NULL;
    }
    json_t *json = json_loads(inline_json ? value : file.data ? file.data : "", 0, &where);
    if (!json) *exit_code = usage_error("--%s %s: %s (line %d, column %d)", flag, inline_json ? "" : value, where.text, where.line, where.column);
    buf_free(&file);
    return json;
}

static json_t *grammar_of(const char *path, int *exit_code)
{
    vlm_error error = {0};
    buf file = {0};
    json_t *format = NULL;
    size_t n = strlen(path);
    if (!file_read(path, MAX_TEXT, &file, &error)) *exit_code = report(&error);
    else if (!(format = json_pack("{s:s, s:{s:s, s:s}}", "type", "grammar", "grammar", "syntax", n > 5 && !strcmp(path + n - 5, ".lark") ? "lark" : "gbnf",
                                  "definition", file.data ? file.data : "")))
        *exit_code = usage_error("%s is no text", path);
    buf_free(&file);
    return format;
}

static json_t *choices_of(const texts *list)
{
    json_t *items = json_array();
    for (int i = 0; i < list->count; i++) json_array_append_new(items, json_string(list->item[i]));
    return json_pack("{s:s, s:o}", "type", "choice", "choice", items);
}

/* NULL: none was asked for, or (with *exit_code) an error was told. */
static json_t *response_format(const answer_flags *f, int *exit_code)
{
    *exit_code = 0;
    if ((f->json_schema != NULL) + (f->response_format != NULL) + (f->grammar != NULL) + (f->regex != NULL) + (f->choice.count > 0) > 1) {
        *exit_code = usage_error("only one of --json-schema, --response-format, --regex, --choice and --grammar can be kept to");
        return NULL;
    }
    if (f->grammar) return grammar_of(f->grammar, exit_code);
    if (f->regex) return json_pack("{s:s, s:s}", "type", "regex", "regex", f->regex);
    if (f->choice.count) return choices_of(&f->choice);
    if (f->response_format && (!strcmp(f->response_format, "json_object") || !strcmp(f->response_format, "text")))
        return json_pack("{s:s}", "type", f->response_format);
    if (f->response_format) return json_of("response-format", f->response_format, exit_code);
    json_t *schema = f->json_schema ? json_of("json-schema", f->json_schema, exit_code) : NULL;
    return schema ? json_pack("{s:s, s:{s:s, s:o}}", "type", "json_schema", "json_schema", "name", "answer", "schema", schema) : NULL;
}

static bool is_word(const char *choice)
{
    return *choice == '{' || !strcmp(choice, "auto") || !strcmp(choice, "none") || !strcmp(choice, "required");
}

bool answer_flags_apply(const answer_flags *f, vlm_request_options *out, kept *keep, int *exit_code)
{
    *exit_code = 2;
    out->parse = f->parse ? out->parse : 0;
    out->parallel_tool_calls = f->parallel;
    out->tool_format = f->tool_format;
    out->tool_choice = f->tool_choice;
    if (f->tool_choice && !is_word(f->tool_choice) &&
        !(out->tool_choice = keep_json(keep, json_pack("{s:s, s:{s:s}}", "type", "function", "function", "name", f->tool_choice))))
        return false;
    if (f->tools) {
        json_t *tools = json_of("tools", f->tools, exit_code);
        if (!tools || !(out->chat.tools = keep_json(keep, tools))) return false;
    }
    json_t *format = response_format(f, exit_code);
    if (!format) return *exit_code == 0;
    *exit_code = 2;
    return (out->response_format = keep_json(keep, format)) != NULL;
}

/* ---- the look ---- */

printer printer_new(bool verbose)
{
    bool terminal = isatty(STDOUT_FILENO) == 1;
    return (printer){.reasoning = verbose || terminal, .colours = terminal, .line_end = true};
}

static void colour(const printer *p, const char *code)
{
    if (p->colours) printf("\033[%sm", code);
}

/* Before something of another kind: the line ends, colours are set. */
static void turn(printer *p, printed kind)
{
    if (p->last == kind && kind != PRINT_CALL) return;
    if (p->last == PRINT_REASONING || p->last == PRINT_CALL) colour(p, "0");
    if (!p->line_end) putchar('\n');
    if (kind == PRINT_REASONING) colour(p, "2");
    if (kind == PRINT_CALL) colour(p, "36");
    p->last = kind;
}

static void out(printer *p, const char *text, size_t size)
{
    if (!size) return;
    fwrite(text, 1, size, stdout);
    p->line_end = text[size - 1] == '\n';
}

void printer_event(printer *p, const vlm_event *event)
{
    if (event->type == VLM_EVENT_TEXT) {
        turn(p, PRINT_TEXT);
        out(p, event->text, event->text_bytes);
    } else if (event->type == VLM_EVENT_REASONING && p->reasoning) {
        turn(p, PRINT_REASONING);
        out(p, event->text, event->text_bytes);
    } else if (event->type == VLM_EVENT_TOOL_CALL) {
        if (event->call_event == VLM_CALL_START) {
            turn(p, PRINT_CALL);
            printf("call %s ", event->call_name);
            p->line_end = false;
        } else if (event->call_event == VLM_CALL_ARGUMENTS) {
            out(p, event->text, event->text_bytes);
        }
    } else {
        if (event->type == VLM_EVENT_NOTICE) fprintf(stderr, "vlm: note: %.*s\n", (int)event->text_bytes, event->text);
        return;
    }
    fflush(stdout);
}

void printer_end(printer *p)
{
    if (p->last == PRINT_REASONING || p->last == PRINT_CALL) colour(p, "0");
    putchar('\n');
    p->last = PRINT_NOTHING;
    p->line_end = true;
}
