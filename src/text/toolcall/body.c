/* body.c - sections with calls: what stands between calls, their names, what is complete and what was none.
 *
 *     BODY_NEXT  ->  BODY_NAME -> BODY_ARGUMENTS | BODY_TAG <-> BODY_VALUE     a call with its name outside of the arguments
 *                ->  BODY_OBJECT                                             a JSON object
 *                ->  BODY_PYTHON                                             NAME(KEY=VALUE, ...)
 *     and back to BODY_NEXT, until the section ends. */
#include "text/toolcall/internal.h"

enum { NAME_MAX_BYTES = 256, HEAD_MAX = 2048, DEBT_MIN = 1 << 16 };

/* ---- calls ---- */

static void call_clear(call *c)
{
    buf_clear(&c->name);
    buf_clear(&c->id);
    buf_clear(&c->arguments);
    c->arguments_known = c->started = false;
    c->told = 0;
}

void call_free(call *c)
{
    buf_free(&c->name);
    buf_free(&c->id);
    buf_free(&c->arguments);
}

bool name_valid(const char *name, size_t n)
{
    if (!n || n > NAME_MAX_BYTES) return false;
    for (size_t i = 0; i < n; i++)
        if (!is_name(name[i])) return false;
    return true;
}

static const json_t *tool_find(const toolcall_parser *p, const char *name)
{
    size_t i;
    json_t *tool;
    json_array_foreach(p->tools, i, tool) {
        const json_t *function = json_object_get(tool, "function");
        const json_t *t = json_is_object(function) ? function : tool;
        const char *known = json_string_value(json_object_get(t, "name"));
        if (known && name && !strcmp(known, name)) return t;
    }
    return NULL;
}

bool tool_known(const toolcall_parser *p, const char *name) { return tool_find(p, name) != NULL; }

const json_t *tool_schema(const toolcall_parser *p, const char *name)
{
    const json_t *t = tool_find(p, name), *schema = json_object_get(t, "parameters");
    return schema ? schema : json_object_get(t, "input_schema");
}

/* Eager: a call that may still turn out to be ordinary text is not told. */
void call_tell(toolcall_parser *p)
{
    call *c = &p->c;
    if (!c->arguments_known || !c->name.size || p->b.deferred) return;
    if (p->b.section < 0 && p->f->flags & (BARE_OBJECTS | BARE_LISTS) && !tool_known(p, c->name.data)) return;
    if (!c->started) {
        out_call_start(p);
        c->started = true;
    }
    size_t end = c->arguments.size;
    uint32_t code;
    for (size_t i = end > 4 && end - 4 > c->told ? end - 4 : c->told; i < end;) {    /* whole characters */
        size_t used = utf8_next(c->arguments.data + i, end - i, &code);
        if (!used) end = i;
        i += used;
    }
    if (end <= c->told) return;
    out_event_add(p, TOOLCALL_ARGUMENTS_DELTA, c->arguments.data + c->told, end - c->told);
    c->told = end;
}

void call_commit(toolcall_parser *p)
{
    call *c = &p->c;
    if (!c->arguments.size) buf_adds(&c->arguments, "{}");
    if (!c->started) out_call_start(p);
    if (c->arguments.size > c->told)
        out_event_add(p, TOOLCALL_ARGUMENTS_DELTA, c->arguments.data + c->told, c->arguments.size - c->told);
    out_event_add(p, TOOLCALL_END, "", 0);
    call_clear(c);
    p->b.calls++;
    p->b.last_end = p->pos;
    p->b.state = BODY_NEXT;
    p->b.step = 0;
    p->visible_text = true;
}

/* ---- sections ---- */

void body_free(body *b)
{
    buf_free(&b->key);
    buf_free(&b->value);
    buf_free(&b->type);
    value_free(&b->reader);
}

void body_open(toolcall_parser *p, int section, size_t len)
{
    body *b = &p->b;
    b->state = BODY_NEXT;
    b->section = section;
    b->start = b->call_start = p->pos;
    b->open_end = p->pos + len;
    b->calls = 0;
    b->calls_before = p->calls;
    b->lists = b->step = 0;
    b->deferred = b->known_only = false;
    call_clear(&p->c);
    p->pos = b->open_end;
    size_t n = section >= 0 && len ? strlen(p->f->sections[section].open) : 0;
    if (n && strchr("[{", p->f->sections[section].open[n - 1])) p->pos--;          /* the bracket belongs to the calls */
    p->mode = MODE_BODY;
}

