/* model.c - loading a checkpoint: config, family, weights, tokenizer, template, in this order, so that the cheap and telling
 * complaints come first. What is loaded does not change any more. */
#include "models/model.h"

#include <math.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "base/thread.h"
#include "models/processor.h"
#include "text/chat_fallback.h"

enum { EXACT_LIMIT = 1 << 30 };    /* bytes of weights below which "auto" computes exactly */

vlm_load_options vlm_load_options_default(void)
{
    return (vlm_load_options){.size = sizeof(vlm_load_options)};
}

char *vlm_load_config(const char *path, vlm_error *error)
{
    config *c = config_load(path, error);
    char *text = c ? json_dumps(c->root, 0) : NULL, *copy = text ? mem_strdup(text) : NULL;
    if (c && !copy) err_memory(error, 0);
    free(text);
    config_free(c);
    return copy;
}

/* ---- precision --------------------------------------------------------------------------------------------------------- */

static bool is(const char *option, const char *value) { return !strcmp(option ? option : "auto", value); }

/* Small models and those published in float32 are computed exactly: there is little to win. */
static bool choose_precision(const vlm_load_options *o, const checkpoint *files, precision *out, vlm_error *error)
{
    if (is(o->precision, "exact")) return *out = PRECISION_EXACT, true;
    *out = PRECISION_FAST;
    if (is(o->precision, "fast")) return true;
    if (!is(o->precision, "auto")) return err_set(error, VLM_INVALID, "precision \"%.20s\": auto, exact or fast was expected", o->precision);
    uint64_t floats = 0, bytes = files ? checkpoint_bytes(files) : EXACT_LIMIT;
    for (size_t i = 0; files && i < checkpoint_count(files); i++)
        if (checkpoint_at(files, i)->type == DT_F32) floats += checkpoint_at(files, i)->bytes;
    if (bytes < EXACT_LIMIT || floats > bytes / 2) *out = PRECISION_EXACT;
    return true;
}

static bool choose_kv(const vlm_load_options *o, precision p, dtype *out, vlm_error *error)
{
    static const struct { const char *name; dtype type; } types[] = {{"f32", DT_F32}, {"bf16", DT_BF16}, {"f16", DT_F16}};
    *out = p == PRECISION_EXACT ? DT_F32 : DT_F16;
    if (is(o->kv_dtype, "auto")) return true;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (is(o->kv_dtype, types[i].name)) return *out = types[i].type, true;
    return err_set(error, VLM_INVALID, "kv_dtype \"%.20s\": auto, f32, bf16 or f16 was expected", o->kv_dtype);
}

/* ---- what generation starts from ------------------------------------------------------------------------------------------- */

static void add_eos(vlm_model *m, int64_t id)
{
    if (id < 0 || id >= m->vocab || m->n_eos == (int)(sizeof m->eos / sizeof *m->eos)) return;
    for (int i = 0; i < m->n_eos; i++)
        if (m->eos[i] == id) return;
    m->eos[m->n_eos++] = (int32_t)id;
}

static void add_eos_from(vlm_model *m, const json_t *list)
{
    if (json_is_integer(list)) add_eos(m, json_integer_value(list));
    for (size_t i = 0; i < json_array_size(list); i++) add_eos(m, json_integer_value(json_array_get(list, i)));
}

static int32_t role_id(const vlm_model *m, const char *role)
{
    const char *token = m->tok ? tokenizer_role(m->tok, role) : NULL;
    return token ? tokenizer_id(m->tok, token) : -1;
}

static bool read_generation(vlm_model *m, vlm_error *error)
{
    config *c = m->cfg;
    add_eos_from(m, config_get(c, "eos_token_id"));
    add_eos_from(m, config_get(c, "text_config.eos_token_id"));
    add_eos(m, role_id(m, "eos_token"));
    m->bos = (int32_t)config_int(c, "bos_token_id|text_config.bos_token_id", role_id(m, "bos_token"), -1, INT32_MAX);
    m->temperature = (float)config_number(c, "temperature", NAN);
    m->top_p = (float)config_number(c, "top_p", NAN);
    m->top_k = (int)config_int(c, "top_k", -1, 0, INT32_MAX);
    if (config_has(c, "do_sample") && !config_bool(c, "do_sample", true)) m->temperature = 0;
    return config_ok(c, error);
}

