/* bind.c - see bind.h. */
#include "weights/bind.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "weights/bind_internal.h"
#include "weights/dummy.h"
#include "weights/explain.h"

typedef struct bound_list { weight **weights; size_t count, capacity; uint64_t bytes; } bound_list;

/* ---- errors, names --------------------------------------------------------------------------------------------------- */

bool bind_fail(binder *b, vlm_status code, const char *format, ...)
{
    if (b->failed) return false;
    va_list args;
    va_start(args, format);
    err_setv(&b->error, code, format, args);
    va_end(args);
    b->failed = true;
    return false;
}

bool bind_memory(binder *b, size_t bytes) { return bind_fail(b, VLM_MEMORY, "out of memory (%zu bytes for weights)", bytes); }

bool bind_start(binder *b, const checkpoint *files, config *cfg, device *dev, arena *memory, const char *dummy_format, vlm_error *error)
{
    *b = (binder){.files = files, .cfg = cfg, .dev = dev, .memory = memory, .prefixes = {""}};
    if (!files) {
        b->dummy_format = dummy_format ? dummy_format : "bf16";
        if (!dummy_format_known(b->dummy_format))
            return err_set(error, VLM_INVALID, "%s is no format of made-up weights: bf16, f32, f16, q8, q4", b->dummy_format);
    } else if (checkpoint_count(files)) {
        b->used = MEM_ARRAY(checkpoint_count(files), uint8_t);
        if (!b->used) return err_memory(error, checkpoint_count(files));
    }
    b->bound = MEM_NEW(bound_list);
    if (b->bound) return true;
    mem_free(b->used);
    b->used = NULL;
    return err_memory(error, sizeof *b->bound);
}

void bind_release(binder *b)
{
    if (!b->bound) return;
    for (size_t i = 0; i < b->bound->count; i++)
        if (b->dev && b->dev->ops && b->dev->ops->release) b->dev->ops->release(b->dev, b->bound->weights[i]);
    mem_free(b->bound->weights);
    mem_free(b->bound);
    mem_free(b->used);
    b->bound = NULL;
    b->used = NULL;
}

uint64_t bind_bytes(const binder *b) { return b->bound ? b->bound->bytes : 0; }
size_t bind_count(const binder *b) { return b->bound ? b->bound->count : 0; }
const weight *bind_at(const binder *b, size_t index) { return index < bind_count(b) ? b->bound->weights[index] : NULL; }

void bind_prefix(binder *b, const char *first, ...)
{
    size_t n = 0;
    va_list args;
    va_start(args, first);
    for (const char *p = first; p; p = va_arg(args, const char *)) {
        if (n + 1 < sizeof b->prefixes / sizeof *b->prefixes) b->prefixes[n++] = p;
        else bind_fail(b, VLM_INTERNAL, "more than %zu prefixes", n);
    }
    va_end(args);
    b->prefixes[n] = NULL;
}

/* Tensor prefix + name + suffix under the first prefix that has it. */
static const stored_tensor *find_as(binder *b, const char *name, const char *suffix)
{
    char full[NAME_MAX_BYTES];
    for (int i = 0; b->prefixes[i]; i++) {
        int n = snprintf(full, sizeof full, "%s%s%s", b->prefixes[i], name, suffix);
        const stored_tensor *t = n > 0 && (size_t)n < sizeof full ? checkpoint_find(b->files, full) : NULL;
        if (!t && b->outer && (n = snprintf(full, sizeof full, "%s%s%s%s", b->outer, b->prefixes[i], name, suffix)) > 0 && (size_t)n < sizeof full)
            t = checkpoint_find(b->files, full);
        if (t) return t;
    }
    return NULL;
}

/* Replaces the first `part` that stands between dots. */
static bool respell(char *name, size_t size, const char *part, const char *as)
{
    size_t n = strlen(part), m = strlen(as);
    for (char *at = name; (at = strstr(at, part)); at++) {
        if ((at > name && at[-1] != '.') || (at[n] && at[n] != '.')) continue;
        if (strlen(name) + m - n >= size) return false;
        memmove(at + m, at + n, strlen(at + n) + 1);
        memcpy(at, as, m);
        return true;
    }
    return false;
}

/* ... or as the file spells it. */
static const stored_tensor *find(binder *b, const char *name, const char *suffix)
{
    char other[NAME_MAX_BYTES];
    const stored_tensor *t = find_as(b, name, suffix);
    if (t || !b->spellings) return t;
    int n = snprintf(other, sizeof other, "%s%s", name, suffix);
    bool any = false;
    for (const char *const *p = b->spellings; n > 0 && (size_t)n < sizeof other && *p; p += 2) any |= respell(other, sizeof other, p[0], p[1]);
    return any ? find_as(b, other, "") : NULL;
}

