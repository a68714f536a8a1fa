/* attention.c - keys and values into their pages, and attention over pages.
 *
 * Inside a page, for each slot and each head of keys: keys transposed [head_dim][KV_PAGE_TOKENS], then values
 * [KV_PAGE_TOKENS][head_dim]. So a vector holds one dimension of neighbouring keys, and scores need no sums across lanes.
 * Where values are columns of the keys (latent) only keys are stored; a tile, which has the rows of all heads, turns them once.
 *
 * Work is cut into tiles: some tokens of one run with the query heads that share one head of keys (a row each). A tile goes over
 * the keys in parts of PART positions at fixed places; each part is summed from nothing and then joined to the parts before it.
 * When there are too few tiles for the threads (one long sequence decodes), parts become work items of their own and are joined
 * afterwards: the same sums in the same order, so scheduling never shows in a result. */
#include <math.h>
#include <string.h>

#include "tensor/cpu/rows.h"

enum {
    PART = 4 * ATTEND_KEYS,                        /* positions summed from nothing */
    WIDEN_ROWS = 16,                               /* from so many rows on 16-bit keys are widened once for all of them */
    SMALL = 1 << 17,                               /* multiply-adds that one thread does sooner than several */
};

static int least(int a, int b) { return a < b ? a : b; }
static int64_t round16(int64_t n) { return (n + 15) & ~(int64_t)15; }

/* Where the keys of a slot and head start in a page, in values of the page's type; the values follow after head_dim * strip. */
static size_t head_at(const kv_shape *shape, int slot, int head)
{
    return (shape->latent ? 1 : 2) * ((size_t)slot * (size_t)shape->kv_heads + (size_t)head) * KV_PAGE_TOKENS * (size_t)shape->head_dim;
}

/* ---- writing ---- */

typedef struct write_job { const cpu_kernels *k; const ragged *b; int group, slot; tensor keys, values; float *scratch; } write_job;

static void scatter_key(char *to, const char *row, size_t unit, int head_dim)
{
    if (unit == 4) for (int d = 0; d < head_dim; d++) memcpy(to + (size_t)d * KV_PAGE_TOKENS * 4, row + (size_t)d * 4, 4);
    else for (int d = 0; d < head_dim; d++) memcpy(to + (size_t)d * KV_PAGE_TOKENS * 2, row + (size_t)d * 2, 2);
}

/* An item is one head of one run: no two threads write to one cache line of keys. */
static void write_heads(void *arg, int64_t begin, int64_t end, int thread)
{
    const write_job *j = arg;
    const kv_shape *shape = &j->b->group[j->group];
    size_t unit = dtype_size(shape->type), D = (size_t)shape->head_dim;
    float *row = j->scratch + (int64_t)thread * round16(shape->head_dim);
    for (int64_t item = begin; item < end; item++) {
        int seq = (int)(item / shape->kv_heads), head = (int)(item % shape->kv_heads);
        for (int i = j->b->run_first[seq]; i < j->b->run_first[seq + 1]; i++) {
            int p = j->b->token_position[i];
            char *page = j->b->pages[j->group][seq][p / KV_PAGE_TOKENS];
            if (!page) continue;                                            /* the window has passed already */
            size_t place = (size_t)p % KV_PAGE_TOKENS;
            char *keys = page + head_at(shape, j->slot, head) * unit, *values = keys + KV_PAGE_TOKENS * D * unit;
            j->k->narrow(row, shape->type, tensor_row(j->keys, i) + (size_t)head * D, shape->head_dim);
            scatter_key(keys + place * unit, (const char *)row, unit, shape->head_dim);
            if (!shape->latent) j->k->narrow(values + place * D * unit, shape->type, tensor_row(j->values, i) + (size_t)head * D, shape->head_dim);
        }
    }
}

void cpu_kv_write(run *r, const ragged *b, int group, int slot, tensor k, tensor v)
{
    arena_mark mark = arena_get_mark(r->scratch);
    const kv_shape *shape = &b->group[group];
    tensor scratch = run_tensor(r, pool_threads(r->dev->pool), round16(shape->head_dim));
    write_job j = {cpu_kernels_of(r), b, group, slot, k, v, scratch.data};
    int64_t items = (int64_t)b->n_runs * shape->kv_heads, values = 2 * k.rows * k.cols;
    if (run_ok(r)) pool_for(r->dev->pool, items, values < 16384 ? items : 1, write_heads, &j);
    arena_release(r->scratch, mark);
}

/* ---- tiles ---- */

typedef struct span { int seq, first, tokens, from, to; } span;             /* some of its tokens see keys in [from, to) */
typedef struct item { int tile, head, part; size_t state; } item;           /* part -1: all; state: its place in paged_job.states */

