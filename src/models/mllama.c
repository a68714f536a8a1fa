/* mllama.c - Llama 3.2 Vision: pictures are read by cross-attention, not put in place of tokens.  https://arxiv.org/abs/2407.21783 (section 7)
 *
 *   picture -> the grid of 1 to 4 tiles that keeps most of it -> patches, class row + tables of positions and tiles -> layers -> norm
 *           -> + table of tiles -> gated layers ─┐
 *                    outputs of some layers ─────┴─> side by side -> linear: rows that some of Llama's layers look at (blocks/cross.h)
 *
 * Bites: a tile's rows are padded to a multiple of 8, and there are always max_num_tiles tiles; rows of padding are seen by all real rows, but do not
 * see each other. <|image|> is an ordinary token just behind the vocabulary: embed_tokens has 8 rows more than the head. A token sees the
 * pictures since the last <|image|>, pictures in a row together; tokens before the first one look at all rows, padding tiles included, and their MLPs in
 * those layers are silent: so what stands before a picture depends on it. Without any picture the layers are left out. */
#include "models/picture.h"
#include "models/text.h"

#include <math.h>
#include <string.h>

#include "base/err.h"
#include "blocks/vit.h"

enum { MOST_TAPS = 16, MOST_TILES = 32, PAD = 8, SPARE_ROWS = 8 };

typedef struct mllama {
    decoder text;
    picture_norm norm;
    vit_spec vit;
    int layers, global_layers, side, patch, patches, tiles, n_taps, ratios;
    int64_t tap[MOST_TAPS];
    int32_t image_token;

    vit_layer *layer;              /* [layers + global_layers] */
    weight embed, tile_table, before, after, project;
    const float *class_row, *table, *pre_norm, *pre_norm_bias, *post_norm, *post_norm_bias, *project_bias;
    float table_gate, before_gate, after_gate;
} mllama;

/* ---- configuration and weights -------------------------------------------------------------------------------------- */

static bool configure_text(mllama *v, vlm_model *m, config *c)
{
    static const int64_t usual[] = {3, 8, 13, 18, 23, 28, 33, 38};
    int64_t cross[DECODER_MAX_LAYERS];
    decoder_spec *s = &v->text.spec;
    if (!text_spec(s, &m->memory, c)) return false;
    int n = config_ints(c, "text_config.cross_attention_layers", cross, DECODER_MAX_LAYERS);
    if (!config_has(c, "text_config.cross_attention_layers")) { n = (int)(sizeof usual / sizeof *usual); memcpy(cross, usual, sizeof usual); }
    const decoder_layer_spec *l = &s->layer[0];
    s->cross = (cross_spec){l->heads, l->kv_heads, l->head_dim, s->eps};
    s->embed_rows = s->vocab + SPARE_ROWS;
    for (int i = 0; i < n && !c->failed; i++) {
        if (cross[i] < 0 || cross[i] >= s->layers) return config_fail(c, VLM_FORMAT, "cross_attention_layers names layer %lld of %d", (long long)cross[i], s->layers);
        s->layer[cross[i]].cross = true;
    }
    if (c->failed || !decoder_plan(&v->text, &m->memory, c)) return false;
    model_use_decoder(m, &v->text);
    m->more_vocab = SPARE_ROWS;
    return (n < s->layers && n > 0) || config_fail(c, VLM_FORMAT, "cross_attention_layers: some of the %d layers were expected", s->layers);
}

