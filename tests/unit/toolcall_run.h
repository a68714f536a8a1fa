/* toolcall_run.h - for tests of the tool call parser: runs it over a text cut anywhere and puts the events together. */
#ifndef TOOLCALL_RUN_H
#define TOOLCALL_RUN_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "text/toolcall.h"
#include "text/utf8.h"

/* The result as one text: reasoning, content, then name, id and arguments of each call, each on a line of its own between marks. */
typedef struct run_result {
    buf reasoning, content;
    struct { char *id, *name; buf arguments; bool ended; } call[64];
    size_t calls;
    bool ok, order;                /* events came as they must */
} run_result;

static void run_clear(run_result *r)
{
    buf_free(&r->reasoning);
    buf_free(&r->content);
    for (size_t i = 0; i < r->calls; i++) {
        mem_free(r->call[i].id);
        mem_free(r->call[i].name);
        buf_free(&r->call[i].arguments);
    }
    memset(r, 0, sizeof *r);
}

static void run_drain(toolcall_parser *p, run_result *r)
{
    toolcall_event e;
    while (toolcall_next(p, &e)) {
        if (e.type == TOOLCALL_REASONING) buf_add(&r->reasoning, e.text, e.size);
        if (e.type == TOOLCALL_CONTENT) buf_add(&r->content, e.text, e.size);
        if (e.type == TOOLCALL_REASONING || e.type == TOOLCALL_CONTENT) continue;
        if (e.type == TOOLCALL_START) {
            if (e.index != r->calls || e.index >= 64 || (r->calls && !r->call[r->calls - 1].ended)) r->order = false;
            if (r->calls == 64) continue;
            r->call[r->calls].id = mem_strdup(e.id);
            r->call[r->calls].name = mem_strdup(e.name);
            r->calls++;
            continue;
        }
        if (e.index >= r->calls || e.index + 1 != r->calls || r->call[e.index].ended) {
            r->order = false;
            continue;
        }
        if (e.type == TOOLCALL_ARGUMENTS_DELTA) buf_add(&r->call[e.index].arguments, e.text, e.size);
        else r->call[e.index].ended = true;
    }
}

/* cuts: count offsets, ascending; step > 0: pieces of that size instead. */
static run_result run_parser(const char *format, const toolcall_options *options, const char *text, size_t size, const size_t *cuts, size_t count, size_t step,
                             const char *finish)
{
    run_result r = {.order = true};
    toolcall_parser *p = toolcall_parser_new(toolcall_format_find(format), options, NULL);
    size_t at = 0;
    bool ok = p != NULL;
    for (size_t i = 0; ok && step && at + step < size; i++, at += step) {
        ok = toolcall_feed(p, text + at, step, false);
        run_drain(p, &r);
    }
    for (size_t i = 0; ok && i < count; i++) {
        ok = toolcall_feed(p, text + at, cuts[i] - at, false);
        run_drain(p, &r);
        at = cuts[i];
    }
    ok = ok && toolcall_feed(p, text + at, size - at, false);
    if (ok) run_drain(p, &r);
    ok = ok && toolcall_finish(p, finish);
    if (ok) run_drain(p, &r);
    toolcall_parser_free(p);
    for (size_t i = 0; i < r.calls; i++) r.order &= r.call[i].ended;
    r.ok = ok;
    return r;
}

static bool buf_same(const buf *a, const buf *b) { return a->size == b->size && (!a->size || !memcmp(a->data, b->data, a->size)); }

static inline bool run_same(const run_result *a, const run_result *b)
{
    if (!buf_same(&a->reasoning, &b->reasoning) || !buf_same(&a->content, &b->content) || a->calls != b->calls || !a->order || !b->order) return false;
    for (size_t i = 0; i < a->calls; i++)
        if (strcmp(a->call[i].id, b->call[i].id) || strcmp(a->call[i].name, b->call[i].name) || !buf_same(&a->call[i].arguments, &b->call[i].arguments)) return false;
    return true;
}

#endif
