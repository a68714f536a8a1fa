/* davit.c - see davit.h. */
#include "models/davit.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/thread.h"

static const float EPS = 1e-5f;

/* ---- configuration and weights -------------------------------------------------------------------------------------- */

static bool read_list(config *c, const char *path, int64_t *out, int n)
{
    int got = config_ints(c, path, out, DAVIT_STAGES);
    if (!c->failed && got != n) return config_fail(c, VLM_FORMAT, "%s: %d numbers were expected, one for each stage", path, n);
    for (int i = 0; i < n; i++)
        if (out[i] < 0 || out[i] > 1 << 16) return config_fail(c, VLM_FORMAT, "%s: %lld", path, (long long)out[i]);
    return !c->failed;
}

bool davit_config(davit *t, arena *memory, config *c)
{
    int64_t depth[DAVIT_STAGES], width[DAVIT_STAGES], heads[DAVIT_STAGES], groups[DAVIT_STAGES], kernel[DAVIT_STAGES], stride[DAVIT_STAGES], padding[DAVIT_STAGES];
    t->stages = config_ints(c, "vision_config.depths", depth, DAVIT_STAGES);
    t->window = (int)config_int(c, "vision_config.window_size", 12, 1, 1 << 10);
    t->act = config_activation(c, "vision_config.activation_function", "gelu");
    double ratio = config_number(c, "vision_config.mlp_ratio", 4);
    if (!c->failed && t->stages < 1) return config_fail(c, VLM_FORMAT, "vision_config.depths is missing");
    if (c->failed || !read_list(c, "vision_config.depths", depth, t->stages) || !read_list(c, "vision_config.embed_dim|vision_config.dim_embed", width, t->stages) ||
        !read_list(c, "vision_config.num_heads", heads, t->stages) || !read_list(c, "vision_config.num_groups", groups, t->stages) ||
        !read_list(c, "vision_config.patch_size", kernel, t->stages) || !read_list(c, "vision_config.patch_stride", stride, t->stages) ||
        !read_list(c, "vision_config.patch_padding", padding, t->stages))
        return false;
    const json_t *first = config_get(c, "vision_config.patch_prenorm");
    for (int i = 0; i < t->stages; i++) {
        davit_stage *s = &t->stage[i];
        *s = (davit_stage){.depth = (int)depth[i], .width = (int)width[i], .heads = (int)heads[i], .groups = (int)groups[i], .kernel = (int)kernel[i],
                           .stride = (int)stride[i], .padding = (int)padding[i], .norm_first = first ? json_is_true(json_array_get(first, (size_t)i)) : i > 0,
                           .ffn = (int)((double)width[i] * ratio)};
        if (s->depth < 1 || s->depth > 256 || s->width < 1 || s->heads < 1 || s->groups < 1 || s->width % s->heads || s->width % s->groups || s->kernel < 1 ||
            s->kernel > 64 || s->stride < 1 || s->padding >= s->kernel || s->ffn < 1 || s->ffn > 1 << 20)
            return config_fail(c, VLM_FORMAT, "vision_config: stage %d of %d columns, %d heads, %d groups, kernel %d", i, s->width, s->heads, s->groups, s->kernel);
        t->blocks += s->depth;
        if (!(s->block = arena_alloc(memory, (size_t)s->depth * sizeof *s->block))) return config_fail(c, VLM_MEMORY, "out of memory");
    }
    return true;
}

typedef struct half_names { const char *conv1, *norm1, *qkv, *proj, *conv2, *norm2, *up, *down; } half_names;

/* NAME.weight [channels, 1, 3, 3] as [9][channels]. */
static void bind_depthwise(binder *b, const float **w, const float **bias, int64_t channels, const char *at, const char *name)
{
    const float *in = NULL;
    bind_vector(b, &in, channels * 9, "%s.%s.weight", at, name);
    bind_vector(b, bias, channels, "%s.%s.bias", at, name);
    float *out = in ? arena_alloc(b->memory, (size_t)channels * 9 * sizeof *out) : NULL;
    if (in && !out) bind_fail(b, VLM_MEMORY, "out of memory");
    for (int64_t c = 0; out && c < channels; c++)
        for (int k = 0; k < 9; k++) out[k * channels + c] = in[c * 9 + k];
    *w = out;
}

