/* tokenize.c - `vlm tokenize`: text to token ids and back, for one text or in bulk. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/err.h"
#include "base/file.h"
#include "cli/commands.h"
#include "cli/jsonl.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

typedef struct tokenize_options {
    const char *model, *tokenizer;
    bool jsonl, decode, add_special, skip_special;
    int64_t time;
} tokenize_options;

static void defaults(void *memory) { ((tokenize_options *)memory)->add_special = true; }

static const option options_table[] = {
    {OPT_TEXT, "model", "DIR", "checkpoint directory (the demo model)", offsetof(tokenize_options, model), NULL, 'm'},
    {OPT_TEXT, "tokenizer", "FILE", "a tokenizer's file alone: tokenizer.json, tekken.json, tiktoken, sentencepiece .model", offsetof(tokenize_options, tokenizer), NULL, 0},
    {OPT_SWITCH, "jsonl", NULL, "in bulk: one JSON object a line", offsetof(tokenize_options, jsonl), NULL, 0},
    {OPT_SWITCH, "decode", NULL, "the words are ids; print their text", offsetof(tokenize_options, decode), NULL, 'd'},
    {OPT_SWITCH, "add-special-tokens", NULL, "as the tokenizer's template says: BOS and the like (yes)", offsetof(tokenize_options, add_special), NULL, 0},
    {OPT_SWITCH, "skip-special-tokens", NULL, "leave control tokens out of the text", offsetof(tokenize_options, skip_special), NULL, 0},
    {OPT_INT, "time", "N", "encode the text N times; print the best time and the number of tokens as JSON", offsetof(tokenize_options, time), NULL, 0},
    {0},
};

typedef struct session { const tokenize_options *options; tokenizer *t; } session;

/* ---- bulk ---- */

static json_t *token_json(const tokenizer *t, int32_t id)
{
    const char *token = tokenizer_token(t, id);
    return token ? jsonl_string(token, strlen(token)) : json_null();
}

static json_t *encode_case(const session *s, const json_t *input, vlm_error *error)
{
    const char *text;
    size_t size;
    if (!jsonl_get_string(input, "text", &text, &size, error)) return NULL;
    encode_options options = {.special = true, .add_special = jsonl_get_bool(input, "add_special_tokens", s->options->add_special)};
    ids list = {0};
    json_t *id_array = json_array(), *tokens = json_array(), *result = NULL;
    if (tokenizer_encode(s->t, text, size, &options, &list, error)) {
        int failed = 0;
        for (size_t i = 0; i < list.count; i++)
            failed |= json_array_append_new(id_array, json_integer(list.id[i])) | json_array_append_new(tokens, token_json(s->t, list.id[i]));
        if (!failed) result = json_pack("{s:O, s:O}", "ids", id_array, "tokens", tokens);
        if (!result) err_memory(error, list.count);
    }
    json_decref(id_array);
    json_decref(tokens);
    ids_free(&list);
    return result;
}

static bool read_ids(const json_t *array, ids *out, vlm_error *error)
{
    if (!json_is_array(array)) return err_set(error, VLM_INVALID, "a case is {\"text\": ...} or {\"ids\": [...]}");
    for (size_t i = 0; i < json_array_size(array); i++) {
        const json_t *item = json_array_get(array, i);
        json_int_t id = json_integer_value(item);
        if (!json_is_integer(item) || id < 0 || id > INT32_MAX) return err_set(error, VLM_INVALID, "ids[%zu] is no token id", i);
        if (!ids_add(out, (int32_t)id)) return err_memory(error, 0);
    }
    return true;
}

static bool take_piece(json_t *pieces, buf *piece, vlm_error *error)
{
    if (json_array_append_new(pieces, jsonl_string(piece->data ? piece->data : "", piece->size)) != 0) return err_memory(error, piece->size);
    buf_clear(piece);
    return true;
}

/* One piece for each id, "" while a character is unfinished, and what the end releases. */
static bool stream(const tokenizer *t, const ids *list, bool skip, json_t *pieces, vlm_error *error)
{
    detokenizer *d = detokenizer_new(t, skip, error);
    buf piece = {0};
    bool ok = d != NULL;
    for (size_t i = 0; ok && i < list->count; i++)
        ok = detokenizer_add(d, list->id[i], &piece, error) && take_piece(pieces, &piece, error);
    if (ok) ok = detokenizer_finish(d, &piece, error) && (!piece.size || take_piece(pieces, &piece, error));
    buf_free(&piece);
    detokenizer_free(d);
    return ok;
}

static json_t *decode_case(const session *s, const json_t *input, vlm_error *error)
{
    bool skip = jsonl_get_bool(input, "skip_special_tokens", s->options->skip_special);
    ids list = {0};
    buf text = {0};
    json_t *pieces = json_array(), *result = NULL;
    if (read_ids(json_object_get(input, "ids"), &list, error) && tokenizer_decode(s->t, list.id, list.count, skip, &text, error) &&
        stream(s->t, &list, skip, pieces, error)) {
        result = json_pack("{s:o, s:O}", "text", jsonl_string(text.data ? text.data : "", text.size), "pieces", pieces);
        if (!result) err_memory(error, text.size);
    }
    json_decref(pieces);
    buf_free(&text);
    ids_free(&list);
    return result;
}

