/* phi3.c - Phi-3, Phi-3.5-mini, Phi-4-mini, Phi-4. Text only.  https://arxiv.org/abs/2404.14219
 *
 *   Llama with q, k, v in one matrix and gate, up in one; windows in Phi-3-mini-4k.
 *
 * Bites: "longrope" has two lists of factors, for texts up to the trained length and beyond. The reference changes over in mid-text and computes
 * everything anew; here the short list holds and the context ends at the trained length (original_max_position_embeddings). */
#include "models/text.h"

bool phi3_spec(decoder_spec *s, arena *memory, config *c, const char *type)
{
    if (!decoder_config(s, memory, c, text_prefixes)) return false;
    s->fused_qkv = s->fused_gate_up = true;
    int window = (int)config_int(c, TEXT("sliding_window"), 0, 0, INT32_MAX);
    for (int i = 0; i < s->layers; i++) s->layer[i].window = window;
    return !c->failed;
}

/* The context is what the short factors were made for. */
static bool configure(vlm_model *m, config *c)
{
    if (!text_configure(m, c)) return false;
    const char *type = config_string(c, "rope_scaling.rope_type|rope_scaling.type|rope_parameters.rope_type", "default");
    if (type[0] == 'l' || type[0] == 's')                                    /* longrope, su */
        m->context = (int)config_int(c, "rope_parameters.original_max_position_embeddings|original_max_position_embeddings", m->context, 1, INT32_MAX);
    return !c->failed;
}

static const char *const types[] = {"phi3", NULL};

const vlm_arch vlm_arch_phi3 = {
    .name = "phi3", .title = "Phi-3, Phi-3.5-mini, Phi-4-mini, Phi-4 (text)", .model_types = types,
    .task = TASK_GENERATE, .configure = configure, .bind = text_bind, .forward = text_forward,
};
