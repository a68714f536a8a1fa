/* bind_internal.h - what bind.c and bind_kernel.c share. A function that returns false or NULL has failed the binder, but for bind_find_matrix. */
#ifndef VLM_WEIGHTS_BIND_INTERNAL_H
#define VLM_WEIGHTS_BIND_INTERNAL_H

#include "weights/bind.h"

enum { NAME_MAX_BYTES = 512, SIDE_LIMIT = 1 << 30 };

bool bind_memory(binder *b, size_t bytes);
/* `name`.weight, else `name`, under the first prefix that has it; marked as used. NULL: there is none. */
const stored_tensor *bind_find_matrix(binder *b, const char *name);
void bind_missing(binder *b, const char *name, const char *suffix);
/* Dimensions of 1 at the end are left out of the comparison. */
bool bind_has_shape(const stored_tensor *t, int dims, const int64_t *dim);
bool bind_check_shape(binder *b, const stored_tensor *t, int dims, const int64_t *dim);
void bind_wrong_shape(binder *b, const stored_tensor *t, int dims, const int64_t *dim);
/* w's format from t's type. */
bool bind_plain_format(binder *b, weight *w, const stored_tensor *t);
const void *bind_aligned(binder *b, const stored_tensor *t);
const float *bind_floats_of(binder *b, const stored_tensor *t);
/* The matrix (or matrices) into w, whose rows, cols and experts are set, without handing it out; false when absent or failed. */
bool bind_read_matrix(binder *b, weight *w, const char *name);
bool bind_dummy(binder *b, weight *w, const char *name);
bool bind_add(binder *b, weight *w);
/* Puts what adapters change about the matrix `name` on w: on count parts of it instead, rows[i] each, when parts is not NULL. */
bool bind_low_rank(binder *b, weight *w, const char *name, int count, weight *const *parts, const int64_t *rows);

#endif
