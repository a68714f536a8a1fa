/* compile.c - from the builder's expressions to rules that can be followed without care.
 *
 *   1 copy what the root reaches into a pool of its own; names become tokens or text; under "and" and "not" rules are written out
 *   2 rules that can never end go; every rule loses the empty word (its callers get "rule or nothing"), so that a finished rule has
 *     always taken a byte
 *   3 left recursion becomes repetition (Arden's lemma on the rules that call each other first), so that calls at one place end
 *   4 ranks: who calls first comes before whom it calls
 * Passes go over nodes in the order of their numbers, children first; only the writing-out in 1 and step 3 recurse, into a bounded depth. */
#include <string.h>

#include "text/grammar/internal.h"

typedef struct compiler {
    const grammar_builder *b;
    const grammar_vocab *vocab;
    vlm_error *error;
    gpool p;                       /* after step 1 */
    gpool q;                       /* after step 2 */
    uint32_t *body;                /* of rules, in p, later in q */
    uint32_t *mark;
    uint32_t *inlined;
    size_t rules;
    bool failed;
} compiler;

static bool refuse(compiler *c, vlm_status code, const char *format, ...) __attribute__((format(printf, 3, 4)));
static bool refuse(compiler *c, vlm_status code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (!c->failed) err_setv(c->error, code, format, args);
    va_end(args);
    c->failed = true;
    return false;
}

static bool healthy(compiler *c, const gpool *p)
{
    if (p->failed && !c->failed) {
        if (p->reason) refuse(c, VLM_LIMIT, "%s", p->reason);
        else {
            err_memory(c->error, 0);
            c->failed = true;
        }
    }
    return !c->failed;
}

static const char *rule_name(const compiler *c, uint32_t rule)
{
    const char *name = c->b->rule[rule].name;
    return name && name[0] != 1 ? name : "(nameless)";
}

/* ---- 1: copy ---- */
static uint32_t copy_leaf(compiler *c, gpool *to, const gpool *from, uint32_t x)
{
    const gnode n = from->node[x];
    switch ((gkind)n.kind) {
    case G_NONE: case G_EMPTY: return x;
    case G_BYTES: return gx_bytes(to, from->bytes + n.a, n.b);
    case G_SET: return gx_set(to, &from->set[n.a]);
    case G_DFA: return gx_dfa(to, n.a, n.b);
    case G_RULE: return gx_rule(to, n.a);
    case G_TOKEN: return gx_token(to, n.a);
    case G_NAME: {
        const int32_t id = c->vocab ? grammar_vocab_special(c->vocab, from->bytes + n.a, n.b) : -1;
        return id >= 0 ? gx_token(to, (uint32_t)id) : gx_bytes(to, from->bytes + n.a, n.b);
    }
    default: return GE_FAILED;
    }
}

/* Children of node n in `from` given by map. */
static uint32_t rebuild(compiler *c, gpool *to, const gpool *from, uint32_t x, const uint32_t *map)
{
    const gnode n = from->node[x];
    const size_t mark = to->stack_count;
    uint32_t made;
    switch ((gkind)n.kind) {
    case G_SEQ: made = gx_seq(to, map[n.a], map[n.b]); break;
    case G_REPEAT: made = gx_repeat(to, map[n.a], n.min, n.max); break;
    case G_NOT: made = gx_not(to, map[n.a]); break;
    case G_ALT: case G_AND:
        for (uint32_t i = 0; i < n.b; i++) if (!gpool_push(to, map[from->list[n.a + i]])) return GE_FAILED;
        made = n.kind == G_ALT ? gx_alt(to, mark) : gx_and(to, mark);
        break;
    default: made = copy_leaf(c, to, from, x);
    }
    if (made && (n.flags & GF_TEXT)) to->node[made].flags |= GF_TEXT;
    return made;
}

enum { BUSY_INLINE = UINT32_MAX };

