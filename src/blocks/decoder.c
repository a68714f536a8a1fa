/* decoder.c - see decoder.h: the forward pass. Shapes: n tokens of the batch, m of them (those that want logits) after the cut. */
#include "blocks/decoder.h"

#include <math.h>
#include <string.h>

#include "tensor/adapt.h"

/* What the layers share during one step. Until the cut `rows` is the batch; after it, each wanted token is a run of its own. */
typedef struct step {
    run *r;
    const decoder *d;
    const batch *b;
    const ragged *rows;
    bool cut;
    tensor cosine[DECODER_MAX_ROPES], sine[DECODER_MAX_ROPES];   /* [rows, half] */
    tensor ple;                                                  /* [rows, layers * ple] */
    const cross_view *cross;                                     /* of the rows; NULL: there is no cross-attention */
} step;

/* ---- into the first layer ----------------------------------------------------------------------------------------- */

/* Ids to look up: placeholders of media (whose ids may lie outside the table) give way to `substitute`. */
static const int32_t *lookup_ids(step *s, int32_t substitute, int table, bool strict)
{
    const batch *b = s->b;
    int n = b->ragged.n_tokens;
    int32_t *ids = run_alloc(s->r, (size_t)(n > 0 ? n : 1) * sizeof *ids);
    for (int i = 0; ids && i < n; i++) {
        ids[i] = b->is_media && b->is_media[i] ? substitute : b->tokens[i];
        if (ids[i] >= 0 && ids[i] < table) continue;
        if (strict) run_fail(s->r, VLM_INVALID, "token id %d is outside the vocabulary (%d)", ids[i], table);
        ids[i] = 0;
    }
    return ids;
}

static tensor media_view(const embed_rows *e, int level, int64_t first, int64_t count)
{
    const media_rows *m = e->rows;
    float *data = m->data + ((int64_t)level * m->count + e->offset + first) * m->cols;
    return (tensor){data, DT_F32, count, m->cols, m->cols};
}

/* Rows of the second table. */
static void embed_more(step *s, tensor x)
{
    const decoder_spec *spec = &s->d->spec;
    int32_t *id = run_alloc(s->r, (size_t)(x.rows + 1) * sizeof *id), *at = run_alloc(s->r, (size_t)(x.rows + 1) * sizeof *at);
    int n = 0;
    for (int i = 0; id && at && i < x.rows; i++)
        if (s->b->tokens[i] >= spec->vocab && s->b->tokens[i] < spec->vocab + spec->more_vocab) id[n] = s->b->tokens[i] - spec->vocab, at[n++] = i;
    if (n) op_scatter(s->r, x, op_embed(s->r, &s->d->embed_more, id, n, spec->embed_scale), at);
}

static tensor embed(step *s)
{
    const decoder_spec *spec = &s->d->spec;
    const batch *b = s->b;
    run *r = s->r;
    tensor x = op_embed(r, &s->d->embed, lookup_ids(s, 0, spec->embed_rows ? spec->embed_rows : spec->vocab, !spec->more_vocab), b->ragged.n_tokens, spec->embed_scale);
    if (spec->more_vocab) embed_more(s, x);
    if (s->d->embed_others && run_ok(r)) s->d->embed_others(r, s->d, b, x);
    for (int i = 0; i < b->n_embeds && run_ok(r); i++) {
        const embed_rows *e = &b->embeds[i];
        if (e->first < 0 || e->count < 0 || e->first + e->count > b->ragged.n_tokens || e->offset < 0 || e->offset + e->count > e->rows->count ||
            e->rows->cols != spec->hidden) {
            run_fail(r, VLM_INTERNAL, "media rows [%d, %d) of %d x %d do not fit a batch of %d tokens", e->offset, e->offset + e->count, e->rows->count,
                     e->rows->cols, b->ragged.n_tokens);
            break;
        }
        int32_t *index = run_alloc(r, (size_t)(e->count + 1) * sizeof *index);
        for (int k = 0; index && k < e->count; k++) index[k] = e->first + k;
        op_scatter(r, x, media_view(e, 0, 0, e->count), index);
        if (spec->media_scaled && spec->embed_scale != 1) op_scale(r, tensor_rows(x, e->first, e->count), spec->embed_scale, NULL);
    }
    return x;
}

