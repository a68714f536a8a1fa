/* ops.h - THE list of operations: what a backend implements, each with its formula.
 *
 * Models call op_*(run, ...), which checks shapes, does nothing after a failure, and calls the backend through struct ops.
 * A row of the result depends on that row's inputs only, and its sums run in an order fixed by the shapes of weight and row:
 * never by how many rows there are, how many threads, or which chunk (so a request gives the same bits alone and in a batch).
 *
 * ref.c is the definition in plain C; every backend and instruction set is tested against it (tests/ops).
 * Letters: n rows (tokens), d columns, h heads, D head_dim. In-place is allowed where `out` and `x` are named alike. */
#ifndef VLM_TENSOR_OPS_H
#define VLM_TENSOR_OPS_H

#include "tensor/ragged.h"
#include "tensor/tensor.h"

typedef enum activation { ACT_NONE, ACT_SILU, ACT_GELU /* erf */, ACT_GELU_TANH, ACT_QUICK_GELU, ACT_RELU, ACT_SIGMOID, ACT_TANH } activation;

typedef struct attention_spec {
    int heads, kv_heads, head_dim;                 /* query head i uses kv head i / (heads / kv_heads) */
    float scale;                                   /* scores = scale * q.k */
    float softcap;                                 /* > 0: softcap * tanh(score / softcap) */
    int group, slot;                               /* paged attention: whose keys and values (ragged.group[group], slot in it) */
    bool bidirectional;                            /* honours ragged.see_to */
    bool whole_blocks;                             /* ... and a media block is seen whole, also left of the window (see_from) */
    const float *sinks;                            /* [heads] extra logit in the softmax denominator, or NULL */
    const int32_t *see;                            /* attention_segments: [rows] how many of its segment's keys a row sees, the first ones; NULL: all */
} attention_spec;

/* Which experts a token takes, and with what shares. Scores come from the router's logits: a softmax over all experts, or each one's sigmoid. The top_k
 * largest of score + bias are chosen (ties: lower index first), of some groups only if there are groups; a share is the score itself. */
typedef struct route_spec {
    int top_k;
    bool sigmoid;
    const float *bias;                             /* [experts] counts while choosing only; or NULL */
    int groups, kept_groups;                       /* > 1: experts lie in so many groups, one after the other; the best kept_groups of them take part ... */
    int group_best;                                /* ... a group is worth the sum of so many of its largest score + bias */
    bool normalize;                                /* shares are divided by (their sum + epsilon) */
    float epsilon;
    float scale;                                   /* ... and then times scale; 0: 1 */
    /* > 0: sparse mixer (arXiv 2409.12136); nothing of the above but top_k counts. One after the other the largest logit m that is left is chosen, and its
     * share is that of a softmax over those left with (m - logit) / max(|logit|, m) <= 2 * jitter. */
    float jitter;
} route_spec;

typedef struct mlp_spec {
    const weight *gate, *up, *down;                /* [ffn, d] twice, [d, ffn] */
    const float *gate_bias, *up_bias, *down_bias;  /* or NULL */
    activation act;
} mlp_spec;

typedef struct moe_spec {
    int experts, top_k;
    activation act;
    const weight *gate, *up;                       /* experts x [ffn, d]; gate_up != NULL: fused [2 ffn, d], gate first */
    const weight *gate_up;
    const weight *down;                            /* experts x [d, ffn] */
    const float *gate_up_bias, *down_bias;         /* [experts][2 ffn], gate first; [experts][d]; or NULL */
    float limit;                                   /* > 0: gate = min(gate, limit), up = 1 + min(max(up, -limit), limit) before act(gate) * up */
} moe_spec;

/* A convolution over height x width places; what lies outside (top rows above, left columns before, and as many behind as it takes) is zero. */
typedef struct conv_shape { int height, width, kh, kw, stride, top, left, out_height, out_width; } conv_shape;

/* Where a recurrent layer finds and leaves what it remembers of each run: `offset` floats into the run's memory. */
typedef struct run_memory {
    const void *const *from;                       /* [n_runs] NULL entry: the run begins, all zeros */
    void *const *to;                               /* [n_runs] may be from's */
    size_t offset;
} run_memory;

/* Gated delta rule. Value head h belongs to key head h / (value_heads / key_heads). The memory of a value head is cut into strips of DELTA_STRIP
 * columns, [ceil(value_dim / DELTA_STRIP)][key_dim][DELTA_STRIP]: columns never meet, so a strip goes through all tokens in the cache. */
