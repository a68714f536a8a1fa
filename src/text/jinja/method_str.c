/* method_str.c - the methods of str. */
#include <utf8proc.h>

#include "text/jinja/internal.h"

#define METHOD(name) static jval str_##name(jrun *r, jval self, jargs *a)

static const jstr *text_arg(jrun *r, const jargs *a, int i, const char *what)
{
    jval v = a->v[i];
    if (v.kind == J_UNDEFINED) jinja_undefined_error(r, v);
    if (v.kind != J_STRING) jinja_fail(&r->m, VLM_FORMAT, "str.%s: argument must be str, not %s", what, jv_type(v));
    return v.s;
}

/* An optional argument that may be None. */
static const jstr *optional_text(jrun *r, const jargs *a, int i, const char *what)
{
    return a->v[i].kind == J_MISSING || a->v[i].kind == J_NONE ? NULL : text_arg(r, a, i, what);
}

METHOD(upper) { return jv_str(jstr_upper(&r->m, self.s)); }
METHOD(lower) { return jv_str(jstr_lower(&r->m, self.s)); }
METHOD(capitalize) { return jv_str(jstr_capitalize(&r->m, self.s)); }
METHOD(title) { return jv_str(jstr_title(&r->m, self.s)); }
METHOD(strip) { return jv_str(jstr_strip(&r->m, self.s, optional_text(r, a, 0, "strip"), true, true)); }
METHOD(lstrip) { return jv_str(jstr_strip(&r->m, self.s, optional_text(r, a, 0, "lstrip"), true, false)); }
METHOD(rstrip) { return jv_str(jstr_strip(&r->m, self.s, optional_text(r, a, 0, "rstrip"), false, true)); }
METHOD(splitlines) { return jv_list(jstr_splitlines(&r->m, self.s, jv_true(jarg(a, 0, jv_bool(false))))); }

METHOD(swapcase) { return jv_str(jstr_swapcase(&r->m, self.s)); }
METHOD(casefold) { return jv_str(jstr_casefold(&r->m, self.s)); }

METHOD(replace)
{
    const jstr *from = text_arg(r, a, 0, "replace"), *to = self.markup ? jinja_escaped(r, a->v[1]) : text_arg(r, a, 1, "replace");
    return jv_str(jstr_replace(&r->m, self.s, from, to, jv_to_int(r, jarg(a, 2, jv_int(-1)), "replace")));
}

/* ---- splitting ---- */

static void split_space(jrun *r, const jstr *s, jint limit, bool right, jlist *out)
{
    const jstr *rest = jstr_strip(&r->m, s, NULL, !right, right);
    while (rest->size) {
        if (limit-- == 0) {
            jlist_add(&r->m, out, jv_str(rest));
            return;
        }
        size_t at = right ? rest->size : 0;
        if (!right) {
            while (at < rest->size) {
                uint32_t c;
                size_t n = utf8_next_lossy(rest->data + at, rest->size - at, &c);
                if (unicode_is_space(c) || (c >= 0x1C && c <= 0x1F)) break;
                at += n;
            }
            jlist_add(&r->m, out, jv_textn(&r->m, rest->data, at));
            rest = jstr_strip(&r->m, jstr_new(&r->m, rest->data + at, rest->size - at), NULL, true, false);
        } else {
            while (at > 0) {
                size_t i = at - 1;
                while (i && ((unsigned char)rest->data[i] & 0xC0) == 0x80) i--;
                uint32_t c;
                utf8_next_lossy(rest->data + i, at - i, &c);
                if (unicode_is_space(c) || (c >= 0x1C && c <= 0x1F)) break;
                at = i;
            }
            jlist_add(&r->m, out, jv_textn(&r->m, rest->data + at, rest->size - at));
            rest = jstr_strip(&r->m, jstr_new(&r->m, rest->data, at), NULL, false, true);
        }
    }
}

/* Last occurrence of what in s[0..end). */
static size_t find_last(jrun *r, const jstr *s, size_t end, const jstr *what)
{
    jinja_work(&r->m, end / 64 * (what->size / 64 + 1));
    for (size_t i = end + 1; i-- > 0;)
        if (i + what->size <= end && memcmp(s->data + i, what->data, what->size) == 0) return i;
    return SIZE_MAX;
}

static void reverse(jlist *l)
{
    for (size_t i = 0; i < l->count / 2; i++) {
        jval t = l->item[i];
        l->item[i] = l->item[l->count - 1 - i];
        l->item[l->count - 1 - i] = t;
    }
}