/* x of the builder in c->p without rules. */
static uint32_t write_out(compiler *c, uint32_t x, int depth)
{
    const gpool *from = &c->b->pool;
    if (c->failed || c->p.failed) return GE_FAILED;
    if (c->inlined[x] && c->inlined[x] != BUSY_INLINE) return c->inlined[x];
    if (c->inlined[x] == BUSY_INLINE) return refuse(c, VLM_UNSUPPORTED, "a recursive rule inside an intersection or complement"), GE_FAILED;
    if (depth > 2 * GRAMMAR_DEPTH) return refuse(c, VLM_LIMIT, "the grammar is nested too deeply"), GE_FAILED;
    const gnode n = from->node[x];
    uint32_t made = GE_FAILED;
    c->inlined[x] = BUSY_INLINE;
    if (n.kind == G_RULE) {
        const uint32_t body = c->b->rule[n.a].body;
        if (!body) refuse(c, VLM_INVALID, "rule %s is not defined", rule_name(c, n.a));
        else made = write_out(c, body, depth + 1);
    } else if (n.kind == G_TOKEN || (n.kind == G_NAME && c->vocab && grammar_vocab_special(c->vocab, from->bytes + n.a, n.b) >= 0)) {
        refuse(c, VLM_UNSUPPORTED, "a special token inside an intersection or complement");
    } else if (n.kind == G_SEQ) {
        const size_t mark = c->p.stack_count;          /* along the sequence without recursion */
        uint32_t y = x;
        for (; gkind_of(from, y) == G_SEQ && !c->failed; y = from->node[y].b) {
            const uint32_t head = write_out(c, from->node[y].a, depth + 1);
            if (!head || !gpool_push(&c->p, head)) break;
        }
        made = gkind_of(from, y) == G_SEQ ? GE_FAILED : write_out(c, y, depth + 1);
        while (made && c->p.stack_count > mark) {
            const uint32_t head = c->p.stack[--c->p.stack_count];
            made = gx_seq(&c->p, head, made);
        }
    } else if (n.kind == G_ALT || n.kind == G_AND) {
        const size_t mark = c->p.stack_count;
        uint32_t i = 0;
        for (; i < n.b; i++) {
            const uint32_t y = write_out(c, from->list[n.a + i], depth + 1);
            if (!y || !gpool_push(&c->p, y)) break;
        }
        if (i == n.b) made = n.kind == G_ALT ? gx_alt(&c->p, mark) : gx_and(&c->p, mark);
    } else if (n.kind == G_REPEAT) made = gx_repeat(&c->p, write_out(c, n.a, depth + 1), n.min, n.max);
    else if (n.kind == G_NOT) made = gx_not(&c->p, write_out(c, n.a, depth + 1));
    else made = copy_leaf(c, &c->p, from, x);
    if (made && (n.flags & GF_TEXT)) c->p.node[made].flags |= GF_TEXT;
    c->inlined[x] = made;
    return made;
}

/* Marks what the root reaches; rules' bodies too. */
static bool mark_reached(compiler *c, const gpool *p, uint32_t root, const grule *rule, const uint32_t *body, uint8_t *reached)
{
    uint32_t *todo = MEM_ARRAY(p->count + 1, uint32_t);
    if (!todo) return err_memory(c->error, 0), c->failed = true, false;
    size_t n = 0;
    todo[n++] = root;
    reached[root] = 1;
#define REACH(x) do { const uint32_t y_ = (x); if (!reached[y_]) reached[y_] = 1, todo[n++] = y_; } while (0)
    while (n && !c->failed) {
        const gnode x = p->node[todo[--n]];
        if (x.kind == G_RULE) {
            const uint32_t to = rule ? rule[x.a].body : body[x.a];
            if (!to) refuse(c, VLM_INVALID, "rule %s is used but not defined", rule_name(c, x.a));
            else REACH(to);
        } else if (x.kind == G_SEQ) {
            REACH(x.a);
            REACH(x.b);
        } else if (x.kind == G_REPEAT) REACH(x.a);
        else if (x.kind == G_ALT) for (uint32_t i = 0; i < x.b; i++) REACH(p->list[x.a + i]);
    }
#undef REACH
    mem_free(todo);
    return !c->failed;
}

static bool copy_step(compiler *c, uint32_t root, uint32_t *new_root)
{
    const gpool *from = &c->b->pool;
    uint8_t *reached = MEM_ARRAY(from->count, uint8_t);
    uint32_t *map = MEM_ARRAY(from->count, uint32_t);
    c->inlined = MEM_ARRAY(from->count, uint32_t);
    bool done = false;
    if (!reached || !map || !c->inlined || !gpool_init(&c->p, c->b->limits.nodes) || !gpool_share_dfas(&c->p, from)) {
        err_memory(c->error, 0);
        c->failed = true;
        goto out;
    }
    if (!mark_reached(c, from, root, c->b->rule, NULL, reached)) goto out;
    for (uint32_t x = 1; x < from->count && !c->failed; x++) {
        if (!reached[x]) continue;
        const gkind kind = gkind_of(from, x);
        if (kind == G_AND || kind == G_NOT) {
            map[x] = write_out(c, x, 0);
            if (map[x] && gx_empty(&c->p, map[x])) map[x] = GE_NONE;
        } else map[x] = rebuild(c, &c->p, from, x, map);
        if (!healthy(c, &c->p)) goto out;
    }
    for (size_t i = 0; i < c->rules; i++) {
        const uint32_t body = c->b->rule[i].body;
        c->body[i] = body && reached[body] ? map[body] : GE_NONE;
    }
    *new_root = map[root];
    done = !c->failed;
out:
    mem_free(reached);
    mem_free(map);
    mem_free(c->inlined);
    c->inlined = NULL;
    return done;
}

