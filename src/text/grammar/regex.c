/* regex.c - regular expressions as people write them, as expressions of the builder.
 *
 * ^ and $ are read as two marks, bytes that never occur in UTF-8; afterwards the text is thought of with any number of ^ before it and
 * $ after it, and the marks are taken out by derivatives from both ends. So an anchor is right wherever it stands ((^a|b)c, x*^y). */
#include <string.h>
#include <utf8proc.h>

#include "text/grammar/internal.h"
#include "text/utf8.h"

enum { MARK_BEGIN = 0xFE, MARK_END = 0xFF, MAX_GROUPS = 250 };
#define CATEGORY(name) (1u << UTF8PROC_CATEGORY_##name)

typedef struct parser {
    grammar_builder *b;
    gpool *p;
    const char *s;
    size_t size, at;
    unsigned flags;
    int depth;
    bool marks;
} parser;

typedef struct ranges { grammar_range *item; size_t count, capacity; bool failed; } ranges;

static uint32_t fail(parser *r, size_t at, const char *what)
{
    return grammar_fail(r->b, VLM_INVALID, "regular expression, at offset %zu: %s", at, what);
}

static bool more(const parser *r) { return r->at < r->size; }
static int peek(const parser *r) { return r->at < r->size ? (uint8_t)r->s[r->at] : -1; }
static bool take(parser *r, char c) { return peek(r) == (uint8_t)c ? (r->at++, true) : false; }
static bool starts(const parser *r, const char *text)
{
    const size_t n = strlen(text);
    return r->size - r->at >= n && !memcmp(r->s + r->at, text, n);
}

static void add(ranges *list, uint32_t first, uint32_t last)
{
    if (list->count == list->capacity) {
        const size_t n = list->capacity ? 2 * list->capacity : 16;
        grammar_range *item = mem_resize(list->item, n, sizeof *item);
        if (!item) {
            list->failed = true;
            return;
        }
        list->item = item;
        list->capacity = n;
    }
    list->item[list->count++] = (grammar_range){first, last};
}

static void add_category(ranges *list, uint32_t mask)
{
    grammar_range *found;
    size_t n;
    if (!grammar_category_ranges(mask, &found, &n)) {
        list->failed = true;
        return;
    }
    for (size_t i = 0; i < n; i++) add(list, found[i].first, found[i].last);
    mem_free(found);
}

static int by_first(const void *a, const void *b)
{
    const uint32_t x = ((const grammar_range *)a)->first, y = ((const grammar_range *)b)->first;
    return (x > y) - (x < y);
}

/* Replaces what lies in the list since `from` by everything else. */
static void invert(ranges *list, size_t from)
{
    const size_t end = list->count;
    if (end - from > 1) qsort(list->item + from, end - from, sizeof *list->item, by_first);
    uint32_t next = 0;
    for (size_t i = from; i < end && !list->failed; i++) {
        const grammar_range x = list->item[i];
        if (x.first > next) add(list, next, x.first - 1);
        if (x.last >= next) next = x.last + 1;
    }
    if (next <= 0x10FFFF) add(list, next, 0x10FFFF);
    if (list->failed) return;
    memmove(list->item + from, list->item + end, (list->count - end) * sizeof *list->item);
    list->count -= end - from;
}

/* With every character its other cases. */
static void fold(ranges *list)
{
    const size_t n = list->count;
    for (size_t i = 0; i < n && !list->failed; i++) {
        const grammar_range x = list->item[i];
        if (x.first == 0 && x.last == 0x10FFFF) continue;
        for (uint32_t c = x.first; c <= x.last && c <= 0x1FFFF; c++) {
            const uint32_t lower = (uint32_t)utf8proc_tolower((utf8proc_int32_t)c), upper = (uint32_t)utf8proc_toupper((utf8proc_int32_t)c);
            if (lower != c) add(list, lower, lower);
            if (upper != c) add(list, upper, upper);
        }
    }
}

static uint32_t as_class(parser *r, ranges *list)
{
    if (list->failed) gpool_fail(r->p, NULL);
    const uint32_t x = r->p->failed ? GE_FAILED : gx_class(r->p, list->item, list->count, false);
    mem_free(list->item);
    return x;
}

