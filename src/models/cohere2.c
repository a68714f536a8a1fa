/* cohere2.c - Command R7B, Aya Expanse's successor; the language model of Aya Vision. Text only.  https://arxiv.org/abs/2504.00698
 *
 *   ids -> embedding -> [ x += attention(norm x) + mlp(norm x) ] x layers -> norm -> head (tied) * logit_scale
 *
 * Bites: norms are layer norms without bias. Three of four layers see a window and have rope in pairs of neighbours; full layers know no positions. */
#include "models/text.h"

bool cohere2_spec(decoder_spec *s, arena *memory, config *c, const char *type)
{
    if (!decoder_config(s, memory, c, text_prefixes)) return false;
    s->norms = NORM_PARALLEL;
    s->layernorm = true;
    s->eps = (float)config_number(c, TEXT("layer_norm_eps"), 1e-5);
    s->rope[0].interleaved = true;
    s->qkv_bias = s->o_bias = config_bool(c, TEXT("attention_bias"), false);
    s->logit_scale = (float)config_number(c, TEXT("logit_scale"), 0.0625);
    s->tied = config_bool(c, "tie_word_embeddings", config_bool(c, TEXT("tie_word_embeddings"), true));
    int pattern = (int)config_int(c, TEXT("sliding_window_pattern") "|" TEXT("_sliding_window_pattern"), 4, 1, 1 << 10);
    if (!decoder_config_windows(s, c, text_prefixes, 4096, pattern)) return false;
    for (int i = 0; i < s->layers; i++)
        if (!s->layer[i].window) s->layer[i].rope = -1;
    return !c->failed;
}

static const char *const types[] = {"cohere2", NULL};

const vlm_arch vlm_arch_cohere2 = {.name = "cohere2", .title = "Command R7B, Command A (text)", .model_types = types, TEXT_ARCH};
