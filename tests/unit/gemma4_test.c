/* gemma4_test.c - Gemma 4's processors and towers against what transformers makes of the same (tools/goldens/gemma4.py). The decoder and
 * whole checkpoints are checked by `vlm check` on reference folders. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "models/gemma4.h"
#include "models/processor.h"

#define DATA "tests/data/models/gemma4"

/* ---- a model without tokenizer and template ------------------------------------------------------------------------ */

static vlm_model model;
static checkpoint *goldens;
static json_t *numbers;
extern const vlm_arch vlm_arch_gemma4;

static int setup(void **state)
{
    vlm_error error = {0};
    (void)state;
    model.arch = &vlm_arch_gemma4;
    model.cfg = config_load(DATA, &error);
    model.processor = processor_load(NULL, &error);
    model.files = checkpoint_open(DATA, &error);
    goldens = checkpoint_open_file(DATA "/golden.safetensors", &error);
    numbers = json_load_file_limited(DATA "/numbers.json", JSON_FILE_LIMIT, &error);
    if (!model.cfg || !model.processor || !model.files || !goldens || !numbers) return -1;
    /* the extractor's default is 128 mel bins; this tower's convolutions are made for 8 */
    json_object_set_new(model.processor->root, "feature_extractor", json_pack("{s:i}", "feature_size", 8));
    if (!device_open_cpu(&model.dev, 2, PRECISION_EXACT, NULL, &error)) return -1;
    if (!model.arch->configure(&model, model.cfg) || !bind_start(&model.binder, model.files, model.cfg, &model.dev, &model.memory, NULL, &error)) return -1;
    return model.arch->bind(&model, &model.binder) && !model.binder.failed ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    bind_release(&model.binder);
    device_close(&model.dev);
    checkpoint_close(goldens);
    checkpoint_close(model.files);
    config_free(model.processor);
    config_free(model.cfg);
    arena_free(&model.memory);
    json_decref(numbers);
    return 0;
}

static tensor golden(const char *name)
{
    const stored_tensor *t = checkpoint_find(goldens, name);
    assert_non_null(t);
    int64_t cols = t->dim[t->dims - 1];
    return (tensor){(void *)(uintptr_t)t->data, DT_F32, (int64_t)(t->bytes / 4) / cols, cols, cols};
}

/* Tokens of both sides agree to 1e-5 of the largest value: what is left is the order of sums. */
static void assert_close(tensor got, tensor want)
{
    double most = 0, worst = 0;
    assert_int_equal(got.rows, want.rows);
    assert_int_equal(got.cols, want.cols);
    for (int64_t i = 0; i < want.rows * want.cols; i++) {
        const float a = ((float *)got.data)[i], b = ((float *)want.data)[i];
        assert_true(isfinite(a));
        most = fmax(most, fabs(b));
        worst = fmax(worst, fabs(a - b));
    }
    if (worst > 1e-5 * most) fail_msg("largest error %g of %g", worst, most);
}

static void encode_and_compare(media_input *in, tensor want)
{
    arena keep = {0}, scratch = {0};
    run r = {.dev = &model.dev, .scratch = &scratch};
    encode_job job = {.in = in, .memory = &keep};
    assert_true(model.arch->encode_start(&r, &model, &job));
    assert_true(job.stages > 1 && job.cost > 0);
    while (job.stage < job.stages) {
        arena_reset(&scratch);                     /* nothing but job.memory outlives a stage */
        if (!model.arch->encode(&r, &model, &job)) fail_msg("%s", r.error.message);
    }
    assert_close(job.rows, want);
    arena_free(&keep);
    arena_free(&scratch);
}

/* ---- towers ------------------------------------------------------------------------------------------------------- */

static void vision_rows(void **state)
{
    (void)state;
    tensor pixels = golden("pixels"), want = golden("image_rows");             /* two images of 10 x 6 patches */
    const char *names[] = {"pixel_values", "pixel_values_videos"};
    for (int moving = 0; moving < 2; moving++) {
        int images = moving ? 2 : 1, slots = 96;
        media_input *in = MEM_NEW(media_input);
        assert_non_null(in);
        in->kind = moving ? MEDIA_VIDEO : MEDIA_IMAGE;
        in->grid[0] = images, in->grid[1] = 6, in->grid[2] = 10;
        in->tokens = images * 15;
        processed *p = media_input_add(in, names[moving], DT_F32, 3, (int64_t[]){images, slots, 12});
        assert_non_null(p);
        for (int i = 0; i < images; i++) memcpy((float *)p->data + i * slots * 12, tensor_row(pixels, i * 60), 60 * 12 * sizeof(float));
        encode_and_compare(in, tensor_rows(want, 0, in->tokens));
        media_input_free(in);
    }
}

