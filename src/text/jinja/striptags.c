/* striptags.c - the filter striptags: comments and tags go, white space becomes single blanks, entities become characters. Numeric entities
 * and the named ones of everyday texts are known; others stay as they are. */
#include <stdlib.h>

#include "text/jinja/internal.h"

static const struct { const char *name; uint32_t c; bool bare; } entities[] = {         /* bare: also without the semicolon */
    {"amp", '&', true}, {"lt", '<', true}, {"gt", '>', true}, {"quot", '"', true}, {"AMP", '&', true}, {"LT", '<', true}, {"GT", '>', true}, {"QUOT", '"', true},
    {"apos", '\'', false}, {"nbsp", 0xA0, true}, {"iexcl", 0xA1, true}, {"cent", 0xA2, true}, {"pound", 0xA3, true}, {"yen", 0xA5, true}, {"sect", 0xA7, true},
    {"copy", 0xA9, true}, {"laquo", 0xAB, true}, {"reg", 0xAE, true}, {"deg", 0xB0, true}, {"plusmn", 0xB1, true}, {"para", 0xB6, true}, {"middot", 0xB7, true},
    {"raquo", 0xBB, true}, {"frac12", 0xBD, true}, {"iquest", 0xBF, true}, {"Auml", 0xC4, true}, {"Ouml", 0xD6, true}, {"times", 0xD7, true}, {"Uuml", 0xDC, true},
    {"szlig", 0xDF, true}, {"agrave", 0xE0, true}, {"auml", 0xE4, true}, {"ccedil", 0xE7, true}, {"egrave", 0xE8, true}, {"eacute", 0xE9, true}, {"ntilde", 0xF1, true},
    {"ouml", 0xF6, true}, {"divide", 0xF7, true}, {"uuml", 0xFC, true}, {"ndash", 0x2013, false}, {"mdash", 0x2014, false}, {"lsquo", 0x2018, false}, {"rsquo", 0x2019, false},
    {"ldquo", 0x201C, false}, {"rdquo", 0x201D, false}, {"bull", 0x2022, false}, {"hellip", 0x2026, false}, {"euro", 0x20AC, false}, {"trade", 0x2122, false}, {"rarr", 0x2192, false},
};

/* &#233; and &#xE9;: length, or 0. */
static size_t numeric_entity(const char *s, size_t n, jbuf *out)
{
    bool hex = n > 3 && (s[2] | 32) == 'x';
    size_t i = hex ? 3 : 2, first = i;
    uint32_t c = 0;
    for (; i < n; i++) {
        int d = s[i] >= '0' && s[i] <= '9' ? s[i] - '0' : hex && (s[i] | 32) >= 'a' && (s[i] | 32) <= 'f' ? (s[i] | 32) - 'a' + 10 : -1;
        if (d < 0) break;
        if (c < 0x200000) c = c * (hex ? 16 : 10) + (uint32_t)d;
    }
    if (i == first) return 0;
    if (i < n && s[i] == ';') i++;
    static const uint16_t windows[32] = {0x20AC, 0x81, 0x201A, 0x192, 0x201E, 0x2026, 0x2020, 0x2021, 0x2C6, 0x2030, 0x160, 0x2039, 0x152, 0x8D, 0x17D, 0x8F,
                                         0x90, 0x2018, 0x2019, 0x201C, 0x201D, 0x2022, 0x2013, 0x2014, 0x2DC, 0x2122, 0x161, 0x203A, 0x153, 0x9D, 0x17E, 0x178};
    if (c >= 0x80 && c < 0xA0) c = windows[c - 0x80];
    bool nothing = (c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c < 0x20) || c == 0x7F || (c >= 0xFDD0 && c <= 0xFDEF) || (c & 0xFFFE) == 0xFFFE;
    if (!c || c > 0x10FFFF || (c >= 0xD800 && c < 0xE000)) c = 0xFFFD, nothing = false;
    if (!nothing) jbuf_utf8(out, c);
    return i;
}

static size_t named_entity(const char *s, size_t n, jbuf *out)
{
    for (size_t i = 0; i < sizeof entities / sizeof *entities; i++) {
        size_t k = strlen(entities[i].name);
        if (n < k + 1 || memcmp(s + 1, entities[i].name, k) != 0) continue;
        bool closed = n > k + 1 && s[k + 1] == ';';
        if (!closed && !entities[i].bare) continue;
        jbuf_utf8(out, entities[i].c);
        return k + 1 + closed;
    }
    return 0;
}

/* Text without tags, [from, to) of the source at a time: an open tag that does not end stops it. */
static const jstr *without_tags(jrun *r, const jstr *s)
{
    jbuf out = {.m = &r->m};
    size_t pos = 0;
    for (size_t start; (start = bytes_find(s->data, s->size, pos, "<", 1)) != SIZE_MAX;) {
        bool comment = s->size - start >= 4 && memcmp(s->data + start, "<!--", 4) == 0;
        size_t end = bytes_find(s->data, s->size, comment ? start + 4 : start, comment ? "-->" : ">", comment ? 3 : 1);
        if (end == SIZE_MAX) break;
        jbuf_add(&out, s->data + pos, start - pos);
        pos = end + (comment ? 3 : 1);
    }
    jbuf_add(&out, s->data + pos, s->size - pos);
    return jv_buf(&out).s;
}

jval jinja_striptags(jrun *r, jval self, jargs *a)
{
    (void)a;
    const jstr *s = without_tags(r, jv_string(r, self));
    jbuf text = {.m = &r->m}, out = {.m = &r->m};
    bool space = false;
    for (size_t i = 0, n; i < s->size; i += n) {
        uint32_t c;
        n = utf8_next_lossy(s->data + i, s->size - i, &c);
        if (jchar_is_space(c)) {
            space = text.size > 0;
            continue;
        }
        if (space) jbuf_addc(&text, ' ');
        space = false;
        jbuf_add(&text, s->data + i, n);
    }
    for (size_t i = 0; i < text.size;) {
        size_t n = 0;
        if (text.data[i] == '&' && i + 2 < text.size) n = text.data[i + 1] == '#' ? numeric_entity(text.data + i, text.size - i, &out) : named_entity(text.data + i, text.size - i, &out);
        if (!n) jbuf_addc(&out, text.data[i]);
        i += n ? n : 1;
    }
    return jv_buf(&out);
}
