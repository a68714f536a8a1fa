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
    *o = (output){.model = m, .skip_special = options->skip_special, .include_stop = options->include_stop, .least = options->min_tokens};
    if (read_strings(options->stop, "stop", &o->stops, error) && read_eos(o, m, options, error)) return true;
    output_free(o);
    return false;
}

static bool is_marker_text(void *user, const char *text, size_t size)
{
    const output_marks *m = user;
    for (int i = 0; i < m->count; i++) {
        const char *name = tokenizer_token(m->tok, m->id[i]);
        if (name && strlen(name) == size && !memcmp(name, text, size)) return true;
    }
    return false;
}

bool output_begin(output *o, const output_parsing *parsing, vlm_error *error)
{
    if (!o->model->tok) return true;              /* made-up weights: tokens without text */
    if (!(o->detok = detokenizer_new(o->model->tok, !parsing && o->skip_special, error))) return false;
    if (!parsing) return true;
    o->marks = parsing->marks;
    o->tools = parsing->tools != NULL;
    o->one_call = parsing->one_call;
    o->swallow = parsing->swallow || parsing->thinking_open;
    const toolcall_spelling *spelling = toolcall_format_spelling(o->marks->format);
    bool safe = spelling->trigger && is_marker_text((void *)o->marks, spelling->trigger, strlen(spelling->trigger));
    toolcall_options options = {.tools = parsing->tools, .no_calls = !parsing->tools, .thinking_open = parsing->thinking_open,
                                .eager = parsing->enforced || safe,
                                .keep_space = true, .think_open = parsing->think_open, .think_close = parsing->think_close,
                                .response = o->marks->response, .prompt = parsing->prompt ? parsing->prompt : "",
                                .prompt_size = parsing->prompt ? strlen(parsing->prompt) : 0, .seed = parsing->seed,
                                .is_token = parsing->enforced ? NULL : is_marker_text, .user = (void *)o->marks};
    return (o->parser = toolcall_parser_new(o->marks->format, &options, error)) != NULL;
}

void output_free(output *o)
{
    detokenizer_free(o->detok);
    toolcall_parser_free(o->parser);
    free_strings(o->stops);
    mem_free(o->eos);
    buf_free(&o->piece);
    buf_free(&o->held);
    buf_free(&o->spaces);
    buf_free(&o->shown);
    *o = (output){0};
}

/* ---- markers ---- */

/* A template that knows enable_thinking: is that its default? Where there is no such switch, a model that can think does. */
static bool thinks_unasked(const vlm_model *model)
{
    static const char hello[] = "[{\"role\":\"user\",\"content\":\"Hello\"}]";
    const char *source = model->chat ? chat_template_source(model->chat) : NULL;
    if (!source || !strstr(source, "enable_thinking")) return true;
    vlm_chat_options told = vlm_chat_options_default();
    told.template_kwargs = "{\"enable_thinking\": true}";
    char *plain = vlm_apply_chat_template(model, hello, NULL, NULL), *thinking = vlm_apply_chat_template(model, hello, &told, NULL);
    bool same = plain && thinking && !strcmp(plain, thinking);
    vlm_free(plain);
    vlm_free(thinking);
    return same;
}

bool output_marks_init(output_marks *m, const vlm_model *model, const char *name, vlm_error *error)
{
    const char *source = model->chat ? chat_template_source(model->chat) : NULL;
    *m = (output_marks){.format = name ? toolcall_format_find(name) : toolcall_format_detect(source), .tok = model->tok};
    if (!m->format) return err_set(error, VLM_INVALID, "tool_format: there is no format '%.60s'", name);
    m->thinks = m->tok && toolcall_think_close(m->format) && thinks_unasked(model);
    const json_t *own = m->tok && !name ? json_object_get(tokenizer_config(m->tok), "response_template") : NULL;
    if (json_is_object(own)) m->response = response_template_new(own, NULL);      /* one that is broken is not followed */
    size_t n = m->tok ? tokenizer_added_count(m->tok) : 0;
    for (size_t i = 0; i < n; i++) {
        bool special;
        const char *text = tokenizer_added(m->tok, i, &special);
        int32_t id = text && toolcall_is_marker(m->format, text, strlen(text)) ? tokenizer_id(m->tok, text) : -1;
        if (id < 0) continue;
        int32_t *more = mem_resize(m->id, (size_t)m->count + 1, sizeof *more);
        if (!more) return output_marks_free(m), err_memory(error, sizeof *more);
        m->id = more;
        m->id[m->count++] = id;
    }
    return true;
}

bool output_is_mark(const output_marks *m, int32_t token)
{
    for (int i = 0; i < m->count; i++)
        if (m->id[i] == token) return true;
    return false;
}

void output_marks_free(output_marks *m)
{
    mem_free(m->id);
    response_template_free(m->response);
    *m = (output_marks){0};
}

/* ---- what is shown ---- */

static bool flush(output *o, const output_sink *sink)
{
    if (!o->shown.size) return !o->shown.failed;
    bool ok = !o->shown.failed && sink->emit(sink->user, &(toolcall_event){.type = o->kind, .text = o->shown.data, .size = o->shown.size});
    buf_clear(&o->shown);
    return ok;
}

static bool put(output *o, toolcall_event_type kind, const char *text, size_t size, const output_sink *sink)
{
    if (o->kind != kind && !flush(o, sink)) return false;
    o->kind = kind;
    return buf_add(&o->shown, text, size);
}

static bool is_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

