/* rows.c - drivers of ops_cpu for operations on rows and elements: they cut the work for the pool and call a row kernel.
 *
 * Work is cut into items of about GRAIN values, so that small operations (a decoded token of a small model) run at once on the
 * calling thread. Element-by-element operations may cut inside a row: their kernels do not see where a value stands. */
#include <math.h>
#include <string.h>

#include "tensor/cpu/rows.h"

enum { GRAIN = 16384, PIECE = 4096 };

/* Arguments of one operation for the pool. Operands that an operation does not have stay zero. */
typedef struct job {
    const cpu_kernels *k;
    tensor out, a, b, c;
    const float *w, *bias;
    float x, y;                                    /* factor, offset, eps, bounds */
    int64_t width, pieces;
    activation act;
    const int32_t *index;
    int heads, head_dim, blocks, block_dim;
    bool flag;
} job;

static int64_t grain_of(int64_t cols) { return cols > 0 ? (GRAIN + cols - 1) / cols : GRAIN; }

static void each_row(run *r, job *j, int64_t rows, int64_t cols, pool_fn fn)
{
    j->k = cpu_kernels_of(r);
    pool_for(r->dev->pool, rows, grain_of(cols), fn, j);
}

/* Items are pieces of PIECE columns of a row. */
static void each_piece(run *r, job *j, pool_fn fn)
{
    j->k = cpu_kernels_of(r);
    j->pieces = (j->out.cols + PIECE - 1) / PIECE;
    pool_for(r->dev->pool, j->out.rows * j->pieces, j->pieces > 1 ? GRAIN / PIECE : grain_of(j->out.cols), fn, j);
}

/* Runs `call` for each piece: row i, columns c .. c + n. */
#define PIECES(call)                                                                                \
    const job *j = arg;                                                                             \
    for (int64_t item = begin; item < end; item++) {                                                \
        const int64_t i = j->pieces > 1 ? item / j->pieces : item, c = j->pieces > 1 ? item % j->pieces * PIECE : 0;  \
        const int64_t n = j->out.cols - c < PIECE ? j->out.cols - c : PIECE;                        \
        call;                                                                                       \
    }
#define AT(t) (tensor_row(j->t, i) + c)

static void rmsnorm_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const job *j = arg;
    for (int64_t i = begin; i < end; i++)
        for (int64_t c = 0; c < j->out.cols; c += j->width) j->k->rmsnorm(AT(out), AT(a), j->w, j->x, j->y, j->width);
}

void cpu_rmsnorm(run *r, tensor y, tensor x, const float *w, float offset, float eps, int64_t width)
{
    job j = {.out = y, .a = x, .w = w, .x = offset, .y = eps, .width = width ? width : x.cols};
    if (x.cols) each_row(r, &j, y.rows, y.cols, rmsnorm_rows);
}

static void layernorm_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const job *j = arg;
    for (int64_t i = begin; i < end; i++) j->k->layernorm(tensor_row(j->out, i), tensor_row(j->a, i), j->w, j->bias, j->x, j->out.cols);
}

void cpu_layernorm(run *r, tensor y, tensor x, const float *w, const float *b, float eps)
{
    job j = {.out = y, .a = x, .w = w, .bias = b, .x = eps};
    each_row(r, &j, y.rows, y.cols, layernorm_rows);
}

static void add_pieces(void *arg, int64_t begin, int64_t end, int thread) { PIECES(j->k->add(AT(out), AT(a), AT(b), j->x, n)) }
void cpu_add(run *r, tensor out, tensor a, tensor b, float scale)
{
    job j = {.out = out, .a = a, .b = b, .x = scale};
    each_piece(r, &j, add_pieces);
}

static void mul_pieces(void *arg, int64_t begin, int64_t end, int thread) { PIECES(j->k->mul(AT(out), AT(a), AT(b), n)) }
void cpu_mul(run *r, tensor out, tensor a, tensor b)
{
    job j = {.out = out, .a = a, .b = b};
    each_piece(r, &j, mul_pieces);
}

