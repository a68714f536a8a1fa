/* format.c - numbers and text laid out as Python does it, and "..." % values. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "text/jinja/internal.h"

/* ---- laying out ---- */

void jspec_pad(jbuf *b, const jspec *s, const jstr *text, bool number)
{
    size_t head = number && text->size && (text->data[0] == '-' || text->data[0] == '+' || text->data[0] == ' ');
    jint missing = s->width - (jint)text->chars;
    char align = s->align ? s->align : number ? '>' : '<';
    if (align == '=' && text->size >= head + 2 && s->alternate && text->data[head] == '0' && strchr("xXob", text->data[head + 1]) && text->data[head + 1]) head += 2;
    jint left = missing <= 0 || align == '<' ? 0 : align == '^' ? missing / 2 : missing;
    if (align != '=') head = 0;
    jbuf_add(b, text->data, head);
    for (jint i = 0; i < left; i++) jbuf_addstr(b, s->fill);
    jbuf_add(b, text->data + head, text->size - head);
    for (jint i = left; i < missing; i++) jbuf_addstr(b, s->fill);
}

/* Digits in groups from the right; with zeros in front, in groups too, up to `width` characters. */
static void add_groups(jbuf *b, const char *digits, size_t n, char separator, size_t each, jint width)
{
    size_t zeros = 0;
    if (!separator) {
        for (jint i = (jint)n; i < width; i++) jbuf_addc(b, '0');
        jbuf_add(b, digits, n);
        return;
    }
    while ((jint)(n + zeros + (n + zeros - 1) / each) < width) zeros++;
    for (size_t i = 0; i < n + zeros; i++) {
        if (i && (n + zeros - i) % each == 0) jbuf_addc(b, separator);
        jbuf_addc(b, i < zeros ? '0' : digits[i - zeros]);
    }
}

static void add_sign(jbuf *b, bool negative, char sign)
{
    if (negative) jbuf_addc(b, '-');
    else if (sign == '+' || sign == ' ') jbuf_addc(b, sign);
}

/* Characters that zeros in front have to fill, beside `taken` others; 0 when there is no such thing. */
static jint zero_width(const jspec *s, size_t taken)
{
    bool zeros = s->group && s->align == '=' && s->fill->size == 1 && s->fill->data[0] == '0';
    return zeros && s->width > (jint)taken ? s->width - (jint)taken : 0;
}

const jstr *jspec_int(jrun *r, const jspec *s, jint i)
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
    if (s->percent) for (jint k = (jint)(digits.size - minus); k < s->precision; k++) jbuf_addc(&out, '0');
    add_groups(&out, digits.data + minus, digits.size - minus, s->group, base == 10 ? 3 : 4, zero_width(s, out.size));
    return jv_buf(&out).s;
}

/* No type, but a precision: like g, with at least one digit after the point; the exponent form begins one digit earlier. */
static void general_float(char *text, size_t room, double f, int precision, bool alternate)
{
    if (precision == 0) precision = 1;
    snprintf(text, room, "%.*e", precision - 1, f);
    int exponent = f == 0 ? 0 : atoi(strchr(text, 'e') + 1);
    if (exponent < -4 || exponent >= precision - 1) {
        char *e = strchr(text, 'e'), tail[16];
        snprintf(tail, sizeof tail, "%s", e);
        char *end = e;
        if (!alternate && memchr(text, '.', (size_t)(e - text))) {
            while (end[-1] == '0') end--;
            if (end[-1] == '.') end--;
        }
        memmove(end, tail, strlen(tail) + 1);
        return;
    }
    int size = snprintf(text, room, alternate ? "%#.*g" : "%.*g", precision, f);
    if (!strchr(text, '.')) snprintf(text + size, room - (size_t)size, ".0");
}

