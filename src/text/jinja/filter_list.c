/* filter_list.c - filters on sequences and mappings. */
#include "text/jinja/internal.h"

#define FILTER(name) static jval f_##name(jrun *r, jval self, jargs *a)

FILTER(first)
{
    jval v;
    jsource source = jsource_open(r, self);
    return jsource_next(r, &source, &v) ? v : jv_undefined(&r->m, "No first item, sequence was empty.");
}

FILTER(last)
{
    if (self.kind == J_ITERATOR || self.kind == J_LOOP) jinja_fail(&r->m, VLM_FORMAT, "'%s' object is not reversible", jv_type(self));
    jlist *l = jv_iterate(r, self);
    return l->count ? l->item[l->count - 1] : jv_undefined(&r->m, "No last item, sequence was empty.");
}

FILTER(length)
{
    size_t n;
    if (!jv_length(self, &n)) jinja_fail(&r->m, VLM_FORMAT, "object of type '%s' has no len()", jv_type(self));
    return jv_int((jint)n);
}

static jlist *copy_list(jrun *r, const jlist *from)
{
    jlist *l = jlist_new(&r->m, from->count);
    if (from->count) memcpy(l->item, from->item, from->count * sizeof *l->item);
    l->count = from->count;
    return l;
}

FILTER(list) { return jv_list(copy_list(r, jv_iterate(r, self))); }

FILTER(join)
{
    jlist *l = jv_iterate(r, self);
    const jstr *by = jv_string(r, jarg(a, 0, jv_textn(&r->m, "", 0)));
    jbuf out = {.m = &r->m};
    for (size_t i = 0; i < l->count; i++) {
        jval v = l->item[i];
        if (a->v[1].kind != J_MISSING && a->v[1].kind != J_NONE) v = jinja_attribute_path(r, v, a->v[1], (jval){.kind = J_MISSING});
        if (i) jbuf_addstr(&out, by);
        jv_write(r, &out, v);
    }
    return jv_buf(&out);
}

FILTER(reverse)
{
    jlist *from = jv_iterate(r, self), *l = jlist_new(&r->m, from->count);
    for (size_t i = from->count; i-- > 0;) jlist_add(&r->m, l, from->item[i]);
    if (self.kind == J_ITERATOR) return jv_list(l);
    if (self.kind != J_STRING) return jv_iterator(l);
    jbuf out = {.m = &r->m};
    for (size_t i = 0; i < l->count; i++) jbuf_addstr(&out, l->item[i].s);
    return jv_marked(jv_buf(&out), self.markup);
}

static jval pair(jrun *r, jval a, jval b)
{
    jlist *l = jlist_new(&r->m, 2);
    jlist_add(&r->m, l, a);
    jlist_add(&r->m, l, b);
    return jv_tuple(l);
}

static bool next_item(jrun *r, jgen *g, jval *out)
{
    if (g->over.kind == J_UNDEFINED) return false;
    if (g->over.kind != J_DICT) jinja_fail(&r->m, VLM_FORMAT, "Can only get item pairs from a mapping.");
    if (g->at >= g->over.dict->count) return false;
    const jentry *e = &g->over.dict->entry[g->at++];
    *out = pair(r, e->key, e->value);
    return true;
}

FILTER(items) { (void)a; return jgen_new(r, (jgen){.next = next_item, .over = self}, NULL); }

/* ---- sorting: a stable merge sort of values by keys ---- */

typedef struct sorter { jrun *r; jval *value, *key, *value2, *key2; bool reverse; } sorter;

static void merge_sort(sorter *s, size_t from, size_t to)
{
    if (to - from < 2) return;
    size_t middle = from + (to - from) / 2, a = from, b = middle;
    merge_sort(s, from, middle);
    merge_sort(s, middle, to);
    for (size_t i = from; i < to; i++) {
        bool right = a >= middle;
        if (!right && b < to) {
            jinja_enter(s->r);
            right = s->reverse ? jv_compare(s->r, s->key[a], s->key[b], "<") == -1 : jv_compare(s->r, s->key[b], s->key[a], "<") == -1;
            jinja_leave(s->r);
        }
        size_t take = right ? b++ : a++;
        s->value2[i] = s->value[take];
        s->key2[i] = s->key[take];
    }
    memcpy(s->value + from, s->value2 + from, (to - from) * sizeof *s->value);
    memcpy(s->key + from, s->key2 + from, (to - from) * sizeof *s->key);
}

static void sort_by(jrun *r, jlist *values, jlist *keys, bool reverse)
{
    sorter s = {r, values->item, keys->item, jlist_new(&r->m, values->count)->item, jlist_new(&r->m, values->count)->item, reverse};
    merge_sort(&s, 0, values->count);
}

