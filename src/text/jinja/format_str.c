/* format_str.c - str.format as the sandbox's formatter does it; strftime. */
#include <stdio.h>
#include <stdlib.h>

#include "text/jinja/internal.h"

/* ---- what follows the colon ---- */

static bool is_align(const char *p, size_t n, size_t i) { return i < n && p[i] && strchr("<>=^", p[i]); }

static jint read_width(jrun *r, const char *p, size_t n, size_t *i)
{
    jint value = 0;
    for (; *i < n && p[*i] >= '0' && p[*i] <= '9'; ++*i) {
        value = value * 10 + (p[*i] - '0');
        if (value > JSPEC_WIDEST) jinja_fail(&r->m, VLM_LIMIT, "format is too wide");
    }
    return value;
}

static jspec parse_spec(jrun *r, const char *p, size_t n, bool number)
{
    jspec s = {.fill = jv_text(&r->m, " ").s, .precision = -1};
    size_t i = 0, first = n ? utf8_size((unsigned char)p[0]) : 0;
    bool filled = false;
    if (is_align(p, n, first)) {
        s.fill = jstr_new(&r->m, p, first);
        s.align = p[first];
        filled = true;
        i = first + 1;
    } else if (is_align(p, n, 0)) s.align = p[i++];
    if (i < n && (p[i] == '+' || p[i] == '-' || p[i] == ' ')) s.sign = p[i++];
    if (i < n && p[i] == 'z') s.no_minus_zero = ++i;
    if (i < n && p[i] == '#') s.alternate = ++i;
    if (!filled && i < n && p[i] == '0') {
        i++;
        if (!s.align && number) s.align = '=';
        s.fill = jv_text(&r->m, "0").s;
    }
    s.width = read_width(r, p, n, &i);
    if (i < n && (p[i] == ',' || p[i] == '_')) s.group = p[i++];
    if (i < n && (p[i] == ',' || p[i] == '_')) jinja_fail(&r->m, VLM_FORMAT, "Cannot specify both ',' and '_'.");
    if (i < n && p[i] == '.') {
        size_t digits = ++i;
        s.precision = read_width(r, p, n, &i);
        if (i == digits) jinja_fail(&r->m, VLM_FORMAT, "Format specifier missing precision");
    }
    if (i < n) {
        if ((unsigned char)p[i] >= 0x80) jinja_fail(&r->m, VLM_FORMAT, "Unknown format code");
        s.type = p[i++];
    }
    if (i != n) jinja_fail(&r->m, VLM_FORMAT, "Invalid format specifier");
    char type = s.type ? s.type : number ? 0 : 's';
    if (s.group && type && !strchr("defgEG%F", type) && !(s.group == '_' && strchr("boxX", type)))
        jinja_fail(&r->m, VLM_FORMAT, "Cannot specify '%c' with '%c'.", s.group, type);
    return s;
}

static const jstr *lay_out_int(jrun *r, jspec *s, jint i)
{
    if (s->precision >= 0) jinja_fail(&r->m, VLM_FORMAT, "Precision not allowed in integer format specifier");
    if (s->no_minus_zero) jinja_fail(&r->m, VLM_FORMAT, "Negative zero coercion (z) not allowed in format specifier with integer presentation type");
    if (s->type != 'c') return jspec_int(r, s, i);
    if (s->sign) jinja_fail(&r->m, VLM_FORMAT, "Sign not allowed with integer format specifier 'c'");
    if (s->alternate) jinja_fail(&r->m, VLM_FORMAT, "Alternate form (#) not allowed with integer format specifier 'c'");
    if (i < 0 || i > 0x10FFFF) jinja_fail(&r->m, VLM_FORMAT, "%%c arg not in range(0x110000)");
    jbuf c = {.m = &r->m};
    jbuf_utf8(&c, (uint32_t)i);
    return jv_buf(&c).s;
}

