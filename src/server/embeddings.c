/* embeddings.c - /v1/embeddings and /v1/rerank: texts, pictures and mixes of them as vectors, and how well documents answer a query. Every input is a request
 * of its own on the engine, so that they run in one batch, beside whatever else runs. */
#include "server/chat.h"

#include <stdlib.h>
#include <string.h>
#include <openssl/evp.h>

#include "models/model.h"

enum { MAX_INPUTS = 2048 };

typedef struct embed_state { bool base64, by_embedding, return_documents; int top_n; json_t *documents; } embed_state;

/* ---- inputs as messages ---- */

/* A string, {"text", "image" | "image_url" | "video" | "video_url"}, or a list of parts, as JSON content. NULL: refused. */
static json_t *content_of(const json_t *input, const char *where, refusal *why)
{
    static const char *const kinds[] = {"image", "image_url", "video", "video_url", "audio"};
    const char *text = json_string_value(input);
    if (text && (!strncmp(text, "data:image/", 11) || !strncmp(text, "attached:", 9))) return json_pack("[{s:s, s:O}]", "type", "image", "image", input);
    if (text || json_is_array(input)) return json_incref((json_t *)(uintptr_t)input);
    json_t *parts = json_array();
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        json_t *source = json_object_get(input, kinds[i]);
        if (source && !json_is_null(source)) json_array_append_new(parts, json_pack("{s:s, s:O}", "type", kinds[i], kinds[i], source));
    }
    if (json_is_string(json_object_get(input, "text"))) json_array_append_new(parts, json_pack("{s:s, s:O}", "type", "text", "text", json_object_get(input, "text")));
    if (json_array_size(parts)) return parts;
    json_decref(parts);
    refuse(why, 400, where, "'%s': a string, or an object with text, image or video was expected.", where);
    return NULL;
}

/* [{role, content}] as text in memory; second may be NULL. Takes the contents over. */
static const char *messages_text(arena *memory, const char *role, json_t *content, const char *second_role, json_t *second)
{
    json_t *messages = content ? json_pack("[{s:s, s:o}]", "role", role, "content", content) : json_array();
    if (second) json_array_append_new(messages, json_pack("{s:s, s:o}", "role", second_role, "content", second));
    const char *text = body_text(memory, messages);
    json_decref(messages);
    return text;
}

static bool begin(server *s, exchange *x, generation *g, const call_form *form, embed_state *state, const char **each, int n, refusal *why)
{
    call_start start = {.server = s, .x = x, .resident = g->resident, .form = form, .options = &g->options, .each = each, .n = n, .id_prefix = "embd-", .model = g->model,
                        .state = state, .memory = &g->memory, .tenant = exchange_tenant(x)};
    if (!call_begin(&start, why)) return false;
    g->resident = NULL;
    return true;
}

static json_t *usage_of(const call *c)
{
    int prompt = 0, cached = 0;
    for (int i = 0; i < c->n; i++) {
        prompt += c->choices[i].usage.prompt_tokens;
        cached += c->choices[i].usage.cached_tokens;
    }
    return json_pack("{s:i, s:i, s:{s:i}}", "prompt_tokens", prompt, "total_tokens", prompt, "prompt_tokens_details", "cached_tokens", cached);
}

static void release(call *c)
{
    embed_state *state = c->state;
    json_decref(state->documents);
}

/* ---- embeddings ---- */

static json_t *row_json(const float *row, int cols)
{
    json_t *list = json_array();
    for (int i = 0; i < cols; i++) json_array_append_new(list, json_real((double)row[i]));
    return list;
}

static json_t *base64_json(const float *row, int cols)
{
    size_t bytes = (size_t)cols * sizeof *row;
    unsigned char *text = mem_new(bytes / 3 * 4 + 8, 1);
    json_t *value = NULL;
    if (text) {
        EVP_EncodeBlock(text, (const unsigned char *)row, (int)bytes);     /* little endian, as everywhere we run */
        value = json_string((const char *)text);
    }
    mem_free(text);
    return value;
}

