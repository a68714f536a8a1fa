/* decoder.h - ONE text decoder, driven by a spec: Llama, Qwen2, Qwen3, Gemma 4 in all its shapes, and most that look like them.
 *
 *   ids -> embedding * embed_scale, media rows put in place (-> PLE inputs)
 *   each layer:  h = norm(x); q, k, v; q/k norm; rope; k, v -> pages; attention; o            x += [post_norm] o
 *                h = norm(x); down(act(gate h) * up h)  and/or experts                        x += [post_norm] h
 *                [PLE: x += norm(proj(act(gate x) * input_l))]  [x *= layer_scalar]  [x += deepstack_l]
 *                (Gemma 3n: around it streams, blocks/altup.h)
 *   norm -> head -> softcap: logits of the wanted tokens
 *
 * A family fills the spec from its config (decoder_config does what all have in common), then
 *     configure():  decoder_plan(d, memory, c)     checks it, and finds the layer groups of the paged cache
 *     bind():       decoder_bind(d, b)             weights under their usual names (below), shapes checked
 *     forward():    decoder_forward(r, d, b)
 *
 * Only what somebody will read is computed: from the last layer that owns keys and values on, a token that wants no logits
 * contributes those keys and values and nothing else. So a prefill chunk skips the tail of the last layer, and with Gemma 4's shared keys and values
 * (the last 20 of E2B's 35 layers own none) more than half of the network. A recurrent layer's memory counts like keys and values. Taps then see the remaining rows only; the last token's is the last.
 *
 * Taps: ("hidden", i) what enters layer i (i = 0: the embedding; the last layer's output comes only after the final norm: ("hidden", layers)),
 * ("ple", 0), ("attn", i), ("mlp", i), ("logits", 0). */
#ifndef VLM_BLOCKS_DECODER_H
#define VLM_BLOCKS_DECODER_H

#include "blocks/altup.h"
#include "blocks/batch.h"
#include "blocks/cross.h"
#include "blocks/delta_net.h"
#include "blocks/mla.h"
#include "blocks/rope.h"
#include "blocks/short_conv.h"
#include "tensor/ops.h"
#include "tensor/tap.h"
#include "weights/bind.h"
#include "weights/config.h"

enum { DECODER_MAX_ROPES = 4, DECODER_MAX_LAYERS = 1024 };

/* Where norms stand. Names in the checkpoint, unless spec.names says otherwise (norm1 before attention, post1 after it; norm2, post2: of the MLP):
 *   NORM_PRE       input_layernorm, post_attention_layernorm (which is before the MLP)
 *   NORM_SANDWICH  input_layernorm, post_attention_layernorm, pre_feedforward_layernorm, post_feedforward_layernorm (Gemma 2, 3, 4)
 *   NORM_POST      post_attention_layernorm, post_feedforward_layernorm (OLMo 2)
 *   NORM_PARALLEL  input_layernorm; attention and MLP both read it: x += attention(norm x) + mlp(norm x) (Cohere) */
typedef enum norm_style { NORM_PRE, NORM_SANDWICH, NORM_POST, NORM_PARALLEL } norm_style;
typedef struct norm_names { const char *norm1, *post1, *norm2, *post2; } norm_names;

/* MOE_INSTEAD: experts take the MLP's place (mlp.gate is the router, mlp.experts the experts; Qwen3-MoE).
 * MOE_BESIDE:  Gemma 4 26B-A4B: x += post(post_1(mlp(pre(x))) + post_2(experts(pre_2(x)))); the router (router.proj) reads
 *              x / rms(x) * router.scale / sqrt(hidden), chosen probabilities are multiplied by router.per_expert_scale. */
typedef enum moe_style { MOE_NONE, MOE_INSTEAD, MOE_BESIDE } moe_style;

/* Names of router and experts: mlp.gate, mlp.experts; or block_sparse_moe.gate, block_sparse_moe.experts with w1, w3, w2 (as Mixtral is published); or
 * mlp.router with a bias, mlp.experts transposed, gates and ups taking turns, with biases (gpt-oss). */
typedef enum moe_names { MOE_USUAL, MOE_MIXTRAL, MOE_LFM2, MOE_GRANITE, MOE_GPT_OSS } moe_names;

typedef struct decoder_layer_spec {
    int heads, kv_heads, head_dim;
    int window;                    /* a token sees that many positions, itself included; 0: all before it */
    bool chunked;                  /* ... or those of its own chunk of `window` positions */
    int kv_from;                   /* -1: own keys and values; else the earlier layer whose keys and values are read */
    int rope;                      /* index into spec.rope; -1: none */
    bool recurrent;                /* a gated delta net (spec.delta) or a short convolution (spec.conv) instead of attention */
    bool cross;                    /* cross-attention (spec.cross) instead of attention: x += tanh(gate) cross(norm x); x += tanh(gate) mlp(norm x). Sequences
                                    * without a memory pass it by; a token that sees no row of it looks at all of them, and its MLP is silent (Llama 3.2 Vision) */
    bool v_is_k;                   /* no v_proj: values are the product k_proj(h), before k's norm and rope */
    bool bidirectional;            /* media tokens see their whole block (ragged.see_to) ... */
    bool whole_blocks;             /* ... also what of it lies left of the window (ragged.see_from) */
    int ffn;                       /* width of the MLP; 0: none */
    bool moe;
    float sparse;                  /* > 0: gates of the MLP count by how far they are above mean + sparse * stddev */
    int group, slot;               /* set by decoder_plan */
} decoder_layer_spec;

