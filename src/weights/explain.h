/* explain.h - why a shape was expected: the names of the config values that it is made of. */
#ifndef VLM_WEIGHTS_EXPLAIN_H
#define VLM_WEIGHTS_EXPLAIN_H

#include "weights/config.h"

/* "[96, 56]" */
void explain_shape(int dims, const int64_t *dim, char *out, size_t size);
/* " (config.json: intermediate_size x hidden_size)", or "" when nothing in the config has these values. `tensor` tells which part of the
 * config is looked at (vision, audio, text). */
void explain_config(const config *cfg, const char *tensor, int dims, const int64_t *dim, char *out, size_t size);

#endif
