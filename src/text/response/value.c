/* value.c - what is in a region of a response template: text, numbers, JSON and its dialects, tags, lines of pairs. Values are JSON texts. */
#include "text/response/internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

enum { NEST_MAX = 32 };

void strip_text(const char **text, size_t *size)
{
    while (*size && (is_space(**text) || (**text >= 0x1c && **text <= 0x1f))) (*text)++, (*size)--;
    for (uint32_t code; *size && (unsigned char)**text >= 0x80;) {
        size_t used = utf8_next_lossy(*text, *size, &code);
        if (!unicode_is_space(code)) break;
        *text += used;
        *size -= used;
        while (*size && is_space(**text)) (*text)++, (*size)--;
    }
    while (*size) {
        size_t n = 1;
        while (n < *size && n < 4 && ((unsigned char)(*text)[*size - n] & 0xC0) == 0x80) n++;
        uint32_t code;
        utf8_next_lossy(*text + *size - n, n, &code);
        if (!(code < 0x80 ? is_space((char)code) || (code >= 0x1c && code <= 0x1f) : unicode_is_space(code))) break;
        *size -= n;
    }
}

/* ---- walking through JSON text ---- */

static size_t skip_value(const char *s, size_t n, size_t at)
{
    int depth = 0;
    for (; at < n; at++) {
        char c = s[at];
        if (c == '"') {
            for (at++; at < n && s[at] != '"'; at++)
                if (s[at] == '\\') at++;
        }
        else if (c == '{' || c == '[') depth++;
        else if (c == '}' || c == ']') {
            if (depth == 0) return at;
            depth--;
        }
        else if (depth == 0 && (c == ',' || c == ':')) return at;
        if (depth == 0 && (c == '"' || c == '}' || c == ']')) return at + 1;
    }
    return n;
}

bool json_item_next(const char *json, size_t size, size_t *at, json_item *item)
{
    size_t i = *at;
    if (i == 0) {
        while (i < size && json[i] != '{' && json[i] != '[') i++;
        i++;
    }
    while (i < size && (is_space(json[i]) || json[i] == ',')) i++;
    if (i >= size || json[i] == '}' || json[i] == ']') return false;
    *item = (json_item){.value = json + i};
    size_t end = skip_value(json, size, i), colon = end;
    while (colon < size && is_space(json[colon])) colon++;
    if (colon < size && json[colon] == ':') {
        item->key = json + i;
        item->key_size = end - i;
        for (i = colon + 1; i < size && is_space(json[i]);) i++;
        end = skip_value(json, size, i);
        item->value = json + i;
    }
    item->value_size = end - i;
    while (item->value_size && is_space(item->value[item->value_size - 1])) item->value_size--;
    *at = end;
    return true;
}

bool response_json_member(const char *json, size_t size, const char *key, json_item *item)
{
    buf text = {0};
    bool found = false;
    json_item each;
    for (size_t at = 0; size && json[0] == '{' && json_item_next(json, size, &at, &each);) {
        buf_clear(&text);
        if (!value_decode_string(each.key, each.key_size, &text) || strcmp(text.data ? text.data : "", key)) continue;
        *item = each;                                             /* the last one counts */
        found = true;
    }
    buf_free(&text);
    return found;
}

/* json.loads: no control characters in strings */
bool response_strict_json(const char *text, size_t size, buf *out)
{
    bool quoted = false;
    for (size_t i = 0; i < size; i++) {
        if (text[i] == '"') quoted = !quoted;
        else if (quoted && text[i] == '\\') i++;
        else if (quoted && (unsigned char)text[i] < 0x20) return false;
        else if (!quoted && (text[i] == '\v' || text[i] == '\f')) return false;
    }
    return value_whole(VALUE_JSON, false, text, size, out);
}

/* ---- readers ---- */

typedef struct response_reading reading;
static bool read_content(reading *r, const char *name, const json_t *args, const char *text, size_t size, int depth, buf *out);

static bool read_text(const json_t *args, const char *text, size_t size, buf *out)
{
    if (!json_is_false(json_object_get(args, "strip"))) strip_text(&text, &size);
    return value_add_string(out, text, size);
}

