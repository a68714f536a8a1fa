/* toolcall_test.c - text/toolcall.h: cases of every format, whole and cut anywhere; calls written as the table spells them, read back; broken
 * ends; streaming; markers as tokens; ids. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <time.h>

#include "toolcall_run.h"

#define CHECK(...) do { if (!(__VA_ARGS__)) { print_error("%s:%d: %s\n", __FILE__, __LINE__, #__VA_ARGS__); fail(); } } while (0)

static json_t *data;                /* tests/data/text/toolcall_cases.json */
static uint64_t random_state;

static uint64_t next_random(void) { return random_state = random_state * 6364136223846793005u + 1442695040888963407u, random_state >> 33; }

static int load(void **state)
{
    (void)state;
    json_error_t error;
    data = json_load_file("tests/data/text/toolcall_cases.json", 0, &error);
    if (!data) print_error("%s:%d: %s\n", error.source, error.line, error.text);
    return data ? 0 : -1;
}

static int unload(void **state)
{
    (void)state;
    json_decref(data);
    return 0;
}

static const char *text_of(const buf *b) { return b->data ? b->data : ""; }

/* Equal as JSON; numbers that do not fit are compared as texts. */
static bool same_json(const char *a, const json_t *want)
{
    json_t *got = json_loads(a, JSON_DECODE_ANY, NULL);
    bool same = got ? json_equal(got, want) : json_is_string(want) && !strcmp(a, json_string_value(want));
    json_decref(got);
    return same;
}

static void check_case(const json_t *c, const run_result *r, const char *how)
{
    const char *raw = json_string_value(json_object_get(c, "raw")), *reasoning = json_string_value(json_object_get(c, "reasoning"));
    const char *content = json_string_value(json_object_get(c, "content")), *format = json_string_value(json_object_get(c, "format"));
    const json_t *calls = json_object_get(c, "calls"), *ids = json_object_get(c, "ids");
    bool good = r->ok && r->order && !strcmp(text_of(&r->reasoning), reasoning ? reasoning : "") && !strcmp(text_of(&r->content), content ? content : "") &&
                r->calls == json_array_size(calls);
    for (size_t i = 0; good && i < r->calls; i++) {
        const json_t *call = json_array_get(calls, i), *arguments = json_array_get(call, 1);
        const char *exact = json_string_value(json_array_get(call, 2));
        good = !strcmp(r->call[i].name, json_string_value(json_array_get(call, 0)));
        good = good && (exact ? !strcmp(text_of(&r->call[i].arguments), exact) : same_json(text_of(&r->call[i].arguments), arguments));
        const char *id = json_string_value(json_array_get(ids, i));
        good = good && (!id || !strcmp(r->call[i].id, id));
    }
    if (good) return;
    print_error("%s, %s: %s\n  reasoning [%s]\n  content [%s]\n", format, how, raw, text_of(&r->reasoning), text_of(&r->content));
    for (size_t i = 0; i < r->calls; i++) print_error("  call %s %s %s\n", r->call[i].id, r->call[i].name, text_of(&r->call[i].arguments));
    fail();
}

static toolcall_options options_of(const json_t *c)
{
    return (toolcall_options){.tools = json_object_get(data, "tools"), .thinking_open = json_is_true(json_object_get(c, "thinking_open"))};
}

static void cases_anyhow_cut(void **state)
{
    (void)state;
    size_t i;
    json_t *c;
    json_array_foreach(json_object_get(data, "cases"), i, c) {
        const char *raw = json_string_value(json_object_get(c, "raw")), *format = json_string_value(json_object_get(c, "format"));
        const char *finish = json_string_value(json_object_get(c, "finish"));
        size_t n = strlen(raw);
        toolcall_options o = options_of(c);
        CHECK(toolcall_format_find(format));
        run_result r = run_parser(format, &o, raw, n, NULL, 0, 0, finish);
        check_case(c, &r, "whole");
        run_clear(&r);
        for (size_t cut = 1; cut < n; cut++) {
            r = run_parser(format, &o, raw, n, &cut, 1, 0, finish);
            check_case(c, &r, "cut once");
            run_clear(&r);
        }
        for (size_t step = 1; step < 8; step++) {
            r = run_parser(format, &o, raw, n, NULL, 0, step, finish);
            check_case(c, &r, "in small pieces");
            run_clear(&r);
        }
    }
}

