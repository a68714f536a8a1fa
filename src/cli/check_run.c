/* check_run.c - see check.h: all cases of a folder through an engine, watched by its probe.
 *
 *   solo      one request at a time, no caches
 *   batch     all in one ragged batch; each joins when the one before it has produced a few tokens
 *   chunk     as solo, prompts in chunks of 7 tokens
 *   cached    each case twice with the vision cache, then twice with the prefix cache besides; the second runs must hit them
 *   preempt   as batch, with so few pages that sequences are preempted */
#include "cli/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

enum { MAX_MEDIA = 32, WAIT_MS = 120000 };

/* Everything seen of one request. The probe writes on the engine's thread; it is read after the last event. */
typedef struct watched {
    const check_case *c;
    engine_probe probe;
    vlm_request *request;
    struct { float *data; int count, cols, levels; media_kind kind; } rows[MAX_MEDIA];
    int n_media, layers, hidden, steps, vocab;
    bool reusable;                 /* a page of the prompt can come from the prefix cache */
    float *states, *logits;        /* [layers + 1][hidden], [steps][vocab] */
    uint8_t *state_seen, *step_seen;
    int last_step;
    int32_t last_best;             /* largest logit of the last step: the end token, which comes with no event of its own */
    ids answer;
    vlm_usage usage;
    vlm_error error;
    bool failed, done, beams;
    int skipped;                   /* the golden answer of beams begins with the decoder's first token */
} watched;

const char *mode_name(check_mode m)
{
    static const char *const names[] = {"solo", "batch", "chunk", "cached", "preempt"};
    return names[m];
}

/* ---- the probe --------------------------------------------------------------------------------------------------------- */

static void see_rows(void *user, int media, const media_rows *rows, bool cached)
{
    (void)cached;
    watched *w = user;
    if (media < 0 || media >= MAX_MEDIA) return;
    size_t bytes = (size_t)rows->levels * (size_t)rows->count * (size_t)rows->cols * sizeof(float);
    mem_free(w->rows[media].data);
    w->rows[media].data = mem_aligned(bytes ? bytes : 1);
    if (!w->rows[media].data) return;
    memcpy(w->rows[media].data, rows->data, bytes);
    w->rows[media].count = rows->count;
    w->rows[media].cols = rows->cols;
    w->rows[media].levels = rows->levels;
}

static void see_logits(void *user, int step, const float *logits, int vocab)
{
    watched *w = user;
    w->last_step = step;
    w->last_best = 0;
    for (int32_t i = 1; i < vocab; i++)
        if (logits[i] > logits[w->last_best]) w->last_best = i;
    if (step < 0 || step >= w->steps || vocab != w->vocab) return;
    memcpy(w->logits + (size_t)step * (size_t)vocab, logits, (size_t)vocab * sizeof *logits);
    w->step_seen[step] = 1;
}

static void see_tap(void *user, const char *name, int layer, const float *row, int64_t cols)
{
    watched *w = user;
    if (strcmp(name, "hidden") || layer < 0 || layer > w->layers || cols != w->hidden) return;
    memcpy(w->states + (size_t)layer * (size_t)cols, row, (size_t)cols * sizeof *row);
    w->state_seen[layer] = 1;
}

static void forget(watched *w)
{
    if (w->request) vlm_request_free(w->request);
    for (int i = 0; i < MAX_MEDIA; i++) mem_free(w->rows[i].data);
    mem_free(w->states);
    mem_free(w->logits);
    mem_free(w->state_seen);
    mem_free(w->step_seen);
    ids_free(&w->answer);
    *w = (watched){0};
}

static bool watch(watched *w, const vlm_model *m, const check_suite *s, const check_case *c)
{
    const stored_tensor *logits = suite_golden(s, c, "logits");
    *w = (watched){.c = c, .layers = m->layers, .hidden = m->hidden, .vocab = m->vocab};
    w->probe = (engine_probe){.rows = see_rows, .logits = see_logits, .tap = see_tap, .user = w};
    w->steps = logits && logits->dims == 2 ? (int)logits->dim[0] : 0;
    w->states = MEM_ARRAY((size_t)(m->layers + 1) * (size_t)m->hidden, float);
    w->state_seen = MEM_ARRAY((size_t)m->layers + 1, uint8_t);
    w->logits = MEM_ARRAY((size_t)w->steps * (size_t)m->vocab + 1, float);
    w->step_seen = MEM_ARRAY((size_t)w->steps + 1, uint8_t);
    if (w->states && w->state_seen && w->logits && w->step_seen) return true;
    w->failed = w->done = true;
    return err_memory(&w->error, 0);
}

