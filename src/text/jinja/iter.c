/* iter.c - iterators. Filters that are generators in jinja2 do nothing until somebody wants their items, and then no more than wanted: so do
 * the conditions of `for ... if`, which may look at what the loop's body has changed in between. An iterator is a list of items that are there
 * already and, when it has one, a generator of the rest. */
#include "text/jinja/internal.h"

bool jiter_next(jrun *r, jlist *it, jval *out)
{
    if (it->next < it->count) {
        *out = it->item[it->next++];
        return true;
    }
    if (!it->gen || it->gen->done) return false;
    jinja_enter(r);
    bool more = it->gen->next(r, it->gen, out);
    jinja_leave(r);
    it->gen->done = !more;
    return more;
}

jsource jsource_open(jrun *r, jval v)
{
    if (v.kind == J_ITERATOR) return (jsource){.iter = v.list};
    return (jsource){.items = jv_iterate(r, v)};
}

bool jsource_next(jrun *r, jsource *s, jval *out)
{
    if (s->iter) return jiter_next(r, s->iter, out);
    if (s->at >= s->items->count) return false;
    *out = s->items->item[s->at++];
    return true;
}

jval jgen_new(jrun *r, jgen gen, const jargs *a)
{
    jgen *g = jinja_alloc(&r->m, sizeof *g);
    *g = gen;
    if (a) {                                       /* arguments may lie on the caller's stack */
        g->a = *a;
        g->a.v = jinja_alloc(&r->m, a->n * sizeof *a->v);
        if (a->n) memcpy(g->a.v, a->v, a->n * sizeof *a->v);
    }
    jlist *l = jlist_new(&r->m, 0);
    l->gen = g;
    return jv_iterator(l);
}

/* ---- loops ---- */

/* What passes the condition of `for ... if`; a target of several names makes new tuples of them, as in jinja2. */
static bool next_passing(jrun *r, jgen *g, jval *out)
{
    jscope *scope = r->scope;
    const jnode *n = g->node;
    bool found = false;
    for (jval item; !found && jsource_next(r, &g->source, &item);) {
        r->scope = g->frame;
        jinja_assign(r, n->d, item);
        found = jv_true(jinja_eval(r, n->c));
        if (found) *out = n->d->kind == N_NAME ? item : jinja_eval(r, n->d);
        r->scope = scope;
    }
    return found;
}

jsource jloop_source(jrun *r, const jnode *n, jval over, jscope *frame)
{
    if (!n->c) return jsource_open(r, over);
    return (jsource){.iter = jgen_new(r, (jgen){.next = next_passing, .source = jsource_open(r, over), .node = n, .frame = frame}, NULL).list};
}

/* Is there an item i? Items are fetched as they are asked for. */
bool jloop_has(jloop *l, size_t i)
{
    jval item;
    while (!l->complete && l->items->count <= i) {
        if (jsource_next(l->run, &l->source, &item)) jlist_add(&l->run->m, l->items, item);
        else l->complete = true;
    }
    return i < l->items->count;
}

size_t jloop_length(jloop *l)
{
    while (!l->complete) jloop_has(l, l->items->count);
    return l->items->count;
}
