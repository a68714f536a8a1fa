/* fake_model.h - a decoder made of hashes, for tests of the engine without weights.
 *
 * A token's "key" in layer 1 is a hash of its id (or of its media row) and its rope position; its key in layer 2 is a hash of all
 * keys that it sees in layer 1; its logits are a hash of all keys that it sees in layer 2. Keys live in the engine's pages, as a
 * real model's do, in a full and in a sliding group; the recurrent state is a running hash. So every error in paging, windows,
 * caching, preemption, spans or positions changes the tokens. fake_reference computes the same without any engine. */
#ifndef VLM_TESTS_FAKE_MODEL_H
#define VLM_TESTS_FAKE_MODEL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/err.h"
#include "engine/core.h"

enum { FAKE_VOCAB = 97, FAKE_WINDOW = 40, FAKE_HIDDEN = 2, FAKE_POISON = 96, FAKE_IMAGE = 95, FAKE_AUDIO = 94, FAKE_EOS = 1 };

typedef struct fake_model {
    vlm_model m;
    vlm_arch arch;
    atomic_int encodes, forwards, slowness_us;    /* slowness: of each forward */
    atomic_int stages;                            /* of an encoding; from the third on each takes 0.1 ms */
    atomic_int fail_forward;                      /* n > 0: the n-th forward from now fails */
} fake_model;

static inline uint64_t fake_mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static inline uint64_t fake_row(const digest *key, int row)
{
    uint64_t x;
    memcpy(&x, key->byte, sizeof x);
    return fake_mix(x + (uint64_t)row) & 0xffffff;         /* survives a float */
}

static inline uint64_t fake_value(int32_t id, bool media, uint64_t row, int32_t rope)
{
    return fake_mix((media ? row + 1000 : (uint64_t)id) * 1000003u + (uint64_t)rope);
}

static inline void fake_logits(uint64_t final, float *out)
{
    for (int i = 0; i < FAKE_VOCAB; i++) out[i] = (float)(fake_mix(final + (uint64_t)i * 7919u) >> 40) * 0x1p-21f;
    out[FAKE_POISON] = out[FAKE_IMAGE] = out[FAKE_AUDIO] = -100;
}

/* ---- the reference: no pages, no batch ---- */

typedef struct fake_sequence { uint64_t *a, *b; uint64_t state; int n; } fake_sequence;

/* Keys [from, n) of two layers and the final hash of the last position. see_to/see_from: of the prompt, may be NULL. */
static inline uint64_t fake_reference(const vlm_model *m, const prompt *p, const int32_t *tokens, int n)
{
    int np = (int)p->ids.count;
    uint64_t *a = calloc((size_t)n, 8), *b = calloc((size_t)n, 8), state = 0, final = 0;
    for (int i = 0; i < n; i++) {
        uint64_t row = 0;
        bool media = false;
        for (int s = 0; s < p->n_spans; s++)
            if (i >= p->spans[s].first && i < p->spans[s].first + p->spans[s].count) {
                media = true;
                row = fake_row(&p->media[p->spans[s].media]->key, p->spans[s].row + i - p->spans[s].first);
            }
        a[i] = fake_value(tokens[i], media, row, i < np ? p->rope[0][i] : p->rope_next + i - np);
    }
    for (int layer = 0; layer < 2; layer++) {
        const uint64_t *keys = layer ? b : a;
        for (int i = 0; i < n; i++) {
            int to = i < np && p->see_to ? p->see_to[i] : i + 1, from = i - FAKE_WINDOW + 1;
            if (i < np && p->see_from && p->see_from[i] < from) from = p->see_from[i];
            uint64_t sum = 0;
            for (int j = 0; j < to; j++) sum += fake_mix(keys[j] ^ (uint64_t)j);
            for (int j = from < 0 ? 0 : from; j < to; j++) sum += 3 * fake_mix(keys[j] + (uint64_t)j);
            if (layer == 0) b[i] = fake_mix(sum + a[i]);
            else final = sum;
            if (layer == 1 && m->state_bytes) state = fake_mix(state + a[i]);
        }
    }
    free(a);
    free(b);
    return fake_mix(final + state);
}

static inline int32_t fake_greedy(uint64_t final)
{
    float logits[FAKE_VOCAB];
    int best = 0;
    fake_logits(final, logits);
    for (int i = 1; i < FAKE_VOCAB; i++)
        if (logits[i] > logits[best]) best = i;
    return best;
}