/* The same, marked as used. */
static const stored_tensor *look_up(binder *b, const char *name, const char *suffix)
{
    const stored_tensor *t = find(b, name, suffix);
    if (t) b->used[t - checkpoint_at(b->files, 0)] = 1;
    return t;
}

const stored_tensor *bind_find_matrix(binder *b, const char *name)
{
    const stored_tensor *t = look_up(b, name, ".weight");
    if (!t) t = look_up(b, name, "");
    return t || !b->adapters || !b->adapters->count ? t : look_up(b, name, ".base_layer.weight");
}

/* Required and not there: the names that were looked for. */
void bind_missing(binder *b, const char *name, const char *suffix)
{
    char tried[400] = "";
    for (int i = 0; b->prefixes[i] && strlen(tried) < 300; i++) {
        size_t n = strlen(tried);
        snprintf(tried + n, sizeof tried - n, "%s%s%.100s%s", i ? " or " : "", b->prefixes[i], name, suffix);
    }
    bind_fail(b, VLM_FORMAT, "the checkpoint has no tensor %s", tried);
    err_hint(&b->error, "`vlm inspect` lists the tensors");
}

/* ---- shapes ------------------------------------------------------------------------------------------------------------ */

bool bind_has_shape(const stored_tensor *t, int dims, const int64_t *dim)
{
    int common = t->dims < dims ? t->dims : dims;
    for (int d = 0; d < common; d++)
        if (t->dim[d] != dim[d]) return false;
    for (int d = common; d < t->dims; d++)
        if (t->dim[d] != 1) return false;
    for (int d = common; d < dims; d++)
        if (dim[d] != 1) return false;
    return true;
}

void bind_wrong_shape(binder *b, const stored_tensor *t, int dims, const int64_t *dim)
{
    char has[128], want[128], why[256];
    explain_shape(t->dims, t->dim, has, sizeof has);
    explain_shape(dims, dim, want, sizeof want);
    explain_config(b->cfg, t->name, dims, dim, why, sizeof why);
    bind_fail(b, VLM_FORMAT, "%s: %s has shape %s, %s was expected%s", t->file, t->name, has, want, why);
}

bool bind_check_shape(binder *b, const stored_tensor *t, int dims, const int64_t *dim)
{
    if (bind_has_shape(t, dims, dim)) return true;
    bind_wrong_shape(b, t, dims, dim);
    return false;
}

/* ---- matrices ---------------------------------------------------------------------------------------------------------- */

/* The bytes of t aligned to their type: in the file, or a copy when the file's header has an odd length. */
const void *bind_aligned(binder *b, const stored_tensor *t)
{
    static const uint64_t nothing;
    if (!t->bytes) return &nothing;
    if ((uintptr_t)t->data % dtype_size(t->type) == 0) return t->data;
    void *copy = arena_alloc_raw(b->memory, t->bytes);
    if (!copy) return bind_memory(b, t->bytes), NULL;
    return memcpy(copy, t->data, t->bytes);
}

/* The backend has a copy of its own now. */
static void drop_source(binder *b, const weight *w)
{
    size_t rows = (size_t)w->rows * (w->experts ? (size_t)w->experts : 1), codes = rows * weight_row_bytes(w), scales = (weight_bytes(w) - codes) / 2;
    checkpoint_drop(b->files, w->data, codes);
    if (scales) checkpoint_drop(b->files, w->scales, scales), checkpoint_drop(b->files, w->biases, scales);
}

/* Puts w on the list and lets the backend prepare it. */
bool bind_add(binder *b, weight *w)
{
    bound_list *list = b->bound;
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 256;
        weight **more = mem_resize(list->weights, capacity, sizeof *more);
        if (!more) return bind_memory(b, capacity * sizeof *more);
        list->weights = more;
        list->capacity = capacity;
    }
    list->weights[list->count++] = w;
    list->bytes += weight_bytes(w);
    b->parameters += (uint64_t)(w->rows * w->cols * (w->experts ? w->experts : 1));
    if (b->dev && b->dev->ops && b->dev->ops->prepare && !b->rows_only && !b->dev->ops->prepare(b->dev, w, &b->error)) {
        err_prefix(&b->error, "%s", w->name);
        return b->failed = true, false;
    }
    if (w->packed && b->files) drop_source(b, w);
    if (b->progress) b->progress(b->progress_user, "load", list->bytes, b->files ? checkpoint_bytes(b->files) : 0);
    return true;
}