/* ---- escapes ---- */
/* \d and friends; false if c is none of them. */
static bool add_kind(parser *r, ranges *list, char c)
{
    const bool unicode = r->flags & GRAMMAR_UNICODE;
    const size_t from = list->count;
    switch (c | 0x20) {
    case 'd':
        if (unicode) add_category(list, CATEGORY(ND));
        else add(list, '0', '9');
        break;
    case 'w':
        if (unicode) add_category(list, CATEGORY(LU) | CATEGORY(LL) | CATEGORY(LT) | CATEGORY(LM) | CATEGORY(LO) | CATEGORY(ND) | CATEGORY(NL) | CATEGORY(NO));
        else add(list, '0', '9'), add(list, 'A', 'Z'), add(list, 'a', 'z');
        add(list, '_', '_');
        break;
    case 's':
        add(list, '\t', '\r');
        add(list, ' ', ' ');
        if (unicode) add(list, 0x1C, 0x1F), add(list, 0x85, 0x85), add(list, 0xA0, 0xA0), add_category(list, CATEGORY(ZS) | CATEGORY(ZL) | CATEGORY(ZP));
        break;
    default: return false;
    }
    if (c < 'a') invert(list, from);
    return true;
}

static bool category_mask(const char *name, size_t n, uint32_t *mask)
{
    static const char *const names[] = {"Cn", "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf",
                                        "Po", "Sm", "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Co"};
    static const struct { const char *name, *code; } words[] = {
        {"Letter", "L"}, {"Lowercase_Letter", "Ll"}, {"Uppercase_Letter", "Lu"}, {"Titlecase_Letter", "Lt"}, {"Modifier_Letter", "Lm"}, {"Other_Letter", "Lo"},
        {"Mark", "M"}, {"Number", "N"}, {"Decimal_Number", "Nd"}, {"Punctuation", "P"}, {"Symbol", "S"}, {"Separator", "Z"}, {"Other", "C"}, {"Control", "Cc"}};
    static const char *const prefixes[] = {"General_Category=", "gc=", "Is"};
    for (size_t i = 0; i < 3; i++) {
        const size_t k = strlen(prefixes[i]);
        if (n > k && !memcmp(name, prefixes[i], k)) name += k, n -= k;
    }
    *mask = 0;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (n == strlen(words[i].name) && !memcmp(name, words[i].name, n)) return category_mask(words[i].code, strlen(words[i].code), mask);
    if (n == 3 && !memcmp(name, "Any", 3)) *mask = ~0u;
    for (size_t i = 0; i < 30; i++)
        if (n && n <= 2 && name[0] == names[i][0] && (n == 1 || name[1] == names[i][1])) *mask |= 1u << i;
    if (n == 2 && !memcmp(name, "L&", 2)) *mask = CATEGORY(LU) | CATEGORY(LL) | CATEGORY(LT);
    return *mask != 0;
}

static bool add_property(parser *r, ranges *list, bool negated)
{
    const size_t begin = r->at;
    size_t n = 1;
    if (!more(r)) return fail(r, begin, "\\p needs the name of a category"), false;
    const char *name = r->s + r->at;
    if (take(r, '{')) {
        if (take(r, '^')) negated = !negated;
        name = r->s + r->at;
        const char *close = memchr(name, '}', r->size - r->at);
        if (!close) return fail(r, begin, "} is missing after \\p{"), false;
        n = (size_t)(close - name);
        r->at += n + 1;
    } else r->at++;
    uint32_t mask;
    if (!category_mask(name, n, &mask))
        return grammar_fail(r->b, VLM_UNSUPPORTED, "regular expression, at offset %zu: \\p{%.*s} is not supported, general categories are", begin, (int)(n > 40 ? 40 : n),
                            name), false;
    const size_t from = list->count;
    add_category(list, mask);
    if (negated) invert(list, from);
    return true;
}

static bool hex(parser *r, size_t least, size_t most, uint32_t *value)
{
    size_t n = 0;
    *value = 0;
    for (; n < most && more(r); n++, r->at++) {
        const int c = peek(r) | 0x20;
        const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (digit < 0 || (peek(r) < '0')) break;
        *value = *value << 4 | (uint32_t)digit;
    }
    return n >= least || (fail(r, r->at, "a hexadecimal digit was expected"), false);
}

