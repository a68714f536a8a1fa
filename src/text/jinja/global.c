/* global.c - global functions, and the methods of everything but str. */
#include "text/jinja/internal.h"

#define GLOBAL(name) static jval g_##name(jrun *r, jval self, jargs *a)
#define METHOD(name) static jval m_##name(jrun *r, jval self, jargs *a)

enum { MAX_RANGE = 100000 };                       /* jinja2's sandbox has the same */

GLOBAL(range)
{
    jint start = 0, stop = jv_to_int(r, a->v[0], "range"), step = 1;
    if (a->v[1].kind != J_MISSING) {
        start = stop;
        stop = jv_to_int(r, a->v[1], "range");
    }
    if (a->v[2].kind != J_MISSING) step = jv_to_int(r, a->v[2], "range");
    if (step == 0) jinja_fail(&r->m, VLM_FORMAT, "range() arg 3 must not be zero");
    const jint far = (jint)1 << 62;
    if (start > far || start < -far || stop > far || stop < -far || step > far || step < -far) jinja_fail(&r->m, VLM_LIMIT, "range is too big");
    jrange *g = jinja_alloc(&r->m, sizeof *g);
    *g = (jrange){start, stop, step};
    jval v = {.kind = J_RANGE, .range = g};
    size_t n;
    if (!jv_length(v, &n) || n > MAX_RANGE) jinja_fail(&r->m, VLM_LIMIT, "Range too big. The sandbox blocks ranges larger than MAX_RANGE (%d).", MAX_RANGE);
    return v;
}

jdict *jinja_make_dict(jrun *r, const jargs *a)
{
    jdict *d = jdict_new(&r->m);
    if (a->n > 1) jinja_fail(&r->m, VLM_FORMAT, "dict expected at most 1 argument, got %zu", a->n);
    if (a->n && a->v[0].kind == J_DICT)
        for (size_t i = 0; i < a->v[0].dict->count; i++) jdict_set(r, d, a->v[0].dict->entry[i].key, a->v[0].dict->entry[i].value);
    else if (a->n && a->v[0].kind == J_UNDEFINED) jinja_undefined_error(r, a->v[0]);
    else if (a->n) {
        jlist *pairs = jv_iterate(r, a->v[0]);
        for (size_t i = 0; i < pairs->count; i++) {
            jlist *pair = jv_iterate(r, pairs->item[i]);
            if (pair->count != 2) jinja_fail(&r->m, VLM_FORMAT, "dictionary update sequence element #%zu has length %zu; 2 is required", i, pair->count);
            jdict_set(r, d, pair->item[0], pair->item[1]);
        }
    }
    for (size_t i = 0; i < a->n_kw; i++) jdict_set(r, d, jv_str(a->kw[i].name), a->kw[i].value);
    return d;
}

GLOBAL(dict) { return jv_dict(jinja_make_dict(r, a)); }

GLOBAL(namespace)
{
    jdict *d = jinja_make_dict(r, a);
    for (size_t i = 0; i < d->count; i++)
        if (d->entry[i].key.kind == J_STRING && d->entry[i].key.s->size && d->entry[i].key.s->data[0] == '_')
            jinja_fail(&r->m, VLM_FORMAT, "attributes of a namespace must not begin with '_'");
    return (jval){.kind = J_NAMESPACE, .dict = d};
}

GLOBAL(cycler)
{
    jcycler *c = jinja_alloc(&r->m, sizeof *c);
    c->items = jlist_new(&r->m, a->n);
    for (size_t i = 0; i < a->n; i++) jlist_add(&r->m, c->items, a->v[i]);
    return (jval){.kind = J_CYCLER, .cycler = c};
}

GLOBAL(joiner)
{
    jjoiner *j = jinja_alloc(&r->m, sizeof *j);
    j->separator = jv_string(r, jarg(a, 0, jv_text(&r->m, ", ")));
    return (jval){.kind = J_JOINER, .joiner = j};
}

GLOBAL(raise_exception)
{
    const jstr *message = jv_string(r, a->v[0]);
    r->m.line = 0;
    if (r->report) buf_add(&r->report->raised, message->data, message->size);
    jinja_fail(&r->m, VLM_INVALID, "%.*s", (int)(message->size < 690 ? message->size : 690), message->data);
}

GLOBAL(strftime_now)
{
    if (a->v[0].kind != J_STRING) jinja_fail(&r->m, VLM_FORMAT, "strftime_now: argument must be str, not %s", jv_type(a->v[0]));
    return jinja_strftime(r, a->v[0].s);
}

GLOBAL(lipsum) { jinja_fail(&r->m, VLM_UNSUPPORTED, "lipsum() is not supported in chat templates"); }

static const jbuiltin globals[] = {
    {"range", g_range, 1, 3, ""}, {"dict", g_dict, 0, -1, ""}, {"namespace", g_namespace, 0, -1, ""}, {"cycler", g_cycler, 1, -1, ""},
    {"joiner", g_joiner, 0, 1, "sep"}, {"raise_exception", g_raise_exception, 1, 1, "message"}, {"strftime_now", g_strftime_now, 1, 1, "format"},
    {"lipsum", g_lipsum, 0, -1, ""},
};

const jbuiltin *jinja_global(const jstr *name) { return jinja_find(globals, sizeof globals / sizeof *globals, name->data, name->size); }