static jval split(jrun *r, jval self, jargs *a, bool right)
{
    const jstr *s = self.s, *by = optional_text(r, a, 0, "split");
    jint limit = jv_to_int(r, jarg(a, 1, jv_int(-1)), "split");
    jlist *l = jlist_new(&r->m, 0);
    if (by && !by->size) jinja_fail(&r->m, VLM_FORMAT, "empty separator");
    if (!by) split_space(r, s, limit, right, l);
    else if (right) {
        size_t end = s->size, hit;
        while (limit-- != 0 && (hit = find_last(r, s, end, by)) != SIZE_MAX) {
            jlist_add(&r->m, l, jv_textn(&r->m, s->data + hit + by->size, end - hit - by->size));
            end = hit;
        }
        jlist_add(&r->m, l, jv_textn(&r->m, s->data, end));
    } else {
        size_t at = 0, hit;
        while (limit-- != 0 && (hit = bytes_find(s->data, s->size, at, by->data, by->size)) != SIZE_MAX) {
            jlist_add(&r->m, l, jv_textn(&r->m, s->data + at, hit - at));
            at = hit + by->size;
        }
        jlist_add(&r->m, l, jv_textn(&r->m, s->data + at, s->size - at));
    }
    if (right) reverse(l);
    return jv_list(l);
}

METHOD(split) { return split(r, self, a, false); }
METHOD(rsplit) { return split(r, self, a, true); }

static jval partition(jrun *r, jval self, jargs *a, bool last)
{
    const jstr *s = self.s, *by = text_arg(r, a, 0, "partition");
    if (!by->size) jinja_fail(&r->m, VLM_FORMAT, "empty separator");
    size_t hit = last ? find_last(r, s, s->size, by) : bytes_find(s->data, s->size, 0, by->data, by->size);
    jlist *l = jlist_new(&r->m, 3);
    jval empty = jv_textn(&r->m, "", 0);
    if (hit == SIZE_MAX) {
        jlist_add(&r->m, l, last ? empty : self);
        jlist_add(&r->m, l, empty);
        jlist_add(&r->m, l, last ? self : empty);
    } else {
        jlist_add(&r->m, l, jv_textn(&r->m, s->data, hit));
        jlist_add(&r->m, l, jv_str(by));
        jlist_add(&r->m, l, jv_textn(&r->m, s->data + hit + by->size, s->size - hit - by->size));
    }
    return jv_tuple(l);
}

METHOD(partition) { return partition(r, self, a, false); }
METHOD(rpartition) { return partition(r, self, a, true); }

/* ---- searching ---- */

/* s[start:end], with the code points before it in *skipped. */
static const jstr *window(jrun *r, jval self, const jargs *a, size_t *skipped)
{
    jint n = (jint)self.s->chars, start = 0, end = n;
    if (a->v[1].kind != J_MISSING && a->v[1].kind != J_NONE) start = jv_to_int(r, a->v[1], "find");
    if (a->v[2].kind != J_MISSING && a->v[2].kind != J_NONE) end = jv_to_int(r, a->v[2], "find");
    if (start < 0) start = start + n < 0 ? 0 : start + n;
    if (end < 0) end += n;
    if (end > n) end = n;
    *skipped = (size_t)start;
    if (start > n || end < start) return NULL;
    size_t from = jstr_offset(self.s, (size_t)start), to = jstr_offset(self.s, (size_t)end);
    return jstr_new(&r->m, self.s->data + from, to - from);
}

static jint find(jrun *r, jval self, jargs *a, bool last, const char *what)
{
    size_t skipped;
    const jstr *needle = text_arg(r, a, 0, what), *s = window(r, self, a, &skipped);
    if (!s) return -1;
    jinja_work(&r->m, s->size / 16);
    size_t hit = last ? find_last(r, s, s->size, needle) : bytes_find(s->data, s->size, 0, needle->data, needle->size);
    return hit == SIZE_MAX ? -1 : (jint)(skipped + utf8_length(s->data, hit));
}

static jval found(jrun *r, jint at)
{
    if (at < 0) jinja_fail(&r->m, VLM_FORMAT, "substring not found");
    return jv_int(at);
}

METHOD(find) { return jv_int(find(r, self, a, false, "find")); }
METHOD(rfind) { return jv_int(find(r, self, a, true, "rfind")); }
METHOD(index) { return found(r, find(r, self, a, false, "index")); }
METHOD(rindex) { return found(r, find(r, self, a, true, "rindex")); }

