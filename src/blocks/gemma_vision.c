/* gemma_vision.c - see gemma_vision.h. */
#include "blocks/gemma_vision.h"

#include <math.h>

#include "blocks/decoder.h"

enum { MLP_ROWS = 1024 };          /* that go through the MLP at once */

bool gemma_vision_config(gemma_vision *v, arena *memory, config *c, int text_hidden)
{
    v->hidden = (int)config_int(c, "vision_config.hidden_size", 768, 1, 1 << 16);
    v->ffn = (int)config_int(c, "vision_config.intermediate_size", 3072, 1, 1 << 18);
    v->layers = (int)config_int(c, "vision_config.num_hidden_layers", 16, 1, 1024);
    v->heads = (int)config_int(c, "vision_config.num_attention_heads", 12, 1, 1024);
    v->kv_heads = (int)config_int(c, "vision_config.num_key_value_heads", 12, 1, 1024);
    v->head_dim = (int)config_int(c, "vision_config.head_dim", 64, 4, 4096);
    v->patch = (int)config_int(c, "vision_config.patch_size", 16, 1, 256);
    v->pool = (int)config_int(c, "vision_config.pooling_kernel_size", 3, 1, 64);
    v->positions = (int)config_int(c, "vision_config.position_embedding_size", 10240, 1, 1 << 20);
    v->eps = (float)config_number(c, "vision_config.rms_norm_eps", 1e-6);
    v->theta = config_number(c, "vision_config.rope_parameters.rope_theta", 100.0);
    v->act = config_activation(c, "vision_config.hidden_activation", "gelu_pytorch_tanh");
    v->clipped = config_bool(c, "vision_config.use_clipped_linears", false);
    v->standardize = config_bool(c, "vision_config.standardize", false);
    v->rows_hidden = text_hidden;
    if (c->failed) return false;
    if (v->head_dim % 4 != 0) return config_fail(c, VLM_UNSUPPORTED, "vision_config.head_dim %d is not a multiple of 4", v->head_dim);
    if (v->heads % v->kv_heads != 0) {
        return config_fail(c, VLM_FORMAT, "vision_config: %d heads cannot share %d key heads", v->heads, v->kv_heads);
    }
    v->layer = arena_alloc(memory, (size_t)v->layers * sizeof *v->layer);
    return v->layer != NULL || config_fail(c, VLM_MEMORY, "out of memory");
}

/* Pixels come as 0..1 and the tower wants 2 x - 1: W (2 x - 1) = 2 (W x - rowsum(W) / 2). */
static const float *fold_offset(binder *b, const weight *w)
{
    float *bias = arena_alloc(b->memory, (size_t)w->rows * sizeof *bias);
    float *row = mem_aligned((size_t)w->cols * sizeof *row);
    if (bias == NULL || row == NULL) bind_fail(b, VLM_MEMORY, "out of memory");
    for (int64_t i = 0; !b->failed && i < w->rows; i++) {
        double sum = 0;
        weight_row_f32(w, i, row);
        for (int64_t j = 0; j < w->cols; j++) sum += row[j];
        bias[i] = (float)(-0.5 * sum);
    }
    mem_free(row);
    return bias;
}

void gemma_vision_bind(gemma_vision *v, binder *b)
{
    int64_t q = (int64_t)v->heads * v->head_dim, kv = (int64_t)v->kv_heads * v->head_dim, d = v->hidden, f = v->ffn;
    bind_linear(b, &v->input, d, 3LL * v->patch * v->patch, "vision_tower.patch_embedder.input_proj");
    bind_experts(b, &v->table, 2, v->positions, d, "vision_tower.patch_embedder.position_embedding_table");
    if (!b->failed) v->input_bias = fold_offset(b, &v->input);
    for (int i = 0; i < v->layers; i++) {
        gemma_vision_layer *l = &v->layer[i];
#define LAYER "vision_tower.encoder.layers.%d."
        bind_vector(b, &l->norm1, d, LAYER "input_layernorm.weight", i);
        bind_vector(b, &l->post1, d, LAYER "post_attention_layernorm.weight", i);
        bind_vector(b, &l->norm2, d, LAYER "pre_feedforward_layernorm.weight", i);
        bind_vector(b, &l->post2, d, LAYER "post_feedforward_layernorm.weight", i);
        bind_vector(b, &l->q_norm, v->head_dim, LAYER "self_attn.q_norm.weight", i);
        bind_vector(b, &l->k_norm, v->head_dim, LAYER "self_attn.k_norm.weight", i);
        clipped_bind(b, &l->q, v->clipped, q, d, LAYER "self_attn.q_proj", i);
        clipped_bind(b, &l->k, v->clipped, kv, d, LAYER "self_attn.k_proj", i);
        clipped_bind(b, &l->v, v->clipped, kv, d, LAYER "self_attn.v_proj", i);
        clipped_bind(b, &l->o, v->clipped, d, q, LAYER "self_attn.o_proj", i);
        clipped_bind(b, &l->gate, v->clipped, f, d, LAYER "mlp.gate_proj", i);
        clipped_bind(b, &l->up, v->clipped, f, d, LAYER "mlp.up_proj", i);
        clipped_bind(b, &l->down, v->clipped, d, f, LAYER "mlp.down_proj", i);
#undef LAYER
    }
    if (v->standardize) {
        bind_vector(b, &v->std_bias, d, "vision_tower.std_bias");
        bind_vector(b, &v->std_scale, d, "vision_tower.std_scale");
    }
    bind_linear(b, &v->project, v->rows_hidden, d, "embed_vision.embedding_projection");
}

