/* internal.h - what the files of response templates share: response.c (loading, regular expressions), parse.c (regions),
 * value.c (what is in a region), shape.c (what is made of it). Values are JSON texts. */
#ifndef VLM_TEXT_RESPONSE_INTERNAL_H
#define VLM_TEXT_RESPONSE_INTERNAL_H

#include <string.h>
#include "base/err.h"
#include "base/mem.h"
#include "text/response.h"
#include "text/toolcall/internal.h"

typedef struct pattern pattern;
/* Python's syntax, "." matches newlines; a list of literals when literals is not NULL. */
pattern *pattern_new(const char *scope, const char *source, const json_t *literals, vlm_error *error);
void pattern_free(pattern *p);
typedef struct pattern_hit { bool found, partial; size_t from, to; } pattern_hit;
/* The first match of text[start..size). partial: when there is none, a beginning of one at the end counts. False: a limit was hit. */
bool pattern_find(const pattern *p, const char *text, size_t size, size_t start, bool partial, pattern_hit *hit, vlm_error *error);
/* Named groups of the last match: calls add(user, name, text, size) for each that took part. */
void pattern_groups(const pattern *p, const char *text, void (*add)(void *user, const char *name, const char *text, size_t size), void *user);
bool pattern_has_groups(const pattern *p);
/* A complete match that ends where the text does may become longer with more text. */
bool pattern_can_extend(const pattern *p);

typedef struct response_field_spec {
    char *name;
    pattern *open, *close;
    const char *content;           /* name of the reader, in spec */
    const json_t *args, *transform;
    pattern *tag;                  /* xml-inline: content_args.tag_pattern */
    char *join;
    bool repeats, optional, transform_each;
} response_field_spec;

struct response_template {
    json_t *spec;                  /* own copy */
    response_field_spec *field;
    size_t count;
    int implicit;                  /* the field without opening; -1: none */
    pattern *anchor;
};

/* ---- response/value.c ---- */
bool response_content_known(const char *name);
bool response_content_streams(const char *name);
typedef struct response_reading { const response_field_spec *f; vlm_error *error; } response_reading;
/* The inside of a region as its content's reader sees it. */
bool response_content(response_reading *r, const char *text, size_t size, buf *out);
/* json.loads */
bool response_strict_json(const char *text, size_t size, buf *out);
/* int() (whole; from_float: also of 3.0) and float() */
bool response_add_number(const char *text, size_t size, bool whole, bool from_float, buf *out);
bool response_is_one_of(const char *text, size_t size, const char *a, const char *b);
/* Is a word character (\\w) at s? *used: its length. */
bool response_is_word(const char *s, size_t n, size_t *used);

/* ---- response/shape.c ---- */
/* The inside of a region becomes a value. captures: JSON object text of the anchors' named groups. */
bool response_value(const response_field_spec *f, const char *inside, size_t size, const json_t *captures, buf *out, vlm_error *error);
/* A call's arguments get the types that the tool declares. */
bool response_type_calls(buf *value, const json_t *tools);
bool response_check_transform(const char *scope, const json_t *transform, vlm_error *error);
/* Python's str.strip() */
void strip_text(const char **text, size_t *size);

/* The next member of a JSON object or array (of valid text): *at is 0 at first. False: there is none. */
typedef struct json_item { const char *key, *value; size_t key_size, value_size; } json_item;   /* key: with quotes, NULL in arrays */
bool json_item_next(const char *json, size_t size, size_t *at, json_item *item);
bool response_json_member(const char *json, size_t size, const char *key, json_item *item);

#endif
