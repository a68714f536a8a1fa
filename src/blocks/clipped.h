/* clipped.h - linear layers whose input and output are clipped to bounds that lie as scalar tensors beside the weight
 * (Gemma 4's towers): y = clip(clip(x, in) . w^T, out). Infinite bounds cost nothing. */
#ifndef VLM_BLOCKS_CLIPPED_H
#define VLM_BLOCKS_CLIPPED_H

#include "tensor/ops.h"
#include "weights/bind.h"

typedef struct clipped_linear {
    weight w;
    float in_min, in_max, out_min, out_max;        /* -INFINITY, INFINITY: no bound */
} clipped_linear;

/* NAME.linear.weight [rows, cols] (or NAME.weight) and, when `clipped`, the scalars NAME.input_min ... (absent ones are infinite). */
void clipped_bind(binder *b, clipped_linear *l, bool clipped, int64_t rows, int64_t cols, const char *format, ...)
    __attribute__((format(printf, 6, 7)));
/* x is clipped in place (harmless when several layers with the same bounds read it). */
tensor clipped_apply(run *r, const clipped_linear *l, tensor x);
/* Products of the same x, each with bounds of its own: in one go when the bounds of x are the same (then x is clipped in place)
 * and there are LINEAR_GROUP_MAX at most. */
void clipped_apply_many(run *r, const clipped_linear *const *l, int n, tensor x, tensor *out);

#endif
