/* bpe.c - byte pair encoding of one word: load merges, start from characters (or bytes), merge the pair of lowest rank until none is left.
 *
 * Where no token holds two characters side by side, nothing is ever merged across the joint between them: a long word is cut there, and the parts are
 * encoded one by one, or found among those met before.
 *
 * The symbols are a doubly linked list in an array. Short words look for the best pair by scanning; long ones (SentencePiece-style
 * models have no pre-tokenizer: the whole text is one word) keep candidates in a heap, which makes them O(n log n). Both take the
 * lowest rank first, and of equal ranks the leftmost, so they agree. */
#include <string.h>

#include "text/tokenizer/internal.h"

enum { SCAN_LIMIT = 32 };                          /* longest word, in symbols, that is scanned */

/* ---- merges: hash from pair of ids to rank and result ---- */

static size_t merge_slot(const tokenizer *t, uint64_t pair)
{
    size_t mask = t->merge_capacity - 1;
    size_t i = (size_t)((pair * 0x9E3779B97F4A7C15u) >> 24) & mask;
    while (t->merges[i].id >= 0 && t->merges[i].pair != pair) i = (i + 1) & mask;
    return i;
}

static inline const tok_merge *find_merge(const tokenizer *t, int32_t left, int32_t right)
{
    if (left < 0 || right < 0 || !t->merge_capacity) return NULL;
    const tok_merge *m = &t->merges[merge_slot(t, (uint64_t)(uint32_t)left << 32 | (uint32_t)right)];
    return m->id >= 0 ? m : NULL;
}

/* The vocabulary's form of a merge's half: raw bytes where the vocabulary is byte-level. */
static bool add_raw(const tokenizer *t, const char *text, size_t size, buf *out)
{
    if (!t->raw_bytes) return buf_add(out, text, size);
    size_t begin = out->size;
    for (size_t i = 0; i < size;) {
        uint32_t code;
        i += utf8_next_lossy(text + i, size - i, &code);
        int byte = tok_char_to_byte(code);
        if (byte < 0) {                            /* not of the byte alphabet: kept as it is, as in the vocabulary */
            out->size = begin;
            return buf_add(out, text, size);
        }
        if (!buf_addc(out, (char)byte)) return false;
    }
    return true;
}

/* "left right", split at its space. */
static bool split_words(const char *text, size_t size, const char *part[2], size_t sizes[2])
{
    const char *space = memchr(text, ' ', size);
    if (!space) return false;
    part[0] = text;
    sizes[0] = (size_t)(space - text);
    part[1] = space + 1;
    sizes[1] = size - sizes[0] - 1;
    return true;
}

static bool split_merge(const json_t *item, const char *part[2], size_t size[2])
{
    if (json_is_array(item) && json_array_size(item) == 2) {
        for (size_t k = 0; k < 2; k++) {
            const json_t *s = json_array_get(item, k);
            if (!json_is_string(s)) return false;
            part[k] = json_string_value(s);
            size[k] = json_string_length(s);
        }
        return true;
    }
    return json_is_string(item) && split_words(json_string_value(item), json_string_length(item), part, size);
}

/* The next merge of the text: 1, 0 at the end, -1 when it is damaged. */
static int next_merge(tok_scan *s, bool first, const char *part[2], size_t size[2])
{
    if (tok_scan_take(s, ']')) return 0;
    if (!first && !tok_scan_take(s, ',')) return -1;
    if (tok_scan_take(s, '['))
        return tok_scan_string(s, 0, &part[0], &size[0]) && tok_scan_take(s, ',') && tok_scan_string(s, 1, &part[1], &size[1]) && tok_scan_take(s, ']') ? 1 : -1;
    const char *text;
    size_t n;
    return tok_scan_string(s, 0, &text, &n) && split_words(text, n, part, size) ? 1 : -1;
}

