/* body.c - see body.h. */
#define _GNU_SOURCE
#include "server/body.h"
#include "server/server_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static bool wrong(refusal *why, const char *where, const field *f, const char *expected)
{
    char param[96];
    snprintf(param, sizeof param, "%s%s", where, f->name);
    return refuse(why, 400, param, "'%s%s': %s was expected.", where, f->name, expected);
}

static bool out_of_range(refusal *why, const char *where, const field *f)
{
    char text[96];
    snprintf(text, sizeof text, "a number from %g to %g", f->min, f->max);
    return wrong(why, where, f, text);
}

static bool read_field(const json_t *value, const field *f, char *to, const char *where, refusal *why)
{
    switch (f->kind) {
    case F_BOOL:
        if (!json_is_boolean(value)) return wrong(why, where, f, "true or false");
        *(int *)(void *)to = json_is_true(value);
        return true;
    case F_SEED:
        if (!json_is_integer(value)) return wrong(why, where, f, "a whole number");
        *(uint64_t *)(void *)to = (uint64_t)json_integer_value(value);
        return true;
    case F_INT: {
        double number = json_number_value(value);          /* 100.0 is a whole number to some clients */
        if (!json_is_number(value) || number != floor(number)) return wrong(why, where, f, "a whole number");
        if (number < f->min || number > f->max) return out_of_range(why, where, f);
        *(int *)(void *)to = (int)number;
        return true;
    }
    case F_NUMBER: {
        double number = json_number_value(value);
        if (!json_is_number(value) || !isfinite(number)) return wrong(why, where, f, "a number");
        if (number < f->min || number > f->max) return out_of_range(why, where, f);
        *(float *)(void *)to = (float)number;
        return true;
    }
    case F_TEXT:
        if (!json_is_string(value)) return wrong(why, where, f, "a string");
        *(const char **)(void *)to = json_string_value(value);
        return true;
    case F_ARRAY:
        if (!json_is_array(value)) return wrong(why, where, f, "an array");
        break;
    case F_OBJECT:
        if (!json_is_object(value)) return wrong(why, where, f, "an object");
        break;
    case F_ANY:
        break;
    }
    *(const json_t **)(void *)to = value;
    return true;
}

bool body_read(const json_t *body, const field *fields, void *out, const char *where, refusal *why)
{
    for (const field *f = fields; f->name; f++) {
        const json_t *value = json_object_get(body, f->name);
        if (value && !json_is_null(value) && !read_field(value, f, (char *)out + f->offset, where, why)) return false;
    }
    return true;
}

/* Two things that JSON allows and the parser does not: NUL in strings becomes U+FFFD, integers beyond 64 bits become real numbers. */
static json_t *parse(buf *text, json_error_t *where)
{
    size_t flags = 0;
    for (int tries = 0;; tries++) {
        json_t *value = json_loadb(text->data ? text->data : "", text->size, flags, where);
        enum json_error_code code = value ? json_error_unknown : json_error_code(where);
        if (value || tries == 2 || !text->data) return value;
        if (code == json_error_numeric_overflow) flags = JSON_DECODE_INT_AS_REAL;
        else if (code == json_error_null_byte_in_key || code == json_error_null_character) {
            for (char *p = text->data; (p = strchr(p, '\\')); p += 2)
                if (!strncmp(p, "\\u0000", 6)) memcpy(p, "\\ufffd", 6);
        } else return NULL;
    }
}

json_t *body_object(exchange *x, refusal *why)
{
    const char *type = exchange_header(x, "Content-Type");
    if (type && strncasecmp(type, "application/json", 16) && !strcasestr(type, "+json")) {
        refuse(why, 415, NULL, "The body's Content-Type is '%.80s'; application/json was expected.", type);
        return NULL;
    }
    size_t size;
    const char *text = exchange_body(x, &size);
    json_error_t where;
    attached *a = exchange_attached(x);
    attached_free(a);                                      /* of a first try, before the model was loaded */
    buf light = {0};
    bool lifted = attached_lift(text, size, a, &light);
    json_t *body = size && lifted ? parse(&light, &where) : NULL;
    buf_free(&light);
    if (!lifted) refuse_memory(why);
    else if (!size) refuse(why, 400, NULL, "The request has no body; a JSON object was expected.");
    else if (!body) refuse(why, 400, NULL, "The body is no JSON: %s (line %d, column %d).", where.text, where.line, where.column);
    else if (!json_is_object(body)) {
        refuse(why, 400, NULL, "The body is no JSON object.");
        json_decref(body);
        body = NULL;
    } else if (!attached_restore(a, body)) {
        refuse(why, 400, NULL, "The body is no UTF-8.");
        json_decref(body);
        body = NULL;
    }
    return body;
}

const char *body_text(arena *memory, const json_t *value)
{
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
    const char *kept = text ? arena_strdup(memory, text) : NULL;
    free(text);
    return kept;
}
