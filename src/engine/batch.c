/* batch.c - see batch.h. */
#include "engine/batch.h"

#include <string.h>

#include "base/err.h"

/* *pointer is a pointer to elements of `size` bytes, of whatever type. */
static bool grow(void *pointer, size_t n, size_t size)
{
    void *old, *more;
    memcpy(&old, pointer, sizeof old);
    if (!(more = mem_resize(old, n, size))) return false;
    memcpy(pointer, &more, sizeof more);
    return true;
}

static bool grow_tokens(batch_builder *b, int axes, int n)
{
    if (n <= b->token_capacity) return true;
    size_t c = (size_t)n + (size_t)n / 2;
    int32_t **lists[] = {&b->token_run, &b->token_position, &b->see_to, &b->see_from, &b->tokens, &b->far, &b->logit_tokens,
                         &b->memory_from, &b->memory_to};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        if (!grow(lists[i], c, sizeof(int32_t))) return false;
    for (int a = 0; a < axes; a++)
        if (!grow(&b->rope[a], c, sizeof(int32_t))) return false;
    if (!grow(&b->is_media, c, 1) || !grow(&b->adapters, c, sizeof(uint64_t)) || !grow(&b->hidden, c, sizeof(float *))) return false;
    b->token_capacity = (int)c;
    return true;
}

static bool grow_runs(batch_builder *b, int groups, int n)
{
    if (n <= b->run_capacity) return true;
    size_t c = (size_t)n + (size_t)n / 2 + 1;
    if (!grow(&b->run_first, c + 1, sizeof(int32_t)) || !grow(&b->run_position, c, sizeof(int32_t))) return false;
    if (!grow(&b->memory_rows, c, sizeof(int32_t)) || !grow(&b->memories, c, sizeof(void *))) return false;
    for (int g = 0; g < groups; g++)
        if (!grow(&b->tables[g], c, sizeof(void *))) return false;
    for (int i = 0; i < 2; i++)
        if (!grow(&b->states[i], c, sizeof(void *))) return false;
    if (!grow(&b->joined, c, sizeof(void *))) return false;
    b->run_capacity = (int)c;
    return true;
}

void batch_free(batch_builder *b)
{
    int32_t *lists[] = {b->run_first, b->run_position, b->token_run, b->token_position, b->see_to, b->see_from, b->tokens, b->far, b->logit_tokens,
                        b->memory_rows, b->memory_from, b->memory_to};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) mem_free(lists[i]);
    for (int a = 0; a < MAX_ROPE_AXES; a++) mem_free(b->rope[a]);
    for (int g = 0; g < MAX_KV_GROUPS; g++) mem_free(b->tables[g]);
    mem_free(b->memories);
    mem_free(b->states[0]);
    mem_free(b->states[1]);
    mem_free(b->joined);
    mem_free(b->is_media);
    mem_free(b->adapters);
    mem_free(b->hidden);
    mem_free(b->embeds);
    *b = (batch_builder){0};
}

static bool add_source(batch_builder *b, embed_rows source)
{
    if (b->batch.n_embeds == b->embed_capacity) {
        int c = b->embed_capacity ? 2 * b->embed_capacity : 16;
        if (!grow(&b->embeds, (size_t)c, sizeof *b->embeds)) return false;
        b->embed_capacity = c;
    }
    b->embeds[b->batch.n_embeds++] = source;
    return true;
}

/* Media rows under tokens [first, end) of a prompt. */
static bool add_embeds(batch_builder *b, const prompt *p, int first, int end, int base)
{
    for (int i = 0; i < p->n_spans && p->spans[i].first < end; i++) {
        const media_span *span = &p->spans[i];
        int from = span->first > first ? span->first : first, to = span->first + span->count;
        if (to > end) to = end;
        if (from >= to) continue;
        if (!add_source(b, (embed_rows){.first = base + from - first, .count = to - from, .rows = vision_rows(p->rows[span->media]),
                                        .offset = span->row + from - span->first, .kind = p->media[span->media]->kind}))
            return false;
        for (int t = from; t < to; t++) b->is_media[base + t - first] = 1;
    }
    return true;
}

/* Returns whether the run touches a media block that sees itself whole. */
static bool add_tokens(batch_builder *b, const vlm_model *m, const planned *part, int index, int base)
{
    const sequence *seq = part->seq;
    const prompt *p = seq->prompt;
    bool blocks = false;
    for (int i = 0; i < part->count; i++) {
        int position = part->first + i, t = base + i;
        bool in_prompt = position < seq->n_prompt;
        b->token_run[t] = index;
        b->token_position[t] = position;
        b->tokens[t] = seq->tokens[position];
        b->is_media[t] = 0;
        b->adapters[t] = seq->adapters;
        b->far[t] = seq->far;
        for (int a = 0; a < m->rope_axes; a++)
            b->rope[a][t] = in_prompt ? p->rope[a][position] : p->rope_next + position - seq->n_prompt;
        b->see_to[t] = in_prompt && p->see_to ? p->see_to[position] : position + 1;
        b->see_from[t] = in_prompt && p->see_from ? p->see_from[position] : position;
        blocks |= b->see_to[t] != position + 1 || b->see_from[t] != position;
        int like = in_prompt ? position : seq->n_prompt - 1;      /* the answer sees what the prompt's last token sees */
        b->memory_from[t] = p->memory.from ? p->memory.from[like] : 0;
        b->memory_to[t] = p->memory.to ? p->memory.to[like] : p->memory.rows;
    }
    return blocks;
}

/* Where the decoder's row of the token at `position` goes; NULL: it is for logits. */
static float *row_wanted(const sequence *seq, int position, int hidden)
{
    return seq->hidden ? seq->hidden + (seq->every ? (size_t)position * (size_t)hidden : 0) : NULL;
}

