/* grammar_test.c - grammars: what they accept, masks against acceptance, rollback, forced bytes; random grammars against a slow oracle. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "text/grammar.h"

/* ---- helpers ---- */
static grammar *compile(grammar_builder *b, grammar_expr root, grammar_vocab *v)
{
    vlm_error error = {0};
    grammar *g = grammar_compile(b, root, v, &error);
    if (!g) print_error("compile: %s\n", error.message);
    assert_non_null(g);
    grammar_builder_free(b);
    return g;
}

/* 1: all of it; 0: refused or unfinished. */
static int accepts(grammar *g, const char *text, size_t size)
{
    vlm_error error = {0};
    matcher *m = matcher_new(g, &error);
    assert_non_null(m);
    const bool fits = matcher_bytes(m, text, size, NULL, &error);
    assert_int_equal(error.code, VLM_OK);
    const int result = fits && matcher_accepting(m);
    matcher_free(m);
    return result;
}

static void check_regex(const char *pattern, unsigned flags, const char *const *yes, const char *const *no)
{
    grammar_builder *b = grammar_builder_new(NULL);
    const grammar_expr x = grammar_regex(b, pattern, strlen(pattern), flags);
    if (!x) print_error("%s: %s\n", pattern, grammar_builder_error(b)->message);
    grammar *g = compile(b, x, NULL);
    for (; *yes; yes++) {
        if (!accepts(g, *yes, strlen(*yes))) fail_msg("/%s/ refuses \"%s\"", pattern, *yes);
    }
    for (; *no; no++) {
        if (accepts(g, *no, strlen(*no))) fail_msg("/%s/ takes \"%s\"", pattern, *no);
    }
    grammar_unref(g);
}
#define LIST(...) ((const char *const[]){__VA_ARGS__, NULL})

static void regex_language(void **state)
{
    check_regex("", 0, LIST(""), LIST("a"));
    check_regex("abc", 0, LIST("abc"), LIST("", "ab", "abcd", "xabc"));
    check_regex("a|bc|", 0, LIST("a", "bc", ""), LIST("b", "abc"));
    check_regex("(?:ab)*c+d?", 0, LIST("c", "ababcc", "ccd"), LIST("ab", "abd", "cdd"));
    check_regex("a{2,4}", 0, LIST("aa", "aaa", "aaaa"), LIST("a", "aaaaa"));
    check_regex("a{2,}", 0, LIST("aa", "aaaaaaa"), LIST("a", ""));
    check_regex("a{3}b{,2}", 0, LIST("aaa", "aaabb"), LIST("aab", "aaabbb"));
    check_regex("a{x}", 0, LIST("a{x}"), LIST("aaa"));
    check_regex("[a-cx-]+", 0, LIST("abcx-", "-"), LIST("d", ""));
    check_regex("[^a-c]", 0, LIST("d", "\xC3\xA9", "\xF0\x9F\x98\x80", "\n"), LIST("a", "", "dd", "\xC3"));
    check_regex("[\\]\\-\\\\]+", 0, LIST("]-\\"), LIST("a"));
    check_regex("[]a]", 0, LIST("]", "a"), LIST("b", ""));
    check_regex("[^]", 0, LIST("a", "\n"), LIST("", "ab"));
    check_regex(".", 0, LIST("a", "\xE2\x82\xAC", "\r"), LIST("\n", "ab", "\xFF", "\xED\xA0\x80"));
    check_regex(".", GRAMMAR_DOTALL, LIST("\n"), LIST(""));
    check_regex("\\d{4}-\\d\\d", 0, LIST("2024-01"), LIST("2024-1", "\xD9\xA1\xD9\xA1\xD9\xA1\xD9\xA1-01"));
    check_regex("\\d+", GRAMMAR_UNICODE, LIST("12\xD9\xA1"), LIST("a"));
    check_regex("\\w+\\s\\W\\S\\D", 0, LIST("ab_1 -xy"), LIST("ab_1 -x1"));
    check_regex("\\w+", GRAMMAR_UNICODE, LIST("h\xC3\xA9llo"), LIST("a b"));
    check_regex("\\u00e9\\x41\\u{1F600}\\uD83D\\uDE00", 0, LIST("\xC3\xA9" "A\xF0\x9F\x98\x80\xF0\x9F\x98\x80"), LIST("e"));
    check_regex("[\\u4e00-\\u9fff]+", 0, LIST("\xE4\xB8\xAD\xE6\x96\x87"), LIST("a", "\xE4\xB8"));
    check_regex("\\p{Lu}\\p{Ll}*\\P{L}", 0, LIST("\xC3\x89t\xC3\xA9!"), LIST("\xC3\xA9t!", "Eta"));
    check_regex("(?i)straSSe", 0, LIST("STRASSE", "strasse"), LIST("straxse"));
    check_regex("(?i:a)b", 0, LIST("ab", "Ab"), LIST("aB"));
    check_regex("a+?b*?c??", 0, LIST("ab", "aabbc"), LIST("b"));
    check_regex("(?P<x>a)(?<y>b)", 0, LIST("ab"), LIST("a"));
    check_regex("^ab$", 0, LIST("ab"), LIST("a"));
}

