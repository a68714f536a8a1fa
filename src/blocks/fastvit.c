/* fastvit.c - see fastvit.h. The reference is timm's fastvit.py, fastvit_mci3 in inference mode. */
#include "blocks/fastvit.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MLP_ROWS = 4096 };

/* ---- config ------------------------------------------------------------------------------------------------------- */

static const char *path(char *to, size_t size, const char *where, const char *key)
{
    snprintf(to, size, "%s.%s", where, key);
    return to;
}

static void add_unit(fastvit *t, fastvit_kind kind, int stage, int index, int in, int out)
{
    t->unit[t->n_units++] = (fastvit_unit){.kind = kind, .stage = stage, .index = index, .in = in, .out = out, .ffn = t->ffn[stage]};
}

bool fastvit_config(fastvit *t, arena *memory, config *c, const char *where)
{
    int64_t layers[FASTVIT_STAGES] = {2, 12, 24, 4, 2}, dims[FASTVIT_STAGES] = {96, 192, 384, 768, 1536}, units = 2;
    double ratios[FASTVIT_STAGES] = {4, 4, 4, 4, 4};
    char key[128];
    int a = config_ints(c, path(key, sizeof key, where, "layers"), layers, FASTVIT_STAGES), b = config_ints(c, path(key, sizeof key, where, "embed_dims"), dims, FASTVIT_STAGES);
    int n = config_numbers(c, path(key, sizeof key, where, "mlp_ratios"), ratios, FASTVIT_STAGES);
    const json_t *mixers = config_get(c, path(key, sizeof key, where, "token_mixers"));
    double grow = config_number(c, path(key, sizeof key, where, "cls_ratio"), 2);
    if (c->failed) return false;
    if ((a && a != FASTVIT_STAGES) || (b && b != FASTVIT_STAGES) || (n && n != FASTVIT_STAGES) || grow != 2)
        return config_fail(c, VLM_UNSUPPORTED, "%s: five stages and cls_ratio 2 were expected", where);
    for (int i = 0; i < FASTVIT_STAGES; i++) {
        const char *mixer = mixers ? json_string_value(json_array_get(mixers, (size_t)i)) : i < 3 ? "repmixer" : "attention";
        bool fits = dims[i] >= 1 && dims[i] <= 1 << 14 && layers[i] >= 1 && layers[i] <= 256 && ratios[i] >= 1 && ratios[i] <= 64 && mixer;
        t->looks[i] = mixer && !strcmp(mixer, "attention");
        if (!fits || (t->looks[i] && dims[i] % FASTVIT_HEAD) || (!t->looks[i] && mixer && strcmp(mixer, "repmixer")) || (i && dims[i] % dims[i - 1]))
            return config_fail(c, VLM_UNSUPPORTED, "%s: stage %d is %lld blocks of \"%.20s\" with %lld columns", where, i, (long long)layers[i], mixer ? mixer : "", (long long)dims[i]);
        t->layers[i] = (int)layers[i];
        t->dims[i] = (int)dims[i];
        t->ffn[i] = (int)((double)dims[i] * ratios[i]);
        units += layers[i] + 2;
    }
    t->outputs = 2 * t->dims[FASTVIT_STAGES - 1];
    if (!(t->unit = arena_alloc(memory, (size_t)units * sizeof *t->unit))) return config_fail(c, VLM_MEMORY, "out of memory");
    add_unit(t, FASTVIT_STEM, 0, 0, 3, t->dims[0]);
    for (int i = 0; i < FASTVIT_STAGES; i++) {
        if (i) add_unit(t, FASTVIT_DOWN, i, 0, t->dims[i - 1], t->dims[i]);
        if (i >= 3) add_unit(t, FASTVIT_PLACE, i, 0, t->dims[i], t->dims[i]);
        for (int k = 0; k < t->layers[i]; k++) add_unit(t, t->looks[i] ? FASTVIT_LOOK : FASTVIT_MIX, i, k, t->dims[i], t->dims[i]);
    }
    add_unit(t, FASTVIT_LAST, FASTVIT_STAGES - 1, 0, t->dims[FASTVIT_STAGES - 1], t->outputs);
    return true;
}

/* ---- weights ------------------------------------------------------------------------------------------------------ */

