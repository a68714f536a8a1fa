/* glm4_moe.c - GLM-4.5, 4.6, 4.7 (and Air): text only. Also the decoder of GLM-4.5V (glm4v.c).  https://arxiv.org/abs/2508.06471
 *
 *   Llama with rope in halves on half of each head, norms of the heads of q and k where use_qk_norm says so, biases on q, k, v but not on o; from layer
 *   first_k_dense_replace on experts as in DeepSeek-V3 beside one that every token takes.
 *
 * Bites: though related, GLM-4 turns pairs of neighbours. Layers that predict further tokens lie behind the last one in the files; nothing reads them. */
#include <string.h>

#include "models/text.h"

/* Half of a head turns unless the config says otherwise. */
static bool fill_in(config *c)
{
    static const char there[] = TEXT("partial_rotary_factor") "|" TEXT("rope_parameters.partial_rotary_factor") "|" TEXT("rope_scaling.partial_rotary_factor");
    json_t *text = json_object_get(c->root, "text_config");
    if (!json_is_object(text)) text = c->root;
    return config_has(c, there) || json_object_set_new(text, "partial_rotary_factor", json_real(0.5)) == 0 || config_fail(c, VLM_MEMORY, "out of memory");
}

bool glm4_moe_spec(decoder_spec *s, arena *memory, config *c, const char *type)
{
    bool vision = !strcmp(type, "glm4v_moe_text");
    if (!fill_in(c) || !decoder_config(s, memory, c, text_prefixes) || !decoder_config_deepseek(s, c, text_prefixes, true)) return false;
    s->route.scale = (float)config_number(c, TEXT("routed_scaling_factor"), 1);
    s->eps = (float)config_number(c, TEXT("rms_norm_eps"), 1e-5);
    s->qkv_bias = config_bool(c, TEXT("attention_bias"), vision);
    s->qk_norm = !vision && config_bool(c, TEXT("use_qk_norm"), false);
    return !c->failed;
}

static const char *const types[] = {"glm4_moe", NULL};

const vlm_arch vlm_arch_glm4_moe = {.name = "glm4_moe", .title = "GLM-4.5, 4.6, 4.7 (text)", .model_types = types, TEXT_ARCH};
