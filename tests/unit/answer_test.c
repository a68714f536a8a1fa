/* answer_test.c - answers of the demo model: reasoning, tool calls, stop strings, structured output, as events and as a whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"

static vlm_model *model;
static vlm_engine *engine;

static int set_up(void **state)
{
    (void)state;
    vlm_error error = {0};
    vlm_engine_options o = vlm_engine_options_default();
    o.kv_bytes = (uint64_t)64 << 20;
    model = vlm_load("models/demo", NULL, &error);
    engine = model ? vlm_engine_new(model, &o, &error) : NULL;
    if (!engine) print_error("%s\n", error.message);
    return engine ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    vlm_engine_free(engine);
    vlm_model_free(model);
    return 0;
}

#define USER(text) "[{\"role\":\"user\",\"content\":\"" text "\"}]"
#define TOOL(name, about, member, type)                                                                                     \
    "{\"type\":\"function\",\"function\":{\"name\":\"" name "\",\"description\":\"" about "\",\"parameters\":{\"type\":\"object\"," \
    "\"properties\":{" member "},\"required\":[" type "]}}}"
static const char tools[] = "[" TOOL("get_weather", "Get the current weather for a city", "\"city\":{\"type\":\"string\",\"description\":\"The city name\"}", "\"city\"") ","
    TOOL("add", "Add two numbers", "\"a\":{\"type\":\"integer\",\"description\":\"First number\"},\"b\":{\"type\":\"integer\",\"description\":\"Second number\"}", "\"a\",\"b\"") "]";
static const char thinking[] = "{\"enable_thinking\": true}";

static vlm_request_options options(const char *messages)
{
    vlm_request_options o = vlm_request_options_default();
    o.messages = messages;
    o.sampling.temperature = 0;
    o.max_tokens = 100;
    return o;
}

/* What came, event by event: (r) reasoning, text as it is, {name arguments} calls, [reason] the end. */
typedef struct heard { buf text; bool in_reasoning; vlm_result result; vlm_error error; int tokens; } heard;

static int hear(const vlm_event *event, void *user)
{
    heard *h = user;
    bool reasoning = event->type == VLM_EVENT_REASONING;
    if (event->type == VLM_EVENT_TOKEN) h->tokens++;
    if (reasoning && !h->in_reasoning) buf_adds(&h->text, "(");
    if (!reasoning && h->in_reasoning && event->type != VLM_EVENT_TOKEN) buf_adds(&h->text, ")");
    if (event->type != VLM_EVENT_TOKEN) h->in_reasoning = reasoning;
    if (event->type == VLM_EVENT_TEXT || reasoning) buf_add(&h->text, event->text, event->text_bytes);
    if (event->type == VLM_EVENT_TOOL_CALL) {
        if (event->call_event == VLM_CALL_START) {
            assert_true(strlen(event->call_id) > 8);
            buf_addf(&h->text, "{%d %s ", event->call_index, event->call_name);
        }
        if (event->call_event == VLM_CALL_ARGUMENTS) buf_add(&h->text, event->text, event->text_bytes);
        if (event->call_event == VLM_CALL_END) buf_adds(&h->text, "}");
    }
    if (event->type == VLM_EVENT_DONE) buf_addf(&h->text, "[%s%s%s]", event->finish_reason, event->stop_string ? " " : "", event->stop_string ? event->stop_string : "");
    return 0;
}

/* Valid until the next call. */
static heard *ask(const vlm_request_options *o)
{
    static heard h;
    buf_free(&h.text);
    vlm_result_clear(&h.result);
    h = (heard){0};
    vlm_request *r = vlm_submit(engine, o, &h.error);
    if (r) vlm_request_collect(r, hear, &h, &h.result, &h.error);
    vlm_request_free(r);
    if (h.error.code) { buf_clear(&h.text); buf_addf(&h.text, "error %d: %s", h.error.code, h.error.message); }
    return &h;
}

static void thinks(void **state)
{
    (void)state;
    vlm_request_options o = options(USER("What is 17 + 25?"));
    assert_string_equal(ask(&o)->text.data, "42[stop]");
    o.chat.template_kwargs = thinking;
    heard *h = ask(&o);
    assert_string_equal(h->text.data, "(17 + 25 = 42)42[stop]");
    assert_string_equal(h->result.text, "42");
    assert_string_equal(h->result.reasoning, "17 + 25 = 42");
    assert_null(h->result.tool_calls);
    assert_int_equal(h->result.usage.reasoning_tokens, 14);
    assert_int_equal(h->result.usage.completion_tokens, 20);
    o.parse = 0;                                                   /* as it is: control tokens have no text, or have */
    assert_string_equal(ask(&o)->text.data, "thought\n17 + 25 = 42\n42[stop]");
    o.skip_special_tokens = 0;
    assert_string_equal(ask(&o)->text.data, "<|channel>thought\n17 + 25 = 42\n<channel|>42[stop]");
}

