/* schema_view.c - sets of schemas and their alternatives.
 *
 * A view is one way to satisfy a set: all schemas that hold then, with $ref and allOf followed and one branch chosen of each anyOf and oneOf. A
 * schema that comes back to itself on that way without going into a property or an item is an error. What stands under "not" is turned into
 * plain schemas where that is possible. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "text/constrain/schema_internal.h"

enum { VIEW_MAX_DEPTH = 200, VIEW_MAX_CHOICES = 64, VIEW_MAX_TOTAL = 20000, VIEW_MAX_PER_SET = 500, VIEW_MAX_STEPS = 400000 };

/* ---- errors ---- */
bool schema_refuse(schema_c *c, vlm_status status, const json_t *node, const char *keyword, const char *format, ...)
{
    if (c->failed) return false;
    c->failed = true;
    buf path = {0};
    schema_doc_path(&c->doc, node, &path);
    if (keyword) buf_addf(&path, ".%s", keyword);
    char text[600];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    err_set(c->error, status, "%.380s: %s", path.data ? path.data : "$", text);
    buf_free(&path);
    return false;
}

bool schema_memory(schema_c *c)
{
    if (!c->failed) err_memory(c->error, 0);
    c->failed = true;
    return false;
}

/* ---- keywords ---- */
static bool is_assertion(const char *k, const json_t *value)
{
    static const char *const known[] = {
        "$ref", "$dynamicRef", "$recursiveRef", "allOf", "anyOf", "oneOf", "not", "dependentRequired", "dependentSchemas", "dependencies", "type", "enum",
        "const", "properties", "patternProperties", "additionalProperties", "propertyNames", "required", "minProperties", "maxProperties",
        "unevaluatedProperties", "items", "prefixItems", "additionalItems", "minItems", "maxItems", "uniqueItems", "contains", "minContains",
        "maxContains", "unevaluatedItems", "minLength", "maxLength", "pattern", "format", "minimum", "maximum", "exclusiveMinimum",
        "exclusiveMaximum", "multipleOf", "if", "then", "else", NULL};
    if (!strcmp(k, "nullable")) return json_is_true(value);
    for (const char *const *w = known; *w; w++)
        if (!strcmp(k, *w)) return true;
    return false;
}

bool schema_only_has(const json_t *node, const char *but)
{
    const char *k;
    json_t *v;
    json_object_foreach((json_t *)node, k, v) if (is_assertion(k, v) && strcmp(k, but)) return false;
    return true;
}

