/* image_tower.c - see image_tower.h. */
#include "models/image_tower.h"

#include <math.h>
#include <string.h>

#include "blocks/resample.h"

/* What the kinds of towers differ in: names in the file and defaults of the config. */
struct tower_kind {
    const char *types[8];
    vit_names names;
    const char *layers, *embed, *table, *class_row, *pre_norm, *post_norm;
    int hidden, ffn, n_layers, heads, image, patch;
    const char *act;
    float eps;
    bool rms, gated, rope;
    bool norm_first;               /* pre_norm comes before the positions */
    bool llama4;                   /* the class row is the last; rope in pairs, from 1 on, column first; a product instead of a convolution */
    bool product;                  /* the patches' kernel lies as a matrix */
    bool patches;                  /* Molmo: pixels come as patches */
    bool quotients;                /* buckets: of i / n, not i * (1 / n) */
    int flat;                      /* SigLIP 2: rows of the table; pixels come as patches, the table is resampled to the picture */
};

#define SIGLIP_NAMES {"layer_norm1", "layer_norm2", NULL, "self_attn.out_proj", NULL, "mlp.fc1", "mlp.fc2", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", \
                      NULL, NULL, NULL, NULL}

static const struct tower_kind kinds[] = {
    {.types = {"clip_vision_model"}, .names = SIGLIP_NAMES, .layers = "encoder.layers", .embed = "embeddings.patch_embedding",
     .table = "embeddings.position_embedding.weight", .class_row = "embeddings.class_embedding", .pre_norm = "pre_layrnorm", .post_norm = "post_layernorm",
     .hidden = 768, .ffn = 3072, .n_layers = 12, .heads = 12, .image = 224, .patch = 32, .act = "quick_gelu", .eps = 1e-5f},
    {.types = {"siglip_vision_model", "siglip"}, .names = SIGLIP_NAMES, .layers = "encoder.layers", .embed = "embeddings.patch_embedding",
     .table = "embeddings.position_embedding.weight", .post_norm = "post_layernorm",
     .hidden = 768, .ffn = 3072, .n_layers = 12, .heads = 12, .image = 224, .patch = 16, .act = "gelu_pytorch_tanh", .eps = 1e-6f},
    {.types = {"vision"}, .layers = "blocks", .embed = "patch_embed.proj", .table = "pos_embed", .post_norm = "norm",     /* timm's names of SigLIP */
     .names = {"norm1", "norm2", "attn.qkv", "attn.proj", NULL, "mlp.fc1", "mlp.fc2", NULL, NULL, NULL, NULL, NULL, NULL, NULL},
     .hidden = 1152, .ffn = 4304, .n_layers = 27, .heads = 16, .image = 384, .patch = 14, .act = "gelu_pytorch_tanh", .eps = 1e-6f},
    {.types = {"siglip2_vision_model"}, .names = SIGLIP_NAMES, .layers = "encoder.layers", .embed = "embeddings.patch_embedding",
     .table = "embeddings.position_embedding.weight", .post_norm = "post_layernorm",
     .hidden = 768, .ffn = 3072, .n_layers = 12, .heads = 12, .image = 256, .patch = 16, .act = "gelu_pytorch_tanh", .eps = 1e-6f, .flat = 256},
    {.types = {"minicpmv4_6_vision"}, .names = SIGLIP_NAMES, .layers = "encoder.layers", .embed = "embeddings.patch_embedding",
     .table = "embeddings.position_embedding.weight", .post_norm = "post_layernorm",
     .hidden = 768, .ffn = 3072, .n_layers = 12, .heads = 12, .image = 224, .patch = 16, .act = "gelu_pytorch_tanh", .eps = 1e-6f, .quotients = true},
    {.types = {"idefics2", "idefics2_vision"}, .names = SIGLIP_NAMES, .layers = "encoder.layers", .embed = "embeddings.patch_embedding",
     .table = "embeddings.position_embedding.weight", .post_norm = "post_layernorm",
     .hidden = 768, .ffn = 3072, .n_layers = 12, .heads = 12, .image = 224, .patch = 32, .act = "gelu_pytorch_tanh", .eps = 1e-6f},
    {.types = {"idefics3", "idefics3_vision", "smolvlm", "smolvlm_vision"}, .names = SIGLIP_NAMES, .layers = "encoder.layers",
     .embed = "embeddings.patch_embedding", .table = "embeddings.position_embedding.weight", .post_norm = "post_layernorm",
     .hidden = 1152, .ffn = 3072, .n_layers = 12, .heads = 16, .image = 224, .patch = 32, .act = "gelu_pytorch_tanh", .eps = 1e-6f},
    {.types = {"phi4_multimodal_vision"}, .names = SIGLIP_NAMES, .layers = "encoder.layers", .embed = "embeddings.patch_embedding",
     .table = "embeddings.position_embedding.weight", .post_norm = "post_layernorm",
     .hidden = 1152, .ffn = 4304, .n_layers = 27, .heads = 16, .image = 448, .patch = 14, .act = "gelu_pytorch_tanh", .eps = 1e-6f},
    {.types = {"granite_docling_vision"}, .names = SIGLIP_NAMES, .layers = "encoder.layers", .embed = "embeddings.patch_embedding",
     .table = "embeddings.position_embedding.weight", .post_norm = "post_layernorm",
     .hidden = 768, .ffn = 3072, .n_layers = 12, .heads = 12, .image = 512, .patch = 16, .act = "gelu_pytorch_tanh", .eps = 1e-6f},
    {.types = {"moondream"}, .layers = "blocks", .embed = "patch_emb", .table = "pos_emb", .post_norm = "post_ln",
     .names = {"ln1", "ln2", "attn.qkv", "attn.proj", NULL, "mlp.fc1", "mlp.fc2", NULL, NULL, NULL, NULL, NULL, NULL, NULL},
     .hidden = 1152, .ffn = 4304, .n_layers = 27, .heads = 16, .image = 378, .patch = 14, .act = "gelu_pytorch_tanh", .eps = 1e-5f, .product = true},
    {.types = {"molmo"}, .layers = "transformer.resblocks", .embed = "patch_embedding", .table = "positional_embedding", .class_row = "class_embedding", .pre_norm = "pre_ln",
     .names = {"attention_norm", "ffn_norm", NULL, "attention.wo", NULL, "feed_forward.w1", "feed_forward.w2", "attention.wq", "attention.wk", "attention.wv",
               NULL, NULL, NULL, NULL},
     .hidden = 1024, .ffn = 4096, .n_layers = 23, .heads = 16, .image = 336, .patch = 14, .act = "quick_gelu", .eps = 1e-5f, .patches = true},
    {.types = {"molmo2", "molmo2_vision"}, .layers = "transformer.resblocks", .embed = "patch_embedding", .table = "positional_embedding",
     .names = {"attention_norm", "ffn_norm", NULL, "attention.wo", NULL, "feed_forward.w1", "feed_forward.w2", "attention.wq", "attention.wk", "attention.wv",
               NULL, NULL, NULL, NULL},
     .hidden = 1152, .ffn = 4304, .n_layers = 25, .heads = 16, .image = 378, .patch = 14, .act = "gelu_pytorch_tanh", .eps = 1e-6f, .patches = true},
    {.types = {"llama4_vision_model"}, .layers = "model.layers", .embed = "patch_embedding.linear", .table = "positional_embedding_vlm",
     .class_row = "class_embedding", .pre_norm = "layernorm_pre", .post_norm = "layernorm_post",
     .names = {"input_layernorm", "post_attention_layernorm", NULL, "self_attn.o_proj", NULL, "mlp.fc1", "mlp.fc2", "self_attn.q_proj", "self_attn.k_proj",
               "self_attn.v_proj", NULL, NULL, NULL, NULL},
     .hidden = 768, .ffn = 5632, .n_layers = 34, .heads = 16, .image = 448, .patch = 14, .act = "gelu", .eps = 1e-5f, .rope = true, .llama4 = true},
    {.types = {"internvl_vision"}, .layers = "encoder.layer", .embed = "embeddings.patch_embeddings.projection", .table = "embeddings.position_embeddings",
     .class_row = "embeddings.cls_token", .post_norm = "layernorm",
     .names = {"layernorm_before", "layernorm_after", NULL, "attention.projection_layer", NULL, "mlp.fc1", "mlp.fc2", "attention.q_proj", "attention.k_proj",
               "attention.v_proj", "lambda_1", "lambda_2", NULL, NULL},
     .hidden = 1024, .ffn = 4096, .n_layers = 24, .heads = 16, .image = 448, .patch = 14, .act = "gelu", .eps = 1e-6f},
    {.types = {"qianfan_ocr_vision"}, .layers = "encoder.layers", .embed = "embeddings.patch_embedding", .table = "embeddings.position_embedding",
     .class_row = "embeddings.class_embedding", .post_norm = "layernorm",
     .names = {"norm1", "norm2", "attn.qkv", "attn.proj", NULL, "mlp.fc1", "mlp.fc2", NULL, NULL, NULL, "ls1", "ls2", NULL, NULL},
     .hidden = 1024, .ffn = 4096, .n_layers = 24, .heads = 16, .image = 448, .patch = 14, .act = "gelu", .eps = 1e-6f},
    {.types = {"ovis2_vision"}, .layers = "encoder.layers", .embed = "embeddings.patch_embedding", .table = "embeddings.position_embedding.weight",
     .pre_norm = "embeddings.rms_norm", .post_norm = "rms_norm", .norm_first = true,
     .names = {"rms_norm1", "rms_norm2", NULL, "attention.out_proj", "ffn.gate_proj", "ffn.up_proj", "ffn.down_proj", "attention.q_proj", "attention.k_proj",
               "attention.v_proj", NULL, NULL, NULL, NULL},
     .hidden = 1024, .ffn = 2816, .n_layers = 24, .heads = 8, .image = 224, .patch = 14, .act = "silu", .eps = 1e-5f, .rms = true, .gated = true},
    {.types = {"pixtral"}, .layers = "transformer.layers", .embed = "patch_conv", .pre_norm = "ln_pre",
     .names = {"attention_norm", "ffn_norm", NULL, "attention.o_proj", "feed_forward.gate_proj", "feed_forward.up_proj", "feed_forward.down_proj",
               "attention.q_proj", "attention.k_proj", "attention.v_proj", NULL, NULL, NULL, NULL},
     .hidden = 1024, .ffn = 4096, .n_layers = 24, .heads = 16, .image = 1024, .patch = 16, .act = "gelu", .eps = 1e-5f, .rms = true, .gated = true, .rope = true},
};

