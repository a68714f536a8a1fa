/* python.c - calls that are Python: NAME(KEY=VALUE, ...). Keyword arguments only; VALUE is a literal. */
#include "text/toolcall/internal.h"

enum { PY_NAME, PY_FIRST, PY_KEY, PY_VALUE, PY_AFTER };
enum { IDENTIFIER_MAX = 256 };

/* [A-Za-z_][A-Za-z0-9_]*, with dots and dashes in names of functions. 1: it ends at *end; 0: none; -1: more. */
static int identifier(const toolcall_parser *p, size_t at, bool dots, size_t *end)
{
    const char *s = p->in.data;
    size_t i = at;
    while (i < p->in.size && i - at < IDENTIFIER_MAX &&
           (is_letter(s[i]) || (unsigned char)s[i] >= 0x80 || (i > at && (is_digit(s[i]) || (dots && (s[i] == '.' || s[i] == '-')))))) i++;
    *end = i;
    if (i >= p->in.size && !p->final) return -1;
    return i > at && i - at < IDENTIFIER_MAX;
}

static step_result read_name(toolcall_parser *p)
{
    size_t at = skip_space(p, p->pos), end;
    int found = identifier(p, at, true, &end);
    if (found < 0) return STEP_MORE;
    if (!found || end >= p->in.size || p->in.data[end] != '(') return STEP_FAILED;
    buf_add(&p->c.name, p->in.data + at, end - at);
    buf_adds(&p->c.arguments, "{");
    p->pos = end + 1;
    p->b.step = PY_FIRST;
    return STEP_ON;
}

static step_result read_key(toolcall_parser *p)
{
    size_t at = skip_space(p, p->pos), end;
    if (at >= p->in.size) return STEP_MORE;
    if (p->in.data[at] == ')') {
        p->pos = at + 1;
        buf_adds(&p->c.arguments, "}");
        call_commit(p);
        return STEP_ON;
    }
    int found = identifier(p, at, false, &end);
    if (found < 0) return STEP_MORE;
    size_t equals = skip_space(p, end);
    if (equals >= p->in.size) return STEP_MORE;
    if (!found || p->in.data[equals] != '=') return STEP_FAILED;
    buf_clear(&p->b.key);
    buf_add(&p->b.key, p->in.data + at, end - at);
    p->pos = equals + 1;
    value_reader *r = &p->b.reader;
    value_reset(r, VALUE_PYTHON);
    r->loose = true;
    p->b.step = PY_VALUE;
    p->b.key_seen = false;
    return STEP_ON;
}

/* A word that is no literal, where a string may stand: known tools get it as text. */
static bool is_bare_text(const toolcall_parser *p, size_t at)
{
    char c = p->in.data[at];
    if (!tool_known(p, p->c.name.data) || strchr("\"'[{(,)", c)) return false;
    const json_t *schema = tool_schema(p, p->c.name.data);
    unsigned types = type_mask(schema, type_property(schema, schema, p->b.key.data));
    return types & TYPE_STRING;
}

static void add_argument(toolcall_parser *p)
{
    const value_reader *r = &p->b.reader;
    buf *out = &p->c.arguments, text = {0};
    if (out->size > 1) buf_adds(out, ", ");
    value_add_string(out, p->b.key.data, p->b.key.size);
    buf_adds(out, ": ");
    const json_t *schema = tool_schema(p, p->c.name.data);
    unsigned types = schema ? type_mask(schema, type_property(schema, schema, p->b.key.data)) : 0;
    bool retype = r->out.data[0] == '"' && types && !(types & TYPE_STRING) && value_decode_string(r->out.data, r->out.size, &text);
    if (!retype || !type_value(types, 0, text.data ? text.data : "", text.size, out)) buf_add(out, r->out.data, r->out.size);
    buf_free(&text);
}

static step_result read_value(toolcall_parser *p)
{
    value_reader *r = &p->b.reader;
    if (!p->b.key_seen) {
        size_t at = skip_space(p, p->pos);
        if (at >= p->in.size) return STEP_MORE;
        r->bare = is_bare_text(p, at);
        p->b.key_seen = true;
        p->pos = at;
    }
    value_text t = {.s = p->in.data, .n = p->in.size, .pos = p->pos, .final = p->final, .p = p};
    value_result result;
    do result = value_run(r, &t);
    while (result == VALUE_KEY || result == VALUE_MEMBER);
    p->pos = t.pos;
    if (result == VALUE_MORE) return STEP_MORE;
    if (result == VALUE_BAD) return STEP_FAILED;
    add_argument(p);
    p->c.arguments_known = p->options.eager;
    p->b.step = PY_AFTER;
    return STEP_ON;
}

/* A comma, the end, or (forgotten comma) the next keyword */
static step_result read_after(toolcall_parser *p)
{
    size_t at = skip_space(p, p->pos);
    if (at >= p->in.size) return STEP_MORE;
    char c = p->in.data[at];
    if (c != ',' && c != ')' && !is_letter(c)) return STEP_FAILED;
    p->pos = at + (c == ',');
    p->b.step = PY_KEY;
    return STEP_ON;
}

step_result python_step(toolcall_parser *p)
{
    switch (p->b.step) {
    case PY_NAME: return read_name(p);
    case PY_FIRST: case PY_KEY: return read_key(p);
    case PY_VALUE: return read_value(p);
    default: return read_after(p);
    }
}
