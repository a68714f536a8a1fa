/* mask.c - all tokens that may come next.
 *
 * A row is a set of (state, frame). What a state's own rule says about a token does not depend on the frame, and is kept with the state:
 * the tokens that fit inside the rule, and the places in the tries where the rule may have ended before the token has (pops). A row's
 * mask is the union of its states' masks, and for each pop a walk of the part of the trie below it from where the frame goes on.
 * Those walks are short: what follows a string is a comma, a bracket, white space. */
#include <string.h>

#include "text/grammar/internal.h"

typedef struct gpop { uint32_t node; uint8_t trie; } gpop;
struct gmask {
    const gmask *near;             /* of the shorter tokens, when that is another state's, too; or NULL */
    uint64_t *bits;                /* or NULL: */
    uint32_t *token;
    size_t tokens;
    gpop *pop;
    size_t pops;
};
typedef struct gpops { gpop *item; size_t count, capacity; bool failed; } gpops;

static void pops_add(gpops *p, uint32_t node, uint8_t trie)
{
    if (p->count == p->capacity) {
        const size_t n = p->capacity ? 2 * p->capacity : 64;
        gpop *item = mem_resize(p->item, n, sizeof *item);
        if (!item) {
            p->failed = true;
            return;
        }
        p->item = item;
        p->capacity = n;
    }
    p->item[p->count++] = (gpop){node, trie};
}

static inline void set_bit(uint64_t *bits, int32_t token) { bits[token >> 6] |= 1ull << (token & 63); }

/* ---- any plain text ---- */
/* Adds to set[] the rows after the byte sequences lead.. of every character whose bytes are in these ranges; false: some are not taken. */
enum { MOST_ROWS = 24 };
typedef struct rowset { uint32_t row[MOST_ROWS]; int count; bool full; } rowset;

static bool rowset_add(rowset *s, uint32_t row)
{
    for (int i = 0; i < s->count; i++) if (s->row[i] == row) return true;
    if (s->count == MOST_ROWS) return !(s->full = true);
    s->row[s->count++] = row;
    return true;
}

static bool spread(gstore *s, const rowset *from, uint8_t low, uint8_t high, rowset *to)
{
    for (int i = 0; i < from->count; i++) {
        for (unsigned c = low; c <= high; c++) {
            if (low < 0x80 && !grammar_plain_ascii(c)) continue;
            const uint32_t row = grow_step(s, from->row[i], (uint8_t)c);
            if (row == GROW_DEAD || !grow_at(s, row)->count || !rowset_add(to, row)) return false;
        }
    }
    return true;
}

/* Rows after any one plain character. */
static bool plain_step(gstore *s, uint32_t row, rowset *to)
{
    static const uint8_t form[][9] = {
        {1, 0x20, 0x7E}, {2, 0xC2, 0xDF, 0x80, 0xBF}, {3, 0xE0, 0xE0, 0xA0, 0xBF, 0x80, 0xBF}, {3, 0xE1, 0xEC, 0x80, 0xBF, 0x80, 0xBF},
        {3, 0xED, 0xED, 0x80, 0x9F, 0x80, 0xBF}, {3, 0xEE, 0xEF, 0x80, 0xBF, 0x80, 0xBF}, {4, 0xF0, 0xF0, 0x90, 0xBF, 0x80, 0xBF, 0x80, 0xBF},
        {4, 0xF1, 0xF3, 0x80, 0xBF, 0x80, 0xBF, 0x80, 0xBF}, {4, 0xF4, 0xF4, 0x80, 0x8F, 0x80, 0xBF, 0x80, 0xBF}};
    for (size_t f = 0; f < sizeof form / sizeof *form; f++) {
        rowset at = {.row = {row}, .count = 1};
        for (int k = 0; k < form[f][0]; k++) {
            rowset next = {.count = 0};
            if (!spread(s, &at, form[f][1 + 2 * k], form[f][2 + 2 * k], &next)) return false;
            at = next;
        }
        for (int i = 0; i < at.count; i++) if (!rowset_add(to, at.row[i])) return false;
    }
    return true;
}

