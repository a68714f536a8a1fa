/* embed.c - `vlm embed` and `vlm rerank`: numbers instead of text, a JSON line for each input. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "cli/batch.h"
#include "cli/commands.h"
#include "cli/flags.h"

typedef struct embed_options {
    model_flags model;
    media_flags media;
    texts image, video, query_image;
    const char *query_text, *instruction, *batch, *adapter;
    int64_t dimensions, top;
    bool query, normalize, documents;
} embed_options;

#define FIELD(name) offsetof(embed_options, name)
#define INPUTS                                                                                                                               \
    {OPT_TEXTS, "image", "SRC", "pictures, each one an input", FIELD(image), NULL, 'i'},                                                     \
    {OPT_TEXTS, "video", "SRC", "videos, each one an input", FIELD(video), NULL, 0},                                                         \
    {OPT_TEXT, "batch", "FILE", "JSON lines, an input each: a string, or {\"text\", \"image\", \"video\"}", FIELD(batch), NULL, 0},          \
    {OPT_TEXT, "instruction", "TEXT", "what queries are for (the checkpoint's own)", FIELD(instruction), NULL, 0},                           \
    {OPT_TEXT, "adapter", "NAME", "adapter that the inputs run with (the only one loaded)", FIELD(adapter), NULL, 0}

static const option embed_table[] = {
    {OPT_SECTION, .help = "Inputs (texts are the words of the command)"},
    INPUTS,
    {OPT_SWITCH, "query", NULL, "inputs are queries, not documents", FIELD(query), NULL, 0},
    {OPT_INT, "dimensions", "N", "only the first N numbers (all)", FIELD(dimensions), NULL, 0},
    {OPT_SWITCH, "normalize", NULL, "vectors of length 1 (as the checkpoint says)", FIELD(normalize), NULL, 0},
    MEDIA_OPTIONS(embed_options, media),
    MODEL_OPTIONS(embed_options, model),
    {0},
};

static const option rerank_table[] = {
    {OPT_SECTION, .help = "Query, and documents (texts are the words of the command)"},
    {OPT_TEXT, "query", "TEXT", "the query", FIELD(query_text), NULL, 'q'},
    {OPT_TEXTS, "query-image", "SRC", "pictures of the query", FIELD(query_image), NULL, 0},
    INPUTS,
    {OPT_INT, "top", "N", "only the N best (all)", FIELD(top), NULL, 0},
    {OPT_SWITCH, "documents", NULL, "each line has its document", FIELD(documents), NULL, 0},
    MEDIA_OPTIONS(embed_options, media),
    MODEL_OPTIONS(embed_options, model),
    {0},
};

static void defaults(void *memory)
{
    embed_options *o = memory;
    model_flags_default(&o->model);
    o->normalize = true;
}

/* ---- inputs -------------------------------------------------------------------------------------------------------------- */

static json_t *media_part(const char *type, const char *source) { return json_pack("{s:s, s:s}", "type", type, type, source); }

/* {"text", "image", "video"} (each a text or a list), a string, or a list of parts, as content of a message. */
static json_t *content_of_line(json_t *line)
{
    static const char *const kinds[] = {"video", "image"};
    if (!json_is_object(line)) return json_is_string(line) || json_is_array(line) ? json_incref(line) : NULL;
    json_t *parts = json_array(), *text = json_object_get(line, "text");
    for (int k = 0; k < 2; k++) {
        json_t *value = json_object_get(line, kinds[k]), *source;
        size_t i;
        if (json_is_string(value)) json_array_append_new(parts, media_part(kinds[k], json_string_value(value)));
        json_array_foreach(value, i, source)
            if (json_is_string(source)) json_array_append_new(parts, media_part(kinds[k], json_string_value(source)));
    }
    if (json_is_string(text)) json_array_append_new(parts, json_pack("{s:s, s:O}", "type", "text", "text", text));
    if (json_array_size(parts)) return parts;
    json_decref(parts);
    return NULL;
}