/* Half a head turns with one axis: frequencies theta^(-2i / (head_dim / 2)). */
static void fill_axis(const gemma_vision *v, int n, float *cosine, float *sine)
{
    int quarter = v->head_dim / 4;
    for (int i = 0; i < quarter; i++) {
        float inverse = 1.0f / powf((float)v->theta, (float)(2 * i) / (float)(2 * quarter));
        for (int p = 0; p < n; p++) {
            cosine[p * quarter + i] = cosf((float)p * inverse);
            sine[p * quarter + i] = sinf((float)p * inverse);
        }
    }
}

static bool fill_rope(const gemma_vision *v, gemma_vision_grid *g, arena *memory)
{
    int quarter = v->head_dim / 4, n = g->width > g->height ? g->width : g->height;
    int64_t rows = (int64_t)g->images * g->width * g->height, half = 2 * quarter;
    float *axis = mem_aligned(2 * (size_t)n * (size_t)quarter * sizeof *axis);
    float *cosine = arena_alloc_raw(memory, (size_t)(rows * half) * sizeof *cosine);
    float *sine = arena_alloc_raw(memory, (size_t)(rows * half) * sizeof *sine);
    if (axis == NULL || cosine == NULL || sine == NULL) {
        mem_free(axis);
        return false;
    }
    float *axis_sine = axis + (size_t)n * (size_t)quarter;
    fill_axis(v, n, axis, axis_sine);
    g->cosine = (tensor){cosine, DT_F32, rows, half, half};
    g->sine = (tensor){sine, DT_F32, rows, half, half};
    for (int64_t i = 0; i < rows; i++) {
        int64_t x = i % g->width, y = i / g->width % g->height;
        for (int j = 0; j < quarter; j++) {
            cosine[i * half + j] = axis[x * quarter + j];
            cosine[i * half + quarter + j] = axis[y * quarter + j];
            sine[i * half + j] = axis_sine[x * quarter + j];
            sine[i * half + quarter + j] = axis_sine[y * quarter + j];
        }
    }
    mem_free(axis);
    return true;
}

bool gemma_vision_grid_init(const gemma_vision *v, gemma_vision_grid *g, arena *memory, int width, int height, int images)
{
    int64_t patches = (int64_t)width * height, rows = patches * images;
    int pooled_width = width / v->pool, pooled = pooled_width * (height / v->pool);
    *g = (gemma_vision_grid){.width = width, .height = height, .images = images};
    g->x_ids = arena_alloc_raw(memory, (size_t)rows * sizeof(int32_t));
    g->y_ids = arena_alloc_raw(memory, (size_t)rows * sizeof(int32_t));
    g->pool_to = arena_alloc_raw(memory, (size_t)rows * sizeof(int32_t));
    g->starts = arena_alloc_raw(memory, ((size_t)images + 1) * sizeof(int32_t));
    if (g->x_ids == NULL || g->y_ids == NULL || g->pool_to == NULL || g->starts == NULL) return false;
    for (int64_t i = 0; i < rows; i++) {
        int frame = (int)(i / patches), x = (int)(i % width), y = (int)(i / width % height);
        g->x_ids[i] = x;
        g->y_ids[i] = v->positions + y;
        g->pool_to[i] = frame * pooled + y / v->pool * pooled_width + x / v->pool;
    }
    for (int i = 0; i <= images; i++) g->starts[i] = (int32_t)(i * patches);
    return fill_rope(v, g, memory);
}

