/* qwen3.c - Qwen2, Qwen2.5 and Qwen3, dense and with experts. Text only.  https://arxiv.org/abs/2505.09388
 *
 *   ids -> embedding -> [ rms norm, attention with rope, rms norm, down(silu(gate) * up) or experts ] x layers -> rms norm -> head
 *
 * Bites: Qwen2 has biases on q, k, v and none on o; Qwen3 has none, but norms each head of q and k. Qwen3's head_dim is given
 * and heads * head_dim need not be hidden. Windows count only with use_sliding_window. Qwen2's mixture has a gated shared expert. */
#include <string.h>

#include "models/text.h"

bool qwen3_spec(decoder_spec *s, arena *memory, config *c, const char *type)
{
    bool qwen3 = !strncmp(type, "qwen3", 5);
    if (!decoder_config(s, memory, c, text_prefixes)) return false;
    s->qk_norm = qwen3;
    s->qkv_bias = config_bool(c, qwen3 ? TEXT("attention_bias") : TEXT("qkv_bias"), !qwen3);
    s->o_bias = qwen3 && s->qkv_bias;
    if (strstr(type, "_moe")) decoder_config_experts(s, c, text_prefixes);
    return !c->failed;
}

static const char *const types[] = {"qwen3", "qwen2", "qwen3_moe", "qwen2_moe", NULL};

const vlm_arch vlm_arch_qwen3 = {.name = "qwen3", .title = "Qwen2, Qwen2.5, Qwen3, also with experts, Qwen3-Embedding, Qwen3-Reranker (text)", .model_types = types,
                                 .also = 1 << TASK_EMBED | 1 << TASK_RERANK, TEXT_ARCH};
