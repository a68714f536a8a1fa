/* internal.h - what the interpreter's files share: memory, values, syntax tree, a run.
 *
 *   source --lex.c--> tokens --parse.c, expr.c--> tree --scope.c--> tree with slots for names
 *          --exec.c (statements), eval.c (expressions)--> text
 *   values: value.c, ops.c (operators), repr.c (str, repr, tojson); builtins: filter*.c, test.c, method*.c,
 *   format.c, global.c
 *
 * Memory of a compiled template and of a run is an arena that goes as a whole. That makes failing simple: jinja_fail jumps (longjmp) to
 * jinja_compile or jinja_render, which release the arena; no function between owns anything else. */
#ifndef VLM_TEXT_JINJA_INTERNAL_H
#define VLM_TEXT_JINJA_INTERNAL_H

#include <setjmp.h>
#include <string.h>
#include "base/err.h"
#include "text/jinja.h"
#include "text/utf8.h"

/* ---- memory and failing ---- */
typedef struct jmem {
    arena blocks;
    char *chunk;                   /* rest of the current block */
    size_t left, used, limit;
    uint64_t steps;                /* work that may still be done: a node, a list item, 64 bytes of text looked at are one step each */
    int line;                      /* where we are in the template */
    vlm_error *error;
    jmp_buf escape;
    uint32_t plain[2];             /* see jinja_limits */
} jmem;
void *jinja_alloc(jmem *m, size_t bytes);                             /* zeroed; never NULL */
void jinja_work(jmem *m, size_t steps);                               /* fails when they are used up */
_Noreturn void jinja_fail(jmem *m, vlm_status code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* ---- values ---- */
typedef __int128 jint;
typedef enum jkind {
    J_MISSING,                     /* no argument given */
    J_UNDEFINED, J_NONE, J_BOOL, J_INT, J_FLOAT, J_STRING, J_BYTES, J_LIST, J_TUPLE, J_DICT, J_RANGE,
    J_VIEW,                        /* dict.keys(), values(), items() */
    J_ITERATOR,                    /* what generators give: can be gone through once */
    J_NAMESPACE, J_MACRO, J_FUNCTION, J_METHOD, J_LOOP, J_CYCLER, J_JOINER
} jkind;

typedef struct jstr { const char *data; size_t size, chars; } jstr;   /* chars: code points */
typedef struct jval jval;
typedef struct jgen jgen;
typedef struct jlist { jval *item; size_t count, capacity, next; const char *view; bool group; jgen *gen; } jlist;
typedef struct jdict jdict;
typedef struct jrange { jint start, stop, step; } jrange;
typedef struct jmacro jmacro;
typedef struct jmethod jmethod;
typedef struct jloop jloop;
typedef struct jbuiltin jbuiltin;
typedef struct jcycler { jlist *items; size_t at; } jcycler;
typedef struct jjoiner { const jstr *separator; bool used; } jjoiner;

struct jval {
    jkind kind;
    bool markup;                   /* of a string: marked safe; adding to it escapes */
    union {
        bool b;
        jint i;
        double f;
        const jstr *s;
        jlist *list;
        jdict *dict;               /* dict, namespace */
        jrange *range;
        jmacro *macro;
        const jbuiltin *fn;
        jmethod *method;
        jloop *loop;
        jcycler *cycler;
        jjoiner *joiner;
        const char *hint;          /* of undefined: what is undefined, a sentence */
    };
};
struct jmethod { jval self; const jbuiltin *fn; };

typedef struct jentry { jval key, value; uint64_t hash; } jentry;
struct jdict { jentry *entry; size_t count, capacity; uint32_t *index; size_t index_size; };

typedef struct jkeyword { const jstr *name; jval value; } jkeyword;
typedef struct jargs { jval *v; size_t n; jkeyword *kw; size_t n_kw; } jargs;

typedef struct jrun jrun;
/* names: comma-separated parameter names; the binder lays arguments out as a->v[0..max) with J_MISSING for those not given.
 * max < 0: any number, as they come. */
struct jbuiltin { const char *name; jval (*call)(jrun *r, jval self, jargs *a); int min, max; const char *names; };

/* ---- text that grows in the run's memory ---- */
typedef struct jbuf { jmem *m; char *data; size_t size, capacity, limit; const char *broken; } jbuf;      /* broken: type of what was added and is no text */
void jbuf_add(jbuf *b, const char *data, size_t n);
void jbuf_adds(jbuf *b, const char *text);
void jbuf_addc(jbuf *b, char c);
void jbuf_addn(jbuf *b, char c, size_t n);
void jbuf_addstr(jbuf *b, const jstr *s);
void jbuf_utf8(jbuf *b, uint32_t code);

/* ---- syntax tree ---- */
typedef enum jnode_kind {
    /* expressions */
    N_CONST, N_NAME, N_LIST, N_TUPLE, N_DICT, N_ATTR, N_ITEM, N_SLICE, N_CALL, N_FILTER, N_TEST, N_COND, N_AND, N_OR, N_NOT, N_NEG, N_POS,
    N_BINARY, N_CONCAT, N_COMPARE, N_KEYWORD, N_STAR, N_STARSTAR,
    /* statements */
    N_DATA, N_PRINT, N_BLOCK, N_FOR, N_IF, N_SET, N_SET_BLOCK, N_MACRO, N_CALL_BLOCK, N_FILTER_BLOCK, N_WITH, N_SCOPE, N_BREAK, N_CONTINUE, N_NSREF,
    N_BLOCK_TAG, N_TEMPLATE        /* N_TEMPLATE: include, import, from, extends */
} jnode_kind;
enum { OP_EQ = 256, OP_NE, OP_LE, OP_GE, OP_POW, OP_FLOORDIV, OP_IN, OP_NOT_IN };    /* others: their character */

typedef struct jnode jnode;
typedef struct jnodes { jnode **item; size_t count, capacity; } jnodes;
struct jnode {
    jnode_kind kind;
    int line, op;
    bool recursive, scoped, required, toplevel, uses_caller;
    int up, slot;                  /* of a name: so many frames out, that slot */
    jval value;                    /* N_CONST, N_DATA */
    const jstr *name;              /* interned: equal names are equal pointers */
    jnode *a, *b, *c, *d;
    jnodes list, list2;
    struct jplan *plan[3];         /* of what opens a frame; for: its body, its else, its condition */
};

/* How the names of a frame start when it is entered; see jinja/scope.c. */
typedef enum jload_kind { LOAD_PARAMETER, LOAD_VARIABLE, LOAD_OUTER, LOAD_NOTHING } jload_kind;
typedef struct jload { jload_kind how; const jstr *name; int up, slot; } jload;      /* up, slot: seen from the enclosing frame */
typedef struct jplan { jload *load; size_t count; int loop, caller, kwargs, varargs; } jplan;      /* slots of special names, or -1 */

struct jinja {
    jmem m;
    jnode *root;
    jnodes literals;               /* every N_DATA and string N_CONST */
    const jstr **names;            /* every interned name */
    size_t name_count, name_capacity;
    uint32_t *name_index;          /* open addressing: number of the name + 1 */
    size_t name_index_size;
    bool has_blocks;
};

/* ---- tokens ---- */
typedef enum jtoken_kind { T_DATA, T_PRINT_BEGIN, T_PRINT_END, T_BLOCK_BEGIN, T_BLOCK_END, T_NAME, T_STRING, T_NUMBER, T_OP, T_END } jtoken_kind;
typedef struct jtoken { jtoken_kind kind; int op, line; jval value; } jtoken;  /* value: string of data, name, string; number */
/* Tokens of the source, ended by T_END. */
jtoken *jinja_lex(jmem *m, const char *source, size_t size);

/* ---- parser ---- */
typedef struct jparser {
    jmem *m;
    jinja *t;
    const jtoken *token;           /* the current one */
    int depth, loops;
    bool scoped;                   /* is there a scoped block? */
    jnodes blocks;
} jparser;
jnode *jinja_node(jparser *p, jnode_kind kind);
void jinja_nodes_add(jparser *p, jnodes *list, jnode *n);
const jstr *jinja_intern(jparser *p, const jstr *name);
_Noreturn void jinja_unexpected(jparser *p, const char *expected);
bool jinja_is_op(const jparser *p, int op);
bool jinja_skip_op(jparser *p, int op);
void jinja_expect_op(jparser *p, int op);
bool jinja_is_name(const jparser *p, const char *name);
bool jinja_skip_name(jparser *p, const char *name);
const jstr *jinja_expect_name(jparser *p);
/* jinja/expr.c */
jnode *jinja_parse_expression(jparser *p, bool with_condition);
/* One expression or a tuple without parentheses; `stop`: a name that ends it, or NULL. */
jnode *jinja_parse_tuple(jparser *p, bool with_condition, const char *stop);
jnode *jinja_parse_target(jparser *p, const char *stop, bool with_namespace);
jnode *jinja_parse_filters(jparser *p, jnode *operand, bool need_pipe);
jnode *jinja_parse_call(jparser *p, jnode *callee);
jnode *jinja_parse_unary(jparser *p, bool with_filter);
/* jinja/parse.c */
jnode *jinja_parse(jparser *p);
/* jinja/scope.c: gives names their slots. */
void jinja_resolve(jparser *p);

/* ---- a run ---- */
typedef struct jscope { struct jscope *parent; jval *var; } jscope;      /* a frame that has been entered */
struct jmacro { const jnode *node; jscope *scope; const jstr *name; };
/* ---- iterators (jinja/iter.c) ---- */
typedef struct jsource { jlist *items; size_t at; jlist *iter; } jsource;         /* goes through a list, or an iterator */
struct jgen {
    bool (*next)(jrun *r, jgen *g, jval *out);     /* false: there are no more */
    jval over;                     /* what is gone through, opened with the first item */
    jsource source;
    bool open, done, by_attribute, wanted;
    jargs a;
    jdict *seen;
    size_t at;
    const jnode *node;             /* for ... if */
    jscope *frame;
};
bool jiter_next(jrun *r, jlist *it, jval *out);
jsource jsource_open(jrun *r, jval v);
bool jsource_next(jrun *r, jsource *s, jval *out);
/* An iterator; the arguments (or NULL) are copied. */
jval jgen_new(jrun *r, jgen gen, const jargs *a);

struct jloop {
    jrun *run;
    jlist *items;                  /* those fetched so far */
    jsource source;                /* of the others */
    bool complete;
    size_t index;
    int depth;
    const jnode *node;             /* the for statement, for recursion */
    jscope *scope;
    jval *changed;                 /* last arguments of loop.changed */
};
jsource jloop_source(jrun *r, const jnode *n, jval over, jscope *frame);
bool jloop_has(jloop *l, size_t i);
size_t jloop_length(jloop *l);
typedef enum jflow { FLOW_NEXT, FLOW_BREAK, FLOW_CONTINUE } jflow;
struct jrun {
    jmem m;
    const jinja *t;
    jdict *variables, *set;        /* set: names set outside of frames, for blocks */
    jscope *scope;
    jbuf *out;
    struct tm now;
    int depth, max_depth;
    size_t max_output;
    jinja_report *report;
};
void jinja_enter(jrun *r);         /* one level deeper, one step more; fails at a limit */
static inline void jinja_leave(jrun *r) { r->depth--; }
jval jinja_eval(jrun *r, const jnode *n);
jflow jinja_exec(jrun *r, const jnodes *body);
jval jinja_call(jrun *r, jval callee, jargs *a);
jval jinja_call_builtin(jrun *r, const jbuiltin *fn, jval self, const jargs *a, const char *what);
jval jinja_call_macro(jrun *r, jmacro *macro, jargs *a);
jval jinja_call_loop(jrun *r, jloop *loop, jargs *a);
jval jinja_lookup(jrun *r, const jnode *name);
void jinja_assign(jrun *r, const jnode *target, jval value);
/* Runs a body with its output caught. */
jval jinja_capture(jrun *r, const jnodes *body, jflow *flow);

/* ---- making values ---- */
static inline jval jv_none(void) { return (jval){.kind = J_NONE}; }
static inline jval jv_bool(bool b) { return (jval){.kind = J_BOOL, .b = b}; }
static inline jval jv_int(jint i) { return (jval){.kind = J_INT, .i = i}; }
static inline jval jv_float(double f) { return (jval){.kind = J_FLOAT, .f = f}; }
static inline jval jv_str(const jstr *s) { return (jval){.kind = J_STRING, .s = s}; }
static inline jval jv_list(jlist *l) { return (jval){.kind = J_LIST, .list = l}; }
static inline jval jv_tuple(jlist *l) { return (jval){.kind = J_TUPLE, .list = l}; }
static inline jval jv_iterator(jlist *l) { return (jval){.kind = J_ITERATOR, .list = l}; }
static inline jval jv_dict(jdict *d) { return (jval){.kind = J_DICT, .dict = d}; }
const jstr *jstr_new(jmem *m, const char *data, size_t size);         /* borrows data */
const jstr *jstr_copy(jmem *m, const char *data, size_t size);
jval jv_text(jmem *m, const char *text);                              /* copies */
jval jv_textn(jmem *m, const char *text, size_t size);                /* borrows */
jval jv_buf(jbuf *b);
jval jv_bytes(jmem *m, const char *data, size_t size);                /* borrows */
jval jv_undefined(jmem *m, const char *format, ...) __attribute__((format(printf, 2, 3)));
jval jv_from_json(jrun *r, const json_t *j);

jlist *jlist_new(jmem *m, size_t capacity);
void jlist_add(jmem *m, jlist *l, jval v);
jdict *jdict_new(jmem *m);
jdict *jinja_make_dict(jrun *r, const jargs *a);                       /* dict(mapping or pairs, **more) */
void jdict_set(jrun *r, jdict *d, jval key, jval value);
const jval *jdict_get(jrun *r, const jdict *d, jval key);             /* NULL: none */
const jval *jdict_get_text(const jdict *d, const char *text, size_t size);

/* ---- asking values ---- */
const char *jv_type(jval v);                                          /* Python's name of the type */
bool jv_true(jval v);
bool jv_equal(jrun *r, jval a, jval b);
int jv_compare(jrun *r, jval a, jval b, const char *op);              /* fails for what has no order */
bool jv_is_iterable(jval v);
bool jv_is_hashable(jval v);
jlist *jv_iterate(jrun *r, jval v);                                   /* its items; fails for what cannot be iterated */
bool jv_length(jval v, size_t *n);                                    /* false: has no length */
bool jv_contains(jrun *r, jval container, jval item);
jval jv_attr(jrun *r, jval v, const jstr *name);
jval jv_item(jrun *r, jval v, jval key);
jval jv_slice(jrun *r, jval v, jval start, jval stop, jval step);
jval jv_binary(jrun *r, int op, jval a, jval b);
jval jv_negate(jrun *r, jval v);
jint jv_to_int(jrun *r, jval v, const char *what);                    /* an int or bool; fails otherwise */
_Noreturn void jinja_undefined_error(jrun *r, jval v);
static inline bool jv_is_number(jval v) { return v.kind == J_INT || v.kind == J_FLOAT || v.kind == J_BOOL; }
static inline double jv_to_double(jval v) { return v.kind == J_FLOAT ? v.f : v.kind == J_BOOL ? v.b : (double)v.i; }

const jstr *jv_string(jrun *r, jval v);                               /* str() */
void jv_write(jrun *r, jbuf *b, jval v);                              /* str() appended */
void jv_repr(jrun *r, jbuf *b, jval v);
void jv_ascii(jrun *r, jbuf *b, jval v);                              /* repr with escapes for all that is not ASCII */
void jinja_write_bytes(jbuf *b, const jstr *s);
void jinja_write_int(jbuf *b, jint i, int base, bool upper);
void jinja_write_float(jbuf *b, double f);                            /* Python's repr */
typedef struct jjson { bool ascii, sort; const jstr *indent; const jstr *comma, *colon; } jjson;
void jv_json(jrun *r, jbuf *b, jval v, const jjson *how, int level);

/* ---- strings ---- */
size_t jstr_offset(const jstr *s, size_t chars);                      /* byte offset of a code point */
const jstr *jstr_strip(jmem *m, const jstr *s, const jstr *set, bool left, bool right);      /* set NULL: white space */
const jstr *jstr_upper(jmem *m, const jstr *s);
const jstr *jstr_lower(jmem *m, const jstr *s);
const jstr *jstr_capitalize(jmem *m, const jstr *s);
const jstr *jstr_title(jmem *m, const jstr *s);
const jstr *jstr_swapcase(jmem *m, const jstr *s);
const jstr *jstr_casefold(jmem *m, const jstr *s);
const jstr *jstr_replace(jmem *m, const jstr *s, const jstr *from, const jstr *to, jint count);
jlist *jstr_splitlines(jmem *m, const jstr *s, bool keep_ends);
jval jinja_urlize(jrun *r, jval self, jargs *a);                      /* filters with files of their own */
jval jinja_pprint(jrun *r, jval self, jargs *a);
jval jinja_striptags(jrun *r, jval self, jargs *a);
jval jinja_wordwrap(jrun *r, jval self, jargs *a);
bool jchar_is_alnum(uint32_t c);
bool jchar_is_decimal(uint32_t c);
bool jchar_is_upper(uint32_t c);
bool jchar_is_lower(uint32_t c);
bool jchar_is_title(uint32_t c);
bool jchar_is_digit(uint32_t c);
bool jchar_is_numeric(uint32_t c);
bool jchar_is_printable(uint32_t c);
static inline bool jchar_is_space(uint32_t c) { return unicode_is_space(c) || (c >= 0x1C && c <= 0x1F); }      /* Python's isspace */
void jinja_escape_html(jbuf *b, const jstr *s);
const jstr *jinja_escaped(jrun *r, jval v);                           /* str() with HTML escapes; what is marked safe as it is */
static inline jval jv_marked(jval v, bool markup)
{
    if (v.kind == J_STRING) v.markup = markup;
    return v;
}
static inline bool jstr_is(const jstr *s, const char *text) { return s->size == strlen(text) && memcmp(s->data, text, s->size) == 0; }
jval jinja_percent(jrun *r, jval format, jval args);                  /* format % args */
/* How a number or text is laid out: what follows the colon in str.format, or the percent sign. */
typedef struct jspec {
    const jstr *fill;              /* one character */
    char align, sign, type, group; /* 0: not given */
    bool alternate, zero, no_minus_zero, percent;      /* percent: % formatting */
    jint width, precision;         /* precision -1: not given */
} jspec;
enum { JSPEC_WIDEST = 10000 };
const jstr *jspec_int(jrun *r, const jspec *s, jint i);
const jstr *jspec_float(jrun *r, const jspec *s, double f);
const jstr *jspec_cut(jrun *r, const jstr *s, jint precision);
void jspec_pad(jbuf *b, const jspec *s, const jstr *text, bool number);      /* to the width */
jval jinja_format_method(jrun *r, jval self, jargs *a);               /* str.format */
jval jinja_format_map_method(jrun *r, jval self, jargs *a);
jval jinja_strftime(jrun *r, const jstr *format);

/* ---- builtins: NULL when there is none ---- */
const jbuiltin *jinja_find(const jbuiltin *table, size_t count, const char *name, size_t size);
const jbuiltin *jinja_filter(const jstr *name);
const jbuiltin *jinja_test(const jstr *name);
const jbuiltin *jinja_global(const jstr *name);
/* *hidden: the object has it, but the sandbox hides it. */
const jbuiltin *jinja_method(jval self, const jstr *name, bool *hidden);
const jbuiltin *jinja_filter_text(const jstr *name);                  /* jinja/filter_text.c's part of the filters */
const jbuiltin *jinja_filter_list(const jstr *name);
const jbuiltin *jinja_string_method(const jstr *name);
const jbuiltin *jinja_number_method(jval self, const jstr *name);     /* of numbers and bytes */
bool jinja_number_attr(jval v, const jstr *name, jval *out);
/* Argument i, or `otherwise` when it was not given. */
static inline jval jarg(const jargs *a, int i, jval otherwise) { return a->v[i].kind == J_MISSING ? otherwise : a->v[i]; }
/* "a.b.0" or an int; otherwise (or J_MISSING) takes the place of what is undefined on the way. */
jval jinja_attribute_path(jrun *r, jval v, jval path, jval otherwise);
bool jinja_test_value(jrun *r, const jbuiltin *test, jval v, const jargs *a);

#endif
