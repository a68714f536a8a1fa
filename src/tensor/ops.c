/* ops.c - what models call: each op_* does nothing after a failure, checks shapes and indices, makes room for the result and
 * calls the backend. A failed check is a mistake in a model or a lying checkpoint: the message says both shapes. */
#include "tensor/ops.h"
#include "tensor/adapt.h"

#define LL(x) ((long long)(x))

static const tensor none;

/* False (and the run fails) unless a and b are [rows, cols] alike. */
static bool same(run *r, const char *op, tensor a, tensor b)
{
    if (r->failed) return false;
    if (a.rows == b.rows && a.cols == b.cols) return true;
    return run_fail(r, VLM_INTERNAL, "%s: [%lld, %lld] and [%lld, %lld] differ in shape", op, LL(a.rows), LL(a.cols), LL(b.rows), LL(b.cols));
}

static bool expect(run *r, const char *op, const char *what, tensor t, int64_t rows, int64_t cols)
{
    if (r->failed) return false;
    if (t.rows == rows && t.cols == cols) return true;
    return run_fail(r, VLM_INTERNAL, "%s: %s is [%lld, %lld], expected [%lld, %lld]", op, what, LL(t.rows), LL(t.cols), LL(rows), LL(cols));
}

static bool indices(run *r, const char *op, const int32_t *index, int64_t n, int64_t least, int64_t end)
{
    if (r->failed) return false;
    for (int64_t i = 0; i < n; i++)
        if (index[i] < least || index[i] >= end)
            return run_fail(r, VLM_INTERNAL, "%s: index %d at %lld, there are %lld rows", op, index[i], LL(i), LL(end));
    return true;
}

/* ---- matrix products ---- */

static bool fits(run *r, const char *op, tensor x, const weight *w, int64_t cols)
{
    if (r->failed) return false;
    if (w->cols == cols && x.cols == cols && !w->experts) return true;
    return run_fail(r, VLM_INTERNAL, "%s: x is [%lld, %lld], %s is %s[%lld, %lld]", op, LL(x.rows), LL(x.cols), w->name ? w->name : "weight",
                    w->experts ? "experts of " : "", LL(w->rows), LL(w->cols));
}

void op_linear_to(run *r, tensor y, tensor x, const weight *w, const float *bias)
{
    if (!fits(r, "linear", x, w, x.cols) || !expect(r, "linear", "y", y, x.rows, w->rows)) return;
    r->dev->ops->linear(r, y, x, w, bias);
    adapt_product(r, y, x, w, bias);
}

tensor op_linear(run *r, tensor x, const weight *w, const float *bias)
{
    if (!fits(r, "linear", x, w, x.cols)) return none;
    tensor y = run_tensor(r, x.rows, w->rows);
    if (run_ok(r)) r->dev->ops->linear(r, y, x, w, bias);
    adapt_product(r, y, x, w, bias);
    return y;
}

void op_linear_group(run *r, tensor x, int count, tensor *y, const weight *const *w, const float *const *bias)
{
    if (run_ok(r) && (count < 1 || count > LINEAR_GROUP_MAX)) run_fail(r, VLM_INTERNAL, "linear: a group of %d", count);
    for (int i = 0; i < count; i++) y[i] = fits(r, "linear", x, w[i], x.cols) ? run_tensor(r, x.rows, w[i]->rows) : none;
    if (run_ok(r) && r->dev->ops->linear_group) r->dev->ops->linear_group(r, count, y, x, w, bias);
    else for (int i = 0; i < count && run_ok(r); i++) r->dev->ops->linear(r, y[i], x, w[i], bias[i]);
    for (int i = 0; i < count; i++) adapt_product(r, y[i], x, w[i], bias ? bias[i] : NULL);
}

/* Adapters change what lies between. */
static bool adapted(const run *r, const weight *w) { return r->adapters && w->low_rank; }

tensor op_mlp(run *r, tensor x, const mlp_spec *s)
{
    if (!fits(r, "mlp", x, s->gate, x.cols) || !fits(r, "mlp", x, s->up, x.cols)) return none;
    if (s->gate->rows == s->up->rows && s->down->cols == s->gate->rows && r->dev->ops->mlp && !adapted(r, s->gate) && !adapted(r, s->up) && !adapted(r, s->down)) {
        tensor out = run_tensor(r, x.rows, s->down->rows);
        if (!run_ok(r) || r->dev->ops->mlp(r, out, x, s)) return out;
    }
    tensor y[2];
    op_linear_group(r, x, 2, y, (const weight *[]){s->gate, s->up}, (const float *[]){s->gate_bias, s->up_bias});
    return op_linear(r, op_glu(r, y[0], y[1], s->act), s->down, s->down_bias);
}

