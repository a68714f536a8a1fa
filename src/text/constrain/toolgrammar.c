/* toolgrammar.c - tool calls by grammar, from the table of formats (toolcall/formats.c) and the tools' schemas. */
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "text/schema.h"
#include "text/toolcall/internal.h"
#include "text/toolgrammar.h"

enum { MAX_TOOLS = 4096, MAX_FORBIDDEN = 30 };

typedef struct tool { const char *name; const json_t *parameters; bool strict; size_t index; } tool;

typedef struct maker {
    grammar_builder *b;
    const toolcall_format *f;
    const toolcall_spelling *s;
    vlm_error *error;
    bool first;                    /* of the answer's calls */
    const tool *t;                 /* the tool whose call is being made */
    const json_t *schema;          /* its parameters, as the reader sees them */
} maker;

/* ---- markup: texts of the table, in which special tokens may stand ---- */
/* Length of what may be one control token at s: <...>, [NAME], or MiniMax's mark. */
static size_t token_size(const char *s)
{
    static const char mark[] = "]<]minimax[>[";
    if (!strncmp(s, mark, sizeof mark - 1)) return sizeof mark - 1;
    if (*s == '[') {
        size_t n = 1;
        while ((s[n] >= 'A' && s[n] <= 'Z') || s[n] == '_' || s[n] == '/') n++;
        return n > 2 && s[n] == ']' ? n + 1 : 0;
    }
    if (*s != '<') return 0;
    size_t n = 1;
    while (s[n] && s[n] != '>' && s[n] != ' ' && s[n] != '\n' && s[n] != '=' && s[n] != '<') n++;
    return s[n] == '>' ? n + 1 : 0;
}

/* The text as an expression: what may be a control token of the vocabulary is named as one. %i and the like are filled in; key, type: of a tag. */
static grammar_expr markup(const maker *k, const char *text, const char *key, const char *type)
{
    grammar_builder *b = k->b;
    grammar_expr all = grammar_empty(b);
    buf plain = {0};
    for (const char *s = text ? text : ""; *s && all;) {
        grammar_expr one = 0;
        size_t n = token_size(s);
        if (n) {
            buf token = {0};                           /* </%k> */
            for (size_t i = 0; i < n; i++) {
                if (s[i] == '%' && s[i + 1] == 'k') buf_adds(&token, key ? key : ""), i++;
                else buf_addc(&token, s[i]);
            }
            one = token.failed ? grammar_fail(b, VLM_MEMORY, "out of memory") : grammar_token_text(b, token.data, token.size);
            buf_free(&token);
        } else if (*s == '%' && s[1]) {
            n = 2;
            const char *value = s[1] == 'n' ? k->t->name : s[1] == 'k' ? key : s[1] == 't' ? type : s[1] == 's' ? (type && !strcmp(type, "string") ? "true" : "false") : NULL;
            if (s[1] == 'd') one = grammar_regex(b, "[A-Za-z0-9]{9}", 14, 0);
            else if (s[1] == 'i' || s[1] == 'I') one = k->first ? grammar_text(b, s[1] == 'i' ? "0" : "1") : grammar_regex(b, "[1-9][0-9]{0,3}", 15, 0);
            else one = value ? grammar_text(b, value) : grammar_none(b);
        } else {
            buf_addc(&plain, *s++);
            continue;
        }
        all = grammar_seq(b, (grammar_expr[]){all, grammar_bytes(b, plain.data ? plain.data : "", plain.size), one}, 3);
        buf_clear(&plain);
        s += n;
    }
    all = plain.failed ? grammar_fail(b, VLM_MEMORY, "out of memory") : grammar_seq2(b, all, grammar_bytes(b, plain.data ? plain.data : "", plain.size));
    buf_free(&plain);
    return all;
}

/* ---- tags ---- */
static grammar_expr tag_text(void *user, schema_tag_part part, const char *key, const char *type)
{
    const maker *k = user;
    const toolcall_spelling *s = k->s;
    const char *text = part == SCHEMA_TAG_BEGIN ? s->tag_begin : part == SCHEMA_TAG_MIDDLE ? s->tag_middle : part == SCHEMA_TAG_END ? s->tag_end : s->tag_between;
    if (text && strstr(text, "%k") && !key) return grammar_none(k->b);         /* the key comes again, and is not known */
    return markup(k, text, key, type);
}