/* ---- dict ---- */

static jval view(jrun *r, jval self, const char *name)
{
    jlist *l = jlist_new(&r->m, self.dict->count);
    l->view = name;
    for (size_t i = 0; i < self.dict->count; i++) {
        const jentry *e = &self.dict->entry[i];
        if (name[5] == 'k') jlist_add(&r->m, l, e->key);
        else if (name[5] == 'v') jlist_add(&r->m, l, e->value);
        else {
            jlist *pair = jlist_new(&r->m, 2);
            jlist_add(&r->m, pair, e->key);
            jlist_add(&r->m, pair, e->value);
            jlist_add(&r->m, l, jv_tuple(pair));
        }
    }
    return (jval){.kind = J_VIEW, .list = l};
}

METHOD(keys) { return view(r, self, "dict_keys"); }
METHOD(values) { return view(r, self, "dict_values"); }
METHOD(items) { return view(r, self, "dict_items"); }

METHOD(get)
{
    const jval *found = jdict_get(r, self.dict, a->v[0]);
    return found ? *found : jarg(a, 1, jv_none());
}

METHOD(copy)
{
    jargs one = {.v = &self, .n = 1};
    return jv_dict(jinja_make_dict(r, &one));
}

/* ---- list, tuple, range ---- */

METHOD(index)
{
    jlist *l = jv_iterate(r, self);
    for (size_t i = 0; i < l->count; i++)
        if (jv_equal(r, l->item[i], a->v[0])) return jv_int((jint)i);
    jinja_fail(&r->m, VLM_FORMAT, "value is not in list");
}

METHOD(count)
{
    jlist *l = jv_iterate(r, self);
    jint n = 0;
    for (size_t i = 0; i < l->count; i++) n += jv_equal(r, l->item[i], a->v[0]);
    return jv_int(n);
}

METHOD(list_copy)
{
    jlist *l = jlist_new(&r->m, self.list->count);
    for (size_t i = 0; i < self.list->count; i++) jlist_add(&r->m, l, self.list->item[i]);
    return jv_list(l);
}

/* ---- loop, cycler ---- */

METHOD(cycle)
{
    if (!a->n) jinja_fail(&r->m, VLM_FORMAT, "no items for cycling given");
    return a->v[self.loop->index % a->n];
}

METHOD(changed)
{
    jlist *now = jlist_new(&r->m, a->n);
    for (size_t i = 0; i < a->n; i++) jlist_add(&r->m, now, a->v[i]);
    jval tuple = jv_tuple(now);
    if (self.loop->changed && jv_equal(r, *self.loop->changed, tuple)) return jv_bool(false);
    self.loop->changed = jinja_alloc(&r->m, sizeof tuple);
    *self.loop->changed = tuple;
    return jv_bool(true);
}

METHOD(next)
{
    jcycler *c = self.cycler;
    jval v = c->items->item[c->at];
    c->at = (c->at + 1) % c->items->count;
    return v;
}

METHOD(reset)
{
    self.cycler->at = 0;
    return jv_none();
}

static const jbuiltin dict_methods[] = {{"keys", m_keys, 0, 0, ""}, {"values", m_values, 0, 0, ""}, {"items", m_items, 0, 0, ""},
                                        {"get", m_get, 1, 2, ""}, {"copy", m_copy, 0, 0, ""}};
static const jbuiltin list_methods[] = {{"index", m_index, 1, 1, ""}, {"count", m_count, 1, 1, ""}, {"copy", m_list_copy, 0, 0, ""}};
static const jbuiltin loop_methods[] = {{"cycle", m_cycle, 0, -1, ""}, {"changed", m_changed, 0, -1, ""}};
static const jbuiltin cycler_methods[] = {{"next", m_next, 0, 0, ""}, {"reset", m_reset, 0, 0, ""}};

/* What the immutable sandbox hides: methods that change their object. */
static bool changes(jval self, const jstr *name)
{
    static const char *const of_list[] = {"append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"};
    static const char *const of_dict[] = {"clear", "pop", "popitem", "setdefault", "update"};
    for (size_t i = 0; self.kind == J_LIST && i < sizeof of_list / sizeof *of_list; i++)
        if (jstr_is(name, of_list[i])) return true;
    for (size_t i = 0; self.kind == J_DICT && i < sizeof of_dict / sizeof *of_dict; i++)
        if (jstr_is(name, of_dict[i])) return true;
    return false;
}

const jbuiltin *jinja_method(jval self, const jstr *name, bool *hidden)
{
#define IN(table) jinja_find(table, sizeof table / sizeof *table, name->data, name->size)
    *hidden = changes(self, name);
    if (*hidden) return NULL;
    switch (self.kind) {
    case J_STRING: return jinja_string_method(name);
    case J_DICT: return IN(dict_methods);
    case J_LIST: return IN(list_methods);
    case J_TUPLE:
    case J_RANGE: return jstr_is(name, "copy") ? NULL : IN(list_methods);
    case J_INT:
    case J_BOOL:
    case J_FLOAT:
    case J_BYTES: return jinja_number_method(self, name);
    case J_LOOP: return IN(loop_methods);
    case J_CYCLER: return IN(cycler_methods);
    default: return NULL;
    }
}
