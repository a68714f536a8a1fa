/* adapter_test.c - weights/adapter.h, bind_adapter.c, tensor/adapt.h: what adapters say when something is wrong with them, hostile ones, rows of several
 * in one product. That they compute what peft and mlx-vlm compute is checked on tests/data/checkpoints/llama_adapters and the like. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "models/model.h"
#include "tensor/adapt.h"

#define LLAMA "tests/data/checkpoints/llama"
#define ADAPTERS "tests/data/checkpoints/llama_adapters/adapters"

static char dir[64];

static int make_dir(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/vlm-adapter-XXXXXX");
    return mkdtemp(dir) == NULL;
}

static int remove_dir(void **state)
{
    (void)state;
    char command[200];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

/* ---- loading --------------------------------------------------------------------------------------------------------- */

static vlm_model *load_with(const char *model, const char *adapters, vlm_error *error)
{
    vlm_load_options o = vlm_load_options_default();
    o.threads = 1;
    o.adapters = adapters;
    return vlm_load(model, &o, error);
}

static void fails(const char *model, const char *adapters, vlm_status code, const char *message)
{
    vlm_error error = {0};
    vlm_model *m = load_with(model, adapters, &error);
    if (m || error.code != code || !strstr(error.message, message))
        fail_msg("%s: %d, %s (expected %d, %s)", adapters, (int)error.code, m ? "it loads" : error.message, (int)code, message);
}

static void write_file(const char *name, const void *data, size_t size)
{
    char path[200];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_true(file_write(path, data, size, NULL));
}

static void write_config(const char *text) { write_file("adapter_config.json", text, strlen(text)); }

/* A safetensors file of float32 tensors, all values 0.01. shapes: "name:2,3;..." */
static void write_tensors(const char *shapes)
{
    json_t *header = json_object();
    size_t floats = 0;
    for (const char *at = shapes; *at;) {
        size_t n = strcspn(at, ":"), count = 1;
        char name[200];
        snprintf(name, sizeof name, "%.*s", (int)n, at);
        json_t *shape = json_array();
        at += n;
        while (*at && *at != ';') {
            char *end;
            long long d = strtoll(at + 1, &end, 10);
            json_array_append_new(shape, json_integer(d));
            count *= (size_t)d;
            at = end;
        }
        if (*at) at++;
        json_object_set_new(header, name, json_pack("{s:s, s:o, s:[I, I]}", "dtype", "F32", "shape", shape, "data_offsets", (json_int_t)(floats * 4), (json_int_t)((floats + count) * 4)));
        floats += count;
    }
    char *text = json_dumps(header, JSON_COMPACT);
    buf file = {0};
    uint64_t size = strlen(text);
    assert_true(buf_add(&file, &size, 8) && buf_adds(&file, text));
    for (size_t i = 0; i < floats; i++) {
        float v = 0.01f;
        assert_true(buf_add(&file, &v, sizeof v));
    }
    write_file("adapter_model.safetensors", file.data, file.size);
    buf_free(&file);
    free(text);
    json_decref(header);
}

#define Q "base_model.model.model.layers.0.self_attn.q_proj."
static const char good[] = "{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":4,\"base_model_name_or_path\":\"some/model\"}";

static void complaints(void **state)
{
    (void)state;
    char mine[120];
    snprintf(mine, sizeof mine, "{\"a\":\"%s\"}", dir);
    fails(LLAMA, "[1]", VLM_INVALID, "JSON object");
    fails(LLAMA, "{\"a\":1}", VLM_INVALID, "a path was expected");
    fails(LLAMA, "{\"a,b\":\"x\"}", VLM_INVALID, "no name");
    fails(LLAMA, "{\"none\":\"x\"}", VLM_INVALID, "no name");
    fails(LLAMA, "{\"a\":\"/nowhere\"}", VLM_NOT_FOUND, "there is no /nowhere");
    fails(LLAMA, mine, VLM_NOT_FOUND, "neither adapter_model.safetensors");
    write_tensors(Q "lora_A.weight:2,64;" Q "lora_B.weight:64,2");
    fails(LLAMA, mine, VLM_NOT_FOUND, "adapter_config.json");
    write_config("{\"peft_type\":\"IA3\",\"r\":2}");
    fails(LLAMA, mine, VLM_UNSUPPORTED, "IA3");
    write_config("{\"peft_type\":\"LORA\",\"r\":2,\"trainable_token_indices\":[1]}");
    fails(LLAMA, mine, VLM_UNSUPPORTED, "trainable_token_indices");
    write_config("{\"fine_tune_type\":\"full\"}");
    fails(LLAMA, mine, VLM_UNSUPPORTED, "full");
    write_config("{\"peft_type\":\"LORA\",\"r\":3}");
    fails(LLAMA, mine, VLM_FORMAT, "has rank 2, adapter_config.json says 3");
    write_config("{\"peft_type\":\"LORA\",\"r\":2,\"alpha_pattern\":{\"(\":1}}");
    fails(LLAMA, mine, VLM_FORMAT, "no pattern");
    write_config(good);
    vlm_model_free(load_with(LLAMA, mine, NULL));
    write_tensors(Q "lora_A.weight:2,60;" Q "lora_B.weight:64,2");
    fails(LLAMA, mine, VLM_FORMAT, "[2, 60], [2, 64] was expected");
    write_tensors(Q "lora_A.weight:2,64");
    fails(LLAMA, mine, VLM_FORMAT, "no counterpart");
    write_tensors(Q "lora_A.weight:2,64;" Q "lora_B.weight:64,2;" Q "lora_magnitude_vector:63");
    fails(LLAMA, mine, VLM_FORMAT, "[63, 1], [64, 1] was expected");
    write_tensors(Q "lora_A.weight:2,64;" Q "lora_B.weight:64,2;base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight:2,64;base_model.model.model.norm.weight:64;odd:1");
    fails(LLAMA, mine, VLM_FORMAT, "3 of its 5 tensors have no place in this model");
    write_tensors(Q "lora_A.weight:2,64;" Q "lora_A.other.weight:2,64;" Q "lora_B.weight:64,2");
    fails(LLAMA, mine, VLM_FORMAT, "twice");
}