/* Part of every cache key: two models that could give different rows or keys for one input must differ here. Weights are told apart by
 * files, sizes and times, and by the first bytes of each tensor (a fine-tune copied over with the old time). */
static bool make_identity(vlm_model *m, vlm_error *error)
{
    hasher h = hash_start();
    json_t *parts[] = {m->cfg->root, m->processor->root};
    bool ok = true;
    for (size_t i = 0; i < 2; i++) {
        char *text = json_dumps(parts[i], JSON_SORT_KEYS | JSON_COMPACT);
        ok = ok && text;
        hash_text(&h, text ? text : "");
        free(text);
    }
    hash_text(&h, m->files ? "files" : "made up");
    for (size_t i = 0; m->files && i < checkpoint_files(m->files); i++) {
        uint64_t bytes;
        int64_t modified;
        hash_text(&h, checkpoint_file(m->files, i, &bytes, &modified));
        hash_u64(&h, bytes);
        hash_u64(&h, (uint64_t)modified);
    }
    for (size_t i = 0; m->files && i < checkpoint_count(m->files); i++) {
        const stored_tensor *t = checkpoint_at(m->files, i);
        hash_text(&h, t->name);
        hash_part(&h, t->data, t->bytes < 64 ? t->bytes : 64);
    }
    hash_u64(&h, (uint64_t)m->dev.precision);
    hash_u64(&h, m->n_groups ? (uint64_t)m->group[0].type : 0);
    return (hash_finish(&h, &m->identity) && ok) || err_memory(error, sizeof m->identity);
}

/* ---- loading ------------------------------------------------------------------------------------------------------------- */

/* What configure() has set must hold before anything is sized by it. */
static bool check_configured(const vlm_model *m, vlm_error *error)
{
    bool ok = m->hidden > 0 && m->vocab > 0 && m->layers > 0 && m->context > 0 && m->rope_axes >= 1 && m->rope_axes <= MAX_ROPE_AXES &&
              m->n_groups >= 0 && m->n_groups <= MAX_KV_GROUPS;
    for (int g = 0; ok && g < m->n_groups; g++)
        ok = m->group[g].kv_heads > 0 && m->group[g].head_dim > 0 && m->group[g].slots > 0 && m->group[g].window >= 0;
    if (m->memory_shape.slots) ok = ok && m->memory_shape.kv_heads > 0 && m->memory_shape.head_dim > 0 && m->arch->plan_memory && m->arch->remember;
    return ok || err_set(error, VLM_INTERNAL, "family %s: configure() left sizes unset", m->arch->name);
}

static bool load_config(vlm_model *m, bool dummy, vlm_error *error)
{
    bool bare = dummy && !file_is_directory(m->path);
    m->cfg = bare ? config_load_file(m->path, error) : config_load(m->path, error);
    if (!m->cfg) return false;
    if (!m->arch) {
        const char *type = config_need_string(m->cfg, "model_type");
        m->arch = config_ok(m->cfg, error) ? arch_find(type, config_get(m->cfg, "architectures"), error) : NULL;
        if (!m->arch) return err_prefix(error, "%s", m->path);
    }
    m->processor = processor_load(bare ? NULL : m->path, error);
    return m->processor != NULL;
}

