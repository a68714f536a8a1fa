/* value.c - making values, dictionaries, and what Python's built-in functions ask of values: bool, len, iter, in, type. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "text/jinja/internal.h"
#include "text/json_wide.h"

/* ---- growing text ---- */

static char *jbuf_room(jbuf *b, size_t n)
{
    if (b->limit && b->size + n > b->limit) jinja_fail(b->m, VLM_LIMIT, "output of more than %zu bytes", b->limit);
    if (b->size + n > b->capacity) {
        size_t capacity = b->capacity ? b->capacity * 2 : 64;
        while (capacity < b->size + n) capacity *= 2;
        char *grown = jinja_alloc(b->m, capacity);
        if (b->size) memcpy(grown, b->data, b->size);
        b->data = grown;
        b->capacity = capacity;
    }
    return b->data + b->size;
}

void jbuf_add(jbuf *b, const char *data, size_t n)
{
    if (!n) return;
    memcpy(jbuf_room(b, n), data, n);
    b->size += n;
}

void jbuf_adds(jbuf *b, const char *text) { jbuf_add(b, text, strlen(text)); }

void jbuf_addc(jbuf *b, char c)
{
    *jbuf_room(b, 1) = c;
    b->size++;
}

void jbuf_addn(jbuf *b, char c, size_t n)
{
    if (!n) return;
    memset(jbuf_room(b, n), c, n);
    b->size += n;
}

void jbuf_addstr(jbuf *b, const jstr *s) { jbuf_add(b, s->data, s->size); }

void jbuf_utf8(jbuf *b, uint32_t c)
{
    char t[4];
    if (c > 0x10FFFF || (c >= 0xD800 && c < 0xE000)) c = 0xFFFD;
    if (c < 0x80) {
        jbuf_addc(b, (char)c);
    } else if (c < 0x800) {
        t[0] = (char)(0xC0 | c >> 6);
        t[1] = (char)(0x80 | (c & 63));
        jbuf_add(b, t, 2);
    } else if (c < 0x10000) {
        t[0] = (char)(0xE0 | c >> 12);
        t[1] = (char)(0x80 | (c >> 6 & 63));
        t[2] = (char)(0x80 | (c & 63));
        jbuf_add(b, t, 3);
    } else {
        t[0] = (char)(0xF0 | c >> 18);
        t[1] = (char)(0x80 | (c >> 12 & 63));
        t[2] = (char)(0x80 | (c >> 6 & 63));
        t[3] = (char)(0x80 | (c & 63));
        jbuf_add(b, t, 4);
    }
}

/* ---- making ---- */

const jstr *jstr_new(jmem *m, const char *data, size_t size)
{
    jstr *s = jinja_alloc(m, sizeof *s);
    jinja_work(m, size / 64);
    *s = (jstr){size ? data : "", size, utf8_length(data, size)};
    return s;
}

const jstr *jstr_copy(jmem *m, const char *data, size_t size)
{
    char *copy = jinja_alloc(m, size + 1);
    if (size) memcpy(copy, data, size);
    return jstr_new(m, copy, size);
}

jval jv_text(jmem *m, const char *text) { return jv_str(jstr_copy(m, text, strlen(text))); }
jval jv_textn(jmem *m, const char *text, size_t size) { return jv_str(jstr_new(m, text, size)); }
jval jv_buf(jbuf *b) { return jv_str(jstr_new(b->m, b->data, b->size)); }

jval jv_undefined(jmem *m, const char *format, ...)
{
    char text[300];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    size_t size = n < 0 ? 0 : (size_t)n < sizeof text ? (size_t)n : sizeof text - 1;
    char *copy = jinja_alloc(m, size + 1);
    memcpy(copy, text, size);
    return (jval){.kind = J_UNDEFINED, .hint = copy};
}

jlist *jlist_new(jmem *m, size_t capacity)
{
    jlist *l = jinja_alloc(m, sizeof *l);
    if (capacity > m->limit / sizeof *l->item) jinja_fail(m, VLM_LIMIT, "list of %zu items is too long", capacity);
    l->item = jinja_alloc(m, capacity * sizeof *l->item);
    l->capacity = capacity;
    return l;
}

