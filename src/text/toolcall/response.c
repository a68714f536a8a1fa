/* response.c - the parser of toolcall.h with a checkpoint's response_template in the place of a format of the table.
 *
 * Regions become the same events. The reference gives up a whole message when a region is broken (bad JSON, say); here the text from that
 * region on is read by the format, which is more forgiving, and what it cannot read either stays text. */
#include "text/response/internal.h"

static bool is_reasoning(const char *field)
{
    return !strcmp(field, "reasoning_content") || !strcmp(field, "thinking") || !strcmp(field, "reasoning") || !strcmp(field, "thought");
}

/* {"function": {"name", "arguments"}} or {"name", "arguments"} */
static void tell_call(toolcall_parser *p, const char *json, size_t size)
{
    json_item function, name, arguments;
    if (response_json_member(json, size, "function", &function) && function.value[0] == '{') json = function.value, size = function.value_size;
    if (!response_json_member(json, size, "name", &name)) return;
    buf_clear(&p->c.name);
    if (!value_decode_string(name.value, name.value_size, &p->c.name)) return;
    if (response_json_member(json, size, "arguments", &arguments)) {
        if (arguments.value[0] != '"' || !value_decode_string(arguments.value, arguments.value_size, &p->c.arguments)) buf_add(&p->c.arguments, arguments.value, arguments.value_size);
    }
    call_commit(p);
}

static void on_event(void *user, const response_event *e)
{
    toolcall_parser *p = user;
    bool reasoning = is_reasoning(e->field), content = !strcmp(e->field, "content"), calls = !strcmp(e->field, "tool_calls") && !p->options.no_calls;
    p->in_think = reasoning && e->type != RESPONSE_CLOSE;
    if (p->in_prompt) return;                                     /* the prompt's text was not generated */
    if (e->type == RESPONSE_CHUNK && !e->dirty && (reasoning || content)) out_text(p, reasoning ? &p->reasoning : &p->content, e->text, e->size);
    if (e->type != RESPONSE_CLOSE || !calls) return;
    json_item item;
    if (e->text[0] == '{') tell_call(p, e->text, e->size);
    else if (e->text[0] == '[')
        for (size_t at = 0; json_item_next(e->text, e->size, &at, &item);) tell_call(p, item.value, item.value_size);
}

bool template_open(toolcall_parser *p, const toolcall_options *o, vlm_error *error)
{
    p->in_prompt = true;
    p->response = response_parser_new(o->response, o->prompt ? o->prompt : "", o->prompt ? o->prompt_size : 0, o->tools, on_event, p, error);
    p->in_prompt = false;
    return p->response != NULL;
}

/* The format takes over. */
static bool fall_back(toolcall_parser *p)
{
    size_t size;
    const char *rest = response_rest(p->response, &size);
    bool ok = buf_add(&p->in, rest, size);
    response_parser_free(p->response);
    p->response = NULL;
    p->in_think = false;
    p->mode = MODE_TEXT;
    return ok;
}

bool template_feed(toolcall_parser *p, const char *text, size_t size)
{
    vlm_error error = {0};
    bool ok = response_feed(p->response, text, size, &error) || (error.code != VLM_MEMORY && fall_back(p));
    if (!ok) p->failed = true;
    p->queue.visible = p->queue.count;
    return ok && !p->failed;
}

bool template_finish(toolcall_parser *p)
{
    vlm_error error = {0};
    bool ok = response_finish(p->response, &error) || (error.code != VLM_MEMORY && fall_back(p));
    if (!ok) p->failed = true;
    return ok;
}