static json_t *vector_json(const choice *from, bool base64)
{
    if (from->rows == 1) return base64 ? base64_json(from->embedding, from->cols) : row_json(from->embedding, from->cols);
    json_t *rows = json_array();
    for (int i = 0; i < from->rows; i++) json_array_append_new(rows, row_json(from->embedding + (size_t)i * (size_t)from->cols, from->cols));
    return rows;
}

static json_t *embeddings_whole(call *c)
{
    const embed_state *state = c->state;
    json_t *data = json_array();
    for (int i = 0; i < c->n; i++)
        json_array_append_new(data, json_pack("{s:s, s:i, s:o}", "object", "embedding", "index", i, "embedding", vector_json(&c->choices[i], state->base64)));
    return json_pack("{s:s, s:o, s:s, s:o}", "object", "list", "data", data, "model", c->model, "usage", usage_of(c));
}

static const call_form embeddings_form = {.words = OPENAI, .whole = embeddings_whole, .release = release};

typedef struct embed_fields { const json_t *input; const char *encoding, *kind; int dimensions; const char *instruction; } embed_fields;
const field embedding_fields[] = {
    {"input", F_ANY, offsetof(embed_fields, input), 0, 0}, {"encoding_format", F_TEXT, offsetof(embed_fields, encoding), 0, 0},
    {"input_type", F_TEXT, offsetof(embed_fields, kind), 0, 0}, {"dimensions", F_INT, offsetof(embed_fields, dimensions), 1, 1 << 20},
    {"instruction", F_TEXT, offsetof(embed_fields, instruction), 0, 0},
    {0},
};

static bool embed_all(server *s, exchange *x, const embed_fields *own, generation *g, refusal *why)
{
    bool many = json_is_array(own->input);
    size_t n = many ? json_array_size(own->input) : 1;
    const char *role = own->kind ? own->kind : "document";
    if (!own->input || n < 1 || n > MAX_INPUTS) return refuse(why, 400, "input", "'input': a string, an object, or an array of 1 to %d of them was expected.", MAX_INPUTS);
    if (own->encoding && strcmp(own->encoding, "float") && strcmp(own->encoding, "base64")) return refuse(why, 400, "encoding_format", "'encoding_format': float or base64 was expected.");
    if (strcmp(role, "query") && strcmp(role, "document")) return refuse(why, 400, "input_type", "'input_type': query or document was expected.");
    const char **each = arena_alloc(&g->memory, n * sizeof *each);
    embed_state *state = arena_alloc(&g->memory, sizeof *state);
    if (!each || !state) return refuse_memory(why);
    for (size_t i = 0; i < n; i++) {
        char where[32];
        snprintf(where, sizeof where, many ? "input[%zu]" : "input", i);
        json_t *content = content_of(many ? json_array_get(own->input, i) : own->input, where, why);
        if (!content) return false;
        if (!(each[i] = messages_text(&g->memory, role, content, NULL, NULL))) return refuse_memory(why);
    }
    state->base64 = own->encoding && !strcmp(own->encoding, "base64");
    g->options.task = "embed";
    g->options.dimensions = own->dimensions;
    g->options.instruction = own->instruction;
    return begin(s, x, g, &embeddings_form, state, each, (int)n, why);
}

void route_embeddings(server *s, exchange *x, const char *argument)
{
    refusal why = {0};
    generation g = {0};
    embed_fields own = {0};
    json_t *body = body_object(x, &why);
    bool ok = body && body_read(body, embedding_fields, &own, "", &why) && generation_read(s, x, body, &g, &why) && embed_all(s, x, &own, &g, &why);
    if (!ok) refusal_send(x, &why, OPENAI);
    generation_free(&g);
    json_decref(body);
}

/* ---- rerank ---- */

typedef struct score { int index; double value; } score;

static int better(const void *a, const void *b)
{
    const score *x = a, *y = b;
    return x->value != y->value ? (x->value < y->value ? 1 : -1) : x->index - y->index;
}

