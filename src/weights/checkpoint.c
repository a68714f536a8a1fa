/* checkpoint.c - see checkpoint.h.
 *
 * A safetensors file is: 8 bytes header length (little-endian), a JSON header {"name": {"dtype", "shape", "data_offsets": [begin, end]}},
 * then the bytes that the offsets count in. The header is hostile until proven: its length lies in the file, every entry's bytes
 * lie in the file, end - begin is exactly what type and shape need, no two entries share a byte, no name occurs twice. */
#include "weights/checkpoint.h"

#include <dirent.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/file.h"
#include "weights/config.h"

enum { HEADER_LIMIT = 100 * 1000 * 1000, SHARD_LIMIT = 4096 };

typedef struct shard {
    mapped_file map;
    char *path;
    const char *name;              /* last part of path */
    int64_t modified;
} shard;

struct checkpoint {
    shard *shards;
    size_t n_shards;
    stored_tensor *tensors;        /* sorted by name */
    size_t count, capacity;
    uint64_t bytes;
    arena names;
    char format[16];
};

/* ---- one file -------------------------------------------------------------------------------------------------------- */

static bool dtype_from_name(const char *name, dtype *out)
{
    for (int t = 0; t < DT_COUNT; t++)
        if (!strcmp(name, dtype_name((dtype)t))) return *out = (dtype)t, true;
    return false;
}

static bool read_shape(const json_t *shape, stored_tensor *t, size_t *bytes)
{
    if (!json_is_array(shape) || json_array_size(shape) > TENSOR_MAX_DIMS) return false;
    *bytes = dtype_size(t->type);
    t->dims = (int)json_array_size(shape);
    bool empty = false;
    for (int d = 0; d < t->dims; d++) {
        const json_t *n = json_array_get(shape, (size_t)d);
        if (!json_is_integer(n) || json_integer_value(n) < 0) return false;
        t->dim[d] = json_integer_value(n);
        empty = empty || !t->dim[d];
        if (t->dim[d] && !mem_mul(*bytes, (size_t)t->dim[d], bytes)) return false;
    }
    if (empty) *bytes = 0;
    return true;
}

/* One header entry. `data` and `size`: the bytes after the header. */
static bool read_entry(stored_tensor *t, const json_t *entry, const uint8_t *data, size_t size, vlm_error *error)
{
    const char *type = json_string_value(json_object_get(entry, "dtype"));
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *first = json_array_get(offsets, 0), *last = json_array_get(offsets, 1);
    if (!type || !json_is_array(offsets) || json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(last))
        return err_set(error, VLM_FORMAT, "%s: %s: dtype, shape and two data_offsets were expected", t->file, t->name);
    if (!dtype_from_name(type, &t->type))
        return err_set(error, VLM_UNSUPPORTED, "%s: %s has type %.20s, which is not known", t->file, t->name, type);
    size_t need;
    if (!read_shape(json_object_get(entry, "shape"), t, &need))
        return err_set(error, VLM_FORMAT, "%s: %s: the shape is no list of at most %d sizes", t->file, t->name, TENSOR_MAX_DIMS);
    json_int_t begin = json_integer_value(first), end = json_integer_value(last);
    if (begin < 0 || end < begin || (uint64_t)end > size) {
        err_set(error, VLM_FORMAT, "%s: %s lies at bytes %lld to %lld, the file has %zu after its header", t->file, t->name,
                (long long)begin, (long long)end, size);
        if (begin >= 0 && end >= begin) err_hint(error, "the file may be cut short: download it again");
        return false;
    }
    if ((uint64_t)(end - begin) != need)
        return err_set(error, VLM_FORMAT, "%s: %s takes %lld bytes, its type and shape need %zu", t->file, t->name,
                       (long long)(end - begin), need);
    t->data = data + begin;
    t->bytes = need;
    return true;
}

static bool add_tensor(checkpoint *c, const stored_tensor *t, vlm_error *error)
{
    if (c->count == c->capacity) {
        size_t capacity = c->capacity ? 2 * c->capacity : 256;
        stored_tensor *more = mem_resize(c->tensors, capacity, sizeof *more);
        if (!more) return err_memory(error, capacity * sizeof *more);
        c->tensors = more;
        c->capacity = capacity;
    }
    c->tensors[c->count++] = *t;
    c->bytes += t->bytes;
    return true;
}

