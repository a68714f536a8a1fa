/* delta_net.c - see delta_net.h. */
#include "blocks/delta_net.h"

#include <math.h>
#include <stdio.h>

static int read_size(config *c, const char *const *prefixes, const char *key, int fallback, int most)
{
    char path[512];
    size_t used = 0;
    for (const char *const *p = prefixes; *p && used < sizeof path; p++)
        used += (size_t)snprintf(path + used, sizeof path - used, "%s%s%s", used ? "|" : "", *p, key);
    return (int)config_int(c, path, fallback, 1, most);
}

bool delta_net_config(delta_net_spec *s, config *c, const char *const *prefixes)
{
    s->key_heads = read_size(c, prefixes, "linear_num_key_heads", 16, 1 << 10);
    s->value_heads = read_size(c, prefixes, "linear_num_value_heads", 32, 1 << 10);
    s->key_dim = read_size(c, prefixes, "linear_key_head_dim", 128, 1 << 12);
    s->value_dim = read_size(c, prefixes, "linear_value_head_dim", 128, 1 << 12);
    s->kernel = read_size(c, prefixes, "linear_conv_kernel_dim", 4, 16);
    if (!c->failed && s->value_heads % s->key_heads)
        return config_fail(c, VLM_FORMAT, "%d value heads of a delta net cannot share %d key heads", s->value_heads, s->key_heads);
    return !c->failed;
}

static int64_t channels(const delta_net_spec *s) { return 2 * (int64_t)s->key_heads * s->key_dim + (int64_t)s->value_heads * s->value_dim; }

static delta_spec rule(const delta_net_spec *s, const delta_net *w)
{
    return (delta_spec){s->key_heads, s->value_heads, s->key_dim, s->value_dim, w->decay, w->bias};
}

static size_t conv_floats(const delta_net_spec *s) { return (size_t)(s->kernel - 1) * (size_t)channels(s); }

size_t delta_net_floats(const delta_net_spec *s)
{
    delta_spec d = rule(s, &(delta_net){0});
    return (conv_floats(s) + delta_floats(&d) + 15) / 16 * 16;
}

/* The kernel with taps in rows, and the decay as the operation wants it. */
static void convert(const delta_net_spec *s, delta_net *w, binder *b, const float *conv, const float *log_a)
{
    int64_t n = channels(s);
    float *turned = arena_alloc_raw(b->memory, (size_t)(n * s->kernel) * sizeof *turned);
    float *decay = arena_alloc_raw(b->memory, (size_t)s->value_heads * sizeof *decay);
    if (!turned || !decay) { bind_fail(b, VLM_MEMORY, "out of memory"); return; }
    for (int64_t c = 0; c < n; c++)
        for (int k = 0; k < s->kernel; k++) turned[k * n + c] = conv[c * s->kernel + k];
    for (int h = 0; h < s->value_heads; h++) decay[h] = -expf(log_a[h]);
    w->conv = turned;
    w->decay = decay;
}

/* n rows of each of `groups` blocks of `block` rows, from row `at` of the block on; -> pick, returns behind them. */
static int32_t *pick_of(int32_t *pick, int groups, int64_t block, int64_t at, int64_t n)
{
    for (int g = 0; g < groups; g++)
        for (int64_t i = 0; i < n; i++) *pick++ = (int32_t)(g * block + at + i);
    return pick;
}

