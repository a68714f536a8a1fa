/* schema_lang.c - sets of strings as shared expressions: building them in a normal form, derivatives, the automaton over code points.
 *
 * The normal form keeps the number of different derivatives small: alternatives and intersections are sorted lists without doubles, character
 * classes in them are merged, sequences lean to the right, repetition of what may be empty has no lower bound. */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "text/constrain/schema_lang_internal.h"
#include "text/utf8.h"

enum { LANG_MAX_NODES = 400000, LANG_MAX_ITEMS = 8000000, LANG_MAX_DEPTH = 2000 };

static lang lang_over(lang_pool *p)
{
    p->over = true;
    return LANG_NONE;
}

static lang lang_memory(lang_pool *p)
{
    p->failed = true;
    return LANG_NONE;
}

bool lang_failed(const lang_pool *p, vlm_error *error)
{
    if (p->failed) return !err_memory(error, 0);
    if (p->over) return !err_set(error, VLM_LIMIT, "the pattern is too large");
    return false;
}

/* ---- nodes ---- */
static bool items_reserve(lang_pool *p, size_t n)
{
    if (p->items + n <= p->item_capacity) return true;
    if (p->items + n > LANG_MAX_ITEMS) return lang_over(p);
    size_t capacity = p->item_capacity ? p->item_capacity : 1024;
    while (capacity < p->items + n) capacity *= 2;
    uint32_t *item = mem_resize(p->item, capacity, sizeof *item);
    if (!item) return lang_memory(p);
    p->item = item;
    p->item_capacity = capacity;
    return true;
}

static uint32_t node_hash(uint8_t kind, uint32_t a, uint32_t b, uint32_t c, const uint32_t *item, size_t n)
{
    uint64_t h = kind * 0x9E3779B97F4A7C15u ^ a * 0xC2B2AE3D27D4EB4Fu ^ b * 0x165667B19E3779F9u ^ c * 0x27D4EB2F165667C5u;
    for (size_t i = 0; i < n; i++) h = (h ^ item[i]) * 0x9FB21C651E98DF25u, h ^= h >> 29;
    return (uint32_t)(h ^ h >> 32);
}

static bool node_grow(lang_pool *p)
{
    if (p->count >= p->capacity) {
        if (p->count >= LANG_MAX_NODES) return lang_over(p);
        size_t n = p->capacity ? p->capacity * 2 : 256;
        lang_node *node = mem_resize(p->node, n, sizeof *node);
        if (!node) return lang_memory(p);
        p->node = node;
        p->capacity = n;
    }
    if (p->count * 2 < p->slots) return true;
    size_t n = p->slots ? p->slots * 2 : 512;
    uint32_t *slot = MEM_ARRAY(n, uint32_t);
    if (!slot) return lang_memory(p);
    mem_free(p->slot);
    p->slot = slot;
    p->slots = n;
    for (size_t k = 1; k < p->count; k++) {
        size_t i = p->node[k].hash & (n - 1);
        while (slot[i]) i = (i + 1) & (n - 1);
        slot[i] = (uint32_t)k;
    }
    return true;
}

static bool node_nullable(const lang_pool *p, const lang_node *n)
{
    switch (n->kind) {
    case L_EMPTY: return true;
    case L_SEQ: return p->node[n->a].nullable && p->node[n->b].nullable;
    case L_REPEAT: return n->b == 0;
    case L_NOT: return !p->node[n->a].nullable;
    case L_ALT:
        for (uint32_t i = 0; i < n->b; i++)
            if (p->node[p->item[n->a + i]].nullable) return true;
        return false;
    case L_AND:
        for (uint32_t i = 0; i < n->b; i++)
            if (!p->node[p->item[n->a + i]].nullable) return false;
        return true;
    default: return false;
    }
}

