/* main.c - the program vlm: the list of commands, and its help. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/options.h"

const command *const commands[] = {
    &command_generate, &command_chat, &command_server, &command_embed, &command_rerank, &command_check, &command_bench, &command_inspect, &command_models,
    &command_tokenize, &command_parse, &command_template, &command_grammar,
    &command_completion, &command_man, NULL,
};

static void help(void)
{
    printf("vlm %s - runs vision-language models\n\n    vlm COMMAND [options]\n\n", vlm_version());
    for (const command *const *c = commands; *c; c++) printf("  %-12s %s\n", (*c)->name, (*c)->help);
    printf("\n`vlm COMMAND --help` lists a command's options. Without a model named, the demo model (12 M parameters) answers:\n"
           "    vlm generate --image models/demo/media/receipt.png --prompt \"Read the text.\"\n");
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);                      /* a closed pipe is a failed write, not a death */
    if (argc < 2 || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
        help();
        return argc < 2 ? 2 : 0;
    }
    if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "version")) {
        printf("vlm %s\n", vlm_version());
        return 0;
    }
    const char *names[32];
    int n = 0;
    for (const command *const *c = commands; *c; c++) {
        if (n < 31) names[n++] = (*c)->name;
        if (strcmp((*c)->name, argv[1])) continue;
        texts words;
        bool done;
        int exit_code;
        void *options = options_parse(*c, argc - 2, argv + 2, &words, &done, &exit_code);
        if (!done) exit_code = (*c)->run(*c, options, words);
        options_free(*c, options, &words);
        return exit_code;
    }
    names[n] = NULL;
    const char *near = nearest_name(argv[1], names);
    if (near) return usage_error("unknown command '%s'; did you mean '%s'?", argv[1], near);
    return usage_error("unknown command '%s' (vlm --help lists them)", argv[1]);
}
