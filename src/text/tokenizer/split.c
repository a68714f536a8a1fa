/* split.c - the pre-tokenizer: one piece of normalized text becomes words, each of which the model sees alone.
 *
 * A step cuts pieces into ranges of the same text where it can (patterns, digits, punctuation); steps that change characters
 * (Metaspace, a prefix space, the byte alphabet) write the text anew. */
#include <string.h>

#include "text/tokenizer/internal.h"

/* Ranges of one piece, told as matching and not matching, become pieces by the rules of `behavior`. Empty matches take part in the rules; the empty
 * pieces that come of them are dropped in the end. */
typedef struct cutter {
    tok_pieces *out;
    tok_behavior behavior;
    bool invert;
    size_t base;                   /* out->count when the piece began */
    size_t start;                  /* of the piece */
    bool begins_input;
    bool previous;                 /* was the last range a match? */
    bool pending;                  /* a match that waits for its right neighbour */
    size_t pending_start, pending_size;
    bool failed;
} cutter;

static void emit(cutter *c, size_t start, size_t size)
{
    if (!tok_pieces_push(c->out, start, size, c->begins_input && start == c->start)) c->failed = true;
}

static bool extend_last(cutter *c, size_t start, size_t size)
{
    if (c->out->count == c->base) return false;
    tok_piece *last = &c->out->piece[c->out->count - 1];
    last->size = start + size - last->start;
    return true;
}

static void cut(cutter *c, size_t start, size_t size, bool match)
{
    match ^= c->invert;
    switch (c->behavior) {
    case SPLIT_ISOLATED: emit(c, start, size); break;
    case SPLIT_REMOVED: if (!match) emit(c, start, size); break;
    case SPLIT_CONTIGUOUS:
        if (match != c->previous || !extend_last(c, start, size)) emit(c, start, size);
        c->previous = match;
        break;
    case SPLIT_MERGED_PREVIOUS:
        if (!match || c->previous || !extend_last(c, start, size)) emit(c, start, size);
        c->previous = match;
        break;
    case SPLIT_MERGED_NEXT:
        if (c->pending && !match) {
            emit(c, c->pending_start, c->pending_size + size);
            c->pending = false;
            break;
        }
        if (c->pending) emit(c, c->pending_start, c->pending_size);
        c->pending = match;
        c->pending_start = start;
        c->pending_size = size;
        if (!match) emit(c, start, size);
        break;
    }
}

static void cut_end(cutter *c)
{
    if (c->pending) emit(c, c->pending_start, c->pending_size);
    c->pending = false;
    size_t kept = c->base;
    for (size_t i = c->base; i < c->out->count; i++)
        if (c->out->piece[i].size) c->out->piece[kept++] = c->out->piece[i];
    c->out->count = kept;
}

/* Cuts by a pattern. Offsets are into out->text; the expression sees the piece alone, so lookarounds end at its borders. */
static bool by_pattern(const tok_step *s, const char *all, tok_piece p, cutter *c, tok_matches *m, vlm_error *error)
{
    size_t at = 0, from, to;
    int more;
    *m = (tok_matches){.step = m->step, .scratch = m->scratch, .text = all + p.start, .size = p.size, .last = SIZE_MAX};
    while ((more = tok_matches_next(m, &from, &to, error)) > 0) {
        if (from > at) cut(c, p.start + at, from - at, false);
        cut(c, p.start + from, to - from, true);
        at = to;
    }
    if (at < p.size) cut(c, p.start + at, p.size - at, false);
    return more == 0;
}

static bool is_punctuation(uint32_t c) { return unicode_in(UNICODE_PUNCTUATION, c); }

static bool is_numeric(uint32_t c) { return c < 0x80 ? c >= '0' && c <= '9' : unicode_in(UNICODE_NUMERIC, c); }

