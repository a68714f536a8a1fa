/* jinja/test.c - text/jinja.h against jinja2's results, at its limits, with failing memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#include "text/jinja.h"

static const struct tm march = {.tm_year = 126, .tm_mon = 2, .tm_mday = 5, .tm_hour = 7, .tm_min = 8, .tm_sec = 9, .tm_wday = 4, .tm_yday = 63};

/* The rendered text (caller frees) or NULL. */
static char *render(const char *source, size_t size, const json_t *context, const jinja_limits *limits, vlm_error *error)
{
    jinja *t = jinja_compile(source, size, error);
    buf out = {0};
    bool ok = t && jinja_render(t, context, &march, limits, &out, NULL, error);
    jinja_free(t);
    char *text = ok ? buf_take(&out) : NULL;
    buf_free(&out);
    return text;
}

static char *render_text(const char *source, const char *context, vlm_error *error)
{
    json_t *json = context ? json_loads(context, 0, NULL) : NULL;
    char *text = render(source, strlen(source), json, NULL, error);
    json_decref(json);
    return text;
}

static void same_as_jinja2(void **state)
{
    (void)state;
    json_error_t bad;
    json_t *cases = json_load_file("tests/data/text/jinja_cases.json", 0, &bad), *item;
    if (!cases) fail_msg("line %d: %s", bad.line, bad.text);
    size_t i;
    json_array_foreach(cases, i, item) {
        const json_t *source = json_object_get(item, "template");
        const char *id = json_string_value(json_object_get(item, "id")), *want = json_string_value(json_object_get(item, "expected"));
        const char *message = json_string_value(json_object_get(item, "message"));
        vlm_error error = {0};
        char *got = render(json_string_value(source), json_string_length(source), json_object_get(item, "context"), NULL, &error);
        if (want && (!got || strcmp(got, want) != 0)) fail_msg("%s: %s\n  expected %s\n  got      %s %s", id, json_string_value(source), want, got ? got : "", error.message);
        if (!want && got) fail_msg("%s: %s: must fail, got %s", id, json_string_value(source), got);
        if (!want && message) assert_string_equal(error.message, message);
        mem_free(got);
    }
    assert_true(i > 300);
    json_decref(cases);
}

static void errors_name_the_line(void **state)
{
    (void)state;
    vlm_error error = {0};
    assert_null(render_text("a\nb\n{{ x.y.z }}", NULL, &error));
    assert_int_equal(error.code, VLM_FORMAT);
    assert_non_null(strstr(error.message, "line 3"));
    assert_non_null(strstr(error.message, "'x' is undefined"));
    error = (vlm_error){0};
    assert_null(render_text("\n{% if x %}\n{% for y in %}", NULL, &error));
    assert_non_null(strstr(error.message, "line 3"));
    error = (vlm_error){0};
    assert_null(render_text("\n{{ raise_exception('no ' ~ who) }}", "{\"who\": \"images\"}", &error));
    assert_int_equal(error.code, VLM_INVALID);
    assert_string_equal(error.message, "no images");
    error = (vlm_error){0};
    assert_null(render_text("{% include 'x' %}", NULL, &error));
    assert_int_equal(error.code, VLM_UNSUPPORTED);
}