/* The same, kept with the row: their number, then they. NULL: failed. */
static const uint32_t *plain_rows(gstore *s, uint32_t row)
{
    grow *r = grow_at(s, row);
    if (r->plain) return r->plain;
    rowset to = {.count = 0};
    const uint32_t n = plain_step(s, row, &to) && !s->failed ? (uint32_t)to.count : 0;
    uint32_t *kept = gstore_alloc(s, (n + 1) * sizeof *kept);
    if (!kept) return NULL;
    kept[0] = n;
    memcpy(kept + 1, to.row, n * sizeof *kept);
    return r->plain = kept;
}

/* How many plain characters may come whatever they are, up to 33 (UINT32_MAX: no end in sight). */
static uint32_t find_plain_length(gstore *s, uint32_t row)
{
    rowset at = {.row = {row}, .count = 1};
    for (uint32_t n = 0; n <= GRAMMAR_LONG; n++) {
        rowset next = {.count = 0};
        for (int i = 0; i < at.count; i++) {
            const uint32_t *to = plain_rows(s, at.row[i]);
            if (!to || !to[0]) return n;
            for (uint32_t k = 1; k <= to[0]; k++) if (!rowset_add(&next, to[k])) return n;
        }
        bool same = next.count == at.count;
        for (int i = 0; i < next.count && same; i++) {
            bool found = false;
            for (int k = 0; k < at.count; k++) found |= at.row[k] == next.row[i];
            same = found;
        }
        if (same) return UINT32_MAX;
        at = next;
    }
    return GRAMMAR_LONG + 1;
}

static uint32_t plain_length(gstore *s, uint32_t row)
{
    grow *r = grow_at(s, row);
    if (r->plain_length == GROW_UNKNOWN) {
        const uint32_t n = find_plain_length(s, row);
        r->plain_length = n < GRAMMAR_LONG + 1 ? n : n == UINT32_MAX ? UINT32_MAX - 1 : n;
    }
    return r->plain_length;
}

/* ---- walking a trie ---- */
/* Sets the bits of the tokens in nodes [from, to) that can be read from rows[depth of from - 1]. pops NULL: it does not matter where
 * readings end. */
static void walk(gstore *s, int trie, uint32_t from, uint32_t to, uint64_t *bits, gpops *pops)
{
    enum { WORTH = 24 };           /* nodes below, to ask whether all is taken */
    const gtrie *t = &s->g->vocab->trie[trie];
    const gtrie_node *node = t->node;
    uint32_t *rows = s->walk;
    if (!gpool_work(&s->pool, (to - from) / 16)) {
        s->failed = true;
        s->reason = s->pool.reason;
        return;
    }
    for (uint32_t i = from; i < to;) {
        const gtrie_node n = node[i];
        const uint32_t row = grow_step(s, rows[n.depth - 1], n.byte);
        if (row == GROW_DEAD) {
            i = n.next;
            continue;
        }
        if (n.token >= 0) for (uint32_t k = n.rank; k < node[i + 1].rank || k == n.rank; k++) set_bit(bits, (int32_t)t->order[k]);
        if (n.next == ++i) continue;
        const grow *r = grow_at(s, row);
        if (r->count && t->plain && trie < GRAMMAR_LONG_TRIES && n.tail != 255 && n.next - i > WORTH && plain_length(s, row) >= n.tail) {
            for (uint32_t k = n.rank; k < node[n.next].rank; k++) set_bit(bits, (int32_t)t->order[k]);
            i = n.next;
            continue;
        }
        if (r->accept && pops) pops_add(pops, i - 1, (uint8_t)trie);
        if (!r->count) i = n.next;
        else rows[n.depth] = row;
    }
}

