/* decoder_bind.c - the decoder's weights under their usual names, each with the shape that the spec implies. */
#include "blocks/decoder.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static void bind_prefixes(binder *b, const char *const *p)
{
    if (p[0]) bind_prefix(b, p[0], p[1], p[1] ? p[2] : NULL, p[1] && p[2] ? p[3] : NULL, p[1] && p[2] && p[3] ? p[4] : NULL, NULL);
    else bind_prefix(b, "", NULL);
}

/* Is the matrix there as one, perhaps with adapters beside it? */
static bool has_fused(binder *b, const char *format, int i)
{
    char name[96];
    snprintf(name, sizeof name, format, i);
    return bind_exists(b, "%s.weight", name) || bind_exists(b, "%s.base_layer.weight", name);
}

static void bind_attention(const decoder_spec *s, decoder_layer *w, const decoder_layer_spec *l, binder *b, int i)
{
    int64_t q = (int64_t)l->heads * l->head_dim, kv = (int64_t)l->kv_heads * l->head_dim;
    bool own = l->kv_from < 0;
    if (s->mla.kv_rank) {
        q = (int64_t)l->heads * s->mla.value;
        mla_bind(&s->mla, &w->mla, b, s->hidden, l->heads, i);
    }
    bind_linear(b, &w->o, s->hidden, q, "layers.%d.self_attn.%s", i, s->lfm2_names ? "out_proj" : "o_proj");
    if (s->o_bias) bind_vector(b, &w->o_bias, s->hidden, "layers.%d.self_attn.o_proj.bias", i);
    if (s->mla.kv_rank) return;
    if (s->fused_qkv && has_fused(b, "layers.%d.self_attn.qkv_proj", i)) {
        bind_linear_parts(b, 3, (weight *[]){&w->q, &w->k, &w->v}, (int64_t[]){q, kv, kv}, s->hidden, "layers.%d.self_attn.qkv_proj", i);
    } else {
        bind_linear(b, &w->q, s->attn_gate ? 2 * q : q, s->hidden, "layers.%d.self_attn.q_proj", i);
        if (own) bind_linear(b, &w->k, kv, s->hidden, "layers.%d.self_attn.k_proj", i);
        if (own && !l->v_is_k) bind_linear(b, &w->v, kv, s->hidden, "layers.%d.self_attn.v_proj", i);
    }
    const float *fused = NULL;
    if (s->qkv_bias && s->fused_qkv && bind_vector_optional(b, &fused, q + 2 * kv, "layers.%d.self_attn.qkv_proj.bias", i)) {
        w->q_bias = fused, w->k_bias = fused + q, w->v_bias = fused + q + kv;
    } else if (s->qkv_bias) {
        bind_vector(b, &w->q_bias, s->attn_gate ? 2 * q : q, "layers.%d.self_attn.q_proj.bias", i);
        if (own) bind_vector(b, &w->k_bias, kv, "layers.%d.self_attn.k_proj.bias", i);
        if (own && !l->v_is_k) bind_vector(b, &w->v_bias, kv, "layers.%d.self_attn.v_proj.bias", i);
    }
    if (s->qk_norm) {
        bind_vector(b, &w->q_norm, s->qk_norm_whole ? q : l->head_dim, "layers.%d.self_attn.%s.weight", i, s->lfm2_names ? "q_layernorm" : s->qk_norm_last ? "query_layernorm" : "q_norm");
        if (own) bind_vector(b, &w->k_norm, s->qk_norm_whole ? kv : l->head_dim, "layers.%d.self_attn.%s.weight", i, s->lfm2_names ? "k_layernorm" : s->qk_norm_last ? "key_layernorm" : "k_norm");
    }
    if (s->sinks) bind_vector(b, &w->sinks, l->heads, "layers.%d.self_attn.sinks", i);
}

