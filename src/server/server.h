/* server.h - `vlm server`: models, sockets and routes put together.
 *
 *   http.h   sockets, requests, replies        router.c   which route, who may, how large
 *   body.h   JSON read by tables               generation.c  fields that all generating routes share
 *   call.h   one answer in the making          chat.c ...    one file per API: its fields in, its form out
 *   residents.h  the models                    metrics.c     what Prometheus reads */
#ifndef VLM_SERVER_SERVER_H
#define VLM_SERVER_SERVER_H

#include "server/http.h"

typedef struct server server;

typedef struct server_options {
    http_options http;             /* accept, serve and user are the server's */
    const char *const *models;     /* "path" or "name=path", NULL-terminated; the first is the default; loaded at the start */
    const char *const *model_folders;      /* checkpoints below these are loaded when they are asked for; NULL-terminated */
    int max_loaded;                /* models at once; 0: any number */
    uint64_t max_model_bytes;      /* of weights at once; 0: any */
    vlm_load_options load;
    vlm_engine_options engine;
    const char *const *api_keys;   /* NULL-terminated; none: everybody may */
    const char *const *cors_origins;   /* NULL-terminated; "*": any; none: no CORS headers */
    size_t max_body;               /* bytes of a request */
    int max_tokens;                /* of an answer, when the request says nothing */
    int max_choices;               /* n */
    int enable_thinking;           /* -1: the template's own default */
    bool allow_network;            /* http(s) media */
    bool allow_private;            /* ... also from private addresses */
    const char *const *media_paths;    /* folders whose files may be read; NULL-terminated */
    double request_seconds;        /* 0: no limit */
    void (*log)(void *user, const char *line);     /* one line a request; NULL: none */
    void *log_user;
    bool log_json;
} server_options;

server_options server_options_default(void);
/* Listens; requests wait for their models. Options are used for as long as the server lives. NULL on failure. */
server *server_start(const server_options *options, vlm_error *error);
/* Loads the models that were named, one after the other. */
bool server_load(server *s, vlm_error *error);
int server_port(const server *s);
/* Not ready any more; new requests are refused (503), those under way end. Returns when they have, or after `seconds`. */
void server_drain(server *s, double seconds);
void server_stop(server *s);

#endif