/* A text that ends anywhere gives the same however it was cut; nothing hangs, and arguments that are told when a call is complete are JSON. */
static void ends_anywhere(void **state)
{
    (void)state;
    size_t i;
    json_t *c;
    json_array_foreach(json_object_get(data, "cases"), i, c) {
        const char *raw = json_string_value(json_object_get(c, "raw")), *format = json_string_value(json_object_get(c, "format"));
        size_t n = strlen(raw);
        for (int eager = 0; eager < 2; eager++)
            for (size_t end = 0; end < n; end++) {
                toolcall_options o = options_of(c);
                o.eager = eager;
                run_result whole = run_parser(format, &o, raw, end, NULL, 0, 0, "length"), bytes = run_parser(format, &o, raw, end, NULL, 0, 1, "length");
                if (!whole.ok || !run_same(&whole, &bytes)) {
                    print_error("%s%s at %zu: %.*s\n  [%s] [%s] %zu\n  [%s] [%s] %zu\n", format, eager ? " eager" : "", end, (int)end, raw, text_of(&whole.reasoning),
                                text_of(&whole.content), whole.calls, text_of(&bytes.reasoning), text_of(&bytes.content), bytes.calls);
                    for (size_t k = 0; k < whole.calls && k < bytes.calls; k++) print_error("  %s | %s\n", text_of(&whole.call[k].arguments), text_of(&bytes.call[k].arguments));
                    fail();
                }
                for (size_t k = 0; !eager && k < whole.calls; k++) {
                    json_t *arguments = json_loads(text_of(&whole.call[k].arguments), JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL, NULL);
                    CHECK(arguments);
                    json_decref(arguments);
                }
                run_clear(&whole);
                run_clear(&bytes);
            }
    }
}

/* Told early, complete calls are the same calls. */
static void eager_is_equal(void **state)
{
    (void)state;
    size_t i;
    json_t *c;
    json_array_foreach(json_object_get(data, "cases"), i, c) {
        const char *raw = json_string_value(json_object_get(c, "raw")), *format = json_string_value(json_object_get(c, "format"));
        if (json_is_true(json_object_get(c, "broken"))) continue;
        toolcall_options o = options_of(c);
        o.eager = true;
        run_result r = run_parser(format, &o, raw, strlen(raw), NULL, 0, 1, json_string_value(json_object_get(c, "finish")));
        json_object_del(c, "ids");                                /* an id behind the arguments comes too late */
        check_case(c, &r, "eager");
        run_clear(&r);
    }
}

/* ---- calls written as the table spells them ---- */

static void add_json(buf *out, const json_t *value)
{
    char *text = json_dumps(value, JSON_ENCODE_ANY);
    buf_adds(out, text);
    free(text);
}

static const char *type_name(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_STRING: return "string";
    case JSON_OBJECT: return "object";
    case JSON_ARRAY: return "array";
    case JSON_NULL: return "null";
    case JSON_TRUE: case JSON_FALSE: return "boolean";
    default: return "number";
    }
}

/* A piece of spelling with its placeholders filled in. */
static void add_spelled(buf *out, const char *piece, size_t index, const char *name, const char *key, const json_t *value)
{
    for (; piece && *piece; piece++) {
        if (*piece != '%') buf_addc(out, *piece);
        else switch (*++piece) {
        case 'i': buf_addf(out, "%zu", index); break;
        case 'I': buf_addf(out, "%zu", index + 1); break;
        case 'd': buf_addf(out, "abcdefgh%zu", index % 10); break;
        case 'n': buf_adds(out, name); break;
        case 'k': buf_adds(out, key); break;
        case 't': buf_adds(out, type_name(value)); break;
        case 's': buf_adds(out, json_is_string(value) ? "true" : "false"); break;
        default: fail();
        }
    }
}

