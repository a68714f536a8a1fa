/* grammar.c - `vlm grammar`: does a text follow a schema, a regular expression or a grammar? For one text or in bulk. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "cli/commands.h"
#include "cli/grammar_cost.h"
#include "cli/jsonl.h"
#include "text/constrain.h"
#include "text/toolgrammar.h"

typedef struct grammar_options {
    const char *schema, *regex, *ebnf, *model;
    bool jsonl, json_object;
} grammar_options;

static const option options_table[] = {
    {OPT_TEXT, "schema", "FILE", "the text has to follow this JSON schema", offsetof(grammar_options, schema), NULL, 's'},
    {OPT_TEXT, "regex", "PATTERN", "the text has to match this regular expression", offsetof(grammar_options, regex), NULL, 'r'},
    {OPT_TEXT, "ebnf", "FILE", "the text has to follow this grammar (GBNF or Lark)", offsetof(grammar_options, ebnf), NULL, 'g'},
    {OPT_SWITCH, "json-object", NULL, "the text has to be a JSON object", offsetof(grammar_options, json_object), NULL, 0},
    {OPT_TEXT, "model", "DIR", "with --jsonl: the checkpoint whose vocabulary \"cost\" is for", offsetof(grammar_options, model), NULL, 'm'},
    {OPT_SWITCH, "jsonl", NULL, "in bulk: one JSON object a line", offsetof(grammar_options, jsonl), NULL, 0},
    {0},
};

/* Cases of one file often share their grammar: the last one is kept. */
typedef struct session { json_t *key; grammar *compiled; tokenizer *t; grammar_vocab *vocab; } session;

static const char *const kinds[] = {"tools", "tool_choice", "parallel_tool_calls", "format", "chat_template", "schema", "json_schema", "json_object", "regex", "choice", "ebnf", "gbnf", "lark", "grammar", "syntax", "response_format", NULL};

/* The calls of tools in a format: {"tools", "tool_choice", "parallel_tool_calls", "format" | "chat_template"}. */
static bool tools_root(grammar_builder *b, const json_t *what, grammar_expr *root, vlm_error *error)
{
    const char *name = json_string_value(json_object_get(what, "format"));
    const toolcall_format *f = name ? toolcall_format_find(name) : toolcall_format_detect(json_string_value(json_object_get(what, "chat_template")));
    if (!f) return err_set(error, VLM_INVALID, "there is no format \"%s\"", name);
    bool parallel = jsonl_get_bool(what, "parallel_tool_calls", true);
    return toolgrammar(b, f, json_object_get(what, "tools"), json_object_get(what, "tool_choice"), parallel, 0, false, root, error);
}

static grammar *compile(const json_t *what, grammar_vocab *vocab, vlm_error *error)
{
    grammar_builder *b = grammar_builder_new(NULL);
    grammar *g = NULL;
    grammar_expr root = 0;
    const json_t *format = json_object_get(what, "response_format");
    if (!b) err_memory(error, 0);
    else if (json_object_get(what, "tools") ? tools_root(b, what, &root, error) : constrain_format(b, format ? format : what, false, &root, error)) {
        if (root) g = grammar_compile(b, root, vocab, error);
        else err_set(error, VLM_INVALID, "there is no constraint");
    }
    grammar_builder_free(b);
    return g;
}

/* The members that say what the grammar is. */
static json_t *grammar_part(const json_t *input)
{
    json_t *part = json_object();
    for (const char *const *k = kinds; part && *k; k++) {
        json_t *v = json_object_get(input, *k);
        if (v) json_object_set(part, *k, v);
    }
    return part;
}

/* {"accepted", "at"}: at is the offset of the first byte that cannot stand there, or the text's length. */
static json_t *try_text(grammar *g, const char *text, size_t size, vlm_error *error)
{
    matcher *m = matcher_new(g, error);
    if (!m) return NULL;
    size_t at = size;
    vlm_error own = {0};
    bool fits = matcher_bytes(m, text, size, &at, &own);
    json_t *result = NULL;
    if (!fits && own.code != VLM_OK) *error = own;
    else result = json_pack("{s:b, s:I}", "accepted", fits && matcher_accepting(m), "at", (json_int_t)(fits ? size : at));
    matcher_free(m);
    return result;
}

/* ---- texts that the grammar admits, made at random ---- */
typedef struct dice { uint64_t state; } dice;

static uint32_t roll(dice *d, uint32_t n)
{
    d->state = d->state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((d->state >> 33) % n);
}

