/* output_test.c - engine/output.h: stop strings across tokens, what is held back, ends of sequence. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#include "engine/output.h"

static tokenizer *letters;
static vlm_model model = {.vocab = 29, .n_eos = 1, .eos = {2}};

/* One token for each letter a-z (ids 3 ...), "</s>" = 2. */
static int set_up(void **state)
{
    (void)state;
    json_t *vocab = json_object();
    json_object_set_new(vocab, "<unk>", json_integer(0));
    json_object_set_new(vocab, "<s>", json_integer(1));
    json_object_set_new(vocab, "</s>", json_integer(2));
    for (int i = 0; i < 26; i++) json_object_set_new(vocab, (char[]){(char)('a' + i), 0}, json_integer(3 + i));
    json_t *all = json_pack("{s:s, s:[{s:i,s:s,s:b,s:b,s:b,s:b,s:b}], s:n, s:n, s:n, s:{s:s}, s:{s:s,s:o,s:[],s:s}}", "version", "1.0", "added_tokens",
                            "id", 2, "content", "</s>", "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", 0, "special", 1, "normalizer",
                            "pre_tokenizer", "post_processor", "decoder", "type", "Fuse", "model", "type", "BPE", "vocab", vocab, "merges",
                            "unk_token", "<unk>");
    vlm_error error = {0};
    model.tok = letters = tokenizer_from_json(all, NULL, &error);
    if (!letters) print_error("%s\n", error.message);
    json_decref(all);
    return letters ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    tokenizer_free(letters);
    return 0;
}

/* Feeds letters one by one; after each the text shown so far is noted with '|'. A '.' is the end-of-sequence token. Returns all of it,
 * then what output_finish adds after '+'. */
static bool see(void *seen, const toolcall_event *event) { return buf_add(seen, event->text, event->size); }

static const char *feed(const char *stop, const char *eos, bool ignore_eos, const char *text, output_end *end)
{
    static buf seen;
    buf_clear(&seen);
    output o;
    vlm_error error = {0};
    output_sink sink = {see, &seen};
    *end = OUTPUT_GOES_ON;
    output_options options = {.stop = stop, .eos_tokens = eos, .ignore_eos = ignore_eos, .skip_special = true};
    if (!output_init(&o, &model, &options, &error) || !output_begin(&o, NULL, &error)) fail_msg("%s", error.message);
    for (; *text && *end == OUTPUT_GOES_ON; text++) {
        assert_true(output_add(&o, *text == '.' ? 2 : *text - 'a' + 3, &sink, end, &error));
        buf_addc(&seen, '|');
    }
    buf_addc(&seen, '+');
    assert_true(output_finish(&o, "length", &sink, &error));
    output_free(&o);
    return seen.data;
}

static void streams(void **state)
{
    (void)state;
    output_end end;
    assert_string_equal(feed(NULL, NULL, false, "abc", &end), "a|b|c|+");
    assert_string_equal(feed(NULL, NULL, false, "ab.c", &end), "a|b||+");
    assert_int_equal(end, OUTPUT_EOS);
    assert_string_equal(feed(NULL, NULL, true, "ab.c", &end), "a|b||c|+");         /* a special token has no text */
    assert_int_equal(end, OUTPUT_GOES_ON);
    assert_string_equal(feed(NULL, "[\"c\"]", false, "abcd", &end), "a|b||+");
    assert_int_equal(end, OUTPUT_EOS);
}

static void stops(void **state)
{
    (void)state;
    output_end end;
    assert_string_equal(feed("[\"cde\"]", NULL, false, "abcdefg", &end), "a|b||||+");
    assert_int_equal(end, OUTPUT_STOP_STRING);
    assert_string_equal(feed("[\"cde\"]", NULL, false, "abcdab", &end), "a|b|||cda|b|+");
    assert_int_equal(end, OUTPUT_GOES_ON);
    assert_string_equal(feed("[\"cde\"]", NULL, false, "abcd", &end), "a|b|||+cd");
    assert_string_equal(feed("[\"aab\"]", NULL, false, "aaab", &end), "||a||+");    /* a match may begin inside a failed one */
    assert_int_equal(end, OUTPUT_STOP_STRING);
    assert_string_equal(feed("[\"xyz\", \"bc\", \"b\"]", NULL, false, "abcd", &end), "a||+");
    assert_string_equal(feed("[\"a\"]", NULL, false, "abcd", &end), "|+");
}

static void bad_options(void **state)
{
    (void)state;
    static const char *const broken[] = {"[1]", "{}", "[\"\"]", "[", "\"a\"", ""};
    output o;
    vlm_error error;
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        assert_false(output_init(&o, &model, &(output_options){.stop = broken[i]}, &error));
        assert_int_equal(error.code, VLM_INVALID);
    }
    assert_false(output_init(&o, &model, &(output_options){.eos_tokens = "[\"ab\"]"}, &error));   /* two tokens */
    assert_int_equal(error.code, VLM_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(streams), cmocka_unit_test(stops), cmocka_unit_test(bad_options)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
