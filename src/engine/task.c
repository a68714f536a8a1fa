/* task.c - see task.h. */
#include "engine/task.h"

#include <math.h>
#include <string.h>

#include "base/err.h"
#include "base/thread.h"

static const char EMBED_INSTRUCTION[] = "Represent the user's input.";
static const char RERANK_INSTRUCTION[] = "Given a search query, retrieve relevant candidates that answer the query.";
static const char JUDGE[] = "Judge whether the Document meets the requirements based on the Query and the Instruct provided. Note that the answer can only be "
                            "\"yes\" or \"no\".";

/* ---- what was given ------------------------------------------------------------------------------------------------- */

/* Content of the first message of that role; NULL: there is none. */
static json_t *content_of(const json_t *messages, const char *role)
{
    size_t i;
    json_t *message;
    json_array_foreach(messages, i, message) {
        const char *its = json_string_value(json_object_get(message, "role"));
        if (its && !strcmp(its, role)) return json_object_get(message, "content");
    }
    return NULL;
}

static bool has_media(const json_t *content)
{
    size_t i;
    const json_t *part;
    json_array_foreach(content, i, part) {
        const char *type = json_string_value(json_object_get(part, "type"));
        if (type && strcmp(type, "text")) return true;
    }
    return false;
}

/* All text of a content as one string. */
static bool add_text(buf *out, const json_t *content)
{
    size_t i;
    const json_t *part;
    if (json_is_string(content)) return buf_add(out, json_string_value(content), json_string_length(content));
    json_array_foreach(content, i, part) {
        const json_t *text = json_is_string(part) ? part : json_object_get(part, "text");
        if (json_is_string(text)) buf_add(out, json_string_value(text), json_string_length(text));
    }
    return !out->failed;
}

static bool replace_messages(vlm_request *r, json_t *messages, vlm_error *error)
{
    json_decref(r->messages);
    r->messages = messages;
    return messages || err_memory(error, 0);
}

/* ---- prompts ---------------------------------------------------------------------------------------------------------- */

/* What the checkpoint puts before a query or a document. */
static char *before(const recipe *c, const char *role, const char *instruction)
{
    bool query = !strcmp(role, "query");
    if (query && instruction) return mem_printf("Instruct: %s\nQuery:", instruction);
    const char *own = json_string_value(json_object_get(c->prompts, role));
    return mem_strdup(own ? own : "");
}

static bool take_embed(vlm_request *r, const vlm_model *m, const char *instruction, vlm_error *error)
{
    static const char *const roles[] = {"query", "document", "user"};
    const recipe *c = &m->recipe;
    const char *role = NULL;
    json_t *content = NULL;
    for (int i = 0; i < 3 && !content; i++) content = content_of(r->messages, role = roles[i]);
    if (!content) return err_set(error, VLM_INVALID, "task embed: a message of the role query, document or user was expected");
    if (c->through_chat && m->chat) {
        json_t *system = content_of(r->messages, "system");
        const char *wanted = json_is_string(system) ? json_string_value(system) : instruction ? instruction : EMBED_INSTRUCTION;
        return replace_messages(r, json_pack("[{s:s, s:[{s:s, s:s}]}, {s:s, s:O}]", "role", "system", "content", "type", "text", "text", wanted,
                                             "role", "user", "content", content), error);
    }
    char *first = before(c, role, instruction);
    r->kwargs = first ? json_pack("{s:s}", "before", first) : NULL;
    mem_free(first);
    r->own_template = c->text;
    return (r->kwargs || err_memory(error, 0)) && replace_messages(r, json_pack("[{s:s, s:O}]", "role", "user", "content", content), error);
}

static void add_item(json_t *parts, const char *title, const json_t *content)
{
    size_t i;
    json_t *part;
    json_array_append_new(parts, json_pack("{s:s, s:s}", "type", "text", "text", title));
    if (json_is_string(content)) json_array_append_new(parts, json_pack("{s:s, s:O}", "type", "text", "text", content));
    json_array_foreach(content, i, part)
        if (json_is_object(part)) json_array_append(parts, part);
}

static bool take_rerank(vlm_request *r, const vlm_model *m, const char *instruction, vlm_error *error)
{
    const json_t *query = content_of(r->messages, "query"), *document = content_of(r->messages, "document");
    if (!query || !document) return err_set(error, VLM_INVALID, "task rerank: messages of the roles query and document were expected");
    if (m->recipe.yes < 0 || m->recipe.no < 0) return err_set(error, VLM_UNSUPPORTED, "this model cannot rerank: \"yes\" and \"no\" are no tokens of it");
    if (!instruction) instruction = RERANK_INSTRUCTION;
    if (m->recipe.through_chat && m->chat) {
        json_t *parts = json_array();
        char *told = mem_printf("<Instruct>: %s", instruction);
        if (told) json_array_append_new(parts, json_pack("{s:s, s:s}", "type", "text", "text", told));
        mem_free(told);
        add_item(parts, "<Query>:", query);
        add_item(parts, "\n<Document>:", document);
        return replace_messages(r, json_pack("[{s:s, s:[{s:s, s:s}]}, {s:s, s:o}]", "role", "system", "content", "type", "text", "text", JUDGE, "role", "user",
                                             "content", parts), error);
    }
    if (has_media(query) || has_media(document)) return err_set(error, VLM_UNSUPPORTED, "this reranker takes text only");
    buf text = {0};
    buf_addf(&text, "<Instruct>: %s\n\n<Query>: ", instruction);
    add_text(&text, query);
    buf_adds(&text, "\n\n<Document>: ");
    add_text(&text, document);
    json_t *messages = text.failed ? NULL : json_pack("[{s:s, s:s}, {s:s, s:s}]", "role", "system", "content", JUDGE, "role", "user", "content", text.data);
    buf_free(&text);
    r->own_template = m->recipe.judge;
    return replace_messages(r, messages, error);
}

