/* load.c - tokenizer.json and tokenizer_config.json become a struct tokenizer. */
#include <string.h>

#include "text/tokenizer/internal.h"

/* ---- vocabulary ---- */

const char *tok_pool_add(tok_pool *p, const char *text, size_t size)
{
    if (size >= p->size - p->used) return NULL;
    char *copy = p->data + p->used;
    memcpy(copy, text, size);
    copy[size] = 0;
    p->used += size + 1;
    return copy;
}

/* The bytes that a token of a byte-level vocabulary stands for; false when a character is not of the byte alphabet. */
static bool token_bytes(const char *text, size_t size, tok_pool *p, const char **raw, uint32_t *raw_size)
{
    char *out = p->data + p->used;
    size_t n = 0;
    for (size_t i = 0; i < size;) {
        uint32_t code;
        i += utf8_next_lossy(text + i, size - i, &code);
        int byte = tok_char_to_byte(code);
        if (byte < 0) return false;
        if (n + 1 >= p->size - p->used) return false;
        out[n++] = (char)byte;
    }
    if (n >= p->size - p->used) return false;
    out[n] = 0;
    p->used += n + 1;
    *raw = out;
    *raw_size = (uint32_t)n;
    return true;
}

static bool has_byte_level_decoder(const tokenizer *t)
{
    for (size_t i = 0; i < t->decoder.count; i++)
        if (t->decoder.step[i].kind == DECODE_BYTE_LEVEL) return true;
    return false;
}

static bool set_token(tokenizer *t, tok_pool *p, int32_t id, const char *text, size_t size, bool byte_decoder, vlm_error *error)
{
    tok_token *k = &t->token[id];
    k->known = true;
    k->text = tok_pool_add(p, text, size);
    k->text_size = (uint32_t)size;
    k->raw = k->text;
    k->raw_size = k->text_size;
    bool converted = (t->raw_bytes || byte_decoder) && token_bytes(text, size, p, &k->raw, &k->raw_size);
    if (!k->text) return err_set(error, VLM_INTERNAL, "tokenizer: string pool is too small");
    bool ok;
    if (t->raw_bytes && !converted) ok = tok_map_add(&t->odd, k->text, size, id);
    else if (t->raw_bytes) ok = tok_map_add(&t->vocab, k->raw, k->raw_size, id);
    else ok = tok_map_add(&t->vocab, k->text, size, id);
    return ok || err_memory(error, size);
}

static bool check_id(json_int_t id, const char *what, vlm_error *error)
{
    if (id >= 0 && id < TOK_MAX_ID) return true;
    return err_set(error, VLM_FORMAT, "tokenizer.json: %s has id %lld, expected 0 to %d", what, (long long)id, TOK_MAX_ID - 1);
}

/* The vocabulary's tokens and ids one after the other, from a JSON object or from its text. */
typedef struct entries { const tok_spans *spans; json_t *object; void *at; tok_scan scan; bool first; } entries;

static void rewind_entries(entries *e)
{
    tok_scan_free(&e->scan);
    if (e->spans) e->scan = tok_scan_start(e->spans->vocab, e->spans->vocab_size);
    else e->at = json_object_iter(e->object);
    e->first = true;
}

/* 1, 0 at the end, -1 on error. */
static int next_entry(entries *e, const char **key, size_t *size, int64_t *id, vlm_error *error)
{
    if (!e->spans) {
        if (!e->at) return 0;
        const json_t *value = json_object_iter_value(e->at);
        *key = json_object_iter_key(e->at);
        *size = json_object_iter_key_len(e->at);
        *id = json_integer_value(value);
        e->at = json_object_iter_next(e->object, e->at);
        if (json_is_integer(value)) return 1;
        err_set(error, VLM_FORMAT, "tokenizer.json: id of \"%.80s\" is not a number", *key);
        return -1;
    }
    tok_scan *s = &e->scan;
    bool ok = e->first ? tok_scan_take(s, '{') : true;
    if (ok && tok_scan_take(s, '}')) return 0;
    ok = ok && (e->first || tok_scan_take(s, ',')) && tok_scan_string(s, 0, key, size) && tok_scan_take(s, ':') && tok_scan_integer(s, id);
    e->first = false;
    if (ok) return 1;
    if (s->text[0].failed) err_memory(error, 0);
    else err_set(error, VLM_FORMAT, "tokenizer.json: the vocabulary is not a list of \"token\": id");
    return -1;
}

