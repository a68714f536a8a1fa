/* jinja_format.c - "..." % values, str.format, strftime. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "text/jinja_internal.h"

enum { WIDEST = 10000 };

typedef struct spec {
    jval fill;                     /* one character */
    char align, sign, type;
    bool alternate, zero, comma;
    jint width, precision;         /* precision -1: not given */
} spec;

/* Pads to the width: `number` is right-aligned by default, zeros go between sign and digits. */
static void add_padded(jrun *r, jbuf *b, const spec *s, const jstr *text, bool number)
{
    size_t sign = number && text->size && (text->data[0] == '-' || text->data[0] == '+' || text->data[0] == ' ');
    jint missing = s->width - (jint)text->chars;
    char align = s->align ? s->align : number ? '>' : '<';
    if (missing <= 0) {
        jbuf_addstr(b, text);
        return;
    }
    jint left = align == '<' ? 0 : align == '^' ? missing / 2 : missing;
    if (align == '=') {
        jbuf_add(b, text->data, sign);
        for (jint i = 0; i < missing; i++) jbuf_addstr(b, s->fill.s);
        jbuf_add(b, text->data + sign, text->size - sign);
        return;
    }
    for (jint i = 0; i < left; i++) jbuf_addstr(b, s->fill.s);
    jbuf_addstr(b, text);
    for (jint i = left; i < missing; i++) jbuf_addstr(b, s->fill.s);
}

static void group_thousands(jbuf *b, const char *digits, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (i && (n - i) % 3 == 0) jbuf_addc(b, ',');
        jbuf_addc(b, digits[i]);
    }
}

static void add_sign(jbuf *b, bool negative, char sign)
{
    if (negative) jbuf_addc(b, '-');
    else if (sign == '+' || sign == ' ') jbuf_addc(b, sign);
}

static const jstr *format_int(jrun *r, const spec *s, jint i)
{
    jbuf digits = {.m = &r->m}, out = {.m = &r->m};
    int base = s->type == 'x' || s->type == 'X' ? 16 : s->type == 'o' ? 8 : s->type == 'b' ? 2 : 10;
    jinja_write_int(&digits, i, base, s->type == 'X');
    size_t minus = i < 0;
    add_sign(&out, minus, s->sign);
    if (s->alternate && base != 10) {
        jbuf_addc(&out, '0');
        jbuf_addc(&out, s->type);
    }
    for (jint k = (jint)(digits.size - minus); k < s->precision; k++) jbuf_addc(&out, '0');
    if (s->comma) group_thousands(&out, digits.data + minus, digits.size - minus);
    else jbuf_add(&out, digits.data + minus, digits.size - minus);
    return jv_buf(&out).s;
}

static const jstr *format_float(jrun *r, const spec *s, double f)
{
    char type = s->type == 'F' || s->type == '%' ? 'f' : s->type, pattern[16];
    jbuf digits = {.m = &r->m}, out = {.m = &r->m};
    if (s->type == '%') f *= 100;
    add_sign(&out, signbit(f) && !isnan(f), s->sign);
    if (isnan(f) || isinf(f)) jbuf_adds(&digits, isnan(f) ? "nan" : "inf");
    else if (!type && s->precision < 0) jinja_write_float(&digits, fabs(f));
    else {
        size_t room = 400 + (s->precision > 0 ? (size_t)s->precision : 0);
        char *text = jinja_alloc(&r->m, room);
        snprintf(pattern, sizeof pattern, "%%%s.*%c", s->alternate ? "#" : "", type ? type : 'g');
        snprintf(text, room, pattern, s->precision < 0 ? 6 : (int)s->precision, fabs(f));
        jbuf_adds(&digits, text);
    }
    size_t whole = 0;
    while (whole < digits.size && digits.data[whole] >= '0' && digits.data[whole] <= '9') whole++;
    if (s->comma) group_thousands(&out, digits.data, whole);
    else jbuf_add(&out, digits.data, whole);
    jbuf_add(&out, digits.data + whole, digits.size - whole);
    if (s->type == '%') jbuf_addc(&out, '%');
    return jv_buf(&out).s;
}

