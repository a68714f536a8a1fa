/* value.c - values as models print them, read as they come and written as JSON.
 *
 * Three dialects share one machine with a stack of brackets: JSON (copied byte for byte; only control characters within strings are
 * escaped, which models forget), Python literals, and pairs {key:value} with strings between special marks (Gemma). */
#include "text/toolcall/internal.h"

enum { STACK_MAX = 1024, WORD_MAX = 4096, LOOK_MAX = 96 };
enum { AT_VALUE, AT_STRING, AT_MARKED, AT_WORD, AT_AFTER, AT_KEY, AT_BARE_KEY, AT_COLON, AT_END };

void value_reset(value_reader *r, value_dialect dialect)
{
    buf_clear(&r->out);
    buf_clear(&r->stack);
    buf_clear(&r->word);
    value_reader clean = {.dialect = dialect, .out = r->out, .stack = r->stack, .word = r->word};
    *r = clean;
}

void value_free(value_reader *r)
{
    buf_free(&r->out);
    buf_free(&r->stack);
    buf_free(&r->word);
}

/* ---- words: numbers, true, null, names ---- */

static const char *word_literal(const char *s, size_t n, bool python)
{
    static const char *const words[][2] = {{"true", "true"}, {"false", "false"}, {"null", "null"}, {"True", "true"}, {"False", "false"}, {"None", "null"}};
    for (size_t i = 0; i < (python ? 6 : 3); i++)
        if (strlen(words[i][0]) == n && !memcmp(words[i][0], s, n)) return words[i][1];
    return NULL;
}

/* Python writes numbers in more ways than JSON: +1, 1., .5; appends JSON. */
static bool python_number(const char *s, size_t n, buf *out)
{
    size_t sign = n && (s[0] == '+' || s[0] == '-');
    const char *d = s + sign;
    size_t m = n - sign;
    buf text = {0};
    if (sign && s[0] == '-') buf_addc(&text, '-');
    if (m > 1 && d[0] == '.') buf_addc(&text, '0');
    buf_add(&text, d, m);
    if (m > 1 && d[m - 1] == '.') buf_addc(&text, '0');
    bool ok = text.data && value_is_number(text.data, text.size) && buf_add(out, text.data, text.size);
    buf_free(&text);
    return ok;
}

static bool add_word(value_reader *r, const char *s, size_t n)
{
    bool python = r->dialect != VALUE_JSON || r->loose;
    const char *literal = word_literal(s, n, python);
    if (literal) return buf_adds(&r->out, literal);
    if (value_is_number(s, n)) return buf_add(&r->out, s, n);
    if (python && r->dialect != VALUE_PAIRS && python_number(s, n, &r->out)) return true;
    if (r->dialect == VALUE_PAIRS && n) return value_add_string(&r->out, s, n);
    return false;
}

/* ---- strings ---- */

/* From `at` on: [spaces] name [spaces] '='. 1, 0, -1 as markers. */
static int keyword_follows(const value_text *t, size_t at)
{
    size_t i = at;
    while (i < t->n && is_space(t->s[i]) && i - at < LOOK_MAX) i++;
    size_t name = i;
    while (i < t->n && (is_letter(t->s[i]) || (i > name && (is_digit(t->s[i]) || t->s[i] == '-'))) && i - name < LOOK_MAX) i++;
    size_t end = i;
    while (i < t->n && is_space(t->s[i]) && i - end < LOOK_MAX) i++;
    if (i >= t->n) return t->final ? 0 : -1;
    return end > name && t->s[i] == '=' && (i + 1 >= t->n || t->s[i + 1] != '=');
}

/* A parenthesis at `at` closes the call when a list, a line or the text ends after it, or another call follows. */
static int call_ends(const value_text *t, size_t at)
{
    size_t i = at + 1;
    while (i < t->n && (t->s[i] == ' ' || t->s[i] == '\t') && i - at < LOOK_MAX) i++;
    if (i >= t->n) return t->final ? 1 : -1;
    return t->s[i] == ',' || t->s[i] == ']' || t->s[i] == '<' || t->s[i] == '\n' || t->s[i] == ';';
}

