/* schema_check.c - does a value satisfy a schema? For the members of enum and const, which are tried against all that the schema says besides. */
#include <math.h>
#include <string.h>

#include "text/constrain/schema_internal.h"
#include "text/utf8.h"

bool schema_equal(const json_t *a, const json_t *b)
{
    if (json_is_number(a) && json_is_number(b)) {
        if (json_is_integer(a) && json_is_integer(b)) return json_integer_value(a) == json_integer_value(b);
        return json_number_value(a) == json_number_value(b);
    }
    if (json_typeof(a) != json_typeof(b)) return false;
    if (json_is_array(a)) {
        if (json_array_size(a) != json_array_size(b)) return false;
        for (size_t i = 0; i < json_array_size(a); i++)
            if (!schema_equal(json_array_get(a, i), json_array_get(b, i))) return false;
        return true;
    }
    if (json_is_object(a)) {
        if (json_object_size(a) != json_object_size(b)) return false;
        const char *k;
        json_t *v;
        json_object_foreach((json_t *)a, k, v) {
            const json_t *other = json_object_get(b, k);
            if (!other || !schema_equal(v, other)) return false;
        }
        return true;
    }
    return json_equal(a, b);
}

static unsigned value_type(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_NULL: return TYPE_NULL;
    case JSON_TRUE: case JSON_FALSE: return TYPE_BOOLEAN;
    case JSON_INTEGER: return TYPE_INTEGER;
    case JSON_REAL: return floor(json_real_value(v)) == json_real_value(v) ? TYPE_INTEGER : TYPE_FRACTION;
    case JSON_STRING: return TYPE_STRING;
    case JSON_ARRAY: return TYPE_ARRAY;
    default: return TYPE_OBJECT;
    }
}

/* Does the number lie in the range? */
bool schema_range_has(const schema_range *r, const schema_decimal_t *v)
{
    int low = r->has_min ? schema_decimal_compare(v, &r->min) : 1, high = r->has_max ? schema_decimal_compare(v, &r->max) : -1;
    if (low < 0 || (!low && r->min_exclusive) || high > 0 || (!high && r->max_exclusive)) return false;
    if (!r->divisor) return true;
    uint64_t rest = 0;
    for (int i = 0; i < v->whole + (v->fraction > r->scale ? v->fraction : r->scale); i++) {
        unsigned digit = i < v->whole + v->fraction ? (unsigned)(v->digit[i] - '0') : 0;
        if (i >= v->whole + r->scale && digit) return false;
        if (i < v->whole + r->scale) rest = (rest * 10 + digit) % r->divisor;
    }
    return rest == 0;
}

static int all_of(schema_c *c, const json_t *list, const json_t *value, int depth, size_t *count)
{
    *count = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        int ok = schema_value_ok(c, json_array_get(list, i), value, depth + 1);
        if (ok < 0) return -1;
        *count += (size_t)ok;
    }
    return 1;
}

static int combined_ok(schema_c *c, const json_t *node, const json_t *value, int depth)
{
    const json_t *ref = json_object_get(node, "$ref"), *list;
    size_t n;
    int ok;
    if (ref) {
        const json_t *target = json_is_string(ref) ? schema_doc_resolve(&c->doc, node, json_string_value(ref), c->error) : NULL;
        if (!target) return c->failed = true, -1;
        if ((ok = schema_value_ok(c, target, value, depth + 1)) != 1) return ok;
        if (c->doc.ref_alone) return 1;
    }
    if ((list = json_object_get(node, "allOf"))) {
        if (all_of(c, list, value, depth, &n) < 0) return -1;
        if (n != json_array_size(list)) return 0;
    }
    if ((list = json_object_get(node, "anyOf"))) {
        if (all_of(c, list, value, depth, &n) < 0) return -1;
        if (!n) return 0;
    }
    if ((list = json_object_get(node, "oneOf"))) {
        if (all_of(c, list, value, depth, &n) < 0) return -1;
        if (n != 1 && !(n && c->options.one_of_any)) return 0;
    }
    if ((list = json_object_get(node, "not"))) {
        if ((ok = schema_value_ok(c, list, value, depth + 1)) < 0) return -1;
        if (ok) return 0;
    }
    return 1;
}

static int string_ok(schema_c *c, const json_t *node, const json_t *value)
{
    const char *text = json_string_value(value);
    size_t size = json_string_length(value);
    double n = (double)utf8_length(text, size);
    const json_t *min = json_object_get(node, "minLength"), *max = json_object_get(node, "maxLength");
    const json_t *pattern = json_object_get(node, "pattern"), *format = json_object_get(node, "format");
    if ((min && n < json_number_value(min)) || (max && n > json_number_value(max))) return 0;
    if (!json_is_string(pattern) && !json_is_string(format)) return 1;
    lang a = c->last_strings.node == node ? c->last_strings.set : lang_any(c->lang);
    if (c->last_strings.node != node) {
        if (json_is_string(pattern)) a = lang_and(c->lang, a, schema_pattern(c, node, "pattern", json_string_value(pattern), json_string_length(pattern)));
        if (json_is_string(format)) a = lang_and(c->lang, a, schema_format(c, node, json_string_value(format)));
        c->last_strings.node = node;
        c->last_strings.set = a;
    }
    if (!a) return schema_refuse(c, VLM_LIMIT, node, NULL, "the strings are too complex"), -1;
    return lang_matches(c->lang, a, text, size);
}

