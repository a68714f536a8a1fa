/* ops.c - operators on values: comparison, arithmetic, attributes, items, slices. */
#include <math.h>

#include "text/jinja/internal.h"

bool jv_equal(jrun *r, jval a, jval b)
{
    if (jv_is_number(a) && jv_is_number(b)) {
        if (a.kind == J_FLOAT || b.kind == J_FLOAT) return jv_to_double(a) == jv_to_double(b);
        return (a.kind == J_BOOL ? (jint)a.b : a.i) == (b.kind == J_BOOL ? (jint)b.b : b.i);
    }
    if (a.kind == J_UNDEFINED && b.kind == J_UNDEFINED) return true;
    if (a.kind != b.kind) return false;
    bool same = true;
    switch (a.kind) {
    case J_NONE: return true;
    case J_STRING:
    case J_BYTES:
        jinja_work(&r->m, a.s->size / 64);
        return a.s->size == b.s->size && memcmp(a.s->data, b.s->data, a.s->size) == 0;
    case J_LIST:
    case J_TUPLE:
        if (a.list == b.list) return true;
        if (a.list->count != b.list->count) return false;
        jinja_enter(r);
        for (size_t i = 0; same && i < a.list->count; i++) same = jv_equal(r, a.list->item[i], b.list->item[i]);
        jinja_leave(r);
        return same;
    case J_DICT:
        if (a.dict == b.dict) return true;
        if (a.dict->count != b.dict->count) return false;
        jinja_enter(r);
        for (size_t i = 0; same && i < a.dict->count; i++) {
            const jval *other = jdict_get(r, b.dict, a.dict->entry[i].key);
            same = other && jv_equal(r, a.dict->entry[i].value, *other);
        }
        jinja_leave(r);
        return same;
    case J_RANGE: return a.range->start == b.range->start && a.range->stop == b.range->stop && a.range->step == b.range->step;
    case J_FUNCTION: return a.fn == b.fn;
    default: return a.list == b.list;              /* identity: all others are pointers */
    }
}

int jv_compare(jrun *r, jval a, jval b, const char *op)
{
    if (a.kind == J_UNDEFINED) jinja_undefined_error(r, a);
    if (b.kind == J_UNDEFINED) jinja_undefined_error(r, b);
    if (jv_is_number(a) && jv_is_number(b)) {
        if (a.kind == J_FLOAT || b.kind == J_FLOAT) {
            double x = jv_to_double(a), y = jv_to_double(b);
            return x < y ? -1 : x > y ? 1 : x == y ? 0 : 2;            /* 2: not comparable (nan), every comparison is false */
        }
        jint x = a.kind == J_BOOL ? a.b : a.i, y = b.kind == J_BOOL ? b.b : b.i;
        return x < y ? -1 : x > y;
    }
    if (a.kind == J_STRING && b.kind == J_STRING) {
        size_t n = a.s->size < b.s->size ? a.s->size : b.s->size;
        jinja_work(&r->m, n / 64);
        int c = memcmp(a.s->data, b.s->data, n);
        return c < 0 ? -1 : c > 0 ? 1 : a.s->size < b.s->size ? -1 : a.s->size > b.s->size;
    }
    if (a.kind == b.kind && (a.kind == J_LIST || a.kind == J_TUPLE)) {
        size_t n = a.list->count < b.list->count ? a.list->count : b.list->count;
        int c = 0;
        jinja_enter(r);
        for (size_t i = 0; i < n && !c; i++)
            if (!jv_equal(r, a.list->item[i], b.list->item[i])) c = jv_compare(r, a.list->item[i], b.list->item[i], op);
        jinja_leave(r);
        return c ? c : a.list->count < b.list->count ? -1 : a.list->count > b.list->count;
    }
    jinja_fail(&r->m, VLM_FORMAT, "'%s' not supported between instances of '%s' and '%s'", op, jv_type(a), jv_type(b));
}

jint jv_to_int(jrun *r, jval v, const char *what)
{
    if (v.kind == J_INT) return v.i;
    if (v.kind == J_BOOL) return v.b;
    if (v.kind == J_UNDEFINED) jinja_undefined_error(r, v);
    jinja_fail(&r->m, VLM_FORMAT, "%s: '%s' object cannot be interpreted as an integer", what, jv_type(v));
}

