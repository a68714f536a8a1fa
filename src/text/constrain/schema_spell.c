/* schema_spell.c - how values are written: in JSON, as Python literals, as pairs with bare keys, raw. c->notation decides. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/constrain/schema_internal.h"
#include "text/utf8.h"

enum { SPELL_MAX_VALUE_DEPTH = 100 };

static bool is_python(const schema_c *c) { return c->notation == SCHEMA_PYTHON || c->notation == SCHEMA_ARGUMENTS; }
static bool is_bare(const schema_c *c) { return c->notation == SCHEMA_PAIRS || c->notation == SCHEMA_TAGS; }

static grammar_expr pattern(schema_c *c, const char *text) { return grammar_regex(c->b, text, strlen(text), GRAMMAR_DOTALL); }

/* ---- between the parts ---- */
grammar_expr schema_space(schema_c *c)
{
    grammar_expr *e = &c->shared[c->notation].space;
    if (*e) return *e;
    const char *text = c->notation == SCHEMA_JSON ? (c->options.space ? c->options.space : SCHEMA_SPACE) : "";
    return *e = grammar_outline(c->b, pattern(c, text));
}

grammar_expr schema_colon(schema_c *c)
{
    grammar_expr space = schema_space(c);
    if (c->notation == SCHEMA_ARGUMENTS) return grammar_text(c->b, "=");
    if (is_python(c)) return pattern(c, ": ?");
    return grammar_outline(c->b, grammar_seq(c->b, (grammar_expr[]){space, grammar_text(c->b, ":"), space}, 3));
}

grammar_expr schema_comma(schema_c *c)
{
    if (is_python(c)) return pattern(c, ", ?");
    if (c->notation == SCHEMA_TAGS) return c->options.tags->text(c->options.tags->user, SCHEMA_TAG_BETWEEN, NULL, NULL);
    return grammar_outline(c->b, grammar_seq2(c->b, grammar_text(c->b, ","), schema_space(c)));
}

/* ---- words and numbers ---- */
grammar_expr schema_word(schema_c *c, const char *json)
{
    grammar_expr plain = grammar_text(c->b, json);
    if (!is_python(c)) return plain;
    const char *python = *json == 'n' ? "None" : *json == 't' ? "True" : "False";
    return grammar_alt2(c->b, plain, grammar_text(c->b, python));
}

grammar_expr schema_number(schema_c *c, bool integer)
{
    grammar_expr *e = integer ? &c->shared[c->notation].integer : &c->shared[c->notation].number;
    if (!*e) *e = grammar_outline(c->b, pattern(c, integer ? "-?(0|[1-9][0-9]*)" : "-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?"));
    return *e;
}

grammar_expr schema_dfa_expr(schema_c *c, const dfa *d)
{
    if (!d->states) return grammar_none(c->b);
    grammar_dfa_edge *edge = MEM_ARRAY(d->edges + 1, grammar_dfa_edge);
    if (!edge) return schema_memory(c);
    for (size_t i = 0; i < d->edges; i++)
        edge[i] = (grammar_dfa_edge){d->edge[i].from, (uint8_t)d->edge[i].low, (uint8_t)d->edge[i].high, d->edge[i].to};
    grammar_expr made = grammar_dfa(c->b, edge, d->edges, d->accept, d->states);
    mem_free(edge);
    return made;
}

/* ---- strings ---- */
#define ESCAPES(own) "\\\\([" own "\\\\bfnrt]|u([0-9A-CE-Fa-ce-f][0-9A-Fa-f]{3}|[Dd][0-7][0-9A-Fa-f]{2}|[Dd][89ABab][0-9A-Fa-f]{2}\\\\u[Dd][C-Fc-f][0-9A-Fa-f]{2}))"

static grammar_expr without(schema_c *c, const char *const *text)
{
    grammar_literal list[32];
    size_t n = 0;
    for (; text && text[n] && n < 32; n++) list[n] = (grammar_literal){text[n], strlen(text[n])};
    return grammar_without(c->b, list, n);
}

