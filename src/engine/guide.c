/* guide.c - see guide.h. */
#include "engine/guide.h"

#include <string.h>

#include "base/err.h"

enum { PROMPT_TAIL = 48 };

/* Thinking markers that templates write. */
static const char *const marks[][2] = {
    {"<|channel>thought", "<channel|>"}, {"<|START_THINKING|>", "<|END_THINKING|>"}, {"[THINK]", "[/THINK]"}, {"<think>", "</think>"},
};

static void find_marks(const vlm_model *m, const char **start, const char **end)
{
    const char *source = m->chat ? chat_template_source(m->chat) : NULL;
    for (size_t i = 0; source && i < sizeof marks / sizeof *marks; i++)
        if (strstr(source, marks[i][0]) || strstr(source, marks[i][1])) {
            *start = marks[i][0];
            *end = marks[i][1];
            return;
        }
}

bool guide_init(guide *g, const vlm_model *m, const guide_options *options, const ids *prompt, vlm_error *error)
{
    *g = (guide){.ends = options->ends, .n_ends = options->n_ends, .least = options->min_tokens, .think = {.state = THINKING_OVER, .budget = -1}};
    const char *start = NULL, *end = NULL;
    if (!m->tok) return true;
    find_marks(m, &start, &end);
    if (options->start) start = options->start;
    if (options->end) end = options->end;
    buf before = {0};
    size_t n = prompt->count < PROMPT_TAIL ? prompt->count : PROMPT_TAIL;
    bool ok = tokenizer_decode(m->tok, prompt->id + prompt->count - n, n, false, &before, error) &&
              thinking_init(&g->think, m->tok, start, end, NULL, before.data, options->budget, error);
    if (ok && g->think.end) ok = (g->detok = detokenizer_new(m->tok, false, error)) != NULL;
    buf_free(&before);
    if (!ok) guide_free(g);
    return ok;
}

void guide_free(guide *g)
{
    thinking_free(&g->think);
    detokenizer_free(g->detok);
    buf_free(&g->text);
    *g = (guide){0};
}

/* Thinking sees the text, control tokens included. */
static bool follow_text(guide *g, int32_t token, vlm_error *error)
{
    if (!g->detok || g->think.state == THINKING_OVER) return true;
    buf_clear(&g->text);
    if (!detokenizer_add(g->detok, token, &g->text, error)) return false;
    if (g->text.failed || !thinking_add(&g->think, g->text.data ? g->text.data : "", g->text.size)) return err_memory(error, g->text.size);
    return true;
}

bool guide_add(guide *g, int32_t token, vlm_error *error)
{
    g->count++;
    return follow_text(g, token, error);
}

sampler_limits guide_limits(guide *g)
{
    sampler_limits limits = {0};
    if (g->count < g->least) {
        limits.banned = g->ends;
        limits.n_banned = g->n_ends;
    }
    return limits;
}

const int32_t *guide_forced(guide *g, int *count)
{
    const ids *close = thinking_close(&g->think);
    *count = close ? (int)close->count : 0;
    return close ? close->id : NULL;
}