/* What a value is sorted and compared by: itself or an attribute, small letters unless case matters. */
static jval key_of(jrun *r, jval v, jval attribute, bool case_sensitive)
{
    if (attribute.kind != J_MISSING && attribute.kind != J_NONE) v = jinja_attribute_path(r, v, attribute, (jval){.kind = J_MISSING});
    if (!case_sensitive && v.kind == J_STRING) v = jv_str(jstr_lower(&r->m, v.s));
    return v;
}

/* A list of one value for each attribute of "a,b". A list even of one, as in jinja2: equal values are then never asked for their order. */
static jval sort_key(jrun *r, jval v, jval attribute, bool case_sensitive)
{
    jlist *l = jlist_new(&r->m, 1);
    if (attribute.kind != J_STRING) {
        jlist_add(&r->m, l, key_of(r, v, attribute, case_sensitive));
        return jv_list(l);
    }
    for (size_t at = 0; at <= attribute.s->size;) {
        size_t end = bytes_find(attribute.s->data, attribute.s->size, at, ",", 1);
        if (end == SIZE_MAX) end = attribute.s->size;
        jlist_add(&r->m, l, key_of(r, v, jv_textn(&r->m, attribute.s->data + at, end - at), case_sensitive));
        at = end + 1;
    }
    return jv_list(l);
}

/* sorted() takes an int for `reverse`, and nothing else. */
static bool reversed(jrun *r, jval v) { return v.kind == J_MISSING ? false : jv_to_int(r, v, "reverse") != 0; }

FILTER(sort)
{
    jlist *values = copy_list(r, jv_iterate(r, self)), *keys = jlist_new(&r->m, values->count);
    for (size_t i = 0; i < values->count; i++) jlist_add(&r->m, keys, sort_key(r, values->item[i], a->v[2], jv_true(jarg(a, 1, jv_bool(false)))));
    sort_by(r, values, keys, reversed(r, a->v[0]));
    return jv_list(values);
}

FILTER(dictsort)
{
    if (self.kind != J_DICT) jinja_fail(&r->m, VLM_FORMAT, "dictsort: '%s' object is not a mapping", jv_type(self));
    const jstr *by = jv_string(r, jarg(a, 1, jv_text(&r->m, "key")));
    bool value = jstr_is(by, "value");
    if (!value && !jstr_is(by, "key")) jinja_fail(&r->m, VLM_FORMAT, "You can only sort by either \"key\" or \"value\"");
    jlist *values = jlist_new(&r->m, self.dict->count), *keys = jlist_new(&r->m, self.dict->count);
    for (size_t i = 0; i < self.dict->count; i++) {
        const jentry *e = &self.dict->entry[i];
        jlist_add(&r->m, values, pair(r, e->key, e->value));
        jlist_add(&r->m, keys, key_of(r, value ? e->value : e->key, jv_none(), jv_true(jarg(a, 0, jv_bool(false)))));
    }
    sort_by(r, values, keys, reversed(r, a->v[2]));
    return jv_list(values);
}

FILTER(groupby)
{
    jlist *values = copy_list(r, jv_iterate(r, self)), *keys = jlist_new(&r->m, values->count), *out = jlist_new(&r->m, 0);
    bool case_sensitive = jv_true(jarg(a, 2, jv_bool(false)));
    for (size_t i = 0; i < values->count; i++) {
        jval key = jinja_attribute_path(r, values->item[i], a->v[0], (jval){.kind = J_MISSING});
        if (key.kind == J_UNDEFINED && a->v[1].kind != J_MISSING) key = a->v[1];
        jlist_add(&r->m, keys, case_sensitive || key.kind != J_STRING ? key : jv_str(jstr_lower(&r->m, key.s)));
    }
    sort_by(r, values, keys, false);
    for (size_t i = 0; i < values->count;) {
        jlist *group = jlist_new(&r->m, 0);
        size_t first = i;
        for (; i < values->count && jv_equal(r, keys->item[i], keys->item[first]); i++) jlist_add(&r->m, group, values->item[i]);
        jval v = pair(r, jinja_attribute_path(r, values->item[first], a->v[0], (jval){.kind = J_MISSING}), jv_list(group));
        if (v.list->item[0].kind == J_UNDEFINED) v.list->item[0] = keys->item[first];
        v.list->group = true;
        jlist_add(&r->m, out, v);
    }
    return jv_list(out);
}

/* The generator's source, opened when the first item is asked for. */
static jsource *opened(jrun *r, jgen *g)
{
    if (!g->open) g->source = jsource_open(r, g->over);
    g->open = true;
    return &g->source;
}

