/* parse.c - normalizer, pre-tokenizer, decoder and post-processor of tokenizer.json become flat lists of steps. */
#include <string.h>

#include "text/tokenizer/internal.h"

static const char *type_of(const json_t *j)
{
    const char *type = json_string_value(json_object_get(j, "type"));
    return type ? type : "";
}

static bool is_true(const json_t *j, const char *key, bool otherwise)
{
    const json_t *value = json_object_get(j, key);
    return value && !json_is_null(value) ? json_is_true(value) : otherwise;
}

static size_t number(const json_t *j, const char *key)
{
    json_int_t n = json_integer_value(json_object_get(j, key));
    return n > 0 ? (size_t)n : 0;
}

/* A string member copied into the tokenizer's memory. */
static bool copy_string(tokenizer *t, const json_t *j, const char *key, const char *otherwise, const char **text, size_t *size, vlm_error *error)
{
    const json_t *value = json_object_get(j, key);
    const char *from = json_is_string(value) ? json_string_value(value) : otherwise;
    if (!from) return err_set(error, VLM_FORMAT, "tokenizer.json: %s has no \"%s\"", type_of(j), key);
    *size = json_is_string(value) ? json_string_length(value) : strlen(from);
    char *copy = arena_alloc(&t->strings, *size + 1);
    if (!copy) return err_memory(error, *size);
    memcpy(copy, from, *size);
    *text = copy;
    return true;
}

/* {"String": ...} or {"Regex": ...}. The empty string matches everywhere, as an expression does. */
static bool parse_pattern(tokenizer *t, const json_t *j, tok_step *s, vlm_error *error)
{
    const json_t *pattern = json_object_get(j, "pattern"), *re = json_object_get(pattern, "Regex");
    if (json_is_string(re)) {
        s->re = regex_new(json_string_value(re), json_string_length(re), error);
        return s->re != NULL;
    }
    if (!copy_string(t, json_is_string(pattern) ? j : pattern, json_is_string(pattern) ? "pattern" : "String", NULL, &s->text, &s->text_size, error))
        return false;
    return s->text_size || (s->re = regex_new("", 0, error)) != NULL;
}

static bool parse_behavior(const json_t *j, tok_step *s, vlm_error *error)
{
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
    const char *name = json_string_value(json_object_get(j, "behavior"));
    if (!name) return true;
    for (int i = 0; i < 5; i++)
        if (strcmp(name, names[i]) == 0) {
            s->behavior = (tok_behavior)i;
            return true;
        }
    return err_set(error, VLM_FORMAT, "tokenizer.json: split behavior \"%.80s\"", name);
}

static bool parse_metaspace(tokenizer *t, const json_t *j, tok_step *s, vlm_error *error)
{
    if (!copy_string(t, j, "replacement", "\xE2\x96\x81", &s->text, &s->text_size, error)) return false;
    const char *scheme = json_string_value(json_object_get(j, "prepend_scheme"));
    if (!scheme) scheme = is_true(j, "add_prefix_space", true) ? "always" : "never";
    s->prepend = strcmp(scheme, "first") == 0 ? PREPEND_FIRST : strcmp(scheme, "never") == 0 ? PREPEND_NEVER : PREPEND_ALWAYS;
    s->flag = is_true(j, "split", true);
    return true;
}

/* One step of a kind of pipeline; sets s->kind, or leaves STEP_NONE for something without effect here. */
typedef bool step_parser(tokenizer *t, const json_t *j, tok_step *s, vlm_error *error);

static bool unknown(const char *what, const json_t *j, vlm_error *error)
{
    return err_set(error, VLM_UNSUPPORTED, "tokenizer.json: %s of type \"%.80s\" is not known", what, type_of(j));
}

