/* http.c - see http.h: libmicrohttpd's daemon and its callbacks. */
#define _GNU_SOURCE
#include "server/http_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"

enum { CONNECTION_BYTES = 24 << 10, BACKLOG = 1024, BODY_RATE = 16 << 10, DRAIN_BYTES = 64 << 20 };

double http_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- connections ---- */

static void deadline(http *h, client *l, double seconds)
{
    if (!l) return;
    pthread_mutex_lock(&h->lock);
    l->until = seconds > 0 ? http_now() + seconds : 0;
    pthread_mutex_unlock(&h->lock);
}

static void on_connection(void *user, struct MHD_Connection *connection, void **socket_user, enum MHD_ConnectionNotificationCode what)
{
    http *h = user;
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        client *l = MEM_NEW(client);
        const union MHD_ConnectionInfo *fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
        const union MHD_ConnectionInfo *address = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
        if (!l || !fd) { mem_free(l); return; }            /* served without deadlines */
        l->fd = fd->connect_fd;
        if (address && getnameinfo(address->client_addr, address->client_addr->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in),
                                   l->peer, sizeof l->peer, NULL, 0, NI_NUMERICHOST))
            *l->peer = 0;
        pthread_mutex_lock(&h->lock);
        l->until = http_now() + h->options.header_seconds;
        l->next = h->links;
        l->at = &h->links;
        if (l->next) l->next->at = &l->next;
        h->links = l;
        h->connections++;
        pthread_mutex_unlock(&h->lock);
        *socket_user = l;
    } else if (*socket_user) {
        client *l = *socket_user;
        pthread_mutex_lock(&h->lock);
        *l->at = l->next;
        if (l->next) l->next->at = l->at;
        h->connections--;
        pthread_mutex_unlock(&h->lock);
        mem_free(l);
        *socket_user = NULL;
    }
}

/* ---- a request ---- */

static enum MHD_Result keep_header(void *user, enum MHD_ValueKind kind, const char *name, const char *value)
{
    exchange *x = user;
    return name && header_add(&x->headers, name, value) ? MHD_YES : MHD_NO;
}

/* Sends what is there; lets the connection sleep while there is nothing. */
static ssize_t send_some(void *user, uint64_t position, char *to, size_t most)
{
    exchange *x = user;
    pthread_mutex_lock(&x->lock);
    size_t n = x->out.size - x->out_at;
    ssize_t result = 0;
    if (x->gone) result = MHD_CONTENT_READER_END_WITH_ERROR;
    else if (n) {
        if (n > most) n = most;
        memcpy(to, x->out.data + x->out_at, n);
        x->out_at += n;
        result = (ssize_t)n;
        if (x->out_at > 1 << 16 && x->out_at * 2 > x->out.size) {
            memmove(x->out.data, x->out.data + x->out_at, x->out.size - x->out_at);
            x->out.size -= x->out_at;
            x->out_at = 0;
        }
    } else if (x->state == X_ENDED) result = MHD_CONTENT_READER_END_OF_STREAM;
    else exchange_sleep(x);
    pthread_mutex_unlock(&x->lock);
    return result;
}

static enum MHD_Result queue_reply(exchange *x, struct MHD_Connection *connection)
{
    pthread_mutex_lock(&x->lock);
    bool whole = x->state == X_WHOLE;
    struct MHD_Response *response = NULL;
    if (whole) response = MHD_create_response_from_buffer(x->out.size, x->out.data ? x->out.data : "", MHD_RESPMEM_PERSISTENT);
    else if (x->type) response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16 << 10, send_some, x, NULL);
    if (response && x->type) MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, x->type);
    for (header *h = response ? x->reply_headers : NULL; h; h = h->next) MHD_add_response_header(response, h->name, h->value);
    int status = x->status;
    pthread_mutex_unlock(&x->lock);
    if (!response) return MHD_NO;
    deadline(x->http, x->client, 0);
    enum MHD_Result queued = MHD_queue_response(connection, (unsigned)status, response);
    MHD_destroy_response(response);                        /* the connection has its own reference */
    return queued;
}

static void serve_job(void *user)
{
    exchange *x = user;
    x->http->options.serve(x->http->options.user, x);
    exchange_unref(x);
}

