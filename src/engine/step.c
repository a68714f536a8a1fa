/* step.c - the engine thread: take in, end what is cancelled, encode a slice, plan, compute, sample, tell.
 *
 * Whatever fails inside a step ends only those that it belongs to: when a step with several sequences fails, each of them is
 * computed again alone, and the one whose step fails then is the one that ends with the error. */
#include <string.h>

#include "base/err.h"
#include "base/thread.h"
#include "engine/core.h"
#include "engine/task.h"
#include "tensor/adapt.h"

enum { IDLE_MS = 50 };

/* ---- ending ---- */

/* Under lock: what vlm_engine_stats reads. */
static void show_counters(vlm_engine *e)
{
    e->counters.waiting = e->scheduler.n_waiting;
    e->counters.running = e->scheduler.n_running;
    e->counters.preemptions = e->scheduler.preemptions;
    e->counters.pages = e->pages.stats;
    e->shown = e->counters;
}

void engine_end(vlm_engine *e, vlm_request *r, const char *reason, const char *stop_string, const vlm_error *error)
{
    if (r->beams) beams_free(r->beams, &e->scheduler, &r->seq);
    r->beams = NULL;
    scheduler_remove(&e->scheduler, &r->seq);
    if (r->seq.n > r->seq.n_prompt + r->usage.completion_tokens) r->seq.n = r->seq.n_prompt + r->usage.completion_tokens;      /* forced, not delivered */
    r->usage.reasoning_tokens = r->guide.think.tokens;
    engine_leave_queue(e, r);
    for (vlm_request **p = &e->active; *p; p = &(*p)->next)
        if (*p == r) { *p = r->next; break; }
    double now = engine_now();
    if (r->first_token > 0) r->usage.decode_seconds = now - r->first_token;
    r->usage.preemptions = r->seq.preemptions;
    r->usage.cached_tokens = r->seq.cached > 0 ? r->seq.cached : 0;
    r->usage.media_cached = 0;
    for (int i = 0; r->encoded && i < r->prompt.n_media; i++) r->usage.media_cached += !r->encoded[i] && r->prompt.media[i]->kind != MEDIA_PROMPT;
    engine_forget_media(e, r);
    e->counters.finished++;
    e->counters.failed += error != NULL;
    e->counters.cancelled += reason && !strcmp(reason, "cancelled");
    e->counters.answer_tokens += (uint64_t)r->usage.completion_tokens;
    e->counters.cached_tokens += (uint64_t)r->usage.cached_tokens;
    pthread_mutex_lock(&e->lock);
    show_counters(e);
    pthread_mutex_unlock(&e->lock);
    if (error) request_emit_error(r, error);
    else request_emit_done(r, reason, stop_string);
    request_unref(r);
}

static void end_memory(vlm_engine *e, vlm_request *r)
{
    vlm_error error = {0};
    err_memory(&error, 0);
    engine_end(e, r, NULL, NULL, &error);
}

/* The rest of the held-back text, then the end. A call made is what the answer ended with, unless it was cut. */
static void finish(vlm_engine *e, vlm_request *r, const char *reason)
{
    vlm_error error = {0};
    output *o = &r->output;
    if (!output_finish(o, reason, &(output_sink){request_emit_piece, r}, &error)) { engine_end(e, r, NULL, NULL, &error); return; }
    if (o->stopped && o->stop_string) engine_end(e, r, "stop", o->stop_string, NULL);
    else engine_end(e, r, o->calls && (o->stopped || !strcmp(reason, "stop")) ? "tool_calls" : reason, NULL, NULL);
}

/* ---- taking in ---- */

static bool follow(vlm_engine *e, vlm_request *r);
static void deliver_best(vlm_engine *e, vlm_request *r, const char *reason);