static bool add_lines(json_t *inputs, const char *path, vlm_error *error)
{
    buf file = {0};
    bool ok = file_read(path, (size_t)256 << 20, &file, error);
    int number = 0;
    for (char *at = file.data; ok && at && *at;) {
        size_t n = strcspn(at, "\n");
        number++;
        if (strspn(at, " \t\r") < n) {
            json_t *line = json_loadb(at, n, JSON_DECODE_ANY, NULL), *content = content_of_line(line);
            json_decref(line);
            ok = content ? !json_array_append_new(inputs, content) : err_set(error, VLM_FORMAT, "%s: line %d is no input", path, number);
        }
        at += n + (at[n] == '\n');
    }
    buf_free(&file);
    return ok;
}

/* Texts, pictures, videos, lines of the file, in this order. NULL after a message. */
static json_t *inputs_of(const embed_options *o, const texts *words, int *exit_code)
{
    vlm_error error = {0};
    json_t *inputs = json_array();
    for (int i = 0; i < words->count; i++) json_array_append_new(inputs, json_string(words->item[i]));
    for (int i = 0; i < o->image.count; i++) json_array_append_new(inputs, json_pack("[o]", media_part("image", o->image.item[i])));
    for (int i = 0; i < o->video.count; i++) json_array_append_new(inputs, json_pack("[o]", media_part("video", o->video.item[i])));
    if (o->batch && !add_lines(inputs, o->batch, &error)) *exit_code = report(&error);
    else if (!json_array_size(inputs)) *exit_code = usage_error("nothing to look at: give texts, --image, --video or --batch");
    else return inputs;
    json_decref(inputs);
    return NULL;
}

/* Model, engine and what all requests have in common. */
typedef struct session { vlm_model *model; vlm_engine *engine; vlm_request_options request; kept keep; } session;

static bool open_session(session *s, const embed_options *o, int *exit_code)
{
    sampling_flags sampling;
    vlm_error error = {0};
    sampling_flags_default(&sampling);
    *exit_code = 2;
    if (!request_from_flags(&sampling, &o->media, &s->request, &s->keep) || !(s->model = model_flags_load(&o->model, exit_code))) return false;
    s->request.instruction = o->instruction;
    s->request.adapter = o->adapter;
    if ((s->engine = vlm_engine_new(s->model, NULL, &error))) return true;
    *exit_code = report(&error);
    return false;
}

static void close_session(session *s)
{
    vlm_engine_free(s->engine);
    vlm_model_free(s->model);
    kept_free(&s->keep);
}

/* ---- vlm embed ------------------------------------------------------------------------------------------------------------ */

static json_t *numbers(const float *x, int n)
{
    json_t *list = json_array();
    for (int i = 0; i < n; i++) json_array_append_new(list, json_real(x[i]));
    return list;
}

static json_t *embedding_json(const vlm_result *result, size_t index)
{
    bool one = result->embedding_rows == 1;
    json_t *value = one ? numbers(result->embedding, result->embedding_cols) : json_array();
    for (int i = 0; !one && i < result->embedding_rows; i++)
        json_array_append_new(value, numbers(result->embedding + (size_t)i * (size_t)result->embedding_cols, result->embedding_cols));
    return json_pack("{s:I, s:o, s:i}", "index", (json_int_t)index, "embedding", value, "prompt_tokens", result->usage.prompt_tokens);
}

static vlm_request *submit(session *s, const embed_options *o, json_t *content, vlm_error *error)
{
    json_t *messages = json_pack("[{s:s, s:O}]", "role", o->query ? "query" : "document", "content", content);
    char *text = messages ? json_dumps(messages, JSON_COMPACT) : NULL;
    s->request.messages = text;
    s->request.task = "embed";
    s->request.dimensions = (int)o->dimensions;
    s->request.normalize = o->normalize ? -1 : 0;
    vlm_request *r = text ? vlm_submit(s->engine, &s->request, error) : (err_memory(error, 0), NULL);
    free(text);
    json_decref(messages);
    return r;
}

