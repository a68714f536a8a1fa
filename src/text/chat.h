/* chat.h - a conversation becomes prompt text through the checkpoint's own Jinja template.
 *
 * Text typed by a user must never become a control token. Before rendering, chat_render puts a guard character (one that
 * occurs nowhere in the request) into every spelling of a control token inside the request's strings; the tokenizer then does
 * not recognise it, and drops the guard before it encodes. Control tokens and placeholders in the result therefore come from the
 * template alone. Control tokens are: added tokens marked special, added tokens that the template itself writes (not white space),
 * and options->placeholders. In assistant messages only the first kind is guarded, since templates look there for </think>
 * and the like. */
#ifndef VLM_TEXT_CHAT_H
#define VLM_TEXT_CHAT_H

#include <jansson.h>
#include <time.h>
#include "media/media.h"
#include "text/jinja.h"
#include "text/tokenizer.h"

typedef struct chat_template chat_template;
/* Compiled from `override` text, else from the first that the checkpoint has of: processor_config.json's chat_template, chat_template.json,
 * chat_template.jinja with additional_chat_templates/NAME.jinja, tokenizer_config.json's chat_template (a text, or a list of named ones). As in
 * transformers, requests with tools take "tool_use" if there is one, all others "default". A checkpoint without a template is no
 * error: *out is NULL. */
bool chat_template_load(const char *dir, const tokenizer *t, const char *override, chat_template **out, vlm_error *error);
void chat_template_free(chat_template *t);
const char *chat_template_source(const chat_template *t);

/* One media part, in order of appearance in the conversation. */
typedef struct chat_media {
    media_kind kind;
    char *source;                  /* path, URL, data:; NULL when the part names none (the media come from elsewhere) */
    double fps;                    /* of a video part, 0: not given */
    int still;                     /* > 0: this image is the still-th picture out of a video; the first names the video's source, the others none */
    int pictures;                  /* images in the whole conversation, where the family wants to know (vlm_arch.counts_images); else 0 */
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
    const char *fallback;          /* Jinja text used when the checkpoint has no template; NULL: "User: ... Assistant:" lines */
    const char *const *placeholders;  /* NULL-terminated texts that must come from the template alone, or NULL */
    const char *const *typed;         /* NULL-terminated control tokens that people may type: they mean something in a prompt and structure nothing; or NULL */
    const char *marks[3];          /* by media_kind: what stands for a medium in a template that takes only text, or NULL */
    const struct tm *now;          /* the clock of strftime_now; NULL: the local time */
    /* For models that see images but no video: a video part becomes so many image parts where it stands. stills tells how many (NULL: one). */
    bool video_as_stills;
    bool (*stills)(void *user, const chat_media *video, int *count, vlm_error *error);
    void *stills_user;
} chat_options;
/* messages: array as in vlm.h; they are not changed. What is made of them before the template sees them:
 *   - OpenAI spellings of parts become text, image, video, audio; a string in a list of parts is a text part
 *   - members that are null are left out; content that is missing becomes null or "" when the template cannot do without
 *   - reasoning under one of reasoning_content, thinking, reasoning appears as reasoning_content and thinking
 *   - role developer becomes system when the template does not know it
 *   - strings become lists of parts, or text parts one string, for templates that take only the other
 *   - system messages, roles in a row, arguments, results and ids of tool calls are fitted to the template, see chat/fit.c
 * kwargs are further template variables; continue_final_message (true or the name of a field) leaves the last message open. */
bool chat_render(const chat_template *t, const tokenizer *tok, const json_t *messages, const chat_options *options, chat_prompt *out,
                 vlm_error *error);


/* What transformers' render_jinja_template makes of {"messages", "tools", "documents", "add_generation_prompt", "continue_final_message",
 * "chat_template" (a name, or a template), any further variable}: no guards, nothing normalised. For comparing; text of strangers goes
 * through chat_render. t may be NULL when the request brings its template. */
bool chat_render_raw(const chat_template *t, const tokenizer *tok, const json_t *request, const struct tm *now, jinja_report *report, buf *out,
                     vlm_error *error);

#endif
