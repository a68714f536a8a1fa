/* toolcall.c - the parser: text between calls, markers, feeding. See internal.h for the other parts.
 *
 * Text flows through unless it may be the beginning of a marker: all markers of the format are looked for at once, at each place whose
 * byte begins one. */
#include "text/toolcall/internal.h"

enum { SPACE_MAX = 64, KEEP = 1 << 16 };

/* ---- markers ---- */

int marker_match(const char *text, const char *s, size_t n, size_t *len)
{
    size_t i = 0;
    for (const char *m = text; *m; m++) {
        if (*m == '\1') {                                         /* :word */
            size_t from = i;
            if (i < n && s[i] == ':')
                for (i++; i < n && (is_letter(s[i]) || is_digit(s[i]) || s[i] == '-') && i - from < SPACE_MAX;) i++;
            if (i >= n) return -1;
            continue;
        }
        if (is_space(*m)) {
            size_t from = i;
            while (i < n && is_space(s[i]) && i - from < SPACE_MAX) i++;
            if (i >= n) return m[1] ? -1 : (*len = i, 1);
            continue;
        }
        if (i >= n) return -1;
        if (s[i] != *m) return 0;
        i++;
    }
    *len = i;
    return 1;
}

/* Is the marker, or the part of it that ends with > or ], a token of its own? */
static bool marker_is_token(toolcall_parser *p, const char *text)
{
    for (int i = 0; i < p->token_count; i++)
        if (p->token_text[i] == text) return p->token_answer[i];
    bool answer = false;
    for (size_t n = strlen(text); n > 1 && !answer; n--)
        if (text[n - 1] == '>' || text[n - 1] == ']') answer = p->options.is_token(p->options.user, text, n);
    if (p->token_count < MARKERS_MAX) {
        p->token_text[p->token_count] = text;
        p->token_answer[p->token_count++] = answer;
    }
    return answer;
}

static bool is_special_at(const toolcall_parser *p, size_t at)
{
    uint64_t where = p->base + at;
    size_t low = 0, high = p->special_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (p->special[middle] < where) low = middle + 1;
        else high = middle;
    }
    return low < p->special_count && p->special[low] == where;
}

int marker_at(toolcall_parser *p, const char *text, size_t at, size_t *len)
{
    int m = marker_match(text, p->in.data + at, p->in.size - at, len);
    if (m < 0 && p->final) return 0;
    if (m && p->options.is_token && !is_special_at(p, at) && marker_is_token(p, text)) return 0;
    return m;
}

void marker_add(marker_set *set, const char *text, marker_kind kind, int index)
{
    if (!text || set->count >= MARKERS_MAX) return;
    set->item[set->count++] = (marker){text, kind, index};
    set->first[(unsigned char)text[0]] = true;
}

int marker_here(toolcall_parser *p, const marker_set *set, size_t at, size_t *len, const marker **which)
{
    char c = p->in.data[at];
    if (!set->first[(unsigned char)c]) return 0;
    bool maybe = false;
    *len = 0;
    for (int k = 0; k < set->count; k++) {
        if (set->item[k].text[0] != c) continue;
        size_t n;
        int m = marker_at(p, set->item[k].text, at, &n);
        if (m < 0) maybe = true;
        if (m > 0 && n > *len) {
            *len = n;
            *which = &set->item[k];
        }
    }
    return maybe ? -1 : *len > 0;
}

int marker_search(toolcall_parser *p, const marker_set *set, size_t *at, size_t *len, const marker **which)
{
    for (size_t i = p->scan; i < p->in.size; i++) {
        int m = marker_here(p, set, i, len, which);
        if (!m) continue;
        *at = p->scan = i;
        return m > 0;
    }
    *at = p->scan = p->in.size;
    return 0;
}

size_t skip_space(toolcall_parser *p, size_t at)
{
    if (at < p->space_from || at > p->space_end) p->space_from = p->space_end = at;
    at = p->space_end;
    while (at < p->in.size && is_space(p->in.data[at])) at++;
    return p->space_end = at;
}

/* ---- what is looked for ---- */

static const char *const COMMON_ENDS[] = {
    "</s>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|endoftext|>", "<｜end▁of▁sentence｜>", "<end_of_turn>", "<turn|>", "<eos>",
    "<|eot|>", "<|end|>", "<end_of_sentence>", "<|END_OF_TURN_TOKEN|>", "<|return|>", "[e~[", "<|im_assistant|>", "[|endofturn|]", "<|eos|>", "<|eom|>", "<|role_end|>",
    NULL,
};

