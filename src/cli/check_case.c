/* check_case.c - see check.h: cases.json, golden.safetensors and the media that belong to a checkpoint. */
#include "cli/check.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"

/* The first of DIR/name and DIR/../name that exists; NULL: none, or out of memory. */
static char *beside_or_above(const char *dir, const char *name)
{
    char *path = path_join(dir, name);
    if (path && file_exists(path)) return path;
    mem_free(path);
    char *above = path_join(dir, "..");
    path = above ? path_join(above, name) : NULL;
    mem_free(above);
    if (path && file_exists(path)) return path;
    mem_free(path);
    return NULL;
}

static bool read_ids(const json_t *list, ids *out)
{
    size_t i;
    const json_t *id;
    if (!json_is_array(list)) return false;
    json_array_foreach((json_t *)(uintptr_t)list, i, id)
        if (!json_is_integer(id) || !ids_add(out, (int32_t)json_integer_value(id))) return false;
    return true;
}

/* The reference may tell media apart from the messages: parts without a source take the names listed in "images", "videos", "audios", in turn;
 * frames of a folder come at the rate that the processor was told. Cases without messages are plain prompts: "parts" are their media. */
static bool name_media(json_t *json)
{
    static const char *const kinds[] = {"image", "video", "audio"}, *const lists[] = {"images", "videos", "audios"};
    size_t used[3] = {0}, m, p;
    json_t *message, *part, *told = json_object_get(json_object_get(json, "processor_kwargs"), "video_metadata");
    json_array_foreach(json_object_get(json, "messages"), m, message)
        json_array_foreach(json_object_get(message, "content"), p, part) {
            const char *type = json_string_value(json_object_get(part, "type"));
            for (int k = 0; type && k < 3; k++) {
                if (strcmp(type, kinds[k]) || json_object_get(part, kinds[k])) continue;
                json_t *name = json_array_get(json_object_get(json, lists[k]), used[k]), *fps;
                fps = json_object_get(json_array_get(told, used[k]++), "fps");
                if (!name || json_object_set(part, kinds[k], name)) return false;
                if (fps && json_object_set(part, "fps", fps)) return false;
            }
        }
    if (json_array_size(json_object_get(json, "messages")) || json_object_get(json, "parts")) return true;
    json_t *parts = json_array();
    for (int k = 0; k < 3; k++)
        json_array_foreach(json_object_get(json, lists[k]), p, part)
            json_array_append_new(parts, json_pack("{s:s, s:O}", "type", kinds[k], kinds[k], part));
    return json_object_set_new(json, "parts", parts) == 0;
}

static bool read_case(check_case *c, const json_t *json, vlm_error *error)
{
    *c = (check_case){.json = json, .name = json_string_value(json_object_get(json, "name"))};
    if (c->name && json_is_array(json_object_get(json, "messages")) && read_ids(json_object_get(json, "input_ids"), &c->prompt) &&
        read_ids(json_object_get(json, "generated_ids"), &c->answer))
        return true;
    return err_set(error, VLM_FORMAT, "cases.json: case %s: name, messages, input_ids and generated_ids were expected", c->name ? c->name : "?");
}

static bool read_cases(check_suite *s, const char *only, vlm_error *error)
{
    const json_t *list = json_object_get(s->root, "cases");
    size_t i, n = json_array_size(list);
    json_t *json;
    if (!n) return err_set(error, VLM_FORMAT, "cases.json has no cases");
    s->cases = MEM_ARRAY(n, check_case);
    if (!s->cases) return err_memory(error, n * sizeof *s->cases);
    json_array_foreach((json_t *)(uintptr_t)list, i, json) {
        const char *name = json_string_value(json_object_get(json, "name"));
        if (only && (!name || strcmp(only, name))) continue;
        if (!name_media(json)) return err_set(error, VLM_FORMAT, "cases.json: case %s: a medium has no source", name ? name : "?");
        if (!read_case(&s->cases[s->count++], json, error)) return false;
    }
    return s->count || err_set(error, VLM_NOT_FOUND, "cases.json has no case %s", only);
}

