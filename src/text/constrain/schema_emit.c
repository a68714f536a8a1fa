/* schema_emit.c - JSON schema to grammar: the rules of all sets that occur, constants, strings, numbers, any value. See constrain/schema_internal.h. */
#include <string.h>

#include "text/constrain/schema_internal.h"

enum { EMIT_MAX_RULES = 100000 };

bool schema_ok(schema_c *c)
{
    const vlm_error *e = grammar_builder_error(c->b);
    if (c->failed) return false;
    if (!e) return true;
    if (c->error) *c->error = *e;
    c->failed = true;
    return false;
}

/* ---- values of a view ---- */
static grammar_expr number_expr(schema_c *c, const schema_view *v, const schema_merged *m)
{
    bool integer = !(m->types & TYPE_FRACTION);
    if (!(m->types & TYPE_INTEGER)) return schema_refuse(c, VLM_UNSUPPORTED, v->atom[0].node, NULL, "numbers that are not whole cannot be told from others");
    if (!m->range.has_min && !m->range.has_max && !m->range.divisor) return schema_number(c, integer);
    dfa d;
    vlm_error error = {0};
    if (!schema_number_dfa(&m->range, integer, &d, &error)) return schema_refuse(c, error.code, v->atom[0].node, NULL, "%s", error.message);
    grammar_expr made = d.states ? schema_dfa_expr(c, &d) : grammar_none(c->b);
    dfa_free(&d);
    return made;
}

static grammar_expr string_expr(schema_c *c, const schema_view *v, const schema_merged *m)
{
    if (m->plain_string) {
        bool bounded = m->max_length != UINT64_MAX;
        if (!bounded && !m->min_length) return schema_any_string(c);
        if (m->min_length > m->max_length || m->min_length >= UINT32_MAX) return grammar_none(c->b);
        return grammar_outline(c->b, schema_bounded_string(c, (uint32_t)m->min_length, bounded && m->max_length <= INT32_MAX ? (int64_t)m->max_length : -1));
    }
    lang a = schema_string_lang(c, v, m);
    if (!a) return 0;
    if (a == lang_any(c->lang)) return schema_any_string(c);
    return grammar_outline(c->b, schema_lang_string(c, a, v->atom[0].node));
}

/* Does a member of enum or const satisfy everything else that the view says? */
static int value_fits(schema_c *c, const schema_view *v, const schema_merged *m, const json_t *value)
{
    int ok = 1;
    c->trusted = m->values;
    for (uint32_t k = 0; k < v->count && ok == 1; k++) {
        const schema_atom *a = &v->atom[k];
        if (a->node == m->values && schema_only_has(a->node, json_object_get(a->node, "const") ? "const" : "enum")) continue;
        ok = schema_value_ok(c, a->node, value, 0);
        if (a->negated && ok >= 0) ok = !ok;
    }
    c->trusted = NULL;
    return ok;
}

static grammar_expr values_expr(schema_c *c, const schema_view *v, const schema_merged *m)
{
    const json_t *one = json_object_get(m->values, "const"), *list = json_object_get(m->values, "enum");
    size_t n = one ? 1 : json_array_size(list), count = 0;
    const json_t **value = MEM_ARRAY(n + 1, const json_t *);
    if (!value) return schema_memory(c);
    int fits = 1;
    for (size_t i = 0; i < n && fits >= 0; i++) {
        const json_t *candidate = one ? one : json_array_get(list, i);
        fits = value_fits(c, v, m, candidate);
        if (c->notation == SCHEMA_RAW && !json_is_string(candidate)) continue;
        if (fits > 0) value[count++] = candidate;
    }
    grammar_expr made = fits >= 0 ? schema_constants(c, value, count) : 0;
    mem_free(value);
    return made;
}

typedef struct emitted { grammar_expr *item; size_t count, capacity; } emitted;

static bool emit_add(schema_c *c, emitted *e, grammar_expr x)
{
    if (!x) return schema_ok(c) && schema_memory(c);
    if (e->count == e->capacity) {
        size_t n = e->capacity ? e->capacity * 2 : 8;
        grammar_expr *item = mem_resize(e->item, n, sizeof *item);
        if (!item) return schema_memory(c);
        e->item = item;
        e->capacity = n;
    }
    e->item[e->count++] = x;
    return true;
}