const jstr *jspec_float(jrun *r, const jspec *s, double f)
{
    char type = s->type == '%' ? 'f' : s->type == 'n' ? 'g' : s->type, pattern[16];
    jbuf digits = {.m = &r->m}, out = {.m = &r->m};
    bool upper = type == 'F' || type == 'E' || type == 'G';
    if (s->type == '%') f *= 100;
    if (isnan(f) || isinf(f)) jbuf_adds(&digits, isnan(f) ? upper ? "NAN" : "nan" : upper ? "INF" : "inf");
    else if (!type && s->precision < 0) jinja_write_float(&digits, fabs(f));
    else {
        int precision = s->precision < 0 ? 6 : (int)s->precision;
        size_t room = 420 + (size_t)precision;
        char *text = jinja_alloc(&r->m, room);
        if (!type) general_float(text, room, fabs(f), precision, s->alternate);
        else {
            snprintf(pattern, sizeof pattern, "%%%s.*%c", s->alternate ? "#" : "", type);
            snprintf(text, room, pattern, precision, fabs(f));
        }
        jbuf_adds(&digits, text);
    }
    size_t whole = 0;
    bool zero = true;
    for (size_t i = 0; i < digits.size; i++) zero &= digits.data[i] == '0' || digits.data[i] == '.' || (digits.data[i] | 32) == 'e' || digits.data[i] == '+' || digits.data[i] == '-';
    add_sign(&out, signbit(f) && !isnan(f) && !(s->no_minus_zero && zero), s->sign);
    while (whole < digits.size && digits.data[whole] >= '0' && digits.data[whole] <= '9') whole++;
    size_t rest = digits.size - whole + (s->type == '%');
    if (whole) add_groups(&out, digits.data, whole, s->group, 3, zero_width(s, out.size + rest));
    jbuf_add(&out, digits.data + whole, digits.size - whole);
    if (s->type == '%') jbuf_addc(&out, '%');
    return jv_buf(&out).s;
}

const jstr *jspec_cut(jrun *r, const jstr *s, jint precision)
{
    if (precision < 0 || (jint)s->chars <= precision) return s;
    return jstr_new(&r->m, s->data, jstr_offset(s, (size_t)precision));
}

/* ---- % ---- */

typedef struct percent { jrun *r; jval args; size_t next; bool markup; } percent;

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
        jval v = next_argument(p);
        if (v.kind != J_INT && v.kind != J_BOOL) jinja_fail(&p->r->m, VLM_FORMAT, "* wants int");
        return jv_to_int(p->r, v, "%");
    }
    jint n = 0;
    while (*i < f->size && f->data[*i] >= '0' && f->data[*i] <= '9' && n <= JSPEC_WIDEST) n = n * 10 + (f->data[(*i)++] - '0');
    return n;
}

static jint percent_int(jrun *r, char type, jval v)
{
    bool decimal = type == 'd' || type == 'i' || type == 'u';
    if (v.kind == J_FLOAT && decimal) {
        if (!isfinite(v.f)) jinja_fail(&r->m, VLM_FORMAT, "cannot convert float %s to integer", isnan(v.f) ? "NaN" : "infinity");
        if (fabs(v.f) > 1.5e38) jinja_fail(&r->m, VLM_LIMIT, "an integer needs more than 128 bits");
        return (jint)v.f;
    }
    if (v.kind != J_INT && v.kind != J_BOOL) jinja_fail(&r->m, VLM_FORMAT, "%%%c format: %s is required, not %s", type, decimal ? "a real number" : "an integer", jv_type(v));
    return v.kind == J_BOOL ? (jint)v.b : v.i;
}

static void percent_char(jrun *r, jbuf *text, jval v)
{
    if (v.kind == J_STRING && v.s->chars == 1) jbuf_addstr(text, v.s);
    else if (v.kind == J_INT || v.kind == J_BOOL) {
        jint c = jv_to_int(r, v, "%c");
        if (c < 0 || c > 0x10FFFF) jinja_fail(&r->m, VLM_FORMAT, "%%c arg not in range(0x110000)");
        jbuf_utf8(text, (uint32_t)c);
    } else jinja_fail(&r->m, VLM_FORMAT, "%%c requires int or char");
}

