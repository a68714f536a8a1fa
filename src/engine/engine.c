/* engine.c - vlm_engine: options, memory budget, life, submission, statistics. core.h has the picture. */
#define _DEFAULT_SOURCE                           /* getentropy */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/thread.h"
#include "engine/core.h"
#include "engine/task.h"

enum { STEP_TOKENS = 512, MAX_SEQUENCES = 256, MAX_QUEUE = 4096, SCRATCH_BLOCK = 32 << 20 };
#define KV_LEAST ((uint64_t)64 << 20)

vlm_engine_options vlm_engine_options_default(void)
{
    return (vlm_engine_options){.size = sizeof(vlm_engine_options), .vision_cache_bytes = (uint64_t)256 << 20, .prefix_cache = 1};
}

/* ---- how much memory ---- */

static uint64_t read_number(const char *path, const char *format)
{
    FILE *f = fopen(path, "re");
    char line[256];
    unsigned long long value;
    uint64_t found = UINT64_MAX;
    while (f && found == UINT64_MAX && fgets(line, sizeof line, f))
        if (sscanf(line, format, &value) == 1) found = value;
    if (f) fclose(f);
    return found;
}

/* Half of what is free, for this container or machine. Pages are allocated when they are needed. */
static uint64_t choose_kv_bytes(void)
{
    uint64_t kib = read_number("/proc/meminfo", "MemAvailable: %llu kB"), available = kib == UINT64_MAX ? (uint64_t)1 << 30 : kib << 10;
    uint64_t limit = read_number("/sys/fs/cgroup/memory.max", "%llu"), used = read_number("/sys/fs/cgroup/memory.current", "%llu");
    if (limit != UINT64_MAX && used != UINT64_MAX && limit > used && limit - used < available) available = limit - used;
    return available / 2 > KV_LEAST ? available / 2 : KV_LEAST;
}

uint64_t engine_sequence_bytes(const vlm_model *m, int n_tokens)
{
    pages p;
    if (!pages_init(&p, m->group, m->n_groups, m->state_bytes, 0, false, NULL)) return 0;
    uint64_t bytes = scheduler_bytes(&p, n_tokens, 0, n_tokens);
    pages_free(&p);
    return bytes;
}

static size_t memory_page_bytes(const vlm_model *m) { return m->memory_shape.slots ? kv_page_bytes(&m->memory_shape) : 0; }

uint64_t engine_memory_bytes(const vlm_model *m, int rows)
{
    return (uint64_t)((rows + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS) * memory_page_bytes(m);
}

static bool resolve(const vlm_model *m, const vlm_engine_options *given, vlm_engine_options *o, vlm_error *error)
{
    *o = vlm_engine_options_default();
    if (given) memcpy(o, given, given->size < sizeof *o ? given->size : sizeof *o);
    o->size = sizeof *o;
    if (o->step_tokens < 0 || o->prefill_chunk < 0 || o->max_sequences < 0 || o->max_queue < 0 || o->context < 0)
        return err_set(error, VLM_INVALID, "engine options must not be negative");
    if (!o->step_tokens) o->step_tokens = STEP_TOKENS;
    if (!o->prefill_chunk) o->prefill_chunk = o->step_tokens;
    if (!o->max_sequences) o->max_sequences = MAX_SEQUENCES;
    if (!o->max_queue) o->max_queue = MAX_QUEUE;
    if (!o->context || (m->context && o->context > m->context)) o->context = m->context ? m->context : INT32_MAX / 2;
    if (!o->kv_bytes) o->kv_bytes = choose_kv_bytes();
    return true;
}

/* ---- life ---- */

static void init_builders(vlm_engine *e, builders *b, int max)
{
    b->engine = e;
    b->max = max < 1 ? 1 : max > MAX_BUILDERS ? MAX_BUILDERS : max;
    pthread_cond_init(&b->work, NULL);
}

static void init_locks(vlm_engine *e)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->work, &attributes);
    pthread_cond_init(&e->settled, NULL);
    pthread_condattr_destroy(&attributes);
    init_builders(e, &e->text, 1);
    init_builders(e, &e->media, cpu_count());
}

