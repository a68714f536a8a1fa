/* bind_adapter.c - see bind.h, adapter.h: what adapters change about a matrix, as a list beside it (tensor.h, low_rank).
 *
 * A module is asked for under every prefix that the binder knows, like the matrix itself. DoRA's norms |W + scale B A| of each output
 * are computed here, once; what is left for each row is a factor for each output. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/thread.h"
#include "weights/bind_internal.h"

/* One adapter and one module of it. */
typedef struct part { adapter *a; char module[NAME_MAX_BYTES]; } part;

static bool wrong(binder *b, const part *p, const stored_tensor *t, int64_t rows, int64_t cols)
{
    const char *base = adapter_base(p->a);
    bind_fail(b, VLM_FORMAT, "adapter %s: %s has shape [%lld, %lld], [%lld, %lld] was expected", adapter_name(p->a), t->name, (long long)(t->dims > 0 ? t->dim[0] : 0),
              (long long)(t->dims > 1 ? t->dim[1] : 1), (long long)rows, (long long)cols);
    if (*base) err_hint(&b->error, "it was made for %.150s", base);
    else err_hint(&b->error, "it belongs to another model");
    return false;
}

/* [rows, cols], or a kernel [rows, ...] whose row has cols values in the order of a flattened patch (bind_conv3d). */
static bool is_matrix(const stored_tensor *t, int64_t rows, int64_t cols)
{
    if (t->dims == 2) return t->dim[0] == rows && t->dim[1] == cols;
    return t->dims > 2 && t->dim[0] == rows && t->bytes / dtype_size(t->type) == (uint64_t)rows * (uint64_t)cols;
}

/* The two matrices of a low-rank product: t as [rows, cols], or lying transposed. */
static bool take_matrix(binder *b, const part *p, weight *w, const stored_tensor *t, int64_t rows, int64_t cols, bool transposed)
{
    *w = (weight){.rows = rows, .cols = cols, .name = t->name};
    int64_t dim[2] = {transposed ? cols : rows, transposed ? rows : cols};
    if (!is_matrix(t, dim[0], dim[1]) || (transposed && t->dims != 2)) return wrong(b, p, t, dim[0], dim[1]);
    if (!bind_plain_format(b, w, t)) return err_prefix(&b->error, "adapter %s", adapter_name(p->a));
    if (!transposed) return (w->data = bind_aligned(b, t)) != NULL;
    size_t unit = dtype_size(t->type);
    char *copy = arena_alloc_raw(b->memory, t->bytes ? t->bytes : 1);
    if (!copy) return bind_memory(b, t->bytes);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++) memcpy(copy + (size_t)(r * cols + c) * unit, (const char *)t->data + (size_t)(c * rows + r) * unit, unit);
    w->data = copy;
    return true;
}

static bool take_vector(binder *b, const part *p, const float **out, const stored_tensor *t, int64_t n)
{
    if (!t) return true;
    if ((int64_t)(t->bytes / dtype_size(t->type)) != n) return wrong(b, p, t, n, 1);
    return (*out = bind_floats_of(b, t)) != NULL;
}

/* ---- DoRA ------------------------------------------------------------------------------------------------------------ */

/* rows: what is common to all rows, widened: down, or of a table up. */
typedef struct norm_job { const weight *w; const low_rank *l; float *rows, *columns; } norm_job;

/* Row `row` of W + scale * up . down; of a table, of its transpose (w's own rows are tokens, outputs are columns). */
static void adapted_row(const norm_job *j, int64_t row, float *out, float *line)
{
    const low_rank *l = j->l;
    const weight *left = l->table ? &l->down : &l->up;
    int64_t rank = left->cols;
    float *factor = line;
    weight_row_f32(j->w, row, out);
    weight_row_f32(left, row, factor);
    for (int64_t k = 0; k < rank; k++) {
        const float f = l->scale * factor[k];
        if (l->table) {                            /* up is [cols, rank] */
            for (int64_t c = 0; c < j->w->cols; c++) out[c] += f * j->rows[c * rank + k];
        } else {
            const float *down = j->rows + k * j->w->cols;
            for (int64_t c = 0; c < j->w->cols; c++) out[c] += f * down[c];
        }
    }
}

static void row_norms(void *arg, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const norm_job *j = arg;
    float *out = mem_aligned((size_t)(j->w->cols + j->l->up.cols + 16) * sizeof *out), *line = out ? out + j->w->cols : NULL;
    for (int64_t row = begin; row < end; row++) {
        double squares = 0;
        if (!out) { j->columns[row] = NAN; continue; }
        adapted_row(j, row, out, line);
        for (int64_t c = 0; c < j->w->cols; c++) squares += (double)out[c] * out[c];
        j->columns[row] /= (float)sqrt(squares);
    }
    mem_free(out);
}

