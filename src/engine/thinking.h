/* thinking.h - is the answer thinking now, for how many tokens already, and what ends it.
 *
 *     prompt ... <think> ⏎ reasoning ... ⏎ </think> ⏎ answer        one block, first in the answer or left open by the prompt
 *                └ start      tokens      close ┘
 *
 * It is found in the text's bytes, not in token ids, so that markers of several tokens are no special case. When the block has had as many
 * tokens as the budget allows, the tokens of `close` - a line break where one is missing, the end marker, what the format wants
 * after it - are what has to come next: they are computed like sampled ones and count like them. */
#ifndef VLM_ENGINE_THINKING_H
#define VLM_ENGINE_THINKING_H

#include "text/tokenizer.h"

typedef enum thinking_state { THINKING_MAYBE, THINKING_INSIDE, THINKING_OVER } thinking_state;

typedef struct thinking {
    char *start, *end;             /* markers; NULL: this model does not think */
    char *also;                    /* another text that ends the block and does not belong to it (a call), or NULL */
    ids close, close_line;         /* what ends it: after a line break, and within a line */
    int budget;                    /* -1: none */
    thinking_state state;
    int tokens;                    /* inside the block */
    buf tail;                      /* what may be the beginning of the marker looked for; once over: the end marker and what followed it */
    size_t rest;                   /* in the tail: where that begins */
    bool new_line;                 /* how the text ends */
    int missing;                   /* bytes of a character that has begun */
} thinking;

/* Any may be NULL. close: what is forced, if it is not the end marker alone. */
typedef struct thinking_marks { const char *start, *end, *close, *also; } thinking_marks;

/* before: the end of the prompt's text. */
bool thinking_init(thinking *t, const tokenizer *tok, const thinking_marks *marks, const char *before, int budget, vlm_error *error);
/* Another text to force. */
bool thinking_close_with(thinking *t, const tokenizer *tok, const char *close, vlm_error *error);
void thinking_free(thinking *t);
/* The bytes of one more token, control tokens included; they may be a part of a character. False: out of memory. */
bool thinking_add(thinking *t, const char *text, size_t size);
/* When it has just ended: the text behind it that came with the same token. Not zero-terminated. */
const char *thinking_rest(const thinking *t, size_t *size);
/* The tokens that have to come now; NULL: it may go on. */
const ids *thinking_close(const thinking *t);

#endif
