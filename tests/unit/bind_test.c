/* bind_test.c - weights/bind.h: shapes, formats, prefixes, layouts, messages, made-up weights. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "weights/bind.h"

/* ---- a checkpoint written by hand: bytes of tensor i are its own counting floats, halves or zeros ---- */

typedef struct maker { buf header, data; } maker;

static void add(maker *m, const char *name, const char *type, const char *shape, const void *data, size_t bytes)
{
    buf_addf(&m->header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}", m->header.size ? "," : "", name, type, shape,
             m->data.size, m->data.size + bytes);
    buf_add(&m->data, data, bytes);
}

static checkpoint *finish(maker *m, const char *format)
{
    char path[] = "/tmp/vlm-bind-XXXXXX";
    buf file = {0}, header = {0};
    vlm_error error = {0};
    assert_true(mkstemp(path) >= 0);
    buf_addf(&header, "{\"__metadata__\":{\"format\":\"%s\"},%s}", format, m->header.data);
    while (header.size % 8 != 7) buf_addc(&header, ' ');          /* data starts at an odd address */
    uint64_t n = header.size;
    buf_add(&file, &n, 8);
    buf_add(&file, header.data, header.size);
    buf_add(&file, m->data.data, m->data.size);
    assert_true(file_write(path, file.data, file.size, NULL));
    checkpoint *c = checkpoint_open_file(path, &error);
    if (!c) print_error("%s\n", error.message);
    assert_non_null(c);
    remove(path);
    buf_free(&file);
    buf_free(&header);
    buf_free(&m->header);
    buf_free(&m->data);
    return c;
}

static config *parse(const char *text)
{
    json_t *json = json_text_parse(text, strlen(text), "test", NULL);
    assert_non_null(json);
    return config_from_json(json, "config.json", NULL);
}

typedef struct bench { checkpoint *files; config *cfg; arena memory; binder b; } bench;

static void start(bench *t, maker *m, const char *format, const char *cfg)
{
    *t = (bench){.files = m ? finish(m, format) : NULL, .cfg = parse(cfg)};
    assert_true(bind_start(&t->b, t->files, t->cfg, NULL, &t->memory, m ? NULL : format, NULL));
}

static void stop(bench *t)
{
    bind_release(&t->b);
    checkpoint_close(t->files);
    config_free(t->cfg);
    arena_free(&t->memory);
}

static const float ramp[96] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23};
static const uint16_t ones[256] = {0x3f80, 0x3f80, 0x3f80, 0x3f80, 0x3f80, 0x3f80};

static void binds_plain_weights(void **state)
{
    (void)state;
    maker m = {0};
    bench t;
    add(&m, "model.layers.0.q.weight", "F32", "[2,3]", ramp, 24);
    add(&m, "model.norm.weight", "BF16", "[6]", ones, 12);
    add(&m, "model.pointwise.weight", "F32", "[2,3,1,1]", ramp, 24);
    add(&m, "model.table", "BF16", "[2,3]", ones, 12);
    add(&m, "model.unused", "BF16", "[2,3]", ones, 12);
    start(&t, &m, "pt", "{}");
    weight w, p, table, none;
    const float *norm, *absent;
    bind_prefix(&t.b, "language_model.", "model.", NULL);
    bind_linear(&t.b, &w, 2, 3, "layers.%d.q", 0);
    bind_linear(&t.b, &p, 2, 3, "pointwise");
    bind_linear(&t.b, &table, 2, 3, "table");
    bind_vector(&t.b, &norm, 6, "norm.weight");
    assert_false(bind_linear_optional(&t.b, &none, 2, 3, "layers.0.k"));
    assert_false(bind_vector_optional(&t.b, &absent, 2, "layers.0.q.bias"));
    assert_true(bind_exists(&t.b, "unused"));
    assert_false(bind_exists(&t.b, "norm.bias"));
    assert_false(t.b.failed);
    float row[3];
    weight_row_f32(&w, 1, row);
    assert_true(row[0] == 3 && row[2] == 5 && norm[5] == 1 && !none.data && !absent);
    assert_int_equal((uintptr_t)w.data % 4, 0);
    assert_int_equal(t.b.parameters, 24);
    size_t unused = 0;
    for (size_t i = 0; i < checkpoint_count(t.files); i++) unused += !t.b.used[i];
    assert_int_equal(unused, 1);
    stop(&t);
}

static void expect_failure(bench *t, vlm_status code, const char *part)
{
    if (!t->b.failed || !strstr(t->b.error.message, part)) print_error("%s\n", t->b.error.message);
    assert_true(t->b.failed);
    assert_int_equal(t->b.error.code, code);
    assert_non_null(strstr(t->b.error.message, part));
    t->b.failed = false;
}