bool response_is_word(const char *s, size_t n, size_t *used)
{
    uint32_t code;
    *used = utf8_next_lossy(s, n, &code);
    return code < 0x80 ? is_letter((char)code) || is_digit((char)code) : code != 0xFFFD && !unicode_is_space(code) && code != 0xFF1A;
}

/* {key: -> {"key":, also after a comma */
static bool quote_keys(const buf *in, buf *out)
{
    for (size_t i = 0; i < in->size;) {
        size_t end = i, used;
        bool place = i && (in->data[i - 1] == '{' || in->data[i - 1] == ',');
        while (place && end < in->size && response_is_word(in->data + end, in->size - end, &used)) end += used;
        if (end > i && end < in->size && in->data[end] == ':') {
            buf_addc(out, '"');
            buf_add(out, in->data + i, end - i);
            buf_adds(out, "\":");
            i = end + 1;
            continue;
        }
        buf_addc(out, in->data[i++]);
    }
    return !out->failed;
}

/* Strings between own delimiters are put aside as \1 number \2, and back later as JSON strings. */
static bool put_aside(const json_t *delims, const char *text, size_t size, buf *out, buf **strings, size_t *count)
{
    buf now = {0};
    buf_add(&now, text, size);
    for (size_t d = 0; d < json_array_size(delims); d++) {
        const char *open = json_string_value(json_array_get(json_array_get(delims, d), 0)), *close = json_string_value(json_array_get(json_array_get(delims, d), 1));
        if (!open || !close || !*open) continue;
        buf next = {0};
        size_t at = 0;
        for (;;) {
            size_t from = bytes_find(now.data, now.size, at, open, strlen(open));
            size_t end = from == SIZE_MAX ? SIZE_MAX : bytes_find(now.data, now.size, from + strlen(open), close, strlen(close));
            if (end == SIZE_MAX) break;
            buf *more = mem_resize(*strings, *count + 1, sizeof **strings);
            if (!more) break;
            *strings = more;
            more[*count] = (buf){0};
            value_add_string(&more[*count], now.data + from + strlen(open), end - from - strlen(open));
            buf_add(&next, now.data + at, from - at);
            buf_addf(&next, "\1%zu\2", (*count)++);
            at = end + strlen(close);
        }
        buf_add(&next, now.data + at, now.size - at);
        buf_free(&now);
        now = next;
    }
    bool ok = !now.failed && buf_add(out, now.data ? now.data : "", now.size);
    buf_free(&now);
    return ok;
}

static bool put_back(const buf *in, const buf *strings, size_t count, buf *out)
{
    for (size_t i = 0; i < in->size; i++) {
        if (in->data[i] != '\1') {
            buf_addc(out, in->data[i]);
            continue;
        }
        size_t k = 0;
        for (i++; i < in->size && is_digit(in->data[i]) && k < count; i++) k = k * 10 + (size_t)(in->data[i] - '0');
        if (k < count) buf_add(out, strings[k].data, strings[k].size);
    }
    return !out->failed;
}

static bool read_json(reading *r, const json_t *args, const char *text, size_t size, buf *out)
{
    const json_t *delims = json_object_get(args, "string_delims");
    buf work = {0}, quoted = {0}, whole = {0}, *strings = NULL;
    size_t count = 0, before = out->size;
    bool special = json_array_size(delims) > 0;
    bool reserved = special && (memchr(text, 1, size) || memchr(text, 2, size));
    bool ok = !reserved && (special ? put_aside(delims, text, size, &work, &strings, &count) : buf_add(&work, text, size));
    if (ok && json_is_true(json_object_get(args, "unquoted_keys"))) {
        ok = quote_keys(&work, &quoted);
        buf swap = work;
        work = quoted;
        quoted = swap;
    }
    ok = ok && (special ? put_back(&work, strings, count, &whole) : buf_add(&whole, work.data ? work.data : "", work.size));
    ok = ok && response_strict_json(whole.data ? whole.data : "", whole.size, out);
    for (size_t i = 0; i < count; i++) buf_free(&strings[i]);
    mem_free(strings);
    buf_free(&work);
    buf_free(&quoted);
    buf_free(&whole);
    if (ok) return true;
    out->size = before;
    if (!reserved && json_is_true(json_object_get(args, "allow_non_json"))) return read_text(args, text, size, out);
    return err_set(r->error, VLM_FORMAT, "field '%s': no JSON: %.*s", r->f->name, (int)(size < 200 ? size : 200), text);
}