/* Which bytes may come next? */
static size_t next_bytes(matcher *m, uint8_t *out, vlm_error *error)
{
    size_t n = 0;
    for (int c = 0; c < 256 && error->code == VLM_OK; c++) {
        uint8_t byte = (uint8_t)c;
        if (!matcher_bytes(m, &byte, 1, NULL, error)) continue;
        matcher_rollback(m, 1);
        out[n++] = byte;
    }
    return n;
}

/* Letters are taken more often than what is rarely written; the longer the text, the more what closes something. */
static uint8_t choose(dice *d, const uint8_t *byte, size_t n, size_t length)
{
    static const char closing[] = "\"}])>0,";
    for (int tries = 0; tries < 12; tries++) {
        uint8_t c = byte[roll(d, (uint32_t)n)];
        if (length > 200 && roll(d, 400) < length) {
            for (size_t i = 0; i < n; i++)
                if (strchr(closing, byte[i]) && byte[i] && !roll(d, 3)) return byte[i];
        }
        if ((c >= 'a' && c <= 'z') || strchr("\"{}[]<>:,=()", c) || !roll(d, 8)) return c;
    }
    return byte[roll(d, (uint32_t)n)];
}

/* Now and then one of the given words as a whole, where it is admitted: closing tags are seldom hit by chance. */
static bool add_word(matcher *m, const json_t *words, dice *d, buf *out, vlm_error *error)
{
    size_t n = json_array_size(words);
    if (!n || roll(d, 3)) return false;
    const json_t *word = json_array_get(words, roll(d, (uint32_t)n));
    return matcher_bytes(m, json_string_value(word), json_string_length(word), NULL, error) && buf_add(out, json_string_value(word), json_string_length(word));
}

static bool sample(grammar *g, const json_t *words, dice *d, size_t limit, buf *out, vlm_error *error)
{
    matcher *m = matcher_new(g, error);
    if (!m) return false;
    uint8_t byte[256];
    size_t n;
    while (out->size < limit && error->code == VLM_OK && (n = next_bytes(m, byte, error))) {
        if (matcher_accepting(m) && !roll(d, out->size > 400 ? 2 : 5)) break;
        if (add_word(m, words, d, out, error)) continue;
        uint8_t c = choose(d, byte, n, out->size);
        if (!matcher_bytes(m, &c, 1, NULL, error) || !buf_addc(out, (char)c)) break;
    }
    bool ok = error->code == VLM_OK && matcher_accepting(m);
    if (!ok && error->code == VLM_OK) buf_clear(out);  /* it did not come to an end */
    matcher_free(m);
    return error->code == VLM_OK;
}

static json_t *samples(grammar *g, const json_t *input, vlm_error *error)
{
    size_t n = (size_t)json_integer_value(json_object_get(input, "sample"));
    dice d = {(uint64_t)json_integer_value(json_object_get(input, "seed")) * 2654435761u + 12345};
    json_t *list = json_array();
    for (size_t i = 0; i < n && i < 10000 && list; i++) {
        buf text = {0};
        bool ok = sample(g, json_object_get(input, "words"), &d, 4000, &text, error);
        if (ok && text.data) json_array_append_new(list, jsonl_string(text.data, text.size));
        buf_free(&text);
        if (!ok) {
            json_decref(list);
            return NULL;
        }
    }
    return json_pack("{s:o}", "samples", list);
}

static json_t *answer(void *user, const json_t *input, vlm_error *error)
{
    session *s = user;
    const char *text = NULL;
    size_t size = 0;
    if (!json_object_get(input, "sample") && !jsonl_get_string(input, "text", &text, &size, error)) return NULL;
    json_t *part = grammar_part(input);
    if (!part) return err_memory(error, 0) ? NULL : NULL;
    if (s->vocab && jsonl_get_bool(input, "cost", false)) {
        json_t *cost = grammar_cost(compile, part, input, s->t, s->vocab, error);
        json_decref(part);
        return cost;
    }
    char *key = json_dumps(part, JSON_COMPACT), *before = s->key ? json_dumps(s->key, JSON_COMPACT) : NULL;
    if (!s->compiled || !key || !before || strcmp(key, before)) {      /* as text: the order of members matters */
        grammar_unref(s->compiled);
        json_decref(s->key);
        s->key = json_incref(part);
        s->compiled = compile(part, NULL, error);
    }
    free(key);
    free(before);
    json_decref(part);
    if (!s->compiled) return NULL;
    return text ? try_text(s->compiled, text, size, error) : samples(s->compiled, input, error);
}

