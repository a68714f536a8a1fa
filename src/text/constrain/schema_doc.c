/* schema_doc.c - the document of a JSON schema: where each part lies (for messages and relative references), and what $ref means.
 *
 * The document is walked once. Every object in it gets an entry: parent and key (its path), and the base URI that $id gave it. $id and $anchor
 * are entered by name; nothing is read from elsewhere, so a reference to another document is an error. Values below enum, const, default and
 * examples are data: an "$id" there names nothing. */
#include <ctype.h>
#include <string.h>

#include "text/constrain/schema_internal.h"

enum { DOC_MAX_DEPTH = 600, DOC_MAX_ENTRIES = 2000000 };

static size_t doc_hash(const schema_doc *d, const json_t *node)
{
    return (size_t)(((uintptr_t)node >> 4) * 0x9E3779B97F4A7C15u >> 20) & (d->slots - 1);
}

static schema_entry *doc_find(const schema_doc *d, const json_t *node)
{
    if (!d->slots) return NULL;
    for (size_t i = doc_hash(d, node);; i = (i + 1) & (d->slots - 1)) {
        if (!d->slot[i]) return NULL;
        if (d->entry[d->slot[i] - 1].node == node) return &d->entry[d->slot[i] - 1];
    }
}

static bool doc_grow(schema_doc *d)
{
    if (d->count == d->capacity) {
        size_t n = d->capacity ? d->capacity * 2 : 64;
        schema_entry *e = mem_resize(d->entry, n, sizeof *e);
        if (!e) return false;
        d->entry = e;
        d->capacity = n;
    }
    if (d->count * 2 < d->slots) return true;
    size_t n = d->slots ? d->slots * 2 : 256;
    uint32_t *slot = MEM_ARRAY(n, uint32_t);
    if (!slot) return false;
    mem_free(d->slot);
    d->slot = slot;
    d->slots = n;
    for (size_t k = 0; k < d->count; k++) {
        size_t i = doc_hash(d, d->entry[k].node);
        while (slot[i]) i = (i + 1) & (n - 1);
        slot[i] = (uint32_t)k + 1;
    }
    return true;
}

bool schema_doc_add(schema_doc *d, const json_t *node, const json_t *parent, const char *key, size_t index, vlm_error *error)
{
    if (doc_find(d, node)) return true;
    if (d->count >= DOC_MAX_ENTRIES) return err_set(error, VLM_LIMIT, "$: the schema has more than %d parts", DOC_MAX_ENTRIES);
    if (!doc_grow(d)) return err_memory(error, sizeof(schema_entry));
    const schema_entry *up = parent ? doc_find(d, parent) : NULL;
    d->entry[d->count] = (schema_entry){.node = node, .parent = parent, .key = key, .index = index, .base = up ? up->base : ""};
    size_t i = doc_hash(d, node);
    while (d->slot[i]) i = (i + 1) & (d->slots - 1);
    d->slot[i] = (uint32_t)++d->count;
    return true;
}

/* ---- names ---- */
static bool doc_name(schema_doc *d, const char *uri, const json_t *node)
{
    if (d->name_count == d->name_capacity) {
        size_t n = d->name_capacity ? d->name_capacity * 2 : 16;
        schema_name *names = mem_resize(d->name, n, sizeof *names);
        if (!names) return false;
        d->name = names;
        d->name_capacity = n;
    }
    d->name[d->name_count++] = (schema_name){uri, node};
    return true;
}

static const json_t *doc_named(const schema_doc *d, const char *uri)
{
    for (size_t i = 0; i < d->name_count; i++)
        if (!strcmp(d->name[i].uri, uri)) return d->name[i].node;
    return NULL;
}

