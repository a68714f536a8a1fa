/* vocab.c - the bytes of a model's tokens as tries, in preorder, so that a walk is a scan that skips what cannot follow.
 *
 * Most tokens are plain text, which is allowed as a whole inside a JSON string. Plain tokens therefore have tries of their own, by number
 * of characters, each with a mask of all its tokens: where any plain text of that length may follow, the mask is taken and nothing walked.
 * Tokens of more than 32 bytes, which are few, are kept apart; see mask.c. */
#include <string.h>

#include "text/grammar/internal.h"
#include "text/utf8.h"

static const uint32_t bounds[GRAMMAR_TRIES] = {0, 2, 4, 6, 8, 12, 16, GRAMMAR_LONG, 0, UINT32_MAX};

/* Which trie: 0 or 8 when a character is not plain, or cut. */
static int trie_of(const uint8_t *s, size_t n)
{
    const int other = n > GRAMMAR_LONG ? GRAMMAR_LONG_TRIES : 0;
    for (size_t i = 0; i < n; i++) if (s[i] < 0x80 && !grammar_plain_ascii(s[i])) return other;
    if (!utf8_valid((const char *)s, n)) return other;
    if (other) return GRAMMAR_LONG_TRIES + 1;
    const size_t chars = utf8_length((const char *)s, n);
    int k = 1;
    while (chars > bounds[k]) k++;
    return k;
}

typedef struct entry { uint64_t key; uint32_t id; } entry;

/* Radix sort by the first eight bytes. */
static void sort_entries(entry *a, entry *b, size_t n)
{
    for (int shift = 0; shift < 64; shift += 8) {
        size_t start[257] = {0};
        for (size_t i = 0; i < n; i++) start[(a[i].key >> shift & 255) + 1]++;
        if (start[(a[0].key >> shift & 255) + 1] == n) continue;
        for (int i = 0; i < 256; i++) start[i + 1] += start[i];
        for (size_t i = 0; i < n; i++) b[start[a[i].key >> shift & 255]++] = a[i];
        memcpy(a, b, n * sizeof *a);
    }
}

static const uint8_t *bytes_of(const grammar_vocab *v, uint32_t id, size_t *n)
{
    *n = v->start[id + 1] - v->start[id];
    return v->bytes + v->start[id];
}

static int compare(const grammar_vocab *v, uint32_t a, uint32_t b)
{
    size_t n, m;
    const uint8_t *x = bytes_of(v, a, &n), *y = bytes_of(v, b, &m);
    const int c = memcmp(x, y, n < m ? n : m);
    if (c) return c;
    if (n != m) return n < m ? -1 : 1;
    return a < b ? -1 : a > b;
}

/* Entries whose first eight bytes agree: few, unless hostile; merge sort, stable and never quadratic. */
static void sort_ties(const grammar_vocab *v, entry *a, entry *b, size_t n)
{
    if (n <= 8) {
        for (size_t i = 1; i < n; i++) {
            const entry x = a[i];
            size_t j = i;
            for (; j && compare(v, a[j - 1].id, x.id) > 0; j--) a[j] = a[j - 1];
            a[j] = x;
        }
        return;
    }
    const size_t half = n / 2;
    sort_ties(v, a, b, half);
    sort_ties(v, a + half, b, n - half);
    memcpy(b, a, half * sizeof *a);
    size_t i = 0, j = half, k = 0;
    while (i < half) a[k++] = j < n && compare(v, a[j].id, b[i].id) < 0 ? a[j++] : b[i++];
}

/* Closes the nodes of the path down to depth `same`. */
static void close_nodes(gtrie *t, const uint32_t *open, size_t *depth, size_t same)
{
    while (*depth > same) {
        gtrie_node *n = &t->node[open[--*depth]];
        n->next = (uint32_t)t->count;
        if (!*depth) continue;
        gtrie_node *up = &t->node[open[*depth - 1]];
        const unsigned tail = n->tail == 255 ? 255 : n->tail + ((n->byte & 0xC0) != 0x80);
        if (tail > up->tail) up->tail = (uint8_t)tail;
    }
}

