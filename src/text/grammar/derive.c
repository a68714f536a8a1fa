/* derive.c - Brzozowski derivatives: what an expression becomes after one byte, which rules it may call first, whether it is
 * empty. Intersections and complements may be empty without showing it; such ones are searched for a word as soon as they arise, so that
 * a matcher never enters a place from which the end cannot be reached. */
#include <string.h>

#include "text/grammar/internal.h"

static uint32_t derive(gpool *p, uint32_t x, uint8_t byte, gset *same, bool check);

static void narrow(gset *same, const gset *s, uint8_t byte)
{
    const uint64_t flip = gset_has(s, byte) ? 0 : ~0ull;
    for (int i = 0; i < 4; i++) same->bits[i] &= s->bits[i] ^ flip;
}

static uint32_t derive_seq(gpool *p, uint32_t x, uint8_t byte, gset *same, bool check)
{
    const size_t mark = p->stack_count;
    while (!p->failed) {
        const gnode n = p->node[x];
        const uint32_t head = n.kind == G_SEQ ? n.a : x;
        uint32_t d = derive(p, head, byte, same, check);
        if (n.kind == G_SEQ) d = gx_seq(p, d, n.b);
        if (d != GE_NONE && !gpool_push(p, d)) break;
        if (n.kind != G_SEQ || !gnullable(p, head)) break;
        x = n.b;
    }
    return gx_alt(p, mark);
}

/* Is a new intersection or complement of any use? */
static uint32_t checked(gpool *p, uint32_t x, bool check)
{
    return check && x && (p->node[x].kind == G_AND || p->node[x].kind == G_NOT) && gx_empty(p, x) ? GE_NONE : x;
}

static uint32_t derive(gpool *p, uint32_t x, uint8_t byte, gset *same, bool check)
{
    if (p->failed || !gpool_work(p, 1)) return GE_FAILED;
    const gnode n = p->node[x];
    switch ((gkind)n.kind) {
    case G_BYTES: {
        const uint8_t first = p->bytes[n.a];
        if (first != byte) {
            same->bits[first >> 6] &= ~(1ull << (first & 63));
            return GE_NONE;
        }
        gset one = {{0}};
        gset_add(&one, byte);
        narrow(same, &one, byte);
        return gx_rest(p, x);
    }
    case G_SET:
        narrow(same, &p->set[n.a], byte);
        return gset_has(&p->set[n.a], byte) ? GE_EMPTY : GE_NONE;
    case G_DFA: {
        const gdfa *d = p->dfa[n.a];
        for (uint32_t i = d->first[n.b]; i < d->first[n.b + 1]; i++) {
            const grammar_dfa_edge e = d->edge[i];
            gset s = {{0}};
            for (unsigned c = e.low; c <= e.high; c++) gset_add(&s, c);
            narrow(same, &s, byte);
            if (byte >= e.low && byte <= e.high) return gx_dfa(p, n.a, e.to);
        }
        return GE_NONE;
    }
    case G_SEQ:
        return derive_seq(p, x, byte, same, check);
    case G_REPEAT: {
        const uint32_t d = derive(p, n.a, byte, same, check);
        if (d <= GE_NONE) return d;
        return gx_seq(p, d, gx_repeat(p, n.a, n.min ? n.min - 1 : 0, n.max == GRAMMAR_MANY ? n.max : n.max - 1));
    }
    case G_ALT: {
        const size_t mark = p->stack_count;
        for (uint32_t i = 0; i < n.b; i++) {
            const uint32_t d = derive(p, p->list[n.a + i], byte, same, check);
            if (d != GE_NONE && !gpool_push(p, d)) break;
        }
        return gx_alt(p, mark);
    }
    case G_AND: {
        const size_t mark = p->stack_count;
        for (uint32_t i = 0; i < n.b; i++) {
            const uint32_t d = derive(p, p->list[n.a + i], byte, same, false);
            if (!d || !gpool_push(p, d)) return GE_FAILED;
            if (d == GE_NONE) break;
        }
        return checked(p, gx_and(p, mark), check);
    }
    case G_NOT:
        return checked(p, gx_not(p, derive(p, n.a, byte, same, false)), check);
    default:
        return GE_NONE;
    }
}

uint32_t gx_derive(gpool *p, uint32_t x, uint8_t byte, gset *same) { return derive(p, x, byte, same, true); }

/* Depth-first search for a nullable derivative. On success everything on the way there is live; when nothing is found all that was
 * seen is dead. */
typedef struct search { uint32_t *node, *parent; size_t count, capacity; uint32_t *seen; size_t seen_size; bool failed; } search;

static bool search_add(search *s, uint32_t x, uint32_t parent)
{
    if (2 * (s->count + 1) > s->seen_size) {
        const size_t n = s->seen_size ? 2 * s->seen_size : 64;
        uint32_t *seen = MEM_ARRAY(n, uint32_t);
        if (!seen) return !(s->failed = true);
        for (size_t i = 0; i < s->count; i++) {
            size_t at = s->node[i] * 0x9E3779B1u & (n - 1);
            while (seen[at]) at = (at + 1) & (n - 1);
            seen[at] = (uint32_t)i + 1;
        }
        mem_free(s->seen);
        s->seen = seen;
        s->seen_size = n;
    }
    size_t at = x * 0x9E3779B1u & (s->seen_size - 1);
    for (; s->seen[at]; at = (at + 1) & (s->seen_size - 1)) if (s->node[s->seen[at] - 1] == x) return true;
    if (s->count == s->capacity) {
        const size_t n = s->capacity ? 2 * s->capacity : 64;
        uint32_t *node = mem_resize(s->node, n, sizeof *node);
        if (node) s->node = node;
        uint32_t *up = node ? mem_resize(s->parent, n, sizeof *up) : NULL;
        if (!up) return !(s->failed = true);
        s->parent = up;
        s->capacity = n;
    }
    s->node[s->count] = x;
    s->parent[s->count] = parent;
    s->seen[at] = (uint32_t)++s->count;
    return true;
}

