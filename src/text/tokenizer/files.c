/* files.c - which file of a checkpoint is its tokenizer. In this order: tokenizer.json, tekken.json, *.tiktoken and tiktoken.model, tokenizer.model and other
 * *.model. What a file is, is seen from what it holds, not from its name. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "text/tokenizer/internal.h"

enum { MAX_FILE = 256 << 20 };

/* An optional file: absent is NULL without an error. */
static json_t *read_json(const char *dir, const char *name, vlm_error *error)
{
    char *path = path_join(dir, name);
    buf text = {0};
    json_t *json = NULL;
    if (!path) err_memory(error, 0);
    else if (!file_exists(path)) { }
    else if (file_read(path, MAX_FILE, &text, error)) {
        json_error_t bad;
        json = json_loadb(text.data ? text.data : "", text.size, JSON_ALLOW_NUL, &bad);
        if (!json && json_error_code(&bad) == json_error_numeric_overflow)      /* model_max_length: 10^30 */
            json = json_loadb(text.data, text.size, JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &bad);
        if (!json) err_set(error, VLM_FORMAT, "%s: line %d: %s", path, bad.line, bad.text);
    }
    buf_free(&text);
    mem_free(path);
    return json;
}

/* Older checkpoints name bos_token and the like in special_tokens_map.json only. */
static bool add_roles(const char *dir, json_t **config, vlm_error *error)
{
    vlm_error failed = {0};
    json_t *map = read_json(dir, "special_tokens_map.json", &failed), *value;
    if (failed.code == VLM_MEMORY) return err_memory(error, 0);
    if (json_is_object(map) && !*config) *config = json_object();
    const char *key;
    json_object_foreach(map, key, value)
        if (!json_object_get(*config, key) && strlen(key) > 6) json_object_set(*config, key, value);
    json_decref(map);
    return true;
}

/* ---- what a file holds ---- */

/* Does the text begin with a line "base64 rank"? */
static bool looks_like_ranks(const char *text, size_t size)
{
    size_t n = 0;
    while (n < size && n < 4096 && ((text[n] >= '0' && text[n] <= '9') || (text[n] >= 'A' && text[n] <= 'Z') || (text[n] >= 'a' && text[n] <= 'z') || strchr("+/=", text[n])))
        if (!text[n++]) return false;
    return n && n + 1 < size && text[n] == ' ' && text[n + 1] >= '0' && text[n + 1] <= '9';
}

static bool begins_with_brace(const char *text, size_t size)
{
    size_t n = size >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
    while (n < size && strchr(" \t\r\n", text[n]) && text[n]) n++;
    return n < size && text[n] == '{';
}

/* tekken.json has "config" and "vocab" where tokenizer.json has "model". */
static bool is_tekken(const char *text, size_t size)
{
    tok_spans spans;
    if (tok_scan_find(text, size, &spans)) return false;
    size_t at = bytes_find(text, size, 0, "\"token_bytes\"", 13);
    return at != SIZE_MAX && bytes_find(text, size, 0, "\"default_num_special_tokens\"", 28) != SIZE_MAX;
}

tokenizer *tokenizer_from_file(const char *text, size_t size, const char *name, const json_t *config, vlm_error *error)
{
    if (begins_with_brace(text, size)) {
        if (!is_tekken(text, size)) return tokenizer_from_text(text, size, config, error);
        json_error_t bad;
        json_t *root = json_loadb(text, size, JSON_ALLOW_NUL, &bad);
        tokenizer *t = NULL;
        if (!root) err_set(error, VLM_FORMAT, "%s: line %d: %s", name, bad.line, bad.text);
        else t = tok_from_tekken(root, config, error);
        json_decref(root);
        return t;
    }
    if (looks_like_ranks(text, size)) return tok_from_tiktoken(text, size, name, config, error);
    if (size && (text[0] == '\n' || text[0] == 0x12 || text[0] == 0x1A)) return tok_from_sentencepiece(text, size, config, error);     /* fields 1, 2, 3 */
    return tokenizer_from_text(text, size, config, error);
}

