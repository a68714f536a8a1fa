/* qwen2_5_vl.c - Qwen2.5-VL.  https://arxiv.org/abs/2502.13923
 *
 *   patches [t*h*w, 3*2*14*14] -> patch embedding -> window order -> ViT blocks (attention in windows of 112 x 112 pixels; in whole frames
 *   at 7, 15, 23, 31) -> merger: rms norm, 2 x 2 patches side by side, MLP -> order of the image -> rows that replace <|image_pad|>
 *   -> Qwen2 decoder with M-RoPE (time, row, column)
 *
 * Bites: windows are windows (segments, no mask); their order is undone only after the merge. The decoder's q, k, v have biases, o has none.
 * A video's time step is floor(t * seconds per group * tokens_per_second); images have one. Text after a video continues at the largest
 * position + 1. Names: visual. and model. as published, model.visual. and model.language_model. in newer files, vision_tower. in MLX's. */
#include "models/qwen_vl.h"

bool qwen2_5_vl_configure_vision(qwen_vl *q, vlm_model *m, config *c)
{
    qwen_tower *t = &q->tower;
    const patch_spec *p = &q->processor.patch;
    t->vit = (vit_spec){
        .hidden = (int)config_need_int(c, "vision_config.hidden_size", 1, 1 << 16),
        .heads = (int)config_need_int(c, "vision_config.num_heads", 1, 1 << 10),
        .ffn = (int)config_need_int(c, "vision_config.intermediate_size", 1, 1 << 20),
        .act = config_activation(c, "vision_config.hidden_act", "silu"),
        .eps = 1e-6f,
        .gated = true,
    };
    t->depth = (int)config_need_int(c, "vision_config.depth", 1, QWEN_MAX_DEPTH);
    t->out = (int)config_int(c, "vision_config.out_hidden_size", q->text.spec.hidden, 1, 1 << 20);
    int window = (int)config_int(c, "vision_config.window_size", 112, 1, 1 << 20);
    if (c->failed) return false;
    t->window = window / p->merge / p->patch;
    if (t->window < 1) return config_fail(c, VLM_FORMAT, "vision_config.window_size %d is smaller than a merged patch", window);

    int64_t full[QWEN_MAX_DEPTH] = {7, 15, 23, 31};
    int n = config_ints(c, "vision_config.fullatt_block_indexes", full, QWEN_MAX_DEPTH);
    if (!(t->full = arena_alloc(&m->memory, (size_t)t->depth * sizeof *t->full))) return config_fail(c, VLM_MEMORY, "out of memory");
    for (int i = 0; i < (n ? n : 4); i++)
        if (full[i] >= 0 && full[i] < t->depth) t->full[full[i]] = true;
    return !c->failed;
}

static bool configure(vlm_model *m, config *c)
{
    qwen_vl *q = m->family = arena_alloc(&m->memory, sizeof *q);
    if (!q) return config_fail(c, VLM_MEMORY, "out of memory");
    if (!decoder_config(&q->text.spec, &m->memory, c, text_prefixes)) return false;
    q->text.spec.qkv_bias = true;
    decoder_names(&q->text.spec);
    return qwen_vl_configure(&q->processor, m->processor, c) && qwen2_5_vl_configure_vision(q, m, c) && qwen_vl_plan(q, m, c);
}

static bool bind(vlm_model *m, binder *b)
{
    static const qwen_tower_names names = {
        .layer = {.norm1 = "norm1", .norm2 = "norm2", .qkv = "attn.qkv", .proj = "attn.proj", .gate = "mlp.gate_proj", .up = "mlp.up_proj", .down = "mlp.down_proj"},
        .norm = "ln_q", .up = "mlp.0", .down = "mlp.2",
    };
    qwen_vl *q = m->family;
    if (!decoder_bind(&q->text, b)) return false;
    qwen_tower_bind(&names, &q->tower, b);
    return !b->failed;
}

static const char *const types[] = {"qwen2_5_vl", NULL};

const vlm_arch vlm_arch_qwen2_5_vl = {
    .name = "qwen2_5_vl",
    .title = "Qwen2.5-VL (3B, 7B, 32B, 72B)",
    .model_types = types,
    .also = 1 << TASK_EMBED | 1 << TASK_RERANK,
    .rules = &media_rules_pixels,
    .configure = configure,
    .bind = bind,
    QWEN_VL_ARCH,
};
