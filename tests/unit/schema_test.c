/* schema_test.c - JSON schema, choices, GBNF and Lark as grammars: the cases of tests/data/text/grammar_cases.json; hostile schemas end soon. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "base/mem.h"
#include "text/constrain.h"
#include "text/ebnf.h"
#include "text/schema.h"

static grammar *compile(const json_t *what, vlm_error *error)
{
    grammar_builder *b = grammar_builder_new(NULL);
    grammar_expr root;
    const json_t *format = json_object_get(what, "response_format");
    grammar *g = constrain_format(b, format ? format : what, false, &root, error) ? grammar_compile(b, root, NULL, error) : NULL;
    grammar_builder_free(b);
    return g;
}

static bool accepts(grammar *g, const char *text, size_t size)
{
    vlm_error error = {0};
    matcher *m = matcher_new(g, &error);
    assert_non_null(m);
    bool ok = matcher_bytes(m, text, size, NULL, &error) && matcher_accepting(m);
    assert_int_equal(error.code, VLM_OK);
    matcher_free(m);
    return ok;
}

static void check_case(size_t index, const json_t *c)
{
    vlm_error error = {0};
    const char *wanted = json_string_value(json_object_get(c, "error"));
    grammar *g = compile(c, &error);
    if (wanted) {
        if (g || !strstr(error.message, wanted)) fail_msg("case %zu: %s, expected an error with \"%s\"", index, g ? "accepted" : error.message, wanted);
        grammar_unref(g);
        return;
    }
    if (!g) fail_msg("case %zu: %s", index, error.message);
    for (int yes = 0; yes < 2; yes++) {
        const json_t *list = json_object_get(c, yes ? "yes" : "no");
        for (size_t i = 0; i < json_array_size(list); i++) {
            const json_t *text = json_array_get(list, i);
            if (accepts(g, json_string_value(text), json_string_length(text)) != yes)
                fail_msg("case %zu: %s is %s", index, json_string_value(text), yes ? "not accepted" : "accepted");
        }
    }
    grammar_unref(g);
}

static void cases(void **state)
{
    (void)state;
    json_error_t why;
    json_t *all = json_load_file("tests/data/text/grammar_cases.json", JSON_ALLOW_NUL, &why);
    if (!all) fail_msg("line %d: %s", why.line, why.text);
    for (size_t i = 0; i < json_array_size(all); i++) check_case(i, json_array_get(all, i));
    json_decref(all);
}

/* ---- hostile ---- */
static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Compiles or is refused, and soon; a compiled one takes or rejects the text. */
static void soon(const char *name, json_t *what, const char *text)
{
    assert_non_null(what);
    vlm_error error = {0};
    double start = seconds();
    grammar *g = compile(what, &error);
    matcher *m = g ? matcher_new(g, &error) : NULL;
    if (m && text) matcher_bytes(m, text, strlen(text), NULL, &error);
    double took = seconds() - start;
    if (!g && (error.code == VLM_OK || !*error.message)) fail_msg("%s: refused without a message", name);
    if (took > 20) fail_msg("%s: %.1f s", name, took);     /* of the processor; generous, for sanitizers: what explodes takes hours */
    matcher_free(m);
    grammar_unref(g);
    json_decref(what);
}

static json_t *schema_text(const char *text) { return json_pack("{s:o}", "schema", json_loads(text, JSON_DECODE_ANY, NULL)); }

static json_t *nested(const char *open, const char *inner, const char *close, int depth)
{
    buf b = {0};
    for (int i = 0; i < depth; i++) buf_adds(&b, open);
    buf_adds(&b, inner);
    for (int i = 0; i < depth; i++) buf_adds(&b, close);
    json_t *made = schema_text(b.data);
    buf_free(&b);
    return made;
}