enum { DELTA_STRIP = 16 };
typedef struct delta_spec {
    int key_heads, value_heads, key_dim, value_dim;
    const float *decay;                            /* [value_heads] -e^A_log, negative */
    const float *bias;                             /* [value_heads] dt_bias */
} delta_spec;
static inline size_t delta_floats(const delta_spec *s)              /* of all heads */
{
    return (size_t)s->value_heads * (size_t)((s->value_dim + DELTA_STRIP - 1) / DELTA_STRIP * DELTA_STRIP) * (size_t)s->key_dim;
}

typedef struct ops {
    const char *name;
    bool (*open)(device *dev, const char *isa, vlm_error *error);    /* isa: NULL = best, or a name to cap at (VLM_CPU) */
    void (*close)(device *dev);
    /* Called once for each weight after loading, from one thread; may repack into w->packed (freed by release). */
    bool (*prepare)(device *dev, weight *w, vlm_error *error);
    void (*release)(device *dev, weight *w);

    /* y[n,rows] = x[n,cols] . w^T (+ bias) */
    void (*linear)(run *r, tensor y, tensor x, const weight *w, const float *bias);
    /* (optional) y[i] = x . w[i]^T (+ bias[i]): several weights over the same x in one go. NULL: linear, one after the other.
     * The same bits as linear. */
    void (*linear_group)(run *r, int count, const tensor *y, tensor x, const weight *const *w, const float *const *bias);
    /* (optional) y = (act(x . gate^T) * (x . up^T)) . down^T, with biases, what lies between never in memory as float32. False: not for these; then one
     * after the other, with the same bits. */
    bool (*mlp)(run *r, tensor y, tensor x, const mlp_spec *spec);
    /* A matrix for each head: y[i] = x[i] . w[i % w->experts]^T; rows are heads, those of a token side by side. x, y: [n * experts, cols], [.., rows] */
    void (*linear_heads)(run *r, tensor y, tensor x, const weight *w);
    /* out[i] = scale * row ids[i] of table */
    void (*embed)(run *r, tensor out, const weight *table, const int32_t *ids, float scale);
    /* y = x / sqrt(mean(x^2) + eps) * (w + offset), per `width` columns (0: all of them; head_dim: per head). w NULL: no weight.
     * w has `width` values. */
    void (*rmsnorm)(run *r, tensor y, tensor x, const float *w, float offset, float eps, int64_t width);
    /* y = (x - mean) / sqrt(var + eps) * w + b; w, b may be NULL */
    void (*layernorm)(run *r, tensor y, tensor x, const float *w, const float *b, float eps);
    /* out = a + scale * b */
    void (*add)(run *r, tensor out, tensor a, tensor b, float scale);
    /* out = a * b, element by element */
    void (*mul)(run *r, tensor out, tensor a, tensor b);
    /* x = x * factor, then times columns[c] (NULL: none) */
    void (*scale)(run *r, tensor x, float factor, const float *columns);
    /* y = act(x) */
    void (*activate)(run *r, tensor y, tensor x, activation act);
    /* y = act(gate) * up */
    void (*glu)(run *r, tensor y, tensor gate, tensor up, activation act);
    /* x = min(max(x, lo), hi) */
    void (*clip)(run *r, tensor x, float lo, float hi);
    /* x = cap * tanh(x / cap) */
    void (*softcap)(run *r, tensor x, float cap);
    /* out[i] = x[index[i]]; index < 0: zeros */
    void (*gather)(run *r, tensor out, tensor x, const int32_t *index);
    /* out[index[i]] = x[i]; index < 0: skipped */
    void (*scatter)(run *r, tensor out, tensor x, const int32_t *index);
    /* out[index[i]] += factor * x[i], i in order; index < 0: skipped (average pooling over arbitrary groups) */
    void (*scatter_add)(run *r, tensor out, tensor x, const int32_t *index, float factor);

    /* Adapters: out[index[i]] = columns * (out[index[i]] - from + scale * u[i]) + to. columns NULL: 1; from, to NULL: 0; u.data NULL: 0.
     * index has out.rows entries at most (n of them), each row once. */
    void (*adapt)(run *r, tensor out, tensor u, const int32_t *index, int64_t n, float scale, const float *columns, const float *from, const float *to);

    /* Rotary embedding of x [n, heads * head_dim], in place. The first blocks * block_dim columns of each head form blocks;
     * in block b, column i is paired with column i + block_dim/2 (i < block_dim/2), rotated by angle (b * block_dim/2 + i) of the
     * row: (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin). cos, sin: [n, blocks * block_dim/2]. Plain rope: blocks = 1.
     * interleaved: column 2i is paired with 2i+1 instead. */
    void (*rope)(run *r, tensor x, int heads, int head_dim, int blocks, int block_dim, bool interleaved, tensor cosine, tensor sine);

    /* Keys and values [n, kv_heads * head_dim] of the batch into their pages. v is not looked at where the group keeps none (kv_shape.latent). */
    void (*kv_write)(run *r, const ragged *batch, int group, int slot, tensor k, tensor v);
    /* out[n, heads * head_dim] (heads * latent where values are latent): token t at position p attends to positions j with j < see (p + 1;
     * see_to[t] when bidirectional) and, if the group has a window, j > p - window, or j in p's chunk of that size (whole_blocks: or j >= see_from[t]). ragged.joined leaves out what
     * lies between blocks. */
    void (*attention)(run *r, tensor out, tensor q, const ragged *batch, const attention_spec *spec);
    /* Encoders: full attention inside segments; segment s is rows [starts[s], starts[s+1]) of q, k, v. */
    void (*attention_segments)(run *r, tensor out, tensor q, tensor k, tensor v, const int32_t *starts, int segments,
                               const attention_spec *spec);
    /* Audio: row i attends to rows j with i - left <= j <= i + right, score = softcap(q_i.k_j + q_i.rel[i - j + right]); rel has
     * left + right + 1 rows (distance -right .. left), [.., heads * head_dim]. No scale: it is in q. */
    void (*attention_relative)(run *r, tensor out, tensor q, tensor k, tensor v, tensor rel, int left, int right,
                               const attention_spec *spec);

    /* index[n, top_k], share[n, top_k] in falling order of score + bias: see route_spec. */
    void (*route)(run *r, int32_t *index, float *share, tensor logits, const route_spec *spec);
    /* out[i] = sum_k weight[i,k] * down_e( act(gate_e x_i) * up_e x_i ), e = index[i,k], k in order; products with their biases */
    void (*moe)(run *r, tensor out, tensor x, const moe_spec *spec, const int32_t *index, const float *weight);

    /* x: [height * width, in] channels last; w: [out, kh * kw * in] (columns ordered kh, kw, in); y: [out_height * out_width, out]. */
    void (*conv2d)(run *r, tensor y, tensor x, const conv_shape *shape, const weight *w, const float *bias);
    /* Each column by itself: y[(i, j), c] = bias[c] + sum_{a, b} w[a * kw + b, c] * x[(i * stride - top + a, j * stride - left + b), c]; w [kh * kw, cols] */
    void (*conv2d_depthwise)(run *r, tensor y, tensor x, const conv_shape *shape, const float *w, const float *bias);
    /* y[t, c] = sum_k w[c, k] * x[t + k - left, c]; rows outside are zero */
    void (*conv1d_depthwise)(run *r, tensor y, tensor x, const float *w, int kernel, int left);
    /* x[i] = x[i] * factor[i]; factor [n, 1] */
    void (*scale_rows)(run *r, tensor x, tensor factor);

    /* Along each run: y[t, c] = act(bias[c] + sum_k w[k, c] * x[t + k - (kernel - 1), c]), w [kernel, cols], bias may be NULL. Rows before the run
     * are remembered: kernel - 1 rows of cols floats, oldest first; the run's last rows take their place. */
    void (*conv1d_causal)(run *r, tensor y, tensor x, const ragged *batch, const float *w, const float *bias, int kernel, activation act,
                          const run_memory *memory);
    /* Along each run, for each value head, S [key_dim, value_dim] remembered:
     *   k = k / sqrt(sum k^2 + 1e-6),  q = q / sqrt(sum q^2 + 1e-6) / sqrt(key_dim)
     *   S = S * exp(decay * softplus(a + bias));  S = S + k (x) sigmoid(b) (v - S^T k);  out = S^T q
     * q, k [n, key_heads * key_dim], v and out [n, value_heads * value_dim], a and b [n, value_heads]. Token after token: a chunk's border changes no bit. */
    void (*delta_rule)(run *r, tensor out, tensor q, tensor k, tensor v, tensor a, tensor b, const ragged *batch, const delta_spec *spec,
                       const run_memory *memory);
} ops;

