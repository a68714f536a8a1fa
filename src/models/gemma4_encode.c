/* gemma4_encode.c - Gemma 4's media to decoder rows, in stages between which the engine may do other work.
 *
 * A stage is one layer of a tower over one group of frames: a long video goes through in groups of about as many patches as the largest
 * image has, so that neither a stage nor its scratch memory grows with the video. */
#include "models/gemma4.h"

#include <string.h>

enum { GROUP_PATCHES = 2520 };

typedef struct vision_job {
    gemma_vision_grid grid;        /* of a whole group */
    int group, groups;             /* frames in a group; number of groups */
} vision_job;

static tensor job_tensor(encode_job *job, run *r, int64_t rows, int64_t cols)
{
    void *data = arena_alloc_raw(job->memory, (size_t)(rows * cols) * sizeof(float));
    if (data == NULL) run_fail(r, VLM_MEMORY, "out of memory: %lld x %lld activations of an encoder", (long long)rows, (long long)cols);
    return (tensor){data, DT_F32, rows, cols, cols};
}

static tensor feature_rows(const processed *p, int64_t first, int64_t rows)
{
    return (tensor){(float *)p->data + first * p->dim[2], DT_F32, rows, p->dim[2], p->dim[2]};
}

/* ---- towers ------------------------------------------------------------------------------------------------------- */

static bool start_vision(run *r, const gemma4 *g, encode_job *job)
{
    const media_input *in = job->in;
    int frames = in->grid[0], patches = in->grid[1] * in->grid[2];
    vision_job *v = arena_alloc(job->memory, sizeof *v);
    if (v == NULL) return run_fail(r, VLM_MEMORY, "out of memory");
    v->group = GROUP_PATCHES / patches > 1 ? GROUP_PATCHES / patches : 1;
    if (v->group > frames) v->group = frames;
    v->groups = (frames + v->group - 1) / v->group;
    if (!gemma_vision_grid_init(&g->vision, &v->grid, job->memory, in->grid[2], in->grid[1], v->group)) {
        return run_fail(r, VLM_MEMORY, "out of memory: positions of %d patches", patches);
    }
    job->family = v;
    job->stages = v->groups * g->vision.layers;
    job->cost = gemma_vision_layer_flops(&g->vision, (int64_t)v->group * patches, patches);
    job->x = job_tensor(job, r, (int64_t)v->group * patches, g->vision.hidden);
    return run_ok(r);
}

static void stage_vision(run *r, const gemma4 *g, encode_job *job)
{
    const media_input *in = job->in;
    const vision_job *v = job->family;
    const processed *pixels = media_input_find(in, in->kind == MEDIA_VIDEO ? "pixel_values_videos" : "pixel_values");
    int layer = job->stage % g->vision.layers, first = job->stage / g->vision.layers * v->group;
    int frames = in->grid[0] - first < v->group ? in->grid[0] - first : v->group;
    int64_t patches = (int64_t)in->grid[1] * in->grid[2], tokens = in->tokens / in->grid[0];
    gemma_vision_grid grid = v->grid;              /* the last group may have fewer frames */
    grid.images = frames;
    grid.cosine.rows = grid.sine.rows = frames * patches;
    tensor x = tensor_rows(job->x, 0, frames * patches);
    if (layer == 0) {
        for (int f = 0; f < frames; f++) {
            gemma_vision_grid one = grid;
            one.images = 1;
            tensor part = feature_rows(pixels, (first + f) * pixels->dim[1], patches);
            gemma_vision_embed(r, &g->vision, &one, part, tensor_rows(x, f * patches, patches));
        }
    }
    gemma_vision_run_layer(r, &g->vision, &grid, layer, x);
    if (layer < g->vision.layers - 1) return;
    gemma_vision_finish(r, &g->vision, &grid, x, tensor_rows(job->rows, first * tokens, frames * tokens));
}

static bool start_audio(run *r, const gemma4 *g, encode_job *job)
{
    int64_t rows = job->in->tokens;
    job->stages = g->audio.layers + 1;
    job->cost = audio_encoder_layer_flops(&g->audio, rows);
    job->x = job_tensor(job, r, rows, g->audio.hidden);
    return run_ok(r);
}

static void stage_audio(run *r, const gemma4 *g, encode_job *job)
{
    const processed *features = media_input_find(job->in, "input_features");
    if (job->stage == 0) audio_encoder_embed(r, &g->audio, feature_rows(features, 0, job->in->frames), job->x);
    else audio_encoder_run_layer(r, &g->audio, job->stage - 1, job->x);
    if (job->stage == g->audio.layers) audio_encoder_finish(r, &g->audio, job->x, job->rows);
}

/* ---- gemma4_unified ----------------------------------------------------------------------------------------------- */

bool gemma4_embedder_config(gemma4 *g, config *c)
{
    gemma4_embedder *e = &g->embedder;
    e->width = (int)config_int(c, "vision_config.mm_embed_dim", 3840, 1, 1 << 16);
    e->positions = (int)config_int(c, "vision_config.mm_posemb_size", 1120, 1, 1 << 20);
    e->eps = (float)config_number(c, "vision_config.rms_norm_eps", 1e-6);
    e->frame = (int)config_int(c, "audio_config.audio_embed_dim", 640, 1, 1 << 16);
    e->audio_eps = (float)config_number(c, "audio_config.rms_norm_eps", 1e-6);
    return !c->failed;
}

