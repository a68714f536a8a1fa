/* qwen3.c - Qwen2, Qwen2.5 and Qwen3, dense and with experts. Text only.  https://arxiv.org/abs/2505.09388
 *
 *   ids -> embedding -> [ rms norm, attention with rope, rms norm, down(silu(gate) * up) or experts ] x layers -> rms norm -> head
 *
 * Bites: Qwen2 has biases on q, k, v and none on o; Qwen3 has none, but norms each head of q and k. Qwen3's head_dim is given
 * and heads * head_dim need not be hidden. Windows count only with use_sliding_window. */
#include <string.h>

#include "models/common.h"

static bool configure(vlm_model *m, config *c)
{
    decoder *d = m->family = arena_alloc(&m->memory, sizeof *d);
    if (!d) return config_fail(c, VLM_MEMORY, "out of memory");
    decoder_spec *s = &d->spec;
    const char *type = config_string(c, "model_type", "qwen3");
    bool qwen3 = strcmp(type, "qwen2") != 0;
    if (!decoder_config(s, &m->memory, c, text_prefixes)) return false;
    s->qk_norm = qwen3;
    s->qkv_bias = config_bool(c, "attention_bias", !qwen3);
    s->o_bias = qwen3 && s->qkv_bias;
    if (!strcmp(type, "qwen3_moe")) decoder_config_experts(s, c, text_prefixes);
    s->prefix[0] = "model.";
    s->prefix[1] = "language_model.model.";
    s->head_prefix[0] = "";
    s->head_prefix[1] = "language_model.";
    if (!decoder_plan(d, &m->memory, c)) return false;
    model_use_decoder(m, d);
    return !c->failed;
}

static bool bind(vlm_model *m, binder *b) { return decoder_bind(m->family, b); }

static tensor forward(run *r, const vlm_model *m, const batch *b) { return decoder_forward(r, m->family, b); }

static const char *const types[] = {"qwen3", "qwen2", "qwen3_moe", NULL};

const vlm_arch vlm_arch_qwen3 = {
    .name = "qwen3",
    .title = "Qwen2, Qwen2.5, Qwen3, also with experts (text)",
    .model_types = types,
    .task = TASK_GENERATE,
    .configure = configure,
    .bind = bind,
    .forward = forward,
};
