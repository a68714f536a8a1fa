/* engine_test.c - the engine on a model made of hashes (fake_model.h): whatever the scheduler, the caches and the page allocator
 * do, each request gets the tokens that the reference computes without any of them. */
#include "fake_ask.h"

static const fake_question mixed[] = {
    {1, 5, NULL, NULL, 0, 0}, {2, 31, NULL, NULL, 0, 0}, {3, 32, NULL, NULL, 0, 0}, {4, 33, NULL, NULL, 0, 0},
    {5, 64, NULL, NULL, 0, 0}, {6, 150, NULL, NULL, 0, 0}, {7, 97, ".#.", NULL, 0, 0}, {8, 120, ".#.#~.", NULL, 0, 0},
    {9, 70, "##.~", NULL, 0, 0}, {10, 1, NULL, NULL, 0, 40}, {11, 260, "...#..##..~..#", NULL, 0, 9}, {12, 45, "~", NULL, 0, 1},
    {13, 130, ".######.", NULL, 0, 0},            /* a block that is longer than the window */
};
enum { MIXED = sizeof mixed / sizeof *mixed };

/* Every combination of model kinds. */
#define FOR_MODELS(f) \
    fake_model f;     \
    for (int kind_ = 0; kind_ < 4 && (fake_init(&f, kind_ & 1, kind_ & 2), true); kind_++)

static void alone(void **state)
{
    (void)state;
    FOR_MODELS(f) {
        vlm_engine *e = fake_engine(&f, NULL, NULL);
        for (int i = 0; i < MIXED; i++) {
            fake_batch(e, &mixed[i], 1);
            vlm_engine_reset_caches(e);
        }
        vlm_engine_free(e);
    }
}

static void chunks(void **state)
{
    (void)state;
    static const int sizes[] = {1, 7, 32, 33, 100};
    FOR_MODELS(f)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            vlm_engine_options o = vlm_engine_options_default();
            o.prefill_chunk = sizes[s];
            vlm_engine *e = fake_engine(&f, &o, NULL);
            for (int i = 0; i < MIXED; i++) fake_batch(e, &mixed[i], 1);
            vlm_engine_free(e);
        }
}

static void batches(void **state)
{
    (void)state;
    FOR_MODELS(f)
        for (int step = 8; step <= 512; step *= 8) {
            vlm_engine_options o = vlm_engine_options_default();
            o.step_tokens = step;
            o.max_sequences = step == 8 ? 5 : 0;
            vlm_engine *e = fake_engine(&f, &o, NULL);
            fake_batch(e, mixed, MIXED);
            fake_batch(e, mixed, MIXED);          /* and from the caches */
            vlm_engine_free(e);
        }
}

/* A second run takes over all full blocks but leaves a token to compute. */
static void cached(void **state)
{
    (void)state;
    FOR_MODELS(f) {
        vlm_engine *e = fake_engine(&f, NULL, NULL);
        for (int round = 0; round < 2; round++)
            for (int i = 0; i < MIXED; i++) {
                fake_reply a = fake_wait(fake_ask(e, &mixed[i]));
                fake_expect(&f.m, &mixed[i], &a);
                int full = (mixed[i].n - 1) / KV_PAGE_TOKENS * KV_PAGE_TOKENS;
                if (round == 0) assert_int_equal(a.result.usage.cached_tokens, 0);
                else if (!f.m.bidirectional_media || !mixed[i].media) assert_int_equal(a.result.usage.cached_tokens, full);
                else assert_true(a.result.usage.cached_tokens <= full);
                vlm_result_clear(&a.result);
            }
        vlm_engine_free(e);
    }
}

