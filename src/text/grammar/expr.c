/* expr.c - the builder: expressions by name and by parts, with one sticky error. */
#include <string.h>
#include <utf8proc.h>

#include "text/grammar/internal.h"
#include "text/utf8.h"

grammar_builder *grammar_builder_new(const grammar_limits *limits)
{
    grammar_builder *b = MEM_NEW(grammar_builder);
    if (!b) return NULL;
    if (limits) b->limits = *limits;
    if (!b->limits.nodes) b->limits.nodes = 4u << 20;
    if (!b->limits.memory) b->limits.memory = 256u << 20;
    if (!b->limits.items) b->limits.items = 4096;
    if (!gpool_init(&b->pool, b->limits.nodes)) {
        grammar_builder_free(b);
        return NULL;
    }
    return b;
}

void grammar_builder_free(grammar_builder *b)
{
    if (!b) return;
    for (size_t i = 0; i < b->rule_count; i++) mem_free(b->rule[i].name);
    mem_free(b->rule);
    mem_free(b->names);
    mem_free(b->category);
    gpool_free(&b->pool);
    mem_free(b);
}

/* The builder's error, made of the pool's when that failed first. */
static bool ok(grammar_builder *b)
{
    if (!b->failed && b->pool.failed) {
        b->failed = true;
        if (b->pool.reason) err_set(&b->error, VLM_LIMIT, "%s", b->pool.reason);
        else err_memory(&b->error, 0);
    }
    return !b->failed;
}

const vlm_error *grammar_builder_error(const grammar_builder *b)
{
    return ok((grammar_builder *)b) ? NULL : &b->error;
}

grammar_expr grammar_fail(grammar_builder *b, vlm_status code, const char *format, ...)
{
    if (ok(b)) {
        va_list args;
        va_start(args, format);
        err_setv(&b->error, code, format, args);
        va_end(args);
        b->failed = true;
    }
    return GE_FAILED;
}

static grammar_expr give(grammar_builder *b, uint32_t x) { return ok(b) ? x : GE_FAILED; }

grammar_expr grammar_none(grammar_builder *b) { return give(b, GE_NONE); }
grammar_expr grammar_empty(grammar_builder *b) { return give(b, GE_EMPTY); }
grammar_expr grammar_bytes(grammar_builder *b, const void *data, size_t size) { return ok(b) ? give(b, gx_bytes(&b->pool, data, size)) : 0; }
grammar_expr grammar_text(grammar_builder *b, const char *text) { return grammar_bytes(b, text, strlen(text)); }
grammar_expr grammar_any(grammar_builder *b) { return give(b, b->pool.character); }

grammar_expr grammar_class(grammar_builder *b, const grammar_range *range, size_t count, bool negated)
{
    return ok(b) ? give(b, gx_class(&b->pool, range, count, negated)) : 0;
}

grammar_expr grammar_byte_range(grammar_builder *b, uint8_t first, uint8_t last)
{
    gset s = {{0}};
    for (unsigned c = first; c <= last; c++) gset_add(&s, c);
    return ok(b) ? give(b, gx_set(&b->pool, &s)) : 0;
}

grammar_expr grammar_text_icase(grammar_builder *b, const char *text, size_t size)
{
    if (!ok(b)) return GE_FAILED;
    const size_t mark = b->pool.stack_count;
    for (size_t at = 0; at < size;) {
        uint32_t c;
        const size_t n = utf8_next_lossy(text + at, size - at, &c);
        const uint32_t lower = (uint32_t)utf8proc_tolower((utf8proc_int32_t)c), upper = (uint32_t)utf8proc_toupper((utf8proc_int32_t)c);
        const grammar_range range[3] = {{c, c}, {lower, lower}, {upper, upper}};
        gpool_push(&b->pool, gx_class(&b->pool, range, 3, false));
        at += n;
    }
    uint32_t x = GE_EMPTY;
    while (b->pool.stack_count > mark && !b->pool.failed) {
        const uint32_t head = b->pool.stack[--b->pool.stack_count];
        x = gx_seq(&b->pool, head, x);
    }
    return give(b, x);
}

