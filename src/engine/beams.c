/* beams.c - see beams.h. Rules: transformers' GenerationMixin._beam_search. */
#include "engine/beams.h"

#include <math.h>
#include <string.h>

#include "base/err.h"

static const float NOTHING = -1e9f;                       /* what the reference takes for "no score yet" */

beams *beams_new(int n, float length_penalty, beams_early early, int ends, sequence *seq, vlm_error *error)
{
    beams *b = MEM_NEW(beams);
    if (!b) return err_memory(error, sizeof *b), NULL;
    *b = (beams){.n = n, .keep = (ends > 1 ? 1 + ends : 2) * n, .length_penalty = length_penalty, .early = early, .first = true, .open = true};
    for (int i = 0; i < n; i++) {
        b->beam[i].score = i ? NOTHING : 0;
        b->finished[i].score = NOTHING;
        if ((b->beam[i].best = MEM_ARRAY((size_t)b->keep, beam_candidate))) continue;
        beams_free(b, NULL, seq);
        return err_memory(error, (size_t)b->keep * sizeof(beam_candidate)), NULL;
    }
    b->beam[0].seq = seq;
    seq->beam = 0;
    return b;
}

static void drop(scheduler *s, sequence *seq, sequence *own)
{
    if (!seq) return;
    if (s) scheduler_remove(s, seq);
    if (seq == own) return;
    own->preemptions += seq->preemptions;
    sequence_free(seq);
    mem_free(seq);
}

static void forget(hypothesis *h)
{
    mem_free(h->tokens);
    mem_free(h->logprobs);
    h->tokens = NULL;
    h->logprobs = NULL;
}

void beams_free(beams *b, scheduler *s, sequence *own)
{
    if (!b) return;
    for (int i = 0; i < b->n; i++) {
        drop(s, b->beam[i].seq, own);
        mem_free(b->beam[i].best);
        mem_free(b->beam[i].logprobs);
        forget(&b->finished[i]);
    }
    mem_free(b);
}

/* ---- candidates ---- */

static void log_softmax(float *x, int n)
{
    float most = -INFINITY;
    double sum = 0;
    for (int i = 0; i < n; i++) if (x[i] > most) most = x[i];
    for (int i = 0; i < n; i++) sum += exp((double)x[i] - (double)most);
    float total = (float)log(sum);
    for (int i = 0; i < n; i++) x[i] = x[i] - most - total;
}

void beams_score(beams *b, int index, const sampler *rules, float *logits, int vocab, const sampler_limits *limits, void *scratch)
{
    beam *own = &b->beam[index];
    const sequence *seq = own->seq;
    int count = 0;
    log_softmax(logits, vocab);
    sampler_rules(rules, logits, vocab, seq->tokens, seq->n, seq->n_prompt, limits, scratch);
    for (int32_t t = 0; t < vocab; t++) {
        float score = logits[t] + own->score;
        if (isnan(score)) { atomic_store(&b->broken, true); return; }
        if (count == b->keep && !(score > own->best[count - 1].score)) continue;
        int at = count < b->keep ? count++ : count - 1;
        for (; at > 0 && own->best[at - 1].score < score; at--) own->best[at] = own->best[at - 1];
        own->best[at] = (beam_candidate){score, logits[t], t};
    }
    for (; count < b->keep; count++) own->best[count] = (beam_candidate){-INFINITY, -INFINITY, 0};
    own->there = own->seq->idle = true;
}

bool beams_ready(const beams *b)
{
    for (int i = 0; i < (b->first ? 1 : b->n); i++)
        if (!b->beam[i].there) return false;
    return true;
}

typedef struct choice { int beam; beam_candidate candidate; bool ends; } choice;

/* The best `keep` of all beams; of equal ones the earlier beam's. At the beginning all beams are the first one, and all but one have no score. */
static void choose(const beams *b, choice *out)
{
    int next[MAX_BEAMS] = {0};
    for (int k = 0; k < b->keep; k++) {
        int best = -1;
        float most = 0;
        for (int i = 0; i < b->n; i++) {
            if (next[i] == b->keep) continue;
            const beam_candidate *c = &b->beam[b->first ? 0 : i].best[next[i]];
            float score = b->first ? c->logprob + b->beam[i].score : c->score;
            if (best < 0 || score > most) best = i, most = score;
        }
        beam_candidate c = b->beam[b->first ? 0 : best].best[next[best]++];
        c.score = most;
        out[k] = (choice){best, c, false};
    }
}

/* ---- a step ---- */

static int answer_length(const sequence *seq) { return seq->n - seq->n_prompt; }