static bool parse_norm(tokenizer *t, const json_t *j, tok_step *s, vlm_error *error)
{
    static const struct { const char *type; tok_step_kind kind; } simple[] = {
        {"NFC", NORM_NFC}, {"NFD", NORM_NFD}, {"NFKC", NORM_NFKC}, {"NFKD", NORM_NFKD}, {"Lowercase", NORM_LOWERCASE},
        {"StripAccents", NORM_STRIP_ACCENTS}, {"Nmt", NORM_NMT}, {"ByteLevel", NORM_BYTE_LEVEL}};
    const char *type = type_of(j);
    for (size_t i = 0; i < sizeof simple / sizeof *simple; i++)
        if (strcmp(type, simple[i].type) == 0) {
            s->kind = simple[i].kind;
            return true;
        }
    if (strcmp(type, "Replace") == 0) {
        s->kind = NORM_REPLACE;
        return parse_pattern(t, j, s, error) && copy_string(t, j, "content", NULL, &s->content, &s->content_size, error);
    }
    if (strcmp(type, "Prepend") == 0) {
        s->kind = NORM_PREPEND;
        return copy_string(t, j, "prepend", NULL, &s->text, &s->text_size, error);
    }
    if (strcmp(type, "Strip") == 0) {
        s->kind = NORM_STRIP;
        s->flag = is_true(j, "strip_left", true);
        s->flag2 = is_true(j, "strip_right", true);
        return true;
    }
    if (strcmp(type, "BertNormalizer") == 0) {
        s->kind = NORM_BERT;
        s->flag = is_true(j, "clean_text", true);
        s->flag2 = is_true(j, "handle_chinese_chars", true);
        s->flag4 = is_true(j, "lowercase", true);
        s->flag3 = is_true(j, "strip_accents", s->flag4);
        return true;
    }
    if (strcmp(type, "Precompiled") == 0) {
        s->kind = NORM_PRECOMPILED;
        return tok_charsmap_load(t, json_string_value(json_object_get(j, "precompiled_charsmap")), &s->table, error);
    }
    return unknown("normalizer", j, error);
}