void jlist_add(jmem *m, jlist *l, jval v)
{
    if (l->count == l->capacity) {
        size_t capacity = l->capacity ? l->capacity * 2 : 8;
        jval *grown = jinja_alloc(m, capacity * sizeof *grown);
        if (l->count) memcpy(grown, l->item, l->count * sizeof *grown);
        l->item = grown;
        l->capacity = capacity;
    }
    l->item[l->count++] = v;
}

static jval wide_number(jrun *r, const char *text)
{
    if (strpbrk(text, ".eENI")) return jv_float(strtod(text, NULL));
    jint i = 0;
    bool negative = *text == '-';
    for (text += negative; *text; text++)
        if (*text < '0' || *text > '9' || __builtin_mul_overflow(i, (jint)10, &i) || __builtin_sub_overflow(i, (jint)(*text - '0'), &i))
            jinja_fail(&r->m, VLM_LIMIT, "an integer needs more than 128 bits");
    if (!negative && __builtin_sub_overflow((jint)0, i, &i)) jinja_fail(&r->m, VLM_LIMIT, "an integer needs more than 128 bits");
    return jv_int(i);
}

jval jv_from_json(jrun *r, const json_t *j)
{
    if (++r->depth > 1000) jinja_fail(&r->m, VLM_LIMIT, "variables are nested too deeply");
    jval v = jv_none();
    switch (j ? json_typeof(j) : JSON_NULL) {
    case JSON_NULL: break;
    case JSON_TRUE:
    case JSON_FALSE: v = jv_bool(json_is_true(j)); break;
    case JSON_INTEGER: v = jv_int(json_integer_value(j)); break;
    case JSON_REAL: v = jv_float(json_real_value(j)); break;
    case JSON_STRING:
        if (json_wide_number(j)) {
            v = wide_number(r, json_wide_number(j));
            break;
        }
        v = jv_textn(&r->m, json_string_value(j), json_string_length(j)); break;
    case JSON_ARRAY: {
        jlist *l = jlist_new(&r->m, json_array_size(j));
        for (size_t i = 0; i < json_array_size(j); i++) jlist_add(&r->m, l, jv_from_json(r, json_array_get(j, i)));
        v = jv_list(l);
    } break;
    case JSON_OBJECT: {
        jdict *d = jdict_new(&r->m);
        const char *key;
        size_t size;
        json_t *value;
        json_object_keylen_foreach((json_t *)j, key, size, value) jdict_set(r, d, jv_textn(&r->m, key, size), jv_from_json(r, value));
        v = jv_dict(d);
    } break;
    }
    r->depth--;
    return v;
}

/* ---- dictionaries: entries in order of insertion, an open-addressing index of entry numbers + 1 ---- */

static uint64_t hash_bytes_of(const char *data, size_t size)
{
    uint64_t h = 0xCBF29CE484222325u;
    for (size_t i = 0; i < size; i++) h = (h ^ (unsigned char)data[i]) * 0x100000001B3u;
    return h;
}

static uint64_t hash_value(jrun *r, jval v)
{
    switch (v.kind) {
    case J_STRING:
    case J_BYTES: return hash_bytes_of(v.s->data, v.s->size);
    case J_BOOL: return (uint64_t)v.b * 0x9E3779B97F4A7C15u;
    case J_INT: return (uint64_t)v.i * 0x9E3779B97F4A7C15u;
    case J_FLOAT:
        if (v.f == floor(v.f) && fabs(v.f) < 1e18) return (uint64_t)(int64_t)v.f * 0x9E3779B97F4A7C15u;       /* 1.0 is the key 1 */
        return hash_bytes_of((const char *)&v.f, sizeof v.f);
    case J_TUPLE: {
        uint64_t h = 17;
        jinja_enter(r);
        for (size_t i = 0; i < v.list->count; i++) h = h * 31 + hash_value(r, v.list->item[i]);
        jinja_leave(r);
        return h;
    }
    case J_LIST:
    case J_DICT: jinja_fail(&r->m, VLM_FORMAT, "unhashable type: '%s'", jv_type(v));
    default: return (uint64_t)v.kind;
    }
}

bool jv_is_hashable(jval v)
{
    bool all = v.kind != J_LIST && v.kind != J_DICT;
    for (size_t i = 0; v.kind == J_TUPLE && all && i < v.list->count; i++) all = jv_is_hashable(v.list->item[i]);
    return all;
}