/* JSON within a tag must not hold what ends the tag, not even in a string. */
static grammar_expr between(schema_c *c, const char *quote, grammar_expr inside)
{
    if (c->options.tags) inside = grammar_and(c->b, inside, without(c, c->options.tags->forbidden));
    return grammar_seq(c->b, (grammar_expr[]){grammar_text(c->b, quote), inside, grammar_text(c->b, quote)}, 3);
}

/* Text that stands for itself, without what would end it. */
static grammar_expr bare_text(schema_c *c, grammar_expr text)
{
    grammar_builder *b = c->b;
    if (c->notation == SCHEMA_PAIRS) {
        const char *quote[] = {c->options.pairs_quote, NULL};
        grammar_expr free = grammar_and(b, without(c, quote), pattern(c, "[^\\x00]*"));
        return grammar_seq(b, (grammar_expr[]){c->options.pairs_quote_expr, text ? grammar_and(b, text, free) : free, c->options.pairs_quote_expr}, 3);
    }
    const schema_tags *tags = c->options.tags;
    grammar_expr free = grammar_and(b, without(c, tags ? tags->forbidden : NULL), pattern(c, "[^\\x00]*"));
    /* "null" alone is read as null by some */
    free = grammar_and(b, free, grammar_not(b, pattern(c, "\\s*null\\s*")));
    if (tags && tags->trimmed) free = grammar_and(b, free, pattern(c, "|\\S|\\S.*\\S"));
    return text ? grammar_and(b, text, free) : free;
}

grammar_expr schema_any_string(schema_c *c)
{
    grammar_expr *e = &c->shared[c->notation].string;
    if (*e) return *e;
    if (is_python(c)) *e = grammar_alt2(c->b, between(c, "\"", pattern(c, "([^\"\\\\\\x00-\\x1f]|" ESCAPES("\"") ")*")), between(c, "'", pattern(c, "([^'\\\\\\x00-\\x1f]|" ESCAPES("'") ")*")));
    else if (c->notation == SCHEMA_JSON) *e = between(c, "\"", pattern(c, "([^\"\\\\\\x00-\\x1f]|" ESCAPES("\"/") ")*"));
    else *e = bare_text(c, 0);
    return *e = grammar_outline(c->b, *e);
}

/* A string whose length is bounded. */
grammar_expr schema_bounded_string(schema_c *c, uint32_t least, int64_t most)
{
    grammar_builder *b = c->b;
    if (is_python(c))
        return grammar_alt2(b, between(c, "\"", grammar_repeat(b, pattern(c, "[^\"\\\\\\x00-\\x1f]|" ESCAPES("\"")), least, most)),
                            between(c, "'", grammar_repeat(b, pattern(c, "[^'\\\\\\x00-\\x1f]|" ESCAPES("'")), least, most)));
    if (c->notation == SCHEMA_JSON) return between(c, "\"", grammar_repeat(b, pattern(c, "[^\"\\\\\\x00-\\x1f]|" ESCAPES("\"/")), least, most));
    return bare_text(c, grammar_repeat(b, grammar_any(b), least, most));
}

grammar_expr schema_lang_expr(schema_c *c, lang a, lang_form form, const json_t *node)
{
    dfa d;
    vlm_error error = {0};
    bool plain = false;
    grammar_expr made = a ? lang_expr(c->lang, a, form, c->b, &plain) : 0;
    if (!a || plain) return made;
    if (!lang_dfa(c->lang, a, form, &d, &error)) return schema_refuse(c, error.code, node, NULL, "%s", error.message);
    made = schema_dfa_expr(c, &d);
    dfa_free(&d);
    return made;
}

grammar_expr schema_lang_string(schema_c *c, lang a, const json_t *node)
{
    if (c->notation == SCHEMA_JSON) {
        grammar_expr inside = schema_lang_expr(c, a, LANG_JSON, node);
        return inside ? between(c, "\"", inside) : 0;
    }
    if (is_python(c)) {
        grammar_expr one = schema_lang_expr(c, a, LANG_DOUBLE, node), other = schema_lang_expr(c, a, LANG_SINGLE, node);
        return one && other ? grammar_alt2(c->b, between(c, "\"", one), between(c, "'", other)) : 0;
    }
    grammar_expr text = schema_lang_expr(c, a, LANG_UTF8, node);
    return text ? bare_text(c, text) : 0;
}