void gemma4_embedder_bind(gemma4 *g, const vlm_model *m, binder *b)
{
    gemma4_embedder *e = &g->embedder;
    int64_t values = 3LL * g->image.patch * g->image.pool * g->image.patch * g->image.pool, d = e->width, out = m->hidden;
    if (m->takes & TAKES_AUDIO) bind_linear(b, &e->audio_project, out, e->frame, "embed_audio.embedding_projection");
    if (!(m->takes & TAKES_IMAGE)) return;
    bind_vector(b, &e->norm1, values, "vision_embedder.patch_ln1.weight");
    bind_vector(b, &e->norm1_bias, values, "vision_embedder.patch_ln1.bias");
    bind_linear(b, &e->dense, d, values, "vision_embedder.patch_dense");
    bind_vector(b, &e->dense_bias, d, "vision_embedder.patch_dense.bias");
    bind_vector(b, &e->norm2, d, "vision_embedder.patch_ln2.weight");
    bind_vector(b, &e->norm2_bias, d, "vision_embedder.patch_ln2.bias");
    bind_experts(b, &e->table, e->positions, 2, d, "vision_embedder.pos_embedding");
    bind_vector(b, &e->norm3, d, "vision_embedder.pos_norm.weight");
    bind_vector(b, &e->norm3_bias, d, "vision_embedder.pos_norm.bias");
    bind_linear(b, &e->project, out, d, "embed_vision.embedding_projection");
}

static void embed_frame(run *r, const gemma4 *g, const media_input *in, tensor pixels, tensor out)
{
    const gemma4_embedder *e = &g->embedder;
    weight table = e->table;                       /* row 2 p: x = p, row 2 p + 1: y = p */
    table.rows = 2 * table.experts;
    table.experts = 0;
    table.packed = NULL;
    int32_t *x_ids = run_alloc(r, (size_t)pixels.rows * sizeof *x_ids), *y_ids = run_alloc(r, (size_t)pixels.rows * sizeof *y_ids);
    for (int64_t i = 0; x_ids != NULL && y_ids != NULL && i < pixels.rows; i++) {
        x_ids[i] = (int32_t)(i % in->grid[2]) * 2;
        y_ids[i] = (int32_t)(i / in->grid[2]) * 2 + 1;
    }
    tensor h = op_layernorm(r, pixels, e->norm1, e->norm1_bias, 1e-5f);
    h = op_layernorm(r, op_linear(r, h, &e->dense, e->dense_bias), e->norm2, e->norm2_bias, 1e-5f);
    tensor place = op_embed(r, &table, x_ids, pixels.rows, 1.0f);
    op_add_inplace(r, place, op_embed(r, &table, y_ids, pixels.rows, 1.0f));
    op_add_inplace(r, h, place);
    h = op_layernorm(r, h, e->norm3, e->norm3_bias, 1e-5f);
    op_linear_to(r, out, op_rmsnorm(r, h, NULL, 0, e->eps), &e->project, NULL);
}

/* One frame, or all the audio, is a stage. */
static void stage_unified(run *r, const gemma4 *g, encode_job *job)
{
    const media_input *in = job->in;
    if (in->kind == MEDIA_AUDIO) {
        tensor samples = feature_rows(media_input_find(in, "input_features"), 0, in->tokens);
        op_linear_to(r, job->rows, op_rmsnorm(r, samples, NULL, 0, g->embedder.audio_eps), &g->embedder.audio_project, NULL);
        return;
    }
    const processed *pixels = media_input_find(in, in->kind == MEDIA_VIDEO ? "pixel_values_videos" : "pixel_values");
    int64_t patches = (int64_t)in->grid[1] * in->grid[2], frame = job->stage;
    embed_frame(r, g, in, feature_rows(pixels, frame * pixels->dim[1], patches), tensor_rows(job->rows, frame * patches, patches));
}

/* ---- both --------------------------------------------------------------------------------------------------------- */

bool gemma4_encode_start(run *r, const vlm_model *m, encode_job *job)
{
    const gemma4 *g = m->family;
    job->stage = 0;
    job->rows = job_tensor(job, r, job->in->tokens, m->hidden);
    if (!run_ok(r)) return false;
    if (g->unified) {
        job->stages = job->in->kind == MEDIA_AUDIO ? 1 : job->in->grid[0];
        job->cost = 2.0 * job->in->tokens / job->stages * g->embedder.width * (double)(g->embedder.dense.cols + m->hidden);
        return true;
    }
    return job->in->kind == MEDIA_AUDIO ? start_audio(r, g, job) : start_vision(r, g, job);
}

bool gemma4_encode(run *r, const vlm_model *m, encode_job *job)
{
    const gemma4 *g = m->family;
    if (g->unified) stage_unified(r, g, job);
    else if (job->in->kind == MEDIA_AUDIO) stage_audio(r, g, job);
    else stage_vision(r, g, job);
    job->stage++;
    return run_ok(r);
}
