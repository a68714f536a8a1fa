/* sentencepiece.c - sentencepiece's .model files: a protobuf with pieces (text, score, type), the trainer's settings and the normalizer's.
 *
 * The normalizer works on the whole text at once: rules of the longest match from the character map, spaces become the mark U+2581, a mark is put
 * in front, spaces in a row become one; user defined symbols pass through it untouched. BPE merges the pair whose piece has the highest score;
 * Unigram sums scores as floats. Control pieces are recognised in text as the special tokens that they are for the models that use these files. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer/internal.h"

static const char MARK[] = "\xE2\x96\x81";

/* ---- protobuf ---- */

typedef struct pb { const unsigned char *at, *end; bool bad; } pb;
typedef struct pb_field { uint64_t number, value; const char *data; size_t size; int wire; } pb_field;

static uint64_t varint(pb *p)
{
    uint64_t value = 0;
    for (int shift = 0; shift < 64 && p->at < p->end; shift += 7) {
        value |= (uint64_t)(*p->at & 0x7F) << shift;
        if (!(*p->at++ & 0x80)) return value;
    }
    p->bad = true;
    return 0;
}

/* The next field; false at the end or when the file is damaged (p->bad). */
static bool next_field(pb *p, pb_field *f)
{
    if (p->bad || p->at >= p->end) return false;
    uint64_t key = varint(p);
    *f = (pb_field){.number = key >> 3, .wire = (int)(key & 7)};
    size_t fixed = f->wire == 1 ? 8 : f->wire == 5 ? 4 : 0;
    if (f->wire == 0) f->value = varint(p);
    else if (f->wire == 2) fixed = f->size = (size_t)varint(p);
    else if (!fixed) p->bad = true;
    if (p->bad || fixed > (size_t)(p->end - p->at)) {
        p->bad = true;
        return false;
    }
    f->data = (const char *)p->at;
    if (f->wire == 5) {
        uint32_t word;
        memcpy(&word, p->at, 4);                   /* little endian, as all our targets */
        f->value = word;
    }
    p->at += fixed;
    return true;
}

static pb inside(const pb_field *f) { return (pb){(const unsigned char *)f->data, (const unsigned char *)f->data + f->size, f->wire != 2}; }

/* ---- the file ---- */

enum { PIECE_NORMAL = 1, PIECE_UNKNOWN, PIECE_CONTROL, PIECE_USER, PIECE_UNUSED, PIECE_BYTE };
enum { SPM_UNIGRAM = 1, SPM_BPE = 2 };

typedef struct spm_piece { const char *text; size_t size; float score; int type; } spm_piece;
typedef struct spm_model {
    spm_piece *piece;
    size_t count, capacity, bytes;
    int type, unk, bos, eos;
    bool byte_fallback, suffix, dummy, remove_extra, escape;
    const char *charsmap;
    size_t charsmap_size;
} spm_model;

typedef struct tok_spm { const void *charsmap; tok_trie user; bool suffix, dummy, first_only, remove_extra, escape; } tok_spm;

static bool read_piece(pb p, spm_piece *out)
{
    pb_field f;
    *out = (spm_piece){.text = "", .type = PIECE_NORMAL};
    while (next_field(&p, &f)) {
        if (f.number == 1 && f.wire == 2) out->text = f.data, out->size = f.size;
        else if (f.number == 2 && f.wire == 5) {
            uint32_t bits = (uint32_t)f.value;
            memcpy(&out->score, &bits, 4);
        } else if (f.number == 3 && f.wire == 0) out->type = f.value <= PIECE_BYTE ? (int)f.value : PIECE_NORMAL;
    }
    if (!isfinite(out->score)) out->score = 0;
    return !p.bad && out->size < 1 << 16;
}

static void read_trainer(pb p, spm_model *m)
{
    pb_field f;
    while (next_field(&p, &f)) {
        if (f.wire != 0) continue;
        switch (f.number) {
        case 3: m->type = (int)f.value; break;
        case 24: m->suffix = f.value != 0; break;
        case 35: m->byte_fallback = f.value != 0; break;
        case 40: m->unk = (int)(int64_t)f.value; break;
        case 41: m->bos = (int)(int64_t)f.value; break;
        case 42: m->eos = (int)(int64_t)f.value; break;
        default: break;
        }
    }
}