/* Tenants, other media under the same tokens, and switched-off caches do not share. */
static void not_shared(void **state)
{
    (void)state;
    fake_model f;
    fake_init(&f, false, false);
    vlm_engine *e = fake_engine(&f, NULL, NULL);
    fake_question q = {8, 120, ".#.#~.", NULL, 0, 0}, other = q;
    fake_batch(e, &q, 1);
    other.tenant = "somebody else";
    fake_reply a = fake_wait(fake_ask(e, &other));
    fake_expect(&f.m, &other, &a);
    assert_int_equal(a.result.usage.cached_tokens, 0);
    assert_int_equal(a.result.usage.media_cached, 0);
    vlm_result_clear(&a.result);

    prompt p = fake_prompt(&f.m, q.seed, q.n, q.media);           /* the same ids, the second image another one */
    p.media[1]->key.byte[5] ^= 1;
    int32_t wanted[ANSWER];
    fake_answer(&f.m, &p, wanted, ANSWER);
    vlm_request_options o = fake_options(&q);
    a = fake_wait(engine_submit(e, &o, &(engine_extra){.prompt = &p}, NULL));
    assert_int_equal(a.result.usage.cached_tokens, 0);            /* .#.# lies in the first block */
    assert_int_equal(a.result.usage.media_cached, 2);
    assert_memory_equal(a.result.tokens, wanted, sizeof wanted);
    vlm_result_clear(&a.result);
    vlm_engine_free(e);

    /* Where blocks see themselves whole, a page depends on media behind it. */
    fake_init(&f, true, false);
    e = fake_engine(&f, NULL, NULL);
    q = (fake_question){9, 90, "....##", NULL, 0, 0};             /* rows 28 to 45; the second image begins behind the first page */
    fake_batch(e, &q, 1);
    p = fake_prompt(&f.m, q.seed, q.n, q.media);
    p.media[1]->key.byte[5] ^= 1;
    fake_answer(&f.m, &p, wanted, ANSWER);
    a = fake_wait(engine_submit(e, &o, &(engine_extra){.prompt = &p}, NULL));
    assert_int_equal(a.result.usage.cached_tokens, 0);
    assert_memory_equal(a.result.tokens, wanted, sizeof wanted);
    vlm_result_clear(&a.result);

    q = (fake_question){10, 150, ".############.", NULL, 0, 0};   /* rows 7 to 114; other text behind: no prefix ends inside the block, */
    fake_batch(e, &q, 1);                                         /* for its rows look further back than the window */
    p = fake_prompt(&f.m, q.seed, q.n, q.media);
    p.ids.id[116] ^= 1;
    fake_answer(&f.m, &p, wanted, ANSWER);
    a = fake_wait(engine_submit(e, &o, &(engine_extra){.prompt = &p}, NULL));
    assert_int_equal(a.result.usage.cached_tokens, 0);
    assert_memory_equal(a.result.tokens, wanted, sizeof wanted);
    vlm_result_clear(&a.result);
    vlm_engine_free(e);
    fake_init(&f, false, false);

    vlm_engine_options off = vlm_engine_options_default();
    off.prefix_cache = 0;
    off.vision_cache_bytes = 0;
    e = fake_engine(&f, &off, NULL);
    for (int i = 0; i < 2; i++) {
        a = fake_wait(fake_ask(e, &q));
        fake_expect(&f.m, &q, &a);
        assert_int_equal(a.result.usage.cached_tokens, 0);
        assert_int_equal(a.result.usage.media_cached, 0);
        vlm_result_clear(&a.result);
    }
    assert_int_equal(fake_counters(e).pages.used, 0);
    vlm_engine_free(e);
}

static void preempted(void **state)
{
    (void)state;
    FOR_MODELS(f) {
        vlm_engine_options o = vlm_engine_options_default();
        o.prefill_chunk = 50;
        o.kv_bytes = engine_sequence_bytes(&f.m, 300) * 3 / 2;    /* a budget for one and a half of the longest */
        vlm_engine *e = fake_engine(&f, &o, NULL);
        fake_batch(e, mixed, MIXED);
        assert_true(fake_counters(e).pages.used <= o.kv_bytes);
        vlm_engine_free(e);

        o.prefix_cache = 0;
        e = fake_engine(&f, &o, NULL);
        fake_batch(e, mixed, MIXED);
        vlm_engine_free(e);

        o.kv_bytes = 0;                                           /* no shortage, but preempted in every third step */
        for (int cache = 0; cache < 2; cache++) {
            o.prefix_cache = cache;
            e = fake_engine(&f, &o, &(engine_tuning){.preempt_every = 3, .encode_stages = 1});
            assert_true(fake_batch(e, mixed, MIXED) > 10);
            vlm_engine_free(e);
        }
    }
}

