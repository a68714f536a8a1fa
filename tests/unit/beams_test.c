/* beams_test.c - engine/beams.h and the scheduler's forks: pages are shared until one writes, the search finds what greedy decoding misses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/beams.h"
#include "engine/engine.h"

enum { VOCAB = 4, END = 3 };

static const kv_shape shape = {.kv_heads = 1, .head_dim = 4, .slots = 1, .type = DT_F32};

/* What comes after a token: 1 looks best at first, but what follows it is improbable. */
static const float chance[VOCAB][VOCAB] = {{0.02f, 0.5f, 0.46f, 0.02f}, {0.25f, 0.25f, 0.25f, 0.25f}, {0.02f, 0.02f, 0.02f, 0.94f}, {0.25f, 0.25f, 0.25f, 0.25f}};

typedef struct setting { pages p; scheduler s; prompt prompt; sequence seq; sampler rules; void *scratch; } setting;

static bool no_media(void *user, sequence *seq, int media) { (void)user; (void)seq; (void)media; return true; }

static void set_up(setting *t, int room)
{
    vlm_error error = {0};
    *t = (setting){.rules = {.options = {.repetition_penalty = 1}, .forced_first = -1, .forced_last = -1}};
    assert_true(pages_init(&t->p, &shape, 1, 0, (uint64_t)room * kv_page_bytes(&shape), false, &error));
    t->s = (scheduler){.pages = &t->p, .step_tokens = 64, .chunk = 64, .max_running = 8, .media_ready = no_media};
    t->scratch = malloc(sampler_scratch(VOCAB));
    t->seq.prompt = &t->prompt;
    t->seq.cached = -1;
    assert_true(sequence_add(&t->seq, 1) && sequence_add(&t->seq, 0));
    t->seq.n_prompt = 2;
    assert_true(scheduler_add(&t->s, &t->seq));
}

static void tear_down(setting *t)
{
    scheduler_remove(&t->s, &t->seq);
    sequence_free(&t->seq);
    scheduler_free(&t->s);
    assert_int_equal(t->p.stats.used, 0);
    pages_free(&t->p);
    free(t->scratch);
}

static bool is_end(const void *user, int32_t token) { (void)user; return token == END; }

/* Plans and "computes" until the search is over; writes the token into its place, so that a page written by two would show. */
static hypothesis search(setting *t, beams *b, int limit)
{
    bool over = false;
    const beams_end end = {is_end, NULL};
    for (int step = 0; step < 200 && !over; step++) {
        sequence *unfit = NULL;
        vlm_error why = {0};
        assert_true(scheduler_plan(&t->s, &unfit, &why));
        for (int i = 0; i < t->s.n_plan; i++) {
            const planned *part = &t->s.plan[i];
            sequence *seq = part->seq;
            for (int k = part->first; k < part->first + part->count; k++) ((float *)seq->table[0].data[0])[k] = (float)seq->tokens[k];
            for (int k = 0; k < seq->n; k++) assert_true(((float *)seq->table[0].data[0])[k] == (float)seq->tokens[k]);
            float logits[VOCAB];
            for (int v = 0; v < VOCAB; v++) logits[v] = logf(chance[seq->tokens[seq->n - 1]][v]);
            beams_score(b, seq->beam, &t->rules, logits, VOCAB, NULL, t->scratch);
        }
        scheduler_done(&t->s);
        if (beams_ready(b)) assert_true(beams_advance(b, &t->s, &t->seq, limit, &end, &over));
    }
    assert_true(over);
    return beams_best(b);
}

static void finds_more_than_greedy(void **state)
{
    (void)state;
    for (int few = 0; few < 2; few++) {            /* with pages for one sequence only the beams take turns */
        setting t;
        set_up(&t, few ? 1 : 20);
        vlm_error error = {0};
        beams *b = beams_new(3, 1, BEAMS_EARLY, 1, &t.seq, &error);
        assert_non_null(b);
        hypothesis best = search(&t, b, 8);
        assert_int_equal(best.n, 2);
        assert_int_equal(best.tokens[0], 2);
        assert_int_equal(best.tokens[1], END);
        assert_true(fabsf(best.score - (logf(0.46f) + logf(0.94f)) / 2) < 1e-5f);
        assert_true(fabsf(best.logprobs[0] - logf(0.46f)) < 1e-5f);
        beams_free(b, &t.s, &t.seq);
        tear_down(&t);
    }
}

static void forks_share_pages(void **state)
{
    (void)state;
    setting t;
    set_up(&t, 20);
    sequence *unfit = NULL, a = {0}, b = {0};
    vlm_error why = {0};
    assert_true(scheduler_plan(&t.s, &unfit, &why));
    scheduler_done(&t.s);
    assert_true(scheduler_fork(&t.s, &t.seq, &a, 1) && scheduler_fork(&t.s, &t.seq, &b, 2));
    assert_int_equal(t.seq.table[0].page[0]->refs, 3);
    assert_ptr_equal(a.table[0].page[0], b.table[0].page[0]);
    assert_true(scheduler_plan(&t.s, &unfit, &why));                   /* both will write */
    assert_ptr_not_equal(a.table[0].page[0], b.table[0].page[0]);
    scheduler_remove(&t.s, &a);
    scheduler_remove(&t.s, &b);
    sequence_free(&a);
    sequence_free(&b);
    tear_down(&t);
}

static void says_what_does_not_go_together(void **state)
{
    (void)state;
    vlm_error error = {0};
    vlm_model *m = vlm_load("tests/data/checkpoints/llama", NULL, &error);
    assert_non_null(m);
    vlm_request_options o = vlm_request_options_default();
    o.prompt = "Hello";
    o.num_beams = 3;
    o.max_tokens = 4;
    assert_int_equal(vlm_generate(m, &o, NULL, NULL, NULL, &error), VLM_OK);
    o.sampling.temperature = 0.5f;
    assert_int_equal(vlm_generate(m, &o, NULL, NULL, NULL, &error), VLM_UNSUPPORTED);
    assert_non_null(strstr(error.message, "temperature"));
    o.sampling.temperature = 0;
    o.response_format = "{\"type\":\"json_object\"}";
    assert_int_equal(vlm_generate(m, &o, NULL, NULL, NULL, &error), VLM_UNSUPPORTED);
    o.response_format = NULL;
    o.num_beams = 1000;
    assert_int_equal(vlm_generate(m, &o, NULL, NULL, NULL, &error), VLM_INVALID);
    vlm_model_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(finds_more_than_greedy), cmocka_unit_test(forks_share_pages), cmocka_unit_test(says_what_does_not_go_together)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
