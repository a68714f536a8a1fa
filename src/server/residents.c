/* residents.c - see residents.h. */
#include "server/residents.h"

#include <dirent.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/err.h"
#include "base/file.h"

enum { RETRY_SECONDS = 5 };

typedef struct waiter { struct waiter *next; exchange *x; const resident *r; } waiter;

struct residents {
    pthread_mutex_t lock;
    pthread_cond_t work, settled;          /* for the loader; for residents_load */
    resident *first;               /* the default one */
    waiter *waiters;
    residents_options options;
    pthread_t loader;
    bool has_loader, over;
};

static double now(void) { return (double)time(NULL); }

/* ---- the list ---- */

static resident *find(const residents *all, const char *name)
{
    resident *r = all->first;
    while (name && *name && r && strcmp(r->name, name)) r = r->next;
    return r;
}

static uint64_t weight_bytes(const char *dir)
{
    uint64_t sum = 0;
    DIR *d = opendir(dir);
    for (struct dirent *entry; d && (entry = readdir(d));) {
        size_t n = strlen(entry->d_name);
        if (n < 12 || strcmp(entry->d_name + n - 12, ".safetensors")) continue;
        char *path = path_join(dir, entry->d_name);
        struct stat st;
        if (path && !stat(path, &st)) sum += (uint64_t)st.st_size;
        mem_free(path);
    }
    if (d) closedir(d);
    return sum;
}

bool residents_list_model(residents *all, const char *name, const char *path, vlm_error *error)
{
    pthread_mutex_lock(&all->lock);
    bool known = all->first && *name && find(all, name);
    pthread_mutex_unlock(&all->lock);
    if (known) return true;
    resident *r = MEM_NEW(resident);
    if (!r || !(r->name = mem_strdup(name)) || !(r->path = mem_strdup(path))) {
        if (r) mem_free(r->name);
        mem_free(r);
        return err_memory(error, sizeof *r);
    }
    r->owner = all;
    r->created = now();
    r->bytes = weight_bytes(path);
    pthread_mutex_lock(&all->lock);
    resident **end = &all->first;
    while (*end) end = &(*end)->next;
    *end = r;
    pthread_mutex_unlock(&all->lock);
    return true;
}

/* depth: how many levels below may still hold models. */
static bool list_below(residents *all, const char *dir, const char *prefix, int depth, vlm_error *error)
{
    DIR *d = opendir(dir);
    bool ok = true;
    if (!d) return err_set(error, VLM_NOT_FOUND, "%s: no folder that can be read", dir);
    for (struct dirent *entry; ok && (entry = readdir(d));) {
        if (entry->d_name[0] == '.') continue;
        char *path = path_join(dir, entry->d_name), *config = path ? path_join(path, "config.json") : NULL;
        char *name = mem_printf("%s%s%s", prefix, *prefix ? "/" : "", entry->d_name);
        if (!config || !name) ok = err_memory(error, 64);
        else if (file_exists(config)) ok = residents_list_model(all, name, path, error);
        else if (depth > 0 && file_is_directory(path)) ok = list_below(all, path, name, depth - 1, error);
        mem_free(name);
        mem_free(config);
        mem_free(path);
    }
    closedir(d);
    return ok;
}

bool residents_list_folder(residents *all, const char *dir, vlm_error *error) { return list_below(all, dir, "", 1, error); }

/* ---- loading and unloading: the loader's thread ---- */

/* Requests that were put aside for r (NULL: all) are served again. */
static void release_waiters(residents *all, const resident *r)
{
    pthread_mutex_lock(&all->lock);
    waiter *free_now = NULL;
    for (waiter **at = &all->waiters; *at;) {
        waiter *w = *at;
        if (r && w->r != r) { at = &w->next; continue; }
        *at = w->next;
        w->next = free_now;
        free_now = w;
    }
    pthread_mutex_unlock(&all->lock);
    for (waiter *next; free_now; free_now = next) {
        next = free_now->next;
        exchange_serve_again(free_now->x);
        mem_free(free_now);
    }
}

