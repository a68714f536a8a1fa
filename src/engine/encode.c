/* encode.c - media encoders, a slice at a time between decoder steps.
 *
 * A slice lasts about as long as the last decoder step, in whole stages, at least one: so a huge image slows running answers by
 * half at most, and never stops them. Encodings take turns, so that a small image is not held up by a large one. An encoding
 * belongs to the vision cache's entry, not to the request that began it; it goes on as long as anybody waits for it. */
#include <string.h>

#include "base/err.h"
#include "base/thread.h"
#include "engine/core.h"

enum { SLICE_LEAST_MS = 5, SLICE_MOST_MS = 50 };

typedef struct encoder_tap { tap tap; const engine_probe *probe; int media; } encoder_tap;

static void see(tap *t, const char *name, int layer, tensor x)
{
    const encoder_tap *own = t->user;
    own->probe->encoder_tap(own->probe->user, own->media, name, layer, x);
}

/* A prompt's encoder is a language model: what changes one may change it. */
static vision_entry *claim(vlm_engine *e, const vlm_request *r, int media)
{
    digest all;
    media_input *in = r->prompt.media[media];
    if (in->kind == MEDIA_PROMPT && !adapters_digest(&e->m->adapters, r->seq.adapters, false, &all)) return NULL;
    return vision_claim(e->vision, in, in->kind == MEDIA_PROMPT ? &all : &r->media_adapters, r->tenant);
}

/* The rows of media in a prompt that is read by an encoder; they stay as long as it works. */
static bool show(vlm_engine *e, const vlm_request *r, int media, encoding *job)
{
    const prompt_reading *p = r->prompt.media[media]->family;
    embed_rows *embeds = arena_alloc(&job->memory, (size_t)(p->n_spans + 1) * sizeof *embeds);
    job->shown = arena_alloc(&job->memory, (size_t)(p->n_spans + 1) * sizeof *job->shown);
    job->job.embeds = embeds;
    if (!embeds || !job->shown) return false;
    for (int i = 0; i < p->n_spans; i++) {
        const media_span *span = &p->spans[i];
        vision_entry *pin = claim(e, r, span->media);
        if (!pin) return false;
        job->shown[job->n_shown++] = pin;
        embeds[job->job.n_embeds++] = (embed_rows){.first = span->first, .count = span->count, .rows = vision_rows(pin), .offset = span->row,
                                                   .kind = r->prompt.media[span->media]->kind};
    }
    return true;
}

static bool begin(vlm_engine *e, vlm_request *r, int media)
{
    encoding *job = MEM_NEW(encoding);
    if (!job) return err_memory(&r->failure, sizeof *job);
    vision_begin(r->prompt.rows[media], r->prompt.media[media]);
    job->entry = r->prompt.rows[media];
    if (r->prompt.media[media]->kind == MEDIA_PROMPT && !show(e, r, media, job)) {
        vision_fail(job->entry);
        for (int i = 0; i < job->n_shown; i++) vision_release(job->shown[i]);
        arena_free(&job->memory);
        mem_free(job);
        return err_memory(&r->failure, sizeof *job);
    }
    job->wanted_by = r;
    job->media = media;
    job->adapters = r->seq.adapters;
    r->encoded[media] = 1;
    encoding **end = &e->encodings;
    while (*end) end = &(*end)->next;
    *end = job;
    return true;
}

/* The probe sees rows once. */
static void show_rows(vlm_request *r, int media)
{
    if (r->probe && r->probe->rows && !r->rows_shown[media])
        r->probe->rows(r->probe->user, media, vision_rows(r->prompt.rows[media]), !r->encoded[media]);
    r->rows_shown[media] = 1;
}

static bool ask(vlm_engine *e, vlm_request *r, int media, bool *ready);

/* The media that a prompt shows to its encoder come first. */
static bool ask_shown(vlm_engine *e, vlm_request *r, int media, bool *ready)
{
    const prompt_reading *p = r->prompt.media[media]->family;
    *ready = true;
    for (int i = 0; i < p->n_spans; i++) {
        bool one;
        if (!ask(e, r, p->spans[i].media, &one)) return false;
        if (one) show_rows(r, p->spans[i].media);
        *ready = *ready && one;
    }
    return true;
}

