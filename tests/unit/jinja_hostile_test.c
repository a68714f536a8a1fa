/* jinja_hostile_test.c - templates that want to run for ever, fill the memory or overflow the stack are stopped with an error, at the default limits;
 * what a conversation costs grows with its length and no faster. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "text/jinja.h"

static const char context[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"s\":\"abcdefghij\",\"l\":[1,2,3],\"d\":{\"a\":[1]}}";

static const char *const hostile[] = {
    /* for ever */
    "{% for a in range(10**12) %}{% endfor %}",
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}x{% endfor %}{% endfor %}{% endfor %}",
    "{% macro m() %}{% for i in range(9999) %}{{ loop.index }}{% endfor %}{% endmacro %}{% for i in range(99999) %}{{ m() }}{% endfor %}",
    "{% for a in range(99999) %}{% set x = range(99999)|list|sort(reverse=true)|reverse|list %}{% endfor %}",
    "{% for a in range(99999) %}{{ range(99999)|sum }}{% endfor %}",
    "{% for a in range(99999) %}{{ 99998 in range(99999)|list }}{% endfor %}",
    "{% set l = range(50000)|list %}{{ l|map('in', l)|list|length }}{{ l|select('in', l)|list|length }}",
    "{% set l = range(99999)|map('string')|list %}{% for x in l %}{{ l.index(x) }}{% endfor %}",
    "{% set l = range(99999)|list %}{% for x in l %}{% if l == l + [] %}{% endif %}{% endfor %}",
    "{% for a in range(99999) %}{% set x = dict(range(99999)|map('string')|batch(2)) %}{% endfor %}",
    /* deep */
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% macro m(n) %}{{ m(n + 1) ~ m(n + 1) }}{% endmacro %}{{ m(0) }}",
    "{% macro a() %}{% call b() %}{{ a() }}{% endcall %}{% endmacro %}{% macro b() %}{{ caller() }}{% endmacro %}{{ a() }}",
    "{% for n in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "{% for n in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "{% set ns = namespace(l=[]) %}{% for i in range(99999) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l }}",
    "{% set ns = namespace(l=[]) %}{% for i in range(99999) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l == ns.l|list }}{{ ns.l|tojson }}",
    "{% set ns = namespace(l=[]) %}{% for i in range(99999) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l|string|length }}",
    "{% set ns = namespace(l=[]) %}{% for i in range(40) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l|pprint }}",
    "{% set ns = namespace(t=()) %}{% for i in range(64) %}{% set ns.t = (ns.t, ns.t) %}{% endfor %}{{ {ns.t: 1} }}",
    "{% set ns = namespace(i=messages) %}{% for i in range(99999) %}{% set ns.i = ns.i|select %}{% endfor %}{{ ns.i|list }}",
    /* big */
    "{{ 'a' * 10**9 }}", "{{ 'a' * 99999999999999999999 }}", "{{ [1] * 10**9 }}", "{{ [[1] * 10**6] * 10**6 }}", "{{ (1, 2, 3) * 123456789 }}",
    "{% set ns = namespace(s=s) %}{% for i in range(99999) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s|length }}",
    "{% set ns = namespace(s=s) %}{% for i in range(99999) %}{% set ns.s = ns.s.replace('', ns.s) %}{% endfor %}{{ ns.s|length }}",
    "{% set ns = namespace(s=s) %}{% for i in range(99999) %}{% set ns.s = ns.s|replace('a', ns.s) %}{% endfor %}{{ ns.s }}",
    "{% set ns = namespace(s=s) %}{% for i in range(99999) %}{% set ns.s = ns.s.join(ns.s|list) %}{% endfor %}{{ ns.s }}",
    "{% set ns = namespace(s=s) %}{% for i in range(99999) %}{% set ns.s = [ns.s, ns.s]|join(ns.s) %}{% endfor %}{{ ns.s }}",
    "{% set ns = namespace(s=s) %}{% for i in range(99999) %}{% set ns.s = ns.s|tojson|tojson|tojson %}{% endfor %}{{ ns.s }}",
    "{% set ns = namespace(s='<&\"') %}{% for i in range(99999) %}{% set ns.s = ns.s|forceescape %}{% endfor %}{{ ns.s }}",
    "{% set ns = namespace(s=s) %}{% for i in range(99999) %}{% set ns.s = '%s%s' % (ns.s, ns.s) %}{% endfor %}{{ ns.s }}",
    "{% set ns = namespace(s=s) %}{% for i in range(99999) %}{% set ns.s = '{0}{0}'.format(ns.s) %}{% endfor %}{{ ns.s }}",
    "{% set ns = namespace(l=l) %}{% for i in range(99999) %}{% set ns.l = ns.l + ns.l %}{% endfor %}{{ ns.l }}",
    "{{ 'a'.center(10**9) }}", "{{ 'a'.ljust(10**9)|length }}", "{{ 'a'|center(10**9) }}", "{{ 'a'.zfill(10**9) }}", "{{ '%1000000000d' % 1 }}", "{{ '%.1000000000f' % 1 }}",
    "{{ '%*d' % (10**9, 1) }}", "{{ '{:1000000000}'.format(1) }}", "{{ '{:{}}'.format(1, 10**9) }}", "{{ '{:.999999999f}'.format(1.5) }}", "{{ 'a\nb'|indent(10**9) }}",
    "{{ 'a\tb'.expandtabs(10**9) }}", "{{ [1]|batch(10**9, 0)|list }}", "{{ [1]|slice(10**9)|list }}", "{{ d|tojson(indent=10**9) }}", "{{ 2 ** (10**9) }}", "{{ (10**9) ** (10**9) }}",
    "{% for i in range(99999) %}{{ s * 99999 }}{% endfor %}", "{% for i in range(99999) %}{% set x %}{{ s * 9999 }}{% endset %}{% endfor %}",
    "{% macro m() %}{{ s * 99999 }}{% endmacro %}{% for i in range(99999) %}{{ m() }}{% endfor %}", "{% filter upper %}{% for i in range(99999) %}{{ s * 99999 }}{% endfor %}{% endfilter %}",
    /* slow to look at */
    "{% set a = 'a' * 500000 %}{% for i in range(99999) %}{{ (a ~ 'b') in a }}{{ a.count('aaaaaaaaaaaab') }}{{ a.find('aaaaaab') }}{% endfor %}",
    "{% set a = 'a' * 300000 %}{{ a.rfind('b' ~ 'a' * 150000) }}{{ a.rsplit('b' ~ 'a' * 150000) }}{{ a.find('a' * 150000 ~ 'b') }}{{ a.replace('a' * 150000 ~ 'b', '') }}",
    "{% set a = ' ' * 300000 %}{% for i in range(99999) %}{{ (a ~ 'x' ~ a).split() }}{{ (a ~ 'x').strip() }}{% endfor %}",
    "{% set a = 'a-' * 100000 %}{% for i in range(9999) %}{{ a|wordwrap(7) }}{{ a|title }}{{ ('www.' * 50000)|urlize }}{% endfor %}",
    "{% set a = '(' * 200000 ~ 'http://a.b' ~ ')' * 200000 %}{{ a|urlize }}{{ ('&lt;' * 90000)|safe|urlize }}{% for i in range(9999) %}{{ a|urlize|length }}{% endfor %}",
    "{% set a = 'x' * 200000 %}{% for i in range(99999) %}{{ a[i] }}{{ a[::-1]|length }}{{ a|list|length }}{% endfor %}",
    "{% set a = '\u00e9' * 200000 %}{% for i in range(99999) %}{{ a[199999] }}{{ a[i:199999]|length }}{% endfor %}",
    "{% set a = ('%' * 99999 ~ 's') %}{% for i in range(9999) %}{{ a.strip('abcdefghijklmnopqrstuvwxyz%' * 9999) }}{{ a|striptags }}{% endfor %}",
    "{% set a = '<' * 300000 %}{{ a|striptags }}{% for i in range(99999) %}{{ ('<!--' * 9999)|striptags }}{% endfor %}",
    /* other templates, and what is not there */
    "{% include 'self' %}", "{% extends 'self' %}", "{% import 'self' as s %}", "{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ cycler.__init__.__globals__.os }}",
    "{{ raise_exception('x' * 10**9) }}", "{{ strftime_now('%c' * 10**8) }}", "{{ lipsum(10**9) }}", "{% set _ = namespace(__class__=1) %}",
};

