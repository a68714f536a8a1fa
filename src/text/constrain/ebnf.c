/* ebnf.c - the two dialects of grammar texts: telling them apart, and what they share. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "text/constrain/ebnf_internal.h"

grammar_expr ebnf_fail(ebnf *e, size_t at, vlm_status status, const char *format, ...)
{
    if (e->failed) return 0;
    e->failed = true;
    char text[500];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    size_t line = 1, start = 0;
    for (size_t i = 0; i < at && i < e->size; i++)
        if (e->text[i] == '\n') line++, start = i + 1;
    err_set(e->error, status, "line %zu, column %zu: %s", line, at - start + 1, text);
    return 0;
}

bool ebnf_take(ebnf *e, const char *what)
{
    size_t n = strlen(what);
    if (e->at > e->size) e->at = e->size;              /* after a backslash at the end */
    if (e->size - e->at < n || memcmp(e->text + e->at, what, n)) return false;
    e->at += n;
    return true;
}

ebnf_rule *ebnf_find(ebnf *e, const char *name, size_t size)
{
    uint32_t hash = (uint32_t)size;
    for (size_t i = 0; i < size; i++) hash = hash * 31 + (unsigned char)name[i];
    for (size_t i = 0; i < e->count; i++)
        if (e->rule[i].hash == hash && e->rule[i].size == size && !memcmp(e->rule[i].name, name, size)) return &e->rule[i];
    if (e->count == EBNF_MAX_RULES) {
        ebnf_fail(e, e->at, VLM_LIMIT, "more than %d rules", EBNF_MAX_RULES);
        return NULL;
    }
    if (e->count == e->capacity) {
        size_t n = e->capacity ? e->capacity * 2 : 32;
        ebnf_rule *rule = mem_resize(e->rule, n, sizeof *rule);
        if (!rule) {
            ebnf_fail(e, e->at, VLM_MEMORY, "out of memory");
            return NULL;
        }
        e->rule = rule;
        e->capacity = n;
    }
    e->rule[e->count] = (ebnf_rule){.name = name, .size = size, .hash = hash, .rule = grammar_rule(e->b, NULL), .used_at = (size_t)(name - e->text)};
    return &e->rule[e->count++];
}

bool ebnf_complete(ebnf *e)
{
    for (size_t i = 0; i < e->count; i++)
        if (!e->rule[i].defined) return ebnf_fail(e, e->rule[i].used_at, VLM_INVALID, "there is no rule \"%.*s\"", (int)e->rule[i].size, e->rule[i].name);
    return true;
}

static int hex_value(int c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1; }

bool ebnf_hex(ebnf *e, int digits, uint32_t *code)
{
    *code = 0;
    for (int i = 0; i < digits; i++, e->at++) {
        int v = hex_value(ebnf_peek(e, 0));
        if (v < 0) return ebnf_fail(e, e->at, VLM_INVALID, "%d hexadecimal digits were expected", digits);
        *code = *code * 16 + (uint32_t)v;
    }
    return *code <= 0x10FFFF || ebnf_fail(e, e->at, VLM_INVALID, "there is no such character");
}

static bool token_number(ebnf *e, uint32_t *out)
{
    size_t start = e->at;
    for (*out = 0; ebnf_peek(e, 0) >= '0' && ebnf_peek(e, 0) <= '9' && *out < 100000000; e->at++) *out = *out * 10 + (uint32_t)(ebnf_peek(e, 0) - '0');
    return e->at > start;
}

/* [5], [5-9], [1,5-9] */
static grammar_expr token_ids(ebnf *e)
{
    grammar_expr all = grammar_none(e->b);
    size_t total = 0;
    do {
        uint32_t first, last;
        if (!token_number(e, &first)) return ebnf_fail(e, e->at, VLM_UNSUPPORTED, "a token's number was expected (or several, 5-9,12)");
        last = first;
        if (ebnf_take(e, "-") && !token_number(e, &last)) return ebnf_fail(e, e->at, VLM_INVALID, "a token's number was expected");
        if (last < first || (total += last - first + 1) > 100000) return ebnf_fail(e, e->at, VLM_INVALID, "the range of tokens is empty or too large");
        for (uint32_t id = first; id <= last; id++) all = grammar_alt2(e->b, all, grammar_token(e->b, (int32_t)id));
    } while (ebnf_take(e, ","));
    if (!ebnf_take(e, "]>")) return ebnf_fail(e, e->at, VLM_INVALID, "]> was expected");
    return all;
}

grammar_expr ebnf_token(ebnf *e)
{
    size_t start = e->at++;
    if (ebnf_take(e, "[")) return token_ids(e);
    while (e->at < e->size && e->text[e->at] != '>' && e->text[e->at] != '\n') e->at++;
    if (!ebnf_take(e, ">")) return ebnf_fail(e, start, VLM_INVALID, "a token's name has no end");
    return grammar_token_text(e->b, e->text + start, e->at - start);
}

/* Is there a line "name ::="? */
static bool looks_like_gbnf(const char *text, size_t size)
{
    for (size_t i = 0; i < size;) {
        while (i < size && (text[i] == ' ' || text[i] == '\t')) i++;
        size_t start = i;
        while (i < size && (text[i] == '-' || text[i] == '_' || (text[i] >= '0' && text[i] <= '9') || ((text[i] | 32) >= 'a' && (text[i] | 32) <= 'z'))) i++;
        bool name = i > start;
        while (i < size && (text[i] == ' ' || text[i] == '\t')) i++;
        if (name && size - i >= 3 && !memcmp(text + i, "::=", 3)) return true;
        while (i < size && text[i++] != '\n') {}
    }
    return false;
}

grammar_expr ebnf_expr(grammar_builder *b, const char *text, size_t size, ebnf_dialect dialect, vlm_error *error)
{
    vlm_error own = {0};
    ebnf e = {.b = b, .text = text, .size = size, .error = error ? error : &own};
    if (size > EBNF_MAX_SIZE) return err_set(error, VLM_LIMIT, "a grammar of %zu bytes, at most %d are read", size, EBNF_MAX_SIZE);
    bool gbnf = dialect == EBNF_GBNF || (dialect == EBNF_DETECT && looks_like_gbnf(text, size));
    grammar_expr made = gbnf ? ebnf_gbnf(&e) : ebnf_lark(&e);
    const vlm_error *failed = grammar_builder_error(b);
    if (!e.failed && failed && error) *error = *failed;
    mem_free(e.rule);
    return e.failed || failed ? 0 : made;
}
