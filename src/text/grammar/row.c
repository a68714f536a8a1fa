/* row.c - what has been read so far, as numbers.
 *
 *   state   an expression that is left to be read of one rule, with its transitions on bytes
 *   frame   a stack: where reading goes on when the rule on top ends, as a set of (state, frame below); equal stacks are one frame
 *   row     all readings of the text so far: a set of (state, frame) that take a byte or a token next; equal rows are one row
 *
 * One step of a row: each item's state takes the byte; states that may end go back to their frames; rules that are called get one
 * frame each, in the order of ranks, so that all callers of a rule at this place share it. No rule is empty and none calls itself first,
 * so all of this ends. Rows keep their steps: what was read once is a table look-up.
 * Everything lives in a store that is thrown away as a whole: new matchers get a new one when it has grown too large. */
#include <string.h>

#include "text/grammar/internal.h"

static bool fail(gstore *s, const char *reason)
{
    if (!s->failed) s->reason = reason;
    s->failed = true;
    return false;
}

bool gstore_error(const gstore *s, vlm_error *error)
{
    const char *reason = s->failed ? s->reason : s->pool.reason;
    return reason ? err_set(error, VLM_LIMIT, "%s", reason) : err_memory(error, 0);
}

static bool charge(gstore *s, size_t bytes)
{
    s->bytes += bytes;
    return s->bytes <= s->g->limits.memory || fail(s, "the grammar needs too much memory");
}

void *gstore_alloc(gstore *s, size_t bytes)
{
    enum { CHUNK = 64 << 10 };
    bytes = (bytes + 7) & ~(size_t)7;
    if (bytes > s->chunk_left) {
        const size_t size = bytes > CHUNK / 4 ? bytes : CHUNK;
        if (s->chunk_count == s->chunk_capacity) {
            const size_t n = s->chunk_capacity ? 2 * s->chunk_capacity : 16;
            void **chunks = mem_resize(s->chunks, n, sizeof *chunks);
            if (!chunks) return fail(s, NULL), NULL;
            s->chunks = chunks;
            s->chunk_capacity = n;
        }
        char *chunk = charge(s, size) ? mem_new(size, 1) : NULL;
        if (!chunk) return fail(s, NULL), NULL;
        s->chunks[s->chunk_count++] = chunk;
        if (size != CHUNK) return chunk;
        s->chunk = chunk;
        s->chunk_left = size;
    }
    void *at = s->chunk;
    s->chunk += bytes;
    s->chunk_left -= bytes;
    return at;
}

/* A new zeroed element; its number, 0: failed. */
static uint32_t block_add(gstore *s, gblocks *b, size_t size)
{
    if (!(b->count & 255)) {
        if (b->blocks == b->size) {
            const size_t n = b->size ? 2 * b->size : 16;
            void **block = mem_resize(b->block, n, sizeof *block);
            if (!block) return fail(s, NULL);
            b->block = block;
            b->size = n;
        }
        void *fresh = charge(s, 256 * size) ? mem_new(256, size) : NULL;
        if (!fresh) return fail(s, NULL);
        b->block[b->blocks++] = fresh;
    }
    return (uint32_t)b->count++;
}

/* ---- states ---- */
static uint32_t state_for(gstore *s, uint32_t expr)
{
    if (!expr || s->pool.failed) return fail(s, s->pool.reason);
    if (expr == GE_NONE) return 0;
    if (expr >= s->state_of_size) {
        const size_t n = s->pool.capacity;
        uint32_t *more = mem_resize(s->state_of, n, sizeof *more);
        if (!more || !charge(s, (n - s->state_of_size) * (sizeof *more + sizeof *s->pool.node))) return fail(s, s->reason);
        memset(more + s->state_of_size, 0, (n - s->state_of_size) * sizeof *more);
        s->state_of = more;
        s->state_of_size = n;
    }
    if (s->state_of[expr]) return s->state_of[expr];
    const uint32_t i = block_add(s, &s->states, sizeof(gstate));
    if (!i) return 0;
    *gstate_at(s, i) = (gstate){.expr = expr, .nullable = gnullable(&s->pool, expr)};
    return s->state_of[expr] = i;
}

