/* ref_attention.c - pages and attention of ops_ref: see ref.h. A page is [slot][keys, values][position][kv_heads * head_dim];
 * where values are latent, [slot][position][kv_heads * head_dim]. */
#include <math.h>
#include <string.h>

#include "tensor/cpu/ref.h"

/* Keys (values: part 1) of position `p` of run `seq`, or NULL when the window has left its page behind. */
static char *page_row(const ragged *b, int group, int slot, int seq, int part, int64_t p)
{
    const kv_shape *shape = &b->group[group];
    char *page = b->pages[group][seq][p / KV_PAGE_TOKENS];
    size_t row = (size_t)shape->kv_heads * (size_t)shape->head_dim * dtype_size(shape->type);
    int parts = shape->latent ? 1 : 2;
    return page ? page + ((size_t)(parts * slot + part % parts) * KV_PAGE_TOKENS + (size_t)(p % KV_PAGE_TOKENS)) * row : NULL;
}

static void narrow(void *out, dtype type, const float *in, int64_t n)
{
    if (type == DT_F32) memcpy(out, in, (size_t)n * 4);
    for (int64_t i = 0; type == DT_BF16 && i < n; i++) ((uint16_t *)out)[i] = f32_to_bf16(in[i]);
    for (int64_t i = 0; type == DT_F16 && i < n; i++) ((uint16_t *)out)[i] = f32_to_f16(in[i]);
}

void ref_kv_write(run *r, const ragged *b, int group, int slot, tensor k, tensor v)
{
    for (int i = 0; i < b->n_tokens; i++) {
        for (int part = 0; part < (b->group[group].latent ? 1 : 2); part++) {
            char *to = page_row(b, group, slot, b->token_run[i], part, b->token_position[i]);
            if (to) narrow(to, b->group[group].type, tensor_row(part ? v : k, i), k.cols);
        }
    }
}

static double capped(double score, float cap) { return cap > 0 ? cap * tanh(score / cap) : score; }

/* Softmax of n scores in place; *sink joins the denominator. */
static void softmax(double *score, int64_t n, const float *sink)
{
    double most = sink ? *sink : -INFINITY, sum = 0;
    for (int64_t j = 0; j < n; j++) most = score[j] > most ? score[j] : most;
    for (int64_t j = 0; j < n; j++) sum += score[j] = exp(score[j] - most);
    if (sink) sum += exp(*sink - most);
    for (int64_t j = 0; j < n; j++) score[j] /= sum;
}

/* One head of one row over keys[0..n) and values, rows `stride` apart; bias: added to the scores before the cap, or NULL. */
static void attend(run *r, float *out, const float *q, const float *keys, const float *values, int64_t stride, int64_t n,
                   const double *bias, float scale, int head, const attention_spec *s, int value_dim)
{
    arena_mark mark = arena_get_mark(r->scratch);
    double *score = run_alloc(r, (size_t)n * sizeof *score);
    for (int64_t j = 0; score && j < n; j++) {
        for (int d = 0; d < s->head_dim; d++) score[j] += (double)q[d] * keys[j * stride + d];
        score[j] = capped(scale * score[j] + (bias ? bias[j] : 0), s->softcap);
    }
    if (score) softmax(score, n, s->sinks ? s->sinks + head : NULL);
    for (int d = 0; score && d < value_dim; d++) {
        double sum = 0;
        for (int64_t j = 0; j < n; j++) sum += score[j] * values[j * stride + d];
        out[d] = (float)sum;
    }
    arena_release(r->scratch, mark);
}

static bool in_block(const joined_blocks *b, int64_t position)
{
    for (int i = 0; i < b->count; i++)
        if (position >= b->place[2 * i] && position < b->place[2 * i + 1]) return true;
    return false;
}

