/* recipe.h - what a checkpoint makes of hidden states when it is asked for embeddings or for relevance instead of text.
 *
 *   embed    rows after the final norm ── pooling (the last token's, the mean ..., or each) ── [projection] ── [first so many columns] ── [length 1]
 *   rerank   sigmoid(logit of "yes" - logit of "no") at the end of a question about query and document
 *
 * sentence-transformers' files say which (modules.json, its Pooling/config.json, config_sentence_transformers.json for prompts); a family may say
 * it in configure(). Without either: the last token, length 1, as Qwen3-Embedding and Qwen3-VL-Embedding do it. */
#ifndef VLM_MODELS_RECIPE_H
#define VLM_MODELS_RECIPE_H

#include "tensor/tensor.h"
#include "text/chat.h"
#include "weights/config.h"

typedef enum vlm_task { TASK_GENERATE, TASK_EMBED, TASK_RERANK } vlm_task;
typedef enum pooling { POOL_LAST, POOL_FIRST, POOL_MEAN, POOL_MAX, POOL_EACH } pooling;

typedef struct recipe {
    bool declared;                 /* the checkpoint is made for embeddings: it says so */
    pooling pooling;
    bool normalize;
    weight project;                /* of each row, before its length becomes 1; data NULL: none */
    const float *project_bias;
    int dimensions;                /* columns of a vector */
    json_t *prompts;               /* {"query": text before a query, "document": ...} or NULL */
    /* Queries and pictures of a late-interaction model: its own prompts (blocks of tokens around them). NULL: none. */
    const char *query_prefix, *picture;
    int query_pads;                /* pad tokens after a query, and a line end */
    int32_t yes, no;               /* tokens of a reranker; -1: the tokenizer has them not as one */
    chat_template *text, *judge;   /* prompts of text embeddings, of text rerankers; NULL: the model has no tokenizer */
    bool through_chat;             /* embeddings and questions go through the checkpoint's chat template (models that see) */
} recipe;

/* Reads the files of folder `dir` (NULL: none); `hidden` columns come out of the decoder. What the family has set stays. */
bool recipe_load(recipe *r, const char *dir, const tokenizer *tok, bool sees, int hidden, vlm_error *error);
void recipe_free(recipe *r);
const char *pooling_name(pooling p);

#endif
