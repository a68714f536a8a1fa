/* audio_encoder.c - see audio_encoder.h. */
#include "blocks/audio_encoder.h"

#include <math.h>
#include <stdio.h>

#include "blocks/decoder.h"

/* How the two name their weights. */
struct audio_names {
    const char *layers, *ffn[2], *attn, *relative, *pre_attn, *post_attn, *post, *out, *conv[2];
};
static const struct audio_names gemma4_names = {
    "layers", {"feed_forward1.", "feed_forward2."}, "self_attn.", "relative_k_proj", "norm_pre_attn", "norm_post_attn", "self_attn.post", "norm_out",
    {"layer0", "layer1"},
};
static const struct audio_names gemma3n_names = {
    "conformer", {"ffw_layer_start.", "ffw_layer_end."}, "attention.attn.", "relative_position_embedding.pos_proj", "attention.pre_attn_norm",
    "attention.post_norm", "attention.post", "norm", {"conv_0", "conv_1"},
};

/* Sines and cosines of each distance -right .. left. chunk > 0: counted as Gemma 4's shifted chunks do. */
static bool relative_positions(audio_encoder *a, arena *memory, int chunk, int context_left, int context_right)
{
    int past = context_left - 1, context = chunk + past + context_right, half = a->hidden / 2;
    int rows = a->left + a->right + 1;
    a->relative = arena_alloc(memory, (size_t)rows * (size_t)a->hidden * sizeof *a->relative);
    if (a->relative == NULL) return false;
    double step = log(10000.0) / (half > 1 ? half - 1 : 1);
    for (int i = 0; i < rows; i++) {
        int distance = i - a->right, column = past - distance, position = context / 2 - column;
        if (chunk == 0) position = distance;
        else if (column < 0 || column > context / 2) continue;
        for (int j = 0; j < half; j++) {
            float angle = (float)position * expf((float)j * -(float)step);
            a->relative[i * a->hidden + j] = sinf(angle);
            a->relative[i * a->hidden + half + j] = cosf(angle);
        }
    }
    return true;
}

/* What both have in common, after their own fields were read. */
static bool finish_config(audio_encoder *a, arena *memory, config *c, const char *name, const int64_t channels[2], int mel)
{
    if (a->bound >= 1e9f) a->bound = INFINITY;     /* a guard against overflow in half precision: no float32 run gets there */
    if (c->failed) return false;
    for (int i = 0; i < 2; i++) {
        if (channels[i] < 1 || channels[i] > 1 << 16) return config_fail(c, VLM_FORMAT, "%s: %lld is out of range", name, (long long)channels[i]);
        a->channels[i] = (int)channels[i];
    }
    if (a->hidden % a->heads != 0) {
        return config_fail(c, VLM_FORMAT, "audio_config.hidden_size %d is not a multiple of %d heads", a->hidden, a->heads);
    }
    a->head_dim = a->hidden / a->heads;
    a->mel = mel;
    a->q_scale = (float)(1.0 / sqrt((double)a->head_dim) / log(2.0));
    a->layer = arena_alloc(memory, (size_t)a->layers * sizeof *a->layer);
    return a->layer != NULL || config_fail(c, VLM_MEMORY, "out of memory");
}

