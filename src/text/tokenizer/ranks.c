/* ranks.c - tiktoken's vocabularies: a list of byte strings with ranks, a pattern that cuts the text, special tokens. As files they come as
 * tekken.json (Mistral: all in one) and as lines "base64 rank" (Qwen, Kimi, GLM, Llama ...), where pattern and special tokens are known from the
 * tokenizer's program only: that is the table below, chosen by the class in tokenizer_config.json or the file's name.
 *
 * Every two tokens whose bytes make up a token may merge, the lowest rank first. Stored forms are those of the byte alphabet, as in tokenizer.json. */
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer/internal.h"

/* ---- the lists ---- */

typedef struct rank_item { size_t at; uint32_t size, rank; } rank_item;
typedef struct rank_list {
    buf bytes;
    rank_item *item;
    size_t count, capacity;
    uint32_t next;                 /* largest rank + 1 */
} rank_list;

/* Adds the bytes of base64 text. */
static bool add_rank(rank_list *l, const char *base64, size_t size, int64_t rank, vlm_error *error)
{
    if (rank < 0 || rank >= TOK_MAX_ID) return err_set(error, VLM_FORMAT, "tokenizer: rank %lld, expected 0 to %d", (long long)rank, TOK_MAX_ID - 1);
    if (l->count == l->capacity) {
        size_t capacity = l->capacity ? l->capacity * 2 : 1024;
        rank_item *grown = mem_resize(l->item, capacity, sizeof *grown);
        if (!grown) return err_memory(error, capacity * sizeof *grown);
        l->item = grown;
        l->capacity = capacity;
    }
    size_t at = l->bytes.size;
    if (!buf_add(&l->bytes, base64, size)) return err_memory(error, size);         /* decoded in place: it gets shorter */
    size_t n = tok_base64(base64, size, (unsigned char *)l->bytes.data + at);
    if (!n) return err_set(error, VLM_FORMAT, "tokenizer: the token of rank %lld is not base64", (long long)rank);
    l->bytes.size = at + n;
    l->item[l->count++] = (rank_item){at, (uint32_t)n, (uint32_t)rank};
    if (rank >= l->next) l->next = (uint32_t)rank + 1;
    return true;
}

static void free_ranks(rank_list *l)
{
    buf_free(&l->bytes);
    mem_free(l->item);
}

/* ---- the tokenizer ---- */

typedef struct special_list { struct { int32_t id; const char *text; } *item; size_t count, capacity, bytes; arena strings; bool failed; } special_list;

static void add_special(special_list *l, int64_t id, const char *text)
{
    if (id < 0 || id >= TOK_MAX_ID || !text || !*text) return;
    for (size_t i = 0; i < l->count && l->count < 4096; i++)
        if (l->item[i].id == id || strcmp(l->item[i].text, text) == 0) return;      /* the first one counts */
    if (l->count == l->capacity) {
        size_t capacity = l->capacity ? l->capacity * 2 : 256;
        void *grown = mem_resize(l->item, capacity, sizeof *l->item);
        if (!grown) {
            l->failed = true;
            return;
        }
        l->item = grown;
        l->capacity = capacity;
    }
    l->item[l->count].id = (int32_t)id;
    if (!(l->item[l->count].text = arena_strdup(&l->strings, text))) l->failed = true;
    else l->count++;
    l->bytes += strlen(text) + 1;
}

static void free_specials(special_list *l)
{
    mem_free(l->item);
    arena_free(&l->strings);
}

static bool add_pattern(tokenizer *t, const char *pattern, size_t size, vlm_error *error)
{
    t->split.count = 2;
    t->split.step[0] = (tok_step){.kind = SPLIT_PATTERN, .behavior = SPLIT_REMOVED, .invert = true};      /* what no match covers is lost */
    t->split.step[0].re = regex_new_in(REGEX_TIKTOKEN, pattern, size, error);
    t->split.step[1] = (tok_step){.kind = SPLIT_BYTE_LEVEL};
    t->decoder.count = 1;
    t->decoder.step[0] = (tok_step){.kind = DECODE_BYTE_LEVEL};
    t->has_decoder = t->raw_bytes = true;
    t->model = MODEL_BPE;
    t->ignore_merges = true;
    t->prefix = t->suffix = "";
    t->unk = -1;
    return t->split.step[0].re != NULL;
}

