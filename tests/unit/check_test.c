/* check_test.c - cli/check_report.c: what counts as the same, and what is said when it is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "cli/check_report.c"

static void bounds_by_largest_magnitude(void **state)
{
    (void)state;
    check_report r = {0};
    const float want[4] = {0, -10, 5, 1}, near[4] = {0.009f, -10, 5, 1}, far[4] = {0, -10, 5.02f, 1};
    check_numbers(&r, STAGE_LOGITS, near, want, 4, 0, (tolerance){.bound = 1e-3}, "a/logits");
    assert_true(report_ok(&r));
    assert_true(fabs(r.stage[STAGE_LOGITS].worst - 9e-4) < 1e-6);
    check_numbers(&r, STAGE_LOGITS, far, want, 4, 2, (tolerance){.bound = 1e-3}, "b/logits");
    check_numbers(&r, STAGE_LOGITS, far, want, 4, 2, (tolerance){.bound = 1e-3}, "c/logits");
    assert_false(report_ok(&r));
    assert_int_equal(r.stage[STAGE_LOGITS].compared, 3);
    assert_int_equal(r.stage[STAGE_LOGITS].failed, 2);
    assert_non_null(strstr(r.stage[STAGE_LOGITS].first, "b/logits: row 1, column 0 is 5.02, 5 was expected"));
    assert_string_equal(r.stage[STAGE_LOGITS].worst_at, "b/logits");
}

static void notices_what_is_no_number(void **state)
{
    (void)state;
    check_report r = {0};
    const float want[2] = {1, 2}, got[2] = {NAN, 2}, zero[2] = {0, 0}, almost[2] = {0, 0.0005f};
    check_numbers(&r, STAGE_ENCODER, almost, zero, 2, 0, (tolerance){.bound = 1e-3}, "x");
    assert_true(report_ok(&r));
    check_numbers(&r, STAGE_ENCODER, got, want, 2, 0, (tolerance){.bound = 1e-3}, "x");
    assert_false(report_ok(&r));
    assert_true(isinf(r.stage[STAGE_ENCODER].worst));
    r = (check_report){0};
    check_numbers(&r, STAGE_PROCESSOR, got, want, 2, 0, (tolerance){.bound = 1e-3, .level = 1}, "x");
    assert_false(report_ok(&r));
}

static void forgives_one_level_in_200_pixels(void **state)
{
    (void)state;
    enum { N = 1000 };
    float want[N], got[N];
    const tolerance t = {.bound = 1e-5, .level = 0.1};
    for (int off = 4; off <= 6; off++) {
        check_report r = {0};
        for (int i = 0; i < N; i++) want[i] = 1, got[i] = i < off ? 1.1f : 1;
        check_numbers(&r, STAGE_PROCESSOR, got, want, N, 0, t, "x");
        assert_int_equal(report_ok(&r), off <= 5);
    }
    check_report r = {0};
    for (int i = 0; i < N; i++) got[i] = i ? 1 : 1.2f;                /* two levels, once */
    check_numbers(&r, STAGE_PROCESSOR, got, want, N, 0, t, "x");
    assert_false(report_ok(&r));
}

static void keeps_the_first_message(void **state)
{
    (void)state;
    check_report r = {0};
    check_same(&r, STAGE_IDS, true, "%s", "");
    assert_true(report_ok(&r));
    check_same(&r, STAGE_IDS, false, "id %d", 3);
    check_same(&r, STAGE_IDS, false, "id %d", 4);
    assert_string_equal(r.stage[STAGE_IDS].first, "id 3");
    assert_false(report_ok(&r));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bounds_by_largest_magnitude), cmocka_unit_test(notices_what_is_no_number), cmocka_unit_test(forgives_one_level_in_200_pixels),
        cmocka_unit_test(keeps_the_first_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
