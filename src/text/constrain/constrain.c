/* constrain.c - response_format to grammar. */
#include <string.h>

#include "base/err.h"
#include "text/constrain.h"
#include "text/ebnf.h"
#include "text/schema.h"

grammar_expr constrain_choice(grammar_builder *b, const json_t *list, vlm_error *error)
{
    size_t n = json_array_size(list);
    if (!n) return err_set(error, VLM_INVALID, "$.choice: a list of texts was expected");
    grammar_literal *text = MEM_ARRAY(n, grammar_literal);
    if (!text) return err_memory(error, n);
    for (size_t i = 0; i < n; i++) {
        const json_t *one = json_array_get(list, i);
        if (!json_is_string(one)) {
            mem_free(text);
            return err_set(error, VLM_INVALID, "$.choice[%zu]: a text was expected", i);
        }
        text[i] = (grammar_literal){json_string_value(one), json_string_length(one)};
    }
    grammar_expr made = grammar_one_of(b, text, n);
    mem_free(text);
    return made;
}

static grammar_expr from_regex(grammar_builder *b, const json_t *pattern, vlm_error *error)
{
    if (!json_is_string(pattern)) return err_set(error, VLM_INVALID, "$.regex: a text was expected");
    return grammar_regex(b, json_string_value(pattern), json_string_length(pattern), 0);
}

static grammar_expr from_text(grammar_builder *b, const json_t *text, const char *syntax, vlm_error *error)
{
    if (!json_is_string(text)) return err_set(error, VLM_INVALID, "$.grammar: a text was expected");
    if (syntax && !strcmp(syntax, "regex")) return from_regex(b, text, error);
    ebnf_dialect dialect = EBNF_DETECT;
    if (syntax && !strcmp(syntax, "gbnf")) dialect = EBNF_GBNF;
    else if (syntax && !strcmp(syntax, "lark")) dialect = EBNF_LARK;
    else if (syntax && strcmp(syntax, "ebnf")) return err_set(error, VLM_INVALID, "$.syntax: \"%s\" is unknown (gbnf, lark, ebnf, regex)", syntax);
    return ebnf_expr(b, json_string_value(text), json_string_length(text), dialect, error);
}

static grammar_expr typed(grammar_builder *b, const json_t *f, const char *type, vlm_error *error)
{
    static const char *const inner[] = {"json_schema", "regex", "choice", "grammar", NULL};
    const json_t *within = f;                          /* {"type": T, T: {...}} or all in one object */
    for (const char *const *k = inner; *k; k++)
        if (!strcmp(type, *k) && json_is_object(json_object_get(f, *k))) within = json_object_get(f, *k);
    if (!strcmp(type, "json_object")) return schema_json_object(b, NULL, error);
    if (!strcmp(type, "json_schema")) {
        const json_t *schema = json_object_get(within, "schema");
        if (!schema && within == f) schema = json_object_get(f, "json_schema");
        if (!schema) return err_set(error, VLM_INVALID, "$.json_schema.schema: missing");
        return schema_expr(b, schema, NULL, error);
    }
    const json_t *value = json_object_get(within, type);
    if (!strcmp(type, "regex")) return from_regex(b, value ? value : json_object_get(within, "pattern"), error);
    if (!strcmp(type, "choice")) return constrain_choice(b, value ? value : json_object_get(within, "choices"), error);
    if (!strcmp(type, "grammar")) {
        const char *syntax = json_string_value(json_object_get(within, "syntax"));
        return from_text(b, value ? value : json_object_get(within, "definition"), syntax, error);
    }
    return err_set(error, VLM_INVALID, "$.type: \"%s\" is unknown (text, json_object, json_schema, regex, choice, grammar)", type);
}

static grammar_expr untyped(grammar_builder *b, const json_t *f, vlm_error *error)
{
    const json_t *v;
    if ((v = json_object_get(f, "schema"))) return schema_expr(b, v, NULL, error);
    if ((v = json_object_get(f, "json_schema"))) return schema_expr(b, json_object_get(v, "schema") ? json_object_get(v, "schema") : v, NULL, error);
    if (json_is_true(json_object_get(f, "json_object"))) return schema_json_object(b, NULL, error);
    if ((v = json_object_get(f, "regex"))) return from_regex(b, v, error);
    if ((v = json_object_get(f, "choice"))) return constrain_choice(b, v, error);
    if ((v = json_object_get(f, "ebnf")) || (v = json_object_get(f, "grammar"))) return from_text(b, v, json_string_value(json_object_get(f, "syntax")), error);
    if ((v = json_object_get(f, "gbnf"))) return from_text(b, v, "gbnf", error);
    if ((v = json_object_get(f, "lark"))) return from_text(b, v, "lark", error);
    return err_set(error, VLM_INVALID, "$: one of schema, json_object, regex, choice, ebnf was expected");
}

bool constrain_format(grammar_builder *b, const json_t *format, bool lead, grammar_expr *out, vlm_error *error)
{
    vlm_error own = {0};
    if (!error) error = &own;
    *out = 0;
    error->code = VLM_OK;
    const char *type = json_string_value(json_object_get(format, "type"));
    if (type && !strcmp(type, "text")) return true;
    *out = type ? typed(b, format, type, error) : untyped(b, format, error);
    if (!*out) {
        const vlm_error *failed = grammar_builder_error(b);
        if (error->code == VLM_OK && failed) *error = *failed;
        return error->code == VLM_OK ? err_memory(error, 0) : false;
    }
    if (lead) *out = grammar_seq2(b, grammar_regex(b, "[ \\n]{0,2}", 10, 0), *out);
    return true;
}