/* Of a table each column has a norm, over all rows. */
static bool column_norms(norm_job *j)
{
    float *out = mem_aligned((size_t)(j->w->cols + j->l->up.cols + 16) * sizeof *out);
    double *squares = out ? MEM_ARRAY((size_t)j->w->cols, double) : NULL;
    for (int64_t row = 0; squares && row < j->w->rows; row++) {
        adapted_row(j, row, out, out + j->w->cols);
        for (int64_t c = 0; c < j->w->cols; c++) squares[c] += (double)out[c] * out[c];
    }
    for (int64_t c = 0; squares && c < j->w->cols; c++) j->columns[c] /= (float)sqrt(squares[c]);
    bool ok = squares != NULL;
    mem_free(out);
    mem_free(squares);
    return ok;
}

/* columns = magnitude / |W + scale B A|. */
static bool take_magnitude(binder *b, const part *p, low_rank *l, const weight *w, const stored_tensor *t)
{
    if (l->instead) w = l->instead;
    int64_t outputs = l->table ? w->cols : w->rows;
    const weight *inner = l->table ? &l->up : &l->down;
    const float *magnitude = NULL;
    if (!t) return true;
    if (!take_vector(b, p, &magnitude, t, outputs)) return false;
    size_t bytes;
    if (!mem_mul((size_t)(inner->rows * inner->cols), sizeof(float), &bytes)) return bind_memory(b, SIZE_MAX);
    float *columns = arena_alloc_raw(b->memory, (size_t)outputs * sizeof *columns), *rows = mem_aligned(bytes ? bytes : 1);
    bool ok = columns && rows;
    if (ok) {
        memcpy(columns, magnitude, (size_t)outputs * sizeof *columns);
        for (int64_t r = 0; r < inner->rows; r++) weight_row_f32(inner, r, rows + r * inner->cols);
        norm_job job = {.w = w, .l = l, .rows = rows, .columns = columns};
        if (l->table) ok = column_norms(&job);
        else pool_for(b->dev ? b->dev->pool : NULL, w->rows, 8, row_norms, &job);
    }
    mem_free(rows);
    if (!ok) return bind_memory(b, bytes);
    for (int64_t i = 0; i < outputs; i++)
        if (!isfinite(columns[i])) return bind_fail(b, VLM_FORMAT, "adapter %s: %s: no magnitude can be given to output %lld, whose norm is 0", adapter_name(p->a), t->name, (long long)i);
    l->columns = columns;
    return true;
}

/* ---- one module ---------------------------------------------------------------------------------------------------------- */

static bool take_product(binder *b, const part *p, low_rank *l, const weight *w, const stored_tensor *down, const stored_tensor *up, bool transposed)
{
    double scale;
    if (!down || !up)
        return bind_fail(b, VLM_FORMAT, "adapter %s: %s has no counterpart", adapter_name(p->a), down ? down->name : up->name);
    int64_t rank = up->dims >= 2 ? up->dim[transposed ? 0 : 1] : 0;
    if (rank < 1) return wrong(b, p, up, w->rows, 1);
    if (!adapter_scale(p->a, p->module, rank, &scale, &b->error)) return b->failed = true, false;
    l->scale = (float)scale;
    if (l->table) return take_matrix(b, p, &l->down, down, w->rows, rank, true) && take_matrix(b, p, &l->up, up, w->cols, rank, false);
    return take_matrix(b, p, &l->down, down, rank, w->cols, transposed) && take_matrix(b, p, &l->up, up, w->rows, rank, transposed);
}

static bool take_instead(binder *b, const part *p, low_rank *l, const weight *w, const stored_tensor *t)
{
    if (!t) return true;
    weight *whole = arena_alloc(b->memory, sizeof *whole);
    if (!whole) return bind_memory(b, sizeof *whole);
    l->instead = whole;
    return take_matrix(b, p, whole, t, w->rows, w->cols, false);
}

static low_rank *new_link(binder *b, const part *p, int bit, bool table)
{
    low_rank *l = arena_alloc(b->memory, sizeof *l);
    if (!l) return bind_memory(b, sizeof *l), NULL;
    *l = (low_rank){.adapter = bit, .table = table, .scale = 1};
    if (!b->in_decoder) adapter_touches_media(p->a);
    return l;
}

static bool hang(binder *b, weight *w, low_rank *l)
{
    const low_rank **end = &w->low_rank;
    while (*end) end = (const low_rank **)(uintptr_t)&(*end)->next;
    *end = l;
    return true;
}

/* Rows [first, first + w->rows) of what l does. */
static low_rank *slice(binder *b, const low_rank *l, int64_t first, int64_t rows)
{
    low_rank *own = arena_alloc(b->memory, sizeof *own);
    weight *whole = l->instead ? arena_alloc(b->memory, sizeof *whole) : NULL;
    if (!own || (l->instead && !whole)) return bind_memory(b, sizeof *own), NULL;
    *own = *l;
    own->next = NULL;
    if (l->up.data) own->up = weight_rows(&l->up, first, rows);
    if (l->up_bias) own->up_bias += first;
    if (l->columns) own->columns += first;
    if (l->bias) own->bias += first;
    if (whole) *whole = weight_rows(l->instead, first, rows), own->instead = whole;
    return own;
}