/* The node with this content; lists (class, alt, and) have their n items in `item`. */
static lang node_make(lang_pool *p, uint8_t kind, uint32_t a, uint32_t b, uint32_t c, const uint32_t *item, size_t n)
{
    if (p->failed || p->over || !node_grow(p)) return LANG_NONE;
    uint32_t hash = node_hash(kind, item ? 0 : a, item ? (uint32_t)n : b, c, item, n);
    size_t i = hash & (p->slots - 1);
    for (; p->slot[i]; i = (i + 1) & (p->slots - 1)) {
        const lang_node *o = &p->node[p->slot[i]];
        if (o->hash != hash || o->kind != kind || o->c != c) continue;
        if (item ? o->b == n && !memcmp(p->item + o->a, item, n * sizeof *item) : o->a == a && o->b == b) return p->slot[i];
    }
    if (item) {
        if (!items_reserve(p, n)) return LANG_NONE;
        a = (uint32_t)p->items;
        b = (uint32_t)n;
        memcpy(p->item + a, item, n * sizeof *item);
        p->items += n;
    }
    p->node[p->count] = (lang_node){.kind = kind, .a = a, .b = b, .c = c, .hash = hash};
    p->node[p->count].nullable = node_nullable(p, &p->node[p->count]);
    p->slot[i] = (uint32_t)p->count;
    return (uint32_t)p->count++;
}

lang_pool *lang_pool_new(vlm_error *error)
{
    lang_pool *p = MEM_NEW(lang_pool);
    if (!p) {
        err_memory(error, sizeof *p);
        return NULL;
    }
    p->count = 1;                                      /* node 0 is LANG_NONE */
    bool ok = node_grow(p);
    if (ok) p->node[0] = (lang_node){0};
    lang fail = ok ? node_make(p, L_FAIL, 0, 0, 0, NULL, 0) : LANG_NONE;
    lang empty = node_make(p, L_EMPTY, 0, 0, 0, NULL, 0);
    lang any = node_make(p, L_NOT, fail, 0, 0, NULL, 0);
    if (fail != LANG_FAIL || empty != LANG_EMPTY || any != LANG_ANY) {
        lang_pool_free(p);
        err_memory(error, 0);
        return NULL;
    }
    return p;
}

void lang_pool_free(lang_pool *p)
{
    if (!p) return;
    mem_free(p->node);
    mem_free(p->slot);
    mem_free(p->item);
    mem_free(p->derived.slot);
    mem_free(p);
}

lang lang_fail(lang_pool *p) { return p->failed || p->over ? LANG_NONE : LANG_FAIL; }
lang lang_empty(lang_pool *p) { return p->failed || p->over ? LANG_NONE : LANG_EMPTY; }
lang lang_any(lang_pool *p) { return p->failed || p->over ? LANG_NONE : LANG_ANY; }

/* ---- classes ---- */
static int range_order(const void *a, const void *b)
{
    const lang_range *x = a, *y = b;
    return x->low < y->low ? -1 : x->low > y->low;
}

/* Sorts and merges in place; surrogates are no characters. Returns how many are left. */
static size_t ranges_merge(lang_range *r, size_t n)
{
    qsort(r, n, sizeof *r, range_order);
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        if (count && r[i].low <= r[count - 1].high + 1) {
            if (r[i].high > r[count - 1].high) r[count - 1].high = r[i].high;
        } else {
            r[count++] = r[i];
        }
    }
    return count;
}

/* out has room for n + 1 ranges. */
static size_t ranges_invert(const lang_range *r, size_t n, lang_range *out)
{
    size_t count = 0;
    uint32_t low = 0;
    for (size_t i = 0; i < n; i++) {
        if (r[i].low > low) out[count++] = (lang_range){low, r[i].low - 1};
        low = r[i].high + 1;
    }
    if (low <= LANG_LAST) out[count++] = (lang_range){low, LANG_LAST};
    return count;
}

