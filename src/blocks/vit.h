/* vit.h - one layer of a vision transformer, driven by a spec; and how patches lie in an image.
 *
 *   x += proj(attention(rope(q), rope(k), v)),  q, k, v = qkv(norm1 x)      attention inside segments (images, frames, windows)
 *   x += mlp(norm2 x)                           mlp: down(act(gate) * up), or down(act(up)) */
#ifndef VLM_BLOCKS_VIT_H
#define VLM_BLOCKS_VIT_H

#include "tensor/ops.h"
#include "tensor/tap.h"
#include "weights/bind.h"

typedef struct vit_spec {
    int hidden, heads, head_dim, ffn;
    int kv_heads;                  /* 0: heads */
    float eps;
    bool layernorm;                /* with biases; else rms norm */
    bool gated;
    bool norm_each_head;           /* q_norm, k_norm [head_dim], of each head alone */
    const int32_t *see;            /* [rows] attention_spec.see; NULL: a row sees its whole segment */
    activation act;
    bool rope_pairs;               /* rope turns pairs of neighbours, not halves */
} vit_spec;

/* Weights; those that a checkpoint has not stay empty. q, k, v are one product, or three. */
typedef struct vit_layer {
    const float *norm1, *norm1_bias, *norm2, *norm2_bias, *q_norm, *k_norm, *scale1, *scale2;
    weight qkv, q, k, v, proj, gate, up, down;
    const float *qkv_bias, *q_bias, *k_bias, *v_bias, *proj_bias, *gate_bias, *up_bias, *down_bias;
} vit_layer;

/* Below "LAYERS.N.". qkv NULL: q, k, v lie apart. scale1, scale2: what attention and MLP add is multiplied by these columns. q_norm, k_norm: rms
 * norms over all heads, or each (norm_each_head). NULL: there are none. */
typedef struct vit_names { const char *norm1, *norm2, *qkv, *proj, *gate, *up, *down, *q, *k, *v, *scale1, *scale2, *q_norm, *k_norm; } vit_names;

void vit_bind_layer(vit_layer *w, const vit_spec *s, binder *b, const char *layers, int i, const vit_names *names);
/* x [n, hidden] in place; cosine, sine [n, head_dim / 2] (data NULL: no rope); segments as in op_attention_segments. */
void vit_layer_forward(run *r, const vit_spec *s, const vit_layer *w, int i, tensor x, tensor cosine, tensor sine, const int32_t *starts, int segments);
/* The first half alone: x += proj(attention(...)). */
void vit_attend(run *r, const vit_spec *s, const vit_layer *w, int i, tensor x, tensor cosine, tensor sine, const int32_t *starts, int segments);
/* Rough FLOPs of one layer over n patches, `seen` of which each attends to. */
double vit_layer_cost(const vit_spec *s, double n, double seen);

/* Row and column of every patch of t frames of h x w patches, in the order of patchify (merge x merge blocks). [t * h * w] each. */
void vit_positions(int t, int h, int w, int merge, int32_t *row, int32_t *column);
/* Qwen2.5-VL's windows: blocks (of merge x merge patches) in the order of windows of side x side blocks; those at the right and lower edge
 * are smaller. order [t * (h / merge) * (w / merge)]: which block comes where. starts: where windows begin, in patches; room for blocks + 1.
 * Returns the number of windows. */
int vit_windows(int t, int h, int w, int merge, int side, int32_t *order, int32_t *starts);

#endif
