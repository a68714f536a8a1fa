/* mobilenet.c - see mobilenet.h. The reference is timm's mobilenetv5.py. */
#include "blocks/mobilenet.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const float EPS = 1e-6f;

/* ---- config ------------------------------------------------------------------------------------------------------- */

/* times: that many blocks alike. */
static const struct { int stage, times, start, mid, stride, widen, channels, heads, dim; mobile_kind kind; } plan[] = {
    {0, 1, 0, 0, 2, 4, 128, 0, 0, MOBILE_EDGE},
    {0, 2, 0, 0, 1, 4, 128, 0, 0, MOBILE_EDGE},
    {1, 1, 3, 5, 2, 6, 256, 0, 0, MOBILE_INVERTED},
    {1, 1, 5, 0, 1, 4, 256, 0, 0, MOBILE_INVERTED},
    {1, 1, 3, 0, 1, 4, 256, 0, 0, MOBILE_INVERTED},
    {1, 1, 5, 0, 1, 4, 256, 0, 0, MOBILE_INVERTED},
    {1, 1, 3, 0, 1, 4, 256, 0, 0, MOBILE_INVERTED},
    {2, 1, 5, 5, 2, 6, 640, 0, 0, MOBILE_INVERTED},
    {2, 7, 5, 0, 1, 4, 640, 0, 0, MOBILE_INVERTED},
    {2, 1, 0, 0, 1, 1, 640, 0, 0, MOBILE_INVERTED},
    {2, 14, 0, 0, 1, 2, 640, 12, 64, MOBILE_ATTENTION},      /* each followed by an inverted block; keys and values at half the size */
    {3, 1, 5, 5, 2, 6, 1280, 0, 0, MOBILE_INVERTED},
    {3, 19, 0, 0, 1, 2, 1280, 16, 96, MOBILE_ATTENTION},
};

/* The multiple of 8 that is nearest, and not smaller by more than a tenth. */
static int multiple_of_8(double v)
{
    int n = (int)(v + 4) / 8 * 8;
    if (n < 8) n = 8;
    return n < 0.9 * v ? n + 8 : n;
}

static mobile_block *add_block(mobilenet *t, mobile_kind kind, int stage, int in, int out)
{
    int index = t->n_blocks && t->block[t->n_blocks - 1].stage == stage ? t->block[t->n_blocks - 1].index + 1 : 0;
    mobile_block *b = &t->block[t->n_blocks++];
    *b = (mobile_block){.kind = kind, .stage = stage, .index = index, .in = in, .out = out, .stride = 1};
    return b;
}

static void add_blocks(mobilenet *t, double multiplier)
{
    int in = t->stem;
    for (size_t p = 0; p < sizeof plan / sizeof *plan; p++) {
        int out = multiple_of_8(plan[p].channels * multiplier);
        for (int i = 0; i < plan[p].times; i++, in = out) {
            if (plan[p].kind == MOBILE_ATTENTION) {
                mobile_block *b = add_block(t, MOBILE_ATTENTION, plan[p].stage, in, out);
                b->heads = plan[p].heads;
                b->dim = plan[p].dim;
                b->stride = plan[p].stage == 2 ? 2 : 1;
            }
            mobile_block *b = add_block(t, plan[p].kind == MOBILE_EDGE ? MOBILE_EDGE : MOBILE_INVERTED, plan[p].stage, in, out);
            b->start = plan[p].start;
            b->mid = plan[p].mid;
            b->stride = plan[p].stride;
            b->middle = multiple_of_8((double)in * plan[p].widen);
        }
    }
}

static int stage_channels(const mobilenet *t, int stage)
{
    int channels = 0;
    for (int i = 0; i < t->n_blocks; i++)
        if (t->block[i].stage == stage) channels = t->block[i].out;
    return channels;
}

