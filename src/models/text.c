/* text.c - see text.h. */
#include "models/text.h"

#include <string.h>

#define GEMMA "\"vocab_size\":256000,\"rms_norm_eps\":1e-6,\"tie_word_embeddings\":true,\"max_position_embeddings\":8192"
#define LLAMA "\"vocab_size\":32000,\"hidden_size\":4096,\"intermediate_size\":11008,\"num_hidden_layers\":32,\"num_attention_heads\":32,\"rms_norm_eps\":1e-6"

/* `defaults`: what the reference's config class fills in; configs nested in others often leave these fields out. */
static const struct { const char *type; text_spec_fn spec; const char *defaults; } table[] = {
    {"cohere2", cohere2_spec, NULL},
    {"deepseek_v2", deepseek_spec, "{\"kv_lora_rank\":512,\"q_lora_rank\":1536,\"qk_nope_head_dim\":128,\"qk_rope_head_dim\":64,\"v_head_dim\":128,"
                                   "\"vocab_size\":102400,\"rms_norm_eps\":1e-6}"},
    {"deepseek_v3", deepseek_spec, NULL},
    {"ernie4_5", ernie4_5_spec, NULL},
    {"ernie4_5_moe", ernie4_5_spec, NULL},
    {"exaone4", exaone4_spec, NULL},
    {"gemma", gemma_spec, "{" GEMMA ",\"hidden_size\":3072,\"intermediate_size\":24576,\"num_hidden_layers\":28,\"num_attention_heads\":16,\"head_dim\":256}"},
    {"gemma2", gemma_spec, "{" GEMMA ",\"hidden_size\":2304,\"intermediate_size\":9216,\"num_hidden_layers\":26,\"num_attention_heads\":8,"
                           "\"num_key_value_heads\":4,\"head_dim\":256,\"sliding_window\":4096}"},
    {"gemma3_text", gemma_spec, "{\"vocab_size\":262208,\"rms_norm_eps\":1e-6,\"tie_word_embeddings\":true,\"max_position_embeddings\":131072,\"hidden_size\":2304,"
                                "\"intermediate_size\":9216,\"num_hidden_layers\":26,\"num_attention_heads\":8,\"num_key_value_heads\":4,\"head_dim\":256,"
                                "\"sliding_window\":4096}"},
    {"gemma3n_text", gemma3n_spec, "{\"vocab_size\":262400,\"rms_norm_eps\":1e-6,\"hidden_size\":2048,\"intermediate_size\":16384,\"num_hidden_layers\":35,"
                                   "\"num_attention_heads\":8,\"num_key_value_heads\":2,\"head_dim\":256,\"sliding_window\":512,\"max_position_embeddings\":32768}"},
    {"glm", glm4_spec, NULL},
    {"glm4", glm4_spec, NULL},
    {"glm4_moe", glm4_moe_spec, NULL},
    {"gpt_oss", gpt_oss_spec, NULL},
    {"granite", granite_spec, NULL},
    {"granitemoe", granite_spec, NULL},
    {"granite4_vision_text", granite_spec, "{" LLAMA ",\"max_position_embeddings\":2048}"},
    {"granite_docling_text", granite_spec, "{\"vocab_size\":133800,\"hidden_size\":1024,\"intermediate_size\":2048,\"num_hidden_layers\":28,"
                                           "\"num_attention_heads\":16,\"num_key_value_heads\":4,\"max_position_embeddings\":32768,\"rms_norm_eps\":1e-5,"
                                           "\"tie_word_embeddings\":true,\"embedding_multiplier\":12,\"logits_scaling\":4,\"residual_multiplier\":0.263,"
                                           "\"attention_multiplier\":0.015625}"},
    {"kimi_k2", deepseek_spec, NULL},
    {"lfm2", lfm2_spec, NULL},
    {"lfm2_moe", lfm2_spec, NULL},
    {"llama", llama_spec, "{" LLAMA "}"},
    {"llama4_text", llama4_spec, "{\"vocab_size\":202048,\"hidden_size\":5120,\"intermediate_size\":8192,\"num_hidden_layers\":48,\"num_attention_heads\":40,"
                                 "\"num_key_value_heads\":8,\"head_dim\":128,\"rms_norm_eps\":1e-5,\"num_local_experts\":16,\"num_experts_per_tok\":1,\"rope_theta\":500000.0}"},
    {"ministral", llama_spec, NULL},
    {"ministral3", llama_spec, NULL},
    {"mistral", llama_spec, "{\"vocab_size\":32000,\"hidden_size\":4096,\"intermediate_size\":14336,\"num_hidden_layers\":32,\"num_attention_heads\":32,"
                            "\"num_key_value_heads\":8,\"rms_norm_eps\":1e-6}"},
    {"mixtral", llama_spec, NULL},
    {"mllama_text_model", llama_spec, "{\"vocab_size\":128256,\"hidden_size\":4096,\"intermediate_size\":14336,\"num_hidden_layers\":40,\"num_attention_heads\":32,"
                                      "\"num_key_value_heads\":8,\"rms_norm_eps\":1e-5}"},
    {"olmo2", olmo2_spec, NULL},
    {"olmo3", olmo2_spec, NULL},
    {"olmoe", olmoe_spec, NULL},
    {"phi", phi_spec, NULL},
    {"phi3", phi3_spec, NULL},
    {"phi3_v", phi3_spec, NULL},
    {"phimoe", phimoe_spec, NULL},
    {"phi4_multimodal", phi3_spec, NULL},
    {"phi4mm", phi3_spec, NULL},
    {"qwen2", qwen3_spec, "{\"vocab_size\":151936,\"hidden_size\":4096,\"intermediate_size\":22016,\"num_hidden_layers\":32,\"num_attention_heads\":32,"
                          "\"num_key_value_heads\":32,\"rms_norm_eps\":1e-6}"},
    {"qwen2_moe", qwen3_spec, NULL},
    {"qwen3", qwen3_spec, NULL},
    {"qwen3_5_moe_text", qwen3_5_spec, NULL},
    {"qwen3_5_text", qwen3_5_spec, NULL},
    {"qwen3_moe", qwen3_spec, NULL},
    {"qwen3_next", qwen3_next_spec, NULL},
    {"smollm3", smollm3_spec, NULL},
};

