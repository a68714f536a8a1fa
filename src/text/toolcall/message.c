/* message.c - answers that are messages with headers (harmony and its relatives):
 *
 *     <|start|>assistant to=RECIPIENT<|channel|>CHANNEL to=RECIPIENT TYPE<|message|>TEXT<|end|>
 *
 * Generation starts within the first header. The recipient decides, then the channel: functions get arguments, "analysis" and "self" are
 * reasoning, the rest is content. */
#include "text/toolcall/internal.h"

enum { HEADER_MAX = 1024 };

static const char MESSAGE[] = "<|message|>";

/* Does a header stand at `at`? 1, 0 (the text has none), -1 */
static int header_begins(toolcall_parser *p, size_t at)
{
    static const char *const starts[] = {"<|start|>", "<|channel|>", "<|message|>", "<|constrain|>", "to="};
    int result = 0;
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++) {
        size_t len;
        int m = marker_at(p, starts[i], at, &len);
        if (m > 0) return 1;
        if (m < 0) result = -1;
    }
    return result;
}

/* The word after `what` in the header. */
static void header_word(const char *s, size_t n, const char *what, buf *out)
{
    size_t at = bytes_find(s, n, 0, what, strlen(what));
    buf_clear(out);
    if (at == SIZE_MAX) return;
    at += strlen(what);
    size_t end = at;
    while (end < n && !is_space(s[end]) && s[end] != '<') end++;
    buf_add(out, s + at, end - at);
}

static bool is(const buf *b, const char *text) { return b->size == strlen(text) && !memcmp(b->data, text, b->size); }

static void begin_message(toolcall_parser *p, const char *head, size_t n)
{
    buf channel = {0}, *to = &p->payload;
    header_word(head, n, "<|channel|>", &channel);
    header_word(head, n, "to=", to);
    bool plain = !to->size || is(to, "user") || is(to, "assistant") || is(to, "all");
    bool atem = p->f->sections[0].open != NULL;                   /* calls are written within the message */
    p->in_think = is(to, "self") || (plain && is(&channel, "analysis"));
    if (plain || p->in_think || atem || p->options.no_calls) {
        out_join(p->in_think ? &p->reasoning : &p->content);
        p->mode = MODE_TEXT;
    }
    else {
        buf_clear(&p->c.name);
        buf_clear(&p->c.id);
        buf_clear(&p->c.arguments);
        p->c.started = p->c.arguments_known = false;
        p->c.told = 0;
        size_t skip = to->size > 10 && !memcmp(to->data, "functions.", 10) ? 10 : 0;
        buf_add(&p->c.name, to->data + skip, to->size - skip);
        value_reset(&p->b.reader, VALUE_JSON);
        p->b.step = 0;
        p->b.section = 0;
        p->b.deferred = false;
        p->mode = MODE_PAYLOAD;
    }
    buf_free(&channel);
}

step_result header_step(toolcall_parser *p)
{
    size_t at = skip_space(p, p->pos), len = 0;
    if (at >= p->in.size) return STEP_MORE;
    int begins = header_begins(p, at);
    if (begins < 0) return STEP_MORE;
    if (!begins) {
        p->mode = MODE_TEXT;
        p->scan = p->pos;
        p->in_think = false;
        return STEP_ON;
    }
    size_t from = p->scan > at ? p->scan : at, i = from;
    for (; i < p->in.size && i - at < HEADER_MAX; i++) {
        if (p->in.data[i] != '<') continue;
        int m = marker_at(p, MESSAGE, i, &len);
        if (m < 0) break;
        if (!m) continue;
        begin_message(p, p->in.data + at, i - at);
        p->pos = p->scan = p->b.start = i + len;
        return STEP_ON;
    }
    p->scan = i;
    if (i - at >= HEADER_MAX) {                                   /* no header */
        p->mode = MODE_TEXT;
        p->scan = at + 1;
        p->in_think = false;
        return STEP_ON;
    }
    if (p->final && bytes_find(p->in.data, p->in.size, at, "<|", 2) == SIZE_MAX) {
        p->mode = MODE_TEXT;                                      /* text that begins as a recipient does */
        p->scan = p->pos;
        return STEP_ON;
    }
    if (p->final) p->pos = p->scan = p->in.size;                  /* a header without message says nothing */
    return STEP_MORE;
}

/* The end of a call's message: *at, where it stands. 1, -1 */
static int message_end(toolcall_parser *p, size_t *at)
{
    for (; p->scan < p->in.size; p->scan++) {
        if (p->in.data[p->scan] != '<') continue;
        static const char *const ends[] = {"<|call|>", "<|end|>", "<|return|>", "<|start|>", "<|channel|>"};
        for (size_t k = 0; k < 5; k++) {
            size_t len;
            int m = marker_at(p, ends[k], p->scan, &len);
            if (m < 0) return -1;
            if (!m) continue;
            *at = p->scan;
            return 1;
        }
    }
    return -1;
}

static step_result next_message(toolcall_parser *p, size_t at)
{
    p->pos = p->scan = at;
    p->mode = MODE_TEXT;
    return STEP_ON;
}

/* Text that is no JSON is one string. */
static step_result raw_payload(toolcall_parser *p)
{
    size_t at, end;
    if (message_end(p, &at) < 0) {
        if (p->final) p->pos = p->scan = p->in.size;              /* cut off: nobody can run it */
        return STEP_MORE;
    }
    for (end = at; end > p->pos && is_space(p->in.data[end - 1]);) end--;
    size_t from = skip_space(p, p->pos);
    if (from < end) value_add_string(&p->c.arguments, p->in.data + from, end - from);
    call_commit(p);
    return next_message(p, at);
}

/* step: 0 start, 1 JSON, 2 other text, 3 behind the JSON */
step_result payload_step(toolcall_parser *p)
{
    body *b = &p->b;
    size_t at = skip_space(p, p->pos);
    if (b->step == 0) {
        if (at >= p->in.size) return STEP_MORE;
        b->step = p->in.data[at] == '{' ? 1 : 2;
        b->start = p->pos;
        p->scan = p->pos;
        if (b->step == 1) p->pos = at;
        if (b->step == 1 && p->options.eager) {
            p->c.arguments_known = true;
            call_tell(p);
        }
    }
    if (b->step == 2) return raw_payload(p);
    if (b->step == 3) {
        if (message_end(p, &at) < 0) {
            if (p->final) p->pos = p->scan = p->in.size;
            return STEP_MORE;
        }
        return next_message(p, at);
    }
    value_text t = {.s = p->in.data, .n = p->in.size, .pos = p->pos, .final = p->final, .p = p};
    value_result result;
    do result = value_run(&b->reader, &t);
    while (result == VALUE_KEY || result == VALUE_MEMBER);
    if (result == VALUE_BAD && !p->c.started) {
        p->pos = b->start;
        b->step = 2;
        return STEP_ON;
    }
    p->pos = t.pos;
    size_t have = p->c.arguments.size;
    if (p->options.eager || result == VALUE_DONE) buf_add(&p->c.arguments, b->reader.out.data + have, b->reader.out.size - have);
    if (p->options.eager) call_tell(p);
    if (result == VALUE_MORE && !(p->final && p->c.started)) return STEP_MORE;
    if (result == VALUE_DONE) call_commit(p);
    else out_event_add(p, TOOLCALL_END, "", 0);                   /* broken or cut, but told: the arguments so far */
    p->scan = p->pos;
    b->step = 3;
    return STEP_ON;
}
