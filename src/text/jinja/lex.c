/* lex.c - template source to tokens, with jinja2's rules for white space:
 *   {%- -%} and the like strip all white space beside the tag; trim_blocks: the newline after a block tag or comment goes;
 *   lstrip_blocks: white space between the start of a line and a block tag or comment goes; {%+ and +%} switch that off for a tag;
 *   \r\n and \r become \n; one newline at the very end goes. */
#include <stdlib.h>

#include "text/jinja/internal.h"
#include "text/jinja/names.h"

typedef struct lexer {
    jmem *m;
    const char *s;
    size_t size, at;
    int line;
    bool line_start;               /* did the last thing consumed end a line (or is this the beginning)? */
    jtoken *token;
    size_t count, capacity;
} lexer;

static jtoken *add(lexer *l, jtoken_kind kind)
{
    if (l->count == l->capacity) {
        size_t capacity = l->capacity ? l->capacity * 2 : 256;
        jtoken *grown = jinja_alloc(l->m, capacity * sizeof *grown);
        if (l->count) memcpy(grown, l->token, l->count * sizeof *grown);
        l->token = grown;
        l->capacity = capacity;
    }
    jtoken *t = &l->token[l->count++];
    *t = (jtoken){.kind = kind, .line = l->line};
    l->m->line = l->line;
    return t;
}

static void count_lines(lexer *l, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++) l->line += l->s[i] == '\n';
}

static bool looking_at(const lexer *l, size_t at, const char *text)
{
    size_t n = strlen(text);
    return l->size - at >= n && memcmp(l->s + at, text, n) == 0;
}

/* White space before `end`, down to `start`: the offset where it begins. */
static size_t rstrip(const lexer *l, size_t start, size_t end)
{
    while (end > start) {
        size_t i = end - 1;
        while (i > start && ((unsigned char)l->s[i] & 0xC0) == 0x80) i--;
        uint32_t c;
        utf8_next_lossy(l->s + i, end - i, &c);
        if (!unicode_is_space(c) && !(c >= 0x1C && c <= 0x1F)) break;
        end = i;
    }
    return end;
}

static size_t skip_space(const lexer *l, size_t at)
{
    while (at < l->size) {
        uint32_t c;
        size_t n = utf8_next_lossy(l->s + at, l->size - at, &c);
        if (!unicode_is_space(c) && !(c >= 0x1C && c <= 0x1F)) break;
        at += n;
    }
    return at;
}

/* End of the text [start, tag) after the tag's sign and lstrip_blocks have had their way. */
static size_t trim_before(const lexer *l, size_t start, size_t tag, char sign, bool lstrip)
{
    if (sign == '-') return rstrip(l, start, tag);
    if (sign == '+' || !lstrip) return tag;
    size_t line = tag;
    while (line > start && l->s[line - 1] != '\n') line--;
    if (line == start && !l->line_start) return tag;
    return rstrip(l, line, tag) == line ? line : tag;
}

static void add_data(lexer *l, size_t start, size_t end)
{
    if (end > start) add(l, T_DATA)->value = jv_textn(l->m, l->s + start, end - start);
}

static char sign_at(const lexer *l, size_t at) { return at < l->size && (l->s[at] == '-' || l->s[at] == '+') ? l->s[at] : 0; }

static void moved(lexer *l, size_t to)
{
    count_lines(l, l->at, to);
    l->at = to;
    l->line_start = to > 0 && l->s[to - 1] == '\n';
}

/* ---- inside tags ---- */