/* Per-layer inputs: (norm(project(x) / sqrt(hidden)) + table(id) * sqrt(ple)) / sqrt(2), for all layers side by side. */
static tensor per_layer_inputs(step *s, tensor x)
{
    const decoder_spec *spec = &s->d->spec;
    run *r = s->r;
    tensor p = op_linear(r, x, &s->d->ple_project, NULL);                                  /* [n, layers * ple] */
    op_scale(r, p, (float)pow(spec->hidden, -0.5), NULL);
    op_rmsnorm_heads(r, p, s->d->ple_norm, spec->norm_offset, spec->eps, spec->ple);
    const int32_t *ids = lookup_ids(s, spec->ple_media_id, spec->ple_vocab, false);
    op_add_inplace(r, p, op_embed(r, &s->d->ple_embed, ids, x.rows, (float)sqrt(spec->ple)));
    op_scale(r, p, (float)sqrt(0.5), NULL);
    TAP(r, "ple", 0, p);
    return p;
}

static void rope_tables(step *s)
{
    int64_t n = s->b->ragged.n_tokens;
    const int32_t *positions[MAX_ROPE_AXES];
    const int32_t *nothing = run_alloc(s->r, (size_t)(n + 1) * sizeof *nothing);
    for (int a = 0; a < MAX_ROPE_AXES; a++) positions[a] = s->b->rope[a] ? s->b->rope[a] : s->b->ragged.token_position;
    if (s->d->spec.n_ropes && s->d->spec.rope[0].far_freq) positions[FAR_AXIS] = s->b->far ? s->b->far : nothing;
    for (int i = 0; i < s->d->spec.n_ropes && run_ok(s->r); i++) {
        const rope_table *t = &s->d->spec.rope[i];
        s->cosine[i] = run_tensor(s->r, n, t->half);
        s->sine[i] = run_tensor(s->r, n, t->half);
        if (run_ok(s->r)) rope_fill(t, positions, n, s->cosine[i], s->sine[i]);
    }
}

/* ---- the cut ------------------------------------------------------------------------------------------------------ */

static bool wants_every_row(const batch *b)
{
    if (b->n_logits != b->ragged.n_tokens) return false;
    for (int i = 0; i < b->n_logits; i++)
        if (b->logit_tokens[i] != i) return false;
    return true;
}

/* The wanted tokens as a batch in which each is a run of its own, over the same pages. */
static const ragged *wanted_rows(run *r, const batch *b)
{
    const ragged *all = &b->ragged;
    size_t m = (size_t)b->n_logits;
    ragged *rows = run_alloc(r, sizeof *rows);
    int32_t *first = run_alloc(r, (m + 1) * sizeof *first), *position = run_alloc(r, (m + 1) * sizeof *position);
    int32_t *see_to = all->see_to ? run_alloc(r, (m + 1) * sizeof *see_to) : NULL;
    int32_t *see_from = all->see_from ? run_alloc(r, (m + 1) * sizeof *see_from) : NULL;
    const joined_blocks **joined = all->joined ? run_alloc(r, (m + 1) * sizeof *joined) : NULL;
    if (!run_ok(r)) return NULL;
    *rows = *all;
    rows->n_tokens = rows->n_runs = b->n_logits;
    rows->run_first = rows->token_run = first;                         /* both 0, 1, 2 ... */
    rows->run_position = rows->token_position = position;
    rows->see_to = see_to;
    rows->see_from = see_from;
    rows->joined = joined;
    for (int i = 0; i <= b->n_logits; i++) first[i] = i;
    for (int i = 0; i < b->n_logits; i++) {
        int t = b->logit_tokens[i];
        position[i] = all->token_position[t];
        if (see_to) see_to[i] = all->see_to[t];
        if (see_from) see_from[i] = all->see_from[t];
        if (joined) joined[i] = all->joined[all->token_run[t]];
    }
    for (int g = 0; g < all->n_groups; g++) {
        void *const **tables = run_alloc(r, (m + 1) * sizeof *tables);
        for (int i = 0; tables && i < b->n_logits; i++) tables[i] = all->pages[g][all->token_run[b->logit_tokens[i]]];
        rows->pages[g] = (void *const *const *)tables;
    }
    return rows;
}

/* From here on only the wanted rows of x, h, the rope tables and the per-layer inputs are kept. */
static void cut(step *s, tensor *x, tensor *h)
{
    const batch *b = s->b;
    if (s->cut || wants_every_row(b)) return;
    s->cut = true;
    s->rows = wanted_rows(s->r, b);
    run_gather_adapters(s->r, b->logit_tokens, b->n_logits);
    *x = op_gather(s->r, *x, b->logit_tokens, b->n_logits);
    *h = op_gather(s->r, *h, b->logit_tokens, b->n_logits);
    for (int i = 0; i < s->d->spec.n_ropes; i++) {
        s->cosine[i] = op_gather(s->r, s->cosine[i], b->logit_tokens, b->n_logits);
        s->sine[i] = op_gather(s->r, s->sine[i], b->logit_tokens, b->n_logits);
    }
    if (s->d->spec.ple) s->ple = op_gather(s->r, s->ple, b->logit_tokens, b->n_logits);
    if (s->cross) s->cross = cross_look(s->r, b, b->logit_tokens, b->n_logits, true);
}

