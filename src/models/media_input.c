/* media_input.c - what a family's processor made of one medium: named tensors in arenas of its own (see model.h).
 *
 * A medium can be wanted by several requests while it is being encoded, hence the count of owners. Large tensors (pixels,
 * spectrograms) lie apart from small ones (grids): only the encoder needs them. */
#include "models/model.h"

#include <string.h>

enum { BULK_BYTES = 16 << 10 };

const processed *media_input_find(const media_input *in, const char *name)
{
    for (int i = 0; i < in->n_tensors; i++)
        if (!strcmp(in->tensors[i].name, name)) return &in->tensors[i];
    return NULL;
}

processed *media_input_add(media_input *in, const char *name, dtype type, int dims, const int64_t *dim)
{
    processed *p = &in->tensors[in->n_tensors];
    if (in->n_tensors == MAX_PROCESSED || dims < 0 || dims > (int)(sizeof p->dim / sizeof *p->dim)) return NULL;
    size_t bytes = dtype_size(type);
    for (int i = 0; i < dims; i++)
        if (dim[i] < 0 || !mem_mul(bytes, (size_t)dim[i], &bytes)) return NULL;
    void *data = arena_alloc(bytes > BULK_BYTES ? &in->bulk : &in->memory, bytes);
    if (!data) return NULL;
    *p = (processed){.name = name, .type = type, .dims = dims, .data = data};
    memcpy(p->dim, dim, (size_t)dims * sizeof *dim);
    in->n_tensors++;
    return p;
}

media_input *media_input_share(media_input *in)
{
    atomic_fetch_add(&in->shares, 1);
    return in;
}

void media_input_drop(media_input *in)
{
    for (int i = 0; i < in->n_tensors; i++) {
        size_t bytes = dtype_size(in->tensors[i].type);
        for (int d = 0; d < in->tensors[i].dims; d++) bytes *= (size_t)in->tensors[i].dim[d];
        if (bytes > BULK_BYTES) in->tensors[i].data = NULL;
    }
    arena_free(&in->bulk);
}

bool memory_plan_add(memory_plan *p, int media, int row, int count)
{
    memory_part *parts = mem_resize(p->parts, (size_t)p->n_parts + 1, sizeof *parts);
    if (!parts) return false;
    p->parts = parts;
    parts[p->n_parts++] = (memory_part){media, row, count};
    p->rows += count;
    return true;
}

void media_input_free(media_input *in)
{
    if (!in || atomic_fetch_sub(&in->shares, 1) > 0) return;
    arena_free(&in->memory);
    arena_free(&in->bulk);
    mem_free(in);
}