typedef struct paged_job {
    const cpu_kernels *k;
    const ragged *b;
    const attention_spec *s;
    tensor q, out;
    span *tiles;
    item *items;
    int sharing;                                   /* query heads to a head of keys */
    int value_dim;
    int rows;                                      /* of the largest tile */
    char *scratch;                                 /* [thread] */
    size_t scratch_bytes;
    float *states;                                 /* of parts that are joined later */
} paged_job;

/* One past the last position that token i sees. */
static int32_t reach(const ragged *b, const attention_spec *s, int i)
{
    return (s->bidirectional || s->whole_blocks) && b->see_to ? b->see_to[i] : b->token_position[i] + 1;
}

/* Positions that token i sees; joined blocks behind its own come on top. */
static void sees(const ragged *b, const attention_spec *s, int i, int32_t *first, int32_t *end)
{
    int window = b->group[s->group].window;
    int32_t p = b->token_position[i];
    const joined_blocks *joined = b->joined ? b->joined[b->token_run[i]] : NULL;
    *end = reach(b, s, i);
    for (int k = 0; joined && *end > p + 1 && k < joined->count; k++)
        if (p >= joined->place[2 * k] && p < joined->place[2 * k + 1]) *end = joined->place[2 * k + 1];
    *first = window && p - window + 1 > 0 ? p - window + 1 : 0;
    if (window && b->group[s->group].chunked) *first = p - p % window;
    if (s->whole_blocks && b->see_from && b->see_from[i] < *first) *first = b->see_from[i];
}

static size_t state_floats(int rows, int head_dim) { return (size_t)round16(rows) * (2 + (size_t)round16(head_dim)); }

/* A state of `rows` rows in memory of state_floats(rows, head_dim); nothing seen yet. */
static attend_rows fresh_state(float *memory, int rows, const paged_job *j)
{
    attend_rows t = {.rows = rows, .head_dim = j->s->head_dim, .value_dim = j->value_dim, .o_stride = round16(j->value_dim), .scale = j->s->scale,
                     .cap = j->s->softcap};
    t.most = memory;
    t.sum = t.most + round16(rows);
    t.o = t.sum + round16(rows);
    for (int i = 0; i < rows; i++) t.most[i] = -INFINITY, t.sum[i] = 0;
    memset(t.o, 0, (size_t)rows * (size_t)t.o_stride * sizeof(float));
    return t;
}

/* The block of pages at position `base`; `wide`: room to widen it, and to turn latent values. Strips without a page repeat one that has. */
static attend_block block_at(const paged_job *j, int seq, int head, int32_t base, int32_t from, int32_t to, bool widen, float *wide)
{
    const kv_shape *shape = &j->b->group[j->s->group];
    size_t at = head_at(shape, j->s->slot, head), half = (size_t)KV_PAGE_TOKENS * (size_t)shape->head_dim, unit = dtype_size(shape->type);
    attend_block block = {.value_stride = j->value_dim, .type = widen ? DT_F32 : shape->type};
    int some = 0;
    for (int strip = 0; strip < ATTEND_STRIPS; strip++) {
        int32_t p = base + strip * ATTEND_STRIP;
        if (p + ATTEND_STRIP <= from || p >= to) continue;
        const char *keys = (const char *)j->b->pages[j->s->group][seq][p / KV_PAGE_TOKENS] + at * unit;
        float *copy = wide + (widen || shape->latent ? 2 * half * (size_t)strip : 0), *values = copy + half;
        block.keys[strip] = keys;
        block.values[strip] = keys + half * unit;
        if (widen) {
            j->k->widen(copy, keys, shape->type, (int64_t)half);
            block.keys[strip] = copy;
        }
        if (shape->latent) j->k->turn_values(values, block.keys[strip], shape->latent);
        else if (widen) j->k->widen(values, block.values[strip], shape->type, (int64_t)least(KV_PAGE_TOKENS, to - p) * shape->head_dim);
        if (widen || shape->latent) block.values[strip] = values;
        some = strip;
    }
    for (int strip = 0; strip < ATTEND_STRIPS; strip++)
        if (!block.keys[strip]) block.keys[strip] = block.keys[some], block.values[strip] = block.values[some];
    return block;
}

/* What a thread needs for a tile, cut from its scratch. */
typedef struct desk { float *q, *total, *part, *wide; int32_t *first, *end, *joined_first, *joined_end; const float **rows; } desk;