/* ---- arithmetic ---- */

_Noreturn static void too_large(jrun *r) { jinja_fail(&r->m, VLM_LIMIT, "an integer needs more than 128 bits"); }

static jint floor_divide(jint x, jint y)
{
    jint q = x / y;
    return q - (x % y != 0 && (x < 0) != (y < 0));
}

static double float_modulo(double x, double y)
{
    double m = fmod(x, y);
    if (m != 0 && (m < 0) != (y < 0)) m += y;
    return m == 0 ? copysign(0, y) : m;
}

static jval int_power(jrun *r, jint x, jint y)
{
    if (y < 0) {
        if (x == 0) jinja_fail(&r->m, VLM_FORMAT, "0.0 cannot be raised to a negative power");
        return jv_float(pow((double)x, (double)y));
    }
    jint result = 1;
    if (x == 0 || x == 1) return jv_int(y ? x : 1);
    if (x == -1) return jv_int(y % 2 ? -1 : 1);
    for (; y > 0; y--)
        if (__builtin_mul_overflow(result, x, &result)) too_large(r);
    return jv_int(result);
}

static jval int_binary(jrun *r, int op, jint x, jint y)
{
    jint z = 0;
    if (!y && (op == '/' || op == '%' || op == OP_FLOORDIV)) jinja_fail(&r->m, VLM_FORMAT, "division by zero");
    if (y == -1 && (op == '%' || op == OP_FLOORDIV)) return op == '%' ? jv_int(0) : int_binary(r, '-', 0, x);
    switch (op) {
    case '+': if (__builtin_add_overflow(x, y, &z)) too_large(r); break;
    case '-': if (__builtin_sub_overflow(x, y, &z)) too_large(r); break;
    case '*': if (__builtin_mul_overflow(x, y, &z)) too_large(r); break;
    case '/': return jv_float((double)x / (double)y);
    case OP_FLOORDIV: z = floor_divide(x, y); break;
    case '%': z = x - floor_divide(x, y) * y; break;
    case OP_POW: return int_power(r, x, y);
    }
    return jv_int(z);
}

static jval float_binary(jrun *r, int op, double x, double y)
{
    if (y == 0 && (op == '/' || op == '%' || op == OP_FLOORDIV)) jinja_fail(&r->m, VLM_FORMAT, "float division by zero");
    switch (op) {
    case '+': return jv_float(x + y);
    case '-': return jv_float(x - y);
    case '*': return jv_float(x * y);
    case '/': return jv_float(x / y);
    case OP_FLOORDIV: return jv_float(floor((x - float_modulo(x, y)) / y + 0.5));
    case '%': return jv_float(float_modulo(x, y));
    default: break;
    }
    if (x < 0 && y != floor(y)) jinja_fail(&r->m, VLM_UNSUPPORTED, "a complex number");
    if (x == 0 && y < 0) jinja_fail(&r->m, VLM_FORMAT, "0.0 cannot be raised to a negative power");
    return jv_float(pow(x, y));
}

static jval repeat(jrun *r, jval v, jint n)
{
    if (n < 0) n = 0;
    jint size = v.kind == J_STRING ? (jint)v.s->size : (jint)(v.list->count * sizeof(jval));
    if (n > INT32_MAX || size * n > (jint)r->m.limit) jinja_fail(&r->m, VLM_LIMIT, "repeated value is too large");
    if (v.kind == J_STRING) {
        jbuf b = {.m = &r->m};
        for (jint i = 0; i < n && v.s->size; i++) jbuf_addstr(&b, v.s);
        return jv_marked(jv_buf(&b), v.markup);
    }
    jlist *l = jlist_new(&r->m, v.list->count * (size_t)n);
    for (jint i = 0; i < n; i++)
        for (size_t k = 0; k < v.list->count; k++) jlist_add(&r->m, l, v.list->item[k]);
    return (jval){.kind = v.kind, .list = l};
}

