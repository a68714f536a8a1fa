/* router.c - which route an exchange belongs to, and who may use it. The key is looked at before anything else is. */
#include "server/server_internal.h"

#include <string.h>
#include <openssl/crypto.h>

#include "server/log.h"

const route routes[] = {
#define ROUTE(method, path, flags, handler, summary) {method, path, flags, handler, summary},
#include "server/routes.def"
#undef ROUTE
    {0},
};

enum { MAX_ARGUMENT = 256, TENANT_BYTES = 40 };

/* What is known of an exchange once its head was read. */
typedef struct visit { const route *route; char argument[MAX_ARGUMENT], tenant[TENANT_BYTES]; attached attached; bool called; } visit;

static void visit_free(void *user)
{
    visit *v = user;
    attached_free(&v->attached);
    mem_free(v);
}

/* Does the path fit the pattern? What stands for {name} is copied to argument. */
static bool fits(const char *pattern, const char *path, char argument[MAX_ARGUMENT])
{
    *argument = 0;
    while (*pattern) {
        if (*pattern == '{') {
            /* A model's name may hold slashes; what follows the argument in the pattern is found from the end. */
            const char *rest = strchr(pattern, '}') + 1;
            size_t left = strlen(path), tail = strlen(rest);
            if (left <= tail || left - tail >= MAX_ARGUMENT || strcmp(path + left - tail, rest)) return false;
            memcpy(argument, path, left - tail);
            argument[left - tail] = 0;
            return !strncmp(pattern, "{model}", 7) || !strchr(argument, '/');
        }
        if (*pattern++ != *path++) return false;
    }
    return !*path;
}

/* The first pattern that fits decides what the path is. *other: it is known with another method. */
static const route *find(const char *method, const char *path, char argument[MAX_ARGUMENT], bool *other)
{
    bool v1 = !strncmp(path, "/v1/", 4);
    const char *pattern = NULL;
    *other = false;
    for (const route *r = routes; r->path; r++) {
        if (!(r->flags & (v1 ? V1 : BARE)) || (pattern ? strcmp(pattern, r->path) != 0 : !fits(r->path, v1 ? path + 3 : path, argument))) continue;
        pattern = r->path;
        if (!strcmp(r->method, method) || (!strcmp(r->method, "GET") && !strcmp(method, "HEAD"))) return r;
        *other = true;
    }
    return NULL;
}

static bool anthropic(const exchange *x)
{
    const char *path = exchange_path(x);
    if (!strncmp(path, "/v1/", 4)) path += 3;
    return !strcmp(path, "/messages") || !strncmp(path, "/messages/", 10) || exchange_header(x, "anthropic-version") != NULL;
}

/* ---- who ---- */

static bool key_known(const server *s, const char *key)
{
    digest d;
    int known = 0;
    if (!hash_bytes(key, strlen(key), &d)) return false;
    for (int i = 0; i < s->n_keys; i++) known |= CRYPTO_memcmp(d.byte, s->keys[i].byte, sizeof d.byte) == 0;
    return known;
}

static const char *key_of(const exchange *x)
{
    const char *bearer = exchange_header(x, "Authorization");
    return bearer && !strncmp(bearer, "Bearer ", 7) ? bearer + 7 : exchange_header(x, "x-api-key");
}

static bool allowed(const server *s, const exchange *x)
{
    if (!s->n_keys) return true;
    const char *key = key_of(x);
    return key && key_known(s, key);
}

static void add_cors(const server *s, exchange *x)
{
    const char *origin = exchange_header(x, "Origin");
    const char *const *list = s->options.cors_origins;
    if (!origin || !list) return;
    for (; *list; list++) {
        if (strcmp(*list, "*") && strcmp(*list, origin)) continue;
        exchange_add_header(x, "Access-Control-Allow-Origin", strcmp(*list, "*") ? origin : "*");
        exchange_add_header(x, "Vary", "Origin");
        exchange_add_header(x, "Access-Control-Allow-Methods", "GET, POST, DELETE, OPTIONS");
        exchange_add_header(x, "Access-Control-Allow-Headers", "Authorization, Content-Type, x-api-key, anthropic-version, X-Tenant-Id");
        return;
    }
}

