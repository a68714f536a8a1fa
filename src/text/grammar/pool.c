/* pool.c - hash-consed expressions and the rules that keep them small: constructors simplify, so that the derivatives of an
 * expression are finitely many. */
#include <string.h>

#include "text/grammar/internal.h"
#include "text/utf8.h"

uint32_t gpool_fail(gpool *p, const char *reason)
{
    if (!p->failed) {
        p->failed = true;
        p->reason = reason;
    }
    return GE_FAILED;
}

/* Room for one more element; the array keeps its place on failure. */
static bool room(gpool *p, void **array, size_t count, size_t more, size_t *capacity, size_t size)
{
    if (count + more <= *capacity) return true;
    size_t n = *capacity ? *capacity * 2 : 64;
    while (n < count + more) n *= 2;
    void *grown = n < UINT32_MAX ? mem_resize(*array, n, size) : NULL;
    if (!grown) {
        gpool_fail(p, NULL);
        return false;
    }
    *array = grown;
    *capacity = n;
    return true;
}

bool gpool_push(gpool *p, uint32_t x)
{
    if (!room(p, (void **)&p->stack, p->stack_count, 1, &p->stack_capacity, sizeof *p->stack)) return false;
    p->stack[p->stack_count++] = x;
    return true;
}

static uint32_t hash_words(uint32_t h, const void *data, size_t size)
{
    const uint8_t *at = data;
    for (; size >= 4; at += 4, size -= 4) {
        uint32_t w;
        memcpy(&w, at, 4);
        h = (h ^ w) * 0x9E3779B1u;
        h ^= h >> 15;
    }
    for (; size; size--) h = (h ^ *at++) * 0x01000193u;
    return h ^ h >> 13;
}

static const void *payload(const gpool *p, const gnode *n, size_t *size)
{
    switch ((gkind)n->kind) {
    case G_BYTES: case G_NAME: *size = n->b; return p->bytes + n->a;
    case G_ALT: case G_AND: *size = n->b * sizeof *p->list; return p->list + n->a;
    case G_SET: *size = sizeof(gset); return p->set + n->a;
    default: *size = 0; return NULL;
    }
}

static bool grow_table(gpool *p)
{
    size_t n = p->table_size ? p->table_size * 2 : 256;
    uint32_t *table = MEM_ARRAY(n, uint32_t);
    if (!table) {
        gpool_fail(p, NULL);
        return false;
    }
    for (size_t i = 1; i < p->count; i++) {
        size_t at = p->node[i].hash & (n - 1);
        while (table[at]) at = (at + 1) & (n - 1);
        table[at] = (uint32_t)i;
    }
    mem_free(p->table);
    p->table = table;
    p->table_size = n;
    return true;
}

/* The node equal to n with this payload, made if there is none. For kinds with a payload n.a is where it lies already, or UINT32_MAX: it has to be
 * copied. */
static uint32_t intern(gpool *p, gnode n, const void *data, size_t size)
{
    if (p->failed) return GE_FAILED;
    if (n.depth > GRAMMAR_DEPTH) return gpool_fail(p, "the grammar is nested too deeply");
    const uint32_t plain[5] = {n.kind, data ? 0 : n.a, n.b, n.min, n.max};
    n.hash = hash_words(hash_words(0x1234567, plain, sizeof plain), data, size);
    if (2 * (p->count + 1) > p->table_size && !grow_table(p)) return GE_FAILED;
    size_t at = n.hash & (p->table_size - 1);
    for (; p->table[at]; at = (at + 1) & (p->table_size - 1)) {
        const gnode *old = &p->node[p->table[at]];
        if (old->hash != n.hash || old->kind != n.kind || old->b != n.b || old->min != n.min || old->max != n.max) continue;
        size_t old_size;
        const void *old_data = payload(p, old, &old_size);
        if (old_data ? old_size == size && !memcmp(old_data, data, size) : old->a == n.a) return p->table[at];
    }
    if (p->count >= p->limit) return gpool_fail(p, "the grammar is too large");
    if (!room(p, (void **)&p->node, p->count, 1, &p->capacity, sizeof *p->node)) return GE_FAILED;
    if (data && n.a == UINT32_MAX) {
        if (n.kind == G_SET) {
            if (!room(p, (void **)&p->set, p->set_count, 1, &p->set_capacity, sizeof *p->set)) return GE_FAILED;
            n.a = (uint32_t)p->set_count;
            memcpy(&p->set[p->set_count++], data, size);
        } else if (n.kind == G_BYTES || n.kind == G_NAME) {
            if (!room(p, (void **)&p->bytes, p->bytes_count, size, &p->bytes_capacity, 1)) return GE_FAILED;
            n.a = (uint32_t)p->bytes_count;
            memcpy(p->bytes + p->bytes_count, data, size);
            p->bytes_count += size;
        } else {
            if (!room(p, (void **)&p->list, p->list_count, n.b, &p->list_capacity, sizeof *p->list)) return GE_FAILED;
            n.a = (uint32_t)p->list_count;
            memcpy(p->list + p->list_count, data, size);
            p->list_count += n.b;
        }
    }
    p->table[at] = (uint32_t)p->count;
    p->node[p->count] = n;
    return (uint32_t)p->count++;
}