static void scale_pieces(void *arg, int64_t begin, int64_t end, int thread)
{
    PIECES(j->k->scale(AT(out), j->x, j->w ? j->w + c : NULL, n))
}
void cpu_scale(run *r, tensor x, float factor, const float *columns)
{
    job j = {.out = x, .x = factor, .w = columns};
    each_piece(r, &j, scale_pieces);
}

static void activate_pieces(void *arg, int64_t begin, int64_t end, int thread) { PIECES(j->k->activate(AT(out), AT(a), j->act, n)) }
void cpu_activate(run *r, tensor y, tensor x, activation act)
{
    job j = {.out = y, .a = x, .act = act};
    each_piece(r, &j, activate_pieces);
}

static void glu_pieces(void *arg, int64_t begin, int64_t end, int thread) { PIECES(j->k->glu(AT(out), AT(a), AT(b), j->act, n)) }
void cpu_glu(run *r, tensor y, tensor gate, tensor up, activation act)
{
    job j = {.out = y, .a = gate, .b = up, .act = act};
    each_piece(r, &j, glu_pieces);
}

static void clip_pieces(void *arg, int64_t begin, int64_t end, int thread) { PIECES(j->k->clip(AT(out), j->x, j->y, n)) }
void cpu_clip(run *r, tensor x, float lo, float hi)
{
    job j = {.out = x, .x = lo, .y = hi};
    each_piece(r, &j, clip_pieces);
}

static void softcap_pieces(void *arg, int64_t begin, int64_t end, int thread) { PIECES(j->k->softcap(AT(out), j->x, n)) }
void cpu_softcap(run *r, tensor x, float cap)
{
    job j = {.out = x, .x = cap};
    each_piece(r, &j, softcap_pieces);
}

/* ---- rotary embedding ---- */

static void interleaved(float *x, const float *cosine, const float *sine, int pairs)
{
    for (int i = 0; i < pairs; i++) {
        float x1 = x[2 * i], x2 = x[2 * i + 1];
        x[2 * i] = x1 * cosine[i] - x2 * sine[i];
        x[2 * i + 1] = x2 * cosine[i] + x1 * sine[i];
    }
}

static void rope_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const job *j = arg;
    const int half = j->block_dim / 2;
    for (int64_t i = begin; i < end; i++) {
        for (int at = 0; at < j->heads * j->blocks; at++) {
            int block = at % j->blocks;
            float *x = tensor_row(j->out, i) + (int64_t)(at / j->blocks) * j->head_dim + (int64_t)block * j->block_dim;
            const float *cosine = tensor_row(j->a, i) + (int64_t)block * half, *sine = tensor_row(j->b, i) + (int64_t)block * half;
            if (j->flag) interleaved(x, cosine, sine, half);
            else j->k->rope(x, x + half, cosine, sine, half);
        }
    }
}

void cpu_rope(run *r, tensor x, int heads, int head_dim, int blocks, int block_dim, bool interleave, tensor cosine, tensor sine)
{
    job j = {.out = x, .a = cosine, .b = sine, .heads = heads, .head_dim = head_dim, .blocks = blocks, .block_dim = block_dim,
             .flag = interleave};
    each_row(r, &j, x.rows, x.cols, rope_rows);
}

/* ---- moving rows ---- */

static void gather_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const job *j = arg;
    size_t bytes = (size_t)j->out.cols * sizeof(float);
    for (int64_t i = begin; i < end; i++) {
        if (j->index[i] < 0) memset(tensor_row(j->out, i), 0, bytes);
        else memcpy(tensor_row(j->out, i), tensor_row(j->a, j->index[i]), bytes);
    }
}

void cpu_gather(run *r, tensor out, tensor x, const int32_t *index)
{
    job j = {.out = out, .a = x, .index = index};
    each_row(r, &j, out.rows, out.cols, gather_rows);
}