static void regex_search(void **state)
{
    check_regex("b+", GRAMMAR_SEARCH, LIST("b", "abc", "bb", "\xC3\xA9" "b\n"), LIST("", "ac"));
    check_regex("^b", GRAMMAR_SEARCH, LIST("b", "bcd"), LIST("ab", ""));
    check_regex("b$", GRAMMAR_SEARCH, LIST("b", "ab"), LIST("ba"));
    check_regex("^b*$", GRAMMAR_SEARCH, LIST("", "bbb"), LIST("ba"));
    check_regex("^a|b$", GRAMMAR_SEARCH, LIST("ax", "xb", "a"), LIST("xax", "bx"));
    check_regex("(^a|b)c", GRAMMAR_SEARCH, LIST("acx", "xbc"), LIST("xac"));
    check_regex("x*^y", GRAMMAR_SEARCH, LIST("y", "yz"), LIST("xy"));
    check_regex("a(b|$)", GRAMMAR_SEARCH, LIST("xa", "abx"), LIST("ax", "xac"));
    check_regex("^(a|b)$", GRAMMAR_SEARCH, LIST("a", "b"), LIST("ab", ""));
    check_regex("^$|^x", GRAMMAR_SEARCH, LIST("", "xy"), LIST("y"));
    check_regex("", GRAMMAR_SEARCH, LIST("", "any\nthing"), LIST("\xFF"));
}

static void regex_refused(void **state)
{
    static const char *const bad[] = {"(", ")", "a)", "(a", "[a", "*a", "a{2,1}", "\\", "(?=a)", "(?<!a)", "\\1", "\\bfoo", "[b-a]", "\\p{Greek}", "(?P=x)", "\\xZZ", "\\q",
                                      "a{9999999999}", "(?x)a", "\\uD800"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        grammar_builder *b = grammar_builder_new(NULL);
        if (grammar_regex(b, bad[i], strlen(bad[i]), 0)) fail_msg("/%s/ was taken", bad[i]);
        assert_non_null(strstr(grammar_builder_error(b)->message, "offset"));
        assert_null(grammar_compile(b, 1, NULL, NULL));
        grammar_builder_free(b);
    }
}

static void regular_operations(void **state)
{
    grammar_builder *b = grammar_builder_new(NULL);
    grammar_expr x = grammar_and(b, grammar_regex(b, "(abc)*", 6, 0), grammar_regex(b, ".{4,9}", 6, 0));
    grammar *g = compile(b, x, NULL);
    assert_true(accepts(g, "abcabc", 6) && accepts(g, "abcabcabc", 9));
    assert_false(accepts(g, "abc", 3));
    /* No way into a dead end: after nine bytes nothing follows. */
    vlm_error error = {0};
    matcher *m = matcher_new(g, &error);
    assert_true(matcher_bytes(m, "abcabcabc", 9, NULL, &error));
    assert_true(matcher_finished(m));
    matcher_free(m);
    grammar_unref(g);

    b = grammar_builder_new(NULL);
    x = grammar_and(b, grammar_regex(b, "(abc)*", 6, 0), grammar_regex(b, ".{4,5}", 6, 0));
    assert_null(grammar_compile(b, x, NULL, &error));
    grammar_builder_free(b);

    b = grammar_builder_new(NULL);
    g = compile(b, grammar_not(b, grammar_regex(b, "a*", 2, 0)), NULL);
    assert_true(accepts(g, "ab", 2) && accepts(g, "\xC3\xA9", 2));
    assert_false(accepts(g, "aa", 2) || accepts(g, "", 0) || accepts(g, "b\xFF", 2));
    grammar_unref(g);

    const grammar_literal tags[] = {{"<end>", 5}, {"<e>", 3}};
    b = grammar_builder_new(NULL);
    g = compile(b, grammar_without(b, tags, 2), NULL);
    assert_true(accepts(g, "", 0) && accepts(g, "a<end", 5) && accepts(g, "<<e<en", 6));
    assert_false(accepts(g, "a<end>", 6) || accepts(g, "<<e>x", 5));
    grammar_unref(g);

    b = grammar_builder_new(NULL);
    g = compile(b, grammar_until(b, tags, 2), NULL);
    assert_true(accepts(g, "<e>", 3) && accepts(g, "x<e<end>", 8));
    assert_false(accepts(g, "", 0) || accepts(g, "x<e>y<e>", 8) || accepts(g, "x", 1));
    grammar_unref(g);
}