bool gpool_init(gpool *p, size_t limit)
{
    *p = (gpool){.limit = limit, .count = 1};
    if (!room(p, (void **)&p->node, 0, 1, &p->capacity, sizeof *p->node) || !grow_table(p)) return false;
    memset(p->node, 0, sizeof *p->node);
    const gset all = {{~0ull, ~0ull, ~0ull, ~0ull}};
    intern(p, (gnode){.kind = G_NONE, .flags = GF_TEXT}, NULL, 0);
    intern(p, (gnode){.kind = G_EMPTY, .flags = GF_NULLABLE | GF_TEXT}, NULL, 0);
    gx_set(p, &all);
    intern(p, (gnode){.kind = G_REPEAT, .flags = GF_NULLABLE, .a = GE_BYTE, .max = GRAMMAR_MANY, .depth = 1}, NULL, 0);
    p->character = gx_class(p, NULL, 0, true);
    p->text = gx_repeat(p, p->character, 0, GRAMMAR_MANY);
    return !p->failed;
}

bool gpool_share_dfas(gpool *to, const gpool *from)
{
    if (!from->dfa_count) return true;
    if (!room(to, (void **)&to->dfa, 0, from->dfa_count, &to->dfa_capacity, sizeof *to->dfa)) return false;
    for (size_t i = 0; i < from->dfa_count; i++) {
        to->dfa[i] = from->dfa[i];
        to->dfa[i]->references++;
    }
    to->dfa_count = from->dfa_count;
    return true;
}

static bool copy_array(void **to, const void *from, size_t count, size_t capacity, size_t size)
{
    if (!capacity) return true;
    if (!(*to = mem_new(capacity, size))) return false;
    memcpy(*to, from, count * size);
    return true;
}

bool gpool_copy(gpool *to, const gpool *from)
{
    *to = *from;
    to->node = NULL, to->table = NULL, to->list = NULL, to->bytes = NULL, to->set = NULL, to->stack = NULL;
    to->stack_count = to->stack_capacity = 0;
    to->dfa = NULL, to->dfa_count = to->dfa_capacity = 0;
    if (gpool_share_dfas(to, from) && copy_array((void **)&to->node, from->node, from->count, from->capacity, sizeof *from->node)
        && copy_array((void **)&to->table, from->table, from->table_size, from->table_size, sizeof *from->table)
        && copy_array((void **)&to->list, from->list, from->list_count, from->list_capacity, sizeof *from->list)
        && copy_array((void **)&to->bytes, from->bytes, from->bytes_count, from->bytes_capacity, 1)
        && copy_array((void **)&to->set, from->set, from->set_count, from->set_capacity, sizeof *from->set)) return true;
    gpool_free(to);
    return false;
}

size_t gpool_bytes(const gpool *p)
{
    return p->capacity * sizeof *p->node + p->table_size * sizeof *p->table + p->list_capacity * sizeof *p->list + p->bytes_capacity
        + p->set_capacity * sizeof *p->set + p->stack_capacity * sizeof *p->stack;
}

void gpool_free(gpool *p)
{
    for (size_t i = 0; i < p->dfa_count; i++) {
        if (--p->dfa[i]->references) continue;
        mem_free(p->dfa[i]->accept);
        mem_free(p->dfa[i]->first);
        mem_free(p->dfa[i]->edge);
        mem_free(p->dfa[i]);
    }
    mem_free(p->dfa);
    mem_free(p->node);
    mem_free(p->table);
    mem_free(p->list);
    mem_free(p->bytes);
    mem_free(p->set);
    mem_free(p->stack);
    *p = (gpool){.failed = true};
}