bool mobilenet_config(mobilenet *t, config *c, int side)
{
    const char *name = config_string(c, "vision_config.architecture", "mobilenetv5_300m_enc");
    double multiplier = config_number(c, "vision_config.model_args.channel_multiplier", 1);
    int features = (int)config_int(c, "vision_config.hidden_size", MOBILENET_FEATURES, 1, 1 << 16);
    const json_t *others = config_get(c, "vision_config.model_args");
    if (c->failed) return false;
    if (strcmp(name, "mobilenetv5_300m_enc")) return config_fail(c, VLM_UNSUPPORTED, "vision_config.architecture \"%.60s\"; mobilenetv5_300m_enc is known", name);
    if (json_object_size(others) > (json_object_get(others, "channel_multiplier") != NULL))
        return config_fail(c, VLM_UNSUPPORTED, "vision_config.model_args: only channel_multiplier is known");
    if (!(multiplier > 0 && multiplier <= 8)) return config_fail(c, VLM_FORMAT, "vision_config.model_args.channel_multiplier %g", multiplier);
    if (features != MOBILENET_FEATURES) return config_fail(c, VLM_FORMAT, "vision_config.hidden_size %d: the tower gives %d", features, MOBILENET_FEATURES);
    if (side < 1 || side > 1 << 14 || side % (16 * MOBILENET_SIDE))
        return config_fail(c, VLM_UNSUPPORTED, "pictures of %d x %d: a multiple of %d was expected", side, side, 16 * MOBILENET_SIDE);
    t->side = side;
    t->stem = multiplier < 1 ? 64 : multiple_of_8(64 * multiplier);
    t->n_blocks = 0;
    add_blocks(t, multiplier);
    int in = stage_channels(t, 2) + stage_channels(t, 3);
    t->fusion = (mobile_block){.kind = MOBILE_INVERTED, .in = in, .middle = multiple_of_8(2.0 * in), .out = MOBILENET_FEATURES, .stride = 1};
    return true;
}

double mobilenet_flops(const mobilenet *t)
{
    double sum = 0, side = t->side / 2;
    for (int i = 0; i < t->n_blocks; i++) {
        const mobile_block *b = &t->block[i];
        if (b->kind != MOBILE_ATTENTION) side /= b->stride;
        sum += 2 * side * side * b->middle * (b->in * (b->kind == MOBILE_EDGE ? 9.0 : 1.0) + b->out);
        sum += 4 * side * side * b->heads * b->dim * (b->in + side * side / b->stride / b->stride);
    }
    return sum;
}

/* ---- weights ------------------------------------------------------------------------------------------------------ */

/* A kernel for each channel, [channels][side * side] in the file, as rows of channels. */
static void bind_taps(binder *b, const float **out, int channels, int side, const char *block, const char *name)
{
    const float *taps = NULL;
    int n = side * side;
    bind_vector(b, &taps, (int64_t)channels * n, "%s%s.weight", block, name);
    float *turned = b->failed ? NULL : arena_alloc_raw(b->memory, (size_t)channels * (size_t)n * sizeof *turned);
    if (!turned && !b->failed) bind_fail(b, VLM_MEMORY, "out of memory");
    for (int c = 0; turned && c < channels; c++)
        for (int k = 0; k < n; k++) turned[k * channels + c] = taps[c * n + k];
    *out = turned;
}

#define POINT(w, outputs, inputs, name) bind_conv3d(b, w, outputs, inputs, 1, 1, 1, "%s" name, p)
#define VECTOR(v, n, name) bind_vector(b, v, n, "%s" name, p)

/* p: "blocks.2.9." */
static void bind_block(mobile_block *m, binder *b, const char *p, bool scaled)
{
    if (m->kind == MOBILE_EDGE) {
        bind_conv2d(b, &m->expand, m->middle, m->in, 3, 3, "%sconv_exp", p);
        VECTOR(&m->expand_norm, m->middle, "bn1.weight");
        POINT(&m->project, m->out, m->middle, "conv_pwl");
        VECTOR(&m->project_norm, m->out, "bn2.weight");
        return;
    }
    if (scaled) VECTOR(&m->gamma, m->out, "layer_scale.gamma");
    if (m->kind == MOBILE_INVERTED) {
        if (m->start) bind_taps(b, &m->start_taps, m->in, m->start, p, "dw_start.conv");
        if (m->start) VECTOR(&m->start_norm, m->in, "dw_start.bn.weight");
        POINT(&m->expand, m->middle, m->in, "pw_exp.conv");
        VECTOR(&m->expand_norm, m->middle, "pw_exp.bn.weight");
        if (m->mid) bind_taps(b, &m->mid_taps, m->middle, m->mid, p, "dw_mid.conv");
        if (m->mid) VECTOR(&m->mid_norm, m->middle, "dw_mid.bn.weight");
        POINT(&m->project, m->out, m->middle, "pw_proj.conv");
        VECTOR(&m->project_norm, m->out, "pw_proj.bn.weight");
        return;
    }
    VECTOR(&m->norm, m->in, "norm.weight");
    POINT(&m->query, (int64_t)m->heads * m->dim, m->in, "attn.query.proj");
    POINT(&m->key, m->dim, m->in, "attn.key.proj");
    POINT(&m->value, m->dim, m->in, "attn.value.proj");
    POINT(&m->project, m->out, (int64_t)m->heads * m->dim, "attn.output.proj");
    if (m->stride == 1) return;
    bind_taps(b, &m->key_taps, m->in, 3, p, "attn.key.down_conv");
    bind_taps(b, &m->value_taps, m->in, 3, p, "attn.value.down_conv");
    VECTOR(&m->key_norm, m->in, "attn.key.norm.weight");
    VECTOR(&m->value_norm, m->in, "attn.value.norm.weight");
}

