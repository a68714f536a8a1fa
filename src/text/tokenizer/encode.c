/* encode.c - text to ids: clean UTF-8, find added tokens, normalize, find normalized added tokens, split, run the model. */
#include <string.h>

#include "text/tokenizer/internal.h"

typedef struct encoder {
    const tokenizer *t;
    const encode_options *options;
    size_t guard_size;
    tok_scratch scratch;
    tok_pieces pieces;
    buf normalized;
    ids *out;
    vlm_error *error;
} encoder;

static bool is_word_char(uint32_t c) { return unicode_in(UNICODE_WORD, c); }

static size_t previous_char(const char *text, size_t at)
{
    size_t i = at - 1;
    while (i && ((unsigned char)text[i] & 0xC0) == 0x80) i--;
    return i;
}

/* Is a token at [start, end) a word of its own? */
static bool stands_alone(const char *text, size_t size, size_t start, size_t end)
{
    uint32_t c;
    if (start) {
        size_t i = previous_char(text, start);
        utf8_next_lossy(text + i, start - i, &c);
        if (is_word_char(c)) return false;
    }
    if (end < size) {
        utf8_next_lossy(text + end, size - end, &c);
        if (is_word_char(c)) return false;
    }
    return true;
}

static size_t spaces_before(const char *text, size_t at, size_t lowest)
{
    while (at > lowest) {
        uint32_t c;
        size_t i = previous_char(text, at);
        utf8_next_lossy(text + i, at - i, &c);
        if (!unicode_is_space(c)) break;
        at = i;
    }
    return at < lowest ? lowest : at;
}

static size_t spaces_after(const char *text, size_t size, size_t at)
{
    while (at < size) {
        uint32_t c;
        size_t used = utf8_next_lossy(text + at, size - at, &c);
        if (!unicode_is_space(c)) break;
        at += used;
    }
    return at;
}

/* Calls between(text between tokens) and appends the tokens' ids. `first`: text begins where the input begins. */
typedef bool between_fn(encoder *e, const char *text, size_t size, bool first);

static bool with_added(encoder *e, const tok_trie *trie, const char *text, size_t size, bool first, between_fn *between)
{
    size_t at = 0, search = 0, start, end;
    int32_t index;
    while ((index = tok_trie_find(trie, text, size, search, &start, &end)) >= 0) {
        const tok_added *a = &e->t->added[index];
        search = end;
        if (a->special && !e->options->special) continue;
        if (a->single_word && !stands_alone(text, size, start, end)) continue;
        if (a->lstrip) start = spaces_before(text, start, at);
        if (a->rstrip) end = spaces_after(text, size, end);
        if (start > at && !between(e, text + at, start - at, first && at == 0)) return false;
        if (!ids_add(e->out, a->id)) return err_memory(e->error, 0);
        at = end;                                  /* even when rstrip had gone farther before */
    }
    return at >= size || between(e, text + at, size - at, first && at == 0);
}

/* The piece of text that the model's pre-tokenizer sees. */
static bool encode_words(encoder *e, const char *text, size_t size, bool first)
{
    const tokenizer *t = e->t;
    tok_pieces *p = &e->pieces;
    buf_clear(&p->text);
    p->count = 0;
    for (size_t at = 0; at < size;) {              /* guards have done their work: they vanish */
        size_t hit = e->guard_size ? bytes_find(text, size, at, e->options->guard, e->guard_size) : SIZE_MAX;
        size_t end = hit == SIZE_MAX ? size : hit;
        buf_add(&p->text, text + at, end - at);
        at = hit == SIZE_MAX ? size : hit + e->guard_size;
    }
    if (p->text.failed || !tok_pieces_add(p, 0, p->text.size, first)) return err_memory(e->error, size);
    if (!tok_split(t, p, e->error)) return false;
    for (size_t i = 0; i < p->count; i++) {
        const char *word = p->text.data + p->piece[i].start;
        size_t n = p->piece[i].size;
        bool ok = false;
        switch (t->model) {
        case MODEL_BPE: ok = tok_bpe(t, word, n, &e->scratch, e->out); break;
        case MODEL_UNIGRAM: ok = tok_unigram(t, word, n, &e->scratch, e->out); break;
        case MODEL_WORDPIECE: ok = tok_wordpiece(t, word, n, &e->scratch, e->out); break;
        case MODEL_WORDLEVEL: {
            int32_t id = tok_map_find(&t->vocab, word, n);
            ok = (id < 0 && t->unk < 0) || ids_add(e->out, id >= 0 ? id : t->unk);
        } break;
        }
        if (!ok) return err_memory(e->error, n);
    }
    return true;
}

static bool encode_plain(encoder *e, const char *text, size_t size, bool first)
{
    if (!e->t->normalizer.count) return with_added(e, &e->t->trie_normalized, text, size, first, encode_words);
    buf_clear(&e->normalized);
    if (!tok_normalize(e->t, text, size, &first, &e->normalized, e->error)) return false;
    return with_added(e, &e->t->trie_normalized, e->normalized.data ? e->normalized.data : "", e->normalized.size, first, encode_words);
}

bool tokenizer_encode(const tokenizer *t, const char *text, size_t size, const encode_options *options, ids *out, vlm_error *error)
{
    static const encode_options none = {.special = true};
    encoder e = {.t = t, .options = options ? options : &none, .out = out, .error = error};
    e.guard_size = e.options->guard ? strlen(e.options->guard) : 0;
    buf clean = {0};
    bool ok = true;
    if (size > INT32_MAX) return err_set(error, VLM_LIMIT, "text of %zu bytes: at most %d can be encoded at once", size, INT32_MAX);
    if (!utf8_valid(text, size)) {
        ok = utf8_add_lossy(&clean, text, size) || err_memory(error, size);
        text = clean.data;
        size = clean.size;
    }
    ok = ok && (tok_scratch_cache(&e.scratch, size) || err_memory(error, size));
    size_t begin = 0, count = 0;                   /* where the text's ids are, once it is encoded */
    bool encoded = false;
    for (size_t i = 0; ok && i < t->n_post; i++) {
        if (t->post[i] >= 0) {
            if (e.options->add_special) ok = ids_add(out, t->post[i]);
        } else if (!encoded) {
            begin = out->count;
            ok = with_added(&e, &t->trie, text, size, true, encode_plain);
            count = out->count - begin;
            encoded = true;
        } else
            for (size_t k = 0; ok && k < count; k++) ok = ids_add(out, out->id[begin + k]);
    }
    if (!ok && out->failed) err_memory(error, 0);
    buf_free(&clean);
    buf_free(&e.normalized);
    tok_pieces_free(&e.pieces);
    tok_scratch_free(&e.scratch);
    return ok;
}
