/* tensor.h - what operations work on: activations (tensor), matrices as published (weight), and a run that carries them.
 *
 * Activations are matrices [rows, cols]: a row is a token (or patch, or frame), heads lie side by side in its columns.
 * They are float32 on the CPU. A view may have rows further apart than its columns (stride), so that q, k, v can be
 * slices of one product. Memory comes from the run's scratch arena and lives until the step ends.
 *
 * A weight is (format, shape, bytes as in the file). Backends compute on the stored format; what they prepare at load
 * hangs on `packed`. */
#ifndef VLM_TENSOR_H
#define VLM_TENSOR_H

#include <stdbool.h>
#include <stdint.h>
#include "base/mem.h"
#include "vlm.h"

typedef enum dtype {
    DT_F32, DT_F16, DT_BF16, DT_F64, DT_I8, DT_U8, DT_I16, DT_U16, DT_I32, DT_U32, DT_I64, DT_U64, DT_BOOL, DT_F8_E4M3, DT_F8_E5M2,
    DT_F8_E8M0, DT_COUNT
} dtype;
size_t dtype_size(dtype t);
const char *dtype_name(dtype t);                   /* as safetensors spells it: "F32", "BF16" ... */

typedef struct tensor {
    void *data;
    dtype type;
    int64_t rows, cols, stride;                    /* stride: elements from one row to the next, >= cols */
} tensor;

static inline float *tensor_row(tensor t, int64_t row) { return (float *)t.data + row * t.stride; }
static inline tensor tensor_cols(tensor t, int64_t first, int64_t count)   /* view of some columns */
{
    return (tensor){(float *)t.data + first, t.type, t.rows, count, t.stride};
}
static inline tensor tensor_rows(tensor t, int64_t first, int64_t count)   /* view of some rows */
{
    return (tensor){(float *)t.data + first * t.stride, t.type, count, t.cols, t.stride};
}

/* Storage formats of a matrix. AFFINE: unsigned codes of `bits` (little-endian bit stream per row, MLX layout: u32 words),
 * w = code * scale + bias, one scale and bias (dtype scale_type) per `group` consecutive columns of a row. */
typedef enum weight_format { WF_F32, WF_F16, WF_BF16, WF_AFFINE, WF_COUNT } weight_format;

typedef struct weight {
    weight_format format;
    int64_t rows, cols;                            /* rows = outputs, cols = inputs; of one expert when experts > 0 */
    int64_t experts;                               /* 0: a plain matrix; else that many matrices one after the other */
    const void *data;                              /* row-major, mapped from the file (may be unaligned to 64) */
    const void *scales, *biases;                   /* AFFINE: [rows, cols / group] */
    dtype scale_type;
    int bits, group;
    void *packed;                                  /* the backend's own, made by ops->prepare; NULL: none */
    const char *name;                              /* of the tensor in the checkpoint, for messages */
    const struct low_rank *low_rank;               /* what adapters change about it; NULL: nothing */
} weight;

/* What an adapter (LoRA, DoRA) makes of a product y = x . w^T + bias, for rows whose mask has its bit (run.adapters):
 *     y = columns * (x . w^T + scale * ((x . down^T) . up^T + up_bias)) + its bias
 * and of a table's rows, y = w[id], x . down^T being down[id] there. */
typedef struct low_rank {
    const struct low_rank *next;
    int adapter;                                   /* the bit */
    bool table;                                    /* of op_embed; else of op_linear */
    weight down, up;                               /* [rank, cols], [rows, rank]; table: [rows, rank], [cols, rank]. down.data NULL: none */
    float scale;
    const float *up_bias;                          /* NULL: none */
    const float *columns;                          /* DoRA's magnitude / norm, one for each output; NULL: 1 */
    const float *bias;                             /* takes bias's place; NULL: the bias stays */
    const weight *instead;                         /* another matrix takes w's place in all that; NULL: none */
} low_rank;

size_t weight_row_bytes(const weight *w);          /* of data */
size_t weight_bytes(const weight *w);              /* data + scales + biases, all experts */
weight weight_expert(const weight *w, int64_t expert);  /* view of one expert's matrix (packed is NULL: backends look at the whole) */
weight weight_rows(const weight *w, int64_t first, int64_t rows);      /* view of some rows, likewise */
/* Row `row` widened to float32: the definition that every kernel is checked against. */
void weight_row_f32(const weight *w, int64_t row, float *out);

/* exact: activations stay float32. fast: activations of a matrix product may be rounded (bf16, or int8 per group for AFFINE). */
typedef enum precision { PRECISION_EXACT, PRECISION_FAST } precision;

struct ops;
struct tap;
struct pool;

typedef struct device {                            /* a backend instance; ops->open fills it */
    const struct ops *ops;
    struct pool *pool;                             /* CPU threads (also of a GPU backend's host work) */
    precision precision;
    const char *isa;                               /* "ref", "avx2", "avx512", "avx512vnni", "amx", "neon" ...: for people */
    void *state;                                   /* the backend's own */
    bool kinds;                                    /* some product of this model depends on run.answer (set by ops->prepare) */
} device;

/* One step of work. Errors are sticky, as in stdio: after the first failure operations do nothing, run_ok tells at the end. */
typedef struct run {
    device *dev;
    arena *scratch;
    struct tap *tap;                               /* NULL: nobody looks */
    uint64_t adapters;                             /* bits of the adapters that rows want: every row, or ... */
    const uint64_t *row_adapters;                  /* ... [adapter_rows] each row its own, `adapters` is all of them; NULL: every row */
    int64_t adapter_rows;                          /* products of any other number of rows fail while row_adapters is set */
    bool answer;                                   /* rows are tokens of answers (also a single one of a draft, or computed again); else of prompts, or of
                                                    * encoders. What a row is decides how it is computed, never how many there are. */
    bool failed;
    vlm_error error;
} run;

bool run_fail(run *r, vlm_status code, const char *format, ...) __attribute__((format(printf, 3, 4)));   /* returns false */
static inline bool run_ok(const run *r) { return !r->failed; }
/* float32 [rows, cols] from scratch, not zeroed; on failure data is NULL and the run has failed. */
tensor run_tensor(run *r, int64_t rows, int64_t cols);
tensor run_zeros(run *r, int64_t rows, int64_t cols);
void *run_alloc(run *r, size_t bytes);             /* zeroed scratch; NULL after failure */

float bf16_to_f32(uint16_t x);
uint16_t f32_to_bf16(float x);                     /* round to nearest even */
float f16_to_f32(uint16_t x);
uint16_t f32_to_f16(float x);
/* n values of type t (F32, F16, BF16, F64, integers) widened to float32. */
void convert_to_f32(const void *in, dtype t, int64_t n, float *out);

#endif