static void add_pairs(buf *out, const json_t *v, const char *quote)
{
    const char *key;
    json_t *item;
    size_t i, n = 0;
    if (json_is_string(v)) buf_adds(out, quote), buf_adds(out, json_string_value(v)), buf_adds(out, quote);
    else if (json_is_object(v)) {
        buf_addc(out, '{');
        json_object_foreach((json_t *)v, key, item) {
            if (n++) buf_addc(out, ',');
            buf_adds(out, key);
            buf_addc(out, ':');
            add_pairs(out, item, quote);
        }
        buf_addc(out, '}');
    }
    else if (json_is_array(v)) {
        buf_addc(out, '[');
        json_array_foreach(v, i, item) {
            if (i) buf_addc(out, ',');
            add_pairs(out, item, quote);
        }
        buf_addc(out, ']');
    }
    else add_json(out, v);
}

static void add_python(buf *out, const json_t *v)
{
    const char *key;
    json_t *item;
    size_t i, n = 0;
    if (json_is_string(v)) {
        buf_addc(out, '\'');
        for (const char *s = json_string_value(v); *s; s++) {
            if (*s == '\n') buf_adds(out, "\\n");
            else if (*s == '\'' || *s == '\\') buf_addc(out, '\\'), buf_addc(out, *s);
            else buf_addc(out, *s);
        }
        buf_addc(out, '\'');
    }
    else if (json_is_object(v)) {
        buf_addc(out, '{');
        json_object_foreach((json_t *)v, key, item) {
            json_t *k = json_string(key);
            if (n++) buf_adds(out, ", ");
            add_python(out, k);
            json_decref(k);
            buf_adds(out, ": ");
            add_python(out, item);
        }
        buf_addc(out, '}');
    }
    else if (json_is_array(v)) {
        buf_addc(out, '[');
        json_array_foreach(v, i, item) {
            if (i) buf_adds(out, ", ");
            add_python(out, item);
        }
        buf_addc(out, ']');
    }
    else if (json_is_boolean(v)) buf_adds(out, json_is_true(v) ? "True" : "False");
    else if (json_is_null(v)) buf_adds(out, "None");
    else add_json(out, v);
}

static void add_nested(buf *out, const json_t *v, const toolcall_spelling *s)
{
    const char *key;
    json_t *item;
    size_t i;
    if (json_is_object(v))
        json_object_foreach((json_t *)v, key, item) {
            buf_adds(out, s->tag_begin), buf_adds(out, key), buf_adds(out, s->tag_middle);
            add_nested(out, item, s);
            add_spelled(out, s->tag_end, 0, "", key, item);
        }
    else if (json_is_array(v))
        json_array_foreach(v, i, item) {
            buf_adds(out, s->tag_begin), buf_adds(out, "item"), buf_adds(out, s->tag_middle);
            add_nested(out, item, s);
            add_spelled(out, s->tag_end, 0, "", "item", item);
        }
    else if (json_is_string(v)) buf_adds(out, json_string_value(v));
    else add_json(out, v);
}