grammar_expr grammar_seq(grammar_builder *b, const grammar_expr *list, size_t count)
{
    if (!ok(b)) return GE_FAILED;
    uint32_t x = GE_EMPTY;
    while (count && x) x = gx_seq(&b->pool, list[--count], x);
    return give(b, x);
}

grammar_expr grammar_seq2(grammar_builder *b, grammar_expr first, grammar_expr second)
{
    return ok(b) ? give(b, gx_seq(&b->pool, first, second)) : 0;
}

grammar_expr grammar_alt(grammar_builder *b, const grammar_expr *list, size_t count)
{
    if (!ok(b)) return GE_FAILED;
    const size_t mark = b->pool.stack_count;
    for (size_t i = 0; i < count; i++) {
        if (!list[i]) return GE_FAILED;
        gpool_push(&b->pool, list[i]);
    }
    return give(b, gx_alt(&b->pool, mark));
}

grammar_expr grammar_alt2(grammar_builder *b, grammar_expr first, grammar_expr second)
{
    return ok(b) ? give(b, gx_alt2(&b->pool, first, second)) : 0;
}

grammar_expr grammar_repeat(grammar_builder *b, grammar_expr x, uint32_t min, int64_t max)
{
    if (!ok(b)) return GE_FAILED;
    if (max >= 0 && max < min) return GE_NONE;
    if (min >= GRAMMAR_MANY || max >= GRAMMAR_MANY) return grammar_fail(b, VLM_LIMIT, "a count in the grammar is too large");
    return give(b, gx_repeat(&b->pool, x, min, max < 0 ? GRAMMAR_MANY : (uint32_t)max));
}

grammar_expr grammar_optional(grammar_builder *b, grammar_expr x) { return grammar_repeat(b, x, 0, 1); }

/* ---- many literals ---- */
static int by_bytes(const void *a, const void *b)
{
    const grammar_literal *x = a, *y = b;
    const size_t n = x->size < y->size ? x->size : y->size;
    const int c = n ? memcmp(x->text, y->text, n) : 0;
    return c ? c : (x->size > y->size) - (x->size < y->size);
}

/* list[0..n), sorted, which agree in their first `at` bytes. */
static uint32_t factor(gpool *p, const grammar_literal *list, size_t n, size_t at, int depth)
{
    const grammar_literal *first = &list[0], *last = &list[n - 1];
    size_t same = at;
    while (same < first->size && same < last->size && first->text[same] == last->text[same]) same++;
    if (n == 1 || !by_bytes(first, last)) return gx_bytes(p, first->text + at, first->size - at);
    const size_t mark = p->stack_count;
    size_t i = 0;
    if (first->size == same) {
        gpool_push(p, GE_EMPTY);
        while (i < n && list[i].size == same) i++;
    }
    while (i < n && !p->failed) {
        size_t end = i + 1;
        while (end < n && list[end].text[same] == list[i].text[same]) end++;
        uint32_t x;
        if (depth < 200) x = factor(p, list + i, end - i, same, depth + 1);
        else {                     /* deep: as they are */
            const size_t inner = p->stack_count;
            for (size_t k = i; k < end; k++) gpool_push(p, gx_bytes(p, list[k].text + same, list[k].size - same));
            x = gx_alt(p, inner);
        }
        gpool_push(p, x);
        i = end;
    }
    return gx_seq(p, gx_bytes(p, first->text + at, same - at), gx_alt(p, mark));
}

grammar_expr grammar_one_of(grammar_builder *b, const grammar_literal *list, size_t count)
{
    if (!ok(b)) return GE_FAILED;
    if (!count) return GE_NONE;
    grammar_literal *sorted = MEM_ARRAY(count, grammar_literal);
    if (!sorted) return give(b, gpool_fail(&b->pool, NULL));
    memcpy(sorted, list, count * sizeof *list);
    qsort(sorted, count, sizeof *sorted, by_bytes);
    const uint32_t x = factor(&b->pool, sorted, count, 0, 0);
    mem_free(sorted);
    return give(b, x);
}

/* ---- automata ---- */
static int by_source(const void *a, const void *b)
{
    const grammar_dfa_edge *x = a, *y = b;
    if (x->from != y->from) return x->from < y->from ? -1 : 1;
    return (x->low > y->low) - (x->low < y->low);
}