/* ---- 2: what can end, what can be empty ---- */
/* A property that goes from parts to wholes, spread by a work list over the parents of each node. */
typedef struct spread { uint8_t *has; uint32_t *first, *parent, *todo; uint8_t *count; size_t n; } spread;

static bool holds(const compiler *c, const uint8_t *has, uint32_t x, bool nullable)
{
    const gpool *p = &c->p;
    const gnode n = p->node[x];
    switch ((gkind)n.kind) {
    case G_NONE: case G_FAILED: return false;
    case G_EMPTY: return true;
    case G_SEQ: return has[n.a] && has[n.b];
    case G_ALT:
        for (uint32_t i = 0; i < n.b; i++) if (has[p->list[n.a + i]]) return true;
        return false;
    case G_REPEAT: return n.min == 0 || has[n.a];
    case G_RULE: return has[c->body[n.a]];
    default: return nullable ? n.flags & GF_NULLABLE : true;
    }
}

static size_t children(const compiler *c, uint32_t x, const uint32_t **list, uint32_t two[2])
{
    const gnode n = c->p.node[x];
    *list = two;
    switch ((gkind)n.kind) {
    case G_SEQ: two[0] = n.a; two[1] = n.b; return 2;
    case G_REPEAT: two[0] = n.a; return 1;
    case G_RULE: two[0] = c->body[n.a]; return 1;
    case G_ALT: *list = c->p.list + n.a; return n.b;
    default: return 0;
    }
}

static bool find_property(compiler *c, bool nullable, uint8_t *has)
{
    const size_t n = c->p.count;
    uint32_t *first = MEM_ARRAY(n + 2, uint32_t), *parent = NULL, *todo = MEM_ARRAY(n + 1, uint32_t), two[2];
    const uint32_t *list;
    size_t edges = 0, left = 0;
    if (first) for (uint32_t x = 1; x < n; x++) {
        const size_t k = children(c, x, &list, two);
        for (size_t i = 0; i < k; i++) first[list[i] + 2]++;
        edges += k;
    }
    parent = MEM_ARRAY(edges + 1, uint32_t);
    if (!first || !parent || !todo) {
        mem_free(first);
        mem_free(parent);
        mem_free(todo);
        err_memory(c->error, 0);
        return !(c->failed = true);
    }
    for (size_t i = 2; i < n + 2; i++) first[i] += first[i - 1];
    for (uint32_t x = 1; x < n; x++) {
        const size_t k = children(c, x, &list, two);
        for (size_t i = 0; i < k; i++) parent[first[list[i] + 1]++] = x;
    }
    for (uint32_t x = 1; x < n; x++) if (holds(c, has, x, nullable)) has[x] = 1, todo[left++] = x;
    while (left) {
        const uint32_t x = todo[--left];
        for (uint32_t i = first[x]; i < first[x + 1]; i++) {
            const uint32_t y = parent[i];
            if (!has[y] && holds(c, has, y, nullable)) has[y] = 1, todo[left++] = y;
        }
    }
    mem_free(first);
    mem_free(parent);
    mem_free(todo);
    return true;
}

/* What x matches but the empty text; full, none: maps of all nodes before. */
static uint32_t nonempty(compiler *c, uint32_t x, const uint32_t *full, const uint32_t *none)
{
    const gnode n = c->p.node[x];
    gpool *q = &c->q;
    const size_t mark = q->stack_count;
    switch ((gkind)n.kind) {
    case G_EMPTY: return GE_NONE;
    case G_SEQ: {
        const uint32_t a = gx_seq(q, none[n.a], full[n.b]);
        return gx_alt2(q, a, none[n.b]);
    }
    case G_ALT:
        for (uint32_t i = 0; i < n.b; i++) if (!gpool_push(q, none[c->p.list[n.a + i]])) return GE_FAILED;
        return gx_alt(q, mark);
    case G_REPEAT: return gx_repeat(q, none[n.a], 1, n.max);
    case G_RULE: return gx_rule(q, n.a);
    default: return gx_and2(q, full[x], gx_not(q, GE_EMPTY));
    }
}

