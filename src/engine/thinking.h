/* thinking.h - is the answer thinking now, for how many tokens already, and what ends it.
 *
 *     prompt ... <think> ⏎ reasoning ... ⏎ </think> ⏎ answer        one block, first in the answer or left open by the prompt
 *                └ start      tokens      close ┘
 *
 * It is found in the text, not in token ids, so that markers of several tokens are no special case. When the block has had as many
 * tokens as the budget allows, the tokens of `close` - a line break where one is missing, the end marker, what the format wants
 * after it - are what has to come next: they are computed like sampled ones and count like them. */
#ifndef VLM_ENGINE_THINKING_H
#define VLM_ENGINE_THINKING_H

#include "text/tokenizer.h"

typedef enum thinking_state { THINKING_MAYBE, THINKING_INSIDE, THINKING_OVER } thinking_state;

typedef struct thinking {
    char *start, *end;             /* markers; NULL: this model does not think */
    ids close, close_line;         /* what ends it: after a line break, and within a line */
    int budget;                    /* -1: none */
    thinking_state state;
    int tokens;                    /* inside the block */
    buf tail;                      /* what may be the beginning of the marker looked for */
    bool new_line, whole;          /* how the text ends; was the last token's text whole? */
} thinking;

/* start, end: markers (NULL: none). close: what is forced, NULL: the end marker. before: the end of the prompt's text. */
bool thinking_init(thinking *t, const tokenizer *tok, const char *start, const char *end, const char *close, const char *before,
                   int budget, vlm_error *error);
void thinking_free(thinking *t);
/* The text of one more token, control tokens included. False: out of memory. */
bool thinking_add(thinking *t, const char *text, size_t size);
/* The tokens that have to come now; NULL: it may go on. */
const ids *thinking_close(const thinking *t);

#endif
