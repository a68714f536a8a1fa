/* parse.c - a response template at work: text is cut into regions, each of which becomes a field's value when it closes.
 *
 * Within a field only its close is looked for; outside, every opening and the close of the field without opening. The first complete match
 * counts, unless an earlier one may still come: text from there on waits. */
#include "text/response/internal.h"

typedef struct scan_cache { bool valid, partial_mode; pattern_hit hit; } scan_cache;

struct response_parser {
    response_template *t;          /* own copy: patterns keep the last match */
    json_t *tools;
    json_t *message;               /* fields as JSON texts, in order of arrival; lists as texts of their items */
    buf text;
    size_t pos;                    /* read up to here */
    size_t region;                 /* where the open region's opening stands */
    int current;                   /* field; -1: text that belongs to none */
    bool opened, finished;
    json_t *captures;
    buf body;
    scan_cache *cache;             /* two for each field: open, close. Valid while no text comes */
    response_event_fn on_event;
    void *user;
    buf tail;                      /* of a character that is not finished */
};

typedef struct choice { int field; bool open; pattern_hit hit; } choice;

static void tell(response_parser *p, response_event_type type, int field, const char *text, size_t size, bool dirty)
{
    response_event e = {.type = type, .field = p->t->field[field].name, .text = text, .size = size, .dirty = dirty};
    if (p->on_event) p->on_event(p->user, &e);
}

/* ---- regions ---- */

static void reset(response_parser *p)
{
    p->current = p->t->implicit;
    p->opened = false;
    buf_clear(&p->body);
    json_object_clear(p->captures);
}

static void accumulate(response_parser *p, size_t end)
{
    if (end > p->pos && p->current >= 0) {
        if (!p->opened) {
            p->region = p->pos;
            tell(p, RESPONSE_OPEN, p->current, NULL, 0, false);
        }
        p->opened = true;
        buf_add(&p->body, p->text.data + p->pos, end - p->pos);
        tell(p, RESPONSE_CHUNK, p->current, p->text.data + p->pos, end - p->pos, !response_content_streams(p->t->field[p->current].content));
    }
    p->pos = end;
}

/* "a" and "b" with a separator between them, as JSON strings */
static bool join_strings(const char *a, const char *separator, const buf *b, buf *out)
{
    buf text = {0};
    bool ok = value_decode_string(a, strlen(a), &text) && buf_adds(&text, separator) && value_decode_string(b->data, b->size, &text);
    ok = ok && value_add_string(out, text.data ? text.data : "", text.size);
    buf_free(&text);
    return ok;
}

static bool store(response_parser *p, const response_field_spec *f, const buf *value, vlm_error *error)
{
    const char *old = json_string_value(json_object_get(p->message, f->name));
    buf text = {0};
    bool ok = true;
    if (f->join) {
        if (value->data[0] != '"') return err_set(error, VLM_FORMAT, "field '%s': 'join' needs texts", f->name);
        ok = old ? join_strings(old, f->join, value, &text) : buf_add(&text, value->data, value->size);
    }
    else if (f->repeats) {
        size_t n = old ? strlen(old) : 0;
        if (old) buf_add(&text, old, n - 1);
        buf_adds(&text, old ? (n > 2 ? ", " : "") : "[");
        buf_add(&text, value->data, value->size);
        buf_addc(&text, ']');
    }
    else buf_add(&text, value->data, value->size);
    ok = ok && !text.failed && json_object_set_new(p->message, f->name, json_stringn_nocheck(text.data, text.size)) == 0;
    buf_free(&text);
    return ok || err_memory(error, value->size);
}

static bool close_current(response_parser *p, vlm_error *error)
{
    if (p->current < 0 || !p->opened) {
        reset(p);
        return true;
    }
    const response_field_spec *f = &p->t->field[p->current];
    buf value = {0};
    bool ok = response_value(f, p->body.data ? p->body.data : "", p->body.size, p->captures, &value, error);
    if (ok && p->tools && !response_type_calls(&value, p->tools)) ok = err_memory(error, value.size);
    ok = ok && store(p, f, &value, error);
    if (ok) {
        tell(p, RESPONSE_CLOSE, p->current, value.data, value.size, false);
        reset(p);
    }
    buf_free(&value);
    return ok;
}

static void add_capture(void *user, const char *name, const char *text, size_t size)
{
    json_object_set_new(user, name, json_stringn_nocheck(text, size));
}

/* ---- looking for anchors ---- */

