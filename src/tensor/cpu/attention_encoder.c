/* attention_encoder.c - attention of encoders, without pages: inside segments (vision) and with relative positions (audio).
 *
 * Segments: an item of work is TILE_ROWS to MOST_ROWS rows of queries of one segment and head of keys. It goes over the segment's keys in
 * blocks of ATTEND_KEYS, which it first brings into the order of a page (keys transposed, values dense): a per cent or two of
 * the work, and both products then run from the second-level cache. */
#include <math.h>
#include <string.h>

#include "tensor/cpu/rows.h"

enum { TILE_ROWS = 96, MOST_ROWS = 384, SMALL = 1 << 17 };

static int64_t round16(int64_t n) { return (n + 15) & ~(int64_t)15; }

/* ---- segments ---- */

typedef struct part { int32_t segment, row, tokens, head; } part;           /* rows row .. row + tokens of one segment */

typedef struct segment_job {
    const cpu_kernels *k;
    const attention_spec *s;
    tensor out, q, keys, values;
    const int32_t *starts;
    part *parts;
    int sharing, rows;
    float *scratch;                                /* [thread][scratch_floats] */
    size_t scratch_floats;
} segment_job;

typedef struct desk { float *q, *o, *most, *sum, *keys, *values; int32_t *first, *end; const float **rows; } desk;

/* Room of a thread, in floats; multiples of 16. */
static size_t desk_layout(desk *d, float *at, int rows, int head_dim)
{
    size_t n = (size_t)round16(rows), D = (size_t)round16(head_dim), used = 0;
    float *unused[1], **place[] = {&d->q, &d->o, &d->most, &d->sum, &d->keys, &d->values};
    size_t floats[] = {n * D, n * D, n, n, ATTEND_KEYS * D, ATTEND_KEYS * D};
    for (int i = 0; i < 6; i++, used += floats[i - 1]) *(at ? place[i] : unused) = at + (at ? used : 0);
    if (at) {
        d->first = (int32_t *)(at + used);
        d->end = d->first + n;
        d->rows = (const float **)(d->end + n);
    }
    return used + 2 * n + n * sizeof(float *) / sizeof *d->most;
}

/* Asks for the rows of a block that comes later: they lie far apart, where hardware does not look ahead. */
static void fetch_ahead(const segment_job *j, int64_t from, int64_t n, int head)
{
    for (int64_t i = from; i < from + n; i++) {
        const float *key = tensor_row(j->keys, i) + (int64_t)head * j->s->head_dim, *value = tensor_row(j->values, i) + (int64_t)head * j->s->head_dim;
        for (int d = 0; d < j->s->head_dim; d += 16) __builtin_prefetch(key + d), __builtin_prefetch(value + d);
    }
}

/* Brings n keys and values from row `from` on into the desk's block. */
static attend_block pack_block(const segment_job *j, const desk *d, int64_t from, int n, int head)
{
    int D = j->s->head_dim;
    attend_block block = {.value_stride = round16(D), .type = DT_F32};
    for (int strip = 0; strip < ATTEND_STRIPS; strip++) {
        float *keys = d->keys + (size_t)strip * ATTEND_STRIP * (size_t)round16(D);
        int left = n - strip * ATTEND_STRIP;
        block.keys[strip] = left > 0 ? keys : block.keys[0];
        block.values[strip] = d->values + (int64_t)strip * ATTEND_STRIP * block.value_stride;
        if (left > 0)
            j->k->turn_keys(keys, tensor_row(j->keys, from + strip * ATTEND_STRIP) + (int64_t)head * D, j->keys.stride,
                            left < ATTEND_STRIP ? left : ATTEND_STRIP, D);
    }
    for (int i = 0; i < n; i++)
        memcpy(d->values + i * block.value_stride, tensor_row(j->values, from + i) + (int64_t)head * D, (size_t)D * sizeof(float));
    return block;
}

static void segment_parts(void *arg, int64_t begin, int64_t end, int thread)
{
    const segment_job *j = arg;
    const attention_spec *s = j->s;
    desk d;
    desk_layout(&d, j->scratch + (size_t)thread * j->scratch_floats, j->rows, s->head_dim);
    for (int64_t n = begin; n < end; n++) {
        const part *p = &j->parts[n];
        int rows = p->tokens * j->sharing;
        int64_t first = j->starts[p->segment], count = j->starts[p->segment + 1] - first;
        attend_rows t = {rows, s->head_dim, round16(s->head_dim), d.q, d.o, d.most, d.sum, d.first, d.end, s->scale, s->softcap};
        for (int i = 0; i < rows; i++) {
            d.rows[i] = tensor_row(j->q, p->row + i / j->sharing) + (int64_t)(p->head * j->sharing + i % j->sharing) * s->head_dim;
            d.first[i] = 0, d.end[i] = (int32_t)count;
            d.most[i] = -INFINITY, d.sum[i] = 0;
        }
        memset(d.o, 0, (size_t)rows * (size_t)t.o_stride * sizeof(float));
        j->k->attend_queries(d.q, d.rows, rows, s->head_dim);
        for (int64_t base = 0; base < count; base += ATTEND_KEYS) {
            attend_block block = pack_block(j, &d, first + base, (int)(count - base < ATTEND_KEYS ? count - base : ATTEND_KEYS), p->head);
            int64_t ahead = count - base - ATTEND_KEYS;
            fetch_ahead(j, first + base + ATTEND_KEYS, ahead < ATTEND_KEYS ? ahead : ATTEND_KEYS, p->head);
            j->k->attend(&t, &block, (int32_t)base);
        }
        for (int i = 0; i < rows; i++) {
            int h = p->head * j->sharing + i % j->sharing;
            j->k->attend_finish(tensor_row(j->out, p->row + i / j->sharing) + (int64_t)h * s->head_dim, &t, i, s->sinks ? s->sinks + h : NULL);
        }
    }
}