static void budgets(void **state)
{
    (void)state;
    vlm_request_options o = options(USER("What is 17 + 25?"));
    o.chat.template_kwargs = thinking;
    o.thinking_budget = 100;
    assert_string_equal(ask(&o)->text.data, "(17 + 25 = 42)42[stop]");
    for (int logprobs = 0; logprobs < 2; logprobs++) {
        o.sampling.logprobs = logprobs;
        o.thinking_budget = 3;
        heard *h = ask(&o);
        assert_string_equal(h->text.data, "(17)17[stop]");
        assert_int_equal(h->result.usage.reasoning_tokens, 4);      /* and the line break that was missing */
        assert_int_equal(h->tokens, logprobs ? h->result.usage.completion_tokens - 1 : 0);
        o.thinking_budget = 0;
        h = ask(&o);
        assert_null(h->result.reasoning);
        assert_true(strlen(h->result.text) > 0);
    }
    o.sampling.logprobs = 0;                                       /* a block that the prompt leaves open, markers of the request's own */
    o.messages = NULL;
    o.prompt = "<bos><|turn>user\nWhat is 17 + 25?<turn|>\n<|turn>model\n<|channel>thought\n";
    o.parse = 1;
    o.thinking_budget = 0;
    heard *h = ask(&o);
    assert_int_equal(h->result.tokens[0], 14);                     /* its end, forced */
    assert_null(h->result.reasoning);
    assert_string_equal(h->result.finish_reason, "stop");
    o.thinking_start = "model";
    o.thinking_end = " that is all";
    o.prompt = "<bos><|turn>user\nWhat is 17 + 25?<turn|>\n<|turn>model\n";
    o.max_tokens = 8;
    h = ask(&o);
    assert_true(h->result.usage.reasoning_tokens > 0 && h->result.usage.reasoning_tokens < 8);
    assert_null(strstr(h->text.data, "that is all"));
}

static void calls(void **state)
{
    (void)state;
    vlm_request_options o = options(USER("What is the weather in Paris?"));
    o.chat.tools = tools;
    heard *h = ask(&o);
    assert_string_equal(h->text.data, "{0 get_weather {\"city\": \"Paris\"}}[tool_calls]");
    json_t *list = json_loads(h->result.tool_calls, 0, NULL);
    const json_t *function = json_object_get(json_array_get(list, 0), "function");
    assert_string_equal(json_string_value(json_object_get(function, "name")), "get_weather");
    assert_string_equal(json_string_value(json_object_get(function, "arguments")), "{\"city\": \"Paris\"}");
    json_decref(list);
    int with = h->result.usage.prompt_tokens;
    o.tool_choice = "none";                                        /* the model does not even see them */
    h = ask(&o);
    assert_null(h->result.tool_calls);
    assert_true(h->result.usage.prompt_tokens < with);
    o.tool_choice = "auto";
    o.parse = 0;
    assert_string_equal(ask(&o)->text.data, "call:get_weather{city:Paris}[stop]");
    o.parse = -1;
    o.max_tokens = 11;                                             /* cut inside the arguments */
    assert_string_equal(ask(&o)->text.data, "{0 get_weather {\"city\": \"Paris}[length]");
    o.max_tokens = 100;
    o.tool_choice = "{\"type\":\"function\",\"function\":{\"name\":\"nothing\"}}";
    assert_int_equal(ask(&o)->error.code, VLM_INVALID);
    o.tool_choice = "perhaps";
    assert_int_equal(ask(&o)->error.code, VLM_INVALID);
    o.tool_choice = "required";
    o.chat.tools = NULL;
    assert_int_equal(ask(&o)->error.code, VLM_INVALID);
    o.tool_choice = NULL;
    o.tool_format = "nonsense";
    assert_int_equal(ask(&o)->error.code, VLM_INVALID);
}