/* ---- a layer ------------------------------------------------------------------------------------------------------ */

static tensor norm(const step *s, tensor x, const float *w)
{
    const decoder_spec *spec = &s->d->spec;
    return spec->layernorm ? op_layernorm(s->r, x, w, spec->norm_bias ? w + spec->hidden : NULL, spec->eps) : op_rmsnorm(s->r, x, w, spec->norm_offset, spec->eps);
}

/* What attention reads: x itself when the only norms are behind. */
static tensor before_attention(const step *s, int i, tensor x) { return s->d->spec.norms == NORM_POST ? x : norm(s, x, s->d->layer[i].norm1); }

/* Norms of the heads of queries or keys. */
static void norm_heads(step *s, tensor x, const float *w, const decoder_layer_spec *l)
{
    const decoder_spec *spec = &s->d->spec;
    if (spec->qk_norm) op_rmsnorm_heads(s->r, x, w, spec->norm_offset, spec->eps, spec->qk_norm_whole ? (int)x.cols : l->head_dim);
}

/* Llama 4's way with long texts: queries grow with the logarithm of the position. */
static void scale_queries(step *s, tensor q)
{
    const decoder_spec *spec = &s->d->spec;
    tensor factor = run_tensor(s->r, q.rows, 1);
    for (int64_t t = 0; run_ok(s->r) && t < q.rows; t++)
        *tensor_row(factor, t) = 1 + spec->query_beta * logf(1 + floorf((float)(s->rows->token_position[t] + spec->query_first) / (float)spec->query_trained));
    op_scale_rows(s->r, q, factor);
}

static tensor copy_of(run *r, tensor x)
{
    int32_t *index = run_alloc(r, (size_t)(x.rows + 1) * sizeof *index);
    for (int64_t i = 0; index && i < x.rows; i++) index[i] = (int32_t)i;
    return op_gather(r, x, index, x.rows);
}

/* Columns i and i + half turn by angles of their own: both ways, and the halves that count. */
static void rotate_halves(step *s, tensor x, int heads, const decoder_layer_spec *l)
{
    int upper = s->d->spec.rope_upper;
    int64_t dim = l->head_dim, half = dim / 2;
    tensor other = copy_of(s->r, x);
    op_rope(s->r, other, heads, l->head_dim, 1, l->head_dim, false, s->cosine[upper], s->sine[upper]);
    op_rope(s->r, x, heads, l->head_dim, 1, l->head_dim, false, s->cosine[l->rope], s->sine[l->rope]);
    for (int64_t t = 0; run_ok(s->r) && t < x.rows; t++)
        for (int h = 0; h < heads; h++) memcpy(tensor_row(x, t) + h * dim + half, tensor_row(other, t) + h * dim + half, (size_t)half * sizeof(float));
}

/* Rope and norms of the heads of queries or keys. */
static void rotate(step *s, tensor x, int heads, const float *norm, const decoder_layer_spec *l)
{
    bool last = s->d->spec.qk_norm_last;
    if (!last) norm_heads(s, x, norm, l);
    if (l->rope >= 0 && s->d->spec.rope_upper) rotate_halves(s, x, heads, l);
    else if (l->rope >= 0) {
        const rope_table *t = &s->d->spec.rope[l->rope];
        op_rope(s->r, x, heads, l->head_dim, 1, 2 * t->half, t->interleaved, s->cosine[l->rope], s->sine[l->rope]);
    }
    if (last) norm_heads(s, x, norm, l);
    if (s->d->spec.qk_norm_plain && l->rope >= 0) op_rmsnorm_heads(s->r, x, NULL, 0, s->d->spec.eps, l->head_dim);
}

/* Query and gate of each head, side by side in q_proj's product, part: q keeps the queries, the gates are returned. */
static tensor split_gate(step *s, const decoder_layer_spec *l, tensor *q)
{
    run *r = s->r;
    int64_t n = q->rows * l->heads;
    int32_t *index = run_alloc(r, (size_t)(2 * n + 1) * sizeof *index);
    if (!run_ok(r)) return *q;
    for (int64_t i = 0; i < n; i++) { index[i] = (int32_t)(2 * i); index[n + i] = (int32_t)(2 * i + 1); }
    tensor pairs = {q->data, DT_F32, 2 * n, l->head_dim, l->head_dim};
    tensor queries = op_gather(r, pairs, index, n), gates = op_gather(r, pairs, index + n, n);
    int64_t cols = (int64_t)l->heads * l->head_dim;
    *q = (tensor){queries.data, DT_F32, q->rows, cols, cols};
    return (tensor){gates.data, DT_F32, q->rows, cols, cols};
}