/* Ids and total string size of the vocabulary: an object {token: id} or, for Unigram, a list [[token, score], ...]. */
static bool measure_vocab(entries *e, const json_t *vocab, json_int_t *largest, size_t *bytes, vlm_error *error)
{
    if (e->spans || json_is_object(vocab)) {
        const char *key;
        size_t size;
        int64_t id;
        int more;
        rewind_entries(e);
        while ((more = next_entry(e, &key, &size, &id, error)) > 0) {
            if (!check_id(id, "the vocabulary", error)) return false;
            if (id > *largest) *largest = id;
            *bytes += 2 * (size + 1);
        }
        return more == 0;
    }
    if (!json_is_array(vocab)) return err_set(error, VLM_FORMAT, "tokenizer.json: model.vocab is missing");
    size_t n = json_array_size(vocab);
    if (n && !check_id((json_int_t)n - 1, "the vocabulary", error)) return false;
    for (size_t i = 0; i < n; i++) {
        const json_t *piece = json_array_get(json_array_get(vocab, i), 0), *score = json_array_get(json_array_get(vocab, i), 1);
        if (!json_is_string(piece) || !json_is_number(score))
            return err_set(error, VLM_FORMAT, "tokenizer.json: vocabulary entry %zu is not [text, score]", i);
        *bytes += 2 * (json_string_length(piece) + 1);
    }
    if ((json_int_t)n - 1 > *largest) *largest = (json_int_t)n - 1;
    return true;
}

static bool load_vocab(tokenizer *t, entries *e, const json_t *vocab, tok_pool *p, vlm_error *error)
{
    bool byte_decoder = has_byte_level_decoder(t);
    if (e->spans || json_is_object(vocab)) {
        const char *key;
        size_t size;
        int64_t id;
        int more;
        rewind_entries(e);
        while ((more = next_entry(e, &key, &size, &id, error)) > 0)
            if (!set_token(t, p, (int32_t)id, key, size, byte_decoder, error)) return false;
        return more == 0;
    }
    for (size_t i = 0; i < json_array_size(vocab); i++) {
        const json_t *piece = json_array_get(json_array_get(vocab, i), 0);
        if (!set_token(t, p, (int32_t)i, json_string_value(piece), json_string_length(piece), byte_decoder, error)) return false;
    }
    return true;
}

/* ---- added tokens ---- */

static bool member_true(const json_t *j, const char *key) { return json_is_true(json_object_get(j, key)); }

/* The model's id of a token as it stands in the vocabulary. */
static int32_t find_in_model(const tokenizer *t, const char *token, size_t size)
{
    if (!t->raw_bytes) return tok_map_find(&t->vocab, token, size);
    char fixed[256], *raw = size <= sizeof fixed ? fixed : mem_new(size, 1);
    size_t n = 0;
    int byte = 0;
    for (size_t i = 0; raw && i < size && byte >= 0;) {
        uint32_t code;
        i += utf8_next_lossy(token + i, size - i, &code);
        byte = tok_char_to_byte(code);
        if (byte >= 0) raw[n++] = (char)byte;
    }
    int32_t id = raw && byte >= 0 ? tok_map_find(&t->vocab, raw, n) : tok_map_find(&t->odd, token, size);
    if (raw != fixed) mem_free(raw);
    return id;
}