static void bind_half(binder *b, davit_half *h, const davit_stage *s, const char *at, const half_names *n)
{
    int64_t d = s->width;
    bind_depthwise(b, &h->conv1, &h->conv1_bias, d, at, n->conv1);
    bind_vector(b, &h->norm1, d, "%s.%s.weight", at, n->norm1);
    bind_vector(b, &h->norm1_bias, d, "%s.%s.bias", at, n->norm1);
    bind_linear(b, &h->qkv, 3 * d, d, "%s.%s", at, n->qkv);
    bind_vector_optional(b, &h->qkv_bias, 3 * d, "%s.%s.bias", at, n->qkv);
    bind_linear(b, &h->proj, d, d, "%s.%s", at, n->proj);
    bind_vector(b, &h->proj_bias, d, "%s.%s.bias", at, n->proj);
    bind_depthwise(b, &h->conv2, &h->conv2_bias, d, at, n->conv2);
    bind_vector(b, &h->norm2, d, "%s.%s.weight", at, n->norm2);
    bind_vector(b, &h->norm2_bias, d, "%s.%s.bias", at, n->norm2);
    bind_linear(b, &h->up, s->ffn, d, "%s.%s", at, n->up);
    bind_vector(b, &h->up_bias, s->ffn, "%s.%s.bias", at, n->up);
    bind_linear(b, &h->down, d, s->ffn, "%s.%s", at, n->down);
    bind_vector(b, &h->down_bias, d, "%s.%s.bias", at, n->down);
}

void davit_bind(davit *t, binder *b, bool published)
{
    static const half_names names[2][2] = {
        {{"conv1", "norm1", "window_attn.qkv", "window_attn.proj", "conv2", "norm2", "ffn.fc1", "ffn.fc2"},
         {"conv1", "norm1", "channel_attn.qkv", "channel_attn.proj", "conv2", "norm2", "ffn.fc1", "ffn.fc2"}},
        {{"conv1.fn.dw", "window_attn.norm", "window_attn.fn.qkv", "window_attn.fn.proj", "conv2.fn.dw", "ffn.norm", "ffn.fn.net.fc1", "ffn.fn.net.fc2"},
         {"conv1.fn.dw", "channel_attn.norm", "channel_attn.fn.qkv", "channel_attn.fn.proj", "conv2.fn.dw", "ffn.norm", "ffn.fn.net.fc1", "ffn.fn.net.fc2"}}};
    for (int i = 0; i < t->stages && !b->failed; i++) {
        davit_stage *s = &t->stage[i];
        int in = i ? t->stage[i - 1].width : 3, normed = s->norm_first ? in : s->width;
        const char *conv = published ? "proj" : "conv";
        bind_conv2d(b, &s->conv, s->width, in, s->kernel, s->kernel, "convs.%d.%s", i, conv);
        bind_vector(b, &s->conv_bias, s->width, "convs.%d.%s.bias", i, conv);
        bind_vector(b, &s->norm, normed, "convs.%d.norm.weight", i);
        bind_vector(b, &s->norm_bias, normed, "convs.%d.norm.bias", i);
        for (int k = 0; k < s->depth && !b->failed; k++) {
            char at[64];
            snprintf(at, sizeof at, "blocks.%d.%d.spatial_block", i, k);
            bind_half(b, &s->block[k].spatial, s, at, &names[published][0]);
            snprintf(at, sizeof at, "blocks.%d.%d.channel_block", i, k);
            bind_half(b, &s->block[k].channel, s, at, &names[published][1]);
        }
    }
}

bool davit_size(const davit *t, int *height, int *width)
{
    for (int i = 0; i < t->stages; i++) {
        const davit_stage *s = &t->stage[i];
        if (*height + 2 * s->padding < s->kernel || *width + 2 * s->padding < s->kernel) return false;
        *height = (*height + 2 * s->padding - s->kernel) / s->stride + 1;
        *width = (*width + 2 * s->padding - s->kernel) / s->stride + 1;
    }
    return true;
}

/* ---- parts ------------------------------------------------------------------------------------------------------------ */

typedef struct depthwise_job { tensor x, out; int height, width; const float *w, *bias; } depthwise_job;