static bool add_merge(tokenizer *t, const char *const part[2], const size_t size[2], size_t rank, buf *work, vlm_error *error)
{
    int32_t id[2];
    if (rank * 2 >= t->merge_capacity) return err_set(error, VLM_FORMAT, "tokenizer.json: merges are pairs and strings mixed");
    buf_clear(work);
    size_t cut = 0;
    for (int k = 0; k < 2; k++) {
        cut = work->size;
        if (!add_raw(t, part[k], size[k], work)) return err_memory(error, size[k]);
        id[k] = tok_map_find(&t->vocab, work->data + cut, work->size - cut);
        if (id[k] < 0)
            return err_set(error, VLM_FORMAT, "tokenizer.json: merge %zu uses \"%.*s\", which is not in the vocabulary", rank,
                           (int)(size[k] < 80 ? size[k] : 80), part[k]);
    }
    /* the right half may begin with the continuing prefix, which the whole does not repeat */
    size_t right = work->size - cut, skip = t->prefix_size <= right ? t->prefix_size : 0;
    if (skip) memmove(work->data + cut, work->data + cut + skip, right - skip);
    int32_t whole = tok_map_find(&t->vocab, work->data, work->size - skip);
    if (whole < 0) return err_set(error, VLM_FORMAT, "tokenizer.json: the result of merge %zu is not in the vocabulary", rank);
    uint64_t pair = (uint64_t)(uint32_t)id[0] << 32 | (uint32_t)id[1];
    t->merges[merge_slot(t, pair)] = (tok_merge){pair, (uint32_t)rank, whole};
    return true;
}

static const char *optional_string(tokenizer *t, const json_t *model, const char *key, size_t *size)
{
    const json_t *s = json_object_get(model, key);
    *size = json_is_string(s) ? json_string_length(s) : 0;
    return *size ? arena_strdup(&t->strings, json_string_value(s)) : "";
}

/* How many merges the text holds, at most: for each there is one string, or a list of two. */
static size_t count_merges(const tok_spans *spans)
{
    size_t quotes = 0;
    tok_scan s = tok_scan_start(spans->merges, spans->merges_size);
    bool pairs = tok_scan_take(&s, '[') && tok_scan_take(&s, '[');
    for (size_t i = 0; i < spans->merges_size; i++) quotes += spans->merges[i] == '"';
    return pairs && quotes % 4 == 0 ? quotes / 4 : quotes / 2;
}

static bool add_merges(tokenizer *t, const json_t *merges, const tok_spans *spans, vlm_error *error)
{
    buf work = {0};
    const char *part[2];
    size_t size[2], rank = 0;
    bool ok = true;
    if (spans && spans->merges) {
        tok_scan s = tok_scan_start(spans->merges, spans->merges_size);
        int more = tok_scan_take(&s, '[') ? 1 : -1;
        while (ok && more > 0 && (more = next_merge(&s, rank == 0, part, size)) > 0) ok = add_merge(t, part, size, rank++, &work, error);
        if (more < 0) ok = s.text[0].failed || s.text[1].failed ? err_memory(error, 0) : err_set(error, VLM_FORMAT, "tokenizer.json: merge %zu is not a pair of strings", rank);
        tok_scan_free(&s);
    } else
        for (; ok && rank < json_array_size(merges); rank++) {
            ok = split_merge(json_array_get(merges, rank), part, size) || err_set(error, VLM_FORMAT, "tokenizer.json: merge %zu is not a pair of strings", rank);
            if (ok) ok = add_merge(t, part, size, rank, &work, error);
        }
    buf_free(&work);
    return ok;
}

/* ---- joints ---- */

enum { JOINT_BITS = 20 };

/* Several pairs share a bit: then a joint is taken for one that may merge, which is right, only slower. */
static inline uint32_t joint_bit(uint32_t left, uint32_t right)
{
    return (uint32_t)(((uint64_t)left * 0x1F35B9u ^ right) * 0x9E3779B97F4A7C15u >> (64 - JOINT_BITS));
}

static bool is_byte(const tokenizer *t, int32_t id)
{
    const tok_token *k = &t->token[id];            /* its name says which byte it would be */
    if (k->text_size != 6 || memcmp(k->text, "<0x", 3) != 0) return false;
    for (int b = 0; b < 256; b++)
        if (t->byte_id[b] == id) return true;
    return false;
}