/* After the backslash: one character. */
static bool escaped_char(parser *r, uint32_t *code)
{
    const size_t begin = r->at;
    if (!more(r)) return fail(r, begin, "the pattern ends in a backslash"), false;
    const char c = r->s[r->at++];
    switch (c) {
    case 'n': *code = '\n'; return true;
    case 'r': *code = '\r'; return true;
    case 't': *code = '\t'; return true;
    case 'f': *code = '\f'; return true;
    case 'v': *code = '\v'; return true;
    case 'a': *code = '\a'; return true;
    case 'e': *code = 0x1B; return true;
    case '0': *code = 0; return !(peek(r) >= '0' && peek(r) <= '9') || (fail(r, begin, "octal escapes are not supported"), false);
    case 'c':
        if (!more(r)) return fail(r, begin, "\\c needs a letter"), false;
        *code = (uint32_t)r->s[r->at++] & 0x1F;
        return true;
    case 'x':
        if (take(r, '{')) {
            if (!hex(r, 1, 6, code)) return false;
            return take(r, '}') || (fail(r, begin, "} is missing"), false);
        }
        return hex(r, 2, 2, code);
    case 'U': return hex(r, 8, 8, code);
    case 'u': {
        if (take(r, '{')) {
            if (!hex(r, 1, 6, code)) return false;
            return take(r, '}') || (fail(r, begin, "} is missing"), false);
        }
        if (!hex(r, 4, 4, code)) return false;
        if (*code >= 0xD800 && *code < 0xDC00 && starts(r, "\\u")) {
            const size_t back = r->at;
            uint32_t low;
            r->at += 2;
            if (hex(r, 4, 4, &low) && low >= 0xDC00 && low < 0xE000) *code = 0x10000 + ((*code - 0xD800) << 10) + (low - 0xDC00);
            else r->at = back;
        }
        return true;
    }
    default:
        if (c >= '1' && c <= '9') return grammar_fail(r->b, VLM_UNSUPPORTED, "regular expression, at offset %zu: back references are not supported", begin - 1), false;
        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
            return grammar_fail(r->b, VLM_UNSUPPORTED, "regular expression, at offset %zu: \\%c is not supported", begin - 1, c), false;
        r->at--;
        r->at += utf8_next_lossy(r->s + r->at, r->size - r->at, code);
        return true;
    }
}

/* ---- classes ---- */
static bool add_posix(parser *r, ranges *list)
{
    static const struct { const char *name; uint8_t r[8]; } sets[] = {
        {"[:alpha:]", {'A', 'Z', 'a', 'z'}}, {"[:digit:]", {'0', '9'}}, {"[:alnum:]", {'0', '9', 'A', 'Z', 'a', 'z'}}, {"[:upper:]", {'A', 'Z'}},
        {"[:lower:]", {'a', 'z'}}, {"[:space:]", {'\t', '\r', ' ', ' '}}, {"[:blank:]", {'\t', '\t', ' ', ' '}}, {"[:punct:]", {'!', '/', ':', '@', '[', '`', '{', '~'}},
        {"[:xdigit:]", {'0', '9', 'A', 'F', 'a', 'f'}}, {"[:word:]", {'0', '9', 'A', 'Z', 'a', 'z', '_', '_'}}};
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        if (!starts(r, sets[i].name)) continue;
        r->at += strlen(sets[i].name);
        for (size_t k = 0; k < 8 && sets[i].r[k]; k += 2) add(list, sets[i].r[k], sets[i].r[k + 1]);
        return true;
    }
    return false;
}

/* One member of a class; *code is it, or UINT32_MAX when it was a whole set. */
static bool class_member(parser *r, ranges *list, uint32_t *code)
{
    *code = UINT32_MAX;
    if (peek(r) == '[' && add_posix(r, list)) return true;
    if (!take(r, '\\')) {
        r->at += utf8_next_lossy(r->s + r->at, r->size - r->at, code);
        return true;
    }
    if (more(r) && add_kind(r, list, r->s[r->at])) return r->at++, true;
    if (take(r, 'p')) return add_property(r, list, false);
    if (take(r, 'P')) return add_property(r, list, true);
    if (take(r, 'b')) return *code = '\b', true;
    if (take(r, 'h')) return add(list, '\t', '\t'), add(list, ' ', ' '), true;
    return escaped_char(r, code);
}