static void finished_automata(void **state)
{
    /* Numbers divisible by three, no leading zero; state 4 is a dead end. */
    static const grammar_dfa_edge edge[] = {
        {0, '3', '3', 1}, {0, '6', '6', 1}, {0, '9', '9', 1}, {0, '1', '1', 2}, {0, '4', '4', 2}, {0, '7', '7', 2}, {0, '2', '2', 3}, {0, '5', '5', 3}, {0, '8', '8', 3}, {0, 'x', 'x', 4},
        {1, '0', '0', 1}, {1, '1', '1', 2}, {1, '2', '2', 3}, {2, '1', '1', 3}, {2, '2', '2', 1}, {2, '0', '0', 2}, {3, '0', '0', 3}, {3, '1', '1', 1}, {3, '2', '2', 2}, {4, 'x', 'x', 4}};
    static const uint8_t accept[] = {0, 1, 0, 0, 0};
    grammar_builder *b = grammar_builder_new(NULL);
    grammar_expr x = grammar_dfa(b, edge, sizeof edge / sizeof *edge, accept, 5);
    grammar *g = compile(b, grammar_seq2(b, x, grammar_text(b, ";")), NULL);
    assert_true(accepts(g, "3;", 2) && accepts(g, "111;", 4) && accepts(g, "12;", 3));
    assert_false(accepts(g, "11;", 3) || accepts(g, ";", 1));
    vlm_error error = {0};
    matcher *m = matcher_new(g, &error);
    assert_false(matcher_bytes(m, "x", 1, NULL, &error));
    matcher_free(m);
    grammar_unref(g);
}

static void recursion(void **state)
{
    /* Left-recursive arithmetic, directly and through another rule. */
    grammar_builder *b = grammar_builder_new(NULL);
    grammar_expr sum = grammar_rule(b, "sum"), product = grammar_rule(b, "product"), atom = grammar_rule(b, "atom"), more = grammar_rule(b, "more");
    grammar_define(b, more, grammar_seq2(b, sum, grammar_text(b, "+")));
    grammar_define(b, sum, grammar_alt2(b, product, grammar_seq2(b, more, product)));
    grammar_define(b, product, grammar_alt2(b, atom, grammar_seq(b, (grammar_expr[]){product, grammar_text(b, "*"), atom}, 3)));
    grammar_define(b, atom, grammar_alt2(b, grammar_text(b, "1"), grammar_seq(b, (grammar_expr[]){grammar_text(b, "("), sum, grammar_text(b, ")")}, 3)));
    grammar *g = compile(b, sum, NULL);
    assert_true(accepts(g, "1", 1) && accepts(g, "1+1*1+(1+1)*1", 13));
    assert_false(accepts(g, "1+", 2) || accepts(g, "+1", 2) || accepts(g, "(1", 2));
    char deep[2001];
    memset(deep, '(', 1000);
    deep[1000] = '1';
    memset(deep + 1001, ')', 1000);
    assert_true(accepts(g, deep, 2001));
    grammar_unref(g);

    /* Hidden left recursion, empty cycles, ambiguity without end. */
    b = grammar_builder_new(NULL);
    grammar_expr a = grammar_rule(b, "a"), n = grammar_rule(b, "n");
    grammar_define(b, n, grammar_alt2(b, grammar_empty(b), grammar_seq2(b, n, n)));
    const grammar_expr way[] = {grammar_seq(b, (grammar_expr[]){n, a, grammar_text(b, "x")}, 3), grammar_text(b, "y"), a, grammar_seq2(b, a, a)};
    grammar_define(b, a, grammar_alt(b, way, 4));
    g = compile(b, a, NULL);
    assert_true(accepts(g, "y", 1) && accepts(g, "yxx", 3) && accepts(g, "yxyyx", 5));
    assert_false(accepts(g, "x", 1) || accepts(g, "", 0));
    char many[300];
    memset(many, 'y', sizeof many);
    assert_true(accepts(g, many, sizeof many));
    grammar_unref(g);

    /* Rules that cannot end: alternatives go, a start rule is an error. */
    b = grammar_builder_new(NULL);
    a = grammar_rule(b, "a");
    grammar_define(b, a, grammar_seq2(b, grammar_text(b, "("), a));
    vlm_error error = {0};
    assert_null(grammar_compile(b, a, NULL, &error));
    assert_int_equal(error.code, VLM_INVALID);
    g = compile(b, grammar_alt2(b, grammar_text(b, "(x"), a), NULL);
    matcher *m = matcher_new(g, &error);
    buf forced = {0};
    assert_true(matcher_forced(m, 100, &forced, &error));
    assert_string_equal(forced.data, "(x");
    buf_free(&forced);
    matcher_free(m);
    grammar_unref(g);

    b = grammar_builder_new(NULL);
    a = grammar_rule(b, "never");
    assert_null(grammar_compile(b, a, NULL, &error));
    assert_non_null(strstr(error.message, "never"));
    grammar_builder_free(b);
}

