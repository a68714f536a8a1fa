/* thinking_test.c - engine/thinking.h on the demo model's tokenizer: markers of one and of several tokens, cut anywhere; budgets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#include "engine/thinking.h"

static tokenizer *tok;

static int set_up(void **state)
{
    (void)state;
    vlm_error error = {0};
    if (!(tok = tokenizer_load("models/demo", &error))) print_error("%s\n", error.message);
    return tok ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    tokenizer_free(tok);
    return 0;
}

static thinking begin(const char *start, const char *end, const char *before, int budget)
{
    thinking t;
    vlm_error error = {0};
    if (!thinking_init(&t, tok, &(thinking_marks){start, end, NULL, NULL}, before, budget, &error)) fail_msg("%s", error.message);
    return t;
}

/* How many tokens of thinking, when the text comes in pieces of `step` bytes; *state: at its end. */
static int count(const char *start, const char *end, const char *before, const char *text, size_t step, thinking_state *state)
{
    thinking t = begin(start, end, before, -1);
    for (size_t i = 0, n = strlen(text); i < n; i += step) assert_true(thinking_add(&t, text + i, n - i < step ? n - i : step));
    int tokens = t.tokens;
    *state = t.state;
    assert_null(thinking_close(&t));
    thinking_free(&t);
    return tokens;
}

static void blocks(void **state)
{
    (void)state;
    thinking_state at;
    assert_int_equal(count("<think>", "</think>", "user\n", "answer", 1, &at), 0);
    assert_int_equal(at, THINKING_OVER);
    for (size_t step = 1; step < 12; step++) {
        count("<think>", "</think>", "user\n", " \n<think>\nabc</thin</think>\n\nanswer <think>", step, &at);
        assert_int_equal(at, THINKING_OVER);
        count("<think>", "</think>", "user\n", "<think>\nabc</thin", step, &at);
        assert_int_equal(at, THINKING_INSIDE);
        count("<think>", "</think>", "user\n<think>\n", "abc", step, &at);
        assert_int_equal(at, THINKING_INSIDE);
        count("<think>", "</think>", "user\n<think>\n\n</think>\n\n", "<think>abc", step, &at);
        assert_int_equal(at, THINKING_OVER);
        count("<think>", "</think>", "user\n", "<thi", step, &at);
        assert_int_equal(at, THINKING_MAYBE);
        count(NULL, NULL, "user\n", "<think>", step, &at);
        assert_int_equal(at, THINKING_OVER);
    }
    assert_int_equal(count("<think>", "</think>", "<think>", "abcd</think>e", 1, &at), 4 + 7);       /* the last one closes it */
}

static const char *closing(const thinking *t)
{
    static buf text;
    vlm_error error;
    buf_clear(&text);
    const ids *close = thinking_close(t);
    if (!close) return "";
    assert_true(tokenizer_decode(tok, close->id, close->count, false, &text, &error));
    return text.data;
}

static void budgets(void **state)
{
    (void)state;
    thinking t = begin("<|channel>thought", "<channel|>", "model\n<|channel>thought\n", 0);
    assert_string_equal(closing(&t), "<channel|>");                /* the prompt ends with a line break already */
    thinking_free(&t);

    t = begin("<|channel>thought", "<channel|>", "model\n", 2);
    static const char *const pieces[] = {"<|channel>", "thought", "\n", "a"};
    for (int i = 0; i < 4; i++) {
        assert_string_equal(closing(&t), "");
        assert_true(thinking_add(&t, pieces[i], strlen(pieces[i])));
    }
    assert_string_equal(closing(&t), "\n<channel|>");
    assert_int_equal(thinking_close(&t)->count, 2);
    assert_true(thinking_add(&t, "\xC3", 1));                      /* half a character */
    assert_string_equal(closing(&t), "");
    assert_true(thinking_add(&t, "\xA9\n", 2));
    assert_string_equal(closing(&t), "<channel|>");
    assert_true(thinking_add(&t, "<channel|>", 10));
    assert_int_equal(t.state, THINKING_OVER);
    assert_string_equal(closing(&t), "");
    thinking_free(&t);

    t = begin("(thinking)", "(end of thinking)", "(thinking)", 1);  /* markers that are no tokens */
    assert_true(thinking_add(&t, "a", 1));
    assert_string_equal(closing(&t), "\n(end of thinking)");
    assert_true(thinking_close(&t)->count > 3);
    assert_true(thinking_add(&t, "(end", 4));
    assert_string_equal(closing(&t), "");                          /* it is about to end by itself */
    assert_true(thinking_add(&t, " of it", 6));
    assert_string_equal(closing(&t), "\n(end of thinking)");
    thinking_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(blocks), cmocka_unit_test(budgets)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