/* ---- one request ---------------------------------------------------------------------------------------------------------- */

/* Can a prefix be taken over? It ends at a page's end before the last token, and not inside a block of tokens that see each other. */
static bool has_reusable_prefix(const prompt *p)
{
    for (int end = KV_PAGE_TOKENS; end < (int)prompt_tokens(p)->count; end += KV_PAGE_TOKENS)
        if (!p->see_from || p->see_from[end] == end) return true;
    return false;
}

static void submit(watched *w, vlm_engine *engine, const vlm_model *m, const check_suite *s)
{
    prompt p = {0};
    vlm_request_options o = vlm_request_options_default();
    engine_extra extra = {.probe = &w->probe, .prompt = &p, .media_dir = s->media_dir};
    const json_t *told = json_object_get(w->c->json, "generate"), *beams = json_object_get(told, "num_beams"), *early = json_object_get(told, "early_stopping");
    o.num_beams = beams ? (int)json_integer_value(beams) : 1;
    if (json_object_get(told, "length_penalty")) o.length_penalty = (float)json_number_value(json_object_get(told, "length_penalty"));
    if (early) o.early_stopping = json_is_true(early) ? 1 : json_is_string(early) ? 2 : 0;
    int most = (int)json_integer_value(json_object_get(told, "max_new_tokens"));
    o.max_tokens = (int)w->c->answer.count;
    const json_t *ends = json_object_get(told, "eos");
    char *ids_text = ends ? json_dumps(ends, 0) : NULL;
    o.ignore_eos = (!s->stops && o.num_beams == 1) || ids_text;
    o.stop_token_ids = ids_text;
    w->beams = o.num_beams > 1;
    if (w->beams && m->arch->reads_prompt && w->c->answer.count && w->c->answer.id[0] == m->start) w->skipped = 1;
    o.max_tokens = most ? most : o.max_tokens - w->skipped;
    o.sampling.temperature = 0;
    o.adapter = json_string_value(json_object_get(w->c->json, "adapter"));
    o.sampling.logprobs = 1;                                         /* an event for each token */
    w->failed = !case_prompt(m, s, w->c, &p, &w->error);
    for (int i = 0; !w->failed && i < p.n_media && i < MAX_MEDIA; i++) w->rows[i].kind = p.media[i]->kind, w->n_media = i + 1;
    w->reusable = !w->failed && has_reusable_prefix(&p);
    if (!w->failed) w->failed = !(w->request = engine_submit(engine, &o, &extra, &w->error));
    w->done = w->failed;
    free(ids_text);
    prompt_free(&p);
}

/* Reads events until `tokens` tokens have come, or the end. */
static void follow(watched *w, size_t tokens)
{
    vlm_event e;
    while (!w->done && w->answer.count < tokens) {
        int got = vlm_request_next(w->request, &e, WAIT_MS);
        if (got == 0) {
            w->failed = true;
            err_set(&w->error, VLM_INTERNAL, "no event for %d seconds", WAIT_MS / 1000);
            vlm_request_cancel(w->request);
        }
        if (got <= 0) {
            w->done = true;
        } else if (e.type == VLM_EVENT_TOKEN) {
            ids_add(&w->answer, e.token);
        } else if (e.type == VLM_EVENT_DONE) {
            w->usage = e.usage;
            bool ended = e.finish_reason && !strcmp(e.finish_reason, "stop") && !e.stop_string;
            if (w->beams && e.token >= 0) ids_add(&w->answer, e.token);
            else if (ended && (size_t)w->last_step == w->answer.count) ids_add(&w->answer, w->last_best);
        } else if (e.type == VLM_EVENT_ERROR) {
            w->failed = true;
            w->usage = e.usage;
            if (e.error) w->error = *e.error;
        }
    }
}

static void finish(watched *w) { follow(w, SIZE_MAX); }

/* ---- comparing --------------------------------------------------------------------------------------------------------------- */

