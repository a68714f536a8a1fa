/* scan.c - see scan.h. Strings are checked for UTF-8 as they are read; what is skipped is read by jansson anyway. */
#include "text/tokenizer/scan.h"

#include <string.h>

#include "text/utf8.h"

tok_scan tok_scan_start(const char *text, size_t size) { return (tok_scan){.at = text, .end = text + size}; }

void tok_scan_free(tok_scan *s)
{
    buf_free(&s->text[0]);
    buf_free(&s->text[1]);
}

static void skip_space(tok_scan *s)
{
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\n' || *s->at == '\t' || *s->at == '\r')) s->at++;
}

bool tok_scan_take(tok_scan *s, char c)
{
    skip_space(s);
    if (s->at >= s->end || *s->at != c) return false;
    s->at++;
    return true;
}

static bool bad(tok_scan *s)
{
    s->bad = true;
    return false;
}

/* Four hex digits at s->at. */
static bool hex4(tok_scan *s, uint32_t *out)
{
    *out = 0;
    if (s->end - s->at < 4) return bad(s);
    for (int i = 0; i < 4; i++) {
        char c = *s->at++;
        int d = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (d < 0) return bad(s);
        *out = *out * 16 + (uint32_t)d;
    }
    return true;
}

/* After a backslash. */
static bool escape(tok_scan *s, buf *out)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (s->at >= s->end) return bad(s);
    char c = *s->at++;
    const char *known = c ? strchr(from, c) : NULL;
    if (known) return buf_addc(out, to[known - from]);
    uint32_t code, low;
    if (c != 'u' || !hex4(s, &code)) return bad(s);
    if (code >= 0xD800 && code < 0xDC00) {
        if (s->end - s->at < 2 || s->at[0] != '\\' || s->at[1] != 'u') return bad(s);
        s->at += 2;
        if (!hex4(s, &low) || low < 0xDC00 || low > 0xDFFF) return bad(s);
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    } else if (code >= 0xDC00 && code < 0xE000) return bad(s);
    return buf_add_utf8(out, code);
}

bool tok_scan_string(tok_scan *s, int slot, const char **text, size_t *size)
{
    if (!tok_scan_take(s, '"')) return bad(s);
    const char *start = s->at;
    while (s->at < s->end && *s->at != '"' && *s->at != '\\' && (unsigned char)*s->at >= 0x20) s->at++;
    if (s->at >= s->end || (unsigned char)*s->at < 0x20) return bad(s);
    *text = start;
    *size = (size_t)(s->at - start);
    if (*s->at == '\\') {
        buf *out = &s->text[slot];
        buf_clear(out);
        buf_add(out, start, *size);
        while (s->at < s->end && *s->at != '"') {
            if ((unsigned char)*s->at < 0x20) return bad(s);
            if (*s->at != '\\') buf_addc(out, *s->at++);
            else if (s->at++, !escape(s, out)) return bad(s);
        }
        if (s->at >= s->end || out->failed) return bad(s);
        *text = out->data ? out->data : "";
        *size = out->size;
    }
    s->at++;
    return utf8_valid(*text, *size) || bad(s);
}

bool tok_scan_integer(tok_scan *s, int64_t *value)
{
    skip_space(s);
    bool negative = s->at < s->end && *s->at == '-';
    const char *first = s->at += negative;
    *value = 0;
    while (s->at < s->end && *s->at >= '0' && *s->at <= '9' && s->at - first < 18) *value = *value * 10 + (*s->at++ - '0');
    if (s->at == first || (s->at < s->end && ((*s->at >= '0' && *s->at <= '9') || *s->at == '.' || *s->at == 'e' || *s->at == 'E'))) return bad(s);
    if (negative) *value = -*value;
    return true;
}

/* Any value: brackets are counted, strings jumped over. */
static bool skip_value(tok_scan *s)
{
    size_t depth = 0;
    skip_space(s);
    do {
        if (s->at >= s->end) return bad(s);
        char c = *s->at++;
        if (c == '{' || c == '[') depth++;
        else if (c == '}' || c == ']') {
            if (!depth--) return bad(s);
        } else if (c == '"') {
            while (s->at < s->end && *s->at != '"') s->at += 1 + (*s->at == '\\');
            if (s->at >= s->end) return bad(s);
            s->at++;
        } else if (!depth && c != ',')             /* a number or word */
            while (s->at < s->end && !strchr(",}] \n\r\t", *s->at)) s->at++;
    } while (depth);
    return true;
}

/* Members of the object at s; for each the handler sees the key and stands before the value, which it has to take. */
typedef bool member_fn(tok_scan *s, const char *key, size_t size, tok_spans *out);

static bool each_member(tok_scan *s, member_fn *handle, tok_spans *out)
{
    const char *key;
    size_t size;
    if (!tok_scan_take(s, '{')) return bad(s);
    if (tok_scan_take(s, '}')) return true;
    do {
        if (!tok_scan_string(s, 0, &key, &size) || !tok_scan_take(s, ':')) return bad(s);
        if (!handle(s, key, size, out)) return false;
    } while (tok_scan_take(s, ','));
    return tok_scan_take(s, '}') || bad(s);
}

static bool is(const char *key, size_t size, const char *name) { return size == strlen(name) && memcmp(key, name, size) == 0; }

static bool model_member(tok_scan *s, const char *key, size_t size, tok_spans *out)
{
    bool vocab = is(key, size, "vocab"), merges = is(key, size, "merges");
    skip_space(s);
    const char *start = s->at;
    if (!skip_value(s)) return false;
    if ((vocab && (out->vocab || *start != '{')) || (merges && (out->merges || *start != '['))) return bad(s);
    if (vocab) out->vocab = start, out->vocab_size = (size_t)(s->at - start);
    if (merges) out->merges = start, out->merges_size = (size_t)(s->at - start);
    return true;
}

static bool root_member(tok_scan *s, const char *key, size_t size, tok_spans *out)
{
    if (!is(key, size, "model")) return skip_value(s);
    return out->vocab ? bad(s) : each_member(s, model_member, out);
}

bool tok_scan_find(const char *text, size_t size, tok_spans *out)
{
    *out = (tok_spans){0};
    tok_scan s = tok_scan_start(text, size);
    bool ok = each_member(&s, root_member, out) && out->vocab;
    tok_scan_free(&s);
    return ok;
}
