/* held_test.c - calls that have to be made, in every format: a model that draws tokens by chance is held to the grammar, its answer is read by
 * the parser, and what comes out are calls of the tools with arguments of their schemas. With and without thinking, budgets and log-probabilities. */
#include <stdio.h>

#include "fake_model.h"

static vlm_arch arch;
static vlm_model model;

static tensor by_chance(run *r, const vlm_model *m, const batch *b)
{
    tensor logits = run_tensor(r, b->n_logits, m->vocab);
    for (int i = 0; i < b->n_logits && run_ok(r); i++) {
        int t = b->logit_tokens[i];
        uint64_t h = fake_mix((uint64_t)b->tokens[t] * 1000003u + (uint64_t)b->ragged.token_position[t]);
        float *row = tensor_row(logits, i);
        for (int k = 0; k < m->vocab; k++) row[k] = (float)(fake_mix(h + (uint64_t)k) >> 40) * 0x1p-22f;
    }
    return logits;
}

static int set_up(void **state)
{
    (void)state;
    vlm_error error = {0};
    arch = (vlm_arch){.name = "chance", .forward = by_chance};
    model = (vlm_model){.arch = &arch, .hidden = 2, .context = 4000, .rope_axes = 1, .n_groups = 1, .bos = -1, .temperature = NAN, .top_p = NAN, .top_k = -1,
                        .group = {{.kv_heads = 1, .head_dim = 4, .slots = 1, .type = DT_F32}}, .n_eos = 1};
    if (!(model.tok = tokenizer_load("models/demo", &error))) return print_error("%s\n", error.message), -1;
    model.vocab = (int)tokenizer_size(model.tok);
    model.eos[0] = tokenizer_id(model.tok, "<turn|>");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    grammar_vocab_unref(atomic_load(&model.vocabulary));
    tokenizer_free(model.tok);
    return 0;
}

static const char tools[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"get_weather\",\"parameters\":{\"type\":\"object\",\"properties\":{\"city\":{\"enum\":[\"Paris\",\"New \\\"York\\\"\"]},"
    "\"days\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":20},\"hot\":{\"type\":\"boolean\"}},\"required\":[\"city\",\"days\"]}}},"
    "{\"type\":\"function\",\"function\":{\"name\":\"note\",\"parameters\":{\"type\":\"object\",\"properties\":{\"text\":{\"type\":\"string\",\"maxLength\":12},"
    "\"tags\":{\"type\":\"array\",\"items\":{\"enum\":[\"a\",\"b\"]},\"maxItems\":2}},\"required\":[\"text\",\"tags\"]}}}]";

static bool is_call(const json_t *call)
{
    const json_t *function = json_object_get(call, "function");
    const char *name = json_string_value(json_object_get(function, "name")), *text = json_string_value(json_object_get(function, "arguments"));
    json_t *arguments = json_loads(text ? text : "", 0, NULL);
    bool good = false;
    if (name && !strcmp(name, "get_weather")) {
        const char *city = json_string_value(json_object_get(arguments, "city"));
        json_int_t days = json_integer_value(json_object_get(arguments, "days"));
        good = city && (!strcmp(city, "Paris") || !strcmp(city, "New \"York\"")) && days >= 1 && days <= 20;
    } else if (name && !strcmp(name, "note")) {
        good = json_is_string(json_object_get(arguments, "text")) && json_is_array(json_object_get(arguments, "tags"));
    }
    json_decref(arguments);
    return good;
}