static int find(const char *type)
{
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (!strcmp(table[i].type, type)) return (int)i;
    return -1;
}

bool text_known(const char *model_type) { return find(model_type) >= 0; }

/* Members that a nested text config lacks. */
static bool fill_in(config *c, const char *defaults)
{
    json_t *text = json_object_get(c->root, "text_config"), *more = NULL;
    if (!defaults || !json_is_object(text)) return true;
    bool ok = (more = json_loads(defaults, 0, NULL)) && json_object_update_missing(text, more) == 0;
    json_decref(more);
    return ok || config_fail(c, VLM_MEMORY, "out of memory");
}

bool text_spec(decoder_spec *s, arena *memory, config *c)
{
    const char *type = config_string(c, "text_config.model_type|model_type", "llama");
    if (c->failed) return false;
    int i = find(type);
    if (i < 0) return config_fail(c, VLM_UNSUPPORTED, "the language model \"%.60s\" (text_config.model_type) is not known", type);
    decoder_names(s);
    return fill_in(c, table[i].defaults) && table[i].spec(s, memory, c, type) && !c->failed;
}

bool text_configure(vlm_model *m, config *c)
{
    decoder *d = m->family = arena_alloc(&m->memory, sizeof *d);
    if (!d) return config_fail(c, VLM_MEMORY, "out of memory");
    if (!text_spec(&d->spec, &m->memory, c) || !decoder_plan(d, &m->memory, c)) return false;
    model_use_decoder(m, d);
    return !c->failed;
}

bool text_bind(vlm_model *m, binder *b) { return decoder_bind(m->family, b); }

tensor text_forward(run *r, const vlm_model *m, const batch *b) { return decoder_forward(r, m->family, b); }