/* Many answers grow together until there is no room. */
static void crowded(void **state)
{
    (void)state;
    FOR_MODELS(f) {
        int total = 0;
        fake_question q[24];
        for (int i = 0; i < 24; i++) q[i] = (fake_question){100 + i % 20, 20 + 3 * i, i % 3 ? NULL : ".#", NULL, i % 2, 60};
        vlm_engine_options o = vlm_engine_options_default();
        o.kv_bytes = engine_sequence_bytes(&f.m, 160) * 3;
        vlm_engine *e = fake_engine(&f, &o, NULL);
        total += fake_batch(e, q, 24);
        assert_true(fake_counters(e).pages.used <= o.kv_bytes);
        vlm_engine_free(e);
        o.prefix_cache = 0;
        e = fake_engine(&f, &o, NULL);
        total += fake_batch(e, q, 24);
        assert_int_equal(fake_counters(e).pages.used, 0);
        vlm_engine_free(e);
        assert_true(total > 0);
    }
}

static void one_encoding(void **state)
{
    (void)state;
    fake_model f;
    fake_init(&f, true, false);
    vlm_engine *e = fake_engine(&f, NULL, &(engine_tuning){.encode_stages = 1});
    fake_question q[6];
    for (int i = 0; i < 6; i++) q[i] = (fake_question){5, 60 + 10 * i, ".##", NULL, 0, 0};
    fake_batch(e, q, 6);
    assert_int_equal(atomic_load(&f.encodes), 2);
    fake_question longer = {5, 40, "...##", NULL, 0, 0};          /* the same images elsewhere */
    fake_reply a = fake_wait(fake_ask(e, &longer));
    fake_expect(&f.m, &longer, &a);
    assert_int_equal(a.result.usage.media_items, 2);
    assert_int_equal(a.result.usage.media_cached, 2);
    assert_int_equal(atomic_load(&f.encodes), 2);
    vlm_result_clear(&a.result);
    vlm_engine_free(e);
}

static void too_long(void **state)
{
    (void)state;
    fake_model f;
    fake_init(&f, false, false);
    vlm_engine_options o = vlm_engine_options_default();
    o.context = 100;
    vlm_engine *e = fake_engine(&f, &o, NULL);
    fake_reply a = fake_wait(fake_ask(e, &(fake_question){1, 100, NULL, NULL, 0, 0}));
    assert_int_equal(a.status, VLM_LIMIT);
    assert_non_null(strstr(a.error.message, "100 tokens"));
    assert_int_equal(atomic_load(&f.forwards), 0);
    a = fake_wait(fake_ask(e, &(fake_question){1, 90, NULL, NULL, 0, 50}));
    assert_int_equal(a.result.token_count, 10);
    assert_string_equal(a.result.finish_reason, "length");
    vlm_result_clear(&a.result);
    vlm_engine_free(e);

    o.context = 0;                                                /* pages for some 80 tokens */
    o.kv_bytes = engine_sequence_bytes(&f.m, 80);
    e = fake_engine(&f, &o, NULL);
    a = fake_wait(fake_ask(e, &(fake_question){1, 200, NULL, NULL, 0, 0}));
    assert_int_equal(a.status, VLM_LIMIT);
    assert_int_equal(atomic_load(&f.forwards), 10);
    a = fake_wait(fake_ask(e, &(fake_question){1, 60, NULL, NULL, 0, 500}));
    assert_string_equal(a.result.finish_reason, "length");
    assert_true(a.result.token_count >= 20 && a.result.token_count < 80);
    vlm_result_clear(&a.result);
    vlm_engine_free(e);
}

