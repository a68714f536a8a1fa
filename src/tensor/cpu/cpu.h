/* cpu.h - inside the CPU backend: what this machine has, the table of row kernels, and the two halves of the backend.
 *
 *   cpu.c, features.c         ops_cpu, the device, what the machine has
 *   rows.c conv.c recurrent.c one driver per operation: cuts rows into items for the pool and calls a kernel of the table below
 *   attention.c               keys and values in pages, attention over them;  attention_encoder.c: without pages
 *   vec.h                     one vocabulary of vectors for all instruction sets
 *   elementwise_tmpl.h, attention_tmpl.h    kernels written in it, compiled by elementwise_avx2.c, attention_neon.c ...
 *   attention_amx.c           attention in tiles of bf16
 *   linear*.c                 matrix products, expert products, embedding rows, and what is prepared for them at load
 *   ref*.c                    ops_ref, the oracle
 *
 * The kernel table is filled for plain C first; each instruction set that the machine has and the cap allows then overrides
 * what it does better ("C first, then overrides"). Matrix products keep a table of their own, made the same way.
 *
 * A kernel computes one row: its result is a function of that row alone (tails use masked vectors: a value does not depend on
 * where in the row it stands), so that cutting rows among threads and batches changes no bit. */
#ifndef VLM_TENSOR_CPU_H
#define VLM_TENSOR_CPU_H

#include "base/err.h"
#include "base/thread.h"
#include "tensor/ops.h"

/* Sets of instructions, as the files' suffixes name them; a machine has several of them. */
enum {
    CPU_AVX2 = 1,                                  /* avx2 fma f16c bmi2 */
    CPU_AVX512 = 2,                                /* f bw dq vl, and all of AVX2 */
    CPU_AVX512VNNI = 4,                            /* vnni bf16 vbmi, and all of AVX512 */
    CPU_AMX = 8,                                   /* tile bf16 int8, permitted by the system, and all of AVX512 with vnni and bf16 */
    CPU_NEON = 16,                                 /* Armv8.0 baseline */
    CPU_NEONDOT = 32,                              /* dotprod fp16 */
};

/* What the machine has, without what lies above `cap` ("c", "avx2", "avx512", "avx512vnni", "amx", "neon", "neondot"; NULL: no cap).
 * False with a message when cap is no name or the machine lacks it. *name: the best set that is left, for people. */
bool cpu_features(const char *cap, unsigned *features, const char **name, vlm_error *error);

/* Attention goes over blocks of ATTEND_KEYS keys at fixed positions: four strips of ATTEND_STRIP (= a page) keys. */
enum { ATTEND_STRIP = KV_PAGE_TOKENS, ATTEND_STRIPS = 4, ATTEND_KEYS = ATTEND_STRIP * ATTEND_STRIPS, ATTEND_AMX_DIM = 576 };

typedef struct attend_block {
    const void *keys[ATTEND_STRIPS];               /* [head_dim][ATTEND_STRIP]; all readable, also where nobody sees a key */
    const void *values[ATTEND_STRIPS];             /* [ATTEND_STRIP][value_stride]; read only where a row sees the key */
    int64_t value_stride;
    dtype type;                                    /* of both */
    bool packed;                                   /* strips come from pack_strip, in the kernel's own order */
} attend_block;

/* Rows of queries of one head of keys on their way through the blocks (online softmax): out = o / sum. */
typedef struct attend_rows {
    int rows, head_dim, value_dim;                 /* of keys, of values (<= head_dim) */
    int64_t o_stride;                              /* >= value_dim, a multiple of 16 */
    const float *q;                                /* as attend_queries packs it: room for [rows][head_dim], both rounded up to 16 */
    float *o, *most, *sum;                         /* [rows, rounded up to 16][o_stride], [rows], [rows] */
    const int32_t *first, *end;                    /* [rows] positions of keys that the row sees: [first, end) */
    float scale, cap;
} attend_rows;

typedef struct delta_token {
    const float *q, *k, *v;                        /* q, k [n], v [DELTA_STRIP] */
    float *out;                                    /* [DELTA_STRIP] */
    float decay, rate;
} delta_token;

