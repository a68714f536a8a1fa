/* regex.c - see regex.h.
 *
 * Two dialect differences matter for published patterns: Oniguruma's \s is Unicode White_Space (PCRE2's has one character more), and its
 * ^ and $ work on lines. The first is spelled out while the pattern is copied, the second is an option. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/regex.h"

#include <pcre2.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"

struct regex { pcre2_code *code; pcre2_match_context *context; };
struct regex_scratch { pcre2_match_data *data; };

#define SPACES "\\t-\\r\\x20\\x85\\xa0\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"

/* Spells \s and \S out. */
static bool translate(const char *p, size_t n, buf *out)
{
    bool in_class = false;
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '\\' && i + 1 < n) {
            char c = p[++i];
            if (c == 's') buf_adds(out, in_class ? SPACES : "[" SPACES "]");
            else if (c == 'S' && !in_class) buf_adds(out, "[^" SPACES "]");
            else {
                buf_addc(out, '\\');
                buf_addc(out, c);
            }
            continue;
        }
        if (p[i] == '[') in_class = true;
        if (p[i] == ']') in_class = false;
        buf_addc(out, p[i]);
    }
    return !out->failed;
}

regex *regex_new(const char *pattern, size_t size, vlm_error *error)
{
    regex *r = MEM_NEW(regex);
    buf text = {.limit = 1 << 20};
    if (!r || !translate(pattern, size, &text)) {
        err_memory(error, size);
        goto fail;
    }
    int code;
    PCRE2_SIZE offset;
    r->code = pcre2_compile((PCRE2_SPTR)(text.data ? text.data : ""), text.size,
                            PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &code, &offset, NULL);
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
    buf_free(&text);
    return r;
fail:
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