static void write_keys_and_values(step *s, const decoder_layer *w, const decoder_layer_spec *l, tensor k, tensor v)
{
    const decoder_spec *spec = &s->d->spec;
    run *r = s->r;
    if (l->v_is_k) v = copy_of(r, k);
    if (spec->v_norm) op_rmsnorm_heads(r, v, NULL, 0, spec->eps, l->head_dim);
    rotate(s, k, l->kv_heads, w->k_norm, l);
    op_kv_write(r, &s->b->ragged, l->group, l->slot, k, v);
}

/* Keys and values of every token, nothing else. */
static void keys_and_values(step *s, int i, tensor h)
{
    const decoder_layer *w = &s->d->layer[i];
    const decoder_spec *spec = &s->d->spec;
    const decoder_layer_spec *l = &spec->layer[i];
    if (spec->mla.kv_rank) {
        tensor k = mla_keys(s->r, &spec->mla, &w->mla, h, &spec->rope[l->rope], s->cosine[l->rope], s->sine[l->rope]);
        op_kv_write(s->r, &s->b->ragged, l->group, l->slot, k, k);
        return;
    }
    tensor y[2] = {{0}};
    op_linear_group(s->r, h, l->v_is_k ? 1 : 2, y, (const weight *[]){&w->k, &w->v}, (const float *[]){w->k_bias, w->v_bias});
    write_keys_and_values(s, w, l, y[0], y[1]);
}

/* Multi-head latent attention. */
static tensor latent_attention(step *s, int i, tensor *x, tensor h)
{
    const decoder_spec *spec = &s->d->spec;
    const decoder_layer_spec *l = &spec->layer[i];
    const decoder_layer *w = &s->d->layer[i];
    keys_and_values(s, i, h);
    if (i == s->d->last_owner) cut(s, x, &h);
    tensor q = mla_queries(s->r, &spec->mla, &w->mla, h, l->heads, &spec->rope[l->rope], s->cosine[l->rope], s->sine[l->rope]);
    attention_spec a = {.heads = l->heads, .kv_heads = 1, .head_dim = l->head_dim, .scale = spec->mla.scale, .group = l->group, .slot = l->slot};
    tensor out = mla_expand(s->r, &spec->mla, &w->mla, op_attention(s->r, q, s->rows, &a), l->heads);
    TAP(s->r, "attn", i, out);
    return op_linear(s->r, out, &w->o, w->o_bias);
}

/* h: normed rows; *x is only touched by the cut. */
static tensor attention(step *s, int i, tensor *x, tensor h)
{
    const decoder_spec *spec = &s->d->spec;
    const decoder_layer_spec *l = &spec->layer[i];
    const decoder_layer *w = &s->d->layer[i];
    run *r = s->r;
    if (spec->mla.kv_rank) return latent_attention(s, i, x, h);
    tensor q;
    if (l->kv_from < 0 && (i != s->d->last_owner || wants_every_row(s->b))) {
        tensor y[3] = {{0}};                                       /* q [n, heads * head_dim], k and v [n, kv_heads * head_dim] */
        op_linear_group(r, h, l->v_is_k ? 2 : 3, y, (const weight *[]){&w->q, &w->k, &w->v}, (const float *[]){w->q_bias, w->k_bias, w->v_bias});
        write_keys_and_values(s, w, l, y[1], y[2]);
        q = y[0];
    } else {
        if (l->kv_from < 0) keys_and_values(s, i, h);
        if (i == s->d->last_owner) cut(s, x, &h);
        q = op_linear(r, h, &w->q, w->q_bias);
    }
    tensor gate = spec->attn_gate ? split_gate(s, l, &q) : q;
    rotate(s, q, l->heads, w->q_norm, l);
    if (spec->query_beta > 0 && !(spec->query_nope && l->rope >= 0)) scale_queries(s, q);
    attention_spec a = {.heads = l->heads, .kv_heads = l->kv_heads, .head_dim = l->head_dim, .softcap = spec->attn_softcap,
                        .scale = spec->attn_scale > 0 ? spec->attn_scale : (float)pow(l->head_dim, -0.5),
                        .group = l->group, .slot = l->slot, .bidirectional = l->bidirectional, .whole_blocks = l->whole_blocks,
                        .sinks = w->sinks};
    tensor out = op_attention(r, q, s->rows, &a);
    if (spec->attn_gate) out = op_glu(r, gate, out, ACT_SIGMOID);
    TAP(r, "attn", i, out);
    return op_linear(r, out, &w->o, w->o_bias);
}

