/* tokenizer_test.c - text/tokenizer.h against goldens of the reference, on long and broken text, with damaged files and failing memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

#define DATA "tests/data/text/tokenizers/"

static json_t *read_json(const char *path)
{
    json_error_t bad;
    json_t *json = json_load_file(path, JSON_ALLOW_NUL, &bad);
    if (!json) fail_msg("%s: line %d: %s", path, bad.line, bad.text);
    return json;
}

static tokenizer *load(const char *name)
{
    char path[200];
    vlm_error error = {0};
    snprintf(path, sizeof path, DATA "%s.json", name);
    buf text = {0};
    if (!file_read(path, 1 << 20, &text, &error)) fail_msg("%s", error.message);
    tokenizer *t = tokenizer_from_text(text.data, text.size, NULL, &error);
    buf_free(&text);
    if (!t) fail_msg("%s: %s", path, error.message);
    return t;
}

static tokenizer *from_tree(const char *text, vlm_error *error)
{
    json_t *json = json_loads(text, 0, NULL);      /* NULL when it is no JSON: refused, too */
    tokenizer *t = tokenizer_from_json(json, NULL, error);
    json_decref(json);
    return t;
}

/* ---- goldens ---- */

static void expect_ids(const tokenizer *t, const char *what, const json_t *text, const json_t *want, bool add_special)
{
    ids got = {0};
    vlm_error error = {0};
    const encode_options options = {.special = true, .add_special = add_special};
    assert_true(tokenizer_encode(t, json_string_value(text), json_string_length(text), &options, &got, &error));
    bool same = got.count == json_array_size(want);
    for (size_t i = 0; same && i < got.count; i++) same = got.id[i] == json_integer_value(json_array_get(want, i));
    if (!same) fail_msg("%s: ids of \"%s\" differ", what, json_string_value(text));
    ids_free(&got);
}

static ids ids_of(const json_t *list)
{
    ids out = {0};
    for (size_t i = 0; i < json_array_size(list); i++) assert_true(ids_add(&out, (int32_t)json_integer_value(json_array_get(list, i))));
    return out;
}

/* Decoded at once, and as a stream that never ends inside a character. */
static void expect_text(const tokenizer *t, const char *what, const json_t *list, bool skip, const json_t *want)
{
    ids in = ids_of(list);
    buf whole = {0}, stream = {0};
    assert_true(tokenizer_decode(t, in.id, in.count, skip, &whole, NULL));
    detokenizer *d = detokenizer_new(t, skip, NULL);
    assert_non_null(d);
    for (size_t i = 0; i < in.count; i++) {
        assert_true(detokenizer_add(d, in.id[i], &stream, NULL));
        if (stream.size && !utf8_valid(stream.data, stream.size)) fail_msg("%s: half a character", what);
    }
    assert_true(detokenizer_finish(d, &stream, NULL));
    size_t n = json_string_length(want);
    if (whole.size != n || (n && memcmp(whole.data, json_string_value(want), n) != 0)) fail_msg("%s: decoded \"%s\", expected \"%s\"", what, whole.data ? whole.data : "", json_string_value(want));
    if (stream.size != n || (n && memcmp(stream.data, json_string_value(want), n) != 0)) fail_msg("%s: streamed \"%s\"", what, stream.data ? stream.data : "");
    detokenizer_free(d);
    buf_free(&whole);
    buf_free(&stream);
    ids_free(&in);
}

static void goldens(void **state)
{
    const char *name = *state;
    char path[200];
    snprintf(path, sizeof path, DATA "%s.golden.json", name);
    json_t *golden = read_json(path), *item;
    tokenizer *t = load(name);
    size_t i;
    json_array_foreach(json_object_get(golden, "cases"), i, item) {
        const json_t *text = json_object_get(item, "text"), *id = json_object_get(item, "ids"), *sp = json_object_get(item, "sp");
        const json_t *dec = json_object_get(item, "dec"), *skip = json_object_get(item, "skip");
        expect_ids(t, name, text, id, false);
        expect_ids(t, name, text, sp ? sp : id, true);
        expect_text(t, name, id, false, dec ? dec : text);
        expect_text(t, name, sp ? sp : id, true, skip ? skip : dec ? dec : text);
    }
    assert_true(i > 100);
    json_array_foreach(json_object_get(golden, "stream"), i, item)
        expect_text(t, name, json_object_get(item, "ids"), json_is_true(json_object_get(item, "skip")), json_object_get(item, "full"));
    json_decref(golden);
    tokenizer_free(t);
}

