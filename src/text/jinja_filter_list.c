/* jinja_filter_list.c - filters on sequences and mappings. */
#include "text/jinja_internal.h"

#define FILTER(name) static jval f_##name(jrun *r, jval self, jargs *a)

static jval one_or_undefined(jrun *r, jval self, bool last)
{
    jlist *l = jv_iterate(r, self);
    if (l->count) return l->item[last ? l->count - 1 : 0];
    return jv_undefined(&r->m, "No %s item, sequence was empty.", last ? "last" : "first");
}

FILTER(first) { return one_or_undefined(r, self, false); }
FILTER(last) { return one_or_undefined(r, self, true); }

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
    if (self.kind != J_STRING) return jv_iterator(l);
    jbuf out = {.m = &r->m};
    for (size_t i = 0; i < l->count; i++) jbuf_addstr(&out, l->item[i].s);
    return jv_buf(&out);
}

static jval pair(jrun *r, jval a, jval b)
{
    jlist *l = jlist_new(&r->m, 2);
    jlist_add(&r->m, l, a);
    jlist_add(&r->m, l, b);
    return jv_tuple(l);
}

FILTER(items)
{
    jlist *l = jlist_new(&r->m, 0);
    if (self.kind == J_UNDEFINED) return jv_iterator(l);
    if (self.kind != J_DICT) jinja_fail(&r->m, VLM_FORMAT, "Can only get item pairs from a mapping.");
    for (size_t i = 0; i < self.dict->count; i++) jlist_add(&r->m, l, pair(r, self.dict->entry[i].key, self.dict->entry[i].value));
    return jv_iterator(l);
}

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

FILTER(sort)
{
    jlist *values = copy_list(r, jv_iterate(r, self)), *keys = jlist_new(&r->m, values->count);
    for (size_t i = 0; i < values->count; i++) jlist_add(&r->m, keys, sort_key(r, values->item[i], a->v[2], jv_true(jarg(a, 1, jv_bool(false)))));
    sort_by(r, values, keys, jv_true(jarg(a, 0, jv_bool(false))));
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
    sort_by(r, values, keys, jv_true(jarg(a, 2, jv_bool(false))));
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

FILTER(unique)
{
    jlist *from = jv_iterate(r, self), *out = jlist_new(&r->m, 0);
    jdict *seen = jdict_new(&r->m);
    for (size_t i = 0; i < from->count; i++) {
        jval key = key_of(r, from->item[i], a->v[1], jv_true(jarg(a, 0, jv_bool(false))));
        if (jdict_get(r, seen, key)) continue;
        jdict_set(r, seen, key, jv_none());
        jlist_add(&r->m, out, from->item[i]);
    }
    return jv_iterator(out);
}

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
    for (size_t i = 0; i < l->count; i++) {
        jval v = l->item[i];
        if (a->v[0].kind != J_MISSING && a->v[0].kind != J_NONE) v = jinja_attribute_path(r, v, a->v[0], (jval){.kind = J_MISSING});
        total = jv_binary(r, '+', total, v);
    }
    return total;
}

FILTER(batch)
{
    jint n = jv_to_int(r, a->v[0], "batch");
    jlist *from = jv_iterate(r, self), *out = jlist_new(&r->m, 0), *row = NULL;
    if (n < 1 || n > 1000000) jinja_fail(&r->m, VLM_FORMAT, "batch: the line count must be positive");
    for (size_t i = 0; i < from->count; i++) {
        if (!row || (jint)row->count == n) jlist_add(&r->m, out, jv_list(row = jlist_new(&r->m, 0)));
        jlist_add(&r->m, row, from->item[i]);
    }
    while (row && a->v[1].kind != J_MISSING && a->v[1].kind != J_NONE && (jint)row->count < n) jlist_add(&r->m, row, a->v[1]);
    return jv_iterator(out);
}

