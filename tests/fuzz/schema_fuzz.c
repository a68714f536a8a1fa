/* schema_fuzz.c - the first byte says what the text up to the first zero byte is: a JSON schema, a response_format, GBNF, Lark, tools of a format. What
 * is after the zero byte is tried against it. Whatever it is, it is refused or compiled within its limits. */
#include <stdint.h>
#include <string.h>

#include "text/constrain.h"
#include "text/ebnf.h"
#include "text/schema.h"
#include "text/toolgrammar.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static grammar_expr build(grammar_builder *b, uint8_t kind, const char *text, size_t n, vlm_error *error)
{
    grammar_expr root = 0;
    if (kind % 5 == 2) return ebnf_expr(b, text, n, EBNF_GBNF, error);
    if (kind % 5 == 3) return ebnf_expr(b, text, n, EBNF_LARK, error);
    json_t *value = json_loadb(text, n, JSON_DECODE_ANY, NULL);
    if (!value) return 0;
    if (kind % 5 == 0) {
        const schema_options options = {.notation = kind & 128 ? SCHEMA_PYTHON : SCHEMA_JSON, .closed = kind & 64, .one_of_any = kind & 32};
        root = schema_expr(b, value, &options, error);
    } else if (kind % 5 == 1) {
        constrain_format(b, value, kind & 128, &root, error);
    } else {
        size_t formats = 0;
        while (toolcall_format_at(formats)) formats++;
        json_t *required = json_string("required");
        toolgrammar(b, toolcall_format_at(kind / 5 % formats), value, required, true, 0, false, &root, error);
        json_decref(required);
    }
    json_decref(value);
    return root;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size) return 0;
    const uint8_t *zero = memchr(data + 1, 0, size - 1);
    size_t n = zero ? (size_t)(zero - data) - 1 : size - 1;
    vlm_error error = {0};
    const grammar_limits limits = {.nodes = 400000, .memory = 32 << 20, .items = 1000};
    grammar_builder *b = grammar_builder_new(&limits);
    if (!b) return 0;
    grammar_expr root = build(b, data[0], (const char *)data + 1, n, &error);
    grammar *g = root ? grammar_compile(b, root, NULL, &error) : NULL;
    matcher *m = g ? matcher_new(g, &error) : NULL;
    if (m && zero) {
        size_t at, rest = size - n - 2;
        matcher_bytes(m, zero + 1, rest > 2000 ? 2000 : rest, &at, &error);
        matcher_accepting(m);
    }
    matcher_free(m);
    grammar_unref(g);
    grammar_builder_free(b);
    return 0;
}