/* TAKES_* of the media in a prompt. */
static unsigned prompt_kinds(const prompt *p)
{
    static const unsigned bit[] = {[MEDIA_IMAGE] = TAKES_IMAGE, [MEDIA_VIDEO] = TAKES_VIDEO, [MEDIA_AUDIO] = TAKES_AUDIO, [MEDIA_PROMPT] = 0};
    unsigned kinds = 0;
    for (int i = 0; i < p->n_media; i++) kinds |= bit[p->media[i]->kind];
    return kinds;
}

static bool prepare(vlm_engine *e, vlm_request *r, vlm_error *error)
{
    sequence *seq = &r->seq;
    const prompt *p = &r->prompt;
    int context = e->options.context;
    seq->prompt = p;
    const ids *tokens = prompt_tokens(p);
    if (p->ids.count + 1 > (size_t)context) {
        err_set(error, VLM_LIMIT, "the prompt has %zu tokens; the context is %d with the answer", p->ids.count, context);
        return err_hint(error, "send a shorter prompt or smaller media"), false;
    }
    for (size_t i = 0; i < tokens->count; i++)
        if (!sequence_add(seq, tokens->id[i])) return err_memory(error, tokens->count * sizeof(int32_t));
    seq->n_prompt = seq->n;
    if (!task_prepare(r, e->m, error)) return false;
    r->length_limit = r->max_tokens < context - seq->n ? seq->n + r->max_tokens : context;
    r->encoded = MEM_ARRAY((size_t)p->n_media, uint8_t);
    r->rows_shown = MEM_ARRAY((size_t)p->n_media, uint8_t);
    if (!r->encoded || !r->rows_shown || (p->n_media && !p->rows && !(r->prompt.rows = MEM_ARRAY((size_t)p->n_media, vision_entry *))))
        return err_memory(error, (size_t)p->n_media * sizeof(void *));
    digest adapters;
    if (e->m->arch->adapters) seq->adapters |= e->m->arch->adapters(e->m, prompt_kinds(p));
    if (!adapters_digest(&e->m->adapters, seq->adapters, false, &adapters) ||
        !prefix_root(&e->salt, &e->m->identity, &adapters, r->tenant, &seq->root) || !prefix_root_memory(p, &seq->root))
        return err_memory(error, sizeof(digest));
    r->usage.prompt_tokens = (int)p->ids.count;
    for (int i = 0; i < p->n_media; i++) r->usage.media_items += p->media[i]->kind != MEDIA_PROMPT;
    r->usage.media_seconds = p->media_seconds;
    if (r->num_beams > 1 && !(r->beams = beams_new(r->num_beams, r->length_penalty, (beams_early)r->early_stopping, r->output.n_eos, seq, error))) return false;
    if (!request_emit_started(r) || !scheduler_add(&e->scheduler, seq)) return err_memory(error, sizeof(event_node));
    return true;
}

static void take_in(vlm_engine *e, vlm_request *list)
{
    for (vlm_request *r = list, *next; r; r = next) {
        vlm_error error = {0};
        next = r->next;
        vlm_request **end = &e->active;
        while (*end) end = &(*end)->next;
        *end = r;
        r->next = NULL;
        e->counters.requests++;
        if (!prepare(e, r, &error)) { engine_end(e, r, NULL, NULL, &error); continue; }
        e->counters.prompt_tokens += (uint64_t)r->prompt.ids.count;
        if (r->max_tokens == 0) { finish(e, r, "length"); continue; }
        if (follow(e, r)) engine_want_media(e, r, scheduler_peek(&e->scheduler, &r->seq));
    }
}

/* Cancelled, late and failed ones. */
static void sweep(vlm_engine *e)
{
    double now = engine_now();
    for (vlm_request *r = e->active, *next; r; r = next) {
        next = r->next;
        if (r->failure.code) engine_end(e, r, NULL, NULL, &r->failure);
        else if (atomic_load(&r->cancel)) engine_end(e, r, "cancelled", NULL, NULL);
        else if (r->deadline > 0 && now >= r->deadline && r->beams) deliver_best(e, r, "timeout");
        else if (r->deadline > 0 && now >= r->deadline) finish(e, r, "timeout");
    }
}