/* Transitions and calls. */
static bool state_open(gstore *s, gstate *t)
{
    uint32_t next[257];
    uint8_t map[256];
    gset left = {{~0ull, ~0ull, ~0ull, ~0ull}};
    unsigned classes = 1;
    memset(map, 0, sizeof map);
    for (unsigned byte = 0; byte < 256; byte++) {
        if (!gset_has(&left, byte)) continue;
        gset same = {{~0ull, ~0ull, ~0ull, ~0ull}};
        const uint32_t d = gx_derive(&s->pool, t->expr, (uint8_t)byte, &same);
        if (!d) return fail(s, s->pool.reason);
        for (int i = 0; i < 4; i++) left.bits[i] &= ~same.bits[i];
        if (d == GE_NONE) continue;
        const uint32_t to = state_for(s, d);
        if (!to) return false;
        unsigned k = 1;
        while (k < classes && next[k] != to) k++;
        if (k == 256) return fail(s, NULL);           /* 255 different ways and a dead one are the most there can be */
        next[k] = to;
        if (k == classes) classes++;
        for (unsigned c = byte; c < 256; c++) if (gset_has(&same, c)) map[c] = (uint8_t)k, gset_add(&t->live, c);
    }
    next[0] = 0;
    gx_calls(&s->pool, t->expr, &s->calls);
    if (s->pool.failed) return fail(s, s->pool.reason);
    const size_t calls = s->calls.count;
    t->map = gstore_alloc(s, 256);
    t->next = gstore_alloc(s, classes * sizeof *next);
    t->call = gstore_alloc(s, calls * sizeof *t->call + 1);
    if (!t->map || !t->next || !t->call) return false;
    memcpy(t->map, map, 256);
    memcpy(t->next, next, classes * sizeof *next);
    for (size_t i = 0; i < calls; i++) {
        gcall c = s->calls.item[i];
        if (c.kind == G_RULE && s->g->rule[c.what].body == GE_NONE) continue;
        c.then = state_for(s, c.then);
        if (s->failed) return false;
        if (!c.then) continue;
        t->call[t->calls++] = c;
    }
    return t->ready = true;
}

static const gstate *state_ready(gstore *s, uint32_t i)
{
    gstate *t = gstate_at(s, i);
    return t->ready || state_open(s, t) ? t : NULL;
}

/* ---- hash tables of frames and rows ---- */
static uint32_t hash_items(const gitem *item, size_t n, uint32_t seed)
{
    uint64_t h = 0x9E3779B97F4A7C15ull + seed;
    for (size_t i = 0; i < n; i++) {
        h ^= (uint64_t)item[i].state << 32 | item[i].frame;
        h *= 0xFF51AFD7ED558CCDull;
        h ^= h >> 32;
    }
    return (uint32_t)(h ^ h >> 29);
}

static int by_item(const void *a, const void *b)
{
    const gitem *x = a, *y = b;
    if (x->state != y->state) return x->state < y->state ? -1 : 1;
    return (x->frame > y->frame) - (x->frame < y->frame);
}

static size_t sort_items(gitem *item, size_t n)
{
    if (n < 2) return n;
    if (n <= 8) {
        for (size_t i = 1; i < n; i++) {
            const gitem x = item[i];
            size_t j = i;
            for (; j && by_item(&item[j - 1], &x) > 0; j--) item[j] = item[j - 1];
            item[j] = x;
        }
    } else qsort(item, n, sizeof *item, by_item);
    size_t kept = 1;
    for (size_t i = 1; i < n; i++) if (by_item(&item[i], &item[kept - 1])) item[kept++] = item[i];
    return kept;
}