static const char gpt2_pattern[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

static bool parse_split(tokenizer *t, const json_t *j, tok_step *s, vlm_error *error)
{
    const char *type = type_of(j);
    if (strcmp(type, "Split") == 0) {
        s->kind = SPLIT_PATTERN;
        s->invert = is_true(j, "invert", false);
        return parse_pattern(t, j, s, error) && parse_behavior(j, s, error);
    }
    if (strcmp(type, "ByteLevel") == 0) {
        s->kind = SPLIT_BYTE_LEVEL;
        s->flag = is_true(j, "add_prefix_space", true);
        s->behavior = SPLIT_ISOLATED;
        if (!is_true(j, "use_regex", true)) return true;
        s->re = regex_new(gpt2_pattern, sizeof gpt2_pattern - 1, error);
        return s->re != NULL;
    }
    if (strcmp(type, "Metaspace") == 0) {
        s->kind = SPLIT_METASPACE;
        if (!parse_metaspace(t, j, s, error)) return false;
        t->wants_first |= s->prepend == PREPEND_FIRST;
        return true;
    }
    if (strcmp(type, "Digits") == 0) {
        s->kind = SPLIT_DIGITS;
        s->behavior = is_true(j, "individual_digits", false) ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS;
        return true;
    }
    if (strcmp(type, "Whitespace") == 0) {
        s->kind = SPLIT_WORDS;
        return true;
    }
    if (strcmp(type, "WhitespaceSplit") == 0 || strcmp(type, "BertPreTokenizer") == 0) {
        s->kind = type[0] == 'B' ? SPLIT_BERT : SPLIT_WHITESPACE;
        return true;
    }
    if (strcmp(type, "UnicodeScripts") == 0) {
        s->kind = SPLIT_SCRIPTS;
        return true;
    }
    if (strcmp(type, "Punctuation") == 0) {
        s->kind = SPLIT_PUNCTUATION;
        s->behavior = SPLIT_ISOLATED;
        return parse_behavior(j, s, error);
    }
    if (strcmp(type, "CharDelimiterSplit") == 0) {
        s->kind = SPLIT_PATTERN;
        return copy_string(t, j, "delimiter", NULL, &s->text, &s->text_size, error);
    }
    if (strcmp(type, "FixedLength") == 0) {
        s->kind = SPLIT_FIXED;
        s->left = number(j, "length") ? number(j, "length") : 5;
        return true;
    }
    return unknown("pre-tokenizer", j, error);
}

static bool parse_decoder(tokenizer *t, const json_t *j, tok_step *s, vlm_error *error)
{
    const char *type = type_of(j);
    if (strcmp(type, "ByteLevel") == 0) s->kind = DECODE_BYTE_LEVEL;
    else if (strcmp(type, "ByteFallback") == 0) s->kind = DECODE_BYTE_FALLBACK;
    else if (strcmp(type, "Fuse") == 0) s->kind = DECODE_FUSE;
    else if (strcmp(type, "Replace") == 0) {
        s->kind = DECODE_REPLACE;
        return parse_pattern(t, j, s, error) && copy_string(t, j, "content", NULL, &s->content, &s->content_size, error);
    } else if (strcmp(type, "Strip") == 0) {
        s->kind = DECODE_STRIP;
        s->left = number(j, "start");
        s->right = number(j, "stop");
        return copy_string(t, j, "content", " ", &s->text, &s->text_size, error);
    } else if (strcmp(type, "Metaspace") == 0) {
        s->kind = DECODE_METASPACE;
        return parse_metaspace(t, j, s, error);
    } else if (strcmp(type, "WordPiece") == 0) {
        s->kind = DECODE_WORDPIECE;
        s->flag = is_true(j, "cleanup", true);
        return copy_string(t, j, "prefix", "##", &s->text, &s->text_size, error);
    } else if (strcmp(type, "BPEDecoder") == 0) {
        s->kind = DECODE_BPE;
        return copy_string(t, j, "suffix", "</w>", &s->text, &s->text_size, error);
    } else if (strcmp(type, "CTC") == 0) {
        s->kind = DECODE_CTC;
        s->flag = is_true(j, "cleanup", true);
        return copy_string(t, j, "pad_token", "<pad>", &s->text, &s->text_size, error) &&
               copy_string(t, j, "word_delimiter_token", "|", &s->content, &s->content_size, error);
    } else return unknown("decoder", j, error);
    return true;
}

/* Sequences inside sequences are laid end to end. `list`: the name of a Sequence's members. */
static bool parse_steps(tokenizer *t, const json_t *j, const char *list, step_parser *parse, tok_steps *out, int depth, vlm_error *error)
{
    if (!j || json_is_null(j)) return true;
    if (strcmp(type_of(j), "Sequence") == 0) {
        if (depth > 8) return err_set(error, VLM_LIMIT, "tokenizer.json: sequences are nested too deeply");
        const json_t *items = json_object_get(j, list);
        for (size_t i = 0; i < json_array_size(items); i++)
            if (!parse_steps(t, json_array_get(items, i), list, parse, out, depth + 1, error)) return false;
        return true;
    }
    if (out->count == TOK_MAX_STEPS) return err_set(error, VLM_LIMIT, "tokenizer.json: more than %d %s", TOK_MAX_STEPS, list);
    tok_step *s = &out->step[out->count++];        /* counted before it is parsed, so that it is freed in any case */
    return parse(t, j, s, error);
}

bool tok_parse_normalizer(tokenizer *t, const json_t *j, vlm_error *error)
{
    return parse_steps(t, j, "normalizers", parse_norm, &t->normalizer, 0, error);
}

bool tok_parse_split(tokenizer *t, const json_t *j, vlm_error *error)
{
    if (!parse_steps(t, j, "pretokenizers", parse_split, &t->split, 0, error)) return false;
    size_t byte_levels = 0;
    for (size_t i = 0; i < t->split.count; i++) byte_levels += t->split.step[i].kind == SPLIT_BYTE_LEVEL;
    t->raw_bytes = byte_levels == 1 && t->split.step[t->split.count - 1].kind == SPLIT_BYTE_LEVEL && t->model == MODEL_BPE;
    return true;
}

bool tok_parse_decoder(tokenizer *t, const json_t *j, vlm_error *error)
{
    t->has_decoder = j && !json_is_null(j);
    return parse_steps(t, j, "decoders", parse_decoder, &t->decoder, 0, error);
}

void tok_steps_free(tok_steps *s)
{
    for (size_t i = 0; i < s->count; i++) regex_free(s->step[i].re);
    s->count = 0;
}

/* ---- post-processor ---- */

/* A processor of a sequence works on what the one before made of the text: encodings side by side. -1 stands for the text's ids, -2 ends an encoding. */
typedef struct post_list { int32_t item[4 * TOK_MAX_POST]; size_t count; } post_list;
enum { POST_TEXT = -1, POST_END = -2 };

static bool post_add(post_list *p, const tokenizer *t, json_int_t item, vlm_error *error)
{
    if (p->count == sizeof p->item / sizeof *p->item) return err_set(error, VLM_LIMIT, "tokenizer.json: the post-processor adds more than %d tokens", TOK_MAX_POST);
    if (item < POST_END || (item >= 0 && (size_t)item >= t->size)) return err_set(error, VLM_FORMAT, "tokenizer.json: the post-processor adds an unknown token");
    p->item[p->count++] = (int32_t)item;
    return true;
}

/* Appends encoding `index` of `from`, with its end. */
static bool post_copy(post_list *p, const tokenizer *t, const post_list *from, size_t index, vlm_error *error)
{
    for (size_t i = 0; i < from->count; i++) {
        if (from->item[i] == POST_END && index-- == 0) return post_add(p, t, POST_END, error);
        if (index == 0 && from->item[i] != POST_END && !post_add(p, t, from->item[i], error)) return false;
    }
    return err_set(error, VLM_UNSUPPORTED, "tokenizer.json: the post-processor's template asks for a second sequence");
}

static size_t post_encodings(const post_list *p)
{
    size_t n = 0;
    for (size_t i = 0; i < p->count; i++) n += p->item[i] == POST_END;
    return n;
}

static bool parse_template(tokenizer *t, const json_t *j, const post_list *in, post_list *out, vlm_error *error)
{
    size_t encodings = post_encodings(in);
    if (encodings > 2) return err_set(error, VLM_UNSUPPORTED, "tokenizer.json: a template behind another post-processor");
    const json_t *single = json_object_get(j, encodings == 2 ? "pair" : "single"), *tokens = json_object_get(j, "special_tokens");
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *item = json_array_get(single, i), *special = json_object_get(item, "SpecialToken"), *sequence = json_object_get(item, "Sequence");
        if (!special) {
            const char *which = json_string_value(json_object_get(sequence, "id"));
            if (!post_copy(out, t, in, which && *which == 'B', error)) return false;
            continue;
        }
        const char *name = json_string_value(json_object_get(special, "id"));
        const json_t *list = name ? json_object_get(json_object_get(tokens, name), "ids") : NULL;
        if (!json_is_array(list)) return err_set(error, VLM_FORMAT, "tokenizer.json: the post-processor's token \"%.80s\" has no ids", name ? name : "");
        for (size_t k = 0; k < json_array_size(list); k++) {
            json_int_t id = json_integer_value(json_array_get(list, k));
            if (!post_add(out, t, id < 0 ? TOK_MAX_ID : id, error)) return false;
        }
        if (!post_add(out, t, POST_END, error)) return false;
    }
    return true;
}