static void bind_mlp(const decoder_spec *s, decoder_layer *w, const decoder_layer_spec *l, binder *b, int i)
{
    if (s->fused_gate_up && has_fused(b, "layers.%d.mlp.gate_up_proj", i)) {
        bind_linear_parts(b, 2, (weight *[]){s->up_first ? &w->up : &w->gate, s->up_first ? &w->gate : &w->up}, (int64_t[]){l->ffn, l->ffn}, s->hidden, "layers.%d.mlp.gate_up_proj", i);
    } else {
        if (!s->plain_mlp) bind_linear(b, &w->gate, l->ffn, s->hidden, "layers.%d.%s", i, s->lfm2_names ? "feed_forward.w1" : "mlp.gate_proj");
        bind_linear(b, &w->up, l->ffn, s->hidden, "layers.%d.%s", i, s->lfm2_names ? "feed_forward.w3" : "mlp.up_proj");
    }
    bind_linear(b, &w->down, s->hidden, l->ffn, "layers.%d.%s", i, s->lfm2_names ? "feed_forward.w2" : "mlp.down_proj");
    if (!s->mlp_bias) return;
    if (!s->plain_mlp) bind_vector(b, &w->gate_bias, l->ffn, "layers.%d.mlp.gate_proj.bias", i);
    bind_vector(b, &w->up_bias, l->ffn, "layers.%d.mlp.up_proj.bias", i);
    bind_vector(b, &w->down_bias, s->hidden, "layers.%d.mlp.down_proj.bias", i);
}

static void bind_gpt_oss(const decoder_spec *s, decoder_layer *w, binder *b, int i)
{
    int64_t n = s->experts, ffn = s->expert_ffn;
    bind_linear(b, &w->router, n, s->hidden, "layers.%d.mlp.router", i);
    bind_vector(b, &w->router_bias, n, "layers.%d.mlp.router.bias", i);
    bind_experts_interleaved(b, &w->experts_gate_up, n, 2 * ffn, s->hidden, "layers.%d.mlp.experts.gate_up_proj", i);
    bind_experts_transposed(b, &w->experts_down, n, s->hidden, ffn, "layers.%d.mlp.experts.down_proj", i);
    bind_vector_interleaved(b, &w->experts_bias, n, 2 * ffn, "layers.%d.mlp.experts.gate_up_proj_bias", i);
    bind_vector(b, &w->experts_down_bias, n * s->hidden, "layers.%d.mlp.experts.down_proj_bias", i);
}

static void bind_shared(const decoder_spec *s, decoder_layer *w, binder *b, int i)
{
    const char *shared = s->shared_plain ? "shared_experts" : "shared_expert";
    bind_linear(b, &w->shared_gate, s->shared_ffn, s->hidden, "layers.%d.mlp.%s.gate_proj", i, shared);
    bind_linear(b, &w->shared_up, s->shared_ffn, s->hidden, "layers.%d.mlp.%s.up_proj", i, shared);
    bind_linear(b, &w->shared_down, s->hidden, s->shared_ffn, "layers.%d.mlp.%s.down_proj", i, shared);
    if (!s->shared_plain) bind_linear(b, &w->shared_router, 1, s->hidden, "layers.%d.mlp.shared_expert_gate", i);
}

/* ERNIE 4.5 VL: experts of the second kind are counted on behind the first, routers lie transposed. */
static void bind_two_kinds(const decoder_spec *s, decoder_layer *w, binder *b, int i)
{
    int64_t n = s->experts, ffn[2] = {s->expert_ffn, s->media_ffn};
    weight *router[2] = {&w->router, &w->media_router}, *gate[2] = {&w->experts_gate, &w->media_gate}, *up[2] = {&w->experts_up, &w->media_up};
    weight *down[2] = {&w->experts_down, &w->media_down};
    for (int k = 0; k < 2; k++) {
        bind_linear_transposed(b, router[k], n, s->hidden, "layers.%d.mlp.gate%s", i, k ? ".weight_1" : "");
        bind_experts_range(b, gate[k], k * n, n, ffn[k], s->hidden, "gate_proj", "layers.%d.mlp.experts", i);
        bind_experts_range(b, up[k], k * n, n, ffn[k], s->hidden, "up_proj", "layers.%d.mlp.experts", i);
        bind_experts_range(b, down[k], k * n, n, s->hidden, ffn[k], "down_proj", "layers.%d.mlp.experts", i);
    }
    bind_vector(b, &w->router_correction, 2 * n, "layers.%d.%s", i, s->correction_bias);
    w->media_correction = w->router_correction ? w->router_correction + n : NULL;
    if (s->shared_ffn) bind_shared(s, w, b, i);
}