/* Returns false when the answer was too long. */
static bool ask(vlm_engine *e, const char *format, int way)
{
    vlm_request_options o = vlm_request_options_default();
    vlm_error error = {0};
    vlm_result r;
    o.prompt = way & 1 ? "Hello there" : "Tell me";
    o.parse = 1;
    o.chat.tools = tools;
    o.chat.template_kwargs = way & 4 ? "{\"enable_thinking\": true}" : "{\"enable_thinking\": false}";
    o.thinking_budget = way & 4 ? 10 : -1;
    o.tool_choice = way == 3 ? "{\"type\":\"function\",\"function\":{\"name\":\"note\"}}" : "required";
    o.parallel_tool_calls = way & 2;
    o.tool_format = format;
    o.sampling.temperature = way & 1 ? 1 : 0;
    o.sampling.seed = (uint64_t)way;
    o.sampling.logprobs = way == 5;
    o.max_tokens = 700;
    vlm_request *request = vlm_submit(e, &o, &error);
    if (!request || vlm_request_collect(request, NULL, NULL, &r, &error)) fail_msg("%s, %d: %s", format, way, error.message);
    vlm_request_free(request);
    bool whole = strcmp(r.finish_reason, "length") != 0;
    json_t *calls = json_loads(r.tool_calls ? r.tool_calls : "[]", 0, NULL), *call;
    size_t i, n = json_array_size(calls);
    char *raw = vlm_detokenize(&model, r.tokens, r.token_count, 0, NULL);
    if (whole && (strcmp(r.finish_reason, "tool_calls") || *r.text || !n || (n > 1 && !(way & 2)))) fail_msg("%s, %d: %zu calls, %s, '%s': %s", format, way, n, r.finish_reason, r.text, raw);
    json_array_foreach(calls, i, call)
        if ((whole || i + 1 < n) && !is_call(call)) fail_msg("%s, %d: %s", format, way, raw);
    vlm_free(raw);
    json_decref(calls);
    vlm_result_clear(&r);
    return whole;
}

static void every_format(void **state)
{
    (void)state;
    vlm_error error = {0};
    vlm_engine_options o = vlm_engine_options_default();
    o.kv_bytes = (uint64_t)64 << 20;
    vlm_engine *e = vlm_engine_new(&model, &o, &error);
    if (!e) fail_msg("%s", error.message);
    int formats = 0, whole = 0;
    for (size_t i = 0; toolcall_format_at(i); i++) {
        const toolcall_format *f = toolcall_format_at(i);
        if (toolcall_format_spelling(f)->arguments == TOOLCALL_NONE) continue;
        formats++;
        for (int way = 0; way < 8; way++) whole += ask(e, toolcall_format_name(f), way);
    }
    vlm_engine_free(e);
    print_message("%d formats, %d of %d answers whole\n", formats, whole, 8 * formats);
    assert_true(formats > 30 && whole * 10 > 8 * formats * 8);
}

/* Text that is held to something, with every format's way to think; and beside tools that need not be called. */
static void ask_text(vlm_engine *e, const char *format, int way)
{
    vlm_request_options o = vlm_request_options_default();
    vlm_error error = {0};
    vlm_result r;
    o.prompt = "Tell me";
    o.parse = 1;
    o.chat.template_kwargs = way & 1 ? "{\"enable_thinking\": true}" : "{\"enable_thinking\": false}";
    o.thinking_budget = 6;
    o.tool_format = format;
    o.response_format = "{\"type\":\"regex\",\"regex\":\"word: [a-z]{3,8}!\"}";
    if (way & 2) o.chat.tools = tools;
    o.sampling.temperature = 1;
    o.sampling.seed = (uint64_t)way;
    o.max_tokens = 400;
    vlm_request *request = vlm_submit(e, &o, &error);
    if (!request || vlm_request_collect(request, NULL, NULL, &r, &error)) fail_msg("%s, %d: %s", format, way, error.message);
    vlm_request_free(request);
    char *raw = vlm_detokenize(&model, r.tokens, r.token_count, 0, NULL);
    size_t n = strlen(r.text);
    bool good = r.tool_calls ? (way & 2) && !*r.text : n > 9 && !strncmp(r.text, "word: ", 6) && r.text[n - 1] == '!' && !strcmp(r.finish_reason, "stop");
    if (!good && strcmp(r.finish_reason, "length")) fail_msg("%s, %d: '%s' %s: %s", format, way, r.text, r.finish_reason, raw);
    vlm_free(raw);
    vlm_result_clear(&r);
}

static void every_text(void **state)
{
    (void)state;
    vlm_error error = {0};
    vlm_engine_options o = vlm_engine_options_default();
    o.kv_bytes = (uint64_t)64 << 20;
    vlm_engine *e = vlm_engine_new(&model, &o, &error);
    if (!e) fail_msg("%s", error.message);
    for (size_t i = 0; toolcall_format_at(i); i++)
        for (int way = 0; way < 8; way++) ask_text(e, toolcall_format_name(toolcall_format_at(i)), way);
    vlm_engine_free(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_format), cmocka_unit_test(every_text)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