/* Rows there, or asked for; false with r->failure set when memory ran out. */
static bool ask(vlm_engine *e, vlm_request *r, int media, bool *ready)
{
    vision_entry **entry = &r->prompt.rows[media];
    *ready = false;
    if (!*entry && !(*entry = claim(e, r, media))) return err_memory(&r->failure, 256);
    vision_state state = vision_get_state(*entry);
    bool begins = state == VISION_NEW || state == VISION_FAILED, shown = true;
    if (begins && r->prompt.media[media]->kind == MEDIA_PROMPT && (!ask_shown(e, r, media, &shown) || !shown)) return !r->failure.code;
    if ((state == VISION_NEW || state == VISION_FAILED) && !begin(e, r, media)) return false;
    *ready = state == VISION_READY;
    if (!*ready) return true;
    if (vision_input(*entry) != r->prompt.media[media]) media_input_drop(r->prompt.media[media]);      /* its pixels are not needed */
    if (vision_rows(*entry)->count == media_input_rows(r->prompt.media[media])) return true;
    return err_set(&r->failure, VLM_INTERNAL, "cached rows (%d) do not fit the medium (%d)", vision_rows(*entry)->count,
                   media_input_rows(r->prompt.media[media]));
}

bool engine_media_ready(void *engine, sequence *seq, int media)
{
    vlm_engine *e = engine;
    vlm_request *r = seq->owner;
    bool ready;
    if (r->failure.code || !ask(e, r, media, &ready) || !ready) return false;
    show_rows(r, media);
    return true;
}

void engine_want_media(vlm_engine *e, vlm_request *r, int cached)
{
    bool ready, remembered = scheduler_remembers(&e->scheduler, &r->seq);
    const memory_plan *memory = &r->prompt.memory;
    for (int i = 0; i < memory->n_parts && !remembered && !r->failure.code; i++) ask(e, r, memory->parts[i].media, &ready);
    for (int i = 0; i < r->prompt.n_spans && !r->failure.code; i++)
        if (r->prompt.spans[i].first + r->prompt.spans[i].count > cached) ask(e, r, r->prompt.spans[i].media, &ready);
}

static void unlink_encoding(vlm_engine *e, encoding *job)
{
    for (encoding **p = &e->encodings; *p; p = &(*p)->next)
        if (*p == job) { *p = job->next; break; }
    for (int i = 0; i < job->n_shown; i++) vision_release(job->shown[i]);
    arena_free(&job->memory);
    mem_free(job);
}

void engine_forget_media(vlm_engine *e, vlm_request *r)
{
    for (int i = 0; i < r->prompt.n_media; i++) {
        vision_release(r->prompt.rows ? r->prompt.rows[i] : NULL);
        if (r->prompt.rows) r->prompt.rows[i] = NULL;
    }
    for (encoding *job = e->encodings, *next; job; job = next) {
        next = job->next;
        if (job->wanted_by == r) job->wanted_by = NULL;
        if (vision_wanted(job->entry)) continue;
        vision_fail(job->entry);
        unlink_encoding(e, job);
    }
}

void engine_drop_encodings(vlm_engine *e)
{
    while (e->encodings) {
        vision_fail(e->encodings->entry);
        unlink_encoding(e, e->encodings);
    }
}

/* The encoder's failure is the failure of everybody who waits for it. */
static void fail(vlm_engine *e, encoding *job, const vlm_error *error)
{
    vision_entry *entry = job->entry;
    for (vlm_request *r = e->active; r; r = r->next)
        for (int i = 0; i < r->prompt.n_media; i++)
            if (r->prompt.rows[i] == entry && !r->failure.code) {
                r->failure = *error;
                err_prefix(&r->failure, "encoding %s %d", media_kind_name(r->prompt.media[i]->kind), i + 1);
            }
    unlink_encoding(e, job);
    vision_fail(entry);
}