/* Row kernels: n values of one row; outputs may be the inputs. */
typedef struct cpu_kernels {
    void (*rmsnorm)(float *y, const float *x, const float *w, float offset, float eps, int64_t n);
    void (*layernorm)(float *y, const float *x, const float *w, const float *b, float eps, int64_t n);
    void (*add)(float *out, const float *a, const float *b, float scale, int64_t n);
    void (*mul)(float *out, const float *a, const float *b, int64_t n);
    void (*scale)(float *x, float factor, const float *columns, int64_t n);
    void (*activate)(float *y, const float *x, activation act, int64_t n);
    void (*glu)(float *y, const float *gate, const float *up, activation act, int64_t n);
    void (*clip)(float *x, float lo, float hi, int64_t n);
    void (*softcap)(float *x, float cap, int64_t n);
    void (*rope)(float *one, float *two, const float *cosine, const float *sine, int64_t half);      /* pairs (one[i], two[i]) */
    float (*exp_sum)(const float *x, float most, int64_t n);                        /* sum of e^(x - most) */
    void (*exp_from)(float *y, const float *x, float most, float factor, int64_t n);       /* factor * e^(x - most) */
    /* sum over k of w[k * stride + c] * x[k][c]; x[k] NULL: left out */
    void (*depthwise)(float *y, const float *const *x, const float *w, int64_t stride, int kernel, int64_t n);
    /* y[c] = bias[c] + sum over k of x[k] * w[k * stride + c], k in order; bias NULL: 0 */
    void (*mix)(float *y, const float *x, const float *w, int64_t stride, int k, const float *bias, int64_t n);

    /* Tokens of the gated delta rule, one after the other, on a strip [n][DELTA_STRIP]:
     * delta = rate * (v - decay * s^T k); s = decay * s + k (x) delta; out = s^T q */
    void (*delta)(float *s, const delta_token *token, int64_t tokens, int n);

    /* Attention (attention_tmpl.h). Puts row pointers' queries in the order that `attend` reads. */
    void (*attend_queries)(float *packed, const float *const *q, int rows, int head_dim);
    /* Takes the block whose first key is at position `base` into the rows' state. */
    void (*attend)(const attend_rows *t, const attend_block *block, int32_t base);
    /* Adds the state of a later part of the keys to that of the parts before. */
    void (*attend_merge)(const attend_rows *t, const attend_rows *part);
    /* out = o / sum of row i; *sink (NULL: none) joins the sum */
    void (*attend_finish)(float *out, const attend_rows *t, int i, const float *sink);
    /* For keys that do not lie in pages: a strip of them (n <= ATTEND_STRIP rows, strides apart) with its values in the kernel's own order.
     * The values start at *values_at of strip_bytes. */
    size_t (*strip_bytes)(int head_dim, size_t *values_at);
    void (*pack_strip)(void *strip, const float *k, int64_t k_stride, const float *v, int64_t v_stride, int n, int head_dim);
    void (*turn_values)(float *values, const float *keys, int dims);  /* keys [dims][ATTEND_STRIP] to [ATTEND_STRIP][dims] */
    int tile_rows;                                 /* rows of queries that `attend` likes to get at once, at least */
    void (*widen)(float *out, const void *in, dtype type, int64_t n);
    void (*narrow)(void *out, dtype type, const float *in, int64_t n);
    /* sum of q[d] * (k[d] + rel[d]) */
    float (*dot_sum)(const float *q, const float *k, const float *rel, int64_t n);
} cpu_kernels;

void cpu_kernels_c(cpu_kernels *k);                /* rows and elements */
void cpu_kernels_avx2(cpu_kernels *k);
void cpu_kernels_avx512(cpu_kernels *k);
void cpu_kernels_neon(cpu_kernels *k);
void cpu_attention_c(cpu_kernels *k);              /* attention */
void cpu_attention_avx2(cpu_kernels *k);
void cpu_attention_avx512(cpu_kernels *k);
void cpu_attention_neon(cpu_kernels *k);
void cpu_attention_amx(cpu_kernels *k);            /* bf16: for PRECISION_FAST, head_dim <= ATTEND_AMX_DIM */

typedef struct cpu_state {                         /* device.state */
    unsigned features;
    cpu_kernels kernels, bf16;                     /* bf16: the same, with attention rounded to bf16 where that is faster */
    void *linear;                                  /* of linear*.c */
} cpu_state;

static inline cpu_state *cpu_of(const device *dev) { return (cpu_state *)dev->state; }
static inline const cpu_kernels *cpu_kernels_of(const run *r) { return &cpu_of(r->dev)->kernels; }
/* For attention: the choice depends on precision and spec alone, never on the batch. Tiles of bf16 double the speed of prompts and encoders
 * but a decoded token fills only as many rows of them as heads share keys: with few, vectors of float32 read pages faster. */
static inline const cpu_kernels *cpu_attend_kernels(const run *r, const attention_spec *s, bool paged)
{
    bool tiles = r->dev->precision == PRECISION_FAST && s->head_dim <= ATTEND_AMX_DIM && (!paged || s->heads >= 4 * s->kv_heads);
    return tiles ? &cpu_of(r->dev)->bf16 : &cpu_of(r->dev)->kernels;
}

/* ---- linear*.c: matrix products. Called by cpu.c (slots of ops_cpu); arguments were checked by op_*. ---- */
bool cpu_linear_init(device *dev, vlm_error *error);        /* after features and kernels are set; fills state->linear */
void cpu_linear_close(device *dev);                         /* also after a failed init */
bool cpu_prepare(device *dev, weight *w, vlm_error *error);
void cpu_release(device *dev, weight *w);
void cpu_linear(run *r, tensor y, tensor x, const weight *w, const float *bias);
void cpu_linear_group(run *r, int count, const tensor *y, tensor x, const weight *const *w, const float *const *bias);
bool cpu_mlp(run *r, tensor y, tensor x, const mlp_spec *spec);
void cpu_embed(run *r, tensor out, const weight *table, const int32_t *ids, float scale);
void cpu_linear_heads(run *r, tensor y, tensor x, const weight *w);
void cpu_moe(run *r, tensor out, tensor x, const moe_spec *spec, const int32_t *index, const float *weights);

#endif