static jval concatenate(jrun *r, jval a, jval b)
{
    if (a.kind == J_STRING) {
        jbuf out = {.m = &r->m};
        bool markup = a.markup || b.markup;
        if (markup && !a.markup) jinja_escape_html(&out, a.s); else jbuf_addstr(&out, a.s);
        if (markup && !b.markup) jinja_escape_html(&out, b.s); else jbuf_addstr(&out, b.s);
        jval v = jv_buf(&out);
        v.markup = markup;
        return v;
    }
    jlist *l = jlist_new(&r->m, a.list->count + b.list->count);
    for (size_t i = 0; i < a.list->count; i++) jlist_add(&r->m, l, a.list->item[i]);
    for (size_t i = 0; i < b.list->count; i++) jlist_add(&r->m, l, b.list->item[i]);
    return (jval){.kind = a.kind, .list = l};
}

static bool is_sequence(jval v) { return v.kind == J_STRING || v.kind == J_LIST || v.kind == J_TUPLE; }

jval jv_binary(jrun *r, int op, jval a, jval b)
{
    if (a.kind == J_UNDEFINED) jinja_undefined_error(r, a);
    if (a.kind == J_STRING && op == '%') return jinja_percent(r, a, b);
    if (b.kind == J_UNDEFINED) jinja_undefined_error(r, b);
    if (jv_is_number(a) && jv_is_number(b)) {
        if (a.kind == J_FLOAT || b.kind == J_FLOAT) return float_binary(r, op, jv_to_double(a), jv_to_double(b));
        return int_binary(r, op, a.kind == J_BOOL ? a.b : a.i, b.kind == J_BOOL ? b.b : b.i);
    }
    if (op == '+' && is_sequence(a) && a.kind == b.kind) return concatenate(r, a, b);
    if (op == '*' && is_sequence(a) && (b.kind == J_INT || b.kind == J_BOOL)) return repeat(r, a, b.kind == J_BOOL ? b.b : b.i);
    if (op == '*' && is_sequence(b) && (a.kind == J_INT || a.kind == J_BOOL)) return repeat(r, b, a.kind == J_BOOL ? a.b : a.i);
    if (op == '+' && is_sequence(a))
        jinja_fail(&r->m, VLM_FORMAT, "can only concatenate %s (not \"%s\") to %s", jv_type(a), jv_type(b), jv_type(a));
    const char *text = op == OP_POW ? "**" : op == OP_FLOORDIV ? "//" : (char[2]){(char)op, 0};
    jinja_fail(&r->m, VLM_FORMAT, "unsupported operand type(s) for %s: '%s' and '%s'", text, jv_type(a), jv_type(b));
}

jval jv_negate(jrun *r, jval v)
{
    if (v.kind == J_UNDEFINED) jinja_undefined_error(r, v);
    if (v.kind == J_FLOAT) return jv_float(-v.f);
    if (v.kind == J_INT || v.kind == J_BOOL) return int_binary(r, '-', 0, v.kind == J_BOOL ? v.b : v.i);
    jinja_fail(&r->m, VLM_FORMAT, "bad operand type for unary -: '%s'", jv_type(v));
}

/* ---- attributes and items ---- */

static jval undefined_attr(jrun *r, jval v, const char *name, size_t size)
{
    return jv_undefined(&r->m, "'%s object' has no attribute '%.*s'", v.kind == J_NONE ? "None" : jv_type(v), (int)(size < 100 ? size : 100), name);
}

/* loop.index and the like; false if there is no such attribute. */
static bool loop_attr(jrun *r, jloop *l, const jstr *name, jval *out)
{
    size_t i = l->index;
    if (jstr_is(name, "index")) *out = jv_int((jint)i + 1);
    else if (jstr_is(name, "index0")) *out = jv_int((jint)i);
    else if (jstr_is(name, "revindex")) *out = jv_int((jint)(jloop_length(l) - i));
    else if (jstr_is(name, "revindex0")) *out = jv_int((jint)(jloop_length(l) - i) - 1);
    else if (jstr_is(name, "first")) *out = jv_bool(i == 0);
    else if (jstr_is(name, "last")) *out = jv_bool(!jloop_has(l, i + 1));
    else if (jstr_is(name, "length")) *out = jv_int((jint)jloop_length(l));
    else if (jstr_is(name, "depth")) *out = jv_int(l->depth + 1);
    else if (jstr_is(name, "depth0")) *out = jv_int(l->depth);
    else if (jstr_is(name, "previtem")) *out = i ? l->items->item[i - 1] : jv_undefined(&r->m, "there is no previous item");
    else if (jstr_is(name, "nextitem")) *out = jloop_has(l, i + 1) ? l->items->item[i + 1] : jv_undefined(&r->m, "there is no next item");
    else return false;
    return true;
}

