/* internal.h - what the grammar files share.
 *
 *   builder --expr.c, class.c, regex.c--> expressions --compile.c--> rules without empty words and left recursion
 *   matching: derive.c (derivatives), row.c (states, stacks, rows), matcher.c; masks: vocab.c, mask.c
 *
 * A pool holds hash-consed nodes; a node's children have smaller numbers, so that passes over a pool need no recursion. */
#ifndef VLM_TEXT_GRAMMAR_INTERNAL_H
#define VLM_TEXT_GRAMMAR_INTERNAL_H

#include <pthread.h>
#include "base/err.h"
#include "text/grammar.h"

/* ---- nodes ---- */
typedef enum gkind {
    G_FAILED, G_NONE, G_EMPTY,
    G_BYTES,                       /* a: offset in pool->bytes, b: length 1..GRAMMAR_CHUNK */
    G_SET,                         /* one byte; a: index in pool->set */
    G_SEQ,                         /* a, then b; a is no G_SEQ */
    G_ALT, G_AND,                  /* list[a .. a+b), sorted, two at least */
    G_NOT,                         /* of byte strings */
    G_REPEAT,                      /* a, min, max (GRAMMAR_MANY: no end) */
    G_DFA,                         /* a: number of the automaton, b: state */
    G_RULE,                        /* a: number of the rule */
    G_TOKEN,                       /* a: id */
    G_NAME                         /* a, b: text of a token; before compiling only */
} gkind;
enum { GRAMMAR_CHUNK = 64, GRAMMAR_DEPTH = 1000 };
#define GRAMMAR_MANY UINT32_MAX

enum {
    GF_NULLABLE = 1,               /* matches the empty text; of rules only after compiling */
    GF_IRREGULAR = 2,              /* contains a rule or a token */
    GF_TEXT = 4,                   /* every word is valid UTF-8 (not set: not known) */
    GF_LIVE = 8,                   /* of AND and NOT: known to match something */
    GF_DEAD = 16                   /* of AND and NOT: known to match nothing */
};

typedef struct gnode { uint8_t kind, flags; uint16_t depth; uint32_t a, b, min, max, hash; } gnode;
typedef struct gset { uint64_t bits[4]; } gset;

static inline bool gset_has(const gset *s, unsigned byte) { return s->bits[byte >> 6] >> (byte & 63) & 1; }
static inline void gset_add(gset *s, unsigned byte) { s->bits[byte >> 6] |= 1ull << (byte & 63); }
static inline int gset_count(const gset *s)
{
    return __builtin_popcountll(s->bits[0]) + __builtin_popcountll(s->bits[1]) + __builtin_popcountll(s->bits[2]) + __builtin_popcountll(s->bits[3]);
}

/* Nodes that every pool has. */
enum { GE_FAILED, GE_NONE, GE_EMPTY, GE_BYTE, GE_ALL };           /* any byte; any bytes */

/* An automaton over bytes, shared by the pools that mention it. */
typedef struct gdfa { _Atomic int references; uint32_t states; uint8_t *accept; uint32_t *first; grammar_dfa_edge *edge; } gdfa;

typedef struct gpool {
    gnode *node;
    uint32_t *table;               /* open addressing, 0: free */
    uint32_t *list;
    uint8_t *bytes;
    gset *set;
    size_t count, capacity, table_size, list_count, list_capacity, bytes_count, bytes_capacity, set_count, set_capacity;
    size_t limit;                  /* nodes */
    uint64_t work;                 /* steps done; a step is some 20 to 100 ns */
    uint32_t character, text;      /* any character; any UTF-8 text */
    gdfa **dfa;
    size_t dfa_count, dfa_capacity;
    uint32_t *stack;               /* lists under construction */
    size_t stack_count, stack_capacity;
    bool failed;                   /* memory or limit: everything gives GE_FAILED */
    const char *reason;            /* NULL: memory */
} gpool;

bool gpool_init(gpool *p, size_t limit);
bool gpool_copy(gpool *to, const gpool *from);
void gpool_free(gpool *p);
size_t gpool_bytes(const gpool *p);
uint32_t gpool_fail(gpool *p, const char *reason);
/* Steps are counted in what a caller can make long; more than this in compiling or in one call of a matcher fails. */
enum { GRAMMAR_WORK = 6 * 1000 * 1000 };
static inline bool gpool_work(gpool *p, size_t steps)
{
    p->work += steps;
    return p->work <= GRAMMAR_WORK || gpool_fail(p, "the grammar takes too long") != 0;
}
bool gpool_push(gpool *p, uint32_t x);              /* onto the stack of lists */
static inline uint8_t gflags(const gpool *p, uint32_t x) { return p->node[x].flags; }
static inline bool gnullable(const gpool *p, uint32_t x) { return p->node[x].flags & GF_NULLABLE; }
static inline gkind gkind_of(const gpool *p, uint32_t x) { return (gkind)p->node[x].kind; }

