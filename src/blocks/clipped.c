/* clipped.c - see clipped.h. */
#include "blocks/clipped.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static float bind_bound(binder *b, bool clipped, const char *name, const char *which, float none)
{
    const float *value = NULL;
    if (clipped && bind_exists(b, "%s.%s", name, which) && bind_vector_optional(b, &value, 1, "%s.%s", name, which)) {
        return value[0];
    }
    return none;
}

void clipped_bind(binder *b, clipped_linear *l, bool clipped, int64_t rows, int64_t cols, const char *format, ...)
{
    char name[256];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    memset(l, 0, sizeof *l);
    if (!bind_linear_optional(b, &l->w, rows, cols, "%s.linear", name)) {
        bind_linear(b, &l->w, rows, cols, "%s", name);
    }
    l->in_min = bind_bound(b, clipped, name, "input_min", -INFINITY);
    l->in_max = bind_bound(b, clipped, name, "input_max", INFINITY);
    l->out_min = bind_bound(b, clipped, name, "output_min", -INFINITY);
    l->out_max = bind_bound(b, clipped, name, "output_max", INFINITY);
}

static void clip(run *r, tensor x, float lo, float hi)
{
    if (isfinite(lo) || isfinite(hi)) op_clip(r, x, lo, hi);
}

tensor clipped_apply(run *r, const clipped_linear *l, tensor x)
{
    clip(r, x, l->in_min, l->in_max);
    tensor y = op_linear(r, x, &l->w, NULL);
    clip(r, y, l->out_min, l->out_max);
    return y;
}

/* Bounds are measured on the input, so layers that read the same x usually share them: then one pass clips for all. */
void clipped_apply_many(run *r, const clipped_linear *const *l, int n, tensor x, tensor *out)
{
    const weight *w[LINEAR_GROUP_MAX];
    const float *bias[LINEAR_GROUP_MAX] = {NULL};
    bool same = n <= LINEAR_GROUP_MAX;
    for (int i = 1; i < n; i++) same = same && l[i]->in_min == l[0]->in_min && l[i]->in_max == l[0]->in_max;
    if (same) {
        for (int i = 0; i < n; i++) w[i] = &l[i]->w;
        clip(r, x, l[0]->in_min, l[0]->in_max);
        op_linear_group(r, x, n, out, w, bias);
        for (int i = 0; i < n; i++) clip(r, out[i], l[i]->out_min, l[i]->out_max);
        return;
    }
    for (int i = 0; i < n; i++) {
        tensor copy = run_zeros(r, x.rows, x.cols);
        op_add_inplace(r, copy, x);
        out[i] = clipped_apply(r, l[i], copy);
    }
}
