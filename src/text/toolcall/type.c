/* type.c - texts become values: what the tool's JSON schema says about a parameter, and what is made of its text. */
#include "text/toolcall/internal.h"

enum { DEPTH_MAX = 16 };

static unsigned type_of_name(const char *name)
{
    static const struct { const char *name; unsigned type; } names[] = {
        {"string", TYPE_STRING}, {"str", TYPE_STRING}, {"text", TYPE_STRING}, {"integer", TYPE_INTEGER}, {"int", TYPE_INTEGER},
        {"number", TYPE_NUMBER}, {"float", TYPE_NUMBER}, {"double", TYPE_NUMBER}, {"boolean", TYPE_BOOLEAN}, {"bool", TYPE_BOOLEAN},
        {"array", TYPE_ARRAY}, {"list", TYPE_ARRAY}, {"object", TYPE_OBJECT}, {"dict", TYPE_OBJECT}, {"null", TYPE_NULL},
    };
    for (size_t i = 0; name && i < sizeof names / sizeof *names; i++)
        if (!strcmp(names[i].name, name)) return names[i].type;
    return 0;
}

static unsigned type_of_value(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_STRING: return TYPE_STRING;
    case JSON_INTEGER: return TYPE_INTEGER;
    case JSON_REAL: return TYPE_NUMBER;
    case JSON_TRUE: case JSON_FALSE: return TYPE_BOOLEAN;
    case JSON_ARRAY: return TYPE_ARRAY;
    case JSON_OBJECT: return TYPE_OBJECT;
    default: return TYPE_NULL;
    }
}

/* "#/$defs/Name" */
static const json_t *resolve(const json_t *root, const json_t *schema)
{
    for (int hops = 0; hops < DEPTH_MAX; hops++) {
        const char *ref = json_string_value(json_object_get(schema, "$ref"));
        if (!ref) return schema;
        if (ref[0] != '#') return NULL;
        schema = root;
        for (ref++; *ref == '/' && schema;) {
            size_t n = strcspn(++ref, "/");
            buf key = {0};
            for (size_t i = 0; i < n; i++) {
                if (ref[i] == '~' && i + 1 < n) buf_addc(&key, ref[++i] == '0' ? '~' : '/');
                else buf_addc(&key, ref[i]);
            }
            schema = json_object_get(schema, key.data ? key.data : "");
            buf_free(&key);
            ref += n;
        }
    }
    return NULL;
}

static unsigned mask_deep(const json_t *root, const json_t *schema, int depth)
{
    static const char *const unions[] = {"anyOf", "oneOf"};
    schema = resolve(root, schema);
    if (!json_is_object(schema) || depth > DEPTH_MAX) return 0;
    unsigned mask = 0;
    const json_t *type = json_object_get(schema, "type");
    size_t i;
    json_t *item;
    if (json_is_string(type)) mask = type_of_name(json_string_value(type));
    json_array_foreach(type, i, item) mask |= type_of_name(json_string_value(item));
    for (int u = 0; u < 2 && !mask; u++)
        json_array_foreach(json_object_get(schema, unions[u]), i, item) mask |= mask_deep(root, item, depth + 1);
    if (!mask)
        json_array_foreach(json_object_get(schema, "allOf"), i, item) {
            unsigned one = mask_deep(root, item, depth + 1);
            mask = mask && one ? mask & one : mask | one;
        }
    if (!mask) json_array_foreach(json_object_get(schema, "enum"), i, item) mask |= type_of_value(item);
    if (!mask && json_object_get(schema, "const")) mask = type_of_value(json_object_get(schema, "const"));
    if (!mask && (json_object_get(schema, "properties") || json_object_get(schema, "additionalProperties"))) mask = TYPE_OBJECT;
    if (!mask && json_object_get(schema, "items")) mask = TYPE_ARRAY;
    if (mask && json_is_true(json_object_get(schema, "nullable"))) mask |= TYPE_NULL;
    return mask;
}

unsigned type_mask(const json_t *root, const json_t *schema) { return mask_deep(root, schema, 0); }

/* A member of an object's schema, also in its unions. */
static const json_t *find_deep(const json_t *root, const json_t *schema, const char *key, int depth)
{
    static const char *const parts[] = {"anyOf", "oneOf", "allOf"};
    schema = resolve(root, schema);
    if (!json_is_object(schema) || depth > DEPTH_MAX) return NULL;
    const json_t *found = key ? json_object_get(json_object_get(schema, "properties"), key) : json_object_get(schema, "items");
    if (!found && key) {
        found = json_object_get(schema, "additionalProperties");
        if (!json_is_object(found)) found = NULL;
    }
    for (int u = 0; u < 3 && !found; u++) {
        size_t i;
        json_t *item;
        json_array_foreach(json_object_get(schema, parts[u]), i, item)
            if (!found) found = find_deep(root, item, key, depth + 1);
    }
    return found;
}

const json_t *type_property(const json_t *root, const json_t *schema, const char *key) { return find_deep(root, schema, key, 0); }
const json_t *type_items(const json_t *root, const json_t *schema) { return find_deep(root, schema, NULL, 0); }

static unsigned type_of_json(const char *json, size_t n)
{
    switch (json[0]) {
    case '"': return TYPE_STRING;
    case '{': return TYPE_OBJECT;
    case '[': return TYPE_ARRAY;
    case 't': case 'f': return TYPE_BOOLEAN;
    case 'n': return TYPE_NULL;
    default: return memchr(json, '.', n) || memchr(json, 'e', n) || memchr(json, 'E', n) ? TYPE_NUMBER : TYPE_INTEGER | TYPE_NUMBER;
    }
}

bool type_value(unsigned types, uint32_t flags, const char *text, size_t size, buf *out)
{
    size_t from = 0, n = size;
    while (from < n && is_space(text[from])) from++;
    while (n > from && is_space(text[n - 1])) n--;
    bool null_word = n - from == 4 && !memcmp(text + from, "null", 4);
    if (null_word && (flags & WORD_NULL || types & TYPE_NULL)) return buf_adds(out, "null");
    if (types == TYPE_STRING || n == from) return value_add_string(out, text, size);
    bool json = types || flags & (UNTYPED_JSON | UNTYPED_PYTHON), python = types || flags & UNTYPED_PYTHON;
    buf value = {0};
    bool ok = (json && value_whole(VALUE_JSON, false, text + from, n - from, &value)) ||
              (python && value_whole(VALUE_PYTHON, false, text + from, n - from, &value));
    /* where a string is allowed, too, the text is something else only if it is of a type that is declared */
    if (ok && types & TYPE_STRING && (!(type_of_json(value.data, value.size) & types) || value.data[0] == '"')) ok = false;
    if (ok) buf_add(out, value.data, value.size);
    else value_add_string(out, text, size);
    buf_free(&value);
    return !out->failed;
}
