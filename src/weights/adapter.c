/* adapter.c - see adapter.h: opening adapters, whose tensor is whose. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "weights/adapter.h"

#include <math.h>
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"

enum { NAME_LIMIT = 480, PATTERN_LIMIT = 1024, MATCH_LIMIT = 10000 };

typedef struct entry {
    const char *module;
    adapter_role role;
    const stored_tensor *tensor;
    bool placed;
} entry;

typedef struct pattern { pcre2_code *code; double value; } pattern;

struct adapter {
    char *name, *path;
    checkpoint *own;               /* NULL: built in */
    config *cfg;
    entry *entries;                /* sorted by module and role */
    size_t count;
    arena names;
    bool built_in, rslora, touches_media;
    double alpha, scale;           /* scale > 0: used as it is; else alpha / rank */
    int64_t rank;                  /* what the config says; 0: nothing */
    pattern *alphas, *ranks;
    size_t n_alphas, n_ranks;
    uint64_t parameters;
    digest identity;
};

/* ---- names ----------------------------------------------------------------------------------------------------------- */

/* What comes after a marker in a name; * stands for the adapter's name. */
typedef struct marker { const char *text, *tail; adapter_role role; } marker;
static const marker markers[] = {
    {".lora_A", ".weight", ADAPTER_DOWN}, {".lora_A", ".*.weight", ADAPTER_DOWN},
    {".lora_B", ".weight", ADAPTER_UP}, {".lora_B", ".*.weight", ADAPTER_UP},
    {".lora_B", ".bias", ADAPTER_UP_BIAS}, {".lora_B", ".*.bias", ADAPTER_UP_BIAS},
    {".lora_embedding_A", "", ADAPTER_TABLE_DOWN}, {".lora_embedding_A", ".*", ADAPTER_TABLE_DOWN},
    {".lora_embedding_B", "", ADAPTER_TABLE_UP}, {".lora_embedding_B", ".*", ADAPTER_TABLE_UP},
    {".lora_magnitude_vector", "", ADAPTER_MAGNITUDE}, {".lora_magnitude_vector", ".weight", ADAPTER_MAGNITUDE},
    {".lora_magnitude_vector", ".*.weight", ADAPTER_MAGNITUDE}, {".lora_magnitude_vector", ".*", ADAPTER_MAGNITUDE},
    {".modules_to_save", ".weight", ADAPTER_WEIGHT}, {".modules_to_save", ".*.weight", ADAPTER_WEIGHT},
    {".modules_to_save", ".bias", ADAPTER_BIAS}, {".modules_to_save", ".*.bias", ADAPTER_BIAS},
    {".base_layer", ".weight", ADAPTER_WEIGHT}, {".base_layer", ".bias", ADAPTER_BIAS},
    {".lora_a", "", ADAPTER_DOWN_T}, {".lora_b", "", ADAPTER_UP_T}, {".m", "", ADAPTER_MAGNITUDE},
    {".A", "", ADAPTER_DOWN_T}, {".B", "", ADAPTER_UP_T},
    {"", ".weight", ADAPTER_WEIGHT}, {"", ".bias", ADAPTER_BIAS},
};

static bool ends_with(const char *text, size_t n, const char *end)
{
    size_t m = strlen(end);
    return n >= m && !memcmp(text + n - m, end, m);
}

/* Does text [0, n) end with the marker and its tail, and where does the marker begin? `only`: the name that * has to be, or NULL. */
static bool fits(const char *text, size_t n, const marker *m, const char *only, size_t *begin)
{
    char end[NAME_LIMIT];
    const char *star = strchr(m->tail, '*');
    if (!star) {
        snprintf(end, sizeof end, "%s%s", m->text, m->tail);
        *begin = n - strlen(end);
        return !only && ends_with(text, n, end) && n > strlen(end);
    }
    const char *after = star + 1;                  /* ".weight", or nothing */
    if (!ends_with(text, n, after)) return false;
    size_t stop = n - strlen(after), start = stop;
    while (start > 0 && text[start - 1] != '.') start--;
    if (start == 0 || start == stop || (only && (strlen(only) != stop - start || memcmp(text + start, only, stop - start)))) return false;
    *begin = start - 1 - strlen(m->text);
    return ends_with(text, start - 1, m->text) && start - 1 > strlen(m->text);
}

