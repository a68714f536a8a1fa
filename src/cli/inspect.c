/* inspect.c - `vlm inspect`: what a checkpoint holds, and what of it the family uses. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "cli/batch.h"
#include "cli/commands.h"
#include "models/model.h"

typedef struct inspect_options { bool json, tensors, unused; } inspect_options;

static void defaults(void *memory) { ((inspect_options *)memory)->tensors = true; }

static const option options_table[] = {
    {OPT_SWITCH, "tensors", NULL, "list every tensor (yes)", offsetof(inspect_options, tensors), NULL, 0},
    {OPT_SWITCH, "unused", NULL, "list only tensors that the family does not use", offsetof(inspect_options, unused), NULL, 0},
    {OPT_SWITCH, "json", NULL, "as JSON", offsetof(inspect_options, json), NULL, 0},
    {0},
};

static json_t *tensor_json(const stored_tensor *t, int used)
{
    json_t *shape = json_array();
    for (int d = 0; d < t->dims; d++) json_array_append_new(shape, json_integer(t->dim[d]));
    json_t *one = json_pack("{s:s, s:s, s:o, s:I, s:s}", "name", t->name, "type", dtype_name(t->type), "shape", shape, "bytes", (json_int_t)t->bytes,
                            "file", t->file);
    if (used >= 0) json_object_set_new(one, "used", json_boolean(used));
    return one;
}

static void print_tensor(const stored_tensor *t, int used)
{
    char shape[160] = "";
    for (int d = 0; d < t->dims; d++) {
        size_t n = strlen(shape);
        snprintf(shape + n, sizeof shape - n, "%s%lld", d ? ", " : "", (long long)t->dim[d]);
    }
    printf("  %-8s [%s]%*s %12zu  %s%s\n", dtype_name(t->type), shape, (int)(strlen(shape) < 22 ? 22 - strlen(shape) : 0), "", t->bytes, t->name,
           used == 0 ? "  (not used)" : "");
}

/* Numbers and short texts of the config, nested ones under their path. */
static void print_config(const json_t *object, const char *prefix)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value) {
        char path[256];
        snprintf(path, sizeof path, "%.120s%s%.120s", prefix, *prefix ? "." : "", key);
        if (json_is_object(value)) {
            if (strcmp(key, "quantization_config")) print_config(value, path);
            continue;
        }
        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(15));
        if (text && !json_is_null(value)) printf("  %-52s %.90s%s\n", path, text, strlen(text) > 90 ? "..." : "");
        free(text);
    }
}

typedef struct inspected {
    config *cfg;
    checkpoint *files;
    vlm_model *model;              /* NULL: load_error says why */
    vlm_error load_error;
} inspected;

/* Does tensor `index` (of x->files) belong to the family's weights? -1: nobody knows. The model's own table has the same order. */
static int is_used(const inspected *x, size_t index)
{
    return x->model && x->model->binder.used ? x->model->binder.used[index] : -1;
}

static void print_text(const inspected *x, const inspect_options *o, const char *dir)
{
    size_t n = checkpoint_count(x->files), unused = 0;
    for (size_t i = 0; i < n; i++) unused += is_used(x, i) == 0;
    printf("%s\n\nconfig\n", dir);
    print_config(x->cfg->root, "");
    printf("\nweights: %zu tensors, %llu bytes in %zu file%s\n", n, (unsigned long long)checkpoint_bytes(x->files), checkpoint_files(x->files),
           checkpoint_files(x->files) == 1 ? "" : "s");
    for (size_t i = 0; i < n && (o->tensors || o->unused); i++)
        if (!o->unused || is_used(x, i) == 0) print_tensor(checkpoint_at(x->files, i), is_used(x, i));
    if (x->model) {
        printf("\nfamily %s: %llu parameters bound, %zu tensors not used\n", x->model->arch->name, (unsigned long long)x->model->binder.parameters, unused);
    } else {
        printf("\ncannot be loaded: %s\n", x->load_error.message);
        if (x->load_error.hint[0]) printf("  %s\n", x->load_error.hint);
    }
}

static json_t *all_json(const inspected *x, const char *dir)
{
    json_t *tensors = json_array(), *unused = json_array(), *info = NULL;
    for (size_t i = 0; i < checkpoint_count(x->files); i++) {
        json_array_append_new(tensors, tensor_json(checkpoint_at(x->files, i), is_used(x, i)));
        if (is_used(x, i) == 0) json_array_append_new(unused, json_string(checkpoint_at(x->files, i)->name));
    }
    char *text = x->model ? vlm_model_info(x->model, NULL) : NULL;
    if (text) info = json_loads(text, 0, NULL);
    vlm_free(text);
    json_t *all = json_pack("{s:s, s:O, s:o, s:o, s:b}", "path", dir, "config", x->cfg->root, "tensors", tensors, "unused", unused, "loads", x->model != NULL);
    if (info) json_object_set_new(all, "model", info);
    if (!x->model) json_object_set_new(all, "error", json_string(x->load_error.message));
    return all;
}

static int run_inspect(const command *self, void *memory, texts words)
{
    (void)self;
    const inspect_options *o = memory;
    const char *dir = words.count ? words.item[0] : demo_model();
    inspected x = {0};
    vlm_error error = {0};
    int exit_code = 0;
    x.cfg = config_load(dir, &error);
    if (x.cfg) x.files = checkpoint_open(dir, &error);
    if (x.files) {
        vlm_load_options load_options = vlm_load_options_default();
        load_options.threads = 1;
        x.model = vlm_load(dir, &load_options, &x.load_error);
        if (o->json) print_json(all_json(&x, dir));
        else print_text(&x, o, dir);
        if (!x.model) exit_code = report(&x.load_error);
    } else {
        exit_code = report(&error);
    }
    vlm_model_free(x.model);
    checkpoint_close(x.files);
    config_free(x.cfg);
    return exit_code;
}

const command command_inspect = {
    .name = "inspect", .help = "Show a checkpoint's config and tensors, and which are not used", .usage = "[options] [DIR]",
    .options = options_table, .size = sizeof(inspect_options), .defaults = defaults, .run = run_inspect,
    .description = "Lists config values, every tensor with type, shape and bytes, and the tensors that the family does not use. When the checkpoint cannot be "
                   "loaded (a missing or misshapen tensor, an unknown family) the reason is shown and the exit code tells.",
};
