/* granite.c - Granite 3, dense and with experts (PowerMoE too). Text only.  https://arxiv.org/abs/2408.13359 (muP)
 *
 *   Llama with four multipliers: embeddings * embedding_multiplier, scores * attention_multiplier (instead of 1 / sqrt(head_dim)), what attention
 *   and MLP add * residual_multiplier, logits / logits_scaling. Below a tower, media rows are multiplied like embeddings.
 *   granitemoe: experts in place of every MLP, gate and up in one; intermediate_size is an expert's width. */
#include <string.h>

#include "models/text.h"

bool granite_spec(decoder_spec *s, arena *memory, config *c, const char *type)
{
    if (!decoder_config(s, memory, c, text_prefixes)) return false;
    s->qkv_bias = s->o_bias = config_bool(c, TEXT("attention_bias"), false);
    s->mlp_bias = config_bool(c, TEXT("mlp_bias"), false);
    s->embed_scale = (float)config_number(c, TEXT("embedding_multiplier"), 1);
    s->media_scaled = true;
    s->attn_scale = (float)config_number(c, TEXT("attention_multiplier"), 1);
    s->residual_scale = (float)config_number(c, TEXT("residual_multiplier"), 1);
    double scaling = config_number(c, TEXT("logits_scaling"), 1);
    if (!c->failed && !(scaling > 0 && s->residual_scale > 0 && s->attn_scale > 0)) return config_fail(c, VLM_FORMAT, "multipliers must be positive");
    s->logit_scale = (float)(1 / scaling);
    if (strcmp(type, "granitemoe")) return !c->failed;
    s->moe = MOE_INSTEAD;
    s->moe_names = MOE_GRANITE;
    s->experts = (int)config_need_int(c, TEXT("num_local_experts"), 1, 1 << 16);
    s->route = (route_spec){.top_k = (int)config_need_int(c, TEXT("num_experts_per_tok"), 1, 1 << 16), .normalize = true};
    s->expert_ffn = s->layer[0].ffn;
    for (int i = 0; i < s->layers; i++) s->layer[i].moe = true, s->layer[i].ffn = 0;
    return !c->failed;
}

static const char *const types[] = {"granite", "granitemoe", NULL};

const vlm_arch vlm_arch_granite = {.name = "granite", .title = "Granite 3, also with experts (text)", .model_types = types, TEXT_ARCH};