static void audio_rows(void **state)
{
    (void)state;
    static const int counts[] = {37, 4};
    for (int i = 0; i < 2; i++) {
        char name[32];
        snprintf(name, sizeof name, "features_%d", counts[i]);
        tensor features = golden(name);
        snprintf(name, sizeof name, "audio_rows_%d", counts[i]);
        tensor want = golden(name);
        media_input *in = MEM_NEW(media_input);
        assert_non_null(in);
        in->kind = MEDIA_AUDIO;
        in->frames = counts[i];
        in->tokens = (int)audio_encoder_rows(counts[i]);
        processed *p = media_input_add(in, "input_features", DT_F32, 3, (int64_t[]){1, counts[i] + 3, 8});
        assert_non_null(p);
        memcpy(p->data, features.data, (size_t)counts[i] * 8 * sizeof(float));
        encode_and_compare(in, want);
        media_input_free(in);
    }
}

/* ---- processors --------------------------------------------------------------------------------------------------- */

static int number(const json_t *row, size_t i) { return (int)json_integer_value(json_array_get(row, i)); }

static void sizes(void **state)
{
    const json_t *row;
    size_t i;
    (void)state;
    json_array_foreach(json_object_get(numbers, "sizes"), i, row) {
        int pool = number(row, 4), width = -1, height = -1;
        bool ok = gemma4_size(number(row, 0), number(row, 1), number(row, 2), number(row, 3) * pool * pool, pool, &width, &height, NULL);
        assert_int_equal(ok, number(row, 5) > 0);
        if (!ok) continue;
        assert_int_equal(width, number(row, 5));
        assert_int_equal(height, number(row, 6));
    }
    int w, h;
    assert_false(gemma4_size(0, 5, 16, 630, 3, &w, &h, NULL));
}

static void sampled_frames(void **state)
{
    const json_t *row;
    size_t i;
    (void)state;
    json_array_foreach(json_object_get(numbers, "samples"), i, row) {
        video_info info = {.total_frames = json_integer_value(json_object_get(row, "total")), .fps = json_number_value(json_object_get(row, "fps"))};
        json_t *options = json_object(), *want = json_object_get(row, "indices");
        json_object_set(options, "num_frames", json_object_get(row, "num_frames"));
        json_object_set(options, "fps", json_object_get(row, "rate"));
        int64_t *indices = NULL;
        int count = 0;
        assert_true(gemma4_pick_frames(&model, NULL, options, &info, &indices, &count, NULL));
        assert_int_equal(count, json_array_size(want));
        for (int k = 0; k < count; k++) assert_int_equal(indices[k], number(want, (size_t)k));
        mem_free(indices);
        json_decref(options);
    }
    /* more frames than there are: all, where the reference refuses */
    int64_t *indices = NULL;
    int count = 0;
    video_info info = {.total_frames = 3, .fps = 10};
    assert_true(gemma4_pick_frames(&model, NULL, NULL, &info, &indices, &count, NULL));
    assert_int_equal(count, 3);
    mem_free(indices);

    /* fps of a part: a wish, but of a folder of frames their own rate */
    chat_media part = {.kind = MEDIA_VIDEO, .fps = 4};
    info = (video_info){.total_frames = 80, .fps = 4};
    assert_true(gemma4_pick_frames(&model, &part, NULL, &info, &indices, &count, NULL));
    assert_int_equal(count, 32);
    mem_free(indices);
    json_t *options = json_pack("{s:i}", "max_frames", 5);
    assert_true(gemma4_pick_frames(&model, &part, options, &info, &indices, &count, NULL));
    assert_int_equal(count, 5);
    assert_int_equal(indices[4], 64);
    mem_free(indices);
    json_decref(options);
    info.fps = 20;
    assert_true(gemma4_pick_frames(&model, &part, NULL, &info, &indices, &count, NULL));
    assert_int_equal(count, 16);
    mem_free(indices);
}

static void audio_lengths(void **state)
{
    const json_t *row;
    size_t i;
    (void)state;
    float *silence = MEM_ARRAY(500000, float);
    assert_non_null(silence);
    json_array_foreach(json_object_get(numbers, "audio"), i, row) {
        media_item item = {.kind = MEDIA_AUDIO, .audio = {.rate = 16000, .count = number(row, 0), .samples = silence}};
        media_input *in = MEM_NEW(media_input);
        assert_non_null(in);
        vlm_error error = {0};
        if (!gemma4_process(&model, &item, NULL, in, &error)) fail_msg("%s", error.message);
        const processed *features = media_input_find(in, "input_features");
        assert_non_null(features);
        assert_int_equal(features->dim[1], number(row, 1));
        assert_int_equal(in->frames, number(row, 2));
        assert_int_equal(in->tokens, number(row, 3));
        media_input_free(in);
    }
    media_item empty = {.kind = MEDIA_AUDIO, .audio = {.rate = 16000, .count = 0, .samples = silence}};
    media_input *in = MEM_NEW(media_input);
    assert_non_null(in);
    assert_false(gemma4_process(&model, &empty, NULL, in, NULL));
    media_input_free(in);
    mem_free(silence);
}