/* Module and role of a tensor's name; `only`: name of the built-in adapter that is looked for. */
static adapter_role role_of(const char *name, const char *only, char *module)
{
    static const char peft[] = "base_model.model.";
    if (!only && !strncmp(name, peft, sizeof peft - 1)) name += sizeof peft - 1;
    size_t n = strlen(name), begin;
    *module = 0;
    if (n >= NAME_LIMIT) return ADAPTER_UNKNOWN;
    for (size_t i = 0; i < sizeof markers / sizeof *markers; i++)
        if (fits(name, n, &markers[i], only, &begin)) {
            memcpy(module, name, begin);
            module[begin] = 0;
            return markers[i].role;
        }
    return ADAPTER_UNKNOWN;
}

static int by_module(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    int order = strcmp(x->module, y->module);
    return order ? order : (x->role > y->role) - (x->role < y->role);
}

static bool add_entries(adapter *a, const checkpoint *files, const char *only, vlm_error *error)
{
    size_t total = checkpoint_count(files);
    if (!(a->entries = MEM_ARRAY(total + 1, entry))) return err_memory(error, total * sizeof *a->entries);
    for (size_t i = 0; i < total; i++) {
        const stored_tensor *t = checkpoint_at(files, i);
        char module[NAME_LIMIT];
        adapter_role role = role_of(t->name, only, module);
        if (only && role == ADAPTER_UNKNOWN) continue;
        entry *e = &a->entries[a->count++];
        *e = (entry){.module = arena_strdup(&a->names, role == ADAPTER_UNKNOWN ? t->name : module), .role = role, .tensor = t};
        if (!e->module) return err_memory(error, NAME_LIMIT);
        a->parameters += t->bytes / dtype_size(t->type);
    }
    if (a->count) qsort(a->entries, a->count, sizeof *a->entries, by_module);
    for (size_t i = 1; i < a->count; i++)
        if (!by_module(&a->entries[i - 1], &a->entries[i]) && a->entries[i].role != ADAPTER_UNKNOWN)
            return err_set(error, VLM_FORMAT, "adapter %s: %s and %s are the same thing twice", a->name, a->entries[i - 1].tensor->name, a->entries[i].tensor->name);
    if (!a->count) return err_set(error, VLM_FORMAT, "adapter %s: %s holds no tensors of an adapter", a->name, a->path ? a->path : "the checkpoint");
    return true;
}

/* ---- adapter_config.json ------------------------------------------------------------------------------------------------ */

/* {"regular expression": value}: the expression is a module's name or the end of one, as PEFT matches it. */
static bool read_patterns(adapter *a, const char *key, pattern **out, size_t *count, vlm_error *error)
{
    const json_t *all = config_get(a->cfg, key);
    const char *text;
    json_t *value;
    if (!all) return true;
    if (!json_is_object(all) || json_object_size(all) > PATTERN_LIMIT)
        return err_set(error, VLM_FORMAT, "adapter %s: %s: an object of at most %d patterns was expected", a->name, key, PATTERN_LIMIT);
    if (!json_object_size(all)) return true;
    if (!(*out = MEM_ARRAY(json_object_size(all), pattern))) return err_memory(error, PATTERN_LIMIT);
    json_object_foreach((json_t *)all, text, value) {
        char *whole = mem_printf("(?:.*\\.)?(?:%s)$", text);
        int code;
        PCRE2_SIZE at;
        if (!whole) return err_memory(error, strlen(text));
        pcre2_code *compiled = strlen(text) < NAME_LIMIT ? pcre2_compile((PCRE2_SPTR)whole, PCRE2_ZERO_TERMINATED, PCRE2_ANCHORED, &code, &at, NULL) : NULL;
        mem_free(whole);
        if (!compiled || !json_is_number(value) || !(json_number_value(value) > 0)) {
            pcre2_code_free(compiled);
            return err_set(error, VLM_FORMAT, "adapter %s: %s: \"%.100s\" is no pattern with a positive number", a->name, key, text);
        }
        (*out)[(*count)++] = (pattern){compiled, json_number_value(value)};
    }
    return true;
}

