/* llama.c - Llama 1 to 3.x and what has its shape (Mistral). Text only.  https://arxiv.org/abs/2407.21783
 *
 *   ids -> embedding -> [ rms norm, attention with rope, rms norm, down(silu(gate) * up) ] x layers -> rms norm -> head
 *
 * Bites: Llama 3 stretches its low rope frequencies (rope_scaling "llama3"); head_dim may be given and need not be hidden / heads;
 * Mistral's older releases see a window of 4096 in every layer. */
#include <string.h>

#include "models/common.h"

static bool configure(vlm_model *m, config *c)
{
    decoder *d = m->family = arena_alloc(&m->memory, sizeof *d);
    if (!d) return config_fail(c, VLM_MEMORY, "out of memory");
    decoder_spec *s = &d->spec;
    if (!decoder_config(s, &m->memory, c, text_prefixes)) return false;
    s->qkv_bias = s->o_bias = config_bool(c, "attention_bias", false);
    s->mlp_bias = config_bool(c, "mlp_bias", false);
    s->prefix[0] = "model.";
    s->prefix[1] = "language_model.model.";
    s->head_prefix[0] = "";
    s->head_prefix[1] = "language_model.";
    bool mistral = !strcmp(config_string(c, "model_type", "llama"), "mistral");
    int window = mistral && !config_has(c, "layer_types") ? (int)config_int(c, "sliding_window", 0, 0, INT32_MAX) : 0;
    for (int i = 0; i < s->layers && window; i++) s->layer[i].window = window;
    if (!decoder_plan(d, &m->memory, c)) return false;
    model_use_decoder(m, d);
    return !c->failed;
}

static bool bind(vlm_model *m, binder *b) { return decoder_bind(m->family, b); }

static tensor forward(run *r, const vlm_model *m, const batch *b) { return decoder_forward(r, m->family, b); }

static const char *const types[] = {"llama", "mistral", NULL};

const vlm_arch vlm_arch_llama = {
    .name = "llama",
    .title = "Llama, Mistral (text)",
    .model_types = types,
    .task = TASK_GENERATE,
    .configure = configure,
    .bind = bind,
    .forward = forward,
};