static void hostile(void **state)
{
    (void)state;
    soon("deep items", nested("{\"items\":", "true", "}", 500), "[[[[");
    soon("too deep", nested("{\"items\":", "true", "}", 900), "[[[[");
    soon("deep allOf", nested("{\"allOf\":[", "true", "]}", 190), "1");
    soon("deep not", nested("{\"not\":", "true", "}", 400), "1");
    soon("long strings", schema_text("{\"type\":\"string\",\"minLength\":1000000,\"maxLength\":1000000000}"), "\"abc");
    soon("long strings with a pattern", schema_text("{\"type\":\"string\",\"pattern\":\"^a*$\",\"maxLength\":1000000000}"), "\"abc");
    soon("many items", schema_text("{\"type\":\"array\",\"minItems\":100000,\"maxItems\":1000000000}"), "[1,2");
    soon("many properties", schema_text("{\"type\":\"object\",\"minProperties\":1000000000,\"maxProperties\":1000000000000}"), "{\"a\":1");
    soon("counted properties", schema_text("{\"type\":\"object\",\"properties\":{\"a\":true,\"b\":true},\"minProperties\":1000000}"), "{\"a\":1");
    soon("repeats", schema_text("{\"type\":\"string\",\"pattern\":\"^((a{0,100000}b){0,100000}c){0,100000}$\"}"), "\"ab");
    soon("a long repeat", schema_text("{\"type\":\"string\",\"pattern\":\"^[ab]{0,100000}$\"}"), "\"ab");
    soon("a pattern that explodes", schema_text("{\"type\":\"string\",\"pattern\":\"(a|b)*a(a|b){40}$\"}"), "\"ab");
    soon("nested anchors", schema_text("{\"type\":\"string\",\"pattern\":\"((((((((((((((((((((^a|b)c|d)e|f)g|h)i|j)k|l)m|n)o|p)q|r)s|t)u|v)w|x)y|z)a|b)c|d)e|f)g|h)i|j)k|l)m|n)\"}"), "\"a");
    soon("regex", json_pack("{s:s}", "regex", "((a{0,100000}b){0,100000}c){0,100000}"), "aabaab");
    soon("gbnf repeats", json_pack("{s:s}", "ebnf", "root ::= ((\"a\"{0,100000} \"b\"){0,100000} \"c\"){0,2000000000}"), "aab");
    soon("lark and", json_pack("{s:s}", "lark", "start: A\nA: /(a|b)*a(a|b){30}/ & ~/(a|b)*b(a|b){29}/ & /.{500}/"), "abab");
    soon("multiples", schema_text("{\"type\":\"integer\",\"multipleOf\":19997,\"minimum\":-1e300,\"maximum\":1e300}"), "123");
    soon("bounds", schema_text("{\"type\":\"number\",\"minimum\":5e-324,\"maximum\":1.7e308}"), "0.0001");

    json_t *all = json_array();                        /* 2^40 combinations */
    for (int i = 0; i < 40; i++) json_array_append_new(all, json_loads("{\"anyOf\":[{\"minLength\":1},{\"maxLength\":5}]}", 0, NULL));
    soon("combinations", json_pack("{s:{s:o}}", "schema", "allOf", all), "\"a\"");

    json_t *defs = json_object();                      /* each refers to the next twice: 2^60 ways */
    for (int i = 0; i < 60; i++) {
        char name[16], ref[32];
        snprintf(name, sizeof name, "d%d", i);
        snprintf(ref, sizeof ref, "#/$defs/d%d", i + 1);
        json_object_set_new(defs, name, i == 59 ? json_pack("{s:s}", "type", "null") : json_pack("{s:[{s:s},{s:{s:{s:s}}}]}", "anyOf", "$ref", ref, "properties", "x", "$ref", ref));
    }
    soon("references", json_pack("{s:{s:o,s:s}}", "schema", "$defs", defs, "$ref", "#/$defs/d0"), "{\"x\":");

    json_t *both = json_object();                      /* the same through allOf, which merges */
    for (int i = 0; i < 60; i++) {
        char name[16], ref[32];
        snprintf(name, sizeof name, "d%d", i);
        snprintf(ref, sizeof ref, "#/$defs/d%d", i + 1);
        json_object_set_new(both, name, i == 59 ? json_pack("{s:s}", "type", "null") : json_pack("{s:[{s:s},{s:s}],s:{s:{s:s}}}", "allOf", "$ref", ref, "$ref", ref, "properties", "x", "$ref", ref));
    }
    soon("merged references", json_pack("{s:{s:o,s:s}}", "schema", "$defs", both, "$ref", "#/$defs/d0"), "{\"x\":");

    json_t *values = json_array();
    for (int i = 0; i < 20000; i++) {
        char text[64];
        snprintf(text, sizeof text, "value number %d of many", i * 7919);
        json_array_append_new(values, json_string(text));
    }
    soon("a large enum", json_pack("{s:{s:O}}", "schema", "enum", values), "\"value number 7919 of many\"");
    soon("a large enum with a pattern", json_pack("{s:{s:O,s:s,s:s}}", "schema", "enum", values, "type", "string", "pattern", "9"), "\"value number 7919 of many\"");
    soon("large choice", json_pack("{s:o}", "choice", values), "value number 7919 of many");

    json_t *wide = json_object();
    for (int i = 0; i < 3000; i++) {
        char text[64];
        snprintf(text, sizeof text, "property_%d", i * 7919);
        json_object_set_new(wide, text, json_loads("{\"type\":\"integer\"}", 0, NULL));
    }
    soon("a wide object", json_pack("{s:{s:s,s:O}}", "schema", "type", "object", "properties", wide), "{\"property_7919\": 1, \"property_15838\": 2, \"z\": 3}");
    soon("a wide object, counted", json_pack("{s:{s:s,s:O,s:i}}", "schema", "type", "object", "properties", wide, "minProperties", 1500), "{\"property_0\": 1,");
    json_t *overlapping = json_object();
    for (int i = 0; i < 64; i++) {
        char text[32];
        snprintf(text, sizeof text, "a{%d}|b", i + 1);
        json_object_set_new(overlapping, text, json_true());
    }
    soon("overlapping patterns", json_pack("{s:{s:s,s:o}}", "schema", "type", "object", "patternProperties", overlapping), "{\"aa\": 1}");
    json_decref(wide);
}

