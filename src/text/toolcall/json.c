/* json.c - calls that are JSON objects: {"name": ..., "arguments": {...}}, keys in any order.
 *
 * The object is read member by member as it comes; the arguments are the model's own text, so that 1.0 stays 1.0. */
#include "text/toolcall/internal.h"

typedef enum member { MEMBER_OTHER, MEMBER_NAME, MEMBER_ARGUMENTS, MEMBER_ID, MEMBER_FUNCTION, MEMBER_TYPE } member;

static member member_of(const toolcall_parser *p, const value_reader *r)
{
    static const struct { const char *key; member is; } keys[] = {
        {"\"name\"", MEMBER_NAME}, {"\"tool_name\"", MEMBER_NAME}, {"\"arguments\"", MEMBER_ARGUMENTS}, {"\"parameters\"", MEMBER_ARGUMENTS},
        {"\"id\"", MEMBER_ID}, {"\"tool_call_id\"", MEMBER_ID}, {"\"function\"", MEMBER_FUNCTION}, {"\"type\"", MEMBER_TYPE},
    };
    if (p->f->flags & KEY_IS_NAME) return MEMBER_ARGUMENTS;
    size_t n = r->key_end - r->key_at;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strlen(keys[i].key) == n && !memcmp(r->out.data + r->key_at, keys[i].key, n)) return keys[i].is;
    return MEMBER_OTHER;
}

/* The arguments' JSON: an object as it is; a string may hold one. */
static void take_arguments(toolcall_parser *p, const char *json, size_t n)
{
    buf *out = &p->c.arguments;
    buf_clear(out);
    if (json[0] == '"') {
        buf text = {0};
        size_t from = 0;
        value_decode_string(json, n, &text);
        while (from < text.size && is_space(text.data[from])) from++;
        bool empty = from == text.size;
        if (!empty && text.data[from] == '{' && value_whole(VALUE_JSON, false, text.data + from, text.size - from, out)) empty = false;
        else if (!empty) buf_add(out, json, n);
        buf_free(&text);
    }
    else if (n != 4 || memcmp(json, "null", 4)) buf_add(out, json, n);
    if (!out->size) buf_adds(out, "{}");
    p->b.key_seen = true;
}

static bool take_name(toolcall_parser *p, const char *json, size_t n)
{
    buf_clear(&p->c.name);
    return value_decode_string(json, n, &p->c.name) && name_valid(p->c.name.data, p->c.name.size);
}

/* {"function": {"name", "arguments"}} */
static bool take_function(toolcall_parser *p, const char *json, size_t n)
{
    if (json[0] == '"') return p->c.name.size || take_name(p, json, n);
    if (json[0] != '{') return false;
    value_reader r = {0};
    value_reset(&r, VALUE_JSON);
    r.loose = p->f->flags & LOOSE_OBJECTS;
    value_text t = {.s = json, .n = n, .final = true};
    bool ok = true;
    for (value_result result; ok && (result = value_run(&r, &t)) != VALUE_DONE;) {
        if (result == VALUE_BAD || result == VALUE_MORE) ok = false;
        if (result != VALUE_MEMBER) continue;
        const char *value = r.out.data + r.value_at;
        member m = member_of(p, &r);
        if (m == MEMBER_NAME) ok = take_name(p, value, r.out.size - r.value_at);
        if (m == MEMBER_ARGUMENTS) take_arguments(p, value, r.out.size - r.value_at);
    }
    value_free(&r);
    return ok && p->c.name.size;
}

static bool take_member(toolcall_parser *p)
{
    const value_reader *r = &p->b.reader;
    const char *value = r->out.data + r->value_at;
    size_t n = r->out.size - r->value_at;
    member m = member_of(p, r);
    if (p->f->flags & KEY_IS_NAME) {
        if (p->c.name.size || value[0] != '{' || !take_name(p, r->out.data + r->key_at, r->key_end - r->key_at)) return false;
        take_arguments(p, value, n);
        return true;
    }
    switch (m) {
    case MEMBER_NAME: return take_name(p, value, n) && (p->b.section >= 0 || !p->tools || tool_known(p, p->c.name.data));
    case MEMBER_ARGUMENTS:
        if (p->b.value_streams) p->b.value_streams = false;
        else take_arguments(p, value, n);
        return true;
    case MEMBER_ID:
        if (p->c.started) return true;
        buf_clear(&p->c.id);
        if (!value_decode_string(value, n, &p->c.id)) buf_clear(&p->c.id);
        if (p->f->flags & MISTRAL_IDS && p->c.id.size != 9) buf_clear(&p->c.id);
        return true;
    case MEMBER_FUNCTION: return take_function(p, value, n);
    case MEMBER_TYPE: return true;
    default: return p->b.section >= 0;                            /* bare objects with other members are answers */
    }
}

/* Eager: an object of arguments after the name goes out as it comes. */
static void stream_arguments(toolcall_parser *p, size_t at)
{
    value_reader *r = &p->b.reader;
    body *b = &p->b;
    if (!b->value_streams) {
        if (!p->options.eager || p->f->flags & KEY_IS_NAME || b->key_seen || !p->c.name.size || p->in.data[at] != '{' ||
            member_of(p, r) != MEMBER_ARGUMENTS)
            return;
        b->value_streams = b->key_seen = p->c.arguments_known = true;
        b->value_told = r->value_at;
    }
    buf_add(&p->c.arguments, r->out.data + b->value_told, r->out.size - b->value_told);
    b->value_told = r->out.size;
    if (!p->c.started) call_tell(p);                              /* with the id that is known by now, wherever the text is cut */
}

step_result object_step(toolcall_parser *p)
{
    body *b = &p->b;
    value_reader *r = &b->reader;
    if (b->step == 0) {
        value_reset(r, VALUE_JSON);
        r->loose = p->f->flags & LOOSE_OBJECTS;
        b->value_streams = false;
        b->step = 1;
    }
    value_text t = {.s = p->in.data, .n = p->in.size, .pos = p->pos, .final = p->final, .p = p};
    for (;;) {
        value_result result = value_run(r, &t);
        p->pos = t.pos;
        if (b->value_streams) stream_arguments(p, t.pos);
        if (result == VALUE_KEY) {
            if (b->section < 0 && !(p->f->flags & KEY_IS_NAME) && member_of(p, r) == MEMBER_OTHER) return STEP_FAILED;
            if (!b->value_streams) stream_arguments(p, t.pos);
            continue;
        }
        if (result == VALUE_MEMBER) {
            if (!take_member(p)) return STEP_FAILED;
            continue;
        }
        if (result == VALUE_MORE) return STEP_MORE;
        if (result == VALUE_BAD) return STEP_FAILED;
        break;
    }
    if (!p->c.name.size || (b->section < 0 && !b->key_seen)) return STEP_FAILED;
    call_commit(p);
    return STEP_ON;
}
