/* schema_object.c - objects.
 *
 * The declared properties come in their order, each required or not; then those that only patternProperties and additionalProperties speak of:
 *
 *     at(i, n) = property i, at(i + 1, n + 1)  |  at(i + 1, n) if it may be left out        n: how many came before, up to where it matters
 *
 * Keys that are not declared fall into classes by the patterns that they match; each class has its own set of schemas. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "text/constrain/schema_internal.h"

enum { OBJECT_MAX_PLACES = 200000, OBJECT_MAX_PATTERNS = 64, OBJECT_MAX_OVERLAPPING = 5 };

typedef struct obj_property { const char *name; grammar_expr pair; bool required, never; } obj_property;
typedef struct obj_pattern { const char *text; lang match; } obj_pattern;

typedef struct obj {
    schema_c *c;
    const schema_view *v;
    const schema_merged *m;
    uint32_t *order;               /* atoms as they stand in the document */
    obj_property *property;
    size_t count;
    obj_pattern pattern[OBJECT_MAX_PATTERNS];
    size_t patterns;
    lang names;                    /* what propertyNames admits */
    bool names_given;
    grammar_expr colon, comma, extra;
    uint64_t least, most;          /* properties, as far as it is not settled by the required ones */
} obj;

static const json_t *where(const obj *o) { return o->v->count ? o->v->atom[0].node : o->c->doc.root; }

/* ---- order ---- */
static uint32_t keyword_place(const json_t *node, const char *keyword)
{
    const char *k;
    json_t *v;
    uint32_t place = 0;
    json_object_foreach((json_t *)node, k, v) {
        place += 4096;
        if (!strcmp(k, keyword)) return place;
    }
    return UINT32_MAX;
}

static size_t atom_path(const schema_view *v, uint32_t atom, uint32_t *path)
{
    uint32_t back[256];
    size_t n = 0;
    for (int32_t i = (int32_t)atom; i >= 0 && n < 254; i = v->atom[i].parent) back[n++] = v->atom[i].place;
    for (size_t i = 0; i < n; i++) path[i] = back[n - 1 - i];
    path[n++] = keyword_place(v->atom[atom].node, "properties");
    return n;
}

static bool comes_before(const schema_view *v, uint32_t a, uint32_t b)
{
    uint32_t x[256], y[256];
    size_t n = atom_path(v, a, x), m = atom_path(v, b, y);
    for (size_t i = 0; i < n && i < m; i++)
        if (x[i] != y[i]) return x[i] < y[i];
    return n < m;
}

static bool order_atoms(obj *o)
{
    o->order = MEM_ARRAY(o->v->count + 1, uint32_t);
    if (!o->order) return schema_memory(o->c);
    for (uint32_t i = 0; i < o->v->count; i++) {       /* few atoms: insertion */
        uint32_t at = i;
        for (; at > 0 && comes_before(o->v, i, o->order[at - 1]); at--) o->order[at] = o->order[at - 1];
        o->order[at] = i;
    }
    return true;
}

/* ---- what the schemas say of one key ---- */
static bool is_below(const schema_view *v, uint32_t atom, uint32_t top)
{
    for (int32_t i = (int32_t)atom; i >= 0; i = v->atom[i].parent)
        if ((uint32_t)i == top) return true;
    return false;
}

/* name: a declared key; NULL: one that matches the patterns in `matched` and is not declared. */
static bool atom_knows(const obj *o, const json_t *node, const char *name, uint64_t matched)
{
    if (name && json_object_get(json_object_get(node, "properties"), name)) return true;
    const char *k;
    json_t *v;
    json_object_foreach(json_object_get(node, "patternProperties"), k, v)
        for (size_t i = 0; i < o->patterns; i++)
            if ((matched >> i & 1) && !strcmp(o->pattern[i].text, k)) return true;
    return false;
}

