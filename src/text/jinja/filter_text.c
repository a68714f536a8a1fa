/* filter_text.c - filters that make text. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "text/jinja/internal.h"

#define FILTER(name) static jval f_##name(jrun *r, jval self, jargs *a)

static bool is_marked(jval v) { return v.kind == J_STRING && v.markup; }

FILTER(upper) { return jv_marked(jv_str(jstr_upper(&r->m, jv_string(r, self))), is_marked(self)); }
FILTER(lower) { return jv_marked(jv_str(jstr_lower(&r->m, jv_string(r, self))), is_marked(self)); }
FILTER(capitalize) { return jv_marked(jv_str(jstr_capitalize(&r->m, jv_string(r, self))), is_marked(self)); }
FILTER(string) { return self.kind == J_STRING ? self : jv_str(jv_string(r, self)); }

/* jinja2's title: words begin after white space and -({[<, not after an apostrophe. */
FILTER(title)
{
    const jstr *s = jv_string(r, self);
    jbuf out = {.m = &r->m};
    for (size_t i = 0; i < s->size;) {
        size_t from = i;
        while (i < s->size) {
            uint32_t c;
            size_t n = utf8_next_lossy(s->data + i, s->size - i, &c);
            if (unicode_is_space(c) || (c < 128 && c && strchr("-({[<", (int)c))) break;
            i += n;
        }
        if (i > from) {
            size_t n = utf8_size((unsigned char)s->data[from]);
            jbuf_addstr(&out, jstr_upper(&r->m, jstr_new(&r->m, s->data + from, n)));
            jbuf_addstr(&out, jstr_lower(&r->m, jstr_new(&r->m, s->data + from + n, i - from - n)));
        }
        if (i < s->size) {
            size_t n = utf8_size((unsigned char)s->data[i]);
            jbuf_add(&out, s->data + i, n);
            i += n;
        }
    }
    return jv_buf(&out);
}

FILTER(trim)
{
    jval set = jarg(a, 0, jv_none());
    if (set.kind != J_STRING && set.kind != J_NONE) jinja_fail(&r->m, VLM_FORMAT, "strip arg must be None or str");
    return jv_marked(jv_str(jstr_strip(&r->m, jv_string(r, self), set.kind == J_STRING ? set.s : NULL, true, true)), is_marked(self));
}

FILTER(replace)
{
    jint count = a->v[2].kind == J_MISSING || a->v[2].kind == J_NONE ? -1 : jv_to_int(r, a->v[2], "replace");
    return jv_str(jstr_replace(&r->m, jv_string(r, self), jv_string(r, a->v[0]), jv_string(r, a->v[1]), count));
}

static jval markup(jval v)
{
    v.markup = true;
    return v;
}

FILTER(safe) { return markup(jv_str(jv_string(r, self))); }

FILTER(forceescape)
{
    jbuf out = {.m = &r->m};
    jinja_escape_html(&out, jv_string(r, self));
    return markup(jv_buf(&out));
}

FILTER(escape) { return is_marked(self) ? self : f_forceescape(r, self, a); }

FILTER(format)
{
    jval format = self.kind == J_STRING ? self : jv_str(jv_string(r, self));
    if (a->n && a->n_kw) jinja_fail(&r->m, VLM_FORMAT, "can't handle positional and keyword arguments at the same time");
    if (a->n_kw) {
        jdict *d = jdict_new(&r->m);
        for (size_t i = 0; i < a->n_kw; i++) jdict_set(r, d, jv_str(a->kw[i].name), a->kw[i].value);
        return jinja_percent(r, format, jv_dict(d));
    }
    jlist *l = jlist_new(&r->m, a->n);
    for (size_t i = 0; i < a->n; i++) jlist_add(&r->m, l, a->v[i]);
    return jinja_percent(r, format, jv_tuple(l));
}

/* Filters that jinja2 writes with str methods fail for anything else. */
static void need_string(jrun *r, jval v, const char *filter)
{
    if (v.kind == J_UNDEFINED) jinja_undefined_error(r, v);
    if (v.kind != J_STRING) jinja_fail(&r->m, VLM_FORMAT, "filter %s: expected a string, got '%s'", filter, jv_type(v));
}

FILTER(indent)
{
    need_string(r, self, "indent");
    jval width = jarg(a, 0, jv_int(4));
    bool first = jv_true(jarg(a, 1, jv_bool(false))), blank = jv_true(jarg(a, 2, jv_bool(false)));
    const jstr *by;
    if (width.kind == J_STRING) by = width.s;
    else {
        jint n = jv_to_int(r, width, "indent");
        if (n > 10000) jinja_fail(&r->m, VLM_LIMIT, "indent is too wide");
        jbuf spaces = {.m = &r->m};
        if (n > 0) jbuf_addn(&spaces, ' ', (size_t)n);
        by = jv_buf(&spaces).s;
    }
    jbuf text = {.m = &r->m}, out = {.m = &r->m};
    jv_write(r, &text, self);
    jbuf_addc(&text, '\n');                        /* jinja2's quirk, so that a last newline gives a last line */
    jlist *lines = jstr_splitlines(&r->m, jv_buf(&text).s, false);
    for (size_t i = 0; i < lines->count; i++) {
        const jstr *line = lines->item[i].s;
        if (i) jbuf_addc(&out, '\n');
        if (i ? blank || line->size : first) jbuf_addstr(&out, by);
        jbuf_addstr(&out, line);
    }
    return jv_marked(jv_buf(&out), self.markup);
}

