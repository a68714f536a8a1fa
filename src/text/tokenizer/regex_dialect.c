/* regex_dialect.c - a pattern of Oniguruma's dialect becomes one of PCRE2's.
 *
 * What differs: the version of Unicode (characters that the installed PCRE2 does not know yet are added to the classes as ranges), what \w, \s, \h
 * and [[:punct:]] are, sets inside sets and && in classes, a{,3}, a{2}+, \uFFFF, (?m).
 *
 * A class is a union of parts. Parts that PCRE2 can hold in one class are collected as text; complements (\P{L}, \S, [^...] inside a class) become
 * alternatives of it, an intersection becomes a lookahead: [\w&&[^\d]] is (?:(?=[^\d])[\w]). */
#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "text/tokenizer/regex.h"
#include "text/unicode.h"

enum { MAX_DEPTH = 16, MAX_YOUNG = 2000, LONGEST = 4 << 20 };

/* Runs of characters that this PCRE2 does not know. */
typedef struct young_run { unicode_range range; unicode_category category; } young_run;

typedef struct translator {
    const char *at, *end;
    regex_dialect dialect;
    young_run *young;
    size_t young_count;
    int depth;
    bool failed;
} translator;

/* ---- characters that PCRE2 does not know ---- */

static bool find_young(translator *t)
{
    int code;
    PCRE2_SIZE offset;
    size_t inert;
    const unicode_range *range = unicode_ranges(UNICODE_INERT, &inert);
    pcre2_code *unassigned = mem_inject() ? NULL : pcre2_compile((PCRE2_SPTR)"^\\p{Cn}", PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &code, &offset, NULL);
    pcre2_match_data *match = unassigned ? pcre2_match_data_create(1, NULL) : NULL;
    t->young = MEM_ARRAY(MAX_YOUNG, young_run);
    bool ok = match && t->young;
    for (size_t i = 0; ok && i < inert; i++) {
        young_run run;
        for (uint32_t from = range[i].first; from <= range[i].last && unicode_category_run(from, &run.range, &run.category); from = run.range.last + 1) {
            if (run.range.last > range[i].last) run.range.last = range[i].last;
            if (run.category == UC_CN || run.category == UC_CO) continue;
            bool known = true;                     /* long runs came as a whole: their ends say enough */
            uint32_t step = run.range.last - run.range.first < 64 ? 1 : run.range.last - run.range.first;
            for (uint32_t c = run.range.first; ok && known && c <= run.range.last; c += step) {
                buf one = {0};
                ok = buf_add_utf8(&one, c);
                known = ok && pcre2_match(unassigned, (PCRE2_SPTR)one.data, one.size, 0, 0, match, NULL) < 0;
                buf_free(&one);
            }
            if (!known && t->young_count < MAX_YOUNG) t->young[t->young_count++] = run;
        }
    }
    pcre2_match_data_free(match);
    pcre2_code_free(unassigned);
    return ok;
}

static void add_range(buf *out, uint32_t first, uint32_t last) { buf_addf(out, "\\x{%x}-\\x{%x}", (unsigned)first, (unsigned)last); }

static void add_young(const translator *t, uint32_t categories, buf *out)
{
    for (size_t i = 0; i < t->young_count; i++)
        if (categories >> t->young[i].category & 1) add_range(out, t->young[i].range.first, t->young[i].range.last);
}

static void add_set(unicode_set set, buf *out)
{
    size_t n;
    const unicode_range *range = unicode_ranges(set, &n);
    for (size_t i = 0; i < n; i++) add_range(out, range[i].first, range[i].last);
}

/* ---- properties ---- */

#define SPACES "\\t-\\r\\x20\\x85\\xa0\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"

static void add_categories(const translator *t, const char *text, uint32_t categories, buf *out)
{
    buf_adds(out, text);
    add_young(t, categories, out);
}