static bool key_set(obj *o, const char *name, uint64_t matched, schema_set *set)
{
    uint32_t capacity = 0;
    *set = (schema_set){0};
    for (uint32_t i = 0; i < o->v->count; i++) {
        uint32_t atom = o->order[i];
        const json_t *node = o->v->atom[atom].node;
        if (o->v->atom[atom].negated) continue;
        const json_t *own = name ? json_object_get(json_object_get(node, "properties"), name) : NULL;
        if (own && !schema_set_add(o->c, set, &capacity, own)) return false;
        const char *k;
        json_t *v;
        json_object_foreach(json_object_get(node, "patternProperties"), k, v)
            for (size_t p = 0; p < o->patterns; p++)
                if ((matched >> p & 1) && !strcmp(o->pattern[p].text, k) && !schema_set_add(o->c, set, &capacity, v)) return false;
        bool known = atom_knows(o, node, name, matched);
        const json_t *more = json_object_get(node, "additionalProperties"), *rest = json_object_get(node, "unevaluatedProperties");
        if (!known && more && !schema_set_add(o->c, set, &capacity, more)) return false;
        if (known || more || !rest) continue;
        for (uint32_t b = 0; b < o->v->count && !known; b++)
            known = b != atom && is_below(o->v, b, atom) &&
                    (atom_knows(o, o->v->atom[b].node, name, matched) || json_object_get(o->v->atom[b].node, "additionalProperties") ||
                     json_object_get(o->v->atom[b].node, "unevaluatedProperties"));
        if (!known && !schema_set_add(o->c, set, &capacity, rest)) return false;
    }
    return true;
}

static bool set_is_false(const schema_set *s)
{
    for (uint32_t i = 0; i < s->count; i++)
        if (json_is_false(s->node[i])) return true;
    return false;
}

/* ---- collecting ---- */
static bool collect_patterns(obj *o)
{
    schema_c *c = o->c;
    o->names = lang_any(c->lang);
    for (uint32_t i = 0; i < o->v->count; i++) {
        const json_t *node = o->v->atom[i].node, *all = json_object_get(node, "patternProperties"), *names = json_object_get(node, "propertyNames");
        if (o->v->atom[i].negated) continue;
        if (all && !json_is_object(all)) return schema_refuse(c, VLM_INVALID, node, "patternProperties", "an object was expected");
        const char *k;
        json_t *v;
        json_object_foreach((json_t *)all, k, v) {
            size_t at = 0;
            while (at < o->patterns && strcmp(o->pattern[at].text, k)) at++;
            if (at < o->patterns) continue;
            if (at == OBJECT_MAX_PATTERNS) return schema_refuse(c, VLM_LIMIT, node, "patternProperties", "more than %d patterns", OBJECT_MAX_PATTERNS);
            lang match = schema_pattern(c, node, "patternProperties", k, strlen(k));
            if (!match) return false;
            o->pattern[o->patterns++] = (obj_pattern){k, match};
        }
        if (names && !json_is_true(names)) {
            lang one = schema_set_lang(c, &(schema_set){&names, 1});
            if (!one) return c->failed ? false : schema_refuse(c, VLM_LIMIT, node, "propertyNames", "the names are too complex");
            o->names = lang_and(c->lang, o->names, one);
            o->names_given = true;
        }
    }
    return true;
}

static int by_name(const void *a, const void *b)
{
    const obj_property *x = a, *y = b;
    int c = strcasecmp(x->name, y->name);
    return c ? c : strcmp(x->name, y->name);
}

