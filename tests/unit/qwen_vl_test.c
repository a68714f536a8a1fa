/* qwen_vl_test.c - models/qwen_vl.h: M-RoPE positions of prompts, choice of frames. */
#include "blocks_golden.h"

#include <stdlib.h>
#include <string.h>

#include "models/qwen_vl.h"

static void check_axes(const json_t *want, int32_t axes[3][512], int n)
{
    for (size_t a = 0; a < 3; a++) {
        assert_int_equal(json_array_size(json_array_get(want, a)), n);
        for (int i = 0; i < n; i++)
            if (axes[a][i] != whole(json_array_get(want, a), (size_t)i))
                fail_msg("axis %zu, token %d: %d, expected %d", a, i, axes[a][i], (int)whole(json_array_get(want, a), (size_t)i));
    }
}

static void positions(void **state)
{
    (void)state;
    qwen_vl_processor p = {.patch = {.merge = 2, .patch = 14, .temporal = 2}, .tokens_per_second = 2};
    size_t k, i;
    json_t *g, *part;
    json_array_foreach(golden("positions"), k, g) {
        static int32_t axes[3][512];
        media_input media[4] = {{0}}, *list[4];
        media_span spans[4];
        int n = 0, count = 0;
        double seconds = json_number_value(member(g, "seconds"));
        json_array_foreach(member(g, "parts"), i, part) {
            if (json_is_integer(part)) {
                n += (int)json_integer_value(part);
                continue;
            }
            media_input *in = list[count] = &media[count];
            in->kind = seconds > 0 ? MEDIA_VIDEO : MEDIA_IMAGE;
            in->seconds_per_grid = seconds;
            in->tokens = 1;
            for (size_t a = 0; a < 3; a++) in->tokens *= in->grid[a] = (int)whole(part, a);
            in->tokens /= 4;
            spans[count] = (media_span){n, in->tokens, count, 0};
            n += in->tokens;
            count++;
        }
        int32_t next = 0, *const out[3] = {axes[0], axes[1], axes[2]};
        assert_true(qwen_vl_positions(&p, n, spans, count, list, out, &next, NULL));
        assert_int_equal(next, json_integer_value(member(g, "next")));
        check_axes(member(g, "positions"), axes, n);
    }
}

static void rejects_what_does_not_fit(void **state)
{
    (void)state;
    qwen_vl_processor p = {.patch = {.merge = 2, .patch = 14, .temporal = 2}};
    media_input in = {.kind = MEDIA_IMAGE, .tokens = 4, .grid = {1, 4, 4}}, *list[] = {&in};
    int32_t a[8], next, *const axes[3] = {a, a, a};
    assert_false(qwen_vl_positions(&p, 5, &(media_span){3, 4, 0, 0}, 1, list, axes, &next, NULL));
    assert_false(qwen_vl_positions(&p, 8, &(media_span){1, 5, 0, 0}, 1, list, axes, &next, NULL));
    assert_true(qwen_vl_positions(&p, 8, &(media_span){1, 4, 0, 0}, 1, list, axes, &next, NULL));
}

static void frames(void **state)
{
    (void)state;
    size_t k;
    json_t *g;
    json_array_foreach(golden("frames"), k, g) {
        qwen_vl_processor p = {.patch = {.temporal = 2}, .fps = json_number_value(member(g, "asked")), .min_frames = (int)json_integer_value(member(g, "least")),
                               .max_frames = (int)json_integer_value(member(g, "most"))};
        video_info info = {.fps = json_number_value(member(g, "fps")), .total_frames = json_integer_value(member(g, "total"))};
        int64_t *index = NULL;
        int count = 0;
        assert_true(qwen_vl_pick_frames(&p, NULL, NULL, &info, &index, &count, NULL));
        assert_int_equal(count, json_array_size(member(g, "indices")));
        for (int i = 0; i < count; i++) assert_int_equal(index[i], whole(member(g, "indices"), (size_t)i));
        mem_free(index);
    }
}

static void frame_options(void **state)
{
    (void)state;
    qwen_vl_processor p = {.patch = {.temporal = 2}, .fps = 2, .min_frames = 4, .max_frames = 768};
    struct { const char *options; double part_fps, fps; int64_t total; int want; } cases[] = {
        {"{\"num_frames\": 7}", 0, 30, 300, 8},      /* 3.5 groups, rounded to even */
        {"{\"num_frames\": 5}", 0, 30, 300, 4},
        {"{\"num_frames\": 500}", 0, 30, 30, 30},
        {"{\"fps\": 1}", 0, 30, 300, 10},
        {"{\"max_frames\": 6}", 0, 30, 300, 6},
        {"{\"fps\": 1}", 2, 2, 9, 9},                /* a folder of frames: its own rate, an odd number stays */
        {NULL, 0, 30, 1, 1},
        {NULL, 0, 0, 3, 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *options = cases[i].options ? json_loads(cases[i].options, 0, NULL) : NULL;
        chat_media part = {.kind = MEDIA_VIDEO, .fps = cases[i].part_fps};
        video_info info = {.fps = cases[i].fps, .total_frames = cases[i].total};
        int64_t *index = NULL;
        int count = 0;
        assert_true(qwen_vl_pick_frames(&p, &part, options, &info, &index, &count, NULL));
        assert_int_equal(count, cases[i].want);
        for (int k = 0; k < count; k++) assert_true(index[k] >= 0 && index[k] < cases[i].total && (!k || index[k] >= index[k - 1]));
        mem_free(index);
        json_decref(options);
    }
    int64_t *index = NULL;
    int count = 0;
    assert_false(qwen_vl_pick_frames(&p, NULL, NULL, &(video_info){.fps = 30}, &index, &count, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(positions), cmocka_unit_test(rejects_what_does_not_fit), cmocka_unit_test(frames), cmocka_unit_test(frame_options)};
    return cmocka_run_group_tests(tests, golden_load, golden_free);
}
