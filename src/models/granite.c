/* granite.c - Granite 3. Text only.  https://arxiv.org/abs/2408.13359 (muP)
 *
 *   Llama with four multipliers: embeddings * embedding_multiplier, scores * attention_multiplier (instead of 1 / sqrt(head_dim)), what attention
 *   and MLP add * residual_multiplier, logits / logits_scaling. Below a tower, media rows are multiplied like embeddings. */
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
    return !c->failed;
}

static const char *const types[] = {"granite", NULL};

const vlm_arch vlm_arch_granite = {.name = "granite", .title = "Granite 3 (text)", .model_types = types, TEXT_ARCH};
