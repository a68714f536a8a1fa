/* urlize.c - the filter urlize: addresses in a text become links, found by jinja2's rules (utils.py). */
#include "text/jinja/internal.h"

typedef struct piece { const char *s; size_t n; } piece;

static bool is(piece p, const char *text) { return p.n == strlen(text) && memcmp(p.s, text, p.n) == 0; }
static bool starts(piece p, const char *text) { return p.n >= strlen(text) && memcmp(p.s, text, strlen(text)) == 0; }
static bool ends(piece p, const char *text) { return p.n >= strlen(text) && memcmp(p.s + p.n - strlen(text), text, strlen(text)) == 0; }
static piece after(piece p, size_t n) { return (piece){p.s + n, p.n - n}; }
static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_letter(char c) { return (c | 32) >= 'a' && (c | 32) <= 'z'; }

/* Is every character \w or one of `more`? */
static bool all_word(piece p, const char *more)
{
    for (size_t i = 0; i < p.n;) {
        uint32_t c;
        i += utf8_next_lossy(p.s + i, p.n - i, &c);
        if (!jchar_is_alnum(c) && c != '_' && !(c && c < 128 && strchr(more, (int)c))) return false;
    }
    return true;
}

static size_t characters(piece p) { return utf8_length(p.s, p.n); }

/* [a-z]{2,63} or xn--[\w%]{2,59} */
static bool is_top_level(piece p)
{
    bool letters = p.n >= 2 && p.n <= 63;
    for (size_t i = 0; i < p.n; i++) letters &= is_letter(p.s[i]);
    if (letters) return true;
    if (p.n < 6 || (p.s[0] | 32) != 'x' || (p.s[1] | 32) != 'n' || p.s[2] != '-' || p.s[3] != '-') return false;
    size_t n = characters(after(p, 4));
    return n >= 2 && n <= 59 && all_word(after(p, 4), "%");
}

static bool is_basic_top_level(piece p)
{
    static const char *const names[] = {"com", "net", "int", "edu", "gov", "org", "info", "mil"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        bool same = p.n == strlen(names[i]);
        for (size_t k = 0; same && k < p.n; k++) same = (p.s[k] | 32) == names[i][k];
        if (same) return true;
    }
    return false;
}

/* labels.top; basic: labels of 2 to 63 characters, at least one, and one of the old top levels. */
static bool is_host(piece p, bool basic)
{
    size_t from = 0;
    for (size_t i = 0; i < p.n; i++) {
        if (p.s[i] != '.') continue;
        piece label = {p.s + from, i - from};
        size_t n = characters(label);
        if (!n || !all_word(label, "%-") || (basic && (n < 2 || n > 63))) return false;
        from = i + 1;
    }
    return basic ? from && is_basic_top_level(after(p, from)) : is_top_level(after(p, from));
}

static bool is_ip4(piece p)
{
    for (int part = 0; part < 4; part++) {
        size_t n = 0;
        while (n < p.n && is_digit(p.s[n])) n++;
        if (n < 1 || n > 3) return false;
        p = after(p, n);
        if (part < 3) {
            if (!p.n || *p.s != '.') return false;
            p = after(p, 1);
        }
    }
    return !p.n;
}

/* \[([\da-f]{0,4}:){2}([\da-f]{0,4}:?){1,6}] */
static bool is_ip6(piece p)
{
    if (p.n < 2 || p.s[0] != '[' || p.s[p.n - 1] != ']') return false;
    p = (piece){p.s + 1, p.n - 2};
    for (int part = 0; part < 8 && (p.n || part < 2); part++) {
        size_t n = 0;
        while (n < 4 && n < p.n && (is_digit(p.s[n]) || ((p.s[n] | 32) >= 'a' && (p.s[n] | 32) <= 'f'))) n++;
        bool colon = n < p.n && p.s[n] == ':';
        if (part < 2 && !colon) return false;
        if (!n && !colon) return false;
        p = after(p, n + colon);
    }
    return !p.n;
}

static size_t scheme_size(piece p)
{
    size_t k = 0;
    for (const char *want = "http"; k < 4; k++)
        if (k >= p.n || (p.s[k] | 32) != want[k]) return 0;
    if (k < p.n && (p.s[k] | 32) == 's') k++;
    return p.n >= k + 3 && memcmp(p.s + k, "://", 3) == 0 ? k + 3 : 0;
}

