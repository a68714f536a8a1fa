/* tables.c - the tokenizer's lookup tables: string map, trie of added tokens, the byte alphabet. */
#include <string.h>

#include "text/tokenizer/internal.h"

/* ---- map ---- */

uint32_t tok_hash(const char *text, size_t size)
{
    uint64_t h = 0x9E3779B97F4A7C15u ^ size;
    while (size >= 8) {
        uint64_t word;
        memcpy(&word, text, 8);
        h = (h ^ word) * 0xFF51AFD7ED558CCDu;
        h ^= h >> 32;
        text += 8;
        size -= 8;
    }
    uint64_t word = 0;
    memcpy(&word, text, size);
    h = (h ^ word) * 0xC4CEB9FE1A85EC53u;
    return (uint32_t)(h ^ h >> 29);
}

static tok_slot *find_slot(const tok_map *m, const char *text, size_t size, uint32_t hash)
{
    size_t mask = m->capacity - 1;
    for (size_t i = hash & mask;; i = (i + 1) & mask) {
        tok_slot *s = &m->slot[i];
        if (!s->text || (s->hash == hash && s->size == size && memcmp(s->text, text, size) == 0)) return s;
    }
}

static bool grow_map(tok_map *m)
{
    tok_map bigger = {.capacity = m->capacity ? m->capacity * 2 : 256};
    bigger.slot = MEM_ARRAY(bigger.capacity, tok_slot);
    if (!bigger.slot) return false;
    for (size_t i = 0; i < m->capacity; i++) {
        const tok_slot *old = &m->slot[i];
        if (old->text) *find_slot(&bigger, old->text, old->size, old->hash) = *old;
    }
    bigger.count = m->count;
    mem_free(m->slot);
    *m = bigger;
    return true;
}

bool tok_map_add(tok_map *m, const char *text, size_t size, int32_t id)
{
    if (size > UINT32_MAX || (m->count * 2 >= m->capacity && !grow_map(m))) return false;
    uint32_t hash = tok_hash(text, size);
    tok_slot *s = find_slot(m, text, size, hash);
    if (!s->text) m->count++;
    *s = (tok_slot){text, (uint32_t)size, hash, id};
    return true;
}

int32_t tok_map_find(const tok_map *m, const char *text, size_t size)
{
    if (!m->count) return -1;
    const tok_slot *s = find_slot(m, text, size, tok_hash(text, size));
    return s->text ? s->id : -1;
}

void tok_map_free(tok_map *m)
{
    mem_free(m->slot);
    *m = (tok_map){0};
}

/* ---- trie ---- */

static uint32_t new_node(tok_trie *t, uint8_t byte)
{
    if (t->count == t->capacity) {
        size_t capacity = t->capacity ? t->capacity * 2 : 64;
        tok_trie_node *node = capacity > UINT32_MAX ? NULL : mem_resize(t->node, capacity, sizeof *node);
        if (!node) return 0;
        t->node = node;
        t->capacity = capacity;
    }
    if (t->count == 0) t->count = 1;               /* node 0 means "none" */
    t->node[t->count] = (tok_trie_node){.added = -1, .byte = byte};
    return (uint32_t)t->count++;
}

uint32_t tok_trie_child(const tok_trie *t, uint32_t node, uint8_t byte)
{
    uint32_t child = t->node[node].child;
    while (child && t->node[child].byte != byte) child = t->node[child].next;
    return child;
}

bool tok_trie_add(tok_trie *t, const char *text, size_t size, int32_t added)
{
    if (!size) return true;
    uint32_t *root = &t->root[(uint8_t)text[0]];
    if (!*root) *root = new_node(t, (uint8_t)text[0]);
    uint32_t at = *root;
    for (size_t i = 1; at && i < size; i++) {
        uint32_t child = tok_trie_child(t, at, (uint8_t)text[i]);
        if (!child) {
            child = new_node(t, (uint8_t)text[i]);
            if (!child) return false;
            t->node[child].next = t->node[at].child;
            t->node[at].child = child;
        }
        at = child;
    }
    if (!at) return false;
    t->node[at].added = added;
    return true;
}

void tok_trie_free(tok_trie *t)
{
    mem_free(t->node);
    t->node = NULL;
    t->count = t->capacity = 0;
}

int32_t tok_trie_find(const tok_trie *t, const char *text, size_t size, size_t from, size_t *start, size_t *end)
{
    if (!t->count) return -1;
    for (size_t i = from; i < size; i++) {
        uint32_t at = t->root[(uint8_t)text[i]];
        int32_t found = -1;
        for (size_t j = i + 1; at; j++) {
            if (t->node[at].added >= 0) {
                found = t->node[at].added;
                *end = j;
            }
            if (j >= size) break;
            at = tok_trie_child(t, at, (uint8_t)text[j]);
        }
        if (found >= 0) {
            *start = i;
            return found;
        }
    }
    return -1;
}

/* ---- byte alphabet: printable Latin-1 stands for itself, the other 68 bytes are U+0100 and up ---- */

static bool is_own(unsigned c) { return (c >= 33 && c <= 126) || (c >= 161 && c <= 172) || (c >= 174 && c <= 255); }

uint32_t tok_byte_to_char(unsigned char byte)
{
    if (is_own(byte)) return byte;
    return byte <= 32 ? 256u + byte : byte <= 160 ? 256u + 33 + (byte - 127u) : 256u + 67;
}

int tok_char_to_byte(uint32_t code)
{
    if (code < 256) return is_own(code) ? (int)code : -1;
    if (code <= 256 + 32) return (int)code - 256;
    if (code <= 256 + 66) return (int)code - 256 - 33 + 127;
    return code == 256 + 67 ? 173 : -1;
}

/* ---- pieces, id lists ---- */

bool tok_pieces_push(tok_pieces *p, size_t start, size_t size, bool first)
{
    if (p->count == p->capacity) {
        size_t capacity = p->capacity ? p->capacity * 2 : 64;
        tok_piece *piece = mem_resize(p->piece, capacity, sizeof *piece);
        if (!piece) return false;
        p->piece = piece;
        p->capacity = capacity;
    }
    p->piece[p->count++] = (tok_piece){start, size, first};
    return true;
}

bool tok_pieces_add(tok_pieces *p, size_t start, size_t size, bool first) { return !size || tok_pieces_push(p, start, size, first); }

void tok_pieces_free(tok_pieces *p)
{
    buf_free(&p->text);
    mem_free(p->piece);
    *p = (tok_pieces){0};
}

bool ids_add(ids *list, int32_t id)
{
    if (list->failed) return false;
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 32;
        int32_t *grown = mem_resize(list->id, capacity, sizeof *grown);
        if (!grown) {
            list->failed = true;
            return false;
        }
        list->id = grown;
        list->capacity = capacity;
    }
    list->id[list->count++] = id;
    return true;
}

void ids_free(ids *list)
{
    mem_free(list->id);
    *list = (ids){0};
}