/* Every token moves the memory of a recurrent layer on. */
static tensor remember(const step *s, int i, tensor h)
{
    const decoder_spec *spec = &s->d->spec;
    const decoder_layer *w = &s->d->layer[i];
    return spec->conv.kernel ? short_conv_forward(s->r, &spec->conv, &w->conv, s->b, h) : delta_net_forward(s->r, &spec->delta, &w->delta, s->b, h);
}

/* In attention's place; what comes after remembering is for those whose rows are kept. */
static tensor recurrent_layer(step *s, int i, tensor *x, tensor h)
{
    const decoder_spec *spec = &s->d->spec;
    const decoder_layer *w = &s->d->layer[i];
    tensor y = remember(s, i, h);
    if (i == s->d->last_owner && !s->cut && !wants_every_row(s->b)) {
        y = op_gather(s->r, y, s->b->logit_tokens, s->b->n_logits);
        cut(s, x, &h);
    }
    TAP(s->r, "attn", i, y);
    return spec->conv.kernel ? short_conv_finish(s->r, &w->conv, h, y) : delta_net_finish(s->r, &spec->delta, &w->delta, h, y);
}

static tensor mlp(step *s, int i, tensor h)
{
    const decoder_layer *w = &s->d->layer[i];
    float sparse = s->d->spec.layer[i].sparse;
    if (s->d->spec.plain_mlp) {
        h = op_linear(s->r, h, &w->up, w->up_bias);
        op_activate(s->r, h, s->d->spec.act);
        return op_linear(s->r, h, &w->down, w->down_bias);
    }
    if (!(sparse > 0))
        return op_mlp(s->r, h, &(mlp_spec){&w->gate, &w->up, &w->down, w->gate_bias, w->up_bias, w->down_bias, s->d->spec.act});
    tensor y[2];                                                                           /* gate, up [n, ffn] */
    op_linear_group(s->r, h, 2, y, (const weight *[]){&w->gate, &w->up}, (const float *[]){w->gate_bias, w->up_bias});
    keep_outstanding(s->r, y[0], sparse);
    return op_linear(s->r, op_glu(s->r, y[0], y[1], s->d->spec.act), &w->down, w->down_bias);
}

typedef struct expert_kind { const weight *router, *gate_up, *gate, *up, *down; const float *correction; } expert_kind;
/* Each choice of an expert for itself, its share times what it reads. */
static tensor experts_of_scaled(run *r, moe_spec m, tensor h, const int32_t *index, const float *share)
{
    tensor out = run_zeros(r, h.rows, h.cols), factor = run_tensor(r, h.rows, 1);
    int choices = m.top_k;
    int32_t *which = run_alloc(r, (size_t)(h.rows + 1) * sizeof *which);
    float *ones = run_alloc(r, (size_t)(h.rows + 1) * sizeof *ones);
    m.top_k = 1;
    for (int k = 0; k < choices && run_ok(r); k++) {
        for (int64_t i = 0; i < h.rows; i++) {
            which[i] = index[i * choices + k];
            *tensor_row(factor, i) = share[i * choices + k];
            ones[i] = 1;
        }
        tensor x = copy_of(r, h);
        op_scale_rows(r, x, factor);
        op_add_inplace(r, out, op_moe(r, x, &m, which, ones));
    }
    return out;
}

/* router_in: what the router reads; h: what the experts read. */
static tensor experts_of(step *s, const decoder_layer *w, const expert_kind *kind, tensor router_in, tensor h)
{
    const decoder_spec *spec = &s->d->spec;
    run *r = s->r;
    tensor scores = op_linear(r, router_in, kind->router, w->router_bias);                         /* [n, experts] */
    route_spec route = spec->route;
    route.bias = kind->correction;
    size_t chosen = (size_t)h.rows * (size_t)route.top_k;
    int32_t *index = run_alloc(r, (chosen + 1) * sizeof *index);
    float *share = run_alloc(r, (chosen + 1) * sizeof *share);
    op_route(r, index, share, scores, &route);
    for (size_t k = 0; run_ok(r) && w->router_expert_scale && k < chosen; k++) share[k] *= w->router_expert_scale[index[k]];
    moe_spec m = {.experts = spec->experts, .top_k = route.top_k, .act = spec->act, .down = kind->down,
                  .gate_up = kind->gate_up && kind->gate_up->data ? kind->gate_up : NULL,
                  .gate = kind->gate->data ? kind->gate : NULL, .up = kind->up->data ? kind->up : NULL,
                  .gate_up_bias = w->experts_bias, .down_bias = w->experts_down_bias, .limit = spec->moe_limit};
    return spec->moe_scales_inputs ? experts_of_scaled(r, m, h, index, share) : op_moe(r, h, &m, index, share);
}