static void read_normalizer(pb p, spm_model *m)
{
    pb_field f;
    while (next_field(&p, &f)) {
        if (f.number == 2 && f.wire == 2) m->charsmap = f.data, m->charsmap_size = f.size;
        else if (f.number == 3 && f.wire == 0) m->dummy = f.value != 0;
        else if (f.number == 4 && f.wire == 0) m->remove_extra = f.value != 0;
        else if (f.number == 5 && f.wire == 0) m->escape = f.value != 0;
    }
}

static bool read_model(const void *data, size_t size, spm_model *m, vlm_error *error)
{
    pb p = {data, (const unsigned char *)data + size, false};
    pb_field f;
    *m = (spm_model){.type = SPM_UNIGRAM, .unk = 0, .bos = 1, .eos = 2, .dummy = true, .remove_extra = true, .escape = true};
    while (next_field(&p, &f)) {
        if (f.number == 1) {
            if (m->count == m->capacity) {
                size_t capacity = m->capacity ? m->capacity * 2 : 1024;
                spm_piece *grown = mem_resize(m->piece, capacity, sizeof *grown);
                if (!grown) return err_memory(error, capacity * sizeof *grown);
                m->piece = grown;
                m->capacity = capacity;
            }
            if (!read_piece(inside(&f), &m->piece[m->count])) return err_set(error, VLM_FORMAT, "sentencepiece model: piece %zu is damaged", m->count);
            m->bytes += m->piece[m->count++].size;
        } else if (f.number == 2) read_trainer(inside(&f), m);
        else if (f.number == 3) read_normalizer(inside(&f), m);
    }
    if (p.bad || !m->count) return err_set(error, VLM_FORMAT, "this is no sentencepiece model, or a damaged one");
    if (m->count >= TOK_MAX_ID) return err_set(error, VLM_LIMIT, "sentencepiece model: more than %d pieces", TOK_MAX_ID);
    if (m->type != SPM_UNIGRAM && m->type != SPM_BPE)
        return err_set(error, VLM_UNSUPPORTED, "sentencepiece model of type %d (unigram is 1 and BPE is 2: these are known)", m->type);
    return true;
}

/* ---- normalizer ---- */

/* The next thing at text: what it becomes and how many bytes it takes. */
static size_t normalize_prefix(const tok_spm *s, const char *text, size_t size, const char **out, size_t *out_size)
{
    uint32_t at = s->user.count ? s->user.root[(unsigned char)*text] : 0;
    size_t user = 0;
    for (size_t i = 1; at; i++) {
        if (s->user.node[at].added >= 0) user = i;
        if (i >= size) break;
        at = tok_trie_child(&s->user, at, (unsigned char)text[i]);
    }
    *out = text;
    if (user) return *out_size = user;
    size_t used = tok_charsmap_longest(s->charsmap, text, size, out);
    if (used) {
        *out_size = strlen(*out);
        return used;
    }
    used = utf8_size((unsigned char)*text);
    *out = text;
    return *out_size = used < size ? used : size;
}

static bool ends_with(const buf *b, size_t from, const char *what, size_t n) { return b->size - from >= n && memcmp(b->data + b->size - n, what, n) == 0; }