/* ---- configuration and weights -------------------------------------------------------------------------------------- */

static const struct tower_kind *kind_of(const char *type)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        for (const char *const *t = kinds[i].types; *t; t++)
            if (!strcmp(*t, type)) return &kinds[i];
    return NULL;
}

/* A side, or a pair of equal ones. */
static int read_side(config *c, const char *path, int fallback)
{
    int64_t side[2] = {fallback, fallback};
    int n = config_ints(c, path, side, 2);
    if (!c->failed && (side[0] < 1 || side[0] > 1 << 15 || (n == 2 && side[0] != side[1]))) config_fail(c, VLM_UNSUPPORTED, "%s: one side up to 32768 was expected", path);
    return (int)side[0];
}

/* Frequencies of a head: even ones turn with the row, odd ones with the column; rows first. */
static bool make_rope(image_tower *t, arena *memory, config *c)
{
    double theta = config_number(c, "vision_config.rope_theta|vision_config.rope_parameters.rope_theta", 10000);
    rope_table all = {0};
    if (c->failed || !(theta > 0) || t->vit.head_dim % 4) return config_fail(c, VLM_FORMAT, "vision_config: no 2-D rope for heads of %d, theta %g", t->vit.head_dim, theta);
    if (!rope_default(&all, memory, theta, t->vit.head_dim) || !rope_default(&t->rope, memory, theta, t->vit.head_dim)) return config_fail(c, VLM_MEMORY, "out of memory");
    int half = all.half / 2;
    if (t->kind->llama4) {         /* each half of them the frequencies of half a head */
        if (!rope_default(&all, memory, theta, t->vit.head_dim / 2)) return config_fail(c, VLM_MEMORY, "out of memory");
        for (int i = 0; i < t->rope.half; i++) {
            t->rope.inv_freq[i] = all.inv_freq[i % half];
            t->rope.axis[i] = i < half;
        }
        return t->vit.rope_pairs = true;
    }
    for (int i = 0; i < all.half; i++) {
        t->rope.inv_freq[i] = all.inv_freq[i < half ? 2 * i : 2 * (i - half) + 1];
        t->rope.axis[i] = i >= half;
    }
    return true;
}