static bool table_grow(gstore *s, uint32_t **table, size_t *size, const gblocks *b, bool rows)
{
    const size_t n = *size ? *size * 2 : 256;
    uint32_t *fresh = charge(s, n * sizeof *fresh) ? MEM_ARRAY(n, uint32_t) : NULL;
    if (!fresh) return fail(s, NULL);
    for (uint32_t i = 1; i < b->count; i++) {
        size_t at = (rows ? grow_at(s, i)->hash : gframe_at(s, i)->hash) & (n - 1);
        while (fresh[at]) at = (at + 1) & (n - 1);
        fresh[at] = i;
    }
    mem_free(*table);
    *table = fresh;
    *size = n;
    return true;
}

/* edge is sorted here. */
static uint32_t frame_for(gstore *s, gitem *edge, size_t n)
{
    n = sort_items(edge, n);
    if (n == 1 && edge->frame == GFRAME_ROOT && gstate_at(s, edge->state)->expr == GE_EMPTY) return GFRAME_ROOT;
    if (2 * (s->frames.count + 1) > s->frame_table_size && !table_grow(s, &s->frame_table, &s->frame_table_size, &s->frames, false)) return 0;
    const uint32_t hash = hash_items(edge, n, 7);
    size_t at = hash & (s->frame_table_size - 1);
    for (; s->frame_table[at]; at = (at + 1) & (s->frame_table_size - 1)) {
        const gframe *f = gframe_at(s, s->frame_table[at]);
        if (f->hash == hash && f->count == n && !memcmp(f->edge, edge, n * sizeof *edge)) return s->frame_table[at];
    }
    const uint32_t i = block_add(s, &s->frames, sizeof(gframe));
    gitem *copy = i ? gstore_alloc(s, n * sizeof *edge) : NULL;
    if (!copy) return 0;
    memcpy(copy, edge, n * sizeof *edge);
    *gframe_at(s, i) = (gframe){.edge = copy, .count = (uint32_t)n, .row = GROW_UNKNOWN, .hash = hash};
    return s->frame_table[at] = i;
}

static uint32_t row_for(gstore *s, gitem *item, size_t n, bool accept)
{
    n = sort_items(item, n);
    if (!n && !accept) return GROW_DEAD;
    if (2 * (s->rows.count + 1) > s->row_table_size && !table_grow(s, &s->row_table, &s->row_table_size, &s->rows, true)) return 0;
    const uint32_t hash = hash_items(item, n, accept);
    size_t at = hash & (s->row_table_size - 1);
    for (; s->row_table[at]; at = (at + 1) & (s->row_table_size - 1)) {
        const grow *r = grow_at(s, s->row_table[at]);
        if (r->hash == hash && r->count == n && r->accept == accept && (!n || !memcmp(r->item, item, n * sizeof *item))) return s->row_table[at];
    }
    const uint32_t i = block_add(s, &s->rows, sizeof(grow));
    gitem *copy = i ? gstore_alloc(s, n * sizeof *item + 1) : NULL;
    if (!copy) return 0;
    if (n) memcpy(copy, item, n * sizeof *item);
    grow r = {.item = copy, .count = (uint32_t)n, .accept = accept, .plain_length = GROW_UNKNOWN, .hash = hash};
    for (size_t k = 0; k < n; k++) {
        const gstate *t = gstate_at(s, item[k].state);
        for (int w = 0; w < 4; w++) r.live.bits[w] |= t->live.bits[w];
        for (uint32_t c = 0; c < t->calls; c++) r.tokens |= t->call[c].kind == G_TOKEN;
    }
    *grow_at(s, i) = r;
    return s->row_table[at] = i;
}

/* ---- one step ---- */
static bool work_rehash(gstore *s, size_t n)
{
    gwork *w = &s->work;
    if (n != w->seen_size) {
        uint32_t *seen = MEM_ARRAY(n, uint32_t);
        if (!seen) return fail(s, NULL);
        mem_free(w->seen);
        w->seen = seen;
        w->seen_size = n;
    } else memset(w->seen, 0, n * sizeof *w->seen);
    for (size_t i = 0; i < w->count; i++) {
        size_t at = hash_items(&w->item[i], 1, 0) & (n - 1);
        while (w->seen[at]) at = (at + 1) & (n - 1);
        w->seen[at] = (uint32_t)i + 1;
    }
    return true;
}

