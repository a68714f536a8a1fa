/* decode.c - ids to text. The decoder's steps form a pipeline that is fed token by token, so that decoding as a stream and
 * decoding at once are the same code: tokenizer_decode is a detokenizer fed with everything.
 *
 * A step holds back only what later tokens can change: unfinished characters (ByteLevel), a run of byte tokens (ByteFallback: a run
 * that is not UTF-8 as a whole becomes U+FFFD byte by byte), the last token (BPEDecoder), text that Strip may take from the end. */
#include <string.h>

#include "text/tokenizer/internal.h"

typedef struct step_state {
    buf held;
    size_t count;                  /* tokens seen; Strip after Fuse: characters already taken from the left */
    bool fused;                    /* what comes in is one long string, not tokens */
} step_state;

struct detokenizer {
    const tokenizer *t;
    bool skip_special;
    step_state *state;             /* one for each step of t->decoder */
    buf work[2];
    size_t tokens;
};

static bool push(detokenizer *d, size_t step, const char *text, size_t size, buf *out);

/* ---- steps ---- */

/* The bytes that the characters of the byte alphabet stand for; text that has others as it is. */
static bool add_alphabet(const char *text, size_t size, buf *out)
{
    size_t begin = out->size;
    for (size_t i = 0; i < size;) {
        uint32_t code;
        i += utf8_next_lossy(text + i, size - i, &code);
        int byte = tok_char_to_byte(code);
        if (byte < 0) {
            out->size = begin;
            return buf_add(out, text, size);
        }
        if (!buf_addc(out, (char)byte)) return false;
    }
    return true;
}

/* Adds bytes, passes on the whole characters. */
static bool push_bytes(detokenizer *d, size_t step, const char *text, size_t size, bool end, buf *out)
{
    buf *held = &d->state[step].held;
    if (step && !add_alphabet(text, size, held)) return false;       /* the first step has got bytes already */
    if (!step && !buf_add(held, text, size)) return false;
    size_t whole = 0;
    while (whole < held->size) {
        uint32_t code;
        size_t used = utf8_next(held->data + whole, held->size - whole, &code);
        if (!used) break;
        whole += used;
    }
    if (end) whole = held->size;
    if (!whole) return true;
    buf clean = {0};
    bool ok = utf8_add_lossy(&clean, held->data, whole) && push(d, step + 1, clean.data, clean.size, out);
    buf_free(&clean);
    held->size -= whole;
    memmove(held->data, held->data + whole, held->size);
    return ok;
}

static bool flush_byte_run(detokenizer *d, size_t step, buf *out)
{
    buf *held = &d->state[step].held;
    if (!held->size) return true;
    bool ok = true;
    if (utf8_valid(held->data, held->size)) ok = push(d, step + 1, held->data, held->size, out);
    else
        for (size_t i = 0; ok && i < held->size; i++) ok = push(d, step + 1, "\xEF\xBF\xBD", 3, out);
    buf_clear(held);
    return ok;
}