/* Declared names in order, then those that are only required. */
static bool collect_names(obj *o)
{
    schema_c *c = o->c;
    size_t total = 0;
    json_t *seen = json_object();
    bool ok = seen != NULL;
    for (uint32_t i = 0; i < o->v->count; i++)
        total += json_object_size(json_object_get(o->v->atom[i].node, "properties")) + json_array_size(json_object_get(o->v->atom[i].node, "required"));
    o->property = MEM_ARRAY(total + 1, obj_property);
    if (!ok || !o->property) {
        json_decref(seen);
        return schema_memory(c);
    }
    for (uint32_t i = 0; i < o->v->count && ok; i++) {
        if (o->v->atom[o->order[i]].negated) continue;
        const json_t *node = o->v->atom[o->order[i]].node, *all = json_object_get(node, "properties");
        if (all && !json_is_object(all)) ok = schema_refuse(c, VLM_INVALID, node, "properties", "an object was expected");
        const char *k;
        json_t *v;
        json_object_foreach((json_t *)all, k, v) {
            if (json_object_get(seen, k)) continue;
            json_object_set_new(seen, k, json_integer((json_int_t)o->count));
            o->property[o->count++] = (obj_property){.name = k};
        }
    }
    for (uint32_t i = 0; i < o->v->count && ok; i++) {
        if (o->v->atom[o->order[i]].negated) continue;
        const json_t *node = o->v->atom[o->order[i]].node, *list = json_object_get(node, "required");
        if (json_is_boolean(list)) continue;           /* draft 3 */
        if (list && !json_is_array(list)) ok = schema_refuse(c, VLM_INVALID, node, "required", "a list of names was expected");
        for (size_t k = 0; k < json_array_size(list) && ok; k++) {
            const char *name = json_string_value(json_array_get(list, k));
            if (!name) {
                ok = schema_refuse(c, VLM_INVALID, node, "required", "a list of names was expected");
                break;
            }
            const json_t *at = json_object_get(seen, name);
            if (at) {
                o->property[json_integer_value(at)].required = true;
                continue;
            }
            json_object_set_new(seen, name, json_integer((json_int_t)o->count));
            o->property[o->count++] = (obj_property){.name = name, .required = true};
        }
    }
    json_decref(seen);
    if (c->options.sorted) qsort(o->property, o->count, sizeof *o->property, by_name);
    return ok;
}

/* ---- building ---- */
/* Of which types a tag's text may be read, and what is read as what. */
static grammar_expr tag_value(obj *o, const schema_set *set, const char *key, unsigned types, bool raw, bool guarded)
{
    static const struct { const char *name; unsigned bit; } names[] = {{"null", TYPE_NULL}, {"boolean", TYPE_BOOLEAN}, {"number", TYPE_NUMBER}, {"string", TYPE_STRING},
        {"array", TYPE_ARRAY}, {"object", TYPE_OBJECT}};
    schema_c *c = o->c;
    json_t *list = json_array(), *schema = json_object();
    for (size_t i = 0; list && i < 6; i++)
        if (types & names[i].bit) json_array_append_new(list, json_string(names[i].name));
    if (schema) json_object_set_new(schema, "type", list);
    if (schema && guarded) json_object_set_new(schema, "pattern", json_string("^(?!(true|false|null|True|False|None|nan|inf)$)[A-Za-z\\u0080-\\u{10ffff}]"));
    if (!list || !schema || json_array_append_new(c->made, schema)) return schema_memory(c);
    if (!schema_doc_add(&c->doc, schema, where(o), "properties", 0, c->error)) return !(c->failed = true);
    schema_set both = {0};
    uint32_t capacity = 0;
    for (uint32_t i = 0; i < set->count; i++)
        if (!schema_set_add(c, &both, &capacity, set->node[i])) return 0;
    if (!schema_set_add(c, &both, &capacity, schema)) return 0;
    (void)key;
    return schema_set_rule(c, &both, raw ? SCHEMA_RAW : SCHEMA_JSON);
}

/* <key>value</key>: one alternative for each way to read the text. */
static grammar_expr tag_pair(obj *o, const char *name, grammar_expr key, const schema_set *set)
{
    static const struct { const char *name; unsigned bits; } groups[] = {{"string", TYPE_STRING}, {"number", TYPE_NUMBER}, {"boolean", TYPE_BOOLEAN}, {"null", TYPE_NULL},
        {"array", TYPE_ARRAY}, {"object", TYPE_OBJECT}};
    const schema_tags *t = o->c->options.tags;
    grammar_builder *b = o->c->b;
    unsigned reads = t->reads(t->user, name);
    grammar_expr begin = t->text(t->user, SCHEMA_TAG_BEGIN, name, NULL), end = t->text(t->user, SCHEMA_TAG_END, name, NULL), all = grammar_none(b);
    for (size_t i = 0; i < 6; i++) {
        bool string = groups[i].bits == TYPE_STRING, tagged = reads & SCHEMA_READ_TAGGED;
        bool raw = string && (tagged || (reads & SCHEMA_READ_STRING));
        if (!tagged && !string && !(reads & SCHEMA_READ_OTHER)) continue;
        grammar_expr value = tag_value(o, set, name, groups[i].bits, raw, raw && !tagged && (reads & SCHEMA_READ_OTHER));
        grammar_expr middle = t->text(t->user, SCHEMA_TAG_MIDDLE, name, groups[i].name);
        if (!value || !middle) return 0;
        all = grammar_alt2(b, all, grammar_seq2(b, middle, value));
    }
    return grammar_seq(b, (grammar_expr[]){begin, key, all, end}, 4);
}

