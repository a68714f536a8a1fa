/* toolcall_fuzz.c - any bytes as a model's output, in every format and by response templates. The first bytes choose format, options and cuts.
 * However the text is cut, the events give the same; events come in order; arguments that are told with a complete call are JSON; a call's
 * marker is never within what is told unless it stood in a text that was no call. */
#include <stdint.h>

#include "../unit/toolcall_run.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char tools_text[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":\"object\",\"properties\":{\"s\":{\"type\":\"string\"},\"i\":{\"type\":\"integer\"},"
    "\"b\":{\"type\":[\"boolean\",\"null\"]},\"l\":{\"type\":\"array\",\"items\":{\"type\":\"integer\"}},\"o\":{\"$ref\":\"#/$defs/o\"}},\"$defs\":{\"o\":{\"type\":\"object\","
    "\"properties\":{\"a\":{\"$ref\":\"#/$defs/o\"},\"n\":{\"anyOf\":[{\"type\":\"number\"},{\"type\":\"string\"}]}}}}}}}]";
static const char spec_text[] =
    "{\"defaults\":{\"role\":\"assistant\"},\"start_anchor\":\"A\",\"fields\":{\"thinking\":{\"open\":\"<t>\",\"close\":\"</t>\"},\"tool_calls\":{\"open_pattern\":"
    "\"\\\\s*<c>(?P<name>\\\\w+)\",\"close_pattern\":\"</c>\\\\s*\",\"repeats\":true,\"content\":\"json\",\"content_args\":{\"unquoted_keys\":true,\"string_delims\":[[\"<'>\",\"<'>\"]]},"
    "\"transform\":{\"function\":{\"name\":\"{name}\",\"arguments\":\"{content}\"}}},\"tags\":{\"open\":\"<x>\",\"close\":[\"</x>\",\"</x>>\"],\"content\":\"xml-inline\",\"content_args\":"
    "{\"tag_pattern\":\"<(?P<key>\\\\w+)>(?P<value>.*?)</>\",\"merge_duplicates\":true,\"value_parser\":{\"name\":\"kv-lines\"}}},\"n\":{\"open\":\"<n>\",\"close\":\"</n>\",\"content\":\"float\"},"
    "\"content\":{\"close_pattern\":\"<e>|$\"}}}";

static void check_arguments(const run_result *r)
{
    for (size_t i = 0; i < r->calls; i++) {
        const char *text = r->call[i].arguments.data;
        if (!utf8_valid(text, r->call[i].arguments.size)) continue;       /* the input was none either */
        json_error_t error;
        json_t *value = json_loadb(text, r->call[i].arguments.size, JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL, &error);
        enum json_error_code code = value ? json_error_unknown : json_error_code(&error);
        /* jansson knows no lone surrogates, no zero in keys and no numbers beyond a double */
        if (!value && code != json_error_invalid_utf8 && code != json_error_numeric_overflow && code != json_error_null_byte_in_key &&
            code != json_error_stack_overflow && !strstr(text, "\\ud") && !strstr(text, "\\uD")) abort();
        json_decref(value);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static json_t *tools;
    static response_template *template;
    static size_t formats;
    if (!tools) {
        json_t *spec = json_loads(spec_text, 0, NULL);
        tools = json_loads(tools_text, 0, NULL);
        template = response_template_new(spec, NULL);
        json_decref(spec);
        while (toolcall_format_at(formats)) formats++;
        if (!tools || !template) abort();
    }
    if (size < 4) return 0;
    const toolcall_format *f = toolcall_format_at(data[0] % (formats + 1));
    const char *name = toolcall_format_name(f ? f : toolcall_format_at(0)), *text = (const char *)data + 4, *finish = data[1] & 16 ? "length" : "stop";
    toolcall_options o = {.tools = data[1] & 1 ? tools : NULL, .thinking_open = data[1] & 2, .eager = data[1] & 4, .keep_space = data[1] & 8};
    if (!f) o.response = template;
    size -= 4;
    size_t cuts[2] = {size ? data[2] % size : 0, size};
    if (cuts[0] + data[3] < size) cuts[1] = cuts[0] + data[3];
    run_result whole = run_parser(name, &o, text, size, NULL, 0, 0, finish), cut = run_parser(name, &o, text, size, cuts, 2, 0, finish);
    run_result bytes = run_parser(name, &o, text, size, NULL, 0, 1, finish);
    if (!whole.ok || !cut.ok || !bytes.ok || !whole.order || !cut.order || !bytes.order) {
        if (whole.calls < 64) abort();                                    /* more than the run keeps */
    }
    else if (f && (!run_same(&whole, &cut) || !run_same(&whole, &bytes))) abort();
    if (!o.eager && f) check_arguments(&whole);
    run_clear(&whole);
    run_clear(&cut);
    run_clear(&bytes);
    return 0;
}