/* ---- random grammars against an oracle ---- */
static uint32_t seed;
static uint32_t draw(uint32_t n)
{
    seed ^= seed << 13, seed ^= seed >> 17, seed ^= seed << 5;
    return seed % n;
}

enum { RULES = 4, NODES = 64, TEXT = 7 };
typedef enum okind { O_EMPTY, O_BYTE, O_SEQ, O_ALT, O_REPEAT, O_RULE, O_AND, O_NOT } okind;
typedef struct onode { okind kind; int a, b, min, max; } onode;
static onode tree[NODES];
static int trees, rule_root[RULES];

static int grow_tree(int depth, bool regular)
{
    const int i = trees++;
    assert_true(i < NODES);
    onode n = {.kind = O_BYTE, .a = "abc"[draw(3)]};
    const uint32_t what = depth <= 0 || trees > NODES - 16 ? draw(3) : draw(16);
    if (what == 0) n.kind = O_EMPTY;
    else if (what >= 3 && what <= 7) n = (onode){.kind = O_SEQ, .a = grow_tree(depth - 1, regular), .b = grow_tree(depth - 1, regular)};
    else if (what >= 8 && what <= 10) n = (onode){.kind = O_ALT, .a = grow_tree(depth - 1, regular), .b = grow_tree(depth - 1, regular)};
    else if (what == 11) {
        n = (onode){.kind = O_REPEAT, .a = grow_tree(depth - 1, regular), .min = (int)draw(3)};
        n.max = draw(2) ? -1 : n.min + (int)draw(3);
    } else if (what == 12) n = (onode){.kind = O_AND, .a = grow_tree(depth - 1, true), .b = grow_tree(depth - 1, true)};
    else if (what == 13) n = (onode){.kind = O_NOT, .a = grow_tree(depth - 1, true)};
    else if (what >= 14 && !regular) n = (onode){.kind = O_RULE, .a = (int)draw(RULES)};
    tree[i] = n;
    return i;
}

static grammar_expr to_expr(grammar_builder *b, int i)
{
    const onode n = tree[i];
    char name[16];
    switch (n.kind) {
    case O_EMPTY: return grammar_empty(b);
    case O_BYTE: name[0] = (char)n.a; return grammar_bytes(b, name, 1);
    case O_SEQ: return grammar_seq2(b, to_expr(b, n.a), to_expr(b, n.b));
    case O_ALT: return grammar_alt2(b, to_expr(b, n.a), to_expr(b, n.b));
    case O_REPEAT: return grammar_repeat(b, to_expr(b, n.a), (uint32_t)n.min, n.max);
    case O_AND: return grammar_and(b, to_expr(b, n.a), to_expr(b, n.b));
    case O_NOT: return grammar_not(b, to_expr(b, n.a));
    default: snprintf(name, sizeof name, "r%d", n.a); return grammar_rule(b, name);
    }
}

/* spans[i] bit (from * 8 + to): node i matches text[from, to). The least fixed point; not, whose operand has no rules, is done after it. */
static uint64_t spans[NODES];
static bool span(int i, int from, int to) { return spans[i] >> (from * 8 + to) & 1; }
static bool oracle_node(int i, const char *text, int from, int to)
{
    const onode n = tree[i];
    switch (n.kind) {
    case O_EMPTY: return from == to;
    case O_BYTE: return to == from + 1 && text[from] == n.a;
    case O_SEQ: for (int k = from; k <= to; k++) if (span(n.a, from, k) && span(n.b, k, to)) return true; return false;
    case O_ALT: return span(n.a, from, to) || span(n.b, from, to);
    case O_AND: return span(n.a, from, to) && span(n.b, from, to);
    case O_NOT: return !span(n.a, from, to);
    case O_RULE: return span(rule_root[n.a], from, to);
    default: {
        /* reach[k]: bit p: k repetitions lead from `from` to p */
        uint32_t reach = 1u << from, least = n.min == 0 ? reach : 0;
        const int most = n.max < 0 ? n.min + TEXT + 1 : n.max;
        for (int k = 1; k <= most; k++) {
            uint32_t next = 0;
            for (int p = from; p <= to; p++) if (reach >> p & 1) for (int q = p; q <= to; q++) if (span(n.a, p, q)) next |= 1u << q;
            reach = next;
            if (k >= n.min) least |= reach;
        }
        return least >> to & 1;
    }
    }
}