static void prepare_text(toolcall_parser *p)
{
    const toolcall_format *f = p->f;
    marker_set *set = &p->text_set;
    for (int i = 0; i < 4; i++) marker_add(set, f->ends[i], f->flags & HEADERS ? MARK_STOP : MARK_END, 0);
    for (int i = 0; COMMON_ENDS[i]; i++) marker_add(set, COMMON_ENDS[i], MARK_END, 0);
    for (int i = 0; i < 6; i++) marker_add(set, f->drop[i], MARK_DROP, 0);
    if (f->flags & HEADERS) {
        marker_add(set, "<|start|>", MARK_HEADER, 0);
        marker_add(set, "<|channel|>", MARK_HEADER, 0);
    }
    if (p->options.no_calls || f->spelling.arguments == TOOLCALL_NONE) return;
    for (int i = 0; i < 5; i++) {
        marker_add(set, f->sections[i].open, MARK_SECTION, i);
        marker_add(set, f->sections[i].close, MARK_CLOSE, i);
    }
    if (f->flags & BARE_CALLS) marker_add(set, f->call_open, MARK_CALL, 0);
    if (f->flags & (BARE_OBJECTS | BARE_LISTS)) marker_add(set, "```", MARK_FENCE, 0);
    if (f->flags & BARE_OBJECTS) marker_add(set, "{", MARK_OBJECT, 0);
    if (f->flags & BARE_LISTS) marker_add(set, "[", MARK_LIST, 0);
}

/* ---- text ---- */

static void take_text(toolcall_parser *p, size_t end)
{
    if (end > p->pos) {
        out_text(p, p->in_think ? &p->reasoning : &p->content, p->in.data + p->pos, end - p->pos);
        for (size_t i = p->pos; i < end && !p->visible_text; i++) p->visible_text = !is_space(p->in.data[i]);
        p->last = p->in.data[end - 1];
    }
    p->pos = end;
    if (p->scan < end) p->scan = end;
}

static bool line_start(const toolcall_parser *p) { return !p->visible_text || p->last == '\n'; }

/* Bare JSON and lists are looked for where a line begins or behind a word or a sentence; never in code. */
static bool bare_place(const toolcall_parser *p)
{
    if (p->fence) return false;
    return line_start(p) || (p->last && strchr(" \t.:!?,;>)", p->last));
}

static step_result text_step(toolcall_parser *p)
{
    size_t at, len;
    const marker *hit = NULL;
    int found = marker_search(p, &p->text_set, &at, &len, &hit);
    take_text(p, at);
    if (!found) return STEP_MORE;
    bool open = p->closed;
    switch (hit->kind) {
    case MARK_DROP:
        p->pos = p->scan = at + len;
        p->last = '\n';
        return STEP_ON;
    case MARK_END:
        out_hold(p, p->in_think ? &p->reasoning : &p->content, p->in.data + at, len);
        p->pos = p->scan = at + len;
        return STEP_ON;
    case MARK_CLOSE:
        if (!p->stray_close) break;
        p->stray_close = false;
        p->pos = p->scan = at + len;
        return STEP_ON;
    case MARK_SECTION:
        if (open) break;
        body_open(p, hit->index, len);
        return STEP_ON;
    case MARK_CALL:
        if (open) break;
        body_open(p, -1, 0);
        return STEP_ON;
    case MARK_OBJECT: case MARK_LIST:
        if (open || !bare_place(p)) break;
        body_open(p, -1, 0);
        p->b.known_only = !line_start(p);
        p->b.deferred = hit->kind == MARK_LIST;
        p->queue.visible = p->queue.count;
        return STEP_ON;
    case MARK_FENCE: p->fence = !p->fence; break;
    case MARK_STOP: p->pos = p->scan = at + len; p->mode = MODE_HEADER; return STEP_ON;
    case MARK_HEADER: p->mode = MODE_HEADER; return STEP_ON;
    default: break;
    }
    take_text(p, at + len);
    return STEP_ON;
}

/* ---- feeding ---- */

