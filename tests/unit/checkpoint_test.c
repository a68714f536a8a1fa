/* checkpoint_test.c - weights/checkpoint.h: good files, shards, and files that lie. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "weights/checkpoint.h"

static char dir[64];

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/vlm-checkpoint-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command);
}

static const char *put(const char *name, const void *data, size_t size)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_true(file_write(path, data, size, NULL));
    return path;
}

/* A file with that header text and `size` bytes 0, 1, 2 ... after it. */
static const char *put_tensors(const char *name, const char *header, size_t size)
{
    uint8_t bytes[8192];
    size_t n = strlen(header);
    assert_true(8 + n + size <= sizeof bytes);
    for (int i = 0; i < 8; i++) bytes[i] = (uint8_t)((uint64_t)n >> 8 * i);
    memcpy(bytes + 8, header, n);
    for (size_t i = 0; i < size; i++) bytes[8 + n + i] = (uint8_t)i;
    return put(name, bytes, 8 + n + size);
}

static void refused(const char *header, size_t size, vlm_status code, const char *part)
{
    vlm_error error = {0};
    const char *path = put_tensors("bad.safetensors", header, size);
    checkpoint *c = checkpoint_open_file(path, &error);
    if (c || error.code != code || !strstr(error.message, part)) print_error("%s\n -> %d %s\n", header, error.code, error.message);
    assert_null(c);
    assert_int_equal(error.code, code);
    assert_non_null(strstr(error.message, part));
    unlink(path);
}

static void reads_good_file(void **state)
{
    (void)state;
    vlm_error error = {0};
    const char *path = put_tensors("good.safetensors", "{\"__metadata__\":{\"format\":\"mlx\"},"
        "\"b\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[4,12]},"
        "\"a\":{\"dtype\":\"BF16\",\"shape\":[],\"data_offsets\":[0,2]},"
        "\"none\":{\"dtype\":\"I64\",\"shape\":[0,3],\"data_offsets\":[12,12]}}  ", 12);
    checkpoint *c = checkpoint_open_file(path, &error);
    assert_non_null(c);
    assert_int_equal(checkpoint_count(c), 3);
    assert_string_equal(checkpoint_format(c), "mlx");
    assert_int_equal(checkpoint_bytes(c), 10);
    assert_string_equal(checkpoint_at(c, 0)->name, "a");
    assert_int_equal(checkpoint_find(c, "a")->dims, 0);
    const stored_tensor *b = checkpoint_find(c, "b");
    assert_int_equal(b->dims, 2);
    assert_int_equal(b->type, DT_F32);
    assert_int_equal(*(const uint8_t *)b->data, 4);
    assert_null(checkpoint_find(c, "c"));
    uint64_t bytes = 0;
    assert_string_equal(checkpoint_file(c, 0, &bytes, NULL), "good.safetensors");
    assert_int_not_equal(bytes, 0);
    checkpoint_close(c);
    unlink(path);
}