static void add_call(buf *out, const toolcall_spelling *s, size_t index, const char *name, const json_t *arguments)
{
    const char *key;
    json_t *value;
    size_t n = 0;
    add_spelled(out, s->call_begin, index, name, "", NULL);
    buf_adds(out, name);
    add_spelled(out, s->name_end, index, name, "", NULL);
    if (s->arguments == TOOLCALL_JSON) add_json(out, arguments);
    if (s->arguments == TOOLCALL_PAIRS) add_pairs(out, arguments, s->quote);
    if (s->arguments == TOOLCALL_NESTED) add_nested(out, arguments, s);
    if (s->arguments == TOOLCALL_TAGS || s->arguments == TOOLCALL_PYTHON)
        json_object_foreach((json_t *)arguments, key, value) {
            bool tags = s->arguments == TOOLCALL_TAGS;
            if (n++ && !tags) buf_adds(out, ", ");
            if (tags) add_spelled(out, s->tag_begin, index, name, key, value);
            buf_adds(out, key);
            if (tags) add_spelled(out, s->tag_middle, index, name, key, value);
            else buf_addc(out, '=');
            if (!tags) add_python(out, value);
            else if (json_is_string(value)) buf_adds(out, json_string_value(value));
            else add_json(out, value);
            if (tags) add_spelled(out, s->tag_end, index, name, key, value);
        }
    add_spelled(out, s->call_end, index, name, "", NULL);
}

static const char *const pieces[] = {
    "a", "Lyon", " ", "\n", "\"", "'", "\\", "{", "}", "[", "]", "(", ")", ",", ":", "=", "é", "日本", "😀", "<b>", "</b>", "&amp;", "```", "\t", "0", "null", "true",
    "<tool_call>", "</tool_call>", "<think>", "</think>", "</function>", "<|im_end|>", "[TOOL_CALLS]", "<tool_call|>", "<|tool_call_end|>", "</invoke>", "\\n", "; ", "%", "<", ">",
};

/* Words whose sense in a format is markup are left out there: what has no escape cannot be quoted. */
static json_t *random_string(const toolcall_spelling *s, const char *format)
{
    buf out = {0};
    bool raw = s->arguments != TOOLCALL_JSON && s->arguments != TOOLCALL_PYTHON;
    for (size_t n = next_random() % 8; n; n--) {
        const char *piece = pieces[next_random() % (sizeof pieces / sizeof *pieces)];
        if (raw && (strchr(piece, '<') || strchr(piece, '&') || !strcmp(piece, "null")) && strcmp(piece, "<b>") && strcmp(piece, "<")) continue;
        buf_adds(&out, piece);
    }
    (void)format;
    if (raw && out.size && (out.data[0] == '\n' || out.data[out.size - 1] == '\n')) buf_addc(&out, 'x'), memmove(out.data, "x", out.data[0] == '\n');
    json_t *text = json_stringn(out.data ? out.data : "", out.size);
    buf_free(&out);
    return text;
}

static json_t *random_value(const toolcall_spelling *s, const char *format, const char *type, int depth)
{
    bool nested = s->arguments == TOOLCALL_NESTED;
    if (!strcmp(type, "string")) return random_string(s, format);
    if (!strcmp(type, "integer")) return json_integer((json_int_t)(next_random() % 2000) - 1000);
    if (!strcmp(type, "number")) return json_real((double)(next_random() % 1000) / 8);
    if (!strcmp(type, "boolean")) return json_boolean(next_random() % 2);
    if (!strcmp(type, "strings") || !strcmp(type, "integers")) {
        json_t *list = json_array();
        for (size_t n = next_random() % 4 + nested; n; n--) json_array_append_new(list, random_value(s, format, type[0] == 's' ? "string" : "integer", depth + 1));
        return list;
    }
    json_t *object = json_object();
    json_object_set_new(object, "lang", random_string(s, format));
    if (next_random() % 2) json_object_set_new(object, "years", random_value(s, format, "integers", depth + 1));
    if (depth < 3 && next_random() % 2) json_object_set_new(object, "inner", random_value(s, format, "object", depth + 1));
    return object;
}

