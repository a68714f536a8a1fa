/* attention.c - cases: keys and values in pages, attention over them, attention of encoders.
 *
 * Outputs are means of values of size about 1; a score of size 10 is off by some 1e-6, and so is its probability: 1e-5 absolute
 * covers scores, exponentials and sums. Pages are filled with NaN before: what was not written must not be seen. */
#include <math.h>
#include <string.h>

#include "ops_test.h"

#define NEAR 1e-5

/* Fast precision may round queries, keys, values and probabilities to bf16 (2^-9 each): scores of size 5 are off by some 0.01, values by
 * 0.005. Elsewhere it is as exact as ever. */
static double near(const ops_test *t) { return t->precision == PRECISION_FAST && strcmp(t->dev.isa, "amx") == 0 ? 0.06 : NEAR; }

/* A ragged batch with pages for the oracle (0) and for the backend under test (1). */
typedef struct paged {
    ragged batch[2];
    tensor past_k[8], past_v[8];                   /* keys before the batch, by run */
    int past[8];
    int32_t *first, *position, *token_run, *token_position, *see_to, *see_from;
    const joined_blocks *joined[8];
} paged;

static int32_t *ints(ops_test *t, int n) { return t_alloc(t, (size_t)(n + 1) * sizeof(int32_t)); }

/* Some of the blocks that see each other, of those of put_blocks. */
static void join_blocks(ops_test *t, paged *p, int seq)
{
    joined_blocks *b = t_alloc(t, sizeof *b);
    int32_t *place = ints(t, 2 * (p->first[seq + 1] - p->first[seq]));
    b->place = place;
    p->joined[seq] = b;
    for (int i = p->first[seq]; i < p->first[seq + 1]; i++) {
        if (p->see_to[i] == p->token_position[i] + 1) continue;            /* the block's last token, too: then it is text */
        if (b->count && place[2 * b->count - 1] == p->token_position[i]) place[2 * b->count - 1]++;
        else place[2 * b->count] = p->token_position[i], place[2 * b->count++ + 1] = p->token_position[i] + 1;
    }
    for (int i = p->first[seq]; i < p->first[seq + 1]; i++)
        if (p->see_to[i] != p->token_position[i] + 1) p->see_to[i] = place[2 * b->count - 1];
}

/* Media blocks: some stretches of a run's tokens see each other. */
static void put_blocks(ops_test *t, paged *p, int seq)
{
    for (int i = p->first[seq]; i < p->first[seq + 1];) {
        int n = t_between(t, 1, 20), left = p->first[seq + 1] - i;
        if (n > left) n = left;
        bool block = t_below(t, 2);
        for (int k = i; k < i + n; k++) {
            p->see_to[k] = block ? p->token_position[i] + n : p->token_position[k] + 1;
            p->see_from[k] = block ? p->token_position[i] : p->token_position[k];
        }
        i += n;
    }
}

static void make_runs(ops_test *t, paged *p, int n_runs, int most_past, int most_tokens)
{
    p->first = ints(t, n_runs), p->position = ints(t, n_runs);
    for (int seq = 0; seq < n_runs; seq++) {
        int n = t_below(t, 3) ? 1 : t_between(t, 1, most_tokens);
        p->past[seq] = p->position[seq] = t_below(t, 4) ? t_between(t, 0, most_past) : 32 * t_between(t, 0, most_past / 32);
        p->first[seq + 1] = p->first[seq] + n;
    }
    int n = p->first[n_runs];
    p->token_run = ints(t, n), p->token_position = ints(t, n), p->see_to = ints(t, n), p->see_from = ints(t, n);
    for (int seq = 0; seq < n_runs; seq++) {
        for (int i = p->first[seq]; i < p->first[seq + 1]; i++) p->token_run[i] = seq, p->token_position[i] = p->position[seq] + i - p->first[seq];
        put_blocks(t, p, seq);
        if (t_below(t, 3) == 0) join_blocks(t, p, seq);
    }
}