/* Several rows may go to one place: in order, so only columns are shared out. */
static void scatter_columns(void *arg, int64_t begin, int64_t end, int thread)
{
    const job *j = arg;
    enum { STRIP = 64 };
    int64_t first = begin * STRIP, n = (end * STRIP < j->a.cols ? end * STRIP : j->a.cols) - first;
    for (int64_t i = 0; i < j->a.rows; i++) {
        if (j->index[i] < 0) continue;
        float *to = tensor_row(j->out, j->index[i]) + first;
        const float *from = tensor_row(j->a, i) + first;
        if (j->flag) j->k->add(to, to, from, j->x, n);
        else memcpy(to, from, (size_t)n * sizeof *to);
    }
}

static void scatter(run *r, job *j)
{
    int64_t strips = (j->a.cols + 63) / 64;
    j->k = cpu_kernels_of(r);
    pool_for(r->dev->pool, strips, grain_of(64 * j->a.rows), scatter_columns, j);
}

void cpu_scatter(run *r, tensor out, tensor x, const int32_t *index)
{
    job j = {.out = out, .a = x, .index = index};
    scatter(r, &j);
}

void cpu_scatter_add(run *r, tensor out, tensor x, const int32_t *index, float factor)
{
    job j = {.out = out, .a = x, .index = index, .x = factor, .flag = true};
    scatter(r, &j);
}

typedef struct adapt_job { tensor out, u; const int32_t *index; float scale; const float *columns, *from, *to; } adapt_job;

static void adapt_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const adapt_job *j = arg;
    for (int64_t i = begin; i < end; i++) {
        float *y = tensor_row(j->out, j->index[i]);
        const float *u = j->u.data ? tensor_row(j->u, i) : NULL;
        int64_t n = j->out.cols;
        for (int64_t c = 0; j->from && c < n; c++) y[c] -= j->from[c];
        for (int64_t c = 0; u && c < n; c++) y[c] += j->scale * u[c];
        for (int64_t c = 0; j->columns && c < n; c++) y[c] *= j->columns[c];
        for (int64_t c = 0; j->to && c < n; c++) y[c] += j->to[c];
    }
}

void cpu_adapt(run *r, tensor out, tensor u, const int32_t *index, int64_t n, float scale, const float *columns, const float *from, const float *to)
{
    adapt_job j = {out, u, index, scale, columns, from, to};
    pool_for(r->dev->pool, n, grain_of(out.cols), adapt_rows, &j);
}

/* ---- routing ---- */

typedef struct route_job { const cpu_kernels *k; tensor logits; int32_t *index; float *share; const route_spec *s; tensor scratch; } route_job;

/* Insertion into a falling list; an equal logit stays behind those before it. */
static void largest(const float *x, int64_t n, int32_t *index, int top_k)
{
    int kept = 0;
    for (int64_t c = 0; c < n; c++) {
        if (kept == top_k && !(x[c] > x[index[kept - 1]])) continue;
        int at = kept < top_k ? kept++ : kept - 1;
        for (; at > 0 && x[c] > x[index[at - 1]]; at--) index[at] = index[at - 1];
        index[at] = (int32_t)c;
    }
}

/* The sum of the `best` largest of x. */
static float worth(const float *x, int64_t n, int best, int32_t *index)
{
    float sum = 0;
    largest(x, n, index, best);
    for (int k = 0; k < best; k++) sum += x[index[k]];
    return sum;
}

/* Choices in groups that do not count become -infinity. spare: room for a row. */
static void keep_groups(float *choice, int64_t experts, const route_spec *s, float *spare, int32_t *index)
{
    int64_t size = experts / s->groups;
    for (int g = 0; g < s->groups; g++) spare[g] = worth(choice + g * size, size, s->group_best, index);
    largest(spare, s->groups, index, s->kept_groups);
    for (int g = 0; g < s->groups; g++) spare[g] = 0;
    for (int k = 0; k < s->kept_groups; k++) spare[index[k]] = 1;
    for (int g = 0; g < s->groups; g++)
        for (int64_t c = 0; c < size && spare[g] == 0; c++) choice[g * size + c] = -INFINITY;
}

