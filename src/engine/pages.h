/* pages.h - the memory that keys, values and recurrent states live in: one byte budget, pages per layer group, and the cache of
 * finished pages (prefix.h says what their keys mean).
 *
 *   budget  [ in use by sequences | cached: full, keyed, nobody uses them (LRU) | never allocated yet ]
 *
 *   page of group g: KV_PAGE_TOKENS positions of all layers of the group; kv_page_bytes(group) bytes
 *   page of the state group (n_groups): one recurrent state, of the sequence after a certain number of tokens
 *   page of the memory group: KV_PAGE_TOKENS encoder rows, keys and values of all layers with cross-attention
 *
 *   life of a page      take ──> being filled by its one owner ──> publish: immutable, keyed, shared ──> last drop ──> LRU ──> evicted
 *                                        └── drop ──> freed at once
 *
 * A published page is never written again, so any number of sequences may hold it (refs). Publishing a key that is there already
 * gives that page back instead: two sequences that computed the same prefix at the same time end up with one copy.
 * All of this is touched by the engine thread alone; there is no lock. */
#ifndef VLM_ENGINE_PAGES_H
#define VLM_ENGINE_PAGES_H

#include "base/hash.h"
#include "tensor/ragged.h"

enum { STATE_GROUP = MAX_KV_GROUPS, MEMORY_GROUP, PAGE_GROUPS };

typedef struct page {
    void *data;
    int group, refs;
    bool keyed, listed;
    digest key;
    struct page *next;                            /* in its hash bucket, or in the free list */
    struct page *older, *newer;                   /* in the LRU list */
} page;

typedef struct pages_stats {
    uint64_t budget, used, cached;                /* bytes: allocated (with cached), cached */
    uint64_t taken, published, merged, evicted;   /* events */
} pages_stats;

typedef struct pages {
    int n_groups;
    kv_shape shape[MAX_KV_GROUPS];
    size_t bytes[PAGE_GROUPS];                    /* of one page; state group: state_bytes; memory group: set by the owner, 0: none */
    bool keep;                                    /* false: nothing is cached */
    bool no_memory;                               /* the last pages_take failed for want of memory, not of budget */
    page **bucket;
    size_t n_buckets, n_keyed;
    page *oldest, *newest;
    pages_stats stats;
} pages;

bool pages_init(pages *p, const kv_shape *groups, int n_groups, size_t state_bytes, uint64_t budget, bool keep, vlm_error *error);
void pages_free(pages *p);                        /* every page must have been dropped */

/* A page of the group with one reference; evicts what nobody uses. NULL: no room (or no memory). */
page *pages_take(pages *p, int group);
page *pages_hold(page *pg);                       /* one more reference of a page in use */
void pages_drop(pages *p, page *pg);              /* NULL is fine */
/* The cached page of that key, not yet referenced. */
page *pages_find(const pages *p, int group, const digest *key);
page *pages_use(pages *p, page *found);           /* references what pages_find gave */
/* The page is full and will not change. Returns the page to go on with: itself, or the one that had the key already. */
page *pages_publish(pages *p, page *pg, const digest *key);
/* Bytes that can still be taken: never allocated, and cached without users. */
uint64_t pages_room(const pages *p);
void pages_forget(pages *p);                      /* evicts all that nobody uses */

/* ---- the page table of one sequence in one group ---- */
typedef struct page_table {
    page **page;                                  /* [count], NULL where a window has moved on */
    void **data;                                  /* the same as addresses: what operations get */
    int first, count, capacity;                   /* pages [first, count) are held */
} page_table;

bool table_push(page_table *t, page *pg);         /* takes the reference; false: out of memory (reference stays with the caller) */
void table_set(page_table *t, int index, page *pg);
/* Gives back pages below `first` (a sliding window), or all of them, the last first: so the end of a prefix is evicted before its start. */
void table_trim(page_table *t, pages *p, int first);
void table_clear(page_table *t, pages *p);
void table_free(page_table *t, pages *p);
/* First page that a query at `position` or later looks at. */
int table_needed(const kv_shape *shape, int position);

#endif