static int by_place(const void *a, const void *b)
{
    const stored_tensor *x = a, *y = b;
    if (x->data != y->data) return (const uint8_t *)x->data < (const uint8_t *)y->data ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static int by_name(const void *a, const void *b) { return strcmp(((const stored_tensor *)a)->name, ((const stored_tensor *)b)->name); }

static bool no_overlap(stored_tensor *t, size_t n, vlm_error *error)
{
    qsort(t, n, sizeof *t, by_place);
    for (size_t i = 1; i < n; i++)
        if ((const uint8_t *)t[i].data < (const uint8_t *)t[i - 1].data + t[i - 1].bytes)
            return err_set(error, VLM_FORMAT, "%s: %s and %s share bytes", t[i].file, t[i - 1].name, t[i].name);
    return true;
}

static json_t *read_header(const shard *s, const char *name, size_t *start, vlm_error *error)
{
    uint64_t length = 0;
    if (s->map.size < 10) {
        err_set(error, VLM_FORMAT, "%s has %zu bytes, a safetensors file has more", name, s->map.size);
        return NULL;
    }
    for (int i = 7; i >= 0; i--) length = length << 8 | s->map.data[i];
    if (length > s->map.size - 8) {
        err_set(error, VLM_FORMAT, "%s says that its header has %llu bytes, the file has %zu", name, (unsigned long long)length, s->map.size);
        err_hint(error, "this is no safetensors file, or it is cut short");
        return NULL;
    }
    if (length > HEADER_LIMIT) {
        err_set(error, VLM_LIMIT, "%s has a header of %llu bytes, at most %d are read", name, (unsigned long long)length, HEADER_LIMIT);
        return NULL;
    }
    json_error_t where;
    json_t *header = json_loadb((const char *)s->map.data + 8, (size_t)length, JSON_REJECT_DUPLICATES, &where);
    if (!header || !json_is_object(header)) {
        err_set(error, VLM_FORMAT, "%s: the header is not a JSON object: %s", name, header ? "another value" : where.text);
        json_decref(header);
        return NULL;
    }
    *start = 8 + (size_t)length;
    return header;
}

static bool read_shard(checkpoint *c, shard *s, vlm_error *error)
{
    const char *name = s->name, *key;
    size_t start = 0, before = c->count;
    struct stat st;
    if (!file_map(s->path, &s->map, error)) return false;
    if (!stat(s->path, &st)) s->modified = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
    json_t *header = read_header(s, name, &start, error), *entry;
    if (!header) return false;
    bool ok = true;
    json_object_foreach(header, key, entry) {
        if (!strcmp(key, "__metadata__")) {
            const char *format = json_string_value(json_object_get(entry, "format"));
            if (format) snprintf(c->format, sizeof c->format, "%s", format);
            continue;
        }
        stored_tensor t = {.name = arena_strdup(&c->names, key), .file = name};
        ok = t.name ? read_entry(&t, entry, s->map.data + start, s->map.size - start, error) && add_tensor(c, &t, error)
                    : err_memory(error, strlen(key));
        if (!ok) break;
    }
    json_decref(header);
    return ok && (c->count == before || no_overlap(c->tensors + before, c->count - before, error));
}

/* ---- which files -------------------------------------------------------------------------------------------------------- */

static shard *add_shard(checkpoint *c, const char *dir, const char *name, vlm_error *error)
{
    shard *more = c->n_shards < SHARD_LIMIT ? mem_resize(c->shards, c->n_shards + 1, sizeof *more) : NULL;
    if (!more) {
        err_memory(error, sizeof *more);
        return NULL;
    }
    c->shards = more;
    shard *s = &more[c->n_shards];
    *s = (shard){.path = dir ? path_join(dir, name) : mem_strdup(name)};
    if (!s->path) {
        err_memory(error, strlen(name));
        return NULL;
    }
    const char *slash = strrchr(s->path, '/');
    s->name = slash ? slash + 1 : s->path;
    c->n_shards++;
    return s;
}

static bool read_all(checkpoint *c, vlm_error *error)
{
    for (size_t i = 0; i < c->n_shards; i++)
        if (!read_shard(c, &c->shards[i], error)) return false;
    if (c->count) qsort(c->tensors, c->count, sizeof *c->tensors, by_name);
    for (size_t i = 1; i < c->count; i++)
        if (!strcmp(c->tensors[i].name, c->tensors[i - 1].name))
            return err_set(error, VLM_FORMAT, "%s is in %s and in %s", c->tensors[i].name, c->tensors[i - 1].file, c->tensors[i].file);
    return true;
}

static bool shard_known(const checkpoint *c, const char *name)
{
    for (size_t i = 0; i < c->n_shards; i++)
        if (!strcmp(c->shards[i].name, name)) return true;
    return false;
}

static bool open_index(checkpoint *c, const char *dir, const char *path, vlm_error *error)
{
    static const char index[] = "model.safetensors.index.json";
    json_t *root = json_load_file_limited(path, JSON_FILE_LIMIT, error), *map = json_object_get(root, "weight_map"), *value;
    if (!root) return false;
    bool ok = json_is_object(map) || err_set(error, VLM_FORMAT, "%s: weight_map is missing", index);
    const char *key, *file = NULL;
    if (ok) json_object_foreach(map, key, value) {
        file = json_string_value(value);
        if (!file || !*file || strchr(file, '/') || file[0] == '.') {
            ok = err_set(error, VLM_FORMAT, "%s: %s: the name of a file beside it was expected", index, key);
            break;
        }
        if (shard_known(c, file)) continue;
        shard *s = add_shard(c, dir, file, error);
        if (!s || !file_exists(s->path)) {
            ok = !s ? false : err_set(error, VLM_NOT_FOUND, "%s names %s (for %s), which is not in %s", index, file, key, dir);
            if (s) err_hint(error, "the download is incomplete");
            break;
        }
    }
    ok = ok && read_all(c, error);
    if (ok) json_object_foreach(map, key, value) {
        const stored_tensor *t = checkpoint_find(c, key);
        if (t && !strcmp(t->file, json_string_value(value))) continue;
        ok = err_set(error, VLM_FORMAT, "%s places %s in %s, which lacks it", index, key, json_string_value(value));
        break;
    }
    json_decref(root);
    return ok;
}

/* The one *.safetensors that is no golden, when there is neither an index nor model.safetensors. */
static bool find_single(checkpoint *c, const char *dir, vlm_error *error)
{
    static const char ending[] = ".safetensors";
    char found[256] = "";
    int count = 0;
    bool other = false;
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        size_t n = strlen(e->d_name), m = sizeof ending - 1;
        other = other || strstr(e->d_name, ".bin") || strstr(e->d_name, ".gguf") || strstr(e->d_name, ".npz");
        if (n <= m || strcmp(e->d_name + n - m, ending) || e->d_name[0] == '.' || strstr(e->d_name, "golden")) continue;
        count++;
        snprintf(found, sizeof found, "%s", e->d_name);
    }
    if (d) closedir(d);
    if (count == 1) return add_shard(c, dir, found, error) && read_all(c, error);
    if (count > 1) {
        err_set(error, VLM_NOT_FOUND, "%s has %d safetensors files, but neither model.safetensors.index.json nor model.safetensors", dir, count);
    } else {
        err_set(error, VLM_NOT_FOUND, "%s has no weights: model.safetensors or model.safetensors.index.json was expected", dir);
        if (other) err_hint(error, "only safetensors are read; convert the other files");
    }
    return false;
}