/* Oniguruma's \w takes the superscripts and fractions of Latin-1, but not inside a class. */
static void add_word(const translator *t, bool in_class, buf *out)
{
    size_t n;
    const unicode_range *range = unicode_ranges(UNICODE_REGEX_WORD, &n);
    add_categories(t, "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}", UC_LETTER | UC_MARK | UC_BIT(UC_ND) | UC_BIT(UC_NL) | UC_BIT(UC_PC), out);
    for (size_t i = 0; i < n; i++)
        if (!in_class || range[i].first >= 0x100) add_range(out, range[i].first, range[i].last);
}

/* Lower case, without spaces, hyphens and underscores. */
static void plain_name(const char *name, size_t size, char *out, size_t room)
{
    size_t n = 0;
    for (size_t i = 0; i < size && n + 1 < room; i++) {
        char c = name[i];
        if (c == ' ' || c == '_' || c == '-') continue;
        out[n++] = c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
    }
    out[n] = 0;
}

static const struct { const char *name, *text; uint32_t categories; } categories[] = {
    {"l", "\\p{L}", UC_LETTER}, {"letter", "\\p{L}", UC_LETTER}, {"lu", "\\p{Lu}", UC_BIT(UC_LU)}, {"uppercaseletter", "\\p{Lu}", UC_BIT(UC_LU)},
    {"ll", "\\p{Ll}", UC_BIT(UC_LL)}, {"lowercaseletter", "\\p{Ll}", UC_BIT(UC_LL)}, {"lt", "\\p{Lt}", UC_BIT(UC_LT)}, {"titlecaseletter", "\\p{Lt}", UC_BIT(UC_LT)},
    {"lm", "\\p{Lm}", UC_BIT(UC_LM)}, {"modifierletter", "\\p{Lm}", UC_BIT(UC_LM)}, {"lo", "\\p{Lo}", UC_BIT(UC_LO)}, {"otherletter", "\\p{Lo}", UC_BIT(UC_LO)},
    {"m", "\\p{M}", UC_MARK}, {"mark", "\\p{M}", UC_MARK}, {"mn", "\\p{Mn}", UC_BIT(UC_MN)}, {"mc", "\\p{Mc}", UC_BIT(UC_MC)}, {"me", "\\p{Me}", UC_BIT(UC_ME)},
    {"n", "\\p{N}", UC_NUMBER}, {"number", "\\p{N}", UC_NUMBER}, {"nd", "\\p{Nd}", UC_BIT(UC_ND)}, {"digit", "\\p{Nd}", UC_BIT(UC_ND)}, {"decimalnumber", "\\p{Nd}", UC_BIT(UC_ND)},
    {"nl", "\\p{Nl}", UC_BIT(UC_NL)}, {"no", "\\p{No}", UC_BIT(UC_NO)}, {"p", "\\p{P}", UC_PUNCTUATION}, {"punctuation", "\\p{P}", UC_PUNCTUATION},
    {"pc", "\\p{Pc}", UC_BIT(UC_PC)}, {"pd", "\\p{Pd}", UC_BIT(UC_PD)}, {"ps", "\\p{Ps}", UC_BIT(UC_PS)}, {"pe", "\\p{Pe}", UC_BIT(UC_PE)}, {"pi", "\\p{Pi}", UC_BIT(UC_PI)},
    {"pf", "\\p{Pf}", UC_BIT(UC_PF)}, {"po", "\\p{Po}", UC_BIT(UC_PO)}, {"s", "\\p{S}", UC_SYMBOL}, {"symbol", "\\p{S}", UC_SYMBOL}, {"sm", "\\p{Sm}", UC_BIT(UC_SM)},
    {"sc", "\\p{Sc}", UC_BIT(UC_SC)}, {"sk", "\\p{Sk}", UC_BIT(UC_SK)}, {"so", "\\p{So}", UC_BIT(UC_SO)}, {"z", "\\p{Z}", UC_SEPARATOR}, {"separator", "\\p{Z}", UC_SEPARATOR},
    {"zs", "\\p{Zs}", UC_BIT(UC_ZS)}, {"zl", "\\p{Zl}", UC_BIT(UC_ZL)}, {"zp", "\\p{Zp}", UC_BIT(UC_ZP)}, {"cc", "\\p{Cc}", UC_BIT(UC_CC)}, {"cntrl", "\\p{Cc}", UC_BIT(UC_CC)},
    {"cf", "\\p{Cf}", UC_BIT(UC_CF)}, {"co", "\\p{Co}", UC_BIT(UC_CO)}, {"cs", "\\p{Cs}", UC_BIT(UC_CS)}, {"upper", "\\p{Lu}", UC_BIT(UC_LU)}, {"lower", "\\p{Ll}", UC_BIT(UC_LL)},
};
static const struct { const char *name; unicode_set set; } scripts[] = {
    {"han", UNICODE_HAN}, {"hiragana", UNICODE_HIRAGANA}, {"katakana", UNICODE_KATAKANA}, {"hangul", UNICODE_HANGUL}, {"arabic", UNICODE_ARABIC},
    {"cyrillic", UNICODE_CYRILLIC}, {"greek", UNICODE_GREEK}, {"latin", UNICODE_LATIN}, {"thai", UNICODE_THAI}, {"hebrew", UNICODE_HEBREW},
    {"devanagari", UNICODE_DEVANAGARI},
};

