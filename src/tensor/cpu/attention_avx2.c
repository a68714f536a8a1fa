/* attention_avx2.c - attention_tmpl.h for this instruction set. */
#define KERNELS cpu_attention_avx2
#include "tensor/cpu/attention_tmpl.h"