static int number_ok(schema_c *c, const json_t *node, const json_t *value)
{
    schema_merged m;
    schema_atom atom = {node, -1, 0, false};
    schema_view v = {&atom, 1, 1, TYPE_NUMBER};
    schema_decimal_t d;
    json_t *bare = json_copy((json_t *)node);          /* without the values themselves */
    if (!bare) return schema_memory(c), -1;
    json_object_del(bare, "enum");
    json_object_del(bare, "const");
    atom.node = bare;
    bool merged = schema_merge(c, &v, &m);
    json_decref(bare);
    if (!merged) return -1;
    return schema_decimal(value, &d) && schema_range_has(&m.range, &d);
}

static int array_ok(schema_c *c, const json_t *node, const json_t *value, int depth)
{
    size_t n = json_array_size(value);
    const json_t *min = json_object_get(node, "minItems"), *max = json_object_get(node, "maxItems");
    const json_t *items = json_object_get(node, "items"), *prefix = json_object_get(node, "prefixItems"), *rest = items;
    if ((min && (double)n < json_number_value(min)) || (max && (double)n > json_number_value(max))) return 0;
    if (json_is_array(items)) prefix = items, rest = json_object_get(node, "additionalItems");
    for (size_t i = 0; i < n; i++) {
        const json_t *s = i < json_array_size(prefix) ? json_array_get(prefix, i) : rest;
        int ok = s ? schema_value_ok(c, s, json_array_get(value, i), depth + 1) : 1;
        if (ok != 1) return ok;
        for (size_t k = 0; k < i && json_is_true(json_object_get(node, "uniqueItems")); k++)
            if (schema_equal(json_array_get(value, i), json_array_get(value, k))) return 0;
    }
    const json_t *contains = json_object_get(node, "contains");
    if (contains) return schema_refuse(c, VLM_UNSUPPORTED, node, "contains", "that some item is of a kind cannot be enforced"), -1;
    return 1;
}

static int object_ok(schema_c *c, const json_t *node, const json_t *value, int depth)
{
    size_t n = json_object_size(value);
    const json_t *min = json_object_get(node, "minProperties"), *max = json_object_get(node, "maxProperties"), *names = json_object_get(node, "propertyNames");
    const json_t *required = json_object_get(node, "required"), *own = json_object_get(node, "properties"), *patterns = json_object_get(node, "patternProperties");
    const json_t *more = json_object_get(node, "additionalProperties");
    if ((min && (double)n < json_number_value(min)) || (max && (double)n > json_number_value(max))) return 0;
    for (size_t i = 0; i < json_array_size(required); i++) {
        const char *name = json_string_value(json_array_get(required, i));
        if (name && !json_object_get(value, name)) return 0;
    }
    const char *k, *pattern;
    json_t *v, *s;
    json_object_foreach((json_t *)value, k, v) {
        const json_t *declared = json_object_get(own, k);
        bool known = declared != NULL;
        int ok = declared ? schema_value_ok(c, declared, v, depth + 1) : 1;
        if (ok != 1) return ok;
        json_object_foreach((json_t *)patterns, pattern, s) {
            lang a = schema_pattern(c, node, "patternProperties", pattern, strlen(pattern));
            if (!a) return -1;
            if (!lang_matches(c->lang, a, k, strlen(k))) continue;
            known = true;
            if ((ok = schema_value_ok(c, s, v, depth + 1)) != 1) return ok;
        }
        if (!known && more && (ok = schema_value_ok(c, more, v, depth + 1)) != 1) return ok;
        if (!known && !more && own && c->options.closed) return 0;
        if (names) {
            json_t *name = json_string(k);
            ok = name ? schema_value_ok(c, names, name, depth + 1) : (schema_memory(c), -1);
            json_decref(name);
            if (ok != 1) return ok;
        }
    }
    return 1;
}

int schema_value_ok(schema_c *c, const json_t *node, const json_t *value, int depth)
{
    static const char *const unknown[] = {"if", "dependentRequired", "dependentSchemas", "dependencies", "unevaluatedItems", "unevaluatedProperties"};
    if (json_is_boolean(node)) return json_is_true(node);
    if (!json_is_object(node)) return schema_refuse(c, VLM_INVALID, c->doc.root, NULL, "a schema was expected: an object, true or false"), -1;
    if (depth > 200) return schema_refuse(c, VLM_INVALID, node, NULL, "schemas refer to each other without end, or are nested too deep"), -1;
    if (c->checks++ > 2000000) return schema_refuse(c, VLM_LIMIT, node, NULL, "too many values and schemas"), -1;
    int ok = combined_ok(c, node, value, depth);
    if (ok != 1 || (c->doc.ref_alone && json_object_get(node, "$ref"))) return ok;
    unsigned type = value_type(value), bits = schema_type_bits(c, node);
    if (c->failed) return -1;
    if (!(bits & type)) return 0;
    bool trusted = node == c->trusted;
    const json_t *one = trusted ? NULL : json_object_get(node, "const"), *list = trusted ? NULL : json_object_get(node, "enum");
    if (one && !schema_equal(one, value)) return 0;
    bool found = !list;
    for (size_t i = 0; i < json_array_size(list) && !found; i++) found = schema_equal(json_array_get(list, i), value);
    if (!found) return 0;
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++)
        if (json_object_get(node, unknown[i]) && (type & (TYPE_ARRAY | TYPE_OBJECT)))
            return schema_refuse(c, VLM_UNSUPPORTED, node, unknown[i], "cannot be tried on the values of enum and const"), -1;
    if (type == TYPE_STRING) return string_ok(c, node, value);
    if (type & TYPE_NUMBER) return number_ok(c, node, value);
    if (type == TYPE_ARRAY) return array_ok(c, node, value, depth);
    if (type == TYPE_OBJECT) return object_ok(c, node, value, depth);
    return 1;
}
