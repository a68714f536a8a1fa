/* decoder_test.c - what must hold of the decoder whatever the weights are: a token's logits have the same bits in one piece, in chunks, token by
 * token, beside other sequences, and whether or not other tokens want logits too. Made-up weights, every kind of layer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "models/model.h"

enum { N = 41, PAGES = N / KV_PAGE_TOKENS + 1 };

static const char *const configs[] = {
    "{\"model_type\": \"llama\", \"hidden_size\": 32, \"intermediate_size\": 48, \"num_hidden_layers\": 3, \"num_attention_heads\": 4,"
    " \"num_key_value_heads\": 2, \"vocab_size\": 64, \"attention_bias\": true, \"mlp_bias\": true}",
    "{\"model_type\": \"qwen3\", \"hidden_size\": 32, \"intermediate_size\": 48, \"num_hidden_layers\": 4, \"num_attention_heads\": 4,"
    " \"num_key_value_heads\": 1, \"head_dim\": 16, \"vocab_size\": 64, \"tie_word_embeddings\": true, \"use_sliding_window\": true,"
    " \"sliding_window\": 5, \"max_window_layers\": 2}",
    "{\"model_type\": \"qwen3_moe\", \"hidden_size\": 32, \"intermediate_size\": 48, \"num_hidden_layers\": 3, \"num_attention_heads\": 4,"
    " \"num_key_value_heads\": 2, \"vocab_size\": 64, \"num_experts\": 5, \"num_experts_per_tok\": 2, \"moe_intermediate_size\": 16}",
    /* shared keys and values, per-layer embeddings */
    "{\"model_type\": \"gemma4_text\", \"hidden_size\": 32, \"intermediate_size\": 48, \"num_hidden_layers\": 6, \"num_attention_heads\": 4,"
    " \"num_key_value_heads\": 1, \"head_dim\": 16, \"global_head_dim\": 32, \"vocab_size\": 64, \"vocab_size_per_layer_input\": 64,"
    " \"hidden_size_per_layer_input\": 8, \"num_kv_shared_layers\": 3, \"use_double_wide_mlp\": true, \"sliding_window\": 7, \"pad_token_id\": 0,"
    " \"rms_norm_eps\": 1e-6, \"hidden_activation\": \"gelu_pytorch_tanh\", \"final_logit_softcapping\": 30.0, \"tie_word_embeddings\": true,"
    " \"layer_types\": [\"sliding_attention\", \"sliding_attention\", \"full_attention\", \"sliding_attention\", \"sliding_attention\","
    " \"full_attention\"], \"rope_parameters\": {\"full_attention\": {\"rope_type\": \"proportional\", \"rope_theta\": 1e6,"
    " \"partial_rotary_factor\": 0.25}, \"sliding_attention\": {\"rope_type\": \"default\", \"rope_theta\": 10000.0}}}",
};

typedef struct sequence { int32_t token[N]; void *page[MAX_KV_GROUPS][PAGES]; void *const *table[MAX_KV_GROUPS]; } sequence;
typedef struct piece { sequence *s; int first, count; } piece;    /* tokens of a sequence that a step computes */

static vlm_model *open_model(const char *json, precision exactness, const char *format)
{
    vlm_error error = {0};
    vlm_model *m = MEM_NEW(vlm_model);
    m->cfg = config_from_json(json_loads(json, 0, NULL), "config.json", &error);
    m->arch = arch_find(config_need_string(m->cfg, "model_type"), NULL, &error);
    assert_non_null(m->arch);
    m->processor = config_from_json(json_object(), "processor_config.json", &error);
    if (!m->arch->configure(m, m->cfg)) fail_msg("%s", m->cfg->error.message);
    assert_true(device_open_cpu(&m->dev, 2, exactness, NULL, &error));
    assert_true(bind_start(&m->binder, NULL, m->cfg, &m->dev, &m->memory, format, &error));
    if (!m->arch->bind(m, &m->binder)) fail_msg("%s", m->binder.error.message);
    for (int g = 0; g < m->n_groups; g++) m->group[g].type = exactness == PRECISION_EXACT ? DT_F32 : DT_F16;
    return m;
}

static void close_model(vlm_model *m)
{
    bind_release(&m->binder);
    device_close(&m->dev);
    config_free(m->processor);
    config_free(m->cfg);
    arena_free(&m->memory);
    mem_free(m);
}

