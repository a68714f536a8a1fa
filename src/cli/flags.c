/* flags.c - see flags.h. */
#include "cli/flags.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"

void model_flags_default(model_flags *f) { *f = (model_flags){.precision = "auto", .kv_dtype = "auto"}; }

/* [NAME=]PATH words as {"name": "path"}; without a name the last part of the path is one. */
static json_t *adapter_object(const texts *words)
{
    json_t *object = json_object();
    for (int i = 0; object && i < words->count; i++) {
        const char *word = words->item[i], *equals = strchr(word, '='), *slash = strchr(word, '/');
        bool named = equals && equals > word && (!slash || slash > equals);
        const char *path = named ? equals + 1 : word, *name = named ? word : path;
        size_t end = named ? (size_t)(equals - word) : strlen(path), begin = 0;
        while (!named && end > 1 && path[end - 1] == '/') end--;
        for (size_t k = 0; !named && k + 1 < end; k++)
            if (path[k] == '/') begin = k + 1;
        char *key = mem_strndup(name + begin, end - begin);
        bool twice = key && json_object_get(object, key);
        if (twice) usage_error("--adapter-path: two adapters are named %s; say NAME=PATH", key);
        bool ok = key && !twice && !json_object_set_new(object, key, json_string(path));
        mem_free(key);
        if (ok) continue;
        json_decref(object);
        return NULL;
    }
    return object;
}

bool model_flags_options(const model_flags *f, vlm_load_options *options, kept *keep, buf *source, int *exit_code)
{
    vlm_error error = {0};
    options->threads = (int)f->threads;
    options->precision = f->precision;
    options->kv_dtype = f->kv_dtype;
    if (interactive()) options->progress = progress_bar;
    if (f->adapters.count) {
        json_t *adapters = adapter_object(&f->adapters);
        *exit_code = 2;
        if (!adapters || !(options->adapters = keep_json(keep, adapters))) return false;
    }
    if (!f->chat_template) return true;
    if (!file_read(f->chat_template, 1 << 20, source, &error)) {
        *exit_code = report(&error);
        return false;
    }
    options->chat_template = source->data ? source->data : "";
    return true;
}

vlm_model *model_flags_load(const model_flags *f, int *exit_code)
{
    vlm_error error = {0};
    buf source = {0};
    kept keep = {0};
    vlm_load_options options = vlm_load_options_default();
    vlm_model *model = NULL;
    if (model_flags_options(f, &options, &keep, &source, exit_code)) {
        model = vlm_load(f->model ? f->model : demo_model(), &options, &error);
        progress_clear();
        if (!model) *exit_code = report(&error);
    }
    buf_free(&source);
    kept_free(&keep);
    return model;
}

void sampling_flags_default(sampling_flags *f)
{
    *f = (sampling_flags){.max_tokens = 2048, .top_k = -1, .temperature = NAN, .top_p = NAN, .typical_p = 1, .repetition_penalty = 1,
                          .repetition_context = 20, .presence_context = 20, .frequency_context = 20, .top_logprobs = -1, .thinking_budget = -1,
                          .length_penalty = NAN};
}

const char *keep_json(kept *keep, json_t *value)
{
    char *text = value ? json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    json_decref(value);
    if (!text || keep->count == (int)(sizeof keep->text / sizeof *keep->text)) {
        free(text);
        usage_error("out of memory");
        return NULL;
    }
    return keep->text[keep->count++] = text;
}

void kept_free(kept *keep)
{
    for (int i = 0; i < keep->count; i++) free(keep->text[i]);      /* jansson's memory */
    keep->count = 0;
}

static json_t *string_array(const texts *list)
{
    json_t *array = json_array();
    for (int i = 0; array && i < list->count; i++) json_array_append_new(array, json_string(list->item[i]));
    return array;
}

static void set_int(json_t *object, const char *key, int64_t value)
{
    if (value > 0) json_object_set_new(object, key, json_integer(value));
}