/* Where a unit lies. Apple's files count all parts of all stages on. */
static void unit_name(const fastvit_unit *u, bool apple, char *to, size_t size)
{
    static const int blocks[] = {0, 2, 4, 7, 10};
    const char *part = u->kind == FASTVIT_DOWN ? "downsample" : u->kind == FASTVIT_PLACE ? "pos_emb" : "blocks";
    if (u->kind == FASTVIT_STEM || u->kind == FASTVIT_LAST) snprintf(to, size, "%s", u->kind == FASTVIT_STEM ? "stem" : "final_conv");
    else if (u->kind == FASTVIT_MIX || u->kind == FASTVIT_LOOK)
        snprintf(to, size, apple ? "network.%d.%d" : "stages.%d.blocks.%d", apple ? blocks[u->stage] : u->stage, u->index);
    else if (apple) snprintf(to, size, "network.%d", blocks[u->stage] - (u->kind == FASTVIT_DOWN && u->stage >= 3 ? 2 : 1));
    else snprintf(to, size, "stages.%d.%s", u->stage, part);
}

/* A kernel for each channel, [channels][n] in the file, as rows of channels. */
static float *bind_taps(binder *b, int channels, int side, const char *unit, const char *name)
{
    const float *taps = NULL;
    int n = side * side;
    bind_vector(b, &taps, (int64_t)channels * n, "%s.%s.weight", unit, name);
    float *turned = b->failed ? NULL : arena_alloc_raw(b->memory, (size_t)channels * (size_t)n * sizeof *turned);
    if (!turned && !b->failed) bind_fail(b, VLM_MEMORY, "out of memory");
    for (int c = 0; turned && c < channels; c++)
        for (int k = 0; k < n; k++) turned[k * channels + c] = taps[c * n + k];
    return turned;
}

/* The MLP, the batch norm behind its 7 x 7 kernels put into them. */
static void bind_mlp(fastvit_unit *u, binder *b, const char *p)
{
    const float *gain, *shift, *mean, *variance;
    float *taps = bind_taps(b, u->out, 7, p, "mlp.conv.conv"), *bias = arena_alloc_raw(b->memory, (size_t)u->out * sizeof *bias);
    bind_vector(b, &gain, u->out, "%s.mlp.conv.bn.weight", p);
    bind_vector(b, &shift, u->out, "%s.mlp.conv.bn.bias", p);
    bind_vector(b, &mean, u->out, "%s.mlp.conv.bn.running_mean", p);
    bind_vector(b, &variance, u->out, "%s.mlp.conv.bn.running_var", p);
    bind_conv3d(b, &u->up, u->ffn, u->out, 1, 1, 1, "%s.mlp.fc1", p);
    bind_conv3d(b, &u->down, u->out, u->ffn, 1, 1, 1, "%s.mlp.fc2", p);
    bind_vector(b, &u->up_bias, u->ffn, "%s.mlp.fc1.bias", p);
    bind_vector(b, &u->down_bias, u->out, "%s.mlp.fc2.bias", p);
    if (!bias) bind_fail(b, VLM_MEMORY, "out of memory");
    for (int c = 0; !b->failed && c < u->out; c++) {
        float factor = gain[c] / sqrtf(variance[c] + 1e-5f);
        for (int k = 0; k < 49; k++) taps[k * u->out + c] *= factor;
        bias[c] = shift[c] - mean[c] * factor;
    }
    u->mlp_taps = taps;
    u->mlp_bias = bias;
}

