/* lfm2.c - LFM2, dense and with experts. Text only.  https://arxiv.org/abs/2511.23404
 *
 *   decoder layer: x += mix(norm x), x += mlp(norm x);  mix is a short gated convolution (blocks/short_conv.h), in some layers attention with norms
 *   of the heads of q and k
 *
 * Bites: the MLP is narrower than intermediate_size (block_ff_dim) says: two thirds, rounded up to block_multiple_of. Names are its own: w1, w3, w2,
 * operator_norm, ffn_norm, embedding_norm behind the last layer. With experts (lfm2_moe) intermediate_size is meant; they route by sigmoids. */
#include <string.h>

#include "models/text.h"

/* block_ff_dim is how intermediate_size was called first; it counts when both are there. */
static bool rename_width(config *c)
{
    json_t *text = json_object_get(c->root, "text_config"), *width;
    if (!json_is_object(text)) text = c->root;
    return !(width = json_object_get(text, "block_ff_dim")) || !json_object_set(text, "intermediate_size", width) || config_fail(c, VLM_MEMORY, "out of memory");
}

static int mlp_width(config *c, int width)
{
    if (!config_bool(c, TEXT("block_auto_adjust_ff_dim"), true)) return width;
    double factor = config_number(c, TEXT("block_ffn_dim_multiplier"), 1);
    int64_t multiple = config_int(c, TEXT("block_multiple_of"), 256, 1, 1 << 20), n;
    if (!c->failed && !(factor > 0 && factor <= 64)) config_fail(c, VLM_FORMAT, "block_ffn_dim_multiplier %g", factor);
    if (c->failed) return width;
    n = (int64_t)(factor * (double)(int64_t)(2.0 * width / 3));
    n = (n + multiple - 1) / multiple * multiple;
    return n > 0 && n <= 1 << 24 ? (int)n : (config_fail(c, VLM_FORMAT, "intermediate_size %d becomes %lld", width, (long long)n), width);
}

/* layer_types, else full_attn_idxs; else all layers are attention. */
static bool configure_layers(decoder_spec *s, config *c)
{
    const json_t *types = config_get(c, TEXT("layer_types"));
    int64_t full[DECODER_MAX_LAYERS];
    int n = types ? 0 : config_ints(c, TEXT("full_attn_idxs"), full, DECODER_MAX_LAYERS);
    bool any = !types && config_has(c, TEXT("full_attn_idxs"));
    for (int i = 0; i < s->layers; i++) {
        const char *type = types ? json_string_value(json_array_get(types, (size_t)i)) : any ? "conv" : "full_attention";
        for (int k = 0; k < n; k++)
            if (full[k] == i) type = "full_attention";
        if (!type) return config_fail(c, VLM_FORMAT, "layer_types has no entry for layer %d of %d", i, s->layers);
        s->layer[i].recurrent = !strcmp(type, "conv");
        if (!s->layer[i].recurrent && strcmp(type, "full_attention"))
            return config_fail(c, VLM_UNSUPPORTED, "layer %d is \"%s\"; conv and full_attention are known", i, type);
    }
    return !c->failed;
}

static bool configure_experts(decoder_spec *s, config *c)
{
    int dense = (int)config_int(c, TEXT("num_dense_layers"), 2, 0, INT32_MAX);
    s->moe = MOE_INSTEAD;
    s->moe_names = MOE_LFM2;
    s->experts = (int)config_int(c, TEXT("num_experts"), 32, 1, 1 << 16);
    s->expert_ffn = (int)config_int(c, TEXT("moe_intermediate_size"), 1792, 1, 1 << 24);
    s->route = (route_spec){.top_k = (int)config_int(c, TEXT("num_experts_per_tok"), 4, 1, 1 << 16), .sigmoid = true, .epsilon = 1e-6f};
    s->route.normalize = config_bool(c, TEXT("norm_topk_prob"), true);
    s->route.scale = (float)config_number(c, TEXT("routed_scaling_factor"), 1);
    s->correction_bias = config_bool(c, TEXT("use_expert_bias"), true) ? "feed_forward.expert_bias" : NULL;
    for (int i = dense; i < s->layers; i++) s->layer[i].moe = true, s->layer[i].ffn = 0;
    return !c->failed;
}

bool lfm2_spec(decoder_spec *s, arena *memory, config *c, const char *type)
{
    if (!rename_width(c) || !decoder_config(s, memory, c, text_prefixes) || !configure_layers(s, c)) return false;
    bool moe = !strcmp(type, "lfm2_moe");
    int width = moe ? s->layer[0].ffn : mlp_width(c, s->layer[0].ffn);
    for (int i = 0; i < s->layers; i++) s->layer[i].ffn = width;
    if (moe && !configure_experts(s, c)) return false;
    s->conv.kernel = (int)config_int(c, TEXT("conv_L_cache"), 3, 2, 16);
    s->conv.bias = config_bool(c, TEXT("conv_bias"), false);
    s->eps = (float)config_number(c, TEXT("norm_eps"), 1e-5);
    s->tied = config_bool(c, "tie_word_embeddings|tie_embedding|text_config.tie_word_embeddings|text_config.tie_embedding", true);
    s->qk_norm = true;
    s->names = (norm_names){"operator_norm", NULL, "ffn_norm", NULL};
    s->lfm2_names = true;
    if (c->failed || config_has(c, TEXT("rope_theta")) || config_has(c, TEXT("rope_parameters"))) return !c->failed;
    return rope_default(&s->rope[0], memory, 1e6, s->layer[0].head_dim) || config_fail(c, VLM_MEMORY, "out of memory");
}

static const char *const types[] = {"lfm2", "lfm2_moe", NULL};

const vlm_arch vlm_arch_lfm2 = {.name = "lfm2", .title = "LFM2, also with experts (text)", .model_types = types, TEXT_ARCH};
