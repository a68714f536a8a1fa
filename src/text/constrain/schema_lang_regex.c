/* schema_lang_regex.c - patterns of JSON schema (ECMA-262) as sets of strings.
 *
 * A pattern is read into a tree; parts without anchors and lookahead become sets at once. Anchors depend on where a match lies, so what is left is
 * evaluated for a place: L(e, b, d) are the strings of e when the string begins before it (b) or ends after it (d). In a sequence the rest still
 * is at the beginning only after an empty first part. Searching is then
 *     any L(e, 0, 0) any  |  L(e, 1, 0) any  |  any L(e, 0, 1)  |  L(e, 1, 1)
 * and lookahead, which sees to the end of the string, an intersection with what may follow. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/err.h"
#include "text/constrain/schema_lang_internal.h"
#include "text/utf8.h"

enum { RE_MAX_DEPTH = 150, RE_MAX_SIZE = 1 << 17, RE_MAX_RANGES = 4096, RE_MAX_STEPS = 20000 };

typedef enum re_kind { RE_LANG, RE_BEGIN, RE_END, RE_SEQ, RE_ALT, RE_OPTION, RE_AHEAD, RE_NOT_AHEAD } re_kind;
typedef struct re_node {
    re_kind kind;
    lang set;                      /* RE_LANG */
    struct re_node *child, *next;  /* first member; the next member of the parent */
    bool ahead;                    /* there is lookahead in it */
} re_node;

typedef struct re {
    lang_pool *p;
    arena memory;
    const char *text;
    size_t size, at;
    int depth, steps;
    vlm_error *error;
    bool failed;
} re;

static re_node *re_fail(re *r, vlm_status code, const char *what)
{
    if (!r->failed) err_set(r->error, code, "%s at %zu in the pattern \"%.*s\"", what, r->at, (int)(r->size < 200 ? r->size : 200), r->text);
    r->failed = true;
    return NULL;
}

static re_node *re_new(re *r, re_kind kind, lang set)
{
    if (kind == RE_LANG && !set) {
        if (!r->failed) lang_failed(r->p, r->error);
        r->failed = true;
        return NULL;
    }
    re_node *n = arena_alloc(&r->memory, sizeof *n);
    if (!n) {
        err_memory(r->error, sizeof *n);
        r->failed = true;
        return NULL;
    }
    n->kind = kind;
    n->set = set;
    return n;
}

static int peek(const re *r, size_t ahead) { return r->at + ahead < r->size ? (unsigned char)r->text[r->at + ahead] : -1; }
static bool take(re *r, const char *what)
{
    size_t n = strlen(what);
    if (r->size - r->at < n || memcmp(r->text + r->at, what, n)) return false;
    r->at += n;
    return true;
}

/* ---- classes ---- */
typedef struct ranges { lang_range item[RE_MAX_RANGES]; size_t count; bool full; } ranges;

static void range_add(ranges *s, uint32_t low, uint32_t high)
{
    if (s->count == RE_MAX_RANGES) s->full = true;
    else s->item[s->count++] = (lang_range){low, high};
}