/* Parts of all segments; with parts NULL only counts. *rows: of the largest, *work: multiply-adds. */
static int64_t cut_parts(const segment_job *j, int segments, int tokens, part *parts, int *rows, int64_t *work)
{
    int64_t count = 0;
    *work = 0;
    for (int g = 0; g < segments; g++) {
        for (int head = 0; head < j->s->kv_heads; head++) {
            for (int32_t row = j->starts[g]; row < j->starts[g + 1]; row += tokens, count++) {
                int left = j->starts[g + 1] - row, n = left < tokens ? left : tokens;
                if (parts) parts[count] = (part){g, row, n, head};
                if (n * j->sharing > *rows) *rows = n * j->sharing;
                *work += 2 * (int64_t)n * j->sharing * (j->starts[g + 1] - j->starts[g]) * j->s->head_dim;
            }
        }
    }
    return count;
}

void cpu_attention_segments(run *r, tensor out, tensor q, tensor k, tensor v, const int32_t *starts, int segments, const attention_spec *s)
{
    arena_mark mark = arena_get_mark(r->scratch);
    segment_job j = {.k = cpu_kernels_of(r), .s = s, .out = out, .q = q, .keys = k, .values = v, .starts = starts, .sharing = s->heads / s->kv_heads};
    int threads = pool_threads(r->dev->pool), tokens, most = MOST_ROWS;
    int64_t work, count;
    for (;; most /= 2) {                           /* large tiles pack keys less often; every thread should have some */
        tokens = most / j.sharing > 1 ? most / j.sharing : 1;
        j.rows = 0;
        count = cut_parts(&j, segments, tokens, NULL, &j.rows, &work);
        if (most <= TILE_ROWS || count >= 4 * (int64_t)threads) break;
    }
    bool small = work < SMALL || threads == 1;
    j.parts = run_alloc(r, (size_t)count * sizeof *j.parts);
    j.scratch_floats = (size_t)round16((int64_t)desk_layout(&(desk){0}, NULL, j.rows, s->head_dim));
    j.scratch = run_tensor(r, small ? 1 : threads, (int64_t)j.scratch_floats).data;
    if (run_ok(r)) {
        cut_parts(&j, segments, tokens, j.parts, &j.rows, &work);
        pool_for(r->dev->pool, count, small ? count : 1, segment_parts, &j);
    }
    arena_release(r->scratch, mark);
}

/* ---- relative positions ---- */

typedef struct relative_job {
    const cpu_kernels *k;
    const attention_spec *s;
    tensor out, q, keys, values, rel;
    int left, right;
    float *scores;                                 /* [thread][left + right + 1, rounded to 16] */
} relative_job;

static void relative_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const relative_job *j = arg;
    const attention_spec *s = j->s;
    const int D = s->head_dim, sharing = s->heads / s->kv_heads;
    float *score = j->scores + thread * round16(j->left + j->right + 1);
    for (int64_t i = begin; i < end; i++) {
        int64_t first = i > j->left ? i - j->left : 0, stop = i + j->right + 1 < j->q.rows ? i + j->right + 1 : j->q.rows, n = stop - first;
        for (int h = 0; h < s->heads; h++) {
            const int64_t at = (int64_t)h * D, kv = (int64_t)(h / sharing) * D;
            float *out = tensor_row(j->out, i) + at, most = s->sinks ? s->sinks[h] : -INFINITY;
            for (int64_t c = first; c < stop; c++)
                score[c - first] = j->k->dot_sum(tensor_row(j->q, i) + at, tensor_row(j->keys, c) + kv, tensor_row(j->rel, i - c + j->right) + at, D);
            if (s->softcap > 0) j->k->softcap(score, s->softcap, n);
            for (int64_t c = 0; c < n; c++) if (score[c] > most) most = score[c];
            float sum = j->k->exp_sum(score, most, n) + (s->sinks ? expf(s->sinks[h] - most) : 0);
            j->k->exp_from(score, score, most, 1 / sum, n);
            memset(out, 0, (size_t)D * sizeof *out);
            for (int64_t c = first; c < stop; c++) j->k->add(out, out, tensor_row(j->values, c) + kv, score[c - first], D);
        }
    }
}

void cpu_attention_relative(run *r, tensor out, tensor q, tensor k, tensor v, tensor rel, int left, int right, const attention_spec *s)
{
    arena_mark mark = arena_get_mark(r->scratch);
    tensor scores = run_tensor(r, pool_threads(r->dev->pool), round16(left + right + 1));
    relative_job j = {cpu_kernels_of(r), s, out, q, k, v, rel, left, right, scores.data};
    int64_t row_work = (left + right + 1) * q.cols * 3, grain = row_work > 0 ? SMALL / row_work : 1;
    if (run_ok(r)) pool_for(r->dev->pool, q.rows, grain, relative_rows, &j);
    arena_release(r->scratch, mark);
}