static bool read_by(reading *r, const json_t *parser, const char *text, size_t size, int depth, buf *out)
{
    if (!json_is_object(parser)) return value_add_string(out, text, size);
    const char *name = json_string_value(json_object_get(parser, "name"));
    return read_content(r, name ? name : "text", json_object_get(parser, "args"), text, size, depth + 1, out);
}

/* Members in order of their first appearance. */
typedef struct members { json_t *values; bool merge; } members;      /* key -> text of the value; merged ones begin with \1 */

static bool add_member(members *m, const char *key, size_t key_size, const buf *value)
{
    const json_t *old = json_object_getn(m->values, key, key_size);
    buf text = {0};
    if (old && m->merge) {
        const char *before = json_string_value(old);
        bool list = before[0] == '\1';
        buf_addc(&text, '\1');
        buf_adds(&text, before + list);
        buf_adds(&text, ", ");
    }
    buf_add(&text, value->data ? value->data : "null", value->data ? value->size : 4);
    bool ok = !text.failed && json_object_setn_new_nocheck(m->values, key, key_size, json_stringn_nocheck(text.data, text.size)) == 0;
    buf_free(&text);
    return ok;
}

static bool write_members(const members *m, buf *out)
{
    const char *key;
    json_t *value;
    size_t key_size;
    bool first = true;
    buf_addc(out, '{');
    json_object_keylen_foreach(m->values, key, key_size, value) {
        if (!first) buf_adds(out, ", ");
        first = false;
        value_add_string(out, key, key_size);
        buf_adds(out, ": ");
        const char *text = json_string_value(value);
        bool list = text[0] == '\1';
        if (list) buf_addc(out, '[');
        buf_adds(out, text + list);
        if (list) buf_addc(out, ']');
    }
    return buf_addc(out, '}');
}

typedef struct tag_groups { const char *key, *value; size_t key_size, value_size; } tag_groups;

static void take_group(void *user, const char *name, const char *text, size_t size)
{
    tag_groups *g = user;
    if (!strcmp(name, "key")) g->key = text, g->key_size = size;
    if (!strcmp(name, "value")) g->value = text, g->value_size = size;
}

static bool read_tags(reading *r, const json_t *args, const char *text, size_t size, int depth, buf *out)
{
    const json_t *parser = json_object_get(args, "value_parser");
    members m = {.values = json_object(), .merge = json_is_true(json_object_get(args, "merge_duplicates"))};
    pattern *own = NULL, *tag = depth == 0 ? r->f->tag : NULL;
    const char *source = json_string_value(json_object_get(args, "tag_pattern"));
    if (!tag && source) tag = own = pattern_new("tag_pattern", source, NULL, r->error);
    bool ok = tag && m.values;
    for (size_t at = 0; ok && at <= size;) {
        pattern_hit hit;
        buf value = {0};
        tag_groups g = {.value = ""};
        ok = pattern_find(tag, text, size, at, false, &hit, r->error);
        if (!ok || !hit.found) break;
        pattern_groups(tag, text, take_group, &g);
        if (!g.key) ok = err_set(r->error, VLM_FORMAT, "field '%s': tag_pattern without a group 'key'", r->f->name);
        ok = ok && read_by(r, parser, g.value, g.value_size, depth, &value) && add_member(&m, g.key, g.key_size, &value);
        buf_free(&value);
        at = hit.to > hit.from ? hit.to : hit.to + 1;
        while (at < size && ((unsigned char)text[at] & 0xC0) == 0x80) at++;
    }
    ok = ok && write_members(&m, out);
    json_decref(m.values);
    pattern_free(own);
    return ok;
}

