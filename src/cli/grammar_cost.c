/* grammar_cost.c - times of masks along a text. */
#include <string.h>
#include <time.h>

#include "base/err.h"
#include "cli/grammar_cost.h"
#include "cli/jsonl.h"

static double microseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static bool text_ids(const json_t *input, const tokenizer *t, ids *list, vlm_error *error)
{
    const json_t *given = json_object_get(input, "ids"), *id;
    size_t i, size;
    const char *text;
    json_array_foreach(given, i, id) if (!ids_add(list, (int32_t)json_integer_value(id))) return err_memory(error, 0);
    if (given) return true;
    const encode_options plain = {.special = true};
    return jsonl_get_string(input, "text", &text, &size, error) && tokenizer_encode(t, text, size, &plain, list, error);
}

/* One way along the tokens; *allowed: how many were taken. */
static bool along(grammar *g, const ids *list, uint64_t *mask, json_t *times, json_t *sizes, size_t *allowed, vlm_error *error)
{
    const size_t words = grammar_vocab_words(grammar_get_vocab(g));
    matcher *m = matcher_new(g, error);
    vlm_error own = {0};
    bool ok = m != NULL;
    *allowed = 0;
    for (size_t i = 0; ok && i <= list->count; i++) {
        const double before = microseconds();
        if (!(ok = matcher_mask(m, mask, error))) break;
        json_array_append_new(times, json_real(microseconds() - before));
        size_t bits = 0;
        for (size_t w = 0; w < words; w++) bits += (size_t)__builtin_popcountll(mask[w]);
        if (sizes) json_array_append_new(sizes, json_integer((json_int_t)bits));
        if (i == list->count || !matcher_token(m, list->id[i], &own)) break;
        (*allowed)++;
    }
    if (own.code != VLM_OK) {
        if (error) *error = own;
        ok = false;
    }
    matcher_free(m);
    return ok;
}

json_t *grammar_cost(grammar *(*compile)(const json_t *, grammar_vocab *, vlm_error *), const json_t *what, const json_t *input, const tokenizer *t,
                     grammar_vocab *vocab, vlm_error *error)
{
    ids list = {0};
    json_t *first = json_array(), *again = json_array(), *sizes = json_array(), *result = NULL;
    uint64_t *mask = MEM_ARRAY(grammar_vocab_words(vocab) + 1, uint64_t);
    grammar *g = NULL;
    size_t allowed = 0;
    if (!mask || !first || !again || !sizes) err_memory(error, 0);
    else if (text_ids(input, t, &list, error)) {
        const double before = microseconds();
        g = compile(what, vocab, error);
        const double taken = microseconds() - before;
        if (g && along(g, &list, mask, first, sizes, &allowed, error) && along(g, &list, mask, again, NULL, &allowed, error))
            result = json_pack("{s:f, s:I, s:I, s:O, s:O, s:O}", "compile_us", taken, "tokens", (json_int_t)list.count, "allowed", (json_int_t)allowed, "first_us", first,
                               "again_us", again, "sizes", sizes);
    }
    grammar_unref(g);
    mem_free(mask);
    ids_free(&list);
    json_decref(first);
    json_decref(again);
    json_decref(sizes);
    return result;
}