static void format_value(jrun *r, jbuf *out, jval v, const jstr *text)
{
    if (!text->size) {
        jv_write(r, out, v);
        return;
    }
    bool number = jv_is_number(v);
    if (!number && v.kind != J_STRING) jinja_fail(&r->m, VLM_FORMAT, "unsupported format string passed to %s.__format__", jv_type(v));
    jspec s = parse_spec(r, text->data, text->size, number);
    if (number && v.kind != J_FLOAT && (!s.type || strchr("dxXobcn", s.type))) {
        jspec_pad(out, &s, lay_out_int(r, &s, v.kind == J_BOOL ? (jint)v.b : v.i), true);
    } else if (number && (!s.type || strchr("eEfFgG%n", s.type))) jspec_pad(out, &s, jspec_float(r, &s, jv_to_double(v)), true);
    else if (!number && (!s.type || s.type == 's')) {
        if (s.sign) jinja_fail(&r->m, VLM_FORMAT, "Sign not allowed in string format specifier");
        if (s.alternate) jinja_fail(&r->m, VLM_FORMAT, "Alternate form (#) not allowed in string format specifier");
        if (s.no_minus_zero) jinja_fail(&r->m, VLM_FORMAT, "Negative zero coercion (z) not allowed in string format specifier");
        if (s.align == '=') jinja_fail(&r->m, VLM_FORMAT, "'=' alignment not allowed in string format specifier");
        jspec_pad(out, &s, jspec_cut(r, v.s, s.precision), false);
    } else jinja_fail(&r->m, VLM_FORMAT, "Unknown format code '%c' for object of type '%s'", s.type, jv_type(v));
}

/* ---- fields ---- */

typedef struct formatter {
    jrun *r;
    const jargs *a;
    const jdict *map;              /* of format_map, or NULL */
    size_t automatic;
    bool markup;                   /* what goes in is escaped */
    bool counts, names;            /* has a field without a number been seen, one with? */
} formatter;

static bool all_digits(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] < '0' || p[i] > '9') return false;
    return n > 0;
}

static size_t index_of(jrun *r, const char *p, size_t n)
{
    if (n > 9) jinja_fail(&r->m, VLM_FORMAT, "Too many decimal digits in format string");
    return strtoul(jstr_copy(&r->m, p, n)->data, NULL, 10);
}

static jval first_value(formatter *f, const char *p, size_t n)
{
    jrun *r = f->r;
    if (n == 0 || all_digits(p, n)) {
        if (n ? f->counts : f->names) jinja_fail(&r->m, VLM_FORMAT, "cannot switch between automatic field numbering and manual field specification");
        *(n ? &f->names : &f->counts) = true;
        size_t index = n ? index_of(r, p, n) : f->automatic++;
        if (f->map || index >= f->a->n) jinja_fail(&r->m, VLM_FORMAT, "Replacement index %zu out of range for positional args tuple", index);
        return f->a->v[index];
    }
    if (f->map) {
        const jval *found = jdict_get_text(f->map, p, n);
        if (found) return *found;
    }
    for (size_t k = 0; !f->map && k < f->a->n_kw; k++)
        if (f->a->kw[k].name->size == n && memcmp(f->a->kw[k].name->data, p, n) == 0) return f->a->kw[k].value;
    jinja_fail(&r->m, VLM_FORMAT, "format: no argument '%.*s'", (int)(n < 60 ? n : 60), p);
}

/* "0", "name", "0.attr[key]". */
static jval field_value(formatter *f, const char *p, size_t n)
{
    jrun *r = f->r;
    size_t i = 0;
    while (i < n && p[i] != '.' && p[i] != '[') i++;
    jval v = first_value(f, p, i);
    while (i < n) {
        bool bracket = p[i] == '[';
        if (!bracket && p[i] != '.') jinja_fail(&r->m, VLM_FORMAT, "Only '.' or '[' may follow ']' in format field specifier");
        size_t from = ++i;
        while (i < n && (bracket ? p[i] != ']' : p[i] != '.' && p[i] != '[')) i++;
        if (bracket && i == n) jinja_fail(&r->m, VLM_FORMAT, "Missing ']' in format string");
        if (i == from) jinja_fail(&r->m, VLM_FORMAT, "Empty attribute in format string");
        const jstr *key = jstr_copy(&r->m, p + from, i - from);
        if (!bracket) v = jv_attr(r, v, key);
        else v = jv_item(r, v, all_digits(key->data, key->size) ? jv_int((jint)index_of(r, key->data, key->size)) : jv_str(key));
        i += bracket;
    }
    return v;
}

static const jstr *format_text(formatter *f, const char *p, size_t n, int depth);