static void stops(void **state)
{
    (void)state;
    vlm_request_options o = options(USER("What can you do?"));
    assert_string_equal(ask(&o)->text.data, "I can read text in images, answer questions about receipts and shapes, listen to speech and call tools.[stop]");
    o.stop = "[\"about rec\", \"shapes\"]";
    assert_string_equal(ask(&o)->text.data, "I can read text in images, answer questions [stop about rec]");
    o.include_stop = 1;
    assert_string_equal(ask(&o)->text.data, "I can read text in images, answer questions about rec[stop about rec]");
    o.min_tokens = 12;
    assert_string_equal(ask(&o)->text.data, "I can read text in images, answer questions about receipts and shapes[stop shapes]");
    o = options(USER("What is 17 + 25?"));
    o.chat.template_kwargs = thinking;
    o.stop = "[\"25\", \"thought\", \"2\"]";
    heard *h = ask(&o);                                            /* not in the reasoning */
    assert_string_equal(h->text.data, "(17 + 25 = 42)4[stop 2]");
    o.stop = NULL;
    o.stop_token_ids = "[300, 14]";                                /* "4", the end of thinking */
    h = ask(&o);
    assert_true(h->result.tokens[h->result.token_count - 1] == 300);
    assert_string_equal(h->result.finish_reason, "stop");
    o.stop_token_ids = "[-1]";
    assert_int_equal(ask(&o)->error.code, VLM_INVALID);
    o = options(USER("What is 17 + 25?"));
    o.min_tokens = 6;
    assert_true(ask(&o)->result.token_count >= 7);
}

/* ---- held to grammars ---- */

#define FORMAT(schema) "{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"x\",\"schema\":" schema "}}"
static const char receipt[] = "[{\"role\":\"user\",\"content\":[{\"type\":\"image\",\"image\":\"models/demo/media/receipt.png\"},"
                              "{\"type\":\"text\",\"text\":\"Return JSON with store, date, items, total.\"}]}]";
static const char short_schema[] = FORMAT("{\"type\":\"object\",\"properties\":{\"store\":{\"type\":\"string\"},\"total\":{\"type\":\"number\"}},"
                                          "\"required\":[\"store\",\"total\"],\"additionalProperties\":false}");

static void structured(void **state)
{
    (void)state;
    vlm_request_options o = options(receipt);
    o.max_tokens = 400;
    o.response_format = short_schema;
    heard *h = ask(&o);
    json_t *json = json_loads(h->result.text, 0, NULL);
    assert_string_equal(json_string_value(json_object_get(json, "store")), "Corner Cafe");
    assert_true(json_is_number(json_object_get(json, "total")));
    assert_int_equal(json_object_size(json), 2);
    json_decref(json);
    assert_string_equal(h->result.finish_reason, "stop");
    o.ignore_eos = 1;                                              /* complete is complete */
    assert_string_equal(ask(&o)->result.finish_reason, "stop");
    o.ignore_eos = 0;
    o.response_format = "{\"type\":\"json_object\"}";
    json = json_loads(ask(&o)->result.text, 0, NULL);
    assert_true(json_object_size(json) >= 4);
    json_decref(json);
    o = options(USER("What is 17 + 25?"));
    o.response_format = "{\"type\":\"text\"}";
    assert_string_equal(ask(&o)->text.data, "42[stop]");
    o.response_format = "{\"type\":\"choice\",\"choice\":[\"41\",\"42\",\"43\"]}";
    assert_string_equal(ask(&o)->text.data, "42[stop]");
    o.response_format = "{\"type\":\"regex\",\"regex\":\"it is [0-9]{2} *\"}";
    o.sampling.temperature = 2;
    for (o.sampling.seed = 0; o.sampling.seed < 20; o.sampling.seed++) assert_int_equal(strncmp(ask(&o)->result.text, "it is ", 6), 0);
    o.sampling.temperature = 0;
    o.response_format = "{\"type\":\"grammar\",\"grammar\":{\"syntax\":\"gbnf\",\"definition\":\"root ::= \\\"it is \\\" d d \\\"!\\\"\\nd ::= [0-9]\"}}";
    const char *text = ask(&o)->result.text;
    assert_true(!strncmp(text, "it is ", 6) && strspn(text + 6, "0123456789") == 2 && !strcmp(text + 8, "!"));
}

static void bad_formats(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "[]", "{}", "{\"type\":\"yaml\"}", "{\"type\":\"regex\",\"regex\":\"(\"}", FORMAT("{\"type\":\"integr\"}"),
                                      "{\"type\":\"grammar\",\"grammar\":{\"syntax\":\"gbnf\",\"definition\":\"root ::= nothing\"}}"};
    vlm_request_options o = options(USER("What is 17 + 25?"));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        o.response_format = bad[i];
        heard *h = ask(&o);
        if (!h->error.code || !h->error.message[0]) fail_msg("%s: %s", bad[i], h->text.data);
    }
}

