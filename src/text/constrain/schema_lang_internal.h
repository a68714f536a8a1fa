/* schema_lang_internal.h - nodes of expressions: what constrain/schema_lang.c (building, derivatives) and constrain/schema_lang_dfa.c (automata) share. */
#ifndef VLM_TEXT_SCHEMA_LANG_INTERNAL_H
#define VLM_TEXT_SCHEMA_LANG_INTERNAL_H

#include "text/constrain/schema_lang.h"

enum { LANG_FAIL = 1, LANG_EMPTY = 2, LANG_ANY = 3, LANG_LAST = 0x10FFFF };
/* a, b, c: CLASS, ALT, AND: item[a .. a + b); SEQ: first, rest; REPEAT: of, least, most; NOT: of */
typedef enum lang_kind { L_FAIL, L_EMPTY, L_CLASS, L_SEQ, L_ALT, L_AND, L_NOT, L_REPEAT } lang_kind;
typedef struct lang_node { uint32_t a, b, c, hash; uint8_t kind; bool nullable; } lang_node;

typedef struct lang_derived_slot { lang node; uint32_t code; lang result; } lang_derived_slot;
typedef struct lang_derived { lang_derived_slot *slot; size_t slots, count; } lang_derived;

struct lang_pool {
    lang_node *node;
    size_t count, capacity;
    uint32_t *slot;
    size_t slots;
    uint32_t *item;                /* members of lists; ranges of classes as pairs */
    size_t items, item_capacity;
    lang_derived derived;
    bool failed, over;             /* out of memory; a ceiling was hit */
};

lang lang_derive(lang_pool *p, lang a, uint32_t code, int depth);

#endif
