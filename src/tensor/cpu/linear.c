/* linear.c - see linear.h: the driver of matrix products. Chooses paths, packs activations, cuts work into items. */
#include "tensor/cpu/linear.h"

#include <string.h>

enum {
    FEW_TOKENS = 4,                                /* up to so many, memory is what a product waits for */
    RANGE_BYTES = 256 << 10,                       /* of weights that a thread then takes at once */
    FORK_WORK = 1 << 16,                           /* multiplications below which another thread is not worth waking */
    ROW_STEP = 48,                                 /* rows of an item, about, when there are many tokens */
    WIDE_ROWS = 128,                               /* of items that go together then, where the path says nothing else */
    TOKEN_STEP = LINEAR_TOKENS,                    /* tokens of an item at most: weights are widened once for each */
    TOKEN_STEP_SMALL = 128,                        /* the same when there are few rows to share among the threads */
    GLU_TOKENS = 32,                               /* from so many on, what is between the products of an MLP stays out of memory */
    PACKED_BLOCK = 64 << 20,                       /* of memory for weights */
};

bool cpu_linear_init(device *dev, vlm_error *error)
{
    linear_table *t = MEM_NEW(linear_table);
    if (!t) return err_memory(error, sizeof *t);
    unsigned features = cpu_of(dev)->features;
    linear_init_c(t);
#if defined(__x86_64__)
    if (features & CPU_AVX2) linear_init_avx2(t);
    if (features & CPU_AVX2) linear_init_int_avx2(t);
    if (features & CPU_AVX512) linear_init_avx512(t);
    if (features & CPU_AVX512VNNI) linear_init_avx512vnni(t);
    if (features & CPU_AVX512VNNI && __builtin_cpu_is("amd")) linear_init_avx512bf16(t);
    if (features & CPU_AMX) linear_init_amx(t);
#elif defined(__aarch64__)
    if (features & CPU_NEON) linear_init_neon(t);
    if (features & CPU_NEONDOT) linear_init_neondot(t);
#endif
    (void)features;
    cpu_of(dev)->linear = t;
    return true;
}

void cpu_linear_close(device *dev)
{
    if (!dev->state) return;
    linear_table *t = cpu_of(dev)->linear;
    if (t) arena_free(&t->packed);
    mem_free(t);
    cpu_of(dev)->linear = NULL;
}

const linear_path *linear_path_of(const device *dev, const weight *w, bool answer)
{
    const linear_table *t = cpu_of(dev)->linear;
    if (dev->precision == PRECISION_EXACT) return t->exact[w->format];
    if (w->format == WF_AFFINE && (w->bits == 4 || w->bits == 8) && t->prompt_affine && !answer) return t->prompt_affine;
    if (w->format == WF_AFFINE && w->bits == 4 && t->fast_affine4) return t->fast_affine4;
    if (w->format == WF_AFFINE && w->bits == 8 && t->fast_affine8) return t->fast_affine8;
    return t->fast[w->format];
}

/* ---- weights in a path's own order ---- */

weight linear_expert(const device *dev, const weight *w, int64_t expert)
{
    weight one = weight_expert(w, expert);
    if (w->packed) one.packed = (char *)w->packed + (size_t)expert * linear_path_of(dev, w, true)->packed_bytes(&one);
    return one;
}

typedef struct repack_job {
    const device *dev;
    const linear_path *path;
    const weight *w;
    int64_t items;                                 /* of one matrix */
} repack_job;

static void repack_items(void *arg, int64_t begin, int64_t end, int thread)
{
    const repack_job *job = arg;
    for (int64_t i = begin; i < end; i++) {
        weight one = job->w->experts ? linear_expert(job->dev, job->w, i / job->items) : *job->w;
        int64_t o = i % job->items * job->path->unit;
        job->path->repack(&one, one.packed, o, min64(o + job->path->unit, one.rows));
    }
}

/* A copy that is read as one stream, on huge pages. Where memory is short the rows of the file serve as well, only slower. */
bool cpu_prepare(device *dev, weight *w, vlm_error *error)
{
    linear_table *t = cpu_of(dev)->linear;
    const linear_path *path = linear_path_of(dev, w, true);
    size_t bytes;
    dev->kinds |= path != linear_path_of(dev, w, false);
    if (!path->packed_bytes || !mem_mul(path->packed_bytes(w), w->experts ? (size_t)w->experts : 1, &bytes)) return true;
    if (t->packed_bytes + bytes > mem_physical() / 4 * 3) return true;
    t->packed.block_size = PACKED_BLOCK;
    if (!(w->packed = arena_alloc_raw(&t->packed, bytes))) return true;
    t->packed_bytes += bytes;
    t->packed_count++;
    repack_job job = {dev, path, w, (w->rows + path->unit - 1) / path->unit};
    pool_for(dev->pool, job.items * (w->experts ? w->experts : 1), 1 + FORK_WORK / (w->cols * path->unit), repack_items, &job);
    return true;
}