/* Appends, as the inside of a class, what the property holds. *inverse: the text is the complement's (for properties that are best said so). */
static void add_property(const translator *t, const char *name, size_t size, bool *inverse, buf *out)
{
    char plain[40];
    plain_name(name, size, plain, sizeof plain);
    *inverse = false;
    for (size_t i = 0; i < sizeof categories / sizeof *categories; i++)
        if (strcmp(plain, categories[i].name) == 0) {
            add_categories(t, categories[i].text, categories[i].categories, out);
            return;
        }
    for (size_t i = 0; i < sizeof scripts / sizeof *scripts; i++)
        if (strcmp(plain, scripts[i].name) == 0) {
            add_set(scripts[i].set, out);
            return;
        }
    if (!strcmp(plain, "c") || !strcmp(plain, "other") || !strcmp(plain, "cn") || !strcmp(plain, "unassigned")) {
        bool all = plain[0] != 'u' && strcmp(plain, "cn") != 0;
        add_categories(t, all ? "\\p{L}\\p{M}\\p{N}\\p{P}\\p{S}\\p{Z}" : "\\p{L}\\p{M}\\p{N}\\p{P}\\p{S}\\p{Z}\\p{Cc}\\p{Cf}\\p{Co}\\p{Cs}",
                       all ? ~(uint32_t)UC_OTHER : ~UC_BIT(UC_CN), out);
        *inverse = true;
    } else if (!strcmp(plain, "alpha") || !strcmp(plain, "alphabetic") || !strcmp(plain, "alnum")) {
        add_categories(t, "\\p{L}\\p{Nl}", UC_LETTER | UC_BIT(UC_NL), out);
        add_set(UNICODE_REGEX_ALPHABETIC, out);
        if (plain[2] == 'n') add_categories(t, "\\p{Nd}", UC_BIT(UC_ND), out);
    } else if (!strcmp(plain, "punct")) add_categories(t, "\\p{P}\\p{S}", UC_PUNCTUATION | UC_SYMBOL, out);
    else if (!strcmp(plain, "space") || !strcmp(plain, "whitespace")) buf_adds(out, SPACES);
    else if (!strcmp(plain, "blank")) add_categories(t, "\\t\\p{Zs}", UC_BIT(UC_ZS), out);
    else if (!strcmp(plain, "xdigit")) buf_adds(out, "0-9A-Fa-f");
    else if (!strcmp(plain, "ascii")) buf_adds(out, "\\x00-\\x7f");
    else if (!strcmp(plain, "any")) buf_adds(out, "\\x{0}-\\x{10ffff}");
    else if (!strcmp(plain, "word")) add_word(t, true, out);
    else if (!strcmp(plain, "graph") || !strcmp(plain, "print"))
        add_categories(t, plain[0] == 'g' ? "\\p{L}\\p{M}\\p{N}\\p{P}\\p{S}\\p{Cf}\\p{Co}" : "\\p{L}\\p{M}\\p{N}\\p{P}\\p{S}\\p{Cf}\\p{Co}\\p{Zs}", ~(uint32_t)UC_OTHER, out);
    else {                                         /* PCRE2 may know it */
        buf_adds(out, "\\p{");
        buf_add(out, name, size);
        buf_adds(out, "}");
    }
}

