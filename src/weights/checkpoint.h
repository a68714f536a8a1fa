/* checkpoint.h - the tensors of a checkpoint: names, types, shapes and mapped bytes, from safetensors in one file or in shards.
 * Which files: model.safetensors.index.json, else model.safetensors, else the one *.safetensors that is no golden. Every offset, size and
 * shape is checked against the file before anything is looked at. */
#ifndef VLM_WEIGHTS_CHECKPOINT_H
#define VLM_WEIGHTS_CHECKPOINT_H

#include "tensor/tensor.h"
#include "vlm.h"

enum { TENSOR_MAX_DIMS = 8 };
typedef struct stored_tensor {
    const char *name, *file;
    dtype type;
    int dims;
    int64_t dim[TENSOR_MAX_DIMS];
    const void *data;
    size_t bytes;
} stored_tensor;

typedef struct checkpoint checkpoint;
checkpoint *checkpoint_open(const char *dir, vlm_error *error);
checkpoint *checkpoint_open_file(const char *path, vlm_error *error);  /* one safetensors file, e.g. goldens */
void checkpoint_close(checkpoint *c);
const stored_tensor *checkpoint_find(const checkpoint *c, const char *name);   /* NULL: not there */
size_t checkpoint_count(const checkpoint *c);
const stored_tensor *checkpoint_at(const checkpoint *c, size_t index);         /* sorted by name */
uint64_t checkpoint_bytes(const checkpoint *c);                                /* of all tensors */
/* Bytes of a tensor that will hardly be read again: their pages go; they stay readable. */
void checkpoint_drop(const checkpoint *c, const void *data, size_t bytes);
const char *checkpoint_format(const checkpoint *c);                            /* metadata "format": "pt", "mlx"; "" when not given */
size_t checkpoint_files(const checkpoint *c);
/* Name, size and time (ns) of a weight file: they identify the checkpoint. */
const char *checkpoint_file(const checkpoint *c, size_t index, uint64_t *bytes, int64_t *modified);

#endif
