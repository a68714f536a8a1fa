/* regex.c - see regex.h. regex_dialect.c rewrites the pattern. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/tokenizer/regex.h"

#include <pcre2.h>
#include <string.h>

#include "base/err.h"

struct regex { pcre2_code *code; pcre2_match_context *context; };
struct regex_scratch { pcre2_match_data *data; };

regex *regex_new(const char *pattern, size_t size, vlm_error *error) { return regex_new_in(REGEX_ONIGURUMA, pattern, size, error); }

regex *regex_new_in(regex_dialect dialect, const char *pattern, size_t size, vlm_error *error)
{
    regex *r = MEM_NEW(regex);
    pcre2_compile_context *settings = NULL;
    buf text = {.limit = 4 << 20};
    if (!r || !regex_translate(dialect, pattern, size, &text)) {
        if (r && text.size >= text.limit) err_set(error, VLM_LIMIT, "tokenizer pattern of %zu bytes is too long", size);
        else err_memory(error, size);
        goto fail;
    }
    settings = mem_inject() ? NULL : pcre2_compile_context_create(NULL);
    if (!settings) {
        err_memory(error, 0);
        goto fail;
    }
    pcre2_set_newline(settings, PCRE2_NEWLINE_LF);
    int code;
    PCRE2_SIZE offset;
    r->code = pcre2_compile((PCRE2_SPTR)(text.data ? text.data : ""), text.size,
                            PCRE2_UTF | PCRE2_UCP | (dialect == REGEX_ONIGURUMA ? PCRE2_MULTILINE : 0) | PCRE2_NEVER_BACKSLASH_C, &code, &offset, settings);
    if (!r->code) {
        PCRE2_UCHAR message[128];
        pcre2_get_error_message(code, message, sizeof message);
        err_set(error, VLM_FORMAT, "tokenizer pattern: %s at %zu of: %.300s", (const char *)message, (size_t)offset, text.data);
        goto fail;
    }
    r->context = pcre2_match_context_create(NULL);
    if (!r->context) {
        err_memory(error, 0);
        goto fail;
    }
    pcre2_set_match_limit(r->context, 20u * 1000 * 1000);
    pcre2_set_heap_limit(r->context, 64 * 1024);
    pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE);        /* failure is no error: the interpreter runs it */
    pcre2_compile_context_free(settings);
    buf_free(&text);
    return r;
fail:
    pcre2_compile_context_free(settings);
    buf_free(&text);
    regex_free(r);
    return NULL;
}

void regex_free(regex *r)
{
    if (!r) return;
    pcre2_code_free(r->code);
    pcre2_match_context_free(r->context);
    mem_free(r);
}

regex_scratch *regex_scratch_new(const regex *r)
{
    regex_scratch *s = MEM_NEW(regex_scratch);
    if (!s) return NULL;
    s->data = mem_inject() ? NULL : pcre2_match_data_create_from_pattern(r->code, NULL);
    if (!s->data) {
        mem_free(s);
        return NULL;
    }
    return s;
}

void regex_scratch_free(regex_scratch *s)
{
    if (!s) return;
    pcre2_match_data_free(s->data);
    mem_free(s);
}

int regex_find(const regex *r, regex_scratch *s, const char *text, size_t size, size_t start, size_t *from, size_t *to)
{
    int rc = pcre2_match(r->code, (PCRE2_SPTR)text, size, start, PCRE2_NO_UTF_CHECK, s->data, r->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(r->code, (PCRE2_SPTR)text, size, start, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, s->data, r->context);
    if (rc == PCRE2_ERROR_NOMATCH) return 0;
    if (rc < 0) return -1;
    PCRE2_SIZE *o = pcre2_get_ovector_pointer(s->data);
    *from = o[0];
    *to = o[1];
    return *from <= *to && *from >= start;                 /* \K in a lookahead could turn them round */
}