/* The block's keys that rows see besides their own range: those of joined blocks behind it. first, end: room for a number for each row. */
static void attend_joined(const paged_job *j, const attend_rows *t, const span *tile, const attend_block *block, int32_t base, int32_t *first, int32_t *end)
{
    const joined_blocks *joined = j->b->joined ? j->b->joined[tile->seq] : NULL;
    for (int k = 0; joined && k < joined->count; k++) {
        int32_t from = joined->place[2 * k], to = joined->place[2 * k + 1];
        bool any = false;
        if (from >= base + ATTEND_KEYS || to <= base) continue;
        for (int i = 0; i < t->rows; i++) {
            bool more = from >= t->end[i] && reach(j->b, j->s, tile->first + i / j->sharing) > t->end[i];
            first[i] = more ? from : 0;
            end[i] = more ? to : 0;
            any |= more;
        }
        attend_rows rows = *t;
        rows.first = first, rows.end = end;
        if (any) j->k->attend(&rows, block, base);
    }
}

/* Sums part `part` of the keys into t. */
static void attend_part(const paged_job *j, const attend_rows *t, const span *tile, int head, int part, const desk *d)
{
    const kv_shape *shape = &j->b->group[j->s->group];
    bool widen = shape->type != DT_F32 && (t->rows >= WIDEN_ROWS || shape->latent);
    int32_t from = part * PART > tile->from ? part * PART : tile->from, to = (part + 1) * PART < tile->to ? (part + 1) * PART : tile->to;
    for (int32_t base = from / ATTEND_KEYS * ATTEND_KEYS; base < to; base += ATTEND_KEYS) {
        attend_block block = block_at(j, tile->seq, head, base, from, to, widen, d->wide);
        j->k->attend(t, &block, base);
        attend_joined(j, t, tile, &block, base, d->joined_first, d->joined_end);
    }
}

static void finish(const paged_job *j, const attend_rows *t, const span *tile, int head)
{
    for (int i = 0; i < t->rows; i++) {
        int h = head * j->sharing + i % j->sharing;
        float *out = tensor_row(j->out, tile->first + i / j->sharing) + (int64_t)h * j->value_dim;
        j->k->attend_finish(out, t, i, j->s->sinks ? j->s->sinks + h : NULL);
    }
}

static size_t desk_layout(desk *d, char *at, int rows, int head_dim, bool widen)
{
    char *start = at;
    size_t n = (size_t)round16(rows), state = state_floats(rows, head_dim) * sizeof(float);
    d->q = (float *)at, at += n * (size_t)round16(head_dim) * sizeof(float);
    d->total = (float *)at, at += state;
    d->part = (float *)at, at += state;
    d->wide = widen ? (float *)at : NULL, at += widen ? 2 * ATTEND_KEYS * (size_t)round16(head_dim) * sizeof(float) : 0;
    d->first = (int32_t *)at, at += n * sizeof(int32_t);
    d->end = (int32_t *)at, at += n * sizeof(int32_t);
    d->joined_first = (int32_t *)at, at += n * sizeof(int32_t);
    d->joined_end = (int32_t *)at, at += n * sizeof(int32_t);
    d->rows = (const float **)at, at += n * sizeof(float *);
    return (size_t)(at - start);
}

static void paged_items(void *arg, int64_t begin, int64_t end, int thread)
{
    const paged_job *j = arg;
    const attention_spec *s = j->s;
    bool narrow = j->b->group[s->group].type != DT_F32 || j->b->group[s->group].latent;
    desk d;
    desk_layout(&d, j->scratch + (size_t)thread * j->scratch_bytes, j->rows, s->head_dim, narrow);
    for (int64_t n = begin; n < end; n++) {
        const item *it = &j->items[n];
        const span *tile = &j->tiles[it->tile];
        int rows = tile->tokens * j->sharing;
        for (int i = 0; i < rows; i++) {
            int token = tile->first + i / j->sharing, h = it->head * j->sharing + i % j->sharing;
            d.rows[i] = tensor_row(j->q, token) + (int64_t)h * s->head_dim;
            sees(j->b, s, token, &d.first[i], &d.end[i]);
        }
        j->k->attend_queries(d.q, d.rows, rows, s->head_dim);
        int first_part = it->part < 0 ? tile->from / PART : it->part, last_part = it->part < 0 ? (tile->to - 1) / PART : it->part;
        attend_rows total = fresh_state(it->part < 0 ? d.total : j->states + it->state, rows, j), sum = total;
        for (int part = first_part; part <= last_part; part++) {
            if (part > first_part) sum = fresh_state(d.part, rows, j);
            sum.q = d.q, sum.first = d.first, sum.end = d.end;
            attend_part(j, &sum, tile, it->head, part, &d);
            if (part > first_part) j->k->attend_merge(&total, &sum);
        }
        if (it->part < 0) finish(j, &total, tile, it->head);
    }
}

