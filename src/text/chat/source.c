/* source.c - finding and compiling a checkpoint's chat templates. */
#include <dirent.h>
#include <string.h>

#include "base/file.h"
#include "text/chat/internal.h"

enum { MAX_TEMPLATE = 1 << 20, MAX_CONFIG = 64 << 20, MAX_VARIANTS = 64 };

/* ---- collecting ---- */

static bool add_variant(chat_template *t, const char *name, const char *source, vlm_error *error)
{
    for (size_t i = 0; i < t->count; i++)
        if (!strcmp(t->item[i].name, name)) return true;               /* the first source of a name wins */
    if (t->count == MAX_VARIANTS) return err_set(error, VLM_LIMIT, "more than %d chat templates", MAX_VARIANTS);
    if (t->count == t->capacity) {
        size_t capacity = t->capacity ? t->capacity * 2 : 2;
        chat_variant *grown = mem_resize(t->item, capacity, sizeof *grown);
        if (!grown) return err_memory(error, capacity * sizeof *grown);
        t->item = grown;
        t->capacity = capacity;
    }
    chat_variant v = {.name = mem_strdup(name), .source = mem_strdup(source)};
    if (!v.name || !v.source) {
        mem_free(v.name);
        mem_free(v.source);
        return err_memory(error, strlen(source));
    }
    t->item[t->count++] = v;
    if (!strcmp(name, "default") && t->count > 1) {                    /* the default first */
        chat_variant first = t->item[0];
        t->item[0] = v;
        t->item[t->count - 1] = first;
    }
    return true;
}

/* A text, a list [{"name", "template"}] or an object of names. */
static bool add_json(chat_template *t, const json_t *value, vlm_error *error)
{
    bool ok = true;
    const char *key;
    json_t *item;
    if (json_is_string(value)) return add_variant(t, "default", json_string_value(value), error);
    for (size_t i = 0; ok && i < json_array_size(value); i++) {
        const json_t *one = json_array_get(value, i);
        const char *name = json_string_value(json_object_get(one, "name")), *source = json_string_value(json_object_get(one, "template"));
        if (name && source) ok = add_variant(t, name, source, error);
    }
    if (json_is_object(value)) json_object_foreach((json_t *)value, key, item)
        if (ok && json_is_string(item)) ok = add_variant(t, key, json_string_value(item), error);
    return ok;
}

/* The file's text in *text when it exists; an absent file is no error. */
static bool read_optional(const char *dir, const char *name, size_t limit, buf *text, vlm_error *error)
{
    char *path = path_join(dir, name);
    if (!path) return err_memory(error, 0);
    bool ok = !file_exists(path) || file_is_directory(path) || file_read(path, limit, text, error);
    mem_free(path);
    return ok;
}

static bool add_json_file(chat_template *t, const char *dir, const char *name, bool whole, vlm_error *error)
{
    buf text = {0};
    bool ok = read_optional(dir, name, MAX_CONFIG, &text, error);
    if (ok && text.data) {
        json_error_t bad;
        json_t *json = json_loadb(text.data, text.size, JSON_DECODE_ANY, &bad);
        if (!json) ok = err_set(error, VLM_FORMAT, "%s/%s: line %d: %s", dir, name, bad.line, bad.text);
        else {
            const json_t *value = json_object_get(json, "chat_template");
            ok = add_json(t, value || !whole ? value : json, error);
        }
        json_decref(json);
    }
    buf_free(&text);
    return ok;
}

static bool add_jinja_file(chat_template *t, const char *dir, const char *file, const char *name, vlm_error *error)
{
    buf text = {0};
    bool ok = read_optional(dir, file, MAX_TEMPLATE, &text, error);
    if (ok && text.data) ok = add_variant(t, name, text.data, error);
    buf_free(&text);
    return ok;
}