/* ---- every allocation fails once ---- */
static void memory(void **state)
{
    (void)state;
    static const char *const wanted[] = {
        "{\"schema\": {\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"integer\", \"minimum\": 3, \"maximum\": 12}, \"b\": {\"enum\": [\"x\", 1, {\"y\": [null]}, \"\u00e9\"]},"
        " \"c\": {\"type\": \"string\", \"pattern\": \"^(?=a)[a-c]+$|x\", \"maxLength\": 4}, \"d\": {\"$ref\": \"#\"}}, \"required\": [\"a\"], \"patternProperties\": {\"^z\": true},"
        " \"anyOf\": [{\"required\": [\"b\"]}, {\"not\": {\"required\": [\"c\"]}}], \"oneOf\": [{\"maxProperties\": 2}, {\"minProperties\": 3}]}}",
        "{\"schema\": {\"oneOf\": [{\"const\": 1}, {\"type\": \"array\", \"prefixItems\": [{\"format\": \"ipv4\", \"type\": \"string\"}], \"minItems\": 1}]}}",
        "{\"ebnf\": \"root ::= a{2,3} | [^x] <t> \\\"q\\\"\\na ::= (\\\"b\\\")+\"}",
        "{\"lark\": \"start: x{\\\"a\\\"} Y\\nY: /[0-9]+/ & ~/12/\\nx{p}: p \\\"b\\\"..\\\"d\\\"\\n%ignore \\\" \\\"\\n%import common.INT\"}",
        "{\"choice\": [\"a\", \"b\"]}",
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        json_t *what = json_loads(wanted[i], 0, NULL);
        assert_non_null(what);
        for (uint64_t n = 1;; n++) {
            vlm_error error = {0};
            grammar_builder *b = grammar_builder_new(NULL);
            grammar_expr root;
            mem_fail_at(n);
            bool ok = constrain_format(b, what, false, &root, &error);
            bool happened = mem_failed();
            mem_fail_at(0);
            if (!ok && (error.code == VLM_OK || !*error.message)) fail_msg("case %zu, allocation %llu: no message", i, (unsigned long long)n);
            if (!ok && !happened) fail_msg("case %zu: %s", i, error.message);
            grammar_builder_free(b);
            if (!happened) break;
        }
        json_decref(what);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(cases), cmocka_unit_test(hostile), cmocka_unit_test(memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