static step_result step(toolcall_parser *p)
{
    switch (p->mode) {
    case MODE_START: return think_start(p);
    case MODE_THINK: return think_step(p);
    case MODE_TEXT: return text_step(p);
    case MODE_BODY: return body_step(p);
    case MODE_HEADER: return header_step(p);
    case MODE_PAYLOAD: return payload_step(p);
    }
    return STEP_MORE;
}

static bool run(toolcall_parser *p)
{
    while (!p->failed && step(p) == STEP_ON) { }
    if (p->c.arguments.failed || p->c.name.failed || p->b.value.failed || p->b.key.failed) p->failed = true;
    if (p->options.eager && p->mode == MODE_BODY) call_tell(p);
    if (!p->b.deferred) p->queue.visible = p->queue.count;
    return !p->failed;
}

/* Forgets what was read, now and then. */
static void compact(toolcall_parser *p)
{
    bool in_body = p->mode == MODE_BODY || p->mode == MODE_PAYLOAD;
    size_t keep = in_body ? p->b.start : p->pos;
    if (keep < KEEP || keep < p->in.size / 2) return;
    memmove(p->in.data, p->in.data + keep, p->in.size - keep + 1);
    p->in.size -= keep;
    p->space_from = p->space_end = 0;
    p->base += keep;
    p->pos -= keep;
    p->scan -= keep;
    if (!in_body) return;
    p->b.start -= keep;
    p->b.open_end -= keep;
    p->b.call_start -= keep;
    p->b.last_end -= keep;
}

static bool note_special(toolcall_parser *p)
{
    if (p->special_count == p->special_capacity) {
        size_t capacity = p->special_capacity ? p->special_capacity * 2 : 16;
        uint64_t *special = mem_resize(p->special, capacity, sizeof *special);
        if (!special) return false;
        p->special = special;
        p->special_capacity = capacity;
    }
    p->special[p->special_count++] = p->base + p->in.size;
    return true;
}

static void recycle_queue(toolcall_parser *p)
{
    out_queue *q = &p->queue;
    if (q->head < q->count) return;
    q->head = q->count = q->visible = 0;
    buf_clear(&q->text);
}

bool toolcall_feed(toolcall_parser *p, const char *text, size_t size, bool special)
{
    if (p->failed || p->final) return !p->failed;
    recycle_queue(p);
    compact(p);
    if (p->response) return template_feed(p, text, size);
    if (special && p->options.is_token && !note_special(p)) p->failed = true;
    if (!buf_add(&p->in, text, size)) p->failed = true;
    return run(p);
}

bool toolcall_finish(toolcall_parser *p, const char *finish_reason)
{
    if (p->failed || p->final) return !p->failed;
    recycle_queue(p);
    if (p->response && template_finish(p) && p->response) {
        p->queue.visible = p->queue.count;
        return !p->failed;
    }
    p->final = true;
    p->length = finish_reason && !strcmp(finish_reason, "length");
    if (!buf_add(&p->in, "", 0)) p->failed = true;
    run(p);
    p->queue.visible = p->queue.count;
    return !p->failed;
}

toolcall_parser *toolcall_parser_new(const toolcall_format *f, const toolcall_options *options, vlm_error *error)
{
    toolcall_parser *p = MEM_NEW(toolcall_parser);
    if (!p) return err_memory(error, sizeof *p), NULL;
    p->f = f;
    if (options) p->options = *options;
    if (json_is_array(p->options.tools) && !(p->tools = json_deep_copy(p->options.tools))) {
        mem_free(p);
        return err_memory(error, 0), NULL;
    }
    p->options.tools = NULL;
    prepare_text(p);
    think_prepare(p);
    tags_prepare(p);
    if (options && options->response && !template_open(p, options, error)) {
        toolcall_parser_free(p);
        return NULL;
    }
    return p;
}

void toolcall_parser_free(toolcall_parser *p)
{
    if (!p) return;
    json_decref(p->tools);
    response_parser_free(p->response);
    buf_free(&p->in);
    buf_free(&p->queue.text);
    buf_free(&p->reasoning.pending);
    buf_free(&p->content.pending);
    buf_free(&p->payload);
    body_free(&p->b);
    call_free(&p->c);
    mem_free(p->queue.item);
    mem_free(p->special);
    mem_free(p);
}

bool toolcall_in_reasoning(const toolcall_parser *p) { return p->in_think; }
size_t toolcall_count(const toolcall_parser *p) { return p->calls; }
