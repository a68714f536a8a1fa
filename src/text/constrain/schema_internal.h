/* schema_internal.h - what the files of the JSON schema front end share.
 *
 *   constrain/schema_doc.c      the document: paths, $id, $ref
 *   constrain/schema_view.c     a conjunction of schemas becomes alternatives ("views"): $ref, allOf are followed, one branch of each anyOf is chosen
 *   constrain/schema_merge.c    what the schemas of a view say together of each type
 *   constrain/schema_number.c, constrain/schema_string.c (schema_lang*.c)   numbers and strings as automata
 *   constrain/schema_check.c    does a given value satisfy the schemas? (for enum and const)
 *   constrain/schema_emit.c, constrain/schema_object.c   the grammar
 *
 * The unit of work is a set: a list of schema nodes that must all hold. Each set that occurs becomes one rule, so recursion through $ref ends,
 * and `allOf` of anything with anything needs no merged documents: a property's set is what all schemas say of it. */
#ifndef VLM_TEXT_SCHEMA_INTERNAL_H
#define VLM_TEXT_SCHEMA_INTERNAL_H

#include <jansson.h>
#include "base/err.h"
#include "text/schema.h"
#include "text/constrain/schema_lang.h"

/* ---- the document ---- */
typedef struct schema_entry {
    const json_t *node, *parent;
    const char *key;               /* in the parent, NULL: index */
    size_t index;
    const char *base;              /* URI that relative references start from */
} schema_entry;
typedef struct schema_name { const char *uri; const json_t *node; } schema_name;

typedef struct schema_doc {
    const json_t *root;
    schema_entry *entry;
    size_t count, capacity;
    uint32_t *slot;                /* node -> entry + 1 */
    size_t slots;
    schema_name *name;             /* $id, $anchor */
    size_t name_count, name_capacity;
    arena memory;
    bool draft4;                   /* draft 3 or 4: "id" */
    bool ref_alone;                /* up to draft 7: what stands beside $ref is ignored */
} schema_doc;

bool schema_doc_init(schema_doc *d, const json_t *root, vlm_error *error);
void schema_doc_free(schema_doc *d);
/* Enters a node made by the compiler at a place, for messages and references. */
bool schema_doc_add(schema_doc *d, const json_t *node, const json_t *parent, const char *key, size_t index, vlm_error *error);
void schema_doc_path(const schema_doc *d, const json_t *node, buf *out);         /* appends $.properties.x */
/* The schema that $ref means; NULL with an error. */
/* Does a $dynamicRef mean the same wherever it is reached from: is there at most one anchor of its name? */
bool schema_doc_static(const schema_doc *d, const char *ref);
const json_t *schema_doc_resolve(schema_doc *d, const json_t *from, const char *ref, vlm_error *error);

/* ---- numbers ---- */
enum { SCHEMA_DECIMAL_DIGITS = 700 };
typedef struct schema_decimal_t {
    bool negative;
    int whole, fraction;           /* digits before and after the point, without zeros at the ends; zero has none */
    char digit[SCHEMA_DECIMAL_DIGITS];
} schema_decimal_t;
bool schema_decimal(const json_t *number, schema_decimal_t *out);
int schema_decimal_compare(const schema_decimal_t *a, const schema_decimal_t *b);

typedef struct schema_range {
    bool has_min, has_max, min_exclusive, max_exclusive;
    schema_decimal_t min, max;
    uint64_t divisor;              /* multiples of divisor / 10^scale; 0: none */
    int scale;
} schema_range;
void schema_range_min(schema_range *r, const schema_decimal_t *v, bool exclusive);
void schema_range_max(schema_range *r, const schema_decimal_t *v, bool exclusive);
bool schema_range_multiple(schema_range *r, const schema_decimal_t *v);          /* false: not in reach */
bool schema_range_has(const schema_range *r, const schema_decimal_t *v);
bool schema_number_dfa(const schema_range *r, bool integer, dfa *out, vlm_error *error);

/* ---- compiling ---- */
enum {
    TYPE_NULL = 1, TYPE_BOOLEAN = 2, TYPE_INTEGER = 4, TYPE_FRACTION = 8, TYPE_STRING = 16, TYPE_ARRAY = 32, TYPE_OBJECT = 64,
    TYPE_NUMBER = TYPE_INTEGER | TYPE_FRACTION, TYPE_ANY = 127
};

/* Schemas that must all hold; the order decides the order of properties. */
typedef struct schema_set { const json_t **node; uint32_t count; } schema_set;

typedef struct schema_rule {
    schema_set set;
    schema_notation notation;
    grammar_expr rule;
} schema_rule;