/* Merged ranges to a node: without surrogates, and joined across them so that equal sets are equal nodes. */
static lang class_make(lang_pool *p, const lang_range *r, size_t n)
{
    lang_range *clean = MEM_ARRAY(n + 2, lang_range);
    if (!clean) return lang_memory(p);
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t low = r[i].low, high = r[i].high > LANG_LAST ? LANG_LAST : r[i].high;
        if (low < 0xD800 && high >= 0xD800) {
            clean[count++] = (lang_range){low, 0xD7FF};
            low = 0xE000;
        } else if (low >= 0xD800 && low < 0xE000) {
            low = 0xE000;
        }
        if (low <= high && !(high >= 0xD800 && high < 0xE000 && low >= 0xD800)) clean[count++] = (lang_range){low, high};
    }
    count = ranges_merge(clean, count);
    lang made = count ? node_make(p, L_CLASS, 0, 0, 0, (uint32_t *)clean, count * 2) : lang_fail(p);
    mem_free(clean);
    return made;
}

lang lang_class(lang_pool *p, const lang_range *range, size_t count, bool negated)
{
    if (p->failed || p->over) return LANG_NONE;
    lang_range *r = MEM_ARRAY(2 * count + 3, lang_range);
    if (!r) return lang_memory(p);
    if (count) memcpy(r, range, count * sizeof *r);
    size_t n = ranges_merge(r, count);
    lang_range *use = r;
    if (negated) {
        use = r + count + 1;
        n = ranges_invert(r, n, use);
    }
    lang made = class_make(p, use, n);
    mem_free(r);
    return made;
}

/* Union or intersection of two class nodes. */
static lang class_join(lang_pool *p, lang a, lang b, bool both)
{
    size_t n = p->node[a].b / 2, m = p->node[b].b / 2;
    lang_range *r = MEM_ARRAY(n + m + 1, lang_range);
    if (!r) return lang_memory(p);
    const lang_range *x = (const lang_range *)(p->item + p->node[a].a), *y = (const lang_range *)(p->item + p->node[b].a);
    size_t count = 0;
    if (!both) {
        memcpy(r, x, n * sizeof *r);
        memcpy(r + n, y, m * sizeof *r);
        count = ranges_merge(r, n + m);
    } else {
        for (size_t i = 0, j = 0; i < n && j < m;) {
            uint32_t low = x[i].low > y[j].low ? x[i].low : y[j].low, high = x[i].high < y[j].high ? x[i].high : y[j].high;
            if (low <= high) r[count++] = (lang_range){low, high};
            if (x[i].high < y[j].high) i++;
            else j++;
        }
    }
    lang made = class_make(p, r, count);
    mem_free(r);
    return made;
}

static bool class_has(const lang_pool *p, const lang_node *n, uint32_t code)
{
    const lang_range *r = (const lang_range *)(p->item + n->a);
    size_t low = 0, high = n->b / 2;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (code > r[middle].high) low = middle + 1;
        else high = middle;
    }
    return low < n->b / 2 && code >= r[low].low;
}

/* ---- combining ---- */
lang lang_seq(lang_pool *p, lang a, lang b)
{
    if (!a || !b) return LANG_NONE;
    if (a == LANG_FAIL || b == LANG_FAIL) return LANG_FAIL;
    if (a == LANG_EMPTY) return b;
    if (b == LANG_EMPTY) return a;
    if (a == LANG_ANY && b == LANG_ANY) return a;
    /* Leaning to the right: ((x y) z) is (x (y z)). The chain is taken apart from its end. */
    if (p->node[a].kind != L_SEQ) return node_make(p, L_SEQ, a, b, 0, NULL, 0);
    uint32_t *chain = NULL;
    size_t n = 0, capacity = 0;
    for (; p->node[a].kind == L_SEQ; a = p->node[a].b) {
        if (n == capacity) {
            capacity = capacity ? capacity * 2 : 16;
            uint32_t *c = mem_resize(chain, capacity, sizeof *c);
            if (!c) {
                mem_free(chain);
                return lang_memory(p);
            }
            chain = c;
        }
        chain[n++] = p->node[a].a;
    }
    lang made = node_make(p, L_SEQ, a, b, 0, NULL, 0);
    while (n && made) made = node_make(p, L_SEQ, chain[--n], made, 0, NULL, 0);
    mem_free(chain);
    return made;
}