uint32_t gx_bytes(gpool *p, const void *data, size_t size);      /* any size: chunks */
uint32_t gx_set(gpool *p, const gset *s);
uint32_t gx_seq(gpool *p, uint32_t a, uint32_t b);
uint32_t gx_alt2(gpool *p, uint32_t a, uint32_t b);
/* Takes what was pushed since the stack had `mark` entries. */
uint32_t gx_alt(gpool *p, size_t mark);
uint32_t gx_and2(gpool *p, uint32_t a, uint32_t b);
uint32_t gx_and(gpool *p, size_t mark);
uint32_t gx_not(gpool *p, uint32_t x);
uint32_t gx_repeat(gpool *p, uint32_t x, uint32_t min, uint32_t max);
uint32_t gx_rule(gpool *p, uint32_t rule);
uint32_t gx_token(gpool *p, uint32_t id);
uint32_t gx_dfa(gpool *p, uint32_t dfa, uint32_t state);
bool gpool_share_dfas(gpool *to, const gpool *from);             /* the same numbers */
uint32_t gx_name(gpool *p, const void *text, size_t size);
uint32_t gx_class(gpool *p, const grammar_range *range, size_t count, bool negated);
/* The literal without its first byte. */
uint32_t gx_rest(gpool *p, uint32_t bytes);

/* ---- derivatives (grammar/derive.c) ---- */
/* What may follow `byte`; *same: narrowed to the bytes that have the same answer. */
uint32_t gx_derive(gpool *p, uint32_t x, uint8_t byte, gset *same);
/* Does x, which is regular, match nothing at all? */
bool gx_empty(gpool *p, uint32_t x);
/* What x may begin with besides bytes: kind, number, what follows. */
typedef struct gcall { uint32_t kind, what, then; } gcall;
typedef struct gcalls { gcall *item; size_t count, capacity; bool failed; } gcalls;
void gx_calls(gpool *p, uint32_t x, gcalls *out);

/* ---- builder ---- */
typedef struct grule { char *name; uint32_t body, expr; } grule;  /* body 0: not defined; expr: its reference */
typedef struct gnamed { uint32_t mask, expr; } gnamed;
struct grammar_builder {
    gpool pool;
    grule *rule;
    size_t rule_count, rule_capacity;
    uint32_t *names;               /* hash of names -> rule + 1 */
    size_t names_size;
    gnamed *category;              /* classes of \p{..} made so far */
    size_t category_count, category_capacity;
    vlm_error error;
    bool failed;
    grammar_limits limits;
};
/* Code points whose general category is in the mask (bit per utf8proc category), as a list that the caller frees. */
bool grammar_category_ranges(uint32_t mask, grammar_range **out, size_t *count);

/* ---- vocabulary ---- */
/* A trie in preorder: the children of node i begin at i + 1, its next sibling is at `next`. */
typedef struct gtrie_node {
    uint32_t next, rank;           /* rank: of the first token here or below in the trie's order */
    int32_t token;                 /* -1: none */
    uint16_t depth;
    uint8_t byte, tail;            /* tail: characters that tokens below have more, at most; 255: not known */
} gtrie_node;
typedef struct gtrie {
    gtrie_node *node;              /* one more than count, for its rank */
    size_t count;
    uint32_t first[256];           /* node of each first byte, UINT32_MAX: none */
    uint32_t *order;               /* tokens as they come in the trie */
    uint64_t *all;                 /* its tokens */
    uint32_t plain;                /* bound of characters; 0: not plain */
} gtrie;
enum { GRAMMAR_TRIES = 10, GRAMMAR_LONG_TRIES = 8, GRAMMAR_LONG = 32 };   /* the tries from 8 on have tokens of more than 32 bytes */
struct grammar_vocab {
    _Atomic int references;
    size_t count, words;
    uint8_t *bytes;
    uint32_t *start;               /* count + 1 offsets */
    uint8_t *special;              /* bit 0: special, bit 1: eos */
    gtrie trie[GRAMMAR_TRIES];     /* 0, 8: tokens with other than plain characters; others: plain ones by number of characters */
    size_t longest;                /* bytes */
    int32_t *eos;
    size_t n_eos;
    uint32_t *names;               /* hash of special tokens' names -> id + 1 */
    size_t names_size;
};
int32_t grammar_vocab_special(const grammar_vocab *v, const void *name, size_t size);   /* -1: none */
/* Plain: what may stand in a JSON string as it is: no control character, quote, backslash, DEL. */
static inline bool grammar_plain_ascii(unsigned c) { return c >= 0x20 && c < 0x7F && c != '"' && c != '\\'; }

