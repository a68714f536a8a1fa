/* prefix.c - see prefix.h. */
#include "engine/prefix.h"

bool prefix_root(const digest *salt, const digest *identity, const digest *adapters, const char *tenant, digest *out)
{
    hasher h = hash_start();
    hash_text(&h, "prefix");
    hash_part(&h, salt, sizeof *salt);
    hash_part(&h, identity, sizeof *identity);
    hash_part(&h, adapters, sizeof *adapters);
    hash_u64(&h, KV_PAGE_TOKENS);
    hash_text(&h, tenant ? tenant : "");
    return hash_finish(&h, out);
}

bool prefix_root_memory(const prompt *p, digest *root)
{
    const memory_plan *plan = &p->memory;
    if (!plan->rows) return true;
    hasher h = hash_start();
    hash_text(&h, "memory");
    hash_part(&h, root, sizeof *root);
    for (int i = 0; i < plan->n_parts; i++) {
        hash_u64(&h, (uint64_t)plan->parts[i].row);
        hash_u64(&h, (uint64_t)plan->parts[i].count);
        hash_part(&h, &p->media[plan->parts[i].media]->key, sizeof(digest));
    }
    return hash_finish(&h, root);
}

bool prefix_memory_key(const digest *root, int index, digest *out)
{
    hasher h = hash_start();
    hash_text(&h, "memory page");
    hash_part(&h, root, sizeof *root);
    hash_u64(&h, (uint64_t)index);
    return hash_finish(&h, out);
}

/* Index of the first span that ends after `position`. */
static int span_after(const prompt *p, int position)
{
    int low = 0, high = p->n_spans;
    while (low < high) {
        int middle = (low + high) / 2;
        if (p->spans[middle].first + p->spans[middle].count > position) high = middle;
        else low = middle + 1;
    }
    return low;
}

bool prefix_key(const prompt *p, const int32_t *tokens, int index, const digest *parent, digest *out)
{
    int first = index * KV_PAGE_TOKENS, end = first + KV_PAGE_TOKENS, low = first, high = end;
    if (p->see_to && first < (int)p->ids.count) low = p->see_from[first];
    if (p->see_to && end <= (int)p->ids.count) high = p->see_to[p->see_from[end - 1]];
    hasher h = hash_start();
    hash_part(&h, parent, sizeof *parent);
    hash_part(&h, tokens + first, KV_PAGE_TOKENS * sizeof *tokens);
    if (low < first || high > end) {                     /* the block's other tokens are seen, too */
        hash_u64(&h, (uint64_t)(high - low));
        hash_part(&h, tokens + low, (size_t)(high - low) * sizeof *tokens);
    }
    for (int s = span_after(p, low); s < p->n_spans && p->spans[s].first < high; s++) {
        const media_span *span = &p->spans[s];
        hash_u64(&h, (uint64_t)(int64_t)(span->first - first));
        hash_u64(&h, (uint64_t)span->count);
        hash_u64(&h, (uint64_t)span->row);
        hash_part(&h, &p->media[span->media]->key, sizeof(digest));
    }
    return hash_finish(&h, out);
}

static bool inside_block(const prompt *p, int position)
{
    return p->see_from && position < (int)p->ids.count && p->see_from[position] < position;
}

/* The highest block below b that group g lacks though a query at b * KV_PAGE_TOKENS needs it; -1: none. */
static int missing(const pages *pg, int g, const digest *keys, int b)
{
    int needed = table_needed(&pg->shape[g], b * KV_PAGE_TOKENS);
    for (int i = b - 1; i >= needed; i--)
        if (!pages_find(pg, g, &keys[i])) return i;
    return -1;
}

int prefix_match(const pages *pg, const prompt *p, const digest *keys, int n_keys)
{
    if (!pg->keep) return 0;
    int b = 0;
    for (; b < n_keys; b++) {                     /* what the full groups have */
        bool all = true;
        for (int g = 0; all && g < pg->n_groups; g++) all = pg->shape[g].window || pages_find(pg, g, &keys[b]);
        if (!all) break;
    }
    for (; b > 0; b--) {
        if (inside_block(p, b * KV_PAGE_TOKENS)) continue;
        if (pg->bytes[STATE_GROUP] && !pages_find(pg, STATE_GROUP, &keys[b - 1])) continue;
        int gap = -1;
        for (int g = 0; gap < 0 && g < pg->n_groups; g++)
            if (pg->shape[g].window) gap = missing(pg, g, keys, b);
        if (gap < 0) return b;
        b = gap + 1;                              /* no prefix that needs that block: the next candidate is b = gap */
    }
    return 0;
}
