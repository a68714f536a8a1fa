/* residents.c - see residents.h. */
#include "server/residents.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

#include "base/err.h"

struct residents {
    pthread_mutex_t lock;
    resident *first;               /* the default one */
    vlm_load_options load;
    vlm_engine_options engine;
};

residents *residents_new(const vlm_load_options *load, const vlm_engine_options *engine, vlm_error *error)
{
    residents *all = MEM_NEW(residents);
    if (!all) return err_memory(error, sizeof *all), NULL;
    pthread_mutex_init(&all->lock, NULL);
    all->load = *load;
    all->engine = *engine;
    return all;
}

static void resident_free(resident *r)
{
    vlm_engine_free(r->engine);
    vlm_model_free(r->model);
    mem_free(r->name);
    mem_free(r->path);
    mem_free(r);
}

void residents_free(residents *all)
{
    if (!all) return;
    for (resident *r = all->first, *next; r; r = next) {
        next = r->next;
        resident_free(r);
    }
    pthread_mutex_destroy(&all->lock);
    mem_free(all);
}

bool residents_add(residents *all, const char *name, const char *path, vlm_error *error)
{
    resident *r = MEM_NEW(resident);
    if (r) {
        r->name = mem_strdup(name);
        r->path = mem_strdup(path);
    }
    if (!r || !r->name || !r->path) {
        if (r) resident_free(r);
        return err_memory(error, sizeof *r);
    }
    r->owner = all;
    r->created = (double)time(NULL);
    pthread_mutex_lock(&all->lock);
    resident **end = &all->first;
    while (*end) end = &(*end)->next;
    *end = r;
    pthread_mutex_unlock(&all->lock);

    r->model = vlm_load(path, &all->load, &r->error);
    if (r->model) r->engine = vlm_engine_new(r->model, &all->engine, &r->error);
    pthread_mutex_lock(&all->lock);
    r->state = r->engine ? RESIDENT_READY : RESIDENT_FAILED;
    pthread_mutex_unlock(&all->lock);
    if (!r->engine && error) *error = r->error;
    return r->engine != NULL;
}

resident *residents_borrow(residents *all, const char *name, refusal *why)
{
    pthread_mutex_lock(&all->lock);
    resident *r = all->first;
    while (name && *name && r && strcmp(r->name, name) && strcmp(r->path, name)) r = r->next;
    resident_state state = r ? r->state : RESIDENT_FAILED;
    if (r && state == RESIDENT_READY) {
        r->refs++;
        r->used = (double)time(NULL);
    }
    pthread_mutex_unlock(&all->lock);
    if (r && state == RESIDENT_READY) return r;
    if (!r) {
        refuse(why, 404, "model", "The model '%.200s' is not served here; GET /v1/models lists those that are.", name ? name : "");
        why->code = "model_not_found";
    } else if (state == RESIDENT_LOADING) {
        refuse(why, 503, "model", "The model '%.200s' is being loaded.", r->name);
        why->retry_after = 2;
    } else refuse(why, 500, "model", "The model '%.200s' could not be loaded: %s", r->name, r->error.message);
    return NULL;
}

void residents_return(resident *r)
{
    if (!r) return;
    pthread_mutex_lock(&r->owner->lock);
    r->refs--;
    pthread_mutex_unlock(&r->owner->lock);
}

bool residents_ready(residents *all)
{
    pthread_mutex_lock(&all->lock);
    bool ready = all->first != NULL;
    for (resident *r = all->first; r; r = r->next) ready = ready && r->state == RESIDENT_READY;
    pthread_mutex_unlock(&all->lock);
    return ready;
}

json_t *residents_list(residents *all, const char *name)
{
    json_t *list = json_array();
    pthread_mutex_lock(&all->lock);
    for (resident *r = all->first; r; r = r->next)
        if (!name || !strcmp(r->name, name))
            json_array_append_new(list, json_pack("{s:s, s:s, s:I, s:s, s:b}", "id", r->name, "object", "model", "created", (json_int_t)r->created,
                                                  "owned_by", "vlm", "loaded", r->state == RESIDENT_READY));
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