/* ---- compiled ---- */
typedef struct gruleinfo { uint32_t body, rank; } gruleinfo;      /* callers at a rule's beginning have higher ranks */
typedef struct gstore gstore;
struct grammar {
    _Atomic int references;
    grammar_vocab *vocab;
    gpool base;
    gruleinfo *rule;
    uint32_t *by_rank;             /* rule of each rank */
    size_t rule_count;
    uint32_t root;
    bool root_nullable;
    grammar_limits limits;
    pthread_mutex_t lock;          /* store, and all that is in it */
    gstore *store;                 /* for new matchers */
};

/* ---- states, stacks, rows (grammar/row.c); all under the grammar's lock ---- */
typedef struct gmask gmask;
typedef struct gstate {
    uint32_t expr;
    bool nullable, ready;          /* ready: what is below is there */
    uint8_t *map;                  /* byte -> class, 0: dead */
    uint32_t *next;                /* class -> state */
    gcall *call;                   /* then: a state */
    uint32_t calls;
    gset live;
    gmask *mask;                   /* of all tokens */
    gmask *near;                   /* of those of up to GRAMMAR_LONG bytes */
} gstate;
typedef struct gitem { uint32_t state, frame; } gitem;
typedef struct gframe { gitem *edge; uint32_t count, row, hash; } gframe;   /* edge: state to go on with, frame below; row: reading goes on there */
typedef struct grow_ {
    gitem *item;
    uint32_t count, hash;
    bool accept, tokens;           /* tokens: some item takes special tokens */
    gset live;
    uint32_t *next;                /* by byte; GROW_UNKNOWN */
    uint32_t *plain;               /* the rows after any plain character, their number first (0: some are not taken); NULL: not known */
    uint32_t plain_length;         /* so many plain characters may come, whatever they are; GROW_UNKNOWN */
} grow;
#define GROW_UNKNOWN UINT32_MAX
enum { GFRAME_ROOT = 1, GROW_DEAD = 0 };

typedef struct gblocks { void **block; size_t count, blocks, size; } gblocks;   /* stable addresses, 256 a block */
typedef struct gwork { gitem *item; size_t count, capacity; uint32_t *seen; size_t seen_size; } gwork;
struct gstore {
    int references;                /* under the lock */
    grammar *g;                    /* borrowed */
    gpool pool;
    gblocks states, frames, rows;
    uint32_t *state_of;            /* expr -> state */
    size_t state_of_size;
    uint32_t *frame_table, *row_table;
    size_t frame_table_size, row_table_size;
    char *chunk;
    size_t chunk_left;
    void **chunks;
    size_t chunk_count, chunk_capacity;
    size_t bytes;
    uint32_t start;                /* row */
    bool failed;
    const char *reason;
    gwork work;
    uint32_t *pending;             /* per rule: first of its pending edges */
    struct gpending { gitem edge; uint32_t next; } *pend;
    size_t pend_count, pend_capacity;
    uint32_t *heap;
    size_t heap_count;
    gcalls calls;
    gitem *edges;
    size_t edges_count, edges_capacity;
    uint32_t *walk;                /* rows by depth, for tries */
    uint64_t *bits;
};

gstore *gstore_new(grammar *g, vlm_error *error);
void gstore_free(gstore *s);
void *gstore_alloc(gstore *s, size_t bytes);          /* NULL: failed */
bool gstore_error(const gstore *s, vlm_error *error); /* sets the error; false */
static inline gstate *gstate_at(const gstore *s, uint32_t i) { return (gstate *)s->states.block[i >> 8] + (i & 255); }
static inline gframe *gframe_at(const gstore *s, uint32_t i) { return (gframe *)s->frames.block[i >> 8] + (i & 255); }
static inline grow *grow_at(const gstore *s, uint32_t i) { return (grow *)s->rows.block[i >> 8] + (i & 255); }
/* The row of one state on the root frame, without what the state calls: what the state itself reads. */
uint32_t grow_local(gstore *s, uint32_t state);
uint32_t grow_state(gstore *s, uint32_t expr);        /* 0: failed, or none */
uint32_t grow_compute(gstore *s, uint32_t row, uint8_t byte);
static inline uint32_t grow_step(gstore *s, uint32_t row, uint8_t byte)
{
    const grow *r = grow_at(s, row);
    if (!gset_has(&r->live, byte)) return GROW_DEAD;
    if (r->next && r->next[byte] != GROW_UNKNOWN) return r->next[byte];
    return grow_compute(s, row, byte);
}
uint32_t grow_token(gstore *s, uint32_t row, int32_t token);
/* Where reading goes on when what runs on this frame ends. */
uint32_t grow_after(gstore *s, uint32_t frame);

bool grammar_mask(gstore *s, uint32_t row, uint64_t *mask);

#endif