static bool check_added(const json_t *list, size_t *bytes, vlm_error *error)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i), *id = json_object_get(item, "id"), *text = json_object_get(item, "content");
        if (!json_is_integer(id) || !json_is_string(text)) return err_set(error, VLM_FORMAT, "tokenizer.json: added token %zu has no id or content", i);
        if (!check_id(json_integer_value(id), "an added token", error)) return false;
        *bytes += 2 * (json_string_length(text) + 1);
    }
    return true;
}

/* Matching of tokens with normalized = true happens on normalized text, with their content normalized too; that is also what they are decoded to. */
static bool index_added(tokenizer *t, size_t index, vlm_error *error)
{
    const tok_added *a = &t->added[index];
    tok_token *k = &t->token[a->id];
    if (!a->normalized || !t->normalizer.count)
        return tok_trie_add(a->normalized ? &t->trie_normalized : &t->trie, a->content, a->size, (int32_t)index) || err_memory(error, 0);
    buf text = {0};
    char *copy = NULL;
    bool ok = tok_normalize(t, a->content, a->size, NULL, &text, error);
    if (ok && !tok_trie_add(&t->trie_normalized, text.data ? text.data : "", text.size, (int32_t)index)) ok = err_memory(error, 0);
    if (ok && (text.size != a->size || memcmp(text.data, a->content, a->size) != 0)) {
        copy = arena_alloc(&t->strings, text.size + 1);
        if (!copy) ok = err_memory(error, text.size);
        else {
            if (text.size) memcpy(copy, text.data, text.size);
            k->text = k->raw = copy;
            k->text_size = k->raw_size = (uint32_t)text.size;
        }
    }
    buf_free(&text);
    return ok;
}

bool tok_make_room(tokenizer *t, tok_pool *p, size_t tokens, size_t added, vlm_error *error)
{
    t->token = MEM_ARRAY(tokens, tok_token);
    t->added = MEM_ARRAY(added, tok_added);
    p->data = t->pool = mem_new(p->size, 1);
    return (t->token && t->added && p->data) || err_memory(error, tokens * sizeof *t->token + p->size);
}

bool tok_add_token(tokenizer *t, tok_pool *p, int32_t id, const char *content, size_t size, bool special, bool normalized, vlm_error *error)
{
    const char *text = size ? tok_pool_add(p, content, size) : NULL;
    if (!text) return !size || err_set(error, VLM_INTERNAL, "tokenizer: string pool is too small");
    t->token[id] = (tok_token){.text = text, .raw = text, .text_size = (uint32_t)size, .raw_size = (uint32_t)size, .known = true, .special = special,
                               .skipped = special, .added = (uint32_t)t->added_count + 1};
    t->added[t->added_count] = (tok_added){.content = text, .size = (uint32_t)size, .id = id, .special = special, .normalized = normalized};
    return (tok_trie_add(normalized ? &t->trie_normalized : &t->trie, text, size, (int32_t)t->added_count++) && tok_map_add(&t->names, text, size, id)) ||
           err_memory(error, size);
}

/* The id of an added token: that of the model's vocabulary, else the one after the largest. What the file says is not asked, as the reference does. */
typedef struct added_ids { int32_t next; size_t room; } added_ids;

static int32_t added_id(const tokenizer *t, const char *content, size_t size, added_ids *numbers)
{
    int32_t id = tok_map_find(&t->names, content, size);
    if (id < 0) id = find_in_model(t, content, size);
    return id >= 0 ? id : numbers->next++;
}