/* Content past the stop strings. With tools, white space at its end waits: a call may follow. */
static bool show(output *o, size_t bytes, const output_sink *sink)
{
    const char *text = o->held.data;
    size_t solid = bytes;
    while (o->tools && solid && is_space(text[solid - 1])) solid--;
    if (solid && o->spaces.size) {
        if (!put(o, TOOLCALL_CONTENT, o->spaces.data, o->spaces.size, sink)) return false;
        buf_clear(&o->spaces);
    }
    if (solid && !put(o, TOOLCALL_CONTENT, text, solid, sink)) return false;
    if (bytes > solid && !buf_add(&o->spaces, text + solid, bytes - solid)) return false;
    if (!bytes) return true;
    memmove(o->held.data, o->held.data + bytes, o->held.size - bytes + 1);
    o->held.size -= bytes;
    return true;
}

/* ---- stop strings ---- */

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
    if (!best) o->stop_string = NULL;
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

/* Shows what is certain of the held content. */
static bool settle(output *o, const output_sink *sink)
{
    bool early = o->count < o->least;
    const char *at = early ? NULL : find_stop(o);
    size_t bytes = early ? o->held.size : at ? (size_t)(at - o->held.data) + (o->include_stop ? strlen(o->stop_string) : 0) : o->held.size - undecided(o);
    if (!show(o, bytes, sink)) return false;
    if (!at) return true;
    buf_clear(&o->held);
    o->stopped = true;
    return true;
}

static bool content(output *o, const char *text, size_t size, const output_sink *sink)
{
    while (o->swallow && size && is_space(*text)) { text++; size--; }
    if (!size) return true;
    o->swallow = false;
    return buf_add(&o->held, text, size) && settle(o, sink);
}

/* ---- tokens ---- */

/* What the parser has found. After a stop string, or the one call that was asked for, the rest does not count. */
static bool drain(output *o, const output_sink *sink, output_end *end)
{
    toolcall_event event;
    while (!o->stopped && *end == OUTPUT_GOES_ON && toolcall_next(o->parser, &event)) {
        if (event.type == TOOLCALL_CONTENT) {
            if (!content(o, event.text, event.size, sink)) return false;
        } else if (event.type == TOOLCALL_REASONING) {
            o->swallow = true;
            if (!put(o, TOOLCALL_REASONING, event.text, event.size, sink)) return false;
        } else {
            if (!show(o, o->held.size, sink) || !flush(o, sink) || !sink->emit(sink->user, &event)) return false;
            buf_clear(&o->spaces);
            o->calls += event.type == TOOLCALL_START;
            if (event.type == TOOLCALL_END && o->one_call) {
                *end = OUTPUT_ENOUGH_CALLS;
                o->stopped = true;
            }
        }
    }
    return true;
}

/* The text of one token to the parser; a marker apart from what the detokenizer had kept before it. Other control tokens are left out. */
static bool feed(output *o, int32_t token, vlm_error *error)
{
    bool special = tokenizer_is_special(o->model->tok, token), marker = output_is_mark(o->marks, token) || (special && o->marks->response);
    if (special && !marker && o->skip_special) return true;
    buf_clear(&o->piece);
    if (!detokenizer_add(o->detok, token, &o->piece, error)) return false;
    if (o->piece.failed) return err_memory(error, 256);
    const char *name = marker ? tokenizer_token(o->model->tok, token) : NULL;
    size_t n = name ? strlen(name) : 0, size = o->piece.size;
    size_t before = n && size >= n && !memcmp(o->piece.data + size - n, name, n) ? size - n : n ? 0 : size;
    bool ok = !before || toolcall_feed(o->parser, o->piece.data, before, false);
    ok = ok && (!n || toolcall_feed(o->parser, name, n, true));
    return ok ? true : err_memory(error, size);
}

bool output_ends(const output *o, int32_t token)
{
    for (int i = 0; i < o->n_eos; i++)
        if (o->eos[i] == token) return true;
    return false;
}

static bool add_raw(output *o, int32_t token, const output_sink *sink, vlm_error *error)
{
    if (!detokenizer_add(o->detok, token, &o->held, error)) return false;
    return !o->held.failed && settle(o, sink) ? true : err_memory(error, o->held.size);
}

bool output_add(output *o, int32_t token, const output_sink *sink, output_end *end, vlm_error *error)
{
    *end = OUTPUT_GOES_ON;
    o->count++;
    if (output_ends(o, token)) return *end = OUTPUT_EOS, true;
    if (!o->detok) return true;
    if (o->parser ? !feed(o, token, error) : !add_raw(o, token, sink, error)) return false;
    if ((o->parser && !drain(o, sink, end)) || !flush(o, sink)) return err_memory(error, 256);
    if (o->stop_string && o->stopped) *end = OUTPUT_STOP_STRING;
    return true;
}

bool output_finish(output *o, const char *reason, const output_sink *sink, vlm_error *error)
{
    output_end end = OUTPUT_GOES_ON;
    if (o->stopped || !o->detok) return true;
    buf_clear(&o->piece);
    if (!detokenizer_finish(o->detok, o->parser ? &o->piece : &o->held, error)) return false;
    bool ok = !o->piece.failed && !o->held.failed;
    if (o->parser) {
        ok = ok && (!o->piece.size || toolcall_feed(o->parser, o->piece.data, o->piece.size, false));
        ok = ok && toolcall_finish(o->parser, reason) && drain(o, sink, &end);
    }
    ok = ok && (o->stopped || (settle(o, sink) && (o->stopped || show(o, o->held.size, sink))));
    if (ok && o->spaces.size && !o->calls) ok = put(o, TOOLCALL_CONTENT, o->spaces.data, o->spaces.size, sink);
    return ok && flush(o, sink) ? true : err_memory(error, 256);
}
