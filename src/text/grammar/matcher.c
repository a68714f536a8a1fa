/* matcher.c - one request's place in a grammar: a row, and the rows before it. */
#include <string.h>

#include "text/grammar/internal.h"

struct matcher {
    grammar *g;
    gstore *store;
    uint32_t *history;             /* the last is the present */
    size_t count, capacity;
    bool accept, finished, ended;  /* of the present row; ended: eos was taken */
};

#define ROW_ENDED UINT32_MAX       /* in history: after eos */

static void enter(matcher *m)
{
    const uint32_t row = m->history[m->count - 1];
    m->ended = row == ROW_ENDED;
    const grow *r = m->ended ? NULL : grow_at(m->store, row);
    m->accept = r && r->accept;
    m->finished = !r || !r->count;
}

static bool push(matcher *m, uint32_t row, vlm_error *error)
{
    if (m->count == m->capacity) {
        const size_t n = 2 * m->capacity;
        uint32_t *history = mem_resize(m->history, n, sizeof *history);
        if (!history) return err_memory(error, n * sizeof *history);
        m->history = history;
        m->capacity = n;
    }
    m->history[m->count++] = row;
    enter(m);
    return true;
}

matcher *matcher_new(grammar *g, vlm_error *error)
{
    matcher *m = MEM_NEW(matcher);
    if (!m || !(m->history = MEM_ARRAY(m->capacity = 64, uint32_t))) {
        mem_free(m);
        err_memory(error, 0);
        return NULL;
    }
    m->g = grammar_ref(g);
    pthread_mutex_lock(&g->lock);
    if (g->store->failed || g->store->bytes > g->limits.memory / 2) {       /* old matchers keep the old one */
        gstore *fresh = gstore_new(g, error);
        if (fresh) {
            gstore_free(g->store);
            g->store = fresh;
        } else if (g->store->failed) {
            pthread_mutex_unlock(&g->lock);
            mem_free(m->history);
            mem_free(m);
            grammar_unref(g);
            return NULL;
        }
    }
    m->store = g->store;
    m->store->references++;
    m->history[m->count++] = m->store->start;
    enter(m);
    pthread_mutex_unlock(&g->lock);
    return m;
}

matcher *matcher_copy(const matcher *m, vlm_error *error)
{
    matcher *copy = MEM_NEW(matcher);
    uint32_t *history = MEM_ARRAY(m->capacity, uint32_t);
    if (!copy || !history) {
        mem_free(copy);
        mem_free(history);
        err_memory(error, 0);
        return NULL;
    }
    *copy = *m;
    copy->history = history;
    memcpy(history, m->history, m->count * sizeof *history);
    grammar_ref(copy->g);
    pthread_mutex_lock(&copy->g->lock);
    copy->store->references++;
    pthread_mutex_unlock(&copy->g->lock);
    return copy;
}

void matcher_free(matcher *m)
{
    if (!m) return;
    pthread_mutex_lock(&m->g->lock);
    gstore_free(m->store);
    pthread_mutex_unlock(&m->g->lock);
    grammar_unref(m->g);
    mem_free(m->history);
    mem_free(m);
}

/* Locks the store; the time of one call is bounded. */
static void begin(matcher *m)
{
    pthread_mutex_lock(&m->g->lock);
    m->store->pool.work = 0;
}

/* From row along the bytes; GROW_DEAD at *at. */
static uint32_t follow(gstore *s, uint32_t row, const uint8_t *bytes, size_t size, size_t *at)
{
    for (size_t i = 0; i < size; i++) {
        const uint32_t next = grow_step(s, row, bytes[i]);
        if (next == GROW_DEAD) {
            *at = i;
            return GROW_DEAD;
        }
        row = next;
    }
    *at = size;
    return row;
}