/* The tool "find_flights" of the data: parameters of all types. */
static json_t *random_arguments(const toolcall_spelling *s, const char *format)
{
    static const char *const parameters[][2] = {{"city", "string"}, {"count", "integer"}, {"limit", "number"}, {"direct", "boolean"}, {"labels", "strings"},
                                                {"days", "integers"}, {"options", "object"}};
    json_t *arguments = json_object();
    for (size_t i = 0; i < 7; i++)
        if (next_random() % 2) json_object_set_new(arguments, parameters[i][0], random_value(s, format, parameters[i][1], 0));
    return arguments;
}

static void spelled_calls_come_back(void **state)
{
    (void)state;
    random_state = 20260305;
    for (size_t f = 0; toolcall_format_at(f); f++) {
        const toolcall_spelling *s = toolcall_format_spelling(toolcall_format_at(f));
        const char *format = toolcall_format_name(toolcall_format_at(f));
        if (s->arguments == TOOLCALL_NONE) continue;
        for (int round = 0; round < 60; round++) {
            size_t calls = 1 + next_random() % 3;
            bool several = s->between[0] || s->begin[0] || s->call_end[0] || s->call_begin[0];
            json_t *arguments[3];
            buf raw = {0};
            buf_adds(&raw, s->begin);
            for (size_t i = 0; i < calls; i++) {
                if (i) buf_adds(&raw, s->between);
                arguments[i] = random_arguments(s, format);
                add_call(&raw, s, i, "find_flights", arguments[i]);
            }
            buf_adds(&raw, s->end);
            CHECK(several);
            toolcall_options o = {.tools = json_object_get(data, "tools"), .eager = round % 3 == 2};
            run_result whole = run_parser(format, &o, raw.data, raw.size, NULL, 0, 0, "stop"), pieces_of = run_parser(format, &o, raw.data, raw.size, NULL, 0, 1 + next_random() % 5, "stop");
            bool good = whole.calls == calls && !whole.content.size && !whole.reasoning.size && run_same(&whole, &pieces_of);
            for (size_t i = 0; good && i < calls; i++) good = !strcmp(whole.call[i].name, "find_flights") && same_json(text_of(&whole.call[i].arguments), arguments[i]);
            if (!good) {
                print_error("%s: %s\n  content [%s], %zu calls, %s\n", format, raw.data, text_of(&whole.content), whole.calls, run_same(&whole, &pieces_of) ? "" : "differs when cut");
                for (size_t i = 0; i < whole.calls; i++) print_error("  %s\n", text_of(&whole.call[i].arguments));
                fail();
            }
            for (size_t i = 0; i < calls; i++) json_decref(arguments[i]);
            buf_free(&raw);
            run_clear(&whole);
            run_clear(&pieces_of);
        }
    }
}

/* ---- time ---- */

static void time_is_linear(void **state)
{
    (void)state;
    static const char *const patterns[] = {
        "<", "<tool_call>", "<tool_call>{\"a\":", "{", "[", "<|tool_call>call:f{a:<|\"|>", "<tool_call><function=f><parameter=a>", "</parameter>", "\"", "\\", " ", "\n", "`", "[f(a=\"",
        "[TOOL_CALLS]f[ARGS]{\"a\":\"", "<tool_call>f<arg_key>k</arg_key><arg_value>v", "<|channel|>", "]<]minimax[>[<a>", "{\"name\": \"f\", \"parameters\": {", "<|im_end|>", "'", "(", "a, b=",
        "<think>", "</think>", "<tool_call>[", "<|tool_calls_section_begin|><|tool_call_begin|>f:0<|tool_call_argument_begin|>{", "<|message_sep|>", "é", "\xe2\x80\x83", "&",
    };
    enum { SIZE = 60000 };
    for (size_t f = 0; toolcall_format_at(f); f++)
        for (size_t k = 0; k < sizeof patterns / sizeof *patterns; k++) {
            if ((k + f) % 3) continue;                            /* a third is enough for every day */
            buf text = {0};
            if (k % 2 && toolcall_format_spelling(toolcall_format_at(f))->trigger) buf_adds(&text, toolcall_format_spelling(toolcall_format_at(f))->trigger);
            while (text.size < SIZE) buf_adds(&text, patterns[k]);
            toolcall_options o = {.tools = json_object_get(data, "tools"), .eager = k % 4 == 0};
            clock_t begin = clock();
            run_result r = run_parser(toolcall_format_name(toolcall_format_at(f)), &o, text.data, text.size, NULL, 0, 1, "stop");
            double seconds = (double)(clock() - begin) / CLOCKS_PER_SEC;
            if (seconds > 2) print_error("%s: %s: %.1f s\n", toolcall_format_name(toolcall_format_at(f)), patterns[k], seconds);
            CHECK(r.ok && seconds < 2);
            run_clear(&r);
            buf_free(&text);
        }
}

