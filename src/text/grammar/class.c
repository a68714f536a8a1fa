/* class.c - sets of code points as expressions over UTF-8 bytes.
 *
 * A range of code points splits into sequences of byte ranges of one length each ([C3][80-BF], [C4-DF][80-BF] ...). Sequences come in
 * order, so those with one first byte lie together; first bytes with the same continuation share one set. */
#include <string.h>
#include <utf8proc.h>

#include "text/grammar/internal.h"

typedef struct sequence { uint8_t size, first[4], last[4]; } sequence;
typedef struct sequences { sequence *item; size_t count, capacity; bool failed; } sequences;

static int encode(uint32_t c, uint8_t out[4])
{
    if (c < 0x80) return out[0] = (uint8_t)c, 1;
    if (c < 0x800) return out[0] = (uint8_t)(0xC0 | c >> 6), out[1] = 0x80 | (c & 0x3F), 2;
    if (c < 0x10000) return out[0] = (uint8_t)(0xE0 | c >> 12), out[1] = 0x80 | (c >> 6 & 0x3F), out[2] = 0x80 | (c & 0x3F), 3;
    return out[0] = (uint8_t)(0xF0 | c >> 18), out[1] = 0x80 | (c >> 12 & 0x3F), out[2] = 0x80 | (c >> 6 & 0x3F), out[3] = 0x80 | (c & 0x3F), 4;
}

/* Adds [first, last], whose encodings have the same length. */
static void split(sequences *s, uint32_t first, uint32_t last)
{
    /* Cut until only a common beginning is followed by full ranges. */
    for (int i = 1; i < 4; i++) {
        const uint32_t m = (1u << 6 * i) - 1;
        if ((first & ~m) == (last & ~m)) continue;
        if (first & m) {
            split(s, first, first | m);
            split(s, (first | m) + 1, last);
            return;
        }
        if ((last & m) != m) {
            split(s, first, (last & ~m) - 1);
            split(s, last & ~m, last);
            return;
        }
    }
    if (s->count == s->capacity) {
        const size_t n = s->capacity ? 2 * s->capacity : 32;
        sequence *item = mem_resize(s->item, n, sizeof *item);
        if (!item) {
            s->failed = true;
            return;
        }
        s->item = item;
        s->capacity = n;
    }
    sequence *q = &s->item[s->count++];
    q->size = (uint8_t)encode(first, q->first);
    encode(last, q->last);
}

/* The sequences [from, to), all of one length, from their byte `at` on. */
static uint32_t build(gpool *p, const sequence *q, size_t from, size_t to, int at)
{
    const size_t mark = p->stack_count;
    const int left = q[from].size - at;
    /* Pairs (set, continuation) lie on the pool's stack as: index of the set in `sets`, expr. Few: one pair for each distinct continuation. */
    typedef struct { gset set; uint32_t then; } branch;
    branch *b = NULL;
    size_t n = 0, capacity = 0;
    for (size_t i = from; i < to && !p->failed;) {
        size_t end = i + 1;
        while (end < to && q[end].first[at] == q[i].first[at]) end++;
        const uint32_t then = left == 1 || at >= 3 ? GE_EMPTY : build(p, q, i, end, at + 1);
        size_t k = 0;
        while (k < n && b[k].then != then) k++;
        if (k == n) {
            if (n == capacity) {
                branch *more = mem_resize(b, capacity ? 2 * capacity : 8, sizeof *b);
                if (!more) {
                    gpool_fail(p, NULL);
                    break;
                }
                b = more;
                capacity = capacity ? 2 * capacity : 8;
            }
            b[n++] = (branch){.then = then};
        }
        for (size_t j = i; j < end; j++) for (unsigned c = q[j].first[at]; c <= q[j].last[at]; c++) gset_add(&b[k].set, c);
        i = end;
    }
    for (size_t k = 0; k < n && !p->failed; k++) gpool_push(p, gx_seq(p, gx_set(p, &b[k].set), b[k].then));
    mem_free(b);
    return gx_alt(p, mark);
}

static int by_first(const void *a, const void *b)
{
    const uint32_t x = ((const grammar_range *)a)->first, y = ((const grammar_range *)b)->first;
    return (x > y) - (x < y);
}

static void add_range(sequences *s, uint32_t first, uint32_t last)
{
    static const uint32_t part[][2] = {{0, 0x7F}, {0x80, 0x7FF}, {0x800, 0xD7FF}, {0xE000, 0xFFFF}, {0x10000, 0x10FFFF}};
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
        const uint32_t a = first > part[i][0] ? first : part[i][0], z = last < part[i][1] ? last : part[i][1];
        if (a <= z) split(s, a, z);
    }
}

uint32_t gx_class(gpool *p, const grammar_range *range, size_t count, bool negated)
{
    if (p->failed) return GE_FAILED;
    grammar_range *sorted = MEM_ARRAY(count + 1, grammar_range);
    if (!sorted) return gpool_fail(p, NULL);
    if (count) memcpy(sorted, range, count * sizeof *range);
    qsort(sorted, count, sizeof *sorted, by_first);
    sequences s = {0};
    uint32_t next = 0;             /* smallest code point not yet seen */
    for (size_t i = 0; i < count; i++) {
        uint32_t first = sorted[i].first, last = sorted[i].last;
        if (first > last || first > 0x10FFFF) continue;
        if (last > 0x10FFFF) last = 0x10FFFF;
        if (negated) {
            if (first > next) add_range(&s, next, first - 1);
        } else if (last >= next) add_range(&s, first > next ? first : next, last);
        if (last >= next) next = last + 1;
    }
    if (negated && next <= 0x10FFFF) add_range(&s, next, 0x10FFFF);
    mem_free(sorted);
    if (s.failed) gpool_fail(p, NULL);
    const size_t mark = p->stack_count;
    for (size_t i = 0; i < s.count && !p->failed;) {
        size_t end = i + 1;
        while (end < s.count && s.item[end].size == s.item[i].size) end++;
        gpool_push(p, build(p, s.item, i, end, 0));
        i = end;
    }
    mem_free(s.item);
    const uint32_t x = gx_alt(p, mark);
    if (x) p->node[x].flags |= GF_TEXT;
    return x;
}

bool grammar_category_ranges(uint32_t mask, grammar_range **out, size_t *count)
{
    size_t n = 0, capacity = 0;
    grammar_range *list = NULL;
    for (uint32_t c = 0; c <= 0x10FFFF; c++) {
        if (!(mask >> utf8proc_category((utf8proc_int32_t)c) & 1)) continue;
        if (n && list[n - 1].last + 1 == c) {
            list[n - 1].last = c;
            continue;
        }
        if (n == capacity) {
            grammar_range *more = mem_resize(list, capacity ? 2 * capacity : 64, sizeof *list);
            if (!more) {
                mem_free(list);
                return false;
            }
            list = more;
            capacity = capacity ? 2 * capacity : 64;
        }
        list[n++] = (grammar_range){c, c};
    }
    *out = list;
    *count = n;
    return true;
}