static void cancelled(void **state)
{
    (void)state;
    fake_model f;
    fake_init(&f, false, false);
    atomic_store(&f.slowness_us, 500);
    vlm_engine *e = fake_engine(&f, NULL, NULL);
    vlm_request *r = fake_ask(e, &(fake_question){1, 50, ".#", NULL, 0, 1500});
    vlm_request *beside = fake_ask(e, &mixed[5]);
    vlm_event event;
    assert_int_equal(vlm_request_next(r, &event, 5000), 1);
    assert_int_equal(event.type, VLM_EVENT_STARTED);
    assert_int_equal(event.usage.prompt_tokens, 50);
    assert_int_equal(vlm_request_next(r, &event, 5), 0);          /* no token events were asked for */
    vlm_request_cancel(r);
    assert_int_equal(vlm_request_next(r, &event, 5000), 1);
    assert_int_equal(event.type, VLM_EVENT_DONE);
    assert_string_equal(event.finish_reason, "cancelled");
    assert_int_equal(vlm_request_next(r, &event, 5000), -1);
    vlm_request_free(r);
    fake_reply a = fake_wait(beside);
    fake_expect(&f.m, &mixed[5], &a);
    vlm_result_clear(&a.result);

    vlm_request_options o = fake_options(&(fake_question){.max_tokens = 1500});
    o.timeout_seconds = 0.02;
    a = fake_wait(fake_ask_with(e, &mixed[4], &o, NULL));
    assert_string_equal(a.result.finish_reason, "timeout");
    assert_true(a.result.token_count < 1500);
    vlm_result_clear(&a.result);

    vlm_request_free(fake_ask(e, &(fake_question){3, 50, NULL, NULL, 0, 1500}));       /* freed while it runs */
    vlm_engine_reset_caches(e);
    while (fake_counters(e).running || fake_counters(e).pages.used) {             /* everything has come back */
        vlm_engine_reset_caches(e);
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
    r = fake_ask(e, &(fake_question){4, 50, NULL, NULL, 0, 1500});
    vlm_request_free(r);
    vlm_engine_free(e);                                           /* while something may still run */
}

/* An encoding that nobody waits for any more is given up; one that somebody else wants goes on. */
static void cancelled_encoding(void **state)
{
    (void)state;
    fake_model f;
    fake_init(&f, false, false);
    atomic_store(&f.stages, 100000);
    vlm_engine *e = fake_engine(&f, NULL, NULL);
    fake_question q = {1, 50, ".#", NULL, 0, 0};
    vlm_request *r = fake_ask(e, &q), *same = fake_ask(e, &q);
    while (!atomic_load(&f.encodes)) nanosleep(&(struct timespec){0, 1000000}, NULL);
    vlm_request_free(r);
    vlm_request_free(same);
    while (vision_get_stats(e->vision).entries) nanosleep(&(struct timespec){0, 1000000}, NULL);

    atomic_store(&f.stages, 200);
    r = fake_ask(e, &q);
    same = fake_ask(e, &q);
    vlm_request_free(r);
    fake_reply a = fake_wait(same);
    fake_expect(&f.m, &q, &a);
    assert_int_equal(atomic_load(&f.encodes), 2);
    vlm_result_clear(&a.result);
    vlm_engine_free(e);
}

/* Neither a long encoding nor a long prompt holds up a short request that comes later. That is seen in times, and the machine may be busy with
 * other things: a stall would show every time, so one try of several without is enough. */
static bool overtakes(vlm_engine *e, fake_model *f, const fake_question *slow, const fake_question *fast, bool encodes)
{
    int before = atomic_load(&f->encodes);
    vlm_request *first = fake_ask(e, slow);
    while (encodes && atomic_load(&f->encodes) == before) nanosleep(&(struct timespec){0, 1000000}, NULL);
    fake_reply a = fake_wait(fake_ask(e, fast)), b = fake_wait(first);
    fake_expect(&f->m, fast, &a);
    bool quick = a.result.usage.total_seconds < (encodes ? b.result.usage.encode_seconds : b.result.usage.total_seconds) / 2;
    vlm_result_clear(&a.result);
    vlm_result_clear(&b.result);
    return quick;
}

static void nothing_stalls(void **state)
{
    (void)state;
    fake_model f;
    fake_init(&f, false, false);
    atomic_store(&f.stages, 3000);
    vlm_engine_options o = vlm_engine_options_default();
    o.step_tokens = 64;
    vlm_engine *e = fake_engine(&f, &o, NULL);
    fake_question picture = {1, 50, ".#", NULL, 0, 5}, longer = {2, 1900, NULL, NULL, 0, 1}, shorter = {3, 40, NULL, NULL, 0, 8};
    bool quick = false;
    for (int i = 0; i < 8 && !quick; i++) {
        vlm_engine_reset_caches(e);
        quick = overtakes(e, &f, &picture, &shorter, true);
    }
    assert_true(quick);

    shorter.seed = 4;
    atomic_store(&f.slowness_us, 1000);           /* some 60 steps against 10 */
    quick = false;
    for (int i = 0; i < 8 && !quick; i++) {
        vlm_engine_reset_caches(e);
        quick = overtakes(e, &f, &longer, &shorter, false);
    }
    assert_true(quick);
    vlm_engine_free(e);
}

static void queue_is_limited(void **state)
{
    (void)state;
    fake_model f;
    fake_init(&f, false, false);
    atomic_store(&f.slowness_us, 20000);
    vlm_engine_options o = vlm_engine_options_default();
    o.max_sequences = 1;
    o.max_queue = 3;
    vlm_engine *e = fake_engine(&f, &o, NULL);
    vlm_request *r[8];
    int taken = 0;
    for (int i = 0; i < 8; i++) {
        prompt p = fake_prompt(&f.m, i, 20, NULL);
        vlm_error error = {0};
        vlm_request_options options = fake_options(&(fake_question){.max_tokens = 10});
        r[i] = engine_submit(e, &options, &(engine_extra){.prompt = &p}, &error);
        if (r[i]) taken++;
        else assert_int_equal(error.code, VLM_BUSY);
    }
    assert_true(taken >= 3 && taken < 8);
    for (int i = 0; i < 8; i++) vlm_request_free(r[i]);
    vlm_engine_free(e);
}

/* Higher priority first; a long row of those does not starve the others. */
static void priorities(void **state)
{
    (void)state;
    fake_model f;
    fake_init(&f, false, false);
    atomic_store(&f.slowness_us, 3000);
    vlm_engine_options o = vlm_engine_options_default();
    o.max_sequences = 1;
    vlm_engine *e = fake_engine(&f, &o, NULL);
    vlm_request *first = fake_ask(e, &(fake_question){1, 20, NULL, NULL, 0, 20});
    vlm_request *low = fake_ask(e, &(fake_question){2, 20, NULL, NULL, 0, 5}), *high = fake_ask(e, &(fake_question){3, 20, NULL, NULL, 5, 5});
    fake_reply a = fake_wait(first), b = fake_wait(low), c = fake_wait(high);
    assert_true(c.result.usage.total_seconds < b.result.usage.total_seconds);
    vlm_result_clear(&a.result);
    vlm_result_clear(&b.result);
    vlm_result_clear(&c.result);
    vlm_engine_free(e);
}

/* A request that makes the model fail takes nobody with it. */
static void failures_stay_at_home(void **state)
{
    (void)state;
    FOR_MODELS(f) {
        atomic_store(&f.slowness_us, 200);
        vlm_engine *e = fake_engine(&f, NULL, NULL);
        vlm_request *r[MIXED];
        for (int i = 0; i < MIXED; i++) r[i] = fake_ask(e, &mixed[i]);
        prompt p = fake_prompt(&f.m, 50, 80, NULL);
        p.ids.id[70] = FAKE_POISON;
        vlm_request_options o = fake_options(&mixed[0]);
        vlm_request *bad = engine_submit(e, &o, &(engine_extra){.prompt = &p}, NULL);
        atomic_store(&f.fail_forward, 9);         /* and one step fails for no reason of its own */
        fake_reply a = fake_wait(bad);
        assert_int_equal(a.status, VLM_INTERNAL);
        int failed = 0;
        for (int i = 0; i < MIXED; i++) {
            a = fake_wait(r[i]);
            if (a.status) { failed++; continue; }                 /* it may have been alone in that step */
            fake_expect(&f.m, &mixed[i], &a);
            vlm_result_clear(&a.result);
        }
        assert_true(failed <= 1);
        vlm_engine_free(e);
    }
}

/* Asked for, long work says how far it is. */
static void progress(void **state)
{
    (void)state;
    fake_model f;
    fake_init(&f, false, false);
    atomic_store(&f.stages, 2500);
    vlm_engine_options eo = vlm_engine_options_default();
    eo.prefill_chunk = 10;
    vlm_engine *e = fake_engine(&f, &eo, NULL);
    fake_question q = {1, 600, ".#", NULL, 0, 2};
    vlm_request_options o = fake_options(&q);
    o.progress = 1;
    atomic_store(&f.slowness_us, 5000);
    vlm_request *r = fake_ask_with(e, &q, &o, NULL);
    vlm_event event;
    int encode = 0, prefill = 0;
    while (vlm_request_next(r, &event, -1) == 1) {
        if (event.type != VLM_EVENT_PROGRESS) continue;
        assert_true(event.progress_done < event.progress_total);
        encode += !strcmp(event.progress_what, "encode");
        prefill += !strcmp(event.progress_what, "prefill");
    }
    assert_true(encode >= 1 && prefill >= 1 && encode + prefill < 100);
    vlm_request_free(r);
    vlm_engine_free(e);
}

typedef struct seen { int rows, cached, logits, taps; uint64_t last; } seen;
static void see_rows(void *user, int media, const media_rows *rows, bool was_cached)
{
    seen *s = user;
    s->rows++;
    s->cached += was_cached;
    assert_int_equal(rows->cols, FAKE_HIDDEN);
}
static void see_logits(void *user, int step, const float *logits, int vocab)
{
    seen *s = user;
    assert_int_equal(step, s->logits++);
    assert_int_equal(vocab, FAKE_VOCAB);
}
static void see_tap(void *user, const char *name, int layer, const float *row, int64_t cols)
{
    seen *s = user;
    s->taps++;
    assert_string_equal(name, "final");
    memcpy(&s->last, row, sizeof s->last);
}

static void probes(void **state)
{
    (void)state;
    fake_model f;
    fake_init(&f, false, false);
    vlm_engine *e = fake_engine(&f, NULL, &(engine_tuning){.preempt_every = 4});
    for (int round = 0; round < 2; round++) {
        seen s = {0};
        engine_probe probe = {.rows = see_rows, .logits = see_logits, .tap = see_tap, .user = &s};
        vlm_request_options o = fake_options(&mixed[7]);
        fake_reply a = fake_wait(fake_ask_with(e, &mixed[7], &o, &probe));
        fake_expect(&f.m, &mixed[7], &a);
        assert_int_equal(s.logits, ANSWER);
        assert_int_equal(s.taps, 1);
        assert_int_equal(s.rows, round ? 0 : 3);                  /* all under the cached prefix the second time */
        prompt p = fake_prompt(&f.m, mixed[7].seed, mixed[7].n, mixed[7].media);
        assert_true(s.last == fake_reference(&f.m, &p, p.ids.id, (int)p.ids.count));
        prompt_free(&p);
        vlm_result_clear(&a.result);
    }
    char *stats = vlm_engine_stats(e, NULL);
    json_t *o = json_loads(stats, 0, NULL);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(o, "requests"), "finished")), 2);
    json_decref(o);
    vlm_free(stats);
    vlm_engine_free(e);
}