static json_t *file_json(const char *path, bool parse, vlm_error *error)
{
    buf text = {0};
    json_t *value = NULL;
    json_error_t why;
    if (file_read(path, 64u << 20, &text, error)) {
        value = parse ? json_loadb(text.data ? text.data : "", text.size, JSON_DECODE_ANY | JSON_ALLOW_NUL, &why) : jsonl_string(text.data ? text.data : "", text.size);
        if (!value) err_set(error, VLM_FORMAT, "%s: line %d: %s", path, parse ? why.line : 0, parse ? why.text : "out of memory");
    }
    buf_free(&text);
    return value;
}

static json_t *wanted(const grammar_options *o, vlm_error *error)
{
    json_t *v = NULL;
    const char *key = NULL;
    if (o->schema) key = "schema", v = file_json(o->schema, true, error);
    else if (o->ebnf) key = "ebnf", v = file_json(o->ebnf, false, error);
    else if (o->regex) key = "regex", v = jsonl_string(o->regex, strlen(o->regex));
    else if (o->json_object) key = "json_object", v = json_true();
    else err_set(error, VLM_INVALID, "one of --schema, --regex, --ebnf, --json-object is needed, or --jsonl");
    return v ? json_pack("{s:o}", key, v) : NULL;
}

static bool one_text(const grammar_options *o, texts words, int *exit_code, vlm_error *error)
{
    buf text = {0};
    json_t *what = wanted(o, error), *result = NULL;
    grammar *g = NULL;
    bool ok = what != NULL;
    if (ok && !words.count) ok = file_read("-", 1u << 30, &text, error);
    for (int i = 0; ok && i < words.count; i++)
        if ((i && !buf_addc(&text, ' ')) || !buf_adds(&text, words.item[i])) ok = err_memory(error, 0);
    if (ok) ok = (g = compile(what, NULL, error)) != NULL;
    if (ok) ok = (result = try_text(g, text.data ? text.data : "", text.size, error)) != NULL;
    if (ok) {
        bool accepted = json_is_true(json_object_get(result, "accepted"));
        size_t at = (size_t)json_integer_value(json_object_get(result, "at"));
        if (accepted) puts("accepted");
        else if (at < text.size) printf("rejected at byte %zu\n", at);
        else puts("incomplete");
        *exit_code = accepted ? 0 : 1;
    }
    json_decref(result);
    grammar_unref(g);
    json_decref(what);
    buf_free(&text);
    return ok;
}

static int run_grammar(const command *self, void *memory, texts words)
{
    (void)self;
    const grammar_options *o = memory;
    vlm_error error = {0};
    int exit_code = 0;
    if (o->jsonl) {
        session s = {0};
        if (o->model && !(s.t = tokenizer_load(o->model, &error))) return report(&error);
        if (s.t && !(s.vocab = grammar_vocab_from_tokenizer(s.t, NULL, 0, &error))) {
            tokenizer_free(s.t);
            return report(&error);
        }
        exit_code = jsonl_run(answer, &s);
        grammar_unref(s.compiled);
        grammar_vocab_unref(s.vocab);
        tokenizer_free(s.t);
        json_decref(s.key);
        return exit_code;
    }
    return one_text(o, words, &exit_code, &error) ? exit_code : report(&error);
}

const command command_grammar = {
    .name = "grammar", .help = "Does a text follow a JSON schema, a regular expression or a grammar?", .usage = "[options] [TEXT]",
    .options = options_table, .size = sizeof(grammar_options), .run = run_grammar,
    .description = "Tries a text (the words, or standard input) as constrained decoding would see it. Exit code 0: accepted, 1: not.\n"
                   "With --jsonl every line of standard input is a case, and gets a line as answer:\n"
                   "  {\"schema\": {...} | \"regex\": ... | \"choice\": [...] | \"ebnf\": ... | \"json_object\": true, \"text\": ...}\n"
                   "  -> {\"accepted\": true, \"at\": 12}: at is the offset of the first byte that cannot stand there, or the length of the text\n"
                   "With -m, a case with \"cost\": true gets the times of masks along the text: {\"compile_us\", \"tokens\", \"allowed\", \"first_us\", \"again_us\", \"sizes\"}\n"
                   "  {\"tools\": [...], \"tool_choice\": ..., \"parallel_tool_calls\": true, \"format\": NAME, \"text\": ...}: calls in a format of `vlm parse`\n"
                   "  \"sample\": N, \"seed\": S, \"words\": [...] instead of \"text\" -> {\"samples\": [...]}, texts that are admitted, made at random, the words\n"
                   "  more often than by chance\n"
                   "A case whose schema or grammar is refused gets {\"error\": ...} with the JSON path.",
};