static tokenizer *load_path(const char *path, const json_t *config, vlm_error *error)
{
    buf text = {0};
    const char *slash = strrchr(path, '/');
    tokenizer *t = NULL;
    if (file_read(path, MAX_FILE, &text, error)) t = tokenizer_from_file(text.data ? text.data : "", text.size, slash ? slash + 1 : path, config, error);
    buf_free(&text);
    return t;
}

/* ---- folders ---- */

static bool has_ending(const char *name, const char *ending)
{
    size_t n = strlen(name), m = strlen(ending);
    return n > m && strcmp(name + n - m, ending) == 0;
}

/* Of files that end so, the first by name: *found, or NULL when there is none. False when out of memory. */
static bool find_ending(const char *dir, const char *ending, char **found)
{
    DIR *d = opendir(dir);
    bool ok = true;
    *found = NULL;
    for (struct dirent *e; ok && d && (e = readdir(d)) != NULL;) {
        if (!has_ending(e->d_name, ending) || (*found && strcmp(*found, e->d_name) <= 0)) continue;
        mem_free(*found);
        ok = (*found = mem_strdup(e->d_name)) != NULL;
    }
    if (d) closedir(d);
    return ok;
}

/* Path of the tokenizer's file; without one that of tokenizer.json, so that the message names it. NULL: out of memory. */
static char *choose(const char *dir)
{
    static const char *const names[] = {"tokenizer.json", "tekken.json", ".tiktoken", "tiktoken.model", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", ".model"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *found = NULL;
        if (names[i][0] == '.' && !find_ending(dir, names[i], &found)) return NULL;
        if (names[i][0] == '.' && !found) continue;
        char *path = path_join(dir, found ? found : names[i]);
        mem_free(found);
        if (!path || file_exists(path)) return path;
        mem_free(path);
    }
    return path_join(dir, names[0]);
}

tokenizer *tokenizer_load(const char *dir, vlm_error *error) { return tokenizer_load_more(dir, NULL, error); }

/* The members, and tokens beside those that are there. */
static bool add_members(json_t **config, const json_t *more)
{
    json_t *with = json_object();
    if (!more || !with) return json_decref(with), !more;
    bool ok = (!*config || !json_object_update(with, *config)) && !json_object_update_missing(with, (json_t *)(uintptr_t)more);
    json_t *tokens = json_object_get(*config, "added_tokens_decoder"), *others = json_object_get(more, "added_tokens_decoder");
    json_t *both = tokens && others ? json_copy(tokens) : NULL;
    if (both) ok = ok && !json_object_update_missing(both, others) && !json_object_set(with, "added_tokens_decoder", both);
    json_decref(both);
    json_decref(*config);
    *config = with;
    return ok;
}

tokenizer *tokenizer_load_more(const char *dir, const json_t *more, vlm_error *error)
{
    vlm_error local = {0};
    json_t *config = read_json(dir, "tokenizer_config.json", &local);
    tokenizer *t = NULL;
    char *path = choose(dir);
    if (!path) err_memory(error, 0);
    else if (!config && local.code) {
        if (error) *error = local;
    } else if (!add_members(&config, more)) {
        err_memory(error, 0);
    } else if (add_roles(dir, &config, error)) t = load_path(path, config, error);
    mem_free(path);
    json_decref(config);
    return t;
}

/* Files that know their special tokens not themselves are helped by the tokenizer_config.json beside them. */
tokenizer *tokenizer_load_file(const char *path, vlm_error *error)
{
    json_t *config = NULL;
    const char *slash = strrchr(path, '/');
    if (has_ending(path, ".model") || has_ending(path, ".tiktoken")) {
        char *dir = slash ? mem_strndup(path, (size_t)(slash - path)) : mem_strdup(".");
        vlm_error failed = {0};                    /* a damaged one is no help, nor is it needed */
        if (dir) config = read_json(*dir ? dir : "/", "tokenizer_config.json", &failed);
        mem_free(dir);
        if (!dir || failed.code == VLM_MEMORY) return err_memory(error, 0), NULL;
    }
    tokenizer *t = load_path(path, config, error);
    json_decref(config);
    return t;
}