static char *render(const jinja *t, const json_t *variables, jinja_report *report, vlm_error *error)
{
    static const struct tm now = {.tm_year = 126, .tm_mon = 2, .tm_mday = 5};
    buf out = {0};
    char *text = jinja_render(t, variables, &now, NULL, &out, report, error) ? buf_take(&out) : NULL;
    buf_free(&out);
    return text;
}

static void hostile_templates_are_stopped(void **state)
{
    (void)state;
    json_t *variables = json_loads(context, 0, NULL);
    double slowest = 0;
    size_t n = sizeof hostile / sizeof *hostile, which = 0;
    for (size_t i = 0; i < n; i++) {
        vlm_error error = {0};
        clock_t start = clock();
        jinja *t = jinja_compile(hostile[i], strlen(hostile[i]), &error);
        char *text = t ? render(t, variables, NULL, &error) : NULL;
        double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
        jinja_free(t);
        if (text) fail_msg("rendered: %s", hostile[i]);
        if (error.code == VLM_OK || error.code == VLM_MEMORY) fail_msg("%s: %s", hostile[i], error.message);
        if (seconds > slowest) slowest = seconds, which = i;
        if (seconds > 0.1) printf("%.0f ms: %s\n", seconds * 1e3, hostile[i]);
    }
    printf("%zu hostile templates stopped; the slowest took %.0f ms: %.70s\n", n, slowest * 1e3, hostile[which]);
    json_decref(variables);
}