static const jstr *cut_text(jrun *r, const jstr *s, jint precision)
{
    if (precision < 0 || (jint)s->chars <= precision) return s;
    return jstr_new(&r->m, s->data, jstr_offset(s, (size_t)precision));
}

/* ---- % ---- */

typedef struct percent { jrun *r; jval args; size_t next; } percent;

static jval next_argument(percent *p)
{
    if (p->args.kind == J_TUPLE) {
        if (p->next >= p->args.list->count) jinja_fail(&p->r->m, VLM_FORMAT, "not enough arguments for format string");
        return p->args.list->item[p->next++];
    }
    if (p->next++) jinja_fail(&p->r->m, VLM_FORMAT, "not enough arguments for format string");
    return p->args;
}

static jint read_number(percent *p, const jstr *f, size_t *i)
{
    if (*i < f->size && f->data[*i] == '*') {
        ++*i;
        return jv_to_int(p->r, next_argument(p), "%");
    }
    jint n = 0;
    while (*i < f->size && f->data[*i] >= '0' && f->data[*i] <= '9' && n <= WIDEST) n = n * 10 + (f->data[(*i)++] - '0');
    return n;
}

static void percent_value(percent *p, jbuf *out, spec *s, char type, jval v)
{
    jrun *r = p->r;
    if (v.kind == J_UNDEFINED && type != 's' && type != 'r' && type != 'a') jinja_undefined_error(r, v);
    s->type = type;
    if (s->zero && !s->align) {
        s->align = '=';
        s->fill = jv_text(&r->m, "0");
    }
    switch (type) {
    case 's':
    case 'r':
    case 'a': {
        jbuf text = {.m = &r->m};
        if (type == 's') jv_write(r, &text, v); else jv_repr(r, &text, v);
        if (s->align == '=') s->fill = jv_text(&r->m, " ");
        spec plain = *s;
        plain.align = s->align == '<' ? '<' : '>';
        add_padded(r, out, &plain, cut_text(r, jv_buf(&text).s, s->precision), false);
    } break;
    case 'd': case 'i': case 'u': case 'x': case 'X': case 'o':
        if (v.kind == J_FLOAT && fabs(v.f) < 1e36 && (type == 'd' || type == 'i' || type == 'u')) v = jv_int((jint)v.f);
        if (v.kind != J_INT && v.kind != J_BOOL) jinja_fail(&r->m, VLM_FORMAT, "%%%c format: a real number is required, not %s", type, jv_type(v));
        add_padded(r, out, s, format_int(r, s, v.kind == J_BOOL ? v.b : v.i), true);
        break;
    case 'f': case 'F': case 'e': case 'E': case 'g': case 'G':
        if (!jv_is_number(v)) jinja_fail(&r->m, VLM_FORMAT, "must be real number, not %s", jv_type(v));
        add_padded(r, out, s, format_float(r, s, jv_to_double(v)), true);
        break;
    case 'c': {
        jbuf text = {.m = &r->m};
        if (v.kind == J_STRING && v.s->chars == 1) jbuf_addstr(&text, v.s);
        else jbuf_utf8(&text, (uint32_t)jv_to_int(r, v, "%c"));
        add_padded(r, out, s, jv_buf(&text).s, true);
    } break;
    default: jinja_fail(&r->m, VLM_FORMAT, "unsupported format character '%c'", type);
    }
}

