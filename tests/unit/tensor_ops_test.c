/* tensor_ops_test.c - the calls of ops.h around the operations: checked shapes and indices, sticky errors, memory that runs out, opening
 * a device. What operations compute is checked by tests/ops. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tensor/ops.h"

static arena scratch;
static device dev;

static int open_device(void **state)
{
    return device_open_cpu(&dev, 2, PRECISION_EXACT, NULL, NULL) ? 0 : 1;
}

static int close_device(void **state)
{
    device_close(&dev);
    arena_free(&scratch);
    return 0;
}

static run fresh(void)
{
    arena_reset(&scratch);
    return (run){.dev = &dev, .scratch = &scratch};
}

static void assert_says(const run *r, const char *part)
{
    assert_false(run_ok(r));
    if (!strstr(r->error.message, part)) fail_msg("'%s' is not in: %s", part, r->error.message);
}

static void wrong_shapes_are_told(void **state)
{
    float values[64] = {0};
    weight w = {.format = WF_F32, .rows = 3, .cols = 5, .data = values, .name = "layers.0.up"};
    run r = fresh();
    tensor x = run_zeros(&r, 2, 4);
    assert_null(op_linear(&r, x, &w, NULL).data);
    assert_says(&r, "x is [2, 4], layers.0.up is [3, 5]");

    r = fresh();
    op_add_inplace(&r, run_zeros(&r, 2, 4), run_zeros(&r, 2, 3));
    assert_says(&r, "[2, 4] and [2, 3]");

    r = fresh();
    op_rmsnorm_heads(&r, run_zeros(&r, 2, 10), NULL, 0, 1e-6f, 4);
    assert_says(&r, "10 columns are no heads of 4");

    r = fresh();
    op_rope(&r, run_zeros(&r, 2, 8), 2, 4, 1, 6, false, run_zeros(&r, 2, 3), run_zeros(&r, 2, 3));
    assert_says(&r, "1 blocks of 6");

    int height, width;
    r = fresh();
    op_conv2d(&r, run_zeros(&r, 12, 1), 3, 4, &w, NULL, 2, 2, 1, 0, &height, &width);
    assert_says(&r, "conv2d: image of 3 x 4");

    const int32_t starts[] = {0, 3, 5};
    attention_spec spec = {.heads = 2, .kv_heads = 2, .head_dim = 4, .scale = 1};
    r = fresh();
    tensor q = run_zeros(&r, 6, 8);
    op_attention_segments(&r, q, q, q, starts, 2, &spec);
    assert_says(&r, "2 segments do not cover 6 rows");
}

static void wrong_indices_are_told(void **state)
{
    float values[15] = {0};
    weight w = {.format = WF_F32, .rows = 3, .cols = 5, .data = values};
    const int32_t ids[] = {0, 2, 3}, negative[] = {-1};
    run r = fresh();
    op_embed(&r, &w, ids, 3, 1);
    assert_says(&r, "index 3 at 2, there are 3 rows");
    r = fresh();
    op_embed(&r, &w, negative, 1, 1);
    assert_says(&r, "index -1");
    r = fresh();
    op_gather(&r, run_zeros(&r, 3, 2), ids, 3);
    assert_says(&r, "gather: index 3");
    r = fresh();
    tensor kept = op_gather(&r, run_zeros(&r, 3, 2), negative, 1);         /* below zero: a row of zeros */
    assert_true(run_ok(&r));
    assert_float_equal(tensor_row(kept, 0)[1], 0, 0);
}

/* After a failure nothing runs and the first message stays. */
static void errors_stick(void **state)
{
    run r = fresh();
    tensor x = run_zeros(&r, 2, 4);
    run_fail(&r, VLM_FORMAT, "first");
    op_add_inplace(&r, x, x);
    op_softcap(&r, x, 30);
    tensor y = op_rmsnorm(&r, x, NULL, 0, 1e-6f);
    assert_null(op_glu(&r, y, y, ACT_SILU).data);
    op_scale(&r, y, 2, NULL);
    op_linear(&r, y, &(weight){.rows = 1, .cols = 9}, NULL);
    assert_string_equal(r.error.message, "first");
    assert_int_equal(r.error.code, VLM_FORMAT);
}