static bool add_one(tokenizer *t, const json_t *item, tok_pool *p, added_ids *numbers, vlm_error *error)
{
    const json_t *text = json_object_get(item, "content");
    size_t size = json_string_length(text);
    if (!size) return true;
    const char *content = tok_pool_add(p, json_string_value(text), size);
    if (!content) return err_set(error, VLM_INTERNAL, "tokenizer: string pool is too small");
    int32_t id = added_id(t, content, size, numbers);
    if (id < 0 || (size_t)id >= numbers->room) return err_set(error, VLM_FORMAT, "tokenizer.json: more than %d tokens", TOK_MAX_ID);
    bool again = t->token[id].added != 0;          /* a token told twice: the last one counts */
    size_t index = again ? (size_t)t->token[id].added - 1 : t->added_count;
    tok_token *k = &t->token[id];
    tok_added *a = &t->added[index];
    *a = (tok_added){.content = content, .size = (uint32_t)size, .id = id, .special = member_true(item, "special"), .lstrip = member_true(item, "lstrip"),
                     .rstrip = member_true(item, "rstrip"), .single_word = member_true(item, "single_word"),
                     .normalized = json_object_get(item, "normalized") ? member_true(item, "normalized") : !member_true(item, "special")};
    *k = (tok_token){.text = content, .raw = content, .text_size = a->size, .raw_size = a->size, .known = true, .special = a->special, .added = (uint32_t)index + 1};
    if (!again) t->added_count++;
    return tok_map_add(&t->names, content, size, id) || err_memory(error, size);
}

static bool load_added(tokenizer *t, const json_t *list, size_t room, tok_pool *p, vlm_error *error)
{
    size_t count = json_array_size(list);
    added_ids numbers = {.next = (int32_t)(t->vocab.count + t->odd.count), .room = room < TOK_MAX_ID ? room : TOK_MAX_ID};
    tok_map specials = {0};
    bool ok = true;
    for (size_t i = 0; ok && i < count; i++) ok = add_one(t, json_array_get(list, i), p, &numbers, error);
    if (ok && (size_t)numbers.next > t->size) t->size = (size_t)numbers.next;
    for (size_t i = 0; ok && i < t->added_count; i++) {
        ok = index_added(t, i, error);
        if (ok && t->added[i].special && !tok_map_add(&specials, t->added[i].content, t->added[i].size, 1)) ok = err_memory(error, 0);
    }
    bool byte_decoder = has_byte_level_decoder(t);
    for (size_t i = 0; ok && i < t->added_count; i++) {
        tok_token *k = &t->token[t->added[i].id];
        k->skipped = tok_map_find(&specials, k->text, k->text_size) >= 0;
        if (byte_decoder) token_bytes(k->text, k->text_size, p, &k->raw, &k->raw_size);
    }
    tok_map_free(&specials);
    return ok;
}

/* added_tokens_decoder of tokenizer_config.json may know tokens that tokenizer.json lacks: both lists as one. */
static json_t *merge_added(const json_t *root, const json_t *config)
{
    json_t *list = json_array();
    json_t *item;
    size_t i;
    json_array_foreach(json_object_get(root, "added_tokens"), i, item) json_array_append(list, item);
    const char *key;
    json_object_foreach(json_object_get(config, "added_tokens_decoder"), key, item) {
        const char *content = json_string_value(json_object_get(item, "content"));
        long id = strtol(key, NULL, 10);
        bool known = !content || id < 0;
        for (size_t k = 0; !known && k < json_array_size(list); k++) {
            const json_t *other = json_array_get(list, k);
            const char *text = json_string_value(json_object_get(other, "content"));
            known = json_integer_value(json_object_get(other, "id")) == id || (text && strcmp(text, content) == 0);
        }
        if (known) continue;
        json_t *copy = json_copy(item);
        json_object_set_new(copy, "id", json_integer(id));
        json_array_append_new(list, copy);
    }
    return list;
}

/* ---- model ---- */

static bool load_unk(tokenizer *t, const json_t *model)
{
    const json_t *token = json_object_get(model, "unk_token"), *id = json_object_get(model, "unk_id");
    t->unk = -1;
    if (json_is_integer(id) && json_integer_value(id) >= 0 && (size_t)json_integer_value(id) < t->size)
        t->unk = (int32_t)json_integer_value(id);
    if (json_is_string(token)) t->unk = tokenizer_id(t, json_string_value(token));
    return true;
}

