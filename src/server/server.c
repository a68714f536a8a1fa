/* server.c - see server.h: start, drain, stop. */
#include "server/server_internal.h"

#include <string.h>
#include <time.h>

#include "base/err.h"

enum { RESPONSES = 1024, RESPONSE_BYTES = 256 << 20 };         /* kept for follow-ups */

server_options server_options_default(void)
{
    return (server_options){
        .http = {.host = "127.0.0.1", .port = 8080, .threads = 1, .max_connections = 16384, .header_seconds = 20, .idle_seconds = 75, .body_seconds = 60},
        .load = vlm_load_options_default(), .engine = vlm_engine_options_default(), .max_body = (size_t)256 << 20, .max_tokens = 2048, .max_choices = 16,
        .enable_thinking = -1,
    };
}

static bool take_keys(server *s, vlm_error *error)
{
    const char *const *keys = s->options.api_keys;
    int n = 0;
    while (keys && keys[n]) n++;
    if (!n) return true;
    if (!(s->keys = MEM_ARRAY((size_t)n, digest))) return err_memory(error, (size_t)n * sizeof(digest));
    for (; s->n_keys < n; s->n_keys++)
        if (!hash_bytes(keys[s->n_keys], strlen(keys[s->n_keys]), &s->keys[s->n_keys])) return err_memory(error, 0);
    return true;
}

/* "name=path"; without a name, the path's last part is it. */
static char *model_name(const char *word, const char **path)
{
    const char *equals = strchr(word, '=');
    *path = equals ? equals + 1 : word;
    if (equals) return mem_strndup(word, (size_t)(equals - word));
    size_t end = strlen(word);
    while (end > 1 && word[end - 1] == '/') end--;
    size_t begin = end;
    while (begin > 0 && word[begin - 1] != '/') begin--;
    return mem_strndup(word + begin, end - begin);
}

static bool list_models(server *s, vlm_error *error)
{
    bool ok = true;
    for (const char *const *word = s->options.models; ok && word && *word; word++) {
        const char *path;
        char *name = model_name(*word, &path);
        ok = name ? residents_list_model(s->residents, name, path, error) : err_memory(error, 0);
        mem_free(name);
    }
    for (const char *const *dir = s->options.model_folders; ok && dir && *dir; dir++) ok = residents_list_folder(s->residents, *dir, error);
    return ok;
}

bool server_load(server *s, vlm_error *error)
{
    bool ok = true;
    for (const char *const *word = s->options.models; ok && word && *word; word++) {
        const char *path;
        char *name = model_name(*word, &path);
        ok = name ? residents_load(s->residents, name, error) : err_memory(error, 0);
        mem_free(name);
    }
    return ok;
}

/* Once a second, every call hears that time has passed. */
static void *tick(void *user)
{
    server *s = user;
    pthread_mutex_lock(&s->lock);
    while (!s->stop) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec++;
        pthread_cond_timedwait(&s->stopping, &s->lock, &until);
        for (call *c = s->calls; c; c = c->next) call_tick(c);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static bool start_ticker(server *s, vlm_error *error)
{
    int failed = pthread_create(&s->ticker, NULL, tick, s);
    s->ticking = !failed;
    return !failed || err_set(error, VLM_IO, "a thread of the server cannot be started: %s", strerror(failed));
}

server *server_start(const server_options *options, vlm_error *error)
{
    server *s = MEM_NEW(server);
    if (!s) return err_memory(error, sizeof *s), NULL;
    s->options = *options;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->stopping, NULL);
    bool ok = take_keys(s, error) && (s->jobs = jobs_new(4, error)) && (s->responses = response_store_new(RESPONSES, RESPONSE_BYTES, error)) &&
              (s->residents = residents_new(&(residents_options){options->load, options->engine, options->max_loaded, options->max_model_bytes}, error)) &&
              start_ticker(s, error);
    ok = ok && list_models(s, error);
    if (ok) {
        s->options.http.accept = router_accept;
        s->options.http.serve = router_serve;
        s->options.http.user = s;
        ok = (s->http = http_start(&s->options.http, error)) != NULL;
    }
    if (ok) return s;
    server_stop(s);
    return NULL;
}

int server_port(const server *s) { return http_port(s->http); }

static int calls_left(server *s)
{
    pthread_mutex_lock(&s->lock);
    int n = s->n_calls;
    pthread_mutex_unlock(&s->lock);
    return n;
}

static void wait_for_calls(server *s, double seconds)
{
    for (double waited = 0; calls_left(s) && waited < seconds; waited += 0.02) nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
}

bool server_cancel(server *s, const char *tenant, const char *id)
{
    pthread_mutex_lock(&s->lock);
    call *c = s->calls;
    while (c && (strcmp(c->id, id) || strcmp(c->tenant, tenant))) c = c->next;
    if (c) call_cancel(c);
    pthread_mutex_unlock(&s->lock);
    return c != NULL;
}

void server_drain(server *s, double seconds)
{
    atomic_store(&s->draining, true);
    wait_for_calls(s, seconds);
}

void server_stop(server *s)
{
    if (!s) return;
    atomic_store(&s->draining, true);
    if (s->http) http_cut(s->http);                        /* calls that are left end now */
    if (s->jobs) wait_for_calls(s, 1e9);
    if (s->ticking) {
        pthread_mutex_lock(&s->lock);
        s->stop = true;
        pthread_cond_signal(&s->stopping);
        pthread_mutex_unlock(&s->lock);
        pthread_join(s->ticker, NULL);
    }
    http_stop(s->http);
    jobs_free(s->jobs);
    residents_free(s->residents);
    response_store_free(s->responses);
    mem_free(s->keys);
    pthread_cond_destroy(&s->stopping);
    pthread_mutex_destroy(&s->lock);
    mem_free(s);
}
