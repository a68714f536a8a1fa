/* wordpiece.c - WordPiece: of each word the longest beginning that the vocabulary knows, again and again. */
#include <string.h>

#include "text/tokenizer/internal.h"

bool tok_wordpiece_load(tokenizer *t, const json_t *model, vlm_error *error)
{
    const json_t *prefix = json_object_get(model, "continuing_subword_prefix"), *longest = json_object_get(model, "max_input_chars_per_word");
    t->prefix = arena_strdup(&t->strings, json_is_string(prefix) ? json_string_value(prefix) : "##");
    if (!t->prefix) return err_memory(error, 0);
    t->prefix_size = strlen(t->prefix);
    t->max_word = json_is_integer(longest) && json_integer_value(longest) > 0 ? (size_t)json_integer_value(longest) : 100;
    for (size_t i = 0; i < t->size; i++)           /* bounds the time for one word */
        if (t->token[i].text_size > t->longest) t->longest = t->token[i].text_size;
    return true;
}

bool tok_wordpiece(const tokenizer *t, const char *word, size_t size, tok_scratch *s, ids *out)
{
    size_t first = out->count;
    bool known = utf8_length(word, size) <= t->max_word;
    for (size_t start = 0; known && start < size;) {
        buf_clear(&s->text);
        if (start) buf_add(&s->text, t->prefix, t->prefix_size);
        size_t skip = s->text.size, end = size - start > t->longest ? start + t->longest : size;
        while (end > start && end < size && ((unsigned char)word[end] & 0xC0) == 0x80) end--;
        if (!buf_add(&s->text, word + start, end - start)) return false;
        int32_t id = -1;
        while (end > start && (id = tok_map_find(&t->vocab, s->text.data, skip + end - start)) < 0)
            do end--; while (end > start && ((unsigned char)word[end] & 0xC0) == 0x80);
        known = id >= 0;
        if (known && !ids_add(out, id)) return false;
        start = end;
    }
    if (known) return true;
    out->count = first;                            /* one unknown part makes the whole word unknown */
    return t->unk < 0 || ids_add(out, t->unk);
}