/* Does a Python value outside of brackets end at `at`, the place after it? */
static int argument_ends(const value_text *t, size_t at)
{
    size_t i = at;
    while (i < t->n && is_space(t->s[i]) && i - at < LOOK_MAX) i++;
    if (i >= t->n) return t->final ? 1 : -1;
    if (t->s[i] == ')') return call_ends(t, i);
    if (t->s[i] != ',') return keyword_follows(t, at);           /* a comma may have been forgotten */
    size_t next = i + 1;
    while (next < t->n && is_space(t->s[next]) && next - i < LOOK_MAX) next++;
    if (next < t->n && t->s[next] == ')') return call_ends(t, next);
    return keyword_follows(t, i + 1);
}

/* A quote within a Python string is tolerated when nothing after it looks like the string's end. */
static int quote_ends(const value_reader *r, const value_text *t, size_t at)
{
    if (!r->loose || r->dialect != VALUE_PYTHON || r->triple) return 1;
    if (!r->stack.size) return argument_ends(t, at);
    size_t i = at;
    while (i < t->n && is_space(t->s[i]) && i - at < LOOK_MAX) i++;
    if (i >= t->n) return t->final ? 1 : -1;
    return strchr(",]}):", t->s[i]) != NULL;
}

/* An escape at t->pos; its length, 0: more is needed, -1: wrong. Appends JSON. */
static int read_escape(value_reader *r, const value_text *t)
{
    const char *s = t->s + t->pos;
    size_t n = t->n - t->pos;
    if (n < 2) return 0;
    char c = s[1];
    bool python = r->dialect == VALUE_PYTHON || r->loose;
    if (c == '"' || c == '\\' || (strchr("bfnrt", c) && c) || (c == '/' && !python)) {
        buf_add(&r->out, s, 2);
        return 2;
    }
    size_t digits = c == 'u' ? 4 : python && c == 'x' ? 2 : python && c == 'U' ? 8 : 0;
    if (digits) {
        size_t have = n - 2 < digits ? n - 2 : digits;
        long code = value_hex(s + 2, have);
        if (code < 0 && !python) return -1;
        if (code >= 0 && have < digits) return 0;
        if (code >= 0) {
            if (c == 'u' && (!python || (code >= 0xD800 && code < 0xE000))) buf_add(&r->out, s, 6);
            else {
                buf one = {0};
                buf_add_utf8(&one, (uint32_t)code);
                value_add_escaped(&r->out, one.data ? one.data : "", one.size);
                buf_free(&one);
            }
            return (int)(2 + digits);
        }
    }
    if (!python) return -1;
    if (c == '\n') return 2;                                      /* the line goes on */
    if (c == '\'') return buf_addc(&r->out, '\''), 2;
    if (c == 'a' || c == 'v' || c == '0') return buf_adds(&r->out, c == 'a' ? "\\u0007" : c == 'v' ? "\\u000b" : "\\u0000"), 2;
    buf_adds(&r->out, "\\\\");                                    /* no escape: the backslash is a character */
    return 1;
}

/* Within a quoted string. */
static value_result read_string(value_reader *r, value_text *t)
{
    while (t->pos < t->n) {
        size_t from = t->pos;
        while (t->pos < t->n && t->s[t->pos] != r->delimiter && t->s[t->pos] != '\\' && t->s[t->pos] != '"' && (unsigned char)t->s[t->pos] >= 0x20) t->pos++;
        buf_add(&r->out, t->s + from, t->pos - from);
        if (t->pos >= t->n) break;
        char c = t->s[t->pos];
        if (c == '\\') {
            int n = read_escape(r, t);
            if (n < 0) return VALUE_BAD;
            if (n == 0) return VALUE_MORE;
            t->pos += (size_t)n;
            continue;
        }
        if (c != r->delimiter) {
            value_add_escaped(&r->out, &c, 1);
            t->pos++;
            continue;
        }
        if (r->triple) {
            if (t->n - t->pos < 3 && !t->final) return VALUE_MORE;
            if (t->n - t->pos >= 3 && t->s[t->pos + 1] == c && t->s[t->pos + 2] == c) {
                t->pos += 3;
                return VALUE_DONE;
            }
        }
        int ends = r->triple ? 0 : r->is_key ? 1 : quote_ends(r, t, t->pos + 1);
        if (ends < 0) return VALUE_MORE;
        t->pos++;
        if (ends) return VALUE_DONE;
        value_add_escaped(&r->out, &c, 1);
    }
    return VALUE_MORE;
}