/* bits and group of the MLX module `path` (a tensor name without ".weight"): its own entry under "quantization", which stands alone, else the common one. */
static bool quantization_of(binder *b, const char *path, int64_t *bits, int64_t *group)
{
    const json_t *all = json_object_get(b->cfg->root, "quantization");
    if (!json_is_object(all)) all = json_object_get(b->cfg->root, "quantization_config");
    const json_t *own = json_object_get(all, path), *at = json_is_object(own) ? own : all, *mode = json_object_get(at, "mode");
    *bits = json_integer_value(json_object_get(at, "bits"));
    *group = json_integer_value(json_object_get(at, "group_size"));
    if (!json_is_string(mode) || !strcmp(json_string_value(mode), "affine")) return true;
    return bind_fail(b, VLM_UNSUPPORTED, "%s: weights quantized as \"%.20s\" are not supported yet", path, json_string_value(mode));
}

static bool read_affine(binder *b, weight *w, const stored_tensor *t, const stored_tensor *scales, const stored_tensor *biases)
{
    char path[NAME_MAX_BYTES];
    size_t n = strlen(t->name), cut = n > 7 && !strcmp(t->name + n - 7, ".weight") ? n - 7 : n;
    snprintf(path, sizeof path, "%.*s", (int)cut, t->name);
    int64_t bits, group, lead = w->experts, last = t->dims > 0 ? t->dim[t->dims - 1] : 0;
    if (!quantization_of(b, path, &bits, &group)) return false;
    if (!biases) return bind_fail(b, VLM_FORMAT, "%s: %s.biases is missing", t->file, path);
    int64_t groups = scales->dims > 0 ? scales->dim[scales->dims - 1] : 0;
    if (!bits && w->cols) bits = last * 32 / w->cols;                /* the config says nothing: the shapes do */
    if (!group && groups) group = w->cols / groups;
    if (!(bits >= 2 && bits <= 8 && bits != 7) || (group != 32 && group != 64 && group != 128) || w->cols % group)
        return bind_fail(b, VLM_FORMAT, "%s: %s: %lld bits in groups of %lld do not fit rows of %lld values (config.json: quantization)", t->file,
                         t->name, (long long)bits, (long long)group, (long long)w->cols);
    int64_t codes[3] = {lead, w->rows, w->cols * bits / 32}, units[3] = {lead, w->rows, w->cols / group};
    int skip = lead ? 0 : 1, dims = 3 - skip;
    if (!bind_check_shape(b, t, dims, codes + skip) || !bind_check_shape(b, scales, dims, units + skip) || !bind_check_shape(b, biases, dims, units + skip))
        return false;
    dtype s = scales->type;
    if (s != biases->type || (s != DT_F32 && s != DT_F16 && s != DT_BF16))
        return bind_fail(b, VLM_FORMAT, "%s: %s.scales and .biases have types %s and %s; one of F32, F16, BF16 was expected for both", t->file, path,
                         dtype_name(s), dtype_name(biases->type));
    w->format = WF_AFFINE;
    w->bits = (int)bits;
    w->group = (int)group;
    w->scale_type = s;
    w->scales = bind_aligned(b, scales);
    w->biases = bind_aligned(b, biases);
    w->data = bind_aligned(b, t);
    return w->data && w->scales && w->biases;
}

bool bind_plain_format(binder *b, weight *w, const stored_tensor *t)
{
    switch (t->type) {
    case DT_F32: w->format = WF_F32; return true;
    case DT_F16: w->format = WF_F16; return true;
    case DT_BF16: w->format = WF_BF16; return true;
    default: break;
    }
    return bind_fail(b, VLM_UNSUPPORTED, "%s: %s has type %s; F32, F16, BF16 or U32 with scales and biases was expected", t->file, t->name,
                     dtype_name(t->type));
}