static bool configure(vlm_model *m, config *c)
{
    mllama *v = m->family = arena_alloc(&m->memory, sizeof *v);
    if (!v) return config_fail(c, VLM_MEMORY, "out of memory");
    if (!configure_text(v, m, c)) return false;
    vit_spec *s = &v->vit;
    *s = (vit_spec){.layernorm = true, .act = config_activation(c, "vision_config.hidden_act", "gelu")};
    s->hidden = (int)config_int(c, "vision_config.hidden_size", 1280, 1, 1 << 16);
    s->ffn = (int)config_int(c, "vision_config.intermediate_size", 5120, 1, 1 << 20);
    s->heads = (int)config_int(c, "vision_config.attention_heads|vision_config.num_attention_heads", 16, 1, 1 << 10);
    s->eps = (float)config_number(c, "vision_config.norm_eps", 1e-5);
    v->layers = (int)config_int(c, "vision_config.num_hidden_layers", 32, 1, 512);
    v->global_layers = (int)config_int(c, "vision_config.num_global_layers", 8, 1, 512);
    v->side = (int)config_int(c, "vision_config.image_size", 448, 1, 1 << 13);
    v->patch = (int)config_int(c, "vision_config.patch_size", 14, 1, 256);
    v->tiles = (int)config_int(c, "vision_config.max_num_tiles", 4, 1, MOST_TILES);
    v->image_token = (int32_t)config_int(c, "image_token_index|image_token_id", 128256, 0, INT32_MAX);
    v->n_taps = config_ints(c, "vision_config.intermediate_layers_indices", v->tap, MOST_TAPS);
    if (!config_has(c, "vision_config.intermediate_layers_indices")) { v->n_taps = 5; memcpy(v->tap, (int64_t[]){3, 7, 15, 23, 30}, 5 * sizeof(int64_t)); }
    v->ratios = (int)json_array_size(config_get(c, "vision_config.supported_aspect_ratios"));
    if (!v->ratios) v->ratios = 8;
    int64_t out = config_int(c, "vision_config.vision_output_dim", 7680, 1, 1 << 20);
    if (c->failed) return false;
    s->head_dim = s->hidden / s->heads;
    v->patches = (v->side / v->patch) * (v->side / v->patch) + 1;
    int grids = 0;
    for (int a = 1; a <= v->tiles; a++) grids += v->tiles / a;
    if (s->hidden % s->heads || v->side < v->patch) return config_fail(c, VLM_FORMAT, "vision_config: %d columns, %d heads, patches of %d in %d", s->hidden, s->heads, v->patch, v->side);
    if (v->ratios < grids) return config_fail(c, VLM_FORMAT, "vision_config: %d aspect ratios, %d grids of up to %d tiles", v->ratios, grids, v->tiles);
    if (out != (int64_t)s->hidden * (1 + v->n_taps)) return config_fail(c, VLM_FORMAT, "vision_output_dim is %lld, %d outputs of %d were expected", (long long)out, 1 + v->n_taps, s->hidden);
    for (int i = 0; i < v->n_taps; i++)
        if (v->tap[i] < 0 || v->tap[i] >= v->layers) return config_fail(c, VLM_FORMAT, "intermediate_layers_indices names layer %lld of %d", (long long)v->tap[i], v->layers);
    if (v->image_token >= v->text.spec.embed_rows)
        return config_fail(c, VLM_FORMAT, "image_token_index %d lies beyond the embedding (%d)", v->image_token, v->text.spec.embed_rows);
    config *p = m->processor;
    if (!picture_config(&v->norm, p, "image_processor", picture_half, RESIZE_BILINEAR)) return false;
    int64_t size = config_int(p, "image_processor.size.height", v->side, 1, 1 << 14), most = config_int(p, "image_processor.max_image_tiles", v->tiles, 1, MOST_TILES);
    if (!p->failed && (size != v->side || most != v->tiles))
        return config_fail(c, VLM_FORMAT, "the processor gives %lld tiles of %lld, the tower takes %d of %d", (long long)most, (long long)size, v->tiles, v->side);
    v->layer = arena_alloc(&m->memory, (size_t)(v->layers + v->global_layers) * sizeof *v->layer);
    return v->layer ? !c->failed && !p->failed : config_fail(c, VLM_MEMORY, "out of memory");
}

static float gate(binder *b, const char *name)
{
    const float *value = NULL;
    bind_vector(b, &value, 1, "%s", name);
    return value ? tanhf(*value) : 0;
}

/* What a gated layer adds is times tanh(gate): as columns. */
static void bind_gate(binder *b, const float **out, int64_t n, int i, const char *name)
{
    const float *value = NULL;
    bind_vector(b, &value, 1, "global_transformer.layers.%d.%s", i, name);
    float *columns = value ? arena_alloc(b->memory, (size_t)n * sizeof *columns) : NULL;
    if (value && !columns) bind_fail(b, VLM_MEMORY, "out of memory");
    for (int64_t c = 0; columns && c < n; c++) columns[c] = tanhf(*value);
    *out = columns;
}

