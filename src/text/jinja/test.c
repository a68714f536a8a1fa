/* test.c - what can follow "is". */
#include "text/jinja/internal.h"

#define TEST(name) static jval is_##name(jrun *r, jval v, jargs *a)

TEST(defined) { return jv_bool(v.kind != J_UNDEFINED); }
TEST(undefined) { return jv_bool(v.kind == J_UNDEFINED); }
TEST(none) { return jv_bool(v.kind == J_NONE); }
TEST(boolean) { return jv_bool(v.kind == J_BOOL); }
TEST(true) { return jv_bool(v.kind == J_BOOL && v.b); }
TEST(false) { return jv_bool(v.kind == J_BOOL && !v.b); }
TEST(integer) { return jv_bool(v.kind == J_INT); }
TEST(float) { return jv_bool(v.kind == J_FLOAT); }
TEST(number) { return jv_bool(jv_is_number(v)); }
TEST(string) { return jv_bool(v.kind == J_STRING); }
TEST(mapping) { return jv_bool(v.kind == J_DICT); }
TEST(iterable) { return jv_bool(jv_is_iterable(v)); }
TEST(escaped) { return jv_bool(v.kind == J_STRING && v.markup); }

TEST(sequence)
{
    return jv_bool(v.kind == J_STRING || v.kind == J_LIST || v.kind == J_TUPLE || v.kind == J_DICT || v.kind == J_RANGE || v.kind == J_UNDEFINED);
}

TEST(callable)
{
    return jv_bool(v.kind == J_FUNCTION || v.kind == J_METHOD || v.kind == J_MACRO || v.kind == J_LOOP || v.kind == J_JOINER || v.kind == J_UNDEFINED);
}

TEST(odd) { return jv_bool(jv_equal(r, jv_binary(r, '%', v, jv_int(2)), jv_int(1))); }
TEST(even) { return jv_bool(jv_equal(r, jv_binary(r, '%', v, jv_int(2)), jv_int(0))); }
TEST(divisibleby) { return jv_bool(jv_equal(r, jv_binary(r, '%', v, a->v[0]), jv_int(0))); }
TEST(eq) { return jv_bool(jv_equal(r, v, a->v[0])); }
TEST(ne) { return jv_bool(!jv_equal(r, v, a->v[0])); }
TEST(lt) { return jv_bool(jv_compare(r, v, a->v[0], "<") == -1); }
TEST(gt) { return jv_bool(jv_compare(r, v, a->v[0], ">") == 1); }
TEST(in) { return jv_bool(jv_contains(r, a->v[0], v)); }

TEST(le)
{
    int c = jv_compare(r, v, a->v[0], "<=");
    return jv_bool(c == -1 || c == 0);
}

TEST(ge)
{
    int c = jv_compare(r, v, a->v[0], ">=");
    return jv_bool(c == 1 || c == 0);
}

/* Identity: small values are the same object in Python, too. */
TEST(sameas)
{
    jval b = a->v[0];
    if (v.kind != b.kind) return jv_bool(false);
    switch (v.kind) {
    case J_NONE: return jv_bool(true);
    case J_BOOL:
    case J_INT:
    case J_STRING: return jv_bool(jv_equal(r, v, b));
    case J_FLOAT: return jv_bool(v.f == b.f);
    default: return jv_bool(v.list == b.list);
    }
}

static jval case_test(jrun *r, jval v, bool upper)
{
    const jstr *s = jv_string(r, v);
    bool any = false;
    for (size_t i = 0; i < s->size;) {
        uint32_t c;
        i += utf8_next_lossy(s->data + i, s->size - i, &c);
        if (jchar_is_title(c) || (upper ? jchar_is_lower(c) : jchar_is_upper(c))) return jv_bool(false);
        any |= upper ? jchar_is_upper(c) : jchar_is_lower(c);
    }
    return jv_bool(any);
}

TEST(upper) { return case_test(r, v, true); }
TEST(lower) { return case_test(r, v, false); }
TEST(filter) { return jv_bool(v.kind == J_STRING && jinja_filter(v.s)); }
TEST(test) { return jv_bool(v.kind == J_STRING && jinja_test(v.s)); }

static const jbuiltin tests[] = {
    {"defined", is_defined, 0, 0, ""}, {"undefined", is_undefined, 0, 0, ""}, {"none", is_none, 0, 0, ""}, {"boolean", is_boolean, 0, 0, ""},
    {"true", is_true, 0, 0, ""}, {"false", is_false, 0, 0, ""}, {"integer", is_integer, 0, 0, ""}, {"float", is_float, 0, 0, ""},
    {"number", is_number, 0, 0, ""}, {"string", is_string, 0, 0, ""}, {"mapping", is_mapping, 0, 0, ""}, {"iterable", is_iterable, 0, 0, ""},
    {"escaped", is_escaped, 0, 0, ""}, {"sequence", is_sequence, 0, 0, ""}, {"callable", is_callable, 0, 0, ""}, {"odd", is_odd, 0, 0, ""},
    {"even", is_even, 0, 0, ""}, {"divisibleby", is_divisibleby, 1, 1, "num"}, {"eq", is_eq, 1, 1, ""}, {"equalto", is_eq, 1, 1, ""},
    {"==", is_eq, 1, 1, ""}, {"ne", is_ne, 1, 1, ""}, {"!=", is_ne, 1, 1, ""}, {"lt", is_lt, 1, 1, ""}, {"lessthan", is_lt, 1, 1, ""},
    {"<", is_lt, 1, 1, ""}, {"le", is_le, 1, 1, ""}, {"<=", is_le, 1, 1, ""}, {"gt", is_gt, 1, 1, ""}, {"greaterthan", is_gt, 1, 1, ""},
    {">", is_gt, 1, 1, ""}, {"ge", is_ge, 1, 1, ""}, {">=", is_ge, 1, 1, ""}, {"in", is_in, 1, 1, "seq"}, {"sameas", is_sameas, 1, 1, "other"},
    {"upper", is_upper, 0, 0, ""}, {"lower", is_lower, 0, 0, ""}, {"filter", is_filter, 0, 0, ""}, {"test", is_test, 0, 0, ""},
};

const jbuiltin *jinja_test(const jstr *name) { return jinja_find(tests, sizeof tests / sizeof *tests, name->data, name->size); }

bool jinja_test_value(jrun *r, const jbuiltin *test, jval v, const jargs *a) { return jv_true(jinja_call_builtin(r, test, v, a, "test")); }
