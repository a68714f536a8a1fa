/* toolcall.h - what a model printed becomes reasoning, content and tool calls, while it is printed.
 *
 * Every family spells tool calls in its own way. One table (toolcall/formats.c) says how: which text of the chat template gives the
 * format away, how thinking is marked, how a call is written. One parser reads them all. It is fed text as it comes, cut anywhere, and
 * says what is certain: never a marker or a part of one, nothing that is taken back later. Events put together are the same for every cut.
 *
 *     toolcall_parser *p = toolcall_parser_new(format, &options, &error);
 *     toolcall_feed(p, piece, size, false);  while (toolcall_next(p, &event)) ...        // any number of times
 *     toolcall_finish(p, "stop");            while (toolcall_next(p, &event)) ...
 *
 * Rules (they decide what is a call and what is text):
 *   - Thinking is one block at the start of the answer, or one that the prompt left open; inside it only its end is looked for (in formats
 *     with calls_end_thinking a call ends it, too). Later thinking markers are text.
 *   - A call whose body is complete counts, also when its end marker is missing. A broken or unfinished one is text, markers included,
 *     unless calls of the same list went before it: then it is dropped. With options.eager its arguments were already told as they came;
 *     then it stays a call with the arguments so far.
 *   - Arguments are JSON text: the model's own spelling where it prints JSON (1.0, 1e5, 20 digits, order of keys stay), else typed by the
 *     tool's schema: a declared string is taken as it is, others as JSON or a Python literal.
 *   - Leading and trailing white space of reasoning and content is not told; end-of-turn markers at the end are dropped. */
#ifndef VLM_TEXT_TOOLCALL_H
#define VLM_TEXT_TOOLCALL_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "text/response.h"
#include "vlm.h"

/* ---- how calls are written: enough to force a model to write one ----
 *     answer = begin CALL (between CALL)* end        CALL = call_begin NAME name_end ARGUMENTS call_end
 * In these texts %i is the call's number from 0, %I from 1, %d an id of nine letters and digits, %n the name once more, %k (in tag_end) the key;
 * in tag_middle %t is the value's JSON type (string, number, boolean, object, array, null), %s "true" for a string, else "false". */
typedef enum toolcall_arguments {
    TOOLCALL_JSON,                 /* a JSON object */
    TOOLCALL_TAGS,                 /* (tag_begin KEY tag_middle VALUE tag_end)*: strings raw, others JSON */
    TOOLCALL_PAIRS,                /* {KEY:VALUE,...}: keys bare, strings between `quote`s without escapes, objects and lists nest */
    TOOLCALL_PYTHON,               /* KEY=VALUE, ... as Python literals */
    TOOLCALL_NESTED,               /* tags as in TOOLCALL_TAGS; objects are nested tags, list members have the tag "item" */
    TOOLCALL_NONE                  /* the format has no calls */
} toolcall_arguments;

typedef struct toolcall_spelling {
    toolcall_arguments arguments;
    const char *trigger;           /* text that begins a call: where a grammar takes over from free text */
    const char *begin, *between, *end;
    const char *call_begin, *name_end, *call_end;
    const char *tag_begin, *tag_middle, *tag_end, *tag_between;
    const char *quote;
} toolcall_spelling;

typedef struct toolcall_format toolcall_format;

const toolcall_format *toolcall_format_find(const char *name);                  /* NULL: no such format */
const toolcall_format *toolcall_format_at(size_t index);                        /* NULL after the last */
/* The format that a chat template asks for. Never NULL: a template without known markers gives "plain" (<think>, no calls).
 * template may be NULL. */
const toolcall_format *toolcall_format_detect(const char *chat_template);
const char *toolcall_format_name(const toolcall_format *f);
const toolcall_spelling *toolcall_format_spelling(const toolcall_format *f);
/* Thinking markers; NULL when the format has none. */
const char *toolcall_think_open(const toolcall_format *f);
const char *toolcall_think_close(const toolcall_format *f);
/* Text of a call that ends thinking as well; NULL when a call does not. */
const char *toolcall_think_also_ends(const toolcall_format *f);
/* What a model has to be made to print in order to end its thinking and begin to answer: the end marker and what must follow it. */
const char *toolcall_think_force(const toolcall_format *f);
/* Did the prompt leave a thinking block open? */
bool toolcall_prompt_thinks(const toolcall_format *f, const char *prompt, size_t size);
/* Is this text of a special token one of the format's markers? The parser has to see these; other control tokens may be left out. */
bool toolcall_is_marker(const toolcall_format *f, const char *token, size_t size);

/* ---- the parser ---- */
typedef enum toolcall_event_type {
    TOOLCALL_REASONING,            /* text: a piece of reasoning, whole characters */
    TOOLCALL_CONTENT,              /* text: a piece of the answer */
    TOOLCALL_START,                /* index, id, name */
    TOOLCALL_ARGUMENTS_DELTA,      /* index, text: a piece of the arguments' JSON */
    TOOLCALL_END                   /* index */
} toolcall_event_type;

typedef struct toolcall_event {
    toolcall_event_type type;
    size_t index;                  /* of the call: 0, 1, ... */
    const char *id, *name;
    const char *text;              /* zero-terminated only by accident: use size */
    size_t size;
} toolcall_event;

typedef struct toolcall_options {
    const json_t *tools;           /* the request's tools (OpenAI's list, or bare functions); NULL: none are known. Not kept */
    bool no_calls;                 /* calls are ordinary text (the request has no tools) */
    bool thinking_open;            /* the prompt left thinking open, see toolcall_prompt_thinks */
    bool eager;                    /* tell calls while they are written; right when a grammar enforces them */
    bool keep_space;               /* white space around the content is told, and at once */
    const char *think_open, *think_close;   /* instead of the format's markers; kept, not copied. NULL: the format's */
    const response_template *response;      /* the checkpoint's own; NULL: the format says it all. Must outlive the parser */
    const char *prompt;            /* with response: the prompt, whose end may have begun the message; not kept */
    size_t prompt_size;
    uint64_t seed;                 /* generated ids depend on seed and the call's index only */
    /* The text of a token that the tokenizer knows as a control token of its own: such a marker counts only in pieces that were fed as
     * special; typed in a string it is text. NULL: markers count wherever they stand. */
    bool (*is_token)(void *user, const char *text, size_t size);
    void *user;
} toolcall_options;

typedef struct toolcall_parser toolcall_parser;
toolcall_parser *toolcall_parser_new(const toolcall_format *f, const toolcall_options *options, vlm_error *error);
void toolcall_parser_free(toolcall_parser *p);
/* Any number of bytes. special: the piece is the text of one control token. False: out of memory (sticky). */
bool toolcall_feed(toolcall_parser *p, const char *text, size_t size, bool special);
/* The end. finish_reason as far as known ("stop", "length" ...) or NULL: a call that may go on is not complete after "length". */
bool toolcall_finish(toolcall_parser *p, const char *finish_reason);
/* The next event; false when there is none now. Its texts are valid until the next feed, finish or free. */
bool toolcall_next(toolcall_parser *p, toolcall_event *event);

bool toolcall_in_reasoning(const toolcall_parser *p);      /* would the next text be reasoning? */
size_t toolcall_count(const toolcall_parser *p);           /* calls told so far */

#endif