/* ---- one step ---- */

typedef struct decoder_tap { tap tap; const planned *plan; int count; const batch *batch; } decoder_tap;

/* The row of a token in a tensor that has one row for each token, or for each token that wants logits (after the last layer). */
static int64_t row_of(const batch *b, int token, tensor x)
{
    if (x.rows == b->ragged.n_tokens) return token;
    if (x.rows != b->n_logits) return -1;
    for (int i = 0; i < b->n_logits; i++)
        if (b->logit_tokens[i] == token) return i;
    return -1;
}

static void see(tap *t, const char *name, int layer, tensor x)
{
    const decoder_tap *own = t->user;
    for (int i = 0; i < own->count; i++) {
        const planned *part = &own->plan[i];
        vlm_request *r = part->seq->owner;
        int last = part->seq->n_prompt - 1;
        if (!r->probe || !r->probe->tap || r->tapped || last < part->first || last >= part->first + part->count) continue;
        int64_t row = row_of(own->batch, own->batch->ragged.run_first[i] + last - part->first, x);
        if (row >= 0) r->probe->tap(r->probe->user, name, layer, tensor_row(x, row), x.cols);
    }
}

static bool anybody_taps(const planned *plan, int count)
{
    for (int i = 0; i < count; i++) {
        const vlm_request *r = plan[i].seq->owner;
        if (r->probe && r->probe->tap && !r->tapped) return true;
    }
    return false;
}

/* A row of logits and what became of it: a token drawn, or what is to be told of one that is known already. */
typedef struct draw_job {
    vlm_request *r;
    sequence *seq;                 /* r's, or a beam */
    float *logits;
    void *scratch;
    int at;                        /* index of the token that the row is for; the sequence's end: to be drawn */
    sampled result;
} draw_job;
typedef struct draw_jobs { draw_job *job; int vocab; } draw_jobs;

static void draw_range(void *arg, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    draw_jobs *jobs = arg;
    for (int64_t i = begin; i < end; i++) {
        draw_job *j = &jobs->job[i];
        const sequence *seq = j->seq;
        if (j->r->beams) {
            sampler_limits limits = {.last = seq->n + 1 >= j->r->length_limit};
            if (seq->n - seq->n_prompt < j->r->min_tokens) limits.banned = j->r->output.eos, limits.n_banned = j->r->output.n_eos;
            beams_score(j->r->beams, seq->beam, &j->r->sampler, j->logits, jobs->vocab, &limits, j->scratch);
        } else if (j->at < seq->n) sampler_given(&j->r->sampler, j->logits, jobs->vocab, seq->tokens[j->at], &j->result);
        else {
            sampler_limits limits = guide_limits(&j->r->guide);
            limits.last = seq->n + 1 >= j->r->length_limit;
            sampler_draw(&j->r->sampler, j->logits, jobs->vocab, seq->tokens, seq->n, seq->n_prompt, &limits, j->scratch, &j->result);
        }
    }
}

/* The rows of logits of a plan, which become jobs. */
static void sample(vlm_engine *e, run *r, const planned *plan, int count, tensor logits, int n, draw_job *jobs)
{
    int vocab = e->m->vocab, k = 0;
    if (logits.rows != n || logits.cols != vocab || !logits.data) {
        run_fail(r, VLM_INTERNAL, "decoder gave %lld x %lld logits, not %d x %d", (long long)logits.rows, (long long)logits.cols, n, vocab);
        return;
    }
    for (int i = 0; i < count; i++) {
        const planned *part = &plan[i];
        for (int left = part->seq->hidden ? 0 : part->logits; left > 0; left--) {
            draw_job *j = &jobs[k];
            j->r = part->seq->owner;
            j->seq = part->seq;
            j->at = part->first + part->count - left + 1;
            j->logits = tensor_row(logits, k++);
            if (j->r->task == TASK_RERANK) task_judge(j->r, e->m, j->logits);
            if (j->at == part->seq->n && !(j->scratch = arena_alloc_raw(r->scratch, sampler_scratch(vocab)))) {
                run_fail(r, VLM_MEMORY, "out of memory (%zu bytes for the sampler)", sampler_scratch(vocab));
                return;
            }
            const engine_probe *probe = j->r->probe;
            if (probe && probe->logits && !part->seq->beam) probe->logits(probe->user, j->at - part->seq->n_prompt, j->logits, vocab);
        }
    }
    pool_for(e->m->dev.pool, n, 1, draw_range, &(draw_jobs){jobs, vocab});
}