static void close_all(checkpoint *c)
{
    for (size_t i = 0; i < c->n_shards; i++) {
        file_unmap(&c->shards[i].map);
        mem_free(c->shards[i].path);
    }
    mem_free(c->shards);
    mem_free(c->tensors);
    arena_free(&c->names);
    mem_free(c);
}

checkpoint *checkpoint_open(const char *dir, vlm_error *error)
{
    checkpoint *c = MEM_NEW(checkpoint);
    char *index = path_join(dir, "model.safetensors.index.json"), *single = path_join(dir, "model.safetensors");
    bool ok = c && index && single;
    if (!ok) err_memory(error, sizeof *c);
    else if (!file_is_directory(dir)) ok = err_set(error, VLM_NOT_FOUND, "there is no directory %s", dir);
    else if (file_exists(index)) ok = open_index(c, dir, index, error);
    else if (file_exists(single)) ok = add_shard(c, dir, "model.safetensors", error) && read_all(c, error);
    else ok = find_single(c, dir, error);
    mem_free(index);
    mem_free(single);
    if (!ok && c) close_all(c);
    return ok ? c : NULL;
}

checkpoint *checkpoint_open_file(const char *path, vlm_error *error)
{
    checkpoint *c = MEM_NEW(checkpoint);
    if (!c) return err_memory(error, sizeof *c), NULL;
    if (add_shard(c, NULL, path, error) && read_all(c, error)) return c;
    close_all(c);
    return NULL;
}

void checkpoint_close(checkpoint *c)
{
    if (c) close_all(c);
}

/* ---- looking up ---------------------------------------------------------------------------------------------------------- */

const stored_tensor *checkpoint_find(const checkpoint *c, const char *name)
{
    stored_tensor key = {.name = name};
    return c->count ? bsearch(&key, c->tensors, c->count, sizeof key, by_name) : NULL;
}

size_t checkpoint_count(const checkpoint *c) { return c->count; }
void checkpoint_drop(const checkpoint *c, const void *data, size_t bytes)
{
    for (size_t i = 0; i < c->n_shards; i++) file_drop(&c->shards[i].map, data, bytes);
}

const stored_tensor *checkpoint_at(const checkpoint *c, size_t index) { return index < c->count ? &c->tensors[index] : NULL; }
uint64_t checkpoint_bytes(const checkpoint *c) { return c->bytes; }
const char *checkpoint_format(const checkpoint *c) { return c->format; }
size_t checkpoint_files(const checkpoint *c) { return c->n_shards; }

const char *checkpoint_file(const checkpoint *c, size_t index, uint64_t *bytes, int64_t *modified)
{
    if (index >= c->n_shards) return NULL;
    if (bytes) *bytes = c->shards[index].map.size;
    if (modified) *modified = c->shards[index].modified;
    return c->shards[index].name;
}