static bool model_kind(tokenizer *t, const json_t *model, vlm_error *error)
{
    const char *type = json_string_value(json_object_get(model, "type"));
    if (!type) {                                   /* old files leave the type out */
        t->model = json_object_get(model, "merges") ? MODEL_BPE
                 : json_is_array(json_object_get(model, "vocab")) ? MODEL_UNIGRAM : MODEL_WORDPIECE;
        return true;
    }
    static const char *const names[] = {"BPE", "Unigram", "WordPiece", "WordLevel"};
    for (int i = 0; i < 4; i++)
        if (strcmp(type, names[i]) == 0) {
            t->model = (tok_model_kind)i;
            return true;
        }
    return err_set(error, VLM_UNSUPPORTED, "tokenizer.json: model type \"%.80s\" (BPE, Unigram, WordPiece and WordLevel are known)", type);
}

static bool load_model(tokenizer *t, const json_t *model, const tok_spans *spans, vlm_error *error)
{
    load_unk(t, model);
    switch (t->model) {
    case MODEL_BPE: return tok_bpe_load(t, model, spans, error);
    case MODEL_UNIGRAM: return tok_unigram_load(t, model, error);
    case MODEL_WORDPIECE: return tok_wordpiece_load(t, model, error);
    case MODEL_WORDLEVEL: return true;
    }
    return false;
}

static bool load_all(tokenizer *t, const json_t *root, const json_t *added, entries *e, vlm_error *error)
{
    const json_t *model = json_object_get(root, "model");
    if (!json_is_object(model)) return err_set(error, VLM_FORMAT, "tokenizer.json has no \"model\"");
    if (!model_kind(t, model, error) || !tok_parse_normalizer(t, json_object_get(root, "normalizer"), error) ||
        !tok_parse_split(t, json_object_get(root, "pre_tokenizer"), error) ||
        !tok_parse_decoder(t, json_object_get(root, "decoder"), error))
        return false;
    json_int_t largest = -1;
    tok_pool p = {.size = 1};
    const json_t *vocab = json_object_get(model, "vocab");
    e->object = (json_t *)vocab;
    if (!measure_vocab(e, vocab, &largest, &p.size, error) || !check_added(added, &p.size, error)) return false;
    if (json_is_true(json_object_get(model, "byte_fallback"))) t->raw_bytes = false;       /* falls back to bytes of the byte alphabet */
    t->size = (size_t)(largest + 1);
    size_t room = t->size + json_array_size(added);
    if (!tok_make_room(t, &p, room, json_array_size(added), error)) return false;
    return load_vocab(t, e, vocab, &p, error) && load_added(t, added, room, &p, error) && load_model(t, model, e->spans, error) &&
           tok_parse_post(t, json_object_get(root, "post_processor"), error);
}

/* spans: vocabulary and merges as text; NULL: they are in root. */
static tokenizer *load(const json_t *root, const json_t *config, const tok_spans *spans, vlm_error *error)
{
    if (!json_is_object(root)) {
        err_set(error, VLM_FORMAT, "tokenizer.json is not an object");
        return NULL;
    }
    tokenizer *t = MEM_NEW(tokenizer);
    json_t *added = merge_added(root, config);
    if (!t || !added) err_memory(error, sizeof *t);
    else {
        t->unk = -1;
        t->config = config ? json_incref((json_t *)config) : NULL;
        entries e = {.spans = spans};
        bool ok = load_all(t, root, added, &e, error);
        tok_scan_free(&e.scan);
        if (ok) {
            json_decref(added);
            return t;
        }
    }
    json_decref(added);
    tokenizer_free(t);
    return NULL;
}

tokenizer *tokenizer_from_json(const json_t *root, const json_t *config, vlm_error *error) { return load(root, config, NULL, error); }