static void bind_unit(fastvit_unit *u, binder *b, const char *p)
{
    switch (u->kind) {
    case FASTVIT_STEM:
        bind_conv2d(b, &u->first, u->out, 3, 3, 3, "%s.0.reparam_conv", p);
        bind_vector(b, &u->first_bias, u->out, "%s.0.reparam_conv.bias", p);
        u->taps = bind_taps(b, u->out, 3, p, "1.reparam_conv");
        bind_vector(b, &u->taps_bias, u->out, "%s.1.reparam_conv.bias", p);
        bind_conv3d(b, &u->point, u->out, u->out, 1, 1, 1, "%s.2.reparam_conv", p);
        bind_vector(b, &u->point_bias, u->out, "%s.2.reparam_conv.bias", p);
        break;
    case FASTVIT_DOWN:
        u->taps = bind_taps(b, u->out, 7, p, "proj.0.reparam_conv");
        bind_vector(b, &u->taps_bias, u->out, "%s.proj.0.reparam_conv.bias", p);
        bind_conv3d(b, &u->point, u->out, u->out, 1, 1, 1, "%s.proj.1.reparam_conv", p);
        bind_vector(b, &u->point_bias, u->out, "%s.proj.1.reparam_conv.bias", p);
        break;
    case FASTVIT_PLACE:
        u->taps = bind_taps(b, u->out, 7, p, "reparam_conv");
        bind_vector(b, &u->taps_bias, u->out, "%s.reparam_conv.bias", p);
        break;
    case FASTVIT_MIX:
        u->taps = bind_taps(b, u->out, 3, p, "token_mixer.reparam_conv");
        bind_vector(b, &u->taps_bias, u->out, "%s.token_mixer.reparam_conv.bias", p);
        bind_vector(b, &u->mlp_scale, u->out, "%s.layer_scale.gamma", p);
        bind_mlp(u, b, p);
        break;
    case FASTVIT_LOOK:
        bind_vector(b, &u->norm, u->out, "%s.norm.weight", p);
        bind_vector(b, &u->norm_bias, u->out, "%s.norm.bias", p);
        bind_linear(b, &u->point, 3 * (int64_t)u->out, u->out, "%s.token_mixer.qkv", p);
        bind_linear(b, &u->proj, u->out, u->out, "%s.token_mixer.proj", p);
        bind_vector(b, &u->proj_bias, u->out, "%s.token_mixer.proj.bias", p);
        bind_vector(b, &u->scale, u->out, "%s.layer_scale_1.gamma", p);
        bind_vector(b, &u->mlp_scale, u->out, "%s.layer_scale_2.gamma", p);
        bind_mlp(u, b, p);
        break;
    case FASTVIT_LAST:
        u->taps = bind_taps(b, u->out, 3, p, "reparam_conv");
        bind_vector(b, &u->taps_bias, u->out, "%s.reparam_conv.bias", p);
        u->ffn = (int)((double)u->out / 16 + 0.5);
        bind_conv3d(b, &u->point, u->ffn, u->out, 1, 1, 1, "%s.se.fc1", p);
        bind_vector(b, &u->point_bias, u->ffn, "%s.se.fc1.bias", p);
        bind_conv3d(b, &u->proj, u->out, u->ffn, 1, 1, 1, "%s.se.fc2", p);
        bind_vector(b, &u->proj_bias, u->out, "%s.se.fc2.bias", p);
        break;
    }
}

void fastvit_bind(fastvit *t, binder *b)
{
    static const char *const apple_names[] = {"stem", "patch_embed", "final_conv", "conv_exp", "mlp", "convffn", "layer_scale.gamma", "layer_scale", "layer_scale_1.gamma",
        "layer_scale_1", "layer_scale_2.gamma", "layer_scale_2", "proj.0.reparam_conv", "proj.0.lkb_reparam", "se.fc1", "se.reduce", "se.fc2", "se.expand", NULL};
    bool apple = b->files && !bind_exists(b, "stem.0.reparam_conv.weight");
    char name[64];
    b->spellings = apple ? apple_names : NULL;
    for (int i = 0; i < t->n_units && !b->failed; i++) {
        unit_name(&t->unit[i], apple, name, sizeof name);
        bind_unit(&t->unit[i], b, name);
    }
    b->spellings = NULL;
}

/* ---- forward ------------------------------------------------------------------------------------------------------ */

/* Kernels for each column; with twice as many kernels each column counts twice, side by side. */
static tensor each_column(run *r, tensor x, int *height, int *width, int side, int stride, const float *taps, const float *bias, int outputs)
{
    int pad = side / 2, times = outputs / (int)x.cols;
    if (times > 1) {
        tensor wide = run_tensor(r, x.rows, outputs);
        for (int64_t i = 0; run_ok(r) && i < x.rows; i++)
            for (int c = 0; c < outputs; c++) tensor_row(wide, i)[c] = tensor_row(x, i)[c / times];
        x = wide;
    }
    conv_shape s = {.height = *height, .width = *width, .kh = side, .kw = side, .stride = stride, .top = pad, .left = pad,
                    .out_height = (*height + 2 * pad - side) / stride + 1, .out_width = (*width + 2 * pad - side) / stride + 1};
    *height = s.out_height, *width = s.out_width;
    return op_conv2d_depthwise(r, x, &s, taps, bias);
}

