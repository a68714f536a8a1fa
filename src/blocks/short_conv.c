/* short_conv.c - see short_conv.h. */
#include "blocks/short_conv.h"

size_t short_conv_floats(const short_conv_spec *s, int64_t hidden)
{
    return ((size_t)(s->kernel - 1) * (size_t)hidden + 15) / 16 * 16;
}

void short_conv_bind(const short_conv_spec *s, short_conv *w, binder *b, int64_t hidden, int i)
{
    const float *conv = NULL, *bias = NULL;
    bind_linear_parts(b, 3, (weight *[]){&w->b, &w->c, &w->x}, (int64_t[]){hidden, hidden, hidden}, hidden, "layers.%d.conv.in_proj", i);
    bind_linear(b, &w->out, hidden, hidden, "layers.%d.conv.out_proj", i);
    bind_conv1d_depthwise(b, &conv, hidden, s->kernel, "layers.%d.conv.conv", i);
    if (s->bias) {
        bind_vector(b, &bias, 3 * hidden, "layers.%d.conv.in_proj.bias", i);
        bind_vector(b, &w->out_bias, hidden, "layers.%d.conv.out_proj.bias", i);
        bind_vector(b, &w->taps_bias, hidden, "layers.%d.conv.conv.bias", i);
    }
    if (b->failed) return;
    if (bias) { w->b_bias = bias; w->c_bias = bias + hidden; w->x_bias = bias + 2 * hidden; }
    float *turned = arena_alloc_raw(b->memory, (size_t)(hidden * s->kernel) * sizeof *turned);          /* taps in rows */
    if (!turned) { bind_fail(b, VLM_MEMORY, "out of memory"); return; }
    for (int64_t c = 0; c < hidden; c++)
        for (int k = 0; k < s->kernel; k++) turned[k * hidden + c] = conv[c * s->kernel + k];
    w->taps = turned;
}

tensor short_conv_forward(run *r, const short_conv_spec *s, const short_conv *w, const batch *b, tensor h)
{
    run_memory memory = {(const void *const *)b->state[0], b->state[1], w->at};
    tensor y[2];                                                             /* b, x [n, hidden] */
    op_linear_group(r, h, 2, y, (const weight *[]){&w->b, &w->x}, (const float *[]){w->b_bias, w->x_bias});
    return op_conv1d_causal(r, op_glu(r, y[0], y[1], ACT_NONE), &b->ragged, w->taps, w->taps_bias, s->kernel, ACT_NONE, &memory);
}

tensor short_conv_finish(run *r, const short_conv *w, tensor h, tensor y)
{
    return op_linear(r, op_glu(r, op_linear(r, h, &w->c, w->c_bias), y, ACT_NONE), &w->out, w->out_bias);
}