static bool oracle(const char *text, int size)
{
    memset(spans, 0, sizeof spans);
    for (bool changed = true; changed;) {
        changed = false;
        for (int i = trees; i--;) {
            uint64_t s = 0;
            for (int from = 0; from <= size; from++) for (int to = from; to <= size; to++) s |= (uint64_t)oracle_node(i, text, from, to) << (from * 8 + to);
            if (s != spans[i]) changed = true;
            spans[i] = s;
        }
    }
    return span(rule_root[0], 0, size);
}

static grammar_vocab *tiny_vocab(void)
{
    static const grammar_piece piece[] = {
        {"a", 1, false}, {"b", 1, false}, {"c", 1, false}, {"ab", 2, false}, {"ba", 2, false}, {"abc", 3, false}, {"aa", 2, false}, {"aaa", 3, false}, {"bc", 2, false}, {"cab", 3, false},
        {"", 0, false}, {"<tag>", 5, true}, {"ab", 2, false}, {"ca", 2, false}, {"bbbb", 4, false}, {"<eos>", 5, true}, {"abcabc", 6, false}};
    const int32_t eos = 15;
    grammar_vocab *v = grammar_vocab_new(piece, sizeof piece / sizeof *piece, &eos, 1, NULL);
    assert_non_null(v);
    return v;
}
static const char *const tiny_text[] = {"a", "b", "c", "ab", "ba", "abc", "aa", "aaa", "bc", "cab", "", "", "ab", "ca", "bbbb", "", "abcabc"};

/* The mask has exactly the tokens that matcher_bytes takes. */
static void check_mask(matcher *m)
{
    uint64_t mask[1];
    vlm_error error = {0};
    assert_true(matcher_mask(m, mask, &error));
    for (int32_t t = 0; t < 17; t++) {
        if (t == 11) continue;
        bool want = matcher_accepting(m);
        if (t != 15) {
            const size_t n = strlen(tiny_text[t]);
            want = n && matcher_bytes(m, tiny_text[t], n, NULL, &error);
            if (want) assert_true(matcher_rollback(m, 1));
        }
        assert_int_equal(mask[0] >> t & 1, want);
        assert_int_equal(matcher_try(m, &t, 1, &error), want);
    }
}

static void check_forced(matcher *m)
{
    buf forced = {0};
    vlm_error error = {0};
    assert_true(matcher_forced(m, 3, &forced, &error));
    for (size_t i = 0; i < forced.size; i++) {
        assert_false(matcher_accepting(m));
        for (int c = 0; c < 256; c++) {
            const char byte = (char)c;
            const bool fits = matcher_bytes(m, &byte, 1, NULL, &error);
            assert_int_equal(fits, byte == forced.data[i]);
            if (fits && byte != forced.data[i]) matcher_rollback(m, 1);
            if (fits) assert_true(matcher_rollback(m, 1));
        }
        assert_true(matcher_bytes(m, forced.data + i, 1, NULL, &error));
    }
    assert_true(matcher_rollback(m, forced.size));
    buf_free(&forced);
}