FILTER(truncate)
{
    const jstr *end = jv_string(r, jarg(a, 2, jv_text(&r->m, "...")));
    jint length = jv_to_int(r, jarg(a, 0, jv_int(255)), "truncate");
    jint leeway = a->v[3].kind == J_MISSING || a->v[3].kind == J_NONE ? 5 : jv_to_int(r, a->v[3], "truncate");
    if (length < (jint)end->chars) jinja_fail(&r->m, VLM_FORMAT, "truncate: expected length >= %zu", end->chars);
    size_t n;
    if (jv_length(self, &n) && (jint)n <= length + leeway) return self;
    need_string(r, self, "truncate");
    const jstr *s = self.s;
    size_t cut = jstr_offset(s, (size_t)length - end->chars);
    if (!jv_true(jarg(a, 1, jv_bool(false))))
        for (size_t i = cut; i-- > 0;)
            if (s->data[i] == ' ') {
                cut = i;
                break;
            }
    jbuf out = {.m = &r->m};
    jbuf_add(&out, s->data, cut);
    jbuf_addstr(&out, self.markup ? jinja_escaped(r, jarg(a, 2, jv_str(end))) : end);
    return jv_marked(jv_buf(&out), self.markup);
}

FILTER(center)
{
    const jstr *s = jv_string(r, self);
    jint width = jv_to_int(r, jarg(a, 0, jv_int(80)), "center"), missing = width - (jint)s->chars;
    if (missing > 1000000) jinja_fail(&r->m, VLM_LIMIT, "center is too wide");
    jint left = missing > 0 ? missing / 2 + (missing & width & 1) : 0;
    jbuf out = {.m = &r->m};
    jbuf_addn(&out, ' ', (size_t)left);
    jbuf_addstr(&out, s);
    if (missing > left) jbuf_addn(&out, ' ', (size_t)(missing - left));
    return jv_marked(jv_buf(&out), is_marked(self));
}

FILTER(wordcount)
{
    const jstr *s = jv_string(r, self);
    jint n = 0;
    bool inside = false;
    for (size_t i = 0; i < s->size;) {
        uint32_t c;
        i += utf8_next_lossy(s->data + i, s->size - i, &c);
        bool word = jchar_is_alnum(c) || c == '_';
        n += word && !inside;
        inside = word;
    }
    return jv_int(n);
}

static void quote(jbuf *out, const jstr *s, bool query)
{
    for (size_t i = 0; i < s->size; i++) {
        unsigned char c = (unsigned char)s->data[i];
        char text[4];
        bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c && strchr("_.-~", c)) || (c == '/' && !query);
        if (plain) jbuf_addc(out, (char)c);
        else if (query && c == ' ') jbuf_addc(out, '+');
        else {
            snprintf(text, sizeof text, "%%%02X", c);
            jbuf_adds(out, text);
        }
    }
}

FILTER(urlencode)
{
    jbuf out = {.m = &r->m};
    if (self.kind == J_STRING || !jv_is_iterable(self)) {
        quote(&out, jv_string(r, self), false);
        return jv_buf(&out);
    }
    jlist *items = self.kind == J_DICT ? NULL : jv_iterate(r, self);
    size_t n = items ? items->count : self.dict->count;
    for (size_t i = 0; i < n; i++) {
        if (i) jbuf_addc(&out, '&');
        jlist *pair = items ? jv_iterate(r, items->item[i]) : NULL;
        if (pair && pair->count != 2) jinja_fail(&r->m, VLM_FORMAT, "urlencode: expected pairs");
        quote(&out, jv_string(r, pair ? pair->item[0] : self.dict->entry[i].key), true);
        jbuf_addc(&out, '=');
        quote(&out, jv_string(r, pair ? pair->item[1] : self.dict->entry[i].value), true);
    }
    return jv_buf(&out);
}