static int byte_token(const char *text, size_t size)
{
    if (size != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>') return -1;
    int value = 0;
    for (int i = 3; i < 5; i++) {
        char c = text[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (digit < 0) return -1;
        value = value * 16 + digit;
    }
    return value;
}

static bool push_byte_fallback(detokenizer *d, size_t step, const char *text, size_t size, buf *out)
{
    int byte = byte_token(text, size);
    if (byte >= 0) return buf_addc(&d->state[step].held, (char)byte);
    return flush_byte_run(d, step, out) && push(d, step + 1, text, size, out);
}

static bool starts(const char *text, size_t size, const char *what, size_t n) { return n && size >= n && memcmp(text, what, n) == 0; }
static bool ends(const char *text, size_t size, const char *what, size_t n) { return n && size >= n && memcmp(text + size - n, what, n) == 0; }

/* Strip: at most `left` times the character at the start, `right` times at the end; of each token, or of the whole when fused. */
static bool push_strip(detokenizer *d, size_t step, const char *text, size_t size, bool end, buf *out)
{
    const tok_step *s = &d->t->decoder.step[step];
    step_state *state = &d->state[step];
    size_t n = s->text_size, taken = state->fused ? state->count : 0;
    while (taken < s->left && starts(text, size, s->text, n)) {
        text += n;
        size -= n;
        taken++;
    }
    if (state->fused && size) taken = s->left;     /* something else came: the start is over */
    state->count = taken;
    if (!state->fused) {
        for (size_t i = 0; i < s->right && ends(text, size, s->text, n); i++) size -= n;
        return push(d, step + 1, text, size, out);
    }
    buf *held = &state->held;
    if (!buf_add(held, text, size)) return false;
    size_t keep = 0;                               /* characters at the end that may go */
    while (keep / (n ? n : 1) < s->right && ends(held->data, held->size - keep, s->text, n)) keep += n;
    bool ok = held->size == keep || push(d, step + 1, held->data, held->size - keep, out);
    if (held->size) memmove(held->data, held->data + held->size - keep, keep);
    held->size = end ? 0 : keep;
    return ok;
}

/* A literal in one long string: held back is only an end that may become the literal's beginning. */
static bool push_fused_literal(detokenizer *d, size_t step, const tok_step *s, const char *text, size_t size, bool end, buf *out)
{
    buf *held = &d->state[step].held, changed = {0};
    if (!buf_add(held, text, size)) return false;
    size_t at = 0, hit;
    bool ok = true;
    while (ok && (hit = bytes_find(held->data, held->size, at, s->text, s->text_size)) != SIZE_MAX) {
        ok = buf_add(&changed, held->data + at, hit - at) && buf_add(&changed, s->content, s->content_size);
        at = hit + s->text_size;
    }
    size_t keep = held->size - at < s->text_size ? held->size - at : s->text_size - 1;
    while (keep && (end || memcmp(held->data + held->size - keep, s->text, keep) != 0)) keep--;
    ok = ok && buf_add(&changed, held->data + at, held->size - at - keep);
    if (held->size) memmove(held->data, held->data + held->size - keep, keep);
    held->size = keep;
    ok = ok && (!changed.size || push(d, step + 1, changed.data, changed.size, out));
    buf_free(&changed);
    return ok;
}

/* The literal that the step replaces in one long string; false: the step has to see it whole. */
static bool fused_literal(const tok_step *s, tok_step *literal)
{
    if (s->kind != DECODE_METASPACE && (s->kind != DECODE_REPLACE || s->re)) return false;
    *literal = *s;
    if (s->kind == DECODE_METASPACE) {             /* one long string is the first token: its marks go */
        literal->content = " ";
        literal->content_size = s->prepend == PREPEND_NEVER;
    }
    return s->text_size > 0;
}

static bool push_fused(detokenizer *d, size_t step, const char *text, size_t size, bool end, buf *out)
{
    tok_step literal;
    if (fused_literal(&d->t->decoder.step[step], &literal)) return push_fused_literal(d, step, &literal, text, size, end, out);
    buf *held = &d->state[step].held, whole;
    if (!end) return buf_add(held, text, size);
    whole = *held;
    *held = (buf){0};
    d->state[step].fused = false;
    bool ok = push(d, step, whole.data ? whole.data : "", whole.size, out);
    buf_free(&whole);
    return ok;
}

static bool push_replace(detokenizer *d, size_t step, const char *text, size_t size, buf *out)
{
    const tok_step *s = &d->t->decoder.step[step];
    if (!s->re && bytes_find(text, size, 0, s->text, s->text_size) == SIZE_MAX) return push(d, step + 1, text, size, out);
    buf changed = {0};
    bool ok = tok_replace(s, text, size, &changed, NULL) && push(d, step + 1, changed.data ? changed.data : "", changed.size, out);
    buf_free(&changed);
    return ok;
}

static bool push_metaspace(detokenizer *d, size_t step, const char *text, size_t size, buf *out)
{
    const tok_step *s = &d->t->decoder.step[step];
    bool first = d->state[step].count++ == 0;
    buf changed = {0};
    for (size_t i = 0; i < size;) {
        if (starts(text + i, size - i, s->text, s->text_size)) {
            if (!first || s->prepend == PREPEND_NEVER) buf_addc(&changed, ' ');
            i += s->text_size;
        } else buf_addc(&changed, text[i++]);
    }
    bool ok = !changed.failed && push(d, step + 1, changed.data ? changed.data : "", changed.size, out);
    buf_free(&changed);
    return ok;
}

/* WordPiece's clean-up works on each token alone. */
static bool clean_up(buf *text)
{
    static const char *const rules[][2] = {{" .", "."}, {" ?", "?"}, {" !", "!"}, {" ,", ","}, {" ' ", "'"}, {" n't", "n't"}, {" 'm", "'m"},
                                           {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        tok_step s = {.text = rules[i][0], .text_size = strlen(rules[i][0]), .content = rules[i][1], .content_size = strlen(rules[i][1])};
        if (!text->size || bytes_find(text->data, text->size, 0, s.text, s.text_size) == SIZE_MAX) continue;
        buf changed = {0};
        bool ok = tok_replace(&s, text->data, text->size, &changed, NULL);
        buf_free(text);
        *text = changed;
        if (!ok) return false;
    }
    return true;
}

static bool push_wordpiece(detokenizer *d, size_t step, const char *text, size_t size, buf *out)
{
    const tok_step *s = &d->t->decoder.step[step];
    buf changed = {0};
    if (d->state[step].count++) {
        if (starts(text, size, s->text, s->text_size)) {
            text += s->text_size;
            size -= s->text_size;
        } else buf_addc(&changed, ' ');
    }
    buf_add(&changed, text, size);
    bool ok = !changed.failed && (!s->flag || clean_up(&changed)) && push(d, step + 1, changed.data ? changed.data : "", changed.size, out);
    buf_free(&changed);
    return ok;
}

/* BPEDecoder: the suffix becomes a space, at the very end nothing. */
static bool flush_bpe(detokenizer *d, size_t step, bool last, buf *out)
{
    const tok_step *s = &d->t->decoder.step[step];
    tok_step replace = {.text = s->text, .text_size = s->text_size, .content = last ? "" : " ", .content_size = last ? 0 : 1};
    buf changed = {0};
    buf *held = &d->state[step].held;
    bool ok = tok_replace(&replace, held->data ? held->data : "", held->size, &changed, NULL) &&
              push(d, step + 1, changed.data ? changed.data : "", changed.size, out);
    buf_free(&changed);
    buf_clear(held);
    return ok;
}

/* CTC: of equal tokens in a row one, without the padding; the delimiter of words becomes a space (with clean-up). */
static bool push_ctc(detokenizer *d, size_t step, const char *text, size_t size, buf *out)
{
    const tok_step *s = &d->t->decoder.step[step];
    step_state *state = &d->state[step];
    if (state->count++ && state->held.size == size && (!size || memcmp(state->held.data, text, size) == 0)) return true;
    tok_step pad = {.text = s->text, .text_size = s->text_size, .content = ""};
    tok_step delimiter = {.text = s->content, .text_size = s->content_size, .content = " ", .content_size = 1};
    buf changed = {0}, spaced = {0};
    buf_clear(&state->held);
    bool ok = buf_add(&state->held, text, size) && tok_replace(&pad, text, size, &changed, NULL);
    if (ok && s->flag) {
        ok = clean_up(&changed) && tok_replace(&delimiter, changed.data ? changed.data : "", changed.size, &spaced, NULL);
        buf swap = changed;
        changed = spaced;
        spaced = swap;
    }
    ok = ok && (!changed.size || push(d, step + 1, changed.data, changed.size, out));
    buf_free(&changed);
    buf_free(&spaced);
    return ok;
}

static bool push_bpe(detokenizer *d, size_t step, const char *text, size_t size, buf *out)
{
    step_state *state = &d->state[step];
    if (state->count++ && !flush_bpe(d, step, false, out)) return false;
    return buf_add(&state->held, text, size);
}

static bool push(detokenizer *d, size_t step, const char *text, size_t size, buf *out)
{
    if (step == d->t->decoder.count) return buf_add(out, text, size);
    tok_step_kind kind = d->t->decoder.step[step].kind;
    if (d->state[step].fused && kind != DECODE_STRIP && kind != DECODE_FUSE) return push_fused(d, step, text, size, false, out);
    switch (kind) {
    case DECODE_BYTE_LEVEL: return push_bytes(d, step, text, size, false, out);
    case DECODE_BYTE_FALLBACK: return push_byte_fallback(d, step, text, size, out);
    case DECODE_STRIP: return push_strip(d, step, text, size, false, out);
    case DECODE_REPLACE: return push_replace(d, step, text, size, out);
    case DECODE_METASPACE: return push_metaspace(d, step, text, size, out);
    case DECODE_WORDPIECE: return push_wordpiece(d, step, text, size, out);
    case DECODE_BPE: return push_bpe(d, step, text, size, out);
    case DECODE_CTC: return push_ctc(d, step, text, size, out);
    default: return push(d, step + 1, text, size, out);
    }
}

static bool finish(detokenizer *d, size_t step, buf *out)
{
    if (step == d->t->decoder.count) return true;
    bool ok = true;
    tok_step_kind kind = d->t->decoder.step[step].kind;
    if (d->state[step].fused && kind != DECODE_STRIP && kind != DECODE_FUSE && !push_fused(d, step, "", 0, true, out)) return false;
    switch (kind) {
    case DECODE_BYTE_LEVEL: ok = push_bytes(d, step, "", 0, true, out); break;
    case DECODE_BYTE_FALLBACK: ok = flush_byte_run(d, step, out); break;
    case DECODE_STRIP: ok = !d->state[step].fused || push_strip(d, step, "", 0, true, out); break;
    case DECODE_BPE: ok = !d->state[step].count || flush_bpe(d, step, true, out); break;
    default: break;
    }
    return ok && finish(d, step + 1, out);
}

/* ---- the object ---- */

detokenizer *detokenizer_new(const tokenizer *t, bool skip_special, vlm_error *error)
{
    detokenizer *d = MEM_NEW(detokenizer);
    step_state *state = MEM_ARRAY(t->decoder.count, step_state);
    if (!d || !state) {
        mem_free(d);
        mem_free(state);
        err_memory(error, sizeof *d);
        return NULL;
    }
    *d = (detokenizer){.t = t, .skip_special = skip_special, .state = state};
    bool fused = false;
    for (size_t i = 0; i < t->decoder.count; i++) {
        state[i].fused = fused;
        tok_step_kind kind = t->decoder.step[i].kind;
        fused |= kind == DECODE_FUSE || kind == DECODE_BYTE_LEVEL;
    }
    return d;
}

void detokenizer_free(detokenizer *d)
{
    if (!d) return;
    for (size_t i = 0; i < d->t->decoder.count; i++) buf_free(&d->state[i].held);
    mem_free(d->state);
    mem_free(d);
}

bool detokenizer_add(detokenizer *d, int32_t id, buf *out, vlm_error *error)
{
    const tokenizer *t = d->t;
    if (id < 0 || (size_t)id >= t->size || !t->token[id].known) return true;        /* as the reference: unknown ids give no text */
    const tok_token *k = &t->token[id];
    if (k->skipped && d->skip_special) return true;
    bool ok = true;
    if (!t->has_decoder && d->tokens++) ok = buf_addc(out, ' ');
    bool raw = t->decoder.count && t->decoder.step[0].kind == DECODE_BYTE_LEVEL;
    if (ok) ok = push(d, 0, raw ? k->raw : k->text, raw ? k->raw_size : k->text_size, out);
    return ok || err_memory(error, 0);
}

bool detokenizer_finish(detokenizer *d, buf *out, vlm_error *error) { return finish(d, 0, out) || err_memory(error, 0); }

bool tokenizer_decode(const tokenizer *t, const int32_t *id, size_t count, bool skip_special, buf *out, vlm_error *error)
{
    detokenizer *d = detokenizer_new(t, skip_special, error);
    bool ok = d != NULL;
    for (size_t i = 0; ok && i < count; i++) ok = detokenizer_add(d, id[i], out, error);
    if (ok) ok = detokenizer_finish(d, out, error);
    detokenizer_free(d);
    return ok;
}

/* ---- one token in the middle of a text ---- */

/* What the step makes of the token in *text. fused: the steps before have made one string of the tokens. */
static bool step_inside(const tok_step *s, bool fused, buf *text, buf *work)
{
    const char *from = text->data ? text->data : "";
    size_t size = text->size;
    int byte;
    buf_clear(work);
    switch (s->kind) {
    case DECODE_REPLACE: tok_replace(s, from, size, work, NULL); break;
    case DECODE_BYTE_FALLBACK:
        if ((byte = byte_token(from, size)) < 0) return true;
        buf_addc(work, (char)byte);
        break;
    case DECODE_STRIP:
        if (fused) return true;                    /* it works at the ends of the text only */
        for (size_t i = 0; i < s->left && starts(from, size, s->text, s->text_size); i++) from += s->text_size, size -= s->text_size;
        for (size_t i = 0; i < s->right && ends(from, size, s->text, s->text_size); i++) size -= s->text_size;
        buf_add(work, from, size);
        break;
    case DECODE_METASPACE:
    case DECODE_BPE: {
        tok_step replace = {.text = s->text, .text_size = s->text_size, .content = " ", .content_size = 1};
        tok_replace(&replace, from, size, work, NULL);
    } break;
    case DECODE_WORDPIECE: {
        bool inside = starts(from, size, s->text, s->text_size);
        if (!inside) buf_addc(work, ' ');
        buf_add(work, from + (inside ? s->text_size : 0), size - (inside ? s->text_size : 0));
        if (s->flag) clean_up(work);
    } break;
    default: return true;
    }
    buf swap = *text;
    *text = *work;
    *work = swap;
    return !text->failed;
}

bool tokenizer_token_bytes(const tokenizer *t, int32_t id, buf *out)
{
    if (id < 0 || (size_t)id >= t->size || !t->token[id].known || t->token[id].special) return false;
    const tok_token *k = &t->token[id];
    const tok_steps *steps = &t->decoder;
    buf text = {0}, work = {0};
    bool raw = steps->count && steps->step[0].kind == DECODE_BYTE_LEVEL, fused = false;
    if (!t->has_decoder) buf_addc(&text, ' ');     /* tokens are words */
    bool ok = buf_add(&text, raw ? k->raw : k->text, raw ? k->raw_size : k->text_size);
    for (size_t i = 0; ok && i < steps->count; i++) {
        ok = step_inside(&steps->step[i], fused, &text, &work);
        fused |= steps->step[i].kind == DECODE_FUSE || steps->step[i].kind == DECODE_BYTE_LEVEL;
    }
    if (!ok) out->failed = true;
    ok = ok && buf_add(out, text.data ? text.data : "", text.size);
    buf_free(&text);
    buf_free(&work);
    return ok;
}
