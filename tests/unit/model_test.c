/* model_test.c - models/model.h: loading with a throw-away family, what is refused and with which words, processor files, end tokens. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "models/model.h"

static char dir[64];

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/vlm-model-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command);
}

static void put(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    if (text) assert_true(file_write(path, text, strlen(text), NULL));
    else unlink(path);
}

/* ---- a family of one matrix and one vector ---- */

typedef struct tiny { weight embed; const float *norm; } tiny;

static bool tiny_configure(vlm_model *m, config *c)
{
    m->hidden = (int)config_need_int(c, "hidden_size", 1, 1 << 16);
    m->vocab = (int)config_need_int(c, "vocab_size", 1, 1 << 20);
    m->layers = 1;
    m->context = 128;
    m->n_groups = 1;
    m->group[0] = (kv_shape){.kv_heads = 1, .head_dim = m->hidden, .slots = 1};
    m->family = arena_alloc(&m->memory, sizeof(tiny));
    return m->family != NULL;
}

static bool tiny_bind(vlm_model *m, binder *b)
{
    tiny *t = m->family;
    bind_prefix(b, "model.", "", NULL);
    bind_linear(b, &t->embed, m->vocab, m->hidden, "embed");
    bind_vector(b, &t->norm, m->hidden, "norm.weight");
    return !b->failed;
}

static const char *const types[] = {"tiny", NULL};
static const vlm_arch arch = {.name = "tiny", .title = "Tiny", .model_types = types, .takes = TAKES_IMAGE, .configure = tiny_configure, .bind = tiny_bind};

static void put_weights(const char *norm_shape)
{
    char header[512];
    uint8_t file[1024] = {0};
    int n = snprintf(header, sizeof header,
                     "{\"model.embed.weight\":{\"dtype\":\"BF16\",\"shape\":[10,4],\"data_offsets\":[0,80]},"
                     "\"model.norm.weight\":{\"dtype\":\"F32\",\"shape\":[%s],\"data_offsets\":[80,96]}}", norm_shape);
    while (n % 8) header[n++] = ' ';
    file[0] = (uint8_t)n, file[1] = (uint8_t)(n >> 8);
    memcpy(file + 8, header, (size_t)n);
    char path[256];
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    assert_true(file_write(path, file, 8 + (size_t)n + 96, NULL));
}

static const char tokenizer_json[] =
    "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"c\":2,\"d\":3,\"e\":4},\"merges\":[]},"
    "\"added_tokens\":[{\"id\":5,\"content\":\"<eos>\",\"special\":true}],\"normalizer\":null,\"pre_tokenizer\":null,\"post_processor\":null,\"decoder\":null}";

static void put_good(void)
{
    put("config.json", "{\"model_type\":\"tiny\",\"hidden_size\":4,\"vocab_size\":10,\"eos_token_id\":1,\"text_config\":{\"eos_token_id\":[7,99]}}");
    put("generation_config.json", "{\"eos_token_id\":[2,3],\"bos_token_id\":0,\"temperature\":0.7,\"top_p\":0.9,\"top_k\":5,\"do_sample\":true}");
    put("tokenizer.json", tokenizer_json);
    put("tokenizer_config.json", "{\"eos_token\":\"<eos>\"}");
    put("processor_config.json", NULL);
    put("preprocessor_config.json", NULL);
    put_weights("4");
}

static vlm_model *load(vlm_error *error)
{
    return model_load(dir, &arch, NULL, error);
}

static void refused(vlm_status code, const char *part)
{
    vlm_error error = {0};
    vlm_model *m = load(&error);
    if (m || error.code != code || !strstr(error.message, part)) print_error("%d %s\n", error.code, error.message);
    assert_null(m);
    assert_int_equal(error.code, code);
    assert_non_null(strstr(error.message, part));
    put_good();
}

static void loads(void **state)
{
    (void)state;
    vlm_error error = {0};
    put_good();
    vlm_model *m = load(&error);
    if (!m) print_error("%s\n", error.message);
    assert_non_null(m);
    const int32_t eos[] = {2, 3, 7, 5};
    assert_int_equal(m->n_eos, 4);
    assert_memory_equal(m->eos, eos, sizeof eos);
    assert_true(fabsf(m->temperature - 0.7f) < 1e-6f && m->top_k == 5);
    assert_int_equal(m->group[0].type, DT_F32);
    assert_int_equal(m->dev.precision, PRECISION_EXACT);
    char *info = vlm_model_info(m, &error);
    assert_non_null(info);
    assert_non_null(strstr(info, "\"parameters\": 44"));
    mem_free(info);
    digest first = m->identity;
    vlm_model_free(m);
    vlm_load_options o = vlm_load_options_default();
    o.precision = "fast";
    o.kv_dtype = "bf16";
    m = model_load(dir, &arch, &o, &error);
    assert_non_null(m);
    assert_int_equal(m->group[0].type, DT_BF16);
    assert_false(digest_equal(&first, &m->identity));
    vlm_model_free(m);
    put("generation_config.json", "{\"temperature\":0.7,\"do_sample\":false}");
    m = load(&error);
    assert_true(m->temperature == 0);
    assert_int_equal(m->eos[0], 1);
    vlm_model_free(m);
    vlm_model_free(NULL);
}

