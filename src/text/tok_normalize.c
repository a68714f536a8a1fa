/* tok_normalize.c - the normalizer: text becomes the text that is split. Each step reads one buffer and writes another. */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "text/tok_internal.h"

static bool is_ascii(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if ((unsigned char)text[i] >= 0x80) return false;
    return true;
}

static bool unicode_form(const char *text, size_t size, utf8proc_option_t form, buf *out, vlm_error *error)
{
    if (is_ascii(text, size)) return buf_add(out, text, size) || err_memory(error, size);
    utf8proc_uint8_t *result = NULL;
    utf8proc_ssize_t n = mem_inject() ? UTF8PROC_ERROR_NOMEM : utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)size, &result, form);
    if (n < 0) return n == UTF8PROC_ERROR_NOMEM ? err_memory(error, size) : err_set(error, VLM_FORMAT, "text cannot be normalized");
    bool ok = buf_add(out, result, (size_t)n);
    free(result);
    return ok || err_memory(error, (size_t)n);
}

bool tok_replace(const tok_step *s, const char *text, size_t size, buf *out, vlm_error *error)
{
    size_t from, to, at = 0;
    if (!s->re) {
        while (s->text_size && (from = bytes_find(text, size, at, s->text, s->text_size)) != SIZE_MAX) {
            buf_add(out, text + at, from - at);
            buf_add(out, s->content, s->content_size);
            at = from + s->text_size;
        }
        return buf_add(out, text + at, size - at) || err_memory(error, size);
    }
    regex_scratch *scratch = regex_scratch_new(s->re);
    if (!scratch) return err_memory(error, 0);
    int rc = 0;
    size_t search = 0;
    while (search <= size && (rc = regex_find(s->re, scratch, text, size, search, &from, &to)) > 0) {
        buf_add(out, text + at, from - at);
        buf_add(out, s->content, s->content_size);
        at = to;
        search = to > from ? to : to < size ? to + utf8_size((unsigned char)text[to]) : size + 1;
    }
    regex_scratch_free(scratch);
    if (rc < 0) return err_set(error, VLM_LIMIT, "a tokenizer pattern needs too many steps on this text");
    return buf_add(out, text + at, size - at) || err_memory(error, size);
}

/* Rust's char::to_lowercase: simple mapping, but for U+0130. */
static bool lowercase(const char *text, size_t size, buf *out)
{
    for (size_t i = 0; i < size;) {
        uint32_t c;
        i += utf8_next_lossy(text + i, size - i, &c);
        if (c == 0x130) buf_adds(out, "i\xCC\x87");
        else buf_add_utf8(out, c < 0x80 ? (c >= 'A' && c <= 'Z' ? c + 32 : c) : (uint32_t)utf8proc_tolower((utf8proc_int32_t)c));
    }
    return !out->failed;
}

static bool strip(const char *text, size_t size, bool left, bool right, buf *out)
{
    size_t from = 0, to = 0;                       /* to: end of the last character that is no space */
    bool seen = false;
    for (size_t i = 0; i < size;) {
        uint32_t c;
        size_t used = utf8_next_lossy(text + i, size - i, &c);
        if (unicode_is_space(c)) {
            if (!seen && left) from = i + used;
        } else {
            seen = true;
            to = i + used;
        }
        i += used;
    }
    if (!right) to = size;
    return from >= to || buf_add(out, text + from, to - from);
}

static utf8proc_category_t category(uint32_t c) { return utf8proc_category((utf8proc_int32_t)c); }

static bool is_mark(uint32_t c)
{
    utf8proc_category_t k = category(c);
    return k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_MC || k == UTF8PROC_CATEGORY_ME;
}

/* Removes combining marks (Mn for BERT, all M for StripAccents). */
static bool strip_accents(const char *text, size_t size, bool only_nonspacing, buf *out)
{
    for (size_t i = 0; i < size;) {
        uint32_t c;
        size_t used = utf8_next_lossy(text + i, size - i, &c);
        bool drop = c >= 0x80 && (only_nonspacing ? category(c) == UTF8PROC_CATEGORY_MN : is_mark(c));
        if (!drop) buf_add(out, text + i, used);
        i += used;
    }
    return !out->failed;
}

