/* features.c - which instruction sets this process may use (cpu_features in cpu.h). */
#include <string.h>

#include "tensor/cpu/cpu.h"

/* Names in rising order; each stands for itself and those before it. */
static const struct { const char *name; unsigned feature; } ladder[] = {
    {"c", 0},
#if defined(__x86_64__)
    {"avx2", CPU_AVX2}, {"avx512", CPU_AVX512}, {"avx512vnni", CPU_AVX512VNNI}, {"amx", CPU_AMX},
#elif defined(__aarch64__)
    {"neon", CPU_NEON}, {"neondot", CPU_NEONDOT},
#endif
};
enum { STEPS = sizeof ladder / sizeof *ladder };

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
long syscall(long number, ...);                    /* hidden by strict POSIX headers */
#endif

/* Register state that the system saves: XCR0. */
static uint64_t saved_state(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

/* Linux hands out the 8 KiB tile state only to processes that ask for it. */
static bool allow_tiles(void)
{
#if defined(__linux__)
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
    return false;
#endif
}

static bool all(uint32_t word, uint32_t bits) { return (word & bits) == bits; }
#define BIT(n) (1u << (n))

static unsigned detect(void)
{
    uint32_t a, b, c, d, b7, c7, d7, a71, unused;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !all(c, BIT(12) | BIT(27) | BIT(28) | BIT(29))) return 0;      /* fma osxsave avx f16c */
    if (!__get_cpuid_count(7, 0, &a, &b7, &c7, &d7)) return 0;
    uint64_t saved = saved_state();
    if ((saved & 6) != 6 || !all(b7, BIT(5) | BIT(8))) return 0;                                          /* avx2 bmi2 */
    unsigned features = CPU_AVX2;
    if ((saved & 0xe0) != 0xe0 || !all(b7, BIT(16) | BIT(17) | BIT(30) | BIT(31))) return features;       /* f dq bw vl */
    features |= CPU_AVX512;
    if (!__get_cpuid_count(7, 1, &a71, &unused, &unused, &unused)) a71 = 0;
    if (!all(c7, BIT(1) | BIT(11)) || !all(a71, BIT(5))) return features;                                 /* vbmi vnni, bf16 */
    features |= CPU_AVX512VNNI;
    if (all(d7, BIT(22) | BIT(24) | BIT(25)) && (saved & 0x60000) == 0x60000 && allow_tiles()) features |= CPU_AMX;
    return features;
}

#elif defined(__aarch64__)
#include <sys/auxv.h>

static unsigned detect(void)
{
    enum { ASIMD = 1 << 1, ASIMDHP = 1 << 10, ASIMDDP = 1 << 20 };
    unsigned long caps = getauxval(AT_HWCAP);
    if (!(caps & ASIMD)) return 0;
    return CPU_NEON | ((caps & ASIMDHP) && (caps & ASIMDDP) ? CPU_NEONDOT : 0);
}

#else
static unsigned detect(void) { return 0; }
#endif

bool cpu_features(const char *cap, unsigned *features, const char **name, vlm_error *error)
{
    unsigned have = detect(), kept = 0;
    int top = 0, limit = cap ? -1 : STEPS - 1;
    for (int i = 0; cap && i < STEPS; i++) if (strcmp(cap, ladder[i].name) == 0) limit = i;
    if (limit < 0) {
        err_set(error, VLM_INVALID, "CPU instruction set '%s' is not known here", cap);
        return err_hint(error, "ref, c%s", STEPS == 5 ? ", avx2, avx512, avx512vnni or amx" : ", neon or neondot");
    }
    for (int i = 0; i <= limit; i++) {
        if (!(have & ladder[i].feature)) continue;
        kept |= ladder[i].feature;
        top = i;
    }
    if (cap && top != limit) return err_set(error, VLM_UNSUPPORTED, "this machine has no %s", cap);
    *features = kept;
    *name = ladder[top].name;
    return true;
}
