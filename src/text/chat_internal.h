/* chat_internal.h - what the chat files share: chat_source.c (finding templates), chat.c (rendering for generation), chat_raw.c (rendering as the
 * reference does), chat_messages.c (messages), chat_guard.c (guards). */
#ifndef VLM_TEXT_CHAT_INTERNAL_H
#define VLM_TEXT_CHAT_INTERNAL_H

#include "base/err.h"
#include "text/chat.h"
#include "text/jinja.h"
#include "text/tok_internal.h"

/* One template. A checkpoint may have several with names: default, tool_use, rag ... */
typedef struct chat_variant {
    char *name, *source;
    jinja *j;                      /* NULL: does not compile (an error when it is chosen) */
    tok_trie control;              /* control tokens that guards break, see chat_guard.c */
    bool takes_strings, takes_parts;   /* which forms of content it can show, found by trying */
    bool knows_none;               /* it asks for none */
    bool knows_developer;
} chat_variant;
struct chat_template {
    chat_variant *item;            /* the default first */
    size_t count, capacity;
    const tokenizer *tok;          /* whose control tokens the tries hold */
};
const chat_variant *chat_find(const chat_template *t, const char *name);          /* t may be NULL */
/* As transformers chooses: by name, else tool_use when there are tools, else default. NULL with a message when it does not compile. */
const chat_variant *chat_choose(const chat_template *t, const char *name, bool tools, vlm_error *error);
/* bos_token and the like from the tokenizer's config as variables; what it lacks stays undefined. */
bool chat_special_tokens(json_t *variables, const tokenizer *tok);

typedef struct chat_list { chat_media *item; size_t count, capacity; } chat_list;
void chat_list_free(chat_list *l);

/* A normalised deep copy of the messages; media in order. v may be NULL (no template), j is what renders. */
json_t *chat_normalize(const chat_variant *v, const jinja *j, const json_t *messages, chat_list *media, vlm_error *error);
/* Puts "" for null content. */
bool chat_fill_content(json_t *messages);

/* ---- guards ---- */
typedef struct chat_guard {
    char text[5];                  /* the guard character */
    const tok_trie *control;       /* control tokens: 0 marked special, 1 written by the template (not guarded in assistant messages) */
    tok_trie own;                  /* the same when the template holds none for this tokenizer */
    const char *const *placeholders;
    bool used;
} chat_guard;
bool chat_guard_tokens(const jinja *j, const tokenizer *tok, tok_trie *out);
/* Chooses a character that occurs in none of the values (NULL-terminated list) and not in the template's source. */
bool chat_guard_init(chat_guard *g, const chat_template *t, const chat_variant *v, const jinja *j, const tokenizer *tok,
                     const char *const *placeholders, const json_t *const *values, vlm_error *error);
void chat_guard_free(chat_guard *g);
/* A copy of the value with guards in all strings and keys; NULL: out of memory. */
json_t *chat_guard_value(chat_guard *g, const json_t *value, bool assistant);

#endif