/* 0 space, 1 \w, 2 the rest. */
static int word_class(uint32_t c)
{
    if (c < 0x80) return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' ? 1 : unicode_is_space(c) ? 0 : 2;
    return unicode_in(UNICODE_WORD, c) ? 1 : unicode_is_space(c) ? 0 : 2;
}

/* \w+|[^\w\s]+ */
static void by_words(const char *all, tok_piece p, cutter *c)
{
    size_t end = p.start + p.size, begin = p.start;
    int kind = -1;
    for (size_t i = p.start; i < end;) {
        uint32_t code;
        size_t used = utf8_next_lossy(all + i, end - i, &code);
        int k = word_class(code);
        if (k != kind && kind > 0) emit(c, begin, i - begin);
        if (k != kind) begin = i;
        kind = k;
        i += used;
    }
    if (kind > 0) emit(c, begin, end - begin);
}

/* Sentencepiece's idea of a script, and what counts as any: the space, and characters without one. */
static int script_of(uint32_t c)
{
    if (c == 0x30FC) c = 0x4E00;                   /* the long vowel mark goes with Han */
    return c == ' ' ? 0 : unicode_script(c);
}

/* A new piece where the script changes; characters of any script go with the one before. A text that begins with such a character loses it: there the
 * reference begins no piece. */
static void by_scripts(const char *all, tok_piece p, cutter *c)
{
    size_t end = p.start + p.size, begin = SIZE_MAX;
    int last = -1;                                 /* none yet */
    for (size_t i = p.start; i < end;) {
        uint32_t code;
        size_t used = utf8_next_lossy(all + i, end - i, &code);
        int script = script_of(code);
        if (script && script != last) {
            if (begin != SIZE_MAX) emit(c, begin, i - begin);
            begin = i;
        }
        if (script) last = script;
        i += used;
    }
    if (begin != SIZE_MAX) emit(c, begin, end - begin);
}

/* Cuts by a property of characters: each matching character is a range of its own. */
static void by_property(const char *all, tok_piece p, bool (*property)(uint32_t), cutter *c)
{
    size_t end = p.start + p.size, begin = p.start;
    for (size_t i = p.start; i < end;) {
        uint32_t code;
        size_t used = utf8_next_lossy(all + i, end - i, &code);
        if (property(code)) {
            if (i > begin) cut(c, begin, i - begin, false);
            cut(c, i, used, true);
            begin = i + used;
        }
        i += used;
    }
    if (end > begin) cut(c, begin, end - begin, false);
}

static void by_length(const char *all, tok_piece p, size_t length, cutter *c)
{
    size_t end = p.start + p.size;
    for (size_t i = p.start; i < end;) {
        size_t begin = i;
        for (size_t k = 0; k < length && i < end; k++) i += utf8_size((unsigned char)all[i]);
        if (i > end) i = end;
        cut(c, begin, i - begin, true);
    }
}

static bool cut_piece(const tok_step *s, const char *text, tok_piece p, tok_pieces *out, tok_matches *m, vlm_error *error)
{
    cutter c = {.out = out, .behavior = s->behavior, .invert = s->invert, .base = out->count, .start = p.start, .begins_input = p.first};
    bool ok = true;
    switch (s->kind) {
    case SPLIT_PATTERN:
    case SPLIT_BYTE_LEVEL: ok = by_pattern(s, text, p, &c, m, error); break;
    case SPLIT_METASPACE: c.behavior = SPLIT_MERGED_NEXT; ok = by_pattern(s, text, p, &c, m, error); break;
    case SPLIT_DIGITS: by_property(text, p, is_numeric, &c); break;
    case SPLIT_PUNCTUATION: by_property(text, p, is_punctuation, &c); break;
    case SPLIT_BERT:
    case SPLIT_WHITESPACE: c.behavior = SPLIT_REMOVED; by_property(text, p, unicode_is_space, &c); break;
    case SPLIT_WORDS: by_words(text, p, &c); break;
    case SPLIT_SCRIPTS: by_scripts(text, p, &c); break;
    case SPLIT_FIXED: c.behavior = SPLIT_ISOLATED; by_length(text, p, s->left, &c); break;
    default: emit(&c, p.start, p.size);
    }
    cut_end(&c);
    return ok && (!c.failed || err_memory(error, 0));
}