/* Experts lie fused (Gemma 4, newer transformers, Granite; some transposed), one by one (Qwen as published), or with gate and up apart (MLX). */
typedef struct expert_names { const char *router, *experts, *fused, *fused_down, *apart, *gate, *up, *down; } expert_names;

static const expert_names *names_of_experts(const decoder_spec *s, binder *b, int i)
{
    static const expert_names usual[] = {
        [MOE_USUAL] = {"mlp.gate", "mlp.experts", "gate_up_proj", "down_proj", "mlp.switch_mlp", "gate_proj", "up_proj", "down_proj"},
        [MOE_MIXTRAL] = {"block_sparse_moe.gate", "block_sparse_moe.experts", "gate_up_proj", "down_proj", "block_sparse_moe.switch_mlp", "w1", "w3", "w2"},
        [MOE_LFM2] = {"feed_forward.gate", "feed_forward.experts", "gate_up_proj", "down_proj", "feed_forward.switch_mlp", "w1", "w3", "w2"},
        [MOE_GRANITE] = {"block_sparse_moe.router.layer", "block_sparse_moe", "input_linear", "output_linear", "block_sparse_moe.switch_mlp", "", "", ""},
    };
    static const expert_names beside = {"router.proj", "experts", "gate_up_proj", "down_proj", "experts.switch_glu", "", "", ""};
    if (s->moe == MOE_BESIDE) return &beside;
    bool renamed = s->moe_names == MOE_MIXTRAL && !bind_exists(b, "layers.%d.block_sparse_moe.gate.weight", i);      /* as newer transformers write it */
    return &usual[renamed ? MOE_USUAL : s->moe_names];
}

static void bind_moe(const decoder_spec *s, decoder_layer *w, binder *b, int i)
{
    bool beside = s->moe == MOE_BESIDE;
    const expert_names *name = names_of_experts(s, b, i);
    int64_t n = s->experts, ffn = s->expert_ffn;
    bind_linear(b, &w->router, n, s->hidden, "layers.%d.%s", i, name->router);
    if (s->correction_bias) bind_vector(b, &w->router_correction, n, "layers.%d.%s", i, s->correction_bias);
    if (s->experts_transposed && b->files && bind_exists(b, "layers.%d.%s.%s", i, name->experts, name->fused)) {
        bind_experts_transposed(b, &w->experts_gate_up, n, 2 * ffn, s->hidden, "layers.%d.%s.%s", i, name->experts, name->fused);
        bind_experts_transposed(b, &w->experts_down, n, s->hidden, ffn, "layers.%d.%s.%s", i, name->experts, name->fused_down);
    } else if (bind_experts_optional(b, &w->experts_gate_up, n, 2 * ffn, s->hidden, "layers.%d.%s.%s", i, name->experts, name->fused))
        bind_experts(b, &w->experts_down, n, s->hidden, ffn, "layers.%d.%s.%s", i, name->experts, name->fused_down);
    else if (name->gate[0] && bind_exists(b, "layers.%d.%s.0.%s.weight", i, name->experts, name->gate)) {
        bind_experts_each(b, &w->experts_gate, n, ffn, s->hidden, name->gate, "layers.%d.%s", i, name->experts);
        bind_experts_each(b, &w->experts_up, n, ffn, s->hidden, name->up, "layers.%d.%s", i, name->experts);
        bind_experts_each(b, &w->experts_down, n, s->hidden, ffn, name->down, "layers.%d.%s", i, name->experts);
    } else {
        bind_experts(b, &w->experts_gate, n, ffn, s->hidden, "layers.%d.%s.gate_proj", i, name->apart);
        bind_experts(b, &w->experts_up, n, ffn, s->hidden, "layers.%d.%s.up_proj", i, name->apart);
        bind_experts(b, &w->experts_down, n, s->hidden, ffn, "layers.%d.%s.down_proj", i, name->apart);
    }
    if (!beside && s->shared_ffn) bind_shared(s, w, b, i);
    if (!beside) return;
    bind_vector(b, &w->router_scale, s->hidden, "layers.%d.router.scale", i);
    bind_vector(b, &w->router_expert_scale, n, "layers.%d.router.per_expert_scale", i);
    bind_vector(b, &w->moe_norm, s->hidden, "layers.%d.pre_feedforward_layernorm_2.weight", i);
    bind_vector(b, &w->moe_post1, s->hidden, "layers.%d.post_feedforward_layernorm_1.weight", i);
    bind_vector(b, &w->moe_post2, s->hidden, "layers.%d.post_feedforward_layernorm_2.weight", i);
}