/* Notes the joints of all tokens. Only for vocabularies that have a token for every byte, and none of them in a merge: then a part of a text is encoded
 * as it would be in the whole. */
static bool find_joints(tokenizer *t, vlm_error *error)
{
    bool fits = t->byte_fallback && !t->raw_bytes && !t->prefix_size && !t->suffix_size && !t->ignore_merges;
    for (int b = 0; fits && b < 256; b++) fits = t->byte_id[b] >= 0;
    for (size_t i = 0; fits && i < t->merge_capacity; i++) {
        const tok_merge *m = &t->merges[i];
        if (m->id < 0) continue;
        for (int half = 0; half < 2; half++) {
            int32_t id = (int32_t)(half ? m->pair >> 32 : m->pair & UINT32_MAX);
            fits = fits && id != t->unk && !is_byte(t, id);
        }
    }
    if (!fits) return true;
    t->joints = MEM_ARRAY((size_t)1 << (JOINT_BITS - 6), uint64_t);
    if (!t->joints) return err_memory(error, (size_t)1 << (JOINT_BITS - 3));
    for (size_t i = 0; i < t->vocab.capacity; i++) {
        const tok_slot *k = &t->vocab.slot[i];     /* a free place has no text */
        uint32_t left = 0, right;
        for (size_t at = 0; k->text && at < k->size; left = right) {
            bool first = at == 0;
            at += utf8_next_lossy(k->text + at, k->size - at, &right);
            uint32_t bit = joint_bit(left, right);
            if (!first) t->joints[bit >> 6] |= 1ull << (bit & 63);
        }
    }
    return true;
}

static bool make_merges(tokenizer *t, size_t count, vlm_error *error)
{
    t->merge_capacity = 16;
    while (t->merge_capacity < count * 2) t->merge_capacity *= 2;
    t->merges = MEM_ARRAY(t->merge_capacity, tok_merge);
    if (!t->merges) return err_memory(error, t->merge_capacity * sizeof *t->merges);
    for (size_t i = 0; i < t->merge_capacity; i++) t->merges[i].id = -1;
    return true;
}

/* The two tokens that make up token `whole` when it is cut after `at` bytes. */
static bool halves(const tokenizer *t, int32_t whole, size_t at, bool utf8, const uint32_t *rank, int32_t id[2])
{
    const tok_token *k = &t->token[whole];
    if (utf8 && ((unsigned char)k->raw[at] & 0xC0) == 0x80) return false;
    id[0] = tok_map_find(&t->vocab, k->raw, at);
    if (id[0] < 0 || rank[id[0]] == UINT32_MAX) return false;
    id[1] = tok_map_find(&t->vocab, k->raw + at, k->raw_size - at);
    return id[1] >= 0 && rank[id[1]] != UINT32_MAX;
}

bool tok_bpe_by_ranks(tokenizer *t, const uint32_t *rank, bool utf8, vlm_error *error)
{
    enum { LONGEST = 1024 };                       /* what it costs to cut a token grows with the square of its length */
    size_t count = 0;
    int32_t id[2];
    for (int pass = 0; pass < 2; pass++) {
        if (pass && !make_merges(t, count, error)) return false;
        for (size_t i = 0; i < t->size; i++) {
            if (!t->token[i].known || rank[i] == UINT32_MAX) continue;
            if (t->token[i].raw_size > LONGEST) return err_set(error, VLM_LIMIT, "token %zu has %u bytes, at most %d are read", i, t->token[i].raw_size, LONGEST);
            for (size_t at = 1; at < t->token[i].raw_size; at++) {
                if (!halves(t, (int32_t)i, at, utf8, rank, id)) continue;
                count++;
                if (!pass) continue;
                uint64_t pair = (uint64_t)(uint32_t)id[0] << 32 | (uint32_t)id[1];
                t->merges[merge_slot(t, pair)] = (tok_merge){pair, rank[i], (int32_t)i};
            }
        }
    }
    return find_joints(t, error);
}