/* `ref` seen from `base`, as RFC 3986 without dot segments. */
static char *doc_join(schema_doc *d, const char *base, const char *ref)
{
    const char *colon = strchr(ref, ':'), *slash = strchr(ref, '/');
    if (!*base || (colon && (!slash || colon < slash))) return arena_strdup(&d->memory, ref);
    int n = (int)strcspn(base, "#");
    if (*ref == '#' || !*ref) return arena_printf(&d->memory, "%.*s%s", n, base, ref);
    const char *host = strstr(base, "://");
    int start = host && host < base + n ? (int)(host + 3 - base) : 0;
    if (*ref == '/') {
        while (start < n && base[start] != '/') start++;
        return arena_printf(&d->memory, "%.*s%s", start, base, ref);
    }
    int cut = n;
    while (cut > start && base[cut - 1] != '/') cut--;
    return arena_printf(&d->memory, "%.*s%s%s", cut ? cut : n, base, host && cut == start ? "/" : "", ref);
}

static bool doc_names_of(schema_doc *d, const json_t *node, vlm_error *error)
{
    schema_entry *e = doc_find(d, node);
    const char *id = json_string_value(json_object_get(node, "$id"));
    if (!id && d->draft4) id = json_string_value(json_object_get(node, "id"));
    if (id && !(json_object_get(node, "$ref") && d->ref_alone)) {
        char *uri = doc_join(d, e->base, id);
        if (!uri) return err_memory(error, 0);
        char *hash = strchr(uri, '#');
        if (hash && !hash[1]) *hash = 0, hash = NULL;
        if (!doc_name(d, uri, node)) return err_memory(error, 0);
        if (!hash) e->base = uri;
    }
    static const char *const anchors[] = {"$anchor", "$dynamicAnchor"};
    for (int i = 0; i < 2; i++) {
        const char *anchor = json_string_value(json_object_get(node, anchors[i]));
        if (!anchor) continue;
        char *uri = arena_printf(&d->memory, "%s#%s", e->base, anchor);
        if (!uri || !doc_name(d, uri, node)) return err_memory(error, 0);
    }
    return true;
}

static bool doc_walk(schema_doc *d, const json_t *node, const json_t *parent, const char *key, size_t index, bool data, int depth, vlm_error *error)
{
    if (!json_is_object(node) && !json_is_array(node)) return true;
    if (depth > DOC_MAX_DEPTH) return err_set(error, VLM_LIMIT, "$: the schema is nested more than %d deep", DOC_MAX_DEPTH);
    if (!schema_doc_add(d, node, parent, key, index, error)) return false;
    if (json_is_array(node)) {
        for (size_t i = 0; i < json_array_size(node); i++)
            if (!doc_walk(d, json_array_get(node, i), node, NULL, i, data, depth + 1, error)) return false;
        return true;
    }
    if (!data && !doc_names_of(d, node, error)) return false;
    const char *k;
    json_t *v;
    json_object_foreach((json_t *)node, k, v) {
        bool below = data || !strcmp(k, "enum") || !strcmp(k, "const") || !strcmp(k, "default") || !strcmp(k, "examples");
        if (!doc_walk(d, v, node, k, 0, below, depth + 1, error)) return false;
    }
    return true;
}

bool schema_doc_init(schema_doc *d, const json_t *root, vlm_error *error)
{
    *d = (schema_doc){.root = root};
    const char *draft = json_string_value(json_object_get(root, "$schema"));
    d->draft4 = draft && (strstr(draft, "draft-04") || strstr(draft, "draft-03"));
    d->ref_alone = d->draft4 || (draft && (strstr(draft, "draft-06") || strstr(draft, "draft-07")));
    return doc_walk(d, root, NULL, NULL, 0, false, 0, error);
}

void schema_doc_free(schema_doc *d)
{
    mem_free(d->entry);
    mem_free(d->slot);
    mem_free(d->name);
    arena_free(&d->memory);
    *d = (schema_doc){0};
}

/* ---- paths ---- */
static bool plain_key(const char *k)
{
    if (!isalpha((unsigned char)*k) && *k != '_' && *k != '$') return false;
    for (; *k; k++)
        if (!isalnum((unsigned char)*k) && *k != '_' && *k != '-' && *k != '$') return false;
    return true;
}

