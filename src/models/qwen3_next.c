/* qwen3_next.c - Qwen3-Next (80B-A3B), Qwen3-Coder-Next. Text only.  https://qwen.ai/blog?id=qwen3-next
 *
 *   Qwen3.5's decoder (qwen3_5.c): gated delta nets in three of four layers, else attention with a gate; many experts and a gated one that every token takes.
 *
 * Bites: the delta nets' products lie head by head in the files (in_proj_qkvz, in_proj_ba), and layer_types may be missing. rope turns a quarter of each head. */
#include "models/text.h"

bool qwen3_next_spec(decoder_spec *s, arena *memory, config *c, const char *type)
{
    static const char there[] = TEXT("partial_rotary_factor") "|" TEXT("rope_parameters.partial_rotary_factor") "|" TEXT("rope_scaling.partial_rotary_factor");
    json_t *text = json_object_get(c->root, "text_config");
    if (!json_is_object(text)) text = c->root;
    if (!config_has(c, there) && json_object_set_new(text, "partial_rotary_factor", json_real(0.25))) return config_fail(c, VLM_MEMORY, "out of memory");
    return qwen3_5_spec(s, memory, c, type);
}

static const char *const types[] = {"qwen3_next", NULL};

const vlm_arch vlm_arch_qwen3_next = {.name = "qwen3_next", .title = "Qwen3-Next (text)", .model_types = types, TEXT_ARCH};
