/* qwen3_vl.c - Qwen3-VL, dense and with experts.  https://arxiv.org/abs/2511.21631
 *
 *   patches [t*h*w, 3*2*16*16] -> product + learned positions (48 x 48, bilinear) -> ViT blocks with rope -> merger -> rows that replace
 *   <|image_pad|>; after a few blocks (deepstack) another merger gives rows that are added behind the decoder's first layers
 *   -> Qwen3 decoder, M-RoPE whose axes alternate: t h w t h w ...
 *
 * Bites: a video is a row of frame groups, each between its own vision marks and after its time, "<0.3 seconds>"; so a group starts at the next
 * text position. Size limits of videos are for all frames together. The deepstack mergers normalise what is merged, the main merger before; both
 * use exact GELU, the blocks tanh. Experts are stored [experts, inputs, outputs]. */
#include <string.h>

#include "models/qwen_vl.h"

static bool configure(vlm_model *m, config *c)
{
    qwen_vl *q = m->family = arena_alloc(&m->memory, sizeof *q);
    if (!q) return config_fail(c, VLM_MEMORY, "out of memory");
    decoder_spec *s = &q->text.spec;
    if (!decoder_config(s, &m->memory, c, text_prefixes)) return false;
    s->qk_norm = true;
    s->qkv_bias = s->o_bias = config_bool(c, "text_config.attention_bias|attention_bias", false);
    s->experts_transposed = true;
    if (!strcmp(config_string(c, "model_type", ""), "qwen3_vl_moe")) decoder_config_experts(s, c, text_prefixes);
    decoder_names(s);
    return qwen3_vl_configure(q, m->processor, c) && qwen_vl_plan(q, m, c);
}

static bool bind(vlm_model *m, binder *b)
{
    qwen_vl *q = m->family;
    if (!decoder_bind(&q->text, b)) return false;
    qwen_tower_bind(&qwen3_vl_tower_names, &q->tower, b);
    return !b->failed;
}

static const char *const types[] = {"qwen3_vl", "qwen3_vl_moe", NULL};

const vlm_arch vlm_arch_qwen3_vl = {
    .name = "qwen3_vl",
    .title = "Qwen3-VL (2B to 235B-A22B), its embedding and reranker models",
    .model_types = types,
    .also = 1 << TASK_EMBED | 1 << TASK_RERANK,
    .rules = &media_rules_pixels,
    .configure = configure,
    .bind = bind,
    QWEN_VL_ARCH,
};
