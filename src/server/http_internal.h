/* http_internal.h - what http.c (the daemon), exchange.c (requests and replies) and http_watch.c (the eye on sleeping and slow
 * connections) share. Lock order: exchange.lock, then libmicrohttpd's own; http.lock is a leaf. */
#ifndef VLM_SERVER_HTTP_INTERNAL_H
#define VLM_SERVER_HTTP_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <microhttpd.h>

#include "server/http.h"
#include "server/jobs.h"

typedef struct header { struct header *next; char *name, *value; } header;

/* A connection, from accept to close: for the deadlines of its requests. */
typedef struct client {
    struct client *next, **at;       /* in http.links, under http.lock */
    int fd;
    double until;                  /* cut then; 0: no deadline now */
    bool cut;
    char peer[64];
} client;

typedef enum exchange_state { X_READING, X_SERVING, X_WHOLE, X_STREAM, X_ENDED } exchange_state;

struct exchange {
    atomic_int refs;               /* holders, and one for the socket's side */
    atomic_int holders;
    http *http;
    uint64_t number;
    char id[33], peer[64];
    exchange *next, **at;          /* in http.exchanges, under http.lock */
    client *client;                    /* socket thread, until completed */
    char *method, *path;
    header *headers;
    buf body;
    size_t body_limit, received;
    bool body_too_long, accepted;
    double started;
    void *user;
    void (*release)(void *user);
    job job;

    pthread_mutex_t lock;          /* guards what follows */
    pthread_cond_t calm;           /* gone_running has become false */
    exchange_state state;
    struct MHD_Connection *connection;     /* NULL once the library is done with it */
    bool suspended, gone, gone_running;
    pthread_t gone_thread;
    void (*on_gone)(void *user);
    void *on_gone_user;
    int status;
    char *type;
    header *reply_headers;
    buf out;                       /* bytes to send, from out_at on */
    size_t out_at;
};

struct http {
    http_options options;
    struct MHD_Daemon *daemon;
    jobs *jobs;
    int port, listener, epoll, wake[2];
    pthread_t watcher;
    bool watching;
    pthread_mutex_t lock;
    exchange *exchanges;
    client *links;
    uint64_t numbers;
    int connections;
    bool over;
};

double http_now(void);

/* exchange.c */
exchange *exchange_new(http *h, const char *method, const char *path);
/* Under http.lock: a reference, unless the exchange is being freed. */
bool exchange_try_ref(exchange *x);
header *header_add(header **list, const char *name, const char *value);
void exchange_unref_socket(exchange *x);
/* The client has left: marks it, wakes a sleeping connection, calls on_gone. */
void exchange_leave(exchange *x);
/* Lets the connection sleep until exchange_wake; x->lock is held. */
void exchange_sleep(exchange *x);
void exchange_wake(exchange *x);

/* http_watch.c */
bool watch_start(http *h, vlm_error *error);
void watch_stop(http *h);
/* Looks for the client's leaving from now on. */
void watch_exchange(http *h, exchange *x);

#endif