vlm_engine *vlm_engine_new(vlm_model *m, const vlm_engine_options *options, vlm_error *error)
{
    if (!m || !m->arch || !m->arch->forward) return err_set(error, VLM_UNSUPPORTED, "this model does not generate text"), NULL;
    vlm_engine *e = MEM_NEW(vlm_engine);
    if (!e) return err_memory(error, sizeof *e), NULL;
    e->m = m;
    e->scratch.block_size = 32 << 20;             /* a step's tensors one after the other; what is never touched costs nothing */
    init_locks(e);
    if (!resolve(m, options, &e->options, error)) goto fail;
    const vlm_engine_options *o = &e->options;
    if (getentropy(&e->salt, sizeof e->salt)) { err_set(error, VLM_IO, "no random numbers from the system"); goto fail; }
    if (!pages_init(&e->pages, m->group, m->n_groups, m->state_bytes, o->kv_bytes, o->prefix_cache, error)) goto fail;
    e->pages.bytes[MEMORY_GROUP] = memory_page_bytes(m);
    if (!(e->vision = vision_cache_new(o->vision_cache_bytes, &m->identity, &e->salt, error))) goto fail;
    if (!output_marks_init(&e->marks, m, NULL, error)) goto fail;
    e->scheduler = (scheduler){.pages = &e->pages, .trained = m->trained, .step_tokens = o->step_tokens, .chunk = o->prefill_chunk, .max_running = o->max_sequences,
                               .kinds = m->dev.kinds, .media_ready = engine_media_ready, .user = e};
    e->scratch.block_size = SCRATCH_BLOCK;        /* large: steps of changing sizes share blocks; untouched memory costs nothing */
    e->counters.pages = e->shown.pages = e->pages.stats;
    if (mem_inject() || pthread_create(&e->thread, NULL, engine_main, e)) {
        err_set(error, VLM_MEMORY, "cannot start the engine's thread");
        goto fail;
    }
    e->has_thread = true;
    return e;
fail:
    vlm_engine_free(e);
    return NULL;
}

void vlm_engine_free(vlm_engine *e)
{
    if (!e) return;
    pthread_mutex_lock(&e->lock);
    e->stop = true;
    pthread_cond_signal(&e->work);
    pthread_mutex_unlock(&e->lock);
    builders_stop(e);                             /* their last requests land in the inbox ... */
    if (e->has_thread) pthread_join(e->thread, NULL);
    for (vlm_request *r = e->inbox_first, *next; r; r = next) {      /* ... perhaps after the engine thread looked */
        next = r->next;
        request_emit_done(r, "cancelled", NULL);
        request_unref(r);
    }
    scheduler_free(&e->scheduler);
    batch_free(&e->builder);
    arena_free(&e->scratch);
    pages_free(&e->pages);
    vision_cache_free(e->vision);
    output_marks_free(&e->marks);
    constraints_free(&e->constraints);
    pthread_cond_destroy(&e->text.work);
    pthread_cond_destroy(&e->media.work);
    pthread_cond_destroy(&e->settled);
    pthread_cond_destroy(&e->work);
    pthread_mutex_destroy(&e->lock);
    mem_free(e);
}

void engine_tune(vlm_engine *e, const engine_tuning *tuning) { e->tuning = *tuning; }

/* ---- requests ---- */

vlm_request_options vlm_request_options_default(void)
{
    return (vlm_request_options){
        .size = sizeof(vlm_request_options), .chat = vlm_chat_options_default(), .max_tokens = 2048, .skip_special_tokens = 1,
        .allow_local_files = 1, .allow_network = 1, .parse = -1, .parallel_tool_calls = 1, .thinking_budget = -1, .length_penalty = NAN, .early_stopping = -1, .normalize = -1,
        .sampling = {.temperature = NAN, .top_p = NAN, .top_k = -1, .typical_p = 1, .repetition_penalty = 1, .repetition_context = 20,
                     .presence_context = 20, .frequency_context = 20},
    };
}

static bool count_in(vlm_engine *e, vlm_request *r, vlm_error *error)
{
    pthread_mutex_lock(&e->lock);
    bool room = e->n_waiting < e->options.max_queue;
    if (room) { e->n_waiting++; r->counted = true; }
    pthread_mutex_unlock(&e->lock);
    if (room) return true;
    err_set(error, VLM_BUSY, "%d requests are waiting already", e->options.max_queue);
    return err_hint(error, "try again later"), false;
}

static _Atomic uint64_t arrivals;                 /* orders requests by submission; only differences within an engine matter */