typedef struct decoder_spec {
    int layers, hidden, vocab;
    decoder_layer_spec *layer;     /* [layers] */
    float eps;
    float norm_offset;             /* norms multiply by w + offset: 0, or 1 */
    bool mlx_adds_offset;          /* MLX's files hold w + offset */
    norm_style norms;
    norm_names names;              /* NULL: the style's */
    bool layernorm;                /* layer norms without biases instead of rms norms ... */
    bool norm_bias;                /* ... with biases, which lie behind the weights: norm1 is [2 * hidden] */
    bool plain_mlp;                /* down(act(up h)), no gate */
    bool head_bias;                /* lm_head.bias */
    activation act;
    float embed_scale;             /* 1, or Gemma's sqrt(hidden) */
    int more_vocab;                /* rows of a second table, embed_more, for the ids from vocab on */
    bool media_scaled;             /* media rows are times that, too (Granite) */
    float attn_scale;              /* scores = attn_scale * q.k; 0: 1 / sqrt(head_dim) */
    float attn_softcap;            /* 0: none */
    float final_softcap;           /* 0: none */
    float residual_scale;          /* what attention and MLP add to x is times that; 0: 1 */
    float logit_scale;             /* 0: 1 */
    float query_beta;              /* queries are times 1 + beta ln(1 + floor(position / query_trained)); 0: they are not */
    int query_trained;
    int query_first;               /* the number of the first position there: 0, or 1 */
    bool query_nope;               /* only in layers without rope */
    bool tied;                     /* the head is the embedding, unless the file has one */
    bool qkv_bias, o_bias, mlp_bias;
    bool fused_qkv, fused_gate_up; /* the file holds q, k, v (gate, up) as one matrix, qkv_proj (gate_up_proj); or apart, as some converters write them */
    bool up_first;                 /* ... gate_up_proj is up, then gate */
    bool sinks;                    /* self_attn.sinks: a logit for each head that nothing is read from */
    bool qk_norm;                  /* rms norm of each head of q and k, before rope; weight [head_dim] */
    bool qk_norm_last;             /* ... after rope, named query_layernorm and key_layernorm (Hunyuan) */
    bool qk_norm_whole;            /* ... of all heads at once; weight [heads * head_dim] */
    bool qk_norm_plain;            /* rms norm of each head of q and k behind rope, where there is rope, without weights (Llama 4) */
    bool v_norm;                   /* rms norm of each head of v, without a weight */
    bool lfm2_names;               /* self_attn.out_proj, q_layernorm, k_layernorm; feed_forward.w1, w3, w2; embedding_norm */
    bool attn_gate;                /* q_proj gives each head's query and gate side by side; attention's output is times sigmoid(gate) */
    bool layer_scalar;             /* x *= layers.N.layer_scalar at the end of each layer */

    mla_spec mla;                  /* kv_rank > 0: latent attention; layers have one head of keys of mla_head_dim */

    moe_style moe;
    moe_names moe_names;
    int experts, expert_ffn;
    route_spec route;              /* its bias is the layer's: correction_bias */
    const char *correction_bias;   /* its name below the layer; NULL: none */
    int media_ffn;                 /* width of experts of a second kind, that media tokens take (ERNIE 4.5 VL); 0: there is one kind */
    int32_t media_marks[4];        /* further ids that count as media there: begin and end of pictures */
    float moe_limit;               /* moe_spec.limit */
    int shared_ffn;                /* MOE_INSTEAD: width of an expert that every token takes, times sigmoid(shared_expert_gate x); 0: none */
    bool shared_plain;             /* ... times nothing, named mlp.shared_experts (DeepSeek) */
    bool moe_scales_inputs;        /* shares multiply what experts read, not what they give (Llama 4) */
    bool experts_transposed;       /* fused experts lie as [experts, inputs, outputs] */

    delta_net_spec delta;          /* of recurrent layers ... */
    cross_spec cross;
    int embed_rows;                /* of the embedding table; 0: vocab */
    short_conv_spec conv;          /* ... unless they are short convolutions (kernel > 0) */

    int ple;                       /* columns of a layer's per-layer input; 0: none */
    int ple_vocab;
    int32_t ple_media_id;          /* the id whose per-layer embedding media tokens take */

    altup_spec altup;              /* Gemma 3n; goes with NORM_SANDWICH and per-layer inputs */

    rope_table rope[DECODER_MAX_ROPES];
    int n_ropes;
    int rope_upper;                /* rope that gives the upper halves of heads their angles, the layer's own the lower ones (Hunyuan); 0: both one */

    /* [levels - 1] Before which layer each further level of media rows is added (deepstack), up to `layers`; NULL: level i + 1 behind layer i. */
    const int *deepstack;

    /* Alternative prefixes of "embed_tokens", "layers.N", "norm", and of "lm_head"; NULL-terminated. */
    const char *prefix[7], *head_prefix[7];
    const char *const *spellings;  /* binder.spellings */
} decoder_spec;

