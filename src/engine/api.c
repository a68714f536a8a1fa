/* api.c - the calls of vlm.h that need no engine of the caller's: one-shot generation, templates, tokens. */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "engine/engine.h"
#include "models/media_options.h"

vlm_status vlm_generate(vlm_model *m, const vlm_request_options *options, vlm_event_fn on_event, void *user, vlm_result *result,
                        vlm_error *error)
{
    vlm_error failure = {0};
    if (result) *result = (vlm_result){0};
    vlm_engine_options engine_options = vlm_engine_options_default();
    vlm_engine *engine = vlm_engine_new(m, &engine_options, &failure);
    vlm_request *request = engine ? vlm_submit(engine, options, &failure) : NULL;
    if (request) vlm_request_collect(request, on_event, user, result, &failure);
    vlm_request_free(request);
    vlm_engine_free(engine);
    if (failure.code && error) *error = failure;
    return failure.code;
}

vlm_chat_options vlm_chat_options_default(void)
{
    return (vlm_chat_options){.size = sizeof(vlm_chat_options), .add_generation_prompt = 1};
}

static bool parse(const char *text, const char *name, json_t **out, vlm_error *error)
{
    json_error_t why;
    if (!text) return true;
    if ((*out = json_loads(text, 0, &why))) return true;
    return err_set(error, VLM_INVALID, "%s: %s (line %d, column %d)", name, why.text, why.line, why.column);
}

static bool has_tokenizer(const vlm_model *m, vlm_error *error)
{
    return m->tok ? true : err_set(error, VLM_UNSUPPORTED, "this model has no tokenizer");
}

char *vlm_apply_chat_template(const vlm_model *m, const char *messages, const vlm_chat_options *options, vlm_error *error)
{
    vlm_chat_options o = vlm_chat_options_default();
    if (options) memcpy(&o, options, options->size < sizeof o ? options->size : sizeof o);
    json_t *list = NULL, *tools = NULL, *kwargs = NULL;
    chat_prompt chat = {0};
    char *text = NULL;
    if (has_tokenizer(m, error) && parse(messages ? messages : "", "messages", &list, error) && parse(o.tools, "tools", &tools, error) &&
        parse(o.template_kwargs, "template_kwargs", &kwargs, error)) {
        const char *marks[4] = {NULL};
        for (int kind = MEDIA_IMAGE, n = 0; kind <= MEDIA_AUDIO && m->arch->placeholder; kind++)
            if ((marks[n] = m->arch->placeholder(m, (media_kind)kind))) n++;
        chat_options c = {.add_generation_prompt = o.add_generation_prompt, .tools = tools, .kwargs = kwargs, .placeholders = marks};
        for (int kind = MEDIA_IMAGE; kind <= MEDIA_AUDIO && m->arch->placeholder; kind++) c.marks[kind] = m->arch->placeholder(m, (media_kind)kind);
        c.video_as_stills = stills_wanted(m);
        if (chat_render(m->chat, m->tok, list, &c, &chat, error) && !(text = chat_prompt_plain(&chat))) err_memory(error, strlen(chat.text));
    }
    chat_prompt_free(&chat);
    json_decref(list);
    json_decref(tools);
    json_decref(kwargs);
    return text;
}

vlm_status vlm_tokenize(const vlm_model *m, const char *text, int special, int32_t **out, size_t *count, vlm_error *error)
{
    ids list = {0};
    vlm_error failure = {0};
    encode_options options = {.special = special != 0};
    *out = NULL;
    *count = 0;
    if (has_tokenizer(m, &failure) && tokenizer_encode(m->tok, text, strlen(text), &options, &list, &failure)) {
        if (list.failed || (!list.id && !(list.id = MEM_ARRAY(1, int32_t)))) err_memory(&failure, sizeof(int32_t));
    }
    if (failure.code) {
        ids_free(&list);
        if (error) *error = failure;
        return failure.code;
    }
    *out = list.id;
    *count = list.count;
    return VLM_OK;
}

char *vlm_detokenize(const vlm_model *m, const int32_t *id, size_t count, int skip_special, vlm_error *error)
{
    buf text = {0};
    if (!has_tokenizer(m, error)) return NULL;
    if (!tokenizer_decode(m->tok, id, count, skip_special != 0, &text, error)) return buf_free(&text), NULL;
    char *out = buf_take(&text);
    if (!out) err_memory(error, text.size);
    return out;
}
