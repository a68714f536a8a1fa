/* vision_cache.c - see vision_cache.h. A chained hash table and a list of the unpinned READY entries, oldest first. */
#include "engine/vision_cache.h"

#include <pthread.h>
#include <string.h>

#include "base/err.h"

enum { BUCKETS = 1024 };

struct vision_entry {
    vision_cache *cache;
    digest key;
    vision_state state;
    int pins;
    media_input *input;
    media_rows rows;
    uint64_t bytes;
    vision_entry *next;                           /* in its bucket */
    vision_entry *older, *newer;                  /* in the list of unpinned ones */
    bool listed;
};

struct vision_cache {
    pthread_mutex_t lock;
    digest identity, salt;
    vision_entry *bucket[BUCKETS];
    vision_entry *oldest, *newest;
    vision_stats stats;
};

vision_cache *vision_cache_new(uint64_t budget, const digest *identity, const digest *salt, vlm_error *error)
{
    vision_cache *c = MEM_NEW(vision_cache);
    if (!c) return err_memory(error, sizeof *c), NULL;
    pthread_mutex_init(&c->lock, NULL);
    c->identity = *identity;
    c->salt = *salt;
    c->stats.budget = budget;
    return c;
}

static vision_entry **slot_of(vision_cache *c, const digest *key)
{
    uint32_t index;
    memcpy(&index, key->byte, sizeof index);
    return &c->bucket[index % BUCKETS];
}

static void unlist(vision_cache *c, vision_entry *e)
{
    if (!e->listed) return;
    *(e->older ? &e->older->newer : &c->oldest) = e->newer;
    *(e->newer ? &e->newer->older : &c->newest) = e->older;
    e->older = e->newer = NULL;
    e->listed = false;
}

static void list_newest(vision_cache *c, vision_entry *e)
{
    e->older = c->newest;
    *(c->newest ? &c->newest->newer : &c->oldest) = e;
    c->newest = e;
    e->listed = true;
}

static void destroy(vision_cache *c, vision_entry *e)
{
    unlist(c, e);
    for (vision_entry **p = slot_of(c, &e->key); *p; p = &(*p)->next)
        if (*p == e) { *p = e->next; break; }
    c->stats.bytes -= e->bytes;
    c->stats.entries--;
    media_input_free(e->input);
    mem_free(e->rows.data);
    mem_free(e);
}

static void shrink(vision_cache *c, uint64_t budget)
{
    while (c->oldest && c->stats.bytes > budget) {
        destroy(c, c->oldest);
        c->stats.evictions++;
    }
}

void vision_cache_free(vision_cache *c)
{
    if (!c) return;
    for (int i = 0; i < BUCKETS; i++)
        while (c->bucket[i]) destroy(c, c->bucket[i]);
    pthread_mutex_destroy(&c->lock);
    mem_free(c);
}

static bool make_key(const vision_cache *c, const digest *media_key, const digest *adapters, const char *tenant, digest *out)
{
    hasher h = hash_start();
    hash_text(&h, "rows");
    hash_part(&h, &c->salt, sizeof c->salt);
    hash_part(&h, &c->identity, sizeof c->identity);
    hash_part(&h, adapters, sizeof *adapters);
    hash_text(&h, tenant ? tenant : "");
    hash_part(&h, media_key, sizeof *media_key);
    return hash_finish(&h, out);
}

static vision_entry *find(vision_cache *c, const digest *key)
{
    vision_entry *e = *slot_of(c, key);
    while (e && !digest_equal(&e->key, key)) e = e->next;
    return e;
}

static void pin(vision_cache *c, vision_entry *e)
{
    unlist(c, e);
    e->pins++;
}

media_input *vision_find(vision_cache *c, const digest *media_key, const digest *adapters, const char *tenant, vision_entry **entry)
{
    digest key;
    media_input *in = NULL;
    *entry = NULL;
    if (!make_key(c, media_key, adapters, tenant, &key)) return NULL;
    pthread_mutex_lock(&c->lock);
    vision_entry *e = find(c, &key);
    if (e && e->state == VISION_READY) {
        pin(c, e);
        *entry = e;
        in = media_input_share(e->input);
        c->stats.hits++;
    }
    pthread_mutex_unlock(&c->lock);
    return in;
}

vision_entry *vision_claim(vision_cache *c, media_input *in, const digest *adapters, const char *tenant)
{
    digest key;
    if (!make_key(c, &in->key, adapters, tenant, &key)) return NULL;
    pthread_mutex_lock(&c->lock);
    vision_entry *e = find(c, &key);
    if (e) {
        if (e->state != VISION_FAILED) c->stats.hits++;
    } else if ((e = MEM_NEW(vision_entry))) {
        e->cache = c;
        e->key = key;
        e->next = *slot_of(c, &key);
        *slot_of(c, &key) = e;
        c->stats.entries++;
        c->stats.misses++;
    }
    if (e) pin(c, e);
    pthread_mutex_unlock(&c->lock);
    return e;
}

vision_state vision_get_state(vision_entry *e)
{
    pthread_mutex_lock(&e->cache->lock);
    vision_state state = e->state;
    pthread_mutex_unlock(&e->cache->lock);
    return state;
}

void vision_begin(vision_entry *e, media_input *in)
{
    pthread_mutex_lock(&e->cache->lock);
    media_input_free(e->input);
    e->input = media_input_share(in);
    e->state = VISION_PENDING;
    e->pins++;                                    /* the encoding's own */
    pthread_mutex_unlock(&e->cache->lock);
}

media_input *vision_input(vision_entry *e) { return e->input; }
const media_rows *vision_rows(const vision_entry *e) { return &e->rows; }

bool vision_wanted(vision_entry *e)
{
    pthread_mutex_lock(&e->cache->lock);
    bool wanted = e->pins > 1;
    pthread_mutex_unlock(&e->cache->lock);
    return wanted;
}

static void unpin(vision_cache *c, vision_entry *e)
{
    if (--e->pins > 0) return;
    if (e->state != VISION_READY) destroy(c, e);
    else {
        list_newest(c, e);
        shrink(c, c->stats.budget);
    }
}

void vision_ready(vision_entry *e, media_rows rows)
{
    vision_cache *c = e->cache;
    pthread_mutex_lock(&c->lock);
    media_input_drop(e->input);
    e->rows = rows;
    e->bytes = (uint64_t)rows.levels * (uint64_t)rows.count * (uint64_t)rows.cols * sizeof(float) + e->input->memory.used + sizeof *e;
    c->stats.bytes += e->bytes;
    e->state = VISION_READY;
    shrink(c, c->stats.budget);
    unpin(c, e);
    pthread_mutex_unlock(&c->lock);
}

void vision_fail(vision_entry *e)
{
    vision_cache *c = e->cache;
    pthread_mutex_lock(&c->lock);
    e->state = VISION_FAILED;
    unpin(c, e);
    pthread_mutex_unlock(&c->lock);
}

void vision_release(vision_entry *e)
{
    if (!e) return;
    vision_cache *c = e->cache;
    pthread_mutex_lock(&c->lock);
    unpin(c, e);
    pthread_mutex_unlock(&c->lock);
}

void vision_drop_unused(vision_cache *c)
{
    pthread_mutex_lock(&c->lock);
    while (c->oldest) destroy(c, c->oldest);
    pthread_mutex_unlock(&c->lock);
}

vision_stats vision_get_stats(vision_cache *c)
{
    pthread_mutex_lock(&c->lock);
    vision_stats stats = c->stats;
    pthread_mutex_unlock(&c->lock);
    return stats;
}
