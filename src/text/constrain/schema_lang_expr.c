/* schema_lang_expr.c - a set of strings as an expression of the grammar: character by character in the spellings of the form. Nothing is computed
 * beforehand, the matcher does it where the text goes; so this is for sets without intersection and complement, whose derivatives never are
 * empty. The others become automata (constrain/schema_lang_dfa.c). */
#include <string.h>

#include "text/constrain/schema_lang_internal.h"

enum { EXPR_MAX_DEPTH = 1000 };

typedef struct conversion {
    lang_pool *p;
    grammar_builder *b;
    lang_form form;
    grammar_expr *made;            /* by node */
    bool not_plain;                /* intersection or complement was met */
} conversion;

/* ---- \uXXXX ---- */
static grammar_expr hex_digit(grammar_builder *b, uint32_t low, uint32_t high)
{
    grammar_range r[3];
    size_t n = 0;
    if (low < 10) r[n++] = (grammar_range){'0' + low, '0' + (high < 10 ? high : 9)};
    if (high >= 10) {
        uint32_t from = low < 10 ? 0 : low - 10;
        r[n++] = (grammar_range){'a' + from, 'a' + high - 10};
        r[n++] = (grammar_range){'A' + from, 'A' + high - 10};
    }
    return grammar_class(b, r, n, false);
}

/* The numbers from low to high with this many digits. */
static grammar_expr hex_range(grammar_builder *b, uint32_t low, uint32_t high, int digits)
{
    if (!digits) return grammar_empty(b);
    uint32_t unit = 1u << 4 * (digits - 1), first = low / unit, last = high / unit;
    if (first == last) return grammar_seq2(b, hex_digit(b, first, first), hex_range(b, low % unit, high % unit, digits - 1));
    grammar_expr all = grammar_none(b);
    if (low % unit) all = grammar_seq2(b, hex_digit(b, first, first), hex_range(b, low % unit, unit - 1, digits - 1)), first++;
    if (high % unit != unit - 1) all = grammar_alt2(b, all, grammar_seq2(b, hex_digit(b, last, last), hex_range(b, 0, high % unit, digits - 1))), last--;
    if (first <= last && last != UINT32_MAX) all = grammar_alt2(b, all, grammar_seq2(b, hex_digit(b, first, last), hex_range(b, 0, unit - 1, digits - 1)));
    return all;
}

static grammar_expr unit_range(grammar_builder *b, uint32_t low, uint32_t high)
{
    return grammar_seq2(b, grammar_text(b, "\\u"), hex_range(b, low, high, 4));
}

/* Characters beyond U+FFFF as pairs of units. */
static grammar_expr pair_range(grammar_builder *b, uint32_t low, uint32_t high)
{
    low -= 0x10000;
    high -= 0x10000;
    uint32_t first = low >> 10, last = high >> 10;
    if (first == last) return grammar_seq2(b, unit_range(b, 0xD800 + first, 0xD800 + first), unit_range(b, 0xDC00 + (low & 1023), 0xDC00 + (high & 1023)));
    grammar_expr all = grammar_none(b);
    if (low & 1023) all = grammar_seq2(b, unit_range(b, 0xD800 + first, 0xD800 + first), unit_range(b, 0xDC00 + (low & 1023), 0xDFFF)), first++;
    if ((high & 1023) != 1023) {
        all = grammar_alt2(b, all, grammar_seq2(b, unit_range(b, 0xD800 + last, 0xD800 + last), unit_range(b, 0xDC00, 0xDC00 + (high & 1023))));
        if (last-- == first) return all;
    }
    return first <= last ? grammar_alt2(b, all, grammar_seq2(b, unit_range(b, 0xD800 + first, 0xD800 + last), unit_range(b, 0xDC00, 0xDFFF))) : all;
}

/* ---- one character ---- */
static bool has(const lang_range *r, size_t n, uint32_t code)
{
    for (size_t i = 0; i < n; i++)
        if (code >= r[i].low && code <= r[i].high) return true;
    return false;
}

static grammar_expr escapes(grammar_builder *b, const lang_range *r, size_t n, lang_form form)
{
    static const struct { char letter; uint32_t code; } shorts[] = {{'"', '"'}, {'/', '/'}, {'\'', '\''}, {'\\', '\\'}, {'b', 8}, {'f', 12}, {'n', 10}, {'r', 13}, {'t', 9}};
    grammar_expr all = grammar_none(b);
    for (size_t i = 0; i < sizeof shorts / sizeof *shorts; i++) {
        char c = shorts[i].letter;
        if ((c == '"' && form == LANG_SINGLE) || (c == '/' && form != LANG_JSON) || (c == '\'' && form != LANG_SINGLE)) continue;
        if (has(r, n, shorts[i].code)) all = grammar_alt2(b, all, grammar_bytes(b, (char[]){'\\', c}, 2));
    }
    for (size_t i = 0; i < n; i++) {                   /* printable ASCII stands for itself */
        if (r[i].low < 0x20) all = grammar_alt2(b, all, unit_range(b, r[i].low, r[i].high < 0x1F ? r[i].high : 0x1F));
        if (r[i].high > 0x7E && r[i].low <= 0xFFFF) all = grammar_alt2(b, all, unit_range(b, r[i].low > 0x7F ? r[i].low : 0x7F, r[i].high < 0xFFFF ? r[i].high : 0xFFFF));
        if (r[i].high > 0xFFFF) all = grammar_alt2(b, all, pair_range(b, r[i].low > 0x10000 ? r[i].low : 0x10000, r[i].high));
    }
    return all;
}

