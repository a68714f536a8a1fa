/* chat_guard.c - a guard character inside every spelling of a control token that the request's strings contain.
 *
 * A token is broken after its first character, wherever it begins, so overlapping spellings break too. A string that ends like the
 * beginning of a token gets a guard at its end: otherwise two strings side by side in the prompt could make a token. */
#include <string.h>

#include "text/chat_internal.h"
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

bool chat_guard_init(chat_guard *g, const chat_template *t, const jinja *j, const tokenizer *tok, const char *const *placeholders,
                     const json_t *const *values, vlm_error *error)
{
    *g = (chat_guard){0};
    uint8_t *used = MEM_ARRAY(COUNT, uint8_t);
    size_t n = tok ? tokenizer_added_count(tok) : 0, extra = 0;
    while (placeholders && placeholders[extra]) extra++;
    g->token = MEM_ARRAY(n + extra + 1, const char *);
    if (!used || !g->token) {
        mem_free(used);
        return err_memory(error, (n + extra) * sizeof *g->token);
    }
    for (; *values; values++) mark_value(*values, used);
    if (t && t->source) mark_used(t->source, strlen(t->source), used);
    size_t free_one = 0;
    while (free_one < COUNT && used[free_one]) free_one++;
    mem_free(used);
    if (free_one == COUNT) return err_set(error, VLM_INVALID, "the request uses every character of the private use area");
    uint32_t c = FIRST + (uint32_t)free_one;
    g->text[0] = (char)(0xE0 | c >> 12);
    g->text[1] = (char)(0x80 | (c >> 6 & 63));
    g->text[2] = (char)(0x80 | (c & 63));
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < n; i++) {
            bool special;
            const char *token = tokenizer_added(tok, i, &special);
            if (!breakable(token) || special == (pass == 1)) continue;
            if (pass == 0 || (j && !is_blank(token) && jinja_writes(j, token))) g->token[g->count++] = token;
        }
        if (pass == 0) {
            for (size_t i = 0; i < extra; i++)
                if (breakable(placeholders[i])) g->token[g->count++] = placeholders[i];
            g->special = g->count;
        }
    }
    return true;
}

void chat_guard_free(chat_guard *g)
{
    mem_free(g->token);
    g->token = NULL;
    g->count = 0;
}

/* Does one of the tokens begin at s[0..n)? At the end of the string its beginning is enough. */
static bool token_begins(const chat_guard *g, const char *s, size_t n, bool assistant)
{
    size_t count = assistant ? g->special : g->count;
    for (size_t i = 0; i < count; i++) {
        const char *t = g->token[i];
        if (t[0] != s[0]) continue;
        size_t k = 1;
        while (k < n && t[k] && t[k] == s[k]) k++;
        if (k == n || !t[k]) return true;
    }
    return false;
}

static bool guard_text(chat_guard *g, const char *s, size_t n, bool assistant, buf *out)
{
    bool first[256] = {false};                     /* bytes that a token can begin with */
    for (size_t i = 0; i < g->count; i++) first[(unsigned char)g->token[i][0]] = true;
    size_t done = 0;
    for (size_t i = 0; i < n;) {
        size_t size = utf8_size((unsigned char)s[i]);
        if (size > n - i) size = n - i;
        if (first[(unsigned char)s[i]] && token_begins(g, s + i, n - i, assistant)) {
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