/* 1: the first; 0: there is no such layer. */
static int layer_number(const image_tower *t, config *c, int feature_layer)
{
    int n = feature_layer < 0 ? t->layers + 1 + feature_layer : feature_layer;
    if (n >= 1 && n <= t->layers) return n;
    config_fail(c, VLM_FORMAT, "features of layer %d of %d layers of the vision tower", feature_layer, t->layers);
    return 0;
}

int image_tower_keep(image_tower *t, config *c, int feature_layer)
{
    int n = layer_number(t, c, feature_layer);
    if (n && t->n_kept == TOWER_KEEPS) config_fail(c, VLM_UNSUPPORTED, "features of more than %d layers of the vision tower", TOWER_KEEPS);
    if (!n || c->failed) return -1;
    if (n > t->depth) t->depth = n;
    t->kept[t->n_kept] = n;
    return t->n_kept++;
}

bool image_tower_config(image_tower *t, arena *memory, config *c, int feature_layer, bool post_norm)
{
    const char *type = config_string(c, "vision_config.model_type", "clip_vision_model");
    const struct tower_kind *k = c->failed ? NULL : kind_of(type);
    if (!k) return config_fail(c, VLM_UNSUPPORTED, "a vision tower \"%.60s\" (vision_config.model_type) is not known here", type);
    vit_spec *v = &t->vit;
    t->kind = k;
    v->hidden = t->width = (int)config_int(c, "vision_config.hidden_size", k->hidden, 1, 1 << 16);
    v->ffn = (int)config_int(c, "vision_config.intermediate_size", k->ffn, 1, 1 << 20);
    v->heads = (int)config_int(c, "vision_config.num_attention_heads", k->heads, 1, 1 << 10);
    t->layers = (int)config_int(c, "vision_config.num_hidden_layers", k->n_layers, 1, 1024);
    t->patch = read_side(c, "vision_config.patch_size", k->patch);
    t->image = read_side(c, "vision_config.image_size", k->image);
    v->act = config_activation(c, "vision_config.hidden_act|vision_config.hidden_activation", k->act);
    v->eps = (float)config_number(c, k->rms ? "vision_config.rms_norm_eps" : "vision_config.layer_norm_eps", k->eps);
    if (c->failed) return false;
    v->head_dim = (int)config_int(c, "vision_config.head_dim", v->hidden / v->heads, 1, 1 << 12);
    v->layernorm = !k->rms && strcmp(config_string(c, "vision_config.norm_type", "layer_norm"), "rms_norm");
    v->gated = k->gated;
    if (!config_has(c, "vision_config.head_dim") && v->hidden % v->heads)
        return config_fail(c, VLM_FORMAT, "vision_config: %d columns are no %d heads", v->hidden, v->heads);
    if (t->image < t->patch || t->patch > 256) return config_fail(c, VLM_FORMAT, "vision_config: no patches of %d in pictures of %d", t->patch, t->image);
    if (!(t->depth = layer_number(t, c, feature_layer))) return false;
    t->class_token = k->class_row != NULL;
    t->post_norm = post_norm && k->post_norm;
    t->names = k->names;
    if (config_bool(c, "vision_config.use_qk_norm", false)) { t->names.q_norm = "attention.q_norm"; t->names.k_norm = "attention.k_norm"; }
    t->flat = k->flat || k->patches;
    if (k->flat) {
        t->positions = (int)config_int(c, "vision_config.num_patches", k->flat, 1, 1 << 18);
        t->side = (int)sqrt((double)t->positions);
        if (!c->failed && t->side * t->side != t->positions) return config_fail(c, VLM_FORMAT, "vision_config.num_patches %d is no square", t->positions);
    } else if (k->table) t->positions = (t->image / t->patch) * (t->image / t->patch);
    if (!(t->layer = arena_alloc(memory, (size_t)t->layers * sizeof *t->layer))) return config_fail(c, VLM_MEMORY, "out of memory");
    return !c->failed && (!k->rope || make_rope(t, memory, c));
}

