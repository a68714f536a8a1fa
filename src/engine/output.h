/* output.h - from tokens to what may be shown: streaming detokenizer, then the parser of reasoning and tool calls, then stop strings.
 *
 *     token ──> detokenizer ──> parser ──┬─> reasoning, calls ─────────────────────> sink
 *                  raw: ───────────────> └─> content ──> stop strings ──> spaces ──> sink
 *
 * Text that could still become a stop string is held back; a stop string itself and what follows it are never shown. Stop strings
 * are looked for in the content alone. White space right after the reasoning is left out; with tools, so is that before a call. Without
 * the parser (raw) the content is all text. The token that ends a sequence (EOS) has no text. */
#ifndef VLM_ENGINE_OUTPUT_H
#define VLM_ENGINE_OUTPUT_H

#include "models/model.h"
#include "text/toolcall.h"

typedef enum output_end { OUTPUT_GOES_ON, OUTPUT_EOS, OUTPUT_STOP_STRING, OUTPUT_ENOUGH_CALLS } output_end;

/* How a model marks reasoning and calls, and which of its tokens are such marks. */
typedef struct output_marks {
    const toolcall_format *format;
    const tokenizer *tok;
    int32_t *id;                   /* added tokens that are markers */
    int count;
    bool thinks;                   /* by itself, when the chat template is not told whether it shall */
    response_template *response;   /* the checkpoint's own description, which goes before the format; NULL: none */
} output_marks;
/* name: of a format; NULL: the one of the chat template, or the checkpoint's response_template. */
bool output_marks_init(output_marks *m, const vlm_model *model, const char *name, vlm_error *error);
void output_marks_free(output_marks *m);
bool output_is_mark(const output_marks *m, int32_t token);

/* Where the pieces go: text of one kind that came with one token arrives as one event. False: out of memory. */
typedef struct output_sink { bool (*emit)(void *user, const toolcall_event *event); void *user; } output_sink;

typedef struct output {
    const vlm_model *model;
    const output_marks *marks;
    detokenizer *detok;
    toolcall_parser *parser;       /* NULL: raw */
    char **stops;                  /* NULL-terminated */
    int32_t *eos;
    int n_eos;
    bool skip_special, include_stop, tools, one_call;
    int count, least;              /* tokens so far; before `least` of them nothing stops */
    buf piece;                     /* text of one token */
    buf held;                      /* content that may be the beginning of a stop string */
    buf spaces;                    /* white space that shows only if more content comes */
    buf shown;                     /* what the token has shown so far, all of one kind: */
    toolcall_event_type kind;
    bool swallow;                  /* reasoning was last: white space is left out */
    int calls;                     /* that have begun */
    bool stopped;                  /* nothing more is shown: */
    const char *stop_string;       /* this was met, or (NULL) there are calls enough */
} output;

/* As in vlm.h: JSON arrays of strings or ids, or NULL. */
typedef struct output_options {
    const char *stop, *eos_tokens, *stop_token_ids;
    bool ignore_eos, skip_special, include_stop;
    int min_tokens;
} output_options;
bool output_init(output *o, const vlm_model *m, const output_options *options, vlm_error *error);

typedef struct output_parsing {
    const output_marks *marks;     /* borrowed */
    const json_t *tools;           /* NULL: calls are text */
    bool thinking_open, one_call;  /* one_call: nothing after the first */
    bool enforced;                 /* a grammar makes calls come out right: markers count also where they are spelled in other tokens */
    bool swallow;                  /* white space at the beginning is left out, also when there is no reasoning */
    const char *prompt;            /* its text, for response templates; may be NULL */
    const char *think_open, *think_close;      /* markers instead of the format's, or NULL; borrowed */
    uint64_t seed;                 /* of call ids */
} output_parsing;
/* Before the first token. parsing NULL: raw. */
bool output_begin(output *o, const output_parsing *parsing, vlm_error *error);
void output_free(output *o);

bool output_ends(const output *o, int32_t token);      /* does this token end the sequence? */
/* One more token. False: no memory or a broken tokenizer. */
bool output_add(output *o, int32_t token, const output_sink *sink, output_end *end, vlm_error *error);
/* No more tokens: what was held back. reason: the finish reason as far as it is known. */
bool output_finish(output *o, const char *reason, const output_sink *sink, vlm_error *error);

#endif