void op_linear_heads_to(run *r, tensor y, tensor x, const weight *w)
{
    if (!expect(r, "linear_heads", "x", x, x.rows, w->cols) || !expect(r, "linear_heads", "y", y, x.rows, w->rows)) return;
    if (w->experts < 1 || x.rows % w->experts) run_fail(r, VLM_INTERNAL, "linear_heads: %lld rows of %lld heads", LL(x.rows), LL(w->experts));
    else r->dev->ops->linear_heads(r, y, x, w);
}

tensor op_embed(run *r, const weight *table, const int32_t *ids, int64_t n, float scale)
{
    if (!indices(r, "embed", ids, n, 0, table->rows)) return none;
    tensor out = run_tensor(r, n, table->cols);
    if (run_ok(r)) r->dev->ops->embed(r, out, table, ids, scale);
    adapt_rows_of(r, out, table, ids, scale);
    return out;
}

static bool matrix_of(run *r, const weight *w, const moe_spec *s, int64_t rows, int64_t cols)
{
    if (w->experts == s->experts && w->rows == rows && w->cols == cols) return true;
    return run_fail(r, VLM_INTERNAL, "moe: %s is %lld x [%lld, %lld], expected %d x [%lld, %lld]", w->name ? w->name : "weight", LL(w->experts),
                    LL(w->rows), LL(w->cols), s->experts, LL(rows), LL(cols));
}

tensor op_moe(run *r, tensor x, const moe_spec *s, const int32_t *index, const float *weights)
{
    if (!indices(r, "moe", index, x.rows * s->top_k, 0, s->experts)) return none;
    int64_t ffn = s->down->cols;
    if (s->gate_up ? !matrix_of(r, s->gate_up, s, 2 * ffn, x.cols)
                   : !matrix_of(r, s->gate, s, ffn, x.cols) || !matrix_of(r, s->up, s, ffn, x.cols)) return none;
    if (!matrix_of(r, s->down, s, s->down->rows, ffn)) return none;
    tensor out = run_tensor(r, x.rows, s->down->rows);
    if (run_ok(r)) r->dev->ops->moe(r, out, x, s, index, weights);
    return out;
}

tensor op_conv2d(run *r, tensor x, int height, int width, const weight *w, const float *bias, int kh, int kw, int stride, int padding,
                 int *out_height, int *out_width)
{
    *out_height = *out_width = 0;
    if (r->failed) return none;
    if (kh < 1 || kw < 1 || stride < 1 || padding < 0 || height < 0 || width < 0 || x.rows != (int64_t)height * width || w->experts ||
        w->cols != (int64_t)kh * kw * x.cols || height + 2 * (int64_t)padding < kh || width + 2 * (int64_t)padding < kw) {
        run_fail(r, VLM_INTERNAL, "conv2d: image of %d x %d, x [%lld, %lld], kernel %d x %d, stride %d, padding %d, weight [%lld, %lld]",
                 height, width, LL(x.rows), LL(x.cols), kh, kw, stride, padding, LL(w->rows), LL(w->cols));
        return none;
    }
    *out_height = (height + 2 * padding - kh) / stride + 1;
    *out_width = (width + 2 * padding - kw) / stride + 1;
    conv_shape c = {height, width, kh, kw, stride, padding, padding, *out_height, *out_width};
    return op_conv2d_shape(r, x, &c, w, bias);
}

static bool conv_fits(run *r, tensor x, const conv_shape *c)
{
    if (r->failed) return false;
    if (c->kh > 0 && c->kw > 0 && c->stride > 0 && c->top >= 0 && c->left >= 0 && c->height >= 0 && c->width >= 0 && c->out_height >= 0 && c->out_width >= 0 &&
        x.rows == (int64_t)c->height * c->width)
        return true;
    return run_fail(r, VLM_INTERNAL, "convolution: %d x %d places, x [%lld, %lld], kernel %d x %d, stride %d, padding %d, %d", c->height, c->width, LL(x.rows),
                    LL(x.cols), c->kh, c->kw, c->stride, c->top, c->left);
}

