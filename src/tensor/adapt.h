/* adapt.h - adapters in matrix products: what low_rank parts of a weight (tensor.h) add for the rows that want them.
 *
 *   x [n, d] ── w ──────────────────────────> y [n, rows]        once, for all rows
 *      rows 0 2 5 ── down_A ── up_A ─────────> y[0 2 5]          those whose mask has adapter A's bit, together
 *      rows 3     ── down_B ── up_B ─────────> y[3]              B's
 *
 * A row's result depends on that row and its mask only: which other adapters are in the batch changes no bit. */
#ifndef VLM_TENSOR_ADAPT_H
#define VLM_TENSOR_ADAPT_H

#include "tensor/ops.h"

/* y is x . w^T + bias. */
void adapt_product(run *r, tensor y, tensor x, const weight *w, const float *bias);
/* out is scale * table[ids]. */
void adapt_rows_of(run *r, tensor out, const weight *table, const int32_t *ids, float scale);

/* The masks of the rows of a tensor, while its products run: `masks` [rows] must live as long as they are set. */
void run_set_adapters(run *r, const uint64_t *masks, int64_t rows);
/* From here on the tensor's rows are rows index[i] of what they were (after op_gather). */
void run_gather_adapters(run *r, const int32_t *index, int64_t n);

#endif
