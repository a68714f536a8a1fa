/* chat.c - `vlm chat`: a conversation on the terminal. The engine lives as long as the conversation, so a turn computes only
 * what is new: earlier turns come from the prefix cache, pictures from the vision cache. */
#define _POSIX_C_SOURCE 200809L
#include <locale.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "cli/answer.h"
#include "cli/batch.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/line.h"

typedef struct chat_flags {
    model_flags model;
    sampling_flags sampling;
    media_flags media;
    answer_flags answer;
    const char *system;
    int64_t max_kv_size, prefill_step_size;
    bool verbose;
} chat_flags;

#define FIELD(name) offsetof(chat_flags, name)
static const option options_table[] = {
    {OPT_TEXT, "system", "TEXT", "system message", FIELD(system), NULL, 0},
    {OPT_SWITCH, "verbose", NULL, "speeds after each answer", FIELD(verbose), NULL, 'v'},
    SAMPLING_OPTIONS(chat_flags, sampling),
    ANSWER_OPTIONS(chat_flags, answer),
    MEDIA_OPTIONS(chat_flags, media),
    MODEL_OPTIONS(chat_flags, model),
    {OPT_INT, "prefill-step-size", "N", "most prompt tokens in one step (chosen)", FIELD(prefill_step_size), NULL, 0},
    {OPT_INT, "max-kv-size", "N", "longest conversation in tokens (the model's)", FIELD(max_kv_size), NULL, 0},
    {0},
};

static void defaults(void *memory)
{
    chat_flags *o = memory;
    model_flags_default(&o->model);
    sampling_flags_default(&o->sampling);
    answer_flags_default(&o->answer);
}

static atomic_bool interrupted;
static void on_interrupt(int number) { atomic_store(&interrupted, true); }

typedef struct chat {
    const chat_flags *flags;
    vlm_engine *engine;
    vlm_request_options request;
    json_t *messages;              /* the conversation so far */
    json_t *pending;               /* media parts for the next question */
    json_t *calls;                 /* calls of the last answer whose results are still to be typed */
} chat;

static const char help_text[] =
    "  /image SRC     add a picture to the next question (path or URL; may be repeated)\n"
    "  /audio SRC     add sound (alone it can be the question: press Enter)\n"
    "  /video SRC     add a video\n"
    "  /clear         forget the conversation\n"
    "  /save FILE     write the conversation as JSON (what --batch takes as \"messages\")\n"
    "  /help          this list\n"
    "  /exit          leave (also Ctrl-D); Ctrl-C stops an answer\n";

static void start_over(chat *c)
{
    json_array_clear(c->messages);
    json_array_clear(c->pending);
    json_array_clear(c->calls);
    if (c->flags->system) json_array_append_new(c->messages, json_pack("{s:s, s:s}", "role", "system", "content", c->flags->system));
}

static void save(const chat *c, const char *path)
{
    vlm_error error = {0};
    char *text = json_dumps(c->messages, JSON_INDENT(1));
    if (!*path) printf("/save takes a file name\n");
    else if (!text || !file_write(path, text, strlen(text), &error)) report(&error);
    else printf("saved %zu messages to %s\n", json_array_size(c->messages), path);
    free(text);
}

static void attach(chat *c, const char *kind, const char *source)
{
    if (!*source) {
        printf("/%s takes a path or URL\n", kind);
        return;
    }
    bool remote = strstr(source, "://") || !strncmp(source, "data:", 5);
    if (!remote && !file_exists(source)) {
        printf("%s: no such file\n", source);
        return;
    }
    json_array_append_new(c->pending, json_pack("{s:s, s:s}", "type", kind, kind, source));
    printf("%s added; now the question\n", kind);
}

/* What the assistant said: kept as it was, so that the next turn finds it in the prefix cache. */
typedef struct reply { buf text, reasoning, arguments; json_t *calls; } reply;

static void reply_free(reply *r)
{
    buf_free(&r->text);
    buf_free(&r->reasoning);
    buf_free(&r->arguments);
    json_decref(r->calls);
}