void mobilenet_bind(mobilenet *t, binder *b)
{
    bind_prefix(b, "model.vision_tower.timm_model.", "vision_tower.timm_model.", NULL);
    bind_conv2d(b, &t->stem_conv, t->stem, 3, 3, 3, "conv_stem.conv");
    bind_vector(b, &t->stem_bias, t->stem, "conv_stem.conv.bias");
    bind_vector(b, &t->stem_norm, t->stem, "conv_stem.bn.weight");
    for (int i = 0; i < t->n_blocks && !b->failed; i++) {
        char name[64];
        snprintf(name, sizeof name, "blocks.%d.%d.", t->block[i].stage, t->block[i].index);
        bind_block(&t->block[i], b, name, true);
    }
    bind_block(&t->fusion, b, "msfa.ffn.", false);
    bind_vector(b, &t->fusion_norm, MOBILENET_FEATURES, "msfa.norm.weight");
}

/* ---- forward ------------------------------------------------------------------------------------------------------ */

static void norm(run *r, tensor x, const float *w) { op_rmsnorm_heads(r, x, w, 0, EPS, (int)x.cols); }

/* Depthwise convolution and norm; *height is that of x, then of what comes out. */
static tensor depthwise(run *r, tensor x, int *height, int kernel, int stride, const float *taps, const float *w)
{
    conv_shape c = conv_same(*height, *height, kernel, stride);
    *height = c.out_height;
    x = op_conv2d_depthwise(r, x, &c, taps, NULL);
    norm(r, x, w);
    return x;
}

static tensor convolve(run *r, const mobile_block *b, tensor x, int *height)
{
    tensor h = x;
    if (b->kind == MOBILE_EDGE) {
        conv_shape c = conv_same(*height, *height, 3, b->stride);
        *height = c.out_height;
        h = op_conv2d_shape(r, x, &c, &b->expand, NULL);
    } else {
        if (b->start) h = depthwise(r, h, height, b->start, b->mid ? 1 : b->stride, b->start_taps, b->start_norm);
        h = op_linear(r, h, &b->expand, NULL);
    }
    norm(r, h, b->expand_norm);
    op_activate(r, h, ACT_GELU_TANH);
    if (b->mid) {
        h = depthwise(r, h, height, b->mid, b->stride, b->mid_taps, b->mid_norm);
        op_activate(r, h, ACT_GELU_TANH);
    }
    h = op_linear(r, h, &b->project, NULL);
    norm(r, h, b->project_norm);
    return h;
}

/* With keys and values of half the height there are four queries for each: the queries of four places are seen as four times the heads of one place. */
static tensor attend(run *r, const mobile_block *b, tensor x, int height)
{
    tensor h = op_rmsnorm(r, x, b->norm, 0, EPS), k = h, v = h;
    int keys = height, values = height;
    if (b->stride > 1) {
        k = depthwise(r, h, &keys, 3, b->stride, b->key_taps, b->key_norm);
        v = depthwise(r, h, &values, 3, b->stride, b->value_taps, b->value_norm);
    }
    tensor q = op_linear(r, h, &b->query, NULL);                             /* [height^2, heads * dim] */
    k = op_linear(r, k, &b->key, NULL);                                      /* [keys^2, dim] */
    v = op_linear(r, v, &b->value, NULL);
    if (!run_ok(r)) return x;
    int fold = (int)(q.rows / k.rows);
    int64_t cols = q.cols * fold;
    attention_spec s = {.heads = b->heads * fold, .kv_heads = 1, .head_dim = b->dim, .scale = (float)pow(b->dim, -0.5)};
    tensor out = op_attention_segments(r, (tensor){q.data, DT_F32, k.rows, cols, cols}, k, v, (int32_t[]){0, (int32_t)k.rows}, 1, &s);
    return op_linear(r, (tensor){out.data, DT_F32, q.rows, q.cols, q.cols}, &b->project, NULL);
}