static void complains_about_shapes(void **state)
{
    (void)state;
    maker m = {0};
    bench t;
    add(&m, "model.layers.0.mlp.up_proj.weight", "BF16", "[4,6]", ones, 48);
    add(&m, "model.ids", "I64", "[3]", ramp, 24);
    add(&m, "model.mystery.weight", "U32", "[2,3]", ramp, 24);
    start(&t, &m, "pt", "{\"text_config\":{\"intermediate_size\":8,\"hidden_size\":6}}");
    bind_prefix(&t.b, "language_model.", "model.", NULL);
    weight w;
    const float *v;
    bind_linear(&t.b, &w, 8, 6, "layers.0.mlp.up_proj");
    assert_null(w.data);
    expect_failure(&t, VLM_FORMAT, "model.layers.0.mlp.up_proj.weight has shape [4, 6], [8, 6] was expected (config.json: intermediate_size x hidden_size)");
    bind_linear(&t.b, &w, 8, 6, "layers.1.mlp.up_proj");
    expect_failure(&t, VLM_FORMAT, "no tensor language_model.layers.1.mlp.up_proj.weight or model.layers.1.mlp.up_proj.weight");
    bind_linear(&t.b, &w, 2, 3, "mystery");
    expect_failure(&t, VLM_UNSUPPORTED, "type U32");
    bind_vector(&t.b, &v, 3, "ids");
    expect_failure(&t, VLM_UNSUPPORTED, "type I64");
    bind_vector(&t.b, &v, 23, "layers.0.mlp.up_proj.weight");
    expect_failure(&t, VLM_FORMAT, "[23] was expected");
    bind_linear(&t.b, &w, 0, 3, "mystery");
    expect_failure(&t, VLM_FORMAT, "no shape of a matrix");
    bind_experts(&t.b, &w, 2, 4, 6, "layers.0.mlp.up_proj");
    expect_failure(&t, VLM_FORMAT, "[2, 4, 6] was expected");
    stop(&t);
}

static void binds_affine_weights(void **state)
{
    (void)state;
    maker m = {0};
    bench t;
    uint32_t codes[64] = {0x76543210, 0, 0, 0, 0xfedcba98};
    add(&m, "a.weight", "U32", "[2,4]", codes, 32);                   /* 2 x 32 in 4 bits */
    add(&m, "a.scales", "BF16", "[2,1]", ones, 4);
    add(&m, "a.biases", "BF16", "[2,1]", ones, 4);
    add(&m, "b.weight", "U32", "[2,6]", codes, 48);                   /* 2 x 32 in 6 bits: its own entry */
    add(&m, "b.scales", "F32", "[2,1]", ramp, 8);
    add(&m, "b.biases", "F32", "[2,1]", ramp, 8);
    add(&m, "e.weight", "U32", "[3,2,4]", codes, 96);                 /* three experts */
    add(&m, "e.scales", "BF16", "[3,2,1]", ones, 12);
    add(&m, "e.biases", "BF16", "[3,2,1]", ones, 12);
    add(&m, "c.weight", "U32", "[2,4]", codes, 32);                   /* no biases */
    add(&m, "c.scales", "BF16", "[2,1]", ones, 4);
    add(&m, "d.weight", "U32", "[2,4]", codes, 32);                   /* not affine */
    add(&m, "d.scales", "U8", "[2,1]", ones, 2);
    start(&t, &m, "mlx", "{\"quantization\":{\"group_size\":32,\"bits\":4,\"b\":{\"group_size\":32,\"bits\":6},\"d\":{\"group_size\":32,\"bits\":4,\"mode\":\"mxfp4\"}}}");
    weight a, b, c, d, e;
    bind_linear(&t.b, &a, 2, 32, "a");
    bind_linear(&t.b, &b, 2, 32, "b");
    bind_experts(&t.b, &e, 3, 2, 32, "e");
    assert_false(t.b.failed);
    float row[32];
    weight_row_f32(&a, 0, row);
    assert_int_equal(a.format, WF_AFFINE);
    assert_true(row[0] == 1 && row[7] == 8 && a.bits == 4 && a.group == 32);
    weight_row_f32(&a, 1, row);
    assert_true(row[0] == 9);
    assert_int_equal(b.bits, 6);
    assert_int_equal(e.experts, 3);
    assert_int_equal(t.b.parameters, 64 + 64 + 192);
    bind_linear(&t.b, &c, 2, 32, "c");
    expect_failure(&t, VLM_FORMAT, "c.biases is missing");
    bind_linear(&t.b, &d, 2, 32, "d");
    expect_failure(&t, VLM_UNSUPPORTED, "mxfp4");
    bind_linear(&t.b, &a, 2, 64, "a");
    expect_failure(&t, VLM_FORMAT, "[2, 8] was expected");
    bind_linear(&t.b, &a, 2, 33, "a");
    expect_failure(&t, VLM_FORMAT, "do not fit rows of 33");
    bind_linear(&t.b, &a, 3, 32, "a");
    expect_failure(&t, VLM_FORMAT, "[3, 4] was expected");
    stop(&t);
}