static void checkpoints(void **state)
{
    (void)state;
    static const char *const names[] = {"gemma4_e2b", "gemma4_31b", "qwen2_5_vl", "qwen3", "llama"};
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        char path[200];
        vlm_error error = {0};
        snprintf(path, sizeof path, "tests/data/checkpoints/%s", names[k]);
        tokenizer *t = tokenizer_load(path, &error);
        if (!t) fail_msg("%s: %s", path, error.message);
        snprintf(path, sizeof path, "tests/data/checkpoints/%s/cases.json", names[k]);
        json_t *cases = read_json(path), *item;
        size_t i;
        json_array_foreach(json_object_get(cases, "tokenizer"), i, item) {
            expect_ids(t, names[k], json_object_get(item, "text"), json_object_get(item, "ids"), false);
            if (json_object_get(item, "decoded")) expect_text(t, names[k], json_object_get(item, "ids"), false, json_object_get(item, "decoded"));
        }
        assert_true(i > 5);
        json_decref(cases);
        tokenizer_free(t);
    }
}

/* ---- behaviour ---- */

/* A megabyte in one piece, of text and of a single letter: each must take well under a second, not hours. */
static void long_text(void **state)
{
    (void)state;
    static const char *const names[] = {"tiny_spbpe_gemma", "tiny_bbpe_qwen", "tiny_unigram_xlmr"};
    static const char *const units[] = {"the quick brown fox, 12345 times! ", "a", " ", "\n"};
    for (size_t k = 0; k < 3; k++) {
        tokenizer *t = load(names[k]);
        for (size_t u = 0; u < 4; u++) {
            buf text = {0}, back = {0};
            while (text.size < 1 << 20) buf_adds(&text, units[u]);
            ids out = {0};
            assert_true(tokenizer_encode(t, text.data, text.size, NULL, &out, NULL));
            assert_true(tokenizer_decode(t, out.id, out.count, false, &back, NULL));
            if (k < 2) assert_true(back.size == text.size && memcmp(back.data, text.data, text.size) == 0);
            ids_free(&out);
            buf_free(&text);
            buf_free(&back);
        }
        tokenizer_free(t);
    }
}

static size_t count_id(const ids *list, int32_t id)
{
    size_t n = 0;
    for (size_t i = 0; i < list->count; i++) n += list->id[i] == id;
    return n;
}

static void special_tokens_are_asked_for(void **state)
{
    (void)state;
    tokenizer *t = load("tiny_bbpe_qwen");
    int32_t id = tokenizer_id(t, "<|im_start|>");
    assert_true(id >= 0 && tokenizer_is_special(t, id));
    assert_string_equal(tokenizer_token(t, id), "<|im_start|>");
    assert_int_equal(tokenizer_id(t, "no such token"), -1);
    assert_null(tokenizer_token(t, -1));
    assert_null(tokenizer_token(t, (int32_t)tokenizer_size(t)));
    ids out = {0};
    const char *text = "<|im_start|>a";
    encode_options options = {.special = true};
    assert_true(tokenizer_encode(t, text, strlen(text), &options, &out, NULL));
    assert_int_equal(out.id[0], id);
    out.count = 0;
    options.special = false;
    assert_true(tokenizer_encode(t, text, strlen(text), &options, &out, NULL));
    assert_int_equal(count_id(&out, id), 0);
    size_t plain = out.count;
    out.count = 0;                                 /* a guard inside hinders, and vanishes */
    text = "<\xEE\x80\x80|im_start|>a";
    options = (encode_options){.special = true, .guard = "\xEE\x80\x80"};
    assert_true(tokenizer_encode(t, text, strlen(text), &options, &out, NULL));
    assert_int_equal(count_id(&out, id), 0);
    assert_int_equal(out.count, plain);
    ids_free(&out);
    tokenizer_free(t);
}