static void end_call(reply *r)
{
    json_t *call = json_array_get(r->calls, json_array_size(r->calls) - 1);
    if (call) json_object_set_new(json_object_get(call, "function"), "arguments", json_string(r->arguments.data ? r->arguments.data : "{}"));
    buf_clear(&r->arguments);
}

static void hear(reply *r, const vlm_event *event)
{
    if (event->type == VLM_EVENT_TEXT) buf_add(&r->text, event->text, event->text_bytes);
    if (event->type == VLM_EVENT_REASONING) buf_add(&r->reasoning, event->text, event->text_bytes);
    if (event->type != VLM_EVENT_TOOL_CALL) return;
    if (event->call_event == VLM_CALL_ARGUMENTS) buf_add(&r->arguments, event->text, event->text_bytes);
    else if (event->call_event == VLM_CALL_END) end_call(r);
    else json_array_append_new(r->calls, json_pack("{s:s, s:s, s:{s:s, s:s}}", "id", event->call_id, "type", "function", "function", "name", event->call_name, "arguments", "{}"));
}

static json_t *message_of(const reply *r)
{
    bool calls = json_array_size(r->calls) > 0;
    json_t *message = json_pack("{s:s, s:s?}", "role", "assistant", "content", r->text.size ? r->text.data : calls ? NULL : "");
    if (r->reasoning.size) json_object_set_new(message, "reasoning_content", json_string(r->reasoning.data));
    if (calls) json_object_set(message, "tool_calls", r->calls);
    return message;
}

static void show_end(const chat *c, const vlm_event *event)
{
    const vlm_usage *u = &event->usage;
    if (!strcmp(event->finish_reason, "length")) printf("[too long]\n");
    else if (strcmp(event->finish_reason, "stop") && strcmp(event->finish_reason, "tool_calls")) printf("[stopped]\n");
    if (c->flags->verbose)
        printf("[%d prompt tokens, %d cached; %d tokens, %d of them thinking; first after %.3f s, all after %.3f s]\n", u->prompt_tokens, u->cached_tokens,
               u->completion_tokens, u->reasoning_tokens, u->first_token_seconds, u->total_seconds);
}

/* Waits for events in short turns, so that Ctrl-C is seen while the prompt is being computed. */
static bool stream(chat *c, vlm_request *request, reply *answer)
{
    vlm_event event;
    bool ok = false;
    printer look = printer_new(c->flags->verbose);
    for (int got; (got = vlm_request_next(request, &event, 50)) >= 0;) {
        if (atomic_exchange(&interrupted, false)) vlm_request_cancel(request);
        if (!got) continue;
        if (event.type == VLM_EVENT_PROGRESS) progress_bar(NULL, event.progress_what, event.progress_done, event.progress_total);
        else progress_clear();
        hear(answer, &event);
        printer_event(&look, &event);
        if (event.type == VLM_EVENT_ERROR) report(event.error);
        if (event.type != VLM_EVENT_DONE) continue;
        ok = true;
        printer_end(&look);
        show_end(c, &event);
    }
    return ok;
}

static void ask_for_result(const chat *c)
{
    const json_t *call = json_array_get(c->calls, 0);
    const char *name = json_string_value(json_object_get(json_object_get(call, "function"), "name"));
    if (name) printf("What does %s give?\n", name);
}

/* The conversation, whose last message is new, goes to the model. */
static void go_on(chat *c)
{
    vlm_error error = {0};
    reply answer = {.calls = json_array()};
    char *messages = json_dumps(c->messages, JSON_COMPACT);
    c->request.messages = messages;
    atomic_store(&interrupted, false);
    vlm_request *request = messages ? vlm_submit(c->engine, &c->request, &error) : NULL;
    if (!request) report(&error);
    if (request && stream(c, request, &answer)) {
        json_array_clear(c->pending);
        json_array_append_new(c->messages, message_of(&answer));
        json_array_extend(c->calls, answer.calls);
        ask_for_result(c);
    } else {
        json_array_remove(c->messages, json_array_size(c->messages) - 1);     /* nothing is lost: media stay attached */
    }
    vlm_request_free(request);
    free(messages);
    reply_free(&answer);
}

