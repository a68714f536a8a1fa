/* ops_test.h - what the cases of tests/ops share: three devices under one roof, random ragged inputs, guarded outputs, comparison.
 *
 * A case makes random inputs, lets the oracle (ops_ref), the backend under test with several threads (dev) and the same
 * backend with one thread (one) compute, and then asks for three things:
 *   near      dev's values lie within the case's tolerance of the oracle's
 *   same      what `one` computes for some of the rows has the same bits as those rows of dev's result
 *   guards    nothing was written before, after or between the rows of an output */
#ifndef VLM_TESTS_OPS_TEST_H
#define VLM_TESTS_OPS_TEST_H

#include "tensor/ops.h"

typedef struct ops_test {
    uint64_t seed;                                 /* state of the generator */
    device ref, dev, one;
    run on_ref, on_dev, on_one;
    arena scratch;
    struct block *blocks;                          /* what t_alloc gave out; lives until the round ends */
    const char *op;                                /* what runs */
    char shape[200];                               /* of the present round */
    int failures, checks;
    bool round_failed;
    precision precision;
} ops_test;

typedef struct op_case {
    const char *name;
    void (*check)(ops_test *t);                    /* one round on random shapes */
    void (*bench)(ops_test *t);                    /* NULL: none */
    bool products;                                 /* runs a second time with PRECISION_FAST */
} op_case;

extern const op_case row_cases[], linear_cases[], attention_cases[], recurrent_cases[];     /* end with a NULL name */

#define ON(t, which, op, ...) (t)->which.ops->op(&(t)->on_##which, __VA_ARGS__)

uint32_t t_below(ops_test *t, uint32_t n);         /* 0 .. n - 1 */
int t_between(ops_test *t, int low, int high);     /* inclusive */
int t_pick(ops_test *t, int n, const int *from);
float t_float(ops_test *t);                        /* about normal, variance 1 */
int t_size(ops_test *t, int most);                 /* often small or odd, sometimes large */

/* Random values; at any alignment of floats, rows sometimes further apart than they are wide. */
tensor t_random(ops_test *t, int64_t rows, int64_t cols, float scale);
float *t_values(ops_test *t, int64_t n, float scale);
tensor t_copy(ops_test *t, tensor x);              /* guarded */
tensor t_output(ops_test *t, int64_t rows, int64_t cols);                  /* guarded; filled with a NaN that stands for "not written" */
void *t_alloc(ops_test *t, size_t bytes);
void t_free_all(ops_test *t);
void t_shape(ops_test *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
weight t_weight(ops_test *t, weight_format format, int64_t rows, int64_t cols, int64_t experts);   /* AFFINE: random bits and group */

void t_guards(ops_test *t, tensor x);              /* x from t_output or t_copy */
/* |got - want| <= absolute + relative * |want|, everywhere; got's guards too. */
void t_near(ops_test *t, tensor got, tensor want, double absolute, double relative);
void t_same(ops_test *t, tensor a, tensor b);      /* bit for bit */
void t_fail(ops_test *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void t_ran(ops_test *t);                           /* all three runs went well */

/* ---- bench: calls fn(arg) until some milliseconds have passed, prints the rate of the best call ---- */
void t_bench(ops_test *t, const char *shape, double work, const char *unit, void (*fn)(ops_test *t, void *arg), void *arg);

#endif