/* n greedy tokens. */
static inline void fake_answer(const vlm_model *m, const prompt *p, int32_t *out, int n)
{
    int np = (int)p->ids.count;
    int32_t *tokens = calloc((size_t)(np + n), sizeof *tokens);
    memcpy(tokens, p->ids.id, (size_t)np * sizeof *tokens);
    for (int i = 0; i < n; i++) out[i] = tokens[np + i] = fake_greedy(fake_reference(m, p, tokens, np + i));
    free(tokens);
}

/* ---- the model ---- */

/* Page layout of both groups: u64 of layer 1 for each position, then u64 of layer 2. */
static inline uint64_t *fake_key(const ragged *r, int group, int run_index, int position, int layer)
{
    uint64_t *keys = r->pages[group][run_index][position / KV_PAGE_TOKENS];
    return keys ? &keys[layer * KV_PAGE_TOKENS + position % KV_PAGE_TOKENS] : NULL;
}

static inline uint64_t fake_see(const batch *b, int t, int layer, bool *missing)
{
    const ragged *r = &b->ragged;
    int index = r->token_run[t], p = r->token_position[t], to = r->see_to ? r->see_to[t] : p + 1, from = p - FAKE_WINDOW + 1;
    if (r->see_from && r->see_from[t] < from) from = r->see_from[t];
    uint64_t sum = 0;
    for (int j = 0; j < to; j++) {
        const uint64_t *key = fake_key(r, 0, index, j, layer);
        if (!key) { *missing = true; return 0; }
        sum += fake_mix(*key ^ (uint64_t)j);
    }
    for (int j = from < 0 ? 0 : from; j < to; j++) {
        const uint64_t *key = fake_key(r, 1, index, j, layer);
        if (!key) { *missing = true; return 0; }
        sum += 3 * fake_mix(*key + (uint64_t)j);
    }
    return sum;
}

static inline tensor fake_forward(run *r, const vlm_model *m, const batch *b)
{
    fake_model *fake = (fake_model *)m;
    const ragged *g = &b->ragged;
    atomic_fetch_add(&fake->forwards, 1);
    if (atomic_load(&fake->slowness_us)) {
        struct timespec nap = {0, 1000L * atomic_load(&fake->slowness_us)};
        nanosleep(&nap, NULL);
    }
    if (atomic_load(&fake->fail_forward) > 0 && atomic_fetch_sub(&fake->fail_forward, 1) == 1) run_fail(r, VLM_INTERNAL, "made to fail");
    uint64_t *value = run_alloc(r, (size_t)g->n_tokens * 8), *hidden = run_alloc(r, (size_t)g->n_tokens * 8);
    tensor logits = run_tensor(r, b->n_logits, FAKE_VOCAB);
    if (!run_ok(r)) return logits;
    bool missing = false;
    for (int t = 0; t < g->n_tokens; t++) {
        uint64_t row = 0;
        if (b->tokens[t] == FAKE_POISON) run_fail(r, VLM_INTERNAL, "poisoned token");
        for (int e = 0; e < b->n_embeds; e++)
            if (t >= b->embeds[e].first && t < b->embeds[e].first + b->embeds[e].count)
                row = (uint64_t)b->embeds[e].rows->data[(b->embeds[e].offset + t - b->embeds[e].first) * FAKE_HIDDEN];
        value[t] = fake_value(b->tokens[t], b->is_media[t], row, b->rope[0][t]);
        for (int group = 0; group < 2; group++) *fake_key(g, group, g->token_run[t], g->token_position[t], 0) = value[t];
    }
    for (int t = 0; t < g->n_tokens; t++) hidden[t] = fake_mix(fake_see(b, t, 0, &missing) + value[t]);
    for (int t = 0; t < g->n_tokens; t++)
        for (int group = 0; group < 2; group++) *fake_key(g, group, g->token_run[t], g->token_position[t], 1) = hidden[t];
    for (int i = 0, k = 0; i < g->n_runs; i++) {
        uint64_t state = 0;
        if (m->state_bytes && b->state[0][i]) memcpy(&state, b->state[0][i], 8);
        for (int t = g->run_first[i]; t < g->run_first[i + 1]; t++) {
            if (m->state_bytes) state = fake_mix(state + value[t]);
            if (k == b->n_logits || b->logit_tokens[k] != t) continue;
            uint64_t final = fake_mix(fake_see(b, t, 1, &missing) + state);
            TAP(r, "final", 0, ((tensor){&final, DT_F32, 1, 2, 2}));
            fake_logits(final, tensor_row(logits, k++));
        }
        if (m->state_bytes) memcpy(b->state[1][i], &state, 8);
    }
    if (missing) run_fail(r, VLM_INTERNAL, "a page is missing that is looked at");
    return logits;
}