bool batch_build(batch_builder *b, const vlm_model *m, const planned *plan, int count, vlm_error *error)
{
    int n = 0, runs = count;
    for (int i = 0; i < runs; i++) n += plan[i].count;
    if (!grow_tokens(b, m->rope_axes, n) || !grow_runs(b, m->n_groups, runs)) return err_memory(error, (size_t)n * 40);
    b->batch = (batch){0};
    bool blocks = false, joined = false, adapted = false, far = false, rows_wanted = false;
    int base = 0, logits = 0;
    for (int i = 0; i < runs; i++) {
        const planned *part = &plan[i];
        b->run_first[i] = base;
        b->run_position[i] = part->first;
        adapted |= part->seq->adapters != 0;
        far |= part->seq->far;
        blocks |= add_tokens(b, m, part, i, base);
        if (part->first < part->seq->n_prompt && !add_embeds(b, part->seq->prompt, part->first, part->first + part->count, base))
            return err_memory(error, sizeof(embed_rows));
        for (int g = 0; g < m->n_groups; g++) b->tables[g][i] = part->seq->table[g].data;
        b->joined[i] = part->first < part->seq->n_prompt && part->seq->prompt->joined.count ? &part->seq->prompt->joined : NULL;
        joined |= b->joined[i] != NULL;
        b->memories[i] = part->seq->memory.data;
        b->memory_rows[i] = part->seq->prompt->memory.rows;
        b->states[0][i] = part->seq->state ? part->seq->state->data : NULL;
        b->states[1][i] = part->seq->next_state ? part->seq->next_state->data : NULL;
        base += part->count;
        for (int k = part->logits; k > 0; k--) {
            b->hidden[logits] = row_wanted(part->seq, part->first + part->count - k, m->hidden);
            rows_wanted |= b->hidden[logits] != NULL;
            b->logit_tokens[logits++] = base - k;
        }
    }
    b->run_first[runs] = base;
    ragged *r = &b->batch.ragged;
    r->n_tokens = n;
    r->n_runs = runs;
    r->run_first = b->run_first;
    r->run_position = b->run_position;
    r->token_run = b->token_run;
    r->token_position = b->token_position;
    r->see_to = blocks ? b->see_to : NULL;
    r->see_from = blocks ? b->see_from : NULL;
    r->joined = joined ? b->joined : NULL;
    r->n_groups = m->n_groups;
    for (int g = 0; g < m->n_groups; g++) {
        r->group[g] = m->group[g];
        r->pages[g] = b->tables[g];
    }
    b->batch.tokens = b->tokens;
    b->batch.is_media = b->is_media;
    for (int a = 0; a < m->rope_axes; a++) b->batch.rope[a] = b->rope[a];
    b->batch.embeds = b->embeds;
    b->batch.logit_tokens = b->logit_tokens;
    b->batch.n_logits = logits;
    b->batch.hidden = rows_wanted ? b->hidden : NULL;
    b->batch.adapters = adapted ? b->adapters : NULL;
    b->batch.far = far ? b->far : NULL;
    b->batch.state[0] = b->states[0];
    b->batch.state[1] = b->states[1];
    b->batch.memory = m->memory_shape;
    b->batch.memory_pages = b->memories;
    b->batch.memory_rows = b->memory_rows;
    b->batch.memory_from = b->memory_from;
    b->batch.memory_to = b->memory_to;
    return true;
}

/* Rows [first, end) of a memory. */
static bool add_parts(batch_builder *b, const prompt *p, int first, int end, int base)
{
    int at = 0;
    for (int i = 0; i < p->memory.n_parts && at < end; at += p->memory.parts[i++].count) {
        const memory_part *part = &p->memory.parts[i];
        int from = at > first ? at : first, to = at + part->count < end ? at + part->count : end;
        if (from < to && !add_source(b, (embed_rows){.first = base + from - first, .count = to - from, .rows = vision_rows(p->rows[part->media]),
                                                     .offset = part->row + from - at, .kind = p->media[part->media]->kind}))
            return false;
    }
    return true;
}

bool batch_build_fill(batch_builder *b, const vlm_model *m, const scheduler *s, memory_fill *out, vlm_error *error)
{
    int n = 0, base = 0;
    for (int i = 0; i < s->n_fill; i++) n += s->fill[i].count;
    if (!grow_tokens(b, m->rope_axes, n) || !grow_runs(b, m->n_groups, s->n_fill)) return err_memory(error, (size_t)n * 40);
    b->batch.n_embeds = 0;
    for (int i = 0; i < s->n_fill; i++) {
        const filling *f = &s->fill[i];
        b->run_first[i] = base;
        b->run_position[i] = f->first;
        b->memories[i] = f->seq->memory.data;
        for (int k = 0; k < f->count; k++) {
            b->token_run[base + k] = i;
            b->token_position[base + k] = f->first + k;
            b->adapters[base + k] = f->seq->adapters;
        }
        if (!add_parts(b, f->seq->prompt, f->first, f->first + f->count, base)) return err_memory(error, sizeof(embed_rows));
        base += f->count;
    }
    b->run_first[s->n_fill] = base;
    *out = (memory_fill){.ragged = {.n_tokens = n, .n_runs = s->n_fill, .run_first = b->run_first, .run_position = b->run_position,
                                    .token_run = b->token_run, .token_position = b->token_position, .n_groups = 1, .group = {m->memory_shape},
                                    .pages = {b->memories}},
                         .sources = b->embeds, .n_sources = b->batch.n_embeds, .adapters = b->adapters};
    return true;
}
