/* image_test.c - every kind of picture in tests/data/media gives Pillow's pixels; damaged, lying and huge ones give errors. */
#include "media_util.h"

#include "media/image_codec.h"

static void pictures_equal_pillow(void **state)
{
    (void)state;
    buf list = read_media("images.txt");
    int checked = 0;
    char *save = NULL;
    for (char *line = strtok_r(list.data, "\n", &save); line; line = strtok_r(NULL, "\n", &save), checked++) {
        char name[100], want[65], got[65];
        int width, height, w, h;
        assert_int_equal(sscanf(line, "%99s %d %d %64s", name, &width, &height, want), 4);
        buf b = read_media(name);
        image img;
        vlm_error error = {0};
        if (!image_decode(b.data, b.size, NULL, &img, &error)) fail_msg("%s: %s", name, error.message);
        assert_true(image_probe(b.data, b.size, &w, &h, &error));
        if (img.width != width || img.height != height || w != width || h != height) fail_msg("%s: %d x %d, %d x %d", name, img.width, img.height, w, h);
        pixels_hex(&img, got);
        if (strcmp(got, want) != 0) fail_msg("%s: the pixels differ from Pillow's", name);
        image_free(&img);
        buf_free(&b);
    }
    assert_true(checked > 60);
    buf_free(&list);
}

static void compact_is_the_same(void **state)
{
    (void)state;
    static const char *const names[] = {"gray.jpg", "page.png", "c0_d16_i1.png", "c4_d8_i0.png", "exif8gray.png", "page_rgb.png"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        buf b = read_media(names[i]);
        image a, c;
        char x[65], y[65];
        assert_true(image_decode(b.data, b.size, NULL, &a, NULL));
        assert_true(image_decode_compact(b.data, b.size, NULL, &c, NULL));
        assert_int_equal(c.gray, i != 5);
        image ra, rc;
        assert_true(image_resize(&a, 9, 8, RESIZE_BICUBIC, &ra, NULL));
        assert_true(image_resize(&c, 9, 8, RESIZE_BICUBIC, &rc, NULL));
        pixels_hex(&ra, x);
        pixels_hex(&rc, y);
        assert_string_equal(x, y);
        assert_true(image_to_rgb(&c, NULL));
        pixels_hex(&a, x);
        pixels_hex(&c, y);
        assert_string_equal(x, y);
        image_free(&a), image_free(&c), image_free(&ra), image_free(&rc);
        buf_free(&b);
    }
}

static bool fails(const void *data, size_t size, const media_policy *policy, vlm_error *error)
{
    image img;
    *error = (vlm_error){0};
    if (image_decode(data, size, policy, &img, error)) return image_free(&img), false;
    assert_null(img.rgb);
    assert_true(error->code != VLM_OK && error->message[0] != 0);
    return true;
}

static void damaged(void **state)
{
    (void)state;
    static const char *const names[] = {"sub2.jpg", "progressive.jpg", "arithmetic.jpg", "cmyk.jpg", "c2_d8_i0.png", "c3_d4_i1.png", "page.png",
                                        "lossy.webp", "lossless.webp", "animated.webp", "gray.gif", "transparent.gif", "rgb.bmp", "lzw.tif", "plain.ppm"};
    vlm_error e;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        buf b = read_media(names[i]);
        for (size_t part = 0; part < 8; part++)
            if (!fails(b.data, b.size * part / 10, NULL, &e)) fail_msg("%s cut to %zu/10 was decoded", names[i], part);
        for (unsigned seed = 1; seed < 200; seed++) {                    /* no crash, whatever comes out */
            char *copy = malloc(b.size);
            memcpy(copy, b.data, b.size);
            for (unsigned k = 0, r = seed * 7919; k < 3; k++, r = r * 1103515245 + 12345) copy[(r >> 8) % b.size] = (char)(r >> 3);
            image img;
            if (image_decode(copy, b.size, NULL, &img, &e)) image_free(&img);
            free(copy);
        }
        buf_free(&b);
    }
    assert_true(fails("", 0, NULL, &e));
    assert_true(fails("hello, this is no picture", 25, NULL, &e));
    buf jpeg = read_media("sub0.jpg");
    assert_true(fails(jpeg.data, jpeg.size * 3 / 4, NULL, &e));
    assert_non_null(strstr(e.message, "row"));                           /* says where */
    buf_free(&jpeg);
}

static void ceilings(void **state)
{
    (void)state;
    uint8_t png[57] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n', 0, 0, 0, 13, 'I', 'H', 'D', 'R', 0, 0, 0x75, 0x30, 0, 0, 0x75, 0x30, 8, 6};
    uint8_t gif[40] = "GIF89a\xff\xff\xff\xff";
    uint8_t bmp[64] = {'B', 'M', [14] = 40, [18] = 0, 0, 0, 0x40, 0, 0, 0, 0x40};
    vlm_error e;
    int w, h;
    assert_true(fails(png, sizeof png, NULL, &e));
    assert_int_equal(e.code, VLM_LIMIT);
    assert_non_null(strstr(e.message, "30000 x 30000"));
    assert_true(image_probe(png, sizeof png, &w, &h, &e) && w == 30000 && h == 30000);
    gif[13] = ',';
    assert_true(fails(gif, sizeof gif, NULL, &e));
    assert_int_equal(e.code, VLM_LIMIT);
    assert_true(fails(bmp, sizeof bmp, NULL, &e));
    assert_int_equal(e.code, VLM_LIMIT);
    memset(png + 16, 0, 8);
    assert_true(fails(png, sizeof png, NULL, &e));
    media_policy small = media_policy_default();
    small.max_pixels = 34 * 21 - 1;
    static const char *const names[] = {"sub0.jpg", "lossy.webp", "animated.webp", "gray.gif", "rgb.bmp", "lzw.tif"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        buf b = read_media(names[i]);
        if (!fails(b.data, b.size, &small, &e)) fail_msg("%s is larger than the ceiling", names[i]);
        if (strcmp(names[i], "lzw.tif") != 0) assert_int_equal(e.code, VLM_LIMIT);
        small.max_pixels = 34 * 21;
        if (fails(b.data, b.size, &small, &e)) fail_msg("%s: %s", names[i], e.message);
        small.max_pixels--;
        buf_free(&b);
    }
    small = media_policy_default();
    small.max_side = 20;
    buf b = read_media("sub0.jpg");
    assert_true(fails(b.data, b.size, &small, &e));
    assert_int_equal(e.code, VLM_LIMIT);
    buf_free(&b);
}

static void out_of_memory(void **state)
{
    (void)state;
    static const char *const names[] = {"exif6.jpg", "cmyk.jpg", "exif6.png", "c3_d8_i0.png", "c0_d16_i1.png", "lossy.webp", "animated.webp",
                                        "transparent.gif", "rgb.bmp", "lzw.tif"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        buf b = read_media(names[i]);
        bool more = true;
        for (uint64_t n = 1; more; n++) {
            image img;
            vlm_error e = {0};
            mem_fail_at(n);
            bool ok = image_decode(b.data, b.size, NULL, &img, &e);
            more = mem_failed();
            mem_fail_at(0);
            if (!ok) assert_true(e.code == VLM_MEMORY || e.code == VLM_FORMAT);
            if (!ok && !more) fail_msg("%s: %s", names[i], e.message);
            image_free(&img);
            assert_true(n < 1000);
        }
        buf_free(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pictures_equal_pillow), cmocka_unit_test(compact_is_the_same), cmocka_unit_test(damaged),
        cmocka_unit_test(ceilings), cmocka_unit_test(out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
