/* patch_test.c - blocks/patch.h and the geometry of blocks/vit.h against transformers. */
#include "blocks_golden.h"

#include <math.h>
#include <stdlib.h>

#include "blocks/patch.h"
#include "blocks/vit.h"

static void rounds_half_to_even(void **state)
{
    (void)state;
    assert_int_equal(round_half_even(0.5), 0);
    assert_int_equal(round_half_even(1.5), 2);
    assert_int_equal(round_half_even(2.5), 2);
    assert_int_equal(round_half_even(2.51), 3);
    assert_int_equal(round_half_even(-1.5), -2);
    assert_int_equal(round_half_even(7), 7);
}

static void sizes(void **state)
{
    (void)state;
    size_t k;
    json_t *g;
    json_array_foreach(golden("smart_resize"), k, g) {
        int h = 0, w = 0;
        bool ok = smart_resize((int)whole(g, 0), (int)whole(g, 1), (int)whole(g, 2), whole(g, 3), whole(g, 4), &h, &w, NULL);
        if (ok != (whole(g, 5) > 0) || (ok && (h != whole(g, 5) || w != whole(g, 6))))
            fail_msg("%d x %d: %d x %d, expected %d x %d", (int)whole(g, 0), (int)whole(g, 1), h, w, (int)whole(g, 5), (int)whole(g, 6));
    }
    int h, w;
    assert_false(smart_resize(0, 5, 28, 3136, 12845056, &h, &w, NULL));
    assert_false(smart_resize(5, 5, 28, 3136, 100, &h, &w, NULL));
}

static void geometry(void **state)
{
    (void)state;
    size_t k;
    json_t *g;
    json_array_foreach(golden("windows"), k, g) {
        int t = (int)whole(member(g, "grid"), 0), h = (int)whole(member(g, "grid"), 1), w = (int)whole(member(g, "grid"), 2);
        int merge = (int)json_integer_value(member(g, "merge")), n = t * h * w, blocks = n / merge / merge;
        int32_t *order = malloc((size_t)blocks * 4), *starts = malloc((size_t)(blocks + 1) * 4), *row = malloc((size_t)n * 4), *column = malloc((size_t)n * 4);
        int windows = vit_windows(t, h, w, merge, (int)json_integer_value(member(g, "side")), order, starts);
        json_t *want = member(g, "starts");
        assert_int_equal(windows + 1, json_array_size(want));
        for (int i = 0; i <= windows; i++) assert_int_equal(starts[i], whole(want, (size_t)i));
        for (int i = 0; i < blocks; i++) assert_int_equal(order[i], whole(member(g, "order"), (size_t)i));
        vit_positions(t, h, w, merge, row, column);
        for (int i = 0; i < n; i++) {
            assert_int_equal(row[i], whole(member(g, "row"), (size_t)i));
            assert_int_equal(column[i], whole(member(g, "column"), (size_t)i));
        }
        free(order);
        free(starts);
        free(row);
        free(column);
    }
}

/* Two frames of 4 x 4, patches of 1 x 1, merged 2 x 2: where each value goes can be told from it. */
static void patches(void **state)
{
    (void)state;
    uint8_t a[48], b[48];
    for (int i = 0; i < 48; i++) a[i] = (uint8_t)i, b[i] = (uint8_t)(100 + i);
    image frames[3] = {{.width = 4, .height = 4, .rgb = a}, {.width = 4, .height = 4, .rgb = b}, {.width = 4, .height = 4, .rgb = a}};
    patch_spec s = {.patch = 1, .merge = 2, .temporal = 2, .mean = {0, 0, 0.5f}, .std = {1, 1, 0.5f}, .rescale = 1 / 255.0};
    float out[2 * 16 * 6];
    patchify(frames, 3, 4, 4, &s, out);
    static const int order[16] = {0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15};
    for (int g = 0; g < 2; g++)
        for (int p = 0; p < 16; p++)
            for (int c = 0; c < 3; c++)
                for (int t = 0; t < 2; t++) {
                    int pixel = 3 * order[p] + c + (t && !g ? 100 : 0);            /* the third frame is repeated */
                    float want = c < 2 ? (float)pixel / 255.0f : ((float)pixel - 127.5f) / 127.5f;
                    assert_true(fabsf(out[(g * 16 + p) * 6 + c * 2 + t] - want) < 1e-6f);
                }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(rounds_half_to_even), cmocka_unit_test(sizes), cmocka_unit_test(geometry), cmocka_unit_test(patches)};
    return cmocka_run_group_tests(tests, golden_load, golden_free);
}