/* A string within quotes, spelled with as few escapes as may be. Characters beyond ASCII may also be written as \uXXXX, control characters in either way. */
static grammar_expr quoted(schema_c *c, const char *text, size_t size, char quote)
{
    static const char shorts[] = "\bb\ff\nn\rr\tt";
    grammar_builder *b = c->b;
    buf plain = {0};
    grammar_expr made = grammar_empty(b);
    buf_addc(&plain, quote);
    for (size_t i = 0; i < size && made;) {
        uint32_t code;
        size_t n = utf8_next_lossy(text + i, size - i, &code);
        if (code >= 0x20 && code < 0x7F) {
            if (code == (unsigned char)quote || code == '\\') buf_addc(&plain, '\\');
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
    buf_addc(&plain, quote);
    made = grammar_seq2(b, made, grammar_bytes(b, plain.data ? plain.data : "", plain.size));
    if (plain.failed) made = schema_memory(c);
    buf_free(&plain);
    return made;
}

grammar_expr schema_literal(schema_c *c, const char *text, size_t size)
{
    if (c->notation == SCHEMA_JSON) {
        grammar_expr made = quoted(c, text, size, '"');
        for (const char *const *w = c->options.tags ? c->options.tags->forbidden : NULL; w && *w; w++)
            if (bytes_find(text, size, 0, *w, strlen(*w)) != SIZE_MAX) return grammar_and(c->b, made, without(c, c->options.tags->forbidden));
        return made;
    }
    if (is_python(c)) return grammar_alt2(c->b, quoted(c, text, size, '"'), quoted(c, text, size, '\''));
    return bare_text(c, grammar_bytes(c->b, text, size));
}

/* ---- keys ---- */
static const char *key_pattern(const schema_c *c)
{
    return c->notation == SCHEMA_ARGUMENTS ? "[A-Za-z_][A-Za-z0-9_]{0,63}" : "[A-Za-z_][A-Za-z0-9_.$-]{0,63}";
}

grammar_expr schema_key(schema_c *c, const char *text, size_t size)
{
    if (!is_bare(c) && c->notation != SCHEMA_ARGUMENTS) return schema_literal(c, text, size);
    /* a declared name may have more characters than others, but none that mean something */
    static const char special[] = "{}[],\"'<>=:/\\&";
    bool ok = size > 0 && text[0] != ' ' && text[size - 1] != ' ';
    for (size_t i = 0; i < size && ok; i++) ok = (unsigned char)text[i] >= 0x20 && !strchr(special, text[i]);
    lang name = c->notation == SCHEMA_ARGUMENTS ? lang_regex(c->lang, key_pattern(c), strlen(key_pattern(c)), false, NULL) : LANG_NONE;
    if (name && !lang_matches(c->lang, name, text, size)) ok = false;
    return ok ? grammar_bytes(c->b, text, size) : grammar_none(c->b);
}

grammar_expr schema_key_lang(schema_c *c, lang a, const json_t *node)
{
    if (!is_bare(c) && c->notation != SCHEMA_ARGUMENTS) return a == lang_any(c->lang) ? schema_any_string(c) : schema_lang_string(c, a, node);
    return schema_lang_expr(c, lang_and(c->lang, a, lang_regex(c->lang, key_pattern(c), strlen(key_pattern(c)), false, NULL)), LANG_UTF8, node);
}

/* ---- constants ---- */
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
    return grammar_seq2(c->b, as_is, grammar_optional(c->b, grammar_text(c->b, ".0")));    /* 1.0 in the schema: 1 and 1.0 */
}

static grammar_expr constant(schema_c *c, const json_t *value, int depth)
{
    grammar_builder *b = c->b;
    if (depth > SPELL_MAX_VALUE_DEPTH) return schema_refuse(c, VLM_LIMIT, c->doc.root, NULL, "a constant is nested more than %d deep", SPELL_MAX_VALUE_DEPTH);
    switch (json_typeof(value)) {
    case JSON_NULL: return schema_word(c, "null");
    case JSON_TRUE: return schema_word(c, "true");
    case JSON_FALSE: return schema_word(c, "false");
    case JSON_STRING: return schema_literal(c, json_string_value(value), json_string_length(value));
    case JSON_INTEGER: case JSON_REAL: return number_constant(c, value);
    default: break;
    }
    grammar_expr space = schema_space(c), made = grammar_seq2(b, grammar_text(b, json_is_array(value) ? "[" : "{"), space);
    grammar_expr comma = schema_comma(c), colon = schema_colon(c);
    bool first = true;
    if (json_is_array(value)) {
        for (size_t i = 0; i < json_array_size(value) && made; i++, first = false)
            made = grammar_seq(b, (grammar_expr[]){made, first ? grammar_empty(b) : comma, constant(c, json_array_get(value, i), depth + 1), space}, 4);
        return grammar_seq2(b, made, grammar_text(b, "]"));
    }
    const char *k;
    json_t *v;
    json_object_foreach((json_t *)value, k, v) {
        made = grammar_seq(b, (grammar_expr[]){made, first ? grammar_empty(b) : comma, schema_key(c, k, strlen(k)), colon, constant(c, v, depth + 1), space}, 6);
        first = false;
    }
    return grammar_seq2(b, made, grammar_text(b, "}"));
}

grammar_expr schema_constant(schema_c *c, const json_t *value) { return constant(c, value, 0); }

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

grammar_expr schema_constants(schema_c *c, const json_t *const *value, size_t n)
{
    grammar_expr *made = MEM_ARRAY(n + 1, grammar_expr), all = 0;
    grammar_literal *literal = MEM_ARRAY(n + 1, grammar_literal);
    size_t count = 0, literals = 0;
    bool ok = made && literal;
    if (!ok) schema_memory(c);
    for (size_t i = 0; i < n && ok; i++) {
        size_t size;
        char *text = json_is_string(value[i]) && c->notation == SCHEMA_JSON && !c->options.tags ? plain_literal(value[i], &size) : NULL;
        if (text) literal[literals++] = (grammar_literal){text, size};
        else ok = (made[count++] = schema_constant(c, value[i])) != 0;
    }
    if (ok && literals) made[count++] = grammar_one_of(c->b, literal, literals);
    if (ok) all = grammar_alt(c->b, made, count);
    for (size_t i = 0; i < literals; i++) mem_free((char *)literal[i].text);
    mem_free(literal);
    mem_free(made);
    return all;
}

/* ---- any value ---- */
grammar_expr schema_any_value(schema_c *c)
{
    grammar_builder *b = c->b;
    if (c->notation == SCHEMA_RAW) return schema_any_string(c);
    grammar_expr *any = &c->shared[c->notation].any;
    if (*any) return *any;
    *any = grammar_rule(b, NULL);
    grammar_expr self = *any, space = schema_space(c), comma = schema_comma(c);
    grammar_expr member = grammar_seq(b, (grammar_expr[]){schema_key_lang(c, lang_any(c->lang), c->doc.root), schema_colon(c), self, space}, 4);
    grammar_expr item = grammar_seq2(b, self, space);
    grammar_expr members = grammar_seq2(b, member, grammar_repeat(b, grammar_seq2(b, comma, member), 0, -1));
    grammar_expr items = grammar_seq2(b, item, grammar_repeat(b, grammar_seq2(b, comma, item), 0, -1));
    grammar_expr object = grammar_seq(b, (grammar_expr[]){grammar_text(b, "{"), space, grammar_optional(b, members), grammar_text(b, "}")}, 4);
    grammar_expr array = grammar_seq(b, (grammar_expr[]){grammar_text(b, "["), space, grammar_optional(b, items), grammar_text(b, "]")}, 4);
    grammar_define(b, self, grammar_alt(b, (grammar_expr[]){object, array, schema_any_string(c), schema_number(c, false), schema_word(c, "true"),
                   schema_word(c, "false"), schema_word(c, "null")}, 7));
    return self;
}
