/* elementwise_avx512.c - elementwise_tmpl.h for this instruction set. */
#define KERNELS cpu_kernels_avx512
#include "tensor/cpu/elementwise_tmpl.h"
