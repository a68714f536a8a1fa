/* guard.c - a guard character inside every spelling of a control token that the request's strings contain.
 *
 * A token is broken after its first character, wherever it begins, so overlapping spellings break too. A string that ends like the
 * beginning of a token gets a guard at its end: otherwise two strings side by side in the prompt could make a token. */
#include <string.h>

#include "text/chat/internal.h"
#include "text/utf8.h"

enum { FIRST = 0xE000, COUNT = 6400 };             /* the private use area: no meaning, kept by every normal form */

static void mark_used(const char *s, size_t n, uint8_t *used)
{
    for (size_t i = 0; i + 2 < n; i++) {
        const unsigned char *u = (const unsigned char *)s + i;
        if (u[0] != 0xEE && u[0] != 0xEF) continue;
        uint32_t c = (u[0] & 15u) << 12 | (u[1] & 63u) << 6 | (u[2] & 63u);
        if (c >= FIRST && c < FIRST + COUNT) used[c - FIRST] = 1;
    }
}

static void mark_value(const json_t *v, uint8_t *used)
{
    const char *key;
    size_t i;
    json_t *item;
    if (json_is_string(v)) mark_used(json_string_value(v), json_string_length(v), used);
    else if (json_is_array(v)) json_array_foreach((json_t *)v, i, item) mark_value(item, used);
    else if (json_is_object(v)) json_object_foreach((json_t *)v, key, item) {
        mark_used(key, strlen(key), used);
        mark_value(item, used);
    }
}

static bool is_blank(const char *s)
{
    for (size_t n = strlen(s), i = 0; i < n;) {
        uint32_t c;
        i += utf8_next_lossy(s + i, n - i, &c);
        if (!unicode_is_space(c) && c != 0x2581) return false;
    }
    return true;
}

static bool breakable(const char *s) { return s && *s && s[utf8_size((unsigned char)*s)]; }

/* Added tokens that occur in the template's own text. */
static bool mark_written(const jinja *j, const tokenizer *tok, uint8_t *written)
{
    tok_trie *all = MEM_NEW(tok_trie);
    buf text = {0};
    bool ok = all && jinja_literals(j, &text);
    for (size_t i = 0; ok && i < tokenizer_added_count(tok); i++) {
        const char *token = tokenizer_added(tok, i, NULL);
        ok = tok_trie_add(all, token, strlen(token), (int32_t)i);
    }
    for (size_t i = 0; ok && i < text.size; i++) {
        uint32_t at = all->root[(unsigned char)text.data[i]];
        for (size_t k = i + 1; at; k++) {
            if (all->node[at].added >= 0) written[all->node[at].added] = 1;
            at = k < text.size ? tok_trie_child(all, at, (unsigned char)text.data[k]) : 0;
        }
    }
    if (all) tok_trie_free(all);
    mem_free(all);
    buf_free(&text);
    return ok;
}

bool chat_guard_tokens(const jinja *j, const tokenizer *tok, tok_trie *out)
{
    size_t n = tokenizer_added_count(tok);
    uint8_t *written = MEM_ARRAY(n, uint8_t);
    bool ok = written && (!j || mark_written(j, tok, written));
    for (size_t i = 0; ok && i < n; i++) {
        bool special;
        const char *token = tokenizer_added(tok, i, &special);
        if (breakable(token) && (special || (written[i] && !is_blank(token)))) ok = tok_trie_add(out, token, strlen(token), !special);
    }
    mem_free(written);
    return ok;
}

static void spell(uint32_t c, char out[5])
{
    out[0] = (char)(0xE0 | c >> 12);
    out[1] = (char)(0x80 | (c >> 6 & 63));
    out[2] = (char)(0x80 | (c & 63));
    out[3] = 0;
}