static const char *section_close(const toolcall_parser *p) { return p->b.section < 0 ? NULL : p->f->sections[p->b.section].close; }

static step_result to_text(toolcall_parser *p)
{
    p->mode = MODE_TEXT;
    p->b.deferred = false;
    if (p->scan < p->pos) p->scan = p->pos;
    return STEP_ON;
}

/* The section is over; its end marker was seen, or may still come. */
static step_result body_end(toolcall_parser *p, bool closed)
{
    if (!closed) p->stray_close = true;
    return to_text(p);
}

/* Calls of a bare list that were not told yet. */
static void take_back(toolcall_parser *p)
{
    p->queue.count = p->queue.visible;
    p->calls = p->b.calls_before;
    p->b.calls = 0;
}

/* What was read is no call. Without complete calls before it, the text from the section's opening on is text, and calls are looked for
 * behind the opening: what is read twice in that way is bounded, so that time stays linear. */
static step_result body_fail(toolcall_parser *p)
{
    body *b = &p->b;
    if (p->options.eager) call_tell(p);
    if (p->c.started) {                                           /* told already; it stays as far as it went */
        out_event_add(p, TOOLCALL_END, "", 0);
        call_clear(&p->c);
        b->calls++;
        b->last_end = p->pos;
        b->state = BODY_NEXT;
        if (!p->final) return STEP_ON;                            /* brackets and the end marker may follow */
        p->scan = p->pos = p->in.size;
        return body_end(p, false);
    }
    if (b->deferred && !(p->final && b->calls)) take_back(p);
    call_clear(&p->c);
    if (b->calls && p->final) {                                   /* calls, and then part of one */
        p->pos = p->scan = p->in.size;
        return body_end(p, true);
    }
    size_t from = b->calls ? b->last_end : b->start, end = b->calls ? b->call_start + 1 : b->open_end, read = p->pos;
    if (end <= from) end = from + 1;
    if (end > p->in.size) end = p->in.size;
    if (read > end) p->debt += read - end;
    if (p->debt > DEBT_MIN + 8 * (p->base + read) && read > end) end = read;
    if (p->final) p->closed = true;
    p->pos = from;
    p->scan = end;                                                /* up to here no marker is looked for */
    p->visible_text = true;
    if (b->calls) p->stray_close = true;
    return to_text(p);
}

/* ---- between calls ---- */

/* 1: one of the marker texts stands at `at`, the longest; 0; -1. */
static int any_marker(toolcall_parser *p, const char *const *texts, int count, size_t at, size_t *len)
{
    bool maybe = false;
    *len = 0;
    for (int i = 0; i < count && texts[i]; i++) {
        size_t n;
        int m = marker_at(p, texts[i], at, &n);
        if (m < 0) maybe = true;
        if (m > 0 && n > *len) *len = n;
    }
    return maybe ? -1 : *len > 0;
}

static void begin_call(toolcall_parser *p, body_state state, size_t at)
{
    p->b.state = state;
    p->b.step = 0;
    p->b.key_seen = p->b.name_ended = false;
    p->b.call_start = at;
}

/* A bare list of calls counts when nothing, or a new line, follows it, or when its tools are known. */
static step_result bare_list_end(toolcall_parser *p, size_t at)
{
    size_t next = at;
    while (next < p->in.size && (p->in.data[next] == ' ' || p->in.data[next] == '\t')) next++;
    if (next >= p->in.size && !p->final) return STEP_MORE;
    bool known = true;
    for (size_t i = p->queue.visible; i < p->queue.count; i++)
        if (p->queue.item[i].type == TOOLCALL_START && !tool_known(p, p->queue.text.data + p->queue.item[i].name)) known = false;
    if (!known && (p->b.known_only || (next < p->in.size && !strchr("\n\r<", p->in.data[next])))) {
        take_back(p);
        return STEP_FAILED;
    }
    p->pos = at;
    return body_end(p, true);
}

static step_result list_step(toolcall_parser *p, size_t at)
{
    body *b = &p->b;
    if (p->in.data[at] == '[') b->lists++;
    else if (b->section >= 0) b->lists--;
    else return b->calls ? bare_list_end(p, at + 1) : STEP_FAILED;
    p->pos = at + 1;
    return STEP_ON;
}

