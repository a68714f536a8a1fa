/* toolgrammar_test.c - what the grammar of tool calls admits, the parser of tool calls reads, in every format: known answers, and texts made at
 * random, whose calls must name a tool and whose arguments must follow its schema. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "text/toolgrammar.h"

static const char TOOLS[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"get_weather\",\"strict\":true,\"parameters\":{\"type\":\"object\",\"properties\":{"
    "\"city\":{\"type\":\"string\"},\"days\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":9},\"unit\":{\"enum\":[\"celsius\",\"kelvin\"]},"
    "\"when\":{\"anyOf\":[{\"type\":\"string\"},{\"type\":\"null\"}]},\"tags\":{\"type\":\"array\",\"items\":{\"type\":\"string\",\"maxLength\":4},\"maxItems\":2},"
    "\"place\":{\"type\":\"object\",\"properties\":{\"lat\":{\"type\":\"number\"}},\"required\":[\"lat\"]}},\"required\":[\"city\"]}}},"
    "{\"type\":\"function\",\"function\":{\"name\":\"stop\",\"strict\":true}}]";

static grammar *compile(const char *format, const json_t *tools, const json_t *choice, bool parallel)
{
    vlm_error error = {0};
    grammar_builder *b = grammar_builder_new(NULL);
    grammar_expr root;
    const toolcall_format *f = toolcall_format_find(format);
    assert_non_null(f);
    if (!toolgrammar(b, f, tools, choice, parallel, 0, false, &root, &error)) fail_msg("%s: %s", format, error.message);
    grammar *g = root ? grammar_compile(b, root, NULL, &error) : NULL;
    if (root && !g) fail_msg("%s: %s", format, error.message);
    grammar_builder_free(b);
    return g;
}

static bool accepts(grammar *g, const char *text)
{
    vlm_error error = {0};
    matcher *m = matcher_new(g, &error);
    bool ok = matcher_bytes(m, text, strlen(text), NULL, &error) && matcher_accepting(m);
    matcher_free(m);
    return ok;
}

static void known(void **state)
{
    (void)state;
    static const struct { const char *format, *text; bool yes; } cases[] = {
        {"hermes_json", "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Rome\", \"days\": 3}}\n</tool_call>", true},
        {"hermes_json", "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Rome\", \"days\": 33}}\n</tool_call>", false},
        {"hermes_json", "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {}}\n</tool_call>", false},
        {"hermes_json", "<tool_call>\n{\"name\": \"other\", \"arguments\": {}}\n</tool_call>", false},
        {"hermes_json", "<tool_call>\n{\"name\": \"stop\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n{\"name\": \"stop\", \"arguments\": {}}\n</tool_call>", true},
        {"hermes_json", "Hello", false},
        {"qwen3_xml", "<tool_call>\n<function=get_weather>\n<parameter=city>\nSt. <b> \"Ives\"\n</parameter>\n<parameter=tags>\n[\"a\"]\n</parameter>\n</function>\n</tool_call>", true},
        {"qwen3_xml", "<tool_call>\n<function=get_weather>\n<parameter=city>\nx\n</parameter>\n<parameter=days>\nfive\n</parameter>\n</function>\n</tool_call>", false},
        {"qwen3_xml", "<tool_call>\n<function=get_weather>\n<parameter=days>\n5\n</parameter>\n</function>\n</tool_call>", false},
        {"gemma4", "<|tool_call>call:get_weather{city:<|\"|>Rome<|\"|>,days:3,place:{lat:1.5},tags:[<|\"|>a<|\"|>]}<tool_call|>", true},
        {"gemma4", "<|tool_call>call:get_weather{city:Rome}<tool_call|>", false},
        {"pythonic", "[get_weather(city='Rome', days=3, place={\"lat\": 1}), stop()]", true},
        {"pythonic", "[get_weather(\"Rome\")]", false},
        {"mistral", "[TOOL_CALLS]get_weather[ARGS]{\"city\": \"Rome\"}[TOOL_CALLS]stop[ARGS]{}", true},
        {"kimi_k2", "<|tool_calls_section_begin|><|tool_call_begin|>functions.stop:0<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_call_begin|>functions.stop:1"
                    "<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>", true},
        {"harmony", "<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{\"city\": \"Rome\"}<|call|>", true},
        {"llama3_json", "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Rome\"}}", true},
        {"deepseek_dsml", "<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"get_weather\">\n<｜DSML｜parameter name=\"city\" string=\"true\">3</｜DSML｜parameter>\n"
                          "<｜DSML｜parameter name=\"days\" string=\"false\">3</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>", true},
    };
    json_t *tools = json_loads(TOOLS, 0, NULL), *required = json_string("required");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        grammar *g = compile(cases[i].format, tools, required, true);
        if (accepts(g, cases[i].text) != cases[i].yes) fail_msg("%s: %s", cases[i].format, cases[i].text);
        grammar_unref(g);
    }
    json_decref(required);
    json_decref(tools);
}

static void choices(void **state)
{
    (void)state;
    json_t *tools = json_loads(TOOLS, 0, NULL), *named = json_pack("{s:s,s:{s:s}}", "type", "function", "function", "name", "stop"), *none = json_string("none");
    const char *stop = "<tool_call>\n{\"name\": \"stop\", \"arguments\": {}}\n</tool_call>";
    char twice[200], after[200];
    snprintf(twice, sizeof twice, "%s\n%s", stop, stop);
    snprintf(after, sizeof after, "I look < it up.\n%s", stop);
    grammar *g = compile("hermes_json", tools, named, false);
    assert_true(accepts(g, stop));
    assert_false(accepts(g, twice));
    assert_false(accepts(g, "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"\"}}\n</tool_call>"));
    grammar_unref(g);
    g = compile("hermes_json", tools, NULL, true);                 /* auto, strict */
    assert_true(accepts(g, "Just an answer."));
    assert_true(accepts(g, after));
    assert_true(accepts(g, twice));
    assert_false(accepts(g, "<tool_call>\n{\"name\": \"stop\", \"arguments\": {\"x\": 1}}\n</tool_call>"));
    grammar_unref(g);
    assert_null(compile("hermes_json", tools, none, true));

    vlm_error error = {0};
    grammar_builder *b = grammar_builder_new(NULL);
    grammar_expr root;
    const toolcall_format *f = toolcall_format_find("hermes_json");
    json_t *bad = json_loads("[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"strict\":true,\"parameters\":{\"type\":\"object\",\"properties\":{\"x\":{\"type\":\"array\","
                             "\"uniqueItems\":true}}}}}]", 0, NULL), *required = json_string("required");
    assert_false(toolgrammar(b, f, bad, required, true, 0, false, &root, &error));
    assert_non_null(strstr(error.message, "tools[0] (f): $.properties.x.uniqueItems:"));
    json_object_del(json_object_get(json_array_get(bad, 0), "function"), "strict");
    error = (vlm_error){0};
    assert_true(toolgrammar(b, f, bad, required, true, 0, false, &root, &error));      /* not strict: any object */
    assert_true(root != 0);
    assert_true(toolgrammar(b, f, bad, NULL, true, 0, false, &root, &error));          /* auto, nothing strict: nothing is enforced */
    assert_int_equal(root, 0);
    assert_false(toolgrammar(b, toolcall_format_find("plain"), tools, required, true, 0, false, &root, &error));
    grammar_builder_free(b);
    json_decref(bad);
    json_decref(required);
    json_decref(named);
    json_decref(none);
    json_decref(tools);
}