/* Every member of a good config replaced by something wrong; every byte of the file's header, too. */
static void hostile(void **state)
{
    (void)state;
    static const char *const wrong[] = {"0", "-1", "1e308", "1000000000", "\"x\"", "[]", "{\"x\":\"y\"}", "{\"(a*)*b\":1}", "null", NULL};
    char mine[120];
    snprintf(mine, sizeof mine, "{\"a\":\"%s\"}", dir);
    json_t *root = json_load_file_limited(ADAPTERS "/much/adapter_config.json", JSON_FILE_LIMIT, NULL), *copy = json_copy(root), *value;
    const char *key;
    buf weights = {0};
    assert_true(root && file_read(ADAPTERS "/much/adapter_model.safetensors", 1 << 20, &weights, NULL));
    write_file("adapter_model.safetensors", weights.data, weights.size);
    json_object_foreach(copy, key, value)
        for (int i = 0; wrong[i]; i++) {
            vlm_error error = {0};
            json_object_set_new(root, key, json_loads(wrong[i], JSON_DECODE_ANY, NULL));
            char *text = json_dumps(root, 0);
            write_config(text);
            free(text);
            vlm_model *m = load_with(LLAMA, mine, &error);
            if (!m && (error.code == VLM_INTERNAL || !error.message[0])) fail_msg("%s = %s: %s", key, wrong[i], error.message);
            vlm_model_free(m);
            json_object_set(root, key, value);
        }
    char *text = json_dumps(root, 0);
    write_config(text);
    free(text);
    uint32_t random = 7;
    for (int i = 0; i < 300; i++) {
        size_t at = 8 + (random = random * 1664525u + 1013904223u) % 3000;
        char old = weights.data[at];
        weights.data[at] = (char)(random >> 24);
        write_file("adapter_model.safetensors", weights.data, weights.size);
        vlm_model_free(load_with(LLAMA, mine, NULL));
        weights.data[at] = old;
    }
    buf_free(&weights);
    json_decref(root);
    json_decref(copy);
}

static void out_of_memory(void **state)
{
    (void)state;
    vlm_model *m = NULL;
    for (uint64_t n = 1; !m && n < 100000; n += 3) {
        vlm_error error = {0};
        mem_fail_at(n);
        m = load_with(LLAMA, "{\"dora\":\"" ADAPTERS "/dora\",\"embed\":\"" ADAPTERS "/embed\",\"whole\":\"" ADAPTERS "/whole\"}", &error);
        bool happened = mem_failed();
        mem_fail_at(0);
        if (!m && !error.message[0]) fail_msg("allocation %llu: no message", (unsigned long long)n);
        if (m && happened) { vlm_model_free(m); m = NULL; }          /* something did without */
    }
    assert_non_null(m);
    vlm_model_free(m);
}

static void masks_and_keys(void **state)
{
    (void)state;
    vlm_error error = {0};
    vlm_model *m = load_with("tests/data/checkpoints/gemma4_e2b", "{\"tower\":\"tests/data/checkpoints/gemma4_e2b_adapters/adapters/tower\","
                             "\"text\":\"tests/data/checkpoints/gemma4_e2b_adapters/adapters/text\"}", &error);
    assert_non_null(m);
    uint64_t mask;
    digest none, a, b;
    assert_true(adapters_mask(&m->adapters, "text,tower", &mask, NULL));
    assert_int_equal(mask, 3);
    assert_true(adapters_mask(&m->adapters, "", &mask, NULL) && mask == 0);
    assert_true(adapters_mask(&m->adapters, "none", &mask, NULL) && mask == 0);
    assert_false(adapters_mask(&m->adapters, "tow", &mask, &error));
    assert_string_equal(error.hint, "loaded: tower, text");
    assert_true(adapters_digest(&m->adapters, 0, true, &none) && adapters_digest(&m->adapters, 1, true, &a) && adapters_digest(&m->adapters, 2, true, &b));
    assert_true(!digest_equal(&none, &a) && digest_equal(&none, &b));           /* encoders are not the text adapter's business */
    assert_true(adapters_digest(&m->adapters, 1, false, &a) && adapters_digest(&m->adapters, 2, false, &b) && adapters_digest(&m->adapters, 0, false, &none));
    assert_false(digest_equal(&a, &b) || digest_equal(&a, &none) || digest_equal(&b, &none));
    vlm_model_free(m);
}