static bool emit_view(schema_c *c, const schema_view *v, void *user)
{
    emitted *e = user;
    schema_merged m;
    grammar_builder *b = c->b;
    if (!schema_merge(c, v, &m)) return false;
    if (m.values) return emit_add(c, e, values_expr(c, v, &m));
    if (c->notation == SCHEMA_RAW) m.types &= TYPE_STRING;
    if (c->notation == SCHEMA_TAGS || c->notation == SCHEMA_ARGUMENTS) m.types &= TYPE_OBJECT;
    if ((m.types & TYPE_NULL) && !emit_add(c, e, schema_word(c, "null"))) return false;
    if ((m.types & TYPE_BOOLEAN) && !emit_add(c, e, grammar_alt2(b, schema_word(c, "true"), schema_word(c, "false")))) return false;
    if ((m.types & TYPE_NUMBER) && !emit_add(c, e, number_expr(c, v, &m))) return false;
    if ((m.types & TYPE_STRING) && !emit_add(c, e, string_expr(c, v, &m))) return false;
    if ((m.types & TYPE_ARRAY) && !emit_add(c, e, schema_array(c, v, &m))) return false;
    if ((m.types & TYPE_OBJECT) && !emit_add(c, e, schema_object(c, v, &m))) return false;
    return true;
}

static bool emit_rule(schema_c *c, size_t index)
{
    schema_set set = c->rule[index].set;
    emitted e = {0};
    bool ok = true;
    c->notation = c->rule[index].notation;
    const json_t *node = set.count == 1 ? set.node[0] : NULL, *list = NULL;
    if (json_is_object(node) && schema_only_has(node, "anyOf")) list = json_object_get(node, "anyOf");
    if (json_is_object(node) && schema_only_has(node, "oneOf")) list = json_object_get(node, "oneOf");
    if (list) {                                        /* nothing but a choice: each branch is a rule of its own */
        if (!json_is_array(list) || !json_array_size(list)) ok = schema_refuse(c, VLM_INVALID, node, json_object_get(node, "anyOf") ? "anyOf" : "oneOf", "a list of schemas was expected");
        if (ok && list == json_object_get(node, "oneOf")) ok = schema_exclusive(c, node, list);
        for (size_t i = 0; i < json_array_size(list) && ok; i++) {
            const json_t *branch = json_array_get(list, i);
            ok = (json_is_object(branch) || json_is_boolean(branch)) || schema_refuse(c, VLM_INVALID, node, NULL, "a schema was expected: an object, true or false");
            if (ok) ok = emit_add(c, &e, schema_set_rule(c, &(schema_set){&branch, json_is_true(branch) ? 0 : 1}, c->notation));
        }
    } else {
        ok = schema_views(c, &set, emit_view, &e);
    }
    if (ok) grammar_define(c->b, c->rule[index].rule, grammar_alt(c->b, e.item, e.count));
    mem_free(e.item);
    return ok && schema_ok(c);
}

static grammar_expr schema_run(schema_c *c, const json_t *schema)
{
    c->notation = c->options.notation;
    if (json_is_boolean(schema)) return json_is_true(schema) ? schema_any_value(c) : grammar_none(c->b);
    if (!json_is_object(schema)) return err_set(c->error, VLM_INVALID, "$: a schema was expected: an object, true or false");
    if (!schema_doc_init(&c->doc, schema, c->error)) return 0;
    grammar_expr made = schema_set_rule(c, &(schema_set){&schema, 1}, c->options.notation);
    for (; made && c->done < c->count; c->done++) {
        if (c->count > EMIT_MAX_RULES) return schema_refuse(c, VLM_LIMIT, schema, NULL, "the schema needs more than %d rules", EMIT_MAX_RULES);
        if (!emit_rule(c, c->done)) return 0;
    }
    return made;
}

grammar_expr schema_expr(grammar_builder *b, const json_t *schema, const schema_options *options, vlm_error *error)
{
    vlm_error own = {0};
    schema_c c = {.b = b, .error = error ? error : &own};
    if (options) c.options = *options;
    c.lang = lang_pool_new(c.error);
    c.made = json_array();
    grammar_expr made = 0;
    if (c.lang && c.made) made = schema_run(&c, schema);
    else schema_memory(&c);
    if (made && !schema_ok(&c)) made = 0;
    if (!made && !c.failed && !c.error->code) schema_ok(&c);
    schema_doc_free(&c.doc);
    lang_pool_free(c.lang);
    json_decref(c.made);
    arena_free(&c.memory);
    mem_free(c.rule);
    mem_free(c.slot);
    mem_free(c.tested);
    return made;
}

grammar_expr schema_json_object(grammar_builder *b, const schema_options *options, vlm_error *error)
{
    json_t *schema = json_pack("{s:s}", "type", "object");
    grammar_expr made = schema ? schema_expr(b, schema, options, error) : err_memory(error, 0);
    json_decref(schema);
    return made;
}