static uint32_t parse_class(parser *r)
{
    const size_t begin = r->at - 1;
    const bool negated = take(r, '^');
    ranges list = {0};
    for (bool first = true;; first = false) {
        if (!more(r)) {
            mem_free(list.item);
            return fail(r, begin, "] is missing");
        }
        if (peek(r) == ']' && (!first || r->at + 1 == r->size || !memchr(r->s + r->at + 1, ']', r->size - r->at - 1))) break;
        if (peek(r) == ']' && first) {      /* ECMAScript's empty class, or Python's literal bracket? A lone [] or [^] is the former. */
            const char next = r->at + 1 < r->size ? r->s[r->at + 1] : 0;
            if (!next || strchr("*+?{)|$.[(", next)) break;
        }
        uint32_t low, high;
        if (!class_member(r, &list, &low)) break;
        if (peek(r) == '-' && r->at + 1 < r->size && r->s[r->at + 1] != ']') {
            if (low == UINT32_MAX) continue;          /* a set, then a hyphen as itself */
            const size_t at = r->at++;
            const size_t before = list.count;
            if (!class_member(r, &list, &high)) break;
            if (high == UINT32_MAX) {                 /* a-\d: three members */
                (void)before;
                add(&list, low, low);
                add(&list, '-', '-');
                continue;
            }
            if (high < low) {
                fail(r, at, "the range is out of order");
                break;
            }
            add(&list, low, high);
        } else if (low != UINT32_MAX) add(&list, low, low);
    }
    if (r->b->failed || r->p->failed) {
        mem_free(list.item);
        return GE_FAILED;
    }
    r->at++;
    if (r->flags & GRAMMAR_ICASE) fold(&list);
    if (negated) invert(&list, 0);
    return as_class(r, &list);
}

/* ---- expressions ---- */
static uint32_t parse_alternatives(parser *r);

static uint32_t mark(parser *r, unsigned byte)
{
    gset s = {{0}};
    gset_add(&s, byte);
    r->marks = true;
    return gx_set(r->p, &s);
}

static uint32_t character(parser *r, uint32_t code)
{
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) return fail(r, r->at, "this code point is no character");
    ranges list = {0};
    add(&list, code, code);
    if (r->flags & GRAMMAR_ICASE) fold(&list);
    return as_class(r, &list);
}

static uint32_t parse_escape(parser *r)
{
    const size_t begin = r->at - 1;
    if (!more(r)) return fail(r, begin, "the pattern ends in a backslash");
    ranges list = {0};
    if (add_kind(r, &list, r->s[r->at])) {
        r->at++;
        return as_class(r, &list);
    }
    const bool upper = peek(r) == 'P';
    if (upper || peek(r) == 'p') {
        r->at++;
        if (add_property(r, &list, upper)) return as_class(r, &list);
        mem_free(list.item);
        return GE_FAILED;
    }
    if (take(r, 'A')) return mark(r, MARK_BEGIN);
    if (take(r, 'z') || take(r, 'Z')) return mark(r, MARK_END);
    if (take(r, 'h')) return add(&list, '\t', '\t'), add(&list, ' ', ' '), as_class(r, &list);
    if (take(r, 'R')) {
        add(&list, '\n', '\r');
        add(&list, 0x85, 0x85);
        add(&list, 0x2028, 0x2029);
        const uint32_t one = as_class(r, &list);
        return gx_alt2(r->p, gx_bytes(r->p, "\r\n", 2), one);
    }
    if (peek(r) == 'b' || peek(r) == 'B')
        return grammar_fail(r->b, VLM_UNSUPPORTED, "regular expression, at offset %zu: word boundaries are not supported", begin);
    if (peek(r) == 'k') return grammar_fail(r->b, VLM_UNSUPPORTED, "regular expression, at offset %zu: back references are not supported", begin);
    uint32_t code;
    return escaped_char(r, &code) ? character(r, code) : GE_FAILED;
}