void exchange_serve_again(exchange *x)
{
    x->job = (job){.run = serve_job, .user = x};
    jobs_push(x->http->jobs, &x->job);
}

static void hand_over(exchange *x, struct MHD_Connection *connection)
{
    deadline(x->http, x->client, 0);
    exchange_ref(x);                                       /* the job's */
    pthread_mutex_lock(&x->lock);
    x->state = X_SERVING;
    exchange_sleep(x);
    pthread_mutex_unlock(&x->lock);
    if (x->client) watch_exchange(x->http, x);
    exchange_serve_again(x);
}

static exchange *first_look(http *h, struct MHD_Connection *connection, const char *path, const char *method)
{
    exchange *x = exchange_new(h, method, path);
    if (!x) return NULL;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    x->client = info ? info->socket_context : NULL;
    if (x->client) memcpy(x->peer, x->client->peer, sizeof x->peer);
    x->connection = connection;
    x->started = http_now();
    MHD_get_connection_values(connection, MHD_HEADER_KIND, keep_header, x);
    return x;
}

static void take_body(exchange *x, const char *data, size_t size)
{
    x->received += size;
    if (x->body_too_long || x->status) return;
    if (x->body.size + size > x->body_limit || !buf_add(&x->body, data, size)) {
        x->body_too_long = true;
        buf_free(&x->body);
    }
    deadline(x->http, x->client, x->http->options.body_seconds - (http_now() - x->started) + (double)x->received / BODY_RATE);
}

/* A client that is answered before it has sent its body, and then cut off, sees a broken connection in place of the answer. So a refused body is read
 * and thrown away, unless it is very long, or the client has said that it waits for a word. */
static bool worth_draining(const exchange *x)
{
    const char *length = exchange_header(x, "Content-Length");
    if (exchange_header(x, "Expect")) return false;
    return exchange_header(x, "Transfer-Encoding") || (length && strtoull(length, NULL, 10) <= DRAIN_BYTES);
}

/* libmicrohttpd calls this for the head, for each piece of the body, at its end, and again when a sleeping connection is woken. */
static enum MHD_Result on_request(void *user, struct MHD_Connection *connection, const char *path, const char *method, const char *version,
                                  const char *data, size_t *size, void **connection_user)
{
    http *h = user;
    exchange *x = *connection_user;
    if (!x) {
        if (!(x = *connection_user = first_look(h, connection, path, method))) return MHD_NO;
        h->options.accept(h->options.user, x, &x->body_limit);
        if (x->status && !worth_draining(x)) return queue_reply(x, connection);
        deadline(h, x->client, h->options.body_seconds);
        return MHD_YES;
    }
    if (*size) {
        take_body(x, data, *size);
        *size = 0;
        return x->received > x->body_limit + DRAIN_BYTES ? MHD_NO : MHD_YES;
    }
    pthread_mutex_lock(&x->lock);
    exchange_state state = x->state;
    bool gone = x->gone;
    pthread_mutex_unlock(&x->lock);
    if (gone) return MHD_NO;
    if (state == X_READING) { hand_over(x, connection); return MHD_YES; }
    if (state == X_SERVING) {                              /* woken for nothing */
        pthread_mutex_lock(&x->lock);
        if (x->state == X_SERVING && !x->gone) exchange_sleep(x);
        pthread_mutex_unlock(&x->lock);
        return MHD_YES;
    }
    return queue_reply(x, connection);
}

static void on_completed(void *user, struct MHD_Connection *connection, void **connection_user, enum MHD_RequestTerminationCode why)
{
    http *h = user;
    exchange *x = *connection_user;
    if (!x) return;
    *connection_user = NULL;
    pthread_mutex_lock(&x->lock);
    x->connection = NULL;
    x->suspended = false;
    bool whole = why == MHD_REQUEST_TERMINATED_COMPLETED_OK;
    pthread_mutex_unlock(&x->lock);
    if (!whole) exchange_leave(x);
    deadline(h, x->client, h->options.idle_seconds);
    x->client = NULL;
    exchange_unref_socket(x);
}

/* ---- the daemon ---- */

