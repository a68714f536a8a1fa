/* internal.h - what the files of the tool call parser share.
 *
 * formats.c    the table, choice of a format              toolcall.c  the parser: text between calls, markers, feeding
 * reasoning.c  thinking blocks                            out.c       events, white space, ids
 * body.c       lists of calls, names, what is complete    value.c     JSON, Python literals, pairs -> JSON, as it comes
 * json.c       calls that are JSON objects                tags.c      arguments in tags, nested tags
 * python.c     calls that are Python                      type.c      texts become values by the tool's schema
 * message.c    messages with headers (harmony)            response.c  response_template instead of the table
 *
 * All of them read one buffer, p->in, from p->pos on, and all can stop anywhere: a step function returns STEP_MORE without having changed
 * anything when what it needs is not there yet, and is called again when more has come or p->final says that nothing will. */
#ifndef VLM_TEXT_TOOLCALL_INTERNAL_H
#define VLM_TEXT_TOOLCALL_INTERNAL_H

#include <string.h>
#include "base/err.h"
#include "base/mem.h"
#include "text/toolcall.h"
#include "text/utf8.h"

/* ---- formats ---- */

/* Marker texts are matched with two liberties: white space in them stands for any white space or none, "\1" for an optional suffix ":word". */
typedef struct toolcall_section { const char *open, *close; } toolcall_section;   /* close may be NULL: ends with its last call */

enum {
    READ_OBJECTS = 1,              /* a section may hold JSON objects {"name", "arguments"}, also in a list */
    READ_NAMED = 2,                /* a section may hold calls with a name outside of their arguments */
    READ_PYTHON = 4,               /* a section may hold NAME(KEY=VALUE, ...), also in a list */
    BARE_OBJECTS = 8,              /* objects count without a section: where a line or the answer starts */
    BARE_LISTS = 16,               /* the same for lists [...] */
    BARE_CALLS = 32,               /* call_open counts without a section */
    CALL_ENDS_THINKING = 64,
    NAME_OPEN = 128,               /* name_end may be missing */
    NAME_IS_ID = 256,              /* functions.NAME:INDEX is the id */
    KEY_IS_NAME = 512,             /* objects are {NAME: ARGUMENTS} */
    MISTRAL_IDS = 1024,            /* nine letters and digits */
    UNTYPED_JSON = 2048,           /* a value without schema is JSON when it can be (else it is text) */
    UNTYPED_PYTHON = 4096,         /* the same, or a Python literal */
    WORD_NULL = 8192,              /* the text null is null, also for a string */
    LINE_VALUES = 16384,           /* one newline before and after a value belongs to the markup */
    ENTITIES = 32768,              /* &amp; and CDATA in values */
    HEADERS = 65536,               /* messages with headers */
    LOOSE_OBJECTS = 131072         /* arguments of objects may be Python dicts */
};

struct toolcall_format {
    const char *name, *alias;
    const char *detect[4][3];      /* the template has all texts of a row; a text with ! before it must not occur */
    const char *think[3][2];       /* open, close; the first is the one that is printed */
    const char *force;             /* toolcall_think_force when it is more than the close marker */
    uint32_t flags;
    const char *drop[6];           /* wrappers that are left out of the content */
    const char *ends[4];           /* end-of-turn markers besides the common ones */
    toolcall_section sections[5];
    const char *between[6];        /* markers between calls of a section, without meaning */
    /* READ_NAMED: call_open [ID name_mark] NAME [id_mark ID] name_end ARGUMENTS call_close, or call_open HEAD head_end ARGUMENTS call_close, where
     * HEAD is the name or attributes of which name_attribute is one */
    const char *call_open, *call_close, *name_end, *name_mark, *id_mark, *head_end, *name_attribute, *name_lead[2];
    /* TOOLCALL_TAGS: tag_open HEAD tag_end [value_open] VALUE tag_close; HEAD is the key or attributes */
    const char *tag_open, *tag_end, *value_open, *tag_close, *key_attribute, *type_attribute;
    const char *whole_open, *whole_close;     /* instead of tags: the arguments as one JSON object */
    const char *quote;             /* TOOLCALL_PAIRS */
    toolcall_spelling spelling;
};

/* ---- values: JSON, Python literals, pairs; read as they come, written as JSON ---- */
typedef enum value_dialect { VALUE_JSON, VALUE_PYTHON, VALUE_PAIRS } value_dialect;
typedef enum value_result { VALUE_MORE, VALUE_BAD, VALUE_DONE, VALUE_KEY, VALUE_MEMBER } value_result;

typedef struct value_reader {
    value_dialect dialect;
    bool loose;                    /* JSON: single quotes and Python's words are accepted; Python: quotes within strings */
    bool bare;                     /* Python: strings without quotes are accepted outside of brackets */
    const char *quote;
    buf out;                       /* the JSON so far */
    buf stack;                     /* open brackets */
    buf word;                      /* a number, name or bare text */
    int state, after;
    char delimiter;
    bool triple, may_close, is_key;
    size_t key_at, key_end, value_at;   /* in out: the last key of the outermost object with its quotes, and its value */
} value_reader;