/* Sources that are hard to compile: nested, endless, many names. */
static void hostile_sources_are_stopped(void **state)
{
    (void)state;
    static const char *const pieces[] = {"(", "[", "{", "not ", "-", "{% if 1 %}", "{% for a in b %}", "{% macro m() %}", "{{ ", "{% set a %}", "a.", "a[", "a|", "a if ", "'", "{#", "{% raw %}", "x ~ "};
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++)
        for (int tag = 0; tag < 2; tag++) {
            buf source = {0};
            if (tag) buf_adds(&source, "{{ ");
            while (source.size < 900000) buf_adds(&source, pieces[i]);
            vlm_error error = {0};
            clock_t start = clock();
            jinja *t = jinja_compile(source.data, source.size, &error);
            double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
            if (seconds > 0.1) printf("%.0f ms to compile: %s\n", seconds * 1e3, pieces[i]);
            if (t && tag) fail_msg("compiled: %s", pieces[i]);
            jinja_free(t);
            buf_free(&source);
        }
    buf source = {0};
    for (int i = 0; i < 30000; i++) buf_addf(&source, "{{ name%d }}{%% set other%d = name%d %%}", i % 4000, i % 90, i);
    vlm_error error = {0};
    jinja_free(jinja_compile(source.data, source.size, &error));
    assert_int_equal(error.code, VLM_LIMIT);
    buf_free(&source);
}

/* ---- cost ---- */

static const char chat[] =
    "{% macro show(content) %}{% if content is string %}{{ content }}{% else %}{% for p in content %}{{ p.text }}{% endfor %}{% endif %}{% endmacro %}"
    "{%- set ns = namespace(last=-1, system='') %}{%- for m in messages %}{%- if m.role == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}"
    "{%- for m in messages %}<|{{ m.role }}|>\n{% if m.role == 'assistant' and loop.index0 > ns.last and m.reasoning_content %}<think>{{ m.reasoning_content | trim }}</think>{% endif %}"
    "{{ show(m.content) }}{% for c in m.tool_calls %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}{% if not loop.last and loop.nextitem.role != m.role %}<|end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}";

static json_t *conversation(int n)
{
    json_t *messages = json_array();
    for (int i = 0; i < n; i++) {
        json_t *m = i % 4 == 3 ? json_pack("{s:s, s:s, s:[{s:{s:s, s:{s:s}}}]}", "role", "assistant", "content", "", "tool_calls", "function", "name", "get_weather", "arguments", "city", "Paris")
                               : json_pack("{s:s, s:[{s:s, s:s}]}", "role", i % 2 ? "assistant" : "user", "content", "type", "text", "text", "The quick brown fox jumps over the lazy dog.");
        json_array_append_new(messages, m);
    }
    return json_pack("{s:o, s:b, s:n, s:n}", "messages", messages, "add_generation_prompt", 1, "tools", "documents");
}

static void cost_is_linear(void **state)
{
    (void)state;
    jinja *t = jinja_compile(chat, sizeof chat - 1, NULL);
    assert_non_null(t);
    uint64_t steps[3];
    for (int i = 0; i < 3; i++) {
        json_t *variables = conversation(200 << i);
        jinja_report report = {0};
        vlm_error error = {0};
        char *text = render(t, variables, &report, &error);
        if (!text) fail_msg("%s", error.message);
        steps[i] = report.steps;
        mem_free(text);
        json_decref(variables);
    }
    printf("steps of 200, 400, 800 messages: %llu %llu %llu\n", (unsigned long long)steps[0], (unsigned long long)steps[1], (unsigned long long)steps[2]);
    assert_true(steps[1] < steps[0] * 21 / 10);
    assert_true(steps[2] < steps[1] * 21 / 10);
    jinja_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(hostile_templates_are_stopped), cmocka_unit_test(hostile_sources_are_stopped), cmocka_unit_test(cost_is_linear)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