bool image_tower_config_features(image_tower *t, arena *memory, config *c, int feature_layer, const char *usual)
{
    int64_t layer[TOWER_KEEPS] = {feature_layer};
    int n = config_ints(c, "vision_feature_layer", layer, TOWER_KEEPS);
    const char *strategy = config_string(c, "vision_feature_select_strategy", usual);
    t->side_by_side = json_is_array(config_get(c, "vision_feature_layer"));
    for (int i = 0; i < n; i++)
        if (layer[i] < -1024 || layer[i] > 1024) return config_fail(c, VLM_FORMAT, "vision_feature_layer: numbers of layers were expected");
    if (c->failed || !image_tower_config(t, memory, c, (int)layer[0], false)) return false;
    if (t->class_token != !strcmp(strategy, "default")) return config_fail(c, VLM_UNSUPPORTED, "vision_feature_select_strategy \"%.20s\" with this tower", strategy);
    if (!t->side_by_side) return true;
    for (int i = 0; i < n && !c->failed; i++) image_tower_keep(t, c, (int)layer[i]);
    t->width = t->vit.hidden * n;
    return n > 0 ? !c->failed : config_fail(c, VLM_FORMAT, "vision_feature_layer is empty");
}

static void bind_norm(image_tower *t, binder *b, const char *name, const float **w, const float **bias)
{
    bind_vector(b, w, t->vit.hidden, "%s.weight", name);
    if (t->vit.layernorm) bind_vector(b, bias, t->vit.hidden, "%s.bias", name);
}

