/* shape.c - values of a response template take their place: the transform, and the types that the tools declare. */
#include "text/response/internal.h"

#include <stdlib.h>

enum { NEST_MAX = 32 };

/* ---- transform ---- */

/* "{name.key}" as a whole: its length without braces, else 0 */
static size_t placeholder(const char *text)
{
    size_t n = strlen(text), used;
    if (n < 3 || text[0] != '{' || text[n - 1] != '}') return 0;
    bool name = false;
    for (size_t i = 1; i < n - 1; i += used) {
        bool word = response_is_word(text + i, n - 1 - i, &used);
        if (!word && (text[i] != '.' || !name)) return 0;
        name = word;
    }
    return name ? n - 2 : 0;
}

static bool has_placeholder(const char *text)
{
    for (const char *at = text; (at = strchr(at, '{')); at++) {
        const char *end = strchr(at, '}');
        if (!end) return false;
        buf one = {0};
        buf_add(&one, at, (size_t)(end - at) + 1);
        bool found = one.data && placeholder(one.data);
        buf_free(&one);
        if (found) return true;
    }
    return false;
}

bool response_check_transform(const char *scope, const json_t *transform, vlm_error *error)
{
    const char *key;
    json_t *value;
    size_t i;
    json_object_foreach((json_t *)transform, key, value)
        if (!response_check_transform(scope, value, error)) return false;
    json_array_foreach(transform, i, value)
        if (!response_check_transform(scope, value, error)) return false;
    const char *text = json_string_value(transform);
    if (text && !placeholder(text) && has_placeholder(text))
        return err_set(error, VLM_FORMAT, "%s: the transform '%.80s' mixes a placeholder with text", scope, text);
    return true;
}

typedef struct scope { const json_t *captures; const char *content; size_t size; bool each; } scope;

static bool add_placeholder(response_reading *r, const char *path, size_t n, const scope *s, buf *out)
{
    char name[256];
    size_t first = strcspn(path, ".}");
    if (n >= sizeof name) return err_set(r->error, VLM_LIMIT, "field '%s': placeholder too long", r->f->name);
    json_item item = {.value = s->content, .value_size = s->size};
    buf text = {0};
    memcpy(name, path, first);
    name[first] = 0;
    const json_t *capture = json_object_get(s->captures, name);
    bool found = s->each ? response_json_member(s->content, s->size, name, &item) : !strcmp(name, "content");
    if (!found && capture) {
        value_add_string(&text, json_string_value(capture), json_string_length(capture));
        item = (json_item){.value = text.data, .value_size = text.size};
        found = true;
    }
    for (size_t at = first; found && at < n;) {
        size_t m = strcspn(path + ++at, ".}");
        memcpy(name, path + at, m);
        name[m] = 0;
        found = response_json_member(item.value, item.value_size, name, &item);
        at += m;
    }
    bool ok = found && buf_add(out, item.value, item.value_size);
    buf_free(&text);
    return ok || err_set(r->error, VLM_FORMAT, "field '%s': the transform's {%.*s} is not there", r->f->name, (int)n, path);
}

static bool apply(response_reading *r, const json_t *transform, const scope *s, int depth, buf *out)
{
    const char *key, *text = json_string_value(transform);
    json_t *value;
    size_t i;
    bool first = true, ok = depth < NEST_MAX;
    if (json_is_object(transform)) {
        buf_addc(out, '{');
        json_object_foreach((json_t *)transform, key, value) {
            if (!ok) break;
            if (!first) buf_adds(out, ", ");
            first = false;
            value_add_string(out, key, strlen(key));
            buf_adds(out, ": ");
            ok = apply(r, value, s, depth + 1, out);
        }
        return buf_addc(out, '}') && ok;
    }
    if (json_is_array(transform)) {
        buf_addc(out, '[');
        json_array_foreach(transform, i, value) {
            if (!ok) break;
            if (i) buf_adds(out, ", ");
            ok = apply(r, value, s, depth + 1, out);
        }
        return buf_addc(out, ']') && ok;
    }
    size_t n = text ? placeholder(text) : 0;
    if (n) return add_placeholder(r, text + 1, n, s, out);
    char *dump = json_dumps(transform, JSON_ENCODE_ANY);
    ok = dump && buf_adds(out, dump);
    free(dump);
    return ok;
}

