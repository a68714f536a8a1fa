/* repr.c - values as text: Python's str() and repr(), json.dumps(). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <utf8proc.h>

#include "text/jinja/internal.h"

void jinja_write_int(jbuf *b, jint i, int base, bool upper)
{
    char text[132];
    size_t at = sizeof text;
    unsigned __int128 rest = i < 0 ? (unsigned __int128)0 - (unsigned __int128)i : (unsigned __int128)i;
    do {
        text[--at] = (upper ? "0123456789ABCDEF" : "0123456789abcdef")[(int)(rest % (unsigned)base)];
        rest /= (unsigned)base;
    } while (rest);
    if (i < 0) jbuf_addc(b, '-');
    jbuf_add(b, text + at, sizeof text - at);
}

/* The shortest digits that give the number back; exponent form below 1e-4 and from 1e16 on. */
void jinja_write_float(jbuf *b, double f)
{
    if (isnan(f)) {
        jbuf_adds(b, "nan");
        return;
    }
    if (isinf(f)) {
        jbuf_adds(b, f < 0 ? "-inf" : "inf");
        return;
    }
    char text[40], digits[24];
    int precision = 1;
    do snprintf(text, sizeof text, "%.*e", precision - 1, f); while (strtod(text, NULL) != f && ++precision <= 17);
    int exponent = atoi(strchr(text, 'e') + 1), n = 0;
    for (const char *p = text; *p != 'e'; p++)
        if (*p >= '0' && *p <= '9') digits[n++] = *p;
    if (f < 0 || (f == 0 && signbit(f))) jbuf_addc(b, '-');
    if (exponent < -4 || exponent >= 16) {
        jbuf_addc(b, digits[0]);
        if (n > 1) {
            jbuf_addc(b, '.');
            jbuf_add(b, digits + 1, (size_t)n - 1);
        }
        snprintf(text, sizeof text, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
        jbuf_adds(b, text);
        return;
    }
    if (exponent < 0) {
        jbuf_adds(b, "0.");
        jbuf_addn(b, '0', (size_t)(-exponent - 1));
        jbuf_add(b, digits, (size_t)n);
        return;
    }
    for (int i = 0; i <= exponent; i++) jbuf_addc(b, i < n ? digits[i] : '0');
    jbuf_addc(b, '.');
    if (n > exponent + 1) jbuf_add(b, digits + exponent + 1, (size_t)(n - exponent - 1));
    else jbuf_addc(b, '0');
}

bool jchar_is_printable(uint32_t c)
{
    if (c < 0x7F) return c >= 0x20;
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_CC: case UTF8PROC_CATEGORY_CF: case UTF8PROC_CATEGORY_CS: case UTF8PROC_CATEGORY_CO: case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL: case UTF8PROC_CATEGORY_ZP: case UTF8PROC_CATEGORY_ZS: return false;
    default: return true;
    }
}

static bool is_plain(const jbuf *b, uint32_t c) { return c && (c == b->m->plain[0] || c == b->m->plain[1]); }