/* Cuts every piece; the text stays. */
static bool cut_all(const tok_step *s, tok_pieces *p, vlm_error *error)
{
    tok_pieces out = {0};
    tok_matches m;
    bool ok = tok_matches_begin(&m, s, "", 0, error);
    for (size_t i = 0; ok && i < p->count; i++) ok = cut_piece(s, p->text.data, p->piece[i], &out, &m, error);
    tok_matches_end(&m);
    if (!ok) {
        tok_pieces_free(&out);
        return false;
    }
    mem_free(p->piece);
    p->piece = out.piece;
    p->count = out.count;
    p->capacity = out.capacity;
    return true;
}

static bool begins_with(const buf *text, tok_piece p, const char *what, size_t size)
{
    return p.size >= size && memcmp(text->data + p.start, what, size) == 0;
}

/* Writes every piece anew through `rewrite`. */
typedef void rewriter(const tok_step *s, const buf *text, tok_piece p, buf *out);

static void add_prefix_space(const tok_step *s, const buf *text, tok_piece p, buf *out)
{
    if (s->flag && !begins_with(text, p, " ", 1)) buf_addc(out, ' ');
    buf_add(out, text->data + p.start, p.size);
}

static void to_byte_alphabet(const tok_step *s, const buf *text, tok_piece p, buf *out)
{
    for (size_t i = 0; i < p.size; i++) buf_add_utf8(out, tok_byte_to_char((unsigned char)text->data[p.start + i]));
}

static void to_metaspace(const tok_step *s, const buf *text, tok_piece p, buf *out)
{
    bool has = begins_with(text, p, s->text, s->text_size) || begins_with(text, p, " ", 1);
    if (!has && (s->prepend == PREPEND_ALWAYS || (s->prepend == PREPEND_FIRST && p.first))) buf_add(out, s->text, s->text_size);
    for (size_t i = 0; i < p.size; i++) {
        char c = text->data[p.start + i];
        if (c == ' ') buf_add(out, s->text, s->text_size);
        else buf_addc(out, c);
    }
}

static bool rewrite_all(const tok_step *s, tok_pieces *p, rewriter *rewrite, vlm_error *error)
{
    buf out = {0};
    for (size_t i = 0; i < p->count; i++) {
        size_t start = out.size;
        rewrite(s, &p->text, p->piece[i], &out);
        p->piece[i].start = start;
        p->piece[i].size = out.size - start;
    }
    if (out.failed) {
        buf_free(&out);
        return err_memory(error, p->text.size);
    }
    buf_free(&p->text);
    p->text = out;
    return true;
}

bool tok_split(const tokenizer *t, tok_pieces *p, vlm_error *error)
{
    for (size_t i = 0; i < t->split.count && p->count; i++) {
        const tok_step *s = &t->split.step[i];
        bool ok = true;
        switch (s->kind) {
        case SPLIT_BYTE_LEVEL:
            if (s->flag) ok = rewrite_all(s, p, add_prefix_space, error);
            if (ok && s->re) ok = cut_all(s, p, error);
            if (ok && !t->raw_bytes) ok = rewrite_all(s, p, to_byte_alphabet, error);
            break;
        case SPLIT_METASPACE:
            ok = rewrite_all(s, p, to_metaspace, error);
            if (ok && s->flag) ok = cut_all(s, p, error);
            break;
        case SPLIT_BERT: {
            tok_step punctuation = {.kind = SPLIT_PUNCTUATION, .behavior = SPLIT_ISOLATED};
            ok = cut_all(s, p, error) && cut_all(&punctuation, p, error);
        } break;
        default: ok = cut_all(s, p, error);
        }
        if (!ok) return false;
    }
    return true;
}