static void complains(void **state)
{
    (void)state;
    put_good();
    put("config.json", "{\"model_type\":\"tiny\",\"vocab_size\":10}");
    refused(VLM_FORMAT, "config.json: hidden_size is missing");
    put("config.json", "{\"model_type\":");
    refused(VLM_FORMAT, "config.json is not JSON");
    put("config.json", NULL);
    refused(VLM_NOT_FOUND, "has no config.json");
    put("generation_config.json", "[1]");
    refused(VLM_FORMAT, "generation_config.json");
    put("preprocessor_config.json", "\"x\"");
    refused(VLM_FORMAT, "preprocessor_config.json");
    put("config.json", "{\"model_type\":\"tiny\",\"hidden_size\":8,\"vocab_size\":10}");
    refused(VLM_FORMAT, "model.embed.weight has shape [10, 4], [10, 8] was expected (config.json: vocab_size x hidden_size)");
    put_weights("5");
    refused(VLM_FORMAT, "need 20");
    put("model.safetensors", NULL);
    refused(VLM_NOT_FOUND, "has no weights");
    put("tokenizer.json", "{");
    refused(VLM_FORMAT, "tokenizer.json");
    put("tokenizer.json", NULL);
    refused(VLM_NOT_FOUND, "tokenizer.json");
    vlm_error error = {0};
    vlm_load_options o = vlm_load_options_default();
    o.precision = "half";
    assert_null(model_load(dir, &arch, &o, &error));
    assert_int_equal(error.code, VLM_INVALID);
    assert_null(vlm_load(NULL, NULL, &error));
    assert_null(vlm_load("/nowhere", NULL, &error));
    assert_int_equal(error.code, VLM_NOT_FOUND);
}

static void names_near_families(void **state)
{
    (void)state;
    vlm_error error = {0};
    assert_null(arch_find("gemma44", NULL, &error));
    assert_int_equal(error.code, VLM_UNSUPPORTED);
    assert_non_null(strstr(error.message, "gemma4"));
    assert_null(arch_find("zzzzzzzzzzzz", NULL, &error));
    assert_null(strstr(error.message, "near"));
    assert_string_equal(arch_find("LLaMA", NULL, &error)->name, "llama");
    put_good();
    put("config.json", "{\"model_type\":\"qwen2_5vl\",\"hidden_size\":4}");
    assert_null(vlm_load(dir, NULL, &error));
    assert_non_null(strstr(error.message, "near names are qwen2_5_vl"));
    put("config.json", "{\"hidden_size\":4}");
    assert_null(vlm_load(dir, NULL, &error));
    assert_non_null(strstr(error.message, "model_type is missing"));
    char *families = vlm_families(&error);
    assert_non_null(strstr(families, "\"gemma4\""));
    mem_free(families);
}

static void merges_processor_files(void **state)
{
    (void)state;
    vlm_error error = {0};
    put_good();
    put("preprocessor_config.json", "{\"size\":1,\"sampling_rate\":16}");
    put("video_preprocessor_config.json", "{\"size\":2}");
    put("processor_config.json", "{\"image_processor\":{\"size\":3},\"length\":7}");
    vlm_model *m = load(&error);
    assert_non_null(m);
    config *p = m->processor;
    assert_int_equal(config_int(p, "image_processor.size", 0, 0, 9), 3);
    assert_int_equal(config_int(p, "video_processor.size", 0, 0, 9), 2);
    assert_int_equal(config_int(p, "feature_extractor.sampling_rate", 0, 0, 99), 16);
    assert_int_equal(config_int(p, "size", 0, 0, 9), 1);
    assert_int_equal(config_int(p, "length", 0, 0, 9), 7);
    vlm_model_free(m);
    put("video_preprocessor_config.json", NULL);
}

static void makes_up_weights_for_a_bare_config(void **state)
{
    (void)state;
    char path[128];
    vlm_error error = {0};
    vlm_load_options o = vlm_load_options_default();
    put_good();
    put("tokenizer.json", NULL);
    put("model.safetensors", NULL);
    snprintf(path, sizeof path, "%s/config.json", dir);
    o.dummy_weights = 1;
    o.dummy_format = "f32";
    for (int bare = 0; bare < 2; bare++) {
        vlm_model *m = model_load(bare ? path : dir, &arch, &o, &error);
        if (!m) print_error("%s\n", error.message);
        assert_non_null(m);
        assert_null(m->tok);
        assert_true(m->binder.parameters > 0);
        vlm_model_free(m);
    }
    o.dummy_format = "q9";
    assert_null(model_load(path, &arch, &o, &error));
    assert_int_equal(error.code, VLM_INVALID);
}

static void survives_failing_allocations(void **state)
{
    (void)state;
    put_good();
    put("processor_config.json", "{\"image_processor\":{}}");
    for (uint64_t n = 1;; n++) {
        vlm_error error = {0};
        mem_fail_at(n);
        vlm_model *m = load(&error);
        bool failed = mem_failed();
        mem_fail_at(0);
        if (m && failed) print_error("allocation %llu failed unseen\n", (unsigned long long)n);
        assert_true(failed != (m != NULL));
        vlm_model_free(m);
        if (!failed) break;
        assert_int_not_equal(error.code, VLM_OK);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loads), cmocka_unit_test(complains), cmocka_unit_test(names_near_families), cmocka_unit_test(merges_processor_files),
        cmocka_unit_test(makes_up_weights_for_a_bare_config), cmocka_unit_test(survives_failing_allocations),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