static bool hang_all(binder *b, weight *w, low_rank *l, int count, weight *const *parts, const int64_t *rows)
{
    if (!parts) return hang(b, w, l);
    int64_t first = 0;
    for (int i = 0; i < count; first += rows[i++]) {
        low_rank *own = slice(b, l, first, rows[i]);
        if (!own || !hang(b, parts[i], own)) return false;
    }
    return true;
}

/* What adapter `bit` does to matrix w as module p. False after a failure; *any: it does something. */
static bool take_module(binder *b, const part *p, int bit, weight *w, int count, weight *const *parts, const int64_t *rows, bool *any)
{
    const stored_tensor *t[ADAPTER_UNKNOWN];
    *any = false;
    for (int role = 0; role < ADAPTER_UNKNOWN; role++) *any |= (t[role] = adapter_find(p->a, p->module, (adapter_role)role)) != NULL;
    if (!*any) return true;
    for (int role = 0; role < ADAPTER_UNKNOWN && !adapter_chosen_by_user(p->a); role++)
        if (t[role] && b->used) b->used[t[role] - checkpoint_at(b->files, 0)] = 1;
    bool peft = t[ADAPTER_DOWN] || t[ADAPTER_UP], mlx = t[ADAPTER_DOWN_T] || t[ADAPTER_UP_T], table = t[ADAPTER_TABLE_DOWN] || t[ADAPTER_TABLE_UP];
    if (peft + mlx + table > 1) return bind_fail(b, VLM_FORMAT, "adapter %s: %s is adapted in two ways", adapter_name(p->a), p->module);
    if (t[ADAPTER_MAGNITUDE] && !peft && !mlx && !table) return bind_fail(b, VLM_FORMAT, "adapter %s: %s has no counterpart", adapter_name(p->a), t[ADAPTER_MAGNITUDE]->name);
    if (peft || mlx || t[ADAPTER_WEIGHT] || t[ADAPTER_BIAS]) {
        low_rank *l = new_link(b, p, bit, false);
        if (!l || !take_vector(b, p, &l->bias, t[ADAPTER_BIAS], w->rows) || !take_instead(b, p, l, w, table ? NULL : t[ADAPTER_WEIGHT])) return false;
        if ((peft || mlx) && (!take_product(b, p, l, w, t[mlx ? ADAPTER_DOWN_T : ADAPTER_DOWN], t[mlx ? ADAPTER_UP_T : ADAPTER_UP], mlx) ||
                              !take_vector(b, p, &l->up_bias, t[ADAPTER_UP_BIAS], w->rows) || !take_magnitude(b, p, l, w, t[ADAPTER_MAGNITUDE])))
            return false;
        if ((l->down.data || l->bias || l->instead) && !hang_all(b, w, l, count, parts, rows)) return false;
    }
    if (parts || (!table && !t[ADAPTER_WEIGHT])) return true;
    low_rank *l = new_link(b, p, bit, true);
    if (!l || !take_instead(b, p, l, w, t[ADAPTER_WEIGHT]) || !hang(b, w, l)) return false;
    return !table || (take_product(b, p, l, w, t[ADAPTER_TABLE_DOWN], t[ADAPTER_TABLE_UP], false) && take_magnitude(b, p, l, w, t[ADAPTER_MAGNITUDE]));
}

bool bind_low_rank(binder *b, weight *w, const char *name, int count, weight *const *parts, const int64_t *rows)
{
    for (int bit = 0; b->adapters && bit < b->adapters->count; bit++) {
        bool any = false;
        for (int i = 0; b->prefixes[i] && !any; i++) {
            part p = {.a = b->adapters->list[bit]};
            int n = snprintf(p.module, sizeof p.module, "%s%s", b->prefixes[i], name);
            if (n > 0 && (size_t)n < sizeof p.module && !take_module(b, &p, bit, w, count, parts, rows, &any)) return false;
        }
    }
    return true;
}

void bind_adapters(binder *b, weight *w, const char *format, ...)
{
    char name[NAME_MAX_BYTES / 2];
    if (b->failed || !w->data) return;
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    bind_low_rank(b, w, name, 0, NULL, NULL);
}

/* ---- adapters that come with a checkpoint ---------------------------------------------------------------------------------- */

int bind_built_in_adapter(binder *b, const char *name, double scale)
{
    int bit = 0;
    if (b->failed) return 0;
    if (!b->adapters) bind_fail(b, VLM_INTERNAL, "no place for adapter %s", name);
    else if (!adapters_built_in(b->adapters, name, b->files, scale, &bit, &b->error)) b->failed = true;
    return bit;
}