static void repr_string(jbuf *b, const jstr *s)
{
    char text[16], quote = memchr(s->data, '\'', s->size) && !memchr(s->data, '"', s->size) ? '"' : '\'';
    jbuf_addc(b, quote);
    for (size_t i = 0; i < s->size;) {
        uint32_t c;
        size_t n = utf8_next_lossy(s->data + i, s->size - i, &c);
        if (c == (unsigned char)quote || c == '\\') {
            jbuf_addc(b, '\\');
            jbuf_addc(b, (char)c);
        } else if (c == '\n') jbuf_adds(b, "\\n");
        else if (c == '\r') jbuf_adds(b, "\\r");
        else if (c == '\t') jbuf_adds(b, "\\t");
        else if (jchar_is_printable(c) || is_plain(b, c)) jbuf_add(b, s->data + i, n);
        else {
            snprintf(text, sizeof text, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", c);
            jbuf_adds(b, text);
        }
        i += n;
    }
    jbuf_addc(b, quote);
}

static void repr_items(jrun *r, jbuf *b, const jlist *l, const char *open, const char *close)
{
    jbuf_adds(b, open);
    for (size_t i = 0; i < l->count; i++) {
        if (i) jbuf_adds(b, ", ");
        jv_repr(r, b, l->item[i]);
    }
    jbuf_adds(b, close);
}

static void repr_dict(jrun *r, jbuf *b, const jdict *d)
{
    jbuf_addc(b, '{');
    for (size_t i = 0; i < d->count; i++) {
        if (i) jbuf_adds(b, ", ");
        jv_repr(r, b, d->entry[i].key);
        jbuf_adds(b, ": ");
        jv_repr(r, b, d->entry[i].value);
    }
    jbuf_addc(b, '}');
}

void jv_repr(jrun *r, jbuf *b, jval v)
{
    jinja_enter(r);
    switch (v.kind) {
    case J_UNDEFINED: jbuf_adds(b, "Undefined"); break;
    case J_NONE: jbuf_adds(b, "None"); break;
    case J_BOOL: jbuf_adds(b, v.b ? "True" : "False"); break;
    case J_INT: jinja_write_int(b, v.i, 10, false); break;
    case J_FLOAT: jinja_write_float(b, v.f); break;
    case J_STRING:
        if (v.markup) jbuf_adds(b, "Markup(");
        repr_string(b, v.s);
        if (v.markup) jbuf_addc(b, ')');
        break;
    case J_BYTES: jinja_write_bytes(b, v.s); break;
    case J_LIST: repr_items(r, b, v.list, "[", "]"); break;
    case J_TUPLE: repr_items(r, b, v.list, "(", v.list->count == 1 ? ",)" : ")"); break;
    case J_DICT: repr_dict(r, b, v.dict); break;
    case J_RANGE:
        jbuf_adds(b, "range(");
        jinja_write_int(b, v.range->start, 10, false);
        jbuf_adds(b, ", ");
        jinja_write_int(b, v.range->stop, 10, false);
        if (v.range->step != 1) {
            jbuf_adds(b, ", ");
            jinja_write_int(b, v.range->step, 10, false);
        }
        jbuf_addc(b, ')');
        break;
    case J_VIEW:
        jbuf_adds(b, v.list->view);
        repr_items(r, b, v.list, "([", "])");
        break;
    case J_NAMESPACE:
        jbuf_adds(b, "<Namespace ");
        repr_dict(r, b, v.dict);
        jbuf_addc(b, '>');
        break;
    case J_LOOP:
        jbuf_adds(b, "<LoopContext ");
        jinja_write_int(b, (jint)v.loop->index + 1, 10, false);
        jbuf_addc(b, '/');
        jinja_write_int(b, (jint)jloop_length(v.loop), 10, false);
        jbuf_addc(b, '>');
        break;
    case J_MACRO:
        jbuf_adds(b, "<Macro ");
        if (v.macro->name) repr_string(b, v.macro->name); else jbuf_adds(b, "anonymous");
        jbuf_addc(b, '>');
        break;
    default:
        jbuf_addc(b, '<');
        jbuf_adds(b, jv_type(v));
        jbuf_adds(b, " object>");
    }
    jinja_leave(r);
}

void jv_ascii(jrun *r, jbuf *b, jval v)
{
    jbuf text = {.m = &r->m};
    jv_repr(r, &text, v);
    for (size_t i = 0; i < text.size;) {
        char escape[16];
        uint32_t c;
        size_t n = utf8_next_lossy(text.data + i, text.size - i, &c);
        if (c < 0x80 || is_plain(b, c)) jbuf_add(b, text.data + i, n);
        else {
            snprintf(escape, sizeof escape, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", c);
            jbuf_adds(b, escape);
        }
        i += n;
    }
}

void jv_write(jrun *r, jbuf *b, jval v)
{
    if (v.kind == J_STRING) jbuf_addstr(b, v.s);
    else if (v.kind != J_UNDEFINED && v.kind != J_MISSING) jv_repr(r, b, v);
}

const jstr *jv_string(jrun *r, jval v)
{
    if (v.kind == J_STRING) return v.s;
    jbuf b = {.m = &r->m};
    jv_write(r, &b, v);
    return jv_buf(&b).s;
}

/* ---- json.dumps ---- */

static void json_string_(jbuf *b, const jstr *s, bool ascii)
{
    char text[16];
    jbuf_addc(b, '"');
    for (size_t i = 0; i < s->size;) {
        uint32_t c;
        size_t n = utf8_next_lossy(s->data + i, s->size - i, &c);
        static const char from[] = "\"\\\n\r\t\f\b", to[] = "\"\\nrtfb";
        const char *short_form = c && c < 128 ? strchr(from, (int)c) : NULL;
        if (short_form) {
            jbuf_addc(b, '\\');
            jbuf_addc(b, to[short_form - from]);
        } else if (c < 0x20 || (ascii && c >= 0x7F && c < 0x10000 && !is_plain(b, c))) {
            snprintf(text, sizeof text, "\\u%04x", c);
            jbuf_adds(b, text);
        } else if (ascii && c >= 0x10000) {
            snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xD800 + ((c - 0x10000) >> 10), 0xDC00 + ((c - 0x10000) & 0x3FF));
            jbuf_adds(b, text);
        } else jbuf_add(b, s->data + i, n);
        i += n;
    }
    jbuf_addc(b, '"');
}

static void json_float(jbuf *b, double f)
{
    if (isnan(f)) jbuf_adds(b, "NaN");
    else if (isinf(f)) jbuf_adds(b, f < 0 ? "-Infinity" : "Infinity");
    else jinja_write_float(b, f);
}

static void json_newline(jbuf *b, const jjson *how, int level)
{
    if (!how->indent) return;
    jbuf_addc(b, '\n');
    for (int i = 0; i < level; i++) jbuf_addstr(b, how->indent);
}

/* A key as JSON has it: numbers, booleans and none become strings. */
static const jstr *json_key(jrun *r, jval k)
{
    jbuf b = {.m = &r->m};
    switch (k.kind) {
    case J_STRING: return k.s;
    case J_NONE: jbuf_adds(&b, "null"); break;
    case J_BOOL: jbuf_adds(&b, k.b ? "true" : "false"); break;
    case J_INT: jinja_write_int(&b, k.i, 10, false); break;
    case J_FLOAT: json_float(&b, k.f); break;
    default: jinja_fail(&r->m, VLM_FORMAT, "keys must be str, int, float, bool or None, not %s", jv_type(k));
    }
    return jv_buf(&b).s;
}

static void json_dict(jrun *r, jbuf *b, const jdict *d, const jjson *how, int level)
{
    jlist *order = jlist_new(&r->m, d->count);
    for (size_t i = 0; i < d->count; i++) jlist_add(&r->m, order, jv_int((jint)i));
    for (size_t i = 1; how->sort && i < d->count; i++) {           /* insertion: objects are small, and it is stable */
        jval moving = order->item[i];
        size_t k = i;
        for (; k && jv_compare(r, d->entry[moving.i].key, d->entry[order->item[k - 1].i].key, "<") < 0; k--) {
            order->item[k] = order->item[k - 1];
            jinja_enter(r);
            jinja_leave(r);
        }
        order->item[k] = moving;
    }
    jbuf_addc(b, '{');
    for (size_t i = 0; i < d->count; i++) {
        const jentry *e = &d->entry[order->item[i].i];
        if (i) jbuf_addstr(b, how->comma);
        json_newline(b, how, level + 1);
        json_string_(b, json_key(r, e->key), how->ascii);
        jbuf_addstr(b, how->colon);
        jv_json(r, b, e->value, how, level + 1);
    }
    if (d->count) json_newline(b, how, level);
    jbuf_addc(b, '}');
}

void jv_json(jrun *r, jbuf *b, jval v, const jjson *how, int level)
{
    jinja_enter(r);
    switch (v.kind) {
    case J_NONE: jbuf_adds(b, "null"); break;
    case J_BOOL: jbuf_adds(b, v.b ? "true" : "false"); break;
    case J_INT: jinja_write_int(b, v.i, 10, false); break;
    case J_FLOAT: json_float(b, v.f); break;
    case J_STRING: json_string_(b, v.s, how->ascii); break;
    case J_LIST:
    case J_TUPLE:
        jbuf_addc(b, '[');
        for (size_t i = 0; i < v.list->count; i++) {
            if (i) jbuf_addstr(b, how->comma);
            json_newline(b, how, level + 1);
            jv_json(r, b, v.list->item[i], how, level + 1);
        }
        if (v.list->count) json_newline(b, how, level);
        jbuf_addc(b, ']');
        break;
    case J_DICT: json_dict(r, b, v.dict, how, level); break;
    default: jinja_fail(&r->m, VLM_FORMAT, "Object of type %s is not JSON serializable", jv_type(v));
    }
    jinja_leave(r);
}
