/* pixtral.h - pictures as Pixtral and Mistral 3 take them: any size in steps of a (merged) patch; each row of tokens ends with a mark. */
#ifndef VLM_MODELS_PIXTRAL_H
#define VLM_MODELS_PIXTRAL_H

#include "models/tower_lm.h"

typedef struct pixtral_processor {
    int longest, step, token;      /* pixels: the longer side at most; sides are multiples of step, a token is token x token (what is left over is not shown) */
    const char *end_of_row, *end;  /* marks */
} pixtral_processor;

extern const media_rules pixtral_rules;                   /* of models whose pictures these are */
/* merge: patches side by side in a token; own_step: the image processor's patch_size is the step, else a token is. Also sets base->norm. */
bool pixtral_config(pixtral_processor *p, tower_lm *base, config *processor, int merge, bool own_step);
bool pixtral_process(const vlm_model *m, const pixtral_processor *p, const picture_norm *norm, const media_item *item, const json_t *options, media_input *out,
                     vlm_error *error);
/* [IMG] [IMG] [IMG_BREAK] ... [IMG] [IMG] [IMG_END] */
bool pixtral_expand(const vlm_model *m, const pixtral_processor *p, const media_input *in, buf *text, vlm_error *error);

#endif
