/* rank.c - vlm_rerank: a query and its documents as requests of one batch. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "engine/core.h"

typedef struct ranking {
    vlm_engine *engine;
    vlm_request_options options;
    bool by_embedding;             /* similarity of embeddings, not the model's own judgement */
    json_t *query, *documents;
    vlm_request **requests;        /* of the documents; by_embedding: the query's comes last */
    size_t count, begun;
} ranking;

/* [{"role": "query", ...}, {"role": "document", ...}], or one of them. */
static char *messages_of(json_t *query, json_t *document)
{
    json_t *messages = json_array();
    if (query) json_array_append_new(messages, json_pack("{s:s, s:O}", "role", "query", "content", query));
    if (document) json_array_append_new(messages, json_pack("{s:s, s:O}", "role", "document", "content", document));
    char *text = messages ? json_dumps(messages, JSON_COMPACT) : NULL;
    json_decref(messages);
    return text;
}

static bool begin(ranking *k, json_t *query, json_t *document, vlm_error *error)
{
    char *messages = messages_of(query, document);
    if (!messages) return err_memory(error, 0);
    k->options.messages = messages;
    k->options.task = k->by_embedding ? "embed" : "rerank";
    vlm_request *r = vlm_submit(k->engine, &k->options, error);
    free(messages);
    if (r) k->requests[k->begun++] = r;
    return r != NULL;
}

static void count_usage(vlm_usage *sum, const vlm_usage *one)
{
    sum->prompt_tokens += one->prompt_tokens;
    sum->cached_tokens += one->cached_tokens;
    sum->media_items += one->media_items;
    sum->media_cached += one->media_cached;
    sum->preemptions += one->preemptions;
    if (one->total_seconds > sum->total_seconds) sum->total_seconds = one->total_seconds;
}

static bool collect(ranking *k, double *scores, vlm_usage *usage, vlm_error *error)
{
    vlm_result query = {0};
    bool ok = true;
    if (k->by_embedding && (ok = !vlm_request_collect(k->requests[k->count], NULL, NULL, &query, error))) count_usage(usage, &query.usage);
    for (size_t i = 0; ok && i < k->count; i++) {
        vlm_result one = {0};
        ok = !vlm_request_collect(k->requests[i], NULL, NULL, &one, error);
        if (ok && !one.embedding) ok = err_set(error, VLM_CANCELLED, "ranking was cancelled");
        if (ok) {
            scores[i] = k->by_embedding ? vlm_similarity(query.embedding, query.embedding_rows, one.embedding, one.embedding_rows, one.embedding_cols) : (double)one.embedding[0];
            count_usage(usage, &one.usage);
        }
        vlm_result_clear(&one);
    }
    vlm_result_clear(&query);
    return ok;
}

vlm_status vlm_rerank(vlm_engine *engine, const char *query, const char *documents, const vlm_request_options *options, double *scores, vlm_usage *usage,
                      vlm_error *error)
{
    vlm_error failure = {0};
    vlm_usage sum = {0};
    ranking k = {.engine = engine, .options = vlm_request_options_default(), .by_embedding = engine->m->recipe.declared};
    if (options) memcpy(&k.options, options, options->size < sizeof k.options ? options->size : sizeof k.options);
    k.query = query ? json_loads(query, JSON_DECODE_ANY, NULL) : NULL;
    k.documents = documents ? json_loads(documents, 0, NULL) : NULL;
    k.count = json_array_size(k.documents);
    bool ok = (json_is_string(k.query) || json_is_array(k.query)) && k.count;
    if (!ok) err_set(&failure, VLM_INVALID, "rerank: a query (text or a list of parts) and a list of documents were expected");
    if (ok && !(k.requests = MEM_ARRAY(k.count + 1, vlm_request *))) ok = err_memory(&failure, k.count * sizeof(void *));
    k.options.prompt = NULL;
    for (size_t i = 0; ok && i < k.count; i++) ok = begin(&k, k.by_embedding ? NULL : k.query, json_array_get(k.documents, i), &failure);
    if (ok && k.by_embedding) ok = begin(&k, k.query, NULL, &failure);
    ok = ok && collect(&k, scores, &sum, &failure);
    for (size_t i = 0; i < k.begun; i++) vlm_request_free(k.requests[i]);
    mem_free(k.requests);
    json_decref(k.query);
    json_decref(k.documents);
    if (usage) *usage = sum;
    if (ok) return VLM_OK;
    if (error) *error = failure;
    return failure.code ? failure.code : VLM_INTERNAL;
}