static void binds_kernels(void **state)
{
    (void)state;
    float last[24];                                                   /* [2][3][2 (y)][2 (x)] stored as [2][2][2][3] */
    for (int o = 0; o < 2; o++)
        for (int i = 0; i < 3; i++)
            for (int k = 0; k < 4; k++) last[o * 12 + k * 3 + i] = ramp[o * 12 + i * 4 + k];
    for (int mlx = 0; mlx < 2; mlx++) {
        maker m = {0};
        bench t;
        add(&m, "conv.weight", "F32", mlx ? "[2,2,2,3]" : "[2,3,2,2]", mlx ? last : ramp, 96);
        add(&m, "video.weight", "F32", mlx ? "[2,1,2,2,3]" : "[2,3,1,2,2]", mlx ? last : ramp, 96);
        add(&m, "deep.weight", "BF16", mlx ? "[3,2,1]" : "[3,1,2]", ones, 12);
        add(&m, "square.weight", "F32", "[2,2,2,2]", ramp, 64);
        start(&t, &m, mlx ? "mlx" : "pt", "{}");
        weight conv, patches, flat, square;
        const float *deep;
        bind_conv2d(&t.b, &conv, 2, 3, 2, 2, "conv");
        bind_conv3d(&t.b, &patches, 2, 3, 1, 2, 2, "video");
        bind_conv3d(&t.b, &flat, 2, 3, 1, 2, 2, "conv");
        bind_conv2d(&t.b, &square, 2, 2, 2, 2, "square");
        bind_conv1d_depthwise(&t.b, &deep, 3, 2, "deep");
        assert_false(t.b.failed);
        assert_memory_equal(conv.data, last, 96);
        assert_memory_equal(patches.data, ramp, 96);
        assert_memory_equal(flat.data, ramp, 96);
        assert_true(((const float *)square.data)[1] == (mlx ? 1 : 4));
        assert_true(deep[5] == 1);
        bind_conv2d(&t.b, &conv, 2, 3, 3, 2, "conv");
        expect_failure(&t, VLM_FORMAT, "was expected");
        stop(&t);
    }
}

static void makes_weights_up(void **state)
{
    (void)state;
    static const char *const formats[] = {"bf16", "f32", "f16", "q8", "q4"};
    for (size_t f = 0; f < 5; f++) {
        bench t;
        start(&t, NULL, formats[f], "{\"tie_word_embeddings\":false}");
        weight w, head, other, experts, odd;
        const float *norm, *bias;
        bind_linear(&t.b, &w, 300, 128, "layers.0.up_proj");
        bind_linear(&t.b, &odd, 3, 50, "layers.0.odd");
        assert_true(bind_linear_optional(&t.b, &head, 10, 64, "lm_head"));
        assert_false(bind_linear_optional(&t.b, &other, 10, 64, "other"));
        assert_true(bind_experts_optional(&t.b, &experts, 4, 8, 64, "experts"));
        bind_vector(&t.b, &norm, 7, "norm.weight");
        bind_vector(&t.b, &bias, 7, "q.bias");
        assert_false(t.b.failed);
        float row[128];
        double sum = 0;
        for (int r = 0; r < 300; r++) {
            weight_row_f32(&w, r, row);
            for (int i = 0; i < 128; i++) sum += (double)row[i] * row[i];
        }
        assert_true(fabs(sum / 300 - 1) < 0.15);                      /* rows of length 1 */
        assert_true(norm[6] == 1 && bias[6] == 0);
        stop(&t);
    }
    binder b;
    vlm_error error = {0};
    assert_false(bind_start(&b, NULL, NULL, NULL, NULL, "q7", &error));
    assert_int_equal(error.code, VLM_INVALID);
}

static void makes_up_nothing_without_memory(void **state)
{
    (void)state;
    for (uint64_t n = 1;; n++) {
        bench t = {.cfg = parse("{}")};
        weight w, experts, conv;
        const float *norm;
        mem_fail_at(n);
        bool ok = bind_start(&t.b, NULL, t.cfg, NULL, &t.memory, "q4", NULL);
        if (ok) {
            bind_linear(&t.b, &w, 300, 128, "up_proj");
            bind_experts(&t.b, &experts, 4, 8, 64, "experts");
            bind_experts_each(&t.b, &experts, 4, 8, 64, "up_proj", "experts");
            bind_conv2d(&t.b, &conv, 4, 3, 2, 2, "conv");
            bind_vector(&t.b, &norm, 7, "norm.weight");
            ok = !t.b.failed;
            if (ok) assert_true(w.data && experts.data && conv.data && norm);
        }
        bool failed = mem_failed();
        mem_fail_at(0);
        assert_true(ok != failed);
        stop(&t);
        if (!failed) break;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(binds_plain_weights), cmocka_unit_test(complains_about_shapes), cmocka_unit_test(binds_affine_weights),
        cmocka_unit_test(binds_kernels), cmocka_unit_test(makes_weights_up), cmocka_unit_test(makes_up_nothing_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
