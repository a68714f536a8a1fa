/* pprint.c - the filter pprint: Python's pprint.pformat, 80 columns, dictionaries sorted. */
#include "text/jinja/internal.h"

typedef struct printer { jrun *r; jbuf *out; } printer;
enum { WIDTH = 80 };

/* ---- repr with sorted dictionaries ---- */

static int safe_compare(jrun *r, jval a, jval b)
{
    bool ordered = (jv_is_number(a) && jv_is_number(b)) || (a.kind == b.kind && (a.kind == J_STRING || a.kind == J_TUPLE));
    return ordered ? jv_compare(r, a, b, "<") : strcmp(jv_type(a), jv_type(b));
}

/* Entry numbers in the order of their keys. */
static jlist *sorted_entries(jrun *r, const jdict *d)
{
    jlist *order = jlist_new(&r->m, d->count);
    for (size_t i = 0; i < d->count; i++) {
        jlist_add(&r->m, order, jv_int((jint)i));
        for (size_t k = i; k && safe_compare(r, d->entry[order->item[k].i].key, d->entry[order->item[k - 1].i].key) < 0; k--) {
            jval moved = order->item[k];
            order->item[k] = order->item[k - 1];
            order->item[k - 1] = moved;
            jinja_work(&r->m, 1);
        }
    }
    return order;
}

static void add_repr(jrun *r, jbuf *b, jval v)
{
    bool list = v.kind == J_LIST || v.kind == J_TUPLE;
    if (!list && v.kind != J_DICT) {
        jv_repr(r, b, v);
        return;
    }
    jinja_enter(r);
    jbuf_addc(b, list ? v.kind == J_LIST ? '[' : '(' : '{');
    jlist *order = list ? NULL : sorted_entries(r, v.dict);
    size_t n = list ? v.list->count : v.dict->count;
    for (size_t i = 0; i < n; i++) {
        if (i) jbuf_adds(b, ", ");
        if (list) add_repr(r, b, v.list->item[i]);
        else {
            const jentry *e = &v.dict->entry[order->item[i].i];
            add_repr(r, b, e->key);
            jbuf_adds(b, ": ");
            add_repr(r, b, e->value);
        }
    }
    jbuf_adds(b, list ? v.kind == J_LIST ? "]" : n == 1 ? ",)" : ")" : "}");
    jinja_leave(r);
}

static const jstr *repr(jrun *r, jval v)
{
    jbuf b = {.m = &r->m};
    add_repr(r, &b, v);
    return jv_buf(&b).s;
}

/* ---- laid out ---- */

static void print(printer *p, jval v, jint indent, jint allowance, int level);

static void new_line(printer *p, jint indent)
{
    jbuf_addc(p->out, '\n');
    jbuf_addn(p->out, ' ', (size_t)indent);
}

static void print_items(printer *p, const jlist *l, jint indent, jint allowance, int level)
{
    for (size_t i = 0; i < l->count; i++) {
        if (i) {
            jbuf_addc(p->out, ',');
            new_line(p, indent + 1);
        }
        print(p, l->item[i], indent + 1, i + 1 == l->count ? allowance : 1, level);
    }
}

static void print_dict(printer *p, const jdict *d, jint indent, jint allowance, int level)
{
    jlist *order = sorted_entries(p->r, d);
    for (size_t i = 0; i < d->count; i++) {
        const jentry *e = &d->entry[order->item[i].i];
        if (i) {
            jbuf_addc(p->out, ',');
            new_line(p, indent + 1);
        }
        const jstr *key = repr(p->r, e->key);
        jbuf_addstr(p->out, key);
        jbuf_adds(p->out, ": ");
        print(p, e->value, indent + 1 + (jint)key->chars + 2, i + 1 == d->count ? allowance : 1, level);
    }
}