static const lang_range class_digit[] = {{'0', '9'}}, class_word[] = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}},
    class_space[] = {{9, 13}, {32, 32}, {0xA0, 0xA0}, {0x1680, 0x1680}, {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};

static void ranges_add(ranges *s, const lang_range *r, size_t n, bool negated)
{
    uint32_t low = 0;
    for (size_t i = 0; i < n; i++) {
        if (!negated) range_add(s, r[i].low, r[i].high);
        else if (r[i].low > low) range_add(s, low, r[i].low - 1);
        low = r[i].high + 1;
    }
    if (negated && low <= LANG_LAST) range_add(s, low, LANG_LAST);
}

/* \p{L}, \p{Lu}, \p{General_Category=Lu}, \p{Letter}: general categories. */
static bool category_named(const char *name, size_t n, uint32_t *mask)
{
    static const struct { const char *name; const char *prefix; } names[] = {{"Letter", "L"}, {"Alphabetic", "L"}, {"Alpha", "L"}, {"Uppercase_Letter", "Lu"},
        {"Lowercase_Letter", "Ll"}, {"Titlecase_Letter", "Lt"}, {"Uppercase", "Lu"}, {"Lowercase", "Ll"}, {"Mark", "M"}, {"Number", "N"}, {"Decimal_Number", "Nd"},
        {"digit", "Nd"}, {"Punctuation", "P"}, {"punct", "P"}, {"Symbol", "S"}, {"Separator", "Z"}, {"Space_Separator", "Zs"}, {"Other", "C"}, {"Control", "Cc"}, {"Any", ""}};
    static const char *const codes[] = {"Cn", "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sm",
        "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Co"};       /* in utf8proc's order */
    static const char *const keys[] = {"General_Category=", "gc="};
    for (int i = 0; i < 2; i++)
        if (n > strlen(keys[i]) && !memcmp(name, keys[i], strlen(keys[i]))) name += strlen(keys[i]), n -= strlen(keys[i]);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strlen(names[i].name) != n || memcmp(names[i].name, name, n)) continue;
        name = names[i].prefix;
        n = strlen(name);
        break;
    }
    *mask = 0;
    if (n > 2) return false;
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        if (!memcmp(codes[i], name, n)) *mask |= 1u << i;
    return *mask != 0;
}

static bool read_property(re *r, ranges *s, bool negated)
{
    uint32_t mask;
    size_t end = r->at;
    while (end < r->size && r->text[end] != '}') end++;
    if (peek(r, 0) != '{' || end == r->size) return re_fail(r, VLM_INVALID, "a name in braces was expected");
    if (!category_named(r->text + r->at + 1, end - r->at - 1, &mask)) return re_fail(r, VLM_UNSUPPORTED, "of Unicode's properties only general categories are known, stopped");
    r->at = end + 1;
    uint32_t start = 0;
    bool inside = false;
    for (uint32_t code = 0; code <= LANG_LAST + 1; code++) {
        bool in = code <= LANG_LAST && ((mask >> utf8proc_category((utf8proc_int32_t)code)) & 1) != negated;
        if (in && !inside) start = code;
        if (!in && inside) range_add(s, start, code - 1);
        inside = in;
    }
    return true;
}

static int hex_value(int c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1; }

static bool read_hex(re *r, int digits, uint32_t *out)
{
    *out = 0;
    for (int i = 0; i < digits; i++) {
        int v = hex_value(peek(r, (size_t)i));
        if (v < 0) return false;
        *out = *out * 16 + (uint32_t)v;
    }
    r->at += (size_t)digits;
    return true;
}

static bool read_unicode(re *r, uint32_t *code)
{
    if (take(r, "{")) {
        *code = 0;
        int n = 0;
        for (int v; (v = hex_value(peek(r, 0))) >= 0 && n < 7; n++, r->at++) *code = *code * 16 + (uint32_t)v;
        return n && *code <= LANG_LAST && take(r, "}");
    }
    if (!read_hex(r, 4, code)) return false;
    uint32_t low;
    size_t back = r->at;
    if (*code >= 0xD800 && *code < 0xDC00 && take(r, "\\u") && read_hex(r, 4, &low) && low >= 0xDC00 && low < 0xE000)
        *code = 0x10000 + ((*code - 0xD800) << 10) + (low - 0xDC00);
    else r->at = back;
    return true;
}