static unsigned tag_reads(void *user, const char *key)
{
    const maker *k = user;
    if (strstr(k->s->tag_middle, "%t") || strstr(k->s->tag_middle, "%s")) return SCHEMA_READ_TAGGED;
    unsigned types = k->schema ? type_mask(k->schema, type_property(k->schema, k->schema, key ? key : "\x01")) : 0;
    if (!types) return k->f->flags & (UNTYPED_JSON | UNTYPED_PYTHON) ? SCHEMA_READ_OTHER : SCHEMA_READ_STRING;
    return (types & TYPE_STRING ? SCHEMA_READ_STRING : 0) | (types & ~(unsigned)TYPE_STRING ? SCHEMA_READ_OTHER : 0);
}

/* What would end a raw value, or begin another thing. \1 in the table stands for any ending: what is before it is forbidden. */
static void forbid(const char **list, size_t *n, const char *text, buf *cut)
{
    if (!text || *n >= MAX_FORBIDDEN) return;
    size_t size = strcspn(text, "\1"), from = 0;
    while (from < size && (text[from] == '\n' || text[from] == ' ')) from++;
    while (size > from && (text[size - 1] == '\n' || text[size - 1] == ' ')) size--;
    if (size == from) return;
    if (from == 0 && !text[size]) {
        list[(*n)++] = text;
        return;
    }
    if (cut->size + size - from + 1 > cut->limit) return;      /* the buffer must not move */
    list[(*n)++] = cut->data + cut->size;
    buf_add(cut, text + from, size - from);
    cut->data[cut->size++] = 0;
}

static grammar_expr tag_arguments(maker *k, const json_t *schema, schema_options *options, vlm_error *error)
{
    const toolcall_format *f = k->f;
    const char *forbidden[MAX_FORBIDDEN + 1] = {NULL};
    char room[4096];
    buf cut = {.data = room, .capacity = sizeof room, .limit = sizeof room - 8};
    size_t n = 0;
    const char *const texts[] = {f->tag_open, f->tag_close, f->call_close, f->value_open, f->call_open, k->s->trigger, f->flags & ENTITIES ? "&" : NULL, f->flags & ENTITIES ? "<" : NULL};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) forbid(forbidden, &n, texts[i], &cut);
    for (int i = 0; i < 5 && f->sections[i].open; i++) {
        forbid(forbidden, &n, f->sections[i].open, &cut);
        forbid(forbidden, &n, f->sections[i].close, &cut);
    }
    for (int i = 0; i < 6; i++) forbid(forbidden, &n, f->between[i], &cut);
    size_t middle = strlen(k->s->tag_middle);
    schema_tags tags = {.text = tag_text, .reads = tag_reads, .user = k, .forbidden = forbidden,
                        .trimmed = (f->flags & LINE_VALUES) && (!middle || k->s->tag_middle[middle - 1] != '\n')};
    options->notation = SCHEMA_TAGS;
    options->tags = &tags;
    return schema_expr(k->b, schema, options, error);
}

/* ---- one call ---- */
static grammar_expr arguments(maker *k, const json_t *schema, vlm_error *error)
{
    schema_options options = {.closed = true};
    switch (k->s->arguments) {
    case TOOLCALL_JSON: break;
    case TOOLCALL_PYTHON: options.notation = SCHEMA_ARGUMENTS; break;
    case TOOLCALL_PAIRS:
        options.notation = SCHEMA_PAIRS;
        options.pairs_quote = k->s->quote;
        options.pairs_quote_expr = grammar_token_text(k->b, k->s->quote, strlen(k->s->quote));
        options.sorted = true;
        break;
    default: return tag_arguments(k, schema, &options, error);
    }
    return schema_expr(k->b, schema, &options, error);
}

/* The tool's parameters as a schema of an object. */
static json_t *object_schema(const json_t *parameters)
{
    if (!json_is_object(parameters)) return json_pack("{s:s, s:{}, s:b}", "type", "object", "properties", "additionalProperties", 0);
    json_t *schema = json_copy((json_t *)parameters);          /* flat: what is in it keeps its place */
    if (schema && !json_object_get(schema, "type")) json_object_set_new(schema, "type", json_string("object"));
    return schema;
}