static int id_order(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* Alternatives or intersection of a list (which is changed): flat, sorted, classes merged. */
static lang list_make(lang_pool *p, uint8_t kind, uint32_t *id, size_t n)
{
    const lang zero = kind == L_ALT ? LANG_ANY : LANG_FAIL, one = kind == L_ALT ? LANG_FAIL : LANG_ANY;
    size_t count = 0;
    lang merged = LANG_NONE;
    for (size_t i = 0; i < n; i++) {
        if (!id[i]) return LANG_NONE;
        if (id[i] == zero) return zero;
        if (id[i] == one) continue;
        if (p->node[id[i]].kind != L_CLASS) {
            id[count++] = id[i];
            continue;
        }
        merged = merged ? class_join(p, merged, id[i], kind == L_AND) : id[i];
        if (!merged) return LANG_NONE;
        if (merged == zero) return zero;
    }
    if (merged) id[count++] = merged;
    qsort(id, count, sizeof *id, id_order);
    size_t unique = 0;
    for (size_t i = 0; i < count; i++)
        if (!unique || id[unique - 1] != id[i]) id[unique++] = id[i];
    for (size_t i = 0; i < unique; i++) {              /* x and not x */
        if (p->node[id[i]].kind == L_NOT && bsearch(&p->node[id[i]].a, id, unique, sizeof *id, id_order)) return zero;
    }
    if (kind == L_AND && unique) {                     /* only the empty string is left, or nothing */
        bool empty = false, all = true;
        for (size_t i = 0; i < unique; i++) empty |= id[i] == LANG_EMPTY, all &= p->node[id[i]].nullable;
        if (empty) return all ? LANG_EMPTY : LANG_FAIL;
    }
    if (!unique) return one;
    if (unique == 1) return id[0];
    return node_make(p, kind, 0, 0, 0, id, unique);
}

static lang list_join(lang_pool *p, uint8_t kind, const lang *part, size_t n)
{
    size_t total = 0, count = 0;
    for (size_t i = 0; i < n; i++) {
        if (!part[i]) return LANG_NONE;
        total += p->node[part[i]].kind == kind ? p->node[part[i]].b : 1;
    }
    uint32_t *id = MEM_ARRAY(total + 1, uint32_t);
    if (!id) return lang_memory(p);
    for (size_t i = 0; i < n; i++) {
        const lang_node *o = &p->node[part[i]];
        if (o->kind == kind) {
            memcpy(id + count, p->item + o->a, o->b * sizeof *id);
            count += o->b;
        } else {
            id[count++] = part[i];
        }
    }
    lang made = list_make(p, kind, id, count);
    mem_free(id);
    return made;
}

lang lang_alt(lang_pool *p, lang a, lang b) { return list_join(p, L_ALT, (lang[]){a, b}, 2); }
lang lang_and(lang_pool *p, lang a, lang b) { return list_join(p, L_AND, (lang[]){a, b}, 2); }

lang lang_not(lang_pool *p, lang a)
{
    if (!a) return LANG_NONE;
    if (p->node[a].kind == L_NOT) return p->node[a].a;
    return node_make(p, L_NOT, a, 0, 0, NULL, 0);
}

lang lang_repeat(lang_pool *p, lang a, uint32_t min, uint32_t max)
{
    if (!a) return LANG_NONE;
    if (max == 0 || a == LANG_EMPTY) return lang_empty(p);
    if (a == LANG_FAIL) return min ? LANG_FAIL : lang_empty(p);
    if (a == LANG_ANY) return a;
    if (p->node[a].nullable) min = 0;
    if (min == 1 && max == 1) return a;
    const lang_node *n = &p->node[a];
    if (n->kind == L_REPEAT && n->b == 0 && n->c == LANG_MANY) return a;       /* (x*)* */
    if (n->kind == L_CLASS && min == 0 && max == LANG_MANY && n->b == 4 && p->item[n->a] == 0 && p->item[n->a + 3] == LANG_LAST &&
        p->item[n->a + 1] == 0xD7FF && p->item[n->a + 2] == 0xE000) return lang_any(p);
    return node_make(p, L_REPEAT, a, min, max, NULL, 0);
}

static lang lang_char(lang_pool *p, uint32_t code) { return lang_class(p, &(lang_range){code, code}, 1, false); }

lang lang_text(lang_pool *p, const char *text, size_t size)
{
    uint32_t *code = MEM_ARRAY(size + 1, uint32_t);
    if (!code) return lang_memory(p);
    size_t n = 0;
    for (size_t i = 0; i < size; n++) i += utf8_next_lossy(text + i, size - i, &code[n]);
    lang made = lang_empty(p);
    while (n && made) made = lang_seq(p, lang_char(p, code[--n]), made);
    mem_free(code);
    return made;
}

/* A trie over sorted texts, so that thousands of them stay as small as they can be. */
typedef struct text_item { const char *text; size_t size; } text_item;

static int text_order(const void *a, const void *b)
{
    const text_item *x = a, *y = b;
    int c = memcmp(x->text, y->text, x->size < y->size ? x->size : y->size);
    return c ? c : x->size < y->size ? -1 : x->size > y->size;
}

static lang texts_trie(lang_pool *p, const text_item *t, size_t n, size_t at, int depth)
{
    if (!n) return lang_fail(p);
    if (depth > LANG_MAX_DEPTH) return lang_over(p);
    if (n == 1) return lang_text(p, t->text + at, t->size - at);
    uint32_t *id = MEM_ARRAY(n + 1, uint32_t);
    if (!id) return lang_memory(p);
    size_t count = 0, i = 0;
    bool ok = true;
    while (i < n && t[i].size == at) i++;
    if (i) ok = (id[count++] = lang_empty(p));
    while (ok && i < n) {
        uint32_t code;
        size_t bytes = utf8_next_lossy(t[i].text + at, t[i].size - at, &code), end = i + 1, common = bytes;
        while (end < n && t[end].size >= at + bytes && !memcmp(t[end].text + at, t[i].text + at, bytes)) end++;
        /* what all of them begin with, in one step: the first and the last of the sorted texts tell */
        while (at + common < t[i].size && at + common < t[end - 1].size && t[i].text[at + common] == t[end - 1].text[at + common]) common++;
        while (common > bytes && at + common < t[i].size && ((unsigned char)t[i].text[at + common] & 0xC0) == 0x80) common--;
        lang head = lang_text(p, t[i].text + at, common);
        ok = (id[count++] = lang_seq(p, head, texts_trie(p, t + i, end - i, at + common, depth + 1)));
        i = end;
    }
    lang made = ok ? list_make(p, L_ALT, id, count) : LANG_NONE;
    mem_free(id);
    return made;
}

lang lang_texts(lang_pool *p, const char *const *text, const size_t *size, size_t count)
{
    text_item *t = MEM_ARRAY(count + 1, text_item);
    if (!t) return lang_memory(p);
    for (size_t i = 0; i < count; i++) t[i] = (text_item){text[i], size[i]};
    qsort(t, count, sizeof *t, text_order);
    size_t unique = 0;
    for (size_t i = 0; i < count; i++)
        if (!unique || text_order(&t[unique - 1], &t[i])) t[unique++] = t[i];
    lang made = texts_trie(p, t, unique, 0, 0);
    mem_free(t);
    return made;
}

/* ---- derivatives ---- */
static bool derived_grow(lang_derived *d)
{
    if (d->count * 2 < d->slots) return true;
    size_t n = d->slots ? d->slots * 2 : 1024;
    lang_derived_slot *slot = MEM_ARRAY(n, lang_derived_slot);
    if (!slot) return false;
    for (size_t k = 0; k < d->slots; k++) {
        if (!d->slot[k].node) continue;
        size_t i = (d->slot[k].node * 0x9E3779B1u ^ d->slot[k].code * 0x85EBCA77u) & (n - 1);
        while (slot[i].node) i = (i + 1) & (n - 1);
        slot[i] = d->slot[k];
    }
    mem_free(d->slot);
    d->slot = slot;
    d->slots = n;
    return true;
}

static lang derive_plain(lang_pool *p, lang a, uint32_t code, int depth);

/* What may follow `code` in the strings of a: remembered by (node, code), where code is one of few that stand for all. */
lang lang_derive(lang_pool *p, lang a, uint32_t code, int depth)
{
    if (!a) return LANG_NONE;
    if (depth > LANG_MAX_DEPTH) return lang_over(p);
    switch (p->node[a].kind) {
    case L_FAIL: case L_EMPTY: return LANG_FAIL;
    case L_CLASS: return class_has(p, &p->node[a], code) ? LANG_EMPTY : LANG_FAIL;
    default: break;
    }
    lang_derived *d = &p->derived;
    if (!derived_grow(d)) return lang_memory(p);
    size_t h = a * 0x9E3779B1u ^ code * 0x85EBCA77u, i = h & (d->slots - 1);
    for (; d->slot[i].node; i = (i + 1) & (d->slots - 1))
        if (d->slot[i].node == a && d->slot[i].code == code) return d->slot[i].result;
    lang made = derive_plain(p, a, code, depth);
    if (!made) return LANG_NONE;
    if (!derived_grow(d)) return lang_memory(p);
    for (i = h & (d->slots - 1); d->slot[i].node; i = (i + 1) & (d->slots - 1)) {}
    d->slot[i] = (lang_derived_slot){a, code, made};
    d->count++;
    return made;
}

static lang derive_plain(lang_pool *p, lang a, uint32_t code, int depth)
{
    lang_node n = p->node[a];
    switch (n.kind) {
    case L_NOT: return lang_not(p, lang_derive(p, n.a, code, depth + 1));
    case L_REPEAT: {
        lang first = lang_derive(p, n.a, code, depth + 1);
        if (first == LANG_FAIL) return first;
        return lang_seq(p, first, lang_repeat(p, n.a, n.b ? n.b - 1 : 0, n.c == LANG_MANY ? n.c : n.c - 1));
    }
    case L_SEQ: {
        lang first = lang_seq(p, lang_derive(p, n.a, code, depth + 1), n.b);
        if (!p->node[n.a].nullable) return first;
        return lang_alt(p, first, lang_derive(p, n.b, code, depth + 1));
    }
    default: break;                                    /* L_ALT, L_AND */
    }
    lang *part = MEM_ARRAY(n.b + 1, lang);
    if (!part) return lang_memory(p);
    size_t count = 0;
    lang made = LANG_NONE;
    bool ok = true;
    for (uint32_t i = 0; i < n.b && ok; i++) {
        part[count] = lang_derive(p, p->item[n.a + i], code, depth + 1);
        ok = part[count] != LANG_NONE;
        if (n.kind == L_ALT && part[count] == LANG_FAIL) continue;
        count++;
    }
    if (ok) made = count ? list_join(p, n.kind, part, count) : LANG_FAIL;
    mem_free(part);
    return made;
}

bool lang_matches(lang_pool *p, lang a, const char *text, size_t size)
{
    for (size_t i = 0; i < size && a;) {
        uint32_t code;
        i += utf8_next_lossy(text + i, size - i, &code);
        a = lang_derive(p, a, code, 0);
    }
    return a && p->node[a].nullable;
}