/* ---- products -------------------------------------------------------------------------------------------------------- */

enum { ROWS = 9, IN = 64, OUT = 96, RANK = 4 };

/* A matrix in 4 bits with three adapters: each row of a mixed batch has the bits that it has alone. */
static void rows_of_several(void **state)
{
    (void)state;
    device dev;
    assert_true(device_open_cpu(&dev, 2, PRECISION_FAST, NULL, NULL));
    static uint32_t codes[OUT * IN / 8];
    static float scales[OUT], biases[OUT], down[3][RANK * IN], up[3][OUT * RANK], columns[OUT], to[OUT], bias[OUT], x[ROWS * IN];
    uint32_t random = 1;
#define NEXT ((float)((random = random * 1664525u + 1013904223u) >> 8) / (1 << 24) - 0.5f)
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) codes[i] = random = random * 1664525u + 1013904223u;
    for (int i = 0; i < OUT; i++) { scales[i] = 0.1f; biases[i] = -0.7f; columns[i] = 1 + NEXT; to[i] = NEXT; bias[i] = NEXT; }
    for (int a = 0; a < 3; a++) {
        for (int i = 0; i < RANK * IN; i++) down[a][i] = NEXT;
        for (int i = 0; i < OUT * RANK; i++) up[a][i] = NEXT;
    }
    for (int i = 0; i < ROWS * IN; i++) x[i] = NEXT;
    low_rank l[3];
    for (int a = 0; a < 3; a++)
        l[a] = (low_rank){.next = a < 2 ? &l[a + 1] : NULL, .adapter = 2 * a, .scale = 0.5f, .down = {.format = WF_F32, .rows = RANK, .cols = IN, .data = down[a]},
                          .up = {.format = WF_F32, .rows = OUT, .cols = RANK, .data = up[a]}};
    l[1].columns = columns;
    l[2].bias = to;
    weight w = {.format = WF_AFFINE, .rows = OUT, .cols = IN, .bits = 4, .group = 64, .scale_type = DT_F32, .data = codes, .scales = scales, .biases = biases, .low_rank = l};
    const uint64_t masks[ROWS] = {0, 1, 4, 16, 5, 21, 2, 1, 0};
    arena scratch = {0};
    run r = {.dev = &dev, .scratch = &scratch};
    run_set_adapters(&r, masks, ROWS);
    assert_int_equal(r.adapters, 23);
    tensor in = {x, DT_F32, ROWS, IN, IN}, all = op_linear(&r, in, &w, bias), group[2];
    op_linear_group(&r, in, 2, group, (const weight *[]){&w, &w}, (const float *[]){bias, NULL});
    assert_true(run_ok(&r));
    for (int i = 0; i < ROWS; i++) {
        run alone = {.dev = &dev, .scratch = &scratch, .adapters = masks[i]};
        tensor y = op_linear(&alone, tensor_rows(in, i, 1), &w, bias);
        assert_true(run_ok(&alone));
        assert_memory_equal(y.data, tensor_row(all, i), OUT * sizeof(float));
        assert_memory_equal(y.data, tensor_row(group[0], i), OUT * sizeof(float));
        int distance = 0;
        for (int c = 0; c < OUT; c++) distance += memcmp(tensor_row(all, 0) + c, tensor_row(y, 0) + c, 4) != 0;
        if (i && masks[i] && masks[i] != 2) assert_true(distance > OUT / 2);
    }
    static const int32_t kept[3] = {5, 0, 2};                       /* after a gather */
    tensor some = op_gather(&r, in, kept, 3);
    run_gather_adapters(&r, kept, 3);
    tensor y = op_linear(&r, some, &w, bias);
    assert_true(run_ok(&r));
    for (int i = 0; i < 3; i++) assert_memory_equal(tensor_row(y, i), tensor_row(all, kept[i]), OUT * sizeof(float));
    op_linear(&r, in, &w, bias);                                     /* rows that are no tokens of the batch */
    assert_int_equal(r.error.code, VLM_UNSUPPORTED);
    arena_free(&scratch);
    device_close(&dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(complaints, make_dir, remove_dir), cmocka_unit_test_setup_teardown(hostile, make_dir, remove_dir),
        cmocka_unit_test(out_of_memory), cmocka_unit_test(masks_and_keys), cmocka_unit_test(rows_of_several),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