bool audio_encoder_config(audio_encoder *a, arena *memory, config *c, int mel, int text_hidden)
{
    static const char name[] = "audio_config.subsampling_conv_channels";
    int64_t channels[2] = {128, 32};
    a->names = &gemma4_names;
    a->hidden = (int)config_int(c, "audio_config.hidden_size", 1024, 2, 1 << 16);
    a->layers = (int)config_int(c, "audio_config.num_hidden_layers", 12, 1, 1024);
    a->heads = (int)config_int(c, "audio_config.num_attention_heads", 8, 1, 1024);
    a->kernel = (int)config_int(c, "audio_config.conv_kernel_size", 5, 1, 1024);
    a->output = (int)config_int(c, "audio_config.output_proj_dims", 1536, 1, 1 << 16);
    a->eps = (float)config_number(c, "audio_config.rms_norm_eps", 1e-6);
    a->softcap = (float)config_number(c, "audio_config.attention_logit_cap", 50.0);
    a->residual = (float)config_number(c, "audio_config.residual_weight", 0.5);
    a->bound = (float)config_number(c, "audio_config.gradient_clipping", 1e10);
    a->act = config_activation(c, "audio_config.hidden_act", "silu");
    a->clipped = config_bool(c, "audio_config.use_clipped_linears", true);
    int chunk = (int)config_int(c, "audio_config.attention_chunk_size", 12, 1, 1 << 16);
    int left = (int)config_int(c, "audio_config.attention_context_left", 13, 2, 1 << 16);
    int right = (int)config_int(c, "audio_config.attention_context_right", 0, 0, 1 << 16);
    if (config_ints(c, name, channels, 2) == 1) return config_fail(c, VLM_FORMAT, "%s: two numbers were expected", name);
    if (!finish_config(a, memory, c, name, channels, mel)) return false;
    a->rows_hidden = text_hidden;
    a->left = left - 2;
    a->right = right > 0 ? right - 1 : 0;
    a->k_scale = (float)(log(1.0 + exp(1.0)) / log(2.0));
    return relative_positions(a, memory, chunk, left, right) || config_fail(c, VLM_MEMORY, "out of memory");
}

/* [[3, 3], [3, 3]]: the only kernels (and strides) that there are. */
static bool all_are(config *c, const char *path, int size)
{
    const json_t *list = config_get(c, path), *pair, *one;
    size_t i, k;
    json_array_foreach(list, i, pair)
        json_array_foreach(pair, k, one)
            if (json_integer_value(one) != size) return config_fail(c, VLM_UNSUPPORTED, "%s: %d everywhere was expected", path, size);
    return true;
}

bool audio_encoder_config_3n(audio_encoder *a, arena *memory, config *c, int mel)
{
    static const char name[] = "audio_config.sscp_conv_channel_size";
    int64_t channels[2] = {128, 32};
    a->names = &gemma3n_names;
    a->hidden = (int)config_int(c, "audio_config.hidden_size", 1536, 2, 1 << 16);
    a->layers = (int)config_int(c, "audio_config.conf_num_hidden_layers", 12, 1, 1024);
    a->heads = (int)config_int(c, "audio_config.conf_num_attention_heads", 8, 1, 1024);
    a->kernel = (int)config_int(c, "audio_config.conf_conv_kernel_size", 5, 1, 1024);
    a->eps = (float)config_number(c, "audio_config.rms_norm_eps", 1e-6);
    a->group_eps = (float)config_number(c, "audio_config.sscp_conv_group_norm_eps", 1e-3);
    a->softcap = (float)config_number(c, "audio_config.conf_attention_logit_cap", 50.0);
    a->residual = (float)config_number(c, "audio_config.conf_residual_weight", 0.5);
    a->bound = (float)config_number(c, "audio_config.gradient_clipping", 1e10);
    a->act = ACT_SILU;
    int left = (int)config_int(c, "audio_config.conf_attention_context_left", 13, 1, 1 << 16);
    a->right = (int)config_int(c, "audio_config.conf_attention_context_right", 0, 0, 1 << 16);
    a->left = left - 1;
    if (config_ints(c, name, channels, 2) == 1) return config_fail(c, VLM_FORMAT, "%s: two numbers were expected", name);
    if (!all_are(c, "audio_config.sscp_conv_kernel_size", 3) || !all_are(c, "audio_config.sscp_conv_stride_size", 2)) return false;
    if (!c->failed && !(a->group_eps > 0)) return config_fail(c, VLM_FORMAT, "audio_config.sscp_conv_group_norm_eps %g", (double)a->group_eps);
    if (!finish_config(a, memory, c, name, channels, mel)) return false;
    a->k_scale = 1;
    return relative_positions(a, memory, 0, left, a->right) || config_fail(c, VLM_MEMORY, "out of memory");
}

