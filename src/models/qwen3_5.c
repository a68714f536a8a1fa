/* qwen3_5.c - Qwen3.5, dense and with experts: gated delta nets in three of four layers.  https://qwen.ai/blog?id=qwen3.5
 *
 *   patches -> the tower of Qwen3-VL without deepstack -> rows that replace <|image_pad|>
 *   decoder layer: x += mix(norm x), x += mlp(norm x) or experts + shared expert
 *     linear_attention  blocks/delta_net: what a token leaves behind is of constant size
 *     full_attention    q_proj gives query and gate; norms of q and k; rope (M-RoPE, axes alternate) on a quarter of each head;
 *                       output times sigmoid(gate)
 *
 * Bites: norms multiply by 1 + w, but for the delta net's gated norm, which is plain (MLX's files hold 1 + w already). A_log is float32.
 * The head called mtp. drafts tokens; nothing here reads it. Videos are as in Qwen3-VL. */
#include <string.h>

#include "models/qwen_vl.h"
#include "models/text.h"

static const char *const TEXT_TYPES = "text_config.layer_types|layer_types";

/* layer_types, else every full_attention_interval-th layer is attention. */
static bool configure_layers(decoder_spec *s, config *c)
{
    const json_t *types = config_get(c, TEXT_TYPES);
    int interval = (int)config_int(c, "text_config.full_attention_interval|full_attention_interval", 4, 1, 1 << 10);
    for (int i = 0; i < s->layers; i++) {
        const char *type = types ? json_string_value(json_array_get(types, (size_t)i)) : (i + 1) % interval ? "linear_attention" : "full_attention";
        if (!type) return config_fail(c, VLM_FORMAT, "layer_types has no entry for layer %d of %d", i, s->layers);
        s->layer[i].recurrent = !strcmp(type, "linear_attention");
        if (!s->layer[i].recurrent && strcmp(type, "full_attention"))
            return config_fail(c, VLM_UNSUPPORTED, "layer %d is \"%s\"; linear_attention and full_attention are known", i, type);
    }
    s->delta.eps = s->eps;
    return delta_net_config(&s->delta, c, text_prefixes);
}

bool qwen3_5_spec(decoder_spec *s, arena *memory, config *c, const char *model_type)
{
    (void)model_type;
    if (!decoder_config(s, memory, c, text_prefixes) || !configure_layers(s, c)) return false;
    s->qk_norm = s->attn_gate = true;
    s->qkv_bias = s->o_bias = config_bool(c, "text_config.attention_bias|attention_bias", false);
    s->route.normalize = true;
    s->norm_offset = 1;
    s->mlx_adds_offset = true;
    return !config_has(c, "text_config.num_experts|num_experts") || decoder_config_experts(s, c, text_prefixes);
}

static bool configure(vlm_model *m, config *c)
{
    qwen_vl *q = m->family = arena_alloc(&m->memory, sizeof *q);
    if (!q) return config_fail(c, VLM_MEMORY, "out of memory");
    decoder_names(&q->text.spec);
    if (!qwen3_5_spec(&q->text.spec, &m->memory, c, NULL)) return false;
    return qwen3_vl_configure(q, m->processor, c) && qwen_vl_plan(q, m, c);
}

static bool bind(vlm_model *m, binder *b)
{
    qwen_vl *q = m->family;
    if (!decoder_bind(&q->text, b)) return false;
    qwen_tower_bind(&qwen3_vl_tower_names, &q->tower, b);
    return !b->failed;
}

static const char *const types[] = {"qwen3_5", "qwen3_5_moe", NULL};

const vlm_arch vlm_arch_qwen3_5 = {
    .name = "qwen3_5",
    .title = "Qwen3.5 (dense, experts)",
    .model_types = types,
    .rules = &media_rules_pixels,
    .configure = configure,
    .bind = bind,
    QWEN_VL_ARCH,
};