jdict *jdict_new(jmem *m) { return jinja_alloc(m, sizeof(jdict)); }

static void grow_dict(jrun *r, jdict *d)
{
    size_t capacity = d->capacity ? d->capacity * 2 : 8;
    jentry *entry = jinja_alloc(&r->m, capacity * sizeof *entry);
    if (d->count) memcpy(entry, d->entry, d->count * sizeof *entry);
    d->entry = entry;
    d->capacity = capacity;
    d->index_size = capacity * 2;
    d->index = jinja_alloc(&r->m, d->index_size * sizeof *d->index);
    for (size_t i = 0; i < d->count; i++) {
        size_t at = d->entry[i].hash % d->index_size;
        while (d->index[at]) at = (at + 1) % d->index_size;
        d->index[at] = (uint32_t)i + 1;
    }
}

static jentry *find_entry(jrun *r, const jdict *d, jval key, uint64_t hash)
{
    if (!d->count) return NULL;
    for (size_t at = hash % d->index_size; d->index[at]; at = (at + 1) % d->index_size) {
        jentry *e = &d->entry[d->index[at] - 1];
        if (e->hash == hash && jv_equal(r, e->key, key)) return e;
    }
    return NULL;
}

void jdict_set(jrun *r, jdict *d, jval key, jval value)
{
    uint64_t hash = hash_value(r, key);
    jentry *e = find_entry(r, d, key, hash);
    if (e) {
        e->value = value;
        return;
    }
    if (d->count == d->capacity) grow_dict(r, d);
    d->entry[d->count] = (jentry){key, value, hash};
    size_t at = hash % d->index_size;
    while (d->index[at]) at = (at + 1) % d->index_size;
    d->index[at] = (uint32_t)++d->count;
}

const jval *jdict_get(jrun *r, const jdict *d, jval key)
{
    if (key.kind == J_STRING) jinja_work(&r->m, key.s->size / 64);
    if (key.kind == J_STRING) return jdict_get_text(d, key.s->data, key.s->size);
    jentry *e = find_entry(r, d, key, hash_value(r, key));
    return e ? &e->value : NULL;
}

const jval *jdict_get_text(const jdict *d, const char *text, size_t size)
{
    if (!d->count) return NULL;
    uint64_t hash = hash_bytes_of(text, size);
    for (size_t at = hash % d->index_size; d->index[at]; at = (at + 1) % d->index_size) {
        const jentry *e = &d->entry[d->index[at] - 1];
        if (e->hash == hash && e->key.kind == J_STRING && e->key.s->size == size && memcmp(e->key.s->data, text, size) == 0) return &e->value;
    }
    return NULL;
}

/* ---- asking ---- */

const char *jv_type(jval v)
{
    switch (v.kind) {
    case J_MISSING:
    case J_UNDEFINED: return "Undefined";
    case J_NONE: return "NoneType";
    case J_BOOL: return "bool";
    case J_INT: return "int";
    case J_FLOAT: return "float";
    case J_STRING: return v.markup ? "Markup" : "str";
    case J_BYTES: return "bytes";
    case J_LIST: return "list";
    case J_TUPLE: return "tuple";
    case J_DICT: return "dict";
    case J_RANGE: return "range";
    case J_VIEW: return v.list->view;
    case J_ITERATOR: return "generator";
    case J_NAMESPACE: return "Namespace";
    case J_MACRO: return "Macro";
    case J_FUNCTION: return "function";
    case J_METHOD: return "builtin_function_or_method";
    case J_LOOP: return "LoopContext";
    case J_CYCLER: return "Cycler";
    case J_JOINER: return "Joiner";
    }
    return "?";
}

static jint range_length(const jrange *g)
{
    if (g->step > 0) return g->stop > g->start ? (g->stop - g->start - 1) / g->step + 1 : 0;
    return g->start > g->stop ? (g->start - g->stop - 1) / -g->step + 1 : 0;
}

bool jv_true(jval v)
{
    switch (v.kind) {
    case J_MISSING:
    case J_UNDEFINED:
    case J_NONE: return false;
    case J_BOOL: return v.b;
    case J_INT: return v.i != 0;
    case J_FLOAT: return v.f != 0;
    case J_STRING:
    case J_BYTES: return v.s->size != 0;
    case J_LIST:
    case J_TUPLE:
    case J_VIEW: return v.list->count != 0;
    case J_DICT: return v.dict->count != 0;
    case J_RANGE: return range_length(v.range) != 0;
    default: return true;
    }
}

