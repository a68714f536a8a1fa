/* bart.c - see bart.h. */
#include "blocks/bart.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "blocks/decoder.h"

static const float EPS = 1e-5f;
enum { FIRST_POSITION = 2 };

/* ---- configuration and weights -------------------------------------------------------------------------------------- */

static const char *key(char out[128], const char *prefix, const char *side, const char *name)
{
    snprintf(out, 128, "%s%s%s", prefix, side, name);
    return out;
}

static void read_side(bart_side *s, config *c, const char *prefix, const char *side)
{
    char path[128];
    s->layers = (int)config_int(c, key(path, prefix, side, "_layers"), 12, 1, 1024);
    s->heads = (int)config_int(c, key(path, prefix, side, "_attention_heads"), 16, 1, 1 << 12);
    s->ffn = (int)config_int(c, key(path, prefix, side, "_ffn_dim"), 4096, 1, 1 << 20);
}

bool bart_config(bart *m, arena *memory, config *c, const char *prefix)
{
    char path[128];
    m->hidden = (int)config_int(c, key(path, prefix, "", "d_model"), 1024, 1, 1 << 16);
    m->vocab = (int)config_int(c, key(path, prefix, "", "vocab_size"), 50265, 1, 1 << 26);
    m->positions = (int)config_int(c, key(path, prefix, "", "max_position_embeddings"), 1024, 1, 1 << 20);
    m->act = config_activation(c, key(path, prefix, "", "activation_function"), "gelu");
    bool scaled = config_bool(c, key(path, prefix, "", "scale_embedding"), false);
    if (config_bool(c, key(path, prefix, "", "normalize_before"), false)) return config_fail(c, VLM_UNSUPPORTED, "%snormalize_before is not known here", prefix);
    read_side(&m->encoder, c, prefix, "encoder");
    read_side(&m->decoder, c, prefix, "decoder");
    if (c->failed) return false;
    if (m->hidden % m->encoder.heads || m->hidden % m->decoder.heads)
        return config_fail(c, VLM_FORMAT, "%sd_model %d does not make %d (%d) heads", prefix, m->hidden, m->encoder.heads, m->decoder.heads);
    m->scale = scaled ? (float)sqrt(m->hidden) : 1;
    m->cross = (cross_spec){.heads = m->decoder.heads, .kv_heads = m->decoder.heads, .head_dim = m->hidden / m->decoder.heads};
    m->group = m->memory = (kv_shape){.kv_heads = m->decoder.heads, .head_dim = m->cross.head_dim, .slots = m->decoder.layers};
    m->encoder_layer = arena_alloc(memory, (size_t)m->encoder.layers * sizeof *m->encoder_layer);
    m->decoder_layer = arena_alloc(memory, (size_t)m->decoder.layers * sizeof *m->decoder_layer);
    return (m->encoder_layer && m->decoder_layer) || config_fail(c, VLM_MEMORY, "out of memory");
}

static void bind_product(binder *b, weight *w, const float **bias, int64_t rows, int64_t cols, const char *side, int i, const char *name)
{
    bind_linear(b, w, rows, cols, "%s.layers.%d.%s", side, i, name);
    bind_vector(b, bias, rows, "%s.layers.%d.%s.bias", side, i, name);
}

static void bind_norm(binder *b, const float **w, const float **bias, int64_t n, const char *side, int i, const char *name)
{
    bind_vector(b, w, n, "%s.layers.%d.%s.weight", side, i, name);
    bind_vector(b, bias, n, "%s.layers.%d.%s.bias", side, i, name);
}

