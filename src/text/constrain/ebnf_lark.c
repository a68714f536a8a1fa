/* ebnf_lark.c - the Lark dialect of llguidance: rules (lower case), terminals (upper case), "text"i, /regex/flags, "a".."z", x~2..5, x{2,5}, ? * +,
 * [maybe], aliases and priorities (read, without effect), templates, & and ~ of terminals, %ignore, %import common.X, %json {...}, <token>.
 *
 * There is no lexer: a terminal is a rule like others, and what %ignore names may stand after each terminal of a rule. That admits what a lexer
 * would, and a little more where it would prefer a keyword or a longer match.
 *
 * A template is read again for each different list of arguments, with its parameters bound to them. */
#include <jansson.h>
#include <string.h>

#include "text/constrain/ebnf_internal.h"
#include "text/schema.h"
#include "text/utf8.h"

enum { LARK_MAX_PARAMETERS = 16, LARK_MAX_INSTANCES = 5000 };

typedef struct lark_name { const char *text; size_t size; } lark_name;
typedef struct lark_template { lark_name name, parameter[LARK_MAX_PARAMETERS]; size_t parameters, body; } lark_template;
typedef struct lark_instance { size_t template; grammar_expr argument[LARK_MAX_PARAMETERS], rule; bool done; } lark_instance;

typedef struct lark {
    ebnf e;                        /* first: an ebnf * is a lark * */
    lark_template *template;
    size_t templates;
    lark_instance *instance;
    size_t instances;
    const lark_instance *bound;    /* while a template's body is read */
    grammar_expr ignored;          /* what may stand between terminals, 0: nothing */
    grammar_expr gap;              /* the rule that stands for it */
    bool in_terminal;              /* in a terminal's body nothing is ignored */
    bool gaps;                     /* there is an %ignore */
} lark;

static grammar_expr expansions(lark *l, bool nested);
static void skip_pattern(ebnf *e);

static bool is_letter(int c) { return (c | 32) >= 'a' && (c | 32) <= 'z' && c < 128; }
static bool is_word(int c) { return is_letter(c) || (c >= '0' && c <= '9') || c == '_' || c == '-'; }

static void skip(ebnf *e, bool lines)
{
    for (int c; (c = ebnf_peek(e, 0)) >= 0; e->at++) {
        if (c == '#' || (c == '/' && ebnf_peek(e, 1) == '/')) {
            while (ebnf_peek(e, 0) >= 0 && ebnf_peek(e, 0) != '\n') e->at++;
            e->at--;
        } else if (c == '\\' && ebnf_peek(e, 1) == '\n') {
            e->at++;
        } else if (c != ' ' && c != '\t' && c != '\f' && !(lines && (c == '\n' || c == '\r')) && !(c == '\r' && ebnf_peek(e, 1) == '\n')) {
            return;
        }
    }
}

static bool word(ebnf *e, lark_name *out)
{
    *out = (lark_name){e->text + e->at, 0};
    if (!is_letter(ebnf_peek(e, 0)) && ebnf_peek(e, 0) != '_') return ebnf_fail(e, e->at, VLM_INVALID, "a name was expected");
    while (is_word(ebnf_peek(e, (size_t)out->size)) && !(ebnf_peek(e, out->size) == '-' && ebnf_peek(e, out->size + 1) == '>')) out->size++;
    e->at += out->size;
    return true;
}

/* Upper case, underscores and digits aside. */
static bool is_terminal(lark_name n)
{
    for (size_t i = 0; i < n.size; i++)
        if (is_letter(n.text[i])) return n.text[i] < 'a';
    return false;
}

static bool same(lark_name a, const char *b) { return a.size == strlen(b) && !memcmp(a.text, b, a.size); }