/* Matrix or matrices `name` into w, whose rows, cols and experts are set, not on the list yet; false when absent or failed. */
bool bind_read_matrix(binder *b, weight *w, const char *name)
{
    const stored_tensor *t = bind_find_matrix(b, name);
    if (!t) return false;
    w->name = t->name;
    char base[NAME_MAX_BYTES];
    snprintf(base, sizeof base, "%s", name);
    const stored_tensor *scales = t->type == DT_U32 ? look_up(b, base, ".scales") : NULL;
    bool ok;
    if (scales) {
        ok = read_affine(b, w, t, scales, look_up(b, base, ".biases"));
    } else {
        int64_t dim[3] = {w->experts, w->rows, w->cols};
        int skip = w->experts ? 0 : 1;
        ok = bind_plain_format(b, w, t) && bind_check_shape(b, t, 3 - skip, dim + skip) && (w->data = bind_aligned(b, t)) != NULL;
    }
    return ok;
}

static bool bind_matrix(binder *b, weight *w, const char *name)
{
    return bind_read_matrix(b, w, name) && bind_low_rank(b, w, name, 0, NULL, NULL) && bind_add(b, w);
}

/* A made-up matrix in w, whose sizes are set. */
bool bind_dummy(binder *b, weight *w, const char *name)
{
    w->name = arena_strdup(b->memory, name);
    return w->name ? dummy_weight(b, w) : bind_memory(b, strlen(name));
}

/* In dummy mode an optional matrix is made up only where the config tells that the model has it. */
static bool dummy_has(binder *b, const char *name, bool experts)
{
    return experts || (strstr(name, "lm_head") && !config_bool(b->cfg, "tie_word_embeddings|text_config.tie_word_embeddings", true));
}

static bool bind_any(binder *b, weight *out, int64_t experts, int64_t rows, int64_t cols, bool required, const char *format, va_list args)
{
    char name[NAME_MAX_BYTES / 2];
    *out = (weight){.rows = rows, .cols = cols, .experts = experts};
    if (b->failed) return false;
    int n = vsnprintf(name, sizeof name, format, args);
    bool ok = n > 0 && (size_t)n < sizeof name && rows > 0 && cols > 0 && experts >= 0 && rows < SIDE_LIMIT && cols < SIDE_LIMIT && experts < SIDE_LIMIT;
    if (!ok) return bind_fail(b, VLM_FORMAT, "%s: [%lld, %lld] is no shape of a matrix", name, (long long)rows, (long long)cols);
    if (b->files) {
        ok = bind_matrix(b, out, name);
        if (!ok && !b->failed && required) bind_missing(b, name, experts ? "" : ".weight");
    } else {
        ok = (required || dummy_has(b, name, experts > 0)) && bind_dummy(b, out, name) && bind_add(b, out);
    }
    if (!ok) out->data = NULL;
    return ok;
}

void bind_linear(binder *b, weight *out, int64_t rows, int64_t cols, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    bind_any(b, out, 0, rows, cols, true, format, args);
    va_end(args);
}

void bind_table(binder *b, weight *out, int64_t rows, int64_t cols, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    b->rows_only = true;
    bind_any(b, out, 0, rows, cols, true, format, args);
    b->rows_only = false;
    va_end(args);
}

bool bind_linear_optional(binder *b, weight *out, int64_t rows, int64_t cols, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    bool ok = bind_any(b, out, 0, rows, cols, false, format, args);
    va_end(args);
    return ok;
}

void bind_experts(binder *b, weight *out, int64_t experts, int64_t rows, int64_t cols, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    bind_any(b, out, experts, rows, cols, true, format, args);
    va_end(args);
}

bool bind_experts_optional(binder *b, weight *out, int64_t experts, int64_t rows, int64_t cols, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    bool ok = bind_any(b, out, experts, rows, cols, false, format, args);
    va_end(args);
    return ok;
}

void bind_linear_parts(binder *b, int count, weight *const *out, const int64_t *rows, int64_t cols, const char *format, ...)
{
    char name[NAME_MAX_BYTES / 2];
    weight whole = {.cols = cols};
    for (int i = 0; i < count; i++) {
        *out[i] = (weight){.rows = rows[i], .cols = cols};
        whole.rows += rows[i];
    }
    if (b->failed) return;
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    bool ok = b->files ? bind_read_matrix(b, &whole, name) : bind_dummy(b, &whole, name);
    if (!ok && !b->failed) bind_missing(b, name, ".weight");
    int64_t first = 0;
    for (int i = 0; ok && i < count; first += rows[i++]) *out[i] = weight_rows(&whole, first, rows[i]);
    ok = ok && bind_low_rank(b, &whole, name, count, out, rows);
    for (int i = 0; ok && i < count; i++) {
        if (!(ok = bind_add(b, out[i]))) out[i]->data = NULL;
    }
}