/* ---- constructors ---- */
static uint32_t literal(gpool *p, const void *data, size_t size, uint32_t at)
{
    return intern(p, (gnode){.kind = G_BYTES, .flags = utf8_valid(data, size) ? GF_TEXT : 0, .a = at, .b = (uint32_t)size}, data, size);
}

uint32_t gx_bytes(gpool *p, const void *data, size_t size)
{
    /* Chunks, so that walking along a long literal costs the same at each byte; cut between characters. */
    uint32_t x = GE_EMPTY;
    const uint8_t *bytes = data;
    while (size && x) {
        size_t n = size % GRAMMAR_CHUNK ? size % GRAMMAR_CHUNK : GRAMMAR_CHUNK;
        const size_t most = n;
        while (n < size && n > 1 && (bytes[size - n] & 0xC0) == 0x80) n--;
        if (n < size && (bytes[size - n] & 0xC0) == 0x80) n = most;
        x = gx_seq(p, literal(p, bytes + size - n, n, UINT32_MAX), x);
        size -= n;
    }
    return p->failed ? GE_FAILED : x;
}

uint32_t gx_rest(gpool *p, uint32_t bytes)
{
    const gnode n = p->node[bytes];
    return n.b == 1 ? GE_EMPTY : literal(p, p->bytes + n.a + 1, n.b - 1, n.a + 1);
}

uint32_t gx_name(gpool *p, const void *text, size_t size)
{
    if (size > 4096) return gpool_fail(p, "the name of a token is too long");
    return intern(p, (gnode){.kind = G_NAME, .flags = GF_IRREGULAR, .a = UINT32_MAX, .b = (uint32_t)size}, text, size);
}

uint32_t gx_set(gpool *p, const gset *s)
{
    if (!gset_count(s)) return GE_NONE;
    const uint8_t ascii = s->bits[2] | s->bits[3] ? 0 : GF_TEXT;
    return intern(p, (gnode){.kind = G_SET, .flags = ascii, .a = UINT32_MAX}, s, sizeof *s);
}

uint32_t gx_rule(gpool *p, uint32_t rule) { return intern(p, (gnode){.kind = G_RULE, .flags = GF_IRREGULAR, .a = rule}, NULL, 0); }
uint32_t gx_token(gpool *p, uint32_t id) { return intern(p, (gnode){.kind = G_TOKEN, .flags = GF_IRREGULAR, .a = id}, NULL, 0); }

uint32_t gx_dfa(gpool *p, uint32_t dfa, uint32_t state)
{
    return intern(p, (gnode){.kind = G_DFA, .flags = p->dfa[dfa]->accept[state] ? GF_NULLABLE : 0, .a = dfa, .b = state}, NULL, 0);
}

uint32_t gx_seq(gpool *p, uint32_t a, uint32_t b)
{
    if (!a || !b || p->failed) return GE_FAILED;
    if (a == GE_NONE || b == GE_NONE) return GE_NONE;
    if (a == GE_EMPTY) return b;
    if (b == GE_EMPTY) return a;
    const size_t mark = p->stack_count;
    while (gkind_of(p, a) == G_SEQ) {
        if (!gpool_push(p, p->node[a].a)) return GE_FAILED;
        a = p->node[a].b;
    }
    for (;;) {
        const gnode x = p->node[a], y = p->node[b];
        const uint8_t flags = (x.flags & y.flags & (GF_NULLABLE | GF_TEXT)) | ((x.flags | y.flags) & GF_IRREGULAR);
        const uint16_t depth = x.depth + 1 > y.depth ? x.depth + 1 : y.depth;
        b = intern(p, (gnode){.kind = G_SEQ, .flags = flags, .depth = depth, .a = a, .b = b}, NULL, 0);
        if (!b || p->stack_count == mark) break;
        a = p->stack[--p->stack_count];
    }
    p->stack_count = mark;
    return b;
}