/* After a backslash: one character (true in *single, its code in *code) or a class, added to s. */
static bool read_escape(re *r, ranges *s, bool *single, uint32_t *code)
{
    int c = peek(r, 0);
    *single = true;
    if (c < 0) return re_fail(r, VLM_INVALID, "nothing follows a backslash");
    r->at++;
    static const char from[] = "tnvfr0", to[] = "\t\n\v\f\r\0";
    const char *plain = strchr(from, c);
    if (plain && *plain && !(c == '0' && isdigit(peek(r, 0)))) {
        *code = (uint32_t)to[plain - from];
        return true;
    }
    *single = false;
    switch (c) {
    case 'd': case 'D': ranges_add(s, class_digit, 1, c == 'D'); return true;
    case 'w': case 'W': ranges_add(s, class_word, 4, c == 'W'); return true;
    case 's': case 'S': ranges_add(s, class_space, 10, c == 'S'); return true;
    case 'p': case 'P': return read_property(r, s, c == 'P');
    default: *single = true;
    }
    if (c == 'x') return read_hex(r, 2, code) || re_fail(r, VLM_INVALID, "two hexadecimal digits were expected");
    if (c == 'u') return read_unicode(r, code) || re_fail(r, VLM_INVALID, "four hexadecimal digits were expected");
    if (c == 'c' && isalpha(peek(r, 0))) {
        *code = (uint32_t)(r->text[r->at++] & 31);
        return true;
    }
    if (c >= '1' && c <= '9') return re_fail(r, VLM_UNSUPPORTED, "a back reference cannot be enforced, stopped");
    if (isalpha(c) && c < 0x80) return re_fail(r, VLM_INVALID, "unknown escape");
    r->at--;
    r->at += utf8_next_lossy(r->text + r->at, r->size - r->at, code);
    return true;
}

static bool class_member(re *r, ranges *s, bool *single, uint32_t *code)
{
    *single = true;
    if (take(r, "\\")) {
        if (peek(r, 0) == 'b') {
            r->at++;
            *code = 8;
            return true;
        }
        return read_escape(r, s, single, code);
    }
    r->at += utf8_next_lossy(r->text + r->at, r->size - r->at, code);
    return true;
}

static re_node *read_class(re *r)
{
    ranges *s = arena_alloc(&r->memory, sizeof *s);
    if (!s) return re_fail(r, VLM_MEMORY, "out of memory");
    bool negated = take(r, "^");
    while (r->at < r->size && peek(r, 0) != ']') {
        bool single, other_single;
        uint32_t low = 0, high = 0;
        if (!class_member(r, s, &single, &low)) return NULL;
        if (single && peek(r, 0) == '-' && peek(r, 1) != ']' && peek(r, 1) >= 0) {
            r->at++;
            if (!class_member(r, s, &other_single, &high)) return NULL;
            if (!other_single) {                       /* a-\d: three things */
                range_add(s, low, low);
                range_add(s, '-', '-');
                continue;
            }
            if (high < low) return re_fail(r, VLM_INVALID, "a range goes backwards");
            range_add(s, low, high);
        } else if (single) {
            range_add(s, low, low);
        }
    }
    if (!take(r, "]")) return re_fail(r, VLM_INVALID, "a class has no end");
    if (s->full) return re_fail(r, VLM_LIMIT, "a class has too many ranges");
    return re_new(r, RE_LANG, lang_class(r->p, s->item, s->count, negated));
}

/* ---- the tree ---- */
static re_node *read_alternatives(re *r);

static re_node *read_group(re *r)
{
    re_kind kind = RE_SEQ;
    if (take(r, "?")) {
        if (take(r, "=")) kind = RE_AHEAD;
        else if (take(r, "!")) kind = RE_NOT_AHEAD;
        else if (take(r, "<=") || take(r, "<!")) return re_fail(r, VLM_UNSUPPORTED, "lookbehind cannot be enforced, stopped");
        else if (take(r, "<") || take(r, "P<")) {
            while (r->at < r->size && r->text[r->at] != '>') r->at++;
            if (!take(r, ">")) return re_fail(r, VLM_INVALID, "a group's name has no end");
        } else if (!take(r, ":")) return re_fail(r, VLM_UNSUPPORTED, "unknown kind of group");
    }
    re_node *inner = read_alternatives(r);
    if (!inner) return NULL;
    if (!take(r, ")")) return re_fail(r, VLM_INVALID, "a group has no end");
    if (kind == RE_SEQ) return inner;
    if (inner->ahead) return re_fail(r, VLM_UNSUPPORTED, "lookahead within lookahead cannot be enforced, stopped");
    re_node *n = re_new(r, kind, 0);
    if (n) n->child = inner, n->ahead = true;
    return n;
}