bool mobilenet_start(const mobilenet *t, mobilenet_state *s, arena *memory)
{
    size_t half = (size_t)t->side / 2, most = half * half * (size_t)t->stem, kept = half * half / 64 * (size_t)stage_channels(t, 2), side = half;
    for (int i = 0; i < t->n_blocks; i++) {
        if (t->block[i].kind != MOBILE_ATTENTION) side /= (size_t)t->block[i].stride;
        if (side * side * (size_t)t->block[i].out > most) most = side * side * (size_t)t->block[i].out;
    }
    s->buffer = arena_alloc_raw(memory, most * sizeof(float));
    s->kept.data = arena_alloc_raw(memory, kept * sizeof(float));
    return s->buffer && s->kept.data;
}

/* x, which lies in scratch, is what the next stage begins with. */
static void keep(run *r, mobilenet_state *s, tensor x, int height)
{
    if (!run_ok(r)) return;
    memcpy(s->buffer, x.data, (size_t)(x.rows * x.cols) * sizeof(float));
    s->x = (tensor){s->buffer, DT_F32, x.rows, x.cols, x.cols};
    s->height = height;
}

void mobilenet_stem(run *r, const mobilenet *t, mobilenet_state *s, const float *pixels)
{
    int64_t n = (int64_t)t->side * t->side;
    tensor x = run_tensor(r, n, 3);
    for (int64_t i = 0; run_ok(r) && i < n; i++)
        for (int c = 0; c < 3; c++) tensor_row(x, i)[c] = pixels[c * n + i];
    conv_shape shape = conv_same(t->side, t->side, 3, 2);
    x = op_conv2d_shape(r, x, &shape, &t->stem_conv, t->stem_bias);
    norm(r, x, t->stem_norm);
    op_activate(r, x, ACT_GELU_TANH);
    keep(r, s, x, shape.out_height);
}

void mobilenet_run_block(run *r, const mobilenet *t, mobilenet_state *s, int i)
{
    const mobile_block *b = &t->block[i];
    int height = s->height;
    bool skip = b->in == b->out && (b->stride == 1 || b->kind == MOBILE_ATTENTION);
    tensor y = b->kind == MOBILE_ATTENTION ? attend(r, b, s->x, height) : convolve(r, b, s->x, &height);
    if (b->gamma) op_scale(r, y, 1, b->gamma);
    if (skip) op_add_inplace(r, y, s->x);
    keep(r, s, y, height);
    if (run_ok(r) && b->stage == 2 && (i + 1 == t->n_blocks || t->block[i + 1].stage == 3)) {
        memcpy(s->kept.data, y.data, (size_t)(y.rows * y.cols) * sizeof(float));
        s->kept = (tensor){s->kept.data, DT_F32, y.rows, y.cols, y.cols};
        s->kept_height = height;
    }
}

tensor mobilenet_finish(run *r, const mobilenet *t, mobilenet_state *s)
{
    int high = s->kept_height, low = s->height, pool = high / MOBILENET_SIDE;
    int64_t a = s->kept.cols, b = s->x.cols;
    tensor x = run_tensor(r, s->kept.rows, a + b), out = run_zeros(r, MOBILENET_SIDE * MOBILENET_SIDE, MOBILENET_FEATURES);
    int32_t *to = run_alloc(r, (size_t)(s->kept.rows + 1) * sizeof *to);
    for (int64_t i = 0; run_ok(r) && i < x.rows; i++) {
        int64_t row = i / high, column = i % high;
        memcpy(tensor_row(x, i), tensor_row(s->kept, i), (size_t)a * sizeof(float));
        memcpy(tensor_row(x, i) + a, tensor_row(s->x, row * low / high * low + column * low / high), (size_t)b * sizeof(float));
        to[i] = (int32_t)(row / pool * MOBILENET_SIDE + column / pool);
    }
    int height = high;
    x = convolve(r, &t->fusion, x, &height);
    if (run_ok(r)) op_scatter_add(r, out, x, to, 1 / (float)(pool * pool));
    norm(r, out, t->fusion_norm);
    return out;
}