static bool bind(vlm_model *m, binder *b)
{
    static const vit_names names = {"input_layernorm", "post_attention_layernorm", NULL, "self_attn.o_proj", NULL, "mlp.fc1", "mlp.fc2", "self_attn.q_proj",
                                    "self_attn.k_proj", "self_attn.v_proj", NULL, NULL, NULL, NULL};
    mllama *v = m->family;
    int64_t d = v->vit.hidden;
    decoder_bind(&v->text, b);
    bind_prefix(b, "vision_model.", "model.vision_model.", "vision_tower.", NULL);
    bind_conv3d(b, &v->embed, d, 3, 1, v->patch, v->patch, "patch_embedding");
    bind_vector(b, &v->class_row, d, "class_embedding");
    bind_vector(b, &v->table, v->patches * d, "gated_positional_embedding.embedding");
    bind_table(b, &v->tile_table, v->ratios + 1, (int64_t)v->tiles * v->patches * d, "gated_positional_embedding.tile_embedding");
    bind_table(b, &v->before, v->ratios + 1, v->tiles * d, "pre_tile_positional_embedding.embedding");
    bind_table(b, &v->after, v->ratios + 1, v->tiles * d, "post_tile_positional_embedding.embedding");
    v->table_gate = gate(b, "gated_positional_embedding.gate");
    v->before_gate = gate(b, "pre_tile_positional_embedding.gate");
    v->after_gate = gate(b, "post_tile_positional_embedding.gate");
    bind_vector(b, &v->pre_norm, d, "layernorm_pre.weight");
    bind_vector(b, &v->pre_norm_bias, d, "layernorm_pre.bias");
    bind_vector(b, &v->post_norm, d, "layernorm_post.weight");
    bind_vector(b, &v->post_norm_bias, d, "layernorm_post.bias");
    for (int i = 0; i < v->layers && !b->failed; i++) vit_bind_layer(&v->layer[i], &v->vit, b, "transformer.layers", i, &names);
    for (int i = 0; i < v->global_layers && !b->failed; i++) {
        vit_bind_layer(&v->layer[v->layers + i], &v->vit, b, "global_transformer.layers", i, &names);
        bind_gate(b, &v->layer[v->layers + i].scale1, d, i, "gate_attn");
        bind_gate(b, &v->layer[v->layers + i].scale2, d, i, "gate_ffn");
    }
    bind_prefix(b, "", "model.", NULL);
    bind_linear(b, &v->project, v->text.spec.hidden, d * (1 + v->n_taps), "multi_modal_projector");
    bind_vector(b, &v->project_bias, v->text.spec.hidden, "multi_modal_projector.bias");
    return !b->failed;
}

/* ---- processor ------------------------------------------------------------------------------------------------------ */

/* The grid (rows x columns of tiles) that enlarges the picture least, else shrinks it least; of equal ones the smaller. Returns its number, from 1. */
static int choose_grid(const mllama *v, const image *img, double most, int *rows, int *columns)
{
    double best = 0;
    int chosen = 0, id = 0;
    for (int a = 1; a <= v->tiles; a++)
        for (int b = 1; a * b <= v->tiles; b++) {
            double down = (double)(a * v->side) / img->height, across = (double)(b * v->side) / img->width, scale = across > down ? down : across;
            id++;
            if (a * b > fmax(most, 1)) continue;
            bool better = !chosen || (scale >= 1 ? best < 1 || scale < best : best < 1 && scale > best);
            if (!better && !(scale == best && a * b < *rows * *columns)) continue;
            best = scale, chosen = id, *rows = a, *columns = b;
        }
    return chosen;
}

static void fit_canvas(const image *img, int side, int rows, int columns, int *height, int *width)
{
    int most_width = columns * side, most_height = rows * side;
    int target_width = img->width < side ? side : img->width > most_width ? most_width : img->width;
    int target_height = img->height < side ? side : img->height > most_height ? most_height : img->height;
    double down = (double)target_height / img->height, across = (double)target_width / img->width;
    bool wide = across < down;
    double other = floor(wide ? img->height * across : img->width * down);
    if (other < 1) other = 1;
    *width = wide ? target_width : (int)fmin(other, target_width);
    *height = wide ? (int)fmin(other, target_height) : target_height;
}

