/* text.h - language models as decoder specs, by the model_type of a text config. The text-only families are nothing else; families that put a
 * tower in front of "some" language model (LLaVA, InternVL, Mistral 3 ...) take what their text_config names.
 *
 * A spec function reads text_config.* or, in a text-only config, the top level, fills a decoder_spec and leaves planning to the caller. */
#ifndef VLM_MODELS_TEXT_H
#define VLM_MODELS_TEXT_H

#include "models/common.h"

#define TEXT(key) "text_config." key "|" key

typedef bool (*text_spec_fn)(decoder_spec *s, arena *memory, config *c, const char *model_type);

/* The spec that text_config.model_type (else model_type) asks for; fields that nested configs leave out get the family's defaults. */
bool text_spec(decoder_spec *s, arena *memory, config *c);
/* Is the language model of that type known? */
bool text_known(const char *model_type);

bool cohere2_spec(decoder_spec *s, arena *memory, config *c, const char *model_type);
bool deepseek_spec(decoder_spec *s, arena *memory, config *c, const char *model_type);
/* The experts of ERNIE 4.5: one kind, or (2) further ones for tokens of media. */
bool ernie4_5_experts(decoder_spec *s, config *c, int kinds);
bool ernie4_5_spec(decoder_spec *s, arena *memory, config *c, const char *model_type);
bool gemma3n_spec(decoder_spec *s, arena *memory, config *c, const char *model_type);
bool exaone4_spec(decoder_spec *s, arena *memory, config *c, const char *model_type);
bool gemma_spec(decoder_spec *s, arena *memory, config *c, const char *model_type);
/* Rope 0 is for full layers, 1 for sliding ones, as Gemma 3 has them. */
bool gemma3_ropes(decoder_spec *s, arena *memory, config *c);
bool glm4_moe_spec(decoder_spec *s, arena *memory, config *c, const char *model_type);
bool glm4_spec(decoder_spec *s, arena *memory, config *c, const char *model_type);
bool gpt_oss_spec(decoder_spec *s, arena *memory, config *c, const char *model_type);
bool granite_spec(decoder_spec *s, arena *memory, config *c, const char *model_type);
bool lfm2_spec(decoder_spec *s, arena *memory, config *c, const char *model_type);
bool llama4_spec(decoder_spec *s, arena *memory, config *c, const char *model_type);
bool llama_spec(decoder_spec *s, arena *memory, config *c, const char *model_type);
bool olmo2_spec(decoder_spec *s, arena *memory, config *c, const char *model_type);
bool olmoe_spec(decoder_spec *s, arena *memory, config *c, const char *model_type);
bool phi_spec(decoder_spec *s, arena *memory, config *c, const char *model_type);
bool phi3_spec(decoder_spec *s, arena *memory, config *c, const char *model_type);
bool phimoe_spec(decoder_spec *s, arena *memory, config *c, const char *model_type);
bool qwen3_next_spec(decoder_spec *s, arena *memory, config *c, const char *model_type);
bool qwen3_spec(decoder_spec *s, arena *memory, config *c, const char *model_type);
bool qwen3_5_spec(decoder_spec *s, arena *memory, config *c, const char *model_type);
bool smollm3_spec(decoder_spec *s, arena *memory, config *c, const char *model_type);

/* vlm_arch of a text-only family: m->family is a decoder. */
bool text_configure(vlm_model *m, config *c);
bool text_bind(vlm_model *m, binder *b);
tensor text_forward(run *r, const vlm_model *m, const batch *b);
#define TEXT_ARCH .task = TASK_GENERATE, .configure = text_configure, .bind = text_bind, .forward = text_forward

#endif