void image_tower_bind(image_tower *t, binder *b, const char *const *p)
{
    const struct tower_kind *k = t->kind;
    int64_t d = t->vit.hidden;
    bind_prefix(b, p[0], p[1], p[1] ? p[2] : NULL, p[1] && p[2] ? p[3] : NULL, p[1] && p[2] && p[3] ? p[4] : NULL,
                p[1] && p[2] && p[3] && p[4] ? p[5] : NULL, NULL);
    if (t->flat || k->llama4 || k->product) bind_linear(b, &t->embed, d, (int64_t)3 * t->patch * t->patch, "%s", k->embed);
    else bind_conv3d(b, &t->embed, d, 3, 1, t->patch, t->patch, "%s", k->embed);
    bind_vector_optional(b, &t->embed_bias, d, "%s.bias", k->embed);
    if (k->class_row) bind_vector(b, &t->class_row, d, "%s", k->class_row);
    if (k->table) bind_vector(b, &t->table, (t->positions + t->class_token) * d, "%s", k->table);
    if (k->pre_norm) bind_norm(t, b, k->pre_norm, &t->pre_norm, &t->pre_norm_bias);
    if (t->post_norm) bind_norm(t, b, k->post_norm, &t->last_norm, &t->last_norm_bias);
    if (t->post_norm && !t->vit.layernorm) bind_vector_optional(b, &t->last_norm_bias, d, "%s.bias", k->post_norm);        /* InternViT: a layer norm in any case */
    for (int i = 0; i < t->depth && !b->failed; i++) vit_bind_layer(&t->layer[i], &t->vit, b, k->layers, i, &t->names);
}

/* ---- encoder ---------------------------------------------------------------------------------------------------------- */

typedef struct tower_job {
    tower_image *image;
    int n;
    int32_t *starts;               /* [n + 1] rows of x, class rows included */
    const tower_view *view;        /* [n] or NULL */
    int32_t *see;                  /* vit_spec.see; NULL: everything is seen */
    tensor kept[TOWER_KEEPS];
    tensor cosine, sine;
} tower_job;

static tensor keep(run *r, arena *memory, int64_t rows, int64_t cols)
{
    tensor t = {NULL, DT_F32, rows, cols, cols};
    size_t bytes;
    if (!mem_mul((size_t)rows, (size_t)cols, &bytes) || !mem_mul(bytes, sizeof(float), &bytes) || !(t.data = arena_alloc_raw(memory, bytes)))
        run_fail(r, VLM_MEMORY, "out of memory for an encoder of %lld x %lld", (long long)rows, (long long)cols);
    return t;
}