static uint32_t parse_group(parser *r)
{
    const size_t begin = r->at - 1;
    const unsigned outer = r->flags;
    if (take(r, '?')) {
        if (starts(r, "=") || starts(r, "!") || starts(r, "<=") || starts(r, "<!"))
            return grammar_fail(r->b, VLM_UNSUPPORTED, "regular expression, at offset %zu: lookaround is not supported", begin);
        if (starts(r, "P=") || starts(r, "P>") || starts(r, "R") || starts(r, "("))
            return grammar_fail(r->b, VLM_UNSUPPORTED, "regular expression, at offset %zu: this kind of group is not supported", begin);
        if (take(r, '#')) {
            while (more(r) && peek(r) != ')') r->at++;
            return take(r, ')') ? GE_EMPTY : fail(r, begin, ") is missing");
        }
        take(r, 'P');
        if (take(r, '<')) {
            while (more(r) && peek(r) != '>') r->at++;
            if (!take(r, '>')) return fail(r, begin, "the name of the group has no end");
        } else if (!take(r, ':') && !take(r, '>')) {
            bool on = true;
            for (; more(r) && peek(r) != ')' && peek(r) != ':'; r->at++) {
                const int c = peek(r);
                const unsigned flag = c == 'i' ? GRAMMAR_ICASE : c == 's' ? GRAMMAR_DOTALL : c == 'u' ? GRAMMAR_UNICODE : 0;
                if (c == '-') on = false;
                else if (c == 'a' && on) r->flags &= ~(unsigned)GRAMMAR_UNICODE;
                else if (!flag) return grammar_fail(r->b, VLM_UNSUPPORTED, "regular expression, at offset %zu: this kind of group is not supported", begin);
                else r->flags = on ? r->flags | flag : r->flags & ~flag;
            }
            if (take(r, ')')) return GE_EMPTY;         /* (?i): until the end of the enclosing group */
            if (!take(r, ':')) return fail(r, begin, ") is missing");
        }
    }
    if (++r->depth > MAX_GROUPS) return fail(r, begin, "groups are nested too deeply");
    const uint32_t x = parse_alternatives(r);
    r->depth--;
    r->flags = outer;
    if (!x) return GE_FAILED;
    return take(r, ')') ? x : fail(r, begin, ") is missing");
}

static uint32_t parse_atom(parser *r)
{
    const size_t begin = r->at;
    const char c = r->s[r->at];
    uint32_t code;
    switch (c) {
    case '(': r->at++; return parse_group(r);
    case '[': r->at++; return parse_class(r);
    case '\\': r->at++; return parse_escape(r);
    case '^': r->at++; return mark(r, MARK_BEGIN);
    case '$': r->at++; return mark(r, MARK_END);
    case '.':
        r->at++;
        return r->flags & GRAMMAR_DOTALL ? r->p->character : gx_class(r->p, (grammar_range[]){{'\n', '\n'}}, 1, true);
    case '*': case '+': case '?': return fail(r, begin, "nothing to repeat");
    default:
        r->at += utf8_next_lossy(r->s + r->at, r->size - r->at, &code);
        return character(r, code);
    }
}

/* {n}, {n,}, {n,m}, {,m}; false when the brace is no count. */
static bool parse_count(parser *r, uint32_t *min, uint32_t *max)
{
    const size_t begin = r->at++;
    uint64_t value[2] = {0, GRAMMAR_MANY};
    bool given[2] = {false, false}, comma = false;
    for (int i = 0; i < 2; i++) {
        uint64_t v = 0;
        for (; more(r) && peek(r) >= '0' && peek(r) <= '9'; r->at++, given[i] = true) if (v < 1ull << 40) v = v * 10 + (uint64_t)(peek(r) - '0');
        if (given[i]) value[i] = v;
        if (i == 0 && !(comma = take(r, ','))) break;
    }
    if (!take(r, '}') || (!given[0] && !given[1])) {
        r->at = begin;
        return false;
    }
    if (!comma) value[1] = value[0];
    if (value[0] >= 1u << 30 || (given[1] && value[1] >= 1u << 30)) fail(r, begin, "the count is too large");
    else if (value[1] < value[0]) fail(r, begin, "the counts are out of order");
    *min = (uint32_t)value[0];
    *max = (uint32_t)value[1];
    return true;
}