static bool load_weights(vlm_model *m, const vlm_load_options *o, vlm_error *error)
{
    dtype kv;
    precision p;
    if (!o->dummy_weights && !(m->files = checkpoint_open(m->path, error))) return false;
    if (!choose_precision(o, m->files, &p, error) || !choose_kv(o, p, &kv, error)) return false;
    m->takes = m->arch->takes;
    m->rules = m->arch->rules ? m->arch->rules : &media_rules_fixed;
    m->rope_axes = 1;
    bool ok = m->arch->configure(m, m->cfg);
    if (!config_ok(m->cfg, error) || !config_ok(m->processor, error)) return err_prefix(error, "%s", m->path);
    if (!ok) return err_set(error, VLM_MEMORY, "%s: out of memory", m->path);
    if (!check_configured(m, error)) return false;
    for (int g = 0; g < m->n_groups; g++) m->group[g].type = kv;
    m->memory_shape.type = kv;
    if (!device_open_cpu(&m->dev, o->threads, p, NULL, error)) return m->dev = (device){0}, false;
    if (!bind_start(&m->binder, m->files, m->cfg, &m->dev, &m->memory, o->dummy_format, error)) return false;
    m->binder.adapters = &m->adapters;
    m->binder.progress = o->progress;
    m->binder.progress_user = o->progress_user;
    ok = m->arch->bind(m, &m->binder);
    if (!config_ok(m->cfg, error)) return err_prefix(error, "%s", m->path);
    if (m->binder.failed) {
        if (error) *error = m->binder.error;
        return err_prefix(error, "%s", m->path);
    }
    if (!ok) return err_set(error, VLM_MEMORY, "%s: out of memory", m->path);
    return adapters_placed(&m->adapters, error);
}

/* {"name": "path", ...} */
static bool open_adapters(vlm_model *m, const char *text, vlm_error *error)
{
    if (!text) return true;
    const char *name;
    json_t *all = json_text_parse(text, strlen(text), "adapters", error), *path;
    bool ok = all && (json_is_object(all) || err_set(error, VLM_INVALID, "adapters: a JSON object {name: path} was expected"));
    if (ok) json_object_foreach(all, name, path) {
        ok = json_is_string(path) ? adapters_open(&m->adapters, name, json_string_value(path), error)
                                  : err_set(error, VLM_INVALID, "adapters: %.40s: a path was expected", name);
        if (!ok) break;
    }
    json_decref(all);
    return ok;
}

static bool load_text(vlm_model *m, const vlm_load_options *o, vlm_error *error)
{
    char *file = path_join(m->path, "tokenizer.json");
    if (!file) return err_memory(error, strlen(m->path));
    bool there = file_exists(file);
    mem_free(file);
    if (o->dummy_weights && !there) return true;
    json_t *more = m->arch->tokens ? json_object() : NULL;
    if (!m->arch->tokens || (more && m->arch->tokens(m, more))) m->tok = tokenizer_load_more(m->path, more, error);
    else err_memory(error, 0);
    json_decref(more);
    if (!m->tok || !chat_template_load(m->path, m->tok, o->chat_template, &m->chat, error)) return false;
    if (m->chat) return true;
    bool known;                                    /* a family that writes its media in its own way, and a checkpoint that does not say how */
    if (m->arch->chat) return chat_template_load(NULL, m->tok, m->arch->chat, &m->chat, error);
    char *source = chat_fallback(config_string(m->cfg, "model_type", ""), tokenizer_role(m->tok, "image_token"), &known);
    bool ok = !known || (source ? chat_template_load(NULL, m->tok, source, &m->chat, error) : err_memory(error, 0));
    mem_free(source);
    return ok;
}

vlm_model *model_load(const char *path, const vlm_arch *arch, const vlm_load_options *options, vlm_error *error)
{
    vlm_load_options o = vlm_load_options_default();
    if (options && options->size) memcpy(&o, options, options->size < sizeof o ? options->size : sizeof o);
    vlm_model *m = MEM_NEW(vlm_model);
    if (m) m->path = mem_strdup(path);
    if (!m || !m->path) {
        err_memory(error, sizeof *m);
        vlm_model_free(m);
        return NULL;
    }
    m->arch = arch;
    m->memory.block_size = 1 << 20;
    if (load_config(m, o.dummy_weights, error) && open_adapters(m, o.adapters, error) && load_weights(m, &o, error) && load_text(m, &o, error) &&
        recipe_load(&m->recipe, o.dummy_weights ? NULL : m->path, m->tok, m->takes != 0, m->hidden, error) && read_generation(m, error) && make_identity(m, error))
        return m;
    vlm_model_free(m);
    return NULL;
}

vlm_model *vlm_load(const char *path, const vlm_load_options *options, vlm_error *error)
{
    if (path) return model_load(path, NULL, options, error);
    err_set(error, VLM_INVALID, "no path of a checkpoint was given");
    return NULL;
}

