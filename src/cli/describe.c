/* describe.c - `vlm completion` and `vlm man`: shell completion and the manual page, written from the command tables. */
#include <stdio.h>
#include <string.h>

#include "cli/commands.h"

typedef struct no_options { int none; } no_options;
static const option none[] = {{0}};

static bool at_end(const option *o) { return !o->name && o->kind != OPT_SECTION; }

static void print_words(const command *c)
{
    for (const option *o = c->options; !at_end(o); o++)
        if (o->kind != OPT_SECTION) printf(" --%s", o->name);
    printf(" --help");
}

/* Words after a flag with fixed choices, else files. */
static void print_choices(const command *c)
{
    for (const option *o = c->options; !at_end(o); o++) {
        if (!o->choices) continue;
        printf("        %s:--%s) COMPREPLY=($(compgen -W \"", c->name, o->name);
        for (const char *p = o->choices; *p; p++) putchar(*p == '|' ? ' ' : *p);
        printf("\" -- \"$cur\")); return ;;\n");
    }
}

static int run_completion(const command *self, void *memory, texts words)
{
    const char *shell = words.count ? words.item[0] : "bash";
    if (strcmp(shell, "bash") && strcmp(shell, "zsh")) return usage_error("completion: bash or zsh, not '%s'", shell);
    if (!strcmp(shell, "zsh")) printf("autoload -U +X bashcompinit && bashcompinit\n");
    printf("# shell completion of vlm; use: eval \"$(vlm completion %s)\"\n_vlm() {\n    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} cmd=${COMP_WORDS[1]}\n", shell);
    printf("    if [ \"$COMP_CWORD\" = 1 ]; then COMPREPLY=($(compgen -W \"");
    for (const command *const *c = commands; *c; c++) printf("%s ", (*c)->name);
    printf("\" -- \"$cur\")); return; fi\n    case $cmd:$prev in\n");
    for (const command *const *c = commands; *c; c++) print_choices(*c);
    printf("    esac\n    case $cur in\n    -*) case $cmd in\n");
    for (const command *const *c = commands; *c; c++) {
        printf("        %s) COMPREPLY=($(compgen -W \"", (*c)->name);
        print_words(*c);
        printf("\" -- \"$cur\")) ;;\n");
    }
    printf("        esac ;;\n    *) COMPREPLY=($(compgen -f -- \"$cur\")) ;;\n    esac\n}\ncomplete -o filenames -F _vlm vlm\n");
    return 0;
}

/* troff: backslashes and hyphens are escaped, a leading dot or quote is shielded. */
static void troff(const char *text)
{
    for (const char *p = text; *p; p++) {
        if ((p == text || p[-1] == '\n') && (*p == '.' || *p == '\'')) printf("\\&");
        if (*p == '\\') printf("\\e");
        else if (*p == '-') printf("\\-");
        else putchar(*p);
    }
}

static void man_option(const option *o)
{
    if (o->kind == OPT_SECTION) {
        printf(".PP\n\\fI");
        troff(o->help);
        printf("\\fR\n");
        return;
    }
    printf(".TP\n\\fB");
    if (o->letter) printf("\\-%c\\fR, \\fB", o->letter);
    troff("--");
    troff(o->name);
    printf("\\fR");
    if (o->value) printf(" \\fI%s\\fR%s", o->value, o->kind == OPT_TEXTS ? " ..." : "");
    printf("\n");
    troff(o->help);
    printf("\n");
}

static int run_man(const command *self, void *memory, texts words)
{
    printf(".TH VLM 1 \"\" \"vlm %s\" \"User Commands\"\n.SH NAME\nvlm \\- runs vision\\-language models\n.SH SYNOPSIS\n", vlm_version());
    for (const command *const *c = commands; *c; c++) {
        printf(".B vlm %s\n", (*c)->name);
        troff((*c)->usage);
        printf("\n.br\n");
    }
    printf(".SH COMMANDS\n");
    for (const command *const *c = commands; *c; c++) {
        printf(".SS vlm %s\n", (*c)->name);
        troff((*c)->help);
        printf(".\n");
        if ((*c)->description) {
            printf(".PP\n.nf\n");
            troff((*c)->description);
            printf("\n.fi\n");
        }
        for (const option *o = (*c)->options; !at_end(o); o++) man_option(o);
    }
    printf(".SH EXIT STATUS\n.nf\n");
#define X(name, code, text) printf("%3d  %s\n", code, text);
    VLM_STATUS_TABLE(X)
#undef X
    printf(".fi\n");
    return 0;
}

const command command_completion = {
    .name = "completion", .help = "Print shell completion", .usage = "bash|zsh", .options = none, .size = sizeof(no_options), .run = run_completion,
};
const command command_man = {
    .name = "man", .help = "Print the manual page (troff)", .usage = "", .options = none, .size = sizeof(no_options), .run = run_man,
};