static double pattern_value(const pattern *list, size_t count, const char *module, double fallback)
{
    pcre2_match_context *limits = count ? pcre2_match_context_create(NULL) : NULL;
    if (limits) pcre2_set_match_limit(limits, MATCH_LIMIT);
    for (size_t i = 0; i < count; i++) {
        pcre2_match_data *match = pcre2_match_data_create(1, NULL);
        int n = match ? pcre2_match(list[i].code, (PCRE2_SPTR)module, PCRE2_ZERO_TERMINATED, 0, 0, match, limits) : -1;
        pcre2_match_data_free(match);
        if (n >= 0) { fallback = list[i].value; break; }
    }
    pcre2_match_context_free(limits);
    return fallback;
}

/* Members that change what an adapter computes and that are not implemented: none of them may be set. */
static bool nothing_else(adapter *a, vlm_error *error)
{
    static const char *const others[] = {"use_qalora", "layer_replication", "trainable_token_indices", "alora_invocation_tokens", "arrow_config",
                                         "use_bdlora", "kasa_config", "velora_config", "monteclora_config", "target_parameters", "megatron_config"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        const json_t *v = config_get(a->cfg, others[i]);
        if (v && !json_is_false(v) && !(json_is_array(v) && !json_array_size(v)) && !(json_is_object(v) && !json_object_size(v)))
            return err_set(error, VLM_UNSUPPORTED, "adapter %s: adapter_config.json: %s is not supported", a->name, others[i]);
    }
    return true;
}

static bool read_peft(adapter *a, vlm_error *error)
{
    config *c = a->cfg;
    const char *type = config_string(c, "peft_type", "LORA");
    if (strcmp(type, "LORA")) return err_set(error, VLM_UNSUPPORTED, "adapter %s: adapters of type %.40s are not supported; LORA was expected", a->name, type);
    a->rank = config_need_int(c, "r", 1, 1 << 20);
    a->alpha = config_number(c, "lora_alpha", 8);
    a->rslora = config_bool(c, "use_rslora", false);
    return config_ok(c, error) && nothing_else(a, error) && read_patterns(a, "alpha_pattern", &a->alphas, &a->n_alphas, error) &&
           read_patterns(a, "rank_pattern", &a->ranks, &a->n_ranks, error);
}

static bool read_mlx(adapter *a, vlm_error *error)
{
    config *c = a->cfg;
    const char *type = config_string(c, "fine_tune_type", "lora");
    if (strcmp(type, "lora") && strcmp(type, "dora"))
        return err_set(error, VLM_UNSUPPORTED, "adapter %s: fine_tune_type %.40s is not supported; lora or dora was expected", a->name, type);
    if (config_has(c, "lora_parameters")) {
        a->rank = config_int(c, "lora_parameters.rank", 0, 1, 1 << 20);
        a->scale = config_need_number(c, "lora_parameters.scale");
        if (config_ok(c, error) && a->scale == 0) return err_set(error, VLM_FORMAT, "adapter %s: lora_parameters.scale is 0", a->name);
    } else {
        a->rank = config_need_int(c, "rank", 1, 1 << 20);
        a->alpha = config_number(c, "alpha", 0.1);
    }
    return config_ok(c, error);
}

static bool read_config(adapter *a, vlm_error *error)
{
    bool mlx = config_has(a->cfg, "fine_tune_type") || config_has(a->cfg, "lora_parameters") || (config_has(a->cfg, "rank") && !config_has(a->cfg, "peft_type"));
    if (!(mlx ? read_mlx : read_peft)(a, error)) return false;
    if (isfinite(a->alpha) && isfinite(a->scale)) return true;
    return err_set(error, VLM_FORMAT, "adapter %s: its scale is no finite number", a->name);
}

/* ---- opening --------------------------------------------------------------------------------------------------------------- */

static void free_patterns(pattern *list, size_t count)
{
    for (size_t i = 0; i < count; i++) pcre2_code_free(list[i].code);
    mem_free(list);
}

static void adapter_free(adapter *a)
{
    if (!a) return;
    checkpoint_close(a->own);
    config_free(a->cfg);
    free_patterns(a->alphas, a->n_alphas);
    free_patterns(a->ranks, a->n_ranks);
    arena_free(&a->names);
    mem_free(a->entries);
    mem_free(a->name);
    mem_free(a->path);
    mem_free(a);
}

