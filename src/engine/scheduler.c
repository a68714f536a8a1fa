/* scheduler.c - see scheduler.h. */
#include "engine/scheduler.h"

#include <limits.h>
#include <string.h>

#include "base/err.h"

/* FRAGMENT: text before a medium that is not encoded yet is worth a step of its own (all weights are read once more) from here on. */
enum { MAX_SHARES = 4, MIN_CHUNK = 16, FRAGMENT = 64 };

static int blocks_of(int tokens) { return (tokens + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS; }

/* ---- sequences ---- */

static bool append(sequence *seq, int32_t token)
{
    if (seq->n == seq->capacity) {
        int capacity = seq->capacity < 64 ? 64 : 2 * seq->capacity;
        int32_t *tokens = mem_resize(seq->tokens, (size_t)capacity, sizeof *tokens);
        if (!tokens) return false;
        seq->tokens = tokens;
        seq->capacity = capacity;
    }
    seq->tokens[seq->n++] = token;
    return true;
}

bool sequence_add(sequence *seq, int32_t token)
{
    if (!append(seq, token)) return false;
    seq->logits_from = seq->n - 1;
    seq->ahead = 0;
    return true;
}

bool sequence_force(sequence *seq, int32_t token, bool each)
{
    if (!append(seq, token)) return false;
    if (!each) seq->logits_from = seq->n - 1;
    seq->ahead++;
    return true;
}

void sequence_free(sequence *seq)                 /* its pages are gone: scheduler_remove */
{
    for (int g = 0; g < MAX_KV_GROUPS; g++) {
        mem_free(seq->table[g].page);
        mem_free(seq->table[g].data);
    }
    mem_free(seq->memory.page);
    mem_free(seq->memory.data);
    mem_free(seq->tokens);
    mem_free(seq->keys);
}

static void drop_pages(scheduler *s, sequence *seq)
{
    for (int g = 0; g < s->pages->n_groups; g++) table_clear(&seq->table[g], s->pages);
    pages_drop(s->pages, seq->state);
    pages_drop(s->pages, seq->next_state);
    seq->state = seq->next_state = NULL;
    table_clear(&seq->memory, s->pages);
    seq->computed = seq->remembered = 0;
}

static int memory_rows(const sequence *seq) { return seq->prompt ? seq->prompt->memory.rows : 0; }

/* Keys of all full blocks among the first `tokens`. */
static void make_keys(sequence *seq, int tokens)
{
    int wanted = tokens / KV_PAGE_TOKENS;
    if (seq->unkeyed || seq->n_keys >= wanted) return;
    if (wanted > seq->keys_capacity) {
        int capacity = wanted < 16 ? 16 : wanted + wanted / 2;
        digest *keys = mem_resize(seq->keys, (size_t)capacity, sizeof *keys);
        if (!keys) { seq->unkeyed = true; return; }
        seq->keys = keys;
        seq->keys_capacity = capacity;
    }
    for (; seq->n_keys < wanted; seq->n_keys++) {
        const digest *parent = seq->n_keys ? &seq->keys[seq->n_keys - 1] : &seq->root;
        if (!prefix_key(seq->prompt, seq->tokens, seq->n_keys, parent, &seq->keys[seq->n_keys])) { seq->unkeyed = true; return; }
    }
}

int scheduler_peek(scheduler *s, sequence *seq)
{
    if (!s->pages->keep || seq->n < 1) return 0;
    make_keys(seq, seq->logits_from);
    int n = seq->logits_from / KV_PAGE_TOKENS;    /* what logits are wanted of is left to compute: one token at least */
    return prefix_match(s->pages, seq->prompt, seq->keys, n < seq->n_keys ? n : seq->n_keys) * KV_PAGE_TOKENS;
}

bool scheduler_remembers(const scheduler *s, const sequence *seq)
{
    int n = blocks_of(memory_rows(seq));
    for (int i = 0; i < n; i++) {
        digest key;
        if (!s->pages->keep || !prefix_memory_key(&seq->root, i, &key) || !pages_find(s->pages, MEMORY_GROUP, &key)) return false;
    }
    return true;
}

/* All of it or nothing. False: out of memory. */
static bool adopt_memory(scheduler *s, sequence *seq)
{
    int n = blocks_of(memory_rows(seq));
    if (!n || !scheduler_remembers(s, seq)) return true;
    for (int i = 0; i < n; i++) {
        digest key;
        page *pg = prefix_memory_key(&seq->root, i, &key) ? pages_use(s->pages, pages_find(s->pages, MEMORY_GROUP, &key)) : NULL;
        if (pg && table_push(&seq->memory, pg)) continue;
        pages_drop(s->pages, pg);
        drop_pages(s, seq);
        return false;
    }
    seq->remembered = memory_rows(seq);
    return true;
}

/* Takes the cached prefix over. False: out of memory, nothing taken. */
static bool adopt(scheduler *s, sequence *seq)
{
    if (!adopt_memory(s, seq)) return false;
    int tokens = scheduler_peek(s, seq), b = tokens / KV_PAGE_TOKENS;
    for (int g = 0; g < s->pages->n_groups; g++) {
        page_table *t = &seq->table[g];
        int needed = table_needed(&s->pages->shape[g], tokens);
        for (int i = 0; i < b; i++) {
            page *pg = i < needed ? NULL : pages_use(s->pages, pages_find(s->pages, g, &seq->keys[i]));
            if (table_push(t, pg)) { if (!pg) t->first = t->count; continue; }
            pages_drop(s->pages, pg);
            drop_pages(s, seq);
            return false;
        }
    }
    if (b && s->pages->bytes[STATE_GROUP]) seq->state = pages_use(s->pages, pages_find(s->pages, STATE_GROUP, &seq->keys[b - 1]));
    seq->computed = tokens;
    return true;
}

/* ---- lists ---- */

static int64_t rank_of(const sequence *seq) { return (int64_t)seq->priority + seq->patience / PATIENCE; }

static bool before(const sequence *a, const sequence *b)
{
    int64_t ra = rank_of(a), rb = rank_of(b);
    return ra != rb ? ra > rb : a->arrival < b->arrival;
}

static void insert(sequence **list, int *n, sequence *seq)
{
    int i = (*n)++;
    for (; i > 0 && before(seq, list[i - 1]); i--) list[i] = list[i - 1];
    list[i] = seq;
}

static bool take_out(sequence **list, int *n, const sequence *seq)
{
    for (int i = 0; i < *n; i++) {
        if (list[i] != seq) continue;
        memmove(&list[i], &list[i + 1], (size_t)(*n - i - 1) * sizeof *list);
        --*n;
        return true;
    }
    return false;
}

static bool make_place(scheduler *s)
{
    if (s->n_waiting + s->n_running >= s->capacity) {
        int capacity = s->capacity ? 2 * s->capacity : 16;
        sequence **waiting = mem_resize(s->waiting, (size_t)capacity, sizeof *waiting);
        if (waiting) s->waiting = waiting;
        sequence **running = waiting ? mem_resize(s->running, (size_t)capacity, sizeof *running) : NULL;
        if (running) s->running = running;
        planned *plan = running ? mem_resize(s->plan, (size_t)capacity, sizeof *plan) : NULL;
        if (plan) s->plan = plan;
        filling *fill = plan ? mem_resize(s->fill, (size_t)capacity, sizeof *fill) : NULL;
        if (!fill) return false;
        s->fill = fill;
        s->capacity = capacity;
    }
    return true;
}

bool scheduler_add(scheduler *s, sequence *seq)
{
    if (!make_place(s)) return false;
    const prompt *p = seq->prompt;
    for (int i = 0; p->see_to && i < seq->n_prompt; i++)
        if (p->see_to[i] - i > seq->longest_block) seq->longest_block = p->see_to[i] - i;
    insert(s->waiting, &s->n_waiting, seq);
    return true;
}

static bool share_table(page_table *to, const page_table *from)
{
    for (int i = 0; i < from->count; i++) {
        if (!table_push(to, from->page[i])) return false;
        if (from->page[i]) pages_hold(from->page[i]);
    }
    to->first = from->first;
    return true;
}

bool scheduler_fork(scheduler *s, const sequence *parent, sequence *child, int32_t token)
{
    bool runs = false;
    for (int i = 0; i < s->n_running; i++) runs |= s->running[i] == parent;
    *child = (sequence){.prompt = parent->prompt, .n_prompt = parent->n_prompt, .admitted = parent->admitted, .cached = 0, .longest_block = parent->longest_block,
                        .priority = parent->priority, .arrival = parent->arrival, .patience = parent->patience, .adapters = parent->adapters,
                        .root = parent->root, .owner = parent->owner};
    child->tokens = MEM_ARRAY((size_t)parent->n + 16, int32_t);
    child->keys = MEM_ARRAY((size_t)parent->n_keys + 1, digest);
    if (!child->tokens || !child->keys || !make_place(s)) return false;
    child->capacity = parent->n + 16;
    child->keys_capacity = parent->n_keys + 1;
    memcpy(child->tokens, parent->tokens, (size_t)parent->n * sizeof *child->tokens);
    if (parent->n_keys) memcpy(child->keys, parent->keys, (size_t)parent->n_keys * sizeof *child->keys);
    child->n = parent->n;
    child->n_keys = parent->n_keys;
    child->unkeyed = parent->unkeyed;
    if (!sequence_add(child, token)) return false;
    if (runs) {
        bool ok = share_table(&child->memory, &parent->memory);
        for (int g = 0; ok && g < s->pages->n_groups; g++) ok = share_table(&child->table[g], &parent->table[g]);
        if (!ok) { drop_pages(s, child); return false; }
        child->state = parent->state ? pages_hold(parent->state) : NULL;
        child->computed = parent->computed;
        child->remembered = parent->remembered;
    }
    insert(runs ? s->running : s->waiting, runs ? &s->n_running : &s->n_waiting, child);
    return true;
}

void scheduler_remove(scheduler *s, sequence *seq)
{
    if (take_out(s->running, &s->n_running, seq)) drop_pages(s, seq);
    else take_out(s->waiting, &s->n_waiting, seq);
    s->blocked_room = 0;
}

void scheduler_free(scheduler *s)
{
    mem_free(s->waiting);
    mem_free(s->running);
    mem_free(s->plan);
    mem_free(s->fill);
    *s = (scheduler){0};
}

static void preempt(scheduler *s, sequence *seq)
{
    take_out(s->running, &s->n_running, seq);
    drop_pages(s, seq);
    seq->preemptions++;
    s->preemptions++;
    insert(s->waiting, &s->n_waiting, seq);
}

void scheduler_preempt_youngest(scheduler *s)
{
    for (int i = s->n_running - 1; i >= 0; i--)
        if (s->running[i]->n > s->running[i]->admitted) {        /* it got something done: no livelock */
            preempt(s, s->running[i]);
            return;
        }
}

/* ---- room ---- */

uint64_t scheduler_bytes(const pages *p, int n, int rows, int chunk)
{
    uint64_t bytes = 2 * (uint64_t)p->bytes[STATE_GROUP] + (uint64_t)blocks_of(rows) * p->bytes[MEMORY_GROUP];
    for (int g = 0; g < p->n_groups; g++) {
        int most = blocks_of(n), window = p->shape[g].window;
        if (window && window + chunk < n) most = blocks_of(window + chunk) + 1;
        if (most > blocks_of(n)) most = blocks_of(n);
        bytes += (uint64_t)most * p->bytes[g];
    }
    return bytes;
}

/* Before it writes to a page that others hold, a sequence gets a copy. */
static bool own_last_page(scheduler *s, sequence *seq)
{
    int b = seq->computed / KV_PAGE_TOKENS;
    for (int g = 0; g < s->pages->n_groups && seq->computed % KV_PAGE_TOKENS; g++) {
        page *old = b < seq->table[g].count ? seq->table[g].page[b] : NULL;
        if (!old || old->refs < 2) continue;
        page *pg = pages_take(s->pages, g);
        if (!pg) return false;
        memcpy(pg->data, old->data, s->pages->bytes[g]);
        table_set(&seq->table[g], b, pg);
        pages_drop(s->pages, old);
    }
    return true;
}

/* Pages for tokens up to `end` in every group, and a state to write to. False: some are missing (those there are stay). */
static bool ensure(scheduler *s, sequence *seq, int end)
{
    if (!own_last_page(s, seq)) return false;
    for (int g = 0; g < s->pages->n_groups; g++)
        while (seq->table[g].count < blocks_of(end)) {
            page *pg = pages_take(s->pages, g);
            if (!pg) return false;
            if (table_push(&seq->table[g], pg)) continue;
            pages_drop(s->pages, pg);
            s->pages->no_memory = true;
            return false;
        }
    if (s->pages->bytes[STATE_GROUP] && !seq->next_state) {
        bool own = seq->state && !seq->state->keyed && seq->state->refs == 1;
        seq->next_state = own ? pages_hold(seq->state) : pages_take(s->pages, STATE_GROUP);
        if (!seq->next_state) return false;
    }
    return true;
}

/* The first `end` for which all pages are there. */
static int covered(const scheduler *s, const sequence *seq)
{
    int end = INT_MAX;
    for (int g = 0; g < s->pages->n_groups; g++)
        if (seq->table[g].count * KV_PAGE_TOKENS < end) end = seq->table[g].count * KV_PAGE_TOKENS;
    return end;
}

/* ---- chunks ---- */

/* Where the rows of the first unencoded medium begin, or `end`. */
static int media_limit(scheduler *s, sequence *seq, int end)
{
    const prompt *p = seq->prompt;
    for (int i = 0; i < p->n_spans && p->spans[i].first < end; i++) {
        const media_span *span = &p->spans[i];
        if (span->first + span->count <= seq->computed || s->media_ready(s->user, seq, span->media)) continue;
        int first = span->first > seq->computed ? span->first : seq->computed;
        if (p->see_from && p->see_from[first] < first) first = p->see_from[first];
        return first > seq->computed ? first : seq->computed;
    }
    return end;
}

/* An end that does not cut a block: before the block if something is left, else behind it. */
static int whole_blocks(const sequence *seq, int end, bool may_grow)
{
    const prompt *p = seq->prompt;
    if (!p->see_from || end >= (int)p->ids.count || p->see_from[end] == end) return end;
    int from = p->see_from[end];
    if (from > seq->computed) return from;
    return may_grow ? p->see_to[from] : seq->computed;
}

static int chunk_end(scheduler *s, sequence *seq, int most)
{
    int count = seq->n - seq->computed, end = seq->computed + (count < most ? count : most);
    int border = (seq->n_prompt - 1) / KV_PAGE_TOKENS * KV_PAGE_TOKENS;
    if (s->kinds && seq->computed < seq->n_prompt && end > seq->n_prompt) end = seq->n_prompt;
    if (s->pages->bytes[STATE_GROUP] && seq->computed < border && end > border) end = border;
    end = whole_blocks(seq, end, true);
    int ready = media_limit(s, seq, end);
    if (ready == end) return end;
    return ready - seq->computed < FRAGMENT ? seq->computed : whole_blocks(seq, ready, false);
}

static void put(scheduler *s, sequence *seq, int end)
{
    int from = seq->logits_from > seq->computed ? seq->logits_from : seq->computed;
    s->plan[s->n_plan++] = (planned){seq, seq->computed, end - seq->computed, end > from ? end - from : 0};
    s->plan_tokens += end - seq->computed;
}

static bool decoding(const scheduler *s, const sequence *seq)
{
    int missing = seq->n - seq->computed;
    if (s->kinds && seq->computed < seq->n_prompt) return false;
    return missing > 0 && seq->n > seq->n_prompt && missing <= 1 + seq->ahead && (missing == 1 || missing <= s->chunk) && seq->remembered == memory_rows(seq);
}

/* The newest tokens of everybody who decodes; the last in order give way. */
static void plan_decodes(scheduler *s, const sequence *only)
{
    for (int i = 0; i < s->n_running; i++) {
        sequence *seq = s->running[i];
        if (!decoding(s, seq) || (only && seq != only)) continue;
        bool room;
        while (!(room = ensure(s, seq, seq->n))) {
            s->short_of_pages = true;
            if (s->n_running - 1 <= i) break;     /* itself the last */
            preempt(s, s->running[s->n_running - 1]);
        }
        if (room) put(s, seq, seq->n);
        else if (i > 0) { preempt(s, seq); return; }
    }
}

/* Prompt tokens that one sequence may have in this step: the budget is shared among those who want some of it. */
static int share(const scheduler *s)
{
    int left = s->step_tokens - s->plan_tokens, wanting = s->max_running - s->n_running;
    if (wanting > s->n_waiting) wanting = s->n_waiting;
    for (int i = 0; i < s->n_running; i++) wanting += s->running[i]->computed < s->running[i]->n && !decoding(s, s->running[i]);
    int part = wanting > MAX_SHARES ? s->step_tokens / MAX_SHARES : wanting > 1 ? s->step_tokens / wanting : s->step_tokens;
    if (part < KV_PAGE_TOKENS) part = KV_PAGE_TOKENS;
    if (part > left) part = left;
    return part < s->chunk ? part : s->chunk;
}

/* Pages for the whole memory. */
static bool ensure_memory(scheduler *s, sequence *seq)
{
    while (seq->memory.count < blocks_of(memory_rows(seq))) {
        page *pg = pages_take(s->pages, MEMORY_GROUP);
        if (!pg) return false;
        if (table_push(&seq->memory, pg)) continue;
        pages_drop(s->pages, pg);
        s->pages->no_memory = true;
        return false;
    }
    return true;
}

/* Some rows of the memory, those of media that are encoded. */
static void plan_memory(scheduler *s, sequence *seq, int most)
{
    const memory_plan *p = &seq->prompt->memory;
    int end = seq->remembered + most < p->rows ? seq->remembered + most : p->rows, at = 0;
    for (int i = 0; i < p->n_parts && at < end; at += p->parts[i++].count)
        if (at + p->parts[i].count > seq->remembered && !s->media_ready(s->user, seq, p->parts[i].media)) end = at;
    if (end <= seq->remembered) return;
    if (!ensure_memory(s, seq)) { s->short_of_pages = true; return; }
    s->fill[s->n_fill++] = (filling){seq, seq->remembered, end - seq->remembered};
    s->plan_tokens += end - seq->remembered;
}

static void plan_chunk(scheduler *s, sequence *seq, int most)
{
    if (seq->remembered < memory_rows(seq)) {
        if (most > 0) plan_memory(s, seq, most);
        return;
    }
    int end = most > 0 ? chunk_end(s, seq, most) : 0;
    if (end <= seq->computed) return;
    if (!ensure(s, seq, end)) {
        s->short_of_pages = true;
        if (!own_last_page(s, seq)) return;
        if (s->pages->bytes[STATE_GROUP] && !seq->next_state) return;
        int there = covered(s, seq);
        if (there < end) end = whole_blocks(seq, there, false);
    }
    if (end > seq->computed) put(s, seq, end);
}

/* ---- admission ---- */

/* Bytes of pages that the sequence needs for its tokens and one more. A media block that sees itself whole is one chunk. */
static uint64_t bytes_of(const scheduler *s, const sequence *seq)
{
    return scheduler_bytes(s->pages, seq->n + 1, memory_rows(seq), s->chunk > seq->longest_block ? s->chunk : seq->longest_block);
}

static bool unfit_error(scheduler *s, const sequence *seq, vlm_error *why)
{
    uint64_t needed = bytes_of(s, seq);
    err_set(why, VLM_LIMIT, "%d tokens need %.1f MiB of key/value pages; the engine has %.1f MiB", seq->n, (double)needed / 0x1p20,
            (double)s->pages->stats.budget / 0x1p20);
    return err_hint(why, "give the engine more memory (kv_bytes), or send a shorter prompt"), false;
}

/* Takes the first in line in, if it fits. NULL: it does not (now), or *unfit: it never will. */
static sequence *admit(scheduler *s, sequence **unfit, vlm_error *why)
{
    if (!s->n_waiting || s->n_running >= s->max_running || s->short_of_pages) return NULL;
    if (s->n_running && s->blocked_room && pages_room(s->pages) <= s->blocked_room) return NULL;
    sequence *seq = NULL;
    for (int i = 0; i < s->n_waiting && !seq; i++)
        if (!s->waiting[i]->idle) seq = s->waiting[i];
    if (!seq) return NULL;
    uint64_t all = bytes_of(s, seq), have = 0;
    if (all > s->pages->stats.budget) return unfit_error(s, *unfit = seq, why), NULL;
    if (!adopt(s, seq)) return err_memory(why, sizeof(page *) * (size_t)seq->n / KV_PAGE_TOKENS), *unfit = seq, NULL;
    have += (uint64_t)seq->memory.count * s->pages->bytes[MEMORY_GROUP];
    for (int g = 0; g < s->pages->n_groups; g++) {
        have += (uint64_t)(seq->table[g].count - seq->table[g].first) * s->pages->bytes[g];
        all += (uint64_t)s->n_running * s->pages->bytes[g];       /* the others go on growing: do not push each other out at once */
    }
    if (s->n_running && all > have && pages_room(s->pages) < all - have) {
        drop_pages(s, seq);
        s->blocked_room = pages_room(s->pages);
        return NULL;
    }
    s->blocked_room = 0;
    if (seq->cached < 0) seq->cached = seq->computed;
    seq->admitted = seq->n;
    take_out(s->waiting, &s->n_waiting, seq);
    insert(s->running, &s->n_running, seq);
    return seq;
}

static void age(scheduler *s)
{
    bool grew = false;
    for (int i = 0; i < s->n_waiting; i++) grew |= ++s->waiting[i]->patience % PATIENCE == 0;
    if (!grew) return;
    int n = s->n_waiting;                         /* some rank has changed: sort again */
    for (s->n_waiting = 0; s->n_waiting < n;) insert(s->waiting, &s->n_waiting, s->waiting[s->n_waiting]);
}

/* A sequence whose step failed is computed with nobody beside it. */
static sequence *lone(const scheduler *s)
{
    for (int i = 0; i < s->n_running; i++)
        if (s->running[i]->alone) return s->running[i];
    return NULL;
}

/* A text that has become longer than the model was trained for has other rope frequencies from its first token on: all is computed anew. */
static void stretch(sequence *seq)
{
    hasher h = hash_start();
    hash_text(&h, "long text");
    hash_part(&h, &seq->root, sizeof seq->root);
    if (!hash_finish(&h, &seq->root)) seq->unkeyed = true;
    seq->n_keys = 0;
    seq->far = true;
}

static void stretch_all(scheduler *s)
{
    for (int i = 0; i < s->n_waiting; i++)
        if (!s->waiting[i]->far && s->waiting[i]->n > s->trained) stretch(s->waiting[i]);
    for (int i = s->n_running - 1; i >= 0; i--) {
        sequence *seq = s->running[i];
        if (seq->far || seq->n <= s->trained) continue;
        stretch(seq);
        preempt(s, seq);
    }
}

/* Also recomputed tokens of answers, which are planned as chunks. Each group stays in order. */
static void answers_first(scheduler *s)
{
    s->n_answers = 0;
    for (int i = 0; i < s->n_plan; i++) {
        planned part = s->plan[i];
        if (part.first < part.seq->n_prompt) continue;
        memmove(&s->plan[s->n_answers + 1], &s->plan[s->n_answers], (size_t)(i - s->n_answers) * sizeof part);
        s->plan[s->n_answers++] = part;
    }
}

static bool plan_once(scheduler *s, sequence **unfit, vlm_error *why)
{
    sequence *only = lone(s), *seq;
    s->n_plan = s->n_fill = s->plan_tokens = 0;
    s->short_of_pages = false;
    plan_decodes(s, only);
    if (s->step_tokens - s->plan_tokens < MIN_CHUNK) s->plan_tokens = s->step_tokens - MIN_CHUNK;   /* prompts never stand still */
    for (int i = 0; i < s->n_running; i++)
        if (!decoding(s, s->running[i]) && (!only || only == s->running[i])) plan_chunk(s, s->running[i], share(s));
    while (!only && s->plan_tokens < s->step_tokens && (seq = admit(s, unfit, why))) {
        if (!seq->alone || !(s->n_plan + s->n_fill)) plan_chunk(s, seq, share(s));
        if (seq->alone) break;
    }
    if (s->kinds) answers_first(s);
    return !*unfit;
}

/* When nothing can be done: a beam that waits for others, which wait for its pages. */
static bool give_way(scheduler *s)
{
    bool wanted = s->short_of_pages;
    for (int i = 0; i < s->n_waiting; i++) wanted |= !s->waiting[i]->idle;
    for (int i = s->n_running - 1; wanted && i >= 0; i--)
        if (s->running[i]->idle) return preempt(s, s->running[i]), true;
    return false;
}

bool scheduler_plan(scheduler *s, sequence **unfit, vlm_error *why)
{
    *unfit = NULL;
    if (s->trained) stretch_all(s);
    for (;;) {
        if (!plan_once(s, unfit, why)) return false;
        if (s->n_plan || s->n_fill) { age(s); return true; }
        if (give_way(s)) continue;
        if (!s->short_of_pages || !s->n_running) return false;
        if (s->n_running > 1) { preempt(s, s->running[s->n_running - 1]); continue; }
        *unfit = s->running[0];                   /* it has all there is */
        if (s->pages->no_memory) err_memory(why, s->pages->bytes[0]);
        else unfit_error(s, s->running[0], why);
        return false;
    }
}

/* ---- after the step ---- */

static void publish(scheduler *s, sequence *seq, int from, int to)
{
    if (!s->pages->keep) return;
    make_keys(seq, to);
    for (int b = from / KV_PAGE_TOKENS; b < to / KV_PAGE_TOKENS && b < seq->n_keys; b++)
        for (int g = 0; g < s->pages->n_groups; g++) {
            page_table *t = &seq->table[g];
            if (b >= t->first && t->page[b]) table_set(t, b, pages_publish(s->pages, t->page[b], &seq->keys[b]));
        }
    bool border = to % KV_PAGE_TOKENS == 0 && to / KV_PAGE_TOKENS <= seq->n_keys && to <= seq->n_prompt;
    if (border && seq->state) seq->state = pages_publish(s->pages, seq->state, &seq->keys[to / KV_PAGE_TOKENS - 1]);
}

/* A memory that is complete never changes; others who show the same media find it. */
static void publish_memory(scheduler *s, sequence *seq)
{
    for (int i = 0; s->pages->keep && i < seq->memory.count; i++) {
        digest key;
        if (prefix_memory_key(&seq->root, i, &key)) table_set(&seq->memory, i, pages_publish(s->pages, seq->memory.page[i], &key));
    }
}

void scheduler_done(scheduler *s)
{
    for (int i = 0; i < s->n_fill; i++) {
        sequence *seq = s->fill[i].seq;
        seq->remembered = s->fill[i].first + s->fill[i].count;
        if (seq->remembered == memory_rows(seq)) publish_memory(s, seq);
        if (!s->n_plan) seq->alone = false;
    }
    for (int i = 0; i < s->n_plan; i++) {
        sequence *seq = s->plan[i].seq;
        int end = s->plan[i].first + s->plan[i].count;
        if (s->pages->bytes[STATE_GROUP]) {
            pages_drop(s->pages, seq->state);
            seq->state = seq->next_state;
            seq->next_state = NULL;
        }
        publish(s, seq, s->plan[i].first, end);
        seq->computed = end;
        seq->alone = false;
        for (int g = 0; g < s->pages->n_groups; g++)
            if (s->pages->shape[g].window) table_trim(&seq->table[g], s->pages, table_needed(&s->pages->shape[g], end));
    }
    s->n_plan = s->n_fill = s->plan_tokens = 0;
}

void scheduler_failed(scheduler *s)
{
    for (int i = 0; i < s->n_plan; i++) {
        s->plan[i].seq->alone = true;
        preempt(s, s->plan[i].seq);
    }
    for (int i = 0; i < s->n_fill; i++) {
        s->fill[i].seq->alone = true;
        preempt(s, s->fill[i].seq);
    }
    s->n_plan = s->n_fill = s->plan_tokens = 0;
}
