/* elementwise_avx2.c - elementwise_tmpl.h for this instruction set. */
#define KERNELS cpu_kernels_avx2
#include "tensor/cpu/elementwise_tmpl.h"
