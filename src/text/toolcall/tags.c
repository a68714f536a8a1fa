/* tags.c - arguments in tags: <parameter=KEY>VALUE</parameter> and its many relatives.
 *
 * Values are raw text: nothing is escaped. A closing tag therefore ends a value only when what follows it can follow a value; else it is
 * quoted. Types come from the tool's schema (type.c). Nested tags (MiniMax M3) become objects and lists. */
#include "text/toolcall/internal.h"

enum { NEST_MAX = 64 };

void tags_prepare(toolcall_parser *p)
{
    const toolcall_format *f = p->f;
    if (f->spelling.arguments == TOOLCALL_NESTED) {
        marker_add(&p->value_set, f->tag_open, MARK_SECTION, 0);
        return;
    }
    marker_add(&p->value_set, f->tag_close, MARK_CLOSE, 0);
    marker_add(&p->value_set, f->tag_open, MARK_SECTION, 0);
    marker_add(&p->value_set, f->call_close, MARK_CALL, 0);
}

/* ---- values ---- */

/* &amp; and <![CDATA[...]]>; true when there was CDATA: then it is a string */
static bool decode_entities(const char *s, size_t n, buf *out)
{
    static const char *const entities[][2] = {{"&quot;", "\""}, {"&amp;", "&"}, {"&lt;", "<"}, {"&gt;", ">"}, {"&apos;", "'"}, {"&#39;", "'"}, {"&#34;", "\""}};
    bool cdata = false;
    for (size_t i = 0; i < n;) {
        if (n - i >= 12 && !memcmp(s + i, "<![CDATA[", 9)) {
            size_t end = bytes_find(s, n, i + 9, "]]>", 3);
            if (end != SIZE_MAX) {
                buf_add(out, s + i + 9, end - i - 9);
                i = end + 3;
                cdata = true;
                continue;
            }
        }
        size_t used = 0;
        for (size_t k = 0; k < sizeof entities / sizeof *entities && s[i] == '&' && !used; k++) {
            size_t m = strlen(entities[k][0]);
            if (n - i < m || memcmp(s + i, entities[k][0], m)) continue;
            buf_adds(out, entities[k][1]);
            used = m;
        }
        if (!used) buf_add(out, s + i, used = 1);
        i += used;
    }
    return cdata;
}

static unsigned declared_types(const toolcall_parser *p)
{
    const body *b = &p->b;
    if (b->type.size) {                                           /* the tag says it itself */
        if (!strcmp(b->type.data, "true") || !strcmp(b->type.data, "string")) return TYPE_STRING;
        return TYPE_INTEGER | TYPE_NUMBER | TYPE_BOOLEAN | TYPE_ARRAY | TYPE_OBJECT | TYPE_NULL;
    }
    const json_t *schema = tool_schema(p, p->c.name.data);
    return schema ? type_mask(schema, type_property(schema, schema, b->key.data ? b->key.data : "")) : 0;
}

static void add_key(toolcall_parser *p)
{
    buf *out = &p->c.arguments;
    if (out->size > 1) buf_adds(out, ", ");
    value_add_string(out, p->b.key.data ? p->b.key.data : "", p->b.key.size);
    buf_adds(out, ": ");
}

static void add_value(toolcall_parser *p, const char *text, size_t size)
{
    unsigned types = declared_types(p);
    uint32_t flags = p->b.type.size ? 0 : p->f->flags;
    buf decoded = {0};
    bool cdata = false;
    if (p->f->flags & ENTITIES) {
        cdata = decode_entities(text, size, &decoded);
        text = decoded.data ? decoded.data : "";
        size = decoded.size;
        if (cdata && (!types || types & TYPE_STRING)) types = TYPE_STRING;
    }
    add_key(p);
    type_value(types, flags, text, size, &p->c.arguments);
    buf_free(&decoded);
}

/* ---- nested tags ---- */

typedef struct nested { const char *s; size_t n, pos; const char *mark; size_t mark_size; const json_t *root; uint32_t flags; } nested;

