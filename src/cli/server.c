/* server.c - `vlm server`: models behind OpenAI's and Anthropic's APIs. */
#include "server/server.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "base/mem.h"
#include "cli/commands.h"
#include "cli/flags.h"

typedef struct options {
    model_flags model;
    texts models, model_dirs, api_key, cors, media_paths;
    const char *host, *api_key_file, *tls_cert, *tls_key, *log_format;
    int64_t port, max_tokens, max_body_mb, max_num_seqs, max_queue, prefill_step_size, max_kv_size, max_choices, drain;
    double timeout, header_seconds;
    bool thinking, network, private_network, quiet;
    int64_t vision_cache_mb, kv_mb, max_models, max_model_mb;
} options;

#define FIELD(name) offsetof(options, name)
static const option options_table[] = {
    {OPT_SECTION, .help = "Address"},
    {OPT_TEXT, "host", "ADDRESS", "to listen on (127.0.0.1; 0.0.0.0: every network)", FIELD(host), NULL, 0},
    {OPT_INT, "port", "N", "0 takes a free one, and says which (8080)", FIELD(port), NULL, 'p'},
    {OPT_TEXT, "tls-cert", "FILE", "certificate chain, PEM: serves https", FIELD(tls_cert), NULL, 0},
    {OPT_TEXT, "tls-key", "FILE", "its key, PEM", FIELD(tls_key), NULL, 0},
    {OPT_SECTION, .help = "Who may, and what"},
    {OPT_TEXTS, "api-key", "KEY", "requests must bring one of these (none: everybody may)", FIELD(api_key), NULL, 0},
    {OPT_TEXT, "api-key-file", "FILE", "more of them, one a line", FIELD(api_key_file), NULL, 0},
    {OPT_TEXTS, "cors-origin", "ORIGIN", "web pages from there may ask; '*': from anywhere (none)", FIELD(cors), NULL, 0},
    {OPT_SWITCH, "allow-network", NULL, "media may be http(s) URLs, which the server fetches (off)", FIELD(network), NULL, 0},
    {OPT_SWITCH, "allow-private-network", NULL, "... also from private addresses (off)", FIELD(private_network), NULL, 0},
    {OPT_TEXTS, "allowed-media-path", "DIR", "media may be files below these (none)", FIELD(media_paths), NULL, 0},
    MODEL_OPTIONS(options, model),
    {OPT_TEXTS, "models", "[NAME=]DIR", "several models, loaded at the start; the first is the default", FIELD(models), NULL, 0},
    {OPT_TEXTS, "model-dir", "DIR", "checkpoints below these folders are loaded when a request names them", FIELD(model_dirs), NULL, 0},
    {OPT_INT, "max-models", "N", "loaded at once; the one idle for longest makes room (any number)", FIELD(max_models), NULL, 0},
    {OPT_INT, "max-model-mb", "N", "of weights loaded at once (any)", FIELD(max_model_mb), NULL, 0},
    {OPT_SECTION, .help = "Limits"},
    {OPT_INT, "max-tokens", "N", "of an answer, when a request does not say (2048)", FIELD(max_tokens), NULL, 0},
    {OPT_INT, "max-kv-size", "N", "longest prompt and answer together (the model's)", FIELD(max_kv_size), NULL, 0},
    {OPT_INT, "max-num-seqs", "N", "answers made at once; others wait (256)", FIELD(max_num_seqs), NULL, 0},
    {OPT_INT, "max-queue", "N", "requests that may wait; more get 429 (4096)", FIELD(max_queue), NULL, 0},
    {OPT_INT, "max-choices", "N", "greatest n of a request (16)", FIELD(max_choices), NULL, 0},
    {OPT_INT, "max-body-mb", "N", "of a request (256)", FIELD(max_body_mb), NULL, 0},
    {OPT_NUMBER, "header-seconds", "SECONDS", "for the head of a request to arrive (20)", FIELD(header_seconds), NULL, 0},
    {OPT_NUMBER, "timeout", "SECONDS", "for an answer; it ends with what it has (none)", FIELD(timeout), NULL, 0},
    {OPT_INT, "prefill-step-size", "N", "most prompt tokens of a request in one step (chosen)", FIELD(prefill_step_size), NULL, 0},
    {OPT_INT, "kv-cache-mb", "N", "memory for keys and values (chosen from what is free)", FIELD(kv_mb), NULL, 0},
    {OPT_INT, "vision-cache-mb", "N", "memory for features of pictures (256)", FIELD(vision_cache_mb), NULL, 0},
    {OPT_SECTION, .help = "Answers"},
    {OPT_SWITCH, "enable-thinking", NULL, "thinking, where a request does not say (the template's default)", FIELD(thinking), NULL, 0},
    {OPT_SECTION, .help = "Running"},
    {OPT_TEXT, "log-format", "WHICH", "text or json (text)", FIELD(log_format), "text|json", 0},
    {OPT_SWITCH, "quiet", NULL, "no line for each request", FIELD(quiet), NULL, 'q'},
    {OPT_INT, "drain-seconds", "N", "after SIGTERM, for answers under way (30)", FIELD(drain), NULL, 0},
    {0},
};