tensor op_conv2d_shape(run *r, tensor x, const conv_shape *c, const weight *w, const float *bias)
{
    if (!conv_fits(r, x, c) || !fits(r, "conv2d", (tensor){NULL, DT_F32, x.rows, (int64_t)c->kh * c->kw * x.cols, 0}, w, w->cols)) return none;
    tensor y = run_tensor(r, (int64_t)c->out_height * c->out_width, w->rows);
    if (run_ok(r)) r->dev->ops->conv2d(r, y, x, c, w, bias);
    return y;
}

tensor op_conv2d_depthwise(run *r, tensor x, const conv_shape *c, const float *w, const float *bias)
{
    if (!conv_fits(r, x, c)) return none;
    tensor y = run_tensor(r, (int64_t)c->out_height * c->out_width, x.cols);
    if (run_ok(r)) r->dev->ops->conv2d_depthwise(r, y, x, c, w, bias);
    return y;
}

conv_shape conv_same(int height, int width, int kernel, int stride)
{
    conv_shape c = {height, width, kernel, kernel, stride, 0, 0, (height + stride - 1) / stride, (width + stride - 1) / stride};
    int rows = (c.out_height - 1) * stride + kernel - height, columns = (c.out_width - 1) * stride + kernel - width;
    c.top = rows > 0 ? rows / 2 : 0;
    c.left = columns > 0 ? columns / 2 : 0;
    return c;
}

tensor op_conv1d_depthwise(run *r, tensor x, const float *w, int kernel, int left)
{
    tensor y = run_tensor(r, x.rows, x.cols);
    if (run_ok(r)) r->dev->ops->conv1d_depthwise(r, y, x, w, kernel, left);
    return y;
}

/* ---- norms and element by element ---- */

tensor op_rmsnorm(run *r, tensor x, const float *w, float offset, float eps)
{
    tensor y = run_tensor(r, x.rows, x.cols);
    if (run_ok(r)) r->dev->ops->rmsnorm(r, y, x, w, offset, eps, x.cols);
    return y;
}

void op_rmsnorm_heads(run *r, tensor x, const float *w, float offset, float eps, int head_dim)
{
    if (r->failed) return;
    if (head_dim < 1 || x.cols % head_dim) run_fail(r, VLM_INTERNAL, "rmsnorm: %lld columns are no heads of %d", LL(x.cols), head_dim);
    else r->dev->ops->rmsnorm(r, x, x, w, offset, eps, head_dim);
}

tensor op_layernorm(run *r, tensor x, const float *w, const float *b, float eps)
{
    tensor y = run_tensor(r, x.rows, x.cols);
    if (run_ok(r)) r->dev->ops->layernorm(r, y, x, w, b, eps);
    return y;
}

void op_add_scaled(run *r, tensor x, tensor b, float scale)
{
    if (same(r, "add", x, b)) r->dev->ops->add(r, x, x, b, scale);
}

void op_add_inplace(run *r, tensor x, tensor b) { op_add_scaled(r, x, b, 1); }

void op_mul_inplace(run *r, tensor x, tensor b)
{
    if (same(r, "mul", x, b)) r->dev->ops->mul(r, x, x, b);
}

void op_scale(run *r, tensor x, float factor, const float *columns)
{
    if (run_ok(r)) r->dev->ops->scale(r, x, factor, columns);
}

void op_activate(run *r, tensor x, activation act)
{
    if (run_ok(r)) r->dev->ops->activate(r, x, x, act);
}

tensor op_glu(run *r, tensor gate, tensor up, activation act)
{
    if (!same(r, "glu", gate, up)) return none;
    tensor y = run_tensor(r, gate.rows, gate.cols);
    if (run_ok(r)) r->dev->ops->glu(r, y, gate, up, act);
    return y;
}

void op_clip(run *r, tensor x, float lo, float hi)
{
    if (run_ok(r)) r->dev->ops->clip(r, x, lo, hi);
}

void op_softcap(run *r, tensor x, float cap)
{
    if (run_ok(r)) r->dev->ops->softcap(r, x, cap);
}

void op_rope(run *r, tensor x, int heads, int head_dim, int blocks, int block_dim, bool interleaved, tensor cosine, tensor sine)
{
    if (r->failed) return;
    int64_t angles = (int64_t)blocks * (block_dim / 2);
    if (x.cols != (int64_t)heads * head_dim || blocks < 1 || block_dim < 2 || block_dim % 2 || (int64_t)blocks * block_dim > head_dim)
        run_fail(r, VLM_INTERNAL, "rope: %lld columns, %d heads of %d, %d blocks of %d", LL(x.cols), heads, head_dim, blocks, block_dim);
    else if (expect(r, "rope", "cosine", cosine, x.rows, angles) && expect(r, "rope", "sine", sine, x.rows, angles))
        r->dev->ops->rope(r, x, heads, head_dim, blocks, block_dim, interleaved, cosine, sine);
}