static void refuses_lies(void **state)
{
    (void)state;
#define ONE(dtype, shape, offsets) "{\"w\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}}"
    refused(ONE("F32", "[2]", "[0,8]"), 7, VLM_FORMAT, "the file has 7 after its header");
    refused(ONE("F32", "[2]", "[8,0]"), 8, VLM_FORMAT, "lies at bytes 8 to 0");
    refused(ONE("F32", "[2]", "[-8,0]"), 8, VLM_FORMAT, "lies at bytes -8");
    refused(ONE("F32", "[3]", "[0,8]"), 8, VLM_FORMAT, "need 12");
    refused(ONE("F16", "[2]", "[0,8]"), 8, VLM_FORMAT, "need 4");
    refused(ONE("F32", "[4611686018427387904,4]", "[0,0]"), 8, VLM_FORMAT, "shape");
    refused(ONE("F32", "[0,4611686018427387904,4611686018427387904]", "[0,0]"), 8, VLM_FORMAT, "shape");
    refused(ONE("F32", "[-2]", "[0,8]"), 8, VLM_FORMAT, "shape");
    refused(ONE("F32", "[1.5]", "[0,8]"), 8, VLM_FORMAT, "shape");
    refused(ONE("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), 8, VLM_FORMAT, "shape");
    refused(ONE("F32", "\"2\"", "[0,8]"), 8, VLM_FORMAT, "shape");
    refused(ONE("F32", "[2]", "[0]"), 8, VLM_FORMAT, "data_offsets");
    refused(ONE("F32", "[2]", "[0,18446744073709551615]"), 8, VLM_FORMAT, "not a JSON object");
    refused(ONE("F4", "[2]", "[0,8]"), 8, VLM_UNSUPPORTED, "F4");
    refused("{\"w\":3}", 8, VLM_FORMAT, "data_offsets");
    refused("[1, 2]", 8, VLM_FORMAT, "not a JSON object");
    refused("{\"w\":", 8, VLM_FORMAT, "not a JSON object");
    refused("{\"w\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,8]},\"v\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,8]}}", 8,
            VLM_FORMAT, "share bytes");
    refused("{\"w\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},\"w\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,8]}}", 8,
            VLM_FORMAT, "duplicate");
    vlm_error error = {0};
    assert_null(checkpoint_open_file(put("short.safetensors", "abc", 3), &error));
    assert_int_equal(error.code, VLM_FORMAT);
    assert_null(checkpoint_open_file(put("short.safetensors", "", 0), &error));
    assert_null(checkpoint_open_file(put("short.safetensors", "\xff\xff\xff\xff\xff\xff\xff\xff{}", 10), &error));
    assert_non_null(strstr(error.message, "18446744073709551615"));
    assert_null(checkpoint_open_file("no such file", &error));
    assert_int_equal(error.code, VLM_NOT_FOUND);
    char path[128];
    snprintf(path, sizeof path, "%s/short.safetensors", dir);
    unlink(path);
}

#define W(name, at) "\"" name "\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[" at "]}"

static void reads_shards(void **state)
{
    (void)state;
    vlm_error error = {0};
    const char *index = "{\"weight_map\":{\"x\":\"one.safetensors\",\"y\":\"two.safetensors\"}}";
    put("model.safetensors.index.json", index, strlen(index));
    put_tensors("one.safetensors", "{" W("x", "0,4") "}", 4);
    assert_null(checkpoint_open(dir, &error));
    assert_int_equal(error.code, VLM_NOT_FOUND);
    assert_non_null(strstr(error.message, "two.safetensors"));
    put_tensors("two.safetensors", "{" W("z", "0,4") "}", 4);
    assert_null(checkpoint_open(dir, &error));
    assert_non_null(strstr(error.message, "places y in two.safetensors, which lacks it"));
    put_tensors("two.safetensors", "{" W("y", "0,4") "," W("x", "4,8") "}", 8);
    assert_null(checkpoint_open(dir, &error));
    assert_non_null(strstr(error.message, "x is in"));
    put_tensors("two.safetensors", "{" W("y", "0,4") "}", 4);
    put_tensors("golden.safetensors", "broken", 4);
    checkpoint *c = checkpoint_open(dir, &error);
    assert_non_null(c);
    assert_int_equal(checkpoint_count(c), 2);
    assert_int_equal(checkpoint_files(c), 2);
    assert_string_equal(checkpoint_find(c, "y")->file, "two.safetensors");
    checkpoint_close(c);
    index = "{\"weight_map\":{\"x\":\"../one.safetensors\"}}";
    put("model.safetensors.index.json", index, strlen(index));
    assert_null(checkpoint_open(dir, &error));
    assert_non_null(strstr(error.message, "a file beside it"));
    char path[128];
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", dir);
    unlink(path);
    assert_null(checkpoint_open(dir, &error));                  /* one, two, and a golden that does not count */
    assert_non_null(strstr(error.message, "2 safetensors files"));
    snprintf(path, sizeof path, "%s/two.safetensors", dir);
    unlink(path);
    c = checkpoint_open(dir, &error);
    assert_non_null(c);
    assert_int_equal(checkpoint_count(c), 1);
    checkpoint_close(c);
}

static void survives_failing_allocations(void **state)
{
    (void)state;
    const char *path = put_tensors("good.safetensors", "{" W("x", "0,4") "}", 4);
    for (uint64_t n = 1;; n++) {
        vlm_error error = {0};
        mem_fail_at(n);
        checkpoint *c = checkpoint_open_file(path, &error);
        bool failed = mem_failed();
        mem_fail_at(0);
        assert_true(failed != (c != NULL));
        checkpoint_close(c);
        if (!failed) break;
        assert_int_not_equal(error.code, VLM_OK);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_good_file), cmocka_unit_test(refuses_lies), cmocka_unit_test(reads_shards),
        cmocka_unit_test(survives_failing_allocations),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
