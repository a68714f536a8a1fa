/* pages_test.c - engine/pages.h, prefix.h and vision_cache.h by themselves: budget, order of eviction, windows, shared pages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#include "engine/prefix.h"

static const kv_shape shapes[2] = {
    {.kv_heads = 1, .head_dim = 4, .slots = 1, .type = DT_F32},
    {.kv_heads = 1, .head_dim = 8, .slots = 1, .window = 40, .type = DT_F32},
};
enum { SMALL = 1024, BIG = 2048, T = KV_PAGE_TOKENS };

static digest key_of(int i)
{
    digest d;
    hash_bytes(&i, sizeof i, &d);
    return d;
}

static page *publish(pages *p, int group, int i)
{
    digest key = key_of(i);
    page *pg = pages_take(p, group);
    return pg ? pages_publish(p, pg, &key) : NULL;
}

static page *look(const pages *p, int group, int i)
{
    digest key = key_of(i);
    return pages_find(p, group, &key);
}

static void budget(void **state)
{
    (void)state;
    pages p;
    assert_true(pages_init(&p, shapes, 2, 0, 3 * SMALL + BIG, true, NULL));
    assert_int_equal(p.bytes[0], SMALL);
    assert_int_equal(p.bytes[1], BIG);
    page *a = publish(&p, 0, 1), *b = publish(&p, 0, 2), *c = pages_take(&p, 0), *d = pages_take(&p, 1);
    assert_non_null(d);
    assert_null(pages_take(&p, 0));
    assert_false(p.no_memory);
    assert_int_equal(pages_room(&p), 0);
    pages_drop(&p, c);                            /* never published: gone at once */
    assert_int_equal(p.stats.used, 2 * SMALL + BIG);
    pages_drop(&p, b);                            /* published: cached, the older one first to go */
    pages_drop(&p, a);
    assert_int_equal(pages_room(&p), 3 * SMALL);
    assert_ptr_equal(look(&p, 0, 2), b);
    page *e = pages_take(&p, 1);                  /* a page of the other group: makes room by evicting b only */
    assert_non_null(e);
    assert_null(look(&p, 0, 2));
    assert_ptr_equal(look(&p, 0, 1), a);
    assert_null(pages_take(&p, 1));               /* a goes, and it is still not enough */
    assert_null(look(&p, 0, 1));
    pages_drop(&p, d);
    pages_drop(&p, e);
    assert_int_equal(p.stats.used, 0);
    pages_free(&p);
}

static void shared(void **state)
{
    (void)state;
    pages p;
    assert_true(pages_init(&p, shapes, 2, 0, 1 << 20, true, NULL));
    page *a = publish(&p, 0, 1), *again = publish(&p, 0, 1);
    assert_ptr_equal(a, again);
    assert_int_equal(a->refs, 2);
    assert_int_equal(p.stats.used, SMALL);
    pages_drop(&p, a);
    pages_drop(&p, a);
    assert_int_equal(p.stats.cached, SMALL);
    assert_ptr_equal(pages_use(&p, look(&p, 0, 1)), a);
    assert_int_equal(p.stats.cached, 0);
    pages_drop(&p, a);
    pages_forget(&p);
    assert_null(look(&p, 0, 1));
    for (int i = 0; i < 5000; i++) pages_drop(&p, publish(&p, 0, i));            /* the table grows */
    int found = 0;
    for (int i = 0; i < 5000; i++) found += look(&p, 0, i) != NULL;
    assert_int_equal(found, (1 << 20) / SMALL);
    pages_free(&p);
}

/* A released prefix is evicted from its end. */
static void tables(void **state)
{
    (void)state;
    pages p;
    page_table t = {0};
    assert_true(pages_init(&p, shapes, 2, 0, 40 * SMALL, true, NULL));
    for (int i = 0; i < 40; i++) assert_true(table_push(&t, publish(&p, 0, i)));
    table_trim(&t, &p, 2);
    assert_null(t.data[1]);
    assert_non_null(t.data[2]);
    table_clear(&t, &p);
    assert_int_equal(p.stats.cached, 40 * SMALL);
    page *one = pages_take(&p, 0), *two = pages_take(&p, 0), *three = pages_take(&p, 0);
    assert_null(look(&p, 0, 0));                  /* what was trimmed first, then from the end */
    assert_null(look(&p, 0, 1));
    assert_null(look(&p, 0, 39));
    assert_non_null(look(&p, 0, 2));
    assert_non_null(look(&p, 0, 38));
    pages_drop(&p, one);
    pages_drop(&p, two);
    pages_drop(&p, three);
    table_free(&t, &p);
    pages_free(&p);
    assert_int_equal(table_needed(&shapes[0], 1000), 0);
    assert_int_equal(table_needed(&shapes[1], 39), 0);
    assert_int_equal(table_needed(&shapes[1], 71), 1);            /* sees 32 ... 71 */
    assert_int_equal(table_needed(&shapes[1], 70), 0);
}

/* Full group: blocks 0-5. Sliding group: what the masks say. */
static int match(unsigned full, unsigned sliding, int n)
{
    pages p;
    prompt none = {0};
    digest keys[8];
    page *held[16];
    int n_held = 0;
    assert_true(pages_init(&p, shapes, 2, 0, 1 << 20, true, NULL));
    for (int i = 0; i < 8; i++) {
        keys[i] = key_of(i);
        if (full >> i & 1) held[n_held++] = publish(&p, 0, i);
        if (sliding >> i & 1) held[n_held++] = publish(&p, 1, i);
    }
    int b = prefix_match(&p, &none, keys, n);
    for (int i = 0; i < n_held; i++) pages_drop(&p, held[i]);
    pages_free(&p);
    return b;
}