/* ---- tokens that are known before they are computed ---- */

/* After some steps the next ones are decided: at the start, single ones, and rows longer than a chunk. */
static int forced_after(int step, int seed)
{
    static const int counts[] = {3, 0, 0, 0, 1, 0, 0, 12, 0, 2};
    return step == 0 && seed % 2 ? 0 : counts[step % 10];
}

static int32_t forced_token(int step, int seed) { return (int32_t)(2 + fake_mix((uint64_t)(step * 77 + seed)) % 90); }

static int force(void *user, int step, int32_t *token, int most)
{
    int seed = *(const int *)user, count = forced_after(step, seed);
    if (count > most) count = most;
    for (int i = 0; i < count; i++) token[i] = forced_token(step + i, seed);
    return count;
}

/* The answer and its log-probabilities, token by token. */
static void forced_reference(const vlm_model *m, const fake_question *q, int32_t *out, float *logprob)
{
    prompt p = fake_prompt(m, q->seed, q->n, q->media);
    int np = (int)p.ids.count, left = forced_after(0, q->seed);
    int32_t *tokens = calloc((size_t)(np + ANSWER), sizeof *tokens);
    memcpy(tokens, p.ids.id, (size_t)np * sizeof *tokens);
    for (int i = 0; i < ANSWER; i++) {
        uint64_t final = fake_reference(m, &p, tokens, np + i);
        float logits[FAKE_VOCAB];
        double total = 0;
        fake_logits(final, logits);
        for (int k = 0; k < FAKE_VOCAB; k++) total += exp(logits[k]);
        bool drawn = !left;
        out[i] = tokens[np + i] = left ? forced_token(i, q->seed) : fake_greedy(final);
        logprob[i] = (float)(logits[out[i]] - log(total));
        if (left) left--;
        if (!left && (drawn || forced_after(i + 1, q->seed))) left = forced_after(i + 1, q->seed);
    }
    free(tokens);
    prompt_free(&p);
}