static void open_sequence(const vlm_model *m, sequence *s, int seed)
{
    for (int i = 0; i < N; i++) s->token[i] = (i * 7 + seed * 13 + i * i) % m->vocab;
    for (int g = 0; g < m->n_groups; g++) {
        s->table[g] = s->page[g];
        for (int p = 0; p < PAGES; p++) {
            size_t bytes = kv_page_bytes(&m->group[g]);
            s->page[g][p] = mem_aligned(bytes);
            memset(s->page[g][p], 0xff, bytes);                  /* NaN: what is not written must not be read */
        }
    }
}

static void close_sequence(const vlm_model *m, sequence *s)
{
    for (int g = 0; g < m->n_groups; g++)
        for (int p = 0; p < PAGES; p++) mem_free(s->page[g][p]);
}

/* One step over the pieces. all: every token wants logits; else the last of each piece that ends its sequence. logits [tokens that want, vocab]. */
static void step(const vlm_model *m, const piece *pieces, int n_pieces, bool all, float *logits)
{
    int32_t run_first[5] = {0}, run_position[4], token_run[4 * N], position[4 * N], token[4 * N], wanted[4 * N];
    void *const *tables[MAX_KV_GROUPS][4];
    batch b = {.n_logits = 0, .tokens = token, .logit_tokens = wanted};
    int n = 0;
    for (int p = 0; p < n_pieces; p++) {
        run_position[p] = pieces[p].first;
        for (int g = 0; g < m->n_groups; g++) tables[g][p] = pieces[p].s->table[g];
        for (int i = pieces[p].first; i < pieces[p].first + pieces[p].count; i++, n++) {
            token_run[n] = p;
            position[n] = i;
            token[n] = pieces[p].s->token[i];
            if (all || i == N - 1) wanted[b.n_logits++] = n;
        }
        run_first[p + 1] = n;
    }
    b.ragged = (ragged){.n_tokens = n, .n_runs = n_pieces, .run_first = run_first, .run_position = run_position, .token_run = token_run,
                        .token_position = position, .n_groups = m->n_groups};
    for (int g = 0; g < m->n_groups; g++) {
        b.ragged.group[g] = m->group[g];
        b.ragged.pages[g] = tables[g];
    }
    b.rope[0] = position;
    arena scratch = {0};
    run r = {.dev = (device *)(uintptr_t)&m->dev, .scratch = &scratch};
    tensor out = m->arch->forward(&r, m, &b);
    if (!run_ok(&r)) fail_msg("%s", r.error.message);
    assert_int_equal(out.rows, b.n_logits);
    for (int i = 0; i < b.n_logits; i++) memcpy(logits + (size_t)i * (size_t)m->vocab, tensor_row(out, i), (size_t)m->vocab * sizeof(float));
    arena_free(&scratch);
}

static void same_bits(const vlm_model *m, const float *a, const float *b, const char *what)
{
    for (int v = 0; v < m->vocab; v++) {
        if (a[v] != a[v]) fail_msg("%s, %s: logit %d is not a number", m->arch->name, what, v);
        if (memcmp(&a[v], &b[v], sizeof(float))) fail_msg("%s, %s: logit %d is %.9g, not %.9g", m->arch->name, what, v, (double)b[v], (double)a[v]);
    }
}

static void check_model(const vlm_model *m)
{
    sequence a, b, c;
    float *one = malloc((size_t)m->vocab * 4), *other = malloc((size_t)m->vocab * 4 * 4 * N), *every = malloc((size_t)m->vocab * 4 * N);
    size_t vocab = (size_t)m->vocab;
    open_sequence(m, &a, 1);
    open_sequence(m, &b, 1);
    open_sequence(m, &c, 2);
    step(m, &(piece){&a, 0, N}, 1, false, one);
    step(m, &(piece){&b, 0, N}, 1, true, every);
    same_bits(m, one, every + (N - 1) * vocab, "all tokens want logits");

    for (int at = 0, size = 1; at < N; at += size, size = size % 9 + 4) step(m, &(piece){&b, at, at + size < N ? size : N - at}, 1, false, other);
    same_bits(m, one, other, "in chunks");

    for (int at = 0; at < N; at++) {
        step(m, &(piece){&b, at, 1}, 1, true, other);
        same_bits(m, every + (size_t)at * vocab, other, "token by token");
    }
    step(m, &(piece){&c, 0, 20}, 1, false, other);
    piece mixed[] = {{&c, 20, 1}, {&a, 0, N}, {&c, 21, 6}};
    mixed[2].s = &b;                                                /* recomputes tokens that b has: the same values */
    mixed[2].first = 3;
    step(m, mixed, 3, false, other);
    same_bits(m, one, other, "beside other sequences");
    close_sequence(m, &a);
    close_sequence(m, &b);
    close_sequence(m, &c);
    free(one);
    free(other);
    free(every);
}

