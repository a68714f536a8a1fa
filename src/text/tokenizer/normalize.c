/* normalize.c - the normalizer: text becomes the text that is split. Each step reads one buffer and writes another. */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "text/tokenizer/internal.h"

/* ---- normal forms ---- */

/* What the form leaves alone, and what never joins with the character before it: most of all text. */
static bool is_stable(uint32_t c, utf8proc_option_t form)
{
    if (c < 0xA0) return true;
    if (c < 0x300) return !(form & UTF8PROC_COMPAT) && (c < 0xC0 || form & UTF8PROC_COMPOSE);
    if ((c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x2010 && c <= 0x2016) || (c >= 0x3001 && c <= 0x3029) || (c >= 0x1F300 && c <= 0x1FAFF)) return c != 0x2011;
    if (!(form & UTF8PROC_COMPOSE)) return false;
    return (c >= 0x391 && c <= 0x3CE) || (c >= 0x400 && c <= 0x482) || (c >= 0x3041 && c <= 0x3096) || (c >= 0x30A1 && c <= 0x30FA) || (c >= 0xAC00 && c <= 0xD7A3);
}

static bool convert(const char *text, size_t size, utf8proc_option_t form, buf *out, vlm_error *error)
{
    utf8proc_uint8_t *result = NULL;
    utf8proc_ssize_t n = mem_inject() ? UTF8PROC_ERROR_NOMEM : utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)size, &result, form);
    if (n < 0) return n == UTF8PROC_ERROR_NOMEM ? err_memory(error, size) : err_set(error, VLM_FORMAT, "text cannot be normalized");
    bool ok = buf_add(out, result, (size_t)n);
    free(result);
    return ok || err_memory(error, (size_t)n);
}

/* Copies what is stable and converts the runs between. A run takes the character before it along, which may be the base of what follows. Characters that
 * the reference's tables do not know yet are neither changed nor moved. */
static bool unicode_form(const char *text, size_t size, utf8proc_option_t form, buf *out, vlm_error *error)
{
    size_t clean = 0, previous = 0;                /* text[clean..previous) is to be copied; at `previous` the last character begins */
    for (size_t i = 0; i < size;) {
        uint32_t c = (unsigned char)text[i];
        size_t used = c < 0x80 ? 1 : utf8_next_lossy(text + i, size - i, &c);
        bool inert = c >= 0x370 && !is_stable(c, form) && unicode_in(UNICODE_INERT, c);
        if (inert || is_stable(c, form)) {
            previous = i;
            i += used;
            if (inert) previous = i;               /* no base for anything */
            continue;
        }
        size_t end = i;
        while (end < size) {
            used = utf8_next_lossy(text + end, size - end, &c);
            if (is_stable(c, form) || (c >= 0x370 && unicode_in(UNICODE_INERT, c))) break;
            end += used;
        }
        if (!buf_add(out, text + clean, previous - clean)) return err_memory(error, size);
        if (!convert(text + previous, end - previous, form, out, error)) return false;
        clean = previous = i = end;
    }
    return buf_add(out, text + clean, size - clean) || err_memory(error, size);
}

/* ---- matches of a pattern ---- */

bool tok_matches_begin(tok_matches *m, const tok_step *step, const char *text, size_t size, vlm_error *error)
{
    *m = (tok_matches){.step = step, .text = text, .size = size, .last = SIZE_MAX};
    if (!step->re) return true;
    m->scratch = regex_scratch_new(step->re);
    return m->scratch != NULL || err_memory(error, 0);
}

int tok_matches_next(tok_matches *m, size_t *from, size_t *to, vlm_error *error)
{
    const tok_step *s = m->step;
    if (!s->re) {
        *from = s->text_size ? bytes_find(m->text, m->size, m->search, s->text, s->text_size) : SIZE_MAX;
        if (*from == SIZE_MAX) return 0;
        *to = m->search = *from + s->text_size;
        return 1;
    }
    while (m->search <= m->size) {
        int rc = regex_find(s->re, m->scratch, m->text, m->size, m->search, from, to);
        if (rc < 0) err_set(error, VLM_LIMIT, "a tokenizer pattern needs too many steps on this text");
        if (rc <= 0) return rc;
        if (*from == *to && *to == m->last) {      /* empty, right behind the last one */
            m->search += m->search < m->size ? utf8_size((unsigned char)m->text[m->search]) : 1;
            continue;
        }
        m->search = m->last = *to;
        return 1;
    }
    return 0;
}

void tok_matches_end(tok_matches *m) { regex_scratch_free(m->scratch); }