/* A norm's weights; its biases, if it has some, behind them. */
static void bind_norm(const decoder_spec *s, binder *b, const float **out, const char *name)
{
    const float *bias = NULL;
    bind_vector(b, out, s->hidden, "%s.weight", name);
    if (!s->norm_bias) return;
    bind_vector(b, &bias, s->hidden, "%s.bias", name);
    float *both = b->failed ? NULL : arena_alloc_raw(b->memory, 2 * (size_t)s->hidden * sizeof *both);
    if (!both && !b->failed) bind_fail(b, VLM_MEMORY, "out of memory");
    if (!both) return;
    memcpy(both, *out, (size_t)s->hidden * sizeof *both);
    memcpy(both + s->hidden, bias, (size_t)s->hidden * sizeof *both);
    *out = both;
}

static void bind_norms(const decoder_spec *s, decoder_layer *w, binder *b, int i)
{
    char name[96];
    static const norm_names usual[] = {
        [NORM_PRE] = {"input_layernorm", NULL, "post_attention_layernorm", NULL},
        [NORM_SANDWICH] = {"input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"},
        [NORM_POST] = {NULL, "post_attention_layernorm", NULL, "post_feedforward_layernorm"},
        [NORM_PARALLEL] = {"input_layernorm", NULL, NULL, NULL},
    };
    const norm_names *n = &usual[s->norms], *own = &s->names;
    struct { const float **out; const char *usual, *own; } norms[] = {
        {&w->norm1, n->norm1, own->norm1}, {&w->post1, n->post1, own->post1}, {&w->norm2, n->norm2, own->norm2}, {&w->post2, n->post2, own->post2},
    };
    for (size_t k = 0; k < sizeof norms / sizeof *norms; k++)
        if (norms[k].usual) {
            snprintf(name, sizeof name, "layers.%d.%s", i, norms[k].own ? norms[k].own : norms[k].usual);
            bind_norm(s, b, norms[k].out, name);
        }
}

static float gate(binder *b, int i, const char *name)
{
    const float *value = NULL;
    bind_vector(b, &value, 1, "layers.%d.%s", i, name);
    return value ? tanhf(*value) : 0;
}

static void bind_cross(const decoder_spec *s, decoder_layer *w, binder *b, int i)
{
    const cross_spec *c = &s->cross;
    int64_t q = (int64_t)c->heads * c->head_dim, kv = (int64_t)c->kv_heads * c->head_dim;
    bind_linear(b, &w->cross.q, q, s->hidden, "layers.%d.cross_attn.q_proj", i);
    bind_linear(b, &w->cross.k, kv, s->hidden, "layers.%d.cross_attn.k_proj", i);
    bind_linear(b, &w->cross.v, kv, s->hidden, "layers.%d.cross_attn.v_proj", i);
    bind_linear(b, &w->cross.o, s->hidden, q, "layers.%d.cross_attn.o_proj", i);
    bind_vector(b, &w->cross.q_norm, c->head_dim, "layers.%d.cross_attn.q_norm.weight", i);
    bind_vector(b, &w->cross.k_norm, c->head_dim, "layers.%d.cross_attn.k_norm.weight", i);
    w->cross_gate = gate(b, i, "cross_attn_attn_gate");
    w->cross_mlp_gate = gate(b, i, "cross_attn_mlp_gate");
}