/* Text up to the next tag; then 1: it opens (its name in *name), 2: it closes, 0: the end. */
static int next_tag(nested *x, size_t *text_end, const char **name, size_t *name_size)
{
    size_t at = bytes_find(x->s, x->n, x->pos, x->mark, x->mark_size);
    if (at == SIZE_MAX) {
        *text_end = x->pos = x->n;
        return 0;
    }
    *text_end = at;
    size_t from = at + x->mark_size, end = from;
    while (end < x->n && x->s[end] != '>') end++;
    x->pos = end < x->n ? end + 1 : x->n;
    if (from < x->n && x->s[from] == '/') return 2;
    *name = x->s + from;
    *name_size = end - from;
    return 1;
}

typedef struct nested_member { buf key, values; size_t count; } nested_member;
typedef struct nested_members { nested_member *item; size_t count, capacity; bool list; } nested_members;

/* The member of that name, new or old; a list has one for all. */
static nested_member *member_for(nested_members *m, const char *name, size_t size)
{
    size_t k = 0;
    while (!m->list && k < m->count && (m->item[k].key.size != size || memcmp(m->item[k].key.data, name, size))) k++;
    if (k < m->count) return &m->item[k];
    if (m->count == m->capacity) {
        size_t capacity = m->capacity ? m->capacity * 2 : 8;
        nested_member *more = mem_resize(m->item, capacity, sizeof *more);
        if (!more) return NULL;
        m->item = more;
        m->capacity = capacity;
    }
    m->item[m->count] = (nested_member){0};
    return buf_add(&m->item[m->count].key, name, size) ? &m->item[m->count++] : NULL;
}

static void write_members(const nested_members *m, buf *out)
{
    buf_addc(out, m->list ? '[' : '{');
    for (size_t k = 0; k < m->count; k++) {
        const nested_member *x = &m->item[k];
        bool several = !m->list && x->count > 1;
        if (k) buf_adds(out, ", ");
        if (!m->list) {
            value_add_string(out, x->key.data, x->key.size);
            buf_adds(out, ": ");
        }
        if (several) buf_addc(out, '[');
        if (x->values.data) buf_add(out, x->values.data, x->values.size);
        if (several) buf_addc(out, ']');
    }
    buf_addc(out, m->list ? ']' : '}');
}

/* The inside of a tag up to its closing one as JSON. Members with one name are a list; members named item are one, too. */
static bool nested_value(nested *x, const json_t *schema, int depth, buf *out)
{
    if (depth > NEST_MAX) return false;
    size_t from = x->pos, text_end, size = 0;
    const char *name = NULL;
    unsigned types = type_mask(x->root, schema);
    int tag = next_tag(x, &text_end, &name, &size);
    if (tag != 1) {
        if (text_end == from && types & (TYPE_ARRAY | TYPE_OBJECT) && !(types & TYPE_STRING)) return buf_adds(out, types & TYPE_ARRAY ? "[]" : "{}");
        return type_value(types, x->flags, x->s + from, text_end - from, out);
    }
    nested_members m = {.list = types ? !(types & TYPE_OBJECT) : size == 4 && !memcmp(name, "item", 4)};
    bool ok = true;
    for (; ok && tag == 1; tag = ok ? next_tag(x, &text_end, &name, &size) : 0) {
        nested_member *one = member_for(&m, name, size);
        if (!one) {
            ok = false;
            break;
        }
        buf key = {0};
        buf_add(&key, name, size);
        const json_t *inner = m.list ? type_items(x->root, schema) : type_property(x->root, schema, key.data ? key.data : "");
        if (one->count++) buf_adds(&one->values, ", ");
        ok = nested_value(x, inner, depth + 1, &one->values);
        buf_free(&key);
    }
    write_members(&m, out);
    for (size_t k = 0; k < m.count; k++) {
        buf_free(&m.item[k].key);
        buf_free(&m.item[k].values);
    }
    mem_free(m.item);
    return ok && !out->failed;
}

