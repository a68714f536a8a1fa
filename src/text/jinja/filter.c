/* filter.c - the remaining filters (numbers, default, attr), finding filters, attribute paths. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "text/jinja/internal.h"

#define FILTER(name) static jval f_##name(jrun *r, jval self, jargs *a)

FILTER(default)
{
    bool missing = self.kind == J_UNDEFINED || (jv_true(jarg(a, 1, jv_bool(false))) && !jv_true(self));
    return missing ? jarg(a, 0, jv_textn(&r->m, "", 0)) : self;
}

FILTER(abs)
{
    if (self.kind == J_FLOAT) return jv_float(fabs(self.f));
    jint i = jv_to_int(r, self, "abs");
    return i < 0 ? jv_negate(r, jv_int(i)) : jv_int(i);
}

FILTER(attr)
{
    if (a->v[0].kind != J_STRING) jinja_fail(&r->m, VLM_FORMAT, "attribute name must be string, not '%s'", jv_type(a->v[0]));
    const jstr *name = a->v[0].s;
    jval v = self.kind == J_DICT ? jv_undefined(&r->m, "no attribute") : jv_attr(r, self, name);
    if (self.kind != J_DICT) return v;
    bool hidden;
    return jinja_method(self, name, &hidden) ? jv_attr(r, self, name) : jv_undefined(&r->m, "'dict object' has no attribute '%.*s'", (int)(name->size < 60 ? name->size : 60), name->data);
}

/* White space at the ends goes, digits of all scripts become ASCII. */
static const jstr *plain_number(jrun *r, const jstr *s)
{
    s = jstr_strip(&r->m, s, NULL, true, true);
    if (s->chars == s->size) return s;
    jbuf out = {.m = &r->m};
    for (size_t i = 0; i < s->size;) {
        uint32_t c;
        i += utf8_next_lossy(s->data + i, s->size - i, &c);
        if (c >= 128 && jchar_is_decimal(c)) {
            uint32_t row = c & ~15u;               /* tens of digits begin at a 0 or a 6, but for the mathematical ones */
            c = '0' + (c >= 0x1D7CE && c <= 0x1D7FF ? (c - 0x1D7CE) % 10 : jchar_is_decimal(row) ? c - row : c - row - 6);
        }
        jbuf_utf8(&out, c);
    }
    return jv_buf(&out).s;
}

/* int(text, base) of Python: false when it is no number. */
static bool parse_int(const jstr *s, jint base, jint *out)
{
    size_t i = 0;
    bool negative = false, any = false;
    if (i < s->size && (s->data[i] == '-' || s->data[i] == '+')) negative = s->data[i++] == '-';
    if (s->size - i > 2 && s->data[i] == '0') {
        char c = s->data[i + 1] | 32;
        jint implied = c == 'x' ? 16 : c == 'o' ? 8 : c == 'b' ? 2 : 0;
        if (implied && (base == implied || base == 0)) {
            base = implied;
            i += 2;
        }
    }
    if (base == 0) base = 10;
    *out = 0;
    for (; i < s->size; i++) {
        char c = s->data[i];
        if (c == '_' && any && i + 1 < s->size) continue;
        int d = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'z' ? (c | 32) - 'a' + 10 : 99;
        if (d >= base || __builtin_mul_overflow(*out, base, out) || __builtin_add_overflow(*out, (jint)d, out)) return false;
        any = true;
    }
    if (negative) *out = -*out;
    return any;
}

static bool parse_float(jrun *r, const jstr *s, double *out)
{
    const jstr *copy = jstr_copy(&r->m, s->data, s->size);
    char *end;
    if (!s->size || s->data[0] == ' ' || memchr(s->data, 'x', s->size) || memchr(s->data, 'X', s->size) || memchr(s->data, '(', s->size)) return false;
    *out = strtod(copy->data, &end);
    return end == copy->data + s->size;
}

FILTER(int)
{
    jval otherwise = jarg(a, 0, jv_int(0));
    jint base = jv_to_int(r, jarg(a, 1, jv_int(10)), "int"), i;
    double f;
    switch (self.kind) {
    case J_UNDEFINED: jinja_undefined_error(r, self);
    case J_INT: return self;
    case J_BOOL: return jv_int(self.b);
    case J_FLOAT: f = self.f; break;
    case J_STRING: {
        const jstr *s = plain_number(r, self.s);
        if (parse_int(s, base, &i)) return jv_int(i);
        if (!parse_float(r, s, &f)) return otherwise;
    } break;
    default: return otherwise;
    }
    return isfinite(f) && fabs(f) < 1e38 ? jv_int((jint)f) : otherwise;
}

FILTER(float)
{
    double f;
    if (self.kind == J_UNDEFINED) jinja_undefined_error(r, self);
    if (jv_is_number(self)) return jv_float(jv_to_double(self));
    if (self.kind == J_STRING && parse_float(r, plain_number(r, self.s), &f)) return jv_float(f);
    return jarg(a, 0, jv_float(0));
}