bool response_value(const response_field_spec *f, const char *inside, size_t size, const json_t *captures, buf *out, vlm_error *error)
{
    response_reading r = {.f = f, .error = error};
    buf content = {0};
    bool ok = response_content(&r, inside, size, &content);
    if (ok && !f->transform) ok = buf_add(out, content.data, content.size);
    else if (ok && !f->transform_each) {
        scope s = {.captures = captures, .content = content.data, .size = content.size};
        ok = apply(&r, f->transform, &s, 0, out);
    }
    else if (ok) {
        if (content.data[0] != '[') ok = err_set(error, VLM_FORMAT, "field '%s': transform_each needs a list", f->name);
        json_item item;
        buf_addc(out, '[');
        for (size_t at = 0; ok && json_item_next(content.data, content.size, &at, &item);) {
            if (out->size > 1) buf_adds(out, ", ");
            if (item.value[0] != '{') ok = err_set(error, VLM_FORMAT, "field '%s': transform_each needs objects", f->name);
            scope s = {.captures = captures, .content = item.value, .size = item.value_size, .each = true};
            ok = ok && apply(&r, f->transform, &s, 0, out);
        }
        buf_addc(out, ']');
    }
    buf_free(&content);
    return ok && !out->failed;
}

/* ---- types ---- */

/* The types in the order in which they are declared. */
static int schema_types(const json_t *schema, const char **types, int n, int depth)
{
    static const char *const unions[] = {"anyOf", "oneOf"};
    if (!json_is_object(schema) || depth > NEST_MAX) return n;
    const json_t *type = json_object_get(schema, "type");
    size_t i;
    json_t *item;
    if (json_is_string(type) && n < 16) types[n++] = json_string_value(type);
    json_array_foreach(type, i, item)
        if (json_is_string(item) && n < 16) types[n++] = json_string_value(item);
    for (int u = 0; u < 2; u++)
        json_array_foreach(json_object_get(schema, unions[u]), i, item) n = schema_types(item, types, n, depth + 1);
    if (json_is_true(json_object_get(schema, "nullable")) && n < 16) types[n++] = "null";
    return n;
}

static bool coerce(const char *const *types, int n, const char *text, size_t size, buf *out)
{
    for (int i = 0; i < n; i++) {
        const char *t = types[i];
        size_t before = out->size;
        if (!strcmp(t, "integer") && response_add_number(text, size, true, true, out)) return true;
        if (!strcmp(t, "number") && response_add_number(text, size, false, true, out)) return true;
        if (!strcmp(t, "boolean") && response_is_one_of(text, size, "true", "1")) return buf_adds(out, "true");
        if (!strcmp(t, "boolean") && response_is_one_of(text, size, "false", "0")) return buf_adds(out, "false");
        const char *s = text;
        size_t m = size;
        strip_text(&s, &m);
        if (!strcmp(t, "null") && m == 4 && (!memcmp(s, "null", 4) || !memcmp(s, "None", 4))) return buf_adds(out, "null");
        bool object = !strcmp(t, "object"), array = !strcmp(t, "array");
        if ((object || array) && m && s[0] == (object ? '{' : '[') && response_strict_json(text, size, out)) return true;
        out->size = before;
    }
    return false;
}

static const json_t *tool_properties(const json_t *tools, const char *name)
{
    size_t i;
    json_t *tool;
    const json_t *found = NULL;
    json_array_foreach(tools, i, tool) {
        const json_t *function = json_object_get(tool, "function");
        if (!function) function = tool;
        const char *known = json_string_value(json_object_get(function, "name"));
        if (known && !strcmp(known, name)) found = json_object_get(json_object_get(function, "parameters"), "properties");
    }
    return found;
}

