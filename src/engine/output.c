/* output.c - see output.h. */
#include "engine/output.h"

#include <string.h>

#include "base/err.h"

enum { MAX_STOPS = 64, MAX_STOP_BYTES = 1024 };

/* A JSON array of strings; *out is NULL-terminated. `text` NULL: none. */
static bool read_strings(const char *text, const char *name, char ***out, vlm_error *error)
{
    if (!text) return true;
    json_error_t why;
    json_t *list = json_loads(text, 0, &why);
    bool ok = json_is_array(list) && json_array_size(list) <= MAX_STOPS;
    size_t n = ok ? json_array_size(list) : 0;
    for (size_t i = 0; ok && i < n; i++) {
        const json_t *item = json_array_get(list, i);
        ok = json_is_string(item) && json_string_length(item) > 0 && json_string_length(item) <= MAX_STOP_BYTES;
    }
    if (!ok) err_set(error, VLM_INVALID, "%s: a JSON array of at most %d strings of 1 to %d bytes was expected", name, MAX_STOPS, MAX_STOP_BYTES);
    if (ok && !(*out = MEM_ARRAY(n + 1, char *))) ok = err_memory(error, (n + 1) * sizeof **out);
    for (size_t i = 0; ok && i < n; i++)
        if (!((*out)[i] = mem_strdup(json_string_value(json_array_get(list, i))))) ok = err_memory(error, MAX_STOP_BYTES);
    json_decref(list);
    return ok;
}

static void free_strings(char **list)
{
    for (char **s = list; s && *s; s++) mem_free(*s);
    mem_free(list);
}

/* A stop token is a token, or text that is exactly one. */
static bool token_of(const vlm_model *m, const char *text, int32_t *id, vlm_error *error)
{
    if (!m->tok) return err_set(error, VLM_UNSUPPORTED, "this model has no tokenizer");
    if ((*id = tokenizer_id(m->tok, text)) >= 0) return true;
    ids list = {0};
    encode_options options = {.special = true};
    bool ok = tokenizer_encode(m->tok, text, strlen(text), &options, &list, error);
    if (ok && list.failed) ok = err_memory(error, 64);
    if (ok && list.count != 1) {
        ok = err_set(error, VLM_INVALID, "eos_tokens: \"%s\" is %zu tokens, not one", text, list.count);
        err_hint(error, "a longer text can be a stop string");
    }
    if (ok) *id = list.id[0];
    ids_free(&list);
    return ok;
}

static bool read_ids(const vlm_model *m, const char *text, json_t **list, vlm_error *error)
{
    if (!text) return true;
    json_error_t why;
    *list = json_loads(text, 0, &why);
    bool ok = json_is_array(*list) && json_array_size(*list) <= MAX_STOPS;
    for (size_t i = 0; ok && i < json_array_size(*list); i++) {
        const json_t *id = json_array_get(*list, i);
        ok = json_is_integer(id) && json_integer_value(id) >= 0 && json_integer_value(id) < m->vocab;
    }
    if (ok) return true;
    return err_set(error, VLM_INVALID, "stop_token_ids: a JSON array of at most %d ids from 0 to %d was expected", MAX_STOPS, m->vocab - 1);
}

static bool read_eos(output *o, const vlm_model *m, const output_options *options, vlm_error *error)
{
    char **extra = NULL;
    json_t *list = NULL;
    bool ok = read_strings(options->eos_tokens, "eos_tokens", &extra, error) && read_ids(m, options->stop_token_ids, &list, error);
    int n = 0;
    while (ok && extra && extra[n]) n++;
    if (ok && !(o->eos = MEM_ARRAY((size_t)(m->n_eos + n) + json_array_size(list), int32_t))) ok = err_memory(error, sizeof(int32_t));
    for (int i = 0; ok && !options->ignore_eos && i < m->n_eos; i++)
        if (m->eos[i] < m->vocab) o->eos[o->n_eos++] = m->eos[i];
    for (int i = 0; ok && i < n; i++)
        if ((ok = token_of(m, extra[i], &o->eos[o->n_eos], error))) o->n_eos++;
    for (size_t i = 0; ok && i < json_array_size(list); i++) o->eos[o->n_eos++] = (int32_t)json_integer_value(json_array_get(list, i));
    free_strings(extra);
    json_decref(list);
    return ok;
}

