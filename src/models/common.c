/* common.c - see common.h. */
#include "models/common.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

const char *const text_prefixes[] = {"text_config.", "", NULL};

void decoder_names(decoder_spec *s)
{
    static const char *const prefix[] = {"model.language_model.", "language_model.model.", "model.text_model.", "model.", "language_model.", NULL};
    static const char *const head[] = {"", "language_model.", NULL};
    memcpy(s->prefix, prefix, sizeof prefix);
    memcpy(s->head_prefix, head, sizeof head);
}

void model_use_decoder(vlm_model *m, const decoder *d)
{
    m->hidden = d->spec.hidden;
    m->vocab = d->spec.vocab;
    m->layers = d->spec.layers;
    m->context = (int)config_int(m->cfg, "text_config.max_position_embeddings|max_position_embeddings", 131072, 1, INT32_MAX);
    m->rope_axes = 1;
    m->trained = d->spec.n_ropes && d->spec.rope[0].far_freq ? d->spec.rope[0].trained : 0;
    m->n_groups = d->n_groups;
    m->state_bytes = d->state_bytes;
    m->memory_shape = d->memory;
    for (int g = 0; g < d->n_groups; g++) m->group[g] = d->group[g];
}

static const json_t *find_option(const chat_media *part, const json_t *options, const char *key)
{
    const json_t *v = part && part->options ? json_object_get(part->options, key) : NULL;
    if (!json_is_number(v) && options) v = json_object_get(options, key);
    return json_is_number(v) && isfinite(json_number_value(v)) ? v : NULL;
}

double media_option(const chat_media *part, const json_t *options, const char *key, double fallback)
{
    const json_t *v = find_option(part, options, key), *most;
    double value = v ? json_number_value(v) : fallback;
    char ceiling[80];
    if (!options || snprintf(ceiling, sizeof ceiling, MEDIA_AT_MOST "%s", key) >= (int)sizeof ceiling) return value;
    most = json_object_get(options, ceiling);
    return json_is_number(most) ? fmin(value, json_number_value(most)) : value;
}

bool media_switch(const json_t *options, const char *key, bool fallback)
{
    const json_t *v = options ? json_object_get(options, key) : NULL;
    return json_is_boolean(v) ? json_is_true(v) : fallback;
}

bool media_has_option(const chat_media *part, const json_t *options, const char *key) { return find_option(part, options, key) != NULL; }
