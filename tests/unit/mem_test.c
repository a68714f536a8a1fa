/* mem_test.c - base/mem.h: buffers, arenas, fault injection. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#include "base/mem.h"

static void buf_grows_and_limits(void **state)
{
    (void)state;
    buf b = {.limit = 10};
    assert_true(buf_adds(&b, "12345"));
    assert_true(buf_addf(&b, "%d", 67890));
    assert_false(buf_addc(&b, 'x'));
    assert_true(b.failed);
    assert_string_equal(b.data, "1234567890");
    assert_null(buf_take(&b));
    b = (buf){0};
    assert_true(buf_add_utf8(&b, 0x1F642));
    char *text = buf_take(&b);
    assert_string_equal(text, "\xF0\x9F\x99\x82");
    mem_free(text);
}

static void arena_marks(void **state)
{
    (void)state;
    arena a = {.block_size = 1024};
    char *first = arena_alloc(&a, 100);
    memset(first, 7, 100);
    arena_mark mark = arena_get_mark(&a);
    char *second = arena_alloc(&a, 5000);
    assert_int_equal((uintptr_t)second % 64, 0);
    memset(second, 9, 5000);
    arena_release(&a, mark);
    assert_int_equal(a.used, 128);
    assert_int_equal(first[99], 7);
    char *third = arena_alloc(&a, 4000);            /* comes from the kept block, and is zeroed again */
    assert_int_equal(third[0], 0);
    assert_int_equal(third[3999], 0);
    arena_free(&a);
}

static void allocation_fails_once(void **state)
{
    (void)state;
    mem_fail_at(2);
    void *one = mem_new(1, 8), *two = mem_new(1, 8), *three = mem_new(1, 8);
    assert_non_null(one);
    assert_null(two);
    assert_non_null(three);
    assert_true(mem_failed());
    mem_fail_at(0);
    mem_free(one);
    mem_free(three);
    assert_null(mem_resize(NULL, SIZE_MAX / 2, 3));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buf_grows_and_limits),
        cmocka_unit_test(arena_marks),
        cmocka_unit_test(allocation_fails_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