static tensor copy_of(run *r, arena *memory, tensor x)
{
    tensor copy = keep(r, memory, x.rows, x.cols);
    for (int64_t i = 0; run_ok(r) && i < x.rows; i++) memcpy(tensor_row(copy, i), tensor_row(x, i), (size_t)x.cols * sizeof(float));
    return copy;
}

void image_tower_set_rows(run *r, encode_job *job, tensor x)
{
    if (!run_ok(r)) return;
    job->rows = copy_of(r, job->memory, x);
    if (run_ok(r)) TAP(r, "vit.rows", 0, job->rows);
}

/* In float32, step by step as the reference does it: i / n is compared with multiples of 1 / side. */
static void buckets(int n, int side, bool quotients, int32_t *out)
{
    double step = 1.0 / side;
    float part = 1.0f / (float)n, most = (float)(1.0 - 1e-6);
    int edges = (int)ceil((1.0 - step) / step);
    for (int i = 0, k = 0; i < n; i++) {
        float at = quotients ? (float)i / (float)n : (float)i * part;
        if (at > most) at = most;
        while (k < edges && (float)(step + k * step) <= at) k++;
        out[i] = k;
    }
}

void image_tower_buckets(const image_tower *t, int rows, int columns, int32_t *position)
{
    int side = t->image / t->patch;
    int32_t first[TOWER_MOST_PATCHES], second[TOWER_MOST_PATCHES];
    if (rows > TOWER_MOST_PATCHES || columns > TOWER_MOST_PATCHES) return; /* zeros: never with the sizes that processors give */
    buckets(rows, side, t->kind->quotients, first);
    buckets(columns, side, t->kind->quotients, second);
    for (int y = 0; y < rows; y++)
        for (int x = 0; x < columns; x++) *position++ = first[y] * side + second[x];
}

static int64_t patches_of(const image_tower *t, const tower_image *img) { return (int64_t)(img->height / t->patch) * (img->width / t->patch); }

static void rope_tables(run *r, const image_tower *t, encode_job *job, tower_job *j, int64_t n)
{
    int32_t *row = run_alloc(r, (size_t)n * sizeof *row), *column = run_alloc(r, (size_t)n * sizeof *column), *at = row, *to = column;
    j->cosine = keep(r, job->memory, n, t->rope.half);
    j->sine = keep(r, job->memory, n, t->rope.half);
    if (!run_ok(r)) return;
    int from = t->kind->llama4;                            /* where counting begins; the class row stays as it is, at 0 */
    for (int i = 0; i < j->n; i++) {
        for (int y = 0; y < j->image[i].height / t->patch; y++)
            for (int x = 0; x < j->image[i].width / t->patch; x++) { *at++ = y + from; *to++ = x + from; }
        for (int k = 0; k < t->class_token; k++) { *at++ = 0; *to++ = 0; }
    }
    const int32_t *axes[MAX_ROPE_AXES] = {row, column, column};
    rope_fill(&t->rope, axes, n, j->cosine, j->sine);
}

/* How many of their picture's rows the rows see. */
static bool see_some(run *r, encode_job *job, tower_job *j)
{
    if (!(j->see = arena_alloc(job->memory, (size_t)(j->starts[j->n] + 1) * sizeof *j->see))) return run_fail(r, VLM_MEMORY, "out of memory");
    for (int i = 0; i < j->n; i++)
        for (int32_t k = j->starts[i]; k < j->starts[i + 1]; k++) j->see[k] = j->view[i].seen ? j->view[i].seen : j->starts[i + 1] - j->starts[i];
    return true;
}

bool image_tower_start(run *r, const image_tower *t, encode_job *job, const tower_image *images, int n)
{
    return image_tower_start_views(r, t, job, images, NULL, n);
}