void cpu_release(device *dev, weight *w)
{
    linear_table *t = cpu_of(dev)->linear;
    if (!w->packed) return;
    w->packed = NULL;
    if (--t->packed_count) return;
    arena_free(&t->packed);
    t->packed_bytes = 0;
}

/* ---- packing ---- */

typedef struct pack_job {
    const linear_product *products;
    tensor x;
    const int32_t *source;
} pack_job;

static void pack_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const pack_job *job = arg;
    const linear_product *p = job->products;
    int64_t first = 0;                             /* row of the first token of p */
    for (int64_t i = begin; i < end; i++) {
        while (i >= first + p->n) first += p++->n;
        const float *row = tensor_row(job->x, job->source ? job->source[i] : i);
        if (p->path->pack) p->path->pack(&p->w, (void *)p->x, p->n, i - first, row);
        else memcpy((float *)p->x + (i - first) * p->x_stride, row, (size_t)p->w.cols * sizeof *row);
    }
}

bool linear_pack(run *r, linear_product *products, int64_t count, tensor x, const int32_t *source)
{
    int64_t rows = 0;
    bool packs = false;
    for (int64_t i = 0; i < count; i++) {
        linear_product *p = &products[i];
        p->path = linear_path_of(r->dev, &p->w, r->answer);
        p->x_stride = p->w.cols;
        if (!p->path->pack && !source) {
            p->x = tensor_row(x, rows);
            p->x_stride = x.stride;
        } else {
            size_t bytes = p->path->pack ? p->path->x_bytes(&p->w, p->n) : (size_t)p->n * (size_t)p->w.cols * sizeof(float);
            p->x = arena_alloc_raw(r->scratch, bytes);
            if (!p->x) return run_fail(r, VLM_MEMORY, "out of memory (%zu bytes of activations)", bytes);
            packs = true;
        }
        rows += p->n;
    }
    pack_job job = {products, x, source};
    if (packs) pool_for(r->dev->pool, rows, 1 + FORK_WORK / (x.cols + 1), pack_rows, &job);
    return true;
}

/* ---- multiplying ---- */

typedef struct linear_job {
    const linear_product *products;
    int64_t row_step, token_step;
    char *scratch;
    size_t scratch_bytes;                          /* of one thread */
} linear_job;

static int64_t row_items(const linear_job *job, const linear_product *p) { return (p->w.rows + job->row_step - 1) / job->row_step; }
static int64_t all_items(const linear_job *job, const linear_product *p)
{
    return (p->n + job->token_step - 1) / job->token_step * row_items(job, p);
}

/* Items: product by product, in one token block by token block, in that the row blocks. Neighbouring row blocks go as one. */
static void run_items(void *arg, int64_t begin, int64_t end, int thread)
{
    const linear_job *job = arg;
    const linear_product *p = job->products;
    int64_t first = 0, items;                      /* the first item of p and how many it has */
    void *scratch = job->scratch + (size_t)thread * job->scratch_bytes;
    while (begin < end) {
        items = all_items(job, p);
        if (begin >= first + items) {
            first += items;
            p++;
            continue;
        }
        int64_t across = row_items(job, p), block = (begin - first) / across, row = (begin - first) % across;
        int64_t last = min64(across, row + end - begin);
        p->path->block(p, row * job->row_step, min64(last * job->row_step, p->w.rows), block * job->token_step,
                       min64((block + 1) * job->token_step, p->n), scratch);
        begin += last - row;
    }
}

bool linear_run(run *r, const linear_product *products, int64_t count)
{
    const linear_path *path = products->path;
    int threads = pool_threads(r->dev->pool);
    linear_job job = {.products = products, .token_step = TOKEN_STEP};
    int64_t most = 0, items = 0, work = 0;
    size_t need = 0;
    for (int64_t i = 0; i < count; i++) {
        const linear_product *p = &products[i];
        work += p->n * p->w.rows * p->w.cols;
        if (p->n > most) most = p->n;
        size_t bytes = path->scratch ? path->scratch(&p->w, p->n) : 0, beside = p->glu ? path->scratch(&p->glu->up->w, p->n) : 0;
        if (beside > bytes) bytes = beside;
        if (bytes > need) need = bytes;
    }
    job.row_step = path->unit;
    if (most > 2 * path->unit && path->unit < ROW_STEP) job.row_step = ROW_STEP / path->unit * path->unit;
    for (int64_t i = 0; i < count; i++) items += row_items(&job, &products[i]);
    if (items < 16 * threads) job.token_step = TOKEN_STEP_SMALL;
    items = 0;
    for (int64_t i = 0; i < count; i++) items += all_items(&job, &products[i]);
    if (items == 0) return true;

    arena_mark mark = arena_get_mark(r->scratch);
    job.scratch_bytes = (need + 63) / 64 * 64;
    if (need && !(job.scratch = arena_alloc_raw(r->scratch, job.scratch_bytes * (size_t)threads)))
        return run_fail(r, VLM_MEMORY, "out of memory (%zu bytes of scratch)", job.scratch_bytes * (size_t)threads);
    int64_t grain = 1 + FORK_WORK / (work / items + 1);
    if (most <= FEW_TOKENS) {                      /* the start of each range is cold: fewer and longer ones, four for each thread */
        int64_t item_bytes = job.row_step * (int64_t)weight_row_bytes(&products->w) + 1;
        int64_t longer = min64(RANGE_BYTES / item_bytes, items / (4 * threads));
        if (longer > grain) grain = longer;
    } else {                                       /* neighbouring rows share what is cached of the tokens */
        int64_t wide = min64((path->wide ? path->wide : WIDE_ROWS) / job.row_step, items / (4 * threads));
        if (wide > grain) grain = wide;
    }
    pool_for(r->dev->pool, items, grain, run_items, &job);
    arena_release(r->scratch, mark);
    return true;
}

