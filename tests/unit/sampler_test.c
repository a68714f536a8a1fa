/* sampler_test.c - engine/sampler.h: each filter against its definition worked out by hand, draws against probabilities. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/sampler.h"

enum { VOCAB = 8 };
static vlm_model model = {.vocab = VOCAB, .temperature = NAN, .top_p = NAN, .top_k = -1};

static vlm_sampling plain(float temperature)
{
    return (vlm_sampling){.temperature = temperature, .top_p = 1, .typical_p = 1, .repetition_penalty = 1, .repetition_context = 20,
                          .presence_context = 20, .frequency_context = 20};
}

static int32_t one(const vlm_sampling *o, const float *logits, const int32_t *tokens, int n, sampled *out)
{
    sampler s;
    vlm_error error = {0};
    if (!sampler_init(&s, &model, o, &error)) fail_msg("%s", error.message);
    float copy[VOCAB];
    sampled mine;
    void *scratch = malloc(sampler_scratch(VOCAB));
    memcpy(copy, logits, sizeof copy);
    sampler_draw(&s, copy, VOCAB, tokens, n, 0, NULL, scratch, out ? out : &mine);
    free(scratch);
    sampler_free(&s);
    return out ? out->token : mine.token;
}

/* Which tokens appear in 4000 draws, as a bit set; share[i]: how often. */
static unsigned support(vlm_sampling o, const float *logits, double *share)
{
    unsigned set = 0;
    double counts[VOCAB] = {0};
    int32_t tokens[1] = {0};
    for (int i = 0; i < 4000; i++) {
        o.seed = (uint64_t)i;
        int32_t t = one(&o, logits, tokens, 0, NULL);
        set |= 1u << t;
        counts[t] += 1.0 / 4000;
    }
    if (share) memcpy(share, counts, sizeof counts);
    return set;
}

/* probabilities 0.4 0.25 0.15 0.1 0.05 0.03 0.015 0.005 at shuffled places */
static const float logs[VOCAB] = {-1.8971f, -0.9163f, -2.3026f, -1.3863f, -2.9957f, -5.2983f, -3.5066f, -4.1997f};

static void greedy(void **state)
{
    (void)state;
    vlm_sampling o = plain(0);
    float ties[VOCAB] = {1, 5, 5, 5, 0, 0, 0, 0}, none[VOCAB], some[VOCAB];
    assert_int_equal(one(&o, ties, NULL, 0, NULL), 1);
    for (int i = 0; i < VOCAB; i++) { none[i] = NAN; some[i] = NAN; }
    some[6] = -3;
    assert_int_equal(one(&o, none, NULL, 0, NULL), -1);
    assert_int_equal(one(&o, some, NULL, 0, NULL), 6);
    o.temperature = 0.5f;
    assert_int_equal(one(&o, none, NULL, 0, NULL), -1);
    o.temperature = 1e-5f;                                        /* counts as 0.01: nearly greedy */
    assert_int_equal(support(o, logs, NULL), 1u << 1);
}

static void shares(void **state)
{
    (void)state;
    double share[VOCAB];
    vlm_sampling o = plain(1);
    support(o, logs, share);
    for (int i = 0; i < VOCAB; i++) assert_true(fabs(share[i] - exp(logs[i])) < 0.025);
    o.temperature = 0.5f;                                         /* squares, normalised: 0.16 / 0.2588 ... */
    support(o, logs, share);
    assert_true(fabs(share[1] - 0.16 / 0.2588) < 0.025);
    o = plain(1);
    int32_t tokens[3] = {1, 2, 3};
    o.seed = 42;
    assert_int_equal(one(&o, logs, tokens, 3, NULL), one(&o, logs, tokens, 3, NULL));
    assert_true(sampler_uniform(1, 2) != sampler_uniform(2, 1));
}

static void filters(void **state)
{
    (void)state;
    vlm_sampling o = plain(1);
    o.top_k = 2;
    assert_int_equal(support(o, logs, NULL), 1u << 1 | 1u << 3);
    o = plain(1);
    o.top_p = 0.5f;                                               /* 0.4 < 0.5: 0.25 joins, then it is enough */
    assert_int_equal(support(o, logs, NULL), 1u << 1 | 1u << 3);
    o.top_p = 0;                                                  /* always at least one */
    assert_int_equal(support(o, logs, NULL), 1u << 1);
    o = plain(1);
    o.min_p = 0.3f;                                               /* >= 0.12 */
    assert_int_equal(support(o, logs, NULL), 1u << 1 | 1u << 3 | 1u << 0);
    o.temperature = 3;                                            /* looks at untempered probabilities */
    assert_int_equal(support(o, logs, NULL), 1u << 1 | 1u << 3 | 1u << 0);
    o = plain(1);
    o.top_p = 0.5f;
    o.temperature = 0.5f;                                         /* tempered: 0.16 / 0.2588 = 0.618 is enough */
    assert_int_equal(support(o, logs, NULL), 1u << 1);
    o = plain(1);
    o.typical_p = 0.4f;                                           /* entropy 1.62: surprisals 1.386, 1.897 are nearest: 0.25 + 0.15 */
    assert_int_equal(support(o, logs, NULL), 1u << 3 | 1u << 0);
    o = plain(1);
    o.top_n_sigma = 0.5f;                                         /* standard deviation 1.41 */
    assert_int_equal(support(o, logs, NULL), 1u << 1 | 1u << 3);
    o = plain(1);
    o.top_k = 100;
    assert_int_equal(support(o, logs, NULL) & 0x5f, 0x5f);
}

