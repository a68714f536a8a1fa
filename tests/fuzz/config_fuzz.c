/* config_fuzz.c - any bytes as a config.json: parsed, read with every kind of read under paths that occur in it. */
#include <stdint.h>
#include <string.h>

#include "weights/config.h"
#include "weights/explain.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_all(config *c, const char *path)
{
    int64_t ints[4];
    double numbers[4];
    config_has(c, path);
    config_need_int(c, path, 1, 100), c->failed = false;
    config_int(c, path, 3, -5, INT64_MAX), c->failed = false;
    config_need_number(c, path), c->failed = false;
    config_number(c, path, 1), c->failed = false;
    config_bool(c, path, true), c->failed = false;
    config_need_string(c, path), c->failed = false;
    config_string(c, path, NULL), c->failed = false;
    config_ints(c, path, ints, 4), c->failed = false;
    config_numbers(c, path, numbers, 4), c->failed = false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *json = json_text_parse((const char *)data, size, "config.json", NULL);
    if (!json) return 0;
    config *c = config_from_json(json, "config.json", NULL);
    if (!c) return 0;
    read_all(c, "text_config.hidden_size|hidden_size");
    read_all(c, "eos_token_id");
    read_all(c, "a.b.c|a|b..|.");
    const char *key;
    json_t *value;
    json_object_foreach(c->root, key, value) read_all(c, key);
    const int64_t shape[2] = {4, 6};
    char why[64], text[24];
    explain_config(c, "vision.q", 2, shape, why, sizeof why);
    explain_shape(2, shape, text, sizeof text);
    config_free(c);
    return 0;
}