static bool remember(const server *s, exchange *x, const route *r, const char *argument)
{
    visit *v = MEM_NEW(visit);
    if (!v) return false;
    v->route = r;
    snprintf(v->argument, sizeof v->argument, "%s", argument);
    exchange_set_user(x, v, visit_free);
    const char *key = s->n_keys ? key_of(x) : NULL, *header = exchange_header(x, "X-APC-Tenant");
    if (!header) header = exchange_header(x, "X-Tenant-Id");
    if (!key && !header) return true;
    hasher h = hash_start();
    digest d;
    char hex[65];
    hash_text(&h, key ? key : "");
    hash_text(&h, header ? header : "");
    if (!hash_finish(&h, &d)) return false;
    digest_hex(&d, hex);
    memcpy(v->tenant, hex, TENANT_BYTES - 1);
    return true;
}

const char *exchange_tenant(const exchange *x)
{
    const visit *v = exchange_user(x);
    return v ? v->tenant : "";
}

attached *exchange_attached(exchange *x) { return &((visit *)exchange_user(x))->attached; }

void exchange_called(exchange *x) { ((visit *)exchange_user(x))->called = true; }

/* Which methods the path takes. */
static void add_allow(exchange *x)
{
    static const char *const methods[] = {"GET", "HEAD", "POST", "DELETE", NULL};
    char list[64] = "", argument[MAX_ARGUMENT];
    bool other;
    for (int i = 0; methods[i]; i++)
        if (find(methods[i], exchange_path(x), argument, &other)) snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", *list ? ", " : "", methods[i]);
    exchange_add_header(x, "Allow", list);
}

/* ---- the two hooks of http.h ---- */

static void refuse_now(server *s, exchange *x, refusal *why)
{
    metrics_refused(&s->metrics);
    refusal_send(x, why, anthropic(x) ? ANTHROPIC : OPENAI);
    log_exchange(s, x);
}

void router_accept(void *user, exchange *x, size_t *body_limit)
{
    server *s = user;
    refusal why;
    char argument[MAX_ARGUMENT];
    bool other;
    char name[32];
    snprintf(name, sizeof name, "vlm/%s", vlm_version());
    exchange_add_header(x, "Server", name);
    exchange_add_header(x, "x-request-id", exchange_id(x));
    exchange_add_header(x, "X-Content-Type-Options", "nosniff");
    if (anthropic(x)) exchange_add_header(x, "request-id", exchange_id(x));
    add_cors(s, x);
    *body_limit = s->options.max_body;
    const char *method = exchange_method(x), *length = exchange_header(x, "Content-Length");
    const route *r = find(method, exchange_path(x), argument, &other);
    if (!strcmp(method, "OPTIONS") && (r || other) && s->options.cors_origins && s->options.cors_origins[0]) {
        exchange_reply(x, 204, NULL, NULL, 0);
        return;
    }
    if (!(r && (r->flags & OPEN)) && !allowed(s, x)) {
        refuse(&why, 401, NULL, "The API key is missing or not known here.");
        refuse_now(s, x, &why);
    } else if (!r) {
        if (other) add_allow(x);
        refuse(&why, other ? 405 : 404, NULL, other ? "%s is not answered at %.200s." : "There is nothing at %s %.200s.", method, exchange_path(x));
        refuse_now(s, x, &why);
    } else if (length && strtoull(length, NULL, 10) > s->options.max_body) {
        refuse(&why, 413, NULL, "The body has %.20s bytes; at most %zu are taken.", length, s->options.max_body);
        refuse_now(s, x, &why);
    } else if (!remember(s, x, r, argument)) {
        refuse_memory(&why);
        refuse_now(s, x, &why);
    }
}

void router_serve(void *user, exchange *x)
{
    server *s = user;
    const visit *v = exchange_user(x);
    const route *r = v->route;
    refusal why;
    if (exchange_body_too_long(x)) {
        refuse(&why, 413, NULL, "The body is too long; at most %zu bytes are taken.", s->options.max_body);
        refuse_now(s, x, &why);
        return;
    }
    if (atomic_load(&s->draining) && !(r->flags & OPEN)) {
        refuse(&why, 503, NULL, "The server is shutting down.");
        why.retry_after = 5;
        refuse_now(s, x, &why);
        return;
    }
    r->serve(s, x, *v->argument ? v->argument : NULL);
    int status = exchange_status(x);
    if (v->called || !status) return;                      /* a call, which logs itself; or put aside */
    if (status >= 400) metrics_refused(&s->metrics);
    log_exchange(s, x);
}