static bool process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    const mllama *v = m->family;
    if (item->kind != MEDIA_IMAGE) return err_set(error, VLM_UNSUPPORTED, "%s takes images, no %s", m->arch->title, media_kind_name(item->kind));
    const image *img = &item->image;
    int rows = 1, columns = 1, height, width, side = v->side, id = choose_grid(v, img, media_option(item->part, options, "max_image_tiles", v->tiles), &rows, &columns);
    fit_canvas(img, side, rows, columns, &height, &width);
    float *pixels = picture_tiles(out, v->tiles, side, side, error);
    processed *ratio = media_input_add(out, "aspect_ratio_ids", DT_I64, 2, (const int64_t[]){1, 1});
    processed *mask = media_input_add(out, "aspect_ratio_mask", DT_I64, 3, (const int64_t[]){1, 1, v->tiles});
    if (!pixels || !ratio || !mask) return err_memory(error, 64);
    image resized;
    if (!image_resize(img, width, height, v->norm.filter, &resized, error)) return false;
    for (int t = 0; t < rows * columns; t++)
        picture_window(&v->norm, &resized, t % columns * side, t / columns * side, side, side, pixels + (int64_t)t * 3 * side * side);
    image_free(&resized);
    *(int64_t *)ratio->data = id;
    for (int t = 0; t < rows * columns; t++) ((int64_t *)mask->data)[t] = 1;
    out->kind = item->kind;
    out->grid[0] = id, out->grid[1] = rows, out->grid[2] = columns;
    out->rows = v->tiles * v->patches;
    return true;
}

static const char *placeholder(const vlm_model *m, media_kind kind)
{
    return kind == MEDIA_IMAGE ? tokenizer_token(m->tok, ((const mllama *)m->family)->image_token) : NULL;
}

/* A prompt without the begin token gets it, behind the pictures that it opens with. */
static bool rewrite(const vlm_model *m, const char *text, buf *out, vlm_error *error)
{
    const char *bos = tokenizer_role(m->tok, "bos_token"), *mark = placeholder(m, MEDIA_IMAGE);
    (void)error;
    if (!bos || strstr(text, bos)) return buf_adds(out, text);
    for (size_t n = mark ? strlen(mark) : 0; n && !strncmp(text, mark, n); text += n) buf_adds(out, mark);
    buf_adds(out, bos);
    return buf_adds(out, text);
}

/* ---- what tokens see -------------------------------------------------------------------------------------------------- */

/* Memory: tiles that show something, of all pictures; then the padding tiles. */
static bool plan_memory(const vlm_model *m, const int32_t *id, int n, media_input *const *media, int n_media, memory_plan *out, vlm_error *error)
{
    const mllama *v = m->family;
    int *place = MEM_ARRAY((size_t)n_media + 1, int), *start = MEM_ARRAY((size_t)n_media + 1, int), images = 0;
    bool ok = place && start;
    for (int i = 0; ok && i < n_media; i++) {
        int shown = media[i]->grid[1] * media[i]->grid[2] * v->patches;
        start[i + 1] = start[i] + shown;
        ok = memory_plan_add(out, i, 0, shown);
    }
    for (int i = 0; ok && i < n_media; i++) {
        int shown = media[i]->grid[1] * media[i]->grid[2] * v->patches;
        if (shown < media[i]->rows) ok = memory_plan_add(out, i, shown, media[i]->rows - shown);
    }
    ok = ok && (!n_media || ((out->from = MEM_ARRAY((size_t)n, int32_t)) && (out->to = MEM_ARRAY((size_t)n, int32_t))));
    int first = 0;                                 /* of the pictures that a token sees */
    for (int t = 0; ok && n_media && t < n; t++) {
        if (id[t] == v->image_token && images < n_media) {
            if (images && place[images - 1] != t - 1) first = images;
            place[images++] = t;
        }
        out->from[t] = start[first];
        out->to[t] = images ? start[images] : out->from[t];
    }
    mem_free(place);
    mem_free(start);
    return ok || err_memory(error, (size_t)n * sizeof(int32_t));
}