/* ---- rows ---- */

tensor op_gather(run *r, tensor x, const int32_t *index, int64_t n)
{
    if (!indices(r, "gather", index, n, INT32_MIN, x.rows)) return none;
    tensor out = run_tensor(r, n, x.cols);
    if (run_ok(r)) r->dev->ops->gather(r, out, x, index);
    return out;
}

void op_scatter(run *r, tensor out, tensor x, const int32_t *index)
{
    if (!indices(r, "scatter", index, x.rows, INT32_MIN, out.rows) || !expect(r, "scatter", "out", out, out.rows, x.cols)) return;
    r->dev->ops->scatter(r, out, x, index);
}

void op_scatter_add(run *r, tensor out, tensor x, const int32_t *index, float factor)
{
    if (!indices(r, "scatter_add", index, x.rows, INT32_MIN, out.rows) || !expect(r, "scatter_add", "out", out, out.rows, x.cols)) return;
    r->dev->ops->scatter_add(r, out, x, index, factor);
}

void op_route(run *r, int32_t *index, float *share, tensor logits, const route_spec *s)
{
    if (r->failed) return;
    int64_t size = logits.cols, kept = 1;          /* of a group */
    if (s->groups > 1) {
        size /= s->groups, kept = s->kept_groups;
        if (size * s->groups != logits.cols || kept < 1 || kept > s->groups || s->group_best < 1 || s->group_best > size) {
            run_fail(r, VLM_INTERNAL, "route: %lld experts in %d groups, of which %d count by their best %d", LL(logits.cols), s->groups, s->kept_groups, s->group_best);
            return;
        }
    }
    if (s->top_k < 1 || s->top_k > kept * size) run_fail(r, VLM_INTERNAL, "route: %d of %lld", s->top_k, LL(kept * size));
    else r->dev->ops->route(r, index, share, logits, s);
}

/* ---- attention ---- */

static bool heads_fit(run *r, const attention_spec *s)
{
    if (r->failed) return false;
    if (s->heads > 0 && s->kv_heads > 0 && s->head_dim > 0 && s->heads % s->kv_heads == 0) return true;
    return run_fail(r, VLM_INTERNAL, "attention: %d heads, %d key heads, head_dim %d", s->heads, s->kv_heads, s->head_dim);
}

static bool group_fits(run *r, const ragged *batch, int group, int slot)
{
    if (r->failed) return false;
    if (group >= 0 && group < batch->n_groups && slot >= 0 && slot < batch->group[group].slots) return true;
    return run_fail(r, VLM_INTERNAL, "attention: slot %d of page group %d, there are %d groups", slot, group, batch->n_groups);
}

void op_kv_write(run *r, const ragged *batch, int group, int slot, tensor k, tensor v)
{
    if (!group_fits(r, batch, group, slot)) return;
    int64_t cols = (int64_t)batch->group[group].kv_heads * batch->group[group].head_dim;
    if (expect(r, "kv_write", "k", k, batch->n_tokens, cols) && (batch->group[group].latent || expect(r, "kv_write", "v", v, batch->n_tokens, cols)))
        r->dev->ops->kv_write(r, batch, group, slot, k, v);
}

tensor op_attention(run *r, tensor q, const ragged *batch, const attention_spec *s)
{
    if (!heads_fit(r, s) || !group_fits(r, batch, s->group, s->slot)) return none;
    const kv_shape *shape = &batch->group[s->group];
    if (shape->kv_heads != s->kv_heads || shape->head_dim != s->head_dim) {
        run_fail(r, VLM_INTERNAL, "attention: %d key heads of %d, page group %d has %d of %d", s->kv_heads, s->head_dim, s->group,
                 shape->kv_heads, shape->head_dim);
        return none;
    }
    if (!expect(r, "attention", "q", q, batch->n_tokens, (int64_t)s->heads * s->head_dim)) return none;
    tensor out = run_tensor(r, q.rows, (int64_t)s->heads * kv_value_dim(shape));
    if (run_ok(r)) r->dev->ops->attention(r, out, q, batch, s);
    return out;
}

