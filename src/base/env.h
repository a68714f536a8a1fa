/* env.h - every environment variable that the library reads, in one file. An empty value counts as unset. */
#ifndef VLM_BASE_ENV_H
#define VLM_BASE_ENV_H

/* VLM_CPU: the instruction set to stay at or below ("ref", "c", "avx2", "avx512", "avx512vnni", "amx", "neon", "neondot"); NULL: unset. */
const char *env_cpu(void);

#endif