/* BertProcessing and RobertaProcessing: "cls": [text, id], "sep": [text, id]. The first encoding gets both; Roberta puts sep before a second one, too. */
static bool parse_cls_sep(tokenizer *t, const json_t *j, const post_list *in, post_list *out, vlm_error *error)
{
    json_int_t cls = json_integer_value(json_array_get(json_object_get(j, "cls"), 1)), sep = json_integer_value(json_array_get(json_object_get(j, "sep"), 1));
    bool roberta = type_of(j)[0] == 'R';
    size_t n = post_encodings(in);
    for (size_t i = 0; i < n; i++) {
        if (i == 0 && !post_add(out, t, cls < 0 ? TOK_MAX_ID : cls, error)) return false;
        if (i && roberta && !post_add(out, t, sep < 0 ? TOK_MAX_ID : sep, error)) return false;
        if (!post_copy(out, t, in, i, error)) return false;
        out->count--;                              /* its end comes later */
        if (!post_add(out, t, sep < 0 ? TOK_MAX_ID : sep, error) || !post_add(out, t, POST_END, error)) return false;
    }
    return true;
}

static bool parse_post(tokenizer *t, const json_t *j, post_list *list, int depth, vlm_error *error)
{
    const char *type = type_of(j);
    if (!j || json_is_null(j) || strcmp(type, "ByteLevel") == 0) return true;
    bool is_template = strcmp(type, "TemplateProcessing") == 0;
    if (is_template || strcmp(type, "BertProcessing") == 0 || strcmp(type, "RobertaProcessing") == 0) {
        post_list made = {.count = 0};
        if (!(is_template ? parse_template : parse_cls_sep)(t, j, list, &made, error)) return false;
        *list = made;
        return true;
    }
    if (strcmp(type, "Sequence") != 0 || depth > 8) return unknown("post-processor", j, error);
    const json_t *items = json_object_get(j, "processors");
    for (size_t i = 0; i < json_array_size(items); i++)
        if (!parse_post(t, json_array_get(items, i), list, depth + 1, error)) return false;
    return true;
}

bool tok_parse_post(tokenizer *t, const json_t *j, vlm_error *error)
{
    post_list list = {.item = {POST_TEXT, POST_END}, .count = 2};
    if (!parse_post(t, j, &list, 0, error)) return false;
    for (size_t i = 0; i < list.count; i++) {
        if (list.item[i] == POST_END) continue;
        if (t->n_post == TOK_MAX_POST) return err_set(error, VLM_LIMIT, "tokenizer.json: the post-processor adds more than %d tokens", TOK_MAX_POST);
        t->post[t->n_post++] = list.item[i];
    }
    return true;
}