typedef struct schema_c {
    schema_options options;
    schema_doc doc;
    grammar_builder *b;
    lang_pool *lang;
    vlm_error *error;
    bool failed;
    arena memory;
    schema_rule *rule;             /* by number, in the order of being met: the tail is still to be done */
    size_t count, capacity, done;
    uint32_t *slot;                /* set -> rule + 1 */
    size_t slots;
    json_t *made;                  /* schemas made up on the way (array) */
    size_t views;                  /* alternatives made so far */
    const json_t *trusted;         /* the values being tried are this schema's own */
    struct { const json_t *node; lang set; } last_strings;     /* pattern and format of the schema that was tried last */
    size_t checks;                 /* values tried so far */
    const json_t **tested;         /* lists of oneOf that were shown to be exclusive */
    size_t tested_count;
    int testing;                   /* within a test for emptiness: oneOf is anyOf */
    schema_notation notation;      /* of the rule that is being made */
    struct { grammar_expr space, any, string, integer, number; } shared[SCHEMA_NOTATIONS];     /* rules, 0: not made yet */
} schema_c;

/* Sets the error ("$.path.keyword: ...") unless there is one. Returns false. */
bool schema_refuse(schema_c *c, vlm_status status, const json_t *node, const char *keyword, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
bool schema_memory(schema_c *c);

/* ---- views ---- */
typedef struct schema_atom {
    const json_t *node;            /* an object schema */
    int32_t parent;                /* the atom that brought it (in place), -1: the set itself */
    uint32_t place;                /* of the keyword in the parent that did, and of the member below it */
    bool negated;                  /* stands under "not" */
} schema_atom;

typedef struct schema_view {
    schema_atom *atom;
    uint32_t count, capacity;
    unsigned types;                /* TYPE_*: what is left */
} schema_view;
typedef bool schema_view_fn(schema_c *c, const schema_view *v, void *user);
/* Calls back for every alternative of the set that is not obviously empty. False: an error is set. */
bool schema_views(schema_c *c, const schema_set *set, schema_view_fn *call, void *user);
/* The set's rule; made later, when its turn comes. 0: failed. */
grammar_expr schema_set_rule(schema_c *c, const schema_set *set, schema_notation notation);
bool schema_set_add(schema_c *c, schema_set *set, uint32_t *capacity, const json_t *node);
/* May the branches of this oneOf be taken as those of anyOf: no value satisfies two? False: refused. */
bool schema_exclusive(schema_c *c, const json_t *node, const json_t *list);
unsigned schema_type_bits(schema_c *c, const json_t *node);          /* of the "type" of one schema */
/* Does the schema object hold nothing but annotations, except `but`? */
bool schema_only_has(const json_t *node, const char *but);

/* ---- what a view says ---- */
typedef struct schema_merged {
    unsigned types;
    const json_t *values;          /* an atom with enum or const: the values to choose from; NULL: none */
    schema_range range;
    uint64_t min_length, max_length, min_items, max_items, min_properties, max_properties;   /* UINT64_MAX: no upper bound */
    bool plain_string;             /* no pattern, format, exclusion */
} schema_merged;
bool schema_merge(schema_c *c, const schema_view *v, schema_merged *m);

/* ---- strings ---- */
lang schema_string_lang(schema_c *c, const schema_view *v, const schema_merged *m);    /* LANG_NONE: failed */
/* The strings that a set of schemas admits (propertyNames). */
lang schema_set_lang(schema_c *c, const schema_set *set);
lang schema_pattern(schema_c *c, const json_t *node, const char *keyword, const char *pattern, size_t size);
lang schema_format(schema_c *c, const json_t *node, const char *name);
grammar_expr schema_lang_expr(schema_c *c, lang a, lang_form form, const json_t *node);
/* A string of the set as it is written, with quotes if it has some. */
grammar_expr schema_lang_string(schema_c *c, lang a, const json_t *node);

/* ---- values ---- */
/* 1: the value satisfies the schema, 0: not, -1: failed. */
int schema_value_ok(schema_c *c, const json_t *node, const json_t *value, int depth);
bool schema_equal(const json_t *a, const json_t *b);                         /* 1 and 1.0 are equal */

/* ---- grammar; how things are written depends on c->notation ---- */
grammar_expr schema_space(schema_c *c);
grammar_expr schema_word(schema_c *c, const char *json);                     /* null, true, false */
grammar_expr schema_number(schema_c *c, bool integer);                       /* any number */
grammar_expr schema_literal(schema_c *c, const char *text, size_t size);     /* a string with its quotes */
grammar_expr schema_key(schema_c *c, const char *text, size_t size);         /* as the key of a member */
grammar_expr schema_key_lang(schema_c *c, lang a, const json_t *node);
grammar_expr schema_colon(schema_c *c);                                      /* what stands between key and value, between members */
grammar_expr schema_comma(schema_c *c);
grammar_expr schema_constant(schema_c *c, const json_t *value);
grammar_expr schema_constants(schema_c *c, const json_t *const *value, size_t count);   /* one of them */
grammar_expr schema_object(schema_c *c, const schema_view *v, const schema_merged *m);
grammar_expr schema_array(schema_c *c, const schema_view *v, const schema_merged *m);
grammar_expr schema_any_value(schema_c *c);
grammar_expr schema_any_string(schema_c *c);
grammar_expr schema_bounded_string(schema_c *c, uint32_t least, int64_t most);     /* most -1: no end */
grammar_expr schema_dfa_expr(schema_c *c, const dfa *d);
bool schema_ok(schema_c *c);       /* no error so far, in the builder neither */

#endif