static uint32_t parse_sequence(parser *r)
{
    const size_t begin = r->p->stack_count;
    while (more(r) && peek(r) != '|' && peek(r) != ')') {
        uint32_t x = parse_atom(r);
        for (int n = 0; x && more(r); n++) {
            uint32_t min, max = GRAMMAR_MANY;
            if (take(r, '*')) min = 0;
            else if (take(r, '+')) min = 1;
            else if (take(r, '?')) min = 0, max = 1;
            else if (peek(r) != '{' || !parse_count(r, &min, &max)) break;
            if (r->b->failed) return GE_FAILED;
            if (n > 20) return fail(r, r->at, "too many counts on one part");
            x = gx_repeat(r->p, x, min, max);
            if (!take(r, '?')) take(r, '+');           /* lazy, possessive */
        }
        if (!x || r->b->failed || !gpool_push(r->p, x)) return GE_FAILED;
    }
    uint32_t x = GE_EMPTY;
    while (r->p->stack_count > begin) {
        const uint32_t head = r->p->stack[--r->p->stack_count];
        if (gkind_of(r->p, head) == G_BYTES && gkind_of(r->p, x) == G_BYTES && r->p->node[head].b + r->p->node[x].b <= GRAMMAR_CHUNK) {
            uint8_t both[GRAMMAR_CHUNK];               /* abc as one literal */
            const gnode h = r->p->node[head], t = r->p->node[x];
            memcpy(both, r->p->bytes + h.a, h.b);
            memcpy(both + h.b, r->p->bytes + t.a, t.b);
            x = gx_bytes(r->p, both, h.b + t.b);
        } else x = gx_seq(r->p, head, x);
    }
    return x;
}

static uint32_t parse_alternatives(parser *r)
{
    const size_t begin = r->p->stack_count;
    const unsigned flags = r->flags;
    do {
        const uint32_t x = parse_sequence(r);
        if (!x || !gpool_push(r->p, x)) return GE_FAILED;
    } while (take(r, '|'));
    (void)flags;
    return gx_alt(r->p, begin);
}

/* ---- anchors ---- */
/* { w : w MARK_END in x } */
static uint32_t before_end(gpool *p, uint32_t x)
{
    const gnode n = p->failed ? (gnode){0} : p->node[x];
    const size_t mark_at = p->stack_count;
    switch ((gkind)n.kind) {
    case G_SET: return gset_has(&p->set[n.a], MARK_END) ? GE_EMPTY : GE_NONE;
    case G_ALT:
        for (uint32_t i = 0; i < n.b; i++) if (!gpool_push(p, before_end(p, p->list[n.a + i]))) return GE_FAILED;
        return gx_alt(p, mark_at);
    case G_REPEAT: {
        const uint32_t last = before_end(p, n.a);
        if (last == GE_NONE) return last;
        return gx_seq(p, gx_repeat(p, n.a, n.min ? n.min - 1 : 0, n.max == GRAMMAR_MANY ? n.max : n.max - 1), last);
    }
    case G_SEQ: {
        uint32_t x1 = gx_seq(p, n.a, before_end(p, n.b));
        return gnullable(p, n.b) ? gx_alt2(p, x1, before_end(p, n.a)) : x1;
    }
    case G_FAILED: return GE_FAILED;
    default: return GE_NONE;
    }
}

/* What remains of x when no mark may be read. */
static uint32_t without_marks(gpool *p, uint32_t x)
{
    const gnode n = p->failed ? (gnode){0} : p->node[x];
    const size_t mark_at = p->stack_count;
    switch ((gkind)n.kind) {
    case G_SET: {
        gset s = p->set[n.a];      /* marks may have been joined with other bytes: b|$ */
        s.bits[3] &= ~(3ull << 62);
        return gx_set(p, &s);
    }
    case G_ALT:
        for (uint32_t i = 0; i < n.b; i++) if (!gpool_push(p, without_marks(p, p->list[n.a + i]))) return GE_FAILED;
        return gx_alt(p, mark_at);
    case G_REPEAT: return n.flags & GF_TEXT ? x : gx_repeat(p, without_marks(p, n.a), n.min, n.max);
    case G_SEQ: return n.flags & GF_TEXT ? x : gx_seq(p, without_marks(p, n.a), without_marks(p, n.b));
    default: return x;
    }
}