static bool build_trie(grammar_vocab *v, gtrie *t, const entry *e, size_t n, uint32_t *open)
{
    size_t nodes = 0, depth = 0, before = 0;
    const uint8_t *previous = NULL;
    if (!(t->order = MEM_ARRAY(n + 1, uint32_t))) return false;
    for (int pass = 0; pass < 2; pass++) {         /* count, then make */
        if (pass && !(t->node = MEM_ARRAY(nodes + 1, gtrie_node))) return false;
        before = 0;
        for (size_t i = 0; i < n; i++) {
            size_t size, same = 0;
            const uint8_t *s = bytes_of(v, e[i].id, &size);
            while (same < before && same < size && previous[same] == s[same]) same++;
            previous = s;
            before = size;
            if (!pass) {
                nodes += size - same;
                continue;
            }
            close_nodes(t, open, &depth, same);
            for (; depth < size; depth++) {
                open[depth] = (uint32_t)t->count;
                t->node[t->count++] = (gtrie_node){.token = -1, .rank = (uint32_t)i, .byte = s[depth], .depth = (uint16_t)(depth + 1)};
            }
            gtrie_node *leaf = &t->node[open[size - 1]];
            if (leaf->token < 0) leaf->token = (int32_t)e[i].id;
            t->order[i] = e[i].id;
            t->all[e[i].id / 64] |= 1ull << (e[i].id % 64);
        }
    }
    close_nodes(t, open, &depth, 0);
    for (uint32_t i = 0; i < t->count; i = t->node[i].next) t->first[t->node[i].byte] = i;
    t->node[t->count] = (gtrie_node){.rank = (uint32_t)n, .token = -1};
    return true;
}

static uint32_t name_hash(const void *name, size_t n)
{
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < n; i++) h = (h ^ ((const uint8_t *)name)[i]) * 16777619u;
    return h ^ h >> 15;
}

static bool index_names(grammar_vocab *v)
{
    size_t n = 0;
    for (size_t i = 0; i < v->count; i++) n += v->special[i] & 1;
    v->names_size = 64;
    while (v->names_size < 2 * n) v->names_size *= 2;
    if (!(v->names = MEM_ARRAY(v->names_size, uint32_t))) return false;
    for (uint32_t i = 0; i < v->count; i++) {
        size_t size;
        const uint8_t *name = bytes_of(v, i, &size);
        if (!(v->special[i] & 1) || !size) continue;
        size_t at = name_hash(name, size) & (v->names_size - 1);
        while (v->names[at]) at = (at + 1) & (v->names_size - 1);
        v->names[at] = i + 1;
    }
    return true;
}

int32_t grammar_vocab_special(const grammar_vocab *v, const void *name, size_t size)
{
    for (size_t at = name_hash(name, size) & (v->names_size - 1); v->names[at]; at = (at + 1) & (v->names_size - 1)) {
        size_t n;
        const uint8_t *s = bytes_of(v, v->names[at] - 1, &n);
        if (n == size && !memcmp(s, name, n)) return (int32_t)v->names[at] - 1;
    }
    return -1;
}

static bool build(grammar_vocab *v)
{
    enum { LONGEST = 60000 };
    size_t n[GRAMMAR_TRIES] = {0};
    uint8_t *which = MEM_ARRAY(v->count + 1, uint8_t);
    entry *e = MEM_ARRAY(v->count + 1, entry), *other = MEM_ARRAY(v->count + 1, entry);
    uint32_t *open = NULL;
    bool done = which && e && other;
    for (uint32_t i = 0; i < v->count && done; i++) {
        size_t size;
        const uint8_t *s = bytes_of(v, i, &size);
        which[i] = 255;
        if (!size || size > LONGEST || (v->special[i] & 3)) continue;
        if (size > v->longest) v->longest = size;
        n[which[i] = (uint8_t)trie_of(s, size)]++;
    }
    done = done && (open = MEM_ARRAY(v->longest + 1, uint32_t));
    for (int k = 0; k < GRAMMAR_TRIES && done; k++) {
        gtrie *t = &v->trie[k];
        t->plain = bounds[k];
        memset(t->first, 0xFF, sizeof t->first);
        if (!(done = (t->all = MEM_ARRAY(v->words + 1, uint64_t)) != NULL)) break;
        size_t m = 0;
        for (uint32_t i = 0; i < v->count; i++) {
            if (which[i] != k) continue;
            size_t size;
            const uint8_t *s = bytes_of(v, i, &size);
            uint64_t key = 0;
            for (size_t b = 0; b < 8; b++) key = key << 8 | (b < size ? s[b] : 0);
            e[m++] = (entry){key, i};
        }
        if (!m) continue;
        sort_entries(e, other, m);
        for (size_t i = 0, end; i < m; i = end) {
            for (end = i + 1; end < m && e[end].key == e[i].key;) end++;
            if (end - i > 1) sort_ties(v, e + i, other, end - i);
        }
        done = build_trie(v, t, e, m, open);
    }
    mem_free(which);
    mem_free(e);
    mem_free(other);
    mem_free(open);
    return done;
}