/* The full name of a layer's weight. */
typedef struct layer_name { char text[160]; } layer_name;
static layer_name named(const audio_encoder *a, int layer, const char *part, const char *name)
{
    layer_name n;
    snprintf(n.text, sizeof n.text, "audio_tower.%s.%d.%s%s", a->names->layers, layer, part, name);
    return n;
}
#define NAME(part, name) named(a, i, part, name).text

/* softplus(per_dim_scale) as columns of q. */
static const float *query_columns(binder *b, const audio_encoder *a, int i)
{
    const float *scale = NULL;
    float *columns = arena_alloc(b->memory, (size_t)a->hidden * sizeof *columns);
    if (columns == NULL) bind_fail(b, VLM_MEMORY, "out of memory");
    bind_vector(b, &scale, a->head_dim, "%s", NAME(a->names->attn, "per_dim_scale"));
    if (b->failed) return NULL;
    for (int k = 0; k < a->hidden; k++) {
        double x = scale[k % a->head_dim];
        columns[k] = (float)(x > 20 ? x : log1p(exp(x)));
    }
    return columns;
}

static void bind_ffn(binder *b, const audio_encoder *a, audio_ffn *f, int i, const char *part)
{
    bind_vector(b, &f->pre_norm, a->hidden, "%s", NAME(part, "pre_layer_norm.weight"));
    bind_vector(b, &f->post_norm, a->hidden, "%s", NAME(part, "post_layer_norm.weight"));
    clipped_bind(b, &f->up, a->clipped, 4LL * a->hidden, a->hidden, "%s", NAME(part, "ffw_layer_1"));
    clipped_bind(b, &f->down, a->clipped, a->hidden, 4LL * a->hidden, "%s", NAME(part, "ffw_layer_2"));
}

static void bind_layer(binder *b, const audio_encoder *a, audio_layer *l, int i)
{
    const struct audio_names *n = a->names;
    int64_t d = a->hidden;
    bind_ffn(b, a, &l->ffn1, i, n->ffn[0]);
    bind_ffn(b, a, &l->ffn2, i, n->ffn[1]);
    bind_vector(b, &l->norm_pre_attn, d, "%s", NAME(n->pre_attn, ".weight"));
    bind_vector(b, &l->norm_post_attn, d, "%s", NAME(n->post_attn, ".weight"));
    bind_vector(b, &l->norm_out, d, "%s", NAME(n->out, ".weight"));
    bind_vector(b, &l->conv_pre_norm, d, "%s", NAME("lconv1d.", "pre_layer_norm.weight"));
    bind_vector(b, &l->conv_norm, d, "%s", NAME("lconv1d.", "conv_norm.weight"));
    bind_conv1d_depthwise(b, &l->conv, d, a->kernel, "%s", NAME("lconv1d.", "depthwise_conv1d"));
    l->q_columns = query_columns(b, a, i);
    clipped_bind(b, &l->q, a->clipped, d, d, "%s", NAME(n->attn, "q_proj"));
    clipped_bind(b, &l->k, a->clipped, d, d, "%s", NAME(n->attn, "k_proj"));
    clipped_bind(b, &l->v, a->clipped, d, d, "%s", NAME(n->attn, "v_proj"));
    clipped_bind(b, &l->post, a->clipped, d, d, "%s", NAME(n->post, ""));
    bind_linear(b, &l->relative_k, d, d, "%s", NAME(n->attn, n->relative));
    clipped_bind(b, &l->conv_start, a->clipped, 2 * d, d, "%s", NAME("lconv1d.", "linear_start"));
    clipped_bind(b, &l->conv_end, a->clipped, d, d, "%s", NAME("lconv1d.", "linear_end"));
}