static void bind_layer(const decoder_spec *s, decoder_layer *w, binder *b, int i)
{
    const decoder_layer_spec *l = &s->layer[i];
    bind_norms(s, w, b, i);
    if (l->cross) bind_cross(s, w, b, i);
    else if (l->recurrent && s->conv.kernel) short_conv_bind(&s->conv, &w->conv, b, s->hidden, i);
    else if (l->recurrent) delta_net_bind(&s->delta, &w->delta, b, s->hidden, i);
    else bind_attention(s, w, l, b, i);
    if (l->ffn) bind_mlp(s, w, l, b, i);
    if (l->moe && s->moe_names == MOE_GPT_OSS) bind_gpt_oss(s, w, b, i);
    else if (l->moe && s->media_ffn) bind_two_kinds(s, w, b, i);
    else if (l->moe) bind_moe(s, w, b, i);
    if (s->altup.streams) altup_bind_layer(&s->altup, &w->altup, b, s->hidden, i);
    if (s->ple) {
        bind_linear(b, &w->ple_gate, s->ple, s->hidden, "layers.%d.per_layer_input_gate", i);
        bind_linear(b, &w->ple_proj, s->hidden, s->ple, "layers.%d.per_layer_projection", i);
        bind_vector(b, &w->ple_norm, s->hidden, "layers.%d.post_per_layer_input_norm.weight", i);
    }
    if (s->layer_scalar) {
        const float *scalar = NULL;
        bind_vector(b, &scalar, 1, "layers.%d.layer_scalar", i);
        if (scalar) w->scalar = *scalar;
    }
}

bool decoder_bind(decoder *d, binder *b)
{
    const decoder_spec *s = &d->spec;
    if (s->mlx_adds_offset && bind_is_mlx(b)) d->spec.norm_offset = 0;
    b->in_decoder = true;
    b->spellings = s->spellings;
    bind_prefixes(b, s->head_prefix);
    /* A head in the file wins over tie_word_embeddings: some configs say tied and carry another head. */
    bool own_head = false;
    if (s->head_bias) bind_vector(b, &d->head_bias, s->vocab, "lm_head.bias");
    if (!s->tied) bind_linear(b, &d->head, s->vocab, s->hidden, "lm_head");
    else if (b->files) own_head = bind_linear_optional(b, &d->head, s->vocab, s->hidden, "lm_head");
    bind_prefixes(b, s->prefix);
    if (s->tied && !own_head) bind_linear(b, &d->embed, s->vocab, s->hidden, "embed_tokens");
    else bind_table(b, &d->embed, s->embed_rows ? s->embed_rows : s->vocab, s->hidden, "embed_tokens");
    bind_norm(s, b, &d->norm, s->lfm2_names ? "embedding_norm" : "norm");
    if (s->ple) {
        int64_t columns = (int64_t)s->layers * s->ple;
        bind_table(b, &d->ple_embed, s->ple_vocab, columns, "embed_tokens_per_layer");
        bind_linear(b, &d->ple_project, columns, s->hidden, "per_layer_model_projection");
        bind_vector(b, &d->ple_norm, s->ple, "per_layer_projection_norm.weight");
    }
    if (s->altup.streams) altup_bind(&s->altup, &d->altup, b, s->hidden);
    for (int i = 0; i < s->layers && !b->failed; i++) bind_layer(s, &d->layer[i], b, i);
    if (s->tied && !own_head) {
        d->head = d->embed;
        d->head.low_rank = NULL;
        bind_prefixes(b, s->head_prefix);
        bind_adapters(b, &d->head, "lm_head");
    }
    b->in_decoder = false;
    b->spellings = NULL;
    return !b->failed;
}