struct toolcall_parser;
typedef struct value_text { const char *s; size_t n, pos; bool final; struct toolcall_parser *p; } value_text;

void value_reset(value_reader *r, value_dialect dialect);
void value_free(value_reader *r);
/* Reads on from t->pos. VALUE_KEY: a key of the outermost object was read; VALUE_MEMBER: its value was, out may be changed from value_at on;
 * both times call again. */
value_result value_run(value_reader *r, value_text *t);
/* Bytes of out that stay: not a comma that may turn out to be the last. */
size_t value_certain(const value_reader *r);
/* A whole text as one value; appends it as JSON. False: it is none, out is as before. */
bool value_whole(value_dialect dialect, bool loose, const char *text, size_t size, buf *out);
/* Appends text as a JSON string, without quotes around it. */
bool value_add_escaped(buf *out, const char *text, size_t size);
bool value_add_string(buf *out, const char *text, size_t size);
/* A JSON string with its quotes becomes text. */
bool value_decode_string(const char *json, size_t size, buf *out);
bool value_is_number(const char *s, size_t n);
/* n hexadecimal digits; -1: they are none. */
long value_hex(const char *s, size_t n);

/* ---- output ---- */
typedef struct out_event { toolcall_event_type type; size_t index, text, size, id, name; } out_event;
typedef struct out_queue {
    out_event *item;
    size_t count, capacity, head;
    size_t visible;                /* events from here on wait for a decision */
    buf text;
} out_queue;

typedef struct out_channel {
    bool started;                  /* something but white space was told */
    buf pending;                   /* not told yet: white space, end markers, part of a character */
    size_t scanned;                /* bytes of pending that are known to be such */
} out_channel;

/* ---- one call on its way ---- */
typedef struct call {
    buf name, id;
    buf arguments;
    bool arguments_known;          /* arguments holds final JSON, if not all of it */
    bool started;                  /* told already (eager) */
    size_t told;                   /* bytes of arguments told */
} call;

typedef enum body_state { BODY_NEXT, BODY_NAME, BODY_ARGUMENTS, BODY_OBJECT, BODY_TAG, BODY_VALUE, BODY_PYTHON } body_state;

typedef struct body {
    body_state state;
    int section;                   /* index; -1: bare */
    size_t start, open_end;        /* in `in`: the section's opening and its end, for giving it back as text */
    size_t call_start, last_end;   /* of the call; behind the last complete one */
    size_t calls;                  /* complete ones in this section */
    int lists;                     /* open [ */
    size_t calls_before;           /* told before this section */
    bool deferred;                 /* calls wait for the end of the list */
    bool known_only;               /* it stands behind text: only calls of known tools count */
    int step;                      /* of the state */
    bool key_seen, name_ended;     /* tags, python: something complete was read */
    buf key, value, type;          /* tags: key and raw value */
    size_t value_told;             /* eager: bytes of the value that were told */
    bool value_streams;
    size_t depth;                  /* nested tags */
    value_reader reader;
} body;

typedef enum parser_mode { MODE_START, MODE_THINK, MODE_TEXT, MODE_BODY, MODE_HEADER, MODE_PAYLOAD } parser_mode;
typedef enum step_result { STEP_ON, STEP_MORE, STEP_FAILED } step_result;

typedef enum marker_kind { MARK_END, MARK_DROP, MARK_SECTION, MARK_CLOSE, MARK_CALL, MARK_OBJECT, MARK_LIST, MARK_FENCE, MARK_HEADER, MARK_STOP, MARK_THINK_CLOSE } marker_kind;
typedef struct marker { const char *text; marker_kind kind; int index; } marker;
enum { MARKERS_MAX = 64 };
typedef struct marker_set { marker item[MARKERS_MAX]; int count; bool first[256]; } marker_set;

struct toolcall_parser {
    const toolcall_format *f;
    toolcall_options options;
    json_t *tools;                 /* own copy, or NULL */
    buf in;
    size_t pos;                    /* read up to here */
    size_t scan;                   /* searched up to here (>= pos) */
    size_t space_from, space_end;  /* a run of white space: see skip_space */
    uint64_t base;                 /* of in.data[0] in the whole text */
    uint64_t debt;                 /* bytes read again after broken calls: bounded, see body_fail */
    bool final, length, failed;
    bool closed;                   /* no more calls are looked for */
    parser_mode mode;
    bool in_think;                 /* text goes to reasoning */
    bool stray_close;              /* a section ended without its end marker: it may still come */
    bool fence;                    /* within ``` */
    bool visible_text;             /* something was told or read as text */
    char last;                     /* last byte of text */
    size_t calls;                  /* told or waiting */
    marker_set text_set, think_set, start_set, value_set;
    out_queue queue;
    out_channel reasoning, content;
    body b;
    call c;
    uint64_t *special;             /* where pieces fed as special begin, in the whole text */
    size_t special_count, special_capacity;
    const char *token_text[MARKERS_MAX];   /* markers asked about so far, and the answers */
    bool token_answer[MARKERS_MAX];
    int token_count;
    buf payload;                   /* headers: the recipient */
    response_parser *response;     /* in the place of the format, or NULL */
    bool in_prompt;
};