vlm_request *engine_submit(vlm_engine *e, const vlm_request_options *given, const engine_extra *extra, vlm_error *error)
{
    vlm_request_options o = vlm_request_options_default();
    if (given) memcpy(&o, given, given->size < sizeof o ? given->size : sizeof o);
    if (o.num_beams > 1 && isnan(o.sampling.temperature)) o.sampling.temperature = 0;      /* who asks for beams does not ask for draws */
    vlm_request *r = request_new(e, &o, extra, error);
    if (!r) {
        if (extra && extra->prompt) prompt_free(extra->prompt);
        return NULL;
    }
    r->seq.arrival = atomic_fetch_add(&arrivals, 1);
    output_options shown = {.stop = o.stop, .eos_tokens = o.eos_tokens, .stop_token_ids = o.stop_token_ids, .ignore_eos = o.ignore_eos,
                            .skip_special = o.skip_special_tokens, .include_stop = o.include_stop, .min_tokens = o.min_tokens};
    if (!task_take(r, e->m, &o, error) || !request_choose_adapters(r, e->m, o.adapter, error) || !sampler_init(&r->sampler, e->m, &o.sampling, error) ||
        !request_choose_beams(r, e->m, error) || !output_init(&r->output, e->m, &shown, error) ||
        (r->prebuilt && !engine_guide(e, r, error)) || !count_in(e, r, error)) {
        request_unref(r);
        return NULL;
    }
    request_ref(r);                               /* the engine's */
    if (r->prebuilt) engine_enqueue(e, r);
    else if (!builders_submit(e, r, error)) {
        request_unref(r);
        return NULL;
    }
    return r;
}

vlm_request *vlm_submit(vlm_engine *engine, const vlm_request_options *options, vlm_error *error)
{
    return engine_submit(engine, options, NULL, error);
}

void vlm_request_cancel(vlm_request *r)
{
    if (!r || r->over || atomic_exchange(&r->cancel, true)) return;
    vlm_engine *e = r->engine;
    pthread_mutex_lock(&e->lock);
    bool queued = builders_remove(e, r);
    if (queued && r->counted) { e->n_waiting--; r->counted = false; }
    e->poked = true;
    pthread_cond_signal(&e->work);
    pthread_mutex_unlock(&e->lock);
    if (!queued) return;
    request_emit_done(r, "cancelled", NULL);
    request_unref(r);
}

/* ---- caches, statistics ---- */

void vlm_engine_reset_caches(vlm_engine *e)
{
    pthread_mutex_lock(&e->lock);
    e->reset = true;
    pthread_cond_signal(&e->work);
    while (e->reset) pthread_cond_wait(&e->settled, &e->lock);
    pthread_mutex_unlock(&e->lock);
}

char *vlm_engine_stats(vlm_engine *e, vlm_error *error)
{
    pthread_mutex_lock(&e->lock);
    engine_counters c = e->shown;
    int queued = e->n_waiting;
    pthread_mutex_unlock(&e->lock);
    vision_stats v = vision_get_stats(e->vision);
    typedef json_int_t j;
    json_t *o = json_pack(
        "{s:{s:I,s:I,s:I,s:I,s:i,s:i}, s:{s:I,s:I,s:I}, s:{s:I,s:I,s:f,s:f,s:I}, s:{s:I,s:I,s:I,s:I,s:I,s:I,s:I}, s:{s:I,s:I,s:I,s:I,s:I,s:I,s:I}, s:I}",
        "requests", "total", (j)c.requests, "finished", (j)c.finished, "failed", (j)c.failed, "cancelled", (j)c.cancelled,
            "queued", queued, "running", c.running,
        "tokens", "prompt", (j)c.prompt_tokens, "cached", (j)c.cached_tokens, "answer", (j)c.answer_tokens,
        "steps", "count", (j)c.steps, "tokens", (j)c.batch_tokens, "busy_seconds", c.busy_seconds, "encode_seconds", c.encode_seconds,
            "preemptions", (j)c.preemptions,
        "pages", "budget_bytes", (j)c.pages.budget, "used_bytes", (j)c.pages.used, "cached_bytes", (j)c.pages.cached,
            "taken", (j)c.pages.taken, "published", (j)c.pages.published, "merged", (j)c.pages.merged, "evicted", (j)c.pages.evicted,
        "vision_cache", "entries", (j)v.entries, "bytes", (j)v.bytes, "budget_bytes", (j)v.budget, "hits", (j)v.hits,
            "misses", (j)v.misses, "evictions", (j)v.evictions, "encoded", (j)c.encoded,
        "scratch_bytes", (j)c.scratch_bytes);
    char *text = o ? json_dumps(o, JSON_COMPACT) : NULL, *copy = text ? mem_strdup(text) : NULL;
    free(text);
    json_decref(o);
    if (!copy) err_memory(error, 1024);
    return copy;
}