/* What may begin a call stands at `at`. STEP_FAILED: nothing of the kind. */
static step_result call_step(toolcall_parser *p, size_t at, bool open_ended)
{
    body *b = &p->b;
    uint32_t flags = p->f->flags;
    char c = p->in.data[at];
    body_state state = BODY_NEXT;
    if (flags & (READ_OBJECTS | READ_PYTHON) && (c == '[' ? !b->lists && !open_ended : c == ']' && b->lists)) return list_step(p, at);
    if (flags & READ_OBJECTS && c == '{') state = BODY_OBJECT;
    else if (flags & READ_PYTHON && (b->section >= 0 || b->lists) && (is_letter(c) || (unsigned char)c >= 0x80)) state = BODY_PYTHON;
    else if (flags & READ_NAMED && !p->f->call_open && is_name(c) && !open_ended) state = BODY_NAME;
    if (state == BODY_NEXT) return STEP_FAILED;
    begin_call(p, state, at);
    p->pos = at;
    return STEP_ON;
}

/* The text ends between calls. */
static step_result next_is_missing(toolcall_parser *p, bool open_ended)
{
    if (open_ended && !(p->f->flags & (READ_OBJECTS | BARE_CALLS))) return body_end(p, true);
    if (!p->final) return STEP_MORE;
    if (!p->b.calls) return STEP_FAILED;
    p->pos = p->in.size;
    return body_end(p, true);
}

/* Between calls: where the next begins, or the end. */
static step_result next_step(toolcall_parser *p)
{
    body *b = &p->b;
    const toolcall_format *f = p->f;
    size_t at = skip_space(p, p->pos), len = 0;
    const char *close = section_close(p);
    bool open_ended = !close && !b->lists && b->calls;            /* the section may have ended with the last call */
    if (at < p->in.size && b->calls && strchr(",;", p->in.data[at])) at = skip_space(p, at + 1);
    if (at >= p->in.size) return next_is_missing(p, open_ended);
    int closed = close ? marker_at(p, close, at, &len) : 0;
    if (closed > 0) {
        if (!b->calls) return STEP_FAILED;
        p->pos = at + len;
        return body_end(p, true);
    }
    int between = any_marker(p, f->between, 6, at, &len);
    if (between > 0) {
        p->pos = b->last_end = at + len;
        if (!b->calls) b->open_end = p->pos;
        return STEP_ON;
    }
    int named = f->flags & READ_NAMED && f->call_open ? marker_at(p, f->call_open, at, &len) : 0;
    if (named > 0) {
        begin_call(p, BODY_NAME, at);
        p->pos = at + len;
        return STEP_ON;
    }
    if (closed < 0 || between < 0 || named < 0) return STEP_MORE;
    step_result result = call_step(p, at, open_ended);
    if (result != STEP_FAILED || !b->calls || b->deferred) return result;
    if (close && strchr("}])", p->in.data[at])) {                 /* brackets too many */
        p->pos = at + 1;
        return STEP_ON;
    }
    return body_end(p, open_ended && b->section < 0 && !(f->flags & BARE_CALLS));
}

/* ---- names ---- */

int head_find(toolcall_parser *p, size_t at, const char *end, bool lines, size_t *n, size_t *end_len)
{
    bool quoted = false;
    for (size_t i = at; i < p->in.size && i - at < HEAD_MAX; i++) {
        char c = p->in.data[i];
        if (c == '"') quoted = !quoted;
        if (c == '\n' && !lines) return 0;
        if (quoted || c != end[0]) continue;
        int m = marker_at(p, end, i, end_len);
        if (m < 0) return -1;
        *n = i - at;
        if (m) return 1;
    }
    return p->final || p->in.size - at >= HEAD_MAX ? 0 : -1;
}

