/* exchange.c - see http.h: one request and its reply. The socket thread sends what is in `out`; whoever writes wakes it. */
#include "server/http_internal.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

/* ---- headers ---- */

header *header_add(header **list, const char *name, const char *value)
{
    header *h = MEM_NEW(header);
    if (!h || !(h->name = mem_strdup(name)) || !(h->value = mem_strdup(value ? value : ""))) {
        if (h) mem_free(h->name);
        mem_free(h);
        return NULL;
    }
    while (*list) list = &(*list)->next;
    return *list = h;
}

static void headers_free(header *list)
{
    for (header *next; list; list = next) {
        next = list->next;
        mem_free(list->name);
        mem_free(list->value);
        mem_free(list);
    }
}

static const char *find(const header *list, const char *name)
{
    for (; list; list = list->next)
        if (!strcasecmp(list->name, name)) return list->value;
    return NULL;
}

/* ---- life ---- */

static void new_id(char id[33])
{
    uint8_t bytes[16] = {0};
    if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes) memset(bytes, 0, sizeof bytes);
    for (int i = 0; i < 16; i++) snprintf(id + 2 * i, 3, "%02x", bytes[i]);
}

exchange *exchange_new(http *h, const char *method, const char *path)
{
    exchange *x = MEM_NEW(exchange);
    if (!x) return NULL;
    pthread_mutex_init(&x->lock, NULL);
    pthread_cond_init(&x->calm, NULL);
    atomic_store(&x->refs, 1);
    x->http = h;
    new_id(x->id);
    x->method = mem_strdup(method);
    x->path = mem_strdup(path);
    pthread_mutex_lock(&h->lock);
    x->number = ++h->numbers;
    x->next = h->exchanges;
    x->at = &h->exchanges;
    if (x->next) x->next->at = &x->next;
    h->exchanges = x;
    pthread_mutex_unlock(&h->lock);
    if (x->method && x->path) return x;
    exchange_unref_socket(x);
    return NULL;
}

void exchange_ref(exchange *x)
{
    atomic_fetch_add(&x->refs, 1);
    atomic_fetch_add(&x->holders, 1);
}

bool exchange_try_ref(exchange *x)
{
    int refs = atomic_load(&x->refs);
    while (refs > 0 && !atomic_compare_exchange_weak(&x->refs, &refs, refs + 1)) { }
    if (refs > 0) atomic_fetch_add(&x->holders, 1);
    return refs > 0;
}

static void exchange_free(exchange *x)
{
    http *h = x->http;
    if (x->release) x->release(x->user);
    pthread_mutex_lock(&h->lock);
    *x->at = x->next;
    if (x->next) x->next->at = x->at;
    pthread_mutex_unlock(&h->lock);
    headers_free(x->headers);
    headers_free(x->reply_headers);
    buf_free(&x->body);
    buf_free(&x->out);
    mem_free(x->method);
    mem_free(x->path);
    mem_free(x->type);
    pthread_cond_destroy(&x->calm);
    pthread_mutex_destroy(&x->lock);
    mem_free(x);
}

/* The socket side's reference, until the library has sent the reply or lost the client. */
void exchange_unref_socket(exchange *x)
{
    if (atomic_fetch_sub(&x->refs, 1) == 1) exchange_free(x);
}

/* When the last one who could answer lets go and nobody has answered, nobody will. */
void exchange_unref(exchange *x)
{
    if (!x) return;
    if (atomic_fetch_sub(&x->holders, 1) == 1) {           /* x is still there: the reference below is ours */
        pthread_mutex_lock(&x->lock);
        bool forgotten = x->state == X_SERVING && x->connection, cut = x->state == X_STREAM && x->connection;
        pthread_mutex_unlock(&x->lock);
        static const char nothing[] = "{\"error\":{\"message\":\"The server has failed to answer.\",\"type\":\"server_error\",\"param\":null,\"code\":null}}";
        if (forgotten) exchange_reply(x, 500, "application/json", nothing, sizeof nothing - 1);
        else if (cut) exchange_end(x);
    }
    exchange_unref_socket(x);
}

void exchange_set_user(exchange *x, void *user, void (*release)(void *user)) { x->user = user; x->release = release; }
void *exchange_user(const exchange *x) { return x->user; }

/* ---- what was asked ---- */

const char *exchange_method(const exchange *x) { return x->method; }
const char *exchange_path(const exchange *x) { return x->path; }
const char *exchange_header(const exchange *x, const char *name) { return find(x->headers, name); }
const char *exchange_peer(const exchange *x) { return x->peer; }
const char *exchange_id(const exchange *x) { return x->id; }
double exchange_started(const exchange *x) { return x->started; }

