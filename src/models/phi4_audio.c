/* phi4_audio.c - see phi4_audio.h. */
#include "models/phi4_audio.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blocks/decoder.h"

static const float EPS = 1e-5f;

struct phi4_names { const char *in, *out, *product[4]; };
static const struct phi4_names names[2] = {
    {"gate_up_proj", "down_proj", {"q_proj", "k_proj", "v_proj", "o_proj"}},
    {"net.0.linear", "net.2", {"linear_q", "linear_k", "linear_v", "linear_out"}},
};

/* ---- config and weights ------------------------------------------------------------------------------------------- */

#define AUDIO(key) "audio_config." key

static void configure_mel(phi4_audio *a, config *p)
{
#define SOUND(key) "audio_processor." key "|feature_extractor." key "|" key
    a->mel = (mel_spec){
        .rate = (int)config_int(p, SOUND("sampling_rate"), 16000, 1000, 1 << 20), .frame_length = (int)config_int(p, SOUND("win_length"), 400, 2, 1 << 16),
        .hop = (int)config_int(p, SOUND("hop_length"), 160, 1, 1 << 16), .fft = (int)config_int(p, SOUND("n_fft"), 512, 2, 1 << 16), .bins = a->bins,
        .min_hz = config_number(p, SOUND("mel_min_frequency"), 0), .max_hz = config_number(p, SOUND("mel_max_frequency"), 7690), .scale = MEL_KALDI,
        .mel_triangles = true, .power = true, .hamming = true, .preemphasis = config_number(p, SOUND("preemphasis"), 0.97), .preemphasis_htk = true,
        .input_scale = 32768, .log = MEL_LN_FLOOR, .floor = 1};
#undef SOUND
}

bool phi4_audio_config(phi4_audio *a, arena *memory, config *c, config *p, bool published)
{
    a->names = &names[published];
    a->hidden = (int)config_int(c, AUDIO("hidden_size"), 1024, 1, 1 << 16);
    a->ffn = (int)config_int(c, AUDIO("intermediate_size"), 1536, 1, 1 << 20);
    a->layers = (int)config_int(c, AUDIO("num_blocks"), 24, 1, 1024);
    a->heads = (int)config_int(c, AUDIO("num_attention_heads"), 16, 1, 1024);
    a->kernel = (int)config_int(c, AUDIO("kernel_size"), 3, 1, 64);
    a->widened = (int)config_int(c, AUDIO("ext_pw_out_channel"), 1024, 1, 1 << 16);
    a->channels = (int)config_int(c, AUDIO("nemo_conv_channels"), 1024, 1, 1 << 16);
    a->bins = (int)config_int(c, AUDIO("input_size"), 80, 1, 4096);
    a->most = (int)config_int(c, AUDIO("bias_max_distance"), 1000, 1, 1 << 20);
    a->symmetric = config_bool(c, AUDIO("bias_symmetric"), false);
    a->act = config_activation(c, AUDIO("activation"), "swish");
    a->conv_act = config_activation(c, AUDIO("conv_activation"), "swish");
    a->glu_act = config_activation(c, AUDIO("conv_glu_type"), "swish");
    a->first_act = config_activation(c, AUDIO("nemo_activation"), "relu");
    int reduction = (int)config_int(c, AUDIO("time_reduction"), 8, 2, 1 << PHI4_MAX_CONVS);
    int separable = (int)config_int(c, AUDIO("depthwise_separable_out_channel"), 1024, 1, 1 << 16);
    bool plain = config_int(c, AUDIO("depthwise_multiplier"), 1, 0, 1 << 16) == 1 && config_int(c, AUDIO("downsample_rate"), 1, 0, 1 << 16) == 1 &&
                 config_int(c, AUDIO("chunk_size"), -1, INT32_MIN, INT32_MAX) == -1;
    configure_mel(a, p);
    if (c->failed || p->failed) return false;
    for (a->convs = 0; 1 << (a->convs + 1) <= reduction;) a->convs++;
    if (!plain || 1 << a->convs != reduction || a->hidden % a->heads || separable != a->hidden || a->widened != a->hidden)
        return config_fail(c, VLM_UNSUPPORTED, "audio_config: depthwise_multiplier and downsample_rate 1, chunk_size -1, time_reduction a power of two and one width throughout were expected");
    a->final = a->bins;
    for (int i = 0; i < a->convs; i++) a->final = (a->final - 1) / 2 + 1;
    a->layer = arena_alloc(memory, (size_t)a->layers * sizeof *a->layer);
    return a->layer != NULL || config_fail(c, VLM_MEMORY, "out of memory");
}

