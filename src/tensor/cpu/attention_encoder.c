/* attention_encoder.c - attention of encoders, without pages: inside segments (vision) and with relative positions (audio).
 *
 * Segments: items of work are some rows of queries of one segment and head of keys. Keys and values are packed into strips of
 * ATTEND_STRIP keys in the order that the kernel reads: by the item itself if it has all queries of its segment (small windows: all
 * stays in the cache), else for all items in a fork of its own before. */
#include <math.h>
#include <string.h>

#include "tensor/cpu/rows.h"

enum { MOST_ROWS = 384, SMALL = 1 << 17 };

static int64_t round16(int64_t n) { return (n + 15) & ~(int64_t)15; }

/* ---- segments ---- */

typedef struct part { int32_t segment, row, tokens, head; } part;           /* rows row .. row + tokens of one segment */

typedef struct segment_job {
    const cpu_kernels *k;
    const attention_spec *s;
    tensor out, q, keys, values;
    const int32_t *starts;
    part *parts;
    int sharing, rows;                             /* query heads to a head of keys; rows of the largest part */
    float *scratch;                                /* [thread][scratch_floats] */
    size_t scratch_floats;
    int32_t *strip_first, *strip_segment;          /* [segments + 1] first strip of a segment; [strips] its segment */
    int32_t n_strips;                              /* of segments with several parts */
    int tokens;                                    /* of a part at most */
    char *strips;                                  /* [kv_heads][n_strips][strip_bytes] */
    size_t strip_bytes, values_at;
} segment_job;

static char *strip_of(const segment_job *j, int head, int64_t strip)
{
    return j->strips + ((size_t)head * (size_t)j->n_strips + (size_t)strip) * j->strip_bytes;
}

static int32_t strips_in(const segment_job *j, int segment)
{
    return (j->starts[segment + 1] - j->starts[segment] + ATTEND_STRIP - 1) / ATTEND_STRIP;
}

static void pack(const segment_job *j, char *to, int segment, int head, int64_t strip)
{
    int32_t row = j->starts[segment] + (int32_t)strip * ATTEND_STRIP, left = j->starts[segment + 1] - row;
    int64_t at = (int64_t)head * j->s->head_dim;
    j->k->pack_strip(to, tensor_row(j->keys, row) + at, j->keys.stride, tensor_row(j->values, row) + at, j->values.stride,
                     left < ATTEND_STRIP ? left : ATTEND_STRIP, j->s->head_dim);
}

/* Items: all strips for all heads. */
static void pack_strips(void *arg, int64_t begin, int64_t end, int thread)
{
    const segment_job *j = arg;
    for (int64_t item = begin; item < end; item++) {
        int64_t strip = item / j->s->kv_heads;
        int head = (int)(item % j->s->kv_heads), g = j->strip_segment[strip];
        pack(j, strip_of(j, head, strip), g, head, strip - j->strip_first[g]);
    }
}

/* The block of keys from `base` on; strips beyond the end repeat the first. */
static attend_block block_at(const segment_job *j, const char *strips, int32_t n_strips, int32_t base)
{
    attend_block block = {.value_stride = round16(j->s->head_dim), .type = DT_F32, .packed = true};
    int32_t first = base / ATTEND_STRIP;
    for (int i = 0; i < ATTEND_STRIPS; i++) {
        block.keys[i] = strips + (size_t)(first + i < n_strips ? first + i : first) * j->strip_bytes;
        block.values[i] = (const char *)block.keys[i] + j->values_at;
    }
    return block;
}

typedef struct desk { char *strips; float *q, *o, *most, *sum; int32_t *first, *end; const float **rows; } desk;

/* Room of a thread, in floats: strips of a whole segment, then the state of the rows. */
static size_t desk_floats(const segment_job *j)
{
    size_t n = (size_t)round16(j->rows), strips = (size_t)(j->tokens + ATTEND_STRIP - 1) / ATTEND_STRIP * j->strip_bytes / sizeof(float);
    return strips + n * (2 * (size_t)round16(j->s->head_dim) + 4 + sizeof(const float *) / sizeof(int32_t));
}

static desk desk_at(const segment_job *j, int thread)
{
    size_t n = (size_t)round16(j->rows), D = (size_t)round16(j->s->head_dim);
    desk d = {.strips = (char *)(j->scratch + (size_t)thread * j->scratch_floats)};
    d.q = (float *)(d.strips + (size_t)(j->tokens + ATTEND_STRIP - 1) / ATTEND_STRIP * j->strip_bytes);
    d.o = d.q + n * D;
    d.most = d.o + n * D;
    d.sum = d.most + n;
    d.first = (int32_t *)(d.sum + n);
    d.end = d.first + n;
    d.rows = (const float **)(d.end + n);
    return d;
}