/* ---- a state's own mask ---- */
/* x for readers of at most k bytes: counts beyond k are no counts. States that differ in them only then share what is computed. */
static uint32_t clip(gpool *p, uint32_t x, uint32_t k, int depth)
{
    const gnode n = p->failed ? (gnode){0} : p->node[x];
    if (depth > 3) return x;
    switch ((gkind)n.kind) {
    case G_REPEAT: {
        const uint32_t max = n.max >= k ? GRAMMAR_MANY : n.max, min = n.min > k ? k + 1 : n.min;
        return max == n.max && min == n.min ? x : gx_repeat(p, n.a, min, max);
    }
    case G_SEQ: {
        const uint32_t a = clip(p, n.a, k, depth + 1), b = clip(p, n.b, k, depth + 1);
        return a == n.a && b == n.b ? x : gx_seq(p, a, b);
    }
    case G_ALT: {
        if (n.b > 8) return x;
        const size_t mark = p->stack_count;
        bool same = true;
        for (uint32_t i = 0; i < n.b && !p->failed; i++) {
            const uint32_t y = clip(p, p->list[n.a + i], k, depth + 1);
            same &= y == p->list[n.a + i];
            gpool_push(p, y);
        }
        if (!same || p->failed) return gx_alt(p, mark);
        p->stack_count = mark;
        return x;
    }
    default: return x;
    }
}

/* A pop matters only for tokens that do not fit inside the rule. */
static void drop_pops(const grammar_vocab *v, gpops *pops, const uint64_t *bits)
{
    size_t kept = 0;
    for (size_t i = 0; i < pops->count; i++) {
        const gpop p = pops->item[i];
        const gtrie_node *node = v->trie[p.trie].node;
        bool open = false;
        for (uint32_t k = p.node + 1; k < node[p.node].next && !open; k++)
            open = node[k].token >= 0 && !(bits[node[k].token >> 6] >> (node[k].token & 63) & 1);
        if (open) pops->item[kept++] = p;
    }
    pops->count = kept;
}

static gmask *keep(gstore *s, const uint64_t *bits, const gpops *pops)
{
    const size_t words = s->g->vocab->words;
    size_t tokens = 0;
    for (size_t w = 0; w < words; w++) if (bits[w]) tokens += (size_t)__builtin_popcountll(bits[w]);
    gmask *m = gstore_alloc(s, sizeof *m);
    if (!m) return NULL;
    *m = (gmask){.pops = pops->count, .pop = gstore_alloc(s, pops->count * sizeof *m->pop + 1)};
    if (m->pop && pops->count) memcpy(m->pop, pops->item, pops->count * sizeof *m->pop);
    if (tokens > words) {
        m->bits = gstore_alloc(s, words * sizeof *bits);
        if (m->bits) memcpy(m->bits, bits, words * sizeof *bits);
    } else if ((m->token = gstore_alloc(s, tokens * sizeof *m->token + 1))) {
        for (size_t w = 0; w < words; w++)
            for (uint64_t b = bits[w]; b; b &= b - 1) m->token[m->tokens++] = (uint32_t)(w * 64) + (uint32_t)__builtin_ctzll(b);
    }
    return s->failed ? NULL : m;
}

/* The mask of tries [from, to). */
static gmask *walk_state(gstore *s, uint32_t state, int from, int to)
{
    const grammar_vocab *v = s->g->vocab;
    const uint32_t row = grow_local(s, state);
    if (s->failed) return NULL;
    gpops pops = {0};
    memset(s->bits, 0, v->words * sizeof *s->bits);
    const uint32_t plain = row && from == 0 ? plain_length(s, row) : 0;   /* counts: not without end */
    for (int k = from; k < to && !s->failed && row; k++) {
        const gtrie *t = &v->trie[k];
        if (t->plain && (t->plain <= plain || plain >= UINT32_MAX - 1)) {
            for (size_t w = 0; w < v->words; w++) s->bits[w] |= t->all[w];
            continue;
        }
        s->walk[0] = row;
        const gset live = grow_at(s, row)->live;
        for (int w = 0; w < 4; w++) {
            for (uint64_t b = live.bits[w]; b; b &= b - 1) {
                const uint32_t at = t->first[w * 64 + __builtin_ctzll(b)];
                if (at != UINT32_MAX) walk(s, k, at, t->node[at].next, s->bits, &pops);
            }
        }
    }
    drop_pops(v, &pops, s->bits);
    if (pops.failed) s->failed = true;
    gmask *m = s->failed ? NULL : keep(s, s->bits, &pops);
    mem_free(pops.item);
    return m;
}