/* [channels, 1, taps...] as rows of channels. */
static void bind_taps(binder *b, const float **out, int channels, int n, const char *name)
{
    const float *taps = NULL;
    bind_vector(b, &taps, (int64_t)channels * n, "%s", name);
    float *turned = b->failed ? NULL : arena_alloc_raw(b->memory, (size_t)channels * (size_t)n * sizeof *turned);
    if (!turned && !b->failed) bind_fail(b, VLM_MEMORY, "out of memory");
    for (int c = 0; turned && c < channels; c++)
        for (int k = 0; k < n; k++) turned[k * channels + c] = taps[c * n + k];
    *out = turned;
}

typedef struct full_name { char text[160]; } full_name;
static full_name in_layer(int i, const char *part, const char *name)
{
    full_name n;
    snprintf(n.text, sizeof n.text, "encoders.%d.%s%s", i, part, name);
    return n;
}
#define NAME(part, name) in_layer(i, part, name).text
#define VECTOR(v, n, part, name) bind_vector(b, v, n, "%s", NAME(part, name))
#define MATRIX(w, rows, cols, part, name) bind_linear(b, w, rows, cols, "%s", NAME(part, name))

static void bind_ffn(binder *b, const phi4_audio *a, phi4_ffn *f, int i, const char *part)
{
    VECTOR(&f->norm, a->hidden, part, "layer_norm.weight");
    VECTOR(&f->norm_bias, a->hidden, part, "layer_norm.bias");
    MATRIX(&f->in, 2LL * a->ffn, a->hidden, part, a->names->in);
    bind_vector(b, &f->in_bias, 2LL * a->ffn, "%s.bias", NAME(part, a->names->in));
    MATRIX(&f->out, a->hidden, a->ffn, part, a->names->out);
    bind_vector(b, &f->out_bias, a->hidden, "%s.bias", NAME(part, a->names->out));
}

/* b1 and b2 are added to what the product's own bias was added to. */
static void bind_glu(binder *b, const phi4_audio *a, phi4_audio_layer *l, int i)
{
    const float *bias = NULL, *b1 = NULL, *b2 = NULL;
    int n = a->widened;
    bind_conv3d(b, &l->glu, 2LL * n, a->hidden, 1, 1, 1, "%s", NAME("conv.glu.", "ext_pw_conv_1d"));
    VECTOR(&bias, 2LL * n, "conv.glu.", "ext_pw_conv_1d.bias");
    VECTOR(&b1, n, "conv.glu.", "b1");
    VECTOR(&b2, n, "conv.glu.", "b2");
    float *sum = b->failed ? NULL : arena_alloc_raw(b->memory, 2 * (size_t)n * sizeof *sum);
    if (!sum && !b->failed) bind_fail(b, VLM_MEMORY, "out of memory");
    for (int k = 0; sum && k < n; k++) sum[k] = bias[k] + b1[k], sum[n + k] = bias[n + k] + b2[k];
    l->glu_bias = sum;
}

static void bind_layer(binder *b, const phi4_audio *a, phi4_audio_layer *l, int i)
{
    int64_t d = a->hidden;
    bind_ffn(b, a, &l->ffn1, i, "feed_forward_in.");
    bind_ffn(b, a, &l->ffn2, i, "feed_forward_out.");
    VECTOR(&l->norm_att, d, "", "layer_norm_att.weight");
    VECTOR(&l->norm_att_bias, d, "", "layer_norm_att.bias");
    VECTOR(&l->norm, d, "", "layer_norm.weight");
    VECTOR(&l->norm_bias, d, "", "layer_norm.bias");
    struct { weight *w; const float **bias; } products[] = {{&l->q, &l->q_bias}, {&l->k, &l->k_bias}, {&l->v, &l->v_bias}, {&l->o, &l->o_bias}};
    for (int k = 0; k < 4; k++) {
        MATRIX(products[k].w, d, d, "self_attn.", a->names->product[k]);
        bind_vector(b, products[k].bias, d, "%s.bias", NAME("self_attn.", a->names->product[k]));
    }
    VECTOR(&l->conv_norm, d, "conv.", "layer_norm.weight");
    VECTOR(&l->conv_norm_bias, d, "conv.", "layer_norm.bias");
    bind_glu(b, a, l, i);
    bind_taps(b, &l->taps, a->hidden, a->kernel, NAME("conv.dw_sep_conv_1d.", "dw_conv.weight"));
    VECTOR(&l->taps_bias, d, "conv.dw_sep_conv_1d.", "dw_conv.bias");
    MATRIX(&l->point, d, d, "conv.dw_sep_conv_1d.", "pw_conv");
    VECTOR(&l->point_bias, d, "conv.dw_sep_conv_1d.", "pw_conv.bias");
    MATRIX(&l->last, d, d, "conv.", "ext_pw_conv_1d");
    VECTOR(&l->last_bias, d, "conv.", "ext_pw_conv_1d.bias");
}