/* live[s]: the end can be reached from s. */
static void find_live(const grammar_dfa_edge *edge, size_t edges, const uint8_t *accept, uint32_t states, uint8_t *live)
{
    for (uint32_t i = 0; i < states; i++) live[i] = accept[i] != 0;
    for (bool changed = true; changed;) {
        changed = false;
        for (size_t i = edges; i--;) {
            if (!live[edge[i].to] || live[edge[i].from]) continue;
            live[edge[i].from] = 1;
            changed = true;
        }
    }
}

grammar_expr grammar_dfa(grammar_builder *b, const grammar_dfa_edge *edge, size_t edges, const uint8_t *accept, uint32_t states)
{
    if (!ok(b)) return GE_FAILED;
    if (!states) return GE_NONE;
    for (size_t i = 0; i < edges; i++)
        if (edge[i].from >= states || edge[i].to >= states || edge[i].low > edge[i].high) return grammar_fail(b, VLM_INVALID, "a broken automaton");
    gpool *p = &b->pool;
    gdfa *d = MEM_NEW(gdfa);
    uint8_t *live = MEM_ARRAY(states, uint8_t);
    if (d) {
        d->accept = MEM_ARRAY(states, uint8_t);
        d->first = MEM_ARRAY((size_t)states + 1, uint32_t);
        d->edge = MEM_ARRAY(edges + 1, grammar_dfa_edge);
    }
    gdfa **list = p->dfa;
    if (p->dfa_count == p->dfa_capacity) list = mem_resize(p->dfa, p->dfa_capacity ? 2 * p->dfa_capacity : 8, sizeof *list);
    if (list && list != p->dfa) p->dfa = list, p->dfa_capacity = p->dfa_capacity ? 2 * p->dfa_capacity : 8;
    if (!d || !live || !d->accept || !d->first || !d->edge || !list) {
        mem_free(live);
        if (d) mem_free(d->accept), mem_free(d->first), mem_free(d->edge);
        mem_free(d);
        return give(b, gpool_fail(p, NULL));
    }
    find_live(edge, edges, accept, states, live);
    const bool any = live[0];
    size_t n = 0;
    for (size_t i = 0; i < edges; i++) if (live[edge[i].to]) d->edge[n++] = edge[i];
    qsort(d->edge, n, sizeof *d->edge, by_source);
    bool twice = false;
    for (size_t i = 1; i < n; i++) twice |= d->edge[i].from == d->edge[i - 1].from && d->edge[i].low <= d->edge[i - 1].high;
    for (size_t i = 0; i < n; i++) d->first[d->edge[i].from + 1]++;
    for (uint32_t i = 0; i < states; i++) d->first[i + 1] += d->first[i];
    memcpy(d->accept, accept, states);
    d->states = states;
    d->references = 1;
    p->dfa[p->dfa_count++] = d;
    mem_free(live);
    if (twice) return grammar_fail(b, VLM_INVALID, "an automaton with two edges for one byte");
    return any ? give(b, gx_dfa(p, (uint32_t)p->dfa_count - 1, 0)) : GE_NONE;
}

/* ---- rules ---- */
static uint32_t name_hash(const char *name)
{
    uint32_t h = 2166136261u;
    for (; *name; name++) h = (h ^ (uint8_t)*name) * 16777619u;
    return h ^ h >> 15;
}

static bool grow_names(grammar_builder *b)
{
    const size_t n = b->names_size ? 2 * b->names_size : 64;
    uint32_t *names = MEM_ARRAY(n, uint32_t);
    if (!names) return false;
    for (size_t i = 0; i < b->rule_count; i++) {
        if (!b->rule[i].name) continue;
        size_t at = name_hash(b->rule[i].name) & (n - 1);
        while (names[at]) at = (at + 1) & (n - 1);
        names[at] = (uint32_t)i + 1;
    }
    mem_free(b->names);
    b->names = names;
    b->names_size = n;
    return true;
}

