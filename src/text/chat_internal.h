/* chat_internal.h - what the chat files share: chat.c (templates, rendering), chat_messages.c (messages), chat_guard.c (guards). */
#ifndef VLM_TEXT_CHAT_INTERNAL_H
#define VLM_TEXT_CHAT_INTERNAL_H

#include "base/err.h"
#include "text/chat.h"
#include "text/jinja.h"
#include "text/tok_internal.h"

struct chat_template {
    jinja *main;                   /* the default template */
    jinja *tools;                  /* "tool_use", or NULL */
    char *source;                  /* text of the default template */
    const tokenizer *tok;          /* whose control tokens the tries hold: of main and of tools */
    tok_trie control[2];
    bool takes_strings, takes_parts;   /* which forms of content it can show, found by trying */
    bool knows_none;               /* it asks for none */
    bool knows_developer;
};

typedef struct chat_list { chat_media *item; size_t count, capacity; } chat_list;
void chat_list_free(chat_list *l);

/* A normalised deep copy of the messages; media in order. t may be NULL (no template). */
json_t *chat_normalize(const chat_template *t, const jinja *j, const json_t *messages, chat_list *media, vlm_error *error);
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
bool chat_guard_init(chat_guard *g, const chat_template *t, const jinja *j, const tokenizer *tok, const char *const *placeholders,
                     const json_t *const *values, vlm_error *error);
void chat_guard_free(chat_guard *g);
/* A copy of the value with guards in all strings and keys; NULL: out of memory. */
json_t *chat_guard_value(chat_guard *g, const json_t *value, bool assistant);

#endif
