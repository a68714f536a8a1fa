/* commands.h - the commands of the program, one file each. */
#ifndef VLM_CLI_COMMANDS_H
#define VLM_CLI_COMMANDS_H

#include "cli/options.h"

extern const command command_generate, command_chat, command_check, command_bench, command_inspect, command_models, command_completion, command_man;
extern const command command_tokenize, command_parse;
extern const command command_embed, command_rerank;
extern const command command_template, command_grammar, command_server;

#endif