typedef struct decoder_layer {
    const float *norm1, *norm2;                          /* before attention, before MLP */
    const float *post1, *post2;                          /* NORM_SANDWICH: after them */
    weight q, k, v, o;
    const float *q_bias, *k_bias, *v_bias, *o_bias;
    const float *q_norm, *k_norm, *sinks;
    weight gate, up, down;
    const float *gate_bias, *up_bias, *down_bias;
    weight router, experts_gate_up, experts_gate, experts_up, experts_down;
    const float *router_scale, *router_expert_scale, *router_bias, *router_correction, *experts_bias, *experts_down_bias;
    const float *moe_norm, *moe_post1, *moe_post2;       /* MOE_BESIDE: pre_2, post_1, post_2 */
    weight shared_gate, shared_up, shared_down, shared_router;
    weight media_router, media_gate, media_up, media_down;   /* experts of the second kind */
    const float *media_correction;
    weight ple_gate, ple_proj;
    const float *ple_norm;
    float scalar;
    delta_net delta;
    short_conv conv;
    altup_layer altup;
    mla mla;
    cross_layer cross;
    float cross_gate, cross_mlp_gate;                    /* tanh of what the file holds */
} decoder_layer;

typedef struct decoder decoder;
struct decoder {
    decoder_spec spec;
    decoder_layer *layer;
    weight embed, embed_more, head, ple_embed, ple_project;
    const float *norm, *ple_norm, *head_bias;
    altup altup;
    /* Called when not NULL: rows of x [n, hidden] whose ids have embeddings of another kind are put right. Media rows come later. */
    void (*embed_others)(run *r, const decoder *d, const batch *b, tensor x);
    int n_groups;
    kv_shape group[MAX_KV_GROUPS];                       /* type is not set */
    kv_shape memory;                                     /* of cross-attention; slots 0: none */
    int last_owner;                                      /* the last layer with keys and values of its own, or with memory */
    size_t state_bytes;                                  /* what recurrent layers remember of a sequence; 0: there are none */
};

/* What Llama-like configs have in common, read below the prefixes ({"text_config.", "", NULL}): layers, hidden, vocab, heads, kv heads,
 * head_dim, ffn, eps, activation, tied, rope 0 (M-RoPE sections included), sliding windows (layer_types, or use_sliding_window with
 * max_window_layers). Allocates spec.layer with all layers alike; a family changes what differs. */
bool decoder_config(decoder_spec *s, arena *memory, config *c, const char *const *prefixes);
/* Without layer_types: all layers but every `pattern`-th see a window (sliding_window, else `fallback`). */
bool decoder_config_windows(decoder_spec *s, config *c, const char *const *prefixes, int fallback, int pattern);
/* The last `shared` layers have no keys and values; they read those of the last layer before them that has their rope (Gemma 3n, 4). */
bool decoder_share_keys(decoder_spec *s, config *c, int shared);
/* Qwen's mixture of experts in place of the MLP: num_experts, num_experts_per_tok, moe_intermediate_size, norm_topk_prob; mlp_only_layers and
 * decoder_sparse_step say where. */
bool decoder_config_experts(decoder_spec *s, config *c, const char *const *prefixes);
/* DeepSeek's: n_routed_experts (first_k_dense_replace, moe_layer_freq: where), n_shared_experts, scoring_func and topk_method (`v3`: what they are when the
 * config does not say), n_group, topk_group, norm_topk_prob, routed_scaling_factor. Without n_routed_experts all layers keep their MLP. */
bool decoder_config_deepseek(decoder_spec *s, config *c, const char *const *prefixes, bool v3);
/* Checks the spec (messages through c), assigns groups and slots, allocates layer weights. */
bool decoder_plan(decoder *d, arena *memory, config *c);
bool decoder_bind(decoder *d, binder *b);
/* Keys and values of all layers with cross-attention. */
bool decoder_remember(run *r, const decoder *d, const memory_fill *fill);
/* Logits [b->n_logits, vocab]. */
tensor decoder_forward(run *r, const decoder *d, const batch *b);
/* "gelu_pytorch_tanh" -> ACT_GELU_TANH ...; sticky failure for an unknown name. */
activation config_activation(config *c, const char *path, const char *fallback);

#endif