/* ---- classes ---- */

/* What a class is made of: `text` is the inside of a PCRE2 class, `other` alternatives that do not fit into one: "|[^...]|(?:...)". */
typedef struct class_parts { buf text, other; } class_parts;

static void add_part(class_parts *c, const buf *inside, bool negated)
{
    if (!inside->size) return;
    if (!negated) {
        buf_add(&c->text, inside->data, inside->size);
        return;
    }
    buf_adds(&c->other, "|[^");
    buf_add(&c->other, inside->data, inside->size);
    buf_adds(&c->other, "]");
}

static bool take(translator *t, const char *what)
{
    size_t n = strlen(what);
    if ((size_t)(t->end - t->at) < n || memcmp(t->at, what, n) != 0) return false;
    t->at += n;
    return true;
}

/* \p{...}, \P{...}, \p{^...} or \pL; t->at is behind the p. */
static void property(translator *t, bool negated, buf *inside, bool *result_negated)
{
    const char *name = t->at;
    size_t size = 0;
    if (t->at < t->end && *t->at == '{') {
        const char *close = memchr(t->at, '}', (size_t)(t->end - t->at));
        name = t->at + 1;
        size = close ? (size_t)(close - name) : 0;
        t->at = close ? close + 1 : t->end;
        if (size && *name == '^') name++, size--, negated = !negated;
    } else if (t->at < t->end) {
        size = 1;
        t->at++;
    }
    bool inverse;
    add_property(t, name, size, &inverse, inside);
    *result_negated = negated != inverse;
}

/* \s \S \w \W \d \D \h \H \p \P: the inside of a class, perhaps of its complement. False: something else follows the backslash. */
static bool shorthand(translator *t, bool in_class, buf *inside, bool *negated)
{
    char c = t->at < t->end ? *t->at : 0;
    *negated = c >= 'A' && c <= 'Z';
    switch (c) {
    case 's': case 'S': buf_adds(inside, SPACES); break;
    case 'w': case 'W': add_word(t, in_class, inside); break;
    case 'd': case 'D': add_categories(t, "\\p{Nd}", UC_BIT(UC_ND), inside); break;
    case 'h': case 'H': buf_adds(inside, "0-9A-Fa-f"); break;
    case 'p': case 'P':
        t->at++;
        property(t, c == 'P', inside, negated);
        return true;
    default: return false;
    }
    t->at++;
    return true;
}

/* An escape that stands for a character, as PCRE2 writes it. t->at is behind the backslash. */
static void escaped(translator *t, buf *out)
{
    if (t->at >= t->end) return;
    char c = *t->at++;
    if (c == 'u' && t->end - t->at >= 4) {
        buf_addf(out, "\\x{%.4s}", t->at);
        t->at += 4;
        return;
    }
    buf_addc(out, '\\');
    buf_addc(out, c);
    if (c == 'x' && t->at < t->end && *t->at == '{')
        while (t->at < t->end && (buf_addc(out, *t->at), *t->at++ != '}')) { }
}

static void class_body(translator *t, buf *out);