static bool keep_answer(hypothesis *h, const beam *from, const beam_candidate *c, float score)
{
    int n = answer_length(from->seq);
    *h = (hypothesis){.score = score, .done = true, .n = n + 1, .tokens = MEM_ARRAY((size_t)n + 1, int32_t), .logprobs = MEM_ARRAY((size_t)n + 1, float)};
    if (!h->tokens || !h->logprobs) return forget(h), false;
    if (n) memcpy(h->tokens, from->seq->tokens + from->seq->n_prompt, (size_t)n * sizeof *h->tokens);
    if (n) memcpy(h->logprobs, from->logprobs, (size_t)n * sizeof *h->logprobs);
    h->tokens[n] = c->token;
    h->logprobs[n] = c->logprob;
    return true;
}

static bool all_done(const beams *b)
{
    for (int i = 0; i < b->n; i++)
        if (!b->finished[i].done) return false;
    return true;
}

/* Ended candidates among the first n take places of worse finished answers. */
static bool finish(beams *b, const choice *list, int length)
{
    bool full = b->early == BEAMS_EARLY && all_done(b), open = b->open;
    for (int k = 0; k < b->n; k++) {
        if (!list[k].ends || full || !open) continue;
        const beam *from = &b->beam[b->first ? 0 : list[k].beam];
        float score = list[k].candidate.score / powf((float)length, b->length_penalty);
        int at = b->n;
        while (at > 0 && b->finished[at - 1].score < score) at--;
        if (at == b->n) continue;
        hypothesis h;
        if (!keep_answer(&h, from, &list[k].candidate, score)) return false;
        forget(&b->finished[b->n - 1]);
        memmove(&b->finished[at + 1], &b->finished[at], (size_t)(b->n - 1 - at) * sizeof h);
        b->finished[at] = h;
    }
    return true;
}

static bool grow_logprobs(beam *to, const beam *from, const beam_candidate *c)
{
    int n = answer_length(from->seq);
    if (!(to->logprobs = MEM_ARRAY((size_t)n + 1, float))) return false;
    if (n) memcpy(to->logprobs, from->logprobs, (size_t)n * sizeof *to->logprobs);
    to->logprobs[n] = c->logprob;
    return true;
}

/* The best n that go on become the beams; ended ones stand behind all others. */
static bool fork_beams(beams *b, scheduler *s, sequence *own, choice *list)
{
    beam next[MAX_BEAMS];
    bool ok = true;
    memset(next, 0, sizeof next);
    for (int i = 0; i < b->n; i++) {
        int best = -1;
        float most = 0;
        for (int k = 0; k < b->keep; k++) {
            float score = list[k].candidate.score + (list[k].ends ? NOTHING : 0);
            if (list[k].beam >= 0 && (best < 0 || score > most)) best = k, most = score;
        }
        const beam *from = &b->beam[b->first ? 0 : list[best].beam];
        next[i] = (beam){.score = most, .best = b->beam[i].best, .seq = MEM_NEW(sequence)};
        ok = ok && next[i].seq && grow_logprobs(&next[i], from, &list[best].candidate) && scheduler_fork(s, from->seq, next[i].seq, list[best].candidate.token);
        if (next[i].seq) next[i].seq->beam = i;
        list[best].beam = -1;
    }
    for (int i = 0; i < b->n; i++) {
        drop(s, b->beam[i].seq, own);
        mem_free(b->beam[i].logprobs);
        b->beam[i] = next[i];
    }
    b->first = false;
    return ok;
}

/* Could a beam that goes on still end better than the worst finished answer? */
static bool can_improve(const beams *b, int length, int most)
{
    float possible = (float)(b->early == BEAMS_NEVER && b->length_penalty > 0 ? most : length);
    float best = b->beam[0].score / powf(possible, b->length_penalty), worst = b->finished[b->n - 1].score;
    for (int i = 0; i < b->n; i++)
        if (best > (b->finished[i].done ? worst : NOTHING)) return true;
    return false;
}

bool beams_advance(beams *b, scheduler *s, sequence *own, int limit, const beams_end *end, bool *over)
{
    const sequence *seq = b->beam[0].seq;
    int n = seq->n, before = seq->n_prompt;
    choice *list = MEM_ARRAY((size_t)b->keep, choice);
    bool all_end = true, ok = list != NULL;
    *over = false;
    if (!ok) return false;
    choose(b, list);
    for (int k = 0; k < b->keep; k++) {
        list[k].ends = n + 1 >= limit || end->ends(end->user, list[k].candidate.token);
        all_end = all_end && list[k].ends;
    }
    ok = finish(b, list, n + 1 - before) && (all_end || fork_beams(b, s, own, list));
    if (ok) b->open = b->open && can_improve(b, n + 1 - before, limit - before);
    *over = !b->open || (b->early == BEAMS_EARLY && all_done(b)) || all_end;
    mem_free(list);
    return ok;
}

hypothesis beams_best(beams *b)
{
    if (b->finished[0].done) return b->finished[0];
    const beam *first = &b->beam[0];
    return (hypothesis){.score = first->score, .tokens = first->seq->tokens + first->seq->n_prompt, .logprobs = first->logprobs, .n = answer_length(first->seq)};
}
