/* utf8.c - see utf8.h. */
#define _GNU_SOURCE 1                              /* memmem: linear whatever the texts are */
#include "text/utf8.h"

#include <string.h>
#include <utf8proc.h>

size_t utf8_next(const char *text, size_t n, uint32_t *code)
{
    const unsigned char *s = (const unsigned char *)text;
    *code = s[0];
    if (s[0] < 0x80) return 1;
    size_t need;
    unsigned low = 0x80, high = 0xBF;             /* what the second byte may be: excludes overlong forms and surrogates */
    if (s[0] >= 0xC2 && s[0] <= 0xDF) need = 2;
    else if (s[0] >= 0xE0 && s[0] <= 0xEF) {
        need = 3;
        if (s[0] == 0xE0) low = 0xA0;
        if (s[0] == 0xED) high = 0x9F;
    } else if (s[0] >= 0xF0 && s[0] <= 0xF4) {
        need = 4;
        if (s[0] == 0xF0) low = 0x90;
        if (s[0] == 0xF4) high = 0x8F;
    } else {
        *code = 0xFFFD;
        return 1;
    }
    uint32_t c = s[0] & (0xFFu >> (need + 1));
    for (size_t i = 1; i < need; i++) {
        if (i >= n) return 0;
        if (s[i] < low || s[i] > high) {
            *code = 0xFFFD;
            return i;
        }
        c = c << 6 | (s[i] & 0x3F);
        low = 0x80;
        high = 0xBF;
    }
    *code = c;
    return need;
}

size_t utf8_next_lossy(const char *s, size_t n, uint32_t *code)
{
    size_t used = utf8_next(s, n, code);
    if (used) return used;
    *code = 0xFFFD;
    return n;                                      /* the unfinished beginning is one maximal subpart */
}

bool utf8_valid(const char *s, size_t n)
{
    uint32_t code;
    for (size_t i = 0; i < n;) {
        size_t used = utf8_next(s + i, n - i, &code);
        if (!used || (code == 0xFFFD && !(used == 3 && memcmp(s + i, "\xEF\xBF\xBD", 3) == 0))) return false;
        i += used;
    }
    return true;
}

size_t utf8_length(const char *s, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++) count += ((unsigned char)s[i] & 0xC0) != 0x80;
    return count;
}

bool utf8_add_lossy(buf *out, const char *s, size_t n)
{
    size_t clean = 0;                              /* start of the part that is not copied yet */
    for (size_t i = 0; i < n;) {
        uint32_t code;
        size_t used = utf8_next_lossy(s + i, n - i, &code);
        if (code == 0xFFFD) {
            if (!buf_add(out, s + clean, i - clean) || !buf_adds(out, "\xEF\xBF\xBD")) return false;
            clean = i + used;
        }
        i += used;
    }
    return buf_add(out, s + clean, n - clean);
}

size_t bytes_find(const char *s, size_t n, size_t from, const char *what, size_t m)
{
    if (m == 0) return from <= n ? from : SIZE_MAX;
    if (from > n || n - from < m) return SIZE_MAX;
    const char *hit = memmem(s + from, n - from, what, m);
    return hit ? (size_t)(hit - s) : SIZE_MAX;
}

size_t utf8_grapheme(const char *s, size_t n)
{
    uint32_t code, next;
    size_t at = utf8_next_lossy(s, n, &code);
    utf8proc_int32_t state = 0;
    while (at < n) {
        size_t used = utf8_next_lossy(s + at, n - at, &next);
        if (utf8proc_grapheme_break_stateful((utf8proc_int32_t)code, (utf8proc_int32_t)next, &state)) break;
        code = next;
        at += used;
    }
    return at;
}

bool unicode_is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == 32 || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
           c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}
