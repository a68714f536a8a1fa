/* recipe.c - see recipe.h. */
#include "models/recipe.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"

/* The text of the first message, after whatever the checkpoint wants before it. */
#define TEXT "{% if messages[0].content is string %}{{ messages[0].content }}{% else %}{% for part in messages[0].content %}{{ part.text }}{% endfor %}{% endif %}"
static const char PLAIN[] = "{{ before }}" TEXT;
/* Of late-interaction models: prefix, suffix and a picture's whole prompt are the template's own, since they hold control tokens. */
static const char COL[] = "{%% if messages[0].content is not string and messages[0].content[0].type == 'image' %%}{{ %s }}{%% else %%}{{ %s }}%s{{ %s }}{%% endif %%}";
/* Qwen3-Reranker: the answer has been thought about, its first token is yes or no. */
static const char JUDGE[] = "<|im_start|>system\n{{ messages[0].content }}<|im_end|>\n<|im_start|>user\n{{ messages[1].content }}<|im_end|>\n"
                            "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>{{ '\\n\\n' }}";

const char *pooling_name(pooling p)
{
    static const char *const names[] = {"last", "first", "mean", "max", "each"};
    return names[p];
}

/* ---- sentence-transformers' files -------------------------------------------------------------------------------------- */

static config *load_beside(const char *dir, const char *folder, const char *file, vlm_error *error)
{
    char *at = *folder ? path_join(dir, folder) : mem_strdup(dir), *path = at ? path_join(at, file) : NULL;
    config *c = NULL;
    if (!path) err_memory(error, strlen(dir));
    else if (file_exists(path)) c = config_load_file(path, error);
    mem_free(at);
    mem_free(path);
    return c;
}

static bool read_pooling(recipe *r, config *c, vlm_error *error)
{
    static const struct { const char *name, *old; pooling pooling; } modes[] = {
        {"lasttoken", "pooling_mode_lasttoken", POOL_LAST}, {"cls", "pooling_mode_cls_token", POOL_FIRST}, {"mean", "pooling_mode_mean_tokens", POOL_MEAN},
        {"max", "pooling_mode_max_tokens", POOL_MAX},
    };
    const json_t *mode = config_get(c, "pooling_mode");
    int found = 0;
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        bool this_one = json_is_string(mode) ? !strcmp(json_string_value(mode), modes[i].name) : json_is_true(config_get(c, modes[i].old));
        if (this_one) r->pooling = modes[i].pooling, found++;
    }
    bool other = json_is_true(config_get(c, "pooling_mode_weightedmean_tokens")) || json_is_true(config_get(c, "pooling_mode_mean_sqrt_len_tokens"));
    if (!found && !mode && !other) return r->pooling = POOL_MEAN, true;        /* its default */
    if (found == 1 && !other) return true;
    return err_set(error, VLM_UNSUPPORTED, "%s: one of the poolings lasttoken, cls, mean, max was expected", c->file);
}

/* modules.json: a list of steps, each with its folder. */
static bool read_modules(recipe *r, const char *dir, json_t *modules, vlm_error *error)
{
    size_t i;
    json_t *step;
    r->normalize = false;
    json_array_foreach(modules, i, step) {
        const char *type = json_string_value(json_object_get(step, "type")), *path = json_string_value(json_object_get(step, "path"));
        const char *dot = type ? strrchr(type, '.') : NULL, *name = dot ? dot + 1 : type ? type : "";
        if (!strcmp(name, "Normalize")) r->normalize = true;
        if (!strcmp(name, "Normalize") || !strcmp(name, "Transformer")) continue;
        if (strcmp(name, "Pooling")) return err_set(error, VLM_UNSUPPORTED, "modules.json: a step of type %.60s is not supported", name);
        if (!path || strstr(path, "..") || path[0] == '/') return err_set(error, VLM_FORMAT, "modules.json: the path of a folder beside it was expected");
        config *c = load_beside(dir, path, "config.json", error);
        if (!c) return err_set(error, VLM_NOT_FOUND, "%.100s/config.json, which modules.json names, cannot be read", path);
        bool ok = read_pooling(r, c, error) && config_ok(c, error);
        config_free(c);
        if (!ok) return false;
    }
    r->declared = true;
    return true;
}

static bool read_files(recipe *r, const char *dir, vlm_error *error)
{
    vlm_error why = {0};
    char *path = path_join(dir, "modules.json");
    if (!path) return err_memory(error, strlen(dir));
    json_t *modules = file_exists(path) ? json_load_file_limited(path, JSON_FILE_LIMIT, &why) : NULL;
    mem_free(path);
    bool ok = !why.code && (!json_is_array(modules) || read_modules(r, dir, modules, &why));
    json_decref(modules);
    config *c = ok ? load_beside(dir, "", "config_sentence_transformers.json", &why) : NULL;
    if (c && json_is_object(config_get(c, "prompts"))) r->prompts = json_deep_copy(config_get(c, "prompts"));
    config_free(c);
    if (why.code && error) *error = why;
    return !why.code;
}

/* ---- the whole ----------------------------------------------------------------------------------------------------------- */

/* A string literal of the template language. */
static char *quoted(const char *text)
{
    json_t *string = json_string(text);
    char *dumped = string ? json_dumps(string, JSON_ENCODE_ANY) : NULL, *out = dumped ? mem_strdup(dumped) : NULL;
    free(dumped);
    json_decref(string);
    return out;
}

static char *col_source(const recipe *r, const tokenizer *tok)
{
    const char *pad = tokenizer_role(tok, "pad_token");
    buf suffix = {0};
    for (int i = 0; i < r->query_pads; i++) buf_adds(&suffix, pad ? pad : "<|endoftext|>");
    buf_addc(&suffix, '\n');
    char *picture = quoted(r->picture), *prefix = quoted(r->query_prefix), *after = suffix.failed ? NULL : quoted(suffix.data);
    char *out = picture && prefix && after ? mem_printf(COL, picture, prefix, TEXT, after) : NULL;
    mem_free(picture);
    mem_free(prefix);
    mem_free(after);
    buf_free(&suffix);
    return out;
}

bool recipe_load(recipe *r, const char *dir, const tokenizer *tok, bool sees, int hidden, vlm_error *error)
{
    r->yes = r->no = -1;
    r->through_chat = sees && !r->picture;
    if (!r->declared) r->normalize = true;
    if (!r->dimensions) r->dimensions = hidden;
    if (dir && !read_files(r, dir, error)) return false;
    if (!tok) return true;
    r->yes = tokenizer_id(tok, "yes");
    r->no = tokenizer_id(tok, "no");
    char *source = r->picture ? col_source(r, tok) : mem_strdup(PLAIN);
    bool ok = source ? chat_template_load(NULL, tok, source, &r->text, error) && chat_template_load(NULL, tok, JUDGE, &r->judge, error) : err_memory(error, sizeof COL);
    mem_free(source);
    return ok;
}

void recipe_free(recipe *r)
{
    json_decref(r->prompts);
    chat_template_free(r->text);
    chat_template_free(r->judge);
    *r = (recipe){0};
}
