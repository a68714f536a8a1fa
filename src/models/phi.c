/* phi.c - Phi-1, Phi-1.5, Phi-2. Text only.  https://arxiv.org/abs/2309.05463
 *
 *   ids -> embedding -> [ x += attention(h) + fc2(gelu(fc1 h)), h = layer norm(x) ] x layers -> layer norm -> head with a bias
 *
 * Bites: every product has a bias, every norm too; only a part of each head turns (partial_rotary_factor, a half unless the config says otherwise). */
#include "models/text.h"

bool phi_spec(decoder_spec *s, arena *memory, config *c, const char *type)
{
    static const char *const spellings[] = {"o_proj", "dense", "up_proj", "fc1", "down_proj", "fc2", "norm", "final_layernorm", NULL};
    if (!config_has(c, TEXT("partial_rotary_factor") "|" TEXT("rope_parameters.partial_rotary_factor") "|" TEXT("rope_scaling.partial_rotary_factor")))
        json_object_set_new(c->root, "partial_rotary_factor", json_real(0.5));
    if (!decoder_config(s, memory, c, text_prefixes)) return false;
    s->norms = NORM_PARALLEL;
    s->layernorm = s->norm_bias = s->plain_mlp = s->head_bias = true;
    s->qkv_bias = s->o_bias = s->mlp_bias = true;
    s->eps = (float)config_number(c, TEXT("layer_norm_eps"), 1e-5);
    s->act = config_activation(c, TEXT("hidden_act"), "gelu_new");
    s->spellings = spellings;
    if (config_bool(c, TEXT("qk_layernorm"), false)) return config_fail(c, VLM_UNSUPPORTED, "qk_layernorm: norms of queries and keys are not supported here");
    return !c->failed;
}

static const char *const types[] = {"phi", NULL};

const vlm_arch vlm_arch_phi = {.name = "phi", .title = "Phi-1, Phi-1.5, Phi-2 (text)", .model_types = types, TEXT_ARCH};