grammar_vocab *grammar_vocab_new(const grammar_piece *piece, size_t count, const int32_t *eos, size_t n_eos, vlm_error *error)
{
    grammar_vocab *v = MEM_NEW(grammar_vocab);
    size_t total = 0;
    for (size_t i = 0; i < count; i++) total += piece[i].size;
    bool done = v && count < INT32_MAX && total < UINT32_MAX;
    if (done) {
        v->references = 1;
        v->count = count;
        v->words = (count + 63) / 64;
        v->bytes = mem_new(total + 1, 1);
        v->start = MEM_ARRAY(count + 1, uint32_t);
        v->special = MEM_ARRAY(count + 1, uint8_t);
        v->eos = MEM_ARRAY(n_eos + 1, int32_t);
        done = v->bytes && v->start && v->special && v->eos;
    }
    for (size_t i = 0; i < count && done; i++) {
        if (piece[i].size) memcpy(v->bytes + v->start[i], piece[i].bytes, piece[i].size);
        v->start[i + 1] = v->start[i] + (uint32_t)piece[i].size;
        v->special[i] = piece[i].special;
    }
    for (size_t i = 0; i < n_eos && done; i++) {
        if (eos[i] < 0 || (size_t)eos[i] >= count) continue;
        v->eos[v->n_eos++] = eos[i];
        v->special[eos[i]] |= 2;
    }
    if (done && build(v) && index_names(v)) return v;
    grammar_vocab_unref(v);
    err_memory(error, total);
    return NULL;
}

grammar_vocab *grammar_vocab_from_tokenizer(const tokenizer *t, const int32_t *eos, size_t n_eos, vlm_error *error)
{
    const size_t n = tokenizer_size(t);
    buf bytes = {0};
    size_t *start = MEM_ARRAY(n + 1, size_t);
    grammar_piece *piece = MEM_ARRAY(n + 1, grammar_piece);
    grammar_vocab *v = NULL;
    for (size_t i = 0; i < n && start && piece && !bytes.failed; i++) {
        start[i] = bytes.size;
        if (!tokenizer_token_bytes(t, (int32_t)i, &bytes)) {
            const char *name = tokenizer_token(t, (int32_t)i);
            piece[i].special = true;
            if (name) buf_adds(&bytes, name);
        }
        start[i + 1] = bytes.size;
    }
    if (start && piece && !bytes.failed) {
        for (size_t i = 0; i < n; i++) {
            piece[i].bytes = bytes.data + start[i];
            piece[i].size = start[i + 1] - start[i];
        }
        v = grammar_vocab_new(piece, n, eos, n_eos, error);
    } else err_memory(error, 0);
    buf_free(&bytes);
    mem_free(start);
    mem_free(piece);
    return v;
}

grammar_vocab *grammar_vocab_ref(grammar_vocab *v)
{
    if (v) v->references++;
    return v;
}

void grammar_vocab_unref(grammar_vocab *v)
{
    if (!v || --v->references > 0) return;
    for (int k = 0; k < GRAMMAR_TRIES; k++) {
        mem_free(v->trie[k].node);
        mem_free(v->trie[k].all);
        mem_free(v->trie[k].order);
    }
    mem_free(v->bytes);
    mem_free(v->start);
    mem_free(v->special);
    mem_free(v->eos);
    mem_free(v->names);
    mem_free(v);
}

size_t grammar_vocab_size(const grammar_vocab *v) { return v->count; }
size_t grammar_vocab_words(const grammar_vocab *v) { return v->words; }
