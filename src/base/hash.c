/* hash.c - see hash.h. */
#include "base/hash.h"

#include <openssl/evp.h>
#include <string.h>

#include "base/mem.h"

hasher hash_start(void)
{
    hasher h = {0};
    h.context = mem_inject() ? NULL : EVP_MD_CTX_new();
    h.failed = !h.context || EVP_DigestInit_ex(h.context, EVP_sha256(), NULL) != 1;
    return h;
}

static void add(hasher *h, const void *data, size_t size)
{
    if (!h->failed && size && EVP_DigestUpdate(h->context, data, size) != 1) h->failed = true;
}

void hash_u64(hasher *h, uint64_t value)
{
    uint8_t bytes[8];
    for (int i = 0; i < 8; i++) bytes[i] = (uint8_t)(value >> 8 * i);
    add(h, bytes, sizeof bytes);
}

void hash_part(hasher *h, const void *data, size_t size)
{
    hash_u64(h, size);
    add(h, data, size);
}

void hash_text(hasher *h, const char *text) { hash_part(h, text, strlen(text)); }

bool hash_finish(hasher *h, digest *out)
{
    unsigned int n = 0;
    if (!h->failed && (EVP_DigestFinal_ex(h->context, out->byte, &n) != 1 || n != sizeof out->byte)) h->failed = true;
    EVP_MD_CTX_free(h->context);
    h->context = NULL;
    return !h->failed;
}

bool hash_bytes(const void *data, size_t size, digest *out)
{
    hasher h = hash_start();
    add(&h, data, size);
    return hash_finish(&h, out);
}

bool digest_equal(const digest *a, const digest *b) { return memcmp(a->byte, b->byte, sizeof a->byte) == 0; }

void digest_hex(const digest *d, char out[65])
{
    for (int i = 0; i < 32; i++) {
        out[2 * i] = "0123456789abcdef"[d->byte[i] >> 4];
        out[2 * i + 1] = "0123456789abcdef"[d->byte[i] & 15];
    }
    out[64] = 0;
}