void ref_attention(run *r, tensor out, tensor q, const ragged *b, const attention_spec *s)
{
    const kv_shape *shape = &b->group[s->group];
    int64_t cols = (int64_t)s->kv_heads * s->head_dim;
    for (int i = 0; i < b->n_tokens && run_ok(r); i++) {
        int64_t p = b->token_position[i], see = (s->bidirectional || s->whole_blocks) && b->see_to ? b->see_to[i] : p + 1;
        int64_t first = shape->window && p - shape->window + 1 > 0 ? p - shape->window + 1 : 0;
        if (shape->window && shape->chunked) first = p - p % shape->window;
        if (s->whole_blocks && b->see_from && b->see_from[i] < first) first = b->see_from[i];
        arena_mark mark = arena_get_mark(r->scratch);
        tensor k = run_tensor(r, see - first, cols), v = run_tensor(r, see - first, cols);
        int64_t n = 0;
        for (int64_t j = first; j < see && run_ok(r); j++) {
            if (j > p && b->joined && b->joined[b->token_run[i]] && !in_block(b->joined[b->token_run[i]], j)) continue;
            convert_to_f32(page_row(b, s->group, s->slot, b->token_run[i], 0, j), shape->type, cols, tensor_row(k, n));
            convert_to_f32(page_row(b, s->group, s->slot, b->token_run[i], 1, j), shape->type, cols, tensor_row(v, n++));
        }
        for (int h = 0; h < s->heads && run_ok(r); h++) {
            int64_t kv = h / (s->heads / s->kv_heads) * s->head_dim, at = (int64_t)h * s->head_dim;
            attend(r, tensor_row(out, i) + (int64_t)h * kv_value_dim(shape), tensor_row(q, i) + at, tensor_row(k, 0) + kv, tensor_row(v, 0) + kv, cols,
                   n, NULL, s->scale, h, s, kv_value_dim(shape));
        }
        arena_release(r->scratch, mark);
    }
}

void ref_attention_segments(run *r, tensor out, tensor q, tensor k, tensor v, const int32_t *starts, int segments, const attention_spec *s)
{
    tensor packed[2] = {k, v};                                             /* attend takes one stride for both */
    arena_mark mark = arena_get_mark(r->scratch);
    for (int part = 0; part < 2 && k.stride != v.stride; part++) {
        tensor from = packed[part], to = packed[part] = run_tensor(r, from.rows, from.cols);
        for (int64_t i = 0; i < to.rows && run_ok(r); i++) memcpy(tensor_row(to, i), tensor_row(from, i), (size_t)to.cols * 4);
    }
    for (int g = 0; g < segments; g++) {
        for (int64_t i = starts[g]; i < starts[g + 1]; i++) {
            for (int h = 0; h < s->heads && run_ok(r); h++) {
                int64_t kv = h / (s->heads / s->kv_heads) * s->head_dim, at = (int64_t)h * s->head_dim;
                attend(r, tensor_row(out, i) + at, tensor_row(q, i) + at, tensor_row(packed[0], starts[g]) + kv,
                       tensor_row(packed[1], starts[g]) + kv, packed[0].stride, s->see ? s->see[i] : starts[g + 1] - starts[g], NULL, s->scale, h, s,
                       s->head_dim);
            }
        }
    }
    arena_release(r->scratch, mark);
}

void ref_attention_relative(run *r, tensor out, tensor q, tensor k, tensor v, tensor rel, int left, int right, const attention_spec *s)
{
    for (int64_t i = 0; i < q.rows; i++) {
        int64_t first = i > left ? i - left : 0, end = i + right + 1 < q.rows ? i + right + 1 : q.rows;
        arena_mark mark = arena_get_mark(r->scratch);
        tensor near_k = run_tensor(r, end - first, k.cols), near_v = run_tensor(r, end - first, k.cols);
        double *bias = run_alloc(r, (size_t)(end - first) * sizeof *bias);
        for (int64_t j = first; j < end && run_ok(r); j++) {
            memcpy(tensor_row(near_k, j - first), tensor_row(k, j), (size_t)k.cols * 4);
            memcpy(tensor_row(near_v, j - first), tensor_row(v, j), (size_t)k.cols * 4);
        }
        for (int h = 0; h < s->heads && run_ok(r); h++) {
            int64_t kv = h / (s->heads / s->kv_heads) * s->head_dim, at = (int64_t)h * s->head_dim;
            for (int64_t j = first; j < end; j++) {
                bias[j - first] = 0;
                for (int d = 0; d < s->head_dim; d++)
                    bias[j - first] += (double)tensor_row(q, i)[at + d] * tensor_row(rel, i - j + right)[at + d];
            }
            attend(r, tensor_row(out, i) + at, tensor_row(q, i) + at, tensor_row(near_k, 0) + kv, tensor_row(near_v, 0) + kv, k.cols,
                   end - first, bias, 1, h, s, s->head_dim);
        }
        arena_release(r->scratch, mark);
    }
}
