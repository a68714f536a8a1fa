/* processor.c - the processor files of a checkpoint as one object (see model.h: struct vlm_model, processor). What is nested in
 * processor_config.json wins over a file of its own, as in the reference. */
#include "models/processor.h"

#include <string.h>

#include "base/err.h"
#include "base/file.h"

/* NULL with *ok still true when there is no such file. */
static json_t *read_optional(const char *dir, const char *name, bool *ok, vlm_error *error)
{
    char *path = path_join(dir, name);
    json_t *json = NULL;
    if (!path) *ok = err_memory(error, strlen(dir));
    if (*ok && file_exists(path)) {
        json = json_load_file_limited(path, JSON_FILE_LIMIT, error);
        *ok = json != NULL;
        if (json && !json_is_object(json)) {
            json_decref(json);
            json = NULL;
            *ok = err_set(error, VLM_FORMAT, "%s: a JSON object was expected", path);
        }
    }
    mem_free(path);
    return json;
}

static bool fill_in(json_t *root, const char *member, const json_t *first, const json_t *second)
{
    if (json_is_object(json_object_get(root, member))) return true;
    const json_t *source = first ? first : second;
    return json_object_set_new(root, member, source ? json_copy((json_t *)(uintptr_t)source) : json_object()) == 0;
}

config *processor_load(const char *dir, vlm_error *error)
{
    bool ok = true;
    json_t *root = json_object(), *image = NULL, *video = NULL, *whole = NULL;
    if (dir) {
        image = read_optional(dir, "preprocessor_config.json", &ok, error);
        if (ok) video = read_optional(dir, "video_preprocessor_config.json", &ok, error);
        if (ok) whole = read_optional(dir, "processor_config.json", &ok, error);
    }
    if (ok) {
        ok = root && (!image || !json_object_update(root, image)) && (!whole || !json_object_update(root, whole)) &&
             fill_in(root, "image_processor", image, NULL) && fill_in(root, "video_processor", video, image) &&
             fill_in(root, "feature_extractor", image, NULL);
        if (!ok) err_memory(error, 0);
    }
    json_decref(image);
    json_decref(video);
    json_decref(whole);
    if (ok) return config_from_json(root, "processor_config.json", error);
    json_decref(root);
    return NULL;
}