bool tok_replace(const tok_step *s, const char *text, size_t size, buf *out, vlm_error *error)
{
    tok_matches m;
    size_t from, to, at = 0;
    int more = 0;
    if (!tok_matches_begin(&m, s, text, size, error)) return false;
    while (size && (more = tok_matches_next(&m, &from, &to, error)) > 0) {
        buf_add(out, text + at, from - at);
        buf_add(out, s->content, s->content_size);
        at = to;
    }
    tok_matches_end(&m);
    if (more < 0) return false;
    return buf_add(out, text + at, size - at) || err_memory(error, size);
}

/* ---- steps ---- */

static bool lowercase(const char *text, size_t size, buf *out)
{
    for (size_t i = 0; i < size;) {
        uint32_t c = (unsigned char)text[i], second = 0;
        if (c < 0x80) {
            buf_addc(out, (char)(c >= 'A' && c <= 'Z' ? c + 32 : c));
            i++;
            continue;
        }
        i += utf8_next_lossy(text + i, size - i, &c);
        buf_add_utf8(out, unicode_lower(c, &second));
        if (second) buf_add_utf8(out, second);
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

static bool remove_set(unicode_set set, const char *text, size_t size, buf *out)
{
    for (size_t i = 0; i < size;) {
        uint32_t c;
        size_t used = utf8_next_lossy(text + i, size - i, &c);
        if (c < 0x80 || !unicode_in(set, c)) buf_add(out, text + i, used);
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
        if (s->flag && (c == 0 || c == 0xFFFD || unicode_in(UNICODE_BERT_CONTROL, c))) { }
        else if (s->flag && unicode_is_space(c)) buf_addc(out, ' ');
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
        if (ok) ok = remove_set(UNICODE_BERT_ACCENT, b.data ? b.data : "", b.size, &a) || err_memory(error, size);
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

static bool run_step(const tok_step *s, const char *text, size_t size, bool first, buf *out, vlm_error *error)
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
    case NORM_SENTENCEPIECE: ok = tok_spm_normalize(s->table, text, size, first, out); break;
    case NORM_LOWERCASE: ok = lowercase(text, size, out); break;
    case NORM_PREPEND: ok = !size || (buf_add(out, s->text, s->text_size) && buf_add(out, text, size)); break;
    case NORM_STRIP: ok = strip(text, size, s->flag, s->flag2, out); break;
    case NORM_STRIP_ACCENTS: ok = remove_set(UNICODE_MARK_REMOVED, text, size, out); break;
    case NORM_NMT: ok = nmt(text, size, out); break;
    case NORM_BYTE_LEVEL:
        for (size_t i = 0; i < size; i++) buf_add_utf8(out, tok_byte_to_char((unsigned char)text[i]));
        ok = !out->failed;
        break;
    default: ok = buf_add(out, text, size);
    }
    return ok || err_memory(error, size);
}

/* Does the step take the text's first character away, or put something in its place that counts as standing behind it? */
static bool keeps_beginning(const tok_step *s, const char *text, size_t size)
{
    uint32_t c;
    size_t from, to;
    if (!size) return true;
    size_t used = utf8_next_lossy(text, size, &c);
    switch (s->kind) {
    case NORM_STRIP: return !s->flag || !unicode_is_space(c);
    case NORM_STRIP_ACCENTS: return c < 0x80 || !unicode_in(UNICODE_MARK_REMOVED, c);
    case NORM_NMT: return !((c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F);
    case NORM_BERT: return !(s->flag && (c == 0 || c == 0xFFFD || unicode_in(UNICODE_BERT_CONTROL, c))) && !(s->flag3 && unicode_in(UNICODE_BERT_ACCENT, c));
    case NORM_REPLACE: {
        tok_matches m;
        bool hit = tok_matches_begin(&m, s, text, size, NULL) && tok_matches_next(&m, &from, &to, NULL) > 0 && from == 0 && to > 0;
        tok_matches_end(&m);
        return !hit || (s->content_size && to <= used);
    }
    default: return true;
    }
}

bool tok_normalize(const tokenizer *t, const char *text, size_t size, bool *first, buf *out, vlm_error *error)
{
    buf work[2] = {{0}, {0}};
    bool ok = true;
    for (size_t i = 0; ok && i < t->normalizer.count; i++) {
        const tok_step *s = &t->normalizer.step[i];
        bool last = i + 1 == t->normalizer.count;
        buf *to = last ? out : &work[i & 1];
        if (!last) buf_clear(to);
        if (first && *first && t->wants_first) *first = keeps_beginning(s, text, size);
        ok = run_step(s, text, size, !first || *first, to, error);
        text = to->data ? to->data : "";
        size = to->size;
    }
    if (ok && !t->normalizer.count && !buf_add(out, text, size)) ok = err_memory(error, size);
    buf_free(&work[0]);
    buf_free(&work[1]);
    return ok;
}