static int run_embed(const command *self, void *memory, texts words)
{
    (void)self;
    embed_options *o = memory;
    session s = {0};
    int exit_code = 2;
    json_t *inputs = inputs_of(o, &words, &exit_code);
    size_t n = json_array_size(inputs);
    vlm_request **requests = inputs ? MEM_ARRAY(n, vlm_request *) : NULL;
    if (requests && open_session(&s, o, &exit_code)) {
        vlm_error error = {0};
        exit_code = 0;
        for (size_t i = 0; i < n && !exit_code; i++)
            if (!(requests[i] = submit(&s, o, json_array_get(inputs, i), &error))) exit_code = report(&error);
        for (size_t i = 0; i < n && !exit_code; i++) {
            vlm_result result = {0};
            if (vlm_request_collect(requests[i], NULL, NULL, &result, &error)) exit_code = report(&error);
            else print_json(embedding_json(&result, i));
            vlm_result_clear(&result);
        }
        for (size_t i = 0; i < n; i++) vlm_request_free(requests[i]);
    }
    close_session(&s);
    mem_free(requests);
    json_decref(inputs);
    return exit_code;
}

/* ---- vlm rerank ------------------------------------------------------------------------------------------------------------- */

typedef struct ranked { size_t index; double score; } ranked;

static int by_score(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    if (x->score != y->score) return x->score < y->score ? 1 : -1;
    return x->index > y->index ? 1 : -1;
}

static int print_ranking(const embed_options *o, session *s, json_t *query, json_t *documents)
{
    vlm_error error = {0};
    size_t n = json_array_size(documents);
    char *q = json_dumps(query, JSON_COMPACT | JSON_ENCODE_ANY), *d = json_dumps(documents, JSON_COMPACT);
    double *scores = MEM_ARRAY(n, double);
    ranked *order = MEM_ARRAY(n, ranked);
    int exit_code = 0;
    if (!q || !d || !scores || !order) { err_memory(&error, 0); exit_code = report(&error); }
    else if (vlm_rerank(s->engine, q, d, &s->request, scores, NULL, &error)) exit_code = report(&error);
    for (size_t i = 0; !exit_code && i < n; i++) order[i] = (ranked){i, scores[i]};
    if (!exit_code) qsort(order, n, sizeof *order, by_score);
    for (size_t i = 0; !exit_code && i < n && (o->top <= 0 || i < (size_t)o->top); i++) {
        json_t *line = json_pack("{s:I, s:f}", "index", (json_int_t)order[i].index, "relevance_score", order[i].score);
        if (o->documents) json_object_set(line, "document", json_array_get(documents, order[i].index));
        print_json(line);
    }
    free(q);
    free(d);
    mem_free(scores);
    mem_free(order);
    return exit_code;
}

static int run_rerank(const command *self, void *memory, texts words)
{
    (void)self;
    embed_options *o = memory;
    session s = {0};
    int exit_code = 2;
    if (!o->query_text && !o->query_image.count) return usage_error("rerank: there is no --query");
    json_t *documents = inputs_of(o, &words, &exit_code), *query = json_array();
    for (int i = 0; i < o->query_image.count; i++) json_array_append_new(query, media_part("image", o->query_image.item[i]));
    if (o->query_text) json_array_append_new(query, json_pack("{s:s, s:s}", "type", "text", "text", o->query_text));
    if (documents && open_session(&s, o, &exit_code)) exit_code = print_ranking(o, &s, query, documents);
    close_session(&s);
    json_decref(documents);
    json_decref(query);
    return exit_code;
}

const command command_embed = {
    .name = "embed", .help = "Texts, pictures and videos as vectors", .usage = "[options] TEXT ...",
    .options = embed_table, .size = sizeof(embed_options), .defaults = defaults, .run = run_embed,
    .description = "  vlm embed -m DIR --query \"How tall is the tower?\"\n\nOne JSON line for each input, {\"index\", \"embedding\", \"prompt_tokens\"}, in their order; of late-interaction "
                   "models the embedding is a list of vectors. How rows become a vector is what the checkpoint says (modules.json); otherwise it is the last token's, of length 1.",
};

const command command_rerank = {
    .name = "rerank", .help = "Documents in the order in which they answer a query", .usage = "[options] --query TEXT DOCUMENT ...",
    .options = rerank_table, .size = sizeof(embed_options), .defaults = defaults, .run = run_rerank,
    .description = "  vlm rerank -m DIR --query \"How tall is the tower?\" \"It is 330 m high.\" \"It is in Paris.\"\n\nOne JSON line for each document, best first: {\"index\", \"relevance_score\"}. A "
                   "reranker (Qwen3-Reranker, Qwen3-VL-Reranker) says how sure it is, from 0 to 1; a model for embeddings is asked how alike query and document are (MaxSim, where "
                   "each token has a vector).",
};
