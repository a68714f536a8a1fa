/* gemma.c - Gemma 1, 2 and 3, text only.  https://arxiv.org/abs/2403.08295, 2408.00118, 2503.19786
 *
 *   ids -> embedding * sqrt(hidden) -> [ norm, attention, (norm), norm, down(gelu(gate) * up), (norm) ] x layers -> norm -> head (tied)
 *
 *             norms of a layer   windows                  soft caps            rope
 *   Gemma 1   2                  none                     none                 one
 *   Gemma 2   4                  every second layer       scores and logits    one
 *   Gemma 3   4, and of q and k  all but every sixth      none                 sliding layers keep 10000, full ones 1000000, stretched
 *
 * Bites: norms multiply by 1 + w. Scores are divided by sqrt(query_pre_attn_scalar), not of head_dim. Gemma 1's configs name an exact GELU in
 * hidden_act that was never meant: only hidden_activation counts. Published configs leave out what is the default. */
#include <math.h>
#include <string.h>

#include "models/text.h"

bool gemma3_ropes(decoder_spec *s, arena *memory, config *c)
{
    int head = s->layer[0].head_dim;
    s->n_ropes = 2;
    for (int i = 0; i < s->layers; i++) s->layer[i].rope = s->layer[i].window > 0;
    if (config_has(c, TEXT("rope_parameters")))
        return rope_configure(&s->rope[0], memory, c, text_prefixes, "full_attention", head, 1000000) &&
               rope_configure(&s->rope[1], memory, c, text_prefixes, "sliding_attention", head, 10000);
    double local = config_number(c, TEXT("rope_local_base_freq"), 10000);
    if (!c->failed && !(local > 0)) return config_fail(c, VLM_FORMAT, "rope_local_base_freq %g", local);
    return rope_configure(&s->rope[0], memory, c, text_prefixes, NULL, head, 1000000) &&
           (rope_default(&s->rope[1], memory, local, head) || config_fail(c, VLM_MEMORY, "out of memory"));
}

bool gemma_spec(decoder_spec *s, arena *memory, config *c, const char *type)
{
    bool two = !strcmp(type, "gemma2"), three = !strcmp(type, "gemma3_text");
    s->n_ropes = three ? 2 : 0;                                              /* made below */
    if (!decoder_config(s, memory, c, text_prefixes)) return false;
    s->norms = two || three ? NORM_SANDWICH : NORM_PRE;
    s->norm_offset = 1;
    s->qk_norm = three;
    s->embed_scale = (float)sqrt(s->hidden);
    s->act = config_activation(c, TEXT("hidden_activation"), "gelu_pytorch_tanh");
    s->tied = config_bool(c, "tie_word_embeddings", config_bool(c, TEXT("tie_word_embeddings"), true));
    s->qkv_bias = s->o_bias = config_bool(c, TEXT("attention_bias"), false);
    if (!two && !three) return !c->failed;
    double scale = config_number(c, TEXT("query_pre_attn_scalar"), 256);
    if (!c->failed && !(scale > 0)) return config_fail(c, VLM_FORMAT, "query_pre_attn_scalar %g", scale);
    s->attn_scale = (float)pow(scale, -0.5);
    s->attn_softcap = (float)config_number(c, TEXT("attn_logit_softcapping"), two ? 50 : 0);
    s->final_softcap = (float)config_number(c, TEXT("final_logit_softcapping"), two ? 30 : 0);
    int pattern = two ? 2 : (int)config_int(c, TEXT("sliding_window_pattern") "|" TEXT("_sliding_window_pattern"), 6, 1, 1 << 10);
    return decoder_config_windows(s, c, text_prefixes, 4096, pattern) && (two || gemma3_ropes(s, memory, c));
}

static const char *const types[] = {"gemma", "gemma2", "gemma3_text", NULL};

const vlm_arch vlm_arch_gemma = {.name = "gemma", .title = "Gemma 1, 2, 3 (text)", .model_types = types, TEXT_ARCH};