/* Rows that memories get in this step. */
static bool fill_memories(vlm_engine *e, vlm_error *error)
{
    vlm_model *m = e->m;
    memory_fill fill;
    if (!e->scheduler.n_fill) return true;
    if (!batch_build_fill(&e->builder, m, &e->scheduler, &fill, error)) return false;
    arena_reset(&e->scratch);
    run r = {.dev = &m->dev, .scratch = &e->scratch};
    run_set_adapters(&r, fill.adapters, fill.adapters ? fill.ragged.n_tokens : 0);
    pool_enter(m->dev.pool);
    if (!m->arch->remember(&r, m, &fill)) run_fail(&r, VLM_INTERNAL, "encoder rows were not remembered");
    pool_leave(m->dev.pool);
    if (!run_ok(&r) && error) *error = r.error;
    return run_ok(&r);
}

/* Forward and sampling of planned rows of one kind; gives the number of jobs that it filled. */
static int forward(vlm_engine *e, run *r, const planned *plan, int count, draw_job *jobs)
{
    vlm_model *m = e->m;
    if (!run_ok(r) || !count) return 0;
    if (!batch_build(&e->builder, m, plan, count, &r->error)) return r->failed = true, 0;
    const batch *b = &e->builder.batch;
    decoder_tap watch = {.tap = {.see = see}, .plan = plan, .count = count, .batch = b};
    watch.tap.user = &watch;
    int n = b->n_logits;
    for (int i = 0; i < b->n_logits && b->hidden; i++) n -= b->hidden[i] != NULL;
    run_set_adapters(r, b->adapters, b->adapters ? b->ragged.n_tokens : 0);
    r->tap = anybody_taps(plan, count) ? &watch.tap : NULL;
    tensor logits = m->arch->forward(r, m, b);
    if (run_ok(r) && b->hidden && logits.rows == b->n_logits) run_fail(r, VLM_UNSUPPORTED, "this family (%s) gives no embeddings", m->arch->name);
    if (run_ok(r) && n) sample(e, r, plan, count, logits, n, jobs);
    r->tap = NULL;
    e->counters.batch_tokens += (uint64_t)b->ragged.n_tokens;
    return n;
}

/* The plan in one forward, or in one for each kind of rows. *jobs: in scratch, n of them. */
static bool compute(vlm_engine *e, draw_job **jobs, int *n, vlm_error *error)
{
    const scheduler *s = &e->scheduler;
    int wanted = 0, answers = s->kinds ? s->n_answers : 0;
    if (!fill_memories(e, error)) return false;
    if (!s->n_plan) return true;
    for (int i = 0; i < s->n_plan; i++) wanted += s->plan[i].logits;
    arena_reset(&e->scratch);
    run r = {.dev = &e->m->dev, .scratch = &e->scratch, .answer = true};
    *jobs = run_alloc(&r, ((size_t)wanted + 1) * sizeof **jobs);
    pool_enter(r.dev->pool);
    *n = forward(e, &r, s->plan, answers, *jobs);
    r.answer = false;
    *n += forward(e, &r, s->plan + answers, s->n_plan - answers, *jobs + *n);
    pool_leave(r.dev->pool);
    if (e->scratch.used > e->counters.scratch_bytes) e->counters.scratch_bytes = e->scratch.used;
    if (!run_ok(&r) && error) *error = r.error;
    return run_ok(&r);
}