static bool is_mark(const gpool *p, uint32_t x, unsigned byte)
{
    return gkind_of(p, x) == G_SET && gset_count(&p->set[p->node[x].a]) == 1 && gset_has(&p->set[p->node[x].a], byte);
}

/* Any alternation of sequences: recursion above is as deep as a sequence is long. Long ones only have marks at their ends; those are taken
 * off here. */
static uint32_t resolve_marks(parser *r, uint32_t x, bool search)
{
    gpool *p = r->p;
    const size_t begin = p->stack_count;
    size_t length = 0;
    bool first = false, last = false;
    uint32_t rest = x;
    if (is_mark(p, rest, MARK_BEGIN)) first = true, rest = GE_EMPTY;
    while (gkind_of(p, rest) == G_SEQ && is_mark(p, p->node[rest].a, MARK_BEGIN)) first = true, rest = p->node[rest].b;
    bool inner = false;
    for (uint32_t y = rest; gkind_of(p, y) == G_SEQ || y != GE_EMPTY; y = p->node[y].b) {
        const uint32_t head = gkind_of(p, y) == G_SEQ ? p->node[y].a : y;
        if (head == y && is_mark(p, y, MARK_END)) {
            last = true;
            break;
        }
        if (!(gflags(p, head) & GF_TEXT)) inner = true;
        if (!gpool_push(p, head)) return GE_FAILED;
        length++;
        if (head == y) break;
    }
    if (!inner) {
        uint32_t y = last || !search ? GE_EMPTY : p->text;
        while (length--) y = gx_seq(p, p->stack[--p->stack_count], y);
        return first || !search ? y : gx_seq(p, p->text, y);
    }
    p->stack_count = begin;
    if (length > 400) return fail(r, 0, "the pattern is too long for an anchor in its middle");
    gset s = {{0}};
    gset_add(&s, MARK_BEGIN);
    const uint32_t begins = gx_repeat(p, gx_set(p, &s), 0, GRAMMAR_MANY);
    s = (gset){{0}};
    gset_add(&s, MARK_END);
    const uint32_t ends = gx_repeat(p, gx_set(p, &s), 0, GRAMMAR_MANY);
    const uint32_t any = search ? p->text : GE_EMPTY;
    x = gx_seq(p, begins, gx_seq(p, any, gx_seq(p, x, gx_seq(p, any, ends))));
    for (int i = 0; i < 4 && x; i++) {
        gset same = {{~0ull, ~0ull, ~0ull, ~0ull}};
        x = gx_alt2(p, x, gx_derive(p, x, MARK_BEGIN, &same));
    }
    for (int i = 0; i < 4 && x; i++) x = gx_alt2(p, x, before_end(p, x));
    return x ? without_marks(p, x) : GE_FAILED;
}

grammar_expr grammar_regex(grammar_builder *b, const char *pattern, size_t size, unsigned flags)
{
    if (grammar_builder_error(b)) return GE_FAILED;
    if (!utf8_valid(pattern, size)) return grammar_fail(b, VLM_INVALID, "the regular expression is not UTF-8");
    if (size > 1 << 20) return grammar_fail(b, VLM_LIMIT, "the regular expression is too long");
    parser r = {.b = b, .p = &b->pool, .s = pattern, .size = size, .flags = flags};
    const size_t begin = b->pool.stack_count;
    uint32_t x = parse_alternatives(&r);
    if (x && more(&r)) x = fail(&r, r.at, "unbalanced )");
    if (x && r.marks && gkind_of(r.p, x) == G_ALT && !b->failed) {
        /* Each alternative for itself: ^a|b$ */
        const gnode n = r.p->node[x];
        const size_t mark_at = r.p->stack_count;
        for (uint32_t i = 0; i < n.b; i++) {
            const uint32_t y = resolve_marks(&r, r.p->list[n.a + i], flags & GRAMMAR_SEARCH);
            if (!y || !gpool_push(r.p, y)) break;
        }
        x = b->failed ? GE_FAILED : gx_alt(r.p, mark_at);
    } else if (x && (r.marks || flags & GRAMMAR_SEARCH)) x = resolve_marks(&r, x, flags & GRAMMAR_SEARCH);
    if (b->failed) b->pool.stack_count = begin;
    return grammar_builder_error(b) ? GE_FAILED : x;
}