static grammar_expr one_call(maker *k, const tool *t)
{
    grammar_builder *b = k->b;
    vlm_error error = {0};
    json_t *schema = object_schema(t->parameters);
    if (!schema) return err_memory(k->error, 0);
    k->t = t;
    k->schema = t->parameters;
    grammar_expr inside = arguments(k, schema, &error);
    json_decref(schema);
    if (!inside && !t->strict && error.code == VLM_UNSUPPORTED && !grammar_builder_error(b)) {     /* what cannot be enforced is left to the model */
        schema = json_pack("{s:s}", "type", "object");
        k->schema = NULL;
        inside = schema ? arguments(k, schema, &error) : 0;
        json_decref(schema);
    }
    if (!inside) {
        if (k->error->code == VLM_OK) *k->error = error;
        err_prefix(k->error, "tools[%zu] (%.80s)", t->index, t->name);
        return 0;
    }
    return grammar_seq(b, (grammar_expr[]){markup(k, k->s->call_begin, NULL, NULL), grammar_text(b, t->name), markup(k, k->s->name_end, NULL, NULL), inside,
                       markup(k, k->s->call_end, NULL, NULL)}, 5);
}

static grammar_expr any_call(maker *k, const tool *t, size_t n, bool first)
{
    grammar_expr *list = MEM_ARRAY(n, grammar_expr), made = 0;
    if (!list) return err_memory(k->error, n);
    k->first = first;
    size_t count = 0;
    while (count < n && (list[count] = one_call(k, &t[count]))) count++;
    if (count == n) made = grammar_outline(k->b, grammar_alt(k->b, list, n));
    mem_free(list);
    return made;
}

static bool counts_calls(const toolcall_spelling *s)
{
    const char *const texts[] = {s->call_begin, s->name_end, s->call_end};
    for (int i = 0; i < 3; i++)
        if (texts[i] && (strstr(texts[i], "%i") || strstr(texts[i], "%I"))) return true;
    return false;
}

static grammar_expr calls(maker *k, const tool *t, size_t n, bool parallel)
{
    grammar_builder *b = k->b;
    grammar_expr first = any_call(k, t, n, true), all = first;
    if (!first) return 0;
    if (parallel) {
        grammar_expr next = counts_calls(k->s) ? any_call(k, t, n, false) : first;
        if (!next) return 0;
        all = grammar_seq2(b, first, grammar_repeat(b, grammar_seq2(b, markup(k, k->s->between, NULL, NULL), next), 0, -1));
    }
    return grammar_seq(b, (grammar_expr[]){markup(k, k->s->begin, NULL, NULL), all, markup(k, k->s->end, NULL, NULL)}, 3);
}

/* ---- the answer ---- */
/* Any text without the trigger; wrappers that the format knows may stand in it. */
static grammar_expr free_text(maker *k)
{
    grammar_builder *b = k->b;
    grammar_expr text = grammar_without(b, &(grammar_literal){k->s->trigger, strlen(k->s->trigger)}, 1), wrapper = grammar_none(b);
    for (int i = 0; i < 6 && k->f->drop[i]; i++) wrapper = grammar_alt2(b, wrapper, markup(k, k->f->drop[i], NULL, NULL));
    return grammar_seq2(b, text, grammar_repeat(b, grammar_seq2(b, wrapper, text), 0, -1));
}

static grammar_expr without_calls(maker *k, grammar_expr content)
{
    grammar_builder *b = k->b;
    if (strcmp(k->f->name, "harmony")) return content ? content : free_text(k);
    grammar_expr text = grammar_repeat(b, grammar_any(b), 0, -1);
    return grammar_seq2(b, markup(k, "<|channel|>final<|message|>", NULL, NULL), content ? content : text);
}

/* What may come before calls that are not required. */
static grammar_expr before_calls(maker *k, grammar_expr content)
{
    grammar_builder *b = k->b;
    if (strcmp(k->f->name, "harmony")) return content ? grammar_empty(b) : free_text(k);
    grammar_expr text = grammar_repeat(b, grammar_any(b), 0, -1);
    return grammar_optional(b, grammar_seq(b, (grammar_expr[]){markup(k, "<|channel|>commentary<|message|>", NULL, NULL), text, markup(k, "<|end|><|start|>assistant", NULL, NULL)}, 3));
}

