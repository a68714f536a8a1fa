/* hostile_config_test.c - every member of a good config.json replaced by something wrong, one at a time: loading says what is wrong, or works,
 * but does not fall over. (Run under the sanitizers this is where sizes from outside show that they were checked.) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "models/model.h"

static const char *const wrong[] = {"0", "-1", "1000000000", "\"x\"", "[]", NULL};

typedef struct trial { json_t *root; char dir[64]; const char *file; int tried; } trial;

static void try_load(trial *t, const char *path, const char *value)
{
    char target[256];
    vlm_error error = {0};
    vlm_load_options o = vlm_load_options_default();
    o.threads = 1;
    char *text = json_dumps(t->root, 0);
    snprintf(target, sizeof target, "%s/%s", t->dir, t->file);
    assert_true(file_write(target, text, strlen(text), NULL));
    free(text);
    vlm_model *m = vlm_load(t->dir, &o, &error);
    if (!m && (error.code == VLM_INTERNAL || !error.message[0])) fail_msg("%s = %s: %s", path, value, error.message);
    vlm_model_free(m);
    t->tried++;
}

static void walk(trial *t, json_t *object, const char *path)
{
    const char *key;
    json_t *value, *copy = json_copy(object);                         /* the loop must not see what it changes */
    json_object_foreach(copy, key, value) {
        char where[256];
        snprintf(where, sizeof where, "%.120s.%.120s", path, key);
        if (json_is_object(value)) walk(t, value, where);
        for (int i = 0; wrong[i]; i++) {
            json_object_set_new(object, key, json_loads(wrong[i], JSON_DECODE_ANY, NULL));
            try_load(t, where, wrong[i]);
        }
        json_object_del(object, key);
        try_load(t, where, "gone");
        json_object_set(object, key, value);
    }
    json_decref(copy);
}

static void try_all(const char *folder, const char *file)
{
    char command[600];
    trial t = {.dir = "/tmp/vlm-hostile-XXXXXX", .file = file};
    assert_non_null(mkdtemp(t.dir));
    snprintf(command, sizeof command, "cp %s/*.json* %s/*.safetensors %s/; rm -f %s/golden.safetensors", folder, folder, t.dir, t.dir);
    assert_int_equal(system(command), 0);
    snprintf(command, sizeof command, "%s/%s", t.dir, file);
    t.root = json_load_file_limited(command, JSON_FILE_LIMIT, NULL);
    assert_non_null(t.root);
    json_object_del(t.root, "generation_config");
    walk(&t, t.root, "");
    assert_true(t.tried > 50);
    json_decref(t.root);
    snprintf(command, sizeof command, "rm -rf %s", t.dir);
    assert_int_equal(system(command), 0);
}

static void qwen2_5_vl(void **state) { (void)state; try_all("tests/data/checkpoints/qwen2_5_vl", "config.json"); }
static void qwen2_5_vl_processor(void **state) { (void)state; try_all("tests/data/checkpoints/qwen2_5_vl", "preprocessor_config.json"); }
static void qwen3_5(void **state) { (void)state; try_all("tests/data/checkpoints/qwen3_5_moe", "config.json"); }
static void llava_onevision(void **state) { (void)state; try_all("tests/data/checkpoints/llava_onevision", "preprocessor_config.json"); }
static void qwen2_audio(void **state) { (void)state; try_all("tests/data/checkpoints/qwen2_audio", "config.json"); }
static void qwen2_5_omni(void **state) { (void)state; try_all("tests/data/checkpoints/qwen2_5_omni", "config.json"); }
static void qwen2_5_omni_processor(void **state) { (void)state; try_all("tests/data/checkpoints/qwen2_5_omni", "preprocessor_config.json"); }
static void got_ocr2(void **state) { (void)state; try_all("tests/data/checkpoints/got_ocr2", "config.json"); }
static void deepseek_v3(void **state) { (void)state; try_all("tests/data/checkpoints/deepseek_v3", "config.json"); }
static void florence2(void **state) { (void)state; try_all("tests/data/checkpoints/florence2", "config.json"); }
static void florence2_processor(void **state) { (void)state; try_all("tests/data/checkpoints/florence2", "preprocessor_config.json"); }
static void mllama(void **state) { (void)state; try_all("tests/data/checkpoints/mllama", "config.json"); }
static void gemma4(void **state) { (void)state; try_all("tests/data/checkpoints/gemma4_e2b", "config.json"); }
static void gemma4_quantized(void **state) { (void)state; try_all("tests/data/checkpoints/mlx_gemma4_26b_a4b_4bit", "config.json"); }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(qwen2_5_vl), cmocka_unit_test(qwen2_5_vl_processor), cmocka_unit_test(qwen3_5), cmocka_unit_test(llava_onevision), cmocka_unit_test(qwen2_audio), cmocka_unit_test(qwen2_5_omni),
        cmocka_unit_test(qwen2_5_omni_processor), cmocka_unit_test(gemma4), cmocka_unit_test(gemma4_quantized), cmocka_unit_test(got_ocr2),
        cmocka_unit_test(deepseek_v3), cmocka_unit_test(florence2), cmocka_unit_test(florence2_processor), cmocka_unit_test(mllama),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