/* One operand of &&, up to "&&", "]" or the end. */
static void class_operand(translator *t, class_parts *c)
{
    for (bool first = true; t->at < t->end && *t->at != ']' && !(t->end - t->at >= 2 && t->at[0] == '&' && t->at[1] == '&'); first = false) {
        buf inside = {0};
        bool negated = false;
        if (t->end - t->at >= 2 && t->at[0] == '[' && t->at[1] == ':') {
            const char *close = t->at + 2;
            while (close + 1 < t->end && !(close[0] == ':' && close[1] == ']')) close++;
            bool not = t->at + 2 < t->end && t->at[2] == '^', inverse = false;
            const char *name = t->at + 2 + not;
            if (close > name) add_property(t, name, (size_t)(close - name), &inverse, &inside);
            negated = not != inverse;
            t->at = close + 2 < t->end ? close + 2 : t->end;
            add_part(c, &inside, negated);
        } else if (*t->at == '[') {
            t->at++;
            buf_adds(&c->other, "|");
            class_body(t, &c->other);
        } else if (*t->at == '\\') {
            t->at++;
            if (shorthand(t, true, &inside, &negated)) add_part(c, &inside, negated);
            else escaped(t, &c->text);
        } else {
            if (*t->at == '^' && first && !c->text.size) buf_addc(&c->text, '\\');
            buf_addc(&c->text, *t->at++);
        }
        if (inside.failed) t->failed = true;
        buf_free(&inside);
    }
    if (t->at < t->end && *t->at == ']' && !c->text.size && !c->other.size) {       /* []...]: a bracket that stands for itself */
        buf_adds(&c->text, "\\]");
        t->at++;
        class_operand(t, c);
    }
}

static void add_union(const class_parts *c, bool negated, buf *out)
{
    bool simple = !c->other.size;
    if (simple) {
        buf_adds(out, negated ? "[^" : "[");
        buf_add(out, c->text.data ? c->text.data : "", c->text.size);
        buf_adds(out, "]");
        return;
    }
    buf_adds(out, negated ? "(?:(?!" : "(?:");
    if (c->text.size) {
        buf_adds(out, "[");
        buf_add(out, c->text.data, c->text.size);
        buf_adds(out, "]");
        buf_add(out, c->other.data, c->other.size);
    } else buf_add(out, c->other.data + 1, c->other.size - 1);
    buf_adds(out, negated ? ")(?s:.))" : ")");
}

/* A class, t->at is behind its '['; takes the ']', too. */
static void class_body(translator *t, buf *out)
{
    if (++t->depth > MAX_DEPTH) {
        t->failed = true;
        t->at = t->end;
    }
    bool negated = take(t, "^");
    buf operands = {.limit = LONGEST};             /* all but the last: (?=A)(?=B) */
    class_parts c = {{.limit = LONGEST}, {.limit = LONGEST}};
    bool more = true;
    while (more && !t->failed) {
        buf_clear(&c.text);
        buf_clear(&c.other);
        class_operand(t, &c);
        t->failed |= c.text.failed | c.other.failed;
        more = take(t, "&&");
        if (!more) break;
        buf_adds(&operands, "(?=");
        add_union(&c, false, &operands);
        buf_adds(&operands, ")");
    }
    take(t, "]");
    if (!operands.size) add_union(&c, negated, out);
    else {
        buf_adds(out, negated ? "(?:(?!" : "(?:");
        buf_add(out, operands.data, operands.size);
        add_union(&c, false, out);
        buf_adds(out, negated ? ")(?s:.))" : ")");
    }
    t->failed |= c.text.failed | c.other.failed | operands.failed;
    buf_free(&c.text);
    buf_free(&c.other);
    buf_free(&operands);
    t->depth--;
}

/* ---- the rest ---- */

static void add_class_of(const buf *inside, bool negated, buf *out)
{
    buf_adds(out, negated ? "[^" : "[");
    buf_add(out, inside->data ? inside->data : "", inside->size);
    buf_adds(out, "]");
}

