/* models.c - `vlm models`: the families that this build knows and what each takes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/batch.h"
#include "cli/commands.h"

typedef struct models_options { bool json; } models_options;

static const option options_table[] = {
    {OPT_SWITCH, "json", NULL, "as JSON", offsetof(models_options, json), NULL, 0},
    {0},
};

static void print_row(const json_t *family)
{
    char types[256] = "";
    size_t i;
    json_t *type;
    json_array_foreach(json_object_get(family, "model_types"), i, type) {
        size_t used = strlen(types);
        snprintf(types + used, sizeof types - used, "%s%s", i ? ", " : "", json_string_value(type));
    }
    const char *yes[3] = {"image", "video", "audio"};
    printf("%-14s %-48s text", json_string_value(json_object_get(family, "name")), json_string_value(json_object_get(family, "title")));
    for (int k = 0; k < 3; k++) printf(" %-5s", json_is_true(json_object_get(family, yes[k])) ? yes[k] : "-");
    printf("  %s\n", types);
}

static int run(const command *self, void *memory, texts words)
{
    const models_options *o = memory;
    vlm_error error = {0};
    char *text = vlm_families(&error);
    if (!text) return report(&error);
    json_t *families = json_loads(text, 0, NULL);
    vlm_free(text);
    if (o->json) {
        print_json(families);
        return 0;
    }
    printf("%-14s %-48s %-22s  %s\n", "family", "models", "takes", "model_type in config.json");
    size_t i;
    json_t *family;
    json_array_foreach(families, i, family) print_row(family);
    json_decref(families);
    return 0;
}

const command command_models = {
    .name = "models", .help = "List the model families and what each takes", .usage = "[--json]",
    .options = options_table, .size = sizeof(models_options), .run = run,
};
