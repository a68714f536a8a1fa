/* mem.h - allocation that is checked, countable and can be made to fail; growing byte buffers; bump arenas.
 *
 * All memory of the library comes through these calls (libraries that we call have their own). mem_fail_at(n) makes the
 * n-th allocation from now fail once: tests/oom walks n upwards until a scenario passes without a failure. */
#ifndef VLM_BASE_MEM_H
#define VLM_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Zeroed memory; NULL when out of memory. n * size is checked for overflow. Release with mem_free. */
void *mem_new(size_t n, size_t size);
#define MEM_NEW(type) ((type *)mem_new(1, sizeof(type)))
#define MEM_ARRAY(n, type) ((type *)mem_new((n), sizeof(type)))
/* Not zeroed, aligned to 64 bytes (cache line, AVX-512 vector); release with mem_free. */
void *mem_aligned(size_t bytes);
/* Grows or shrinks an array; the old one stays valid on failure (returns NULL). New part is not zeroed. */
void *mem_resize(void *memory, size_t n, size_t size);
void mem_free(void *memory);
char *mem_strdup(const char *text);
char *mem_strndup(const char *text, size_t n);
char *mem_printf(const char *format, ...) __attribute__((format(printf, 1, 2)));

size_t mem_physical(void);              /* bytes of memory that this machine has */

/* a * b (* c), false on overflow: sizes from files are multiplied with these. */
bool mem_mul(size_t a, size_t b, size_t *product);

/* Fault injection: the n-th allocation from now (1 = the next) returns NULL, once. 0 switches it off. Process-wide. */
void mem_fail_at(uint64_t n);
/* Did the injected failure happen since mem_fail_at? */
bool mem_failed(void);
/* Should this allocation fail? For allocations that do not go through mem_* (mmap, thread stacks). */
bool mem_inject(void);

/* ---- growing byte buffer. Zero-initialise; data is always zero-terminated once anything was added (NULL before).
 * On failure (memory, or more than `limit` bytes when limit > 0) it sets failed and keeps what it has. */
typedef struct buf {
    char *data;
    size_t size, capacity, limit;
    bool failed;
} buf;

bool buf_add(buf *b, const void *data, size_t n);
bool buf_adds(buf *b, const char *text);
bool buf_addc(buf *b, char c);
bool buf_addf(buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* UTF-8 encoding of a code point (U+FFFD for what is none). */
bool buf_add_utf8(buf *b, uint32_t code);
void buf_clear(buf *b);                 /* size = 0, failed = false, memory kept */
void buf_free(buf *b);
char *buf_take(buf *b);                 /* the caller owns the string ("" if nothing was added); NULL if failed */

/* ---- bump arena: many small allocations released together. Zero-initialise; block_size 0 means 64 KiB.
 * Memory is zeroed and aligned to 64 bytes. arena_mark / arena_release give back what came after the mark. */
typedef struct arena_block arena_block;
typedef struct arena {
    arena_block *first, *current;
    size_t block_size;
    size_t used;                        /* bytes handed out since the start or the last reset */
} arena;
typedef struct arena_mark { arena_block *block; size_t block_used, used; } arena_mark;

void *arena_alloc(arena *a, size_t bytes);        /* zeroed */
void *arena_alloc_raw(arena *a, size_t bytes);    /* not zeroed: for tensors that are written whole */
char *arena_strdup(arena *a, const char *text);
char *arena_printf(arena *a, const char *format, ...) __attribute__((format(printf, 2, 3)));
arena_mark arena_get_mark(const arena *a);
void arena_release(arena *a, arena_mark mark);    /* blocks are kept for reuse */
void arena_reset(arena *a);                       /* all of it, blocks kept */
void arena_free(arena *a);

#endif
