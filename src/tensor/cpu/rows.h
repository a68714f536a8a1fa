/* rows.h - the drivers in rows.c, conv.c, recurrent.c, attention.c and attention_encoder.c, for the table in cpu.c. */
#ifndef VLM_TENSOR_ROWS_H
#define VLM_TENSOR_ROWS_H

#include "tensor/cpu/cpu.h"

void cpu_rmsnorm(run *r, tensor y, tensor x, const float *w, float offset, float eps, int64_t width);
void cpu_layernorm(run *r, tensor y, tensor x, const float *w, const float *b, float eps);
void cpu_add(run *r, tensor out, tensor a, tensor b, float scale);
void cpu_mul(run *r, tensor out, tensor a, tensor b);
void cpu_scale(run *r, tensor x, float factor, const float *columns);
void cpu_activate(run *r, tensor y, tensor x, activation act);
void cpu_glu(run *r, tensor y, tensor gate, tensor up, activation act);
void cpu_clip(run *r, tensor x, float lo, float hi);
void cpu_softcap(run *r, tensor x, float cap);
void cpu_rope(run *r, tensor x, int heads, int head_dim, int blocks, int block_dim, bool interleaved, tensor cosine, tensor sine);
void cpu_gather(run *r, tensor out, tensor x, const int32_t *index);
void cpu_scatter(run *r, tensor out, tensor x, const int32_t *index);
void cpu_scatter_add(run *r, tensor out, tensor x, const int32_t *index, float factor);
void cpu_adapt(run *r, tensor out, tensor u, const int32_t *index, int64_t n, float scale, const float *columns, const float *from, const float *to);
void cpu_route(run *r, int32_t *index, float *share, tensor logits, const route_spec *spec);
void cpu_conv2d(run *r, tensor y, tensor x, const conv_shape *c, const weight *w, const float *bias);
void cpu_conv2d_depthwise(run *r, tensor y, tensor x, const conv_shape *c, const float *w, const float *bias);
void cpu_conv1d_depthwise(run *r, tensor y, tensor x, const float *w, int kernel, int left);
void cpu_kv_write(run *r, const ragged *batch, int group, int slot, tensor k, tensor v);
void cpu_attention(run *r, tensor out, tensor q, const ragged *batch, const attention_spec *spec);
void cpu_attention_segments(run *r, tensor out, tensor q, tensor k, tensor v, const int32_t *starts, int segments,
                            const attention_spec *spec);
void cpu_attention_relative(run *r, tensor out, tensor q, tensor k, tensor v, tensor rel, int left, int right,
                            const attention_spec *spec);

void cpu_scale_rows(run *r, tensor x, tensor factor);
void cpu_conv1d_causal(run *r, tensor y, tensor x, const ragged *batch, const float *w, const float *bias, int kernel, activation act,
                       const run_memory *memory);
void cpu_delta_rule(run *r, tensor out, tensor q, tensor k, tensor v, tensor a, tensor b, const ragged *batch, const delta_spec *spec,
                    const run_memory *memory);

#endif
