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

static const char *const kinds[] = {"schema", "json_schema", "json_object", "regex", "choice", "ebnf", "gbnf", "lark", "grammar", "syntax", "response_format", NULL};

static grammar *compile(const json_t *what, grammar_vocab *vocab, vlm_error *error)
{
    grammar_builder *b = grammar_builder_new(NULL);
    grammar *g = NULL;
    grammar_expr root = 0;
    const json_t *format = json_object_get(what, "response_format");
    if (!b) err_memory(error, 0);
    else if (constrain_format(b, format ? format : what, false, &root, error)) {
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

static json_t *answer(void *user, const json_t *input, vlm_error *error)
{
    session *s = user;
    const char *text;
    size_t size;
    if (!jsonl_get_string(input, "text", &text, &size, error)) return NULL;
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
    return s->compiled ? try_text(s->compiled, text, size, error) : NULL;
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
                   "A case whose schema or grammar is refused gets {\"error\": ...} with the JSON path.",
};