static int by_number(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Sorts what lies on the stack since mark and drops doubles. */
static void sort_list(gpool *p, size_t mark)
{
    if (p->stack_count - mark < 2) return;
    uint32_t *list = p->stack + mark;
    const size_t n = p->stack_count - mark;
    bool sorted = true;
    for (size_t i = 1; i < n && sorted; i++) sorted = list[i - 1] < list[i];
    if (sorted) return;
    if (n <= 16) {
        for (size_t i = 1; i < n; i++) {
            const uint32_t x = list[i];
            size_t j = i;
            for (; j && list[j - 1] > x; j--) list[j] = list[j - 1];
            list[j] = x;
        }
    } else qsort(list, n, sizeof *list, by_number);
    size_t kept = 1;
    for (size_t i = 1; i < n; i++) if (list[i] != list[kept - 1]) list[kept++] = list[i];
    p->stack_count = mark + kept;
}

/* Replaces members that are lists of the same kind by their members. */
static bool flatten(gpool *p, size_t mark, gkind kind)
{
    if (!gpool_work(p, p->stack_count - mark)) return false;
    const size_t end = p->stack_count;
    size_t kept = mark;
    for (size_t i = mark; i < end; i++) {
        const uint32_t x = p->stack[i];
        if (gkind_of(p, x) != kind) {
            p->stack[kept++] = x;
            continue;
        }
        for (uint32_t k = 0; k < p->node[x].b; k++) if (!gpool_push(p, p->list[p->node[x].a + k])) return false;
    }
    const size_t added = p->stack_count - end;
    if (added) memmove(p->stack + kept, p->stack + end, added * sizeof *p->stack);
    p->stack_count = kept + added;
    return true;
}

static uint32_t list_node(gpool *p, size_t mark, gkind kind)
{
    const size_t n = p->stack_count - mark;
    if (!gpool_work(p, n)) return GE_FAILED;
    gnode node = {.kind = (uint8_t)kind, .a = UINT32_MAX, .b = (uint32_t)n};
    uint8_t all = 0xFF, any = 0;
    for (size_t i = mark; i < p->stack_count; i++) {
        const gnode *x = &p->node[p->stack[i]];
        all &= x->flags;
        any |= x->flags;
        if (x->depth >= node.depth) node.depth = x->depth + 1;
    }
    if (kind == G_ALT) node.flags = (all & GF_TEXT) | (any & GF_NULLABLE);
    else node.flags = (any & GF_TEXT) | (all & GF_NULLABLE);
    node.flags |= any & GF_IRREGULAR;
    const uint32_t x = intern(p, node, p->stack + mark, n * sizeof *p->stack);
    p->stack_count = mark;
    return x;
}

uint32_t gx_alt(gpool *p, size_t mark)
{
    if (p->failed || !flatten(p, mark, G_ALT)) {
        p->stack_count = mark;
        return GE_FAILED;
    }
    bool all = false, text = false, nullable = false, empty = false;
    gset bytes = {{0}};
    int sets = 0;
    size_t kept = mark;
    for (size_t i = mark; i < p->stack_count; i++) {
        const uint32_t x = p->stack[i];
        if (x == GE_NONE || (empty && x == GE_EMPTY)) continue;
        if (x == GE_EMPTY) empty = true;
        else if (gnullable(p, x)) nullable = true;
        all |= x == GE_ALL;
        text |= x == p->text && p->text;
        if (gkind_of(p, x) == G_SET) {
            for (int k = 0; k < 4; k++) bytes.bits[k] |= p->set[p->node[x].a].bits[k];
            sets++;
        }
        p->stack[kept++] = x;
    }
    p->stack_count = kept;
    if (all && !p->failed) {
        bool regular = true;
        for (size_t i = mark; i < kept; i++) regular &= !(gflags(p, p->stack[i]) & GF_IRREGULAR);
        if (regular) {
            p->stack_count = mark;
            return GE_ALL;
        }
    }
    if ((empty && nullable) || sets > 1 || text) {
        kept = mark;
        for (size_t i = mark; i < p->stack_count; i++) {
            const uint32_t x = p->stack[i];
            if (x == GE_EMPTY && nullable) continue;
            if (sets > 1 && gkind_of(p, x) == G_SET) continue;
            if (text && x != p->text && (gflags(p, x) & (GF_TEXT | GF_IRREGULAR)) == GF_TEXT) continue;
            p->stack[kept++] = x;
        }
        p->stack_count = kept;
        if (sets > 1 && !gpool_push(p, gx_set(p, &bytes))) return GE_FAILED;
    }
    sort_list(p, mark);
    if (p->stack_count == mark) return GE_NONE;
    if (p->stack_count == mark + 1) return p->stack[--p->stack_count];
    return list_node(p, mark, G_ALT);
}

uint32_t gx_alt2(gpool *p, uint32_t a, uint32_t b)
{
    if (!a || !b) return GE_FAILED;
    if (a == b || b == GE_NONE) return a;
    if (a == GE_NONE) return b;
    const size_t mark = p->stack_count;
    return gpool_push(p, a) && gpool_push(p, b) ? gx_alt(p, mark) : GE_FAILED;
}

uint32_t gx_and(gpool *p, size_t mark)
{
    if (p->failed || !flatten(p, mark, G_AND)) {
        p->stack_count = mark;
        return GE_FAILED;
    }
    size_t kept = mark;
    bool none = false, text = false, empty = false, nullable = true;
    for (size_t i = mark; i < p->stack_count; i++) {
        const uint32_t x = p->stack[i];
        none |= x == GE_NONE;
        empty |= x == GE_EMPTY;
        nullable &= gnullable(p, x) != 0;
        text |= x != p->text && (gflags(p, x) & GF_TEXT);
        if (x != GE_ALL) p->stack[kept++] = x;
    }
    p->stack_count = kept;
    if (none || empty) {
        p->stack_count = mark;
        return none || !nullable ? GE_NONE : GE_EMPTY;
    }
    if (text) {                    /* any text adds nothing then */
        kept = mark;
        for (size_t i = mark; i < p->stack_count; i++) if (p->stack[i] != p->text) p->stack[kept++] = p->stack[i];
        p->stack_count = kept;
    }
    sort_list(p, mark);
    if (p->stack_count == mark) return GE_ALL;
    if (p->stack_count == mark + 1) return p->stack[--p->stack_count];
    return list_node(p, mark, G_AND);
}

uint32_t gx_and2(gpool *p, uint32_t a, uint32_t b)
{
    if (!a || !b) return GE_FAILED;
    const size_t mark = p->stack_count;
    return gpool_push(p, a) && gpool_push(p, b) ? gx_and(p, mark) : GE_FAILED;
}

uint32_t gx_not(gpool *p, uint32_t x)
{
    if (!x) return GE_FAILED;
    if (x == GE_NONE) return GE_ALL;
    if (x == GE_ALL) return GE_NONE;
    const gnode n = p->node[x];
    if (n.kind == G_NOT) return n.a;
    const uint8_t flags = (n.flags & GF_NULLABLE ? 0 : GF_NULLABLE) | (n.flags & GF_IRREGULAR);
    return intern(p, (gnode){.kind = G_NOT, .flags = flags, .depth = n.depth + 1, .a = x}, NULL, 0);
}

/* Is x{a,b}{c,d} the same as x{ac,bd}? When k rounds and k + 1 rounds leave no gap, for every k. */
static bool joins(uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    if (d == 0) return false;
    if (c == 0 && a > 1) return false;
    const uint64_t k = c ? c : 1;
    return b == GRAMMAR_MANY || c == d || k * b + 1 >= (k + 1) * a;
}

uint32_t gx_repeat(gpool *p, uint32_t x, uint32_t min, uint32_t max)
{
    if (!x || p->failed) return GE_FAILED;
    if (max == 0 || x == GE_EMPTY) return GE_EMPTY;
    if (x == GE_NONE) return min ? GE_NONE : GE_EMPTY;
    if (gnullable(p, x)) min = 0;
    if (min == 1 && max == 1) return x;
    if (min == 0 && gkind_of(p, x) == G_ALT) {        /* (|a)* is a* */
        const gnode n = p->node[x];
        const size_t mark = p->stack_count;
        bool had = false;
        for (uint32_t i = 0; i < n.b; i++) {
            if (p->list[n.a + i] == GE_EMPTY) had = true;
            else if (!gpool_push(p, p->list[n.a + i])) return GE_FAILED;
        }
        if (had) x = gx_alt(p, mark);
        else p->stack_count = mark;
        if (!x) return GE_FAILED;
    }
    gnode n = p->node[x];
    if (n.kind == G_REPEAT && joins(n.min, n.max, min, max)) {
        const bool many = n.max == GRAMMAR_MANY || max == GRAMMAR_MANY;
        const uint64_t most = many ? GRAMMAR_MANY : (uint64_t)n.max * max, least = (uint64_t)n.min * min;
        if (least < 1u << 30 && (many || most < 1u << 30)) return gx_repeat(p, n.a, (uint32_t)least, (uint32_t)most);
    }
    if (min == 0 && max == 1 && gnullable(p, x)) return x;
    const uint8_t flags = (n.flags & (GF_TEXT | GF_IRREGULAR | GF_NULLABLE)) | (min == 0 ? GF_NULLABLE : 0);
    return intern(p, (gnode){.kind = G_REPEAT, .flags = flags, .depth = n.depth + 1, .a = x, .min = min, .max = max}, NULL, 0);
}
