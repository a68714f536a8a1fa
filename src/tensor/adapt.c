/* adapt.c - see adapt.h. */
#include "tensor/adapt.h"

/* The rows that want adapter `bit`: index in scratch, *n of them; *all: every row. */
static const int32_t *rows_that_want(run *r, int64_t rows, int bit, int64_t *n, bool *all)
{
    int32_t *index = run_alloc(r, (size_t)(rows + 1) * sizeof *index);
    *n = 0;
    for (int64_t i = 0; index && i < rows; i++)
        if (!r->row_adapters || (r->row_adapters[i] >> bit & 1)) index[(*n)++] = (int32_t)i;
    *all = *n == rows;
    return index;
}

static tensor picked(run *r, tensor x, const int32_t *index, int64_t n, bool all)
{
    if (all) return x;
    tensor out = run_tensor(r, n, x.cols);
    if (run_ok(r)) r->dev->ops->gather(r, out, x, index);
    return out;
}

static tensor product(run *r, tensor x, const weight *w, const float *bias)
{
    if (run_ok(r) && x.cols != w->cols) run_fail(r, VLM_INTERNAL, "adapter: %s has %lld columns, not %lld", w->name ? w->name : "weight", (long long)w->cols, (long long)x.cols);
    tensor y = run_tensor(r, x.rows, w->rows);
    if (run_ok(r)) r->dev->ops->linear(r, y, x, w, bias);
    return y;
}

static bool applies(const run *r, const low_rank *l, bool table) { return l->table == table && (r->adapters >> l->adapter & 1); }

static bool rows_fit(run *r, int64_t rows, const weight *w)
{
    if (!r->row_adapters || rows == r->adapter_rows) return true;
    return run_fail(r, VLM_UNSUPPORTED, "an adapter changes %s, whose inputs are no tokens of the batch (%lld rows, %lld tokens)", w->name ? w->name : "a weight",
                    (long long)rows, (long long)r->adapter_rows);
}

static void adapt_rows(run *r, tensor y, tensor x, const low_rank *l, const float *bias)
{
    int64_t n;
    bool all;
    const int32_t *index = rows_that_want(r, y.rows, l->adapter, &n, &all);
    if (!n || !run_ok(r)) return;
    tensor u = {NULL, DT_F32, n, y.cols, y.cols}, in = picked(r, x, index, n, all);
    if (l->instead) {
        bias = l->bias ? l->bias : bias;
        tensor whole = product(r, in, l->instead, bias);
        if (run_ok(r)) r->dev->ops->scatter(r, y, whole, index);
        if (!l->down.data) return;
    }
    if (l->down.data) u = product(r, product(r, in, &l->down, NULL), &l->up, l->up_bias);
    const float *from = l->columns || l->bias ? bias : NULL;
    if (run_ok(r)) r->dev->ops->adapt(r, y, u, index, n, l->scale, l->columns, from, l->bias ? l->bias : from);
}

void adapt_product(run *r, tensor y, tensor x, const weight *w, const float *bias)
{
    for (const low_rank *l = w->low_rank; l && r->adapters && run_ok(r); l = l->next) {
        if (!applies(r, l, false) || !rows_fit(r, x.rows, w)) continue;
        arena_mark mark = arena_get_mark(r->scratch);
        adapt_rows(r, y, x, l, bias);
        arena_release(r->scratch, mark);
    }
}

static tensor looked_up(run *r, const weight *table, const int32_t *ids, int64_t n, float scale)
{
    tensor out = run_tensor(r, n, table->cols);
    if (run_ok(r)) r->dev->ops->embed(r, out, table, ids, scale);
    return out;
}

static void adapt_looked_up(run *r, tensor out, const low_rank *l, const int32_t *ids, float scale)
{
    int64_t n;
    bool all;
    const int32_t *index = rows_that_want(r, out.rows, l->adapter, &n, &all);
    int32_t *wanted = run_alloc(r, (size_t)(n + 1) * sizeof *wanted);
    for (int64_t i = 0; run_ok(r) && i < n; i++) wanted[i] = ids[index[i]];
    if (!n || !run_ok(r)) return;
    tensor u = {NULL, DT_F32, n, out.cols, out.cols};
    if (l->instead) {
        tensor whole = looked_up(r, l->instead, wanted, n, scale);
        if (run_ok(r)) r->dev->ops->scatter(r, out, whole, index);
        if (!l->down.data) return;
    }
    if (l->down.data) u = product(r, looked_up(r, &l->down, wanted, n, 1), &l->up, NULL);
    if (run_ok(r)) r->dev->ops->adapt(r, out, u, index, n, scale * l->scale, l->columns, NULL, NULL);
}

void adapt_rows_of(run *r, tensor out, const weight *table, const int32_t *ids, float scale)
{
    for (const low_rank *l = table->low_rank; l && r->adapters && run_ok(r); l = l->next) {
        if (!applies(r, l, true) || !rows_fit(r, out.rows, table)) continue;
        arena_mark mark = arena_get_mark(r->scratch);
        adapt_looked_up(r, out, l, ids, scale);
        arena_release(r->scratch, mark);
    }
}

/* Rows that all want the same need no list, and may be any number: so must it be in encoders. */
void run_set_adapters(run *r, const uint64_t *masks, int64_t rows)
{
    bool alike = true;
    r->adapters = 0;
    for (int64_t i = 0; i < rows; i++) {
        r->adapters |= masks[i];
        alike = alike && masks[i] == masks[0];
    }
    r->row_adapters = alike ? NULL : masks;
    r->adapter_rows = alike ? 0 : rows;
}

void run_gather_adapters(run *r, const int32_t *index, int64_t n)
{
    if (!r->row_adapters) return;
    uint64_t *masks = run_alloc(r, (size_t)(n + 1) * sizeof *masks);
    for (int64_t i = 0; masks && i < n; i++) masks[i] = r->row_adapters[index[i]];
    if (masks) run_set_adapters(r, masks, n);
}
