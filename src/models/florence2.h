/* florence2.h - Florence-2's tasks: what a prompt like "<OD>" asks in words, and what the answer means. */
#ifndef VLM_MODELS_FLORENCE2_H
#define VLM_MODELS_FLORENCE2_H

#include "models/model.h"

/* Spelling of the i-th token that the processor adds to BART's; NULL behind the last. room: for location tokens. */
const char *florence2_token(int i, char room[24]);
/* The task's sentence with what follows the task's token; a text without a task stays. Guards in location tokens are taken out. */
bool florence2_prompt(const char *text, buf *out, vlm_error *error);
/* {task: answer}: text; or boxes, polygons, quadrangles with labels, scaled to the picture. NULL when the prompt names no task, or out of memory. */
json_t *florence2_answer(config *processor, const char *prompt, const char *text, int width, int height);

#endif