bool output_init(output *o, const vlm_model *m, const output_options *options, vlm_error *error)
{
    *o = (output){.include_stop = options->include_stop, .least = options->min_tokens};
    if (!read_strings(options->stop, "stop", &o->stops, error) || !read_eos(o, m, options, error) ||
        (m->tok && !(o->detok = detokenizer_new(m->tok, options->skip_special, error)))) {
        output_free(o);
        return false;
    }
    return true;
}

void output_free(output *o)
{
    detokenizer_free(o->detok);
    free_strings(o->stops);
    mem_free(o->eos);
    buf_free(&o->held);
    *o = (output){0};
}

/* `what` in the held text, which may hold any byte. */
static const char *find_text(const buf *held, const char *what)
{
    size_t n = strlen(what);
    for (size_t i = 0; n && i + n <= held->size; i++)
        if (held->data[i] == *what && !memcmp(held->data + i, what, n)) return held->data + i;
    return NULL;
}

/* The earliest stop string in the held text, of those the longest; NULL: none. */
static const char *find_stop(output *o)
{
    const char *best = NULL;
    for (char **s = o->stops; s && *s; s++) {
        const char *at = find_text(&o->held, *s);
        if (!at || (best && (at > best || (at == best && strlen(*s) < strlen(o->stop_string))))) continue;
        best = at;
        o->stop_string = *s;
    }
    return best;
}

/* How many bytes at the end of the held text could be the beginning of a stop string. */
static size_t undecided(const output *o)
{
    size_t most = 0, n = o->held.size;
    for (char **s = o->stops; s && *s; s++) {
        size_t length = strlen(*s) - 1;
        for (size_t k = length < n ? length : n; k > most; k--)
            if (!memcmp(o->held.data + n - k, *s, k)) { most = k; break; }
    }
    return most;
}

static bool show(output *o, size_t bytes, buf *text)
{
    if (!bytes) return true;
    if (!buf_add(text, o->held.data, bytes)) return false;
    memmove(o->held.data, o->held.data + bytes, o->held.size - bytes + 1);
    o->held.size -= bytes;
    return true;
}

static bool settle(output *o, buf *text, output_end *end, vlm_error *error)
{
    bool early = o->count < o->least;
    const char *at = early ? NULL : find_stop(o);
    size_t bytes = early ? o->held.size : at ? (size_t)(at - o->held.data) + (o->include_stop ? strlen(o->stop_string) : 0) : o->held.size - undecided(o);
    bool ok = show(o, bytes, text);
    if (at) {
        buf_clear(&o->held);
        o->stopped = true;
        *end = OUTPUT_STOP_STRING;
    }
    return ok ? true : err_memory(error, text->size);
}

bool output_add(output *o, int32_t token, buf *text, output_end *end, vlm_error *error)
{
    *end = OUTPUT_GOES_ON;
    o->count++;
    for (int i = 0; i < o->n_eos; i++)
        if (o->eos[i] == token) return *end = OUTPUT_EOS, true;
    if (!o->detok) return true;                   /* made-up weights: tokens without text */
    if (!detokenizer_add(o->detok, token, &o->held, error)) return false;
    if (o->held.failed) return err_memory(error, o->held.size);
    return settle(o, text, end, error);
}

bool output_finish(output *o, buf *text, vlm_error *error)
{
    output_end end = OUTPUT_GOES_ON;
    if (o->stopped || !o->detok) return true;
    if (!detokenizer_finish(o->detok, &o->held, error)) return false;
    if (o->held.failed) return err_memory(error, o->held.size);
    if (!settle(o, text, &end, error)) return false;
    return end == OUTPUT_STOP_STRING || show(o, o->held.size, text) ? true : err_memory(error, text->size);
}