bool head_attribute(const char *head, size_t n, const char *key, buf *out)
{
    static const char *const entities[][2] = {{"&quot;", "\""}, {"&amp;", "&"}, {"&lt;", "<"}, {"&gt;", ">"}, {"&apos;", "'"}};
    size_t m = strlen(key);
    for (size_t i = 0; i + m + 2 < n; i++) {
        if ((i && !is_space(head[i - 1])) || memcmp(head + i, key, m) || head[i + m] != '=' || head[i + m + 1] != '"') continue;
        for (i += m + 2; i < n && head[i] != '"';) {
            size_t used = 1;
            const char *text = head + i;
            for (size_t k = 0; k < 5; k++)
                if (n - i >= strlen(entities[k][0]) && !memcmp(head + i, entities[k][0], strlen(entities[k][0]))) {
                    used = strlen(entities[k][0]);
                    text = entities[k][1];
                }
            buf_add(out, text, 1);
            i += used;
        }
        return i < n;
    }
    return false;
}

/* call_open HEAD head_end */
static step_result name_from_head(toolcall_parser *p)
{
    const toolcall_format *f = p->f;
    size_t n, len;
    int m = head_find(p, p->pos, f->head_end, false, &n, &len);
    if (m <= 0) return m < 0 ? STEP_MORE : STEP_FAILED;
    const char *head = p->in.data + p->pos;
    p->pos += n + len;
    if (f->name_attribute) {
        if (!head_attribute(head, n, f->name_attribute, &p->c.name)) return STEP_FAILED;
    }
    else {
        while (n && (is_space(*head) || strchr("\"'=", *head))) head++, n--;
        while (n && (is_space(head[n - 1]) || strchr("\"'/", head[n - 1]))) n--;
        buf_add(&p->c.name, head, n);
    }
    if (!name_valid(p->c.name.data, p->c.name.size)) return STEP_FAILED;
    p->b.name_ended = true;
    p->b.state = f->spelling.arguments == TOOLCALL_JSON || f->spelling.arguments == TOOLCALL_PAIRS ? BODY_ARGUMENTS : BODY_TAG;
    return STEP_ON;
}

/* functions.NAME:INDEX, call:NAME */
static bool finish_name(toolcall_parser *p)
{
    const toolcall_format *f = p->f;
    buf *name = &p->c.name;
    if (f->flags & NAME_IS_ID) {
        buf_clear(&p->c.id);
        buf_add(&p->c.id, name->data, name->size);
        size_t n = name->size;
        while (n && is_digit(name->data[n - 1])) n--;
        if (n && n < name->size && name->data[n - 1] == ':') name->size = n - 1;
    }
    for (int i = 0; i < 2; i++) {
        size_t m = f->name_lead[i] ? strlen(f->name_lead[i]) : 0;
        if (!m || name->size <= m || memcmp(name->data, f->name_lead[i], m)) continue;
        memmove(name->data, name->data + m, name->size - m);
        name->size -= m;
        break;
    }
    if (name->size) name->data[name->size] = 0;
    return name_valid(name->data, name->size);
}

/* [ID name_mark] NAME [id_mark ID] name_end; step: 0 what comes first, 1 the id after its mark, 2 the name after its mark */
static step_result name_step(toolcall_parser *p)
{
    const toolcall_format *f = p->f;
    if (f->head_end) return name_from_head(p);
    size_t from = skip_space(p, p->pos), end = from, len;
    while (end < p->in.size && is_name(p->in.data[end]) && end - from <= NAME_MAX_BYTES) end++;
    if (end >= p->in.size && !p->final) return STEP_MORE;
    if (end == from || end - from > NAME_MAX_BYTES) return STEP_FAILED;
    size_t at = skip_space(p, end);
    if (at >= p->in.size && !p->final) return STEP_MORE;
    int mark = f->name_mark && p->b.step == 0 ? marker_at(p, f->name_mark, at, &len) : 0;
    int id = mark <= 0 && f->id_mark && p->b.step == 0 ? marker_at(p, f->id_mark, at, &len) : 0;
    int finish = mark <= 0 && id <= 0 && f->name_end ? marker_at(p, f->name_end, at, &len) : 0;
    bool found = mark > 0 || id > 0 || finish > 0;
    if (!found && (mark < 0 || id < 0 || finish < 0)) return STEP_MORE;
    if (!found && !(f->flags & NAME_OPEN)) return STEP_FAILED;
    buf_add(mark > 0 || p->b.step == 1 ? &p->c.id : &p->c.name, p->in.data + from, end - from);
    p->pos = found ? at + len : end;
    if (mark > 0 || id > 0) {
        p->b.step = mark > 0 ? 2 : 1;
        return STEP_ON;
    }
    if (!finish_name(p)) return STEP_FAILED;
    p->b.name_ended = found || (end < p->in.size && is_space(p->in.data[end]));
    bool tags = f->spelling.arguments == TOOLCALL_TAGS || f->spelling.arguments == TOOLCALL_NESTED;
    p->b.state = tags ? BODY_TAG : BODY_ARGUMENTS;
    p->b.step = 0;
    return STEP_ON;
}

