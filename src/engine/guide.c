/* guide.c - see guide.h. */
#include "engine/guide.h"

#include <string.h>

#include "base/err.h"

/* PROMPT_TAIL: tokens in which an opened thinking block is looked for. Forced text: so much at once; less than LEAST bytes is not worth it. */
enum { PROMPT_TAIL = 48, FORCED_MOST = 256, FORCED_LEAST = 4 };

/* ---- setting up ---- */

static bool init_thinking(guide *g, const vlm_model *m, const guide_options *o, const ids *prompt, vlm_error *error)
{
    const char *start = o->start ? o->start : toolcall_think_open(o->marks->format), *end = o->end ? o->end : toolcall_think_close(o->marks->format);
    if ((start && strchr(start, '\1')) || (end && strchr(end, '\1'))) start = end = NULL;      /* markers with a free part */
    const char *close = o->end ? NULL : toolcall_think_force(o->marks->format), *also = o->start || o->end ? NULL : toolcall_think_also_ends(o->marks->format);
    buf before = {0};
    size_t n = prompt->count < PROMPT_TAIL ? prompt->count : PROMPT_TAIL;
    bool ok = tokenizer_decode(m->tok, prompt->id + prompt->count - n, n, false, &before, error) &&
              thinking_init(&g->think, m->tok, &(thinking_marks){start, end, close, also}, before.data, o->budget, error);
    if (ok && !o->start && before.data && g->think.end && toolcall_prompt_thinks(o->marks->format, before.data, before.size)) g->think.state = THINKING_INSIDE;
    buf_free(&before);
    return ok;
}

static bool encode(const guide *g, const char *text, ids *out, vlm_error *error)
{
    encode_options special = {.special = true};
    if (!tokenizer_encode(g->tok, text, strlen(text), &special, out, error)) return false;
    return out->failed ? err_memory(error, 64) : true;
}

bool guide_hold(guide *g, grammar *to, const guide_hold_options *o, vlm_error *error)
{
    size_t words = grammar_vocab_words(grammar_get_vocab(to));
    if (!(g->mask = MEM_ARRAY(words, uint64_t))) return err_memory(error, words * sizeof *g->mask);
    g->grammar = grammar_ref(to);
    if (!(g->matcher = matcher_new(to, error))) return false;
    const char *force = toolcall_think_force(o->marks->format);
    size_t end = g->think.end ? strlen(g->think.end) : 0;
    bool more = end && force && !strncmp(force, g->think.end, end) && force[end];
    if (more && (o->calls ? !thinking_close_with(&g->think, g->tok, g->think.end, error) : !encode(g, force + end, &g->lead, error))) return false;
    if (!o->may_think || g->think.state != THINKING_MAYBE) return true;
    if (!encode(g, g->think.start, &g->opening, error)) return false;
    if (!g->opening.count || !(tokenizer_is_special(g->tok, g->opening.id[0]) || output_is_mark(o->marks, g->opening.id[0]))) g->opening.count = 0;
    return true;
}

bool guide_init(guide *g, const vlm_model *m, const guide_options *options, const ids *prompt, vlm_error *error)
{
    *g = (guide){.tok = m->tok, .ends = options->ends, .n_ends = options->n_ends, .least = options->min_tokens,
                 .think = {.state = THINKING_OVER, .budget = -1}};
    if (!m->tok) return true;
    if (init_thinking(g, m, options, prompt, error)) return true;
    guide_free(g);
    return false;
}

void guide_free(guide *g)
{
    thinking_free(&g->think);
    matcher_free(g->matcher);
    grammar_unref(g->grammar);
    mem_free(g->mask);
    ids_free(&g->opening);
    ids_free(&g->lead);
    ids_free(&g->forced);
    buf_free(&g->text);
    *g = (guide){0};
}

bool guide_thinks(const guide *g) { return g->think.state == THINKING_INSIDE; }

/* ---- following ---- */

static bool is_end(const guide *g, int32_t token)
{
    for (int i = 0; i < g->n_ends; i++)
        if (g->ends[i] == token) return true;
    return false;
}

/* Thinking sees the bytes, of control tokens the names. */
static bool follow_text(guide *g, int32_t token, vlm_error *error)
{
    if (g->think.state == THINKING_OVER) return true;
    const char *name = tokenizer_is_special(g->tok, token) ? tokenizer_token(g->tok, token) : NULL;
    buf_clear(&g->text);
    bool ok = name ? buf_adds(&g->text, name) : tokenizer_token_bytes(g->tok, token, &g->text) || !g->text.failed;
    ok = ok && thinking_add(&g->think, g->text.data ? g->text.data : "", g->text.size);
    return ok ? true : err_memory(error, g->text.size);
}

static bool not_taken(const guide *g, int32_t token, vlm_error *error)
{
    if (error && error->code) return false;
    const char *name = tokenizer_token(g->tok, token);
    return err_set(error, VLM_INTERNAL, "the grammar does not take token %d (%.60s)", token, name ? name : "");
}