/* Rows of all media of a kind, one after the other, level by level: [levels][tokens][cols]. */
static void compare_rows(check_report *r, const check_suite *s, const watched *w, const char *key, media_kind kind, bool deep, double bound)
{
    const stored_tensor *t = suite_golden(s, w->c, key);
    if (!t) return;
    char where[200];
    snprintf(where, sizeof where, "%s/%s", w->c->name, key);
    int64_t count = golden_count(t), n = 0;
    int levels = 0;
    float *want = golden_floats(t), *got = MEM_ARRAY((size_t)count + 1, float);
    /* Families whose videos are pictures: rows of both are "image_features". */
    media_kind other = kind == MEDIA_IMAGE && !suite_golden(s, w->c, deep ? "video_deepstack" : "video_features") ? MEDIA_VIDEO : kind;
    for (int i = 0; i < w->n_media; i++)
        if ((w->rows[i].kind == kind || w->rows[i].kind == other) && w->rows[i].data && w->rows[i].levels > levels) levels = w->rows[i].levels;
    for (int level = deep; want && got && level < (deep ? levels : levels > 0); level++)
        for (int i = 0; i < w->n_media; i++) {
            int64_t size = (int64_t)w->rows[i].count * w->rows[i].cols;
            if ((w->rows[i].kind != kind && w->rows[i].kind != other) || !w->rows[i].data || level >= w->rows[i].levels) continue;
            if (n + size <= count) memcpy(got + n, w->rows[i].data + level * size, (size_t)size * sizeof *got);
            n += size;
        }
    int64_t cols = t->dims > 0 ? t->dim[t->dims - 1] : 0;
    bool all_cached = w->c->memory_rows && w->usage.media_cached == w->usage.media_items;
    bool not_needed = n < count && (w->usage.cached_tokens > 0 || all_cached);       /* the keys and values of these media came from the cache */
    if (not_needed) n = count + 1;
    else if (n != count) check_same(r, STAGE_ENCODER, false, "%s: %lld values came, %lld were expected", where, (long long)n, (long long)count);
    if (!want || !got) check_same(r, STAGE_ENCODER, false, "%s: out of memory", where);
    else if (n == count) check_numbers(r, STAGE_ENCODER, got, want, n, cols, (tolerance){.bound = bound}, where);
    mem_free(want);
    mem_free(got);
}

/* Row by row, each within the bound of its own largest magnitude: the first layer or step that leaves it is named. */
/* A table of three dimensions has all tokens of the prompt; the last one's are compared, but for the last row (states of a model with several
 * streams, of which the last layer's are not what the final norm makes of them). */
static void compare_table(check_report *r, stage which, const check_suite *s, const watched *w, const char *key, const char *unit, const float *got,
                          const uint8_t *seen, int rows, int cols, int more, double bound)
{
    const stored_tensor *t = suite_golden(s, w->c, key);
    if (!t) return;
    float *want = golden_floats(t);
    int64_t tokens = t->dims == 3 ? t->dim[1] : 1;
    int64_t width = t->dims > 0 ? t->dim[t->dims - 1] : 0;           /* the reference may give ids behind the vocabulary logits, too */
    if (t->dims < 2 || t->dims > 3 || t->dim[0] != rows || width < cols || width > cols + more || tokens < 1) {
        check_same(r, which, false, "%s/%s: [%d, %d] came, [%lld, %lld] was expected", w->c->name, key, rows, cols, (long long)t->dim[0],
                   (long long)t->dim[1]);
        rows = 0;
    }
    if (t->dims == 3) rows--;
    if (!want) check_same(r, which, false, "%s/%s: out of memory", w->c->name, key);
    for (int i = 0; want && i < rows; i++) {
        char where[200];
        snprintf(where, sizeof where, "%s/%s %s %d", w->c->name, key, unit, i);
        if (!seen[i]) check_same(r, which, false, "%s did not come", where);
        else check_numbers(r, which, got + (size_t)i * (size_t)cols, want + ((i + 1) * tokens - 1) * width, cols, 0, (tolerance){.bound = bound}, where);
    }
    mem_free(want);
}

static void compare_tokens(check_report *r, const vlm_model *m, const watched *w)
{
    ids rest = w->c->answer;
    rest.id += w->skipped;
    rest.count -= (size_t)w->skipped;
    const ids *got = &w->answer, *want = &rest;
    size_t at = 0;
    while (at < got->count && at < want->count && got->id[at] == want->id[at]) at++;
    int32_t a = at < got->count ? got->id[at] : -1, b = at < want->count ? want->id[at] : -1;
    const char *x = tokenizer_token(m->tok, a), *y = tokenizer_token(m->tok, b);
    check_same(r, STAGE_TOKENS, at == got->count && at == want->count, "case %s: token %zu is %d (%.30s), %d (%.30s) was expected", w->c->name, at, a,
               x ? x : "", b, y ? y : "");
}

