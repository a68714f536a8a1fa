/* unigram.c - Unigram (sentencepiece): the segmentation of a word with the highest sum of scores, by dynamic programming over
 * byte positions; and sentencepiece's precompiled character map, a DARTS double-array trie from byte strings to replacements. */
#include <math.h>
#include <string.h>

#include "text/tokenizer/internal.h"

static const double UNK_PENALTY = 10.0;

void tok_byte_tokens(tokenizer *t)
{
    for (int b = 0; b < 256; b++) {
        char name[8] = "<0xXX>";
        name[3] = "0123456789ABCDEF"[b >> 4];
        name[4] = "0123456789ABCDEF"[b & 15];
        t->byte_id[b] = tok_map_find(&t->vocab, name, 6);
    }
}

bool tok_unigram_load(tokenizer *t, const json_t *model, vlm_error *error)
{
    const json_t *vocab = json_object_get(model, "vocab");
    if (!json_is_array(vocab)) return err_set(error, VLM_FORMAT, "tokenizer.json: a Unigram vocabulary is a list of [text, score]");
    t->byte_fallback = json_is_true(json_object_get(model, "byte_fallback"));
    t->score = MEM_ARRAY(t->size, double);
    if (!t->score) return err_memory(error, t->size * sizeof *t->score);
    double lowest = INFINITY;
    for (size_t i = 0; i < json_array_size(vocab); i++) {
        const json_t *piece = json_array_get(json_array_get(vocab, i), 0);
        t->score[i] = json_number_value(json_array_get(json_array_get(vocab, i), 1));
        if (t->score[i] < lowest) lowest = t->score[i];
        if (!tok_trie_add(&t->pieces, json_string_value(piece), json_string_length(piece), (int32_t)i)) return err_memory(error, 0);
    }
    t->unk_score = lowest - UNK_PENALTY;
    tok_byte_tokens(t);
    return true;
}

static bool need_lattice(tok_scratch *s, size_t n)
{
    if (n <= s->lattice_capacity) return true;
    double *best = mem_resize(s->best, n, sizeof *best);
    if (best) s->best = best;
    int32_t *id = mem_resize(s->best_id, n, sizeof *id);
    if (id) s->best_id = id;
    size_t *start = mem_resize(s->best_start, n, sizeof *start);
    if (start) s->best_start = start;
    if (!best || !id || !start) return false;
    s->lattice_capacity = n;
    return true;
}

static void offer(const tokenizer *t, tok_scratch *s, size_t end, size_t start, double score, int32_t id)
{
    if (t->float_scores) score = (float)score;
    if (s->best[end] != -INFINITY && !(score > s->best[end])) return;
    s->best[end] = score;
    s->best_id[end] = id;
    s->best_start[end] = start;
}

/* Best way to every position. Id -2: one unknown character. */
static void fill_lattice(const tokenizer *t, const char *text, size_t size, tok_scratch *s)
{
    for (size_t i = 0; i <= size; i++) s->best[i] = -INFINITY;
    s->best[0] = 0;
    for (size_t i = 0; i < size;) {
        size_t length = utf8_size((unsigned char)text[i]);
        if (length > size - i) length = size - i;
        bool single = false;
        double base = s->best[i];
        uint32_t at = t->pieces.root[(unsigned char)text[i]];
        for (size_t j = i + 1; at; j++) {
            int32_t id = t->pieces.node[at].added;
            if (id >= 0) {
                offer(t, s, j, i, base + t->score[id], id);
                if (j - i == length) single = true;
            }
            if (j >= size) break;
            at = tok_trie_child(&t->pieces, at, (unsigned char)text[j]);
        }
        if (!single) offer(t, s, i + length, i, base + t->unk_score, -2);
        i += length;
    }
}

/* Unknown text: perhaps it is a token as a whole; else its bytes when all have a token, else unk. */
static bool add_unknown(const tokenizer *t, const char *text, size_t size, ids *out)
{
    int32_t whole = tok_map_find(&t->vocab, text, size);
    if (whole >= 0) return ids_add(out, whole);
    bool known = t->byte_fallback;
    for (size_t i = 0; known && i < size; i++) known = t->byte_id[(unsigned char)text[i]] >= 0;
    if (!known) return t->unk < 0 || ids_add(out, t->unk);
    for (size_t i = 0; i < size; i++)
        if (!ids_add(out, t->byte_id[(unsigned char)text[i]])) return false;
    return true;
}

bool tok_unigram(const tokenizer *t, const char *text, size_t size, tok_scratch *s, ids *out)
{
    if (!size) return true;
    if (!need_lattice(s, size + 1)) return false;
    fill_lattice(t, text, size, s);
    for (size_t end = size, following = SIZE_MAX; end > 0;) {          /* the best way back, turned into a way forward in place */
        size_t start = s->best_start[end];
        s->best_start[end] = following;
        following = end;
        if (start == 0) s->best_start[0] = end;
        end = start;
    }
    size_t begin = 0, unknown = SIZE_MAX;          /* unknown characters in a row become one */
    for (size_t at = s->best_start[0]; at != SIZE_MAX; at = s->best_start[at]) {
        if (s->best_id[at] == -2 || s->best_id[at] == t->unk) {    /* the text of unk itself is as unknown */
            if (unknown == SIZE_MAX) unknown = begin;
        } else {
            if (unknown != SIZE_MAX && !add_unknown(t, text + unknown, begin - unknown, out)) return false;
            unknown = SIZE_MAX;
            if (!ids_add(out, s->best_id[at])) return false;
        }
        begin = at;
    }
    return unknown == SIZE_MAX || add_unknown(t, text + unknown, size - unknown, out);
}

