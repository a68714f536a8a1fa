/* line.h - reading lines: with editing and history on a terminal (libedit), plainly from a pipe. */
#ifndef VLM_CLI_LINE_H
#define VLM_CLI_LINE_H

#include <stdbool.h>

typedef struct line_reader line_reader;
line_reader *line_open(const char *prompt);            /* NULL: out of memory */
void line_close(line_reader *r);
/* The next line without its newline, valid until the next call. NULL: end of input. *interrupted: Ctrl-C at the prompt (the line is ""). */
const char *line_read(line_reader *r, bool *interrupted);
bool line_is_terminal(const line_reader *r);

#endif
