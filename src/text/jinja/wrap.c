/* wrap.c - the filter wordwrap: Python's textwrap.wrap, line by line. */
#include "text/jinja/internal.h"

typedef struct text { const uint32_t *c; size_t n; } text;

static bool is_white(uint32_t c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
static bool is_word(uint32_t c) { return jchar_is_alnum(c) || c == '_'; }
static bool is_letter(uint32_t c) { return is_word(c) && c != '_' && !jchar_is_decimal(c); }          /* [^\d\W], and _ is a letter there */
static bool lt(uint32_t c) { return is_letter(c) || c == '_'; }
static bool wp(uint32_t c) { return is_word(c) || (c && c < 128 && strchr("!\"'&.,?", (int)c)); }

/* Length of a dash of two or more at i with a word after it, or 0. */
static size_t dash(text t, size_t i)
{
    size_t n = 0;
    while (i + n < t.n && t.c[i + n] == '-') n++;
    return n >= 2 && i + n < t.n && is_word(t.c[i + n]) ? n : 0;
}

/* May the text be broken after the hyphen at j? */
static bool hyphen(text t, size_t j)
{
    bool before = (j >= 2 && lt(t.c[j - 1]) && lt(t.c[j - 2])) || (j >= 3 && wp(t.c[j - 1]) && t.c[j - 2] == '-' && lt(t.c[j - 3]));
    if (!before || j + 1 >= t.n || !lt(t.c[j + 1])) return false;
    size_t next = j + 2 < t.n && t.c[j + 2] == '-' ? j + 3 : j + 2;
    return next < t.n && lt(t.c[next]);
}

/* End of the chunk that begins at i: white space, a dash, a word or a part of one that ends in a hyphen. */
static size_t chunk_end(text t, size_t i, bool hyphens)
{
    size_t j = i;
    if (is_white(t.c[i])) {
        while (j < t.n && is_white(t.c[j])) j++;
        return j;
    }
    if (hyphens && i && wp(t.c[i - 1]) && dash(t, i)) return i + dash(t, i);
    for (j = i + 1; j < t.n && !is_white(t.c[j]); j++) {
        if (!hyphens || t.c[j] != '-') continue;
        if (hyphen(t, j)) return j + 1;
        if (wp(t.c[j - 1]) && dash(t, j)) return j;
    }
    return j;
}

static bool blank(text t, size_t from, size_t to)
{
    for (; from < to; from++)
        if (!jchar_is_space(t.c[from])) return false;
    return true;
}

/* Where a chunk that is longer than a line is cut: after a hyphen that fits, else where the line ends. */
static size_t cut(text t, size_t from, size_t to, size_t room, bool hyphens)
{
    size_t end = from + room < to ? from + room : to;
    if (!hyphens || to - from <= room) return end;
    size_t at = end;
    while (at > from && t.c[at - 1] != '-') at--;
    bool other = false;
    for (size_t i = from; at > from && i + 1 < at; i++) other |= t.c[i] != '-';
    return at > from + 1 && other ? at : end;
}

typedef struct wrapper { jrun *r; jbuf *out; const jstr *newline; size_t width; bool break_long, hyphens, any; } wrapper;

static void wrap_line(wrapper *w, text t)
{
    bool first = true;
    for (size_t at = 0; at < t.n;) {
        size_t end = chunk_end(t, at, w->hyphens), from = at, last = at;      /* the line: [from, at); its last chunk begins at `last` */
        if (!first && blank(t, at, end)) from = at = last = end;
        while (at < t.n && (end = chunk_end(t, at, w->hyphens)) - from <= w->width) {
            last = at;
            at = end;
        }
        if (at < t.n && end - at > w->width) {
            size_t room = w->width - (at - from);
            if (w->break_long) {
                last = at;
                at = cut(t, at, end, room, w->hyphens);
            } else if (at == from) at = end;
        }
        jinja_work(&w->r->m, (at - from) / 16 + 1);
        size_t to = at > last && blank(t, last, at) ? last : at;
        if (to == from) continue;
        if (!first) jbuf_addstr(w->out, w->newline);
        first = false;
        for (; from < to; from++) jbuf_utf8(w->out, t.c[from]);
    }
}

jval jinja_wordwrap(jrun *r, jval self, jargs *a)
{
    if (self.kind == J_UNDEFINED) jinja_undefined_error(r, self);
    if (self.kind != J_STRING) jinja_fail(&r->m, VLM_FORMAT, "filter wordwrap: expected a string, got '%s'", jv_type(self));
    jint width = jv_to_int(r, jarg(a, 0, jv_int(79)), "wordwrap");
    jbuf out = {.m = &r->m};
    wrapper w = {.r = r, .out = &out, .newline = jstr_copy(&r->m, "\n", 1), .break_long = jv_true(jarg(a, 1, jv_bool(true))), .hyphens = jv_true(jarg(a, 3, jv_bool(true)))};
    if (a->v[2].kind != J_MISSING && a->v[2].kind != J_NONE) {
        if (a->v[2].kind != J_STRING) jinja_fail(&r->m, VLM_FORMAT, "wordwrap: wrapstring must be a str");
        w.newline = a->v[2].s;
    }
    jlist *lines = jstr_splitlines(&r->m, self.s, false);
    if (lines->count && width <= 0) jinja_fail(&r->m, VLM_FORMAT, "invalid width %lld (must be > 0)", (long long)width);
    w.width = width > INT32_MAX ? INT32_MAX : (size_t)width;
    for (size_t i = 0; i < lines->count; i++) {
        const jstr *s = lines->item[i].s;
        uint32_t *c = jinja_alloc(&r->m, (s->chars + 1) * sizeof *c);
        size_t n = 0;
        for (size_t at = 0; at < s->size; n++) at += utf8_next_lossy(s->data + at, s->size - at, &c[n]);
        if (i) jbuf_addstr(&out, w.newline);
        wrap_line(&w, (text){c, n});
    }
    return jv_buf(&out);
}