static bool next_unique(jrun *r, jgen *g, jval *out)
{
    if (!g->seen) g->seen = jdict_new(&r->m);
    while (jsource_next(r, opened(r, g), out)) {
        jval key = key_of(r, *out, g->a.v[1], jv_true(jarg(&g->a, 0, jv_bool(false))));
        if (jdict_get(r, g->seen, key)) continue;
        jdict_set(r, g->seen, key, jv_none());
        return true;
    }
    return false;
}

FILTER(unique) { return jgen_new(r, (jgen){.next = next_unique, .over = self}, a); }

static jval extreme(jrun *r, jval self, jargs *a, int wanted)
{
    jlist *l = jv_iterate(r, self);
    bool case_sensitive = jv_true(jarg(a, 0, jv_bool(false)));
    if (!l->count) return jv_undefined(&r->m, "No aggregated item, sequence was empty.");
    size_t best = 0;
    jval key = key_of(r, l->item[0], a->v[1], case_sensitive);
    for (size_t i = 1; i < l->count; i++) {
        jval other = key_of(r, l->item[i], a->v[1], case_sensitive);
        if (jv_compare(r, other, key, "<") != wanted) continue;
        best = i;
        key = other;
    }
    return l->item[best];
}

FILTER(min) { return extreme(r, self, a, -1); }
FILTER(max) { return extreme(r, self, a, 1); }

FILTER(sum)
{
    jlist *l = jv_iterate(r, self);
    jval total = jarg(a, 1, jv_int(0));
    if (total.kind == J_STRING) jinja_fail(&r->m, VLM_FORMAT, "sum() can't sum strings");
    for (size_t i = 0; i < l->count; i++) {
        jval v = l->item[i];
        if (a->v[0].kind != J_MISSING && a->v[0].kind != J_NONE) v = jinja_attribute_path(r, v, a->v[0], (jval){.kind = J_MISSING});
        total = jv_binary(r, '+', total, v);
    }
    return total;
}

static bool next_batch(jrun *r, jgen *g, jval *out)
{
    jval item, count = g->a.v[0], fill = jarg(&g->a, 1, jv_none());
    jlist *row = jlist_new(&r->m, 0);
    while (!jv_equal(r, jv_int((jint)row->count), count) || !row->count) {
        if (!jsource_next(r, opened(r, g), &item)) break;
        jlist_add(&r->m, row, item);
    }
    if (!row->count) return false;
    if (fill.kind != J_NONE && jv_compare(r, jv_int((jint)row->count), count, "<") == -1) {
        jint missing = jv_to_int(r, count, "batch") - (jint)row->count;
        if (missing > 1000000) jinja_fail(&r->m, VLM_LIMIT, "batch is too wide");
        for (; missing > 0; missing--) jlist_add(&r->m, row, fill);
    }
    *out = jv_list(row);
    return true;
}

FILTER(batch) { return jgen_new(r, (jgen){.next = next_batch, .over = self}, a); }

static bool next_slice(jrun *r, jgen *g, jval *out)
{
    if (!g->open) g->source.items = jv_iterate(r, g->over);
    g->open = true;
    jint slices = jv_to_int(r, g->a.v[0], "slice");
    if (slices == 0) jinja_fail(&r->m, VLM_FORMAT, "integer division or modulo by zero");
    if ((jint)g->at >= slices) return false;
    jval fill = jarg(&g->a, 1, jv_none());
    size_t n = g->source.items->count, each = n / (size_t)slices, more = n % (size_t)slices, i = g->at++;
    size_t from = i * each + (i < more ? i : more), to = from + each + (i < more);
    jlist *row = jlist_new(&r->m, to - from + 1);
    for (; from < to; from++) jlist_add(&r->m, row, g->source.items->item[from]);
    if (fill.kind != J_NONE && i >= more) jlist_add(&r->m, row, fill);
    *out = jv_list(row);
    return true;
}

FILTER(slice) { return jgen_new(r, (jgen){.next = next_slice, .over = self}, a); }

/* ---- map, select, reject ---- */

/* What is false is not gone through: none gives nothing. */
static jsource *opened_true(jrun *r, jgen *g)
{
    if (!g->open && !jv_true(g->over)) g->over = jv_list(jlist_new(&r->m, 0));
    return opened(r, g);
}

/* The filter or test of that name, which is looked for only when there is an item. */
static const jbuiltin *called(jrun *r, jval name, bool filter)
{
    const jbuiltin *fn = name.kind != J_STRING ? NULL : filter ? jinja_filter(name.s) : jinja_test(name.s);
    if (!fn) jinja_fail(&r->m, VLM_FORMAT, "No %s named '%s'.", filter ? "filter" : "test", name.kind == J_STRING ? jstr_copy(&r->m, name.s->data, name.s->size < 60 ? name.s->size : 60)->data : jv_type(name));
    return fn;
}