static json_t *rerank_whole(call *c)
{
    const embed_state *state = c->state;
    int n = state->by_embedding ? c->n - 1 : c->n;         /* the query's embedding comes last */
    const choice *query = &c->choices[c->n - 1];
    score *scores = MEM_ARRAY((size_t)n, score);
    json_t *results = json_array();
    for (int i = 0; scores && i < n; i++) {
        const choice *one = &c->choices[i];
        double value = state->by_embedding ? vlm_similarity(query->embedding, query->rows, one->embedding, one->rows, one->cols) : one->embedding ? (double)one->embedding[0] : 0;
        scores[i] = (score){i, value};
    }
    if (scores) qsort(scores, (size_t)n, sizeof *scores, better);
    for (int i = 0; scores && i < n && i < state->top_n; i++) {
        json_t *result = json_pack("{s:i, s:f}", "index", scores[i].index, "relevance_score", scores[i].value);
        if (state->return_documents) json_object_set(result, "document", json_array_get(state->documents, (size_t)scores[i].index));
        json_array_append_new(results, result);
    }
    mem_free(scores);
    return json_pack("{s:s, s:s, s:o, s:o}", "id", c->id, "model", c->model, "results", results, "usage", usage_of(c));
}

static const call_form rerank_form = {.words = OPENAI, .whole = rerank_whole, .release = release};

typedef struct rank_fields { const json_t *query, *documents; const char *instruction; int top_n, return_documents; } rank_fields;
const field rerank_fields[] = {
    {"query", F_ANY, offsetof(rank_fields, query), 0, 0}, {"documents", F_ARRAY, offsetof(rank_fields, documents), 0, 0},
    {"instruction", F_TEXT, offsetof(rank_fields, instruction), 0, 0}, {"top_n", F_INT, offsetof(rank_fields, top_n), 1, 1 << 20},
    {"return_documents", F_BOOL, offsetof(rank_fields, return_documents), 0, 0},
    {0},
};

static bool rank_all(server *s, exchange *x, const rank_fields *own, generation *g, refusal *why)
{
    size_t n = json_array_size(own->documents);
    bool by_embedding = g->resident->model->recipe.declared;
    if (!own->query) return refuse(why, 400, "query", "'query': a string or an object was expected.");
    if (n < 1 || n > MAX_INPUTS) return refuse(why, 400, "documents", "'documents': an array of 1 to %d was expected.", MAX_INPUTS);
    const char **each = arena_alloc(&g->memory, (n + 1) * sizeof *each);
    embed_state *state = arena_alloc(&g->memory, sizeof *state);
    if (!each || !state) return refuse_memory(why);
    for (size_t i = 0; i <= n; i++) {
        char where[32];
        if (i == n && !by_embedding) break;
        snprintf(where, sizeof where, "documents[%zu]", i);
        json_t *document = i < n ? content_of(json_array_get(own->documents, i), where, why) : NULL;
        if (i < n && !document) return false;
        json_t *query = i == n || !by_embedding ? content_of(own->query, "query", why) : NULL;
        if ((i == n || !by_embedding) && !query) { json_decref(document); return false; }
        if (!(each[i] = messages_text(&g->memory, "query", query, "document", document))) return refuse_memory(why);
    }
    state->by_embedding = by_embedding;
    state->return_documents = own->return_documents;
    state->top_n = own->top_n ? own->top_n : (int)n;
    g->options.task = by_embedding ? "embed" : "rerank";
    g->options.instruction = own->instruction;
    state->documents = json_incref((json_t *)(uintptr_t)own->documents);
    if (begin(s, x, g, &rerank_form, state, each, (int)n + by_embedding, why)) return true;
    json_decref((json_t *)(uintptr_t)own->documents);
    return false;
}

void route_rerank(server *s, exchange *x, const char *argument)
{
    refusal why = {0};
    generation g = {0};
    rank_fields own = {0};
    json_t *body = body_object(x, &why);
    bool ok = body && body_read(body, rerank_fields, &own, "", &why) && generation_read(s, x, body, &g, &why) && rank_all(s, x, &own, &g, &why);
    if (!ok) refusal_send(x, &why, OPENAI);
    generation_free(&g);
    json_decref(body);
}