static void bind_side(const bart *m, const bart_side *s, bart_layer *layers, bart_stem *stem, binder *b, const char *side)
{
    int64_t d = m->hidden;
    bool decodes = s == &m->decoder;
    bind_vector(b, &stem->table, (m->positions + FIRST_POSITION) * d, "%s.embed_positions.weight", side);
    bind_vector(b, &stem->norm, d, "%s.layernorm_embedding.weight", side);
    bind_vector(b, &stem->norm_bias, d, "%s.layernorm_embedding.bias", side);
    for (int i = 0; i < s->layers && !b->failed; i++) {
        bart_layer *w = &layers[i];
        bind_product(b, &w->q, &w->q_bias, d, d, side, i, "self_attn.q_proj");
        bind_product(b, &w->k, &w->k_bias, d, d, side, i, "self_attn.k_proj");
        bind_product(b, &w->v, &w->v_bias, d, d, side, i, "self_attn.v_proj");
        bind_product(b, &w->o, &w->o_bias, d, d, side, i, "self_attn.out_proj");
        bind_product(b, &w->up, &w->up_bias, s->ffn, d, side, i, "fc1");
        bind_product(b, &w->down, &w->down_bias, d, s->ffn, side, i, "fc2");
        bind_norm(b, &w->norm1, &w->norm1_bias, d, side, i, "self_attn_layer_norm");
        bind_norm(b, &w->norm2, &w->norm2_bias, d, side, i, "final_layer_norm");
        if (!decodes) continue;
        w->cross.slot = i;
        bind_product(b, &w->cross.q, &w->cross.q_bias, d, d, side, i, "encoder_attn.q_proj");
        bind_product(b, &w->cross.k, &w->cross.k_bias, d, d, side, i, "encoder_attn.k_proj");
        bind_product(b, &w->cross.v, &w->cross.v_bias, d, d, side, i, "encoder_attn.v_proj");
        bind_product(b, &w->cross.o, &w->cross.o_bias, d, d, side, i, "encoder_attn.out_proj");
        bind_norm(b, &w->cross_norm, &w->cross_norm_bias, d, side, i, "encoder_attn_layer_norm");
    }
}

void bart_bind(bart *m, binder *b, const char *head)
{
    bind_side(m, &m->encoder, m->encoder_layer, &m->encoder_stem, b, "encoder");
    bind_side(m, &m->decoder, m->decoder_layer, &m->decoder_stem, b, "decoder");
    bind_linear(b, &m->embed, m->vocab, m->hidden, "shared");
    bind_prefix(b, head, "", NULL);
    bool own = b->files && bind_linear_optional(b, &m->head, m->vocab, m->hidden, "lm_head");
    if (!own) m->head = m->embed;
    bind_vector_optional(b, &m->logits_bias, m->vocab, "final_logits_bias");
}

/* ---- both sides ------------------------------------------------------------------------------------------------------ */

static void set(run *r, tensor x, tensor value)
{
    for (int64_t i = 0; run_ok(r) && i < x.rows; i++) memcpy(tensor_row(x, i), tensor_row(value, i), (size_t)x.cols * sizeof(float));
}

/* x = norm(x + y) */
static void add_and_norm(run *r, tensor x, tensor y, const float *w, const float *bias)
{
    op_add_inplace(r, x, y);
    set(r, x, op_layernorm(r, x, w, bias, EPS));
}

/* x + positions, normed. */
static tensor place(run *r, const bart *m, const bart_stem *stem, tensor x, const int32_t *position)
{
    for (int64_t i = 0; run_ok(r) && i < x.rows; i++) {
        int64_t at = position ? position[i] : i;
        if (at >= m->positions) return run_fail(r, VLM_LIMIT, "position %lld: the model has %d", (long long)at, m->positions), x;
        const float *row = stem->table + (at + FIRST_POSITION) * m->hidden;
        for (int64_t c = 0; c < x.cols; c++) tensor_row(x, i)[c] += row[c];
    }
    return op_layernorm(r, x, stem->norm, stem->norm_bias, EPS);
}

static void feed_forward(run *r, const bart *m, const bart_layer *w, tensor x)
{
    tensor h = op_linear(r, x, &w->up, w->up_bias);
    op_activate(r, h, m->act);
    add_and_norm(r, x, op_linear(r, h, &w->down, w->down_bias), w->norm2, w->norm2_bias);
}

/* ---- encoder ---------------------------------------------------------------------------------------------------------- */

tensor bart_embed_prompt(run *r, const bart *m, const int32_t *ids, int n, const embed_rows *embeds, int n_embeds)
{
    int32_t *known = run_alloc(r, (size_t)(n + 1) * sizeof *known);
    for (int i = 0; known && i < n; i++) known[i] = ids[i] < m->vocab ? ids[i] : 0;             /* placeholders may lie behind the table */
    tensor x = op_embed(r, &m->embed, known, n, m->scale);
    for (int i = 0; i < n_embeds && run_ok(r); i++) {
        const embed_rows *e = &embeds[i];
        if (e->rows->cols != m->hidden || e->first + e->count > n || e->offset + e->count > e->rows->count)
            return run_fail(r, VLM_INTERNAL, "rows of a medium do not fit the prompt"), x;
        memcpy(tensor_row(x, e->first), e->rows->data + (int64_t)e->offset * m->hidden, (size_t)e->count * (size_t)m->hidden * sizeof(float));
    }
    return place(r, m, &m->encoder_stem, x, NULL);
}