static bool macro_attr(jrun *r, const jmacro *m, const jstr *name, jval *out)
{
    if (jstr_is(name, "name")) *out = m->name ? jv_str(m->name) : jv_none();
    else if (jstr_is(name, "catch_kwargs")) *out = jv_bool(m->node->plan[0]->kwargs >= 0);
    else if (jstr_is(name, "catch_varargs")) *out = jv_bool(m->node->plan[0]->varargs >= 0);
    else if (jstr_is(name, "caller")) *out = jv_bool(m->node->uses_caller);
    else if (jstr_is(name, "arguments")) {
        jlist *l = jlist_new(&r->m, m->node->list.count);
        for (size_t i = 0; i < m->node->list.count; i++) jlist_add(&r->m, l, jv_str(m->node->list.item[i]->name));
        *out = jv_tuple(l);
    } else return false;
    return true;
}

/* What every Python object has, and the sandbox hides. */
static bool is_internal(const jstr *name)
{
    static const char *const names[] = {"class", "delattr", "dir", "doc", "eq", "format", "ge", "getattribute", "getstate", "gt", "hash", "init", "init_subclass", "le", "lt",
                                        "ne", "new", "reduce", "reduce_ex", "repr", "setattr", "sizeof", "str", "subclasshook"};
    if (name->size < 6 || memcmp(name->data, "__", 2) != 0 || memcmp(name->data + name->size - 2, "__", 2) != 0) return false;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strlen(names[i]) == name->size - 4 && memcmp(names[i], name->data + 2, name->size - 4) == 0) return true;
    return false;
}

/* Python's getattr: methods and the attributes of our own objects. */
static bool own_attr(jrun *r, jval v, const jstr *name, jval *out)
{
    if (v.kind == J_LOOP && loop_attr(r, v.loop, name, out)) return true;
    if (v.kind == J_MACRO && macro_attr(r, v.macro, name, out)) return true;
    if (v.kind == J_TUPLE && v.list->group && (jstr_is(name, "grouper") || jstr_is(name, "list"))) {
        *out = v.list->item[name->data[0] == 'l'];
        return true;
    }
    if (v.kind == J_CYCLER && jstr_is(name, "current")) {
        *out = v.cycler->items->item[v.cycler->at];
        return true;
    }
    if (v.kind == J_NAMESPACE) {
        const jval *found = jdict_get_text(v.dict, name->data, name->size);
        if (found) *out = *found;
        return found != NULL;
    }
    if ((jv_is_number(v)) && jinja_number_attr(v, name, out)) return true;
    bool hidden = is_internal(name);
    const jbuiltin *fn = hidden ? NULL : jinja_method(v, name, &hidden);
    if (hidden) {
        *out = jv_undefined(&r->m, "access to attribute '%.*s' of '%s' object is unsafe", (int)(name->size < 100 ? name->size : 100), name->data, jv_type(v));
        return true;
    }
    if (!fn) return false;
    jmethod *method = jinja_alloc(&r->m, sizeof *method);
    *method = (jmethod){v, fn};
    *out = (jval){.kind = J_METHOD, .method = method};
    return true;
}

jval jv_attr(jrun *r, jval v, const jstr *name)
{
    jval out;
    if (v.kind == J_UNDEFINED && !is_internal(name)) jinja_undefined_error(r, v);
    if (own_attr(r, v, name, &out)) return out;
    if (v.kind == J_DICT) {
        const jval *found = jdict_get_text(v.dict, name->data, name->size);
        if (found) return *found;
    }
    return undefined_attr(r, v, name->data, name->size);
}

static jval item_at(jrun *r, jval v, jint at, size_t n)
{
    jint i = at < 0 ? at + (jint)n : at;
    if (i < 0 || i >= (jint)n) return jv_undefined(&r->m, "%s object has no element %lld", jv_type(v), (long long)at);
    switch (v.kind) {
    case J_LIST:
    case J_TUPLE: return v.list->item[i];
    case J_RANGE: return jv_int(v.range->start + i * v.range->step);
    case J_BYTES: return jv_int((unsigned char)v.s->data[i]);
    default: break;
    }
    size_t from = jstr_offset(v.s, (size_t)i);
    return jv_marked(jv_textn(&r->m, v.s->data + from, utf8_size((unsigned char)v.s->data[from])), v.markup);
}