/* Qwen3-Next: each key head's q, k, the v and the z of its value heads lie together; so do its b and a. */
static void bind_by_heads(const delta_net_spec *s, delta_net *w, binder *b, int64_t hidden, int i)
{
    int64_t share = s->value_heads / s->key_heads, keys = s->key_dim, values = share * s->value_dim, all = s->key_heads * 2 * (keys + values);
    int32_t *pick = arena_alloc(b->memory, (size_t)(all + 2 * s->value_heads) * sizeof *pick);
    if (!pick) { bind_fail(b, VLM_MEMORY, "out of memory"); return; }
    int32_t *z = pick_of(pick, s->key_heads, 2 * (keys + values), 0, keys);
    z = pick_of(z, s->key_heads, 2 * (keys + values), keys, keys);
    z = pick_of(z, s->key_heads, 2 * (keys + values), 2 * keys, values);
    int32_t *rate = pick_of(z, s->key_heads, 2 * (keys + values), 2 * keys + values, values);
    int32_t *decay = pick_of(rate, s->key_heads, 2 * share, 0, share);
    pick_of(decay, s->key_heads, 2 * share, share, share);
    bind_linear_picks(b, 2, (weight *[]){&w->qkv, &w->z}, (int64_t[]){channels(s), s->key_heads * values}, (const int32_t *[]){pick, z}, hidden,
                      "layers.%d.linear_attn.in_proj_qkvz", i);
    bind_linear_picks(b, 2, (weight *[]){&w->b, &w->a}, (int64_t[]){s->value_heads, s->value_heads}, (const int32_t *[]){rate, decay}, hidden,
                      "layers.%d.linear_attn.in_proj_ba", i);
}

void delta_net_bind(const delta_net_spec *s, delta_net *w, binder *b, int64_t hidden, int i)
{
    int64_t values = (int64_t)s->value_heads * s->value_dim;
    const float *conv = NULL, *log_a = NULL;
    if (b->files && bind_exists(b, "layers.%d.linear_attn.in_proj_qkvz.weight", i)) bind_by_heads(s, w, b, hidden, i);
    else {
        bind_linear(b, &w->qkv, channels(s), hidden, "layers.%d.linear_attn.in_proj_qkv", i);
        bind_linear(b, &w->z, values, hidden, "layers.%d.linear_attn.in_proj_z", i);
        bind_linear(b, &w->b, s->value_heads, hidden, "layers.%d.linear_attn.in_proj_b", i);
        bind_linear(b, &w->a, s->value_heads, hidden, "layers.%d.linear_attn.in_proj_a", i);
    }
    bind_linear(b, &w->out, hidden, values, "layers.%d.linear_attn.out_proj", i);
    bind_conv1d_depthwise(b, &conv, channels(s), s->kernel, "layers.%d.linear_attn.conv1d", i);
    bind_vector(b, &log_a, s->value_heads, "layers.%d.linear_attn.A_log", i);
    bind_vector(b, &w->bias, s->value_heads, "layers.%d.linear_attn.dt_bias", i);
    bind_vector(b, &w->norm, s->value_dim, "layers.%d.linear_attn.norm.weight", i);
    if (!b->failed) convert(s, w, b, conv, log_a);
}

tensor delta_net_forward(run *r, const delta_net_spec *s, const delta_net *w, const batch *b, tensor h)
{
    int64_t keys = (int64_t)s->key_heads * s->key_dim, values = (int64_t)s->value_heads * s->value_dim;
    run_memory memory = {(const void *const *)b->state[0], b->state[1], w->at};
    delta_spec d = rule(s, w);
    tensor y[3];                                                           /* qkv [n, channels]; a, b [n, value_heads] */
    op_linear_group(r, h, 3, y, (const weight *[]){&w->qkv, &w->a, &w->b}, (const float *[]){NULL, NULL, NULL});
    tensor x = op_conv1d_causal(r, y[0], &b->ragged, w->conv, NULL, s->kernel, ACT_SILU, &memory);
    if (!run_ok(r)) return x;
    memory.offset += conv_floats(s);
    return op_delta_rule(r, tensor_cols(x, 0, keys), tensor_cols(x, keys, keys), tensor_cols(x, 2 * keys, values), y[1], y[2], &b->ragged, &d, &memory);
}

tensor delta_net_finish(run *r, const delta_net_spec *s, const delta_net *w, tensor h, tensor y)
{
    op_rmsnorm_heads(r, y, w->norm, 0, s->eps, s->value_dim);
    return op_linear(r, op_glu(r, op_linear(r, h, &w->z, NULL), y, ACT_SILU), &w->out, NULL);
}