static gmask *state_mask(gstore *s, uint32_t state)
{
    const uint32_t longest = (uint32_t)s->g->vocab->longest;
    const uint32_t x = gstate_at(s, state)->expr, whole = clip(&s->pool, x, longest, 0), near = clip(&s->pool, x, GRAMMAR_LONG, 0);
    gmask *m = NULL;
    if (whole != x) {
        const uint32_t like = grow_state(s, whole);
        if (like) m = gstate_at(s, like)->mask ? gstate_at(s, like)->mask : state_mask(s, like);
    } else if (near != x) {
        const uint32_t like = grow_state(s, near);
        if (like && !gstate_at(s, like)->near) gstate_at(s, like)->near = walk_state(s, like, 0, GRAMMAR_LONG_TRIES);
        if (like && !s->failed && (m = walk_state(s, state, GRAMMAR_LONG_TRIES, GRAMMAR_TRIES))) m->near = gstate_at(s, like)->near;
    } else m = walk_state(s, state, 0, GRAMMAR_TRIES);
    if (!m) s->failed = true;
    return gstate_at(s, state)->mask = m;
}

/* ---- a row's mask ---- */
static void add_tokens(const gmask *m, uint64_t *mask, size_t words, bool *fresh)
{
    if (m->bits && *fresh) memcpy(mask, m->bits, words * sizeof *mask);
    else if (m->bits) for (size_t w = 0; w < words; w++) mask[w] |= m->bits[w];
    else {
        if (*fresh) memset(mask, 0, words * sizeof *mask);
        for (size_t k = 0; k < m->tokens; k++) set_bit(mask, (int32_t)m->token[k]);
    }
    *fresh = false;
}

/* What follows where the rule may have ended inside a token. */
static void add_pops(gstore *s, const gmask *m, uint32_t after, uint64_t *mask)
{
    const grammar_vocab *v = s->g->vocab;
    for (size_t k = 0; k < m->pops; k++) {
        const gpop p = m->pop[k];
        const gtrie_node n = v->trie[p.trie].node[p.node];
        s->walk[n.depth] = after;
        walk(s, p.trie, p.node + 1, n.next, mask, NULL);
    }
}

bool grammar_mask(gstore *s, uint32_t row, uint64_t *mask)
{
    const grammar_vocab *v = s->g->vocab;
    if (!s->bits) {
        s->bits = MEM_ARRAY(v->words + 1, uint64_t);
        s->walk = MEM_ARRAY(v->longest + 2, uint32_t);
        if (!s->bits || !s->walk) return !(s->failed = true);
    }
    const grow r = *grow_at(s, row);
    bool fresh = true;             /* mask is still to be cleared */
    for (uint32_t i = 0; i < r.count; i++) {
        const gmask *m = gstate_at(s, r.item[i].state)->mask;
        if (!m && !(m = state_mask(s, r.item[i].state))) return false;
        if (m->near) add_tokens(m->near, mask, v->words, &fresh);
        add_tokens(m, mask, v->words, &fresh);
    }
    if (fresh) memset(mask, 0, v->words * sizeof *mask);
    for (uint32_t i = 0; i < r.count && !s->failed; i++) {
        const gstate *t = gstate_at(s, r.item[i].state);
        for (uint32_t k = 0; k < t->calls; k++)
            if (t->call[k].kind == G_TOKEN && t->call[k].what < v->count) set_bit(mask, (int32_t)t->call[k].what);
        if (!t->mask->pops && !(t->mask->near && t->mask->near->pops)) continue;
        const uint32_t after = grow_after(s, r.item[i].frame);
        if (after == GROW_DEAD || !grow_at(s, after)->count) continue;
        if (t->mask->near) add_pops(s, t->mask->near, after, mask);
        add_pops(s, t->mask, after, mask);
    }
    return !s->failed;
}
