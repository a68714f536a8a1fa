/* phi3.c - Phi-3, Phi-3.5-mini, Phi-4-mini, Phi-4. Text only.  https://arxiv.org/abs/2404.14219
 *
 *   Llama with q, k, v in one matrix and gate, up in one; windows in Phi-3-mini-4k.
 *
 * Bites: "longrope" has two lists of factors, for texts up to the trained length (original_max_position_embeddings) and beyond. A text that grows past
 * it changes over: everything is computed anew (engine/scheduler.c). */
#include "models/text.h"

bool phi3_spec(decoder_spec *s, arena *memory, config *c, const char *type)
{
    if (!decoder_config(s, memory, c, text_prefixes)) return false;
    s->fused_qkv = s->fused_gate_up = true;
    int window = (int)config_int(c, TEXT("sliding_window"), 0, 0, INT32_MAX);
    if (window >= (int)config_int(c, TEXT("max_position_embeddings"), INT32_MAX, 1, INT32_MAX)) window = 0;             /* sees everything */
    for (int i = 0; i < s->layers; i++) s->layer[i].window = window;
    return !c->failed;
}

static const char *const types[] = {"phi3", NULL};

const vlm_arch vlm_arch_phi3 = {.name = "phi3", .title = "Phi-3, Phi-3.5-mini, Phi-4-mini, Phi-4 (text)", .model_types = types, TEXT_ARCH};