/* NAME.(first + e).SUFFIX as expert e into the room for all, which the first one's type decides; false after a failure. */
static bool copy_expert(binder *b, weight *w, int64_t first, int64_t e, const char *name, const char *suffix)
{
    char full[NAME_MAX_BYTES];
    snprintf(full, sizeof full, "%s.%lld.%s", name, (long long)(first + e), suffix);
    const stored_tensor *t = bind_find_matrix(b, full);
    if (!t) return bind_missing(b, full, ".weight"), false;
    weight one = *w;
    int64_t dim[2] = {w->rows, w->cols};
    if (!bind_plain_format(b, &one, t) || !bind_check_shape(b, t, 2, dim)) return false;
    if (e == 0) {
        size_t bytes;
        w->format = one.format;
        w->name = t->name;
        if (!mem_mul(t->bytes, (size_t)w->experts, &bytes) || !(w->data = arena_alloc_raw(b->memory, bytes))) return bind_memory(b, t->bytes);
    } else if (one.format != w->format)
        return bind_fail(b, VLM_FORMAT, "%s: %s has another type than the experts before it", t->file, t->name);
    memcpy((char *)(uintptr_t)w->data + (size_t)e * t->bytes, t->data, t->bytes);
    return true;
}

static void bind_each(binder *b, weight *out, int64_t first, int64_t experts, int64_t rows, int64_t cols, const char *suffix, const char *format, va_list args)
{
    char name[NAME_MAX_BYTES / 2];
    *out = (weight){.rows = rows, .cols = cols, .experts = experts};
    if (b->failed) return;
    vsnprintf(name, sizeof name, format, args);
    bool ok = true;
    if (b->files) for (int64_t e = 0; ok && e < experts; e++) ok = copy_expert(b, out, first, e, name, suffix);
    else ok = bind_dummy(b, out, name);
    if (!ok || !bind_add(b, out)) out->data = NULL;
}

void bind_experts_each(binder *b, weight *out, int64_t experts, int64_t rows, int64_t cols, const char *suffix, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    bind_each(b, out, 0, experts, rows, cols, suffix, format, args);
    va_end(args);
}

void bind_experts_range(binder *b, weight *out, int64_t first, int64_t experts, int64_t rows, int64_t cols, const char *suffix, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    bind_each(b, out, first, experts, rows, cols, suffix, format, args);
    va_end(args);
}

/* ---- vectors ------------------------------------------------------------------------------------------------------------- */

static bool widens(dtype t) { return t == DT_F32 || t == DT_F16 || t == DT_BF16 || t == DT_F64; }

/* All of t as float32: in the file when it is that already, else converted. */
const float *bind_floats_of(binder *b, const stored_tensor *t)
{
    if (!widens(t->type)) {
        bind_fail(b, VLM_UNSUPPORTED, "%s: %s has type %s; F32, F16 or BF16 was expected", t->file, t->name, dtype_name(t->type));
        return NULL;
    }
    const void *data = bind_aligned(b, t);
    if (!data || t->type == DT_F32) return data;
    size_t n = t->bytes / dtype_size(t->type);
    float *out = arena_alloc_raw(b->memory, (n ? n : 1) * sizeof *out);
    if (!out) return bind_memory(b, n * sizeof *out), NULL;
    convert_to_f32(data, t->type, (int64_t)n, out);
    return out;
}

static bool bind_floats(binder *b, const float **out, int64_t n, bool required, const char *format, va_list args)
{
    char name[NAME_MAX_BYTES / 2];
    *out = NULL;
    if (b->failed) return false;
    vsnprintf(name, sizeof name, format, args);
    if (!b->files) {
        if (required && n >= 0) *out = dummy_vector(b, n, name);
        return *out != NULL;
    }
    const stored_tensor *t = look_up(b, name, "");
    if (!t) {
        if (required) bind_missing(b, name, "");
        return false;
    }
    if ((int64_t)(t->bytes / dtype_size(t->type)) != n) return bind_wrong_shape(b, t, 1, &n), false;
    *out = bind_floats_of(b, t);
    if (*out) b->parameters += (uint64_t)n;
    return *out != NULL;
}

void bind_vector(binder *b, const float **out, int64_t n, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    bind_floats(b, out, n, true, format, args);
    va_end(args);
}

bool bind_vector_optional(binder *b, const float **out, int64_t n, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    bool ok = bind_floats(b, out, n, false, format, args);
    va_end(args);
    return ok;
}

bool bind_exists(binder *b, const char *format, ...)
{
    char name[NAME_MAX_BYTES / 2];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    return !b->files || find(b, name, "");
}