static void defaults(void *memory)
{
    options *o = memory;
    model_flags_default(&o->model);
    server_options usual = server_options_default();
    o->host = usual.http.host;
    o->port = usual.http.port;
    o->header_seconds = usual.http.header_seconds;
    o->max_tokens = usual.max_tokens;
    o->max_choices = usual.max_choices;
    o->max_body_mb = (int64_t)(usual.max_body >> 20);
    o->log_format = "text";
    o->drain = 30;
    o->vision_cache_mb = 256;
}

static void print_log(void *user, const char *line)
{
    printf("%s\n", line);
    fflush(stdout);
}

/* Words of the command line and lines of a file, as one NULL-terminated list in `memory`. False after a message. */
static bool key_list(const options *o, arena *memory, const char *const **out, int *exit_code)
{
    vlm_error error = {0};
    buf file = {0};
    if (o->api_key_file && !file_read(o->api_key_file, 1 << 20, &file, &error)) {
        *exit_code = report(&error);
        return false;
    }
    size_t lines = 1;
    for (const char *p = file.data; p && *p; p++) lines += *p == '\n';
    const char **list = arena_alloc(memory, ((size_t)o->api_key.count + lines + 1) * sizeof *list);
    size_t n = 0;
    for (int i = 0; list && i < o->api_key.count; i++) list[n++] = o->api_key.item[i];
    char *rest = NULL;
    for (char *line = file.data ? strtok_r(file.data, "\r\n", &rest) : NULL; list && line; line = strtok_r(NULL, "\r\n", &rest))
        if (*line && *line != '#') list[n++] = arena_strdup(memory, line);
    buf_free(&file);
    *out = list;
    return list != NULL;
}

static const char *const *word_list(const texts *words, const char *first, arena *memory)
{
    const char **list = arena_alloc(memory, ((size_t)words->count + 2) * sizeof *list);
    int n = 0;
    if (list && first) list[n++] = first;
    for (int i = 0; list && i < words->count; i++) list[n++] = words->item[i];
    return list;
}

static bool read_pem(const char *path, arena *memory, const char **out, int *exit_code)
{
    vlm_error error = {0};
    buf file = {0};
    bool ok = !path || file_read(path, 1 << 20, &file, &error);
    if (!ok) *exit_code = report(&error);
    else if (path) *out = arena_strdup(memory, file.data ? file.data : "");
    buf_free(&file);
    return ok;
}

/* What options point to. */
typedef struct pointed { arena memory; kept keep; buf source; } pointed;