static const char *chosen_name(const json_t *choice)
{
    const json_t *f = json_object_get(choice, "function");
    return json_string_value(json_object_get(f ? f : choice, "name"));
}

/* The tools of the request, or the one that is named. */
static bool read_tools(const json_t *tools, const char *only, tool *out, size_t *count, vlm_error *error)
{
    *count = 0;
    for (size_t i = 0; i < json_array_size(tools); i++) {
        const json_t *one = json_array_get(tools, i), *f = json_object_get(one, "function");
        if (!f) f = one;
        const char *name = json_string_value(json_object_get(f, "name"));
        if (!name || !*name) return err_set(error, VLM_INVALID, "tools[%zu]: it has no name", i);
        for (const char *s = name; *s; s++)
            if ((unsigned char)*s <= ' ' || strchr("\"\\<>()[]{}=:,", *s)) return err_set(error, VLM_INVALID, "tools[%zu]: the name \"%.80s\" has characters that no format can write", i, name);
        if (only && strcmp(only, name)) continue;
        const json_t *p = json_object_get(f, "parameters");
        out[(*count)++] = (tool){name, p ? p : json_object_get(f, "input_schema"), json_is_true(json_object_get(f, "strict")) || json_is_true(json_object_get(one, "strict")), i};
        if (only) return true;
    }
    return !only || err_set(error, VLM_INVALID, "tool_choice: there is no tool \"%.80s\"", only);
}

bool toolgrammar(grammar_builder *b, const toolcall_format *f, const json_t *tools, const json_t *choice, bool parallel, grammar_expr content, bool lead,
                 grammar_expr *out, vlm_error *error)
{
    vlm_error own = {0};
    if (!error) error = &own;
    error->code = VLM_OK;
    *out = 0;
    const char *word = json_string_value(choice), *only = json_is_object(choice) ? chosen_name(choice) : NULL;
    if (json_is_object(choice) && !only) return err_set(error, VLM_INVALID, "tool_choice: a function's name was expected");
    if (word && strcmp(word, "auto") && strcmp(word, "none") && strcmp(word, "required"))
        return err_set(error, VLM_INVALID, "tool_choice: \"%.80s\" is unknown (auto, none, required, or a function)", word);
    size_t n = json_array_size(tools), strict = 0;
    bool required = only || (word && !strcmp(word, "required"));
    if (n > MAX_TOOLS) return err_set(error, VLM_LIMIT, "tools: more than %d", MAX_TOOLS);
    if ((!n && required) || (word && !strcmp(word, "none")) || !n) return required ? err_set(error, VLM_INVALID, "tool_choice: there are no tools") : true;
    tool *list = MEM_ARRAY(n, tool);
    if (!list) return err_memory(error, n);
    maker k = {.b = b, .f = f, .s = toolcall_format_spelling(f), .error = error};
    bool ok = read_tools(tools, only, list, &n, error);
    for (size_t i = 0; i < n; i++) strict += list[i].strict;
    bool nothing = k.s->arguments == TOOLCALL_NONE || (!required && !strict && !content);
    if (ok && required && k.s->arguments == TOOLCALL_NONE) ok = err_set(error, VLM_UNSUPPORTED, "tool_choice: this model has no known format of tool calls");
    if (!ok || nothing) goto done;
    json_t *loose = json_pack("{s:s}", "type", "object");
    for (size_t i = 0; i < n && !required; i++)
        if (!list[i].strict) list[i].parameters = loose;
    grammar_expr all = calls(&k, list, n, parallel);
    if (all && !required) all = grammar_alt2(b, grammar_seq2(b, before_calls(&k, content), all), without_calls(&k, content));
    if (all && !strcmp(f->name, "harmony")) all = grammar_seq2(b, grammar_optional(b, markup(&k, "<|start|>assistant", NULL, NULL)), all);
    if (all && lead) all = grammar_seq2(b, grammar_regex(b, "[ \\n]{0,2}", 10, 0), all);
    *out = all;
    ok = all != 0;
    if (!ok && error->code == VLM_OK) {
        const vlm_error *failed = grammar_builder_error(b);
        if (failed) *error = *failed;
        else err_memory(error, 0);
    }
    json_decref(loose);
done:
    mem_free(list);
    return ok;
}
