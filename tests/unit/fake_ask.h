/* fake_ask.h - asking an engine on the fake model, and comparing with fake_answer. */
#ifndef VLM_TESTS_FAKE_ASK_H
#define VLM_TESTS_FAKE_ASK_H

#include "fake_model.h"

enum { ANSWER = 24 };

typedef struct fake_question { int seed, n; const char *media, *tenant; int priority, max_tokens; } fake_question;
typedef struct fake_reply { vlm_status status; vlm_error error; vlm_result result; } fake_reply;

static inline vlm_engine *fake_engine(fake_model *f, const vlm_engine_options *options, const engine_tuning *tuning)
{
    vlm_error error = {0};
    vlm_engine_options o = options ? *options : vlm_engine_options_default();
    if (!o.kv_bytes) o.kv_bytes = (uint64_t)1 << 30;
    vlm_engine *e = vlm_engine_new(&f->m, &o, &error);
    if (!e) fail_msg("%s", error.message);
    if (tuning) engine_tune(e, tuning);
    return e;
}

static inline engine_counters fake_counters(vlm_engine *e)
{
    pthread_mutex_lock(&e->lock);
    engine_counters c = e->shown;
    pthread_mutex_unlock(&e->lock);
    return c;
}

static inline vlm_request_options fake_options(const fake_question *q)
{
    vlm_request_options o = vlm_request_options_default();
    o.max_tokens = q->max_tokens ? q->max_tokens : ANSWER;
    o.ignore_eos = 1;
    o.sampling.temperature = 0;
    o.tenant = q->tenant;
    o.priority = q->priority;
    return o;
}

static inline vlm_request *fake_ask_with(vlm_engine *e, const fake_question *q, const vlm_request_options *o, const engine_probe *probe)
{
    prompt p = fake_prompt(e->m, q->seed, q->n, q->media);
    vlm_error error = {0};
    engine_extra extra = {.prompt = &p, .probe = probe};
    vlm_request *r = engine_submit(e, o, &extra, &error);
    if (!r) fail_msg("%s", error.message);
    return r;
}

static inline vlm_request *fake_ask(vlm_engine *e, const fake_question *q)
{
    vlm_request_options o = fake_options(q);
    return fake_ask_with(e, q, &o, NULL);
}

static inline fake_reply fake_wait(vlm_request *r)
{
    fake_reply a = {0};
    a.status = vlm_request_collect(r, NULL, NULL, &a.result, &a.error);
    vlm_request_free(r);
    return a;
}

/* The reply has exactly the reference's tokens. */
static inline void fake_expect(const vlm_model *m, const fake_question *q, const fake_reply *a)
{
    int n = q->max_tokens ? q->max_tokens : ANSWER;
    int32_t *wanted = calloc((size_t)n, sizeof *wanted);
    prompt p = fake_prompt(m, q->seed, q->n, q->media);
    fake_answer(m, &p, wanted, n);
    prompt_free(&p);
    if (a->status) fail_msg("seed %d: %s", q->seed, a->error.message);
    assert_int_equal(a->result.token_count, n);
    for (int i = 0; i < n; i++)
        if (a->result.tokens[i] != wanted[i])
            fail_msg("seed %d, %d prompt tokens: answer token %d is %d, not %d", q->seed, q->n, i, a->result.tokens[i], wanted[i]);
    free(wanted);
}

/* All at once; each gets what it would get alone. Returns the sum of preemptions. */
static inline int fake_batch(vlm_engine *e, const fake_question *q, int n)
{
    vlm_request *r[64];
    int preemptions = 0;
    for (int i = 0; i < n; i++) r[i] = fake_ask(e, &q[i]);
    for (int i = 0; i < n; i++) {
        fake_reply a = fake_wait(r[i]);
        fake_expect(e->m, &q[i], &a);
        preemptions += a.result.usage.preemptions;
        vlm_result_clear(&a.result);
    }
    return preemptions;
}

#endif
