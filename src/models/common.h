/* common.h - what family files share: from a decoder to the model's description, options of media parts. */
#ifndef VLM_MODELS_COMMON_H
#define VLM_MODELS_COMMON_H

#include "blocks/decoder.h"
#include "models/model.h"

/* Text fields lie at the top of config.json, or below text_config (newer transformers). */
extern const char *const text_prefixes[];                    /* {"text_config.", "", NULL} */

/* Where a language model's weights lie: alone (model.), or in a model with towers, as published, in newer files, in MLX's. */
void decoder_names(decoder_spec *s);
/* Sets what the engine needs to know of a planned decoder: sizes, context, layer groups. */
void model_use_decoder(vlm_model *m, const decoder *d);

/* A number from the media part itself ("max_pixels": 50176 beside "image"), else from the request's media options, else `fallback`.
 * Anything but a finite number is as if it were not there. */
double media_option(const chat_media *part, const json_t *options, const char *key, double fallback);
/* true or false, likewise. */
bool media_switch(const json_t *options, const char *key, bool fallback);
bool media_has_option(const chat_media *part, const json_t *options, const char *key);

#endif