bool tok_bpe_load(tokenizer *t, const json_t *model, const tok_spans *spans, vlm_error *error)
{
    t->fuse_unk = json_is_true(json_object_get(model, "fuse_unk"));
    t->byte_fallback = json_is_true(json_object_get(model, "byte_fallback"));
    t->ignore_merges = json_is_true(json_object_get(model, "ignore_merges"));
    t->prefix = optional_string(t, model, "continuing_subword_prefix", &t->prefix_size);
    t->suffix = optional_string(t, model, "end_of_word_suffix", &t->suffix_size);
    if (!t->prefix || !t->suffix) return err_memory(error, 0);
    const json_t *merges = json_object_get(model, "merges");
    if (merges && !json_is_null(merges) && !json_is_array(merges)) return err_set(error, VLM_FORMAT, "tokenizer.json: model.merges is not a list");
    size_t count = spans && spans->merges ? count_merges(spans) : json_array_size(merges);
    if (!make_merges(t, count, error) || !add_merges(t, merges, spans, error)) return false;
    tok_byte_tokens(t);
    for (int b = 0; b < 256 && t->raw_bytes; b++) {
        char byte = (char)b;
        t->byte_id[b] = tok_map_find(&t->vocab, &byte, 1);
    }
    return find_joints(t, error);
}

/* ---- words ---- */

bool tok_scratch_cache(tok_scratch *s, size_t text_size)
{
    if (text_size < 2048 || s->cache) return true;
    size_t size = 256;
    while (size < 8192 && size * 32 < text_size) size *= 2;
    s->cache = MEM_ARRAY(size, tok_cached);
    s->cache_size = s->cache ? size : 0;
    return s->cache != NULL;
}

void tok_scratch_free(tok_scratch *s)
{
    mem_free(s->cache);
    mem_free(s->symbol);
    mem_free(s->heap);
    mem_free(s->best);
    mem_free(s->best_id);
    mem_free(s->best_start);
    buf_free(&s->text);
    *s = (tok_scratch){0};
}

static bool need_symbols(tok_scratch *s, size_t n)
{
    if (n > INT32_MAX / 2) return false;
    if (n <= s->symbol_capacity) return true;
    size_t capacity = s->symbol_capacity ? s->symbol_capacity : 256;
    while (capacity < n) capacity *= 2;
    bpe_symbol *grown = mem_resize(s->symbol, capacity, sizeof *grown);
    if (!grown) return false;
    s->symbol = grown;
    s->symbol_capacity = capacity;
    return true;
}

/* Id of one character with the prefix and suffix that its place asks for; *c becomes the character with them. */
static int32_t find_char(const tokenizer *t, const char **c, size_t *size, bool first, bool last, tok_scratch *s)
{
    bool prefixed = !first && t->prefix_size, suffixed = last && t->suffix_size;
    if (!prefixed && !suffixed) {
        if (t->raw_bytes) return t->byte_id[(unsigned char)**c];
        return tok_map_find(&t->vocab, *c, *size);
    }
    buf_clear(&s->text);
    if (prefixed) buf_add(&s->text, t->prefix, t->prefix_size);
    buf_add(&s->text, *c, *size);
    if (suffixed) buf_add(&s->text, t->suffix, t->suffix_size);
    if (s->text.failed) return -1;
    *c = s->text.data;
    *size = s->text.size;
    return tok_map_find(&t->vocab, *c, *size);
}

static bool all_bytes_known(const tokenizer *t, const char *c, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (t->byte_id[(unsigned char)c[i]] < 0) return false;
    return true;
}

/* First symbols of a word; returns how many, or SIZE_MAX when out of memory. Characters that are unknown and have no fallback
 * become unk (one for a run when fuse_unk), or nothing when there is no unk. */
