/* openapi.c - /openapi.json: the routes (routes.def) and the fields of their bodies (the tables that read them), so that the description cannot say
 * something else than the server does. What a table does not know (the shape of messages, say) is in `shapes`. */
#include "server/server_internal.h"

#include <stdlib.h>
#include <string.h>

#define TEXT_PART "{\"type\":\"object\",\"required\":[\"type\",\"text\"],\"properties\":{\"type\":{\"const\":\"text\"},\"text\":{\"type\":\"string\"}}}"
#define NAME "{\"type\":\"string\",\"minLength\":1}"
#define PARAMETERS "{\"enum\":[{\"type\":\"object\",\"properties\":{}},null]}"
#define RESPONSE_TOOLS "{\"type\":[\"array\",\"null\"],\"items\":{\"type\":\"object\",\"required\":[\"type\",\"name\"],\"properties\":{\"type\":{\"const\":\"function\"},\"name\":" NAME ",\"description\":{\"type\":[\"string\",\"null\"]},\"parameters\":" PARAMETERS "}}}"
#define ANTHROPIC_TOOLS "{\"type\":[\"array\",\"null\"],\"items\":{\"type\":\"object\",\"required\":[\"name\",\"input_schema\"],\"properties\":{\"name\":" NAME ",\"description\":{\"type\":[\"string\",\"null\"]}," \
                        "\"input_schema\":{\"const\":{\"type\":\"object\",\"properties\":{}}}}}}"
static const struct { const char *name, *schema; } shapes[] = {
    {"messages", "{\"type\":\"array\",\"minItems\":1,\"description\":\"Content is a string or parts: text, image_url, input_audio, video_url.\",\"items\":{\"type\":\"object\","
                 "\"required\":[\"role\",\"content\"],\"properties\":{\"role\":{\"enum\":[\"user\",\"assistant\",\"system\"]},\"content\":{\"anyOf\":[{\"type\":\"string\"},"
                 "{\"type\":\"array\",\"minItems\":1,\"items\":" TEXT_PART "}]}}}}"},
    {"input", "{\"anyOf\":[{\"type\":\"string\"},{\"type\":\"array\",\"minItems\":1,\"items\":{\"type\":\"object\",\"required\":[\"role\",\"content\"],\"properties\":{"
              "\"type\":{\"const\":\"message\"},\"role\":{\"enum\":[\"user\",\"assistant\",\"system\",\"developer\"]},\"content\":{\"type\":\"string\"}}}}]}"},
    {"prompt", "{\"anyOf\":[{\"type\":\"string\",\"minLength\":1},{\"type\":\"array\",\"minItems\":1,\"items\":{\"type\":\"integer\",\"minimum\":64,\"maximum\":255}}]}"},
    {"tokens", "{\"type\":\"array\",\"items\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":2147483647}}"},
    {"stop", "{\"anyOf\":[{\"type\":\"string\",\"minLength\":1},{\"type\":\"array\",\"maxItems\":64,\"items\":{\"type\":\"string\",\"minLength\":1}},{\"type\":\"null\"}]}"},
    {"stop_sequences", "{\"type\":[\"array\",\"null\"],\"maxItems\":64,\"items\":{\"type\":\"string\",\"minLength\":1}}"},
    {"n", "{\"type\":[\"integer\",\"null\"],\"minimum\":1,\"maximum\":16}"},
    {"stream_options", "{\"type\":[\"object\",\"null\"],\"properties\":{\"include_usage\":{\"type\":\"boolean\"}}}"},
    {"logit_bias", "{\"type\":[\"object\",\"null\"],\"description\":\"Token ids and what is added to their logits.\",\"additionalProperties\":{\"type\":\"number\",\"minimum\":-100,\"maximum\":100},"
                   "\"propertyNames\":{\"pattern\":\"^[0-9]{1,3}$\"}}"},
    {"response_format", "{\"anyOf\":[{\"type\":\"null\"},{\"type\":\"object\",\"required\":[\"type\"],\"properties\":{\"type\":{\"enum\":[\"text\",\"json_object\"]}}},{\"type\":\"object\","
                        "\"required\":[\"type\",\"json_schema\"],\"properties\":{\"type\":{\"const\":\"json_schema\"},\"json_schema\":{\"type\":\"object\",\"required\":[\"name\",\"schema\"],"
                        "\"properties\":{\"name\":" NAME ",\"schema\":{\"const\":{\"type\":\"object\"}}}}}}]}"},
    {"tools", "{\"type\":[\"array\",\"null\"],\"items\":{\"type\":\"object\",\"required\":[\"type\",\"function\"],\"properties\":{\"type\":{\"const\":\"function\"},\"function\":{\"type\":\"object\","
              "\"required\":[\"name\"],\"properties\":{\"name\":" NAME ",\"description\":{\"type\":[\"string\",\"null\"]},\"parameters\":" PARAMETERS "}}}}}"},
    {"tool_choice", "{\"enum\":[\"auto\",\"none\",null]}"},
    {"tool_parser", "{\"type\":\"null\",\"description\":\"The name of a tool format, to read calls in another way than the template's.\"}"},
    {"reasoning", "{\"type\":[\"object\",\"string\",\"boolean\",\"null\"]}"},
    {"resize_shape", "{\"type\":[\"array\",\"null\"],\"minItems\":1,\"maxItems\":2,\"items\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":16384}}"},
    {"chat_template_kwargs", "{\"type\":[\"object\",\"null\"]}"},
    {"logprobs", "{\"type\":[\"boolean\",\"null\"]}"},
    {"model", "{\"type\":[\"string\",\"null\"],\"description\":\"One of GET /v1/models; the first one when it is missing.\"}"},
};

