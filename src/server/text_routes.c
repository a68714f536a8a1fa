/* text_routes.c - /tokenize, /detokenize, /apply-template: what a prompt becomes, without an answer. */
#include "server/generation.h"

#include <math.h>
#include <string.h>

#include "server/chat.h"

typedef struct text_fields {
    const char *model, *prompt, *text;
    const json_t *messages, *tokens, *tools, *kwargs;
    int add_special, skip_special, add_generation_prompt;
} text_fields;
#define AT(name) offsetof(text_fields, name)
const field text_route_fields[] = {
    {"model", F_TEXT, AT(model), 0, 0}, {"prompt", F_TEXT, AT(prompt), 0, 0}, {"text", F_TEXT, AT(text), 0, 0}, {"content", F_TEXT, AT(text), 0, 0},
    {"messages", F_ARRAY, AT(messages), 0, 0}, {"tools", F_ARRAY, AT(tools), 0, 0},
    {"chat_template_kwargs", F_OBJECT, AT(kwargs), 0, 0}, {"add_special_tokens", F_BOOL, AT(add_special), 0, 0},
    {"add_generation_prompt", F_BOOL, AT(add_generation_prompt), 0, 0},
    {0},
};

const field detokenize_fields[] = {
    {"model", F_TEXT, AT(model), 0, 0}, {"tokens", F_ARRAY, AT(tokens), 0, 0}, {"skip_special_tokens", F_BOOL, AT(skip_special), 0, 0},
    {0},
};

typedef struct text_request { json_t *body; text_fields fields; resident *resident; generation scratch; } text_request;

static bool open_request(server *s, exchange *x, const field *fields, text_request *r, refusal *why)
{
    r->fields.add_special = r->fields.add_generation_prompt = 1;
    if (!(r->body = body_object(x, why)) || !body_read(r->body, fields, &r->fields, "", why)) return false;
    if (!check_tools(r->fields.tools, why)) return false;
    if (!r->fields.prompt) r->fields.prompt = r->fields.text;
    return (r->resident = residents_borrow(s->residents, r->fields.model, x, why)) != NULL;
}

static void close_request(text_request *r)
{
    residents_return(r->resident);
    arena_free(&r->scratch.memory);
    json_decref(r->body);
}

static char *render(text_request *r, refusal *why)
{
    vlm_chat_options options = vlm_chat_options_default();
    options.add_generation_prompt = r->fields.add_generation_prompt;
    arena *memory = &r->scratch.memory;
    if (!chat_messages(r->fields.messages, &r->scratch, why)) return NULL;
    if (r->fields.tools) options.tools = body_text(memory, r->fields.tools);
    if (r->fields.kwargs) options.template_kwargs = body_text(memory, r->fields.kwargs);
    vlm_error error = {0};
    char *text = vlm_apply_chat_template(r->resident->model, r->scratch.options.messages, &options, &error);
    if (!text) refuse_error(why, &error);
    return text;
}

void route_apply_template(server *s, exchange *x, const char *argument)
{
    refusal why = {0};
    text_request r = {0};
    char *text = open_request(s, x, text_route_fields, &r, &why) ? render(&r, &why) : NULL;
    if (text) send_json(x, 200, json_pack("{s:o}", "prompt", text_json(text, strlen(text))));
    else refusal_send(x, &why, OPENAI);
    vlm_free(text);
    close_request(&r);
}

void route_tokenize(server *s, exchange *x, const char *argument)
{
    refusal why = {0};
    text_request r = {0};
    bool ok = open_request(s, x, text_route_fields, &r, &why);
    char *rendered = ok && r.fields.messages ? render(&r, &why) : NULL;
    const char *text = rendered ? rendered : r.fields.prompt;
    if (ok && r.fields.messages && !rendered) ok = false;
    if (ok && !text) ok = refuse(&why, 400, "prompt", "'prompt' (a string) or 'messages' (an array) was expected.");
    int32_t *tokens = NULL;
    size_t count = 0;
    vlm_error error = {0};
    if (ok && vlm_tokenize(r.resident->model, text, r.fields.add_special || rendered, &tokens, &count, &error)) ok = refuse_error(&why, &error);
    if (ok) {
        json_t *list = json_array();
        for (size_t i = 0; i < count; i++) json_array_append_new(list, json_integer(tokens[i]));
        send_json(x, 200, json_pack("{s:o, s:I}", "tokens", list, "count", (json_int_t)count));
    } else refusal_send(x, &why, OPENAI);
    vlm_free(tokens);
    vlm_free(rendered);
    close_request(&r);
}

void route_detokenize(server *s, exchange *x, const char *argument)
{
    refusal why = {0};
    text_request r = {0};
    bool ok = open_request(s, x, detokenize_fields, &r, &why);
    if (ok && !r.fields.tokens) ok = refuse(&why, 400, "tokens", "'tokens': an array of token ids was expected.");
    size_t n = json_array_size(r.fields.tokens);
    int32_t *tokens = ok ? MEM_ARRAY(n + 1, int32_t) : NULL;
    if (ok && !tokens) ok = refuse_memory(&why);
    for (size_t i = 0; ok && i < n; i++) {
        const json_t *id = json_array_get(r.fields.tokens, i);
        double value = json_number_value(id);
        if (!json_is_number(id) || value != floor(value) || value < 0 || value > INT32_MAX) ok = refuse(&why, 400, "tokens", "'tokens[%zu]': a token id was expected.", i);
        else tokens[i] = (int32_t)value;
    }
    vlm_error error = {0};
    char *text = ok ? vlm_detokenize(r.resident->model, tokens, n, r.fields.skip_special, &error) : NULL;
    if (ok && !text) ok = refuse_error(&why, &error);
    if (ok) send_json(x, 200, json_pack("{s:o, s:o}", "prompt", text_json(text, strlen(text)), "text", text_json(text, strlen(text))));
    else refusal_send(x, &why, OPENAI);
    vlm_free(text);
    mem_free(tokens);
    close_request(&r);
}