/* After parts went to different threads: items of one tile and head lie side by side, joined in order by whoever has the first. */
static void join_items(void *arg, int64_t begin, int64_t end, int thread)
{
    const paged_job *j = arg;
    for (int64_t n = begin; n < end; n++) {
        const item *it = &j->items[n];
        const span *tile = &j->tiles[it->tile];
        if (it->part != tile->from / PART) continue;
        int rows = tile->tokens * j->sharing;
        attend_rows total = {.rows = rows, .head_dim = j->s->head_dim, .value_dim = j->value_dim, .o_stride = round16(j->value_dim)}, part = total;
        for (int p = it->part; p <= (tile->to - 1) / PART; p++, it++) {
            attend_rows *t = p == tile->from / PART ? &total : &part;
            t->most = j->states + it->state;
            t->sum = t->most + round16(rows);
            t->o = t->sum + round16(rows);
            if (t == &part) j->k->attend_merge(&total, &part);
        }
        finish(j, &total, tile, (int)j->items[n].head);
    }
}

/* Tiles of all runs; with tiles NULL only counts. *work: multiply-adds. */
static int cut_tiles(const paged_job *j, int tokens, span *tiles, int64_t *work)
{
    int count = 0;
    *work = 0;
    for (int seq = 0; seq < j->b->n_runs; seq++) {
        for (int i = j->b->run_first[seq]; i < j->b->run_first[seq + 1]; i += tokens) {
            span t = {seq, i, least(tokens, j->b->run_first[seq + 1] - i), INT32_MAX, 0};
            for (int token = i; token < i + t.tokens; token++) {
                int32_t first, end;
                sees(j->b, j->s, token, &first, &end);
                end = reach(j->b, j->s, token);
                if (first < t.from) t.from = first;
                if (end > t.to) t.to = end;
            }
            *work += 2 * (int64_t)t.tokens * (t.to - t.from) * j->q.cols;
            if (tiles) tiles[count] = t;
            count++;
        }
    }
    return count;
}

/* Items of all tiles; with items NULL only counts. *floats: states of parts. */
static int64_t cut_items(const paged_job *j, int n_tiles, bool split, item *items, size_t *floats)
{
    int64_t count = 0;
    *floats = 0;
    for (int t = 0; t < n_tiles; t++) {
        const span *tile = &j->tiles[t];
        for (int head = 0; head < j->s->kv_heads; head++) {
            int first = split ? tile->from / PART : -1, last = split ? (tile->to - 1) / PART : -1;
            for (int part = first; part <= last; part++, count++) {
                if (items) items[count] = (item){t, head, part, *floats};
                if (split) *floats += state_floats(tile->tokens * j->sharing, j->s->head_dim);
            }
        }
    }
    return count;
}

void cpu_attention(run *r, tensor out, tensor q, const ragged *b, const attention_spec *s)
{
    arena_mark mark = arena_get_mark(r->scratch);
    paged_job j = {.k = cpu_attend_kernels(r, s, true), .b = b, .s = s, .q = q, .out = out, .sharing = s->heads / s->kv_heads,
                   .value_dim = kv_value_dim(&b->group[s->group])};
    int threads = pool_threads(r->dev->pool), tokens = j.k->tile_rows / j.sharing > 1 ? j.k->tile_rows / j.sharing : 1;
    int64_t work;
    int n_tiles = cut_tiles(&j, tokens, NULL, &work);
    j.tiles = run_alloc(r, (size_t)n_tiles * sizeof *j.tiles);
    if (!run_ok(r)) return;
    cut_tiles(&j, tokens, j.tiles, &work);
    int longest = 0;
    for (int t = 0; t < n_tiles; t++) {
        if (j.tiles[t].tokens * j.sharing > j.rows) j.rows = j.tiles[t].tokens * j.sharing;
        if (j.tiles[t].to - j.tiles[t].from > longest) longest = j.tiles[t].to - j.tiles[t].from;
    }
    bool small = work < SMALL || threads == 1, split = !small && longest > PART && (int64_t)n_tiles * s->kv_heads < 2 * (int64_t)threads;
    size_t floats;
    int64_t items = cut_items(&j, n_tiles, split, NULL, &floats);
    desk d;
    j.scratch_bytes = (desk_layout(&d, NULL, j.rows, s->head_dim, b->group[s->group].type != DT_F32 || b->group[s->group].latent) + 63) & ~(size_t)63;
    j.items = run_alloc(r, (size_t)items * sizeof *j.items);
    j.scratch = run_tensor(r, small ? 1 : threads, (int64_t)(j.scratch_bytes / sizeof(float))).data;
    j.states = split ? run_tensor(r, 1, (int64_t)floats).data : NULL;
    if (run_ok(r)) {
        cut_items(&j, n_tiles, split, j.items, &floats);
        pool_for(r->dev->pool, items, small ? items : 1, paged_items, &j);
        if (split) pool_for(r->dev->pool, items, 1, join_items, &j);
    }
    arena_release(r->scratch, mark);
}