static size_t first_symbols(const tokenizer *t, const char *word, size_t size, tok_scratch *s)
{
    if (!need_symbols(s, size + 1)) return SIZE_MAX;
    size_t n = 0;
    bool pending_unk = false;
    for (size_t i = 0; i < size;) {
        size_t length = t->raw_bytes ? 1 : utf8_size((unsigned char)word[i]);
        if (length > size - i) length = size - i;
        const char *c = word + i;                  /* with prefix and suffix */
        size_t c_size = length;
        int32_t id = find_char(t, &c, &c_size, i == 0, i + length == size, s);
        if (id >= 0) {
            if (pending_unk) s->symbol[n++].id = t->unk;
            pending_unk = false;
            s->symbol[n++].id = id;
        } else if (t->byte_fallback && all_bytes_known(t, c, c_size)) {
            if (!need_symbols(s, n + c_size + (size - i) + 2)) return SIZE_MAX;
            for (size_t k = 0; k < c_size; k++) s->symbol[n++].id = t->byte_id[(unsigned char)c[k]];
        } else if (t->unk >= 0) {
            if (pending_unk && !t->fuse_unk) s->symbol[n++].id = t->unk;
            pending_unk = true;
        }
        i += length;
    }
    if (pending_unk) s->symbol[n++].id = t->unk;
    return n;
}

static size_t merge_by_scanning(const tokenizer *t, bpe_symbol *symbol, size_t n)
{
    uint32_t rank[SCAN_LIMIT];                     /* of the pair that begins at i */
    int32_t result[SCAN_LIMIT];
    for (size_t i = 0; i + 1 < n; i++) {
        const tok_merge *m = find_merge(t, symbol[i].id, symbol[i + 1].id);
        rank[i] = m ? m->rank : UINT32_MAX;
        result[i] = m ? m->id : -1;
    }
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best]) best = i;
        if (rank[best] == UINT32_MAX) break;
        symbol[best].id = result[best];
        for (size_t i = best + 1; i + 1 < n; i++) {
            symbol[i].id = symbol[i + 1].id;
            rank[i] = rank[i + 1];
            result[i] = result[i + 1];
        }
        n--;
        for (size_t i = best ? best - 1 : 0; i <= best && i + 1 < n; i++) {
            const tok_merge *m = find_merge(t, symbol[i].id, symbol[i + 1].id);
            rank[i] = m ? m->rank : UINT32_MAX;
            result[i] = m ? m->id : -1;
        }
    }
    return n;
}

static inline bool before(const bpe_candidate *a, const bpe_candidate *b) { return a->key < b->key; }

/* The heap has four children to a node: fewer levels, and the children lie side by side. */
static void sift_up(bpe_candidate *heap, size_t i, bpe_candidate c)
{
    while (i && before(&c, &heap[(i - 1) / 4])) {
        heap[i] = heap[(i - 1) / 4];
        i = (i - 1) / 4;
    }
    heap[i] = c;
}

static void sift_down(bpe_candidate *heap, size_t count, size_t i, bpe_candidate c)
{
    for (;;) {
        size_t child = 4 * i + 1, end = child + 4 < count ? child + 4 : count, least = child;
        if (child >= count) break;
        for (size_t k = child + 1; k < end; k++)
            if (before(&heap[k], &heap[least])) least = k;
        if (!before(&heap[least], &c)) break;
        heap[i] = heap[least];
        i = least;
    }
    heap[i] = c;
}

/* Appends without regard to order. */
static bool heap_append(tok_scratch *s, bpe_candidate c)
{
    if (s->heap_count == s->heap_capacity) {
        size_t capacity = s->heap_capacity ? s->heap_capacity * 2 : 256;
        bpe_candidate *grown = mem_resize(s->heap, capacity, sizeof *grown);
        if (!grown) return false;
        s->heap = grown;
        s->heap_capacity = capacity;
    }
    s->heap[s->heap_count++] = c;
    return true;
}

static bool append_pair(const tokenizer *t, tok_scratch *s, int32_t left, int32_t right, bool *any)
{
    const tok_merge *m = find_merge(t, s->symbol[left].id, s->symbol[right].id);
    *any = m != NULL;
    return !m || heap_append(s, (bpe_candidate){(uint64_t)m->rank << 32 | (uint32_t)left, s->symbol[left].id, s->symbol[right].id});
}

static bool push_pair(const tokenizer *t, tok_scratch *s, int32_t left, int32_t right)
{
    bool any;
    if (left < 0 || right < 0) return true;
    if (!append_pair(t, s, left, right, &any)) return false;
    if (any) sift_up(s->heap, s->heap_count - 1, s->heap[s->heap_count - 1]);
    return true;
}