/* ---- terminals of the library "common" ---- */
static const char *common(lark_name n)
{
    static const struct { const char *name, *pattern; } table[] = {
        {"DIGIT", "[0-9]"}, {"HEXDIGIT", "[0-9A-Fa-f]"}, {"INT", "[0-9]+"}, {"SIGNED_INT", "[+-]?[0-9]+"}, {"DECIMAL", "[0-9]+\\.[0-9]*|\\.[0-9]+"},
        {"_EXP", "[eE][+-]?[0-9]+"}, {"FLOAT", "[0-9]+[eE][+-]?[0-9]+|([0-9]+\\.[0-9]*|\\.[0-9]+)([eE][+-]?[0-9]+)?"},
        {"SIGNED_FLOAT", "[+-]?([0-9]+[eE][+-]?[0-9]+|([0-9]+\\.[0-9]*|\\.[0-9]+)([eE][+-]?[0-9]+)?)"},
        {"NUMBER", "[0-9]+([eE][+-]?[0-9]+)?|([0-9]+\\.[0-9]*|\\.[0-9]+)([eE][+-]?[0-9]+)?"},
        {"SIGNED_NUMBER", "[+-]?([0-9]+([eE][+-]?[0-9]+)?|([0-9]+\\.[0-9]*|\\.[0-9]+)([eE][+-]?[0-9]+)?)"},
        {"_STRING_INNER", "[^\\n]*"}, {"_STRING_ESC_INNER", "([^\"\\\\\\n]|\\\\[^\\n])*"}, {"ESCAPED_STRING", "\"([^\"\\\\\\n]|\\\\[^\\n])*\""},
        {"LCASE_LETTER", "[a-z]"}, {"UCASE_LETTER", "[A-Z]"}, {"LETTER", "[A-Za-z]"}, {"WORD", "[A-Za-z]+"}, {"CNAME", "[_A-Za-z][_A-Za-z0-9]*"},
        {"WS_INLINE", "[ \\t]+"}, {"WS", "[ \\t\\f\\r\\n]+"}, {"CR", "\\r"}, {"LF", "\\n"}, {"NEWLINE", "(\\r?\\n)+"}, {"SH_COMMENT", "#[^\\n]*"},
        {"CPP_COMMENT", "//[^\\n]*"}, {"C_COMMENT", "/\\*([^*]|\\*+[^*/])*\\*+/"}, {"SQL_COMMENT", "--[^\\n]*"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (same(n, table[i].name)) return table[i].pattern;
    return NULL;
}

/* ---- values ---- */
/* In a rule, whatever is ignored may follow. */
static grammar_expr terminal(lark *l, grammar_expr x)
{
    if (!x || l->in_terminal || !l->gaps) return x;
    return grammar_seq2(l->e.b, x, l->gap);
}

/* A quoted text; its bytes go to *out. */
static bool quoted(ebnf *e, buf *out)
{
    size_t start = e->at++;
    while (ebnf_peek(e, 0) >= 0 && ebnf_peek(e, 0) != '"' && ebnf_peek(e, 0) != '\n') {
        uint32_t code;
        int c = ebnf_peek(e, 1);
        if (ebnf_peek(e, 0) != '\\' || c < 0) {
            e->at += utf8_next_lossy(e->text + e->at, e->size - e->at, &code);
        } else {
            static const char from[] = "tnrfvba0", to[] = "\t\n\r\f\v\b\a\0";
            const char *at = strchr(from, c);
            e->at += 2;
            if (c == 'x' || c == 'u' || c == 'U') {
                if (c == 'u' && ebnf_take(e, "{")) {
                    int n = 0;
                    while (n < 8 && ebnf_peek(e, (size_t)n) != '}') n++;
                    if (!ebnf_hex(e, n, &code) || !ebnf_take(e, "}")) return ebnf_fail(e, e->at, VLM_INVALID, "a character's number in braces was expected");
                } else if (!ebnf_hex(e, c == 'x' ? 2 : c == 'u' ? 4 : 8, &code)) {
                    return false;
                }
            } else if (at) {
                code = (uint32_t)to[at - from];
            } else if (is_word(c)) {
                return ebnf_fail(e, e->at - 2, VLM_INVALID, "unknown escape");
            } else {
                code = (uint32_t)c;
            }
        }
        buf_add_utf8(out, code);
    }
    if (!ebnf_take(e, "\"")) return ebnf_fail(e, start, VLM_INVALID, "the text has no end");
    return !out->failed || ebnf_fail(e, start, VLM_MEMORY, "out of memory");
}

static grammar_expr string(lark *l)
{
    ebnf *e = &l->e;
    buf text = {0}, last = {0};
    grammar_expr made = 0;
    size_t start = e->at;
    if (!quoted(e, &text)) goto done;
    if (ebnf_peek(e, 0) == 'i' && !is_word(ebnf_peek(e, 1))) {
        e->at++;
        made = grammar_text_icase(e->b, text.data ? text.data : "", text.size);
        goto done;
    }
    size_t back = e->at;
    skip(e, false);
    if (ebnf_take(e, "..")) {
        uint32_t low = 0, high = 0;
        skip(e, false);
        if (ebnf_peek(e, 0) != '"' || !quoted(e, &last)) {
            ebnf_fail(e, e->at, VLM_INVALID, "the last character of the range was expected");
            goto done;
        }
        if (!text.size || !last.size || utf8_next_lossy(text.data, text.size, &low) != text.size || utf8_next_lossy(last.data, last.size, &high) != last.size || low > high)
            ebnf_fail(e, start, VLM_INVALID, "a range goes from one character to a later one");
        else made = grammar_class(e->b, &(grammar_range){low, high}, 1, false);
        goto done;
    }
    e->at = back;
    made = grammar_bytes(e->b, text.data ? text.data : "", text.size);
done:
    buf_free(&text);
    buf_free(&last);
    return e->failed ? 0 : made;
}

static grammar_expr pattern(lark *l)
{
    ebnf *e = &l->e;
    size_t start = ++e->at;
    skip_pattern(e);
    size_t end = e->at;
    if (!ebnf_take(e, "/")) return ebnf_fail(e, start - 1, VLM_INVALID, "the expression has no end");
    unsigned flags = GRAMMAR_UNICODE;
    for (int c; is_letter(c = ebnf_peek(e, 0)); e->at++) {
        if (c == 'i') flags |= GRAMMAR_ICASE;
        else if (c == 's') flags |= GRAMMAR_DOTALL;
        else if (c != 'u' && c != 'l') return ebnf_fail(e, e->at, VLM_UNSUPPORTED, "the flag %c is not taken", c);
    }
    buf text = {0};                                    /* \/ is a slash */
    for (size_t i = start; i < end; i++) {
        if (e->text[i] == '\\' && i + 1 < end) {
            if (e->text[i + 1] != '/') buf_addc(&text, '\\');
            buf_addc(&text, e->text[++i]);
        } else {
            buf_addc(&text, e->text[i]);
        }
    }
    grammar_expr made = text.failed ? 0 : grammar_regex(e->b, text.data ? text.data : "", text.size, flags);
    const vlm_error *failed = grammar_builder_error(e->b);
    if (!made) ebnf_fail(e, start, failed ? failed->code : VLM_MEMORY, "%s", failed ? failed->message : "out of memory");
    buf_free(&text);
    return made;
}

/* %json {...}: the length of the value is found by its brackets. */
static size_t json_end(const ebnf *e)
{
    size_t depth = 0;
    bool text = false;
    for (size_t i = e->at; i < e->size; i++) {
        char c = e->text[i];
        if (text && c == '\\') i++;
        else if (c == '"') text = !text;
        else if (!text && (c == '{' || c == '[')) depth++;
        else if (!text && (c == '}' || c == ']') && depth && --depth == 0) return i + 1;
    }
    return 0;
}

static json_t *read_json(ebnf *e)
{
    skip(e, true);
    size_t end = json_end(e), start = e->at;
    json_error_t why;
    json_t *value = end ? json_loadb(e->text + start, end - start, JSON_DECODE_ANY, &why) : NULL;
    if (!value) {
        if (end) ebnf_fail(e, start, VLM_INVALID, "%s", why.text);
        else ebnf_fail(e, start, VLM_INVALID, "a JSON value was expected");
        return NULL;
    }
    e->at = end;
    return value;
}

static grammar_expr json_schema(lark *l)
{
    ebnf *e = &l->e;
    size_t start = e->at;
    json_t *value = read_json(e);
    if (!value) return 0;
    vlm_error error = {0};
    grammar_expr made = schema_expr(e->b, value, NULL, &error);
    json_decref(value);
    if (!made) return ebnf_fail(e, start, error.code, "%s", error.message);
    return terminal(l, made);
}

/* name{x, y}: the rule of this template with these arguments. */
static grammar_expr template_call(lark *l, lark_name n)
{
    ebnf *e = &l->e;
    size_t start = e->at, t = 0;
    lark_instance call = {0};
    while (t < l->templates && !(l->template[t].name.size == n.size && !memcmp(l->template[t].name.text, n.text, n.size))) t++;
    if (t == l->templates) return ebnf_fail(e, start, VLM_INVALID, "there is no template \"%.*s\"", (int)n.size, n.text);
    call.template = t;
    size_t count = 0;
    do {
        skip(e, true);
        if (count == l->template[t].parameters) return ebnf_fail(e, e->at, VLM_INVALID, "too many arguments");
        call.argument[count++] = expansions(l, true);
        skip(e, true);
    } while (!e->failed && ebnf_take(e, ","));
    if (e->failed) return 0;
    if (!ebnf_take(e, "}") || count != l->template[t].parameters) return ebnf_fail(e, e->at, VLM_INVALID, "%zu arguments and } were expected", l->template[t].parameters);
    for (size_t i = 0; i < l->instances; i++)
        if (l->instance[i].template == t && !memcmp(l->instance[i].argument, call.argument, sizeof call.argument)) return l->instance[i].rule;
    if (l->instances == LARK_MAX_INSTANCES) return ebnf_fail(e, start, VLM_LIMIT, "more than %d uses of templates", LARK_MAX_INSTANCES);
    lark_instance *more = mem_resize(l->instance, l->instances + 1, sizeof *more);
    if (!more) return ebnf_fail(e, start, VLM_MEMORY, "out of memory");
    size_t bound = l->bound ? (size_t)(l->bound - l->instance) : 0;
    if (l->bound) l->bound = more + bound;
    l->instance = more;
    call.rule = grammar_rule(e->b, NULL);
    l->instance[l->instances++] = call;
    return call.rule;
}

static grammar_expr name_value(lark *l)
{
    ebnf *e = &l->e;
    lark_name n;
    if (!word(e, &n)) return 0;
    if (l->bound) {
        const lark_template *t = &l->template[l->bound->template];
        for (size_t i = 0; i < t->parameters; i++)
            if (t->parameter[i].size == n.size && !memcmp(t->parameter[i].text, n.text, n.size)) return l->bound->argument[i];
    }
    if (ebnf_peek(e, 0) == '{' && is_letter(ebnf_peek(e, 1)) + (ebnf_peek(e, 1) == '"') + (ebnf_peek(e, 1) == '/') + (ebnf_peek(e, 1) == '_')) {
        e->at++;
        return template_call(l, n);
    }
    ebnf_rule *r = ebnf_find(e, n.text, n.size);
    if (!r) return 0;
    return is_terminal(n) ? terminal(l, r->rule) : r->rule;
}

/* One value; 0 with e->failed unset: there is none. */
static grammar_expr value(lark *l, bool nested)
{
    ebnf *e = &l->e;
    int c = ebnf_peek(e, 0);
    if (c == '(' || c == '[') {
        size_t start = e->at++;
        grammar_expr inner = expansions(l, true);
        skip(e, true);
        if (!e->failed && !ebnf_take(e, c == '(' ? ")" : "]")) return ebnf_fail(e, start, VLM_INVALID, "the group has no end");
        return c == '[' ? grammar_optional(e->b, inner) : inner;
    }
    if (c == '"') return terminal(l, string(l));
    if (c == '/') return terminal(l, pattern(l));
    if (c == '<') return terminal(l, ebnf_token(e));
    if (c == '~' && l->in_terminal) {
        e->at++;
        skip(e, nested);
        grammar_expr x = value(l, nested);
        if (!x) return ebnf_fail(e, e->at, VLM_INVALID, "nothing follows ~");
        return grammar_not(e->b, x);
    }
    if (ebnf_take(e, "%json")) return json_schema(l);
    if (c == '%' && nested) return ebnf_fail(e, e->at, VLM_UNSUPPORTED, "this is not taken here");
    if (c == '@') return ebnf_fail(e, e->at, VLM_UNSUPPORTED, "references to other grammars are not taken");
    return is_letter(c) || c == '_' ? name_value(l) : 0;
}

static bool number(ebnf *e, uint32_t *out)
{
    size_t start = e->at;
    uint64_t v = 0;
    for (; ebnf_peek(e, 0) >= '0' && ebnf_peek(e, 0) <= '9'; e->at++) v = v > 1000000000 ? v : v * 10 + (uint64_t)(ebnf_peek(e, 0) - '0');
    *out = (uint32_t)(v > 2000000000 ? 2000000000 : v);
    return e->at > start;
}

/* ? * + ~2 ~2..5 {2} {2,} {,5} {2,5}; false: no repetition here. */
static bool repetition(lark *l, grammar_expr *x)
{
    ebnf *e = &l->e;
    uint32_t min = 0, max = 0;
    size_t start = e->at;
    if (ebnf_take(e, "?")) return *x = grammar_optional(e->b, *x), true;
    if (ebnf_take(e, "*")) return *x = grammar_repeat(e->b, *x, 0, -1), true;
    if (ebnf_take(e, "+")) return *x = grammar_repeat(e->b, *x, 1, -1), true;
    bool tilde = ebnf_take(e, "~");
    if (!tilde && !ebnf_take(e, "{")) return false;
    skip(e, false);
    bool low = number(e, &min), high = false, range;
    skip(e, false);
    range = ebnf_take(e, tilde ? ".." : ",");
    skip(e, false);
    if (range) high = number(e, &max);
    skip(e, false);
    if ((!low && !high) || (tilde && range && !high) || (!tilde && !ebnf_take(e, "}"))) return *x = ebnf_fail(e, start, VLM_INVALID, "bounds of a repetition were expected"), true;
    int64_t most = !range ? (int64_t)min : high ? (int64_t)max : -1;
    if (most >= 0 && most < min) return *x = ebnf_fail(e, start, VLM_INVALID, "the bounds are the wrong way round"), true;
    *x = grammar_repeat(e->b, *x, min, most);
    return true;
}

static grammar_expr sequence(lark *l, bool nested)
{
    ebnf *e = &l->e;
    grammar_expr all = grammar_empty(e->b);
    for (;;) {
        skip(e, nested);
        grammar_expr x = value(l, nested);
        if (e->failed) return 0;
        if (!x) break;
        for (;;) {
            size_t back = e->at;
            skip(e, nested);
            if (repetition(l, &x)) continue;
            e->at = back;
            break;
        }
        if (e->failed) return 0;
        all = grammar_seq2(e->b, all, x);
    }
    if (ebnf_take(e, "->")) {                          /* an alias */
        lark_name n;
        skip(e, false);
        if (!word(e, &n)) return 0;
    }
    return all;
}

/* Sequences joined by &, then by |. A line may begin with either. */
static grammar_expr expansions(lark *l, bool nested)
{
    ebnf *e = &l->e;
    if (++e->depth > EBNF_MAX_DEPTH) return ebnf_fail(e, e->at, VLM_LIMIT, "groups are nested too deep");
    grammar_expr all = 0, both = 0;
    for (bool more = true; more;) {
        grammar_expr one = sequence(l, nested);
        if (e->failed) return 0;
        both = both ? grammar_and(e->b, both, one) : one;
        size_t back = e->at;
        skip(e, true);
        if (ebnf_take(e, "&")) continue;
        more = ebnf_take(e, "|");
        if (!more) e->at = back;
        all = all ? grammar_alt2(e->b, all, both) : both;
        both = 0;
    }
    e->depth--;
    return all;
}

/* ---- statements ---- */
typedef struct lark_options { bool lazy; grammar_expr suffix; } lark_options;

/* [capture, lazy, suffix="x", temperature=0.5 ...] after a rule's name. */
static bool options(lark *l, lark_options *o)
{
    ebnf *e = &l->e;
    *o = (lark_options){0};
    if (!ebnf_take(e, "[")) return true;
    do {
        lark_name n;
        skip(e, true);
        size_t start = e->at;
        if (!word(e, &n)) return false;
        skip(e, true);
        bool with = ebnf_take(e, "=");
        skip(e, true);
        if (same(n, "lazy") && !with) {
            o->lazy = true;
        } else if (same(n, "suffix") && with) {
            bool outer = l->in_terminal;
            l->in_terminal = true;
            o->suffix = value(l, true);
            l->in_terminal = outer;
            if (!o->suffix) return ebnf_fail(e, start, VLM_INVALID, "a text or a terminal was expected");
        } else if (same(n, "capture") || same(n, "temperature")) {
            buf text = {0};
            bool ok = !with || ebnf_peek(e, 0) != '"' || quoted(e, &text);
            buf_free(&text);
            while (with && (is_word(ebnf_peek(e, 0)) || ebnf_peek(e, 0) == '.')) e->at++;
            if (!ok) return false;
        } else {
            return ebnf_fail(e, start, VLM_UNSUPPORTED, "the option %.*s is not taken", (int)n.size, n.text);
        }
        skip(e, true);
    } while (ebnf_take(e, ","));
    return ebnf_take(e, "]") || ebnf_fail(e, e->at, VLM_INVALID, "] was expected");
}

/* The shortest matches: those of which no beginning matches. */
static grammar_expr lazy(ebnf *e, grammar_expr x)
{
    return grammar_and(e->b, x, grammar_not(e->b, grammar_seq2(e->b, x, grammar_repeat(e->b, grammar_any(e->b), 1, -1))));
}

static bool template_head(lark *l, lark_name n)
{
    ebnf *e = &l->e;
    lark_template t = {.name = n};
    do {
        skip(e, false);
        if (t.parameters == LARK_MAX_PARAMETERS) return ebnf_fail(e, e->at, VLM_LIMIT, "more than %d parameters", LARK_MAX_PARAMETERS);
        if (!word(e, &t.parameter[t.parameters++])) return false;
        skip(e, false);
    } while (ebnf_take(e, ","));
    if (!ebnf_take(e, "}")) return ebnf_fail(e, e->at, VLM_INVALID, "} was expected");
    skip(e, false);
    if (!ebnf_take(e, ":")) return ebnf_fail(e, e->at, VLM_INVALID, ": was expected");
    t.body = e->at;
    lark_template *more = mem_resize(l->template, l->templates + 1, sizeof *more);
    if (!more) return ebnf_fail(e, e->at, VLM_MEMORY, "out of memory");
    l->template = more;
    l->template[l->templates++] = t;
    return true;
}

/* At the / that begins an expression: goes to the one that ends it, or to the line's end. */
static void skip_pattern(ebnf *e)
{
    bool class = false;
    for (int c; (c = ebnf_peek(e, 0)) >= 0 && c != '\n' && (c != '/' || class); e->at++) {
        if (c == '\\' && e->at + 1 < e->size) e->at++;
        else if (c == '[') class = true;
        else if (c == ']') class = false;
    }
}

/* Goes over a body without reading it: to the end of the line that no | continues. */
static void skip_body(ebnf *e)
{
    for (int depth = 0, c; (c = ebnf_peek(e, 0)) >= 0; e->at++) {
        if (c == '"') {
            for (e->at++; (c = ebnf_peek(e, 0)) >= 0 && c != '"' && c != '\n'; e->at++)
                if (c == '\\' && e->at + 1 < e->size) e->at++;
            if (c != '"') e->at--;
        } else if (c == '#' || (c == '/' && ebnf_peek(e, 1) == '/')) {
            while (ebnf_peek(e, 1) >= 0 && ebnf_peek(e, 1) != '\n') e->at++;
        } else if (c == '/') {
            e->at++;
            skip_pattern(e);
            if (ebnf_peek(e, 0) != '/') e->at--;
        } else if (c == '(' || c == '[' || c == '{') {
            depth++;
        } else if (c == ')' || c == ']' || c == '}') {
            depth--;
        } else if (c == '\n' && depth <= 0) {
            size_t back = e->at;
            skip(e, true);
            if (ebnf_peek(e, 0) == '|' || ebnf_peek(e, 0) == '&') continue;
            e->at = back;
            return;
        }
    }
}

static bool rule(lark *l, bool heads)
{
    ebnf *e = &l->e;
    lark_name n;
    lark_options o;
    while (ebnf_peek(e, 0) == '?' || ebnf_peek(e, 0) == '!') e->at++;
    size_t start = e->at;
    if (!word(e, &n)) return false;
    if (ebnf_take(e, "{")) {
        size_t templates = l->templates;
        if (!template_head(l, n)) return false;
        if (!heads) l->templates = templates;          /* known from the first pass */
        skip_body(e);
        return true;
    }
    if (ebnf_peek(e, 0) == '.') {                      /* priority */
        e->at++;
        ebnf_take(e, "-");
        while (ebnf_peek(e, 0) >= '0' && ebnf_peek(e, 0) <= '9') e->at++;
    }
    if (heads) {
        skip_body(e);
        return true;
    }
    l->in_terminal = is_terminal(n);
    if (!options(l, &o)) return false;
    skip(e, false);
    if (!ebnf_take(e, ":")) return ebnf_fail(e, e->at, VLM_INVALID, ": was expected");
    ebnf_rule *r = ebnf_find(e, n.text, n.size);
    if (!r) return false;
    if (r->defined) return ebnf_fail(e, start, VLM_INVALID, "\"%.*s\" is defined twice", (int)n.size, n.text);
    r->defined = true;
    grammar_expr own = r->rule;
    if (o.suffix || o.lazy) l->in_terminal = true;
    grammar_expr body = expansions(l, false);
    if (o.suffix) body = lazy(e, grammar_seq2(e->b, body, o.suffix));
    else if (o.lazy) body = lazy(e, body);
    bool outer = is_terminal(n);
    l->in_terminal = outer;
    if ((o.suffix || o.lazy) && !outer) body = terminal(l, body);
    l->in_terminal = false;
    if (e->failed) return false;
    grammar_define(e->b, own, body);
    return true;
}

static bool import(lark *l)
{
    ebnf *e = &l->e;
    lark_name library, n, alias;
    skip(e, false);
    size_t start = e->at;
    if (!word(e, &library)) return ebnf_fail(e, start, VLM_UNSUPPORTED, "only the library common can be imported from");
    if (!same(library, "common")) return ebnf_fail(e, start, VLM_UNSUPPORTED, "only the library common can be imported from");
    bool list = false;
    if (!ebnf_take(e, ".")) {
        skip(e, false);
        if (!(list = ebnf_take(e, "("))) return ebnf_fail(e, e->at, VLM_INVALID, "common.NAME was expected");
    }
    do {
        skip(e, list);
        start = e->at;
        if (!word(e, &n)) return false;
        alias = n;
        skip(e, list);
        if (ebnf_take(e, "->")) {
            skip(e, false);
            if (!word(e, &alias)) return false;
        }
        const char *text = common(n);
        if (!text) return ebnf_fail(e, start, VLM_INVALID, "the library common has no %.*s", (int)n.size, n.text);
        ebnf_rule *r = ebnf_find(e, alias.text, alias.size);
        if (!r) return false;
        if (!r->defined) grammar_define(e->b, r->rule, grammar_regex(e->b, text, strlen(text), 0));
        r->defined = true;
        skip(e, list);
    } while (list && ebnf_take(e, ","));
    return !list || ebnf_take(e, ")") || ebnf_fail(e, e->at, VLM_INVALID, ") was expected");
}

static bool directive(lark *l, bool heads)
{
    ebnf *e = &l->e;
    size_t start = e->at;
    if (ebnf_take(e, "%ignore")) {
        l->gaps = true;
        if (heads) return skip_body(e), true;
        skip(e, false);
        l->in_terminal = true;
        grammar_expr x = expansions(l, false);
        l->in_terminal = false;
        l->ignored = l->ignored ? grammar_alt2(e->b, l->ignored, x) : x;
        return x != 0;
    }
    if (ebnf_take(e, "%import")) {
        if (!heads) return import(l);
        while (ebnf_peek(e, 0) >= 0 && ebnf_peek(e, 0) != '\n' && ebnf_peek(e, 0) != '(') e->at++;
        if (ebnf_peek(e, 0) == '(') skip_body(e);
        return true;
    }
    if (ebnf_take(e, "%llguidance")) {
        json_t *v = read_json(e);
        json_decref(v);
        return v != NULL;
    }
    if (heads) return skip_body(e), true;
    return ebnf_fail(e, start, VLM_UNSUPPORTED, "only %%ignore, %%import, %%json and %%llguidance are taken");
}

/* heads: the first pass, which finds templates and whether anything is ignored. */
static bool statements(lark *l, bool heads)
{
    ebnf *e = &l->e;
    e->at = 0;
    for (skip(e, true); ebnf_peek(e, 0) >= 0 && !e->failed; skip(e, true)) {
        size_t before = e->at;
        if (!(ebnf_peek(e, 0) == '%' ? directive(l, heads) : rule(l, heads))) return false;
        skip(e, false);
        int c = ebnf_peek(e, 0);
        if (c >= 0 && c != '\n' && c != '\r') return ebnf_fail(e, e->at, VLM_INVALID, "unexpected \"%c\"", c);
        if (e->at == before) return ebnf_fail(e, e->at, VLM_INVALID, "a rule was expected");
    }
    return !e->failed;
}

static bool instances(lark *l)
{
    ebnf *e = &l->e;
    for (size_t i = 0; i < l->instances; i++) {
        const lark_template *t = &l->template[l->instance[i].template];
        e->at = t->body;
        l->bound = &l->instance[i];
        l->in_terminal = is_terminal(t->name);
        grammar_expr body = expansions(l, false), own = l->instance[i].rule;
        l->bound = NULL;
        if (e->failed) return false;
        grammar_define(e->b, own, body);
    }
    l->in_terminal = false;
    return true;
}

static grammar_expr run(lark *l)
{
    ebnf *e = &l->e;
    if (!statements(l, true)) return 0;
    if (l->gaps) l->gap = grammar_rule(e->b, NULL);
    if (!statements(l, false) || !instances(l) || !ebnf_complete(e)) return 0;
    if (l->gaps) grammar_define(e->b, l->gap, grammar_repeat(e->b, l->ignored, 0, -1));
    for (size_t i = 0; i < e->count; i++)
        if (e->rule[i].size == 5 && !memcmp(e->rule[i].name, "start", 5)) return l->gaps ? grammar_seq2(e->b, l->gap, e->rule[i].rule) : e->rule[i].rule;
    return ebnf_fail(e, 0, VLM_INVALID, "there is no rule \"start\", where a grammar starts");
}

grammar_expr ebnf_lark(ebnf *e)
{
    lark l = {.e = *e};
    grammar_expr made = run(&l);
    *e = l.e;
    mem_free(l.template);
    mem_free(l.instance);
    return made;
}
