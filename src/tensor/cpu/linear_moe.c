/* linear_moe.c - mixture of experts: tokens are gathered by expert, so that each expert's matrices are read once, as many small
 * products in one fork; the results are added for each token in the order of its choices, whatever order they were made in.
 * Likewise matrices that belong to heads: every token has a row for each of them. */
#include <math.h>
#include <string.h>

#include "tensor/cpu/linear.h"

enum { FORK_VALUES = 1 << 14 };                    /* sums below which one thread is enough */

typedef struct moe_plan {
    int64_t n, top_k, m;                           /* tokens, choices of each, all choices */
    int32_t *source;                               /* [m] token of the i-th choice in the order of experts */
    int32_t *place;                                /* [m] where choice k of token t stands in that order */
    linear_product *products;                      /* the experts that were chosen at all */
    int64_t used;
} moe_plan;

/* Counting sort of the choices by expert; within an expert tokens stay in order. */
static bool make_plan(run *r, moe_plan *p, const moe_spec *s, int64_t n, const int32_t *index)
{
    p->n = n;
    p->top_k = s->top_k;
    p->m = n * s->top_k;
    int32_t *start = run_alloc(r, ((size_t)s->experts + 1) * sizeof *start);
    p->source = run_alloc(r, (size_t)p->m * sizeof *p->source);
    p->place = run_alloc(r, (size_t)p->m * sizeof *p->place);
    p->products = run_alloc(r, 2 * (size_t)s->experts * sizeof *p->products);
    if (!run_ok(r)) return false;
    for (int64_t i = 0; i < p->m; i++) {
        if (index[i] < 0 || index[i] >= s->experts) return run_fail(r, VLM_INTERNAL, "expert %d of %d", (int)index[i], s->experts);
        start[index[i] + 1]++;
    }
    for (int e = 0; e < s->experts; e++) {
        if (start[e + 1]) p->products[p->used++] = (linear_product){.n = start[e + 1], .y_stride = e};   /* y_stride: set later */
        start[e + 1] += start[e];
    }
    for (int64_t i = 0; i < p->m; i++) {
        p->place[i] = start[index[i]]++;
        p->source[p->place[i]] = (int32_t)(i / s->top_k);
    }
    return true;
}

/* y = rows of x by expert . w^T, into columns of y. */
static bool multiply(run *r, const moe_plan *plan, tensor y, tensor x, const weight *w, const int32_t *source)
{
    arena_mark mark = arena_get_mark(r->scratch);
    linear_product *products = run_alloc(r, (size_t)plan->used * sizeof *products);
    int64_t row = 0;
    for (int64_t i = 0; products && i < plan->used; i++) {
        products[i] = (linear_product){.w = linear_expert(r->dev, w, plan->products[i].y_stride), .y = tensor_row(y, row), .y_stride = y.stride,
                                       .n = plan->products[i].n};
        row += products[i].n;
    }
    bool ok = products && linear_pack(r, products, plan->used, x, source) && linear_run(r, products, plan->used);
    arena_release(r->scratch, mark);
    return ok;
}

/* Biases and bounds of the first products. Rows stand in the order of experts. */
static void bound_rows(run *r, const moe_plan *p, const moe_spec *s, tensor gate, tensor up)
{
    const cpu_kernels *k = cpu_kernels_of(r);
    int64_t row = 0, ffn = gate.cols;
    for (int64_t i = 0; i < p->used; i++)
        for (int64_t left = p->products[i].n; left > 0; left--, row++) {
            float *g = tensor_row(gate, row), *u = tensor_row(up, row);
            const float *bias = s->gate_up_bias ? s->gate_up_bias + p->products[i].y_stride * 2 * ffn : NULL;
            if (bias) k->add(g, g, bias, 1, ffn), k->add(u, u, bias + ffn, 1, ffn);
            if (s->limit > 0) {
                k->clip(g, -INFINITY, s->limit, ffn);
                k->clip(u, -s->limit, s->limit, ffn);
                for (int64_t c = 0; c < ffn; c++) u[c] += 1;
            }
        }
}

static void add_down_bias(run *r, const moe_plan *p, const moe_spec *s, tensor y)
{
    int64_t row = 0;
    for (int64_t i = 0; s->down_bias && i < p->used; i++)
        for (int64_t left = p->products[i].n; left > 0; left--, row++)
            cpu_kernels_of(r)->add(tensor_row(y, row), tensor_row(y, row), s->down_bias + p->products[i].y_stride * y.cols, 1, y.cols);
}

typedef struct sum_job {
    const moe_plan *plan;
    tensor out, y;
    const float *weights;
} sum_job;

static void sum_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const sum_job *job = arg;
    for (int64_t t = begin; t < end; t++) {
        float *out = tensor_row(job->out, t);
        memset(out, 0, (size_t)job->out.cols * sizeof *out);
        for (int64_t i = t * job->plan->top_k; i < (t + 1) * job->plan->top_k; i++) {
            const float *y = tensor_row(job->y, job->plan->place[i]), factor = job->weights[i];
            for (int64_t c = 0; c < job->out.cols; c++) out[c] += factor * y[c];
        }
    }
}

void cpu_moe(run *r, tensor out, tensor x, const moe_spec *s, const int32_t *index, const float *weights)
{
    arena_mark mark = arena_get_mark(r->scratch);
    int64_t ffn = s->down->cols;
    moe_plan plan = {0};
    if (!make_plan(r, &plan, s, x.rows, index)) goto done;
    tensor h = run_tensor(r, plan.m, 2 * ffn), gate = tensor_cols(h, 0, ffn), up = tensor_cols(h, ffn, ffn);
    tensor y = run_tensor(r, plan.m, out.cols);
    if (!run_ok(r)) goto done;
    if (s->gate_up) {
        if (!multiply(r, &plan, h, x, s->gate_up, plan.source)) goto done;
    } else if (!multiply(r, &plan, gate, x, s->gate, plan.source) || !multiply(r, &plan, up, x, s->up, plan.source)) {
        goto done;
    }
    if (s->gate_up_bias || s->limit > 0) bound_rows(r, &plan, s, gate, up);
    r->dev->ops->glu(r, gate, gate, up, s->act);
    if (!multiply(r, &plan, y, gate, s->down, NULL)) goto done;
    add_down_bias(r, &plan, s, y);
    sum_job job = {&plan, out, y, weights};
    pool_for(r->dev->pool, x.rows, 1 + FORK_VALUES / (out.cols * plan.top_k), sum_rows, &job);
done:
    arena_release(r->scratch, mark);
}

void cpu_linear_heads(run *r, tensor y, tensor x, const weight *w)
{
    arena_mark mark = arena_get_mark(r->scratch);
    int64_t heads = w->experts, n = x.rows / heads;
    linear_product *products = run_alloc(r, (size_t)heads * sizeof *products);
    int32_t *source = run_alloc(r, (size_t)x.rows * sizeof *source);
    for (int64_t h = 0; run_ok(r) && h < heads; h++) {
        products[h] = (linear_product){.w = linear_expert(r->dev, w, h), .y = tensor_row(y, h), .y_stride = y.stride * heads, .n = n};
        for (int64_t t = 0; t < n; t++) source[h * n + t] = (int32_t)(t * heads + h);
    }
    if (run_ok(r) && linear_pack(r, products, heads, x, source)) linear_run(r, products, heads);
    arena_release(r->scratch, mark);
}
