/* attention_neon.c - attention_tmpl.h for this instruction set. */
#define KERNELS cpu_attention_neon
#include "tensor/cpu/attention_tmpl.h"
