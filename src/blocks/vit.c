/* vit.c - see vit.h. */
#include "blocks/vit.h"

#include <math.h>

enum { MLP_ROWS = 4096 };

void vit_bind_layer(vit_layer *w, const vit_spec *s, binder *b, const char *layers, int i, const vit_names *n)
{
    int64_t d = s->hidden, attention = (int64_t)s->heads * s->head_dim, kv = (int64_t)(s->kv_heads ? s->kv_heads : s->heads) * s->head_dim;
    bind_vector(b, &w->norm1, d, "%s.%d.%s.weight", layers, i, n->norm1);
    bind_vector(b, &w->norm2, d, "%s.%d.%s.weight", layers, i, n->norm2);
    if (s->layernorm) {
        bind_vector(b, &w->norm1_bias, d, "%s.%d.%s.bias", layers, i, n->norm1);
        bind_vector(b, &w->norm2_bias, d, "%s.%d.%s.bias", layers, i, n->norm2);
    }
    if (n->qkv) {
        bind_linear(b, &w->qkv, attention + 2 * kv, d, "%s.%d.%s", layers, i, n->qkv);
        bind_vector_optional(b, &w->qkv_bias, attention + 2 * kv, "%s.%d.%s.bias", layers, i, n->qkv);
    } else {
        bind_linear(b, &w->q, attention, d, "%s.%d.%s", layers, i, n->q);
        bind_linear(b, &w->k, kv, d, "%s.%d.%s", layers, i, n->k);
        bind_linear(b, &w->v, kv, d, "%s.%d.%s", layers, i, n->v);
        bind_vector_optional(b, &w->q_bias, attention, "%s.%d.%s.bias", layers, i, n->q);
        bind_vector_optional(b, &w->k_bias, kv, "%s.%d.%s.bias", layers, i, n->k);
        bind_vector_optional(b, &w->v_bias, kv, "%s.%d.%s.bias", layers, i, n->v);
    }
    int64_t normed = s->norm_each_head ? s->head_dim : attention, normed_keys = s->norm_each_head ? s->head_dim : kv;
    if (n->q_norm) bind_vector(b, &w->q_norm, normed, "%s.%d.%s.weight", layers, i, n->q_norm);
    if (n->k_norm) bind_vector(b, &w->k_norm, normed_keys, "%s.%d.%s.weight", layers, i, n->k_norm);
    if (n->scale1) bind_vector(b, &w->scale1, d, "%s.%d.%s", layers, i, n->scale1);
    if (n->scale2) bind_vector(b, &w->scale2, d, "%s.%d.%s", layers, i, n->scale2);
    bind_linear(b, &w->proj, d, attention, "%s.%d.%s", layers, i, n->proj);
    bind_vector_optional(b, &w->proj_bias, d, "%s.%d.%s.bias", layers, i, n->proj);
    if (s->gated) {
        bind_linear(b, &w->gate, s->ffn, d, "%s.%d.%s", layers, i, n->gate);
        bind_vector_optional(b, &w->gate_bias, s->ffn, "%s.%d.%s.bias", layers, i, n->gate);
    }
    bind_linear(b, &w->up, s->ffn, d, "%s.%d.%s", layers, i, n->up);
    bind_vector_optional(b, &w->up_bias, s->ffn, "%s.%d.%s.bias", layers, i, n->up);
    bind_linear(b, &w->down, d, s->ffn, "%s.%d.%s", layers, i, n->down);
    bind_vector_optional(b, &w->down_bias, d, "%s.%d.%s.bias", layers, i, n->down);
}

static tensor norm(run *r, const vit_spec *s, tensor x, const float *w, const float *bias)
{
    return s->layernorm ? op_layernorm(r, x, w, bias, s->eps) : op_rmsnorm(r, x, w, 0, s->eps);
}