static void ***make_pages(ops_test *t, const paged *p, const kv_shape *shape, int n_runs)
{
    void ***tables = t_alloc(t, (size_t)n_runs * sizeof *tables);
    for (int seq = 0; seq < n_runs; seq++) {
        int end = p->past[seq] + p->first[seq + 1] - p->first[seq], pages = (end + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS;
        tables[seq] = t_alloc(t, (size_t)pages * sizeof(void *));
        for (int i = 0; i < pages; i++) tables[seq][i] = memset(t_alloc(t, kv_page_bytes(shape)), 0xff, kv_page_bytes(shape));
    }
    return tables;
}

/* Tokens [from, from + n) of run `seq` alone. Memory of the test. */
static ragged one_run(ops_test *t, const ragged *b, int seq, int from, int n)
{
    ragged r = *b;
    int32_t *first = ints(t, 1), *position = ints(t, 0), *zeros = ints(t, n);
    first[1] = n, position[0] = b->token_position[from];
    r.n_tokens = n, r.n_runs = 1, r.run_first = first, r.run_position = position, r.token_run = zeros;
    r.token_position = b->token_position + from;
    r.see_to = b->see_to ? b->see_to + from : NULL;
    r.see_from = b->see_from ? b->see_from + from : NULL;
    r.joined = b->joined ? b->joined + seq : NULL;
    for (int g = 0; g < b->n_groups; g++) r.pages[g] = b->pages[g] + seq;
    return r;
}

/* Writes positions [0, past) of each run, in chunks. */
static void write_past(ops_test *t, paged *p, int group, int slot)
{
    int64_t cols = (int64_t)p->batch[0].group[group].kv_heads * p->batch[0].group[group].head_dim;
    for (int seq = 0; seq < p->batch[0].n_runs; seq++) {
        tensor k = t_random(t, p->past[seq], cols, 1), v = t_random(t, p->past[seq], cols, 1);
        int32_t *position = ints(t, p->past[seq]);
        for (int i = 0; i < p->past[seq]; i++) position[i] = i;
        for (int from = 0, n; from < p->past[seq]; from += n) {
            n = t_between(t, 1, p->past[seq] - from);
            for (int side = 0; side < 2; side++) {
                ragged whole = p->batch[side];
                whole.token_position = position, whole.see_to = whole.see_from = NULL, whole.joined = NULL;
                ragged part = one_run(t, &whole, seq, from, n);
                if (side == 0) ON(t, ref, kv_write, &part, group, slot, tensor_rows(k, from, n), tensor_rows(v, from, n));
                else ON(t, dev, kv_write, &part, group, slot, tensor_rows(k, from, n), tensor_rows(v, from, n));
            }
        }
    }
}

/* Pages that no token of a run sees any more are gone, as the engine does it. */
static void drop_passed(paged *p, void ***pages[2], int window)
{
    for (int seq = 0; window && seq < p->batch[0].n_runs; seq++) {
        int least = p->position[seq] - window + 1;
        for (int i = p->first[seq]; i < p->first[seq + 1]; i++) if (p->see_from[i] < least) least = p->see_from[i];
        for (int page = 0; (page + 1) * KV_PAGE_TOKENS <= least; page++) pages[0][seq][page] = pages[1][seq][page] = NULL;
    }
}

static void check_attention(ops_test *t)
{
    static const int dims[] = {8, 16, 24, 32, 64, 72, 80, 96, 128, 256}, shares[] = {1, 1, 2, 3, 4, 7, 8};
    static const dtype types[] = {DT_F32, DT_BF16, DT_F16};
    paged p = {0};
    bool deep = t_below(t, 5) == 0;                                        /* several parts */
    int n_runs = deep ? 1 : t_between(t, 1, 4);
    kv_shape shape = {.kv_heads = t_between(t, 1, 3), .head_dim = t_pick(t, deep ? 5 : 10, dims), .slots = t_between(t, 1, 2), .type = types[t_below(t, 3)]};
    shape.chunked = t_below(t, 3) == 0;
    if (t_below(t, 2)) shape.window = deep ? t_between(t, 1, 1500) : t_between(t, 1, 150);
    if (t_below(t, 4) == 0) {
        if (t_below(t, 4) == 0) shape.kv_heads = 1, shape.head_dim = 576, shape.latent = 512;          /* DeepSeek's */
        else shape.latent = t_between(t, 1, shape.head_dim);
    }
    attention_spec s = {.kv_heads = shape.kv_heads, .head_dim = shape.head_dim, .group = 1, .slot = t_between(t, 0, shape.slots - 1)};
    s.heads = s.kv_heads * t_pick(t, 7, shares);
    s.scale = 1 / sqrtf((float)s.head_dim);
    s.softcap = t_below(t, 3) ? 0 : 20;
    s.sinks = t_below(t, 3) ? NULL : t_values(t, s.heads, 2);
    s.bidirectional = t_below(t, 2);
    s.whole_blocks = t_below(t, 4) == 0;
    make_runs(t, &p, n_runs, deep ? 1700 : 250, deep ? 3 : 60);
    int n = p.first[n_runs];
    void ***pages[2] = {make_pages(t, &p, &shape, n_runs), make_pages(t, &p, &shape, n_runs)};
    for (int side = 0; side < 2; side++) {
        p.batch[side] = (ragged){.n_tokens = n, .n_runs = n_runs, .run_first = p.first, .run_position = p.position, .token_run = p.token_run,
                                 .token_position = p.token_position, .see_to = p.see_to, .see_from = p.see_from, .joined = p.joined, .n_groups = 2, .group = {{0}, shape}};
        p.batch[side].pages[1] = (void *const *const *)pages[side];
    }
    t_shape(t, "%d tokens in %d runs, %d heads, %d key heads of %d (latent %d), %s, window %d, past %d%s%s%s", n, n_runs, s.heads, s.kv_heads, s.head_dim, shape.latent,
            dtype_name(shape.type), shape.window, p.past[0], s.bidirectional ? ", both ways" : "", s.whole_blocks ? ", whole blocks" : "", s.sinks ? ", sinks" : "");
    write_past(t, &p, 1, s.slot);
    drop_passed(&p, pages, shape.window);
    int64_t cols = (int64_t)s.kv_heads * s.head_dim;
    tensor k = t_random(t, n, cols, 1), v = t_random(t, n, cols, 1), q = t_random(t, n, (int64_t)s.heads * s.head_dim, 1.5f);
    ON(t, ref, kv_write, &p.batch[0], 1, s.slot, k, v);
    ON(t, dev, kv_write, &p.batch[1], 1, s.slot, k, v);
    int64_t out = (int64_t)s.heads * kv_value_dim(&shape);
    tensor want = t_output(t, n, out), got = t_output(t, n, out);
    ON(t, ref, attention, want, q, &p.batch[0], &s);
    ON(t, dev, attention, got, q, &p.batch[1], &s);
    t_near(t, got, want, near(t), near(t));
    int seq = t_between(t, 0, n_runs - 1), from = t_between(t, p.first[seq], p.first[seq + 1] - 1), some = t_between(t, 1, p.first[seq + 1] - from);
    ragged alone = one_run(t, &p.batch[1], seq, from, some);
    tensor part = t_output(t, some, out);
    ON(t, one, attention, part, tensor_rows(q, from, some), &alone, &s);
    t_same(t, part, tensor_rows(got, from, some));
    t_guards(t, part);
}

static void check_segments(ops_test *t)
{
    static const int dims[] = {4, 16, 20, 64, 72, 80, 128};
    attention_spec s = {.kv_heads = t_between(t, 1, 3), .head_dim = t_pick(t, 7, dims)};
    s.heads = s.kv_heads * (t_below(t, 3) ? 1 : t_between(t, 2, 4));
    s.scale = 1 / sqrtf((float)s.head_dim);
    s.softcap = t_below(t, 3) ? 0 : 20;
    s.sinks = t_below(t, 4) ? NULL : t_values(t, s.heads, 2);
    int segments = t_between(t, 1, 5);
    int32_t *starts = ints(t, segments);
    for (int i = 0; i < segments; i++) starts[i + 1] = starts[i] + (t_below(t, 8) ? t_size(t, segments == 1 ? 450 : 140) : 0);
    int64_t n = starts[segments], cols = (int64_t)s.heads * s.head_dim, kv = (int64_t)s.kv_heads * s.head_dim;
    int32_t *see = ints(t, (int)n);
    for (int g = 0; g < segments; g++)
        for (int32_t i = starts[g]; i < starts[g + 1]; i++) see[i] = t_between(t, 1, starts[g + 1] - starts[g]);
    if (t_below(t, 3) == 0) s.see = see;
    t_shape(t, "%lld rows in %d segments, %d heads, %d key heads of %d%s", (long long)n, segments, s.heads, s.kv_heads, s.head_dim, s.see ? ", some keys" : "");
    tensor qkv = t_random(t, n, cols + 2 * kv, 1.2f), q = tensor_cols(qkv, 0, cols), k = tensor_cols(qkv, cols, kv), v = tensor_cols(qkv, cols + kv, kv);
    tensor want = t_output(t, n, cols), got = t_output(t, n, cols);
    ON(t, ref, attention_segments, want, q, k, v, starts, segments, &s);
    ON(t, dev, attention_segments, got, q, k, v, starts, segments, &s);
    t_near(t, got, want, near(t), near(t));
    int which = t_between(t, 0, segments - 1);
    int32_t alone[2] = {0, starts[which + 1] - starts[which]};
#define PART(x) tensor_rows(x, starts[which], alone[1])
    tensor part = t_output(t, alone[1], cols);
    if (s.see) s.see += starts[which];
    ON(t, one, attention_segments, part, PART(q), PART(k), PART(v), alone, 1, &s);
    t_same(t, part, PART(got));
    t_guards(t, part);
#undef PART
}

static void check_relative(ops_test *t)
{
    static const int dims[] = {4, 16, 20, 64, 128};
    attention_spec s = {.kv_heads = t_between(t, 1, 3), .head_dim = t_pick(t, 5, dims), .softcap = t_below(t, 2) ? 50 : 0};
    s.heads = s.kv_heads * t_between(t, 1, 2);
    int left = t_between(t, 0, 14), right = t_between(t, 0, 6);
    int64_t n = t_size(t, 120), cols = (int64_t)s.heads * s.head_dim, kv = (int64_t)s.kv_heads * s.head_dim;
    t_shape(t, "%lld rows, %d heads, %d key heads of %d, %d left, %d right", (long long)n, s.heads, s.kv_heads, s.head_dim, left, right);
    tensor q = t_random(t, n, cols, 0.4f), k = t_random(t, n, kv, 1), v = t_random(t, n, kv, 1), rel = t_random(t, left + right + 1, cols, 1);
    tensor want = t_output(t, n, cols), got = t_output(t, n, cols), again = t_output(t, n, cols);
    ON(t, ref, attention_relative, want, q, k, v, rel, left, right, &s);
    ON(t, dev, attention_relative, got, q, k, v, rel, left, right, &s);
    t_near(t, got, want, NEAR, NEAR);
    ON(t, one, attention_relative, again, q, k, v, rel, left, right, &s);
    t_same(t, again, got);
}

/* ---- bench ---- */

typedef struct bench_args { ragged batch; attention_spec s; tensor q, k, v, out; const int32_t *starts; int segments; } bench_args;

static void run_attention(ops_test *t, void *arg) { bench_args *a = arg; ON(t, dev, attention, a->out, a->q, &a->batch, &a->s); }
static void run_write(ops_test *t, void *arg) { bench_args *a = arg; ON(t, dev, kv_write, &a->batch, 0, 0, a->k, a->v); }
static void run_segments(ops_test *t, void *arg)
{
    bench_args *a = arg;
    ON(t, dev, attention_segments, a->out, a->q, a->k, a->v, a->starts, a->segments, &a->s);
}

static tensor plain(ops_test *t, int64_t rows, int64_t cols) { return (tensor){t_values(t, rows * cols, 1), DT_F32, rows, cols, cols}; }

static void bench_paged(ops_test *t, int past, int tokens, int heads, int kv_heads, int head_dim, dtype type, bool write)
{
    kv_shape shape = {.kv_heads = kv_heads, .head_dim = head_dim, .slots = 1, .type = type};
    int end = past + tokens, n_pages = (end + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS;
    void **pages = t_alloc(t, (size_t)n_pages * sizeof *pages), ***tables = t_alloc(t, sizeof *tables);
    for (int i = 0; i < n_pages; i++) pages[i] = t_alloc(t, kv_page_bytes(&shape));
    tables[0] = pages;
    int32_t *first = ints(t, 1), *position = ints(t, end), *zeros = ints(t, end);
    for (int i = 0; i < end; i++) position[i] = i;
    first[1] = end;
    bench_args a = {.s = {.heads = heads, .kv_heads = kv_heads, .head_dim = head_dim, .scale = 1 / sqrtf((float)head_dim)}};
    a.batch = (ragged){.n_tokens = end, .n_runs = 1, .run_first = first, .run_position = position, .token_run = zeros, .token_position = position,
                       .n_groups = 1, .group = {shape}};
    a.batch.pages[0] = (void *const *const *)tables;
    a.k = plain(t, end, (int64_t)kv_heads * head_dim), a.v = plain(t, end, (int64_t)kv_heads * head_dim);
    ON(t, dev, kv_write, &a.batch, 0, 0, a.k, a.v);
    first[1] = a.batch.n_tokens = tokens;
    a.batch.token_position = position + past, a.batch.run_position = position + past;
    a.q = plain(t, tokens, (int64_t)heads * head_dim), a.out = plain(t, tokens, (int64_t)heads * head_dim);
    a.k.rows = a.v.rows = tokens;
    t_shape(t, "%d+%d tokens, %d/%d heads of %d, %s", past, tokens, heads, kv_heads, head_dim, dtype_name(type));
    double pairs = (double)tokens * past + tokens * (tokens + 1.0) / 2, bytes = 2.0 * end * kv_heads * head_dim * (double)dtype_size(type);
    if (write) t_bench(t, t->shape, 2.0 * tokens * kv_heads * head_dim * 4, "GB/s", run_write, &a);
    else if (tokens == 1) t_bench(t, t->shape, bytes, "GB/s", run_attention, &a);
    else t_bench(t, t->shape, 4 * pairs * heads * head_dim, "GFLOP/s", run_attention, &a);
    t_free_all(t);
}

static void bench_attention(ops_test *t)
{
    bench_paged(t, 100, 1, 4, 1, 64, DT_BF16, false);
    bench_paged(t, 2000, 1, 16, 2, 128, DT_BF16, false);
    bench_paged(t, 8000, 1, 16, 16, 128, DT_BF16, false);
    bench_paged(t, 8000, 1, 8, 1, 256, DT_BF16, false);
    bench_paged(t, 8000, 1, 32, 8, 128, DT_F32, false);
    bench_paged(t, 0, 512, 16, 2, 128, DT_BF16, false);
    bench_paged(t, 2048, 512, 16, 2, 128, DT_BF16, false);
    bench_paged(t, 2048, 512, 8, 8, 64, DT_F32, false);
}

static void bench_write(ops_test *t)
{
    bench_paged(t, 100, 1, 4, 1, 64, DT_BF16, true);
    bench_paged(t, 0, 512, 16, 4, 128, DT_BF16, true);
}

static void bench_segments(ops_test *t)
{
    static const int shapes[][4] = {{2500, 1, 16, 80}, {2500, 1, 16, 72}, {64, 40, 16, 80}, {256, 10, 12, 64}, {1260, 1, 3, 64}, {100, 1, 4, 32}};
    for (int i = 0; i < 6; i++) {
        int length = shapes[i][0], segments = shapes[i][1], heads = shapes[i][2], D = shapes[i][3], n = length * segments;
        int32_t *starts = ints(t, segments);
        for (int g = 0; g <= segments; g++) starts[g] = g * length;
        tensor qkv = plain(t, n, 3 * (int64_t)heads * D);
        bench_args a = {.s = {.heads = heads, .kv_heads = heads, .head_dim = D, .scale = 1 / sqrtf((float)D)}, .starts = starts, .segments = segments};
        a.q = tensor_cols(qkv, 0, heads * D), a.k = tensor_cols(qkv, heads * D, heads * D), a.v = tensor_cols(qkv, 2 * heads * D, heads * D);
        a.out = plain(t, n, heads * D);
        t_shape(t, "%d x %d rows, %d heads of %d", segments, length, heads, D);
        t_bench(t, t->shape, 4.0 * n * length * heads * D, "GFLOP/s", run_segments, &a);
    }
}

const op_case attention_cases[] = {
    /* The layout of pages is the backend's own: what kv_write wrote shows in what attention reads. */
    {"attention", check_attention, bench_attention, true}, {"kv_write", check_attention, bench_write, false},
    {"attention_segments", check_segments, bench_segments, true}, {"attention_relative", check_relative, NULL, false},
    {NULL, NULL, NULL, false},
};