jval jinja_percent(jrun *r, const jstr *f, jval args)
{
    percent p = {r, args, 0};
    jbuf out = {.m = &r->m};
    for (size_t i = 0; i < f->size; i++) {
        if (f->data[i] != '%') {
            jbuf_addc(&out, f->data[i]);
            continue;
        }
        if (++i >= f->size) jinja_fail(&r->m, VLM_FORMAT, "incomplete format");
        spec s = {.fill = jv_text(&r->m, " "), .precision = -1};
        jval v = {.kind = J_MISSING};
        if (f->data[i] == '(') {
            size_t end = bytes_find(f->data, f->size, i, ")", 1);
            if (end == SIZE_MAX) jinja_fail(&r->m, VLM_FORMAT, "incomplete format key");
            if (args.kind != J_DICT) jinja_fail(&r->m, VLM_FORMAT, "format requires a mapping");
            const jval *found = jdict_get_text(args.dict, f->data + i + 1, end - i - 1);
            if (!found) jinja_fail(&r->m, VLM_FORMAT, "format key is not in the mapping");
            v = *found;
            p.next = 1;
            i = end + 1;
        }
        for (; i < f->size && strchr("-+ #0", f->data[i]) && f->data[i]; i++) {
            if (f->data[i] == '-') s.align = '<';
            else if (f->data[i] == '#') s.alternate = true;
            else if (f->data[i] == '0') s.zero = true;
            else if (s.sign != '+') s.sign = f->data[i];
        }
        s.width = read_number(&p, f, &i);
        if (s.width < 0) {
            s.width = -s.width;
            s.align = '<';
        }
        if (i < f->size && f->data[i] == '.') {
            i++;
            s.precision = read_number(&p, f, &i);
        }
        if (s.width > WIDEST || s.precision > WIDEST) jinja_fail(&r->m, VLM_LIMIT, "format is too wide");
        if (i >= f->size) jinja_fail(&r->m, VLM_FORMAT, "incomplete format");
        if (f->data[i] == '%') jbuf_addc(&out, '%');
        else percent_value(&p, &out, &s, f->data[i], v.kind == J_MISSING ? next_argument(&p) : v);
    }
    size_t given = args.kind == J_TUPLE ? args.list->count : 1;
    if (p.next < given && args.kind != J_DICT && args.kind != J_LIST) jinja_fail(&r->m, VLM_FORMAT, "not all arguments converted during string formatting");
    return jv_buf(&out);
}

/* ---- str.format ---- */

static spec parse_spec(jrun *r, const char *p, size_t n)
{
    spec s = {.fill = jv_text(&r->m, " "), .precision = -1};
    size_t i = 0, first = n ? utf8_size((unsigned char)p[0]) : 0;
    if (n > first && strchr("<>=^", p[first]) && p[first]) {
        s.fill = jv_textn(&r->m, p, first);
        s.align = p[first];
        i = first + 1;
    } else if (n && strchr("<>=^", p[0]) && p[0]) s.align = p[i++];
    if (i < n && (p[i] == '+' || p[i] == '-' || p[i] == ' ')) s.sign = p[i++];
    if (i < n && p[i] == '#') s.alternate = ++i;
    if (i < n && p[i] == '0') {
        i++;
        if (!s.align) {
            s.align = '=';
            s.fill = jv_text(&r->m, "0");
        }
    }
    for (; i < n && p[i] >= '0' && p[i] <= '9' && s.width <= WIDEST; i++) s.width = s.width * 10 + (p[i] - '0');
    if (i < n && (p[i] == ',' || p[i] == '_')) s.comma = ++i;
    if (i < n && p[i] == '.') {
        s.precision = 0;
        for (i++; i < n && p[i] >= '0' && p[i] <= '9' && s.precision <= WIDEST; i++) s.precision = s.precision * 10 + (p[i] - '0');
    }
    if (i < n) s.type = p[i++];
    if (i != n) jinja_fail(&r->m, VLM_FORMAT, "invalid format specifier");
    if (s.width > WIDEST || s.precision > WIDEST) jinja_fail(&r->m, VLM_LIMIT, "format is too wide");
    return s;
}

static void format_value(jrun *r, jbuf *out, jval v, const char *text, size_t n)
{
    if (!n) {
        jv_write(r, out, v);
        return;
    }
    spec s = parse_spec(r, text, n);
    bool integer = v.kind == J_INT || (v.kind == J_BOOL && s.type && s.type != 's');
    if (integer && (!s.type || strchr("dxXob", s.type))) {
        s.precision = -1;
        add_padded(r, out, &s, format_int(r, &s, v.kind == J_BOOL ? v.b : v.i), true);
    } else if (jv_is_number(v) && (v.kind == J_FLOAT || integer) && (!s.type || strchr("eEfFgG%", s.type)))
        add_padded(r, out, &s, format_float(r, &s, jv_to_double(v)), true);
    else if (v.kind == J_STRING && (!s.type || s.type == 's')) {
        if (s.align == '=') s.align = '<';
        add_padded(r, out, &s, cut_text(r, v.s, s.precision), false);
    } else jinja_fail(&r->m, VLM_FORMAT, "unknown format code '%c' for object of type '%s'", s.type, jv_type(v));
}

