/* cpu.c - ops_cpu: one driver per operation (rows to the pool, a row kernel for each), and opening the device. */
#include <string.h>

#include "base/env.h"
#include "tensor/cpu/cpu.h"
#include "tensor/cpu/ref.h"

static bool open_cpu(device *dev, const char *isa, vlm_error *error)
{
    cpu_state *state = MEM_NEW(cpu_state);
    if (!state) return err_memory(error, sizeof *state);
    if (!cpu_features(isa, &state->features, &dev->isa, error)) {
        mem_free(state);
        return false;
    }
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
    .prepare = cpu_prepare, .release = cpu_release, .linear = cpu_linear, .embed = cpu_embed, .moe = cpu_moe,
    /* the rest */
    .rmsnorm = ref_rmsnorm, .layernorm = ref_layernorm, .add = ref_add, .mul = ref_mul,
    .scale = ref_scale, .activate = ref_activate, .glu = ref_glu, .clip = ref_clip, .softcap = ref_softcap, .gather = ref_gather,
    .scatter = ref_scatter, .scatter_add = ref_scatter_add, .rope = ref_rope, .kv_write = ref_kv_write, .attention = ref_attention,
    .attention_segments = ref_attention_segments, .attention_relative = ref_attention_relative, .topk = ref_topk,
    .conv2d = ref_conv2d, .conv1d_depthwise = ref_conv1d_depthwise,
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