static json_t *answer(void *user, const json_t *input, vlm_error *error)
{
    if (json_object_get(input, "text")) return encode_case(user, input, error);
    return decode_case(user, input, error);
}

/* ---- one text ---- */

/* The words with spaces between them, or standard input when there are none. */
static bool read_text(texts words, buf *text, vlm_error *error)
{
    if (!words.count) return file_read("-", 1u << 30, text, error);
    for (int i = 0; i < words.count; i++)
        if ((i && !buf_addc(text, ' ')) || !buf_adds(text, words.item[i])) return err_memory(error, 0);
    return true;
}

static bool print_ids(const session *s, const buf *text, vlm_error *error)
{
    encode_options options = {.special = true, .add_special = s->options->add_special};
    ids list = {0};
    bool ok = tokenizer_encode(s->t, text->data ? text->data : "", text->size, &options, &list, error);
    for (size_t i = 0; ok && i < list.count; i++) {
        json_t *token = token_json(s->t, list.id[i]);          /* quoted and escaped, as in tokenizer.json */
        char *quoted = json_dumps(token, JSON_ENCODE_ANY);
        printf("%7d  %s\n", (int)list.id[i], quoted ? quoted : "");
        free(quoted);
        json_decref(token);
    }
    ids_free(&list);
    return ok;
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static bool time_ids(const session *s, const buf *text, vlm_error *error)
{
    encode_options options = {.special = true, .add_special = s->options->add_special};
    double best = INFINITY;
    size_t count = 0;
    bool ok = true;
    for (int64_t i = 0; ok && i < s->options->time; i++) {
        ids list = {0};
        double begin = seconds();
        ok = tokenizer_encode(s->t, text->data ? text->data : "", text->size, &options, &list, error);
        best = fmin(best, seconds() - begin);
        count = list.count;
        ids_free(&list);
    }
    if (ok) printf("{\"seconds\": %.6f, \"bytes\": %zu, \"tokens\": %zu}\n", best, text->size, count);
    return ok;
}

static bool print_text(const session *s, const buf *numbers, vlm_error *error)
{
    ids list = {0};
    buf text = {0};
    bool ok = true;
    for (const char *p = numbers->data ? numbers->data : ""; ok;) {
        p += strspn(p, " \t\r\n,[]");
        if (!*p) break;
        char *end;
        long long id = strtoll(p, &end, 10);
        ok = end > p && id >= 0 && id <= INT32_MAX ? ids_add(&list, (int32_t)id) : err_set(error, VLM_INVALID, "no token id: %.40s", p);
        p = end;
    }
    if (ok) ok = tokenizer_decode(s->t, list.id, list.count, s->options->skip_special, &text, error);
    if (ok) {
        fwrite(text.data ? text.data : "", 1, text.size, stdout);
        putchar('\n');
    }
    buf_free(&text);
    ids_free(&list);
    return ok;
}

static int run_tokenize(const command *self, void *memory, texts words)
{
    (void)self;
    session s = {.options = memory};
    vlm_error error = {0};
    const tokenize_options *o = memory;
    s.t = o->tokenizer ? tokenizer_load_file(o->tokenizer, &error) : tokenizer_load(o->model ? o->model : demo_model(), &error);
    if (!s.t) return report(&error);
    int exit_code = 0;
    if (o->jsonl) exit_code = jsonl_run(answer, &s);
    else {
        buf text = {0};
        bool (*run)(const session *, const buf *, vlm_error *) = o->time > 0 ? time_ids : o->decode ? print_text : print_ids;
        if (!read_text(words, &text, &error) || !run(&s, &text, &error))
            exit_code = report(&error);
        buf_free(&text);
    }
    tokenizer_free(s.t);
    return exit_code;
}

const command command_tokenize = {
    .name = "tokenize", .help = "Turn text into token ids, or ids into text", .usage = "[options] [TEXT | --decode ID ...]",
    .options = options_table, .size = sizeof(tokenize_options), .defaults = defaults, .run = run_tokenize,
    .description = "Prints id and token of each token of the text (the words, or standard input). With --decode the words are ids, and their text is printed.\n"
                   "With --jsonl every line of standard input is a case, and gets a line as answer:\n"
                   "  {\"text\": ..., \"add_special_tokens\": true}     -> {\"ids\": [...], \"tokens\": [...]}\n"
                   "  {\"ids\": [...], \"skip_special_tokens\": false}  -> {\"text\": ..., \"pieces\": [...]}, the pieces as they are streamed, id by id\n"
                   "A case that fails gets {\"error\": ...}.",
};