/* Pairs: text up to the closing mark, as it is. */
static value_result read_marked(value_reader *r, value_text *t)
{
    while (t->pos < t->n) {
        const char *hit = memchr(t->s + t->pos, r->quote[0], t->n - t->pos);
        size_t end = hit ? (size_t)(hit - t->s) : t->n, len = 0;
        value_add_escaped(&r->out, t->s + t->pos, end - t->pos);
        t->pos = end;
        if (!hit) break;
        int m = t->p ? marker_at(t->p, r->quote, t->pos, &len) : marker_match(r->quote, t->s + t->pos, t->n - t->pos, &len);
        if (m < 0 && !t->final) return VALUE_MORE;
        if (m > 0) {
            t->pos += len;
            return VALUE_DONE;
        }
        value_add_escaped(&r->out, t->s + t->pos, 1);
        t->pos++;
    }
    return VALUE_MORE;
}

/* Begins a string if one stands here: 1, 0, -1. */
static int open_string(value_reader *r, value_text *t, bool key)
{
    char c = t->s[t->pos];
    r->is_key = key;
    r->triple = false;
    if (r->dialect == VALUE_PAIRS && c == r->quote[0]) {
        size_t len;
        int m = t->p ? marker_at(t->p, r->quote, t->pos, &len) : marker_match(r->quote, t->s + t->pos, t->n - t->pos, &len);
        if (m < 0) return t->final ? 0 : -1;
        if (m) {
            t->pos += len;
            r->state = AT_MARKED;
            buf_addc(&r->out, '"');
            return 1;
        }
    }
    if (c != '"' && (c != '\'' || (r->dialect == VALUE_JSON && !r->loose) || r->dialect == VALUE_PAIRS)) return 0;
    size_t len = 1;
    if (r->dialect == VALUE_PYTHON) {
        if (t->n - t->pos >= 2 && t->s[t->pos + 1] == c && t->n - t->pos < 3 && !t->final) return -1;
        if (t->n - t->pos < 2 && !t->final) return -1;
        r->triple = t->n - t->pos >= 3 && t->s[t->pos + 1] == c && t->s[t->pos + 2] == c;
        if (r->triple) len = 3;
    }
    r->delimiter = c;
    t->pos += len;
    r->state = AT_STRING;
    buf_addc(&r->out, '"');
    return 1;
}

/* ---- structure ---- */

static char top(const value_reader *r) { return r->stack.size ? r->stack.data[r->stack.size - 1] : 0; }

static void copy_space(value_reader *r, value_text *t)
{
    bool keep = r->dialect == VALUE_JSON && r->stack.size;
    for (; t->pos < t->n && is_space(t->s[t->pos]); t->pos++)
        if (keep && t->s[t->pos] != '\f' && t->s[t->pos] != '\v') buf_addc(&r->out, t->s[t->pos]);        /* these two are no space in JSON */
}

static value_result value_ended(value_reader *r)
{
    r->state = r->stack.size ? AT_AFTER : AT_END;
    if (r->stack.size == 1 && top(r) == '{') return VALUE_MEMBER;
    return r->stack.size ? VALUE_KEY /* go on */ : VALUE_DONE;
}

static bool close_bracket(value_reader *r, char c)
{
    char open = c == '}' ? '{' : c == ']' ? '[' : '(';
    if (top(r) != open) return false;
    size_t n = r->out.size;                                       /* a comma before the end does not go into JSON */
    if (r->dialect != VALUE_JSON && n > 2 && r->out.data[n - 1] == ' ' && r->out.data[n - 2] == ',') r->out.size -= 2;
    r->stack.data[--r->stack.size] = 0;
    buf_addc(&r->out, c == '}' ? '}' : ']');
    return true;
}

static bool open_bracket(value_reader *r, char c)
{
    if (r->stack.size >= STACK_MAX) return false;
    buf_addc(&r->stack, c);
    buf_addc(&r->out, c == '{' ? '{' : '[');
    r->state = c == '{' ? AT_KEY : AT_VALUE;
    r->may_close = true;
    return true;
}