/* ---- the rest ---- */

static bool is_token(void *user, const char *text, size_t size)
{
    (void)user;
    static const char *const tokens[] = {"<tool_call>", "</tool_call>", "<think>", "</think>"};
    for (size_t i = 0; i < 4; i++)
        if (strlen(tokens[i]) == size && !memcmp(tokens[i], text, size)) return true;
    return false;
}

/* What the tokenizer knows as a token counts only as that token. */
static void markers_are_tokens(void **state)
{
    (void)state;
    static const struct { const char *text; bool special; } feed[] = {
        {"<think>", true}, {"I may write </think> and <tool_call>.", false}, {"</think>", true}, {"Write <tool_call>{} like this: ", false}, {"<tool_call>", true},
        {"{\"name\": \"f\", \"arguments\": {}}", false}, {"</tool_call>", true}, {" </tool_call>", false},
    };
    toolcall_options o = {.is_token = is_token};
    toolcall_parser *p = toolcall_parser_new(toolcall_format_find("hermes_json"), &o, NULL);
    run_result r = {.order = true};
    CHECK(p);
    for (size_t i = 0; i < sizeof feed / sizeof *feed; i++) {
        CHECK(toolcall_feed(p, feed[i].text, strlen(feed[i].text), feed[i].special));
        CHECK(toolcall_in_reasoning(p) == (i < 2));
        run_drain(p, &r);
    }
    CHECK(toolcall_finish(p, "stop"));
    run_drain(p, &r);
    assert_string_equal(text_of(&r.reasoning), "I may write </think> and <tool_call>.");
    assert_string_equal(text_of(&r.content), "Write <tool_call>{} like this:  </tool_call>");
    assert_int_equal(r.calls, 1);
    run_clear(&r);
    toolcall_parser_free(p);
}

static void options_do_what_they_say(void **state)
{
    (void)state;
    static const char text[] = "<think>x</think>\n\n a <tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call> b \n";
    toolcall_options o = {.keep_space = true};
    run_result r = run_parser("hermes_json", &o, text, sizeof text - 1, NULL, 0, 1, "stop");
    assert_string_equal(text_of(&r.content), "\n\n a  b \n");
    run_clear(&r);
    o = (toolcall_options){.no_calls = true};
    r = run_parser("hermes_json", &o, text, sizeof text - 1, NULL, 0, 1, "stop");
    assert_string_equal(text_of(&r.content), "a <tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call> b");
    run_clear(&r);
    o = (toolcall_options){.think_open = "<<", .think_close = ">>"};
    r = run_parser("hermes_json", &o, "<<why>>this", 11, NULL, 0, 1, "stop");
    assert_string_equal(text_of(&r.reasoning), "why");
    assert_string_equal(text_of(&r.content), "this");
    run_clear(&r);
}