static void prefixes(void **state)
{
    (void)state;
    assert_int_equal(match(0x3f, 0x3f, 8), 6);
    assert_int_equal(match(0x3f, 0x3f, 4), 4);
    assert_int_equal(match(0x3f, 0x30, 8), 6);                    /* at 192 the window begins at 153: block 4 and 5 */
    assert_int_equal(match(0x3f, 0x20, 8), 0);
    assert_int_equal(match(0x3f, 0x2c, 8), 4);                    /* 5 is there, 4 is not: 128 needs 2 and 3 */
    assert_int_equal(match(0x3f, 0x01, 8), 1);
    assert_int_equal(match(0x1b, 0x3f, 8), 2);                    /* the full group ends at its first gap */
    assert_int_equal(match(0x3e, 0x3f, 8), 0);
    assert_int_equal(match(0, 0, 8), 0);
}

static const digest none;

static void keys(void **state)
{
    (void)state;
    digest salt = key_of(100), identity = key_of(200), a, b, root;
    assert_true(prefix_root(&salt, &identity, &none, "ab", &a) && prefix_root(&salt, &identity, &none, "a", &b));
    assert_false(digest_equal(&a, &b));
    assert_true(prefix_root(&salt, &salt, &none, "ab", &b));
    assert_false(digest_equal(&a, &b));
    root = a;
    int32_t tokens[2 * T] = {0};
    prompt p = {0};
    assert_true(prefix_key(&p, tokens, 0, &root, &a) && prefix_key(&p, tokens, 1, &root, &b));
    assert_true(digest_equal(&a, &b));                            /* same tokens, same parent */
    assert_true(prefix_key(&p, tokens, 1, &a, &b));
    assert_false(digest_equal(&a, &b));
    media_input in = {.tokens = 4, .key = key_of(1)}, *list[1] = {&in};
    media_span span = {.first = 3, .count = 4};
    p = (prompt){.media = list, .n_media = 1, .spans = &span, .n_spans = 1};
    assert_true(prefix_key(&p, tokens, 0, &root, &b));
    assert_false(digest_equal(&a, &b));
    span.first = 4;                                               /* other rows under the same tokens */
    assert_true(prefix_key(&p, tokens, 0, &root, &a));
    assert_false(digest_equal(&a, &b));
    span.first = T;                                               /* not in this block */
    assert_true(prefix_key(&p, tokens, 0, &root, &a) && prefix_key(&(prompt){0}, tokens, 0, &root, &b));
    assert_true(digest_equal(&a, &b));
}

/* ---- vision cache ---- */

static media_input *medium(int i)
{
    media_input *in = MEM_NEW(media_input);
    in->tokens = 10;
    in->key = key_of(i);
    int64_t dim[1] = {100000};
    assert_non_null(media_input_add(in, "pixels", DT_F32, 1, dim));
    dim[0] = 3;
    assert_non_null(media_input_add(in, "grid", DT_I64, 1, dim));
    return in;
}

static vision_entry *encode(vision_cache *c, int i)
{
    media_input *in = medium(i);
    vision_entry *e = vision_claim(c, in, &none, NULL);
    assert_int_equal(vision_get_state(e), VISION_NEW);
    vision_begin(e, in);
    assert_true(vision_wanted(e));
    vision_ready(e, (media_rows){.count = 10, .cols = 100, .levels = 1, .data = mem_aligned(4000)});
    media_input_free(in);
    return e;
}

static void vision(void **state)
{
    (void)state;
    digest zero = key_of(0), found;
    vision_cache *c = vision_cache_new(10000, &zero, &zero, NULL);
    vision_release(encode(c, 1));
    vision_release(encode(c, 2));
    found = key_of(1);
    vision_entry *e;
    media_input *in = vision_find(c, &found, &none, NULL, &e);           /* now the newer one */
    assert_non_null(in);
    assert_int_equal(vision_rows(e)->count, 10);
    assert_null(media_input_find(in, "pixels")->data);            /* pixels are not kept, small tensors are */
    assert_non_null(media_input_find(in, "grid")->data);
    media_input_free(in);
    vision_release(e);
    vision_entry *third = encode(c, 3);                           /* over the budget: 2 goes */
    found = key_of(2);
    assert_null(vision_find(c, &found, &none, NULL, &e));
    found = key_of(3);
    assert_null(vision_find(c, &found, &none, "tenant", &e));
    found = key_of(1);
    assert_non_null(in = vision_find(c, &found, &none, NULL, &e));
    media_input_free(in);
    vision_release(third);
    vision_release(e);
    vision_stats stats = vision_get_stats(c);
    assert_int_equal(stats.evictions, 1);
    assert_int_equal(stats.entries, 2);
    vision_drop_unused(c);
    assert_int_equal(vision_get_stats(c).bytes, 0);
    vision_cache_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(budget), cmocka_unit_test(shared), cmocka_unit_test(tables), cmocka_unit_test(prefixes), cmocka_unit_test(keys),
        cmocka_unit_test(vision),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
