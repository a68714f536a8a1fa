/* schema_exclusive.c - can a value satisfy two branches of a oneOf? A grammar admits what satisfies one of them or more, so oneOf is taken only
 * when that is the same: every pair of branches is shown to have no common value (by types, constants, ranges, sets of strings, or a required
 * property for which that holds). What cannot be shown is refused. */
#include "text/constrain/schema_internal.h"

enum { TEST_MAX_DEPTH = 6, TEST_MAX_BRANCHES = 300 };

static bool is_empty(schema_c *c, const schema_set *set, int depth, bool *empty);

typedef struct test { bool empty; int depth; } test;

static bool object_empty(schema_c *c, const schema_view *v, const schema_merged *m, int depth, bool *empty)
{
    if (m->min_properties > m->max_properties) return *empty = true;
    for (uint32_t i = 0; i < v->count; i++) {
        const json_t *list = v->atom[i].negated ? NULL : json_object_get(v->atom[i].node, "required");
        for (size_t k = 0; k < json_array_size(list); k++) {
            const char *name = json_string_value(json_array_get(list, k));
            schema_set set = {0};
            uint32_t capacity = 0;
            for (uint32_t a = 0; name && a < v->count; a++) {
                const json_t *node = v->atom[a].node, *own = json_object_get(json_object_get(node, "properties"), name);
                if (v->atom[a].negated) continue;
                if (!own && !json_object_get(node, "patternProperties")) own = json_object_get(node, "additionalProperties");
                if (own && !schema_set_add(c, &set, &capacity, own)) return false;
            }
            if (set.count && !is_empty(c, &set, depth + 1, empty)) return false;
            if (set.count && *empty) return true;
        }
    }
    *empty = false;
    return true;
}

static bool array_empty(schema_c *c, const schema_view *v, const schema_merged *m, int depth, bool *empty)
{
    if (m->min_items > m->max_items) return *empty = true;
    for (uint64_t i = 0; i < m->min_items && i < 16; i++) {
        schema_set set = {0};
        uint32_t capacity = 0;
        for (uint32_t a = 0; a < v->count; a++) {
            const json_t *items = json_object_get(v->atom[a].node, "items"), *prefix = json_object_get(v->atom[a].node, "prefixItems");
            if (v->atom[a].negated) continue;
            if (json_is_array(items)) prefix = items, items = NULL;
            const json_t *one = i < json_array_size(prefix) ? json_array_get(prefix, (size_t)i) : items;
            if (one && !schema_set_add(c, &set, &capacity, one)) return false;
        }
        if (set.count && !is_empty(c, &set, depth + 1, empty)) return false;
        if (set.count && *empty) return true;
    }
    *empty = false;
    return true;
}

static bool number_empty(schema_c *c, const schema_merged *m, bool *empty)
{
    dfa d;
    if (!schema_number_dfa(&m->range, !(m->types & TYPE_FRACTION), &d, c->error)) return !(c->failed = true);
    *empty = d.states == 0;
    dfa_free(&d);
    return true;
}

static bool test_view(schema_c *c, const schema_view *v, void *user)
{
    test *t = user;
    schema_merged m;
    bool empty = false;
    if (!t->empty) return true;                        /* a value was found already */
    if (!schema_merge(c, v, &m)) return false;
    if (m.values) {
        const json_t *one = json_object_get(m.values, "const"), *list = json_object_get(m.values, "enum");
        for (size_t i = 0; i < (one ? 1 : json_array_size(list)); i++) {
            int ok = 1;
            for (uint32_t k = 0; k < v->count && ok == 1; k++) {
                ok = schema_value_ok(c, v->atom[k].node, one ? one : json_array_get(list, i), 0);
                if (v->atom[k].negated && ok >= 0) ok = !ok;
            }
            if (ok < 0) return false;
            if (ok) t->empty = false;
        }
        return true;
    }
    if (m.types & (TYPE_NULL | TYPE_BOOLEAN)) t->empty = false;
    if (t->empty && (m.types & TYPE_NUMBER)) {
        if (!number_empty(c, &m, &empty)) return false;
        t->empty = empty;
    }
    if (t->empty && (m.types & TYPE_STRING)) {
        lang a = schema_string_lang(c, v, &m);
        if (!a) return false;
        t->empty = lang_is_fail(c->lang, a) == 1;
    }
    if (t->empty && (m.types & TYPE_ARRAY)) {
        if (!array_empty(c, v, &m, t->depth, &empty)) return false;
        t->empty = empty;
    }
    if (t->empty && (m.types & TYPE_OBJECT)) {
        if (!object_empty(c, v, &m, t->depth, &empty)) return false;
        t->empty = empty;
    }
    return true;
}

static bool is_empty(schema_c *c, const schema_set *set, int depth, bool *empty)
{
    *empty = false;
    if (depth > TEST_MAX_DEPTH || !set->count) return true;
    for (uint32_t i = 0; i < set->count; i++)
        if (json_is_false(set->node[i])) return *empty = true;
    test t = {true, depth};
    if (!schema_views(c, set, test_view, &t)) return false;
    *empty = t.empty;
    return true;
}

/* An error within the test means "not shown", nothing more: what is wrong is found again when the rule is made. */
static bool shown_exclusive(schema_c *c, const json_t *a, const json_t *b, const json_t *besides)
{
    vlm_error own = {0}, *before = c->error;
    bool failed = c->failed, empty = false;
    c->error = &own;
    schema_set set = {0};
    uint32_t capacity = 0;
    bool ok = schema_set_add(c, &set, &capacity, a) && schema_set_add(c, &set, &capacity, b) && schema_set_add(c, &set, &capacity, besides) && is_empty(c, &set, 0, &empty);
    c->error = before;
    c->failed = failed;
    return ok && empty;
}

bool schema_exclusive(schema_c *c, const json_t *node, const json_t *list)
{
    size_t n = json_array_size(list);
    if (c->testing || c->options.one_of_any || n < 2) return true;
    for (size_t i = 0; i < c->tested_count; i++)
        if (c->tested[i] == list) return true;
    if (n > TEST_MAX_BRANCHES) return schema_refuse(c, VLM_LIMIT, node, "oneOf", "more than %d branches", TEST_MAX_BRANCHES);
    json_t *besides = json_copy((json_t *)node);       /* what else must hold, such as the type */
    if (!besides || json_array_append_new(c->made, besides)) return schema_memory(c);
    json_object_del(besides, "oneOf");
    json_object_del(besides, "$id");
    if (!schema_doc_add(&c->doc, besides, node, "oneOf", 0, c->error)) return !(c->failed = true);
    c->testing++;
    bool ok = true;
    for (size_t i = 0; i < n && ok; i++) {
        for (size_t k = 0; k < i && ok; k++) {
            ok = shown_exclusive(c, json_array_get(list, i), json_array_get(list, k), besides);
            if (!ok) schema_refuse(c, VLM_UNSUPPORTED, node, "oneOf", "branches %zu and %zu may both hold for one value; use anyOf if that is meant", k, i);
        }
    }
    c->testing--;
    if (!ok) return false;
    const json_t **tested = mem_resize(c->tested, c->tested_count + 1, sizeof *tested);
    if (!tested) return schema_memory(c);
    c->tested = tested;
    c->tested[c->tested_count++] = list;
    return true;
}
