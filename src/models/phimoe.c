/* phimoe.c - Phi-3.5-MoE, Phi-mini-MoE. Text only.  https://arxiv.org/abs/2404.14219
 *
 *   Llama with layer norms, biases on q, k, v, o and the head, and two of sixteen experts in place of every MLP, chosen by a sparse mixer: the share of each
 *   is a softmax among those near the best that is left (route_spec.jitter).
 *
 * Bites: "longrope" gives its factors on cosines itself (short_mscale, long_mscale); otherwise as in phi3.c. */
#include "models/text.h"

bool phimoe_spec(decoder_spec *s, arena *memory, config *c, const char *type)
{
    (void)type;
    if (!decoder_config(s, memory, c, text_prefixes)) return false;
    s->layernorm = s->norm_bias = true;
    s->eps = (float)config_number(c, TEXT("rms_norm_eps"), 1e-5);
    s->qkv_bias = s->o_bias = config_bool(c, TEXT("attention_bias"), false);
    s->head_bias = config_bool(c, TEXT("lm_head_bias"), false);
    s->moe = MOE_INSTEAD;
    s->moe_names = MOE_MIXTRAL;
    s->experts = (int)config_int(c, TEXT("num_local_experts"), 16, 1, 1 << 16);
    s->route = (route_spec){.top_k = (int)config_int(c, TEXT("num_experts_per_tok"), 2, 1, 1 << 16)};
    s->route.jitter = (float)config_number(c, TEXT("router_jitter_noise"), 0.01);
    s->expert_ffn = s->layer[0].ffn;
    int window = (int)config_int(c, TEXT("sliding_window"), 0, 0, INT32_MAX);
    if (window >= (int)config_int(c, TEXT("max_position_embeddings"), INT32_MAX, 1, INT32_MAX)) window = 0;             /* sees everything */
    for (int i = 0; i < s->layers; i++) s->layer[i].moe = true, s->layer[i].ffn = 0, s->layer[i].window = window;
    if (!c->failed && !(s->route.jitter > 0)) return config_fail(c, VLM_UNSUPPORTED, "router_jitter_noise %g; a positive one was expected", (double)s->route.jitter);
    return !c->failed;
}

static const char *const types[] = {"phimoe", NULL};

const vlm_arch vlm_arch_phimoe = {.name = "phimoe", .title = "Phi-3.5-MoE (text)", .model_types = types, TEXT_ARCH};