static bool read_bounds(re *r, uint32_t *min, uint32_t *max)
{
    size_t back = r->at;
    uint64_t n[2] = {0, LANG_MANY};
    if (!take(r, "{") || !isdigit(peek(r, 0))) return r->at = back, false;
    for (n[0] = 0; isdigit(peek(r, 0)); r->at++) n[0] = n[0] > 100000000 ? n[0] : n[0] * 10 + (uint64_t)(peek(r, 0) - '0');
    n[1] = n[0];
    if (take(r, ",")) {
        n[1] = LANG_MANY;
        if (isdigit(peek(r, 0)))
            for (n[1] = 0; isdigit(peek(r, 0)); r->at++) n[1] = n[1] > 100000000 ? n[1] : n[1] * 10 + (uint64_t)(peek(r, 0) - '0');
    }
    if (!take(r, "}")) return r->at = back, false;
    *min = (uint32_t)n[0];
    *max = (uint32_t)n[1];
    return true;
}

static re_node *read_repeat(re *r, re_node *n)
{
    for (bool first = true; n; first = false) {
        uint32_t min = 0, max = LANG_MANY;
        if (take(r, "*")) {
        } else if (take(r, "+")) {
            min = 1;
        } else if (take(r, "?")) {
            max = 1;
        } else if (!read_bounds(r, &min, &max)) {
            return n;
        }
        if (!first) return re_fail(r, VLM_INVALID, "a repetition of a repetition");
        if (min > max) return re_fail(r, VLM_INVALID, "a repetition's bounds are the wrong way round");
        take(r, "?");                                  /* lazy: the same strings */
        if (n->kind == RE_LANG) {
            n = re_new(r, RE_LANG, lang_repeat(r->p, n->set, min, max));
        } else if (n->kind == RE_BEGIN || n->kind == RE_END || n->ahead) {
            return re_fail(r, VLM_UNSUPPORTED, "a repeated condition cannot be enforced, stopped");
        } else if (max <= 1) {
            re_node *option = max == 0 ? re_new(r, RE_LANG, lang_empty(r->p)) : min ? n : re_new(r, RE_OPTION, 0);
            if (option && option->kind == RE_OPTION) option->child = n;
            n = option;
        } else {
            return re_fail(r, VLM_UNSUPPORTED, "^ and $ within a repetition cannot be enforced, stopped");
        }
    }
    return n;
}

static re_node *read_atom(re *r)
{
    static const lang_range line_ends[] = {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};
    int c = peek(r, 0);
    uint32_t code;
    if (take(r, "(")) return read_group(r);
    if (take(r, "[")) return read_class(r);
    if (take(r, ".")) return re_new(r, RE_LANG, lang_class(r->p, line_ends, 3, true));
    if (take(r, "^") || take(r, "\\A")) return re_new(r, RE_BEGIN, 0);
    if (take(r, "$") || take(r, "\\Z") || take(r, "\\z")) return re_new(r, RE_END, 0);
    if (c == '*' || c == '+' || c == '?') return re_fail(r, VLM_INVALID, "nothing to repeat");
    if (take(r, "\\")) {
        if (peek(r, 0) == 'b' || peek(r, 0) == 'B') return re_fail(r, VLM_UNSUPPORTED, "a word boundary cannot be enforced, stopped");
        ranges *s = arena_alloc(&r->memory, sizeof *s);
        bool single;
        if (!s) return re_fail(r, VLM_MEMORY, "out of memory");
        if (!read_escape(r, s, &single, &code)) return NULL;
        if (single) range_add(s, code, code);
        return re_new(r, RE_LANG, lang_class(r->p, s->item, s->count, false));
    }
    r->at += utf8_next_lossy(r->text + r->at, r->size - r->at, &code);
    return re_new(r, RE_LANG, lang_class(r->p, &(lang_range){code, code}, 1, false));
}