static void outside_escape(translator *t, buf *out)
{
    buf inside = {0};
    bool negated;
    char c = t->at < t->end ? *t->at : 0;
    if (shorthand(t, false, &inside, &negated)) add_class_of(&inside, negated, out);
    else if (c == 'b' || c == 'B') {
        buf word = {0};
        t->at++;
        add_word(t, false, &inside);
        add_class_of(&inside, false, &word);
        buf_addf(out, c == 'b' ? "(?:(?<=%s)(?!%s)|(?<!%s)(?=%s))" : "(?:(?<=%s)(?=%s)|(?<!%s)(?!%s))", word.data, word.data, word.data, word.data);
        t->failed |= word.failed;
        buf_free(&word);
    } else escaped(t, out);
    t->failed |= inside.failed;
    buf_free(&inside);
}

/* "(?mi" and the like: Oniguruma's m is PCRE2's s. */
static void group_start(translator *t, buf *out)
{
    buf_addc(out, *t->at++);
    if (t->at >= t->end || *t->at != '?') return;
    const char *p = t->at + 1;
    while (p < t->end && ((*p >= 'a' && *p <= 'z') || *p == '-')) p++;
    bool flags = p < t->end && p > t->at + 1 && (*p == ')' || *p == ':');
    for (; t->at < p && flags; t->at++) buf_addc(out, t->dialect == REGEX_ONIGURUMA && *t->at == 'm' ? 's' : *t->at);
    if (!flags) buf_addc(out, *t->at++);
}

/* {n}, {n,}, {n,m} or {,m} at t->at: how long; 0: no quantifier. */
static size_t interval(const translator *t)
{
    const char *p = t->at + 1;
    size_t digits = 0;
    while (p < t->end && *p >= '0' && *p <= '9') p++, digits++;
    if (p < t->end && *p == ',') {
        p++;
        while (p < t->end && *p >= '0' && *p <= '9') p++, digits++;
    }
    return digits && p < t->end && *p == '}' ? (size_t)(p + 1 - t->at) : 0;
}

static bool insert(buf *out, size_t at, const char *text)
{
    size_t n = strlen(text);
    if (!buf_adds(out, text)) return false;
    memmove(out->data + at + n, out->data + at, out->size - n - at);
    memcpy(out->data + at, text, n);
    return true;
}

/* An interval; for Oniguruma a + behind it repeats it all, a ? behind {n} makes it optional. `atom`: where what it repeats begins in *out. */
static void add_interval(translator *t, size_t size, size_t atom, buf *out)
{
    bool comma = memchr(t->at, ',', size) != NULL;
    if (t->at[1] == ',') buf_adds(out, "{0");
    else buf_addc(out, '{');
    buf_add(out, t->at + 1, size - 1);
    t->at += size;
    if (t->dialect != REGEX_ONIGURUMA || t->at >= t->end || !(*t->at == '+' || (*t->at == '?' && !comma))) return;
    if (insert(out, atom, "(?:")) buf_addc(out, ')');
    buf_addc(out, *t->at++);
}

bool regex_translate(regex_dialect dialect, const char *pattern, size_t size, buf *out)
{
    translator t = {.at = pattern, .end = pattern + size, .dialect = dialect};
    size_t open[64], depth = 0, atom = 0;          /* where groups and the last atom begin in *out */
    t.failed = !find_young(&t);
    while (!t.failed && t.at < t.end && !out->failed) {
        size_t begin = out->size, length;
        char c = *t.at;
        if (c == '\\') {
            t.at++;
            outside_escape(&t, out);
            atom = begin;
        } else if (c == '[') {
            t.at++;
            class_body(&t, out);
            atom = begin;
        } else if (c == '(') {
            if (depth < 64) open[depth] = begin;
            depth++;
            group_start(&t, out);
        } else if (c == ')') {
            if (depth) depth--;
            atom = depth < 64 ? open[depth] : begin;
            buf_addc(out, *t.at++);
        } else if (c == '{' && (length = interval(&t)) != 0) add_interval(&t, length, atom, out);
        else {
            if (!strchr("*+?|^$", c)) atom = begin;
            buf_addc(out, *t.at++);
        }
    }
    mem_free(t.young);
    return !t.failed && !out->failed;
}