/* The next token of the answer reaches the caller: text, stop conditions, events. False: the request has ended. */
static bool deliver(vlm_engine *e, vlm_request *r, const sampled *token)
{
    vlm_error error = {0};
    output_end end;
    if (r->first_token == 0) {
        r->first_token = engine_now();
        r->usage.first_token_seconds = r->first_token - r->submitted;
        r->usage.prefill_seconds = r->first_token - r->admitted;
    }
    r->usage.completion_tokens++;
    bool quiet = !r->sampler.options.logprobs || output_ends(&r->output, token->token);
    if (!quiet && !request_emit_token(r, token)) return end_memory(e, r), false;
    if (!output_add(&r->output, token->token, &(output_sink){request_emit_piece, r}, &end, &error))
        return engine_end(e, r, NULL, NULL, &error), false;
    bool full = r->seq.n_prompt + r->usage.completion_tokens >= r->length_limit;
    if (end != OUTPUT_GOES_ON || full) finish(e, r, end != OUTPUT_GOES_ON ? "stop" : "length");
    return end == OUTPUT_GOES_ON && !full;
}

/* What has to come next. probed: memory for what a test wants. */
static const int32_t *forced_tokens(vlm_request *r, int32_t *probed, int *count)
{
    const int32_t *forced = guide_forced(&r->guide, count);
    if (*count || !r->probe || !r->probe->force) return forced;
    *count = r->probe->force(r->probe->user, r->seq.n - r->seq.n_prompt, probed, MAX_AHEAD);
    return probed;
}

/* Appends the tokens that have to follow. They are delivered at once; when their logits are there, if log-probabilities are wanted
 * or nothing has been computed yet. */
static bool follow(vlm_engine *e, vlm_request *r)
{
    vlm_error error = {0};
    int32_t probed[MAX_AHEAD];
    bool each = r->sampler.options.logprobs || r->first_token == 0;
    int count;
    for (const int32_t *forced; (forced = forced_tokens(r, probed, &count)) && count && r->seq.ahead + count <= MAX_AHEAD;)
        for (int i = 0; i < count; i++) {
            if (r->seq.n >= r->length_limit) return true;
            int32_t token = forced[i];
            if (!sequence_force(&r->seq, token, each)) return end_memory(e, r), false;
            if (!guide_add(&r->guide, token, &error)) return engine_end(e, r, NULL, NULL, &error), false;
            if (!each && !deliver(e, r, &(sampled){.token = token})) return false;
        }
    return true;
}

static bool end_drawless(vlm_engine *e, vlm_request *r)
{
    vlm_error error = r->guide.error;
    if (!error.code && r->guide.matcher) {
        err_set(&error, VLM_UNSUPPORTED, "the grammar allows no token after token %d of the answer", r->seq.n - r->seq.n_prompt);
        err_hint(&error, "the model's vocabulary or suppressed tokens leave no way to go on");
    } else if (!error.code) {
        err_set(&error, VLM_INTERNAL, "no logit of position %d is a number", r->seq.n - 1);
    }
    return engine_end(e, r, NULL, NULL, &error), false;
}

/* Ends an answer whose grammar takes nothing more, once all of it is delivered. */
static bool goes_on(vlm_engine *e, vlm_request *r)
{
    if (r->seq.n > r->seq.n_prompt + r->usage.completion_tokens || !guide_finished(&r->guide)) return true;
    return finish(e, r, "stop"), false;
}

/* The token that was drawn. */
static bool take(vlm_engine *e, vlm_request *r, const sampled *token)
{
    vlm_error error = {0};
    if (!goes_on(e, r)) return false;
    if (token->token < 0) return end_drawless(e, r);
    if (!sequence_add(&r->seq, token->token)) err_memory(&error, sizeof(int32_t));
    else if (guide_add(&r->guide, token->token, &error)) return deliver(e, r, token) && follow(e, r) && goes_on(e, r);
    return engine_end(e, r, NULL, NULL, &error), false;
}