static void type_argument(const json_t *schema, const json_item *a, buf *out)
{
    const char *types[16];
    int n = schema_types(schema, types, 0, 0);
    bool array = false;
    for (int i = 0; i < n; i++) array |= !strcmp(types[i], "array");
    buf text = {0};
    if (n && a->value[0] == '"' && value_decode_string(a->value, a->value_size, &text)) {
        if (!coerce(types, n, text.data ? text.data : "", text.size, out)) buf_add(out, a->value, a->value_size);
    }
    else if (n && a->value[0] == '[' && !array) {                /* of several tags with one key */
        json_item item;
        buf_addc(out, '[');
        for (size_t at = 0, k = 0; json_item_next(a->value, a->value_size, &at, &item); k++) {
            if (k) buf_adds(out, ", ");
            buf_clear(&text);
            if (item.value[0] != '"' || !value_decode_string(item.value, item.value_size, &text) || !coerce(types, n, text.data ? text.data : "", text.size, out))
                buf_add(out, item.value, item.value_size);
        }
        buf_addc(out, ']');
    }
    else buf_add(out, a->value, a->value_size);
    buf_free(&text);
}

static bool type_arguments(const char *json, size_t size, const json_t *properties, buf *out)
{
    json_item item;
    buf key = {0};
    buf_addc(out, '{');
    for (size_t at = 0, k = 0; json_item_next(json, size, &at, &item); k++) {
        if (k) buf_adds(out, ", ");
        buf_add(out, item.key, item.key_size);
        buf_adds(out, ": ");
        buf_clear(&key);
        value_decode_string(item.key, item.key_size, &key);
        type_argument(json_object_get(properties, key.data ? key.data : ""), &item, out);
    }
    buf_free(&key);
    return buf_addc(out, '}');
}

/* {"function": {"name", "arguments"}}, or a list of such; anything else stays. */
static bool type_calls(const char *json, size_t size, const json_t *tools, int depth, buf *out)
{
    json_item function, name, arguments, item;
    if (size && json[0] == '[' && depth < NEST_MAX) {
        buf_addc(out, '[');
        for (size_t at = 0, k = 0; json_item_next(json, size, &at, &item); k++) {
            if (k) buf_adds(out, ", ");
            if (!type_calls(item.value, item.value_size, tools, depth + 1, out)) return false;
        }
        return buf_addc(out, ']');
    }
    buf text = {0};
    const json_t *properties = NULL;
    if (response_json_member(json, size, "function", &function) && response_json_member(function.value, function.value_size, "name", &name) &&
        response_json_member(function.value, function.value_size, "arguments", &arguments) && arguments.value[0] == '{' && name.value[0] == '"' &&
        value_decode_string(name.value, name.value_size, &text))
        properties = tool_properties(tools, text.data ? text.data : "");
    buf_free(&text);
    if (!json_object_size(properties)) return buf_add(out, json, size);
    size_t from = (size_t)(arguments.value - json), end = from + arguments.value_size;
    return buf_add(out, json, from) && type_arguments(arguments.value, arguments.value_size, properties, out) && buf_add(out, json + end, size - end);
}

bool response_type_calls(buf *value, const json_t *tools)
{
    buf out = {0};
    if (!type_calls(value->data, value->size, tools, 0, &out) || out.failed) {
        buf_free(&out);
        return false;
    }
    buf_free(value);
    *value = out;
    return true;
}

/* ---- taking a message apart ---- */

bool response_get(const char *message, const char *key, buf *out)
{
    json_item item;
    buf_clear(out);
    return response_json_member(message, strlen(message), key, &item) && buf_add(out, item.value, item.value_size);
}

bool response_calls(const char *message, buf *out)
{
    json_item calls, item, function, name, arguments;
    buf_clear(out);
    if (!response_json_member(message, strlen(message), "tool_calls", &calls)) return false;
    buf_addc(out, '[');
    for (size_t at = 0; json_item_next(calls.value, calls.value_size, &at, &item);) {
        if (!response_json_member(item.value, item.value_size, "function", &function)) function = item;
        if (!response_json_member(function.value, function.value_size, "name", &name)) continue;
        buf_adds(out, out->size > 1 ? ", {\"name\": " : "{\"name\": ");
        buf_add(out, name.value, name.value_size);
        buf_adds(out, ", \"arguments\": ");
        bool found = response_json_member(function.value, function.value_size, "arguments", &arguments);
        if (found && arguments.value[0] == '"') buf_add(out, arguments.value, arguments.value_size);
        else if (found) value_add_string(out, arguments.value, arguments.value_size);
        else buf_adds(out, "\"{}\"");
        buf_addc(out, '}');
    }
    return buf_addc(out, ']') && out->size > 2;
}