static int listen_on(const http_options *o, int *port, vlm_error *error)
{
    char service[16];
    snprintf(service, sizeof service, "%d", o->port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *found = NULL;
    int failed = getaddrinfo(o->host && *o->host ? o->host : NULL, service, &hints, &found);
    if (failed) return err_set(error, VLM_INVALID, "'%s' is no address to listen on: %s", o->host, gai_strerror(failed)), -1;
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1;
    if (fd >= 0) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (fd < 0 || bind(fd, found->ai_addr, found->ai_addrlen) || listen(fd, BACKLOG)) {
        err_set(error, errno == EADDRINUSE ? VLM_BUSY : VLM_IO, "%s port %d cannot be listened on: %s", o->host ? o->host : "*", o->port, strerror(errno));
        if (fd >= 0) close(fd);
        fd = -1;
    } else {
        struct sockaddr_storage bound;
        socklen_t size = sizeof bound;
        if (!getsockname(fd, (struct sockaddr *)&bound, &size))
            *port = ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port : ((struct sockaddr_in *)&bound)->sin_port);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }
    freeaddrinfo(found);
    return fd;
}

static bool start_daemon(http *h, vlm_error *error)
{
    const http_options *o = &h->options;
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_TURBO;
    if (o->tls_cert) flags |= MHD_USE_TLS;
    struct MHD_OptionItem extra[8];
    int n = 0;
    if (o->threads > 1) extra[n++] = (struct MHD_OptionItem){MHD_OPTION_THREAD_POOL_SIZE, o->threads, NULL};
    if (o->tls_cert) {
        extra[n++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)(uintptr_t)o->tls_cert};
        extra[n++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)(uintptr_t)o->tls_key};
    }
    extra[n] = (struct MHD_OptionItem){MHD_OPTION_END, 0, NULL};
    h->daemon = MHD_start_daemon(flags, 0, NULL, NULL, on_request, h, MHD_OPTION_LISTEN_SOCKET, h->listener, MHD_OPTION_NOTIFY_COMPLETED, on_completed, h,
                                 MHD_OPTION_NOTIFY_CONNECTION, on_connection, h, MHD_OPTION_CONNECTION_LIMIT, (unsigned)o->max_connections,
                                 MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)(o->idle_seconds < 1 ? 1 : o->idle_seconds),
                                 MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES, MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1,
                                 MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_ARRAY, extra, MHD_OPTION_END);
    if (h->daemon) return true;
    return err_set(error, VLM_IO, "the HTTP server cannot be started%s", o->tls_cert ? " (is the certificate, with its key, in PEM?)" : "");
}

http *http_start(const http_options *options, vlm_error *error)
{
    http *h = MEM_NEW(http);
    if (!h) return err_memory(error, sizeof *h), NULL;
    h->options = *options;
    h->listener = h->epoll = h->wake[0] = h->wake[1] = -1;
    pthread_mutex_init(&h->lock, NULL);
    if ((h->jobs = jobs_new(4, error)) && (h->listener = listen_on(options, &h->port, error)) >= 0 && watch_start(h, error) && start_daemon(h, error)) return h;
    http_stop(h);
    return NULL;
}

int http_port(const http *h) { return h->port; }

void http_quiesce(http *h)
{
    MHD_socket fd = MHD_quiesce_daemon(h->daemon);
    if (fd != MHD_INVALID_SOCKET) close(fd);
    h->listener = -1;
}

int http_connections(http *h)
{
    pthread_mutex_lock(&h->lock);
    int n = h->connections;
    pthread_mutex_unlock(&h->lock);
    return n;
}

void http_cut(http *h)
{
    if (h->listener >= 0 && h->daemon) http_quiesce(h);
    for (;;) {
        pthread_mutex_lock(&h->lock);
        exchange *x = h->exchanges;
        while (x && (x->gone || !exchange_try_ref(x))) x = x->next;
        pthread_mutex_unlock(&h->lock);
        if (!x) return;
        exchange_leave(x);
        exchange_unref(x);
    }
}

/* The library must not be stopped with connections asleep: http_cut has woken them. */
void http_stop(http *h)
{
    if (!h) return;
    if (h->daemon) {
        http_cut(h);
        watch_stop(h);
        MHD_stop_daemon(h->daemon);
    } else {
        watch_stop(h);
        if (h->listener >= 0) close(h->listener);
    }
    jobs_free(h->jobs);
    pthread_mutex_destroy(&h->lock);
    mem_free(h);
}