/* A small attention step; false after any failure. */
static bool attend(run *r)
{
    enum { TOKENS = 3, HEADS = 2, D = 8 };
    static const int32_t first[] = {0, TOKENS}, position[] = {0, 1, 2}, seq[] = {0, 0, 0}, starts[] = {0, TOKENS};
    kv_shape shape = {.kv_heads = 1, .head_dim = D, .slots = 1, .type = DT_BF16};
    void *page = run_alloc(r, kv_page_bytes(&shape)), **table = run_alloc(r, sizeof *table), ***tables = run_alloc(r, sizeof *tables);
    if (!run_ok(r)) return false;
    table[0] = page, tables[0] = table;
    ragged batch = {.n_tokens = TOKENS, .n_runs = 1, .run_first = first, .run_position = position, .token_run = seq, .token_position = position,
                    .n_groups = 1, .group = {shape}, .pages = {(void *const *const *)tables}};
    attention_spec spec = {.heads = HEADS, .kv_heads = 1, .head_dim = D, .scale = 1};
    tensor q = run_zeros(r, TOKENS, HEADS * D), kv = run_zeros(r, TOKENS, D);
    op_kv_write(r, &batch, 0, 0, kv, kv);
    tensor out = op_attention(r, q, &batch, &spec);
    tensor y = op_attention_segments(r, out, kv, kv, starts, 1, &spec);
    op_attention_relative(r, y, kv, kv, run_zeros(r, 4, HEADS * D), 2, 1, &spec);
    return run_ok(r);
}

static void memory_may_run_out(void **state)
{
    for (int n = 1;; n++) {
        arena_free(&scratch);                      /* so that each block is allocated anew */
        scratch.block_size = 64;
        run r = {.dev = &dev, .scratch = &scratch};
        mem_fail_at((uint64_t)n);
        bool done = attend(&r);
        bool injected = mem_failed();
        mem_fail_at(0);
        assert_int_equal(done, !injected);
        if (!injected) break;
        assert_int_equal(r.error.code, VLM_MEMORY);
    }
    scratch.block_size = 0;
}

/* Nothing to do is no error. */
static void no_rows_are_fine(void **state)
{
    static const int32_t starts[] = {0, 0};
    float values[16] = {0};
    weight w = {.format = WF_F32, .rows = 3, .cols = 4, .data = values};
    attention_spec spec = {.heads = 1, .kv_heads = 1, .head_dim = 4, .scale = 1};
    run r = fresh();
    tensor x = run_zeros(&r, 0, 4);
    op_linear(&r, x, &w, NULL);
    op_embed(&r, &w, starts, 0, 1);
    op_rmsnorm(&r, x, NULL, 0, 1e-6f);
    op_layernorm(&r, x, NULL, NULL, 1e-6f);
    op_glu(&r, x, x, ACT_GELU);
    op_softcap(&r, x, 30);
    op_gather(&r, x, starts, 0);
    op_scatter_add(&r, run_zeros(&r, 2, 4), x, starts, 1);
    op_attention_segments(&r, x, x, x, starts, 1, &spec);
    op_attention_segments(&r, x, x, x, starts, 0, &spec);
    op_attention_relative(&r, x, x, x, run_zeros(&r, 3, 4), 1, 1, &spec);
    op_conv1d_depthwise(&r, x, values, 3, 1);
    kv_shape shape = {.kv_heads = 1, .head_dim = 4, .slots = 1, .type = DT_F32};
    ragged batch = {.run_first = starts, .n_groups = 1, .group = {shape}};
    op_kv_write(&r, &batch, 0, 0, x, x);
    op_attention(&r, x, &batch, &spec);
    if (!run_ok(&r)) fail_msg("%s", r.error.message);
}

static void opening_a_device(void **state)
{
    device other;
    vlm_error error = {0};
    assert_false(device_open_cpu(&other, 1, PRECISION_EXACT, "z80", &error));
    assert_int_equal(error.code, VLM_INVALID);
    assert_non_null(strstr(error.message, "z80"));
    assert_true(device_open_cpu(&other, 1, PRECISION_EXACT, "ref", NULL));
    assert_ptr_equal(other.ops, &ops_ref);
    device_close(&other);
    assert_true(device_open_cpu(&other, 1, PRECISION_EXACT, "c", NULL));
    assert_string_equal(other.isa, "c");
    device_close(&other);
    device_close(&other);                          /* twice is allowed */
    for (int n = 1;; n++) {
        mem_fail_at((uint64_t)n);
        bool opened = device_open_cpu(&other, 2, PRECISION_EXACT, NULL, &error);
        mem_fail_at(0);
        if (opened) break;
    }
    device_close(&other);
}

static void pages_hold_all_slots(void **state)
{
    kv_shape shape = {.kv_heads = 3, .head_dim = 20, .slots = 2, .type = DT_BF16};
    assert_true(kv_page_bytes(&shape) >= (size_t)2 * 2 * KV_PAGE_TOKENS * 3 * 20 * 2);
    assert_int_equal(kv_page_bytes(&shape) % 64, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_shapes_are_told), cmocka_unit_test(wrong_indices_are_told), cmocka_unit_test(errors_stick),
        cmocka_unit_test(memory_may_run_out), cmocka_unit_test(no_rows_are_fine), cmocka_unit_test(opening_a_device), cmocka_unit_test(pages_hold_all_slots),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
