/* exaone4.c - EXAONE 4.0. Text only.  https://arxiv.org/abs/2507.11407
 *
 *   Llama whose norms stand behind attention and MLP; queries and keys are normed head by head. The large ones see a window in three of four layers (sliding_window_pattern "LLLG"); there, and
 *   only there, layers know positions: full layers have no rope. The small ones have no windows, and rope everywhere. */
#include <string.h>

#include "models/text.h"

bool exaone4_spec(decoder_spec *s, arena *memory, config *c, const char *type)
{
    if (!decoder_config(s, memory, c, text_prefixes)) return false;
    s->norms = NORM_POST;
    s->qk_norm = true;
    if (config_int(c, TEXT("sliding_window"), 0, 0, INT32_MAX) == 0) return !c->failed;
    const char *letters = config_string(c, TEXT("sliding_window_pattern"), "LLLG");
    if (!decoder_config_windows(s, c, text_prefixes, 4096, (int)strlen(letters))) return false;
    for (int i = 0; i < s->layers; i++)
        if (!s->layer[i].window) s->layer[i].rope = -1;
    return !c->failed;
}

static const char *const types[] = {"exaone4", NULL};

const vlm_arch vlm_arch_exaone4 = {.name = "exaone4", .title = "EXAONE 4.0 (text)", .model_types = types, TEXT_ARCH};
