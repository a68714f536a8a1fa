/* processors_test.c - options of pictures and media of all kinds in any order, against transformers' own processors: ids of the prompt and tensors.
 *
 * tests/data/processors/NAME/golden.json (tools/goldens/processors.py) belongs to the checkpoint tests/data/checkpoints/NAME, or to the processor's files
 * beside it; weights play no part. VLM_PROCESSORS names a further folder of such. */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "engine/prompt.h"

static double element(const processed *p, int64_t i)
{
    if (p->type == DT_F32) return ((const float *)p->data)[i];
    return p->type == DT_I64 ? (double)((const int64_t *)p->data)[i] : ((const uint8_t *)p->data)[i];
}

/* Two resamplers may differ by one level of 255 in one value of 200. */
static void check_tensor(const char *name, size_t k, const prompt *p, const char *key, const json_t *want)
{
    const processed *t = media_input_find(p->media[0], key);
    int64_t count = 1, expected = 1, stride = json_integer_value(json_object_get(want, "stride"));
    size_t i;
    json_t *value;
    if (!t || !t->data) fail_msg("%s, case %zu: no %s", name, k, key);
    for (int d = 0; d < t->dims; d++) count *= t->dim[d];
    json_array_foreach(json_object_get(want, "shape"), i, value) expected *= json_integer_value(value);
    if (count != expected) fail_msg("%s, case %zu: %s has %lld elements, expected %lld", name, k, key, (long long)count, (long long)expected);
    int off = 0;
    json_array_foreach(json_object_get(want, "values"), i, value) {
        double difference = fabs(element(t, (int64_t)i * stride) - json_number_value(value));
        off += difference > 2e-5;
        if (difference > 0.02) fail_msg("%s, case %zu: %s[%lld] is %g, expected %g", name, k, key, (long long)((int64_t)i * stride), element(t, (int64_t)i * stride), json_number_value(value));
    }
    if (off > 2) fail_msg("%s, case %zu: %s differs in %d of %zu samples", name, k, key, off, i);
}

static void check_case(const vlm_model *m, const char *name, size_t k, const json_t *c)
{
    prompt_source source = {.messages = json_object_get(c, "messages"), .chat = {.add_generation_prompt = true}, .media_options = json_object_get(c, "options"),
                            .policy = media_policy_default(), .media_dir = "tests/data/checkpoints/media"};
    source.policy.local_files = true;
    prompt p;
    vlm_error error = {0};
    if (!prompt_build(m, &source, &p, &error)) fail_msg("%s, case %zu: %s", name, k, error.message);
    if (p.notices.size) fail_msg("%s, case %zu: %s", name, k, p.notices.data);
    const json_t *want_ids = json_object_get(c, "ids");
    for (size_t i = 0; i < p.ids.count && i < json_array_size(want_ids); i++)
        if (p.ids.id[i] != json_integer_value(json_array_get(want_ids, i))) fail_msg("%s, case %zu: token %zu is %d, expected %d", name, k, i, p.ids.id[i], (int)json_integer_value(json_array_get(want_ids, i)));
    if (p.ids.count != json_array_size(want_ids)) fail_msg("%s, case %zu: %zu tokens, expected %zu", name, k, p.ids.count, json_array_size(want_ids));
    const char *key;
    json_t *want;
    json_object_foreach(json_object_get(c, "tensors"), key, want) check_tensor(name, k, &p, key, want);
    prompt_free(&p);
}

static void check_family(const char *folder, const char *name)
{
    char *own = path_join(folder, name), *settings = path_join(own, "config.json"), *file = path_join(own, "golden.json");
    char *beside = mem_printf("tests/data/checkpoints/%s", name);
    json_t *golden = json_load_file(file, 0, NULL), *c;
    vlm_load_options bare = vlm_load_options_default();
    vlm_error error = {0};
    size_t k;
    bare.threads = 1;
    bare.dummy_weights = 1;
    vlm_model *m = vlm_load(file_exists(settings) ? own : beside, &bare, &error);
    if (!m || !golden) fail_msg("%s: %s", name, error.message);
    json_array_foreach(json_object_get(golden, "cases"), k, c) check_case(m, name, k, c);
    assert_true(k > 0);
    vlm_model_free(m);
    json_decref(golden);
    mem_free(own);
    mem_free(settings);
    mem_free(file);
    mem_free(beside);
}

static void check_folder(const char *folder)
{
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));)
        if (*entry->d_name != '.') check_family(folder, entry->d_name);
    closedir(dir);
}

static void agrees_with_the_reference(void **state)
{
    (void)state;
    check_folder("tests/data/processors");
    const char *more = getenv("VLM_PROCESSORS");
    if (more) check_folder(more);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(agrees_with_the_reference)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
