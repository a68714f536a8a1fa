/* out.c - what the parser tells: events in a queue, white space that waits, ids. */
#include "text/toolcall/internal.h"

/* ---- events ---- */

static bool queue_room(toolcall_parser *p)
{
    out_queue *q = &p->queue;
    if (q->count < q->capacity) return true;
    size_t capacity = q->capacity ? q->capacity * 2 : 16;
    out_event *item = mem_resize(q->item, capacity, sizeof *item);
    if (!item) return p->failed = true, false;
    q->item = item;
    q->capacity = capacity;
    return true;
}

static size_t queue_text(toolcall_parser *p, const char *text, size_t size)
{
    size_t at = p->queue.text.size;
    if (!buf_add(&p->queue.text, text, size)) p->failed = true;
    return at;
}

void out_event_add(toolcall_parser *p, toolcall_event_type type, const char *text, size_t size)
{
    out_queue *q = &p->queue;
    bool is_text = type == TOOLCALL_REASONING || type == TOOLCALL_CONTENT;
    out_event *last = q->count > q->head ? &q->item[q->count - 1] : NULL;
    if (is_text && last && last->type == type && last->text + last->size == q->text.size) {
        queue_text(p, text, size);
        last->size += size;
        return;
    }
    if (!queue_room(p)) return;
    size_t at = queue_text(p, text ? text : "", size);
    size_t index = is_text ? 0 : p->calls - 1;
    q->item[q->count++] = (out_event){.type = type, .index = index, .text = at, .size = size};
}

void out_call_start(toolcall_parser *p)
{
    out_queue *q = &p->queue;
    if (!queue_room(p)) return;
    if (!p->c.id.size) out_make_id(p, &p->c.id);
    size_t id = queue_text(p, p->c.id.data ? p->c.id.data : "", p->c.id.size + 1);
    size_t name = queue_text(p, p->c.name.data ? p->c.name.data : "", p->c.name.size + 1);
    q->item[q->count++] = (out_event){.type = TOOLCALL_START, .index = p->calls++, .id = id, .name = name, .text = q->text.size};
}

bool toolcall_next(toolcall_parser *p, toolcall_event *event)
{
    out_queue *q = &p->queue;
    if (p->failed || q->head >= q->visible) return false;
    const out_event *e = &q->item[q->head++];
    *event = (toolcall_event){.type = e->type, .index = e->index, .text = q->text.data + e->text, .size = e->size};
    if (e->type == TOOLCALL_START) {
        event->id = q->text.data + e->id;
        event->name = q->text.data + e->name;
    }
    return true;
}

/* ---- white space ---- */

/* Python's str.strip() */
static bool is_strip_space(uint32_t c)
{
    if (c < 0x80) return c == ' ' || (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x1f);
    return unicode_is_space(c);
}

static void channel_tell(toolcall_parser *p, out_channel *c, size_t end)
{
    if (!end) return;
    out_event_add(p, c == &p->reasoning ? TOOLCALL_REASONING : TOOLCALL_CONTENT, c->pending.data, end);
    memmove(c->pending.data, c->pending.data + end, c->pending.size - end + 1);
    c->pending.size -= end;
    c->started = true;
}

void out_text(toolcall_parser *p, out_channel *c, const char *text, size_t size)
{
    if (!buf_add(&c->pending, text, size)) {
        p->failed = true;
        return;
    }
    bool keep = p->options.keep_space && c == &p->content;
    size_t visible = 0, at = c->scanned, n = c->pending.size;
    while (at < n) {
        uint32_t code;
        size_t used = utf8_next(c->pending.data + at, n - at, &code);
        if (!used) break;                                         /* an unfinished character */
        if (!c->started && !visible && !keep && is_strip_space(code)) {
            size_t skip = at + used;                              /* white space at the start is not told */
            while (skip < n && is_space(c->pending.data[skip])) skip++;
            memmove(c->pending.data, c->pending.data + skip, n - skip + 1);
            c->pending.size = n -= skip;
            at = 0;
            continue;
        }
        at += used;
        if (keep || !is_strip_space(code)) visible = at;
    }
    c->scanned = at - visible;
    channel_tell(p, c, visible);
}

void out_hold(toolcall_parser *p, out_channel *c, const char *text, size_t size)
{
    if (!buf_add(&c->pending, text, size)) p->failed = true;
    c->scanned = c->pending.size;
}

void out_join(out_channel *c)
{
    buf_clear(&c->pending);
    c->scanned = 0;
    if (!c->started) return;
    buf_addc(&c->pending, '\n');
    c->scanned = 1;
}

/* ---- ids ---- */

static uint64_t mix(uint64_t x)                                   /* splitmix64 */
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

void out_make_id(toolcall_parser *p, buf *id)
{
    uint64_t a = mix(p->options.seed * 0x2545f4914f6cdd1du + p->calls), b = mix(a);
    buf_clear(id);
    if (!(p->f->flags & MISTRAL_IDS)) {
        buf_addf(id, "call_%016llx%08llx", (unsigned long long)a, (unsigned long long)(b & 0xffffffffu));
        return;
    }
    for (int i = 0; i < 9; i++, a /= 62) buf_addc(id, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"[a % 62]);
}
