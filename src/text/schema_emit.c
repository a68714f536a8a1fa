/* schema_emit.c - JSON schema to grammar: the rules of all sets that occur, constants, strings, numbers, any value. See schema_internal.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/schema_internal.h"
#include "text/utf8.h"

enum { EMIT_MAX_RULES = 100000, EMIT_MAX_VALUE_DEPTH = 100 };

bool schema_ok(schema_c *c)
{
    const vlm_error *e = grammar_builder_error(c->b);
    if (c->failed) return false;
    if (!e) return true;
    if (c->error) *c->error = *e;
    c->failed = true;
    return false;
}

/* ---- tokens ---- */
grammar_expr schema_space(schema_c *c)
{
    if (c->space) return c->space;
    const char *pattern = c->options.space ? c->options.space : SCHEMA_SPACE;
    return c->space = grammar_outline(c->b, grammar_regex(c->b, pattern, strlen(pattern), 0));
}

static const char any_char[] = "[^\"\\\\\\x00-\\x1f]|\\\\([\"\\\\/bfnrt]|u([0-9A-CE-Fa-ce-f][0-9A-Fa-f]{3}|[Dd][0-7][0-9A-Fa-f]{2}|"
                               "[Dd][89ABab][0-9A-Fa-f]{2}\\\\u[Dd][C-Fc-f][0-9A-Fa-f]{2}))";

grammar_expr schema_any_string(schema_c *c)
{
    if (c->string) return c->string;
    grammar_builder *b = c->b;
    grammar_expr chars = grammar_repeat(b, grammar_regex(b, any_char, strlen(any_char), 0), 0, -1);
    return c->string = grammar_outline(b, grammar_seq(b, (grammar_expr[]){grammar_text(b, "\""), chars, grammar_text(b, "\"")}, 3));
}

static grammar_expr any_number(schema_c *c, bool integer)
{
    grammar_expr *e = integer ? &c->integer : &c->number;
    const char *pattern = integer ? "-?(0|[1-9][0-9]*)" : "-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?";
    if (!*e) *e = grammar_outline(c->b, grammar_regex(c->b, pattern, strlen(pattern), 0));
    return *e;
}

/* A string as text with its quotes. Characters beyond ASCII may also be written as \uXXXX, control characters in either way. */
grammar_expr schema_literal(schema_c *c, const char *text, size_t size)
{
    static const char shorts[] = "\bb\ff\nn\rr\tt";
    grammar_builder *b = c->b;
    buf plain = {0};
    grammar_expr made = grammar_empty(b);
    buf_addc(&plain, '"');
    for (size_t i = 0; i < size && made;) {
        uint32_t code;
        size_t n = utf8_next_lossy(text + i, size - i, &code);
        if (code >= 0x20 && code < 0x7F) {
            if (code == '"' || code == '\\') buf_addc(&plain, '\\');
            buf_addc(&plain, (char)code);
            i += n;
            continue;
        }
        made = grammar_seq2(b, made, grammar_bytes(b, plain.data ? plain.data : "", plain.size));
        buf_clear(&plain);
        char escape[16];
        if (code < 0x10000) snprintf(escape, sizeof escape, "\\u%04x", code);
        else snprintf(escape, sizeof escape, "\\u%04x\\u%04x", 0xD800 + ((code - 0x10000) >> 10), 0xDC00 + ((code - 0x10000) & 0x3FF));
        /* u stays small, digits may be of either case */
        grammar_expr one = grammar_seq2(b, grammar_text(b, "\\u"), grammar_text_icase(b, escape + 2, 4));
        if (code >= 0x10000) one = grammar_seq(b, (grammar_expr[]){one, grammar_text(b, "\\u"), grammar_text_icase(b, escape + 8, 4)}, 3);
        const char *name = code < 0x20 && code ? strchr(shorts, (int)code) : NULL;
        if (name && (name - shorts) % 2 == 0) one = grammar_alt2(b, one, grammar_bytes(b, (char[]){'\\', name[1]}, 2));
        if (code >= 0x7F) one = grammar_alt2(b, one, grammar_bytes(b, text + i, n));
        made = grammar_seq2(b, made, one);
        i += n;
    }
    buf_addc(&plain, '"');
    made = grammar_seq2(b, made, grammar_bytes(b, plain.data ? plain.data : "", plain.size));
    if (plain.failed) made = schema_memory(c);
    buf_free(&plain);
    return made;
}

static grammar_expr number_constant(schema_c *c, const json_t *value)
{
    char text[64];
    if (json_is_integer(value)) {
        snprintf(text, sizeof text, "%lld", (long long)json_integer_value(value));
        return grammar_text(c->b, text);
    }
    double v = json_real_value(value);
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v) break;
    }
    grammar_expr as_is = grammar_text(c->b, text);
    if (strpbrk(text, ".e")) return as_is;
    strcat(text, ".0");                                /* 1.0 in the schema: 1 and 1.0 */
    return grammar_alt2(c->b, as_is, grammar_text(c->b, text));
}

