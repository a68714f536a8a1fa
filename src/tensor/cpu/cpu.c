/* cpu.c - ops_cpu: one driver per operation (rows to the pool, a row kernel for each), and opening the device. */
#include <string.h>

#include "base/env.h"
#include "tensor/cpu/cpu.h"
#include "tensor/cpu/ref.h"
#include "tensor/cpu/rows.h"

/* Plain C first, then what the machine does better. */
static void fill_kernels(cpu_kernels *k, unsigned features)
{
    cpu_kernels_c(k), cpu_attention_c(k);
#if defined(__x86_64__)
    if (features & CPU_AVX2) cpu_kernels_avx2(k), cpu_attention_avx2(k);
    if (features & CPU_AVX512) cpu_kernels_avx512(k), cpu_attention_avx512(k);
#elif defined(__aarch64__)
    if (features & CPU_NEON) cpu_kernels_neon(k), cpu_attention_neon(k);
#endif
}

static bool open_cpu(device *dev, const char *isa, vlm_error *error)
{
    cpu_state *state = MEM_NEW(cpu_state);
    if (!state) return err_memory(error, sizeof *state);
    if (!cpu_features(isa, &state->features, &dev->isa, error)) {
        mem_free(state);
        return false;
    }
    fill_kernels(&state->kernels, state->features);
    state->bf16 = state->kernels;
#if defined(__x86_64__)
    if (state->features & CPU_AMX) cpu_attention_amx(&state->bf16);
#endif
    dev->state = state;
    if (cpu_linear_init(dev, error)) return true;
    mem_free(state);
    dev->state = NULL;
    return false;
}

static void close_cpu(device *dev)
{
    cpu_linear_close(dev);
    mem_free(dev->state);
    dev->state = NULL;
}

const ops ops_cpu = {
    .name = "cpu", .open = open_cpu, .close = close_cpu,
    /* matrix products */
    .prepare = cpu_prepare, .release = cpu_release, .linear = cpu_linear, .linear_group = cpu_linear_group, .mlp = cpu_mlp, .linear_heads = cpu_linear_heads,
    .embed = cpu_embed, .moe = cpu_moe,
    /* the rest */
    .rmsnorm = cpu_rmsnorm, .layernorm = cpu_layernorm, .add = cpu_add, .mul = cpu_mul, .scale = cpu_scale, .activate = cpu_activate,
    .glu = cpu_glu, .clip = cpu_clip, .softcap = cpu_softcap, .gather = cpu_gather, .scatter = cpu_scatter,
    .scatter_add = cpu_scatter_add, .adapt = cpu_adapt, .rope = cpu_rope, .route = cpu_route, .conv2d = cpu_conv2d, .conv2d_depthwise = cpu_conv2d_depthwise,
    .conv1d_depthwise = cpu_conv1d_depthwise,
    .kv_write = cpu_kv_write, .attention = cpu_attention, .attention_segments = cpu_attention_segments,
    .attention_relative = cpu_attention_relative,
    .scale_rows = cpu_scale_rows, .conv1d_causal = cpu_conv1d_causal, .delta_rule = cpu_delta_rule,
};

bool device_open_cpu(device *dev, int threads, precision exactness, const char *isa, vlm_error *error)
{
    if (!isa) isa = env_cpu();
    bool ref = isa && strcmp(isa, "ref") == 0;
    *dev = (device){.ops = ref ? &ops_ref : &ops_cpu, .precision = exactness};
    dev->pool = pool_new(threads, error);
    if (!dev->pool) return false;
    if (dev->ops->open(dev, ref ? NULL : isa, error)) return true;
    pool_free(dev->pool);
    *dev = (device){0};
    return false;
}

void device_close(device *dev)
{
    if (!dev || !dev->ops) return;
    dev->ops->close(dev);
    pool_free(dev->pool);
    *dev = (device){0};
}
