/* thinking.c - see thinking.h. */
#include "engine/thinking.h"

#include <string.h>

#include "base/err.h"

static bool is_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

/* Does the text end with the marker, white space after it aside? */
static bool ends_with(const char *text, const char *marker)
{
    size_t n = strlen(text), k = strlen(marker);
    while (n && is_space(text[n - 1])) n--;
    return n >= k && !memcmp(text + n - k, marker, k);
}

static bool encode(const tokenizer *tok, const char *text, ids *out, vlm_error *error)
{
    encode_options options = {.special = true};
    if (!tokenizer_encode(tok, text, strlen(text), &options, out, error)) return false;
    return out->failed ? err_memory(error, 256) : true;
}

/* The line break and the end; the end alone where a tokenizer would put more than a line break before it (a space, say). */
static bool encode_line(thinking *t, const tokenizer *tok, const char *close, vlm_error *error)
{
    buf back = {0};
    char *text = mem_printf("\n%s", close);
    bool ok = text ? encode(tok, text, &t->close_line, error) : err_memory(error, strlen(close));
    ok = ok && tokenizer_decode(tok, t->close_line.id, t->close_line.count, false, &back, error);
    if (ok && (!back.data || strcmp(back.data, text))) {
        t->close_line.count = 0;
        ok = encode(tok, close, &t->close_line, error);
    }
    mem_free(text);
    buf_free(&back);
    return ok;
}

bool thinking_init(thinking *t, const tokenizer *tok, const char *start, const char *end, const char *close, const char *before,
                   int budget, vlm_error *error)
{
    *t = (thinking){.budget = budget, .state = THINKING_OVER, .whole = true};
    if (!tok || !end || !*end) return true;
    if (!close) close = end;
    if (!(t->end = mem_strdup(end)) || (start && *start && !(t->start = mem_strdup(start)))) {
        thinking_free(t);
        return err_memory(error, strlen(end));
    }
    if (budget >= 0 && (!encode(tok, close, &t->close, error) || !encode_line(t, tok, close, error))) {
        thinking_free(t);
        return false;
    }
    if (t->start) t->state = before && ends_with(before, t->start) ? THINKING_INSIDE : before && ends_with(before, end) ? THINKING_OVER : THINKING_MAYBE;
    t->new_line = before && *before && before[strlen(before) - 1] == '\n';
    return true;
}

void thinking_free(thinking *t)
{
    mem_free(t->start);
    mem_free(t->end);
    ids_free(&t->close);
    ids_free(&t->close_line);
    buf_free(&t->tail);
    *t = (thinking){.budget = -1, .state = THINKING_OVER};
}

static void drop(buf *tail, size_t n)
{
    memmove(tail->data, tail->data + n, tail->size - n + 1);
    tail->size -= n;
}

/* Before the block: white space, then the start marker, or it never comes. */
static void look_for_start(thinking *t)
{
    size_t n = strlen(t->start), spaces = 0;
    while (spaces < t->tail.size && is_space(t->tail.data[spaces])) spaces++;
    if (spaces) drop(&t->tail, spaces);
    if (memcmp(t->tail.data, t->start, t->tail.size < n ? t->tail.size : n)) t->state = THINKING_OVER;
    else if (t->tail.size >= n) {
        t->state = THINKING_INSIDE;
        drop(&t->tail, n);
    }
}

/* Inside: the tail is cut down to what may be the beginning of the end marker. */
static void look_for_end(thinking *t)
{
    size_t n = strlen(t->end), i = 0;
    for (; i < t->tail.size; i++) {
        size_t left = t->tail.size - i;
        if (memcmp(t->tail.data + i, t->end, left < n ? left : n)) continue;
        if (left >= n) t->state = THINKING_OVER;
        break;
    }
    drop(&t->tail, i);
}

bool thinking_add(thinking *t, const char *text, size_t size)
{
    thinking_state before = t->state;
    if (before == THINKING_OVER) return true;
    t->whole = size > 0;
    if (size) t->new_line = text[size - 1] == '\n';
    if (!buf_add(&t->tail, text, size)) return false;
    if (!size && !t->tail.data) return true;
    if (t->state == THINKING_MAYBE) look_for_start(t);
    if (t->state == THINKING_INSIDE) look_for_end(t);
    if (before == THINKING_INSIDE && t->state == THINKING_INSIDE) t->tokens++;
    return true;
}

const ids *thinking_close(const thinking *t)
{
    if (t->state != THINKING_INSIDE || t->budget < 0 || t->tokens < t->budget) return NULL;
    if (t->tokens < t->budget + 8 && (!t->whole || t->tail.size)) return NULL;      /* not amid a character, nor in the end marker itself */
    return t->new_line ? &t->close : &t->close_line;
}