static bool is_cjk(uint32_t c)
{
    return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
           (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) || (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

static bool bert_clean(const tok_step *s, const char *text, size_t size, buf *out)
{
    for (size_t i = 0; i < size;) {
        uint32_t c;
        size_t used = utf8_next_lossy(text + i, size - i, &c);
        bool space = c == '\t' || c == '\n' || c == '\r' || unicode_is_space(c);
        utf8proc_category_t k = category(c);
        bool control = !(c == '\t' || c == '\n' || c == '\r') && (k == UTF8PROC_CATEGORY_CC || k == UTF8PROC_CATEGORY_CF ||
                       k == UTF8PROC_CATEGORY_CO || k == UTF8PROC_CATEGORY_CS);
        if (s->flag && (c == 0 || c == 0xFFFD || control)) { }
        else if (s->flag && space) buf_addc(out, ' ');
        else if (s->flag2 && is_cjk(c)) {
            buf_addc(out, ' ');
            buf_add(out, text + i, used);
            buf_addc(out, ' ');
        } else buf_add(out, text + i, used);
        i += used;
    }
    return !out->failed;
}

static bool bert(const tok_step *s, const char *text, size_t size, buf *out, vlm_error *error)
{
    buf a = {0}, b = {0};
    bool ok = bert_clean(s, text, size, &a) || err_memory(error, size);
    if (ok && s->flag3) {
        ok = unicode_form(a.data ? a.data : "", a.size, UTF8PROC_DECOMPOSE | UTF8PROC_STABLE, &b, error);
        buf_clear(&a);
        if (ok) ok = strip_accents(b.data ? b.data : "", b.size, true, &a) || err_memory(error, size);
    }
    if (ok) ok = (s->flag4 ? lowercase(a.data ? a.data : "", a.size, out) : buf_add(out, a.data ? a.data : "", a.size)) || err_memory(error, size);
    buf_free(&a);
    buf_free(&b);
    return ok;
}

static bool nmt(const char *text, size_t size, buf *out)
{
    for (size_t i = 0; i < size;) {
        uint32_t c;
        size_t used = utf8_next_lossy(text + i, size - i, &c);
        bool drop = (c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F;
        bool space = c == 9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 || (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 ||
                     c == 0x2581 || c == 0xFEFF || c == 0xFFFD;
        if (space) buf_addc(out, ' ');
        else if (!drop) buf_add(out, text + i, used);
        i += used;
    }
    return !out->failed;
}

static bool run_step(const tok_step *s, const char *text, size_t size, buf *out, vlm_error *error)
{
    bool ok = true;
    switch (s->kind) {
    case NORM_NFC: return unicode_form(text, size, UTF8PROC_COMPOSE | UTF8PROC_STABLE, out, error);
    case NORM_NFD: return unicode_form(text, size, UTF8PROC_DECOMPOSE | UTF8PROC_STABLE, out, error);
    case NORM_NFKC: return unicode_form(text, size, UTF8PROC_COMPOSE | UTF8PROC_COMPAT | UTF8PROC_STABLE, out, error);
    case NORM_NFKD: return unicode_form(text, size, UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT | UTF8PROC_STABLE, out, error);
    case NORM_REPLACE: return tok_replace(s, text, size, out, error);
    case NORM_BERT: return bert(s, text, size, out, error);
    case NORM_PRECOMPILED: return tok_charsmap_run(s->table, text, size, out) || err_memory(error, size);
    case NORM_LOWERCASE: ok = lowercase(text, size, out); break;
    case NORM_PREPEND: ok = !size || (buf_add(out, s->text, s->text_size) && buf_add(out, text, size)); break;
    case NORM_STRIP: ok = strip(text, size, s->flag, s->flag2, out); break;
    case NORM_STRIP_ACCENTS: ok = strip_accents(text, size, false, out); break;
    case NORM_NMT: ok = nmt(text, size, out); break;
    case NORM_BYTE_LEVEL:
        for (size_t i = 0; i < size; i++) buf_add_utf8(out, tok_byte_to_char((unsigned char)text[i]));
        ok = !out->failed;
        break;
    default: ok = buf_add(out, text, size);
    }
    return ok || err_memory(error, size);
}

bool tok_normalize(const tokenizer *t, const char *text, size_t size, buf *out, vlm_error *error)
{
    buf work[2] = {{0}, {0}};
    bool ok = true;
    for (size_t i = 0; ok && i < t->normalizer.count; i++) {
        buf *to = &work[i & 1];
        buf_clear(to);
        ok = run_step(&t->normalizer.step[i], text, size, to, error);
        text = to->data ? to->data : "";
        size = to->size;
    }
    if (ok && !buf_add(out, text, size)) ok = err_memory(error, size);
    buf_free(&work[0]);
    buf_free(&work[1]);
    return ok;
}