static grammar_expr pair(obj *o, const char *name, grammar_expr key, const schema_set *set)
{
    schema_c *c = o->c;
    if (!key) return 0;
    if (c->notation == SCHEMA_TAGS) return tag_pair(o, name, key, set);
    grammar_expr value = schema_set_rule(c, set, c->notation == SCHEMA_ARGUMENTS ? SCHEMA_PYTHON : c->notation);
    return value ? grammar_seq(c->b, (grammar_expr[]){key, o->colon, value, schema_space(c)}, 4) : 0;
}

static bool build_declared(obj *o)
{
    schema_c *c = o->c;
    for (size_t i = 0; i < o->count; i++) {
        obj_property *p = &o->property[i];
        uint64_t matched = 0;
        size_t size = strlen(p->name);
        for (size_t k = 0; k < o->patterns; k++)
            if (lang_matches(c->lang, o->pattern[k].match, p->name, size)) matched |= (uint64_t)1 << k;
        schema_set set;
        if (!key_set(o, p->name, matched, &set)) return false;
        p->never = set_is_false(&set) || (o->names_given && !lang_matches(c->lang, o->names, p->name, size));
        if (p->never) continue;
        p->pair = pair(o, p->name, schema_key(c, p->name, size), &set);
        if (!p->pair) return schema_ok(c) && schema_memory(c);
    }
    return !lang_failed(c->lang, NULL) || schema_refuse(c, VLM_LIMIT, where(o), NULL, "the patterns are too complex");
}

static bool add_class(obj *o, lang keys, uint64_t matched)
{
    schema_c *c = o->c;
    schema_set set;
    if (!key_set(o, NULL, matched, &set)) return false;
    if (set_is_false(&set)) return true;
    int none = lang_is_fail(c->lang, keys);
    if (none == 1) return true;
    grammar_expr member = pair(o, NULL, schema_key_lang(c, keys, where(o)), &set);
    if (!member) return schema_ok(c) && schema_memory(c);
    o->extra = grammar_alt2(c->b, o->extra, member);
    return true;
}

/* Keys that are not declared, by the patterns that they match. */
static bool build_extra(obj *o)
{
    schema_c *c = o->c;
    o->extra = grammar_none(c->b);
    lang rest = o->names;
    if (o->count) {
        const char **text = MEM_ARRAY(o->count, const char *);
        size_t *size = MEM_ARRAY(o->count, size_t);
        bool ok = text && size;
        for (size_t i = 0; i < o->count && ok; i++) text[i] = o->property[i].name, size[i] = strlen(text[i]);
        if (ok) rest = lang_and(c->lang, rest, lang_not(c->lang, lang_texts(c->lang, text, size, o->count)));
        mem_free(text);
        mem_free(size);
        if (!ok) return schema_memory(c);
    }
    if (c->options.closed) {                           /* declared ones only, unless something is said of others */
        bool declared = false, said = o->patterns > 0;
        for (uint32_t i = 0; i < o->v->count; i++) {
            const json_t *node = o->v->atom[i].node;
            declared |= json_object_get(node, "properties") != NULL;
            said |= json_object_get(node, "additionalProperties") || json_object_get(node, "unevaluatedProperties");
        }
        if (declared && !said) return true;
    }
    uint64_t subsets = o->patterns <= OBJECT_MAX_OVERLAPPING ? (uint64_t)1 << o->patterns : o->patterns + 1;
    if (o->patterns > OBJECT_MAX_OVERLAPPING)
        for (size_t i = 0; i < o->patterns; i++)
            for (size_t k = 0; k < i; k++)
                if (lang_is_fail(c->lang, lang_and(c->lang, o->pattern[i].match, o->pattern[k].match)) != 1)
                    return schema_refuse(c, VLM_UNSUPPORTED, where(o), "patternProperties", "more than %d patterns have to exclude each other", OBJECT_MAX_OVERLAPPING);
    for (uint64_t s = 0; s < subsets; s++) {
        uint64_t matched = o->patterns <= OBJECT_MAX_OVERLAPPING ? s : s ? (uint64_t)1 << (s - 1) : 0;
        lang keys = rest;
        for (size_t i = 0; i < o->patterns; i++)
            keys = lang_and(c->lang, keys, matched >> i & 1 ? o->pattern[i].match : lang_not(c->lang, o->pattern[i].match));
        if (!keys) return schema_refuse(c, VLM_LIMIT, where(o), NULL, "the names of properties are too complex");
        if (!add_class(o, keys, matched)) return false;
    }
    return true;
}