static void load(residents *all, resident *r)
{
    vlm_error error = {0};
    vlm_model *model = vlm_load(r->path, &all->options.load, &error);
    vlm_engine *engine = model ? vlm_engine_new(model, &all->options.engine, &error) : NULL;
    if (model && !engine) vlm_model_free(model);
    pthread_mutex_lock(&all->lock);
    r->state = engine ? RESIDENT_READY : RESIDENT_FAILED;
    r->model = engine ? model : NULL;
    r->engine = engine;
    r->error = error;
    r->used = now();
    if (!engine) r->failed = now();
    pthread_cond_broadcast(&all->settled);
    pthread_mutex_unlock(&all->lock);
    release_waiters(all, r);
}

/* The lock is held, and given up meanwhile. */
static void unload(residents *all, resident *r)
{
    vlm_engine *engine = r->engine;
    vlm_model *model = r->model;
    r->state = RESIDENT_LISTED;
    r->unwanted = false;
    r->engine = NULL;
    r->model = NULL;
    pthread_mutex_unlock(&all->lock);
    vlm_engine_free(engine);
    vlm_model_free(model);
    pthread_mutex_lock(&all->lock);
}

/* Is there room for r beside what is loaded? If not: *victim is the idle one that was used longest ago (NULL: all are in use). */
static bool has_room(const residents *all, const resident *r, resident **victim)
{
    int count = 0;
    uint64_t bytes = r->bytes;
    *victim = NULL;
    for (resident *other = all->first; other; other = other->next) {
        if (other->state != RESIDENT_READY) continue;
        count++;
        bytes += other->bytes;
        if (other->refs == 0 && (!*victim || other->used < (*victim)->used)) *victim = other;
    }
    bool fits = (!all->options.max_loaded || count < all->options.max_loaded) && (!all->options.max_bytes || bytes <= all->options.max_bytes);
    return fits || count == 0;
}

/* The lock is held. What the loader has to do next: load *r, unload *r, or neither (then it waits). */
static bool next_work(const residents *all, resident **which, bool *loading)
{
    for (resident *r = all->first; r; r = r->next)
        if (r->unwanted && r->state == RESIDENT_READY && r->refs == 0) return *which = r, *loading = false, true;
    for (resident *r = all->first; r; r = r->next) {
        if (!r->wanted) continue;
        resident *victim;
        if (has_room(all, r, &victim)) return *which = r, *loading = true, true;
        if (victim) return *which = victim, *loading = false, true;
    }
    return false;
}

static void *loader_main(void *user)
{
    residents *all = user;
    pthread_mutex_lock(&all->lock);
    while (!all->over) {
        resident *r;
        bool loading;
        if (!next_work(all, &r, &loading)) pthread_cond_wait(&all->work, &all->lock);
        else if (!loading) unload(all, r);
        else {
            r->wanted = false;
            pthread_mutex_unlock(&all->lock);
            load(all, r);
            pthread_mutex_lock(&all->lock);
        }
    }
    pthread_mutex_unlock(&all->lock);
    return NULL;
}

residents *residents_new(const residents_options *options, vlm_error *error)
{
    residents *all = MEM_NEW(residents);
    if (!all) return err_memory(error, sizeof *all), NULL;
    pthread_mutex_init(&all->lock, NULL);
    pthread_cond_init(&all->work, NULL);
    pthread_cond_init(&all->settled, NULL);
    all->options = *options;
    int failed = pthread_create(&all->loader, NULL, loader_main, all);
    if (failed) {
        err_set(error, VLM_IO, "a thread of the server cannot be started: %s", strerror(failed));
        residents_free(all);
        return NULL;
    }
    all->has_loader = true;
    return all;
}

void residents_free(residents *all)
{
    if (!all) return;
    pthread_mutex_lock(&all->lock);
    all->over = true;
    pthread_cond_signal(&all->work);
    pthread_mutex_unlock(&all->lock);
    if (all->has_loader) pthread_join(all->loader, NULL);
    for (resident *r = all->first, *next; r; r = next) {
        next = r->next;
        vlm_engine_free(r->engine);
        vlm_model_free(r->model);
        mem_free(r->name);
        mem_free(r->path);
        mem_free(r);
    }
    pthread_cond_destroy(&all->work);
    pthread_cond_destroy(&all->settled);
    pthread_mutex_destroy(&all->lock);
    mem_free(all);
}