enum { GO_ON = -1 };

static int step_value(value_reader *r, value_text *t)
{
    copy_space(r, t);
    if (t->pos >= t->n) return VALUE_MORE;
    char c = t->s[t->pos];
    if (c == ']' || c == ')') {
        if (!r->may_close || !close_bracket(r, c)) return VALUE_BAD;
        t->pos++;
        return (int)value_ended(r);
    }
    if (c == '{' || c == '[' || (c == '(' && r->dialect == VALUE_PYTHON)) {
        t->pos++;
        return open_bracket(r, c) ? GO_ON : VALUE_BAD;
    }
    int string = open_string(r, t, false);
    if (string < 0) return VALUE_MORE;
    if (string) return GO_ON;
    if (strchr("}:,", c) && c) return VALUE_BAD;
    buf_clear(&r->word);
    r->state = AT_WORD;
    return GO_ON;
}

/* Python without quotes or without commas: the word may be text, or a literal and the next keyword. */
static int end_python_word(value_reader *r, value_text *t)
{
    if (t->pos < t->n && t->s[t->pos] == '=' && !r->stack.size)
        for (size_t i = r->word.size; i-- > 1;)
            if (is_letter(r->word.data[i]) && add_word(r, r->word.data, i)) {
                t->pos -= r->word.size - i;
                return (int)value_ended(r);
            }
    return VALUE_BAD;
}

static int step_bare_text(value_reader *r, value_text *t)
{
    while (t->pos < t->n && r->word.size < (1 << 20)) {
        char c = t->s[t->pos];
        int ends = c == ',' || c == ')' ? argument_ends(t, t->pos) : 0;
        if (ends < 0) return VALUE_MORE;
        if (ends) {
            size_t n = r->word.size;
            while (n && is_space(r->word.data[n - 1])) n--;
            if (!add_word(r, r->word.data ? r->word.data : "", n)) value_add_string(&r->out, r->word.data ? r->word.data : "", n);
            return (int)value_ended(r);
        }
        buf_addc(&r->word, c);
        t->pos++;
    }
    return t->pos < t->n ? VALUE_BAD : VALUE_MORE;
}

static int step_word(value_reader *r, value_text *t)
{
    bool pairs = r->dialect == VALUE_PAIRS;
    if (r->bare && !r->stack.size) return step_bare_text(r, t);
    while (t->pos < t->n && r->word.size < WORD_MAX) {
        char c = t->s[t->pos];
        if (pairs ? strchr(",{}[]<\"", c) && c : !(is_letter(c) || is_digit(c) || c == '+' || c == '-' || c == '.')) break;
        buf_addc(&r->word, c);
        t->pos++;
    }
    if (t->pos >= t->n && !(t->final && !r->stack.size)) return VALUE_MORE;
    if (pairs && t->pos < t->n && strchr("{[<\"", t->s[t->pos])) return VALUE_BAD;
    while (pairs && r->word.size && is_space(r->word.data[r->word.size - 1])) r->word.size--;
    if (r->word.size && r->word.size < WORD_MAX && add_word(r, r->word.data, r->word.size)) return (int)value_ended(r);
    return r->dialect == VALUE_PYTHON && r->loose && r->word.size ? end_python_word(r, t) : VALUE_BAD;
}

static int step_key(value_reader *r, value_text *t)
{
    copy_space(r, t);
    if (t->pos >= t->n) return VALUE_MORE;
    char c = t->s[t->pos];
    if (c == '}') {
        if (!r->may_close || !close_bracket(r, c)) return VALUE_BAD;
        t->pos++;
        return (int)value_ended(r);
    }
    size_t at = r->out.size;
    int string = open_string(r, t, true);
    if (string < 0) return VALUE_MORE;
    if (r->stack.size == 1) r->key_at = at;
    if (string) return GO_ON;
    if (r->dialect == VALUE_JSON || strchr("{}[],:", c)) return VALUE_BAD;
    buf_clear(&r->word);
    r->state = AT_BARE_KEY;
    return GO_ON;
}