static void held_behind_thinking(void **state)
{
    (void)state;
    vlm_request_options o = options(USER("What is 17 + 25?"));
    o.response_format = "{\"type\":\"regex\",\"regex\":\"it is [0-9]{2}\\\\.\"}";
    o.chat.template_kwargs = thinking;
    for (int logprobs = 0; logprobs < 2; logprobs++) {
        o.sampling.logprobs = logprobs;
        o.thinking_budget = -1;
        heard *h = ask(&o);
        assert_string_equal(h->result.reasoning, "17 + 25 = 42");
        assert_int_equal(strncmp(h->result.text, "it is ", 6), 0);
        assert_int_equal(strlen(h->result.text), 9);
        o.thinking_budget = 3;
        h = ask(&o);
        assert_string_equal(h->result.reasoning, "17");
        assert_int_equal(strlen(h->result.text), 9);
        assert_int_equal(h->tokens, logprobs ? h->result.usage.completion_tokens : 0);
    }
    o.chat.template_kwargs = NULL;                                 /* nothing says that it may not think: it does not */
    assert_null(ask(&o)->result.reasoning);
}

static void calls_held(void **state)
{
    (void)state;
    vlm_request_options o = options(USER("What can you do?"));
    o.chat.tools = tools;
    assert_null(ask(&o)->result.tool_calls);
    o.tool_choice = "required";
    o.parallel_tool_calls = 0;
    heard *h = ask(&o);
    assert_string_equal(h->result.finish_reason, "tool_calls");
    assert_non_null(h->result.tool_calls);
    assert_string_equal(h->result.text, "");
    o.tool_choice = "{\"type\":\"function\",\"function\":{\"name\":\"add\"}}";
    h = ask(&o);
    json_t *list = json_loads(h->result.tool_calls, 0, NULL), *function = json_object_get(json_array_get(list, 0), "function");
    assert_string_equal(json_string_value(json_object_get(function, "name")), "add");
    json_t *arguments = json_loads(json_string_value(json_object_get(function, "arguments")), 0, NULL);
    assert_true(json_is_integer(json_object_get(arguments, "a")) && json_is_integer(json_object_get(arguments, "b")));
    assert_int_equal(json_object_size(arguments), 2);
    json_decref(arguments);
    json_decref(list);
    o.messages = USER("What is the weather in Paris?");
    o.tool_choice = "required";
    o.chat.template_kwargs = thinking;                             /* first it may think */
    h = ask(&o);
    assert_non_null(h->result.reasoning);
    assert_non_null(strstr(h->text.data, "{0 get_weather {\"city\": \"Paris\"}}[tool_calls]"));
    o.chat.template_kwargs = NULL;
    o.tool_choice = NULL;                                          /* a format for the text beside calls */
    o.response_format = short_schema;
    assert_string_equal(ask(&o)->text.data, "{0 get_weather {\"city\": \"Paris\"}}[tool_calls]");
}

/* The only tokens that the grammar takes may not come: that request ends with an error, the one beside it does not notice. */
static void dead_end(void **state)
{
    (void)state;
    vlm_request_options o = options(USER("What is 17 + 25?")), other = o;
    vlm_error error = {0};
    char ends[64];
    snprintf(ends, sizeof ends, "[%d, %d]", tokenizer_id(model->tok, "4"), tokenizer_id(model->tok, "<0x34>"));
    vlm_request *beside = vlm_submit(engine, &other, &error);
    o.response_format = "{\"type\":\"regex\",\"regex\":\"4[0-9]\"}";
    o.stop_token_ids = ends;
    o.min_tokens = 2;
    heard *h = ask(&o);
    assert_int_equal(h->error.code, VLM_UNSUPPORTED);
    assert_non_null(strstr(h->error.message, "allows no token"));
    vlm_result result;
    assert_int_equal(vlm_request_collect(beside, NULL, NULL, &result, &error), VLM_OK);
    assert_string_equal(result.text, "42");
    vlm_result_clear(&result);
    vlm_request_free(beside);
}

/* An options struct of an older header: what is missing has its default. */
static void older_options(void **state)
{
    (void)state;
    vlm_request_options o = options(USER("What is 17 + 25?"));
    o.chat.template_kwargs = thinking;
    memset((char *)&o + offsetof(vlm_request_options, parse), 0x55, sizeof o - offsetof(vlm_request_options, parse));
    o.size = offsetof(vlm_request_options, parse);
    assert_string_equal(ask(&o)->text.data, "(17 + 25 = 42)42[stop]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(thinks), cmocka_unit_test(budgets), cmocka_unit_test(calls), cmocka_unit_test(stops),
                                       cmocka_unit_test(structured), cmocka_unit_test(bad_formats),
                                       cmocka_unit_test(held_behind_thinking), cmocka_unit_test(calls_held), cmocka_unit_test(dead_end), cmocka_unit_test(older_options)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
