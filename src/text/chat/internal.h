/* internal.h - what the chat files share: source.c (finding templates), chat.c (rendering for generation), raw.c (rendering as the
 * reference does), messages.c (messages), guard.c (guards). */
#ifndef VLM_TEXT_CHAT_INTERNAL_H
#define VLM_TEXT_CHAT_INTERNAL_H

#include "base/err.h"
#include "text/chat.h"
#include "text/jinja.h"
#include "text/json_wide.h"
#include "text/tokenizer/internal.h"

/* What a template can show and how its family wants it, found by trying (chat/probe.c). */
typedef struct chat_form {
    bool takes_strings, takes_parts;   /* content */
    bool knows_none;               /* it asks for none */
    bool knows_developer;
    bool takes_system, takes_systems, takes_late_system;       /* one at the start, several there, one after others */
    bool takes_repeats;            /* the same role twice in a row */
    bool arguments_as_text;        /* arguments of calls: JSON text, not an object */
    bool results_as_objects;       /* results of tools: objects, where JSON text would be shown as a string */
    bool results_in_call;          /* results of tools: objects in tool_responses of the message that called */
    bool ids_of_nine, ids_of_kimi; /* ids of calls: nine letters and digits; functions.NAME:NUMBER */
} chat_form;

/* One template. A checkpoint may have several with names: default, tool_use, rag ... */
typedef struct chat_variant {
    char *name, *source;
    jinja *j;                      /* NULL: does not compile (an error when it is chosen) */
    tok_trie control;              /* control tokens that guards break, see chat/guard.c */
    chat_form form;
} chat_variant;
struct chat_template {
    chat_variant *item;            /* the default first */
    size_t count, capacity;
    const tokenizer *tok;          /* whose control tokens the tries hold */
};
const chat_variant *chat_find(const chat_template *t, const char *name);          /* t may be NULL */
bool chat_probe(chat_variant *v, const tokenizer *tok, vlm_error *error);          /* false: out of memory */
/* As transformers chooses: by name, else tool_use when there are tools, else default. NULL with a message when it does not compile. */
const chat_variant *chat_choose(const chat_template *t, const char *name, bool tools, vlm_error *error);
/* bos_token and the like from the tokenizer's config as variables; what it lacks stays undefined. */
bool chat_special_tokens(json_t *variables, const tokenizer *tok);

typedef struct chat_list { chat_media *item; size_t count, capacity; } chat_list;
void chat_list_free(chat_list *l);

/* A normalised deep copy of the messages; media in order. v may be NULL (no template), j is what renders. mark: stands with a
 * digit for media in templates that take only strings. */
json_t *chat_normalize(const chat_variant *v, const jinja *j, const json_t *messages, const char *mark, const chat_options *o, chat_list *media,
                       vlm_error *error);
/* chat/fit.c; false: out of memory. */
bool chat_fit(const chat_form *f, json_t *messages);
/* {"thinking": r, **message, "reasoning_content": r} as transformers makes it, or a plain copy; NULL: out of memory. */
json_t *chat_alias_reasoning(const json_t *message);
/* Puts null where there is no content, or "" for both; did it change anything? */
bool chat_fill_content(json_t *messages, bool null);

/* ---- guards ---- */
typedef struct chat_guard {
    char text[5];                  /* the guard character */
    char mark[5];                  /* another one, for media */
    const tok_trie *control;       /* control tokens: 0 marked special, 1 written by the template (not guarded in assistant messages) */
    tok_trie own;                  /* the same when the template holds none for this tokenizer */
    const char *const *placeholders, *const *typed;    /* typed: tokens that stay as they are; NULL: none */
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