/* What a token adds in the middle of a text: for every token, text of [x, token, x] minus the x's. */
static void token_bytes(void **state)
{
    (void)state;
    static const struct { const char *file, *token, *bytes; } cases[] = {
        {"tiny_bbpe_qwen", "\xC4\xA0t", " t"}, {"tiny_bbpe_qwen", "\xC3\x83", "\xC3"}, {"tiny_spbpe_gemma", "<0xC3>", "\xC3"},
        {"tiny_spbpe_gemma", "\xE2\x96\x81", " "}, {"tiny_unigram_xlmr", "\xE2\x96\x81", " "}, {"tiny_wordpiece_bert", "##s", "s"},
        {"tiny_wordpiece_bert", "s", " s"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tokenizer *t = load(cases[i].file);
        int32_t id = tokenizer_id(t, cases[i].token);
        buf got = {0};
        assert_true(id >= 0 && tokenizer_token_bytes(t, id, &got));
        assert_string_equal(got.data, cases[i].bytes);
        assert_false(tokenizer_token_bytes(t, -1, &got) || tokenizer_token_bytes(t, (int32_t)tokenizer_size(t), &got));
        for (int32_t k = 0; k < (int32_t)tokenizer_size(t); k++) {
            buf one = {0}, text = {0}, without = {0};
            bool any = tokenizer_token_bytes(t, k, &one);
            assert_true(any == (tokenizer_token(t, k) && !tokenizer_is_special(t, k)));
            const int32_t with_x[] = {id, k, id}, x[] = {id, id};
            assert_true(tokenizer_decode(t, with_x, 3, true, &text, NULL) && tokenizer_decode(t, x, 2, true, &without, NULL));
            if (any && utf8_valid(one.data ? one.data : "", one.size) && utf8_valid(got.data, got.size) && !strstr(text.data, "\xEF\xBF\xBD"))
                assert_int_equal(text.size, without.size + one.size);
            buf_free(&one);
            buf_free(&text);
            buf_free(&without);
        }
        buf_free(&got);
        tokenizer_free(t);
    }
}

static void broken_utf8(void **state)
{
    (void)state;
    tokenizer *t = load("tiny_bbpe_qwen");
    ids a = {0}, b = {0};
    const char *broken = "a\xFF\xE2\x82" "b\xF0\x9F\x98", *clean = "a\xEF\xBF\xBD\xEF\xBF\xBD" "b\xEF\xBF\xBD";
    assert_true(tokenizer_encode(t, broken, strlen(broken), NULL, &a, NULL));
    assert_true(tokenizer_encode(t, clean, strlen(clean), NULL, &b, NULL));
    assert_int_equal(a.count, b.count);
    assert_memory_equal(a.id, b.id, a.count * sizeof *a.id);
    a.count = 0;
    assert_true(tokenizer_encode(t, "", 0, NULL, &a, NULL));
    assert_int_equal(a.count, 0);
    buf out = {0};
    const int32_t strange[] = {-5, 1 << 30, INT32_MAX};
    assert_true(tokenizer_decode(t, strange, 3, false, &out, NULL));
    assert_int_equal(out.size, 0);
    ids_free(&a);
    ids_free(&b);
    tokenizer_free(t);
}

static void damaged_files(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "[]", "{}", "{\"model\":5}", "{\"model\":{\"type\":\"Magic\",\"vocab\":{}}}", "{\"model\":{\"type\":\"BPE\"}}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1}}}", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":99999999999}}}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":\"b\"}}}", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a b\"]}}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"aa\"]}}", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a a\"]}}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[7]}}", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]}}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0.5}}}", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"\\ud800\":0}}}", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":{}}}",
        "{\"model\":{\"type\":\"Unigram\",\"vocab\":{\"a\":0}}}", "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\"]]}}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{}},\"normalizer\":{\"type\":\"Magic\"}}", "{\"model\":{\"type\":\"BPE\",\"vocab\":{}},\"pre_tokenizer\":{}}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{}},\"decoder\":{\"type\":\"Magic\"}}", "{\"model\":{\"type\":\"BPE\",\"vocab\":{}},\"post_processor\":{\"type\":\"Magic\"}}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{}},\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"},\"behavior\":\"Isolated\"}}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{}},\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":\"Magic\"}}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{}},\"added_tokens\":[{\"content\":\"a\"}]}", "{\"model\":{\"type\":\"BPE\",\"vocab\":{}},\"added_tokens\":[{\"id\":-3,\"content\":\"a\"}]}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{}},\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"a\",7],\"sep\":[\"b\",8]}}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{}},\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"////////\"}}",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        vlm_error error = {0}, error2 = {0};
        tokenizer *t = from_tree(bad[i], &error), *t2 = tokenizer_from_text(bad[i], strlen(bad[i]), NULL, &error2);
        if (t || t2 || !error.code || !error2.code || !error.message[0]) fail_msg("accepted: %s", bad[i]);
    }
    vlm_error error = {0};
    assert_null(tokenizer_load("tests/data/nowhere", &error));
    assert_int_equal(error.code, VLM_NOT_FOUND);
}