/* Merged symbols get id -1. */
static bool merge_by_heap(const tokenizer *t, tok_scratch *s, size_t n)
{
    bpe_symbol *symbol = s->symbol;
    bool any;
    s->heap_count = 0;
    for (size_t i = 0; i < n; i++) {
        symbol[i].previous = (int32_t)i - 1;
        symbol[i].next = i + 1 < n ? (int32_t)i + 1 : -1;
    }
    for (size_t i = 0; i + 1 < n; i++)
        if (!append_pair(t, s, (int32_t)i, (int32_t)i + 1, &any)) return false;
    for (size_t i = s->heap_count / 4 + 1; i-- > 0;)
        if (i < s->heap_count) sift_down(s->heap, s->heap_count, i, s->heap[i]);
    while (s->heap_count) {
        bpe_candidate c = s->heap[0], last = s->heap[--s->heap_count];
        if (s->heap_count) sift_down(s->heap, s->heap_count, 0, last);
        int32_t position = (int32_t)(c.key & INT32_MAX);
        bpe_symbol *left = &symbol[position];
        if (left->id != c.left || left->next < 0 || symbol[left->next].id != c.right) continue;      /* out of date */
        bpe_symbol *right = &symbol[left->next];
        left->id = find_merge(t, c.left, c.right)->id;
        left->next = right->next;
        right->id = -1;
        if (left->next >= 0) symbol[left->next].previous = position;
        if (!push_pair(t, s, left->previous, position) || !push_pair(t, s, position, left->next)) return false;
    }
    return true;
}

static bool encode_part(const tokenizer *t, const char *word, size_t size, tok_scratch *s, ids *out)
{
    size_t n = first_symbols(t, word, size, s);
    if (n == SIZE_MAX) return false;
    if (n <= SCAN_LIMIT) n = merge_by_scanning(t, s->symbol, n);
    else if (!merge_by_heap(t, s, n)) return false;
    for (size_t i = 0; i < n; i++)
        if (s->symbol[i].id >= 0 && !ids_add(out, s->symbol[i].id)) return false;
    return true;
}

/* Through the cache, when there is one and the word is short enough. */
static bool encode_word(const tokenizer *t, const char *word, size_t size, tok_scratch *s, ids *out)
{
    if (!s->cache_size || size < 2 || size > sizeof s->cache->word) return encode_part(t, word, size, s, out);
    uint32_t hash = tok_hash(word, size);
    tok_cached *c = &s->cache[hash & (s->cache_size - 1)];
    if (c->hash == hash && c->size == size && memcmp(c->word, word, size) == 0) {
        for (size_t i = 0; i < c->count; i++)
            if (!ids_add(out, c->id[i])) return false;
        return true;
    }
    size_t before = out->count;
    if (!encode_part(t, word, size, s, out)) return false;
    if (out->count - before > sizeof c->id / sizeof *c->id) return true;
    c->hash = hash;
    c->size = (uint8_t)size;
    c->count = (uint8_t)(out->count - before);
    memcpy(c->word, word, size);
    if (c->count) memcpy(c->id, out->id + before, c->count * sizeof *c->id);
    return true;
}

bool tok_bpe(const tokenizer *t, const char *word, size_t size, tok_scratch *s, ids *out)
{
    if (t->ignore_merges) {
        int32_t id = tok_map_find(&t->vocab, word, size);
        if (id >= 0) return ids_add(out, id);
    }
    if (!t->joints) return encode_word(t, word, size, s, out);
    uint32_t left = 0, right;
    size_t begin = 0;
    for (size_t at = 0; at < size;) {
        right = (unsigned char)word[at];
        size_t used = right < 0x80 ? 1 : utf8_next_lossy(word + at, size - at, &right);
        uint32_t bit = joint_bit(left, right);
        if (at > begin && !(t->joints[bit >> 6] >> (bit & 63) & 1)) {
            if (!encode_word(t, word + begin, at - begin, s, out)) return false;
            begin = at;
        }
        left = right;
        at += used;
    }
    return begin >= size || encode_word(t, word + begin, size - begin, s, out);
}