static bool read_lines(reading *r, const json_t *args, const char *text, size_t size, int depth, buf *out)
{
    const char *line_sep = json_string_value(json_object_get(args, "line_sep")), *kv_sep = json_string_value(json_object_get(args, "kv_sep"));
    if (!line_sep || !*line_sep) line_sep = "\n";
    if (!kv_sep || !*kv_sep) kv_sep = ":";
    members m = {.values = json_object()};
    bool ok = m.values != NULL;
    for (size_t at = 0; ok && at <= size;) {
        size_t end = bytes_find(text, size, at, line_sep, strlen(line_sep));
        if (end == SIZE_MAX) end = size;
        const char *line = text + at;
        size_t n = end - at;
        at = end + strlen(line_sep);
        strip_text(&line, &n);
        size_t sep = bytes_find(line, n, 0, kv_sep, strlen(kv_sep));
        if (!n || sep == SIZE_MAX) continue;
        const char *key = line, *value = line + sep + strlen(kv_sep);
        size_t key_size = sep, value_size = n - sep - strlen(kv_sep);
        strip_text(&key, &key_size);
        strip_text(&value, &value_size);
        buf one = {0};
        ok = read_by(r, json_object_get(args, "value_parser"), value, value_size, depth, &one) && add_member(&m, key, key_size, &one);
        buf_free(&one);
    }
    ok = ok && write_members(&m, out);
    json_decref(m.values);
    return ok;
}

/* int() and float() of a text; the number as JSON. */
bool response_add_number(const char *text, size_t size, bool whole, bool from_float, buf *out)
{
    char copy[400], *end;
    strip_text(&text, &size);
    if (!size || size >= sizeof copy) return false;
    size_t n = 0;
    for (size_t i = 0; i < size; i++)
        if (text[i] != '_' || i == 0 || i + 1 == size || !is_digit(text[i - 1]) || !is_digit(text[i + 1])) copy[n++] = text[i];
    copy[n] = 0;
    const char *digits = copy + (copy[0] == '+' || copy[0] == '-');
    if (strspn(digits, "0123456789") == strlen(digits) && *digits) {      /* any length */
        while (digits[0] == '0' && digits[1]) digits++;
        return (copy[0] != '-' || buf_addc(out, '-')) && buf_adds(out, digits);
    }
    if (whole && !from_float) return false;
    if (strspn(digits, "0123456789.eE+-") != strlen(digits)) return false;
    double value = strtod(copy, &end);
    if (*end || end == copy || !isfinite(value)) return false;
    bool integral = value == floor(value);
    if (whole && !integral) return false;
    if (integral && (whole || !strchr(copy, '.'))) return buf_addf(out, "%.0f", value);
    for (int precision = 15; precision <= 17; precision++) {
        snprintf(copy, sizeof copy, "%.*g", precision, value);
        if (strtod(copy, NULL) == value) break;
    }
    return buf_adds(out, copy) && (strpbrk(copy, ".e") || buf_adds(out, ".0"));
}

bool response_is_one_of(const char *text, size_t size, const char *a, const char *b)
{
    strip_text(&text, &size);
    return (size == strlen(a) && !strncasecmp(text, a, size)) || (size == strlen(b) && !strncasecmp(text, b, size));
}

bool response_content_known(const char *name)
{
    return response_content_streams(name) || !strcmp(name, "json") || !strcmp(name, "xml-inline") || !strcmp(name, "kv-lines");
}

bool response_content_streams(const char *name) { return !strcmp(name, "text") || !strcmp(name, "int") || !strcmp(name, "float") || !strcmp(name, "bool"); }

static bool read_content(reading *r, const char *name, const json_t *args, const char *text, size_t size, int depth, buf *out)
{
    if (depth > NEST_MAX) return err_set(r->error, VLM_LIMIT, "field '%s': nested too deep", r->f->name);
    if (!strcmp(name, "text")) return read_text(args, text, size, out);
    if (!strcmp(name, "json")) return read_json(r, args, text, size, out);
    if (!strcmp(name, "xml-inline")) return read_tags(r, args, text, size, depth, out);
    if (!strcmp(name, "kv-lines")) return read_lines(r, args, text, size, depth, out);
    if (!strcmp(name, "bool")) return buf_adds(out, response_is_one_of(text, size, "true", "1") ? "true" : "false");
    if (response_add_number(text, size, !strcmp(name, "int"), false, out)) return true;
    return err_set(r->error, VLM_FORMAT, "field '%s': no %s: %.*s", r->f->name, name, (int)(size < 100 ? size : 100), text);
}

bool response_content(response_reading *r, const char *text, size_t size, buf *out) { return read_content(r, r->f->content, r->f->args, text, size, 0, out); }
