/* elementwise_c.c - elementwise_tmpl.h in plain C. */
#define VEC_C
#define KERNELS cpu_kernels_c
#include "tensor/cpu/elementwise_tmpl.h"