static void same_bits_however_computed(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        static const struct { precision exactness; const char *format; } kinds[] = {{PRECISION_EXACT, "bf16"}, {PRECISION_FAST, "bf16"}, {PRECISION_FAST, "f32"}};
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
            vlm_model *m = open_model(configs[i], kinds[k].exactness, kinds[k].format);
            check_model(m);
            close_model(m);
        }
    }
}

static void refuses_bad_configs(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "{\"model_type\": \"llama\"}",
        "{\"model_type\": \"llama\", \"hidden_size\": 32, \"intermediate_size\": 48, \"num_hidden_layers\": 3, \"num_attention_heads\": 4,"
        " \"num_key_value_heads\": 3, \"vocab_size\": 64}",
        "{\"model_type\": \"llama\", \"hidden_size\": 32, \"intermediate_size\": 48, \"num_hidden_layers\": 3, \"num_attention_heads\": 4,"
        " \"vocab_size\": 64, \"hidden_act\": \"spline\"}",
        "{\"model_type\": \"llama\", \"hidden_size\": 32, \"intermediate_size\": 48, \"num_hidden_layers\": 99999999, \"num_attention_heads\": 4,"
        " \"vocab_size\": 64}",
        "{\"model_type\": \"qwen3_moe\", \"hidden_size\": 32, \"intermediate_size\": 48, \"num_hidden_layers\": 3, \"num_attention_heads\": 4,"
        " \"vocab_size\": 64, \"num_experts\": 2, \"num_experts_per_tok\": 4, \"moe_intermediate_size\": 16}",
        "{\"model_type\": \"qwen2_5_vl\", \"hidden_size\": 32, \"intermediate_size\": 48, \"num_hidden_layers\": 3, \"num_attention_heads\": 4,"
        " \"vocab_size\": 64, \"rope_scaling\": {\"type\": \"mrope\", \"mrope_section\": [1, 1, 1]}}",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        vlm_error error = {0};
        vlm_model *m = MEM_NEW(vlm_model);
        m->cfg = config_from_json(json_loads(bad[i], 0, NULL), "config.json", &error);
        m->processor = config_from_json(json_object(), "processor_config.json", &error);
        m->arch = arch_find(config_need_string(m->cfg, "model_type"), NULL, &error);
        assert_false(m->arch->configure(m, m->cfg));
        assert_true(m->cfg->failed && m->cfg->error.message[0]);
        config_free(m->processor);
        config_free(m->cfg);
        arena_free(&m->memory);
        mem_free(m);
    }
}

static void a_token_outside_the_vocabulary_is_an_error(void **state)
{
    (void)state;
    vlm_model *m = open_model(configs[0], PRECISION_EXACT, "bf16");
    sequence s;
    open_sequence(m, &s, 1);
    arena scratch = {0};
    run r = {.dev = &m->dev, .scratch = &scratch};
    int32_t zero[2] = {0, 1}, token = 64;
    void *const *tables[1] = {s.table[0]};
    batch b = {.ragged = {.n_tokens = 1, .n_runs = 1, .run_first = zero, .run_position = zero, .token_run = zero, .token_position = zero, .n_groups = 1},
               .tokens = &token, .rope = {zero}, .logit_tokens = zero, .n_logits = 1};
    b.ragged.group[0] = m->group[0];
    b.ragged.pages[0] = tables;
    m->arch->forward(&r, m, &b);
    assert_false(run_ok(&r));
    assert_non_null(strstr(r.error.message, "64"));
    arena_free(&scratch);
    close_sequence(m, &s);
    close_model(m);
}

/* Tokens [first, first + count) of s, with media rows at [5, 14); `wanted` counts in tokens of the sequence. */
static void media_step(const vlm_model *m, sequence *s, const media_rows *rows, int first, int count, const int *wanted, int n_wanted, float *logits)
{
    int32_t run_first[2] = {0, count}, position[N], zero[N] = {0}, token[N], tokens_wanted[N];
    uint8_t is_media[N] = {0};
    void *const *tables[MAX_KV_GROUPS][1];
    int from = first > 5 ? first : 5, to = first + count < 14 ? first + count : 14;
    embed_rows e = {.first = from - first, .count = to - from, .rows = rows, .offset = from - 5};
    for (int i = 0; i < count; i++) {
        position[i] = first + i;
        is_media[i] = first + i >= 5 && first + i < 14;
        token[i] = is_media[i] ? 1 << 30 : s->token[first + i];          /* a placeholder's id may lie outside the vocabulary */
    }
    for (int i = 0; i < n_wanted; i++) tokens_wanted[i] = wanted[i] - first;
    batch b = {.ragged = {.n_tokens = count, .n_runs = 1, .run_first = run_first, .run_position = position, .token_run = zero, .token_position = position,
                          .n_groups = m->n_groups}, .tokens = token, .is_media = is_media, .rope = {position}, .embeds = &e, .n_embeds = to > from,
               .logit_tokens = tokens_wanted, .n_logits = n_wanted};
    for (int g = 0; g < m->n_groups; g++) {
        b.ragged.group[g] = m->group[g];
        tables[g][0] = s->table[g];
        b.ragged.pages[g] = tables[g];
    }
    arena scratch = {0};
    run r = {.dev = (device *)(uintptr_t)&m->dev, .scratch = &scratch};
    tensor out = m->arch->forward(&r, m, &b);
    if (!run_ok(&r)) fail_msg("%s", r.error.message);
    for (int i = 0; i < n_wanted; i++) memcpy(logits + (size_t)i * (size_t)m->vocab, tensor_row(out, i), (size_t)m->vocab * sizeof(float));
    arena_free(&scratch);
}

