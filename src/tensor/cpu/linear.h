/* linear.h - inside linear*.c: what the driver asks of an instruction set.
 *
 *   linear.c           the driver: chooses a path for a weight, packs activations, cuts (rows x tokens) into items for the pool
 *   linear_moe.c       expert products as many small products in one fork; embed.c: rows of a table
 *   linear_dot.h       float32 path, a template over vec macros; compiled by linear_c.c, linear_avx2.c, linear_avx512.c, linear_neon.c
 *   linear_int.h       int8 path for affine weights, the same way; linear_bf16_*.c, linear_amx.c, linear_gemm_amx.c: paths of their own
 *
 * A path may have weights in an order of its own (weight.packed, made at load): panels of some rows that lie together, read as one stream.
 *
 * A path computes a block of outputs: rows [o0, o1) x tokens [t0, t1) of one product. The value of y[t][o] depends on row t of x and
 * row o of w alone: its sum runs over k in an order fixed by (path, cols), whatever the block is. So one token alone (decode) and
 * a prompt of many give the same bits, and so does any number of threads. With AMX, affine weights have two paths: codes in int8 for tokens of answers, which
 * wait for memory, and widened to bf16 for those of prompts; the kind of a token (run.answer) decides, not their number. */
#ifndef VLM_TENSOR_CPU_LINEAR_H
#define VLM_TENSOR_CPU_LINEAR_H

#include <string.h>

#include "tensor/cpu/cpu.h"

typedef struct linear_path linear_path;
enum { LINEAR_TOKENS = 512 };                      /* of a block at most; blocks begin at multiples of 128 */

/* Where a product does not go to y: act(product) * up, packed as activations of the product `into`. */
typedef struct linear_glu {
    const struct linear_product *up, *into;
    void (*kernel)(float *y, const float *gate, const float *up, activation act, int64_t n);
    activation act;
} linear_glu;

/* y[t * y_stride + o], t < n. x: the activations as the path wants them: packed, or (x_bytes NULL) float32 rows x_stride apart. */
typedef struct linear_product {
    const linear_path *path;
    weight w;                                      /* one matrix (of an expert: the view) */
    const float *bias;
    float *y;
    int64_t y_stride, n;
    const void *x;
    int64_t x_stride;
    const linear_glu *glu;                         /* NULL: to y */
} linear_product;

struct linear_path {
    const char *name;
    /* Bytes of packed activations for n tokens; NULL: the path reads float32 rows. */
    size_t (*x_bytes)(const weight *w, int64_t n);
    /* Packs token t of n into `packed`. */
    void (*pack)(const weight *w, void *packed, int64_t n, int64_t t, const float *x);
    /* The path's own order of a weight's rows, for weight.packed: bytes of one matrix, and the rows [o0, o1) from the file into it (o0 a multiple of
     * unit). NULL: the path reads the rows of the file; it does so anyway where packed is NULL. */
    size_t (*packed_bytes)(const weight *w);
    void (*repack)(const weight *w, char *packed, int64_t o0, int64_t o1);
    size_t (*scratch)(const weight *w, int64_t n); /* bytes that a thread needs; NULL: none */
    void (*block)(const linear_product *p, int64_t o0, int64_t o1, int64_t t0, int64_t t1, void *scratch);
    int unit;                                      /* rows that are computed together: cuts between threads fall on multiples */
    bool glu;                                      /* its blocks can do that, and read what the others of these paths left */
    int wide;                                      /* rows that go together when there are many tokens, if there are enough for all threads (0: WIDE_ROWS) */
};

/* Which path a weight takes, and how its rows are widened (columns [k, k + cols) of a row; k a multiple of 1024). */
typedef struct linear_table {
    const linear_path *exact[WF_COUNT], *fast[WF_COUNT];
    const linear_path *fast_affine4, *fast_affine8;   /* 4 and 8 bits, in place of fast[WF_AFFINE] when not NULL */
    const linear_path *prompt_affine;              /* of these, what is no token of an answer (run.answer), on the same packed rows; NULL: no difference */
    void (*widen)(const weight *w, int64_t row, int64_t k, int64_t cols, float *out);
    arena packed;                                  /* of all weights */
    size_t packed_bytes;                           /* in it */
    int64_t packed_count;
} linear_table;

void linear_init_c(linear_table *t);
void linear_init_avx2(linear_table *t);
void linear_init_int_avx2(linear_table *t);
void linear_init_avx512(linear_table *t);
extern const linear_path linear_int_avx512vnni, linear_int_amx, linear_affine_amx;
void linear_init_avx512vnni(linear_table *t);
void linear_init_avx512bf16(linear_table *t);      /* AMD only: see linear_bf16_avx512vnni.c */
void linear_init_amx(linear_table *t);
void linear_init_neon(linear_table *t);
void linear_init_neondot(linear_table *t);

const linear_path *linear_path_of(const device *dev, const weight *w, bool answer);
weight linear_expert(const device *dev, const weight *w, int64_t expert);   /* weight_expert, with what is packed */
/* Gives all products their path and packs the rows of x for them in one fork: product after product takes its n rows, of x itself
 * or (source != NULL) row source[i] as the i-th of all. The products' y, n, w are set. False after a failure. */
bool linear_pack(run *r, linear_product *products, int64_t count, tensor x, const int32_t *source);
/* All products, which have one path, in one fork. */
bool linear_run(run *r, const linear_product *products, int64_t count);

typedef float v4 __attribute__((vector_size(16)));  /* everywhere */
static inline int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
/* Value `index` of an array of type F32, F16 or BF16. */
static inline float linear_scale(const void *scales, dtype type, int64_t index)
{
    uint32_t bits;
    float f;
    if (type == DT_F32) {
        memcpy(&f, (const char *)scales + 4 * index, 4);
        return f;
    }
    uint16_t half;
    memcpy(&half, (const char *)scales + 2 * index, 2);
    if (type == DT_F16) return f16_to_f32(half);
    bits = (uint32_t)half << 16;                   /* here, as this is asked for each group */
    memcpy(&f, &bits, 4);
    return f;
}

#endif
