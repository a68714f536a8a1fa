/* attention_c.c - attention_tmpl.h in plain C. */
#define VEC_C
#define KERNELS cpu_attention_c
#include "tensor/cpu/attention_tmpl.h"