extern const ops ops_ref;                          /* cpu/ref.c: slow and obvious, the oracle */
extern const ops ops_cpu;                          /* cpu/cpu.c: instruction sets chosen at run time */

/* Opens the CPU device. isa NULL: environment VLM_CPU, else the best that this machine has. */
bool device_open_cpu(device *dev, int threads, precision precision, const char *isa, vlm_error *error);
void device_close(device *dev);

/* ---- what models call: the same list, shape-checked, sticky ---- */
tensor op_linear(run *r, tensor x, const weight *w, const float *bias);                       /* new [n, w->rows] */
void op_linear_to(run *r, tensor y, tensor x, const weight *w, const float *bias);
/* `count` products of one x (q, k, v; gate and up); y[i] new [n, w[i]->rows]. */
enum { LINEAR_GROUP_MAX = 4 };
void op_linear_group(run *r, tensor x, int count, tensor *y, const weight *const *w, const float *const *bias);
tensor op_mlp(run *r, tensor x, const mlp_spec *spec);                                       /* new [n, d]: linear_group, glu, linear */
/* All three do what adapters want of their weights, row by row (tensor/adapt.h); so does op_embed. */
void op_linear_heads_to(run *r, tensor y, tensor x, const weight *w);                         /* not this: such matrices have no adapters */
tensor op_embed(run *r, const weight *table, const int32_t *ids, int64_t n, float scale);
tensor op_rmsnorm(run *r, tensor x, const float *w, float offset, float eps);                 /* whole rows */
void op_rmsnorm_heads(run *r, tensor x, const float *w, float offset, float eps, int head_dim);  /* in place, per head */
tensor op_layernorm(run *r, tensor x, const float *w, const float *b, float eps);
void op_add_inplace(run *r, tensor x, tensor b);                                              /* x += b */
void op_add_scaled(run *r, tensor x, tensor b, float scale);                                  /* x += scale * b */
void op_mul_inplace(run *r, tensor x, tensor b);
void op_scale(run *r, tensor x, float factor, const float *columns);
void op_activate(run *r, tensor x, activation act);                                           /* in place */
tensor op_glu(run *r, tensor gate, tensor up, activation act);
void op_clip(run *r, tensor x, float lo, float hi);
void op_softcap(run *r, tensor x, float cap);
tensor op_gather(run *r, tensor x, const int32_t *index, int64_t n);
void op_scatter(run *r, tensor out, tensor x, const int32_t *index);
void op_scatter_add(run *r, tensor out, tensor x, const int32_t *index, float factor);
void op_rope(run *r, tensor x, int heads, int head_dim, int blocks, int block_dim, bool interleaved, tensor cosine, tensor sine);
void op_kv_write(run *r, const ragged *batch, int group, int slot, tensor k, tensor v);
tensor op_attention(run *r, tensor q, const ragged *batch, const attention_spec *spec);
tensor op_attention_segments(run *r, tensor q, tensor k, tensor v, const int32_t *starts, int segments, const attention_spec *spec);
tensor op_attention_relative(run *r, tensor q, tensor k, tensor v, tensor rel, int left, int right, const attention_spec *spec);
void op_route(run *r, int32_t *index, float *share, tensor logits, const route_spec *spec);
tensor op_moe(run *r, tensor x, const moe_spec *spec, const int32_t *index, const float *weights);
tensor op_conv2d(run *r, tensor x, int height, int width, const weight *w, const float *bias, int kh, int kw, int stride, int padding,
                 int *out_height, int *out_width);
/* With any padding; out_height and out_width are given. */
tensor op_conv2d_shape(run *r, tensor x, const conv_shape *shape, const weight *w, const float *bias);
tensor op_conv2d_depthwise(run *r, tensor x, const conv_shape *shape, const float *w, const float *bias);
/* The shape of a convolution with as much padding as makes ceil(size / stride) outputs, the odd one behind ("same"). */
conv_shape conv_same(int height, int width, int kernel, int stride);
tensor op_conv1d_depthwise(run *r, tensor x, const float *w, int kernel, int left);
void op_scale_rows(run *r, tensor x, tensor factor);
tensor op_conv1d_causal(run *r, tensor x, const ragged *batch, const float *w, const float *bias, int kernel, activation act, const run_memory *memory);
tensor op_delta_rule(run *r, tensor q, tensor k, tensor v, tensor a, tensor b, const ragged *batch, const delta_spec *spec, const run_memory *memory);

#endif