/* Row i of the present rows belongs to a medium, or to what stands around it. */
static bool takes_media_experts(const step *s, int i)
{
    int t = s->cut ? s->b->logit_tokens[i] : i;
    if (s->b->is_media && s->b->is_media[t]) return true;
    for (size_t k = 0; k < sizeof s->d->spec.media_marks / sizeof *s->d->spec.media_marks; k++)
        if (s->b->tokens[t] == s->d->spec.media_marks[k]) return true;
    return false;
}

/* Rows of text and rows of media go to experts of their own. */
static tensor experts_by_kind(step *s, const expert_kind *kinds, const decoder_layer *w, tensor h)
{
    run *r = s->r;
    int32_t *rows[2], n[2] = {0, 0};
    for (int k = 0; k < 2; k++) rows[k] = run_alloc(r, (size_t)(h.rows + 1) * sizeof *rows[k]);
    for (int i = 0; run_ok(r) && i < h.rows; i++) {
        int k = takes_media_experts(s, i);
        rows[k][n[k]++] = i;
    }
    for (int k = 0; k < 2; k++)
        if (!n[!k]) return experts_of(s, w, &kinds[k], h, h);
    tensor out = run_tensor(r, h.rows, h.cols);
    for (int k = 0; k < 2 && run_ok(r); k++) {
        tensor part = op_gather(r, h, rows[k], n[k]);
        op_scatter(r, out, experts_of(s, w, &kinds[k], part, part), rows[k]);
    }
    return out;
}

static tensor experts(step *s, const decoder_layer *w, tensor router_in, tensor h)
{
    const expert_kind kinds[2] = {
        {&w->router, &w->experts_gate_up, &w->experts_gate, &w->experts_up, &w->experts_down, w->router_correction},
        {&w->media_router, NULL, &w->media_gate, &w->media_up, &w->media_down, w->media_correction},
    };
    return s->d->spec.media_ffn ? experts_by_kind(s, kinds, w, h) : experts_of(s, w, kinds, router_in, h);
}

static tensor shared_expert(step *s, const decoder_layer *w, tensor h)
{
    run *r = s->r;
    bool plain = s->d->spec.shared_plain;
    tensor y[3];                                                                           /* gate, up [n, shared_ffn]; share [n, 1] */
    op_linear_group(r, h, plain ? 2 : 3, y, (const weight *[]){&w->shared_gate, &w->shared_up, &w->shared_router}, (const float *[]){NULL, NULL, NULL});
    tensor out = op_linear(r, op_glu(r, y[0], y[1], s->d->spec.act), &w->shared_down, NULL);
    if (plain) return out;
    op_activate(r, y[2], ACT_SIGMOID);
    op_scale_rows(r, out, y[2]);
    return out;
}

/* h: what the MLP reads; x: what came before its norm. */
static tensor feed_forward(step *s, int i, tensor x, tensor h)
{
    const decoder_spec *spec = &s->d->spec;
    const decoder_layer_spec *l = &spec->layer[i];
    const decoder_layer *w = &s->d->layer[i];
    run *r = s->r;
    tensor out;
    if (l->moe && spec->moe == MOE_BESIDE) {
        out = norm(s, mlp(s, i, h), w->moe_post1);
        tensor router_in = op_rmsnorm(r, x, w->router_scale, 0, spec->eps);
        op_scale(r, router_in, (float)pow(spec->hidden, -0.5), NULL);
        tensor e = experts(s, w, router_in, norm(s, x, w->moe_norm));
        op_add_inplace(r, out, norm(s, e, w->moe_post2));
    } else
        out = l->moe ? experts(s, w, h, h) : mlp(s, i, h);
    if (l->moe && spec->shared_ffn) op_add_inplace(r, out, shared_expert(s, w, h));
    TAP(r, "mlp", i, out);
    return out;
}

