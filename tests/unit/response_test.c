/* response_test.c - text/response.h: messages and events as transformers' parser has them; templates that are wrong; the same through toolcall.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "text/response.h"
#include "toolcall_run.h"

static json_t *data;

static int load(void **state)
{
    (void)state;
    json_error_t error;
    data = json_load_file("tests/data/text/response_cases.json", JSON_DECODE_INT_AS_REAL, &error);
    if (!data) print_error("%s:%d: %s\n", error.source, error.line, error.text);
    return data ? 0 : -1;
}

static int unload(void **state)
{
    (void)state;
    json_decref(data);
    return 0;
}

/* Events as the goldens have them: pieces of one region put together. */
static void collect(void *user, const response_event *e)
{
    static const char *const types[] = {"region_open", "region_chunk", "region_close"};
    json_t *events = user, *last = json_array_get(events, json_array_size(events) - 1);
    if (e->type == RESPONSE_CHUNK && last && !strcmp(json_string_value(json_object_get(last, "type")), "region_chunk")) {
        const char *before = json_string_value(json_object_get(last, "text"));
        char *text = mem_printf("%s%.*s", before, (int)e->size, e->text);
        json_object_set_new(last, "text", json_string(text));
        mem_free(text);
        return;
    }
    json_t *event = json_pack("{s:s, s:s}", "type", types[e->type], "field", e->field);
    if (e->type == RESPONSE_CHUNK) {
        json_object_set_new(event, "text", json_stringn(e->text, e->size));
        json_object_set_new(event, "dirty", json_boolean(e->dirty));
    }
    if (e->type == RESPONSE_CLOSE) json_object_set_new(event, "value", json_loadb(e->text, e->size, JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL, NULL));
    json_array_append_new(events, event);
}

/* step 0: the whole text; else pieces of that many characters. NULL: the parser failed. */
static json_t *parse(const json_t *c, size_t step, json_t *events)
{
    const json_t *spec = json_object_get(json_object_get(data, "templates"), json_string_value(json_object_get(c, "template")));
    const char *prefix = json_string_value(json_object_get(c, "prefix")), *text = json_string_value(json_object_get(c, "text"));
    vlm_error error = {0};
    response_template *t = response_template_new(spec, &error);
    if (!t) fail_msg("%s", error.message);
    response_parser *p = response_parser_new(t, prefix, strlen(prefix), json_object_get(data, "tools"), collect, events, &error);
    bool ok = p != NULL;
    size_t n = strlen(text);
    for (size_t at = 0; ok && at < n;) {
        size_t end = step ? at : n;
        for (size_t k = 0; k < step && end < n; k++) end += utf8_size((unsigned char)text[end]);
        ok = response_feed(p, text + at, end - at, &error);
        at = end;
    }
    char *message = ok && response_finish(p, &error) ? response_message(p, &error) : NULL;
    json_t *result = message ? json_loads(message, JSON_DECODE_INT_AS_REAL, NULL) : NULL;
    mem_free(message);
    response_parser_free(p);
    response_template_free(t);
    return result;
}

static void expect(const json_t *c, const json_t *got, const json_t *want, const char *what)
{
    if (got && want && json_equal(got, want)) return;
    char *a = got ? json_dumps(got, 0) : NULL, *b = json_dumps(want, 0);
    print_error("%s: %s\n  %s\n  expected %s\n", what, json_string_value(json_object_get(c, "text")), a ? a : "failed", b);
    free(a);
    free(b);
    fail();
}

static void messages_and_events_are_the_references(void **state)
{
    (void)state;
    size_t i;
    json_t *c;
    json_array_foreach(json_object_get(data, "cases"), i, c) {
        json_t *events = json_array(), *whole = parse(c, 0, events);
        if (json_object_get(c, "error")) {
            if (whole) fail_msg("no error: %s", json_string_value(json_object_get(c, "text")));
            json_decref(events);
            continue;
        }
        json_array_clear(events);
        json_t *by_char = parse(c, 1, events);
        const json_t *other = json_object_get(c, "message_by_char");
        expect(c, whole, json_object_get(c, "message"), "whole");
        expect(c, by_char, other ? other : json_object_get(c, "message"), "by characters");
        expect(c, events, json_object_get(c, "events"), "events");
        json_decref(whole);
        json_decref(by_char);
        json_decref(events);
    }
}

