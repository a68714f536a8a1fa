/* ebnf_gbnf.c - GBNF: name ::= "text" [class] other-name (group) . * + ? {m,n} | <token> <[id]> !<token>, # comments; the start is root. */
#include <string.h>

#include "text/constrain/ebnf_internal.h"
#include "text/utf8.h"

enum { GBNF_MAX_RANGES = 2000 };

static grammar_expr alternatives(ebnf *e, bool nested);

static void skip(ebnf *e, bool lines)
{
    for (int c; (c = ebnf_peek(e, 0)) >= 0; e->at++) {
        if (c == '#') {
            while (ebnf_peek(e, 0) >= 0 && ebnf_peek(e, 0) != '\n' && ebnf_peek(e, 0) != '\r') e->at++;
            e->at--;
        } else if (c != ' ' && c != '\t' && !(lines && (c == '\n' || c == '\r'))) {
            return;
        }
    }
}

static bool is_word(int c) { return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z' && c < 128) || c == '-' || c == '_'; }

static bool name(ebnf *e, const char **text, size_t *size)
{
    *text = e->text + e->at;
    size_t start = e->at;
    while (is_word(ebnf_peek(e, 0))) e->at++;
    *size = e->at - start;
    return *size || ebnf_fail(e, e->at, VLM_INVALID, "a rule's name was expected");
}

static bool character(ebnf *e, uint32_t *code)
{
    if (ebnf_peek(e, 0) != '\\') {
        e->at += utf8_next_lossy(e->text + e->at, e->size - e->at, code);
        return true;
    }
    int c = ebnf_peek(e, 1);
    e->at += 2;
    switch (c) {
    case 'x': return ebnf_hex(e, 2, code);
    case 'u': return ebnf_hex(e, 4, code);
    case 'U': return ebnf_hex(e, 8, code);
    case 't': *code = '\t'; return true;
    case 'r': *code = '\r'; return true;
    case 'n': *code = '\n'; return true;
    case 'f': *code = '\f'; return true;
    case 'v': *code = '\v'; return true;
    case 'b': *code = '\b'; return true;
    case '0': *code = 0; return true;
    default: break;
    }
    if (c < 0 || c >= 128 || (is_word(c) && c != '-' && c != '_')) {
        e->at -= 2;
        return ebnf_fail(e, e->at, VLM_INVALID, "unknown escape");
    }
    *code = (uint32_t)c;
    return true;
}

static grammar_expr literal(ebnf *e)
{
    buf text = {0};
    size_t start = e->at++;
    uint32_t code;
    while (ebnf_peek(e, 0) >= 0 && ebnf_peek(e, 0) != '"') {
        if (!character(e, &code)) break;
        buf_add_utf8(&text, code);
    }
    grammar_expr made = 0;
    if (!e->failed && !ebnf_take(e, "\"")) ebnf_fail(e, start, VLM_INVALID, "the text has no end");
    if (!e->failed) made = text.failed ? ebnf_fail(e, start, VLM_MEMORY, "out of memory") : grammar_bytes(e->b, text.data ? text.data : "", text.size);
    buf_free(&text);
    return made;
}

static grammar_expr class(ebnf *e)
{
    grammar_range range[GBNF_MAX_RANGES];
    size_t n = 0, start = e->at++;
    bool negated = ebnf_take(e, "^");
    while (ebnf_peek(e, 0) >= 0 && ebnf_peek(e, 0) != ']') {
        uint32_t first, last;
        if (n == GBNF_MAX_RANGES) return ebnf_fail(e, e->at, VLM_LIMIT, "more than %d ranges", GBNF_MAX_RANGES);
        if (!character(e, &first)) return 0;
        last = first;
        if (ebnf_peek(e, 0) == '-' && ebnf_peek(e, 1) != ']' && ebnf_peek(e, 1) >= 0) {
            e->at++;
            if (!character(e, &last)) return 0;
        }
        if (last < first) return ebnf_fail(e, e->at, VLM_INVALID, "a range goes backwards");
        range[n++] = (grammar_range){first, last};
    }
    if (!ebnf_take(e, "]")) return ebnf_fail(e, start, VLM_INVALID, "the class has no end");
    return grammar_class(e->b, range, n, negated);
}

static bool number(ebnf *e, uint32_t *out)
{
    size_t start = e->at;
    uint64_t v = 0;
    for (; ebnf_peek(e, 0) >= '0' && ebnf_peek(e, 0) <= '9'; e->at++) v = v > 1000000000 ? v : v * 10 + (uint64_t)(ebnf_peek(e, 0) - '0');
    *out = (uint32_t)(v > 2000000000 ? 2000000000 : v);
    return e->at > start;
}

static grammar_expr bounds(ebnf *e, grammar_expr x)
{
    uint32_t min = 0, max = 0;
    size_t start = e->at++;
    skip(e, true);
    bool low = number(e, &min);
    skip(e, true);
    int64_t most = min;
    if (ebnf_take(e, ",")) {
        skip(e, true);
        most = number(e, &max) ? (int64_t)max : -1;
        skip(e, true);
        low = true;
    }
    if (!low || !ebnf_take(e, "}")) return ebnf_fail(e, start, VLM_INVALID, "{m}, {m,} or {m,n} was expected");
    if (most >= 0 && most < min) return ebnf_fail(e, start, VLM_INVALID, "the bounds are the wrong way round");
    return grammar_repeat(e->b, x, min, most);
}

/* One symbol; 0 with e->failed unset: there is none. */
static grammar_expr symbol(ebnf *e, bool nested)
{
    int c = ebnf_peek(e, 0);
    if (c == '"') return literal(e);
    if (c == '[') return class(e);
    if (c == '<') return ebnf_token(e);
    if (c == '!' && ebnf_peek(e, 1) == '<') {          /* anything but this token: special tokens are no text, so any text is */
        e->at++;
        return ebnf_token(e) ? grammar_any(e->b) : 0;
    }
    if (c == '.') {
        e->at++;
        return grammar_any(e->b);
    }
    if (c == '(') {
        size_t start = e->at++;
        skip(e, true);
        grammar_expr inner = alternatives(e, true);
        if (!e->failed && !ebnf_take(e, ")")) return ebnf_fail(e, start, VLM_INVALID, "the group has no end");
        return inner;
    }
    if (!is_word(c)) return 0;
    const char *text;
    size_t size;
    size_t back = e->at;
    if (!name(e, &text, &size)) return 0;
    size_t end = e->at;
    skip(e, nested);
    if (size && e->size - e->at >= 3 && !memcmp(e->text + e->at, "::=", 3)) {  /* the next rule begins, on this line */
        e->at = back;
        return 0;
    }
    e->at = end;
    ebnf_rule *r = ebnf_find(e, text, size);
    return r ? r->rule : 0;
}

static grammar_expr sequence(ebnf *e, bool nested)
{
    grammar_expr all = grammar_empty(e->b);
    for (;;) {
        grammar_expr x = symbol(e, nested);
        if (e->failed) return 0;
        if (!x) return grammar_builder_error(e->b) ? 0 : all;
        skip(e, nested);
        for (bool more = true; more;) {
            if (ebnf_take(e, "*")) x = grammar_repeat(e->b, x, 0, -1);
            else if (ebnf_take(e, "+")) x = grammar_repeat(e->b, x, 1, -1);
            else if (ebnf_take(e, "?")) x = grammar_optional(e->b, x);
            else if (ebnf_peek(e, 0) == '{') x = bounds(e, x);
            else more = false;
            if (e->failed) return 0;
            if (more) skip(e, nested);
        }
        all = grammar_seq2(e->b, all, x);
    }
}

static grammar_expr alternatives(ebnf *e, bool nested)
{
    if (++e->depth > EBNF_MAX_DEPTH) return ebnf_fail(e, e->at, VLM_LIMIT, "groups are nested too deep");
    grammar_expr all = sequence(e, nested);
    for (;;) {
        size_t back = e->at;
        skip(e, true);
        if (e->failed || !ebnf_take(e, "|")) {
            e->at = nested ? e->at : back;
            break;
        }
        skip(e, true);
        grammar_expr next = sequence(e, nested);
        all = grammar_alt2(e->b, all, next);
    }
    e->depth--;
    return e->failed ? 0 : all;
}

static bool rule(ebnf *e)
{
    const char *text;
    size_t size, start = e->at;
    if (!name(e, &text, &size)) return false;
    skip(e, false);
    if (!ebnf_take(e, "::=")) return ebnf_fail(e, e->at, VLM_INVALID, "::= was expected");
    skip(e, true);
    ebnf_rule *r = ebnf_find(e, text, size);
    if (!r) return false;
    if (r->defined) return ebnf_fail(e, start, VLM_INVALID, "the rule \"%.*s\" is defined twice", (int)size, text);
    r->defined = true;
    grammar_expr own = r->rule, body = alternatives(e, false);     /* r may move */
    if (e->failed) return false;
    grammar_define(e->b, own, body);
    int c = ebnf_peek(e, 0);
    if (c >= 0 && c != '\n' && c != '\r' && !is_word(c)) return ebnf_fail(e, e->at, VLM_INVALID, "unexpected \"%c\"", c);
    return true;
}

grammar_expr ebnf_gbnf(ebnf *e)
{
    for (skip(e, true); ebnf_peek(e, 0) >= 0 && !e->failed; skip(e, true))
        if (!rule(e)) return 0;
    if (!ebnf_complete(e)) return 0;
    for (size_t i = 0; i < e->count; i++)
        if (e->rule[i].size == 4 && !memcmp(e->rule[i].name, "root", 4)) return e->rule[i].rule;
    return ebnf_fail(e, 0, VLM_INVALID, "there is no rule \"root\", where a grammar starts");
}