void bart_encode_layer(run *r, const bart *m, int i, tensor x)
{
    const bart_layer *w = &m->encoder_layer[i];
    const int32_t starts[2] = {0, (int32_t)x.rows};
    int head_dim = m->hidden / m->encoder.heads;
    attention_spec a = {.heads = m->encoder.heads, .kv_heads = m->encoder.heads, .head_dim = head_dim, .scale = (float)pow(head_dim, -0.5)};
    tensor y[3] = {{0}};
    op_linear_group(r, x, 3, y, (const weight *[]){&w->q, &w->k, &w->v}, (const float *[]){w->q_bias, w->k_bias, w->v_bias});
    tensor out = op_attention_segments(r, y[0], y[1], y[2], starts, 1, &a);
    add_and_norm(r, x, op_linear(r, out, &w->o, w->o_bias), w->norm1, w->norm1_bias);
    feed_forward(r, m, w, x);
    TAP(r, "encoder", i, x);
}

double bart_encode_cost(const bart *m, double n)
{
    double d = m->hidden;
    return 2 * n * (4 * d * d + 2 * d * m->encoder.ffn) + 4 * n * n * d;
}

bool bart_remember(run *r, const bart *m, const memory_fill *fill)
{
    tensor rows = cross_rows(r, fill, m->hidden);
    for (int i = 0; i < m->decoder.layers && run_ok(r); i++) cross_remember(r, &m->cross, &m->decoder_layer[i].cross, fill, rows);
    return run_ok(r);
}

/* ---- decoder ---------------------------------------------------------------------------------------------------------- */

static void decode_layer(run *r, const bart *m, int i, const batch *b, const cross_view *view, tensor x)
{
    const bart_layer *w = &m->decoder_layer[i];
    attention_spec a = {.heads = m->decoder.heads, .kv_heads = m->decoder.heads, .head_dim = m->cross.head_dim, .scale = (float)pow(m->cross.head_dim, -0.5),
                        .group = 0, .slot = i};
    tensor y[3] = {{0}};
    op_linear_group(r, x, 3, y, (const weight *[]){&w->q, &w->k, &w->v}, (const float *[]){w->q_bias, w->k_bias, w->v_bias});
    op_kv_write(r, &b->ragged, 0, i, y[1], y[2]);
    tensor out = op_attention(r, y[0], &b->ragged, &a);
    TAP(r, "attn", i, out);
    add_and_norm(r, x, op_linear(r, out, &w->o, w->o_bias), w->norm1, w->norm1_bias);
    add_and_norm(r, x, cross_attend(r, &m->cross, &w->cross, view, x), w->cross_norm, w->cross_norm_bias);
    feed_forward(r, m, w, x);
}

tensor bart_forward(run *r, const bart *m, const batch *b)
{
    tensor nothing = {NULL, DT_F32, 0, m->vocab, m->vocab};
    const cross_view *view = cross_look(r, b, NULL, b->ragged.n_tokens, true);
    if (run_ok(r) && !view->all) run_fail(r, VLM_INTERNAL, "an encoder-decoder's answer without a prompt");
    tensor x = place(r, m, &m->decoder_stem, op_embed(r, &m->embed, b->tokens, b->ragged.n_tokens, m->scale), b->ragged.token_position);
    for (int i = 0; i < m->decoder.layers && run_ok(r); i++) {
        TAP(r, "hidden", i, x);
        arena_mark mark = arena_get_mark(r->scratch);
        decode_layer(r, m, i, b, view, x);
        arena_release(r->scratch, mark);
    }
    TAP(r, "hidden", m->decoder.layers, x);
    if (!run_ok(r) || !b->n_logits) return nothing;
    run_gather_adapters(r, b->logit_tokens, b->n_logits);
    tensor logits = op_linear(r, op_gather(r, x, b->logit_tokens, b->n_logits), &m->head, m->logits_bias);
    TAP(r, "logits", 0, logits);
    return run_ok(r) ? logits : nothing;
}
