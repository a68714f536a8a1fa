/* task.h - requests that ask for something else than text: embeddings and relevance. They are prompts like others and run in the same batch; what differs
 * is how the prompt is put together from a query or a document, and what becomes of the decoder's rows (models/recipe.h). */
#ifndef VLM_ENGINE_TASK_H
#define VLM_ENGINE_TASK_H

#include "engine/request.h"

/* After the options were taken: makes the request's messages or text those of its task. */
bool task_take(vlm_request *r, const vlm_model *m, const vlm_request_options *o, vlm_error *error);
/* The prompt's tokens are in the sequence: room for the rows that are wanted. */
bool task_prepare(vlm_request *r, const vlm_model *m, vlm_error *error);
/* All rows are there: pools them, and emits the embedding. */
bool task_finish(vlm_request *r, vlm_model *m, arena *scratch, vlm_error *error);
/* The row of logits after a reranker's question, into r->relevance. */
void task_judge(vlm_request *r, const vlm_model *m, const float *logits);

#endif