static bool empty_step(compiler *c, uint32_t root, uint32_t *new_root, bool *root_nullable)
{
    const size_t n = c->p.count;
    uint8_t *lives = MEM_ARRAY(n, uint8_t), *nullable = MEM_ARRAY(n, uint8_t);
    uint32_t *full = MEM_ARRAY(n, uint32_t), *none = MEM_ARRAY(n, uint32_t);
    bool done = false;
    if (!lives || !nullable || !full || !none || !gpool_init(&c->q, c->b->limits.nodes) || !gpool_share_dfas(&c->q, &c->p)) {
        err_memory(c->error, 0);
        c->failed = true;
        goto out;
    }
    if (!find_property(c, false, lives) || !find_property(c, true, nullable)) goto out;
    if (!lives[root]) {
        refuse(c, VLM_INVALID, "the grammar matches nothing, not even the empty text");
        goto out;
    }
    for (uint32_t x = 1; x < n; x++) {
        const gnode node = c->p.node[x];
        if (!lives[x]) full[x] = none[x] = GE_NONE;
        else {
            if (node.kind == G_RULE) full[x] = nullable[x] ? gx_alt2(&c->q, GE_EMPTY, gx_rule(&c->q, node.a)) : gx_rule(&c->q, node.a);
            else if (node.kind == G_REPEAT && nullable[node.a]) full[x] = gx_repeat(&c->q, none[node.a], 0, node.max);
            else full[x] = rebuild(c, &c->q, &c->p, x, full);
            none[x] = nullable[x] ? nonempty(c, x, full, none) : full[x];
        }
        if (!healthy(c, &c->q)) goto out;
    }
    for (size_t i = 0; i < c->rules; i++) c->body[i] = c->body[i] ? none[c->body[i]] : GE_NONE;
    *new_root = none[root];
    *root_nullable = nullable[root];
    /* A rule that could only be empty is none now: callers still mention it, harmless, it has no way in. Drop such mentions. */
    done = true;
out:
    mem_free(lives);
    mem_free(nullable);
    mem_free(full);
    mem_free(none);
    return done;
}

/* ---- 3 and 4: who calls whom first ---- */
typedef struct graph { uint32_t *first, *to; size_t n; } graph;

static bool first_calls(compiler *c, graph *g)
{
    g->first = MEM_ARRAY(c->rules + 2, uint32_t);
    size_t capacity = 0, count = 0;
    gcalls calls = {0};
    bool done = g->first != NULL;
    for (uint32_t i = 0; i < c->rules && done; i++) {
        calls.count = 0;
        if (c->body[i] > GE_NONE) gx_calls(&c->q, c->body[i], &calls);
        g->first[i] = (uint32_t)count;
        for (size_t k = 0; k < calls.count; k++) {
            if (calls.item[k].kind != G_RULE) continue;
            if (count == capacity) {
                uint32_t *to = mem_resize(g->to, capacity ? 2 * capacity : 64, sizeof *to);
                if (!(done = to != NULL)) break;
                g->to = to;
                capacity = capacity ? 2 * capacity : 64;
            }
            g->to[count++] = calls.item[k].what;
        }
        g->first[i + 1] = (uint32_t)count;
    }
    mem_free(calls.item);
    if (!done) {
        err_memory(c->error, 0);
        c->failed = true;
    }
    return done && healthy(c, &c->q);
}