void audio_encoder_bind(audio_encoder *a, binder *b)
{
    bool last = a->names == &gemma4_names;
    int64_t width = last ? a->channels[0] / 4 : (a->mel + 1) / 2;           /* Gemma 4's config does not know the number of frequencies */
    int64_t columns = (last ? width : (width + 1) / 2) * a->channels[1];
#define SUB "audio_tower.subsample_conv_projection."
    bind_conv2d(b, &a->conv[0], a->channels[0], 1, 3, 3, SUB "%s.conv", a->names->conv[0]);
    bind_conv2d(b, &a->conv[1], a->channels[1], a->channels[0], 3, 3, SUB "%s.conv", a->names->conv[1]);
    bind_vector(b, &a->conv_norm[0], a->channels[0], SUB "%s.norm.weight", a->names->conv[0]);
    bind_vector(b, &a->conv_norm[1], a->channels[1], SUB "%s.norm.weight", a->names->conv[1]);
    bind_linear(b, &a->input, a->hidden, columns, SUB "input_proj_linear");
#undef SUB
    for (int i = 0; i < a->layers; i++) bind_layer(b, a, &a->layer[i], i);
    if (!last) return;
    bind_linear(b, &a->output_proj, a->output, a->hidden, "audio_tower.output_proj");
    bind_vector(b, &a->output_bias, a->output, "audio_tower.output_proj.bias");
    bind_linear(b, &a->project, a->rows_hidden, a->output, "embed_audio.embedding_projection");
}

int64_t audio_encoder_rows(int64_t frames)
{
    int64_t half = (frames + 1) / 2;
    return (half + 1) / 2;
}

/* Each time's values (all frequencies and channels) are normed by mean and variance of everything up to that time; what a time adds to the variance
 * is measured from the mean of its day. */
static void norm_so_far(run *r, tensor x, int times, const float *w, float eps)
{
    if (!run_ok(r)) return;
    int64_t rows = x.rows / times;
    double sum = 0, squares = 0, count = 0;
    for (int t = 0; t < times; t++) {
        count += (double)(rows * x.cols);
        for (int64_t i = t * rows; i < (t + 1) * rows; i++)
            for (int64_t c = 0; c < x.cols; c++) sum += tensor_row(x, i)[c];
        double mean = sum / count;
        for (int64_t i = t * rows; i < (t + 1) * rows; i++)
            for (int64_t c = 0; c < x.cols; c++) squares += (tensor_row(x, i)[c] - mean) * (tensor_row(x, i)[c] - mean);
        float factor = (float)(1 / sqrt(squares / count + (double)eps));
        for (int64_t i = t * rows; i < (t + 1) * rows; i++)
            for (int64_t c = 0; c < x.cols; c++) tensor_row(x, i)[c] = (tensor_row(x, i)[c] - (float)mean) * factor * w[c];
    }
}

void audio_encoder_embed(run *r, const audio_encoder *a, tensor features, tensor x)
{
    int height = (int)features.rows, width = a->mel;
    tensor h = {features.data, DT_F32, features.rows * a->mel, 1, 1};
    for (int i = 0; i < 2; i++) {
        conv_shape c = {height, width, 3, 3, 2, a->group_eps > 0 ? 0 : 1, 1, (height + 1) / 2, (width + 1) / 2};
        h = op_conv2d_shape(r, h, &c, &a->conv[i], NULL);
        height = c.out_height;
        width = c.out_width;
        if (a->group_eps > 0) norm_so_far(r, h, height, a->conv_norm[i], a->group_eps);
        else h = op_layernorm(r, h, a->conv_norm[i], NULL, a->eps);
        op_activate(r, h, ACT_RELU);
    }
    if (!run_ok(r)) return;
    int64_t columns = (int64_t)width * a->channels[1];
    if (height != x.rows || columns != a->input.cols) {
        run_fail(r, VLM_UNSUPPORTED, "audio tower: %d mel bins do not give the %lld columns of input_proj_linear", a->mel,
                 (long long)a->input.cols);
        return;
    }
    op_linear_to(r, x, (tensor){h.data, DT_F32, height, columns, columns}, &a->input, NULL);
    TAP(r, "audio.embed", 0, x);
}

