/* oom_test.c - out of memory at every place in turn. mem_fail_at(n) lets the n-th allocation fail; n rises until a whole scenario passes
 * without meeting it. A scenario may succeed although an allocation failed (caches do without); otherwise it must say so. */
#include "fake_ask.h"

/* Returns VLM_OK or the error of what failed. */
typedef vlm_status (*scenario)(vlm_error *error);

static void walk(scenario run_it, const char *name, uint64_t step)
{
    for (uint64_t n = 1;; n += step) {
        vlm_error error = {0};
        mem_fail_at(n);
        vlm_status status = run_it(&error);
        bool happened = mem_failed();
        mem_fail_at(0);
        if (status && !error.message[0]) fail_msg("%s, allocation %llu: status %d without a message", name, (unsigned long long)n, status);
        if (status && !happened) fail_msg("%s: %s", name, error.message);
        if (!happened) return;
        if (n > 2000000) fail_msg("%s never ends", name);
    }
}

/* ---- the engine alone, on the fake model ---- */

static fake_model fake;
static bool fake_cached;

static prompt bare_prompt(void)                   /* made while nothing fails */
{
    return fake_prompt(&fake.m, 3, 70, ".#.");
}

static prompt ready[2];

static vlm_status engine_scenario(vlm_error *error)
{
    vlm_engine_options o = vlm_engine_options_default();
    o.kv_bytes = 1 << 20;
    o.prefill_chunk = 40;
    o.prefix_cache = fake_cached;
    vlm_engine *e = vlm_engine_new(&fake.m, &o, error);
    for (int i = 0; e && i < 2; i++) {
        vlm_request_options options = fake_options(&(fake_question){.max_tokens = 6});
        options.stop = "[\"x\"]";
        options.sampling.logprobs = 1;
        options.sampling.logit_bias = "{\"5\": 1}";
        prompt p = ready[i];
        ready[i] = (prompt){0};
        vlm_request *r = engine_submit(e, &options, &(engine_extra){.prompt = &p}, error);
        vlm_result result = {0};
        if (r) vlm_request_collect(r, NULL, NULL, &result, error);
        if (r && !error->code && result.token_count != 6) err_set(error, VLM_INTERNAL, "%zu tokens", result.token_count);
        vlm_result_clear(&result);
        vlm_request_free(r);
        char *stats = vlm_engine_stats(e, NULL);
        vlm_free(stats);
    }
    vlm_engine_free(e);
    return error->code;
}

static void engine_alone(void **state)
{
    (void)state;
    for (int kind = 0; kind < 4; kind++) {
        fake_init(&fake, kind & 1, kind & 1);
        fake_cached = kind & 2;
        for (uint64_t n = 1;; n++) {              /* as walk(), with prompts made afresh */
            ready[0] = bare_prompt();
            ready[1] = bare_prompt();
            vlm_error error = {0};
            mem_fail_at(n);
            vlm_status status = engine_scenario(&error);
            bool happened = mem_failed();
            mem_fail_at(0);
            prompt_free(&ready[0]);
            prompt_free(&ready[1]);
            if (status && !happened) fail_msg("%s", error.message);
            if (status && !error.message[0]) fail_msg("allocation %llu: no message", (unsigned long long)n);
            if (!happened) break;
        }
    }
}

/* ---- load, generate ---- */

static const char *directory, *media_part;

static vlm_status load_and_generate(vlm_error *error)
{
    vlm_load_options load = vlm_load_options_default();
    load.threads = 2;
    load.precision = "exact";
    vlm_model *m = vlm_load(directory, &load, error);
    if (m) {
        vlm_request_options o = vlm_request_options_default();
        o.messages = media_part;
        o.max_tokens = 3;
        o.sampling.temperature = 0;
        vlm_result result;
        vlm_generate(m, &o, NULL, NULL, &result, error);
        vlm_result_clear(&result);
    }
    vlm_model_free(m);
    return error->code;
}

static void text_model(void **state)
{
    (void)state;
    directory = "tests/data/checkpoints/llama";
    media_part = "[{\"role\":\"user\",\"content\":\"Hello there\"}]";
    walk(load_and_generate, "llama", 1);
}

static void vision_model(void **state)
{
    (void)state;
    directory = "tests/data/checkpoints/qwen2_5_vl";
    media_part = "[{\"role\":\"user\",\"content\":[{\"type\":\"image\",\"image\":\"tests/data/checkpoints/media/small_50x70.png\"},"
                 "{\"type\":\"text\",\"text\":\"What is it?\"}]}]";
    walk(load_and_generate, "qwen2_5_vl", 1);
    directory = "tests/data/checkpoints/gemma4_e2b";
    walk(load_and_generate, "gemma4_e2b", 1);
}

static void sound(void **state)
{
    (void)state;
    directory = "tests/data/checkpoints/gemma4_e2b";
    media_part = "[{\"role\":\"user\",\"content\":[{\"type\":\"audio\",\"audio\":\"tests/data/checkpoints/media/sweep_0.31s.wav\"},"
                 "{\"type\":\"text\",\"text\":\"What is it?\"}]}]";
    walk(load_and_generate, "gemma4_e2b with sound", 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(engine_alone), cmocka_unit_test(text_model), cmocka_unit_test(vision_model), cmocka_unit_test(sound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
