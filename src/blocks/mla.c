/* mla.c - see mla.h. */
#include "blocks/mla.h"

#include <math.h>
#include <stdio.h>

static const float EPS = 1e-6f;    /* of the norms of latents, whatever rms_norm_eps is */

static const char *at(char path[512], const char *const *prefixes, const char *key)
{
    size_t used = 0;
    path[0] = 0;
    for (const char *const *p = prefixes; *p && used < 512; p++) used += (size_t)snprintf(path + used, 512 - used, "%s%s%s", used ? "|" : "", *p, key);
    return path;
}

bool mla_config(mla_spec *s, config *c, const char *const *prefixes)
{
    char path[512];
    *s = (mla_spec){0};
    if (!config_bool(c, at(path, prefixes, "use_mla"), true)) return !c->failed;
    s->kv_rank = (int)config_int(c, at(path, prefixes, "kv_lora_rank"), 0, 0, 1 << 14);
    if (!s->kv_rank || c->failed) return !c->failed;
    s->q_rank = (int)config_int(c, at(path, prefixes, "q_lora_rank"), 0, 0, 1 << 20);
    s->nope = (int)config_need_int(c, at(path, prefixes, "qk_nope_head_dim"), 1, 1 << 14);
    s->rope = (int)config_need_int(c, at(path, prefixes, "qk_rope_head_dim"), 2, 1 << 14);
    s->value = (int)config_need_int(c, at(path, prefixes, "v_head_dim"), 1, 1 << 14);
    s->bias = config_bool(c, at(path, prefixes, "attention_bias"), false);
    return !c->failed;
}

void mla_set_scale(mla_spec *s, const rope_table *rope) { s->scale = (float)(pow(s->nope + s->rope, -0.5) * rope->score_factor); }

void mla_bind(const mla_spec *s, mla *w, binder *b, int hidden, int heads, int i)
{
    int64_t q = (int64_t)heads * (s->nope + s->rope);
    if (s->q_rank) {
        bind_linear(b, &w->q_a, s->q_rank, hidden, "layers.%d.self_attn.q_a_proj", i);
        if (s->bias) bind_vector(b, &w->q_bias, s->q_rank, "layers.%d.self_attn.q_a_proj.bias", i);
        bind_vector(b, &w->q_norm, s->q_rank, "layers.%d.self_attn.q_a_layernorm.weight", i);
        bind_linear(b, &w->q, q, s->q_rank, "layers.%d.self_attn.q_b_proj", i);
    } else
        bind_linear(b, &w->q, q, hidden, "layers.%d.self_attn.q_proj", i);
    bind_linear(b, &w->kv_a, s->kv_rank + s->rope, hidden, "layers.%d.self_attn.kv_a_proj_with_mqa", i);
    if (s->bias) bind_vector(b, &w->kv_bias, s->kv_rank + s->rope, "layers.%d.self_attn.kv_a_proj_with_mqa.bias", i);
    bind_vector(b, &w->kv_norm, s->kv_rank, "layers.%d.self_attn.kv_a_layernorm.weight", i);
    if (b->files && bind_exists(b, "layers.%d.self_attn.embed_q.weight", i)) {             /* MLX has moved them already */
        bind_experts(b, &w->keys, heads, s->kv_rank, s->nope, "layers.%d.self_attn.embed_q", i);
        bind_experts(b, &w->values, heads, s->value, s->kv_rank, "layers.%d.self_attn.unembed_out", i);
    } else
        bind_heads(b, &w->keys, &w->values, heads, s->nope, s->value, s->kv_rank, "layers.%d.self_attn.kv_b_proj", i);
}

/* ---- forward ------------------------------------------------------------------------------------------------------ */

static const int32_t *in_order(run *r, int64_t n)
{
    int32_t *index = run_alloc(r, (size_t)(n + 1) * sizeof *index);
    for (int64_t i = 0; index && i < n; i++) index[i] = (int32_t)i;
    return index;
}

/* Columns [from, from + rope) of x, a row for each head, turned and put behind the latent columns of out. */
static void put_rope(run *r, const mla_spec *s, tensor out, tensor x, int64_t from, int heads, const rope_table *rope, tensor cosine, tensor sine)
{
    const int32_t *rows = in_order(r, x.rows);
    if (!run_ok(r)) return;
    tensor turned = op_gather(r, tensor_cols(x, from, s->rope), rows, x.rows);
    if (!run_ok(r)) return;
    int64_t wide = (int64_t)heads * s->rope;
    op_rope(r, (tensor){turned.data, DT_F32, x.rows / heads, wide, wide}, heads, s->rope, 1, 2 * rope->half, rope->interleaved, cosine, sine);
    op_scatter(r, tensor_cols(out, s->kv_rank, s->rope), turned, rows);
}

tensor mla_keys(run *r, const mla_spec *s, const mla *w, tensor h, const rope_table *rope, tensor cosine, tensor sine)
{
    tensor x = op_linear(r, h, &w->kv_a, w->kv_bias), out = run_tensor(r, h.rows, mla_head_dim(s));
    const int32_t *rows = in_order(r, h.rows);
    if (!run_ok(r)) return out;
    tensor latent = op_rmsnorm(r, tensor_cols(x, 0, s->kv_rank), w->kv_norm, 0, EPS);
    op_scatter(r, tensor_cols(out, 0, s->kv_rank), latent, rows);
    put_rope(r, s, out, x, s->kv_rank, 1, rope, cosine, sine);
    return out;
}

tensor mla_queries(run *r, const mla_spec *s, const mla *w, tensor h, int heads, const rope_table *rope, tensor cosine, tensor sine)
{
    if (s->q_rank) h = op_rmsnorm(r, op_linear(r, h, &w->q_a, w->q_bias), w->q_norm, 0, EPS);
    tensor q = op_linear(r, h, &w->q, NULL);                                               /* [n, heads * (nope + rope)] */
    int64_t n = h.rows * heads, wide = (int64_t)heads * mla_head_dim(s);
    tensor out = run_tensor(r, n, mla_head_dim(s)), each = {q.data, DT_F32, n, s->nope + s->rope, s->nope + s->rope};
    if (!run_ok(r)) return out;
    op_linear_heads_to(r, tensor_cols(out, 0, s->kv_rank), tensor_cols(each, 0, s->nope), &w->keys);
    put_rope(r, s, out, each, s->nope, heads, rope, cosine, sine);
    return (tensor){out.data, DT_F32, h.rows, wide, wide};
}

tensor mla_expand(run *r, const mla_spec *s, const mla *w, tensor out, int heads)
{
    int64_t n = out.rows * heads, wide = (int64_t)heads * s->value;
    tensor y = run_tensor(r, n, s->value);
    op_linear_heads_to(r, y, (tensor){out.data, DT_F32, n, s->kv_rank, s->kv_rank}, &w->values);
    return (tensor){y.data, DT_F32, out.rows, wide, wide};
}
