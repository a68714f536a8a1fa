/* ernie4_5.c - ERNIE 4.5, dense and with experts. Text only.  https://ernie.baidu.com/blog/publication/ERNIE_Technical_Report.pdf
 *
 *   Llama with rope in pairs of neighbours; use_bias puts a bias on every product. With experts: layers from moe_layer_start_index to _end_index, every
 *   moe_layer_interval-th, route by a softmax; a bias counts while choosing only; shared experts stand beside them as one MLP.
 *
 * Bites: the end index -1 is the last layer. Shares are divided by their sum, or by moe_norm_min where that is more. */
#include <string.h>

#include "models/text.h"

/* Layers with experts: mlp_layer_types, else a range. ERNIE 4.5 VL gives two of some numbers; those of text come first. */
static bool place_experts(decoder_spec *s, config *c)
{
    int64_t start[2] = {1}, end[2] = {-1};
    const json_t *types = config_get(c, TEXT("mlp_layer_types"));
    config_ints(c, TEXT("moe_layer_start_index"), start, 2);
    config_ints(c, TEXT("moe_layer_end_index"), end, 2);
    int every = (int)config_int(c, TEXT("moe_layer_interval"), 1, 1, INT32_MAX);
    if (end[0] < 0) end[0] = s->layers - 1;
    for (int i = 0; i < s->layers && !c->failed; i++) {
        const char *type = types ? json_string_value(json_array_get(types, (size_t)i)) : NULL;
        if (types && !type) return config_fail(c, VLM_FORMAT, "mlp_layer_types has no entry for layer %d of %d", i, s->layers);
        s->layer[i].moe = types ? !strcmp(type, "sparse") : i >= start[0] && i <= end[0] && (i + 1) % every == 0;
        if (s->layer[i].moe) s->layer[i].ffn = 0;
    }
    return !c->failed;
}

bool ernie4_5_experts(decoder_spec *s, config *c, int kinds)
{
    int64_t experts[2] = {64, 64}, ffn[2] = {1536, 512};
    int n = config_ints(c, TEXT("moe_num_experts") "|" TEXT("num_experts"), experts, 2), m = config_ints(c, TEXT("moe_intermediate_size"), ffn, 2);
    int shared = (int)config_int(c, TEXT("moe_num_shared_experts"), 2, 0, 64);
    s->route = (route_spec){.top_k = (int)config_int(c, TEXT("moe_k") "|" TEXT("num_experts_per_tok"), 6, 1, 1 << 16), .normalize = true};
    s->route.epsilon = (float)config_number(c, TEXT("moe_norm_min"), 1e-12);
    if (c->failed) return false;
    if (experts[0] < 1 || experts[0] > 1 << 16 || ffn[0] < 1 || ffn[0] > 1 << 24 || (kinds == 2 && (ffn[1] < 1 || ffn[1] > 1 << 24)))
        return config_fail(c, VLM_FORMAT, "moe_num_experts %lld, moe_intermediate_size %lld: no mixture of experts can be made of this", (long long)experts[0], (long long)ffn[0]);
    if (kinds == 2 && ((n == 2 && experts[1] != experts[0]) || m == 1))
        return config_fail(c, VLM_UNSUPPORTED, "%lld experts for text, %lld for media: as many of both, with two widths, are known", (long long)experts[0], (long long)experts[n == 2]);
    s->moe = MOE_INSTEAD;
    s->experts = (int)experts[0];
    s->expert_ffn = (int)ffn[0];
    s->media_ffn = kinds == 2 ? (int)ffn[1] : 0;
    s->shared_ffn = shared * s->expert_ffn;
    s->shared_plain = true;
    s->correction_bias = "mlp.moe_statics.e_score_correction_bias";
    return place_experts(s, c);
}

bool ernie4_5_spec(decoder_spec *s, arena *memory, config *c, const char *type)
{
    if (!decoder_config(s, memory, c, text_prefixes)) return false;
    s->rope[0].interleaved = true;
    s->qkv_bias = s->o_bias = s->mlp_bias = config_bool(c, TEXT("use_bias"), false);
    if (strcmp(type, "ernie4_5_moe")) return !c->failed;
    if (s->mlp_bias) return config_fail(c, VLM_UNSUPPORTED, "use_bias: experts with biases are not known");
    return ernie4_5_experts(s, c, 1);
}

static const char *const types[] = {"ernie4_5", "ernie4_5_moe", NULL};

const vlm_arch vlm_arch_ernie4_5 = {.name = "ernie4_5", .title = "ERNIE 4.5, dense and with experts (text)", .model_types = types, TEXT_ARCH};