static void ask(chat *c, const char *text)
{
    json_t *content = json_deep_copy(c->pending);
    if (*text) json_array_append_new(content, json_pack("{s:s, s:s}", "type", "text", "text", text));
    json_array_append_new(c->messages, json_pack("{s:s, s:o}", "role", "user", "content", content));
    go_on(c);
}

/* The line is what the tool gave. When all calls have their results, the model answers. */
static void give_result(chat *c, const char *text)
{
    const json_t *call = json_array_get(c->calls, 0);
    json_array_append_new(c->messages, json_pack("{s:s, s:O, s:O, s:s}", "role", "tool", "tool_call_id", json_object_get(call, "id"), "name",
                                                 json_object_get(json_object_get(call, "function"), "name"), "content", text));
    json_array_remove(c->calls, 0);
    if (json_array_size(c->calls)) ask_for_result(c);
    else go_on(c);
}

/* False: leave. */
static bool obey(chat *c, const char *line)
{
    size_t n = strcspn(line, " \t");
    const char *rest = line + n + strspn(line + n, " \t");
    char name[16] = "";
    snprintf(name, sizeof name, "%.*s", (int)(n < 15 ? n : 15), line);
    if (!strcmp(name, "/exit") || !strcmp(name, "/quit")) return false;
    if (!strcmp(name, "/image") || !strcmp(name, "/audio") || !strcmp(name, "/video")) attach(c, name + 1, rest);
    else if (!strcmp(name, "/clear")) start_over(c), printf("forgotten\n");
    else if (!strcmp(name, "/save")) save(c, rest);
    else if (!strcmp(name, "/help")) printf("%s", help_text);
    else printf("unknown command %s; /help lists them\n", name);
    return true;
}

static void converse(chat *c)
{
    line_reader *reader = line_open("> ");
    if (!reader) return;
    struct sigaction action = {.sa_handler = on_interrupt};                    /* no SA_RESTART: a read at the prompt returns */
    sigaction(SIGINT, &action, NULL);
    if (line_is_terminal(reader)) printf("Type a question; /image FILE adds a picture, /help lists the rest.\n");
    bool stop;
    for (const char *line; (line = line_read(reader, &stop));) {
        if (stop) continue;
        line += strspn(line, " \t");
        if (*line == '/') {
            if (!obey(c, line)) break;
        } else if (json_array_size(c->calls)) {
            give_result(c, line);
        } else if (*line || json_array_size(c->pending)) {
            ask(c, line);
        }
        fflush(stdout);
    }
    line_close(reader);
}

static int run(const command *self, void *memory, texts words)
{
    const chat_flags *o = memory;
    if (words.count) return usage_error("chat: '%s' is no option", words.item[0]);
    setlocale(LC_CTYPE, "");
    kept keep = {0};
    int exit_code = 2;
    chat c = {.flags = o, .messages = json_array(), .pending = json_array(), .calls = json_array()};
    vlm_error error = {0};
    vlm_model *model = NULL;
    if (request_from_flags(&o->sampling, &o->media, &c.request, &keep) && answer_flags_apply(&o->answer, &c.request, &keep, &exit_code) && (model = model_flags_load(&o->model, &exit_code))) {
        vlm_engine_options options = vlm_engine_options_default();
        options.context = (int)o->max_kv_size;
        options.prefill_chunk = (int)o->prefill_step_size;
        c.engine = vlm_engine_new(model, &options, &error);
        exit_code = c.engine ? 0 : report(&error);
        if (c.engine) {
            start_over(&c);
            converse(&c);
        }
    }
    vlm_engine_free(c.engine);
    vlm_model_free(model);
    json_decref(c.messages);
    json_decref(c.pending);
    json_decref(c.calls);
    kept_free(&keep);
    return exit_code;
}

const command command_chat = {
    .name = "chat", .help = "Talk with the model about pictures, videos, sound and text", .usage = "[options]",
    .options = options_table, .size = sizeof(chat_flags), .defaults = defaults, .run = run, .description = help_text,
};