/* File of the weights in `path`, a folder, or `path` itself. */
static char *find_weights(const char *name, const char *path, vlm_error *error)
{
    static const char *const files[] = {"adapter_model.safetensors", "adapters.safetensors", "weights.safetensors"};
    char *found = NULL;
    if (!file_is_directory(path)) {
        if (!file_exists(path)) return err_set(error, VLM_NOT_FOUND, "adapter %s: there is no %s", name, path), NULL;
        return (found = mem_strdup(path)) ? found : (err_memory(error, strlen(path)), NULL);
    }
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        if (!(found = path_join(path, files[i]))) return err_memory(error, strlen(path)), NULL;
        if (file_exists(found)) return found;
        mem_free(found);
    }
    err_set(error, VLM_NOT_FOUND, "adapter %s: %s has neither %s nor %s", name, path, files[0], files[1]);
    err_hint(error, "only safetensors are read; convert other files");
    return NULL;
}

static bool identify(adapter *a, vlm_error *error)
{
    hasher h = hash_start();
    char *text = json_dumps(a->cfg->root, JSON_SORT_KEYS | JSON_COMPACT);
    bool ok = text != NULL;
    uint64_t bytes;
    int64_t modified;
    hash_text(&h, text ? text : "");
    free(text);
    hash_text(&h, checkpoint_file(a->own, 0, &bytes, &modified));
    hash_u64(&h, bytes);
    hash_u64(&h, (uint64_t)modified);
    for (size_t i = 0; i < checkpoint_count(a->own); i++) {
        const stored_tensor *t = checkpoint_at(a->own, i);
        hash_text(&h, t->name);
        hash_part(&h, t->data, t->bytes < 64 ? t->bytes : 64);
    }
    return (hash_finish(&h, &a->identity) && ok) || err_memory(error, sizeof a->identity);
}

static adapter *adapter_new(adapter_set *set, const char *name, vlm_error *error)
{
    if (!name || !*name || strpbrk(name, ",=") || !strcmp(name, "none"))
        return err_set(error, VLM_INVALID, "\"%.40s\" is no name for an adapter", name ? name : ""), NULL;
    for (int i = 0; i < set->count; i++)
        if (!strcmp(set->list[i]->name, name)) return err_set(error, VLM_INVALID, "there are two adapters named %.40s", name), NULL;
    if (set->count == MAX_ADAPTERS) return err_set(error, VLM_LIMIT, "more than %d adapters", MAX_ADAPTERS), NULL;
    adapter *a = MEM_NEW(adapter);
    if (a && (a->name = mem_strdup(name))) return a;
    adapter_free(a);
    return err_memory(error, sizeof *a), NULL;
}

bool adapters_open(adapter_set *set, const char *name, const char *path, vlm_error *error)
{
    adapter *a = adapter_new(set, name, error);
    char *weights = a ? find_weights(name, path, error) : NULL, *folder = NULL, *file = NULL;
    bool ok = weights != NULL;
    if (ok) {
        char *slash = strrchr(weights, '/');
        folder = slash ? mem_strndup(weights, (size_t)(slash - weights)) : mem_strdup(".");
        file = folder ? path_join(*folder ? folder : "/", "adapter_config.json") : NULL;
        a->path = mem_strdup(weights);
        ok = (file && a->path) || err_memory(error, strlen(weights));
    }
    if (ok && !file_exists(file)) ok = err_set(error, VLM_NOT_FOUND, "adapter %s: there is no %s", name, file);
    if (ok && (!(a->cfg = config_load_file(file, error)) || !(a->own = checkpoint_open_file(weights, error)))) ok = err_prefix(error, "adapter %s", name);
    ok = ok && read_config(a, error) && add_entries(a, a->own, NULL, error) && identify(a, error);
    mem_free(weights);
    mem_free(folder);
    mem_free(file);
    if (ok) set->list[set->count++] = a;
    else adapter_free(a);
    return ok;
}

/* The model's identity covers its files already: the name is enough to tell built-in adapters apart. */
bool adapters_built_in(adapter_set *set, const char *name, const checkpoint *files, double scale, int *bit, vlm_error *error)
{
    adapter *a = adapter_new(set, name, error);
    if (!a) return false;
    a->built_in = true;
    a->scale = scale;
    bool ok = (!files || add_entries(a, files, name, error)) && (hash_bytes(name, strlen(name), &a->identity) || err_memory(error, 0));
    if (!ok) return adapter_free(a), false;
    *bit = set->count;
    set->list[set->count++] = a;
    return true;
}