static bool is_address(piece p)
{
    size_t scheme = scheme_size(p), www = p.n >= 4 && (p.s[0] | 32) == 'w' && (p.s[1] | 32) == 'w' && (p.s[2] | 32) == 'w' && p.s[3] == '.' ? 4 : 0, end = 0;
    piece rest = after(p, scheme);
    if (rest.n && *rest.s == '[') {
        const char *close = memchr(rest.s, ']', rest.n);
        end = close ? (size_t)(close - rest.s) + 1 : 0;
    } else while (end < rest.n && !strchr(":/?#", rest.s[end])) end++;
    piece host = {rest.s, end}, tail = after(rest, end);
    bool good = scheme ? is_host(host, false) || is_ip4(host) || is_ip6(host) : (www && is_host(after(host, 4), false)) || is_host(host, true);
    if (!good) return false;
    if (tail.n && *tail.s == ':') {
        size_t n = 1;
        while (n < tail.n && is_digit(tail.s[n])) n++;
        if (n < 2 || n > 6) return false;
        tail = after(tail, n);
    }
    return !tail.n || *tail.s == '/' || *tail.s == '?' || *tail.s == '#';
}

/* ^\S+@\w[\w.-]*\.\w+$ */
static bool is_email(piece p)
{
    size_t at = p.n, dot;
    while (at && p.s[at - 1] != '@') at--;
    if (at < 2) return false;
    piece domain = after(p, at);
    dot = domain.n;
    while (dot && domain.s[dot - 1] != '.') dot--;
    if (dot < 2 || dot == domain.n || !all_word(after(domain, dot), "") || !all_word(domain, ".-")) return false;
    return *domain.s != '.' && *domain.s != '-';
}

static size_t count_of(piece p, const char *what)
{
    size_t n = 0, size = strlen(what);
    for (size_t at = 0; (at = bytes_find(p.s, p.n, at, what, size)) != SIZE_MAX; at += size) n++;
    return n;
}

/* Brackets that open in the middle close there, too, though they look like what comes after. */
static void balance(piece *middle, piece *tail)
{
    static const char *const pairs[][2] = {{"(", ")"}, {"<", ">"}, {"&lt;", "&gt;"}};
    for (int i = 0; i < 3; i++) {
        size_t open = count_of(*middle, pairs[i][0]);
        if (open <= count_of(*middle, pairs[i][1])) continue;
        size_t moves = count_of(*tail, pairs[i][1]);
        for (moves = moves < open ? moves : open; moves; moves--) {
            size_t n = bytes_find(tail->s, tail->n, 0, pairs[i][1], strlen(pairs[i][1])) + strlen(pairs[i][1]);
            middle->n += n;                        /* they lie side by side */
            *tail = after(*tail, n);
        }
    }
}

static void add(jbuf *b, piece p) { jbuf_add(b, p.s, p.n); }

typedef struct urlizer { jrun *r; jint limit; const jstr *attributes; jlist *schemes; } urlizer;

static void add_link(const urlizer *u, jbuf *out, const char *before, piece address, piece shown)
{
    jbuf_adds(out, "<a href=\"");
    jbuf_adds(out, before);
    add(out, address);
    jbuf_addc(out, '"');
    jbuf_addstr(out, u->attributes);
    jbuf_addc(out, '>');
    const jstr *text = jstr_new(&u->r->m, shown.s, shown.n);
    if (u->limit >= 0 && (jint)text->chars > u->limit) {
        jbuf_add(out, text->data, jstr_offset(text, (size_t)u->limit));
        jbuf_adds(out, "...");
    } else jbuf_addstr(out, text);
    jbuf_adds(out, "</a>");
}