jval jv_item(jrun *r, jval v, jval key)
{
    jval out;
    size_t n;
    if (v.kind == J_UNDEFINED) jinja_undefined_error(r, v);
    if (v.kind == J_DICT && jv_is_hashable(key)) {
        const jval *found = jdict_get(r, v.dict, key);
        if (found) return *found;
    }
    bool indexed = v.kind == J_LIST || v.kind == J_TUPLE || v.kind == J_BYTES || v.kind == J_STRING || v.kind == J_RANGE;
    if (indexed && (key.kind == J_INT || key.kind == J_BOOL) && jv_length(v, &n)) return item_at(r, v, key.kind == J_BOOL ? key.b : key.i, n);
    if (key.kind == J_STRING) {
        if (own_attr(r, v, key.s, &out)) return out;
        return undefined_attr(r, v, key.s->data, key.s->size);
    }
    return jv_undefined(&r->m, "%s object has no such element", jv_type(v));
}

/* ---- slices ---- */

static jint slice_bound(jrun *r, jval v, jint n, jint otherwise, bool backwards)
{
    if (v.kind == J_NONE || v.kind == J_MISSING) return otherwise;
    if (v.kind == J_UNDEFINED) jinja_undefined_error(r, v);
    if (v.kind != J_INT && v.kind != J_BOOL) jinja_fail(&r->m, VLM_FORMAT, "slice indices must be integers or None");
    jint i = v.kind == J_BOOL ? v.b : v.i;
    if (i < 0) i += n;
    jint low = backwards ? -1 : 0, high = backwards ? n - 1 : n;
    return i < low ? low : i > high ? high : i;
}

jval jv_slice(jrun *r, jval v, jval start, jval stop, jval step)
{
    size_t length = 0;
    if (v.kind == J_UNDEFINED) jinja_undefined_error(r, v);
    bool sliceable = v.kind == J_STRING || v.kind == J_BYTES || v.kind == J_LIST || v.kind == J_TUPLE || v.kind == J_RANGE;
    if (!sliceable || !jv_length(v, &length)) jinja_fail(&r->m, VLM_FORMAT, "'%s' object cannot be sliced", jv_type(v));
    jint by = step.kind == J_NONE ? 1 : jv_to_int(r, step, "slice"), n = (jint)length;
    if (by == 0) jinja_fail(&r->m, VLM_FORMAT, "slice step cannot be zero");
    jint from = slice_bound(r, start, n, by > 0 ? 0 : n - 1, by < 0), to = slice_bound(r, stop, n, by > 0 ? n : -1, by < 0);
    if (v.kind == J_RANGE) {
        jrange *g = jinja_alloc(&r->m, sizeof *g);
        *g = (jrange){v.range->start + from * v.range->step, v.range->start + to * v.range->step, v.range->step * by};
        return (jval){.kind = J_RANGE, .range = g};
    }
    if (v.kind == J_BYTES) {
        jbuf bytes = {.m = &r->m};
        for (jint i = from; by > 0 ? i < to : i > to; i += by) jbuf_addc(&bytes, v.s->data[i]);
        return jv_bytes(&r->m, bytes.data, bytes.size);
    }
    if (v.kind == J_STRING && by == 1) {
        size_t a = jstr_offset(v.s, (size_t)from), b = to > from ? jstr_offset(v.s, (size_t)to) : a;
        return jv_marked(jv_textn(&r->m, v.s->data + a, b - a), v.markup);
    }
    jlist *items = jv_iterate(r, v), *l = jlist_new(&r->m, 0);
    for (jint i = from; by > 0 ? i < to : i > to; i += by) jlist_add(&r->m, l, items->item[i]);
    if (v.kind != J_STRING) return v.kind == J_TUPLE ? jv_tuple(l) : jv_list(l);
    jbuf b = {.m = &r->m};
    for (size_t i = 0; i < l->count; i++) jbuf_addstr(&b, l->item[i].s);
    return jv_marked(jv_buf(&b), v.markup);
}
