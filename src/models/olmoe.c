/* olmoe.c - OLMoE. Text only.  https://arxiv.org/abs/2409.02060
 *
 *   Llama whose queries and keys are normed whole, over all heads, with experts in place of every MLP.
 *
 * Bites: intermediate_size is an expert's width. Shares are not normalized unless norm_topk_prob says so. */
#include "models/text.h"

bool olmoe_spec(decoder_spec *s, arena *memory, config *c, const char *type)
{
    (void)type;
    if (!decoder_config(s, memory, c, text_prefixes)) return false;
    if (config_has(c, TEXT("clip_qkv"))) return config_fail(c, VLM_UNSUPPORTED, "clip_qkv: bounds of queries, keys and values are not known");
    s->qk_norm = s->qk_norm_whole = true;
    s->eps = (float)config_number(c, TEXT("rms_norm_eps"), 1e-5);
    s->qkv_bias = s->o_bias = config_bool(c, TEXT("attention_bias"), false);
    s->moe = MOE_INSTEAD;
    s->experts = (int)config_int(c, TEXT("num_experts") "|" TEXT("num_local_experts"), 64, 1, 1 << 16);
    s->route.top_k = (int)config_int(c, TEXT("num_experts_per_tok"), 8, 1, 1 << 16);
    s->route.normalize = config_bool(c, TEXT("norm_topk_prob"), false);
    s->expert_ffn = s->layer[0].ffn;
    for (int i = 0; i < s->layers; i++) s->layer[i].moe = true, s->layer[i].ffn = 0;
    return !c->failed;
}

static const char *const types[] = {"olmoe", NULL};

const vlm_arch vlm_arch_olmoe = {.name = "olmoe", .title = "OLMoE (text)", .model_types = types, TEXT_ARCH};