const char *exchange_body(const exchange *x, size_t *size)
{
    *size = x->body.size;
    return x->body.data ? x->body.data : "";
}

bool exchange_body_too_long(const exchange *x) { return x->body_too_long; }
void exchange_drop_body(exchange *x) { buf_free(&x->body); }

/* ---- the reply ---- */

void exchange_sleep(exchange *x)
{
    if (x->suspended || !x->connection) return;
    x->suspended = true;
    MHD_suspend_connection(x->connection);
}

void exchange_wake(exchange *x)
{
    if (!x->suspended || !x->connection) return;
    x->suspended = false;
    MHD_resume_connection(x->connection);
}

void exchange_add_header(exchange *x, const char *name, const char *value)
{
    pthread_mutex_lock(&x->lock);
    header *h = x->status ? NULL : header_add(&x->reply_headers, name, value);
    if (h) {
        char *out = h->value;
        for (const char *p = h->value; *p; p++)
            if (!iscntrl((unsigned char)*p)) *out++ = *p;
        *out = 0;
    }
    pthread_mutex_unlock(&x->lock);
}

/* x->lock is held. False: too late. */
static bool begin(exchange *x, int status, const char *type)
{
    if (x->status || x->gone) return false;
    if (type && !(x->type = mem_strdup(type))) return false;
    x->status = status;
    return true;
}

bool exchange_reply(exchange *x, int status, const char *type, const void *data, size_t size)
{
    pthread_mutex_lock(&x->lock);
    bool ok = begin(x, status, type) && (!size || buf_add(&x->out, data, size));
    if (ok) x->state = X_WHOLE;
    else if (x->status && x->state == X_SERVING) x->state = X_ENDED;       /* out of memory: the connection is closed */
    exchange_wake(x);
    pthread_mutex_unlock(&x->lock);
    return ok;
}

bool exchange_stream(exchange *x, int status, const char *type)
{
    pthread_mutex_lock(&x->lock);
    bool ok = begin(x, status, type);
    if (ok) x->state = X_STREAM;
    exchange_wake(x);
    pthread_mutex_unlock(&x->lock);
    return ok;
}

bool exchange_write(exchange *x, const void *data, size_t size)
{
    pthread_mutex_lock(&x->lock);
    bool ok = x->state == X_STREAM && !x->gone;
    if (ok && x->out_at == x->out.size) { buf_clear(&x->out); x->out_at = 0; }
    ok = ok && buf_add(&x->out, data, size);
    exchange_wake(x);
    pthread_mutex_unlock(&x->lock);
    return ok;
}

void exchange_end(exchange *x)
{
    pthread_mutex_lock(&x->lock);
    if (x->state == X_STREAM) x->state = X_ENDED;
    exchange_wake(x);
    pthread_mutex_unlock(&x->lock);
}

int exchange_status(exchange *x)
{
    pthread_mutex_lock(&x->lock);
    int status = x->status;
    pthread_mutex_unlock(&x->lock);
    return status;
}

/* ---- clients that leave ---- */

bool exchange_gone(exchange *x)
{
    pthread_mutex_lock(&x->lock);
    bool gone = x->gone;
    pthread_mutex_unlock(&x->lock);
    return gone;
}

/* x->lock is held, and is given up for the call. */
static void call_gone(exchange *x)
{
    void (*fn)(void *) = x->on_gone;
    void *user = x->on_gone_user;
    if (!fn) return;
    x->on_gone = NULL;
    x->gone_running = true;
    x->gone_thread = pthread_self();
    pthread_mutex_unlock(&x->lock);
    fn(user);
    pthread_mutex_lock(&x->lock);
    x->gone_running = false;
    pthread_cond_broadcast(&x->calm);
}

void exchange_leave(exchange *x)
{
    pthread_mutex_lock(&x->lock);
    if (!x->gone) {
        x->gone = true;
        exchange_wake(x);
        call_gone(x);
    }
    pthread_mutex_unlock(&x->lock);
}

void exchange_on_gone(exchange *x, void (*gone)(void *user), void *user)
{
    pthread_mutex_lock(&x->lock);
    while (x->gone_running && !pthread_equal(x->gone_thread, pthread_self())) pthread_cond_wait(&x->calm, &x->lock);
    x->on_gone = gone;
    x->on_gone_user = user;
    if (x->gone) call_gone(x);
    pthread_mutex_unlock(&x->lock);
}
