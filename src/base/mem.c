/* mem.c - see mem.h. */
#define _DEFAULT_SOURCE                           /* madvise */
#include "base/mem.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>

enum { HUGE_PAGE = 2 << 20 };

static _Atomic uint64_t fail_countdown;           /* 0: off; the only state here, and it is for tests */
static atomic_bool fail_happened;

void mem_fail_at(uint64_t n)
{
    atomic_store(&fail_happened, false);
    atomic_store(&fail_countdown, n);
}

bool mem_failed(void) { return atomic_load(&fail_happened); }

bool mem_inject(void)
{
    if (atomic_load_explicit(&fail_countdown, memory_order_relaxed) == 0) return false;
    uint64_t left = atomic_load(&fail_countdown);
    while (left && !atomic_compare_exchange_weak(&fail_countdown, &left, left - 1)) { }
    if (left != 1) return false;
    atomic_store(&fail_happened, true);
    return true;
}

size_t mem_physical(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    return pages > 0 && size > 0 ? (size_t)pages * (size_t)size : SIZE_MAX;
}

bool mem_mul(size_t a, size_t b, size_t *product) { return !__builtin_mul_overflow(a, b, product); }

void *mem_new(size_t n, size_t size)
{
    if (mem_inject()) return NULL;
    return calloc(n ? n : 1, size ? size : 1);
}

void *mem_aligned(size_t bytes)
{
    if (mem_inject() || bytes > SIZE_MAX - 64) return NULL;
    size_t rounded = (bytes + 63) & ~(size_t)63;
#ifdef MADV_HUGEPAGE
    if (bytes >= 2 * (size_t)HUGE_PAGE) {          /* one page fault for 2 MiB instead of 512, and few TLB entries */
        void *memory;                              /* not aligned_alloc: that wants a size in whole pages */
        if (posix_memalign(&memory, HUGE_PAGE, rounded) != 0) return NULL;
        madvise(memory, rounded & ~(size_t)(HUGE_PAGE - 1), MADV_HUGEPAGE);
        return memory;
    }
#endif
    return aligned_alloc(64, rounded ? rounded : 64);
}

void *mem_resize(void *memory, size_t n, size_t size)
{
    size_t bytes;
    if (mem_inject() || !mem_mul(n, size, &bytes)) return NULL;
    return realloc(memory, bytes ? bytes : 1);
}

void mem_free(void *memory) { free(memory); }

char *mem_strndup(const char *text, size_t n)
{
    if (n == SIZE_MAX) return NULL;
    char *copy = mem_new(n + 1, 1);
    if (copy && n) memcpy(copy, text, n);
    return copy;
}

char *mem_strdup(const char *text) { return mem_strndup(text, strlen(text)); }

char *mem_printf(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = n < 0 ? NULL : mem_new((size_t)n + 1, 1);
    if (text) vsnprintf(text, (size_t)n + 1, format, again);
    va_end(again);
    return text;
}

/* ---- buf ---- */

static bool buf_room(buf *b, size_t n)
{
    if (b->failed) return false;
    if (n > SIZE_MAX / 2 - b->size - 1 || (b->limit && b->size + n > b->limit)) return b->failed = true, false;
    size_t need = b->size + n + 1;
    if (need <= b->capacity) return true;
    size_t capacity = b->capacity ? b->capacity : 64;
    while (capacity < need) capacity *= 2;
    char *data = mem_resize(b->data, capacity, 1);
    if (!data) return b->failed = true, false;
    b->data = data;
    b->capacity = capacity;
    return true;
}

bool buf_add(buf *b, const void *data, size_t n)
{
    if (!buf_room(b, n)) return false;
    if (n) memcpy(b->data + b->size, data, n);
    b->size += n;
    b->data[b->size] = 0;
    return true;
}

bool buf_adds(buf *b, const char *text) { return buf_add(b, text, strlen(text)); }
bool buf_addc(buf *b, char c) { return buf_add(b, &c, 1); }

bool buf_addf(buf *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    bool ok = n >= 0 && buf_room(b, (size_t)n);
    if (ok) {
        vsnprintf(b->data + b->size, (size_t)n + 1, format, again);
        b->size += (size_t)n;
    }
    va_end(again);
    return ok;
}

