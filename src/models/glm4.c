/* glm4.c - GLM-4-9B, GLM-Edge (glm) and GLM-4-0414, GLM-Z1 (glm4). Text only.  https://arxiv.org/abs/2406.12793
 *
 *   Llama with rope on the first half of each head, in pairs of neighbours, biases on q, k, v, gate and up in one matrix.
 *
 * Bites: glm4 also norms what attention and MLP add; there post_attention_layernorm is still the norm before the MLP, those behind are
 * post_self_attn_layernorm and post_mlp_layernorm. */
#include <string.h>

#include "models/text.h"

bool glm4_spec(decoder_spec *s, arena *memory, config *c, const char *type)
{
    if (!decoder_config(s, memory, c, text_prefixes)) return false;
    s->rope[0].interleaved = true;
    s->fused_gate_up = true;
    s->qkv_bias = config_bool(c, TEXT("attention_bias"), !strcmp(type, "glm"));
    if (!strcmp(type, "glm4")) {
        s->norms = NORM_SANDWICH;
        s->names = (norm_names){NULL, "post_self_attn_layernorm", "post_attention_layernorm", "post_mlp_layernorm"};
    }
    return !c->failed;
}

static const char *const types[] = {"glm4", "glm", NULL};

const vlm_arch vlm_arch_glm4 = {.name = "glm4", .title = "GLM-4, GLM-Z1, GLM-Edge (text)", .model_types = types, TEXT_ARCH};
