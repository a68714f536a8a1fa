/* string.c - what Python's str does with Unicode text: strip, case, replace, splitlines; HTML escaping. */
#include <utf8proc.h>

#include "text/jinja/case.h"
#include "text/jinja/internal.h"

size_t jstr_offset(const jstr *s, size_t chars)
{
    if (s->chars == s->size || chars == 0) return chars;           /* ASCII */
    size_t at = 0;
    for (; chars && at < s->size; chars--) at += utf8_size((unsigned char)s->data[at]);
    return at;
}

/* Python's isspace: White_Space and the four separators of ASCII. */
static bool is_space(uint32_t c) { return unicode_is_space(c) || (c >= 0x1C && c <= 0x1F); }

typedef struct char_set { const jstr *text; bool ascii[128]; } char_set;

static char_set make_set(jmem *m, const jstr *text)
{
    char_set set = {.text = text};
    if (!text) return set;
    jinja_work(m, text->size / 16);
    for (size_t i = 0; i < text->size; i++)
        if ((unsigned char)text->data[i] < 128) set.ascii[(unsigned char)text->data[i]] = true;
    return set;
}

static bool strips(jmem *m, const char_set *set, const char *c, size_t n)
{
    uint32_t code;
    if (set->text && n == 1) return set->ascii[(unsigned char)*c & 127];
    if (set->text) {
        jinja_work(m, set->text->size / 64);
        return bytes_find(set->text->data, set->text->size, 0, c, n) != SIZE_MAX;
    }
    utf8_next_lossy(c, n, &code);
    return is_space(code);
}

const jstr *jstr_strip(jmem *m, const jstr *s, const jstr *set, bool left, bool right)
{
    size_t from = 0, to = s->size;
    char_set allowed = make_set(m, set);
    while (left && from < to) {
        size_t n = utf8_size((unsigned char)s->data[from]);
        if (!strips(m, &allowed, s->data + from, n)) break;
        from += n;
    }
    while (right && to > from) {
        size_t i = to - 1;
        while (i > from && ((unsigned char)s->data[i] & 0xC0) == 0x80) i--;
        if (!strips(m, &allowed, s->data + i, to - i)) break;
        to = i;
    }
    jinja_work(m, (s->size - (to - from)) / 4);
    return jstr_new(m, s->data + from, to - from);
}

/* ---- case ---- */

static bool in_ranges(const uint32_t (*range)[2], size_t n, uint32_t c)
{
    for (size_t i = 0; i < n && range[i][0] <= c; i++)
        if (c <= range[i][1]) return true;
    return false;
}
#define IN(ranges, c) in_ranges(ranges, sizeof ranges / sizeof *ranges, c)

bool jchar_is_upper(uint32_t c) { return utf8proc_category((utf8proc_int32_t)c) == UTF8PROC_CATEGORY_LU || (c > 127 && IN(other_upper, c)); }
bool jchar_is_lower(uint32_t c) { return utf8proc_category((utf8proc_int32_t)c) == UTF8PROC_CATEGORY_LL || (c > 127 && IN(other_lower, c)); }
bool jchar_is_title(uint32_t c) { return utf8proc_category((utf8proc_int32_t)c) == UTF8PROC_CATEGORY_LT; }
bool jchar_is_digit(uint32_t c) { return utf8proc_category((utf8proc_int32_t)c) == UTF8PROC_CATEGORY_ND || (c > 127 && IN(other_digit, c)); }
bool jchar_is_numeric(uint32_t c)
{
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO || (c > 127 && IN(other_numeric, c));
}

static bool is_cased(uint32_t c) { return jchar_is_upper(c) || jchar_is_lower(c) || jchar_is_title(c); }

static void add_upper(jbuf *b, uint32_t c, bool title)
{
    for (size_t i = 0; c >= 0xDF && i < sizeof special_case / sizeof *special_case; i++)
        if (special_case[i].c == c) {
            jbuf_adds(b, title ? special_case[i].title : special_case[i].upper);
            return;
        }
    jbuf_utf8(b, (uint32_t)(title ? utf8proc_totitle((utf8proc_int32_t)c) : utf8proc_toupper((utf8proc_int32_t)c)));
}

static bool add_folded(jbuf *b, uint32_t c)
{
    for (size_t i = 0; c >= 0xB5 && i < sizeof special_fold / sizeof *special_fold && special_fold[i].c <= c; i++)
        if (special_fold[i].c == c) {
            jbuf_adds(b, special_fold[i].folded);
            return true;
        }
    return false;
}