typedef struct body_shape { const char *path; const field *tables[3]; const char *required, *further; } body_shape;
static const body_shape bodies[] = {
    {"/chat/completions", {chat_fields, generation_fields}, "messages", NULL},
    {"/completions", {completion_fields, generation_fields}, "prompt", NULL},
    {"/responses", {response_fields, generation_fields}, "input", "input"},
    {"/responses/input_tokens", {response_fields, generation_fields}, "input", "input"},
    {"/messages", {generation_fields}, "messages", "messages"},
    {"/messages/count_tokens", {generation_fields}, "messages", "messages"},
    {"/embeddings", {embedding_fields}, "input", NULL},
    {"/rerank", {rerank_fields}, "query", NULL},
    {"/tokenize", {text_route_fields}, NULL, NULL},
    {"/detokenize", {detokenize_fields}, "tokens", NULL},
    {"/apply-template", {text_route_fields}, "messages", NULL},
};

static json_t *shape_of(const char *name)
{
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (!strcmp(shapes[i].name, name)) return json_loads(shapes[i].schema, 0, NULL);
    return NULL;
}

static json_t *field_schema(const field *f)
{
    json_t *known = shape_of(f->name);
    if (known) return known;
    switch (f->kind) {
    case F_BOOL: return json_pack("{s:[s, s]}", "type", "boolean", "null");
    case F_SEED: return json_pack("{s:[s, s]}", "type", "integer", "null");
    case F_INT: return json_pack("{s:[s, s], s:f, s:f}", "type", "integer", "null", "minimum", f->min, "maximum", f->max);
    case F_NUMBER: return json_pack("{s:[s, s], s:f, s:f}", "type", "number", "null", "minimum", f->min, "maximum", f->max);
    case F_TEXT: return json_pack("{s:[s, s]}", "type", "string", "null");
    case F_ARRAY: return json_pack("{s:[s, s]}", "type", "array", "null");
    case F_OBJECT: return json_pack("{s:[s, s]}", "type", "object", "null");
    case F_ANY: break;
    }
    return json_object();
}