static int step_bare_key(value_reader *r, value_text *t)
{
    while (t->pos < t->n && t->s[t->pos] != ':') {
        if (strchr("{}[],\"<>\n", t->s[t->pos]) || r->word.size >= 256) return VALUE_BAD;
        buf_addc(&r->word, t->s[t->pos++]);
    }
    if (t->pos >= t->n) return VALUE_MORE;
    while (r->word.size && is_space(r->word.data[r->word.size - 1])) r->word.size--;
    if (!r->word.size) return VALUE_BAD;
    value_add_string(&r->out, r->word.data, r->word.size);
    r->state = AT_COLON;
    if (r->stack.size == 1) r->key_end = r->out.size;
    return GO_ON;
}

static int step_colon(value_reader *r, value_text *t)
{
    copy_space(r, t);
    if (t->pos >= t->n) return VALUE_MORE;
    if (t->s[t->pos] != ':') return VALUE_BAD;
    t->pos++;
    buf_adds(&r->out, r->dialect == VALUE_JSON ? ":" : ": ");
    copy_space(r, t);
    r->state = AT_VALUE;
    r->may_close = false;
    r->value_at = r->stack.size == 1 ? SIZE_MAX : r->value_at;   /* set when the value begins */
    return GO_ON;
}

static int step_after(value_reader *r, value_text *t)
{
    copy_space(r, t);
    if (t->pos >= t->n) return VALUE_MORE;
    char c = t->s[t->pos];
    if (c == '}' || c == ']' || c == ')') {
        if (!close_bracket(r, c)) return VALUE_BAD;
        t->pos++;
        return (int)value_ended(r);
    }
    if (c != ',') return VALUE_BAD;
    t->pos++;
    buf_adds(&r->out, r->dialect == VALUE_JSON ? "," : ", ");
    r->state = top(r) == '{' ? AT_KEY : AT_VALUE;
    r->may_close = r->dialect != VALUE_JSON;
    return GO_ON;
}

static int step_text(value_reader *r, value_text *t)
{
    value_result result = r->state == AT_STRING ? read_string(r, t) : read_marked(r, t);
    if (result != VALUE_DONE) return (int)result;
    buf_addc(&r->out, '"');
    if (!r->is_key) return (int)value_ended(r);
    r->state = AT_COLON;
    if (r->stack.size == 1) r->key_end = r->out.size;
    return GO_ON;
}

size_t value_certain(const value_reader *r)
{
    size_t n = r->out.size;
    bool comma = r->dialect != VALUE_JSON && r->state != AT_STRING && r->state != AT_MARKED && n > 1 && r->out.data[n - 1] == ' ' && r->out.data[n - 2] == ',';
    return comma ? n - 2 : n;
}

value_result value_run(value_reader *r, value_text *t)
{
    for (;;) {
        if (r->out.failed || r->stack.failed || r->word.failed) return VALUE_BAD;
        int result = GO_ON;
        int state = r->state;
        switch (state) {
        case AT_VALUE:
            if (r->value_at == SIZE_MAX && r->stack.size == 1) {
                copy_space(r, t);
                if (t->pos >= t->n) return VALUE_MORE;
                r->value_at = r->out.size;
                return VALUE_KEY;
            }
            result = step_value(r, t);
            break;
        case AT_STRING: case AT_MARKED: result = step_text(r, t); break;
        case AT_WORD: result = step_word(r, t); break;
        case AT_AFTER: result = step_after(r, t); break;
        case AT_KEY: result = step_key(r, t); break;
        case AT_BARE_KEY: result = step_bare_key(r, t); break;
        case AT_COLON: result = step_colon(r, t); break;
        default: return VALUE_DONE;
        }
        if (result == VALUE_KEY) continue;                        /* an inner value ended */
        if (result != GO_ON) return (value_result)result;
    }
}

bool value_whole(value_dialect dialect, bool loose, const char *text, size_t size, buf *out)
{
    value_reader r = {0};
    value_reset(&r, dialect);
    r.loose = loose;
    value_text t = {.s = text, .n = size, .final = true};
    value_result result;
    do result = value_run(&r, &t);
    while (result == VALUE_KEY || result == VALUE_MEMBER);
    while (t.pos < size && is_space(text[t.pos])) t.pos++;
    bool ok = result == VALUE_DONE && t.pos == size && r.out.size && buf_add(out, r.out.data, r.out.size);
    value_free(&r);
    return ok;
}
