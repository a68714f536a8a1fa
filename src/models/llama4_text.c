/* llama4_text.c - the language model of Llama 4 (Scout, Maverick).  https://ai.meta.com/blog/llama-4-multimodal-intelligence/
 *
 *   three of four layers: rope in pairs, then norms of q and k without weights (Scout); a token sees its own chunk of 8192 positions
 *   every fourth:         no rope, sees everything; queries grow: 1 + 0.1 ln(1 + floor((position + 1) / 8192))
 *   MLP: one expert of 16 or 128 and a shared one; in Maverick every other layer has an MLP of its own width instead
 *
 * Bites: an expert's share is the sigmoid of its logit, and multiplies what the expert reads, not what it gives. */
#include "models/text.h"

#include <string.h>

/* A member that is true, or any number but 0. */
static bool truth(config *c, const char *path, bool fallback)
{
    const json_t *v = config_get(c, path);
    return json_is_number(v) ? json_number_value(v) != 0 : config_bool(c, path, fallback);
}

/* Which layers have rope and which see chunks: the lists, else by the interval. */
static bool configure_layers(decoder_spec *s, config *c)
{
    const json_t *rope = config_get(c, TEXT("no_rope_layers")), *types = config_get(c, TEXT("layer_types"));
    int interval = (int)config_int(c, TEXT("no_rope_layer_interval"), 4, 1, 1 << 20), chunk = (int)config_int(c, TEXT("attention_chunk_size"), 8192, 0, INT32_MAX);
    bool listed = json_array_size(rope) > 0;
    if (c->failed) return false;
    for (int i = 0; i < s->layers; i++) {
        decoder_layer_spec *l = &s->layer[i];
        bool turns = listed ? json_integer_value(json_array_get(rope, (size_t)i)) != 0 : (i + 1) % interval != 0;
        const char *type = types ? json_string_value(json_array_get(types, (size_t)i)) : turns ? "chunked_attention" : "full_attention";
        if (!type || (strcmp(type, "chunked_attention") && strcmp(type, "full_attention")))
            return config_fail(c, VLM_UNSUPPORTED, "layer %d is \"%.30s\"; chunked_attention and full_attention are known", i, type ? type : "");
        l->rope = turns ? 0 : -1;
        l->chunked = !strcmp(type, "chunked_attention") && chunk > 0;
        l->window = l->chunked ? chunk : 0;
    }
    return true;
}

static bool configure_experts(decoder_spec *s, config *c)
{
    int step = (int)config_int(c, TEXT("interleave_moe_layer_step"), 1, 1, 1 << 20), dense = (int)config_int(c, TEXT("intermediate_size_mlp"), 16384, 1, 1 << 24);
    int64_t list[DECODER_MAX_LAYERS];
    bool listed = json_is_array(config_get(c, TEXT("moe_layers")));
    int n = listed ? config_ints(c, TEXT("moe_layers"), list, DECODER_MAX_LAYERS) : 0;
    s->moe = MOE_INSTEAD;
    s->experts = (int)config_int(c, TEXT("num_local_experts"), 16, 1, 1 << 16);
    s->route.top_k = (int)config_int(c, TEXT("num_experts_per_tok"), 1, 1, 1 << 16);
    s->route.sigmoid = true;
    s->expert_ffn = s->shared_ffn = s->layer[0].ffn;
    s->shared_plain = s->experts_transposed = s->moe_scales_inputs = true;
    if (c->failed) return false;
    for (int i = 0; i < s->layers; i++) {
        bool sparse = !listed && (i + 1) % step == 0;
        for (int k = 0; k < n; k++) sparse |= list[k] == i;
        s->layer[i].moe = sparse;
        s->layer[i].ffn = sparse ? 0 : dense;
    }
    return true;
}

bool llama4_spec(decoder_spec *s, arena *memory, config *c, const char *model_type)
{
    static const char *const names[] = {"mlp.switch_mlp", "feed_forward.experts", "mlp.gate", "feed_forward.router", "mlp", "feed_forward", "shared_experts", "shared_expert", NULL};
    (void)model_type;
    if (!decoder_config(s, memory, c, text_prefixes) || !configure_layers(s, c) || !configure_experts(s, c)) return false;
    s->rope[0].interleaved = true;
    s->qk_norm_plain = config_bool(c, TEXT("use_qk_norm"), true);
    s->qkv_bias = s->o_bias = config_bool(c, TEXT("attention_bias"), false);
    if (truth(c, TEXT("attn_temperature_tuning"), true)) {
        s->query_beta = (float)config_number(c, TEXT("attn_scale"), 0.1);
        s->query_trained = (int)config_int(c, TEXT("floor_scale"), 8192, 1, INT32_MAX);
        s->query_first = 1;
        s->query_nope = true;
    }
    s->spellings = names;
    return !c->failed;
}

static const char *const types[] = {"llama4_text", NULL};

const vlm_arch vlm_arch_llama4_text = {
    .name = "llama4_text",
    .title = "Llama 4 (text)",
    .model_types = types,
    TEXT_ARCH,
};