static bool take(const options *o, texts words, pointed *p, server_options *to, int *exit_code)
{
    arena *memory = &p->memory;
    const char *first = words.count ? words.item[0] : o->model.model ? o->model.model : o->models.count || o->model_dirs.count ? NULL : demo_model();
    to->models = word_list(&o->models, first, memory);
    to->model_folders = word_list(&o->model_dirs, NULL, memory);
    to->max_loaded = (int)o->max_models;
    to->max_model_bytes = (uint64_t)o->max_model_mb << 20;
    to->cors_origins = word_list(&o->cors, NULL, memory);
    to->media_paths = word_list(&o->media_paths, NULL, memory);
    to->http.host = o->host;
    to->http.port = (int)o->port;
    to->http.header_seconds = o->header_seconds;
    to->max_tokens = (int)o->max_tokens;
    to->max_choices = (int)o->max_choices;
    to->max_body = (size_t)o->max_body_mb << 20;
    to->engine.max_sequences = (int)o->max_num_seqs;
    to->engine.max_queue = (int)o->max_queue;
    to->engine.context = (int)o->max_kv_size;
    to->engine.prefill_chunk = (int)o->prefill_step_size;
    to->engine.kv_bytes = (uint64_t)o->kv_mb << 20;
    to->engine.vision_cache_bytes = (uint64_t)o->vision_cache_mb << 20;
    to->enable_thinking = o->thinking ? 1 : -1;
    to->allow_network = o->network || o->private_network;
    to->allow_private = o->private_network;
    to->request_seconds = o->timeout;
    to->log = o->quiet ? NULL : print_log;
    to->log_json = !strcmp(o->log_format, "json");
    bool one = words.count + (o->model.model != NULL) + o->models.count + o->model_dirs.count <= 1 && !o->model_dirs.count;
    if ((o->model.adapters.count || o->model.chat_template) && !one) {
        *exit_code = usage_error("--adapter-path and --chat-template are for one model, not for several");
        return false;
    }
    if (!model_flags_options(&o->model, &to->load, &p->keep, &p->source, exit_code)) return false;
    if (!o->tls_cert != !o->tls_key) {
        *exit_code = usage_error("--tls-cert and --tls-key go together");
        return false;
    }
    return key_list(o, memory, &to->api_keys, exit_code) && read_pem(o->tls_cert, memory, &to->http.tls_cert, exit_code) &&
           read_pem(o->tls_key, memory, &to->http.tls_key, exit_code);
}

/* SIGINT and SIGTERM are taken by this thread alone; a second one does not wait for answers. */
static void wait_for_signal(sigset_t *set, int seconds)
{
    int number;
    if (seconds < 0) sigwait(set, &number);
    else sigtimedwait(set, NULL, &(struct timespec){.tv_sec = seconds});
}

static int run(const command *self, void *memory, texts words)
{
    options *o = memory;
    pointed strings = {0};
    server_options to = server_options_default();
    int exit_code = 0;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &set, NULL);                /* before threads are made, which inherit it */
    if (take(o, words, &strings, &to, &exit_code)) {
        vlm_error error = {0};
        server *s = server_start(&to, &error);
        progress_clear();
        if (!s) exit_code = report(&error);
        else {
            printf("vlm server listens on %s://%s:%d\n", to.http.tls_cert ? "https" : "http", to.http.host, server_port(s));
            fflush(stdout);
            if (!server_load(s, &error)) exit_code = report(&error);
            else wait_for_signal(&set, -1);
            pthread_sigmask(SIG_UNBLOCK, &set, NULL);
            signal(SIGINT, SIG_DFL);
            signal(SIGTERM, SIG_DFL);
            server_drain(s, (double)o->drain);
            server_stop(s);
        }
    }
    arena_free(&strings.memory);
    kept_free(&strings.keep);
    buf_free(&strings.source);
    return exit_code;
}

const command command_server = {
    "server", "serves models over HTTP: OpenAI's and Anthropic's APIs", "[options] [DIR]", options_table, sizeof(options), defaults, run,
    "Binds to this machine alone unless --host says otherwise. Requests are batched continuously; each takes its own sampling. After SIGTERM the\n"
    "server says that it is not ready, takes no new requests, and ends when those under way have ended.",
};
