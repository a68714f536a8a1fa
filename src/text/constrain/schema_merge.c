/* schema_merge.c - what the schemas of a view say together, type by type: bounds are the narrowest, patterns add up. Keywords of a type that the
 * view does not admit say nothing. Here stands what cannot be enforced. */
#include <math.h>
#include <string.h>

#include "text/constrain/schema_internal.h"

/* A count such as minItems; 2.0 is one, too. False: refused. */
static bool read_count(schema_c *c, const json_t *node, const char *key, uint64_t *out, bool *there)
{
    const json_t *v = json_object_get(node, key);
    *there = v != NULL;
    if (!v) return true;
    double d = json_number_value(v);
    if (!json_is_number(v) || d < 0 || floor(d) != d)
        return schema_refuse(c, VLM_INVALID, node, key, "a number of 0, 1, 2 ... was expected");
    *out = d >= 1e18 ? (uint64_t)1e18 : (uint64_t)d;
    return true;
}

static bool merge_counts(schema_c *c, const json_t *node, const char *least, const char *most, uint64_t *min, uint64_t *max)
{
    uint64_t n = 0;
    bool there;
    if (!read_count(c, node, least, &n, &there)) return false;
    if (there && n > *min) *min = n;
    if (!read_count(c, node, most, &n, &there)) return false;
    if (there && n < *max) *max = n;
    return true;
}

static bool read_number(schema_c *c, const json_t *node, const char *key, schema_decimal_t *out, bool *there)
{
    const json_t *v = json_object_get(node, key);
    *there = json_is_number(v);
    if (!v || (json_is_boolean(v) && !strncmp(key, "exclusive", 9))) return true;
    if (!json_is_number(v)) return schema_refuse(c, VLM_INVALID, node, key, "a number was expected");
    if (!schema_decimal(v, out)) return schema_refuse(c, VLM_UNSUPPORTED, node, key, "the number has too many digits");
    return true;
}

static bool merge_numbers(schema_c *c, const json_t *node, schema_range *r)
{
    schema_decimal_t v;
    bool there;
    bool low_open = json_is_true(json_object_get(node, "exclusiveMinimum")), high_open = json_is_true(json_object_get(node, "exclusiveMaximum"));
    if (!read_number(c, node, "minimum", &v, &there)) return false;
    if (there) schema_range_min(r, &v, low_open);
    if (!read_number(c, node, "exclusiveMinimum", &v, &there)) return false;
    if (there) schema_range_min(r, &v, true);
    if (!read_number(c, node, "maximum", &v, &there)) return false;
    if (there) schema_range_max(r, &v, high_open);
    if (!read_number(c, node, "exclusiveMaximum", &v, &there)) return false;
    if (there) schema_range_max(r, &v, true);
    if (!read_number(c, node, "multipleOf", &v, &there)) return false;
    if (there && (v.negative || !(v.whole + v.fraction))) return schema_refuse(c, VLM_INVALID, node, "multipleOf", "a number above 0 was expected");
    if (there && !schema_range_multiple(r, &v))
        return schema_refuse(c, VLM_UNSUPPORTED, node, "multipleOf", "only numbers of few digits can be enforced (up to 20000, as a whole number of the last place)");
    return true;
}

static bool merge_array(schema_c *c, const json_t *node, schema_merged *m)
{
    if (!merge_counts(c, node, "minItems", "maxItems", &m->min_items, &m->max_items)) return false;
    return true;
}

/* What an array schema says that a grammar cannot keep; asked when the bounds are known. */
static bool check_array(schema_c *c, const json_t *node, const schema_merged *m)
{
    if (json_is_true(json_object_get(node, "uniqueItems")) && m->max_items > 1)
        return schema_refuse(c, VLM_UNSUPPORTED, node, "uniqueItems", "that items differ cannot be enforced");
    const json_t *contains = json_object_get(node, "contains"), *least = json_object_get(node, "minContains");
    bool trivial = json_is_true(contains) && (!least || json_number_value(least) <= 1) && !json_object_get(node, "maxContains") && m->min_items >= 1;
    bool nothing = least && json_number_value(least) == 0 && !json_object_get(node, "maxContains");
    if (contains && !trivial && !nothing) return schema_refuse(c, VLM_UNSUPPORTED, node, "contains", "that some item is of a kind cannot be enforced");
    return true;
}

/* Excluded constants: strings are taken out of the strings, null, true and false out of the types; others must not be in reach. */
static bool merge_negated(schema_c *c, const json_t *node, schema_merged *m)
{
    const json_t *pattern = json_object_get(node, "pattern");
    if (pattern && !json_object_get(node, "enum") && !json_object_get(node, "const")) {
        m->types &= TYPE_STRING;                       /* what is no string matches every pattern */
        m->plain_string = false;
        return true;
    }
    const json_t *one = json_object_get(node, "const"), *list = json_object_get(node, "enum");
    size_t n = one ? 1 : json_array_size(list);
    for (size_t i = 0; i < n; i++) {
        const json_t *v = one ? one : json_array_get(list, i);
        if (json_is_null(v)) m->types &= ~(unsigned)TYPE_NULL;
        else if (json_is_string(v)) m->plain_string = false;
        else if (!m->values && ((json_is_number(v) && (m->types & TYPE_NUMBER)) || (json_is_array(v) && (m->types & TYPE_ARRAY)) ||
                 (json_is_object(v) && (m->types & TYPE_OBJECT)) || (json_is_boolean(v) && (m->types & TYPE_BOOLEAN))))
            return schema_refuse(c, VLM_UNSUPPORTED, node, NULL, "only strings and null can be excluded here");
    }
    return true;
}

static bool values_first(schema_c *c, const schema_view *v, schema_merged *m)
{
    for (uint32_t i = 0; i < v->count; i++) {
        const json_t *node = v->atom[i].node;
        if (v->atom[i].negated) continue;
        const json_t *list = json_object_get(node, "enum");
        if (list && !json_is_array(list)) return schema_refuse(c, VLM_INVALID, node, "enum", "a list of values was expected");
        if (json_object_get(node, "const")) m->values = node;
        else if (list && !m->values) m->values = node;
    }
    return true;
}

bool schema_merge(schema_c *c, const schema_view *v, schema_merged *m)
{
    *m = (schema_merged){.types = v->types, .max_length = UINT64_MAX, .max_items = UINT64_MAX, .max_properties = UINT64_MAX, .plain_string = true};
    if (!values_first(c, v, m)) return false;
    for (uint32_t i = 0; i < v->count; i++)
        if (v->atom[i].negated && !merge_negated(c, v->atom[i].node, m)) return false;
    if (m->values) return true;                        /* the values are tried one by one */
    for (uint32_t i = 0; i < v->count; i++) {
        const json_t *node = v->atom[i].node;
        if (v->atom[i].negated) continue;
        if ((m->types & TYPE_NUMBER) && !merge_numbers(c, node, &m->range)) return false;
        if (m->types & TYPE_STRING) {
            if (!merge_counts(c, node, "minLength", "maxLength", &m->min_length, &m->max_length)) return false;
            if (json_object_get(node, "pattern") || json_object_get(node, "format")) m->plain_string = false;
        }
        if ((m->types & TYPE_ARRAY) && !merge_array(c, node, m)) return false;
        if ((m->types & TYPE_OBJECT) && !merge_counts(c, node, "minProperties", "maxProperties", &m->min_properties, &m->max_properties)) return false;
    }
    for (uint32_t i = 0; i < v->count; i++)
        if (!v->atom[i].negated && (m->types & TYPE_ARRAY) && !check_array(c, v->atom[i].node, m)) return false;
    return true;
}
