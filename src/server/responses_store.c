/* responses_store.c - see responses.h: a list, newest first, bounded in number and bytes. */
#include "server/responses.h"

#include <pthread.h>
#include <string.h>

#include "base/err.h"

typedef struct entry {
    struct entry *next;
    char *tenant, *id;
    json_t *response, *input, *messages;
    size_t bytes;
} entry;

struct response_store {
    pthread_mutex_t lock;
    entry *first;
    size_t max_count, max_bytes;
};

response_store *response_store_new(size_t max_count, size_t max_bytes, vlm_error *error)
{
    response_store *s = MEM_NEW(response_store);
    if (!s) return err_memory(error, sizeof *s), NULL;
    pthread_mutex_init(&s->lock, NULL);
    s->max_count = max_count;
    s->max_bytes = max_bytes;
    return s;
}

static void entry_free(entry *e)
{
    json_decref(e->response);
    json_decref(e->input);
    json_decref(e->messages);
    mem_free(e->tenant);
    mem_free(e->id);
    mem_free(e);
}

void response_store_free(response_store *s)
{
    if (!s) return;
    for (entry *e = s->first, *next; e; e = next) {
        next = e->next;
        entry_free(e);
    }
    pthread_mutex_destroy(&s->lock);
    mem_free(s);
}

static size_t text_bytes(const json_t *value)
{
    size_t sum = 64, i;
    const char *key;
    const json_t *item;
    if (json_is_string(value)) return sum + json_string_length(value);
    json_array_foreach(value, i, item) sum += text_bytes(item);
    json_t *object = (json_t *)(uintptr_t)value;
    json_t *member;
    json_object_foreach(object, key, member) sum += strlen(key) + text_bytes(member);
    return sum;
}

/* Under the lock: the link to the tenant's entry of that id, or to the end. */
static entry **find(response_store *s, const char *tenant, const char *id)
{
    entry **at = &s->first;
    while (*at && (strcmp((*at)->id, id) || strcmp((*at)->tenant, tenant))) at = &(*at)->next;
    return at;
}

static void drop(entry **at)
{
    entry *e = *at;
    *at = e->next;
    entry_free(e);
}

void response_store_put(response_store *s, const char *tenant, const char *id, json_t *response, json_t *input, json_t *messages)
{
    entry *e = MEM_NEW(entry);
    if (!e) return;
    e->tenant = mem_strdup(tenant);
    e->id = mem_strdup(id);
    e->response = json_incref(response);
    e->input = json_incref(input);
    e->messages = json_incref(messages);
    if (!e->tenant || !e->id) { entry_free(e); return; }
    e->bytes = text_bytes(response) + text_bytes(input) + text_bytes(messages);
    pthread_mutex_lock(&s->lock);
    entry **old = find(s, tenant, id);
    if (*old) drop(old);
    e->next = s->first;
    s->first = e;
    size_t count = 0, bytes = 0;
    for (entry **at = &s->first; *at;) {
        count++;
        bytes += (*at)->bytes;
        if (count > 1 && (count > s->max_count || bytes > s->max_bytes)) drop(at);
        else at = &(*at)->next;
    }
    pthread_mutex_unlock(&s->lock);
}

bool response_store_get(response_store *s, const char *tenant, const char *id, json_t **response, json_t **input, json_t **messages)
{
    pthread_mutex_lock(&s->lock);
    entry *e = *find(s, tenant, id);
    if (e && response) *response = json_incref(e->response);
    if (e && input) *input = json_incref(e->input);
    if (e && messages) *messages = json_incref(e->messages);
    pthread_mutex_unlock(&s->lock);
    return e != NULL;
}

bool response_store_delete(response_store *s, const char *tenant, const char *id)
{
    pthread_mutex_lock(&s->lock);
    entry **at = find(s, tenant, id);
    bool found = *at != NULL;
    if (found) drop(at);
    pthread_mutex_unlock(&s->lock);
    return found;
}