static void depthwise_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const depthwise_job *j = arg;
    int64_t d = j->x.cols;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        int y = (int)(i / j->width), x = (int)(i % j->width);
        float *out = tensor_row(j->out, i);
        memcpy(out, j->bias, (size_t)d * sizeof *out);
        for (int ky = 0; ky < 3; ky++)
            for (int kx = 0; kx < 3; kx++) {
                int sy = y + ky - 1, sx = x + kx - 1;
                if (sy < 0 || sx < 0 || sy >= j->height || sx >= j->width) continue;
                const float *in = tensor_row(j->x, (int64_t)sy * j->width + sx), *w = j->w + (ky * 3 + kx) * d;
                for (int64_t c = 0; c < d; c++) out[c] += w[c] * in[c];
            }
    }
}

/* x += depthwise 3x3 (x) */
static void add_depthwise(run *r, tensor x, int height, int width, const float *w, const float *bias)
{
    depthwise_job j = {x, run_tensor(r, x.rows, x.cols), height, width, w, bias};
    if (run_ok(r)) pool_for(r->dev->pool, x.rows, 256, depthwise_rows, &j);
    op_add_inplace(r, x, j.out);
}

/* Windows one after the other; -1 where one reaches over the edge. */
static int32_t *window_order(run *r, int height, int width, int side, int *windows)
{
    int down = (height + side - 1) / side, across = (width + side - 1) / side;
    *windows = down * across;
    int32_t *order = run_alloc(r, (size_t)*windows * (size_t)(side * side) * sizeof *order), *at = order;
    for (int w = 0; order && w < *windows; w++)
        for (int i = 0; i < side * side; i++) {
            int y = w / across * side + i / side, x = w % across * side + i % side;
            *at++ = y < height && x < width ? y * width + x : -1;
        }
    return order;
}

static tensor attend_windows(run *r, const davit *t, const davit_stage *s, const davit_half *w, tensor h, int height, int width)
{
    int windows = 0, d = s->width, head_dim = d / s->heads;
    int64_t area = (int64_t)t->window * t->window;
    int32_t *order = window_order(r, height, width, t->window, &windows), *starts = run_alloc(r, (size_t)(windows + 1) * sizeof *starts);
    if (!run_ok(r)) return h;
    for (int i = 0; i <= windows; i++) starts[i] = (int32_t)(i * area);
    tensor qkv = op_linear(r, op_gather(r, h, order, windows * area), &w->qkv, w->qkv_bias);
    if (!run_ok(r)) return h;
    attention_spec a = {.heads = s->heads, .kv_heads = s->heads, .head_dim = head_dim, .scale = (float)pow(head_dim, -0.5)};
    tensor out = op_attention_segments(r, tensor_cols(qkv, 0, d), tensor_cols(qkv, d, d), tensor_cols(qkv, 2 * d, d), starts, windows, &a);
    op_scatter(r, h, op_linear(r, out, &w->proj, w->proj_bias), order);
    return h;
}

typedef struct channel_job { tensor qkv, out; float *share; int width, each; } channel_job;

/* What each channel of a group takes of the others: share [group][each][each]. */
static void channel_shares(void *arg, int64_t begin, int64_t end, int thread)
{
    const channel_job *j = arg;
    int n = j->each, d = j->width;
    float scale = (float)pow((double)j->qkv.rows, -0.5);
    (void)thread;
    for (int64_t row = begin; row < end; row++) {          /* a channel */
        int64_t g = row / n;
        float *s = j->share + row * n, most = -INFINITY, sum = 0;
        memset(s, 0, (size_t)n * sizeof *s);
        for (int64_t i = 0; i < j->qkv.rows; i++) {
            const float *q = tensor_row(j->qkv, i) + row, *k = tensor_row(j->qkv, i) + d + g * n;
            for (int c = 0; c < n; c++) s[c] += *q * k[c];
        }
        for (int c = 0; c < n; c++) if (s[c] * scale > most) most = s[c] * scale;
        for (int c = 0; c < n; c++) sum += s[c] = expf(s[c] * scale - most);
        for (int c = 0; c < n; c++) s[c] /= sum;
    }
}

static void channel_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const channel_job *j = arg;
    int n = j->each, d = j->width;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        for (int row = 0; row < d; row++) {
            const float *s = j->share + (int64_t)row * n, *v = tensor_row(j->qkv, i) + 2 * d + row / n * n;
            float sum = 0;
            for (int c = 0; c < n; c++) sum += s[c] * v[c];
            tensor_row(j->out, i)[row] = sum;
        }
}

