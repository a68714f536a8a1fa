/* mla.h - multi-head latent attention: DeepSeek-V2 (arXiv 2405.04434), V3, Kimi K2.
 *
 *   kv_a(h) = latent [kv_rank], key_rope [rope]     the cache holds norm(latent), rope(key_rope): one row for all heads
 *   q(h)    = of each head: q_nope [nope], q_rope [rope]; with q_rank through a bottleneck of its own
 *
 * The paper expands a latent to keys and values of each head: k_h = K_h latent, v_h = V_h latent (kv_b_proj). As q.(K l) = (K^T q).l, the matrices
 * are moved to the other side here ("absorbed"):
 *   query_h = K_h^T q_nope, rope(q_rope)            [kv_rank + rope]
 *   out_h   = V_h sum_j p_j latent_j                [value]
 * So attention is that of one head of keys of kv_rank + rope columns, whose first kv_rank columns are the values (kv_shape.latent), and pages,
 * prefix cache and batches know nothing of it. Prompts take the same way as decoded tokens: a chunk's border must change no bit. */
#ifndef VLM_BLOCKS_MLA_H
#define VLM_BLOCKS_MLA_H

#include "blocks/rope.h"
#include "tensor/ops.h"
#include "weights/bind.h"
#include "weights/config.h"

typedef struct mla_spec {
    int q_rank;                    /* 0: queries come from q_proj */
    int kv_rank;                   /* 0: no latent attention */
    int nope, rope, value;         /* columns of a head's query and key without and with positions, of its values */
    bool bias;                     /* of q_a_proj and kv_a_proj_with_mqa */
    float scale;                   /* scores = scale * q.k */
} mla_spec;

typedef struct mla {
    weight q_a, q, kv_a;
    weight keys, values;           /* K_h^T: heads x [kv_rank, nope]; V_h: heads x [value, kv_rank] */
    const float *q_norm, *kv_norm, *q_bias, *kv_bias;
} mla;

/* kv_lora_rank, q_lora_rank, qk_nope_head_dim, qk_rope_head_dim, v_head_dim, attention_bias below the prefixes; kv_rank 0 where the config has none. The
 * rope is that of the layers, for its factor on scores. */
bool mla_config(mla_spec *s, config *c, const char *const *prefixes);
void mla_set_scale(mla_spec *s, const rope_table *rope);
static inline int mla_head_dim(const mla_spec *s) { return s->kv_rank + s->rope; }             /* of a row in the cache */

/* self_attn.q_a_proj, q_a_layernorm, q_b_proj (or q_proj), kv_a_proj_with_mqa, kv_a_layernorm, kv_b_proj (or embed_q, unembed_out) of layer i. */
void mla_bind(const mla_spec *s, mla *w, binder *b, int hidden, int heads, int i);
/* Rows for the cache [n, kv_rank + rope]; cosine, sine: of these rows. */
tensor mla_keys(run *r, const mla_spec *s, const mla *w, tensor h, const rope_table *rope, tensor cosine, tensor sine);
/* [n, heads * (kv_rank + rope)] */
tensor mla_queries(run *r, const mla_spec *s, const mla *w, tensor h, int heads, const rope_table *rope, tensor cosine, tensor sine);
/* What attention gives [n, heads * kv_rank] to [n, heads * value]. */
tensor mla_expand(run *r, const mla_spec *s, const mla *w, tensor out, int heads);

#endif
