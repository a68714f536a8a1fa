/* dummy.h - made-up weights of the right shape and format, for measuring speed without a checkpoint. */
#ifndef VLM_WEIGHTS_DUMMY_H
#define VLM_WEIGHTS_DUMMY_H

#include "weights/bind.h"

/* "f32", "f16", "bf16", "q8", "q4" (affine, groups of 64). */
bool dummy_format_known(const char *format);
/* Fills format, data, scales ... of *w, whose rows, cols, experts and name are set. Memory is the binder's arena. */
bool dummy_weight(binder *b, weight *w);
/* n values: 0 for biases, else 1. NULL after failure. */
const float *dummy_vector(binder *b, int64_t n, const char *name);

#endif