static tensor attend_channels(run *r, const davit_stage *s, const davit_half *w, tensor h)
{
    channel_job j = {.qkv = op_linear(r, h, &w->qkv, w->qkv_bias), .out = run_tensor(r, h.rows, s->width), .width = s->width, .each = s->width / s->groups};
    j.share = run_alloc(r, (size_t)s->width * (size_t)j.each * sizeof *j.share);
    if (!run_ok(r)) return h;
    pool_for(r->dev->pool, s->width, 1, channel_shares, &j);
    pool_for(r->dev->pool, h.rows, 64, channel_rows, &j);
    return op_linear(r, j.out, &w->proj, w->proj_bias);
}

static void run_half(run *r, const davit *t, const davit_stage *s, const davit_half *w, bool channels, tensor x, int height, int width)
{
    arena_mark mark = arena_get_mark(r->scratch);
    add_depthwise(r, x, height, width, w->conv1, w->conv1_bias);
    tensor h = op_layernorm(r, x, w->norm1, w->norm1_bias, EPS);
    op_add_inplace(r, x, channels ? attend_channels(r, s, w, h) : attend_windows(r, t, s, w, h, height, width));
    add_depthwise(r, x, height, width, w->conv2, w->conv2_bias);
    h = op_linear(r, op_layernorm(r, x, w->norm2, w->norm2_bias, EPS), &w->up, w->up_bias);
    op_activate(r, h, t->act);
    op_add_inplace(r, x, op_linear(r, h, &w->down, w->down_bias));
    arena_release(r->scratch, mark);
}

/* ---- stages ------------------------------------------------------------------------------------------------------------ */

typedef struct davit_job { int height, width, stage, block; } davit_job;

bool davit_start(run *r, const davit *t, encode_job *job, int height, int width)
{
    davit_job *j = job->family = arena_alloc(job->memory, sizeof *j);
    if (!j) return run_fail(r, VLM_MEMORY, "out of memory");
    *j = (davit_job){.height = height, .width = width};
    job->stage = 0;
    job->stages = t->blocks;
    job->cost = 24.0 * height * width / 16 * t->stage[0].width * t->stage[0].width;
    return run_ok(r);
}

/* The convolution that opens a stage: job->x takes its rows. */
static void open_stage(run *r, const davit_stage *s, encode_job *job, const float *pixels)
{
    davit_job *j = job->family;
    int height, width;
    tensor x = job->x;
    if (pixels) {                                          /* channels last */
        int64_t area = (int64_t)j->height * j->width;
        x = run_tensor(r, area, 3);
        for (int64_t i = 0; run_ok(r) && i < area; i++)
            for (int c = 0; c < 3; c++) tensor_row(x, i)[c] = pixels[c * area + i];
    }
    if (s->norm_first) x = op_layernorm(r, x, s->norm, s->norm_bias, EPS);
    x = op_conv2d(r, x, j->height, j->width, &s->conv, s->conv_bias, s->kernel, s->kernel, s->stride, s->padding, &height, &width);
    if (!s->norm_first) x = op_layernorm(r, x, s->norm, s->norm_bias, EPS);
    if (!run_ok(r)) return;
    job->x = x;
    job->x.data = arena_alloc_raw(job->memory, (size_t)x.rows * (size_t)x.cols * sizeof(float));
    if (!job->x.data) { run_fail(r, VLM_MEMORY, "out of memory for features of %lld x %lld", (long long)x.rows, (long long)x.cols); return; }
    job->x.stride = x.cols;
    for (int64_t i = 0; i < x.rows; i++) memcpy(tensor_row(job->x, i), tensor_row(x, i), (size_t)x.cols * sizeof(float));
    j->height = height;
    j->width = width;
}

bool davit_encode(run *r, const davit *t, encode_job *job, const float *pixels)
{
    davit_job *j = job->family;
    const davit_stage *s = &t->stage[j->stage];
    if (!j->block) open_stage(r, s, job, j->stage ? NULL : pixels);
    const davit_block *w = &s->block[j->block];
    if (run_ok(r)) run_half(r, t, s, &w->spatial, false, job->x, j->height, j->width);
    if (run_ok(r)) run_half(r, t, s, &w->channel, true, job->x, j->height, j->width);
    job->stage++;
    TAP(r, "davit", job->stage, job->x);
    if (++j->block == s->depth) j->block = 0, j->stage++;
    return run_ok(r);
}