/* ---- encoder ------------------------------------------------------------------------------------------------------ */

/* Rows: [tiles shown][patches], [padding tiles][patches], then what pads each tile to a multiple of PAD. The first ones see everything, the others only those. */
typedef struct mllama_job { int32_t *see, *tile; int64_t kept; int shown; tensor taps[MOST_TAPS]; } mllama_job;

static tensor keep(run *r, arena *memory, int64_t rows, int64_t cols)
{
    tensor t = {arena_alloc(memory, (size_t)rows * (size_t)cols * sizeof(float)), DT_F32, rows, cols, cols};
    if (!t.data) run_fail(r, VLM_MEMORY, "out of memory for an encoder of %lld x %lld", (long long)rows, (long long)cols);
    return t;
}

static bool encode_start(run *r, const vlm_model *m, encode_job *job)
{
    const mllama *v = m->family;
    const media_input *in = job->in;
    int padded = (v->patches + PAD - 1) / PAD * PAD;
    int64_t rows = (int64_t)v->tiles * padded, kept = (int64_t)v->tiles * v->patches;
    mllama_job *j = job->family = arena_alloc(job->memory, sizeof *j);
    if (!j || !(j->see = arena_alloc(job->memory, (size_t)rows * sizeof *j->see)) || !(j->tile = arena_alloc(job->memory, (size_t)rows * sizeof *j->tile)))
        return run_fail(r, VLM_MEMORY, "out of memory");
    j->shown = in->grid[1] * in->grid[2];
    j->kept = kept;
    for (int64_t i = 0; i < rows; i++) {
        j->tile[i] = (int32_t)(i < kept ? i / v->patches : (i - kept) / (padded - v->patches));
        j->see[i] = i < (int64_t)j->shown * v->patches ? (int32_t)rows : j->shown * v->patches;
    }
    job->x = keep(r, job->memory, rows, v->vit.hidden);
    for (int i = 0; i < v->n_taps && run_ok(r); i++) j->taps[i] = keep(r, job->memory, kept, v->vit.hidden);
    job->stage = 0;
    job->stages = v->layers + v->global_layers;
    job->cost = vit_layer_cost(&v->vit, (double)rows, (double)rows);
    return run_ok(r);
}

static void add_row(float *x, const float *row, float factor, int64_t n)
{
    for (int64_t c = 0; c < n; c++) x[c] += factor * row[c];
}

static void embed(run *r, const mllama *v, const encode_job *job)
{
    const processed *p = media_input_find(job->in, "pixel_values");
    int side = v->side, patch = v->patch, across = side / patch;
    int64_t d = v->vit.hidden, n = v->patches - 1;
    int32_t id = job->in->grid[0];
    tensor before = op_embed(r, &v->before, &id, 1, v->before_gate), where = op_embed(r, &v->tile_table, &id, 1, v->table_gate);
    tensor pixels = run_tensor(r, n, v->embed.cols);
    if (run_ok(r) && (!p || !p->data)) run_fail(r, VLM_INTERNAL, "no pixels to encode");
    for (int t = 0; t < v->tiles && run_ok(r); t++) {
        arena_mark mark = arena_get_mark(r->scratch);
        const float *from = (const float *)p->data + (int64_t)t * 3 * side * side;
        for (int64_t i = 0; i < n; i++)
            for (int c = 0; c < 3; c++)
                for (int y = 0; y < patch; y++)
                    memcpy(tensor_row(pixels, i) + (c * patch + y) * patch, from + ((int64_t)c * side + i / across * patch + y) * side + i % across * patch, (size_t)patch * sizeof(float));
        tensor rows = tensor_rows(job->x, (int64_t)t * v->patches, v->patches);
        op_linear_to(r, tensor_rows(rows, 1, n), pixels, &v->embed, NULL);
        memcpy(tensor_row(rows, 0), v->class_row, (size_t)d * sizeof(float));
        for (int64_t i = 0; run_ok(r) && i < v->patches; i++) {
            if (i) add_row(tensor_row(rows, i), tensor_row(before, 0) + t * d, 1, d);
            add_row(tensor_row(rows, i), v->table + i * d, 1 - v->table_gate, d);
            add_row(tensor_row(rows, i), tensor_row(where, 0) + (t * v->patches + i) * d, 1, d);
        }
        tensor normed = op_layernorm(r, rows, v->pre_norm, v->pre_norm_bias, 1e-5f);
        if (run_ok(r)) memcpy(rows.data, normed.data, (size_t)(v->patches * d) * sizeof(float));
        arena_release(r->scratch, mark);
    }
    TAP(r, "vit.embed", 0, job->x);
}

