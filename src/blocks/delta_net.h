/* delta_net.h - gated delta net: the layer that stands for attention in hybrids (Qwen3.5; https://arxiv.org/abs/2412.06464).
 *
 *   h -> qkv -> causal convolution over 4 tokens, silu -> q, k, v                    remembered: the last 3 rows of qkv
 *   h -> a, b: decay and learning rate of each value head
 *   delta rule: S = decay S + k (x) rate (v - decay S^T k), out = S^T q              remembered: S
 *   rms norm of each head of out (plain w), times silu(z), z = product of h -> o
 *
 * What a sequence remembers of all layers is one piece of memory of the engine's (engine/pages.h: the state group). */
#ifndef VLM_BLOCKS_DELTA_NET_H
#define VLM_BLOCKS_DELTA_NET_H

#include "blocks/batch.h"
#include "tensor/ops.h"
#include "tensor/tap.h"
#include "weights/bind.h"
#include "weights/config.h"

typedef struct delta_net_spec {
    int key_heads, value_heads, key_dim, value_dim, kernel;
    float eps;
} delta_net_spec;

typedef struct delta_net {
    weight qkv, z, a, b, out;
    const float *conv;             /* [kernel, channels] */
    const float *decay, *bias, *norm;
    size_t at;                     /* where its memory begins, in floats */
} delta_net;

/* linear_num_key_heads, linear_key_head_dim ... below the prefixes. */
bool delta_net_config(delta_net_spec *s, config *c, const char *const *prefixes);
size_t delta_net_floats(const delta_net_spec *s);                    /* remembered by one layer */
void delta_net_bind(const delta_net_spec *s, delta_net *w, binder *b, int64_t hidden, int layer);
/* h [n, hidden], the normed rows of the whole batch: each run's memory moves on. Returns the rows [n, value_heads * value_dim] before `out`, and
 * not gated yet; delta_net_finish gates and projects them (some of the rows will do: h and y gathered alike). */
tensor delta_net_forward(run *r, const delta_net_spec *s, const delta_net *w, const batch *b, tensor h);
tensor delta_net_finish(run *r, const delta_net_spec *s, const delta_net *w, tensor h, tensor y);

#endif