FILTER(xmlattr)
{
    if (self.kind != J_DICT) jinja_fail(&r->m, VLM_FORMAT, "xmlattr: expected a mapping");
    jbuf out = {.m = &r->m};
    for (size_t i = 0; i < self.dict->count; i++) {
        jval key = self.dict->entry[i].key, value = self.dict->entry[i].value;
        if (value.kind == J_NONE || value.kind == J_UNDEFINED) continue;
        if (key.kind != J_STRING) jinja_fail(&r->m, VLM_FORMAT, "expected string or bytes-like object, got '%s'", jv_type(key));
        for (size_t k = 0; k < key.s->size; k++)
            if (key.s->data[k] && strchr(" \t\n\r\f\v/>=", key.s->data[k])) jinja_fail(&r->m, VLM_FORMAT, "Invalid character in attribute name");
        if (out.size || jv_true(jarg(a, 0, jv_bool(true)))) jbuf_addc(&out, ' ');
        jinja_escape_html(&out, jv_string(r, key));
        jbuf_adds(&out, "=\"");
        jinja_escape_html(&out, jv_string(r, value));
        jbuf_addc(&out, '"');
    }
    return jv_buf(&out);
}

FILTER(filesizeformat)
{
    static const char *const si[] = {"kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"}, *const iec[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"};
    bool binary = jv_true(jarg(a, 0, jv_bool(false)));
    char *end = NULL;
    const char *digits = self.kind == J_STRING ? jstr_copy(&r->m, self.s->data, self.s->size)->data : "";
    double bytes = jv_is_number(self) ? jv_to_double(self) : strtod(digits, &end);
    if (!jv_is_number(self) && (end == digits || *end)) jinja_fail(&r->m, VLM_FORMAT, "filesizeformat: not a number");
    double base = binary ? 1024 : 1000, unit = base;
    char text[400];
    if (bytes == 1) return jv_text(&r->m, "1 Byte");
    if (bytes < base) snprintf(text, sizeof text, "%lld Bytes", (long long)bytes);
    else {
        int i = 0;
        while (i < 7 && bytes >= unit * base) {
            unit *= base;
            i++;
        }
        snprintf(text, sizeof text, "%.1f %s", bytes / unit, (binary ? iec : si)[i]);
    }
    return jv_text(&r->m, text);
}

FILTER(tojson)
{
    jjson how = {.ascii = jv_true(jarg(a, 0, jv_bool(false))), .sort = jv_true(jarg(a, 3, jv_bool(false)))};
    jval indent = jarg(a, 1, jv_none()), separators = jarg(a, 2, jv_none());
    if (indent.kind == J_STRING) how.indent = indent.s;
    else if (indent.kind != J_NONE) {
        jint n = jv_to_int(r, indent, "tojson");
        if (n > 1000) jinja_fail(&r->m, VLM_LIMIT, "tojson: indent is too wide");
        jbuf spaces = {.m = &r->m};
        if (n > 0) jbuf_addn(&spaces, ' ', (size_t)n);
        how.indent = jv_buf(&spaces).s;
    }
    how.comma = jstr_copy(&r->m, ", ", how.indent ? 1 : 2);
    how.colon = jstr_copy(&r->m, ": ", 2);
    if (separators.kind != J_NONE) {
        jlist *pair = jv_iterate(r, separators);
        if (pair->count != 2 || pair->item[0].kind != J_STRING || pair->item[1].kind != J_STRING)
            jinja_fail(&r->m, VLM_FORMAT, "tojson: separators must be two strings");
        how.comma = pair->item[0].s;
        how.colon = pair->item[1].s;
    }
    jbuf out = {.m = &r->m};
    jv_json(r, &out, self, &how, 0);
    return jv_buf(&out);
}

static const jbuiltin filters[] = {
    {"upper", f_upper, 0, 0, ""}, {"lower", f_lower, 0, 0, ""}, {"capitalize", f_capitalize, 0, 0, ""}, {"string", f_string, 0, 0, ""},
    {"title", f_title, 0, 0, ""}, {"trim", f_trim, 0, 1, "chars"}, {"replace", f_replace, 2, 3, "old,new,count"}, {"safe", f_safe, 0, 0, ""},
    {"escape", f_escape, 0, 0, ""}, {"e", f_escape, 0, 0, ""}, {"forceescape", f_forceescape, 0, 0, ""}, {"format", f_format, 0, -1, ""},
    {"indent", f_indent, 0, 3, "width,first,blank"}, {"truncate", f_truncate, 0, 4, "length,killwords,end,leeway"},
    {"center", f_center, 0, 1, "width"}, {"wordcount", f_wordcount, 0, 0, ""},
    {"wordwrap", jinja_wordwrap, 0, 4, "width,break_long_words,wrapstring,break_on_hyphens"}, {"urlencode", f_urlencode, 0, 0, ""},
    {"xmlattr", f_xmlattr, 0, 1, "autospace"}, {"striptags", jinja_striptags, 0, 0, ""}, {"filesizeformat", f_filesizeformat, 0, 1, "binary"},
    {"urlize", jinja_urlize, 0, 5, "trim_url_limit,nofollow,target,rel,extra_schemes"}, {"pprint", jinja_pprint, 0, 0, ""},
    {"tojson", f_tojson, 0, 4, "ensure_ascii,indent,separators,sort_keys"},
};

const jbuiltin *jinja_filter_text(const jstr *name) { return jinja_find(filters, sizeof filters / sizeof *filters, name->data, name->size); }
