/* tap.h - every step has a name. TAP(r, "blk.attn_out", layer, x) costs one branch when nobody listens; `vlm check` and
 * debugging sinks dump or compare the tensor when somebody does. */
#ifndef VLM_TENSOR_TAP_H
#define VLM_TENSOR_TAP_H

#include "tensor/tensor.h"

typedef struct tap {
    void (*see)(struct tap *tap, const char *name, int layer, tensor x);
    void *user;
} tap;

#define TAP(r, name, layer, x) \
    do { if ((r)->tap && run_ok(r)) (r)->tap->see((r)->tap, (name), (layer), (x)); } while (0)

#endif