bool task_take(vlm_request *r, const vlm_model *m, const vlm_request_options *o, vlm_error *error)
{
    const char *task = o->task ? o->task : "generate";
    if (!strcmp(task, "generate")) return true;
    r->task = !strcmp(task, "embed") ? TASK_EMBED : TASK_RERANK;
    if (r->task == TASK_RERANK && strcmp(task, "rerank")) return err_set(error, VLM_INVALID, "task \"%.30s\": generate, embed or rerank was expected", task);
    if (o->dimensions < 0 || o->dimensions > m->recipe.dimensions)
        return err_set(error, VLM_INVALID, "dimensions is %d; 1 to %d was expected, or 0 for all", o->dimensions, m->recipe.dimensions);
    r->dimensions = o->dimensions ? o->dimensions : m->recipe.dimensions;
    r->normalize = o->normalize < 0 ? m->recipe.normalize : o->normalize != 0;
    r->parse = false;
    r->max_tokens = 1;
    r->min_tokens = 0;
    if (r->task == TASK_RERANK && !r->messages) return err_set(error, VLM_INVALID, "task rerank: messages of the roles query and document were expected");
    if (!r->messages) return true;                /* a prompt text as it is */
    if (r->kwargs) { json_decref(r->kwargs); r->kwargs = NULL; }
    return r->task == TASK_EMBED ? take_embed(r, m, o->instruction, error) : take_rerank(r, m, o->instruction, error);
}

/* ---- rows -------------------------------------------------------------------------------------------------------------- */

bool task_prepare(vlm_request *r, const vlm_model *m, vlm_error *error)
{
    size_t rows = m->recipe.pooling == POOL_LAST ? 1 : (size_t)r->seq.n, floats = 0;
    if (r->task != TASK_EMBED) return true;
    r->seq.every = m->recipe.pooling != POOL_LAST;
    if (r->seq.every) r->seq.logits_from = 0;
    if (!mem_mul(rows, (size_t)m->hidden, &floats) || !(r->seq.hidden = MEM_ARRAY(floats, float))) return err_memory(error, floats * sizeof(float));
    return true;
}

/* Rows [n, cols] to one. */
static void pool_rows(pooling how, const float *rows, int64_t n, int64_t cols, float *out)
{
    const float *one = how == POOL_FIRST || how == POOL_LAST ? rows : NULL;       /* the last one's row is the only one */
    for (int64_t c = 0; c < cols; c++) {
        double sum = 0, most = -INFINITY;
        for (int64_t i = 0; !one && i < n; i++) {
            sum += rows[i * cols + c];
            if (rows[i * cols + c] > most) most = rows[i * cols + c];
        }
        out[c] = one ? one[c] : (float)(how == POOL_MAX ? most : sum / (double)n);
    }
}

static void make_unit(float *x, int64_t n)
{
    double squares = 0;
    for (int64_t c = 0; c < n; c++) squares += (double)x[c] * x[c];
    for (int64_t c = 0; c < n && squares > 0; c++) x[c] = (float)(x[c] / sqrt(squares));
}

bool task_finish(vlm_request *r, vlm_model *m, arena *scratch, vlm_error *error)
{
    const recipe *c = &m->recipe;
    if (r->task == TASK_RERANK) return request_emit_embedding(r, &r->relevance, 1, 1, 1) || err_memory(error, sizeof(float));
    tensor x = {r->seq.hidden, DT_F32, r->seq.every ? r->seq.n_prompt : 1, m->hidden, m->hidden};
    run work = {.dev = &m->dev, .scratch = scratch, .adapters = r->seq.adapters};
    arena_mark mark = arena_get_mark(scratch);     /* what the step left there is needed still */
    if (c->pooling != POOL_EACH) {
        tensor one = run_tensor(&work, 1, m->hidden);
        if (run_ok(&work)) pool_rows(c->pooling, x.data, x.rows, x.cols, one.data);
        x = one;
    }
    pool_enter(m->dev.pool);
    if (c->project.data) x = op_linear(&work, x, &c->project, c->project_bias);
    pool_leave(m->dev.pool);
    bool ok = run_ok(&work);
    if (!ok && error) *error = work.error;
    for (int64_t i = 0; ok && r->normalize && i < x.rows; i++) make_unit(tensor_row(x, i), r->dimensions);
    ok = ok && (request_emit_embedding(r, x.data, (int)x.rows, r->dimensions, x.stride) || err_memory(error, (size_t)x.rows * (size_t)r->dimensions * sizeof(float)));
    arena_release(scratch, mark);
    return ok;
}

void task_judge(vlm_request *r, const vlm_model *m, const float *logits)
{
    r->relevance = 1 / (1 + expf(logits[m->recipe.no] - logits[m->recipe.yes]));
}

double vlm_similarity(const float *a, int a_rows, const float *b, int b_rows, int cols)
{
    double sum = 0;
    for (int i = 0; i < a_rows; i++) {
        double most = -INFINITY;
        for (int k = 0; k < b_rows; k++) {
            double product = 0;
            for (int c = 0; c < cols; c++) product += (double)a[(size_t)i * (size_t)cols + (size_t)c] * b[(size_t)k * (size_t)cols + (size_t)c];
            if (product > most) most = product;
        }
        if (b_rows > 0) sum += most;
    }
    return sum;
}