static void add_level(step *s, int level, const embed_rows *m, tensor x)
{
    if (!s->cut) op_add_inplace(s->r, tensor_rows(x, m->first, m->count), media_view(m, level, 0, m->count));
    for (int k = 0; s->cut && k < s->b->n_logits; k++) {
        int t = s->b->logit_tokens[k] - m->first;
        if (t >= 0 && t < m->count) op_add_inplace(s->r, tensor_rows(x, k, 1), media_view(m, level, t, 1));
    }
}

/* Further levels of media rows (deepstack) are added to what enters some layers. */
static void deepstack(step *s, int i, tensor x)
{
    const int *at = s->d->spec.deepstack;
    for (int e = 0; e < s->b->n_embeds && run_ok(s->r); e++) {
        const embed_rows *m = &s->b->embeds[e];
        for (int level = 1; level < m->rows->levels; level++)
            if ((at ? at[level - 1] : level) == i) add_level(s, level, m, x);
    }
}

static void add_residual(step *s, tensor x, tensor y)
{
    float scale = s->d->spec.residual_scale;
    if (scale > 0) op_add_scaled(s->r, x, y, scale);
    else op_add_inplace(s->r, x, y);
}

/* norm(proj(act(gate x) * input_l)) */
static tensor from_per_layer_input(step *s, int i, tensor x)
{
    const decoder_spec *spec = &s->d->spec;
    const decoder_layer *w = &s->d->layer[i];
    tensor gate = op_linear(s->r, x, &w->ple_gate, NULL);                                  /* [n, ple] */
    if (!run_ok(s->r)) return gate;
    tensor y = op_glu(s->r, gate, tensor_cols(s->ple, (int64_t)i * spec->ple, spec->ple), spec->act);
    return norm(s, op_linear(s->r, y, &w->ple_proj, NULL), w->ple_norm);
}

/* Gemma 3n: x are the streams of altup.h. What the layer makes of the active stream corrects all of them; the per-layer input goes to the others. */
static tensor altup_streams_layer(step *s, int i, tensor x)
{
    const decoder_spec *spec = &s->d->spec;
    const decoder_layer *w = &s->d->layer[i];
    const altup_spec *a = &spec->altup;
    run *r = s->r;
    altup_guess(r, a, &w->altup, spec->eps, x);
    tensor h = norm(s, altup_stream(a, x, a->active), w->norm1);
    tensor y = norm(s, attention(s, i, &x, h), w->post1);
    if (!run_ok(r)) return x;
    tensor active = altup_stream(a, x, a->active);
    if (h.rows != x.rows) h = norm(s, active, w->norm1);                                   /* cut */
    op_add_inplace(r, y, active);
    op_add_inplace(r, y, altup_laurel(r, &w->altup, spec->eps, h));
    op_scale(r, y, (float)sqrt(0.5), NULL);
    op_add_inplace(r, y, norm(s, feed_forward(s, i, y, norm(s, y, w->norm2)), w->post2));
    altup_correct(r, a, &w->altup, spec->eps, x, y);
    y = run_zeros(r, active.rows, active.cols);
    op_add_inplace(r, y, active);
    if (a->scaled) op_scale(r, y, 1, w->altup.output_scale);
    altup_add(r, a, x, from_per_layer_input(s, i, y));
    return x;
}

/* Rows of tokens that have a memory go through, the others stay as they are. */
static void pass_cross_layer(step *s, int i, tensor x)
{
    const cross_view *view = s->cross;
    const decoder_layer *w = &s->d->layer[i];
    run *r = s->r;
    if (!run_ok(r) || !view->n) return;
    run before = *r;                                       /* rows' adapters */
    if (!view->all) run_gather_adapters(r, view->token, view->n);
    tensor own = view->all ? x : op_gather(r, x, view->token, view->n), silent = run_tensor(r, view->n, 1);
    op_add_scaled(r, own, cross_attend(r, &s->d->spec.cross, &w->cross, view, norm(s, own, w->norm1)), w->cross_gate);
    tensor y = mlp(s, i, norm(s, own, w->norm2));
    for (int k = 0; run_ok(r) && k < view->n; k++) *tensor_row(silent, k) = view->blind[k] ? 0 : 1;
    op_scale_rows(r, y, silent);
    op_add_scaled(r, own, y, w->cross_mlp_gate);
    if (view->all) return;
    op_scatter(r, x, own, view->token);
    r->adapters = before.adapters, r->row_adapters = before.row_adapters, r->adapter_rows = before.adapter_rows;
}

bool decoder_remember(run *r, const decoder *d, const memory_fill *fill)
{
    tensor rows = cross_rows(r, fill, d->spec.hidden);
    for (int i = 0; i < d->spec.layers && run_ok(r); i++)
        if (d->spec.layer[i].cross) cross_remember(r, &d->spec.cross, &d->layer[i].cross, fill, rows);
    return run_ok(r);
}