static unsigned type_bit(const char *name)
{
    static const struct { const char *name; unsigned bits; } types[] = {{"null", TYPE_NULL}, {"boolean", TYPE_BOOLEAN}, {"integer", TYPE_INTEGER},
        {"number", TYPE_NUMBER}, {"string", TYPE_STRING}, {"array", TYPE_ARRAY}, {"object", TYPE_OBJECT}, {"any", TYPE_ANY}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (!strcmp(types[i].name, name)) return types[i].bits;
    return 0;
}

unsigned schema_type_bits(schema_c *c, const json_t *node)
{
    const json_t *type = json_object_get(node, "type");
    if (!type) return TYPE_ANY;
    unsigned bits = 0;
    size_t n = json_is_array(type) ? json_array_size(type) : 1;
    for (size_t i = 0; i < n; i++) {
        const json_t *one = json_is_array(type) ? json_array_get(type, i) : type;
        const char *name = json_string_value(one);
        unsigned bit = name ? type_bit(name) : 0;
        if (json_is_object(one)) {                     /* draft 3: a schema among the types */
            schema_refuse(c, VLM_UNSUPPORTED, node, "type", "schemas in a list of types are not taken");
            return 0;
        }
        if (!bit) {
            schema_refuse(c, VLM_INVALID, node, "type", name ? "\"%s\" is no type" : "%s", name ? name : "a name or a list of names was expected");
            return 0;
        }
        bits |= bit;
    }
    if (json_is_true(json_object_get(node, "nullable"))) bits |= TYPE_NULL;
    return bits;
}

/* ---- the walk ---- */
typedef struct view_choice { const json_t *list; int32_t atom; uint32_t place; } view_choice;
typedef struct view_walk {
    schema_c *c;
    schema_view v;
    view_choice choice[VIEW_MAX_CHOICES];
    uint32_t choices;
    size_t views, steps;
    schema_view_fn *call;
    void *user;
} view_walk;

static bool walk_add(view_walk *w, const json_t *node, int32_t parent, uint32_t place, const json_t *where, int depth);
static bool walk_not(view_walk *w, const json_t *node, int32_t atom, uint32_t place, const json_t *where, int depth);

/* A schema of our own at the place of another; the compiler owns it. */
static const json_t *walk_made(view_walk *w, json_t *made, const json_t *where, const char *keyword)
{
    if (!made || json_array_append_new(w->c->made, made)) {
        schema_memory(w->c);
        return NULL;
    }
    if (!schema_doc_add(&w->c->doc, made, where, keyword, 0, w->c->error)) {
        w->c->failed = true;
        return NULL;
    }
    return made;
}

static bool walk_choice(view_walk *w, const json_t *list, int32_t atom, uint32_t place, const char *keyword)
{
    const json_t *node = w->v.atom[atom].node;
    if (!json_is_array(list) || !json_array_size(list)) return schema_refuse(w->c, VLM_INVALID, node, keyword, "a list of schemas was expected");
    if (w->choices == VIEW_MAX_CHOICES) return schema_refuse(w->c, VLM_LIMIT, node, keyword, "more than %d choices at one place", VIEW_MAX_CHOICES);
    w->choice[w->choices++] = (view_choice){list, atom, place};
    return true;
}

/* "a is not there, or it is and then ..." for each member of dependentRequired, dependentSchemas, dependencies. */
static bool walk_dependent(view_walk *w, const json_t *all, int32_t atom, uint32_t place, const char *keyword)
{
    const json_t *node = w->v.atom[atom].node;
    if (!json_is_object(all)) return schema_refuse(w->c, VLM_INVALID, node, keyword, "an object was expected");
    const char *k;
    json_t *v;
    json_object_foreach((json_t *)all, k, v) {
        json_t *then;
        if (json_is_array(v)) {
            json_t *required = json_copy(v);
            if (required) json_array_insert_new(required, 0, json_string(k));
            then = json_pack("{s:o}", "required", required);
        } else {
            then = json_pack("{s:[s],s:[O]}", "required", k, "allOf", v);
        }
        json_t *absent = json_pack("{s:{s:b}}", "properties", k, 0);
        const json_t *made = walk_made(w, json_pack("[o,o]", absent, then), node, keyword);
        if (!made) return false;
        for (size_t i = 0; i < 2; i++)
            if (!schema_doc_add(&w->c->doc, json_array_get(made, i), node, keyword, 0, w->c->error)) return !(w->c->failed = true);
        if (!walk_choice(w, made, atom, place, keyword)) return false;
    }
    return true;
}

static bool walk_keywords(view_walk *w, const json_t *node, int32_t me, int depth)
{
    schema_c *c = w->c;
    uint32_t place = 0;
    const char *k;
    json_t *v;
    json_object_foreach((json_t *)node, k, v) {
        place += 4096;
        if (!strcmp(k, "$ref") || !strcmp(k, "$dynamicRef") || !strcmp(k, "$recursiveRef")) {
            if (!json_is_string(v)) return schema_refuse(c, VLM_INVALID, node, k, "a string was expected");
            if (!strcmp(k, "$dynamicRef") && !schema_doc_static(&c->doc, json_string_value(v)))
                return schema_refuse(c, VLM_UNSUPPORTED, node, k, "there are several anchors of this name");
            const json_t *target = schema_doc_resolve(&c->doc, node, json_string_value(v), c->error);
            if (!target) return !(c->failed = true);
            if (!walk_add(w, target, me, place, node, depth + 1)) return false;
        } else if (!strcmp(k, "allOf")) {
            if (!json_is_array(v)) return schema_refuse(c, VLM_INVALID, node, k, "a list of schemas was expected");
            for (size_t i = 0; i < json_array_size(v); i++)
                if (!walk_add(w, json_array_get(v, i), me, place + (uint32_t)(i < 4095 ? i : 4095), node, depth + 1)) return false;
        } else if (!strcmp(k, "anyOf") || !strcmp(k, "oneOf")) {
            if (!strcmp(k, "oneOf") && !schema_exclusive(c, node, v)) return false;
            if (!walk_choice(w, v, me, place, k)) return false;
        } else if (!strcmp(k, "dependentRequired") || !strcmp(k, "dependentSchemas") || !strcmp(k, "dependencies")) {
            if (!walk_dependent(w, v, me, place, k)) return false;
        } else if (!strcmp(k, "not")) {
            if (!walk_not(w, v, me, place, node, depth + 1)) return false;
        } else if (!strcmp(k, "if") && (json_object_get(node, "then") || json_object_get(node, "else"))) {
            return schema_refuse(c, VLM_UNSUPPORTED, node, k, "conditions cannot be enforced");
        }
    }
    return true;
}

static bool walk_append(view_walk *w, const json_t *node, int32_t parent, uint32_t place, bool negated)
{
    if (w->v.count == w->v.capacity) {
        uint32_t n = w->v.capacity ? w->v.capacity * 2 : 16;
        schema_atom *atom = mem_resize(w->v.atom, n, sizeof *atom);
        if (!atom) return schema_memory(w->c);
        w->v.atom = atom;
        w->v.capacity = n;
    }
    w->v.atom[w->v.count++] = (schema_atom){node, parent, place, negated};
    return true;
}

static bool walk_add(view_walk *w, const json_t *node, int32_t parent, uint32_t place, const json_t *where, int depth)
{
    schema_c *c = w->c;
    if (++w->steps > VIEW_MAX_STEPS) return schema_refuse(c, VLM_LIMIT, where, NULL, "too many combinations of schemas");
    if (json_is_true(node)) return true;
    if (json_is_false(node)) {
        w->v.types = 0;
        return true;
    }
    if (!json_is_object(node)) return schema_refuse(c, VLM_INVALID, where, NULL, "a schema was expected: an object, true or false");
    if (depth > VIEW_MAX_DEPTH) return schema_refuse(c, VLM_INVALID, where, NULL, "schemas refer to each other without end, or are nested too deep");
    for (uint32_t i = 0; i < w->v.count; i++) {
        if (w->v.atom[i].node != node || w->v.atom[i].negated) continue;
        for (int32_t up = parent; up >= 0; up = w->v.atom[up].parent)
            if (w->v.atom[up].node == node) return schema_refuse(c, VLM_INVALID, node, NULL, "the schema refers to itself without going into a property or an item");
        return true;
    }
    const json_t *ref = json_object_get(node, "$ref");
    if (ref && c->doc.ref_alone) {
        const json_t *target = json_is_string(ref) ? schema_doc_resolve(&c->doc, node, json_string_value(ref), c->error) : NULL;
        if (!target) return json_is_string(ref) ? !(c->failed = true) : schema_refuse(c, VLM_INVALID, node, "$ref", "a string was expected");
        return walk_add(w, target, parent, place, node, depth + 1);
    }
    int32_t me = (int32_t)w->v.count;
    if (!walk_append(w, node, parent, place, false)) return false;
    w->v.types &= schema_type_bits(c, node);
    return !c->failed && walk_keywords(w, node, me, depth);
}

static const char *only_assertion(const json_t *node)
{
    const char *k, *found = NULL;
    json_t *v;
    json_object_foreach((json_t *)node, k, v) {
        if (!is_assertion(k, v)) continue;
        if (found) return NULL;
        found = k;
    }
    return found ? found : "";
}

/* The opposite of a schema, where it can be said. */
static bool walk_not(view_walk *w, const json_t *node, int32_t atom, uint32_t place, const json_t *where, int depth)
{
    schema_c *c = w->c;
    if (json_is_false(node)) return true;
    const char *only = json_is_object(node) ? only_assertion(node) : json_is_true(node) ? "" : NULL;
    if (!json_is_object(node) && !json_is_boolean(node)) return schema_refuse(c, VLM_INVALID, where, "not", "a schema was expected");
    if (depth > VIEW_MAX_DEPTH) return schema_refuse(c, VLM_LIMIT, where, "not", "nested too deep");
    if (!only) {
        const json_t *type = json_object_get(node, "type"), *other = json_object_get(node, "const") ? json_object_get(node, "const") : json_object_get(node, "enum");
        if (!type || !other || json_object_size(node) != 2) return schema_refuse(c, VLM_UNSUPPORTED, where, "not", "only types, constants, patterns and required properties can be excluded");
        only = "enum";                                 /* a constant with its type: the type says nothing more */
    }
    if (!*only) {
        w->v.types = 0;
        return true;
    }
    if (!strcmp(only, "not")) return walk_add(w, json_object_get(node, "not"), -1, place, where, depth + 1);    /* -1: it evaluates nothing */
    if (!strcmp(only, "type")) {
        unsigned bits = schema_type_bits(c, node);
        w->v.types &= ~bits;
        return !c->failed;
    }
    if (!strcmp(only, "anyOf")) {
        const json_t *list = json_object_get(node, "anyOf");
        for (size_t i = 0; i < json_array_size(list); i++)
            if (!walk_not(w, json_array_get(list, i), atom, place, where, depth + 1)) return false;
        return true;
    }
    if (!strcmp(only, "required")) {                   /* an object in which one of them is missing */
        const json_t *names = json_object_get(node, "required");
        json_t *list = json_array();
        for (size_t i = 0; list && i < json_array_size(names); i++) {
            const char *name = json_string_value(json_array_get(names, i));
            if (name) json_array_append_new(list, json_pack("{s:{s:b}}", "properties", name, 0));
        }
        const json_t *made = walk_made(w, json_pack("{s:s,s:o}", "type", "object", "anyOf", list), where, "not");
        if (!made) return false;
        if (!json_array_size(names)) return !(w->v.types = 0);
        return walk_add(w, made, atom, place, where, depth + 1);
    }
    if (!strcmp(only, "enum") || !strcmp(only, "const") || !strcmp(only, "pattern")) return walk_append(w, node, atom, place, true);
    return schema_refuse(c, VLM_UNSUPPORTED, where, "not", "only types, constants, patterns and required properties can be excluded");
}

static bool walk_choices(view_walk *w, uint32_t at)
{
    schema_c *c = w->c;
    if (!w->v.types) return true;
    if (at == w->choices) {
        if (++w->views > VIEW_MAX_PER_SET || ++c->views > VIEW_MAX_TOTAL)
            return schema_refuse(c, VLM_LIMIT, w->v.count ? w->v.atom[0].node : c->doc.root, NULL, "too many combinations of anyOf, oneOf and dependencies");
        return w->call(c, &w->v, w->user);
    }
    view_choice choice = w->choice[at];
    uint32_t count = w->v.count, choices = w->choices;
    unsigned types = w->v.types;
    const json_t *where = w->v.atom[choice.atom].node;
    for (size_t i = 0; i < json_array_size(choice.list); i++) {
        if (!walk_add(w, json_array_get(choice.list, i), choice.atom, choice.place + (uint32_t)(i < 4095 ? i : 4095), where, 1)) return false;
        if (!walk_choices(w, at + 1)) return false;
        w->v.count = count;
        w->choices = choices;
        w->v.types = types;
    }
    return true;
}

bool schema_views(schema_c *c, const schema_set *set, schema_view_fn *call, void *user)
{
    view_walk *w = MEM_NEW(view_walk);                 /* not on the stack: views nest */
    if (!w) return schema_memory(c);
    w->c = c;
    w->v.types = TYPE_ANY;
    w->call = call;
    w->user = user;
    bool ok = true;
    for (uint32_t i = 0; i < set->count && ok; i++) ok = walk_add(w, set->node[i], -1, i, c->doc.root, 0);
    ok = ok && walk_choices(w, 0);
    mem_free(w->v.atom);
    mem_free(w);
    return ok;
}

/* ---- sets and their rules ---- */
bool schema_set_add(schema_c *c, schema_set *set, uint32_t *capacity, const json_t *node)
{
    if (json_is_true(node)) return true;
    for (uint32_t i = 0; i < set->count; i++)
        if (set->node[i] == node) return true;
    if (set->count == *capacity) {
        uint32_t n = *capacity ? *capacity * 2 : 4;
        const json_t **list = arena_alloc(&c->memory, n * sizeof *list);
        if (!list) return schema_memory(c);
        if (set->count) memcpy(list, set->node, set->count * sizeof *list);
        set->node = list;
        *capacity = n;
    }
    set->node[set->count++] = node;
    return true;
}

static size_t set_hash(const schema_set *s)
{
    uint64_t h = s->count;
    for (uint32_t i = 0; i < s->count; i++) h = (h ^ (uintptr_t)s->node[i]) * 0x9FB21C651E98DF25u, h ^= h >> 31;
    return (size_t)h;
}

static bool rule_grow(schema_c *c)
{
    if (c->count == c->capacity) {
        size_t n = c->capacity ? c->capacity * 2 : 32;
        schema_rule *rule = mem_resize(c->rule, n, sizeof *rule);
        if (!rule) return schema_memory(c);
        c->rule = rule;
        c->capacity = n;
    }
    if (c->count * 2 < c->slots) return true;
    size_t n = c->slots ? c->slots * 2 : 128;
    uint32_t *slot = MEM_ARRAY(n, uint32_t);
    if (!slot) return schema_memory(c);
    mem_free(c->slot);
    c->slot = slot;
    c->slots = n;
    for (size_t k = 0; k < c->count; k++) {
        size_t i = (set_hash(&c->rule[k].set) + c->rule[k].notation) & (n - 1);
        while (slot[i]) i = (i + 1) & (n - 1);
        slot[i] = (uint32_t)k + 1;
    }
    return true;
}

static grammar_expr any_in(schema_c *c, schema_notation notation)
{
    schema_notation before = c->notation;
    c->notation = notation;
    grammar_expr made = schema_any_value(c);
    c->notation = before;
    return made;
}

grammar_expr schema_set_rule(schema_c *c, const schema_set *given, schema_notation notation)
{
    schema_set set = *given;
    for (int hops = 0; set.count == 1 && json_is_object(set.node[0]) && (schema_only_has(set.node[0], "$ref") || (c->doc.ref_alone && json_object_get(set.node[0], "$ref"))); hops++) {
        const char *ref = json_string_value(json_object_get(set.node[0], "$ref"));
        if (!ref) break;
        if (hops > VIEW_MAX_DEPTH) return schema_refuse(c, VLM_INVALID, set.node[0], "$ref", "references go round in a circle");
        const json_t **list = arena_alloc(&c->memory, sizeof *list);
        if (!list) return schema_memory(c);
        list[0] = schema_doc_resolve(&c->doc, set.node[0], ref, c->error);
        if (!list[0]) return !(c->failed = true);
        set.node = list;
        if (json_is_true(list[0])) set.count = 0;
    }
    bool whole = notation == SCHEMA_TAGS || notation == SCHEMA_ARGUMENTS;      /* an object, even if nothing is said */
    if (!set.count && !whole) return any_in(c, notation);
    if (set.count == 1 && json_is_object(set.node[0]) && schema_only_has(set.node[0], "") && !whole) return any_in(c, notation);
    for (uint32_t i = 0; i < set.count; i++)
        if (json_is_false(set.node[i])) return grammar_none(c->b);
    if (!rule_grow(c)) return 0;
    size_t i = (set_hash(&set) + notation) & (c->slots - 1);
    for (; c->slot[i]; i = (i + 1) & (c->slots - 1)) {
        const schema_rule *o = &c->rule[c->slot[i] - 1];
        if (o->notation == notation && o->set.count == set.count && !memcmp(o->set.node, set.node, set.count * sizeof *set.node)) return o->rule;
    }
    const json_t **kept = arena_alloc(&c->memory, set.count * sizeof *kept);       /* the caller's list may be short-lived */
    if (!kept) return schema_memory(c);
    memcpy(kept, set.node, set.count * sizeof *kept);
    c->rule[c->count] = (schema_rule){{kept, set.count}, notation, grammar_rule(c->b, NULL)};
    c->slot[i] = (uint32_t)++c->count;
    return c->rule[c->count - 1].rule;
}