static grammar_expr constant(schema_c *c, const json_t *value, int depth)
{
    grammar_builder *b = c->b;
    if (depth > EMIT_MAX_VALUE_DEPTH) return schema_refuse(c, VLM_LIMIT, c->doc.root, NULL, "a constant is nested more than %d deep", EMIT_MAX_VALUE_DEPTH);
    switch (json_typeof(value)) {
    case JSON_NULL: return grammar_text(b, "null");
    case JSON_TRUE: return grammar_text(b, "true");
    case JSON_FALSE: return grammar_text(b, "false");
    case JSON_STRING: return schema_literal(c, json_string_value(value), json_string_length(value));
    case JSON_INTEGER: case JSON_REAL: return number_constant(c, value);
    default: break;
    }
    grammar_expr space = schema_space(c), made = grammar_seq2(b, grammar_text(b, json_is_array(value) ? "[" : "{"), space);
    grammar_expr comma = grammar_seq2(b, grammar_text(b, ","), space), colon = grammar_seq(b, (grammar_expr[]){space, grammar_text(b, ":"), space}, 3);
    bool first = true;
    if (json_is_array(value)) {
        for (size_t i = 0; i < json_array_size(value) && made; i++, first = false)
            made = grammar_seq(b, (grammar_expr[]){made, first ? grammar_empty(b) : comma, constant(c, json_array_get(value, i), depth + 1), space}, 4);
        return grammar_seq2(b, made, grammar_text(b, "]"));
    }
    const char *k;
    json_t *v;
    json_object_foreach((json_t *)value, k, v) {
        made = grammar_seq(b, (grammar_expr[]){made, first ? grammar_empty(b) : comma, schema_literal(c, k, strlen(k)), colon, constant(c, v, depth + 1), space}, 6);
        first = false;
    }
    return grammar_seq2(b, made, grammar_text(b, "}"));
}

grammar_expr schema_constant(schema_c *c, const json_t *value) { return constant(c, value, 0); }

grammar_expr schema_any_value(schema_c *c)
{
    if (c->any) return c->any;
    grammar_builder *b = c->b;
    c->any = grammar_rule(b, NULL);
    grammar_expr space = schema_space(c), comma = grammar_seq2(b, grammar_text(b, ","), space);
    grammar_expr member = grammar_seq(b, (grammar_expr[]){schema_any_string(c), space, grammar_text(b, ":"), space, c->any, space}, 6);
    grammar_expr item = grammar_seq2(b, c->any, space);
    grammar_expr members = grammar_seq2(b, member, grammar_repeat(b, grammar_seq2(b, comma, member), 0, -1));
    grammar_expr items = grammar_seq2(b, item, grammar_repeat(b, grammar_seq2(b, comma, item), 0, -1));
    grammar_expr object = grammar_seq(b, (grammar_expr[]){grammar_text(b, "{"), space, grammar_optional(b, members), grammar_text(b, "}")}, 4);
    grammar_expr array = grammar_seq(b, (grammar_expr[]){grammar_text(b, "["), space, grammar_optional(b, items), grammar_text(b, "]")}, 4);
    grammar_define(b, c->any, grammar_alt(b, (grammar_expr[]){object, array, schema_any_string(c), any_number(c, false), grammar_text(b, "true"),
                   grammar_text(b, "false"), grammar_text(b, "null")}, 7));
    return c->any;
}

grammar_expr schema_dfa_expr(schema_c *c, const dfa *d)
{
    grammar_dfa_edge *edge = MEM_ARRAY(d->edges + 1, grammar_dfa_edge);
    if (!edge) return schema_memory(c);
    for (size_t i = 0; i < d->edges; i++)
        edge[i] = (grammar_dfa_edge){d->edge[i].from, (uint8_t)d->edge[i].low, (uint8_t)d->edge[i].high, d->edge[i].to};
    grammar_expr made = grammar_dfa(c->b, edge, d->edges, d->accept, d->states);
    mem_free(edge);
    return made;
}

/* ---- values of a view ---- */
static grammar_expr number_expr(schema_c *c, const schema_view *v, const schema_merged *m)
{
    bool integer = !(m->types & TYPE_FRACTION);
    if (!(m->types & TYPE_INTEGER)) return schema_refuse(c, VLM_UNSUPPORTED, v->atom[0].node, NULL, "numbers that are not whole cannot be told from others");
    if (!m->range.has_min && !m->range.has_max && !m->range.divisor) return any_number(c, integer);
    dfa d;
    vlm_error error = {0};
    if (!schema_number_dfa(&m->range, integer, &d, &error)) return schema_refuse(c, error.code, v->atom[0].node, NULL, "%s", error.message);
    grammar_expr made = d.states ? schema_dfa_expr(c, &d) : grammar_none(c->b);
    dfa_free(&d);
    return made;
}