/* The row after a token, GROW_DEAD if it is not allowed. */
static uint32_t after_token(const matcher *m, uint32_t row, int32_t token)
{
    const grammar_vocab *v = m->g->vocab;
    gstore *s = m->store;
    if (!v || token < 0 || (size_t)token >= v->count || row == ROW_ENDED || s->failed) return GROW_DEAD;
    uint32_t next = grow_token(s, row, token);
    if (next == GROW_DEAD && (v->special[token] & 2) && grow_at(s, row)->accept) return ROW_ENDED;
    const uint32_t size = v->start[token + 1] - v->start[token];
    if (next == GROW_DEAD && !v->special[token] && size) {
        size_t at;
        next = follow(s, row, v->bytes + v->start[token], size, &at);
    }
    return s->failed ? GROW_DEAD : next;
}

bool matcher_bytes(matcher *m, const void *data, size_t size, size_t *at, vlm_error *error)
{
    size_t stop = 0;
    uint32_t row = m->history[m->count - 1];
    begin(m);
    if (row != ROW_ENDED) row = follow(m->store, row, data, size, &stop);
    else row = size ? GROW_DEAD : row;
    bool done = !m->store->failed;
    if (!done) gstore_error(m->store, error);
    else if (row != GROW_DEAD || !size) done = push(m, row, error);
    else done = false;
    pthread_mutex_unlock(&m->g->lock);
    if (at) *at = stop;
    return done;
}

bool matcher_token(matcher *m, int32_t token, vlm_error *error)
{
    begin(m);
    const uint32_t row = after_token(m, m->history[m->count - 1], token);
    bool done = row != GROW_DEAD;
    if (m->store->failed) done = gstore_error(m->store, error);
    else if (done) done = push(m, row, error);
    pthread_mutex_unlock(&m->g->lock);
    return done;
}

size_t matcher_try(matcher *m, const int32_t *token, size_t count, vlm_error *error)
{
    size_t n = 0;
    uint32_t row = m->history[m->count - 1];
    begin(m);
    for (; n < count; n++) if ((row = after_token(m, row, token[n])) == GROW_DEAD) break;
    if (m->store->failed) gstore_error(m->store, error);
    pthread_mutex_unlock(&m->g->lock);
    return n;
}

bool matcher_mask(matcher *m, uint64_t *mask, vlm_error *error)
{
    const grammar_vocab *v = m->g->vocab;
    if (!v) return err_set(error, VLM_INVALID, "a grammar without vocabulary has no masks");
    const uint32_t row = m->history[m->count - 1];
    if (row == ROW_ENDED) {
        memset(mask, 0, v->words * sizeof *mask);
        return true;
    }
    begin(m);
    const bool done = !m->store->failed && grammar_mask(m->store, row, mask);
    if (!done) gstore_error(m->store, error);
    pthread_mutex_unlock(&m->g->lock);
    if (m->accept) for (size_t i = 0; i < v->n_eos; i++) mask[v->eos[i] / 64] |= 1ull << (v->eos[i] % 64);
    return done;
}

bool matcher_accepting(const matcher *m) { return m->accept; }
bool matcher_finished(const matcher *m) { return m->finished; }

bool matcher_forced(matcher *m, size_t limit, buf *out, vlm_error *error)
{
    uint32_t row = m->history[m->count - 1];
    if (row == ROW_ENDED) return true;
    begin(m);
    gstore *s = m->store;
    for (size_t n = 0; n < limit && !s->failed; n++) {
        const grow *r = grow_at(s, row);
        if (r->accept || r->tokens || gset_count(&r->live) != 1) break;
        unsigned byte = 0;
        for (int w = 0; w < 4; w++) if (r->live.bits[w]) byte = (unsigned)(w * 64 + __builtin_ctzll(r->live.bits[w]));
        const uint32_t next = grow_step(s, row, (uint8_t)byte);
        if (next == GROW_DEAD || !buf_addc(out, (char)byte)) break;
        row = next;
    }
    bool done = !s->failed;
    if (!done) gstore_error(s, error);
    else if (out->failed) done = err_memory(error, 1);
    pthread_mutex_unlock(&m->g->lock);
    return done;
}

bool matcher_rollback(matcher *m, size_t n)
{
    if (n >= m->count) return false;
    m->count -= n;
    if (!n) return true;
    pthread_mutex_lock(&m->g->lock);
    enter(m);
    pthread_mutex_unlock(&m->g->lock);
    return true;
}

size_t matcher_history(const matcher *m) { return m->count - 1; }