/* A list of members as one node; members that are sets are joined. */
static re_node *join(re *r, re_kind kind, re_node *first)
{
    bool plain = true, ahead = false;
    size_t n = 0;
    for (re_node *m = first; m; m = m->next) plain &= m->kind == RE_LANG, ahead |= m->ahead, n++;
    if (n == 1) return first;
    if (!plain) {
        re_node *node = re_new(r, kind, 0);
        if (node) node->child = first, node->ahead = ahead;
        return node;
    }
    lang *set = MEM_ARRAY(n + 1, lang), all = kind == RE_SEQ ? lang_empty(r->p) : lang_fail(r->p);
    if (!set) return re_fail(r, VLM_MEMORY, "out of memory");
    n = 0;
    for (re_node *m = first; m; m = m->next) set[n++] = m->set;
    while (n--) all = kind == RE_SEQ ? lang_seq(r->p, set[n], all) : lang_alt(r->p, set[n], all);
    mem_free(set);
    return re_new(r, RE_LANG, all);
}

static re_node *read_alternatives(re *r)
{
    if (++r->depth > RE_MAX_DEPTH) return re_fail(r, VLM_LIMIT, "groups are nested too deep");
    re_node *all = NULL, **all_end = &all;
    do {
        re_node *seq = NULL, **end = &seq;
        while (r->at < r->size && peek(r, 0) != '|' && peek(r, 0) != ')') {
            re_node *n = read_repeat(r, read_atom(r));
            if (!n) return NULL;
            re_node *copy = re_new(r, n->kind, n->set);        /* a node is a member of one list only */
            if (!copy) return NULL;
            copy->child = n->child;
            copy->ahead = n->ahead;
            *end = copy;
            end = &copy->next;
        }
        re_node *one = seq ? join(r, RE_SEQ, seq) : re_new(r, RE_LANG, lang_empty(r->p));
        if (!one) return NULL;
        *all_end = one;
        all_end = &one->next;
    } while (take(r, "|"));
    r->depth--;
    return join(r, RE_ALT, all);
}

/* ---- evaluation ---- */
static lang at_place(re *r, const re_node *e, bool b, bool d, bool outermost);

static bool nullable(const re *r, lang a) { return a && r->p->node[a].nullable; }
static lang without_empty(re *r, lang a) { return nullable(r, a) ? lang_and(r->p, a, lang_not(r->p, lang_empty(r->p))) : a; }

/* `rest[x]`: the strings of what follows e, when that is (1) or is not (0) at the beginning. */
static lang before_rest(re *r, const re_node *e, const lang rest[2], bool b, bool d, bool outermost)
{
    lang_pool *p = r->p;
    if (e->kind == RE_BEGIN) return b ? rest[1] : lang_fail(p);
    if (e->kind == RE_END) return d && nullable(r, rest[b]) ? lang_empty(p) : lang_fail(p);
    if (e->kind == RE_AHEAD || e->kind == RE_NOT_AHEAD) {
        if (!d || !outermost) return re_fail(r, VLM_UNSUPPORTED, "lookahead within a group cannot be enforced, stopped"), LANG_NONE;
        lang seen = lang_alt(p, lang_seq(p, at_place(r, e->child, b, false, false), lang_any(p)), at_place(r, e->child, b, true, false));
        return lang_and(p, rest[b], e->kind == RE_AHEAD ? seen : lang_not(p, seen));
    }
    if (e->kind == RE_LANG) {
        if (!b || !nullable(r, e->set) || rest[0] == rest[1]) return lang_seq(p, e->set, rest[b && rest[0] == rest[1]]);
        return lang_alt(p, lang_seq(p, without_empty(r, e->set), rest[0]), rest[1]);
    }
    lang inner = at_place(r, e, b, false, false), last = at_place(r, e, b, d, false);
    lang all = lang_seq(p, without_empty(r, inner), without_empty(r, rest[0]));
    if (nullable(r, inner)) all = lang_alt(p, all, without_empty(r, rest[b]));
    if (nullable(r, rest[0])) all = lang_alt(p, all, without_empty(r, last));
    if (nullable(r, last) && nullable(r, rest[b])) all = lang_alt(p, all, lang_empty(p));
    return all;
}

