/* schema_lang_dfa.c - the automaton of a set of strings, over code points, then over bytes.
 *
 *   expression -> [classes split the code points into few kinds] -> derivatives by one code point of each kind -> states over code points
 *              -> every edge written as bytes: UTF-8, or the spellings of the character in a JSON string
 *
 * The second step builds, for each state, the tree of bytes that leads to the next states; equal subtrees are one node. */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "text/constrain/schema_lang_internal.h"

enum { DFA_MAX_STATES = 30000, DFA_MAX_BYTE_STATES = 1000000, DFA_MAX_EDGES = 4000000 };

/* ---- kinds of code points ---- */
typedef struct kinds {
    uint32_t *start, *kind;        /* intervals: [start[i], start[i + 1]) is of kind[i] */
    size_t count;
    uint32_t *sample;              /* one code point of each kind */
    uint32_t n;
} kinds;

static void kinds_free(kinds *k)
{
    mem_free(k->start);
    mem_free(k->kind);
    mem_free(k->sample);
}

static int u32_order(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* The classes that occur in an expression. */
static bool collect_classes(const lang_pool *p, lang root, lang **out, size_t *count)
{
    uint8_t *seen = MEM_ARRAY(p->count, uint8_t);
    lang *stack = MEM_ARRAY(p->count + 1, lang), *list = MEM_ARRAY(p->count + 1, lang);
    size_t top = 0, n = 0;
    bool ok = seen && stack && list;
    if (ok) stack[top++] = root, seen[root] = 1;
    while (ok && top) {
        lang a = stack[--top];
        const lang_node *o = &p->node[a];
        if (o->kind == L_CLASS) list[n++] = a;
        uint32_t pair[2] = {o->a, o->b};
        const uint32_t *child = pair;
        size_t children = 0;
        if (o->kind == L_SEQ) children = 2;
        else if (o->kind == L_NOT || o->kind == L_REPEAT) children = 1;
        else if (o->kind == L_ALT || o->kind == L_AND) child = p->item + o->a, children = o->b;
        for (size_t i = 0; i < children; i++)
            if (!seen[child[i]]) seen[child[i]] = 1, stack[top++] = child[i];
    }
    mem_free(seen);
    mem_free(stack);
    if (!ok) mem_free(list);
    *out = ok ? list : NULL;
    *count = n;
    return ok;
}

/* Code points that no class tells apart are of one kind. Two sweeps: the borders of all ranges; then every class splits the kinds it cuts. */
static bool kinds_find(const lang_pool *p, lang root, kinds *k)
{
    lang *class = NULL;
    size_t classes = 0, borders = 4;
    *k = (kinds){0};
    uint32_t *split = NULL;
    bool ok = collect_classes(p, root, &class, &classes);
    for (size_t i = 0; ok && i < classes; i++) borders += p->node[class[i]].b;
    if (ok) ok = (k->start = MEM_ARRAY(borders, uint32_t)) && (k->kind = MEM_ARRAY(borders, uint32_t)) && (k->sample = MEM_ARRAY(borders, uint32_t)) &&
                 (split = MEM_ARRAY(2 * borders, uint32_t));
    if (!ok) goto done;
    size_t n = 0;
    k->start[n++] = 0;
    k->start[n++] = 0xD800;                            /* surrogates are no characters: an interval that no class holds */
    k->start[n++] = 0xE000;
    for (size_t i = 0; i < classes; i++) {
        const uint32_t *r = p->item + p->node[class[i]].a;
        for (uint32_t j = 0; j < p->node[class[i]].b; j++)
            if (r[j] + (j & 1) <= LANG_LAST) k->start[n++] = r[j] + (j & 1);
    }
    qsort(k->start, n, sizeof *k->start, u32_order);
    for (size_t i = 0; i < n; i++)
        if (!k->count || k->start[k->count - 1] != k->start[i]) k->start[k->count++] = k->start[i];
    k->n = 1;
    uint32_t *size = k->sample, *inside = split, *now = split + borders;    /* members of each kind; of them in the class; its new number */
    size[0] = (uint32_t)k->count;
    for (size_t i = 0; i < classes; i++) {
        const uint32_t *r = p->item + p->node[class[i]].a;
        size_t ranges = p->node[class[i]].b / 2;
        memset(inside, 0, k->n * sizeof *inside);
        for (int pass = 0; pass < 2; pass++) {
            uint32_t before = k->n;
            if (pass)
                for (uint32_t x = 0; x < before; x++) {
                    now[x] = x;
                    if (!inside[x] || inside[x] == size[x]) continue;
                    now[x] = k->n++;
                    size[now[x]] = inside[x];
                    size[x] -= inside[x];
                }
            for (size_t at = 0, j = 0; j < ranges; j++) {
                size_t low = at, high = k->count;      /* the interval that begins with the range */
                while (low < high) {
                    size_t middle = (low + high) / 2;
                    if (k->start[middle] < r[2 * j]) low = middle + 1;
                    else high = middle;
                }
                for (at = low; at < k->count && k->start[at] <= r[2 * j + 1]; at++) {
                    if (pass) k->kind[at] = now[k->kind[at]];
                    else inside[k->kind[at]]++;
                }
            }
        }
    }
    for (size_t i = k->count; i-- > 0;)
        if (k->start[i] != 0xD800) k->sample[k->kind[i]] = k->start[i];
done:
    mem_free(class);
    mem_free(split);
    return ok;
}

/* ---- states over code points ---- */
typedef struct states {
    lang *of;                      /* the expression of each state */
    uint32_t *number;              /* hash: node -> state + 1 */
    size_t slots, capacity;
    uint32_t count;
} states;

static void states_free(states *s)
{
    mem_free(s->of);
    mem_free(s->number);
}

static bool states_add(states *s, lang a, uint32_t *out)
{
    if (s->count * 2 >= s->slots || s->count == s->capacity) {
        size_t n = s->slots ? s->slots * 2 : 64;
        uint32_t *number = MEM_ARRAY(n, uint32_t);
        lang *of = mem_resize(s->of, n, sizeof *of);
        if (of) s->of = of, s->capacity = n;
        if (!number || !of) {
            mem_free(number);
            return false;
        }
        mem_free(s->number);
        s->number = number;
        s->slots = n;
        for (uint32_t k = 0; k < s->count; k++) {
            size_t i = s->of[k] * 0x9E3779B1u & (n - 1);
            while (number[i]) i = (i + 1) & (n - 1);
            number[i] = k + 1;
        }
    }
    size_t i = a * 0x9E3779B1u & (s->slots - 1);
    for (; s->number[i]; i = (i + 1) & (s->slots - 1)) {
        if (s->of[s->number[i] - 1] == a) {
            *out = s->number[i] - 1;
            return true;
        }
    }
    s->of[s->count] = a;
    *out = s->count++;
    s->number[i] = s->count;
    return true;
}

/* Edges carry kinds of code points, not bytes. Trimmed. */
static bool dfa_of_kinds(lang_pool *p, lang a, const kinds *k, uint32_t limit, dfa *out)
{
    states s = {0};
    uint32_t first;
    bool ok = states_add(&s, a, &first);
    p->failed |= !ok;
    for (uint32_t i = 0; ok && i < s.count; i++) {
        for (uint32_t x = 0; ok && x < k->n; x++) {
            lang next = lang_derive(p, s.of[i], k->sample[x], 0);
            if (next == LANG_FAIL) continue;
            uint32_t to = 0;
            ok = next != LANG_NONE;
            if (ok && (!states_add(&s, next, &to) || !dfa_edge_add(out, i, x, x, to))) ok = false, p->failed = true;
            if (ok && (s.count > limit || out->edges > DFA_MAX_EDGES)) ok = false, p->over = true;
        }
    }
    if (ok) {
        out->states = s.count;
        out->accept = MEM_ARRAY(s.count + 1, uint8_t);
        if (!out->accept) ok = false, p->failed = true;
        for (uint32_t i = 0; ok && i < s.count; i++) out->accept[i] = p->node[s.of[i]].nullable;
        if (ok && !dfa_trim(out)) ok = false, p->failed = true;
    }
    states_free(&s);
    return ok;
}

int lang_is_fail(lang_pool *p, lang a)
{
    if (!a) return -1;
    if (a == LANG_FAIL) return 1;
    if (p->node[a].nullable) return 0;
    kinds k;
    dfa d = {0};
    bool before = p->over, found = kinds_find(p, a, &k);
    if (!found) p->failed = true;
    bool ok = found && dfa_of_kinds(p, a, &k, 3000, &d);
    int answer = ok ? d.states == 0 : -1;
    if (!p->failed && p->count < 300000) p->over = before;      /* "too large to tell" is an answer */
    kinds_free(&k);
    dfa_free(&d);
    return answer;
}

/* ---- from code points to bytes ---- */
typedef struct span { uint32_t low, high, to; } span;          /* code points, and the state they lead to */
typedef struct spell {             /* nodes of the tree of bytes; below `fixed` they are the states over code points */
    dfa *out;                      /* edges of finished nodes, by node */
    uint32_t fixed, count;
    uint32_t *first, *edges;       /* of node - fixed */
    uint32_t *slot;
    size_t slots, capacity;
    bool failed, over;
} spell;

enum { SPELL_NONE = UINT32_MAX };
typedef struct branch { uint32_t low, high, to; } branch;      /* bytes */
typedef struct branches { branch item[260]; size_t count; } branches;

static void branch_add(branches *b, uint32_t low, uint32_t high, uint32_t to)
{
    if (to == SPELL_NONE || b->count >= 260) return;
    branch *last = b->count ? &b->item[b->count - 1] : NULL;
    if (last && last->to == to && last->high + 1 == low) last->high = high;
    else b->item[b->count++] = (branch){low, high, to};
}

static int branch_order(const void *x, const void *y)
{
    const branch *a = x, *b = y;
    return a->low < b->low ? -1 : a->low > b->low;
}

static bool spell_grow(spell *s)
{
    uint32_t n = s->count - s->fixed;
    if (n * 2 < s->slots && n < s->capacity) return true;
    if (s->count > DFA_MAX_BYTE_STATES) {
        s->over = true;
        return false;
    }
    size_t size = s->slots ? s->slots * 2 : 256;
    uint32_t *slot = MEM_ARRAY(size, uint32_t), *first = mem_resize(s->first, size, sizeof *first), *edges = mem_resize(s->edges, size, sizeof *edges);
    if (first) s->first = first;
    if (edges) s->edges = edges;
    if (!slot || !first || !edges) {
        mem_free(slot);
        s->failed = true;
        return false;
    }
    s->capacity = size;
    mem_free(s->slot);
    s->slot = slot;
    s->slots = size;
    for (uint32_t k = 0; k < n; k++) {
        uint64_t h = 0;
        for (uint32_t e = 0; e < edges[k]; e++) {
            const dfa_edge *x = &s->out->edge[first[k] + e];
            h = (h ^ x->low ^ x->high << 8 ^ (uint64_t)x->to << 16) * 0x9FB21C651E98DF25u, h ^= h >> 29;
        }
        size_t i = h & (size - 1);
        while (slot[i]) i = (i + 1) & (size - 1);
        slot[i] = k + 1;
    }
    return true;
}

/* The node with these branches; equal nodes are one. */
static uint32_t spell_node(spell *s, const branches *given)
{
    branch scratch[260];
    branches sorted, *b = &sorted;
    b->count = 0;
    qsort(memcpy(scratch, given->item, given->count * sizeof *scratch), given->count, sizeof *scratch, branch_order);
    for (size_t i = 0; i < given->count; i++) branch_add(b, scratch[i].low, scratch[i].high, scratch[i].to);
    if (!b->count || s->failed || s->over || !spell_grow(s)) return SPELL_NONE;
    uint64_t h = 0;
    for (size_t e = 0; e < b->count; e++)
        h = (h ^ b->item[e].low ^ b->item[e].high << 8 ^ (uint64_t)b->item[e].to << 16) * 0x9FB21C651E98DF25u, h ^= h >> 29;
    size_t i = h & (s->slots - 1);
    for (; s->slot[i]; i = (i + 1) & (s->slots - 1)) {
        uint32_t k = s->slot[i] - 1;
        if (s->edges[k] != b->count) continue;
        bool same = true;
        for (size_t e = 0; e < b->count && same; e++) {
            const dfa_edge *x = &s->out->edge[s->first[k] + e];
            same = x->low == b->item[e].low && x->high == b->item[e].high && x->to == b->item[e].to;
        }
        if (same) return s->fixed + k;
    }
    uint32_t k = s->count - s->fixed;
    s->first[k] = (uint32_t)s->out->edges;
    s->edges[k] = (uint32_t)b->count;
    for (size_t e = 0; e < b->count; e++)
        if (!dfa_edge_add(s->out, s->fixed + k, b->item[e].low, b->item[e].high, b->item[e].to)) s->failed = true;
    if (s->out->edges > DFA_MAX_EDGES) s->over = true;
    s->slot[i] = k + 1;
    return s->count++;
}

/* Digits of one size: a value of `digits` digits of `bits` bits each, as bytes. UTF-8 continuation bytes, or hexadecimal digits. */
typedef struct alphabet { int bits; bool hex; } alphabet;

static void digit_add(branches *b, const alphabet *a, uint32_t low, uint32_t high, uint32_t to)
{
    if (!a->hex) {
        branch_add(b, 0x80 + low, 0x80 + high, to);
        return;
    }
    if (low < 10) branch_add(b, '0' + low, '0' + (high < 10 ? high : 9), to);
    if (high < 10) return;
    uint32_t from = low < 10 ? 0 : low - 10;
    branch_add(b, 'A' + from, 'A' + high - 10, to);
    branch_add(b, 'a' + from, 'a' + high - 10, to);
}

static uint32_t spell_digits(spell *s, const alphabet *a, int digits, const span *r, size_t n, uint32_t base);

/* The branches of one digit position: values [first, last] of the digit, the whole value beginning at base. */
static void digit_branches(spell *s, const alphabet *a, int digits, const span *r, size_t n, uint32_t base, uint32_t first, uint32_t last,
                           uint32_t lead, branches *out)
{
    int shift = a->bits * (digits - 1);
    uint32_t unit = 1u << shift;
    for (uint32_t d = first; d <= last; d++) {
        uint32_t from = base + d * unit, to = from + (unit - 1);
        while (n && r->high < from) r++, n--;
        if (!n) break;
        if (r->low > to) continue;
        uint32_t run = d;
        if (r->low <= from && r->high >= to) {         /* whole digits lead to one state: as many at once as there are */
            run = (r->high - base + 1) / unit - 1;
            if (run > last) run = last;
        }
        uint32_t node = digits == 1 ? r->to : spell_digits(s, a, digits - 1, r, n, from);
        if (lead) branch_add(out, lead + d, lead + run, node);
        else digit_add(out, a, d, run, node);
        d = run;
    }
}

static uint32_t spell_digits(spell *s, const alphabet *a, int digits, const span *r, size_t n, uint32_t base)
{
    branches b = {.count = 0};
    digit_branches(s, a, digits, r, n, base, 0, (1u << a->bits) - 1, 0, &b);
    return spell_node(s, &b);
}

/* The first bytes of UTF-8 for the spans; within quotes only what may stand for itself there. */
static void spell_utf8(spell *s, const span *r, size_t n, lang_form form, branches *out)
{
    static const alphabet continuation = {6, false};
    uint32_t quote = form == LANG_SINGLE ? '\'' : '"';
    for (size_t i = 0; i < n && r[i].low < 0x80; i++) {
        for (uint32_t c = r[i].low; c <= r[i].high && c < 0x80; c++)
            if (form == LANG_UTF8 || (c >= 0x20 && c != quote && c != '\\')) branch_add(out, c, c, r[i].to);
    }
    digit_branches(s, &continuation, 2, r, n, 0, 0x02, 0x1F, 0xC0, out);
    /* three bytes: U+0800 to U+FFFF */
    size_t skip = 0;
    while (skip < n && r[skip].high < 0x800) skip++;
    if (skip < n) {
        span *cut = MEM_ARRAY(n - skip + 1, span);
        if (!cut) {
            s->failed = true;
            return;
        }
        memcpy(cut, r + skip, (n - skip) * sizeof *cut);
        if (cut[0].low < 0x800) cut[0].low = 0x800;
        digit_branches(s, &continuation, 3, cut, n - skip, 0, 0, 0x0F, 0xE0, out);
        size_t more = 0;
        while (more < n - skip && cut[more].high < 0x10000) more++;
        if (more < n - skip) {
            if (cut[more].low < 0x10000) cut[more].low = 0x10000;
            digit_branches(s, &continuation, 4, cut + more, n - skip - more, 0, 0, 4, 0xF0, out);
        }
        mem_free(cut);
    }
}

static uint32_t one_byte(spell *s, uint8_t c, uint32_t to)
{
    branches b = {.count = 0};
    branch_add(&b, c, c, to);
    return spell_node(s, &b);
}

/* The 20 bits of a surrogate pair as digits: \\uD[8-B]xx\\uD[C-F]xx. The values at `level` begin at base. */
static uint32_t spell_pair(spell *s, int level, const span *r, size_t n, uint32_t base)
{
    static const struct { int bits, below, first; } digit[] = {{2, 18, 8}, {4, 14, 0}, {4, 10, 0}, {2, 8, 12}, {4, 4, 0}, {4, 0, 0}};
    static const alphabet hex = {4, true};
    uint32_t unit = 1u << digit[level].below;
    branches b = {.count = 0};
    for (uint32_t d = 0; d < 1u << digit[level].bits; d++) {
        uint32_t from = base + d * unit, to = from + (unit - 1), run = d, node;
        while (n && r->high < from) r++, n--;
        if (!n) break;
        if (r->low > to) continue;
        if (r->low <= from && r->high >= to) {
            run = (r->high - base + 1) / unit - 1;
            if (run > (1u << digit[level].bits) - 1) run = (1u << digit[level].bits) - 1;
        }
        node = level == 5 ? r->to : spell_pair(s, level + 1, r, n, from);
        if (level == 2 && node != SPELL_NONE)
            node = one_byte(s, '\\', one_byte(s, 'u', spell_node(s, &(branches){.item = {{'D', 'D', node}, {'d', 'd', node}}, .count = 2})));
        digit_add(&b, &hex, digit[level].first + d, digit[level].first + run, node);
        d = run;
    }
    return spell_node(s, &b);
}

static void copy_branches(const spell *s, uint32_t node, branches *out)
{
    for (uint32_t e = 0; node != SPELL_NONE && e < s->edges[node - s->fixed]; e++) {
        const dfa_edge *x = &s->out->edge[s->first[node - s->fixed] + e];
        branch_add(out, x->low, x->high, x->to);
    }
}

/* What may follow the u of \\u: four digits, or D and the digits of a pair. */
static uint32_t spell_hex(spell *s, const span *r, size_t n)
{
    static const alphabet hex = {4, true};
    span *cut = MEM_ARRAY(n + 2, span);
    if (!cut) {
        s->failed = true;
        return SPELL_NONE;
    }
    size_t pairs = 0, basic = 0;                       /* beyond U+FFFF, counted from there; below it */
    for (size_t i = 0; i < n; i++)
        if (r[i].high > 0xFFFF) cut[pairs++] = (span){r[i].low < 0x10000 ? 0 : r[i].low - 0x10000, r[i].high - 0x10000, r[i].to};
    uint32_t pair = pairs ? spell_pair(s, 0, cut, pairs, 0) : SPELL_NONE;
    /* printable ASCII stands for itself: nobody writes \u0061, and the automaton would be three times as large */
    for (size_t i = 0; i < n && r[i].low <= 0xFFFF; i++) {
        uint32_t high = r[i].high < 0xFFFF ? r[i].high : 0xFFFF;
        if (r[i].low < 0x20) cut[basic++] = (span){r[i].low, high < 0x1F ? high : 0x1F, r[i].to};
        if (high > 0x7E) cut[basic++] = (span){r[i].low > 0x7F ? r[i].low : 0x7F, high, r[i].to};
    }
    branches b = {.count = 0}, d = {.count = 0};
    digit_branches(s, &hex, 4, cut, basic, 0, 0, 12, 0, &b);
    digit_branches(s, &hex, 3, cut, basic, 0xD000, 0, 15, 0, &d);      /* D0 to D7: no surrogates are in the spans */
    copy_branches(s, pair, &d);
    uint32_t node = spell_node(s, &d);
    branch_add(&b, 'D', 'D', node);
    branch_add(&b, 'd', 'd', node);
    digit_branches(s, &hex, 4, cut, basic, 0, 14, 15, 0, &b);
    mem_free(cut);
    return spell_node(s, &b);
}

static uint32_t spans_find(const span *r, size_t n, uint32_t code)
{
    for (size_t i = 0; i < n && r[i].low <= code; i++)
        if (code <= r[i].high) return r[i].to;
    return SPELL_NONE;
}

/* What may follow a backslash. */
static uint32_t spell_escape(spell *s, const span *r, size_t n, lang_form form)
{
    static const struct { char letter; uint32_t code; } shorts[] = {{'"', '"'}, {'/', '/'}, {'\'', '\''}, {'\\', '\\'}, {'b', 8}, {'f', 12}, {'n', 10}, {'r', 13}, {'t', 9}};
    branches b = {.count = 0};
    for (size_t i = 0; i < sizeof shorts / sizeof *shorts; i++)
        if ((shorts[i].letter != '"' || form != LANG_SINGLE) && (shorts[i].letter != '/' || form == LANG_JSON) && (shorts[i].letter != '\'' || form == LANG_SINGLE)) branch_add(&b, (uint8_t)shorts[i].letter, (uint8_t)shorts[i].letter, spans_find(r, n, shorts[i].code));
    branch_add(&b, 'u', 'u', spell_hex(s, r, n));
    return spell_node(s, &b);
}

/* The spans of one state: kinds become code points again. */
static size_t state_spans(const kinds *k, const uint32_t *to, span *out)
{
    size_t n = 0;
    for (size_t i = 0; i < k->count; i++) {
        uint32_t high = i + 1 < k->count ? k->start[i + 1] - 1 : LANG_LAST, next = to[k->kind[i]];
        if (next == SPELL_NONE || k->start[i] == 0xD800) continue;
        if (n && out[n - 1].to == next && out[n - 1].high + 1 == k->start[i]) out[n - 1].high = high;
        else out[n++] = (span){k->start[i], high, next};
    }
    return n;
}

static int edge_order(const void *a, const void *b)
{
    const dfa_edge *x = a, *y = b;
    return x->from != y->from ? (x->from < y->from ? -1 : 1) : x->low < y->low ? -1 : x->low > y->low;
}

static bool dfa_to_bytes(lang_pool *p, const dfa *d, const kinds *k, lang_form form, dfa *out)
{
    spell s = {.out = out, .fixed = d->states, .count = d->states};
    uint32_t *to = MEM_ARRAY(k->n + 1, uint32_t);
    span *r = MEM_ARRAY(k->count + 2, span);
    bool ok = to && r;
    if (!ok) p->failed = true;
    for (size_t i = 0, e = 0; ok && i < d->states; i++) {
        for (uint32_t x = 0; x < k->n; x++) to[x] = SPELL_NONE;
        for (; e < d->edges && d->edge[e].from == i; e++)
            for (uint32_t x = d->edge[e].low; x <= d->edge[e].high; x++) to[x] = d->edge[e].to;
        size_t n = state_spans(k, to, r);
        branches b = {.count = 0};
        spell_utf8(&s, r, n, form, &b);
        if (form != LANG_UTF8 && n) branch_add(&b, '\\', '\\', spell_escape(&s, r, n, form));
        qsort(b.item, b.count, sizeof *b.item, branch_order);
        for (size_t x = 0; x < b.count; x++)
            if (!dfa_edge_add(out, (uint32_t)i, b.item[x].low, b.item[x].high, b.item[x].to)) s.failed = true;
        ok = !s.failed && !s.over;
    }
    p->failed |= s.failed;
    p->over |= s.over;
    if (ok) {
        out->states = s.count;
        out->accept = MEM_ARRAY(s.count + 1, uint8_t);
        if (out->accept) memcpy(out->accept, d->accept, d->states);
        else ok = false, p->failed = true;
        if (out->edges) qsort(out->edge, out->edges, sizeof *out->edge, edge_order);
    }
    mem_free(to);
    mem_free(r);
    mem_free(s.first);
    mem_free(s.edges);
    mem_free(s.slot);
    return ok;
}

bool lang_dfa(lang_pool *p, lang a, lang_form form, dfa *out, vlm_error *error)
{
    *out = (dfa){0};
    if (!a || p->failed || p->over) return !lang_failed(p, error) && err_memory(error, 0);
    kinds k;
    dfa d = {0};
    bool found = kinds_find(p, a, &k);
    if (!found) p->failed = true;
    bool ok = found && dfa_of_kinds(p, a, &k, DFA_MAX_STATES, &d);
    if (ok && d.states) ok = dfa_to_bytes(p, &d, &k, form, out);
    kinds_free(&k);
    dfa_free(&d);
    if (ok) return true;
    dfa_free(out);
    return !lang_failed(p, error) && err_memory(error, 0);
}