bool gx_empty(gpool *p, uint32_t x)
{
    enum { MOST = 100000 };
    if (p->failed || x == GE_NONE) return x == GE_NONE;
    if (gnullable(p, x) || (gflags(p, x) & GF_LIVE)) return false;
    if (gflags(p, x) & GF_DEAD) return true;
    search s = {0};
    uint32_t *stack = NULL;
    size_t depth = 0, capacity = 0;
    uint32_t found = UINT32_MAX;
    search_add(&s, x, UINT32_MAX);
    size_t expanded = 0;
    /* The stack holds indices into s.node that are still to be expanded. */
    if ((stack = MEM_ARRAY(64, uint32_t))) capacity = 64, stack[depth++] = 0;
    else s.failed = true;
    while (depth && found == UINT32_MAX && !s.failed && !p->failed) {
        const uint32_t at = stack[--depth];
        if (++expanded > MOST) {
            gpool_fail(p, "an intersection or complement has too many states");
            break;
        }
        gset left = {{~0ull, ~0ull, ~0ull, ~0ull}};
        for (unsigned byte = 0; byte < 256 && found == UINT32_MAX; byte++) {
            if (!gset_has(&left, byte)) continue;
            gset same = {{~0ull, ~0ull, ~0ull, ~0ull}};
            const uint32_t d = derive(p, s.node[at], (uint8_t)byte, &same, false);
            for (int i = 0; i < 4; i++) left.bits[i] &= ~same.bits[i];
            if (d <= GE_NONE || (gflags(p, d) & GF_DEAD)) continue;
            if (gnullable(p, d) || (gflags(p, d) & GF_LIVE)) {
                found = at;
                break;
            }
            const size_t before = s.count;
            if (!search_add(&s, d, at) || s.count == before) continue;
            if (depth == capacity) {
                uint32_t *more = mem_resize(stack, capacity * 2, sizeof *more);
                if (!more) {
                    s.failed = true;
                    break;
                }
                stack = more;
                capacity *= 2;
            }
            stack[depth++] = (uint32_t)before;
        }
    }
    if (s.failed) gpool_fail(p, NULL);
    if (!p->failed) {
        if (found == UINT32_MAX) for (size_t i = 0; i < s.count; i++) p->node[s.node[i]].flags |= GF_DEAD;
        else for (uint32_t i = found; i != UINT32_MAX; i = s.parent[i]) p->node[s.node[i]].flags |= GF_LIVE;
    }
    mem_free(stack);
    mem_free(s.node);
    mem_free(s.parent);
    mem_free(s.seen);
    return found == UINT32_MAX && !p->failed;
}

/* ---- calls ---- */
static void add_call(gpool *p, gcalls *out, size_t from, uint32_t kind, uint32_t what, uint32_t then)
{
    for (size_t i = from; i < out->count; i++) {
        if (out->item[i].kind == kind && out->item[i].what == what) {
            out->item[i].then = gx_alt2(p, out->item[i].then, then);
            return;
        }
    }
    if (out->count == out->capacity) {
        const size_t n = out->capacity ? 2 * out->capacity : 16;
        gcall *item = mem_resize(out->item, n, sizeof *item);
        if (!item) {
            out->failed = true;
            return;
        }
        out->item = item;
        out->capacity = n;
    }
    out->item[out->count++] = (gcall){kind, what, then};
}

static void calls(gpool *p, uint32_t x, gcalls *out, size_t from)
{
    for (; !p->failed && !out->failed; x = p->node[x].b) {
        const gnode n = p->node[x];
        if (!(n.flags & GF_IRREGULAR)) return;
        if (n.kind == G_RULE || n.kind == G_TOKEN) {
            add_call(p, out, from, n.kind, n.a, GE_EMPTY);
            return;
        }
        if (n.kind == G_ALT) {
            for (uint32_t i = 0; i < n.b; i++) calls(p, p->list[n.a + i], out, from);
            return;
        }
        if (n.kind != G_SEQ && n.kind != G_REPEAT) return;
        /* What the first part calls goes on with the rest: collect it apart, then append. */
        const size_t mark = out->count;
        calls(p, n.a, out, mark);
        const uint32_t rest = n.kind == G_SEQ ? n.b : gx_repeat(p, n.a, n.min ? n.min - 1 : 0, n.max == GRAMMAR_MANY ? n.max : n.max - 1);
        const size_t end = out->count;
        for (size_t i = mark; i < end && !out->failed; i++) {
            const gcall c = out->item[i];
            const uint32_t then = gx_seq(p, c.then, rest);
            size_t k = from;
            while (k < mark && (out->item[k].kind != c.kind || out->item[k].what != c.what)) k++;
            if (k < mark) {
                out->item[k].then = gx_alt2(p, out->item[k].then, then);
                out->item[i].then = GE_NONE;
            } else out->item[i].then = then;
        }
        size_t kept = mark;
        for (size_t i = mark; i < end; i++) if (out->item[i].then != GE_NONE) out->item[kept++] = out->item[i];
        out->count = kept;
        if (n.kind == G_REPEAT || !gnullable(p, n.a)) return;
    }
}

void gx_calls(gpool *p, uint32_t x, gcalls *out)
{
    out->count = 0;
    calls(p, x, out, 0);
    if (out->failed) gpool_fail(p, NULL);
}