bool buf_add_utf8(buf *b, uint32_t code)
{
    char out[4];
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) code = 0xFFFD;
    if (code < 0x80) return buf_addc(b, (char)code);
    if (code < 0x800) {
        out[0] = (char)(0xC0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3F));
        return buf_add(b, out, 2);
    }
    if (code < 0x10000) {
        out[0] = (char)(0xE0 | code >> 12);
        out[1] = (char)(0x80 | (code >> 6 & 0x3F));
        out[2] = (char)(0x80 | (code & 0x3F));
        return buf_add(b, out, 3);
    }
    out[0] = (char)(0xF0 | code >> 18);
    out[1] = (char)(0x80 | (code >> 12 & 0x3F));
    out[2] = (char)(0x80 | (code >> 6 & 0x3F));
    out[3] = (char)(0x80 | (code & 0x3F));
    return buf_add(b, out, 4);
}

void buf_clear(buf *b)
{
    b->size = 0;
    b->failed = false;
    if (b->data) b->data[0] = 0;
}

void buf_free(buf *b)
{
    mem_free(b->data);
    size_t limit = b->limit;
    *b = (buf){.limit = limit};
}

char *buf_take(buf *b)
{
    char *text = NULL;
    if (!b->failed && (b->data || buf_add(b, "", 0))) {
        text = b->data;
        b->data = NULL;
    }
    buf_free(b);
    return text;
}

/* ---- arena ---- */

struct arena_block {
    arena_block *next;
    size_t size, used;
    char *data;                                   /* follows the header in the same allocation, aligned */
};

enum { ARENA_ALIGN = 64 };

static arena_block *block_new(size_t size)
{
    if (size > SIZE_MAX - 2 * ARENA_ALIGN) return NULL;
    _Static_assert(sizeof(arena_block) <= ARENA_ALIGN, "header fits one line");
    arena_block *block = mem_aligned(size + ARENA_ALIGN);
    if (block) *block = (arena_block){.size = size, .data = (char *)block + ARENA_ALIGN};
    return block;
}

/* The current block if the bytes fit, else the next one that is large enough, else a new one put in after current. */
static arena_block *block_for(arena *a, size_t bytes)
{
    arena_block *current = a->current;
    if (current && current->size - current->used >= bytes) return current;
    for (arena_block *next = current ? current->next : a->first; next; next = next->next) {
        next->used = 0;
        a->current = next;
        if (next->size >= bytes) return next;
    }
    size_t size = a->block_size ? a->block_size : 64 << 10;
    arena_block *block = block_new(bytes > size ? bytes : size);
    if (!block) return NULL;
    arena_block *last = a->current;
    if (last) { block->next = last->next; last->next = block; }
    else { block->next = a->first; a->first = block; }
    return a->current = block;
}

void *arena_alloc_raw(arena *a, size_t bytes)
{
    if (bytes > SIZE_MAX - ARENA_ALIGN) return NULL;
    size_t rounded = (bytes + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
    arena_block *block = block_for(a, rounded);
    if (!block) return NULL;
    void *memory = block->data + block->used;
    block->used += rounded;
    a->used += rounded;
    return memory;
}

void *arena_alloc(arena *a, size_t bytes)
{
    void *memory = arena_alloc_raw(a, bytes);
    return memory ? memset(memory, 0, bytes) : NULL;
}

char *arena_strdup(arena *a, const char *text)
{
    size_t n = strlen(text) + 1;
    char *copy = arena_alloc_raw(a, n);
    return copy ? memcpy(copy, text, n) : NULL;
}

char *arena_printf(arena *a, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = n < 0 ? NULL : arena_alloc_raw(a, (size_t)n + 1);
    if (text) vsnprintf(text, (size_t)n + 1, format, again);
    va_end(again);
    return text;
}

arena_mark arena_get_mark(const arena *a)
{
    return (arena_mark){a->current, a->current ? a->current->used : 0, a->used};
}

void arena_release(arena *a, arena_mark mark)
{
    a->current = mark.block;
    if (mark.block) mark.block->used = mark.block_used;
    else if (a->first) { a->current = a->first; a->first->used = 0; }
    a->used = mark.used;
}

void arena_reset(arena *a) { arena_release(a, (arena_mark){0}); }

void arena_free(arena *a)
{
    for (arena_block *block = a->first, *next; block; block = next) {
        next = block->next;
        mem_free(block);
    }
    size_t block_size = a->block_size;
    *a = (arena){.block_size = block_size};
}