/* Looks for the closing tag of the argument; tags within are counted. */
static step_result nested_step(toolcall_parser *p)
{
    const toolcall_format *f = p->f;
    body *b = &p->b;
    size_t at, len;
    const marker *hit;
    for (;;) {
        if (!marker_search(p, &p->value_set, &at, &len, &hit)) return STEP_MORE;
        size_t end;
        if (at + len >= p->in.size) return STEP_MORE;
        bool closes = p->in.data[at + len] == '/';
        if (!closes) b->depth++;
        if (closes && b->depth-- == 0) {
            int m = head_find(p, at + len, f->tag_end, false, &end, &len);
            b->depth = 0;
            if (m < 0) return STEP_MORE;
            if (!m) return STEP_FAILED;
            const json_t *schema = tool_schema(p, p->c.name.data);
            nested x = {.s = p->in.data + p->pos, .n = at - p->pos, .mark = f->tag_open, .mark_size = strlen(f->tag_open), .root = schema,
                        .flags = schema ? 0 : f->flags};
            add_key(p);
            if (!nested_value(&x, type_property(schema, schema, b->key.data ? b->key.data : ""), 0, &p->c.arguments)) return STEP_FAILED;
            p->pos = p->scan = at + strlen(f->tag_open) + end + len;
            b->state = BODY_TAG;
            b->key_seen = true;
            return STEP_ON;
        }
        p->scan = at + 1;
    }
}

/* ---- tags ---- */

/* What may follow a value's closing tag (or, call: a call's): 1, 0, -1 */
static int may_follow(toolcall_parser *p, size_t at, bool after_call)
{
    const toolcall_format *f = p->f;
    const char *texts[16];
    int n = 0, result = 0;
    if (!after_call) {
        texts[n++] = f->tag_open;
        if (f->call_close) texts[n++] = f->call_close;
    }
    for (int i = 0; i < 5 && f->sections[i].open; i++) {
        if (f->sections[i].close) texts[n++] = f->sections[i].close;
        if (after_call) texts[n++] = f->sections[i].open;
    }
    if (after_call && f->call_open) texts[n++] = f->call_open;
    at = skip_space(p, at);
    if (at >= p->in.size) return p->final ? 1 : -1;
    size_t len;
    for (int i = 0; i < n; i++) {
        int m = marker_at(p, texts[i], at, &len);
        if (m > 0) return 1;
        if (m < 0) result = -1;
    }
    for (int i = 0; i < 6 && f->between[i]; i++) {
        int m = marker_at(p, f->between[i], at, &len);
        if (m > 0) return 1;
        if (m < 0) result = -1;
    }
    if (!result && after_call && p->b.section < 0) return 1;
    return result;
}

/* The word null, or the beginning of it, and nothing else so far? */
static bool may_be_null(const char *s, size_t n)
{
    while (n && is_space(*s)) s++, n--;
    size_t k = n < 4 ? n : 4;
    if (k && memcmp(s, "null", k)) return false;
    for (s += k, n -= k; n; s++, n--)
        if (!is_space(*s)) return false;
    return true;
}

/* Eager: a value that is certain to be a string goes out as it comes; a newline at its end may belong to the markup. */
static void stream_value(toolcall_parser *p, size_t end)
{
    body *b = &p->b;
    const char *s = p->in.data + p->pos;
    size_t n = end - p->pos;
    if (!p->options.eager || p->f->flags & ENTITIES) return;
    if (!b->value_streams) {
        if (b->value_told || declared_types(p) != TYPE_STRING || (p->f->flags & WORD_NULL && may_be_null(s, n))) return;
        b->value_streams = true;
        add_key(p);
        buf_addc(&p->c.arguments, '"');
        p->c.arguments_known = true;
    }
    if (p->f->flags & LINE_VALUES) while (n && (s[n - 1] == '\n' || s[n - 1] == '\r')) n--;
    if (n <= b->value_told) return;
    value_add_escaped(&p->c.arguments, s + b->value_told, n - b->value_told);
    b->value_told = n;
}

static void end_value(toolcall_parser *p, size_t end)
{
    body *b = &p->b;
    size_t n = end - p->pos;
    const char *s = p->in.data + p->pos;
    if (p->f->flags & LINE_VALUES && n && s[n - 1] == '\n') {
        n--;
        if (n && s[n - 1] == '\r') n--;
    }
    if (b->value_streams) {
        if (n > b->value_told) value_add_escaped(&p->c.arguments, s + b->value_told, n - b->value_told);
        buf_addc(&p->c.arguments, '"');
    }
    else add_value(p, s, n);
    b->value_streams = false;
    b->value_told = 0;
    b->key_seen = true;
    b->state = BODY_TAG;
    if (p->options.eager) p->c.arguments_known = true;
}

