/* line.c - see line.h. libedit is loaded when a line is edited: linking it would cost every start of the program some milliseconds. */
#include "cli/line.h"

#include <dlfcn.h>
#include <errno.h>
#include <histedit.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"

enum { HISTORY_LINES = 1000 };

/* What is used of libedit, under its own names. */
#define LIBEDIT(X) X(el_init) X(el_end) X(el_set) X(el_get) X(el_gets) X(el_reset) X(el_source) X(history_init) X(history_end) X(history)
static struct {
#define X(name) __typeof__(name) *name;
    LIBEDIT(X)
#undef X
} edit;

static bool load_libedit(void)
{
    void *library = dlopen("libedit.so.2", RTLD_NOW | RTLD_LOCAL);
    if (!library) return false;
#define X(name)                                                       \
    *(void **)&edit.name = dlsym(library, #name);                     \
    if (!edit.name) return false;
    LIBEDIT(X)
#undef X
    return true;
}

struct line_reader {
    const char *prompt;
    EditLine *edit;                                /* NULL: input is no terminal */
    History *history;
    char *line;                                    /* of getline, or the copy of an edited line */
    size_t capacity;
};

static char *prompt_of(EditLine *editor)
{
    line_reader *r = NULL;
    edit.el_get(editor, EL_CLIENTDATA, &r);
    return (char *)(r ? r->prompt : "> ");
}

line_reader *line_open(const char *prompt)
{
    line_reader *r = MEM_NEW(line_reader);
    if (!r) return NULL;
    r->prompt = prompt;
    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO) || !load_libedit()) return r;
    HistEvent event;
    r->edit = edit.el_init("vlm", stdin, stdout, stderr);
    r->history = edit.history_init();
    if (!r->edit || !r->history) {
        line_close(r);
        return NULL;
    }
    edit.history(r->history, &event, H_SETSIZE, HISTORY_LINES);
    edit.history(r->history, &event, H_SETUNIQUE, 1);
    edit.el_set(r->edit, EL_CLIENTDATA, r);
    edit.el_set(r->edit, EL_PROMPT, prompt_of);
    edit.el_set(r->edit, EL_EDITOR, "emacs");
    edit.el_set(r->edit, EL_HIST, edit.history, r->history);
    edit.el_source(r->edit, NULL);                      /* the user's ~/.editrc */
    return r;
}

void line_close(line_reader *r)
{
    if (!r) return;
    if (r->history) edit.history_end(r->history);
    if (r->edit) edit.el_end(r->edit);
    free(r->line);
    mem_free(r);
}

bool line_is_terminal(const line_reader *r) { return r->edit != NULL; }

static const char *read_edited(line_reader *r, bool *interrupted)
{
    int n = 0;
    errno = 0;
    const char *line = edit.el_gets(r->edit, &n);
    if (!line || n <= 0) {
        if (errno != EINTR) return NULL;
        *interrupted = true;
        edit.el_reset(r->edit);
        fputc('\n', stdout);
        return "";
    }
    HistEvent event;
    if (n > 1) edit.history(r->history, &event, H_ENTER, line);
    free(r->line);
    r->line = strndup(line, (size_t)n);
    if (r->line) r->line[strcspn(r->line, "\r\n")] = 0;
    return r->line;
}

const char *line_read(line_reader *r, bool *interrupted)
{
    *interrupted = false;
    if (r->edit) return read_edited(r, interrupted);
    ssize_t n = getline(&r->line, &r->capacity, stdin);
    if (n < 0) {
        *interrupted = errno == EINTR && !feof(stdin);
        clearerr(stdin);
        return *interrupted ? "" : NULL;
    }
    r->line[strcspn(r->line, "\r\n")] = 0;
    return r->line;
}
