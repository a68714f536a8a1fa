/* terminal.c - the progress bar, and where the demo model lies. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "cli/options.h"

static struct { const char *what; struct timespec begin; bool drawn; } bar;      /* there is one terminal */

bool interactive(void) { return isatty(STDERR_FILENO) == 1; }

void progress_clear(void)
{
    if (bar.drawn) fputs("\r\033[K", stderr);
    bar.drawn = false;
}

void progress_bar(void *user, const char *what, uint64_t done, uint64_t total)
{
    enum { WIDTH = 30 };
    static const double PATIENCE = 0.3;            /* seconds; short work shows no bar */
    (void)user;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (!bar.what || strcmp(bar.what, what)) {
        bar.what = what;
        bar.begin = now;
    }
    double took = (double)(now.tv_sec - bar.begin.tv_sec) + 1e-9 * (double)(now.tv_nsec - bar.begin.tv_nsec);
    if (done >= total) {
        progress_clear();
        bar.what = NULL;
        return;
    }
    if (took < PATIENCE || !total) return;
    char line[WIDTH + 1];
    int full = (int)(done * WIDTH / total);
    for (int i = 0; i < WIDTH; i++) line[i] = i < full ? '#' : '.';
    line[WIDTH] = 0;
    double left = done ? took * (double)(total - done) / (double)done : 0;
    fprintf(stderr, "\r%-10s [%s] %3d %%  %.0f s left \033[K", what, line, (int)(done * 100 / total), left);
    fflush(stderr);
    bar.drawn = true;
}

/* PREFIX/bin/vlm finds PREFIX/share/vlm/models/demo; build/release/vlm finds models/demo of its source tree. */
const char *demo_model(void)
{
    static char found[4096];
    char program[3072];
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    if (n < 0) n = 0;
    program[n] = 0;
    static const char *const below[] = {"share/vlm/models/demo", "models/demo"};
    for (char *slash; (slash = strrchr(program, '/'));) {
        *slash = 0;
        for (size_t i = 0; i < sizeof below / sizeof *below; i++) {
            snprintf(found, sizeof found, "%s/%s/config.json", program, below[i]);
            if (file_exists(found)) {
                *strrchr(found, '/') = 0;
                return found;
            }
        }
    }
    return "models/demo";
}
