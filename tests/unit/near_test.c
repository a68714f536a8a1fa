/* near_test.c - base/near.h: suggestions for mistyped names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/near.h"

static void counts_letters(void **state)
{
    (void)state;
    assert_int_equal(near_distance("", ""), 0);
    assert_int_equal(near_distance("", "abc"), 3);
    assert_int_equal(near_distance("gemma4", "Gemma3"), 1);
    assert_int_equal(near_distance("ab", "ba"), 1);
    assert_int_equal(near_distance("kitten", "sitting"), 3);
    char a[200], b[200];
    for (int i = 0; i < 199; i++) a[i] = 'a', b[i] = 'b';
    a[199] = b[199] = 0;
    assert_int_equal(near_distance(a, b), 63);
}

static void suggests(void **state)
{
    (void)state;
    assert_true(near_enough("gemma", "gemma4"));
    assert_true(near_enough("qwen2_5vl", "qwen2_5_vl"));
    assert_true(near_enough("--max-token", "--max-tokens"));
    assert_false(near_enough("bert", "llama"));
    assert_false(near_enough("", "llama"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(counts_letters), cmocka_unit_test(suggests)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
