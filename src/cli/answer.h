/* answer.h - options that say what an answer may be (tools, structured output), and how answers look on a terminal. */
#ifndef VLM_CLI_ANSWER_H
#define VLM_CLI_ANSWER_H

#include "cli/flags.h"

typedef struct answer_flags {
    const char *tools, *tool_choice, *tool_format, *json_schema, *response_format, *grammar, *regex;
    texts choice;
    bool parallel, parse;
} answer_flags;
void answer_flags_default(answer_flags *f);
/* Into the request; what has to stay alive goes to `keep`. False after a message, *exit_code is set. */
bool answer_flags_apply(const answer_flags *f, vlm_request_options *out, kept *keep, int *exit_code);

#define ANSWER_OPTIONS(type, field)                                                                                                       \
    {OPT_SECTION, .help = "Tools and structured output"},                                                                                 \
    {OPT_TEXT, "tools", "FILE|JSON", "JSON array of tool definitions", offsetof(type, field.tools), NULL, 0},                             \
    {OPT_TEXT, "tool-choice", "WHICH", "auto, none, required, or the name of the tool that has to be called (auto)",                      \
     offsetof(type, field.tool_choice), NULL, 0},                                                                                         \
    {OPT_SWITCH, "parallel-tool-calls", NULL, "several calls in one answer (on)", offsetof(type, field.parallel), NULL, 0},               \
    {OPT_TEXT, "tool-format", "NAME", "how calls are written (the chat template's)", offsetof(type, field.tool_format), NULL, 0},         \
    {OPT_TEXT, "json-schema", "FILE|JSON", "the answer is JSON of this schema", offsetof(type, field.json_schema), NULL, 0},              \
    {OPT_TEXT, "response-format", "JSON", "as in OpenAI's API; json_object: any JSON object", offsetof(type, field.response_format), NULL, 0}, \
    {OPT_TEXT, "regex", "PATTERN", "the answer matches it as a whole", offsetof(type, field.regex), NULL, 0},                             \
    {OPT_TEXTS, "choice", "TEXT", "the answer is one of these", offsetof(type, field.choice), NULL, 0},                                   \
    {OPT_TEXT, "grammar", "FILE", "the answer keeps to this grammar (GBNF; FILE.lark: Lark)", offsetof(type, field.grammar), NULL, 0},     \
    {OPT_SWITCH, "parse", NULL, "take reasoning and tool calls out of the text (on)",                      \
     offsetof(type, field.parse), NULL, 0}

/* An answer on standard output as it comes: text as it is, reasoning dimmed (or left out), each call on a line of its own. */
typedef enum printed { PRINT_NOTHING, PRINT_TEXT, PRINT_REASONING, PRINT_CALL } printed;
typedef struct printer {
    bool reasoning;                /* show it */
    bool colours;                  /* standard output is a terminal */
    printed last;
    bool line_end;                 /* what was printed last ends with a line break */
} printer;
printer printer_new(bool verbose);
void printer_event(printer *p, const vlm_event *event);
/* Ends the last line. */
void printer_end(printer *p);

#endif
