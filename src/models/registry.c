/* registry.c - the families of this build: models.def as a table, looked up by config.json's model_type. */
#include <jansson.h>
#include <string.h>
#include <strings.h>

#include "base/err.h"
#include "base/near.h"
#include "models/model.h"

#define ARCH(name) extern const vlm_arch vlm_arch_##name;
#include "models/models.def"
#undef ARCH

const vlm_arch *const vlm_archs[] = {
#define ARCH(name) &vlm_arch_##name,
#include "models/models.def"
#undef ARCH
    NULL
};

static bool names(const vlm_arch *a, const json_t *architectures)
{
    for (const char *const *name = a->architectures; name && *name; name++)
        for (size_t i = 0; i < json_array_size(architectures); i++) {
            const char *one = json_string_value(json_array_get(architectures, i));
            if (one && !strcmp(one, *name)) return true;
        }
    return false;
}

const vlm_arch *arch_find(const char *model_type, const json_t *architectures, vlm_error *error)
{
    buf near = {0};
    for (const vlm_arch *const *a = vlm_archs; *a; a++)
        if (names(*a, architectures)) return *a;
    for (const vlm_arch *const *a = vlm_archs; *a; a++)
        for (const char *const *type = (*a)->model_types; *type; type++) {
            if (!strcasecmp(*type, model_type)) return buf_free(&near), *a;
            if (near_enough(model_type, *type) && near.size < 200) buf_addf(&near, "%s%s", near.size ? ", " : "", *type);
        }
    err_set(error, VLM_UNSUPPORTED, "model_type \"%.100s\" is not known%s%s", model_type, near.size ? "; near names are " : "",
            near.size ? near.data : "");
    err_hint(error, "`vlm models` lists the families");
    buf_free(&near);
    return NULL;
}

static json_t *describe(const vlm_arch *a)
{
    static const char *const tasks[] = {"generate", "embed", "rerank"};
    json_t *types = json_array(), *able = json_pack("[s]", tasks[a->task]);
    for (unsigned t = 0; t < 3; t++)
        if (t != a->task && a->also >> t & 1) json_array_append_new(able, json_string(tasks[t]));
    for (const char *const *type = a->model_types; *type; type++) json_array_append_new(types, json_string(*type));
    return json_pack("{s:s, s:s, s:s, s:o, s:o, s:b, s:b, s:b, s:b, s:s}", "name", a->name, "title", a->title ? a->title : a->name, "task", tasks[a->task], "tasks", able,
                     "model_types", types, "text", 1, "image", !!(a->takes & TAKES_IMAGE), "video", !!(a->takes & TAKES_VIDEO), "audio",
                     !!(a->takes & TAKES_AUDIO), "note", a->title ? a->title : "");
}

char *vlm_families(vlm_error *error)
{
    json_t *list = json_array();
    for (const vlm_arch *const *a = vlm_archs; *a; a++) json_array_append_new(list, describe(*a));
    char *text = list ? json_dumps(list, 0) : NULL, *copy = text ? mem_strdup(text) : NULL;
    free(text);
    json_decref(list);
    if (!copy) err_memory(error, 0);
    return copy;
}