static bool work_append(gstore *s, gitem x)
{
    gwork *w = &s->work;
    if (!gpool_work(&s->pool, 1)) return fail(s, s->pool.reason);
    if (w->count >= s->g->limits.items) return fail(s, "the grammar is too ambiguous: too many readings of one text");
    if (w->count == w->capacity) {
        const size_t n = w->capacity ? 2 * w->capacity : 32;
        gitem *item = mem_resize(w->item, n, sizeof *item);
        if (!item) return fail(s, NULL);
        w->item = item;
        w->capacity = n;
    }
    w->item[w->count++] = x;
    return true;
}

/* Adds what is not yet there. A few items are looked through, more are hashed. */
static bool work_add(gstore *s, uint32_t state, uint32_t frame)
{
    enum { FEW = 12 };
    gwork *w = &s->work;
    const gitem x = {state, frame};
    if (w->count < FEW) {
        for (size_t i = 0; i < w->count; i++) if (w->item[i].state == state && w->item[i].frame == frame) return true;
        return work_append(s, x);
    }
    if (w->count == FEW && !work_rehash(s, w->seen_size ? w->seen_size : 64)) return false;
    if (2 * (w->count + 1) > w->seen_size && !work_rehash(s, 2 * w->seen_size)) return false;
    size_t at = hash_items(&x, 1, 0) & (w->seen_size - 1);
    for (; w->seen[at]; at = (at + 1) & (w->seen_size - 1)) {
        const gitem *y = &w->item[w->seen[at] - 1];
        if (y->state == state && y->frame == frame) return true;
    }
    w->seen[at] = (uint32_t)w->count + 1;
    return work_append(s, x);
}

static bool pend_add(gstore *s, uint32_t rule, gitem edge)
{
    if (s->pend_count == s->pend_capacity) {
        const size_t n = s->pend_capacity ? 2 * s->pend_capacity : 64;
        struct gpending *pend = mem_resize(s->pend, n, sizeof *pend);
        if (!pend) return fail(s, NULL);
        s->pend = pend;
        s->pend_capacity = n;
    }
    if (s->pend_count > 64 * s->g->limits.items) return fail(s, "the grammar is too ambiguous: too many readings of one text");
    if (!gpool_work(&s->pool, 1)) return fail(s, s->pool.reason);
    const uint32_t rank = s->g->rule[rule].rank;
    if (!s->pending[rule]) {       /* heap of ranks, largest first */
        size_t i = s->heap_count++;
        for (; i && s->heap[(i - 1) / 2] < rank; i = (i - 1) / 2) s->heap[i] = s->heap[(i - 1) / 2];
        s->heap[i] = rank;
    }
    s->pend[s->pend_count] = (struct gpending){edge, s->pending[rule]};
    s->pending[rule] = (uint32_t)++s->pend_count;
    return true;
}

static uint32_t heap_take(gstore *s)
{
    const uint32_t top = s->heap[0], last = s->heap[--s->heap_count];
    size_t i = 0;
    for (;;) {
        size_t k = 2 * i + 1;
        if (k >= s->heap_count) break;
        if (k + 1 < s->heap_count && s->heap[k + 1] > s->heap[k]) k++;
        if (s->heap[k] <= last) break;
        s->heap[i] = s->heap[k];
        i = k;
    }
    if (s->heap_count) s->heap[i] = last;
    return top;
}

/* The rules that this item calls are pending with their returns. A call at the very end of a rule returns to where the rule itself would. */
static bool note_calls(gstore *s, const gstate *t, uint32_t frame)
{
    for (uint32_t i = 0; i < t->calls; i++) {
        if (t->call[i].kind != G_RULE) continue;
        const uint32_t rule = t->call[i].what, then = t->call[i].then;
        if (gstate_at(s, then)->expr != GE_EMPTY || frame == GFRAME_ROOT) {
            if (!pend_add(s, rule, (gitem){then, frame})) return false;
            continue;
        }
        const gframe f = *gframe_at(s, frame);
        for (uint32_t k = 0; k < f.count; k++) if (!pend_add(s, rule, f.edge[k])) return false;
    }
    return true;
}