/* Behind the thinking, in the token that ended it; that token itself, when it was the beginning of a call. */
static bool follow_rest(guide *g, int32_t token, vlm_error *error)
{
    size_t size, at = 0;
    const char *rest = thinking_rest(&g->think, &size);
    if (!g->think.rest && matcher_token(g->matcher, token, NULL)) return true;
    while (at < size && strchr(" \n\r\t", rest[at])) at++;
    vlm_error why = {0};
    if (at == size || matcher_bytes(g->matcher, rest + at, size - at, NULL, &why)) return true;
    if (!why.code) return err_set(error, VLM_UNSUPPORTED, "the answer begins in the token that ends the thinking, and not as the grammar wants");
    if (error) *error = why;
    return false;
}

/* Is the marker of the thinking being written? */
static bool opening(const guide *g) { return g->opened && g->think.state == THINKING_MAYBE; }

/* Is what stands between the thinking and the answer being written? */
static bool leading(const guide *g) { return g->thought && g->think.state == THINKING_OVER && g->led < (int)g->lead.count; }

bool guide_add(guide *g, int32_t token, vlm_error *error)
{
    thinking_state before = g->think.state;
    bool marker = opening(g), between = leading(g);
    vlm_error why = {0};
    g->count++;
    if (!follow_text(g, token, error)) return false;
    if (!g->matcher || is_end(g, token)) return true;
    if (before == THINKING_INSIDE) g->thought = true;
    if (before == THINKING_INSIDE) return g->think.state == THINKING_INSIDE || follow_rest(g, token, error);
    if (marker) return g->opened++, true;
    if (between) return g->led++, true;
    if (matcher_token(g->matcher, token, &why)) return g->think.state = THINKING_OVER, true;
    if (!why.code && before == THINKING_MAYBE && g->opening.count && token == g->opening.id[0]) return g->opened = 1, true;
    bool ok = not_taken(g, token, &why);
    if (error) *error = why;
    return ok;
}

/* Is it the grammar's turn? Not inside the thinking, nor while its marker is being written. */
static bool governed(const guide *g)
{
    return g->matcher && g->think.state != THINKING_INSIDE && !opening(g) && !leading(g);
}

bool guide_finished(const guide *g) { return governed(g) && matcher_finished(g->matcher); }

/* ---- what may come ---- */

static void allow(const guide *g, int32_t token)
{
    if ((size_t)token < grammar_vocab_size(grammar_get_vocab(g->grammar))) g->mask[token / 64] |= (uint64_t)1 << token % 64;
}

sampler_limits guide_limits(guide *g)
{
    sampler_limits limits = {0};
    if (g->count < g->least || (g->matcher && !governed(g))) {     /* an answer has to follow the thinking */
        limits.banned = g->ends;
        limits.n_banned = g->n_ends;
    }
    if (!governed(g)) return limits;
    grammar_vocab *vocab = grammar_get_vocab(g->grammar);
    limits.allowed = g->mask;
    limits.n_allowed = (int)grammar_vocab_size(vocab);
    g->error = (vlm_error){0};
    if (!matcher_mask(g->matcher, g->mask, &g->error)) {
        memset(g->mask, 0, grammar_vocab_words(vocab) * sizeof *g->mask);
        return limits;
    }
    if (matcher_accepting(g->matcher))
        for (int i = 0; i < g->n_ends; i++) allow(g, g->ends[i]);
    if (!g->count && g->opening.count) allow(g, g->opening.id[0]);
    return limits;
}

/* ---- what has to come ---- */

/* The tokenizer's tokens of the text that the grammar leaves no choice of; not the last one, for it might be longer with what follows. */
static bool force_text(guide *g)
{
    vlm_error error;
    encode_options plain = {0};
    buf_clear(&g->text);
    g->forced.count = 0;
    if (!matcher_forced(g->matcher, FORCED_MOST, &g->text, &error) || g->text.failed || g->text.size < FORCED_LEAST) return false;
    if (!tokenizer_encode(g->tok, g->text.data, g->text.size, &plain, &g->forced, &error) || g->forced.failed || g->forced.count < 2) return false;
    size_t at = 0, kept = 0;
    buf bytes = {0};
    for (; kept + 1 < g->forced.count; kept++) {   /* a tokenizer may have put a space before the text, or read broken UTF-8 */
        buf_clear(&bytes);
        if (!tokenizer_token_bytes(g->tok, g->forced.id[kept], &bytes) || bytes.size > g->text.size - at ||
            memcmp(bytes.data, g->text.data + at, bytes.size))
            break;
        at += bytes.size;
    }
    buf_free(&bytes);
    g->forced.count = kept;
    return kept > 0;
}

const int32_t *guide_forced(guide *g, int *count)
{
    const ids *close = thinking_close(&g->think);
    *count = 0;
    if (close) {
        *count = (int)close->count;
        return close->id;
    }
    if (opening(g) && g->opened < (int)g->opening.count) {
        *count = (int)g->opening.count - g->opened;
        return g->opening.id + g->opened;
    }
    if (g->matcher && leading(g)) {
        *count = (int)g->lead.count - g->led;
        return g->lead.id + g->led;
    }
    if (!governed(g) || (!g->count && g->opening.count) || !force_text(g)) return NULL;
    *count = (int)g->forced.count;
    return g->forced.id;
}
