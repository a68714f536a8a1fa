/* reasoning.c - thinking: one block at the start of the answer, or one that the prompt left open. */
#include "text/toolcall/internal.h"

void think_prepare(toolcall_parser *p)
{
    const toolcall_format *f = p->f;
    const char *open[4] = {p->options.think_open}, *close[4] = {p->options.think_close};
    for (int i = 0; i < 3; i++) {
        if (!p->options.think_open) open[i + 1] = f->think[i][0];
        if (!p->options.think_close) close[i + 1] = f->think[i][1];
    }
    for (int i = 0; i < 4; i++) {
        marker_add(&p->start_set, open[i], MARK_SECTION, i);
        marker_add(&p->start_set, close[i], MARK_THINK_CLOSE, i);
        marker_add(&p->think_set, close[i], MARK_THINK_CLOSE, i);
    }
    p->mode = f->flags & HEADERS ? MODE_HEADER : MODE_START;
    p->in_think = p->options.thinking_open && p->think_set.count && !(f->flags & HEADERS);
    /* inside also: end-of-turn markers, and calls where they end thinking */
    for (int i = 0; i < p->text_set.count; i++) {
        const marker *m = &p->text_set.item[i];
        if (m->kind == MARK_END || (m->kind == MARK_SECTION && f->flags & CALL_ENDS_THINKING)) marker_add(&p->think_set, m->text, m->kind, m->index);
    }
}

/* The start of the answer: an opening marker opens (or, if the prompt did it already, is repeated and left out); an end marker without
 * a beginning is what is left of an empty block. */
step_result think_start(toolcall_parser *p)
{
    size_t at = skip_space(p, p->pos);
    if (at >= p->in.size) return STEP_MORE;
    size_t len = 0;
    const marker *hit = NULL;
    int found = marker_here(p, &p->start_set, at, &len, &hit);
    if (found < 0) return STEP_MORE;
    if (found) {
        p->pos = p->scan = at + len;
        p->in_think = hit->kind == MARK_SECTION;
    }
    p->mode = p->in_think ? MODE_THINK : MODE_TEXT;
    return STEP_ON;
}

step_result think_step(toolcall_parser *p)
{
    size_t at, len;
    const marker *hit = NULL;
    int found = marker_search(p, &p->think_set, &at, &len, &hit);
    out_text(p, &p->reasoning, p->in.data + p->pos, at - p->pos);
    p->pos = at;
    if (!found) return STEP_MORE;
    if (hit->kind == MARK_THINK_CLOSE) {
        p->pos = p->scan = at + len;
        p->in_think = false;
        p->mode = MODE_TEXT;
        return STEP_ON;
    }
    if (hit->kind == MARK_END) {
        out_hold(p, &p->reasoning, p->in.data + at, len);
        p->pos = p->scan = at + len;
        return STEP_ON;
    }
    p->in_think = false;                                          /* a call */
    p->mode = MODE_TEXT;
    return STEP_ON;
}

/* ---- what others ask ---- */

const char *toolcall_think_open(const toolcall_format *f) { return f->think[0][0]; }
const char *toolcall_think_close(const toolcall_format *f) { return f->think[0][1]; }
const char *toolcall_think_force(const toolcall_format *f) { return f->force ? f->force : f->think[0][1]; }

const char *toolcall_think_also_ends(const toolcall_format *f) { return f->flags & CALL_ENDS_THINKING ? f->spelling.trigger : NULL; }

bool toolcall_prompt_thinks(const toolcall_format *f, const char *prompt, size_t size)
{
    while (size && is_space(prompt[size - 1])) size--;
    if (f->flags & HEADERS) return false;
    for (int i = 0; i < 3; i++) {
        const char *open = f->think[i][0];
        size_t n = open ? strlen(open) : 0, len;
        if (!open) continue;
        bool suffix = strchr(open, '\1') != NULL;                 /* the marker is longer than its text */
        for (size_t more = 0; more <= (suffix ? 64 : 0) && n - suffix + more <= size; more++) {
            size_t take = n - suffix + more;
            if (marker_match(open, prompt + size - take, take, &len) == 1 && len == take) return true;
        }
    }
    return false;
}
