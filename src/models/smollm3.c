/* smollm3.c - SmolLM3. Text only.  https://huggingface.co/blog/smollm3
 *
 *   Llama, but every fourth layer knows no positions: no rope there (no_rope_layers: 1 where there is rope, as the config means it). */
#include "models/text.h"

bool smollm3_spec(decoder_spec *s, arena *memory, config *c, const char *type)
{
    if (!decoder_config(s, memory, c, text_prefixes)) return false;
    s->qkv_bias = s->o_bias = config_bool(c, TEXT("attention_bias"), false);
    s->mlp_bias = config_bool(c, TEXT("mlp_bias"), false);
    int64_t rope[DECODER_MAX_LAYERS];
    int n = config_ints(c, TEXT("no_rope_layers"), rope, DECODER_MAX_LAYERS);
    int interval = (int)config_int(c, TEXT("no_rope_layer_interval"), 4, 1, 1 << 10);
    if (!c->failed && n && n != s->layers) return config_fail(c, VLM_FORMAT, "no_rope_layers has %d entries for %d layers", n, s->layers);
    for (int i = 0; i < s->layers; i++)
        if (n ? !rope[i] : (i + 1) % interval == 0) s->layer[i].rope = -1;
    return !c->failed;
}

static const char *const types[] = {"smollm3", NULL};

const vlm_arch vlm_arch_smollm3 = {.name = "smollm3", .title = "SmolLM3 (text)", .model_types = types, TEXT_ARCH};