static void compare(check_report *r, const vlm_model *m, const check_suite *s, const watched *w, double bound)
{
    if (w->failed) {
        check_same(r, STAGE_TOKENS, false, "case %s: %s", w->c->name, w->error.message);
        return;
    }
    compare_rows(r, s, w, "image_features", MEDIA_IMAGE, false, bound);
    compare_rows(r, s, w, "cross_attention_states", MEDIA_IMAGE, false, bound);
    compare_rows(r, s, w, "encoder_output", MEDIA_PROMPT, false, bound);
    compare_rows(r, s, w, "video_features", MEDIA_VIDEO, false, bound);
    compare_rows(r, s, w, "audio_features", MEDIA_AUDIO, false, bound);
    compare_rows(r, s, w, "image_deepstack", MEDIA_IMAGE, true, bound);
    compare_rows(r, s, w, "video_deepstack", MEDIA_VIDEO, true, bound);
    compare_table(r, STAGE_LAYERS, s, w, "hidden_last", "layer", w->states, w->state_seen, w->layers + 1, w->hidden, 0, bound);
    compare_table(r, STAGE_LOGITS, s, w, "logits", "step", w->logits, w->step_seen, w->steps, w->vocab, m->more_vocab, bound);
    compare_tokens(r, m, w);
}

/* ---- modes ------------------------------------------------------------------------------------------------------------------ */

static vlm_engine *open_engine(vlm_model *m, const check_suite *s, check_mode mode, bool prefix, vlm_error *error)
{
    vlm_engine_options o = vlm_engine_options_default();
    uint64_t largest = 0, all = 0;
    for (int i = 0; i < s->count; i++) {
        uint64_t bytes = engine_sequence_bytes(m, (int)(s->cases[i].prompt.count + s->cases[i].answer.count)) + engine_memory_bytes(m, s->cases[i].memory_rows);
        all += bytes;
        if (bytes > largest) largest = bytes;
    }
    o.kv_bytes = mode == MODE_PREEMPT ? largest + largest / 2 : 2 * all;
    o.prefix_cache = prefix;
    if (mode != MODE_CACHED) o.vision_cache_bytes = 0;
    if (mode == MODE_CHUNK) o.prefill_chunk = 7;
    vlm_engine *engine = vlm_engine_new(m, &o, error);
    if (engine && mode == MODE_PREEMPT) engine_tune(engine, &(engine_tuning){.preempt_every = 3});
    return engine;
}

static void one_by_one(check_report *r, vlm_engine *engine, const vlm_model *m, const check_suite *s, double bound, bool media_again, bool prefix_again)
{
    for (int i = 0; i < s->count; i++) {
        watched w;
        if (watch(&w, m, s, &s->cases[i])) submit(&w, engine, m, s);
        finish(&w);
        compare(r, m, s, &w, bound);
        if (prefix_again && !w.failed && w.reusable)
            check_same(r, STAGE_MODE, w.usage.cached_tokens > 0, "case %s: no token came from the prefix cache", w.c->name);
        if (media_again && !w.failed && w.usage.media_items)
            check_same(r, STAGE_MODE, w.usage.media_cached == w.usage.media_items, "case %s: %d of %d media came from the vision cache", w.c->name,
                       w.usage.media_cached, w.usage.media_items);
        forget(&w);
    }
}

static void together(check_report *r, vlm_engine *engine, const vlm_model *m, const check_suite *s, double bound, bool preempt)
{
    watched *w = MEM_ARRAY((size_t)s->count, watched);
    int preemptions = 0;
    if (!w) check_same(r, STAGE_TOKENS, false, "out of memory");
    for (int i = 0; w && i < s->count; i++) {
        if (watch(&w[i], m, s, &s->cases[i])) submit(&w[i], engine, m, s);
        follow(&w[i], (size_t)(1 + i % 3));
    }
    for (int i = 0; w && i < s->count; i++) {
        finish(&w[i]);
        compare(r, m, s, &w[i], bound);
        preemptions += w[i].usage.preemptions;
    }
    if (preempt && s->count > 1) check_same(r, STAGE_MODE, preemptions > 0, "no sequence was preempted");
    for (int i = 0; w && i < s->count; i++) forget(&w[i]);
    mem_free(w);
}

bool check_run(check_report *r, vlm_model *m, const check_suite *s, check_mode mode, double bound, vlm_error *error)
{
    for (int prefix = 0; prefix <= (mode == MODE_CACHED); prefix++) {
        vlm_engine *engine = open_engine(m, s, mode, prefix, error);
        if (!engine) return false;
        if (mode == MODE_BATCH || mode == MODE_PREEMPT) {
            together(r, engine, m, s, bound, mode == MODE_PREEMPT);
        } else {
            one_by_one(r, engine, m, s, bound, false, false);
            if (mode == MODE_CACHED) one_by_one(r, engine, m, s, bound, true, prefix);
        }
        vlm_engine_free(engine);
    }
    return true;
}
