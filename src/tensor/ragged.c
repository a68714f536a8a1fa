/* ragged.c - see ragged.h. */
#include "tensor/ragged.h"

/* Every backend and instruction set orders values inside a page as it likes, but all need the same room: values of a position
 * lie side by side without padding. */
size_t kv_page_bytes(const kv_shape *shape)
{
    size_t row = (size_t)shape->kv_heads * (size_t)shape->head_dim * dtype_size(shape->type);
    size_t bytes = (shape->latent ? 1 : 2) * (size_t)shape->slots * KV_PAGE_TOKENS * row;
    return (bytes + 63) & ~(size_t)63;
}