METHOD(count)
{
    size_t skipped, n = 0;
    const jstr *needle = text_arg(r, a, 0, "count"), *s = window(r, self, a, &skipped);
    if (!s) return jv_int(0);
    jinja_work(&r->m, s->size / 16);
    if (!needle->size) return jv_int((jint)s->chars + 1);
    for (size_t at = 0; (at = bytes_find(s->data, s->size, at, needle->data, needle->size)) != SIZE_MAX; at += needle->size) n++;
    return jv_int((jint)n);
}

static bool affix(const jstr *s, const jstr *what, bool end)
{
    return s->size >= what->size && memcmp(end ? s->data + s->size - what->size : s->data, what->data, what->size) == 0;
}

static jval has_affix(jrun *r, jval self, jargs *a, bool end)
{
    size_t skipped;
    const jstr *s = window(r, self, a, &skipped);
    if (a->v[0].kind != J_TUPLE) {
        const jstr *what = text_arg(r, a, 0, end ? "endswith" : "startswith");
        return jv_bool(s && affix(s, what, end));
    }
    for (size_t i = 0; s && i < a->v[0].list->count; i++) {
        jval what = a->v[0].list->item[i];
        if (what.kind != J_STRING) jinja_fail(&r->m, VLM_FORMAT, "tuple for startswith must only contain str, not %s", jv_type(what));
        if (affix(s, what.s, end)) return jv_bool(true);
    }
    return jv_bool(false);
}

METHOD(startswith) { return has_affix(r, self, a, false); }
METHOD(endswith) { return has_affix(r, self, a, true); }

METHOD(removeprefix)
{
    const jstr *what = text_arg(r, a, 0, "removeprefix");
    if (!affix(self.s, what, false)) return self;
    return jv_textn(&r->m, self.s->data + what->size, self.s->size - what->size);
}

METHOD(removesuffix)
{
    const jstr *what = text_arg(r, a, 0, "removesuffix");
    if (!what->size || !affix(self.s, what, true)) return self;
    return jv_textn(&r->m, self.s->data, self.s->size - what->size);
}

/* ---- padding ---- */

static jval pad(jrun *r, jval self, jargs *a, int where)
{
    jint width = jv_to_int(r, a->v[0], "padding"), missing = width - (jint)self.s->chars;
    const jstr *fill = a->v[1].kind == J_MISSING ? NULL : text_arg(r, a, 1, "padding");
    if (fill && fill->chars != 1) jinja_fail(&r->m, VLM_FORMAT, "The fill character must be exactly one character long");
    if (missing <= 0) return self;
    if (missing > (jint)r->max_output) jinja_fail(&r->m, VLM_LIMIT, "padding is too wide");
    jint left = where == 0 ? 0 : where == 2 ? missing : missing / 2 + (missing & width & 1);
    jbuf b = {.m = &r->m};
    for (jint i = 0; i < left; i++) if (fill) jbuf_addstr(&b, fill); else jbuf_addc(&b, ' ');
    jbuf_addstr(&b, self.s);
    for (jint i = left; i < missing; i++) if (fill) jbuf_addstr(&b, fill); else jbuf_addc(&b, ' ');
    return jv_buf(&b);
}

METHOD(ljust) { return pad(r, self, a, 0); }
METHOD(center) { return pad(r, self, a, 1); }
METHOD(rjust) { return pad(r, self, a, 2); }

METHOD(zfill)
{
    jint missing = jv_to_int(r, a->v[0], "zfill") - (jint)self.s->chars;
    if (missing > (jint)r->max_output) jinja_fail(&r->m, VLM_LIMIT, "padding is too wide");
    jbuf b = {.m = &r->m};
    size_t sign = self.s->size && (self.s->data[0] == '-' || self.s->data[0] == '+');
    jbuf_add(&b, self.s->data, sign);
    if (missing > 0) jbuf_addn(&b, '0', (size_t)missing);
    jbuf_add(&b, self.s->data + sign, self.s->size - sign);
    return jv_buf(&b);
}

METHOD(expandtabs)
{
    jint width = jv_to_int(r, jarg(a, 0, jv_int(8)), "expandtabs"), column = 0;
    if (width > 1000) jinja_fail(&r->m, VLM_LIMIT, "expandtabs: too wide");
    jbuf b = {.m = &r->m};
    for (size_t i = 0; i < self.s->size; i++) {
        char c = self.s->data[i];
        if (c == '\t') {
            jint n = width > 0 ? width - column % width : 0;
            jbuf_addn(&b, ' ', (size_t)n);
            column += n;
        } else {
            jbuf_addc(&b, c);
            column = c == '\n' || c == '\r' ? 0 : column + (((unsigned char)c & 0xC0) != 0x80);
        }
    }
    return jv_buf(&b);
}