/* The words of a line with the white space after them. */
static jlist *words_of(jrun *r, const jstr *line)
{
    jlist *l = jlist_new(&r->m, 0);
    for (size_t i = 0, from = 0; i < line->size; from = i) {
        uint32_t c;
        size_t n;
        for (; i < line->size; i += n) {
            n = utf8_next_lossy(line->data + i, line->size - i, &c);
            if (jchar_is_space(c)) break;
        }
        for (; i < line->size; i += n) {
            n = utf8_next_lossy(line->data + i, line->size - i, &c);
            if (!jchar_is_space(c)) break;
        }
        jlist_add(&r->m, l, jv_textn(&r->m, line->data + from, i - from));
    }
    return l;
}

/* A long line in pieces of at most `width` characters; the very last one leaves `allowance` free. */
static void cut_line(jrun *r, jlist *chunks, const jstr *line, jint width, jint allowance, bool last)
{
    jlist *words = words_of(r, line);
    jval current = jv_textn(&r->m, "", 0);
    for (size_t i = 0; i < words->count; i++) {
        if (last && i + 1 == words->count) width -= allowance;
        jval candidate = jv_binary(r, '+', current, words->item[i]);
        if ((jint)repr(r, candidate)->chars > width) {
            if (current.s->size) jlist_add(&r->m, chunks, jv_str(repr(r, current)));
            current = words->item[i];
        } else current = candidate;
    }
    if (current.s->size) jlist_add(&r->m, chunks, jv_str(repr(r, current)));
}

static void print_text(printer *p, jval v, jint indent, jint allowance, int level)
{
    jrun *r = p->r;
    jlist *lines = jstr_splitlines(&r->m, v.s, true), *chunks = jlist_new(&r->m, 0);
    const jstr *whole = NULL;
    if (level == 1) indent++, allowance++;
    for (size_t i = 0; i < lines->count; i++) {
        bool last = i + 1 == lines->count;
        whole = repr(r, lines->item[i]);
        if ((jint)whole->chars <= WIDTH - indent - (last ? allowance : 0)) jlist_add(&r->m, chunks, jv_str(whole));
        else cut_line(r, chunks, lines->item[i].s, WIDTH - indent, allowance, last);
    }
    if (chunks->count == 1) {
        jbuf_addstr(p->out, whole);
        return;
    }
    if (level == 1) jbuf_addc(p->out, '(');
    for (size_t i = 0; i < chunks->count; i++) {
        if (i) new_line(p, indent);
        jbuf_addstr(p->out, chunks->item[i].s);
    }
    if (level == 1) jbuf_addc(p->out, ')');
}

static void print(printer *p, jval v, jint indent, jint allowance, int level)
{
    const jstr *text = repr(p->r, v);
    bool fits = (jint)text->chars <= WIDTH - indent - allowance;
    if (fits || !(v.kind == J_LIST || v.kind == J_TUPLE || v.kind == J_DICT || (v.kind == J_STRING && !v.markup && v.s->size))) {
        jbuf_addstr(p->out, text);
        return;
    }
    jinja_enter(p->r);
    if (v.kind == J_STRING) print_text(p, v, indent, allowance, level + 1);
    else if (v.kind == J_DICT) {
        jbuf_addc(p->out, '{');
        print_dict(p, v.dict, indent, allowance + 1, level + 1);
        jbuf_addc(p->out, '}');
    } else {
        const char *end = v.kind == J_LIST ? "]" : v.list->count == 1 ? ",)" : ")";
        jbuf_addc(p->out, v.kind == J_LIST ? '[' : '(');
        print_items(p, v.list, indent, allowance + (jint)strlen(end), level + 1);
        jbuf_adds(p->out, end);
    }
    jinja_leave(p->r);
}

jval jinja_pprint(jrun *r, jval self, jargs *a)
{
    (void)a;
    jbuf out = {.m = &r->m};
    printer p = {r, &out};
    print(&p, self, 0, 0, 0);
    return jv_buf(&out);
}
