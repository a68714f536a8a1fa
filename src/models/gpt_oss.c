/* gpt_oss.c - gpt-oss 20B, 120B. Text only.  https://arxiv.org/abs/2508.10925
 *
 *   ids -> embedding -> [ rms norm, attention with sinks, rms norm, experts ] x layers -> rms norm -> head
 *   expert: down((1 + clamp(up)) * gate * sigmoid(1.702 gate)), gate at most 7, up within -7 .. 7; biases on every product
 *
 * Bites: every second layer sees a window of 128; each head has a sink, a logit that nothing is read from. The chosen experts' softmax is over the
 * chosen ones. Gates and ups take turns in the file, and experts lie transposed. YaRN without rounding of its bounds (truncate false).
 * As published, experts are in MXFP4; here those in bf16 are read. */
#include "models/text.h"

bool gpt_oss_spec(decoder_spec *s, arena *memory, config *c, const char *type)
{
    if (!decoder_config(s, memory, c, text_prefixes) || !decoder_config_windows(s, c, text_prefixes, 128, 2)) return false;
    if (config_has(c, "quantization_config")) return config_fail(c, VLM_UNSUPPORTED, "experts quantized as \"%.40s\" are not read yet",
                                                                 config_string(c, "quantization_config.quant_method", "?"));
    s->qkv_bias = s->o_bias = config_bool(c, TEXT("attention_bias"), true);
    s->sinks = true;
    s->moe = MOE_INSTEAD;
    s->moe_names = MOE_GPT_OSS;
    s->act = ACT_QUICK_GELU;
    s->moe_limit = (float)config_number(c, TEXT("swiglu_limit"), 7);
    s->experts = (int)config_need_int(c, TEXT("num_local_experts"), 1, 1 << 16);
    s->route.top_k = (int)config_need_int(c, TEXT("num_experts_per_tok"), 1, 1 << 16);
    s->route.normalize = true;
    s->expert_ffn = s->layer[0].ffn;
    for (int i = 0; i < s->layers; i++) s->layer[i].moe = true, s->layer[i].ffn = 0;
    if (!c->failed && !(s->moe_limit > 0)) return config_fail(c, VLM_FORMAT, "swiglu_limit %g", (double)s->moe_limit);
    return !c->failed;
}

static const char *const types[] = {"gpt_oss", NULL};

const vlm_arch vlm_arch_gpt_oss = {.name = "gpt_oss", .title = "gpt-oss (bf16; text)", .model_types = types, TEXT_ARCH};
