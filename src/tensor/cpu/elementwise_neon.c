/* elementwise_neon.c - elementwise_tmpl.h for this instruction set. */
#define KERNELS cpu_kernels_neon
#include "tensor/cpu/elementwise_tmpl.h"