static bool is_word(unsigned char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' || c >= 0x80; }
static bool is_digit(char c) { return c >= '0' && c <= '9'; }

static unsigned hex(lexer *l, size_t at, int digits)
{
    unsigned value = 0;
    for (int i = 0; i < digits; i++) {
        char c = at + (size_t)i < l->size ? l->s[at + (size_t)i] : 0;
        int d = is_digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (d < 0) jinja_fail(l->m, VLM_FORMAT, "damaged \\x, \\u or \\U escape in a string");
        value = value * 16 + (unsigned)d;
    }
    return value;
}

static bool same_letters(const char *name, const char *s, size_t n)
{
    if (strlen(name) != n) return false;
    for (size_t i = 0; i < n; i++)
        if (name[i] != (s[i] >= 'a' && s[i] <= 'z' ? s[i] - 32 : s[i])) return false;
    return true;
}

/* \N{BULLET} at s[at]; returns the offset after it. */
static size_t named_character(lexer *l, size_t at, jbuf *out)
{
    const char *s = l->s + at + 3, *end = l->s[at + 2] == '{' ? strchr(s, '}') : NULL;
    if (!end || end == s) jinja_fail(l->m, VLM_FORMAT, "malformed \\N character escape");
    for (size_t i = 0; i < sizeof character_names / sizeof *character_names; i++)
        if (same_letters(character_names[i].name, s, (size_t)(end - s))) {
            jbuf_utf8(out, character_names[i].c);
            return (size_t)(end - l->s) + 1;
        }
    jinja_fail(l->m, VLM_UNSUPPORTED, "unknown Unicode character name '%.*s'", (int)(end - s < 60 ? end - s : 60), s);
}

/* One escape sequence at s[at] == '\\'; returns the offset after it. */
static size_t lex_escape(lexer *l, size_t at, jbuf *out)
{
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    char c = l->s[at + 1];
    const char *known = c ? strchr(from, c) : NULL;
    if (known) jbuf_addc(out, to[known - from]);
    else if (c == '\n') { }
    else if (c == 'x' || c == 'u' || c == 'U') {
        int digits = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        unsigned code = hex(l, at + 2, digits);
        at += (size_t)digits;
        if (c == 'u' && code >= 0xD800 && code < 0xDC00 && looking_at(l, at + 2, "\\u")) {       /* a pair, as JSON writes it */
            unsigned low = hex(l, at + 4, 4);
            if (low >= 0xDC00 && low < 0xE000) {
                code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
                at += 6;
            }
        }
        jbuf_utf8(out, code);
    } else if (c >= '0' && c <= '7') {
        unsigned code = 0;
        size_t n = 0;
        while (n < 3 && l->s[at + 1 + n] >= '0' && l->s[at + 1 + n] <= '7') code = code * 8 + (unsigned)(l->s[at + 1 + n++] - '0');
        jbuf_utf8(out, code);
        return at + 1 + n;
    } else if (c == 'N') return named_character(l, at, out);
    else {
        jbuf_addc(out, '\\');                      /* unknown: both characters stay */
        return at + 1;
    }
    return at + 2;
}

static void lex_string(lexer *l)
{
    char quote = l->s[l->at];
    jbuf out = {.m = l->m};
    size_t at = l->at + 1;
    while (at < l->size && l->s[at] != quote) {
        if (l->s[at] == '\\' && at + 1 < l->size) at = lex_escape(l, at, &out);
        else jbuf_addc(&out, l->s[at++]);
    }
    if (at >= l->size) jinja_fail(l->m, VLM_FORMAT, "string without an end");
    add(l, T_STRING)->value = jv_buf(&out);
    moved(l, at + 1);
}

static size_t digits(const lexer *l, size_t at, jbuf *out)
{
    while (at < l->size && (is_digit(l->s[at]) || (l->s[at] == '_' && at + 1 < l->size && is_digit(l->s[at + 1])))) {
        if (l->s[at] != '_') jbuf_addc(out, l->s[at]);
        at++;
    }
    return at;
}

static jval radix_number(lexer *l, size_t *at, unsigned base)
{
    jint value = 0;
    size_t i = *at + 2;
    for (; i < l->size && is_word((unsigned char)l->s[i]); i++) {
        char c = l->s[i];
        if (c == '_') continue;
        unsigned d = is_digit(c) ? (unsigned)(c - '0') : (unsigned)((c | 32) - 'a' + 10);
        if (d >= base) jinja_fail(l->m, VLM_FORMAT, "damaged number");
        if (__builtin_mul_overflow(value, (jint)base, &value)) jinja_fail(l->m, VLM_LIMIT, "number too large");
        value += d;
    }
    *at = i;
    return jv_int(value);
}

static void lex_number(lexer *l)
{
    jbuf text = {.m = l->m};
    size_t at = l->at;
    char second = at + 1 < l->size ? (char)(l->s[at + 1] | 32) : 0;
    jval value;
    if (l->s[at] == '0' && (second == 'x' || second == 'o' || second == 'b')) value = radix_number(l, &at, second == 'x' ? 16 : second == 'o' ? 8 : 2);
    else {
        bool real = false, after_dot = l->at > 0 && l->s[l->at - 1] == '.';
        at = digits(l, at, &text);
        if (!after_dot && at + 1 < l->size && l->s[at] == '.' && is_digit(l->s[at + 1])) {
            real = true;
            jbuf_addc(&text, '.');
            at = digits(l, at + 1, &text);
        }
        size_t e = at + 1;
        if (!after_dot && at < l->size && (l->s[at] | 32) == 'e') {
            if (e < l->size && (l->s[e] == '+' || l->s[e] == '-')) e++;
            if (e < l->size && is_digit(l->s[e])) {
                real = true;
                jbuf_add(&text, l->s + at, e - at);
                at = digits(l, e, &text);
            }
        }
        jbuf_addc(&text, 0);
        jint i = 0;
        if (!real)
            for (const char *p = text.data; *p; p++)
                if (__builtin_mul_overflow(i, (jint)10, &i) || __builtin_add_overflow(i, (jint)(*p - '0'), &i))
                    jinja_fail(l->m, VLM_LIMIT, "number too large");
        value = real ? jv_float(strtod(text.data, NULL)) : jv_int(i);
    }
    add(l, T_NUMBER)->value = value;
    moved(l, at);
}

static int operator_at(const lexer *l, size_t *length)
{
    static const struct { const char text[3]; int op; } two[] = {{"==", OP_EQ}, {"!=", OP_NE}, {"<=", OP_LE}, {">=", OP_GE}, {"**", OP_POW}, {"//", OP_FLOORDIV}};
    *length = 2;
    for (size_t i = 0; i < sizeof two / sizeof *two; i++)
        if (looking_at(l, l->at, two[i].text)) return two[i].op;
    *length = 1;
    char c = l->s[l->at];
    return c && strchr("+-/*%~[](){}<>=.:|,;", c) ? c : 0;
}

/* Tokens up to and with the end of the tag. */
static void lex_tag(lexer *l, bool block)
{
    char open[64];                                 /* brackets that wait for their other half: a tag cannot end inside */
    size_t depth = 0;
    const char *end = block ? "%}" : "}}";
    for (;;) {
        moved(l, skip_space(l, l->at));
        if (l->at >= l->size) {
            add(l, T_END);
            return;
        }
        char sign = sign_at(l, l->at);
        if (!depth && (looking_at(l, l->at, end) || (sign && (sign == '-' || block) && looking_at(l, l->at + 1, end)))) {
            bool minus = !looking_at(l, l->at, end);
            add(l, block ? T_BLOCK_END : T_PRINT_END);
            size_t to = l->at + 2 + minus;
            if (sign == '-' && minus) to = skip_space(l, to);
            else if (block && !minus && to < l->size && l->s[to] == '\n') to++;
            moved(l, to);
            return;
        }
        unsigned char c = (unsigned char)l->s[l->at];
        if (c == '"' || c == '\'') lex_string(l);
        else if (is_digit((char)c)) lex_number(l);
        else if (is_word(c)) {
            size_t to = l->at;
            while (to < l->size && is_word((unsigned char)l->s[to])) to++;
            add(l, T_NAME)->value = jv_textn(l->m, l->s + l->at, to - l->at);
            moved(l, to);
        } else {
            size_t length;
            int op = operator_at(l, &length);
            if (!op) jinja_fail(l->m, VLM_FORMAT, "unexpected character '%c'", c);
            if (op == '(' || op == '[' || op == '{') {
                if (depth == sizeof open) jinja_fail(l->m, VLM_LIMIT, "brackets are nested more than %zu deep", sizeof open);
                open[depth++] = op == '(' ? ')' : op == '[' ? ']' : '}';
            } else if (op == ')' || op == ']' || op == '}') {
                if (!depth || open[depth - 1] != op) jinja_fail(l->m, VLM_FORMAT, "unexpected '%c'", op);
                depth--;
            }
            add(l, T_OP)->op = op;
            moved(l, l->at + length);
        }
    }
}

static void skip_comment(lexer *l)
{
    size_t end = bytes_find(l->s, l->size, l->at + 2, "#}", 2);
    if (end == SIZE_MAX) jinja_fail(l->m, VLM_FORMAT, "comment without an end");
    char sign = end > l->at + 2 ? l->s[end - 1] : 0;
    size_t to = end + 2;
    if (sign == '-') to = skip_space(l, to);
    else if (sign != '+' && to < l->size && l->s[to] == '\n') to++;
    moved(l, to);
}

/* Is there {% name %} at `at`? Offset of its end bracket or 0; *sign: the sign after {%. plus: may it end with +%}? */
static size_t word_tag(const lexer *l, size_t at, const char *name, bool plus, char *sign)
{
    if (!looking_at(l, at, "{%")) return 0;
    at += 2;
    *sign = sign_at(l, at);
    at = skip_space(l, at + (*sign != 0));
    if (!looking_at(l, at, name)) return 0;
    at = skip_space(l, at + strlen(name));
    return looking_at(l, at, "%}") || looking_at(l, at, "-%}") || (plus && looking_at(l, at, "+%}")) ? at : 0;
}

static void lex_raw(lexer *l, size_t end_of_begin)
{
    bool minus = l->s[end_of_begin] == '-';
    size_t start = end_of_begin + 2 + (l->s[end_of_begin] != '%');
    if (minus) start = skip_space(l, start);
    moved(l, start);
    if (start >= l->size) return;
    char sign = 0;
    size_t tag = start, end = 0;
    while (tag < l->size && !(end = word_tag(l, tag, "endraw", true, &sign))) tag++;
    if (!end) jinja_fail(l->m, VLM_FORMAT, "{%% raw %%} without {%% endraw %%}");
    add_data(l, start, trim_before(l, start, tag, sign, true));
    size_t to = end + 2 + (l->s[end] != '%');
    if (l->s[end] == '-') to = skip_space(l, to);
    else if (l->s[end] == '%' && to < l->size && l->s[to] == '\n') to++;
    moved(l, to);
}

static void normalize_newlines(lexer *l, const char *source, size_t size)
{
    char *copy = jinja_alloc(l->m, size + 1);
    size_t n = 0;
    for (size_t i = 0; i < size; i++) {
        if (source[i] == '\r') {
            if (i + 1 < size && source[i + 1] == '\n') i++;
            copy[n++] = '\n';
        } else copy[n++] = source[i];
    }
    if (n && copy[n - 1] == '\n') n--;
    copy[n] = 0;
    l->s = copy;
    l->size = n;
}

jtoken *jinja_lex(jmem *m, const char *source, size_t size)
{
    lexer l = {.m = m, .line = 1, .line_start = true};
    normalize_newlines(&l, source, size);
    while (l.at < l.size) {
        size_t tag = l.at;
        while ((tag = bytes_find(l.s, l.size, tag, "{", 1)) != SIZE_MAX && !looking_at(&l, tag, "{{") && !looking_at(&l, tag, "{%") && !looking_at(&l, tag, "{#")) tag++;
        if (tag == SIZE_MAX) {
            add_data(&l, l.at, l.size);
            break;
        }
        char kind = l.s[tag + 1], sign = sign_at(&l, tag + 2), raw_sign;
        add_data(&l, l.at, trim_before(&l, l.at, tag, sign, kind != '{'));
        moved(&l, tag);
        size_t raw = kind == '%' ? word_tag(&l, tag, "raw", false, &raw_sign) : 0;
        if (kind == '#') skip_comment(&l);
        else if (raw) lex_raw(&l, raw);
        else {
            add(&l, kind == '%' ? T_BLOCK_BEGIN : T_PRINT_BEGIN);
            moved(&l, tag + 2 + (sign != 0));
            lex_tag(&l, kind == '%');
        }
    }
    add(&l, T_END);
    return l.token;
}