static void bound(run *r, const audio_encoder *a, tensor x)
{
    if (isfinite(a->bound)) op_clip(r, x, -a->bound, a->bound);
}

/* norm(clip x), leaving x as it is. */
static tensor bounded_norm(run *r, const audio_encoder *a, tensor x, const float *w)
{
    if (isfinite(a->bound)) {
        tensor copy = run_zeros(r, x.rows, x.cols);
        op_add_inplace(r, copy, x);
        bound(r, a, copy);
        x = copy;
    }
    return op_rmsnorm(r, x, w, 0, 1e-6f);
}

/* x += weight * norm(down(act(up(norm x)))) */
static void feed_forward(run *r, const audio_encoder *a, const audio_ffn *f, tensor x)
{
    tensor h = bounded_norm(r, a, x, f->pre_norm);
    h = clipped_apply(r, &f->up, h);
    op_activate(r, h, a->act);
    h = clipped_apply(r, &f->down, h);
    bound(r, a, h);
    op_add_scaled(r, x, op_rmsnorm(r, h, f->post_norm, 0, 1e-6f), a->residual);
}

static void attention(run *r, const audio_encoder *a, const audio_layer *l, tensor x)
{
    const clipped_linear *qkv[3] = {&l->q, &l->k, &l->v};
    int rows = a->left + a->right + 1;
    tensor t[3], h = bounded_norm(r, a, x, l->norm_pre_attn);
    clipped_apply_many(r, qkv, 3, h, t);
    op_scale(r, t[0], a->q_scale, l->q_columns);
    if (a->k_scale != 1) op_scale(r, t[1], a->k_scale, NULL);
    tensor relative = op_linear(r, (tensor){a->relative, DT_F32, rows, a->hidden, a->hidden}, &l->relative_k, NULL);
    attention_spec spec = {.heads = a->heads, .kv_heads = a->heads, .head_dim = a->head_dim, .scale = 1.0f, .softcap = a->softcap};
    h = op_attention_relative(r, t[0], t[1], t[2], relative, a->left, a->right, &spec);
    h = clipped_apply(r, &l->post, h);
    bound(r, a, h);
    op_add_inplace(r, x, op_rmsnorm(r, h, l->norm_post_attn, 0, 1e-6f));
}

static void light_convolution(run *r, const audio_encoder *a, const audio_layer *l, tensor x)
{
    tensor h = op_rmsnorm(r, x, l->conv_pre_norm, 0, a->eps);
    h = clipped_apply(r, &l->conv_start, h);
    h = op_glu(r, tensor_cols(h, a->hidden, a->hidden), tensor_cols(h, 0, a->hidden), ACT_SIGMOID);
    h = op_conv1d_depthwise(r, h, l->conv, a->kernel, a->kernel - 1);
    bound(r, a, h);
    h = op_rmsnorm(r, h, l->conv_norm, 0, a->eps);
    op_activate(r, h, a->act);
    op_add_inplace(r, x, clipped_apply(r, &l->conv_end, h));
}

void audio_encoder_run_layer(run *r, const audio_encoder *a, int layer, tensor x)
{
    const audio_layer *l = &a->layer[layer];
    feed_forward(r, a, &l->ffn1, x);
    attention(r, a, l, x);
    light_convolution(r, a, l, x);
    feed_forward(r, a, &l->ffn2, x);
    bound(r, a, x);
    op_rmsnorm_heads(r, x, l->norm_out, 0, 1e-6f, a->hidden);
    TAP(r, "audio.layer", layer, x);
}

void audio_encoder_finish(run *r, const audio_encoder *a, tensor x, tensor out)
{
    tensor h = op_linear(r, x, &a->output_proj, a->output_bias);
    op_linear_to(r, out, op_rmsnorm(r, h, NULL, 0, a->eps), &a->project, NULL);
}

double audio_encoder_layer_flops(const audio_encoder *a, int64_t rows)
{
    return 2.0 * (double)rows * a->hidden * (a->hidden * (16.0 + 4 + 3) + 2.0 * (a->left + a->right + 1));
}