/* Media rows and their further levels (one for each layer here) come to the same tokens however the work is cut. */
static void media_rows_and_deepstack(void **state)
{
    (void)state;
    vlm_model *m = open_model(configs[0], PRECISION_EXACT, "bf16");
    sequence s;
    open_sequence(m, &s, 1);
    size_t values = 4 * 9 * (size_t)m->hidden, vocab = (size_t)m->vocab;
    media_rows rows = {.count = 9, .cols = m->hidden, .levels = 4, .data = MEM_ARRAY(values, float)}, flat = {.count = 9, .cols = m->hidden, .levels = 1, .data = rows.data};
    for (size_t i = 0; i < values; i++) rows.data[i] = (float)(i * 37 % 101) / 50 - 1;
    float *every = malloc(vocab * 4 * N), *some = malloc(vocab * 4 * 2), *other = malloc(vocab * 4);
    int all[N];
    for (int i = 0; i < N; i++) all[i] = i;
    media_step(m, &s, &rows, 0, N, all, N, every);
    media_step(m, &s, &rows, 0, N, (int[]){8, N - 1}, 2, some);
    same_bits(m, every + 8 * vocab, some, "a media token");
    same_bits(m, every + (N - 1) * vocab, some + vocab, "the last token");
    media_step(m, &s, &rows, 0, 9, NULL, 0, some);
    media_step(m, &s, &rows, 9, N - 9, (int[]){N - 1}, 1, some);
    same_bits(m, every + (N - 1) * vocab, some, "cut inside the medium");
    media_step(m, &s, &flat, 0, N, (int[]){N - 1}, 1, other);
    assert_memory_not_equal(some, other, vocab * 4);
    free(every);
    free(some);
    free(other);
    mem_free(rows.data);
    close_sequence(m, &s);
    close_model(m);
}

/* Each allocation of a forward fails once: an error, never a crash. */
static void survives_lack_of_memory(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof configs / sizeof *configs; k++) {
        vlm_model *m = open_model(configs[k], PRECISION_EXACT, "bf16");
        sequence s;
        open_sequence(m, &s, 1);
        bool failed = true;
        for (uint64_t at = 1; failed; at++) {
            int32_t position[N], zero[N] = {0}, run_first[2] = {0, N}, wanted[2] = {3, N - 1};
            void *const *tables[MAX_KV_GROUPS][1];
            for (int i = 0; i < N; i++) position[i] = i;
            batch b = {.ragged = {.n_tokens = N, .n_runs = 1, .run_first = run_first, .run_position = zero, .token_run = zero, .token_position = position,
                                  .n_groups = m->n_groups}, .tokens = s.token, .rope = {position}, .logit_tokens = wanted, .n_logits = 2};
            for (int g = 0; g < m->n_groups; g++) {
                b.ragged.group[g] = m->group[g];
                tables[g][0] = s.table[g];
                b.ragged.pages[g] = tables[g];
            }
            arena scratch = {.block_size = 1024};
            run r = {.dev = &m->dev, .scratch = &scratch};
            mem_fail_at(at);
            m->arch->forward(&r, m, &b);
            failed = mem_failed();
            mem_fail_at(0);
            assert_int_equal(run_ok(&r), !failed);
            arena_free(&scratch);
        }
        close_sequence(m, &s);
        close_model(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(same_bits_however_computed), cmocka_unit_test(refuses_bad_configs),
                                       cmocka_unit_test(a_token_outside_the_vocabulary_is_an_error),
                                       cmocka_unit_test(media_rows_and_deepstack), cmocka_unit_test(survives_lack_of_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