/* ---- at random ---- */
static uint32_t roll(uint64_t *state, uint32_t n)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((*state >> 33) % n);
}

/* Closing marks are tried as wholes: letters alone seldom make one. */
static const char *const words[] = {"</parameter>", "\n</parameter>\n", "<|\"|>", "<escape>", "</arg_value>\n", "</param>", "</longcat_arg_value>\n", "</arg_value:opensource>\n",
    "</atem:parameter>\n", "</｜DSML｜parameter>\n", "<|close|>argument<|sep|>", "</steptml:parameter>", "\"", "}", "null", "[]", "Rome", "\n", " ", "</", "<", "é", "'", "3",
    "]<]minimax[>[</city>", "]<]minimax[>[</unit>", "]<]minimax[>[</when>"};

static bool walk(grammar *g, uint64_t *dice, buf *out)
{
    vlm_error error = {0};
    matcher *m = matcher_new(g, &error);
    for (int steps = 0; steps < 3000 && out->size < 3000; steps++) {
        if (matcher_accepting(m) && !roll(dice, 3)) break;
        const char *word = words[roll(dice, sizeof words / sizeof *words)];
        char byte[2] = {(char)(roll(dice, 6) ? 32 + roll(dice, 95) : roll(dice, 256)), 0};
        buf forced = {0};
        matcher_forced(m, 4096, &forced, &error);
        if (forced.size && !matcher_bytes(m, forced.data, forced.size, NULL, &error)) fail_msg("forced bytes are not taken");
        if (forced.size) buf_add(out, forced.data, forced.size);
        buf_free(&forced);
        const char *text = roll(dice, 2) ? word : byte;
        size_t n = text == byte ? 1 : strlen(text);
        if (matcher_bytes(m, text, n, NULL, &error)) buf_add(out, text, n);
    }
    bool ok = matcher_accepting(m);
    matcher_free(m);
    return ok;
}