/* The file without its vocabulary and merges, and where these are in `text`. */
static json_t *read_without_vocab(const char *text, size_t size, tok_spans *spans, bool *no_memory)
{
    buf rest = {0};
    json_t *root = NULL;
    if (!tok_scan_find(text, size, spans)) return NULL;
    const char *first = spans->vocab, *second = spans->merges ? spans->merges : text + size;
    size_t first_size = spans->vocab_size, second_size = spans->merges_size;
    if (second < first) {
        const char *swap = first;
        size_t swap_size = first_size;
        first = second, first_size = second_size;
        second = swap, second_size = swap_size;
    }
    buf_add(&rest, text, (size_t)(first - text));
    buf_adds(&rest, "null");
    buf_add(&rest, first + first_size, (size_t)(second - first) - first_size);
    if (spans->merges) {
        buf_adds(&rest, "null");
        buf_add(&rest, second + second_size, (size_t)(text + size - second) - second_size);
    }
    *no_memory = rest.failed;
    if (!rest.failed) root = json_loadb(rest.data, rest.size, JSON_ALLOW_NUL, NULL);
    buf_free(&rest);
    return root;
}

tokenizer *tokenizer_from_text(const char *text, size_t size, const json_t *config, vlm_error *error)
{
    tok_spans spans;
    json_error_t bad;
    tokenizer *t = NULL;
    bool no_memory = false;
    json_t *root = read_without_vocab(text, size, &spans, &no_memory);
    bool whole = !root;
    if (no_memory) return err_memory(error, size), NULL;
    if (whole) root = json_loadb(text, size, JSON_ALLOW_NUL, &bad);
    if (!root) err_set(error, VLM_FORMAT, "tokenizer.json: line %d: %s", bad.line, bad.text);
    else t = load(root, config, whole ? NULL : &spans, error);
    json_decref(root);
    return t;
}

void tokenizer_free(tokenizer *t)
{
    if (!t) return;
    json_decref(t->config);
    for (size_t i = 0; i < t->normalizer.count; i++)
        if (t->normalizer.step[i].kind == NORM_SENTENCEPIECE) tok_spm_free(t->normalizer.step[i].table);
    tok_steps_free(&t->normalizer);
    tok_steps_free(&t->split);
    tok_steps_free(&t->decoder);
    tok_map_free(&t->vocab);
    tok_map_free(&t->names);
    tok_map_free(&t->odd);
    tok_trie_free(&t->trie);
    tok_trie_free(&t->trie_normalized);
    tok_trie_free(&t->pieces);
    mem_free(t->added);
    mem_free(t->token);
    mem_free(t->pool);
    mem_free(t->merges);
    mem_free(t->joints);
    mem_free(t->score);
    arena_free(&t->strings);
    mem_free(t);
}

/* ---- questions ---- */

int32_t tokenizer_id(const tokenizer *t, const char *token)
{
    size_t size = strlen(token);
    int32_t id = tok_map_find(&t->names, token, size);
    return id >= 0 ? id : find_in_model(t, token, size);
}

const char *tokenizer_token(const tokenizer *t, int32_t id)
{
    return id >= 0 && (size_t)id < t->size && t->token[id].known ? t->token[id].text : NULL;
}

bool tokenizer_is_special(const tokenizer *t, int32_t id) { return id >= 0 && (size_t)id < t->size && t->token[id].special; }

size_t tokenizer_size(const tokenizer *t) { return t->size; }

const json_t *tokenizer_config(const tokenizer *t) { return t->config; }

const char *tokenizer_role(const tokenizer *t, const char *role)
{
    const json_t *value = json_object_get(t->config, role);
    if (json_is_object(value)) value = json_object_get(value, "content");
    return json_string_value(value);
}

size_t tokenizer_added_count(const tokenizer *t) { return t->added_count; }

const char *tokenizer_added(const tokenizer *t, size_t index, bool *special)
{
    if (index >= t->added_count) return NULL;
    if (special) *special = t->added[index].special;
    return t->added[index].content;
}