static grammar_expr tail(const obj *o, uint64_t before)
{
    grammar_builder *b = o->c->b;
    uint64_t least = o->least > before ? o->least - before : 0;
    int64_t most = o->most == UINT64_MAX ? -1 : o->most > before ? (int64_t)(o->most - before) : 0;
    if (o->extra == grammar_none(b) || most == 0) return least ? grammar_none(b) : grammar_empty(b);
    if (most > 0 && (uint64_t)most < least) return grammar_none(b);
    grammar_expr next = grammar_seq2(b, o->comma, o->extra);
    if (before) return grammar_repeat(b, next, (uint32_t)least, most);
    grammar_expr some = grammar_seq2(b, o->extra, grammar_repeat(b, next, least ? (uint32_t)least - 1 : 0, most < 0 ? -1 : most - 1));
    return least ? some : grammar_optional(b, some);
}

/* at(i, n) for all i from the end to the start. */
static grammar_expr chain(obj *o)
{
    schema_c *c = o->c;
    grammar_builder *b = c->b;
    const schema_merged *m = o->m;
    size_t must = 0;
    for (size_t i = 0; i < o->count; i++) must += o->property[i].required;
    bool limited = m->max_properties != UINT64_MAX && (o->extra != grammar_none(b) || m->max_properties < o->count);
    bool floor = m->min_properties > must;
    uint64_t cap = 1;
    if (limited && m->max_properties > cap) cap = m->max_properties;
    if (floor && m->min_properties > cap) cap = m->min_properties;
    o->least = floor ? m->min_properties : 0;
    o->most = limited ? m->max_properties : UINT64_MAX;
    if (m->max_properties < must || o->least >= UINT32_MAX) return grammar_none(b);
    if (cap > o->count) cap = o->count ? o->count : 1;         /* at[cap]: cap or more */
    if ((cap + 1) * (o->count + 1) > OBJECT_MAX_PLACES)
        return schema_refuse(c, VLM_LIMIT, where(o), NULL, "counting so many properties takes more than %d places", OBJECT_MAX_PLACES);
    grammar_expr *at = MEM_ARRAY(cap + 2, grammar_expr), made = 0;
    if (!at) return schema_memory(c);
    for (uint64_t n = 0; n <= cap; n++) at[n] = tail(o, n);
    for (size_t i = o->count; i-- > 0;) {
        const obj_property *p = &o->property[i];
        for (uint64_t n = 0; n <= cap && n <= i; n++) {    /* ascending: at[n + 1] is still of i + 1 */
            bool full = limited && n >= m->max_properties;
            grammar_expr with = grammar_none(b);
            if (!p->never && !full) {
                grammar_expr rest = at[n + 1 < cap ? n + 1 : cap];
                with = grammar_seq(b, (grammar_expr[]){n ? o->comma : grammar_empty(b), p->pair, rest}, 3);
            }
            if (!p->required) with = grammar_outline(b, grammar_alt2(b, with, at[n]));
            at[n] = with;
        }
    }
    made = at[0];
    mem_free(at);
    return made;
}

grammar_expr schema_object(schema_c *c, const schema_view *v, const schema_merged *m)
{
    grammar_builder *b = c->b;
    obj *o = MEM_NEW(obj);
    if (!o) return schema_memory(c);
    o->c = c;
    o->v = v;
    o->m = m;
    grammar_expr space = schema_space(c), made = 0;
    bool bare = c->notation == SCHEMA_TAGS || c->notation == SCHEMA_ARGUMENTS;
    o->colon = schema_colon(c);
    o->comma = schema_comma(c);
    if (order_atoms(o) && collect_patterns(o) && collect_names(o) && build_declared(o) && build_extra(o)) {
        grammar_expr members = chain(o);
        if (members) made = bare ? members : grammar_seq(b, (grammar_expr[]){grammar_text(b, "{"), space, members, grammar_text(b, "}")}, 4);
    }
    mem_free(o->order);
    mem_free(o->property);
    mem_free(o);
    return made;
}