/* Pixels row by row in a patch, channels together, patches row by row; the rest is padding at (-1, -1). */
static void patches(void **state)
{
    (void)state;
    enum { WIDTH = 60, HEIGHT = 20 };
    static uint8_t rgb[WIDTH * HEIGHT * 3];
    for (size_t i = 0; i < sizeof rgb; i++) rgb[i] = (uint8_t)(i * 7);
    media_item item = {.kind = MEDIA_IMAGE, .image = {WIDTH, HEIGHT, rgb}};
    media_input *in = MEM_NEW(media_input);
    json_t *options = json_pack("{s:i}", "max_soft_tokens", 70);
    vlm_error error = {0};
    assert_non_null(in);
    if (!gemma4_process(&model, &item, options, in, &error)) fail_msg("%s", error.message);
    const processed *pixels = media_input_find(in, "pixel_values"), *place = media_input_find(in, "image_position_ids");
    assert_true(pixels && place);
    assert_int_equal(pixels->dim[1], 280);
    assert_int_equal(pixels->dim[2], 12);
    assert_int_equal(in->grid[2] % 2, 0);
    assert_int_equal(in->tokens, in->grid[1] * in->grid[2] / 4);
    const int64_t *xy = place->data;
    int64_t n = (int64_t)in->grid[1] * in->grid[2];
    assert_true(n < 280);
    assert_int_equal(xy[2 * (n - 1)], in->grid[2] - 1);
    assert_int_equal(xy[2 * (n - 1) + 1], in->grid[1] - 1);
    assert_int_equal(xy[2 * n], -1);
    assert_true(((float *)pixels->data)[n * 12] == 0.0f);

    media_input *other = MEM_NEW(media_input);
    assert_non_null(other);
    json_object_set_new(options, "max_soft_tokens", json_integer(100));
    assert_false(gemma4_process(&model, &item, options, other, &error));
    assert_non_null(strstr(error.message, "max_soft_tokens"));
    json_object_set_new(options, "max_soft_tokens", json_integer(140));
    assert_true(gemma4_process(&model, &item, options, other, &error));
    assert_false(digest_equal(&in->key, &other->key));       /* settings are part of the cache key */
    media_input_free(other);
    media_input_free(in);
    json_decref(options);
}

/* ---- out of memory ------------------------------------------------------------------------------------------------ */

static bool load_once(void)
{
    vlm_model m = {.arch = &vlm_arch_gemma4, .cfg = model.cfg, .processor = model.processor, .files = model.files, .dev = model.dev};
    vlm_error error;
    bool ok = m.arch->configure(&m, m.cfg) && bind_start(&m.binder, m.files, m.cfg, &m.dev, &m.memory, NULL, &error) && m.arch->bind(&m, &m.binder) &&
              !m.binder.failed;
    m.cfg->failed = m.processor->failed = false;
    bind_release(&m.binder);
    arena_free(&m.memory);
    return ok;
}

static bool process_and_encode_once(media_kind kind)
{
    static uint8_t rgb[40 * 24 * 3];
    static float samples[4000];
    media_item item = {.kind = kind, .image = {40, 24, rgb}, .audio = {16000, 4000, samples}};
    json_t *options = json_pack("{s:i}", "max_soft_tokens", 70);
    media_input *in = MEM_NEW(media_input);
    arena keep = {0}, scratch = {0};
    run r = {.dev = &model.dev, .scratch = &scratch};
    encode_job job = {.in = in, .memory = &keep};
    bool ok = in != NULL && gemma4_process(&model, &item, options, in, NULL) && model.arch->encode_start(&r, &model, &job);
    while (ok && job.stage < job.stages) ok = model.arch->encode(&r, &model, &job);
    json_decref(options);
    media_input_free(in);
    arena_free(&keep);
    arena_free(&scratch);
    return ok;
}

/* The n-th allocation fails, for every n until none is left to fail: an error each time, never a crash. */
static void each_allocation_fails(void **state)
{
    (void)state;
    for (int what = 0; what < 3; what++) {
        bool failed = true;
        for (uint64_t n = 1; failed && n < 10000; n++) {
            mem_fail_at(n);
            bool ok = what == 0 ? load_once() : process_and_encode_once(what == 1 ? MEDIA_IMAGE : MEDIA_AUDIO);
            failed = mem_failed();
            if (!failed && !ok) fail_msg("part %d fails without a failed allocation (%d)", what, (int)n);
        }
        mem_fail_at(0);
        assert_false(failed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vision_rows), cmocka_unit_test(audio_rows), cmocka_unit_test(sizes), cmocka_unit_test(sampled_frames),
        cmocka_unit_test(audio_lengths), cmocka_unit_test(patches), cmocka_unit_test(each_allocation_fails),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