void vit_attend(run *r, const vit_spec *s, const vit_layer *w, int i, tensor x, tensor cosine, tensor sine, const int32_t *starts, int segments)
{
    int kv_heads = s->kv_heads ? s->kv_heads : s->heads;
    int64_t d = (int64_t)s->heads * s->head_dim, kv = (int64_t)kv_heads * s->head_dim;
    tensor h = norm(r, s, x, w->norm1, w->norm1_bias), y[3], q, k, v;
    if (w->qkv.data) {
        tensor qkv = op_linear(r, h, &w->qkv, w->qkv_bias);                                          /* [n, (heads + 2 kv_heads) * head_dim] */
        if (!run_ok(r)) return;
        q = tensor_cols(qkv, 0, d), k = tensor_cols(qkv, d, kv), v = tensor_cols(qkv, d + kv, kv);
    } else {
        op_linear_group(r, h, 3, y, (const weight *[]){&w->q, &w->k, &w->v}, (const float *[]){w->q_bias, w->k_bias, w->v_bias});
        if (!run_ok(r)) return;
        q = y[0], k = y[1], v = y[2];
    }
    if (w->q_norm) op_rmsnorm_heads(r, q, w->q_norm, 0, s->eps, s->norm_each_head ? s->head_dim : (int)d);
    if (w->k_norm) op_rmsnorm_heads(r, k, w->k_norm, 0, s->eps, s->norm_each_head ? s->head_dim : (int)kv);
    if (cosine.data) {
        op_rope(r, q, s->heads, s->head_dim, 1, s->head_dim, s->rope_pairs, cosine, sine);
        op_rope(r, k, kv_heads, s->head_dim, 1, s->head_dim, s->rope_pairs, cosine, sine);
    }
    attention_spec a = {.heads = s->heads, .kv_heads = kv_heads, .head_dim = s->head_dim, .scale = (float)pow(s->head_dim, -0.5), .see = s->see};
    tensor out = op_attention_segments(r, q, k, v, starts, segments, &a);
    TAP(r, "vit.attn", i, out);
    out = op_linear(r, out, &w->proj, w->proj_bias);
    if (w->scale1) op_scale(r, out, 1, w->scale1);
    op_add_inplace(r, x, out);
}

static void feed_forward(run *r, const vit_spec *s, const vit_layer *w, tensor x)
{
    tensor h = norm(r, s, x, w->norm2, w->norm2_bias);
    if (s->gated) {
        h = op_mlp(r, h, &(mlp_spec){&w->gate, &w->up, &w->down, w->gate_bias, w->up_bias, w->down_bias, s->act});
    } else {
        h = op_linear(r, h, &w->up, w->up_bias);                                                     /* [n, ffn] */
        op_activate(r, h, s->act);
        h = op_linear(r, h, &w->down, w->down_bias);
    }
    if (w->scale2) op_scale(r, h, 1, w->scale2);
    op_add_inplace(r, x, h);
}

/* The MLP goes over blocks of rows: a picture of 65536 patches would otherwise need gigabytes for its widest tensors. */
void vit_layer_forward(run *r, const vit_spec *s, const vit_layer *w, int i, tensor x, tensor cosine, tensor sine, const int32_t *starts, int segments)
{
    arena_mark mark = arena_get_mark(r->scratch);
    vit_attend(r, s, w, i, x, cosine, sine, starts, segments);
    arena_release(r->scratch, mark);
    for (int64_t first = 0; first < x.rows && run_ok(r); first += MLP_ROWS) {
        feed_forward(r, s, w, tensor_rows(x, first, first + MLP_ROWS < x.rows ? MLP_ROWS : x.rows - first));
        arena_release(r->scratch, mark);
    }
    TAP(r, "vit.hidden", i, x);
}

double vit_layer_cost(const vit_spec *s, double n, double seen)
{
    double d = s->hidden, attention = (double)s->heads * s->head_dim;
    return 2 * n * (4 * d * attention + (s->gated ? 3 : 2) * d * s->ffn) + 4 * n * seen * attention;
}

void vit_positions(int t, int h, int w, int merge, int32_t *row, int32_t *column)
{
    for (int frame = 0; frame < t; frame++)
        for (int block_row = 0; block_row < h / merge; block_row++)
            for (int block_column = 0; block_column < w / merge; block_column++)
                for (int i = 0; i < merge * merge; i++) {
                    *row++ = block_row * merge + i / merge;
                    *column++ = block_column * merge + i % merge;
                }
}

int vit_windows(int t, int h, int w, int merge, int side, int32_t *order, int32_t *starts)
{
    int rows = h / merge, columns = w / merge, windows = 0;
    int32_t placed = 0;
    starts[0] = 0;
    for (int frame = 0; frame < t; frame++)
        for (int top = 0; top < rows; top += side)
            for (int left = 0; left < columns; left += side) {
                for (int y = top; y < top + side && y < rows; y++)
                    for (int x = left; x < left + side && x < columns; x++) order[placed++] = (frame * rows + y) * columns + x;
                starts[++windows] = placed * merge * merge;
            }
    return windows;
}