/* One anchor: a cached result stays right as long as no text came and it lies ahead. */
static bool look(response_parser *p, int field, bool open, bool eos, pattern_hit *hit, vlm_error *error)
{
    scan_cache *c = &p->cache[2 * field + open];
    const response_field_spec *f = &p->t->field[field];
    if (!c->valid || c->partial_mode == eos || (c->hit.found && c->hit.from < p->pos)) {
        if (!pattern_find(open ? f->open : f->close, p->text.data, p->text.size, p->pos, !eos, &c->hit, error)) return false;
        c->valid = true;
        c->partial_mode = !eos;
    }
    *hit = c->hit;
    return true;
}

/* longest on ties, openings before closings, then by name */
static bool comes_before(const response_parser *p, const choice *a, const choice *b)
{
    if (a->hit.from != b->hit.from) return a->hit.from < b->hit.from;
    size_t na = a->hit.to - a->hit.from, nb = b->hit.to - b->hit.from;
    if (na != nb) return na > nb;
    if (a->open != b->open) return a->open;
    return strcmp(p->t->field[a->field].name, p->t->field[b->field].name) < 0;
}

static bool scan(response_parser *p, bool eos, choice *best, bool *found, size_t *hold, vlm_error *error)
{
    bool within = p->current >= 0 && p->current != p->t->implicit;
    *found = false;
    *hold = p->text.size;
    for (int field = 0; field < (int)p->t->count; field++)
        for (int kind = 0; kind < 2; kind++) {
            bool open = kind == 0;
            const response_field_spec *f = &p->t->field[field];
            const pattern *watched = open ? f->open : f->close;
            if (!watched || (within ? open || field != p->current : !open && field != p->t->implicit)) continue;
            choice c = {.field = field, .open = open};
            if (!look(p, field, open, eos, &c.hit, error)) return false;
            if (!c.hit.found) continue;
            bool grows = c.hit.to == p->text.size && (c.hit.from == c.hit.to || pattern_can_extend(watched));
            if (!eos && (c.hit.partial || grows)) {
                if (c.hit.from < *hold) *hold = c.hit.from;
                continue;
            }
            if (!*found || comes_before(p, &c, best)) *best = c;
            *found = true;
        }
    if (*found && best->hit.from >= *hold) *found = false;
    return true;
}

static bool process(response_parser *p, bool eos, vlm_error *error)
{
    for (size_t i = 0; i < 2 * p->t->count; i++) p->cache[i].valid = false;
    for (;;) {
        choice best = {0};
        bool found;
        size_t hold;
        if (!scan(p, eos, &best, &found, &hold, error)) return false;
        if (p->body.failed || p->text.failed) return err_memory(error, p->text.size);
        if (!found) {
            accumulate(p, eos ? p->text.size : hold > p->pos ? hold : p->pos);
            return !eos || close_current(p, error);
        }
        accumulate(p, best.hit.from);
        p->pos = best.hit.to;
        bool had_content = p->opened;
        if (!close_current(p, error)) return false;
        if (best.open) {
            pattern_hit again;                                    /* the groups of this match */
            const pattern *open = p->t->field[best.field].open;
            if (!pattern_find(open, p->text.data, p->text.size, best.hit.from, false, &again, error)) return false;
            if (again.found) pattern_groups(open, p->text.data, add_capture, p->captures);
            p->current = best.field;
            p->region = best.hit.from;
            p->opened = true;
            tell(p, RESPONSE_OPEN, p->current, NULL, 0, false);
        }
        else if (!had_content && best.hit.from == best.hit.to) return true;
    }
}

/* ---- outside ---- */

/* The end of the last start anchor in the prompt; the whole prompt when there is none. */
static bool skip_to_anchor(response_parser *p, const char *prefix, size_t size, size_t *from, vlm_error *error)
{
    pattern_hit hit;
    if (!utf8_valid(prefix, size)) return err_set(error, VLM_INVALID, "the prompt is no UTF-8");
    *from = 0;
    for (size_t at = 0; at <= size;) {
        if (!pattern_find(p->t->anchor, prefix, size, at, false, &hit, error)) return false;
        if (!hit.found) break;
        *from = hit.to;
        at = hit.to > hit.from ? hit.to : hit.to + 1;
        while (at < size && ((unsigned char)prefix[at] & 0xC0) == 0x80) at++;
    }
    return true;
}