/* ---- arguments that are one value ---- */

/* A string of a declared other type becomes that. */
static void retype_member(toolcall_parser *p)
{
    value_reader *r = &p->b.reader;
    const json_t *schema = tool_schema(p, p->c.name.data);
    if (!schema || r->value_at >= r->out.size || r->out.data[r->value_at] != '"') return;
    buf key = {0}, text = {0}, typed = {0};
    if (value_decode_string(r->out.data + r->key_at, r->key_end - r->key_at, &key) &&
        value_decode_string(r->out.data + r->value_at, r->out.size - r->value_at, &text)) {
        unsigned types = type_mask(schema, type_property(schema, schema, key.data ? key.data : ""));
        if (types && !(types & TYPE_STRING) && type_value(types, 0, text.data ? text.data : "", text.size, &typed)) {
            r->out.size = r->value_at;
            buf_add(&r->out, typed.data, typed.size);
        }
    }
    buf_free(&key);
    buf_free(&text);
    buf_free(&typed);
}

/* Will the string that begins now stay one? */
static bool member_stays(const toolcall_parser *p)
{
    const value_reader *r = &p->b.reader;
    const json_t *schema = tool_schema(p, p->c.name.data);
    buf key = {0};
    unsigned types = 0;
    if (schema && value_decode_string(r->out.data + r->key_at, r->key_end - r->key_at, &key))
        types = type_mask(schema, type_property(schema, schema, key.data ? key.data : ""));
    buf_free(&key);
    return !types || types & TYPE_STRING;
}

static step_result arguments_step(toolcall_parser *p)
{
    const toolcall_format *f = p->f;
    value_reader *r = &p->b.reader;
    bool pairs = f->spelling.arguments == TOOLCALL_PAIRS;
    if (p->b.step == 0) {
        size_t at = skip_space(p, p->pos);
        if (at >= p->in.size) return p->final ? STEP_FAILED : STEP_MORE;
        if (p->in.data[at] != '{') return STEP_FAILED;
        p->pos = at;
        value_reset(r, pairs ? VALUE_PAIRS : VALUE_JSON);
        r->quote = f->quote;
        p->b.step = 1;
        p->b.value_told = 0;
        p->b.value_streams = true;
        p->c.arguments_known = p->options.eager;
    }
    value_text t = {.s = p->in.data, .n = p->in.size, .pos = p->pos, .final = p->final, .p = p};
    value_result result;
    do {
        result = value_run(r, &t);
        if (result == VALUE_MEMBER && pairs) retype_member(p);
        if (result != VALUE_KEY && result != VALUE_MEMBER) break;
        p->b.value_told = r->out.size;                            /* up to here nothing changes any more */
        p->b.value_streams = !pairs || result == VALUE_MEMBER || member_stays(p);
    } while (true);
    p->pos = t.pos;
    size_t have = p->c.arguments.size, safe = p->b.value_streams || result == VALUE_DONE ? value_certain(r) : p->b.value_told;
    if ((p->options.eager || result == VALUE_DONE) && safe > have) buf_add(&p->c.arguments, r->out.data + have, safe - have);
    if (result == VALUE_BAD) return STEP_FAILED;
    if (result == VALUE_MORE) return STEP_MORE;
    call_commit(p);
    return STEP_ON;
}

step_result body_step(toolcall_parser *p)
{
    step_result result = STEP_FAILED;
    switch (p->b.state) {
    case BODY_NEXT: result = next_step(p); break;
    case BODY_NAME: result = name_step(p); break;
    case BODY_ARGUMENTS: result = arguments_step(p); break;
    case BODY_OBJECT: result = object_step(p); break;
    case BODY_TAG: result = tags_step(p); break;
    case BODY_VALUE: result = tags_value_step(p); break;
    case BODY_PYTHON: result = python_step(p); break;
    }
    if (result == STEP_MORE && p->final) result = STEP_FAILED;
    return result == STEP_FAILED ? body_fail(p) : result;
}