static bool qkv_fit(run *r, const char *op, tensor q, tensor k, tensor v, const attention_spec *s)
{
    int64_t kv_cols = (int64_t)s->kv_heads * s->head_dim;
    return heads_fit(r, s) && expect(r, op, "q", q, q.rows, (int64_t)s->heads * s->head_dim) && expect(r, op, "k", k, q.rows, kv_cols) &&
           expect(r, op, "v", v, q.rows, kv_cols);
}

tensor op_attention_segments(run *r, tensor q, tensor k, tensor v, const int32_t *starts, int segments, const attention_spec *s)
{
    if (!qkv_fit(r, "attention_segments", q, k, v, s)) return none;
    bool covered = segments >= 0 && (segments ? starts[0] == 0 && starts[segments] == q.rows : q.rows == 0);
    for (int i = 0; covered && i < segments; i++) covered = starts[i] <= starts[i + 1];
    if (!covered) {
        run_fail(r, VLM_INTERNAL, "attention_segments: %d segments do not cover %lld rows", segments, LL(q.rows));
        return none;
    }
    tensor out = run_tensor(r, q.rows, q.cols);
    if (run_ok(r)) r->dev->ops->attention_segments(r, out, q, k, v, starts, segments, s);
    return out;
}

tensor op_attention_relative(run *r, tensor q, tensor k, tensor v, tensor rel, int left, int right, const attention_spec *s)
{
    if (!qkv_fit(r, "attention_relative", q, k, v, s)) return none;
    if (left < 0 || right < 0 || left > 1 << 24 || right > 1 << 24) {
        run_fail(r, VLM_INTERNAL, "attention_relative: %d rows to the left, %d to the right", left, right);
        return none;
    }
    if (!expect(r, "attention_relative", "rel", rel, (int64_t)left + right + 1, q.cols)) return none;
    tensor out = run_tensor(r, q.rows, q.cols);
    if (run_ok(r)) r->dev->ops->attention_relative(r, out, q, k, v, rel, left, right, s);
    return out;
}

/* ---- recurrent layers ---- */

static bool remembers(run *r, const char *op, const ragged *batch, const run_memory *m)
{
    if (r->failed) return false;
    bool ok = m->from && m->to;
    for (int i = 0; ok && i < batch->n_runs; i++) ok = m->to[i] != NULL;
    return ok || run_fail(r, VLM_INTERNAL, "%s: a run has no memory", op);
}

tensor op_conv1d_causal(run *r, tensor x, const ragged *batch, const float *w, const float *bias, int kernel, activation act, const run_memory *memory)
{
    if (!remembers(r, "conv1d_causal", batch, memory) || !expect(r, "conv1d_causal", "x", x, batch->n_tokens, x.cols)) return none;
    if (kernel < 1) return run_fail(r, VLM_INTERNAL, "conv1d_causal: kernel of %d", kernel), none;
    tensor y = run_tensor(r, x.rows, x.cols);
    if (run_ok(r)) r->dev->ops->conv1d_causal(r, y, x, batch, w, bias, kernel, act, memory);
    return y;
}

tensor op_delta_rule(run *r, tensor q, tensor k, tensor v, tensor a, tensor b, const ragged *batch, const delta_spec *s, const run_memory *memory)
{
    const char *op = "delta_rule";
    if (!remembers(r, op, batch, memory)) return none;
    if (s->key_heads < 1 || s->value_heads < 1 || s->value_heads % s->key_heads || s->key_dim < 1 || s->value_dim < 1)
        return run_fail(r, VLM_INTERNAL, "%s: %d key heads of %d, %d value heads of %d", op, s->key_heads, s->key_dim, s->value_heads, s->value_dim), none;
    int64_t n = batch->n_tokens, keys = (int64_t)s->key_heads * s->key_dim, values = (int64_t)s->value_heads * s->value_dim;
    if (!expect(r, op, "q", q, n, keys) || !expect(r, op, "k", k, n, keys) || !expect(r, op, "v", v, n, values) || !expect(r, op, "a", a, n, s->value_heads) ||
        !expect(r, op, "b", b, n, s->value_heads)) return none;
    tensor out = run_tensor(r, n, values);
    if (run_ok(r)) r->dev->ops->delta_rule(r, out, q, k, v, a, b, batch, s, memory);
    return out;
}

void op_scale_rows(run *r, tensor x, tensor factor)
{
    if (expect(r, "scale_rows", "factor", factor, x.rows, 1)) r->dev->ops->scale_rows(r, x, factor);
}