bool chat_guard_init(chat_guard *g, const chat_template *t, const chat_variant *v, const jinja *j, const tokenizer *tok,
                     const char *const *placeholders, const json_t *const *values, vlm_error *error)
{
    *g = (chat_guard){.placeholders = placeholders};
    uint8_t *used = MEM_ARRAY(COUNT, uint8_t);
    if (!used) return err_memory(error, COUNT);
    for (; *values; values++) mark_value(*values, used);
    if (v) mark_used(v->source, strlen(v->source), used);
    size_t free_one = 0, free_two;
    while (free_one < COUNT && used[free_one]) free_one++;
    for (free_two = free_one + 1; free_two < COUNT && used[free_two];) free_two++;
    mem_free(used);
    if (free_two >= COUNT) return err_set(error, VLM_INVALID, "the request uses every character of the private use area");
    spell(FIRST + (uint32_t)free_one, g->text);
    spell(FIRST + (uint32_t)free_two, g->mark);
    g->control = &g->own;
    if (v && tok && t->tok == tok) g->control = &v->control;
    else if (tok && !chat_guard_tokens(j, tok, &g->own)) return err_memory(error, 0);
    return true;
}

void chat_guard_free(chat_guard *g) { tok_trie_free(&g->own); }

/* Does a control token begin at s[0..n)? At the end of the string its beginning is enough. */
static bool token_begins(const chat_guard *g, const char *s, size_t n, bool assistant)
{
    uint32_t at = g->control->root[(unsigned char)s[0]];
    for (size_t k = 1; at; k++) {
        int32_t kind = g->control->node[at].added;
        if (kind == 0 || (kind == 1 && !assistant)) return true;
        if (k == n) return true;
        at = tok_trie_child(g->control, at, (unsigned char)s[k]);
    }
    for (size_t i = 0; g->placeholders && g->placeholders[i]; i++) {
        const char *p = g->placeholders[i];
        size_t k = 0;
        while (k < n && p[k] && p[k] == s[k]) k++;
        if (k && breakable(p) && (k == n || !p[k])) return true;
    }
    return false;
}

/* Length of the token at s[0..n) that people may type; 0: none. */
static size_t typed_token(const chat_guard *g, const char *s, size_t n)
{
    for (size_t i = 0; g->typed && g->typed[i]; i++) {
        size_t size = strlen(g->typed[i]);
        if (size <= n && !memcmp(s, g->typed[i], size)) return size;
    }
    return 0;
}

static bool guard_text(chat_guard *g, const char *s, size_t n, bool assistant, buf *out)
{
    size_t done = 0;
    for (size_t i = 0; i < n;) {
        size_t size = utf8_size((unsigned char)s[i]);
        if (size > n - i) size = n - i;
        size_t typed = typed_token(g, s + i, n - i);
        if (typed) {
            i += typed;
            continue;
        }
        if (token_begins(g, s + i, n - i, assistant)) {
            if (!buf_add(out, s + done, i + size - done) || !buf_adds(out, g->text)) return false;
            done = i + size;
            g->used = true;
        }
        i += size;
    }
    return done == 0 || buf_add(out, s + done, n - done);
}

static json_t *guard_string(chat_guard *g, const char *s, size_t n, bool assistant)
{
    buf text = {0};
    json_t *v = NULL;
    if (guard_text(g, s, n, assistant, &text)) v = text.size ? json_stringn_nocheck(text.data, text.size) : json_stringn_nocheck(s, n);
    buf_free(&text);
    return v;
}

static json_t *guard_object(chat_guard *g, const json_t *value, bool assistant)
{
    json_t *out = json_object();
    const char *key;
    json_t *item;
    json_object_foreach((json_t *)value, key, item) {
        buf name = {0};
        json_t *guarded = chat_guard_value(g, item, assistant);
        bool ok = guarded && guard_text(g, key, strlen(key), assistant, &name);
        /* json_object_set_new_nocheck releases `guarded` whatever comes of it */
        if (ok) ok = json_object_set_new_nocheck(out, name.size ? name.data : key, guarded) == 0;
        else json_decref(guarded);
        buf_free(&name);
        if (!ok) {
            json_decref(out);
            return NULL;
        }
    }
    return out;
}

json_t *chat_guard_value(chat_guard *g, const json_t *value, bool assistant)
{
    size_t i;
    json_t *item;
    if (json_is_string(value)) return guard_string(g, json_string_value(value), json_string_length(value), assistant);
    if (json_is_object(value)) return guard_object(g, value, assistant);
    if (!json_is_array(value)) return json_incref((json_t *)value);
    json_t *out = json_array();
    json_array_foreach((json_t *)value, i, item) {
        json_t *guarded = chat_guard_value(g, item, assistant);
        if (!guarded || json_array_append_new(out, guarded) != 0) {
            json_decref(out);
            return NULL;
        }
    }
    return out;
}
