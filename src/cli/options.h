/* options.h - one table of commands, each with one table of options: parsing, help, shell completion and the man page come from it.
 *
 * Flags have MLX-VLM's names. `--flag value` and `--flag=value`; an option that takes several values eats words up to the next
 * flag (`--image a.png b.png`); a switch has a `--no-flag` form. An unknown flag names the nearest one. */
#ifndef VLM_CLI_OPTIONS_H
#define VLM_CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include "vlm.h"

typedef enum option_kind {
    OPT_SWITCH,                    /* bool */
    OPT_INT,                       /* int64_t */
    OPT_NUMBER,                    /* double */
    OPT_TEXT,                      /* const char * */
    OPT_TEXTS,                     /* texts: one or more values, may be repeated */
    OPT_SECTION                    /* a heading in the help; `help` is its text */
} option_kind;

typedef struct texts { const char **item; int count; } texts;

typedef struct option {
    option_kind kind;
    const char *name;              /* without "--" */
    const char *value;             /* what stands for the value in the help: "PATH", "N" ... */
    const char *help;              /* one line; says the default */
    size_t offset;                 /* of the field in the command's option struct */
    const char *choices;           /* "auto|exact|fast": the only values taken; NULL: any */
    char letter;                   /* short form, 0: none */
} option;

typedef struct command {
    const char *name;
    const char *help;              /* one line */
    const char *usage;             /* what follows the name: "[options] DIR" */
    const option *options;         /* ends with a zero row */
    size_t size;                   /* of the option struct: zeroed, then defaults() */
    void (*defaults)(void *options);
    int (*run)(const struct command *self, void *options, texts words);   /* words: arguments that are no flags. Returns the exit code */
    const char *description;       /* paragraphs for help and man page, or NULL */
} command;

extern const command *const commands[];        /* NULL-terminated, main.c */

/* Parses argv (what follows the command's name) into an option struct; *done with *exit_code when there is nothing left to run (--help, a wrong
 * flag: message already printed). Release with options_free, also when done. */
void *options_parse(const command *cmd, int argc, char **argv, texts *words, bool *done, int *exit_code);
void options_free(const command *cmd, void *options, texts *words);
void options_help(const command *cmd);

/* "vlm: message" and the hint on stderr; returns the exit code of the status. */
int report(const vlm_error *error);
int usage_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The demo model: in the source tree that the program was built in, or in the installed data. Used when no model is named. */
const char *demo_model(void);

/* Progress bars belong on a terminal only: is standard error one? */
bool interactive(void);
/* A vlm_progress_fn: a bar on standard error once the work has taken a third of a second. */
void progress_bar(void *user, const char *what, uint64_t done, uint64_t total);
void progress_clear(void);

/* The nearest of the NULL-terminated names to `word` when it is near enough to be a slip, else NULL. */
const char *nearest_name(const char *word, const char *const *names);

#endif
