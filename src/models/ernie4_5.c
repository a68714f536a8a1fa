/* ernie4_5.c - ERNIE 4.5, dense. Text only.  https://ernie.baidu.com/blog/publication/ERNIE_Technical_Report.pdf
 *
 *   Llama with rope in pairs of neighbours; use_bias puts a bias on every product. */
#include "models/text.h"

bool ernie4_5_spec(decoder_spec *s, arena *memory, config *c, const char *type)
{
    if (!decoder_config(s, memory, c, text_prefixes)) return false;
    s->rope[0].interleaved = true;
    s->qkv_bias = s->o_bias = s->mlp_bias = config_bool(c, TEXT("use_bias"), false);
    return !c->failed;
}

static const char *const types[] = {"ernie4_5", NULL};

const vlm_arch vlm_arch_ernie4_5 = {.name = "ernie4_5", .title = "ERNIE 4.5, dense (text)", .model_types = types, TEXT_ARCH};
