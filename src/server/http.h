/* http.h - HTTP as the rest of the server sees it: an exchange is one request and its reply, whole or in pieces.
 *
 *   socket thread (libmicrohttpd)        job thread                         any thread
 *   headers complete ── accept() ──┐
 *   body, up to its limit          └──>  serve(x): reads, starts work ───>  exchange_reply, or exchange_stream,
 *   reply is sent as it is written <──────────────────────────────────────  exchange_write ..., exchange_end
 *   client leaves ─────────────────────────────────────────────────────────> gone(user): the work is cancelled
 *
 * While nobody has anything to send the connection sleeps and costs no thread. One thread watches what the library does not: clients that leave
 * while it sleeps, and requests that come too slowly (headers or body a byte at a time). */
#ifndef VLM_SERVER_HTTP_H
#define VLM_SERVER_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"
#include "vlm.h"

typedef struct http http;
typedef struct exchange exchange;

typedef struct http_options {
    const char *host;              /* address or name to listen on; a name counts when it resolves to one */
    int port;                      /* 0: any free one */
    int threads;                   /* that serve sockets */
    int max_connections;
    double header_seconds;         /* for the whole head of a request */
    double idle_seconds;           /* a kept connection without a request; a reply that the client does not read */
    double body_seconds;           /* for a body, and 1 s more for each 16 KiB that came */
    const char *tls_cert, *tls_key;        /* PEM texts, or NULL */
    /* The head is complete. Socket thread: quick, no waiting. Sets *body_limit; or replies at once (exchange_reply), which refuses the body. */
    void (*accept)(void *user, exchange *x, size_t *body_limit);
    /* The request is complete. Job thread. Holds a reference for the time of the call; to go on later, take one (exchange_ref). */
    void (*serve)(void *user, exchange *x);
    void *user;
} http_options;

http *http_start(const http_options *options, vlm_error *error);
int http_port(const http *h);
/* No new connections from now on; those that are open are served on. */
void http_quiesce(http *h);
int http_connections(http *h);
/* Treats every client as gone: what works for them is told to stop. */
void http_cut(http *h);
/* After http_cut, once nobody holds an exchange any more. */
void http_stop(http *h);

/* ---- what was asked; valid as long as the exchange. No header: NULL ---- */
const char *exchange_method(const exchange *x);
const char *exchange_path(const exchange *x);          /* decoded, without query */
const char *exchange_header(const exchange *x, const char *name);
const char *exchange_peer(const exchange *x);          /* the address it came from */
const char *exchange_body(const exchange *x, size_t *size);
bool exchange_body_too_long(const exchange *x);        /* it went over its limit, and is empty */
/* The body is not needed any more: gives its memory back. */
void exchange_drop_body(exchange *x);
const char *exchange_id(const exchange *x);            /* ours, 32 hexadecimal digits: what logs and errors name it by */
double exchange_started(const exchange *x);            /* monotonic seconds, when its head was complete */

/* Calls serve(x) again, on a job thread; takes a reference over. */
void exchange_serve_again(exchange *x);

void exchange_ref(exchange *x);
/* The last one gone without a reply: 500. */
void exchange_unref(exchange *x);

/* What a route leaves with the exchange: released with it. */
void exchange_set_user(exchange *x, void *user, void (*release)(void *user));
void *exchange_user(const exchange *x);

/* ---- the reply. Any thread ---- */
/* A header of the reply; before it begins. Control characters in the value are dropped. */
void exchange_add_header(exchange *x, const char *name, const char *value);
/* The whole reply. False: there is one already, or the client is gone. */
bool exchange_reply(exchange *x, int status, const char *type, const void *data, size_t size);
/* A reply in pieces: begin, write, end. */
bool exchange_stream(exchange *x, int status, const char *type);
bool exchange_write(exchange *x, const void *data, size_t size);
void exchange_end(exchange *x);
int exchange_status(exchange *x);                      /* of the reply; 0: none yet */
/* Has the client left before the reply's end? */
bool exchange_gone(exchange *x);
/* Calls gone(user) once when that happens, from any thread, at once when it has happened already. NULL takes it back: afterwards it is not called, and it is not running. */
void exchange_on_gone(exchange *x, void (*gone)(void *user), void *user);

#endif