void schema_doc_path(const schema_doc *d, const json_t *node, buf *out)
{
    const schema_entry *chain[DOC_MAX_DEPTH + 8];
    size_t n = 0;
    for (const schema_entry *e = doc_find(d, node); e && n < DOC_MAX_DEPTH + 8; e = e->parent ? doc_find(d, e->parent) : NULL) chain[n++] = e;
    buf_adds(out, "$");
    while (n--) {
        const schema_entry *e = chain[n];
        if (!e->parent) continue;
        if (!e->key) buf_addf(out, "[%zu]", e->index);
        else if (plain_key(e->key)) buf_addf(out, ".%s", e->key);
        else buf_addf(out, "[\"%s\"]", e->key);
    }
}

/* ---- references ---- */
static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static void percent_decode(char *s)
{
    char *to = s;
    for (; *s; s++) {
        int high = *s == '%' ? hex_digit(s[1]) : -1, low = high >= 0 ? hex_digit(s[2]) : -1;
        if (low >= 0) *to++ = (char)(high * 16 + low), s += 2;
        else *to++ = *s;
    }
    *to = 0;
}

static const json_t *pointer_step(const json_t *at, char *token)
{
    char *to = token;
    for (const char *s = token; *s; s++) {
        if (*s == '~' && (s[1] == '0' || s[1] == '1')) *to++ = *++s == '0' ? '~' : '/';
        else *to++ = *s;
    }
    *to = 0;
    if (json_is_object(at)) return json_object_get(at, token);
    if (!json_is_array(at) || !*token) return NULL;
    size_t index = 0;
    for (const char *s = token; *s; s++) {
        if (*s < '0' || *s > '9' || index > 100000000) return NULL;
        index = index * 10 + (size_t)(*s - '0');
    }
    return json_array_get(at, index);
}

static const json_t *doc_pointer(const json_t *at, char *fragment)
{
    percent_decode(fragment);
    while (at && *fragment == '/') {
        char *end = fragment + 1 + strcspn(fragment + 1, "/");
        char stop = *end;
        *end = 0;
        at = pointer_step(at, fragment + 1);
        *end = stop;
        fragment = end;
    }
    return at;
}

const json_t *schema_doc_resolve(schema_doc *d, const json_t *from, const char *ref, vlm_error *error)
{
    const schema_entry *e = doc_find(d, from);
    char *uri = doc_join(d, e ? e->base : "", ref);
    if (!uri) {
        err_memory(error, 0);
        return NULL;
    }
    const json_t *found = NULL;
    char *hash = strchr(uri, '#');
    if (!hash || !hash[1]) {
        if (hash) *hash = 0;
        found = *uri ? doc_named(d, uri) : d->root;
    } else if (hash[1] == '/') {
        *hash = 0;
        const json_t *resource = *uri ? doc_named(d, uri) : d->root;
        found = resource ? doc_pointer(resource, hash + 1) : NULL;
    } else {
        found = doc_named(d, uri);
    }
    if (json_is_object(found) || json_is_boolean(found)) return found;
    buf path = {0};
    schema_doc_path(d, from, &path);
    bool elsewhere = *ref != '#' && !found;
    err_set(error, elsewhere ? VLM_UNSUPPORTED : VLM_INVALID, "%s.$ref: \"%s\" %s", path.data ? path.data : "$", ref,
            found ? "is no schema" : elsewhere ? "is not in this schema; other documents are not read" : "does not exist");
    buf_free(&path);
    return NULL;
}

bool schema_doc_static(const schema_doc *d, const char *ref)
{
    const char *hash = strchr(ref, '#');
    size_t found = 0;
    for (size_t i = 0; i < d->name_count && hash; i++) {
        const char *anchor = strchr(d->name[i].uri, '#');
        found += anchor && !strcmp(anchor, hash);
    }
    return found <= 1;
}
