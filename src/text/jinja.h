/* jinja.h - the template language of chat templates, as jinja2's immutable sandbox with transformers' additions runs it.
 *
 * A template is compiled once and may be rendered by many threads. Templates come from strangers: a render is bounded in steps,
 * output, memory and depth; it reads nothing but its variables and the given clock.
 *
 * Known: all of jinja2's statements but autoescape and trans (include, import and extends fail when they are reached: there are no other templates);
 * loop controls; {% generation %} (renders its body); all filters and tests; methods of str, list, dict, int, float and bytes that change
 * nothing; globals range, dict, namespace, cycler, joiner, raise_exception, strftime_now. Environment: trim_blocks, lstrip_blocks, no autoescape,
 * tojson = json.dumps(ensure_ascii=False). Integers have 128 bits; beyond is an error. */
#ifndef VLM_TEXT_JINJA_H
#define VLM_TEXT_JINJA_H

#include <jansson.h>
#include <time.h>
#include "base/mem.h"
#include "vlm.h"

typedef struct jinja jinja;

/* 0: a default that suits a template alone, and grows with the variables: with every value and every 16 bytes of text by so much. The defaults stop a
 * template that wants to run for ever within a tenth of a second. */
typedef struct jinja_limits {
    uint64_t steps;                /* nodes evaluated, items and 64 bytes of text gone through; 2.5 million + 2000 each */
    size_t output;                 /* bytes; 16 MiB + 256 each */
    size_t memory;                 /* bytes; 48 MiB + 2048 each */
    int depth;                     /* nested expressions, statements and macro calls; 1000 */
    uint32_t plain[2];             /* characters that tojson and repr write as they are, where they would escape them; 0: none */
} jinja_limits;

jinja *jinja_compile(const char *source, size_t size, vlm_error *error);
void jinja_free(jinja *t);

/* variables: an object. now: for strftime_now, NULL: the local time. Appends to *out only on success.
 * raise_exception gives VLM_INVALID with the template's own message; every other failure of the template VLM_FORMAT or VLM_LIMIT with
 * the line. report: NULL or what else is to be known. */
typedef struct jinja_report {
    uint64_t steps;                /* how many were taken */
    buf raised;                    /* the whole message of raise_exception, which error may have to cut; the caller releases it */
} jinja_report;
bool jinja_render(const jinja *t, const json_t *variables, const struct tm *now, const jinja_limits *limits, buf *out, jinja_report *report,
                  vlm_error *error);

/* Does `text` occur in the template's own text or in one of its string constants? */
bool jinja_writes(const jinja *t, const char *text);
/* The template's own text and its string constants, each followed by a zero byte. False: out of memory. */
bool jinja_literals(const jinja *t, buf *out);
/* Is `text` one of the template's string constants? */
bool jinja_has_string(const jinja *t, const char *text);
/* Does the template use the variable `name` anywhere? */
bool jinja_reads(const jinja *t, const char *name);

#endif