bool jv_length(jval v, size_t *n)
{
    switch (v.kind) {
    case J_UNDEFINED: *n = 0; return true;
    case J_STRING:
    case J_BYTES: *n = v.s->chars; return true;
    case J_LIST:
    case J_TUPLE:
    case J_VIEW: *n = v.list->count; return true;
    case J_DICT: *n = v.dict->count; return true;
    case J_RANGE: *n = (size_t)range_length(v.range); return true;
    case J_LOOP: *n = jloop_length(v.loop); return true;
    default: return false;
    }
}

bool jv_is_iterable(jval v)
{
    switch (v.kind) {
    case J_UNDEFINED:
    case J_STRING: case J_BYTES: case J_LIST: case J_TUPLE: case J_DICT: case J_RANGE: case J_VIEW: case J_ITERATOR: case J_LOOP: return true;
    default: return false;
    }
}

jlist *jv_iterate(jrun *r, jval v)
{
    jmem *m = &r->m;
    size_t n;
    if (jv_length(v, &n)) jinja_work(m, n);
    switch (v.kind) {
    case J_UNDEFINED: return jlist_new(m, 0);
    case J_BYTES: {
        jlist *l = jlist_new(m, v.s->size);
        for (size_t i = 0; i < v.s->size; i++) jlist_add(m, l, jv_int((unsigned char)v.s->data[i]));
        return l;
    }
    case J_LIST: case J_TUPLE: case J_VIEW: return v.list;
    case J_ITERATOR: {                             /* what is left of it, and then nothing */
        jlist *rest = jlist_new(m, 0);
        for (jval item; jiter_next(r, v.list, &item);) {
            jinja_work(m, 1);
            jlist_add(m, rest, item);
        }
        return rest;
    }
    case J_STRING: {
        jlist *l = jlist_new(m, v.s->chars);
        for (size_t i = 0; i < v.s->size;) {
            n = utf8_size((unsigned char)v.s->data[i]);
            jlist_add(m, l, jv_textn(m, v.s->data + i, n));
            i += n;
        }
        return l;
    }
    case J_DICT: {
        jlist *l = jlist_new(m, v.dict->count);
        for (size_t i = 0; i < v.dict->count; i++) jlist_add(m, l, v.dict->entry[i].key);
        return l;
    }
    case J_RANGE: {
        n = (size_t)range_length(v.range);
        jlist *l = jlist_new(m, n);
        for (size_t i = 0; i < n; i++) jlist_add(m, l, jv_int(v.range->start + (jint)i * v.range->step));
        return l;
    }
    default: jinja_fail(m, VLM_FORMAT, "'%s' object is not iterable", jv_type(v));
    }
}

bool jv_contains(jrun *r, jval container, jval item)
{
    switch (container.kind) {
    case J_STRING:
        if (item.kind == J_UNDEFINED) jinja_fail(&r->m, VLM_FORMAT, "'in <string>' requires string as left operand, not Undefined");
        jinja_work(&r->m, container.s->size / 16);
        if (item.kind != J_STRING) jinja_fail(&r->m, VLM_FORMAT, "'in <string>' requires string as left operand, not %s", jv_type(item));
        return bytes_find(container.s->data, container.s->size, 0, item.s->data, item.s->size) != SIZE_MAX;
    case J_DICT: return jdict_get(r, container.dict, item) != NULL;
    default: break;
    }
    if (container.kind == J_VIEW && container.list->view[5] == 'k' && !jv_is_hashable(item)) jinja_fail(&r->m, VLM_FORMAT, "unhashable type: '%s'", jv_type(item));
    if (!jv_is_iterable(container)) jinja_fail(&r->m, VLM_FORMAT, "argument of type '%s' is not iterable", jv_type(container));
    jsource source = jsource_open(r, container);
    for (jval other; jsource_next(r, &source, &other);)
        if (jv_equal(r, other, item)) return true;
    return false;
}

void jinja_undefined_error(jrun *r, jval v) { jinja_fail(&r->m, VLM_FORMAT, "%s", v.hint ? v.hint : "the value is undefined"); }
