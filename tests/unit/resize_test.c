/* resize_test.c - torchvision's bits; and the loops of each instruction set against those in C, with guard bytes. */
#include "media_util.h"

#include "media/resize.h"
#include "tensor/cpu/cpu.h"

static resize_filter filter_named(const char *name)
{
    return !strcmp(name, "nearest") ? RESIZE_NEAREST : !strcmp(name, "bilinear") ? RESIZE_BILINEAR : !strcmp(name, "bicubic") ? RESIZE_BICUBIC : RESIZE_LANCZOS;
}

static void equals_torchvision(void **state)
{
    (void)state;
    buf list = read_media("resize.txt");
    int checked = 0;
    char *save = NULL;
    for (char *line = strtok_r(list.data, "\n", &save); line; line = strtok_r(NULL, "\n", &save), checked++) {
        char name[100], filter[20], want[65], got[65];
        int width, height;
        assert_int_equal(sscanf(line, "%99s %d %d %19s %64s", name, &width, &height, filter, want), 5);
        buf b = read_media(name);
        image in, out;
        assert_true(image_decode_compact(b.data, b.size, NULL, &in, NULL));
        assert_true(image_resize(&in, width, height, filter_named(filter), &out, NULL));
        assert_true(out.width == width && out.height == height);
        pixels_hex(&out, got);
        if (strcmp(got, want) != 0) fail_msg("%s to %d x %d, %s: differs from torchvision", name, width, height, filter);
        image_free(&in), image_free(&out);
        buf_free(&b);
    }
    assert_true(checked > 100);
    buf_free(&list);
}

enum { GUARD = 0xa5, ROW = 5000 };

static unsigned next(unsigned *r)
{
    return (*r = *r * 1664525 + 1013904223) >> 8;
}

static void check_down(const resize_kernels *c, const resize_kernels *k, unsigned seed)
{
    static uint8_t pixels[40][ROW], want[ROW + 64], got[ROW + 64];
    const uint8_t *rows[40];
    int16_t w[40];
    unsigned r = seed;
    int n = 1 + (int)(next(&r) % 40), bytes = 1 + (int)(next(&r) % (seed % 5 ? 70 : ROW)), shift = 8 + (int)(next(&r) % 14);
    for (int i = 0; i < n; i++) {
        w[i] = (int16_t)((int)(next(&r) % 4000) - 1000);
        rows[i] = pixels[i] + ROW - bytes;
        for (int x = 0; x < ROW; x++) pixels[i][x] = (uint8_t)next(&r);
    }
    memset(want, GUARD, sizeof want);
    memset(got, GUARD, sizeof got);
    c->down(rows, n, w, shift, want, bytes);
    k->down(rows, n, w, shift, got, bytes);
    assert_memory_equal(want, got, sizeof got);
}

static void check_across(const resize_kernels *c, const resize_kernels *k, bool gray, unsigned seed)
{
    unsigned r = seed;
    int channels = gray ? 1 : 3, in = 1 + (int)(next(&r) % 300), out = 1 + (int)(next(&r) % 100), most = 1 + (int)(next(&r) % 40);
    resize_taps t = {.out = out, .stride = 48, .precision = 8 + (int)(next(&r) % 14), .first = MEM_ARRAY((size_t)out, int),
                     .count = MEM_ARRAY((size_t)out, int), .weight = MEM_ARRAY((size_t)out * 48, int16_t)};
    uint8_t *row = malloc((size_t)(in * channels + RESIZE_READ_AHEAD));
    for (int i = 0; i < in * channels + RESIZE_READ_AHEAD; i++) row[i] = (uint8_t)next(&r);
    for (int i = 0; i < out; i++) {
        t.count[i] = 1 + (int)(next(&r) % (unsigned)(most < in ? most : in));
        t.first[i] = (int)(next(&r) % (unsigned)(in - t.count[i] + 1));
        for (int j = 0; j < t.count[i]; j++) t.weight[i * 48 + j] = (int16_t)((int)(next(&r) % 4000) - 1000);
    }
    size_t size = (size_t)(out * channels);
    uint8_t *want = malloc(size + 64), *got = malloc(size + 64);
    memset(want, GUARD, size + 64);
    memset(got, GUARD, size + 64);
    (gray ? c->across_gray : c->across)(row, want, &t);
    (gray ? k->across_gray : k->across)(row, got, &t);
    assert_memory_equal(want, got, size);
    for (size_t i = size + RESIZE_WRITE_AHEAD; i < size + 64; i++) assert_int_equal(got[i], GUARD);
    free(want), free(got), free(row);
    mem_free(t.first), mem_free(t.count), mem_free(t.weight);
}

static void instruction_sets_agree(void **state)
{
    (void)state;
    resize_kernels c, k;
    unsigned features = 0;
    const char *name;
    resize_kernels_c(&c);
    k = c;
    assert_true(cpu_features(NULL, &features, &name, NULL));
#if defined(__x86_64__)
    if (features & CPU_AVX2) resize_kernels_avx2(&k);
#elif defined(__aarch64__)
    if (features & CPU_NEON) resize_kernels_neon(&k);
#endif
    for (unsigned seed = 1; seed < 400; seed++) {
        check_down(&c, &k, seed);
        check_across(&c, &k, false, seed);
        check_across(&c, &k, true, seed);
    }
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
        cmocka_unit_test(equals_torchvision), cmocka_unit_test(instruction_sets_agree), cmocka_unit_test(large_in_bands), cmocka_unit_test(refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