static tensor layer(step *s, int i, tensor x)
{
    if (s->d->spec.altup.streams) return altup_streams_layer(s, i, x);
    if (s->d->spec.layer[i].cross) return pass_cross_layer(s, i, x), x;
    const decoder_spec *spec = &s->d->spec;
    const decoder_layer *w = &s->d->layer[i];
    run *r = s->r;
    bool after = spec->norms == NORM_SANDWICH || spec->norms == NORM_POST;
    tensor h = before_attention(s, i, x);
    tensor y = spec->layer[i].recurrent ? recurrent_layer(s, i, &x, h) : attention(s, i, &x, h);
    if (spec->norms == NORM_PARALLEL) {
        if (s->cut && h.rows != x.rows) h = norm(s, x, w->norm1);
        op_add_inplace(r, y, feed_forward(s, i, x, h));
        add_residual(s, x, y);
    } else {
        add_residual(s, x, after ? norm(s, y, w->post1) : y);
        y = feed_forward(s, i, x, spec->norms == NORM_POST ? x : norm(s, x, w->norm2));
        add_residual(s, x, after ? norm(s, y, w->post2) : y);
    }
    if (!run_ok(r)) return x;                                                              /* no views of what is not there */
    if (spec->ple) op_add_inplace(r, x, from_per_layer_input(s, i, x));
    if (spec->layer_scalar) op_scale(r, x, w->scalar, NULL);
    deepstack(s, i + 1, x);
    return x;
}

/* Rows that somebody wants as they are are handed over; the others remain, in their order. */
static tensor hand_over(run *r, const batch *b, tensor x)
{
    int32_t *left = run_alloc(r, (size_t)(b->n_logits + 1) * sizeof *left), n = 0;
    for (int i = 0; run_ok(r) && i < b->n_logits; i++) {
        if (b->hidden[i]) memcpy(b->hidden[i], tensor_row(x, i), (size_t)x.cols * sizeof(float));
        else left[n++] = i;
    }
    run_gather_adapters(r, left, n);
    return op_gather(r, x, left, n);
}

tensor decoder_forward(run *r, const decoder *d, const batch *b)
{
    const decoder_spec *spec = &d->spec;
    step s = {.r = r, .d = d, .b = b, .rows = &b->ragged};
    tensor nothing = {NULL, DT_F32, 0, spec->vocab, spec->vocab};
    tensor x = embed(&s);                                                                  /* [n, hidden] */
    if (spec->ple) s.ple = per_layer_inputs(&s, x);
    rope_tables(&s);
    deepstack(&s, 0, x);
    if (spec->altup.streams) x = altup_begin(r, &spec->altup, &d->altup, x);               /* [n, streams * hidden] */
    if (d->memory.slots) s.cross = cross_look(r, b, NULL, b->ragged.n_tokens, true);
    for (int i = 0; i < spec->layers && run_ok(r); i++) {
        TAP(r, "hidden", i, spec->altup.streams ? altup_stream(&spec->altup, x, 0) : x);
        arena_mark mark = arena_get_mark(r->scratch);
        if (!b->n_logits && i == d->last_owner) {                                          /* nobody reads what follows */
            if (spec->altup.streams) altup_guess(r, &spec->altup, &d->layer[i].altup, spec->eps, x);
            tensor h = before_attention(&s, i, spec->altup.streams ? altup_stream(&spec->altup, x, spec->altup.active) : x);
            if (spec->layer[i].recurrent) remember(&s, i, h);
            else keys_and_values(&s, i, h);
            return nothing;
        }
        x = layer(&s, i, x);
        if (i != d->last_owner) arena_release(r->scratch, mark);                           /* the cut leaves new tensors behind */
    }
    if (spec->altup.streams && run_ok(r)) x = altup_end(r, &spec->altup, &d->altup, x);
    x = norm(&s, x, d->norm);
    TAP(r, "hidden", spec->layers, x);
    if (b->hidden && run_ok(r)) x = hand_over(r, b, x);
    if (!x.rows) return nothing;
    tensor logits = op_linear(r, x, &d->head, d->head_bias);                                       /* [m, vocab] */
    if (spec->logit_scale > 0) op_scale(r, logits, spec->logit_scale, NULL);
    if (spec->final_softcap > 0) op_softcap(r, logits, spec->final_softcap);
    TAP(r, "logits", 0, logits);
    return run_ok(r) ? logits : nothing;
}