static grammar_expr one_of_class(conversion *k, const lang_range *r, size_t n)
{
    grammar_builder *b = k->b;
    grammar_range *raw = MEM_ARRAY(4 * n + 4, grammar_range);
    if (!raw) return grammar_fail(b, VLM_MEMORY, "out of memory");
    const uint32_t quote = k->form == LANG_SINGLE ? '\'' : '"';
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t low = r[i].low;
        if (k->form != LANG_UTF8) {
            const uint32_t out[] = {quote, '\\'};      /* in order */
            if (low < 0x20) low = 0x20;
            for (int x = 0; x < 2 && low <= r[i].high; x++) {
                if (out[x] < low || out[x] > r[i].high) continue;
                if (out[x] > low) raw[count++] = (grammar_range){low, out[x] - 1};
                low = out[x] + 1;
            }
        }
        if (low <= r[i].high) raw[count++] = (grammar_range){low, r[i].high};
    }
    grammar_expr made = count ? grammar_class(b, raw, count, false) : grammar_none(b);
    mem_free(raw);
    return k->form == LANG_UTF8 ? made : grammar_alt2(b, made, escapes(b, r, n, k->form));
}

/* ---- sets ---- */
static grammar_expr convert(conversion *k, lang a, int depth);

static grammar_expr convert_list(conversion *k, lang a, int depth)
{
    lang_pool *p = k->p;
    size_t n = 0, capacity = 0;
    grammar_expr *part = NULL;
    bool seq = p->node[a].kind == L_SEQ, ok = true;
    for (uint32_t i = 0; ok; i++) {
        bool last = seq ? p->node[a].kind != L_SEQ : i + 1 == p->node[a].b;
        lang one = !seq ? p->item[p->node[a].a + i] : last ? a : p->node[a].a;
        if (n == capacity) {
            capacity = capacity ? capacity * 2 : 16;
            grammar_expr *more = mem_resize(part, capacity, sizeof *more);
            if (!more) {
                mem_free(part);
                return grammar_fail(k->b, VLM_MEMORY, "out of memory");
            }
            part = more;
        }
        ok = (part[n++] = convert(k, one, depth + 1)) != 0;
        if (last) break;
        if (seq) a = p->node[a].b;
    }
    grammar_expr made = !ok ? 0 : seq ? grammar_seq(k->b, part, n) : grammar_alt(k->b, part, n);
    mem_free(part);
    return made;
}

static grammar_expr convert(conversion *k, lang a, int depth)
{
    static const lang_range everything[] = {{0, 0xD7FF}, {0xE000, LANG_LAST}};
    if (k->made[a]) return k->made[a];
    const lang_node *n = &k->p->node[a];
    grammar_builder *b = k->b;
    grammar_expr made = 0;
    if (depth > EXPR_MAX_DEPTH) k->not_plain = true;
    if (k->not_plain) return 0;
    switch (n->kind) {
    case L_FAIL: made = grammar_none(b); break;
    case L_EMPTY: made = grammar_empty(b); break;
    case L_CLASS: made = one_of_class(k, (const lang_range *)(k->p->item + n->a), n->b / 2); break;
    case L_REPEAT: made = convert(k, n->a, depth + 1); made = made ? grammar_repeat(b, made, n->b, n->c == LANG_MANY ? -1 : (int64_t)n->c) : 0; break;
    case L_SEQ: case L_ALT: made = convert_list(k, a, depth); break;
    default:
        if (a == LANG_ANY) made = grammar_repeat(b, one_of_class(k, everything, 2), 0, -1);
        else k->not_plain = true;
    }
    return k->made[a] = made;
}

grammar_expr lang_expr(lang_pool *p, lang a, lang_form form, grammar_builder *b, bool *plain)
{
    conversion k = {.p = p, .b = b, .form = form, .made = MEM_ARRAY(p->count + 1, grammar_expr)};
    if (!k.made) return grammar_fail(b, VLM_MEMORY, "out of memory");
    grammar_expr made = convert(&k, a, 0);
    *plain = !k.not_plain;
    mem_free(k.made);
    return k.not_plain ? 0 : made;
}