static void random_grammars(void **state)
{
    grammar_vocab *v = tiny_vocab();
    int compiled = 0;
    for (uint32_t round = 1; round <= 1500; round++) {
        seed = round * 2654435761u | 1;
        trees = 0;
        for (int i = 0; i < RULES; i++) rule_root[i] = grow_tree(3, false);
        grammar_builder *b = grammar_builder_new(NULL);
        for (int i = 0; i < RULES; i++) {
            char name[16];
            snprintf(name, sizeof name, "r%d", i);
            grammar_define(b, grammar_rule(b, name), to_expr(b, rule_root[i]));
        }
        vlm_error error = {0};
        grammar *g = grammar_compile(b, grammar_rule(b, "r0"), v, &error);
        grammar_builder_free(b);
        if (!g && error.code != VLM_INVALID) print_error("round %u: %s\n", round, error.message);
        assert_true(g || error.code == VLM_INVALID);
        compiled += g != NULL;
        for (int k = 0; k < 60; k++) {
            char text[TEXT + 1];
            const int size = (int)draw(TEXT);
            for (int i = 0; i < size; i++) text[i] = "abc"[draw(3)];
            text[size] = 0;
            const bool want = oracle(text, size);
            if (!g) assert_false(want);
            else if (accepts(g, text, (size_t)size) != want) fail_msg("round %u: \"%s\" should be %s", round, text, want ? "taken" : "refused");
        }
        /* A walk by tokens: masks, forced bytes, rollback. */
        matcher *m = g ? matcher_new(g, &error) : NULL;
        for (int step = 0; m && step < 6; step++) {
            check_mask(m);
            check_forced(m);
            uint64_t mask[1];
            assert_true(matcher_mask(m, mask, &error));
            assert_true(mask[0] || matcher_history(m) == 0);        /* never a dead end */
            if (!mask[0]) break;
            int32_t t = (int32_t)draw(17);
            while (!(mask[0] >> t & 1)) t = (t + 1) % 17;
            if (t == 15) break;
            assert_true(matcher_token(m, t, &error));
            if (draw(4) == 0) {
                const size_t n = draw((uint32_t)matcher_history(m) + 1);
                matcher *copy = matcher_copy(m, &error);
                assert_true(matcher_rollback(copy, n));
                check_mask(copy);
                matcher_free(copy);
            }
        }
        matcher_free(m);
        grammar_unref(g);
    }
    assert_true(compiled > 900);
    grammar_vocab_unref(v);
}

static void special_tokens(void **state)
{
    grammar_vocab *v = tiny_vocab();
    grammar_builder *b = grammar_builder_new(NULL);
    const grammar_expr tag = grammar_token_text(b, "<tag>", 5), none = grammar_token_text(b, "ab", 2);
    grammar *g = compile(b, grammar_seq(b, (grammar_expr[]){grammar_regex(b, "a*", 2, 0), tag, none}, 3), v);
    vlm_error error = {0};
    matcher *m = matcher_new(g, &error);
    uint64_t mask[1];
    assert_true(matcher_mask(m, mask, &error));
    assert_int_equal(mask[0], 1u << 0 | 1u << 6 | 1u << 7 | 1u << 11);
    assert_false(matcher_bytes(m, "<tag>", 5, NULL, &error));
    assert_true(matcher_token(m, 11, &error));
    assert_false(matcher_token(m, 15, &error));
    assert_true(matcher_token(m, 12, &error));
    assert_true(matcher_finished(m) && matcher_accepting(m));
    assert_true(matcher_token(m, 15, &error));
    assert_true(matcher_mask(m, mask, &error));
    assert_int_equal(mask[0], 0);
    assert_false(matcher_token(m, 0, &error));
    assert_true(matcher_rollback(m, 4) == false && matcher_rollback(m, 3));
    assert_true(matcher_mask(m, mask, &error));
    assert_int_equal(mask[0], 1u << 0 | 1u << 6 | 1u << 7 | 1u << 11);
    assert_int_equal(error.code, VLM_OK);
    matcher_free(m);
    grammar_unref(g);
    grammar_vocab_unref(v);
}

static void limits(void **state)
{
    /* An expression without end of nodes, a grammar without end of readings. */
    grammar_builder *b = grammar_builder_new(&(grammar_limits){.nodes = 1000});
    grammar_expr x = grammar_text(b, "a");
    for (int i = 0; i < 2000; i++) x = grammar_alt2(b, grammar_seq2(b, x, grammar_text(b, "b")), grammar_text(b, "c"));
    assert_int_equal(grammar_builder_error(b)->code, VLM_LIMIT);
    grammar_builder_free(b);

    b = grammar_builder_new(NULL);
    const char *bomb = "(((((a{1,1000}){1,1000}){1,1000}){1,1000}){1,1000}|b){1,1000}";
    grammar *g = compile(b, grammar_regex(b, bomb, strlen(bomb), 0), NULL);
    vlm_error error = {0};
    matcher *m = matcher_new(g, &error);
    assert_true(matcher_bytes(m, "aaaaaaaabbbaaaa", 15, NULL, &error));
    matcher_free(m);
    grammar_unref(g);

    b = grammar_builder_new(&(grammar_limits){.memory = 4 << 20});
    const char *wide = "(a|b)*a(a|b){60}";
    g = compile(b, grammar_regex(b, wide, strlen(wide), 0), NULL);
    m = matcher_new(g, &error);
    bool fits = true;
    seed = 77;
    for (int i = 0; i < 200000 && fits; i++) fits = matcher_bytes(m, draw(2) ? "a" : "b", 1, NULL, &error);
    assert_false(fits);
    assert_int_equal(error.code, VLM_LIMIT);
    matcher_free(m);
    error = (vlm_error){0};
    m = matcher_new(g, &error);    /* the next one starts afresh */
    assert_non_null(m);
    assert_true(matcher_bytes(m, "abab", 4, NULL, &error));
    matcher_free(m);
    grammar_unref(g);
}