static inline bool fake_encode_start(run *r, const vlm_model *m, encode_job *job)
{
    (void)r;
    atomic_fetch_add(&((fake_model *)m)->encodes, 1);
    job->stages = atomic_load(&((fake_model *)m)->stages);
    job->cost = 1;
    return true;
}

static inline bool fake_encode(run *r, const vlm_model *m, encode_job *job)
{
    int n = job->in->tokens;
    job->stage++;
    if (job->stage > 3) nanosleep(&(struct timespec){0, 100000}, NULL);
    if (job->stage < job->stages) return true;
    float *data = arena_alloc(job->memory, (size_t)(n ? n : 1) * FAKE_HIDDEN * sizeof *data);
    if (!data) return run_fail(r, VLM_MEMORY, "out of memory");
    for (int i = 0; i < n * FAKE_HIDDEN; i++) data[i] = i % FAKE_HIDDEN ? 0 : (float)fake_row(&job->in->key, i / FAKE_HIDDEN);
    job->rows = (tensor){data, DT_F32, n, FAKE_HIDDEN, FAKE_HIDDEN};
    return true;
}

static inline int32_t fake_media_token(const vlm_model *m, media_kind kind)
{
    return kind == MEDIA_IMAGE ? FAKE_IMAGE : kind == MEDIA_AUDIO ? FAKE_AUDIO : -1;
}

static inline void fake_init(fake_model *f, bool bidirectional, bool recurrent)
{
    *f = (fake_model){.arch = {.name = "fake", .forward = fake_forward, .encode_start = fake_encode_start, .encode = fake_encode,
                               .media_token = fake_media_token}};
    atomic_store(&f->stages, 3);
    f->m.arch = &f->arch;
    f->m.hidden = FAKE_HIDDEN;
    f->m.vocab = FAKE_VOCAB;
    f->m.context = 2000;
    f->m.rope_axes = 1;
    f->m.bidirectional_media = bidirectional;
    f->m.n_groups = 2;
    f->m.group[0] = (kv_shape){.kv_heads = 1, .head_dim = 4, .slots = 1, .type = DT_F32};
    f->m.group[1] = (kv_shape){.kv_heads = 1, .head_dim = 4, .slots = 1, .window = FAKE_WINDOW, .type = DT_F32};
    f->m.state_bytes = recurrent ? 64 : 0;
    f->m.takes = TAKES_IMAGE | TAKES_AUDIO;
    f->m.bos = -1;
    f->m.eos[0] = FAKE_EOS;
    f->m.n_eos = 1;
    f->m.temperature = f->m.top_p = NAN;
    f->m.top_k = -1;
    memset(&f->m.identity, 7, sizeof f->m.identity);
}

/* A prompt of n tokens that depend on `seed`; '#' in `media` is an image of 9 rows, '~' a sound of 5, '.' seven tokens of text. */
static inline prompt fake_prompt(const vlm_model *m, int seed, int n, const char *media)
{
    prompt p = {0};
    vlm_error error = {0};
    for (const char *c = media; c && *c; c++) {
        if (*c == '.') for (int i = 0; i < 7; i++) ids_add(&p.ids, 2 + (seed * 31 + i) % 90);
        else {
            media_input *in = MEM_NEW(media_input);
            in->kind = *c == '~' ? MEDIA_AUDIO : MEDIA_IMAGE;
            in->tokens = *c == '~' ? 5 : 9;
            memset(&in->key, 1 + seed, sizeof in->key);
            in->key.byte[0] = (uint8_t)p.n_media;
            in->key.byte[1] = (uint8_t)in->tokens;
            p.media = mem_resize(p.media, (size_t)p.n_media + 1, sizeof *p.media);
            p.media[p.n_media++] = in;
            for (int i = 0; i < in->tokens; i++) ids_add(&p.ids, *c == '~' ? FAKE_AUDIO : FAKE_IMAGE);
        }
    }
    for (int i = 0; (int)p.ids.count < n; i++) ids_add(&p.ids, (int32_t)(2 + fake_mix((uint64_t)(seed * 1000 + i)) % 90));
    if (!prompt_place(m, &p, &error)) fail_msg("%s", error.message);
    return p;
}

#endif
