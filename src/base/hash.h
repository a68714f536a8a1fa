/* hash.h - SHA-256 (libcrypto). Cache keys are digests of length-prefixed parts: hash_part adds its length first, so that
 * ("ab","c") and ("a","bc") differ. */
#ifndef VLM_BASE_HASH_H
#define VLM_BASE_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct digest { uint8_t byte[32]; } digest;
typedef struct hasher { void *context; bool failed; } hasher;

hasher hash_start(void);
void hash_part(hasher *h, const void *data, size_t size);      /* length, then bytes */
void hash_text(hasher *h, const char *text);
void hash_u64(hasher *h, uint64_t value);
/* Releases the hasher. False when memory ran out: the digest must not be used. */
bool hash_finish(hasher *h, digest *out);
bool hash_bytes(const void *data, size_t size, digest *out);   /* plain SHA-256 of the bytes */
bool digest_equal(const digest *a, const digest *b);
void digest_hex(const digest *d, char out[65]);

#endif
