/* ref.h - the functions behind ops_ref, by family: ref.c (rows and elements), ref_linear.c (matrix products, convolutions),
 * ref_attention.c (pages and attention). ops_cpu takes from here what it has nothing faster for.
 *
 * They are the oracle: straight from the formulas in ops.h, sums and functions in double, rounded to float32 once per stored
 * value, one thread. An error that a test measures against them is the other side's own. */
#ifndef VLM_TENSOR_REF_H
#define VLM_TENSOR_REF_H

#include "tensor/ops.h"

double ref_act(double x, activation act);

void ref_rmsnorm(run *r, tensor y, tensor x, const float *w, float offset, float eps, int64_t width);
void ref_layernorm(run *r, tensor y, tensor x, const float *w, const float *b, float eps);
void ref_add(run *r, tensor out, tensor a, tensor b, float scale);
void ref_mul(run *r, tensor out, tensor a, tensor b);
void ref_scale(run *r, tensor x, float factor, const float *columns);
void ref_activate(run *r, tensor y, tensor x, activation act);
void ref_glu(run *r, tensor y, tensor gate, tensor up, activation act);
void ref_clip(run *r, tensor x, float lo, float hi);
void ref_softcap(run *r, tensor x, float cap);
void ref_gather(run *r, tensor out, tensor x, const int32_t *index);
void ref_scatter(run *r, tensor out, tensor x, const int32_t *index);
void ref_scatter_add(run *r, tensor out, tensor x, const int32_t *index, float factor);
void ref_adapt(run *r, tensor out, tensor u, const int32_t *index, int64_t n, float scale, const float *columns, const float *from, const float *to);
void ref_rope(run *r, tensor x, int heads, int head_dim, int blocks, int block_dim, bool interleaved, tensor cosine, tensor sine);
void ref_route(run *r, int32_t *index, float *share, tensor logits, const route_spec *spec);

bool ref_prepare(device *dev, weight *w, vlm_error *error);
void ref_release(device *dev, weight *w);
void ref_linear(run *r, tensor y, tensor x, const weight *w, const float *bias);
void ref_embed(run *r, tensor out, const weight *table, const int32_t *ids, float scale);
void ref_linear_heads(run *r, tensor y, tensor x, const weight *w);
void ref_moe(run *r, tensor out, tensor x, const moe_spec *spec, const int32_t *index, const float *weights);
void ref_conv2d(run *r, tensor y, tensor x, const conv_shape *c, const weight *w, const float *bias);
void ref_conv2d_depthwise(run *r, tensor y, tensor x, const conv_shape *c, const float *w, const float *bias);
void ref_conv1d_depthwise(run *r, tensor y, tensor x, const float *w, int kernel, int left);

void ref_kv_write(run *r, const ragged *batch, int group, int slot, tensor k, tensor v);
void ref_attention(run *r, tensor out, tensor q, const ragged *batch, const attention_spec *spec);
void ref_attention_segments(run *r, tensor out, tensor q, tensor k, tensor v, const int32_t *starts, int segments,
                            const attention_spec *spec);
void ref_attention_relative(run *r, tensor out, tensor q, tensor k, tensor v, tensor rel, int left, int right,
                            const attention_spec *spec);

void ref_scale_rows(run *r, tensor x, tensor factor);
void ref_conv1d_causal(run *r, tensor y, tensor x, const ragged *batch, const float *w, const float *bias, int kernel, activation act,
                       const run_memory *memory);
void ref_delta_rule(run *r, tensor out, tensor q, tensor k, tensor v, tensor a, tensor b, const ragged *batch, const delta_spec *spec,
                    const run_memory *memory);

#endif