/* One token: its bytes, and its text in the byte alphabet. */
static bool add_bytes(tokenizer *t, tok_pool *p, int32_t id, const char *raw, size_t size, vlm_error *error)
{
    buf text = {0};
    tok_token *k = &t->token[id];
    for (size_t i = 0; i < size; i++) buf_add_utf8(&text, tok_byte_to_char((unsigned char)raw[i]));
    k->known = true;
    k->raw = tok_pool_add(p, raw, size);
    k->raw_size = (uint32_t)size;
    k->text = text.failed ? NULL : tok_pool_add(p, text.data, text.size);
    k->text_size = (uint32_t)text.size;
    buf_free(&text);
    return (k->raw && k->text && tok_map_add(&t->vocab, k->raw, size, id)) || err_memory(error, size);
}

/* Ids are ranks + shift. */
static bool build(tokenizer *t, const rank_list *list, const special_list *specials, int32_t shift, vlm_error *error)
{
    size_t largest = list->next ? list->next - 1 + (size_t)shift : 0;
    for (size_t i = 0; i < specials->count; i++)
        if ((size_t)specials->item[i].id > largest) largest = (size_t)specials->item[i].id;
    if (specials->failed) return err_memory(error, 0);
    if (largest >= TOK_MAX_ID) return err_set(error, VLM_FORMAT, "tokenizer: more than %d tokens", TOK_MAX_ID);
    tok_pool p = {.size = 3 * list->bytes.size + 2 * list->count + specials->bytes + 1};
    t->size = largest + 1;
    uint32_t *rank = MEM_ARRAY(t->size, uint32_t);
    bool ok = rank ? tok_make_room(t, &p, t->size, specials->count, error) : err_memory(error, t->size * sizeof *rank);
    for (size_t i = 0; ok && i < t->size; i++) rank[i] = UINT32_MAX;
    for (size_t i = 0; ok && i < list->count; i++) {
        const rank_item *item = &list->item[i];
        int32_t id = (int32_t)item->rank + shift;
        if (t->token[id].known) ok = err_set(error, VLM_FORMAT, "tokenizer: two tokens have the rank %u", item->rank);
        else ok = add_bytes(t, &p, id, list->bytes.data + item->at, item->size, error);
        rank[id] = item->rank;
    }
    if (ok) ok = tok_bpe_by_ranks(t, rank, false, error);
    for (int b = 0; ok && b < 256; b++) {
        char byte = (char)b;
        t->byte_id[b] = tok_map_find(&t->vocab, &byte, 1);
    }
    for (size_t i = 0; ok && i < specials->count; i++)
        ok = t->token[specials->item[i].id].known ? err_set(error, VLM_FORMAT, "tokenizer: special token %.80s has the id of another", specials->item[i].text)
                                                  : tok_add_token(t, &p, specials->item[i].id, specials->item[i].text, strlen(specials->item[i].text), true, false, error);
    mem_free(rank);
    return ok;
}

/* What stands before (and after) a text: the roles of tokenizer_config.json, unless it says no. */
static void add_post(tokenizer *t, const char *bos, bool add_bos)
{
    int32_t id = bos && add_bos ? tokenizer_id(t, bos) : -1;
    if (id >= 0) t->post[t->n_post++] = id;
    t->post[t->n_post++] = -1;
}

static tokenizer *new_tokenizer(const json_t *config, vlm_error *error)
{
    tokenizer *t = MEM_NEW(tokenizer);
    if (!t) {
        err_memory(error, sizeof *t);
        return NULL;
    }
    t->config = config ? json_incref((json_t *)(uintptr_t)config) : NULL;
    return t;
}

/* ---- tekken.json ---- */

/* Of files up to version 7 that do not list their special tokens. */
static const char *const old_tekken[] = {
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>",
    "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]"};

