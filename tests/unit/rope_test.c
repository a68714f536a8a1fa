/* rope_test.c - blocks/rope.h against transformers: inverse frequencies of every type, M-RoPE's cos and sin. */
#include "blocks_golden.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "blocks/rope.h"

static const char *const prefixes[] = {"text_config.", "", NULL};

static config *config_of(const json_t *json)
{
    vlm_error error = {0};
    config *c = config_from_json(json_deep_copy(json), "config.json", &error);
    assert_non_null(c);
    return c;
}

static void frequencies(void **state)
{
    (void)state;
    size_t k;
    json_t *g;
    json_array_foreach(golden("rope"), k, g) {
        arena memory = {0};
        rope_table t = {0};
        config *c = config_of(member(g, "config"));
        assert_true(rope_configure(&t, &memory, c, prefixes, NULL, (int)json_integer_value(member(g, "head_dim")), 10000));
        json_t *want = member(g, "inv_freq");
        assert_int_equal(t.half, json_array_size(want));
        for (size_t i = 0; i < json_array_size(want); i++)
            if (fabs(t.inv_freq[i] - num(want, i)) > 4e-7 * fabs(num(want, i)))
                fail_msg("%s: frequency %zu is %.9g, expected %.9g", json_string_value(member(g, "name")), i, (double)t.inv_freq[i], num(want, i));
        assert_true(fabs(t.factor - json_number_value(member(g, "factor"))) < 1e-6);
        config_free(c);
        arena_free(&memory);
    }
}

static void sections(void **state)
{
    (void)state;
    size_t k;
    json_t *g;
    json_array_foreach(golden("mrope"), k, g) {
        arena memory = {0};
        rope_table t = {0};
        int64_t section[3];
        int32_t positions[3][16];
        const int32_t *axes[3] = {positions[0], positions[1], positions[2]};
        json_t *p = member(g, "positions"), *cosine = member(g, "cos"), *sine = member(g, "sin");
        size_t n = json_array_size(json_array_get(p, 0));
        int half = 0;
        for (size_t a = 0; a < 3; a++) {
            half += (int)(section[a] = whole(member(g, "section"), a));
            for (size_t i = 0; i < n; i++) positions[a][i] = (int32_t)whole(json_array_get(p, a), i);
        }
        assert_true(rope_default(&t, &memory, 1e6, 2 * half));
        assert_true(rope_sections(&t, section, 3, json_is_true(member(g, "interleaved"))));
        float *c = malloc(n * (size_t)half * sizeof *c), *s = malloc(n * (size_t)half * sizeof *s);
        rope_fill(&t, axes, (int64_t)n, (tensor){c, DT_F32, (int64_t)n, half, half}, (tensor){s, DT_F32, (int64_t)n, half, half});
        for (size_t i = 0; i < n * (size_t)half; i++)          /* 3000 * 1 ulp of a frequency */
            if (fabs(c[i] - num(cosine, i)) > 3e-4 || fabs(s[i] - num(sine, i)) > 3e-4)
                fail_msg("%s: value %zu is %g %g, expected %g %g", json_string_value(member(g, "name")), i, (double)c[i], (double)s[i], num(cosine, i), num(sine, i));
        free(c);
        free(s);
        arena_free(&memory);
    }
}

static void refuses(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "{\"rope_theta\": 10000, \"rope_scaling\": {\"type\": \"longrope\", \"factor\": 4}}",
        "{\"rope_theta\": -1}",
        "{\"rope_theta\": 10000, \"rope_scaling\": {\"type\": \"linear\"}}",
        "{\"rope_theta\": 10000, \"rope_scaling\": {\"type\": \"linear\", \"factor\": 0}}",
        "{\"rope_theta\": 10000, \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 4, \"high_freq_factor\": 1}}",
        "{\"rope_theta\": 10000, \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4}}",
        "{\"rope_theta\": \"much\"}",
        "{\"rope_theta\": 10000, \"partial_rotary_factor\": 7}",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        arena memory = {0};
        rope_table t = {0};
        json_t *json = json_loads(bad[i], 0, NULL);
        config *c = config_of(json);
        assert_false(rope_configure(&t, &memory, c, prefixes, NULL, 64, 10000));
        assert_true(c->failed && c->error.message[0]);
        config_free(c);
        json_decref(json);
        arena_free(&memory);
    }
    arena memory = {0};
    rope_table t = {0};
    assert_true(rope_default(&t, &memory, 10000, 64));
    assert_false(rope_sections(&t, (const int64_t[]){16, 24, 24}, 3, false));
    assert_false(rope_sections(&t, (const int64_t[]){40, -4, -4}, 3, false));
    assert_false(rope_sections(&t, (const int64_t[]){32}, MAX_ROPE_AXES + 1, false));
    assert_true(rope_sections(&t, (const int64_t[]){8, 12, 12}, 3, false));
    arena_free(&memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(frequencies), cmocka_unit_test(sections), cmocka_unit_test(refuses)};
    return cmocka_run_group_tests(tests, golden_load, golden_free);
}