bool image_tower_start_views(run *r, const image_tower *t, encode_job *job, const tower_image *images, const tower_view *views, int n)
{
    tower_job *j = arena_alloc(job->memory, sizeof *j);
    if (j) *j = (tower_job){.n = n, .view = views, .image = arena_alloc(job->memory, (size_t)n * sizeof *j->image), .starts = arena_alloc(job->memory, (size_t)(n + 1) * sizeof *j->starts)};
    if (!j || !j->image || !j->starts) return run_fail(r, VLM_MEMORY, "out of memory");
    double seen = 0;
    for (int i = 0; i < n; i++) {
        int64_t patches = patches_of(t, &images[i]);
        if (patches < 1 || images[i].height % t->patch || images[i].width % t->patch || (t->positions && !t->side && !images[i].position && patches > t->positions))
            return run_fail(r, VLM_INTERNAL, "a picture of %d x %d does not fit the vision tower", images[i].width, images[i].height);
        j->image[i] = images[i];
        j->starts[i + 1] = j->starts[i] + (int32_t)patches + t->class_token;
        seen += (double)patches * (double)patches;
    }
    int64_t rows = j->starts[n];
    if (views && !see_some(r, job, j)) return false;
    if (t->rope.half) rope_tables(r, t, job, j, rows);
    job->x = keep(r, job->memory, rows, t->vit.hidden);
    job->family = j;
    job->stage = 0;
    job->stages = t->depth;
    job->cost = vit_layer_cost(&t->vit, (double)rows, rows ? seen / (double)rows : 0);
    return run_ok(r);
}

bool image_tower_start_tiles(run *r, const image_tower *t, encode_job *job)
{
    const processed *p = media_input_find(job->in, job->in->kind == MEDIA_VIDEO ? "pixel_values_videos" : "pixel_values");
    if (!p) p = media_input_find(job->in, "pixel_values");
    if (!p) p = media_input_find(job->in, "pixel_values_images");          /* Video-LLaVA */
    if (!p || p->dims < 4 || !p->data) return run_fail(r, VLM_INTERNAL, "no pixels to encode");
    int64_t tiles = 1, height = p->dim[p->dims - 2], width = p->dim[p->dims - 1];
    for (int d = 0; d < p->dims - 3; d++) tiles *= p->dim[d];
    tower_image *images = run_alloc(r, (size_t)(tiles + 1) * sizeof *images);
    for (int64_t i = 0; images && i < tiles; i++) images[i] = (tower_image){(const float *)p->data + i * 3 * height * width, (int)height, (int)width, NULL};
    return images && image_tower_start(r, t, job, images, (int)tiles);
}

/* Patches of a picture as rows [patches, 3 * patch * patch]. */
static void cut_patches(const image_tower *t, const tower_image *img, const tower_view *view, tensor rows)
{
    int p = t->patch, across = img->width / p;
    for (int64_t i = 0; i < rows.rows; i++) {
        float *out = tensor_row(rows, i);
        int64_t at = view ? view->order[i] : i;
        const float *corner = img->pixels + at / across * p * img->width + at % across * p;
        for (int c = 0; c < 3; c++)
            for (int y = 0; y < p; y++, out += p) memcpy(out, corner + ((int64_t)c * img->height + y) * img->width, (size_t)p * sizeof *out);
    }
}

/* 1 where the class row comes first. */
static int first_patch(const image_tower *t) { return t->class_token && !t->kind->llama4; }

static void add_row(float *x, const float *row, int64_t n)
{
    for (int64_t c = 0; c < n; c++) x[c] += row[c];
}

static void norm_in_place(run *r, const image_tower *t, tensor x)
{
    int32_t *index = run_alloc(r, (size_t)(x.rows + 1) * sizeof *index);
    for (int64_t i = 0; index && i < x.rows; i++) index[i] = (int32_t)i;
    op_scatter(r, x, t->vit.layernorm ? op_layernorm(r, x, t->pre_norm, t->pre_norm_bias, t->vit.eps) : op_rmsnorm(r, x, t->pre_norm, 0, t->vit.eps), index);
}