static void percent_value(percent *p, jbuf *out, jspec *s, char type, jval v)
{
    jrun *r = p->r;
    jbuf text = {.m = &r->m};
    const jstr *laid;
    s->type = type == 'i' || type == 'u' ? 'd' : type;
    bool number = strchr("diuxXofFeEgG", type) != NULL;
    if (number && s->zero && !s->align) {
        s->align = '=';
        s->fill = jv_text(&r->m, "0").s;
    }
    if (p->markup && strchr("xXoc", type)) jinja_fail(&r->m, VLM_FORMAT, "%%%c format: an integer is required, not _MarkupEscapeHelper", type);
    switch (type) {
    case 's':
    case 'r':
    case 'a':
        if (type == 's') jv_write(r, &text, v);
        else if (type == 'r') jv_repr(r, &text, v);
        else jv_ascii(r, &text, v);
        if (p->markup) {                           /* what goes into a text marked safe is escaped first */
            jval inner = jv_marked(jv_buf(&text), type == 's' && v.kind == J_STRING && v.markup);
            text = (jbuf){.m = &r->m};
            jbuf_addstr(&text, jinja_escaped(r, inner));
        }
        laid = jspec_cut(r, jv_buf(&text).s, s->precision);
        break;
    case 'd': case 'i': case 'u': case 'x': case 'X': case 'o': laid = jspec_int(r, s, percent_int(r, type, v)); break;
    case 'f': case 'F': case 'e': case 'E': case 'g': case 'G':
        if (!jv_is_number(v)) jinja_fail(&r->m, VLM_FORMAT, "must be real number, not %s", jv_type(v));
        laid = jspec_float(r, s, jv_to_double(v));
        break;
    case 'c':
        percent_char(r, &text, v);
        laid = jv_buf(&text).s;
        break;
    default: jinja_fail(&r->m, VLM_FORMAT, "unsupported format character '%c'", type);
    }
    if (!s->align) s->align = '>';
    jspec_pad(out, s, laid, number);
}

/* Can the right side be asked for keys? Then not all of it has to be used. */
static bool is_mapping(jval v) { return v.kind == J_DICT || v.kind == J_LIST || v.kind == J_UNDEFINED || v.kind == J_RANGE || v.kind == J_BYTES; }

static jval named_argument(percent *p, const jstr *f, size_t *i)
{
    size_t end = *i, depth = 1;
    while (depth && ++end < f->size) depth += f->data[end] == '(' ? 1 : f->data[end] == ')' ? (size_t)-1 : 0;
    if (end >= f->size) jinja_fail(&p->r->m, VLM_FORMAT, "incomplete format key");
    if (p->args.kind != J_DICT) jinja_fail(&p->r->m, VLM_FORMAT, "format requires a mapping");
    const jval *found = jdict_get_text(p->args.dict, f->data + *i + 1, end - *i - 1);
    if (!found) jinja_fail(&p->r->m, VLM_FORMAT, "format key is not in the mapping");
    *i = end + 1;
    p->next = 1;
    return *found;
}

static void percent_field(percent *p, const jstr *f, size_t *at, jbuf *out)
{
    jmem *m = &p->r->m;
    size_t i = *at;
    jspec s = {.fill = jv_text(m, " ").s, .precision = -1, .percent = true};
    jval v = {.kind = J_MISSING};
    if (f->data[i] == '(') v = named_argument(p, f, &i);
    for (; i < f->size && f->data[i] && strchr("-+ #0", f->data[i]); i++) {
        if (f->data[i] == '-') s.align = '<';
        else if (f->data[i] == '#') s.alternate = true;
        else if (f->data[i] == '0') s.zero = true;
        else if (s.sign != '+') s.sign = f->data[i];
    }
    s.width = read_number(p, f, &i);
    if (s.width < 0) {
        s.width = -s.width;
        s.align = '<';
    }
    if (i < f->size && f->data[i] == '.') {
        i++;
        s.precision = read_number(p, f, &i);
        if (s.precision < 0) s.precision = 0;
    }
    if (s.width > JSPEC_WIDEST || s.precision > JSPEC_WIDEST) jinja_fail(m, VLM_LIMIT, "format is too wide");
    if (i < f->size && (f->data[i] == 'h' || f->data[i] == 'l' || f->data[i] == 'L')) i++;
    if (i >= f->size) jinja_fail(m, VLM_FORMAT, "incomplete format");
    if (f->data[i] == '%') jbuf_addc(out, '%');
    else percent_value(p, out, &s, f->data[i], v.kind == J_MISSING ? next_argument(p) : v);
    *at = i;
}

jval jinja_percent(jrun *r, jval format, jval args)
{
    const jstr *f = format.s;
    percent p = {r, args, 0, format.markup};
    jbuf out = {.m = &r->m};
    for (size_t i = 0; i < f->size; i++) {
        if (f->data[i] != '%') {
            jbuf_addc(&out, f->data[i]);
            continue;
        }
        if (++i >= f->size) jinja_fail(&r->m, VLM_FORMAT, "incomplete format");
        percent_field(&p, f, &i, &out);
    }
    size_t given = args.kind == J_TUPLE ? args.list->count : 1;
    if (p.next < given && !is_mapping(args)) jinja_fail(&r->m, VLM_FORMAT, "not all arguments converted during string formatting");
    return jv_marked(jv_buf(&out), format.markup);
}