FILTER(slice)
{
    jint n = jv_to_int(r, a->v[0], "slice");
    if (n < 1 || n > 1000000) jinja_fail(&r->m, VLM_FORMAT, "slice: the number of slices must be positive");
    jlist *from = jv_iterate(r, self), *out = jlist_new(&r->m, 0);
    size_t each = from->count / (size_t)n, more = from->count % (size_t)n, at = 0;
    for (size_t i = 0; i < (size_t)n; i++) {
        jlist *row = jlist_new(&r->m, 0);
        for (size_t k = 0; k < each + (i < more); k++) jlist_add(&r->m, row, from->item[at++]);
        if (i >= more && a->v[1].kind != J_MISSING && a->v[1].kind != J_NONE) jlist_add(&r->m, row, a->v[1]);
        jlist_add(&r->m, out, jv_list(row));
    }
    return jv_iterator(out);
}

/* ---- map, select, reject ---- */

/* jinja2 does not iterate what is false: none gives nothing. */
static jlist *iterate_true(jrun *r, jval v) { return v.kind == J_UNDEFINED || jv_true(v) ? jv_iterate(r, v) : jlist_new(&r->m, 0); }

FILTER(map)
{
    jlist *from = iterate_true(r, self), *out = jlist_new(&r->m, from->count);
    jval attribute = {.kind = J_MISSING}, otherwise = {.kind = J_MISSING};
    for (size_t i = 0; i < a->n_kw && !a->n; i++) {
        if (jstr_is(a->kw[i].name, "attribute")) attribute = a->kw[i].value;
        else if (jstr_is(a->kw[i].name, "default")) otherwise = a->kw[i].value;
        else jinja_fail(&r->m, VLM_FORMAT, "map: unexpected keyword argument '%.*s'", (int)(a->kw[i].name->size < 60 ? a->kw[i].name->size : 60), a->kw[i].name->data);
    }
    if (!a->n && attribute.kind == J_MISSING) jinja_fail(&r->m, VLM_FORMAT, "map requires a filter argument");
    const jbuiltin *fn = NULL;
    if (a->n) {
        if (a->v[0].kind != J_STRING || !(fn = jinja_filter(a->v[0].s))) jinja_fail(&r->m, VLM_FORMAT, "map: no such filter");
    }
    jargs rest = {.v = a->v + 1, .n = a->n ? a->n - 1 : 0, .kw = a->kw, .n_kw = a->n_kw};
    for (size_t i = 0; i < from->count; i++) {
        jval v;
        jinja_enter(r);
        if (fn) v = jinja_call_builtin(r, fn, from->item[i], &rest, "filter");
        else {
            v = jinja_attribute_path(r, from->item[i], attribute, otherwise);
        }
        jinja_leave(r);
        jlist_add(&r->m, out, v);
    }
    return jv_iterator(out);
}

static jval choose(jrun *r, jval self, jargs *a, bool by_attribute, bool wanted)
{
    jlist *from = iterate_true(r, self), *out = jlist_new(&r->m, 0);
    size_t skip = by_attribute;
    if (a->n < skip) jinja_fail(&r->m, VLM_FORMAT, "Missing parameter for attribute name");
    const jbuiltin *test = NULL;
    jargs rest = {.n = 0};
    if (a->n > skip) {
        if (a->v[skip].kind != J_STRING || !(test = jinja_test(a->v[skip].s))) jinja_fail(&r->m, VLM_FORMAT, "select: no such test");
        rest = (jargs){.v = a->v + skip + 1, .n = a->n - skip - 1, .kw = a->kw, .n_kw = a->n_kw};
    }
    for (size_t i = 0; i < from->count; i++) {
        jinja_enter(r);
        jval v = by_attribute ? jinja_attribute_path(r, from->item[i], a->v[0], (jval){.kind = J_MISSING}) : from->item[i];
        bool holds = test ? jinja_test_value(r, test, v, &rest) : jv_true(v);
        jinja_leave(r);
        if (holds == wanted) jlist_add(&r->m, out, from->item[i]);
    }
    return jv_iterator(out);
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
