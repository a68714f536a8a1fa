/* video_test.c - the picked frames are the right ones. Each frame of the clips carries its number as a bar code of 8 stripes. */
#include "media_util.h"

typedef struct wish { const int64_t *indices; int count; int64_t total; double fps; } wish;

static bool pick(void *user, const video_info *info, int64_t **indices, int *count, vlm_error *error)
{
    (void)error;
    wish *w = user;
    w->total = info->total_frames;
    w->fps = info->fps;
    *indices = MEM_ARRAY((size_t)w->count, int64_t);
    if (!*indices) return false;
    memcpy(*indices, w->indices, (size_t)w->count * sizeof(int64_t));
    *count = w->count;
    return true;
}

static int number_of(const image *img, bool turned)
{
    int n = 0;
    for (int bit = 0; bit < 8; bit++) {
        int64_t x = img->width * (2 * bit + 1) / 16, y = img->height * 3 / 4;
        if (turned) x = img->width * 3 / 4, y = img->height * (15 - 2 * bit) / 16;      /* turned left: left to right became bottom to top */
        n |= (img->rgb[3 * (y * img->width + x) + 1] > 128) << bit;
    }
    return n;
}

static void check_clip(const char *name, bool turned)
{
    static const int64_t picks[][6] = {{0, 1, 2, 3, 4, 5}, {39, 39, 39, 39, 39, 39}, {3, 9, 20, 20, 31, 38}, {0, 8, 16, 24, 32, 39}, {17, 18, 30, 31, 36, 37}};
    buf b = read_media(name);
    for (size_t p = 0; p < sizeof picks / sizeof *picks; p++) {
        wish w = {.indices = picks[p], .count = 6};
        video v;
        vlm_error e = {0};
        if (!video_decode(b.data, b.size, NULL, pick, &w, &v, &e)) fail_msg("%s: %s", name, e.message);
        if (w.total != 40 || v.count != 6) fail_msg("%s: %lld frames", name, (long long)w.total);
        assert_true(w.fps > 19.4 && w.fps < 20.6);
        for (int i = 0; i < 6; i++) {
            assert_int_equal(v.frames[i].width, turned ? 48 : 64);
            assert_int_equal(v.frames[i].height, turned ? 64 : 48);
            if (number_of(&v.frames[i], turned) != picks[p][i]) fail_msg("%s: frame %d instead of %lld", name, number_of(&v.frames[i], turned), (long long)picks[p][i]);
        }
        assert_true(v.seconds[3] == (double)picks[p][3] / w.fps);
        video_free(&v);
    }
    buf_free(&b);
}

static void frames_are_exact(void **state)
{
    (void)state;
    check_clip("long.mp4", false);
    check_clip("open.mkv", false);
    check_clip("vfr.mkv", false);
    check_clip("old.avi", false);
    check_clip("vp8.webm", false);
    check_clip("raw.h264", false);
    check_clip("turned.mp4", true);
}

static void all_frames(void **state)
{
    (void)state;
    buf b = read_media("long.mp4");
    video v;
    assert_true(video_decode(b.data, b.size, NULL, NULL, NULL, &v, NULL));
    assert_int_equal(v.count, 40);
    for (int i = 0; i < 40; i++) assert_int_equal(number_of(&v.frames[i], false), i);
    video_free(&v);
    buf_free(&b);
}

static void folder(void **state)
{
    (void)state;
    static const int64_t picks[] = {1, 4, 4};
    wish w = {.indices = picks, .count = 3};
    video v;
    vlm_error e = {0};
    assert_true(video_from_folder(MEDIA_DATA "folder", 2, NULL, pick, &w, &v, &e));
    assert_int_equal(w.total, 5);
    assert_true(v.info.duration == 2.5 && v.seconds[1] == 2);
    for (int i = 0; i < 3; i++) assert_int_equal(number_of(&v.frames[i], false), picks[i]);
    video_free(&v);
    assert_false(video_from_folder("tests/unit", 2, NULL, pick, &w, &v, &e));        /* no pictures in it */
    assert_false(video_from_folder("tests/none", 2, NULL, pick, &w, &v, &e));
    for (uint64_t n = 1;; n++) {
        mem_fail_at(n);
        bool ok = video_from_folder(MEDIA_DATA "folder", 2, NULL, pick, &w, &v, &e), failed = mem_failed();
        mem_fail_at(0);
        if (!failed) assert_true(ok);
        video_free(&v);
        if (!failed) break;
    }
}

static void refuses(void **state)
{
    (void)state;
    static const int64_t beyond[] = {40}, falling[] = {5, 4}, fine[] = {5};
    buf b = read_media("long.mp4");
    video v;
    vlm_error e = {0};
    wish w = {.indices = beyond, .count = 1};
    assert_false(video_decode(b.data, b.size, NULL, pick, &w, &v, &e));
    assert_int_equal(e.code, VLM_INVALID);
    w = (wish){.indices = falling, .count = 2};
    assert_false(video_decode(b.data, b.size, NULL, pick, &w, &v, &e));
    w = (wish){.indices = fine, .count = 1};
    media_policy p = media_policy_default();
    p.max_pixels = 64 * 48 - 1;
    assert_false(video_decode(b.data, b.size, &p, pick, &w, &v, &e));
    p = media_policy_default();
    p.max_frames = 39;
    assert_false(video_decode(b.data, b.size, &p, NULL, NULL, &v, &e));
    assert_int_equal(e.code, VLM_LIMIT);
    p.max_frames = 40;
    p.max_video_pixels = 40 * 64 * 48 - 1;
    assert_false(video_decode(b.data, b.size, &p, NULL, NULL, &v, &e));
    assert_int_equal(e.code, VLM_LIMIT);
    assert_false(video_decode("", 0, NULL, pick, &w, &v, &e));
    assert_false(video_decode("no video", 8, NULL, pick, &w, &v, &e));
    buf sound = read_media("tone.mp3");
    assert_false(video_decode(sound.data, sound.size, NULL, pick, &w, &v, &e));
    buf_free(&sound);
    for (uint64_t n = 1;; n++) {
        mem_fail_at(n);
        bool ok = video_decode(b.data, b.size, NULL, pick, &w, &v, &e), failed = mem_failed();
        mem_fail_at(0);
        if (!failed) assert_true(ok);
        video_free(&v);
        if (!failed) break;
    }
    for (unsigned seed = 1; seed < 40; seed++) {                                     /* no crash, whatever comes out */
        char *copy = malloc(b.size);
        memcpy(copy, b.data, b.size);
        for (unsigned k = 0, r = seed * 7919; k < 6; k++, r = r * 1103515245 + 12345) copy[(r >> 8) % b.size] = (char)(r >> 3);
        if (video_decode(copy, b.size - seed * 20, NULL, pick, &w, &v, &e)) video_free(&v);
        free(copy);
    }
    buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_are_exact), cmocka_unit_test(all_frames), cmocka_unit_test(folder), cmocka_unit_test(refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