void phi4_audio_bind(phi4_audio *a, binder *b)
{
    int64_t c = a->channels;
    bind_vector(b, &a->mean, a->bins, "encoder_embedding.global_mean");
    bind_vector(b, &a->invstd, a->bins, "encoder_embedding.global_invstd");
    bind_vector(b, &a->bias, (int64_t)a->heads * a->most * (a->symmetric ? 1 : 2), "relative_attention_bias_layer.bias_values.weight");
    bind_conv2d(b, &a->conv, c, 1, 3, 3, "embed.conv.0");
    bind_vector(b, &a->conv_bias, c, "embed.conv.0.bias");
    for (int i = 1; i < a->convs; i++) {
        char name[64];
        snprintf(name, sizeof name, "embed.conv.%d.weight", 3 * i - 1);
        bind_taps(b, &a->taps[i], a->channels, 9, name);
        bind_vector(b, &a->taps_bias[i], c, "embed.conv.%d.bias", 3 * i - 1);
        bind_conv3d(b, &a->point[i], c, c, 1, 1, 1, "embed.conv.%d", 3 * i);
        bind_vector(b, &a->point_bias[i], c, "embed.conv.%d.bias", 3 * i);
    }
    bind_linear(b, &a->out, a->hidden, c * a->final, "embed.out");
    bind_vector(b, &a->out_bias, a->hidden, "embed.out.bias");
    for (int i = 0; i < a->layers && !b->failed; i++) bind_layer(b, a, &a->layer[i], i);
}

/* ---- forward ------------------------------------------------------------------------------------------------------ */

int64_t phi4_audio_rows(const phi4_audio *a, int64_t frames) { return (frames + (1 << a->convs) - 1) >> a->convs; }

int64_t phi4_audio_room(const phi4_audio *a, int64_t frames)
{
    int64_t n = phi4_audio_rows(a, frames);
    return n <= PHI4_SEGMENT ? n : (n + PHI4_SEGMENT - 1) / PHI4_SEGMENT * PHI4_SEGMENT;
}

void phi4_audio_embed(run *r, const phi4_audio *a, tensor features, tensor x)
{
    tensor h = run_tensor(r, features.rows * a->bins, 1);
    for (int64_t i = 0; run_ok(r) && i < features.rows; i++)
        for (int k = 0; k < a->bins; k++) *tensor_row(h, i * a->bins + k) = (tensor_row(features, i)[k] - a->mean[k]) * a->invstd[k];
    conv_shape c = {(int)features.rows, a->bins, 3, 3, 2, 1, 1, ((int)features.rows + 1) / 2, (a->bins + 1) / 2};
    h = op_conv2d_shape(r, h, &c, &a->conv, a->conv_bias);
    op_activate(r, h, a->first_act);
    for (int i = 1; i < a->convs; i++) {
        c = (conv_shape){c.out_height, c.out_width, 3, 3, 2, 1, 1, (c.out_height + 1) / 2, (c.out_width + 1) / 2};
        h = op_linear(r, op_conv2d_depthwise(r, h, &c, a->taps[i], a->taps_bias[i]), &a->point[i], a->point_bias[i]);
        op_activate(r, h, a->first_act);
    }
    tensor flat = run_tensor(r, c.out_height, (int64_t)a->channels * a->final);          /* channels outside, frequencies inside */
    for (int64_t t = 0; run_ok(r) && t < flat.rows; t++)
        for (int f = 0; f < a->final; f++)
            for (int k = 0; k < a->channels; k++) tensor_row(flat, t)[k * a->final + f] = tensor_row(h, t * a->final + f)[k];
    if (!run_ok(r)) return;
    memset(x.data, 0, (size_t)(x.rows * x.cols) * sizeof(float));
    op_linear_to(r, tensor_rows(x, 0, flat.rows), flat, &a->out, a->out_bias);
    TAP(r, "audio.embed", 0, x);
}

static void feed_forward(run *r, const phi4_audio *a, const phi4_ffn *f, tensor x)
{
    tensor h = op_linear(r, op_layernorm(r, x, f->norm, f->norm_bias, EPS), &f->in, f->in_bias);
    if (!run_ok(r)) return;
    h = op_glu(r, tensor_cols(h, a->ffn, a->ffn), tensor_cols(h, 0, a->ffn), a->act);
    op_add_scaled(r, x, op_linear(r, h, &f->out, f->out_bias), 0.5f);
}