static void ids_have_the_familys_form(void **state)
{
    (void)state;
    static const char text[] = "[TOOL_CALLS]f[ARGS]{}[TOOL_CALLS]g[ARGS]{}";
    char first[2][16];
    for (uint64_t seed = 0; seed < 2; seed++) {
        toolcall_options o = {.seed = seed};
        run_result r = run_parser("mistral", &o, text, sizeof text - 1, NULL, 0, 1, "stop");
        assert_int_equal(r.calls, 2);
        for (int i = 0; i < 2; i++) {
            assert_int_equal(strlen(r.call[i].id), 9);
            assert_int_equal(strspn(r.call[i].id, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"), 9);
        }
        assert_string_not_equal(r.call[0].id, r.call[1].id);
        snprintf(first[seed], sizeof *first, "%s", r.call[0].id);
        run_clear(&r);
    }
    assert_string_not_equal(first[0], first[1]);
    run_result r = run_parser("hermes_json", NULL, "<tool_call>{\"name\": \"f\"}</tool_call>", 36, NULL, 0, 0, "stop");
    assert_int_equal(strncmp(r.call[0].id, "call_", 5), 0);
    run_clear(&r);
}

static void templates_choose_formats(void **state)
{
    (void)state;
    size_t i;
    json_t *pair;
    json_array_foreach(json_object_get(data, "templates"), i, pair)
        assert_string_equal(toolcall_format_name(toolcall_format_detect(json_string_value(json_array_get(pair, 0)))), json_string_value(json_array_get(pair, 1)));
    assert_string_equal(toolcall_format_name(toolcall_format_detect(NULL)), "plain");
    const toolcall_format *hermes = toolcall_format_find("hermes"), *hy3 = toolcall_format_find("hy3"), *harmony = toolcall_format_find("harmony");
    assert_ptr_equal(hermes, toolcall_format_find("hermes_json"));
    assert_true(toolcall_prompt_thinks(hermes, "<|im_start|>assistant\n<think>\n", 30));
    assert_false(toolcall_prompt_thinks(hermes, "<think>\n\n</think>\n\n", 19));
    assert_true(toolcall_prompt_thinks(hy3, "<think:opensource>", 18));
    assert_false(toolcall_prompt_thinks(hy3, "</think:opensource>", 19));
    assert_string_equal(toolcall_think_force(harmony), "<|end|><|start|>assistant<|channel|>final<|message|>");
    assert_string_equal(toolcall_think_also_ends(toolcall_format_find("kimi_k2")), "<|tool_calls_section_begin|>");
    assert_null(toolcall_think_also_ends(hermes));
    assert_true(toolcall_is_marker(hermes, "<tool_call>", 11));
    assert_true(toolcall_is_marker(toolcall_format_find("gemma4"), "<|\"|>", 5));
    assert_false(toolcall_is_marker(hermes, "<|im_end|>", 10));
}

/* Each allocation fails once: no crash, no leak, and the parser says so or is not hurt. */
static void memory_may_run_out(void **state)
{
    (void)state;
    static const char text[] = "<think>a</think>b<tool_call>\n<function=find_flights>\n<parameter=days>\n[1]\n</parameter>\n</function>\n</tool_call>";
    toolcall_options o = {.tools = json_object_get(data, "tools")};
    for (uint64_t n = 1; n < 400; n++) {
        mem_fail_at(n);
        run_result r = {.order = true};
        toolcall_parser *p = toolcall_parser_new(toolcall_format_find("qwen3_xml"), &o, NULL);
        bool ok = p && toolcall_feed(p, text, sizeof text - 1, false) && toolcall_finish(p, "stop");
        bool failed = mem_failed();
        mem_fail_at(0);
        toolcall_parser_free(p);
        run_clear(&r);
        if (!failed) {
            CHECK(ok);
            return;
        }
    }
    fail();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cases_anyhow_cut), cmocka_unit_test(ends_anywhere), cmocka_unit_test(eager_is_equal), cmocka_unit_test(spelled_calls_come_back),
        cmocka_unit_test(time_is_linear), cmocka_unit_test(markers_are_tokens), cmocka_unit_test(options_do_what_they_say), cmocka_unit_test(ids_have_the_familys_form),
        cmocka_unit_test(templates_choose_formats), cmocka_unit_test(memory_may_run_out),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