bool tok_spm_normalize(const void *table, const char *text, size_t size, bool first, buf *out)
{
    const tok_spm *s = table;
    const char *space = s->escape ? MARK : " ", *part;
    size_t space_size = strlen(space), begin = out->size, n, at = 0;
    bool dummy = s->dummy && (first || !s->first_only), after_space = s->remove_extra;
    while (s->remove_extra && at < size) {         /* spaces in front */
        size_t used = normalize_prefix(s, text + at, size - at, &part, &n);
        if (n != 1 || *part != ' ') break;
        at += used;
    }
    if (at >= size) return true;
    if (dummy && !s->suffix) buf_add(out, space, space_size);
    while (at < size) {
        at += normalize_prefix(s, text + at, size - at, &part, &n);
        while (after_space && n && *part == ' ') part++, n--;
        for (size_t i = 0; i < n; i++) {
            if (part[i] == ' ') buf_add(out, space, space_size);
            else buf_addc(out, part[i]);
        }
        if (n) after_space = part[n - 1] == ' ';
        if (!s->remove_extra) after_space = false;
    }
    while (s->remove_extra && ends_with(out, begin, space, space_size)) out->size -= space_size;
    if (dummy && s->suffix) buf_add(out, space, space_size);
    return !out->failed;
}

/* ---- the tokenizer ---- */

static int by_score(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return x > y ? -1 : x < y;
}

/* Equal scores have equal ranks: the leftmost of them merges first. */
static bool load_bpe(tokenizer *t, const spm_model *m, vlm_error *error)
{
    float *score = MEM_ARRAY(m->count, float);
    uint32_t *rank = MEM_ARRAY(t->size, uint32_t);
    bool ok = (score && rank) || err_memory(error, m->count * 8);
    if (ok) {
        for (size_t i = 0; i < m->count; i++) score[i] = m->piece[i].score;
        qsort(score, m->count, sizeof *score, by_score);
        for (size_t i = 0; i < m->count; i++) {
            const float *hit = bsearch(&m->piece[i].score, score, m->count, sizeof *score, by_score);
            while (hit && hit > score && hit[-1] == *hit && (size_t)(hit - score) < 64) hit--;
            rank[i] = m->piece[i].type == PIECE_NORMAL && hit ? (uint32_t)(hit - score) : UINT32_MAX;
        }
        ok = tok_bpe_by_ranks(t, rank, true, error);
    }
    mem_free(score);
    mem_free(rank);
    t->fuse_unk = true;
    t->prefix = t->suffix = "";
    return ok;
}

static bool load_unigram(tokenizer *t, const spm_model *m, vlm_error *error)
{
    float least = INFINITY;
    t->float_scores = true;
    t->score = MEM_ARRAY(t->size, double);
    if (!t->score) return err_memory(error, t->size * sizeof *t->score);
    for (size_t i = 0; i < m->count; i++)
        if (m->piece[i].type == PIECE_NORMAL) least = fminf(least, m->piece[i].score);
    for (size_t i = 0; i < m->count; i++) {
        const spm_piece *p = &m->piece[i];
        if (p->type != PIECE_NORMAL && p->type != PIECE_USER) continue;
        t->score[i] = p->type == PIECE_USER ? (double)(float)(0.1 * (double)p->size - 0.1) : (double)p->score;      /* as good as always chosen */
        if (!tok_trie_add(&t->pieces, p->text, p->size, (int32_t)i)) return err_memory(error, 0);
    }
    t->unk_score = isfinite(least) ? least - 10.0f : -10.0f;
    return true;
}

static bool add_pieces(tokenizer *t, const spm_model *m, tok_spm *s, vlm_error *error)
{
    tok_pool p = {.size = m->bytes + m->count + 1};
    t->size = m->count;
    if (!tok_make_room(t, &p, m->count, m->count, error)) return false;
    for (size_t i = 0; i < m->count; i++) {
        const spm_piece *k = &m->piece[i];
        bool ok;
        if (!utf8_valid(k->text, k->size)) return err_set(error, VLM_FORMAT, "sentencepiece model: piece %zu is not UTF-8", i);
        if (k->type == PIECE_CONTROL || (k->type == PIECE_USER && m->type == SPM_BPE))
            ok = tok_add_token(t, &p, (int32_t)i, k->text, k->size, k->type == PIECE_CONTROL, k->type == PIECE_USER, error);
        else {
            const char *text = tok_pool_add(&p, k->text, k->size);
            t->token[i] = (tok_token){.text = text, .raw = text, .text_size = (uint32_t)k->size, .raw_size = (uint32_t)k->size, .known = true};
            if (k->type == PIECE_UNKNOWN) t->token[i].special = t->token[i].skipped = true;
            ok = text && (tok_map_find(&t->vocab, text, k->size) >= 0 || tok_map_add(&t->vocab, text, k->size, (int32_t)i));
            if (!ok) err_memory(error, k->size);
        }
        if (ok && k->type == PIECE_USER && !tok_trie_add(&s->user, k->text, k->size, (int32_t)i)) ok = err_memory(error, 0);
        if (!ok) return false;
    }
    return true;
}