static bool next_mapped(jrun *r, jgen *g, jval *out)
{
    const jargs *a = &g->a;
    jsource *source = opened_true(r, g);
    if (source->items && !source->items->count) return false;
    jval attribute = {.kind = J_MISSING}, otherwise = {.kind = J_MISSING};
    for (size_t i = 0; i < a->n_kw && !a->n; i++) {
        if (jstr_is(a->kw[i].name, "attribute")) attribute = a->kw[i].value;
        else if (jstr_is(a->kw[i].name, "default")) otherwise = a->kw[i].value;
        else jinja_fail(&r->m, VLM_FORMAT, "Unexpected keyword argument '%.*s'", (int)(a->kw[i].name->size < 60 ? a->kw[i].name->size : 60), a->kw[i].name->data);
    }
    if (!a->n && attribute.kind == J_MISSING) jinja_fail(&r->m, VLM_FORMAT, "map requires a filter argument");
    jval item;
    if (!jsource_next(r, source, &item)) return false;
    if (!a->n) *out = jinja_attribute_path(r, item, attribute, otherwise);
    else {
        jargs rest = {.v = a->v + 1, .n = a->n - 1, .kw = a->kw, .n_kw = a->n_kw};
        *out = jinja_call_builtin(r, called(r, a->v[0], true), item, &rest, "filter");
    }
    return true;
}

FILTER(map) { return jgen_new(r, (jgen){.next = next_mapped, .over = self}, a); }

static bool next_chosen(jrun *r, jgen *g, jval *out)
{
    const jargs *a = &g->a;
    jsource *source = opened_true(r, g);
    size_t skip = g->by_attribute;
    if (source->items && !source->items->count) return false;
    if (a->n < skip) jinja_fail(&r->m, VLM_FORMAT, "Missing parameter for attribute name");
    while (jsource_next(r, source, out)) {
        jinja_enter(r);
        jval v = g->by_attribute ? jinja_attribute_path(r, *out, a->v[0], (jval){.kind = J_MISSING}) : *out;
        bool holds;
        if (a->n > skip) {
            jargs rest = {.v = a->v + skip + 1, .n = a->n - skip - 1, .kw = a->kw, .n_kw = a->n_kw};
            holds = jinja_test_value(r, called(r, a->v[skip], false), v, &rest);
        } else holds = jv_true(v);
        jinja_leave(r);
        if (holds == g->wanted) return true;
    }
    return false;
}

static jval choose(jrun *r, jval self, jargs *a, bool by_attribute, bool wanted)
{
    return jgen_new(r, (jgen){.next = next_chosen, .over = self, .by_attribute = by_attribute, .wanted = wanted}, a);
}

FILTER(select) { return choose(r, self, a, false, true); }
FILTER(reject) { return choose(r, self, a, false, false); }
FILTER(selectattr) { return choose(r, self, a, true, true); }
FILTER(rejectattr) { return choose(r, self, a, true, false); }

FILTER(random)
{
    jlist *l = jv_iterate(r, self);
    if (!l->count) return jv_undefined(&r->m, "No random item, sequence was empty.");
    return l->item[(r->m.steps * 0x9E3779B97F4A7C15u >> 33) % l->count];           /* repeatable on purpose */
}

static const jbuiltin filters[] = {
    {"first", f_first, 0, 0, ""}, {"last", f_last, 0, 0, ""}, {"length", f_length, 0, 0, ""}, {"count", f_length, 0, 0, ""}, {"list", f_list, 0, 0, ""},
    {"join", f_join, 0, 2, "d,attribute"}, {"reverse", f_reverse, 0, 0, ""}, {"items", f_items, 0, 0, ""},
    {"sort", f_sort, 0, 3, "reverse,case_sensitive,attribute"}, {"dictsort", f_dictsort, 0, 3, "case_sensitive,by,reverse"},
    {"groupby", f_groupby, 1, 3, "attribute,default,case_sensitive"}, {"unique", f_unique, 0, 2, "case_sensitive,attribute"},
    {"min", f_min, 0, 2, "case_sensitive,attribute"}, {"max", f_max, 0, 2, "case_sensitive,attribute"}, {"sum", f_sum, 0, 2, "attribute,start"},
    {"batch", f_batch, 1, 2, "linecount,fill_with"}, {"slice", f_slice, 1, 2, "slices,fill_with"}, {"map", f_map, 0, -1, ""},
    {"select", f_select, 0, -1, ""}, {"reject", f_reject, 0, -1, ""}, {"selectattr", f_selectattr, 0, -1, ""},
    {"rejectattr", f_rejectattr, 0, -1, ""}, {"random", f_random, 0, 0, ""},
};

const jbuiltin *jinja_filter_list(const jstr *name) { return jinja_find(filters, sizeof filters / sizeof *filters, name->data, name->size); }
