/* config_test.c - weights/config.h: typed reads, alternatives, messages, Python's JSON. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "weights/config.h"

static config *parse(const char *text)
{
    vlm_error error = {0};
    json_t *json = json_text_parse(text, strlen(text), "test", &error);
    assert_non_null(json);
    return config_from_json(json, "config.json", &error);
}

static void reads_and_falls_back(void **state)
{
    (void)state;
    config *c = parse("{\"a\":{\"b\":7,\"real\":8.0,\"x\":null},\"rate\":1e4,\"yes\":true,\"name\":\"n\",\"list\":[1,2.0,3],\"one\":5}");
    assert_int_equal(config_need_int(c, "a.b", 1, 10), 7);
    assert_int_equal(config_need_int(c, "a.none|a.real", 1, 10), 8);
    assert_int_equal(config_int(c, "a.x", 3, 0, 10), 3);
    assert_int_equal(config_int(c, "a.b.c", 3, 0, 10), 3);
    assert_true(config_need_number(c, "rate") == 10000.0);
    assert_true(config_bool(c, "yes", false));
    assert_string_equal(config_need_string(c, "name"), "n");
    assert_string_equal(config_string(c, "nothing", "x"), "x");
    int64_t list[3];
    assert_int_equal(config_ints(c, "list", list, 3), 3);
    assert_int_equal(list[1], 2);
    assert_int_equal(config_ints(c, "one", list, 3), 1);
    assert_int_equal(list[0], 5);
    assert_int_equal(config_ints(c, "none", list, 3), 0);
    double numbers[3];
    assert_int_equal(config_numbers(c, "list", numbers, 3), 3);
    assert_true(config_ok(c, NULL));
    assert_int_equal(config_ints(c, "list", list, 2), 0);
    assert_false(config_ok(c, NULL));
    config_free(c);
}

static void says(const char *json, const char *path, const char *message)
{
    config *c = parse(json);
    vlm_error error = {0};
    config_need_int(c, path, 1, 100);
    config_need_string(c, "later");                              /* the first message stays */
    assert_false(config_ok(c, &error));
    assert_string_equal(error.message, message);
    assert_int_equal(error.code, VLM_FORMAT);
    config_free(c);
}

static void complains_well(void **state)
{
    (void)state;
    says("{}", "t.size", "config.json: t.size is missing; a whole number from 1 to 100 was expected");
    says("{\"t\":[]}", "t.size|size", "config.json: t.size (or size) is missing; a whole number from 1 to 100 was expected");
    says("{\"size\":0}", "size", "config.json: size is 0; a whole number from 1 to 100 was expected");
    says("{\"size\":1.5}", "size", "config.json: size is 1.5; a whole number from 1 to 100 was expected");
    says("{\"size\":\"big\"}", "size", "config.json: size is \"big\"; a whole number from 1 to 100 was expected");
    config *c = parse("{\"yes\":1,\"text\":\"a\"}");
    config_bool(c, "yes", true);
    assert_string_equal(c->error.message, "config.json: yes is 1; true or false was expected");
    config_free(c);
}

static void reads_python_json(void **state)
{
    (void)state;
    config *c = parse("\xEF\xBB\xBF{\"nan\":NaN,\"inf\":Infinity,\"low\":-Infinity,\"big\":1000000000000000019884624838656,\"s\":\"NaN \\\" Infinity 1000000000000000019884624838656\"}");
    assert_false(config_has(c, "nan"));
    assert_true(config_need_number(c, "inf") > 1e308);
    assert_true(config_need_number(c, "low") < -1e308);
    assert_true(config_need_number(c, "big") > 9e29);
    assert_string_equal(config_need_string(c, "s"), "NaN \" Infinity 1000000000000000019884624838656");
    assert_true(config_ok(c, NULL));
    config_free(c);
    static const char *const bad[] = {"", "{", "{\"a\":}", "nul", "{\"a\":1e999}", "\"unclosed", "{\"a\":\"\\", "{} {}", "\xff"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        vlm_error error = {0};
        assert_null(json_text_parse(bad[i], strlen(bad[i]), "test.json", &error));
        assert_int_equal(error.code, VLM_FORMAT);
        assert_non_null(strstr(error.message, "test.json is not JSON: line "));
    }
}

static void merges_generation_config(void **state)
{
    (void)state;
    char dir[] = "/tmp/vlm-config-XXXXXX", path[64], command[64];
    vlm_error error = {0};
    assert_non_null(mkdtemp(dir));
    assert_null(config_load(dir, &error));
    assert_int_equal(error.code, VLM_NOT_FOUND);
    snprintf(path, sizeof path, "%s/config.json", dir);
    assert_true(file_write(path, "{\"eos_token_id\":1,\"x\":2}", 24, NULL));
    snprintf(path, sizeof path, "%s/generation_config.json", dir);
    const char *generation = "{\"eos_token_id\":[1,3],\"temperature\":0.5,\"x\":9}";
    assert_true(file_write(path, generation, strlen(generation), NULL));
    config *c = config_load(dir, &error);
    assert_non_null(c);
    int64_t eos[4];
    assert_int_equal(config_ints(c, "eos_token_id", eos, 4), 2);
    assert_int_equal(config_int(c, "x", 0, 0, 10), 2);
    assert_int_equal(config_int(c, "generation_config.x", 0, 0, 10), 9);
    assert_true(config_number(c, "temperature", 0) == 0.5);
    config_free(c);
    assert_true(file_write(path, "[]", 2, NULL));
    assert_null(config_load(dir, &error));
    assert_null(config_load("/nowhere/at/all", &error));
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_and_falls_back), cmocka_unit_test(complains_well), cmocka_unit_test(reads_python_json),
        cmocka_unit_test(merges_generation_config),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