static bool ends_answer(const void *user, int32_t token) { return output_ends(&((const vlm_request *)user)->output, token); }

/* The search is over: the best answer is delivered token by token, as if it had been drawn. reason: when it did not end by itself. */
static void deliver_best(vlm_engine *e, vlm_request *r, const char *reason)
{
    hypothesis best = beams_best(r->beams);
    bool alive = true, ok = true;
    int n = best.n;
    int32_t *tokens = MEM_ARRAY((size_t)n + 1, int32_t);
    float *logprobs = MEM_ARRAY((size_t)n + 1, float);
    if (!tokens || !logprobs) ok = false;
    else if (n) memcpy(tokens, best.tokens, (size_t)n * sizeof *tokens), memcpy(logprobs, best.logprobs, (size_t)n * sizeof *logprobs);
    beams_free(r->beams, &e->scheduler, &r->seq);
    r->beams = NULL;
    request_ref(r);
    for (int i = 0; i < n && ok && alive; i++) {
        ok = sequence_add(&r->seq, tokens[i]);
        alive = ok && deliver(e, r, &(sampled){.token = tokens[i], .logprob = logprobs[i]});
    }
    if (!ok) end_memory(e, r);
    else if (alive) finish(e, r, reason);
    request_unref(r);
    mem_free(tokens);
    mem_free(logprobs);
}

/* Some beams have their candidates; when all have, the search goes a step on. */
static void take_beam(vlm_engine *e, vlm_request *r)
{
    bool over = false;
    if (r->beams->broken) { end_drawless(e, r); return; }
    if (!beams_ready(r->beams)) return;
    beams_end end = {ends_answer, r};
    if (!beams_advance(r->beams, &e->scheduler, &r->seq, r->length_limit, &end, &over)) end_memory(e, r);
    else if (over) deliver_best(e, r, "length");
}

/* The rows or logits that a task other than generation waited for are there. */
static void end_task(vlm_engine *e, vlm_request *r)
{
    vlm_error error = {0};
    if (task_finish(r, e->m, &e->scratch, &error)) engine_end(e, r, "stop", NULL, NULL);
    else engine_end(e, r, NULL, NULL, &error);
}

/* What the step's rows gave: of each sequence first what was known, then what was drawn. */
static void tell(vlm_engine *e, const draw_job *jobs, int n)
{
    for (int i = 0; i < n;) {
        const vlm_request *r = jobs[i].r;
        if (jobs[i].seq != &r->seq || r->beams) {                 /* a beam: when all of the request's in this step have been scored */
            bool last = true;
            for (int k = i + 1; k < n && last; k++) last = jobs[k].r != r;
            if (last) take_beam(e, jobs[i].r);
            i++;
            continue;
        }
        for (bool alive = true; i < n && jobs[i].r == r; i++) {
            if (!alive) continue;
            sequence *seq = &jobs[i].r->seq;
            bool known = jobs[i].at < seq->n;
            if (r->task == TASK_RERANK) { end_task(e, jobs[i].r); alive = false; continue; }
            if (known) seq->logits_from = jobs[i].at;             /* once, also when it is preempted amid them */
            alive = (known ? deliver : take)(e, jobs[i].r, &jobs[i].result);
        }
    }
}

static void mark_admitted(vlm_engine *e)
{
    const scheduler *s = &e->scheduler;
    for (int i = 0; i < s->n_plan + s->n_fill; i++) {
        vlm_request *r = (i < s->n_plan ? s->plan[i].seq : s->fill[i - s->n_plan].seq)->owner;
        if (r->admitted > 0) continue;
        r->admitted = engine_now();
        r->usage.queue_seconds = r->admitted - r->submitted;
        engine_leave_queue(e, r);
    }
}