/* The lock is held. */
static void want(residents *all, resident *r)
{
    r->state = RESIDENT_LOADING;
    r->wanted = true;
    r->unwanted = false;
    pthread_cond_signal(&all->work);
}

bool residents_load(residents *all, const char *name, vlm_error *error)
{
    pthread_mutex_lock(&all->lock);
    resident *r = find(all, name);
    if (r->state == RESIDENT_LISTED) want(all, r);
    while (r->state == RESIDENT_LOADING && !all->over) pthread_cond_wait(&all->settled, &all->lock);
    bool ok = r->state == RESIDENT_READY;
    if (!ok && error) *error = r->error;
    pthread_mutex_unlock(&all->lock);
    return ok;
}

/* ---- borrowing ---- */

static resident *refuse_state(const resident *r, const char *name, refusal *why)
{
    if (!r) {
        refuse(why, 404, "model", "The model '%.200s' is not served here; GET /v1/models lists those that are.", name ? name : "");
        why->code = "model_not_found";
    } else {
        refuse(why, 503, "model", "The model '%.200s' could not be loaded: %s", r->name, r->error.message);
        why->retry_after = RETRY_SECONDS;
    }
    return NULL;
}

resident *residents_borrow(residents *all, const char *name, exchange *x, refusal *why)
{
    waiter *w = MEM_NEW(waiter);
    pthread_mutex_lock(&all->lock);
    resident *r = find(all, name), *result = NULL;
    if (r && (r->state == RESIDENT_LISTED || (r->state == RESIDENT_FAILED && now() - r->failed > RETRY_SECONDS))) want(all, r);
    if (!r || r->state == RESIDENT_FAILED) refuse_state(r, name, why);
    else if (r->state == RESIDENT_READY) {
        r->refs++;
        r->used = now();
        result = r;
    } else if (!w) refuse_memory(why);
    else {
        *why = (refusal){0};                               /* put aside */
        exchange_ref(x);
        *w = (waiter){all->waiters, x, r};
        all->waiters = w;
        w = NULL;
    }
    pthread_mutex_unlock(&all->lock);
    mem_free(w);
    return result;
}

void residents_return(resident *r)
{
    if (!r) return;
    residents *all = r->owner;
    pthread_mutex_lock(&all->lock);
    if (--r->refs == 0) pthread_cond_signal(&all->work);   /* somebody may want its place */
    pthread_mutex_unlock(&all->lock);
}

int residents_unload(residents *all, json_t *names)
{
    int count = 0;
    pthread_mutex_lock(&all->lock);
    for (resident *r = all->first; r; r = r->next) {
        if (r->state != RESIDENT_READY) continue;
        r->unwanted = true;
        json_array_append_new(names, json_string(r->name));
        count++;
    }
    pthread_cond_signal(&all->work);
    pthread_mutex_unlock(&all->lock);
    return count;
}

/* ---- looking ---- */

bool residents_ready(residents *all)
{
    pthread_mutex_lock(&all->lock);
    bool ready = all->first != NULL;
    for (resident *r = all->first; r; r = r->next) ready = ready && r->state != RESIDENT_LOADING;
    pthread_mutex_unlock(&all->lock);
    return ready;
}

json_t *residents_json(residents *all, const char *name)
{
    json_t *list = json_array();
    pthread_mutex_lock(&all->lock);
    for (resident *r = all->first; r; r = r->next)
        if (!name || !strcmp(r->name, name))
            json_array_append_new(list, json_pack("{s:s, s:s, s:I, s:s, s:b, s:n}", "id", r->name, "object", "model", "created", (json_int_t)r->created, "owned_by",
                                                  "vlm", "loaded", r->state == RESIDENT_READY, "parent"));
    pthread_mutex_unlock(&all->lock);
    return list;
}

void residents_each(residents *all, void (*fn)(void *user, resident *r), void *user)
{
    pthread_mutex_lock(&all->lock);
    for (resident *r = all->first; r; r = r->next)
        if (r->state == RESIDENT_READY) fn(user, r);
    pthread_mutex_unlock(&all->lock);
}