static void segment_parts(void *arg, int64_t begin, int64_t end, int thread)
{
    const segment_job *j = arg;
    const attention_spec *s = j->s;
    desk d = desk_at(j, thread);
    for (int64_t n = begin; n < end; n++) {
        const part *p = &j->parts[n];
        int rows = p->tokens * j->sharing;
        int32_t count = j->starts[p->segment + 1] - j->starts[p->segment];
        attend_rows t = {rows, s->head_dim, s->head_dim, round16(s->head_dim), d.q, d.o, d.most, d.sum, d.first, d.end, s->scale, s->softcap};
        for (int i = 0; i < rows; i++) {
            d.rows[i] = tensor_row(j->q, p->row + i / j->sharing) + (int64_t)(p->head * j->sharing + i % j->sharing) * s->head_dim;
            d.first[i] = 0, d.end[i] = s->see ? s->see[p->row + i / j->sharing] : count;
            d.most[i] = -INFINITY, d.sum[i] = 0;
        }
        memset(d.o, 0, (size_t)rows * (size_t)t.o_stride * sizeof(float));
        j->k->attend_queries(d.q, d.rows, rows, s->head_dim);
        int32_t n_strips = strips_in(j, p->segment);
        const char *strips = d.strips;
        if (count > j->tokens) strips = strip_of(j, p->head, j->strip_first[p->segment]);
        else for (int32_t i = 0; i < n_strips; i++) pack(j, d.strips + (size_t)i * j->strip_bytes, p->segment, p->head, i);
        for (int32_t base = 0; base < count; base += ATTEND_KEYS) {
            attend_block block = block_at(j, strips, n_strips, base);
            j->k->attend(&t, &block, base);
        }
        for (int i = 0; i < rows; i++) {
            int h = p->head * j->sharing + i % j->sharing;
            j->k->attend_finish(tensor_row(j->out, p->row + i / j->sharing) + (int64_t)h * s->head_dim, &t, i, s->sinks ? s->sinks + h : NULL);
        }
    }
}

/* Parts of all segments, head by head; with parts NULL only counts. *rows: of the largest, *work: multiply-adds. */
static int64_t cut_parts(const segment_job *j, int segments, part *parts, int *rows, int64_t *work)
{
    int64_t count = 0;
    *work = *rows = 0;
    for (int g = 0; g < segments; g++) {
        for (int head = 0; head < j->s->kv_heads; head++) {
            for (int32_t row = j->starts[g]; row < j->starts[g + 1]; row += j->tokens, count++) {
                int left = j->starts[g + 1] - row, n = left < j->tokens ? left : j->tokens;
                if (parts) parts[count] = (part){g, row, n, head};
                if (n * j->sharing > *rows) *rows = n * j->sharing;
                *work += 2 * (int64_t)n * j->sharing * (j->starts[g + 1] - j->starts[g]) * j->s->head_dim;
            }
        }
    }
    return count;
}

/* Where the strips of each segment of several parts go. */
static bool plan_strips(run *r, segment_job *j, int segments)
{
    j->strip_first = run_alloc(r, (size_t)(segments + 1) * sizeof *j->strip_first);
    if (!run_ok(r)) return false;
    for (int g = 0; g < segments; g++)
        j->strip_first[g + 1] = j->strip_first[g] + (j->starts[g + 1] - j->starts[g] > j->tokens ? strips_in(j, g) : 0);
    j->n_strips = j->strip_first[segments];
    j->strip_segment = run_alloc(r, (size_t)j->n_strips * sizeof *j->strip_segment);
    if (!run_ok(r)) return false;
    for (int g = 0; g < segments; g++) for (int32_t i = j->strip_first[g]; i < j->strip_first[g + 1]; i++) j->strip_segment[i] = g;
    j->strips = run_tensor(r, (int64_t)j->n_strips * j->s->kv_heads, (int64_t)(j->strip_bytes / sizeof(float))).data;
    return run_ok(r);
}

void cpu_attention_segments(run *r, tensor out, tensor q, tensor k, tensor v, const int32_t *starts, int segments, const attention_spec *s)
{
    arena_mark mark = arena_get_mark(r->scratch);
    segment_job j = {.k = cpu_attend_kernels(r, s, false), .s = s, .out = out, .q = q, .keys = k, .values = v, .starts = starts,
                     .sharing = s->heads / s->kv_heads};
    int threads = pool_threads(r->dev->pool);
    int64_t work, count;
    for (int most = MOST_ROWS;; most /= 2) {       /* large tiles use a block longer; every thread should have some */
        j.tokens = most / j.sharing > 1 ? most / j.sharing : 1;
        count = cut_parts(&j, segments, NULL, &j.rows, &work);
        if (most <= j.k->tile_rows || count >= 12 * (int64_t)threads) break;
    }
    bool small = work < SMALL || threads == 1;
    j.strip_bytes = (j.k->strip_bytes(s->head_dim, &j.values_at) + 63) & ~(size_t)63;
    j.scratch_floats = desk_floats(&j);
    j.parts = run_alloc(r, (size_t)count * sizeof *j.parts);
    j.scratch = run_tensor(r, small ? 1 : threads, (int64_t)j.scratch_floats).data;
    if (run_ok(r) && plan_strips(r, &j, segments)) {
        int64_t strips = (int64_t)j.n_strips * s->kv_heads;
        cut_parts(&j, segments, j.parts, &j.rows, &work);
        pool_for(r->dev->pool, strips, small ? strips : 4, pack_strips, &j);
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