void gemma_vision_embed(run *r, const gemma_vision *v, const gemma_vision_grid *g, tensor pixels, tensor x)
{
    weight table = v->table;                       /* both axes as one matrix */
    table.rows *= 2;
    table.experts = 0;
    table.packed = NULL;
    op_linear_to(r, x, pixels, &v->input, v->input_bias);
    op_scale(r, x, 2.0f, NULL);
    op_add_inplace(r, x, op_embed(r, &table, g->x_ids, x.rows, 1.0f));
    op_add_inplace(r, x, op_embed(r, &table, g->y_ids, x.rows, 1.0f));
    TAP(r, "vision.embed", 0, x);
}

static tensor attention(run *r, const gemma_vision *v, const gemma_vision_grid *g, const gemma_vision_layer *l, tensor h)
{
    const clipped_linear *qkv[3] = {&l->q, &l->k, &l->v};
    tensor t[3];
    clipped_apply_many(r, qkv, 3, h, t);
    op_rmsnorm_heads(r, t[0], l->q_norm, 0, v->eps, v->head_dim);
    op_rmsnorm_heads(r, t[1], l->k_norm, 0, v->eps, v->head_dim);
    op_rmsnorm_heads(r, t[2], NULL, 0, v->eps, v->head_dim);
    op_rope(r, t[0], v->heads, v->head_dim, 2, v->head_dim / 2, false, g->cosine, g->sine);
    op_rope(r, t[1], v->kv_heads, v->head_dim, 2, v->head_dim / 2, false, g->cosine, g->sine);
    attention_spec spec = {.heads = v->heads, .kv_heads = v->kv_heads, .head_dim = v->head_dim, .scale = 1.0f};
    tensor a = op_attention_segments(r, t[0], t[1], t[2], g->starts, g->images, &spec);
    return clipped_apply(r, &l->o, a);
}

/* x += norm(down(act(gate h) * up h)), h = norm(x) */
static void mlp(run *r, const gemma_vision *v, const gemma_vision_layer *l, tensor x)
{
    const clipped_linear *both[2] = {&l->gate, &l->up};
    tensor t[2], h = op_rmsnorm(r, x, l->norm2, 0, v->eps);
    clipped_apply_many(r, both, 2, h, t);
    h = clipped_apply(r, &l->down, op_glu(r, t[0], t[1], v->act));
    op_add_inplace(r, x, op_rmsnorm(r, h, l->post2, 0, v->eps));
}

void gemma_vision_run_layer(run *r, const gemma_vision *v, const gemma_vision_grid *g, int layer, tensor x)
{
    const gemma_vision_layer *l = &v->layer[layer];
    arena_mark mark = arena_get_mark(r->scratch);
    tensor h = op_rmsnorm(r, x, l->norm1, 0, v->eps);
    h = attention(r, v, g, l, h);
    op_add_inplace(r, x, op_rmsnorm(r, h, l->post1, 0, v->eps));
    TAP(r, "vision.attn", layer, x);
    arena_release(r->scratch, mark);
    int64_t blocks = (x.rows + MLP_ROWS - 1) / MLP_ROWS, rows = (x.rows + blocks - 1) / blocks;
    for (int64_t first = 0; first < x.rows && run_ok(r); first += rows) {      /* scratch stays small, and in the cache */
        mlp(r, v, l, tensor_rows(x, first, first + rows < x.rows ? rows : x.rows - first));
        arena_release(r->scratch, mark);
    }
    TAP(r, "vision.layer", layer, x);
}

void gemma_vision_finish(run *r, const gemma_vision *v, const gemma_vision_grid *g, tensor x, tensor out)
{
    tensor pooled = run_zeros(r, out.rows, v->hidden);
    op_scatter_add(r, pooled, x, g->pool_to, sqrtf((float)v->hidden) / (float)(v->pool * v->pool));
    if (v->standardize) {
        int32_t *first = run_alloc(r, (size_t)out.rows * sizeof *first);
        tensor bias = {(void *)v->std_bias, DT_F32, 1, v->hidden, v->hidden};
        if (first == NULL) return;
        op_add_scaled(r, pooled, op_gather(r, bias, first, out.rows), -1.0f);
        op_scale(r, pooled, 1.0f, v->std_scale);
    }
    TAP(r, "vision.pooled", 0, pooled);
    op_linear_to(r, out, op_rmsnorm(r, pooled, NULL, 0, v->eps), &v->project, NULL);
}

double gemma_vision_layer_flops(const gemma_vision *v, int64_t patches, int64_t segment)
{
    double q = (double)v->heads * v->head_dim, kv = (double)v->kv_heads * v->head_dim;
    return 2.0 * (double)patches * ((2 * q + 2 * kv + 3.0 * v->ffn) * v->hidden + 2 * q * (double)segment);
}