/* "0", "name", "0.attr[key]". */
static jval format_field(jrun *r, const jargs *a, const char *p, size_t n, size_t *automatic)
{
    size_t i = 0;
    while (i < n && p[i] != '.' && p[i] != '[') i++;
    jval v;
    if (i == 0 || (p[0] >= '0' && p[0] <= '9')) {
        size_t index = i ? strtoul(p, NULL, 10) : (*automatic)++;
        if (index >= a->n) jinja_fail(&r->m, VLM_FORMAT, "Replacement index %zu out of range for positional args tuple", index);
        v = a->v[index];
    } else {
        size_t k = 0;
        while (k < a->n_kw && (a->kw[k].name->size != i || memcmp(a->kw[k].name->data, p, i) != 0)) k++;
        if (k == a->n_kw) jinja_fail(&r->m, VLM_FORMAT, "format: no argument '%.*s'", (int)(i < 60 ? i : 60), p);
        v = a->kw[k].value;
    }
    while (i < n) {
        bool bracket = p[i++] == '[';
        size_t from = i;
        while (i < n && (bracket ? p[i] != ']' : p[i] != '.' && p[i] != '[')) i++;
        const jstr *key = jstr_copy(&r->m, p + from, i - from);
        if (!bracket) v = jv_attr(r, v, key);
        else v = jv_item(r, v, key->size && key->data[0] >= '0' && key->data[0] <= '9' ? jv_int(strtol(key->data, NULL, 10)) : jv_str(key));
        if (v.kind == J_UNDEFINED) jinja_undefined_error(r, v);
        i += bracket;
    }
    return v;
}

jval jinja_format_method(jrun *r, jval self, jargs *a)
{
    const jstr *f = self.s;
    jbuf out = {.m = &r->m};
    size_t automatic = 0;
    for (size_t i = 0; i < f->size; i++) {
        char c = f->data[i];
        if (c != '{' && c != '}') {
            jbuf_addc(&out, c);
            continue;
        }
        if (i + 1 < f->size && f->data[i + 1] == c) {
            jbuf_addc(&out, c);
            i++;
            continue;
        }
        size_t end = c == '{' ? bytes_find(f->data, f->size, i, "}", 1) : SIZE_MAX;
        if (end == SIZE_MAX) jinja_fail(&r->m, VLM_FORMAT, "single '%c' encountered in format string", c);
        size_t from = ++i, colon = from;
        while (colon < end && f->data[colon] != ':') colon++;
        size_t name_end = colon;
        char conversion = 0;
        if (colon >= from + 2 && f->data[colon - 2] == '!') {
            conversion = f->data[colon - 1];
            name_end = colon - 2;
        }
        if (memchr(f->data + from, '{', end - from)) jinja_fail(&r->m, VLM_UNSUPPORTED, "nested format fields");
        jval v = format_field(r, a, f->data + from, name_end - from, &automatic);
        if (conversion) {
            jbuf text = {.m = &r->m};
            if (conversion == 's') jv_write(r, &text, v); else jv_repr(r, &text, v);
            v = jv_buf(&text);
        }
        format_value(r, &out, v, f->data + colon + (colon < end), end - colon - (colon < end));
        i = end;
    }
    return jv_buf(&out);
}

jval jinja_strftime(jrun *r, const jstr *format)
{
    if (format->size > 1000) jinja_fail(&r->m, VLM_LIMIT, "strftime_now: the format is too long");
    jbuf pattern = {.m = &r->m};
    for (size_t i = 0; i < format->size; i++) {
        if (format->data[i] == '%' && i + 1 < format->size && format->data[i + 1] == 'f') {          /* microseconds: the clock has none */
            jbuf_adds(&pattern, "000000");
            i++;
        } else jbuf_addc(&pattern, format->data[i]);
    }
    jbuf_addc(&pattern, 0);
    char *text = jinja_alloc(&r->m, 8192);
    struct tm now = r->now;
    size_t n = strftime(text, 8192, pattern.data, &now);
    return jv_str(jstr_copy(&r->m, text, n));
}