static bool read_tekken(const json_t *root, rank_list *list, special_list *specials, int64_t *n_special, vlm_error *error)
{
    const json_t *config = json_object_get(root, "config"), *vocab = json_object_get(root, "vocab"), *named = json_object_get(root, "special_tokens");
    *n_special = json_integer_value(json_object_get(config, "default_num_special_tokens"));
    int64_t size = json_integer_value(json_object_get(config, "default_vocab_size"));
    if (*n_special < 0 || *n_special > 1 << 20 || !json_is_string(json_object_get(config, "pattern")) || !json_is_array(vocab))
        return err_set(error, VLM_FORMAT, "tekken.json: config.pattern, config.default_num_special_tokens or vocab is missing");
    size_t known = json_is_array(named) ? json_array_size(named) : sizeof old_tekken / sizeof *old_tekken;
    if ((int64_t)known > *n_special) return err_set(error, VLM_FORMAT, "tekken.json: %zu special tokens, config says %lld", known, (long long)*n_special);
    for (size_t i = 0; i < known; i++) {
        const json_t *item = json_array_get(named, i);
        int64_t rank = item ? json_integer_value(json_object_get(item, "rank")) : (int64_t)i;
        if (rank >= *n_special) return err_set(error, VLM_FORMAT, "tekken.json: special token %zu has rank %lld of %lld", i, (long long)rank, (long long)*n_special);
        add_special(specials, rank, item ? json_string_value(json_object_get(item, "token_str")) : old_tekken[i]);
    }
    for (int64_t i = (int64_t)known; i < *n_special; i++) {
        char filler[40];
        snprintf(filler, sizeof filler, "<SPECIAL_%lld>", (long long)i);
        add_special(specials, i, filler);
    }
    size_t count = json_array_size(vocab);
    if (size > *n_special && (size_t)(size - *n_special) < count) count = (size_t)(size - *n_special);
    for (size_t i = 0; i < count; i++) {
        const json_t *item = json_array_get(vocab, i), *bytes = json_object_get(item, "token_bytes"), *rank = json_object_get(item, "rank");
        if (!json_is_string(bytes)) return err_set(error, VLM_FORMAT, "tekken.json: vocabulary entry %zu has no token_bytes", i);
        if (!add_rank(list, json_string_value(bytes), json_string_length(bytes), json_is_integer(rank) ? json_integer_value(rank) : (int64_t)i, error)) return false;
    }
    return true;
}

tokenizer *tok_from_tekken(const json_t *root, const json_t *config, vlm_error *error)
{
    rank_list list = {.next = 0};
    special_list specials = {.count = 0};
    int64_t n_special;
    const json_t *pattern = json_object_get(json_object_get(root, "config"), "pattern");
    tokenizer *t = new_tokenizer(config, error);
    bool ok = t && read_tekken(root, &list, &specials, &n_special, error) &&
              add_pattern(t, json_string_value(pattern), json_string_length(pattern), error) && build(t, &list, &specials, (int32_t)n_special, error);
    if (ok) {
        const json_t *add_bos = json_object_get(config, "add_bos_token");
        add_post(t, "<s>", !json_is_false(add_bos));
    }
    free_ranks(&list);
    free_specials(&specials);
    if (ok) return t;
    tokenizer_free(t);
    return NULL;
}

/* ---- tiktoken's files ---- */

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define WORDS_DIGITS(digits) CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" digits "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define UPPER "\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}"
#define LOWER "\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}"
#define CASED(not) "[^\\r\\n\\p{L}\\p{N}]?[" UPPER not "]*[" LOWER not "]+" CONTRACTIONS "?|[^\\r\\n\\p{L}\\p{N}]?[" UPPER not "]+[" LOWER not "]*" CONTRACTIONS "?"

typedef struct profile {
    const char *class_name, *file;         /* tokenizer_class, or a part of the file's name */
    const char *pattern;
    const char *const *specials;           /* after the vocabulary, in this order */
    int reserved;                          /* so many tokens after the vocabulary in all; those without a name get one */
    const char *bos;
} profile;

