/* limits.h - what this machine can do at most: bytes a second from memory and operations a second in registers. `vlm bench` states speeds
 * as shares of these. Each number is the best of several short runs with all threads of the pool: neighbours only ever take away. */
#ifndef VLM_TENSOR_CPU_LIMITS_H
#define VLM_TENSOR_CPU_LIMITS_H

#include "tensor/cpu/cpu.h"

typedef struct cpu_limits {
    double read_bytes;             /* bytes / s read from memory */
    double f32_flops;              /* multiply-adds count as two */
    double bf16_flops;             /* 0: no such instructions (or capped) */
    double int8_ops;
} cpu_limits;

bool cpu_measure_limits(device *dev, cpu_limits *out, vlm_error *error);

/* A loop of `rounds` rounds of independent multiply-adds in registers; returns how many operations it did. */
typedef double (*limits_fn)(int64_t rounds);
double limits_f32_c(int64_t rounds);
double limits_f32_avx2(int64_t rounds);
double limits_f32_avx512(int64_t rounds);
double limits_bf16_avx512vnni(int64_t rounds);
double limits_int8_avx2(int64_t rounds);
double limits_int8_avx512vnni(int64_t rounds);
double limits_bf16_amx(int64_t rounds);
double limits_int8_amx(int64_t rounds);

#endif
