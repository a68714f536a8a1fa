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

static const vlm_arch arch = {.name = "test", .title = "Test"};

/* Tokens of a gray image or of `count` frames of it; -1: an error whose message holds `text`. */
static int tokens_of(int width, int height, int count, const char *options, int context, const char *text)
{
    qwen_vl_processor p = {.patch = {.patch = 14, .merge = 2, .temporal = 2, .mean = {0.5f, 0.5f, 0.5f}, .std = {0.5f, 0.5f, 0.5f}, .rescale = 1 / 255.0},
                           .image = {3136, 1003520}, .video = {3136, 602112}};
    vlm_model m = {.arch = &arch, .context = context};
    image frames[16];
    for (int i = 0; i < 16; i++) frames[i] = (image){.width = width, .height = height, .rgb = MEM_ARRAY((size_t)width * (size_t)height * 3, uint8_t)};
    media_item item = {.kind = count ? MEDIA_VIDEO : MEDIA_IMAGE, .image = frames[0], .video = {.frames = frames, .count = count, .info = {.width = width, .height = height, .fps = 4, .total_frames = count}}};
    json_t *o = options ? json_loads(options, 0, NULL) : NULL;
    media_input *in = MEM_NEW(media_input);
    vlm_error error = {0};
    bool ok = qwen_vl_process(&m, &p, &item, o, in, &error);
    if (!ok && (!text || !strstr(error.message, text))) fail_msg("unexpected error: %s", error.message);
    if (ok) assert_int_equal(in->tokens * 4, in->grid[0] * in->grid[1] * in->grid[2]);
    if (ok && count) assert_true(in->seconds_per_grid == 0.5 && in->frames == in->grid[0]);
    int tokens = ok ? in->tokens : -1;
    for (int i = 0; i < 16; i++) mem_free(frames[i].rgb);
    json_decref(o);
    media_input_free(in);
    return tokens;
}

static void sizes_in_tokens(void **state)
{
    (void)state;
    assert_int_equal(tokens_of(280, 140, 0, NULL, 4096, NULL), 50);
    assert_int_equal(tokens_of(20, 20, 0, NULL, 4096, NULL), 4);
    assert_int_equal(tokens_of(280, 140, 0, "{\"max_pixels\": 9408}", 4096, NULL), 8);
    assert_int_equal(tokens_of(280, 140, 0, "{\"min_pixels\": 156800}", 4096, NULL), 200);
    assert_int_equal(tokens_of(280, 140, 0, "{\"resized_height\": 56, \"resized_width\": 84}", 4096, NULL), 6);
    assert_int_equal(tokens_of(280, 140, 0, "{\"max_pixels\": \"many\", \"min_pixels\": -5}", 4096, NULL), 50);
    assert_int_equal(tokens_of(280, 140, 0, NULL, 49, "49"), -1);
    assert_int_equal(tokens_of(600, 2, 0, NULL, 4096, "200 times"), -1);
    assert_int_equal(tokens_of(280, 140, 5, NULL, 4096, NULL), 150);           /* three groups, the last frame twice */
    assert_true(tokens_of(280, 140, 16, NULL, 300, NULL) <= 270);              /* does not fit: frames get smaller */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(positions), cmocka_unit_test(rejects_what_does_not_fit), cmocka_unit_test(frames), cmocka_unit_test(frame_options),
                                       cmocka_unit_test(sizes_in_tokens)};
    return cmocka_run_group_tests(tests, golden_load, golden_free);
}