typedef struct heard { int n; int32_t token[ANSWER]; float logprob[ANSWER]; } heard;
static int hear(const vlm_event *event, void *user)
{
    heard *h = user;
    if (event->type != VLM_EVENT_TOKEN) return 0;
    assert_true(h->n < ANSWER);
    h->token[h->n] = event->token;
    h->logprob[h->n++] = event->logprob;
    return 0;
}

static void forced_round(fake_model *f, const vlm_engine_options *o, const engine_tuning *tuning, bool logprobs)
{
    enum { N = 6 };
    vlm_engine *e = fake_engine(f, o, tuning);
    for (int round = 0; round < 2; round++) {
        vlm_request *r[N];
        engine_probe probe[N];
        int seed[N];
        for (int i = 0; i < N; i++) {
            seed[i] = mixed[i + 4].seed;
            probe[i] = (engine_probe){.force = force, .user = &seed[i]};
            vlm_request_options options = fake_options(&mixed[i + 4]);
            options.max_tokens = ANSWER;
            options.sampling.logprobs = logprobs;
            r[i] = fake_ask_with(e, &mixed[i + 4], &options, &probe[i]);
        }
        for (int i = 0; i < N; i++) {
            vlm_result result;
            vlm_error error = {0};
            heard h = {0};
            int32_t wanted[ANSWER];
            float logprob[ANSWER];
            if (vlm_request_collect(r[i], hear, &h, &result, &error)) fail_msg("%s", error.message);
            forced_reference(&f->m, &mixed[i + 4], wanted, logprob);
            assert_int_equal(result.token_count, ANSWER);
            assert_int_equal(result.usage.completion_tokens, ANSWER);
            for (int k = 0; k < ANSWER; k++)
                if (result.tokens[k] != wanted[k]) fail_msg("question %d, token %d: %d, not %d", i, k, result.tokens[k], wanted[k]);
            assert_int_equal(h.n, logprobs ? ANSWER : 0);
            for (int k = 0; k < h.n; k++) {
                assert_int_equal(h.token[k], wanted[k]);
                assert_true(fabsf(h.logprob[k] - logprob[k]) < 1e-4f);
            }
            vlm_result_clear(&result);
            vlm_request_free(r[i]);
        }
    }
    vlm_engine_free(e);
}

static void forced(void **state)
{
    (void)state;
    FOR_MODELS(f)
        for (int way = 0; way < 8; way++) {
            vlm_engine_options o = vlm_engine_options_default();
            o.prefill_chunk = way & 1 ? 7 : 0;
            if (way & 2) o.kv_bytes = engine_sequence_bytes(&f.m, 300) * 3 / 2;
            engine_tuning tuning = {.preempt_every = way & 4 ? 3 : 0};
            forced_round(&f, &o, &tuning, false);
            forced_round(&f, &o, &tuning, true);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alone), cmocka_unit_test(chunks), cmocka_unit_test(batches), cmocka_unit_test(cached),
        cmocka_unit_test(not_shared), cmocka_unit_test(preempted), cmocka_unit_test(crowded), cmocka_unit_test(one_encoding),
        cmocka_unit_test(too_long), cmocka_unit_test(cancelled), cmocka_unit_test(cancelled_encoding), cmocka_unit_test(nothing_stalls), cmocka_unit_test(queue_is_limited), cmocka_unit_test(priorities),
        cmocka_unit_test(failures_stay_at_home), cmocka_unit_test(probes), cmocka_unit_test(progress), cmocka_unit_test(forced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