METHOD(join)
{
    jlist *l = jv_iterate(r, a->v[0]);
    jbuf b = {.m = &r->m};
    for (size_t i = 0; i < l->count; i++) {
        if (self.markup) {
            if (i) jbuf_addstr(&b, self.s);
            jbuf_addstr(&b, jinja_escaped(r, l->item[i]));
            continue;
        }
        if (l->item[i].kind != J_STRING)
            jinja_fail(&r->m, VLM_FORMAT, "sequence item %zu: expected str instance, %s found", i, jv_type(l->item[i]));
        if (i) jbuf_addstr(&b, self.s);
        jbuf_addstr(&b, l->item[i].s);
    }
    return jv_buf(&b);
}

/* ---- questions about every character ---- */

static bool is_category(uint32_t c, unsigned set) { return set >> utf8proc_category((utf8proc_int32_t)c) & 1; }
#define BIT(k) (1u << UTF8PROC_CATEGORY_##k)
enum { LETTERS = BIT(LU) | BIT(LL) | BIT(LT) | BIT(LM) | BIT(LO), DIGITS = BIT(ND), NUMBERS = BIT(ND) | BIT(NL) | BIT(NO) };

static bool char_alpha(uint32_t c) { return is_category(c, LETTERS); }
static bool char_decimal(uint32_t c) { return is_category(c, DIGITS); }
static bool char_alnum(uint32_t c) { return is_category(c, LETTERS | NUMBERS) || jchar_is_numeric(c); }
static bool char_space(uint32_t c) { return jchar_is_space(c); }
bool jchar_is_alnum(uint32_t c) { return char_alnum(c); }
bool jchar_is_decimal(uint32_t c) { return char_decimal(c); }
static bool char_ascii(uint32_t c) { return c < 128; }

static jval all_chars(jval self, bool (*is)(uint32_t), bool empty)
{
    for (size_t i = 0; i < self.s->size;) {
        uint32_t c;
        i += utf8_next_lossy(self.s->data + i, self.s->size - i, &c);
        if (!is(c)) return jv_bool(false);
    }
    return jv_bool(self.s->size || empty);
}

METHOD(isalpha) { return all_chars(self, char_alpha, false); }
METHOD(isdigit) { return all_chars(self, jchar_is_digit, false); }
METHOD(isdecimal) { return all_chars(self, char_decimal, false); }
METHOD(isnumeric) { return all_chars(self, jchar_is_numeric, false); }
METHOD(isalnum) { return all_chars(self, char_alnum, false); }
METHOD(isspace) { return all_chars(self, char_space, false); }
METHOD(isascii) { return all_chars(self, char_ascii, true); }

METHOD(isprintable) { return all_chars(self, jchar_is_printable, true); }

/* A letter or _ first, then also digits and marks (near enough to XID_Start and XID_Continue). */
METHOD(isidentifier)
{
    for (size_t i = 0; i < self.s->size;) {
        uint32_t c;
        bool first = i == 0;
        i += utf8_next_lossy(self.s->data + i, self.s->size - i, &c);
        bool start = c == '_' || is_category(c, LETTERS | BIT(NL)), more = is_category(c, BIT(MN) | BIT(MC) | BIT(ND) | BIT(PC)) || c == 0xB7;
        if (!start && (first || !more)) return jv_bool(false);
    }
    return jv_bool(self.s->size);
}

METHOD(encode)
{
    const jstr *encoding = a->v[0].kind == J_MISSING ? NULL : text_arg(r, a, 0, "encode"), *errors = a->v[1].kind == J_MISSING ? NULL : text_arg(r, a, 1, "encode");
    char name[12] = "utf8";
    size_t n = 0;
    for (size_t i = 0; encoding && i < encoding->size && n < sizeof name - 1; i++)
        if (encoding->data[i] != '-' && encoding->data[i] != '_' && encoding->data[i] != ' ') name[n++] = (char)(encoding->data[i] | (encoding->data[i] >= 'A' && encoding->data[i] <= 'Z' ? 32 : 0));
    if (encoding) name[n] = 0;
    if (!strcmp(name, "utf8") || !strcmp(name, "u8")) return jv_bytes(&r->m, self.s->data, self.s->size);
    uint32_t top = !strcmp(name, "ascii") || !strcmp(name, "usascii") ? 128 : !strcmp(name, "latin1") || !strcmp(name, "iso88591") || !strcmp(name, "l1") ? 256 : 0;
    if (!top) jinja_fail(&r->m, VLM_UNSUPPORTED, "str.encode: encoding '%s' is not known", name);
    jbuf out = {.m = &r->m};
    for (size_t i = 0; i < self.s->size;) {
        uint32_t c;
        i += utf8_next_lossy(self.s->data + i, self.s->size - i, &c);
        if (c < top) jbuf_addc(&out, (char)c);
        else if (errors && jstr_is(errors, "replace")) jbuf_addc(&out, '?');
        else if (!errors || !jstr_is(errors, "ignore")) jinja_fail(&r->m, VLM_FORMAT, "'%s' codec can't encode character", name);
    }
    return jv_bytes(&r->m, out.data, out.size);
}