/* p[0..n): between the braces. */
static void format_field(formatter *f, jbuf *out, const char *p, size_t n, int depth)
{
    jrun *r = f->r;
    size_t name = 0, spec;
    for (bool bracket = false; name < n && (bracket || (p[name] != ':' && p[name] != '!')); name++) {
        if (p[name] == '{') jinja_fail(&r->m, VLM_FORMAT, "unexpected '{' in field name");
        bracket = p[name] == '[' || (bracket && p[name] != ']');
    }
    char conversion = 0;
    spec = name;
    if (name < n && p[name] == '!') {
        if (name + 1 >= n) jinja_fail(&r->m, VLM_FORMAT, "end of string while looking for conversion specifier");
        conversion = p[name + 1];
        spec = name + 2;
        if (spec < n && p[spec] != ':') jinja_fail(&r->m, VLM_FORMAT, "expected ':' after conversion specifier");
    }
    jval v = field_value(f, p, name);
    if (conversion) {
        jbuf text = {.m = &r->m};
        if (conversion == 's') jv_write(r, &text, v);
        else if (conversion == 'r') jv_repr(r, &text, v);
        else if (conversion == 'a') jv_ascii(r, &text, v);
        else jinja_fail(&r->m, VLM_FORMAT, "Unknown conversion specifier %c", conversion);
        v = jv_buf(&text);
    }
    spec += spec < n;
    const jstr *how = format_text(f, p + spec, n - spec, depth + 1);
    bool safe = v.kind == J_STRING && v.markup;
    if (f->markup && safe && how->size) jinja_fail(&r->m, VLM_FORMAT, "Unsupported format specification for Markup.");
    jbuf text = {.m = &r->m};
    format_value(r, &text, v, how);
    jbuf_addstr(out, f->markup && depth == 1 ? jinja_escaped(r, jv_marked(jv_buf(&text), safe)) : jv_buf(&text).s);
}

static const jstr *format_text(formatter *f, const char *p, size_t n, int depth)
{
    jrun *r = f->r;
    jbuf out = {.m = &r->m};
    if (depth > 3) jinja_fail(&r->m, VLM_FORMAT, "Max string recursion exceeded");
    for (size_t i = 0; i < n; i++) {
        char c = p[i];
        if (c != '{' && c != '}') jbuf_addc(&out, c);
        else if (i + 1 < n && p[i + 1] == c) {
            jbuf_addc(&out, c);
            i++;
        } else if (c == '}' || i + 1 >= n) jinja_fail(&r->m, VLM_FORMAT, "Single '%c' encountered in format string", c);
        else {
            size_t from = ++i, open = 1;
            for (bool bracket = false; i < n; i++) {
                if (p[i] == '[') bracket = true;
                else if (p[i] == ']') bracket = false;
                else if (!bracket && p[i] == '{') open++;
                else if (!bracket && p[i] == '}' && --open == 0) break;
            }
            if (i >= n) jinja_fail(&r->m, VLM_FORMAT, "expected '}' before end of string");
            format_field(f, &out, p + from, i - from, depth);
        }
    }
    return jv_buf(&out).s;
}

jval jinja_format_method(jrun *r, jval self, jargs *a)
{
    formatter f = {.r = r, .a = a, .markup = self.markup};
    return jv_str(format_text(&f, self.s->data, self.s->size, 1));
}

jval jinja_format_map_method(jrun *r, jval self, jargs *a)
{
    if (a->v[0].kind != J_DICT) jinja_fail(&r->m, VLM_FORMAT, "format_map: expected a mapping, got %s", jv_type(a->v[0]));
    formatter f = {.r = r, .a = a, .map = a->v[0].dict, .markup = self.markup};
    return jv_str(format_text(&f, self.s->data, self.s->size, 1));
}

/* ---- strftime ---- */

jval jinja_strftime(jrun *r, const jstr *format)
{
    if (format->size > 1000) jinja_fail(&r->m, VLM_LIMIT, "strftime_now: the format is too long");
    jbuf pattern = {.m = &r->m};
    for (size_t i = 0; i < format->size; i++) {
        if (format->data[i] == '%' && i + 1 < format->size && format->data[i + 1] == 'f') {          /* microseconds: the clock has none */
            jbuf_adds(&pattern, "000000");
            i++;
        } else if (format->data[i] == '%' && i + 1 < format->size && (format->data[i + 1] == 'z' || format->data[i + 1] == 'Z')) i++;     /* nor a zone */
        else {
            if (format->data[i] == '%' && i + 1 < format->size) jbuf_addc(&pattern, format->data[i++]);
            jbuf_addc(&pattern, format->data[i]);
        }
    }
    jbuf_addc(&pattern, 0);
    char *text = jinja_alloc(&r->m, 8192);
    struct tm now = r->now;
    size_t n = strftime(text, 8192, pattern.data, &now);
    return jv_str(jstr_copy(&r->m, text, n));
}
