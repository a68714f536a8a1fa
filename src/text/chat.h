/* chat.h - a conversation becomes prompt text through the checkpoint's own Jinja template.
 *
 * Text typed by a user must never become a control token. Before rendering, chat_render puts a guard character (one that
 * occurs nowhere in the request) into every spelling of an added token inside the messages' strings; the tokenizer then does
 * not recognise it, and drops the guard before it encodes. Control tokens and placeholders in the result therefore come from the
 * template alone. */
#ifndef VLM_TEXT_CHAT_H
#define VLM_TEXT_CHAT_H

#include <jansson.h>
#include "media/media.h"
#include "text/tokenizer.h"

typedef struct chat_template chat_template;
/* Compiled from chat_template.jinja, chat_template.json, tokenizer_config.json ("default" of a named list; "tool_use" when tools are
 * given), or `override` text. A checkpoint without a template is no error: *out is NULL. */
bool chat_template_load(const char *dir, const tokenizer *t, const char *override, chat_template **out, vlm_error *error);
void chat_template_free(chat_template *t);
const char *chat_template_source(const chat_template *t);

/* One media part, in order of appearance in the conversation. */
typedef struct chat_media {
    media_kind kind;
    char *source;                  /* path, URL, data: */
    double fps;                    /* of a video part, 0: not given */
    json_t *options;               /* the part's other members (num_frames, max_pixels ...), owned */
} chat_media;

typedef struct chat_prompt {
    char *text;                    /* rendered, with guards */
    char guard[5];                 /* the guard character as UTF-8 */
    chat_media *media;
    size_t media_count;
} chat_prompt;
void chat_prompt_free(chat_prompt *p);
/* Removes guards: what is shown to people and compared with references. Caller frees. */
char *chat_prompt_plain(const chat_prompt *p);

typedef struct chat_options {
    bool add_generation_prompt;
    const json_t *tools;           /* array or NULL */
    const json_t *kwargs;          /* object or NULL */
    const char *fallback;          /* family's rule when the checkpoint has no template; NULL: "User: ... Assistant:" */
} chat_options;
/* messages: array as in vlm.h. Without a template: "Role: text" lines. */
bool chat_render(const chat_template *t, const tokenizer *tok, const json_t *messages, const chat_options *options, chat_prompt *out,
                 vlm_error *error);

#endif