void adapters_close(adapter_set *set)
{
    for (int i = 0; i < set->count; i++) adapter_free(set->list[i]);
    *set = (adapter_set){0};
}

/* ---- asking ------------------------------------------------------------------------------------------------------------------ */

const char *adapter_name(const adapter *a) { return a->name; }
bool adapter_chosen_by_user(const adapter *a) { return !a->built_in; }
uint64_t adapter_parameters(const adapter *a) { return a->parameters; }
void adapter_touches_media(adapter *a) { a->touches_media = true; }
const char *adapter_base(const adapter *a) { return a->cfg ? config_string(a->cfg, "base_model_name_or_path", "") : ""; }

const stored_tensor *adapter_find(adapter *a, const char *module, adapter_role role)
{
    entry key = {.module = module, .role = role}, *e = a->count ? bsearch(&key, a->entries, a->count, sizeof key, by_module) : NULL;
    if (!e) return NULL;
    e->placed = true;
    return e->tensor;
}

bool adapter_scale(const adapter *a, const char *module, int64_t rank, double *scale, vlm_error *error)
{
    double expected = pattern_value(a->ranks, a->n_ranks, module, (double)a->rank), alpha = pattern_value(a->alphas, a->n_alphas, module, a->alpha);
    if (rank < 1 || (expected > 0 && (double)rank != expected))
        return err_set(error, VLM_FORMAT, "adapter %s: %s has rank %lld, adapter_config.json says %g", a->name, module, (long long)rank, expected);
    *scale = a->scale != 0 ? a->scale : a->rslora ? alpha / sqrt((double)rank) : alpha / (double)rank;
    return true;
}

bool adapters_mask(const adapter_set *set, const char *names, uint64_t *mask, vlm_error *error)
{
    *mask = 0;
    for (const char *at = names, *end; *at; at = *end ? end + 1 : end) {
        end = at + strcspn(at, ",");
        size_t n = (size_t)(end - at);
        int i = 0;
        while (i < set->count && (set->list[i]->built_in || strlen(set->list[i]->name) != n || memcmp(set->list[i]->name, at, n))) i++;
        if (i < set->count) { *mask |= (uint64_t)1 << i; continue; }
        if (n == 4 && !memcmp(at, "none", 4)) continue;
        err_set(error, VLM_INVALID, "there is no adapter %.*s", n > 60 ? 60 : (int)n, at);
        buf list = {0};
        for (i = 0; i < set->count; i++)
            if (!set->list[i]->built_in) buf_addf(&list, "%s%s", list.size ? ", " : "", set->list[i]->name);
        if (list.size) err_hint(error, "loaded: %s", list.data);
        else err_hint(error, "none were loaded");
        buf_free(&list);
        return false;
    }
    return true;
}

bool adapters_digest(const adapter_set *set, uint64_t mask, bool media, digest *out)
{
    hasher h = hash_start();
    bool any = false;
    *out = (digest){0};
    for (int i = 0; i < set->count; i++) {
        if (!(mask >> i & 1) || (media && !set->list[i]->touches_media)) continue;
        hash_part(&h, &set->list[i]->identity, sizeof(digest));
        any = true;
    }
    digest d;
    if (!hash_finish(&h, &d)) return false;
    if (any) *out = d;
    return true;
}

bool adapters_placed(const adapter_set *set, vlm_error *error)
{
    for (int i = 0; i < set->count; i++) {
        const adapter *a = set->list[i];
        char names[600] = "";
        size_t lost = 0;
        for (size_t k = 0; k < a->count; k++) {
            if (a->entries[k].placed) continue;
            size_t n = strlen(names);
            if (lost++ < 4) snprintf(names + n, sizeof names - n, "%s%.140s", n ? ", " : "", a->entries[k].tensor->name);
        }
        if (!lost) continue;
        err_set(error, VLM_FORMAT, "adapter %s: %zu of its %zu tensors have no place in this model: %s%s", a->name, lost, a->count, names, lost > 4 ? ", ..." : "");
        if (*adapter_base(a)) err_hint(error, "it was made for %.100s; norms, convolutions and experts cannot be adapted", adapter_base(a));
        else err_hint(error, "it belongs to another model, or changes norms, convolutions or experts, which is not supported");
        return false;
    }
    return true;
}
