/* server_internal.h - what the server's files share: the server itself, and the table of routes. */
#ifndef VLM_SERVER_INTERNAL_H
#define VLM_SERVER_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/hash.h"
#include "server/attached.h"
#include "server/body.h"
#include "server/call.h"
#include "server/jobs.h"
#include "server/metrics.h"
#include "server/residents.h"
#include "server/responses.h"
#include "server/server.h"

struct server {
    server_options options;
    http *http;
    jobs *jobs;                    /* of calls */
    residents *residents;
    metrics metrics;
    response_store *responses;
    digest *keys;                  /* SHA-256 of each API key */
    int n_keys;
    pthread_mutex_t lock;
    call *calls;                   /* under lock */
    int n_calls;                   /* under lock */
    pthread_t ticker;
    pthread_cond_t stopping;
    bool ticking, stop;            /* stop: under lock */
    atomic_bool draining;
};

/* What a route needs to know besides the exchange. */
typedef struct route {
    const char *method, *path;     /* "{name}" stands for one part of a path */
    unsigned flags;
    void (*serve)(server *s, exchange *x, const char *argument);       /* argument: what stood for {name}, or NULL */
    const char *summary;           /* of the OpenAPI document */
} route;
enum { V1 = 1, BARE = 2, OPEN = 4 };        /* with /v1 before it; without; needs no key */

extern const route routes[];       /* ends with a zero row */

/* The fields of bodies, for reading them (body.h) and for the OpenAPI document. */
extern const field generation_fields[], chat_fields[], completion_fields[], text_route_fields[], detokenize_fields[], embedding_fields[], rerank_fields[], response_fields[];

/* router.c */
void router_accept(void *server, exchange *x, size_t *body_limit);
void router_serve(void *server, exchange *x);

/* What was taken out of its body. */
attached *exchange_attached(exchange *x);
/* A call answers it, now or later, and logs it. */
void exchange_called(exchange *x);
/* Whose caches and stored responses an exchange may use: its API key and its tenant header, hashed; "" when it has neither. */
const char *exchange_tenant(const exchange *x);

/* server.c: stops the tenant's call of that id. False: none is under way. */
bool server_cancel(server *s, const char *tenant, const char *id);

#define ROUTE(method, path, flags, handler, summary) void handler(server *s, exchange *x, const char *argument);
#include "server/routes.def"
#undef ROUTE

#endif