/* Tarjan's strongly connected components, without recursion. component[i]: callees have smaller numbers. */
static bool components(compiler *c, const graph *g, uint32_t *component, uint32_t *count)
{
    const size_t n = c->rules;
    uint32_t *index = MEM_ARRAY(n + 1, uint32_t), *low = MEM_ARRAY(n + 1, uint32_t), *next = MEM_ARRAY(n + 1, uint32_t);
    uint32_t *stack = MEM_ARRAY(n + 1, uint32_t), *path = MEM_ARRAY(n + 1, uint32_t);
    bool done = index && low && next && stack && path;
    uint32_t time = 0, height = 0;
    *count = 0;
    for (uint32_t s = 0; s < n && done; s++) {
        if (index[s]) continue;
        size_t depth = 0;
        path[depth++] = s;
        while (depth) {
            const uint32_t v = path[depth - 1];
            if (!index[v]) {
                index[v] = low[v] = ++time;
                next[v] = g->first[v];
                stack[height++] = v;
                component[v] = UINT32_MAX;
            }
            if (next[v] < g->first[v + 1]) {
                const uint32_t w = g->to[next[v]++];
                if (!index[w]) path[depth++] = w;
                else if (component[w] == UINT32_MAX && index[w] < low[v]) low[v] = index[w];
                continue;
            }
            if (low[v] == index[v]) {
                uint32_t w;
                do component[w = stack[--height]] = *count; while (w != v);
                (*count)++;
            }
            depth--;
            if (depth && low[v] < low[path[depth - 1]]) low[path[depth - 1]] = low[v];
        }
    }
    mem_free(index);
    mem_free(low);
    mem_free(next);
    mem_free(stack);
    mem_free(path);
    if (!done) {
        err_memory(c->error, 0);
        c->failed = true;
    }
    return done;
}

/* The words of x but the empty one and those that begin with a call of a rule of component `of`. */
static uint32_t strip(compiler *c, uint32_t x, const uint32_t *component, uint32_t of, int depth)
{
    gpool *q = &c->q;
    if (q->failed || depth > 4 * GRAMMAR_DEPTH) return gpool_fail(q, "the grammar is nested too deeply");
    const gnode n = q->node[x];
    const size_t mark = q->stack_count;
    if (!(n.flags & GF_IRREGULAR) && !(n.flags & GF_NULLABLE)) return x;
    switch ((gkind)n.kind) {
    case G_EMPTY: return GE_NONE;
    case G_RULE: return component[n.a] == of ? GE_NONE : x;
    case G_SEQ: {
        const uint32_t a = gx_seq(q, strip(c, n.a, component, of, depth + 1), n.b);
        return gnullable(q, n.a) ? gx_alt2(q, a, strip(c, n.b, component, of, depth + 1)) : a;
    }
    case G_ALT:
        for (uint32_t i = 0; i < n.b; i++) if (!gpool_push(q, strip(c, q->list[n.a + i], component, of, depth + 1))) return GE_FAILED;
        return gx_alt(q, mark);
    case G_REPEAT: {
        const uint32_t rest = gx_repeat(q, n.a, n.min ? n.min - 1 : 0, n.max == GRAMMAR_MANY ? n.max : n.max - 1);
        return gx_seq(q, strip(c, n.a, component, of, depth + 1), rest);
    }
    case G_TOKEN: case G_BYTES: case G_SET: return x;
    default: return n.flags & GF_NULLABLE ? gx_and2(q, x, gx_not(q, GE_EMPTY)) : x;
    }
}

/* The rules of one component as equations X_i = X_1 a_i1 | ... | X_n a_in | b_i, solved by elimination. */
static bool eliminate(compiler *c, const uint32_t *member, size_t n, const uint32_t *component)
{
    enum { MOST = 64 };
    if (n > MOST) return refuse(c, VLM_UNSUPPORTED, "left recursion through %zu rules (%s ...), at most %d are supported", n, rule_name(c, member[0]), MOST);
    gpool *q = &c->q;
    uint32_t *a = MEM_ARRAY(n * n, uint32_t), *rest = MEM_ARRAY(n, uint32_t);
    gcalls calls = {0};
    if (!a || !rest) {
        err_memory(c->error, 0);
        c->failed = true;
    }
    for (size_t i = 0; i < n && !c->failed; i++) {
        gx_calls(q, c->body[member[i]], &calls);
        for (size_t k = 0; k < n; k++) {
            a[i * n + k] = GE_NONE;
            for (size_t j = 0; j < calls.count; j++)
                if (calls.item[j].kind == G_RULE && calls.item[j].what == member[k]) a[i * n + k] = calls.item[j].then;
        }
        rest[i] = strip(c, c->body[member[i]], component, component[member[i]], 0);
    }
    for (size_t k = 0; k < n && healthy(c, q); k++) {
        const uint32_t loop = gx_repeat(q, a[k * n + k], 0, GRAMMAR_MANY);
        a[k * n + k] = GE_NONE;
        rest[k] = gx_seq(q, rest[k], loop);
        for (size_t j = 0; j < n; j++) a[k * n + j] = gx_seq(q, a[k * n + j], loop);
        for (size_t i = 0; i < n && !q->failed; i++) {
            const uint32_t by = a[i * n + k];
            if (i == k || by == GE_NONE) continue;
            a[i * n + k] = GE_NONE;
            for (size_t j = 0; j < n; j++) a[i * n + j] = gx_alt2(q, a[i * n + j], gx_seq(q, a[k * n + j], by));
            rest[i] = gx_alt2(q, rest[i], gx_seq(q, rest[k], by));
        }
    }
    if (!c->failed) for (size_t i = 0; i < n; i++) c->body[member[i]] = rest[i];
    mem_free(a);
    mem_free(rest);
    mem_free(calls.item);
    return healthy(c, q);
}