/* A golden that is named but not there must not pass as one that was never made. */
static bool has_goldens(const check_suite *s, const check_case *c, vlm_error *error)
{
    const char *key;
    json_t *name;
    json_object_foreach(json_object_get(c->json, "tensors"), key, name)
        if (json_is_string(name) && (!s->golden || !checkpoint_find(s->golden, json_string_value(name))))
            return err_set(error, VLM_FORMAT, "golden.safetensors has no %s, which cases.json names", json_string_value(name));
    return true;
}

/* Members of cases.json that name what lies beside it. */
static bool read_places(check_suite *s, const char *dir, vlm_error *error)
{
    const char *where = json_string_value(json_object_get(s->root, "checkpoint")), *name;
    json_t *paths = json_object_get(s->root, "adapters"), *whole = json_object(), *path;
    bool ok = whole && (!where || (s->checkpoint = path_join(dir, where)));
    json_object_foreach(paths, name, path) {
        char *joined = json_is_string(path) ? path_join(dir, json_string_value(path)) : NULL;
        ok = ok && joined && !json_object_set_new(whole, name, json_string(joined));
        mem_free(joined);
    }
    char *text = ok && paths ? json_dumps(whole, 0) : NULL;
    if (text) s->adapters = mem_strdup(text);
    ok = ok && (!paths || s->adapters);
    free(text);
    json_decref(whole);
    return ok || err_memory(error, 0);
}

bool suite_load(check_suite *s, const char *dir, const char *media, const char *only, vlm_error *error)
{
    *s = (check_suite){0};
    char *cases = beside_or_above(dir, "cases.json"), *golden = beside_or_above(dir, "golden.safetensors");
    bool ok = cases != NULL;
    if (!ok) {
        err_set(error, VLM_NOT_FOUND, "%s has no cases.json", dir);
        err_hint(error, "a checkpoint is checked against reference cases: cases.json and golden.safetensors beside it");
    }
    if (ok) s->root = json_load_file_limited(cases, JSON_FILE_LIMIT, error);
    ok = ok && s->root && read_cases(s, only, error) && read_places(s, dir, error);
    if (ok && golden) ok = (s->golden = checkpoint_open_file(golden, error)) != NULL;
    for (int i = 0; ok && i < s->count; i++) ok = has_goldens(s, &s->cases[i], error);
    if (ok) {
        s->stops = json_object_get(s->root, "stops") != NULL;
        s->media_dir = media ? mem_strdup(media) : beside_or_above(dir, "media");
        if (!s->media_dir) s->media_dir = beside_or_above(dir, "samples");
        if (!s->media_dir) s->media_dir = mem_strdup(dir);
        ok = s->media_dir || err_memory(error, 0);
    }
    mem_free(cases);
    mem_free(golden);
    if (!ok) suite_free(s);
    return ok;
}

void suite_free(check_suite *s)
{
    for (int i = 0; i < s->count; i++) {
        ids_free(&s->cases[i].prompt);
        ids_free(&s->cases[i].answer);
    }
    mem_free(s->cases);
    mem_free(s->media_dir);
    mem_free(s->checkpoint);
    mem_free(s->adapters);
    checkpoint_close(s->golden);
    json_decref(s->root);
    *s = (check_suite){0};
}

const stored_tensor *suite_golden(const check_suite *s, const check_case *c, const char *key)
{
    const char *name = json_string_value(json_object_get(json_object_get(c->json, "tensors"), key));
    return name && s->golden ? checkpoint_find(s->golden, name) : NULL;
}

int64_t golden_count(const stored_tensor *t) { return (int64_t)(t->bytes / dtype_size(t->type)); }

float *golden_floats(const stored_tensor *t)
{
    int64_t n = golden_count(t);
    float *out = mem_aligned((size_t)(n ? n : 1) * sizeof *out);
    uint8_t *copy = mem_aligned(t->bytes ? t->bytes : 1);             /* the file's bytes need not be aligned */
    if (out && copy) convert_to_f32(memcpy(copy, t->data, t->bytes), t->type, n, out);
    if (!copy) {
        mem_free(out);
        out = NULL;
    }
    mem_free(copy);
    return out;
}