/* Heads become one column wider: a one for queries, the bias for relative positions, zero for keys and values. */
static tensor widen(run *r, tensor x, int heads, float scale, float more)
{
    int64_t n = x.cols / heads;
    tensor y = run_tensor(r, x.rows, x.cols + heads);
    for (int64_t i = 0; run_ok(r) && i < x.rows; i++)
        for (int h = 0; h < heads; h++) {
            float *to = tensor_row(y, i) + h * (n + 1);
            for (int64_t k = 0; k < n; k++) to[k] = tensor_row(x, i)[h * n + k] * scale;
            to[n] = more;
        }
    return y;
}

static tensor biases(run *r, const phi4_audio *a, int64_t n)
{
    int64_t wide = a->hidden / a->heads + 1;
    tensor y = run_zeros(r, 2 * n - 1, wide * a->heads);
    for (int64_t i = 0; run_ok(r) && i < y.rows; i++) {
        int64_t ahead = n - 1 - i;                                         /* key's position - query's */
        if (ahead < -a->most) ahead = -a->most;
        if (ahead > a->most - 1) ahead = a->most - 1;
        int64_t bucket = a->symmetric ? llabs(ahead) : ahead + a->most;
        if (a->symmetric && bucket > a->most - 1) bucket = a->most - 1;
        for (int h = 0; h < a->heads; h++) tensor_row(y, i)[(h + 1) * wide - 1] = a->bias[bucket * a->heads + h];
    }
    return y;
}

static void attention(run *r, const phi4_audio *a, const phi4_audio_layer *l, tensor x)
{
    int n = (int)x.rows, dim = a->hidden / a->heads;
    tensor h = op_layernorm(r, x, l->norm_att, l->norm_att_bias, EPS), t[3];
    op_linear_group(r, h, 3, t, (const weight *[]){&l->q, &l->k, &l->v}, (const float *[]){l->q_bias, l->k_bias, l->v_bias});
    if (!run_ok(r)) return;
    tensor q = widen(r, t[0], a->heads, (float)pow(dim, -0.5), 1), k = widen(r, t[1], a->heads, 1, 0), v = widen(r, t[2], a->heads, 1, 0);
    attention_spec spec = {.heads = a->heads, .kv_heads = a->heads, .head_dim = dim + 1, .scale = 1};
    tensor out = op_attention_relative(r, q, k, v, biases(r, a, n), n - 1, n - 1, &spec), back = run_tensor(r, n, a->hidden);
    for (int i = 0; run_ok(r) && i < n; i++)
        for (int j = 0; j < a->heads; j++) memcpy(tensor_row(back, i) + j * dim, tensor_row(out, i) + j * (dim + 1), (size_t)dim * sizeof(float));
    op_add_inplace(r, x, op_linear(r, back, &l->o, l->o_bias));
}

static void convolution(run *r, const phi4_audio *a, const phi4_audio_layer *l, tensor x)
{
    tensor h = op_linear(r, op_layernorm(r, x, l->conv_norm, l->conv_norm_bias, EPS), &l->glu, l->glu_bias);
    if (!run_ok(r)) return;
    h = op_glu(r, tensor_cols(h, a->widened, a->widened), tensor_cols(h, 0, a->widened), a->glu_act);
    conv_shape c = {(int)x.rows, 1, a->kernel, 1, 1, a->kernel - 1, 0, (int)x.rows, 1};
    h = op_linear(r, op_conv2d_depthwise(r, h, &c, l->taps, l->taps_bias), &l->point, l->point_bias);
    op_activate(r, h, a->conv_act);
    op_add_inplace(r, x, op_linear(r, h, &l->last, l->last_bias));
}

static void run_segment(run *r, const phi4_audio *a, const phi4_audio_layer *l, tensor x)
{
    arena_mark mark = arena_get_mark(r->scratch);
    feed_forward(r, a, &l->ffn1, x);
    attention(r, a, l, x);
    convolution(r, a, l, x);
    feed_forward(r, a, &l->ffn2, x);
    tensor y = op_layernorm(r, x, l->norm, l->norm_bias, EPS);
    for (int64_t i = 0; run_ok(r) && i < x.rows; i++) memcpy(tensor_row(x, i), tensor_row(y, i), (size_t)x.cols * sizeof(float));
    arena_release(r->scratch, mark);
}

void phi4_audio_run_layer(run *r, const phi4_audio *a, int layer, tensor x)
{
    for (int64_t first = 0; first < x.rows && run_ok(r); first += PHI4_SEGMENT)
        run_segment(r, a, &a->layer[layer], tensor_rows(x, first, x.rows - first < PHI4_SEGMENT ? x.rows - first : PHI4_SEGMENT));
    TAP(r, "audio.layer", layer, x);
}
