/* builders.c - prompt threads: fetch, decode, template, tokenize, process (prompt.h), away from the engine thread.
 *
 * Text-only requests have a thread of their own, so that they never wait behind a video that is being decoded. */
#include <string.h>

#include "base/err.h"
#include "engine/core.h"

static void media_done(void *user, size_t done, size_t total) { request_emit_progress(user, "media", done, total); }

static bool build(vlm_engine *e, vlm_request *r, vlm_error *error)
{
    prompt_source source = {
        .own = r->own_template, .plain = r->own_template && r->own_template == e->m->recipe.text,
        .messages = r->messages, .text = r->text, .media = r->media, .media_options = r->media_options, .policy = r->policy,
        .chat = {.add_generation_prompt = r->add_generation_prompt, .tools = request_tools(r), .kwargs = r->kwargs},
        .media_dir = r->media_dir, .cache = e->vision, .tenant = r->tenant, .adapters = r->media_adapters,
        .media_done = media_done, .user = r,
    };
    if (!prompt_build(e->m, &source, &r->prompt, error)) return false;
    if (!request_emit_notices(r, r->prompt.notices.data)) return err_memory(error, r->prompt.notices.size);
    return engine_guide(e, r, error);
}

/* Was the template told to think (1), not to think (0), or nothing (-1)? */
static int told_to_think(const vlm_request *r)
{
    const json_t *enabled = json_object_get(r->kwargs, "enable_thinking");
    const char *mode = json_string_value(json_object_get(r->kwargs, "thinking_mode"));
    if (json_is_true(enabled) || (mode && !strcmp(mode, "enabled"))) return 1;
    return json_is_false(enabled) ? 0 : -1;
}

static uint64_t call_seed(const vlm_engine *e, const vlm_request *r)
{
    uint64_t salt;
    memcpy(&salt, e->salt.byte, sizeof salt);
    return salt ^ r->seq.arrival * 0x9e3779b97f4a7c15u;
}

bool engine_guide(vlm_engine *e, vlm_request *r, vlm_error *error)
{
    if (r->tool_format && !output_marks_init(&r->marks, e->m, r->tool_format, error)) return false;
    const output_marks *marks = r->tool_format ? &r->marks : &e->marks;
    guide_options options = {.marks = marks, .start = r->thinking_start, .end = r->thinking_end, .budget = r->thinking_budget,
                             .min_tokens = r->min_tokens, .ends = r->output.eos, .n_ends = r->output.n_eos};
    if (!guide_init(&r->guide, e->m, &options, &r->prompt.ids, error)) return false;
    bool open = guide_thinks(&r->guide), lead = open || told_to_think(r) > 0;      /* thinking is followed by white space */
    constraint held;
    if (!constraint_make(e, r, marks->format, lead, &held, error)) return false;
    guide_hold_options hold = {.marks = marks, .calls = held.calls, .may_think = told_to_think(r) > 0 || (told_to_think(r) < 0 && marks->thinks)};
    bool ok = !held.grammar || guide_hold(&r->guide, held.grammar, &hold, error);
    grammar_unref(held.grammar);
    if (!ok) return false;
    output_parsing parsing = {.marks = marks, .tools = request_tools(r), .thinking_open = open, .swallow = lead, .enforced = held.calls && !r->response_format,
                              .one_call = r->one_call, .prompt = r->prompt.text, .think_open = r->thinking_start, .think_close = r->thinking_end,
                              .seed = call_seed(e, r)};
    return output_begin(&r->output, r->parse ? &parsing : NULL, error);
}

void engine_leave_queue(vlm_engine *e, vlm_request *r)
{
    pthread_mutex_lock(&e->lock);
    if (r->counted) e->n_waiting--;
    r->counted = false;
    pthread_mutex_unlock(&e->lock);
}

void engine_enqueue(vlm_engine *e, vlm_request *r)
{
    pthread_mutex_lock(&e->lock);
    r->next = NULL;
    *(e->inbox_last ? &e->inbox_last->next : &e->inbox_first) = r;
    e->inbox_last = r;
    pthread_cond_signal(&e->work);
    pthread_mutex_unlock(&e->lock);
}

/* Ends a request that the engine thread has never seen. */
static void refuse(vlm_engine *e, vlm_request *r, const vlm_error *error)
{
    engine_leave_queue(e, r);
    if (error) request_emit_error(r, error);
    else request_emit_done(r, "cancelled", NULL);
    request_unref(r);
}

static void *builder_main(void *arg)
{
    builders *b = arg;
    vlm_engine *e = b->engine;
    pthread_mutex_lock(&e->lock);
    for (;;) {
        vlm_request *r;
        while (!(r = b->first) && !e->stop) {
            b->idle++;
            pthread_cond_wait(&b->work, &e->lock);
            b->idle--;
        }
        if (!r) break;
        if (!(b->first = r->next)) b->last = NULL;
        bool stop = e->stop;
        pthread_mutex_unlock(&e->lock);
        vlm_error error = {0};
        if (stop || atomic_load(&r->cancel)) refuse(e, r, NULL);
        else if (build(e, r, &error)) engine_enqueue(e, r);
        else refuse(e, r, &error);
        pthread_mutex_lock(&e->lock);
    }
    pthread_mutex_unlock(&e->lock);
    return NULL;
}

bool builders_submit(vlm_engine *e, vlm_request *r, vlm_error *error)
{
    builders *b = r->has_media ? &e->media : &e->text;
    pthread_mutex_lock(&e->lock);
    bool ok = true;
    int queued = 0;
    for (vlm_request *other = b->first; other && queued <= b->idle; other = other->next) queued++;
    if (b->idle <= queued && b->n < b->max) {
        if (!mem_inject() && !pthread_create(&b->thread[b->n], NULL, builder_main, b)) b->n++;
        else ok = b->n > 0;                       /* the others will do */
    }
    if (ok) {
        r->next = NULL;
        *(b->last ? &b->last->next : &b->first) = r;
        b->last = r;
        pthread_cond_signal(&b->work);
    }
    pthread_mutex_unlock(&e->lock);
    if (ok) return true;
    engine_leave_queue(e, r);
    request_unref(r);
    return err_set(error, VLM_MEMORY, "cannot start a thread to prepare the prompt");
}

bool builders_remove(vlm_engine *e, vlm_request *r)
{
    builders *b = r->has_media ? &e->media : &e->text;
    vlm_request *before = NULL;
    for (vlm_request *other = b->first; other; before = other, other = other->next) {
        if (other != r) continue;
        *(before ? &before->next : &b->first) = r->next;
        if (b->last == r) b->last = before;
        return true;
    }
    return false;
}

static void join(vlm_engine *e, builders *b)
{
    pthread_mutex_lock(&e->lock);
    pthread_cond_broadcast(&b->work);
    pthread_mutex_unlock(&e->lock);
    for (int i = 0; i < b->n; i++) pthread_join(b->thread[i], NULL);
}

void builders_stop(vlm_engine *e)
{
    join(e, &e->text);
    join(e, &e->media);
}