/* Some cased letter, and none of the other case. */
static jval one_case(jval self, bool upper)
{
    bool any = false;
    for (size_t i = 0; i < self.s->size;) {
        uint32_t c;
        i += utf8_next_lossy(self.s->data + i, self.s->size - i, &c);
        if (jchar_is_title(c) || (upper ? jchar_is_lower(c) : jchar_is_upper(c))) return jv_bool(false);
        any |= upper ? jchar_is_upper(c) : jchar_is_lower(c);
    }
    return jv_bool(any);
}

METHOD(isupper) { return one_case(self, true); }
METHOD(islower) { return one_case(self, false); }

/* Capitals only where a word begins, small letters only inside. */
METHOD(istitle)
{
    bool inside = false, any = false;
    for (size_t i = 0; i < self.s->size;) {
        uint32_t c;
        i += utf8_next_lossy(self.s->data + i, self.s->size - i, &c);
        bool capital = jchar_is_upper(c) || jchar_is_title(c), small = jchar_is_lower(c);
        if ((capital && inside) || (small && !inside)) return jv_bool(false);
        inside = capital || small;
        any |= inside;
    }
    return jv_bool(any);
}

static const jbuiltin methods[] = {
    {"upper", str_upper, 0, 0, ""}, {"lower", str_lower, 0, 0, ""}, {"casefold", str_casefold, 0, 0, ""}, {"capitalize", str_capitalize, 0, 0, ""},
    {"title", str_title, 0, 0, ""}, {"swapcase", str_swapcase, 0, 0, ""}, {"strip", str_strip, 0, 1, ""}, {"lstrip", str_lstrip, 0, 1, ""},
    {"rstrip", str_rstrip, 0, 1, ""}, {"split", str_split, 0, 2, "sep,maxsplit"}, {"rsplit", str_rsplit, 0, 2, "sep,maxsplit"},
    {"splitlines", str_splitlines, 0, 1, "keepends"}, {"partition", str_partition, 1, 1, ""}, {"rpartition", str_rpartition, 1, 1, ""},
    {"replace", str_replace, 2, 3, ""}, {"find", str_find, 1, 3, ""}, {"rfind", str_rfind, 1, 3, ""}, {"index", str_index, 1, 3, ""},
    {"rindex", str_rindex, 1, 3, ""}, {"count", str_count, 1, 3, ""}, {"startswith", str_startswith, 1, 3, ""}, {"endswith", str_endswith, 1, 3, ""},
    {"removeprefix", str_removeprefix, 1, 1, ""}, {"removesuffix", str_removesuffix, 1, 1, ""}, {"ljust", str_ljust, 1, 2, ""},
    {"rjust", str_rjust, 1, 2, ""}, {"center", str_center, 1, 2, ""}, {"zfill", str_zfill, 1, 1, ""}, {"expandtabs", str_expandtabs, 0, 1, "tabsize"},
    {"join", str_join, 1, 1, ""}, {"format", jinja_format_method, 0, -1, ""}, {"isalpha", str_isalpha, 0, 0, ""}, {"isdigit", str_isdigit, 0, 0, ""},
    {"isdecimal", str_isdecimal, 0, 0, ""}, {"isnumeric", str_isnumeric, 0, 0, ""}, {"isalnum", str_isalnum, 0, 0, ""},
    {"isspace", str_isspace, 0, 0, ""}, {"isascii", str_isascii, 0, 0, ""}, {"isupper", str_isupper, 0, 0, ""}, {"islower", str_islower, 0, 0, ""},
    {"istitle", str_istitle, 0, 0, ""}, {"isprintable", str_isprintable, 0, 0, ""}, {"isidentifier", str_isidentifier, 0, 0, ""},
    {"encode", str_encode, 0, 2, "encoding,errors"}, {"format_map", jinja_format_map_method, 1, 1, ""},
};

const jbuiltin *jinja_string_method(const jstr *name) { return jinja_find(methods, sizeof methods / sizeof *methods, name->data, name->size); }
