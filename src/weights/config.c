/* config.c - see config.h: JSON files read under a ceiling, sticky typed reads, messages that name file, path and expectation. */
#include "weights/config.h"

#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"

/* ---- reading ------------------------------------------------------------------------------------------------------ */

static bool is_word(char c) { return isalnum((unsigned char)c) || c == '_' || c == '.' || c == '+' || c == '-'; }

/* What Python's json writes and RFC 8259 does not have: NaN becomes null, Infinity the largest number; whole numbers beyond 64 bits
 * ("model_max_length": 1000000000000000019884624838656) become reals. Strings are copied as they are. */
static bool plain_json(const char *text, size_t size, buf *out)
{
    for (size_t i = 0; i < size;) {
        size_t end = i;
        if (text[i] == '"') {
            for (end++; end < size && text[end] != '"'; end++)
                if (text[end] == '\\') end++;
            end = end < size ? end + 1 : size;
            buf_add(out, text + i, end - i);
        } else if (is_word(text[i])) {
            bool digits = true;
            for (; end < size && is_word(text[end]); end++)
                if (!isdigit((unsigned char)text[end]) && !(end == i && text[end] == '-')) digits = false;
            size_t n = end - i;
            if (n == 3 && !memcmp(text + i, "NaN", 3)) buf_adds(out, "null");
            else if (n == 8 && !memcmp(text + i, "Infinity", 8)) buf_adds(out, "1.7976931348623157e308");
            else if (n == 9 && !memcmp(text + i, "-Infinity", 9)) buf_adds(out, "-1.7976931348623157e308");
            else {
                buf_add(out, text + i, n);
                if (digits && n > 18) buf_adds(out, ".0");
            }
        } else {
            while (end < size && text[end] != '"' && !is_word(text[end])) end++;
            buf_add(out, text + i, end - i);
        }
        i = end;
    }
    return !out->failed;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

json_t *json_text_parse(const char *text, size_t size, const char *name, vlm_error *error)
{
    buf plain = {0};
    if (size >= 3 && !memcmp(text, "\xEF\xBB\xBF", 3)) text += 3, size -= 3;     /* byte order mark */
    if (!plain_json(text, size, &plain)) return buf_free(&plain), err_memory(error, size), NULL;
    json_error_t where;
    json_t *json = json_loadb(plain.data ? plain.data : "", plain.size, JSON_ALLOW_NUL, &where);
    buf_free(&plain);
    if (!json) err_set(error, VLM_FORMAT, "%s is not JSON: line %d: %s", name, where.line, where.text);
    return json;
}

json_t *json_load_file_limited(const char *path, size_t limit, vlm_error *error)
{
    buf text = {0};
    json_t *json = NULL;
    if (file_read(path, limit, &text, error)) json = json_text_parse(text.data ? text.data : "", text.size, path, error);
    buf_free(&text);
    return json;
}

config *config_from_json(json_t *root, const char *name, vlm_error *error)
{
    config *c = root ? MEM_NEW(config) : NULL;
    if (c) c->file = mem_strdup(name);
    if (!c || !c->file) {
        json_decref(root);
        mem_free(c);
        err_memory(error, sizeof *c);
        return NULL;
    }
    c->root = root;
    return c;
}

config *config_load_file(const char *path, vlm_error *error)
{
    json_t *root = json_load_file_limited(path, JSON_FILE_LIMIT, error);
    if (!root) return NULL;
    if (!json_is_object(root)) {
        err_set(error, VLM_FORMAT, "%s: a JSON object was expected", path);
        json_decref(root);
        return NULL;
    }
    return config_from_json(root, base_name(path), error);
}

bool config_merge_generation(config *c, const char *path, vlm_error *error)
{
    static const char *const wins[] = {"eos_token_id", "temperature", "top_p", "top_k", "do_sample"};
    json_t *generation = json_load_file_limited(path, JSON_FILE_LIMIT, error);
    if (!generation) return false;
    bool ok = json_is_object(generation) || err_set(error, VLM_FORMAT, "%s: a JSON object was expected", path);
    for (size_t i = 0; ok && i < sizeof wins / sizeof *wins; i++) {
        json_t *value = json_object_get(generation, wins[i]);
        if (value && !json_is_null(value) && json_object_set(c->root, wins[i], value)) ok = err_memory(error, 0);
    }
    if (ok && json_object_set(c->root, "generation_config", generation)) ok = err_memory(error, 0);
    json_decref(generation);
    return ok;
}

config *config_load(const char *dir, vlm_error *error)
{
    char *path = path_join(dir, "config.json"), *generation = path_join(dir, "generation_config.json");
    config *c = NULL;
    if (!path || !generation) {
        err_memory(error, strlen(dir));
    } else if (!file_is_directory(dir)) {
        err_set(error, VLM_NOT_FOUND, file_exists(dir) ? "%s is not a directory" : "there is no directory %s", dir);
        err_hint(error, "a checkpoint is a directory with config.json, *.safetensors and tokenizer.json");
    } else if (!file_exists(path)) {
        err_set(error, VLM_NOT_FOUND, "%s has no config.json", dir);
        err_hint(error, "a checkpoint is a directory with config.json, *.safetensors and tokenizer.json");
    } else {
        c = config_load_file(path, error);
        if (c && file_exists(generation) && !config_merge_generation(c, generation, error)) {
            config_free(c);
            c = NULL;
        }
    }
    mem_free(path);
    mem_free(generation);
    return c;
}

void config_free(config *c)
{
    if (!c) return;
    json_decref(c->root);
    mem_free(c->file);
    mem_free(c);
}

/* ---- looking up ----------------------------------------------------------------------------------------------------- */

/* One alternative of a path: keys between dots, up to `end`. */
static const json_t *walk(const json_t *at, const char *path, const char *end)
{
    while (at && path < end) {
        const char *dot = memchr(path, '.', (size_t)(end - path));
        const char *stop = dot ? dot : end;
        char key[128];
        size_t n = (size_t)(stop - path);
        if (n >= sizeof key) return NULL;
        memcpy(key, path, n);
        key[n] = 0;
        at = json_object_get(at, key);
        path = dot ? dot + 1 : end;
    }
    return at && !json_is_null(at) ? at : NULL;
}

const json_t *config_get(const config *c, const char *path)
{
    for (const char *at = path;;) {
        const char *bar = strchr(at, '|'), *end = bar ? bar : at + strlen(at);
        const json_t *found = walk(c->root, at, end);
        if (found || !bar) return found;
        at = bar + 1;
    }
}

bool config_has(const config *c, const char *path) { return config_get(c, path) != NULL; }

bool config_fail(config *c, vlm_status code, const char *format, ...)
{
    if (c->failed) return false;
    va_list args;
    va_start(args, format);
    err_setv(&c->error, code, format, args);
    va_end(args);
    err_prefix(&c->error, "%s", c->file);
    c->failed = true;
    return false;
}

bool config_defaults(config *c, const char *where, const char *text)
{
    json_t *into = json_object_get(c->root, where), *more = json_loads(text, 0, NULL);
    bool ok = more && (json_is_object(into) ? json_object_update_missing(into, more) : json_object_set(c->root, where, more)) == 0;
    json_decref(more);
    return ok || config_fail(c, VLM_MEMORY, "out of memory");
}

bool config_ok(const config *c, vlm_error *error)
{
    if (c->failed && error) *error = c->error;
    return !c->failed;
}

/* "a|b|c" for people: "a (or b, c)". */
static const char *spell(const char *path, char out[256])
{
    buf text = {.limit = 250};
    int bars = 0;
    for (const char *p = path; *p; p++) {
        if (*p == '|') buf_adds(&text, bars++ ? ", " : " (or ");
        else buf_addc(&text, *p);
    }
    if (bars) buf_addc(&text, ')');
    snprintf(out, 256, "%s", text.data ? text.data : "");
    buf_free(&text);
    return out;
}

/* What a value looks like in a message, cut short. */
static void show(const json_t *value, char out[80])
{
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    size_t n = text ? strlen(text) : 0;
    if (n > 60) {
        memcpy(out, text, 57);
        memcpy(out + 57, "...", 4);
    } else {
        memcpy(out, text ? text : "?", n ? n + 1 : 2);
    }
    free(text);
}

static void complain(config *c, const char *path, const json_t *value, const char *wanted)
{
    char name[256], seen[80];
    spell(path, name);
    if (!value) {
        config_fail(c, VLM_FORMAT, "%s is missing; %s was expected", name, wanted);
    } else {
        show(value, seen);
        config_fail(c, VLM_FORMAT, "%s is %s; %s was expected", name, seen, wanted);
    }
}

/* ---- typed reads ------------------------------------------------------------------------------------------------------ */

static bool whole(const json_t *value, int64_t *out)
{
    if (json_is_integer(value)) return *out = json_integer_value(value), true;
    double d = json_is_real(value) ? json_real_value(value) : NAN;
    if (!(fabs(d) < 9e15) || d != floor(d)) return false;
    return *out = (int64_t)d, true;
}

static int64_t read_int(config *c, const char *path, const json_t *value, int64_t fallback, int64_t min, int64_t max)
{
    int64_t n;
    if (value && whole(value, &n) && n >= min && n <= max) return n;
    char wanted[96];
    if (max == INT64_MAX && min == INT64_MIN) snprintf(wanted, sizeof wanted, "a whole number");
    else if (max >= INT32_MAX) snprintf(wanted, sizeof wanted, "a whole number >= %lld", (long long)min);
    else snprintf(wanted, sizeof wanted, "a whole number from %lld to %lld", (long long)min, (long long)max);
    complain(c, path, value, wanted);
    return fallback;
}

int64_t config_need_int(config *c, const char *path, int64_t min, int64_t max)
{
    int64_t fallback = min > 0 ? min : 0;
    return c->failed ? fallback : read_int(c, path, config_get(c, path), fallback, min, max);
}

int64_t config_int(config *c, const char *path, int64_t fallback, int64_t min, int64_t max)
{
    const json_t *value = c->failed ? NULL : config_get(c, path);
    return value ? read_int(c, path, value, fallback, min, max) : fallback;
}

double config_need_number(config *c, const char *path)
{
    const json_t *value = c->failed ? NULL : config_get(c, path);
    if (json_is_number(value)) return json_number_value(value);
    if (!c->failed) complain(c, path, value, "a number");
    return 0;
}

double config_number(config *c, const char *path, double fallback)
{
    const json_t *value = c->failed ? NULL : config_get(c, path);
    if (!value) return fallback;
    if (json_is_number(value)) return json_number_value(value);
    complain(c, path, value, "a number");
    return fallback;
}

bool config_bool(config *c, const char *path, bool fallback)
{
    const json_t *value = c->failed ? NULL : config_get(c, path);
    if (!value) return fallback;
    if (json_is_boolean(value)) return json_is_true(value);
    complain(c, path, value, "true or false");
    return fallback;
}

const char *config_need_string(config *c, const char *path)
{
    const json_t *value = c->failed ? NULL : config_get(c, path);
    if (json_is_string(value)) return json_string_value(value);
    if (!c->failed) complain(c, path, value, "a string");
    return "";
}

const char *config_string(config *c, const char *path, const char *fallback)
{
    const json_t *value = c->failed ? NULL : config_get(c, path);
    if (!value) return fallback;
    if (json_is_string(value)) return json_string_value(value);
    complain(c, path, value, "a string");
    return fallback;
}

/* Item i of an array; a lone value is its own item 0. */
static const json_t *item(const json_t *value, size_t i) { return json_is_array(value) ? json_array_get(value, i) : value; }

static size_t items(config *c, const char *path, const json_t *value, int max)
{
    size_t n = !value ? 0 : json_is_array(value) ? json_array_size(value) : 1;
    if (n <= (size_t)max) return n;
    char name[256];
    config_fail(c, VLM_FORMAT, "%s has %zu members, at most %d were expected", spell(path, name), n, max);
    return 0;
}

int config_ints(config *c, const char *path, int64_t *out, int max)
{
    const json_t *value = c->failed ? NULL : config_get(c, path);
    size_t n = items(c, path, value, max);
    for (size_t i = 0; i < n; i++)
        if (!whole(item(value, i), &out[i])) return complain(c, path, value, "a list of whole numbers"), 0;
    return (int)n;
}

int config_numbers(config *c, const char *path, double *out, int max)
{
    const json_t *value = c->failed ? NULL : config_get(c, path);
    size_t n = items(c, path, value, max);
    for (size_t i = 0; i < n; i++) {
        if (!json_is_number(item(value, i))) return complain(c, path, value, "a list of numbers"), 0;
        out[i] = json_number_value(item(value, i));
    }
    return (int)n;
}
