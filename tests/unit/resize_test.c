/* resize_test.c - torchvision's bits (the loops of each instruction set: tests/media/resize_check.c). */
#include "media_util.h"


static resize_filter filter_named(const char *name)
{
    return !strcmp(name, "nearest") ? RESIZE_NEAREST : !strcmp(name, "bilinear") ? RESIZE_BILINEAR : !strcmp(name, "bicubic") ? RESIZE_BICUBIC : RESIZE_LANCZOS;
}

typedef bool (*resize_fn)(const image *, int, int, resize_filter, image *, vlm_error *);

/* Lines of picture, width, height, filter, digest of what the reference makes of it. */
static void equals(const char *file, resize_fn resize, int least)
{
    buf list = read_media(file);
    int checked = 0;
    char *save = NULL;
    for (char *line = strtok_r(list.data, "\n", &save); line; line = strtok_r(NULL, "\n", &save), checked++) {
        char name[100], filter[20], want[65], got[65];
        int width, height;
        assert_int_equal(sscanf(line, "%99s %d %d %19s %64s", name, &width, &height, filter, want), 5);
        buf b = read_media(name);
        image in, out;
        assert_true(image_decode_compact(b.data, b.size, NULL, &in, NULL));
        assert_true(resize(&in, width, height, filter_named(filter), &out, NULL));
        assert_true(out.width == width && out.height == height);
        pixels_hex(&out, got);
        if (strcmp(got, want) != 0) fail_msg("%s to %d x %d, %s: differs from %s", name, width, height, filter, file);
        image_free(&in), image_free(&out);
        buf_free(&b);
    }
    assert_true(checked >= least);
    buf_free(&list);
}

static void equals_torchvision(void **state)
{
    (void)state;
    equals("resize.txt", image_resize, 100);
}

static bool plain(const image *in, int width, int height, resize_filter filter, image *out, vlm_error *error)
{
    (void)filter;
    return image_resize_plain(in, width, height, out, error);
}

static void equals_plain(void **state)
{
    (void)state;
    equals("resize_plain.txt", plain, 40);
}

static void equals_pillow(void **state)
{
    (void)state;
    equals("resize_pillow.txt", image_resize_pillow, 100);
}

static unsigned next(unsigned *r)
{
    return (*r = *r * 1664525 + 1013904223) >> 8;
}

static void large_in_bands(void **state)
{
    (void)state;
    image in = {.width = 2600, .height = 1700}, out, part, small;
    in.rgb = mem_new((size_t)in.width * (size_t)in.height, 3);
    assert_non_null(in.rgb);
    unsigned r = 3;
    for (size_t i = 0; i < (size_t)in.width * (size_t)in.height * 3; i++) in.rgb[i] = (uint8_t)next(&r);
    assert_true(image_resize(&in, 333, 1700, RESIZE_BICUBIC, &out, NULL));       /* threads: rows stay as they are */
    for (int top = 0; top < 1700; top += 850) {
        part = (image){.width = 2600, .height = 850, .rgb = in.rgb + (size_t)top * 2600 * 3};
        assert_true(image_resize(&part, 333, 850, RESIZE_BICUBIC, &small, NULL));  /* below the size for threads */
        assert_memory_equal(small.rgb, out.rgb + (size_t)top * 333 * 3, (size_t)850 * 333 * 3);
        image_free(&small);
    }
    image_free(&in), image_free(&out);
}

static void refuses(void **state)
{
    (void)state;
    uint8_t pixel[3] = {1, 2, 3};
    image in = {.width = 1, .height = 1, .rgb = pixel}, out;
    vlm_error e = {0};
    assert_false(image_resize(&in, 0, 5, RESIZE_BICUBIC, &out, &e));
    assert_int_equal(e.code, VLM_INVALID);
    assert_false(image_resize(&in, INT32_MAX, INT32_MAX, RESIZE_BICUBIC, &out, &e));
    assert_int_equal(e.code, VLM_LIMIT);
    for (uint64_t n = 1;; n++) {
        mem_fail_at(n);
        bool ok = image_resize(&in, 7, 9, RESIZE_LANCZOS, &out, &e), failed = mem_failed();
        mem_fail_at(0);
        assert_int_equal(ok, !failed);
        image_free(&out);
        if (!failed) break;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_torchvision), cmocka_unit_test(equals_plain), cmocka_unit_test(equals_pillow), cmocka_unit_test(large_in_bands), cmocka_unit_test(refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