static grammar_expr string_expr(schema_c *c, const schema_view *v, const schema_merged *m)
{
    grammar_builder *b = c->b;
    grammar_expr quote = grammar_text(b, "\""), inside;
    if (m->plain_string) {
        bool bounded = m->max_length != UINT64_MAX;
        if (!bounded && !m->min_length) return schema_any_string(c);
        if (m->min_length > m->max_length || m->min_length >= UINT32_MAX) return grammar_none(b);
        inside = grammar_repeat(b, grammar_regex(b, any_char, strlen(any_char), 0), (uint32_t)m->min_length,
                                bounded && m->max_length <= INT32_MAX ? (int64_t)m->max_length : -1);
    } else {
        lang a = schema_string_lang(c, v, m);
        if (!a) return 0;
        if (a == lang_any(c->lang)) return schema_any_string(c);
        inside = schema_lang_expr(c, a, v->atom[0].node);
    }
    return inside ? grammar_outline(b, grammar_seq(b, (grammar_expr[]){quote, inside, quote}, 3)) : 0;
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

/* A string that has one spelling only: as it stands in JSON, with its quotes. */
static char *plain_literal(const json_t *value, size_t *size)
{
    const char *text = json_string_value(value);
    size_t n = json_string_length(value);
    buf out = {0};
    buf_addc(&out, '"');
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)text[i] < 0x20 || (unsigned char)text[i] >= 0x7F) {
            buf_free(&out);
            return NULL;
        }
        if (text[i] == '"' || text[i] == '\\') buf_addc(&out, '\\');
        buf_addc(&out, text[i]);
    }
    buf_addc(&out, '"');
    *size = out.size;
    return buf_take(&out);
}

static grammar_expr values_expr(schema_c *c, const schema_view *v, const schema_merged *m)
{
    const json_t *one = json_object_get(m->values, "const"), *list = json_object_get(m->values, "enum");
    size_t n = one ? 1 : json_array_size(list), count = 0, literals = 0;
    grammar_expr *made = MEM_ARRAY(n + 1, grammar_expr), all = 0;
    grammar_literal *literal = MEM_ARRAY(n + 1, grammar_literal);
    bool ok = made && literal;
    if (!ok) schema_memory(c);
    for (size_t i = 0; i < n && ok; i++) {
        const json_t *value = one ? one : json_array_get(list, i);
        int fits = value_fits(c, v, m, value);
        ok = fits >= 0;
        if (fits <= 0) continue;
        size_t size;
        char *text = json_is_string(value) ? plain_literal(value, &size) : NULL;
        if (text) literal[literals++] = (grammar_literal){text, size};
        else ok = (made[count++] = schema_constant(c, value)) != 0;
    }
    if (ok && literals) made[count++] = grammar_one_of(c->b, literal, literals);
    if (ok) all = grammar_alt(c->b, made, count);
    for (size_t i = 0; i < literals; i++) mem_free((char *)literal[i].text);
    mem_free(literal);
    mem_free(made);
    return all;
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
    if ((m.types & TYPE_NULL) && !emit_add(c, e, grammar_text(b, "null"))) return false;
    if ((m.types & TYPE_BOOLEAN) && !emit_add(c, e, grammar_alt2(b, grammar_text(b, "true"), grammar_text(b, "false")))) return false;
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
    const json_t *node = set.count == 1 ? set.node[0] : NULL, *list = NULL;
    if (json_is_object(node) && schema_only_has(node, "anyOf")) list = json_object_get(node, "anyOf");
    if (json_is_object(node) && schema_only_has(node, "oneOf")) list = json_object_get(node, "oneOf");
    if (list) {                                        /* nothing but a choice: each branch is a rule of its own */
        if (!json_is_array(list) || !json_array_size(list)) ok = schema_refuse(c, VLM_INVALID, node, json_object_get(node, "anyOf") ? "anyOf" : "oneOf", "a list of schemas was expected");
        if (ok && list == json_object_get(node, "oneOf")) ok = schema_exclusive(c, node, list);
        for (size_t i = 0; i < json_array_size(list) && ok; i++) {
            const json_t *branch = json_array_get(list, i);
            ok = (json_is_object(branch) || json_is_boolean(branch)) || schema_refuse(c, VLM_INVALID, node, NULL, "a schema was expected: an object, true or false");
            if (ok) ok = emit_add(c, &e, schema_set_rule(c, &(schema_set){&branch, json_is_true(branch) ? 0 : 1}));
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
    if (json_is_boolean(schema)) return json_is_true(schema) ? schema_any_value(c) : grammar_none(c->b);
    if (!json_is_object(schema)) return err_set(c->error, VLM_INVALID, "$: a schema was expected: an object, true or false");
    if (!schema_doc_init(&c->doc, schema, c->error)) return 0;
    grammar_expr made = schema_set_rule(c, &(schema_set){&schema, 1});
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