/* All stages are done: the rows move from the job's memory into the cache. */
static void finish(vlm_engine *e, encoding *job, run *r)
{
    tensor x = job->job.rows;
    const media_input *in = vision_input(job->entry);
    int n = media_input_rows(in);
    media_rows rows = {.count = n, .cols = (int)x.cols, .levels = n ? (int)(x.rows / n) : 1};
    size_t count = 0;
    if (x.rows != (int64_t)rows.levels * n || (x.rows && (!x.data || x.type != DT_F32)))
        run_fail(r, VLM_INTERNAL, "encoder gave %lld rows for %d tokens", (long long)x.rows, n);
    else if (!mem_mul((size_t)x.rows, (size_t)x.cols * sizeof(float), &count) || !(rows.data = mem_aligned(count)))
        run_fail(r, VLM_MEMORY, "out of memory (%zu bytes of embedding rows)", count);
    if (!run_ok(r)) {
        fail(e, job, &r->error);
        return;
    }
    for (int64_t i = 0; i < x.rows; i++) memcpy(rows.data + i * x.cols, tensor_row(x, i), (size_t)x.cols * sizeof(float));
    vision_ready(job->entry, rows);
    e->counters.encoded++;
    unlink_encoding(e, job);
}

/* One stage; false when the encoding is over. */
static bool stage(vlm_engine *e, encoding *job)
{
    const vlm_model *m = e->m;
    vlm_request *by = job->wanted_by;
    encoder_tap watch = {.tap = {.see = see}, .probe = by ? by->probe : NULL, .media = job->media};
    watch.tap.user = &watch;
    arena_reset(&e->scratch);
    run r = {.dev = (device *)&m->dev, .scratch = &e->scratch, .adapters = job->adapters,
             .tap = watch.probe && watch.probe->encoder_tap ? &watch.tap : NULL};
    pool_enter(m->dev.pool);
    if (!job->started) {
        job->job.in = vision_input(job->entry);
        job->job.memory = &job->memory;
        job->started = true;
        if (!m->arch->encode_start) run_fail(&r, VLM_UNSUPPORTED, "this model has no encoder");
        else if (!m->arch->encode_start(&r, m, &job->job)) run_fail(&r, VLM_INTERNAL, "encoder did not start");
    } else {
        int before = job->job.stage;
        if (!m->arch->encode(&r, m, &job->job)) run_fail(&r, VLM_INTERNAL, "encoder stage %d failed", before);
        if (run_ok(&r) && job->job.stage <= before) job->job.stage = before + 1;
    }
    pool_leave(m->dev.pool);
    if (!run_ok(&r)) {
        fail(e, job, &r.error);
        return false;
    }
    if (job->job.stage < job->job.stages) return true;
    finish(e, job, &r);
    return false;
}

bool engine_encode(vlm_engine *e)
{
    encoding *job = e->encodings;
    if (!job) return false;
    double start = engine_now(), slice = e->step_seconds, before = start;
    if (slice < SLICE_LEAST_MS * 1e-3) slice = SLICE_LEAST_MS * 1e-3;
    if (slice > SLICE_MOST_MS * 1e-3) slice = SLICE_MOST_MS * 1e-3;
    for (int n = 0; job && (e->tuning.encode_stages ? n < e->tuning.encode_stages : n == 0 || before - start < slice); n++) {
        vlm_request *by = job->wanted_by;
        bool goes_on = stage(e, job);
        double now = engine_now();
        if (by) by->usage.encode_seconds += now - before;
        if (by && goes_on) request_emit_progress(by, "encode", (uint64_t)job->job.stage, (uint64_t)job->job.stages);
        before = now;
        if (!goes_on) job = e->encodings;
    }
    if (job && job->next && job == e->encodings) {            /* the next one's turn */
        encoding **end = &e->encodings;
        while (*end) end = &(*end)->next;
        e->encodings = job->next;
        job->next = NULL;
        *end = job;
    }
    e->counters.encode_seconds += before - start;
    return true;
}