/* The mark becomes a space, byte pieces become bytes, the space in front goes. */
static void make_decoder(tokenizer *t, const spm_model *m)
{
    tok_step *s = t->decoder.step;
    *s++ = (tok_step){.kind = DECODE_REPLACE, .text = MARK, .text_size = 3, .content = " ", .content_size = 1};
    *s++ = (tok_step){.kind = DECODE_BYTE_FALLBACK};
    *s++ = (tok_step){.kind = DECODE_FUSE};
    if (m->dummy || m->remove_extra) *s++ = (tok_step){.kind = DECODE_STRIP, .text = " ", .text_size = 1, .left = m->remove_extra ? SIZE_MAX : 1};
    t->decoder.count = (size_t)(s - t->decoder.step);
    t->has_decoder = true;
}

static bool wanted(const json_t *config, const char *key, bool otherwise)
{
    const json_t *value = json_object_get(config, key);
    return json_is_boolean(value) ? json_is_true(value) : otherwise;
}

static void make_post(tokenizer *t, const spm_model *m, const json_t *config)
{
    bool has_bos = m->bos >= 0 && (size_t)m->bos < m->count, has_eos = m->eos >= 0 && (size_t)m->eos < m->count;
    if (has_bos && wanted(config, "add_bos_token", true)) t->post[t->n_post++] = m->bos;
    t->post[t->n_post++] = -1;
    if (has_eos && wanted(config, "add_eos_token", !has_bos)) t->post[t->n_post++] = m->eos;       /* encoders such as T5's have no beginning but an end */
}

static bool build(tokenizer *t, const spm_model *m, const json_t *config, vlm_error *error)
{
    tok_spm *s = arena_alloc(&t->strings, sizeof *s);
    if (!s) return err_memory(error, sizeof *s);
    *s = (tok_spm){.suffix = m->suffix, .dummy = m->dummy, .remove_extra = m->remove_extra, .escape = m->escape, .first_only = !wanted(config, "legacy", true)};
    t->normalizer.count = 1;
    t->normalizer.step[0] = (tok_step){.kind = NORM_SENTENCEPIECE, .table = s};
    t->wants_first = true;
    t->model = m->type == SPM_BPE ? MODEL_BPE : MODEL_UNIGRAM;
    t->byte_fallback = m->byte_fallback;
    t->unk = m->unk >= 0 && (size_t)m->unk < m->count ? m->unk : -1;
    if (!tok_charsmap_from(t, m->charsmap, m->charsmap_size, &s->charsmap, error) || !add_pieces(t, m, s, error)) return false;
    tok_byte_tokens(t);
    make_decoder(t, m);
    make_post(t, m, config);
    return m->type == SPM_BPE ? load_bpe(t, m, error) : load_unigram(t, m, error);
}

void tok_spm_free(const void *table)
{
    if (table) tok_trie_free(&((tok_spm *)(uintptr_t)table)->user);
}

tokenizer *tok_from_sentencepiece(const void *data, size_t size, const json_t *config, vlm_error *error)
{
    spm_model m = {0};
    tokenizer *t = MEM_NEW(tokenizer);
    if (!t) err_memory(error, sizeof *t);
    else {
        t->config = config ? json_incref((json_t *)(uintptr_t)config) : NULL;
        t->unk = -1;
        if (!read_model(data, size, &m, error) || !build(t, &m, config, error)) {
            tokenizer_free(t);
            t = NULL;
        }
    }
    mem_free(m.piece);
    return t;
}
