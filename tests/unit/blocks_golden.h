/* blocks_golden.h - tests/data/models/blocks.json (made by tools/goldens/blocks.py) for the tests of blocks and families. */
#ifndef BLOCKS_GOLDEN_H
#define BLOCKS_GOLDEN_H

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static json_t *golden_root;

static inline int golden_load(void **state)
{
    (void)state;
    golden_root = json_load_file("tests/data/models/blocks.json", 0, NULL);
    return golden_root ? 0 : -1;
}

static inline int golden_free(void **state)
{
    (void)state;
    json_decref(golden_root);
    return 0;
}

static inline json_t *golden(const char *name)
{
    json_t *list = json_object_get(golden_root, name);
    assert_true(json_array_size(list) > 0);
    return list;
}

static inline double num(const json_t *list, size_t i) { return json_number_value(json_array_get(list, i)); }
static inline int64_t whole(const json_t *list, size_t i) { return json_integer_value(json_array_get(list, i)); }
static inline json_t *member(const json_t *o, const char *key) { return json_object_get(o, key); }

#endif
