/* olmo2.c - OLMo 2 and OLMo 3. Text only.  https://arxiv.org/abs/2501.00656
 *
 *   Llama whose norms stand behind attention and MLP, not before; queries and keys are normed whole, over all heads.
 *   OLMo 3: windows in three of four layers; a stretched rope is for the full ones, the others keep the plain one. */
#include <string.h>

#include "models/text.h"

bool olmo2_spec(decoder_spec *s, arena *memory, config *c, const char *type)
{
    bool three = !strcmp(type, "olmo3");
    if (!decoder_config(s, memory, c, text_prefixes)) return false;
    s->norms = NORM_POST;
    s->qk_norm = s->qk_norm_whole = true;
    s->qkv_bias = s->o_bias = config_bool(c, TEXT("attention_bias"), false);
    if (!three) return !c->failed;
    if (!decoder_config_windows(s, c, text_prefixes, 4096, 4)) return false;
    double theta = config_number(c, TEXT("rope_theta") "|" TEXT("rope_parameters.rope_theta"), 500000);
    s->n_ropes = 2;
    if (!c->failed && !(theta > 0)) return config_fail(c, VLM_FORMAT, "rope_theta %g", theta);
    if (!rope_default(&s->rope[1], memory, theta, s->layer[0].head_dim)) return config_fail(c, VLM_MEMORY, "out of memory");
    for (int i = 0; i < s->layers; i++) s->layer[i].rope = s->layer[i].window > 0;
    return !c->failed;
}

static const char *const types[] = {"olmo2", "olmo3", NULL};

const vlm_arch vlm_arch_olmo2 = {.name = "olmo2", .title = "OLMo 2, OLMo 3 (text)", .model_types = types, TEXT_ARCH};