/* ---- toolcall/toolcall.c ---- */
/* 1: marker text stands at s[0..n), *len bytes; 0: it does not; -1: it may when more comes. */
int marker_match(const char *text, const char *s, size_t n, size_t *len);
/* The same at offset `at` of p->in, where a marker that is a token of its own counts only as such. final: -1 becomes 0. */
int marker_at(toolcall_parser *p, const char *text, size_t at, size_t *len);
void marker_add(marker_set *set, const char *text, marker_kind kind, int index);
/* The longest marker of the set that stands at `at`: 1 with its length; 0 none; -1 not decided yet. */
int marker_here(toolcall_parser *p, const marker_set *set, size_t at, size_t *len, const marker **which);
/* Searches from p->scan on. 1: found *which at *at, *len bytes; 0: nothing (then text up to *at is certain to be no marker). */
int marker_search(toolcall_parser *p, const marker_set *set, size_t *at, size_t *len, const marker **which);
/* Offset of the first byte from `at` on that is no ASCII white space; what was skipped last is not looked at again. */
size_t skip_space(toolcall_parser *p, size_t at);
static inline bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
static inline bool is_digit(char c) { return c >= '0' && c <= '9'; }
static inline bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
static inline bool is_name(char c) { return is_letter(c) || is_digit(c) || c == '.' || c == ':' || c == '-' || c == '/' || (unsigned char)c >= 0x80; }

/* ---- toolcall/reasoning.c ---- */
void think_prepare(toolcall_parser *p);
step_result think_start(toolcall_parser *p);
step_result think_step(toolcall_parser *p);

/* ---- toolcall/body.c ---- */
/* Enters a section (or -1: bare) whose opening stands at pos and is len bytes long. */
void body_open(toolcall_parser *p, int section, size_t len);
step_result body_step(toolcall_parser *p);
void body_free(body *b);
void call_free(call *c);
/* The call that was read is complete: it is told. */
void call_commit(toolcall_parser *p);
/* eager: tells what is certain of the call. */
void call_tell(toolcall_parser *p);
bool name_valid(const char *name, size_t n);
/* The tool's "parameters" for a name; NULL: not known. */
const json_t *tool_schema(const toolcall_parser *p, const char *name);
bool tool_known(const toolcall_parser *p, const char *name);

step_result object_step(toolcall_parser *p);
step_result tags_step(toolcall_parser *p);
step_result tags_value_step(toolcall_parser *p);
void tags_prepare(toolcall_parser *p);
step_result python_step(toolcall_parser *p);
/* The value of an attribute key="value" in a tag's head, entities decoded. */
bool head_attribute(const char *head, size_t n, const char *key, buf *out);
/* Length of a tag's head that begins at `at` and ends before `end`; 1 with *n, 0 none, -1 more. Quotes are respected. lines: it may have some. */
int head_find(toolcall_parser *p, size_t at, const char *end, bool lines, size_t *n, size_t *end_len);

/* ---- toolcall/type.c ---- */
enum { TYPE_STRING = 1, TYPE_INTEGER = 2, TYPE_NUMBER = 4, TYPE_BOOLEAN = 8, TYPE_ARRAY = 16, TYPE_OBJECT = 32, TYPE_NULL = 64 };
/* The types that a schema allows; 0: it does not say. root: where $ref leads. */
unsigned type_mask(const json_t *root, const json_t *schema);
const json_t *type_property(const json_t *root, const json_t *schema, const char *key);
const json_t *type_items(const json_t *root, const json_t *schema);
/* Appends text as the JSON value that the types and the format's flags ask for. */
bool type_value(unsigned types, uint32_t flags, const char *text, size_t size, buf *out);

/* ---- toolcall/message.c ---- */
step_result header_step(toolcall_parser *p);
step_result payload_step(toolcall_parser *p);

/* ---- toolcall/response.c ---- */
bool template_open(toolcall_parser *p, const toolcall_options *o, vlm_error *error);
bool template_feed(toolcall_parser *p, const char *text, size_t size);
bool template_finish(toolcall_parser *p);

/* ---- toolcall/out.c ---- */
void out_text(toolcall_parser *p, out_channel *c, const char *text, size_t size);
/* Text that is dropped unless other text follows: end-of-turn markers. */
void out_hold(toolcall_parser *p, out_channel *c, const char *text, size_t size);
/* A new message of the same channel: a newline between it and what was told. */
void out_join(out_channel *c);
void out_event_add(toolcall_parser *p, toolcall_event_type type, const char *text, size_t size);
void out_call_start(toolcall_parser *p);
void out_make_id(toolcall_parser *p, buf *id);

#endif