void vlm_model_free(vlm_model *m)
{
    if (!m) return;
    bind_release(&m->binder);
    if (m->dev.ops) device_close(&m->dev);
    adapters_close(&m->adapters);
    recipe_free(&m->recipe);
    chat_template_free(m->chat);
    grammar_vocab_unref(atomic_load(&m->vocabulary));
    tokenizer_free(m->tok);
    checkpoint_close(m->files);
    config_free(m->processor);
    config_free(m->cfg);
    arena_free(&m->memory);
    mem_free(m->path);
    mem_free(m);
}

grammar_vocab *model_vocabulary(vlm_model *m, vlm_error *error)
{
    grammar_vocab *made = atomic_load(&m->vocabulary), *expected = NULL;
    if (made) return made;
    if (!m->tok) return err_set(error, VLM_UNSUPPORTED, "this model has no tokenizer"), NULL;
    if (!(made = grammar_vocab_from_tokenizer(m->tok, NULL, 0, error))) return NULL;
    if (atomic_compare_exchange_strong(&m->vocabulary, &expected, made)) return made;
    grammar_vocab_unref(made);                    /* another thread was faster */
    return expected;
}

/* ---- facts --------------------------------------------------------------------------------------------------------------- */

static json_t *describe_formats(const vlm_model *m)
{
    static const char *const names[] = {[WF_F32] = "f32", [WF_F16] = "f16", [WF_BF16] = "bf16", [WF_AFFINE] = "affine"};
    json_t *formats = json_object();
    for (size_t i = 0; i < bind_count(&m->binder); i++) {
        const weight *w = bind_at(&m->binder, i);
        char name[32];
        if (w->format == WF_AFFINE) snprintf(name, sizeof name, "affine%d", w->bits);
        else snprintf(name, sizeof name, "%s", names[w->format]);
        json_int_t bytes = json_integer_value(json_object_get(formats, name)) + (json_int_t)weight_bytes(w);
        json_object_set_new(formats, name, json_integer(bytes));
    }
    return formats;
}

/* As the option is spelled. */
static const char *kv_name(const vlm_model *m)
{
    if (!m->n_groups) return "none";
    return m->group[0].type == DT_F32 ? "f32" : m->group[0].type == DT_F16 ? "f16" : "bf16";
}

char *vlm_model_info(const vlm_model *m, vlm_error *error)
{
    json_t *eos = json_array();
    size_t kv = 0;
    for (int i = 0; i < m->n_eos; i++) json_array_append_new(eos, json_integer(m->eos[i]));
    for (int g = 0; g < m->n_groups; g++) kv += kv_page_bytes(&m->group[g]);
    json_t *info = json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:o, s:i, s:i, s:i, s:i, s:b, s:b, s:b, s:s, s:s, s:s, s:i, s:I, s:o, s:b, s:b}",
        "path", m->path, "family", m->arch->name, "title", m->arch->title ? m->arch->title : m->arch->name,
        "model_type", config_string(m->cfg, "model_type", ""), "parameters", (json_int_t)m->binder.parameters,
        "weight_bytes", (json_int_t)bind_bytes(&m->binder), "weight_formats", describe_formats(m), "layers", m->layers, "hidden", m->hidden,
        "vocab", m->vocab, "context", m->context, "image", !!(m->takes & TAKES_IMAGE), "video", !!(m->takes & TAKES_VIDEO),
        "audio", !!(m->takes & TAKES_AUDIO), "precision", m->dev.precision == PRECISION_EXACT ? "exact" : "fast",
        "kv_dtype", kv_name(m), "cpu", m->dev.isa ? m->dev.isa : "", "threads", pool_threads(m->dev.pool),
        "kv_bytes_per_token", (json_int_t)(kv / KV_PAGE_TOKENS), "eos", eos, "chat_template", m->chat != NULL, "made_up_weights", m->files == NULL);
    char *text = info ? json_dumps(info, 0) : NULL, *copy = text ? mem_strdup(text) : NULL;
    free(text);
    json_decref(info);
    if (!copy) err_memory(error, 0);
    return copy;
}
