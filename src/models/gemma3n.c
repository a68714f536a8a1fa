/* gemma3n.c - Gemma 3n (E2B, E4B), the language model.  https://ai.google.dev/gemma/docs/gemma-3n
 *
 *   ids -> embedding * sqrt(hidden) -> 4 streams -> [ guess, attention + LAuReL, MLP, correct, per-layer input ] x layers -> 1 stream -> norm -> head (tied)
 *
 * What bites:
 * - Norms multiply by w (no 1 +), the attention scale is 1, values are normalised without a weight; all but every fifth layer see a window.
 * - The first layers' MLPs are sparse: of the gates only what exceeds a normal distribution's quantile counts, and by how much it does.
 * - The last num_kv_shared_layers layers read the keys and values of the last layer of their type before them. */
#include <math.h>

#include "models/text.h"

/* activation_sparsity_pattern: a share for each layer, or for all; by default 0.95 in the first ten of more than ten. */
static bool configure_sparsity(decoder_spec *s, config *c)
{
    double share[DECODER_MAX_LAYERS];
    const json_t *given = config_get(c, TEXT("activation_sparsity_pattern"));
    int n = json_is_array(given) ? config_numbers(c, TEXT("activation_sparsity_pattern"), share, DECODER_MAX_LAYERS) : 0;
    for (int i = 0; i < s->layers && !c->failed; i++) {
        if (!json_is_array(given)) share[i] = json_is_number(given) ? json_number_value(given) : s->layers > 10 && i < 10 ? 0.95 : 0;
        else if (n != s->layers) return config_fail(c, VLM_FORMAT, "activation_sparsity_pattern: %d shares were expected", s->layers);
        if (!(share[i] >= 0 && share[i] < 1)) return config_fail(c, VLM_FORMAT, "activation_sparsity_pattern: %g is not a share", share[i]);
        s->layer[i].sparse = share[i] > 0 ? normal_quantile((float)share[i]) : 0;
        if (share[i] > 0 && !(s->layer[i].sparse > 0)) return config_fail(c, VLM_UNSUPPORTED, "activation_sparsity_pattern: %g; more than half is supported", share[i]);
    }
    return !c->failed;
}

bool gemma3n_spec(decoder_spec *s, arena *memory, config *c, const char *type)
{
    s->n_ropes = 2;
    if (!decoder_config(s, memory, c, text_prefixes) || !decoder_config_windows(s, c, text_prefixes, 512, 5) || !gemma3_ropes(s, memory, c)) return false;
    s->norms = NORM_SANDWICH;
    s->qk_norm = s->v_norm = true;
    s->attn_scale = 1;
    s->embed_scale = (float)sqrt(s->hidden);
    s->act = config_activation(c, TEXT("hidden_activation"), "gelu_pytorch_tanh");
    s->final_softcap = (float)config_number(c, TEXT("final_logit_softcapping"), 30);
    s->tied = config_bool(c, "tie_word_embeddings", config_bool(c, TEXT("tie_word_embeddings"), true));
    s->qkv_bias = s->o_bias = config_bool(c, TEXT("attention_bias"), false);
    s->ple = (int)config_int(c, TEXT("hidden_size_per_layer_input"), 256, 1, 1 << 16);
    s->ple_vocab = (int)config_int(c, TEXT("vocab_size_per_layer_input"), 262144, 1, 1 << 26);
    s->altup.streams = (int)config_int(c, TEXT("altup_num_inputs"), 4, 1, ALTUP_MAX_STREAMS);
    s->altup.active = (int)config_int(c, TEXT("altup_active_idx"), 0, 0, ALTUP_MAX_STREAMS - 1);
    s->altup.scaled = config_bool(c, TEXT("altup_correct_scale"), true);
    s->altup.laurel = (int)config_int(c, TEXT("laurel_rank"), 64, 1, 1 << 16);
    if (!c->failed && s->altup.active >= s->altup.streams)
        return config_fail(c, VLM_FORMAT, "altup_active_idx %d of %d streams", s->altup.active, s->altup.streams);
    return configure_sparsity(s, c) && decoder_share_keys(s, c, (int)config_int(c, TEXT("num_kv_shared_layers"), 15, 0, s->layers - 1));
}

static const char *const types[] = {"gemma3n_text", NULL};

const vlm_arch vlm_arch_gemma3n = {.name = "gemma3n", .title = "Gemma 3n (text)", .model_types = types, TEXT_ARCH};