static void penalties(void **state)
{
    (void)state;
    vlm_sampling o = plain(0);
    float logits[VOCAB] = {4, 3.9f, 3.8f, -1, -1.1f, -9, -9, -9};
    int32_t tokens[] = {0, 1, 0, 2, 2, 2};
    o.repetition_penalty = 1.1f;                                  /* all of 0, 1, 2 shrink alike */
    assert_int_equal(one(&o, logits, tokens, 6, NULL), 0);
    o.repetition_context = 3;                                     /* only 2 */
    assert_int_equal(one(&o, logits, tokens, 6, NULL), 0);
    o.repetition_context = 5;                                     /* 1, 0, 2 */
    float negative[VOCAB] = {-1, -1.05f, -9, -9, -9, -9, -9, -9};
    o.repetition_context = 0;
    assert_int_equal(one(&o, negative, (int32_t[]){0}, 1, NULL), 1);      /* -1.1 < -1.05 */
    o = plain(0);
    o.presence_penalty = 0.3f;
    o.presence_context = 3;                                       /* 2 is out; 0 wins. With context 4: 0 and 2 */
    assert_int_equal(one(&o, logits, tokens, 6, NULL), 0);
    o.presence_context = 4;
    assert_int_equal(one(&o, logits, tokens, 6, NULL), 1);
    o = plain(0);
    o.frequency_penalty = 0.06f;                                  /* 4 - 0.12, 3.9 - 0.06, 3.8 - 0.18 */
    assert_int_equal(one(&o, logits, tokens, 6, NULL), 0);
    o.frequency_penalty = 0.12f;                                  /* 3.76, 3.78, 3.44 */
    assert_int_equal(one(&o, logits, tokens, 6, NULL), 1);
    o = plain(0);
    o.logit_bias = "{\"0\": -100, \"5\": 20}";
    assert_int_equal(one(&o, logits, tokens, 6, NULL), 5);
}

static void logprobs(void **state)
{
    (void)state;
    vlm_sampling o = plain(0);
    sampled out;
    o.logprobs = 1;
    o.top_logprobs = 3;
    o.logit_bias = "{\"1\": -100}";                               /* raw log-probabilities are reported */
    assert_int_equal(one(&o, logs, NULL, 0, &out), 3);
    assert_true(fabsf(out.logprob - -1.3863f) < 1e-3f);
    assert_int_equal(out.top_count, 3);
    assert_int_equal(out.top[0].token, 1);
    assert_int_equal(out.top[1].token, 3);
    assert_int_equal(out.top[2].token, 0);
    assert_true(fabsf(out.top[0].logprob - -0.9163f) < 1e-3f);
}

static void bad_options(void **state)
{
    (void)state;
    sampler s;
    vlm_error error;
    vlm_sampling o = plain(-1);
    assert_false(sampler_init(&s, &model, &o, &error));
    o = plain(0);
    o.top_p = 1.5f;
    assert_false(sampler_init(&s, &model, &o, &error));
    assert_non_null(strstr(error.message, "top_p"));
    o = plain(0);
    o.top_logprobs = 21;
    assert_false(sampler_init(&s, &model, &o, &error));
    static const char *const broken[] = {"{\"8\": 1}", "{\"-1\": 1}", "{\"x\": 1}", "{\"1\": \"a\"}", "[1]", "{", "{\"1\": 1e999}"};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        o = plain(0);
        o.logit_bias = broken[i];
        assert_false(sampler_init(&s, &model, &o, &error));
        assert_int_equal(error.code, VLM_INVALID);
    }
    vlm_model given = model;                                      /* what the request leaves open comes from the model */
    given.temperature = 0.7f;
    given.top_k = 40;
    o = plain(NAN);
    o.top_k = -1;
    assert_true(sampler_init(&s, &given, &o, &error));
    assert_true(s.options.temperature == 0.7f && s.options.top_k == 40);
    sampler_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy), cmocka_unit_test(shares), cmocka_unit_test(filters), cmocka_unit_test(penalties),
        cmocka_unit_test(logprobs), cmocka_unit_test(bad_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
