/* qwen2_vl.c - Qwen2-VL.  https://arxiv.org/abs/2409.12191
 *
 *   patches [t*h*w, 3*2*14*14] -> patch embedding -> ViT blocks (attention in whole frames) -> merger: layer norm, 2 x 2 patches side by
 *   side, MLP -> rows that replace <|image_pad|> -> Qwen2 decoder with M-RoPE (time, row, column)
 *
 * Bites: vision_config.hidden_size is the decoder's width, the tower's is embed_dim; mlp_ratio gives the width of its MLP (quick GELU).
 * The decoder's q, k, v have biases, o has none. A frame group is one time step; text after a video continues at the largest position + 1. */
#include "models/qwen_vl.h"

static bool configure_vision(qwen_vl *q, config *c)
{
    qwen_tower *t = &q->tower;
    t->vit = (vit_spec){
        .hidden = (int)config_int(c, "vision_config.embed_dim", 1280, 1, 1 << 16),
        .heads = (int)config_int(c, "vision_config.num_heads", 16, 1, 1 << 10),
        .act = config_activation(c, "vision_config.hidden_act", "quick_gelu"),
        .eps = 1e-6f,
        .layernorm = true,
    };
    double ratio = config_number(c, "vision_config.mlp_ratio", 4);
    if (!c->failed && !(ratio > 0 && ratio <= 64)) return config_fail(c, VLM_FORMAT, "vision_config.mlp_ratio %g", ratio);
    t->vit.ffn = (int)(t->vit.hidden * ratio);
    t->depth = (int)config_int(c, "vision_config.depth", 32, 1, QWEN_MAX_DEPTH);
    t->out = (int)config_int(c, "vision_config.hidden_size", q->text.spec.hidden, 1, 1 << 20);
    return !c->failed;
}

static bool configure(vlm_model *m, config *c)
{
    qwen_vl *q = m->family = arena_alloc(&m->memory, sizeof *q);
    if (!q) return config_fail(c, VLM_MEMORY, "out of memory");
    if (!decoder_config(&q->text.spec, &m->memory, c, text_prefixes)) return false;
    q->text.spec.qkv_bias = true;
    decoder_names(&q->text.spec);
    return qwen_vl_configure(&q->processor, m->processor, c) && configure_vision(q, c) && qwen_vl_plan(q, m, c);
}

static bool bind(vlm_model *m, binder *b)
{
    static const qwen_tower_names names = {
        .layer = {.norm1 = "norm1", .norm2 = "norm2", .qkv = "attn.qkv", .proj = "attn.proj", .up = "mlp.fc1", .down = "mlp.fc2"},
        .norm = "ln_q", .up = "mlp.0", .down = "mlp.2",
    };
    qwen_vl *q = m->family;
    if (!decoder_bind(&q->text, b)) return false;
    qwen_tower_bind(&names, &q->tower, b);
    return !b->failed;
}

static const char *const types[] = {"qwen2_vl", NULL};

const vlm_arch vlm_arch_qwen2_vl = {
    .name = "qwen2_vl",
    .title = "Qwen2-VL (2B, 7B, 72B), QVQ",
    .model_types = types,
    .rules = &media_rules_pixels,
    .configure = configure,
    .bind = bind,
    QWEN_VL_ARCH,
};