static bool take_reads(const gstate *t)
{
    if (t->live.bits[0] | t->live.bits[1] | t->live.bits[2] | t->live.bits[3]) return true;
    for (uint32_t i = 0; i < t->calls; i++) if (t->call[i].kind == G_TOKEN) return true;
    return false;
}

/* The row of what is in s->work, with everything that follows without reading. */
static uint32_t close_row(gstore *s)
{
    gwork *w = &s->work;
    bool accept = false;
    for (size_t i = 0; i < w->count; i++) {
        const gitem x = w->item[i];
        const gstate *t = gstate_at(s, x.state);
        if (!t->nullable) continue;
        if (x.frame == GFRAME_ROOT) {
            accept = true;
            continue;
        }
        const gframe f = *gframe_at(s, x.frame);
        for (uint32_t k = 0; k < f.count; k++) if (!work_add(s, f.edge[k].state, f.edge[k].frame)) return GROW_DEAD;
    }
    s->pend_count = s->heap_count = 0;
    size_t kept = 0;
    bool ok = true;
    const size_t n = w->count;
    for (size_t i = 0; i < n && ok; i++) {
        const gitem x = w->item[i];
        const gstate *t = gstate_at(s, x.state)->expr == GE_EMPTY ? NULL : state_ready(s, x.state);
        if (!t) {
            ok = !s->failed;
            continue;
        }
        ok = note_calls(s, t, x.frame);
        if (take_reads(t)) w->item[kept++] = x;
    }
    w->count = kept;
    while (s->heap_count && ok) {
        const uint32_t rule = s->g->by_rank[heap_take(s)];
        s->edges_count = 0;
        for (uint32_t i = s->pending[rule]; i && ok; i = s->pend[i - 1].next) {
            if (s->edges_count == s->edges_capacity) {
                const size_t more = s->edges_capacity ? 2 * s->edges_capacity : 64;
                gitem *edges = mem_resize(s->edges, more, sizeof *edges);
                if (!edges) ok = fail(s, NULL);
                else s->edges = edges, s->edges_capacity = more;
            }
            if (ok) s->edges[s->edges_count++] = s->pend[i - 1].edge;
        }
        s->pending[rule] = 0;
        const uint32_t frame = ok ? frame_for(s, s->edges, s->edges_count) : 0;
        const uint32_t start = frame ? state_for(s, s->g->rule[rule].body) : 0;
        const gstate *t = start ? state_ready(s, start) : NULL;
        if (!(ok = t && note_calls(s, t, frame))) break;
        if (!take_reads(t)) continue;
        ok = work_append(s, (gitem){start, frame});
    }
    if (!ok) {
        fail(s, s->reason);
        while (s->heap_count) s->pending[s->g->by_rank[heap_take(s)]] = 0;
        return GROW_DEAD;
    }
    return row_for(s, w->item, w->count, accept);
}

uint32_t grow_compute(gstore *s, uint32_t row, uint8_t byte)
{
    if (s->failed) return GROW_DEAD;
    grow *r = grow_at(s, row);
    if (!r->next) {
        if (!(r->next = gstore_alloc(s, 256 * sizeof *r->next))) return GROW_DEAD;
        memset(r->next, 0xFF, 256 * sizeof *r->next);
    }
    s->work.count = 0;
    for (uint32_t i = 0; i < r->count; i++) {
        const gstate *t = gstate_at(s, r->item[i].state);
        const uint32_t to = t->next[t->map[byte]];
        if (to && !work_add(s, to, r->item[i].frame)) return GROW_DEAD;
    }
    const uint32_t to = close_row(s);
    if (s->failed) return GROW_DEAD;
    return r->next[byte] = to;
}