/* round(int, -n): to a multiple of a power of ten, halves to the even one. */
static jint round_int(jrun *r, jint i, jint precision)
{
    jint by = 1;
    for (; precision < 0; precision++)
        if (__builtin_mul_overflow(by, (jint)10, &by)) return 0;
    jint rest = i % by, down = i - (rest < 0 ? rest + by : rest);
    rest = i - down;
    bool up = rest > by / 2 || (by > 1 && rest == by / 2 && (down / by) % 2 != 0);
    if (up && __builtin_add_overflow(down, by, &down)) jinja_fail(&r->m, VLM_LIMIT, "an integer needs more than 128 bits");
    return down;
}

static jval round_up_or_down(jrun *r, double f, jint precision, bool up)
{
    double scale = pow(10, (double)precision), scaled = up ? ceil(f * scale) : floor(f * scale);
    if (!isfinite(scaled)) jinja_fail(&r->m, VLM_FORMAT, "cannot convert float %s to integer", isnan(scaled) ? "NaN" : "infinity");
    return jv_float(scaled == 0 ? 0 : scaled / scale);         /* an int in between: there is no -0 */
}

FILTER(round)
{
    jint precision = jv_to_int(r, jarg(a, 0, jv_int(0)), "round");
    const jstr *method = jv_string(r, jarg(a, 1, jv_text(&r->m, "common")));
    bool up = jstr_is(method, "ceil");
    if (!up && !jstr_is(method, "floor") && !jstr_is(method, "common")) jinja_fail(&r->m, VLM_FORMAT, "method must be common, ceil or floor");
    if (self.kind == J_UNDEFINED) jinja_undefined_error(r, self);
    if (!jv_is_number(self)) jinja_fail(&r->m, VLM_FORMAT, "type %s doesn't define __round__ method", jv_type(self));
    if (precision > 300 || precision < -300) jinja_fail(&r->m, VLM_FORMAT, "round: precision out of range");
    double f = jv_to_double(self);
    if (!jstr_is(method, "common")) return round_up_or_down(r, f, precision, up);
    if (self.kind != J_FLOAT) return jv_int(round_int(r, self.kind == J_BOOL ? (jint)self.b : self.i, precision));
    if (precision < 0) {
        double by = pow(10, (double)-precision), rounded = rint(f / by) * by;
        return jv_float(isfinite(by) ? rounded : copysign(0, f));
    }
    if (!isfinite(f) || fabs(f) > 1e22) return jv_float(f);
    char text[400];
    snprintf(text, sizeof text, "%.*f", (int)(precision > 323 ? 323 : precision), f);      /* exact, half to even */
    return jv_float(strtod(text, NULL));
}

static const jbuiltin filters[] = {
    {"default", f_default, 0, 2, "default_value,boolean"}, {"d", f_default, 0, 2, "default_value,boolean"}, {"abs", f_abs, 0, 0, ""},
    {"attr", f_attr, 1, 1, "name"}, {"int", f_int, 0, 2, "default,base"}, {"float", f_float, 0, 1, "default"}, {"round", f_round, 0, 2, "precision,method"},
};

const jbuiltin *jinja_filter(const jstr *name)
{
    const jbuiltin *fn = jinja_filter_text(name);
    if (!fn) fn = jinja_filter_list(name);
    return fn ? fn : jinja_find(filters, sizeof filters / sizeof *filters, name->data, name->size);
}

const jbuiltin *jinja_find(const jbuiltin *table, size_t count, const char *name, size_t size)
{
    for (size_t i = 0; i < count; i++)
        if (strlen(table[i].name) == size && memcmp(table[i].name, name, size) == 0) return &table[i];
    return NULL;
}

jval jinja_attribute_path(jrun *r, jval v, jval path, jval otherwise)
{
    bool replace = otherwise.kind != J_MISSING && otherwise.kind != J_NONE;
    if (path.kind == J_INT || path.kind == J_BOOL) {
        v = jv_item(r, v, path);
        return replace && v.kind == J_UNDEFINED ? otherwise : v;
    }
    const jstr *s = jv_string(r, path);
    for (size_t at = 0; at <= s->size;) {
        size_t end = bytes_find(s->data, s->size, at, ".", 1);
        if (end == SIZE_MAX) end = s->size;
        const jstr *part = jstr_new(&r->m, s->data + at, end - at);
        bool digits = part->size > 0 && part->size < 10;
        jint index = 0;
        for (size_t i = 0; i < part->size && digits; i++) {
            digits = part->data[i] >= '0' && part->data[i] <= '9';
            index = index * 10 + (part->data[i] - '0');
        }
        v = jv_item(r, v, digits ? jv_int(index) : jv_str(part));
        if (replace && v.kind == J_UNDEFINED) v = otherwise;
        at = end + 1;
    }
    return v;
}