/* The pattern engine wants UTF-8: what is none becomes U+FFFD, an unfinished character waits. */
static bool add_text(response_parser *p, const char *text, size_t size, bool final)
{
    buf *tail = &p->tail;
    buf_add(tail, text, size);
    size_t at = 0, from = 0;
    while (at < tail->size) {
        uint32_t code;
        size_t used = utf8_next(tail->data + at, tail->size - at, &code);
        if (!used && !final) break;
        if (!used) used = utf8_next_lossy(tail->data + at, tail->size - at, &code);
        if (code == 0xFFFD && !(used == 3 && !memcmp(tail->data + at, "\xEF\xBF\xBD", 3))) {
            buf_add(&p->text, tail->data + from, at - from);
            buf_add_utf8(&p->text, code);
            from = at + used;
        }
        at += used;
    }
    if (tail->size) {
        buf_add(&p->text, tail->data + from, at - from);
        memmove(tail->data, tail->data + at, tail->size - at);
        tail->size -= at;
    }
    return !tail->failed && !p->text.failed;
}

response_parser *response_parser_new(const response_template *t, const char *prefix, size_t size, const json_t *tools, response_event_fn on_event,
                                     void *user, vlm_error *error)
{
    response_parser *p = MEM_NEW(response_parser);
    if (!p) return err_memory(error, sizeof *p), NULL;
    p->on_event = on_event;
    p->user = user;
    p->message = json_object();
    p->captures = json_object();
    p->tools = json_is_array(tools) ? json_deep_copy(tools) : NULL;
    p->t = response_template_new(t->spec, error);
    p->cache = p->t ? MEM_ARRAY(2 * p->t->count, scan_cache) : NULL;
    size_t from = 0;
    if (!p->t || !p->cache || !p->message || !p->captures) {
        if (p->t) err_memory(error, 0);
    }
    else if (skip_to_anchor(p, prefix, size, &from, error)) {
        reset(p);
        if (from >= size) return p;
        if (!add_text(p, prefix + from, size - from, false)) err_memory(error, size);
        else if (process(p, false, error)) return p;
    }
    response_parser_free(p);
    return NULL;
}

void response_parser_free(response_parser *p)
{
    if (!p) return;
    response_template_free(p->t);
    json_decref(p->tools);
    json_decref(p->message);
    json_decref(p->captures);
    buf_free(&p->text);
    buf_free(&p->tail);
    buf_free(&p->body);
    mem_free(p->cache);
    mem_free(p);
}

bool response_feed(response_parser *p, const char *text, size_t size, vlm_error *error)
{
    if (p->finished) return err_set(error, VLM_INVALID, "response parser: fed after its end");
    if (!add_text(p, text, size, false)) return err_memory(error, size);
    return process(p, false, error);
}

bool response_finish(response_parser *p, vlm_error *error)
{
    if (p->finished) return true;
    p->finished = true;
    if (!add_text(p, "", 0, true)) return err_memory(error, 0);
    return process(p, true, error);
}

const char *response_rest(const response_parser *p, size_t *size)
{
    *size = p->text.size - p->region;
    return p->text.data + p->region;
}

const char *response_field(const response_parser *p) { return p->current >= 0 && p->opened ? p->t->field[p->current].name : NULL; }

static bool is_empty(const char *json) { return !strcmp(json, "null") || !strcmp(json, "\"\"") || !strcmp(json, "[]") || !strcmp(json, "{}"); }

char *response_message(const response_parser *p, vlm_error *error)
{
    const json_t *defaults = json_object_get(p->t->spec, "defaults");
    const char *key;
    json_t *value;
    for (size_t i = 0; i < p->t->count; i++) {
        const response_field_spec *f = &p->t->field[i];
        if (!f->optional && !json_object_get(p->message, f->name) && !json_object_get(defaults, f->name)) {
            err_set(error, VLM_FORMAT, "response_template: the field '%s' is missing in the output", f->name);
            return NULL;
        }
    }
    buf out = {0};
    buf_addc(&out, '{');
    json_object_foreach((json_t *)defaults, key, value) {
        if (out.size > 1) buf_adds(&out, ", ");
        value_add_string(&out, key, strlen(key));
        buf_adds(&out, ": ");
        const char *found = json_string_value(json_object_get(p->message, key));
        char *text = found ? NULL : json_dumps(value, JSON_ENCODE_ANY);
        buf_adds(&out, found ? found : text ? text : "null");
        free(text);
    }
    json_object_foreach(p->message, key, value) {
        if (json_object_get(defaults, key) || is_empty(json_string_value(value))) continue;
        if (out.size > 1) buf_adds(&out, ", ");
        value_add_string(&out, key, strlen(key));
        buf_adds(&out, ": ");
        buf_adds(&out, json_string_value(value));
    }
    buf_addc(&out, '}');
    char *text = buf_take(&out);
    if (!text) err_memory(error, 0);
    return text;
}
