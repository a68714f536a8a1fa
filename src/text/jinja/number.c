/* number.c - what numbers have after a dot, and bytes: what str.encode gives. */
#include <math.h>
#include <stdio.h>

#include "text/jinja/internal.h"

#define METHOD(name) static jval m_##name(jrun *r, jval self, jargs *a)

static jint as_int(jval v) { return v.kind == J_BOOL ? (jint)v.b : v.i; }

bool jinja_number_attr(jval v, const jstr *name, jval *out)
{
    bool integer = v.kind != J_FLOAT;
    if (jstr_is(name, "real")) *out = integer ? jv_int(as_int(v)) : v;
    else if (jstr_is(name, "imag")) *out = integer ? jv_int(0) : jv_float(0);
    else if (integer && jstr_is(name, "numerator")) *out = jv_int(as_int(v));
    else if (integer && jstr_is(name, "denominator")) *out = jv_int(1);
    else return false;
    return true;
}

static unsigned __int128 magnitude(jint i) { return i < 0 ? (unsigned __int128)0 - (unsigned __int128)i : (unsigned __int128)i; }

METHOD(bit_length)
{
    (void)r, (void)a;
    jint n = 0;
    for (unsigned __int128 rest = magnitude(as_int(self)); rest; rest >>= 1) n++;
    return jv_int(n);
}

METHOD(bit_count)
{
    (void)r, (void)a;
    jint n = 0;
    for (unsigned __int128 rest = magnitude(as_int(self)); rest; rest >>= 1) n += (jint)(rest & 1);
    return jv_int(n);
}

METHOD(conjugate)
{
    (void)r, (void)a;
    return self.kind == J_FLOAT ? self : jv_int(as_int(self));
}

METHOD(is_integer)
{
    (void)r, (void)a;
    return jv_bool(isfinite(self.f) && self.f == floor(self.f));
}

static jval ratio(jrun *r, jint top, jint bottom)
{
    jlist *pair = jlist_new(&r->m, 2);
    jlist_add(&r->m, pair, jv_int(top));
    jlist_add(&r->m, pair, jv_int(bottom));
    return jv_tuple(pair);
}

METHOD(as_integer_ratio)
{
    (void)a;
    if (self.kind != J_FLOAT) return ratio(r, as_int(self), 1);
    if (!isfinite(self.f)) jinja_fail(&r->m, VLM_FORMAT, "cannot convert %s to integer ratio", isnan(self.f) ? "NaN" : "Infinity");
    int exponent;
    double fraction = frexp(self.f, &exponent);
    while (fraction != floor(fraction)) {
        fraction *= 2;
        exponent--;
    }
    if (fraction == 0) return ratio(r, 0, 1);
    if (exponent > 70 || exponent < -120) jinja_fail(&r->m, VLM_LIMIT, "an integer needs more than 128 bits");
    return exponent >= 0 ? ratio(r, (jint)fraction * ((jint)1 << exponent), 1) : ratio(r, (jint)fraction, (jint)1 << -exponent);
}

METHOD(hex)
{
    (void)a;
    char text[40];
    double f = fabs(self.f);
    const char *sign = signbit(self.f) && !isnan(self.f) ? "-" : "";
    if (!isfinite(f)) snprintf(text, sizeof text, "%s%s", sign, isnan(f) ? "nan" : "inf");
    else if (f == 0) snprintf(text, sizeof text, "%s0x0.0p+0", sign);
    else {
        int exponent;
        double fraction = frexp(f, &exponent) * 2;             /* 1.xxx times two to the exponent */
        exponent--;
        if (exponent < -1022) {
            fraction = ldexp(fraction, exponent + 1022);       /* a denormal: 0.xxx */
            exponent = -1022;
        }
        unsigned long long digits = (unsigned long long)ldexp(fraction - floor(fraction), 52);
        snprintf(text, sizeof text, "%s0x%d.%013llxp%+d", sign, (int)fraction, digits, exponent);
    }
    return jv_text(&r->m, text);
}

/* ---- bytes ---- */

METHOD(decode)
{
    for (int i = 0; i < 2; i++)
        if (a->v[i].kind != J_MISSING && a->v[i].kind != J_STRING) jinja_fail(&r->m, VLM_FORMAT, "decode() argument must be str, not %s", jv_type(a->v[i]));
    if (!utf8_valid(self.s->data, self.s->size)) jinja_fail(&r->m, VLM_FORMAT, "bytes that are no text");
    return jv_str(jstr_new(&r->m, self.s->data, self.s->size));
}

METHOD(bytes_hex)
{
    (void)a;
    jbuf out = {.m = &r->m};
    for (size_t i = 0; i < self.s->size; i++) {
        char text[4];
        snprintf(text, sizeof text, "%02x", (unsigned char)self.s->data[i]);
        jbuf_adds(&out, text);
    }
    return jv_buf(&out);
}

jval jv_bytes(jmem *m, const char *data, size_t size)
{
    jstr *s = jinja_alloc(m, sizeof *s);
    *s = (jstr){size ? data : "", size, size};
    return (jval){.kind = J_BYTES, .s = s};
}

void jinja_write_bytes(jbuf *b, const jstr *s)
{
    char text[8], quote = s->size && memchr(s->data, '\'', s->size) && !memchr(s->data, '"', s->size) ? '"' : '\'';
    jbuf_addc(b, 'b');
    jbuf_addc(b, quote);
    for (size_t i = 0; i < s->size; i++) {
        unsigned char c = (unsigned char)s->data[i];
        const char *name = c == '\n' ? "\\n" : c == '\r' ? "\\r" : c == '\t' ? "\\t" : c == '\\' ? "\\\\" : NULL;
        if (name) jbuf_adds(b, name);
        else if (c == (unsigned char)quote) {
            jbuf_addc(b, '\\');
            jbuf_addc(b, quote);
        } else if (c >= 0x20 && c < 0x7F) jbuf_addc(b, (char)c);
        else {
            snprintf(text, sizeof text, "\\x%02x", c);
            jbuf_adds(b, text);
        }
    }
    jbuf_addc(b, quote);
}

static const jbuiltin int_methods[] = {{"bit_length", m_bit_length, 0, 0, ""}, {"bit_count", m_bit_count, 0, 0, ""}, {"conjugate", m_conjugate, 0, 0, ""},
                                       {"as_integer_ratio", m_as_integer_ratio, 0, 0, ""}};
static const jbuiltin float_methods[] = {{"is_integer", m_is_integer, 0, 0, ""}, {"hex", m_hex, 0, 0, ""}, {"conjugate", m_conjugate, 0, 0, ""},
                                         {"as_integer_ratio", m_as_integer_ratio, 0, 0, ""}};
static const jbuiltin bytes_methods[] = {{"decode", m_decode, 0, 2, "encoding,errors"}, {"hex", m_bytes_hex, 0, 0, ""}};

const jbuiltin *jinja_number_method(jval self, const jstr *name)
{
#define IN(table) jinja_find(table, sizeof table / sizeof *table, name->data, name->size)
    return self.kind == J_FLOAT ? IN(float_methods) : self.kind == J_BYTES ? IN(bytes_methods) : IN(int_methods);
#undef IN
}