static tensor product(run *r, tensor x, const weight *w, const float *bias, activation act)
{
    x = op_linear(r, x, w, bias);
    op_activate(r, x, act);
    return x;
}

static void add_mlp(run *r, const fastvit_unit *u, tensor x, int height, int width)
{
    tensor h = each_column(r, x, &height, &width, 7, 1, u->mlp_taps, u->mlp_bias, u->out);
    for (int64_t first = 0; first < x.rows && run_ok(r); first += MLP_ROWS) {
        arena_mark mark = arena_get_mark(r->scratch);
        int64_t n = first + MLP_ROWS < x.rows ? MLP_ROWS : x.rows - first;
        tensor y = op_linear(r, product(r, tensor_rows(h, first, n), &u->up, u->up_bias, ACT_GELU), &u->down, u->down_bias);
        op_scale(r, y, 1, u->mlp_scale);
        op_add_inplace(r, tensor_rows(x, first, n), y);
        arena_release(r->scratch, mark);
    }
}

static void look(run *r, const fastvit_unit *u, tensor x)
{
    int64_t d = u->out;
    tensor qkv = op_linear(r, op_layernorm(r, x, u->norm, u->norm_bias, 1e-5f), &u->point, NULL);
    if (!run_ok(r)) return;
    attention_spec a = {.heads = (int)(d / FASTVIT_HEAD), .kv_heads = (int)(d / FASTVIT_HEAD), .head_dim = FASTVIT_HEAD, .scale = (float)pow(FASTVIT_HEAD, -0.5)};
    int32_t starts[2] = {0, (int32_t)x.rows};
    tensor y = op_attention_segments(r, tensor_cols(qkv, 0, d), tensor_cols(qkv, d, d), tensor_cols(qkv, 2 * d, d), starts, 1, &a);
    y = op_linear(r, y, &u->proj, u->proj_bias);
    op_scale(r, y, 1, u->scale);
    op_add_inplace(r, x, y);
}

/* x times what the mean of its rows says of each column, activated. */
static tensor finish(run *r, const fastvit_unit *u, tensor x)
{
    tensor mean = run_zeros(r, 1, x.cols);
    int32_t *zeros = run_alloc(r, (size_t)(x.rows + 1) * sizeof *zeros);
    for (int64_t i = 0; zeros && i < x.rows; i++) zeros[i] = 0;
    op_scatter_add(r, mean, x, zeros, 1);
    op_scale(r, mean, 1 / (float)x.rows, NULL);
    mean = product(r, product(r, mean, &u->point, u->point_bias, ACT_RELU), &u->proj, u->proj_bias, ACT_SIGMOID);
    if (run_ok(r)) op_scale(r, x, 1, tensor_row(mean, 0));
    op_activate(r, x, ACT_GELU);
    return x;
}

tensor fastvit_forward(run *r, const fastvit *t, int i, tensor x, int *height, int *width)
{
    const fastvit_unit *u = &t->unit[i];
    switch (u->kind) {
    case FASTVIT_STEM:
        x = op_conv2d(r, x, *height, *width, &u->first, u->first_bias, 3, 3, 2, 1, height, width);
        op_activate(r, x, ACT_GELU);
        x = each_column(r, x, height, width, 3, 2, u->taps, u->taps_bias, u->out);
        op_activate(r, x, ACT_GELU);
        return product(r, x, &u->point, u->point_bias, ACT_GELU);
    case FASTVIT_DOWN:
        x = each_column(r, x, height, width, 7, 2, u->taps, u->taps_bias, u->out);
        op_activate(r, x, ACT_GELU);
        return product(r, x, &u->point, u->point_bias, ACT_GELU);
    case FASTVIT_PLACE:
        return each_column(r, x, height, width, 7, 1, u->taps, u->taps_bias, u->out);
    case FASTVIT_MIX:
        x = each_column(r, x, height, width, 3, 1, u->taps, u->taps_bias, u->out);
        add_mlp(r, u, x, *height, *width);
        return x;
    case FASTVIT_LOOK:
        look(r, u, x);
        add_mlp(r, u, x, *height, *width);
        return x;
    case FASTVIT_LAST:
        x = each_column(r, x, height, width, 3, 1, u->taps, u->taps_bias, u->out);
        return finish(r, u, x);
    }
    return x;
}