step_result tags_value_step(toolcall_parser *p)
{
    const toolcall_format *f = p->f;
    body *b = &p->b;
    if (b->step == 0) {                                           /* before the value */
        size_t at = p->pos, len;
        if (f->value_open) {
            at = skip_space(p, at);
            if (at >= p->in.size) return STEP_MORE;
            int m = marker_at(p, f->value_open, at, &len);
            if (m <= 0) return m < 0 ? STEP_MORE : STEP_FAILED;
            at += len;
        }
        if (f->flags & LINE_VALUES) {
            if (at >= p->in.size || (p->in.data[at] == '\r' && at + 1 >= p->in.size)) return STEP_MORE;
            if (p->in.data[at] == '\r' && p->in.data[at + 1] == '\n') at += 2;
            else if (p->in.data[at] == '\n') at++;
        }
        p->pos = p->scan = at;
        b->step = 1;
        b->depth = 0;
        b->value_told = 0;
        b->value_streams = false;
    }
    if (f->spelling.arguments == TOOLCALL_NESTED) return nested_step(p);
    for (;;) {
        size_t at, len;
        const marker *hit;
        int found = marker_search(p, &p->value_set, &at, &len, &hit);
        if (!found) {
            stream_value(p, at);
            return STEP_MORE;
        }
        int ends = hit->kind == MARK_SECTION ? 1 : may_follow(p, at + len, hit->kind == MARK_CALL);
        if (ends < 0) {
            stream_value(p, at);
            return STEP_MORE;
        }
        if (!ends) {
            p->scan = at + 1;
            continue;
        }
        end_value(p, at);
        p->pos = p->scan = hit->kind == MARK_CLOSE ? at + len : at;
        return STEP_ON;
    }
}

static step_result end_call(toolcall_parser *p, size_t pos)
{
    buf_addc(&p->c.arguments, '}');
    p->pos = pos;
    call_commit(p);
    return STEP_ON;
}

/* The key in a tag's head */
static step_result read_key(toolcall_parser *p, size_t from)
{
    const toolcall_format *f = p->f;
    body *b = &p->b;
    size_t n, len;
    int m = head_find(p, from, f->tag_end, true, &n, &len);
    if (m <= 0) return m < 0 ? STEP_MORE : STEP_FAILED;
    const char *head = p->in.data + from;
    buf_clear(&b->key);
    buf_clear(&b->type);
    p->pos = from + n + len;
    if (f->key_attribute) {
        if (!head_attribute(head, n, f->key_attribute, &b->key)) return STEP_FAILED;
        if (f->type_attribute) head_attribute(head, n, f->type_attribute, &b->type);
    }
    else {
        while (n && (is_space(*head) || strchr("\"'=", *head))) head++, n--;
        while (n && (is_space(head[n - 1]) || strchr("\"'", head[n - 1]))) n--;
        buf_add(&b->key, head, n);
    }
    if (!b->key.size) return STEP_FAILED;
    b->state = BODY_VALUE;
    b->step = 0;
    return STEP_ON;
}

step_result tags_step(toolcall_parser *p)
{
    const toolcall_format *f = p->f;
    body *b = &p->b;
    if (!p->c.arguments.size) buf_addc(&p->c.arguments, '{');
    size_t at = skip_space(p, p->pos), len;
    const char *close = b->section < 0 ? NULL : f->sections[b->section].close;
    if (at >= p->in.size) {
        if (p->final && !f->call_close && (b->key_seen || b->name_ended) && !p->length) return end_call(p, at);
        return STEP_MORE;
    }
    int end = f->call_close ? marker_at(p, f->call_close, at, &len) : 0;
    if (end > 0) return end_call(p, at + len);
    int over = close ? marker_at(p, close, at, &len) : 0;
    if (over > 0) return end_call(p, at);
    int whole = f->whole_open ? marker_at(p, f->whole_open, at, &len) : 0;
    if (whole > 0) {
        size_t n, end_len;
        int m = head_find(p, at + len, f->tag_end, false, &n, &end_len);
        if (m <= 0) return m < 0 ? STEP_MORE : STEP_FAILED;
        p->pos = at + len + n + end_len;
        buf_clear(&p->c.arguments);
        b->state = BODY_ARGUMENTS;
        b->step = 0;
        return STEP_ON;
    }
    int tag = marker_at(p, f->tag_open, at, &len);
    if (end < 0 || over < 0 || whole < 0 || tag < 0) return STEP_MORE;
    return tag ? read_key(p, at + len) : STEP_FAILED;
}