static void run_plan(vlm_engine *e)
{
    scheduler *s = &e->scheduler;
    draw_job *jobs = NULL;
    int n = 0;
    vlm_error error = {0};
    double start = engine_now();
    mark_admitted(e);
    e->counters.steps++;
    if (!compute(e, &jobs, &n, &error)) {
        if (s->n_plan + s->n_fill > 1) { scheduler_failed(s); return; }
        engine_end(e, (s->n_plan ? s->plan[0].seq : s->fill[0].seq)->owner, NULL, NULL, &error);
        return;
    }
    for (int i = 0; i < s->n_plan; i++) {
        vlm_request *r = s->plan[i].seq->owner;
        int end = s->plan[i].first + s->plan[i].count;
        if (end >= r->seq.n_prompt) r->tapped = true, r->rows_there = r->seq.hidden != NULL;
        else request_emit_progress(r, "prefill", (uint64_t)end, (uint64_t)r->seq.n_prompt);
    }
    scheduler_done(s);
    tell(e, jobs, n);
    for (vlm_request *r = e->active, *next; r; r = next) {
        next = r->next;
        if (r->rows_there) end_task(e, r);
    }
    e->step_seconds = engine_now() - start;
    e->counters.busy_seconds += e->step_seconds;
}

/* Ends what can never run, then runs the plan. False: nothing was to be computed. */
static bool decode(vlm_engine *e)
{
    sequence *unfit;
    vlm_error why = {0};
    if (e->tuning.preempt_every && (e->counters.steps + 1) % (uint64_t)e->tuning.preempt_every == 0) scheduler_preempt_youngest(&e->scheduler);
    while (!scheduler_plan(&e->scheduler, &unfit, &why)) {
        if (!unfit) return false;
        vlm_request *r = unfit->owner;
        if (r->beams && unfit->n > unfit->n_prompt && why.code == VLM_LIMIT) deliver_best(e, r, "length");
        else if (unfit->n > unfit->n_prompt && why.code == VLM_LIMIT) finish(e, r, "length");
        else engine_end(e, r, NULL, NULL, &why);
    }
    run_plan(e);
    return true;
}

/* ---- the loop ---- */

/* Under lock: sleeps until there is something to do. */
static void wait_for_work(vlm_engine *e)
{
    double until = 0;
    for (vlm_request *r = e->active; r; r = r->next)
        if (r->deadline > 0 && (until == 0 || r->deadline < until)) until = r->deadline;
    if (e->active && until == 0) until = engine_now() + IDLE_MS * 1e-3;        /* there is always something to do for these; look again soon */
    struct timespec t = {.tv_sec = (time_t)until, .tv_nsec = (long)((until - (double)(time_t)until) * 1e9)};
    if (until > 0) pthread_cond_timedwait(&e->work, &e->lock, &t);
    else pthread_cond_wait(&e->work, &e->lock);
}

void *engine_main(void *engine)
{
    vlm_engine *e = engine;
    bool busy = false;
    for (;;) {
        pthread_mutex_lock(&e->lock);
        show_counters(e);
        while (!busy && !e->stop && !e->inbox_first && !e->reset && !e->poked) {
            wait_for_work(e);
            if (e->active) break;                 /* maybe a deadline */
        }
        vlm_request *list = e->inbox_first;
        e->inbox_first = e->inbox_last = NULL;
        e->poked = false;
        bool stop = e->stop;
        if (e->reset) {
            pages_forget(&e->pages);
            vision_drop_unused(e->vision);
            e->reset = false;
            show_counters(e);
            pthread_cond_broadcast(&e->settled);
        }
        pthread_mutex_unlock(&e->lock);
        take_in(e, list);
        sweep(e);
        if (stop) break;
        busy = engine_encode(e);
        busy |= decode(e);
        for (const vlm_request *r = e->active; r && !busy; r = r->next) busy = r->failure.code != VLM_OK;
    }
    while (e->active) engine_end(e, e->active, "cancelled", NULL, NULL);
    engine_drop_encodings(e);
    return NULL;
}