static void wrong_templates_are_refused(void **state)
{
    (void)state;
    static const char *const specs[] = {
        "{}", "{\"fields\": {}}", "{\"fields\": {\"content\": {}}}", "{\"start_anchor\": \"a\", \"fields\": {\"content\": {}, \"more\": {}}}",
        "{\"start_anchor\": \"a\", \"fields\": {\"content\": {\"open\": \"a\", \"open_pattern\": \"b\"}}}", "{\"start_anchor\": \"\", \"fields\": {\"content\": {}}}",
        "{\"start_anchor\": \"a\", \"fields\": {\"content\": {\"open_pattern\": \"(\"}}}", "{\"start_anchor\": \"a\", \"fields\": {\"content\": {\"content\": \"yaml\"}}}",
        "{\"start_anchor\": \"a\", \"fields\": {\"content\": {\"colour\": 1}}}", "{\"start_anchor\": \"a\", \"version\": 2, \"fields\": {\"content\": {}}}",
        "{\"start_anchor\": \"a\", \"fields\": {\"content\": {\"join\": \",\"}}}", "{\"start_anchor\": \"a\", \"fields\": {\"c\": {\"open_pattern\": \"(?P<x>a)\"}}}",
        "{\"start_anchor\": \"a\", \"fields\": {\"c\": {\"transform\": \"{a} and b\"}}}", "{\"start_anchor\": \"a\", \"fields\": {\"c\": {\"content\": \"xml-inline\"}}}",
        "{\"start_anchor\": [], \"fields\": {\"c\": {}}}", "{\"start_anchor\": \"a\", \"fields\": {\"c\": {\"transform_each\": true}}}", "[]", "{\"start_anchor\": \"a\", \"fields\": {\"c\": 1}}",
    };
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        vlm_error error = {0};
        json_t *spec = json_loads(specs[i], 0, NULL);
        assert_non_null(spec);
        if (response_template_new(spec, &error) || !error.message[0]) fail_msg("accepted: %s", specs[i]);
        json_decref(spec);
    }
}

static run_result through(const char *prompt, const char *text, size_t step)
{
    vlm_error error = {0};
    response_template *t = response_template_new(json_object_get(json_object_get(data, "templates"), "calls"), &error);
    if (!t) fail_msg("%s", error.message);
    toolcall_options o = {.tools = json_object_get(data, "tools"), .response = t, .prompt = prompt, .prompt_size = strlen(prompt)};
    run_result r = run_parser("hermes_json", &o, text, strlen(text), NULL, 0, step, "stop");
    response_template_free(t);
    return r;
}

static void tool_calls_come_as_events(void **state)
{
    (void)state;
    for (size_t step = 0; step < 5; step++) {
        run_result r = through("<go>\n", " Hm \xc3\xa9 </t> Oui.\n<c>fly{to:<'>Lyon<'>,count:\"7\"}</c> <c>tell{}</c>", step);
        assert_true(r.ok && r.order);
        assert_string_equal(r.reasoning.data, "Hm \xc3\xa9");
        assert_string_equal(r.content.data, "Oui.");
        assert_int_equal(r.calls, 2);
        assert_string_equal(r.call[0].name, "fly");
        assert_string_equal(r.call[0].arguments.data, "{\"to\": \"Lyon\", \"count\": 7}");
        assert_string_equal(r.call[1].name, "tell");
        run_clear(&r);
    }
    /* a broken region: the text stays, and the format reads on */
    run_result r = through("<go>", "Hm</t>Oui. <c>fly{to:Lyon}</c> <tool_call>{\"name\": \"tell\"}</tool_call>", 0);
    assert_string_equal(r.content.data, "Oui. <c>fly{to:Lyon}</c>");
    assert_int_equal(r.calls, 1);
    assert_string_equal(r.call[0].name, "tell");
    run_clear(&r);
}

static void memory_may_run_out(void **state)
{
    (void)state;
    const json_t *c = json_array_get(json_object_get(data, "cases"), 17);
    for (uint64_t n = 1; n < 2000; n++) {
        mem_fail_at(n);
        vlm_error error = {0};
        response_template *t = response_template_new(json_object_get(json_object_get(data, "templates"), "calls"), &error);
        response_parser *p = t ? response_parser_new(t, "<go>", 4, json_object_get(data, "tools"), NULL, NULL, &error) : NULL;
        const char *text = json_string_value(json_object_get(c, "text"));
        bool ok = p && response_feed(p, text, strlen(text), &error) && response_finish(p, &error);
        char *message = ok ? response_message(p, &error) : NULL;
        bool failed = mem_failed();
        mem_fail_at(0);
        mem_free(message);
        response_parser_free(p);
        response_template_free(t);
        if (failed) continue;
        assert_true(ok && message);
        return;
    }
    fail();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_and_events_are_the_references), cmocka_unit_test(wrong_templates_are_refused), cmocka_unit_test(tool_calls_come_as_events),
        cmocka_unit_test(memory_may_run_out),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
