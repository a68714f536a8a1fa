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

bool thinking_close_with(thinking *t, const tokenizer *tok, const char *close, vlm_error *error)
{
    t->close.count = t->close_line.count = 0;
    return t->budget < 0 || (encode(tok, close, &t->close, error) && encode_line(t, tok, close, error));
}

static bool copy(const char *text, char **out)
{
    return !text || !*text || (*out = mem_strdup(text)) != NULL;
}

bool thinking_init(thinking *t, const tokenizer *tok, const thinking_marks *marks, const char *before, int budget, vlm_error *error)
{
    *t = (thinking){.budget = budget, .state = THINKING_OVER};
    if (!tok || !marks->end || !*marks->end) return true;
    const char *close = marks->close ? marks->close : marks->end;
    if (!copy(marks->start, &t->start) || !copy(marks->end, &t->end) || !copy(marks->also, &t->also)) {
        thinking_free(t);
        return err_memory(error, strlen(close));
    }
    if (!thinking_close_with(t, tok, close, error)) {
        thinking_free(t);
        return false;
    }
    if (t->start) t->state = before && ends_with(before, t->start) ? THINKING_INSIDE : before && ends_with(before, t->end) ? THINKING_OVER : THINKING_MAYBE;
    t->new_line = before && *before && before[strlen(before) - 1] == '\n';
    return true;
}

void thinking_free(thinking *t)
{
    mem_free(t->start);
    mem_free(t->end);
    mem_free(t->also);
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

/* How much of the marker is at `at` in the tail: all, a beginning at its end, or (0) nothing. */
static size_t match(const buf *tail, size_t at, const char *marker)
{
    size_t n = marker ? strlen(marker) : 0, left = tail->size - at;
    if (n > left) n = left;
    return n && !memcmp(tail->data + at, marker, n) ? n : 0;
}

/* Inside: the tail is cut down to what may be the beginning of a marker that ends it. */
static void look_for_end(thinking *t)
{
    for (size_t i = 0; i < t->tail.size; i++) {
        size_t end = match(&t->tail, i, t->end), also = match(&t->tail, i, t->also);
        if (!end && !also) continue;
        drop(&t->tail, i);
        if (end && end == strlen(t->end)) {
            t->state = THINKING_OVER;
            t->rest = end;
        } else if (also && also == strlen(t->also)) {
            t->state = THINKING_OVER;
            t->rest = 0;
        }
        return;
    }
    drop(&t->tail, t->tail.size);
}

const char *thinking_rest(const thinking *t, size_t *size)
{
    *size = t->tail.size - t->rest;
    return t->tail.data + t->rest;
}

static void count_missing(thinking *t, const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];
        if ((c & 0xC0) == 0x80 && t->missing) t->missing--;
        else t->missing = c >= 0xF0 ? 3 : c >= 0xE0 ? 2 : c >= 0xC0 ? 1 : 0;
    }
}

bool thinking_add(thinking *t, const char *text, size_t size)
{
    thinking_state before = t->state;
    if (before == THINKING_OVER) return true;
    count_missing(t, text, size);
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
    if (t->tokens < t->budget + 8 && (t->missing || t->tail.size)) return NULL;      /* not amid a character, nor in the end marker itself */
    return t->new_line ? &t->close : &t->close_line;
}