/* Between the two transformers. */
static void pass_on(run *r, const mllama *v, const encode_job *job)
{
    const mllama_job *j = job->family;
    int32_t id = job->in->grid[0];
    tensor after = op_embed(r, &v->after, &id, 1, v->after_gate), normed = op_layernorm(r, job->x, v->post_norm, v->post_norm_bias, 1e-5f);
    for (int64_t i = 0; run_ok(r) && i < job->x.rows; i++) {
        memcpy(tensor_row(job->x, i), tensor_row(normed, i), (size_t)normed.cols * sizeof(float));
        add_row(tensor_row(job->x, i), tensor_row(after, 0) + j->tile[i] * normed.cols, 1, normed.cols);
    }
}

/* The last output, then the kept ones with their columns taking turns. */
static void connect(run *r, const mllama *v, encode_job *job)
{
    const mllama_job *j = job->family;
    int64_t d = v->vit.hidden;
    tensor all = run_tensor(r, j->kept, v->project.cols);
    for (int64_t i = 0; run_ok(r) && i < j->kept; i++) {
        float *out = memcpy(tensor_row(all, i), tensor_row(job->x, i), (size_t)d * sizeof *out);
        for (int k = 0; k < v->n_taps; k++)
            for (int64_t c = 0; c < d; c++) out[d + c * v->n_taps + k] = tensor_row(j->taps[k], i)[c];
    }
    job->rows = keep(r, job->memory, j->kept, v->text.spec.hidden);
    if (run_ok(r)) op_linear_to(r, job->rows, all, &v->project, v->project_bias);
}

static bool encode(run *r, const vlm_model *m, encode_job *job)
{
    const mllama *v = m->family;
    mllama_job *j = job->family;
    int i = job->stage++;
    vit_spec spec = v->vit;
    spec.see = j->see;
    if (i == 0) embed(r, v, job);
    if (i == v->layers) pass_on(r, v, job);
    const int32_t starts[2] = {0, (int32_t)job->x.rows};
    tensor none = {0};
    vit_layer_forward(r, &spec, &v->layer[i], i, job->x, none, none, starts, 1);
    for (int k = 0; k < v->n_taps && run_ok(r); k++)
        if (v->tap[k] == i) memcpy(j->taps[k].data, job->x.data, (size_t)(j->kept * v->vit.hidden) * sizeof(float));
    if (job->stage == job->stages) connect(r, v, job);
    return run_ok(r);
}

static bool remember(run *r, const vlm_model *m, const memory_fill *fill) { return decoder_remember(r, &((const mllama *)m->family)->text, fill); }
static tensor forward(run *r, const vlm_model *m, const batch *b) { return decoder_forward(r, &((const mllama *)m->family)->text, b); }

static const char *const types[] = {"mllama", NULL};

static const media_rules rules = {.image = "max_image_tiles", .low = "{\"max_image_tiles\": 1}"};

const vlm_arch vlm_arch_mllama = {
    .name = "mllama",
    .title = "Llama 3.2 Vision",
    .model_types = types,
    .rules = &rules,
    .task = TASK_GENERATE,
    .takes = TAKES_IMAGE,
    .configure = configure,
    .bind = bind,
    .process = process,
    .no_special_tokens = true,
    .placeholder = placeholder,
    .rewrite = rewrite,
    .plan_memory = plan_memory,
    .remember = remember,
    .encode_start = encode_start,
    .encode = encode,
    .forward = forward,
};