grammar_expr grammar_rule(grammar_builder *b, const char *name)
{
    if (!ok(b)) return GE_FAILED;
    if (2 * (b->rule_count + 1) > b->names_size && !grow_names(b)) return give(b, gpool_fail(&b->pool, NULL));
    size_t at = 0;
    if (name) {
        at = name_hash(name) & (b->names_size - 1);
        for (; b->names[at]; at = (at + 1) & (b->names_size - 1)) {
            const grule *r = &b->rule[b->names[at] - 1];
            if (!strcmp(r->name, name)) return r->expr;
        }
    }
    if (b->rule_count >= b->limits.nodes) return grammar_fail(b, VLM_LIMIT, "the grammar has too many rules");
    if (b->rule_count == b->rule_capacity) {
        const size_t n = b->rule_capacity ? 2 * b->rule_capacity : 32;
        grule *rule = mem_resize(b->rule, n, sizeof *rule);
        if (!rule) return give(b, gpool_fail(&b->pool, NULL));
        b->rule = rule;
        b->rule_capacity = n;
    }
    grule r = {.expr = gx_rule(&b->pool, (uint32_t)b->rule_count)};
    if (name && !(r.name = mem_strdup(name))) return give(b, gpool_fail(&b->pool, NULL));
    b->rule[b->rule_count++] = r;
    if (name) b->names[at] = (uint32_t)b->rule_count;
    return give(b, r.expr);
}

void grammar_define(grammar_builder *b, grammar_expr rule, grammar_expr body)
{
    if (!ok(b) || !rule || !body) return;
    if (gkind_of(&b->pool, rule) != G_RULE) {
        grammar_fail(b, VLM_INVALID, "only a rule can be defined");
        return;
    }
    grule *r = &b->rule[b->pool.node[rule].a];
    if (r->body) grammar_fail(b, VLM_INVALID, "rule %s is defined twice", r->name ? r->name : "without a name");
    else r->body = body;
}

bool grammar_is_defined(const grammar_builder *b, grammar_expr rule)
{
    return rule && rule < b->pool.count && gkind_of(&b->pool, rule) == G_RULE && b->rule[b->pool.node[rule].a].body;
}

grammar_expr grammar_outline(grammar_builder *b, grammar_expr body)
{
    if (!ok(b) || !body) return GE_FAILED;
    if (gkind_of(&b->pool, body) == G_RULE || body <= GE_EMPTY) return body;
    char name[32];
    snprintf(name, sizeof name, "\x01%u", body);      /* cannot be anybody's name */
    const grammar_expr rule = grammar_rule(b, name);
    if (rule && !grammar_is_defined(b, rule)) grammar_define(b, rule, body);
    return rule;
}

/* ---- regular operations ---- */
grammar_expr grammar_and(grammar_builder *b, grammar_expr x, grammar_expr y) { return ok(b) ? give(b, gx_and2(&b->pool, x, y)) : 0; }

grammar_expr grammar_not(grammar_builder *b, grammar_expr x)
{
    return ok(b) ? give(b, gx_and2(&b->pool, b->pool.text, gx_not(&b->pool, x))) : 0;
}

grammar_expr grammar_without(grammar_builder *b, const grammar_literal *list, size_t count)
{
    if (!ok(b)) return GE_FAILED;
    gpool *p = &b->pool;
    const uint32_t any = grammar_one_of(b, list, count);
    return grammar_not(b, gx_seq(p, GE_ALL, gx_seq(p, any, GE_ALL)));
}

grammar_expr grammar_until(grammar_builder *b, const grammar_literal *list, size_t count)
{
    if (!ok(b)) return GE_FAILED;
    gpool *p = &b->pool;
    const uint32_t any = grammar_one_of(b, list, count);
    const uint32_t early = gx_seq(p, GE_ALL, gx_seq(p, any, gx_seq(p, GE_BYTE, GE_ALL)));
    return give(b, gx_and2(p, gx_seq(p, p->text, any), gx_not(p, early)));
}

/* ---- tokens ---- */
grammar_expr grammar_token(grammar_builder *b, int32_t id)
{
    if (!ok(b)) return GE_FAILED;
    if (id < 0) return grammar_fail(b, VLM_INVALID, "token %d does not exist", (int)id);
    return give(b, gx_token(&b->pool, (uint32_t)id));
}

grammar_expr grammar_token_text(grammar_builder *b, const char *text, size_t size)
{
    return ok(b) ? give(b, gx_name(&b->pool, text, size)) : 0;
}