static lang seq_at(re *r, const re_node *member, bool b, bool d, bool outermost, const lang end[2])
{
    size_t n = 0;
    for (const re_node *m = member; m; m = m->next) n++;
    const re_node **list = MEM_ARRAY(n + 1, const re_node *);
    if (!list) return re_fail(r, VLM_MEMORY, "out of memory"), LANG_NONE;
    n = 0;
    for (const re_node *m = member; m; m = m->next) list[n++] = m;
    lang rest[2] = {end[0], end[1]};
    while (n-- && !r->failed) {
        lang now[2];
        for (int x = 0; x < 2; x++) now[x] = x && n == 0 && !b ? LANG_NONE : before_rest(r, list[n], rest, x, d, outermost);
        rest[0] = now[0];
        rest[1] = now[1];
    }
    mem_free(list);
    return r->failed ? LANG_NONE : rest[b];
}

static lang at_place(re *r, const re_node *e, bool b, bool d, bool outermost)
{
    lang_pool *p = r->p;
    const lang empty[2] = {lang_empty(p), lang_empty(p)};
    if (!r->failed && ++r->steps > RE_MAX_STEPS) re_fail(r, VLM_LIMIT, "groups with anchors are nested too deep, stopped");
    if (r->failed) return LANG_NONE;
    switch (e->kind) {
    case RE_LANG: return e->set;
    case RE_SEQ: return seq_at(r, e->child, b, d, outermost, empty);
    case RE_ALT: {
        lang all = lang_fail(p);
        for (const re_node *m = e->child; m; m = m->next) all = lang_alt(p, all, at_place(r, m, b, d, outermost));
        return all;
    }
    case RE_OPTION: return lang_alt(p, lang_empty(p), at_place(r, e->child, b, d, false));
    default: return before_rest(r, e, empty, b, d, outermost);
    }
}

/* With "any" behind it the pattern ends where the string ends, so that lookahead sees all of it. */
static lang with_any(re *r, const re_node *e, bool b)
{
    lang_pool *p = r->p;
    const lang any[2] = {lang_any(p), lang_any(p)};
    if (e->kind == RE_ALT) {
        lang all = lang_fail(p);
        for (const re_node *m = e->child; m; m = m->next) all = lang_alt(p, all, with_any(r, m, b));
        return all;
    }
    if (e->kind == RE_SEQ) return seq_at(r, e->child, b, true, true, any);
    return before_rest(r, e, any, b, true, true);
}

lang lang_regex(lang_pool *p, const char *pattern, size_t size, bool search, vlm_error *error)
{
    vlm_error own = {0};
    re r = {.p = p, .text = pattern, .size = size, .error = error ? error : &own};
    if (size > RE_MAX_SIZE) return err_set(error, VLM_LIMIT, "a pattern of %zu bytes, at most %d are read", size, RE_MAX_SIZE);
    re_node *e = read_alternatives(&r);
    if (e && r.at < r.size) e = re_fail(&r, VLM_INVALID, "a closing bracket too many");
    lang made = LANG_NONE;
    if (e && !search) {
        made = at_place(&r, e, true, true, true);
    } else if (e && e->kind == RE_LANG) {
        made = lang_seq(p, lang_any(p), lang_seq(p, e->set, lang_any(p)));
    } else if (e) {
        made = lang_alt(p, with_any(&r, e, true), lang_seq(p, lang_any(p), with_any(&r, e, false)));
    }
    if (r.failed) made = LANG_NONE;
    else if (!made) lang_failed(p, r.error);
    arena_free(&r.memory);
    return made;
}