static void check_arguments(const char *format, const char *text, const char *name, const char *json)
{
    json_error_t why;
    json_t *a = json_loads(json, JSON_ALLOW_NUL, &why);
    if (!a && strstr(why.text, "overflow")) return;    /* 3e33110 is JSON, but no double */
    if (!json_is_object(a)) fail_msg("%s: %s: arguments %s of %s", format, why.text, json, text);
    bool ok = true;
    if (!strcmp(name, "stop")) {
        ok = json_object_size(a) == 0;
    } else {
        const json_t *days = json_object_get(a, "days"), *unit = json_object_get(a, "unit"), *when = json_object_get(a, "when"), *tags = json_object_get(a, "tags");
        const json_t *place = json_object_get(a, "place");
        ok = !strcmp(name, "get_weather") && json_is_string(json_object_get(a, "city"));
        if (days) ok &= json_is_integer(days) && json_integer_value(days) >= 0 && json_integer_value(days) <= 9;
        if (unit) ok &= json_is_string(unit) && (!strcmp(json_string_value(unit), "celsius") || !strcmp(json_string_value(unit), "kelvin"));
        if (when) ok &= json_is_string(when) || json_is_null(when);
        if (tags) ok &= json_is_array(tags) && json_array_size(tags) <= 2;
        for (size_t i = 0; i < json_array_size(tags); i++) ok &= json_is_string(json_array_get(tags, i));
        if (place) ok &= json_is_object(place) && json_is_number(json_object_get(place, "lat"));
        static const char *const members[] = {"city", "days", "unit", "when", "tags", "place"};
        const char *k;
        json_t *v;
        json_object_foreach(a, k, v) {
            bool declared = false;
            for (int i = 0; i < 6; i++) declared |= !strcmp(members[i], k);
            ok &= declared;
        }
    }
    if (!ok) fail_msg("%s: %s(%s) from %s", format, name, json, text);
    json_decref(a);
}

static void parse_back(const toolcall_format *f, const json_t *tools, const buf *text)
{
    vlm_error error = {0};
    toolcall_options options = {.tools = tools};
    toolcall_parser *p = toolcall_parser_new(f, &options, &error);
    buf arguments = {0};
    char name[64] = "";
    size_t calls = 0;
    assert_true(toolcall_feed(p, text->data, text->size, false));
    toolcall_finish(p, "stop");
    for (toolcall_event e; toolcall_next(p, &e);) {
        if (e.type == TOOLCALL_START) snprintf(name, sizeof name, "%s", e.name), buf_clear(&arguments), calls++;
        if (e.type == TOOLCALL_ARGUMENTS_DELTA) buf_add(&arguments, e.text, e.size);
        if (e.type == TOOLCALL_END) check_arguments(toolcall_format_name(f), text->data, name, arguments.data ? arguments.data : "");
        if (e.type == TOOLCALL_CONTENT) fail_msg("%s: content \"%.*s\" from %s", toolcall_format_name(f), (int)e.size, e.text, text->data);
    }
    if (!calls) fail_msg("%s: no call in %s", toolcall_format_name(f), text->data);
    buf_free(&arguments);
    toolcall_parser_free(p);
}

static void random_calls(void **state)
{
    (void)state;
    json_t *tools = json_loads(TOOLS, 0, NULL), *required = json_string("required");
    const toolcall_format *f;
    uint64_t dice = 7;
    for (size_t i = 0; (f = toolcall_format_at(i)); i++) {
        if (toolcall_format_spelling(f)->arguments == TOOLCALL_NONE) continue;
        grammar *g = compile(toolcall_format_name(f), tools, required, true);
        size_t finished = 0;
        for (int n = 0; n < 12; n++) {
            buf text = {0};
            if (walk(g, &dice, &text)) {
                parse_back(f, tools, &text);
                finished++;
            }
            buf_free(&text);
        }
        if (finished < 2) fail_msg("%s: only %zu texts came to an end", toolcall_format_name(f), finished);
        grammar_unref(g);
    }
    json_decref(required);
    json_decref(tools);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(known), cmocka_unit_test(choices), cmocka_unit_test(random_calls)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