/* Every allocation fails once: an error, nothing lost, nothing wrong afterwards. */
static bool load_encode_decode(const buf *file, const char *text)
{
    tokenizer *t = tokenizer_from_file(file->data, file->size, "tiktoken.model", NULL, NULL);
    ids out = {0};
    buf back = {0};
    const encode_options options = {.special = true, .add_special = true};
    bool ok = t && tokenizer_encode(t, text, strlen(text), &options, &out, NULL) && tokenizer_decode(t, out.id, out.count, false, &back, NULL);
    ids_free(&out);
    buf_free(&back);
    tokenizer_free(t);
    return ok;
}

/* The other kinds of files: which one a folder's tokenizer is, and what their control tokens are. */
static void formats(void **state)
{
    (void)state;
    static const struct { const char *path, *control, *text; size_t begin; } cases[] = {
        {"tests/data/text/formats/small-qwen", "<|im_start|>", "the <|im_start|>quick", 0}, {"tests/data/text/formats/small-tiktoken", "<|im_end|>", "the <|im_end|>quick", 0},
        {"tests/data/text/formats/tekken.json", "[INST]", "the [INST]quick", 1}, {"tests/data/text/formats/bpe_gemma.model", "</s>", "the </s>quick", 1},
        {"tests/data/text/formats/unigram_rules.model", "</s>", "the </s>quick", 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        vlm_error error = {0};
        tokenizer *t = strchr(cases[i].path, '.') ? tokenizer_load_file(cases[i].path, &error) : tokenizer_load(cases[i].path, &error);
        if (!t) fail_msg("%s: %s", cases[i].path, error.message);
        int32_t id = tokenizer_id(t, cases[i].control);
        assert_true(id >= 0 && tokenizer_is_special(t, id));
        ids out = {0};
        buf text = {0};
        encode_options options = {.special = true, .add_special = true};
        assert_true(tokenizer_encode(t, cases[i].text, strlen(cases[i].text), &options, &out, NULL));
        assert_int_equal(count_id(&out, id), 1);
        assert_true(cases[i].begin == 0 || out.id[0] == tokenizer_id(t, "<s>"));
        assert_true(tokenizer_decode(t, out.id, out.count, true, &text, NULL));
        assert_non_null(strstr(text.data, "quick"));
        assert_null(strstr(text.data, cases[i].control));
        out.count = 0;
        options = (encode_options){.special = false};
        assert_true(tokenizer_encode(t, cases[i].text, strlen(cases[i].text), &options, &out, NULL));
        assert_int_equal(count_id(&out, id), 0);
        ids_free(&out);
        buf_free(&text);
        tokenizer_free(t);
    }
    static const char *const damaged[] = {"YQ== 0\nYg== x\n", "YQ== 0\nYg== 0\n", "YQ== 99999999999\n", "\n\x07\n\x05" "abc", "\n\xff\xff\xff\xff\xff\x0f", "\x12\x00",
        "{\"config\":{\"pattern\":\"(\",\"default_num_special_tokens\":3},\"vocab\":[{\"rank\":0,\"token_bytes\":\"YQ==\"}]}", "{\"config\":{\"default_num_special_tokens\":1},\"token_bytes\":1}"};
    for (size_t i = 0; i < sizeof damaged / sizeof *damaged; i++) {
        vlm_error error = {0};
        assert_null(tokenizer_from_file(damaged[i], strlen(damaged[i]), "x.tiktoken", NULL, &error));
        assert_true(error.code && error.message[0]);
    }
}

static void memory_fails(void **state)
{
    char path[200];
    const char *name = *state;
    if (strchr(name, '.')) snprintf(path, sizeof path, "tests/data/text/formats/%s", name);
    else snprintf(path, sizeof path, DATA "%s.json", name);
    buf file = {0};
    assert_true(file_read(path, 1 << 20, &file, NULL));
    const char *text = "the quick brown fox jumps over the lazy dog again and again \xC3\xA9\xE6\x97\xA5 <s></s> 12";
    for (uint64_t n = 1;; n += n > 300 ? 7 : 1) {  /* lists of special tokens are long, and alike */
        mem_fail_at(n);
        bool ok = load_encode_decode(&file, text), failed = mem_failed();
        mem_fail_at(0);
        if (!failed) {
            assert_true(ok);
            break;
        }
        assert_false(ok);
    }
    buf_free(&file);
}

int main(void)
{
    static char bart[] = "tiny_bbpe_bart_florence", qwen[] = "tiny_bbpe_qwen", clip[] = "tiny_bpe_clip", gemma[] = "tiny_spbpe_gemma",
                t5[] = "tiny_unigram_t5_precompiled", xlmr[] = "tiny_unigram_xlmr", bert[] = "tiny_wordpiece_bert",
                model[] = "bpe_rules.model", ranks[] = "small-tiktoken/tiktoken.model", tekken[] = "tekken.json";
    const struct CMUnitTest tests[] = {
        {"goldens: byte-level BPE, GPT-2 pattern", goldens, NULL, NULL, bart}, {"goldens: byte-level BPE, Qwen", goldens, NULL, NULL, qwen},
        {"goldens: BPE with word ends, CLIP", goldens, NULL, NULL, clip}, {"goldens: BPE with byte fallback, Gemma", goldens, NULL, NULL, gemma},
        {"goldens: Unigram with character map, T5", goldens, NULL, NULL, t5}, {"goldens: Unigram, XLM-R", goldens, NULL, NULL, xlmr},
        {"goldens: WordPiece, BERT", goldens, NULL, NULL, bert},
        cmocka_unit_test(checkpoints), cmocka_unit_test(long_text), cmocka_unit_test(special_tokens_are_asked_for), cmocka_unit_test(token_bytes), cmocka_unit_test(broken_utf8),
        cmocka_unit_test(damaged_files),
        {"memory fails: Qwen", memory_fails, NULL, NULL, qwen}, {"memory fails: Gemma", memory_fails, NULL, NULL, gemma},
        cmocka_unit_test(formats), {"memory fails: sentencepiece", memory_fails, NULL, NULL, model}, {"memory fails: tiktoken", memory_fails, NULL, NULL, ranks},
        {"memory fails: tekken", memory_fails, NULL, NULL, tekken},
        {"memory fails: T5", memory_fails, NULL, NULL, t5}, {"memory fails: BERT", memory_fails, NULL, NULL, bert},
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
