/* tokenizer_fuzz.c - a tokenizer's file and a text that is encoded, decoded and streamed: up to the first zero byte a tokenizer.json, a tekken.json or lines of
 * tiktoken's, after it the text; or a sentencepiece model, of which the last quarter is the text, too. What is no such file is a text for five small
 * tokenizers, one of each kind. Decoding as a stream has to equal decoding at once, pieces have to be whole characters. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer.h"
#include "text/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const small[] = {
    "{\"added_tokens\":[{\"id\":9,\"content\":\"<s>\",\"special\":true,\"lstrip\":true},{\"id\":10,\"content\":\"\\n\\n\",\"special\":false}],"
    "\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true},\"decoder\":{\"type\":\"ByteLevel\"},"
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"c\":2,\"\xC4\xA0\":3,\"ab\":4,\"\xC3\x83\":5,\"\xC2\xA9\":6,\"\xC3\x83\xC2\xA9\":7,\"abc\":8},"
    "\"merges\":[\"a b\",\"\xC3\x83 \xC2\xA9\",\"ab c\"]}}",
    "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"\xE2\x96\x81\"},{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},"
    "\"content\":\"\xE2\x96\x81\"}]},\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"\xE2\x96\x81\"},\"content\":\" \"},"
    "{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":1}]},"
    "\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"fuse_unk\":true,\"unk_token\":\"<unk>\",\"vocab\":{\"<unk>\":0,\"\xE2\x96\x81\":1,\"a\":2,\"b\":3,\"ab\":4,"
    "\"<0xC3>\":5,\"<0xA9>\":6,\"<0x00>\":7,\"aa\":8,\"aaaa\":9},\"merges\":[[\"a\",\"a\"],[\"a\",\"b\"],[\"aa\",\"aa\"]]}}",
    "{\"normalizer\":{\"type\":\"NFKC\"},\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"\xE2\x96\x81\",\"prepend_scheme\":\"always\"},"
    "\"decoder\":{\"type\":\"Metaspace\",\"replacement\":\"\xE2\x96\x81\",\"prepend_scheme\":\"always\"},"
    "\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"<unk>\",0],[\"\xE2\x96\x81\",-2],[\"a\",-3],[\"ab\",-3.5],[\"b\",-4],[\"\xE2\x96\x81\x61\",-4.5]]}}",
    "{\"normalizer\":{\"type\":\"BertNormalizer\"},\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},\"decoder\":{\"type\":\"WordPiece\"},"
    "\"model\":{\"type\":\"WordPiece\",\"unk_token\":\"[UNK]\",\"vocab\":{\"[UNK]\":0,\"a\":1,\"##a\":2,\"##b\":3,\"ab\":4,\",\":5}}}",
};

static void run(const tokenizer *t, const char *text, size_t size)
{
    vlm_error error = {0};
    ids list = {0};
    if (size > 2000) size = 2000;                  /* more says nothing new and takes its time */
    const encode_options options = {.special = true, .add_special = true, .guard = "b"};
    tokenizer_encode(t, text, size, &options, &list, &error);
    tokenizer_encode(t, text, size, NULL, &list, &error);
    for (size_t i = 0; i < size && i < 64; i++) ids_add(&list, (unsigned char)text[i] - 3);
    for (int skip = 0; skip < 2; skip++) {
        buf whole = {0}, pieces = {0};
        bool ok = tokenizer_decode(t, list.id, list.count, skip, &whole, &error);
        detokenizer *d = detokenizer_new(t, skip, &error);
        for (size_t i = 0; d && i < list.count; i++) {
            size_t before = pieces.size;
            ok &= detokenizer_add(d, list.id[i], &pieces, &error);
            if (pieces.size > before && !utf8_valid(pieces.data + before, pieces.size - before)) abort();
        }
        ok &= d && detokenizer_finish(d, &pieces, &error);
        if (ok && (whole.size != pieces.size || (whole.size && memcmp(whole.data, pieces.data, whole.size) != 0))) abort();
        detokenizer_free(d);
        buf_free(&whole);
        buf_free(&pieces);
    }
    for (size_t i = 0; i < list.count && i < 64; i++) {
        buf one = {0};
        tokenizer_token_bytes(t, list.id[i], &one);
        buf_free(&one);
    }
    ids_free(&list);
}

static bool is_model(const uint8_t *data, size_t size) { return size > 8 && (data[0] == '\n' || data[0] == 0x12 || data[0] == 0x1A); }

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *zero = memchr(data, 0, size);
    size_t n = zero ? (size_t)(zero - data) : size;
    vlm_error error = {0};
    if (is_model(data, size)) {
        tokenizer *model = tokenizer_from_file((const char *)data, size, "fuzz.model", NULL, &error);
        if (model) run(model, (const char *)data + size - size / 4, size / 4);
        tokenizer_free(model);
        if (model) return 0;
    }
    json_t *json = json_loadb((const char *)data, n, JSON_ALLOW_NUL, NULL);
    tokenizer *t = tokenizer_from_file((const char *)data, n, n % 2 ? "qwen.tiktoken" : "tiktoken.model", NULL, &error);
    if (t || json) {
        tokenizer *other = json ? tokenizer_from_json(json, NULL, &error) : NULL;
        if (other && !t) abort();                  /* the other way of reading takes a little more: zero characters in the vocabulary */
        tokenizer_free(other);
        if (t) run(t, zero ? (const char *)zero + 1 : "ab \xC3\xA9 a", zero ? size - n - 1 : 7);
        tokenizer_free(t);
        json_decref(json);
        return 0;
    }
    for (size_t i = 0; i < sizeof small / sizeof *small; i++) {
        json = json_loads(small[i], 0, NULL);
        t = tokenizer_from_json(json, NULL, &error);
        if (!t) abort();
        run(t, (const char *)data, size);
        tokenizer_free(t);
        json_decref(json);
    }
    return 0;
}