/* additional_chat_templates/NAME.jinja */
static bool add_folder(chat_template *t, const char *dir, vlm_error *error)
{
    char *path = path_join(dir, "additional_chat_templates");
    if (!path) return err_memory(error, 0);
    DIR *folder = opendir(path);
    bool ok = true;
    for (const struct dirent *e; ok && folder && (e = readdir(folder));) {
        size_t n = strlen(e->d_name);
        if (n <= 6 || strcmp(e->d_name + n - 6, ".jinja")) continue;
        char *name = mem_strndup(e->d_name, n - 6);
        ok = name ? add_jinja_file(t, path, e->d_name, name, error) : err_memory(error, n);
        mem_free(name);
    }
    if (folder) closedir(folder);
    mem_free(path);
    return ok;
}

static bool find_in_files(chat_template *t, const char *dir, vlm_error *error)
{
    if (!add_json_file(t, dir, "processor_config.json", false, error)) return false;
    if (!t->count && !add_json_file(t, dir, "chat_template.json", true, error)) return false;
    if (t->count) return true;
    return add_jinja_file(t, dir, "chat_template.jinja", "default", error) && add_folder(t, dir, error);
}

/* ---- compiling ---- */

static bool compile_variant(chat_variant *v, const tokenizer *tok, vlm_error *error)
{
    v->j = jinja_compile(v->source, strlen(v->source), error);
    if (!v->j) return false;
    return chat_probe(v, tok, error) &&
           (!tok || chat_guard_tokens(v->j, tok, &v->control) || err_memory(error, 0));
}

bool chat_template_load(const char *dir, const tokenizer *tok, const char *override, chat_template **out, vlm_error *error)
{
    *out = NULL;
    chat_template *t = MEM_NEW(chat_template);
    bool ok = t || err_memory(error, sizeof *t);
    if (ok && override) ok = add_variant(t, "default", override, error);
    else if (ok && dir) ok = find_in_files(t, dir, error);
    if (ok && !override && tok && (!t->count || strcmp(t->item[0].name, "default"))) ok = add_json(t, json_object_get(tokenizer_config(tok), "chat_template"), error);
    for (size_t i = 0; ok && i < t->count; i++) {
        vlm_error bad = {0};
        ok = compile_variant(&t->item[i], tok, &bad) || (i && bad.code != VLM_MEMORY);      /* one that is never chosen does no harm */
        if (!ok && error) *error = bad;
    }
    if (ok && t->count) {
        t->tok = tok;
        *out = t;
    } else chat_template_free(t);
    return ok;
}

void chat_template_free(chat_template *t)
{
    if (!t) return;
    for (size_t i = 0; i < t->count; i++) {
        mem_free(t->item[i].name);
        mem_free(t->item[i].source);
        jinja_free(t->item[i].j);
        tok_trie_free(&t->item[i].control);
    }
    mem_free(t->item);
    mem_free(t);
}

const char *chat_template_source(const chat_template *t) { return t ? t->item[0].source : NULL; }

const chat_variant *chat_find(const chat_template *t, const char *name)
{
    for (size_t i = 0; t && i < t->count; i++)
        if (!strcmp(t->item[i].name, name)) return &t->item[i];
    return NULL;
}

const chat_variant *chat_choose(const chat_template *t, const char *name, bool tools, vlm_error *error)
{
    const chat_variant *v = name ? chat_find(t, name) : tools ? chat_find(t, "tool_use") : NULL;
    if (!v && name) {
        err_set(error, VLM_INVALID, "no chat template is named \"%.60s\"; there are \"%.60s\" and %zu more", name, t->item[0].name, t->count - 1);
        return NULL;
    }
    if (!v) v = &t->item[0];
    if (!v->j) jinja_free(jinja_compile(v->source, strlen(v->source), error));      /* says why it did not compile */
    return v->j ? v : NULL;
}

/* bos_token and the like from tokenizer_config.json; what it lacks stays undefined. */
bool chat_special_tokens(json_t *variables, const tokenizer *tok)
{
    const json_t *config = tok ? tokenizer_config(tok) : NULL;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)config, key, value) {
        size_t n = strlen(key);
        if (n < 6 || strcmp(key + n - 6, "_token") != 0) continue;
        const char *text = tokenizer_role(tok, key);
        if (text && json_object_set_new(variables, key, json_string(text)) != 0) return false;
    }
    return true;
}

