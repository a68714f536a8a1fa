/* llama.c - Llama 1 to 3.x and what has its shape: Mistral, Ministral, Mixtral. Text only.  https://arxiv.org/abs/2407.21783
 *
 *   ids -> embedding -> [ rms norm, attention with rope, rms norm, down(silu(gate) * up) or experts ] x layers -> rms norm -> head
 *
 * Bites: Llama 3 stretches its low rope frequencies (rope_scaling "llama3"); head_dim may be given and need not be hidden / heads; Mistral's
 * sliding_window is for every layer unless layer_types says where; Ministral 3 makes queries grow with the logarithm of the position. */
#include <string.h>

#include "models/text.h"

bool llama_spec(decoder_spec *s, arena *memory, config *c, const char *type)
{
    bool mistral = strcmp(type, "llama") && strcmp(type, "mllama_text_model");
    if (!decoder_config(s, memory, c, text_prefixes)) return false;
    s->qkv_bias = s->o_bias = config_bool(c, TEXT("attention_bias"), false);
    s->mlp_bias = config_bool(c, TEXT("mlp_bias"), false);
    int window = mistral && !config_has(c, TEXT("layer_types")) ? (int)config_int(c, TEXT("sliding_window"), 0, 0, INT32_MAX) : 0;
    for (int i = 0; i < s->layers && window; i++) s->layer[i].window = window;
    if (!strcmp(type, "ministral3")) {
        s->query_beta = (float)config_number(c, TEXT("rope_parameters.llama_4_scaling_beta"), 0);
        s->query_trained = (int)config_int(c, TEXT("rope_parameters.original_max_position_embeddings"), 16384, 1, INT32_MAX);
    }
    if (!strcmp(type, "mixtral")) {
        s->moe = MOE_INSTEAD;
        s->moe_names = MOE_MIXTRAL;
        s->experts = (int)config_need_int(c, TEXT("num_local_experts"), 1, 1 << 16);
        s->route.top_k = (int)config_need_int(c, TEXT("num_experts_per_tok"), 1, 1 << 16);
        s->route.normalize = true;
        s->expert_ffn = s->layer[0].ffn;
        for (int i = 0; i < s->layers; i++) s->layer[i].moe = true, s->layer[i].ffn = 0;
    }
    return !c->failed;
}

static const char *const types[] = {"llama", "mistral", "ministral", "ministral3", "mixtral", NULL};

const vlm_arch vlm_arch_llama = {.name = "llama", .title = "Llama, Mistral, Ministral, Mixtral (text)", .model_types = types, TEXT_ARCH};