static void embed(run *r, const image_tower *t, const tower_job *j, tensor x)
{
    int64_t d = x.cols;
    for (int i = 0; i < j->n && run_ok(r); i++) {
        arena_mark mark = arena_get_mark(r->scratch);
        tensor rows = tensor_rows(x, j->starts[i], j->starts[i + 1] - j->starts[i]), patches = tensor_rows(rows, first_patch(t), rows.rows - t->class_token);
        tensor pixels = {(void *)(uintptr_t)j->image[i].pixels, DT_F32, patches.rows, t->embed.cols, t->embed.cols};
        if (!t->flat) pixels = run_tensor(r, patches.rows, t->embed.cols);
        if (!t->flat && run_ok(r)) cut_patches(t, &j->image[i], j->view ? &j->view[i] : NULL, pixels);
        op_linear_to(r, patches, pixels, &t->embed, t->embed_bias);
        if (t->kind->norm_first) norm_in_place(r, t, patches);
        int64_t last = first_patch(t) ? 0 : rows.rows - 1;                 /* the class's row, in the table too */
        if (t->class_token) memcpy(tensor_row(rows, last), t->class_row, (size_t)d * sizeof(float));
        if (t->class_token && t->table) add_row(tensor_row(rows, last), t->table + (last ? t->positions : 0) * d, d);
        if (t->side && run_ok(r)) op_add_inplace(r, patches, resample_table(r, t->table, t->side, d, j->image[i].height / t->patch, j->image[i].width / t->patch, false));
        for (int64_t k = 0; t->table && !t->side && run_ok(r) && k < patches.rows; k++)
            add_row(tensor_row(patches, k), t->table + (first_patch(t) + (j->image[i].position ? j->image[i].position[k] : k)) * d, d);
        arena_release(r->scratch, mark);
    }
    if (t->pre_norm && !t->kind->norm_first) norm_in_place(r, t, x);
    TAP(r, "vit.embed", 0, x);
}

bool image_tower_encode(run *r, const image_tower *t, encode_job *job)
{
    tower_job *j = job->family;
    int i = job->stage++;
    if (i == 0) embed(r, t, j, job->x);
    vit_spec spec = t->vit;
    if (j->see) spec.see = j->see;
    vit_layer_forward(r, &spec, &t->layer[i], i, job->x, j->cosine, j->sine, j->starts, j->n);
    for (int k = 0; k < t->n_kept && run_ok(r); k++)
        if (t->kept[k] == i + 1) j->kept[k] = copy_of(r, job->memory, job->x);
    return run_ok(r);
}

static tensor without_class(run *r, const image_tower *t, const tower_job *j, tensor x)
{
    if (!t->class_token) return x;
    int64_t n = 0;
    int32_t *index = run_alloc(r, (size_t)(x.rows + 1) * sizeof *index);
    for (int i = 0; index && i < j->n; i++)
        for (int32_t k = j->starts[i]; k < j->starts[i + 1] - 1; k++) index[n++] = k + first_patch(t);
    return op_gather(r, x, index, x.rows - j->n);
}

tensor image_tower_kept(run *r, const image_tower *t, const encode_job *job, int number)
{
    const tower_job *j = job->family;
    return without_class(r, t, j, j->kept[number]);
}

void image_tower_reduce(run *r, encode_job *job, tensor x, int by)
{
    tower_job *j = job->family;
    for (int64_t i = 0; run_ok(r) && i < x.rows; i++) memcpy(tensor_row(job->x, i), tensor_row(x, i), (size_t)x.cols * sizeof(float));
    job->x = tensor_rows(job->x, 0, x.rows);
    for (int i = 0; i <= j->n; i++) j->starts[i] /= by;
}

static tensor side_by_side(run *r, const image_tower *t, const encode_job *job)
{
    tensor out = {0};
    int64_t d = t->vit.hidden;
    for (int k = 0; k < t->n_kept && run_ok(r); k++) {
        tensor x = image_tower_kept(r, t, job, k);
        if (!k) out = run_tensor(r, x.rows, t->width);
        for (int64_t i = 0; run_ok(r) && i < x.rows; i++) memcpy(tensor_row(out, i) + k * d, tensor_row(x, i), (size_t)d * sizeof(float));
    }
    return out;
}

tensor image_tower_features(run *r, const image_tower *t, const encode_job *job)
{
    if (t->side_by_side) return side_by_side(r, t, job);
    tensor x = without_class(r, t, job->family, job->x);
    if (t->post_norm) x = t->last_norm_bias ? op_layernorm(r, x, t->last_norm, t->last_norm_bias, t->vit.eps) : op_rmsnorm(r, x, t->last_norm, 0, t->vit.eps);
    TAP(r, "vit.features", 0, x);
    return x;
}
