/* pages.c - see pages.h. */
#include "engine/pages.h"

#include <string.h>

#include "base/err.h"

bool pages_init(pages *p, const kv_shape *groups, int n_groups, size_t state_bytes, uint64_t budget, bool keep, vlm_error *error)
{
    *p = (pages){.n_groups = n_groups, .keep = keep, .n_buckets = 1024};
    for (int g = 0; g < n_groups; g++) {
        p->shape[g] = groups[g];
        p->bytes[g] = kv_page_bytes(&groups[g]);
    }
    p->bytes[STATE_GROUP] = state_bytes;
    p->stats.budget = budget;
    p->bucket = MEM_ARRAY(p->n_buckets, page *);
    return p->bucket ? true : err_memory(error, p->n_buckets * sizeof *p->bucket);
}

/* ---- the table of keyed pages ---- */

static page **slot_of(const pages *p, int group, const digest *key)
{
    uint64_t index;
    memcpy(&index, key->byte, sizeof index);
    return &p->bucket[(index + (uint64_t)group) % p->n_buckets];
}

page *pages_find(const pages *p, int group, const digest *key)
{
    page *pg = *slot_of(p, group, key);
    while (pg && (pg->group != group || !digest_equal(&pg->key, key))) pg = pg->next;
    return pg;
}

static void grow_table(pages *p)
{
    size_t n = 4 * p->n_buckets;
    page **old = p->bucket, **bucket = MEM_ARRAY(n, page *);
    size_t old_n = p->n_buckets;
    if (!bucket) return;                          /* longer chains, nothing worse */
    p->bucket = bucket;
    p->n_buckets = n;
    for (size_t i = 0; i < old_n; i++)
        for (page *pg = old[i], *next; pg; pg = next) {
            next = pg->next;
            page **slot = slot_of(p, pg->group, &pg->key);
            pg->next = *slot;
            *slot = pg;
        }
    mem_free(old);
}

static void unkey(pages *p, page *pg)
{
    if (!pg->keyed) return;
    for (page **slot = slot_of(p, pg->group, &pg->key); *slot; slot = &(*slot)->next)
        if (*slot == pg) { *slot = pg->next; break; }
    pg->keyed = false;
    p->n_keyed--;
}

/* ---- the list of cached pages that nobody uses ---- */

static void unlist(pages *p, page *pg)
{
    if (!pg->listed) return;
    *(pg->older ? &pg->older->newer : &p->oldest) = pg->newer;
    *(pg->newer ? &pg->newer->older : &p->newest) = pg->older;
    pg->older = pg->newer = NULL;
    pg->listed = false;
    p->stats.cached -= p->bytes[pg->group];
}

static void list_newest(pages *p, page *pg)
{
    pg->older = p->newest;
    *(p->newest ? &p->newest->newer : &p->oldest) = pg;
    p->newest = pg;
    pg->listed = true;
    p->stats.cached += p->bytes[pg->group];
}

static void release(pages *p, page *pg)
{
    unlist(p, pg);
    unkey(p, pg);
    p->stats.used -= p->bytes[pg->group];
    mem_free(pg->data);
    mem_free(pg);
}

void pages_forget(pages *p)
{
    while (p->oldest) release(p, p->oldest);
}

void pages_free(pages *p)
{
    if (!p->bucket) return;
    pages_forget(p);
    mem_free(p->bucket);
    *p = (pages){0};
}

/* ---- pages ---- */

page *pages_take(pages *p, int group)
{
    size_t bytes = p->bytes[group];
    p->no_memory = false;
    while (p->stats.used + bytes > p->stats.budget && p->oldest) {
        page *old = p->oldest;
        p->stats.evicted++;
        if (old->group != group) { release(p, old); continue; }
        unlist(p, old);                           /* same size: its memory is taken over */
        unkey(p, old);
        old->refs = 1;
        p->stats.taken++;
        return old;
    }
    if (p->stats.used + bytes > p->stats.budget) return NULL;
    page *pg = MEM_NEW(page);
    if (!pg || !(pg->data = mem_aligned(bytes))) {
        mem_free(pg);
        p->no_memory = true;
        return NULL;
    }
    memset(pg->data, 0, bytes);                   /* kernels may load a whole page and mask; what they load has to be finite */
    pg->group = group;
    pg->refs = 1;
    p->stats.used += bytes;
    p->stats.taken++;
    return pg;
}

page *pages_hold(page *pg)
{
    pg->refs++;
    return pg;
}

page *pages_use(pages *p, page *found)
{
    unlist(p, found);
    return pages_hold(found);
}

void pages_drop(pages *p, page *pg)
{
    if (!pg || --pg->refs > 0) return;
    if (pg->keyed && p->keep) list_newest(p, pg);
    else release(p, pg);
}

page *pages_publish(pages *p, page *pg, const digest *key)
{
    page *twin = pages_find(p, pg->group, key);
    if (twin == pg) return pg;
    if (twin) {
        pages_use(p, twin);
        pages_drop(p, pg);
        p->stats.merged++;
        return twin;
    }
    if (p->n_keyed > 2 * p->n_buckets) grow_table(p);
    page **slot = slot_of(p, pg->group, key);
    pg->key = *key;
    pg->keyed = true;
    pg->next = *slot;
    *slot = pg;
    p->n_keyed++;
    p->stats.published++;
    return pg;
}

uint64_t pages_room(const pages *p) { return p->stats.budget - p->stats.used + p->stats.cached; }

/* ---- tables ---- */

bool table_push(page_table *t, page *pg)
{
    if (t->count == t->capacity) {
        int capacity = t->capacity ? 2 * t->capacity : 16;
        page **list = mem_resize(t->page, (size_t)capacity, sizeof *list);
        if (list) t->page = list;
        void **data = list ? mem_resize(t->data, (size_t)capacity, sizeof *data) : NULL;
        if (!data) return false;
        t->data = data;
        t->capacity = capacity;
    }
    t->page[t->count] = pg;
    t->data[t->count] = pg ? pg->data : NULL;
    t->count++;
    return true;
}

void table_set(page_table *t, int index, page *pg)
{
    t->page[index] = pg;
    t->data[index] = pg ? pg->data : NULL;
}

void table_trim(page_table *t, pages *p, int first)
{
    if (first > t->count) first = t->count;
    for (; t->first < first; t->first++) {
        pages_drop(p, t->page[t->first]);
        table_set(t, t->first, NULL);
    }
}

void table_clear(page_table *t, pages *p)
{
    for (int i = t->count - 1; i >= t->first; i--) pages_drop(p, t->page[i]);
    t->first = t->count = 0;
}

void table_free(page_table *t, pages *p)
{
    table_clear(t, p);
    mem_free(t->page);
    mem_free(t->data);
    *t = (page_table){0};
}

int table_needed(const kv_shape *shape, int position)
{
    if (!shape->window || position < shape->window) return 0;
    return (position - shape->window + 1) / KV_PAGE_TOKENS;
}