static bool recursion_step(compiler *c, grammar *g)
{
    graph calls = {0};
    uint32_t *component = MEM_ARRAY(c->rules + 1, uint32_t), *order = MEM_ARRAY(c->rules + 1, uint32_t), *start = NULL;
    uint32_t n = 0;
    bool done = component && order;
    if (!done) {
        err_memory(c->error, 0);
        c->failed = true;
    }
    done = done && first_calls(c, &calls) && components(c, &calls, component, &n);
    if (done && (start = MEM_ARRAY(n + 2, uint32_t))) {
        for (size_t i = 0; i < c->rules; i++) start[component[i] + 1]++;
        for (uint32_t i = 0; i < n; i++) start[i + 1] += start[i];
        for (uint32_t i = (uint32_t)c->rules; i--;) order[--start[component[i] + 1]] = i;
        /* Counting down moved each start one component to the left: start[k + 1] is where k begins. */
        for (uint32_t k = 0; k < n && done; k++) {
            const uint32_t from = start[k + 1], to = k + 1 < n ? start[k + 2] : (uint32_t)c->rules;
            bool loops = to - from > 1;
            for (uint32_t e = calls.first[order[from]]; e < calls.first[order[from] + 1]; e++) loops |= calls.to[e] == order[from];
            if (loops) done = eliminate(c, order + from, to - from, component);
        }
        for (uint32_t i = 0; i < c->rules; i++) {
            g->rule[order[i]].rank = i;
            g->by_rank[i] = order[i];
        }
    } else if (done) {
        err_memory(c->error, 0);
        done = false;
    }
    mem_free(start);
    mem_free(calls.first);
    mem_free(calls.to);
    mem_free(component);
    mem_free(order);
    return done;
}

grammar *grammar_compile(grammar_builder *b, grammar_expr root, grammar_vocab *vocab, vlm_error *error)
{
    const vlm_error *before = grammar_builder_error(b);
    if (before || !root || root >= b->pool.count) {
        if (error && before) *error = *before;
        else if (!before) err_set(error, VLM_INVALID, "no grammar");
        return NULL;
    }
    vlm_error local = {0};
    compiler c = {.b = b, .vocab = vocab, .error = error ? error : &local, .rules = b->rule_count};
    grammar *g = MEM_NEW(grammar);
    c.body = MEM_ARRAY(c.rules + 1, uint32_t);
    bool done = false;
    if (g) {
        g->rule = MEM_ARRAY(c.rules + 1, gruleinfo);
        g->by_rank = MEM_ARRAY(c.rules + 1, uint32_t);
        g->limits = b->limits;
        g->rule_count = c.rules;
        g->references = 1;
        pthread_mutex_init(&g->lock, NULL);
    }
    if (!g || !g->rule || !g->by_rank || !c.body) err_memory(c.error, 0);
    else done = copy_step(&c, root, &root) && empty_step(&c, root, &g->root, &g->root_nullable) && recursion_step(&c, g);
    gpool_free(&c.p);
    if (done) {
        for (size_t i = 0; i < c.rules; i++) g->rule[i].body = c.body[i];
        g->base = c.q;
        g->vocab = grammar_vocab_ref(vocab);
    } else gpool_free(&c.q);
    mem_free(c.body);
    if (done && (g->store = gstore_new(g, c.error))) return g;
    if (c.error->code == VLM_OK) err_memory(c.error, 0);
    grammar_unref(g);
    return NULL;
}

grammar *grammar_ref(grammar *g)
{
    if (g) g->references++;
    return g;
}

void grammar_unref(grammar *g)
{
    if (!g || --g->references) return;
    gstore_free(g->store);
    pthread_mutex_destroy(&g->lock);
    gpool_free(&g->base);
    grammar_vocab_unref(g->vocab);
    mem_free(g->rule);
    mem_free(g->by_rank);
    mem_free(g);
}

grammar_vocab *grammar_get_vocab(const grammar *g) { return g->vocab; }