static json_t *body_of(const route *r)
{
    size_t n = sizeof bodies / sizeof *bodies, i = 0;
    while (i < n && strcmp(bodies[i].path, r->path)) i++;
    if (i == n) return NULL;
    json_t *properties = json_object(), *schema = json_pack("{s:s, s:o}", "type", "object", "properties", properties);
    for (int t = 0; t < 3 && bodies[i].tables[t]; t++)
        for (const field *f = bodies[i].tables[t]; f->name; f++)
            if (!json_object_get(properties, f->name) && strcmp(f->name, "eos_tokens") && strcmp(f->name, "min_pixels")) json_object_set_new(properties, f->name, field_schema(f));
    if (bodies[i].tables[0] == text_route_fields) json_object_set_new(properties, "prompt", json_pack("{s:s}", "type", "string"));
    if (bodies[i].further) json_object_set_new(properties, bodies[i].further, shape_of(bodies[i].further));
    if (!strcmp(r->path, "/tokenize")) json_object_set_new(schema, "anyOf", json_loads("[{\"required\":[\"prompt\"]},{\"required\":[\"messages\"]}]", 0, NULL));
    if (strcmp(r->path, "/chat/completions") && strcmp(r->path, "/completions")) json_object_del(properties, "n");
    if (!strcmp(r->path, "/completions"))
        for (int k = 0; k < 2; k++) json_object_del(properties, k ? "tools" : "tool_choice");
    if (!strncmp(r->path, "/responses", 10)) json_object_set_new(properties, "tools", json_loads(RESPONSE_TOOLS, 0, NULL));
    if (!strncmp(r->path, "/messages", 9)) {
        json_object_set_new(properties, "tools", json_loads(ANTHROPIC_TOOLS, 0, NULL));
        json_object_set_new(properties, "tool_choice", json_loads("{\"enum\":[{\"type\":\"auto\"},{\"type\":\"none\"},null]}", 0, NULL));
    }
    if (bodies[i].required) json_object_set_new(schema, "required", json_pack("[s]", bodies[i].required));
    return json_pack("{s:b, s:{s:{s:o}}}", "required", 1, "content", "application/json", "schema", schema);
}

static json_t *answer(const char *description, const char *type)
{
    return json_pack("{s:s, s:{s:{s:{}}}}", "description", description, "content", type, "schema");
}

static json_t *operation(const route *r, const char *prefix)
{
    static const struct { const char *status, *description; } refusals[] = {
        {"400", "A field is wrong; the error names it."}, {"401", "The API key is missing or wrong."}, {"404", "No such model, response or path."}, {"405", "Another method is meant."},
        {"413", "The body is too long."}, {"415", "The body is no JSON."}, {"429", "The queue is full; see Retry-After."}, {"500", "The server has failed."},
        {"503", "Loading, draining or out of memory; see Retry-After."}};
    char id[128];
    snprintf(id, sizeof id, "%s%s%s", r->method, prefix, r->path);
    bool page = strstr(r->path, "/web/") || !strcmp(r->path, "/"), text = !strcmp(r->path, "/metrics");
    json_t *o = json_pack("{s:s, s:s, s:{s:o}}", "operationId", id, "summary", r->summary, "responses", "200",
                          answer("What was asked for.", page ? "text/html" : text ? "text/plain" : "application/json"));
    json_t *answers = json_object_get(o, "responses"), *content = json_object_get(json_object_get(answers, "200"), "content"), *body = body_of(r);
    if (strstr(r->path, "/web/"))
        for (int i = 0; i < 2; i++) json_object_set_new(content, i ? "text/css" : "text/javascript", json_object());
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) json_object_set_new(answers, refusals[i].status, answer(refusals[i].description, "application/json"));
    if (body && strcmp(r->path, "/tokenize")) json_object_set_new(content, "text/event-stream", json_object());
    if (body) json_object_set_new(o, "requestBody", body);
    const char *open = strchr(r->path, '{');
    if (open) {
        char name[32];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(open + 1, "}"), open + 1);
        json_object_set_new(o, "parameters", json_pack("[{s:s, s:s, s:b, s:{s:s}}]", "name", name, "in", "path", "required", 1, "schema", "type", "string"));
    }
    if (r->flags & OPEN) json_object_set_new(o, "security", json_array());
    return o;
}

void route_openapi(server *s, exchange *x, const char *argument)
{
    json_t *paths = json_object();
    for (const route *r = routes; r->path; r++) {
        const char *prefix = r->flags & V1 ? "/v1" : "";
        char path[128], method[8];
        snprintf(path, sizeof path, "%s%s", prefix, r->path);
        for (size_t i = 0; i < sizeof method; i++) method[i] = (char)(r->method[i] ? r->method[i] | 32 : 0);
        method[sizeof method - 1] = 0;
        json_t *item = json_object_get(paths, path);
        if (!item) json_object_set_new(paths, path, item = json_object());
        json_object_set_new(item, method, operation(r, prefix));
    }
    send_json(x, 200, json_pack("{s:s, s:{s:s, s:s, s:s}, s:o, s:{s:{s:{s:s, s:s}}}, s:[{s:[]}, {}]}", "openapi", "3.1.0", "info", "title", "vlm server", "version", vlm_version(),
                                "description", "OpenAI's and Anthropic's APIs for vision-language models. Paths under /v1 are answered without it, too.", "paths", paths,
                                "components", "securitySchemes", "key", "type", "http", "scheme", "bearer", "security", "key"));
}