/* ---- precompiled character map ----
 * uint32 size of the trie in bytes, the trie's units, then the replacements as zero-terminated strings. */

typedef struct tok_charsmap { uint32_t units; const uint32_t *unit; const char *strings; size_t strings_size; } tok_charsmap;

static int base64_digit(char c)
{
    return c >= 'A' && c <= 'Z' ? c - 'A' : c >= 'a' && c <= 'z' ? c - 'a' + 26 : c >= '0' && c <= '9' ? c - '0' + 52 : c == '+' ? 62 : c == '/' ? 63 : -1;
}

size_t tok_base64(const char *text, size_t size, unsigned char *out)
{
    uint32_t bits = 0;
    int have = 0;
    size_t n = 0;
    for (size_t i = 0; i < size; i++) {
        int digit = base64_digit(text[i]);
        if (digit < 0) continue;
        bits = bits << 6 | (uint32_t)digit;
        have += 6;
        if (have >= 8) {
            have -= 8;
            out[n++] = (unsigned char)(bits >> have);
        }
    }
    return n;
}

bool tok_charsmap_from(tokenizer *t, const void *data, size_t size, const void **table, vlm_error *error)
{
    *table = NULL;
    if (!size) return true;                        /* no map: nothing is changed */
    tok_charsmap *map = arena_alloc(&t->strings, sizeof *map);
    uint32_t bytes = 0;
    if (size >= 4) memcpy(&bytes, data, 4);        /* little endian, as all our targets */
    if (size < 4 || bytes % 4 || bytes > size - 4) return err_set(error, VLM_FORMAT, "the tokenizer's precompiled_charsmap is damaged");
    uint32_t *unit = arena_alloc(&t->strings, size);
    if (!map || !unit) return err_memory(error, size);
    memcpy(unit, (const char *)data + 4, size - 4);
    *map = (tok_charsmap){bytes / 4, unit, (const char *)unit + bytes, size - 4 - bytes};
    *table = map;
    return true;
}

bool tok_charsmap_load(tokenizer *t, const char *base64, const void **table, vlm_error *error)
{
    size_t size = base64 ? strlen(base64) : 0;
    *table = NULL;
    if (!size) return true;
    unsigned char *data = mem_new(size + 4, 1);
    if (!data) return err_memory(error, size);
    size_t n = tok_base64(base64, size, data);
    bool ok = n ? tok_charsmap_from(t, data, n, table, error) : err_set(error, VLM_FORMAT, "tokenizer.json: precompiled_charsmap is damaged");
    mem_free(data);
    return ok;
}

/* Walks along text; the value of the first key that begins it, or of the longest; -1: none. *length: the key's. */
static int64_t find_prefix(const tok_charsmap *m, const char *text, size_t size, bool longest, size_t *length)
{
    int64_t found = -1;
    if (!m->units) return -1;
    size_t node = 0;
    uint32_t unit = m->unit[0];
    node ^= (unit >> 10) << ((unit & (1u << 9)) >> 6);
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == 0) break;
        node ^= c;
        if (node >= m->units) break;
        unit = m->unit[node];
        if ((unit & ((1u << 31) | 0xFF)) != c) break;
        node ^= (unit >> 10) << ((unit & (1u << 9)) >> 6);
        if (node >= m->units) break;
        if (unit >> 8 & 1) {
            found = m->unit[node] & ((1u << 31) - 1);
            *length = i + 1;
            if (!longest) break;
        }
    }
    return found;
}

size_t tok_charsmap_longest(const void *table, const char *text, size_t size, const char **replacement)
{
    const tok_charsmap *m = table;
    size_t length = 0;
    int64_t at = m ? find_prefix(m, text, size, true, &length) : -1;
    if (at < 0 || (size_t)at >= m->strings_size || !memchr(m->strings + at, 0, m->strings_size - (size_t)at)) return 0;
    *replacement = m->strings + at;
    return length;
}

static bool add_mapped(const tok_charsmap *m, const char *text, size_t size, buf *out, bool *mapped)
{
    size_t length;
    int64_t at = find_prefix(m, text, size, false, &length);
    *mapped = at >= 0 && (size_t)at < m->strings_size;
    if (!*mapped) return true;
    const char *s = m->strings + at;
    return buf_add(out, s, strnlen(s, m->strings_size - (size_t)at));
}

/* Text is taken grapheme by grapheme: short ones as a whole, else, and when there is no rule, character by character. */
bool tok_charsmap_run(const void *table, const char *text, size_t size, buf *out)
{
    const tok_charsmap *m = table;
    if (!m) return buf_add(out, text, size);
    for (size_t i = 0; i < size;) {
        size_t n = utf8_grapheme(text + i, size - i);
        bool mapped = false;
        if (n < 6 && !add_mapped(m, text + i, n, out, &mapped)) return false;
        for (size_t k = 0; !mapped && k < n;) {
            size_t c = utf8_size((unsigned char)text[i + k]);
            if (c > n - k) c = n - k;
            bool one = false;
            if (!add_mapped(m, text + i + k, c, out, &one) || (!one && !buf_add(out, text + i + k, c))) return false;
            k += c;
        }
        i += n;
    }
    return !out->failed;
}
