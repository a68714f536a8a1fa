/* explain.c - see explain.h. The families know which config values a shape comes from, but naming them with every weight would bury the
 * paper; a mismatch is rare enough to search the config for the numbers. */
#include "weights/explain.h"

#include <stdio.h>
#include <string.h>

void explain_shape(int dims, const int64_t *dim, char *out, size_t size)
{
    size_t n = (size_t)snprintf(out, size, "[");
    for (int d = 0; d < dims && n < size; d++) n += (size_t)snprintf(out + n, size - n, "%s%lld", d ? ", " : "", (long long)dim[d]);
    if (n < size) snprintf(out + n, size - n, "]");
}

static int64_t value_of(const json_t *scope, const char *key) { return json_integer_value(json_object_get(scope, key)); }

/* The config value, or product of two, that is n. */
static bool name_in(const json_t *scope, int64_t n, bool inner, char *out, size_t size)
{
    static const char *const outer_keys[] = {"intermediate_size", "vocab_size", "hidden_size", "moe_intermediate_size", "num_experts"};
    static const char *const inner_keys[] = {"hidden_size", "intermediate_size", "moe_intermediate_size", "vocab_size", "num_experts"};
    static const char *const heads[] = {"num_attention_heads", "num_key_value_heads", "num_global_key_value_heads", "num_heads"};
    static const char *const sizes[] = {"head_dim", "global_head_dim"};
    for (size_t i = 0; i < 5; i++) {
        const char *key = inner ? inner_keys[i] : outer_keys[i];
        if (value_of(scope, key) == n) return snprintf(out, size, "%s", key), true;
    }
    for (size_t h = 0; h < 4; h++)
        for (size_t s = 0; s < 2; s++)
            if (value_of(scope, heads[h]) > 0 && value_of(scope, sizes[s]) > 0 && value_of(scope, heads[h]) < INT32_MAX &&
                value_of(scope, sizes[s]) < INT32_MAX && value_of(scope, heads[h]) * value_of(scope, sizes[s]) == n)
                return snprintf(out, size, "%s * %s", heads[h], sizes[s]), true;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)scope, key, value)
        if (n > 1 && json_is_integer(value) && json_integer_value(value) == n && !strstr(key, "token") && !strstr(key, "_id"))
            return snprintf(out, size, "%.60s", key), true;
    return false;
}

void explain_config(const config *cfg, const char *tensor, int dims, const int64_t *dim, char *out, size_t size)
{
    const char *part = strstr(tensor, "vision") || strstr(tensor, "visual") ? "vision_config" : strstr(tensor, "audio") ? "audio_config" : "text_config";
    const json_t *scope = cfg ? json_object_get(cfg->root, part) : NULL;
    char names[200] = "", one[64];
    int found = 0;
    *out = 0;
    if (!cfg) return;
    for (int d = 0; d < dims; d++) {
        size_t n = strlen(names);
        bool known = (json_is_object(scope) && name_in(scope, dim[d], d == dims - 1 && dims > 1, one, sizeof one)) ||
                     name_in(cfg->root, dim[d], d == dims - 1 && dims > 1, one, sizeof one);
        if (!known) snprintf(one, sizeof one, "%lld", (long long)dim[d]);
        found += known;
        snprintf(names + n, sizeof names - n, "%s%s", d ? " x " : "", one);
    }
    if (found) snprintf(out, size, " (%s: %s)", cfg->file, names);
}