static const char *const qwen_first[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>", NULL};
static const char *const qwen_images[] = {"<ref>", "</ref>", "<box>", "</box>", "<quad>", "</quad>", "<img>", "</img>", "<imgpad>"};
static const char *const llama_first[] = {"<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>", "<|finetune_right_pad_id|>",
                                          "<|step_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>", NULL};
static const char *const gpt_first[] = {"<|endoftext|>", NULL};
static const char *const none[] = {NULL};

static const profile profiles[] = {
    {"QWenTokenizer", "qwen", WORDS_DIGITS(""), qwen_first, 0, NULL},
    {"TikTokenTokenizer", "tiktoken.model",
     "[\\p{Han}]+|" CASED("&&[^\\p{Han}]") "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+", none, 258, NULL},
    {"ChatGLM4Tokenizer", "glm", WORDS_DIGITS("{1,3}"), none, 0, NULL},
    {"HYTokenizer", "hy.tiktoken", WORDS_DIGITS(""), none, 0, NULL},
    {"Phi3SmallTokenizer", "cl100k_base", WORDS_DIGITS("{1,3}"), gpt_first, 0, NULL},
    {"GPT4oTokenizer", "o200k_base", CASED("") "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+", gpt_first, 0, NULL},
    {"PreTrainedTokenizerFast", "tokenizer.model", WORDS_DIGITS("{1,3}"), llama_first, 256, "<|begin_of_text|>"},
};
enum { PROFILES = sizeof profiles / sizeof *profiles, LLAMA = PROFILES - 1 };

static const profile *choose(const char *name, const json_t *config)
{
    const char *class_name = json_string_value(json_object_get(config, "tokenizer_class"));
    for (int i = 0; class_name && i < LLAMA; i++)
        if (strcmp(class_name, profiles[i].class_name) == 0) return &profiles[i];
    for (int i = 0; i < PROFILES; i++)
        if (strstr(name, profiles[i].file)) return &profiles[i];
    return &profiles[2];
}

/* Special tokens by name from tokenizer_config.json, those that the class has on its own, and names for what lies between. */
static void name_specials(const profile *p, const json_t *config, uint32_t base, special_list *out)
{
    const char *key;
    const json_t *item, *named = json_object_get(config, "added_tokens_decoder");
    int64_t last = (int64_t)base - 1;
    json_object_foreach((json_t *)(uintptr_t)named, key, item) {
        int64_t id = strtol(key, NULL, 10);
        const char *content = json_is_object(item) ? json_string_value(json_object_get(item, "content")) : json_string_value(item);
        if (id < base) continue;
        add_special(out, id, content);
        if (id > last && id < TOK_MAX_ID) last = id;
    }
    int64_t next = base;
    if (!json_object_size(named)) {
        for (const char *const *s = p->specials; *s; s++) add_special(out, next++, *s);
        if (p->specials == qwen_first) {
            char name[64];
            for (int i = 0; i < 205; i++) {
                snprintf(name, sizeof name, "<|extra_%d|>", i);
                add_special(out, next++, name);
            }
            for (size_t i = 0; i < sizeof qwen_images / sizeof *qwen_images; i++) add_special(out, next++, qwen_images[i]);
        }
    }
    if (p->reserved && (int64_t)base + p->reserved - 1 > last) last = (int64_t)base + p->reserved - 1;
    if (last > (int64_t)base + 4096) last = base + 4096;
    for (int64_t id = base; id <= last; id++) {
        char name[64];
        if (p == &profiles[LLAMA]) snprintf(name, sizeof name, "<|reserved_special_token_%lld|>", (long long)(id - base - 9));
        else snprintf(name, sizeof name, "<|reserved_token_%lld|>", (long long)id);
        add_special(out, id, name);
    }
}

tokenizer *tok_from_tiktoken(const char *text, size_t size, const char *name, const json_t *config, vlm_error *error)
{
    rank_list list = {.next = 0};
    special_list specials = {.count = 0};
    const profile *p = choose(name, config);
    tokenizer *t = new_tokenizer(config, error);
    bool ok = t != NULL;
    const char *end = text + size;
    for (size_t line = 1; ok && text < end; line++) {
        const char *newline = memchr(text, '\n', (size_t)(end - text)), *stop = newline ? newline : end;
        const char *space = memchr(text, ' ', (size_t)(stop - text));
        int64_t rank = 0;
        const char *digit = space ? space + 1 : stop;
        while (digit < stop && *digit >= '0' && *digit <= '9' && rank < TOK_MAX_ID) rank = rank * 10 + (*digit++ - '0');
        bool number = space && digit > space + 1 && (digit == stop || *digit == '\r');
        if (number) ok = add_rank(&list, text, (size_t)(space - text), rank, error);
        else if (stop > text && *text != '\r') ok = err_set(error, VLM_FORMAT, "%s: line %zu is not \"base64 rank\"", name, line);
        text = newline ? newline + 1 : end;
    }
    if (ok && !list.count) ok = err_set(error, VLM_FORMAT, "%s is empty", name);
    if (ok) {
        name_specials(p, config, list.next, &specials);
        ok = add_pattern(t, p->pattern, strlen(p->pattern), error) && build(t, &list, &specials, 0, error);
    }
    if (ok) {
        const char *role = tokenizer_role(t, "bos_token");
        add_post(t, role ? role : p->bos, role ? json_is_true(json_object_get(config, "add_bos_token")) : p->bos != NULL);
    }
    free_ranks(&list);
    free_specials(&specials);
    if (ok) return t;
    tokenizer_free(t);
    return NULL;
}