static void add_word(const urlizer *u, jbuf *out, piece word)
{
    static const jstr none = {"", 0, 0};
    urlizer plain = {.r = u->r, .limit = -1, .attributes = &none};
    piece middle = word;
    while (starts(middle, "(") || starts(middle, "<") || starts(middle, "&lt;")) middle = after(middle, starts(middle, "&lt;") ? 4 : 1);
    jbuf_add(out, word.s, word.n - middle.n);
    size_t whole = middle.n;
    while (middle.n && (strchr(")>.,", middle.s[middle.n - 1]) || ends(middle, "&gt;"))) middle.n -= ends(middle, "&gt;") ? 4 : 1;
    piece tail = {middle.s + middle.n, whole - middle.n};
    balance(&middle, &tail);
    bool mail = memchr(middle.s, '@', middle.n) && !starts(middle, "www.") && *middle.s != '@' && !memchr(middle.s, ':', middle.n) && is_email(middle);
    if (is_address(middle)) add_link(u, out, starts(middle, "https://") || starts(middle, "http://") ? "" : "https://", middle, middle);
    else if (starts(middle, "mailto:") && is_email(after(middle, 7))) add_link(&plain, out, "", middle, after(middle, 7));
    else if (middle.n && mail) add_link(&plain, out, "mailto:", middle, middle);
    else {
        bool linked = false;
        for (size_t i = 0; !linked && u->schemes && i < u->schemes->count; i++) {
            const jstr *scheme = u->schemes->item[i].s;
            if (!starts(middle, scheme->data) || is(middle, scheme->data)) continue;
            urlizer whole_text = {.r = u->r, .limit = -1, .attributes = u->attributes};
            add_link(&whole_text, out, "", middle, middle);
            linked = true;
        }
        if (!linked) add(out, middle);
    }
    add(out, tail);
}

/* rel="noopener", with what the caller adds, in order; target. */
static const jstr *attributes(jrun *r, const jargs *a)
{
    jlist *words = jlist_new(&r->m, 4);
    const jstr *given = a->v[3].kind == J_STRING ? a->v[3].s : jstr_copy(&r->m, "", 0);
    jbuf all = {.m = &r->m}, out = {.m = &r->m};
    jbuf_addstr(&all, given);
    jbuf_adds(&all, jv_true(jarg(a, 1, jv_bool(false))) ? " nofollow noopener" : " noopener");
    const jstr *text = jv_buf(&all).s;
    for (size_t i = 0, from; i < text->size;) {
        while (i < text->size && (text->data[i] == ' ' || text->data[i] == '\n' || text->data[i] == '\t')) i++;
        for (from = i; i < text->size && text->data[i] != ' ' && text->data[i] != '\n' && text->data[i] != '\t';) i++;
        jval word = jv_textn(&r->m, text->data + from, i - from);
        size_t at = 0;
        while (at < words->count && jv_compare(r, words->item[at], word, "<") < 0) at++;
        if (!word.s->size || (at < words->count && jv_equal(r, words->item[at], word))) continue;
        jlist_add(&r->m, words, word);
        for (size_t k = words->count - 1; k > at; k--) words->item[k] = words->item[k - 1];
        words->item[at] = word;
    }
    jbuf_adds(&out, " rel=\"");
    for (size_t i = 0; i < words->count; i++) {
        if (i) jbuf_addc(&out, ' ');
        jinja_escape_html(&out, words->item[i].s);
    }
    jbuf_addc(&out, '"');
    if (a->v[2].kind == J_STRING && a->v[2].s->size) {
        jbuf_adds(&out, " target=\"");
        jinja_escape_html(&out, a->v[2].s);
        jbuf_addc(&out, '"');
    }
    return jv_buf(&out).s;
}

jval jinja_urlize(jrun *r, jval self, jargs *a)
{
    jbuf escaped = {.m = &r->m}, out = {.m = &r->m};
    if (self.kind == J_STRING && self.markup) jbuf_addstr(&escaped, self.s);
    else jinja_escape_html(&escaped, jv_string(r, self));
    urlizer u = {.r = r, .limit = a->v[0].kind == J_MISSING || a->v[0].kind == J_NONE ? -1 : jv_to_int(r, a->v[0], "urlize"), .attributes = attributes(r, a)};
    if (a->v[4].kind != J_MISSING && a->v[4].kind != J_NONE) u.schemes = jv_iterate(r, a->v[4]);
    for (size_t i = 0; u.schemes && i < u.schemes->count; i++)
        if (u.schemes->item[i].kind != J_STRING) jinja_fail(&r->m, VLM_FORMAT, "urlize: a scheme must be a str");
    const char *s = escaped.size ? escaped.data : "";
    for (size_t i = 0, from = 0; i <= escaped.size;) {
        uint32_t c = ' ';
        size_t n = i < escaped.size ? utf8_next_lossy(s + i, escaped.size - i, &c) : 1;
        if (jchar_is_space(c)) {
            jinja_work(&r->m, (i - from) / 2 + 1);
            if (i > from) add_word(&u, &out, (piece){s + from, i - from});
            if (i < escaped.size) jbuf_add(&out, s + i, n);
            from = i + n;
        }
        i += n;
    }
    return jv_buf(&out);
}
