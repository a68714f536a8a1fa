/* tokenizer.h - tokenizer.json as Hugging Face `tokenizers` runs it; tekken.json, tiktoken's files, sentencepiece's .model; the streaming detokenizer. */
#ifndef VLM_TEXT_TOKENIZER_H
#define VLM_TEXT_TOKENIZER_H

#include <jansson.h>
#include "base/mem.h"
#include "vlm.h"

typedef struct tokenizer tokenizer;
typedef struct ids { int32_t *id; size_t count, capacity; bool failed; } ids;
bool ids_add(ids *list, int32_t id);
void ids_free(ids *list);

/* dir: checkpoint directory with tokenizer.json, else tekken.json, *.tiktoken or *.model (and tokenizer_config.json). */
tokenizer *tokenizer_load(const char *dir, vlm_error *error);
/* ... with members for tokenizer_config.json where that lacks them; more NULL: none. */
tokenizer *tokenizer_load_more(const char *dir, const json_t *more, vlm_error *error);
/* A tokenizer's file alone, of any of these kinds. */
tokenizer *tokenizer_load_file(const char *path, vlm_error *error);
/* From what such a file holds; name: the file's (tiktoken's files do not say which pattern they go with). */
tokenizer *tokenizer_from_file(const char *text, size_t size, const char *name, const json_t *config, vlm_error *error);
/* From the text of tokenizer.json; config may be NULL. The vocabulary and merges are read from the text, without a tree of JSON values. */
tokenizer *tokenizer_from_text(const char *text, size_t size, const json_t *config, vlm_error *error);
/* From parsed JSON. For tests and other containers. */
tokenizer *tokenizer_from_json(const json_t *tokenizer_json, const json_t *tokenizer_config, vlm_error *error);
void tokenizer_free(tokenizer *t);

/* Appends the ids of `text`. special: added tokens marked special are recognised in the text. No BOS/EOS is added unless
 * add_special (the post-processor's template). Bytes that are not UTF-8 become U+FFFD.
 * guard (see chat.h), one character or NULL: it hinders recognition of control tokens and vanishes before encoding.
 * options NULL: special tokens are recognised, none are added. */
typedef struct encode_options { bool special, add_special; const char *guard; } encode_options;
bool tokenizer_encode(const tokenizer *t, const char *text, size_t size, const encode_options *options, ids *out, vlm_error *error);
/* The text of ids, as decode(ids, skip_special_tokens) of the reference. clean_up_tokenization_spaces of tokenizer_config.json is not
 * followed: it takes spaces out of correct text (" ." in code), and a stream could not be cleaned in the same way. */
bool tokenizer_decode(const tokenizer *t, const int32_t *id, size_t count, bool skip_special, buf *out, vlm_error *error);

int32_t tokenizer_id(const tokenizer *t, const char *token);          /* -1: no such token */
const char *tokenizer_token(const tokenizer *t, int32_t id);          /* NULL: no such id; as stored in the vocabulary */
bool tokenizer_is_special(const tokenizer *t, int32_t id);
size_t tokenizer_size(const tokenizer *t);                            /* largest id + 1 */
/* Appends the bytes that the token adds to the text when it stands in the middle of it (not first, not last): perhaps a part of a character
 * (byte-level vocabularies, <0xNN>), with the space that a metaspace or a word's beginning stands for. False, and nothing is appended, for an id
 * without a token and for control tokens (tokenizer_is_special); also when out of memory (out->failed). */
bool tokenizer_token_bytes(const tokenizer *t, int32_t id, buf *out);
/* Special tokens by role from tokenizer_config.json: "bos_token", "eos_token", "pad_token", "unk_token" ...; NULL if none. */
const char *tokenizer_role(const tokenizer *t, const char *role);
const json_t *tokenizer_config(const tokenizer *t);                   /* tokenizer_config.json, may be NULL */
/* Every added token's content, for guarding user text. */
size_t tokenizer_added_count(const tokenizer *t);
const char *tokenizer_added(const tokenizer *t, size_t index, bool *special);

/* ---- streaming: ids in, whole UTF-8 out; all pieces together equal tokenizer_decode of all ids ---- */
typedef struct detokenizer detokenizer;
detokenizer *detokenizer_new(const tokenizer *t, bool skip_special, vlm_error *error);
void detokenizer_free(detokenizer *d);
bool detokenizer_add(detokenizer *d, int32_t id, buf *out, vlm_error *error);     /* appends what is certain now */
bool detokenizer_finish(detokenizer *d, buf *out, vlm_error *error);              /* appends the rest */

#endif