static json_t *media_object(const media_flags *m)
{
    json_t *object = json_object();
    if (m->processor_kwargs) {
        json_error_t where;
        json_t *extra = json_loads(m->processor_kwargs, 0, &where);
        if (!json_is_object(extra)) {
            usage_error("--processor-kwargs is no JSON object: %s", where.text);
            json_decref(extra);
            json_decref(object);
            return NULL;
        }
        json_object_update(object, extra);
        json_decref(extra);
    }
    if (m->fps > 0) json_object_set_new(object, "fps", json_real(m->fps));
    set_int(object, "num_frames", m->num_frames);
    set_int(object, "min_frames", m->min_frames);
    set_int(object, "max_frames", m->max_frames);
    set_int(object, "min_pixels", m->min_pixels);
    set_int(object, "max_pixels", m->max_pixels);
    set_int(object, "max_soft_tokens", m->max_soft_tokens);
    set_int(object, "max_tiles", m->max_tiles);
    if (m->detail) json_object_set_new(object, "detail", json_string(m->detail));
    if (m->resize_shape.count > 2) {
        usage_error("--resize-shape takes one or two numbers");
        json_decref(object);
        return NULL;
    }
    if (m->resize_shape.count) {
        json_t *shape = json_array();
        for (int i = 0; i < m->resize_shape.count; i++) json_array_append_new(shape, json_integer(atoi(m->resize_shape.item[i])));
        json_object_set_new(object, "resize_shape", shape);
    }
    return object;
}

static void sampling_of(const sampling_flags *s, vlm_sampling *out)
{
    *out = (vlm_sampling){
        .temperature = (float)s->temperature, .top_p = (float)s->top_p, .top_k = (int)s->top_k, .min_p = (float)s->min_p,
        .typical_p = (float)s->typical_p, .top_n_sigma = (float)s->top_n_sigma,
        .repetition_penalty = (float)s->repetition_penalty, .repetition_context = (int)s->repetition_context,
        .presence_penalty = (float)s->presence_penalty, .presence_context = (int)s->presence_context,
        .frequency_penalty = (float)s->frequency_penalty, .frequency_context = (int)s->frequency_context,
        .logit_bias = s->logit_bias, .seed = (uint64_t)s->seed,
        .logprobs = s->top_logprobs >= 0, .top_logprobs = s->top_logprobs > 0 ? (int)s->top_logprobs : 0};
}

bool request_from_flags(const sampling_flags *s, const media_flags *m, vlm_request_options *out, kept *keep)
{
    *out = vlm_request_options_default();
    sampling_of(s, &out->sampling);
    out->max_tokens = (int)s->max_tokens;
    out->min_tokens = (int)s->min_tokens;
    out->num_beams = s->num_beams > INT_MAX || s->num_beams < INT_MIN ? -1 : (int)s->num_beams;
    out->length_penalty = (float)s->length_penalty;
    if (s->early_stopping) out->early_stopping = !strcmp(s->early_stopping, "true") ? 1 : !strcmp(s->early_stopping, "never") ? 2 : 0;
    out->thinking_budget = (int)s->thinking_budget;
    out->thinking_start = s->thinking_start;
    out->thinking_end = s->thinking_end;
    out->adapter = s->adapter;
    out->ignore_eos = s->ignore_eos;
    out->skip_special_tokens = s->skip_special_tokens;
    out->allow_local_files = 1;
    out->allow_network = 1;
    out->progress = interactive();
    json_t *kwargs = json_object();
    json_object_set_new(kwargs, "enable_thinking", json_boolean(s->enable_thinking));
    if (s->thinking_mode) json_object_set_new(kwargs, "thinking_mode", json_string(s->thinking_mode));
    if (!(out->chat.template_kwargs = keep_json(keep, kwargs))) return false;
    if (s->stop.count && !(out->stop = keep_json(keep, string_array(&s->stop)))) return false;
    if (s->eos_tokens.count && !(out->eos_tokens = keep_json(keep, string_array(&s->eos_tokens)))) return false;
    json_t *media = media_object(m);
    return media && (out->media_options = keep_json(keep, media)) != NULL;
}
