/* grammar_fuzz.c - any bytes as a grammar and a text. The first byte says what the next ones are: a regular expression, or a program that builds an
 * expression on a stack (rules, recursion, intersections). Up to the first zero byte the grammar, after it the text. Checked: the mask has
 * exactly the tokens that are taken, and forced bytes can be taken. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "text/grammar.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { RULES = 4, TOKENS = 12 };
static const char *const tokens[TOKENS] = {"a", "b", "ab", "{\"", "\"", "\xC3\xA9", "\xC3", "\n ", "aaaa", "1", "(", "a\"b"};

static grammar_expr program(grammar_builder *b, const uint8_t *code, size_t size)
{
    grammar_expr stack[64], rule[RULES];
    size_t n = 0;
    for (int i = 0; i < RULES; i++) rule[i] = grammar_rule(b, NULL);
    for (size_t i = 0; i < size; i++) {
        const uint8_t c = code[i], low = c & 15;
        if (n == 64 || (n < 2 && (c >> 4) >= 8)) continue;
        switch (c >> 4) {
        case 0: case 1: stack[n++] = grammar_bytes(b, "ab\"{1(\n\xC3\xA9 )}x,:", low + 1); break;
        case 2: case 3: stack[n++] = rule[low % RULES]; break;
        case 4: stack[n++] = grammar_class(b, (grammar_range[]){{low * 8u, low * 16u}}, 1, low & 1); break;
        case 5: stack[n++] = low & 1 ? grammar_empty(b) : grammar_any(b); break;
        case 6: if (n) stack[n - 1] = grammar_repeat(b, stack[n - 1], low & 3, low & 8 ? -1 : (low >> 1)); break;
        case 7: if (n) stack[n - 1] = low & 1 ? grammar_outline(b, stack[n - 1]) : grammar_not(b, stack[n - 1]); break;
        case 8: case 9: n--, stack[n - 1] = grammar_seq2(b, stack[n - 1], stack[n]); break;
        case 10: case 11: n--, stack[n - 1] = grammar_alt2(b, stack[n - 1], stack[n]); break;
        case 12: n--, stack[n - 1] = grammar_and(b, stack[n - 1], stack[n]); break;
        case 13: stack[n++] = grammar_token(b, low); break;
        default:
            n--;
            if (!grammar_is_defined(b, rule[low % RULES])) grammar_define(b, rule[low % RULES], stack[n]);
        }
    }
    for (int i = 0; i < RULES; i++) if (!grammar_is_defined(b, rule[i])) grammar_define(b, rule[i], n ? stack[--n] : grammar_text(b, "a"));
    return rule[0];
}

static grammar_vocab *vocabulary(void)
{
    static grammar_vocab *v;
    if (v) return v;
    grammar_piece piece[TOKENS + 1];
    for (int i = 0; i < TOKENS; i++) piece[i] = (grammar_piece){tokens[i], strlen(tokens[i]), false};
    piece[TOKENS] = (grammar_piece){"<tag>", 5, true};
    return v = grammar_vocab_new(piece, TOKENS + 1, NULL, 0, NULL);
}

/* False: some limit was reached. */
static bool look(matcher *m)
{
    uint64_t mask[1];
    vlm_error error = {0};
    if (!matcher_mask(m, mask, &error)) return false;
    for (int32_t t = 0; t <= TOKENS; t++) {
        const bool taken = matcher_try(m, &t, 1, &error) == 1;
        if (error.code != VLM_OK) return false;
        if (taken != (mask[0] >> t & 1)) abort();
        if (!taken) continue;
        if (!matcher_token(m, t, &error) || !matcher_rollback(m, 1)) abort();
    }
    buf forced = {0};
    if (matcher_forced(m, 8, &forced, &error)) {
        size_t at;
        if (!matcher_bytes(m, forced.data, forced.size, &at, &error) && error.code == VLM_OK) abort();
        if (error.code == VLM_OK) matcher_rollback(m, 1);
    }
    buf_free(&forced);
    return error.code == VLM_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 || size > 2000) return 0;
    const uint8_t *zero = memchr(data + 1, 0, size - 1);
    const size_t n = zero ? (size_t)(zero - data) - 1 : size - 1;
    grammar_builder *b = grammar_builder_new(&(grammar_limits){.nodes = 20000, .memory = 4 << 20, .items = 200});
    vlm_error error = {0};
    grammar_expr root = data[0] & 0x80 ? program(b, data + 1, n) : grammar_regex(b, (const char *)data + 1, n, data[0] & 15);
    grammar *g = grammar_compile(b, root, vocabulary(), &error);
    grammar_builder_free(b);
    if (!g) return 0;
    matcher *m = matcher_new(g, &error);
    size_t left = zero ? size - n - 2 : 0;
    for (size_t i = 0; i < left && i < 40 && look(m); i++)
        if (!matcher_bytes(m, zero + 1 + i, 1, NULL, &error)) break;
    matcher_free(m);
    grammar_unref(g);
    return 0;
}