/* Tokens of all lengths, against counts around the bounds by which masks are shared and tries are cut. */
enum { MANY_TOKENS = 600 };
static char many_text[MANY_TOKENS][160];
static grammar_piece many[MANY_TOKENS];

static size_t make_tokens(void)
{
    static const char *const unit[] = {"a", "\xC3\xA9", "ab", "<", "\\n"}, *const end[] = {"", "\"", "\",", "b", "<e>", "\xC3", "\n"};
    size_t n = 0;
    for (size_t u = 0; u < 5; u++) {
        for (int length = 0; length <= 70; length += length < 10 ? 1 : length > 28 && length < 38 ? 1 : 7) {
            for (size_t e = 0; e < 7 && n < MANY_TOKENS; e++) {
                if (e > 2 && length > 20 && length != 33) continue;
                char *text = many_text[n];
                text[0] = 0;
                for (int i = 0; i < length; i++) strcat(text, unit[u]);
                strcat(text, end[e]);
                many[n] = (grammar_piece){text, strlen(text), false};
                if (many[n].size) n++;
            }
        }
    }
    return n;
}

static void check_many(matcher *m, size_t n)
{
    uint64_t mask[MANY_TOKENS / 64 + 1];
    vlm_error error = {0};
    assert_true(matcher_mask(m, mask, &error));
    for (size_t t = 0; t < n; t++) {
        const bool want = matcher_bytes(m, many[t].bytes, many[t].size, NULL, &error);
        if (want) assert_true(matcher_rollback(m, 1));
        if ((mask[t / 64] >> (t % 64) & 1) != want) fail_msg("token \"%s\" should be %s", many[t].bytes, want ? "allowed" : "refused");
    }
    assert_int_equal(error.code, VLM_OK);
}

static void counts_and_lengths(void **state)
{
    static const char *const pattern[] = {
        "\"[^\"\\\\]{0,100}\",a", "\"([^\"\\\\\\n]|\\\\n){33,34}\"", "\"([^\"\\\\\\n]|\\\\n){30,66}\"", "\"[^\"]*\",", "\"(a|\xC3\xA9){31,33}(b|\")", "\"((ab){0,40}|a{20,50}b)\"", "\"(a{1,40}b){0,35}\"",
        "\"([^\"]{32}){1,2}\""};
    const size_t n = make_tokens();
    vlm_error error = {0};
    grammar_vocab *v = grammar_vocab_new(many, n, NULL, 0, &error);
    for (size_t i = 0; i <= sizeof pattern / sizeof *pattern; i++) {
        grammar_builder *b = grammar_builder_new(NULL);
        grammar_expr x;
        const grammar_literal tags[] = {{"<e>", 3}, {"aaab", 4}};
        if (i < sizeof pattern / sizeof *pattern) x = grammar_outline(b, grammar_regex(b, pattern[i], strlen(pattern[i]), GRAMMAR_DOTALL));
        else x = grammar_seq(b, (grammar_expr[]){grammar_text(b, "\""), grammar_without(b, tags, 2), grammar_text(b, "<e>")}, 3);
        grammar *g = compile(b, grammar_seq2(b, x, grammar_text(b, "aa")), v);
        matcher *m = matcher_new(g, &error);
        check_many(m, n);
        if (!matcher_bytes(m, "\"", 1, NULL, &error)) fail_msg("no quote");
        for (int k = 0; k < 110; k++) {
            if (k < 5 || k % 7 == 0 || (k > 25 && k < 40)) check_many(m, n);
            if (!matcher_bytes(m, i == 5 && k % 2 ? "b" : "a", 1, NULL, &error) && !matcher_bytes(m, "b", 1, NULL, &error)) break;
        }
        check_many(m, n);
        matcher_free(m);
        grammar_unref(g);
    }
    grammar_vocab_unref(v);
}

/* Several requests with one grammar at once. */
static void *request(void *arg)
{
    grammar *g = arg;
    vlm_error error = {0};
    uint64_t mask[1];
    uint32_t x = (uint32_t)(uintptr_t)&error | 1;
    for (int round = 0; round < 30; round++) {
        matcher *m = matcher_new(g, &error);
        for (int i = 0; i < 20 && matcher_mask(m, mask, &error) && mask[0]; i++) {
            int32_t t = (int32_t)((x = x * 1664525u + 1013904223u) >> 16) % 17;
            while (!(mask[0] >> t & 1)) t = (t + 1) % 17;
            if (!matcher_token(m, t, &error)) return "a token of the mask was refused";
        }
        matcher_free(m);
    }
    return error.code == VLM_OK ? NULL : "error";
}