static void add_lower(jbuf *b, const jstr *s, size_t at, size_t n, uint32_t c, bool after_cased)
{
    if (c == 0x130) jbuf_adds(b, "i\xCC\x87");
    else if (c == 0x3A3) {                         /* capital sigma at the end of a word */
        uint32_t next = ' ';
        if (at + n < s->size) utf8_next_lossy(s->data + at + n, s->size - at - n, &next);
        jbuf_utf8(b, after_cased && !is_cased(next) ? 0x3C2 : 0x3C3);
    } else jbuf_utf8(b, (uint32_t)utf8proc_tolower((utf8proc_int32_t)c));
}

typedef enum letter_case { UPPER, LOWER, CAPITAL, TITLE, SWAPPED, FOLDED } letter_case;

static const jstr *change_case(jmem *m, const jstr *s, letter_case how)
{
    jbuf b = {.m = m};
    bool cased = false;                            /* was the last character a cased letter? */
    for (size_t i = 0; i < s->size;) {
        uint32_t c;
        size_t n = utf8_next_lossy(s->data + i, s->size - i, &c);
        bool up = (how == SWAPPED && jchar_is_lower(c)) || how == UPPER || (how == CAPITAL && i == 0) || (how == TITLE && !cased);
        if (up) add_upper(&b, c, how != UPPER && how != SWAPPED);
        else if (how == SWAPPED && !jchar_is_upper(c)) jbuf_add(&b, s->data + i, n);
        else if (how == FOLDED && add_folded(&b, c)) { }
        else add_lower(&b, s, i, n, c, cased);
        cased = is_cased(c);
        i += n;
    }
    return jv_buf(&b).s;
}

const jstr *jstr_upper(jmem *m, const jstr *s) { return change_case(m, s, UPPER); }
const jstr *jstr_lower(jmem *m, const jstr *s) { return change_case(m, s, LOWER); }
const jstr *jstr_capitalize(jmem *m, const jstr *s) { return change_case(m, s, CAPITAL); }
const jstr *jstr_title(jmem *m, const jstr *s) { return change_case(m, s, TITLE); }
const jstr *jstr_swapcase(jmem *m, const jstr *s) { return change_case(m, s, SWAPPED); }
const jstr *jstr_casefold(jmem *m, const jstr *s) { return change_case(m, s, FOLDED); }

/* ---- pieces ---- */

const jstr *jstr_replace(jmem *m, const jstr *s, const jstr *from, const jstr *to, jint count)
{
    jbuf b = {.m = m};
    size_t at = 0;
    if (count < 0) count = (jint)s->size + 1;
    if (!from->size) {                             /* between all characters */
        for (; count > 0; count--) {
            jbuf_addstr(&b, to);
            if (at >= s->size) break;
            size_t n = utf8_size((unsigned char)s->data[at]);
            jbuf_add(&b, s->data + at, n);
            at += n;
        }
    } else
        for (size_t hit; count > 0 && (hit = bytes_find(s->data, s->size, at, from->data, from->size)) != SIZE_MAX; count--) {
            jbuf_add(&b, s->data + at, hit - at);
            jbuf_addstr(&b, to);
            at = hit + from->size;
        }
    if (at < s->size) jbuf_add(&b, s->data + at, s->size - at);
    return jv_buf(&b).s;
}

/* Length of a line end at s[i], 0 if there is none. */
static size_t line_end(const jstr *s, size_t i)
{
    uint32_t c;
    size_t n = utf8_next_lossy(s->data + i, s->size - i, &c);
    if (c == '\r') return i + 1 < s->size && s->data[i + 1] == '\n' ? 2 : 1;
    return (c >= 0xA && c <= 0xC) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029 ? n : 0;
}

jlist *jstr_splitlines(jmem *m, const jstr *s, bool keep_ends)
{
    jlist *l = jlist_new(m, 0);
    size_t from = 0;
    for (size_t i = 0; i < s->size;) {
        size_t end = line_end(s, i);
        if (end) {
            jlist_add(m, l, jv_textn(m, s->data + from, i - from + (keep_ends ? end : 0)));
            from = i + end;
        }
        i += end ? end : utf8_size((unsigned char)s->data[i]);
    }
    if (from < s->size) jlist_add(m, l, jv_textn(m, s->data + from, s->size - from));
    return l;
}

void jinja_escape_html(jbuf *b, const jstr *s)
{
    for (size_t i = 0; i < s->size; i++) switch (s->data[i]) {
        case '&': jbuf_adds(b, "&amp;"); break;
        case '<': jbuf_adds(b, "&lt;"); break;
        case '>': jbuf_adds(b, "&gt;"); break;
        case '"': jbuf_adds(b, "&#34;"); break;
        case '\'': jbuf_adds(b, "&#39;"); break;
        default: jbuf_addc(b, s->data[i]);
        }
}

const jstr *jinja_escaped(jrun *r, jval v)
{
    if (v.kind == J_STRING && v.markup) return v.s;
    jbuf b = {.m = &r->m};
    jinja_escape_html(&b, jv_string(r, v));
    return jv_buf(&b).s;
}