/* ---- arrays ---- */
static bool item_set(schema_c *c, const schema_view *v, size_t index, bool *rest, schema_set *set)
{
    uint32_t capacity = 0;
    *set = (schema_set){0};
    *rest = true;                                      /* no prefix reaches here */
    for (uint32_t i = 0; i < v->count; i++) {
        const json_t *node = v->atom[i].node, *items = json_object_get(node, "items"), *prefix = json_object_get(node, "prefixItems"), *one;
        if (v->atom[i].negated) continue;
        if (prefix && !json_is_array(prefix)) return schema_refuse(c, VLM_INVALID, node, "prefixItems", "a list of schemas was expected");
        if (json_is_array(items)) prefix = items, items = json_object_get(node, "additionalItems");
        if (index < json_array_size(prefix)) {
            *rest = false;
            one = json_array_get(prefix, index);
        } else {
            one = items;
        }
        if (one && !schema_set_add(c, set, &capacity, one)) return false;
        const json_t *other = json_object_get(node, "unevaluatedItems");
        bool known = one != NULL;
        for (uint32_t k = 0; k < v->count && other && !known; k++) {
            const json_t *below = v->atom[k].node, *list = json_object_get(below, "prefixItems");
            known = k != i && is_below(v, k, i) && (json_object_get(below, "items") || json_object_get(below, "unevaluatedItems") || index < json_array_size(list));
        }
        if (other && !known && !schema_set_add(c, set, &capacity, other)) return false;
    }
    return true;
}

grammar_expr schema_array(schema_c *c, const schema_view *v, const schema_merged *m)
{
    grammar_builder *b = c->b;
    grammar_expr space = schema_space(c), comma = schema_comma(c);
    size_t fixed = 0;
    for (uint32_t i = 0; i < v->count; i++) {
        const json_t *items = json_object_get(v->atom[i].node, "items"), *prefix = json_object_get(v->atom[i].node, "prefixItems");
        size_t n = json_array_size(json_is_array(items) ? items : prefix);
        if (n > fixed) fixed = n;
    }
    if (m->min_items > m->max_items) return grammar_none(b);
    if (m->max_items < fixed) fixed = (size_t)m->max_items;
    schema_set set;
    bool rest;
    grammar_expr *item = MEM_ARRAY(fixed + 1, grammar_expr), made = 0;
    if (!item) return schema_memory(c);
    bool ok = true;
    for (size_t i = 0; i <= fixed && ok; i++) {
        ok = item_set(c, v, i, &rest, &set);
        if (ok) item[i] = grammar_seq2(b, set_is_false(&set) ? grammar_none(b) : schema_set_rule(c, &set, c->notation), space);
        ok = ok && item[i];
    }
    if (ok) {
        uint64_t least = m->min_items > fixed ? m->min_items - fixed : 0;
        int64_t most = m->max_items == UINT64_MAX || m->max_items - fixed > INT32_MAX ? -1 : (int64_t)(m->max_items - fixed);
        if (least > UINT32_MAX - 1) {
            made = grammar_none(b);                    /* no text is that long */
        } else if (fixed) {
            made = grammar_repeat(b, grammar_seq2(b, comma, item[fixed]), (uint32_t)least, most);
        } else if (most == 0) {
            made = grammar_empty(b);
        } else {
            made = grammar_seq2(b, item[0], grammar_repeat(b, grammar_seq2(b, comma, item[0]), least ? (uint32_t)least - 1 : 0, most < 0 ? -1 : most - 1));
            if (!least) made = grammar_optional(b, made);
        }
        for (size_t i = fixed; i-- > 0 && made;) {
            made = grammar_seq(b, (grammar_expr[]){i ? comma : grammar_empty(b), item[i], made}, 3);
            if (i >= m->min_items) made = grammar_optional(b, made);
            made = grammar_outline(b, made);
        }
        if (made) made = grammar_seq(b, (grammar_expr[]){grammar_text(b, "["), space, made, grammar_text(b, "]")}, 4);
    }
    mem_free(item);
    return made;
}