/* The chosen of x with their softmax: only what is chosen is computed. */
static void route_softmax(const route_job *j, const float *x, int32_t *index, float *p)
{
    const route_spec *s = j->s;
    largest(x, j->logits.cols, index, s->top_k);
    for (int k = 0; k < s->top_k; k++) p[k] = x[index[k]];
    float most = p[0], all = s->normalize ? j->k->exp_sum(p, most, s->top_k) : j->k->exp_sum(x, most, j->logits.cols);
    j->k->exp_from(p, p, most, (s->scale > 0 ? s->scale : 1) / all, s->top_k);
}

static void route_scores(const route_job *j, const float *x, float *score, int32_t *index, float *share)
{
    const route_spec *s = j->s;
    int64_t n = j->logits.cols;
    float *choice = score + n, *spare = choice + n;
    if (s->sigmoid) j->k->activate(score, x, ACT_SIGMOID, n);
    else {
        float most = x[0];
        for (int64_t c = 1; c < n; c++) most = x[c] > most ? x[c] : most;
        j->k->exp_from(score, x, most, 1 / j->k->exp_sum(x, most, n), n);
    }
    for (int64_t c = 0; c < n; c++) choice[c] = s->bias ? score[c] + s->bias[c] : s->groups > 1 ? score[c] : x[c];
    if (s->groups > 1) keep_groups(choice, n, s, spare, (int32_t *)(spare + n));
    largest(choice, n, index, s->top_k);
    float sum = s->epsilon, scale = s->scale > 0 ? s->scale : 1;
    for (int k = 0; k < s->top_k; k++) sum += score[index[k]];
    for (int k = 0; k < s->top_k; k++) share[k] = score[index[k]] * (s->normalize ? scale / sum : scale);
}

static void route_sparse(const route_job *j, const float *x, float *left, int32_t *index, float *share)
{
    int64_t n = j->logits.cols;
    memcpy(left, x, (size_t)n * sizeof *left);
    for (int k = 0; k < j->s->top_k; k++) {
        float sum = 0;
        largest(left, n, index + k, 1);
        float m = left[index[k]];
        for (int64_t c = 0; c < n; c++)
            if (left[c] > -INFINITY && (m - x[c]) / fmaxf(fabsf(x[c]), m) <= 2 * j->s->jitter) sum += expf(x[c] - m);
        share[k] = 1 / sum;
        left[index[k]] = -INFINITY;
    }
}

static void route_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const route_job *j = arg;
    int top_k = j->s->top_k;
    bool plain = !j->s->sigmoid && !j->s->bias && j->s->groups <= 1 && j->s->epsilon == 0;
    for (int64_t i = begin; i < end; i++) {
        const float *x = tensor_row(j->logits, i);
        if (j->s->jitter > 0) route_sparse(j, x, tensor_row(j->scratch, thread), j->index + i * top_k, j->share + i * top_k);
        else if (plain) route_softmax(j, x, j->index + i * top_k, j->share + i * top_k);
        else route_scores(j, x, tensor_row(j->scratch, thread), j->index + i * top_k, j->share + i * top_k);
    }
}

void cpu_route(run *r, int32_t *index, float *share, tensor logits, const route_spec *s)
{
    arena_mark mark = arena_get_mark(r->scratch);
    route_job j = {cpu_kernels_of(r), logits, index, share, s, run_tensor(r, pool_threads(r->dev->pool), 4 * logits.cols)};
    if (run_ok(r)) pool_for(r->dev->pool, logits.rows, grain_of(4 * logits.cols), route_rows, &j);
    arena_release(r->scratch, mark);
}