/* Templates that want too much of something: an error, soon, and in bounded memory. */
static void bombs(void **state)
{
    (void)state;
    static const char *const greedy[] = {
        "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{{ 'a' * 99999999999 }}", "{{ [1] * 99999999999 }}", "{{ range(1000000000) }}",
        "{% set ns = namespace(s='ab') %}{% for i in range(99999) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{{ 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' }}{% endfor %}{% endfor %}",
        "{{ '%999999999d' % 1 }}", "{{ '{:999999999}'.format(1) }}", "{{ 'a'.center(9999999999) }}", "{{ 'a'|center(9999999999) }}", "{{ 2 ** 9999999999 }}",
        "{{ 'a'|indent(9999999999) }}", "{{ [1]|batch(9999999999, 0)|list }}", "{{ x|tojson(indent=9999999) }}",
        "{% set ns = namespace(l=[]) %}{% for i in range(99999) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}",
        "{% for n in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    };
    const jinja_limits limits = {.steps = 300000, .output = 1 << 20, .memory = 32 << 20, .depth = 300};
    json_t *context = json_loads("{\"x\": {\"a\": [1]}}", 0, NULL);
    for (size_t i = 0; i < sizeof greedy / sizeof *greedy; i++) {
        vlm_error error = {0};
        char *got = render(greedy[i], strlen(greedy[i]), context, &limits, &error);
        if (got) fail_msg("rendered: %s", greedy[i]);
        if (error.code != VLM_LIMIT && error.code != VLM_FORMAT) fail_msg("%s: %s", greedy[i], error.message);
    }
    json_decref(context);
    for (int kind = 0; kind < 4; kind++) {         /* nested too deeply to be parsed */
        static const char *const open[] = {"{{ (", "{{ [", "{{ not ", "{% if 1 %}"}, *const more[] = {"(", "[", "not ", "{% if 1 %}"};
        buf source = {0};
        buf_adds(&source, open[kind]);
        for (int i = 0; i < 5000; i++) buf_adds(&source, more[kind]);
        vlm_error error = {0};
        assert_null(render(source.data, source.size, NULL, NULL, &error));
        assert_int_not_equal(error.code, VLM_OK);
        buf_free(&source);
    }
}

/* Nothing of the template's variables can be changed, nothing inside objects reached. */
static void sandbox(void **state)
{
    (void)state;
    static const char *const forbidden[] = {"{{ x.append(1) }}", "{{ d.update({'a': 2}) }}", "{{ d.pop('a') }}", "{{ ''.__class__.__mro__ }}", "{{ x.__init__.__globals__ }}",
                                            "{{ d['clear']() }}", "{% set x.y = 1 %}", "{% set ns = namespace() %}{% set ns._a = 1 %}", "{{ open('/etc/passwd') }}"};
    for (size_t i = 0; i < sizeof forbidden / sizeof *forbidden; i++) {
        vlm_error error = {0};
        char *got = render_text(forbidden[i], "{\"x\": [1], \"d\": {\"a\": 1}}", &error);
        if (got) fail_msg("%s gave %s", forbidden[i], got);
    }
}

static void literals(void **state)
{
    (void)state;
    static const char source[] = "<a>{{ '<b>' ~ x }}{# <c> #}{% if y is defined %}{% endif %}";
    jinja *t = jinja_compile(source, sizeof source - 1, NULL);
    assert_non_null(t);
    assert_true(jinja_writes(t, "<a>") && jinja_writes(t, "<b>"));
    assert_false(jinja_writes(t, "<c>"));
    assert_true(jinja_has_string(t, "<b>"));
    assert_false(jinja_has_string(t, "<a>"));
    assert_true(jinja_reads(t, "y"));
    assert_false(jinja_reads(t, "z"));
    jinja_free(t);
    jinja_free(NULL);
}

static void memory_fails(void **state)
{
    (void)state;
    static const char source[] = "{% macro m(a) %}{{ a|tojson(indent=2) }}{% endmacro %}{% for p in x|sort %}{{ m({'k': p}) ~ loop.index }}{% endfor %}{{ 'ab'.split('b')|join }}";
    json_t *context = json_loads("{\"x\": [3, 1, 2]}", 0, NULL);
    for (uint64_t n = 1;; n++) {
        mem_fail_at(n);
        vlm_error error = {0};
        char *got = render(source, sizeof source - 1, context, NULL, &error);
        bool failed = mem_failed();
        mem_fail_at(0);
        bool ok = got != NULL;
        mem_free(got);
        if (!failed) {
            assert_true(ok);
            break;
        }
        assert_false(ok);
    }
    json_decref(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_as_jinja2), cmocka_unit_test(errors_name_the_line), cmocka_unit_test(bombs), cmocka_unit_test(sandbox),
        cmocka_unit_test(literals), cmocka_unit_test(memory_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