static void threads(void **state)
{
    grammar_vocab *v = tiny_vocab();
    grammar_builder *b = grammar_builder_new(NULL);
    const grammar_expr r = grammar_rule(b, "r");
    grammar_define(b, r, grammar_alt2(b, grammar_regex(b, "(ab|c){1,9}", 11, 0), grammar_seq(b, (grammar_expr[]){grammar_text(b, "a"), r, grammar_text(b, "b")}, 3)));
    grammar *g = compile(b, r, v);
    pthread_t thread[4];
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&thread[i], NULL, request, g), 0);
    for (int i = 0; i < 4; i++) {
        void *wrong;
        pthread_join(thread[i], &wrong);
        assert_null(wrong);
    }
    grammar_unref(g);
    grammar_vocab_unref(v);
}

/* Work that has no end is stopped: hostile patterns within about a second. */
static void hostile(void **state)
{
    static const char *const pattern[] = {"(((a*)*)*)*b", "(a|a|aa|aaa)*c", "(.*){50}x(.*){50}", "((a?){30}){30}a{30}", "(\\w{1,60}\\W){1,60}", "(a{0,9}b?){9,99}{9,99}c"};
    for (size_t i = 0; i < sizeof pattern / sizeof *pattern; i++) {
        grammar_builder *b = grammar_builder_new(&(grammar_limits){.memory = 16 << 20});
        grammar *g = compile(b, grammar_regex(b, pattern[i], strlen(pattern[i]), GRAMMAR_UNICODE), NULL);
        vlm_error error = {0};
        matcher *m = matcher_new(g, &error);
        for (int k = 0; m && k < 300; k++) if (!matcher_bytes(m, "a", 1, NULL, &error)) break;
        assert_true(error.code == VLM_OK || error.code == VLM_LIMIT);
        matcher_free(m);
        grammar_unref(g);
    }
}

/* Every allocation fails once. */
static bool scenario(void)
{
    vlm_error error = {0};
    grammar_vocab *v = NULL;
    grammar *g = NULL;
    matcher *m = NULL, *copy = NULL;
    bool done = false;
    buf forced = {0};
    uint64_t mask[1];
    static const grammar_piece piece[] = {{"a", 1, false}, {"ab", 2, false}, {"<tag>", 5, true}};
    grammar_builder *b = grammar_builder_new(NULL);
    if (b) {
        const grammar_literal words[] = {{"one", 3}, {"only", 4}};
        grammar_expr r = grammar_rule(b, "r");
        const grammar_expr way[] = {grammar_seq2(b, r, grammar_regex(b, "[^x]\\p{Lu}?b$", 13, GRAMMAR_SEARCH)), grammar_one_of(b, words, 2),
                                    grammar_and(b, grammar_text(b, "ab"), grammar_not(b, grammar_text(b, "b"))), grammar_token_text(b, "<tag>", 5)};
        grammar_define(b, r, grammar_outline(b, grammar_alt(b, way, 4)));
        if ((v = grammar_vocab_new(piece, 3, NULL, 0, &error))) g = grammar_compile(b, r, v, &error);
    }
    if (g && (m = matcher_new(g, &error)) && matcher_mask(m, mask, &error) && matcher_token(m, 1, &error) && (copy = matcher_copy(m, &error))
        && matcher_mask(copy, mask, &error) && matcher_bytes(copy, "xb", 2, NULL, &error) && matcher_forced(m, 9, &forced, &error)) done = true;
    if (!done) assert_int_equal(b && v && (!g || m) ? error.code : VLM_MEMORY, VLM_MEMORY);
    buf_free(&forced);
    matcher_free(m);
    matcher_free(copy);
    grammar_unref(g);
    grammar_vocab_unref(v);
    grammar_builder_free(b);
    return done;
}

static void memory_ends(void **state)
{
    bool done = false;
    for (uint64_t n = 1; !done; n++) {
        assert_true(n < 2000);
        mem_fail_at(n);
        const bool whole = scenario();
        done = !mem_failed();
        assert_true(whole || !done);
        mem_fail_at(0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(regex_language), cmocka_unit_test(regex_search), cmocka_unit_test(regex_refused), cmocka_unit_test(regular_operations),
        cmocka_unit_test(finished_automata), cmocka_unit_test(recursion), cmocka_unit_test(random_grammars), cmocka_unit_test(special_tokens), cmocka_unit_test(limits), cmocka_unit_test(counts_and_lengths), cmocka_unit_test(threads), cmocka_unit_test(hostile),
        cmocka_unit_test(memory_ends)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