uint32_t grow_token(gstore *s, uint32_t row, int32_t token)
{
    const grow *r = grow_at(s, row);
    if (!r->tokens || s->failed) return GROW_DEAD;
    s->work.count = 0;
    for (uint32_t i = 0; i < r->count; i++) {
        const gstate *t = gstate_at(s, r->item[i].state);
        for (uint32_t k = 0; k < t->calls; k++)
            if (t->call[k].kind == G_TOKEN && t->call[k].what == (uint32_t)token && !work_add(s, t->call[k].then, r->item[i].frame)) return GROW_DEAD;
    }
    return s->work.count ? close_row(s) : GROW_DEAD;
}

uint32_t grow_after(gstore *s, uint32_t frame)
{
    if (frame == GFRAME_ROOT) return GROW_DEAD;
    gframe *f = gframe_at(s, frame);
    if (f->row != GROW_UNKNOWN) return f->row;
    s->work.count = 0;
    for (uint32_t i = 0; i < f->count; i++) if (!work_add(s, f->edge[i].state, f->edge[i].frame)) return GROW_DEAD;
    const uint32_t row = close_row(s);
    if (s->failed) return GROW_DEAD;
    return f->row = row;
}

uint32_t grow_state(gstore *s, uint32_t expr) { return state_for(s, expr); }

uint32_t grow_local(gstore *s, uint32_t state)
{
    if (!state_ready(s, state)) return GROW_DEAD;
    gitem item = {state, GFRAME_ROOT};
    return row_for(s, &item, 1, false);
}

/* ---- the store ---- */
static bool store_start(gstore *s)
{
    grammar *g = s->g;
    if (!gpool_copy(&s->pool, &g->base)) return fail(s, NULL);
    s->pool.work = 0;
    s->pool.limit = g->limits.nodes + g->limits.memory / sizeof(gnode);
    s->bytes = gpool_bytes(&s->pool);
    s->pending = MEM_ARRAY(g->rule_count + 1, uint32_t);
    s->heap = MEM_ARRAY(g->rule_count + 1, uint32_t);
    if (!s->pending || !s->heap) return fail(s, NULL);
    /* Numbers begin at 1; frame 1 is the root. */
    block_add(s, &s->states, sizeof(gstate));
    block_add(s, &s->frames, sizeof(gframe));
    block_add(s, &s->rows, sizeof(grow));
    block_add(s, &s->frames, sizeof(gframe));
    if (s->failed) return false;
    *gframe_at(s, GFRAME_ROOT) = (gframe){.row = GROW_DEAD, .hash = 1};
    s->work.count = 0;
    if (g->root != GE_NONE) {
        const uint32_t start = state_for(s, g->root);
        if (!start || !work_add(s, start, GFRAME_ROOT)) return false;
    }
    if (g->root_nullable) {
        const uint32_t empty = state_for(s, GE_EMPTY);
        if (!empty || !work_add(s, empty, GFRAME_ROOT)) return false;
    }
    s->start = close_row(s);
    return !s->failed;
}

gstore *gstore_new(grammar *g, vlm_error *error)
{
    gstore *s = MEM_NEW(gstore);
    if (!s) {
        err_memory(error, sizeof *s);
        return NULL;
    }
    s->g = g;
    s->references = 1;
    if (store_start(s)) return s;
    gstore_error(s, error);
    gstore_free(s);
    return NULL;
}

static void free_blocks(gblocks *b)
{
    for (size_t i = 0; i < b->blocks; i++) mem_free(b->block[i]);
    mem_free(b->block);
}

void gstore_free(gstore *s)
{
    if (!s || --s->references) return;
    gpool_free(&s->pool);
    free_blocks(&s->states);
    free_blocks(&s->frames);
    free_blocks(&s->rows);
    for (size_t i = 0; i < s->chunk_count; i++) mem_free(s->chunks[i]);
    mem_free(s->chunks);
    mem_free(s->state_of);
    mem_free(s->frame_table);
    mem_free(s->row_table);
    mem_free(s->work.item);
    mem_free(s->work.seen);
    mem_free(s->pending);
    mem_free(s->pend);
    mem_free(s->heap);
    mem_free(s->calls.item);
    mem_free(s->edges);
    mem_free(s->walk);
    mem_free(s->bits);
    mem_free(s);
}