void cpu_linear(run *r, tensor y, tensor x, const weight *w, const float *bias)
{
    arena_mark mark = arena_get_mark(r->scratch);
    linear_product p = {.w = *w, .bias = bias, .y = y.data, .y_stride = y.stride, .n = x.rows};
    if (linear_pack(r, &p, 1, x, NULL)) linear_run(r, &p, 1);
    arena_release(r->scratch, mark);
}

/* May b use the activations that were packed for a? */
static bool shares(const linear_product *a, const linear_path *path, const weight *b)
{
    if (a->path != path || a->w.cols != b->cols) return false;
    return !path->pack || (a->w.format == b->format && (b->format != WF_AFFINE || (a->w.bits == b->bits && a->w.group == b->group)));
}

void cpu_linear_group(run *r, int count, const tensor *y, tensor x, const weight *const *w, const float *const *bias)
{
    enum { MOST = 8 };
    arena_mark mark = arena_get_mark(r->scratch);
    for (int i = 0; i < count && run_ok(r);) {     /* as many as can share x go together */
        linear_product p[MOST];
        int n = 0;
        do {
            p[n] = (linear_product){.w = *w[i], .bias = bias ? bias[i] : NULL, .y = y[i].data, .y_stride = y[i].stride, .n = x.rows};
            if (n == 0 && !linear_pack(r, p, 1, x, NULL)) break;
            p[n].path = p->path;
            p[n].x = p->x;
            p[n].x_stride = p->x_stride;
            n++;
            i++;
        } while (i < count && n < MOST && shares(p, linear_path_of(r->dev, w[i], r->answer), w[i]));
        if (run_ok(r)) linear_run(r, p, n);
    }
    arena_release(r->scratch, mark);
}

/* Many tokens: from few, gate and up are small beside the weights. */
bool cpu_mlp(run *r, tensor y, tensor x, const mlp_spec *s)
{
    linear_product gate = {.w = *s->gate, .bias = s->gate_bias, .n = x.rows}, up = {.w = *s->up, .bias = s->up_bias, .n = x.rows};
    linear_product down = {.w = *s->down, .bias = s->down_bias, .y = y.data, .y_stride = y.stride, .n = x.rows};
    up.path = linear_path_of(r->dev, s->up, r->answer);
    down.path = linear_path_of(r->dev, s->down, r->answer);
    if (x.rows < GLU_TOKENS || !linear_path_of(r->dev, s->gate, r->answer)->glu || !up.path->glu || !down.path->glu) return false;
    arena_mark mark = arena_get_mark(r->scratch);
    size_t bytes = down.path->x_bytes(&down.w, down.n);
    linear_glu glu = {&up, &down, cpu_kernels_of(r)->glu, s->act};
    gate.glu = &glu;
    if (!(down.x = arena_alloc_raw(r->scratch, bytes))) run_fail(r, VLM_MEMORY, "out of memory (%zu bytes of activations)", bytes);
    else if (linear_pack(r, &gate, 1, x, NULL)) {
        up.x = gate.x;
        if (linear_run(r, &gate, 1)) linear_run(r, &down, 1);
    }
    arena_release(r->scratch, mark);
    return true;
}

/* ---- rows of a table ---- */

typedef struct embed_job {
    const linear_table *table;
    const weight *w;
    tensor out;
    const int32_t *ids;
    float scale;
} embed_job;

static void embed_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const embed_job *job = arg;
    for (int64_t i = begin; i < end; i++) {
        float *row = tensor_row(job->out, i);
        job->table->widen(job->w, job->ids[i], 0, job->w->cols, row);
        for (int64_t c = 0; c < job->w->cols; c++) row[c] *= job->scale;
    }
}

void cpu_embed(run *r, tensor out, const weight *table, const int32_t *ids, float scale)
{
    embed_job job = {cpu_of(r->dev)->linear, table, out, ids, scale};
    pool_for(r->dev->pool, out.rows, 1 + FORK_WORK / (table->cols + 1), embed_rows, &job);
}
