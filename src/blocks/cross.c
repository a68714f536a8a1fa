/* cross.c - see cross.h. */
#include "blocks/cross.h"

#include <math.h>
#include <string.h>

tensor cross_rows(run *r, const memory_fill *fill, int64_t cols)
{
    tensor x = run_tensor(r, fill->ragged.n_tokens, cols);
    for (int i = 0; i < fill->n_sources && run_ok(r); i++) {
        const embed_rows *s = &fill->sources[i];
        if (s->rows->cols != cols || s->first < 0 || s->first + s->count > x.rows || s->offset < 0 || s->offset + s->count > s->rows->count)
            run_fail(r, VLM_INTERNAL, "encoder rows [%d, %d) of %d x %d do not fit a memory of %lld columns", s->offset, s->offset + s->count,
                     s->rows->count, s->rows->cols, (long long)cols);
        else memcpy(tensor_row(x, s->first), s->rows->data + (int64_t)s->offset * cols, (size_t)s->count * (size_t)cols * sizeof(float));
    }
    return x;
}

void cross_remember(run *r, const cross_spec *s, const cross_layer *w, const memory_fill *fill, tensor rows)
{
    arena_mark mark = arena_get_mark(r->scratch);
    tensor y[2] = {{0}};
    op_linear_group(r, rows, 2, y, (const weight *[]){&w->k, &w->v}, (const float *[]){w->k_bias, w->v_bias});
    if (w->k_norm) op_rmsnorm_heads(r, y[0], w->k_norm, 0, s->eps, s->head_dim);
    op_kv_write(r, &fill->ragged, 0, w->slot, y[0], y[1]);
    arena_release(r->scratch, mark);
}

/* A range [from, to) in the words of ragged.h: a window of one position at its end, which whole_blocks opens down to `from`. */
const cross_view *cross_look(run *r, const batch *b, const int32_t *tokens, int n, bool blind_see_all)
{
    size_t size = (size_t)n + 1;
    cross_view *view = run_alloc(r, sizeof *view);
    int32_t *first = run_alloc(r, size * sizeof *first), *position = run_alloc(r, size * sizeof *position);
    int32_t *see_from = run_alloc(r, size * sizeof *see_from), *see_to = run_alloc(r, size * sizeof *see_to);
    void *const **tables = run_alloc(r, size * sizeof *tables);
    int32_t *run_of = run_alloc(r, size * sizeof *run_of), *token = run_alloc(r, size * sizeof *token);
    uint8_t *blind = run_alloc(r, size);
    if (!run_ok(r)) return NULL;
    int count = 0, runs = 0;
    for (int i = 0; i < n; i++) {
        int t = tokens ? tokens[i] : i, seq = b->ragged.token_run[t];
        bool none = b->memory_from[t] >= b->memory_to[t];
        if (!b->memory_rows[seq] || (none && !blind_see_all)) continue;
        token[count] = i;
        blind[count] = none;
        see_from[count] = none ? 0 : b->memory_from[t];
        see_to[count] = none ? b->memory_rows[seq] : b->memory_to[t];
        position[count] = see_to[count] - 1;
        if (!runs || tables[runs - 1] != b->memory_pages[seq]) { first[runs] = count; tables[runs++] = b->memory_pages[seq]; }
        run_of[count++] = runs - 1;
        first[runs] = count;
    }
    *view = (cross_view){.token = token, .blind = blind, .n = count, .all = count == n};
    view->ragged = (ragged){.n_tokens = count, .n_runs = runs, .run_first = first, .token_run = run_of, .run_position = position,
                            .token_position = position, .see_to = see_to, .see_from = see_from, .n_groups = 1, .group = {b->memory},
                            .pages = {(void *const *const *)tables}};
    view->ragged.group[0].window = 1;
    return view;
}

tensor cross_attend(run *r, const cross_spec *s, const cross_layer *w, const cross_view *view, tensor h)
{
    tensor q = op_linear(r, h, &w->q, w->q_bias);
    if (w->q_norm) op_rmsnorm_heads(r, q, w->q_norm, 0, s->eps, s->head_dim);
    attention_spec a = {.heads = s->heads, .kv_heads = s->kv_heads, .head_dim = s->head_dim, .scale = (float)pow(s->head_dim, -0.5),
                        .group = 0, .slot = w->slot, .bidirectional = true, .whole_blocks = true};
    return op_linear(r, op_attention(r, q, &view->ragged, &a), &w->o, w->o_bias);
}
