/* deepseek.c - DeepSeek-V2, V3, R1, Moonlight, Kimi K2. Text only.  https://arxiv.org/abs/2405.04434, https://arxiv.org/abs/2412.19437
 *
 *   Llama with latent attention (blocks/mla.h) and, from layer first_k_dense_replace on, many small experts beside one that every token takes.
 *   V2 routes by a softmax, among the best groups of experts or all; V3 by sigmoids with a bias that balances the load and counts while choosing only.
 *
 * Bites: rope turns pairs of neighbours. With YaRN scores grow by the square of what mscale_all_dim gives. The norms of latents have eps 1e-6, whatever
 * rms_norm_eps is. Small members of the family (use_mla false, or no kv_lora_rank) have plain attention, with rope in halves. What predicts further tokens
 * (num_nextn_predict_layers) lies in the files as more layers and is not read. */
#include <string.h>

#include "models/text.h"

bool deepseek_spec(decoder_spec *s, arena *memory, config *c, const char *type)
{
    mla_spec *a = &s->mla;
    if (!mla_config(a, c, text_prefixes)) return false;
    if (a->kv_rank) {
        s->n_ropes = 1;
        if (!rope_configure(&s->rope[0], memory, c, text_prefixes, NULL, a->rope, 10000)) return false;
        s->rope[0].interleaved = config_bool(c, TEXT("rope_interleave"), true);
        mla_set_scale(a, &s->rope[0]);
    }
    if (!decoder_config(s, memory, c, text_prefixes)) return false;
    for (int i = 0; i < s->layers && a->kv_rank; i++) s->layer[i].kv_heads = 1, s->layer[i].head_dim = mla_head_dim(a);
    s->qkv_bias = s->o_bias = config_bool(c, TEXT("attention_bias"), false);
    s->mlp_bias = config_bool(c, TEXT("mlp_bias"), false);
    return decoder_config_deepseek(s, c, text_prefixes, strcmp(type, "deepseek_v2") != 0);
}

static const char *const types[] = {"deepseek_v2", "deepseek_v3", "kimi_k2", NULL};

const vlm_arch vlm_arch_deepseek = {.name = "deepseek", .title = "DeepSeek-V2, V3, R1, Moonlight, Kimi K2 (text)", .model_types = types, TEXT_ARCH};
